//! copy: every lane claims its document, copies its partitions, and saves as it goes.
//!
//! - Reads: the plan, what prepare has made, the source's documents.
//! - Writes: documents on the target; the lane (lease and cursors in one document) and its proofs; once all lanes are
//!   done, the step's result.
//! - Resumes by: the cursors, each after the last key whose batch, and every one before it, the target has acknowledged.
//!
//! Works on all lanes that are free, side by side, then on tails of what other workers hold, then waits for those; with
//! `--lane` a lane that another worker holds is an error, and other lanes are only helped with.

use super::discover;
use crate::claim::{self, Claim, Claiming, DoneIs};
use crate::context::{Context, Servers};
use crate::copy::flow::Flow;
use crate::copy::lane::{self, LaneEnd};
use crate::copy::ownerships::{Origin, Ownerships};
use crate::copy::tail;
use crate::driver::{self, Named, Outcome};
use crate::error::{Error, Result};
use crate::limits::{self, Limits};
use crate::model::counts::Counts;
use crate::model::job::CheckpointMap;
use crate::model::lane::LaneProgress;
use crate::model::lease::Holder;
use crate::model::plan::LaneName;
use crate::model::step::Step;
use crate::model::tail::Tail;
use crate::model::tuning::Concurrency;
use crate::model::work::{StepProgress, Work, WorkStatus};
use crate::state::keys;
use crate::state::lanes::{self, Lane};
use crate::state::pages::{self, PlanHead, PlannedLane};
use crate::stop::Reason;
use futures_util::{StreamExt, TryStreamExt, stream};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tracing::Instrument;

/// How often a lane that another worker holds is looked at.
const WAIT_FOR_OTHERS: Duration = Duration::from_millis(500);

/// How many lanes one process copies at once.
const LANES_SIDE_BY_SIDE: usize = 64;

/// Runs the step.
///
/// # Errors
/// Bad input for a shard or lane that is not planned, busy for a named lane that another worker holds, else those of
/// copying.
pub async fn run(context: &Context, servers: &Servers, named: Named) -> Result<Outcome> {
    let plan = pages::read_plan(&context.documents).await?;
    let wanted = wanted(context, &plan)?;
    if let Some(done) = driver::step_work(context, Step::Copy).await? {
        return Ok(Outcome::Done { step: Step::Copy, summary: done.progress.summary });
    }
    let most = Concurrency { readers: context.settings.max_readers, writers: context.settings.max_writers };
    let limits = Limits::new(plan.lanes.iter().map(|planned| planned.lane.clone()));
    limits::begin(context, &limits).await?;
    let flow = Flow::new(context.settings.memory, most, limits);
    let copying = Copying { context, servers, flow: &flow, plan: &plan, named };
    let is_complete = tokio::select! {
        copied = copying.copy(&wanted) => copied?,
        never = flow.tune() => match never {},
        never = limits::keep_looking(context, &flow.limits) => match never {},
    };
    if is_complete { finish(context, &plan).await } else { Ok(driver::yielded(context, Step::Copy)) }
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

/// What came of a lane.
enum Copied {
    /// It is done, but for these tails that it gave away.
    Done(Vec<Tail>),
    /// The run was told to stop.
    Stopped,
    /// Another worker is at it.
    Busy(Tail, Holder),
}

/// What came of lanes that were copied side by side.
enum Round {
    /// Those are left that other workers hold, and the tails that were given away meanwhile.
    Left { held: Vec<Tail>, tails: Vec<Tail> },
    /// The run was told to stop.
    Stopped,
}

/// The step, as one run does it.
struct Copying<'a> {
    context: &'a Context,
    servers: &'a Servers,
    flow: &'a Flow,
    plan: &'a PlanHead,
    named: Named,
}

impl Copying<'_> {
    /// Copies these lanes with all their tails, or waits for who does; then helps with others of their shards that a
    /// named lane's run was not asked for. False when it was told to stop.
    async fn copy(&self, wanted: &[&PlannedLane]) -> Result<bool> {
        let mut left: Vec<Tail> = wanted.iter().map(|planned| planned.whole()).collect();
        let mut known: BTreeSet<LaneName> = left.iter().map(|tail| tail.lane.clone()).collect();
        while !left.is_empty() {
            let Round::Left { held, mut tails } = self.side_by_side(left).await? else { return Ok(false) };
            let lanes = self.read(held).await?;
            tails.extend(lanes.iter().filter_map(Lane::work).flat_map(|work| work.progress.tails()));
            tails.retain(|tail| known.insert(tail.lane.clone()));
            // Before it waits for others, it takes what they have not begun.
            if tails.is_empty() && !lanes.is_empty() {
                tails.extend(tail::take(self.context, self.plan, &lanes).await?);
                known.extend(tails.iter().map(|tail| tail.lane.clone()));
            }
            let is_idle = tails.is_empty();
            left = lanes.into_iter().map(|lane| lane.tail).chain(tails).collect();
            if is_idle && !left.is_empty() && self.is_stopped_within(WAIT_FOR_OTHERS).await {
                return Ok(false);
            }
        }
        let is_of_theirs = |planned: &&PlannedLane| {
            wanted.iter().any(|wanted| wanted.lane.shard == planned.lane.shard)
                && !wanted.iter().any(|wanted| wanted.lane == planned.lane)
        };
        let others: Vec<&PlannedLane> = self.plan.lanes.iter().filter(is_of_theirs).collect();
        while let Some(tail) = self.tail_of(&others).await? {
            if matches!(self.side_by_side(vec![tail]).await?, Round::Stopped) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn is_stopped_within(&self, time: Duration) -> bool {
        self.context.stop.unless(tokio::time::sleep(time)).await.is_none()
    }

    async fn read(&self, tails: Vec<Tail>) -> Result<Vec<Lane>> {
        let reads = tails.into_iter().map(|tail| lanes::read(&self.context.documents, tail));
        stream::iter(reads).buffered(LANES_SIDE_BY_SIDE).try_collect().await
    }

    /// A tail of one of these lanes to help with: one that nobody holds, else one that is taken now. A planned lane that
    /// nobody holds is left to the run that names it. A state machine waits for this run before it begins some of them, so
    /// that is to come first.
    async fn tail_of(&self, others: &[&PlannedLane]) -> Result<Option<Tail>> {
        let mut found = Vec::new();
        for planned in others {
            found.extend(lanes::read_all(&self.context.documents, planned).await?);
        }
        self.flow.limits.lanes_are_known(found.iter().map(|lane| lane.tail.lane.clone()));
        let is_to_come = |lane: &Lane| !lane.tail.lane.is_tail() && lane.work().is_none();
        if self.named == Named::ByMachine && found.iter().any(is_to_come) {
            return Ok(None);
        }
        let is_free = |lane: &&Lane| {
            let is_held = |work: &Work<LaneProgress>| work.lease.holder.is_some();
            lane.tail.lane.is_tail() && !lane.is_done() && !lane.work().is_some_and(is_held)
        };
        match found.iter().find(is_free) {
            Some(free) => Ok(Some(free.tail.clone())),
            None => tail::take(self.context, self.plan, &found).await,
        }
    }

    /// Copies lanes side by side, those that no other worker holds.
    async fn side_by_side(&self, lanes: Vec<Tail>) -> Result<Round> {
        let is_named = self.context.settings.lane.is_some();
        let (mut held, mut tails) = (Vec::new(), Vec::new());
        let mut is_stopped = false;
        let mut first_error = None;
        let copies = lanes.into_iter().map(|lane| self.copy_lane(lane));
        let mut lanes = stream::iter(copies).buffer_unordered(LANES_SIDE_BY_SIDE);
        while let Some(copied) = lanes.next().await {
            match copied {
                Ok(Copied::Done(given)) => tails.extend(given),
                Ok(Copied::Stopped) => is_stopped = true,
                Ok(Copied::Busy(lane, holder)) if is_named && !lane.lane.is_tail() => {
                    return Err(driver::busy(self.context, &keys::lane(&lane.lane), &holder));
                }
                Ok(Copied::Busy(lane, _)) => held.push(lane),
                // The others save what they have before this run ends.
                Err(error) => {
                    self.context.stop.request(Reason::AnotherFailed);
                    first_error.get_or_insert(error);
                }
            }
        }
        drop(lanes);
        match first_error {
            Some(error) => Err(error),
            None if is_stopped => Ok(Round::Stopped),
            None => Ok(Round::Left { held, tails }),
        }
    }

    async fn copy_lane(&self, tail: Tail) -> Result<Copied> {
        let Self { context, flow, plan, .. } = self;
        if context.stop.is_requested() {
            return Ok(Copied::Stopped);
        }
        let name = &tail.lane;
        let key = keys::lane(name);
        let initial = LaneProgress::new(name.clone(), plan.hash.clone(), tail.partitions);
        let claimed =
            claim::claim(&context.documents, &key, initial, &context.claimant(), DoneIs::Final, &context.stop).await?;
        flow.limits.lanes_are_known([name.clone()]);
        let claim = match claimed {
            Claiming::Mine(claim) => claim,
            Claiming::Done(work) => {
                flow.limits.lanes_are_known(work.progress.tails().map(|tail| tail.lane));
                flow.limits.lane_is_done(name);
                return Ok(Copied::Done(work.progress.tails().collect()));
            }
            Claiming::Busy(holder) => return Ok(Copied::Busy(tail, holder)),
            Claiming::Stopped => return Ok(Copied::Stopped),
        };
        driver::claimed(context, &key, &claim).await;
        context.journal.flush().await;
        let work = claim.work().await;
        let span =
            tracing::error_span!("lane", shard = name.shard, lane = name.within_shard(), epoch = work.lease.epoch.0);
        let copied = self.copy_claimed(name, &claim).instrument(span).await;
        context.tally.moved(&work.progress.counts(), &claim.work().await.progress.counts());
        match copied {
            Ok(LaneEnd::Complete) => {
                if context.stop.unless(claim.outlived()).await.is_none() {
                    claim.let_go(WorkStatus::Yielded, |_| {}).await?;
                    return Ok(Copied::Stopped);
                }
                claim.done(|_| {}).await?;
                flow.limits.lane_is_done(name);
                Ok(Copied::Done(claim.work().await.progress.tails().collect()))
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

    async fn copy_claimed(&self, name: &LaneName, claim: &Arc<Claim<LaneProgress>>) -> Result<LaneEnd> {
        let Self { context, servers, flow, plan, .. } = self;
        let work = claim.work().await;
        let comment = context.comment(Step::Copy, &format!("lane={name} epoch={}", work.lease.epoch));
        let servers = Servers {
            source: servers.source.commented(&comment),
            target: servers.target.commented(comment),
            job: servers.job.clone(),
        };
        let _held = flow.limits.hold();
        // An abandoned job's lanes are closed one by one: look again, now that this one is ours.
        context.job().await?;
        let partitions = pages::read_partitions(&context.documents, plan, name, work.progress.own()).await?;
        let prepared = pages::read_prepared(&context.documents).await?;
        let checkpoints: CheckpointMap = pages::expect(&context.documents, keys::CHECKPOINT).await?;
        let shard = servers.source.shard(&name.shard)?;
        let not_before = discover::not_before(&checkpoints, &shard.deployment)?;
        let ownerships = Ownerships::new(context, &servers.source, &shard.name, &checkpoints).await?;
        let origin = Origin { deployment: shard.deployment.clone(), not_before, ownerships };
        lane::run(context, &servers, flow, claim, &partitions, &prepared, origin).await
    }
}

/// Writes the step's result when all lanes are done; when only this run's are, says so.
async fn finish(context: &Context, plan: &PlanHead) -> Result<Outcome> {
    let mut counts = Counts::default();
    for planned in &plan.lanes {
        for lane in lanes::read_all(&context.documents, planned).await? {
            if !lane.is_done() {
                let summary = format!("this run's lanes are done, lane {} is not", lane.tail.lane);
                return Ok(Outcome::Done { step: Step::Copy, summary });
            }
            counts += lane.work().map_or_else(Counts::default, |work| work.progress.counts());
        }
    }
    let orphans = if counts.orphans == 0 { String::new() } else { format!(", {} orphans left out", counts.orphans) };
    let summary = match context.settings.dry_run {
        true => format!("{} documents ({} bytes) read{orphans}", counts.read, counts.read_bytes),
        false => format!(
            "{} documents read, {} written, {} replaced, {} rejected{orphans}",
            counts.read, counts.written, counts.replaced, counts.rejected
        ),
    };
    let progress = StepProgress { summary, counts: Some(counts), ..StepProgress::new(Step::Copy) };
    driver::finish_parts(context, progress).await
}
