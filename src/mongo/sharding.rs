//! Sharding collections of the target, through its mongos. Each command is sent once more after a crash, or when a shard is
//! busy, and changes nothing where it was done already.

use super::catalog::from_state;
use super::cluster::{self, Sharded};
use super::deployment::Deployment;
use super::failure::{code, code_of, is_transient};
use super::{checkpoint, majority};
use crate::error::Result;
use crate::model::chunk_map::ChunkMap;
use crate::model::namespace::Namespace;
use crate::model::target_sharding::{TargetSharding, ZoneRange};
use bson::{Bson, Document, RawDocument, doc};
use mongodb::error::Error as DriverError;
use std::collections::BTreeMap;
use std::time::Duration;

/// How often a command is sent again while shards are busy with another chunk. A shard gives or takes one at a time.
const ATTEMPTS: usize = 120;

/// The pause before that.
const PAUSE: Duration = Duration::from_millis(500);

/// The shards of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shards {
    /// Those that take chunks, in order.
    pub names: Vec<String>,
    /// Those of each zone.
    pub zones: BTreeMap<String, Vec<String>>,
}

/// The shards that take chunks: all but those that are being removed.
///
/// # Errors
/// As [`Deployment::failed`].
pub async fn shards(target: &Deployment) -> Result<Shards> {
    let mut shards = Shards::default();
    for shard in cluster::find(target, "config", "shards", doc! { "draining": { "$ne": true } }).await? {
        let Ok(name) = shard.get_str("_id") else { return Err(cluster::nonsense(target, "shards", &shard)) };
        shards.names.push(name.to_owned());
        for zone in shard.get_array("tags").map(Vec::as_slice).unwrap_or_default().iter().filter_map(Bson::as_str) {
            shards.zones.entry(zone.to_owned()).or_default().push(name.to_owned());
        }
    }
    Ok(shards)
}

/// How a collection, which has a default collation or not, is sharded now, if it is. In a replica set none is.
///
/// # Errors
/// As [`Deployment::failed`].
pub async fn current(target: &Deployment, namespace: &Namespace, is_collated: bool) -> Result<Option<TargetSharding>> {
    if !target.is_mongos() {
        return Ok(None);
    }
    let Some(sharded) = entry(target, namespace).await? else { return Ok(None) };
    let key = Document::try_from(sharded.key.as_ref())
        .map_err(|error| target.side.error(format!("config.collections has a key that cannot be read: {error}")))?;
    let key = Bson::Document(key).into_canonical_extjson();
    Ok(Some(TargetSharding { key, unique: sharded.unique, is_collated }))
}

/// The cluster's entry of a collection, if it is sharded.
async fn entry(target: &Deployment, namespace: &Namespace) -> Result<Option<Sharded>> {
    cluster::sharded_as(target, namespace).await.map(|sharded| sharded.filter(|sharded| !sharded.is_unsplittable))
}

/// Lets a database have sharded collections.
///
/// # Errors
/// As [`Deployment::failed`].
pub async fn enable(target: &Deployment, database: &str) -> Result<()> {
    patiently(target, doc! { "enableSharding": database }, &format!("enabling sharding for {database}")).await
}

/// Shards a collection that is empty. With `chunks` of a key that begins hashed the server cuts and spreads them.
///
/// # Errors
/// As [`Deployment::failed`].
pub async fn shard(
    target: &Deployment,
    namespace: &Namespace,
    wanted: &TargetSharding,
    chunks: Option<usize>,
) -> Result<()> {
    let mut command = doc! { "shardCollection": namespace.to_string(), "key": from_state(&wanted.key)? };
    if wanted.unique {
        command.insert("unique", true);
    }
    if wanted.is_collated {
        // The collection's own is none that a shard key can have.
        command.insert("collation", doc! { "locale": "simple" });
    }
    if let Some(chunks) = chunks {
        command.insert("numInitialChunks", i32::try_from(chunks).unwrap_or(i32::MAX));
    }
    patiently(target, command, &format!("sharding {namespace} by {}", wanted.text())).await
}

/// Gives a range of keys to a zone.
///
/// # Errors
/// As [`Deployment::failed`].
pub async fn zone(target: &Deployment, namespace: &Namespace, range: &ZoneRange) -> Result<()> {
    let command = doc! {
        "updateZoneKeyRange": namespace.to_string(),
        "min": from_state(&range.min)?,
        "max": from_state(&range.max)?,
        "zone": &range.zone,
    };
    patiently(target, command, &format!("giving keys of {namespace} to the zone {}", range.zone)).await
}

/// Who owns what of a sharded collection now.
///
/// # Errors
/// As [`cluster::chunks`]; unavailable when it is not sharded.
pub async fn chunks(target: &Deployment, namespace: &Namespace) -> Result<ChunkMap> {
    match entry(target, namespace).await? {
        Some(sharded) => cluster::chunks(target, namespace, &sharded).await,
        None => Err(target.side.error(format!("{namespace} was sharded on the target and is not any more; try again"))),
    }
}

/// Cuts the chunk that has this key, so that one begins there.
///
/// # Errors
/// As [`Deployment::failed`].
pub async fn split(target: &Deployment, namespace: &Namespace, at: &RawDocument) -> Result<()> {
    let at = document(target, at)?;
    let command = doc! { "split": namespace.to_string(), "middle": at };
    match patiently(target, command, &format!("cutting chunks of {namespace}")).await {
        // Cut already, by an attempt whose answer was lost.
        Err(error) if error.to_string().contains("boundary key") => Ok(()),
        cut => cut,
    }
}

/// Moves a chunk to another shard.
///
/// # Errors
/// As [`Deployment::failed`].
pub async fn move_chunk(
    target: &Deployment,
    namespace: &Namespace,
    (min, max): (&RawDocument, &RawDocument),
    to: &str,
) -> Result<()> {
    let bounds = [document(target, min)?, document(target, max)?];
    let command = doc! { "moveChunk": namespace.to_string(), "bounds": bounds.to_vec(), "to": to };
    patiently(target, command, &format!("moving a chunk of {namespace} to {to}")).await
}

fn document(target: &Deployment, raw: &RawDocument) -> Result<Document> {
    Document::try_from(raw).map_err(|error| target.side.error(format!("a chunk's bound cannot be sent: {error}")))
}

/// Runs a command until the shards are free for it.
async fn patiently(target: &Deployment, mut command: Document, what: &str) -> Result<()> {
    command.insert("writeConcern", majority());
    let mut attempts = 0;
    loop {
        match target.run("admin", command.clone()).await {
            Ok(reply) => return checkpoint::acknowledged(target, &reply, what),
            Err(error) if attempts < ATTEMPTS && (is_busy(&error) || is_transient(&error)) => {
                // Of a server that is not there the driver has waited long enough.
                attempts += if is_busy(&error) { 1 } else { ATTEMPTS / 4 };
                tracing::debug!("{what}: {error}; trying again");
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => return Err(target.failed(&error).during(what.to_owned())),
        }
    }
}

/// Whether a shard is busy with another chunk, or the mongos has an old map.
fn is_busy(error: &DriverError) -> bool {
    matches!(
        code_of(error),
        Some(code::LOCK_BUSY | code::CONFLICTING_OPERATION | code::STALE_CONFIG | code::STALE_DATABASE)
    )
}
