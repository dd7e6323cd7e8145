//! What discovery found: the namespaces that the filters let through (`nsSet`), their identity, options, sizes and
//! indexes (the index map).

use super::choice::{Order, ReadOrder};
use super::cursor::Key;
use super::document_filter::DocumentFilter;
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
    /// Where its documents are.
    pub fn documents_in(&self) -> Namespace {
        self.kind.documents_of(&self.namespace)
    }

    /// The indexes that have to be built: all but the one on `_id` and a clustered one, which come with the collection.
    pub fn secondary_indexes(&self) -> impl Iterator<Item = &Value> {
        self.indexes.iter().filter(|index| !is_implicit(index))
    }
}

/// Whether an index comes with its collection.
pub fn is_implicit(index: &Value) -> bool {
    let clustered = index.get("clustered").and_then(Value::as_bool).unwrap_or(false);
    clustered || index.get("name").and_then(Value::as_str) == Some("_id_")
}

/// What has to be asked of `createIndexes` for an index that `listIndexes` shows so.
///
/// Left out are `ns`, which servers before 4.4 show and newer ones refuse, and `background`, which is without effect
/// from 4.2 on. An index of simple collation is listed without one; created so on a collection with a default
/// collation it would inherit that, so the simple one is spelled out
/// (<https://www.mongodb.com/docs/manual/reference/collation/#collation-and-index-use>).
pub fn index_to_create(listed: &Value, collection_options: &Value) -> Value {
    let mut index = listed.as_object().cloned().unwrap_or_default();
    index.shift_remove("ns");
    index.shift_remove("background");
    if collection_options.get("collation").is_some() && !index.contains_key("collation") {
        index.insert("collation".into(), serde_json::json!({"locale": "simple"}));
    }
    Value::Object(index)
}

/// Whether an index has consequences while documents still arrive: a unique one rejects, a TTL one deletes. Such ones
/// always wait for the data.
pub fn must_wait_for_data(index: &Value) -> bool {
    let flag = |name: &str| index.get(name).is_some_and(|value| value != &Value::Bool(false));
    flag("unique") || flag("prepareUnique") || index.get("expireAfterSeconds").is_some()
}

/// How two listings of one collection's indexes differ, one sentence each. Compared by name; the order of fields
/// matters in `key` alone.
pub fn index_differences(expected: &[Value], found: &[Value]) -> Vec<String> {
    let name = |index: &Value| index.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut differences = Vec::new();
    for index in expected {
        match found.iter().find(|other| name(other) == name(index)) {
            None => differences.push(format!("index {} is missing", name(index))),
            Some(other) if !same_index(index, other) => differences.push(format!(
                "index {} differs: expected {}, found {}",
                name(index),
                comparable(index),
                comparable(other)
            )),
            Some(_) => {}
        }
    }
    for other in found {
        if !expected.iter().any(|index| name(index) == name(other)) {
            differences.push(format!("index {} is not on the source", name(other)));
        }
    }
    differences
}

fn same_index(left: &Value, right: &Value) -> bool {
    let keys =
        |index: &Value| index.get("key").and_then(Value::as_object).map(|key| key.keys().cloned().collect::<Vec<_>>());
    keys(left) == keys(right) && comparable(left) == comparable(right)
}

/// An index without what says nothing about it.
fn comparable(index: &Value) -> Value {
    let mut index = index.clone();
    if let Some(fields) = index.as_object_mut() {
        fields.shift_remove("ns");
        fields.shift_remove("background");
    }
    index
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
        CatalogEntry {
            ordinal: Ordinal(0),
            namespace: Namespace::new("db", "c"),
            uuid: Some("00".repeat(16)),
            kind,
            options: json!({}),
            indexes: Vec::new(),
            documents: 0,
            bytes: 0,
            cuts: Vec::new(),
            order: Order::Id,
            filter: None,
            parts: Vec::new(),
            sharding: None,
            disagreements: Vec::new(),
        }
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
    fn the_order_of_an_index_key_matters_and_of_nothing_else() {
        let index = json!({"v": 2, "key": {"a": 1, "b": -1}, "name": "n", "background": true});
        assert!(
            index_differences(std::slice::from_ref(&index), &[json!({"name": "n", "key": {"a": 1, "b": -1}, "v": 2})])
                .is_empty()
        );
        assert_eq!(index_differences(&[index], &[json!({"name": "n", "key": {"b": -1, "a": 1}, "v": 2})]).len(), 1);
    }

    #[test]
    fn a_simple_index_on_a_collated_collection_says_so() {
        let options = json!({"collation": {"locale": "fr"}});
        let index = index_to_create(&json!({"v": 2, "key": {"b": 1, "a": 1}, "name": "n", "ns": "db.c"}), &options);
        assert_eq!(index["collation"], json!({"locale": "simple"}));
        assert_eq!(index["key"].to_string(), r#"{"b":1,"a":1}"#);
        assert!(index.get("ns").is_none());
        assert!(index_to_create(&json!({"name": "n"}), &json!({})).get("collation").is_none());
    }

    #[test]
    fn unique_and_expiring_indexes_wait_for_the_data() {
        assert!(must_wait_for_data(&json!({"unique": true})));
        assert!(must_wait_for_data(&json!({"expireAfterSeconds": 0})));
        assert!(!must_wait_for_data(&json!({"unique": false, "sparse": true})));
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
