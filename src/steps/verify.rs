//! verify: compares the target with what the copy recorded, and the source with what discover recorded.
//!
//! - Reads: the catalog, proofs, both deployments' listings, the target's counts.
//! - Writes: a share for each collection, and the step's result; nothing on either server.
//! - Resumes by: the shares; those with findings are compared again. Named by hand once it is done, it compares all of
//!   them again.

use super::units::{self, UnitResult, Worked};
use crate::claim::DoneIs;
use crate::context::{Context, Servers};
use crate::driver::{self, Named, Outcome};
use crate::error::{Error, Result};
use crate::model::catalog::{CatalogEntry, Ordinal, index_differences, option_differences};
use crate::model::choice::CreateIndex;
use crate::model::counts::Counts;
use crate::model::finding::{Finding, Note};
use crate::model::lane::{Ending, LaneProgress, PartitionRecord};
use crate::model::namespace::{Namespace, SPECIAL_DATABASES};
use crate::model::step::Step;
use crate::model::work::{StepProgress, Work};
use crate::mongo::catalog::{self, Listed};
use crate::state::keys;
use crate::state::pages::{self, PreparedEntry};
use crate::state::rejects::{self, Repair};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// How many collections are compared at once: mostly small commands whose answers are waited for.
const PARALLEL: usize = 8;

/// Runs the step.
///
/// # Errors
/// Findings, unless they are accepted; source unavailable when a collection was renamed under the copy.
pub async fn run(context: &Context, servers: &Servers, named: Named) -> Result<Outcome> {
    let step = Step::Verify;
    let earlier = driver::step_work(context, step).await?;
    if let Some(done) = &earlier
        && named == Named::InChain
    {
        return Ok(Outcome::Done { step, summary: done.progress.summary.clone() });
    }
    let is_repetition = named == Named::ByHand && earlier.is_some();
    let done_is = if is_repetition { DoneIs::Repeatable } else { DoneIs::Final };

    let all = pages::read_catalog(&context.documents).await?;
    let source = source_now(context, servers, &all).await?;
    let facts = Facts::read(context).await?;
    let entries: Vec<CatalogEntry> =
        units::wanted(context, all.clone())?.into_iter().filter(|entry| entry.kind.is_copied()).collect();
    let worked = units::work(context, step, &entries, done_is, PARALLEL, async |entry, _claim| {
        compare(servers, &facts, entry, &source).await
    })
    .await?;
    let Worked::Done(done) = worked else { return Ok(driver::yielded(context, step)) };
    if let Some(namespace) = &context.settings.namespace {
        units::accepted(context, step, &done.findings)?;
        return Ok(units::partly(step, namespace));
    }
    let summary = format!("{} collections compared, {} findings", entries.len(), done.findings.len());
    let progress = StepProgress { summary, findings: Vec::new(), notes: source.new_notes(), ..StepProgress::new(step) };
    units::accepted(context, step, &done.findings)?;
    driver::finish_parts(context, progress).await
}

/// What the state says about each collection.
struct Facts {
    prepared: HashMap<Ordinal, PreparedEntry>,
    proofs: HashMap<Ordinal, Proven>,
    create_index: CreateIndex,
}

#[derive(Default)]
struct Proven {
    counts: Counts,
    is_gone: bool,
}

impl Facts {
    async fn read(context: &Context) -> Result<Self> {
        let documents = &context.documents;
        let prepared = pages::read_prepared(documents).await?.into_iter().map(|entry| (entry.ordinal, entry)).collect();
        let mut proofs: HashMap<Ordinal, Proven> = HashMap::new();
        let mut ordinals: HashMap<Namespace, Ordinal> = HashMap::new();
        for planned in pages::read_plan(documents).await?.lanes {
            let lane: Work<LaneProgress> = pages::expect(documents, &keys::lane(&planned.lane)).await?;
            let sealed = pages::read_proofs(documents, &planned.lane, lane.progress.segments).await?;
            for record in sealed.iter().chain(&lane.progress.finished) {
                let PartitionRecord { partition, ending, counts, .. } = record;
                ordinals.insert(partition.source.clone(), partition.ordinal);
                let proven = proofs.entry(partition.ordinal).or_default();
                proven.counts += *counts;
                proven.is_gone |= *ending == Ending::Gone;
            }
        }
        // What was rejected and is on the target by now.
        for Repair { namespace, counts, .. } in rejects::read(documents).await?.repairs {
            if let Some(proven) = ordinals.get(&namespace).and_then(|ordinal| proofs.get_mut(ordinal)) {
                proven.counts += counts;
            }
        }
        let prepare = driver::step_work(context, Step::Prepare).await?;
        let create_index = prepare.and_then(|work| work.progress.create_index).unwrap_or_default();
        Ok(Self { prepared, proofs, create_index })
    }
}

/// The source as it is now, by name.
struct SourceNow {
    by_name: BTreeMap<Namespace, Listed>,
    new: Vec<Namespace>,
}

impl SourceNow {
    fn new_notes(&self) -> Vec<Note> {
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
async fn source_now(context: &Context, servers: &Servers, entries: &[CatalogEntry]) -> Result<SourceNow> {
    let mut by_name = BTreeMap::new();
    for database in catalog::databases(&servers.source).await? {
        if !SPECIAL_DATABASES.contains(&database.as_str()) {
            for listed in catalog::collections(&servers.source, &database).await? {
                by_name.insert(listed.namespace.clone(), listed);
            }
        }
    }
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

async fn compare(servers: &Servers, facts: &Facts, entry: &CatalogEntry, source: &SourceNow) -> Result<UnitResult> {
    let Some(prepared) = facts.prepared.get(&entry.ordinal) else {
        return Err(Error::state(format!("prepare has no entry for {}; use another --job", entry.namespace)));
    };
    let Some(proven) = facts.proofs.get(&entry.ordinal) else {
        return Err(Error::state(format!("no lane has a proof of {}; use another --job", entry.namespace)));
    };
    let mut texts = Vec::new();
    let mut notes = Vec::new();
    match catalog::collection(&servers.target, &prepared.target).await? {
        None => texts.push(format!("{} is not on the target any more", prepared.target)),
        Some(now) if now.uuid.as_ref() != Some(&prepared.uuid) => {
            texts.push(format!(
                "{} is another collection on the target now than the one that was copied into",
                prepared.target
            ));
        }
        Some(now) => {
            texts.extend(option_differences(&entry.options, &now.options));
            if facts.create_index != CreateIndex::None {
                let indexes = catalog::indexes(&servers.target, &prepared.target).await?;
                texts.extend(index_differences(&entry.indexes, &indexes));
            }
            let most = (prepared.documents_before + proven.counts.written).saturating_sub(proven.counts.overwritten);
            let least = most - proven.counts.present.min(prepared.documents_before);
            let found = catalog::count(&servers.target, &prepared.target).await?;
            let expires = entry.indexes.iter().any(|index| index.get("expireAfterSeconds").is_some());
            if found < least && expires {
                notes.push(Note {
                    namespace: entry.namespace.clone(),
                    text: format!("the target has {found} documents of {most}: a TTL index expires them there"),
                });
            } else if found < least || found > most {
                let expected = if least == most { most.to_string() } else { format!("{least} to {most}") };
                texts.push(format!("the target has {found} documents, expected {expected}"));
            }
        }
    }
    let findings = texts.into_iter().map(|text| Finding { namespace: entry.namespace.clone(), text }).collect();
    notes.extend(changes(servers, entry, proven, source).await?);
    Ok(UnitResult { findings, notes })
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
            let indexes = catalog::indexes(&servers.source, &entry.namespace).await?;
            for difference in index_differences(&entry.indexes, &indexes) {
                texts.push(format!("was changed on the source since the job began: {difference}; {ddl}"));
            }
        }
    }
    if proven.is_gone {
        texts.push("was not read to its end, since it was gone from the source".into());
    }
    Ok(texts.into_iter().map(|text| Note { namespace: entry.namespace.clone(), text }).collect())
}
