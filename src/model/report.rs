//! What is told of a job when it is signed off: what was proven and what was not, what was accepted, and every
//! collection. Made from the state alone ([`crate::report`]).

use super::catalog::CollectionKind;
use super::choice::{Against, CheckpointMode, CreateIndex, Existing, Verify};
use super::comparison::Check;
use super::digest::Digest;
use super::finding::{Finding, Note};
use super::identity::Identity;
use super::job::CheckpointMap;
use super::left_out::LeftOut;
use super::namespace::Namespace;
use super::step::Step;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// A job's manifest: the object that `report` prints.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The job's name.
    pub job: String,
    /// Its random id; none before it was discovered.
    pub id: Option<String>,
    /// When this was reported.
    pub reported: String,
    /// By which version of the program.
    pub version: String,
    /// Which version discovered the job. None where nobody wrote that down.
    pub discovered_by: Option<String>,
    /// How the job stands, as `status` has it.
    pub status: &'static str,
    /// Why, when it failed.
    pub error: Option<String>,
    /// When its first step was begun.
    pub begun: Option<String>,
    /// When it was committed.
    pub ended: Option<String>,
    /// What it comes to.
    pub verdict: Verdict,
    /// Where it read from; none before it was discovered.
    pub source: Option<Identity>,
    /// The shards of the source, by name.
    pub shards: BTreeMap<String, Identity>,
    /// Where it wrote to.
    pub target: Option<Identity>,
    /// What it was planned and prepared with, as flags are named and written.
    pub settings: BTreeMap<String, String>,
    /// The steps, in order.
    pub steps: Vec<StepReport>,
    /// All collections together.
    pub totals: Totals,
    /// The checkpoints as they were captured.
    pub checkpoint: Option<CheckpointMap>,
    /// After which time each stream has to begin, by the name that MongoShake looks for.
    pub stream_starts: BTreeMap<String, StreamStart>,
    /// What a person had to mend or accept, and has not mended.
    pub findings: Vec<Finding>,
    /// Whether these findings were accepted: the job was committed with them.
    pub findings_accepted: bool,
    /// What a person should know.
    pub notes: Vec<Note>,
    /// What there was on the source and is not copied. None where nobody wrote that down.
    pub left_out: Option<Vec<LeftOut>>,
    /// The collections, by name.
    pub collections: Vec<CollectionReport>,
}

/// What a job comes to, in sentences.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// In a word.
    pub outcome: Outcome,
    /// In a sentence.
    pub sentence: String,
    /// What is proven.
    pub proven: Vec<String>,
    /// What is not.
    pub unproven: Vec<String>,
}

/// What a job comes to, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Committed, without findings.
    Complete,
    /// Committed, with findings that somebody accepted.
    Accepted,
    /// Not committed yet.
    Unfinished,
    /// Given up.
    Abandoned,
}

/// A step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StepReport {
    /// Its name.
    pub step: Step,
    /// As `status` has it.
    pub status: String,
    /// When it, or the first of its parts, was first claimed.
    pub started: Option<String>,
    /// When it was done.
    pub finished: Option<String>,
    /// How long that was, pauses between runs included.
    pub seconds: Option<u64>,
    /// In how many parts it is done: lanes, collections, or one.
    pub parts: usize,
    /// How often it, or a part of it, was gone on with after a stop.
    pub resumed: usize,
    /// Its result in a sentence.
    pub summary: String,
}

/// A checkpoint that a stream begins at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct StreamStart {
    /// Seconds since 1970.
    pub seconds: u32,
    /// The count within that second.
    pub increment: u32,
    /// Both as MongoShake writes them.
    pub ckpt: i64,
}

/// All collections together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Collections that are copied.
    pub collections: usize,
    /// Those whose documents are all copied.
    pub copied: usize,
    /// Collections of kinds that are not copied.
    pub not_copied: usize,
    /// Secondary indexes of those that are copied.
    pub indexes: usize,
    /// Secondary indexes that are left out, as `--create-index none` says.
    pub indexes_left_out: usize,
    /// Documents read from the source.
    pub read: u64,
    /// Documents on the target as they should be, all acknowledged by a majority.
    pub documents: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Their digest. None where it is not known.
    pub digest: Option<Digest>,
    /// Documents that are not on the target.
    pub rejected: u64,
    /// Documents that were sent once more after a stop, and recognised.
    pub replayed: u64,
    /// Documents that another one was in the place of, which stayed (`--on-conflict keep`).
    pub kept: u64,
    /// Documents that took the place of another one (`--on-conflict replace`).
    pub overwritten: u64,
    /// Lanes that the collections were copied in, those included that were given away.
    pub lanes: usize,
}

/// A collection.
#[derive(Debug, Clone, Serialize)]
pub struct CollectionReport {
    /// On the source.
    pub namespace: Namespace,
    /// On the target, once planned.
    pub target: Option<Namespace>,
    /// What kind it is.
    pub kind: CollectionKind,
    /// Its UUID on the source. Views have none.
    pub uuid: Option<String>,
    /// `planned`, `copying` or `copied`, or `left out` for a kind that is not copied.
    pub status: &'static str,
    /// Documents on the target as they should be.
    pub documents: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Their digest. None where it is not known, and for what is not copied.
    pub digest: Option<Digest>,
    /// Documents as the source's metadata said at discover.
    pub estimated_documents: u64,
    /// Their bytes as the source's metadata said at discover.
    pub estimated_bytes: u64,
    /// Documents that are not on the target.
    pub rejected: u64,
    /// Its options on the source.
    pub options: Value,
    /// Its indexes on the source, the one on `_id` included.
    pub indexes: Vec<Value>,
    /// How many of them are left out, as `--create-index none` says.
    pub indexes_left_out: usize,
    /// Its shard key on the source, where it is sharded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shard_key: Option<Value>,
    /// How its share of index stands; none where it has nothing to build, or not yet.
    pub index: Option<ShareReport>,
    /// How its share of verify stands; none before.
    pub verify: Option<ShareReport>,
}

/// One collection's share of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShareReport {
    /// As a step's.
    pub status: &'static str,
    /// How long it took, pauses between runs included. None before it is done.
    pub milliseconds: Option<u64>,
}

/// What a verdict is made from, beside the report's own fields.
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    /// What verify compared. None where it has not.
    pub check: Option<Check>,
    /// What was done with collections that were there. None before prepare.
    pub existing: Option<Existing>,
    /// When indexes were built. None before prepare.
    pub create_index: Option<CreateIndex>,
    /// How many collections have documents without a known digest.
    pub without_digest: usize,
}

impl Report {
    /// Judges a report by all of its other fields.
    pub fn judge(&self, facts: Facts) -> Verdict {
        let outcome = match self.status {
            "done" if self.findings.is_empty() => Outcome::Complete,
            "done" => Outcome::Accepted,
            "abandoned" => Outcome::Abandoned,
            _ => Outcome::Unfinished,
        };
        Verdict {
            outcome,
            sentence: self.sentence(outcome),
            proven: self.proven(facts),
            unproven: self.unproven(facts),
        }
    }

    fn sentence(&self, outcome: Outcome) -> String {
        let Totals { documents, collections, .. } = self.totals;
        let copied = format!("{} of {}", counted(documents, "document"), counted(collections as u64, "collection"));
        match outcome {
            Outcome::Complete => format!("The copy is complete and committed: {copied}, without findings."),
            Outcome::Accepted => format!(
                "The copy is committed: {copied}, with {} that somebody accepted.",
                counted(self.findings.len() as u64, "finding")
            ),
            Outcome::Abandoned => "The job was given up. Nothing is signed off with this report.".to_owned(),
            Outcome::Unfinished => {
                let next = self.steps.iter().find(|step| step.status != "done");
                let at = next.map_or(String::new(), |step| format!(", at the step {}", step.step));
                format!("The job is not finished: {}{at}. Nothing is signed off with this report.", self.status)
            }
        }
    }

    fn is_done(&self, step: Step) -> bool {
        self.steps.iter().any(|report| report.step == step && report.status == "done")
    }

    fn proven(&self, Facts { check, create_index, .. }: Facts) -> Vec<String> {
        let mut proven = Vec::new();
        let Totals { documents, bytes, digest, indexes, collections, .. } = self.totals;
        if self.is_done(Step::Copy) {
            let digest = if digest.is_some() { ", with a digest of their bytes" } else { "" };
            proven.push(format!(
                "A majority of the target acknowledged {} ({}){digest}.",
                counted(documents, "document"),
                counted(bytes, "byte")
            ));
        }
        if self.is_done(Step::Index) && create_index != Some(CreateIndex::None) && self.of_index().is_none() {
            proven.push(format!(
                "Built on the target, as the source has them: {}.",
                counted(indexes as u64, "secondary index")
            ));
        }
        if let (true, Some(check)) = (self.is_done(Step::Verify), check) {
            let every = counted(collections as u64, "collection");
            match (check.verify, check.against) {
                (Verify::None, _) => {}
                (Verify::Metadata, _) => proven.push(format!(
                    "The number of documents, the options and the indexes of {every} were compared with what is on the target."
                )),
                (Verify::Full, Against::Proofs) => proven.push(format!(
                    "Every document of {every} was read back from the target and compared with what it had acknowledged; options and indexes were compared too."
                )),
                (Verify::Full, Against::Source) => proven.push(format!(
                    "Every document of {every} was read back from the target and compared with the source; options and indexes were compared too."
                )),
            }
        }
        if self.is_done(Step::Commit) && !self.stream_starts.is_empty() {
            proven.push(
                "When the job was committed, the source's oplogs that could be read still reached back to the checkpoint: a stream from there brings the target up to date."
                    .to_owned(),
            );
        }
        proven
    }

    /// A finding of the step index, if there is one that is not mended.
    fn of_index(&self) -> Option<&CollectionReport> {
        self.collections.iter().find(|collection| collection.index.as_ref().is_some_and(|share| share.status != "done"))
    }

    fn unproven(&self, facts: Facts) -> Vec<String> {
        let mut unproven = Vec::new();
        let open: Vec<&str> =
            self.steps.iter().filter(|step| step.status != "done").map(|step| step.step.name()).collect();
        if !open.is_empty() {
            unproven.push(format!("Not done: {}.", open.join(", ")));
        }
        if !self.findings.is_empty() {
            let findings = counted(self.findings.len() as u64, "finding");
            let fate = if self.findings_accepted { "accepted, not mended" } else { "open: mend or accept them" };
            unproven.push(format!("{findings} below, {fate}."));
        }
        if self.totals.rejected > 0 {
            unproven.push(format!("Not on the target: {}.", counted(self.totals.rejected, "document")));
        }
        if self.is_done(Step::Verify) {
            match facts.check.map(|check| check.verify) {
                None | Some(Verify::None) => {
                    unproven.push("Nothing on the target was compared (--verify none).".to_owned())
                }
                Some(Verify::Metadata) => unproven.push(
                    "Documents on the target were counted and not read back; `step verify --verify full` does that."
                        .to_owned(),
                ),
                Some(Verify::Full) => {}
            }
        }
        if facts.without_digest > 0 {
            unproven
                .push(format!("The digest of {} is not known.", counted(facts.without_digest as u64, "collection")));
        }
        if self.totals.indexes_left_out > 0 {
            unproven.push(format!(
                "Left out (--create-index none): {}.",
                counted(self.totals.indexes_left_out as u64, "secondary index")
            ));
        }
        if self.totals.not_copied > 0 {
            unproven.push(format!(
                "Of a kind that is not copied: {} of the source; the table says which.",
                counted(self.totals.not_copied as u64, "collection")
            ));
        }
        if facts.existing == Some(Existing::Keep) {
            unproven.push(
                "What collections of the target held before (--existing keep) is still there, beside the copy."
                    .to_owned(),
            );
        }
        if self.totals.kept > 0 {
            let kept = counted(self.totals.kept, "document");
            unproven.push(format!(
                "Not copied: {kept}, since another one has the same _id on the target (--on-conflict keep)."
            ));
        }
        match &self.left_out {
            None if self.id.is_some() => unproven.push(
                "What the filters left out was not written down by the version that discovered the job.".to_owned(),
            ),
            Some(left_out) if left_out.iter().any(|left_out| left_out.kind.is_some()) => {
                let count = left_out.iter().filter(|left_out| left_out.kind.is_some()).count();
                unproven.push(format!(
                    "Left out: {} of the source, which the list below names.",
                    counted(count as u64, "collection")
                ));
            }
            _ => {}
        }
        match self.checkpoint.as_ref().map(|map| map.mode) {
            Some(CheckpointMode::None) => unproven.push("No checkpoint was captured (--checkpoint-mode none): what was written on the source since the copy began is missing, or not, and nobody knows.".to_owned()),
            Some(_) if self.is_done(Step::Commit) => unproven.push("What was written on the source after the checkpoint is the stream's business, and no part of this report.".to_owned()),
            _ => {}
        }
        unproven
    }
}

/// A number and what it counts: `1 document`, `12,000 documents`.
pub fn counted(count: u64, noun: &str) -> String {
    let plural = match noun.strip_suffix("ex") {
        Some(stem) => format!("{stem}exes"),
        None => format!("{noun}s"),
    };
    format!("{} {}", grouped(count), if count == 1 { noun } else { &plural })
}

/// A number with its thousands set apart: `12,000`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(status: &'static str, done: usize) -> Report {
        let step = |(place, step)| StepReport {
            step,
            status: if place < done { "done" } else { "pending" }.to_owned(),
            started: None,
            finished: None,
            seconds: None,
            parts: 0,
            resumed: 0,
            summary: String::new(),
        };
        Report {
            job: "shop".to_owned(),
            id: Some("id".to_owned()),
            reported: String::new(),
            version: String::new(),
            discovered_by: None,
            status,
            error: None,
            begun: None,
            ended: None,
            verdict: Verdict {
                outcome: Outcome::Unfinished,
                sentence: String::new(),
                proven: vec![],
                unproven: vec![],
            },
            source: None,
            shards: BTreeMap::new(),
            target: None,
            settings: BTreeMap::new(),
            steps: Step::ALL.into_iter().enumerate().map(step).collect(),
            totals: Totals { collections: 2, documents: 1, bytes: 1200, indexes: 3, ..Totals::default() },
            checkpoint: None,
            stream_starts: BTreeMap::new(),
            findings: Vec::new(),
            findings_accepted: false,
            notes: Vec::new(),
            left_out: Some(Vec::new()),
            collections: Vec::new(),
        }
    }

    fn facts(verify: Option<Verify>) -> Facts {
        let check = verify.map(|verify| Check { verify, against: Against::Proofs });
        Facts {
            check,
            existing: Some(Existing::Refuse),
            create_index: Some(CreateIndex::Foreground),
            without_digest: 0,
        }
    }

    #[test]
    fn nothing_is_called_complete_that_is_not_committed() {
        let steps = Step::ALL.len();
        for (status, done, outcome) in [
            ("done", steps, Outcome::Complete),
            ("stopped", steps - 1, Outcome::Unfinished),
            ("findings", steps - 1, Outcome::Unfinished),
            ("running", 1, Outcome::Unfinished),
            ("failed", 0, Outcome::Unfinished),
            ("abandoned", 3, Outcome::Abandoned),
        ] {
            let verdict = report(status, done).judge(facts(Some(Verify::Metadata)));
            assert_eq!(verdict.outcome, outcome, "{status}");
            let is_signed = outcome == Outcome::Complete;
            assert_eq!(verdict.sentence.contains("Nothing is signed off"), !is_signed, "{}", verdict.sentence);
        }
        let mut accepted = report("done", steps);
        accepted.findings = vec![Finding { namespace: Namespace::new("db", "c"), text: "is odd".to_owned() }];
        accepted.findings_accepted = true;
        let verdict = accepted.judge(facts(Some(Verify::Full)));
        assert_eq!(verdict.outcome, Outcome::Accepted);
        assert_eq!(verdict.unproven, ["1 finding below, accepted, not mended."]);
    }

    #[test]
    fn what_was_compared_is_proven_and_what_was_not_is_said() {
        let done = report("done", Step::ALL.len());
        let said = |sentences: &[String], part: &str| sentences.iter().any(|sentence| sentence.contains(part));
        let full = done.judge(facts(Some(Verify::Full)));
        assert!(said(&full.proven, "Every document of 2 collections was read back from the target"));
        assert!(full.unproven.is_empty(), "{:?}", full.unproven);
        let metadata = done.judge(facts(Some(Verify::Metadata)));
        assert!(said(&metadata.proven, "were compared") && said(&metadata.unproven, "not read back"));
        let nothing = done.judge(facts(None));
        assert!(!said(&nothing.proven, "compared") && said(&nothing.unproven, "Nothing on the target was compared"));

        let unknown = Report { left_out: None, ..done.clone() }.judge(facts(Some(Verify::Full)));
        assert!(said(&unknown.unproven, "was not written down"));
        let without = Facts { create_index: Some(CreateIndex::None), without_digest: 1, ..facts(Some(Verify::Full)) };
        let verdict = Report {
            totals: Totals { indexes_left_out: 3, kept: 1, rejected: 2, not_copied: 1, ..done.totals.clone() },
            ..done
        }
        .judge(without);
        assert!(!said(&verdict.proven, "secondary index"), "{:?}", verdict.proven);
        for part in [
            "none): 3 secondary indexes",
            "Not copied: 1 document",
            "Not on the target: 2 documents",
            "digest of 1 collection",
            "1 collection of the source",
        ] {
            assert!(said(&verdict.unproven, part), "{part}: {:?}", verdict.unproven);
        }
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
        assert_eq!((counted(1, "index").as_str(), counted(2, "index").as_str()), ("1 index", "2 indexes"));
        assert_eq!(counted(1, "document"), "1 document");
    }
}
