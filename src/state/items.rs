//! What each worker of a state machine is to do: a plain JSON array for each of the steps whose parts are claimed, which the
//! machine reads by itself (`ItemReader`) and gives out one by one. No step of mongoferry reads them.

use super::document::Documents;
use super::keys;
use super::pages::PlanHead;
use crate::config::StateUrl;
use crate::error::{Error, Result};
use crate::model::catalog::CatalogEntry;
use crate::model::job_name::JobName;
use crate::model::step::Step;
use bytes::Bytes;
use serde_json::{Value, json};

/// Writes them, for the plan that is pinned: written once more they are the same.
///
/// # Errors
/// Of the state store: others are there, which no hand of mongoferry has put there.
pub async fn write(documents: &Documents, plan: &PlanHead, catalog: &[CatalogEntry]) -> Result<()> {
    for (step, items) in of(plan, catalog) {
        let key = keys::items(step);
        let body = Bytes::from(Value::Array(items).to_string());
        if !documents.create_bytes(&key, body).await? {
            return Err(Error::state(format!("{} is not that of the plan; use another --job", documents.name(&key))));
        }
    }
    Ok(())
}

/// How many there are for each of these steps.
///
/// # Errors
/// Of the state store: they are missing, or no array.
pub async fn counts(documents: &Documents) -> Result<[usize; 3]> {
    let mut counts = [0; 3];
    for (count, step) in counts.iter_mut().zip([Step::Copy, Step::Index, Step::Verify]) {
        let key = keys::items(step);
        let body = documents.read_bytes(&key).await?.unwrap_or_default();
        let items: Vec<Value> = serde_json::from_slice(&body)
            .map_err(|_| Error::state(format!("{} is missing or damaged; use another --job", documents.name(&key))))?;
        *count = items.len();
    }
    Ok(counts)
}

/// A lane of the plan for copy, a collection for index and verify, by what the function's events call them.
fn of(plan: &PlanHead, catalog: &[CatalogEntry]) -> [(Step, Vec<Value>); 3] {
    let lanes = plan.lanes.iter().map(|planned| json!({ "shard": planned.lane.shard, "lane": planned.lane.number }));
    let copied = || catalog.iter().filter(|entry| entry.kind.is_copied());
    let namespace = |entry: &CatalogEntry| json!({ "namespace": entry.namespace });
    let with_indexes = copied().filter(|entry| entry.secondary_indexes().next().is_some());
    [
        (Step::Copy, lanes.collect()),
        (Step::Index, with_indexes.map(namespace).collect()),
        (Step::Verify, copied().map(namespace).collect()),
    ]
}

/// Where they lie in the bucket, without a slash at its end.
pub fn folder(state: &StateUrl, job: &JobName) -> String {
    match state {
        StateUrl::S3 { prefix, .. } if !prefix.is_empty() => format!("{prefix}/{job}/{}", keys::ITEMS),
        _ => format!("{job}/{}", keys::ITEMS),
    }
}
