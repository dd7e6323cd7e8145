//! Asking each server what its user may do, and holding that against what is needed ([`crate::model::rights`]).

use super::Looks;
use crate::config::{CheckpointUri, Settings};
use crate::context::{Context, Servers};
use crate::error::Result;
use crate::model::catalog::{CatalogEntry, CollectionKind};
use crate::model::check::{Check, Row};
use crate::model::choice::{CheckpointMode, Existing, ReadThrough};
use crate::model::filter::Pattern;
use crate::model::namespace::{Namespace, SPECIAL_DATABASES};
use crate::model::rights::Need;
use crate::model::rights::needs::{self, Copied, SourceModes, SourcePart, TargetModes, checkpoint};
use crate::model::system::{Scope, SystemKind};
use crate::mongo::deployment::Deployment;
use crate::mongo::{catalog, inspect, system};
use crate::source::Source;
use std::collections::BTreeSet;

/// Adds the rows of some deployment.
pub fn add(looks: &mut Looks, (about, rows): (&str, Result<Vec<Row>>)) -> Result<()> {
    looks.add(Check::Right, about, rows)
}

/// The rights on all deployments of the source. Without `entries` nobody knows yet what there is.
pub async fn of_source(
    context: &Context,
    source: &Source,
    entries: Option<&[CatalogEntry]>,
) -> (&'static str, Result<Vec<Row>>) {
    ("source", source_rows(context, source, entries).await)
}

async fn source_rows(context: &Context, source: &Source, entries: Option<&[CatalogEntry]>) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let is_routed = source.is_cluster && source.read == ReadThrough::Shards;
    if is_routed {
        rows.extend(part_rows(context, source, &source.main, ("source", None), SourcePart::Routing, entries).await?);
    }
    for shard in &source.shards {
        let (part, about, name) = match (source.is_cluster, source.read) {
            (false, _) => (SourcePart::Set, "source".to_owned(), None),
            (true, ReadThrough::Shards) => {
                (SourcePart::Shard, format!("shard {}", shard.name), Some(shard.name.as_str()))
            }
            (true, ReadThrough::Mongos) => (SourcePart::Mongos, "source".to_owned(), None),
        };
        rows.extend(part_rows(context, source, &shard.deployment, (&about, name), part, entries).await?);
    }
    if source.is_cluster && source.read == ReadThrough::Mongos {
        for stream in &source.streams {
            let about = format!("shard {}", stream.identity.set_name);
            rows.extend(part_rows(context, source, stream, (&about, None), SourcePart::Oplog, entries).await?);
        }
    }
    Ok(rows)
}

async fn part_rows(
    context: &Context,
    source: &Source,
    deployment: &Deployment,
    (about, shard): (&str, Option<&str>),
    part: SourcePart,
    entries: Option<&[CatalogEntry]>,
) -> Result<Vec<Row>> {
    let settings = &context.settings;
    let (user, privileges) = inspect::privileges(deployment).await?;
    let is_special = |database: &String| SPECIAL_DATABASES.contains(&database.as_str());
    let mut visible = catalog::databases(deployment).await?;
    visible.retain(|database| !is_special(database));
    let copied = match entries {
        Some(entries) => {
            let is_here =
                |entry: &&CatalogEntry| shard.is_none_or(|name| entry.parts.iter().any(|part| part.shard == name));
            let all = entries.iter().filter(|entry| entry.kind.has_documents());
            Copied::Collections(all.filter(is_here).map(CatalogEntry::documents_in).collect())
        }
        None => Copied::Databases(wanted(context, &visible)),
    };
    let modes = SourceModes {
        part,
        copied: &copied,
        visible: &visible,
        is_everything: settings.filter.include().is_empty(),
        mode: source.mode,
        read_order: settings.read_order,
        stop_balancer: settings.stop_balancer,
    };
    let mut needs = modes.needs();
    needs.extend(entries.into_iter().flat_map(|entries| reading_system(context, part, entries)));
    Ok(said(about, user.as_deref(), privileges.rows(about, &needs)))
}

/// The rights on the target.
pub async fn of_both(
    context: &Context,
    servers: &Servers,
    entries: Option<&[CatalogEntry]>,
) -> (&'static str, Result<Vec<Row>>) {
    let visible = match catalog::databases(&servers.source.main).await {
        Ok(visible) => visible,
        Err(error) => return ("source", Err(error)),
    };
    of_target(context, &servers.target, &visible, entries).await
}

/// The rights on the target, where the source has these databases.
pub async fn of_target(
    context: &Context,
    target: &Deployment,
    visible: &[String],
    entries: Option<&[CatalogEntry]>,
) -> (&'static str, Result<Vec<Row>>) {
    ("target", target_rows(context, target, visible, entries).await)
}

async fn target_rows(
    context: &Context,
    target: &Deployment,
    visible: &[String],
    entries: Option<&[CatalogEntry]>,
) -> Result<Vec<Row>> {
    let settings = &context.settings;
    let (user, privileges) = inspect::privileges(target).await?;
    let to_target = |entry: &CatalogEntry| settings.renames.apply(&entry.namespace);
    let those = |is_one: fn(&CatalogEntry) -> bool| -> Vec<Namespace> {
        entries.unwrap_or_default().iter().filter(|entry| is_one(entry)).map(to_target).collect()
    };
    let copied = match entries {
        Some(entries) => {
            let all = entries.iter().filter(|entry| entry.kind.has_documents());
            Copied::Collections(all.map(|entry| entry.kind.documents_of(&to_target(entry))).collect())
        }
        None => {
            // Renames of single collections are looked at once they are known.
            let target = |database: String| settings.renames.apply(&Namespace::new(database, "")).db().to_owned();
            let databases: BTreeSet<String> = wanted(context, visible).into_iter().map(target).collect();
            Copied::Databases(databases.into_iter().collect())
        }
    };
    let has_checkpoint =
        settings.checkpoint_mode != Some(CheckpointMode::None) && settings.checkpoint_uri == CheckpointUri::Target;
    let modes = TargetModes {
        copied: &copied,
        existing: settings.existing,
        create_index: settings.create_index,
        expiring: &those(|entry| entry.expires()),
        capped: &those(|entry| entry.kind == CollectionKind::Capped),
        checkpoint: has_checkpoint.then_some(&settings.checkpoint_namespace),
        is_mongos: target.is_mongos(),
        zones: settings.sharding.zones,
    };
    let mut needs = modes.needs();
    needs.extend(entries.into_iter().flat_map(|entries| writing_system(context, entries)));
    Ok(said("target", user.as_deref(), privileges.rows("target", &needs)))
}

/// What `--include-system` reads of the source's main deployment. In which shard of a cluster that is read directly a
/// database's functions are is known when they are read.
fn reading_system(context: &Context, part: SourcePart, entries: &[CatalogEntry]) -> Vec<Need> {
    let scope = scope(context, entries);
    let databases: Vec<&str> = scope.databases.iter().map(String::as_str).collect();
    let is_here = |kind: &SystemKind| match part {
        SourcePart::Set | SourcePart::Mongos => true,
        SourcePart::Routing => *kind != SystemKind::Function,
        SourcePart::Shard | SourcePart::Oplog => false,
    };
    let kinds = context.settings.include_system.kinds().filter(is_here);
    kinds.map(|kind| needs::reading_system(kind, &databases)).collect()
}

/// What `--include-system` writes to the target.
fn writing_system(context: &Context, entries: &[CatalogEntry]) -> Vec<Need> {
    let Settings { renames, existing, include_system, .. } = context.settings.as_ref();
    let scope = scope(context, entries);
    let databases: Vec<&str> = scope.databases.iter().map(|db| renames.database(db)).collect();
    let replaces = *existing == Existing::Drop;
    // A job has no id yet; what the name is like decides nothing.
    let needs = |kind| needs::writing_system(kind, &databases, &system::temporary(kind, ""), replaces);
    include_system.kinds().flat_map(needs).collect()
}

fn scope<'a>(context: &'a Context, entries: &[CatalogEntry]) -> Scope<'a> {
    Scope::new(entries, &context.settings.filter, &context.settings.renames)
}

/// The rights where the checkpoint goes beside the target.
pub async fn of_checkpoint(context: &Context, place: &Deployment) -> (&'static str, Result<Vec<Row>>) {
    let about = "checkpoint's deployment";
    let rows = async {
        let (user, privileges) = inspect::privileges(place).await?;
        let needs: [Need; 1] = [checkpoint(&context.settings.checkpoint_namespace)];
        Ok(said(about, user.as_deref(), privileges.rows(about, &needs)))
    };
    (about, rows.await)
}

/// With whom it was asked for first.
fn said(about: &str, user: Option<&str>, rows: Vec<Row>) -> Vec<Row> {
    let who = match user {
        Some(user) => format!("the user is {user}"),
        None => "the server asks nobody for a user".to_owned(),
    };
    std::iter::once(Row::ok(Check::Right, about, who)).chain(rows).collect()
}

/// The databases that are copied, as far as the filter alone tells.
fn wanted(context: &Context, visible: &[String]) -> Vec<String> {
    let filter = &context.settings.filter;
    let named = |pattern: &Pattern| {
        let database = match pattern {
            Pattern::Database(database) => database,
            Pattern::Collection(namespace) => namespace.db(),
        };
        // Also what the user does not see; which databases a pattern means, only those say that there are.
        (!database.contains('*')).then(|| database.to_owned())
    };
    let all = visible.iter().cloned().chain(filter.include().iter().filter_map(named));
    let all: BTreeSet<String> = all.filter(|database| filter.may_copy_of(database)).collect();
    all.into_iter().collect()
}
