//! Stopping the source's balancer for the time of the job (`--stop-balancer`), and starting it again, whatever happens in
//! between: what it was set to is in the state before anything is changed.
//!
//! Discover stops it, commit and `abandon` start it again. A discover that ends with bad input does so too, since that is
//! said to change nothing.

use crate::claim::Claim;
use crate::clock;
use crate::context::Context;
use crate::crash;
use crate::error::{Error, Kind, Result};
use crate::model::balancer::BalancerRecord;
use crate::model::namespace::Namespace;
use crate::model::work::StepProgress;
use crate::mongo::balancer::{self, Moving};
use crate::mongo::deployment::Deployment;
use crate::source::Source;
use crate::state::document::{Created, Replaced};
use crate::state::keys;
use serde_json::json;
use std::time::Duration;

/// For how long migrations are waited for that go on when the balancer is stopped: a chunk of the usual 128 MB takes
/// seconds, one that a busy shard is given minutes.
const MIGRATIONS_END_WITHIN: Duration = Duration::from_secs(600);

/// How often the record is written when another worker was faster. Only one that lost its claim can be.
const ATTEMPTS: u32 = 10;

/// Before anything is captured: nothing may move documents between shards any more. With `--stop-balancer yes` the balancer
/// is stopped for that, and migrations are waited for. One that is off already stays as it is.
///
/// # Errors
/// Bad input when the balancer is on, or may not be stopped; source unavailable when a migration does not end; fenced when
/// the claim was lost.
pub async fn still_source(context: &Context, source: &Source, claim: &Claim<StepProgress>) -> Result<()> {
    if !context.settings.stop_balancer {
        return match moving(context, source).await? {
            Some(Moving::Balancer) => {
                Err(Error::bad_input(format!("{}, or say --stop-balancer yes", Moving::Balancer)))
            }
            Some(migration) => Err(Error::bad_input(migration.to_string())),
            None => Ok(()),
        };
    }
    if intend(context, &source.main).await?.is_owed() {
        claim.ensure_may_send().await?;
        crash::around("stop-balancer", balancer::stop(&source.main)).await?;
        context.journal.record("balancer", json!({ "is": "stopped" }));
        tracing::info!("the source's balancer is stopped until the job is committed or abandoned");
    }
    let members = source.members();
    let concerned = |namespace: &Namespace| context.settings.filter.lets_through(namespace);
    balancer::until_still(&source.main, &members, &concerned, MIGRATIONS_END_WITHIN).await
}

/// Makes sure that nothing moves documents between shards.
///
/// # Errors
/// Bad input, with the way out.
pub async fn ensure_still(context: &Context, source: &Source) -> Result<()> {
    match moving(context, source).await? {
        None => Ok(()),
        Some(Moving::Balancer) if owed(context).await?.is_some() => Err(Error::bad_input(format!(
            "somebody has started the balancer again, which this job had stopped: {}",
            Moving::Balancer
        ))),
        Some(moving) => Err(Error::bad_input(moving.to_string())),
    }
}

async fn moving(context: &Context, source: &Source) -> Result<Option<Moving>> {
    let members = source.members();
    let concerned = |namespace: &Namespace| context.settings.filter.lets_through(namespace);
    balancer::moving(&source.main, &members, &concerned).await
}

/// Writes down what the balancer is set to. What an earlier run found, and has to be put back still, stays.
async fn intend(context: &Context, config: &Deployment) -> Result<BalancerRecord> {
    for _ in 0..ATTEMPTS {
        let recorded = context.documents.read::<BalancerRecord>(keys::BALANCER).await?;
        if let Some(recorded) = recorded.as_ref().filter(|recorded| recorded.value.is_owed()) {
            return Ok(recorded.value.clone());
        }
        let record = BalancerRecord {
            source: config.identity.clone(),
            found: balancer::settings(config).await?,
            read: clock::wall(),
            restored: None,
        };
        let is_written = match &recorded {
            None => matches!(context.documents.create(keys::BALANCER, &record).await?, Created::Mine(_)),
            Some(recorded) => {
                matches!(context.documents.replace(keys::BALANCER, &record, recorded).await?, Replaced::Mine(_))
            }
        };
        if is_written {
            return Ok(record);
        }
    }
    Err(changes_all_the_time(context))
}

/// The record of a balancer that is to be started again; `None` when there is nothing to do.
///
/// # Errors
/// Those of the state store.
pub async fn owed(context: &Context) -> Result<Option<BalancerRecord>> {
    let recorded = context.documents.read::<BalancerRecord>(keys::BALANCER).await?;
    Ok(recorded.map(|recorded| recorded.value).filter(BalancerRecord::is_owed))
}

/// Starts the balancer again if this job has stopped it, and writes down that it has.
///
/// # Errors
/// Source unavailable, whatever the reason is, with the command to run by hand. Those of the state store.
pub async fn restore(context: &Context, config: &Deployment) -> Result<()> {
    let Some(record) = owed(context).await? else { return Ok(()) };
    if !record.source.still_is(&config.identity) && !record.source.is_same_as(&config.identity) {
        let (recorded, now) = (&record.source, &config.identity);
        return Err(by_hand(format!("it is that of `{recorded}`, and the config servers are now `{now}`")));
    }
    crash::around("start-balancer", balancer::restore(config, &record.found)).await.map_err(by_hand)?;
    for _ in 0..ATTEMPTS {
        let Some(recorded) = context.documents.read::<BalancerRecord>(keys::BALANCER).await? else { return Ok(()) };
        if !recorded.value.is_owed() {
            return Ok(());
        }
        let restored = BalancerRecord { restored: Some(clock::wall()), ..recorded.value.clone() };
        if let Replaced::Mine(_) = context.documents.replace(keys::BALANCER, &restored, &recorded).await? {
            context.journal.record("balancer", json!({ "is": "restored" }));
            tracing::info!("the source's balancer is set to what it was before the job");
            return Ok(());
        }
    }
    Err(changes_all_the_time(context))
}

/// The result of discover, which has changed nothing when it says that its input is bad.
///
/// # Errors
/// The result's; source unavailable when the balancer cannot be started again.
pub async fn restored_after<T>(context: &Context, config: &Deployment, result: Result<T>) -> Result<T> {
    match result {
        Err(error) if error.kind() == Kind::BadInput => match restore(context, config).await {
            Ok(()) => Err(error),
            Err(other) => Err(Error::source(format!("{error}; and {other}"))),
        },
        result => result,
    }
}

/// What is said when the balancer stays off.
pub fn by_hand(why: impl std::fmt::Display) -> Error {
    Error::source(format!(
        "the source's balancer, which this job has stopped, was not started again: {why}; start it with `sh.startBalancer()` on a mongos, and run this again"
    ))
}

fn changes_all_the_time(context: &Context) -> Error {
    Error::busy(format!("{} changes all the time; try again", context.documents.name(keys::BALANCER)))
}
