//! What moves documents between the shards of a cluster: whether it does, keeping it from doing so, and putting back what
//! was set.
//!
//! Stopping writes what `balancerStop` on a mongos writes (mongo `src/mongo/s/balancer_configuration.cpp`), since that
//! command itself is a mongos's alone, and its counterpart on the config servers is for other servers. So it cannot wait
//! for the end of the balancer's round, as the command does: [`until_still`] looks for a while instead, and what it still
//! misses shows in the chunk maps.

use super::checkpoint::acknowledged;
use super::cluster;
use super::deployment::Deployment;
use super::failure::{code, code_of};
use super::majority;
use crate::clock;
use crate::error::{Error, Result};
use crate::model::balancer::BalancerSettings;
use crate::model::namespace::Namespace;
use bson::{Bson, Document, doc};
use futures_util::future::try_join_all;
use mongodb::error::Error as DriverError;
use std::fmt;
use std::time::Duration;

/// For how long nothing may move before it counts as still: a round of the balancer that began before it was stopped may
/// start one more migration.
const STILL_FOR: Duration = Duration::from_secs(2);

/// How often is looked.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// What moves documents, or may do so at any time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Moving {
    /// The balancer is on.
    Balancer,
    /// A migration goes on.
    Migration {
        /// Of which collection.
        namespace: String,
        /// From which shard.
        from: String,
        /// To which.
        to: String,
    },
}

impl Moving {
    fn migration(document: &Document, [namespace, from, to]: [&str; 3]) -> Self {
        let field = |name, unknown: &str| document.get_str(name).unwrap_or(unknown).to_owned();
        Moving::Migration {
            namespace: field(namespace, "a chunk"),
            from: field(from, "a shard"),
            to: field(to, "another"),
        }
    }
}

impl fmt::Display for Moving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Moving::Balancer => f.write_str(
                "the source's balancer is on, and may move documents between shards while they are read; stop it with `sh.stopBalancer()` on a mongos until the job is committed",
            ),
            Moving::Migration { namespace, from, to } => write!(
                f,
                "a migration goes on in the source: {namespace} from {from} to {to}; wait until it has ended"
            ),
        }
    }
}

/// What the balancer is set to as the primary has it: what a majority is known to have may be from before the last change, and
/// then that would be undone.
///
/// # Errors
/// As [`Deployment::failed`].
pub async fn settings(config: &Deployment) -> Result<BalancerSettings> {
    let command = doc! {
        "find": "settings",
        "filter": { "_id": { "$in": ["balancer", "autosplit"] } },
        "readConcern": { "level": "local" },
    };
    let found = config.collect("config", command).await;
    let found = found.map_err(|error| config.failed(&error).during("reading config.settings"))?;
    let of = |id: &str| found.iter().find(|document| document.get_str("_id").is_ok_and(|found| found == id));
    let balancer = of("balancer");
    Ok(BalancerSettings {
        mode: balancer.and_then(|balancer| balancer.get_str("mode").ok()).map(str::to_owned),
        stopped: balancer.and_then(|balancer| balancer.get_bool("stopped").ok()),
        autosplit: of("autosplit").and_then(|autosplit| autosplit.get_bool("enabled").ok()),
    })
}

/// Which collections are looked at: a migration of others is nobody's business.
pub type Concerned<'a> = &'a (dyn Fn(&Namespace) -> bool + Sync);

/// What moves documents just now, or may begin to. `members` are the cluster's shards, and may be its config servers too.
///
/// # Errors
/// As [`Deployment::failed`].
pub async fn moving(config: &Deployment, members: &[&Deployment], concerned: Concerned<'_>) -> Result<Option<Moving>> {
    let is_concerned = |migration: &&Document, field| {
        let namespace = migration.get_str(field).ok().and_then(|namespace| Namespace::parse(namespace).ok());
        namespace.is_none_or(|namespace| concerned(&namespace))
    };
    if !settings(config).await?.is_off() {
        return Ok(Some(Moving::Balancer));
    }
    // Those that the config servers have written down: not all, and not in every version.
    let scheduled = cluster::find(config, "config", "migrations", doc! {}).await?;
    if let Some(migration) = scheduled.iter().find(|migration| is_concerned(migration, "ns")) {
        return Ok(Some(Moving::migration(migration, ["ns", "fromShard", "toShard"])));
    }
    // Those that a shard has begun to give, whoever asked it to: until it is decided whose the chunk is.
    let undecided = || doc! { "decision": { "$exists": false } };
    let looks = members.iter().map(|member| cluster::find(member, "config", "migrationCoordinators", undecided()));
    let given = try_join_all(looks).await?;
    let first = given.iter().flatten().find(|migration| is_concerned(migration, "nss"));
    Ok(first.map(|migration| Moving::migration(migration, ["nss", "donorShardId", "recipientShardId"])))
}

/// Waits until no migration went on for a while, with the balancer off.
///
/// # Errors
/// Source unavailable, with the migration, when one still goes on `within` this time; bad input when the balancer is on.
pub async fn until_still(
    config: &Deployment,
    members: &[&Deployment],
    concerned: Concerned<'_>,
    within: Duration,
) -> Result<()> {
    let began = clock::monotonic();
    let mut still_since = None;
    let mut was_said = false;
    loop {
        match moving(config, members, concerned).await? {
            None if still_since.get_or_insert_with(clock::monotonic).elapsed() >= STILL_FOR => return Ok(()),
            None => {}
            Some(Moving::Balancer) => return Err(Error::bad_input(Moving::Balancer.to_string())),
            Some(migration) if began.elapsed() >= within => {
                return Err(config.side.error(format!("{migration}, and run this again")));
            }
            Some(migration) => {
                still_since = None;
                if !std::mem::replace(&mut was_said, true) {
                    tracing::info!("waiting: {migration}");
                }
            }
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Stops the balancer. Once more changes nothing.
///
/// # Errors
/// Bad input, with the command to run by hand, when the user may not: then nothing was changed. Else as
/// [`Deployment::failed`].
pub async fn stop(config: &Deployment) -> Result<()> {
    let mut updates = vec![doc! {
        "q": { "_id": "balancer" }, "u": { "$set": { "mode": "off", "stopped": true } }, "upsert": true,
    }];
    if config.splits_chunks() {
        updates.push(doc! { "q": { "_id": "autosplit" }, "u": { "$set": { "enabled": false } }, "upsert": true });
    }
    match write(config, updates).await {
        Err(error) if code_of(&error) == Some(code::UNAUTHORIZED) => Err(Error::bad_input(format!(
            "{}; the balancer is as it was: run `sh.stopBalancer()` on a mongos and leave out --stop-balancer, or give the user the role clusterManager",
            config.failed(&error)
        ))),
        Err(error) => Err(config.failed(&error)),
        Ok(reply) => acknowledged(config, &reply, "that its balancer is stopped"),
    }
}

/// Puts back what the balancer was set to before [`stop`], unless somebody has turned it on by now.
///
/// # Errors
/// As [`Deployment::failed`].
pub async fn restore(config: &Deployment, found: &BalancerSettings) -> Result<()> {
    if !settings(config).await?.is_off() {
        return Ok(());
    }
    // The balancer last: once it is on, all is as it was.
    let mut updates = Vec::new();
    if config.splits_chunks() && found.autosplit != Some(false) {
        let autosplit = back([("enabled", found.autosplit.map(Bson::from))]);
        updates.push(doc! { "q": { "_id": "autosplit" }, "u": autosplit });
    }
    let balancer = [("mode", found.mode.as_deref().map(Bson::from)), ("stopped", found.stopped.map(Bson::from))];
    updates.push(doc! { "q": { "_id": "balancer" }, "u": back(balancer) });
    let reply = write(config, updates).await.map_err(|error| config.failed(&error))?;
    acknowledged(config, &reply, "that its balancer is started again")
}

/// The update that gives each field its value again, or takes it away where it had none. Servers before 5.0 refuse an
/// operator without fields.
fn back(fields: impl IntoIterator<Item = (&'static str, Option<Bson>)>) -> Document {
    let (mut set, mut unset) = (Document::new(), Document::new());
    for (field, value) in fields {
        match value {
            Some(value) => set.insert(field, value),
            None => unset.insert(field, true),
        };
    }
    let operators = [("$set", set), ("$unset", unset)].into_iter().filter(|(_, fields)| !fields.is_empty());
    operators.map(|(operator, fields)| (operator.to_owned(), Bson::from(fields))).collect()
}

async fn write(config: &Deployment, updates: Vec<Document>) -> Result<Document, DriverError> {
    config.run("config", doc! { "update": "settings", "updates": updates, "writeConcern": majority() }).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_set_is_taken_away_again() {
        let fields = [("mode", Some(Bson::from("full"))), ("stopped", None)];
        assert_eq!(back(fields), doc! { "$set": { "mode": "full" }, "$unset": { "stopped": true } });
        assert_eq!(back([("enabled", None)]), doc! { "$unset": { "enabled": true } });
    }
}
