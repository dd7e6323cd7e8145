//! Writing documents to the target as the bytes they are, each write acknowledged by a majority.

pub use super::answer::{Answer, Refusal};
use super::deployment::Deployment;
use super::documents::Documents;
use super::writers::Writers;
use super::{WTIMEOUT_MS, catalog};
use crate::crash;
use crate::model::locator::Located;
use crate::model::namespace::Namespace;
use bson::{Bson, RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf, rawdoc};
use mongodb::error::Error as DriverError;

/// Inserts documents: in any order, and goes on after those that are refused; or one after the other, and stops at the
/// first one that is refused.
///
/// # Errors
/// The driver's: nobody knows then what became of it.
pub async fn insert(
    writers: &Writers,
    namespace: &Namespace,
    uuid: &str,
    documents: &Documents,
    in_order: bool,
) -> Result<Answer, DriverError> {
    let mut command = rawdoc! {
        "insert": namespace.collection(),
        "ordered": in_order,
        "bypassDocumentValidation": true,
    };
    complete(writers, uuid, &mut command);
    append_bypass(writers.target(), &mut command);
    crash::around("insert", writers.write(namespace.db(), command, documents)).await
}

/// Replaces a document, if it is there, by another one with the same `_id` and shard key.
///
/// # Errors
/// The driver's: nobody knows then what became of it.
pub async fn replace(
    writers: &Writers,
    namespace: &Namespace,
    uuid: &str,
    located: &Located,
    document: &RawDocument,
) -> Result<Answer, DriverError> {
    let mut update = rawdoc! {
        "q": RawBsonRef::Document(&located.query),
        "u": RawBsonRef::Document(document),
        "multi": false,
        "upsert": false,
    };
    append_collation(located, &mut update);
    let mut command = rawdoc! {
        "update": namespace.collection(),
        "updates": [update],
        "bypassDocumentValidation": true,
    };
    complete(writers, uuid, &mut command);
    append_bypass(writers.target(), &mut command);
    crash::around("replace", writers.write(namespace.db(), command, &Documents::default())).await
}

/// Deletes documents, those of them that are there.
///
/// # Errors
/// The driver's: nobody knows then what became of it.
pub async fn delete(
    writers: &Writers,
    namespace: &Namespace,
    uuid: &str,
    located: &[Located],
) -> Result<Answer, DriverError> {
    let deletes = located.iter().map(|located| {
        let mut delete = rawdoc! { "q": RawBsonRef::Document(&located.query), "limit": 1 };
        append_collation(located, &mut delete);
        delete
    });
    let deletes: RawArrayBuf = deletes.collect();
    let mut command = rawdoc! { "delete": namespace.collection(), "deletes": deletes, "ordered": false };
    complete(writers, uuid, &mut command);
    crash::around("delete", writers.write(namespace.db(), command, &Documents::default())).await
}

pub(super) fn append_collation(located: &Located, statement: &mut RawDocumentBuf) {
    if located.names_simple_collation {
        statement.append(bson::cstr!("collation"), rawdoc! { "locale": "simple" });
    }
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
