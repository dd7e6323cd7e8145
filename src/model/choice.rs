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
        for create_index in CreateIndex::ALL {
            assert_eq!(serde_json::to_value(create_index).unwrap(), create_index.word());
        }
        for verify in Verify::ALL {
            assert_eq!(serde_json::to_value(verify).unwrap(), verify.word());
        }
        for against in Against::ALL {
            assert_eq!(serde_json::to_value(against).unwrap(), against.word());
        }
    }
}
