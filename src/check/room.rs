//! Whether there is room: on the target's disk, and in the source's oplogs ([`crate::model::room`]).

use crate::context::{Context, Servers};
use crate::error::Result;
use crate::model::catalog::CatalogEntry;
use crate::model::check::{Check, Row};
use crate::model::room::{self, Part, Reach};
use crate::mongo::deployment::Deployment;
use crate::mongo::{checkpoint, inspect};
use crate::source::Source;
use std::collections::BTreeMap;
use std::time::Duration;

/// Whether the target's disk holds what is copied.
///
/// # Errors
/// What does not answer.
pub async fn space(servers: &Servers, entries: &[CatalogEntry]) -> Result<Vec<Row>> {
    let Some(disk) = inspect::disk(&servers.target).await? else {
        let why = "the user may not ask for it (dbStats on admin)";
        return Ok(vec![Row::not_looked_at(Check::Space, "target", why)]);
    };
    // What is copied of each database of each server.
    let mut bytes: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    let whole = servers.source.shards.first().map_or("", |shard| shard.name.as_str());
    for entry in entries.iter().filter(|entry| entry.kind.is_copied()) {
        let database = entry.namespace.db();
        if entry.parts.is_empty() {
            *bytes.entry((whole, database)).or_default() += entry.bytes;
        }
        for part in &entry.parts {
            *bytes.entry((&part.shard, database)).or_default() += part.bytes;
        }
    }
    let mut parts = Vec::new();
    for ((shard, database), bytes) in bytes {
        let stored = inspect::stored(&servers.source.shard(shard)?.deployment, database).await?;
        parts.push(Part { bytes, stored });
    }
    let is_guessed = parts.iter().any(|part| part.stored.is_none());
    Ok(vec![room::space(room::needed(parts), is_guessed, disk)])
}

/// Whether the oplogs reach back to the beginning of the copy for as long as it takes.
///
/// # Errors
/// What does not answer; bad input where the right to read an oplog is missing.
pub async fn oplogs(context: &Context, source: &Source, entries: &[CatalogEntry]) -> Result<Vec<Row>> {
    let bytes = entries.iter().filter(|entry| entry.kind.is_copied()).map(|entry| entry.bytes).sum();
    let settings = &context.settings;
    let mut rows = Vec::new();
    for deployment in &source.streams {
        let about = match source.is_cluster {
            true => format!("shard {}", deployment.identity.set_name),
            false => "source".to_owned(),
        };
        let reach = reach(deployment).await?;
        rows.push(room::oplog_window(about, reach, bytes, settings.rate_limits.bytes, settings.min_oplog_window));
    }
    if rows.is_empty() {
        rows.push(Row::not_looked_at(Check::OplogWindow, "source", "no oplog is needed, or none can be reached"));
    }
    Ok(rows)
}

async fn reach(deployment: &Deployment) -> Result<Reach> {
    let begin = checkpoint::oplog_begin(deployment).await?;
    let newest = checkpoint::newest(deployment).await.map_err(|error| deployment.failed(&error))?;
    let time = Duration::from_secs(u64::from(newest.seconds.saturating_sub(begin.seconds)));
    Ok(Reach { time, sizes: inspect::oplog_sizes(deployment).await? })
}
