//! Where the documents of a sharded collection belong, as `config.collections` and `config.chunks` say it.

use std::cmp::Ordering;

use futures_util::TryStreamExt;
use mongodb::Client;
use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Bson, Document, RawDocumentBuf, Timestamp, doc};
use mongodb::options::ReadConcern;
use mongoferry::model::bson_order;

use super::super::servers::Failure;

/// The shard key of a collection and its chunks.
#[derive(Debug, Clone, PartialEq)]
pub struct Placement {
    /// Its entry in `config.collections`.
    pub entry: Document,
    /// The shard key's pattern.
    pub key: Document,
    /// When the collection was sharded: a new one with every shardCollection.
    pub epoch: ObjectId,
    /// The same as a time, from 5.0 on.
    pub timestamp: Option<Timestamp>,
    /// The chunks in the order of their bounds.
    pub chunks: Vec<Chunk>,
}

/// A chunk: the keys in `[min, max)`.
#[derive(Debug, Clone, PartialEq)]
pub struct Chunk {
    /// Where it begins.
    pub min: Document,
    /// Where it ends.
    pub max: Document,
    /// The name of the shard that owns it.
    pub shard: String,
    /// `lastmod`: raised by every split and every migration.
    pub version: Timestamp,
}

/// Reads the placement of a collection from the config server; none when it is not sharded.
pub async fn read(config: &Client, namespace: &str) -> Result<Option<Placement>, Failure> {
    let database = config.database("config");
    let collections = database.collection::<Document>("collections");
    let entry = collections.find_one(entry_of(namespace)).read_concern(ReadConcern::majority()).await?;
    let Some(entry) = entry else { return Ok(None) };
    let chunks = database.collection::<Document>("chunks");
    let chunks = chunks.find(chunks_of(&entry)).sort(doc! {"min": 1}).read_concern(ReadConcern::majority()).await?;
    let chunks: Vec<Document> = chunks.try_collect().await?;
    Placement::new(entry, &chunks).map(Some)
}

/// What finds the entry of a sharded collection in `config.collections`; in a 4.4 it may be there and say that the
/// collection was dropped.
pub fn entry_of(namespace: &str) -> Document {
    doc! {"_id": namespace, "dropped": {"$ne": true}}
}

/// What finds its chunks in `config.chunks`: by its UUID from 5.0 on, which is when entries have a timestamp.
pub fn chunks_of(entry: &Document) -> Document {
    let by = |name: &str| entry.get(name).cloned().unwrap_or(Bson::Null);
    if entry.contains_key("timestamp") {
        doc! {"uuid": by("uuid")}
    } else {
        doc! {"ns": by("_id")}
    }
}

impl Placement {
    /// From the entry in `config.collections` and the chunks in `config.chunks`, in the order of their `min`.
    pub fn new(entry: Document, chunks: &[Document]) -> Result<Self, Failure> {
        Ok(Placement {
            key: entry.get_document("key")?.clone(),
            epoch: entry.get_object_id("lastmodEpoch")?,
            timestamp: entry.get_timestamp("timestamp").ok(),
            chunks: chunks.iter().map(Chunk::parse).collect::<Result<_, _>>()?,
            entry,
        })
    }

    /// The chunk that a key belongs to. The key has the fields of the pattern, a hashed one as its hash.
    pub fn chunk_of(&self, key: &Document) -> Result<&Chunk, Failure> {
        for chunk in &self.chunks {
            if compare(&chunk.min, key)?.is_le() && compare(key, &chunk.max)?.is_lt() {
                return Ok(chunk);
            }
        }
        Err(format!("no chunk for {key}").into())
    }

    /// The names of the shards that own chunks, sorted.
    pub fn owners(&self) -> Vec<String> {
        let mut owners: Vec<String> = self.chunks.iter().map(|chunk| chunk.shard.clone()).collect();
        owners.sort();
        owners.dedup();
        owners
    }

    /// The version of the chunks of a shard, as commands of 6.0 carry it (`shardVersion`); a shard without chunks has
    /// version 0.
    pub fn shard_version(&self, shard: &str) -> Document {
        let chunks = self.chunks.iter().filter(|chunk| chunk.shard == shard);
        let none = Timestamp { time: 0, increment: 0 };
        let version = chunks.map(|chunk| chunk.version).max().unwrap_or(none);
        doc! {"e": self.epoch, "t": self.timestamp.unwrap_or(none), "v": version}
    }
}

impl Chunk {
    fn parse(chunk: &Document) -> Result<Self, Failure> {
        Ok(Chunk {
            min: chunk.get_document("min")?.clone(),
            max: chunk.get_document("max")?.clone(),
            shard: chunk.get_str("shard")?.to_owned(),
            version: chunk.get_timestamp("lastmod")?,
        })
    }
}

fn compare(left: &Document, right: &Document) -> Result<Ordering, Failure> {
    let raw = |document| RawDocumentBuf::try_from(document);
    Ok(bson_order::compare_documents(&raw(left)?, &raw(right)?))
}
