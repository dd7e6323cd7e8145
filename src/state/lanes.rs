//! All lanes of a job: those of the plan, and the tails that they gave away, wherever those have got to.

use super::document::{Documents, Stored};
use super::keys;
use super::pages::PlannedLane;
use crate::error::Result;
use crate::model::lane::LaneProgress;
use crate::model::tail::Tail;
use crate::model::work::{Work, WorkStatus};

/// A lane as it is stored.
#[derive(Debug)]
pub struct Lane {
    /// Which one.
    pub tail: Tail,
    /// Its document, `None` when nobody has claimed it yet.
    pub stored: Option<Stored<Work<LaneProgress>>>,
}

impl Lane {
    /// Its document's content.
    pub fn work(&self) -> Option<&Work<LaneProgress>> {
        self.stored.as_ref().map(|stored| &stored.value)
    }

    /// Whether it is done. What it gave away is none of its own any more.
    pub fn is_done(&self) -> bool {
        self.work().is_some_and(|work| work.status == WorkStatus::Done)
    }
}

/// Reads a lane.
///
/// # Errors
/// Those of the state store.
pub async fn read(documents: &Documents, tail: Tail) -> Result<Lane> {
    let stored = documents.read(&keys::lane(&tail.lane)).await?;
    Ok(Lane { tail, stored })
}

/// A planned lane and all tails of it, by their first partitions. Where all of them are done, they are all that there
/// will ever be, since a lane that is done gives nothing.
///
/// # Errors
/// Those of the state store.
pub async fn read_all(documents: &Documents, planned: &PlannedLane) -> Result<Vec<Lane>> {
    let mut left = vec![planned.whole()];
    let mut lanes: Vec<Lane> = Vec::new();
    while let Some(tail) = left.pop() {
        let lane = read(documents, tail).await?;
        left.extend(lane.work().into_iter().flat_map(|work| work.progress.tails()));
        lanes.push(lane);
    }
    lanes.sort_by(|one, other| one.tail.lane.cmp(&other.tail.lane));
    Ok(lanes)
}
