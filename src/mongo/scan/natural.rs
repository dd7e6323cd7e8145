//! Reading a collection in the order of one member's disk.

use super::{Lost, Next, Reply, Wanted, waits};
use crate::clock;
use crate::error::Result;
use crate::model::cursor::Position;
use crate::model::record::{Node, RecordPosition, ResumeToken};
use crate::mongo::cursor::Cursor;
use crate::mongo::deployment::Deployment;
use crate::mongo::documents::Documents;
use crate::mongo::failure::{code, code_of, is_lost_cursor, is_transient};
use crate::mongo::read_from::ReadFrom;
use bson::{Bson, doc, rawdoc};
use mongodb::error::Error as DriverError;
use std::time::Duration;

/// For how long a member that does not answer is waited for before the scan counts as lost. A restart takes a few
/// seconds, and the tokens outlive it; what has to be read again otherwise is at most one collection.
const PATIENCE: Duration = Duration::from_secs(20);

/// The member that natural order is read from, and the id of its data.
///
/// # Errors
/// The driver's. `Ok(None)` where it does not tell, or the right to read `local` is missing: nothing can be bound to it
/// then.
pub async fn node(source: &Deployment) -> std::result::Result<Option<Node>, DriverError> {
    let hello = source.run_where_read("admin", doc! { "hello": 1 }).await?;
    let Ok(address) = hello.get_str("me") else { return Ok(None) };
    let Some(known_as) = source.address_of(address) else { return Ok(None) };
    let source = source.reading_from(ReadFrom::Node(known_as));
    let initial_sync_id = match initial_sync_id(&source).await {
        Err(error) if code_of(&error) == Some(code::UNAUTHORIZED) => return Ok(None),
        id => id?,
    };
    Ok(initial_sync_id.map(|initial_sync_id| Node { address: address.to_owned(), initial_sync_id }))
}

/// `local.replset.initialSyncId` of the member that is read from.
async fn initial_sync_id(source: &Deployment) -> std::result::Result<Option<String>, DriverError> {
    let found = source.run_where_read("local", doc! { "find": "replset.initialSyncId", "limit": 1 }).await?;
    let first = found.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch")).ok();
    let id = first.and_then(|first| first.first()).and_then(|first| first.as_document()?.get("_id"));
    Ok(match id {
        Some(Bson::Binary(binary)) => Some(binary.bytes.iter().map(|byte| format!("{byte:02x}")).collect()),
        _ => None,
    })
}

/// A scan of one collection in the order of the disk.
///
/// After a lost cursor it goes on behind the last record that was given, on the same member and only while that has the
/// same data. It ends at the record that was the last one when it began.
pub struct Natural {
    wanted: Wanted,
    node: Node,
    last: Option<ResumeToken>,
    cursor: Option<Cursor>,
    /// The number of the record at which the scan ends, once known.
    end: Option<i64>,
    is_over: bool,
    /// Whether the collection's identity was not looked at since a cursor was opened.
    is_unchecked: bool,
    /// Whether a cursor was opened before: the member's data must be looked at before it is done again.
    was_opened: bool,
}

/// What came of an attempt.
enum Attempt {
    Reply(Documents, ResumeToken),
    End,
    Lost(Lost),
}

impl Natural {
    /// A scan of all of what is wanted, on this member, from its beginning or behind a record of that member.
    pub fn new(wanted: Wanted, node: Node, after: Option<RecordPosition>) -> Self {
        debug_assert!(after.as_ref().is_none_or(|after| after.node == node), "a record of another member");
        let mut wanted = wanted;
        if let Some(address) = wanted.source.address_of(&node.address) {
            wanted.source = wanted.source.reading_from(ReadFrom::Node(address));
        }
        // Behind a record that an earlier run was given there is reason to look at the member's data, too.
        let was_opened = after.is_some();
        let last = after.map(|after| after.token);
        Self { wanted, node, last, cursor: None, end: None, is_over: false, is_unchecked: false, was_opened }
    }

    /// The next documents.
    ///
    /// # Errors
    /// Unavailable when the source refuses to be read, or the collection was renamed.
    pub async fn next(&mut self) -> Result<Next> {
        let mut waits = waits();
        let began = clock::monotonic();
        loop {
            let error = match self.attempt().await {
                Ok(attempt) => {
                    if std::mem::take(&mut self.is_unchecked)
                        && let Some(gone) = self.wanted.check_identity().await?
                    {
                        return Ok(Next::Gone(gone));
                    }
                    return Ok(match attempt {
                        Attempt::End => Next::End,
                        Attempt::Lost(why) => Next::Lost(why),
                        Attempt::Reply(documents, token) => {
                            self.last = Some(token.clone());
                            let position = Position::Record(RecordPosition { node: self.node.clone(), token });
                            Next::Documents(Reply { documents, position, is_there: false })
                        }
                    });
                }
                Err(error) => error,
            };
            self.cursor = None;
            let address = &self.node.address;
            if code_of(&error) == Some(code::KEY_NOT_FOUND) {
                return Ok(Next::Lost(Lost::Record(address.clone())));
            }
            if is_transient(&error) && began.elapsed() > PATIENCE {
                return Ok(Next::Lost(Lost::Node(format!("{address} does not answer: {error}"))));
            }
            match waits.next() {
                Some(wait) if is_lost_cursor(&error) => {
                    tracing::warn!(namespace = %self.wanted.namespace, "the cursor was lost, opening it again after the last record: {error}");
                    tokio::time::sleep(wait).await;
                }
                _ => return Err(self.wanted.failed(&error)),
            }
        }
    }

    /// One reply, of a cursor that is opened when there is none.
    async fn attempt(&mut self) -> std::result::Result<Attempt, DriverError> {
        if self.is_over {
            return Ok(Attempt::End);
        }
        if self.cursor.is_none() {
            if std::mem::replace(&mut self.was_opened, true)
                && initial_sync_id(&self.wanted.source).await?.as_ref() != Some(&self.node.initial_sync_id)
            {
                let why = format!("{} was synced anew, its records have other numbers now", self.node.address);
                return Ok(Attempt::Lost(Lost::Node(why)));
            }
            self.cursor = Some(self.wanted.open_behind(self.last.as_ref()).await?);
            self.is_unchecked = true;
        }
        let Some(cursor) = &mut self.cursor else { return Ok(Attempt::End) };
        let Some(page) = cursor.next().await? else {
            self.is_over = true;
            return Ok(Attempt::End);
        };
        let token = page.resume_token.ok_or_else(|| DriverError::custom("a reply without a resume token"))?;
        let token = ResumeToken::new(&token);
        self.is_over = page.is_last || self.has_reached_the_end(&token).await?;
        Ok(Attempt::Reply(page.documents, token))
    }

    /// Whether what was the last record when the scan began was given.
    async fn has_reached_the_end(&mut self, token: &ResumeToken) -> std::result::Result<bool, DriverError> {
        if self.end.is_none() {
            self.end = self.wanted.last().await?.and_then(|last| ResumeToken::new(&last).record());
        }
        Ok(match (self.end, token.record()) {
            (Some(end), Some(record)) => record >= end,
            // Without numbers to compare it ends where the collection does.
            _ => false,
        })
    }
}

// Not of the scan itself, which cannot be lent to another thread while its cursor is in it.
impl Wanted {
    async fn open_behind(&self, last: Option<&ResumeToken>) -> std::result::Result<Cursor, DriverError> {
        let mut command = rawdoc! {
            "find": self.namespace.collection(),
            "filter": self.query(rawdoc! {}),
            "hint": { "$natural": 1 },
            "batchSize": self.reply_documents() as i32,
            "$_requestResumeToken": true,
        };
        if let Some(token) = last {
            command.append(bson::cstr!("$_resumeAfter"), token.document());
        }
        self.complete(&mut command);
        self.source.cursor(self.namespace.db(), command, self.reply_documents()).await
    }
}
