//! The marker in the target: which job has claimed which namespaces. It lies in `mongoferry.jobs`, one document a job,
//! and keeps two jobs from writing into the same collection, and a job from dropping what another one has committed.

use super::checkpoint::acknowledged;
use super::deployment::Deployment;
use super::majority;
use crate::clock;
use crate::error::Result;
use crate::model::namespace::Namespace;
use crate::model::plan::LaneName;
use crate::model::session::TransactionNumber;
use bson::{Document, RawDocumentBuf, doc, rawdoc};
use std::collections::BTreeSet;

const DATABASE: &str = "mongoferry";
const COLLECTION: &str = "jobs";

/// Another job's marker that names some of the same namespaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlap {
    /// The other job's name.
    pub job: String,
    /// Its id.
    pub id: String,
    /// Whether it has committed: its target may be live.
    pub committed: bool,
    /// The namespaces that both name.
    pub namespaces: Vec<Namespace>,
}

/// Other jobs' markers that name any of `namespaces`.
///
/// # Errors
/// As [`Deployment::failed`].
pub async fn overlaps(target: &Deployment, id: &str, namespaces: &[Namespace]) -> Result<Vec<Overlap>> {
    let command = doc! {
        "find": COLLECTION,
        "filter": { "_id": { "$ne": id } },
        "readConcern": { "level": "majority" },
    };
    let wanted: BTreeSet<String> = namespaces.iter().map(ToString::to_string).collect();
    let markers = target.collect(DATABASE, command).await.map_err(|error| target.failed(&error))?;
    let overlap = |marker: &Document| {
        let shared: Vec<Namespace> = marker
            .get_array("namespaces")
            .ok()?
            .iter()
            .filter_map(|name| name.as_str())
            .filter(|name| wanted.contains(*name))
            .filter_map(|name| Namespace::parse(name).ok())
            .collect();
        (!shared.is_empty()).then(|| Overlap {
            job: marker.get_str("job").unwrap_or("?").to_owned(),
            id: marker.get_str("_id").unwrap_or("?").to_owned(),
            committed: marker.get_str("committed").is_ok(),
            namespaces: shared,
        })
    };
    Ok(markers.iter().filter_map(overlap).collect())
}

/// Whether this job's marker is there.
///
/// # Errors
/// As [`Deployment::failed`].
pub async fn is_there(target: &Deployment, id: &str) -> Result<bool> {
    let command = doc! { "find": COLLECTION, "filter": { "_id": id }, "projection": { "_id": 1 }, "limit": 1 };
    Ok(!target.collect(DATABASE, command).await.map_err(|error| target.failed(&error))?.is_empty())
}

/// Leaves this job's marker. Once more changes nothing.
///
/// # Errors
/// As [`Deployment::failed`].
pub async fn leave(target: &Deployment, id: &str, job: &str, namespaces: &[Namespace]) -> Result<()> {
    let names: Vec<String> = namespaces.iter().map(ToString::to_string).collect();
    let update = doc! { "$setOnInsert": { "job": job, "namespaces": names, "created": clock::wall() } };
    write(target, doc! { "q": { "_id": id }, "u": update, "upsert": true }).await
}

/// Marks this job's namespaces as committed: from now on the target may be live.
///
/// # Errors
/// As [`Deployment::failed`].
pub async fn committed(target: &Deployment, id: &str) -> Result<()> {
    write(
        target,
        doc! { "q": { "_id": id, "committed": { "$exists": false } }, "u": { "$set": { "committed": clock::wall() } } },
    )
    .await
}

/// The command that notes in this job's marker that a lane's writer was fenced. What it says is for people; that it
/// changes the document every time is what matters, since a server remembers the number of a write in a session for
/// good, and through elections, only when the write did something.
pub fn fenced(id: &str, lane: &LaneName, writer: usize, number: TransactionNumber) -> (&'static str, RawDocumentBuf) {
    let fenced = rawdoc! { "lane": lane.to_string(), "writer": writer as i64, "number": number.value() };
    let update = rawdoc! { "q": { "_id": id }, "u": { "$set": { "fenced": fenced } } };
    (DATABASE, rawdoc! { "update": COLLECTION, "updates": [update] })
}

/// Whether this job's namespaces are marked as committed.
///
/// # Errors
/// As [`Deployment::failed`].
pub async fn is_committed(target: &Deployment, id: &str) -> Result<bool> {
    let command = doc! {
        "find": COLLECTION,
        "filter": { "_id": id, "committed": { "$exists": true } },
        "projection": { "_id": 1 },
        "readConcern": { "level": "majority" },
    };
    Ok(!target.collect(DATABASE, command).await.map_err(|error| target.failed(&error))?.is_empty())
}

/// Takes this job's marker away.
///
/// # Errors
/// As [`Deployment::failed`].
pub async fn remove(target: &Deployment, id: &str) -> Result<()> {
    let command = doc! {
        "delete": COLLECTION,
        "deletes": [{ "q": { "_id": id }, "limit": 1 }],
        "writeConcern": majority(),
    };
    let reply = target.run(DATABASE, command).await.map_err(|error| target.failed(&error))?;
    acknowledged(target, &reply, "removing the job's marker")
}

async fn write(target: &Deployment, update: Document) -> Result<()> {
    let command = doc! { "update": COLLECTION, "updates": [update], "writeConcern": majority() };
    let reply = target.run(DATABASE, command).await.map_err(|error| target.failed(&error))?;
    acknowledged(target, &reply, "the job's marker")
}
