//! What a run has moved and seen, for whoever reports about it when it is over.

use crate::model::counts::Counts;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What one run has moved. It may be shared by whoever works in it.
#[derive(Debug, Default)]
pub struct Tally(Mutex<Tallied>);

/// A tally as it stands.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Tallied {
    /// Documents that the target has acknowledged.
    pub documents: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Documents that the target did not take.
    pub rejected: u64,
    /// How much is left of the time by which the source's oplog reached back behind the checkpoint when that was
    /// captured, in percent. None where no oplog was looked at.
    pub oplog_window_left: Option<f64>,
}

impl Tally {
    /// A lane, or a tail, has gone from what was counted there before this run to what is counted now.
    pub fn moved(&self, before: &Counts, now: &Counts) {
        let mut tallied = self.lock();
        tallied.documents += now.written.saturating_sub(before.written);
        tallied.bytes += now.written_bytes.saturating_sub(before.written_bytes);
        tallied.rejected += now.rejected.saturating_sub(before.rejected);
    }

    /// The oplog of a source was looked at; of several the one that has the least left counts.
    pub fn saw_oplog(&self, percent_left: f64) {
        let mut tallied = self.lock();
        tallied.oplog_window_left = Some(tallied.oplog_window_left.map_or(percent_left, |left| left.min(percent_left)));
    }

    /// What was tallied so far.
    pub fn so_far(&self) -> Tallied {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, Tallied> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
