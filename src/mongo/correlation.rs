//! What tells in which order a collection is read best: whether its `_id`s follow the order of its records on the disk,
//! and how much of it the source's memory holds.

use super::catalog::number;
use super::deployment::Deployment;
use super::failure::code::{NAMESPACE_NOT_FOUND, UNAUTHORIZED};
use super::failure::code_of;
use crate::error::Result;
use crate::model::bson_order::compare_documents;
use crate::model::cursor::Key;
use crate::model::namespace::Namespace;
use bson::{doc, rawdoc};
use mongodb::error::Error as DriverError;

/// How many neighbours are looked at, at either end.
const SAMPLE: u64 = 500;

/// How many bytes may be read for it at either end: documents are read whole, although their `_id`s alone are wanted.
const SAMPLE_BYTES: u64 = 4 << 20;

/// The share of neighbours on the disk, in percent, that have to be in the order of `_id`. Scattered ones are at 50;
/// several clients that each insert in their own order are well above 90.
const IN_ORDER: usize = 90;

/// Whether neighbours on the disk are in the order of `_id`, at the beginning of a collection and at its end. Strings
/// under a collation are compared as if there were none, which is good enough to tell.
///
/// # Errors
/// As [`Deployment::failed`].
pub async fn follows_disk(source: &Deployment, namespace: &Namespace, document_size: u64) -> Result<bool> {
    let size = (SAMPLE_BYTES / document_size.max(1)).clamp(8, SAMPLE);
    for direction in [1, -1] {
        let mut keys = match ids(source, namespace, size, direction).await {
            Ok(keys) => keys,
            Err(error) if code_of(&error) == Some(NAMESPACE_NOT_FOUND) => return Ok(true),
            Err(error) => return Err(source.failed(&error).during(format!("looking at the order of {namespace}"))),
        };
        if direction < 0 {
            keys.reverse();
        }
        if !are_in_order(&keys) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The memory of the source's machine, or of its container, in bytes (`hostInfo`). None where the right to ask is missing
/// (`clusterMonitor`).
///
/// # Errors
/// As [`Deployment::failed`].
pub async fn memory(source: &Deployment) -> Result<Option<u64>> {
    let info = match source.run("admin", doc! { "hostInfo": 1 }).await {
        Ok(info) => info,
        Err(error) if code_of(&error) == Some(UNAUTHORIZED) => return Ok(None),
        Err(error) => return Err(source.failed(&error)),
    };
    let system = info.get_document("system").ok();
    // The limit of a container where there is one (4.4).
    let megabytes = ["memLimitMB", "memSizeMB"].iter().filter_map(|name| Some(number(system?, name)));
    Ok(megabytes.filter(|megabytes| *megabytes > 0).min().map(|megabytes| megabytes << 20))
}

async fn ids(
    source: &Deployment,
    namespace: &Namespace,
    size: u64,
    direction: i32,
) -> std::result::Result<Vec<Key>, DriverError> {
    let command = rawdoc! {
        "find": namespace.collection(),
        "filter": {},
        "sort": { "$natural": direction },
        "projection": { "_id": 1 },
        "limit": size as i64,
        "comment": source.comment().0.as_str(),
    };
    let mut keys = Vec::new();
    let cursor = source.cursor(namespace.db(), command, size as u32).await?;
    cursor.for_each(|document| keys.extend(Key::of(document))).await?;
    Ok(keys)
}

fn are_in_order(keys: &[Key]) -> bool {
    let ascending = keys.windows(2).filter(|pair| compare_documents(pair[0].document(), pair[1].document()).is_lt());
    ascending.count() * 100 >= keys.len().saturating_sub(1) * IN_ORDER
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::RawBsonRef;

    fn keys(numbers: impl Iterator<Item = i64>) -> Vec<Key> {
        numbers.map(|number| Key::from_value(RawBsonRef::Int64(number))).collect()
    }

    #[test]
    fn a_few_that_came_late_do_not_make_them_scattered() {
        assert!(are_in_order(&keys(0..100)));
        assert!(are_in_order(&keys((0..100).map(|number| if number % 20 == 0 { number - 3 } else { number }))));
        assert!(!are_in_order(&keys((0..100).map(|number| number * 37 % 101))));
        assert!(are_in_order(&[]));
    }
}
