//! Letting go of what was held back: TTL indexes, and collections that expire documents, get their times when the job is
//! committed, and not before (see [`crate::model::expiry`]).

use crate::claim::Claim;
use crate::context::{Context, Servers};
use crate::crash;
use crate::driver;
use crate::error::Result;
use crate::model::catalog::{CatalogEntry, CollectionKind};
use crate::model::choice::CreateIndex;
use crate::model::expiry::{Holding, is_held, seconds};
use crate::model::index::{Held, Wanted, name, wanted};
use crate::model::step::Step;
use crate::model::work::{StepProgress, UnitProgress, Work};
use crate::mongo::catalog;
use crate::mongo::expiry::{Given, give_collection, give_index};
use crate::state::document::Documents;
use crate::state::keys;
use crate::state::pages::{self, PreparedEntry};
use futures_util::{StreamExt, TryStreamExt, stream};
use std::collections::HashMap;
use std::sync::Arc;

/// How many collections are seen to at once.
const PARALLEL: usize = 16;

/// Which indexes of a collection this job holds back until it is committed.
///
/// # Errors
/// Those of the state store.
pub async fn held(documents: &Documents, prepared: &PreparedEntry) -> Result<Vec<String>> {
    let share = documents.read::<Work<UnitProgress>>(&keys::unit(Step::Index, prepared.ordinal)).await?;
    Ok(share.map(|share| share.value.progress.held).unwrap_or_default())
}

/// Gives what this job holds back its times. What has one already, and what is gone by now, is passed over: the target may be
/// live. How many it gave.
///
/// # Errors
/// Of the target, when it refuses: the user may lack the right to `collMod`.
pub async fn release(context: &Context, servers: &Servers, claim: &Arc<Claim<StepProgress>>) -> Result<usize> {
    let documents = &context.documents;
    let prepare = driver::step_work(context, Step::Prepare).await?;
    let create_index = prepare.and_then(|work| work.progress.create_index).unwrap_or_default();
    let prepared: HashMap<_, _> =
        pages::read_prepared(documents).await?.into_iter().map(|entry| (entry.ordinal, entry)).collect();
    let entries = pages::read_catalog(documents).await?;
    let releasing = entries.iter().filter_map(|entry| {
        let prepared = prepared.get(&entry.ordinal)?;
        let mut expiring = wanted(entry);
        expiring.retain(|wanted| create_index != CreateIndex::None && wanted.expires());
        let is_any = !expiring.is_empty() || seconds(&entry.options).is_some();
        is_any.then(|| release_one(documents, servers, claim, (entry, prepared), expiring))
    });
    let given: Vec<usize> =
        stream::iter(releasing.collect::<Vec<_>>()).buffer_unordered(PARALLEL).try_collect().await?;
    Ok(given.into_iter().sum())
}

async fn release_one(
    documents: &Documents,
    servers: &Servers,
    claim: &Arc<Claim<StepProgress>>,
    (entry, prepared): (&CatalogEntry, &PreparedEntry),
    expiring: Vec<Wanted>,
) -> Result<usize> {
    let (target, namespace, uuid) = (&servers.target, &prepared.target, &prepared.uuid);
    let mut given = 0;
    if let (true, Some(seconds)) = (prepared.created, seconds(&entry.options)) {
        // Of a time series it is not its buckets that a server takes a time for.
        let shown = namespace.shown();
        let now = catalog::collection(target, &shown).await?;
        if now.is_some_and(|now| now.uuid.as_ref() == Some(uuid) && self::seconds(&now.options).is_none()) {
            claim.ensure_may_send().await?;
            let uuid = (entry.kind != CollectionKind::TimeSeries).then_some(uuid.as_str());
            let done = crash::around("expire", give_collection(target, &shown, uuid, seconds)).await?;
            given += usize::from(done == Given::Yes);
        }
    }
    if expiring.is_empty() {
        return Ok(given);
    }
    let names = if prepared.created { Vec::new() } else { held(documents, prepared).await? };
    let held = if prepared.created { Held::All } else { Held::These(&names) };
    let listed = catalog::indexes(target, namespace).await?;
    for wanted in expiring {
        let Some(seconds) = seconds(&wanted.spec) else { continue };
        let is_there = listed.iter().any(|index| name(index) == wanted.name() && is_held(index));
        // Old servers do not take a time that is farther away than the one that they were given meanwhile.
        let is_farther = target.holding() == Holding::Far && seconds == i64::from(i32::MAX);
        if !is_there || is_farther || !held.may_be(wanted.name()) {
            continue;
        }
        claim.ensure_may_send().await?;
        let done = crash::around("expire", give_index(target, namespace, uuid, wanted.name(), seconds)).await?;
        given += usize::from(done == Given::Yes);
    }
    Ok(given)
}
