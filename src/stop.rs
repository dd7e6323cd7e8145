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
    /// No stream can begin at the checkpoint any more.
    OplogLost,
}

impl Reason {
    /// For messages.
    pub fn text(self) -> &'static str {
        match self {
            Reason::TimeBudget => "the time budget is used up",
            Reason::Signal => "told to stop by a signal",
            Reason::AnotherFailed => "another lane failed",
            Reason::OplogLost => "the oplog no longer reaches back to the checkpoint",
        }
    }

    /// For how long acknowledgements of what is in flight are awaited. A budget leaves 2 s in all, a signal 5 s.
    fn grace(self) -> Duration {
        match self {
            Reason::TimeBudget | Reason::OplogLost => Duration::from_millis(1_200),
            Reason::Signal | Reason::AnotherFailed => Duration::from_secs(4),
        }
    }
}

/// Whether, why and since when this run is to stop. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    requested: CancellationToken,
    since: Arc<OnceLock<(Reason, clock::Moment)>>,
    /// Of what this is a part.
    whole: Option<Arc<Stop>>,
}

impl Stop {
    /// For a part of the run: told to stop with it, and by itself without the rest of it.
    #[must_use]
    pub fn of_part(&self) -> Self {
        Self { requested: self.requested.child_token(), since: Arc::default(), whole: Some(Arc::new(self.clone())) }
    }

    /// Asks the run to stop. The first reason counts.
    pub fn request(&self, reason: Reason) {
        if self.since.set((reason, clock::monotonic())).is_ok() {
            tracing::info!("stopping: {}", reason.text());
        }
        self.requested.cancel();
    }

    /// Why, once it was asked for.
    pub fn reason(&self) -> Option<Reason> {
        self.since().map(|(reason, _)| reason)
    }

    fn since(&self) -> Option<(Reason, clock::Moment)> {
        self.since.get().copied().or_else(|| self.whole.as_ref().and_then(|whole| whole.since()))
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
        if let Some((reason, since)) = self.since() {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_stops_with_the_whole_and_not_the_other_way_round() {
        let whole = Stop::default();
        let (one, other) = (whole.of_part(), whole.of_part());
        one.request(Reason::AnotherFailed);
        assert_eq!((one.reason(), whole.reason(), other.reason()), (Some(Reason::AnotherFailed), None, None));
        assert!(one.is_requested() && !whole.is_requested() && !other.is_requested());
        whole.request(Reason::Signal);
        assert!(other.is_requested());
        assert_eq!((one.reason(), other.reason()), (Some(Reason::AnotherFailed), Some(Reason::Signal)));
    }
}
