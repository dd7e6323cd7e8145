//! Listing what there is: databases, collections with their identity and options, indexes, sizes.

use super::deployment::Deployment;
use super::failure::{code, code_of};
use crate::error::Result;
use crate::model::catalog::CollectionKind;
use crate::model::namespace::Namespace;
use bson::{Binary, Bson, Document, doc};
use mongodb::error::Error as DriverError;
use serde_json::Value;

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

/// All collections of a database, sorted by name.
///
/// # Errors
/// As [`Deployment::failed`].
pub async fn collections(deployment: &Deployment, database: &str) -> Result<Vec<Listed>> {
    list(deployment, database, doc! {}).await
}

/// The collection that has this name now, if any.
///
/// # Errors
/// As [`Deployment::failed`].
pub async fn collection(deployment: &Deployment, namespace: &Namespace) -> Result<Option<Listed>> {
    Ok(list(deployment, namespace.db(), doc! { "name": namespace.collection() }).await?.pop())
}

async fn list(deployment: &Deployment, database: &str, filter: Document) -> Result<Vec<Listed>> {
    let command = doc! { "listCollections": 1, "filter": filter, "cursor": {} };
    let listed = deployment.collect(database, command).await.map_err(|error| deployment.failed(&error))?;
    let mut collections: Vec<Listed> = listed.into_iter().filter_map(|entry| parse(database, &entry)).collect();
    collections.sort_by(|a, b| a.namespace.cmp(&b.namespace));
    Ok(collections)
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
        "pipeline": [{ "$collStats": { "storageStats": {} } }, { "$project": { "n": "$storageStats.count", "b": "$storageStats.size" } }],
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
