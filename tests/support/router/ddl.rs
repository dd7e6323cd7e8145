//! Commands about databases, collections and indexes.

use mongodb::bson::{RawArrayBuf, RawDocument, RawDocumentBuf, rawdoc};

use super::admin::{bare, with_majority};
use super::answer::{Answer, Refused, code};
use super::cursor::{Cursor, Cursors};
use super::raw;
use super::read;
use super::route::{Primary, Route, Routes};
use super::upstream::{CONFIG, Command, Upstream};

/// `listDatabases`: of all shards, and of the config server.
pub fn list_databases(upstream: &mut Upstream, body: &RawDocument) -> Answer {
    let mut servers = upstream.shards()?;
    servers.push(CONFIG.to_owned());
    let commands: Vec<_> = servers.into_iter().map(|server| (server, Command::from(body.to_owned()))).collect();
    let mut found: Vec<(String, i64)> = Vec::new();
    for ((server, _), answer) in commands.iter().zip(upstream.ask_each(&commands)) {
        for database in raw::documents(&answer?, "databases") {
            let name = raw::text(&database, "name").unwrap_or_default();
            // Each shard has a `config` of its own, which is not the cluster's; nobody sees a `local`.
            if name == "local" || ["admin", "config"].contains(&name) && server != CONFIG {
                continue;
            }
            let size = raw::number(&database, "sizeOnDisk").unwrap_or(0);
            match found.iter_mut().find(|(known, _)| known == name) {
                Some((_, sum)) => *sum += size,
                None => found.push((name.to_owned(), size)),
            }
        }
    }
    found.sort();
    let total: i64 = found.iter().map(|(_, size)| size).sum();
    let names_only = raw::is_set(body, "nameOnly");
    let entry = |(name, size): (String, i64)| {
        if names_only {
            rawdoc! {"name": name}
        } else {
            rawdoc! {"name": name, "sizeOnDisk": size, "empty": false}
        }
    };
    let databases: RawArrayBuf = found.into_iter().map(entry).collect();
    Ok(rawdoc! {"databases": databases, "totalSize": total, "totalSizeMb": total >> 20, "ok": 1.0})
}

/// `listCollections`: of the primary shard.
pub fn list_collections(cursors: &Cursors, upstream: &mut Upstream, database: &str, body: &RawDocument) -> Answer {
    let namespace = format!("{database}.$cmd.listCollections");
    let replies = match server_of(upstream, database)? {
        Some((server, body_with)) => vec![(server.clone(), upstream.ask(&server, &body_with(body).into())?)],
        None => Vec::new(),
    };
    cursors.open(upstream, Cursor::new(&namespace, replies), Some(usize::MAX), false)
}

type Versioned = Box<dyn Fn(&RawDocument) -> RawDocumentBuf>;

/// The server that has a database, and what puts the database's version into a command.
fn server_of(upstream: &mut Upstream, database: &str) -> Result<Option<(String, Versioned)>, Refused> {
    if ["admin", "config"].contains(&database) {
        return Ok(Some((CONFIG.to_owned(), Box::new(|body: &RawDocument| body.to_owned()))));
    }
    Ok(Primary::read(upstream, database)?.map(|primary| {
        let shard = primary.shard.clone();
        let versioned: Versioned = Box::new(move |body| primary.versioned(body));
        (shard, versioned)
    }))
}

/// `create`: on the primary shard, unsharded.
pub fn create(upstream: &mut Upstream, database: &str, body: &RawDocument) -> Answer {
    if let Some((server, versioned)) = server_of(upstream, database)? {
        return upstream.ask(&server, &versioned(body).into());
    }
    let primary = Primary::read_or_create(upstream, database)?;
    upstream.ask(&primary.shard, &primary.versioned(body).into())
}

/// `drop`, `collMod`, `dropIndexes`, `dropDatabase`: the primary shard sees to the others.
pub fn on_all_shards(
    routes: &Routes,
    upstream: &mut Upstream,
    internal: &str,
    database: &str,
    body: &RawDocument,
) -> Answer {
    if server_of(upstream, database)?.is_some_and(|(server, _)| server == CONFIG) {
        return upstream.ask(CONFIG, &body.to_owned().into());
    }
    let Some(primary) = Primary::read(upstream, database)? else {
        if ["_shardsvrDropCollection", "_shardsvrDropDatabase"].contains(&internal) {
            return Ok(rawdoc! {"info": "database does not exist", "ok": 1.0});
        }
        return Err(Refused::new(code::NAMESPACE_NOT_FOUND, format!("database {database} not found")));
    };
    let command = raw::renamed(&bare(body), internal);
    let answer = with_majority(upstream, &primary.shard, database, &primary.versioned(&command));
    routes.forget_all();
    answer
}

/// `createIndexes`: on every shard that owns chunks, or on the primary shard.
pub fn create_indexes(routes: &Routes, upstream: &mut Upstream, namespace: &str, body: &RawDocument) -> Answer {
    let database = namespace.split('.').next().unwrap_or_default();
    let replies = routes.follow(upstream, namespace, |upstream, route| {
        if matches!(route, Route::Nowhere) {
            Primary::read_or_create(upstream, database)?;
            return Err(Refused::new(code::STALE_DB_VERSION, "the database was just created"));
        }
        read::ask(upstream, route, &route.servers(), body)
    })?;
    let mut all = rawdoc! {};
    for (server, reply) in replies {
        all = raw::with(&all, &server, reply);
    }
    Ok(rawdoc! {"raw": all, "ok": 1.0})
}
