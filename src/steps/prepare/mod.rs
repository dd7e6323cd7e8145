//! prepare: makes the target ready. From its marker on the namespaces are this job's.
//!
//! - Reads: the catalog, what the target has.
//! - Writes: the marker on the target; `prepare/before-*` (what had each name, by UUID, before anything was changed);
//!   drops and creates; `prepare/after-*` (the UUIDs of what is there now).
//! - Resumes by: the inventory. A collection with the recorded UUID was there before and is dropped or kept as told; one
//!   with another UUID under this job's marker is what a killed run has created. Pages that are prepared are skipped.

pub mod sharding;

use super::discover::names;
use crate::claim::Claim;
use crate::context::{Context, Servers};
use crate::crash;
use crate::driver::{self, Finished, Outcome};
use crate::error::{Error, Kind, Result};
use crate::model::catalog::{CatalogEntry, index_to_create, must_wait_for_data};
use crate::model::choice::{CreateIndex, Existing};
use crate::model::finding::Note;
use crate::model::namespace::{Namespace, case_clashes};
use crate::model::step::Step;
use crate::model::work::StepProgress;
use crate::mongo::collection::{self, Creation};
use crate::mongo::deployment::Deployment;
use crate::mongo::{catalog, index, marker};
use crate::state::keys;
use crate::state::pages::{self, InventoryEntry, InventoryPage, PAGE, PreparedEntry, PreparedPage};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::Value;
use sharding::Decided;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How many collections are made at once: each waits for its majority, so a few side by side hide that.
const PARALLEL: usize = 16;

/// Runs the step.
///
/// # Errors
/// Bad input for collections or another job in the way, before anything was changed.
pub async fn run(context: &Context, servers: &Servers) -> Result<Outcome> {
    driver::run_whole(context, Step::Prepare, async |claim| prepare(context, servers, claim).await).await
}

async fn prepare(context: &Context, servers: &Servers, claim: &Arc<Claim<StepProgress>>) -> Result<Finished> {
    let (job, binding) = servers.bound()?;
    let entries = pages::read_catalog(&context.documents).await?;
    let to_target = |entry: &CatalogEntry| binding.renames.apply(&entry.namespace);
    let targets: Vec<Namespace> = entries.iter().filter(|entry| entry.kind.is_copied()).map(to_target).collect();

    let begun = context.documents.read::<InventoryPage>(&keys::inventory_page(0)).await?.is_some();
    let is_any_there = begun || !context.documents.list("prepare/").await?.is_empty();
    let (existing, create_index) = choices(context, claim, is_any_there).await?;
    let sharding = sharding::decide(context, servers, &entries).await?;
    if !begun {
        let present = collections_by_name(&servers.target, &targets).await?;
        refuse_other_cases(&catalog::databases(&servers.target).await?, &targets)?;
        // Before what is in the way: what another job has made there is not to be dropped or kept, but its.
        refuse_other_jobs(context, servers, &job.id, &targets, existing).await?;
        refuse_what_is_in_the_way(&present, existing)?;
        sharding.check(context, servers, &entries, &present, to_target).await?;
        claim.ensure_may_send().await?;
        let was_there = marker::is_there(&servers.target, &job.id).await?;
        crash::around("marker", marker::leave(&servers.target, &job.id, &job.name, &targets)).await?;
        // Another job may have done the same at the same time: both markers are there now, and both see the other's.
        if let Err(error) = refuse_other_jobs(context, servers, &job.id, &targets, existing).await {
            if !was_there {
                marker::remove(&servers.target, &job.id).await?;
            }
            return Err(error);
        }
        take_inventory(context, servers, &entries, existing, to_target).await?;
    }

    let maker = Maker { context, servers, claim, sharding, existing, create_index };
    let mut made = Vec::new();
    let mut result = Finished::default();
    for (page, entries) in (0..).zip(entries.chunks(PAGE)) {
        let key = keys::prepared_page(page);
        if let Some(done) = context.documents.read::<PreparedPage>(&key).await? {
            made.extend(done.value.collections);
            continue;
        }
        let before: InventoryPage = pages::expect(&context.documents, &keys::inventory_page(page)).await?;
        let make = before.collections.iter().filter_map(|before| {
            let entry = entries.iter().find(|entry| entry.ordinal == before.ordinal)?;
            Some(maker.make_ready(entry, before))
        });
        let made_ready = stream::iter(make.collect::<Vec<_>>()).buffered(PARALLEL).try_collect().await;
        let collections = made_ready.map_err(changed_something)?;
        let prepared = PreparedPage { collections };
        made.extend(context.documents.create(&key, &prepared).await?.into_stored().value.collections);
    }
    let created = made.iter().filter(|entry| entry.created).count();
    result.summary = format!("{created} collections created, {} kept", made.len() - created);
    if create_index == CreateIndex::None {
        result.notes.extend(entries.iter().filter(|entry| entry.secondary_indexes().next().is_some()).map(|entry| {
            Note {
                namespace: entry.namespace.clone(),
                text: format!(
                    "{} indexes are left out, as --create-index none says",
                    entry.secondary_indexes().count()
                ),
            }
        }));
    }
    if servers.target.is_mongos() {
        let is_left_alone = |entry: &&CatalogEntry| entry.sharding.as_ref().is_some_and(|sharding| sharding.no_balance);
        result.notes.extend(entries.iter().filter(is_left_alone).map(|entry| Note {
            namespace: entry.namespace.clone(),
            text: format!(
                "the source's balancer leaves it alone (noBalance), and the target's does not; say `sh.disableBalancing(\"{}\")` there if it should",
                to_target(entry)
            ),
        }));
    }
    Ok(result)
}

/// What of the target is in the way, before anything is changed. How many collections are there that may be.
///
/// # Errors
/// Bad input for what prepare would refuse.
pub async fn refuse_existing(
    context: &Context,
    servers: &Servers,
    entries: &[CatalogEntry],
    sharding: &Decided,
) -> Result<usize> {
    let to_target = |entry: &CatalogEntry| context.settings.renames.apply(&entry.namespace);
    let targets: Vec<Namespace> = entries.iter().filter(|entry| entry.kind.is_copied()).map(to_target).collect();
    let id = servers.job.as_ref().map_or("", |job| &job.id);
    let existing = context.settings.existing;
    let present = collections_by_name(&servers.target, &targets).await?;
    refuse_other_jobs(context, servers, id, &targets, existing).await?;
    refuse_what_is_in_the_way(&present, existing)?;
    sharding.check(context, servers, entries, &present, to_target).await?;
    Ok(present.len())
}

/// What is done with existing collections and when indexes are built: from the first change on the target what was
/// said then, another value later is refused.
async fn choices(context: &Context, claim: &Claim<StepProgress>, begun: bool) -> Result<(Existing, CreateIndex)> {
    let (existing, create_index) = (context.settings.existing, context.settings.create_index);
    let progress = claim.work().await.progress;
    if begun && let (Some(recorded), Some(recorded_index)) = (progress.existing, progress.create_index) {
        if recorded != existing {
            return Err(changed(context, "existing", recorded, existing));
        }
        if recorded_index != create_index {
            return Err(changed(context, "create-index", recorded_index, create_index));
        }
        return Ok((existing, create_index));
    }
    claim
        .save(|work| {
            work.progress.existing = Some(existing);
            work.progress.create_index = Some(create_index);
        })
        .await?;
    Ok((existing, create_index))
}

fn changed(context: &Context, flag: &str, recorded: impl std::fmt::Display, now: impl std::fmt::Display) -> Error {
    Error::bad_input(format!(
        "job `{}` began to prepare the target with --{flag} {recorded}, now it is --{flag} {now}; go on with {recorded}, or use another --job",
        context.settings.job
    ))
}

/// UUIDs of what has the targets' names now.
async fn collections_by_name(
    target: &Deployment,
    targets: &[Namespace],
) -> Result<BTreeMap<Namespace, Option<String>>> {
    let databases: BTreeSet<&str> = targets.iter().map(Namespace::db).collect();
    let wanted: BTreeSet<&Namespace> = targets.iter().collect();
    let mut present = BTreeMap::new();
    for database in databases {
        for listed in catalog::collections(target, database).await? {
            if wanted.contains(&listed.namespace) {
                present.insert(listed.namespace, listed.uuid);
            }
        }
    }
    Ok(present)
}

/// A server that has a database refuses one whose name differs in case alone.
fn refuse_other_cases(databases: &[String], targets: &[Namespace]) -> Result<()> {
    match case_clashes(databases.iter().map(String::as_str).chain(targets.iter().map(Namespace::db))).first() {
        None => Ok(()),
        Some(clash) => Err(Error::bad_input(format!(
            "the databases {} differ only in case, and the target, which has one of them, refuses the other; rename or exclude it",
            clash.join(", ")
        ))),
    }
}

fn refuse_what_is_in_the_way(present: &BTreeMap<Namespace, Option<String>>, existing: Existing) -> Result<()> {
    if existing == Existing::Refuse && !present.is_empty() {
        let in_the_way: Vec<Namespace> = present.keys().cloned().collect();
        return Err(Error::bad_input(format!(
            "the target has {} already; say --existing drop or keep, rename or exclude them",
            names(&in_the_way)
        )));
    }
    if let Some((view, _)) = present.iter().find(|(_, uuid)| uuid.is_none()) {
        return Err(Error::bad_input(format!(
            "{view} is a view on the target; rename or exclude it, or drop it by hand"
        )));
    }
    Ok(())
}

async fn refuse_other_jobs(
    context: &Context,
    servers: &Servers,
    id: &str,
    targets: &[Namespace],
    existing: Existing,
) -> Result<()> {
    for overlap in marker::overlaps(&servers.target, id, targets).await? {
        if !overlap.committed {
            return Err(Error::bad_input(format!(
                "job `{}` ({}) has claimed {} on this target and is not finished; finish it, or `mongoferry abandon --job {}`",
                overlap.job,
                overlap.id,
                names(&overlap.namespaces),
                overlap.job
            )));
        }
        if existing == Existing::Drop && !context.settings.drop_committed {
            return Err(Error::bad_input(format!(
                "job `{}` ({}) has committed {} on this target, which may be in use by now; say --drop-committed to drop it all the same",
                overlap.job,
                overlap.id,
                names(&overlap.namespaces)
            )));
        }
    }
    Ok(())
}

/// Writes down what has each name, by UUID, before anything is changed. The marker is there already, so what appears
/// later under these names is this job's.
async fn take_inventory(
    context: &Context,
    servers: &Servers,
    entries: &[CatalogEntry],
    existing: Existing,
    to_target: impl Fn(&CatalogEntry) -> Namespace,
) -> Result<()> {
    let targets: Vec<Namespace> = entries.iter().filter(|entry| entry.kind.is_copied()).map(&to_target).collect();
    let present = collections_by_name(&servers.target, &targets).await?;
    if let Err(error) = refuse_what_is_in_the_way(&present, existing) {
        let (job, _) = servers.bound()?;
        marker::remove(&servers.target, &job.id).await?;
        return Err(error);
    }
    // The first page is written last: that it is there says that all are.
    for (page, entries) in (0..).zip(entries.chunks(PAGE)).collect::<Vec<_>>().into_iter().rev() {
        let mut collections = Vec::new();
        for entry in entries.iter().filter(|entry| entry.kind.is_copied()) {
            let target = to_target(entry);
            let uuid = present.get(&target).cloned().flatten();
            let documents = match (&uuid, existing) {
                (Some(_), Existing::Keep) => catalog::count(&servers.target, &target).await?,
                _ => 0,
            };
            collections.push(InventoryEntry { ordinal: entry.ordinal, target, uuid, documents });
        }
        // One that is there already was written by a run that was killed in this loop, before anything was changed.
        context.documents.create(&keys::inventory_page(page), &InventoryPage { collections }).await?;
    }
    Ok(())
}

/// Bad input means that nothing was changed. From the marker on something was, so what the server refuses then is the
/// target's failure; once it is mended, the same command goes on.
fn changed_something(error: Error) -> Error {
    match error.kind() {
        Kind::BadInput => error.as_kind(Kind::TargetUnavailable),
        _ => error,
    }
}

/// What it takes to make collections.
struct Maker<'a> {
    context: &'a Context,
    servers: &'a Servers,
    claim: &'a Arc<Claim<StepProgress>>,
    sharding: Decided,
    existing: Existing,
    create_index: CreateIndex,
}

impl Maker<'_> {
    /// Brings one collection of the target to where documents may come.
    async fn make_ready(&self, entry: &CatalogEntry, before: &InventoryEntry) -> Result<PreparedEntry> {
        let (target, claim, name) = (&self.servers.target, self.claim, &before.target);
        let (ordinal, documents_before) = (entry.ordinal, before.documents);
        if let (Some(uuid), Existing::Keep) = (&before.uuid, self.existing) {
            let sharding = sharding::current(self.servers, entry, name).await?;
            let (target, uuid) = (name.clone(), uuid.clone());
            return Ok(PreparedEntry { ordinal, target, uuid, created: false, documents_before, sharding });
        }
        if let Some(uuid) = &before.uuid {
            let now = catalog::collection(target, name).await?.and_then(|listed| listed.uuid);
            if now.as_ref() == Some(uuid) {
                claim.ensure_may_send().await?;
                crash::around("drop", collection::drop_by_uuid(target, name, uuid)).await?;
            }
        }
        claim.ensure_may_send().await?;
        let creation = crash::around("create", collection::create(target, name, &entry.options)).await?;
        let uuid = catalog::collection(target, name).await?.and_then(|listed| listed.uuid);
        let uuid = uuid.ok_or_else(|| {
            target.side.error(format!("{name} was created on the target and is not there; try again"))
        })?;
        // What a killed run of this job created is empty: documents come only after this step.
        if creation == Creation::Exists && !collection::is_empty(target, name).await? {
            return Err(Error::bad_input(format!(
                "somebody else created {name} on the target and filled it while this job prepared it; drop it, or use another --job"
            )));
        }
        let sharding = self.sharding.make(self.context, self.servers, claim, entry, (name, &uuid)).await?;
        if self.create_index == CreateIndex::Background {
            self.build_early(entry, name, &uuid).await?;
        }
        Ok(PreparedEntry { ordinal, target: name.clone(), uuid, created: true, documents_before: 0, sharding })
    }

    /// Builds the indexes that need not wait for the data.
    async fn build_early(&self, entry: &CatalogEntry, name: &Namespace, uuid: &str) -> Result<()> {
        let early: Vec<Value> = entry
            .secondary_indexes()
            .filter(|index| !must_wait_for_data(index))
            .map(|index| index_to_create(index, &entry.options))
            .collect();
        self.claim.ensure_may_send().await?;
        let refused = index::build(&self.servers.target, name, uuid, &early).await?;
        // They are asked for once more after the data, when a refusal that remains becomes a finding.
        for index in refused {
            tracing::warn!(namespace = %name, "index {} was refused before the data: {}", index.name, index.reason);
        }
        Ok(())
    }
}
