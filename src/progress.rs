//! Showing how far the copy is while it runs: a bar on a terminal, a line now and then elsewhere. Read from the state,
//! as `status` does, so that it is right for all lanes, wherever they are copied.

use crate::context::Context;
use crate::model::lane::LaneProgress;
use crate::model::work::Work;
use crate::output;
use crate::state::pages::{CatalogHead, PlanHead};
use crate::state::{document::Documents, keys};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use std::time::Duration;
use tokio::task::AbortHandle;

/// How often the bar is brought up to date.
const BAR_INTERVAL: Duration = Duration::from_millis(500);

/// How often a line is written where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// What shows progress until it is dropped.
pub struct Shown {
    task: Option<AbortHandle>,
    bar: Option<ProgressBar>,
}

impl Drop for Shown {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Shows progress from now on.
pub fn show(context: &Context) -> Shown {
    if context.settings.quiet {
        return Shown { task: None, bar: None };
    }
    let bar = output::progress_is_shown().then(|| output::progress_bars().add(new_bar()));
    let documents = context.documents.clone();
    let shown = bar.clone();
    let task = tokio::spawn(async move {
        let mut before = 0;
        loop {
            tokio::time::sleep(if shown.is_some() { BAR_INTERVAL } else { LINE_INTERVAL }).await;
            // Whatever keeps the state from being read is reported by the step that needs it.
            let Ok(Some((written, written_bytes, total))) = read(&documents).await else { continue };
            match &shown {
                Some(bar) => {
                    bar.set_length(total.max(written));
                    bar.set_position(written);
                    bar.set_message(HumanBytes(written_bytes).to_string());
                }
                None if written != before => {
                    tracing::info!(
                        "{written} of about {} documents copied, {}",
                        total.max(written),
                        HumanBytes(written_bytes)
                    );
                }
                None => {}
            }
            before = written;
        }
    });
    Shown { task: Some(task.abort_handle()), bar }
}

fn new_bar() -> ProgressBar {
    let style = ProgressStyle::with_template(
        "{bar:30} {percent:>3}% {human_pos}/{human_len} documents, {msg}, {per_sec}, ETA {eta}",
    );
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

async fn read(documents: &Documents) -> crate::error::Result<Option<(u64, u64, u64)>> {
    let Some(head) = documents.read::<CatalogHead>(keys::CATALOG).await? else { return Ok(None) };
    let Some(plan) = documents.read::<PlanHead>(keys::PLAN).await? else { return Ok(None) };
    let (mut written, mut bytes) = (0, 0);
    for planned in &plan.value.lanes {
        if let Some(lane) = documents.read::<Work<LaneProgress>>(&keys::lane(&planned.lane)).await? {
            let counts = lane.value.progress.counts();
            written += counts.written;
            bytes += counts.written_bytes;
        }
    }
    Ok(Some((written, bytes, head.value.documents)))
}
