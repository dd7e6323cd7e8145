//! What is large is split: the catalog and the plan into write-once pages, named by a small head that is created last.
//! Until the head is there the pages of an attempt count for nothing, and another attempt writes its own.

use super::VERSION;
use super::document::{Created, Document, Documents};
use super::keys;
use crate::error::{Error, Result};
use crate::model::catalog::{CatalogEntry, Ordinal};
use crate::model::job::Selection;
use crate::model::lane::PartitionRecord;
use crate::model::locator::Locator;
use crate::model::namespace::Namespace;
use crate::model::plan::{LaneName, LaneSpec, PartitionSpec, Plan};
use crate::model::tail::Tail;
use crate::model::target_sharding::TargetSharding;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::ops::Range;

/// How many entries a page has. An entry with options and a few indexes is 1 to 4 KB, so a page stays below 2 MB.
pub const PAGE: usize = 500;

/// The head of the catalog: which attempt's pages count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogHead {
    /// The attempt, which names its pages.
    pub attempt: String,
    /// What it lists, and under which names it was checked to fit on the target.
    #[serde(flatten)]
    pub selection: Selection,
    /// How many pages there are.
    pub pages: u32,
    /// How many namespaces are in them.
    pub namespaces: u32,
    /// The estimated number of documents of those that are copied.
    pub documents: u64,
    /// Their estimated size in bytes.
    pub bytes: u64,
}

/// A page of the catalog: namespaces (`nsSet`), each with its indexes (the index map).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CatalogPage {
    /// The namespaces, by ordinal.
    pub namespaces: Vec<CatalogEntry>,
}

/// The head of the plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanHead {
    /// The plan's hash, which names its pages.
    pub hash: String,
    /// Its lanes.
    pub lanes: Vec<PlannedLane>,
}

/// A lane in the head of the plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedLane {
    /// Its name.
    pub lane: LaneName,
    /// How many partitions it has.
    pub partitions: u32,
    /// On how many pages.
    pub pages: u32,
}

impl PlannedLane {
    /// All of it: what a tail is taken of.
    pub fn whole(&self) -> Tail {
        Tail { lane: self.lane.clone(), partitions: self.partitions }
    }
}

/// A page of a lane's partitions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanPage {
    /// The partitions, by number.
    pub partitions: Vec<PartitionSpec>,
}

/// What was on the target before prepare changed anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InventoryPage {
    /// One entry for each namespace that is copied.
    pub collections: Vec<InventoryEntry>,
}

/// A namespace of the target before prepare changed anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InventoryEntry {
    /// The source's collection in the catalog.
    pub ordinal: Ordinal,
    /// Its name on the target.
    pub target: Namespace,
    /// The UUID of the collection that had that name, `None` when none had.
    pub uuid: Option<String>,
    /// The options of the view that had that name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub view: Option<Value>,
    /// How many documents it had.
    pub documents: u64,
}

/// What prepare has made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreparedPage {
    /// One entry for each collection that is copied.
    pub collections: Vec<PreparedEntry>,
}

/// A collection of the target that is ready to be copied into.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreparedEntry {
    /// The source's collection in the catalog.
    pub ordinal: Ordinal,
    /// Where its documents come to on the target.
    pub target: Namespace,
    /// Its UUID on the target.
    pub uuid: String,
    /// Whether this job has created it: then all that is in it came from this job.
    pub created: bool,
    /// How many documents were in it already (`--existing keep`).
    pub documents_before: u64,
    /// How it is sharded there, where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sharding: Option<TargetSharding>,
}

impl PreparedEntry {
    /// How its documents are found.
    ///
    /// # Errors
    /// Of the state store: a shard key that is none.
    pub fn locator(&self) -> Result<Locator> {
        let locator = self.sharding.as_ref().map(TargetSharding::locator).transpose();
        let damaged = |why| Error::state(format!("prepare has a shard key for {} that is none: {why}", self.target));
        Ok(locator.map_err(damaged)?.unwrap_or_default())
    }
}

/// A segment of a lane's proofs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofSegment {
    /// The finished partitions.
    pub partitions: Vec<PartitionRecord>,
}

macro_rules! documents {
    ($($type:ty = $kind:literal),* $(,)?) => {
        $(impl Document for $type {
            const KIND: &'static str = $kind;
            const VERSION: u32 = VERSION;
        })*
    };
}

documents! {
    CatalogHead = "catalog",
    CatalogPage = "catalog-page",
    PlanHead = "plan",
    PlanPage = "plan-page",
    InventoryPage = "inventory-page",
    PreparedPage = "prepared-page",
    ProofSegment = "proofs",
}

/// Writes a catalog as `attempt`'s. The head that was created first wins, whoever wrote it.
///
/// # Errors
/// Those of the state store.
pub async fn write_catalog(
    documents: &Documents,
    attempt: &str,
    selection: &Selection,
    entries: &[CatalogEntry],
) -> Result<CatalogHead> {
    let mut pages = 0;
    for page in entries.chunks(PAGE) {
        documents.create(&keys::catalog_page(attempt, pages), &CatalogPage { namespaces: page.to_vec() }).await?;
        pages += 1;
    }
    let copied = || entries.iter().filter(|entry| entry.kind.is_copied());
    let head = CatalogHead {
        attempt: attempt.to_owned(),
        selection: selection.clone(),
        pages,
        namespaces: entries.len() as u32,
        documents: copied().map(|entry| entry.documents).sum(),
        bytes: copied().map(|entry| entry.bytes).sum(),
    };
    Ok(documents.create(keys::CATALOG, &head).await?.into_stored().value)
}

/// The catalog of a job.
///
/// # Errors
/// Those of the state store, also when a page is missing.
pub async fn read_catalog(documents: &Documents) -> Result<Vec<CatalogEntry>> {
    let head: CatalogHead = expect(documents, keys::CATALOG).await?;
    let mut entries = Vec::with_capacity(head.namespaces as usize);
    for page in 0..head.pages {
        let page: CatalogPage = expect(documents, &keys::catalog_page(&head.attempt, page)).await?;
        entries.extend(page.namespaces);
    }
    Ok(entries)
}

/// Writes a plan. The head that was created first wins; the plan of a catalog is always the same.
///
/// # Errors
/// Those of the state store.
pub async fn write_plan(documents: &Documents, plan: &Plan) -> Result<PlanHead> {
    let hash = plan.hash();
    let mut lanes = Vec::new();
    for LaneSpec { lane, partitions } in &plan.lanes {
        let mut pages = 0;
        for page in partitions.chunks(PAGE) {
            let page = PlanPage { partitions: page.to_vec() };
            documents.create(&keys::plan_page(&hash, lane, pages), &page).await?;
            pages += 1;
        }
        lanes.push(PlannedLane { lane: lane.clone(), partitions: partitions.len() as u32, pages });
    }
    Ok(documents.create(keys::PLAN, &PlanHead { hash, lanes }).await?.into_stored().value)
}

/// The head of a job's plan.
///
/// # Errors
/// Those of the state store, also when it is missing.
pub async fn read_plan(documents: &Documents) -> Result<PlanHead> {
    expect(documents, keys::PLAN).await
}

/// The partitions of a lane, or of a tail of it, with these numbers.
///
/// # Errors
/// Those of the state store, also when a page is missing.
pub async fn read_partitions(
    documents: &Documents,
    plan: &PlanHead,
    lane: &LaneName,
    numbers: Range<u32>,
) -> Result<Vec<PartitionSpec>> {
    let mut partitions = Vec::with_capacity(numbers.len());
    for page in numbers.start / PAGE as u32..numbers.end.div_ceil(PAGE as u32) {
        let page: PlanPage = expect(documents, &keys::plan_page(&plan.hash, lane, page)).await?;
        partitions.extend(page.partitions.into_iter().filter(|partition| numbers.contains(&partition.number.0)));
    }
    Ok(partitions)
}

/// What the target had before prepare changed anything.
///
/// # Errors
/// Those of the state store, also when a page is missing.
pub async fn read_inventory(documents: &Documents) -> Result<Vec<InventoryEntry>> {
    let head: CatalogHead = expect(documents, keys::CATALOG).await?;
    let mut entries = Vec::new();
    for page in 0..head.pages {
        entries.extend(expect::<InventoryPage>(documents, &keys::inventory_page(page)).await?.collections);
    }
    Ok(entries)
}

/// Everything that prepare has made.
///
/// # Errors
/// Those of the state store, also when a page is missing.
pub async fn read_prepared(documents: &Documents) -> Result<Vec<PreparedEntry>> {
    let head: CatalogHead = expect(documents, keys::CATALOG).await?;
    let mut entries = Vec::new();
    for page in 0..head.pages {
        entries.extend(expect::<PreparedPage>(documents, &keys::prepared_page(page)).await?.collections);
    }
    Ok(entries)
}

/// The proofs of a lane's sealed partitions.
///
/// # Errors
/// Those of the state store, also when a segment is missing.
pub async fn read_proofs(documents: &Documents, lane: &LaneName, segments: u32) -> Result<Vec<PartitionRecord>> {
    read_segments(documents, lane, 0..segments).await
}

/// Some segments of them.
///
/// # Errors
/// Those of the state store, also when a segment is missing.
pub async fn read_segments(
    documents: &Documents,
    lane: &LaneName,
    segments: Range<u32>,
) -> Result<Vec<PartitionRecord>> {
    let mut records = Vec::new();
    for segment in segments {
        records.extend(expect::<ProofSegment>(documents, &keys::proofs(lane, segment)).await?.partitions);
    }
    Ok(records)
}

/// Seals a segment of proofs. Whoever seals it writes the same, so one that is there already must be equal.
///
/// # Errors
/// Internal when another content is there, else those of the state store.
pub async fn seal_proofs(
    documents: &Documents,
    lane: &LaneName,
    segment: u32,
    records: &[PartitionRecord],
) -> Result<()> {
    let wanted = ProofSegment { partitions: records.to_vec() };
    match documents.create(&keys::proofs(lane, segment), &wanted).await? {
        Created::Mine(_) => Ok(()),
        Created::Existing(found) if found.value == wanted => Ok(()),
        Created::Existing(_) => Err(Error::internal(format!(
            "{} holds other proofs than this lane's",
            documents.name(&keys::proofs(lane, segment))
        ))),
    }
}

/// A document that must be there, since a later one says so.
///
/// # Errors
/// Of the state store, naming it, when it is not.
pub async fn expect<T: Document>(documents: &Documents, key: &str) -> Result<T> {
    match documents.read(key).await? {
        Some(stored) => Ok(stored.value),
        None => Err(Error::state(format!(
            "{} is missing although a later document names it; restore it, or use another --job",
            documents.name(key)
        ))),
    }
}
