//! copy: every lane claims its document, copies its partitions, and saves as it goes.
//!
//! - Reads: the plan, what prepare has made, the source's documents.
//! - Writes: documents on the target; the lane (lease and cursors in one document) and its proofs; once all lanes are
//!   done, the step's result.
//! - Resumes by: the cursors, each after the last key whose batch, and every one before it, the target has acknowledged.
//!
//! Works on all lanes that are free, side by side, then waits for what other workers hold; with `--lane` a lane that
//! another worker holds is an error.

use super::discover;
use crate::claim::{self, Claiming, DoneIs};
use crate::context::{Context, Servers};
use crate::copy::flow::Flow;
use crate::copy::lane::{self, LaneEnd};
use crate::copy::ownerships::{Origin, Ownerships};
use crate::driver::{self, Outcome};
use crate::error::{Error, Result};
use crate::limits::{self, Limits};
use crate::model::counts::Counts;
use crate::model::job::CheckpointMap;
use crate::model::lane::LaneProgress;
use crate::model::lease::Holder;
use crate::model::plan::LaneName;
use crate::model::step::Step;
use crate::model::tuning::Concurrency;
use crate::model::work::{StepProgress, Work, WorkStatus};
use crate::state::keys;
use crate::state::pages::{self, PlanHead, PlannedLane};
use crate::stop::Reason;
use futures_util::{StreamExt, stream};
use std::time::Duration;

/// How often a lane that another worker holds is looked at.
const WAIT_FOR_OTHERS: Duration = Duration::from_millis(500);

/// How many lanes one process copies at once.
const LANES_SIDE_BY_SIDE: usize = 64;

/// Runs the step.
///
/// # Errors
/// Bad input for a shard or lane that is not planned, busy for a named lane that another worker holds, else those of
/// copying.
pub async fn run(context: &Context, servers: &Servers) -> Result<Outcome> {
    let plan = pages::read_plan(&context.documents).await?;
    let lanes = wanted(context, &plan)?;
    if let Some(done) = driver::step_work(context, Step::Copy).await? {
        return Ok(Outcome::Done { step: Step::Copy, summary: done.progress.summary });
    }
    let most = Concurrency { readers: context.settings.max_readers, writers: context.settings.max_writers };
    let limits = Limits::new(plan.lanes.iter().map(|planned| planned.lane.clone()));
    limits::begin(context, &limits).await?;
    let flow = Flow::new(context.settings.memory, most, limits);
    let is_complete = tokio::select! {
        copied = copy_lanes(context, servers, &flow, &plan, lanes) => copied?,
        never = flow.tune() => match never {},
        never = limits::keep_looking(context, &flow.limits) => match never {},
    };
    if is_complete { finish(context, &plan).await } else { Ok(driver::yielded(context, Step::Copy)) }
}

/// Copies lanes side by side, and waits for those that other workers hold. False when it was told to stop.
async fn copy_lanes(
    context: &Context,
    servers: &Servers,
    flow: &Flow,
    plan: &PlanHead,
    mut waiting: Vec<&PlannedLane>,
) -> Result<bool> {
    let is_named = context.settings.lane.is_some();
    while !waiting.is_empty() {
        let mut held = Vec::new();
        let mut is_stopped = false;
        let mut first_error = None;
        let copies = waiting.into_iter().map(|planned| copy_lane(context, servers, flow, plan, planned));
        let mut lanes = stream::iter(copies).buffer_unordered(LANES_SIDE_BY_SIDE);
        while let Some(copied) = lanes.next().await {
            match copied {
                Ok(Copied::Done) => {}
                Ok(Copied::Stopped) => is_stopped = true,
                Ok(Copied::Busy(planned, holder)) if is_named => {
                    return Err(driver::busy(context, &keys::lane(&planned.lane), &holder));
                }
                Ok(Copied::Busy(planned, _)) => held.push(planned),
                // The others save what they have before this run ends.
                Err(error) => {
                    context.stop.request(Reason::AnotherFailed);
                    first_error.get_or_insert(error);
                }
            }
        }
        drop(lanes);
        if let Some(error) = first_error {
            return Err(error);
        }
        if is_stopped {
            return Ok(false);
        }
        waiting = held;
        if !waiting.is_empty() && context.stop.unless(tokio::time::sleep(WAIT_FOR_OTHERS)).await.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The lanes that this run was asked to copy.
fn wanted<'a>(context: &Context, plan: &'a PlanHead) -> Result<Vec<&'a PlannedLane>> {
    let (shard, number) = (&context.settings.shard, context.settings.lane);
    let is_wanted = |lane: &LaneName| {
        shard.as_ref().is_none_or(|shard| *shard == lane.shard) && number.is_none_or(|number| number == lane.number)
    };
    let lanes: Vec<&PlannedLane> = plan.lanes.iter().filter(|planned| is_wanted(&planned.lane)).collect();
    if lanes.is_empty() {
        let planned: Vec<String> = plan.lanes.iter().map(|planned| planned.lane.to_string()).collect();
        return Err(Error::bad_input(format!(
            "no lane of job `{}` is --shard {} --lane {}; it has {}",
            context.settings.job,
            shard.as_deref().unwrap_or("(any)"),
            number.map_or("(any)".to_owned(), |number| number.to_string()),
            planned.join(", ")
        )));
    }
    Ok(lanes)
}

enum Copied<'a> {
    Done,
    Stopped,
    Busy(&'a PlannedLane, Holder),
}

async fn copy_lane<'a>(
    context: &Context,
    servers: &Servers,
    flow: &Flow,
    plan: &PlanHead,
    planned: &'a PlannedLane,
) -> Result<Copied<'a>> {
    if context.stop.is_requested() {
        return Ok(Copied::Stopped);
    }
    let key = keys::lane(&planned.lane);
    let initial = LaneProgress::new(planned.lane.clone(), plan.hash.clone(), planned.partitions);
    let claimed =
        claim::claim(&context.documents, &key, initial, &context.claimant(), DoneIs::Final, &context.stop).await?;
    let claim = match claimed {
        Claiming::Mine(claim) => claim,
        Claiming::Done(_) => {
            flow.limits.lane_is_done(&planned.lane);
            return Ok(Copied::Done);
        }
        Claiming::Busy(holder) => return Ok(Copied::Busy(planned, holder)),
        Claiming::Stopped => return Ok(Copied::Stopped),
    };
    driver::claimed(context, &key, &claim).await;
    context.journal.flush().await;
    let comment =
        context.comment(Step::Copy, &format!("lane={} epoch={}", planned.lane, claim.work().await.lease.epoch));
    let servers = Servers {
        source: servers.source.commented(&comment),
        target: servers.target.commented(comment),
        job: servers.job.clone(),
    };
    let work = async {
        let _held = flow.limits.hold();
        // An abandoned job's lanes are closed one by one: look again, now that this one is ours.
        context.job().await?;
        let spec = pages::read_lane(&context.documents, plan, planned).await?;
        let prepared = pages::read_prepared(&context.documents).await?;
        let checkpoints: CheckpointMap = pages::expect(&context.documents, keys::CHECKPOINT).await?;
        let shard = servers.source.shard(&planned.lane.shard)?;
        let not_before = discover::not_before(&checkpoints, &shard.deployment)?;
        let ownerships = Ownerships::new(context, &servers.source, &shard.name, &checkpoints).await?;
        let origin = Origin { deployment: shard.deployment.clone(), not_before, ownerships };
        lane::run(context, &servers, flow, &claim, &spec, &prepared, origin).await
    };
    match work.await {
        Ok(LaneEnd::Complete) => {
            if context.stop.unless(claim.outlived()).await.is_none() {
                claim.let_go(WorkStatus::Yielded, |_| {}).await?;
                return Ok(Copied::Stopped);
            }
            claim.done(|_| {}).await?;
            flow.limits.lane_is_done(&planned.lane);
            Ok(Copied::Done)
        }
        Ok(LaneEnd::Stopped) => {
            claim.let_go(WorkStatus::Yielded, |_| {}).await?;
            Ok(Copied::Stopped)
        }
        Err(error) => {
            driver::let_go_failed(&claim, &error).await;
            Err(error)
        }
    }
}

/// Writes the step's result when all lanes are done; when only this run's are, says so.
async fn finish(context: &Context, plan: &PlanHead) -> Result<Outcome> {
    let mut counts = Counts::default();
    for planned in &plan.lanes {
        let lane: Option<Work<LaneProgress>> =
            context.documents.read(&keys::lane(&planned.lane)).await?.map(|stored| stored.value);
        match lane {
            Some(lane) if lane.status == WorkStatus::Done => counts += lane.progress.counts(),
            _ => {
                let summary = format!("this run's lanes are done, lane {} is not", planned.lane);
                return Ok(Outcome::Done { step: Step::Copy, summary });
            }
        }
    }
    let orphans = if counts.orphans == 0 { String::new() } else { format!(", {} orphans left out", counts.orphans) };
    let summary = format!(
        "{} documents read, {} written, {} replaced, {} rejected{orphans}",
        counts.read, counts.written, counts.replaced, counts.rejected
    );
    let progress = StepProgress { summary, counts: Some(counts), ..StepProgress::new(Step::Copy) };
    driver::finish_parts(context, progress).await
}
