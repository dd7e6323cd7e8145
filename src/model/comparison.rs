//! Comparing the documents of one collection, as a share of verify goes through it: how far it is, what it found.
//!
//! ```text
//!   for each range of the plan:
//!     summing(after) ──the sums are equal──────────────────────────────────▶ next range
//!          └──they differ──▶ matching(from) ──all looked at──▶ judged ──────▶ next range
//!     (--against source begins with matching)
//! ```

use super::choice::{Against, Verify};
use super::cursor::{Key, Position};
use super::digest::Digest;
use super::finding::{Finding, Findings};
use super::invariants::Broken;
use super::namespace::Namespace;
use super::partition::{Bound, Range};
use super::suspect::{Fault, Suspect, Suspects, Verdict};
use serde::{Deserialize, Serialize};

/// What is compared, and with what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Check {
    /// What is compared.
    pub verify: Verify,
    /// What documents are held against.
    #[serde(default)]
    pub against: Against,
}

/// One pass of verify over the collections. The first one has the number 0; each time that a verify which is done is
/// asked for again by hand begins another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Round {
    /// Its number.
    #[serde(default)]
    pub number: u32,
    /// What it compares.
    #[serde(flatten)]
    pub check: Check,
}

/// How far the comparison of a collection's documents is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comparison {
    /// The round that it belongs to: it goes on within that one only.
    #[serde(flatten)]
    pub round: Round,
    /// How many of the planned ranges are done.
    pub ranges: u32,
    /// Where in the next one it is.
    pub stage: Stage,
    /// How many documents of the target were read.
    pub documents: u64,
    /// What the ranges that are done have shown.
    #[serde(default)]
    pub findings: Findings,
    /// What else they have shown.
    #[serde(default)]
    pub tally: Tally,
}

/// Where in a range a comparison is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// The target's documents are summed up.
    Summing {
        /// Up to here.
        after: Position,
        /// How many they are.
        documents: u64,
        /// What they add up to.
        digest: Digest,
    },
    /// The target's documents are held against the source's.
    Matching {
        /// Those of which of the collection's shards, by its place among them; those before it are done.
        #[serde(default, skip_serializing_if = "is_first")]
        shard: u32,
        /// From here on they were not looked at.
        from: Bound,
        /// What the target's sum lacks to be that of the proofs; none where there is no such sum.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        missing: Option<Digest>,
        /// The documents that differ.
        suspects: Suspects,
    },
}

fn is_first(shard: &u32) -> bool {
    *shard == 0
}

/// What a comparison has counted that is no finding.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tally {
    /// Documents that are on the target as they were acknowledged, and have changed on the source since.
    pub changed: u64,
    /// Documents that differ, and of which the sums do not tell whether they have changed on the source since.
    pub unknown: u64,
    /// Ranges whose documents are all equal, and yet do not add up to what the proofs say.
    pub miscounted: u64,
    /// Documents on the target alone, of a collection that had documents before the copy.
    pub foreign: u64,
    /// Documents on one side alone, of a collection that loses documents by itself.
    pub expired: u64,
}

/// What makes a difference of documents one that has to be expected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Leniency {
    /// The target's collection had documents before the copy (`--existing keep`): its sum says nothing about this job, and
    /// what it alone has is none of its business.
    pub had_documents: bool,
    /// Why the collection loses documents by itself on the source, in its own time.
    pub source_loses: Option<Loss>,
    /// Why it loses them on the target as well: not what this job holds back until it is committed.
    pub target_loses: Option<Loss>,
}

/// Why a collection loses documents by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// They are too old: a TTL index, or `expireAfterSeconds` of the collection.
    Age,
    /// It is capped and full.
    Capped,
}

impl Loss {
    /// For the end of a sentence.
    pub fn text(self) -> &'static str {
        match self {
            Loss::Age => "documents expire (expireAfterSeconds)",
            Loss::Capped => "it is capped, and lets the oldest go for the newest",
        }
    }
}

impl Leniency {
    fn expects(&self, fault: Fault) -> bool {
        match fault {
            Fault::Missing => self.target_loses.is_some(),
            Fault::Extra => self.source_loses.is_some(),
            Fault::Different => false,
        }
    }
}

impl Comparison {
    /// One that is to begin.
    pub fn new(round: Round, first: Option<&Range>, leniency: Leniency) -> Self {
        let stage = Stage::new(round.check, first, leniency);
        Self { round, ranges: 0, stage, documents: 0, findings: Findings::default(), tally: Tally::default() }
    }

    /// After some more documents of the target were summed up.
    pub fn summed(&mut self, last: Key, count: u64, sum: Digest) {
        self.documents += count;
        if let Stage::Summing { after, documents, digest } = &mut self.stage {
            *after = Position::After(last);
            *documents += count;
            *digest += sum;
        }
    }

    /// The target's sum differs from the proofs' by this: its documents have to be looked at.
    pub fn differs_by(&mut self, missing: Digest, range: &Range) {
        let suspects = Suspects::default();
        self.stage = Stage::Matching { shard: 0, from: range.lower.clone(), missing: Some(missing), suspects };
    }

    /// A document differs.
    pub fn suspect(&mut self, suspect: Suspect, leniency: Leniency) {
        if let Stage::Matching { missing, suspects, .. } = &mut self.stage {
            if leniency.had_documents && suspect.fault == Fault::Extra {
                self.tally.foreign += 1;
            } else if leniency.expects(suspect.fault) {
                self.tally.expired += 1;
            } else {
                suspects.add(suspect, *missing);
            }
        }
    }

    /// Everything before this key was held against the source.
    pub fn matched_before(&mut self, key: Key) {
        if let Stage::Matching { from, .. } = &mut self.stage {
            *from = Bound::At(key);
        }
    }

    /// All documents of one shard were: goes on with the next one, from where the range begins.
    pub fn matched_shard(&mut self, range: &Range) {
        if let Stage::Matching { shard, from, .. } = &mut self.stage {
            *shard += 1;
            *from = range.lower.clone();
        }
    }

    /// All documents of the range were looked at: what is wrong with them becomes findings.
    pub fn judge(&mut self, namespace: &Namespace) {
        let Stage::Matching { missing, suspects, .. } = &self.stage else { return };
        let (wrong, more) = match missing.map(|missing| suspects.verdict(missing)) {
            Some(_) if suspects.count() == 0 => {
                self.tally.miscounted += 1;
                (Vec::new(), 0)
            }
            Some(Verdict::These(these)) => {
                self.tally.changed += suspects.count() - these.len() as u64;
                (these, 0)
            }
            Some(Verdict::Unknown) => {
                self.tally.unknown += suspects.count();
                (suspects.kept.clone(), suspects.more)
            }
            Some(Verdict::All) | None => (suspects.kept.clone(), suspects.more),
        };
        for suspect in wrong {
            self.findings.add(Finding { namespace: namespace.clone(), text: suspect.text });
        }
        self.findings.more += more;
    }

    /// Goes on with the next range, if there is one.
    pub fn next_range(&mut self, range: Option<&Range>, leniency: Leniency) {
        self.ranges += 1;
        self.stage = Stage::new(self.round.check, range, leniency);
    }

    /// What a person must mend or accept: the first findings in words, and how many more there are.
    pub fn into_findings(self, namespace: &Namespace) -> Vec<Finding> {
        let Findings { mut kept, more } = self.findings;
        if more > 0 {
            kept.push(Finding { namespace: namespace.clone(), text: format!("has {more} more findings like these") });
        }
        kept
    }
}

impl Stage {
    fn new(check: Check, range: Option<&Range>, leniency: Leniency) -> Self {
        if check.against == Against::Proofs && !leniency.had_documents {
            return Stage::Summing { after: Position::Start, documents: 0, digest: Digest::default() };
        }
        let from = range.map_or(Bound::Unbounded, |range| range.lower.clone());
        Stage::Matching { shard: 0, from, missing: None, suspects: Suspects::default() }
    }
}

impl Tally {
    /// What a person should know, in sentences.
    pub fn notes(&self, leniency: Leniency) -> Vec<String> {
        let Self { changed, unknown, miscounted, foreign, expired } = self;
        let mut notes = Vec::new();
        if *changed > 0 {
            notes.push(format!(
                "{changed} documents are on the target as they were acknowledged, and have changed on the source since; a stream from the checkpoint brings that"
            ));
        }
        if *unknown > 0 {
            notes.push(format!(
                "{unknown} documents differ, and do not add up to what the target lacks of what it has acknowledged: some may have changed on the source since, which a stream from the checkpoint brings"
            ));
        }
        if *miscounted > 0
            && let Some(loss) = leniency.target_loses
        {
            notes.push(format!("does not have what was acknowledged: {}", loss.text()));
        } else if *miscounted > 0 {
            notes.push(format!(
                "every document is equal on both sides, but {miscounted} ranges do not add up to what the proofs say: a document was counted twice or changed on both sides"
            ));
        }
        if *foreign > 0 {
            notes.push(format!("{foreign} documents are on the target alone, which had documents before the copy"));
        }
        if *expired > 0 {
            let why = leniency.source_loses.or(leniency.target_loses).map_or("they were lost", Loss::text);
            notes.push(format!("{expired} documents are on one side alone: {why}"));
        }
        notes
    }
}

/// A comparison goes on and never back, within a round.
///
/// # Errors
/// [`Broken`] names the rule.
pub fn comparisons_never_retreat(old: &Comparison, new: &Comparison) -> Result<(), Broken> {
    if old.round == new.round && (new.ranges < old.ranges || new.documents < old.documents) {
        return Err(Broken("comparisons_never_retreat: fewer documents of the same round"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use bson::{RawBsonRef, rawdoc};

    const FULL: Round = Round { number: 0, check: Check { verify: Verify::Full, against: Against::Proofs } };
    const EXPIRES: Leniency =
        Leniency { had_documents: false, source_loses: Some(Loss::Age), target_loses: Some(Loss::Age) };
    const HELD: Leniency = Leniency { target_loses: None, ..EXPIRES };
    const KEPT: Leniency = Leniency { had_documents: true, source_loses: None, target_loses: None };

    fn namespace() -> Namespace {
        Namespace::new("shop", "orders")
    }

    fn missing_document() -> Suspect {
        let key = Key::from_value(RawBsonRef::Int32(1));
        Suspect::new(&key, Some(rawdoc! { "_id": 1 }.as_bytes()), None).unwrap()
    }

    fn extra_document() -> Suspect {
        let key = Key::from_value(RawBsonRef::Int32(2));
        Suspect::new(&key, None, Some(rawdoc! { "_id": 2 }.as_bytes())).unwrap()
    }

    fn judged(missing: Digest, suspects: &[Suspect], leniency: Leniency) -> Comparison {
        let mut comparison = Comparison::new(FULL, None, leniency);
        comparison.differs_by(missing, &Range::default());
        for suspect in suspects {
            comparison.suspect(suspect.clone(), leniency);
        }
        comparison.judge(&namespace());
        comparison
    }

    #[test]
    fn only_what_is_wrong_is_a_finding() {
        let (lost, extra) = (missing_document(), extra_document());
        let comparison = judged(lost.weight, &[lost.clone(), extra.clone()], Leniency::default());
        assert_eq!((comparison.findings.count(), comparison.tally.changed), (1, 1));
        let neither = judged(Digest::of(b"x"), &[lost.clone(), extra.clone()], Leniency::default());
        assert_eq!((neither.findings.count(), neither.tally.unknown), (2, 2));
        let equal = judged(Digest::of(b"x"), &[], Leniency::default());
        assert_eq!((equal.findings.count(), equal.tally.miscounted), (0, 1));
        let expired = judged(lost.weight, std::slice::from_ref(&lost), EXPIRES);
        assert_eq!((expired.findings.count(), expired.tally.expired), (0, 1));
        // What is held back on the target has not deleted it there.
        let held = judged(lost.weight, std::slice::from_ref(&lost), HELD);
        assert_eq!((held.findings.count(), held.tally.expired), (1, 0));
        let held = judged(extra.weight, std::slice::from_ref(&extra), HELD);
        assert_eq!((held.findings.count(), held.tally.expired), (0, 1));
        let kept = judged(Digest::of(b"x"), &[lost, extra], KEPT);
        assert_eq!((kept.findings.count(), kept.tally.foreign), (1, 1));
    }

    #[test]
    fn more_than_can_be_named_are_counted() {
        let suspects = vec![missing_document(); 30];
        let findings = judged(Digest::of(b"x"), &suspects, Leniency::default()).into_findings(&namespace());
        assert_eq!(findings.len(), 21);
        assert_eq!(findings[20].text, "has 10 more findings like these");
    }

    #[test]
    fn a_collection_that_had_documents_is_not_summed_up() {
        assert!(matches!(Comparison::new(FULL, None, KEPT).stage, Stage::Matching { missing: None, .. }));
        assert!(matches!(Comparison::new(FULL, None, EXPIRES).stage, Stage::Summing { .. }));
    }

    #[test]
    fn a_comparison_goes_on_and_never_back() {
        let at = |documents| Comparison { documents, ..Comparison::new(FULL, None, KEPT) };
        assert_eq!(comparisons_never_retreat(&at(1), &at(2)), Ok(()));
        assert!(comparisons_never_retreat(&at(2), &at(1)).is_err());
        let anew = Comparison { round: Round { number: 1, ..FULL }, ..at(0) };
        assert_eq!(comparisons_never_retreat(&at(2), &anew), Ok(()));
    }
}
