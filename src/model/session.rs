//! The sessions that a lane's writers write in, and how they fence: the server refuses a write whose transaction number
//! is less than one that it has seen in the same session (225, `TransactionTooOld`).

use super::lease::Epoch;
use super::plan::LaneName;
use sha2::{Digest as _, Sha256};

/// A session's id: the same for every worker that ever holds the lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId([u8; 16]);

impl SessionId {
    /// The session of one writer of a lane, by the job's id, the name of the target's replica set, the lane and the
    /// writer's number.
    pub fn new(job: &str, target: &str, lane: &LaneName, writer: usize) -> Self {
        let mut hash = Sha256::new();
        // Each part ends with what none of them contains: no two lists of parts are the same bytes.
        for part in [job, target, &lane.shard, &lane.within_shard(), &writer.to_string()] {
            hash.update(part);
            hash.update([0xff]);
        }
        let hash = hash.finalize();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash[..16]);
        Self(uuid::Builder::from_custom_bytes(bytes).into_uuid().into_bytes())
    }

    /// A UUID of version 8, RFC 9562's for ids that are computed in a way of one's own.
    pub fn bytes(self) -> [u8; 16] {
        self.0
    }
}

/// The number of a write in its session: the lane's epoch in the upper half, a count of the worker's writes in the
/// lower. A later epoch's first number is greater than every number of an earlier epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TransactionNumber(i64);

impl TransactionNumber {
    /// The first of an epoch; none for an epoch that no lane reaches, 2^31.
    pub fn first(epoch: Epoch) -> Option<Self> {
        let epoch = i32::try_from(epoch.0).ok()?;
        Some(Self(i64::from(epoch) << 32))
    }

    /// The one after it; none after the last of the epoch.
    pub fn next(self) -> Option<Self> {
        let next = self.0.checked_add(1)?;
        (next >> 32 == self.0 >> 32).then_some(Self(next))
    }

    /// As it is sent.
    pub fn value(self) -> i64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::model::plan::PartitionNumber;
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[test]
    fn every_part_counts_and_nothing_else() {
        let lane = |shard: &str, number| LaneName::planned(shard, number);
        let ids = [
            SessionId::new("j", "t", &lane("s", 0), 0),
            SessionId::new("k", "t", &lane("s", 0), 0),
            SessionId::new("j", "u", &lane("s", 0), 0),
            SessionId::new("j", "t", &lane("r", 0), 0),
            SessionId::new("j", "t", &lane("s", 1), 0),
            SessionId::new("j", "t", &lane("s", 0), 1),
            SessionId::new("jt", "", &lane("s", 0), 0),
            SessionId::new("j", "t", &lane("s1", 0), 0),
            SessionId::new("j", "t", &lane("s", 10), 0),
            SessionId::new("j", "t", &lane("s", 1), 10),
            SessionId::new("j", "t", &lane("s", 0).tail(PartitionNumber(1)), 0),
        ];
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len());
        // The same in every version of mongoferry, or a later one would not fence an earlier one.
        assert_eq!(uuid::Uuid::from_bytes(ids[0].bytes()).to_string(), "8991a8b9-51cc-89ae-9c8f-f7971daa72c9");
    }

    #[test]
    fn numbers_end_where_the_next_epoch_begins() {
        let last = TransactionNumber((5 << 32) - 1);
        assert_eq!(last.next(), None);
        assert_eq!(TransactionNumber::first(Epoch(4)).unwrap().next(), Some(TransactionNumber((4 << 32) + 1)));
        assert_eq!(TransactionNumber::first(Epoch(1 << 31)), None);
        assert_eq!(TransactionNumber::first(Epoch(u64::MAX)), None);
        assert_eq!(TransactionNumber(i64::MAX).next(), None);
    }

    proptest! {
        #[test]
        fn a_later_epoch_is_greater_than_all_of_an_earlier_one(epoch in 0..i32::MAX as u64, writes in 0..1000_usize) {
            let mut number = TransactionNumber::first(Epoch(epoch)).unwrap();
            for _ in 0..writes {
                let next = number.next().unwrap();
                prop_assert!(next > number);
                number = next;
            }
            prop_assert!(TransactionNumber::first(Epoch(epoch + 1)).unwrap() > number);
        }
    }
}
