//! What the config servers of a sharded cluster know: its shards, and who owns what
//! (<https://www.mongodb.com/docs/manual/reference/config-database/>).

use super::catalog::{hex, uuid_binary};
use super::deployment::Deployment;
use crate::error::{Error, Result};
use crate::model::chunk_map::{ChunkMap, ChunkMapBuilder, Generation};
use crate::model::namespace::Namespace;
use crate::model::shard_key::ShardKey;
use crate::model::target_sharding::ZoneRange;
use bson::{Bson, Document, RawBson, RawDocumentBuf, doc, rawdoc};
use std::collections::BTreeMap;

/// How many chunks a reply has at most: some megabytes.
const REPLY_CHUNKS: u32 = 20_000;

/// A collection whose documents are divided by a shard key.
#[derive(Debug, Clone, PartialEq)]
pub struct Sharded {
    /// Its shard key, as it was said.
    pub key: RawDocumentBuf,
    /// Whether the key is unique.
    pub unique: bool,
    /// Its UUID in hexadecimal.
    pub uuid: Option<String>,
    /// Which life of its sharding it is.
    pub generation: Generation,
    /// Whether the balancer leaves it alone.
    pub no_balance: bool,
    /// Whether it is only tracked, and lies on one shard as a whole (8.0).
    pub is_unsplittable: bool,
}

/// Who owns what, but for the chunks.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Routing {
    /// The shard on which a database's unsharded collections live.
    pub primaries: BTreeMap<String, String>,
    /// The sharded collections.
    pub sharded: BTreeMap<Namespace, Sharded>,
}

/// A shard as the cluster knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The name of its replica set.
    pub set: String,
    /// The addresses of the set's members that the cluster knows.
    pub hosts: Vec<String>,
}

/// The cluster's id, and its shards by their names.
///
/// # Errors
/// Bad input when it is no config server; as [`Deployment::failed`].
pub async fn members(config: &Deployment) -> Result<(String, BTreeMap<String, Member>)> {
    let version = find(config, "config", "version", doc! { "_id": 1 }).await?;
    let id = version.first().and_then(|version| version.get_object_id("clusterId").ok()).map(|id| id.to_hex());
    let Some(id) = id else {
        return Err(Error::bad_input(format!(
            "{} has no sharded cluster's configuration (config.version); --source-config is the connection string of the cluster's config servers",
            config.identity
        )));
    };
    let mut members = BTreeMap::new();
    for shard in find(config, "config", "shards", doc! {}).await? {
        let (Ok(name), Ok(host)) = (shard.get_str("_id"), shard.get_str("host")) else {
            return Err(nonsense(config, "shards", &shard));
        };
        // `rs0/host1:27017,host2:27017`
        let Some((set, hosts)) = host.split_once('/') else { return Err(nonsense(config, "shards", &shard)) };
        let hosts = hosts.split(',').map(str::to_owned).collect();
        members.insert(name.to_owned(), Member { set: set.to_owned(), hosts });
    }
    Ok((id, members))
}

/// What a shard says of itself: its name, and the id of its cluster. None when it is no shard.
///
/// # Errors
/// As [`Deployment::failed`].
pub async fn shard_identity(shard: &Deployment) -> Result<Option<(String, String)>> {
    let found = find(shard, "admin", "system.version", doc! { "_id": "shardIdentity" }).await?;
    Ok(found.first().and_then(|identity| {
        let cluster = identity.get_object_id("clusterId").ok()?.to_hex();
        Some((identity.get_str("shardName").ok()?.to_owned(), cluster))
    }))
}

/// Who owns what.
///
/// # Errors
/// As [`Deployment::failed`].
pub async fn routing(config: &Deployment) -> Result<Routing> {
    let mut routing = Routing::default();
    for database in find(config, "config", "databases", doc! {}).await? {
        let (Ok(name), Ok(primary)) = (database.get_str("_id"), database.get_str("primary")) else {
            return Err(nonsense(config, "databases", &database));
        };
        routing.primaries.insert(name.to_owned(), primary.to_owned());
    }
    for collection in find(config, "config", "collections", doc! { "dropped": { "$ne": true } }).await? {
        let Some((namespace, sharded)) = sharded(&collection) else {
            return Err(nonsense(config, "collections", &collection));
        };
        routing.sharded.insert(namespace, sharded);
    }
    Ok(routing)
}

/// How one collection is sharded, if it is.
///
/// # Errors
/// As [`Deployment::failed`].
pub async fn sharded_as(deployment: &Deployment, namespace: &Namespace) -> Result<Option<Sharded>> {
    let filter = doc! { "_id": namespace.to_string(), "dropped": { "$ne": true } };
    let found = find(deployment, "config", "collections", filter).await?.pop();
    let parsed = |entry: Document| match sharded(&entry) {
        Some((_, sharded)) => Ok(sharded),
        None => Err(nonsense(deployment, "collections", &entry)),
    };
    found.map(parsed).transpose()
}

/// Which ranges of a collection's keys belong to zones.
///
/// # Errors
/// As [`Deployment::failed`].
pub async fn zones(config: &Deployment, namespace: &Namespace) -> Result<Vec<ZoneRange>> {
    let ranges = find(config, "config", "tags", doc! { "ns": namespace.to_string() }).await?;
    let range = |entry: &Document| {
        let bound = |name| Some(Bson::Document(entry.get_document(name).ok()?.clone()).into_canonical_extjson());
        Some(ZoneRange { zone: entry.get_str("tag").ok()?.to_owned(), min: bound("min")?, max: bound("max")? })
    };
    ranges.iter().map(|entry| range(entry).ok_or_else(|| nonsense(config, "tags", entry))).collect()
}

fn sharded(collection: &Document) -> Option<(Namespace, Sharded)> {
    let (db, name) = collection.get_str("_id").ok()?.split_once('.')?;
    let uuid = match collection.get("uuid") {
        Some(Bson::Binary(binary)) => Some(hex(&binary.bytes)),
        _ => None,
    };
    let generation = Generation {
        epoch: collection.get_object_id("lastmodEpoch").ok()?,
        timestamp: collection.get_timestamp("timestamp").ok(),
    };
    let key = RawDocumentBuf::try_from(collection.get_document("key").ok()?).ok()?;
    let unique = collection.get_bool("unique").unwrap_or(false);
    let no_balance = collection.get_bool("noBalance").unwrap_or(false);
    let is_unsplittable = collection.get_bool("unsplittable").unwrap_or(false);
    Some((Namespace::new(db, name), Sharded { key, unique, uuid, generation, no_balance, is_unsplittable }))
}

/// The shards that own chunks of a collection; none when it is not sharded.
///
/// # Errors
/// As [`Deployment::failed`].
pub async fn owners(config: &Deployment, namespace: &Namespace) -> Result<Vec<String>> {
    let Some(sharded) = sharded_as(config, namespace).await? else { return Ok(Vec::new()) };
    let filter = Document::try_from(chunks_of(namespace, &sharded).as_ref())
        .map_err(|error| config.side.error(format!("{namespace} cannot be asked for: {error}")))?;
    let stages = [doc! { "$match": filter }, doc! { "$group": { "_id": "$shard" } }, doc! { "$sort": { "_id": 1 } }];
    let command = doc! { "aggregate": "chunks", "pipeline": stages.to_vec(), "cursor": {} };
    let found = config.collect("config", command).await.map_err(|error| config.failed(&error))?;
    let name =
        |owner: &Document| owner.get_str("_id").map(str::to_owned).map_err(|_| nonsense(config, "chunks", owner));
    found.iter().map(name).collect()
}

/// Which entries of `config.chunks` are a collection's.
fn chunks_of(namespace: &Namespace, sharded: &Sharded) -> RawDocumentBuf {
    // From 5.0 on, when timestamps came, chunks name their collection by its UUID.
    let by_uuid = sharded.generation.timestamp.and(sharded.uuid.as_deref()).and_then(uuid_binary);
    match by_uuid.map(RawBson::try_from) {
        Some(Ok(uuid)) => rawdoc! { "uuid": uuid },
        _ => rawdoc! { "ns": namespace.to_string() },
    }
}

/// All chunks of a collection.
///
/// # Errors
/// Unavailable where they do not fit together: they change just now.
pub async fn chunks(config: &Deployment, namespace: &Namespace, sharded: &Sharded) -> Result<ChunkMap> {
    let unfit = |why: String| {
        config
            .side
            .error(format!("the chunks of {namespace} do not fit together: {why}; stop the balancer and try again"))
    };
    let command = rawdoc! {
        "find": "chunks",
        "filter": chunks_of(namespace, sharded),
        "sort": { "min": 1 },
        "batchSize": REPLY_CHUNKS as i32,
        "readConcern": { "level": "majority" },
        "comment": config.comment().0.as_str(),
    };
    let key = ShardKey::parse(&sharded.key).map_err(unfit)?;
    let mut map = ChunkMapBuilder::new(key, sharded.generation);
    let mut pushed = Ok(());
    let read = async {
        let cursor = config.cursor("config", command, REPLY_CHUNKS).await?;
        cursor
            .for_each(|chunk| {
                if pushed.is_ok() {
                    pushed = map.push(chunk);
                }
            })
            .await
    };
    read.await.map_err(|error| config.failed(&error).during(format!("reading the chunks of {namespace}")))?;
    pushed.and_then(|()| map.finish()).map_err(unfit)
}

/// An entry that was passed over would be data that is left out.
pub(super) fn nonsense(config: &Deployment, collection: &str, entry: &Document) -> Error {
    config.side.error(format!("config.{collection} has an entry that makes no sense: {entry}"))
}

/// The documents of a collection that knows about the cluster, as a majority has them.
///
/// # Errors
/// As [`Deployment::failed`].
pub(super) async fn find(
    deployment: &Deployment,
    database: &str,
    collection: &str,
    filter: Document,
) -> Result<Vec<Document>> {
    let command = doc! {
        "find": collection,
        "filter": filter,
        "sort": { "_id": 1 },
        "readConcern": { "level": "majority" },
    };
    let found = deployment.collect(database, command).await;
    found.map_err(|error| deployment.failed(&error).during(format!("reading {database}.{collection}")))
}
