//! Listing what there is: databases, collections with their identity and options, indexes, sizes.

use super::deployment::Deployment;
use super::failure::{code, code_of};
use crate::error::Result;
use crate::model::catalog::CollectionKind;
use crate::model::namespace::Namespace;
use bson::{Binary, Bson, Document, doc};
use mongodb::error::Error as DriverError;
use serde_json::Value;
use std::collections::{HashMap, HashSet};

/// A collection as `listCollections` shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// Its name.
    pub namespace: Namespace,
    /// Its UUID in hexadecimal.
    pub uuid: Option<String>,
    /// What kind it is.
    pub kind: CollectionKind,
    /// Its options as canonical Extended JSON.
    pub options: Value,
}

/// The databases that the user may see.
///
/// # Errors
/// As [`Deployment::failed`].
pub async fn databases(deployment: &Deployment) -> Result<Vec<String>> {
    let reply = deployment
        .run("admin", doc! { "listDatabases": 1, "nameOnly": true })
        .await
        .map_err(|error| deployment.failed(&error))?;
    let mut names: Vec<String> = reply
        .get_array("databases")
        .map(|databases| {
            databases
                .iter()
                .filter_map(|entry| entry.as_document().and_then(|entry| entry.get_str("name").ok()))
                .map(str::to_owned)
                .collect()
        })
        .unwrap_or_default();
    names.sort();
    Ok(names)
}

/// All collections of a database, sorted by name. The buckets of a time series are not listed beside it.
///
/// # Errors
/// As [`Deployment::failed`].
pub async fn collections(deployment: &Deployment, database: &str) -> Result<Vec<Listed>> {
    let mut listed = list(deployment, database, doc! {}).await?;
    let series: HashSet<Namespace> = listed
        .iter()
        .filter(|listed| listed.kind == CollectionKind::TimeSeries)
        .map(|listed| listed.namespace.buckets())
        .collect();
    listed.retain(|listed| !series.contains(&listed.namespace));
    Ok(listed)
}

/// The collection that has this name now, if any.
///
/// # Errors
/// As [`Deployment::failed`].
pub async fn collection(deployment: &Deployment, namespace: &Namespace) -> Result<Option<Listed>> {
    let names = [namespace.collection(), namespace.buckets().collection()].map(str::to_owned);
    let listed = list(deployment, namespace.db(), doc! { "name": { "$in": names.to_vec() } }).await?;
    Ok(listed.into_iter().find(|listed| listed.namespace == *namespace))
}

async fn list(deployment: &Deployment, database: &str, filter: Document) -> Result<Vec<Listed>> {
    let command = doc! { "listCollections": 1, "filter": filter, "cursor": {} };
    let listed = deployment.collect(database, command).await.map_err(|error| deployment.failed(&error))?;
    let mut collections: Vec<Listed> = listed.into_iter().filter_map(|entry| parse(database, &entry)).collect();
    collections.sort_by(|a, b| a.namespace.cmp(&b.namespace));
    identify_time_series(&mut collections);
    Ok(collections)
}

/// A time series is what its buckets are: it has no UUID of its own.
fn identify_time_series(collections: &mut [Listed]) {
    let buckets: HashMap<Namespace, Option<String>> =
        collections.iter().filter_map(|listed| Some((listed.namespace.time_series()?, listed.uuid.clone()))).collect();
    for listed in collections.iter_mut().filter(|listed| listed.kind == CollectionKind::TimeSeries) {
        match buckets.get(&listed.namespace) {
            Some(uuid) => listed.uuid.clone_from(uuid),
            None => listed.kind = CollectionKind::Viewless,
        }
    }
}

fn parse(database: &str, entry: &Document) -> Option<Listed> {
    let name = entry.get_str("name").ok()?;
    let options = entry.get_document("options").cloned().unwrap_or_default();
    let kind = match entry.get_str("type") {
        Ok("view") => CollectionKind::View,
        Ok("timeseries") => CollectionKind::TimeSeries,
        _ if options.get_bool("capped").unwrap_or(false) => CollectionKind::Capped,
        _ => CollectionKind::Collection,
    };
    let uuid = match entry.get_document("info").ok().and_then(|info| info.get("uuid")) {
        Some(Bson::Binary(binary)) => Some(hex(&binary.bytes)),
        _ => None,
    };
    let namespace = Namespace::new(database, name);
    Some(Listed { namespace, uuid, kind, options: Bson::Document(options).into_canonical_extjson() })
}

/// A collection's indexes as `listIndexes` shows them, as canonical Extended JSON. None when it is not there.
///
/// # Errors
/// As [`Deployment::failed`].
pub async fn indexes(deployment: &Deployment, namespace: &Namespace) -> Result<Vec<Value>> {
    let command = doc! { "listIndexes": namespace.collection(), "cursor": {} };
    match deployment.collect(namespace.db(), command).await {
        Ok(indexes) => Ok(indexes.into_iter().map(|index| Bson::Document(index).into_canonical_extjson()).collect()),
        Err(error) if code_of(&error) == Some(code::NAMESPACE_NOT_FOUND) => Ok(Vec::new()),
        Err(error) => Err(deployment.failed(&error)),
    }
}

/// The number of documents and their size in bytes, from the servers' metadata: an estimate. Through a mongos that of all
/// shards, orphans included. None of what is not there.
///
/// # Errors
/// As [`Deployment::failed`].
pub async fn size(deployment: &Deployment, namespace: &Namespace) -> Result<(u64, u64)> {
    if deployment.is_mongos() {
        return size_on_shards(deployment, namespace).await;
    }
    // `$collStats` tells the same, and opens every index of the collection to do so: of tens of thousands of files that is
    // ten times the work. With `estimate` nothing is opened (`dbcommands.cpp`, CmdDatasize).
    let command = doc! { "dataSize": namespace.to_string(), "estimate": true };
    let stats = deployment.run(namespace.db(), command).await.map_err(|error| deployment.failed(&error))?;
    Ok((number(&stats, "numObjects"), number(&stats, "size")))
}

async fn size_on_shards(deployment: &Deployment, namespace: &Namespace) -> Result<(u64, u64)> {
    let command = doc! {
        "aggregate": namespace.collection(),
        "pipeline": [{ "$collStats": { "storageStats": {} } }, { "$project": { "n": { "$ifNull": ["$storageStats.count", "$storageStats.timeseries.bucketCount"] }, "b": "$storageStats.size" } }],
        "cursor": {},
    };
    match deployment.collect(namespace.db(), command).await {
        Ok(stats) => {
            let sum = |field| stats.iter().map(|of_shard| number(of_shard, field)).sum();
            Ok((sum("n"), sum("b")))
        }
        Err(error) if code_of(&error) == Some(code::NAMESPACE_NOT_FOUND) => Ok((0, 0)),
        Err(error) => Err(deployment.failed(&error)),
    }
}

/// Whether a capped collection is at, or near, its limit in bytes or documents.
///
/// # Errors
/// As [`Deployment::failed`].
pub async fn is_full(deployment: &Deployment, namespace: &Namespace) -> Result<bool> {
    let fields = doc! { "count": 1, "size": 1, "max": 1, "maxSize": 1 };
    let command = doc! {
        "aggregate": namespace.collection(),
        "pipeline": [{ "$collStats": { "storageStats": {} } }, { "$replaceWith": "$storageStats" }, { "$project": fields }],
        "cursor": {},
    };
    let stats = deployment.collect(namespace.db(), command).await.map_err(|error| deployment.failed(&error))?;
    Ok(stats.iter().any(|stats| {
        let (count, size) = (number(stats, "count"), number(stats, "size"));
        let (most, most_bytes) = (number(stats, "max"), number(stats, "maxSize"));
        // One document more may not fit while there is still some room.
        (most > 0 && count >= most) || (most_bytes > 0 && size >= most_bytes / 10 * 9)
    }))
}

/// The number of documents, counted one by one over the `_id` index: metadata can be wrong after an unclean shutdown.
///
/// # Errors
/// As [`Deployment::failed`].
pub async fn count(deployment: &Deployment, namespace: &Namespace) -> Result<u64> {
    let command = doc! {
        "aggregate": namespace.collection(),
        "pipeline": [{ "$group": { "_id": 1, "n": { "$sum": 1_i64 } } }],
        "hint": { "_id": 1 },
        "cursor": {},
        "readConcern": { "level": "majority" },
    };
    match deployment.collect(namespace.db(), command).await {
        Ok(counts) => Ok(counts.first().map_or(0, |count| number(count, "n"))),
        Err(error) if code_of(&error) == Some(code::NAMESPACE_NOT_FOUND) => Ok(0),
        Err(error) => Err(deployment.failed(&error)),
    }
}

/// A number of whatever numeric type the server chose.
pub fn number(document: &Document, field: &str) -> u64 {
    match document.get(field) {
        Some(Bson::Int32(value)) => u64::try_from(*value).unwrap_or(0),
        Some(Bson::Int64(value)) => u64::try_from(*value).unwrap_or(0),
        Some(Bson::Double(value)) if *value > 0.0 => *value as u64,
        _ => 0,
    }
}

/// A UUID as commands take it.
pub fn uuid_binary(uuid: &str) -> Option<Bson> {
    let bytes: Option<Vec<u8>> =
        (0..uuid.len()).step_by(2).map(|i| u8::from_str_radix(uuid.get(i..i + 2)?, 16).ok()).collect();
    Some(Bson::Binary(Binary { subtype: bson::spec::BinarySubtype::Uuid, bytes: bytes? }))
}

/// Extended JSON from the state as BSON.
///
/// # Errors
/// The text that says what is not Extended JSON: the state is damaged.
pub fn from_state(value: &Value) -> Result<Document> {
    match Bson::try_from(value.clone()) {
        Ok(Bson::Document(document)) => Ok(document),
        Ok(other) => {
            Err(crate::error::Error::state(format!("the catalog holds no document where one belongs: {other}")))
        }
        Err(error) => Err(crate::error::Error::state(format!("the catalog holds no Extended JSON: {error}"))),
    }
}

/// Bytes in hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether an error says that the collection is not there.
pub fn is_missing(error: &DriverError) -> bool {
    code_of(error) == Some(code::NAMESPACE_NOT_FOUND)
}
