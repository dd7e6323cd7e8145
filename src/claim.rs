//! Claiming a piece of work, keeping it, saving its progress, and letting go of it.
//!
//! Decides who works. Protects two rules: only one worker's saves succeed (each is a compare-and-swap of the document
//! that holds lease and progress alike), and nobody sends to the target whose last successful save is older than half
//! the lease ([`Claim::ensure_may_send`]), so that a claimant who waited for the whole lease never works beside it.

use crate::clock::{self, Moment};
use crate::error::{Error, Kind, Result};
use crate::model::invariants::Broken;
use crate::model::lease::{self, Evidence, Granted, HeldByAnother, Holder, Lease};
use crate::model::work::{Progress, Work, WorkStatus};
use crate::process;
use crate::state::document::{Created, Document, Documents, Replaced, Stored};
use crate::stop::Stop;
use crate::tasks;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, watch};
use tokio::task::AbortHandle;

impl<P: Progress> Document for Work<P> {
    const KIND: &'static str = P::KIND;
    const VERSION: u32 = P::VERSION;

    fn version(&self) -> u32 {
        self.progress.version()
    }
}

/// How often a claimant that waits looks at the document at most: soon enough to see a living worker save.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// How often it looks at least, as a part of the document's lease.
const LOOKS_PER_LEASE: u32 = 10;

/// How often a claim is tried again when another worker was faster. Each time somebody has claimed, so more than a few
/// means that something is wrong.
const CLAIM_ATTEMPTS: u32 = 20;

/// Who claims, and how.
#[derive(Debug, Clone)]
pub struct Claimant {
    /// This run.
    pub holder: Holder,
    /// For how long a document of its may stay unchanged before another worker takes it.
    pub lease: Duration,
    /// Take at once what another worker seems to hold.
    pub takeover: bool,
}

/// What came of a claim.
pub enum Claiming<P: Progress> {
    /// It is ours.
    Mine(Arc<Claim<P>>),
    /// There is nothing left to do.
    Done(Work<P>),
    /// Another worker is at it: its document changed while we looked.
    Busy(Holder),
    /// The run was told to stop while it waited.
    Stopped,
}

/// When work that is done is claimed all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DoneIs {
    /// For good.
    Final,
    /// For good, and so is work that ended with findings.
    FinalWithFindings,
    /// To be done once more.
    Repeatable,
}

/// Claims the work at `key`, which begins with `initial` when nobody has touched it.
///
/// # Errors
/// Bad input when the job was abandoned, else those of the state store.
pub async fn claim<P: Progress>(
    documents: &Documents,
    key: &str,
    initial: P,
    claimant: &Claimant,
    done: DoneIs,
    stop: &Stop,
) -> Result<Claiming<P>> {
    let mut seen: Option<(String, Moment)> = None;
    let mut attempts = 0;
    loop {
        let found: Option<Stored<Work<P>>> = documents.read(key).await?;
        let began = clock::monotonic();
        let lease = found.as_ref().map_or_else(Lease::free, |found| found.value.lease.clone());
        if let Some(found) = &found {
            match found.value.status {
                WorkStatus::Abandoned => return Err(abandoned()),
                WorkStatus::Done if done != DoneIs::Repeatable => return Ok(Claiming::Done(found.value.clone())),
                WorkStatus::Findings if done == DoneIs::FinalWithFindings => {
                    return Ok(Claiming::Done(found.value.clone()));
                }
                _ => {}
            }
        }
        let unchanged = match (&seen, &found) {
            (Some((write_id, since)), Some(found)) if *write_id == found.write_id => Some(since.elapsed()),
            (Some(_), Some(found)) if lease.holder.is_some() => {
                let holder = found.value.lease.holder.clone().unwrap_or_else(|| claimant.holder.clone());
                return Ok(Claiming::Busy(holder));
            }
            _ => None,
        };
        let evidence = evidence(&lease, unchanged, claimant);
        match lease.claim(claimant.holder.clone(), claimant.lease, evidence) {
            Ok(granted) => {
                attempts += 1;
                let Granted { lease, outlive } = granted;
                let work = claimed_work(found.as_ref().map(|found| &found.value), lease, initial.clone());
                let written = match &found {
                    None => match documents.create(key, &work).await? {
                        Created::Mine(stored) => Some(stored),
                        Created::Existing(_) => None,
                    },
                    Some(found) => match documents.replace(key, &work, found).await? {
                        Replaced::Mine(stored) => Some(stored),
                        Replaced::Lost(_) => None,
                    },
                };
                if let Some(stored) = written {
                    tracing::debug!(key, epoch = %stored.value.lease.epoch, "claimed");
                    let from = overtaken(found.as_ref().and_then(|found| found.value.lease.holder.as_ref()), evidence);
                    return Ok(Claiming::Mine(Claim::keep(documents.clone(), key, stored, began, outlive, from)));
                }
                if attempts >= CLAIM_ATTEMPTS {
                    return Err(Error::busy(format!("{} changes hands all the time; try again", documents.name(key))));
                }
                seen = None;
            }
            Err(HeldByAnother { remaining, .. }) => {
                let Some(found) = found else { continue };
                if seen.is_none() {
                    seen = Some((found.write_id, began));
                }
                let pause =
                    remaining.min(lease.length() / LOOKS_PER_LEASE).min(LOOK_INTERVAL).max(Duration::from_millis(5));
                if stop.unless(tokio::time::sleep(pause)).await.is_none() {
                    return Ok(Claiming::Stopped);
                }
            }
        }
    }
}

fn evidence(lease: &Lease, unchanged: Option<Duration>, claimant: &Claimant) -> Evidence {
    let process = lease.holder.as_ref().and_then(|holder| holder.process.as_ref());
    if process.is_some_and(process::is_dead) {
        return Evidence::DeadProcess;
    }
    match unchanged {
        Some(time) if time >= lease.length() => Evidence::Unchanged(time),
        _ if claimant.takeover => Evidence::Takeover,
        Some(time) => Evidence::Unchanged(time),
        None => Evidence::Nothing,
    }
}

/// From whom work was taken over, and why that was right; `None` when it was free.
fn overtaken(former: Option<&Holder>, evidence: Evidence) -> Option<Overtaken> {
    let why = match evidence {
        Evidence::Nothing => return None,
        Evidence::DeadProcess => "its process has ended",
        Evidence::Unchanged(_) => "it did not save for its lease's time",
        Evidence::Takeover => "--takeover",
    };
    former.map(|former| Overtaken { run: former.run.clone(), why })
}

/// The worker that work was taken over from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overtaken {
    /// Its run.
    pub run: String,
    /// Why its work was free to take.
    pub why: &'static str,
}

fn claimed_work<P: Progress>(found: Option<&Work<P>>, lease: Lease, initial: P) -> Work<P> {
    let now = clock::wall();
    match found {
        None => Work {
            lease,
            status: WorkStatus::Running,
            started: now.clone(),
            claimed: Some(now.clone()),
            saved: now,
            finished: None,
            progress: initial,
        },
        Some(found) => {
            let mut progress = found.progress.clone();
            progress.claimed();
            Work {
                lease,
                status: WorkStatus::Running,
                started: found.started.clone(),
                claimed: Some(now.clone()),
                saved: now,
                finished: found.finished.clone(),
                progress,
            }
        }
    }
}

/// What every step says of a job that was abandoned.
pub fn abandoned() -> Error {
    Error::bad_input("this job was abandoned; use another --job")
}

/// A piece of work that is ours. Renewed in the background until it is let go of or dropped.
pub struct Claim<P: Progress> {
    documents: Documents,
    key: String,
    stored: Mutex<Stored<Work<P>>>,
    /// When the last save that succeeded was begun: from that moment a claimant may count.
    saved_at: watch::Sender<Moment>,
    /// Set once a save found that the work is another worker's.
    lost: watch::Sender<bool>,
    lease: Duration,
    /// Until when the former holder may still send, after a takeover.
    outlived: Moment,
    overtaken: Option<Overtaken>,
    renewer: std::sync::OnceLock<AbortHandle>,
}

impl<P: Progress> Claim<P> {
    fn keep(
        documents: Documents,
        key: &str,
        stored: Stored<Work<P>>,
        began: Moment,
        outlive: Duration,
        overtaken: Option<Overtaken>,
    ) -> Arc<Self> {
        let lease = stored.value.lease.length();
        let claim = Arc::new(Self {
            documents,
            key: key.to_owned(),
            stored: Mutex::new(stored),
            saved_at: watch::Sender::new(began),
            lost: watch::Sender::new(false),
            lease,
            outlived: clock::monotonic() + outlive,
            overtaken,
            renewer: std::sync::OnceLock::new(),
        });
        let kept = Arc::downgrade(&claim);
        let interval = lease::renew_interval(lease);
        let task = tasks::spawn(async move {
            loop {
                let Some(claim) = kept.upgrade() else { return };
                let age = claim.saved_at.borrow().elapsed();
                if let Some(rest) = interval.checked_sub(age) {
                    drop(claim);
                    tokio::time::sleep(rest.max(Duration::from_millis(1))).await;
                    continue;
                }
                match claim.save(|_| {}).await {
                    Ok(()) => {}
                    Err(error) if error.kind() == Kind::Fenced => return,
                    Err(error) => {
                        tracing::warn!(key = %claim.key, "the lease was not renewed, trying again: {error}");
                        tokio::time::sleep(interval / 4).await;
                    }
                }
            }
        });
        let first = claim.renewer.set(task.abort_handle());
        debug_assert!(first.is_ok(), "a claim is kept by one renewer");
        claim
    }

    /// The worker that it was taken over from, if any.
    pub fn overtaken(&self) -> Option<&Overtaken> {
        self.overtaken.as_ref()
    }

    /// The work as it was last saved.
    pub async fn work(&self) -> Work<P> {
        self.stored.lock().await.value.clone()
    }

    /// Saves a change of the work. It is made again, to what is there by then, when somebody else has changed what a
    /// holder's document lets others change (see [`crate::model::tail`]).
    ///
    /// # Errors
    /// Fenced when another worker holds it by now; of the state store when nobody knows whether it was saved (saving
    /// again is safe); internal when an invariant would break.
    pub async fn save(&self, mut change: impl FnMut(&mut Work<P>)) -> Result<()> {
        let mut stored = self.stored.lock().await;
        if *self.lost.borrow() {
            return Err(self.fenced());
        }
        loop {
            let mut work = stored.value.clone();
            change(&mut work);
            work.saved = clock::wall();
            if clock::monotonic() >= self.outlived {
                work.lease = work.lease.outlived();
            }
            let broken = |broken: Broken| Error::internal(format!("{}: {}", self.key, broken.0));
            stored.value.may_become(&work).map_err(broken)?;
            let began = clock::monotonic();
            match self.documents.replace(&self.key, &work, &stored).await? {
                Replaced::Mine(new) => {
                    *stored = new;
                    self.saved_at.send_replace(began);
                    return Ok(());
                }
                // An earlier save of ours, whose outcome nobody knew, took effect after all; or somebody has given a
                // part of it away. Only the holder of this epoch writes anything else with this epoch.
                Replaced::Lost(Some(now)) if now.value.lease.is_same_claim(&stored.value.lease) => {
                    if now.etag == stored.etag {
                        let name = self.documents.name(&self.key);
                        return Err(Error::state(format!("{name} refuses a save of what it holds")));
                    }
                    stored.value.may_become(&now.value).map_err(broken)?;
                    *stored = now;
                }
                Replaced::Lost(_) => {
                    self.lost.send_replace(true);
                    return Err(self.fenced());
                }
            }
        }
    }

    /// Whether this worker may send to the target now. When its last save is too old (it was frozen, or the store did
    /// not answer) it saves first, which also tells whether the work is still its own.
    ///
    /// # Errors
    /// Fenced, or of the state store: nothing may be sent.
    pub async fn ensure_may_send(&self) -> Result<()> {
        let limit = lease::send_limit(self.lease);
        while *self.lost.borrow() || self.saved_at.borrow().elapsed() >= limit {
            self.save(|_| {}).await?;
        }
        Ok(())
    }

    /// Ends with the error when the work was lost to another worker.
    pub async fn lost(&self) -> Error {
        let mut lost = self.lost.subscribe();
        // The sender lives as long as `self`, so this ends only when it is lost.
        let waited = lost.wait_for(|lost| *lost).await;
        debug_assert!(waited.is_ok(), "the sender is a field of self");
        self.fenced()
    }

    /// Ends when a former holder that was overtaken has surely stopped sending: the work must not be called done before.
    pub async fn outlived(&self) {
        tokio::time::sleep(self.outlived - clock::monotonic()).await;
    }

    /// Marks the work as done and lets go of it. Waits as [`Claim::outlived`] does where the caller has not.
    ///
    /// # Errors
    /// As [`Claim::save`].
    pub async fn done(&self, change: impl FnMut(&mut P)) -> Result<()> {
        self.outlived().await;
        self.let_go(WorkStatus::Done, change).await
    }

    /// Lets go of the work, saying how it stands.
    ///
    /// # Errors
    /// As [`Claim::save`].
    pub async fn let_go(&self, status: WorkStatus, mut change: impl FnMut(&mut P)) -> Result<()> {
        if let Some(renewer) = self.renewer.get() {
            renewer.abort();
        }
        self.save(|work| {
            change(&mut work.progress);
            work.lease = work.lease.released();
            work.finished = (status == WorkStatus::Done).then(clock::wall);
            work.status = status.clone();
        })
        .await
    }

    fn fenced(&self) -> Error {
        Error::fenced(format!("another worker has taken over {}; this one has stopped", self.documents.name(&self.key)))
    }
}

impl<P: Progress> Drop for Claim<P> {
    fn drop(&mut self) {
        if let Some(renewer) = self.renewer.get() {
            renewer.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::model::lane::LaneProgress;
    use crate::model::plan::{LaneName, PartitionNumber};
    use crate::state::memory::MemoryStore;

    const KEY: &str = "lane.json";

    async fn claimed() -> (Documents, Arc<Claim<LaneProgress>>) {
        let documents = Documents::new(Arc::new(MemoryStore::new()), "job");
        let holder = Holder { run: "run".into(), host: String::new(), process: None };
        let claimant = Claimant { holder, lease: Duration::from_secs(600), takeover: false };
        let initial = LaneProgress::new(LaneName::planned("rs", 0), String::new(), 9);
        match claim(&documents, KEY, initial, &claimant, DoneIs::Final, &Stop::default()).await.unwrap() {
            Claiming::Mine(claim) => (documents, claim),
            _ => panic!("nobody else claims it"),
        }
    }

    async fn read(documents: &Documents) -> Stored<Work<LaneProgress>> {
        documents.read(KEY).await.unwrap().unwrap()
    }

    /// Somebody else changes the document.
    async fn change(documents: &Documents, change: impl FnOnce(&mut Work<LaneProgress>)) {
        let found = read(documents).await;
        let mut work = found.value.clone();
        change(&mut work);
        assert!(matches!(documents.replace(KEY, &work, &found).await.unwrap(), Replaced::Mine(_)));
    }

    #[tokio::test]
    async fn a_gift_fences_nobody_and_every_later_save_keeps_it() {
        let (documents, claim) = claimed().await;
        change(&documents, |work| work.progress.give(PartitionNumber(6))).await;
        // As a renewal.
        claim.save(|_| {}).await.unwrap();
        assert_eq!(read(&documents).await.value.progress.own(), 0..6);
        change(&documents, |work| work.progress.give(PartitionNumber(3))).await;
        let mut live = LaneProgress::new(LaneName::planned("rs", 0), String::new(), 9);
        live.begun_below = 8;
        let save = |work: &mut Work<LaneProgress>| {
            live.take_over(&work.progress);
            work.progress = live.clone();
        };
        claim.save(save).await.unwrap();
        assert_eq!((live.own(), live.begun_below), (0..3, 3));
        claim.let_go(WorkStatus::Yielded, |_| {}).await.unwrap();
        assert_eq!(read(&documents).await.value.progress, live);
    }

    #[tokio::test]
    async fn a_claim_that_another_one_follows_or_that_was_let_go_of_is_lost() {
        for release in [false, true] {
            let (documents, claim) = claimed().await;
            let other = Holder { run: "other".into(), host: String::new(), process: None };
            let evidence = Evidence::Takeover;
            change(&documents, |work| {
                work.lease = if release {
                    work.lease.released()
                } else {
                    work.lease.claim(other, Duration::from_secs(1), evidence).unwrap().lease
                };
            })
            .await;
            let before = read(&documents).await;
            assert_eq!(claim.save(|_| {}).await.unwrap_err().kind(), Kind::Fenced);
            assert_eq!(read(&documents).await, before);
        }
    }
}
