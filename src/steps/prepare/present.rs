//! What the target has under the names that the job wants: what of it is in the way, and the inventory, which says what
//! was there before anything was changed.

use crate::context::{Context, Servers};
use crate::error::{Error, Result};
use crate::model::catalog::{CatalogEntry, CollectionKind, option_differences};
use crate::model::choice::Existing;
use crate::model::namespace::Namespace;
use crate::model::renames::case_clashes;
use crate::mongo::catalog::{self, Listed};
use crate::mongo::deployment::Deployment;
use crate::mongo::{collection, marker};
use crate::state::keys;
use crate::state::pages::{InventoryEntry, InventoryPage, PAGE};
use crate::steps::discover::names;
use std::collections::{BTreeMap, BTreeSet};

/// What a collection or view of the source becomes on the target.
pub struct Image<'a> {
    /// As the source has it.
    pub entry: &'a CatalogEntry,
    /// Its name on the target.
    pub target: Namespace,
    /// Its options on the target.
    pub options: serde_json::Value,
}

/// What the target has now, by the names that are wanted.
pub type Present = BTreeMap<Namespace, Listed>;

/// What has the targets' names now.
///
/// # Errors
/// As [`Deployment::failed`].
pub async fn by_name(target: &Deployment, wanted: &[Image<'_>]) -> Result<Present> {
    let names: BTreeSet<&Namespace> = wanted.iter().map(|wanted| &wanted.target).collect();
    let databases: BTreeSet<&str> = names.iter().map(|name| name.db()).collect();
    let mut present = BTreeMap::new();
    for database in databases {
        let listed = catalog::collections(target, database).await?;
        present.extend(listed.into_iter().filter(|listed| names.contains(&listed.namespace)).map(|listed| {
            let name = listed.namespace.clone();
            (name, listed)
        }));
    }
    Ok(present)
}

/// A server that has a database refuses one whose name differs in case alone.
///
/// # Errors
/// Bad input, with their names.
pub fn refuse_other_cases(databases: &[String], wanted: &[Image<'_>]) -> Result<()> {
    let names = databases.iter().map(String::as_str).chain(wanted.iter().map(|wanted| wanted.target.db()));
    match case_clashes(names).first() {
        None => Ok(()),
        Some(clash) => Err(Error::bad_input(format!(
            "the databases {} differ only in case, and the target, which has one of them, refuses the other; rename or exclude it",
            clash.join(", ")
        ))),
    }
}

/// Whether what is there may stay, or be dropped, as `--existing` says.
///
/// # Errors
/// Bad input, with its name and the way out.
pub async fn refuse_what_is_in_the_way(
    target: &Deployment,
    present: &Present,
    wanted: &[Image<'_>],
    existing: Existing,
) -> Result<()> {
    match existing {
        Existing::Refuse if !present.is_empty() => {
            let in_the_way: Vec<Namespace> = present.keys().cloned().collect();
            Err(Error::bad_input(format!(
                "the target has {} already; say --existing drop or keep, rename or exclude them",
                names(&in_the_way)
            )))
        }
        Existing::Refuse | Existing::Drop => Ok(()),
        Existing::Keep => {
            for wanted in wanted {
                if let Some(there) = present.get(&wanted.target) {
                    refuse_to_keep(target, there, wanted).await?;
                }
            }
            Ok(())
        }
    }
}

/// What cannot be added to.
async fn refuse_to_keep(target: &Deployment, there: &Listed, wanted: &Image<'_>) -> Result<()> {
    let name = &wanted.target;
    let refused = |why: String| {
        Err(Error::bad_input(format!(
            "--existing keep: {name} on the target {why}; rename or exclude it, or say --existing drop"
        )))
    };
    let kind = wanted.entry.kind;
    if there.kind != kind {
        return refused(format!("is a {}, and the source's is a {}", there.kind.text(), kind.text()));
    }
    let differences = match kind {
        CollectionKind::View => option_differences(&wanted.options, &there.options),
        // What a bucket may hold follows from these.
        CollectionKind::TimeSeries if wanted.options.get("timeseries") != there.options.get("timeseries") => {
            option_differences(&wanted.options, &there.options)
        }
        _ => Vec::new(),
    };
    if let Some(difference) = differences.first() {
        return refused(format!("is another {} than the source's: {difference}", kind.text()));
    }
    if kind == CollectionKind::Capped && !collection::is_empty(target, name).await? {
        return refused("is capped and has documents, among which others have no place".into());
    }
    Ok(())
}

/// Whether another job than this one has these names.
///
/// # Errors
/// Bad input, with that job.
pub async fn refuse_other_jobs(context: &Context, servers: &Servers, id: &str, wanted: &[Image<'_>]) -> Result<()> {
    let targets: Vec<Namespace> = wanted.iter().map(|wanted| wanted.target.clone()).collect();
    for overlap in marker::overlaps(&servers.target, id, &targets).await? {
        if !overlap.committed {
            return Err(Error::bad_input(format!(
                "job `{}` ({}) has claimed {} on this target and is not finished; finish it, or `mongoferry abandon --job {}`",
                overlap.job,
                overlap.id,
                names(&overlap.namespaces),
                overlap.job
            )));
        }
        if context.settings.existing == Existing::Drop && !context.settings.drop_committed {
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

/// Writes down what has each name before anything is changed: collections by UUID, views by what they are. The marker is
/// there already, so what appears later under these names is this job's.
///
/// # Errors
/// Bad input for what came in the way meanwhile; then the marker is removed.
pub async fn take_inventory(
    context: &Context,
    servers: &Servers,
    entries: &[CatalogEntry],
    wanted: &[Image<'_>],
    existing: Existing,
) -> Result<()> {
    let target = &servers.target;
    let present = by_name(target, wanted).await?;
    if let Err(error) = refuse_what_is_in_the_way(target, &present, wanted, existing).await {
        let (job, _) = servers.bound()?;
        marker::remove(target, &job.id).await?;
        return Err(error);
    }
    let by_ordinal: BTreeMap<_, _> = wanted.iter().map(|wanted| (wanted.entry.ordinal, wanted)).collect();
    // The first page is written last: that it is there says that all are.
    for (page, entries) in (0..).zip(entries.chunks(PAGE)).collect::<Vec<_>>().into_iter().rev() {
        let mut collections = Vec::new();
        for wanted in entries.iter().filter_map(|entry| by_ordinal.get(&entry.ordinal)) {
            let there = present.get(&wanted.target);
            let uuid = there.and_then(|there| there.uuid.clone());
            let view = there.filter(|there| there.kind == CollectionKind::View).map(|there| there.options.clone());
            let documents = match (&uuid, existing) {
                (Some(_), Existing::Keep) => {
                    catalog::count(target, &wanted.entry.kind.documents_of(&wanted.target)).await?
                }
                _ => 0,
            };
            let (ordinal, target) = (wanted.entry.ordinal, wanted.target.clone());
            collections.push(InventoryEntry { ordinal, target, uuid, view, documents });
        }
        // One that is there already was written by a run that was killed in this loop, before anything was changed.
        context.documents.create(&keys::inventory_page(page), &InventoryPage { collections }).await?;
    }
    Ok(())
}
