//! Reading a range of a collection, from a position on, reply by reply, as the bytes it is.
//!
//! [`by_id`] reads by index bounds, [`natural`] in the order of one member's disk. Both open a lost cursor again after the
//! last document that was given, and both end however fast documents are inserted behind them: what comes after the
//! checkpoint is a stream's business.

pub mod by_id;
pub mod insertion;
pub mod natural;

use super::catalog;
use super::checkpoint::timestamp;
use super::deployment::Deployment;
use super::documents::Documents;
use crate::error::{Error, Result};
use crate::model::cursor::Position;
use crate::model::document_filter::DocumentFilter;
use crate::model::job::Optime;
use crate::model::namespace::Namespace;
use crate::model::partition::Range;
use bson::{RawDocumentBuf, rawdoc};
use mongodb::error::Error as DriverError;
use std::time::Duration;
use tokio_retry::strategy::{ExponentialBackoff, jitter};

/// How many documents a reply holds at most.
const REPLY_DOCUMENTS: u64 = 5_000;

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
    /// Some documents. May be none.
    Documents(Reply),
    /// There are no more.
    End,
    /// The collection is not there any more.
    Gone(Gone),
    /// This scan cannot go on from where it is.
    Lost(Lost),
}

/// Why a scan in the order of the disk cannot go on from where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lost {
    /// The record that it would go on behind was deleted: an earlier one may do.
    Record(String),
    /// The member is gone, or has other data now: none of its records is of any use.
    Node(String),
    /// A capped collection has to be read from its oldest document again, behind what was copied of it.
    Order(String),
}

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Lost::Record(address) => write!(f, "the record after which to go on was deleted on {address}"),
            Lost::Node(why) | Lost::Order(why) => f.write_str(why),
        }
    }
}

/// A server's reply.
#[derive(Debug)]
pub struct Reply {
    /// Its documents.
    pub documents: Documents,
    /// Where its last document is.
    pub position: Position,
    /// Whether they were copied before, of a capped collection.
    pub is_there: bool,
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
    /// Which of its documents; none: all of them. What does not match is not there.
    pub filter: Option<DocumentFilter>,
    /// What is read is majority-committed and not older than this, whichever member answers.
    pub not_before: Optime,
    /// About how many bytes a document has.
    pub document_size: u64,
    /// About how many bytes a reply should have; the server itself ends it at 16 MiB, however many documents were asked
    /// for.
    pub reply_bytes: u64,
}

impl Wanted {
    /// Adds to a command what all have: what is read is what a majority has, and a DBA sees who reads.
    fn complete(&self, command: &mut RawDocumentBuf) {
        let concern = rawdoc! { "level": "majority", "afterClusterTime": timestamp(self.not_before) };
        command.append(bson::cstr!("readConcern"), concern);
        command.append(bson::cstr!("comment"), self.source.comment().0.as_str());
    }

    /// The query for what matches a condition, and is wanted.
    fn query(&self, condition: RawDocumentBuf) -> RawDocumentBuf {
        DocumentFilter::with(self.filter.as_ref(), condition)
    }

    /// So many that a reply is neither large in memory nor small on the wire.
    fn reply_documents(&self) -> u32 {
        (self.reply_bytes / self.document_size.max(1)).clamp(1, REPLY_DOCUMENTS) as u32
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

    /// The last document that is wanted in the order of the disk, which in a capped collection is that of insertion: its `_id`,
    /// and the number of its record. Another one would never come by.
    async fn last(&self) -> std::result::Result<Option<RawDocumentBuf>, DriverError> {
        let mut command = rawdoc! {
            "find": self.namespace.collection(),
            "filter": self.query(rawdoc! {}),
            "sort": { "$natural": -1 },
            "limit": 1,
            "projection": { "_id": 1 },
            "showRecordId": true,
        };
        self.complete(&mut command);
        let mut last = None;
        let cursor = self.source.cursor(self.namespace.db(), command, 1).await?;
        cursor.for_each(|document| last = Some(document.to_owned())).await?;
        Ok(last)
    }

    fn failed(&self, error: &DriverError) -> Error {
        self.source.failed(error).during(format!("reading {}", self.namespace))
    }

    fn unreadable(&self, why: impl std::fmt::Display) -> Error {
        let side = self.source.side;
        side.error(format!("the {side} sent a reply about {} that cannot be read: {why}", self.namespace))
    }
}

/// A scan in one of the orders.
pub enum Scan {
    /// In `_id` order.
    ById(by_id::ById),
    /// In the order of the disk.
    Natural(natural::Natural),
    /// In the order of insertion.
    Insertion(insertion::Insertion),
}

impl Scan {
    /// The next documents.
    ///
    /// # Errors
    /// Unavailable when the cursor cannot be opened again, or the collection was renamed.
    pub async fn next(&mut self) -> Result<Next> {
        match self {
            Scan::ById(scan) => scan.next().await,
            Scan::Natural(scan) => scan.next().await,
            Scan::Insertion(scan) => scan.next().await,
        }
    }
}

/// The pauses between attempts to open a lost cursor again.
fn waits() -> impl Iterator<Item = Duration> {
    ExponentialBackoff::from_millis(2).factor(25).max_delay(Duration::from_secs(2)).map(jitter).take(REOPENINGS)
}
