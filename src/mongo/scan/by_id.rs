//! Reading a range of a collection in `_id` order.

use super::{Next, Reply, Wanted, waits};
use crate::error::Result;
use crate::model::cursor::{Key, Position};
use crate::model::partition::Bound;
use crate::mongo::cursor::{Cursor, Page};
use crate::mongo::documents::Documents;
use crate::mongo::failure::{Side, is_empty_range, is_lost_cursor};
use bson::rawdoc;
use mongodb::error::Error as DriverError;

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
/// Of a source behind a mongos two documents may have the same `_id`, each on a shard of its own, where a collection is
/// sharded by something else. Positions are `_id`s, so the two cannot be told apart, nor by whatever writes them: such a
/// source is an error, and its shards have to be read. They come one behind the other.
///
/// ```text
///   First ──more than a reply──▶ EndUnknown ──▶ Below(largest) ──▶ Last(largest) ──▶ Over
///   Below(upper bound of the range) ──▶ Over
/// ```
pub struct ById {
    wanted: Wanted,
    last: Position,
    stage: Stage,
    cursor: Option<Cursor>,
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
    async fn open(&self, stage: &Stage, last: &Position) -> std::result::Result<Option<Cursor>, DriverError> {
        let mut command = rawdoc! { "find": self.namespace.collection() };
        if let Stage::Last(key) = stage {
            command.append(bson::cstr!("filter"), self.query(rawdoc! { "_id": key.named("$eq") }));
        } else {
            command.append(bson::cstr!("filter"), self.query(rawdoc! {}));
            command.append(bson::cstr!("sort"), rawdoc! { "_id": 1 });
        }
        command.append(bson::cstr!("hint"), rawdoc! { "_id": 1 });
        command.append(bson::cstr!("batchSize"), self.reply_documents() as i32);
        let lower = last.key().or(self.range.lower.key());
        let (lower, upper) = match stage {
            Stage::Below { upper, .. } => (lower, Some(upper)),
            // What was the largest `_id` of all may be below what is wanted: all above it was deleted. A lower bound
            // alone would leave out MaxKey, which is below nothing.
            Stage::Last(key) if !key.is_max() => (lower, None),
            _ => (None, None),
        };
        for (name, bound) in [(bson::cstr!("min"), lower), (bson::cstr!("max"), upper)] {
            if let Some(key) = bound {
                command.append(name, key.named("_id"));
            }
        }
        self.complete(&mut command);
        match self.source.cursor(self.namespace.db(), command, self.reply_documents()).await {
            Ok(cursor) => Ok(Some(cursor)),
            Err(error) if is_empty_range(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The largest `_id` there is, none in an empty collection. Whether it is wanted is of no account for an end, and the
    /// server need not look for one that is.
    async fn largest(&self) -> std::result::Result<Option<Key>, DriverError> {
        let mut command = rawdoc! {
            "find": self.namespace.collection(),
            "filter": {},
            "sort": { "_id": -1 },
            "hint": { "_id": 1 },
            "projection": { "_id": 1 },
            "limit": 1,
        };
        self.complete(&mut command);
        let mut largest = None;
        let cursor = self.source.cursor(self.namespace.db(), command, 1).await?;
        cursor.for_each(|document| largest = Key::of(document)).await?;
        Ok(largest)
    }
}

impl ById {
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
        let mut waits = waits();
        loop {
            let error = match self.attempt().await {
                Ok(reply) => {
                    if std::mem::take(&mut self.is_unchecked)
                        && let Some(gone) = self.wanted.check_identity().await?
                    {
                        return Ok(Next::Gone(gone));
                    }
                    return match reply {
                        None => Ok(Next::End),
                        Some(page) => Ok(Next::Documents(self.reply(page)?)),
                    };
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
                    return Err(self.wanted.failed(&error));
                }
            }
        }
    }

    /// One reply, of a cursor that is opened when there is none; nothing at the end.
    async fn attempt(&mut self) -> std::result::Result<Option<Page>, DriverError> {
        loop {
            if let Some(cursor) = &mut self.cursor {
                if let Some(page) = cursor.next().await? {
                    if self.stage == Stage::First {
                        // What this cursor would give beyond its first reply has no end yet.
                        self.cursor = None;
                        self.stage = if page.is_last { Stage::Over } else { Stage::EndUnknown };
                    }
                    return Ok(Some(page));
                }
                self.cursor = None;
                self.stage = self.stage.next();
            }
            match &self.stage {
                Stage::Over => return Ok(None),
                Stage::EndUnknown => {
                    let largest = self.wanted.largest().await?;
                    self.is_unchecked = true;
                    self.stage = match largest {
                        // There may be another one with that `_id`.
                        Some(key) if self.last.key() == Some(&key) && self.may_have_twins() => Stage::Last(key),
                        Some(key) if self.last.key() == Some(&key) => Stage::Over,
                        Some(upper) => Stage::Below { upper, is_last_to_come: true },
                        None => Stage::Over,
                    };
                }
                stage => {
                    self.repeated = match (stage, &self.last) {
                        (Stage::Below { .. }, Position::After(key)) => Some(key.clone()),
                        (Stage::Last(last), Position::After(key)) if last == key => Some(key.clone()),
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

    /// What was not given before: a bound repeats the document that it is made of.
    fn reply(&mut self, page: Page) -> Result<Reply> {
        let mut documents = page.documents;
        self.refuse_twins(&documents)?;
        if let Some(last) = documents.last() {
            let last = Key::of(last).ok_or_else(|| self.wanted.unreadable("a document without _id"))?;
            if let Some(repeated) = self.repeated.take()
                && documents.first().and_then(Key::of) == Some(repeated)
            {
                documents = documents.part(1..documents.len());
            }
            self.last = Position::After(last);
        }
        Ok(Reply { documents, position: self.last.clone(), is_there: false })
    }
}

impl ById {
    /// Whether an `_id` is unique on each shard alone. A target is not copied from.
    fn may_have_twins(&self) -> bool {
        self.wanted.source.is_mongos() && self.wanted.source.side == Side::Source
    }

    /// Makes sure that no two documents have the same `_id`, the one before these included.
    fn refuse_twins(&self, documents: &Documents) -> Result<()> {
        if !self.may_have_twins() {
            return Ok(());
        }
        // Where a bound repeats the last document it is among these once more.
        let mut before = self.last.key().filter(|_| self.repeated.is_none()).cloned();
        for key in documents.iter().map(Key::of) {
            if key.is_some() && key == before {
                return Err(self.wanted.source.side.error(format!(
                    "two shards have a document of {} with the _id {:?}: either it moves from one to the other just now, so run again, or there are two, which are told apart only where shards are read directly (--read shards, as another --job)",
                    self.wanted.namespace, key
                )));
            }
            before = key;
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
