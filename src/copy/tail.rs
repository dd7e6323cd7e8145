//! Taking the tail of a lane that another worker holds. Decides which lane and how much of it; what makes it safe is in
//! [`crate::model::tail`].

use crate::context::Context;
use crate::error::{Error, Result};
use crate::model::tail::Tail;
use crate::model::work::WorkStatus;
use crate::state::document::Replaced;
use crate::state::keys;
use crate::state::lanes::Lane;
use crate::state::pages::{self, PlanHead};
use serde_json::json;

/// Makes a lane that is being copied give a tail away, the one of these that has most partitions left. The tail is
/// whose who claims it. `None` when none has anything to give, or one changed meanwhile.
///
/// # Errors
/// Those of the state store.
pub async fn take(context: &Context, plan: &PlanHead, lanes: &[Lane]) -> Result<Option<Tail>> {
    let held = lanes.iter().filter_map(|lane| lane.stored.as_ref()).filter(|stored| {
        // A lane that nobody holds is claimed, not divided.
        stored.value.status == WorkStatus::Running && stored.value.lease.holder.is_some()
    });
    let Some(stored) = held.max_by_key(|stored| stored.value.progress.not_begun().len()) else { return Ok(None) };
    let progress = &stored.value.progress;
    if progress.not_begun().len() < 2 {
        return Ok(None);
    }
    let not_begun = pages::read_partitions(&context.documents, plan, &progress.lane, progress.not_begun()).await?;
    let Some(from) = progress.tail_to_give(&not_begun) else { return Ok(None) };
    // Whatever else its document says is its holder's to change.
    let mut work = stored.value.clone();
    work.progress.give(from);
    let key = keys::lane(&progress.lane);
    stored.value.may_become(&work).map_err(|broken| Error::internal(format!("{key}: {}", broken.0)))?;
    match context.documents.replace(&key, &work, stored).await? {
        Replaced::Lost(_) => Ok(None),
        Replaced::Mine(_) => {
            let Some(tail) = work.progress.tails().last() else { return Ok(None) };
            let partitions = tail.partitions - from.0;
            tracing::info!(
                "lane {} gives {partitions} partitions that were not begun to lane {}",
                progress.lane,
                tail.lane
            );
            let facts =
                json!({ "lane": tail.lane.to_string(), "of": progress.lane.to_string(), "partitions": partitions });
            context.journal.record("tail", facts);
            Ok(Some(tail))
        }
    }
}
