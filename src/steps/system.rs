//! Functions, roles and users (`--include-system`): looked at by discover, copied by commit, last of all, so that nobody
//! logs in before there is something to see.
//!
//! - Reads: `system.js` of the databases of which something is copied, `admin.system.roles`, `admin.system.users`, on both
//!   sides. Users come from the source as it is at commit, and are kept nowhere in between: not in the state, nor in a log.
//! - Writes: those that the target does not have; with `--existing drop` also those that it has in another way.
//! - Resumes by: looking again. What is there as it should be is passed over.
//!
//! The choice is no part of what a job is bound to: what commit is told counts. Discover refuses what it is told early.

use crate::claim::Claim;
use crate::context::{Context, Servers};
use crate::crash;
use crate::driver;
use crate::error::{Error, Result};
use crate::model::catalog::CatalogEntry;
use crate::model::choice::Existing;
use crate::model::cursor::Key;
use crate::model::finding::Note;
use crate::model::namespace::Namespace;
use crate::model::step::Step;
use crate::model::system::{Compared, Item, Login, Scope, SystemKind, collision};
use crate::model::work::StepProgress;
use crate::mongo::cluster::{self, Routing};
use crate::mongo::deployment::Deployment;
use crate::mongo::failure::{code, code_of};
use crate::mongo::{inspect, read, system};
use mongodb::error::Error as DriverError;
use std::sync::Arc;

/// How many a message lists before it counts the rest.
const NAMED: usize = 5;

/// What there is of one kind.
#[derive(Debug)]
struct Survey {
    kind: SystemKind,
    compared: Compared,
    /// Those that mongoferry itself works as on the target: they are never changed.
    own: Vec<Item>,
    /// Those that are not copied, since nothing of their databases is.
    left_out: Vec<String>,
}

/// What came of copying.
#[derive(Debug, Default)]
pub struct Copied {
    /// How many of each kind are on the target, in words; empty where none were asked for.
    pub summary: String,
    /// What a person should know.
    pub notes: Vec<Note>,
}

/// Looks whether what is to be copied can be, before anything is changed.
///
/// # Errors
/// Bad input for what the target has already in another way, and for two that would be one there.
pub async fn check(context: &Context, servers: &Servers, entries: &[CatalogEntry]) -> Result<()> {
    let (settings, target) = (&context.settings, &servers.target);
    if settings.include_system.is_empty() {
        return Ok(());
    }
    let login = inspect::login(target).await?;
    let scope = Scope::new(entries, &settings.filter, &settings.renames);
    let surveys = survey(context, servers, &scope, &login).await?;
    match in_the_way(&surveys) {
        Some((kind, there)) if settings.existing == Existing::Refuse => Err(Error::bad_input(format!(
            "the target has {there} already, with other content; say --existing drop to replace {it}, --existing keep to leave {it} as it is, or leave {} out of --include-system",
            kind.word(),
            it = if there.contains(" and ") || there.contains(", ") { "them" } else { "it" },
        ))),
        _ => Ok(()),
    }
}

/// What commit is going to do, in words; nothing is changed.
///
/// # Errors
/// What cannot be read.
pub async fn rehearse(context: &Context, servers: &Servers, entries: &[CatalogEntry]) -> Result<String> {
    if context.settings.include_system.is_empty() {
        return Ok(String::new());
    }
    let scope = Scope::new(entries, &context.settings.filter, &context.settings.renames);
    let login = inspect::login(&servers.target).await?;
    let surveys = survey(context, servers, &scope, &login).await?;
    let each = surveys.iter().map(|survey| {
        let Compared { missing, other, .. } = &survey.compared;
        let replaced = if context.settings.existing == Existing::Drop { other.len() } else { 0 };
        let count = missing.len() + replaced;
        format!("{count} {}", survey.kind.noun(count))
    });
    Ok(each.collect::<Vec<_>>().join(", "))
}

/// Copies what was asked for, and removes what a killed run has left.
///
/// # Errors
/// Findings where the target has one in another way and it was not said what to do about it; target unavailable for what
/// it does not take.
pub async fn copy(
    context: &Context,
    servers: &Servers,
    claim: &Arc<Claim<StepProgress>>,
    entries: &[CatalogEntry],
) -> Result<Copied> {
    let (job, binding) = servers.bound()?;
    let target = &servers.target;
    // Another run of this job may have had another choice.
    crash::around("system-clean", system::clean(target, &job.id)).await?;
    if context.settings.include_system.is_empty() {
        return Ok(Copied::default());
    }
    let prepared = driver::step_work(context, Step::Prepare).await?;
    let existing = prepared.and_then(|work| work.progress.existing).unwrap_or(context.settings.existing);
    let scope = Scope::new(entries, &binding.selection.filter, &binding.selection.renames);
    let login = inspect::login(target).await?;
    let surveys = survey(context, servers, &scope, &login).await?;
    if existing == Existing::Refuse
        && !context.settings.accept_findings
        && let Some((_, there)) = in_the_way(&surveys)
    {
        return Err(Error::findings(format!(
            "the target has {there} by now, with other content than the source; remove or change that and run it again, or say --accept-findings to leave it as it is"
        )));
    }
    let mut notes = Vec::new();
    let replaces = existing == Existing::Drop;
    for survey in surveys {
        notes.extend(survey.notes(replaces));
        let Survey { kind, compared: Compared { missing, other, .. }, .. } = survey;
        let other = if replaces { other } else { Vec::new() };
        let putting = Putting { target, claim, job: &job.id };
        match kind {
            SystemKind::Function => putting.functions(missing, other).await?,
            SystemKind::Role => putting.roles(missing, other).await?,
            SystemKind::User => putting.users(missing, other).await?,
        }
    }
    // What merges them only writes into the server's log what it does not take.
    let surveys = survey(context, servers, &scope, &login).await?;
    let mut each = Vec::new();
    for Survey { kind, compared: Compared { missing, other, same }, .. } in &surveys {
        if let Some(refused) = missing.iter().chain(other.iter().filter(|_| replaces)).next() {
            return Err(target.side.error(format!(
                "the target did not take {refused}, or it was changed just now; the server's log says why; run it again"
            )));
        }
        each.push(format!("{} {}", same.len(), kind.noun(same.len())));
    }
    notes.extend(without_roles(target, &surveys).await?);
    Ok(Copied { summary: each.join(", "), notes })
}

/// Those that have a role which the target does not know, and grants nothing: it was not copied.
async fn without_roles(target: &Deployment, surveys: &[Survey]) -> Result<Vec<Note>> {
    let items: Vec<&Item> = surveys.iter().flat_map(|survey| &survey.compared.same).collect();
    let roles = items.iter().flat_map(|item| item.roles()).collect();
    let Some(known) = system::known_roles(target, &roles).await? else { return Ok(Vec::new()) };
    let unknown = |item: &&Item| {
        let missing: Vec<(String, String)> = item.roles().into_iter().filter(|role| !known.contains(role)).collect();
        let missing = names(missing.into_iter().map(|(role, db)| format!("{role} of {db}")));
        let text = format!("{item} has a role that the target does not have, which grants nothing: {missing}");
        (!missing.is_empty()).then(|| Note { namespace: item.collection(), text })
    };
    Ok(items.iter().filter_map(unknown).collect())
}

/// What there is of all kinds that were asked for, held against the target.
async fn survey(context: &Context, servers: &Servers, scope: &Scope<'_>, login: &Login) -> Result<Vec<Survey>> {
    let mut surveys = Vec::new();
    for kind in context.settings.include_system.kinds() {
        let (items, left_out) = match kind {
            SystemKind::Function => (functions(servers, scope).await?, Vec::new()),
            SystemKind::Role | SystemKind::User => roles_or_users(servers, scope, kind).await?,
        };
        if let Some(item) = collision(&items) {
            return Err(Error::bad_input(format!(
                "two {} of the source would both be {item} on the target; rename their databases in another way, or leave {} out of --include-system",
                kind.noun(2),
                kind.word()
            )));
        }
        let (own, items): (Vec<Item>, Vec<Item>) = items.into_iter().partition(|item| login.is_of(item));
        let compared = compare(&servers.target, items).await?;
        surveys.push(Survey { kind, compared, own, left_out });
    }
    Ok(surveys)
}

/// The functions of all databases of which something is copied, each from where that database lives.
async fn functions(servers: &Servers, scope: &Scope<'_>) -> Result<Vec<Item>> {
    let source = &servers.source;
    let routing = if source.reads_shards() { cluster::routing(&source.main).await? } else { Routing::default() };
    let mut items = Vec::new();
    for db in &scope.databases {
        let home = match routing.primaries.get(db) {
            Some(shard) => &source.shard(shard)?.deployment,
            None => &source.main,
        };
        let namespace = SystemKind::Function.collection(db);
        let found = system::documents(home, &namespace).await;
        for document in found.map_err(|error| unreadable(home, &error, &namespace))? {
            items.push(scope.function(db, &document).map_err(|why| home.side.error(why))?);
        }
    }
    Ok(items)
}

/// The roles or users that are copied, and the names of the others.
async fn roles_or_users(servers: &Servers, scope: &Scope<'_>, kind: SystemKind) -> Result<(Vec<Item>, Vec<String>)> {
    let source = &servers.source.main;
    let namespace = kind.collection("");
    let (mut items, mut left_out) = (Vec::new(), Vec::new());
    let found = system::documents(source, &namespace).await;
    for document in found.map_err(|error| unreadable(source, &error, &namespace))? {
        match scope.role_or_user(kind, &document).map_err(|why| source.side.error(why))? {
            Some(item) => items.push(item),
            None => left_out.push(document.get_str("_id").unwrap_or("?").to_owned()),
        }
    }
    Ok((items, left_out))
}

/// Holds them against what the target has of the same names.
async fn compare(target: &Deployment, items: Vec<Item>) -> Result<Compared> {
    let mut compared = Compared::default();
    let mut collections: Vec<Namespace> = items.iter().map(Item::collection).collect();
    collections.sort();
    collections.dedup();
    let mut items = items;
    for namespace in collections {
        let (of_it, rest): (Vec<Item>, Vec<Item>) = items.into_iter().partition(|item| item.collection() == namespace);
        items = rest;
        let keys: Vec<Key> = of_it.iter().map(|item| item.key.clone()).collect();
        let there = read::documents_with(target, &namespace, None, &keys, None).await;
        let there = there.map_err(|error| unreadable(target, &error, &namespace))?;
        for item in of_it {
            let found = there.get(&item.key).and_then(|versions| versions.first()).map(AsRef::as_ref);
            compared.add(item, found);
        }
    }
    Ok(compared)
}

/// A right that is missing is named; the server's own words quote no more than the question.
fn unreadable(deployment: &Deployment, error: &DriverError, namespace: &Namespace) -> Error {
    let side = deployment.side;
    match code_of(error) {
        Some(code::UNAUTHORIZED) => Error::bad_input(format!(
            "the user of the {side} may not read {namespace}, which --include-system takes; grant find on it (the role `backup` has it), or leave that out"
        )),
        _ => deployment.failed(error).during(format!("reading {namespace}")),
    }
}

/// The first of those that are in the way, by kind.
fn in_the_way(surveys: &[Survey]) -> Option<(SystemKind, String)> {
    let first = surveys.iter().find(|survey| !survey.compared.other.is_empty())?;
    Some((first.kind, names(first.compared.other.iter().map(ToString::to_string))))
}

/// The first few of some names, and how many more there are.
fn names(all: impl IntoIterator<Item = String>) -> String {
    let all: Vec<String> = all.into_iter().collect();
    let mut text = all.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    if all.len() > NAMED {
        text.push_str(&format!(" and {} more", all.len() - NAMED));
    }
    text
}

impl Survey {
    /// What is not as on the source, and stays so.
    fn notes(&self, replaces: bool) -> Vec<Note> {
        let note = |item: &Item, why: &str| Note { namespace: item.collection(), text: format!("{item} {why}") };
        let kept = self.compared.other.iter().filter(|_| !replaces);
        let kept = kept.map(|item| note(item, "is left as it is on the target, with other content than on the source"));
        let own =
            self.own.iter().map(|item| note(item, "is what mongoferry works as on the target, and is left as it is"));
        let left_out = (!self.left_out.is_empty()).then(|| Note {
            namespace: self.kind.collection(""),
            text: format!(
                "{} {} left out, of whose databases nothing is copied: {}",
                self.left_out.len(),
                self.kind.noun(self.left_out.len()),
                names(self.left_out.iter().cloned())
            ),
        });
        kept.chain(own).chain(left_out).collect()
    }
}

/// Where they are put.
struct Putting<'a> {
    target: &'a Deployment,
    claim: &'a Claim<StepProgress>,
    job: &'a str,
}

impl Putting<'_> {
    async fn functions(&self, missing: Vec<Item>, other: Vec<Item>) -> Result<()> {
        for function in missing.iter().chain(&other) {
            self.claim.ensure_may_send().await?;
            crash::around("system-function", system::put_function(self.target, function)).await?;
        }
        Ok(())
    }

    async fn roles(&self, missing: Vec<Item>, other: Vec<Item>) -> Result<()> {
        for role in &other {
            self.claim.ensure_may_send().await?;
            crash::around("system-replace", system::update_role(self.target, role)).await?;
        }
        self.merge(SystemKind::Role, &missing).await
    }

    async fn users(&self, mut missing: Vec<Item>, other: Vec<Item>) -> Result<()> {
        for user in &other {
            self.claim.ensure_may_send().await?;
            crash::around("system-replace", system::drop_user(self.target, user)).await?;
        }
        missing.extend(other);
        self.merge(SystemKind::User, &missing).await
    }

    /// Adds roles or users. The temporary collection holds credentials: it goes whatever happens, and where the process is
    /// killed, with the next run, or with the job.
    async fn merge(&self, kind: SystemKind, items: &[Item]) -> Result<()> {
        if items.is_empty() {
            return Ok(());
        }
        let temporary = system::temporary(kind, self.job);
        let merged = async {
            self.claim.ensure_may_send().await?;
            crash::around("system-fill", system::fill(self.target, &temporary, items)).await?;
            self.claim.ensure_may_send().await?;
            crash::around("system-merge", system::merge(self.target, kind, &temporary)).await
        };
        let merged = merged.await;
        let cleaned = crash::around("system-clean", system::clean(self.target, self.job)).await;
        merged.and(cleaned)
    }
}
