//! `createIndexes`, and what its answer means.

use crate::error::{Error, Result};
use crate::model::namespace::Namespace;
use crate::mongo::catalog::{from_state, uuid_binary};
use crate::mongo::checkpoint::acknowledged;
use crate::mongo::deployment::Deployment;
use crate::mongo::failure::{code, code_of, is_refusal, is_transient};
use crate::mongo::majority;
use bson::{Bson, Document, doc};
use mongodb::error::{Error as DriverError, ErrorKind};
use serde_json::Value;

/// An index that the server refused to build, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Its name.
    pub name: String,
    /// The server's reason.
    pub reason: String,
    /// Whether two documents have the same key in it.
    pub is_duplicate: bool,
}

impl Refused {
    /// Whether the server's reason names this index: `… index: email_1 dup key: { … }`.
    pub(super) fn names(&self, index: &str) -> bool {
        self.is_duplicate && self.reason.contains(&format!(" index: {index} dup key: "))
    }
}

/// Why indexes are not there.
pub(super) enum Failure {
    /// The server understood and said no.
    Refused(Refused),
    /// Nobody knows: the connection or the primary is gone, and a build may go on.
    Lost(Error),
    /// It is not the indexes that are at fault.
    Fault(Error),
}

/// Asks for indexes, and waits until they are ready.
pub(super) async fn create(
    target: &Deployment,
    namespace: &Namespace,
    uuid: &str,
    indexes: &[&Value],
) -> std::result::Result<(), Failure> {
    let specifications: Vec<Bson> = indexes
        .iter()
        .map(|index| from_state(index).map(Bson::Document))
        .collect::<Result<_>>()
        .map_err(Failure::Fault)?;
    let mut command: Document = doc! {
        "createIndexes": namespace.collection(),
        "indexes": specifications,
        // By default a build waits for every voting member, so with one of them down it would never end.
        "commitQuorum": "majority",
        "writeConcern": majority(),
    };
    if target.takes_collection_uuid() {
        command.insert("collectionUUID", uuid_binary(uuid));
    }
    match target.run(namespace.db(), command).await {
        Ok(reply) => acknowledged(target, &reply, &format!("indexes of {namespace}")).map_err(Failure::Fault),
        Err(error) if is_transient(&error) => Err(Failure::Lost(target.failed(&error))),
        Err(error) if is_refusal(&error) => {
            let is_duplicate = code_of(&error) == Some(code::DUPLICATE_KEY);
            Err(Failure::Refused(Refused { name: String::new(), reason: reason(&error), is_duplicate }))
        }
        Err(error) => Err(Failure::Fault(target.failed(&error))),
    }
}

/// The server's words, without the build's and the collection's ids that it puts before them.
fn reason(error: &DriverError) -> String {
    match error.kind.as_ref() {
        ErrorKind::Command(command) => {
            let message = match command.message.strip_prefix("Index build failed: ") {
                Some(rest) => rest.split_once(":: caused by :: ").map_or(rest, |(_, cause)| cause),
                None => &command.message,
            };
            format!("{message} (code {})", command.code)
        }
        kind => kind.to_string(),
    }
}
