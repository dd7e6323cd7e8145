//! Taking the tail of a lane that another worker holds. Decides which lane and how much of it; what makes it safe is in
//! [`crate::model::tail`].

use crate::context::Context;
use crate::error::{Error, Result};
use crate::model::lane::LaneProgress;
use crate::model::tail::Tail;
use crate::model::work::{Work, WorkStatus};
use crate::state::document::Replaced;
use crate::state::keys;
use crate::state::lanes::Lane;
use crate::state::pages::{self, PlanHead};
use serde_json::json;
use std::ops::Range;

/// How often it is tried when the lane's holder was faster with a save, each time with what is left then.
const ATTEMPTS: usize = 20;

/// What could be given of a lane. One that nobody holds is claimed, not divided.
fn left(work: &Work<LaneProgress>) -> Range<u32> {
    let is_held = work.status == WorkStatus::Running && work.lease.holder.is_some();
    if is_held { work.progress.not_begun() } else { 0..0 }
}

/// Makes a lane that is being copied give a tail away, the one of these that has most partitions left. The tail is
/// whose who claims it. `None` when it has nothing to give.
///
/// # Errors
/// Those of the state store.
pub async fn take(context: &Context, plan: &PlanHead, lanes: &[Lane]) -> Result<Option<Tail>> {
    let documents = &context.documents;
    let most = lanes.iter().filter_map(|lane| lane.stored.as_ref()).max_by_key(|stored| left(&stored.value).len());
    let Some(mut stored) = most.cloned() else { return Ok(None) };
    let (lane, all) = (stored.value.progress.lane.clone(), left(&stored.value));
    if all.len() < 2 {
        return Ok(None);
    }
    let key = keys::lane(&lane);
    let partitions = pages::read_partitions(documents, plan, &lane, all).await?;
    for _ in 0..ATTEMPTS {
        let left = left(&stored.value);
        let not_begun: Vec<_> =
            partitions.iter().filter(|partition| left.contains(&partition.number.0)).cloned().collect();
        // Whatever else its document says is its holder's to change.
        let mut work = stored.value.clone();
        let Some(from) = work.progress.tail_to_give(&not_begun) else { return Ok(None) };
        work.progress.give(from);
        stored.value.may_become(&work).map_err(|broken| Error::internal(format!("{key}: {}", broken.0)))?;
        match documents.replace(&key, &work, &stored).await? {
            Replaced::Lost(Some(now)) => stored = now,
            Replaced::Lost(None) => return Ok(None),
            Replaced::Mine(_) => {
                let Some(tail) = work.progress.tails().last() else { return Ok(None) };
                let partitions = tail.partitions - from.0;
                tracing::info!("lane {lane} gives {partitions} partitions that were not begun to lane {}", tail.lane);
                let facts = json!({ "lane": tail.lane.to_string(), "of": lane.to_string(), "partitions": partitions });
                context.journal.record("tail", facts);
                return Ok(Some(tail));
            }
        }
    }
    Ok(None)
}
