//! Planning: catalog and settings in, partitions and lanes out. Pure and sorted, so that the same input gives the same
//! plan; pinned by its hash, so that a later change of settings does not change it.

use super::catalog::{CatalogEntry, Ordinal, is_by_id};
use super::choice::Order;
use super::document_filter::DocumentFilter;
use super::namespace::Namespace;
use super::partition::{Range, ranges};
use super::renames::Renames;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;

/// A partition's place among the partitions of its lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PartitionNumber(pub u32);

/// A partition as it was planned: a range of one collection on one shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionSpec {
    /// Its place in its lane.
    pub number: PartitionNumber,
    /// Its collection's place in the catalog.
    pub ordinal: Ordinal,
    /// Its collection on the source.
    pub source: Namespace,
    /// The collection's UUID on the source.
    pub uuid: String,
    /// Its collection on the target.
    pub target: Namespace,
    /// Which part of it.
    #[serde(default, flatten)]
    pub range: Range,
    /// In which order it is read.
    #[serde(default, skip_serializing_if = "is_by_id")]
    pub order: Order,
    /// Which of its documents are copied; none: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<DocumentFilter>,
    /// The estimated number of documents.
    pub documents: u64,
    /// Their estimated size in bytes.
    pub bytes: u64,
}

/// Which lane: of which shard, which one of its lanes, and which tail of that.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LaneName {
    /// The shard: the replica set's name.
    pub shard: String,
    /// Its number within the shard.
    pub number: u32,
    /// Its first partition: 0 for a lane that was planned, else that of a tail of it (see [`super::tail`]), which no
    /// other tail of it begins with.
    #[serde(default, skip_serializing_if = "PartitionNumber::is_first")]
    pub from: PartitionNumber,
}

impl PartitionNumber {
    /// Whether it is the first one of a planned lane.
    pub fn is_first(&self) -> bool {
        self.0 == 0
    }
}

impl LaneName {
    /// A lane that was planned.
    pub fn planned(shard: impl Into<String>, number: u32) -> Self {
        Self { shard: shard.into(), number, from: PartitionNumber::default() }
    }

    /// The tail of it that begins with this partition.
    #[must_use]
    pub fn tail(&self, from: PartitionNumber) -> Self {
        Self { from, ..self.clone() }
    }

    /// Whether it is a tail that was given away, and not a lane of the plan.
    pub fn is_tail(&self) -> bool {
        !self.from.is_first()
    }

    /// What it is called within its shard: `3`, or `3.500` for the tail from partition 500 on.
    pub fn within_shard(&self) -> String {
        if self.is_tail() { format!("{}.{}", self.number, self.from.0) } else { self.number.to_string() }
    }
}

impl fmt::Display for LaneName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.shard, self.within_shard())
    }
}

/// The partitions that one worker copies, in the order in which it begins them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneSpec {
    /// Its name.
    pub lane: LaneName,
    /// Its partitions.
    pub partitions: Vec<PartitionSpec>,
}

impl PartitionSpec {
    /// What it costs to copy, in bytes.
    pub fn cost(&self) -> u64 {
        self.bytes + COST_OF_A_PARTITION
    }
}

/// What a partition costs besides its bytes, in bytes: some answers are waited for. Spreads empty collections evenly.
const COST_OF_A_PARTITION: u64 = 64 << 10;

/// What a job will do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The lanes, sorted by name.
    pub lanes: Vec<LaneSpec>,
}

impl Plan {
    /// SHA-256 over the lanes as JSON, in hexadecimal: what the plan is pinned by.
    pub fn hash(&self) -> String {
        let text = serde_json::to_vec(&self.lanes).expect("names, numbers and lists have a JSON form");
        Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Divides a catalog into so many lanes for each shard, of which a replica set is one. The lanes of a shard have what that
/// shard holds.
pub fn plan(catalog: &[CatalogEntry], shards: &[&str], renames: &Renames, lanes: u32) -> Plan {
    let mut shards = shards.to_vec();
    shards.sort_unstable();
    Plan { lanes: shards.into_iter().flat_map(|shard| lanes_of(catalog, shard, renames, lanes)).collect() }
}

/// What a shard has of a collection: how many documents, and bytes. In a replica set there are no parts.
fn held(entry: &CatalogEntry, shard: &str) -> Option<(u64, u64)> {
    if entry.parts.is_empty() {
        return Some((entry.documents, entry.bytes));
    }
    entry.parts.iter().find(|part| part.shard == shard).map(|part| (part.documents, part.bytes))
}

/// The lanes of one shard. The largest collections come first, since what begins last should not take longest; equal ones
/// by name. The ranges of one collection follow each other; they are the same on all shards. Each partition goes to the
/// lane that has the least so far, the first of those that have as little, so that lanes end at about the same time.
fn lanes_of(catalog: &[CatalogEntry], shard: &str, renames: &Renames, lanes: u32) -> Vec<LaneSpec> {
    let copied = catalog.iter().filter(|entry| entry.kind.has_documents());
    let mut entries: Vec<(&CatalogEntry, (u64, u64))> =
        copied.filter_map(|entry| Some((entry, held(entry, shard)?))).collect();
    entries.sort_by(|(a, (_, less)), (b, (_, more))| more.cmp(less).then_with(|| a.namespace.cmp(&b.namespace)));
    let name = |number| LaneName::planned(shard, number);
    let mut lanes: Vec<(u64, LaneSpec)> =
        (0..lanes.max(1)).map(|number| (0, LaneSpec { lane: name(number), partitions: Vec::new() })).collect();
    for (entry, (documents, bytes)) in entries {
        let Some(uuid) = &entry.uuid else { continue };
        // In another order than that of the bounds it is one piece.
        let ranges = if entry.order != Order::Id { ranges(&[]) } else { ranges(&entry.cuts) };
        let share = |of: u64| of.div_ceil(ranges.len() as u64);
        let (documents, bytes) = (share(documents), share(bytes));
        for range in ranges {
            let Some((load, lane)) = lanes.iter_mut().min_by_key(|(load, _)| *load) else { continue };
            *load += bytes + COST_OF_A_PARTITION;
            lane.partitions.push(PartitionSpec {
                number: PartitionNumber(lane.partitions.len() as u32),
                ordinal: entry.ordinal,
                source: entry.documents_in(),
                uuid: uuid.clone(),
                target: entry.kind.documents_of(&renames.apply(&entry.namespace)),
                range,
                order: entry.order,
                filter: entry.filter.clone(),
                documents,
                bytes,
            });
        }
    }
    lanes.into_iter().map(|(_, lane)| lane).collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::model::catalog::{CollectionKind, Part};
    use crate::model::cursor::Key;
    use bson::RawBsonRef;
    use proptest::prelude::*;

    fn entry(number: u32, (bytes, cuts): (u64, usize), kind: CollectionKind) -> CatalogEntry {
        CatalogEntry {
            ordinal: Ordinal(number),
            namespace: Namespace::new("db", format!("c{number}")),
            uuid: Some(format!("{number:032x}")),
            kind,
            options: serde_json::json!({}),
            indexes: Vec::new(),
            documents: bytes / 10,
            bytes,
            cuts: (0..cuts).map(|cut| Key::from_value(RawBsonRef::Int64(cut as i64))).collect(),
            order: Order::Id,
            filter: None,
            parts: Vec::new(),
            sharding: None,
            disagreements: Vec::new(),
        }
    }

    fn catalog() -> impl Strategy<Value = Vec<CatalogEntry>> {
        let kind =
            prop_oneof![Just(CollectionKind::Collection), Just(CollectionKind::Capped), Just(CollectionKind::View)];
        proptest::collection::vec(((0..1_000_u64, 0..4_usize), kind), 0..40)
            .prop_map(|sizes| (0..).zip(sizes).map(|(number, (bytes, kind))| entry(number, bytes, kind)).collect())
    }

    proptest! {
        #[test]
        fn the_plan_of_a_catalog_is_the_same_in_whatever_order_it_was_listed(
            (one, other) in catalog().prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle())),
            lanes in 1..5_u32,
        ) {
            let renames = Renames::parse(["db:db2"]).unwrap();
            let (one, other) = (plan(&one, &["rs"], &renames, lanes), plan(&other, &["rs"], &renames, lanes));
            prop_assert_eq!(one.hash(), other.hash());
            prop_assert_eq!(one, other);
        }

        #[test]
        fn every_collection_is_planned_whole_and_the_largest_first(all in catalog(), lanes in 1..5_u32) {
            let plan = plan(&all, &["rs"], &Renames::default(), lanes);
            prop_assert_eq!(plan.lanes.len(), lanes as usize);
            let number = |lane: &LaneSpec| lane.lane.number;
            prop_assert!((0..).zip(&plan.lanes).all(|(expected, lane)| number(lane) == expected));
            let mut planned: Vec<(Ordinal, Range)> = Vec::new();
            for LaneSpec { partitions, .. } in &plan.lanes {
                planned.extend(partitions.iter().map(|partition| (partition.ordinal, partition.range.clone())));
                let size = |partition: &PartitionSpec| all[partition.ordinal.0 as usize].bytes;
                prop_assert!(partitions.windows(2).all(|pair| size(&pair[0]) >= size(&pair[1])));
                prop_assert!((0..).zip(partitions).all(|(number, partition)| partition.number == PartitionNumber(number)));
            }
            let copied = all.iter().filter(|entry| entry.kind.has_documents());
            let mut wanted: Vec<(Ordinal, Range)> =
                copied.flat_map(|entry| ranges(&entry.cuts).into_iter().map(|range| (entry.ordinal, range))).collect();
            let place = |(ordinal, range): &(Ordinal, Range)| (*ordinal, format!("{range:?}"));
            planned.sort_by_key(place);
            wanted.sort_by_key(place);
            prop_assert_eq!(planned, wanted);
        }

        #[test]
        fn lanes_have_about_as_much_to_do(all in catalog(), lanes in 1..5_u32) {
            let plan = plan(&all, &["rs"], &Renames::default(), lanes);
            let cost = |partition: &PartitionSpec| partition.bytes + COST_OF_A_PARTITION;
            let loads = || plan.lanes.iter().map(|lane| lane.partitions.iter().map(cost).sum::<u64>());
            let largest = plan.lanes.iter().flat_map(|lane| &lane.partitions).map(cost).max().unwrap_or(0);
            prop_assert!(loads().max().unwrap() - loads().min().unwrap() <= largest);
        }
    }

    #[test]
    fn a_shard_copies_what_it_holds_in_the_same_ranges_as_the_others() {
        let part = |shard: &str, bytes| Part { shard: shard.to_owned(), documents: bytes / 10, bytes };
        let mut all = [entry(0, (90, 2), CollectionKind::Collection), entry(1, (30, 0), CollectionKind::Collection)];
        all[0].parts = vec![part("s0", 60), part("s1", 30)];
        all[1].parts = vec![part("s1", 30)];
        let plan = plan(&all, &["s1", "s0"], &Renames::default(), 1);
        let lanes: Vec<(&str, Vec<(u32, u64)>)> = plan
            .lanes
            .iter()
            .map(|lane| {
                let partitions = lane.partitions.iter().map(|partition| (partition.ordinal.0, partition.bytes));
                (lane.lane.shard.as_str(), partitions.collect())
            })
            .collect();
        assert_eq!(lanes[0], ("s0", vec![(0, 20), (0, 20), (0, 20)]));
        assert_eq!(lanes[1], ("s1", vec![(0, 10), (0, 10), (0, 10), (1, 30)]));
        let ranges = |lane: usize| plan.lanes[lane].partitions.iter().take(3).map(|one| one.range.clone()).collect();
        let (one, other): (Vec<Range>, Vec<Range>) = (ranges(0), ranges(1));
        assert_eq!(one, other);
    }

    #[test]
    fn another_name_on_the_target_is_another_plan() {
        let all = [entry(0, (1, 2), CollectionKind::Collection)];
        let renames = Renames::parse(["db:db2"]).unwrap();
        assert_ne!(plan(&all, &["rs"], &renames, 1).hash(), plan(&all, &["rs"], &Renames::default(), 1).hash());
    }
}
