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

/// Why a server does not take a filter in the queries by which a collection is read. It plans those, and reads nothing.
///
/// # Errors
/// As [`Deployment::failed`], for what the filter is not at fault for.
pub async fn refused(
    source: &Deployment,
    namespace: &Namespace,
    filter: &DocumentFilter,
    order: Order,
) -> Result<Option<String>> {
    let find = || rawdoc! { "find": namespace.collection(), "filter": filter.query().to_owned() };
    let mut finds = Vec::new();
    if order != Order::Id {
        let mut natural = find();
        natural.append(bson::cstr!("hint"), rawdoc! { "$natural": 1 });
        finds.push(natural);
    }
    // What is planned in the order of the disk may have to be read by `_id` in the end; only a capped collection never is.
    if order != Order::Insertion {
        let mut by_id = find();
        by_id.append(bson::cstr!("sort"), rawdoc! { "_id": 1 });
        by_id.append(bson::cstr!("hint"), rawdoc! { "_id": 1 });
        // A range is asked for by bounds, the first reply of a whole collection without, and what goes in the one query may
        // not go in the other (`$near`).
        let mut of_range = by_id.clone();
        of_range.append(bson::cstr!("min"), Key::from_value(RawBsonRef::MinKey).named("_id"));
        of_range.append(bson::cstr!("max"), Key::from_value(RawBsonRef::MaxKey).named("_id"));
        finds.extend([by_id, of_range]);
    }
    for find in finds {
        let explain = rawdoc! { "explain": find, "verbosity": "queryPlanner", "comment": source.comment().0.as_str() };
        match source.run_raw(namespace.db(), explain).await {
            Ok(_) => {}
            Err(error) => match error.kind.as_ref() {
                ErrorKind::Command(command) if is_refusal(&error) => {
                    return Ok(Some(format!("{} ({}, code {})", command.message, command.code_name, command.code)));
                }
                _ => return Err(source.failed(&error).during(format!("planning the query of {namespace}"))),
            },
        }
    }
    Ok(None)
}
