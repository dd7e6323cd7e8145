//! The chunk maps of sharded collections: pages of chunks as `config.chunks` has them, compressed.

use super::VERSION;
use super::document::{Document, Documents};
use super::{keys, pages};
use crate::error::{Error, Result};
use crate::model::catalog::{CatalogEntry, Ordinal, Sharding};
use crate::model::chunk_map::{ChunkMap, ChunkMapBuilder, Generation};
use crate::model::shard_key::ShardKey;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bson::oid::ObjectId;
use bson::{Bson, RawDocument, RawDocumentBuf, Timestamp};
use serde::{Deserialize, Serialize};

/// How many chunks a page has: compressed, some hundred kilobytes.
const PAGE: usize = 20_000;

/// A page of chunks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkPage {
    /// `lastmodEpoch` of the collection's sharding.
    pub epoch: ObjectId,
    /// Its `timestamp`, where servers have one (5.0): seconds and increment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<(u32, u32)>,
    /// The chunks in their order: `min`, `max`, `shard` and `lastmod` of each as BSON, one behind the other, compressed with
    /// zstd, in base64.
    pub chunks: String,
}

impl Document for ChunkPage {
    const KIND: &'static str = "chunk-page";
    const VERSION: u32 = VERSION;
}

/// Writes a map as `attempt`'s, and gives what the catalog says of it.
///
/// # Errors
/// Those of the state store.
pub async fn write(
    documents: &Documents,
    (attempt, ordinal): (&str, Ordinal),
    map: &ChunkMap,
    (unique, is_unsplittable): (bool, bool),
) -> Result<Sharding> {
    let Generation { epoch, timestamp } = map.generation();
    let timestamp = timestamp.map(|timestamp| (timestamp.time, timestamp.increment));
    let mut chunks = map.chunks().peekable();
    let mut pages = 0;
    while chunks.peek().is_some() {
        let mut plain = Vec::new();
        chunks.by_ref().take(PAGE).for_each(|chunk| plain.extend_from_slice(chunk.document().as_bytes()));
        let compressed = zstd::encode_all(plain.as_slice(), zstd::DEFAULT_COMPRESSION_LEVEL);
        let compressed = compressed.map_err(|error| Error::internal(format!("compressing chunks: {error}")))?;
        let page = ChunkPage { epoch, timestamp, chunks: STANDARD.encode(compressed) };
        documents.create(&keys::chunk_page(attempt, ordinal, pages), &page).await?;
        pages += 1;
    }
    let key = Bson::Document(bson::Document::try_from(map.key().pattern()).map_err(unreadable)?);
    Ok(Sharding {
        key: key.into_canonical_extjson(),
        unique,
        is_unsplittable,
        chunks: map.chunk_count() as u64,
        pages,
        fingerprint: map.fingerprint(),
        no_balance: false,
        zones: Vec::new(),
    })
}

/// Reads the map of a sharded collection of the catalog.
///
/// # Errors
/// Those of the state store, also when it is not what the catalog says.
pub async fn read(documents: &Documents, entry: &CatalogEntry, sharding: &Sharding) -> Result<ChunkMap> {
    let head: pages::CatalogHead = pages::expect(documents, keys::CATALOG).await?;
    let key = Bson::try_from(sharding.key.clone()).map_err(unreadable)?;
    let key = key.as_document().ok_or_else(|| unreadable("a shard key that is no document"))?;
    let key = ShardKey::parse(&RawDocumentBuf::try_from(key).map_err(unreadable)?).map_err(unreadable)?;
    let mut key = Some(key);
    let mut map: Option<ChunkMapBuilder> = None;
    for page in 0..sharding.pages {
        let page: ChunkPage = pages::expect(documents, &keys::chunk_page(&head.attempt, entry.ordinal, page)).await?;
        if let Some(key) = key.take() {
            let timestamp = page.timestamp.map(|(time, increment)| Timestamp { time, increment });
            map = Some(ChunkMapBuilder::new(key, Generation { epoch: page.epoch, timestamp }));
        }
        let compressed = STANDARD.decode(&page.chunks).map_err(unreadable)?;
        let plain = zstd::decode_all(compressed.as_slice()).map_err(unreadable)?;
        let mut rest = plain.as_slice();
        while let Some(map) = &mut map
            && !rest.is_empty()
        {
            let length = rest.first_chunk().map_or(0, |length| u32::from_le_bytes(*length) as usize);
            let (chunk, behind) = rest.split_at_checked(length).ok_or_else(|| unreadable("a chunk without end"))?;
            map.push(RawDocument::from_bytes(chunk).map_err(unreadable)?).map_err(unreadable)?;
            rest = behind;
        }
    }
    let map = map.ok_or_else(|| unreadable("no page"))?.finish().map_err(unreadable)?;
    if map.fingerprint() != sharding.fingerprint {
        return Err(unreadable(format!("they are not those of {}", entry.namespace)));
    }
    Ok(map)
}

fn unreadable(why: impl std::fmt::Display) -> Error {
    Error::state(format!("the chunks in the state cannot be read: {why}; use another --job"))
}
