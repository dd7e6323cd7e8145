//! The shards of a sharded cluster, connected under the names that the cluster has for them.

use super::Shard;
use crate::error::{Error, Result};
use crate::mongo::cluster::{self, Member};
use crate::mongo::deployment::Deployment;
use futures_util::future::try_join_all;
use std::collections::BTreeMap;

/// A shard that cannot be read directly.
#[derive(Debug)]
pub struct Unreached {
    /// Which one: its name, or the hosts of its connection string.
    pub shard: String,
    /// Why not.
    pub why: Error,
}

/// The shards at the addresses by which the cluster behind a mongos knows them, reached as the mongos is.
///
/// # Errors
/// As [`Deployment::connect`] only for what the mongos has to say.
pub async fn known(mongos: &Deployment) -> Result<Result<Vec<Shard>, Unreached>> {
    let (cluster, members) = cluster::members(mongos).await?;
    let reached = members.iter().map(|(name, member)| reach(mongos, &cluster, name, member));
    Ok(try_join_all(reached).await)
}

async fn reach(mongos: &Deployment, cluster: &str, name: &str, member: &Member) -> Result<Shard, Unreached> {
    let reached = async {
        let deployment = mongos.connect_to_member(&member.set, &member.hosts).await?;
        match cluster::shard_identity(&deployment).await? {
            Some((its_name, its_cluster)) if its_name == name && its_cluster == cluster => Ok(deployment),
            _ => {
                let identity = &deployment.identity;
                Err(mongos.side.error(format!("its addresses lead to {identity}, which is not that shard")))
            }
        }
    };
    match reached.await {
        Ok(deployment) => Ok(Shard { name: name.to_owned(), deployment }),
        Err(why) => Err(Unreached { shard: name.to_owned(), why }),
    }
}

/// The shards that connection strings lead to, under the names that their cluster has for them: all of them, each once.
///
/// # Errors
/// Bad input when they are not those of the cluster; as [`Deployment::connect`].
pub async fn named(config: &Deployment, deployments: Vec<Deployment>) -> Result<Vec<Shard>> {
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
                "--source-shard leads to {identity}, the shard {name} of another cluster than {}; correct one of them",
                if config.is_mongos() { "--source" } else { "--source-config" }
            )));
        }
        if shards.contains_key(&name) {
            return Err(Error::bad_input(format!("two of --source-shard lead to the shard {name}; leave out one")));
        }
        shards.insert(name, deployment);
    }
    let missing: Vec<&str> = known.keys().filter(|name| !shards.contains_key(*name)).map(String::as_str).collect();
    if !missing.is_empty() {
        let sets: Vec<String> =
            missing.iter().map(|name| format!("{name} (replica set {})", known[*name].set)).collect();
        return Err(Error::bad_input(format!(
            "no --source-shard leads to {}, and the cluster's data is only all of them; give one for each shard",
            sets.join(", ")
        )));
    }
    Ok(shards.into_iter().map(|(name, deployment)| Shard { name, deployment }).collect())
}
