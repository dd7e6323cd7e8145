//! Documents that are not the same on source and target, and which of them are errors of the copy.
//!
//! The source goes on changing after a document was copied, so that a document differs is not yet an error, and the
//! document alone does not tell. The sums do: the proofs' digest is that of what the target has acknowledged, and what
//! the target has now is summed up the same way. What is *missing* in the target's sum must come from the documents
//! that are wrong: of each of them, the digest of what was acknowledged less that of what is there now. Where the source
//! still has what was acknowledged, that is a document's *weight*. So those whose weights add up to what is missing are
//! wrong, and the others have changed on the source since.

use super::cursor::Key;
use super::difference;
use super::digest::Digest;
use super::finding::KEPT_FINDINGS;
use serde::{Deserialize, Serialize};

/// How a document differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fault {
    /// The source has it, the target has not.
    Missing,
    /// The target has it, the source has not.
    Extra,
    /// Both have it, with other bytes.
    Different,
}

/// A document that is not the same on both sides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspect {
    /// Its `_id`.
    pub key: Key,
    /// How it differs.
    pub fault: Fault,
    /// The same in words, for a finding.
    pub text: String,
    /// The digest of what the source has, less that of what the target has.
    pub weight: Digest,
}

impl Suspect {
    /// The document with this key as both sides have it; none where they have the same.
    pub fn new(key: &Key, source: Option<&[u8]>, target: Option<&[u8]>) -> Option<Self> {
        let (fault, text) = match (source, target) {
            (None, None) => return None,
            (Some(_), None) => (Fault::Missing, format!("the document with _id {key:?} is missing on the target")),
            (None, Some(_)) => {
                (Fault::Extra, format!("the document with _id {key:?} is on the target and not on the source"))
            }
            (Some(source), Some(target)) => {
                let difference = difference::first(source, target)?;
                (Fault::Different, format!("the document with _id {key:?} differs {difference}"))
            }
        };
        let digest = |document: Option<&[u8]>| document.map_or_else(Digest::default, Digest::of);
        Some(Self { key: key.clone(), fault, text, weight: digest(source) - digest(target) })
    }
}

/// The documents of one range that are suspect: the first ones in words, the others as a count.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Suspects {
    /// The first ones.
    pub kept: Vec<Suspect>,
    /// How many more there are.
    pub more: u64,
    /// What all of them weigh.
    pub weight: Digest,
    /// The one that alone weighs what is missing, wherever it came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alone: Option<Box<Suspect>>,
}

/// Which of the suspects are wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// All of them.
    All,
    /// These; the others have changed on the source since they were copied.
    These(Vec<Suspect>),
    /// The sums do not tell.
    Unknown,
}

impl Suspects {
    /// Adds one. `missing` is what the target's sum lacks, where that is known.
    pub fn add(&mut self, suspect: Suspect, missing: Option<Digest>) {
        self.weight += suspect.weight;
        if Some(suspect.weight) == missing {
            self.alone = Some(Box::new(suspect.clone()));
        }
        if self.kept.len() < KEPT_FINDINGS { self.kept.push(suspect) } else { self.more += 1 }
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.kept.len() as u64 + self.more
    }

    /// Which of them account for what the target's sum lacks.
    pub fn verdict(&self, missing: Digest) -> Verdict {
        if self.weight == missing {
            return Verdict::All;
        }
        if let Some(alone) = &self.alone {
            return Verdict::These(vec![Suspect::clone(alone)]);
        }
        if self.more > 0 {
            return Verdict::Unknown;
        }
        let weights: Vec<Digest> = self.kept.iter().map(|suspect| suspect.weight).collect();
        match subset(&weights, missing) {
            None => Verdict::Unknown,
            Some(chosen) => {
                let wrong = self.kept.iter().enumerate().filter(|(place, _)| chosen >> place & 1 == 1);
                Verdict::These(wrong.map(|(_, suspect)| suspect.clone()).collect())
            }
        }
    }
}

/// Which of the weights, at most [`KEPT_FINDINGS`], add up to a sum: a bit for each. All subsets are tried, each a step
/// from the one before it (a Gray code); that another subset than the true one adds up to the same 256 bits does not
/// happen by accident.
fn subset(weights: &[Digest], sum: Digest) -> Option<u32> {
    let mut chosen = 0_u32;
    let mut total = Digest::default();
    for step in 1..1_u32 << weights.len().min(KEPT_FINDINGS) {
        let place = step.trailing_zeros();
        chosen ^= 1 << place;
        let weight = weights[place as usize];
        if chosen >> place & 1 == 1 {
            total += weight
        } else {
            total -= weight
        }
        if total == sum {
            return Some(chosen);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use bson::{RawBsonRef, RawDocumentBuf, rawdoc};
    use proptest::prelude::*;

    fn document(id: i32, content: i32) -> RawDocumentBuf {
        rawdoc! { "_id": id, "content": content }
    }

    /// A document that was copied as it was, and what became of it on either side: changed, gone, or neither.
    #[derive(Debug, Clone, Copy)]
    enum Fate {
        ChangedOnTheSource,
        DeletedOnTheSource,
        InsertedOnTheSource,
        DamagedOnTheTarget,
        LostOnTheTarget,
        AddedOnTheTarget,
    }

    impl Fate {
        fn is_wrong(self) -> bool {
            matches!(self, Fate::DamagedOnTheTarget | Fate::LostOnTheTarget | Fate::AddedOnTheTarget)
        }

        /// What was acknowledged, what the source has now, what the target has now.
        fn documents(self, id: i32) -> [Option<RawDocumentBuf>; 3] {
            let [old, new] = [Some(document(id, 0)), Some(document(id, 1))];
            match self {
                Fate::ChangedOnTheSource => [old.clone(), new, old],
                Fate::DeletedOnTheSource => [old.clone(), None, old],
                Fate::InsertedOnTheSource => [None, new, None],
                Fate::DamagedOnTheTarget => [old.clone(), old, new],
                Fate::LostOnTheTarget => [old.clone(), old, None],
                Fate::AddedOnTheTarget => [None, None, new],
            }
        }
    }

    fn fate() -> impl Strategy<Value = Fate> {
        proptest::sample::select(vec![
            Fate::ChangedOnTheSource,
            Fate::DeletedOnTheSource,
            Fate::InsertedOnTheSource,
            Fate::DamagedOnTheTarget,
            Fate::LostOnTheTarget,
            Fate::AddedOnTheTarget,
        ])
    }

    fn of(fates: &[Fate]) -> (Suspects, Digest) {
        let digest = |document: &Option<RawDocumentBuf>| {
            document.as_ref().map_or_else(Digest::default, |document| Digest::of(document.as_bytes()))
        };
        let all: Vec<_> = (0..).zip(fates).map(|(id, fate)| (id, fate.documents(id))).collect();
        let missing = all
            .iter()
            .fold(Digest::default(), |sum, (_, [acknowledged, _, target])| sum + digest(acknowledged) - digest(target));
        let mut suspects = Suspects::default();
        for (id, [_, source, target]) in &all {
            let bytes =
                |document: &'_ Option<RawDocumentBuf>| document.as_ref().map(|document| document.as_bytes().to_vec());
            let key = Key::from_value(RawBsonRef::Int32(*id));
            let suspect = Suspect::new(&key, bytes(source).as_deref(), bytes(target).as_deref()).unwrap();
            suspects.add(suspect, Some(missing));
        }
        (suspects, missing)
    }

    fn wrong(suspects: &Suspects, missing: Digest) -> Vec<i32> {
        let of = |suspects: &[Suspect]| suspects.iter().filter_map(|suspect| suspect.key.value()?.as_i32()).collect();
        match suspects.verdict(missing) {
            Verdict::All => of(&suspects.kept),
            Verdict::These(these) => of(&these),
            Verdict::Unknown => panic!("the sums tell"),
        }
    }

    proptest! {
        #[test]
        fn what_is_wrong_is_told_from_what_changed_on_the_source(fates in proptest::collection::vec(fate(), 1..12)) {
            let expected: Vec<i32> = (0..).zip(&fates).filter(|(_, fate)| fate.is_wrong()).map(|(id, _)| id).collect();
            // Where nothing is wrong the sums are equal, and nobody is suspected.
            prop_assume!(!expected.is_empty());
            let (suspects, missing) = of(&fates);
            prop_assert_eq!(wrong(&suspects, missing), expected);
        }
    }

    #[test]
    fn one_that_is_wrong_is_told_from_any_number_that_changed() {
        let mut fates = vec![Fate::ChangedOnTheSource; 200];
        fates.push(Fate::LostOnTheTarget);
        let (suspects, missing) = of(&fates);
        assert_eq!(suspects.count(), 201);
        assert_eq!(wrong(&suspects, missing), [200]);
    }

    #[test]
    fn where_a_wrong_document_has_changed_on_the_source_as_well_the_sums_do_not_tell() {
        let (mut suspects, missing) = of(&[Fate::ChangedOnTheSource]);
        let key = Key::from_value(RawBsonRef::Int32(9));
        let both = Suspect::new(&key, Some(document(9, 1).as_bytes()), Some(document(9, 2).as_bytes())).unwrap();
        suspects.add(both, None);
        let acknowledged = Digest::of(document(9, 0).as_bytes()) - Digest::of(document(9, 2).as_bytes());
        assert_eq!(suspects.verdict(missing + acknowledged), Verdict::Unknown);
    }

    #[test]
    fn a_suspect_says_what_is_wrong_with_it() {
        let key = Key::from_value(RawBsonRef::Int32(1));
        let text =
            |source: Option<&[u8]>, target: Option<&[u8]>| Suspect::new(&key, source, target).map(|one| one.text);
        let (one, other) = (document(1, 1), document(1, 2));
        let (one, other) = (Some(one.as_bytes()), Some(other.as_bytes()));
        assert_eq!(text(one, one), None);
        assert!(text(one, None).unwrap().ends_with("is missing on the target"));
        assert!(text(None, one).unwrap().ends_with("is on the target and not on the source"));
        assert!(text(one, other).unwrap().ends_with("differs at content: source 1, target 2"));
    }
}
