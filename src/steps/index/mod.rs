//! index: builds the indexes that wait for the data, one `createIndexes` a collection, several collections at once.
//!
//! - Reads: the catalog, what prepare has made, the target's indexes and what it is building; where a unique index finds
//!   duplicates, the documents in question on both sides.
//! - Writes: indexes on the target, TTL ones held back until commit; documents that have changed on the source since and would
//!   keep a unique index from being built; a share for each collection that has any; once all are done, the step's result.
//! - Resumes by: looking at what the target has and is building before it asks. A share with findings is done again.

mod duplicates;

use super::units::{self, Finished, UnitResult, Worked};
use crate::claim::Claim;
use crate::context::{Context, Servers};
use crate::copy::redeliver::Redelivery;
use crate::driver::{self, Named, Outcome};
use crate::error::{Error, Result};
use crate::model::catalog::CatalogEntry;
use crate::model::choice::CreateIndex;
use crate::model::expiry;
use crate::model::finding::{Finding, Note};
use crate::model::index::{Wanted, wanted};
use crate::model::lease;
use crate::model::step::Step;
use crate::model::work::{Building, StepProgress, UnitProgress};
use crate::mongo::index;
use crate::state::pages::{self, PreparedEntry};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OnceCell;

/// How often the server is asked how far it is, at most: a save of the state comes with it.
const SHORTEST_LOOK: Duration = Duration::from_millis(300);

/// How much of a server's reason is told: it may quote a whole document.
const REASON: usize = 1_000;

/// Runs the step.
///
/// # Errors
/// Findings for indexes that the target refuses, unless they are accepted.
pub async fn run(context: &Context, servers: &Servers, named: Named) -> Result<Outcome> {
    let step = Step::Index;
    let all = units::wanted(context, pages::read_catalog(&context.documents).await?)?;
    if let Some(done) = driver::step_work(context, step).await? {
        return Ok(Outcome::Done { step, summary: done.progress.summary });
    }
    let prepare = driver::step_work(context, Step::Prepare).await?;
    let create_index = prepare.and_then(|work| work.progress.create_index).unwrap_or_default();
    if create_index == CreateIndex::None {
        let progress =
            StepProgress { summary: "no indexes, as --create-index none says".into(), ..StepProgress::new(step) };
        return driver::finish_parts(context, progress).await;
    }
    let prepared: HashMap<_, _> =
        pages::read_prepared(&context.documents).await?.into_iter().map(|entry| (entry.ordinal, entry)).collect();
    let entries: Vec<CatalogEntry> =
        all.into_iter().filter(|entry| entry.kind.is_copied() && entry.secondary_indexes().next().is_some()).collect();
    let redelivery = OnceCell::new();
    let parallel = context.settings.index_parallelism;
    let worked = units::work(context, step, &entries, &Finished::WITHOUT_FINDINGS, parallel, async |entry, claim| {
        let prepared = prepared
            .get(&entry.ordinal)
            .ok_or_else(|| Error::state(format!("prepare has no entry for {}; use another --job", entry.namespace)))?;
        let share = Share { context, servers, redelivery: &redelivery, entry, prepared, claim };
        tokio::select! {
            result = share.build() => result,
            never = share.tell() => match never {},
        }
    })
    .await?;
    let Worked::Done(done) = worked else { return Ok(driver::yielded(context, step)) };
    if let Some(partly) = units::partly(context, step, &done.findings, named) {
        return Ok(partly);
    }
    units::accepted(context, step, &done.findings)?;
    let indexes: usize = entries.iter().map(|entry| entry.secondary_indexes().count()).sum();
    let left_out: usize = entries.iter().map(|entry| entry.secondary_indexes().count() - wanted(entry).len()).sum();
    let there = indexes.saturating_sub(left_out + done.findings.len());
    let summary = format!("{there} of {indexes} indexes are there");
    driver::finish_parts(context, StepProgress { summary, ..StepProgress::new(step) }).await
}

/// One collection's part of the step.
struct Share<'a> {
    context: &'a Context,
    servers: &'a Servers,
    /// What reads documents again and writes them, made when it is needed for the first time.
    redelivery: &'a OnceCell<Redelivery>,
    entry: &'a CatalogEntry,
    prepared: &'a PreparedEntry,
    claim: &'a Arc<Claim<UnitProgress>>,
}

impl Share<'_> {
    /// Builds what is missing; what cannot be built is a finding.
    async fn build(&self) -> Result<UnitResult> {
        let Self { servers, entry, prepared, claim, .. } = self;
        let namespace = || entry.namespace.clone();
        let wanted = wanted(entry);
        let holding = servers.target.holding();
        let specs: Vec<Value> = wanted.iter().map(|wanted| expiry::hold_index(&wanted.spec, holding)).collect();
        let before = claim.work().await.progress.refreshed;
        if !before.is_empty() && self.is_source_the_same().await? {
            // A run that was killed may have written down what it would do, and not done it.
            let ids: Vec<_> = before.iter().map(|known| known.id.clone()).collect();
            self.refresh(&ids).await?;
        }
        self.remember_held(&wanted, &specs).await?;
        claim.ensure_may_send().await?;
        let mut refused = index::build(&servers.target, &prepared.target, &prepared.uuid, &specs).await?;
        self.settle_duplicates(&specs, &mut refused).await?;
        let mut findings = Vec::new();
        for index in &refused {
            let ids = self.offending(&specs, index).await?;
            let reason = shortened(&index.reason);
            findings.push(Finding {
                namespace: namespace(),
                text: format!("index {} cannot be built on the target: {reason}{ids}", index.name),
            });
        }
        let refused: Vec<String> = refused.into_iter().map(|index| index.name).collect();
        let notes = self.notes(&wanted).await.into_iter().map(|text| Note { namespace: namespace(), text }).collect();
        Ok(UnitResult { findings, notes, refused, ..UnitResult::default() })
    }

    /// Writes down, before they are asked for, which TTL indexes this job makes in a collection that was there: the others are
    /// its owner's, and stay as they are.
    async fn remember_held(&self, wanted: &[Wanted], specs: &[Value]) -> Result<()> {
        let expiring: Vec<Value> =
            wanted.iter().zip(specs).filter(|(wanted, _)| wanted.expires()).map(|(_, spec)| spec.clone()).collect();
        if self.prepared.created || expiring.is_empty() {
            return Ok(());
        }
        let missing = index::missing(&self.servers.target, &self.prepared.target, &expiring).await?;
        let known = self.claim.work().await.progress.held;
        let missing = missing.into_iter().map(|spec| crate::model::index::name(spec).to_owned());
        let new: Vec<String> = missing.filter(|name| !known.contains(name)).collect();
        if new.is_empty() {
            return Ok(());
        }
        self.claim.save(|work| work.progress.held.extend(new.iter().cloned())).await
    }

    /// What a person should know of the indexes that are there.
    async fn notes(&self, wanted: &[Wanted]) -> Vec<String> {
        let mut notes: Vec<String> = wanted
            .iter()
            .filter(|wanted| !wanted.repairs.is_empty())
            .map(|wanted| format!("index {} was repaired: {}", wanted.name(), wanted.repairs.join("; ")))
            .collect();
        let refreshed = self.claim.work().await.progress.refreshed.len();
        if refreshed > 0 {
            notes.push(format!(
                "{refreshed} documents were brought to what the source had by then, since a unique index met what it had before"
            ));
        }
        notes
    }

    /// Tells the state now and then how far the server is.
    async fn tell(&self) -> std::convert::Infallible {
        let pause = lease::renew_interval(self.context.settings.lease).max(SHORTEST_LOOK);
        let mut told: Option<Building> = None;
        loop {
            tokio::time::sleep(pause).await;
            let running = index::running(&self.servers.target, &self.prepared.target).await;
            if running == told {
                continue;
            }
            // A save that failed is made up for by the next one; that the share is lost is heard of elsewhere.
            match self.claim.save(|work| work.progress.building.clone_from(&running)).await {
                Ok(()) => told = running,
                Err(error) => tracing::debug!("how far an index is was not saved: {error}"),
            }
        }
    }
}

fn shortened(reason: &str) -> String {
    match reason.char_indices().nth(REASON) {
        None => reason.to_owned(),
        Some((end, _)) => format!("{}…", &reason[..end]),
    }
}
