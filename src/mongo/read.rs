//! Reading single documents and short ranges of them, on either side.

use super::checkpoint::{self, timestamp};
use super::deployment::Deployment;
use super::failure::is_empty_range;
use crate::model::cursor::Key;
use crate::model::document_filter::DocumentFilter;
use crate::model::element::kind;
use crate::model::job::Optime;
use crate::model::namespace::Namespace;
use crate::model::partition::{Bound, Range};
use bson::{RawBsonRef, RawDocument, RawDocumentBuf, rawdoc};
use mongodb::error::Error as DriverError;
use smallvec::SmallVec;
use std::collections::HashMap;

/// Documents with the same `_id`: more than one only where a collection is sharded by something else, since each shard has
/// an index of its own on `_id`.
pub type Versions = SmallVec<[RawDocumentBuf; 1]>;

/// Documents by `_id`.
pub type Found = HashMap<Key, Versions>;

/// How many documents a reply holds at most; the server itself ends it at 16 MiB.
const REPLY_DOCUMENTS: u32 = 5_000;

/// The read concern of what a majority has, not older than a time.
fn majority(not_before: Option<Optime>) -> RawDocumentBuf {
    let mut concern = rawdoc! { "level": "majority" };
    if let Some(time) = not_before {
        concern.append(bson::cstr!("afterClusterTime"), RawBsonRef::Timestamp(timestamp(time)));
    }
    concern
}

/// A time that is surely not older than what any member had shown before this was called.
async fn newest(
    deployment: &Deployment,
    not_before: Option<Optime>,
) -> std::result::Result<Option<Optime>, DriverError> {
    Ok(match not_before {
        None => None,
        Some(time) => Some(time.max(checkpoint::newest(deployment).await?)),
    })
}

/// The document that a deployment has under this `_id` now, majority-committed. With `not_before` it is surely not older
/// than that, nor than what any member had shown before this was called. What does not match the filter is not there.
///
/// # Errors
/// The driver's.
pub async fn document(
    deployment: &Deployment,
    namespace: &Namespace,
    filter: Option<&DocumentFilter>,
    key: &Key,
    not_before: Option<Optime>,
) -> std::result::Result<Option<RawDocumentBuf>, DriverError> {
    let wanted = rawdoc! { "_id": key.named("$eq") };
    let command = rawdoc! {
        "find": namespace.collection(),
        "filter": DocumentFilter::with(filter, wanted),
        "limit": 1,
        "readConcern": majority(newest(deployment, not_before).await?),
        "comment": deployment.comment().0.as_str(),
    };
    let mut found = None;
    let cursor = deployment.cursor(namespace.db(), command, REPLY_DOCUMENTS).await?;
    cursor.for_each(|document| found = Some(document.to_owned())).await?;
    Ok(found)
}

fn keep(found: &mut Found, document: &RawDocument) {
    if let Some(key) = Key::of(document) {
        found.entry(key).or_default().push(document.to_owned());
    }
}

/// How many `_id`s one `find` looks for at most.
const KEYS: usize = 1_000;

/// The documents with these `_id`s that match the filter, majority-committed, by `_id`.
///
/// # Errors
/// The driver's.
pub async fn documents_with(
    deployment: &Deployment,
    namespace: &Namespace,
    filter: Option<&DocumentFilter>,
    keys: &[Key],
    not_before: Option<Optime>,
) -> std::result::Result<Found, DriverError> {
    let mut found = Found::new();
    let not_before = newest(deployment, not_before).await?;
    let mut keys = keys;
    while !keys.is_empty() {
        let fitting = deployment.limits.fitting(keys.iter().take(KEYS).map(Key::size));
        let (these, rest) = keys.split_at(fitting);
        keys = rest;
        let command = rawdoc! {
            "find": namespace.collection(),
            "filter": DocumentFilter::with(filter, rawdoc! { "_id": one_of(these) }),
            "readConcern": majority(not_before),
            "comment": deployment.comment().0.as_str(),
        };
        let cursor = deployment.cursor(namespace.db(), command, REPLY_DOCUMENTS).await?;
        cursor.for_each(|document| keep(&mut found, document)).await?;
    }
    Ok(found)
}

/// Whether there is a document with any of these `_id`s, as many as one command takes ([`documents_with`]).
///
/// # Errors
/// The driver's.
pub async fn is_any(
    deployment: &Deployment,
    namespace: &Namespace,
    filter: Option<&DocumentFilter>,
    keys: &[Key],
    not_before: Option<Optime>,
) -> std::result::Result<bool, DriverError> {
    let command = rawdoc! {
        "find": namespace.collection(),
        "filter": DocumentFilter::with(filter, rawdoc! { "_id": one_of(keys) }),
        "projection": { "_id": 1 },
        "limit": 1,
        "readConcern": majority(newest(deployment, not_before).await?),
        "comment": deployment.comment().0.as_str(),
    };
    let mut is_any = false;
    let cursor = deployment.cursor(namespace.db(), command, REPLY_DOCUMENTS).await?;
    cursor.for_each(|_| is_any = true).await?;
    Ok(is_any)
}

/// `{$in: [keys]}`, put together by hand since a key may hold text that is no UTF-8.
fn one_of(keys: &[Key]) -> RawDocumentBuf {
    let mut elements = Vec::new();
    for (place, key) in keys.iter().enumerate() {
        let with_name = key.named(&place.to_string()).into_bytes();
        // Without the length before it and the NUL behind it.
        elements.extend_from_slice(&with_name[4..with_name.len() - 1]);
    }
    let array = document_of(&elements);
    document_of(&[&[kind::ARRAY], b"$in\0".as_slice(), array.as_bytes()].concat())
}

/// The document of these elements.
fn document_of(elements: &[u8]) -> RawDocumentBuf {
    let length = (elements.len() + 5) as u32;
    let bytes = [&length.to_le_bytes(), elements, &[0]].concat();
    RawDocumentBuf::from_bytes(bytes).expect("has the length that it says")
}

/// The last document of a capped collection in its order of insertion, majority-committed.
///
/// # Errors
/// The driver's.
pub async fn last_inserted(
    deployment: &Deployment,
    namespace: &Namespace,
) -> std::result::Result<Option<RawDocumentBuf>, DriverError> {
    let command = rawdoc! {
        "find": namespace.collection(),
        "filter": {},
        "sort": { "$natural": -1 },
        "limit": 1,
        "readConcern": majority(None),
        "comment": deployment.comment().0.as_str(),
    };
    let mut last = None;
    let cursor = deployment.cursor(namespace.db(), command, REPLY_DOCUMENTS).await?;
    cursor.for_each(|document| last = Some(document.to_owned())).await?;
    Ok(last)
}

/// The documents whose `_id` is in a range, by `_id`. At most `most` of them, 0 for all.
///
/// # Errors
/// The driver's.
pub async fn documents_in(
    deployment: &Deployment,
    namespace: &Namespace,
    range: &Range,
    most: usize,
) -> std::result::Result<Found, DriverError> {
    let mut command = rawdoc! {
        "find": namespace.collection(),
        "filter": {},
        "hint": { "_id": 1 },
        "limit": i64::try_from(most).unwrap_or(i64::MAX),
        "readConcern": { "level": "majority" },
        "comment": deployment.comment().0.as_str(),
    };
    for (name, bound) in [(bson::cstr!("min"), &range.lower), (bson::cstr!("max"), &range.upper)] {
        if let Some(key) = bound.key() {
            command.append(name, key.named("_id"));
        }
    }
    let mut found = Found::new();
    let cursor = match deployment.cursor(namespace.db(), command, REPLY_DOCUMENTS).await {
        Ok(cursor) => cursor,
        Err(error) if is_empty_range(&error) => return Ok(found),
        Err(error) => return Err(error),
    };
    cursor.for_each(|document| keep(&mut found, document)).await?;
    // With `min` and without `max` a server ends before MaxKey.
    let most_of_all = Key::from_value(RawBsonRef::MaxKey);
    if range.lower != Bound::Unbounded
        && range.upper == Bound::Unbounded
        && let Some(last) = document(deployment, namespace, None, &most_of_all, None).await?
    {
        found.insert(most_of_all, Versions::from_iter([last]));
    }
    Ok(found)
}
