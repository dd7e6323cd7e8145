//! `step all --dry-run`: everything is planned, looked at and read as a job does it, and nothing is written.
//!
//! Its state is a store in memory ([`Context::open`]), so claims, cursors, limits and memory are what they are in a job,
//! and the job's own state is neither read nor changed. What would change a server is left out, or counted in its place:
//!
//! | step | in a dry run |
//! | --- | --- |
//! | discover, plan | the same; `--stop-balancer` is refused with the settings |
//! | prepare | refuses the same, makes nothing ([`rehearsal`](crate::steps::prepare::rehearsal)) |
//! | copy | reads the same; a batch is counted where it would be sent ([`Delivery::write`](crate::copy::deliver::Delivery::write)) |
//! | index, verify, commit | what they would do is told |

use crate::config::CheckpointUri;
use crate::context::Context;
use crate::driver::{self, Named, Outcome};
use crate::error::{Error, Result};
use crate::model::catalog::CatalogEntry;
use crate::model::choice::CreateIndex;
use crate::model::index::{Wanted, wanted};
use crate::model::job::CheckpointMap;
use crate::model::step::Step;
use crate::state::{keys, pages};
use crate::status;
use crate::steps::system;

/// The steps that are run.
const RUN: [Step; 4] = [Step::Discover, Step::Plan, Step::Prepare, Step::Copy];

/// Runs it.
///
/// # Errors
/// Those of a job, as far as they show before anything is written; findings that commit would stop at.
pub async fn run(context: &Context) -> Result<Outcome> {
    tracing::info!("dry run: nothing is written, neither to a server nor to the state");
    let mut told = Vec::new();
    for step in RUN {
        match driver::run_step(context, step, Named::InChain).await? {
            Outcome::Done { summary, .. } if step == Step::Plan => tracing::debug!("{summary}"),
            Outcome::Done { summary, .. } => told.push(summary),
            stopped @ Outcome::Yield { .. } => return Ok(stopped),
        }
    }
    let entries = pages::read_catalog(&context.documents).await?;
    told.push(indexes(context, &entries));
    let Some(committing) = context.stop.unless(commit(context, &entries)).await else {
        return Ok(driver::yielded(context, Step::Commit));
    };
    told.push(committing?);
    settle_findings(context).await?;
    Ok(Outcome::Done { step: Step::Commit, summary: format!("dry run: {}; nothing was written", told.join("; ")) })
}

/// What index would do, and commit with what expires documents.
fn indexes(context: &Context, entries: &[CatalogEntry]) -> String {
    let copied = entries.iter().filter(|entry| entry.kind.has_documents());
    if context.settings.create_index == CreateIndex::None {
        let indexes: usize = copied.map(|entry| entry.secondary_indexes().count()).sum();
        return format!("{indexes} indexes would be left out");
    }
    let wanted: Vec<Wanted> = copied.flat_map(wanted).collect();
    let repaired = wanted.iter().filter(|index| !index.repairs.is_empty()).count();
    let expiring = wanted.iter().filter(|index| index.expires()).count();
    let mut text = format!("{} indexes would be built", wanted.len());
    if repaired > 0 {
        text.push_str(&format!(", {repaired} of them repaired"));
    }
    if expiring > 0 {
        text.push_str(&format!(", {expiring} of them without a time of expiry until commit"));
    }
    text
}

/// What commit would write.
async fn commit(context: &Context, entries: &[CatalogEntry]) -> Result<String> {
    let servers = context.connect(Step::Commit).await?;
    let checkpoints: CheckpointMap = pages::expect(&context.documents, keys::CHECKPOINT).await?;
    let starts = checkpoints.stream_starts();
    let each: Vec<String> = starts.iter().map(|(name, after)| format!("checkpoint {after} of {name}")).collect();
    let namespace = &context.settings.checkpoint_namespace;
    let place = match &context.settings.checkpoint_uri {
        CheckpointUri::None => "nowhere but into the state".to_owned(),
        CheckpointUri::Target => format!("into {namespace} on the target"),
        CheckpointUri::Uri(_) => format!("into {namespace} where --checkpoint-uri leads to"),
    };
    let checkpoint = match each.is_empty() {
        true => "no checkpoint would be written".to_owned(),
        false => format!("{} would be written {place}", each.join(" and ")),
    };
    match system::rehearse(context, &servers, entries).await?.as_str() {
        "" => Ok(checkpoint),
        system => Ok(format!("{system} would be written; {checkpoint}")),
    }
}

/// A job would stop before its commit. Its findings are told here, since nobody can ask for them afterwards.
async fn settle_findings(context: &Context) -> Result<()> {
    let found = status::read(&context.documents, &context.settings.job.to_string()).await?;
    let (findings, notes) = found.map(|status| (status.findings, status.notes)).unwrap_or_default();
    notes.iter().for_each(|note| tracing::info!("{} {}", note.namespace, note.text));
    findings.iter().for_each(|finding| tracing::warn!("{} {}", finding.namespace, finding.text));
    match findings.first() {
        Some(first) if !context.settings.accept_findings => Err(Error::findings(format!(
            "a copy would stop before its commit with {} findings, the first: {} {}; mend them, or say --accept-findings; nothing was written",
            findings.len(),
            first.namespace,
            first.text
        ))),
        _ => Ok(()),
    }
}
