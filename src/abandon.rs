//! Giving a job up: what it holds outside its state is undone, and it is marked so that no worker goes on with it.
//!
//! The order is what makes it safe: the job is marked first, so nobody claims anything of it any more (a worker looks
//! at the job again after it has claimed a lane); then every piece of work is closed, so that a worker which still runs
//! is fenced at its next save; then the marker on the target goes.

use crate::claim::{Claiming, DoneIs};
use crate::clock;
use crate::context::Context;
use crate::driver;
use crate::error::{Error, Result};
use crate::model::job::JobRecord;
use crate::model::lane::LaneProgress;
use crate::model::step::Step;
use crate::model::work::{Progress, StepProgress, UnitProgress, Work, WorkStatus};
use crate::mongo::deployment::Deployment;
use crate::mongo::failure::Side;
use crate::mongo::marker;
use crate::random;
use crate::state::document::{Created, Replaced};
use crate::state::keys;
use serde_json::json;

/// Gives the job up.
///
/// # Errors
/// Bad input for a job that is unknown or committed, busy when a worker is at it (unless `--takeover`), target
/// unavailable when its marker cannot be removed.
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
    // First whatever may fail: without the target the marker would stay.
    let target = Deployment::connect(
        Side::Target,
        context.settings.target()?,
        context.settings.target_ca.as_deref(),
        &format!("mongoferry {name} abandon"),
        crate::mongo::Comment(format!("mongoferry job={name} abandon run={}", context.holder.run)),
    )
    .await?;
    let job = mark(context, &target).await?;
    for key in context.documents.list("").await? {
        if key.starts_with("steps/") {
            close::<StepProgress>(context, &key).await?;
        } else if key.starts_with("index/") || key.starts_with("verify/") {
            close::<UnitProgress>(context, &key).await?;
        } else if key.starts_with(keys::LANES) && key.ends_with("/lane.json") {
            close::<LaneProgress>(context, &key).await?;
        }
    }
    marker::remove(&target, &job.id).await?;
    context.journal.record("abandon", json!({ "job": job.id }));
    context.journal.flush().await;
    Ok(format!(
        "job {name} is abandoned; its marker is gone from the target, the collections that it made are still there"
    ))
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

/// Closes one piece of work for good.
async fn close<P: Progress>(context: &Context, key: &str) -> Result<()> {
    let found: Option<Work<P>> = context.documents.read(key).await?.map(|stored| stored.value);
    let Some(work) = found else { return Ok(()) };
    if matches!(work.status, WorkStatus::Abandoned | WorkStatus::Done) {
        return Ok(());
    }
    match driver::claim(context, key, work.progress, DoneIs::Final).await? {
        Claiming::Mine(claim) => claim.let_go(WorkStatus::Abandoned, |_| {}).await,
        Claiming::Stopped => Err(Error::busy("told to stop before all work was closed; run abandon again")),
        Claiming::Done(_) | Claiming::Busy(_) => Ok(()),
    }
}
