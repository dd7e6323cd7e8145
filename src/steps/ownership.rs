//! What shards own of a sharded collection, as discover recorded it, and whether that is still so.

use super::balancer;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::model::catalog::CatalogEntry;
use crate::model::chunk_map::ChunkMap;
use crate::mongo::cluster;
use crate::source::Source;
use crate::state::chunks;

/// How many changes an error names.
const NAMED: usize = 3;

/// Makes sure that no document has moved between shards since the chunk maps were recorded: what a shard gave away after
/// it was read, and before it was read on the other one, would be missing.
///
/// # Errors
/// Source unavailable, with what moved; bad input when the balancer is on.
pub async fn ensure_unmoved(context: &Context, source: &Source, entries: &[CatalogEntry]) -> Result<()> {
    if !source.is_cluster {
        return Ok(());
    }
    balancer::ensure_still(context, source).await?;
    let routing = cluster::routing(&source.main).await?;
    for entry in entries {
        let Some(sharding) = &entry.sharding else {
            if entry.kind.has_documents() && routing.sharded.contains_key(&entry.documents_in()) {
                return Err(moved(entry, "it was not sharded when the job began, and is now"));
            }
            continue;
        };
        let Some(now) = routing.sharded.get(&entry.documents_in()) else {
            // Dropped: what that means for its documents is verify's to say.
            continue;
        };
        if now.uuid != entry.uuid {
            continue;
        }
        let now = cluster::chunks(&source.main, &entry.documents_in(), now).await?;
        if now.fingerprint() != sharding.fingerprint {
            let before = chunks::read(&context.documents, entry, sharding).await?;
            return Err(moved(entry, &changes(&before, &now)));
        }
    }
    Ok(())
}

fn moved(entry: &CatalogEntry, what: &str) -> Error {
    Error::source(format!(
        "the chunks of {} are not those that the job began with: {what}; documents may have been missed, so abandon this job and begin another with the balancer off",
        entry.namespace
    ))
}

fn changes(before: &ChunkMap, now: &ChunkMap) -> String {
    if before.generation() != now.generation() || before.key() != now.key() {
        return "it was sharded anew".to_owned();
    }
    let mut all = before.changes(now);
    let mut text = all.by_ref().take(NAMED).collect::<Vec<_>>().join("; ");
    let more = all.count();
    if more > 0 {
        text.push_str(&format!("; and {more} more"));
    }
    text
}
