//! Being told to stop: by a signal, or by the time budget. Asked for once, then two moments follow: *stop taking
//! work*, and, a grace later, *give up what is in flight*.

use crate::clock;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Why a run stops before it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The time budget is used up.
    TimeBudget,
    /// SIGINT or SIGTERM.
    Signal,
    /// Another lane of this run failed.
    AnotherFailed,
}

impl Reason {
    /// For messages.
    pub fn text(self) -> &'static str {
        match self {
            Reason::TimeBudget => "the time budget is used up",
            Reason::Signal => "told to stop by a signal",
            Reason::AnotherFailed => "another lane failed",
        }
    }

    /// For how long acknowledgements of what is in flight are awaited. A budget leaves 2 s in all, a signal 5 s.
    fn grace(self) -> Duration {
        match self {
            Reason::TimeBudget => Duration::from_millis(1_200),
            Reason::Signal | Reason::AnotherFailed => Duration::from_secs(4),
        }
    }
}

/// Whether, why and since when this run is to stop. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    requested: CancellationToken,
    since: Arc<OnceLock<(Reason, clock::Moment)>>,
}

impl Stop {
    /// Asks the run to stop. The first reason counts.
    pub fn request(&self, reason: Reason) {
        if self.since.set((reason, clock::monotonic())).is_ok() {
            tracing::info!("stopping: {}", reason.text());
        }
        self.requested.cancel();
    }

    /// Why, once it was asked for.
    pub fn reason(&self) -> Option<Reason> {
        self.since.get().map(|(reason, _)| *reason)
    }

    /// Whether it was asked for.
    pub fn is_requested(&self) -> bool {
        self.requested.is_cancelled()
    }

    /// Ends when it is asked for.
    pub async fn requested(&self) {
        self.requested.cancelled().await;
    }

    /// Ends when what is in flight is to be given up.
    pub async fn give_up(&self) {
        self.requested().await;
        if let Some((reason, since)) = self.since.get() {
            tokio::time::sleep(reason.grace().saturating_sub(since.elapsed())).await;
        }
    }

    /// The work's result, or `None` when it was asked for first; the work is dropped where it is, which must be as
    /// harmless as a crash there.
    pub async fn unless<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.requested() => None,
            result = work => Some(result),
        }
    }
}
