//! Building indexes on the target: looked at before they are asked for ([`looking`]), followed when they are being built,
//! never swallowed when they fail ([`creating`]).

mod creating;
mod duplicates;
mod looking;

use super::deployment::Deployment;
use crate::crash;
use crate::error::Result;
use crate::model::index::name;
use crate::model::namespace::Namespace;
pub use creating::Refused;
use creating::{Failure, create};
pub use duplicates::duplicates;
use looking::{Present, present};
pub use looking::{incomplete, running};
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Duration;

/// How often a build that somebody else asked for (this job, before it was killed) is looked at.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(250);

/// How often an answer that was lost, with its connection or its primary, is followed by another look. Each of them begins
/// with a search for a primary, which takes up to 20 s.
const LOST_ANSWERS: usize = 5;

/// Those of `wanted` that are not there, by name, once no index of the collection is being built.
///
/// # Errors
/// As [`Deployment::failed`].
pub async fn missing<'a>(target: &Deployment, namespace: &Namespace, wanted: &'a [Value]) -> Result<Vec<&'a Value>> {
    let present = follow(target, namespace).await?;
    Ok(wanted.iter().filter(|index| !present.contains(name(index))).collect())
}

/// Builds those of `wanted` (as `createIndexes` takes them) that are not there, with one command, and returns when all
/// are ready or refused. Asked again while a build goes on, it waits for that build: a client that leaves does not stop
/// a build in a replica set.
///
/// # Errors
/// As [`Deployment::failed`]; a refusal by the server is no error but a result.
pub async fn build(target: &Deployment, namespace: &Namespace, uuid: &str, wanted: &[Value]) -> Result<Vec<Refused>> {
    let mut refused: Vec<Refused> = Vec::new();
    // Those that the server said were there: whatever it lists, they are not asked for again.
    let mut built: BTreeSet<&str> = BTreeSet::new();
    let mut lost = 0;
    let mut is_one_by_one = false;
    loop {
        let is_settled = |index: &Value| {
            let name = name(index);
            built.contains(name) || refused.iter().any(|refused| refused.name == name)
        };
        let mut asked = missing(target, namespace, wanted).await?;
        asked.retain(|index| !is_settled(index));
        if is_one_by_one {
            asked.truncate(1);
        }
        let Some(first) = asked.first() else { return Ok(refused) };
        match crash::around("index", create(target, namespace, uuid, &asked)).await {
            Ok(()) if !is_one_by_one => return Ok(refused),
            Ok(()) => built.extend(asked.iter().map(|index| name(index))),
            Err(Failure::Lost(error)) if lost < LOST_ANSWERS => {
                tracing::info!(%namespace, "looking again at indexes whose answer was lost: {error}");
                lost += 1;
                tokio::time::sleep(FOLLOW_INTERVAL).await;
            }
            Err(Failure::Lost(error) | Failure::Fault(error)) => return Err(error),
            Err(Failure::Refused(mut why)) => {
                let culprit = asked.iter().find(|index| why.names(name(index)));
                match culprit.or((asked.len() == 1).then_some(first)) {
                    Some(index) => {
                        name(index).clone_into(&mut why.name);
                        refused.push(why);
                    }
                    // One of several was refused, and with it all, and nothing says which.
                    None => is_one_by_one = true,
                }
            }
        }
    }
}

/// Waits until no index of the collection is being built; the names of those that are ready.
async fn follow(target: &Deployment, namespace: &Namespace) -> Result<BTreeSet<String>> {
    loop {
        // First what runs, and then what is there: a build that ends in between is there.
        let running = running(target, namespace).await;
        let Present { ready, building } = present(target, namespace).await?;
        if running.is_none() && building.is_empty() {
            return Ok(ready);
        }
        let names: BTreeSet<String> = running.into_iter().flat_map(|build| build.indexes).chain(building).collect();
        let names = names.into_iter().collect::<Vec<_>>().join(", ");
        tracing::debug!(%namespace, "following the build of {names}");
        tokio::time::sleep(FOLLOW_INTERVAL).await;
    }
}
