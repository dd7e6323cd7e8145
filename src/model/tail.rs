//! What a lane gives away, so that a worker which has nothing left to do does not leave it alone: its tail, partitions
//! that were not begun, which become a lane of their own.
//!
//! ```text
//!   from                begun_below            given[1]     given[0]      partitions
//!    [ finished and open │ not begun, its own   │ a tail     │ a tail       )
//! ```
//!
//! Protects the rule that a partition is copied by one lane. Whoever gives, gives of one version of the document, by
//! compare-and-swap, and only what lies above that version's `begun_below`; the lane's holder sends nothing of a
//! partition before a save that declares it begun has succeeded. The two replace each other's versions, so one of them
//! is refused and looks again.

use super::lane::LaneProgress;
use super::plan::{LaneName, PartitionNumber, PartitionSpec};
use std::ops::Range;

/// A lane, and which of the planned lane's partitions it began with.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tail {
    /// The lane that it is by now.
    pub lane: LaneName,
    /// Its partitions are those from the one that names it to below this number. It may give some of them away itself.
    pub partitions: u32,
}

impl LaneProgress {
    /// The numbers of the partitions that are its own.
    pub fn own(&self) -> Range<u32> {
        self.lane.from.0..self.given.last().map_or(self.partitions, |from| from.0)
    }

    /// Those of them that no saved document says were begun.
    pub fn not_begun(&self) -> Range<u32> {
        self.begun_below..self.own().end
    }

    /// What it has given away, the first one first.
    pub fn tails(&self) -> impl Iterator<Item = Tail> {
        let ends = std::iter::once(self.partitions).chain(self.given.iter().map(|from| from.0));
        self.given.iter().zip(ends).map(|(from, partitions)| Tail { lane: self.lane.tail(*from), partitions })
    }

    /// From which partition on a tail is best given, when `not_begun` are the partitions of [`LaneProgress::not_begun`]:
    /// the lane keeps the half that it would begin next. None where there is nothing to divide.
    pub fn tail_to_give(&self, not_begun: &[PartitionSpec]) -> Option<PartitionNumber> {
        let left: u64 = not_begun.iter().map(PartitionSpec::cost).sum();
        let mut kept = 0;
        let kept_half = not_begun.iter().take_while(|partition| {
            let keeps = kept < left.div_ceil(2);
            kept += partition.cost();
            keeps
        });
        let first_given = not_begun.get(kept_half.count()).or_else(|| not_begun.last())?;
        (not_begun.len() >= 2).then_some(first_given.number)
    }

    /// Gives the tail from this partition on away. Does nothing where it was begun, is another lane's by now, or would
    /// leave this lane without a name of its own.
    pub fn give(&mut self, from: PartitionNumber) {
        if self.not_begun().contains(&from.0) && from > self.lane.from {
            self.given.push(from);
        }
    }

    /// Takes over what was given away according to the document as it is stored. What was about to be declared begun and
    /// is another lane's by now, is not.
    pub fn take_over(&mut self, stored: &Self) {
        self.given.clone_from(&stored.given);
        self.begun_below = self.begun_below.min(self.own().end);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::model::catalog::Ordinal;
    use crate::model::choice::Order;
    use crate::model::invariants::cursors_never_retreat;
    use crate::model::namespace::Namespace;
    use crate::model::partition::Range as Keys;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn partitions(sizes: &[u64]) -> Vec<PartitionSpec> {
        let spec = |(number, bytes): (u32, &u64)| PartitionSpec {
            number: PartitionNumber(number),
            ordinal: Ordinal(number),
            source: Namespace::new("db", "c"),
            uuid: String::new(),
            target: Namespace::new("db", "c"),
            range: Keys::default(),
            order: Order::Id,
            filter: None,
            documents: 0,
            bytes: *bytes,
        };
        (0..).zip(sizes).map(spec).collect()
    }

    fn lane(count: usize) -> LaneProgress {
        LaneProgress::new(LaneName::planned("rs", 0), "hash".into(), count as u32)
    }

    /// Gives a tail of a lane, if it can.
    fn give(lane: &mut LaneProgress, all: &[PartitionSpec]) -> Option<PartitionNumber> {
        let not_begun = lane.not_begun();
        let from = lane.tail_to_give(&all[not_begun.start as usize..not_begun.end as usize])?;
        lane.give(from);
        Some(from)
    }

    #[test]
    fn about_half_of_the_bytes_is_given_and_never_the_next_partition() {
        let given = |begun_below, sizes: &[u64]| {
            let mut lane = lane(sizes.len());
            lane.begun_below = begun_below;
            give(&mut lane, &partitions(sizes)).map(|from| from.0)
        };
        const MIB: u64 = 1 << 20;
        assert_eq!(given(0, &[0; 10]), Some(5));
        assert_eq!(given(4, &[0; 10]), Some(7));
        assert_eq!(given(0, &[MIB * 8, MIB * 4, MIB * 2, MIB]), Some(1));
        assert_eq!(given(0, &[MIB, MIB * 8]), Some(1));
        assert_eq!(given(8, &[0; 10]), Some(9));
        assert_eq!(given(9, &[0; 10]), None);
        assert_eq!(given(10, &[0; 10]), None);
    }

    #[test]
    fn what_was_given_away_is_no_more_declared_begun() {
        let mut live = lane(10);
        live.begun_below = 8;
        let mut stored = lane(10);
        stored.give(PartitionNumber(5));
        live.take_over(&stored);
        assert_eq!((live.own(), live.begun_below), (0..5, 5));
    }

    #[test]
    fn what_is_begun_or_given_is_not_given() {
        let mut lane = lane(10);
        lane.begun_below = 3;
        for (from, given) in [(2, 0), (8, 1), (8, 1), (9, 1), (3, 2), (3, 2)] {
            lane.give(PartitionNumber(from));
            assert_eq!(lane.given.len(), given, "{from}");
        }
        let tail = LaneProgress::new(lane.lane.tail(PartitionNumber(8)), "hash".into(), 10);
        let mut all_of_it = tail.clone();
        all_of_it.give(PartitionNumber(8));
        assert_eq!(all_of_it, tail);
    }

    proptest! {
        /// Lanes begin and give in whatever order: each partition stays that of one lane, and no lane gives often.
        #[test]
        fn every_partition_is_one_lanes_and_gifts_are_few(
            sizes in proptest::collection::vec(0..1_u64 << 30, 1..300),
            what in proptest::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 0..200),
        ) {
            let all = partitions(&sizes);
            let first = lane(sizes.len());
            let mut lanes = BTreeMap::from([(first.lane.clone(), first)]);
            for (which, gives) in what {
                let old = which.get(&lanes.values().cloned().collect::<Vec<_>>()).clone();
                let mut new = old.clone();
                if !gives {
                    new.begun_below = (new.begun_below + 1).min(new.own().end);
                } else if give(&mut new, &all).is_some() {
                    let tail = new.tails().last().unwrap();
                    prop_assert_eq!(tail.partitions, old.own().end);
                    let begun = LaneProgress::new(tail.lane.clone(), "hash".into(), tail.partitions);
                    prop_assert!(lanes.insert(tail.lane, begun).is_none(), "a name is used twice");
                }
                prop_assert_eq!(cursors_never_retreat(&old, &new), Ok(()));
                lanes.insert(new.lane.clone(), new);
            }
            let mut owned: Vec<u32> = lanes.values().flat_map(LaneProgress::own).collect();
            owned.sort_unstable();
            prop_assert_eq!(owned, (0..sizes.len() as u32).collect::<Vec<_>>());
            // Each gift halves what it costs to copy the rest, but for one partition.
            prop_assert!(lanes.values().all(|lane| lane.given.len() <= 40));
        }
    }
}
