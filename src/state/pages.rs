//! What is large is split: the catalog and the plan into write-once pages of bounded size, named by a small head that is
//! created last. Until the head is there the pages of an attempt count for nothing, and another attempt writes its own.

use super::VERSION;
use super::document::{Created, Document, Documents};
use super::keys;
use crate::error::{Error, Result};
use crate::model::catalog::{CatalogEntry, Ordinal};
use crate::model::job::Selection;
use crate::model::lane::PartitionRecord;
use crate::model::left_out::LeftOut;
use crate::model::locator::Locator;
use crate::model::namespace::Namespace;
use crate::model::plan::{LaneName, LaneSpec, PartitionSpec, Plan};
use crate::model::tail::Tail;
use crate::model::target_sharding::TargetSharding;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::ops::Range;

/// How many entries a page has at most. An entry with options and a few indexes is 1 to 4 KB.
pub const PAGE: usize = 500;

/// How many bytes of entries a page has at most, unless a single one is larger: a collection may have 64 indexes with
/// long filters, a range keys of kilobytes. With it no document of the state is larger than 4 MB, which every store takes
/// at once, and a reader holds.
const PAGE_BYTES: usize = 3 << 20;

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
    /// What it does not list. None where nobody wrote that down: a catalog of an older program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out: Option<LeftOutHead>,
}

impl CatalogHead {
    /// On how many pages prepare writes what it found and made: of [`PAGE`] namespaces each.
    fn prepared_pages(&self) -> u32 {
        self.namespaces.div_ceil(PAGE as u32)
    }
}

/// Where it lies what a catalog does not list: on pages of the same attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOutHead {
    /// How many pages there are.
    pub pages: u32,
    /// How much is on them.
    pub count: u32,
}

/// A page of what is not copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOutPage {
    /// By name.
    pub left_out: Vec<LeftOut>,
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
    /// The first partition of each page. Left out where each page but the last has [`PAGE`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub begins: Vec<u32>,
}

impl PlannedLane {
    /// Which partitions lie on a page.
    fn on_page(&self, page: u32) -> Range<u32> {
        let begin = |page: u32| self.begins.get(page as usize).copied().unwrap_or(page * PAGE as u32);
        let end = if page + 1 < self.pages { begin(page + 1) } else { self.partitions };
        begin(page)..end
    }

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

/// What is written in a later version only where a page is cut short by [`PAGE_BYTES`]: earlier programs count pages by
/// [`PAGE`].
const CUT_SHORT: u32 = 2;

impl Document for CatalogHead {
    const KIND: &'static str = "catalog";
    const VERSION: u32 = CUT_SHORT;

    fn version(&self) -> u32 {
        if self.pages == self.prepared_pages() { VERSION } else { CUT_SHORT }
    }
}

impl Document for PlanHead {
    const KIND: &'static str = "plan";
    const VERSION: u32 = CUT_SHORT;

    fn version(&self) -> u32 {
        if self.lanes.iter().all(|lane| lane.begins.is_empty()) { VERSION } else { CUT_SHORT }
    }
}

documents! {
    CatalogPage = "catalog-page",
    LeftOutPage = "left-out-page",
    PlanPage = "plan-page",
    InventoryPage = "inventory-page",
    PreparedPage = "prepared-page",
    ProofSegment = "proofs",
}

/// Writes a catalog's pages as they become full, so that nobody has to hold all of it.
#[derive(Debug)]
pub struct CatalogWriter<'a> {
    documents: &'a Documents,
    head: CatalogHead,
    page: Vec<CatalogEntry>,
    bytes: usize,
}

impl<'a> CatalogWriter<'a> {
    /// A catalog of `attempt`'s; nothing is written yet.
    pub fn new(documents: &'a Documents, attempt: &str, selection: Selection) -> Self {
        let head = CatalogHead {
            attempt: attempt.to_owned(),
            selection,
            pages: 0,
            namespaces: 0,
            documents: 0,
            bytes: 0,
            left_out: None,
        };
        Self { documents, head, page: Vec::new(), bytes: 0 }
    }

    /// Adds an entry, the one with the next ordinal.
    ///
    /// # Errors
    /// Those of the state store.
    pub async fn add(&mut self, entry: CatalogEntry) -> Result<()> {
        let size = stored_size(&entry);
        if is_full(self.page.len(), self.bytes, size) {
            self.write_page().await?;
        }
        self.head.namespaces += 1;
        if entry.kind.is_copied() {
            self.head.documents += entry.documents;
            self.head.bytes += entry.bytes;
        }
        self.bytes += size;
        self.page.push(entry);
        Ok(())
    }

    /// Writes what is left, and gives the head that names it all, which is not written: until it is ([`name_catalog`]) the
    /// pages count for nothing.
    ///
    /// # Errors
    /// Those of the state store.
    pub async fn finish(mut self, left_out: &[LeftOut]) -> Result<CatalogHead> {
        if !self.page.is_empty() {
            self.write_page().await?;
        }
        let mut pages = 0;
        for page in cut(left_out) {
            let page = LeftOutPage { left_out: page.to_vec() };
            self.documents.create(&keys::left_out_page(&self.head.attempt, pages), &page).await?;
            pages += 1;
        }
        self.head.left_out = Some(LeftOutHead { pages, count: left_out.len() as u32 });
        Ok(self.head)
    }

    async fn write_page(&mut self) -> Result<()> {
        let page = CatalogPage { namespaces: std::mem::take(&mut self.page) };
        self.documents.create(&keys::catalog_page(&self.head.attempt, self.head.pages), &page).await?;
        self.head.pages += 1;
        self.bytes = 0;
        Ok(())
    }
}

/// Makes a catalog the job's. The head that was created first wins, whoever wrote it.
///
/// # Errors
/// Those of the state store.
pub async fn name_catalog(documents: &Documents, head: &CatalogHead) -> Result<CatalogHead> {
    Ok(documents.create(keys::CATALOG, head).await?.into_stored().value)
}

/// The catalog of a job.
///
/// # Errors
/// Those of the state store, also when a page is missing.
pub async fn read_catalog(documents: &Documents) -> Result<Vec<CatalogEntry>> {
    let head: CatalogHead = expect(documents, keys::CATALOG).await?;
    read_entries(documents, &head).await
}

/// The catalog with this head, which need not be the job's yet.
///
/// # Errors
/// Those of the state store, also when a page is missing.
pub async fn read_entries(documents: &Documents, head: &CatalogHead) -> Result<Vec<CatalogEntry>> {
    let mut entries = Vec::with_capacity(head.namespaces as usize);
    for page in 0..head.pages {
        entries.extend(read_catalog_page(documents, head, page).await?.into_iter().map(CatalogEntry::compact));
    }
    Ok(entries)
}

/// One page of it.
///
/// # Errors
/// Those of the state store, also when it is missing.
pub async fn read_catalog_page(documents: &Documents, head: &CatalogHead, page: u32) -> Result<Vec<CatalogEntry>> {
    let page: CatalogPage = expect(documents, &keys::catalog_page(&head.attempt, page)).await?;
    Ok(page.namespaces)
}

/// What a catalog does not list. None where nobody wrote it down.
///
/// # Errors
/// Those of the state store, also when a page is missing.
pub async fn read_left_out(documents: &Documents, head: &CatalogHead) -> Result<Option<Vec<LeftOut>>> {
    let Some(LeftOutHead { pages, count }) = head.left_out else { return Ok(None) };
    let mut left_out = Vec::with_capacity(count as usize);
    for page in 0..pages {
        left_out.extend(expect::<LeftOutPage>(documents, &keys::left_out_page(&head.attempt, page)).await?.left_out);
    }
    Ok(Some(left_out))
}

/// Writes a plan. The head that was created first wins; the plan of a catalog is always the same.
///
/// # Errors
/// Those of the state store.
pub async fn write_plan(documents: &Documents, plan: &Plan) -> Result<PlanHead> {
    let hash = plan.hash();
    let mut lanes = Vec::new();
    for LaneSpec { lane, partitions } in &plan.lanes {
        let (mut pages, mut begin, mut begins) = (0, 0, Vec::new());
        for page in cut(partitions) {
            begins.push(begin);
            begin += page.len() as u32;
            let page = PlanPage { partitions: page.to_vec() };
            documents.create(&keys::plan_page(&hash, lane, pages), &page).await?;
            pages += 1;
        }
        if begins.iter().zip(0..).all(|(begin, page)| *begin == page * PAGE as u32) {
            begins.clear();
        }
        lanes.push(PlannedLane { lane: lane.clone(), partitions: partitions.len() as u32, pages, begins });
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
    let planned = plan
        .lanes
        .iter()
        .find(|planned| (&planned.lane.shard, planned.lane.number) == (&lane.shard, lane.number))
        .ok_or_else(|| Error::state(format!("the plan (plan.json) has no lane {lane}; use another --job")))?;
    let mut partitions = Vec::with_capacity(numbers.len());
    let is_needed = |page: &u32| {
        let there = planned.on_page(*page);
        there.start < numbers.end && numbers.start < there.end
    };
    for page in (0..planned.pages).filter(is_needed) {
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
    for page in 0..head.prepared_pages() {
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

/// Cuts entries into pages.
fn cut<T: Serialize>(entries: &[T]) -> Vec<&[T]> {
    let (mut pages, mut begin, mut bytes) = (Vec::new(), 0, 0);
    for (place, entry) in entries.iter().enumerate() {
        let size = stored_size(entry);
        if is_full(place - begin, bytes, size) {
            pages.push(&entries[begin..place]);
            (begin, bytes) = (place, 0);
        }
        bytes += size;
    }
    pages.extend((begin < entries.len()).then(|| &entries[begin..]));
    pages
}

/// Whether a page with so many entries of so many bytes has no room for another one.
fn is_full(entries: usize, bytes: usize, next: usize) -> bool {
    entries > 0 && (entries == PAGE || bytes + next > PAGE_BYTES)
}

/// How many bytes an entry of a page takes, as documents are written: on lines of its own, set in by four.
fn stored_size(entry: &impl Serialize) -> usize {
    struct Length(usize);
    impl std::io::Write for Length {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len() + 4 * bytes.iter().filter(|byte| **byte == b'\n').count();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut length = Length(6);
    // What cannot be written is found when it is.
    let _ = serde_json::to_writer_pretty(&mut length, entry);
    length.0
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

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::super::memory::MemoryStore;
    use super::*;
    use crate::model::plan::PartitionNumber;
    use std::sync::Arc;

    fn documents() -> (MemoryStore, Documents) {
        let store = MemoryStore::default();
        (store.clone(), Documents::new(Arc::new(store), "job"))
    }

    fn entry(number: u32, filter_length: usize) -> CatalogEntry {
        let index = serde_json::json!({"name": "a_1", "partialFilterExpression": {"a": "x".repeat(filter_length)}});
        serde_json::from_value(serde_json::json!({
            "ordinal": number, "namespace": format!("db.c{number}"), "uuid": null, "kind": "collection", "options": {},
            "indexes": vec![index; 64], "documents": 1, "bytes": 10,
        }))
        .unwrap()
    }

    async fn largest(store: &MemoryStore, documents: &Documents) -> usize {
        let mut largest = 0;
        for key in documents.list("").await.unwrap() {
            let object = crate::state::store::StateStore::get(store, &format!("job/{key}")).await.unwrap().unwrap();
            largest = largest.max(object.body.len());
        }
        largest
    }

    async fn written(entries: &[CatalogEntry]) -> (MemoryStore, Documents, CatalogHead) {
        let (store, documents) = documents();
        let selection = Selection::default();
        let mut writer = CatalogWriter::new(&documents, "attempt", selection);
        for entry in entries {
            writer.add(entry.clone()).await.unwrap();
        }
        let head = name_catalog(&documents, &writer.finish(&[]).await.unwrap()).await.unwrap();
        assert_eq!(read_catalog(&documents).await.unwrap(), entries);
        (store, documents, head)
    }

    #[tokio::test]
    async fn pages_of_large_entries_are_cut_short_and_say_so() {
        let small: Vec<CatalogEntry> =
            (0..1001).map(|number| entry(number, 1)).map(|entry| CatalogEntry { indexes: vec![], ..entry }).collect();
        let (_, _, head) = written(&small).await;
        assert_eq!((head.pages, head.version()), (3, 1));

        let large: Vec<CatalogEntry> = (0..300).map(|number| entry(number, 1000)).collect();
        let (store, documents, head) = written(&large).await;
        assert!(head.pages > 5, "{} pages", head.pages);
        assert_eq!((head.version(), head.prepared_pages()), (2, 1));
        let largest = largest(&store, &documents).await;
        assert!((2 << 20..4 << 20).contains(&largest), "{largest} bytes");
    }

    fn partition(number: u32, key_length: usize) -> PartitionSpec {
        serde_json::from_value(serde_json::json!({
            "number": number, "ordinal": 0, "source": "db.c", "uuid": "ab", "target": "db.c", "documents": 1,
            "bytes": key_length, "lower": {"at": key(key_length)},
        }))
        .unwrap()
    }

    fn key(length: usize) -> String {
        use base64::Engine as _;
        let value = bson::rawdoc! { "": "x".repeat(length) };
        base64::engine::general_purpose::STANDARD.encode(value.as_bytes())
    }

    #[tokio::test]
    async fn the_partitions_of_a_lane_are_found_wherever_its_pages_were_cut() {
        for (key_length, is_cut) in [(10, false), (10_000, true)] {
            let (store, documents) = documents();
            let lane = LaneName::planned("rs", 0);
            let partitions: Vec<PartitionSpec> = (0..1200).map(|number| partition(number, key_length)).collect();
            let plan = Plan { lanes: vec![LaneSpec { lane: lane.clone(), partitions: partitions.clone() }] };
            let head = write_plan(&documents, &plan).await.unwrap();
            assert_eq!(head.lanes[0].begins.is_empty(), !is_cut);
            assert_eq!(head.version(), if is_cut { 2 } else { 1 });
            let tail = lane.tail(PartitionNumber(700));
            for (name, numbers) in
                [(&lane, 0..1200), (&lane, 0..1), (&lane, 499..501), (&tail, 700..1200), (&lane, 7..7)]
            {
                let read = read_partitions(&documents, &head, name, numbers.clone()).await.unwrap();
                assert_eq!(read, partitions[numbers.start as usize..numbers.end as usize], "{numbers:?}");
            }
            assert!(largest(&store, &documents).await < 4 << 20);
        }
    }
}
