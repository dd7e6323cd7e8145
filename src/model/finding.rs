//! What a person must mend or accept, and what a person should know.

use super::namespace::Namespace;
use serde::{Deserialize, Serialize};

/// What a person must mend or accept before the checkpoint is committed. About the source's name of a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Finding {
    /// The namespace on the source.
    pub namespace: Namespace,
    /// What was found, in a sentence.
    pub text: String,
}

/// What a person should know, and does not have to do anything about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Note {
    /// The namespace on the source.
    pub namespace: Namespace,
    /// What happened, in a sentence.
    pub text: String,
}

/// How many findings of one partition are kept in words. The rest are counted: a state document must not grow with
/// the number of documents that are wrong.
pub const KEPT_FINDINGS: usize = 20;

/// Findings of one partition: the first ones in words, the others as a count.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Findings {
    /// The first ones.
    pub kept: Vec<Finding>,
    /// How many more there were.
    pub more: u64,
}

impl Findings {
    /// Adds one.
    pub fn add(&mut self, finding: Finding) {
        if self.kept.len() < KEPT_FINDINGS { self.kept.push(finding) } else { self.more += 1 }
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.kept.len() as u64 + self.more
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }
}
