//! Reading a collection of the source in `_id` order, from a position on, batch by batch, as the bytes it is.

use super::catalog;
use super::checkpoint::timestamp;
use super::deployment::Deployment;
use super::failure::is_lost_cursor;
use crate::error::{Error, Result};
use crate::model::cursor::{Key, Position};
use crate::model::job::Optime;
use crate::model::namespace::Namespace;
use bson::{RawBsonRef, RawDocument, RawDocumentBuf, rawdoc};
use futures_util::StreamExt;
use mongodb::error::Error as DriverError;
use mongodb::raw_batch_cursor::{RawBatch, RawBatchCursor};
use std::collections::HashMap;
use std::time::Duration;
use tokio_retry::strategy::{ExponentialBackoff, jitter};

/// How many documents a reply holds at most; the server also ends it at 16 MiB.
const REPLY_DOCUMENTS: i32 = 5_000;

/// How often a lost cursor is opened again before the source counts as unavailable: with the waits between, about two
/// minutes, longer than an election.
const REOPENINGS: usize = 60;

/// Why a scan ended early: what was planned is no longer there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gone {
    /// No collection has this name now.
    Dropped,
    /// The name now means another collection.
    Recreated,
}

impl Gone {
    /// For a note.
    pub fn text(self) -> &'static str {
        match self {
            Gone::Dropped => "dropped",
            Gone::Recreated => "dropped and created anew",
        }
    }
}

/// What a scan gives next.
#[derive(Debug)]
pub enum Next {
    /// Some documents, in `_id` order. May be empty.
    Documents(RawBatch),
    /// There are no more.
    End,
    /// The collection is not there any more.
    Gone(Gone),
}

/// A scan of one collection in `_id` order.
///
/// It reads by index bounds (`min` with a hint), not by `$gt`: comparisons stay within one type, bounds cross types
/// (<https://www.mongodb.com/docs/manual/reference/method/cursor.min/>). A lost cursor is opened again after the last
/// document that was given, never at the beginning.
pub struct Scan {
    wanted: Wanted,
    last: Position,
    cursor: Option<RawBatchCursor>,
    /// Whether the cursor was opened and has given nothing yet.
    is_new: bool,
    /// The key that the bound repeats, until its document has come: `min` is inclusive.
    repeated: Option<Key>,
}

/// Which collection, as it was planned.
struct Wanted {
    source: Deployment,
    namespace: Namespace,
    uuid: String,
    not_before: Optime,
}

impl Wanted {
    /// A cursor over what comes after `last`; its document comes once more, since `min` is inclusive.
    async fn open(&self, last: &Position) -> std::result::Result<RawBatchCursor, DriverError> {
        let mut command = rawdoc! {
            "find": self.namespace.collection(),
            "filter": {},
            "sort": { "_id": 1 },
            "hint": { "_id": 1 },
            "batchSize": REPLY_DOCUMENTS,
            "readConcern": { "level": "majority", "afterClusterTime": timestamp(self.not_before) },
            "comment": self.source.comment().0.as_str(),
        };
        if let Position::After(key) = last {
            let mut bound = RawDocumentBuf::new();
            bound.append(bson::cstr!("_id"), key.value());
            command.append(bson::cstr!("min"), bound);
        }
        self.source.batches(self.namespace.db(), command).await
    }

    /// Whether the name still means the collection that was planned. Asked after the cursor was opened: from then on
    /// the server kills the cursor when the collection is dropped or renamed, before that it would read another
    /// collection, or none, without a word.
    async fn check_identity(&self) -> Result<Option<Gone>> {
        let now = catalog::collection(&self.source, &self.namespace).await?;
        if now.as_ref().and_then(|listed| listed.uuid.as_ref()) == Some(&self.uuid) {
            return Ok(None);
        }
        let all = catalog::collections(&self.source, self.namespace.db()).await?;
        if let Some(renamed) = all.iter().find(|listed| listed.uuid.as_ref() == Some(&self.uuid)) {
            return Err(self.source.side.error(format!(
                "{} was renamed to {} on the source while it was copied; rename it back, or abandon this job and begin another",
                self.namespace, renamed.namespace
            )));
        }
        Ok(Some(if now.is_some() { Gone::Recreated } else { Gone::Dropped }))
    }
}

impl Scan {
    /// A scan of the collection with this name and UUID, from `after` on. What it reads is majority-committed and not
    /// older than `not_before`, whichever member answers.
    pub fn new(source: Deployment, namespace: Namespace, uuid: String, after: Position, not_before: Optime) -> Self {
        let wanted = Wanted { source, namespace, uuid, not_before };
        Self { wanted, last: after, cursor: None, is_new: false, repeated: None }
    }

    /// The next documents.
    ///
    /// # Errors
    /// Unavailable when the cursor cannot be opened again, or the collection was renamed.
    pub async fn next(&mut self) -> Result<Next> {
        let mut waits = ExponentialBackoff::from_millis(2)
            .factor(25)
            .max_delay(Duration::from_secs(2))
            .map(jitter)
            .take(REOPENINGS);
        loop {
            let error = match self.attempt().await {
                Ok(reply) => {
                    if std::mem::take(&mut self.is_new)
                        && let Some(gone) = self.wanted.check_identity().await?
                    {
                        return Ok(Next::Gone(gone));
                    }
                    let Some(batch) = reply else { return Ok(Next::End) };
                    self.remember(&batch)?;
                    return Ok(Next::Documents(batch));
                }
                Err(error) => error,
            };
            self.cursor = None;
            match waits.next() {
                Some(wait) if is_lost_cursor(&error) => {
                    tracing::warn!(namespace = %self.wanted.namespace, "the cursor was lost, opening it again after the last document: {error}");
                    tokio::time::sleep(wait).await;
                }
                _ => {
                    return Err(self.wanted.source.failed(&error).during(format!("reading {}", self.wanted.namespace)));
                }
            }
        }
    }

    /// Whether this document is the one that the bound repeats, and was given before.
    pub fn is_repeated(&mut self, document: &RawDocument) -> bool {
        self.repeated.take().is_some_and(|key| Key::of(document).as_ref() == Some(&key))
    }

    /// One reply of the cursor, which is opened when there is none.
    async fn attempt(&mut self) -> std::result::Result<Option<RawBatch>, DriverError> {
        let cursor = match &mut self.cursor {
            Some(cursor) => cursor,
            None if self.last.is_end() => return Ok(None),
            None => {
                let cursor = self.wanted.open(&self.last).await?;
                self.is_new = true;
                self.repeated = match &self.last {
                    Position::Start => None,
                    Position::After(key) => Some(key.clone()),
                };
                self.cursor.insert(cursor)
            }
        };
        cursor.next().await.transpose()
    }

    fn remember(&mut self, batch: &RawBatch) -> Result<()> {
        let unreadable = |why: &dyn std::fmt::Display| {
            Error::source(format!("the source sent a reply about {} that cannot be read: {why}", self.wanted.namespace))
        };
        let mut last = None;
        for element in batch.doc_slices().map_err(|error| unreadable(&error))?.iter_elements() {
            last = Some(element.map_err(|error| unreadable(&error))?);
        }
        if let Some(element) = last {
            let value = element.value().map_err(|error| unreadable(&error))?;
            let key = value.as_document().and_then(Key::of);
            self.last = Position::After(key.ok_or_else(|| unreadable(&"a document without _id"))?);
        }
        Ok(())
    }
}

/// The document that the source has under this `_id` now, majority-committed.
///
/// # Errors
/// The driver's.
pub async fn document(
    deployment: &Deployment,
    namespace: &Namespace,
    key: &Key,
    not_before: Option<Optime>,
) -> std::result::Result<Option<RawDocumentBuf>, DriverError> {
    let mut wanted = RawDocumentBuf::new();
    wanted.append(bson::cstr!("$eq"), key.value());
    let mut concern = rawdoc! { "level": "majority" };
    if let Some(time) = not_before {
        concern.append(bson::cstr!("afterClusterTime"), RawBsonRef::Timestamp(timestamp(time)));
    }
    let command = rawdoc! {
        "find": namespace.collection(),
        "filter": { "_id": wanted },
        "limit": 1,
        "readConcern": concern,
        "comment": deployment.comment().0.as_str(),
    };
    let mut cursor = deployment.batches(namespace.db(), command).await?;
    while let Some(batch) = cursor.next().await {
        if let Some(Ok(RawBsonRef::Document(document))) = batch?.doc_slices()?.into_iter().next() {
            return Ok(Some(document.to_owned()));
        }
    }
    Ok(None)
}

/// The documents whose `_id` is in `[first, last)`, by `_id`; without a bound from the beginning or to the end. At most
/// `most` of them, 0 for all.
///
/// # Errors
/// The driver's.
pub async fn documents_between(
    deployment: &Deployment,
    namespace: &Namespace,
    first: Option<&Key>,
    last: Option<&Key>,
    most: usize,
) -> std::result::Result<HashMap<Key, RawDocumentBuf>, DriverError> {
    // Bounds between which nothing can be are an error to the server.
    let is_empty = first.is_some_and(|first| matches!(first.value(), RawBsonRef::MaxKey))
        || last.is_some_and(|last| matches!(last.value(), RawBsonRef::MinKey));
    if is_empty {
        return Ok(HashMap::new());
    }
    let mut command = rawdoc! {
        "find": namespace.collection(),
        "filter": {},
        "hint": { "_id": 1 },
        "limit": i64::try_from(most).unwrap_or(i64::MAX),
        "readConcern": { "level": "majority" },
        "comment": deployment.comment().0.as_str(),
    };
    for (name, key) in [(bson::cstr!("min"), first), (bson::cstr!("max"), last)] {
        if let Some(key) = key {
            let mut bound = RawDocumentBuf::new();
            bound.append(bson::cstr!("_id"), key.value());
            command.append(name, bound);
        }
    }
    let mut found = HashMap::new();
    let mut cursor = deployment.batches(namespace.db(), command).await?;
    while let Some(batch) = cursor.next().await {
        for value in batch?.doc_slices()? {
            if let RawBsonRef::Document(document) = value?
                && let Some(key) = Key::of(document)
            {
                found.insert(key, document.to_owned());
            }
        }
    }
    Ok(found)
}
