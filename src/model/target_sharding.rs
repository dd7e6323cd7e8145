//! How collections are sharded on a target that is a sharded cluster.

use super::catalog::{CatalogEntry, CollectionKind};
use super::filter::Pattern;
use super::locator::Locator;
use super::namespace::Namespace;
use super::shard_key::ShardKey;
use bson::{Bson, RawDocumentBuf};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// How a collection is sharded, or is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetSharding {
    /// The shard key as canonical Extended JSON.
    pub key: Value,
    /// Whether it is unique.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unique: bool,
    /// Whether the collection has a default collation; its shard key has none.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_collated: bool,
}

impl TargetSharding {
    /// The key.
    ///
    /// # Errors
    /// What a server does not take as a shard key.
    pub fn shard_key(&self) -> Result<ShardKey, String> {
        parse_key(&self.key)
    }

    /// How its documents are found.
    ///
    /// # Errors
    /// As [`TargetSharding::shard_key`].
    pub fn locator(&self) -> Result<Locator, String> {
        Ok(Locator::sharded(self.shard_key()?, self.is_collated))
    }

    /// Whether two are sharded in the same way: the numbers of a key may be of any type, the order of its fields counts.
    pub fn is_same_as(&self, other: &TargetSharding) -> bool {
        self.unique == other.unique && self.has_key(&other.key)
    }

    /// Whether its key is this one.
    pub fn has_key(&self, key: &Value) -> bool {
        matches!((self.shard_key(), parse_key(key)), (Ok(mine), Ok(other)) if mine.is_same_as(&other))
    }

    /// For sentences: `{"a":1,"b":"hashed"}, unique`.
    pub fn text(&self) -> String {
        let plain = Bson::try_from(self.key.clone()).map_or_else(|_| self.key.clone(), Bson::into_relaxed_extjson);
        format!("{plain}{}", if self.unique { ", unique" } else { "" })
    }
}

fn parse_key(key: &Value) -> Result<ShardKey, String> {
    let document = match Bson::try_from(key.clone()) {
        Ok(Bson::Document(document)) => document,
        _ => return Err(format!("{key} is no shard key; write it like {{\"a\": 1, \"b\": \"hashed\"}}")),
    };
    ShardKey::parse(&RawDocumentBuf::try_from(&document).map_err(|error| error.to_string())?)
}

/// A shard key that was asked for, of a collection as the source calls it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskedKey {
    /// As Extended JSON.
    pub key: Value,
    /// Whether it is unique.
    pub unique: bool,
}

impl AskedKey {
    /// From JSON: `{"a": 1, "b": "hashed"}`.
    ///
    /// # Errors
    /// What is no shard key.
    pub fn parse(text: &str, unique: bool) -> Result<Self, String> {
        let key = serde_json::from_str(text)
            .map_err(|error| format!("not JSON ({error}); write it like {{\"a\": 1, \"b\": \"hashed\"}}"))?;
        let parsed = parse_key(&key)?;
        if unique && parsed.is_hashed() {
            return Err("a hashed shard key cannot be unique".to_owned());
        }
        Ok(Self { key, unique })
    }
}

/// What was said about sharding on the target.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ShardingChoices {
    /// These stay unsharded.
    pub keep_unsharded: Vec<Pattern>,
    /// These may stay sharded as the target has them.
    pub keep_sharding: Vec<Pattern>,
    /// Keys by the source's names; they count more than the source's own.
    pub keys: BTreeMap<Namespace, AskedKey>,
    /// Whether zones are copied.
    pub zones: bool,
}

impl ShardingChoices {
    /// Whether anything was said that only a sharded cluster can do.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the target's own sharding of a collection is accepted.
    pub fn keeps_sharding(&self, namespace: &Namespace) -> bool {
        self.keep_sharding.iter().any(|pattern| pattern.matches(namespace))
    }

    /// How a collection is to be sharded on a sharded target; none: not at all.
    ///
    /// # Errors
    /// Nobody has said it: the source is a replica set, and so has no keys.
    pub fn wanted(&self, entry: &CatalogEntry, is_cluster: bool) -> Result<Option<TargetSharding>, String> {
        let namespace = &entry.namespace;
        let is_collated = entry.options.get("collation").is_some();
        if entry.kind != CollectionKind::Collection {
            return match self.keys.get(namespace) {
                None => Ok(None),
                Some(_) => Err(format!(
                    "{namespace} in [shard-keys] is a {}, and is not sharded on the target; leave it out there",
                    entry.kind.text()
                )),
            };
        }
        if let Some(AskedKey { key, unique }) = self.keys.get(namespace) {
            return Ok(Some(TargetSharding { key: key.clone(), unique: *unique, is_collated }));
        }
        if self.keep_unsharded.iter().any(|pattern| pattern.matches(namespace)) {
            return Ok(None);
        }
        match &entry.sharding {
            Some(sharding) if !sharding.is_unsplittable => {
                Ok(Some(TargetSharding { key: sharding.key.clone(), unique: sharding.unique, is_collated }))
            }
            _ if is_cluster || self.keeps_sharding(namespace) => Ok(None),
            _ => Err(format!(
                "the target is a sharded cluster, and nothing says how {namespace} is sharded there; name its key in [shard-keys] of the settings' file, or say --keep-unsharded {namespace}"
            )),
        }
    }

    /// What names nothing that is copied: a slip of the pen.
    pub fn unmatched(&self, copied: &[Namespace]) -> Option<String> {
        let is_unmatched = |pattern: &&Pattern| !copied.iter().any(|namespace| pattern.matches(namespace));
        let pattern = |flag: &str, patterns: &[Pattern]| {
            patterns.iter().find(is_unmatched).map(|pattern| format!("--{flag} {pattern}"))
        };
        pattern("keep-unsharded", &self.keep_unsharded)
            .or_else(|| pattern("keep-sharding", &self.keep_sharding))
            .or_else(|| {
                let key = self.keys.keys().find(|namespace| !copied.contains(namespace));
                key.map(|namespace| format!("`{namespace}` in [shard-keys]"))
            })
    }
}

/// A range of shard keys that belongs to a zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneRange {
    /// The zone's name.
    pub zone: String,
    /// Where it begins, as canonical Extended JSON.
    pub min: Value,
    /// Where it ends, which does not belong to it.
    pub max: Value,
}

/// The index of a collection that its shard key rests on, if it has one: the one whose key begins with the shard key,
/// that covers all documents and is ordered as shard keys are
/// (<https://www.mongodb.com/docs/manual/core/sharding-shard-key/#shard-key-indexes>).
pub fn supporting_index<'a>(entry: &'a CatalogEntry, wanted: &TargetSharding) -> Option<&'a Value> {
    let key = fields(&wanted.key);
    let supports = |index: &&Value| {
        let own = index.get("key").map(fields).unwrap_or_default();
        let has = |name: &str| index.get(name).is_some_and(|value| value != &Value::Bool(false));
        own.starts_with(&key)
            && !["partialFilterExpression", "collation", "hidden"].iter().any(|name| has(name))
            && (!has("sparse") || own == key)
            && (!wanted.unique || (own == key && has("unique")))
    };
    let candidates: Vec<&Value> = entry.indexes.iter().filter(supports).collect();
    candidates.iter().find(|index| index.get("key").map(fields).as_ref() == Some(&key)).or(candidates.first()).copied()
}

/// Whether an index of the target is the one that a server makes for a shard key, and none of the source's.
pub fn is_only_for_shard_key(index: &Value, entry: &CatalogEntry, sharding: &TargetSharding) -> bool {
    let is_sources = entry.indexes.iter().any(|own| own.get("name") == index.get("name"));
    !is_sources && index.get("key").is_some_and(|key| fields(key) == fields(&sharding.key))
}

/// The fields of a key, with their directions.
fn fields(key: &Value) -> Vec<(String, String)> {
    let fields = key.as_object().into_iter().flatten();
    fields.map(|(name, direction)| (name.clone(), direction_text(direction))).collect()
}

/// `1` for every number that means it, `hashed`.
fn direction_text(direction: &Value) -> String {
    match Bson::try_from(direction.clone()) {
        Ok(Bson::String(text)) => text,
        Ok(Bson::Int32(number)) => number.to_string(),
        Ok(Bson::Int64(number)) => number.to_string(),
        Ok(Bson::Double(number)) => number.to_string(),
        _ => direction.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::model::catalog::{Ordinal, Sharding};
    use crate::model::choice::Order;
    use serde_json::json;

    fn entry(key: Option<Value>, indexes: Vec<Value>) -> CatalogEntry {
        let sharding = key.map(|key| Sharding {
            key,
            unique: false,
            is_unsplittable: false,
            chunks: 1,
            pages: 1,
            fingerprint: String::new(),
            no_balance: false,
            zones: Vec::new(),
        });
        CatalogEntry {
            ordinal: Ordinal(0),
            namespace: Namespace::new("db", "c"),
            uuid: None,
            kind: CollectionKind::Collection,
            options: json!({}),
            indexes,
            documents: 0,
            bytes: 0,
            cuts: Vec::new(),
            order: Order::Id,
            filter: None,
            parts: Vec::new(),
            sharding,
            disagreements: Vec::new(),
        }
    }

    #[test]
    fn a_key_that_was_asked_for_counts_more_than_the_sources_and_one_must_be_known() {
        let mut choices = ShardingChoices::default();
        let own = entry(Some(json!({"a": 1})), Vec::new());
        assert_eq!(choices.wanted(&own, true).unwrap().unwrap().key, json!({"a": 1}));
        choices.keep_unsharded = vec![Pattern::parse("db").unwrap()];
        assert_eq!(choices.wanted(&own, true).unwrap(), None);
        assert_eq!(choices.wanted(&entry(None, Vec::new()), false).unwrap(), None);
        choices.keys.insert(own.namespace.clone(), AskedKey::parse(r#"{"b": 1}"#, true).unwrap());
        let wanted = choices.wanted(&own, true).unwrap().unwrap();
        assert_eq!((wanted.text().as_str(), wanted.unique), (r#"{"b":1}, unique"#, true));

        let nothing = ShardingChoices::default();
        assert_eq!(nothing.wanted(&entry(None, Vec::new()), true).unwrap(), None);
        let error = nothing.wanted(&entry(None, Vec::new()), false).unwrap_err();
        assert!(error.contains("--keep-unsharded db.c"), "{error}");
    }

    #[test]
    fn a_key_is_the_same_whatever_the_type_of_its_numbers() {
        let sharding = |key: Value| TargetSharding { key, unique: false, is_collated: false };
        let key = sharding(json!({"a": 1, "b": "hashed"}));
        assert!(key.is_same_as(&sharding(json!({"a": {"$numberDouble": "1.0"}, "b": "hashed"}))));
        assert!(!key.is_same_as(&sharding(json!({"b": "hashed", "a": 1}))));
        assert!(!key.is_same_as(&sharding(json!({"a": 1, "b": 1}))));
        assert!(!key.is_same_as(&TargetSharding { unique: true, ..key.clone() }));
    }

    #[test]
    fn a_shard_key_rests_on_an_index_that_begins_with_it() {
        let wanted = |key: Value, unique| TargetSharding { key, unique, is_collated: false };
        let longer = json!({"name": "long", "key": {"a": {"$numberInt": "1"}, "b": {"$numberInt": "1"}}});
        let same = json!({"name": "same", "key": {"a": {"$numberDouble": "1.0"}}});
        let unique = json!({"name": "unique", "key": {"a": 1}, "unique": true});
        let partial = json!({"name": "partial", "key": {"a": 1}, "partialFilterExpression": {}});
        let name = |indexes: &[&Value], wanted: &TargetSharding| {
            let entry = entry(None, indexes.iter().map(|index| (*index).clone()).collect());
            supporting_index(&entry, wanted).map(|index| index["name"].as_str().unwrap().to_owned())
        };
        let key = wanted(json!({"a": 1}), false);
        assert_eq!(name(&[&longer], &key).as_deref(), Some("long"));
        assert_eq!(name(&[&longer, &same], &key).as_deref(), Some("same"));
        assert_eq!(name(&[&partial], &key), None);
        assert_eq!(name(&[&same], &wanted(json!({"a": 1}), true)), None);
        assert_eq!(name(&[&longer, &same, &unique], &wanted(json!({"a": 1}), true)).as_deref(), Some("unique"));
        assert_eq!(name(&[&same], &wanted(json!({"a": "hashed"}), false)), None);
    }
}
