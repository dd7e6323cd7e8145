//! What writes a lane's documents to the target: a few writers, each with a connection and a session of its own.
//!
//! # Fencing
//!
//! A worker that was frozen just before a write, and wakes up after another one took its lane over and committed the
//! job, must not change the target. Its lease is of no use then: it looked at it before it froze. So each writer writes
//! in a session whose id follows from the job, the lane and the writer's number ([`SessionId`]), with a transaction
//! number that begins with the lane's epoch ([`TransactionNumber`]). Whoever claims a lane first raises all its sessions
//! to the new epoch ([`Writers::fence`]); from then on the server refuses what an earlier holder sends (225).
//!
//! Every write takes a new number, also one that is sent again after an answer that was lost. With the same number the
//! server would answer from what it remembers; but then a number would have to stay with its batch for as long as that
//! is tried, and it remembers nothing of what was refused. With a new one it tries again, and what is there already is
//! told apart as after any crash (`copy/deliver.rs`), which has to be right anyway. A number is never used twice, or the
//! server would take another batch for the same one and leave it out: each claim has an epoch of its own, and makes its
//! writers once.
//!
//! A write whose answer was lost may still be on its way. Before anything else is sent, its session is raised by one:
//! then it either was done or never will be.

use super::answer::{Answer, changed, failure};
use super::deployment::Deployment;
use super::documents::Documents;
use super::failure::is_transient;
use super::wire::{self, Connection, Sequence};
use super::{WTIMEOUT_MS, marker};
use crate::crash;
use crate::model::lease::Epoch;
use crate::model::plan::LaneName;
use crate::model::session::{SessionId, TransactionNumber};
use bson::spec::BinarySubtype;
use bson::{Binary, RawDocumentBuf, rawdoc};
use mongodb::error::Error as DriverError;
use mongodb::options::ServerAddress;
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::{Semaphore, SemaphorePermit};

/// How many writers a lane has: more than ever write at the same time, since a target is busy with fewer. A later
/// version must not have fewer, or it would not fence what an earlier one began.
pub const WRITERS: usize = 16;

/// What the marker's collection must have, and nobody takes away but `abandon`.
const NO_MARKER: &str = "the job's marker is not in mongoferry.jobs any more; was the job abandoned?";

/// Whose writers they are.
#[derive(Debug, Clone)]
pub struct Fence {
    /// The job's id.
    pub job: String,
    /// The lane.
    pub lane: LaneName,
    /// The claim's epoch.
    pub epoch: Epoch,
}

/// The writers of a lane.
pub struct Writers {
    target: Deployment,
    fence: Option<Fence>,
    /// Those that do not write just now. There are never fewer than permits.
    idle: Mutex<Vec<Writer>>,
    permits: Semaphore,
    /// Held while sessions are raised: nobody writes before that is done.
    raising: tokio::sync::Mutex<()>,
    /// How often that failed.
    failures: AtomicUsize,
}

/// One of them.
struct Writer {
    number: usize,
    session: Option<Session>,
    connection: Option<(ServerAddress, Connection)>,
}

struct Session {
    id: SessionId,
    last: TransactionNumber,
    /// Whether something may be on its way in it that was sent before.
    is_open: bool,
}

impl Session {
    /// The fields that make a command a write of this session, with the next number.
    fn sign(&mut self, command: &mut RawDocumentBuf) -> Result<(), DriverError> {
        self.last = self.last.next().ok_or_else(|| DriverError::custom("a lane's epoch has no numbers left"))?;
        self.is_open = true;
        let id = Binary { subtype: BinarySubtype::Uuid, bytes: self.id.bytes().to_vec() };
        command.append(bson::cstr!("lsid"), rawdoc! { "id": id });
        command.append(bson::cstr!("txnNumber"), self.last.value());
        Ok(())
    }
}

impl Writers {
    /// Made once a claim. Without a fence, and where the connection string asks for what only the driver can do, what
    /// an earlier holder sends is not refused.
    ///
    /// # Errors
    /// An epoch that no lane reaches.
    pub fn new(target: Deployment, fence: Option<Fence>) -> Result<Self, DriverError> {
        let fence = match target.connector() {
            Ok(_) => fence,
            Err(reason) => {
                tracing::info!(
                    "writes go through the driver and are not fenced: the connection string asks for {reason}"
                );
                None
            }
        };
        let mut idle = Vec::with_capacity(WRITERS);
        // Taken from the end: the first ones are used the most, and keep their connections.
        for number in (0..WRITERS).rev() {
            let session = match &fence {
                None => None,
                Some(fence) => Some(Session {
                    id: SessionId::new(&fence.job, &target.identity.set_name, &fence.lane, number),
                    last: TransactionNumber::first(fence.epoch)
                        .ok_or_else(|| DriverError::custom(format!("epoch {} is beyond all numbers", fence.epoch)))?,
                    is_open: true,
                }),
            };
            idle.push(Writer { number, session, connection: None });
        }
        let permits = Semaphore::new(WRITERS);
        Ok(Self {
            target,
            fence,
            idle: Mutex::new(idle),
            permits,
            raising: tokio::sync::Mutex::default(),
            failures: AtomicUsize::new(0),
        })
    }

    /// Where they write.
    pub fn target(&self) -> &Deployment {
        &self.target
    }

    /// Whether the server refuses what an earlier holder of the lane sends.
    pub fn are_fenced(&self) -> bool {
        self.fence.is_some()
    }

    /// Raises all sessions in which something may be on its way, of an earlier holder or of ours: when it returns, a
    /// majority knows their numbers. Does nothing where there are none.
    ///
    /// # Errors
    /// [`code::TRANSACTION_TOO_OLD`](super::failure::code::TRANSACTION_TOO_OLD) when a later holder was faster; else
    /// the driver's, and it has to be called again.
    pub async fn fence(&self) -> Result<(), DriverError> {
        let Some(fence) = &self.fence else { return Ok(()) };
        let failures = self.failures.load(Ordering::Relaxed);
        let _raising = self.raising.lock().await;
        if failures != self.failures.load(Ordering::Relaxed) {
            // What somebody else has just waited for in vain need not be waited for again.
            return Err(io::Error::other("the sessions of the target's writers were not raised").into());
        }
        let mut open = Vec::new();
        while self.idle().iter().any(Writer::is_open) {
            open.extend(self.take(Writer::is_open).await?);
        }
        if open.is_empty() {
            return Ok(());
        }
        let raised = crash::around("fence", self.raise(fence, &mut open)).await;
        if raised.is_err() {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        raised
    }

    async fn raise(&self, fence: &Fence, open: &mut [Busy<'_>]) -> Result<(), DriverError> {
        let (address, mut connection) = self.connect().await?;
        let last = open.len() - 1;
        for (place, writer) in open.iter_mut().map(DerefMut::deref_mut).enumerate() {
            let Some(session) = &mut writer.session else { continue };
            let number = session.last.next().unwrap_or(session.last);
            let (database, mut command) = marker::fenced(&fence.job, &fence.lane, writer.number, number);
            // A majority that has the last one has all.
            let concern = if place == last {
                rawdoc! { "w": "majority", "wtimeout": WTIMEOUT_MS }
            } else {
                rawdoc! { "w": 1 }
            };
            command.append(bson::cstr!("writeConcern"), concern);
            command.append(bson::cstr!("comment"), self.target.comment().0.as_str());
            session.sign(&mut command)?;
            let reply = self.answered(&address, connection.exchange(database, command, None)).await?;
            if let Some(error) = failure(&reply) {
                return Err(error);
            }
            match Answer::read(&reply) {
                Answer::NoMajority(reason) => return Err(io::Error::other(reason).into()),
                Answer::Acknowledged(_) if changed(&reply) == 1 => {}
                Answer::Acknowledged(refusals) => {
                    return Err(match refusals.into_iter().next() {
                        Some(refusal) => io::Error::other(refusal.reason).into(),
                        None => DriverError::custom(NO_MARKER),
                    });
                }
            }
        }
        for writer in open.iter_mut() {
            if let Some(session) = &mut writer.session {
                session.is_open = false;
            }
        }
        if let Some(writer) = open.last_mut() {
            writer.connection = Some((address, connection));
        }
        Ok(())
    }

    /// Runs a write command, with the documents, if any, as its array `documents`.
    ///
    /// # Errors
    /// The driver's, or like the driver's.
    pub async fn write(
        &self,
        database: &str,
        mut command: RawDocumentBuf,
        documents: &Documents,
    ) -> Result<Answer, DriverError> {
        if self.target.connector().is_err() {
            let command = if documents.is_empty() { command } else { documents.append_to(command)? };
            let reply = self.target.run_raw(database, command).await?;
            return Ok(Answer::read(&RawDocumentBuf::try_from(&reply)?));
        }
        self.fence().await?;
        let mut writer = self.take(|_| true).await?.ok_or_else(|| DriverError::custom("no writer is idle"))?;
        let (address, mut connection) = match writer.connection.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        if let Some(session) = &mut writer.session {
            session.sign(&mut command)?;
        }
        let sequence = (!documents.is_empty()).then_some(Sequence { name: "documents", documents: documents.bytes() });
        let reply = self.answered(&address, connection.exchange(database, command, sequence)).await?;
        if let Some(session) = &mut writer.session {
            session.is_open = false;
        }
        if let Some(error) = failure(&reply) {
            if !is_transient(&error) {
                writer.connection = Some((address, connection));
            }
            return Err(error);
        }
        let answer = Answer::read(&reply);
        if answer.is_from_primary() {
            writer.connection = Some((address, connection));
        }
        Ok(answer)
    }

    async fn connect(&self) -> Result<(ServerAddress, Connection), DriverError> {
        let connector = self.target.connector().map_err(|reason| DriverError::custom(reason.to_owned()))?;
        let address = self.target.writable().await?;
        let connection = connector.connect(&address).await?;
        tracing::debug!(%address, compression = connection.compression(), fenced = self.are_fenced(), "writer connected");
        Ok((address, connection))
    }

    /// Waits for an answer for as long as writes go to the server.
    async fn answered(
        &self,
        address: &ServerAddress,
        exchange: impl Future<Output = Result<RawDocumentBuf, DriverError>>,
    ) -> Result<RawDocumentBuf, DriverError> {
        wire::answered(exchange, || self.target.ensure_writable(address)).await
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Writer>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a writer is idle, and takes one of this kind, if there is one.
    async fn take(&self, is_wanted: impl Fn(&Writer) -> bool) -> Result<Option<Busy<'_>>, DriverError> {
        let permit = self.permits.acquire().await.map_err(DriverError::custom)?;
        let mut idle = self.idle();
        let found = idle.iter().rposition(is_wanted).map(|place| idle.remove(place));
        Ok(found.map(|writer| Busy { writers: self, writer: Some(writer), _permit: permit }))
    }
}

impl Writer {
    fn is_open(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.is_open)
    }
}

/// A writer that writes; idle again when this is dropped.
struct Busy<'a> {
    writers: &'a Writers,
    writer: Option<Writer>,
    /// Given back after the writer.
    _permit: SemaphorePermit<'a>,
}

const ONLY_TAKEN_BY_DROP: &str = "the writer is taken out when it is dropped, and not before";

impl Deref for Busy<'_> {
    type Target = Writer;

    fn deref(&self) -> &Writer {
        self.writer.as_ref().expect(ONLY_TAKEN_BY_DROP)
    }
}

impl DerefMut for Busy<'_> {
    fn deref_mut(&mut self) -> &mut Writer {
        self.writer.as_mut().expect(ONLY_TAKEN_BY_DROP)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        if let Some(writer) = self.writer.take() {
            let mut idle = self.writers.idle();
            idle.push(writer);
            // The lowest number at the end.
            idle.sort_by_key(|writer| std::cmp::Reverse(writer.number));
        }
    }
}
