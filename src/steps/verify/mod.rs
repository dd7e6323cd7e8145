//! verify: compares the target with what the copy recorded, and the source with what discover recorded.
//!
//! - Reads: the catalog, proofs, both deployments' listings, the target's counts; with `--verify full` the target's
//!   documents, and the source's where they differ from what was acknowledged.
//! - Writes: a share for each collection, and the step's result; nothing on either server.
//! - Resumes by: the shares, each after the last documents that it has compared. Those with findings are compared again.
//!   Named by hand once it is done, it compares all of them again: a new round, which goes on until it is done, too.

mod documents;
mod metadata;
mod order;

use super::ownership;
use super::units::{self, AllUnits, Finished, UnitResult, Worked};
use crate::claim::Claim;
use crate::context::{Context, Servers};
use crate::driver::{self, Named, Outcome};
use crate::error::{Error, Result};
use crate::model::catalog::{CatalogEntry, CollectionKind, Ordinal};
use crate::model::choice::{Against, CreateIndex, Order, Orphans, Verify};
use crate::model::comparison::{Check, Leniency, Loss, Round};
use crate::model::counts::Counts;
use crate::model::finding::Finding;
use crate::model::lane::{Ending, PartitionRecord};
use crate::model::namespace::Namespace;
use crate::model::refresh::{self, Refreshed};
use crate::model::step::Step;
use crate::model::work::{StepProgress, UnitProgress, Work};
use crate::mongo::catalog;
use crate::state::document::Replaced;
use crate::state::keys;
use crate::state::lanes;
use crate::state::pages::{self, PreparedEntry};
use crate::state::rejects::{self, Repair};
use std::collections::HashMap;
use std::sync::Arc;

/// How many collections are compared at once: mostly small commands whose answers are waited for.
const PARALLEL: usize = 8;

/// How many are at once where documents are read: each reads ahead, and keeps a core busy.
const PARALLEL_IN_FULL: usize = 4;

/// How often the beginning of a round is tried when another worker was faster.
const ATTEMPTS: usize = 10;

/// Runs the step.
///
/// # Errors
/// Findings, unless they are accepted; source unavailable when a collection was renamed under the copy.
pub async fn run(context: &Context, servers: &Servers, named: Named) -> Result<Outcome> {
    let step = Step::Verify;
    let earlier = driver::step_work(context, step).await?;
    if let Some(done) = &earlier
        && named != Named::ByHand
    {
        return Ok(Outcome::Done { step, summary: done.progress.summary.clone() });
    }
    let check = Check { verify: context.settings.verify, against: context.settings.against };
    if check.verify == Verify::None {
        let summary = "nothing was compared, as --verify none says".into();
        // What is compared later must not be taken for a part of an earlier round.
        let round = earlier.and_then(|work| work.progress.round);
        return driver::finish_parts(context, StepProgress { summary, round, ..StepProgress::new(step) }).await;
    }
    let all = pages::read_catalog(&context.documents).await?;
    let source = metadata::source_now(context, servers, &all).await?;
    ownership::ensure_unmoved(context, &servers.source, &all).await?;
    let facts = Facts::read(context).await?;
    let entries: Vec<CatalogEntry> =
        units::wanted(context, all.clone())?.into_iter().filter(|entry| entry.kind.is_copied()).collect();
    if check == (Check { verify: Verify::Full, against: Against::Proofs }) {
        facts.have_digests(&entries)?;
    }
    if check == (Check { verify: Verify::Full, against: Against::Source })
        && context.settings.orphans == Orphans::Copy
        && let Some(entry) = entries.iter().find(|entry| entry.sharding.is_some())
    {
        return Err(Error::bad_input(format!(
            "--against source cannot compare {}, which is sharded on the source, with --orphans copy; leave out one of them",
            entry.namespace
        )));
    }
    // By name, a share of a verify that is done is compared again whatever its result.
    let again = context.settings.namespace.is_some() && earlier.is_some();
    let round = round(context, check).await?;
    let parallel = if check.verify == Verify::Full { PARALLEL_IN_FULL } else { PARALLEL };
    let looked = if check.verify == Verify::Metadata {
        let look = async |entry: &CatalogEntry| compare(context, servers, &facts, entry, &source, round, None).await;
        units::look(context, step, &entries, parallel, look).await?
    } else {
        0
    };
    let work = async |with_findings: bool| {
        let is_current = |share: &UnitProgress| !again && share.round.unwrap_or_default() == round;
        let finished = Finished { with_findings, is_current: &is_current };
        units::work(context, step, &entries, &finished, parallel, async |entry, claim| {
            compare(context, servers, &facts, entry, &source, round, Some(claim)).await
        })
        .await
    };
    // Those with findings once more only when no others are left: a run that has no time for all must get ahead.
    let worked = match work(true).await? {
        Worked::Done(AllUnits { worked: 0, findings }) if looked == 0 && !findings.is_empty() => work(false).await?,
        worked => worked,
    };
    let Worked::Done(done) = worked else { return Ok(driver::yielded(context, step)) };
    if let Some(partly) = units::partly(context, step, &done.findings, named) {
        return Ok(partly);
    }
    units::accepted(context, step, &done.findings)?;
    let how = match (check.verify, check.against) {
        (Verify::Full, Against::Source) => " in full with the source",
        (Verify::Full, Against::Proofs) => " in full",
        _ => "",
    };
    let summary = format!("{} collections compared{how}, {} findings", entries.len(), done.findings.len());
    let notes = source.new_notes();
    let progress = StepProgress { summary, notes, round: Some(round), ..StepProgress::new(step) };
    driver::finish_parts(context, progress).await
}

/// The round that this run works on. The first one is over when the step is done; by hand another one begins then,
/// which every run of the same kind goes on with until it is done. A run of one collection begins none.
async fn round(context: &Context, check: Check) -> Result<Round> {
    let key = keys::step(Step::Verify);
    for _ in 0..ATTEMPTS {
        let Some(stored) = context.documents.read::<Work<StepProgress>>(&key).await? else {
            return Ok(Round { number: 0, check });
        };
        let done = &stored.value.progress;
        let last = done.round.unwrap_or_default();
        if context.settings.namespace.is_some() || (done.repeating && last.check == check) {
            return Ok(Round { check, ..last });
        }
        let round = Round { number: last.number + 1, check };
        let progress = StepProgress { round: Some(round), repeating: true, ..done.clone() };
        let begun = Work { progress, ..stored.value.clone() };
        match context.documents.replace(&key, &begun, &stored).await? {
            Replaced::Mine(_) => return Ok(round),
            Replaced::Lost(_) => {}
        }
    }
    Err(Error::busy(format!("{} changes all the time; try again", context.documents.name(&key))))
}

/// What the state says about each collection.
struct Facts {
    prepared: HashMap<Ordinal, PreparedEntry>,
    proofs: HashMap<Ordinal, Proven>,
    create_index: CreateIndex,
    /// Whether what was held back has its times by now.
    is_committed: bool,
}

#[derive(Default, Clone)]
struct Proven {
    counts: Counts,
    is_gone: bool,
    /// The proofs, in the order of the plan.
    ranges: Vec<PartitionRecord>,
}

impl Facts {
    async fn read(context: &Context) -> Result<Self> {
        let documents = &context.documents;
        let prepared = pages::read_prepared(documents).await?.into_iter().map(|entry| (entry.ordinal, entry)).collect();
        let mut proofs: HashMap<Ordinal, Proven> = HashMap::new();
        let mut ordinals: HashMap<Namespace, Ordinal> = HashMap::new();
        let plan = pages::read_plan(documents).await?;
        let first_shard = plan.lanes.first().map(|planned| planned.lane.shard.clone());
        for planned in plan.lanes {
            let mut records = Vec::new();
            for lane in lanes::read_all(documents, &planned).await? {
                let name = &lane.tail.lane;
                let Some(work) = lane.stored.map(|stored| stored.value) else {
                    return Err(Error::state(format!(
                        "{} is missing although step copy is done; restore it, or use another --job",
                        documents.name(&keys::lane(name))
                    )));
                };
                records.extend(pages::read_proofs(documents, name, work.progress.segments).await?);
                records.extend(work.progress.finished);
            }
            records.sort_by_key(|record| record.partition.number);
            for record in records {
                let proven = proofs.entry(record.partition.ordinal).or_default();
                ordinals.insert(record.partition.source.clone(), record.partition.ordinal);
                proven.counts += record.counts;
                proven.is_gone |= record.ending == Ending::Gone;
                // The shards of a collection have the same ranges, and write into one collection.
                let is_first = Some(&planned.lane.shard) == first_shard.as_ref();
                let mut others = proven.ranges.iter_mut().filter(|_| !is_first);
                match others.find(|other| other.partition.range == record.partition.range) {
                    Some(other) => other.counts += record.counts,
                    None => proven.ranges.push(record),
                }
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
        let is_committed = driver::is_done(context, Step::Commit).await?;
        Ok(Self { prepared, proofs, create_index, is_committed })
    }

    /// What prepare and copy say of a collection.
    fn of(&self, entry: &CatalogEntry) -> Result<(&PreparedEntry, &Proven)> {
        let Some(prepared) = self.prepared.get(&entry.ordinal) else {
            return Err(Error::state(format!("prepare has no entry for {}; use another --job", entry.namespace)));
        };
        let Some(proven) = self.proofs.get(&entry.ordinal) else {
            return Err(Error::state(format!("no lane has a proof of {}; use another --job", entry.namespace)));
        };
        Ok((prepared, proven))
    }

    fn have_digests(&self, entries: &[CatalogEntry]) -> Result<()> {
        for entry in entries.iter().filter(|entry| entry.kind.has_documents()) {
            if self.of(entry)?.1.counts.digest.is_none() {
                return Err(Error::bad_input(format!(
                    "--verify full: no digest of {} was taken while it was copied; say --against source, or --verify metadata",
                    entry.namespace
                )));
            }
        }
        Ok(())
    }
}

/// What the index step has left of a collection.
async fn built(context: &Context, entry: &CatalogEntry) -> Result<UnitProgress> {
    let key = keys::unit(Step::Index, entry.ordinal);
    let share = match entry.secondary_indexes().next() {
        Some(_) => context.documents.read::<Work<UnitProgress>>(&key).await?,
        None => None,
    };
    Ok(share.map_or_else(|| UnitProgress::new(Step::Index, entry.namespace.clone()), |share| share.value.progress))
}

impl Proven {
    /// The proofs, with what was brought to the source's later version since.
    fn with(&self, refreshed: &[Refreshed], entry: &CatalogEntry) -> Self {
        let mut proven = self.clone();
        refresh::account(&mut proven.counts, refreshed);
        // Which range a key belongs to only the server knows where a collation orders them: then it is looked at in full.
        if entry.options.get("collation").is_none() {
            for record in &mut proven.ranges {
                let range = &record.partition.range;
                let in_it = refreshed.iter().filter(|one| range.contains(&one.id));
                refresh::account(&mut record.counts, in_it);
            }
        }
        proven
    }
}

/// Compares one collection. Its share has to be claimed where its documents are compared.
async fn compare(
    context: &Context,
    servers: &Servers,
    facts: &Facts,
    entry: &CatalogEntry,
    source: &metadata::SourceNow,
    round: Round,
    claim: Option<&Arc<Claim<UnitProgress>>>,
) -> Result<UnitResult> {
    if entry.kind == CollectionKind::View {
        let metadata::Metadata { findings, notes, .. } = metadata::compare_view(servers, entry, source).await?;
        return Ok(UnitResult { findings, notes, round: Some(round), ..UnitResult::default() });
    }
    let (prepared, proven) = facts.of(entry)?;
    let built = built(context, entry).await?;
    let accounted;
    let proven = if built.refreshed.is_empty() {
        proven
    } else {
        accounted = proven.with(&built.refreshed, entry);
        &accounted
    };
    let leniency = leniency(servers, facts, entry, prepared).await?;
    let mut metadata = metadata::compare(servers, facts, (entry, &built), source).await?;
    let mut result = UnitResult { round: Some(round), ..UnitResult::default() };
    match (round.check.verify, claim) {
        _ if !metadata.is_comparable => {}
        (Verify::Full, Some(claim)) => {
            let documents = documents::Documents { context, servers, entry, prepared, proven, leniency, claim };
            let found = documents.compare(round).await?;
            result.findings.extend(found.findings);
            result.notes.extend(found.notes);
            if entry.order == Order::Insertion {
                let text = order::compare(servers, entry, prepared).await?;
                result.findings.extend(text.map(|text| Finding { namespace: entry.namespace.clone(), text }));
            }
        }
        (Verify::Full, None) => return Err(Error::internal("documents are compared by whoever claimed their share")),
        (Verify::Metadata | Verify::None, _) => metadata.count(servers, entry, prepared, proven, leniency).await?,
    }
    result.findings.extend(metadata.findings);
    result.notes.extend(metadata.notes);
    Ok(result)
}

/// What has to be expected of a collection's documents.
async fn leniency(
    servers: &Servers,
    facts: &Facts,
    entry: &CatalogEntry,
    prepared: &PreparedEntry,
) -> Result<Leniency> {
    let had_documents = prepared.documents_before > 0;
    if entry.kind == CollectionKind::Capped {
        let is_full = catalog::is_full(&servers.target, &prepared.target).await?;
        let target_loses = is_full.then_some(Loss::Capped);
        return Ok(Leniency { had_documents, source_loses: Some(Loss::Capped), target_loses });
    }
    let source_loses = entry.expires().then_some(Loss::Age);
    // What this job has made it holds back.
    let target_loses = source_loses.filter(|_| facts.is_committed || !prepared.created);
    Ok(Leniency { had_documents, source_loses, target_loses })
}
