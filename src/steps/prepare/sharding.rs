//! Sharding what prepare makes, on a target that is a sharded cluster: the key, the zones, the chunks and who gets which,
//! all before the first document. The target's balancer is left as it is: what it would move is spread already.

use super::present::{Image, Present};
use crate::claim::Claim;
use crate::context::{Context, Servers};
use crate::crash;
use crate::error::{Error, Result};
use crate::model::bson_order::compare_documents;
use crate::model::catalog::{CatalogEntry, Ordinal, Sharding};
use crate::model::choice::Existing;
use crate::model::chunk_layout::{ChunkLayout, Zoned};
use crate::model::chunk_map::ChunkMap;
use crate::model::expiry::hold_index;
use crate::model::index::{Wanted, is_implicit};
use crate::model::namespace::Namespace;
use crate::model::target_sharding::{TargetSharding, ZoneRange, supporting_index};
use crate::model::work::StepProgress;
use crate::mongo::catalog::from_state;
use crate::mongo::sharding::{self, Shards};
use crate::mongo::{index, shard_key_sample};
use crate::state::chunks;
use bson::RawDocumentBuf;
use std::collections::BTreeMap;
use tokio::sync::Mutex;

/// How large a chunk is to become where the source has none, in bytes: the server's own size from 6.0 on.
const CHUNK_BYTES: u64 = 128 << 20;

/// How many chunks of a key that begins hashed a shard gets at least, as with a server.
const HASHED_CHUNKS: usize = 2;

/// How the target's collections are to be sharded.
#[derive(Debug, Default)]
pub struct Decided {
    wanted: BTreeMap<Ordinal, TargetSharding>,
    shards: Shards,
    /// Held while chunks are cut and moved: a shard gives or takes one at a time.
    moving: Mutex<()>,
}

/// Decides how collections are sharded. Nothing is changed.
///
/// # Errors
/// Bad input for what was said and cannot be: without a sharded target, of nothing that is copied, nothing said at all, a
/// zone without shards.
pub async fn decide(context: &Context, servers: &Servers, entries: &[CatalogEntry]) -> Result<Decided> {
    let choices = &context.settings.sharding;
    if !servers.target.is_mongos() {
        if choices.is_empty() {
            return Ok(Decided::default());
        }
        return Err(Error::bad_input(format!(
            "[shard-keys], --keep-unsharded, --keep-sharding and --zones are for a target that is a sharded cluster, and {} is a replica set; leave them out, or give the connection string of a mongos",
            servers.target.identity
        )));
    }
    let copied: Vec<&CatalogEntry> = entries.iter().filter(|entry| entry.kind.has_documents()).collect();
    let names: Vec<Namespace> = copied.iter().map(|entry| entry.namespace.clone()).collect();
    if let Some(what) = choices.unmatched(&names) {
        return Err(Error::bad_input(format!(
            "{what} names nothing that is copied; write it as the source calls it, or leave it out"
        )));
    }
    let mut decided = Decided { shards: sharding::shards(&servers.target).await?, ..Decided::default() };
    for entry in copied {
        let wanted = choices.wanted(entry, servers.source.is_cluster).map_err(Error::bad_input)?;
        if let Some(wanted) = wanted {
            for ZoneRange { zone, .. } in zones(context, entry, &wanted) {
                if !decided.shards.zones.contains_key(zone) {
                    return Err(Error::bad_input(format!(
                        "--zones yes: {} has keys in the zone {zone}, and no shard of the target is in it; put one there with `sh.addShardToZone(SHARD, \"{zone}\")`, or leave out --zones",
                        entry.namespace
                    )));
                }
            }
            decided.wanted.insert(entry.ordinal, wanted);
        }
    }
    Ok(decided)
}

/// The source's sharding of a collection, where it is by the same key: then its chunks and zones say something of the
/// target's.
fn source_sharding<'a>(entry: &'a CatalogEntry, wanted: &TargetSharding) -> Option<&'a Sharding> {
    entry.sharding.as_ref().filter(|sharding| wanted.has_key(&sharding.key))
}

/// The source's zones of a collection, where they are copied.
fn zones<'a>(context: &Context, entry: &'a CatalogEntry, wanted: &TargetSharding) -> &'a [ZoneRange] {
    let sharding = source_sharding(entry, wanted).filter(|_| context.settings.sharding.zones);
    sharding.map_or(&[], |sharding| &sharding.zones)
}

/// How the target shards a collection now.
///
/// # Errors
/// As [`sharding::current`].
pub async fn current(servers: &Servers, entry: &CatalogEntry, name: &Namespace) -> Result<Option<TargetSharding>> {
    sharding::current(&servers.target, name, entry.options.get("collation").is_some()).await
}

impl Decided {
    /// How many collections are to be sharded.
    pub fn count(&self) -> usize {
        self.wanted.len()
    }

    /// Refuses what the target has in another way than it should be, where that is kept. Nothing is changed.
    ///
    /// # Errors
    /// Bad input, with both.
    pub async fn check(
        &self,
        context: &Context,
        servers: &Servers,
        all: &[Image<'_>],
        present: &Present,
    ) -> Result<()> {
        if !servers.target.is_mongos() {
            return Ok(());
        }
        let is_kept = context.settings.existing == Existing::Keep;
        for Image { entry, target: name, .. } in all.iter().filter(|wanted| wanted.entry.kind.has_documents()) {
            let namespace = &entry.namespace;
            let keeps = context.settings.sharding.keeps_sharding(namespace);
            if !(is_kept && present.contains_key(name)) {
                if keeps && !self.wanted.contains_key(&entry.ordinal) && !servers.source.is_cluster {
                    return Err(Error::bad_input(format!(
                        "--keep-sharding {namespace}: the target has no {name} whose sharding could be kept; name its key in [shard-keys] of the settings' file, or say --keep-unsharded {namespace}"
                    )));
                }
                continue;
            }
            let (wanted, now) = (self.wanted.get(&entry.ordinal), current(servers, entry, name).await?);
            let is_same = match (wanted, &now) {
                (None, None) => true,
                (Some(wanted), Some(now)) => wanted.is_same_as(now),
                _ => false,
            };
            if !is_same && !keeps {
                let text = |sharding: Option<&TargetSharding>| match sharding {
                    Some(sharding) => format!("sharded by {}", sharding.text()),
                    None => "not sharded".to_owned(),
                };
                return Err(Error::bad_input(format!(
                    "{name} is {} on the target and was to be {}; say --keep-sharding {namespace} to copy into it as it is, or rename or exclude it",
                    text(now.as_ref()),
                    text(wanted)
                )));
            }
        }
        Ok(())
    }

    /// Shards a collection that was just made, as was decided.
    ///
    /// # Errors
    /// What the cluster refuses; unavailable when it does not answer.
    pub async fn make(
        &self,
        context: &Context,
        servers: &Servers,
        claim: &Claim<StepProgress>,
        entry: &CatalogEntry,
        (name, uuid): (&Namespace, &str),
    ) -> Result<Option<TargetSharding>> {
        let Some(wanted) = self.wanted.get(&entry.ordinal) else { return Ok(None) };
        let target = &servers.target;
        let key = wanted.shard_key().map_err(Error::bad_input)?;
        claim.ensure_may_send().await?;
        crash::around("enable-sharding", sharding::enable(target, name.db())).await?;
        let zones = zones(context, entry, wanted);
        for range in zones {
            claim.ensure_may_send().await?;
            crash::around("zone", sharding::zone(target, name, range)).await?;
        }
        // Else the server makes one of its own, with another name than the source's.
        if let Some(index) = supporting_index(entry, wanted).filter(|index| !is_implicit(index)) {
            claim.ensure_may_send().await?;
            let spec = hold_index(&Wanted::of(index, &entry.options).spec, target.holding());
            let refused = index::build(target, name, uuid, &[spec]).await?;
            if let Some(refused) = refused.first() {
                let why =
                    format!("the index {} of {name}'s shard key cannot be built: {}", refused.name, refused.reason);
                return Err(Error::bad_input(why));
            }
        }
        let is_cut_by_server = key.begins_hashed() && zones.is_empty();
        match current(servers, entry, name).await? {
            Some(now) if now.is_same_as(wanted) => {}
            Some(now) => {
                return Err(Error::bad_input(format!(
                    "somebody else sharded {name} by {} on the target while this job prepared it, and it was to be by {}; drop it, or use another --job",
                    now.text(),
                    wanted.text()
                )));
            }
            None => {
                let most = context.settings.max_initial_chunks;
                let chunks = || self.chunk_count(entry, wanted).max(self.shards.names.len() * HASHED_CHUNKS).min(most);
                claim.ensure_may_send().await?;
                let sharded = sharding::shard(target, name, wanted, is_cut_by_server.then(chunks));
                crash::around("shard", sharded).await?;
            }
        }
        if !is_cut_by_server {
            let bounds = self.bounds(context, servers, entry, wanted).await?;
            self.spread(context, servers, claim, name, bounds, zones).await?;
        }
        Ok(Some(wanted.clone()))
    }

    /// How many chunks a collection is to have.
    fn chunk_count(&self, entry: &CatalogEntry, wanted: &TargetSharding) -> usize {
        let chunks = source_sharding(entry, wanted).map_or(entry.bytes / CHUNK_BYTES + 1, |sharding| sharding.chunks);
        usize::try_from(chunks).unwrap_or(usize::MAX)
    }

    /// Where its chunks are to begin: where the source's do, or where its documents say.
    async fn bounds(
        &self,
        context: &Context,
        servers: &Servers,
        entry: &CatalogEntry,
        wanted: &TargetSharding,
    ) -> Result<Vec<RawDocumentBuf>> {
        match source_sharding(entry, wanted) {
            Some(sharding) => {
                let map = chunks::read(&context.documents, entry, sharding).await?;
                Ok(map.chunks().skip(1).map(|chunk| chunk.min()).collect())
            }
            None => {
                let count = self.chunk_count(entry, wanted).min(context.settings.max_initial_chunks);
                let key = wanted.shard_key().map_err(Error::bad_input)?;
                shard_key_sample::bounds(servers.source.home(entry)?, &entry.documents_in(), &key, count).await
            }
        }
    }

    /// Cuts the chunks and gives each shard its own, of which none has a document yet.
    async fn spread(
        &self,
        context: &Context,
        servers: &Servers,
        claim: &Claim<StepProgress>,
        name: &Namespace,
        bounds: Vec<RawDocumentBuf>,
        zones: &[ZoneRange],
    ) -> Result<()> {
        let target = &servers.target;
        let _moving = self.moving.lock().await;
        let now = sharding::chunks(target, name).await?;
        let zoned = zones.iter().map(|range| self.zoned(range)).collect::<Result<Vec<_>>>()?;
        // Beginning with the shard that has the first chunk: one move less, and the same again after a crash.
        let mut shards = self.shards.names.clone();
        let first = now.chunks().next().and_then(|chunk| shards.iter().position(|shard| shard == chunk.shard));
        shards.rotate_left(first.unwrap_or(0));
        let layout = ChunkLayout::new(bounds, context.settings.max_initial_chunks, &shards, &zoned);

        // First the pieces that lie on one shard, since a piece that is moved before it is cut is one move.
        cut(servers, claim, name, &now, layout.turns()).await?;
        let now = sharding::chunks(target, name).await?;
        for chunk in now.chunks() {
            let to = layout.owner(&chunk.min());
            if chunk.shard != to {
                claim.ensure_may_send().await?;
                let (min, max) = (chunk.min(), chunk.max());
                crash::around("move-chunk", sharding::move_chunk(target, name, (&min, &max), to)).await?;
            }
        }
        let now = sharding::chunks(target, name).await?;
        cut(servers, claim, name, &now, layout.bounds.iter()).await
    }

    fn zoned(&self, range: &ZoneRange) -> Result<Zoned> {
        let bound = |value| {
            RawDocumentBuf::try_from(&from_state(value)?)
                .map_err(|error| Error::state(format!("a zone's bound in the catalog cannot be read: {error}")))
        };
        let shards = self.shards.zones.get(&range.zone).cloned().unwrap_or_default();
        Ok(Zoned { min: bound(&range.min)?, max: bound(&range.max)?, shards })
    }
}

/// Cuts chunks wherever none begins yet.
async fn cut(
    servers: &Servers,
    claim: &Claim<StepProgress>,
    name: &Namespace,
    now: &ChunkMap,
    bounds: impl Iterator<Item = &RawDocumentBuf>,
) -> Result<()> {
    let begins: Vec<RawDocumentBuf> = now.chunks().map(|chunk| chunk.min()).collect();
    for bound in bounds {
        if begins.binary_search_by(|begin| compare_documents(begin, bound)).is_err() {
            claim.ensure_may_send().await?;
            crash::around("split", sharding::split(&servers.target, name, bound)).await?;
        }
    }
    Ok(())
}
