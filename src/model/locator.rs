//! By what a write finds one document: its `_id`, and in a sharded collection its shard key as well.
//!
//! In a sharded collection `_id` is unique on each shard and not over all of them, and a write by `_id` alone is done on
//! every shard (<https://www.mongodb.com/docs/manual/core/sharded-cluster-query-router/>). With the full shard key a
//! mongos sends it to the one shard that has the document.

use super::cursor::Key;
use super::element::{Element, document_of, kind};
use super::shard_key::{NoShardKey, ShardKey};
use bson::{RawDocument, RawDocumentBuf, rawdoc};

/// How the documents of one collection are found. The default finds them by `_id`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Locator {
    shard_key: Option<ShardKey>,
    is_collated: bool,
}

/// One document, as a write finds it.
#[derive(Debug, Clone, PartialEq)]
pub struct Located {
    /// What a write command takes as `q`.
    pub query: RawDocumentBuf,
    /// Whether the simple collation has to be named beside it: a shard key is ordered by that alone, so with the
    /// collection's own collation a mongos could not tell the shard.
    pub names_simple_collation: bool,
}

impl Located {
    /// By `_id` alone.
    pub fn by_id(key: &Key) -> Self {
        // `$eq` since a value may be a document whose first field begins with `$`.
        Self { query: rawdoc! { "_id": key.named("$eq") }, names_simple_collation: false }
    }
}

impl Locator {
    /// For a collection with this shard key, which has a default collation or not.
    pub fn sharded(shard_key: ShardKey, is_collated: bool) -> Self {
        Self { shard_key: Some(shard_key), is_collated }
    }

    /// Whether `_id` alone does not say which document is meant.
    pub fn is_sharded(&self) -> bool {
        self.shard_key.is_some()
    }

    /// Whether two shards can have documents with one `_id`.
    pub fn may_repeat_ids(&self) -> bool {
        self.shard_key.as_ref().is_some_and(|key| !key.names().eq([b"_id"]))
    }

    /// How a write finds this document.
    ///
    /// # Errors
    /// The document has no shard key, which no server takes into a sharded collection.
    pub fn of(&self, key: &Key, document: &RawDocument) -> Result<Located, NoShardKey> {
        let mut located = Located::by_id(key);
        let Some(shard_key) = &self.shard_key else { return Ok(located) };
        located.names_simple_collation = self.is_collated;
        let found = shard_key.find(document.as_bytes())?;
        let fields = shard_key.names().zip(found).filter(|(name, _)| *name != b"_id");
        // A field that is missing is null to a shard key, and to a query too.
        let values: Vec<(&[u8], Vec<u8>)> = fields
            .map(|(name, value)| {
                let value = value.unwrap_or(Element { kind: kind::NULL, name: b"", value: &[] });
                (name, document_of([Element { name: b"$eq", ..value }].into_iter()))
            })
            .collect();
        let id = key.named("$eq");
        let id = Element { kind: kind::DOCUMENT, name: b"_id", value: id.as_bytes() };
        let rest = values.iter().map(|(name, value)| Element { kind: kind::DOCUMENT, name, value });
        let query = document_of([id].into_iter().chain(rest));
        located.query = RawDocumentBuf::from_bytes(query).map_err(|_| NoShardKey::Malformed)?;
        Ok(located)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn located(pattern: &RawDocument, document: &RawDocument) -> RawDocumentBuf {
        let locator = Locator::sharded(ShardKey::parse(pattern).unwrap(), false);
        locator.of(&Key::of(document).unwrap(), document).unwrap().query
    }

    #[test]
    fn a_document_is_found_by_its_full_shard_key() {
        let document = rawdoc! { "_id": 1, "a": { "b": "x" }, "c": 2.5 };
        let by_id = Locator::default().of(&Key::of(&document).unwrap(), &document).unwrap();
        assert_eq!(by_id, Located::by_id(&Key::of(&document).unwrap()));
        assert_eq!(by_id.query, rawdoc! { "_id": { "$eq": 1 } });
        assert_eq!(
            located(&rawdoc! { "a.b": 1, "c": "hashed", "d": 1 }, &document),
            rawdoc! { "_id": { "$eq": 1 }, "a.b": { "$eq": "x" }, "c": { "$eq": 2.5 }, "d": { "$eq": null } }
        );
        assert_eq!(located(&rawdoc! { "_id": "hashed" }, &document), rawdoc! { "_id": { "$eq": 1 } });
        let array = rawdoc! { "_id": 1, "a": [1] };
        let locator = Locator::sharded(ShardKey::parse(&rawdoc! { "a": 1 }).unwrap(), true);
        assert!(locator.of(&Key::of(&array).unwrap(), &array).is_err());
        assert!(locator.of(&Key::of(&document).unwrap(), &document).unwrap().names_simple_collation);
    }

    #[test]
    fn only_a_key_of_id_alone_keeps_ids_apart() {
        let sharded = |pattern: RawDocumentBuf| Locator::sharded(ShardKey::parse(&pattern).unwrap(), false);
        assert!(!Locator::default().may_repeat_ids());
        assert!(!sharded(rawdoc! { "_id": "hashed" }).may_repeat_ids());
        assert!(sharded(rawdoc! { "_id": 1, "a": 1 }).may_repeat_ids());
        assert!(sharded(rawdoc! { "a": 1 }).may_repeat_ids());
    }
}
