//! Comparing a collection's documents: the target is read back and summed up, range by range, and where a sum is not
//! what the target has acknowledged, its documents are held against the source's.
//!
//! A share holds a few replies at a time, whatever the size of the collection, and saves how far it is.

use super::Proven;
use crate::claim::Claim;
use crate::clock::{self, Moment};
use crate::context::{Context, Servers};
use crate::error::{Error, Result};
use crate::model::block::{Block, Counterpart, Cutter};
use crate::model::catalog::CatalogEntry;
use crate::model::choice::Orphans;
use crate::model::comparison::{Comparison, Leniency, Round, Stage};
use crate::model::cursor::{Key, Position};
use crate::model::dbref::DbRefs;
use crate::model::digest::Digest;
use crate::model::document_filter::DocumentFilter;
use crate::model::finding::{Finding, Note};
use crate::model::job::Optime;
use crate::model::lane::PartitionRecord;
use crate::model::namespace::Namespace;
use crate::model::orphan_filter::OrphanFilter;
use crate::model::partition::Range;
use crate::model::suspect::{Suspect, Suspects, Verdict};
use crate::model::work::UnitProgress;
use crate::mongo::deployment::Deployment;
use crate::mongo::documents::Documents as Batch;
use crate::mongo::failure::is_transient;
use crate::mongo::scan::by_id::ById;
use crate::mongo::scan::{Gone, Lost, Next, Reply, Wanted};
use crate::mongo::{checkpoint, read};
use crate::state::document::Documents as Store;
use crate::state::pages::PreparedEntry;
use crate::state::{chunks, keys};
use bson::{RawDocument, RawDocumentBuf};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OnceCell;
use tokio_retry::RetryIf;
use tokio_retry::strategy::{ExponentialBackoff, jitter};

/// How large replies are, in bytes: several are held at once, by several shares.
const REPLY_BYTES: u64 = 1024 * 1024;

/// How many replies of one share are read ahead and summed up at once.
const SUMMED_AT_ONCE: usize = 2;

/// How many documents are looked for at once by their `_id`.
const LOOKUPS: usize = 16;

/// How many bytes of a block's documents that only the target has are kept, to look for those that are the same to the
/// server.
const KEPT_UNMET: usize = 4 * 1024 * 1024;

/// How long after the first look a document that may just have been written is looked at again.
const SECOND_LOOK: Duration = Duration::from_secs(3);

/// How often a read of single documents is tried again, with growing waits of up to 2 s: about two minutes, longer than
/// an election.
const ATTEMPTS: usize = 60;

/// The documents of one collection on both sides.
pub struct Documents<'a> {
    /// The run.
    pub context: &'a Context,
    /// Both sides.
    pub servers: &'a Servers,
    /// The collection on the source.
    pub entry: &'a CatalogEntry,
    /// The collection on the target.
    pub prepared: &'a PreparedEntry,
    /// What the target has acknowledged.
    pub proven: &'a Proven,
    /// What is to be expected of its documents.
    pub leniency: Leniency,
    /// The share.
    pub claim: &'a Arc<Claim<UnitProgress>>,
}

/// What the comparison has shown.
pub struct Found {
    /// What a person must mend or accept.
    pub findings: Vec<Finding>,
    /// What a person should know.
    pub notes: Vec<Note>,
}

impl Documents<'_> {
    /// Compares them, from where an earlier run of this round was.
    ///
    /// # Errors
    /// Those of reading and saving.
    pub async fn compare(&self, round: Round) -> Result<Found> {
        let namespace = &self.entry.namespace;
        let saved = self.claim.work().await.progress.comparison.filter(|comparison| comparison.round == round);
        let comparison = saved.unwrap_or_else(|| Comparison::new(round, self.range(0), self.leniency));
        let key = keys::unit(crate::model::step::Step::Verify, self.entry.ordinal);
        let journal = |event, comparison: &Comparison| {
            self.context.journal.record(event, json!({ "work": key, "documents": comparison.documents }));
        };
        journal("compare", &comparison);
        let sides = Sides::open(self).await?;
        let mut live = Live {
            comparison,
            claim: self.claim,
            interval: self.context.settings.save_interval,
            saved: clock::monotonic(),
        };
        let mut gone = None;
        while let Some(record) = self.proven.ranges.get(live.comparison.ranges as usize)
            && gone.is_none()
        {
            gone = self.compare_range(&sides, record, &mut live).await?;
            if gone.is_none() {
                let next = self.range(live.comparison.ranges as usize + 1);
                live.comparison.next_range(next, self.leniency);
                live.save_now_and_then().await?;
            }
        }
        journal("compared", &live.comparison);
        let tally = live.comparison.tally;
        let mut findings = live.comparison.into_findings(namespace);
        findings.extend(gone.map(|text| Finding { namespace: namespace.clone(), text }));
        let notes = tally.notes(self.leniency);
        let notes = notes.into_iter().map(|text| Note { namespace: namespace.clone(), text }).collect();
        Ok(Found { findings, notes })
    }

    fn range(&self, number: usize) -> Option<&Range> {
        self.proven.ranges.get(number).map(|record| &record.partition.range)
    }

    /// Compares one range. The text of a finding where a collection is not there any more.
    async fn compare_range(
        &self,
        sides: &Sides,
        record: &PartitionRecord,
        live: &mut Live<'_>,
    ) -> Result<Option<String>> {
        let range = &record.partition.range;
        if let Stage::Summing { after, .. } = &live.comparison.stage {
            let after = after.clone();
            if let Some(gone) = sum(&sides.target, range, after, live).await? {
                return Ok(Some(format!("was {} on the target while it was compared", gone.text())));
            }
        }
        let mut lack = String::new();
        if let Stage::Summing { documents, digest, .. } = live.comparison.stage {
            let acknowledged = record.counts.digest.unwrap_or_default();
            if (documents, digest) == (record.counts.written, acknowledged) {
                return Ok(None);
            }
            lack = format!(
                "the target does not have what it has acknowledged ({documents} documents of {}), and ",
                record.counts.written
            );
            live.comparison.differs_by(acknowledged - digest, range);
            live.save().await?;
        }
        if !sides.can_tell {
            return Ok(Some(format!("{lack}where orphans were copied which documents differ is not told")));
        }
        match sides.match_range(range, live, self.leniency).await? {
            Some(At::Source(gone)) => Ok(Some(format!(
                "{lack}the collection was {} on the source, so which documents differ cannot be told",
                gone.text()
            ))),
            Some(At::Target(gone)) => Ok(Some(format!("was {} on the target while it was compared", gone.text()))),
            None => {
                self.look_again(sides, live).await?;
                live.comparison.judge(&self.entry.namespace);
                Ok(None)
            }
        }
    }

    /// Looks once more at the first suspects, where the sums do not say which of them are wrong: both sides may be
    /// written to, and were not read at the same moment.
    async fn look_again(&self, sides: &Sides, live: &mut Live<'_>) -> Result<()> {
        let Stage::Matching { missing, suspects, .. } = &mut live.comparison.stage else { return Ok(()) };
        let is_told = missing.is_some_and(|missing| suspects.verdict(missing) != Verdict::Unknown);
        if is_told || suspects.kept.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(SECOND_LOOK).await;
        let looks: Vec<_> = suspects.kept.iter().map(|suspect| sides.suspect(&suspect.key)).collect();
        let kept: Vec<Option<Suspect>> = stream::iter(looks).buffered(LOOKUPS).try_collect().await?;
        *suspects = Suspects { kept: kept.into_iter().flatten().collect(), ..std::mem::take(suspects) };
        Ok(())
    }
}

/// How far a share is, and saving that.
struct Live<'a> {
    comparison: Comparison,
    claim: &'a Arc<Claim<UnitProgress>>,
    interval: Duration,
    saved: Moment,
}

impl Live<'_> {
    async fn save(&mut self) -> Result<()> {
        let comparison = &self.comparison;
        self.claim.save(|work| work.progress.comparison = Some(comparison.clone())).await?;
        self.saved = clock::monotonic();
        Ok(())
    }

    async fn save_now_and_then(&mut self) -> Result<()> {
        if self.saved.elapsed() >= self.interval { self.save().await } else { Ok(()) }
    }
}

/// Sums up what the target has in a range, after a position.
async fn sum(target: &Side, range: &Range, after: Position, live: &mut Live<'_>) -> Result<Option<Gone>> {
    let scan = target.scan(range.clone(), after);
    let replies = stream::try_unfold(Some(scan), |scan| async move {
        let Some(mut scan) = scan else { return Ok(None) };
        match scan.next().await? {
            Next::Documents(reply) => Ok(Some((Read::Reply(reply), Some(scan)))),
            Next::Gone(gone) => Ok(Some((Read::Gone(gone), None))),
            Next::Lost(why) => Err(lost(&why)),
            Next::End => Ok(None),
        }
    });
    let summed = |read: Read| async move {
        match read {
            Read::Reply(reply) => {
                let summing = tokio::task::spawn_blocking(move || sum_of(&reply));
                let part = summing.await.map_err(|error| Error::internal(format!("summing up documents: {error}")))?;
                Ok(Summed::Part(part))
            }
            Read::Gone(gone) => Ok(Summed::Gone(gone)),
        }
    };
    let mut parts = std::pin::pin!(replies.map_ok(summed).try_buffered(SUMMED_AT_ONCE));
    while let Some(part) = parts.try_next().await? {
        match part {
            Summed::Part(Some(Part { last, count, sum })) => {
                live.comparison.summed(last, count, sum);
                live.save_now_and_then().await?;
            }
            Summed::Part(None) => {}
            Summed::Gone(gone) => return Ok(Some(gone)),
        }
    }
    Ok(None)
}

/// What a scan of the target gives.
enum Read {
    Reply(Reply),
    Gone(Gone),
}

/// The same, summed up.
enum Summed {
    Part(Option<Part>),
    Gone(Gone),
}

/// What the documents of a reply add up to.
struct Part {
    last: Key,
    count: u64,
    sum: Digest,
}

/// A collection on one side, as it is read.
struct Side {
    deployment: Deployment,
    namespace: Namespace,
    uuid: String,
    /// Which of its documents are copied: of the source alone, where there may be others.
    filter: Option<DocumentFilter>,
    /// What DBRefs in them become on the target.
    dbrefs: Option<DbRefs>,
    not_before: Optime,
    document_size: u64,
}

impl Side {
    fn scan(&self, range: Range, after: Position) -> ById {
        let wanted = Wanted {
            source: self.deployment.clone(),
            namespace: self.namespace.clone(),
            uuid: self.uuid.clone(),
            range,
            filter: self.filter.clone(),
            not_before: self.not_before,
            document_size: self.document_size,
            reply_bytes: REPLY_BYTES,
        };
        ById::new(wanted, after)
    }

    /// Documents as they are on the target once they are copied.
    fn as_copied(&self, documents: Batch) -> Batch {
        match &self.dbrefs {
            None => documents,
            Some(dbrefs) => documents.changed(|document| dbrefs.renamed(document)),
        }
    }

    /// The document whose `_id` is the same to the server.
    async fn document(&self, key: &Key) -> Result<Option<RawDocumentBuf>> {
        let waits = ExponentialBackoff::from_millis(2).factor(25).max_delay(Duration::from_secs(2));
        let look =
            || read::document(&self.deployment, &self.namespace, self.filter.as_ref(), key, Some(self.not_before));
        let found = RetryIf::start(waits.map(jitter).take(ATTEMPTS), look, is_transient).await;
        found.map_err(|error| self.deployment.failed(&error).during(format!("looking at {}", self.namespace)))
    }
}

/// The collection on both sides.
struct Sides {
    /// More than one where it is sharded. Each is held against those of the target's documents that would be its own, so that
    /// what several shards have need not be merged.
    sources: Vec<Side>,
    target: Side,
    /// What each of the sources owns, read when it is needed for the first time.
    filters: OnceCell<Vec<Option<OrphanFilter>>>,
    sharding: Option<(Store, CatalogEntry)>,
    /// Whether it is known which of the target's documents would be whose.
    can_tell: bool,
}

/// On which side a collection is not there any more.
enum At {
    Source(Gone),
    Target(Gone),
}

impl Sides {
    async fn open(documents: &Documents<'_>) -> Result<Self> {
        let Documents { context, servers, entry, prepared, .. } = documents;
        let newest = async |of: &Deployment| checkpoint::newest(of).await.map_err(|error| of.failed(&error));
        let document_size = entry.bytes / entry.documents.max(1);
        let mut homes = Vec::new();
        for part in &entry.parts {
            homes.push(&servers.source.shard(&part.shard)?.deployment);
        }
        if homes.is_empty() {
            homes.push(servers.source.home(entry)?);
        }
        let mut sources = Vec::new();
        for from in homes {
            sources.push(Side {
                deployment: from.clone(),
                namespace: entry.documents_in(),
                uuid: entry.uuid.clone().unwrap_or_default(),
                filter: entry.filter.clone(),
                dbrefs: DbRefs::of(&entry.documents_in(), &servers.bound()?.1.selection),
                not_before: newest(from).await?,
                document_size,
            });
        }
        let target = Side {
            deployment: servers.target.clone(),
            namespace: prepared.target.clone(),
            uuid: prepared.uuid.clone(),
            filter: None,
            dbrefs: None,
            not_before: newest(&servers.target).await?,
            document_size,
        };
        let is_divided = entry.sharding.is_some() && servers.source.reads_shards();
        let sharding = is_divided.then(|| (context.documents.clone(), (*entry).clone()));
        let can_tell = sharding.is_none() || context.settings.orphans != Orphans::Copy;
        Ok(Self { sources, target, filters: OnceCell::new(), sharding, can_tell })
    }

    /// What each of the sources owns; none: all that it has.
    async fn filters(&self) -> Result<&[Option<OrphanFilter>]> {
        let read = || async {
            let Some((store, entry)) = &self.sharding else { return Ok(vec![None]) };
            let Some(sharding) = &entry.sharding else { return Ok(vec![None]) };
            let map = chunks::read(store, entry, sharding).await?;
            let owns = |shard: &String| map.shards().contains(shard).then(|| OrphanFilter::new(&map, shard));
            Ok(entry.parts.iter().map(|part| owns(&part.shard)).collect())
        };
        self.filters.get_or_try_init(read).await.map(Vec::as_slice)
    }

    /// Holds what is left of a range against the source, shard by shard.
    async fn match_range(&self, range: &Range, live: &mut Live<'_>, leniency: Leniency) -> Result<Option<At>> {
        let filters = self.filters().await?;
        while let Stage::Matching { shard, from, .. } = &live.comparison.stage
            && let Some((source, filter)) = self.sources.get(*shard as usize).zip(filters.get(*shard as usize))
        {
            let pass = Pass { source, target: &self.target, filter: filter.as_ref(), is_first: *shard == 0, leniency };
            let left = Range { lower: from.clone(), upper: range.upper.clone() };
            if let Some(gone) = pass.match_range(left, live).await? {
                return Ok(Some(gone));
            }
            live.comparison.matched_shard(range);
            live.save_now_and_then().await?;
        }
        Ok(None)
    }

    /// A document as both sides have it at this moment; none where they have the same.
    async fn suspect(&self, key: &Key) -> Result<Option<Suspect>> {
        let filters = self.filters().await?;
        let mut found = None;
        for (source, filter) in self.sources.iter().zip(filters) {
            let document = source.document(key).await?;
            let owned = document.filter(|document| is_owned(filter.as_ref(), false, document.as_bytes()));
            found = found.or(owned.map(|document| source.as_copied([document].iter().collect())));
        }
        let target = self.target.document(key).await?;
        let bytes =
            |document: &'_ Option<RawDocumentBuf>| document.as_ref().map(|document| document.as_bytes().to_vec());
        let found = found.as_ref().and_then(Batch::first).map(RawDocument::as_bytes);
        Ok(Suspect::new(key, found, bytes(&target).as_deref()))
    }
}

/// Whether a document is, or would be, a shard's own. What has no shard key is the first one's.
fn is_owned(filter: Option<&OrphanFilter>, is_first: bool, document: &[u8]) -> bool {
    filter.is_none_or(|filter| filter.owns(document).unwrap_or(is_first))
}

/// Holding the documents of one shard against those of the target that would be its own.
struct Pass<'a> {
    source: &'a Side,
    target: &'a Side,
    filter: Option<&'a OrphanFilter>,
    is_first: bool,
    leniency: Leniency,
}

impl Pass<'_> {
    /// Holds a range, block by block.
    async fn match_range(&self, range: Range, live: &mut Live<'_>) -> Result<Option<At>> {
        let mut scan = self.source.scan(range.clone(), Position::Start);
        let mut cutter = Cutter::new(range);
        let mut held: Option<Reply> = None;
        loop {
            match scan.next().await? {
                Next::Documents(reply) => {
                    let first = reply.documents.first().and_then(Key::of);
                    let Some(first) = first else { continue };
                    let Some(block) = held.replace(reply) else { continue };
                    if let Some(gone) = self.match_block(Some(&block), cutter.before(first.clone()), live).await? {
                        return Ok(Some(At::Target(gone)));
                    }
                    live.comparison.matched_before(first);
                    live.save_now_and_then().await?;
                }
                Next::End => {
                    let gone = self.match_block(held.as_ref(), cutter.rest().clone(), live).await?;
                    return Ok(gone.map(At::Target));
                }
                Next::Gone(gone) => return Ok(Some(At::Source(gone))),
                Next::Lost(why) => return Err(lost(&why)),
            }
        }
    }

    /// Holds the target's documents of a range against those of a block.
    async fn match_block(&self, source: Option<&Reply>, range: Range, live: &mut Live<'_>) -> Result<Option<Gone>> {
        // Whose they are says the shard key that they have on the source.
        let is_owned_here = |document: &&RawDocument| is_owned(self.filter, self.is_first, document.as_bytes());
        let owned = |reply: &Reply| match self.filter {
            None => reply.documents.clone(),
            Some(_) => reply.documents.iter().filter(is_owned_here).collect(),
        };
        let documents = source.map(|reply| self.source.as_copied(owned(reply))).unwrap_or_default();
        let mut block = Block::default();
        each(&documents, |key, document| block.add(key, document))?;
        let leniency = self.leniency;
        let mut unmet: Vec<(Key, RawDocumentBuf)> = Vec::new();
        let mut kept = 0;
        let mut scan = self.target.scan(range, Position::Start);
        loop {
            let reply = match scan.next().await? {
                Next::Documents(reply) => reply,
                Next::End => break,
                Next::Gone(gone) => return Ok(Some(gone)),
                Next::Lost(why) => return Err(lost(&why)),
            };
            let comparison = &mut live.comparison;
            each(&reply.documents, |key, document| {
                if !is_owned(self.filter, self.is_first, document) {
                    return;
                }
                comparison.documents += 1;
                match block.meet(&key, document) {
                    Counterpart::Equal => {}
                    Counterpart::Other(other) => suspect(comparison, &key, Some(other), Some(document), leniency),
                    Counterpart::None if kept > KEPT_UNMET => suspect(comparison, &key, None, Some(document), leniency),
                    Counterpart::None => {
                        kept += document.len();
                        unmet
                            .extend(RawDocumentBuf::from_bytes(document.to_vec()).ok().map(|document| (key, document)));
                    }
                }
            })?;
        }
        self.pair(block, unmet, live).await?;
        Ok(None)
    }

    /// What is left of a block on either side. Some of it may be the same `_id` to the server with other bytes, 1 and 1.0,
    /// or texts that are equal under the collation: those differ, the others are missing or extra.
    async fn pair(&self, block: Block<'_>, mut unmet: Vec<(Key, RawDocumentBuf)>, live: &mut Live<'_>) -> Result<()> {
        let leniency = self.leniency;
        let rest: Vec<(Key, &[u8])> = block.into_rest().into_iter().collect();
        let counterpart = async |key: &Key| if unmet.is_empty() { Ok(None) } else { self.target.document(key).await };
        let looks: Vec<_> = rest.iter().map(|(key, _)| counterpart(key)).collect();
        let found: Vec<Option<RawDocumentBuf>> = stream::iter(looks).buffered(LOOKUPS).try_collect().await?;
        for ((key, document), other) in rest.iter().zip(&found) {
            let met = other.as_deref().and_then(Key::of);
            unmet.retain(|(key, _)| Some(key) != met.as_ref());
            let other = other.as_ref().map(|other| other.as_bytes());
            suspect(&mut live.comparison, key, Some(document), other, leniency);
        }
        for (key, document) in &unmet {
            suspect(&mut live.comparison, key, None, Some(document.as_bytes()), leniency);
        }
        Ok(())
    }
}

fn suspect(comparison: &mut Comparison, key: &Key, source: Option<&[u8]>, target: Option<&[u8]>, leniency: Leniency) {
    if let Some(suspect) = Suspect::new(key, source, target) {
        comparison.suspect(suspect, leniency);
    }
}

/// Each document with its key.
fn each<'a>(documents: &'a Batch, mut take: impl FnMut(Key, &'a [u8])) -> Result<()> {
    for document in documents.iter() {
        let key = Key::of(document).ok_or_else(|| unreadable("a document without _id"))?;
        take(key, document.as_bytes());
    }
    Ok(())
}

/// What they add up to.
fn sum_of(reply: &Reply) -> Option<Part> {
    let last = reply.documents.last().and_then(Key::of)?;
    let sum = reply.documents.iter().fold(Digest::default(), |sum, document| sum + Digest::of(document.as_bytes()));
    Some(Part { last, count: reply.documents.len() as u64, sum })
}

/// A scan by `_id` goes on wherever it was.
fn lost(lost: &Lost) -> Error {
    Error::internal(format!("a scan by _id was lost: {lost}"))
}

fn unreadable(why: impl std::fmt::Display) -> Error {
    Error::internal(format!("a server sent documents that cannot be read: {why}"))
}
