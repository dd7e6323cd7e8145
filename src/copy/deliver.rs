//! Delivering one batch: looked for where it may have been sent already, sent, what is refused settled, what stays
//! refused kept, until all of it is acknowledged.
//!
//! ```text
//!   probe ──▶ send (send.rs) ──▶ settle (settle.rs) ──▶ keep what is rejected (rejects.rs) ──▶ acknowledged
//! ```
//!
//! The last arrow is what protects a rejected document: no cursor passes it before it lies in the state.

use super::ownership::Ownership;
use super::partition::IN_FLIGHT;
use super::rejects::Rejects;
use crate::claim::Claim;
use crate::error::{Error, Result};
use crate::model::choice::OnConflict;
use crate::model::counts::Counts;
use crate::model::cursor::{Acknowledged, Key, Position};
use crate::model::dbref::DbRefs;
use crate::model::digest::Digest;
use crate::model::document_filter::DocumentFilter;
use crate::model::finding::Finding;
use crate::model::job::Optime;
use crate::model::lane::LaneProgress;
use crate::model::locator::Locator;
use crate::model::namespace::Namespace;
use crate::model::partition::{Bound, Range};
use crate::model::reject::Rejected;
use crate::model::work::Progress;
use crate::mongo::deployment::Deployment;
use crate::mongo::documents::Documents;
use crate::mongo::read::{self, Found};
use crate::mongo::writers::Writers;
use bson::RawDocument;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Where a partition's batches go. `P` is the progress of the work that is claimed for it.
pub struct Delivery<P: Progress = LaneProgress> {
    /// Read again from here what may be outdated.
    pub source: Deployment,
    /// Looked at.
    pub target: Deployment,
    /// Write to it.
    pub writers: Arc<Writers>,
    /// The collection on the source.
    pub from: Namespace,
    /// The collection on the target.
    pub to: Namespace,
    /// Its UUID there.
    pub uuid: String,
    /// How its documents are found there.
    pub locator: Locator,
    /// The part of it that is copied.
    pub range: Range,
    /// Which of its documents are copied; none: all of them.
    pub filter: Option<DocumentFilter>,
    /// What DBRefs in them become, where they follow renames.
    pub dbrefs: Option<Arc<DbRefs>>,
    /// What of it is this shard's, where the collection is sharded.
    pub ownership: Option<Arc<Ownership>>,
    /// Whether its documents are to be there in the order in which they are delivered.
    pub in_order: bool,
    /// Whether this job has created it.
    pub created: bool,
    /// Whether an earlier claim may have sent what is delivered now: the recorded replay window.
    pub replay: bool,
    /// Whether what was sent may lie anywhere, so that it has to be looked for to the end.
    pub probes_all: bool,
    /// Reads are not older than this.
    pub not_before: Optime,
    /// What happens to a foreign document in the way.
    pub on_conflict: OnConflict,
    /// Whether a digest is taken of what is written.
    pub digests: bool,
    /// Whether nothing is sent: what is read is counted, as if the target had taken it.
    pub is_dry: bool,
    /// Where documents go that the target does not take.
    pub rejects: Arc<Rejects>,
    /// Whether this worker still may send.
    pub claim: Arc<Claim<P>>,
    /// How many batches in a row were looked for on the target in vain.
    pub empty_probes: AtomicUsize,
}

/// What part of its collection a batch is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Extent {
    /// All documents of the source after a position, up to and including this `_id`, in `_id` order.
    Range {
        /// Where the batch before it ended.
        after: Position,
        /// The `_id` of the last one.
        last: Key,
    },
    /// Those of a capped collection that were copied before: the target has them, or had them until newer ones came.
    There,
    /// Any documents: read in the order of the disk, where a document that is deleted and inserted again meanwhile comes
    /// twice.
    Scattered,
}

/// Documents that are sent together.
#[derive(Debug)]
pub struct Batch {
    /// The documents.
    pub documents: Documents,
    /// How many others were between them and were left out.
    pub orphans: u64,
    /// What part of the collection they are.
    pub extent: Extent,
    /// Where the cursor is once they are acknowledged; none when a place to go on from comes with a later batch.
    pub position: Option<Position>,
}

/// What came of delivering documents.
#[derive(Debug)]
pub struct Settlement {
    /// What that moved.
    pub counts: Counts,
    /// What is not on the target.
    pub rejected: Vec<Rejected>,
}

impl<P: Progress> Delivery<P> {
    /// Delivers a batch. When it returns, a majority of the target has what the result says, and the state has what the
    /// target did not take.
    ///
    /// # Errors
    /// Fenced when the lease went to another worker, unavailable when the target does not take it, findings when more
    /// documents were refused than may be.
    pub async fn deliver(&self, batch: Batch) -> Result<Acknowledged<Finding>> {
        let Settlement { mut counts, rejected } = self.write(&batch.documents, &batch.extent).await?;
        counts.orphans += batch.orphans;
        self.rejects.keep(rejected).await?;
        Ok(Acknowledged { position: batch.position, counts, findings: Vec::new() })
    }

    /// Writes documents and settles what is refused; says what is not on the target, without keeping it.
    ///
    /// # Errors
    /// As [`Delivery::deliver`].
    pub async fn write(&self, documents: &Documents, extent: &Extent) -> Result<Settlement> {
        if *extent == Extent::There {
            return Ok(self.count(documents, documents.len() as u64));
        }
        if self.is_dry {
            return Ok(self.count(documents, 0));
        }
        let mut there = self.probe(documents, extent).await?;
        let unread = self.unread(&there, documents, extent);
        let sent = self.send(documents, &mut there).await?;
        let is_replay = self.replay || sent.is_replay;
        let mut settlement = self.settle(documents, extent, sent.refusals, there, is_replay).await?;
        self.settle_unread(unread, &mut settlement).await?;
        Ok(settlement)
    }

    /// Counts what is not sent: it was copied before, or never is.
    fn count(&self, documents: &Documents, replayed: u64) -> Settlement {
        let (read, read_bytes) = (documents.len() as u64, documents.size() as u64);
        let digest = self.digests.then(Digest::default);
        let mut counts = Counts { read, read_bytes, replayed, digest, ..Counts::default() };
        documents.iter().for_each(|document| counts.wrote(document.as_bytes()));
        Settlement { counts, rejected: Vec::new() }
    }

    /// What of a batch an earlier claim may have sent and the target has already: looked at before it is sent again,
    /// since a server takes many times longer to refuse a document than to insert one. A few batches in a row of which
    /// nothing is there, more than were ever in flight, and it is not worth looking any more.
    ///
    /// Where `_id`s may be repeated, and documents of others are there, it is always looked at: a server refuses a second
    /// one only where it comes to the same shard.
    async fn probe(&self, documents: &Documents, extent: &Extent) -> Result<Found> {
        let is_beyond = !self.probes_all && self.empty_probes.load(Ordering::Relaxed) > IN_FLIGHT;
        let may_be_foreign = !self.created && self.locator.may_repeat_ids();
        if (!self.replay || is_beyond) && !may_be_foreign {
            return Ok(Found::new());
        }
        let there = match extent {
            Extent::Range { after, last } if !may_be_foreign => {
                // In a collection that others write to there may be any number of documents between ours.
                let most = if self.created { 0 } else { documents.len() * 2 };
                self.between(after, Bound::At(last.clone()), most).await?
            }
            _ => {
                let keys: Vec<Key> = documents.iter().filter_map(Key::of).collect();
                self.found(&keys).await?
            }
        };
        if there.is_empty() {
            self.empty_probes.fetch_add(1, Ordering::Relaxed);
        } else {
            self.empty_probes.store(0, Ordering::Relaxed);
        }
        self.mine(there)
    }

    /// What the target has after a position of this partition and before a bound.
    async fn between(&self, after: &Position, upper: Bound, most: usize) -> Result<Found> {
        let lower = after.key().map_or_else(|| self.range.lower.clone(), |key| Bound::At(key.clone()));
        let range = Range { lower, upper };
        let read = || read::documents_in(&self.target, &self.to, &range, most);
        let mut there = self.retried(&self.target, read).await?;
        if let Some(before) = after.key() {
            there.remove(before);
        }
        Ok(there)
    }

    /// What an earlier claim has sent and the scan did not read again, since the source has deleted it meanwhile. Only
    /// where all that is there is this job's, and where the scan read all that is there.
    fn unread(&self, there: &Found, read: &Documents, extent: &Extent) -> Vec<Key> {
        if !self.created || there.is_empty() || !matches!(extent, Extent::Range { .. }) {
            return Vec::new();
        }
        let read: HashSet<Key> = read.iter().filter_map(Key::of).collect();
        there.keys().filter(|key| !read.contains(*key)).cloned().collect()
    }

    /// What of it is this shard's: what another shard's lane has written is not for this one to look at or to change.
    pub(super) fn mine(&self, there: Found) -> Result<Found> {
        if self.ownership.is_none() {
            return Ok(there);
        }
        let mut mine = Found::new();
        for (key, versions) in there {
            for version in versions {
                if self.is_mine(&version)? {
                    mine.entry(key.clone()).or_default().push(version);
                }
            }
        }
        Ok(mine)
    }

    /// Whether a document is this shard's.
    pub(super) fn is_mine(&self, document: &RawDocument) -> Result<bool> {
        self.ownership.as_ref().map_or(Ok(true), |ownership| ownership.is_mine(document))
    }

    /// What is to be done once the scan has ended at `last`: what lies behind it was sent by an earlier claim and deleted
    /// on the source since.
    ///
    /// # Errors
    /// As [`Delivery::deliver`].
    pub async fn settle_tail(&self, last: &Position) -> Result<Counts> {
        let mut settlement = Settlement { counts: Counts::default(), rejected: Vec::new() };
        if self.replay && self.created && !self.is_dry {
            let there = self.mine(self.between(last, self.range.upper.clone(), 0).await?)?;
            self.settle_unread(there.into_keys().collect(), &mut settlement).await?;
        }
        self.rejects.keep(settlement.rejected).await?;
        Ok(settlement.counts)
    }

    /// The `_id` of a document of the source.
    pub(super) fn key(&self, document: &RawDocument) -> Result<Key> {
        let missing = || -> Error { self.source.side.error(format!("{} has a document without _id", self.from)) };
        Key::of(document).ok_or_else(missing)
    }
}
