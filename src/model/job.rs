//! A job: what it copies from where to where, and the checkpoint from which an incremental stream goes on.

use super::choice::ReadThrough;
use super::identity::Identity;
use super::namespace::{Filter, Renames};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// What a job is bound to from discovery on. Another value later is refused: a copy of two sources, or of two
/// selections, is a copy of neither.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// The source deployment; of a cluster its config servers.
    pub source: Identity,
    /// The shards of a cluster, by name. None where the source is a replica set.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub shards: BTreeMap<String, Identity>,
    /// The target deployment.
    pub target: Identity,
    /// Which namespaces are copied.
    pub filter: Filter,
    /// Under which names.
    pub renames: Renames,
}

/// The job's own document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRecord {
    /// Random: tells this job from an earlier one of the same name in another store.
    pub id: String,
    /// Its name.
    pub name: String,
    /// When it was created.
    pub created: String,
    /// What it is bound to; `None` when it was abandoned before it was discovered.
    pub binding: Option<Binding>,
    /// When it was abandoned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abandoned: Option<String>,
}

/// A point in a replica set's oplog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Optime {
    /// Seconds since 1970.
    pub seconds: u32,
    /// The count within that second.
    pub increment: u32,
}

impl Optime {
    /// The largest optime before this one. A reader of `ts > checkpoint` that must see the entry *at* a time begins
    /// here.
    #[must_use]
    pub fn just_before(self) -> Self {
        match self.increment {
            0 => Self { seconds: self.seconds.saturating_sub(1), increment: u32::MAX },
            increment => Self { increment: increment - 1, ..self },
        }
    }

    /// MongoShake's form: an int64, seconds in the upper half
    /// (MongoShake `collector/ckpt/ckpt_operation.go`; a double or a Timestamp is not understood).
    pub fn as_int64(self) -> i64 {
        (i64::from(self.seconds) << 32) | i64::from(self.increment)
    }
}

impl From<bson::Timestamp> for Optime {
    fn from(time: bson::Timestamp) -> Self {
        Self { seconds: time.time, increment: time.increment }
    }
}

impl From<Optime> for bson::Timestamp {
    fn from(time: Optime) -> Self {
        bson::Timestamp { time: time.seconds, increment: time.increment }
    }
}

impl fmt::Display for Optime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Timestamp({}, {})", self.seconds, self.increment)
    }
}

/// The checkpoint of one source, and how it came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// A stream of all entries *after* this one, applied to the copy, brings it up to date (`ts > checkpoint`).
    pub after: Optime,
    /// The newest majority-committed entry when it was captured: every read of the copy is at or after it.
    pub majority: Optime,
    /// The first entry of the oldest transaction that was open then, which lowers `after`.
    pub oldest_transaction: Option<Optime>,
    /// The oldest entry of the oplog then.
    pub oplog_begin: Optime,
}

impl Checkpoint {
    /// Combines what was read: the newest majority-committed entry first, the open transactions after that. In the
    /// other order, one that began and prepared in between would be missed.
    pub fn new(majority: Optime, oldest_transaction: Option<Optime>, oplog_begin: Optime) -> Self {
        let before_transaction = oldest_transaction.map(Optime::just_before);
        let after = before_transaction.map_or(majority, |before| before.min(majority));
        Self { after, majority, oldest_transaction, oplog_begin }
    }
}

/// The checkpoints of all sources (`ckptMap`). Captured before anything is listed; the first capture wins, whoever runs
/// discover again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointMap {
    /// The deployment that it was captured from.
    pub source: Identity,
    /// When.
    pub captured: String,
    /// Through what the cluster is read, for good: what is listed from now on depends on it. Says nothing of a replica set.
    #[serde(default, skip_serializing_if = "is_shards")]
    pub read: ReadThrough,
    /// The checkpoints, by the name of the replica set whose oplog it is. None of a cluster whose shards cannot be reached.
    pub checkpoints: BTreeMap<String, Checkpoint>,
    /// What time it was in a deployment that is read and has no checkpoint of its own, by its name: a cluster behind a
    /// mongos. No read of the copy is older.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub times: BTreeMap<String, Optime>,
}

impl CheckpointMap {
    /// Which time no read of a deployment may be older than.
    pub fn not_before(&self, name: &str) -> Option<Optime> {
        self.checkpoints.get(name).map(|checkpoint| checkpoint.majority).or_else(|| self.times.get(name).copied())
    }

    /// After which time a stream has to begin, by the name that MongoShake looks for. Where no oplog can be read that is the
    /// time itself: it was captured before anything was listed, nothing that was read is older, and what a transaction does
    /// a change stream shows when it is committed.
    pub fn stream_starts(&self) -> BTreeMap<String, Optime> {
        match self.checkpoints.is_empty() {
            true => self.times.clone(),
            false => self.checkpoints.iter().map(|(name, checkpoint)| (name.clone(), checkpoint.after)).collect(),
        }
    }
}

/// Whether it is what a document from before there was a choice means.
fn is_shards(read: &ReadThrough) -> bool {
    *read == ReadThrough::Shards
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u32, increment: u32) -> Optime {
        Optime { seconds, increment }
    }

    #[test]
    fn just_before_crosses_a_second() {
        assert_eq!(at(10, 3).just_before(), at(10, 2));
        assert_eq!(at(10, 0).just_before(), at(9, u32::MAX));
        assert!(at(10, 0).just_before() < at(10, 0));
    }

    #[test]
    fn an_open_transaction_lowers_the_checkpoint_below_its_first_entry() {
        assert_eq!(Checkpoint::new(at(10, 5), Some(at(9, 1)), at(1, 1)).after, at(9, 0));
        assert_eq!(Checkpoint::new(at(10, 5), Some(at(11, 1)), at(1, 1)).after, at(10, 5));
        assert_eq!(Checkpoint::new(at(10, 5), None, at(1, 1)).after, at(10, 5));
    }

    #[test]
    fn an_optime_in_mongoshakes_form_keeps_its_order() {
        assert_eq!(at(1, 2).as_int64(), (1 << 32) + 2);
        assert!(at(1, u32::MAX).as_int64() < at(2, 0).as_int64());
    }
}
