//! Where each document of a job lies, relative to the job's prefix: named here and nowhere else.

use crate::model::catalog::Ordinal;
use crate::model::plan::LaneName;
use crate::model::reject::Cause;
use crate::model::step::Step;

/// The job: its id and what it is bound to.
pub const JOB: &str = "job.json";
/// The checkpoints of all sources (`ckptMap`).
pub const CHECKPOINT: &str = "checkpoint.json";
/// What the source's balancer was set to before the job stopped it.
pub const BALANCER: &str = "balancer.json";
/// The head of the catalog: which attempt's pages count.
pub const CATALOG: &str = "catalog.json";
/// The head of the plan: its hash and its lanes.
pub const PLAN: &str = "plan.json";

/// The settings of a job that a function works at, as `mongoferry start` has put them there: TOML.
pub const SETTINGS: &str = "settings.toml";

/// The last failure that no step's document has.
pub const FAILURE: &str = "failure.json";

/// Where it lies what each worker of a state machine is to do.
pub const ITEMS: &str = "items";

/// What each worker of a step is to do, for a state machine to read: a plain JSON array.
pub fn items(step: Step) -> String {
    format!("{ITEMS}/{step}.json")
}

/// Where the source's oplogs began when they were last looked at.
pub const OPLOG_BEGINS: &str = "oplog-begins.json";

/// What `control` has said: limits, paused or not.
pub const CONTROL: &str = "control.json";

/// A step: its lease and its result.
pub fn step(step: Step) -> String {
    format!("steps/{step}.json")
}

/// A page of the catalog (`nsSet` and index map) as one attempt of discover wrote it.
pub fn catalog_page(attempt: &str, page: u32) -> String {
    format!("catalog/{attempt}/{page:05}.json")
}

/// A page of what that attempt found and does not copy.
pub fn left_out_page(attempt: &str, page: u32) -> String {
    format!("catalog/{attempt}/left-out-{page:05}.json")
}

/// A page of a collection's chunks, as one attempt of discover wrote it.
pub fn chunk_page(attempt: &str, ordinal: Ordinal, page: u32) -> String {
    format!("chunks/{attempt}/{:06}-{page:05}.json", ordinal.0)
}

/// A page of the partitions of one planned lane, under the plan's hash; a tail's are among them.
pub fn plan_page(hash: &str, lane: &LaneName, page: u32) -> String {
    format!("plan/{hash}/{}-{}/{page:05}.json", safe(&lane.shard), lane.number)
}

/// What of a page of the catalog was on the target before prepare changed anything.
pub fn inventory_page(page: u32) -> String {
    format!("prepare/before-{page:05}.json")
}

/// What of a page of the catalog prepare has made.
pub fn prepared_page(page: u32) -> String {
    format!("prepare/after-{page:05}.json")
}

/// Where all lanes lie.
pub const LANES: &str = "lanes/";

/// A lane: its lease and its cursors.
pub fn lane(lane: &LaneName) -> String {
    format!("{LANES}{}/lane.json", folder(lane))
}

/// A segment of a lane's proofs.
pub fn proofs(lane: &LaneName, segment: u32) -> String {
    format!("{LANES}{}/proofs/{segment:05}.json", folder(lane))
}

/// Where the documents that are not on the target lie.
pub const REJECTED: &str = "rejected/";

/// Documents that a lane could not write, named by their cause and by the hash of what is in the object.
pub fn rejected(lane: &LaneName, cause: Cause, hash: &str) -> String {
    format!("{REJECTED}{}/{cause}-{hash}.json", folder(lane))
}

/// Whether a key below [`REJECTED`] is that of documents that were rejected for this cause.
pub fn is_rejected_for(cause: Cause, key: &str) -> bool {
    key.rsplit('/').next().is_some_and(|name| name.starts_with(&format!("{cause}-")))
}

/// Where it lies which of them are settled by now.
pub const REPAIRS: &str = "repairs/";

/// Documents that were rejected and are settled, named by the hash of which they are.
pub fn repair(hash: &str) -> String {
    format!("{REPAIRS}{hash}.json")
}

/// One collection's share of a step: its lease and its result.
pub fn unit(step: Step, ordinal: Ordinal) -> String {
    format!("{step}/{:06}.json", ordinal.0)
}

/// Where the shares of a step lie.
pub fn units(step: Step) -> String {
    format!("{step}/")
}

/// A part of a run's journal.
pub fn journal(run: &str, part: u32) -> String {
    format!("journal/{run}/{part:05}.jsonl")
}

/// What a lane's folders are called.
fn folder(lane: &LaneName) -> String {
    format!("{}-{}", safe(&lane.shard), lane.within_shard())
}

/// A shard's name as a key may hold it: a replica set may be called anything.
fn safe(name: &str) -> String {
    let is_safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !name.is_empty() && !name.starts_with('.') && name.chars().all(is_safe) {
        return name.to_owned();
    }
    let hex: String = name.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("x-{hex}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::plan::PartitionNumber;

    #[test]
    fn a_shard_of_any_name_has_a_safe_key() {
        let lane_of = |shard: &str| lane(&LaneName::planned(shard, 0));
        assert_eq!(lane_of("rs0"), "lanes/rs0-0/lane.json");
        assert_eq!(lane_of("../é"), "lanes/x-2e2e2fc3a9-0/lane.json");
        let tail = LaneName::planned("rs0", 3).tail(PartitionNumber(500));
        assert_eq!(proofs(&tail, 2), "lanes/rs0-3.500/proofs/00002.json");
    }
}
