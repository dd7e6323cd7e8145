//! Who may work on a piece of work, and how that moves from one worker to the next.
//!
//! ```text
//!             claim(Free)                    release
//!   (free) ───────────────▶ held, epoch n+1 ─────────▶ (free)
//!                               ▲   │ renew: same epoch, new write id
//!                               └───┘
//!   held by another ──claim(DeadProcess | Unchanged | Takeover)──▶ held by me, epoch n+1
//! ```
//!
//! Every arrow is a compare-and-swap of the one document that holds the lease *and* the progress, so whoever was
//! overtaken finds out at the next save. No arrow reads a clock: a claimant measures on its own clock for how long the
//! document did not change, and passes that on as [`Evidence`].

use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// Counts the claims of one piece of work. Only ever grows; the worker with the largest one is the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What tells a process apart from every other one, now and later, on the machine that it runs on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Process {
    /// The kernel's `boot_id`: another one means that the machine was started anew since.
    pub boot: String,
    /// The PID namespace: process numbers mean something only within it.
    pub pid_namespace: String,
    /// The process number.
    pub pid: u32,
    /// When the process started, in clock ticks since boot: process numbers are used again.
    pub start: u64,
}

/// The worker that holds a lease.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Holder {
    /// The run's random id, also the name of its journal.
    pub run: String,
    /// The machine's name, for people.
    pub host: String,
    /// The process, where the platform can tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
}

/// The lease on one piece of work.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Lease {
    /// The number of the latest claim.
    pub epoch: Epoch,
    /// Who holds it, `None` when it was released.
    pub holder: Option<Holder>,
    /// For how long the document must not change before another worker may take it, in milliseconds. The holder's
    /// word: it renews at least every third of it, and stops sending at half of it.
    pub length_ms: u64,
    /// For how long, from a claim on, a holder that was overtaken may still send, in milliseconds: the work must not be
    /// called done before. Part of the document, since whoever took over may die before that time has passed, and the
    /// next one knows of it only from here.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub outlive_ms: u64,
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// Why a claimant may take a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// The document as read is all there is.
    Nothing,
    /// The document did not change for this long on the claimant's own clock.
    Unchanged(Duration),
    /// The holder is a process of the claimant's own machine and is no more.
    DeadProcess,
    /// A person said so (`--takeover`).
    Takeover,
}

/// A claim that was refused: the lease is another worker's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldByAnother {
    /// The worker that holds it.
    pub holder: Box<Holder>,
    /// For how much longer the document must stay unchanged.
    pub remaining: Duration,
}

/// A claim that was granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    /// The lease to write by compare-and-swap.
    pub lease: Lease,
    /// For how long the former holder may still send to the target: the work must not be called done before that.
    /// Only after a takeover; in every other case the former holder is dead or has stopped sending already.
    pub outlive: Duration,
}

impl Lease {
    /// The lease of work that nobody has claimed yet.
    pub fn free() -> Self {
        Self { epoch: Epoch(0), holder: None, length_ms: 0, outlive_ms: 0 }
    }

    /// Its length.
    pub fn length(&self) -> Duration {
        Duration::from_millis(self.length_ms)
    }

    /// What `claimant` has to write to make the lease its own for `length`.
    ///
    /// # Errors
    /// [`HeldByAnother`] when the evidence does not suffice.
    pub fn claim(&self, claimant: Holder, length: Duration, evidence: Evidence) -> Result<Granted, HeldByAnother> {
        let overtaken = match (&self.holder, evidence) {
            (None, _) | (Some(_), Evidence::DeadProcess) => Duration::ZERO,
            (Some(_), Evidence::Unchanged(time)) if time >= self.length() => Duration::ZERO,
            // Half of it is when the former holder stops sending; the other half is the margin that a claimant who
            // waits has as well.
            (Some(_), Evidence::Takeover) => self.length(),
            (Some(holder), Evidence::Unchanged(time)) => {
                return Err(HeldByAnother { holder: Box::new(holder.clone()), remaining: self.length() - time });
            }
            (Some(holder), Evidence::Nothing) => {
                return Err(HeldByAnother { holder: Box::new(holder.clone()), remaining: self.length() });
            }
        };
        // What the former holder still had to outlive is inherited, but for the time that was seen to pass.
        let seen = if let Evidence::Unchanged(time) = evidence { time } else { Duration::ZERO };
        let outlive = overtaken.max(Duration::from_millis(self.outlive_ms).saturating_sub(seen));
        let lease = Lease {
            epoch: Epoch(self.epoch.0 + 1),
            holder: Some(claimant),
            length_ms: length.as_millis() as u64,
            outlive_ms: outlive.as_millis() as u64,
        };
        Ok(Granted { lease, outlive })
    }

    /// Whether it is what the same claim has written, and is held by it.
    pub fn is_same_claim(&self, other: &Self) -> bool {
        self.epoch == other.epoch && self.holder == other.holder && self.holder.is_some()
    }

    /// The lease after its holder has let go of it.
    #[must_use]
    pub fn released(&self) -> Self {
        Self { holder: None, ..self.clone() }
    }

    /// The lease once every holder that was overtaken has surely stopped sending.
    #[must_use]
    pub fn outlived(&self) -> Self {
        Self { outlive_ms: 0, ..self.clone() }
    }
}

/// How old the last successful save may be for its worker to send to the target: half the lease. The other half is
/// what a claimant waits in addition, so that it never sends while the former holder still believes it may.
pub fn send_limit(lease: Duration) -> Duration {
    lease / 2
}

/// How often a worker saves at least, whether there is progress or not: a third of the lease, so that one slow save
/// does not yet stop it.
pub fn renew_interval(lease: Duration) -> Duration {
    lease / 3
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use proptest::prelude::*;

    fn worker(name: &str) -> Holder {
        Holder { run: name.into(), host: "host".into(), process: None }
    }

    const LENGTH: Duration = Duration::from_secs(15);

    #[test]
    fn a_free_lease_is_granted_and_a_released_one_too() {
        let first = Lease::free().claim(worker("a"), LENGTH, Evidence::Nothing).unwrap();
        assert_eq!((first.lease.epoch, first.outlive), (Epoch(1), Duration::ZERO));
        let second = first.lease.released().claim(worker("b"), LENGTH, Evidence::Nothing).unwrap();
        assert_eq!((second.lease.epoch, second.outlive), (Epoch(2), Duration::ZERO));
    }

    #[test]
    fn a_takeover_waits_for_what_the_former_holder_may_still_send() {
        let held = Lease::free().claim(worker("a"), LENGTH, Evidence::Nothing).unwrap().lease;
        let taken = held.claim(worker("b"), LENGTH, Evidence::Takeover).unwrap();
        assert_eq!(taken.outlive, LENGTH);
        // Whoever takes over from the one that took over inherits it, unless the time was seen to pass.
        let died = taken.lease.claim(worker("c"), LENGTH, Evidence::DeadProcess).unwrap();
        assert_eq!(died.outlive, LENGTH);
        let released = taken.lease.released().claim(worker("c"), LENGTH, Evidence::Nothing).unwrap();
        assert_eq!(released.outlive, LENGTH);
        let waited = taken.lease.claim(worker("c"), LENGTH, Evidence::Unchanged(LENGTH)).unwrap();
        assert_eq!(waited.outlive, Duration::ZERO);
        assert_eq!(
            taken.lease.outlived().released().claim(worker("c"), LENGTH, Evidence::Nothing).unwrap().outlive,
            Duration::ZERO
        );
    }

    #[derive(Debug, Clone)]
    enum Move {
        Claim(u8, Option<u64>),
        Release,
    }

    fn moves() -> impl Strategy<Value = Vec<Move>> {
        proptest::collection::vec(
            prop_oneof![
                (0..4u8, proptest::option::of(0..30_000u64)).prop_map(|(who, ms)| Move::Claim(who, ms)),
                Just(Move::Release)
            ],
            0..40,
        )
    }

    proptest! {
        #[test]
        fn epochs_only_grow_and_a_holder_is_never_replaced_before_its_time(moves in moves()) {
            let mut lease = Lease::free();
            for step in moves {
                match step {
                    Move::Release => lease = lease.released(),
                    Move::Claim(who, unchanged) => {
                        let evidence = unchanged.map_or(Evidence::Nothing, |ms| Evidence::Unchanged(Duration::from_millis(ms)));
                        match lease.claim(worker(&who.to_string()), LENGTH, evidence) {
                            Ok(granted) => {
                                prop_assert_eq!(granted.lease.epoch.0, lease.epoch.0 + 1);
                                let waited = unchanged.is_some_and(|ms| u128::from(ms) >= LENGTH.as_millis());
                                prop_assert!(lease.holder.is_none() || waited);
                                lease = granted.lease;
                            }
                            Err(held) => {
                                prop_assert_eq!(Some(&*held.holder), lease.holder.as_ref());
                                prop_assert!(held.remaining > Duration::ZERO);
                            }
                        }
                    }
                }
            }
        }
    }
}
