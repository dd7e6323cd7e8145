//! Whether a server takes a filter as a query.

use super::deployment::Deployment;
use super::failure::is_refusal;
use crate::error::Result;
use crate::model::choice::Order;
use crate::model::cursor::Key;
use crate::model::document_filter::DocumentFilter;
use crate::model::namespace::Namespace;
use bson::{RawBsonRef, rawdoc};
use mongodb::error::ErrorKind;

/// Why a server does not take a filter in the query by which a collection is read. It plans that query, and reads nothing.
///
/// # Errors
/// As [`Deployment::failed`], for what the filter is not at fault for.
pub async fn refused(
    source: &Deployment,
    namespace: &Namespace,
    filter: &DocumentFilter,
    order: Order,
) -> Result<Option<String>> {
    let mut find = rawdoc! { "find": namespace.collection(), "filter": filter.query().to_owned() };
    if order == Order::Id {
        find.append(bson::cstr!("sort"), rawdoc! { "_id": 1 });
        find.append(bson::cstr!("hint"), rawdoc! { "_id": 1 });
        // Bounds, as all ranges but a whole collection's have, go with fewer queries.
        find.append(bson::cstr!("min"), Key::from_value(RawBsonRef::MinKey).named("_id"));
        find.append(bson::cstr!("max"), Key::from_value(RawBsonRef::MaxKey).named("_id"));
    } else {
        find.append(bson::cstr!("hint"), rawdoc! { "$natural": 1 });
    }
    let explain = rawdoc! { "explain": find, "verbosity": "queryPlanner", "comment": source.comment().0.as_str() };
    match source.run_raw(namespace.db(), explain).await {
        Ok(_) => Ok(None),
        Err(error) => match error.kind.as_ref() {
            ErrorKind::Command(command) if is_refusal(&error) => {
                Ok(Some(format!("{} ({}, code {})", command.message, command.code_name, command.code)))
            }
            _ => Err(source.failed(&error).during(format!("planning the query of {namespace}"))),
        },
    }
}
