//! The flags of the commands, in the groups that the help shows, each of which more than one command may have.

use crate::config::layer::{self, RawArguments};
use clap::builder::{PossibleValue, TypedValueParser};
use clap::{Args, ValueHint};
use std::ffi::OsStr;

/// What is said of a job, whoever works at it.
#[derive(Args)]
pub(super) struct CopyFlags {
    #[command(flatten)]
    job: JobFlag,
    #[command(flatten)]
    store: StoreFlags,
    #[command(flatten)]
    deployments: DeploymentFlags,
    #[command(flatten)]
    selection: SelectionFlags,
    #[command(flatten)]
    target: TargetFlags,
    #[command(flatten)]
    reading: ReadingFlags,
    #[command(flatten)]
    verifying: VerifyingFlags,
    #[command(flatten)]
    resources: ResourceFlags,
    #[command(flatten)]
    limits: LimitFlags,
}

impl CopyFlags {
    pub(super) fn take_into(&self, raw: &mut RawArguments) {
        self.job.take_into(raw);
        self.store.take_into(raw);
        self.deployments.take_into(raw);
        self.selection.take_into(raw);
        self.target.take_into(raw);
        self.reading.take_into(raw);
        self.verifying.take_into(raw);
        self.resources.take_into(raw);
        self.limits.take_into(raw);
    }
}

/// Which job, for what is told from its state alone.
#[derive(Args)]
pub(super) struct StateFlags {
    #[command(flatten)]
    job: JobFlag,
    #[command(flatten)]
    store: StoreFlags,
    #[command(flatten)]
    log: LogFlags,
}

impl StateFlags {
    pub(super) fn take_into(&self, raw: &mut RawArguments) {
        self.job.take_into(raw);
        self.store.take_into(raw);
        self.log.take_into(raw);
    }
}

#[derive(Args)]
#[command(next_help_heading = "Job and state")]
pub(super) struct JobFlag {
    /// The job's name: up to 100 letters, digits, `.`, `_` and `-`. `abandon` wants it said [default: default] [env:
    /// MONGOFERRY_JOB]
    #[arg(long, value_name = "NAME")]
    job: Option<String>,
}

impl JobFlag {
    pub(super) fn take_into(&self, raw: &mut RawArguments) {
        raw.set("job", &self.job);
    }
}

#[derive(Args)]
#[command(next_help_heading = "Job and state")]
pub(super) struct StoreFlags {
    /// A TOML file with settings; an unknown key is an error [default: mongoferry.toml in the working directory, when it is
    /// there] [env: MONGOFERRY_CONFIG]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    config: Option<String>,
    /// Where the state is kept: a folder, or s3://bucket/prefix [default: ./mongoferry-state] [env: MONGOFERRY_STATE]
    #[arg(long, value_name = "URL", value_hint = ValueHint::DirPath)]
    state: Option<String>,
    /// The address of MinIO and the like, http:// or https://, used path-style. Credentials and region are found as the
    /// AWS SDK finds them [default: AWS] [env: MONGOFERRY_S3_ENDPOINT]
    #[arg(long, value_name = "URL", value_hint = ValueHint::Url)]
    s3_endpoint: Option<String>,
    /// The AWS account that the bucket must belong to, 12 digits; a bucket of the same name in another account is refused
    /// [default: not checked] [env: MONGOFERRY_EXPECTED_BUCKET_OWNER]
    #[arg(long, value_name = "ACCOUNT")]
    expected_bucket_owner: Option<String>,
}

impl StoreFlags {
    pub(super) fn take_into(&self, raw: &mut RawArguments) {
        raw.set("config", &self.config);
        raw.set("state", &self.state);
        raw.set("s3-endpoint", &self.s3_endpoint);
        raw.set("expected-bucket-owner", &self.expected_bucket_owner);
    }
}

#[derive(Args)]
#[command(next_help_heading = "Source and target")]
pub(super) struct DeploymentFlags {
    /// Where to copy from, the connection string of a replica set or a mongos; better in the environment, since everybody can
    /// read it in `ps`, or, here and wherever a URI or a PEM file is expected, a reference: secretsmanager://NAME,
    /// ssm:///path/name [env: MONGOFERRY_SOURCE]
    #[arg(long, value_name = "URI", value_hint = ValueHint::Url)]
    source: Option<String>,
    /// A shard of a sharded cluster, read directly, once for each shard; in place of --source, together with
    /// --source-config, or beside a mongos that knows others of their addresses; in the environment with spaces between
    /// [env: MONGOFERRY_SOURCE_SHARD]
    #[arg(long, value_name = "URI", value_hint = ValueHint::Url)]
    source_shard: Vec<String>,
    /// The config servers of that cluster, which know what each shard owns [env: MONGOFERRY_SOURCE_CONFIG]
    #[arg(long, value_name = "URI", value_hint = ValueHint::Url)]
    source_config: Option<String>,
    /// With a mongos as --source: read each shard directly, side by side, or all of them through the mongos; discover decides
    /// it for good [default: shards, where all of them can be reached] [env: MONGOFERRY_READ]
    #[arg(long, value_name = "CHOICE", value_parser = Suggested(layer::READ))]
    read: Option<String>,
    /// Where to copy to, a connection string [env: MONGOFERRY_TARGET]
    #[arg(long, value_name = "URI", value_hint = ValueHint::Url)]
    target: Option<String>,
    /// Certificate authorities for the source, a PEM file, where the URI does not name them [env: MONGOFERRY_SOURCE_CA]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    source_ca: Option<String>,
    /// Certificate authorities for the target, a PEM file, where the URI does not name them [env: MONGOFERRY_TARGET_CA]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    target_ca: Option<String>,
}

impl DeploymentFlags {
    pub(super) fn take_into(&self, raw: &mut RawArguments) {
        raw.set("source", &self.source);
        raw.set("source-shard", &self.source_shard);
        raw.set("source-config", &self.source_config);
        raw.set("read", &self.read);
        raw.set("target", &self.target);
        raw.set("source-ca", &self.source_ca);
        raw.set("target-ca", &self.target_ca);
    }
}

#[derive(Args)]
#[command(next_help_heading = "What is copied")]
pub(super) struct SelectionFlags {
    /// Copy only this: `db`, `db.*` (the same) or `db.collection`, where `*` within a name stands for any characters; repeated
    /// or comma-separated [default: everything] [env: MONGOFERRY_INCLUDE]
    #[arg(long, value_name = "NS")]
    include: Vec<String>,
    /// Do not copy this, whatever is included; written as for --include [default: nothing] [env: MONGOFERRY_EXCLUDE]
    #[arg(long, value_name = "NS")]
    exclude: Vec<String>,
    /// Give it another name in the target: `db:db2` or `db.a:db2.b`; repeated or comma-separated, the more specific one
    /// wins [default: none] [env: MONGOFERRY_RENAME]
    #[arg(long, value_name = "FROM:TO")]
    rename: Vec<String>,
    /// Whether DBRefs in documents (`{$ref, $id}`, perhaps with `$db`) follow --rename [default: no] [env:
    /// MONGOFERRY_RENAME_DBREFS]
    #[arg(long, value_name = "YES/NO", value_parser = Suggested(layer::YES_NO))]
    rename_dbrefs: Option<String>,
    /// Copy these as well, at the end: functions of `system.js`, roles that somebody has made, users with their
    /// credentials; of the databases that are copied, and those of `admin` where there is no --include; repeated or
    /// comma-separated [default: none] [env: MONGOFERRY_INCLUDE_SYSTEM]
    #[arg(long, value_name = "WHAT", value_parser = Suggested(layer::INCLUDE_SYSTEM))]
    include_system: Vec<String>,
    /// Documents that a shard has and does not own: leave them out and count them, copy them, or stop at the first one
    /// [default: skip] [env: MONGOFERRY_ORPHANS]
    #[arg(long, value_name = "CHOICE", value_parser = Suggested(layer::ORPHANS))]
    orphans: Option<String>,
}

impl SelectionFlags {
    pub(super) fn take_into(&self, raw: &mut RawArguments) {
        raw.set("include", &self.include);
        raw.set("exclude", &self.exclude);
        raw.set("rename", &self.rename);
        raw.set("rename-dbrefs", &self.rename_dbrefs);
        raw.set("include-system", &self.include_system);
        raw.set("orphans", &self.orphans);
    }
}

#[derive(Args)]
#[command(next_help_heading = "In the target")]
pub(super) struct TargetFlags {
    /// When a collection of that name exists: stop; drop it; or keep it and put the documents beside what is there, where
    /// another document with the same `_id` stays and is a finding [default: refuse] [env: MONGOFERRY_EXISTING]
    #[arg(long, value_name = "CHOICE", value_parser = Suggested(layer::EXISTING))]
    existing: Option<String>,
    /// With --existing drop: drop also what an earlier job has committed, and what may be live by now
    #[arg(long)]
    drop_committed: bool,
    #[command(flatten)]
    sharding: ShardingFlags,
    #[command(flatten)]
    refused: RefusedFlags,
    /// Build indexes not at all; in the background, while documents arrive (unique and TTL indexes wait for the end); or
    /// when all documents are there [default: foreground] [env: MONGOFERRY_CREATE_INDEX]
    #[arg(long, value_name = "CHOICE", value_parser = Suggested(layer::CREATE_INDEX))]
    create_index: Option<String>,
    /// Of how many collections indexes are built at once, 1 to 64; a server does as many as its
    /// maxNumActiveUserIndexBuilds says, by default 3 [default: 3] [env: MONGOFERRY_INDEX_PARALLELISM]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    index_parallelism: Option<String>,
    /// Whether the target refuses what a worker sends that has lost its lane to another one; it costs the target more the
    /// smaller the documents are [default: no] [env: MONGOFERRY_FENCE_WRITES]
    #[arg(long, value_name = "CHOICE", value_parser = Suggested(layer::YES_NO))]
    fence_writes: Option<String>,
    /// Whether a digest of every document is taken while it is copied, which --verify full compares with; without it the copy
    /// takes a third less of the processor [default: yes] [env: MONGOFERRY_DIGESTS]
    #[arg(long, value_name = "CHOICE", value_parser = Suggested(layer::YES_NO))]
    digests: Option<String>,
    /// For what the checkpoint is: for a reader of oplogs, one for each shard; for change streams, one for the whole source;
    /// or for nothing, where no oplog can be read. discover decides it for good [default: oplog; change-stream for a mongos of
    /// which a shard cannot be reached] [env: MONGOFERRY_CHECKPOINT_MODE]
    #[arg(long, value_name = "CHOICE", value_parser = Suggested(layer::CHECKPOINT_MODES))]
    checkpoint_mode: Option<String>,
    /// Where commit writes MongoShake's checkpoint: a connection string, or `none` to keep it in the state alone [default:
    /// the target] [env: MONGOFERRY_CHECKPOINT_URI]
    #[arg(long, value_name = "URI|none", value_hint = ValueHint::Url)]
    checkpoint_uri: Option<String>,
    /// The collection for it, as MongoShake's `checkpoint.storage.db` and `.collection` name it [default:
    /// mongoshake.ckpt_default] [env: MONGOFERRY_CHECKPOINT_NAMESPACE]
    #[arg(long, value_name = "NS")]
    checkpoint_namespace: Option<String>,
    /// Go on to commit although there are findings
    #[arg(long)]
    accept_findings: bool,
}

impl TargetFlags {
    pub(super) fn take_into(&self, raw: &mut RawArguments) {
        raw.set("existing", &self.existing);
        raw.drop_committed = self.drop_committed;
        self.sharding.take_into(raw);
        self.refused.take_into(raw);
        raw.set("create-index", &self.create_index);
        raw.set("index-parallelism", &self.index_parallelism);
        raw.set("fence-writes", &self.fence_writes);
        raw.set("digests", &self.digests);
        raw.set("checkpoint-mode", &self.checkpoint_mode);
        raw.set("checkpoint-uri", &self.checkpoint_uri);
        raw.set("checkpoint-namespace", &self.checkpoint_namespace);
        raw.accept_findings = self.accept_findings;
    }
}

#[derive(Args)]
#[command(next_help_heading = "In the target")]
pub(super) struct ShardingFlags {
    /// On a target that is a sharded cluster: do not shard this, by the source's name, written as for --include [default:
    /// none] [env: MONGOFERRY_KEEP_UNSHARDED]
    #[arg(long, value_name = "NS")]
    keep_unsharded: Vec<String>,
    /// With --existing keep: copy this into a collection that the target shards in another way than it would be, or not at
    /// all [default: none] [env: MONGOFERRY_KEEP_SHARDING]
    #[arg(long, value_name = "NS")]
    keep_sharding: Vec<String>,
    /// Whether the source's zones of keys are made in the target as well, whose shards must be in zones of these names
    /// [default: no] [env: MONGOFERRY_ZONES]
    #[arg(long, value_name = "CHOICE", value_parser = Suggested(layer::YES_NO))]
    zones: Option<String>,
    /// How many chunks a collection gets in the target at most before it has documents, 1 to 100000 [default: 1000] [env:
    /// MONGOFERRY_MAX_INITIAL_CHUNKS]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    max_initial_chunks: Option<String>,
}

impl ShardingFlags {
    fn take_into(&self, raw: &mut RawArguments) {
        raw.set("keep-unsharded", &self.keep_unsharded);
        raw.set("keep-sharding", &self.keep_sharding);
        raw.set("zones", &self.zones);
        raw.set("max-initial-chunks", &self.max_initial_chunks);
    }
}

#[derive(Args)]
#[command(next_help_heading = "Resources")]
pub(super) struct ResourceFlags {
    /// What the process may hold in memory, 32MiB to 1TiB [default: 64MiB] [env: MONGOFERRY_MEMORY]
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    memory: Option<String>,
    /// How many ranges or collections are read at once at most, 1 to 256; how many are, is found out while it copies
    /// [default: 16] [env: MONGOFERRY_MAX_READERS]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    max_readers: Option<String>,
    /// How many batches are sent at once at most, 1 to 16; how many are, is found out while it copies [default: 8]
    /// [env: MONGOFERRY_MAX_WRITERS]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    max_writers: Option<String>,
}

impl ResourceFlags {
    pub(super) fn take_into(&self, raw: &mut RawArguments) {
        raw.set("memory", &self.memory);
        raw.set("max-readers", &self.max_readers);
        raw.set("max-writers", &self.max_writers);
    }
}

#[derive(Args)]
#[command(next_help_heading = "In the target")]
pub(super) struct RefusedFlags {
    /// When a document that this job did not put there has the `_id` of one that is copied: leave it, as a finding; let
    /// the source's document of now take its place; or leave it and only count it [default: report] [env:
    /// MONGOFERRY_ON_CONFLICT]
    #[arg(long, value_name = "CHOICE", value_parser = Suggested(layer::ON_CONFLICT))]
    on_conflict: Option<String>,
    /// How many documents of the whole job the target may refuse, for what is in them, before the copy stops with 4;
    /// `mongoferry rejected` lists them [default: 0] [env: MONGOFERRY_MAX_REJECTED]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    max_rejected: Option<String>,
}

impl RefusedFlags {
    pub(super) fn take_into(&self, raw: &mut RawArguments) {
        raw.set("on-conflict", &self.on_conflict);
        raw.set("max-rejected", &self.max_rejected);
    }
}

#[derive(Args)]
#[command(next_help_heading = "Reading")]
pub(super) struct ReadingFlags {
    /// Whether discover stops the balancer of a sharded cluster, and waits until no migration goes on; commit and `abandon`
    /// set it to what it was before [default: no] [env: MONGOFERRY_STOP_BALANCER]
    #[arg(long, value_name = "CHOICE", value_parser = Suggested(layer::YES_NO))]
    stop_balancer: Option<String>,
    /// About how large the ranges are into which a collection is cut, which are copied side by side, 4KiB to 1TiB:
    /// 20MB is 20 × 1000², 64MiB is 64 × 1024²; discover decides it for good [default: 256MiB] [env:
    /// MONGOFERRY_PARTITION_SIZE]
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    partition_size: Option<String>,
    /// Into how many lanes a shard is divided, 1 to 1000: so many workers can copy it at once, each with `step copy
    /// --lane N`; plan decides it for good [default: 1] [env: MONGOFERRY_LANES_PER_SHARD]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    lanes_per_shard: Option<String>,
    /// On AWS: how many lanes are copied at once at most, each by an invocation of its own, 1 to 1000; plan says it to the
    /// state machine [default: 16] [env: MONGOFERRY_MAX_LANES]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    max_lanes: Option<String>,
    /// In which order collections are read: by _id, in the order of the disk, or in the one that suits it;
    /// discover decides it for good [default: auto] [env: MONGOFERRY_READ_ORDER]
    #[arg(long, value_name = "ORDER", value_parser = Suggested(layer::READ_ORDER))]
    read_order: Option<String>,
    /// Which members of the source the documents are read from [default: primary] [env: MONGOFERRY_READ_PREFERENCE]
    #[arg(long, value_name = "MEMBERS", value_parser = Suggested(layer::READ_PREFERENCE))]
    read_preference: Option<String>,
    /// Warn when less than this is left until a source's oplog no longer reaches back to the checkpoint, at least 1s; `status`
    /// shows what is left [default: a quarter of what it was at the checkpoint] [env: MONGOFERRY_MIN_OPLOG_WINDOW]
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    min_oplog_window: Option<String>,
}

impl ReadingFlags {
    pub(super) fn take_into(&self, raw: &mut RawArguments) {
        raw.set("stop-balancer", &self.stop_balancer);
        raw.set("partition-size", &self.partition_size);
        raw.set("lanes-per-shard", &self.lanes_per_shard);
        raw.set("max-lanes", &self.max_lanes);
        raw.set("read-order", &self.read_order);
        raw.set("read-preference", &self.read_preference);
        raw.set("min-oplog-window", &self.min_oplog_window);
    }
}

#[derive(Args)]
#[command(next_help_heading = "Limits")]
pub(super) struct LimitFlags {
    /// The most documents a second that all workers of the job copy together, 1 to 1000000000; `mongoferry control`
    /// changes it while they run [default: none] [env: MONGOFERRY_MAX_DOCUMENTS_PER_SECOND]
    #[arg(long, value_name = "N|none", allow_hyphen_values = true)]
    max_documents_per_second: Option<String>,
    /// The most bytes a second, 1KiB to 1TiB, as the size of the documents' BSON; the same [default: none] [env:
    /// MONGOFERRY_MAX_BYTES_PER_SECOND]
    #[arg(long, value_name = "SIZE|none", allow_hyphen_values = true)]
    max_bytes_per_second: Option<String>,
}

impl LimitFlags {
    pub(super) fn take_into(&self, raw: &mut RawArguments) {
        raw.set("max-documents-per-second", &self.max_documents_per_second);
        raw.set("max-bytes-per-second", &self.max_bytes_per_second);
    }
}

#[derive(Args)]
#[command(next_help_heading = "Verifying")]
pub(super) struct VerifyingFlags {
    /// What `verify` compares: the number of documents, the options and the indexes; every document as well, by reading the
    /// target back; or nothing [default: metadata] [env: MONGOFERRY_VERIFY]
    #[arg(long, value_name = "CHOICE", value_parser = Suggested(layer::VERIFY))]
    verify: Option<String>,
    /// With --verify full: compare with what the target has acknowledged during the copy, or with what the source has now,
    /// where later writes show as differences [default: proofs] [env: MONGOFERRY_AGAINST]
    #[arg(long, value_name = "CHOICE", value_parser = Suggested(layer::AGAINST))]
    against: Option<String>,
}

impl VerifyingFlags {
    pub(super) fn take_into(&self, raw: &mut RawArguments) {
        raw.set("verify", &self.verify);
        raw.set("against", &self.against);
    }
}

#[derive(Args)]
#[command(next_help_heading = "Time")]
pub(super) struct WorkFlags {
    /// Begin to stop when this much time is used up, at least 1s; exits with 75 within 2 s more [default: no limit] [env:
    /// MONGOFERRY_TIME_BUDGET]
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    time_budget: Option<String>,
    /// On AWS: how long before its deadline an invocation begins to stop, 2s to 10m [default: 30s] [env: MONGOFERRY_MARGIN]
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    margin: Option<String>,
    /// How often a lane saves its cursors, from 10ms to a third of the lease; after a kill at most this much is done
    /// again, beside what was in flight [default: 200ms in a folder, 2s on S3, never more than a third of the lease] [env:
    /// MONGOFERRY_SAVE_INTERVAL]
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    save_interval: Option<String>,
    /// How long a silent worker counts as alive, 1s to 10m [default: 15s] [env: MONGOFERRY_LEASE]
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    lease: Option<String>,
    /// Claim at once what another worker seems to hold, without waiting for its lease to run out
    #[arg(long)]
    takeover: bool,
}

#[derive(Args)]
pub(super) struct DryRunFlag {
    /// With `step all`: plan, and read everything as a copy does, but write nothing, neither to a server nor to the state;
    /// then say what would have been done
    #[arg(long)]
    dry_run: bool,
}

impl DryRunFlag {
    pub(super) fn take_into(&self, raw: &mut RawArguments) {
        raw.dry_run = self.dry_run;
    }
}

impl WorkFlags {
    pub(super) fn take_into(&self, raw: &mut RawArguments) {
        raw.set("time-budget", &self.time_budget);
        raw.set("margin", &self.margin);
        raw.set("save-interval", &self.save_interval);
        raw.set("lease", &self.lease);
        raw.takeover = self.takeover;
    }
}

/// The same for a function, whose deadline is its time budget.
#[derive(Args)]
#[command(next_help_heading = "Time")]
pub(super) struct FunctionWorkFlags {
    /// How long before its deadline an invocation begins to stop, 2s to 10m [default: 30s] [env: MONGOFERRY_MARGIN]
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    margin: Option<String>,
    /// How often a lane saves its cursors, from 10ms to a third of the lease; after a kill at most this much is done
    /// again, beside what was in flight [default: 10s, never more than a third of the lease] [env: MONGOFERRY_SAVE_INTERVAL]
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    save_interval: Option<String>,
    /// How long a silent worker counts as alive, 1s to 10m [default: 60s] [env: MONGOFERRY_LEASE]
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    lease: Option<String>,
}

impl FunctionWorkFlags {
    pub(super) fn take_into(&self, raw: &mut RawArguments) {
        raw.set("margin", &self.margin);
        raw.set("save-interval", &self.save_interval);
        raw.set("lease", &self.lease);
    }
}

#[derive(Args)]
#[command(next_help_heading = "State machine")]
pub(super) struct StateMachineFlag {
    /// The state machine, by its ARN, which the stack's outputs have [env: MONGOFERRY_STATE_MACHINE]
    #[arg(long, value_name = "ARN")]
    state_machine: Option<String>,
}

impl StateMachineFlag {
    pub(super) fn take_into(&self, raw: &mut RawArguments) {
        raw.set("state-machine", &self.state_machine);
    }
}

#[derive(Args)]
#[command(next_help_heading = "A part of a step")]
pub(super) struct PartFlags {
    /// With `step copy`: only this shard's lanes [default: all shards]
    #[arg(long, value_name = "NAME")]
    shard: Option<String>,
    /// With `step copy`: this lane, numbered from 0 within its shard, and then what is left to help with in others of that
    /// shard; --shard may be left out where there is only one [default: all lanes]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    lane: Option<String>,
    /// With `step index` and `step verify`: only this collection, by its name in the source [default: all collections]
    #[arg(long, value_name = "NS")]
    namespace: Option<String>,
}

impl PartFlags {
    pub(super) fn take_into(&self, raw: &mut RawArguments) {
        raw.set("shard", &self.shard);
        raw.set("lane", &self.lane);
        raw.set("namespace", &self.namespace);
    }
}

#[derive(Args)]
#[command(next_help_heading = "Output")]
pub(super) struct HttpFlag {
    /// Serve a page with the progress here while the step runs, and /progress, /metrics and /healthz: 127.0.0.1:9216, or
    /// :9216, which is the same; port 0 takes any that is free [default: nothing is served] [env: MONGOFERRY_HTTP]
    #[arg(long, value_name = "ADDRESS")]
    http: Option<String>,
}

impl HttpFlag {
    pub(super) fn take_into(&self, raw: &mut RawArguments) {
        raw.set("http", &self.http);
    }
}

#[derive(Args)]
#[command(next_help_heading = "Output")]
pub(super) struct LogFlags {
    /// Results and logs as text, with a progress bar on a terminal; or as JSON lines for machines [default: text] [env:
    /// MONGOFERRY_LOG_FORMAT]
    #[arg(long, value_name = "FORMAT", value_parser = Suggested(layer::LOG_FORMATS))]
    log_format: Option<String>,
    /// The least important lines to log [default: info; warn with --quiet] [env: MONGOFERRY_LOG_LEVEL]
    #[arg(long, value_name = "LEVEL", value_parser = Suggested(layer::LOG_LEVELS))]
    log_level: Option<String>,
    /// No progress, and no log lines below warn
    #[arg(long)]
    quiet: bool,
}

impl LogFlags {
    pub(super) fn take_into(&self, raw: &mut RawArguments) {
        raw.set("log-format", &self.log_format);
        raw.set("log-level", &self.log_level);
        raw.quiet = self.quiet;
    }
}

/// Words that help and completions show, without being enforced here: `config` does, for all three places alike.
#[derive(Clone)]
pub(super) struct Suggested(pub &'static [&'static str]);

impl TypedValueParser for Suggested {
    type Value = String;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &OsStr,
    ) -> std::result::Result<String, clap::Error> {
        clap::builder::StringValueParser::new().parse_ref(command, argument, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(self.0.iter().map(PossibleValue::new)))
    }
}
