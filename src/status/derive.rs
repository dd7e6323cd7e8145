//! What the documents of a job come to.

use super::reader::{Catalog, Facts, LaneFacts, Listed, UnitFacts, Units};
use super::{
    Amounts, BuildStatus, CheckpointStatus, JobStatus, LaneStatus, NamespaceStatus, OplogStatus, Part, Share, Status,
    StepStatus,
};
use crate::clock;
use crate::error::Kind;
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
use crate::model::work::{Work, WorkStatus};
use crate::process;
use crate::state::keys;
use crate::state::rejects::Repair;
use std::collections::{BTreeMap, HashMap};

/// After how many lease times without a save a worker is shown as stopped. Only shown: nothing is decided by it.
const SILENT_LEASES: u32 = 2;

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

/// What the documents of a job come to.
pub(super) fn status(name: &str, facts: Facts<'_>) -> Status {
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
pub(super) struct Standing {
    pub(super) status: WorkStatus,
    is_silent: bool,
    saved: String,
    run: Option<String>,
}

impl Standing {
    pub(super) fn of<P>(work: &Work<P>) -> Self {
        Self {
            status: work.status.clone(),
            is_silent: is_silent(&work.lease, &work.saved),
            saved: work.saved.clone(),
            run: work.lease.holder.as_ref().map(|holder| holder.run.clone()),
        }
    }

    pub(super) fn word(&self) -> &'static str {
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
