//! Delivering one batch: inserted, and every document that is refused settled, until all of it is acknowledged.
//!
//! What the target refuses because its `_id` is taken is one of three things. In a collection that this job created and
//! inside the replay window it is this job's own, from an attempt that was killed or whose answer was lost: it is
//! brought to what the source has *now*, read again, so that an older version never overwrites a newer one. An equal
//! document is as good as inserted, wherever it came from. Anything else is a foreign document: it stays, and is a
//! finding.

use super::partition::IN_FLIGHT;
use crate::claim::Claim;
use crate::error::{Error, Result};
use crate::model::counts::Counts;
use crate::model::cursor::{Acknowledged, Key, Position};
use crate::model::finding::Finding;
use crate::model::job::Optime;
use crate::model::lane::LaneProgress;
use crate::model::namespace::Namespace;
use crate::model::partition::{Bound, Range};
use crate::mongo::deployment::Deployment;
use crate::mongo::failure::{code, is_transient, is_transient_code};
use crate::mongo::read;
use crate::mongo::write::{self, Answer, Documents, Refusal};
use crate::mongo::writers::Writers;
use bson::{RawDocument, RawDocumentBuf};
use futures_util::{StreamExt, TryStreamExt, stream};
use mongodb::error::Error as DriverError;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio_retry::strategy::{ExponentialBackoff, jitter};

/// How often a batch is sent again before the target counts as unavailable: with the waits between, about two minutes,
/// longer than an election.
const ATTEMPTS: usize = 60;

/// How many documents whose `_id` is taken are looked at side by side.
const LOOKUPS: usize = 32;

/// Where a partition's batches go.
pub struct Delivery {
    /// Read again from here what may be outdated.
    pub source: Deployment,
    /// Written to.
    pub target: Deployment,
    /// What writes to it.
    pub writers: Arc<Writers>,
    /// The collection on the source.
    pub from: Namespace,
    /// The collection on the target.
    pub to: Namespace,
    /// Its UUID there.
    pub uuid: String,
    /// The part of it that is copied.
    pub range: Range,
    /// Whether this job has created it.
    pub created: bool,
    /// Whether an earlier claim may have sent what is delivered now: the recorded replay window.
    pub replay: bool,
    /// Whether what was sent may lie anywhere, so that it has to be looked for to the end.
    pub probes_all: bool,
    /// Reads are not older than this.
    pub not_before: Optime,
    /// Whether this worker still may send.
    pub claim: Arc<Claim<LaneProgress>>,
    /// How many batches in a row were looked for on the target in vain.
    pub empty_probes: AtomicUsize,
}

/// Documents that are sent together.
#[derive(Debug)]
pub struct Batch {
    /// The documents.
    pub documents: Documents,
    /// Which documents of the source they are.
    pub extent: Extent,
    /// Where the last one is; none when a place to go on from comes with a later batch.
    pub position: Option<Position>,
}

/// Which documents of the source a batch has.
#[derive(Debug)]
pub enum Extent {
    /// All between two places in `_id` order.
    Range {
        /// Where the batch before it ended.
        after: Position,
        /// The `_id` of the last one.
        last: Key,
    },
    /// Those that lay beside each other on the disk, whatever their `_id`s.
    Scattered,
}

impl Delivery {
    /// Delivers a batch. When it returns, a majority of the target has what the result says.
    ///
    /// # Errors
    /// Fenced when the lease went to another worker, unavailable when the target does not take it.
    pub async fn deliver(&self, batch: Batch) -> Result<Acknowledged<Finding>> {
        let there = self.probe(&batch).await?;
        let Missing { documents, places } = missing(&batch.documents, &there);
        let found = batch.documents.len() - documents.len();
        let mut is_replay = self.replay;
        let mut waits = waits();
        let refusals = loop {
            if documents.is_empty() {
                break Vec::new();
            }
            self.claim.ensure_may_send().await?;
            let failure = match write::insert(&self.writers, &self.to, &self.uuid, &documents).await {
                Ok(Answer::Acknowledged(refusals)) => match transient(&refusals) {
                    None => break refusals,
                    Some(reason) => reason,
                },
                Ok(Answer::NoMajority(reason)) => reason,
                Err(error) if is_transient(&error) => error.to_string(),
                Err(error) => return Err(self.failed(&error)),
            };
            // Some of it may have arrived, or all of it: from here on what is there already may be our own.
            is_replay = true;
            self.pause(&mut waits, &failure).await?;
        };
        let in_batch = |refusal: Refusal| places.get(refusal.index).map(|place| Refusal { index: *place, ..refusal });
        let mut refusals: Vec<Refusal> = refusals.into_iter().filter_map(in_batch).collect();
        if found > 0 {
            refusals.extend(taken(&batch.documents, &there));
        }
        self.settle_all(batch, refusals, there, is_replay).await
    }

    /// What is there already, up to the batch's last document, that an earlier claim may have sent: looked at before it
    /// is sent again, since a server takes many times longer to refuse a document than to insert one. A few batches in
    /// a row of which nothing is there, more than were ever in flight, and it is not worth looking any more.
    async fn probe(&self, batch: &Batch) -> Result<HashMap<Key, RawDocumentBuf>> {
        let is_beyond = !self.probes_all && self.empty_probes.load(Ordering::Relaxed) > IN_FLIGHT;
        if !self.replay || is_beyond {
            return Ok(HashMap::new());
        }
        let there = match &batch.extent {
            Extent::Range { after, last } => {
                // In a collection that others write to there may be any number of documents between ours.
                let most = if self.created { 0 } else { batch.documents.len() * 2 };
                self.between(after, Bound::At(last.clone()), most).await?
            }
            Extent::Scattered => HashMap::new(),
        };
        if there.is_empty() {
            self.empty_probes.fetch_add(1, Ordering::Relaxed);
        } else {
            self.empty_probes.store(0, Ordering::Relaxed);
        }
        Ok(there)
    }

    /// What the target has after a position of this partition and before a bound.
    async fn between(&self, after: &Position, upper: Bound, most: usize) -> Result<HashMap<Key, RawDocumentBuf>> {
        let lower = after.key().map_or_else(|| self.range.lower.clone(), |key| Bound::At(key.clone()));
        let range = Range { lower, upper };
        let read = || read::documents_in(&self.target, &self.to, &range, most);
        let mut there = self.retried(&self.target, read).await?;
        if let Some(before) = after.key() {
            there.remove(before);
        }
        Ok(there)
    }

    /// Settles what an earlier claim has sent and the scan did not read again, since the source has deleted it
    /// meanwhile: a document that stayed would be one too many. Only where all that is there is this job's.
    async fn settle_unread(
        &self,
        there: &HashMap<Key, RawDocumentBuf>,
        read: &Documents,
        counts: &mut Counts,
    ) -> Result<()> {
        if !self.created || there.is_empty() {
            return Ok(());
        }
        let read: HashSet<Key> = read.iter().filter_map(Key::of).collect();
        let unread: Vec<_> =
            there.keys().filter(|key| !read.contains(*key)).map(|key| self.bring_to_now(key)).collect();
        let settled: Vec<Settled> = stream::iter(unread).buffer_unordered(LOOKUPS).try_collect().await?;
        for settled in settled {
            match settled {
                Settled::Replaced(now) => {
                    counts.read += 1;
                    counts.read_bytes += now.as_bytes().len() as u64;
                    counts.replaced += 1;
                    counts.replaced_bytes += now.as_bytes().len() as u64;
                    counts.wrote(now.as_bytes());
                }
                _ => counts.deleted += 1,
            }
        }
        Ok(())
    }

    /// The same behind the last document of the partition.
    ///
    /// # Errors
    /// As [`Delivery::deliver`].
    pub async fn settle_tail(&self, last: &Position) -> Result<Counts> {
        let mut counts = Counts::default();
        if self.replay && self.created {
            let there = self.between(last, self.range.upper.clone(), 0).await?;
            self.settle_unread(&there, &Documents::default(), &mut counts).await?;
        }
        Ok(counts)
    }

    /// Settles what was refused, and counts.
    async fn settle_all(
        &self,
        batch: Batch,
        refusals: Vec<Refusal>,
        mut there: HashMap<Key, RawDocumentBuf>,
        is_replay: bool,
    ) -> Result<Acknowledged<Finding>> {
        let documents = &batch.documents;
        let (read, read_bytes) = (documents.len() as u64, documents.size() as u64);
        let mut counts = Counts { read, read_bytes, ..Counts::default() };
        documents.iter().for_each(|document| counts.wrote(document.as_bytes()));
        let mut findings = Vec::new();
        self.settle_unread(&there, documents, &mut counts).await?;
        there.extend(self.already_there(documents, &refusals, &there).await?);
        let settling: Vec<_> =
            refusals.into_iter().map(|refusal| self.settle_one(documents, refusal, &there, is_replay)).collect();
        let settled: Vec<(Settled, &RawDocument)> = stream::iter(settling).buffered(LOOKUPS).try_collect().await?;
        for (settled, document) in settled {
            match settled {
                Settled::Equal => {
                    counts.replayed += u64::from(is_replay);
                    counts.present += u64::from(!self.created);
                }
                Settled::Replaced(now) => {
                    counts.replayed += 1;
                    counts.replaced += 1;
                    counts.replaced_bytes += now.as_bytes().len() as u64;
                    counts.did_not_write(document.as_bytes());
                    counts.wrote(now.as_bytes());
                }
                Settled::Deleted => {
                    counts.replayed += 1;
                    counts.deleted += 1;
                    counts.did_not_write(document.as_bytes());
                }
                Settled::Rejected(text) => {
                    counts.rejected += 1;
                    counts.rejected_bytes += document.as_bytes().len() as u64;
                    counts.did_not_write(document.as_bytes());
                    findings.push(Finding { namespace: self.from.clone(), text });
                }
            }
        }
        Ok(Acknowledged { position: batch.position, counts, findings })
    }

    /// What the target has where many documents were refused: read at once, since one by one takes long.
    async fn already_there(
        &self,
        documents: &Documents,
        refusals: &[Refusal],
        known: &HashMap<Key, RawDocumentBuf>,
    ) -> Result<HashMap<Key, RawDocumentBuf>> {
        let taken: Vec<Key> = refusals
            .iter()
            .filter(|refusal| refusal.is_id_taken)
            .filter_map(|refusal| Key::of(documents.get(refusal.index)?))
            .filter(|key| !known.contains_key(key))
            .collect();
        match (taken.first(), taken.last()) {
            (Some(first), Some(last)) if taken.len() > LOOKUPS => {
                // Foreign documents may lie between ours: no more than twice as many are read as there are to be found.
                let most = taken.len() * 2;
                let range = Range { lower: Bound::At(first.clone()), upper: Bound::At(last.clone()) };
                self.retried(&self.target, || read::documents_in(&self.target, &self.to, &range, most)).await
            }
            _ => Ok(HashMap::new()),
        }
    }

    /// Settles one document that was refused, and says which.
    async fn settle_one<'a>(
        &self,
        documents: &'a Documents,
        refusal: Refusal,
        there: &HashMap<Key, RawDocumentBuf>,
        is_replay: bool,
    ) -> Result<(Settled, &'a RawDocument)> {
        let Some(document) = documents.get(refusal.index) else {
            return Err(self.target.side.error(format!("the target refused document {} of fewer", refusal.index)));
        };
        let Some(key) = Key::of(document) else {
            return Err(self.source.side.error(format!("{} has a document without _id", self.from)));
        };
        if !refusal.is_id_taken {
            let text =
                format!("the target refused the document with _id {key:?}: {} (code {})", refusal.reason, refusal.code);
            return Ok((Settled::Rejected(text), document));
        }
        let is_equal = |there: &RawDocument| there.as_bytes() == document.as_bytes();
        if there.get(&key).is_some_and(|there| is_equal(there)) {
            return Ok((Settled::Equal, document));
        }
        let there = self.retried(&self.target, || read::document(&self.target, &self.to, &key, None)).await?;
        if there.as_deref().is_some_and(is_equal) {
            return Ok((Settled::Equal, document));
        }
        if !self.created || !is_replay {
            let text = format!("the target has another document with _id {key:?}, which was left as it is");
            return Ok((Settled::Rejected(text), document));
        }
        Ok((self.bring_to_now(&key).await?, document))
    }

    /// Brings one of our own documents on the target to what the source has now.
    async fn bring_to_now(&self, key: &Key) -> Result<Settled> {
        let now =
            self.retried(&self.source, || read::document(&self.source, &self.from, key, Some(self.not_before))).await?;
        match now {
            None => {
                self.written(|| write::delete(&self.writers, &self.to, &self.uuid, key)).await?;
                Ok(Settled::Deleted)
            }
            Some(now) => {
                if Key::of(&now).as_ref() == Some(key) {
                    self.written(|| write::replace(&self.writers, &self.to, &self.uuid, key, &now)).await?;
                } else {
                    // The same key of another type (1 and 1.0): an `_id` cannot be changed in place.
                    self.written(|| write::delete(&self.writers, &self.to, &self.uuid, key)).await?;
                }
                // Deleted just now, or by whoever: a replacement without upsert does nothing then.
                self.ensure_there(&now).await?;
                Ok(Settled::Replaced(now))
            }
        }
    }

    /// Makes sure that a document is on the target, after a replacement that may have found none to replace.
    async fn ensure_there(&self, document: &RawDocument) -> Result<()> {
        let mut one = Documents::default();
        one.push(document);
        let answer = self.retried_write(|| write::insert(&self.writers, &self.to, &self.uuid, &one)).await?;
        match answer.into_iter().find(|refusal| !refusal.is_id_taken) {
            None => Ok(()),
            Some(refusal) => {
                Err(self.target.side.error(format!("{} refused a replayed document: {}", self.to, refusal.reason)))
            }
        }
    }

    /// A write of one document that must not be refused.
    async fn written<W>(&self, write: impl Fn() -> W) -> Result<()>
    where
        W: Future<Output = std::result::Result<Answer, DriverError>>,
    {
        match self.retried_write(write).await?.into_iter().next() {
            None => Ok(()),
            Some(refusal) => {
                Err(self.target.side.error(format!("{} refused a replayed document: {}", self.to, refusal.reason)))
            }
        }
    }

    async fn retried_write<W>(&self, write: impl Fn() -> W) -> Result<Vec<Refusal>>
    where
        W: Future<Output = std::result::Result<Answer, DriverError>>,
    {
        let mut waits = waits();
        loop {
            self.claim.ensure_may_send().await?;
            let failure = match write().await {
                Ok(Answer::Acknowledged(refusals)) => match transient(&refusals) {
                    None => return Ok(refusals),
                    Some(reason) => reason,
                },
                Ok(Answer::NoMajority(reason)) => reason,
                Err(error) if is_transient(&error) => error.to_string(),
                Err(error) => return Err(self.failed(&error)),
            };
            self.pause(&mut waits, &failure).await?;
        }
    }

    async fn retried<T, R>(&self, deployment: &Deployment, read: impl Fn() -> R) -> Result<T>
    where
        R: Future<Output = std::result::Result<T, DriverError>>,
    {
        let mut waits = waits();
        loop {
            let error = match read().await {
                Ok(found) => return Ok(found),
                Err(error) => error,
            };
            match waits.next() {
                Some(wait) if is_transient(&error) => tokio::time::sleep(wait).await,
                _ => return Err(deployment.failed(&error).during(format!("looking at what {} has", self.to))),
            }
        }
    }

    async fn pause(&self, waits: &mut impl Iterator<Item = Duration>, failure: &str) -> Result<()> {
        let Some(wait) = waits.next() else {
            return Err(self.target.side.error(format!("writing {} failed again and again: {failure}", self.to)));
        };
        tracing::warn!(namespace = %self.to, "a batch was not acknowledged, sending it again: {failure}");
        tokio::time::sleep(wait).await;
        Ok(())
    }

    fn failed(&self, error: &DriverError) -> Error {
        self.target.failed(error).during(format!("writing {}", self.to))
    }
}

/// What became of a document that was refused.
enum Settled {
    /// The same is there.
    Equal,
    /// It was brought to what the source has now, which is this.
    Replaced(RawDocumentBuf),
    /// The source has deleted it, and so has this job.
    Deleted,
    /// It is not there, and this says why.
    Rejected(String),
}

/// The documents of a batch that have to be sent, and the place of each in the batch.
struct Missing {
    documents: Documents,
    places: Vec<usize>,
}

fn missing(documents: &Documents, there: &HashMap<Key, RawDocumentBuf>) -> Missing {
    let mut missing = Missing { documents: Documents::default(), places: Vec::new() };
    for (place, document) in documents.iter().enumerate() {
        if there.is_empty() || Key::of(document).is_none_or(|key| !there.contains_key(&key)) {
            missing.documents.push(document);
            missing.places.push(place);
        }
    }
    missing
}

/// What the target would say of the documents that were not sent because they are there.
fn taken(documents: &Documents, there: &HashMap<Key, RawDocumentBuf>) -> Vec<Refusal> {
    let refusal = |(index, document): (usize, &RawDocument)| {
        let is_there = Key::of(document).is_some_and(|key| there.contains_key(&key));
        is_there.then(|| Refusal { index, code: code::DUPLICATE_KEY, is_id_taken: true, reason: String::new() })
    };
    documents.iter().enumerate().filter_map(refusal).collect()
}

pub(super) fn waits() -> impl Iterator<Item = Duration> {
    ExponentialBackoff::from_millis(2).factor(25).max_delay(Duration::from_secs(2)).map(jitter).take(ATTEMPTS)
}

/// A refusal that says nothing about the document: an election came in between.
fn transient(refusals: &[Refusal]) -> Option<String> {
    refusals.iter().find(|refusal| is_transient_code(refusal.code)).map(|refusal| refusal.reason.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::{RawBsonRef, rawdoc};

    #[test]
    fn what_is_there_is_not_sent_and_the_places_of_the_rest_are_known() {
        let mut documents = Documents::default();
        for id in 0..5 {
            documents.push(&rawdoc! { "_id": id });
        }
        let key = |id: i32| Key::from_value(RawBsonRef::Int32(id));
        let there: HashMap<Key, RawDocumentBuf> = [1, 3].map(|id| (key(id), rawdoc! { "_id": id })).into();
        let Missing { documents: rest, places } = missing(&documents, &there);
        assert_eq!(places, [0, 2, 4]);
        assert_eq!(rest.iter().filter_map(Key::of).collect::<Vec<_>>(), [key(0), key(2), key(4)]);
        assert_eq!(taken(&documents, &there).iter().map(|refusal| refusal.index).collect::<Vec<_>>(), [1, 3]);
    }
}
