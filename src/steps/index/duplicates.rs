//! A unique index that finds duplicates on the target: those that only the copy's smear over time has made go away when the
//! documents are brought to what the source has now.
//!
//! The copy reads one document early and another late. When the first gives its key up in between, and the second takes it,
//! both are on the target with it, and the source never had two. Only documents that this job has put there are touched.

use super::Share;
use crate::copy::redeliver::Redelivery;
use crate::copy::refresh::{bring, outdated};
use crate::error::Result;
use crate::model::cursor::Key;
use crate::model::index::name;
use crate::model::refresh::{self, MOST, Version};
use crate::mongo::catalog;
use crate::mongo::index::{self, Refused};
use bson::Bson;
use serde_json::Value;
use std::collections::HashSet;

/// How often a build is tried again: each time the source may have moved on.
const ROUNDS: usize = 5;

/// How many documents are written down, and then brought, at once.
const BATCH: usize = 200;

/// How many groups of documents with one key a finding names.
const NAMED: usize = 3;

/// An `_id` as relaxed Extended JSON; as text where it holds what JSON cannot say.
fn shown(id: &Key) -> String {
    match id.value().map(Bson::try_from) {
        Some(Ok(value)) => value.into_relaxed_extjson().to_string(),
        _ => format!("{id:?}"),
    }
}

impl Share<'_> {
    /// Brings the documents that keep unique indexes from being built to what the source has, and builds these again, as
    /// long as that changes something.
    pub(super) async fn settle_duplicates(&self, specs: &[Value], refused: &mut Vec<Refused>) -> Result<()> {
        let (target, prepared) = (&self.servers.target, self.prepared);
        if !prepared.created || !self.is_source_the_same().await? {
            return Ok(());
        }
        for _ in 0..ROUNDS {
            let again: Vec<Value> = specs
                .iter()
                .filter(|spec| refused.iter().any(|refused| refused.is_duplicate && refused.name == name(spec)))
                .cloned()
                .collect();
            let mut ids = HashSet::new();
            for spec in &again {
                let groups = index::duplicates(target, &prepared.target, spec, MOST).await?;
                ids.extend(groups.into_iter().flatten());
            }
            let ids: Vec<Key> = ids.into_iter().collect();
            if ids.is_empty() || self.refresh(&ids).await? == 0 {
                return Ok(());
            }
            self.claim.ensure_may_send().await?;
            let still = index::build(target, &prepared.target, &prepared.uuid, &again).await?;
            refused.retain(|refused| !again.iter().any(|spec| name(spec) == refused.name));
            refused.extend(still);
        }
        Ok(())
    }

    /// Whether the source still has the collection that was copied: what another one of its name has says nothing.
    pub(super) async fn is_source_the_same(&self) -> Result<bool> {
        let source = self.servers.source.home(self.entry)?;
        let now = catalog::collection(source, &self.entry.namespace).await?;
        Ok(now.is_some_and(|now| now.uuid == self.entry.uuid))
    }

    /// Brings documents to what the source has now; how many were something else. Each is written down before.
    pub(super) async fn refresh(&self, ids: &[Key]) -> Result<usize> {
        let Self { context, servers, entry, prepared, claim, .. } = self;
        let redelivery = self.redelivery.get_or_try_init(|| Redelivery::new(context, servers)).await?;
        let deliveries = redelivery.deliveries(context, servers, claim, (&entry.documents_in(), prepared)).await?;
        let mut brought = 0;
        for ids in ids.chunks(BATCH) {
            let before = claim.work().await.progress.refreshed;
            let mut outdated = outdated(&deliveries, ids, &before).await?;
            let room = MOST.saturating_sub(before.len());
            let mut new = 0;
            outdated.retain(|one| {
                let is_known = before.iter().any(|known| known.id == one.id);
                new += usize::from(!is_known);
                is_known || new <= room
            });
            let noted: Vec<(&Key, Option<Version>, Option<Version>)> = outdated
                .iter()
                .map(|one| (&one.id, one.there.as_ref().map(|there| Version::of(there.as_bytes())), one.version()))
                .collect();
            if noted.is_empty() {
                continue;
            }
            claim
                .save(|work| {
                    for (id, is, now) in &noted {
                        // Where nothing is there it was written down before, with what it was.
                        let is = is.unwrap_or(Version::of(&[]));
                        refresh::note(&mut work.progress.refreshed, id, is, *now);
                    }
                })
                .await?;
            for one in &outdated {
                if let Some(reason) = bring(&deliveries, one).await? {
                    tracing::warn!(namespace = %entry.namespace, "_id {:?} could not be brought to what the source has: {reason}", one.id);
                    self.forget(&one.id, one.there.as_ref().map(|there| Version::of(there.as_bytes()))).await?;
                    continue;
                }
                brought += 1;
            }
        }
        Ok(brought)
    }

    /// Writes down that a document stays as it was, since the target took nothing else.
    async fn forget(&self, id: &Key, is: Option<Version>) -> Result<()> {
        self.claim
            .save(|work| {
                if let Some(known) = work.progress.refreshed.iter_mut().find(|known| known.id == *id) {
                    known.now = is;
                }
            })
            .await
    }

    /// The first documents with one key, for a finding.
    pub(super) async fn offending(&self, specs: &[Value], refused: &Refused) -> Result<String> {
        let Some(spec) = specs.iter().find(|spec| refused.is_duplicate && name(spec) == refused.name) else {
            return Ok(String::new());
        };
        let groups = index::duplicates(&self.servers.target, &self.prepared.target, spec, NAMED).await?;
        let mut groups: Vec<String> =
            groups.iter().map(|group| group.iter().map(shown).collect::<Vec<_>>().join(" and ")).collect();
        // They may share several keys.
        groups.sort();
        groups.dedup();
        Ok(if groups.is_empty() { String::new() } else { format!("; _ids with one key: {}", groups.join(", ")) })
    }
}
