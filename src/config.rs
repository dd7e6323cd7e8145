//! From what was given to what is meant: flags, environment and file in ([`Configuration`]), [`Settings`] out.
//!
//! Everything that can be known to be wrong without asking a server or the store is refused here, in one way: where the
//! value was given, the value (never a secret one), what is wrong, what would be right. After this nobody looks at a
//! raw argument again.

mod configuration;
pub mod file;
pub mod layer;
pub mod reference;
mod resolve;
mod stored;
#[cfg(test)]
mod tests;

use crate::connection_string::ConnectionString;
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::model::choice::{
    Against, CheckpointMode, CreateIndex, Existing, OnConflict, Orphans, ReadOrder, ReadPreference, ReadThrough, Verify,
};
use crate::model::document_filter::DocumentFilter;
use crate::model::execution::StateMachineArn;
use crate::model::filter::Filter;
use crate::model::job::Selection;
use crate::model::job_name::JobName;
use crate::model::limit::RateLimits;
use crate::model::namespace::Namespace;
use crate::model::renames::Renames;
use crate::model::system::IncludeSystem;
use crate::model::target_sharding::ShardingChoices;
use crate::telemetry::LogFormat;
pub use configuration::Configuration;
use layer::{Layers, RawArguments};
pub use resolve::function_log_level;
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tracing::Level;

/// Where the state is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateUrl {
    /// In a folder.
    Folder(PathBuf),
    /// In a bucket of S3, MinIO and the like.
    S3 {
        /// The bucket.
        bucket: String,
        /// What all keys start with, without a slash at either end; may be empty.
        prefix: String,
    },
}

impl fmt::Display for StateUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StateUrl::Folder(path) => path.display().fmt(f),
            StateUrl::S3 { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            StateUrl::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

/// Where commit writes MongoShake's checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum CheckpointUri {
    /// Into the target.
    #[default]
    Target,
    /// Nowhere: it is in the state alone.
    None,
    /// Into a third deployment.
    Uri(ConnectionString),
}

/// The connection strings of the parts of a cluster: all of them where there is no source, else those that were given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterUris {
    /// Of its config servers.
    pub config: Option<ConnectionString>,
    /// Of its shards: at least one, but for `abandon`.
    pub shards: Vec<ConnectionString>,
}

/// What is meant, complete and checked. `Debug` shows no secrets.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The job.
    pub job: JobName,
    /// Where its state is.
    pub state: StateUrl,
    /// Where S3 is, when it is not AWS's.
    pub s3_endpoint: Option<String>,
    /// The AWS account that the bucket must belong to; any when none.
    pub expected_bucket_owner: Option<String>,
    /// The state machine on AWS that works on the job; for `start` alone.
    pub state_machine: Option<StateMachineArn>,
    /// Where to copy from; [`Settings::source`] for whoever needs it.
    pub source: Option<ConnectionString>,
    /// The parts of the cluster to copy from: in place of a source, or beside one that is a mongos.
    pub cluster: Option<ClusterUris>,
    /// Through what a cluster is read; discover finds out when none.
    pub read: Option<ReadThrough>,
    /// Where to copy to; [`Settings::target`] for whoever needs it.
    pub target: Option<ConnectionString>,
    /// Certificate authorities for the source. With it, the connection is encrypted.
    pub source_ca: Option<PathBuf>,
    /// Certificate authorities for the target. With it, the connection is encrypted.
    pub target_ca: Option<PathBuf>,
    /// What is copied.
    pub filter: Filter,
    /// What it is called in the target.
    pub renames: Renames,
    /// Which documents are copied, of collections that are copied in part, by the source's names.
    pub filters: BTreeMap<Namespace, DocumentFilter>,
    /// Whether DBRefs in documents follow the renames.
    pub rename_dbrefs: bool,
    /// What is copied beside collections.
    pub include_system: IncludeSystem,
    /// What happens to collections that are in the target already.
    pub existing: Existing,
    /// They may be dropped although an earlier job committed them.
    pub drop_committed: bool,
    /// What happens to documents that a shard does not own.
    pub orphans: Orphans,
    /// Whether the balancer of a cluster is stopped for the time of the job.
    pub stop_balancer: bool,
    /// How collections are sharded in a target that is a sharded cluster.
    pub sharding: ShardingChoices,
    /// How many chunks a collection gets there at most before there are documents.
    pub max_initial_chunks: usize,
    /// What happens to a foreign document in the way.
    pub on_conflict: OnConflict,
    /// How many documents servers may refuse before the copy stops.
    pub max_rejected: u64,
    /// When indexes are built.
    pub create_index: CreateIndex,
    /// Whether the target refuses what a worker sends that has lost its lane.
    pub fence_writes: bool,
    /// Of how many collections indexes are built at once.
    pub index_parallelism: usize,
    /// Whether a digest of every document is taken while it is copied.
    pub digests: bool,
    /// For what kind of stream the checkpoint is; what the source is decides when none.
    pub checkpoint_mode: Option<CheckpointMode>,
    /// Where the checkpoint goes.
    pub checkpoint_uri: CheckpointUri,
    /// The collection for it.
    pub checkpoint_namespace: Namespace,
    /// Findings do not stop the commit.
    pub accept_findings: bool,
    /// What verify compares.
    pub verify: Verify,
    /// What it holds the target's documents against.
    pub against: Against,
    /// About how large the ranges are into which a collection is cut, in bytes.
    pub partition_size: u64,
    /// Into how many lanes a shard is divided: so many workers can copy it.
    pub lanes_per_shard: u32,
    /// How many lanes a state machine copies at once at most.
    pub max_lanes: u32,
    /// In which order collections are read.
    pub read_order: ReadOrder,
    /// Which members of the source are read.
    pub read_preference: ReadPreference,
    /// Under which time that is left of an oplog there is a warning; a quarter of what it was when none.
    pub min_oplog_window: Option<Duration>,
    /// What the whole process may hold, in bytes.
    pub memory: u64,
    /// How many partitions it reads at once at most.
    pub max_readers: usize,
    /// How many batches it sends at once at most.
    pub max_writers: usize,
    /// The most that all workers of the job send a second, until `control` says otherwise.
    pub rate_limits: RateLimits,
    /// When to begin to stop; never when none.
    pub time_budget: Option<Duration>,
    /// How long before its deadline an invocation begins to stop.
    pub margin: Duration,
    /// How often a lane saves: at most a third of the lease.
    pub save_interval: Duration,
    /// How long a silent worker counts as alive.
    pub lease: Duration,
    /// Claim what another worker seems to hold.
    pub takeover: bool,
    /// Everything is read, and nothing is written: neither to a server nor to the state.
    pub dry_run: bool,
    /// Only this shard's lanes.
    pub shard: Option<String>,
    /// Only this lane, numbered within its shard. Without a shard it means the only one: whoever knows the shards has to
    /// refuse it where there are several.
    pub lane: Option<u32>,
    /// Only this collection, by its name in the source.
    pub namespace: Option<Namespace>,
    /// Where progress is served over HTTP; nowhere when none.
    pub http: Option<SocketAddr>,
    /// How results and logs look.
    pub log_format: LogFormat,
    /// The least important lines to log.
    pub log_level: Level,
    /// No progress.
    pub quiet: bool,
    /// What the user should hear about the settings, though nothing is wrong; to be logged as warnings.
    pub notices: Vec<String>,
}

impl Settings {
    /// The source, or what to do when there is none.
    pub fn source(&self) -> Result<&ConnectionString> {
        self.source.as_ref().ok_or_else(|| missing("source"))
    }

    /// The target, or what to do when there is none.
    pub fn target(&self) -> Result<&ConnectionString> {
        self.target.as_ref().ok_or_else(|| missing("target"))
    }

    /// What is copied, and under which names.
    pub fn selection(&self) -> Selection {
        Selection {
            filter: self.filter.clone(),
            renames: self.renames.clone(),
            filters: self.filters.clone(),
            rename_dbrefs: self.rename_dbrefs,
        }
    }
}

/// Whether errors should be JSON, for those that come up before there are settings. What is wrong with the value itself
/// is told later.
pub fn wants_json(flags: &RawArguments, environment: &Environment) -> bool {
    let layers = Layers { flags: flags.clone(), environment: environment.clone(), file: None };
    layers.given("log-format").is_some_and(|given| given.text() == "json")
}

fn missing(name: &str) -> Error {
    let variable = layer::find(name).map(layer::Setting::variable).unwrap_or_default();
    Error::bad_input(format!(
        "no {name} is given; set {variable}, or `{name}` in {}, or --{name} URI",
        file::DEFAULT_NAME
    ))
}
