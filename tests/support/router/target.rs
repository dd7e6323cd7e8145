//! Which shards a statement is for.
//!
//! A shard key that is known exactly leads to its owner. Otherwise a statement goes to every shard that owns chunks, as
//! far as that is allowed: one that is to change a single document must say which by `_id`, or by the shard key. A
//! mongos also finds the shards of a range of keys; here a range is for all.

use mongodb::bson::{RawDocument, RawDocumentBuf};

use super::answer::{Refused, code};
use super::raw;
use super::route::{Route, Sharded};
use super::shard_key::ShardKey;
use super::upstream::Upstream;

/// What kind of writes a command has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `insert`.
    Insert,
    /// `update`.
    Update,
    /// `delete`.
    Delete,
}

/// The servers that a statement is for, or why it is for none.
pub type Target = Result<Vec<String>, Refused>;

/// What is known of a statement's shard key.
enum Aim {
    Key(RawDocumentBuf),
    Everywhere,
}

/// The targets of some statements of a command.
pub fn of_writes<'a>(
    upstream: &mut Upstream,
    route: &Route,
    kind: Kind,
    statements: impl Iterator<Item = &'a RawDocumentBuf>,
) -> Result<Vec<Target>, Refused> {
    let Route::Sharded(sharded) = route else { return Ok(statements.map(|_| Ok(route.servers())).collect()) };
    let aims = statements.map(|statement| match kind {
        Kind::Insert => sharded.key.of_document(statement).map(Aim::Key),
        Kind::Update => aim_of_update(sharded, statement),
        Kind::Delete => aim_of_delete(sharded, statement),
    });
    let (aims, keys): (Vec<_>, Vec<_>) = aims
        .map(|aim| match aim {
            Ok(Aim::Key(key)) => (Ok(true), Some(key)),
            Ok(Aim::Everywhere) => (Ok(false), None),
            Err(refused) => (Err(refused), None),
        })
        .unzip();
    let mut keys = sharded.key.hashed(upstream, keys.into_iter().flatten().collect())?.into_iter();
    let everywhere = &sharded.owners;
    let target = |aim| match aim {
        Ok(true) => match keys.next() {
            Some(key) => sharded.owner(&key).map(|owner| vec![owner.to_owned()]),
            None => Err(Refused::new(code::BAD_VALUE, "the server hashed fewer keys than it was asked to")),
        },
        Ok(false) => Ok(everywhere.clone()),
        Err(refused) => Err(refused),
    };
    Ok(aims.into_iter().map(target).collect())
}

/// The servers that a query is for; `exactly` when it must be one, by its shard key.
pub fn of_query(upstream: &mut Upstream, route: &Route, query: &RawDocument, exactly: bool) -> Target {
    let Route::Sharded(sharded) = route else { return Ok(route.servers()) };
    let key = sharded.key.of_query(query);
    if let Some(key) = sharded.key.hashed(upstream, key.into_iter().collect())?.pop() {
        return Ok(vec![sharded.owner(&key)?.to_owned()]);
    }
    if exactly {
        let message = "Query for sharded findAndModify must contain the shard key";
        return Err(Refused::new(code::SHARD_KEY_NOT_FOUND, message));
    }
    Ok(route.servers())
}

fn aim_of_update(sharded: &Sharded, update: &RawDocument) -> Result<Aim, Refused> {
    let query = &raw::inner(update, "q").map(ToOwned::to_owned).unwrap_or_default();
    let by_query = sharded.key.of_query(query).filter(|_| !has_collation(update));
    if raw::is_set(update, "upsert") {
        let message = "Failed to target upsert by query :: could not extract exact shard key";
        return by_query.map(Aim::Key).ok_or_else(|| Refused::new(code::SHARD_KEY_NOT_FOUND, message));
    }
    if let Some(key) = by_query {
        return Ok(Aim::Key(key));
    }
    if raw::is_set(update, "multi") || sharded.owners.len() == 1 {
        return Ok(Aim::Everywhere);
    }
    // A replacement belongs where its own key does, even if what it is to replace does not lie there.
    if let Some(replacement) = raw::inner(update, "u").filter(|update| is_replacement(update)) {
        return of_replacement(&sharded.key, query, replacement).map(Aim::Key);
    }
    if is_by_id(query) && !has_collation(update) {
        return Ok(Aim::Everywhere);
    }
    let message = "A {multi:false} update on a sharded collection must contain an exact match on _id (and have the \
                   collection default collation) or must target a single shard";
    Err(Refused::new(code::INVALID_OPTIONS, message))
}

fn aim_of_delete(sharded: &Sharded, delete: &RawDocument) -> Result<Aim, Refused> {
    let query = &raw::inner(delete, "q").map(ToOwned::to_owned).unwrap_or_default();
    if let Some(key) = sharded.key.of_query(query).filter(|_| !has_collation(delete)) {
        return Ok(Aim::Key(key));
    }
    if raw::number(delete, "limit") == Some(0) || is_by_id(query) && !has_collation(delete) {
        return Ok(Aim::Everywhere);
    }
    let message = "A single delete on a sharded collection must contain an exact match on _id (and have the \
                   collection default collation) or contain the shard key (and have the simple collation)";
    Err(Refused::new(code::SHARD_KEY_NOT_FOUND, message))
}

/// The shard key of a replacement, which takes its `_id` from the query when it has none itself.
fn of_replacement(key: &ShardKey, query: &RawDocument, document: &RawDocument) -> Result<RawDocumentBuf, Refused> {
    match raw::value(query, "_id") {
        Some(id) if raw::field(document, "_id").is_none() => key.of_document(&raw::with(document, "_id", id)),
        _ => key.of_document(document),
    }
}

fn is_replacement(update: &RawDocument) -> bool {
    let first = update.iter_elements().next().and_then(Result::ok);
    first.is_none_or(|first| !first.key().as_str().starts_with('$'))
}

fn is_by_id(query: &RawDocument) -> bool {
    let id = raw::value(query, "_id");
    let is_operator = |id: &RawDocument| {
        let first = id.iter_elements().next().and_then(Result::ok);
        first.is_some_and(|first| first.key().as_str().starts_with('$'))
    };
    id.is_some_and(|id| !id.as_document().is_some_and(is_operator))
}

fn has_collation(statement: &RawDocument) -> bool {
    raw::inner(statement, "collation").is_some()
}
