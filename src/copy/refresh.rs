//! Bringing documents that were copied to what the source has now.

use super::deliver::Delivery;
use crate::error::Result;
use crate::model::cursor::Key;
use crate::model::refresh::{Refreshed, Version};
use crate::model::work::Progress;
use bson::RawDocumentBuf;
use futures_util::{StreamExt, TryStreamExt, stream};

/// How many documents are looked at side by side.
const LOOKUPS: usize = 32;

/// A document of the target that is not what the source has.
pub struct Outdated {
    /// Its `_id`.
    pub id: Key,
    /// What the target has; nothing where an earlier run was killed while it changed it.
    pub there: Option<RawDocumentBuf>,
    /// What the source has, and which of the deliveries is that shard's; none where it has deleted it.
    pub now: Option<(usize, RawDocumentBuf)>,
}

impl Outdated {
    /// What proofs will know of it.
    pub fn version(&self) -> Option<Version> {
        self.now.as_ref().map(|(_, now)| Version::of(now.as_bytes()))
    }
}

/// Those of these documents that are not what the source has now. What this job has not put there, or what several
/// shards of the source have, is none of them.
///
/// # Errors
/// As [`Delivery::deliver`].
pub async fn outdated<P: Progress>(
    deliveries: &[Delivery<P>],
    ids: &[Key],
    before: &[Refreshed],
) -> Result<Vec<Outdated>> {
    let Some(first) = deliveries.first() else { return Ok(Vec::new()) };
    // The target first: what is read after that is not older than what it has.
    let mut found = first.found(ids).await?;
    let mut looking = Vec::new();
    for id in ids {
        let mut there = found.remove(id).unwrap_or_default();
        let is_known = before.iter().any(|known| known.id == *id);
        if there.len() > 1 || (there.is_empty() && !is_known) {
            continue;
        }
        looking.push(look(deliveries, id.clone(), there.pop()));
    }
    let looked: Vec<Option<Outdated>> = stream::iter(looking).buffered(LOOKUPS).try_collect().await?;
    Ok(looked.into_iter().flatten().collect())
}

async fn look<P: Progress>(
    deliveries: &[Delivery<P>],
    id: Key,
    there: Option<RawDocumentBuf>,
) -> Result<Option<Outdated>> {
    let mut now = None;
    for (shard, delivery) in deliveries.iter().enumerate() {
        match delivery.source_now(&id).await? {
            Some(_) if now.is_some() => return Ok(None),
            Some(document) => now = Some((shard, document)),
            None => {}
        }
    }
    let is_same = there.as_ref() == now.as_ref().map(|(_, now)| now);
    Ok((!is_same).then_some(Outdated { id, there, now }))
}

/// Brings a document there. The server's reason when it refuses it; then the target may have neither version.
///
/// # Errors
/// As [`Delivery::deliver`].
pub async fn bring<P: Progress>(deliveries: &[Delivery<P>], outdated: &Outdated) -> Result<Option<String>> {
    let Outdated { id, there, now } = outdated;
    let there: Vec<RawDocumentBuf> = there.iter().cloned().collect();
    match now {
        Some((shard, now)) => {
            let delivery = &deliveries[*shard];
            delivery.claim.ensure_may_send().await?;
            Ok(delivery.put(id, now, &there.into_iter().collect()).await?.map(|refusal| refusal.reason))
        }
        None => {
            let Some(delivery) = deliveries.first() else { return Ok(None) };
            delivery.claim.ensure_may_send().await?;
            for version in &there {
                delivery.delete(std::slice::from_ref(id), &[delivery.located(id, version)?]).await?;
            }
            Ok(None)
        }
    }
}
