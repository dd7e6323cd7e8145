//! What is copied from: a replica set, or a sharded cluster whose shards are read directly.

use crate::config::{ClusterUris, Settings};
use crate::error::{Error, Result};
use crate::model::catalog::CatalogEntry;
use crate::model::identity::Identity;
use crate::mongo::Comment;
use crate::mongo::cluster;
use crate::mongo::deployment::Deployment;
use crate::mongo::failure::Side;
use futures_util::future::try_join_all;
use std::collections::BTreeMap;

/// What is copied from, connected.
#[derive(Debug, Clone)]
pub struct Source {
    /// The replica set; in a cluster the config servers.
    pub main: Deployment,
    /// Those that documents are read from, by name: the replica set alone, or all shards.
    pub shards: Vec<Shard>,
    /// Whether it is a cluster.
    pub is_cluster: bool,
}

/// A replica set that holds documents.
#[derive(Debug, Clone)]
pub struct Shard {
    /// What lanes call it: the shard's name in the cluster (`config.shards`), or the replica set's.
    pub name: String,
    /// Its servers.
    pub deployment: Deployment,
}

impl Source {
    /// Connects to all of it.
    ///
    /// # Errors
    /// As [`Deployment::connect`]; bad input when the shards are not those of the cluster.
    pub async fn connect(settings: &Settings, app_name: &str, comment: Comment) -> Result<Self> {
        let ca = settings.source_ca.as_deref();
        let connect = |uri| Deployment::connect(Side::Source, uri, ca, app_name, comment.clone());
        match &settings.cluster {
            None => {
                let main = connect(settings.source()?).await?;
                let shards = vec![Shard { name: main.identity.set_name.clone(), deployment: main.clone() }];
                Ok(Self { main, shards, is_cluster: false })
            }
            Some(ClusterUris { config, shards }) => {
                let shards = try_join_all(shards.iter().map(connect));
                let (main, shards) = tokio::try_join!(connect(config), shards)?;
                let shards = named(&main, shards).await?;
                Ok(Self { main, shards, is_cluster: true })
            }
        }
    }

    /// A shard by its name.
    ///
    /// # Errors
    /// Of the state store: the plan has a lane of a shard that is none of them.
    pub fn shard(&self, name: &str) -> Result<&Shard> {
        self.shards.iter().find(|shard| shard.name == name).ok_or_else(|| {
            Error::state(format!(
                "the plan has a lane of shard {name}, which the source does not have; use another --job"
            ))
        })
    }

    /// Where a collection that is not sharded lives; of one that is, the first of its shards.
    ///
    /// # Errors
    /// As [`Source::shard`].
    pub fn home(&self, entry: &CatalogEntry) -> Result<&Deployment> {
        match entry.parts.first() {
            Some(part) => self.shard(&part.shard).map(|shard| &shard.deployment),
            None => Ok(&self.main),
        }
    }

    /// What identifies the shards of a cluster; a replica set has none.
    pub fn shard_identities(&self) -> BTreeMap<String, Identity> {
        let all = self.shards.iter().filter(|_| self.is_cluster);
        all.map(|shard| (shard.name.clone(), shard.deployment.identity.clone())).collect()
    }

    /// All deployments, each once.
    pub fn deployments(&self) -> impl Iterator<Item = &Deployment> {
        let shards = self.shards.iter().filter(|_| self.is_cluster).map(|shard| &shard.deployment);
        std::iter::once(&self.main).chain(shards)
    }

    /// The same, with another comment on its commands.
    #[must_use]
    pub fn commented(&self, comment: &Comment) -> Self {
        let shards = self
            .shards
            .iter()
            .map(|shard| Shard { name: shard.name.clone(), deployment: shard.deployment.commented(comment.clone()) });
        Self { main: self.main.commented(comment.clone()), shards: shards.collect(), is_cluster: self.is_cluster }
    }
}

/// The shards under the names that their cluster has for them: all of them, each once.
async fn named(config: &Deployment, deployments: Vec<Deployment>) -> Result<Vec<Shard>> {
    let (cluster, known) = cluster::members(config).await?;
    let mut shards: BTreeMap<String, Deployment> = BTreeMap::new();
    for deployment in deployments {
        let identity = &deployment.identity;
        let Some((name, its_cluster)) = cluster::shard_identity(&deployment).await? else {
            return Err(Error::bad_input(format!(
                "--source-shard leads to {identity}, which is no shard of a sharded cluster; leave it out, or give it as --source"
            )));
        };
        if its_cluster != cluster || !known.contains_key(&name) {
            return Err(Error::bad_input(format!(
                "--source-shard leads to {identity}, the shard {name} of another cluster than --source-config; correct one of them"
            )));
        }
        if shards.contains_key(&name) {
            return Err(Error::bad_input(format!("two of --source-shard lead to the shard {name}; leave out one")));
        }
        shards.insert(name, deployment);
    }
    let missing: Vec<&str> = known.keys().filter(|name| !shards.contains_key(*name)).map(String::as_str).collect();
    if !missing.is_empty() {
        let sets: Vec<String> = missing.iter().map(|name| format!("{name} (replica set {})", known[*name])).collect();
        return Err(Error::bad_input(format!(
            "no --source-shard leads to {}, and the cluster's data is only all of them; give one for each shard",
            sets.join(", ")
        )));
    }
    Ok(shards.into_iter().map(|(name, deployment)| Shard { name, deployment }).collect())
}
