//! What there is on the source, each collection once. In a cluster a sharded collection is on all shards, and one that is
//! not sharded may have left something behind on shards where it lived before: that is of no account. A mongos shows each
//! once by itself.

use crate::error::Result;
use crate::model::filter::Filter;
use crate::model::namespace::Namespace;
use crate::mongo::catalog::{self, Listed};
use crate::mongo::cluster::{self, Routing, Sharded};
use crate::source::{Shard, Source};
use futures_util::future::try_join_all;
use std::collections::BTreeMap;

/// A collection of the source.
#[derive(Debug, Clone)]
pub struct Found {
    /// As the first shard that it belongs to lists it.
    pub listed: Listed,
    /// As the others list it, by shard.
    pub others: Vec<(String, Listed)>,
    /// How it is divided among shards, where it is.
    pub sharded: Option<Sharded>,
    /// The shard of `listed`.
    pub shard: String,
}

/// All collections that are not a server's own, by name; of special databases where the filter asks for something of them.
///
/// # Errors
/// As [`crate::mongo::deployment::Deployment::failed`].
pub async fn all(source: &Source, filter: &Filter) -> Result<BTreeMap<Namespace, Found>> {
    let routing = if source.is_cluster { cluster::routing(&source.main).await? } else { Routing::default() };
    let mut found: BTreeMap<Namespace, Found> = BTreeMap::new();
    let listings = try_join_all(source.shards.iter().map(|shard| of_shard(shard, filter))).await?;
    for (shard, listing) in source.shards.iter().zip(listings) {
        for listed in listing {
            let sharded = routing.sharded.get(&listed.kind.documents_of(&listed.namespace));
            let lives_here = match routing.primaries.get(listed.namespace.db()) {
                _ if sharded.is_some() || !source.reads_shards() => true,
                Some(primary) => *primary == shard.name,
                None => false,
            };
            if !lives_here {
                continue;
            }
            match found.get_mut(&listed.namespace) {
                Some(found) => found.others.push((shard.name.clone(), listed)),
                None => {
                    let (sharded, shard) = (sharded.cloned(), shard.name.clone());
                    found.insert(listed.namespace.clone(), Found { listed, others: Vec::new(), sharded, shard });
                }
            }
        }
    }
    Ok(found)
}

async fn of_shard(shard: &Shard, filter: &Filter) -> Result<Vec<Listed>> {
    let mut all = Vec::new();
    for database in catalog::databases(&shard.deployment).await? {
        if filter.asks_for(&database) {
            all.extend(catalog::collections(&shard.deployment, &database).await?);
        }
    }
    Ok(all)
}

impl Found {
    /// As a shard lists it.
    pub fn on(&self, shard: &str) -> Option<&Listed> {
        if self.shard == shard {
            return Some(&self.listed);
        }
        self.others.iter().find(|(name, _)| name == shard).map(|(_, listed)| listed)
    }
}
