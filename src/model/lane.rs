//! The state of one lane: which of its partitions are open, where their cursors stand, and what is finished.
//!
//! ```text
//!   planned ──begin──▶ open(Start) ──advance──▶ open(position) ──finish──▶ finished (in words) ──seal──▶ sealed
//! ```
//!
//! The document stays small whatever the number of collections: finished partitions are kept in it only until there
//! are [`SEGMENT`] of them, then they move to a write-once object beside it.

use super::counts::Counts;
use super::cursor::{Covered, Position};
use super::finding::{Finding, Findings, Note};
use super::plan::{LaneName, PartitionNumber, PartitionSpec};
use super::speed::Moved;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How many finished partitions make a segment.
pub const SEGMENT: usize = 64;

/// How many partitions are declared begun at once. Nothing of a partition is sent before a saved document says that it
/// was begun; saying so for many at once spares a save for each of thousands of small collections...
const BEGIN_AHEAD: usize = 64;

/// ...of so many bytes in all, or a single larger one. What was begun cannot be given away any more; copying this much
/// takes much longer than saving.
const BEGIN_AHEAD_BYTES: u64 = 128 << 20;

/// How many partitions are declared begun at once, where the next ones are estimated to have so many bytes.
pub fn begin_ahead(next: impl IntoIterator<Item = u64>) -> u32 {
    let mut bytes: u64 = 0;
    let fit = next.into_iter().take(BEGIN_AHEAD).take_while(|size| {
        bytes = bytes.saturating_add(*size);
        bytes <= BEGIN_AHEAD_BYTES
    });
    (fit.count() as u32).max(1)
}

/// How many places to go on from are kept behind the newest, in the order of the disk: a server refuses one whose record
/// was deleted (211, `KeyNotFound`).
const KEPT_MILESTONES: usize = 3;

/// A partition that was begun and is not finished.
///
/// ```text
///   natural order ──its record is deleted──▶ back to a milestone ──▶ …
///        └── no milestone can be used: the node is gone, or was synced anew ──▶ `_id` order, from the start
/// ```
///
/// A capped collection always begins once more, behind the target's last document.
///
/// Whatever goes back begins an *attempt*: its counts and findings are those of the place that it goes on from, and what
/// was sent beyond it is recognised when it is read again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenPartition {
    /// The end of the longest run of batches from its start that the target has acknowledged.
    pub position: Position,
    /// What that prefix moved.
    pub counts: Counts,
    /// What was found in it.
    #[serde(default)]
    pub findings: Findings,
    /// How often it went back.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub attempt: u32,
    /// It is read in `_id` order although another one was planned.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_id: bool,
    /// Earlier places to go on from, the newest last, in the order of the disk.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub milestones: Vec<Milestone>,
}

/// An earlier place to go on from, with the proof up to there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Milestone {
    /// The place.
    pub position: Position,
    /// What was moved up to there.
    pub counts: Counts,
    /// What was found up to there.
    #[serde(default)]
    pub findings: Findings,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl OpenPartition {
    /// The cursor goes on.
    pub fn advance(&mut self, covered: Covered<Finding>) {
        if self.position.record().is_some() {
            let milestone =
                Milestone { position: self.position.clone(), counts: self.counts, findings: self.findings.clone() };
            self.milestones.push(milestone);
            if self.milestones.len() > KEPT_MILESTONES {
                self.milestones.remove(0);
            }
        }
        self.position = covered.position;
        self.counts += covered.counts;
        for finding in covered.findings {
            self.findings.add(finding);
        }
    }

    /// Goes back to the newest milestone, or where there is none, to the start and on in `_id` order.
    pub fn go_back(&mut self) {
        match self.milestones.pop() {
            Some(Milestone { position, counts, findings }) => {
                *self = Self { position, counts, findings, attempt: self.attempt + 1, ..std::mem::take(self) };
            }
            None => self.begin_by_id(),
        }
    }

    /// Begins once more, in the same order.
    pub fn begin_again(&mut self) {
        *self = Self { attempt: self.attempt + 1, ..Self::default() };
    }

    /// Begins once more, in `_id` order.
    pub fn begin_by_id(&mut self) {
        *self = Self { attempt: self.attempt + 1, by_id: true, ..Self::default() };
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
    /// How often it went back.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub attempt: u32,
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
    /// It has the partitions below this number, of which those from its name's `from` on are its own, or were: so many
    /// it has, where it was planned.
    pub partitions: u32,
    /// Where the tails begin that were given to lanes of their own, in the order in which they were. Each ends where the
    /// one before it begins, see [`super::tail`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub given: Vec<PartitionNumber>,
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
            begun_below: lane.from.0,
            replay_below: lane.from.0,
            lane,
            plan,
            partitions,
            given: Vec::new(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::record::{Node, RecordPosition, ResumeToken};
    use bson::rawdoc;

    fn record(number: i64) -> Position {
        let node = Node { address: "a:1".into(), initial_sync_id: "00".into() };
        Position::Record(RecordPosition { node, token: ResumeToken::new(&rawdoc! { "$recordId": number }) })
    }

    fn at(number: i64) -> OpenPartition {
        let mut open = OpenPartition::default();
        for record_number in 1..=number {
            let counts = Counts { read: 1, written: 1, ..Counts::default() };
            open.advance(Covered { position: record(record_number), counts, findings: Vec::new() });
        }
        open
    }

    #[test]
    fn a_partition_goes_back_through_its_milestones_and_then_begins_by_id() {
        let mut open = at(9);
        for (attempt, number) in [(0, 9), (1, 8), (2, 7), (3, 6)] {
            assert_eq!((&open.position, open.counts.written, open.attempt), (&record(number), number as u64, attempt));
            open.go_back();
        }
        assert_eq!(open, OpenPartition { attempt: 4, by_id: true, ..OpenPartition::default() });
    }

    #[test]
    fn small_partitions_are_begun_many_at_once_and_large_ones_one_by_one() {
        const MIB: u64 = 1 << 20;
        assert_eq!(begin_ahead([0; 1000]), 64);
        assert_eq!(begin_ahead([10 * MIB; 1000]), 12);
        assert_eq!(begin_ahead([64 * MIB, 64 * MIB, 1]), 2);
        assert_eq!(begin_ahead([256 * MIB, 1, 1]), 1);
        assert_eq!(begin_ahead([u64::MAX, u64::MAX]), 1);
        assert_eq!(begin_ahead([5, 5]), 2);
    }

    #[test]
    fn the_start_is_no_milestone() {
        let mut open = at(1);
        assert!(open.milestones.is_empty());
        open.go_back();
        assert!(open.by_id);
    }
}
