//! What discovery found: the namespaces that the filters let through (`nsSet`), their identity, options, sizes and
//! indexes (the index map).

use super::choice::{Order, ReadOrder};
use super::cursor::Key;
use super::document_filter::DocumentFilter;
use super::expiry::seconds;
use super::namespace::Namespace;
use super::target_sharding::ZoneRange;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A namespace's place in the catalog, which names it in keys: names may hold any character, keys may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ordinal(pub u32);

/// What kind of namespace it is, which decides how it is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CollectionKind {
    /// An ordinary collection, clustered ones included: read in `_id` order.
    Collection,
    /// A capped collection, whose order of insertion matters.
    Capped,
    /// A view: a name, a base and a pipeline, no documents.
    View,
    /// A time series, which is a view over a collection of buckets.
    TimeSeries,
    /// A time series whose buckets are no collection (8.3 and newer).
    Viewless,
}

impl CollectionKind {
    /// Whether this version copies it. What it does not copy is a finding, never silently left out.
    pub fn is_copied(self) -> bool {
        self != CollectionKind::Viewless
    }

    /// Whether there are documents of it to copy.
    pub fn has_documents(self) -> bool {
        self.is_copied() && self != CollectionKind::View
    }

    /// Where the documents are of what has this name. Those of a time series are its buckets: what is inserted through
    /// the time series itself is taken twice when it is sent twice, since measurements have no unique `_id`.
    pub fn documents_of(self, name: &Namespace) -> Namespace {
        if self == CollectionKind::TimeSeries { name.buckets() } else { name.clone() }
    }

    /// Its name in sentences.
    pub fn text(self) -> &'static str {
        match self {
            CollectionKind::Collection => "collection",
            CollectionKind::Capped => "capped collection",
            CollectionKind::View => "view",
            CollectionKind::TimeSeries => "time series",
            CollectionKind::Viewless => "time series without a collection of buckets",
        }
    }
}

/// A namespace of the source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CatalogEntry {
    /// Its place in the catalog.
    pub ordinal: Ordinal,
    /// Its name on the source.
    pub namespace: Namespace,
    /// The collection's UUID in hexadecimal: what it *is*, whatever it is called; of a time series that of its buckets.
    /// Views have none.
    pub uuid: Option<String>,
    /// What kind it is.
    pub kind: CollectionKind,
    /// Its options as `listCollections` shows them, as canonical Extended JSON.
    pub options: Value,
    /// Its indexes as `listIndexes` shows them, of a time series those of its buckets, as canonical Extended JSON, the one on `_id` included.
    pub indexes: Vec<Value>,
    /// The number of documents that the server's metadata gives: an estimate.
    pub documents: u64,
    /// Their size in bytes, uncompressed: an estimate.
    pub bytes: u64,
    /// Keys at which it may be cut into ranges of about the same size, in the order of the server's `_id` index.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cuts: Vec<Key>,
    /// In which order it is read.
    #[serde(default, skip_serializing_if = "is_by_id")]
    pub order: Order,
    /// Which of its documents are copied; none: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<DocumentFilter>,
    /// The shards of a cluster that own something of it, each with what it holds. None in a replica set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Part>,
    /// How its documents are divided among the shards, where they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sharding: Option<Sharding>,
    /// What is not the same on all shards that own something of it: each a finding.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disagreements: Vec<String>,
}

/// What one shard holds of a collection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The shard's name in its cluster.
    pub shard: String,
    /// The number of documents that its metadata gives, those included that it does not own: an estimate.
    pub documents: u64,
    /// Their size in bytes, uncompressed: an estimate.
    pub bytes: u64,
}

/// How a collection's documents are divided among the shards of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sharding {
    /// The shard key as canonical Extended JSON.
    pub key: Value,
    /// Whether it is unique.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unique: bool,
    /// Whether it lies on one shard as a whole, and is only listed with the sharded ones (8.0).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_unsplittable: bool,
    /// How many chunks it has.
    pub chunks: u64,
    /// On how many pages they lie in the state.
    pub pages: u32,
    /// The fingerprint of the chunk map: as long as it stays the same nothing has moved.
    pub fingerprint: String,
    /// Whether the source's balancer leaves it alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_balance: bool,
    /// Which ranges of its keys belong to zones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub zones: Vec<ZoneRange>,
}

/// Whether an order is the one that a document from before there was a choice means.
pub(super) fn is_by_id(order: &Order) -> bool {
    *order == Order::Id
}

/// Up to this size a collection is read in the order of the disk, in one piece: what may have to be read again when the
/// node that it is read from is lost. It takes about as long as reading, which is several times faster than copying.
const LARGEST_PIECE: u64 = 64 << 30;

/// How many bytes of documents a byte of the source's memory holds about: its file system keeps them compressed.
const COMPRESSION: u64 = 2;

/// What decides in which order a collection is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrderFacts {
    /// Its estimated size in bytes.
    pub bytes: u64,
    /// The source's memory in bytes. None where it does not tell.
    pub memory: Option<u64>,
    /// Whether its records lie in the order of `_id` by themselves: then each order is the other one.
    pub is_clustered: bool,
    /// Whether neighbours on the disk are neighbours by `_id`, as with ObjectIds and counters that only grow. None when
    /// nobody has looked.
    pub follows_disk: Option<bool>,
}

impl OrderFacts {
    /// Whether it matters if `_id`s follow the disk.
    pub fn asks_for_correlation(&self, wanted: ReadOrder) -> bool {
        let exceeds_memory = self.memory.is_some_and(|memory| self.bytes > memory.saturating_mul(COMPRESSION));
        wanted == ReadOrder::Auto && !self.is_clustered && exceeds_memory && self.bytes <= LARGEST_PIECE
    }

    /// The order. What arrives in the order of `_id` costs the target much less, since its index on `_id` grows at one
    /// place; that is worth more than what reading in that order costs the source, as long as it finds the documents in
    /// memory. When it does not, and `_id`s are scattered over the disk, each document is a read of its own.
    pub fn order(&self, wanted: ReadOrder) -> Order {
        let is_natural = match wanted {
            ReadOrder::Id => false,
            ReadOrder::Natural => !self.is_clustered,
            ReadOrder::Auto => self.asks_for_correlation(wanted) && self.follows_disk == Some(false),
        };
        if is_natural { Order::Natural } else { Order::Id }
    }
}

impl CatalogEntry {
    /// What is listed so, before anybody has looked into it.
    pub fn listed(
        ordinal: Ordinal,
        (namespace, kind): (Namespace, CollectionKind),
        uuid: Option<String>,
        options: Value,
    ) -> Self {
        Self {
            ordinal,
            namespace,
            uuid,
            kind,
            options,
            indexes: Vec::new(),
            documents: 0,
            bytes: 0,
            cuts: Vec::new(),
            order: if kind == CollectionKind::Capped { Order::Insertion } else { Order::Id },
            filter: None,
            parts: Vec::new(),
            sharding: None,
            disagreements: Vec::new(),
        }
    }

    /// Where its documents are.
    pub fn documents_in(&self) -> Namespace {
        self.kind.documents_of(&self.namespace)
    }

    /// Whether documents of it are deleted when they are old.
    pub fn expires(&self) -> bool {
        seconds(&self.options).is_some() || self.indexes.iter().any(|index| seconds(index).is_some())
    }

    /// The same in about half the memory: a map that has grown, as one that was read has, keeps room for more. Thousands of
    /// collections have tens of thousands of small ones.
    #[must_use]
    pub fn compact(self) -> Self {
        let indexes = self.indexes.into_iter().map(compact).collect();
        Self { options: compact(self.options), indexes, ..self }
    }

    /// The indexes that have to be built: all but the one on `_id` and a clustered one, which come with the collection.
    pub fn secondary_indexes(&self) -> impl Iterator<Item = &Value> {
        self.indexes.iter().filter(|index| !super::index::is_implicit(index))
    }
}

fn compact(value: Value) -> Value {
    match value {
        Value::Array(values) => Value::Array(values.into_iter().map(compact).collect()),
        Value::Object(fields) => {
            Value::Object(fields.into_iter().map(|(name, value)| (name, compact(value))).collect())
        }
        other => other,
    }
}

/// How two collections' options differ, one sentence each; the order of fields does not matter.
pub fn option_differences(expected: &Value, found: &Value) -> Vec<String> {
    let empty = serde_json::Map::new();
    let expected = expected.as_object().unwrap_or(&empty);
    let found = found.as_object().unwrap_or(&empty);
    let mut differences = Vec::new();
    for (name, value) in expected {
        match found.get(name) {
            None => differences.push(format!("option {name} is missing, expected {value}")),
            Some(other) if other != value => {
                differences.push(format!("option {name} differs: expected {value}, found {other}"));
            }
            Some(_) => {}
        }
    }
    for (name, other) in found {
        if !expected.contains_key(name) {
            differences.push(format!("option {name} is not on the source, found {other}"));
        }
    }
    differences
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::json;

    /// An entry of this kind that holds nothing.
    pub fn entry(kind: CollectionKind) -> CatalogEntry {
        CatalogEntry::listed(Ordinal(0), (Namespace::new("db", "c"), kind), Some("00".repeat(16)), json!({}))
    }

    #[test]
    fn scattered_ids_that_memory_does_not_hold_are_read_in_the_order_of_the_disk_unless_the_piece_is_too_large() {
        let memory = Some(1 << 30);
        let scattered = OrderFacts { bytes: 3 << 30, memory, is_clustered: false, follows_disk: Some(false) };
        let order = |facts: OrderFacts| facts.order(ReadOrder::Auto);
        assert_eq!(order(scattered), Order::Natural);
        assert_eq!(order(OrderFacts { follows_disk: Some(true), ..scattered }), Order::Id);
        assert_eq!(order(OrderFacts { follows_disk: None, ..scattered }), Order::Id);
        assert_eq!(order(OrderFacts { bytes: 2 << 30, ..scattered }), Order::Id);
        assert_eq!(order(OrderFacts { bytes: 1 << 40, ..scattered }), Order::Id);
        assert_eq!(order(OrderFacts { memory: None, ..scattered }), Order::Id);
        assert_eq!(order(OrderFacts { is_clustered: true, ..scattered }), Order::Id);
        assert_eq!(scattered.order(ReadOrder::Id), Order::Id);
        assert_eq!(OrderFacts { bytes: 0, ..scattered }.order(ReadOrder::Natural), Order::Natural);
    }

    #[test]
    fn a_difference_of_options_shows_both_values() {
        assert_eq!(
            option_differences(&json!({"a": 1, "b": 2}), &json!({"a": 2, "c": 3})),
            [
                "option a differs: expected 1, found 2",
                "option b is missing, expected 2",
                "option c is not on the source, found 3"
            ]
        );
        assert!(option_differences(&json!({}), &Value::Null).is_empty());
    }
}
