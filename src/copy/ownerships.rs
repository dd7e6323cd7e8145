//! The chunk maps of a lane's sharded collections, each read when the lane comes to it and kept while a partition needs it.

use super::ownership::{Owner, Ownership, RecordedMap};
use crate::context::Context;
use crate::error::Result;
use crate::model::catalog::{CatalogEntry, Ordinal};
use crate::model::choice::Orphans;
use crate::model::job::{CheckpointMap, Optime};
use crate::model::orphan_filter::OrphanFilter;
use crate::model::plan::PartitionSpec;
use crate::mongo::deployment::Deployment;
use crate::source::Source;
use crate::state::document::Documents;
use crate::state::pages;
use crate::steps::discover;
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use tokio::sync::{Mutex, OnceCell};

/// Where a lane reads from.
pub struct Origin {
    /// Its shard.
    pub deployment: Deployment,
    /// Reads are not older than this.
    pub not_before: Optime,
    /// What the shard owns of sharded collections.
    pub ownerships: Ownerships,
}

/// What one shard owns of each sharded collection. Empty for a replica set, and for a mongos, which shows nothing else.
pub struct Ownerships {
    documents: Documents,
    shard: String,
    orphans: Orphans,
    /// The sharded collections.
    entries: HashMap<Ordinal, CatalogEntry>,
    shards: HashMap<String, (Deployment, Optime)>,
    /// Those that are in use.
    open: Mutex<HashMap<Ordinal, Weak<Ownership>>>,
}

impl Ownerships {
    /// For one shard of the source.
    ///
    /// # Errors
    /// Those of the state store.
    pub async fn new(context: &Context, source: &Source, shard: &str, checkpoints: &CheckpointMap) -> Result<Self> {
        let mut ownerships = Self {
            documents: context.documents.clone(),
            shard: shard.to_owned(),
            orphans: context.settings.orphans,
            entries: HashMap::new(),
            shards: HashMap::new(),
            open: Mutex::default(),
        };
        if source.reads_shards() {
            let all = pages::read_catalog(&context.documents).await?;
            let sharded = all.into_iter().filter(|entry| entry.sharding.is_some());
            ownerships.entries = sharded.map(|entry| (entry.ordinal, entry)).collect();
            for shard in &source.shards {
                let not_before = discover::not_before(checkpoints, &shard.deployment)?;
                ownerships.shards.insert(shard.name.clone(), (shard.deployment.clone(), not_before));
            }
        }
        Ok(ownerships)
    }

    /// Whether the lane can tell its own documents on the target from those of other shards' lanes. Where orphans are copied
    /// as well it cannot, and changes nothing that is there already.
    pub fn can_tell(&self, spec: &PartitionSpec) -> bool {
        self.orphans != Orphans::Copy || !self.entries.contains_key(&spec.ordinal)
    }

    /// What the shard, which `source` leads to, owns of a collection; none where that is not sharded, or orphans
    /// are copied as well.
    ///
    /// # Errors
    /// Those of the state store.
    pub async fn of(&self, ordinal: Ordinal, source: &Deployment) -> Result<Option<Arc<Ownership>>> {
        let Some(entry) = self.entries.get(&ordinal) else { return Ok(None) };
        if self.orphans == Orphans::Copy {
            return Ok(None);
        }
        let mut open = self.open.lock().await;
        if let Some(ownership) = open.get(&ordinal).and_then(Weak::upgrade) {
            return Ok(Some(ownership));
        }
        let recorded = RecordedMap { documents: self.documents.clone(), entry: entry.clone() };
        let map = recorded.read().await?;
        let others = self.shards.iter().filter(|(name, _)| **name != self.shard && map.shards().contains(name));
        let others = others.map(|(name, (deployment, not_before))| Owner {
            name: name.clone(),
            deployment: deployment.clone(),
            filter: OnceCell::new(),
            not_before: *not_before,
        });
        let ownership = Arc::new(Ownership {
            namespace: entry.documents_in(),
            mine: OrphanFilter::new(&map, &self.shard),
            others: others.collect(),
            map: recorded,
            fails: self.orphans == Orphans::Fail,
            source: source.clone(),
        });
        open.insert(ordinal, Arc::downgrade(&ownership));
        Ok(Some(ownership))
    }
}
