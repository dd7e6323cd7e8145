//! Where the incremental stream begins: capturing it on the source, guarding it, and writing it in MongoShake's form.

use super::catalog;
use super::deployment::Deployment;
use super::majority;
use crate::error::{Error, Result};
use crate::model::job::{Checkpoint, Optime};
use crate::model::namespace::Namespace;
use bson::{Bson, Document, Timestamp, doc};
use mongodb::error::Error as DriverError;

/// Captures the checkpoint of a replica set. The newest majority-committed entry is read first, the open transactions
/// after it (see [`Checkpoint::new`]).
///
/// # Errors
/// Bad input where a right on `local` or `config` is missing, unavailable when the server does not answer.
pub async fn capture(source: &Deployment) -> Result<Checkpoint> {
    let majority = majority_optime(source).await?;
    let oldest_transaction = oldest_open_transaction(source).await?;
    let oplog_begin = oplog_begin(source).await?;
    Ok(Checkpoint::new(majority, oldest_transaction, oplog_begin))
}

/// The newest entry that a majority of members has (`hello.lastWrite.majorityOpTime`): what a failover cannot take
/// back.
async fn majority_optime(source: &Deployment) -> Result<Optime> {
    let hello = source.run("admin", doc! { "hello": 1 }).await.map_err(|error| source.failed(&error))?;
    hello
        .get_document("lastWrite")
        .and_then(|last| last.get_document("majorityOpTime"))
        .and_then(|optime| optime.get_timestamp("ts"))
        .map(Optime::from)
        .map_err(|_| source.side.error("the source tells no majority-committed optime (hello.lastWrite); try again"))
}

/// The newest entry that the primary has. Whatever a majority had when this was called is not after it: a primary has all
/// of that, although one that was just elected may not know yet how far the majority is. Of a cluster its time, which is
/// not before anything that one of its shards has shown.
///
/// # Errors
/// The driver's.
pub async fn newest(deployment: &Deployment) -> std::result::Result<Optime, DriverError> {
    let hello = deployment.run("admin", doc! { "hello": 1 }).await?;
    if deployment.is_mongos() {
        return cluster_time(&hello).ok_or_else(|| DriverError::custom("the mongos tells no time ($clusterTime)"));
    }
    let newest = hello.get_document("lastWrite").and_then(|last| last.get_document("opTime"));
    newest
        .and_then(|optime| optime.get_timestamp("ts"))
        .map(Optime::from)
        .map_err(|_| DriverError::custom("the primary tells no optime (hello.lastWrite)"))
}

/// What time it is in the cluster behind a mongos: not before anything that a shard had when this was called, and known to
/// all shards when it returns. A server refuses to read after a time that it has not heard of.
///
/// # Errors
/// As [`Deployment::failed`].
async fn time_of_cluster(mongos: &Deployment) -> Result<Optime> {
    // A mongos asks each shard for its databases. With the command goes the mongos's time to the shard, with the reply the
    // shard's time to the mongos.
    catalog::databases(mongos).await?;
    let time = newest(mongos).await.map_err(|error| mongos.failed(&error))?;
    catalog::databases(mongos).await?;
    Ok(time)
}

/// What time it is in a deployment that is read without a checkpoint: no read of it is to be older.
///
/// # Errors
/// As [`Deployment::failed`]; source unavailable when it tells no time.
pub async fn time(source: &Deployment) -> Result<Optime> {
    if source.is_mongos() {
        return time_of_cluster(source).await;
    }
    let hello = source.run("admin", doc! { "hello": 1 }).await.map_err(|error| source.failed(&error))?;
    let time = hello.get_timestamp("operationTime").map(Optime::from);
    time.map_err(|_| source.side.error("the source tells no time (operationTime); try again"))
}

/// The time that a reply says it is in the cluster.
fn cluster_time(reply: &Document) -> Option<Optime> {
    reply.get_document("$clusterTime").ok()?.get_timestamp("clusterTime").ok().map(Optime::from)
}

/// The first oplog entry of the oldest transaction that is prepared or in progress. `config.transactions` has it only
/// for those that have written to the oplog already, which is what matters here.
async fn oldest_open_transaction(source: &Deployment) -> Result<Option<Optime>> {
    let command = doc! {
        "find": "transactions",
        "filter": { "state": { "$in": ["prepared", "inProgress"] }, "startOpTime": { "$exists": true } },
        "sort": { "startOpTime.ts": 1 },
        "limit": 1,
        "projection": { "startOpTime": 1 },
        "readConcern": { "level": "local" },
    };
    let found = source.collect("config", command).await.map_err(|error| source.failed(&error))?;
    Ok(found
        .first()
        .and_then(|transaction| transaction.get_document("startOpTime").ok())
        .and_then(|optime| optime.get_timestamp("ts").ok())
        .map(Optime::from))
}

/// The oldest entry of the source's oplog.
///
/// # Errors
/// Bad input where the right to read `local` is missing, unavailable when the server does not answer.
pub async fn oplog_begin(source: &Deployment) -> Result<Optime> {
    let command = doc! {
        "find": "oplog.rs",
        "sort": { "$natural": 1 },
        "limit": 1,
        "projection": { "ts": 1 },
    };
    let found = source.collect("local", command).await.map_err(|error| source.failed(&error))?;
    found
        .first()
        .and_then(|entry| entry.get_timestamp("ts").ok())
        .map(Optime::from)
        .ok_or_else(|| Error::bad_input("the source's oplog is empty; it is no replica set that can be streamed from"))
}

/// MongoShake's checkpoint document for a source (MongoShake `collector/ckpt`): found by `name`, `ckpt` an int64.
pub fn mongoshake_document(name: &str, checkpoint: Optime) -> Document {
    doc! {
        "name": name,
        "ckpt": checkpoint.as_int64(),
        "version": 2_i32,
        "fetch_method": "",
        "oplog_disk_queue": "",
        "oplog_disk_queue_apply_finish_ts": 1_i64,
    }
}

/// Writes a checkpoint where MongoShake looks for it. Writing the same once more changes nothing.
///
/// # Errors
/// As [`Deployment::failed`]; also when the server did not acknowledge it by a majority.
pub async fn write(deployment: &Deployment, namespace: &Namespace, name: &str, checkpoint: Optime) -> Result<()> {
    let command = doc! {
        "update": namespace.collection(),
        "updates": [{ "q": { "name": name }, "u": { "$set": mongoshake_document(name, checkpoint) }, "upsert": true }],
        "writeConcern": majority(),
    };
    let reply = deployment.run(namespace.db(), command).await.map_err(|error| deployment.failed(&error))?;
    acknowledged(deployment, &reply, "the checkpoint")
}

/// Whether a write command's reply says that all of it was done and a majority has it.
///
/// # Errors
/// Unavailable, with the server's reason, when not.
pub fn acknowledged(deployment: &Deployment, reply: &Document, what: &str) -> Result<()> {
    for field in ["writeErrors", "writeConcernError"] {
        if let Some(errors) = reply.get(field) {
            let reason = Bson::into_relaxed_extjson(errors.clone());
            return Err(deployment.side.error(format!("the {} did not acknowledge {what}: {reason}", deployment.side)));
        }
    }
    Ok(())
}

/// A time as the server takes it in `afterClusterTime`.
pub fn timestamp(time: Optime) -> Timestamp {
    time.into()
}
