//! plan: cuts the catalog into partitions and lanes.
//!
//! - Reads: the catalog.
//! - Writes: the plan's pages, named by its hash, and its head; what each worker of a state machine is to do.
//! - Resumes by: doing it again; the plan of a catalog is always the same, and the head that is there stays.

use crate::context::{Context, Servers};
use crate::driver::{self, Finished, Outcome};
use crate::error::Result;
use crate::model::plan;
use crate::model::step::Step;
use crate::state::{items, pages};

/// Runs the step.
///
/// # Errors
/// Those of the state store.
pub async fn run(context: &Context, servers: &Servers) -> Result<Outcome> {
    driver::run_whole(context, Step::Plan, async |_claim| {
        let (_, binding) = servers.bound()?;
        let catalog = pages::read_catalog(&context.documents).await?;
        let shards: Vec<&str> = servers.source.shards.iter().map(|shard| shard.name.as_str()).collect();
        let plan = plan::plan(&catalog, &shards, &binding.selection.renames, context.settings.lanes_per_shard);
        let head = pages::write_plan(&context.documents, &plan).await?;
        items::write(&context.documents, &head, &catalog).await?;
        let partitions: u32 = head.lanes.iter().map(|lane| lane.partitions).sum();
        let summary = format!("{partitions} partitions in {} lanes", head.lanes.len());
        Ok(Finished { summary, ..Finished::default() })
    })
    .await
}
