//! index: builds the indexes that wait for the data, one `createIndexes` a collection.
//!
//! - Reads: the catalog, what prepare has made, the target's indexes.
//! - Writes: indexes on the target; a share for each collection that has any; once all are done, the step's result.
//! - Resumes by: looking at what the target has and is building before it asks. A share with findings is done again.

use super::units::{self, Finished, UnitResult, Worked};
use crate::context::{Context, Servers};
use crate::driver::{self, Named, Outcome};
use crate::error::{Error, Result};
use crate::model::catalog::{CatalogEntry, index_to_create};
use crate::model::choice::CreateIndex;
use crate::model::finding::Finding;
use crate::model::step::Step;
use crate::model::work::StepProgress;
use crate::mongo::index;
use crate::state::pages;
use serde_json::Value;
use std::collections::HashMap;

/// How many collections' indexes are built at once: a build uses a core, and a server builds at most three at a time
/// (`maxNumActiveUserIndexBuilds`).
const PARALLEL: usize = 3;

/// Runs the step.
///
/// # Errors
/// Findings for indexes that the target refuses, unless they are accepted.
pub async fn run(context: &Context, servers: &Servers, named: Named) -> Result<Outcome> {
    let step = Step::Index;
    let wanted = units::wanted(context, pages::read_catalog(&context.documents).await?)?;
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
    let entries: Vec<CatalogEntry> = wanted
        .into_iter()
        .filter(|entry| entry.kind.is_copied() && entry.secondary_indexes().next().is_some())
        .collect();
    let worked = units::work(context, step, &entries, &Finished::WITHOUT_FINDINGS, PARALLEL, async |entry, claim| {
        let ready = prepared
            .get(&entry.ordinal)
            .ok_or_else(|| Error::state(format!("prepare has no entry for {}; use another --job", entry.namespace)))?;
        let wanted: Vec<Value> =
            entry.secondary_indexes().map(|index| index_to_create(index, &entry.options)).collect();
        claim.ensure_may_send().await?;
        let refused = index::build(&servers.target, &ready.target, &ready.uuid, &wanted).await?;
        let findings = refused
            .into_iter()
            .map(|index| Finding {
                namespace: entry.namespace.clone(),
                text: format!("index {} cannot be built on the target: {}", index.name, index.reason),
            })
            .collect();
        Ok(UnitResult { findings, ..UnitResult::default() })
    })
    .await?;
    let Worked::Done(done) = worked else { return Ok(driver::yielded(context, step)) };
    if let Some(partly) = units::partly(context, step, &done.findings, named) {
        return Ok(partly);
    }
    units::accepted(context, step, &done.findings)?;
    let indexes: usize = entries.iter().map(|entry| entry.secondary_indexes().count()).sum();
    let summary = format!("{} of {indexes} indexes are there", indexes - done.findings.len());
    driver::finish_parts(context, StepProgress { summary, ..StepProgress::new(step) }).await
}
