//! Comparing what a collection is, and how many documents it has, by its listing on both sides.

use super::{Facts, Proven};
use crate::context::{Context, Servers};
use crate::error::{Error, Result};
use crate::model::catalog::{CatalogEntry, CollectionKind, option_differences};
use crate::model::choice::CreateIndex;
use crate::model::comparison::Leniency;
use crate::model::expiry::{hold_options, seconds};
use crate::model::finding::{Finding, Note};
use crate::model::index::{Held, index_differences, name, unsupported};
use crate::model::namespace::Namespace;
use crate::model::target_sharding::{TargetSharding, is_only_for_shard_key, supporting_index};
use crate::model::view;
use crate::model::work::UnitProgress;
use crate::mongo::catalog::{self, Listed};
use crate::mongo::{index, sharding};
use crate::state::pages::PreparedEntry;
use crate::steps::listing;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The source as it is now, by name.
pub struct SourceNow {
    by_name: BTreeMap<Namespace, Listed>,
    new: Vec<Namespace>,
}

impl SourceNow {
    /// What is there now and was not when the job began.
    pub fn new_notes(&self) -> Vec<Note> {
        let note = |namespace: &Namespace| {
            Note {
            namespace: namespace.clone(),
            text: "was created on the source after the job began; a stream from the checkpoint brings its documents, and its options and indexes only where it replays DDL".into(),
        }
        };
        self.new.iter().map(note).collect()
    }
}

/// Lists the source again.
///
/// A collection that was renamed under the copy cannot be vouched for: a stream that replays no DDL would go on under
/// the old name.
///
/// # Errors
/// Source unavailable when it was.
pub async fn source_now(context: &Context, servers: &Servers, entries: &[CatalogEntry]) -> Result<SourceNow> {
    let all = listing::all(&servers.source, &context.settings.filter).await?;
    let by_name: BTreeMap<Namespace, Listed> =
        all.into_iter().map(|(namespace, found)| (namespace, found.listed)).collect();
    let by_uuid: HashMap<&str, &Namespace> =
        by_name.values().filter_map(|listed| Some((listed.uuid.as_deref()?, &listed.namespace))).collect();
    for entry in entries.iter().filter(|entry| entry.kind.is_copied()) {
        if let Some(uuid) = &entry.uuid
            && let Some(now) = by_uuid.get(uuid.as_str())
            && **now != entry.namespace
        {
            return Err(Error::source(format!(
                "{} was renamed to {now} on the source while it was copied; rename it back, or abandon this job and begin another",
                entry.namespace
            )));
        }
    }
    let known: BTreeSet<&Namespace> = entries.iter().map(|entry| &entry.namespace).collect();
    let new = by_name
        .keys()
        .filter(|namespace| !known.contains(namespace) && context.settings.filter.lets_through(namespace))
        .cloned()
        .collect();
    Ok(SourceNow { by_name, new })
}

/// What the listings show of a collection.
#[derive(Default)]
pub struct Metadata {
    /// What a person must mend or accept.
    pub findings: Vec<Finding>,
    /// What a person should know.
    pub notes: Vec<Note>,
    /// Whether the collection is still the one that was copied into: its documents can be looked at.
    pub is_comparable: bool,
}

/// Compares the options and indexes of a collection.
///
/// # Errors
/// Those of listing.
pub async fn compare(
    servers: &Servers,
    facts: &Facts,
    (entry, built): (&CatalogEntry, &UnitProgress),
    source: &SourceNow,
) -> Result<Metadata> {
    let (prepared, proven) = facts.of(entry)?;
    let mut texts = Vec::new();
    let mut is_comparable = false;
    let shown = prepared.target.shown();
    match catalog::collection(&servers.target, &shown).await? {
        None => texts.push(format!("{shown} is not on the target any more")),
        Some(now) if now.uuid.as_ref() != Some(&prepared.uuid) => {
            texts.push(format!("{shown} is another collection on the target now than the one that was copied into"));
        }
        Some(now) => {
            is_comparable = true;
            // What expires documents gets its time when the job is committed.
            let is_held = prepared.created && !facts.is_committed && seconds(&now.options).is_none();
            let options = if is_held { hold_options(&entry.options) } else { entry.options.clone() };
            texts.extend(option_differences(&options, &now.options));
            if facts.create_index != CreateIndex::None {
                let mut indexes = catalog::indexes(&servers.target, &prepared.target).await?;
                if let Some(sharding) = &prepared.sharding
                    && supporting_index(entry, sharding).is_none()
                {
                    // The one that the target has made for the shard key.
                    indexes.retain(|index| !is_only_for_shard_key(index, entry, sharding));
                }
                // What cannot be there is a finding of discover or of the index step already.
                let is_there = |index: &Value| indexes.iter().any(|other| name(other) == name(index));
                let is_told = |index: &Value| {
                    unsupported(index).is_some() || built.refused.iter().any(|refused| refused == name(index))
                };
                let expected = entry.indexes.iter().filter(|index| is_there(index) || !is_told(index));
                let expected: Vec<Value> = expected.cloned().collect();
                let held = match prepared.created {
                    _ if facts.is_committed => Held::None,
                    true => Held::All,
                    false => Held::These(&built.held),
                };
                texts.extend(index_differences(&expected, &indexes, &entry.options, held));
                if servers.target.is_mongos() {
                    let incomplete = index::incomplete(&servers.target, &prepared.target).await?;
                    texts.extend(incomplete.into_iter().map(|name| format!("index {name} is not on all shards")));
                }
            }
        }
    }
    if is_comparable {
        let now = sharding::current(&servers.target, &prepared.target, false).await?;
        let is_same = match (&prepared.sharding, &now) {
            (None, None) => true,
            (Some(prepared), Some(now)) => prepared.is_same_as(now),
            _ => false,
        };
        if !is_same {
            let text =
                |sharding: &Option<TargetSharding>| sharding.as_ref().map_or("not at all".into(), |by| by.text());
            texts.push(format!(
                "is sharded by {} on the target now and was by {}",
                text(&now),
                text(&prepared.sharding)
            ));
        }
    }
    let findings = texts.into_iter().map(|text| Finding { namespace: entry.namespace.clone(), text }).collect();
    let notes = changes(servers, entry, proven, source).await?;
    Ok(Metadata { findings, notes, is_comparable })
}

/// Compares a view.
///
/// # Errors
/// Those of listing.
pub async fn compare_view(servers: &Servers, entry: &CatalogEntry, source: &SourceNow) -> Result<Metadata> {
    let (_, binding) = servers.bound()?;
    let target = binding.selection.renames.apply(&entry.namespace);
    let expected = view::renamed(&entry.namespace, &entry.options, &binding.selection.renames).map_err(Error::state)?;
    let texts = match catalog::collection(&servers.target, &target).await? {
        None => vec![format!("{target} is not on the target")],
        Some(now) if now.kind != CollectionKind::View => {
            vec![format!("{target} is a {} on the target, and was to be a view", now.kind.text())]
        }
        Some(now) => option_differences(&expected, &now.options),
    };
    let findings = texts.into_iter().map(|text| Finding { namespace: entry.namespace.clone(), text }).collect();
    let mut notes = Vec::new();
    let ddl = "a stream from the checkpoint brings that only where it replays DDL";
    match source.by_name.get(&entry.namespace) {
        None => notes.push(format!("was dropped on the source since the job began; {ddl}")),
        Some(now) => notes.extend(
            option_differences(&entry.options, &now.options)
                .into_iter()
                .map(|difference| format!("was changed on the source since the job began: {difference}; {ddl}")),
        ),
    }
    let notes = notes.into_iter().map(|text| Note { namespace: entry.namespace.clone(), text }).collect();
    Ok(Metadata { findings, notes, is_comparable: false })
}

impl Metadata {
    /// Compares the number of documents as well.
    ///
    /// # Errors
    /// Those of counting.
    pub async fn count(
        &mut self,
        servers: &Servers,
        entry: &CatalogEntry,
        prepared: &PreparedEntry,
        proven: &Proven,
        leniency: Leniency,
    ) -> Result<()> {
        let namespace = entry.namespace.clone();
        let most = (prepared.documents_before + proven.counts.written).saturating_sub(proven.counts.overwritten);
        let least = most - proven.counts.present.min(prepared.documents_before);
        let found = catalog::count(&servers.target, &prepared.target).await?;
        if found < least
            && let Some(loss) = leniency.target_loses
        {
            let text = format!("the target has {found} documents of {most}: {}", loss.text());
            self.notes.push(Note { namespace, text });
        } else if found < least || found > most {
            let expected = if least == most { most.to_string() } else { format!("{least} to {most}") };
            let text = format!("the target has {found} documents, expected {expected}");
            self.findings.push(Finding { namespace, text });
        }
        Ok(())
    }
}

/// What happened to a collection on the source since discover listed it.
async fn changes(servers: &Servers, entry: &CatalogEntry, proven: &Proven, source: &SourceNow) -> Result<Vec<Note>> {
    let ddl = "a stream from the checkpoint brings that only where it replays DDL";
    let mut texts = Vec::new();
    match source.by_name.get(&entry.namespace) {
        None => texts.push(format!("was dropped on the source since the job began; {ddl}")),
        Some(now) if now.uuid != entry.uuid => {
            texts.push(format!("was dropped and created anew on the source since the job began; {ddl}"));
        }
        Some(now) => {
            for difference in option_differences(&entry.options, &now.options) {
                texts.push(format!("was changed on the source since the job began: {difference}; {ddl}"));
            }
            let indexes = catalog::indexes(servers.source.home(entry)?, &entry.documents_in()).await?;
            for difference in index_differences(&entry.indexes, &indexes, &entry.options, Held::None) {
                texts.push(format!("was changed on the source since the job began: {difference}; {ddl}"));
            }
        }
    }
    if proven.is_gone {
        texts.push("was not read to its end, since it was gone from the source".into());
    }
    Ok(texts.into_iter().map(|text| Note { namespace: entry.namespace.clone(), text }).collect())
}
