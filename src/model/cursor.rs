//! How far a partition is: at the end of the longest run of acknowledged batches from its start.
//!
//! Several batches are in flight at once and are acknowledged in any order. A cursor covers only a *contiguous prefix*
//! of acknowledged batches: what is beyond a gap is read and sent again after a crash, what is before it never.

use super::counts::Counts;
use super::element::{Element, elements, kind};
use super::record::RecordPosition;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bson::{RawBsonRef, RawDocument, RawDocumentBuf};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;

/// An `_id` as the bytes it is: the document `{"": <value>}`, any BSON type, NaN payloads, invalid UTF-8 and all.
///
/// In state documents it is base64: Extended JSON cannot carry invalid UTF-8 or NaN payloads.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Key(Vec<u8>);

impl Key {
    /// The key of a document, `None` when it has no `_id`.
    pub fn of(document: &RawDocument) -> Option<Self> {
        elements(document.as_bytes()).find(|element| element.name == b"_id").map(Self::from_element)
    }

    /// The key with an element's value.
    fn from_element(element: Element<'_>) -> Self {
        Self(single(element.kind, b"", element.value))
    }

    /// The key with this value.
    pub fn from_value(value: RawBsonRef<'_>) -> Self {
        let mut wrapper = RawDocumentBuf::new();
        wrapper.append(bson::cstr!(""), value);
        Self(wrapper.into_bytes())
    }

    /// The document that has it in a field of this name.
    pub fn named(&self, name: &str) -> RawDocumentBuf {
        let Element { kind, value, .. } = self.element();
        RawDocumentBuf::from_bytes(single(kind, name.as_bytes(), value)).expect("has the length that it says")
    }

    /// Its value, none where it holds text that is no UTF-8: for showing it, not for deciding anything.
    pub fn value(&self) -> Option<RawBsonRef<'_>> {
        let (_, value) = self.document().iter().next()?.ok()?;
        Some(value)
    }

    /// The document with it in a field without a name.
    pub fn document(&self) -> &RawDocument {
        RawDocument::from_bytes(&self.0).expect("only made from a document's bytes")
    }

    /// Whether it is MinKey, the first of all.
    pub fn is_min(&self) -> bool {
        self.element().kind == kind::MIN_KEY
    }

    /// Whether it is MaxKey, the last of all.
    pub fn is_max(&self) -> bool {
        self.element().kind == kind::MAX_KEY
    }

    /// How many bytes it takes.
    pub fn size(&self) -> usize {
        self.0.len()
    }

    fn element(&self) -> Element<'_> {
        elements(&self.0).next().expect("only made with one element")
    }
}

/// The bytes of a document with one element.
fn single(kind: u8, name: &[u8], value: &[u8]) -> Vec<u8> {
    let length = 4 + 1 + name.len() + 1 + value.len() + 1;
    let mut bytes = Vec::with_capacity(length);
    bytes.extend_from_slice(&(length as u32).to_le_bytes());
    bytes.push(kind);
    bytes.extend_from_slice(name);
    bytes.push(0);
    bytes.extend_from_slice(value);
    bytes.push(0);
    bytes
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.value() {
            Some(value) => write!(f, "{value:?}"),
            None => write!(f, "{}", String::from_utf8_lossy(self.element().value).escape_debug()),
        }
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD.decode(text).map_err(D::Error::custom)?;
        RawDocument::from_bytes(&bytes).map_err(D::Error::custom)?;
        match elements(&bytes).next() {
            Some(element) if single(element.kind, b"", element.value) == bytes => Ok(Self(bytes)),
            _ => Err(D::Error::custom("a key must hold one value")),
        }
    }
}

/// A position in the order in which a partition is read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Position {
    /// Before its first document.
    #[default]
    Start,
    /// After the document with this `_id`, in `_id` order.
    After(Key),
    /// After this record, in the order of a node's disk.
    Record(RecordPosition),
}

impl Position {
    /// The key that it is after, none at the start and in the order of the disk.
    pub fn key(&self) -> Option<&Key> {
        match self {
            Position::Start | Position::Record(_) => None,
            Position::After(key) => Some(key),
        }
    }

    /// The record that it is after, none at the start and in `_id` order.
    pub fn record(&self) -> Option<&RecordPosition> {
        match self {
            Position::Start | Position::After(_) => None,
            Position::Record(record) => Some(record),
        }
    }
}

/// A batch's place among the batches of its partition in this run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchNumber(u64);

/// What an acknowledged batch adds to its partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledged<F> {
    /// Where its last document is; none when a place to go on from comes with a later batch only: a server gives one for
    /// each reply, and a large reply is several batches.
    pub position: Option<Position>,
    /// What it moved.
    pub counts: Counts,
    /// What a person must know about it.
    pub findings: Vec<F>,
}

/// Turns acknowledgements in any order into a cursor that only covers what has no gap before it.
#[derive(Debug)]
pub struct Tracker<F> {
    next: u64,
    covered: u64,
    waiting: BTreeMap<u64, Acknowledged<F>>,
    /// What is covered without a gap, but for a place to go on from.
    unplaced: Option<(Counts, Vec<F>)>,
}

/// What a cursor covers in addition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Covered<F> {
    /// To where.
    pub position: Position,
    /// What was moved up to there.
    pub counts: Counts,
    /// What a person must know about it.
    pub findings: Vec<F>,
}

impl<F> Default for Tracker<F> {
    fn default() -> Self {
        Self { next: 0, covered: 0, waiting: BTreeMap::new(), unplaced: None }
    }
}

impl<F> Tracker<F> {
    /// A number for the batch that is sent next. Batches are numbered in reading order.
    pub fn sending(&mut self) -> BatchNumber {
        self.next += 1;
        BatchNumber(self.next - 1)
    }

    /// Takes an acknowledgement; returns what the cursor now covers in addition, in reading order.
    pub fn acknowledged(&mut self, batch: BatchNumber, what: Acknowledged<F>) -> Vec<Covered<F>> {
        debug_assert!(batch.0 >= self.covered && batch.0 < self.next, "acknowledged twice, or never sent");
        self.waiting.insert(batch.0, what);
        let mut ready = Vec::new();
        while let Some(what) = self.waiting.remove(&self.covered) {
            self.covered += 1;
            let (mut counts, mut findings) = self.unplaced.take().unwrap_or_default();
            counts += what.counts;
            findings.extend(what.findings);
            match what.position {
                Some(position) => ready.push(Covered { position, counts, findings }),
                None => self.unplaced = Some((counts, findings)),
            }
        }
        ready
    }

    /// Whether all that is covered has a place to go on from behind it.
    pub fn is_placed(&self) -> bool {
        self.unplaced.is_none()
    }

    /// How many batches were sent and are not covered.
    pub fn outstanding(&self) -> u64 {
        self.next - self.covered
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use proptest::prelude::*;

    fn key(number: i64) -> Key {
        Key::from_value(RawBsonRef::Int64(number))
    }

    proptest! {
        #[test]
        fn whatever_the_order_of_acknowledgements_a_prefix_is_covered_and_never_more(
            (order, placed) in (1..40usize).prop_flat_map(|n| (
                Just((0..n).collect::<Vec<_>>()).prop_shuffle(),
                proptest::collection::vec(any::<bool>(), n),
            ))
        ) {
            let mut tracker: Tracker<usize> = Tracker::default();
            let numbers: Vec<_> = order.iter().map(|_| tracker.sending()).collect();
            let mut acknowledged = vec![false; order.len()];
            let (mut covered, mut read, mut found) = (0usize, 0, Vec::new());
            for &index in &order {
                acknowledged[index] = true;
                let what = Acknowledged {
                    position: placed[index].then(|| Position::After(key(index as i64))),
                    counts: Counts { read: 1, ..Counts::default() },
                    findings: vec![index],
                };
                for part in tracker.acknowledged(numbers[index], what) {
                    read += part.counts.read as usize;
                    found.extend(part.findings);
                    covered = read;
                    prop_assert_eq!(part.position, Position::After(key(covered as i64 - 1)));
                }
                let prefix = acknowledged.iter().take_while(|done| **done).count();
                let last_placed = (0..prefix).rev().find(|index| placed[*index]).map_or(0, |index| index + 1);
                prop_assert_eq!(covered, last_placed);
                prop_assert_eq!(tracker.outstanding() as usize, order.len() - prefix);
            }
            prop_assert_eq!(found, (0..covered).collect::<Vec<_>>());
            prop_assert_eq!(tracker.outstanding(), 0);
        }
    }

    #[test]
    fn a_key_survives_json_whatever_its_bytes() {
        let nan = f64::from_bits(0x7ff8_dead_beef_0001);
        for value in [RawBsonRef::Double(nan), RawBsonRef::MinKey, RawBsonRef::Null, RawBsonRef::String("é")] {
            let key = Key::from_value(value);
            let back: Key = serde_json::from_str(&serde_json::to_string(&key).unwrap()).unwrap();
            assert_eq!(key, back);
        }
        assert!(serde_json::from_str::<Key>("\"AAAA\"").is_err());
    }
}
