//! The baseline: a loader that does nothing but insert, from memory, what the target can take no faster.
//!
//! It speaks the server's protocol itself (OP_MSG, <https://www.mongodb.com/docs/manual/reference/mongodb-wire-protocol/>):
//! a batch lies in memory as the message's document sequence and is sent as it is. No driver is in the way, so that what
//! is measured is the server.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use mongodb::bson::{RawDocument, RawDocumentBuf, doc, rawdoc};

use crate::servers::Failure;
use crate::sets::{Batch, Collection, Set, SetName};

const OP_MSG: i32 = 2013;
const HEADER: usize = 16;

/// Before the documents of a sequence: its length and its name.
const SEQUENCE: &[u8] = b"documents\0";

/// Sends a share of a set's batches (E: collections), several at once, each acknowledged by a majority, and returns when
/// all of it is there. Collections are created by their first insert; those of E by `create`, since some are empty.
///
/// # Errors
/// The first thing that the server or the network refused.
pub fn load(port: u16, set: &Set, writers: usize, share: Range<usize>) -> Result<(), Failure> {
    let next = AtomicUsize::new(share.start);
    let write = || -> Result<(), Failure> {
        let mut connection = Connection::open(port)?;
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= share.end {
                return Ok(());
            }
            write_unit(&mut connection, set, index)?;
        }
    };
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..writers).map(|_| scope.spawn(write)).collect();
        writers.into_iter().try_for_each(|writer| writer.join().map_err(|_| "a writer panicked")?)
    })
}

/// How many parts [`load`] can divide a set into.
pub fn units(set: &Set) -> usize {
    match set.name {
        SetName::E => set.collections.len(),
        _ => set.collections[0].batches.len(),
    }
}

fn write_unit(connection: &mut Connection, set: &Set, index: usize) -> Result<(), Failure> {
    if set.name != SetName::E {
        let collection = &set.collections[0];
        return connection.insert(set.database, &collection.name, &collection.batches[index]);
    }
    let Collection { name, batches } = &set.collections[index];
    let create = rawdoc! {"create": name.as_str(), "$db": set.database, "writeConcern": {"w": "majority"}};
    connection.run(&create, None)?;
    batches.iter().try_for_each(|batch| connection.insert(set.database, name, batch))
}

/// Builds the set's indexes, with one `createIndexes` a collection.
///
/// # Errors
/// What the server says.
pub fn build_indexes(port: u16, set: &Set) -> Result<(), Failure> {
    if set.indexes.is_empty() {
        return Ok(());
    }
    let mut connection = Connection::open(port)?;
    for collection in &set.collections {
        let command = doc! {
            "createIndexes": &collection.name, "indexes": &set.indexes, "$db": set.database, "writeConcern": {"w": "majority"},
        };
        connection.run(&RawDocumentBuf::try_from(&command)?, None)?;
    }
    Ok(())
}

struct Connection {
    stream: TcpStream,
    reply: Vec<u8>,
}

impl Connection {
    fn open(port: u16) -> Result<Self, Failure> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream, reply: Vec::new() })
    }

    fn insert(&mut self, database: &str, collection: &str, batch: &Batch) -> Result<(), Failure> {
        let command = rawdoc! {
            "insert": collection, "ordered": false, "$db": database, "writeConcern": {"w": "majority"},
        };
        self.run(&command, Some(&batch.bytes))
    }

    /// Sends a command, with a sequence of documents or without, and reads the answer.
    fn run(&mut self, command: &RawDocument, documents: Option<&[u8]>) -> Result<(), Failure> {
        let mut head = vec![0; HEADER];
        head.extend_from_slice(&0_u32.to_le_bytes());
        head.push(0);
        head.extend_from_slice(command.as_bytes());
        if let Some(documents) = documents {
            head.push(1);
            head.extend_from_slice(&i32::try_from(4 + SEQUENCE.len() + documents.len())?.to_le_bytes());
            head.extend_from_slice(SEQUENCE);
        }
        let documents = documents.unwrap_or_default();
        let length = i32::try_from(head.len() + documents.len())?;
        head[..4].copy_from_slice(&length.to_le_bytes());
        head[12..HEADER].copy_from_slice(&OP_MSG.to_le_bytes());
        self.stream.write_all(&head)?;
        self.stream.write_all(documents)?;
        self.read_reply()
    }

    fn read_reply(&mut self) -> Result<(), Failure> {
        let mut header = [0; HEADER];
        self.stream.read_exact(&mut header)?;
        let length = i32::from_le_bytes([header[0], header[1], header[2], header[3]]);
        self.reply.resize(usize::try_from(length)?.saturating_sub(HEADER), 0);
        self.stream.read_exact(&mut self.reply)?;
        // Flags, and the kind of the only section.
        let answer = RawDocument::from_bytes(self.reply.get(5..).unwrap_or_default())?;
        let is_ok = answer.get_f64("ok").is_ok_and(|ok| ok == 1.0);
        if !is_ok || answer.get("writeErrors")?.is_some() || answer.get("writeConcernError")?.is_some() {
            return Err(format!("the target refused what the baseline sent: {answer:?}").into());
        }
        Ok(())
    }
}
