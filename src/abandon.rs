//! Giving a job up: what it holds outside its state is undone, and it is marked so that no worker goes on with it.
//!
//! The order is what makes it safe: the job is marked first, so nobody claims anything of it any more (a worker looks
//! at the job again after it has claimed a lane); then every piece of work is closed, so that a worker which still runs
//! is fenced at its next save; then the marker on the target goes, and the source's balancer is started again if the job
//! has stopped it. That is last: a source that is gone for good must not keep the marker.

use crate::claim::{Claiming, DoneIs};
use crate::clock;
use crate::connection_string::ConnectionString;
use crate::context::Context;
use crate::driver;
use crate::error::{Error, Result};
use crate::model::job::JobRecord;
use crate::model::lane::LaneProgress;
use crate::model::step::Step;
use crate::model::work::{Progress, StepProgress, UnitProgress, Work, WorkStatus};
use crate::mongo::deployment::Deployment;
use crate::mongo::failure::Side;
use crate::mongo::{marker, system};
use crate::random;
use crate::state::document::{Created, Replaced};
use crate::state::keys;
use crate::steps::balancer;
use serde_json::json;
use std::collections::BTreeMap;

/// Gives the job up.
///
/// # Errors
/// Bad input for a job that is unknown or committed, busy when a worker is at it (unless `--takeover`), target
/// unavailable when its marker cannot be removed, source unavailable when its balancer cannot be started again.
pub async fn run(context: &Context) -> Result<String> {
    let name = &context.settings.job;
    let is_known = !context.documents.list("steps/").await?.is_empty()
        || context.documents.read::<JobRecord>(keys::JOB).await?.is_some();
    if !is_known {
        return Err(unknown(context));
    }
    if driver::is_done(context, Step::Commit).await? {
        return Err(Error::bad_input(format!("job `{name}` is committed; there is nothing to abandon")));
    }
    if balancer::owed(context).await?.is_some() {
        config_servers(context)?;
    }
    // First whatever may fail: without the target the marker would stay.
    let target = Deployment::connect(
        Side::Target,
        context.settings.target()?,
        context.settings.target_ca.as_deref(),
        &format!("mongoferry {name} abandon"),
        crate::mongo::Comment(format!("mongoferry job={name} abandon run={}", context.holder.run)),
    )
    .await?;
    let job = context.documents.read::<JobRecord>(keys::JOB).await?;
    if let Some(job) = job
        && marker::is_committed(&target, &job.value.id).await?
    {
        return Err(Error::bad_input(format!(
            "job `{name}` is committed but for its end; run `mongoferry step commit --job {name}`"
        )));
    }
    // The one step that must not run beside this: a commit that is under way makes this busy, before anything is marked.
    close(context, &keys::step(Step::Commit), Some(StepProgress::new(Step::Commit))).await?;
    let job = mark(context, &target).await?;
    for key in context.documents.list("").await? {
        if key.starts_with("steps/") {
            close::<StepProgress>(context, &key, None).await?;
        } else if key.starts_with("index/") || key.starts_with("verify/") {
            close::<UnitProgress>(context, &key, None).await?;
        } else if key.starts_with(keys::LANES) && key.ends_with("/lane.json") {
            close::<LaneProgress>(context, &key, None).await?;
        }
    }
    system::clean(&target, &job.id).await?;
    marker::remove(&target, &job.id).await?;
    context.journal.record("abandon", json!({ "job": job.id }));
    let restored = restore_balancer(context).await;
    context.journal.flush().await;
    restored?;
    Ok(format!(
        "job {name} is abandoned; its marker is gone from the target, the collections that it made are still there"
    ))
}

/// Starts the source's balancer again if this job has stopped it.
async fn restore_balancer(context: &Context) -> Result<()> {
    // Read once more: a discover that was at work until now may have stopped it.
    if balancer::owed(context).await?.is_none() {
        return Ok(());
    }
    let name = &context.settings.job;
    let config = Deployment::connect(
        Side::Source,
        config_servers(context).map_err(balancer::by_hand)?,
        context.settings.source_ca.as_deref(),
        &format!("mongoferry {name} abandon"),
        crate::mongo::Comment(format!("mongoferry job={name} abandon run={}", context.holder.run)),
    )
    .await
    .map_err(balancer::by_hand)?;
    balancer::restore(context, &config).await
}

fn config_servers(context: &Context) -> Result<&ConnectionString> {
    let cluster = context.settings.cluster.as_ref();
    cluster.and_then(|cluster| cluster.config.as_ref()).ok_or_else(|| {
        Error::bad_input(format!(
            "job `{}` has stopped the balancer of its source, which is to be started again; give the config servers, or a mongos, with --source-config",
            context.settings.job
        ))
    })
}

/// What is said of a job that the store has nothing of.
pub fn unknown(context: &Context) -> Error {
    Error::bad_input(format!(
        "there is no job `{}` in {}; `mongoferry jobs` lists those that are there",
        context.settings.job,
        context.documents.store().url()
    ))
}

async fn mark(context: &Context, target: &Deployment) -> Result<JobRecord> {
    for _ in 0..10 {
        match context.documents.read::<JobRecord>(keys::JOB).await? {
            None => {
                let job = JobRecord {
                    id: random::random_id(),
                    name: context.settings.job.to_string(),
                    created: clock::wall(),
                    binding: None,
                    discovered_by: None,
                    settings: BTreeMap::new(),
                    abandoned: Some(clock::wall()),
                };
                if let Created::Mine(stored) = context.documents.create(keys::JOB, &job).await? {
                    return Ok(stored.value);
                }
            }
            Some(stored) if stored.value.abandoned.is_some() => return Ok(stored.value),
            Some(stored) => {
                if let Some(binding) = &stored.value.binding
                    && !binding.target.still_is(&target.identity)
                {
                    return Err(Error::bad_input(format!(
                        "job `{}` was planned for target `{}`, now it is `{}`; give the target that holds its marker",
                        context.settings.job, binding.target, target.identity
                    )));
                }
                let job = JobRecord { abandoned: Some(clock::wall()), ..stored.value.clone() };
                if let Replaced::Mine(stored) = context.documents.replace(keys::JOB, &job, &stored).await? {
                    return Ok(stored.value);
                }
            }
        }
    }
    Err(Error::busy("the job's document changes all the time; try again"))
}

/// Closes one piece of work for good; one that nobody has begun only where `unbegun` says what it would begin with.
async fn close<P: Progress>(context: &Context, key: &str, unbegun: Option<P>) -> Result<()> {
    let found: Option<Work<P>> = context.documents.read(key).await?.map(|stored| stored.value);
    let progress = match found {
        Some(work) if matches!(work.status, WorkStatus::Abandoned | WorkStatus::Done) => return Ok(()),
        Some(work) => Some(work.progress),
        None => unbegun,
    };
    let Some(progress) = progress else { return Ok(()) };
    match driver::claim(context, key, progress, DoneIs::Final).await? {
        Claiming::Mine(claim) => {
            // One that was overtaken may still stop the balancer, which is started again later on.
            if key == keys::step(Step::Discover) {
                claim.outlived().await;
            }
            claim.let_go(WorkStatus::Abandoned, |_| {}).await
        }
        Claiming::Stopped => Err(Error::busy("told to stop before all work was closed; run abandon again")),
        Claiming::Done(_) | Claiming::Busy(_) => Ok(()),
    }
}
