//! Inserting documents by another command than `insert`, for the one thing that it cannot do on most servers.
//!
//! `insert` replaces `Timestamp(0, 0)` at the top level with the present time, as a replacement does. A pipeline's result is
//! stored as it is, so an upsert whose filter matches nothing inserts the document byte by byte, whatever its fields are
//! called, and however often. It is one write, in the oplog an insert, and refused as one when the `_id` is taken: unlike an
//! insert that is mended with `$set` afterwards there is no moment in which something else is there.

use super::answer::Answer;
use super::documents::Documents;
use super::write::complete;
use super::writers::Writers;
use crate::crash;
use crate::model::cursor::Key;
use crate::model::namespace::Namespace;
use bson::{RawArrayBuf, RawDocument, RawDocumentBuf, rawdoc};
use mongodb::error::Error as DriverError;

/// Inserts documents in any order, as [`super::write::insert`], but keeps `Timestamp(0, 0)`.
///
/// # Errors
/// The driver's: nobody knows then what became of it.
pub async fn insert(
    writers: &Writers,
    namespace: &Namespace,
    uuid: &str,
    documents: &Documents,
) -> Result<Answer, DriverError> {
    let mut updates = RawArrayBuf::new();
    for document in documents.iter() {
        updates.push(update(document).ok_or_else(|| DriverError::custom("a document without _id"))?);
    }
    let mut command = rawdoc! {
        "update": namespace.collection(),
        "updates": updates,
        "ordered": false,
        "bypassDocumentValidation": true,
    };
    complete(writers, uuid, &mut command);
    crash::around("insert", writers.write(namespace.db(), command, &Documents::default())).await
}

/// How many bytes of a command a document takes beside its own, without its key.
pub const OVERHEAD: usize = 128;

fn update(document: &RawDocument) -> Option<RawDocumentBuf> {
    let key = Key::of(document)?;
    Some(rawdoc! {
        // What a server inserts must have the `_id` that the filter asks for; `$nor` of everything matches nothing.
        "q": { "_id": key.named("$eq"), "$nor": [{}] },
        "u": [{ "$replaceWith": { "$literal": document.to_owned() } }],
        "upsert": true,
        "multi": false,
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn an_upsert_takes_no_more_than_is_reckoned_with() {
        let document = rawdoc! { "_id": "a key", "a": 1 };
        let key = Key::of(&document).unwrap();
        let size = update(&document).unwrap().as_bytes().len();
        assert!(size <= document.as_bytes().len() + key.size() + OVERHEAD, "{size}");
    }
}
