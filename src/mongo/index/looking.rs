//! What indexes the target has, and which are being built.

use crate::error::Result;
use crate::model::namespace::Namespace;
use crate::model::work::Building;
use crate::mongo::catalog::{is_missing, number};
use crate::mongo::cluster;
use crate::mongo::deployment::Deployment;
use bson::{Document, doc};
use std::collections::{BTreeMap, BTreeSet};

/// What the target has: indexes that are ready, and those that are being built.
#[derive(Default)]
pub(super) struct Present {
    pub ready: BTreeSet<String>,
    pub building: BTreeSet<String>,
}

/// `listIndexes` with `includeBuildUUIDs` wraps an index that is being built into `{spec, buildUUID}` (4.4 and later).
pub(super) async fn present(target: &Deployment, namespace: &Namespace) -> Result<Present> {
    if target.is_mongos() {
        return present_on_shards(target, namespace).await;
    }
    let command = doc! { "listIndexes": namespace.collection(), "includeBuildUUIDs": true, "cursor": {} };
    let listed = match target.collect(namespace.db(), command).await {
        Ok(listed) => listed,
        Err(error) if is_missing(&error) => Vec::new(),
        Err(error) => return Err(target.failed(&error)),
    };
    let mut present = Present::default();
    for entry in listed {
        let is_building = entry.contains_key("buildUUID");
        let spec = entry.get_document("spec").unwrap_or(&entry);
        if let Ok(name) = spec.get_str("name") {
            let names = if is_building { &mut present.building } else { &mut present.ready };
            names.insert(name.to_owned());
        }
    }
    Ok(present)
}

/// A mongos lists the indexes of one shard. `$indexStats` tells of each shard what it has, and what it is building
/// (<https://www.mongodb.com/docs/manual/reference/operator/aggregation/indexStats/>).
async fn present_on_shards(target: &Deployment, namespace: &Namespace) -> Result<Present> {
    let owners = cluster::owners(target, namespace).await?.len().max(1);
    let mut present = Present::default();
    for (name, Stats { ready, building }) in stats(target, namespace).await? {
        if building > 0 {
            present.building.insert(name);
        } else if ready >= owners {
            present.ready.insert(name);
        }
    }
    Ok(present)
}

/// The indexes that some shards of a cluster lack that have documents of a collection.
///
/// # Errors
/// As [`Deployment::failed`].
pub async fn incomplete(target: &Deployment, namespace: &Namespace) -> Result<Vec<String>> {
    let owners = cluster::owners(target, namespace).await?.len().max(1);
    let stats = stats(target, namespace).await?.into_iter();
    Ok(stats.filter(|(_, Stats { ready, .. })| *ready < owners).map(|(name, _)| name).collect())
}

/// On how many shards an index is.
#[derive(Default)]
struct Stats {
    ready: usize,
    building: usize,
}

async fn stats(target: &Deployment, namespace: &Namespace) -> Result<BTreeMap<String, Stats>> {
    let stages = [doc! { "$indexStats": {} }, doc! { "$project": { "name": 1, "building": 1 } }];
    let command = doc! { "aggregate": namespace.collection(), "pipeline": stages.to_vec(), "cursor": {} };
    let listed = match target.collect(namespace.db(), command).await {
        Ok(listed) => listed,
        Err(error) if is_missing(&error) => Vec::new(),
        Err(error) => return Err(target.failed(&error)),
    };
    let mut found: BTreeMap<String, Stats> = BTreeMap::new();
    for entry in listed {
        let Ok(name) = entry.get_str("name") else { continue };
        let stats = found.entry(name.to_owned()).or_default();
        if entry.get_bool("building").unwrap_or(false) { stats.building += 1 } else { stats.ready += 1 }
    }
    Ok(found)
}

/// What the server does for the indexes of a collection now, in any phase, whoever asked for it. `listIndexes` does not show a
/// build that waits for others to end (`maxNumActiveUserIndexBuilds`): the command that asked for it waits, also when its
/// client is gone (seen on 6.0.5).
///
/// Without the right to see what others do (`inprog`) only what this user has asked for is seen, and not how far it is;
/// where even that cannot be seen, nothing is.
pub async fn running(target: &Deployment, namespace: &Namespace) -> Option<Building> {
    for all_users in [true, false] {
        let stages = [
            doc! { "$currentOp": { "allUsers": all_users } },
            doc! { "$match": { "command.createIndexes": namespace.collection(), "command.$db": namespace.db() } },
            doc! { "$project": { "msg": 1, "progress": 1, "indexes": "$command.indexes.name" } },
        ];
        let command = doc! { "aggregate": 1, "pipeline": stages.to_vec(), "cursor": {} };
        match target.collect("admin", command).await {
            Ok(operations) => return farthest(&operations),
            Err(error) => tracing::debug!(%namespace, "what the target is doing cannot be seen: {error}"),
        }
    }
    None
}

/// Of a build there is the command that asked for it, and the thread that does it, which tells how far it is.
fn farthest(operations: &[Document]) -> Option<Building> {
    let telling = operations.iter().find(|operation| operation.contains_key("progress"));
    let telling = telling.or_else(|| operations.iter().find(|operation| operation.contains_key("msg")));
    let operation = telling.or(operations.first())?;
    let progress = operation.get_document("progress").ok();
    let names = operation.get_array("indexes").map(|names| names.iter().filter_map(|name| name.as_str()));
    Some(Building {
        indexes: names.map(|names| names.map(str::to_owned).collect()).unwrap_or_default(),
        phase: phase(operation.get_str("msg").unwrap_or_default()),
        done: progress.map_or(0, |progress| number(progress, "done")),
        total: progress.map_or(0, |progress| number(progress, "total")),
    })
}

/// `Index Build: scanning collection Index Build: scanning collection: 4/9 44%` says it twice, with figures.
fn phase(message: &str) -> String {
    let text = message.strip_prefix("Index Build: ").unwrap_or(message);
    text.split(" Index Build: ").next().unwrap_or(text).split(": ").next().unwrap_or(text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thread_that_builds_tells_more_than_the_command_that_asked() {
        let asked = doc! { "indexes": ["a", "b"] };
        let message = "Index Build: scanning collection Index Build: scanning collection: 5/20 25%";
        let builds = doc! { "indexes": ["a", "b"], "msg": message, "progress": { "done": 5, "total": 20_i64 } };
        let seen = |phase: &str, done, total| {
            Some(Building { indexes: vec!["a".into(), "b".into()], phase: phase.into(), done, total })
        };
        assert_eq!(farthest(&[asked.clone(), builds.clone()]), seen("scanning collection", 5, 20));
        assert_eq!(farthest(&[builds, asked.clone()]), seen("scanning collection", 5, 20));
        let draining = doc! { "indexes": ["a", "b"], "msg": "Index Build: draining writes received during build" };
        assert_eq!(farthest(&[asked.clone(), draining]), seen("draining writes received during build", 0, 0));
        assert_eq!(farthest(&[asked]), seen("", 0, 0));
        assert_eq!(farthest(&[]), None);
    }
}
