//! Showing how far a job is while it runs: a bar on a terminal, a line now and then elsewhere, and what `--http` serves.
//!
//! All of them show the same looks at the state, as `status` does, so that they are right for all lanes, wherever those
//! are copied. What is added is the rate between the looks.

use crate::clock;
use crate::context::Context;
use crate::model::speed::{Pace, Rate};
use crate::model::step::Step;
use crate::output;
use crate::status::{Reader, Status, StepStatus, text};
use crate::tasks;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// How often the state is looked at while somebody looks at the bar or may ask for it.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How often it is looked at, and a line is written, where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// A store is left alone for this many times as long as the last look took: it is there for the work.
const REST: u32 = 10;

/// The longest rest: whoever looks at the progress should not take it for dead.
const LONGEST_REST: Duration = Duration::from_secs(15);

/// A look at a job.
#[derive(Debug)]
pub struct Look {
    /// The job, none before there is anything of it.
    pub status: Option<Status>,
    /// How fast it is copied now, by all workers: between the looks of the last seconds. None outside of copy.
    pub rate: Option<Rate>,
    /// How long the rest of the documents takes at that rate.
    pub eta: Option<Duration>,
    /// When it was taken.
    pub at: clock::Moment,
    /// The same by the wall clock, for people.
    pub wall: String,
}

/// The latest look; none before the first.
pub type Looks = watch::Receiver<Option<Arc<Look>>>;

/// What looks and shows until it is dropped.
pub struct Shown {
    tasks: Vec<AbortHandle>,
    bar: Option<ProgressBar>,
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Shows progress from now on. The looks are for whoever else wants to show it; `is_served` says that somebody does.
pub fn show(context: &Context, is_served: bool) -> (Shown, Looks) {
    let (sender, looks) = watch::channel(None);
    let is_bar = !context.settings.quiet && output::progress_is_shown();
    let mut shown = Shown { tasks: Vec::new(), bar: None };
    if context.settings.quiet && !is_served {
        return (shown, looks);
    }
    let interval = if is_bar || is_served { LOOK_INTERVAL } else { LINE_INTERVAL };
    shown.tasks.push(tasks::spawn(look(context.clone(), sender, interval)).abort_handle());
    if is_bar {
        let bar = output::progress_bars().add(ProgressBar::no_length());
        shown.bar = Some(bar.clone());
        shown.tasks.push(tasks::spawn(draw(looks.clone(), bar)).abort_handle());
    } else if !context.settings.quiet {
        shown.tasks.push(tasks::spawn(write_lines(looks.clone())).abort_handle());
    }
    (shown, looks)
}

async fn look(context: Context, looks: watch::Sender<Option<Arc<Look>>>, interval: Duration) {
    let name = context.settings.job.to_string();
    let mut reader = Reader::new(context.documents.clone());
    let mut pace = Pace::default();
    let first = clock::monotonic();
    loop {
        let began = clock::monotonic();
        // Whatever keeps the state from being read is reported by the step that needs it.
        if let Ok(status) = reader.status(&name).await {
            let at = clock::monotonic();
            if let Some(status) = &status {
                pace.add(at - first, status.moved());
            }
            let is_copying = status.as_ref().and_then(Status::step).is_some_and(|step| step.step == Step::Copy);
            let rate = pace.rate().filter(|_| is_copying);
            let eta = rate.and_then(|rate| rate.eta(status.as_ref()?.left()));
            looks.send_replace(Some(Arc::new(Look { status, rate, eta, at, wall: clock::wall() })));
        }
        tokio::time::sleep(interval.max((began.elapsed() * REST).min(LONGEST_REST))).await;
    }
}

/// Brings the bar up to date with every look.
async fn draw(mut looks: Looks, bar: ProgressBar) {
    let mut shown = None;
    while let Some((look, step)) = next(&mut looks).await {
        if shown != Some(step.step) {
            bar.set_style(style(step.step));
            bar.reset_elapsed();
            shown = Some(step.step);
        }
        bar.set_prefix(step.step.name());
        let Some(status) = &look.status else { continue };
        if step.step == Step::Copy {
            bar.set_length(status.moved().documents + status.left().documents);
            bar.set_position(status.moved().documents);
            bar.set_message(copied(status, &look));
        } else if let Some(part) = step.collections {
            bar.set_length(part.total as u64);
            bar.set_position(part.done as u64);
            bar.set_message(text::building(&status.builds));
        }
        bar.tick();
    }
}

/// The percentage is in the message, since that of the bar's documents differs from it.
fn style(step: Step) -> ProgressStyle {
    let template = match step {
        Step::Copy => "{prefix} {bar:20} {msg}",
        Step::Index | Step::Verify => "{prefix} {bar:20} {pos} of {len} collections, {elapsed} {msg}",
        Step::Discover | Step::Plan | Step::Prepare | Step::Commit => "{prefix} {spinner} {elapsed}",
    };
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// Writes a line now and then, as long as something moves.
async fn write_lines(mut looks: Looks) {
    let mut before = None;
    let mut written = clock::monotonic();
    while let Some((look, step)) = next(&mut looks).await {
        let Some(status) = &look.status else { continue };
        let building = text::building(&status.builds);
        let now = (step.step, status.moved(), step.collections, building.clone());
        if before.is_none() {
            before = Some(now.clone());
        }
        // Looks may come a little early, and more often than lines.
        if before.as_ref() == Some(&now) || written.elapsed() < LINE_INTERVAL - LOOK_INTERVAL / 2 {
            continue;
        }
        match step.collections {
            Some(_) if step.step == Step::Copy => tracing::info!("copy: {}", copied(status, &look)),
            Some(part) if building.is_empty() => {
                tracing::info!("{}: {} of {} collections", step.step, part.done, part.total);
            }
            Some(part) => tracing::info!("{}: {} of {} collections, {building}", step.step, part.done, part.total),
            None => continue,
        }
        (before, written) = (Some(now), clock::monotonic());
    }
}

/// The next look, and the step that the job is in; none when there are no more.
async fn next(looks: &mut Looks) -> Option<(Arc<Look>, StepStatus)> {
    loop {
        looks.changed().await.ok()?;
        let look = looks.borrow_and_update().clone();
        if let Some(look) = look
            && let Some(step) = look.status.as_ref().and_then(Status::step).cloned()
        {
            return Some((look, step));
        }
    }
}

/// `43.1 %, 12340 of about 30000 documents, 1.20 GiB of about 2.90 GiB, 45.20 MB/s, 9120 documents/s, ETA 3m 12s`.
fn copied(status: &Status, look: &Look) -> String {
    let whole = status.moved() + status.left();
    let amounts = format!(
        "{:.1} %, {} of about {} documents, {} of about {}",
        status.percent.unwrap_or_default(),
        status.moved().documents,
        whole.documents,
        HumanBytes(status.moved().bytes),
        HumanBytes(whole.bytes),
    );
    match &look.rate {
        None => amounts,
        Some(rate) => format!("{amounts}, {}", text::pace(rate, look.eta)),
    }
}
