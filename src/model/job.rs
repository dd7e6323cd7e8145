//! A job: what it copies from where to where, and the checkpoint from which an incremental stream goes on.

use super::choice::{CheckpointMode, ReadThrough};
use super::document_filter::DocumentFilter;
use super::filter::Filter;
use super::identity::{Identity, MONGOS};
use super::namespace::Namespace;
use super::renames::Renames;
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
    /// What is copied.
    #[serde(flatten)]
    pub selection: Selection,
}

/// What is copied, and under which names.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Selection {
    /// Which namespaces are copied.
    pub filter: Filter,
    /// Under which names.
    pub renames: Renames,
    /// Which of their documents, of those that are copied in part.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub filters: BTreeMap<Namespace, DocumentFilter>,
    /// Whether DBRefs in documents follow the renames.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rename_dbrefs: bool,
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
    /// The version of the program that discovered it. None in documents of before it was written down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discovered_by: Option<String>,
    /// What else it was discovered with, as flags are named and written: for people.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, String>,
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
    /// For what kind of stream it is, for good.
    #[serde(default, skip_serializing_if = "is_for_oplogs")]
    pub mode: CheckpointMode,
    /// Whether the source is a cluster: its change streams go through a mongos, and begin at one time. Left out by documents
    /// from before there was a choice, which are for oplogs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_cluster: bool,
    /// The checkpoints, by the name of the replica set whose oplog it is. None of a cluster whose shards cannot be reached.
    pub checkpoints: BTreeMap<String, Checkpoint>,
    /// What time it was in a deployment that is read and has no checkpoint of its own, by its name: a cluster behind a
    /// mongos, or one of which no oplog is looked at. No read of the copy is older.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub times: BTreeMap<String, Optime>,
}

impl CheckpointMap {
    /// Which time no read of a deployment may be older than.
    pub fn not_before(&self, name: &str) -> Option<Optime> {
        self.checkpoints.get(name).map(|checkpoint| checkpoint.majority).or_else(|| self.times.get(name).copied())
    }

    /// After which time each stream has to begin, by the name that MongoShake looks for.
    pub fn stream_starts(&self) -> BTreeMap<String, Optime> {
        if self.mode == CheckpointMode::None {
            return BTreeMap::new();
        }
        match self.is_merged() {
            true => self.merged().map(|after| (MONGOS.to_owned(), after)).into_iter().collect(),
            false => self.checkpoints.iter().map(|(name, checkpoint)| (name.clone(), checkpoint.after)).collect(),
        }
    }

    /// After which time the stream begins that reads the oplog of this replica set.
    pub fn stream_start(&self, set: &str) -> Option<Optime> {
        let own = self.checkpoints.get(set)?.after;
        if self.is_merged() { self.merged() } else { Some(own) }
    }

    /// Whether one stream shows all of a cluster.
    fn is_merged(&self) -> bool {
        self.is_cluster && self.mode == CheckpointMode::ChangeStream
    }

    /// The smallest of all shards' checkpoints, as MongoShake has it (`collector/coordinator/full.go`). Where no oplog can be
    /// read it is the cluster's time: captured before anything was listed, nothing that was read is older, and what a
    /// transaction does a change stream shows when it is committed.
    fn merged(&self) -> Option<Optime> {
        let smallest = self.checkpoints.values().map(|checkpoint| checkpoint.after).min();
        smallest.or_else(|| self.times.get(MONGOS).copied())
    }
}

/// Whether it is what a document from before there was a choice means.
fn is_for_oplogs(mode: &CheckpointMode) -> bool {
    *mode == CheckpointMode::Oplog
}

/// The same.
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

    fn captured(mode: CheckpointMode, is_cluster: bool, after: &[(&str, Optime)]) -> CheckpointMap {
        let checkpoint = |after: Optime| Checkpoint::new(after, None, at(1, 1));
        CheckpointMap {
            source: Identity {
                set_name: MONGOS.into(),
                is_mongos: true,
                cluster_id: None,
                replica_set_id: None,
                processes: [].into(),
                hosts: vec![],
            },
            captured: String::new(),
            read: ReadThrough::Mongos,
            mode,
            is_cluster,
            checkpoints: after.iter().map(|(name, after)| ((*name).to_owned(), checkpoint(*after))).collect(),
            times: [(MONGOS.to_owned(), at(30, 0))].into(),
        }
    }

    #[test]
    fn a_change_stream_of_a_cluster_begins_at_the_smallest_of_its_shards_checkpoints() {
        let shards: &[_] = &[("rs0", at(20, 1)), ("rs1", at(10, 2)), ("rs2", at(10, 3))];
        let one = |name: &str, after| BTreeMap::from([(name.to_owned(), after)]);
        let merged = captured(CheckpointMode::ChangeStream, true, shards);
        assert_eq!(merged.stream_starts(), one(MONGOS, at(10, 2)));
        assert_eq!(merged.stream_start("rs0"), Some(at(10, 2)), "an oplog has to reach back to it on every shard");
        let each = captured(CheckpointMode::Oplog, true, shards);
        assert_eq!((each.stream_starts().len(), each.stream_start("rs0")), (3, Some(at(20, 1))));
        let set = captured(CheckpointMode::ChangeStream, false, &shards[..1]);
        assert_eq!(set.stream_starts(), one("rs0", at(20, 1)));
    }

    #[test]
    fn without_an_oplog_a_change_stream_begins_at_the_clusters_time_and_never_at_a_made_up_one() {
        let unreached = captured(CheckpointMode::ChangeStream, true, &[]);
        assert_eq!(unreached.stream_starts(), [(MONGOS.to_owned(), at(30, 0))].into());
        let nothing = CheckpointMap { times: BTreeMap::new(), ..unreached };
        assert!(nothing.stream_starts().is_empty());
        assert!(captured(CheckpointMode::None, true, &[("rs0", at(1, 1))]).stream_starts().is_empty());
    }

    #[test]
    fn an_optime_in_mongoshakes_form_keeps_its_order() {
        assert_eq!(at(1, 2).as_int64(), (1 << 32) + 2);
        assert!(at(1, u32::MAX).as_int64() < at(2, 0).as_int64());
    }
}
