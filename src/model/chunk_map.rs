//! The chunks of a sharded collection: which shard owns which range of the shard key.
//!
//! It protects against a map that is not one: every key is in exactly one chunk, from MinKey to MaxKey in every field,
//! or there is no [`ChunkMap`]. A map that was read while chunks moved, page by page, shows itself by a gap or an
//! overlap; one that changed after it was read shows itself by its [fingerprint](ChunkMap::fingerprint).
//!
//! A million chunks are real, so a map holds each bound once, as its bytes, all of them in one piece of memory.

use super::bson_order::Value;
use super::element::{Element, document_of, elements, kind};
use super::shard_key::ShardKey;
use bson::oid::ObjectId;
use bson::raw::RawDocumentBuf;
use bson::{RawDocument, Timestamp, rawdoc};
use sha2::{Digest as _, Sha256};
use std::cmp::Ordering;
use std::fmt::{self, Write as _};

/// What a person can do about a map that is not whole.
const TRY_AGAIN: &str =
    "chunks moved while they were read, or config.chunks is damaged; stop the balancer and try again";

/// Which life of a collection's sharding a map is of: dropped and sharded again, or given another shard key, it has
/// another one (`CollectionGeneration` in the server's source).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Generation {
    /// `lastmodEpoch`.
    pub epoch: ObjectId,
    /// `timestamp`, which servers have from 5.0 on.
    pub timestamp: Option<Timestamp>,
}

/// Bounds of chunks in their order.
///
/// A bound is the bytes of its values, each behind its type byte: the key has the names.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Bounds {
    bytes: Vec<u8>,
    /// Where each ends.
    ends: Vec<usize>,
}

impl Bounds {
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn get(&self, index: usize) -> &[u8] {
        let begin = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.bytes[begin..self.ends[index]]
    }

    pub(super) fn push(&mut self, bound: &[u8]) {
        self.bytes.extend_from_slice(bound);
        self.ends.push(self.bytes.len());
    }

    /// Gives back what memory is not needed when no more are added.
    pub(super) fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
        self.ends.shrink_to_fit();
    }
}

/// The values of a bound.
pub(super) fn values(mut bound: &[u8]) -> impl Iterator<Item = Value<'_>> {
    std::iter::from_fn(move || {
        let (kind, rest) = bound.split_first()?;
        bound = rest;
        Some(Value::take(*kind, &mut bound).expect("a bound was read before it was kept"))
    })
}

/// Compares a key with a bound, field by field.
pub(super) fn compare(key: &[Value<'_>], bound: &[u8]) -> Ordering {
    for (value, bound) in key.iter().zip(values(bound)) {
        let order = value.compare(&bound);
        if order.is_ne() {
            return order;
        }
    }
    Ordering::Equal
}

fn compare_bounds(left: &[u8], right: &[u8]) -> Ordering {
    // All have as many fields as the key.
    let mut orders = values(left).zip(values(right)).map(|(left, right)| left.compare(&right));
    orders.find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
}

/// All chunks of one collection.
#[derive(Clone, PartialEq)]
pub struct ChunkMap {
    key: ShardKey,
    generation: Generation,
    /// The names of the shards that own something, in the order in which they were met.
    shards: Vec<String>,
    /// Where each chunk begins, and where the last one ends.
    bounds: Bounds,
    /// The owner of each chunk, as an index of `shards`.
    owners: Vec<u32>,
    /// The version of each chunk.
    versions: Vec<u64>,
}

/// One chunk of a map, `[min, max)`.
#[derive(Clone, Copy)]
pub struct Chunk<'a> {
    key: &'a ShardKey,
    min: &'a [u8],
    max: &'a [u8],
    /// Who owns it.
    pub shard: &'a str,
    /// Its version (`lastmod`): every migration, split and merge gives another one, greater than all before.
    pub version: Timestamp,
}

impl Chunk<'_> {
    /// Its lower bound, which belongs to it, with the names of the shard key.
    pub fn min(&self) -> RawDocumentBuf {
        bound_document(self.key, self.min)
    }

    /// Its upper bound, which does not belong to it, with the names of the shard key.
    pub fn max(&self) -> RawDocumentBuf {
        bound_document(self.key, self.max)
    }

    /// The chunk as [`ChunkMapBuilder::push`] takes it: the fields that count, as `config.chunks` has them.
    pub fn document(&self) -> RawDocumentBuf {
        rawdoc! { "min": self.min(), "max": self.max(), "shard": self.shard, "lastmod": self.version }
    }
}

impl fmt::Debug for Chunk<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {}) of {} {}", shown(&self.min()), shown(&self.max()), self.shard, shown_version(self.version))
    }
}

impl ChunkMap {
    /// The key that the chunks are ranges of.
    pub fn key(&self) -> &ShardKey {
        &self.key
    }

    /// Which life of the collection's sharding it is of.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// How many chunks there are, at least one.
    pub fn chunk_count(&self) -> usize {
        self.owners.len()
    }

    /// The names of the shards that own something.
    pub fn shards(&self) -> &[String] {
        &self.shards
    }

    /// The chunks, from MinKey to MaxKey.
    pub fn chunks(&self) -> impl Iterator<Item = Chunk<'_>> {
        (0..self.chunk_count()).map(|index| self.chunk(index))
    }

    fn chunk(&self, index: usize) -> Chunk<'_> {
        Chunk {
            key: &self.key,
            min: self.bounds.get(index),
            max: self.bounds.get(index + 1),
            shard: &self.shards[self.owners[index] as usize],
            version: timestamp(self.versions[index]),
        }
    }

    /// The bounds of what a shard owns, `[first, second)`, `[third, fourth)`, …: neighbouring chunks are one range.
    pub(super) fn owned_by(&self, shard: &str) -> Bounds {
        let mut owned = Bounds::default();
        let shard = self.shards.iter().position(|name| name == shard).map(|index| index as u32);
        let mut within = false;
        for index in 0..self.bounds.len() {
            // Behind the last bound is nobody's.
            let owns = shard.is_some() && self.owners.get(index).copied() == shard;
            if owns != within {
                owned.push(self.bounds.get(index));
            }
            within = owns;
        }
        owned.shrink();
        owned
    }

    /// The SHA-256, in hexadecimal, over all that makes the map what it is: key, generation, bounds, owners and
    /// versions. As long as it stays the same nothing moved, not even away and back.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        // Each part has its length before it: no two lists of parts are the same bytes.
        let mut add = |part: &[u8]| {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        };
        add(self.key.pattern().as_bytes());
        add(&self.generation.epoch.bytes());
        add(&self.generation.timestamp.map_or(0, bits).to_le_bytes());
        for chunk in self.chunks() {
            add(chunk.min);
            add(chunk.shard.as_bytes());
            add(&bits(chunk.version).to_le_bytes());
        }
        add(self.bounds.get(self.chunk_count()));
        hash.finalize().iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").expect("a string takes everything");
            text
        })
    }

    /// What is not the same in a later map of the same generation, in words, chunk by chunk.
    pub fn changes<'a>(&'a self, later: &'a ChunkMap) -> impl Iterator<Item = String> + 'a {
        let (mut here, mut there) = (0, 0);
        std::iter::from_fn(move || {
            // Both begin at MinKey and end at MaxKey: wherever one has a chunk, so has the other.
            while here < self.chunk_count() && there < later.chunk_count() {
                let (old, new) = (self.chunk(here), later.chunk(there));
                let order = compare_bounds(old.max, new.max);
                here += usize::from(order.is_le());
                there += usize::from(order.is_ge());
                if (old.shard, old.version) != (new.shard, new.version) {
                    return Some(format!("{old:?} became {new:?}"));
                }
            }
            None
        })
    }
}

impl fmt::Debug for ChunkMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} chunks by {} on {} shards", self.chunk_count(), self.key, self.shards.len())
    }
}

/// Takes chunks in the order of their `min`, as many as there are, and makes a map of them.
pub struct ChunkMapBuilder {
    map: ChunkMap,
    /// Where the last chunk ends, which is where the next one has to begin.
    end: Vec<u8>,
    /// Room for the next one, used again.
    min: Vec<u8>,
}

impl ChunkMapBuilder {
    /// A map without chunks.
    pub fn new(key: ShardKey, generation: Generation) -> Self {
        // Every map begins at MinKey.
        let end = vec![kind::MIN_KEY; key.field_count()];
        let (shards, bounds, owners, versions) = Default::default();
        Self { map: ChunkMap { key, generation, shards, bounds, owners, versions }, end, min: Vec::new() }
    }

    /// Adds the next chunk, a document with `min`, `max`, `shard` and `lastmod`: as `config.chunks` has it, or
    /// [`Chunk::document`].
    ///
    /// # Errors
    /// A chunk that lacks something or does not begin where the one before it ends.
    pub fn push(&mut self, chunk: &RawDocument) -> Result<(), String> {
        let missing = |name: &str| format!("the chunk {} has no {name}", shown(chunk));
        let min = chunk.get_document("min").map_err(|_| missing("min"))?;
        let max = chunk.get_document("max").map_err(|_| missing("max"))?;
        let shard = chunk.get_str("shard").map_err(|_| missing("shard"))?;
        let version = chunk.get_timestamp("lastmod").map_err(|_| missing("lastmod"))?;
        read_bound(&self.map.key, min, &mut self.min)?;
        match compare_bounds(&self.min, &self.end) {
            Ordering::Equal => {}
            Ordering::Greater => {
                let end = bound_document(&self.map.key, &self.end);
                return Err(format!("there is no chunk from {} to {}: {TRY_AGAIN}", shown(&end), shown(min)));
            }
            Ordering::Less => return Err(format!("two chunks overlap at {}: {TRY_AGAIN}", shown(min))),
        }
        read_bound(&self.map.key, max, &mut self.end)?;
        if compare_bounds(&self.min, &self.end).is_ge() {
            return Err(format!("the chunk from {} to {} is empty: {TRY_AGAIN}", shown(min), shown(max)));
        }
        self.map.bounds.push(&self.min);
        self.map.owners.push(place(&mut self.map.shards, shard));
        self.map.versions.push(bits(version));
        Ok(())
    }

    /// The map.
    ///
    /// # Errors
    /// When the last chunk does not end at MaxKey in every field.
    pub fn finish(mut self) -> Result<ChunkMap, String> {
        if values(&self.end).any(|value| !matches!(value, Value::MaxKey)) {
            let end = bound_document(&self.map.key, &self.end);
            return Err(format!("there is no chunk from {} to MaxKey: {TRY_AGAIN}", shown(&end)));
        }
        self.map.bounds.push(&self.end);
        self.map.bounds.shrink();
        self.map.owners.shrink_to_fit();
        self.map.versions.shrink_to_fit();
        Ok(self.map)
    }
}

/// Takes the values of a bound, whose names must be the key's.
fn read_bound(key: &ShardKey, bound: &RawDocument, into: &mut Vec<u8>) -> Result<(), String> {
    into.clear();
    let mut names = key.names();
    for Element { kind, name, value } in elements(bound.as_bytes()) {
        let is_value = Value::take(kind, &mut &*value).is_some();
        if names.next() != Some(name) || !is_value {
            return Err(format!("the bound {} of a chunk is none of the shard key {key}", shown(bound)));
        }
        into.push(kind);
        into.extend_from_slice(value);
    }
    match names.next() {
        None => Ok(()),
        Some(_) => Err(format!("the bound {} of a chunk is none of the shard key {key}", shown(bound))),
    }
}

fn bound_document(key: &ShardKey, mut bound: &[u8]) -> RawDocumentBuf {
    let parts = key.names().map_while(|name| {
        let (kind, value) = bound.split_first()?;
        let mut rest = value;
        Value::take(*kind, &mut rest)?;
        let value = &value[..value.len() - rest.len()];
        bound = rest;
        Some(Element { kind: *kind, name, value })
    });
    RawDocumentBuf::from_bytes(document_of(parts)).expect("a document of values that were read")
}

/// The place of a name in the list, where it is added when it is not there. Neighbouring chunks are often of one shard,
/// and there are few shards.
fn place(names: &mut Vec<String>, name: &str) -> u32 {
    let found = names.iter().position(|known| known == name);
    found.unwrap_or_else(|| {
        names.push(name.to_owned());
        names.len() - 1
    }) as u32
}

fn bits(timestamp: Timestamp) -> u64 {
    u64::from(timestamp.time) << 32 | u64::from(timestamp.increment)
}

fn timestamp(bits: u64) -> Timestamp {
    Timestamp { time: (bits >> 32) as u32, increment: bits as u32 }
}

/// Versions are written so in the server's logs.
fn shown_version(version: Timestamp) -> String {
    format!("{}|{}", version.time, version.increment)
}

/// A document for a message, as JSON where it can be decoded.
fn shown(document: &RawDocument) -> String {
    bson::Document::try_from(document).map_or_else(|_| format!("{document:?}"), |document| document.to_string())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use bson::RawBson::{self, MaxKey, MinKey};

    fn generation() -> Generation {
        Generation { epoch: ObjectId::from_bytes([7; 12]), timestamp: Some(Timestamp { time: 5, increment: 6 }) }
    }

    fn chunk(min: impl Into<RawBson>, max: impl Into<RawBson>, shard: &str, version: u32) -> RawDocumentBuf {
        let version = Timestamp { time: version, increment: 1 };
        rawdoc! { "_id": 1, "min": { "k": min.into() }, "max": { "k": max.into() }, "shard": shard, "lastmod": version }
    }

    fn build(chunks: &[RawDocumentBuf]) -> Result<ChunkMap, String> {
        let mut builder = ChunkMapBuilder::new(ShardKey::parse(&rawdoc! { "k": 1 }).unwrap(), generation());
        for chunk in chunks {
            builder.push(chunk)?;
        }
        builder.finish()
    }

    fn three() -> [RawDocumentBuf; 3] {
        [chunk(MinKey, 0, "s1", 3), chunk(0.0, "a", "s2", 2), chunk("a", MaxKey, "s1", 1)]
    }

    #[test]
    fn a_map_is_what_it_was_built_of() {
        let map = build(&three()).unwrap();
        assert_eq!((map.chunk_count(), map.shards()), (3, &["s1".to_owned(), "s2".to_owned()][..]));
        let shown: Vec<_> = map.chunks().map(|chunk| format!("{chunk:?}")).collect();
        assert_eq!(
            shown,
            [
                r#"[{ "k": MinKey }, { "k": 0 }) of s1 3|1"#,
                r#"[{ "k": 0 }, { "k": "a" }) of s2 2|1"#,
                r#"[{ "k": "a" }, { "k": MaxKey }) of s1 1|1"#,
            ]
        );
        assert_eq!(map.chunks().nth(1).unwrap().min(), rawdoc! { "k": 0.0 });
        let again: Vec<_> = map.chunks().map(|chunk| chunk.document()).collect();
        assert_eq!(build(&again).unwrap(), map);
        assert_eq!(build(&again).unwrap().fingerprint(), map.fingerprint());
    }

    #[test]
    fn what_is_no_map_says_where() {
        let refused = |chunks: &[RawDocumentBuf], why: &str| {
            let error = build(chunks).unwrap_err();
            assert!(error.starts_with(why), "{error}");
        };
        let [first, second, third] = three();
        refused(&[], r#"there is no chunk from { "k": MinKey } to MaxKey"#);
        refused(&[second.clone(), third.clone()], r#"there is no chunk from { "k": MinKey } to { "k": 0 }"#);
        refused(&[first.clone(), third.clone()], r#"there is no chunk from { "k": 0 } to { "k": "a" }"#);
        refused(&[first.clone(), second.clone()], r#"there is no chunk from { "k": "a" } to MaxKey"#);
        refused(&[first.clone(), first.clone()], r#"two chunks overlap at { "k": MinKey }"#);
        refused(
            &[first.clone(), chunk(-1, "a", "s2", 1), third.clone()],
            r#"two chunks overlap at { "k": -1 }: chunks moved while they were read"#,
        );
        refused(&[first.clone(), second, third, first.clone()], r#"two chunks overlap at { "k": MinKey }"#);
        refused(&[first.clone(), chunk(0, 0, "s1", 1)], r#"the chunk from { "k": 0 } to { "k": 0 } is empty"#);
        let other = rawdoc! { "min": { "x": MinKey }, "max": { "x": MaxKey }, "shard": "s1" };
        refused(
            &[other],
            r#"the chunk { "min": { "x": MinKey }, "max": { "x": MaxKey }, "shard": "s1" } has no lastmod"#,
        );
        for bound in [rawdoc! { "x": MinKey }, rawdoc! {}, rawdoc! { "k": MinKey, "x": MinKey }] {
            let shown = shown(&bound);
            let version = Timestamp { time: 1, increment: 0 };
            let chunk = rawdoc! { "min": bound, "max": { "k": MaxKey }, "shard": "s1", "lastmod": version };
            refused(&[chunk], &format!(r#"the bound {shown} of a chunk is none of the shard key {{"k": 1}}"#));
        }
    }

    #[test]
    fn a_compound_key_must_reach_its_ends_in_every_field() {
        let build = |min: RawDocumentBuf, max: RawDocumentBuf| {
            let key = ShardKey::parse(&rawdoc! { "a": 1, "b.c": "hashed" }).unwrap();
            let mut builder = ChunkMapBuilder::new(key, Generation { timestamp: None, ..generation() });
            let version = Timestamp { time: 1, increment: 0 };
            builder.push(&rawdoc! { "min": min, "max": max, "shard": "s1", "lastmod": version })?;
            builder.finish()
        };
        let (least, greatest) = (|| rawdoc! { "a": MinKey, "b.c": MinKey }, || rawdoc! { "a": MaxKey, "b.c": MaxKey });
        assert_eq!(build(least(), greatest()).unwrap().chunk_count(), 1);
        assert!(build(rawdoc! { "a": MinKey, "b.c": 0_i64 }, greatest()).is_err());
        assert!(build(least(), rawdoc! { "a": MaxKey, "b.c": 0_i64 }).is_err());
    }

    #[test]
    fn neighbouring_chunks_of_one_shard_are_one_range() {
        let map = build(&[
            chunk(MinKey, 0, "s1", 1),
            chunk(0, 1, "s1", 1),
            chunk(1, 2, "s2", 1),
            chunk(2, 3, "s3", 1),
            chunk(3, 4, "s1", 1),
            chunk(4, MaxKey, "s2", 1),
        ])
        .unwrap();
        let owned = |shard: &str| {
            let owned = map.owned_by(shard);
            (0..owned.len()).map(|index| shown(&bound_document(&map.key, owned.get(index)))).collect::<Vec<_>>()
        };
        assert_eq!(owned("s1"), [r#"{ "k": MinKey }"#, r#"{ "k": 1 }"#, r#"{ "k": 3 }"#, r#"{ "k": 4 }"#]);
        assert_eq!(owned("s2"), [r#"{ "k": 1 }"#, r#"{ "k": 2 }"#, r#"{ "k": 4 }"#, r#"{ "k": MaxKey }"#]);
        assert_eq!(owned("s3"), [r#"{ "k": 2 }"#, r#"{ "k": 3 }"#]);
        assert_eq!(owned("s4"), [""; 0]);
    }

    #[test]
    fn everything_counts_in_the_fingerprint() {
        let fingerprint = |chunks: &[RawDocumentBuf]| build(chunks).unwrap().fingerprint();
        let [first, second, third] = three();
        let mut seen = vec![
            fingerprint(&three()),
            fingerprint(&[first.clone(), chunk(0.0, "a", "s3", 2), third.clone()]),
            fingerprint(&[first.clone(), chunk(0.0, "a", "s1", 2), third.clone()]),
            fingerprint(&[first.clone(), chunk(0.0, "a", "s2", 4), third.clone()]),
            fingerprint(&[first.clone(), chunk(0.0, "b", "s2", 2), chunk("b", MaxKey, "s1", 1)]),
            fingerprint(&[first.clone(), chunk(0.0, 1, "s2", 2), chunk(1, "a", "s2", 2), third]),
            fingerprint(&[first, second].into_iter().chain([chunk("a", MaxKey, "s2", 1)]).collect::<Vec<_>>()),
        ];
        let mut map = build(&three()).unwrap();
        map.generation.timestamp = None;
        seen.push(map.fingerprint());
        map.generation.epoch = ObjectId::from_bytes([8; 12]);
        seen.push(map.fingerprint());
        map.key = ShardKey::parse(&rawdoc! { "k": "hashed" }).unwrap();
        seen.push(map.fingerprint());
        let count = seen.len();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), count);
        assert!(seen.iter().all(|text| text.len() == 64));
    }

    #[test]
    fn what_changed_is_said_chunk_by_chunk() {
        let changes = |later: &[RawDocumentBuf]| {
            let (map, later) = (build(&three()).unwrap(), build(later).unwrap());
            map.changes(&later).collect::<Vec<_>>()
        };
        let [first, second, third] = three();
        assert_eq!(changes(&three()), [""; 0]);
        assert_eq!(
            changes(&[first.clone(), chunk(0.0, "a", "s1", 4), third.clone()]),
            [r#"[{ "k": 0 }, { "k": "a" }) of s2 2|1 became [{ "k": 0 }, { "k": "a" }) of s1 4|1"#]
        );
        // Away and back.
        assert_eq!(changes(&[first.clone(), chunk(0.0, "a", "s2", 5), third.clone()]).len(), 1);
        assert_eq!(
            changes(&[first.clone(), chunk(0.0, 1, "s2", 4), chunk(1, "a", "s2", 4), third]),
            [
                r#"[{ "k": 0 }, { "k": "a" }) of s2 2|1 became [{ "k": 0 }, { "k": 1 }) of s2 4|1"#,
                r#"[{ "k": 0 }, { "k": "a" }) of s2 2|1 became [{ "k": 1 }, { "k": "a" }) of s2 4|1"#,
            ]
        );
        assert_eq!(changes(&[first, second, chunk("a", "b", "s1", 1), chunk("b", MaxKey, "s2", 4)]).len(), 1);
        assert_eq!(changes(&[chunk(MinKey, MaxKey, "s1", 4)]).len(), 3);
    }
}
