//! Cursors, whose documents stay the bytes that the server sends.
//!
//! They are read over connections of mongoferry's own ([`super::wire`]), one for each open cursor, and where the
//! connection string asks for what only the driver can do, through the driver. No session is opened for them: a cursor
//! that nobody asks for ten minutes is closed by the server, and whoever reads opens it again.

use super::answer::failure;
use super::buffers::Buffers;
use super::deployment::Deployment;
use super::documents::Documents;
use super::failure::is_transient;
use super::read_from::ReadFrom;
use super::wire::{self, Connection};
use crate::model::element::field;
use crate::tasks;
use bson::{RawDocument, RawDocumentBuf, doc, rawdoc};
use futures_util::StreamExt;
use mongodb::error::Error as DriverError;
use mongodb::options::ServerAddress;
use mongodb::raw_batch_cursor::RawBatchCursor;
use tokio::runtime::Handle;

/// One reply of a cursor.
#[derive(Debug)]
pub struct Page {
    /// Its documents. May be none.
    pub documents: Documents,
    /// Whether the cursor is at its end.
    pub is_last: bool,
    /// Where a scan in the order of the disk can go on, if it was asked for.
    pub resume_token: Option<RawDocumentBuf>,
}

/// A cursor that is open on a server, or at its end.
pub struct Cursor {
    first: Option<Page>,
    via: Via,
}

enum Via {
    Wire(Box<Open>),
    Driver(Box<RawBatchCursor>),
}

impl Cursor {
    /// Opens a cursor for a command that is complete already. Each reply has at most `reply_documents` documents; the
    /// command names that number for the first one itself.
    ///
    /// # Errors
    /// The driver's, or like the driver's.
    pub async fn open(
        source: &Deployment,
        database: &str,
        command: RawDocumentBuf,
        reply_documents: u32,
    ) -> Result<Self, DriverError> {
        if source.connector().is_err() {
            let cursor = source.driver_cursor(database, command, reply_documents).await?;
            return Ok(Self { first: None, via: Via::Driver(Box::new(cursor)) });
        }
        let mut open = Open::on_a_member(source, database, reply_documents).await?;
        let first = open.exchange(command).await?;
        Ok(Self { first: Some(first), via: Via::Wire(Box::new(open)) })
    }

    /// The next reply, none at the end.
    ///
    /// # Errors
    /// The driver's, or like the driver's; the cursor is of no use then.
    pub async fn next(&mut self) -> Result<Option<Page>, DriverError> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        match &mut self.via {
            Via::Wire(open) => open.more().await,
            Via::Driver(cursor) => match cursor.next().await.transpose()? {
                Some(reply) => Ok(Some(read(reply.as_raw_document().to_owned(), None)?.1)),
                None => Ok(None),
            },
        }
    }

    /// All documents, one reply after the other, each given to `take`.
    ///
    /// # Errors
    /// As [`Cursor::next`].
    pub async fn for_each(mut self, mut take: impl FnMut(&RawDocument)) -> Result<(), DriverError> {
        while let Some(page) = self.next().await? {
            page.documents.iter().for_each(&mut take);
        }
        Ok(())
    }
}

/// A cursor on a member.
struct Open {
    source: Deployment,
    address: ServerAddress,
    /// None while an exchange is under way, after one that failed, and at the end.
    connection: Option<Connection>,
    database: String,
    /// The collection, as the server names it.
    collection: String,
    /// The server's number of the cursor; 0 when there is none.
    id: i64,
    reply_documents: u32,
}

impl Open {
    async fn on_a_member(source: &Deployment, database: &str, reply_documents: u32) -> Result<Self, DriverError> {
        let (address, connection) = match source.readers().take(source.read_from()) {
            Some(kept) => kept,
            None => {
                let connector = source.connector().map_err(|reason| DriverError::custom(reason.to_owned()))?;
                let address = source.member().await?;
                let connection = connector.connect(&address).await?.reading_into(source.readers().buffers.clone());
                tracing::debug!(%address, compression = connection.compression(), "reader connected");
                (address, connection)
            }
        };
        Ok(Self {
            source: source.clone(),
            address,
            connection: Some(connection),
            database: database.to_owned(),
            collection: String::new(),
            id: 0,
            reply_documents,
        })
    }

    async fn more(&mut self) -> Result<Option<Page>, DriverError> {
        if self.id == 0 {
            return Ok(None);
        }
        let command = rawdoc! {
            "getMore": self.id,
            "collection": self.collection.as_str(),
            "batchSize": i64::from(self.reply_documents),
            "comment": self.source.comment().0.as_str(),
        };
        self.exchange(command).await.map(Some)
    }

    async fn exchange(&mut self, mut command: RawDocumentBuf) -> Result<Page, DriverError> {
        if let Some(mode) = self.source.read_mode() {
            command.append(bson::cstr!("$readPreference"), rawdoc! { "mode": mode });
        }
        let mut connection = self.connection.take().ok_or_else(|| DriverError::custom("a cursor that has failed"))?;
        let there = self.source.reading_from(ReadFrom::Node(self.address.clone()));
        let look = || async { there.run_where_read("admin", doc! { "hello": 1 }).await.map(|_| ()) };
        let exchange = connection.exchange(&self.database, command, None);
        let reply = match wire::answered(exchange, look).await {
            Ok(reply) => reply,
            Err(error) => {
                self.source.readers().forget(&self.address);
                return Err(error);
            }
        };
        if let Some(error) = failure(&reply) {
            // Whatever there was of it is gone.
            self.id = 0;
            if is_transient(&error) {
                self.source.readers().forget(&self.address);
            } else {
                self.keep(connection);
            }
            return Err(error);
        }
        let (place, page) = read(reply, Some(self.source.readers().buffers.clone()))?;
        (self.id, self.collection) = (place.id, place.collection);
        if self.id == 0 {
            self.keep(connection);
        } else {
            self.connection = Some(connection);
        }
        Ok(page)
    }

    fn keep(&self, connection: Connection) {
        self.source.readers().put_back(self.source.read_from(), &self.address, connection);
    }
}

impl Drop for Open {
    /// A cursor that was not read to its end is closed on the server; without it the server would do so after ten
    /// minutes.
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.keep(connection);
        }
        if self.id == 0 {
            return;
        }
        if Handle::try_current().is_err() {
            return;
        }
        let there = self.source.reading_from(ReadFrom::Node(self.address.clone()));
        let database = std::mem::take(&mut self.database);
        let command = doc! { "killCursors": self.collection.as_str(), "cursors": [self.id] };
        tasks::spawn(async move {
            if let Err(error) = there.run_where_read(&database, command).await {
                tracing::debug!("a cursor was left to the server: {error}");
            }
        });
    }
}

/// Where more can be had.
struct Place {
    id: i64,
    collection: String,
}

/// What a reply holds.
fn read(reply: RawDocumentBuf, home: Option<Buffers>) -> Result<(Place, Page), DriverError> {
    let bytes = reply.as_bytes();
    let cursor = field(bytes, b"cursor").ok_or_else(|| nonsense("no cursor"))?;
    let batch = field(cursor.value, b"firstBatch").or_else(|| field(cursor.value, b"nextBatch"));
    let batch = batch.ok_or_else(|| nonsense("no batch"))?;
    let id = field(cursor.value, b"id").and_then(|id| id.number()).ok_or_else(|| nonsense("no cursor id"))?;
    // A database's name has no dot.
    let namespace = field(cursor.value, b"ns").and_then(|ns| ns.text()).unwrap_or_default();
    let collection = namespace.split_once('.').map(|(_, collection)| collection.to_owned()).unwrap_or_default();
    let resume_token = field(cursor.value, b"postBatchResumeToken")
        .and_then(|token| RawDocumentBuf::from_bytes(token.value.to_vec()).ok());
    let start = batch.value.as_ptr() as usize - bytes.as_ptr() as usize;
    let array = start..start + batch.value.len();
    let documents = Documents::of_array(reply.into_bytes(), array, home).map_err(DriverError::custom)?;
    Ok((Place { id, collection }, Page { documents, is_last: id == 0, resume_token }))
}

fn nonsense(what: &str) -> DriverError {
    DriverError::custom(format!("a reply with {what}"))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn a_reply_is_read_as_the_bytes_it_is() {
        let documents = [rawdoc! { "_id": 1 }, rawdoc! { "_id": 2, "text": "two" }];
        let reply = rawdoc! {
            "cursor": {
                "nextBatch": bson::RawArrayBuf::from_iter(documents.clone()),
                "postBatchResumeToken": { "$recordId": 2_i64 },
                "id": 7_i64,
                "ns": "db.a.b",
            },
            "ok": 1.0,
        };
        let (place, page) = read(reply, None).unwrap();
        assert_eq!((place.id, place.collection.as_str(), page.is_last), (7, "a.b", false));
        assert_eq!(page.documents.bytes(), documents.map(RawDocumentBuf::into_bytes).concat());
        assert_eq!(page.resume_token, Some(rawdoc! { "$recordId": 2_i64 }));

        let empty = rawdoc! { "cursor": { "firstBatch": [], "id": 0_i64, "ns": "db.c" }, "ok": 1.0 };
        let (_, page) = read(empty, None).unwrap();
        assert!(page.documents.is_empty() && page.is_last && page.resume_token.is_none());
    }

    #[test]
    fn a_reply_that_makes_no_sense_is_an_error() {
        for reply in [
            rawdoc! { "ok": 1 },
            rawdoc! { "cursor": { "firstBatch": [] } },
            rawdoc! { "cursor": { "id": 1_i64 } },
            rawdoc! { "cursor": { "firstBatch": [1], "id": 1_i64 } },
        ] {
            assert!(read(reply.clone(), None).is_err(), "{reply:?}");
        }
    }
}
