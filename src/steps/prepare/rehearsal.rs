//! prepare in a dry run: refuses what prepare refuses, makes nothing, and says what it would make.
//!
//! - Reads: the catalog, what the target has.
//! - Writes: `prepare/after-*` into the dry run's own state, as if everything had been made, so that it can be copied into.

use super::present::Image;
use super::{refuse, sharding, wanted};
use crate::context::{Context, Servers};
use crate::driver::{self, Finished, Outcome};
use crate::error::Result;
use crate::model::catalog::CollectionKind;
use crate::model::choice::Existing;
use crate::model::step::Step;
use crate::state::keys;
use crate::state::pages::{self, PAGE, PreparedEntry, PreparedPage};

/// The UUID of a collection that is not made.
const NOT_MADE: &str = "";

/// Runs the step.
///
/// # Errors
/// As prepare's own, before anything would be changed.
pub async fn run(context: &Context, servers: &Servers) -> Result<Outcome> {
    driver::run_whole(context, Step::Prepare, async |_claim| rehearse(context, servers).await).await
}

async fn rehearse(context: &Context, servers: &Servers) -> Result<Finished> {
    let (job, binding) = servers.bound()?;
    let existing = context.settings.existing;
    let entries = pages::read_catalog(&context.documents).await?;
    let wanted = wanted(&entries, &binding.selection.renames)?;
    let decided = sharding::decide(context, servers, &entries).await?;
    let present = refuse(context, servers, &job.id, (&wanted, &decided), existing).await?;

    let is_kept = |wanted: &Image<'_>| existing == Existing::Keep && present.contains_key(&wanted.target);
    let mut prepared = Vec::new();
    for wanted in wanted.iter().filter(|wanted| wanted.entry.kind.has_documents()) {
        let target = wanted.entry.kind.documents_of(&wanted.target);
        let there = present.get(&wanted.target).filter(|_| is_kept(wanted));
        let sharding = match there {
            Some(_) => sharding::current(servers, wanted.entry, &target).await?,
            None => None,
        };
        prepared.push(PreparedEntry {
            ordinal: wanted.entry.ordinal,
            target,
            uuid: there.and_then(|there| there.uuid.clone()).unwrap_or_else(|| NOT_MADE.to_owned()),
            created: there.is_none(),
            documents_before: 0,
            sharding,
        });
    }
    let kept = wanted.iter().filter(|wanted| is_kept(wanted)).count();
    let dropped = present.len() - kept;
    let views = wanted.iter().filter(|wanted| wanted.entry.kind == CollectionKind::View && !is_kept(wanted)).count();
    let made = wanted.len() - kept - views;
    for (page, entries) in (0..).zip(entries.chunks(PAGE)) {
        let is_of_page = |one: &&PreparedEntry| entries.iter().any(|entry| entry.ordinal == one.ordinal);
        let collections = prepared.iter().filter(is_of_page).cloned().collect();
        context.documents.create(&keys::prepared_page(page), &PreparedPage { collections }).await?;
    }
    let views = if views == 0 { String::new() } else { format!(" and {views} views") };
    let summary = format!("{made} collections{views} would be created, {dropped} dropped, {kept} kept");
    Ok(Finished { summary, ..Finished::default() })
}
