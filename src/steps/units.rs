//! Steps whose work is one share a collection: each share is claimed by itself, so that any number of workers can do
//! them side by side, and one collection can be named by hand.

use crate::claim::{self, Claim, Claiming, DoneIs};
use crate::clock;
use crate::context::Context;
use crate::driver::{self, Named, Outcome};
use crate::error::{Error, Result};
use crate::model::catalog::CatalogEntry;
use crate::model::comparison::Round;
use crate::model::finding::{Finding, Note};
use crate::model::lease::Lease;
use crate::model::namespace::Namespace;
use crate::model::step::Step;
use crate::model::work::{UnitProgress, Work, WorkStatus};
use crate::state::document::Created;
use crate::state::keys;
use futures_util::{StreamExt, TryStreamExt, stream};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

/// How often shares that other workers hold are looked at.
const WAIT_FOR_OTHERS: Duration = Duration::from_millis(500);

/// What the work on one collection found.
#[derive(Debug, Clone, Default)]
pub struct UnitResult {
    /// What a person must mend or accept.
    pub findings: Vec<Finding>,
    /// What a person should know.
    pub notes: Vec<Note>,
    /// verify: the round that it was found in.
    pub round: Option<Round>,
    /// index: the indexes that the target refused, by name.
    pub refused: Vec<String>,
}

impl UnitResult {
    fn save(&self, progress: &mut UnitProgress) {
        progress.findings.clone_from(&self.findings);
        progress.notes.clone_from(&self.notes);
        progress.round.clone_from(&self.round);
        progress.refused.clone_from(&self.refused);
        progress.comparison = None;
        progress.building = None;
    }
}

/// Which shares have nothing left to do.
pub struct Finished<'a> {
    /// Whether those with findings are among them.
    pub with_findings: bool,
    /// Whether the result of a finished share is the one that is wanted.
    pub is_current: &'a dyn Fn(&UnitProgress) -> bool,
}

impl Finished<'_> {
    /// Those that are done and have no findings.
    pub const WITHOUT_FINDINGS: Finished<'static> = Finished { with_findings: false, is_current: &|_| true };
}

/// All shares of a step, done.
#[derive(Debug, Clone, Default)]
pub struct AllUnits {
    /// Their findings.
    pub findings: Vec<Finding>,
    /// How many of them this run has worked on.
    pub worked: usize,
}

/// What came of working on the shares.
pub enum Worked {
    /// All that were asked for are done.
    Done(AllUnits),
    /// The run was told to stop.
    Stopped,
}

/// Does the shares of `entries` that nobody has begun, each with one write, its result: nobody claims what changes
/// nothing and comes out the same whoever does it. What was begun, by anybody, is left to [`work`]. Ends early when told to
/// stop. Gives how many it did.
///
/// # Errors
/// The first one of any share.
pub async fn look(
    context: &Context,
    step: Step,
    entries: &[CatalogEntry],
    parallel: usize,
    body: impl AsyncFn(&CatalogEntry) -> Result<UnitResult>,
) -> Result<usize> {
    let begun: HashSet<String> = context.documents.list(&keys::units(step)).await?.into_iter().collect();
    let new = entries.iter().filter(|entry| !begun.contains(&keys::unit(step, entry.ordinal)));
    let shares = stream::iter(new.map(|entry| look_at_one(context, step, entry, &body))).buffer_unordered(parallel);
    let done = shares.try_filter(|done| std::future::ready(*done));
    done.try_fold(0, async |count, _| Ok(count + 1)).await
}

async fn look_at_one(
    context: &Context,
    step: Step,
    entry: &CatalogEntry,
    body: &impl AsyncFn(&CatalogEntry) -> Result<UnitResult>,
) -> Result<bool> {
    let started = clock::wall();
    let Some(result) = context.stop.unless(body(entry)).await.transpose()? else { return Ok(false) };
    let status = if result.findings.is_empty() { WorkStatus::Done } else { WorkStatus::Findings };
    let mut progress = UnitProgress::new(step, entry.namespace.clone());
    result.save(&mut progress);
    let now = clock::wall();
    let work = Work {
        lease: Lease::free(),
        status,
        started,
        claimed: None,
        saved: now.clone(),
        finished: Some(now),
        progress,
    };
    let created = context.documents.create(&keys::unit(step, entry.ordinal), &work).await?;
    Ok(matches!(created, Created::Mine(_)))
}

/// Works on the shares of `entries`: those that are free at once, `parallel` at a time, then those that other workers
/// let go of. Those that are finished are passed over.
///
/// # Errors
/// The first one of any share.
pub async fn work(
    context: &Context,
    step: Step,
    entries: &[CatalogEntry],
    finished: &Finished<'_>,
    parallel: usize,
    body: impl AsyncFn(&CatalogEntry, &Arc<Claim<UnitProgress>>) -> Result<UnitResult>,
) -> Result<Worked> {
    let mut all = AllUnits::default();
    let mut waiting: Vec<&CatalogEntry> = entries.iter().collect();
    loop {
        let mut held = Vec::new();
        let mut is_stopped = false;
        let mut shares = stream::iter(waiting.into_iter().map(|entry| work_one(context, step, entry, finished, &body)))
            .buffer_unordered(parallel);
        while let Some(share) = shares.next().await {
            match share? {
                Share::Finished(found) => all.findings.extend(found),
                Share::Worked(found) => {
                    all.findings.extend(found);
                    all.worked += 1;
                }
                Share::Held(entry) => held.push(entry),
                // The others hear of it as well, and let go of their shares.
                Share::Stopped => is_stopped = true,
            }
        }
        drop(shares);
        if is_stopped {
            return Ok(Worked::Stopped);
        }
        if held.is_empty() {
            return Ok(Worked::Done(all));
        }
        waiting = held;
        if context.stop.unless(tokio::time::sleep(WAIT_FOR_OTHERS)).await.is_none() {
            return Ok(Worked::Stopped);
        }
    }
}

enum Share<'a> {
    Finished(Vec<Finding>),
    Worked(Vec<Finding>),
    Held(&'a CatalogEntry),
    Stopped,
}

async fn work_one<'a>(
    context: &Context,
    step: Step,
    entry: &'a CatalogEntry,
    finished: &Finished<'_>,
    body: &impl AsyncFn(&CatalogEntry, &Arc<Claim<UnitProgress>>) -> Result<UnitResult>,
) -> Result<Share<'a>> {
    if context.stop.is_requested() {
        return Ok(Share::Stopped);
    }
    let key = keys::unit(step, entry.ordinal);
    let claim = async |done| {
        let initial = UnitProgress::new(step, entry.namespace.clone());
        claim::claim(&context.documents, &key, initial, &context.claimant(), done, &context.stop).await
    };
    let is_final = if finished.with_findings { DoneIs::FinalWithFindings } else { DoneIs::Final };
    let mut claimed = claim(is_final).await?;
    if let Claiming::Done(work) = &claimed
        && !(finished.is_current)(&work.progress)
    {
        claimed = claim(DoneIs::Repeatable).await?;
    }
    let claim = match claimed {
        Claiming::Mine(claim) => claim,
        Claiming::Done(work) => return Ok(Share::Finished(work.progress.findings)),
        Claiming::Busy(_) => return Ok(Share::Held(entry)),
        Claiming::Stopped => return Ok(Share::Stopped),
    };
    driver::claimed(context, &key, &claim).await;
    let work = async {
        let result = body(entry, &claim).await?;
        claim.outlived().await;
        Ok(result)
    };
    let Some(result) = driver::settle(context, &claim, work).await? else { return Ok(Share::Stopped) };
    let findings = result.findings.clone();
    let save = |progress: &mut UnitProgress| result.save(progress);
    // With findings it is not done: the next run does it again, and may find them mended.
    if findings.is_empty() {
        claim.done(save).await?
    } else {
        claim.let_go(WorkStatus::Findings, save).await?
    }
    Ok(Share::Worked(findings))
}

/// The entries that `--namespace` names, all of them without it.
///
/// # Errors
/// Bad input when it names nothing that is copied.
pub fn wanted(context: &Context, entries: Vec<CatalogEntry>) -> Result<Vec<CatalogEntry>> {
    let Some(named) = &context.settings.namespace else { return Ok(entries) };
    let found: Vec<CatalogEntry> = entries.into_iter().filter(|entry| entry.namespace == *named).collect();
    if found.is_empty() {
        return Err(not_copied(context, named));
    }
    Ok(found)
}

fn not_copied(context: &Context, namespace: &Namespace) -> Error {
    Error::bad_input(format!(
        "--namespace {namespace} is not copied by job `{}`; give a collection of the source that it copies",
        context.settings.job
    ))
}

/// Stops at findings unless they are accepted.
///
/// # Errors
/// Findings, naming the first.
pub fn accepted(context: &Context, step: Step, findings: &[Finding]) -> Result<()> {
    match findings.first() {
        Some(first) if !context.settings.accept_findings => Err(Error::findings(format!(
            "{step} has {} findings, the first: {} {}; see `mongoferry status --job {}`, mend them and run it again, or say --accept-findings",
            findings.len(),
            first.namespace,
            first.text,
            context.settings.job
        ))),
        _ => Ok(()),
    }
}

/// The outcome of a run that did one named collection and leaves others. None when it is not named, and when somebody is
/// to hear of its findings: a state machine's worker only leaves them to whoever settles all of them, so that the others
/// go on.
pub fn partly(context: &Context, step: Step, findings: &[Finding], named: Named) -> Option<Outcome> {
    let namespace = context.settings.namespace.as_ref()?;
    let summary = match findings.len() {
        0 => format!("{namespace} is done"),
        _ if named != Named::ByMachine && !context.settings.accept_findings => return None,
        count => format!("{namespace} is done, {count} findings"),
    };
    Some(Outcome::Done { step, summary })
}
