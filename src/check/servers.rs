//! What the servers are: reached, of which kind and version, with which clock.

use crate::clock;
use crate::context::{Context, Servers};
use crate::error::Result;
use crate::model::check::{Check, Row};
use crate::model::choice::ReadThrough;
use crate::model::feature::usable;
use crate::model::job::{CheckpointMap, JobRecord};
use crate::mongo::balancer::{self, Moving};
use crate::mongo::deployment::Deployment;
use crate::mongo::inspect;
use crate::source::Source;

/// How far a server's clock may be from this machine's, in seconds. Nothing here is decided by a clock; but times in logs and
/// in the state say something else than they seem to, TTL indexes delete by it, and S3 refuses what is a quarter of an hour off.
const CLOCKS_DIFFER_BY: u64 = 60;

/// What the state knows of the job.
pub fn job(context: &Context, (job, captured): &(Option<JobRecord>, Option<CheckpointMap>)) -> Row {
    let name = &context.settings.job;
    let found = match (job, captured) {
        (Some(JobRecord { created, .. }), _) => format!("job `{name}` was discovered at {created}"),
        (None, Some(CheckpointMap { captured, .. })) => {
            format!("job `{name}` was begun, and its checkpoint captured at {captured}")
        }
        (None, None) => format!("job `{name}` is not begun"),
    };
    Row::ok(Check::Job, "state", found)
}

/// That a deployment answers.
pub fn reached(deployment: &Deployment, about: &str) -> Row {
    Row::ok(Check::Reached, about, deployment.identity.to_string())
}

/// That the source answers, with all its parts.
pub fn reached_source(source: &Source) -> Vec<Row> {
    let mut rows = vec![reached(&source.main, "source")];
    if source.reads_shards() {
        rows.extend(source.shards.iter().map(|shard| reached(&shard.deployment, &format!("shard {}", shard.name))));
    }
    rows
}

/// That source and target are two.
pub fn two(servers: &Servers) -> Row {
    let found = format!("{} and {} are two deployments", servers.source.main.identity, servers.target.identity);
    Row::ok(Check::Deployments, "target", found)
}

/// What the source is.
///
/// # Errors
/// What does not answer.
pub async fn source(source: &Source) -> Result<Vec<Row>> {
    let mut rows = deployment(&source.main, "source").await?;
    if source.is_cluster {
        let through = match source.read {
            ReadThrough::Shards => {
                format!("a sharded cluster of {} shards, which are read directly", source.shards.len())
            }
            ReadThrough::Mongos => "a sharded cluster that is read through its mongos".to_owned(),
        };
        rows.insert(0, Row::ok(Check::Topology, "source", through));
    }
    Ok(rows)
}

/// What a deployment is, and of which version.
///
/// # Errors
/// What does not answer.
pub async fn deployment(deployment: &Deployment, about: &str) -> Result<Vec<Row>> {
    let kind = match (deployment.is_mongos(), deployment.identity.hosts.len()) {
        (true, _) => "a mongos of a sharded cluster".to_owned(),
        (false, 1) => "a replica set of one member".to_owned(),
        (false, members) => format!("a replica set of {members} members"),
    };
    let mut rows = vec![
        Row::ok(Check::Topology, about, kind),
        Row::ok(Check::Version, about, format!("MongoDB {}", deployment.version())),
    ];
    rows.push(match inspect::feature_compatibility(deployment).await? {
        Some((major, minor)) => {
            Row::ok(Check::FeatureCompatibility, about, format!("behaves as MongoDB {major}.{minor}"))
        }
        None if deployment.is_mongos() => {
            Row::not_looked_at(Check::FeatureCompatibility, about, "a mongos does not tell")
        }
        None => Row::not_looked_at(Check::FeatureCompatibility, about, "the user may not ask (getParameter)"),
    });
    Ok(rows)
}

/// How the versions go together, and what the target may use.
///
/// # Errors
/// What does not answer.
pub async fn versions(servers: &Servers) -> Result<(Vec<Row>, (i32, i32))> {
    let (source, target) = (&servers.source.main, &servers.target);
    let (of_source, of_target) =
        tokio::try_join!(inspect::feature_compatibility(source), inspect::feature_compatibility(target))?;
    let (newest, oldest) = (usable(source.version(), of_source), usable(target.version(), of_target));
    let text = |(major, minor)| format!("{major}.{minor}");
    let row = match newest > oldest {
        true => Row::warning(
            Check::Version,
            "target",
            format!("the source behaves as MongoDB {}, the target as the older {}", text(newest), text(oldest)),
            "update the target, or try first whether what reads it can do with that",
        ),
        false => Row::ok(
            Check::Version,
            "target",
            format!("behaves as MongoDB {}, which is not older than the source's {}", text(oldest), text(newest)),
        ),
    };
    Ok((vec![row], oldest))
}

/// A server's clock against this machine's.
///
/// # Errors
/// What does not answer.
pub async fn clock(deployment: &Deployment, about: &str) -> Result<Vec<Row>> {
    let Some(there) = inspect::local_time(deployment).await? else {
        return Ok(vec![Row::not_looked_at(Check::Clock, about, "the server tells no time")]);
    };
    let here = i64::try_from(clock::wall_milliseconds()).unwrap_or(i64::MAX);
    let seconds = there.abs_diff(here) / 1_000;
    let found = match seconds {
        0 => "as this machine's".to_owned(),
        _ => format!("{seconds} s {} this machine's", if there > here { "before" } else { "behind" }),
    };
    Ok(vec![match seconds < CLOCKS_DIFFER_BY {
        true => Row::ok(Check::Clock, about, found),
        false => Row::warning(Check::Clock, about, found, "set one of them; NTP does"),
    }])
}

/// Whether anything moves documents between shards.
///
/// # Errors
/// What does not answer.
pub async fn balancer(context: &Context, source: &Source) -> Result<Vec<Row>> {
    if !source.is_cluster {
        return Ok(Vec::new());
    }
    let concerned = |namespace: &_| context.settings.filter.lets_through(namespace);
    let moving = balancer::moving(&source.main, &source.members(), &concerned).await?;
    let row = match moving {
        None => Row::ok(Check::Balancer, "source", "off, and nothing moves"),
        Some(_) if context.settings.stop_balancer => {
            Row::ok(Check::Balancer, "source", "discover stops it, and waits until nothing moves (--stop-balancer)")
        }
        Some(Moving::Balancer) => {
            let error = crate::error::Error::bad_input(format!("{}, or say --stop-balancer yes", Moving::Balancer));
            Row::of_error(Check::Balancer, "source", &error)
        }
        Some(migration) => {
            Row::of_error(Check::Balancer, "source", &crate::error::Error::bad_input(migration.to_string()))
        }
    };
    Ok(vec![row])
}
