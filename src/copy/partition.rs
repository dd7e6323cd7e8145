//! Copying one partition: a scan reads ahead, several batches are in flight, and the cursor follows behind over what
//! is acknowledged without a gap.

use super::deliver::{Batch, Delivery, Extent};
use crate::error::{Error, Result};
use crate::model::cursor::{Acknowledged, BatchNumber, Key, Position, Tracker};
use crate::model::finding::Finding;
use crate::model::lane::Ending;
use crate::mongo::scan::{Gone, Next, Scan};
use crate::mongo::write::Documents;
use crate::stop::Stop;
use futures_util::stream::{FuturesUnordered, StreamExt};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// How many batches of one partition are in flight. The target works on one while the next is on its way.
pub const IN_FLIGHT: usize = 3;

/// A batch ends at this many bytes...
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// ...or this many documents, whichever comes first: far below the server's limits (48 MB, 100,000 documents), so that
/// what is done again after a crash stays small.
const BATCH_DOCUMENTS: usize = 5_000;

/// How much all partitions of a lane may hold between reading and acknowledgement, in KiB.
pub const LANE_KIB: usize = 64 * 1024;

/// How a partition ended, when not by an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It is finished.
    Finished(Ending, Option<Gone>),
    /// The run was told to stop; what was acknowledged is covered.
    Stopped,
}

/// Where a partition reports how far it is.
pub trait Advance: Send {
    /// The cursor now covers this as well.
    fn advance(&self, what: Acknowledged<Finding>);
}

/// A batch on its way, and its share of the lane's memory.
type Held = (Batch, OwnedSemaphorePermit);

/// Copies a partition from a position, at which its scan begins, to its end, or until told to stop.
///
/// # Errors
/// Those of reading and delivering.
pub async fn copy(
    scan: Scan,
    from: Position,
    delivery: &Delivery,
    memory: Arc<Semaphore>,
    stop: &Stop,
    progress: &impl Advance,
) -> Result<Ended> {
    let (sender, mut batches) = mpsc::channel::<Held>(1);
    let reading = read(scan, Reader { after: from, memory, batches: sender });
    tokio::pin!(reading);
    let mut tracker: Tracker<Finding> = Tracker::default();
    let mut in_flight = FuturesUnordered::new();
    let mut ending = None;
    let mut is_drained = false;
    let mut is_stopping = false;
    loop {
        if in_flight.is_empty() {
            match ending {
                Some((ending, gone)) if is_drained => return Ok(Ended::Finished(ending, gone)),
                _ if is_stopping => return Ok(Ended::Stopped),
                _ => {}
            }
        }
        let may_take = !is_stopping && !is_drained && in_flight.len() < IN_FLIGHT;
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
                Some((batch, permit)) => {
                    let number = tracker.sending();
                    in_flight.push(async move {
                        let what = delivery.deliver(batch).await?;
                        drop(permit);
                        Ok::<_, Error>((number, what))
                    });
                }
                None => is_drained = true,
            },
            read = &mut reading, if ending.is_none() && !is_stopping => ending = Some(read?),
        }
    }
}

/// Reads the scan to its end and cuts it into batches.
async fn read(mut scan: Scan, mut reader: Reader) -> Result<(Ending, Option<Gone>)> {
    loop {
        let reply = match scan.next().await? {
            Next::Documents(reply) => reply,
            Next::End => return Ok((Ending::Complete, None)),
            Next::Gone(gone) => return Ok((Ending::Gone, Some(gone))),
        };
        let mut documents = Documents::default();
        for value in reply.doc_slices().map_err(unreadable)? {
            let document = value.map_err(unreadable)?.as_document().ok_or_else(|| unreadable("no document"))?;
            if scan.is_repeated(document) {
                continue;
            }
            let is_full =
                documents.size() + document.as_bytes().len() > BATCH_BYTES || documents.len() == BATCH_DOCUMENTS;
            if is_full && !documents.is_empty() {
                reader.send(std::mem::take(&mut documents)).await?;
            }
            documents.push(document);
        }
        if !documents.is_empty() {
            reader.send(documents).await?;
        }
    }
}

/// Where the reading side of a partition is.
struct Reader {
    after: Position,
    memory: Arc<Semaphore>,
    batches: mpsc::Sender<Held>,
}

impl Reader {
    async fn send(&mut self, documents: Documents) -> Result<()> {
        let last = documents.len().checked_sub(1).and_then(|last| documents.get(last)).and_then(Key::of);
        let last = last.ok_or_else(|| unreadable("a document without _id"))?;
        let kib = (documents.size() / 1024 + 1).min(LANE_KIB) as u32;
        let permit = Arc::clone(&self.memory).acquire_many_owned(kib).await;
        let permit = permit.map_err(|error| Error::internal(error.to_string()))?;
        let after = std::mem::replace(&mut self.after, Position::After(last.clone()));
        // The receiver is gone only when the partition has ended with an error, which is what is reported.
        let extent = Extent::Range { after, last: last.clone() };
        match self.batches.send((Batch { documents, extent, last }, permit)).await {
            Ok(()) => Ok(()),
            Err(_) => std::future::pending().await,
        }
    }
}

fn unreadable(why: impl std::fmt::Display) -> Error {
    Error::source(format!("the source sent documents that cannot be read: {why}"))
}
