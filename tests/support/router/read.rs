//! Finds, counts and aggregations: asked of every shard that owns chunks, with versions, so that each leaves out its
//! orphans.

use mongodb::bson::{RawArrayBuf, RawDocument, RawDocumentBuf, cstr, rawdoc};

use super::answer::{Answer, Refused, code};
use super::cursor::{Cursor, Cursors, Order};
use super::pipeline;
use super::raw;
use super::route::{Route, Routes};
use super::target;
use super::upstream::{Command, Upstream};

/// `find`.
pub fn find(
    routes: &Routes,
    cursors: &Cursors,
    upstream: &mut Upstream,
    namespace: &str,
    body: &RawDocument,
) -> Answer {
    let filter = raw::inner(body, "filter").map(ToOwned::to_owned).unwrap_or_default();
    let resume = ["$_requestResumeToken", "$_resumeAfter", "$_startAt"];
    if let Some(field) = resume.iter().find(|name| raw::field(body, name).is_some()) {
        return Err(Refused::new(code::BAD_VALUE, format!("{field} is for one server, not for a router")));
    }
    let replies = routes.follow(upstream, namespace, |upstream, route| {
        let servers = target::of_query(upstream, route, &filter, false)?;
        let body = if servers.len() > 1 { for_several_shards(body) } else { Ok(body.to_owned()) }?;
        ask(upstream, route, &servers, &body)
    })?;
    let is_merged = replies.len() > 1;
    let cursor = Cursor::new(namespace, replies);
    let number = |name| raw::number(body, name).and_then(|number| usize::try_from(number).ok());
    let cursor = if is_merged {
        let limit = number("limit").filter(|limit| *limit > 0).unwrap_or(usize::MAX);
        cursor.cut(order(body)?, number("skip").unwrap_or(0), limit)
    } else {
        cursor
    };
    cursors.open(upstream, cursor, number("batchSize"), raw::is_set(body, "singleBatch"))
}

/// Each shard gives what may be among the first of all.
fn for_several_shards(body: &RawDocument) -> Answer {
    order(body)?;
    let number = |name| raw::number(body, name).filter(|number| *number > 0);
    let mut each = raw::without(body, &["skip"]);
    if let (Some(limit), Some(skip)) = (number("limit"), number("skip")) {
        each = raw::with(&each, "limit", limit + skip);
    }
    Ok(each)
}

/// The order that a find wants.
fn order(body: &RawDocument) -> Result<Order, Refused> {
    let sort = raw::inner(body, "sort").filter(|sort| !sort.is_empty());
    let Some(sort) = sort else { return Ok(Order::None) };
    match raw::number(sort, "_id").filter(|_| sort.iter().count() == 1) {
        Some(1) => Ok(Order::Ascending),
        Some(-1) => Ok(Order::Descending),
        _ => Err(Refused::new(code::BAD_VALUE, "the test router merges by _id alone")),
    }
}

/// `aggregate`.
pub fn aggregate(
    routes: &Routes,
    cursors: &Cursors,
    upstream: &mut Upstream,
    namespace: &str,
    body: &RawDocument,
) -> Answer {
    let (replies, rest) = routes.follow(upstream, namespace, |upstream, route| {
        // Without a collection it is about the servers: all shards, whatever the database.
        let (servers, route) = match raw::text(body, "aggregate") {
            Some(_) => (route.servers(), route),
            None => (upstream.shards()?, &Route::Nowhere),
        };
        if servers.len() <= 1 {
            return Ok((ask(upstream, route, &servers, body)?, Vec::new()));
        }
        let (each, rest) = pipeline::split(&raw::documents(body, "pipeline"))?;
        let body = raw::with(body, "pipeline", each.into_iter().collect::<RawArrayBuf>());
        Ok((ask(upstream, route, &servers, &body)?, rest))
    })?;
    let batch_size = raw::inner(body, "cursor").and_then(|cursor| raw::number(cursor, "batchSize"));
    let batch_size = batch_size.and_then(|size| size.try_into().ok());
    let mut cursor = Cursor::new(namespace, replies);
    if !rest.is_empty() {
        let documents = cursor.drain(upstream, body)?;
        let database = raw::text(body, "$db").unwrap_or_default();
        cursor = Cursor::new(namespace, vec![pipeline::merge(upstream, database, documents, rest)?]);
    }
    cursors.open(upstream, cursor, batch_size, false)
}

/// `count`.
pub fn count(routes: &Routes, upstream: &mut Upstream, namespace: &str, body: &RawDocument) -> Answer {
    let replies = routes.follow(upstream, namespace, |upstream, route| {
        let servers = route.servers();
        ask(upstream, route, &servers, body)
    })?;
    let counted: i64 = replies.iter().filter_map(|(_, reply)| raw::number(reply, "n")).sum();
    Ok(rawdoc! {"n": counted as i32, "ok": 1.0})
}

/// `listIndexes`: of any shard that owns chunks, or of the primary shard.
pub fn list_indexes(
    routes: &Routes,
    cursors: &Cursors,
    upstream: &mut Upstream,
    namespace: &str,
    body: &RawDocument,
) -> Answer {
    let replies = routes.follow(upstream, namespace, |upstream, route| {
        let one: Vec<String> = route.servers().into_iter().take(1).collect();
        if one.is_empty() {
            return Err(Refused::new(code::NAMESPACE_NOT_FOUND, format!("ns does not exist: {namespace}")));
        }
        ask(upstream, route, &one, body)
    })?;
    cursors.open(upstream, Cursor::new(namespace, replies), Some(usize::MAX), false)
}

/// `findAndModify`.
pub fn find_and_modify(routes: &Routes, upstream: &mut Upstream, namespace: &str, body: &RawDocument) -> Answer {
    let query = raw::inner(body, "query").map(ToOwned::to_owned).unwrap_or_default();
    let mut body = body.to_owned();
    if raw::field(&body, "writeConcern").is_none() {
        body.append(cstr!("writeConcern"), rawdoc! {"w": "majority"});
    }
    let mut replies = routes.follow(upstream, namespace, |upstream, route| {
        let servers = target::of_query(upstream, route, &query, true)?;
        ask(upstream, route, &servers, &body)
    })?;
    let reply = replies.pop().map(|(_, reply)| reply);
    reply.ok_or_else(|| Refused::new(code::NAMESPACE_NOT_FOUND, format!("database of {namespace} not found")))
}

/// The replies of these servers to a command, by a route.
pub fn ask(
    upstream: &mut Upstream,
    route: &Route,
    servers: &[String],
    body: &RawDocument,
) -> Result<Vec<(String, RawDocumentBuf)>, Refused> {
    let command = |server: &String| Ok((server.clone(), Command::from(route.versioned(server, body)?)));
    let commands = servers.iter().map(command).collect::<Result<Vec<_>, Refused>>()?;
    let answers = upstream.ask_each(&commands);
    commands.into_iter().zip(answers).map(|((server, _), answer)| Ok((server, answer?))).collect()
}
