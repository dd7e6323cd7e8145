//! prepare: makes the target ready. From its marker on the namespaces are this job's.
//!
//! - Reads: the catalog, what the target has.
//! - Writes: the marker on the target; `prepare/before-*` (what had each name, by UUID, before anything was changed);
//!   drops and creates; `prepare/after-*` (the UUIDs of what is there now).
//! - Resumes by: the inventory. A collection with the recorded UUID was there before and is dropped or kept as told; one
//!   with another UUID under this job's marker is what a killed run has created. Pages that are prepared are skipped.

mod early_indexes;
mod present;
pub mod rehearsal;
pub mod sharding;
mod views;

use crate::claim::Claim;
use crate::context::{Context, Servers};
use crate::crash;
use crate::driver::{self, Finished, Outcome};
use crate::error::{Error, Kind, Result};
use crate::model::catalog::{CatalogEntry, CollectionKind};
use crate::model::choice::{CreateIndex, Existing};
use crate::model::expiry::hold_options;
use crate::model::finding::Note;
use crate::model::namespace::Namespace;
use crate::model::renames::Renames;
use crate::model::step::Step;
use crate::model::view;
use crate::model::work::StepProgress;
use crate::mongo::collection::{self, Creation};
use crate::mongo::{catalog, marker};
use crate::state::keys;
use crate::state::pages::{self, InventoryEntry, InventoryPage, PAGE, PreparedEntry, PreparedPage};
use futures_util::{StreamExt, TryStreamExt, stream};
use present::{Image, Present};
use sharding::Decided;
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
    let wanted = wanted(&entries, &binding.selection.renames)?;

    let begun = context.documents.read::<InventoryPage>(&keys::inventory_page(0)).await?.is_some();
    let is_any_there = begun || !context.documents.list("prepare/").await?.is_empty();
    let (existing, create_index) = choices(context, claim, is_any_there).await?;
    let sharding = sharding::decide(context, servers, &entries).await?;
    if !begun {
        refuse(context, servers, &job.id, (&wanted, &sharding), existing).await?;
        claim.ensure_may_send().await?;
        let was_there = marker::is_there(&servers.target, &job.id).await?;
        let targets: Vec<Namespace> = wanted.iter().map(|wanted| wanted.target.clone()).collect();
        crash::around("marker", marker::leave(&servers.target, &job.id, &job.name, &targets)).await?;
        // Another job may have done the same at the same time: both markers are there now, and both see the other's.
        if let Err(error) = present::refuse_other_jobs(context, servers, &job.id, &wanted).await {
            if !was_there {
                marker::remove(&servers.target, &job.id).await?;
            }
            return Err(error);
        }
        present::take_inventory(context, servers, &entries, &wanted, existing).await?;
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
            entry.kind.has_documents().then(|| maker.make_ready(entry, before))
        });
        let made_ready = stream::iter(make.collect::<Vec<_>>()).buffered(PARALLEL).try_collect().await;
        let collections = made_ready.map_err(changed_something)?;
        let prepared = PreparedPage { collections };
        made.extend(context.documents.create(&key, &prepared).await?.into_stored().value.collections);
    }
    let views = wanted.iter().filter(|wanted| wanted.entry.kind == CollectionKind::View).count();
    if views > 0 {
        let before = pages::read_inventory(&context.documents).await?;
        let made = views::make(&servers.target, claim, &wanted, &before).await;
        result.findings.extend(made.map_err(changed_something)?);
    }
    let created = made.iter().filter(|entry| entry.created).count();
    result.summary = format!("{created} collections created, {} kept", made.len() - created);
    if views > 0 {
        result.summary.push_str(&format!(", {} of {views} views", views - result.findings.len()));
    }
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
                binding.selection.renames.apply(&entry.namespace)
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
    let wanted = wanted(entries, &context.settings.renames)?;
    let id = servers.job.as_ref().map_or("", |job| &job.id);
    let present = refuse(context, servers, id, (&wanted, sharding), context.settings.existing).await?;
    Ok(present.len())
}

/// Refuses what cannot be made for the job of this id, before anything is changed; gives what is there.
async fn refuse(
    context: &Context,
    servers: &Servers,
    id: &str,
    (wanted, sharding): (&[Image<'_>], &Decided),
    existing: Existing,
) -> Result<Present> {
    let present = present::by_name(&servers.target, wanted).await?;
    present::refuse_other_cases(&catalog::databases(&servers.target).await?, wanted)?;
    // Before what is in the way: what another job has made there is not to be dropped or kept, but its.
    present::refuse_other_jobs(context, servers, id, wanted).await?;
    present::refuse_what_is_in_the_way(&servers.target, &present, wanted, existing).await?;
    sharding.check(context, servers, wanted, &present).await?;
    Ok(present)
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

/// What is to be on the target, by ordinal.
fn wanted<'a>(entries: &'a [CatalogEntry], renames: &Renames) -> Result<Vec<Image<'a>>> {
    let wanted = |entry: &'a CatalogEntry| {
        let options = match entry.kind {
            CollectionKind::View => view::renamed(&entry.namespace, &entry.options, renames)
                .map_err(|why| Error::bad_input(format!("the view {} cannot be copied: {why}", entry.namespace)))?,
            _ => entry.options.clone(),
        };
        Ok(Image { entry, target: renames.apply(&entry.namespace), options })
    };
    entries.iter().filter(|entry| entry.kind.is_copied()).map(wanted).collect()
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
        let documents_in = entry.kind.documents_of(name);
        if let (Some(uuid), Existing::Keep) = (&before.uuid, self.existing) {
            let sharding = sharding::current(self.servers, entry, &documents_in).await?;
            let (target, uuid) = (documents_in, uuid.clone());
            return Ok(PreparedEntry { ordinal, target, uuid, created: false, documents_before, sharding });
        }
        if let Some(uuid) = &before.uuid {
            let now = catalog::collection(target, name).await?.and_then(|listed| listed.uuid);
            if now.as_ref() == Some(uuid) {
                claim.ensure_may_send().await?;
                crash::around("drop", collection::drop_by_uuid(target, name, uuid)).await?;
            }
        }
        if let Some(view) = &before.view
            && catalog::collection(target, name).await?.is_some_and(|now| now.options == *view && now.uuid.is_none())
        {
            claim.ensure_may_send().await?;
            crash::around("drop", collection::drop_view(target, name)).await?;
        }
        claim.ensure_may_send().await?;
        let creation = crash::around("create", collection::create(target, name, &hold_options(&entry.options))).await?;
        if let Creation::Refused(why) = creation {
            return Err(Error::bad_input(format!("{why}; rename or exclude {}, in another --job", entry.namespace)));
        }
        let uuid = catalog::collection(target, name).await?.and_then(|listed| listed.uuid);
        let uuid = uuid.ok_or_else(|| {
            target.side.error(format!("{name} was created on the target and is not there; try again"))
        })?;
        // What a killed run of this job created is empty: documents come only after this step.
        if creation == Creation::Exists && !collection::is_empty(target, &documents_in).await? {
            return Err(Error::bad_input(format!(
                "somebody else created {name} on the target and filled it while this job prepared it; drop it, or use another --job"
            )));
        }
        let sharding = self.sharding.make(self.context, self.servers, claim, entry, (name, &uuid)).await?;
        if self.create_index == CreateIndex::Background {
            early_indexes::build(target, claim, entry, (&documents_in, &uuid)).await?;
        }
        Ok(PreparedEntry { ordinal, target: documents_in, uuid, created: true, documents_before: 0, sharding })
    }
}
