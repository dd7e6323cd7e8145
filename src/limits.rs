//! Holding a run to the limits in force: every batch asks before it is sent, and a look at the state store now and then
//! tells what `mongoferry control` has said meanwhile, and which lanes are done.
//!
//! What may go when is decided by [`crate::model::pace`]; here it is waited for. Batches go in the order in which they
//! ask, those of all lanes and partitions alike, so none of them starves. Whoever waits is a reader with a batch in
//! hand, so a limit slows the reading down; leases are renewed in the background meanwhile, and a run that is told to
//! stop drops its readers where they wait.

use crate::clock::{self, Moment};
use crate::context::Context;
use crate::error::Result;
use crate::model::lane::LaneProgress;
use crate::model::limit::{Control, InForce, RateLimits};
use crate::model::pace::{Admission, BatchSize, Pace, Rate};
use crate::model::plan::LaneName;
use crate::model::work::{Work, WorkStatus};
use crate::state::document::Documents;
use crate::state::keys;
use serde_json::json;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// How often the store is looked at, at most: a person who turns a limit does not notice a second.
const SHORTEST_LOOK: Duration = Duration::from_secs(1);

/// How many lanes are looked at each time, in turn, whether they are done. With many it takes a while to get around;
/// until then this run sends less than it might.
const LANES_A_LOOK: usize = 8;

/// A wait this long is worth a warning: somebody may have meant another unit.
const LONG: Duration = Duration::from_secs(60);

/// The limits of a run's copy step, shared by all its lanes.
#[derive(Debug)]
pub struct Limits {
    now: Mutex<Now>,
    /// Told of every change, so that whoever waits asks again.
    changed: watch::Sender<()>,
    /// Whose turn it is: fair, so that batches go in the order in which they ask.
    turn: tokio::sync::Mutex<()>,
    began: Moment,
}

#[derive(Debug)]
struct Now {
    in_force: InForce,
    pace: Pace,
    /// How many lanes this run holds.
    held: u32,
    /// Those of the plan, and the tails that are known of.
    lanes: BTreeSet<LaneName>,
    done: BTreeSet<LaneName>,
    has_warned: bool,
    /// A batch had to wait.
    has_held_back: bool,
}

impl Now {
    fn set_pace(&mut self, now: Duration) {
        let left = self.lanes.len() - self.done.len();
        let share = |limit: u64| Rate::share(limit, self.held, u32::try_from(left).unwrap_or(u32::MAX));
        let InForce { rates, paused } = self.in_force;
        self.pace.change(now, rates.documents.map(share), rates.bytes.map(share), paused);
    }
}

/// A lane that this run holds, and whose share it has while this lives. Let go of before the lane is saved as done.
#[derive(Debug)]
pub struct HeldLane<'a>(&'a Limits);

impl Drop for HeldLane<'_> {
    fn drop(&mut self) {
        self.0.change(|now| now.held = now.held.saturating_sub(1));
    }
}

impl Limits {
    /// No limits, for a job with these lanes.
    pub fn new(planned: impl IntoIterator<Item = LaneName>) -> Arc<Self> {
        Arc::new(Self {
            now: Mutex::new(Now {
                in_force: InForce::default(),
                pace: Pace::default(),
                held: 0,
                lanes: planned.into_iter().collect(),
                done: BTreeSet::new(),
                has_warned: false,
                has_held_back: false,
            }),
            changed: watch::Sender::new(()),
            turn: tokio::sync::Mutex::new(()),
            began: clock::monotonic(),
        })
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Now)) {
        let mut now = self.now();
        change(&mut now);
        now.set_pace(self.began.elapsed());
        drop(now);
        self.changed.send_replace(());
    }

    /// Takes the share of a lane that was claimed.
    pub fn hold(&self) -> HeldLane<'_> {
        self.change(|now| now.held += 1);
        HeldLane(self)
    }

    /// A lane is known to be done: a lane stays done, and nothing is sent for it any more.
    pub fn lane_is_done(&self, lane: &LaneName) {
        self.change(|now| {
            if now.lanes.contains(lane) {
                now.done.insert(lane.clone());
            }
        });
    }

    /// Lanes have given tails away: each of those has a share as well. Workers hear of it within seconds, until then those
    /// that have not send a little too much.
    pub fn lanes_are_known(&self, tails: impl IntoIterator<Item = LaneName>) {
        let new: Vec<LaneName> = {
            let now = self.now();
            tails.into_iter().filter(|lane| !now.lanes.contains(lane)).collect()
        };
        if !new.is_empty() {
            self.change(|now| now.lanes.extend(new));
        }
    }

    /// Puts other limits in force, at once also for those who wait.
    fn put_in_force(&self, in_force: InForce) {
        self.change(|now| {
            now.in_force = in_force;
            now.has_warned = false;
        });
    }

    /// Whether a batch had to wait since this was asked last. What the target can do does not show then.
    pub fn held_back(&self) -> bool {
        let is_waiting = self.turn.try_lock().is_err();
        std::mem::take(&mut self.now().has_held_back) || is_waiting
    }

    /// Waits until a batch may be sent, and counts it. To be asked once a batch; when it is dropped before it returns,
    /// nothing is counted.
    pub async fn admit(&self, documents: usize, bytes: usize) {
        if self.now().pace.is_free() {
            return;
        }
        let _turn = self.turn.lock().await;
        let mut changed = self.changed.subscribe();
        loop {
            // A change that comes after this look is still to be seen below.
            changed.mark_unchanged();
            let admission = self.now().pace.admit(self.began.elapsed(), documents as u64, bytes as u64);
            let wait = match admission {
                Admission::Goes => return,
                Admission::Waits(wait) => wait,
                Admission::Stands => Duration::MAX,
            };
            self.now().has_held_back = true;
            if admission != Admission::Stands && wait > LONG {
                self.warn_once(wait);
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = changed.changed() => {}
            }
        }
    }

    fn warn_once(&self, wait: Duration) {
        let mut now = self.now();
        if !std::mem::replace(&mut now.has_warned, true) {
            let wait = humantime::format_duration(Duration::from_secs(wait.as_secs()));
            tracing::warn!("the limit lets the next batch go in {wait}: {}", now.in_force.text());
        }
    }

    /// How large the next batch should be at most, so that it is no lump.
    pub fn batch_size(&self) -> BatchSize {
        self.now().pace.batch_size()
    }
}

/// Reads what `control` has said, and puts it in force beside the flags.
///
/// # Errors
/// Those of the state store.
pub async fn begin(context: &Context, limits: &Limits) -> Result<()> {
    let in_force = read(&context.documents, context.settings.rate_limits).await?;
    limits.put_in_force(in_force);
    if in_force.paused {
        let name = &context.settings.job;
        tracing::info!("the job is paused; `mongoferry control --job {name} resume` lets it go on");
    }
    if in_force.rates != RateLimits::default() {
        tracing::info!("limits in force: {}", in_force.text());
    }
    Ok(())
}

/// Looks again and again, until it is dropped. What cannot be read leaves in force what is.
pub async fn keep_looking(context: &Context, limits: &Limits) -> Infallible {
    let interval = context.settings.save_interval.max(SHORTEST_LOOK);
    let mut failure = None;
    let mut next_lane = None;
    loop {
        tokio::time::sleep(interval).await;
        let looked = async {
            look_at_control(context, limits).await?;
            look_at_lanes(&context.documents, limits, &mut next_lane).await
        };
        let failed = looked.await.err();
        if let Some(error) = failed.as_ref().filter(|error| failure.as_ref() != Some(*error)) {
            tracing::warn!("the limits cannot be read, those in force stay: {error}");
        }
        failure = failed;
    }
}

async fn read(documents: &Documents, flags: RateLimits) -> Result<InForce> {
    let control: Option<Control> = documents.read(keys::CONTROL).await?.map(|stored| stored.value);
    Ok(control.unwrap_or_default().in_force(flags))
}

async fn look_at_control(context: &Context, limits: &Limits) -> Result<()> {
    let in_force = read(&context.documents, context.settings.rate_limits).await?;
    let before = limits.now().in_force;
    if in_force == before {
        return Ok(());
    }
    limits.put_in_force(in_force);
    tracing::info!("limits in force: {}, before: {}", in_force.text(), before.text());
    let facts = json!({
        "paused": in_force.paused,
        "max_documents_per_second": in_force.rates.documents,
        "max_bytes_per_second": in_force.rates.bytes,
    });
    context.journal.record("limits", facts);
    context.journal.flush().await;
    Ok(())
}

/// Looks whether more lanes are done, a few of them each time. `next` is where to begin.
async fn look_at_lanes(documents: &Documents, limits: &Limits, next: &mut Option<LaneName>) -> Result<()> {
    let lanes: Vec<LaneName> = {
        let now = limits.now();
        // Without a limit there are no shares, and the last lane's share is all of it.
        let left = now.lanes.len() - now.done.len();
        if now.in_force.rates == RateLimits::default() || left == now.held as usize {
            return Ok(());
        }
        let (before, after): (Vec<_>, Vec<_>) =
            now.lanes.difference(&now.done).partition(|lane| next.as_ref().is_some_and(|next| *lane < next));
        after.into_iter().chain(before).take(LANES_A_LOOK + 1).cloned().collect()
    };
    *next = lanes.get(LANES_A_LOOK).cloned();
    for lane in lanes.iter().take(LANES_A_LOOK) {
        let work: Option<Work<LaneProgress>> = documents.read(&keys::lane(lane)).await?.map(|stored| stored.value);
        let Some(work) = work else { continue };
        limits.lanes_are_known(work.progress.tails().map(|tail| tail.lane));
        if work.status == WorkStatus::Done {
            limits.lane_is_done(lane);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::model::lease::Lease;
    use crate::model::plan::PartitionNumber;
    use crate::state::memory::MemoryStore;
    use futures_util::FutureExt;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn lanes(count: u32) -> Vec<LaneName> {
        (0..count).map(|number| LaneName::planned("rs", number)).collect()
    }

    fn rates(bytes: u64) -> InForce {
        InForce { rates: RateLimits { documents: None, bytes: Some(bytes) }, paused: false }
    }

    /// Lets all that can go on do so, without waiting for time to pass.
    async fn settle() {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_change_lets_those_go_at_once_who_wait() {
        let limits = Limits::new(lanes(1));
        let _held = limits.hold();
        limits.put_in_force(rates(1_024));
        // 100 days at this rate.
        limits.admit(1, 100 * 86_400 * 1_024).await;
        let went = Arc::new(AtomicUsize::new(0));
        for _ in 0..3 {
            let (limits, went) = (Arc::clone(&limits), Arc::clone(&went));
            crate::tasks::spawn(async move {
                limits.admit(1, 1).await;
                went.fetch_add(1, Ordering::SeqCst);
            });
        }
        settle().await;
        assert_eq!(went.load(Ordering::SeqCst), 0);
        limits.put_in_force(InForce { paused: true, ..InForce::default() });
        settle().await;
        assert_eq!(went.load(Ordering::SeqCst), 0, "paused");
        limits.put_in_force(InForce::default());
        settle().await;
        assert_eq!(went.load(Ordering::SeqCst), 3);
        assert_eq!((limits.held_back(), limits.held_back()), (true, false));
    }

    #[tokio::test]
    async fn whoever_gives_up_waiting_lets_the_next_one_ask() {
        let limits = Limits::new(lanes(1));
        let _held = limits.hold();
        limits.put_in_force(InForce { paused: true, ..InForce::default() });
        assert_eq!(limits.admit(1, 1).now_or_never(), None);
        limits.put_in_force(rates(1_024));
        assert_eq!(limits.admit(1, 1 << 20).now_or_never(), Some(()));
        assert_eq!(limits.admit(1, 1).now_or_never(), None);
    }

    #[test]
    fn the_share_follows_the_lanes_that_are_held_and_those_that_are_done() {
        let limits = Limits::new(lanes(4));
        limits.put_in_force(rates(4_000_000));
        let batch = || limits.batch_size().bytes;
        let first = limits.hold();
        assert_eq!(batch(), 200_000);
        let second = limits.hold();
        assert_eq!(batch(), 400_000);
        limits.lane_is_done(&lanes(3)[2]);
        limits.lane_is_done(&lanes(3)[2]);
        assert_eq!(batch(), 533_333);
        drop(second);
        limits.lane_is_done(&lanes(4)[3]);
        limits.lane_is_done(&lanes(5)[4]);
        assert_eq!(batch(), 400_000);
        drop(first);
        limits.put_in_force(InForce::default());
        assert_eq!(batch(), u64::MAX);
    }

    #[tokio::test]
    async fn a_tail_that_was_given_away_has_a_share_once_it_is_known() {
        let documents = Documents::new(Arc::new(MemoryStore::new()), "job");
        let all = lanes(2);
        let mut gave = LaneProgress::new(all[0].clone(), String::new(), 9);
        gave.give(PartitionNumber(4));
        let work = Work {
            lease: Lease::free(),
            status: WorkStatus::Running,
            started: String::new(),
            claimed: None,
            saved: String::new(),
            finished: None,
            progress: gave,
        };
        documents.create(&keys::lane(&all[0]), &work).await.unwrap();
        let limits = Limits::new(all);
        limits.put_in_force(rates(3_000_000));
        let _held = limits.hold();
        assert_eq!(limits.batch_size().bytes, 300_000);
        look_at_lanes(&documents, &limits, &mut None).await.unwrap();
        assert_eq!(limits.batch_size().bytes, 200_000);
    }

    #[tokio::test]
    async fn lanes_that_are_done_are_found_in_turn() {
        let documents = Documents::new(Arc::new(MemoryStore::new()), "job");
        let planned = lanes(LANES_A_LOOK as u32 * 2 + 1);
        for lane in planned.iter().step_by(2) {
            let work = Work {
                lease: Lease::free(),
                status: WorkStatus::Done,
                started: String::new(),
                claimed: None,
                saved: String::new(),
                finished: None,
                progress: LaneProgress::new(lane.clone(), String::new(), 0),
            };
            documents.create(&keys::lane(lane), &work).await.unwrap();
        }
        let limits = Limits::new(planned.clone());
        let mut next = None;
        look_at_lanes(&documents, &limits, &mut next).await.unwrap();
        assert_eq!(limits.now().done.len(), 0, "without a limit nobody asks");
        limits.put_in_force(rates(1_024));
        for found in [LANES_A_LOOK / 2, LANES_A_LOOK, LANES_A_LOOK + 1] {
            look_at_lanes(&documents, &limits, &mut next).await.unwrap();
            assert_eq!(limits.now().done.len(), found);
        }
    }
}
