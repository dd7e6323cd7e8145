//! How far a job is, from the state store alone: no server is asked, nothing is changed, and it works while the job
//! runs anywhere. All counts come from saved documents, so they never go down.

use crate::clock;
use crate::control::ControlStatus;
use crate::error::Result;
use crate::model::catalog::{CatalogEntry, Ordinal};
use crate::model::counts::Counts;
use crate::model::finding::{Finding, Note};
use crate::model::job::{CheckpointMap, JobRecord};
use crate::model::lane::{LaneProgress, PartitionRecord};
use crate::model::lease::Lease;
use crate::model::limit::Control;
use crate::model::namespace::Namespace;
use crate::model::plan::{PartitionNumber, PartitionSpec};
use crate::model::reject;
use crate::model::step::Step;
use crate::model::work::{StepProgress, UnitProgress, Work, WorkStatus};
use crate::process;
use crate::state::document::Documents;
use crate::state::keys;
use crate::state::pages::{self, CatalogHead, PlanHead};
use crate::state::rejects::{self, Repair};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};

/// How many documents are read at once.
const PARALLEL: usize = 16;

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
    /// What `control` has said.
    pub control: ControlStatus,
    /// What a person must mend or accept.
    pub findings: Vec<Finding>,
    /// What a person should know.
    pub notes: Vec<Note>,
    /// The checkpoints by replica set (`ckptMap`), once captured.
    pub checkpoint: Option<BTreeMap<String, CheckpointStatus>>,
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
    /// `planned`, `copying` or `copied`, or `left out` for a kind that is not copied.
    pub status: &'static str,
    /// As the source's metadata said at discover.
    pub estimated_total: u64,
    /// Documents on the target as they should be.
    pub written: u64,
    /// Documents not on the target.
    pub rejected: u64,
}

/// A lane.
#[derive(Debug, Clone, Serialize)]
pub struct LaneStatus {
    /// Its shard.
    pub shard: String,
    /// Its number within the shard.
    pub lane: u32,
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

/// Everything about a job, or `None` when the store has nothing of it.
///
/// # Errors
/// Those of the state store.
pub async fn read(documents: &Documents, name: &str) -> Result<Option<Status>> {
    let steps = read_steps(documents).await?;
    let job: Option<JobRecord> = value(documents, keys::JOB).await?;
    if job.is_none() && steps.is_empty() {
        return Ok(None);
    }
    let checkpoints: Option<CheckpointMap> = value(documents, keys::CHECKPOINT).await?;
    let head: Option<CatalogHead> = value(documents, keys::CATALOG).await?;
    let catalog = if head.is_some() { pages::read_catalog(documents).await? } else { Vec::new() };
    let lanes = read_lanes(documents).await?;
    let control: Option<Control> = value(documents, keys::CONTROL).await?;
    let index = read_units(documents, Step::Index).await?;
    let verify = read_units(documents, Step::Verify).await?;

    let counts: Counts = lanes.iter().filter_map(|lane| lane.work.as_ref()).map(|work| work.progress.counts()).sum();
    let rejects = rejects::read(documents).await?;
    let settled: u64 = rejects.repairs.iter().map(|repair| repair.ids.len() as u64).sum();
    let counts = rejects.repairs.iter().fold(counts, |counts, repair| counts + repair.counts);

    let (mut findings, notes) = remarks(&steps, &lanes, &[&index, &verify]);
    findings.extend(reject::findings(&rejects.left));
    let mut all: Vec<Standing> = steps.values().map(Standing::of).collect();
    all.extend(lanes.iter().filter_map(|lane| lane.work.as_ref()).map(Standing::of));
    all.extend(index.iter().chain(&verify).map(Standing::of));
    let is_committed = steps.get(&Step::Commit).is_some_and(|work| work.status == WorkStatus::Done);
    let is_abandoned = job.as_ref().is_some_and(|job| job.abandoned.is_some());
    let (mut status, error) = job_status(&all, is_committed, is_abandoned);
    let mut shown_steps: Vec<StepStatus> =
        Step::ALL.iter().map(|step| step_status(*step, &steps, &lanes, &index, &verify)).collect();
    let mut shown_lanes: Vec<LaneStatus> = lanes.iter().map(LaneFacts::status).collect();
    if control.as_ref().is_some_and(|control| control.paused) {
        show_paused(&mut status, &mut shown_steps, &mut shown_lanes);
    }
    Ok(Some(Status {
        job: name.to_owned(),
        id: job.map(|job| job.id),
        status,
        error,
        steps: shown_steps,
        documents: Amounts {
            estimated_total: head.as_ref().map_or(0, |head| head.documents),
            read: counts.read,
            written: counts.written,
            replaced: counts.replaced,
            rejected: counts.rejected.saturating_sub(settled),
            replayed: Some(counts.replayed),
        },
        bytes: Amounts {
            estimated_total: head.as_ref().map_or(0, |head| head.bytes),
            read: counts.read_bytes,
            written: counts.written_bytes,
            replaced: counts.replaced_bytes,
            rejected: counts.rejected_bytes,
            replayed: None,
        },
        namespaces: namespaces(&catalog, &lanes, &rejects.repairs),
        lanes: shown_lanes,
        control: control.as_ref().into(),
        findings,
        notes,
        checkpoint: checkpoints.map(|map| {
            let shown = |after: crate::model::job::Optime| CheckpointStatus {
                seconds: after.seconds,
                increment: after.increment,
                ckpt: after.as_int64(),
            };
            map.checkpoints.into_iter().map(|(name, checkpoint)| (name, shown(checkpoint.after))).collect()
        }),
    }))
}

/// Where a worker is at the copy of a job that is paused, says so: it is the copy that is paused, and nothing else.
fn show_paused(job: &mut JobStatus, steps: &mut [StepStatus], lanes: &mut [LaneStatus]) {
    let is_running = |status: &str| status == "running";
    let Some(copy) = steps.iter_mut().find(|step| step.step == Step::Copy && is_running(&step.status)) else { return };
    let words = lanes.iter_mut().map(|lane| &mut lane.status).filter(|status| is_running(status));
    words.chain([&mut copy.status]).for_each(|status| *status = "paused".to_owned());
    *job = JobStatus::Paused;
}

async fn value<T: crate::state::document::Document>(documents: &Documents, key: &str) -> Result<Option<T>> {
    Ok(documents.read(key).await?.map(|stored| stored.value))
}

async fn read_steps(documents: &Documents) -> Result<BTreeMap<Step, Work<StepProgress>>> {
    let mut steps = BTreeMap::new();
    for step in Step::ALL {
        if let Some(work) = value(documents, &keys::step(step)).await? {
            steps.insert(step, work);
        }
    }
    Ok(steps)
}

/// A lane as it was planned, as it stands, and what it has proven.
struct LaneFacts {
    shard: String,
    number: u32,
    partitions: Vec<PartitionSpec>,
    work: Option<Work<LaneProgress>>,
    sealed: Vec<PartitionRecord>,
}

impl LaneFacts {
    fn status(&self) -> LaneStatus {
        let progress = self.work.as_ref().map(|work| &work.progress);
        LaneStatus {
            shard: self.shard.clone(),
            lane: self.number,
            status: self.work.as_ref().map_or("pending".to_owned(), |work| Standing::of(work).word()),
            epoch: self.work.as_ref().map_or(0, |work| work.lease.epoch.0),
            host: self.work.as_ref().and_then(|work| work.lease.holder.as_ref()).map(|holder| holder.host.clone()),
            saved: self.work.as_ref().map(|work| work.saved.clone()),
            partitions: self.partitions.len() as u32,
            finished: progress.map_or(0, LaneProgress::finished_partitions),
            written: progress.map_or(0, |progress| progress.counts().written),
        }
    }

    fn finished(&self) -> impl Iterator<Item = &PartitionRecord> {
        let latest = self.work.iter().flat_map(|work| &work.progress.finished);
        self.sealed.iter().chain(latest)
    }
}

async fn read_lanes(documents: &Documents) -> Result<Vec<LaneFacts>> {
    let Some(plan) = value::<PlanHead>(documents, keys::PLAN).await? else { return Ok(Vec::new()) };
    let mut lanes = Vec::new();
    for planned in &plan.lanes {
        let work: Option<Work<LaneProgress>> = value(documents, &keys::lane(&planned.lane)).await?;
        let segments = work.as_ref().map_or(0, |work| work.progress.segments);
        lanes.push(LaneFacts {
            shard: planned.lane.shard.clone(),
            number: planned.lane.number,
            partitions: pages::read_lane(documents, &plan, planned).await?.partitions,
            sealed: pages::read_proofs(documents, &planned.lane, segments).await?,
            work,
        });
    }
    Ok(lanes)
}

/// Every share of a step that is in the state.
async fn read_units(documents: &Documents, step: Step) -> Result<Vec<Work<UnitProgress>>> {
    let keys = documents.list(&keys::units(step)).await?;
    let read = |key: String| async move { value(documents, &key).await };
    let units: Vec<Option<Work<UnitProgress>>> = stream::iter(keys).map(read).buffered(PARALLEL).try_collect().await?;
    Ok(units.into_iter().flatten().collect())
}

fn remarks(
    steps: &BTreeMap<Step, Work<StepProgress>>,
    lanes: &[LaneFacts],
    units: &[&Vec<Work<UnitProgress>>],
) -> (Vec<Finding>, Vec<Note>) {
    let (mut findings, mut notes) = (Vec::new(), Vec::new());
    for work in steps.values() {
        findings.extend(work.progress.findings.iter().cloned());
        notes.extend(work.progress.notes.iter().cloned());
    }
    for lane in lanes {
        let numbers: HashMap<PartitionNumber, &PartitionSpec> =
            lane.partitions.iter().map(|partition| (partition.number, partition)).collect();
        let open = lane.work.iter().flat_map(|work| &work.progress.open);
        let open = open.filter_map(|(number, open)| Some((numbers.get(number)?.source.clone(), &open.findings)));
        let finished = lane.finished().map(|record| (record.partition.source.clone(), &record.findings));
        for (namespace, found) in finished.chain(open) {
            findings.extend(found.kept.iter().cloned());
            if found.more > 0 {
                findings.push(Finding { namespace, text: format!("has {} more findings like these", found.more) });
            }
        }
        notes.extend(lane.finished().flat_map(|record| record.notes.iter().cloned()));
    }
    for work in units.iter().flat_map(|units| units.iter()) {
        findings.extend(work.progress.findings.iter().cloned());
        notes.extend(work.progress.notes.iter().cloned());
    }
    (findings, notes)
}

/// How one piece of work stands, as far as a reader can tell.
struct Standing {
    status: WorkStatus,
    is_silent: bool,
    saved: String,
}

impl Standing {
    fn of<P>(work: &Work<P>) -> Self {
        Self { status: work.status.clone(), is_silent: is_silent(&work.lease, &work.saved), saved: work.saved.clone() }
    }

    fn word(&self) -> String {
        match &self.status {
            WorkStatus::Running if self.is_silent => "stopped",
            WorkStatus::Running => "running",
            WorkStatus::Yielded => "yielded",
            WorkStatus::Failed { .. } => "failed",
            WorkStatus::Findings => "findings",
            WorkStatus::Done => "done",
            WorkStatus::Abandoned => "abandoned",
        }
        .to_owned()
    }
}

/// Whether a worker seems to be gone: its process ended on this machine, or it has not saved for long by the wall
/// clock, which is good enough for showing.
fn is_silent(lease: &Lease, saved: &str) -> bool {
    let process = lease.holder.as_ref().and_then(|holder| holder.process.as_ref());
    process.is_some_and(process::is_dead)
        || clock::wall_since(saved).is_some_and(|age| age > lease.length() * SILENT_LEASES)
}

fn job_status(all: &[Standing], is_committed: bool, is_abandoned: bool) -> (JobStatus, Option<String>) {
    if is_abandoned {
        return (JobStatus::Abandoned, None);
    }
    if is_committed {
        return (JobStatus::Done, None);
    }
    if all.iter().any(|standing| standing.status == WorkStatus::Running && !standing.is_silent) {
        return (JobStatus::Running, None);
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

fn step_status(
    step: Step,
    steps: &BTreeMap<Step, Work<StepProgress>>,
    lanes: &[LaneFacts],
    index: &[Work<UnitProgress>],
    verify: &[Work<UnitProgress>],
) -> StepStatus {
    let parts: Vec<(Standing, String)> = match step {
        Step::Copy => lanes
            .iter()
            .filter_map(|lane| lane.work.as_ref())
            .map(|work| (Standing::of(work), work.started.clone()))
            .collect(),
        Step::Index => index.iter().map(|work| (Standing::of(work), work.started.clone())).collect(),
        Step::Verify => verify.iter().map(|work| (Standing::of(work), work.started.clone())).collect(),
        _ => Vec::new(),
    };
    let first_part = parts.iter().map(|(_, started)| started.clone()).min();
    if let Some(work) = steps.get(&step) {
        return StepStatus {
            step,
            status: Standing::of(work).word(),
            started: Some(first_part.unwrap_or_else(|| work.started.clone())),
            finished: work.finished.clone(),
            summary: work.progress.summary.clone(),
        };
    }
    let standings: Vec<Standing> = parts.into_iter().map(|(standing, _)| standing).collect();
    let status = match job_status(&standings, false, false) {
        _ if standings.is_empty() => "pending",
        (JobStatus::Running | JobStatus::Paused, _) => "running",
        (JobStatus::Yielded, _) => "yielded",
        (JobStatus::Findings, _) => "findings",
        (JobStatus::Failed, _) => "failed",
        (JobStatus::Abandoned, _) => "abandoned",
        (JobStatus::Stopped | JobStatus::Done, _) => "stopped",
    };
    StepStatus { step, status: status.to_owned(), started: first_part, finished: None, summary: String::new() }
}

/// What the lanes say about one namespace.
struct Copied {
    target: Namespace,
    counts: Counts,
    partitions: u32,
    finished: u32,
    is_open: bool,
}

fn namespaces(catalog: &[CatalogEntry], lanes: &[LaneFacts], repairs: &[Repair]) -> Vec<NamespaceStatus> {
    let mut copied: HashMap<Ordinal, Copied> = HashMap::new();
    for lane in lanes {
        for partition in &lane.partitions {
            let entry = copied.entry(partition.ordinal).or_insert_with(|| Copied {
                target: partition.target.clone(),
                counts: Counts::default(),
                partitions: 0,
                finished: 0,
                is_open: false,
            });
            entry.partitions += 1;
            if let Some(open) = lane.work.as_ref().and_then(|work| work.progress.open.get(&partition.number)) {
                entry.counts += open.counts;
                entry.is_open = true;
            }
        }
        for record in lane.finished() {
            if let Some(entry) = copied.get_mut(&record.partition.ordinal) {
                entry.counts += record.counts;
                entry.finished += 1;
            }
        }
    }
    let shown = |entry: &CatalogEntry| {
        let found = copied.get(&entry.ordinal);
        let repairs = || repairs.iter().filter(|repair| repair.namespace == entry.namespace);
        let repaired: u64 = repairs().map(|repair| repair.counts.written).sum();
        let settled: u64 = repairs().map(|repair| repair.ids.len() as u64).sum();
        NamespaceStatus {
            namespace: entry.namespace.clone(),
            target: found.map(|found| found.target.clone()),
            status: match found {
                _ if !entry.kind.is_copied() => "left out",
                Some(found) if found.finished == found.partitions => "copied",
                Some(found) if found.is_open || found.finished > 0 => "copying",
                _ => "planned",
            },
            estimated_total: entry.documents,
            written: found.map_or(0, |found| found.counts.written) + repaired,
            rejected: found.map_or(0, |found| found.counts.rejected).saturating_sub(settled),
        }
    };
    catalog.iter().map(shown).collect()
}
