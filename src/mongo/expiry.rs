//! Giving indexes and collections the time after which they delete documents.

use super::catalog::uuid_binary;
use super::checkpoint::acknowledged;
use super::deployment::Deployment;
use super::failure::{code, code_of};
use super::majority;
use crate::error::Result;
use crate::model::namespace::Namespace;
use bson::{Document, doc};

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Given {
    /// It has it.
    Yes,
    /// It is not there any more, or another one has its name.
    Gone,
}

/// Gives an index its time, in seconds. The same once more changes nothing.
///
/// # Errors
/// As [`Deployment::failed`]: `collMod` is a right of its own.
pub async fn give_index(
    target: &Deployment,
    namespace: &Namespace,
    uuid: &str,
    index: &str,
    seconds: i64,
) -> Result<Given> {
    let change = doc! { "index": { "name": index, "expireAfterSeconds": seconds } };
    modify(
        target,
        namespace,
        Some(uuid),
        change,
        &format!("the time after which index {index} of {namespace} expires documents"),
    )
    .await
}

/// Gives a clustered collection, or a time series, its time, in seconds. A time series is not asked for by its UUID, which is
/// that of its buckets.
///
/// # Errors
/// As [`give_index`].
pub async fn give_collection(
    target: &Deployment,
    namespace: &Namespace,
    uuid: Option<&str>,
    seconds: i64,
) -> Result<Given> {
    let change = doc! { "expireAfterSeconds": seconds };
    modify(target, namespace, uuid, change, &format!("the time after which {namespace} expires documents")).await
}

async fn modify(
    target: &Deployment,
    namespace: &Namespace,
    uuid: Option<&str>,
    change: Document,
    what: &str,
) -> Result<Given> {
    let mut command = doc! { "collMod": namespace.collection() };
    command.extend(change);
    command.insert("writeConcern", majority());
    if let Some(uuid) = uuid.filter(|_| target.takes_collection_uuid()) {
        command.insert("collectionUUID", uuid_binary(uuid));
    }
    match target.run(namespace.db(), command).await {
        Ok(reply) => acknowledged(target, &reply, what).map(|()| Given::Yes),
        Err(error)
            if matches!(
                code_of(&error),
                Some(code::NAMESPACE_NOT_FOUND | code::INDEX_NOT_FOUND | code::COLLECTION_UUID_MISMATCH)
            ) =>
        {
            Ok(Given::Gone)
        }
        Err(error) => Err(target.failed(&error).during(format!("setting {what}"))),
    }
}
