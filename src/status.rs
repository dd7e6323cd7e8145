//! How far a job is, from the state store alone: no server is asked, nothing is changed, and it works while the job
//! runs anywhere. All counts come from saved documents, so they never go down.

mod reader;
#[cfg(test)]
pub mod samples;
pub mod text;

pub use reader::Reader;

use crate::clock;
use crate::control::ControlStatus;
use crate::error::{Kind, Result};
use crate::model::catalog::Ordinal;
use crate::model::choice::CreateIndex;
use crate::model::counts::Counts;
use crate::model::failure::Failure;
use crate::model::finding::{Finding, Note};
use crate::model::job::{CheckpointMap, Optime};
use crate::model::lane::LaneProgress;
use crate::model::lease::Lease;
use crate::model::namespace::Namespace;
use crate::model::oplog_window::{OplogBegins, Window};
use crate::model::reject;
use crate::model::renames::Renames;
use crate::model::speed::{Moved, Rate, percent};
use crate::model::step::Step;
use crate::model::work::{Building, Work, WorkStatus};
use crate::process;
use crate::state::document::Documents;
use crate::state::keys;
use crate::state::rejects::Repair;
use reader::{Catalog, Facts, LaneFacts, Listed, UnitFacts, Units};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};

/// After how many lease times without a save a worker is shown as stopped. Only shown: nothing is decided by it.
const SILENT_LEASES: u32 = 2;

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

impl Units {
    fn share(&self, step: Step, ordinal: Ordinal) -> Option<Share> {
        let unit = self.units.get(&keys::unit(step, ordinal))?;
        let (started, finished) = (unit.started.clone(), unit.finished.clone());
        Some(Share { status: unit.standing.word(), started, finished })
    }

    fn claims(&self) -> Part {
        Part { done: self.units.values().map(|unit| unit.epoch as usize).sum(), total: self.units.len() }
    }
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
        Ok(self.read().await?.map(|facts| status(name, facts)))
    }
}

fn status(name: &str, facts: Facts<'_>) -> Status {
    let Facts { job, steps, checkpoints, oplog, catalog, lanes, index, verify, control, failure, rejects } = &facts;
    let counts: Counts = lanes.iter().filter_map(|lane| lane.work.as_ref()).map(|work| work.progress.counts()).sum();
    let settled: u64 = rejects.repairs.iter().map(|repair| repair.ids.len() as u64).sum();
    let counts = rejects.repairs.iter().fold(counts, |counts, repair| counts + repair.counts);
    let mut all: Vec<Standing> = steps.values().map(Standing::of).collect();
    all.extend(lanes.iter().filter_map(|lane| lane.work.as_ref()).map(Standing::of));
    all.extend(index.units.values().chain(verify.units.values()).map(|unit| unit.standing.clone()));
    let is_committed = steps.get(&Step::Commit).is_some_and(|work| work.status == WorkStatus::Done);
    let is_abandoned = job.as_ref().is_some_and(|job| job.abandoned.is_some());
    let (mut status, error) = job_status(&all, is_committed, is_abandoned, failure.as_ref());
    let (findings, notes) = remarks(&facts);
    let is_done = |step| steps.get(&step).is_some_and(|work| work.status == WorkStatus::Done);
    let binding = job.as_ref().and_then(|job| job.binding.as_ref());
    let renames = binding.map(|binding| &binding.selection.renames);
    let parts = Parts { is_prepared: is_done(Step::Prepare), renames, index, verify };
    let namespaces = catalog.map_or_else(Vec::new, |catalog| namespaces(catalog, lanes, &rejects.repairs, &parts));
    let is_copied = is_done(Step::Copy);
    let left: Moved = namespaces.iter().map(|namespace| namespace.left).sum();
    let mut lane_statuses: Vec<LaneStatus> = lanes.iter().map(lane_status).collect();
    let rate = lane_statuses.iter().filter_map(|lane| lane.rate).reduce(|one, other| one + other);
    let mut step_statuses: Vec<StepStatus> =
        Step::ALL.iter().map(|step| step_status(*step, &facts, &namespaces)).collect();
    if control.as_ref().is_some_and(|control| control.paused) {
        show_paused(&mut status, &mut step_statuses, &mut lane_statuses);
    }
    Status {
        job: name.to_owned(),
        id: job.as_ref().map(|job| job.id.clone()),
        status,
        error,
        percent: (!lanes.is_empty()).then(|| done_percent(Moved::of(&counts), left, is_copied)),
        rate,
        eta_seconds: rate.and_then(|rate| rate.eta(left)).map(|eta| eta.as_secs()),
        steps: step_statuses,
        documents: Amounts {
            estimated_total: catalog.map_or(0, |catalog| catalog.documents),
            read: counts.read,
            written: counts.written,
            replaced: counts.replaced,
            rejected: counts.rejected.saturating_sub(settled),
            replayed: Some(counts.replayed),
        },
        bytes: Amounts {
            estimated_total: catalog.map_or(0, |catalog| catalog.bytes),
            read: counts.read_bytes,
            written: counts.written_bytes,
            replaced: counts.replaced_bytes,
            rejected: counts.rejected_bytes,
            replayed: None,
        },
        saved_by: saved_by(&all),
        namespaces,
        lanes: lane_statuses,
        builds: builds(index),
        control: control.as_ref().into(),
        findings,
        notes,
        checkpoint: checkpoints.map(|map| {
            let shown = |after: Optime| CheckpointStatus {
                seconds: after.seconds,
                increment: after.increment,
                ckpt: after.as_int64(),
            };
            map.stream_starts().into_iter().map(|(name, after)| (name, shown(after))).collect()
        }),
        oplog: oplog.as_ref().and_then(|begins| Some(oplogs(checkpoints.as_ref()?, begins))),
    }
}

/// What is being built, as far as somebody is at it and has told so.
fn builds(index: &Units) -> Vec<BuildStatus> {
    let is_running = |unit: &&UnitFacts| unit.standing.status == WorkStatus::Running && !unit.standing.is_silent;
    let build = |unit: &UnitFacts| {
        let building = unit.building.clone()?;
        Some(BuildStatus { namespace: unit.namespace.clone(), building })
    };
    index.units.values().filter(is_running).filter_map(build).collect()
}

fn oplogs(checkpoints: &CheckpointMap, found: &OplogBegins) -> BTreeMap<String, OplogStatus> {
    let shown = |window: Window| OplogStatus {
        seconds_left: window.left.map(|left| left.as_secs()),
        seconds_at_checkpoint: window.at_checkpoint.as_secs(),
    };
    let windows = found.begins.iter().filter_map(|(set, begin)| Some((set, Window::of(checkpoints, set, *begin)?)));
    windows.map(|(set, window)| (set.clone(), shown(window))).collect()
}

/// Where a worker is at the copy of a job that is paused, says so: it is the copy that is paused, and nothing else.
fn show_paused(job: &mut JobStatus, steps: &mut [StepStatus], lanes: &mut [LaneStatus]) {
    let is_running = |status: &str| status == "running";
    let Some(copy) = steps.iter_mut().find(|step| step.step == Step::Copy && is_running(&step.status)) else { return };
    let words = lanes.iter_mut().map(|lane| &mut lane.status).filter(|status| is_running(status));
    words.chain([&mut copy.status]).for_each(|status| *status = "paused".to_owned());
    *job = JobStatus::Paused;
}

/// By bytes where there are any, else by documents.
fn done_percent(done: Moved, left: Moved, is_done: bool) -> f64 {
    match done + left {
        Moved { bytes: 0, .. } => percent(done.documents, left.documents, is_done),
        Moved { .. } => percent(done.bytes, left.bytes, is_done),
    }
}

fn lane_status(lane: &LaneFacts<'_>) -> LaneStatus {
    let work = lane.work.as_ref();
    let counts = work.map_or_else(Counts::default, |work| work.progress.counts());
    LaneStatus {
        shard: lane.name.shard.clone(),
        lane: lane.name.number,
        from: lane.name.is_tail().then_some(lane.name.from.0),
        status: work.map_or("pending", |work| Standing::of(work).word()).to_owned(),
        epoch: work.map_or(0, |work| work.lease.epoch.0),
        host: work.and_then(|work| work.lease.holder.as_ref()).map(|holder| holder.host.clone()),
        saved: work.map(|work| work.saved.clone()),
        partitions: lane.own.len() as u32,
        finished: work.map_or(0, |work| work.progress.finished_partitions()),
        written: counts.written,
        written_bytes: counts.written_bytes,
        rate: work.and_then(lane_rate),
    }
}

/// How fast a lane is: what it counted since its worker claimed it, over the time from then to its last save. Both
/// times are of one worker's clock.
fn lane_rate(work: &Work<LaneProgress>) -> Option<Rate> {
    let standing = Standing::of(work);
    if standing.status != WorkStatus::Running || standing.is_silent {
        return None;
    }
    let time = clock::wall_between(work.claimed.as_deref()?, &work.saved)?;
    Rate::between(work.progress.counted_before, Moved::of(&work.progress.counts()), time)
}

fn remarks(facts: &Facts<'_>) -> (Vec<Finding>, Vec<Note>) {
    let (mut findings, mut notes) = (Vec::new(), Vec::new());
    for work in facts.steps.values() {
        findings.extend(work.progress.findings.iter().cloned());
        notes.extend(work.progress.notes.iter().cloned());
    }
    for lane in &facts.lanes {
        findings.extend(lane.findings());
        notes.extend(lane.proven.notes.iter().cloned());
    }
    for unit in facts.index.units.values().chain(facts.verify.units.values()) {
        findings.extend(unit.findings.iter().cloned());
        notes.extend(unit.notes.iter().cloned());
    }
    findings.extend(reject::findings(&facts.rejects.left));
    (findings, notes)
}

/// How one piece of work stands, as far as a reader can tell.
#[derive(Debug, Clone)]
struct Standing {
    status: WorkStatus,
    is_silent: bool,
    saved: String,
    run: Option<String>,
}

impl Standing {
    fn of<P>(work: &Work<P>) -> Self {
        Self {
            status: work.status.clone(),
            is_silent: is_silent(&work.lease, &work.saved),
            saved: work.saved.clone(),
            run: work.lease.holder.as_ref().map(|holder| holder.run.clone()),
        }
    }

    fn word(&self) -> &'static str {
        match &self.status {
            WorkStatus::Running if self.is_silent => "stopped",
            WorkStatus::Running => "running",
            WorkStatus::Yielded => "yielded",
            WorkStatus::Failed { .. } => "failed",
            WorkStatus::Findings => "findings",
            WorkStatus::Done => "done",
            WorkStatus::Abandoned => "abandoned",
        }
    }
}

/// Whether a worker seems to be gone: its process ended on this machine, or it has not saved for long by the wall
/// clock, which is good enough for showing.
fn is_silent(lease: &Lease, saved: &str) -> bool {
    let process = lease.holder.as_ref().and_then(|holder| holder.process.as_ref());
    process.is_some_and(process::is_dead)
        || clock::wall_since(saved).is_some_and(|age| age > lease.length() * SILENT_LEASES)
}

fn saved_by(all: &[Standing]) -> BTreeMap<String, String> {
    let mut oldest: BTreeMap<String, String> = BTreeMap::new();
    for standing in all.iter().filter(|standing| standing.status == WorkStatus::Running) {
        let Some(run) = &standing.run else { continue };
        let saved = oldest.entry(run.clone()).or_insert_with(|| standing.saved.clone());
        if standing.saved < *saved {
            saved.clone_from(&standing.saved);
        }
    }
    oldest
}

fn job_status(
    all: &[Standing],
    is_committed: bool,
    is_abandoned: bool,
    failure: Option<&Failure>,
) -> (JobStatus, Option<String>) {
    if is_abandoned {
        return (JobStatus::Abandoned, None);
    }
    if is_committed {
        return (JobStatus::Done, None);
    }
    if all.iter().any(|standing| standing.status == WorkStatus::Running && !standing.is_silent) {
        return (JobStatus::Running, None);
    }
    // One that came before the last save is over: somebody went on.
    if let Some(failure) = failure.filter(|failure| all.iter().all(|standing| standing.saved <= failure.at)) {
        let status = if failure.error == Kind::Findings.name() { JobStatus::Findings } else { JobStatus::Failed };
        return (status, Some(failure.text()));
    }
    let unfinished = all.iter().filter(|standing| standing.status != WorkStatus::Done);
    match unfinished.max_by(|a, b| a.saved.cmp(&b.saved)).map(|standing| &standing.status) {
        Some(WorkStatus::Yielded) => (JobStatus::Yielded, None),
        Some(WorkStatus::Findings) => (JobStatus::Findings, None),
        Some(WorkStatus::Failed { kind, message }) => (JobStatus::Failed, Some(format!("{kind}: {message}"))),
        Some(WorkStatus::Abandoned) => (JobStatus::Abandoned, None),
        Some(WorkStatus::Running | WorkStatus::Done) | None => (JobStatus::Stopped, None),
    }
}

fn step_status(step: Step, facts: &Facts<'_>, namespaces: &[NamespaceStatus]) -> StepStatus {
    let unit = |units: &Units| -> Vec<(Standing, String)> {
        units.units.values().map(|unit| (unit.standing.clone(), unit.started.clone())).collect()
    };
    let parts = match step {
        Step::Copy => facts
            .lanes
            .iter()
            .filter_map(|lane| lane.work.as_ref())
            .map(|work| (Standing::of(work), work.started.clone()))
            .collect(),
        Step::Index => unit(facts.index),
        Step::Verify => unit(facts.verify),
        _ => Vec::new(),
    };
    let claims = match step {
        Step::Copy => {
            let claimed = || facts.lanes.iter().filter_map(|lane| lane.work.as_ref());
            Part { done: claimed().map(|work| work.lease.epoch.0 as usize).sum(), total: claimed().count() }
        }
        Step::Index => facts.index.claims(),
        Step::Verify => facts.verify.claims(),
        _ => facts
            .steps
            .get(&step)
            .map_or(Part { done: 0, total: 0 }, |work| Part { done: work.lease.epoch.0 as usize, total: 1 }),
    };
    let first_part = parts.iter().map(|(_, started)| started.clone()).min();
    let collections = facts.catalog.and_then(|catalog| collections(step, facts, catalog, namespaces));
    if let Some(work) = facts.steps.get(&step) {
        return StepStatus {
            step,
            status: Standing::of(work).word().to_owned(),
            started: Some(first_part.unwrap_or_else(|| work.started.clone())),
            finished: work.finished.clone(),
            summary: work.progress.summary.clone(),
            collections,
            claims,
        };
    }
    let standings: Vec<Standing> = parts.into_iter().map(|(standing, _)| standing).collect();
    let status = match job_status(&standings, false, false, None) {
        _ if standings.is_empty() => "pending",
        (JobStatus::Stopped | JobStatus::Done, _) => "stopped",
        (status, _) => status.word(),
    };
    StepStatus {
        step,
        status: status.to_owned(),
        started: first_part,
        finished: None,
        summary: String::new(),
        collections,
        claims,
    }
}

/// How many collections a step is through with.
fn collections(step: Step, facts: &Facts<'_>, catalog: &Catalog, namespaces: &[NamespaceStatus]) -> Option<Part> {
    let count = |is_wanted: fn(&Listed) -> bool| catalog.namespaces.iter().filter(|listed| is_wanted(listed)).count();
    match step {
        Step::Copy => {
            let is_done = |namespace: &&NamespaceStatus| namespace.partitions > 0 && namespace.status == "copied";
            let done = namespaces.iter().filter(is_done).count();
            Some(Part { done, total: count(|listed| listed.has_documents) })
        }
        Step::Index => {
            let prepare = facts.steps.get(&Step::Prepare);
            let has_none = prepare.is_some_and(|work| work.progress.create_index == Some(CreateIndex::None));
            let total = if has_none { 0 } else { count(|listed| listed.has_indexes) };
            Some(Part { done: facts.index.finished(), total })
        }
        Step::Verify => Some(Part { done: facts.verify.finished(), total: count(|listed| listed.is_copied) }),
        Step::Discover | Step::Plan | Step::Prepare | Step::Commit => None,
    }
}

/// What the lanes say about one namespace.
#[derive(Default)]
struct Copied<'a> {
    target: Option<&'a Namespace>,
    counts: Counts,
    partitions: u32,
    finished: u32,
    is_open: bool,
}

/// What is known of the steps beside copy.
struct Parts<'a> {
    is_prepared: bool,
    renames: Option<&'a Renames>,
    index: &'a Units,
    verify: &'a Units,
}

fn namespaces(
    catalog: &Catalog,
    lanes: &[LaneFacts<'_>],
    repairs: &[Repair],
    parts: &Parts<'_>,
) -> Vec<NamespaceStatus> {
    let mut copied: HashMap<Ordinal, Copied<'_>> = HashMap::new();
    for lane in lanes {
        for partition in lane.partitions() {
            let entry = copied.entry(partition.ordinal).or_default();
            entry.target = Some(&partition.target);
            entry.partitions += 1;
        }
        for (partition, counts) in lane.open() {
            let entry = copied.entry(partition.ordinal).or_default();
            entry.counts += counts;
            entry.is_open = true;
        }
        for (ordinal, (finished, counts)) in &lane.proven.finished {
            let entry = copied.entry(*ordinal).or_default();
            entry.counts += *counts;
            entry.finished += finished;
        }
    }
    let nothing = Copied::default();
    let shown = |entry: &Listed| {
        let mut shown = namespace(entry, copied.get(&entry.ordinal).unwrap_or(&nothing), parts);
        for repair in repairs.iter().filter(|repair| repair.namespace.shown() == entry.namespace) {
            shown.written += repair.counts.written;
            shown.written_bytes += repair.counts.written_bytes;
            shown.rejected = shown.rejected.saturating_sub(repair.ids.len() as u64);
            shown.counts += repair.counts;
        }
        shown.index = parts.index.share(Step::Index, entry.ordinal);
        shown.verify = parts.verify.share(Step::Verify, entry.ordinal);
        shown
    };
    catalog.namespaces.iter().map(shown).collect()
}

fn namespace(entry: &Listed, copied: &Copied<'_>, parts: &Parts<'_>) -> NamespaceStatus {
    let is_planned = entry.is_copied && copied.partitions > 0;
    let is_done = is_planned && copied.finished == copied.partitions;
    let done = Moved::of(&copied.counts);
    let left = if is_done || !entry.has_documents {
        Moved::default()
    } else {
        done.left_of(Moved { documents: entry.documents, bytes: entry.bytes })
    };
    // A view has no partitions to tell.
    let is_view = entry.is_copied && !entry.has_documents;
    let view = parts.renames.filter(|_| is_view).map(|renames| renames.apply(&entry.namespace));
    NamespaceStatus {
        namespace: entry.namespace.clone(),
        target: copied.target.map(Namespace::shown).or(view),
        status: match copied {
            _ if !entry.is_copied => "left out",
            _ if is_done || (is_view && parts.is_prepared) => "copied",
            Copied { is_open, finished, .. } if *is_open || *finished > 0 => "copying",
            _ => "planned",
        },
        estimated_total: entry.documents,
        written: copied.counts.written,
        rejected: copied.counts.rejected,
        estimated_bytes: entry.bytes,
        written_bytes: copied.counts.written_bytes,
        percent: is_planned.then(|| done_percent(done, left, is_done)),
        partitions: copied.partitions,
        finished: copied.finished,
        left,
        ordinal: entry.ordinal,
        counts: copied.counts,
        index: None,
        verify: None,
    }
}
