//! How much is left of the time by which the source's oplogs reach back behind the checkpoint: when nothing is, a stream
//! can no longer begin there, and the copy is for nothing. Commit would refuse then; this warns while there is time to
//! enlarge the oplog, and stops a step at once when there is none.
//!
//! Where each oplog begins is noted in the state ([`keys::OPLOG_BEGINS`]), for `status`; nothing is decided by the note.

use crate::context::Context;
use crate::error::{Error, Result};
use crate::model::job::CheckpointMap;
use crate::model::oplog_window::{OplogBegins, Window};
use crate::model::room;
use crate::mongo::checkpoint;
use crate::source::Source;
use crate::state::keys;
use crate::stop::Reason;
use std::collections::BTreeSet;
use std::time::Duration;

/// How often is looked: so many save intervals, as what is noted is worth as much as a save, and at most a minute, since
/// an oplog that shrinks by hours in a minute is beyond help.
const SAVE_INTERVALS: u32 = 30;
const AT_LEAST_EVERY: Duration = Duration::from_secs(60);
const AT_MOST_EVERY: Duration = Duration::from_secs(1);

/// Does the work of a step while the oplogs reach back to the checkpoint. When one does no more, the work is told to stop.
///
/// # Errors
/// Source unavailable when an oplog no longer reaches back, else the work's.
pub async fn beside<T>(context: &Context, source: &Source, work: impl Future<Output = Result<T>>) -> Result<T> {
    let mut watch = Watch { context, source, warned: BTreeSet::new() };
    watch.look().await?;
    tokio::pin!(work);
    let lost = tokio::select! {
        biased;
        result = &mut work => return result,
        lost = watch.until_lost() => lost,
    };
    // What was done is saved, and leases are let go, as for any other reason to stop.
    context.stop.request(Reason::OplogLost);
    if let Err(error) = work.await {
        tracing::debug!("while it stopped: {error}");
    }
    Err(lost)
}

struct Watch<'a> {
    context: &'a Context,
    source: &'a Source,
    /// The sets of which it was said that little is left.
    warned: BTreeSet<String>,
}

impl Watch<'_> {
    async fn until_lost(&mut self) -> Error {
        let interval = (self.context.settings.save_interval * SAVE_INTERVALS).clamp(AT_MOST_EVERY, AT_LEAST_EVERY);
        loop {
            tokio::time::sleep(interval).await;
            if let Err(lost) = self.look().await {
                return lost;
            }
        }
    }

    /// Looks at each oplog. That one cannot be read is nothing that a copy stops at; commit looks again.
    async fn look(&mut self) -> Result<()> {
        let Self { context, source, warned } = self;
        let captured = match context.documents.read::<CheckpointMap>(keys::CHECKPOINT).await {
            Ok(Some(captured)) => captured.value,
            Ok(None) => return Ok(()),
            Err(error) => {
                tracing::debug!("the oplogs were not looked at: {error}");
                return Ok(());
            }
        };
        let mut found = OplogBegins::default();
        let mut lost = None;
        for deployment in &source.streams {
            let name = &deployment.identity.set_name;
            let begin = match checkpoint::oplog_begin(deployment).await {
                Ok(begin) => begin,
                Err(error) => {
                    tracing::debug!("the oplog of {name} was not looked at: {error}");
                    continue;
                }
            };
            let Some(window) = Window::of(&captured, name, begin) else { continue };
            found.begins.insert(name.clone(), begin);
            context.tally.saw_oplog(window.percent_left());
            match window.left {
                None => {
                    lost.get_or_insert_with(|| {
                        Error::source(format!(
                            "the oplog of {name} begins at {begin} by now, not before the checkpoint: a stream from there would miss what happened between, and going on is of no use; enlarge the oplog (replSetResizeOplog) and begin another --job"
                        ))
                    });
                }
                Some(left) if window.is_little(context.settings.min_oplog_window) && warned.insert(name.clone()) => {
                    tracing::warn!(
                        "the oplog of {name} begins at {begin}: {} are left of {} until it no longer reaches back to the checkpoint; enlarge it (replSetResizeOplog) before a stream can no longer begin there",
                        room::text(left),
                        room::text(window.at_checkpoint)
                    );
                }
                Some(_) => {}
            }
        }
        if !found.begins.is_empty()
            && let Err(error) = note(context, found).await
        {
            tracing::debug!("where the oplogs begin was not noted: {error}");
        }
        lost.map_or(Ok(()), Err)
    }
}

/// Writes down where the oplogs begin, unless that is known. Another worker that was faster has looked just now as well.
async fn note(context: &Context, found: OplogBegins) -> Result<()> {
    match context.documents.read::<OplogBegins>(keys::OPLOG_BEGINS).await? {
        None => context.documents.create(keys::OPLOG_BEGINS, &found).await.map(|_| ()),
        Some(noted) if noted.value == found => Ok(()),
        Some(noted) => context.documents.replace(keys::OPLOG_BEGINS, &found, &noted).await.map(|_| ()),
    }
}
