//! Settings that are a choice between a few words. They are part of what a job is planned for, hence in the model.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What to do when the target already has a collection that is to be copied (`--existing`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Existing {
    /// Stop, naming it; nothing is changed.
    #[default]
    Refuse,
    /// Drop it first, by the UUID that was recorded.
    Drop,
    /// Put the documents beside those that are there; another document with the same `_id` stays and is a finding.
    Keep,
}

impl Existing {
    /// All of them, in the order in which help and messages list them.
    pub const ALL: [Existing; 3] = [Existing::Refuse, Existing::Drop, Existing::Keep];

    /// The word for it, the same in flags, files and state.
    pub const fn word(self) -> &'static str {
        match self {
            Existing::Refuse => "refuse",
            Existing::Drop => "drop",
            Existing::Keep => "keep",
        }
    }
}

impl fmt::Display for Existing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What to do with a document of the target that has the `_id` of one that is copied, and is none of this job's
/// (`--on-conflict`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnConflict {
    /// It stays, and is a finding.
    #[default]
    Report,
    /// The source's document of now takes its place.
    Replace,
    /// It stays, and is counted.
    Keep,
}

impl OnConflict {
    /// All of them, in the order in which help and messages list them.
    pub const ALL: [OnConflict; 3] = [OnConflict::Report, OnConflict::Replace, OnConflict::Keep];

    /// The word for it, the same in flags and files.
    pub const fn word(self) -> &'static str {
        match self {
            OnConflict::Report => "report",
            OnConflict::Replace => "replace",
            OnConflict::Keep => "keep",
        }
    }
}

impl fmt::Display for OnConflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What to do with documents that a shard has and does not own (`--orphans`): left by a migration that was broken off or
/// not cleaned up, or put there past the mongos.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Orphans {
    /// They are left out, and counted.
    #[default]
    Skip,
    /// They are copied like others.
    Copy,
    /// The first one stops the copy.
    Fail,
}

impl Orphans {
    /// All of them, in the order in which help and messages list them.
    pub const ALL: [Orphans; 3] = [Orphans::Skip, Orphans::Copy, Orphans::Fail];

    /// The word for it, the same in flags and files.
    pub const fn word(self) -> &'static str {
        match self {
            Orphans::Skip => "skip",
            Orphans::Copy => "copy",
            Orphans::Fail => "fail",
        }
    }
}

impl fmt::Display for Orphans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// When the indexes are built (`--create-index`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CreateIndex {
    /// Not at all, but for `_id`.
    None,
    /// Before the documents, so that they grow with them; unique and TTL indexes still wait for the data.
    Background,
    /// After the documents, in a step of their own: the fastest way.
    #[default]
    Foreground,
}

impl CreateIndex {
    /// All of them, in the order in which help and messages list them.
    pub const ALL: [CreateIndex; 3] = [CreateIndex::None, CreateIndex::Background, CreateIndex::Foreground];

    /// The word for it, the same in flags, files and state.
    pub const fn word(self) -> &'static str {
        match self {
            CreateIndex::None => "none",
            CreateIndex::Background => "background",
            CreateIndex::Foreground => "foreground",
        }
    }
}

impl fmt::Display for CreateIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// In which order a collection is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// By `_id`, in ranges that are read side by side, from whichever member is there.
    #[default]
    Id,
    /// As it lies on the disk of one member.
    Natural,
    /// As it was inserted, by one reader and one writer: a capped collection, which is to have this order on the target.
    Insertion,
}

/// In which order collections are read (`--read-order`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReadOrder {
    /// In the one that suits it, collection by collection.
    #[default]
    Auto,
    /// All of them by `_id`.
    Id,
    /// All of them as they lie on the disk, where that can be resumed.
    Natural,
}

impl ReadOrder {
    /// All of them, in the order in which help and messages list them.
    pub const ALL: [ReadOrder; 3] = [ReadOrder::Auto, ReadOrder::Id, ReadOrder::Natural];

    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            ReadOrder::Auto => "auto",
            ReadOrder::Id => "id",
            ReadOrder::Natural => "natural",
        }
    }
}

/// Through what the documents of a sharded cluster are read (`--read`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReadThrough {
    /// Each shard by itself, directly.
    #[default]
    Shards,
    /// All of them through a mongos.
    Mongos,
}

impl ReadThrough {
    /// All of them, in the order in which help and messages list them.
    pub const ALL: [ReadThrough; 2] = [ReadThrough::Shards, ReadThrough::Mongos];

    /// The word for it, the same in flags, files and state.
    pub const fn word(self) -> &'static str {
        match self {
            ReadThrough::Shards => "shards",
            ReadThrough::Mongos => "mongos",
        }
    }
}

impl fmt::Display for ReadThrough {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// For what kind of stream the checkpoint is captured (`--checkpoint-mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckpointMode {
    /// For a reader of oplogs: one for each replica set.
    #[default]
    Oplog,
    /// For a change stream: one for all of the source.
    ChangeStream,
    /// For none: no oplog is looked at, and nothing is written.
    None,
}

impl CheckpointMode {
    /// All of them, in the order in which help and messages list them.
    pub const ALL: [CheckpointMode; 3] = [CheckpointMode::Oplog, CheckpointMode::ChangeStream, CheckpointMode::None];

    /// The word for it, the same in flags, files and state.
    pub const fn word(self) -> &'static str {
        match self {
            CheckpointMode::Oplog => "oplog",
            CheckpointMode::ChangeStream => "change-stream",
            CheckpointMode::None => "none",
        }
    }
}

impl fmt::Display for CheckpointMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Which members of the source are read (`--read-preference`), in the words of connection strings
/// (<https://www.mongodb.com/docs/manual/core/read-preference/>).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReadPreference {
    /// The primary.
    #[default]
    Primary,
    /// The primary, a secondary while there is none.
    PrimaryPreferred,
    /// A secondary.
    Secondary,
    /// A secondary, the primary where there is none.
    SecondaryPreferred,
    /// Whichever answers fastest.
    Nearest,
}

impl ReadPreference {
    /// All of them, in the order in which help and messages list them.
    pub const ALL: [ReadPreference; 5] = [
        ReadPreference::Primary,
        ReadPreference::PrimaryPreferred,
        ReadPreference::Secondary,
        ReadPreference::SecondaryPreferred,
        ReadPreference::Nearest,
    ];

    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            ReadPreference::Primary => "primary",
            ReadPreference::PrimaryPreferred => "primaryPreferred",
            ReadPreference::Secondary => "secondary",
            ReadPreference::SecondaryPreferred => "secondaryPreferred",
            ReadPreference::Nearest => "nearest",
        }
    }
}

/// What `verify` compares (`--verify`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verify {
    /// The number of documents, the options, the indexes.
    #[default]
    Metadata,
    /// Every document as well.
    Full,
    /// Nothing.
    None,
}

impl Verify {
    /// All of them, in the order in which help and messages list them.
    pub const ALL: [Verify; 3] = [Verify::Metadata, Verify::Full, Verify::None];

    /// The word for it, the same in flags, files and state.
    pub const fn word(self) -> &'static str {
        match self {
            Verify::Metadata => "metadata",
            Verify::Full => "full",
            Verify::None => "none",
        }
    }
}

impl fmt::Display for Verify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What `verify --verify full` holds the target's documents against (`--against`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Against {
    /// What the target has acknowledged.
    #[default]
    Proofs,
    /// What the source has now.
    Source,
}

impl Against {
    /// All of them, in the order in which help and messages list them.
    pub const ALL: [Against; 2] = [Against::Proofs, Against::Source];

    /// The word for it, the same in flags, files and state.
    pub const fn word(self) -> &'static str {
        match self {
            Against::Proofs => "proofs",
            Against::Source => "source",
        }
    }
}

impl fmt::Display for Against {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may fail")]
    use super::*;

    #[test]
    fn the_stored_word_is_the_one_of_the_flag() {
        for existing in Existing::ALL {
            assert_eq!(serde_json::to_value(existing).unwrap(), existing.word());
        }
        for on_conflict in OnConflict::ALL {
            assert_eq!(serde_json::to_value(on_conflict).unwrap(), on_conflict.word());
        }
        for orphans in Orphans::ALL {
            assert_eq!(serde_json::to_value(orphans).unwrap(), orphans.word());
        }
        for create_index in CreateIndex::ALL {
            assert_eq!(serde_json::to_value(create_index).unwrap(), create_index.word());
        }
        for mode in CheckpointMode::ALL {
            assert_eq!(serde_json::to_value(mode).unwrap(), mode.word());
        }
        for through in ReadThrough::ALL {
            assert_eq!(serde_json::to_value(through).unwrap(), through.word());
        }
        for verify in Verify::ALL {
            assert_eq!(serde_json::to_value(verify).unwrap(), verify.word());
        }
        for against in Against::ALL {
            assert_eq!(serde_json::to_value(against).unwrap(), against.word());
        }
    }
}
