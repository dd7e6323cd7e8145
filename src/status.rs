//! How far a job is, from the state store alone: no server is asked, nothing is changed, and it works while the job
//! runs anywhere. All counts come from saved documents, so they never go down.

mod derive;
mod reader;
#[cfg(test)]
pub mod samples;
pub mod text;

pub use reader::Reader;

use crate::control::ControlStatus;
use crate::error::Result;
use crate::model::catalog::Ordinal;
use crate::model::counts::Counts;
use crate::model::finding::{Finding, Note};
use crate::model::namespace::Namespace;
use crate::model::speed::{Moved, Rate};
use crate::model::step::Step;
use crate::model::work::Building;
use crate::state::document::Documents;
use serde::Serialize;
use std::collections::BTreeMap;

/// How a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum JobStatus {
    /// A worker is at it.
    Running,
    /// A worker is at the copy, and sends nothing until `mongoferry control … resume`.
    Paused,
    /// Its worker ran out of time, or was told to stop; the same command goes on.
    Yielded,
    /// Nobody is at it: killed, or between two commands; the same command goes on.
    Stopped,
    /// A person must mend or accept something.
    Findings,
    /// Its worker stopped at an error.
    Failed,
    /// All steps are done.
    Done,
    /// It was given up.
    Abandoned,
}

/// How far a job is: the object that `status --json` prints.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// The job's name.
    pub job: String,
    /// Its random id; none before it was discovered.
    pub id: Option<String>,
    /// How it stands.
    pub status: JobStatus,
    /// Why, when it failed.
    pub error: Option<String>,
    /// How much of the documents is copied, by their bytes: from 0 to 100, with one decimal. None before it is planned.
    pub percent: Option<f64>,
    /// How fast the lanes are that are being copied, each over the time since it was claimed. None when none is, or
    /// when it cannot be known.
    pub rate: Option<Rate>,
    /// How long the rest of the documents takes at that rate, in seconds. None when that cannot be known.
    pub eta_seconds: Option<u64>,
    /// The steps, in order.
    pub steps: Vec<StepStatus>,
    /// Documents.
    pub documents: Amounts,
    /// Their bytes.
    pub bytes: Amounts,
    /// The namespaces that are copied.
    pub namespaces: Vec<NamespaceStatus>,
    /// The lanes.
    pub lanes: Vec<LaneStatus>,
    /// The indexes that are being built in the index step.
    pub builds: Vec<BuildStatus>,
    /// What `control` has said.
    pub control: ControlStatus,
    /// What a person must mend or accept.
    pub findings: Vec<Finding>,
    /// What a person should know.
    pub notes: Vec<Note>,
    /// The checkpoints by the names that MongoShake looks for (`ckptMap`), once captured.
    pub checkpoint: Option<BTreeMap<String, CheckpointStatus>>,
    /// How far the oplogs reach back behind it, by the name of the replica set. None before one was looked at.
    pub oplog: Option<BTreeMap<String, OplogStatus>>,
    /// By the run that holds any work: when the one that was saved longest ago was saved.
    #[serde(skip)]
    pub saved_by: BTreeMap<String, String>,
}

/// A step.
#[derive(Debug, Clone, Serialize)]
pub struct StepStatus {
    /// Its name.
    pub step: Step,
    /// `pending`, `running`, `paused`, `yielded`, `stopped`, `findings`, `failed`, `done` or `abandoned`.
    pub status: String,
    /// When it was first claimed.
    pub started: Option<String>,
    /// When it was done.
    pub finished: Option<String>,
    /// Its result in a sentence.
    pub summary: String,
    /// How many collections it is through with, for copy, index and verify.
    pub collections: Option<Part>,
    /// How often it, or any of its parts, was claimed, and how many parts were.
    #[serde(skip)]
    pub claims: Part,
}

/// So many of so many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Part {
    /// Those that are done.
    pub done: usize,
    /// All of them.
    pub total: usize,
}

/// Counts of documents, or of their bytes.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Amounts {
    /// As the source's metadata said at discover.
    pub estimated_total: u64,
    /// Read from the source.
    pub read: u64,
    /// On the target as they should be.
    pub written: u64,
    /// Those of `written` that were brought to a newer version.
    pub replaced: u64,
    /// Not on the target.
    pub rejected: u64,
    /// Documents only: sent once more after a crash.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replayed: Option<u64>,
}

/// A namespace.
#[derive(Debug, Clone, Serialize)]
pub struct NamespaceStatus {
    /// On the source.
    pub namespace: Namespace,
    /// On the target, once planned.
    pub target: Option<Namespace>,
    /// `planned`, `copying` or `copied`, or `left out` for a kind that is not copied. Views are copied by prepare.
    pub status: &'static str,
    /// As the source's metadata said at discover.
    pub estimated_total: u64,
    /// Documents on the target as they should be.
    pub written: u64,
    /// Documents not on the target.
    pub rejected: u64,
    /// The size of its documents as the source's metadata said at discover.
    pub estimated_bytes: u64,
    /// The size of those on the target as they should be.
    pub written_bytes: u64,
    /// How much of it is copied, as for the whole job. None before it is planned, and for what is not copied.
    pub percent: Option<f64>,
    /// Its partitions.
    pub partitions: u32,
    /// Those that are finished.
    pub finished: u32,
    /// What is left of it.
    #[serde(skip)]
    left: Moved,
    /// Its place in the catalog.
    #[serde(skip)]
    pub ordinal: Ordinal,
    /// What its partitions and repairs have moved.
    #[serde(skip)]
    pub counts: Counts,
    /// Its share of index.
    #[serde(skip)]
    pub index: Option<Share>,
    /// Its share of verify.
    #[serde(skip)]
    pub verify: Option<Share>,
}

/// How one collection's share of a step stands.
#[derive(Debug, Clone)]
pub struct Share {
    /// As a step's.
    pub status: &'static str,
    /// When it was first claimed.
    pub started: String,
    /// When it was done.
    pub finished: Option<String>,
}

/// A lane.
#[derive(Debug, Clone, Serialize)]
pub struct LaneStatus {
    /// Its shard.
    pub shard: String,
    /// Its number within the shard.
    pub lane: u32,
    /// The first partition of a tail that this lane gave away; left out for the lane itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<u32>,
    /// As a step's.
    pub status: String,
    /// How often it was claimed.
    pub epoch: u64,
    /// The machine of the worker that holds it.
    pub host: Option<String>,
    /// When it was last saved.
    pub saved: Option<String>,
    /// Its partitions.
    pub partitions: u32,
    /// Those that are finished.
    pub finished: u32,
    /// Documents on the target as they should be.
    pub written: u64,
    /// Their size.
    pub written_bytes: u64,
    /// How fast it is since it was last claimed. None when nobody is at it, or when it cannot be known.
    pub rate: Option<Rate>,
}

/// Indexes of one collection that the target is building.
#[derive(Debug, Clone, Serialize)]
pub struct BuildStatus {
    /// The collection on the source.
    pub namespace: Namespace,
    /// How far the server is, as it was last asked.
    #[serde(flatten)]
    pub building: Building,
}

impl LaneStatus {
    /// What it is called within its shard: `3`, or `3.500` for the tail from partition 500 on.
    pub fn within_shard(&self) -> String {
        self.from.map_or_else(|| self.lane.to_string(), |from| format!("{}.{from}", self.lane))
    }
}

/// A checkpoint.
#[derive(Debug, Clone, Serialize)]
pub struct CheckpointStatus {
    /// Seconds since 1970.
    pub seconds: u32,
    /// The count within that second.
    pub increment: u32,
    /// Both as MongoShake writes them.
    pub ckpt: i64,
}

/// An oplog, as it was when it was last looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct OplogStatus {
    /// For how many seconds it still reaches back behind the checkpoint: about so long it takes until it does no more. None
    /// when it does no more.
    pub seconds_left: Option<u64>,
    /// By how many seconds it did when the checkpoint was captured.
    pub seconds_at_checkpoint: u64,
}

impl Status {
    /// What the copy is through with.
    pub fn moved(&self) -> Moved {
        Moved { documents: self.documents.read, bytes: self.bytes.read }
    }

    /// What is left to copy, as far as the estimates of the unfinished collections go.
    pub fn left(&self) -> Moved {
        self.namespaces.iter().map(|namespace| namespace.left).sum()
    }

    /// The step that it is in: the first one that is not done.
    pub fn step(&self) -> Option<&StepStatus> {
        self.steps.iter().find(|step| step.status != "done")
    }
}

impl JobStatus {
    /// All of them.
    pub const ALL: [JobStatus; 8] = [
        JobStatus::Running,
        JobStatus::Paused,
        JobStatus::Yielded,
        JobStatus::Stopped,
        JobStatus::Findings,
        JobStatus::Failed,
        JobStatus::Done,
        JobStatus::Abandoned,
    ];

    /// Its word, as in JSON.
    pub fn word(self) -> &'static str {
        match self {
            JobStatus::Running => "running",
            JobStatus::Paused => "paused",
            JobStatus::Yielded => "yielded",
            JobStatus::Stopped => "stopped",
            JobStatus::Findings => "findings",
            JobStatus::Failed => "failed",
            JobStatus::Done => "done",
            JobStatus::Abandoned => "abandoned",
        }
    }
}

/// Everything about a job, or `None` when the store has nothing of it.
///
/// # Errors
/// Those of the state store.
pub async fn read(documents: &Documents, name: &str) -> Result<Option<Status>> {
    Reader::new(documents.clone()).status(name).await
}

impl Reader {
    /// The same once more, reading only what may have changed.
    ///
    /// # Errors
    /// Those of the state store.
    pub async fn status(&mut self, name: &str) -> Result<Option<Status>> {
        Ok(self.read().await?.map(|facts| derive::status(name, facts)))
    }
}
