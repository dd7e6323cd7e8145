//! Documents that are not on the target although the source has them, each with what it takes to see why and to try
//! again.

use super::cursor::Key;
use super::finding::{Finding, KEPT_FINDINGS};
use super::namespace::Namespace;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bson::{Bson, RawDocument, RawDocumentBuf};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::{BTreeMap, HashSet};
use std::fmt;

/// Why a document is not on the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    /// Another document has its `_id`, which was not put there by this job.
    Taken,
    /// Another shard of the source has a document with its `_id` as well, which is on the target.
    Twice,
    /// Another document has its key in a unique index.
    Unique,
    /// The server does not take it for what is in it.
    Refused,
}

impl Cause {
    /// The word for it, the same in keys, in state and in what is printed.
    pub const fn word(self) -> &'static str {
        match self {
            Cause::Taken => "taken",
            Cause::Twice => "twice",
            Cause::Unique => "unique",
            Cause::Refused => "refused",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A document that is not on the target.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rejected {
    /// Its collection on the source.
    pub namespace: Namespace,
    /// The collection on the target.
    pub target: Namespace,
    /// Its `_id`.
    pub id: Key,
    /// Why.
    pub cause: Cause,
    /// The server's error code.
    pub code: i32,
    /// The server's reason.
    pub reason: String,
    /// How many bytes it has.
    pub size: u64,
    /// The document itself. None where only its `_id` is in the way: then nothing is wrong with its bytes, and there may
    /// be as many of them as documents on the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<Bytes>,
}

/// A document's bytes, base64 in state documents.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Bytes(Vec<u8>);

impl Bytes {
    /// Those of a document.
    pub fn of(document: &RawDocument) -> Self {
        Self(document.as_bytes().to_vec())
    }

    /// The document.
    pub fn document(&self) -> Option<RawDocumentBuf> {
        RawDocumentBuf::from_bytes(self.0.clone()).ok()
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Self).map_err(serde::de::Error::custom)
    }
}

impl Rejected {
    /// What a person reads of it, without its namespace.
    pub fn text(&self) -> String {
        let Self { id, code, reason, .. } = self;
        match (self.cause, violated(reason)) {
            (Cause::Taken, _) => format!("the target has another document with _id {id:?}, which was left as it is"),
            (Cause::Twice, _) => format!(
                "two shards of the source have a document with _id {id:?}; the target has that of the other one, and this one is kept in the state"
            ),
            (Cause::Unique, Some((index, key))) => {
                format!("the document with _id {id:?} is not unique in index {index} of the target: it has {key} there")
            }
            _ => format!("the target refused the document with _id {id:?}: {reason} (code {code})"),
        }
    }

    /// Its `_id` as canonical Extended JSON; as text where it holds what JSON cannot say (invalid UTF-8).
    pub fn id_as_json(&self) -> serde_json::Value {
        match self.id.value().map(Bson::try_from) {
            Some(Ok(value)) => value.into_canonical_extjson(),
            _ => serde_json::Value::String(format!("{:?}", self.id)),
        }
    }

    /// Which document it is.
    pub fn which(&self) -> (Namespace, Key) {
        (self.namespace.clone(), self.id.clone())
    }

    /// About how much it takes in a state document.
    fn weight(&self) -> usize {
        self.id.size() + self.reason.len() + self.document.as_ref().map_or(0, |document| document.0.len())
    }
}

/// The index and the key in a server's words: `E11000 duplicate key error collection: a.b index: email_1 dup key: { … }`.
fn violated(reason: &str) -> Option<(&str, &str)> {
    let (_, rest) = reason.split_once(" index: ")?;
    rest.split_once(" dup key: ")
}

/// How much one object holds, unless a single document is larger: what a store takes at once, and a reader holds.
pub const OBJECT_BYTES: usize = 1024 * 1024;

/// Cuts what was rejected into what goes into one object each: of one cause, in the order it came in.
pub fn objects(rejected: Vec<Rejected>) -> Vec<(Cause, Vec<Rejected>)> {
    let mut objects: Vec<(Cause, Vec<Rejected>)> = Vec::new();
    for cause in [Cause::Taken, Cause::Twice, Cause::Unique, Cause::Refused] {
        let mut size = OBJECT_BYTES;
        for one in rejected.iter().filter(|one| one.cause == cause) {
            size += one.weight();
            match objects.last_mut() {
                Some((last, object)) if *last == cause && size <= OBJECT_BYTES => object.push(one.clone()),
                _ => {
                    size = one.weight();
                    objects.push((cause, vec![one.clone()]));
                }
            }
        }
    }
    objects
}

/// What a person must mend or accept: of each collection the first ones in words, the others as a count.
pub fn findings(rejected: &[Rejected]) -> Vec<Finding> {
    let mut counts: BTreeMap<&Namespace, usize> = BTreeMap::new();
    let mut findings = Vec::new();
    for one in rejected {
        let count = counts.entry(&one.namespace).or_default();
        *count += 1;
        if *count <= KEPT_FINDINGS {
            findings.push(Finding { namespace: one.namespace.shown(), text: one.text() });
        }
    }
    for (namespace, count) in counts.into_iter().filter(|(_, count)| *count > KEPT_FINDINGS) {
        let text = format!("has {} more findings like these; `mongoferry rejected` lists all", count - KEPT_FINDINGS);
        findings.push(Finding { namespace: namespace.shown(), text });
    }
    findings
}

/// Each document once for each of its contents, in the order they are first met: one that was rejected again after a
/// crash lies in two objects. Those that are `settled` by now are left out.
pub fn distinct(rejected: impl IntoIterator<Item = Rejected>, settled: &HashSet<(Namespace, Key)>) -> Vec<Rejected> {
    let mut seen = HashSet::new();
    let left = rejected.into_iter().filter(|one| !settled.contains(&one.which()));
    left.filter(|one| seen.insert((one.which(), one.cause, one.document.clone()))).collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use bson::{RawBsonRef, rawdoc};
    use proptest::prelude::*;

    fn rejected(id: i32, cause: Cause, size: usize) -> Rejected {
        let document = rawdoc! { "_id": id, "text": "x".repeat(size) };
        Rejected {
            namespace: Namespace::new("a", "b"),
            target: Namespace::new("c", "d"),
            id: Key::from_value(RawBsonRef::Int32(id)),
            cause,
            code: 11000,
            reason: "E11000 duplicate key error collection: c.d index: mail_1 dup key: { mail: \"x\" }".into(),
            size: document.as_bytes().len() as u64,
            document: (cause != Cause::Taken).then(|| Bytes::of(&document)),
        }
    }

    proptest! {
        #[test]
        fn objects_hold_everything_once_and_are_bounded(
            sizes in proptest::collection::vec((0..400_000_usize, 0..3_usize), 0..20)
        ) {
            let cause = |number: usize| [Cause::Taken, Cause::Unique, Cause::Refused][number];
            let all: Vec<Rejected> =
                sizes.iter().enumerate().map(|(id, (size, number))| rejected(id as i32, cause(*number), *size)).collect();
            let objects = objects(all.clone());
            for (cause, object) in &objects {
                prop_assert!(object.iter().all(|one| one.cause == *cause));
                let weight: usize = object.iter().map(Rejected::weight).sum();
                prop_assert!(!object.is_empty() && (weight <= OBJECT_BYTES || object.len() == 1));
            }
            let mut ids: Vec<i32> = objects
                .iter()
                .flat_map(|(_, object)| object)
                .map(|one| one.id.value().unwrap().as_i32().unwrap())
                .collect();
            ids.sort_unstable();
            prop_assert_eq!(ids, (0..all.len() as i32).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_document_larger_than_an_object_has_one_of_its_own() {
        let all = vec![
            rejected(1, Cause::Refused, 10),
            rejected(2, Cause::Refused, 2_000_000),
            rejected(3, Cause::Refused, 10),
        ];
        let sizes: Vec<usize> = objects(all).iter().map(|(_, object)| object.len()).collect();
        assert_eq!(sizes, [1, 1, 1]);
    }

    #[test]
    fn what_was_rejected_twice_shows_once_and_what_is_settled_not_at_all() {
        let (one, same) = (rejected(1, Cause::Refused, 10), rejected(1, Cause::Refused, 10));
        let (changed, settled) = (rejected(1, Cause::Refused, 20), rejected(2, Cause::Refused, 10));
        let all = [one.clone(), same, changed.clone(), settled.clone()];
        assert_eq!(distinct(all, &HashSet::from([settled.which()])), [one, changed]);
    }

    #[test]
    fn a_person_reads_which_index_and_which_key() {
        let unique = rejected(1, Cause::Unique, 1).text();
        assert!(unique.contains("index mail_1") && unique.contains("{ mail: \"x\" }"), "{unique}");
        let back: Rejected =
            serde_json::from_value(serde_json::to_value(rejected(1, Cause::Refused, 9)).unwrap()).unwrap();
        assert_eq!(back, rejected(1, Cause::Refused, 9));
    }
}
