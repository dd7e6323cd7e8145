//! Building indexes on the target: looked at before they are asked for, followed when they are being built, never
//! swallowed when they fail.

use super::catalog::{from_state, is_missing, uuid_binary};
use super::checkpoint::acknowledged;
use super::cluster;
use super::deployment::Deployment;
use super::failure::{code, is_transient};
use super::majority;
use crate::crash;
use crate::error::Result;
use crate::model::namespace::Namespace;
use bson::{Bson, Document, doc};
use mongodb::error::Error as DriverError;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How often a build that somebody else asked for (this job, before it was killed) is looked at.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(250);

/// An index that the server refused to build, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Its name.
    pub name: String,
    /// The server's reason.
    pub reason: String,
}

/// What the target has: indexes that are ready, and those that are being built.
struct Present {
    ready: BTreeSet<String>,
    building: BTreeSet<String>,
}

/// Builds those of `wanted` (as `createIndexes` takes them) that are not there, with one command, and returns when all
/// are ready or refused. Asked again while a build goes on, it waits for that build: a client that leaves does not stop
/// a build in a replica set.
///
/// # Errors
/// As [`Deployment::failed`]; a refusal by the server is no error but a result.
pub async fn build(target: &Deployment, namespace: &Namespace, uuid: &str, wanted: &[Value]) -> Result<Vec<Refused>> {
    let present = follow(target, namespace).await?;
    let missing: Vec<&Value> = wanted.iter().filter(|index| !present.contains(name(index))).collect();
    if missing.is_empty() {
        return Ok(Vec::new());
    }
    match crash::around("index", create(target, namespace, uuid, &missing)).await {
        Ok(()) => return Ok(Vec::new()),
        Err(Failure::Fault(error)) => return Err(error),
        Err(Failure::Refused(reason)) if missing.len() == 1 => {
            return Ok(vec![Refused { name: name(missing[0]).to_owned(), reason }]);
        }
        Err(Failure::Refused(_)) => {}
    }
    // One of several was refused, and with it all: ask for each by itself, to find which.
    let mut refused = Vec::new();
    for index in missing {
        match crash::around("index", create(target, namespace, uuid, &[index])).await {
            Ok(()) => {}
            Err(Failure::Fault(error)) => return Err(error),
            Err(Failure::Refused(reason)) => refused.push(Refused { name: name(index).to_owned(), reason }),
        }
    }
    Ok(refused)
}

/// Waits until no index of the collection is being built; the names of those that are ready.
async fn follow(target: &Deployment, namespace: &Namespace) -> Result<BTreeSet<String>> {
    loop {
        let present = present(target, namespace).await?;
        if present.building.is_empty() {
            return Ok(present.ready);
        }
        let names = present.building.iter().cloned().collect::<Vec<_>>().join(", ");
        tracing::debug!(%namespace, "following the build of {names}");
        tokio::time::sleep(FOLLOW_INTERVAL).await;
    }
}

/// `listIndexes` with `includeBuildUUIDs` wraps an index that is being built into `{spec, buildUUID}` (4.4 and later).
async fn present(target: &Deployment, namespace: &Namespace) -> Result<Present> {
    if target.is_mongos() {
        return present_on_shards(target, namespace).await;
    }
    let command = doc! { "listIndexes": namespace.collection(), "includeBuildUUIDs": true, "cursor": {} };
    let listed = match target.collect(namespace.db(), command).await {
        Ok(listed) => listed,
        Err(error) if is_missing(&error) => Vec::new(),
        Err(error) => return Err(target.failed(&error)),
    };
    let mut present = Present { ready: BTreeSet::new(), building: BTreeSet::new() };
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
    let mut present = Present { ready: BTreeSet::new(), building: BTreeSet::new() };
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

enum Failure {
    Refused(String),
    Fault(crate::error::Error),
}

async fn create(
    target: &Deployment,
    namespace: &Namespace,
    uuid: &str,
    indexes: &[&Value],
) -> std::result::Result<(), Failure> {
    let specifications: Vec<Bson> = indexes
        .iter()
        .map(|index| from_state(index).map(Bson::Document))
        .collect::<Result<_>>()
        .map_err(Failure::Fault)?;
    let mut command: Document = doc! {
        "createIndexes": namespace.collection(),
        "indexes": specifications,
        // By default a build waits for every voting member, so with one of them down it would never end.
        "commitQuorum": "majority",
        "writeConcern": majority(),
    };
    if target.takes_collection_uuid() {
        command.insert("collectionUUID", uuid_binary(uuid));
    }
    match target.run(namespace.db(), command).await {
        Ok(reply) => acknowledged(target, &reply, &format!("indexes of {namespace}")).map_err(Failure::Fault),
        Err(error) if is_refusal(&error) => Err(Failure::Refused(reason(&error))),
        Err(error) => Err(Failure::Fault(target.failed(&error))),
    }
}

/// Whether the server understood and said no, rather than failed to do it.
fn is_refusal(error: &DriverError) -> bool {
    // A missing right, another collection of that name, an interruption, a full disk: nothing that the index is at
    // fault for.
    let is_fault = matches!(
        super::failure::code_of(error),
        Some(code::UNAUTHORIZED | code::COLLECTION_UUID_MISMATCH | code::INTERRUPTED | code::OUT_OF_DISK_SPACE)
    );
    matches!(error.kind.as_ref(), mongodb::error::ErrorKind::Command(_)) && !is_transient(error) && !is_fault
}

fn reason(error: &DriverError) -> String {
    match error.kind.as_ref() {
        mongodb::error::ErrorKind::Command(command) => format!("{} (code {})", command.message, command.code),
        kind => kind.to_string(),
    }
}

fn name(index: &Value) -> &str {
    index.get("name").and_then(Value::as_str).unwrap_or_default()
}
