//! The documents that are not on the target although the source has them, with the bytes of those that a server
//! refused: write-once objects, made before the batch that they were part of counts as acknowledged. What became of
//! them later lies beside them, since nothing is ever deleted.

use super::VERSION;
use super::document::{Created, Document, Documents};
use super::keys;
use crate::error::{Error, Result};
use crate::model::counts::Counts;
use crate::model::cursor::Key;
use crate::model::digest::Digest;
use crate::model::namespace::Namespace;
use crate::model::plan::LaneName;
use crate::model::reject::{self, Cause, Rejected};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// How many objects are read at once: each is about a mebibyte.
const PARALLEL: usize = 4;

/// Documents of one cause that one lane could not write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectedObject {
    /// The documents.
    pub documents: Vec<Rejected>,
}

/// Documents of one collection that were rejected and are settled: on the target by now, or deleted on the source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repair {
    /// The collection on the source.
    pub namespace: Namespace,
    /// The documents' `_id`s.
    pub ids: Vec<Key>,
    /// What that adds to the collection's proofs: what was written, and nothing was there that would have to be taken off.
    pub counts: Counts,
}

impl Document for RejectedObject {
    const KIND: &'static str = "rejected";
    const VERSION: u32 = VERSION;
}

impl Document for Repair {
    const KIND: &'static str = "repair";
    const VERSION: u32 = VERSION;
}

/// Keeps documents that were rejected. The same ones, rejected again after a crash, are the same objects.
///
/// # Errors
/// Those of the state store: they must not count as dealt with then.
pub async fn keep(documents: &Documents, lane: &LaneName, rejected: Vec<Rejected>) -> Result<()> {
    for (cause, object) in reject::objects(rejected) {
        let object = RejectedObject { documents: object };
        let key = keys::rejected(lane, cause, &hash(&object)?);
        if let Created::Existing(found) = documents.create(&key, &object).await?
            && found.value != object
        {
            return Err(Error::internal(format!("{} holds other documents than its name says", documents.name(&key))));
        }
    }
    Ok(())
}

/// Records that documents are settled. What an earlier attempt to record has left counts: it is about the same ones.
///
/// # Errors
/// Those of the state store: they count as rejected still.
pub async fn record(documents: &Documents, repair: &Repair) -> Result<()> {
    let key = keys::repair(&hash(&(&repair.namespace, &repair.ids))?);
    documents.create(&key, repair).await.map(|_| ())
}

fn hash(value: &impl Serialize) -> Result<String> {
    let text = serde_json::to_vec(value).map_err(|error| Error::internal(error.to_string()))?;
    Ok(Digest::of(&text).to_string())
}

/// What was rejected, and what became of it.
#[derive(Debug, Clone, Default)]
pub struct Rejects {
    /// What is not on the target, each document once for each of its contents.
    pub left: Vec<Rejected>,
    /// What is settled.
    pub repairs: Vec<Repair>,
}

/// Everything that was rejected in this job.
///
/// # Errors
/// Those of the state store.
pub async fn read(documents: &Documents) -> Result<Rejects> {
    let objects: Vec<RejectedObject> = read_all(documents, documents.list(keys::REJECTED).await?).await?;
    if objects.is_empty() {
        return Ok(Rejects::default());
    }
    let repairs: Vec<Repair> = read_all(documents, documents.list(keys::REPAIRS).await?).await?;
    let settled: HashSet<(Namespace, Key)> =
        repairs.iter().flat_map(|repair| repair.ids.iter().map(|id| (repair.namespace.clone(), id.clone()))).collect();
    let rejected = objects.into_iter().flat_map(|object| object.documents);
    Ok(Rejects { left: reject::distinct(rejected, &settled), repairs })
}

/// What servers refused of those objects that are not in `known` yet, and adds them to it.
///
/// # Errors
/// Those of the state store.
pub async fn read_refused(documents: &Documents, known: &mut HashSet<String>) -> Result<Vec<Rejected>> {
    let keys = documents.list(keys::REJECTED).await?.into_iter();
    let new: Vec<String> =
        keys.filter(|key| keys::is_rejected_for(Cause::Refused, key) && !known.contains(key)).collect();
    let objects: Vec<RejectedObject> = read_all(documents, new.clone()).await?;
    known.extend(new);
    Ok(objects.into_iter().flat_map(|object| object.documents).collect())
}

async fn read_all<T: Document>(documents: &Documents, keys: Vec<String>) -> Result<Vec<T>> {
    let read = |key: String| async move { documents.read::<T>(&key).await };
    let found: Vec<_> = stream::iter(keys).map(read).buffered(PARALLEL).try_collect().await?;
    Ok(found.into_iter().flatten().map(|stored| stored.value).collect())
}
