//! Making and dropping collections on the target.

use super::catalog::{from_state, uuid_binary};
use super::deployment::Deployment;
use super::failure::{code, code_of, is_refusal};
use super::majority;
use crate::error::{Error, Result};
use crate::model::catalog::CollectionKind;
use crate::model::namespace::Namespace;
use bson::{Document, doc};
use serde_json::Value;

/// What came of asking for a collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Creation {
    /// It was made.
    Created,
    /// One of that name exists already.
    Exists,
    /// The server does not take these options, for this reason.
    Refused(String),
}

/// Creates a collection or view with these options, all that the source's has.
///
/// # Errors
/// As [`Deployment::failed`].
pub async fn create(target: &Deployment, namespace: &Namespace, options: &Value) -> Result<Creation> {
    let mut command = doc! { "create": namespace.collection() };
    command.extend(from_state(options)?);
    command.insert("writeConcern", majority());
    match target.run(namespace.db(), command).await {
        Ok(reply) => super::checkpoint::acknowledged(target, &reply, &format!("creating {namespace}"))
            .map(|()| Creation::Created),
        Err(error) if code_of(&error) == Some(code::NAMESPACE_EXISTS) => Ok(Creation::Exists),
        Err(error) => {
            let is_refused = is_refusal(&error);
            let error = target.failed(&error).during(format!("creating {namespace}"));
            if is_refused { Ok(Creation::Refused(error.to_string())) } else { Err(error) }
        }
    }
}

/// Drops the collection of this name if it is the one with this UUID. That it is gone already is fine.
///
/// # Errors
/// Bad input when the name now means another collection, else as [`Deployment::failed`].
pub async fn drop_by_uuid(target: &Deployment, namespace: &Namespace, uuid: &str) -> Result<()> {
    // Looked at just before, since a server cannot check it for us before 6.0, nor for a time series.
    let Some(listed) = super::catalog::collection(target, namespace).await? else { return Ok(()) };
    match listed.uuid {
        None => return Ok(()),
        Some(now) if now == uuid => {}
        Some(now) => return Err(another(namespace, uuid, &now)),
    }
    let mut command = doc! { "drop": namespace.collection(), "writeConcern": majority() };
    if target.takes_collection_uuid() && listed.kind != CollectionKind::TimeSeries {
        command.insert("collectionUUID", uuid_binary(uuid));
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

/// Drops a view. That it is gone already is fine.
///
/// # Errors
/// As [`Deployment::failed`].
pub async fn drop_view(target: &Deployment, namespace: &Namespace) -> Result<()> {
    match super::catalog::collection(target, namespace).await? {
        Some(listed) if listed.kind == CollectionKind::View => {}
        _ => return Ok(()),
    }
    let command = doc! { "drop": namespace.collection(), "writeConcern": majority() };
    match target.run(namespace.db(), command).await {
        Ok(reply) => super::checkpoint::acknowledged(target, &reply, &format!("dropping {namespace}")),
        Err(error) if code_of(&error) == Some(code::NAMESPACE_NOT_FOUND) => Ok(()),
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
