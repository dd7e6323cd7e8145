//! Which documents of a sharded collection are this shard's to copy, and what the other shards have.
//!
//! All shards of a collection write into one collection of the target. So what lies there may be another shard's, and a
//! lane replaces or deletes only what belongs to its own shard, by the shard key that it has on the target. One `_id` can
//! be on two shards: an update of the shard key has moved the document from one to the other between their scans, or
//! there are two documents, since only the shard key is unique over all shards. The shards tell which, read again.

use crate::error::{Error, Result};
use crate::model::catalog::CatalogEntry;
use crate::model::chunk_map::ChunkMap;
use crate::model::cursor::Key;
use crate::model::job::Optime;
use crate::model::namespace::Namespace;
use crate::model::orphan_filter::OrphanFilter;
use crate::mongo::deployment::Deployment;
use crate::mongo::documents::Documents as Batch;
use crate::mongo::read;
use crate::state::chunks;
use crate::state::document::Documents;
use bson::RawDocument;
use mongodb::error::Error as DriverError;
use tokio::sync::{OnceCell, Semaphore};

/// Who owns the documents of a sharded collection, as one shard sees it.
pub struct Ownership {
    /// The collection on the source.
    pub namespace: Namespace,
    /// What this shard owns.
    pub mine: OrphanFilter,
    /// The other shards that own something.
    pub others: Vec<Owner>,
    /// What they own, read when it is asked for: rarely, and of large maps it takes as much memory as `mine`.
    pub map: RecordedMap,
    /// Whether the first document that it does not own is an error.
    pub fails: bool,
    /// This shard.
    pub source: Deployment,
}

/// A chunk map that discover recorded.
pub struct RecordedMap {
    /// Where it lies.
    pub documents: Documents,
    /// Whose it is.
    pub entry: CatalogEntry,
}

/// While a map is read it takes more memory than what is made of it: the lanes of a process take turns.
static READING: Semaphore = Semaphore::const_new(1);

impl RecordedMap {
    /// Reads it.
    ///
    /// # Errors
    /// Those of the state store, also when there is none.
    pub async fn read(&self) -> Result<ChunkMap> {
        let _reading = READING.acquire().await.map_err(|_| Error::internal("the turns of reading maps were closed"))?;
        let missing =
            || Error::state(format!("the catalog has no chunks of {}; use another --job", self.entry.namespace));
        chunks::read(&self.documents, &self.entry, self.entry.sharding.as_ref().ok_or_else(missing)?).await
    }
}

/// Another shard.
pub struct Owner {
    /// Its name in the cluster.
    pub name: String,
    /// Its servers.
    pub deployment: Deployment,
    /// What it owns.
    pub filter: OnceCell<OrphanFilter>,
    /// Reads are not older than this.
    pub not_before: Optime,
}

impl Ownership {
    /// Whether a document is this shard's.
    ///
    /// # Errors
    /// Source unavailable when it has no shard key, so that nobody can say.
    pub fn is_mine(&self, document: &RawDocument) -> Result<bool> {
        self.mine.owns(document.as_bytes()).map_err(|why| {
            let id = Key::of(document);
            self.source.side.error(format!(
                "the document of {} with _id {} has no shard key: {why}; mend it on the source, or copy what no shard owns as well with --orphans copy",
                self.namespace,
                id.map_or_else(|| "(none)".to_owned(), |id| format!("{id:?}")),
            ))
        })
    }

    /// Those of a batch that are this shard's, and how many are not.
    ///
    /// # Errors
    /// As [`Ownership::is_mine`]; source unavailable at the first one that is not, if it is to fail.
    pub fn sift(&self, documents: Batch) -> Result<(Batch, u64)> {
        let mut mine = Vec::new();
        let mut orphans = 0;
        for (place, document) in documents.iter().enumerate() {
            if self.is_mine(document)? {
                // Most batches have no orphans: their places are not written down before there is one.
                if orphans > 0 {
                    mine.push(place);
                }
                continue;
            }
            if self.fails {
                return Err(self.source.side.error(format!(
                    "the document of {} with _id {:?} is on {} and not in a chunk of that shard; clean up with `cleanupOrphaned`, or say --orphans skip",
                    self.namespace,
                    Key::of(document),
                    self.source.identity.set_name
                )));
            }
            if orphans == 0 {
                mine.extend(0..place);
            }
            orphans += 1;
        }
        if orphans == 0 { Ok((documents, 0)) } else { Ok((documents.pick(&mine), orphans)) }
    }

    /// Reads what the other shards own, unless that was done.
    ///
    /// # Errors
    /// Those of the state store.
    pub async fn know_others(&self) -> Result<()> {
        if self.others.iter().all(|owner| owner.filter.initialized()) {
            return Ok(());
        }
        let map = self.map.read().await?;
        for Owner { name, filter, .. } in &self.others {
            filter.get_or_init(|| async { OrphanFilter::new(&map, name) }).await;
        }
        Ok(())
    }

    /// Whether another shard owns a document with this `_id` now that is to be copied. What they own must be known.
    ///
    /// # Errors
    /// The driver's.
    pub async fn others_have(&self, key: &Key) -> std::result::Result<bool, DriverError> {
        for Owner { deployment, filter, not_before, .. } in &self.others {
            let filter_of_all = self.map.entry.filter.as_ref();
            let found = read::document(deployment, &self.namespace, filter_of_all, key, Some(*not_before)).await?;
            let owns =
                |found: &RawDocument| filter.get().is_none_or(|filter| filter.owns(found.as_bytes()).unwrap_or(true));
            if found.is_some_and(|found| owns(&found)) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
