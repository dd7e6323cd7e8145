//! Running steps: load, claim, work, save, until done, out of time, or stopped by an error.
//!
//! All steps look alike from here: each is a function of the context and the two deployments. What the chain `all` adds
//! is nothing but the order, so single commands in as many processes do exactly the same.

use crate::claim::{self, Claim, Claiming, DoneIs};
use crate::context::Context;
use crate::dry_run;
use crate::error::{Error, Kind, Result};
use crate::model::finding::{Finding, Note};
use crate::model::step::Step;
use crate::model::work::{Progress, StepProgress, Work, WorkStatus};
use crate::state::document::{Created, Replaced};
use crate::state::keys;
use crate::steps;
use serde_json::json;
use std::sync::Arc;

/// How a step ended, when not by an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is done.
    Done {
        /// The last step that was run.
        step: Step,
        /// Its result in a sentence.
        summary: String,
    },
    /// It stopped before it was done; run the same command again.
    Yield {
        /// The step that it stopped in.
        step: Step,
        /// Why it stopped.
        reason: String,
    },
}

/// What the body of a step has found, once it is done.
#[derive(Debug, Clone, Default)]
pub struct Finished {
    /// In a sentence.
    pub summary: String,
    /// What a person must mend or accept.
    pub findings: Vec<Finding>,
    /// What a person should know.
    pub notes: Vec<Note>,
}

/// Runs all steps in order.
///
/// # Errors
/// Those of the first step that fails.
pub async fn run_all(context: &Context) -> Result<Outcome> {
    if context.settings.dry_run {
        return dry_run::run(context).await;
    }
    let mut last = None;
    for step in Step::ALL {
        match run_step(context, step, Named::InChain).await? {
            done @ Outcome::Done { .. } => last = Some(done),
            stopped @ Outcome::Yield { .. } => return Ok(stopped),
        }
    }
    last.ok_or_else(|| Error::internal("there are no steps"))
}

/// Who runs a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    /// `step verify`.
    ByHand,
    /// `step all`.
    InChain,
    /// By a state machine: a lane or a collection for each of its workers, and then the step as a whole, which settles
    /// what they have found.
    ByMachine,
}

/// Runs one step.
///
/// # Errors
/// Bad input when the step before it is not done, else the step's own.
pub async fn run_step(context: &Context, step: Step, named: Named) -> Result<Outcome> {
    context.job().await?;
    // A worker of a machine that goes on from the beginning: thousands of them, and nothing to connect for.
    if named == Named::ByMachine
        && let Some(done) = step_work(context, step).await?.filter(|work| work.status == WorkStatus::Done)
    {
        return Ok(Outcome::Done { step, summary: done.progress.summary });
    }
    if let Some(before) = first_not_done(context, step).await? {
        return Err(Error::bad_input(format!(
            "step {step} cannot run before step {before} is done; run `mongoferry step {before} --job {}`",
            context.settings.job
        )));
    }
    if context.stop.is_requested() {
        return Ok(yielded(context, step));
    }
    let Some(servers) = context.stop.unless(context.connect(step)).await else { return Ok(yielded(context, step)) };
    let servers = servers?;
    let work = async {
        match step {
            Step::Discover => steps::discover::run(context, &servers, named).await,
            Step::Plan => steps::plan::run(context, &servers).await,
            Step::Prepare if context.settings.dry_run => steps::prepare::rehearsal::run(context, &servers).await,
            Step::Prepare => steps::prepare::run(context, &servers).await,
            Step::Copy => steps::copy::run(context, &servers, named).await,
            Step::Index => steps::index::run(context, &servers, named).await,
            Step::Verify => steps::verify::run(context, &servers, named).await,
            Step::Commit => steps::commit::run(context, &servers).await,
        }
    };
    let outcome = match step {
        Step::Copy | Step::Index | Step::Verify => steps::oplog_window::beside(context, &servers.source, work).await,
        _ => work.await,
    };
    match &outcome {
        Ok(Outcome::Done { summary, .. }) => tracing::info!("{step}: {summary}"),
        Ok(Outcome::Yield { reason, .. }) => {
            context.journal.record("yield", json!({ "step": step, "reason": reason }));
        }
        Err(error) => context
            .journal
            .record("error", json!({ "step": step, "kind": error.kind().name(), "message": error.to_string() })),
    }
    // Errors that show before anything was claimed or changed are the caller's to read, not worth an object in the
    // store; nor is a run that found everything done.
    let worth_keeping = !matches!(&outcome, Err(error) if error.kind() == Kind::BadInput);
    if worth_keeping {
        context.journal.flush().await;
    }
    outcome
}

/// The first of the steps before this one that is not done. None is done before the one before it is.
async fn first_not_done(context: &Context, step: Step) -> Result<Option<Step>> {
    match step.predecessor() {
        Some(before) if !is_done(context, before).await? => {}
        _ => return Ok(None),
    }
    for before in Step::ALL.into_iter().take_while(|before| *before != step) {
        if !is_done(context, before).await? {
            return Ok(Some(before));
        }
    }
    Ok(None)
}

/// Whether a step is done.
///
/// # Errors
/// Those of the state store.
pub async fn is_done(context: &Context, step: Step) -> Result<bool> {
    Ok(step_work(context, step).await?.is_some_and(|work| work.status == WorkStatus::Done))
}

/// A step's document.
///
/// # Errors
/// Those of the state store.
pub async fn step_work(context: &Context, step: Step) -> Result<Option<Work<StepProgress>>> {
    Ok(context.documents.read(&keys::step(step)).await?.map(|stored| stored.value))
}

/// The outcome of a run that was told to stop.
pub fn yielded(context: &Context, step: Step) -> Outcome {
    let reason = context.stop.reason().map_or("stopped", crate::stop::Reason::text);
    Outcome::Yield { step, reason: reason.to_owned() }
}

/// Claims a piece of work; another worker's is an error.
///
/// # Errors
/// Busy when another worker is at it, else as [`claim::claim`].
pub async fn claim<P: Progress>(context: &Context, key: &str, initial: P, done: DoneIs) -> Result<Claiming<P>> {
    match claim::claim(&context.documents, key, initial, &context.claimant(), done, &context.stop).await? {
        Claiming::Busy(holder) => Err(busy(context, key, &holder)),
        Claiming::Mine(claim) => {
            claimed(context, key, &claim).await;
            Ok(Claiming::Mine(claim))
        }
        other => Ok(other),
    }
}

/// Writes down in the journal that a piece of work was claimed.
pub async fn claimed<P: Progress>(context: &Context, key: &str, claim: &Claim<P>) {
    let epoch = claim.work().await.lease.epoch;
    match claim.overtaken() {
        None => context.journal.record("claim", json!({ "work": key, "epoch": epoch })),
        Some(former) => {
            tracing::info!("{key} is taken over from run {}: {}", former.run, former.why);
            let facts = json!({ "work": key, "epoch": epoch, "from": former.run, "why": former.why });
            context.journal.record("takeover", facts);
        }
    }
}

/// What is said of work that another worker holds.
pub fn busy(context: &Context, key: &str, holder: &crate::model::lease::Holder) -> Error {
    let process = holder.process.as_ref().map_or(String::new(), |process| format!(", process {}", process.pid));
    Error::busy(format!(
        "{} is being worked on by run {} on {}{process}; wait for it, or say --takeover if it surely is gone",
        context.documents.name(key),
        holder.run,
        holder.host
    ))
}

/// Runs a step that is claimed as a whole: claim, body, save.
///
/// The body is dropped where it is when the run is told to stop or the claim is lost, which must be as harmless as a
/// crash there.
///
/// # Errors
/// The body's, and those of claiming and saving.
pub async fn run_whole(
    context: &Context,
    step: Step,
    body: impl AsyncFnOnce(&Arc<Claim<StepProgress>>) -> Result<Finished>,
) -> Result<Outcome> {
    let key = keys::step(step);
    let claim = match claim(context, &key, StepProgress::new(step), DoneIs::Final).await? {
        Claiming::Mine(claim) => claim,
        Claiming::Done(work) => return Ok(Outcome::Done { step, summary: work.progress.summary }),
        Claiming::Stopped | Claiming::Busy(_) => return Ok(yielded(context, step)),
    };
    context.journal.flush().await;
    let work = async {
        // A job that is abandoned is marked first, and its work closed then: look again, now that this is ours.
        context.job().await?;
        let finished = body(&claim).await?;
        claim.outlived().await;
        Ok(finished)
    };
    match settle(context, &claim, work).await? {
        None => Ok(yielded(context, step)),
        Some(finished) => {
            let Finished { summary, findings, notes } = finished;
            claim
                .done(|progress| {
                    progress.summary.clone_from(&summary);
                    progress.findings.clone_from(&findings);
                    progress.notes.clone_from(&notes);
                })
                .await?;
            Ok(Outcome::Done { step, summary })
        }
    }
}

/// Waits for claimed work to end. `None`: the run was told to stop, and the work was let go of. An error was written
/// into the work's document before it is returned.
///
/// # Errors
/// The work's own, and fenced when the claim was lost meanwhile.
pub async fn settle<P: Progress, T>(
    context: &Context,
    claim: &Arc<Claim<P>>,
    work: impl Future<Output = Result<T>>,
) -> Result<Option<T>> {
    let result = tokio::select! {
        biased;
        error = claim.lost() => Err(error),
        result = context.stop.unless(work) => result.transpose(),
    };
    match result {
        Ok(None) => {
            claim.let_go(WorkStatus::Yielded, |_| {}).await?;
            Ok(None)
        }
        Ok(some) => Ok(some),
        Err(error) => {
            let_go_failed(claim, &error).await;
            Err(error)
        }
    }
}

/// Lets go of work that ended with an error, which is written into its document. Best effort: the error itself is what
/// the caller hears of.
pub async fn let_go_failed<P: Progress>(claim: &Claim<P>, error: &Error) {
    let status = match error.kind() {
        Kind::Fenced => return,
        Kind::Findings => WorkStatus::Findings,
        kind => WorkStatus::Failed {
            kind: kind.name().to_owned(),
            message: crate::redact::redact(&error.to_string()).into_owned(),
        },
    };
    if let Err(unsaved) = claim.let_go(status, |_| {}).await {
        tracing::warn!("the failure was not written into the state: {unsaved}");
    }
}

/// Writes the result of a step whose parts are claimed, once all parts are done. Whoever finds them done may write it.
///
/// # Errors
/// Those of the state store.
pub async fn finish_parts(context: &Context, progress: StepProgress) -> Result<Outcome> {
    let step = progress.step;
    let key = keys::step(step);
    let summary = progress.summary.clone();
    let now = crate::clock::wall();
    let work = Work {
        lease: crate::model::lease::Lease::free(),
        status: WorkStatus::Done,
        started: now.clone(),
        claimed: None,
        saved: now.clone(),
        finished: Some(now),
        progress,
    };
    let mut found = match context.documents.create(&key, &work).await? {
        Created::Mine(_) => return Ok(Outcome::Done { step, summary }),
        Created::Existing(found) => found,
    };
    // A result is there already: of another worker that found the same, or of an earlier time (`step verify` by hand).
    for _ in 0..10 {
        let replacement = Work { started: found.value.started.clone(), ..work.clone() };
        if found.value.progress == replacement.progress {
            break;
        }
        match context.documents.replace(&key, &replacement, &found).await? {
            Replaced::Mine(_) => break,
            Replaced::Lost(Some(now)) => found = now,
            Replaced::Lost(None) => return Err(Error::state(format!("{} vanished", context.documents.name(&key)))),
        }
    }
    Ok(Outcome::Done { step, summary })
}
