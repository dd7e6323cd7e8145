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
use crate::model::finding::Note;
use crate::model::index::{Held, Wanted, name, wanted};
use crate::model::namespace::Namespace;
use crate::model::step::Step;
use crate::model::work::{StepProgress, UnitProgress, Work};
use crate::mongo::catalog;
use crate::mongo::expiry::{Given, give_collection, give_index};
use crate::state::document::Documents;
use crate::state::keys;
use crate::state::pages::{self, PreparedEntry};
use futures_util::future::ready;
use futures_util::{StreamExt, TryStreamExt, stream};
use std::collections::HashMap;
use std::fmt::Display;
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

/// What came of giving times.
#[derive(Debug, Default)]
pub struct Released {
    /// How many indexes and collections were given theirs.
    pub given: usize,
    /// What disappeared under it.
    pub notes: Vec<Note>,
}

impl Released {
    fn add(&mut self, given: Given, namespace: &Namespace, what: impl Display) {
        match given {
            Given::Yes => self.given += 1,
            Given::Gone => self.notes.push(Note {
                namespace: namespace.clone(),
                text: format!("{what} was dropped or replaced on the target while the job was committed: it was given no time and expires nothing"),
            }),
        }
    }

    fn and(mut self, other: Self) -> Self {
        self.given += other.given;
        self.notes.extend(other.notes);
        self
    }
}

/// Gives what this job holds back its times. What has one already, and what was gone before, is passed over: the target may
/// be live.
///
/// # Errors
/// Of the target, when it refuses: the user may lack the right to `collMod`.
pub async fn release(
    context: &Context,
    servers: &Servers,
    claim: &Arc<Claim<StepProgress>>,
    entries: &[CatalogEntry],
) -> Result<Released> {
    let documents = &context.documents;
    let prepare = driver::step_work(context, Step::Prepare).await?;
    let create_index = prepare.and_then(|work| work.progress.create_index).unwrap_or_default();
    let prepared: HashMap<_, _> =
        pages::read_prepared(documents).await?.into_iter().map(|entry| (entry.ordinal, entry)).collect();
    let releasing = entries.iter().filter_map(|entry| {
        let prepared = prepared.get(&entry.ordinal)?;
        let mut expiring = wanted(entry);
        expiring.retain(|wanted| create_index != CreateIndex::None && wanted.expires());
        let is_any = !expiring.is_empty() || seconds(&entry.options).is_some();
        is_any.then(|| release_one(documents, servers, claim, (entry, prepared), expiring))
    });
    let released = stream::iter(releasing.collect::<Vec<_>>()).buffered(PARALLEL);
    released.try_fold(Released::default(), |all, one| ready(Ok(all.and(one)))).await
}

async fn release_one(
    documents: &Documents,
    servers: &Servers,
    claim: &Arc<Claim<StepProgress>>,
    (entry, prepared): (&CatalogEntry, &PreparedEntry),
    expiring: Vec<Wanted>,
) -> Result<Released> {
    let (target, namespace, uuid) = (&servers.target, &prepared.target, &prepared.uuid);
    let mut released = Released::default();
    if let (true, Some(seconds)) = (prepared.created, seconds(&entry.options)) {
        // Of a time series it is not its buckets that a server takes a time for.
        let shown = namespace.shown();
        let now = catalog::collection(target, &shown).await?;
        if now.is_some_and(|now| now.uuid.as_ref() == Some(uuid) && self::seconds(&now.options).is_none()) {
            claim.ensure_may_send().await?;
            let uuid = (entry.kind != CollectionKind::TimeSeries).then_some(uuid.as_str());
            let done = crash::around("expire", give_collection(target, &shown, uuid, seconds)).await?;
            released.add(done, &entry.namespace, "the collection");
        }
    }
    if expiring.is_empty() {
        return Ok(released);
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
        released.add(done, &entry.namespace, format_args!("index {}", wanted.name()));
    }
    Ok(released)
}
