//! commit: writes the checkpoint, once everything before is done. After that the target may be live.
//!
//! - Reads: the results of all steps, the source's oplog; with `--include-system` its functions, roles and users.
//! - Writes: these ([`system`]), the checkpoint in MongoShake's form, the marker's `committed`, the times of TTL indexes and
//!   collections that were held back, the balancer's settings on the source where discover has stopped it, the step's result,
//!   in this order.
//! - Resumes by: doing it again; the same values are written once more, until the marker says that they are.

use super::system::{self, Copied};
use super::{balancer, discover, expiry, ownership, units};
use crate::claim::Claim;
use crate::config::CheckpointUri;
use crate::context::{Context, Servers};
use crate::crash;
use crate::driver::{self, Finished, Outcome};
use crate::error::{Error, Kind, Result};
use crate::model::choice::CheckpointMode;
use crate::model::job::{CheckpointMap, Optime};
use crate::model::step::Step;
use crate::model::work::StepProgress;
use crate::mongo::deployment::Deployment;
use crate::mongo::failure::Side;
use crate::mongo::{checkpoint, marker};
use crate::state::{keys, pages};
use crate::status;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Runs the step.
///
/// # Errors
/// Findings that were not accepted; source unavailable when the oplog no longer reaches back to the checkpoint.
pub async fn run(context: &Context, servers: &Servers) -> Result<Outcome> {
    driver::run_whole(context, Step::Commit, async |claim| commit(context, servers, claim).await).await
}

async fn commit(context: &Context, servers: &Servers, claim: &Arc<Claim<StepProgress>>) -> Result<Finished> {
    let (job, _) = servers.bound()?;
    let found = status::read(&context.documents, &context.settings.job.to_string()).await?;
    let findings = found.map(|status| status.findings).unwrap_or_default();
    let checkpoints: CheckpointMap = pages::expect(&context.documents, keys::CHECKPOINT).await?;
    let starts = checkpoints.stream_starts();
    // Once it is marked all of this was done, and must not be done again: the balancer may be on by now, and a stream may
    // have moved the checkpoint.
    let is_committed = marker::is_committed(&servers.target, &job.id).await?;
    let entries = pages::read_catalog(&context.documents).await?;
    let mut system = Copied::default();
    if !is_committed {
        units::accepted(context, Step::Commit, &findings)?;
        discover::guard_oplogs(&servers.source, &checkpoints).await.map_err(lost)?;
        ownership::ensure_unmoved(context, &servers.source, &entries).await.map_err(lost)?;
    }
    let (place, deployment) = match checkpoints.mode {
        CheckpointMode::None => (String::new(), None),
        _ => place(context, servers).await?,
    };
    if !is_committed {
        system = system::copy(context, servers, claim, &entries).await.map_err(begun)?;
        if let Some(deployment) = &deployment {
            write(deployment, context, claim, &starts).await?;
        }
        claim.ensure_may_send().await?;
        crash::around("committed", marker::committed(&servers.target, &job.id)).await?;
    }
    // What expires documents may do so from now on, and not before. Before the step is done it all does.
    let released = expiry::release(context, servers, claim, &entries).await?;
    if released.given > 0 {
        tracing::info!("{} TTL indexes and collections expire documents on the target from now on", released.given);
    }
    claim.ensure_may_send().await?;
    balancer::restore(context, &servers.source.main).await?;
    let Copied { summary: system, mut notes } = system;
    notes.extend(released.notes);
    let system = if system.is_empty() { system } else { format!(", {system} as on the source") };
    let accepted = if findings.is_empty() { String::new() } else { format!(", {} findings accepted", findings.len()) };
    let each: Vec<String> = starts.iter().map(|(name, after)| format!("checkpoint of {name} is {after}")).collect();
    let summary = match checkpoints.mode {
        CheckpointMode::None => {
            format!("no checkpoint was captured or written, as --checkpoint-mode none has it{system}{accepted}")
        }
        _ => format!("{}, written {place}{system}{accepted}", each.join(", ")),
    };
    Ok(Finished { summary, notes, ..Finished::default() })
}

/// Where the checkpoint goes, in words, and the deployment; `None` when it stays in the state.
async fn place(context: &Context, servers: &Servers) -> Result<(String, Option<Deployment>)> {
    let namespace = &context.settings.checkpoint_namespace;
    match &context.settings.checkpoint_uri {
        CheckpointUri::None => Ok(("nowhere but in the state".to_owned(), None)),
        CheckpointUri::Target => Ok((format!("in {namespace} on the target"), Some(servers.target.clone()))),
        CheckpointUri::Uri(uri) => {
            let app_name = format!("mongoferry {} commit", context.settings.job);
            let comment = context.comment(Step::Commit, "");
            let deployment = Deployment::connect(Side::Checkpoint, uri, None, &app_name, comment).await?;
            Ok((format!("in {namespace} on {}", deployment.identity.set_name), Some(deployment)))
        }
    }
}

async fn write(
    deployment: &Deployment,
    context: &Context,
    claim: &Arc<Claim<StepProgress>>,
    starts: &BTreeMap<String, Optime>,
) -> Result<()> {
    let namespace = &context.settings.checkpoint_namespace;
    for (name, after) in starts {
        claim.ensure_may_send().await?;
        crash::around("checkpoint", checkpoint::write(deployment, namespace, name, *after)).await?;
    }
    Ok(())
}

/// From the first change of the target on it is no input that is at fault.
fn begun(error: Error) -> Error {
    match error.kind() {
        Kind::BadInput => error.as_kind(Kind::TargetUnavailable),
        _ => error,
    }
}

/// After the copy it is no input that is at fault.
fn lost(error: Error) -> Error {
    match error.kind() {
        Kind::BadInput => error.as_kind(Kind::SourceUnavailable),
        _ => error,
    }
}
