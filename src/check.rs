//! Looking before a job begins: everything that can be known to go wrong, in one table of rows. Nothing is changed on either
//! side, nor in the state but for the store's probe.
//!
//! `mongoferry check` ([`run`]) looks at all of it, and goes on where something fails. Discover looks at the same before it
//! changes anything ([`before_listing`]), and once it knows what there is ([`of_listing`]): what refuses there is bad input,
//! a warning is a note. What would take seconds with thousands of collections is for the command alone.

mod contents;
mod rights;
mod room;
mod servers;

use crate::config::CheckpointUri;
use crate::context::{Context, Servers};
use crate::error::{Error, Kind, Result};
use crate::model::catalog::CatalogEntry;
use crate::model::check::{Check, Row, Table};
use crate::model::step::Step;
use crate::mongo::deployment::Deployment;
use crate::mongo::failure::Side;
use crate::source::Source;
use crate::state::probe;
use crate::steps::{system, transforms};
use std::fmt::Display;

/// What is looked at on the source alone.
const OF_SOURCE: [Check; 11] = [
    Check::Topology,
    Check::Version,
    Check::FeatureCompatibility,
    Check::Clock,
    Check::Right,
    Check::Balancer,
    Check::Selection,
    Check::Kinds,
    Check::Expiry,
    Check::Documents,
    Check::OplogWindow,
];

/// What is looked at on the target alone.
const OF_TARGET: [Check; 5] =
    [Check::Topology, Check::Version, Check::FeatureCompatibility, Check::Clock, Check::Right];

/// What is looked at on both sides together.
const OF_BOTH: [Check; 7] = [
    Check::Deployments,
    Check::Names,
    Check::Sharding,
    Check::Features,
    Check::Indexes,
    Check::TargetContents,
    Check::Space,
];

/// The rows so far.
#[derive(Default)]
struct Looks {
    table: Table,
    /// Whether what does not answer ends it all.
    is_strict: bool,
}

impl Looks {
    /// Adds what came of a check; an error that is bad input refuses.
    fn add(&mut self, check: Check, about: impl Display, rows: Result<Vec<Row>>) -> Result<()> {
        match rows {
            Ok(rows) => self.table.extend(rows),
            Err(error) if self.is_strict && error.kind() != Kind::BadInput => return Err(error),
            Err(error) => self.table.extend([Row::of_error(check, about, &error)]),
        }
        Ok(())
    }

    fn not_looked_at(&mut self, checks: &[Check], about: &str, why: &str) {
        self.table.extend(checks.iter().map(|check| Row::not_looked_at(*check, about, why)));
    }
}

/// All checks, as `mongoferry check` shows them.
///
/// # Errors
/// None but those that a defect has: what fails is a row.
pub async fn run(context: &Context) -> Result<Table> {
    let mut looks = Looks::default();
    let store = context.documents.store();
    let probed = probe::probe(store.as_ref()).await;
    let found = format!("{} honours conditional writes", store.url());
    looks.add(Check::StateStore, "state", probed.map(|()| vec![Row::ok(Check::StateStore, "state", found)]))?;
    let known = context.known().await;
    looks.add(
        Check::Job,
        "state",
        known.as_ref().map(|known| vec![servers::job(context, known)]).map_err(Error::clone),
    )?;
    let (job, captured) = known.unwrap_or_default();
    let (source, target) = context.connect_each(Step::Discover, "check", captured.as_ref()).await;
    looks.add(Check::Reached, "source", source.as_ref().map(servers::reached_source).map_err(Error::clone))?;
    looks.add(
        Check::Reached,
        "target",
        target.as_ref().map(|it| vec![servers::reached(it, "target")]).map_err(Error::clone),
    )?;
    checkpoint_place(context, &mut looks).await?;
    match (source, target) {
        (Ok(source), Ok(target)) => both(context, &Servers { source, target, job }, &mut looks).await?,
        (Ok(source), Err(_)) => {
            of_source(context, &source, &mut looks).await?;
            let entries = contents::gather(context, &source).await;
            rights::add(&mut looks, rights::of_source(context, &source, entries.as_deref().ok()).await)?;
            looks.not_looked_at(&OF_TARGET, "target", "the target was not reached");
            looks.not_looked_at(&OF_BOTH, "target", "the target was not reached");
        }
        (Err(_), Ok(target)) => {
            of_target(context, &target, &mut looks).await?;
            rights::add(&mut looks, rights::of_target(context, &target, &[], None).await)?;
            looks.not_looked_at(&OF_SOURCE, "source", "the source was not reached");
            looks.not_looked_at(&OF_BOTH, "target", "the source was not reached");
        }
        (Err(_), Err(_)) => {
            looks.not_looked_at(&OF_SOURCE, "source", "the source was not reached");
            looks.not_looked_at(&OF_TARGET, "target", "the target was not reached");
            looks.not_looked_at(&OF_BOTH, "target", "neither side was reached");
        }
    }
    Ok(looks.table)
}

async fn both(context: &Context, servers: &Servers, looks: &mut Looks) -> Result<()> {
    let pair = context.check_pair(servers).await.map(|()| vec![servers::two(servers)]);
    looks.add(Check::Deployments, "target", pair)?;
    of_source(context, &servers.source, looks).await?;
    of_target(context, &servers.target, looks).await?;
    let entries = contents::gather(context, &servers.source).await;
    let listed = entries.as_deref().ok();
    rights::add(looks, rights::of_source(context, &servers.source, listed).await)?;
    rights::add(looks, rights::of_both(context, servers, listed).await)?;
    match entries {
        Ok(entries) => {
            listing(context, servers, &entries, looks).await?;
            looks.add(Check::Documents, "source", contents::documents(context, &servers.source, &entries).await)
        }
        Err(error) => {
            looks.add(Check::Selection, "source", Err(error))?;
            looks.not_looked_at(&OF_SOURCE[7..], "source", "the source was not listed");
            looks.not_looked_at(&OF_BOTH[1..], "target", "the source was not listed");
            Ok(())
        }
    }
}

async fn of_source(context: &Context, source: &Source, looks: &mut Looks) -> Result<()> {
    looks.add(Check::Topology, "source", servers::source(source).await)?;
    looks.add(Check::Clock, "source", servers::clock(&source.main, "source").await)?;
    looks.add(Check::Balancer, "source", servers::balancer(context, source).await)
}

async fn of_target(_: &Context, target: &Deployment, looks: &mut Looks) -> Result<()> {
    looks.add(Check::Topology, "target", servers::deployment(target, "target").await)?;
    looks.add(Check::Clock, "target", servers::clock(target, "target").await)
}

/// A place for the checkpoint beside the target.
async fn checkpoint_place(context: &Context, looks: &mut Looks) -> Result<()> {
    let CheckpointUri::Uri(uri) = &context.settings.checkpoint_uri else { return Ok(()) };
    let app_name = format!("mongoferry {} check", context.settings.job);
    let comment = context.comment(Step::Discover, "check");
    let place = Deployment::connect(Side::Checkpoint, uri, None, &app_name, comment).await;
    let about = Side::Checkpoint.to_string();
    looks.add(
        Check::Reached,
        &about,
        place.as_ref().map(|it| vec![servers::reached(it, &about)]).map_err(Error::clone),
    )?;
    match place {
        Ok(place) => rights::add(looks, rights::of_checkpoint(context, &place).await),
        Err(_) => Ok(()),
    }
}

/// What discover looks at before it does anything: rights, as far as they can be known before anything is listed.
///
/// # Errors
/// What does not answer.
pub async fn before_listing(context: &Context, servers: &Servers) -> Result<Table> {
    let mut looks = Looks { is_strict: true, ..Looks::default() };
    rights::add(&mut looks, rights::of_source(context, &servers.source, None).await)?;
    rights::add(&mut looks, rights::of_both(context, servers, None).await)?;
    Ok(looks.table)
}

/// What discover looks at when it has listed the source, before it writes down what it has found.
///
/// # Errors
/// What does not answer.
pub async fn of_listing(context: &Context, servers: &Servers, entries: &[CatalogEntry]) -> Result<Table> {
    let mut looks = Looks { is_strict: true, ..Looks::default() };
    rights::add(&mut looks, rights::of_source(context, &servers.source, Some(entries)).await)?;
    rights::add(&mut looks, rights::of_both(context, servers, Some(entries)).await)?;
    listing(context, servers, entries, &mut looks).await?;
    for (about, deployment) in [("source", &servers.source.main), ("target", &servers.target)] {
        looks.add(Check::Clock, about, servers::clock(deployment, about).await)?;
    }
    Ok(looks.table)
}

/// What there is on the source, and what it comes to on the target.
async fn listing(context: &Context, servers: &Servers, entries: &[CatalogEntry], looks: &mut Looks) -> Result<()> {
    looks.add(Check::Names, "target", contents::names(context, servers, entries).await)?;
    let special = contents::special(context, servers, entries).map(|()| Vec::new());
    looks.add(Check::Names, "target", special)?;
    let filters = transforms::check(context, servers, entries).await.map(|()| Vec::new());
    looks.add(Check::Selection, "source", filters)?;
    let system = system::check(context, servers, entries).await.map(|()| Vec::new());
    looks.add(Check::TargetContents, "target", system)?;
    let decided = crate::steps::prepare::sharding::decide(context, servers, entries).await;
    looks.add(Check::Sharding, "target", contents::sharding(servers, &decided))?;
    let (rows, usable) = servers::versions(servers).await?;
    looks.table.extend(rows);
    looks.table.extend(contents::kinds(entries));
    looks.table.extend(contents::features(entries, usable));
    looks.add(Check::Expiry, "source", contents::expiry(servers, entries).await)?;
    if let Ok(decided) = &decided {
        let there = contents::on_target(context, servers, entries, decided).await;
        looks.add(Check::TargetContents, "target", there)?;
    }
    looks.add(Check::Space, "target", room::space(servers, entries).await)?;
    looks.add(Check::OplogWindow, "source", room::oplogs(context, &servers.source, entries).await)
}
