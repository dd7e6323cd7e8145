//! The steps of a job, in order.

use serde::{Deserialize, Serialize};
use std::fmt;

/// One phase of a job; named alike in the command line, the state, the state machine and the source tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// Captures the checkpoint, then lists what there is.
    Discover,
    /// Cuts the catalog into partitions and lanes.
    Plan,
    /// Marks the target as this job's, drops and creates collections.
    Prepare,
    /// Copies the documents, lane by lane.
    Copy,
    /// Builds the indexes that wait for the data.
    Index,
    /// Compares what is there with what was recorded.
    Verify,
    /// Writes the checkpoint.
    Commit,
}

impl Step {
    /// All steps, in the order in which they run.
    pub const ALL: [Step; 7] =
        [Step::Discover, Step::Plan, Step::Prepare, Step::Copy, Step::Index, Step::Verify, Step::Commit];

    /// The step that must be done before this one, `None` for the first.
    pub fn predecessor(self) -> Option<Step> {
        Self::ALL.iter().copied().take_while(|step| *step != self).last()
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Step::Discover => "discover",
            Step::Plan => "plan",
            Step::Prepare => "prepare",
            Step::Copy => "copy",
            Step::Index => "index",
            Step::Verify => "verify",
            Step::Commit => "commit",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
