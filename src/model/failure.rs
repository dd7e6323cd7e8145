//! The last failure of a job that no step's document has: where a function failed before it claimed anything, or was
//! killed.

use super::step::Step;
use serde::{Deserialize, Serialize};

/// What failed, when, and why. Only shown: nothing is decided by it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// When.
    pub at: String,
    /// In which step; none when a state machine failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<Step>,
    /// In which lane (`rs0/3`) or at which collection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<String>,
    /// The error's name, or the status of the state machine's execution.
    pub error: String,
    /// Its message, without secrets.
    pub message: String,
    /// The invocation's request id, by which the log is found.
    pub request: String,
}

impl Failure {
    /// In a line.
    pub fn text(&self) -> String {
        let Self { error, message, .. } = self;
        match (self.step, &self.part) {
            (None, _) => message.clone(),
            (Some(step), None) => format!("{step}: {error}: {message}"),
            (Some(step), Some(part)) => format!("{step} of {part}: {error}: {message}"),
        }
    }
}
