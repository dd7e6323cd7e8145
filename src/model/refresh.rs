//! Documents that were brought to what the source has by then, after they were copied and counted: what became of each, so
//! that the target can still be held against the proofs.
//!
//! Each is written down *before* it is brought there. A run that is killed in between brings it to what the source has once
//! more, and what was counted at first stays what was counted at first.

use super::counts::Counts;
use super::cursor::Key;
use super::digest::Digest;
use serde::{Deserialize, Serialize};

/// How many documents of one collection can be brought so: they are kept in a state document.
pub const MOST: usize = 2_000;

/// A document's bytes, as far as proofs know them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Their digest.
    pub digest: Digest,
    /// How many they are.
    pub bytes: u64,
}

impl Version {
    /// Of a document with these bytes.
    pub fn of(document: &[u8]) -> Self {
        Self { digest: Digest::of(document), bytes: document.len() as u64 }
    }
}

/// A document that was brought to what the source has by then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refreshed {
    /// Its `_id`.
    pub id: Key,
    /// What was copied, and is in a proof.
    pub copied: Version,
    /// What took its place; none where the source has deleted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub now: Option<Version>,
}

/// Writes down that a document is brought from what it is to another version, or deleted.
pub fn note(refreshed: &mut Vec<Refreshed>, id: &Key, is: Version, now: Option<Version>) {
    match refreshed.iter_mut().find(|known| known.id == *id) {
        Some(known) => known.now = now,
        None => refreshed.push(Refreshed { id: id.clone(), copied: is, now }),
    }
}

/// What proofs have counted, as it has to be by now.
pub fn account<'a>(counts: &mut Counts, refreshed: impl IntoIterator<Item = &'a Refreshed>) {
    for Refreshed { copied, now, .. } in refreshed {
        let (digest, bytes) = now.map_or((Digest::default(), 0), |now| (now.digest, now.bytes));
        counts.digest = counts.digest.map(|sum| sum - copied.digest + digest);
        counts.written_bytes = counts.written_bytes.wrapping_sub(copied.bytes).wrapping_add(bytes);
        if now.is_none() {
            counts.written = counts.written.saturating_sub(1);
            counts.deleted += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::{RawBsonRef, rawdoc};

    #[test]
    fn what_counts_is_what_was_copied_first_and_what_is_there_last() {
        let documents =
            [rawdoc! { "_id": 1 }, rawdoc! { "_id": 2 }, rawdoc! { "_id": 1, "x": 1 }, rawdoc! { "_id": 1, "x": 2 }];
        let mut counts = Counts::default();
        documents[..2].iter().for_each(|document| counts.wrote(document.as_bytes()));
        let version = |number: usize| Version::of(documents[number].as_bytes());
        let key = |id: i32| Key::from_value(RawBsonRef::Int32(id));
        let mut refreshed = Vec::new();
        note(&mut refreshed, &key(1), version(0), Some(version(2)));
        // Killed before it was written: what the target still has is not what counts by now.
        note(&mut refreshed, &key(1), version(0), Some(version(3)));
        note(&mut refreshed, &key(2), version(1), None);
        account(&mut counts, &refreshed);
        let mut expected = Counts { deleted: 1, ..Counts::default() };
        expected.wrote(documents[3].as_bytes());
        assert_eq!(counts, expected);
    }
}
