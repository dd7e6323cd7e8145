//! Reading a range of a collection in `_id` order, from a position on, batch by batch, as the bytes it is.

use super::catalog;
use super::checkpoint::timestamp;
use super::deployment::Deployment;
use super::failure::{is_empty_range, is_lost_cursor};
use crate::error::Result;
use crate::model::cursor::{Key, Position};
use crate::model::job::Optime;
use crate::model::namespace::Namespace;
use crate::model::partition::{Bound, Range};
use bson::{RawDocument, RawDocumentBuf, rawdoc};
use futures_util::StreamExt;
use mongodb::error::Error as DriverError;
use mongodb::raw_batch_cursor::{RawBatch, RawBatchCursor};
use std::time::Duration;
use tokio_retry::strategy::{ExponentialBackoff, jitter};

/// How many documents a reply holds at most.
const REPLY_DOCUMENTS: u64 = 5_000;

/// How many bytes a reply should hold; the server itself ends it at 16 MiB, however many documents were asked for.
const REPLY_BYTES: u64 = 4 * 1024 * 1024;

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

/// What is read.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// From where: the source, or the target where it is read back.
    pub source: Deployment,
    /// The collection's name.
    pub namespace: Namespace,
    /// The collection's UUID.
    pub uuid: String,
    /// Which part of it.
    pub range: Range,
    /// What is read is majority-committed and not older than this, whichever member answers.
    pub not_before: Optime,
    /// About how many bytes a document has.
    pub document_size: u64,
}

/// A scan of a range of one collection in `_id` order.
///
/// It reads by index bounds (`min` and `max` with a hint), not by `$gt` and `$lt`: comparisons stay within one type,
/// bounds cross types (<https://www.mongodb.com/docs/manual/reference/method/cursor.min/>). A lost cursor is opened
/// again after the last document that was given, never at the beginning.
///
/// It ends, however fast documents are inserted behind it: a range without an upper bound is read up to the largest
/// `_id` that the collection had when it was opened. What comes after that is newer than the checkpoint, and a stream's
/// business. That last document is asked for by itself, since an upper bound leaves out its key, and since a scan with
/// `min` and without `max` leaves out the document whose `_id` is MaxKey (seen on 6.0.5).
///
/// ```text
///   First ──more than a reply──▶ EndUnknown ──▶ Below(largest) ──▶ Last(largest) ──▶ Over
///   Below(upper bound of the range) ──▶ Over
/// ```
pub struct Scan {
    wanted: Wanted,
    last: Position,
    stage: Stage,
    cursor: Option<RawBatchCursor>,
    /// Whether the collection's identity was not looked at since a cursor was opened.
    is_unchecked: bool,
    /// The key that the bound repeats, until its document has come: `min` is inclusive.
    repeated: Option<Key>,
}

/// What the next cursor is opened for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    /// The first reply of a whole collection, which is all there is of most: no bounds are needed for it.
    First,
    /// The rest of a range whose end is not known yet.
    EndUnknown,
    /// Up to this key, which is left out.
    Below { upper: Key, is_last_to_come: bool },
    /// The document with this key.
    Last(Key),
    /// Nothing.
    Over,
}

impl Wanted {
    /// A cursor for what a stage reads; the document at `last` comes once more, since `min` is inclusive.
    async fn open(&self, stage: &Stage, last: &Position) -> std::result::Result<Option<RawBatchCursor>, DriverError> {
        let mut command = rawdoc! { "find": self.namespace.collection() };
        if let Stage::Last(key) = stage {
            command.append(bson::cstr!("filter"), rawdoc! { "_id": key.named("$eq") });
        } else {
            command.append(bson::cstr!("filter"), rawdoc! {});
            command.append(bson::cstr!("sort"), rawdoc! { "_id": 1 });
        }
        command.append(bson::cstr!("hint"), rawdoc! { "_id": 1 });
        command.append(bson::cstr!("batchSize"), self.reply_documents());
        if let Stage::Below { upper, .. } = stage {
            if let Some(lower) = last.key().or(self.range.lower.key()) {
                command.append(bson::cstr!("min"), lower.named("_id"));
            }
            command.append(bson::cstr!("max"), upper.named("_id"));
        }
        self.complete(&mut command);
        match self.source.batches(self.namespace.db(), command).await {
            Ok(cursor) => Ok(Some(cursor)),
            Err(error) if is_empty_range(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The largest `_id` there is that is not below `lower`, none where there is none.
    async fn largest(&self, lower: Option<&Key>) -> std::result::Result<Option<Key>, DriverError> {
        let largest = self.largest_from(None).await?;
        match (&largest, lower) {
            // A scan with `min` and without `max` would leave it out.
            (Some(largest), _) if largest.is_max() => {}
            (Some(_), Some(lower)) => return self.largest_from(Some(lower)).await,
            _ => {}
        }
        Ok(largest)
    }

    async fn largest_from(&self, lower: Option<&Key>) -> std::result::Result<Option<Key>, DriverError> {
        let mut command = rawdoc! {
            "find": self.namespace.collection(),
            "filter": {},
            "sort": { "_id": -1 },
            "hint": { "_id": 1 },
            "projection": { "_id": 1 },
            "limit": 1,
        };
        if let Some(lower) = lower {
            command.append(bson::cstr!("min"), lower.named("_id"));
        }
        self.complete(&mut command);
        let mut cursor = self.source.batches(self.namespace.db(), command).await?;
        while let Some(batch) = cursor.next().await {
            if let Some(key) = last_key(&batch?)? {
                return Ok(Some(key));
            }
        }
        Ok(None)
    }

    fn complete(&self, command: &mut RawDocumentBuf) {
        let concern = rawdoc! { "level": "majority", "afterClusterTime": timestamp(self.not_before) };
        command.append(bson::cstr!("readConcern"), concern);
        command.append(bson::cstr!("comment"), self.source.comment().0.as_str());
    }

    /// So many that a reply is neither large in memory nor small on the wire.
    fn reply_documents(&self) -> i32 {
        (REPLY_BYTES / self.document_size.max(1)).clamp(1, REPLY_DOCUMENTS) as i32
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
            let side = self.source.side;
            return Err(side.error(format!(
                "{} was renamed to {} on the {side} while it was read; rename it back, or abandon this job and begin another",
                self.namespace, renamed.namespace
            )));
        }
        Ok(Some(if now.is_some() { Gone::Recreated } else { Gone::Dropped }))
    }
}

impl Scan {
    /// A scan of what is wanted, from `after` on.
    pub fn new(wanted: Wanted, after: Position) -> Self {
        let stage = match &wanted.range.upper {
            Bound::At(upper) => Stage::Below { upper: upper.clone(), is_last_to_come: false },
            Bound::Unbounded if wanted.range.is_whole() && after == Position::Start => Stage::First,
            Bound::Unbounded => Stage::EndUnknown,
        };
        Self { wanted, last: after, stage, cursor: None, is_unchecked: false, repeated: None }
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
                    if std::mem::take(&mut self.is_unchecked)
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

    /// One reply, of a cursor that is opened when there is none; nothing at the end.
    async fn attempt(&mut self) -> std::result::Result<Option<RawBatch>, DriverError> {
        loop {
            if let Some(cursor) = &mut self.cursor {
                if let Some(reply) = cursor.next().await.transpose()? {
                    if self.stage == Stage::First {
                        // What this cursor would give beyond its first reply has no end yet.
                        self.cursor = None;
                        self.stage = if is_exhausted(&reply) { Stage::Over } else { Stage::EndUnknown };
                    }
                    return Ok(Some(reply));
                }
                self.cursor = None;
                self.stage = self.stage.next();
            }
            match &self.stage {
                Stage::Over => return Ok(None),
                Stage::EndUnknown => {
                    let lower = self.last.key().or(self.wanted.range.lower.key());
                    let largest = self.wanted.largest(lower).await?;
                    self.is_unchecked = true;
                    self.stage = match largest {
                        Some(key) if self.last.key() == Some(&key) => Stage::Over,
                        Some(upper) => Stage::Below { upper, is_last_to_come: true },
                        None => Stage::Over,
                    };
                }
                stage => {
                    self.repeated = match (stage, &self.last) {
                        (Stage::Below { .. }, Position::After(key)) => Some(key.clone()),
                        _ => None,
                    };
                    self.cursor = self.wanted.open(stage, &self.last).await?;
                    self.is_unchecked = true;
                    if self.cursor.is_none() {
                        self.stage = self.stage.next();
                    }
                }
            }
        }
    }

    fn remember(&mut self, batch: &RawBatch) -> Result<()> {
        let last = last_key(batch).map_err(|error| {
            let side = self.wanted.source.side;
            side.error(format!("the {side} sent a reply about {} that cannot be read: {error}", self.wanted.namespace))
        })?;
        if let Some(last) = last {
            self.last = Position::After(last);
        }
        Ok(())
    }
}

impl Stage {
    /// What follows when the cursor of this stage has given all it has.
    fn next(&self) -> Stage {
        match self {
            Stage::Below { upper, is_last_to_come: true } => Stage::Last(upper.clone()),
            _ => Stage::Over,
        }
    }
}

/// Whether a reply is the last one of its cursor.
fn is_exhausted(reply: &RawBatch) -> bool {
    let cursor = reply.as_raw_document().get_document("cursor");
    cursor.and_then(|cursor| cursor.get_i64("id")).is_ok_and(|id| id == 0)
}

/// The key of a reply's last document, none when it has no documents.
fn last_key(batch: &RawBatch) -> std::result::Result<Option<Key>, DriverError> {
    let mut last = None;
    for element in batch.doc_slices()?.iter_elements() {
        last = Some(element?);
    }
    let Some(element) = last else { return Ok(None) };
    let key = element.value()?.as_document().and_then(Key::of);
    key.map(Some).ok_or_else(|| DriverError::custom("a document without _id"))
}
