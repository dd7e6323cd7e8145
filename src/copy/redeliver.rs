//! Deliveries outside of a lane, once the copy is done: from each shard of the source into one collection.

use super::deliver::Delivery;
use super::ownerships::{Origin, Ownerships};
use super::rejects::Rejects;
use crate::claim::Claim;
use crate::context::{Context, Servers};
use crate::error::Result;
use crate::model::catalog::Ordinal;
use crate::model::dbref::DbRefs;
use crate::model::document_filter::DocumentFilter;
use crate::model::job::CheckpointMap;
use crate::model::namespace::Namespace;
use crate::model::partition::Range;
use crate::model::plan::LaneName;
use crate::model::work::Progress;
use crate::mongo::writers::Writers;
use crate::state::keys;
use crate::state::pages::{self, PreparedEntry};
use crate::steps::discover;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

/// Where documents are read again, and what writes them.
pub struct Redelivery {
    origins: Vec<Origin>,
    writers: Arc<Writers>,
    /// Of collections of which a part is copied.
    filters: HashMap<Ordinal, DocumentFilter>,
}

impl Redelivery {
    /// From all shards of the source.
    ///
    /// # Errors
    /// Those of the state store; unavailable when the target is.
    pub async fn new(context: &Context, servers: &Servers) -> Result<Self> {
        let checkpoints: CheckpointMap = pages::expect(&context.documents, keys::CHECKPOINT).await?;
        let mut origins = Vec::new();
        for shard in &servers.source.shards {
            let not_before = discover::not_before(&checkpoints, &shard.deployment)?;
            let ownerships = Ownerships::new(context, &servers.source, &shard.name, &checkpoints).await?;
            origins.push(Origin { deployment: shard.deployment.clone(), not_before, ownerships });
        }
        let writers = Writers::new(servers.target.clone(), None).map_err(|error| servers.target.failed(&error))?;
        let mut filters = HashMap::new();
        for entry in pages::read_catalog(&context.documents).await? {
            filters.extend(entry.filter.map(|filter| (entry.ordinal, filter)));
        }
        Ok(Self { origins, writers: Arc::new(writers), filters })
    }

    /// One for each shard, into one collection. What they write is acknowledged for the work that is claimed.
    ///
    /// # Errors
    /// Those of the state store.
    pub async fn deliveries<P: Progress>(
        &self,
        context: &Context,
        servers: &Servers,
        claim: &Arc<Claim<P>>,
        (from, entry): (&Namespace, &PreparedEntry),
    ) -> Result<Vec<Delivery<P>>> {
        let mut deliveries = Vec::new();
        for origin in &self.origins {
            let lane = LaneName::planned(origin.deployment.identity.set_name.clone(), 0);
            deliveries.push(Delivery {
                source: origin.deployment.clone(),
                target: servers.target.clone(),
                writers: Arc::clone(&self.writers),
                from: from.clone(),
                to: entry.target.clone(),
                uuid: entry.uuid.clone(),
                locator: entry.locator()?,
                range: Range::default(),
                filter: self.filters.get(&entry.ordinal).cloned(),
                dbrefs: DbRefs::of(from, &servers.bound()?.1.selection).map(Arc::new),
                ownership: origin.ownerships.of(entry.ordinal, &origin.deployment).await?,
                in_order: false,
                created: entry.created,
                // An earlier run may have been killed before it recorded what it wrote.
                replay: true,
                probes_all: false,
                not_before: origin.not_before,
                on_conflict: context.settings.on_conflict,
                digests: true,
                rejects: Arc::new(Rejects::new(context.documents.clone(), lane, u64::MAX)),
                claim: Arc::clone(claim),
                is_dry: false,
                empty_probes: AtomicUsize::new(0),
            });
        }
        Ok(deliveries)
    }
}
