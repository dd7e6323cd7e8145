//! A piece of work as it is stored: its lease, how it stands, and its progress, in one document, so that no save of
//! progress can succeed after the lease went to another worker.

use super::choice::{CreateIndex, Existing};
use super::comparison::{Comparison, Round, comparisons_never_retreat};
use super::counts::Counts;
use super::finding::{Finding, Note};
use super::invariants::{Broken, cursors_never_retreat, epochs_never_retreat};
use super::lane::LaneProgress;
use super::lease::Lease;
use super::namespace::Namespace;
use super::refresh::Refreshed;
use super::step::Step;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// How a piece of work stands.
///
/// ```text
///            claim             finish(Done)
///   (none) ────────▶ Running ───────────────▶ Done ──claim again (verify by hand)──▶ Running
///                     ▲   │ out of time: Yielded · error: Failed · a person is needed: Findings
///                     └───┴── claim
///   any but Done ──abandon──▶ Abandoned (for good)
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "lowercase")]
pub enum WorkStatus {
    /// A worker is at it, or was when it was killed.
    Running,
    /// Its worker ran out of time, or was told to stop, and let go of it.
    Yielded,
    /// Its worker stopped at an error.
    Failed {
        /// The error's kind.
        kind: String,
        /// Its message.
        message: String,
    },
    /// It needs a person's decision.
    Findings,
    /// It is done.
    Done,
    /// Its job was abandoned.
    Abandoned,
}

/// A piece of work: a step, a lane, or one collection's share of a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Work<P> {
    /// Who may work on it.
    pub lease: Lease,
    /// How it stands.
    pub status: WorkStatus,
    /// When it was first claimed.
    pub started: String,
    /// When it was last claimed: for people, as `saved` is. Missing in documents of before it was written down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed: Option<String>,
    /// When it was last saved: for people. No worker compares it with its own clock.
    pub saved: String,
    /// When it was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<String>,
    /// How far it is.
    pub progress: P,
}

/// The progress of some kind of work.
pub trait Progress: Serialize + DeserializeOwned + Clone + Send + Sync + 'static {
    /// The kind of its document.
    const KIND: &'static str;

    /// The newest version of its document that this program reads, and writes where it has to.
    const VERSION: u32 = 1;

    /// The version that it is written in: the oldest that says all of it.
    fn version(&self) -> u32 {
        1
    }

    /// What a new claim changes.
    fn claimed(&mut self) {}

    /// What must hold between a document and the one that replaces it.
    ///
    /// # Errors
    /// [`Broken`] names the rule.
    fn check(_old: &Self, _new: &Self) -> Result<(), Broken> {
        Ok(())
    }
}

impl<P: Progress> Work<P> {
    /// Whether `new` may replace `self`.
    ///
    /// # Errors
    /// [`Broken`] names the rule.
    pub fn may_become(&self, new: &Self) -> Result<(), Broken> {
        epochs_never_retreat(&self.lease, &new.lease)?;
        if self.status == WorkStatus::Abandoned && new.status != WorkStatus::Abandoned {
            return Err(Broken("abandoned_is_for_good"));
        }
        P::check(&self.progress, &new.progress)
    }
}

impl Progress for LaneProgress {
    const KIND: &'static str = "lane";

    /// 2: with tails.
    const VERSION: u32 = 2;

    /// A program that knows no tails would copy them once more, in the lane that gave them.
    fn version(&self) -> u32 {
        if self.given.is_empty() && !self.lane.is_tail() { 1 } else { 2 }
    }

    fn claimed(&mut self) {
        LaneProgress::claimed(self);
    }

    fn check(old: &Self, new: &Self) -> Result<(), Broken> {
        cursors_never_retreat(old, new)
    }
}

/// The progress and result of a step that is claimed as a whole; for copy, index and verify, whose parts are claimed,
/// the result alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepProgress {
    /// Which step.
    pub step: Step,
    /// prepare: what was said about existing collections, from then on fixed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub existing: Option<Existing>,
    /// prepare: when indexes are built, from then on fixed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub create_index: Option<CreateIndex>,
    /// verify: the last round that was begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round: Option<Round>,
    /// verify: that round is not done yet; the result is that of the one before it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub repeating: bool,
    /// The result in a sentence.
    #[serde(default)]
    pub summary: String,
    /// copy: what was moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<Counts>,
    /// What a person must mend or accept, about the step as a whole.
    #[serde(default)]
    pub findings: Vec<Finding>,
    /// What a person should know, about the step as a whole.
    #[serde(default)]
    pub notes: Vec<Note>,
}

impl StepProgress {
    /// The progress of a step that was not begun.
    pub fn new(step: Step) -> Self {
        Self {
            step,
            existing: None,
            create_index: None,
            round: None,
            repeating: false,
            summary: String::new(),
            counts: None,
            findings: Vec::new(),
            notes: Vec::new(),
        }
    }
}

impl Progress for StepProgress {
    const KIND: &'static str = "step";
}

/// One collection's share of the index or the verify step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitProgress {
    /// Of which step.
    pub step: Step,
    /// The collection on the source.
    pub namespace: Namespace,
    /// What a person must mend or accept.
    #[serde(default)]
    pub findings: Vec<Finding>,
    /// What a person should know.
    #[serde(default)]
    pub notes: Vec<Note>,
    /// verify: the round that the result is of; none where there is no result, or one of version 0.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round: Option<Round>,
    /// verify --verify full: how far it is, while it is at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Comparison>,
    /// index: what is being built, as it was last looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub building: Option<Building>,
    /// index: the indexes that the target refused, by name. Each is one of the findings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<String>,
    /// index: in a collection that this job did not create, the TTL indexes that it makes, and holds back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<String>,
    /// index: documents that were brought to what the source has by then, for the sake of a unique index.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refreshed: Vec<Refreshed>,
}

/// How far the target's server is with indexes of a collection, in its own words and numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Building {
    /// Their names.
    pub indexes: Vec<String>,
    /// What it is at. Empty where it does not tell.
    pub phase: String,
    /// How much of that is done...
    pub done: u64,
    /// ...of how much. 0 where it does not tell.
    pub total: u64,
}

impl Building {
    /// `building 2 indexes, scanning collection 45 %`.
    pub fn text(&self) -> String {
        let Self { indexes, phase, done, total } = self;
        let plural = if indexes.len() == 1 { "index" } else { "indexes" };
        let mut text = format!("building {} {plural}", indexes.len());
        if !phase.is_empty() {
            text.push_str(&format!(", {phase}"));
        }
        if *total > 0 {
            text.push_str(&format!(" {} %", (done.saturating_mul(100) / total).min(100)));
        }
        text
    }
}

impl UnitProgress {
    /// The share of a collection that was not begun.
    pub fn new(step: Step, namespace: Namespace) -> Self {
        Self {
            step,
            namespace,
            findings: Vec::new(),
            notes: Vec::new(),
            round: None,
            comparison: None,
            building: None,
            refused: Vec::new(),
            held: Vec::new(),
            refreshed: Vec::new(),
        }
    }
}

impl Progress for UnitProgress {
    const KIND: &'static str = "unit";

    fn check(old: &Self, new: &Self) -> Result<(), Broken> {
        match (&old.comparison, &new.comparison) {
            (Some(old), Some(new)) => comparisons_never_retreat(old, new),
            _ => Ok(()),
        }
    }
}
