//! Whether a capped collection of the target has the source's order of insertion. Which documents there are is compared
//! elsewhere: here those are passed over that one side alone has.

use crate::context::Servers;
use crate::error::Result;
use crate::model::catalog::CatalogEntry;
use crate::model::cursor::Key;
use crate::model::document_filter::DocumentFilter;
use crate::model::namespace::Namespace;
use crate::mongo::cursor::Cursor;
use crate::mongo::deployment::Deployment;
use crate::mongo::failure::is_lost_cursor;
use crate::mongo::read;
use crate::state::pages::PreparedEntry;
use bson::rawdoc;
use mongodb::error::Error as DriverError;
use std::collections::VecDeque;
use std::time::Duration;
use tokio_retry::RetryIf;
use tokio_retry::strategy::{ExponentialBackoff, jitter};

/// How many `_id`s a reply holds.
const REPLY_DOCUMENTS: u32 = 5_000;

/// How often it is begun again when a cursor is lost, as it is when the source goes round while it is read.
const ATTEMPTS: usize = 20;

/// Compares the orders. The text of a finding where they differ.
///
/// # Errors
/// Those of reading.
pub async fn compare(servers: &Servers, entry: &CatalogEntry, prepared: &PreparedEntry) -> Result<Option<String>> {
    let source = servers.source.home(entry)?;
    let target = &servers.target;
    let waits = ExponentialBackoff::from_millis(2).factor(25).max_delay(Duration::from_secs(2));
    let compare = || {
        Sides { source, from: &entry.namespace, filter: entry.filter.as_ref(), target, to: &prepared.target }.compare()
    };
    let compared = RetryIf::start(waits.map(jitter).take(ATTEMPTS), compare, is_lost_cursor).await;
    compared.map_err(|error| target.failed(&error).during(format!("comparing the order of {}", prepared.target)))
}

struct Sides<'a> {
    source: &'a Deployment,
    from: &'a Namespace,
    filter: Option<&'a DocumentFilter>,
    target: &'a Deployment,
    to: &'a Namespace,
}

impl Sides<'_> {
    async fn compare(self) -> std::result::Result<Option<String>, DriverError> {
        let mut ours = Ids::open(self.target, self.to, None).await?;
        let mut theirs = Ids::open(self.source, self.from, self.filter).await?;
        let (mut our, mut their) = (ours.next().await?, theirs.next().await?);
        loop {
            let (Some(mine), Some(yours)) = (&our, &their) else { return Ok(None) };
            if mine == yours {
                (our, their) = (ours.next().await?, theirs.next().await?);
            } else if !has(self.source, self.from, self.filter, mine).await? {
                our = ours.next().await?;
            } else if !has(self.target, self.to, None, yours).await? {
                their = theirs.next().await?;
            } else {
                return Ok(Some(format!(
                    "is not in the source's order: the document with _id {mine:?} comes where that with _id {yours:?} should"
                )));
            }
        }
    }
}

async fn has(
    deployment: &Deployment,
    namespace: &Namespace,
    filter: Option<&DocumentFilter>,
    key: &Key,
) -> std::result::Result<bool, DriverError> {
    Ok(read::document(deployment, namespace, filter, key, None).await?.is_some())
}

/// The `_id`s of a collection, in its order of insertion.
struct Ids {
    cursor: Cursor,
    read: VecDeque<Key>,
}

impl Ids {
    async fn open(
        deployment: &Deployment,
        namespace: &Namespace,
        filter: Option<&DocumentFilter>,
    ) -> std::result::Result<Self, DriverError> {
        let command = rawdoc! {
            "find": namespace.collection(),
            "filter": DocumentFilter::with(filter, rawdoc! {}),
            "hint": { "$natural": 1 },
            "projection": { "_id": 1 },
            "batchSize": REPLY_DOCUMENTS as i32,
            "readConcern": { "level": "majority" },
            "comment": deployment.comment().0.as_str(),
        };
        let cursor = deployment.cursor(namespace.db(), command, REPLY_DOCUMENTS).await?;
        Ok(Self { cursor, read: VecDeque::new() })
    }

    async fn next(&mut self) -> std::result::Result<Option<Key>, DriverError> {
        while self.read.is_empty() {
            match self.cursor.next().await? {
                Some(page) => self.read.extend(page.documents.iter().filter_map(Key::of)),
                None => return Ok(None),
            }
        }
        Ok(self.read.pop_front())
    }
}
