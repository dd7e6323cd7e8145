//! The state of one lane: which of its partitions are open, where their cursors stand, and what is finished.
//!
//! ```text
//!   planned ──begin──▶ open(Start) ──advance──▶ open(After k) ──finish──▶ finished (in words) ──seal──▶ sealed
//! ```
//!
//! The document stays small whatever the number of collections: finished partitions are kept in it only until there
//! are [`SEGMENT`] of them, then they move to a write-once object beside it.

use super::counts::Counts;
use super::cursor::Position;
use super::finding::{Findings, Note};
use super::pace::Moved;
use super::plan::{LaneName, PartitionNumber, PartitionSpec};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How many finished partitions make a segment.
pub const SEGMENT: usize = 64;

/// How many partitions are declared begun at once. Nothing of a partition is sent before a saved document says that it
/// was begun; saying so for many at once spares a save for each of thousands of small collections.
pub const BEGIN_AHEAD: u32 = 64;

/// A partition that was begun and is not finished.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenPartition {
    /// After the last key whose batch, and every one before it, the target has acknowledged.
    pub position: Position,
    /// What that prefix moved.
    pub counts: Counts,
    /// What was found in it.
    #[serde(default)]
    pub findings: Findings,
}

impl Default for OpenPartition {
    fn default() -> Self {
        Self { position: Position::Start, counts: Counts::default(), findings: Findings::default() }
    }
}

/// How a partition ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ending {
    /// Read to its end.
    Complete,
    /// The source's collection was dropped, or is another one of the same name, before it was read to its end.
    Gone,
}

/// The proof of a finished partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionRecord {
    /// What was planned.
    pub partition: PartitionSpec,
    /// How it ended.
    pub ending: Ending,
    /// What it moved.
    pub counts: Counts,
    /// What was found.
    #[serde(default)]
    pub findings: Findings,
    /// What is worth knowing.
    #[serde(default)]
    pub notes: Vec<Note>,
}

/// The progress of a lane, saved with its lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneProgress {
    /// Which lane.
    pub lane: LaneName,
    /// The hash of the plan that it works on.
    pub plan: String,
    /// How many partitions it has.
    pub partitions: u32,
    /// Partitions below this number may have been begun: something of them may have been sent.
    pub begun_below: u32,
    /// Partitions below this number may have been begun by an *earlier* claim: the replay window. What such a
    /// partition sends from its cursor on may be on the target already, from this job.
    pub replay_below: u32,
    /// The begun partitions with a cursor that has moved.
    pub open: BTreeMap<PartitionNumber, OpenPartition>,
    /// Finished partitions that are not sealed yet, in the order of finishing.
    pub finished: Vec<PartitionRecord>,
    /// How many segments are sealed.
    pub segments: u32,
    /// How many partitions are in them.
    pub sealed: u32,
    /// What those moved.
    pub sealed_counts: Counts,
    /// What was counted when it was last claimed: with the time since then, how fast its worker is.
    #[serde(default, skip_serializing_if = "Moved::is_zero")]
    pub counted_before: Moved,
}

impl LaneProgress {
    /// A lane that was not begun.
    pub fn new(lane: LaneName, plan: String, partitions: u32) -> Self {
        Self {
            lane,
            plan,
            partitions,
            begun_below: 0,
            replay_below: 0,
            open: BTreeMap::new(),
            finished: Vec::new(),
            segments: 0,
            sealed: 0,
            sealed_counts: Counts::default(),
            counted_before: Moved::default(),
        }
    }

    /// What a new claim does first: everything begun so far may be on the target already.
    pub fn claimed(&mut self) {
        self.replay_below = self.begun_below;
        self.counted_before = Moved::of(&self.counts());
    }

    /// Everything counted so far, open partitions included.
    pub fn counts(&self) -> Counts {
        let finished: Counts = self.finished.iter().map(|record| record.counts).sum();
        let open: Counts = self.open.values().map(|open| open.counts).sum();
        self.sealed_counts + finished + open
    }

    /// How many partitions are finished.
    pub fn finished_partitions(&self) -> u32 {
        self.sealed + self.finished.len() as u32
    }

    /// Whether every partition is finished.
    pub fn is_complete(&self) -> bool {
        self.finished_partitions() == self.partitions
    }

    /// The segment to seal next: the oldest [`SEGMENT`] finished partitions *of a saved document*, so that whoever
    /// seals it, however often, writes the same.
    pub fn segment_to_seal(&self) -> Option<&[PartitionRecord]> {
        self.finished.get(..SEGMENT)
    }

    /// After the segment was written: its partitions leave this document.
    pub fn sealed(&mut self) {
        let records: Vec<PartitionRecord> = self.finished.drain(..SEGMENT.min(self.finished.len())).collect();
        self.segments += 1;
        self.sealed += records.len() as u32;
        self.sealed_counts += records.iter().map(|record| record.counts).sum();
    }
}
