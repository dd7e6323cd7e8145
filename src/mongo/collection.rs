//! Making and dropping collections on the target.

use super::catalog::{from_state, uuid_binary};
use super::deployment::Deployment;
use super::failure::{code, code_of};
use super::majority;
use crate::error::{Error, Result};
use crate::model::namespace::Namespace;
use bson::{Document, doc};
use serde_json::Value;

/// What came of asking for a collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Creation {
    /// It was made.
    Created,
    /// One of that name exists already.
    Exists,
}

/// Creates a collection with these options, all that the source's has.
///
/// # Errors
/// Bad input when the server refuses the options, else as [`Deployment::failed`].
pub async fn create(target: &Deployment, namespace: &Namespace, options: &Value) -> Result<Creation> {
    let mut command = doc! { "create": namespace.collection() };
    command.extend(from_state(options)?);
    command.insert("writeConcern", majority());
    match target.run(namespace.db(), command).await {
        Ok(reply) => super::checkpoint::acknowledged(target, &reply, &format!("creating {namespace}"))
            .map(|()| Creation::Created),
        Err(error) if code_of(&error) == Some(code::NAMESPACE_EXISTS) => Ok(Creation::Exists),
        Err(error) => Err(target.failed(&error).during(format!("creating {namespace}"))),
    }
}

/// Drops the collection of this name if it is the one with this UUID. That it is gone already is fine.
///
/// # Errors
/// Bad input when the name now means another collection, else as [`Deployment::failed`].
pub async fn drop_by_uuid(target: &Deployment, namespace: &Namespace, uuid: &str) -> Result<()> {
    let mut command = doc! { "drop": namespace.collection(), "writeConcern": majority() };
    if target.takes_collection_uuid() {
        command.insert("collectionUUID", uuid_binary(uuid));
    } else {
        // Before 6.0 the server cannot check it for us: look just before.
        match super::catalog::collection(target, namespace).await?.and_then(|listed| listed.uuid) {
            None => return Ok(()),
            Some(now) if now == uuid => {}
            Some(now) => return Err(another(namespace, uuid, &now)),
        }
    }
    match target.run(namespace.db(), command).await {
        Ok(reply) => super::checkpoint::acknowledged(target, &reply, &format!("dropping {namespace}")),
        Err(error) if code_of(&error) == Some(code::NAMESPACE_NOT_FOUND) => Ok(()),
        Err(error) if code_of(&error) == Some(code::COLLECTION_UUID_MISMATCH) => {
            match super::catalog::collection(target, namespace).await?.and_then(|listed| listed.uuid) {
                None => Ok(()),
                Some(now) => Err(another(namespace, uuid, &now)),
            }
        }
        Err(error) => Err(target.failed(&error).during(format!("dropping {namespace}"))),
    }
}

fn another(namespace: &Namespace, recorded: &str, now: &str) -> Error {
    Error::bad_input(format!(
        "{namespace} on the target was {recorded} when this job looked and is {now} now: somebody else made it anew; abandon this job and begin another"
    ))
}

/// Whether a collection holds no document at all.
///
/// # Errors
/// As [`Deployment::failed`].
pub async fn is_empty(target: &Deployment, namespace: &Namespace) -> Result<bool> {
    let command: Document = doc! { "find": namespace.collection(), "limit": 1, "projection": { "_id": 1 } };
    let found = target.collect(namespace.db(), command).await.map_err(|error| target.failed(&error))?;
    Ok(found.is_empty())
}
