//! Reading a job again and again: what is written once is read once, and kept in as few words as its status needs. So a
//! look at a job of thousands of collections costs its store little more than its steps and lanes.

use super::derive::Standing;
use crate::error::Result;
use crate::model::catalog::{CatalogEntry, Ordinal};
use crate::model::counts::Counts;
use crate::model::failure::Failure;
use crate::model::finding::{Finding, Findings, Note};
use crate::model::job::{CheckpointMap, JobRecord};
use crate::model::lane::{LaneProgress, PartitionRecord};
use crate::model::limit::Control;
use crate::model::namespace::Namespace;
use crate::model::oplog_window::OplogBegins;
use crate::model::plan::{LaneName, PartitionSpec};
use crate::model::step::Step;
use crate::model::tail::Tail;
use crate::model::work::{Building, StepProgress, UnitProgress, Work, WorkStatus};
use crate::state::document::{Document, Documents};
use crate::state::keys;
use crate::state::lanes;
use crate::state::pages::{self, CatalogHead, PlanHead};
use crate::state::rejects::{self, Rejects};
use futures_util::{StreamExt, TryStreamExt, stream};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

/// How many documents are read at once.
const PARALLEL: usize = 16;

/// Reads one job.
#[derive(Debug)]
pub struct Reader {
    documents: Documents,
    checkpoints: Option<CheckpointMap>,
    catalog: Option<Catalog>,
    planned: Option<Planned>,
    index: Units,
    verify: Units,
}

/// What the state says about a job now.
pub(super) struct Facts<'a> {
    pub job: Option<JobRecord>,
    pub steps: BTreeMap<Step, Work<StepProgress>>,
    pub checkpoints: Option<&'a CheckpointMap>,
    pub oplog: Option<OplogBegins>,
    pub catalog: Option<&'a Catalog>,
    pub lanes: Vec<LaneFacts<'a>>,
    pub index: &'a Units,
    pub verify: &'a Units,
    pub control: Option<Control>,
    pub failure: Option<Failure>,
    pub rejects: Rejects,
}

/// What discover found.
#[derive(Debug)]
pub(super) struct Catalog {
    pub documents: u64,
    pub bytes: u64,
    pub namespaces: Vec<Listed>,
}

/// A namespace in it.
#[derive(Debug)]
pub(super) struct Listed {
    pub ordinal: Ordinal,
    pub namespace: Namespace,
    pub is_copied: bool,
    pub has_documents: bool,
    pub has_indexes: bool,
    pub documents: u64,
    pub bytes: u64,
}

impl Listed {
    fn of(entry: CatalogEntry) -> Self {
        Self {
            ordinal: entry.ordinal,
            is_copied: entry.kind.is_copied(),
            has_documents: entry.kind.has_documents(),
            has_indexes: entry.kind.is_copied() && entry.secondary_indexes().next().is_some(),
            documents: entry.documents,
            bytes: entry.bytes,
            namespace: entry.namespace,
        }
    }
}

/// The plan, and what is proven of it for good.
#[derive(Debug)]
struct Planned {
    lanes: Vec<PlannedLane>,
}

#[derive(Debug)]
struct PlannedLane {
    planned: pages::PlannedLane,
    /// Whose partitions they are.
    partitions: BTreeMap<u32, PlannedPartition>,
    /// What is sealed of it, and of its tails.
    sealed: HashMap<LaneName, Sealed>,
}

/// What is sealed of a lane.
#[derive(Debug, Default)]
struct Sealed {
    /// How many segments of proofs are in what follows.
    segments: u32,
    proven: Proven,
}

/// A partition's collection, under both names.
#[derive(Debug, Clone)]
pub(super) struct PlannedPartition {
    pub ordinal: Ordinal,
    pub source: Namespace,
    pub target: Namespace,
}

/// What finished partitions have shown.
#[derive(Debug, Clone, Default)]
pub(super) struct Proven {
    /// By collection: how many, and what they moved.
    pub finished: HashMap<Ordinal, (u32, Counts)>,
    pub findings: Vec<Finding>,
    pub notes: Vec<Note>,
}

impl Proven {
    fn add(&mut self, record: &PartitionRecord) {
        let (finished, counts) = self.finished.entry(record.partition.ordinal).or_default();
        *finished += 1;
        *counts += record.counts;
        self.findings.extend(in_words(&record.partition.source, &record.findings));
        self.notes.extend(record.notes.iter().cloned());
    }
}

/// Findings of one partition, those that are not kept in words as one more sentence.
fn in_words(namespace: &Namespace, found: &Findings) -> Vec<Finding> {
    let mut findings = found.kept.clone();
    if found.more > 0 {
        let text = format!("has {} more findings like these", found.more);
        findings.push(Finding { namespace: namespace.clone(), text });
    }
    findings
}

/// A lane as it was planned or given away, and as it stands.
pub(super) struct LaneFacts<'a> {
    pub name: LaneName,
    /// Those of the planned lane.
    partitions: &'a BTreeMap<u32, PlannedPartition>,
    /// The numbers of its own, those that it gave away left out.
    pub own: Range<u32>,
    pub work: Option<Work<LaneProgress>>,
    pub proven: Proven,
}

impl LaneFacts<'_> {
    /// Its own partitions.
    pub fn partitions(&self) -> impl Iterator<Item = &PlannedPartition> {
        self.partitions.range(self.own.clone()).map(|(_, partition)| partition)
    }

    /// The partitions that are begun and not finished, with what they have moved.
    pub fn open(&self) -> impl Iterator<Item = (&PlannedPartition, Counts)> {
        let open = self.work.iter().flat_map(|work| &work.progress.open);
        open.filter_map(|(number, open)| Some((self.partitions.get(&number.0)?, open.counts)))
    }

    /// What was found in any of its partitions.
    pub fn findings(&self) -> Vec<Finding> {
        let mut findings = self.proven.findings.clone();
        for (number, open) in self.work.iter().flat_map(|work| &work.progress.open) {
            if let Some(partition) = self.partitions.get(&number.0) {
                findings.extend(in_words(&partition.source, &open.findings));
            }
        }
        findings
    }
}

/// The shares of index or verify that are in the state, by key.
#[derive(Debug, Default)]
pub(super) struct Units {
    pub units: BTreeMap<String, UnitFacts>,
    /// The step is done, and nothing of it changes any more.
    is_settled: bool,
}

/// A share.
#[derive(Debug)]
pub(super) struct UnitFacts {
    pub standing: Standing,
    pub started: String,
    pub finished: Option<String>,
    /// How often it was claimed.
    pub epoch: u64,
    pub findings: Vec<Finding>,
    pub notes: Vec<Note>,
    pub namespace: Namespace,
    pub building: Option<Building>,
}

impl Units {
    /// How many collections were looked at to the end, whatever was found.
    pub fn finished(&self) -> usize {
        let is_finished = |unit: &&UnitFacts| matches!(unit.standing.status, WorkStatus::Done | WorkStatus::Findings);
        self.units.values().filter(is_finished).count()
    }
}

impl Reader {
    /// Reads this job.
    pub fn new(documents: Documents) -> Self {
        let units = Units::default;
        Self { documents, checkpoints: None, catalog: None, planned: None, index: units(), verify: units() }
    }

    /// What the store has of the job now, `None` when it has nothing.
    ///
    /// # Errors
    /// Those of the state store.
    pub(super) async fn read(&mut self) -> Result<Option<Facts<'_>>> {
        let steps = self.steps().await?;
        let job: Option<JobRecord> = self.value(keys::JOB).await?;
        let failure: Option<Failure> = self.value(keys::FAILURE).await?;
        if job.is_none() && steps.is_empty() && failure.is_none() {
            return Ok(None);
        }
        if self.checkpoints.is_none() {
            self.checkpoints = self.value(keys::CHECKPOINT).await?;
        }
        if self.catalog.is_none() {
            self.catalog = self.catalog().await?;
        }
        if self.planned.is_none() {
            self.planned = self.planned().await?;
        }
        let oplog = self.value(keys::OPLOG_BEGINS).await?;
        let control = self.value(keys::CONTROL).await?;
        let rejects = rejects::read(&self.documents).await?;
        for step in [Step::Index, Step::Verify] {
            self.read_units(step, steps.get(&step)).await?;
        }
        let mut reads = Vec::new();
        if let Some(planned) = &mut self.planned {
            for lane in &mut planned.lanes {
                reads.push(lane.read(&self.documents));
            }
        }
        let lanes: Vec<Vec<LaneFacts<'_>>> = stream::iter(reads).buffered(PARALLEL).try_collect().await?;
        let lanes = lanes.into_iter().flatten().collect();
        Ok(Some(Facts {
            job,
            steps,
            checkpoints: self.checkpoints.as_ref(),
            oplog,
            catalog: self.catalog.as_ref(),
            lanes,
            index: &self.index,
            verify: &self.verify,
            control,
            failure,
            rejects,
        }))
    }

    async fn value<T: Document>(&self, key: &str) -> Result<Option<T>> {
        Ok(self.documents.read(key).await?.map(|stored| stored.value))
    }

    async fn steps(&self) -> Result<BTreeMap<Step, Work<StepProgress>>> {
        let read = async |step: Step| Ok(self.value(&keys::step(step)).await?.map(|work| (step, work)));
        let steps: Vec<Option<(Step, Work<StepProgress>)>> =
            stream::iter(Step::ALL).map(read).buffered(PARALLEL).try_collect().await?;
        Ok(steps.into_iter().flatten().collect())
    }

    async fn catalog(&self) -> Result<Option<Catalog>> {
        let Some(head) = self.value::<CatalogHead>(keys::CATALOG).await? else { return Ok(None) };
        let mut namespaces = Vec::with_capacity(head.namespaces as usize);
        for page in 0..head.pages {
            namespaces
                .extend(pages::read_catalog_page(&self.documents, &head, page).await?.into_iter().map(Listed::of));
        }
        Ok(Some(Catalog { documents: head.documents, bytes: head.bytes, namespaces }))
    }

    async fn planned(&self) -> Result<Option<Planned>> {
        let Some(plan) = self.value::<PlanHead>(keys::PLAN).await? else { return Ok(None) };
        let mut lanes = Vec::new();
        for planned in &plan.lanes {
            let all = 0..planned.partitions;
            let partitions = pages::read_partitions(&self.documents, &plan, &planned.lane, all).await?;
            let partition = |PartitionSpec { number, ordinal, source, target, .. }| {
                (number.0, PlannedPartition { ordinal, source, target })
            };
            lanes.push(PlannedLane {
                planned: planned.clone(),
                partitions: partitions.into_iter().map(partition).collect(),
                sealed: HashMap::new(),
            });
        }
        Ok(Some(Planned { lanes }))
    }

    /// Reads the shares of a step that may have changed. A share that is done stays so, but for those of verify, which
    /// are done once more when it is named by hand after it was done.
    async fn read_units(&mut self, step: Step, result: Option<&Work<StepProgress>>) -> Result<()> {
        let is_done = result.is_some_and(|work| work.status == WorkStatus::Done);
        let units = if step == Step::Index { &self.index } else { &self.verify };
        if units.is_settled {
            return Ok(());
        }
        let is_repeated = step == Step::Verify && is_done;
        let is_final = |key: &String| {
            !is_repeated && units.units.get(key).is_some_and(|unit| unit.standing.status == WorkStatus::Done)
        };
        let keys = self.documents.list(&keys::units(step)).await?;
        let changing = keys.into_iter().filter(|key| !is_final(key));
        let read = async |key: String| Ok((self.value::<Work<UnitProgress>>(&key).await?, key));
        let found: Vec<(Option<Work<UnitProgress>>, String)> =
            stream::iter(changing).map(read).buffered(PARALLEL).try_collect().await?;
        let units = if step == Step::Index { &mut self.index } else { &mut self.verify };
        for (work, key) in found {
            let Some(work) = work else { continue };
            let standing = Standing::of(&work);
            let UnitProgress { findings, notes, namespace, building, .. } = work.progress;
            let (started, finished, epoch) = (work.started, work.finished, work.lease.epoch.0);
            let facts = UnitFacts { standing, started, finished, epoch, findings, notes, namespace, building };
            units.units.insert(key, facts);
        }
        units.is_settled = step == Step::Index && is_done;
        Ok(())
    }
}

impl PlannedLane {
    /// It, and the tails that it gave away.
    async fn read(&mut self, documents: &Documents) -> Result<Vec<LaneFacts<'_>>> {
        let mut facts = Vec::new();
        for lane in lanes::read_all(documents, &self.planned).await? {
            let Tail { lane: name, partitions } = lane.tail;
            let work = lane.stored.map(|stored| stored.value);
            let sealed = self.sealed.entry(name.clone()).or_default();
            let segments = work.as_ref().map_or(0, |work| work.progress.segments);
            for record in pages::read_segments(documents, &name, sealed.segments..segments).await? {
                sealed.proven.add(&record);
            }
            sealed.segments = sealed.segments.max(segments);
            let mut proven = sealed.proven.clone();
            work.iter().flat_map(|work| &work.progress.finished).for_each(|record| proven.add(record));
            let own = work.as_ref().map_or(name.from.0..partitions, |work| work.progress.own());
            facts.push(LaneFacts { name, partitions: &self.partitions, own, work, proven });
        }
        Ok(facts)
    }
}
