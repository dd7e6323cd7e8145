//! Running one lane: begins partitions in order, a few at a time, saves the cursors while they move, and seals the
//! proofs of finished ones.

use super::deliver::Delivery;
use super::partition::{self, Advance, Ended, LANE_KIB};
use super::rejects::Rejects;
use crate::claim::Claim;
use crate::context::{Context, Servers};
use crate::error::{Error, Kind, Result};
use crate::model::cursor::{Acknowledged, Position};
use crate::model::finding::{Finding, Note};
use crate::model::job::Optime;
use crate::model::lane::{BEGIN_AHEAD, Ending, LaneProgress, OpenPartition, PartitionRecord, SEGMENT};
use crate::model::plan::{LaneSpec, PartitionNumber, PartitionSpec};
use crate::mongo::scan::{Gone, Scan, Wanted};
use crate::state::pages::{self, PreparedEntry};
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;

/// How many partitions of a lane are copied side by side: small collections spend their time waiting for answers.
const SIDE_BY_SIDE: usize = 4;

/// How a run of a lane ended, when not by an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaneEnd {
    /// Every partition is finished.
    Complete,
    /// Told to stop; what was acknowledged is saved.
    Stopped,
}

/// A lane that is being copied. Its live progress runs ahead of what is saved.
struct Run {
    context: Context,
    servers: Servers,
    claim: Arc<Claim<LaneProgress>>,
    live: Mutex<LaneProgress>,
    /// Somebody waits for a save, or a segment is full.
    wanted: Notify,
    memory: Arc<Semaphore>,
    rejects: Arc<Rejects>,
    prepared: HashMap<u32, PreparedEntry>,
    not_before: Optime,
}

/// Copies what is left of a lane that was claimed.
///
/// # Errors
/// The first one of any partition, or of saving. What was acknowledged before was saved as far as the store let it.
pub async fn run(
    context: &Context,
    servers: &Servers,
    claim: &Arc<Claim<LaneProgress>>,
    spec: &LaneSpec,
    prepared: &[PreparedEntry],
    not_before: Optime,
) -> Result<LaneEnd> {
    let progress = claim.work().await.progress;
    let sealed = pages::read_proofs(&context.documents, &spec.lane, progress.segments).await?;
    let finished: BTreeSet<PartitionNumber> =
        sealed.iter().chain(&progress.finished).map(|record| record.partition.number).collect();
    let rejects = Rejects::new(context.documents.clone(), spec.lane.clone(), context.settings.max_rejected);
    rejects.ensure_not_too_many().await?;
    let run = Arc::new(Run {
        context: context.clone(),
        servers: servers.clone(),
        claim: Arc::clone(claim),
        live: Mutex::new(progress),
        wanted: Notify::new(),
        memory: Arc::new(Semaphore::new(LANE_KIB)),
        rejects: Arc::new(rejects),
        prepared: prepared.iter().map(|entry| (entry.ordinal.0, entry.clone())).collect(),
        not_before,
    });
    let left = spec.partitions.iter().filter(|partition| !finished.contains(&partition.number)).cloned();
    let mut saver = tokio::spawn(Arc::clone(&run).keep_saving());
    let copied = tokio::select! {
        biased;
        failed = &mut saver => Err(joined(failed)),
        error = claim.lost() => Err(error),
        copied = run.copy_all(left.collect()) => copied,
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

    /// Copies partitions in order, a few at a time.
    async fn copy_all(self: &Arc<Self>, left: Vec<PartitionSpec>) -> Result<LaneEnd> {
        let mut left = left.into_iter();
        let mut running: JoinSet<Result<Ended>> = JoinSet::new();
        let mut stopped = false;
        loop {
            while running.len() < SIDE_BY_SIDE && !self.context.stop.is_requested() {
                let Some(next) = left.next() else { break };
                self.begin(next.number).await?;
                running.spawn(Arc::clone(self).copy_one(next));
            }
            match running.join_next().await {
                Some(ended) => {
                    let ended = ended.map_err(|error| Error::internal(format!("a task ended badly: {error}")))??;
                    stopped |= ended == Ended::Stopped;
                }
                None if stopped || left.len() > 0 => return Ok(LaneEnd::Stopped),
                None => return Ok(LaneEnd::Complete),
            }
        }
    }

    /// Makes sure that a saved document says that this partition was begun, before anything of it is sent.
    async fn begin(&self, number: PartitionNumber) -> Result<()> {
        {
            let mut live = self.live();
            if number.0 < live.begun_below {
                return Ok(());
            }
            live.begun_below = (number.0 + BEGIN_AHEAD).min(live.partitions);
        }
        self.save().await
    }

    async fn copy_one(self: Arc<Self>, spec: PartitionSpec) -> Result<Ended> {
        let Some(prepared) = self.prepared.get(&spec.ordinal.0) else {
            return Err(Error::state(format!("prepare has no entry for {}; use another --job", spec.source)));
        };
        let (position, replay) = {
            let live = self.live();
            let position = live.open.get(&spec.number).map_or(Position::Start, |open| open.position.clone());
            (position, spec.number.0 < live.replay_below)
        };
        let delivery = Delivery {
            source: self.servers.source.clone(),
            target: self.servers.target.clone(),
            from: spec.source.clone(),
            to: spec.target.clone(),
            uuid: prepared.uuid.clone(),
            range: spec.range.clone(),
            created: prepared.created,
            replay,
            not_before: self.not_before,
            on_conflict: self.context.settings.on_conflict,
            rejects: Arc::clone(&self.rejects),
            claim: Arc::clone(&self.claim),
            empty_probes: AtomicUsize::new(0),
        };
        let wanted = Wanted {
            source: self.servers.source.clone(),
            namespace: spec.source.clone(),
            uuid: spec.uuid.clone(),
            range: spec.range.clone(),
            not_before: self.not_before,
            document_size: spec.bytes / spec.documents.max(1),
        };
        let scan = Scan::new(wanted, position.clone());
        let cursor = Cursor { run: &self, number: spec.number };
        let ended =
            partition::copy(scan, position, &delivery, Arc::clone(&self.memory), &self.context.stop, &cursor).await?;
        if let Ended::Finished(ending, gone) = ended {
            let last = self.live().open.get(&spec.number).map_or(Position::Start, |open| open.position.clone());
            if ending == Ending::Complete {
                let counts = delivery.settle_tail(&last).await?;
                self.live().open.entry(spec.number).or_default().counts += counts;
            }
            self.finish(spec, ending, gone);
        }
        Ok(ended)
    }

    fn finish(&self, spec: PartitionSpec, ending: Ending, gone: Option<Gone>) {
        let notes = gone.map(|gone| Note {
            namespace: spec.source.clone(),
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
                    work.progress = self.live().clone();
                })
                .await?;
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
    fn advance(&self, what: Acknowledged<Finding>) {
        let mut live = self.run.live();
        let open: &mut OpenPartition = live.open.entry(self.number).or_default();
        open.position = Position::After(what.last);
        open.counts += what.counts;
        for finding in what.findings {
            open.findings.add(finding);
        }
    }
}
