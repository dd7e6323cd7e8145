//! Inserting documents by another command than `insert`, for the one thing that it cannot do on most servers.
//!
//! `insert` replaces `Timestamp(0, 0)` at the top level with the present time, as a replacement does. A pipeline's result is
//! stored as it is, so an upsert whose filter matches nothing inserts the document byte by byte, whatever its fields are
//! called, and however often. It is one write, in the oplog an insert, and refused as one when the `_id` is taken: unlike an
//! insert that is mended with `$set` afterwards there is no moment in which something else is there.

use super::answer::Answer;
use super::documents::Documents;
use super::write::{append_collation, complete};
use super::writers::Writers;
use crate::crash;
use crate::model::cursor::Key;
use crate::model::locator::Locator;
use crate::model::namespace::Namespace;
use bson::{RawArrayBuf, RawDocument, RawDocumentBuf, rawdoc};
use mongodb::error::Error as DriverError;

/// Inserts documents as [`super::write::insert`] does, but keeps `Timestamp(0, 0)`.
///
/// # Errors
/// The driver's: nobody knows then what became of it.
pub async fn insert(
    writers: &Writers,
    namespace: &Namespace,
    uuid: &str,
    locator: &Locator,
    documents: &Documents,
    in_order: bool,
) -> Result<Answer, DriverError> {
    let mut updates = RawArrayBuf::new();
    for document in documents.iter() {
        updates.push(update(locator, document).map_err(DriverError::custom)?);
    }
    let mut command = rawdoc! {
        "update": namespace.collection(),
        "updates": updates,
        "ordered": in_order,
        "bypassDocumentValidation": true,
    };
    complete(writers, uuid, &mut command);
    crash::around("insert", writers.write(namespace.db(), command, &Documents::default())).await
}

/// How many bytes of a command a document takes beside its own, without what it is found by.
pub const OVERHEAD: usize = 128;

fn update(locator: &Locator, document: &RawDocument) -> Result<RawDocumentBuf, String> {
    let key = Key::of(document).ok_or("a document without _id")?;
    let located = locator.of(&key, document).map_err(|why| why.to_string())?;
    // What a server inserts must have the `_id` and shard key that the filter asks for; `$nor` of everything matches
    // nothing.
    let mut query = located.query.clone();
    query.append(bson::cstr!("$nor"), [rawdoc! {}].into_iter().collect::<RawArrayBuf>());
    let mut update = rawdoc! {
        "q": query,
        "u": [{ "$replaceWith": { "$literal": document.to_owned() } }],
        "upsert": true,
        "multi": false,
    };
    append_collation(&located, &mut update);
    Ok(update)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn an_upsert_takes_no_more_than_is_reckoned_with() {
        let document = rawdoc! { "_id": "a key", "a": 1 };
        let key = Key::of(&document).unwrap();
        let size = update(&Locator::default(), &document).unwrap().as_bytes().len();
        assert!(size <= document.as_bytes().len() + key.size() + OVERHEAD, "{size}");
    }
}
