//! Copying one partition: a scan reads ahead, several batches are in flight, and the cursor follows behind over what
//! is acknowledged without a gap.

use super::deliver::{Batch, Delivery, Extent};
use super::flow::{Flow, Memory, Reserved};
use super::ownership::Ownership;
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::model::cursor::{Acknowledged, BatchNumber, Covered, Key, Position, Tracker};
use crate::model::dbref::DbRefs;
use crate::model::finding::Finding;
use crate::model::lane::Ending;
use crate::model::pace::BatchSize;
use crate::mongo::documents::Documents;
use crate::mongo::scan::{Gone, Lost, Next, Reply, Scan};
use crate::stop::Stop;
use futures_util::stream::{FuturesUnordered, StreamExt};
use std::sync::Arc;
use tokio::sync::mpsc;

/// How many batches of one partition are in flight at most. How many really are, the writers' gate and the memory decide.
pub const IN_FLIGHT: usize = 16;

/// A batch ends at this many bytes...
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// ...or this many documents, whichever comes first: far below the server's limits (48 MB, 100,000 documents), so that
/// what is done again after a crash stays small.
const BATCH_DOCUMENTS: usize = 5_000;

/// How reading ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadingEnded {
    /// There are no more documents, or the collection is gone.
    Finished(Ending, Option<Gone>),
    /// The scan cannot go on from where it is.
    Lost(Lost),
}

/// How a partition ended, when not by an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// It was read, to the end or as far as it could be; what was read is acknowledged and covered.
    Read(ReadingEnded),
    /// The run was told to stop; what was acknowledged is covered.
    Stopped,
}

/// Where a partition reports how far it is.
pub trait Advance: Send {
    /// The cursor now covers this as well.
    fn advance(&self, what: Covered<Finding>);
}

/// A batch on its way, and its share of the memory, which it has in common with others of the same reply.
type Held = (Batch, Arc<Reserved>);

/// Where a partition is read, and how much of it at once.
pub struct Reading {
    /// The scan, which begins at `from`.
    pub scan: Scan,
    /// What of it is to be copied; none: all of it.
    pub ownership: Option<Arc<Ownership>>,
    /// What DBRefs in its documents become, where they follow renames.
    pub dbrefs: Option<Arc<DbRefs>>,
    /// Where it begins.
    pub from: Position,
    /// About how many bytes a reply will have.
    pub reply_bytes: u64,
}

/// Copies a partition from a position, at which its scan begins, to its end, or until told to stop.
///
/// # Errors
/// Those of reading and delivering.
pub async fn copy(
    reading: Reading,
    delivery: &Delivery,
    flow: &Flow,
    stop: &Stop,
    progress: &impl Advance,
) -> Result<Ended> {
    let (sender, mut batches) = mpsc::channel::<Held>(1);
    let Reading { scan, ownership, dbrefs, from, reply_bytes } = reading;
    let (memory, limits) = (flow.memory.clone(), Arc::clone(&flow.limits));
    let reading = read(scan, Reader { after: from, ownership, dbrefs, memory, limits, reply_bytes, batches: sender });
    tokio::pin!(reading);
    let mut tracker: Tracker<Finding> = Tracker::default();
    let mut in_flight = FuturesUnordered::new();
    let most = if delivery.in_order { 1 } else { IN_FLIGHT };
    let mut ending = None;
    let mut is_drained = false;
    let mut is_stopping = false;
    loop {
        if in_flight.is_empty() {
            match &ending {
                Some(_) if is_drained => break,
                _ if is_stopping => return Ok(Ended::Stopped),
                _ => {}
            }
        }
        let may_take = !is_stopping && !is_drained && in_flight.len() < most;
        tokio::select! {
            biased;
            () = stop.give_up(), if is_stopping => return Ok(Ended::Stopped),
            () = stop.requested(), if !is_stopping => is_stopping = true,
            Some(acknowledged) = in_flight.next(), if !in_flight.is_empty() => {
                let (number, what): (BatchNumber, Acknowledged<Finding>) = acknowledged?;
                for covered in tracker.acknowledged(number, what) {
                    progress.advance(covered);
                }
            }
            held = batches.recv(), if may_take => match held {
                Some((batch, reserved)) => {
                    let number = tracker.sending();
                    in_flight.push(async move {
                        let bytes = batch.documents.size() as u64;
                        let _place = flow.writers.enter().await?;
                        let what = delivery.deliver(batch).await?;
                        drop(reserved);
                        flow.acknowledged(bytes);
                        Ok::<_, Error>((number, what))
                    });
                }
                None => is_drained = true,
            },
            read = &mut reading, if ending.is_none() && !is_stopping => ending = Some(read?),
        }
    }
    debug_assert!(tracker.is_placed(), "the last batch of a reply says where it ends");
    match ending {
        Some(ending) => Ok(Ended::Read(ending)),
        None => Ok(Ended::Stopped),
    }
}

/// Reads the scan to its end and cuts it into batches.
async fn read(mut scan: Scan, mut reader: Reader) -> Result<ReadingEnded> {
    loop {
        let mut reserved = reader.reserve().await?;
        match scan.next().await? {
            Next::Documents(reply) => {
                let bytes = reply.documents.size() as u64;
                // What is changed lies beside what it was.
                let bytes = if reader.dbrefs.is_some() { bytes * 2 } else { bytes };
                reader.memory.resize(&mut reserved, bytes);
                reader.reply_bytes = bytes;
                reader.cut(reply, &Arc::new(reserved)).await?;
            }
            Next::End => return Ok(ReadingEnded::Finished(Ending::Complete, None)),
            Next::Gone(gone) => return Ok(ReadingEnded::Finished(Ending::Gone, Some(gone))),
            Next::Lost(why) => return Ok(ReadingEnded::Lost(why)),
        }
    }
}

/// Where the reading side of a partition is.
struct Reader {
    after: Position,
    ownership: Option<Arc<Ownership>>,
    dbrefs: Option<Arc<DbRefs>>,
    memory: Memory,
    limits: Arc<Limits>,
    /// How large the next reply is expected to be: like the last one.
    reply_bytes: u64,
    batches: mpsc::Sender<Held>,
}

impl Reader {
    async fn reserve(&self) -> Result<Reserved> {
        let reserved = self.memory.reserve(self.reply_bytes).await;
        reserved.ok_or_else(|| Error::internal("the memory was closed"))
    }

    /// Cuts a reply into batches.
    async fn cut(&mut self, reply: Reply, reserved: &Arc<Reserved>) -> Result<()> {
        let Reply { documents: mut rest, position: end, is_there } = reply;
        while !rest.is_empty() {
            let count = self.fitting(&rest);
            let batch = rest.part(0..count);
            rest = rest.part(count..rest.len());
            let position = match &end {
                end if rest.is_empty() => Some(end.clone()),
                // Within a reply there is a place to go on from after each document only where documents are keys.
                Position::Record(_) | Position::Start => None,
                Position::After(_) => Some(Position::After(last_key(&batch)?)),
            };
            self.send((batch, is_there), position, reserved).await?;
        }
        Ok(())
    }

    /// How many of the first of these make a batch: at least one.
    fn fitting(&self, documents: &Documents) -> usize {
        let (most_documents, most_bytes) = self.batch_size();
        let mut size = 0;
        let fitting = documents.iter().take(most_documents).take_while(|document| {
            size += document.as_bytes().len();
            size <= most_bytes
        });
        fitting.count().max(1)
    }

    /// How many documents, and bytes, the next batch has at most: fewer where a limit would make it a lump.
    fn batch_size(&self) -> (usize, usize) {
        let BatchSize { documents, bytes } = self.limits.batch_size();
        ((documents as usize).min(BATCH_DOCUMENTS), (bytes as usize).min(BATCH_BYTES))
    }

    async fn send(
        &mut self,
        (documents, is_there): (Documents, bool),
        position: Option<Position>,
        reserved: &Arc<Reserved>,
    ) -> Result<()> {
        let (documents, orphans) = match &self.ownership {
            None => (documents, 0),
            Some(ownership) => ownership.sift(documents)?,
        };
        // Whose they are says the shard key that they have on the source.
        let documents = match &self.dbrefs {
            None => documents,
            Some(dbrefs) => documents.changed(|document| dbrefs.renamed(document)),
        };
        self.limits.admit(documents.len(), documents.size()).await;
        let extent = match &position {
            Some(Position::After(last)) => {
                let after = std::mem::replace(&mut self.after, Position::After(last.clone()));
                Extent::Range { after, last: last.clone() }
            }
            _ if is_there => Extent::There,
            _ => Extent::Scattered,
        };
        // The receiver is gone only when the partition has ended with an error, which is what is reported.
        match self.batches.send((Batch { documents, orphans, extent, position }, Arc::clone(reserved))).await {
            Ok(()) => Ok(()),
            Err(_) => std::future::pending().await,
        }
    }
}

fn last_key(documents: &Documents) -> Result<Key> {
    documents.last().and_then(Key::of).ok_or_else(|| unreadable("a document without _id"))
}

fn unreadable(why: impl std::fmt::Display) -> Error {
    Error::source(format!("the source sent documents that cannot be read: {why}"))
}
