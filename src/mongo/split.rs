//! Where a large collection may be cut into ranges of about the same size.
//!
//! Cuts come from a random sample of its `_id`s. `splitVector` would be exact, but reads the whole `_id` index on the
//! primary, needs a right that few users have, and is refused by Atlas; ranges that differ by some percent do no harm.

use super::deployment::Deployment;
use super::failure::code::NAMESPACE_NOT_FOUND;
use super::failure::code_of;
use crate::error::Result;
use crate::model::cursor::Key;
use crate::model::namespace::Namespace;
use crate::model::partition::cuts as choose;
use bson::rawdoc;
use mongodb::error::Error as DriverError;

/// How many of the sampled keys lie in a range: with 20, nine of ten ranges are within 40 % of the mean.
const SAMPLES: u64 = 20;

/// The most keys that are sampled: each costs the server a random read.
const MOST_SAMPLES: u64 = 20_000;

/// Into how many ranges a collection is cut at most: their bounds are listed in the catalog and the plan.
const MOST_RANGES: u64 = 1_024;

/// A server takes a sample by a random cursor when it is smaller than a twentieth of the collection, and else by reading
/// and sorting all of it (<https://www.mongodb.com/docs/manual/reference/operator/aggregation/sample/>).
const SAMPLED_AT_MOST: u64 = 25;

/// The keys at which to cut a collection of about so many documents and bytes into ranges of about `range_size` bytes:
/// sorted and told apart as its `_id` index does it, collation included.
///
/// # Errors
/// As [`Deployment::failed`].
pub async fn cuts(
    source: &Deployment,
    namespace: &Namespace,
    (documents, bytes): (u64, u64),
    range_size: u64,
) -> Result<Vec<Key>> {
    let ranges = bytes.div_ceil(range_size.max(1)).min(MOST_RANGES);
    let samples = (ranges * SAMPLES).min(MOST_SAMPLES).min(documents / SAMPLED_AT_MOST);
    if ranges < 2 || samples == 0 {
        return Ok(Vec::new());
    }
    match sample(source, namespace, samples).await {
        Ok(keys) => Ok(choose(&keys, ranges as usize)),
        Err(error) if code_of(&error) == Some(NAMESPACE_NOT_FOUND) => Ok(Vec::new()),
        Err(error) => Err(source.failed(&error).during(format!("sampling {namespace}"))),
    }
}

/// About `size` keys, sorted. `$group` leaves out those that compare equal under the collection's collation: a random
/// cursor may give a document twice.
async fn sample(source: &Deployment, namespace: &Namespace, size: u64) -> std::result::Result<Vec<Key>, DriverError> {
    let command = rawdoc! {
        "aggregate": namespace.collection(),
        "pipeline": [
            { "$sample": { "size": size as i64 } },
            { "$group": { "_id": "$_id" } },
            { "$sort": { "_id": 1 } },
        ],
        "cursor": {},
        "comment": source.comment().0.as_str(),
    };
    let mut keys = Vec::new();
    let cursor = source.cursor(namespace.db(), command, MOST_SAMPLES as u32).await?;
    cursor.for_each(|document| keys.extend(Key::of(document))).await?;
    Ok(keys)
}
