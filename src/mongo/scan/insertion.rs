//! Reading a capped collection in the order in which it was filled.
//!
//! There is no place within it to go on from: its oldest documents go while it is read, and a place is not the same on
//! another member. What tells how far a copy is, is the copy: its last document. A scan that begins *behind* that
//! document gives what comes before it as such, so that it can be counted and is not sent again.

use super::{Lost, Next, Reply, Wanted, waits};
use crate::error::Result;
use crate::model::cursor::{Key, Position};
use crate::mongo::cursor::Cursor;
use crate::mongo::documents::Documents;
use crate::mongo::failure::is_lost_cursor;
use bson::{RawDocumentBuf, rawdoc};
use mongodb::error::Error as DriverError;

/// A scan of a capped collection, from its oldest document to the one that was its newest when the scan began.
pub struct Insertion {
    wanted: Wanted,
    /// The copy's last document, until it has come by.
    behind: Option<RawDocumentBuf>,
    /// The `_id` of the document at which the scan ends. None where there was none, and then where the collection ends.
    end: Option<Key>,
    cursor: Option<Cursor>,
    /// What follows the copy's last document in the same reply.
    rest: Option<Documents>,
    is_over: bool,
    /// Whether documents were given: a scan that is lost then cannot be begun again without looking at the copy.
    has_given: bool,
}

impl Insertion {
    /// A scan of all of what is wanted. `behind`: the last document of the copy, which the source has.
    pub fn new(wanted: Wanted, behind: Option<RawDocumentBuf>) -> Self {
        Self { wanted, behind, end: None, cursor: None, rest: None, is_over: false, has_given: false }
    }

    /// The next documents.
    ///
    /// # Errors
    /// Unavailable when the source refuses to be read, or the collection was renamed.
    pub async fn next(&mut self) -> Result<Next> {
        let mut waits = waits();
        loop {
            let was_open = self.cursor.is_some();
            let error = match self.attempt().await {
                Ok(documents) => {
                    if !was_open && let Some(gone) = self.wanted.check_identity().await? {
                        return Ok(Next::Gone(gone));
                    }
                    return Ok(match documents {
                        Some(documents) => self.give(documents),
                        None => self.end(),
                    });
                }
                Err(error) => error,
            };
            self.cursor = None;
            match waits.next() {
                Some(_) if self.has_given && is_lost_cursor(&error) => {
                    return Ok(Next::Lost(Lost::Order(format!("the cursor was lost: {error}"))));
                }
                Some(wait) if is_lost_cursor(&error) => tokio::time::sleep(wait).await,
                _ => return Err(self.wanted.failed(&error)),
            }
        }
    }

    /// One reply, of a cursor that is opened when there is none. None at the end.
    async fn attempt(&mut self) -> std::result::Result<Option<Documents>, DriverError> {
        if let Some(rest) = self.rest.take() {
            return Ok(Some(rest));
        }
        if self.is_over {
            return Ok(None);
        }
        if self.cursor.is_none() {
            self.end = self.wanted.last().await?.and_then(|last| Key::of(&last));
            self.cursor = Some(self.wanted.open_in_order().await?);
        }
        let Some(cursor) = &mut self.cursor else { return Ok(None) };
        let Some(page) = cursor.next().await? else {
            self.is_over = true;
            return Ok(None);
        };
        let is_end = |end: &Key| page.documents.iter().any(|document| Key::of(document).as_ref() == Some(end));
        self.is_over = page.is_last || self.end.as_ref().is_some_and(is_end);
        Ok(Some(page.documents))
    }

    /// A reply, up to the copy's last document where it is in it.
    fn give(&mut self, documents: Documents) -> Next {
        self.has_given = true;
        let reply = |documents, is_there| Next::Documents(Reply { documents, position: Position::Start, is_there });
        let Some(behind) = &self.behind else { return reply(documents, false) };
        let place = documents.iter().position(|document| document.as_bytes() == behind.as_bytes());
        let Some(place) = place else { return reply(documents, true) };
        self.behind = None;
        self.rest = Some(documents.part(place + 1..documents.len())).filter(|rest| !rest.is_empty());
        reply(documents.part(0..place + 1), true)
    }

    fn end(&self) -> Next {
        match &self.behind {
            None => Next::End,
            Some(_) => Next::Lost(Lost::Order("the document that was copied last is gone from the source".into())),
        }
    }
}

impl Wanted {
    async fn open_in_order(&self) -> std::result::Result<Cursor, DriverError> {
        let mut command = rawdoc! {
            "find": self.namespace.collection(),
            "filter": self.query(rawdoc! {}),
            "hint": { "$natural": 1 },
            "batchSize": self.reply_documents() as i32,
        };
        self.complete(&mut command);
        self.source.cursor(self.namespace.db(), command, self.reply_documents()).await
    }
}
