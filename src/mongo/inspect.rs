//! What a server says of itself and of what it holds, for whoever asks before a job begins. Nothing is changed, and what a
//! user may not ask is no error: there is no answer then.

use super::catalog::number;
use super::deployment::Deployment;
use super::failure::{code, code_of, is_transient};
use crate::error::Result;
use crate::model::feature::depth;
use crate::model::namespace::Namespace;
use crate::model::rights::{Pattern, Privilege, Privileges};
use crate::model::room::{Disk, Stored};
use crate::model::system::Login;
use bson::{Bson, Document, doc, rawdoc};
use mongodb::error::Error as DriverError;

/// What the user may do, and who that is.
///
/// # Errors
/// Bad input when the server wants a user and there is none; as [`Deployment::failed`].
pub async fn privileges(deployment: &Deployment) -> Result<(Option<String>, Privileges)> {
    let info = authentication(deployment).await?;
    let Some(user) = named(&info, "authenticatedUsers", "user").next() else {
        // Nobody is logged in: either nobody has to be, or this is refused.
        super::catalog::databases(deployment).await?;
        return Ok((None, Privileges::All));
    };
    let privileges = documents(&info, "authenticatedUserPrivileges").map(privilege).collect();
    Ok((Some(user.0), Privileges::These(privileges)))
}

/// As whom this connection is logged in.
///
/// # Errors
/// As [`Deployment::failed`].
pub async fn login(deployment: &Deployment) -> Result<Login> {
    let info = authentication(deployment).await?;
    Ok(Login {
        users: named(&info, "authenticatedUsers", "user").collect(),
        roles: named(&info, "authenticatedUserRoles", "role").collect(),
    })
}

async fn authentication(deployment: &Deployment) -> Result<Document> {
    let command = doc! { "connectionStatus": 1, "showPrivileges": true };
    let status = deployment.run("admin", command).await.map_err(|error| deployment.failed(&error))?;
    Ok(status.get_document("authInfo").cloned().unwrap_or_default())
}

fn documents<'a>(info: &'a Document, list: &str) -> impl Iterator<Item = &'a Document> {
    info.get_array(list).into_iter().flatten().filter_map(Bson::as_document)
}

/// Users or roles, as name and database.
fn named<'a>(info: &'a Document, list: &str, name: &'a str) -> impl Iterator<Item = (String, String)> {
    documents(info, list)
        .filter_map(move |one| Some((one.get_str(name).ok()?.to_owned(), one.get_str("db").ok()?.to_owned())))
}

fn privilege(privilege: &Document) -> Privilege {
    let actions = privilege.get_array("actions").map(Vec::as_slice).unwrap_or_default();
    let resource = privilege.get_document("resource").cloned().unwrap_or_default();
    let text = |name: &str| resource.get_str(name).map(str::to_owned);
    let on = match (text("db"), text("collection"), text("system_buckets")) {
        (Ok(db), Ok(collection), _) => Pattern::Collections { db, collection },
        (db, _, Ok(collection)) => Pattern::Buckets { db: db.unwrap_or_default(), collection },
        _ if resource.get_bool("cluster").unwrap_or(false) => Pattern::Cluster,
        _ if resource.get_bool("anyResource").unwrap_or(false) => Pattern::Any,
        _ => Pattern::Unknown,
    };
    Privilege { on, actions: actions.iter().filter_map(Bson::as_str).map(str::to_owned).collect() }
}

/// The version as which a server behaves (fCV). None where nobody may ask, and of a mongos, which has none.
///
/// # Errors
/// As [`Deployment::failed`].
pub async fn feature_compatibility(deployment: &Deployment) -> Result<Option<(i32, i32)>> {
    if deployment.is_mongos() {
        return Ok(None);
    }
    let command = doc! { "getParameter": 1, "featureCompatibilityVersion": 1 };
    let Some(reply) = answer(deployment, deployment.run("admin", command).await)? else { return Ok(None) };
    let version = reply.get_document("featureCompatibilityVersion").and_then(|version| version.get_str("version"));
    Ok(version.ok().and_then(|version| {
        let (major, minor) = version.split_once('.')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    }))
}

/// What time it is by the server's clock, in milliseconds since 1970.
///
/// # Errors
/// As [`Deployment::failed`].
pub async fn local_time(deployment: &Deployment) -> Result<Option<i64>> {
    let hello = deployment.run("admin", doc! { "hello": 1 }).await.map_err(|error| deployment.failed(&error))?;
    Ok(hello.get_datetime("localTime").ok().map(|time| time.timestamp_millis()))
}

/// The disk that a server's data lie on; of a cluster those of all shards together. None where nobody may ask.
///
/// # Errors
/// As [`Deployment::failed`].
pub async fn disk(deployment: &Deployment) -> Result<Option<Disk>> {
    // Of a database that is there: of another one a server says that the disk has no size.
    let reply = answer(deployment, deployment.run("admin", doc! { "dbStats": 1 }).await)?;
    let one = |stats: &Document| Disk { total: number(stats, "fsTotalSize"), used: number(stats, "fsUsedSize") };
    let disk = reply.map(|reply| match reply.get_document("raw") {
        Ok(shards) => {
            shards.values().filter_map(Bson::as_document).map(one).fold(Disk { total: 0, used: 0 }, |sum, disk| Disk {
                total: sum.total + disk.total,
                used: sum.used + disk.used,
            })
        }
        Err(_) => one(&reply),
    });
    Ok(disk.filter(|disk| disk.total > 0))
}

/// What a database takes. None where nobody may ask.
///
/// # Errors
/// As [`Deployment::failed`].
pub async fn stored(deployment: &Deployment, database: &str) -> Result<Option<Stored>> {
    let reply = answer(deployment, deployment.run(database, doc! { "dbStats": 1 }).await)?;
    Ok(reply.map(|stats| Stored {
        documents: number(&stats, "dataSize"),
        files: number(&stats, "storageSize"),
        indexes: number(&stats, "indexSize"),
    }))
}

/// The size of the oplog and the largest that it may have, in bytes. None where nobody may ask.
///
/// # Errors
/// As [`Deployment::failed`].
pub async fn oplog_sizes(deployment: &Deployment) -> Result<Option<(u64, u64)>> {
    let fields = doc! { "size": "$storageStats.size", "largest": "$storageStats.maxSize" };
    let stages = [doc! { "$collStats": { "storageStats": {} } }, doc! { "$project": fields }];
    let command = doc! { "aggregate": "oplog.rs", "pipeline": stages.to_vec(), "cursor": {} };
    let found = answer(deployment, deployment.collect("local", command).await)?;
    Ok(found.and_then(|found| found.first().map(|stats| (number(stats, "size"), number(stats, "largest")))))
}

/// What was seen of some documents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// How many.
    pub documents: usize,
    /// The size of the largest in bytes.
    pub largest: usize,
    /// The depth of the deepest.
    pub deepest: usize,
}

/// Looks at the first and the last few documents on the disk.
///
/// # Errors
/// As [`Deployment::failed`].
pub async fn ends(deployment: &Deployment, namespace: &Namespace, each: u32) -> Result<Seen> {
    let mut seen = Seen::default();
    for direction in [1, -1] {
        let command = rawdoc! {
            "find": namespace.collection(),
            "filter": {},
            "sort": { "$natural": direction },
            "limit": i64::from(each),
            "comment": deployment.comment().0.as_str(),
        };
        let read = async {
            let cursor = deployment.cursor(namespace.db(), command, each).await?;
            let mut take = |document: &bson::RawDocument| {
                seen.documents += 1;
                seen.largest = seen.largest.max(document.as_bytes().len());
                seen.deepest = seen.deepest.max(depth(document.as_bytes()));
            };
            cursor.for_each(&mut take).await
        };
        let read: std::result::Result<(), DriverError> = read.await;
        read.map_err(|error| deployment.failed(&error).during(format!("looking at {namespace}")))?;
    }
    Ok(seen)
}

/// Whether a collection has a document with a date in this field that lies before `before` (milliseconds since 1970). The
/// index on that field is used. None when the server did not find out in a second.
///
/// # Errors
/// As [`Deployment::failed`].
pub async fn has_before(
    deployment: &Deployment,
    namespace: &Namespace,
    (field, index): (&str, &str),
    before: i64,
) -> Result<Option<bool>> {
    let before = Bson::DateTime(bson::DateTime::from_millis(before));
    let command = doc! {
        "find": namespace.collection(),
        "filter": { field: { "$lt": before } },
        "projection": { "_id": 1 },
        "limit": 1,
        "hint": index,
        "maxTimeMS": 1_000,
    };
    match deployment.collect(namespace.db(), command).await {
        Ok(found) => Ok(Some(!found.is_empty())),
        Err(error) if matches!(code_of(&error), Some(code::MAX_TIME_EXPIRED | code::BAD_VALUE)) => Ok(None),
        Err(error) => Err(deployment.failed(&error)),
    }
}

/// The server's answer. None where the user may not ask, and where a server has no answer, as some that are offered as a
/// service have none.
fn answer<T>(deployment: &Deployment, answer: std::result::Result<T, DriverError>) -> Result<Option<T>> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if code_of(&error).is_some() && !is_transient(&error) => {
            tracing::debug!("the {} does not tell: {error}", deployment.side);
            Ok(None)
        }
        Err(error) => Err(deployment.failed(&error)),
    }
}
