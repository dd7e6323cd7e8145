//! Writing documents to the target as the bytes they are, each write acknowledged by a majority.

pub use super::answer::{Answer, Refusal};
use super::deployment::Deployment;
use super::writers::Writers;
use super::{WTIMEOUT_MS, catalog};
use crate::crash;
use crate::model::cursor::Key;
use crate::model::namespace::Namespace;
use bson::{Bson, RawBsonRef, RawDocument, RawDocumentBuf, rawdoc};
use mongodb::error::Error as DriverError;

/// Documents as the bytes they are, one after the other.
#[derive(Debug, Clone, Default)]
pub struct Documents {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Documents {
    /// Adds one at the end.
    pub fn push(&mut self, document: &RawDocument) {
        self.bytes.extend_from_slice(document.as_bytes());
        self.ends.push(self.bytes.len());
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Their size in bytes.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// The one at this place, from 0.
    pub fn get(&self, index: usize) -> Option<&RawDocument> {
        let end = *self.ends.get(index)?;
        let start = if index == 0 { 0 } else { *self.ends.get(index - 1)? };
        RawDocument::from_bytes(self.bytes.get(start..end)?).ok()
    }

    /// Those at these places.
    #[must_use]
    pub fn pick(&self, places: &[usize]) -> Self {
        let mut picked = Self::default();
        places.iter().filter_map(|place| self.get(*place)).for_each(|document| picked.push(document));
        picked
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &RawDocument> {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    /// Their bytes, one document behind the other.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Appends them to a command as the array `documents`. Put together by hand, since the array's elements are bytes
    /// that need no encoding.
    pub(super) fn append_to(&self, command: RawDocumentBuf) -> Result<RawDocumentBuf, bson::error::Error> {
        let mut bytes = command.into_bytes();
        bytes.pop();
        bytes.reserve(self.bytes.len() + self.len() * 8 + 32);
        bytes.push(ARRAY);
        bytes.extend_from_slice(b"documents\0");
        let array_start = bytes.len();
        bytes.extend_from_slice(&[0; 4]);
        let mut start = 0;
        for (index, end) in self.ends.iter().enumerate() {
            bytes.push(EMBEDDED_DOCUMENT);
            bytes.extend_from_slice(index.to_string().as_bytes());
            bytes.push(0);
            bytes.extend_from_slice(&self.bytes[start..*end]);
            start = *end;
        }
        bytes.push(0);
        set_length(&mut bytes, array_start);
        bytes.push(0);
        set_length(&mut bytes, 0);
        RawDocumentBuf::from_bytes(bytes)
    }
}

/// BSON's type bytes (<https://bsonspec.org/spec.html>).
const EMBEDDED_DOCUMENT: u8 = 0x03;
const ARRAY: u8 = 0x04;

/// Writes the length of the document that begins at `start` and ends with the buffer.
fn set_length(bytes: &mut [u8], start: usize) {
    let length = (bytes.len() - start) as i32;
    bytes[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

/// Inserts documents in any order; goes on after those that are refused.
///
/// # Errors
/// The driver's: nobody knows then what became of it.
pub async fn insert(
    writers: &Writers,
    namespace: &Namespace,
    uuid: &str,
    documents: &Documents,
) -> Result<Answer, DriverError> {
    let mut command = rawdoc! {
        "insert": namespace.collection(),
        "ordered": false,
        "bypassDocumentValidation": true,
    };
    complete(writers, uuid, &mut command);
    append_bypass(writers.target(), &mut command);
    crash::around("insert", writers.write(namespace.db(), command, documents)).await
}

/// Replaces the document with this `_id`, if it is there, by another one with the same `_id`.
///
/// # Errors
/// The driver's: nobody knows then what became of it.
pub async fn replace(
    writers: &Writers,
    namespace: &Namespace,
    uuid: &str,
    key: &Key,
    document: &RawDocument,
) -> Result<Answer, DriverError> {
    let mut command = rawdoc! {
        "update": namespace.collection(),
        "updates": [{ "q": by_id(key), "u": RawBsonRef::Document(document), "multi": false, "upsert": false }],
        "bypassDocumentValidation": true,
    };
    complete(writers, uuid, &mut command);
    append_bypass(writers.target(), &mut command);
    crash::around("replace", writers.write(namespace.db(), command, &Documents::default())).await
}

/// Deletes the document with this `_id`, if it is there.
///
/// # Errors
/// The driver's: nobody knows then what became of it.
pub async fn delete(writers: &Writers, namespace: &Namespace, uuid: &str, key: &Key) -> Result<Answer, DriverError> {
    let mut command = rawdoc! {
        "delete": namespace.collection(),
        "deletes": [{ "q": by_id(key), "limit": 1 }],
    };
    complete(writers, uuid, &mut command);
    crash::around("delete", writers.write(namespace.db(), command, &Documents::default())).await
}

/// `{_id: {$eq: key}}`: `$eq` since a value may be a document whose first field begins with `$`.
fn by_id(key: &Key) -> RawDocumentBuf {
    rawdoc! { "_id": key.named("$eq") }
}

/// Lets `Timestamp(0, 0)` stay what it is, where the server can be told so.
fn append_bypass(target: &Deployment, command: &mut RawDocumentBuf) {
    if target.keeps_empty_timestamps() {
        command.append(bson::cstr!("bypassEmptyTsReplacement"), true);
    }
}

/// Adds to a write command what all have: a majority has to have it, a DBA sees who writes, and the server refuses (361)
/// when the name means another collection by now (6.0).
pub(super) fn complete(writers: &Writers, uuid: &str, command: &mut RawDocumentBuf) {
    let target = writers.target();
    command.append(bson::cstr!("writeConcern"), rawdoc! { "w": "majority", "wtimeout": WTIMEOUT_MS });
    command.append(bson::cstr!("comment"), target.comment().0.as_str());
    if target.takes_collection_uuid()
        && let Some(Bson::Binary(binary)) = catalog::uuid_binary(uuid)
    {
        command.append(bson::cstr!("collectionUUID"), binary);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn documents_are_appended_as_the_bytes_they_are() {
        let first = rawdoc! { "_id": 1, "text": "é" };
        let second = rawdoc! { "_id": f64::from_bits(0x7ff8_0000_0000_0001) };
        let mut documents = Documents::default();
        documents.push(&first);
        documents.push(&second);
        let command = documents.append_to(rawdoc! { "insert": "c" }).unwrap();
        let array = command.get_array("documents").unwrap();
        let back: Vec<&[u8]> =
            array.into_iter().map(|value| value.unwrap().as_document().unwrap().as_bytes()).collect();
        assert_eq!(back, [first.as_bytes(), second.as_bytes()]);
        assert_eq!(documents.iter().map(RawDocument::as_bytes).collect::<Vec<_>>(), back);
    }
}
