//! Running one lane: begins partitions in order, a few at a time, saves the cursors while they move, and seals the
//! proofs of finished ones.

use super::deliver::Delivery;
use super::flow::Flow;
use super::ownership::Ownership;
use super::ownerships::Origin;
use super::partition::{self, Advance, Ended, Reading, ReadingEnded};
use super::rejects::Rejects;
use super::send;
use crate::claim::Claim;
use crate::context::{Context, Servers};
use crate::error::{Error, Kind, Result};
use crate::model::choice::Order;
use crate::model::cursor::{Covered, Key};
use crate::model::dbref::DbRefs;
use crate::model::finding::{Finding, Note};
use crate::model::lane::{self, Ending, LaneProgress, OpenPartition, PartitionRecord, SEGMENT};
use crate::model::locator::Locator;
use crate::model::plan::{PartitionNumber, PartitionSpec};
use crate::model::record::Node;
use crate::mongo::catalog;
use crate::mongo::failure::is_transient;
use crate::mongo::read;
use crate::mongo::read_from::ReadFrom;
use crate::mongo::scan::by_id::ById;
use crate::mongo::scan::insertion::Insertion;
use crate::mongo::scan::natural::{self, Natural};
use crate::mongo::scan::{Gone, Lost, Scan, Wanted};
use crate::mongo::writers::{Fence, Writers};
use crate::state::pages::{self, PreparedEntry};
use crate::tasks;
use bson::RawDocumentBuf;
use serde_json::json;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, OnceCell};
use tokio::task::JoinSet;
use tokio_retry::RetryIf;

/// How a run of a lane ended, when not by an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaneEnd {
    /// Every partition that it did not give away is finished.
    Complete,
    /// Told to stop; what was acknowledged is saved.
    Stopped,
}

/// A lane that is being copied. Its live progress runs ahead of what is saved.
struct Run {
    context: Context,
    servers: Servers,
    origin: Origin,
    writers: Arc<Writers>,
    claim: Arc<Claim<LaneProgress>>,
    live: Mutex<LaneProgress>,
    /// Somebody waits for a save, or a segment is full.
    wanted: Notify,
    flow: Flow,
    rejects: Arc<Rejects>,
    prepared: HashMap<u32, PreparedEntry>,
    /// The member that is read from in the order of its disk; none where the source does not tell enough of it.
    node: OnceCell<Option<Node>>,
}

/// Copies what is left of a lane that was claimed: of these partitions, those that are not finished, as long as they are
/// its own.
///
/// # Errors
/// The first one of any partition, or of saving. What was acknowledged before was saved as far as the store let it.
pub async fn run(
    context: &Context,
    servers: &Servers,
    flow: &Flow,
    claim: &Arc<Claim<LaneProgress>>,
    partitions: &[PartitionSpec],
    prepared: &[PreparedEntry],
    origin: Origin,
) -> Result<LaneEnd> {
    let work = claim.work().await;
    let progress = work.progress;
    let name = progress.lane.clone();
    let fence = Fence { job: servers.bound()?.0.id.clone(), lane: name.clone(), epoch: work.lease.epoch };
    // To fence is to write.
    let is_fenced = context.settings.fence_writes && !context.settings.dry_run;
    let fence = is_fenced.then_some(fence);
    let writers = Writers::new(servers.target.clone(), fence).map_err(|error| servers.target.failed(&error))?;
    let sealed = pages::read_proofs(&context.documents, &name, progress.segments).await?;
    let finished: BTreeSet<PartitionNumber> =
        sealed.iter().chain(&progress.finished).map(|record| record.partition.number).collect();
    let rejects = Rejects::new(context.documents.clone(), name, context.settings.max_rejected);
    rejects.ensure_not_too_many().await?;
    let run = Arc::new(Run {
        context: context.clone(),
        servers: servers.clone(),
        origin,
        writers: Arc::new(writers),
        claim: Arc::clone(claim),
        live: Mutex::new(progress),
        wanted: Notify::new(),
        flow: flow.clone(),
        rejects: Arc::new(rejects),
        prepared: prepared.iter().map(|entry| (entry.ordinal.0, entry.clone())).collect(),
        node: OnceCell::new(),
    });
    let left = partitions.iter().filter(|partition| !finished.contains(&partition.number)).cloned();
    let mut saver = tasks::spawn(Arc::clone(&run).keep_saving());
    let copied = tokio::select! {
        biased;
        failed = &mut saver => Err(joined(failed)),
        error = claim.lost() => Err(error),
        copied = run.fence_and_copy(left.collect()) => copied,
    };
    saver.abort();
    // Whatever happened, what is acknowledged need not be read again.
    let saved = match &copied {
        Err(error) if error.kind() == Kind::Fenced => Ok(()),
        _ => run.save().await,
    };
    let end = copied?;
    saved?;
    Ok(end)
}

fn joined(result: std::result::Result<Error, tokio::task::JoinError>) -> Error {
    result.unwrap_or_else(|error| Error::internal(format!("a task ended badly: {error}")))
}

impl Run {
    fn live(&self) -> MutexGuard<'_, LaneProgress> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Copies partitions, once no earlier holder of the lane can change the target any more: not before it is looked at,
    /// either.
    async fn fence_and_copy(self: &Arc<Self>, left: VecDeque<PartitionSpec>) -> Result<LaneEnd> {
        let fencing = RetryIf::start(send::waits(), || self.writers.fence(), is_transient);
        match self.context.stop.unless(fencing).await {
            None => return Ok(LaneEnd::Stopped),
            Some(Err(error)) => return Err(self.servers.target.failed(&error).during("fencing the target's writers")),
            Some(Ok(())) => {}
        }
        let (lane, fenced) = (self.claim.work().await.progress.lane, self.writers.are_fenced());
        tracing::debug!(%lane, fenced, "writers are ready");
        self.context.journal.record("writers", json!({ "lane": lane.to_string(), "fenced": fenced }));
        self.copy_all(left).await
    }

    /// Begins partitions in order, as readers are free, up to the first one that was given away.
    async fn copy_all(self: &Arc<Self>, mut left: VecDeque<PartitionSpec>) -> Result<LaneEnd> {
        let mut running: JoinSet<Result<Ended>> = JoinSet::new();
        let mut stopped = false;
        loop {
            let may_begin = !left.is_empty() && !self.context.stop.is_requested();
            tokio::select! {
                biased;
                Some(ended) = running.join_next() => {
                    let ended = ended.map_err(|error| Error::internal(format!("a task ended badly: {error}")))??;
                    stopped |= ended == Ended::Stopped;
                }
                () = self.context.stop.requested(), if may_begin => {}
                reader = self.flow.readers.enter(), if may_begin => {
                    let reader = reader?;
                    if !self.begin(&left).await? {
                        left.clear();
                        continue;
                    }
                    let Some(next) = left.pop_front() else { continue };
                    let run = Arc::clone(self);
                    running.spawn(tasks::counted(async move {
                        let ended = Arc::clone(&run).copy_one(next).await;
                        run.flow.partition_ended();
                        drop(reader);
                        ended
                    }));
                }
                else => break,
            }
        }
        Ok(if stopped || !left.is_empty() { LaneEnd::Stopped } else { LaneEnd::Complete })
    }

    /// Makes sure that a saved document says that the next partition was begun, before anything of it is sent. False when
    /// it was given away, and so were all after it.
    async fn begin(&self, left: &VecDeque<PartitionSpec>) -> Result<bool> {
        let Some(next) = left.front().map(|next| next.number.0) else { return Ok(false) };
        {
            let mut live = self.live();
            if next < live.begun_below {
                return Ok(true);
            }
            if next >= live.own().end {
                return Ok(false);
            }
            let ahead = lane::begin_ahead(left.iter().map(|partition| partition.bytes));
            live.begun_below = (next + ahead).min(live.own().end);
        }
        self.save().await?;
        // What is given away in the document that the save found there, it did not declare begun.
        Ok(next < self.live().begun_below)
    }

    /// Copies one partition, in as many attempts as it takes.
    async fn copy_one(self: Arc<Self>, spec: PartitionSpec) -> Result<Ended> {
        let Some(prepared) = self.prepared.get(&spec.ordinal.0) else {
            return Err(Error::state(format!("prepare has no entry for {}; use another --job", spec.source)));
        };
        let locator = prepared.locator()?;
        // Documents of others have no place in a proof that is to be compared with what is there.
        if spec.order == Order::Natural && !prepared.created {
            self.read_by_id(spec.number);
        }
        let mut replay = spec.number.0 < self.live().replay_below;
        if replay && spec.order == Order::Insertion {
            self.live().open.entry(spec.number).or_default().begin_again();
        }
        loop {
            let open = self.live().open.get(&spec.number).cloned().unwrap_or_default();
            let Some(scan) = self.scan(&spec, &open, replay).await? else {
                self.read_by_id(spec.number);
                continue;
            };
            let ownership = self.origin.ownerships.of(spec.ordinal, &self.origin.deployment).await?;
            let dbrefs = self.dbrefs(&spec)?;
            let sifting = (ownership.clone(), dbrefs.clone());
            let delivery = self.delivery(&spec, (prepared, &locator), &open, replay, sifting);
            let cursor = Cursor { run: &self, number: spec.number };
            let reply_bytes = self.flow.memory.reply_bytes().min(spec.bytes);
            let reading = Reading { scan, ownership, dbrefs, from: open.position.clone(), reply_bytes };
            match partition::copy(reading, &delivery, &self.flow, &self.context.stop, &cursor).await? {
                Ended::Stopped => return Ok(Ended::Stopped),
                Ended::Read(ReadingEnded::Lost(lost)) => {
                    self.go_back(&spec, &lost);
                    replay = true;
                }
                Ended::Read(ReadingEnded::Finished(ending, gone)) => {
                    if ending == Ending::Complete && !self.settle(&spec, &delivery, replay).await? {
                        continue;
                    }
                    self.finish(spec, ending, gone);
                    return Ok(Ended::Read(ReadingEnded::Finished(ending, gone)));
                }
            }
        }
    }

    fn delivery(
        &self,
        spec: &PartitionSpec,
        (prepared, locator): (&PreparedEntry, &Locator),
        open: &OpenPartition,
        replay: bool,
        (ownership, dbrefs): (Option<Arc<Ownership>>, Option<Arc<DbRefs>>),
    ) -> Delivery {
        Delivery {
            source: self.origin.deployment.clone(),
            target: self.servers.target.clone(),
            writers: Arc::clone(&self.writers),
            from: spec.source.clone(),
            to: spec.target.clone(),
            uuid: prepared.uuid.clone(),
            locator: locator.clone(),
            range: spec.range.clone(),
            filter: spec.filter.clone(),
            dbrefs,
            ownership,
            in_order: spec.order == Order::Insertion,
            created: prepared.created && self.origin.ownerships.can_tell(spec),
            replay,
            // What an attempt in another order has sent may be anywhere.
            probes_all: open.by_id && open.attempt > 0,
            not_before: self.origin.not_before,
            on_conflict: self.context.settings.on_conflict,
            digests: self.context.settings.digests,
            is_dry: self.context.settings.dry_run,
            rejects: Arc::clone(&self.rejects),
            claim: Arc::clone(&self.claim),
            empty_probes: AtomicUsize::new(0),
        }
    }

    /// What DBRefs in a partition's documents become.
    fn dbrefs(&self, spec: &PartitionSpec) -> Result<Option<Arc<DbRefs>>> {
        let (_, binding) = self.servers.bound()?;
        Ok(DbRefs::of(&spec.source, &binding.selection).map(Arc::new))
    }

    /// A scan of what is left of a partition. None where the source does not tell enough of its members to go on in the
    /// order of the disk after an interruption.
    async fn scan(&self, spec: &PartitionSpec, open: &OpenPartition, replay: bool) -> Result<Option<Scan>> {
        let wanted = Wanted {
            source: self.origin.deployment.reading_from(ReadFrom::preferring(self.context.settings.read_preference)),
            namespace: spec.source.clone(),
            uuid: spec.uuid.clone(),
            range: spec.range.clone(),
            filter: spec.filter.clone(),
            not_before: self.origin.not_before,
            document_size: spec.bytes / spec.documents.max(1),
            reply_bytes: self.flow.memory.reply_bytes(),
        };
        if spec.order == Order::Insertion {
            let behind = if replay { self.copied_last(spec).await? } else { None };
            return Ok(Some(Scan::Insertion(Insertion::new(wanted, behind))));
        }
        if spec.order == Order::Id || open.by_id {
            return Ok(Some(Scan::ById(ById::new(wanted, open.position.clone()))));
        }
        if let Some(record) = open.position.record() {
            return Ok(Some(Scan::Natural(Natural::new(wanted, record.node.clone(), Some(record.clone())))));
        }
        let node = self.node.get_or_try_init(|| natural::node(&wanted.source)).await;
        match node.map_err(|error| self.origin.deployment.failed(&error))? {
            Some(node) => Ok(Some(Scan::Natural(Natural::new(wanted, node.clone(), None)))),
            None => Ok(None),
        }
    }

    /// The target's last document of a capped collection as the source has it, where it has it still. Where it has not, all
    /// that it has is newer.
    async fn copied_last(&self, spec: &PartitionSpec) -> Result<Option<RawDocumentBuf>> {
        let (source, target) = (&self.origin.deployment, &self.servers.target);
        let looking = format!("looking for the last document of {}", spec.target);
        let last = RetryIf::start(send::waits(), || read::last_inserted(target, &spec.target), is_transient);
        let Some(last) = last.await.map_err(|error| target.failed(&error).during(&looking))? else { return Ok(None) };
        let Some(key) = Key::of(&last) else { return Ok(None) };
        let look = || read::document(source, &spec.source, spec.filter.as_ref(), &key, Some(self.origin.not_before));
        let there = RetryIf::start(send::waits(), look, is_transient).await;
        let there = there.map_err(|error| source.failed(&error).during(&looking))?;
        let dbrefs = self.dbrefs(spec)?;
        let is_copied = |there: &RawDocumentBuf| {
            let renamed = dbrefs.as_ref().and_then(|dbrefs| dbrefs.renamed(there.as_bytes()));
            renamed.as_deref().unwrap_or(there.as_bytes()) == last.as_bytes()
        };
        Ok(there.filter(is_copied))
    }

    /// A partition that was planned in the order of the disk is read by `_id` from its beginning.
    fn read_by_id(&self, number: PartitionNumber) {
        self.live().open.entry(number).or_default().by_id = true;
    }

    /// The partition begins another attempt, from an earlier record or in `_id` order.
    fn go_back(&self, spec: &PartitionSpec, lost: &Lost) {
        let mut live = self.live();
        let open = live.open.entry(spec.number).or_default();
        match lost {
            Lost::Record(_) => open.go_back(),
            Lost::Node(_) => open.begin_by_id(),
            Lost::Order(_) => open.begin_again(),
        }
        let how = match lost {
            Lost::Order(_) => "behind what was copied",
            _ if open.by_id => "from its start, by _id",
            _ => "from an earlier record",
        };
        tracing::warn!(namespace = %spec.source, "{lost}: it goes on {how}");
        self.record(spec, &lost.to_string(), open);
    }

    fn record(&self, spec: &PartitionSpec, why: &str, open: &OpenPartition) {
        let facts = json!({ "namespace": spec.source, "why": why, "by_id": open.by_id, "attempt": open.attempt });
        self.context.journal.record("attempt", facts);
    }

    /// After the last document of a partition that may have been sent before: whether what is there is what was counted.
    /// When it is not, it begins another attempt, by `_id`.
    async fn settle(&self, spec: &PartitionSpec, delivery: &Delivery, replay: bool) -> Result<bool> {
        let open = self.live().open.get(&spec.number).cloned().unwrap_or_default();
        if spec.order == Order::Insertion {
            return Ok(true);
        }
        if spec.order == Order::Id || open.by_id {
            let counts = delivery.settle_tail(&open.position).await?;
            self.live().open.entry(spec.number).or_default().counts += counts;
            return Ok(true);
        }
        // In the order of the disk nothing tells of a document that an earlier run has sent and the source has deleted
        // since, but that there is one too many.
        if !replay
            || delivery.is_dry
            || catalog::count(&self.servers.target, &spec.target).await? == open.counts.written
        {
            return Ok(true);
        }
        let mut live = self.live();
        let open = live.open.entry(spec.number).or_default();
        open.begin_by_id();
        let why = "documents were deleted on the source after an earlier run had sent them";
        tracing::info!(namespace = %spec.source, "{why}: both sides are compared by _id");
        self.record(spec, why, open);
        Ok(false)
    }

    fn finish(&self, spec: PartitionSpec, ending: Ending, gone: Option<Gone>) {
        let notes = gone.map(|gone| Note {
            namespace: spec.source.shown(),
            text: format!(
                "was {} on the source while it was copied; a stream from the checkpoint brings that only where it replays DDL",
                gone.text()
            ),
        });
        let mut live = self.live();
        let open = live.open.remove(&spec.number).unwrap_or_default();
        live.finished.push(PartitionRecord {
            partition: spec,
            ending,
            attempt: open.attempt,
            counts: open.counts,
            findings: open.findings,
            notes: notes.into_iter().collect(),
        });
        if live.finished.len() >= SEGMENT {
            self.wanted.notify_one();
        }
    }

    /// Saves at every interval in which something moved, until it fails.
    async fn keep_saving(self: Arc<Self>) -> Error {
        let interval: Duration = self.context.settings.save_interval;
        let mut saved = self.live().clone();
        loop {
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                () = self.wanted.notified() => {}
            }
            let live = self.live().clone();
            if live != saved {
                match self.save().await {
                    Ok(()) => saved = live,
                    Err(error) if error.kind() == Kind::StateUnavailable => {
                        tracing::warn!("the cursors were not saved, trying again: {error}");
                    }
                    Err(error) => return error,
                }
            }
        }
    }

    /// Saves the live progress, and seals a full segment of proofs of what was saved.
    async fn save(&self) -> Result<()> {
        loop {
            self.claim
                .save(|work| {
                    // Taken under the claim's lock: saves follow each other, and so do the progresses that they save.
                    let mut live = self.live();
                    live.take_over(&work.progress);
                    work.progress = live.clone();
                })
                .await?;
            self.flow.limits.lanes_are_known(self.live().tails().map(|tail| tail.lane));
            if self.live().finished.len() < SEGMENT {
                return Ok(());
            }
            self.seal().await?;
        }
    }

    async fn seal(&self) -> Result<()> {
        let saved = self.claim.work().await.progress;
        let Some(segment) = saved.segment_to_seal() else { return Ok(()) };
        pages::seal_proofs(&self.context.documents, &saved.lane, saved.segments, segment).await?;
        let mut live = self.live();
        // Another task that saved at the same time may have sealed the same segment.
        if live.segments == saved.segments {
            live.sealed();
        }
        Ok(())
    }
}

/// The cursor of one partition in its lane's live progress.
struct Cursor<'a> {
    run: &'a Run,
    number: PartitionNumber,
}

impl Advance for Cursor<'_> {
    fn advance(&self, what: Covered<Finding>) {
        self.run.live().open.entry(self.number).or_default().advance(what);
    }
}
