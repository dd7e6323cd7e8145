//! What a collection or an index uses that not every server has: since which version, or until which.

use super::catalog::{CatalogEntry, CollectionKind};
use super::element::{elements, kind};
use super::index::is_implicit;
use super::server::Version;
use serde_json::Value;

/// Something that servers of some versions have.
#[derive(Debug, Clone, Copy)]
pub struct Feature<T: ?Sized + 'static> {
    /// What it is called.
    pub name: &'static str,
    /// The first version that has it; none when no release takes it.
    since: Option<(i32, i32)>,
    /// The first version that has it no more.
    until: Option<(i32, i32)>,
    is_used: fn(CollectionKind, &T) -> bool,
}

impl<T: ?Sized> Feature<T> {
    const fn since(name: &'static str, version: (i32, i32), is_used: fn(CollectionKind, &T) -> bool) -> Self {
        Self { name, since: Some(version), until: None, is_used }
    }

    /// Whether a server that may use what this version has takes it.
    fn is_there(&self, version: (i32, i32)) -> bool {
        self.since.is_some_and(|since| version >= since) && self.until.is_none_or(|until| version < until)
    }

    /// Which versions have it: `from 5.0 on`.
    pub fn versions(&self) -> String {
        match (self.since, self.until) {
            (None, _) => "no release takes it".to_owned(),
            (Some((major, minor)), None) => format!("from {major}.{minor} on"),
            (Some(_), Some((major, minor))) => format!("before {major}.{minor}"),
        }
    }
}

fn has(options: &Value, name: &str) -> bool {
    options.get(name).is_some_and(|value| value != &Value::Bool(false) && !value.is_null())
}

/// What collections use (<https://www.mongodb.com/docs/manual/reference/command/create/>, and the release notes).
const OF_COLLECTIONS: &[Feature<Value>] = &[
    Feature::since("time series", (5, 0), |kind, _| kind == CollectionKind::TimeSeries),
    Feature::since("a clustered index", (5, 3), |_, options| has(options, "clusteredIndex")),
    Feature::since("encrypted fields", (6, 0), |_, options| has(options, "encryptedFields")),
    Feature::since("pre-images of change streams", (6, 0), |_, options| has(options, "changeStreamPreAndPostImages")),
    Feature::since("bucketRoundingSeconds", (6, 3), |_, options| {
        options.get("timeseries").is_some_and(|series| has(series, "bucketRoundingSeconds"))
    }),
    Feature::since("validationAction errorAndLog", (8, 1), |_, options| {
        options.get("validationAction").and_then(Value::as_str) == Some("errorAndLog")
    }),
];

/// What indexes use (<https://www.mongodb.com/docs/manual/reference/command/createIndexes/>, and the release notes).
const OF_INDEXES: &[Feature<Value>] = &[
    Feature { name: "columnstore", since: None, until: None, is_used: |_, index| has_kind(index, "columnstore") },
    Feature {
        name: "geoHaystack",
        since: Some((4, 4)),
        until: Some((5, 0)),
        is_used: |_, index| has_kind(index, "geoHaystack"),
    },
    Feature::since("a compound wildcard", (7, 0), |_, index| {
        key(index).is_some_and(|key| key.len() > 1 && key.keys().any(|field| is_wildcard(field)))
    }),
    Feature::since("prepareUnique", (6, 0), |_, index| has(index, "prepareUnique")),
    Feature::since("a partial filter with $or or $in", (6, 0), |_, index| {
        index.get("partialFilterExpression").is_some_and(|filter| uses(filter, &["$or", "$in"]))
    }),
    Feature::since("a partial filter by place", (6, 0), |_, index| {
        index.get("partialFilterExpression").is_some_and(|filter| uses(filter, &["$geoWithin", "$geoIntersects"]))
    }),
    Feature::since("TTL on a capped collection", (7, 1), |kind, index| {
        kind == CollectionKind::Capped && has(index, "expireAfterSeconds")
    }),
];

fn key(index: &Value) -> Option<&serde_json::Map<String, Value>> {
    index.get("key").and_then(Value::as_object)
}

fn has_kind(index: &Value, kind: &str) -> bool {
    key(index).is_some_and(|key| key.values().any(|value| value.as_str() == Some(kind)))
}

fn is_wildcard(field: &str) -> bool {
    field == "$**" || field.ends_with(".$**")
}

/// Whether a filter has one of these operators anywhere.
fn uses(filter: &Value, operators: &[&str]) -> bool {
    match filter {
        Value::Object(fields) => {
            fields.iter().any(|(name, value)| operators.contains(&name.as_str()) || uses(value, operators))
        }
        Value::Array(values) => values.iter().any(|value| uses(value, operators)),
        _ => false,
    }
}

/// What a collection uses that a server of this version does not have.
pub fn missing_of_collection(
    entry: &CatalogEntry,
    version: (i32, i32),
) -> impl Iterator<Item = &'static Feature<Value>> {
    let (kind, options) = (entry.kind, &entry.options);
    OF_COLLECTIONS.iter().filter(move |feature| (feature.is_used)(kind, options) && !feature.is_there(version))
}

/// The indexes of a collection, by name, that use what a server of this version does not have.
pub fn missing_of_indexes(
    entry: &CatalogEntry,
    version: (i32, i32),
) -> impl Iterator<Item = (&str, &'static Feature<Value>)> {
    let kind = entry.kind;
    let indexes = entry.indexes.iter().filter(|index| !is_implicit(index));
    indexes.flat_map(move |index| {
        let name = index.get("name").and_then(Value::as_str).unwrap_or_default();
        let missing =
            OF_INDEXES.iter().filter(move |feature| (feature.is_used)(kind, index) && !feature.is_there(version));
        missing.map(move |feature| (name, feature))
    })
}

/// What a server may use: features of its version, unless it is told to behave as an older one.
pub fn usable(version: Version, compatibility: Option<(i32, i32)>) -> (i32, i32) {
    let own = (version.major, version.minor);
    compatibility.map_or(own, |compatibility| compatibility.min(own))
}

/// How deep a document is: 1 with plain values alone.
pub fn depth(document: &[u8]) -> usize {
    let of = |kind, value| match kind {
        kind::DOCUMENT | kind::ARRAY => depth(value),
        _ => 0,
    };
    1 + elements(document).map(|element| of(element.kind, element.value)).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::catalog::Ordinal;
    use crate::model::choice::Order;
    use crate::model::namespace::Namespace;
    use bson::rawdoc;
    use serde_json::json;

    fn entry(kind: CollectionKind, options: Value, indexes: Vec<Value>) -> CatalogEntry {
        let text = json!({
            "ordinal": Ordinal(0), "namespace": Namespace::new("db", "c"), "uuid": null, "kind": kind, "options": options,
            "indexes": indexes, "documents": 0, "bytes": 0, "order": Order::Id,
        });
        serde_json::from_value(text).unwrap_or_else(|error| panic!("{error}"))
    }

    fn of(kind: CollectionKind, options: Value, version: (i32, i32)) -> Vec<&'static str> {
        missing_of_collection(&entry(kind, options, vec![]), version).map(|feature| feature.name).collect()
    }

    #[test]
    fn what_a_version_lacks_of_collections() {
        let plain = CollectionKind::Collection;
        assert_eq!(of(CollectionKind::TimeSeries, json!({}), (4, 4)), ["time series"]);
        assert_eq!(of(CollectionKind::TimeSeries, json!({}), (5, 0)), [""; 0]);
        assert_eq!(of(plain, json!({"clusteredIndex": {"key": {"_id": 1}}}), (5, 2)), ["a clustered index"]);
        assert_eq!(of(plain, json!({"clusteredIndex": true}), (5, 3)), [""; 0]);
        let rounded = json!({"timeseries": {"timeField": "t", "bucketRoundingSeconds": 60}});
        assert_eq!(of(CollectionKind::TimeSeries, rounded, (6, 0)), ["bucketRoundingSeconds"]);
    }

    #[test]
    fn what_a_version_lacks_of_indexes() {
        let indexes = vec![
            json!({"name": "_id_", "key": {"_id": 1}}),
            json!({"name": "haystack", "key": {"at": "geoHaystack", "kind": 1}}),
            json!({"name": "wild", "key": {"a": 1, "b.$**": 1}}),
            json!({"name": "some", "key": {"a": 1}, "partialFilterExpression": {"$or": [{"a": 1}, {"b": 2}]}}),
            json!({"name": "columns", "key": {"$**": "columnstore"}}),
        ];
        let entry = entry(CollectionKind::Collection, json!({}), indexes);
        let missing =
            |version| missing_of_indexes(&entry, version).map(|(name, _)| name.to_owned()).collect::<Vec<_>>();
        assert_eq!(missing((4, 4)), ["wild", "some", "columns"]);
        assert_eq!(missing((6, 0)), ["haystack", "wild", "columns"]);
        assert_eq!(missing((7, 0)), ["haystack", "columns"]);
    }

    #[test]
    fn a_server_is_as_old_as_it_is_told_to_be() {
        let version = Version { major: 6, minor: 0, patch: 5 };
        assert_eq!((usable(version, Some((5, 0))), usable(version, None)), ((5, 0), (6, 0)));
    }

    #[test]
    fn depths() {
        assert_eq!(depth(rawdoc! {}.as_bytes()), 1);
        assert_eq!(depth(rawdoc! {"a": 1, "b": {"c": [{"d": 1}]}, "e": {}}.as_bytes()), 4);
    }
}
