//! A server's own collections: reading functions, roles and users, and putting them where only certain commands put them.
//!
//! Roles and users are written as mongorestore does it (mongo-tools `mongorestore/metadata.go`, `RestoreUsersOrRoles`):
//! into a temporary collection of `admin`, which the server then merges into its own (`_mergeAuthzCollections`, without
//! `drop`, which would remove all others). The server only logs what it does not take, so whoever merges has to look
//! afterwards.
//!
//! Commands with credentials are never quoted: of what a server says to them only the code is passed on.

use super::deployment::Deployment;
use super::documents::Documents;
use super::failure::{code, code_of};
use super::{WTIMEOUT_MS, majority};
use crate::error::{Error, Result};
use crate::model::namespace::Namespace;
use crate::model::system::{Item, SystemKind};
use bson::{Bson, Document, RawBsonRef, RawDocumentBuf, doc, rawdoc};
use mongodb::error::{Error as DriverError, ErrorKind};
use std::collections::BTreeSet;

const ADMIN: &str = "admin";

/// How many documents a reply holds at most.
const REPLY_DOCUMENTS: u32 = 1_000;

/// The temporary collection of a job, in `admin`.
pub fn temporary(kind: SystemKind, job: &str) -> String {
    format!("mongoferry_{}_{job}", kind.word())
}

/// All documents of a collection that a majority has.
///
/// # Errors
/// The driver's.
pub async fn documents(source: &Deployment, namespace: &Namespace) -> Result<Vec<RawDocumentBuf>, DriverError> {
    let command = rawdoc! {
        "find": namespace.collection(),
        "readConcern": { "level": "majority" },
        "comment": source.comment().0.as_str(),
    };
    let mut found = Vec::new();
    let cursor = source.cursor(namespace.db(), command, REPLY_DOCUMENTS).await?;
    cursor.for_each(|document| found.push(document.to_owned())).await?;
    Ok(found)
}

/// Which of these roles, as name and database, there are, built-in ones included. `None` without the right to ask.
///
/// # Errors
/// As [`Deployment::failed`].
pub async fn known_roles(
    target: &Deployment,
    roles: &BTreeSet<(String, String)>,
) -> Result<Option<BTreeSet<(String, String)>>> {
    let asked: Vec<Document> = roles.iter().map(|(role, db)| doc! { "role": role, "db": db }).collect();
    let reply = match target.run(ADMIN, doc! { "rolesInfo": asked }).await {
        Ok(reply) => reply,
        Err(error) if code_of(&error) == Some(code::UNAUTHORIZED) => return Ok(None),
        Err(error) => return Err(target.failed(&error)),
    };
    let named = |role: &Document| Some((role.get_str("role").ok()?.to_owned(), role.get_str("db").ok()?.to_owned()));
    let known = reply.get_array("roles").into_iter().flatten().filter_map(Bson::as_document);
    Ok(Some(known.filter_map(named).collect()))
}

/// Puts a function where it belongs, in place of one with its name.
///
/// # Errors
/// As [`Deployment::failed`].
pub async fn put_function(target: &Deployment, function: &Item) -> Result<()> {
    let query = function.key.named("_id");
    let update = rawdoc! { "q": query, "u": RawBsonRef::Document(&function.document), "multi": false, "upsert": true };
    let namespace = function.collection();
    let command = complete(target, rawdoc! { "update": namespace.collection(), "updates": [update] });
    written(target, target.run_raw(namespace.db(), command).await, &format!("writing {function}"))
}

/// Puts roles or users into a temporary collection.
///
/// # Errors
/// As [`Deployment::failed`].
pub async fn fill(target: &Deployment, temporary: &str, items: &[Item]) -> Result<()> {
    let mut items = items;
    while !items.is_empty() {
        let fitting = target.limits.fitting(items.iter().map(|item| item.document.as_bytes().len()));
        let (these, rest) = items.split_at(fitting);
        items = rest;
        let documents: Documents = these.iter().map(|item| &item.document).collect();
        let command = documents.append_to(complete(target, rawdoc! { "insert": temporary }));
        let command = command.map_err(|error| Error::internal(error.to_string()))?;
        written(target, target.run_raw(ADMIN, command).await, &format!("writing admin.{temporary}"))?;
    }
    Ok(())
}

/// Has the server take over what it does not have of a temporary collection.
///
/// # Errors
/// As [`Deployment::failed`].
pub async fn merge(target: &Deployment, kind: SystemKind, temporary: &str) -> Result<()> {
    let from = match kind {
        SystemKind::Role => "tempRolesCollection",
        _ => "tempUsersCollection",
    };
    let mut command = doc! { "_mergeAuthzCollections": 1 };
    command.insert(from, format!("{ADMIN}.{temporary}"));
    command.extend(doc! { "db": "", "drop": false, "writeConcern": majority() });
    written(target, target.run(ADMIN, command).await, &format!("adding {}", kind.noun(2)))
}

/// Drops a user. That he is gone already is fine.
///
/// # Errors
/// As [`Deployment::failed`].
pub async fn drop_user(target: &Deployment, user: &Item) -> Result<()> {
    let command = doc! { "dropUser": user.name(), "writeConcern": majority() };
    match target.run(&user.db, command).await {
        Err(error) if code_of(&error) == Some(code::USER_NOT_FOUND) => Ok(()),
        reply => written(target, reply, &format!("replacing {user}")),
    }
}

/// Lets a role grant what this one does. To drop it first would take it away from all who have it.
///
/// # Errors
/// As [`Deployment::failed`].
pub async fn update_role(target: &Deployment, role: &Item) -> Result<()> {
    let document = Document::try_from(role.document.as_ref());
    let document = document.map_err(|error| target.side.error(format!("{role} cannot be read: {error}")))?;
    let array = |field| document.get_array(field).cloned().unwrap_or_default();
    let mut command = doc! {
        "updateRole": role.name(),
        "privileges": array("privileges"),
        "roles": array("roles"),
        "writeConcern": majority(),
    };
    // Only who has a right of its own may say this.
    if let Some(restrictions) = document.get("authenticationRestrictions") {
        command.insert("authenticationRestrictions", restrictions.clone());
    }
    written(target, target.run(&role.db, command).await, &format!("replacing {role}"))
}

/// Drops the temporary collections of a job that are there, of a run that was killed among others. Nobody who may not
/// make them is asked for a right: the server shows them only to whom they concern.
///
/// # Errors
/// As [`Deployment::failed`].
pub async fn clean(target: &Deployment, job: &str) -> Result<()> {
    let names = [SystemKind::Role, SystemKind::User].map(|kind| temporary(kind, job));
    let command = doc! {
        "listCollections": 1,
        "nameOnly": true,
        "authorizedCollections": true,
        "filter": { "name": { "$in": names.to_vec() } },
    };
    let there = match target.collect(ADMIN, command).await {
        Ok(there) => there,
        Err(error) if code_of(&error) == Some(code::UNAUTHORIZED) => return Ok(()),
        Err(error) => return Err(target.failed(&error)),
    };
    for name in there.iter().filter_map(|listed| listed.get_str("name").ok()) {
        match target.run(ADMIN, doc! { "drop": name, "writeConcern": majority() }).await {
            Err(error) if code_of(&error) == Some(code::NAMESPACE_NOT_FOUND) => {}
            reply => written(target, reply, &format!("dropping admin.{name}"))?,
        }
    }
    Ok(())
}

fn complete(target: &Deployment, mut command: RawDocumentBuf) -> RawDocumentBuf {
    command.append(bson::cstr!("writeConcern"), rawdoc! { "w": "majority", "wtimeout": WTIMEOUT_MS });
    command.append(bson::cstr!("comment"), target.comment().0.as_str());
    command
}

/// Whether a majority of the target has it. Nothing of what the server says is passed on but its code, since it quotes
/// commands.
fn written(target: &Deployment, reply: Result<Document, DriverError>, doing: &str) -> Result<()> {
    let refused = |why: String| Err(target.side.error(format!("{doing}: the {} refused it: {why}", target.side)));
    match reply {
        Ok(reply) => {
            let errors = reply.get_array("writeErrors").into_iter().flatten().filter_map(Bson::as_document);
            let concern = reply.get_document("writeConcernError").ok();
            match errors.chain(concern).next() {
                None => Ok(()),
                Some(error) => refused(format!("code {}", error.get_i32("code").unwrap_or_default())),
            }
        }
        Err(error) => match error.kind.as_ref() {
            ErrorKind::Command(command) if command.code == code::UNAUTHORIZED => {
                refused("the user lacks a right; docs/security.md lists what --include-system takes".to_owned())
            }
            ErrorKind::Command(command) => refused(format!("{}, code {}", command.code_name, command.code)),
            _ => Err(target.failed(&error).during(doing)),
        },
    }
}
