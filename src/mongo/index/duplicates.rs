//! Which documents have the same key in an index that is to be unique.

use super::super::catalog::{from_state, number};
use super::super::deployment::Deployment;
use crate::error::Result;
use crate::model::cursor::Key;
use crate::model::namespace::Namespace;
use bson::{Bson, Document, RawBson, doc};
use serde_json::Value;
use std::collections::BTreeSet;

/// The `_id`s of documents that share a key.
pub type Group = Vec<Key>;

/// The `_id`s by which a group is told: a few of it, so that no group becomes large.
const TOLD: [(&str, &str); 4] = [("least", "$min"), ("greatest", "$max"), ("first", "$first"), ("last", "$last")];

/// Groups of documents with the same key in an index (as `createIndexes` takes it), up to `most` of them, with some `_id`s of
/// each. It may be more than the index would find: what lies in arrays is put together in every way. None where the server
/// cannot be asked so: for paths that an aggregation does not know, such as `a.$id`.
///
/// # Errors
/// Of the state, for an index that is none.
pub async fn duplicates(target: &Deployment, namespace: &Namespace, index: &Value, most: usize) -> Result<Vec<Group>> {
    let index = from_state(index)?;
    let Some(stages) = stages(&index, most) else { return Ok(Vec::new()) };
    let mut command =
        doc! { "aggregate": namespace.collection(), "pipeline": stages, "allowDiskUse": true, "cursor": {} };
    if let Ok(collation) = index.get_document("collation") {
        command.insert("collation", collation.clone());
    }
    match target.collect(namespace.db(), command).await {
        Ok(groups) => Ok(groups.iter().map(ids).filter(|group| group.len() > 1).collect()),
        Err(error) => {
            tracing::warn!(%namespace, "documents with the same key in an index were not found: {error}");
            Ok(Vec::new())
        }
    }
}

fn stages(index: &Document, most: usize) -> Option<Vec<Document>> {
    let key = index.get_document("key").ok()?;
    if key.is_empty() || key.values().any(|direction| direction.as_str().is_some()) {
        return None;
    }
    let mut stages = Vec::new();
    if let Ok(filter) = index.get_document("partialFilterExpression") {
        stages.push(doc! { "$match": filter.clone() });
    }
    if number(index, "sparse") != 0 || index.get_bool("sparse").unwrap_or(false) {
        let any: Vec<Document> = key.keys().map(|path| doc! { path.clone(): { "$exists": true } }).collect();
        stages.push(doc! { "$match": { "$or": any } });
    }
    let names: Vec<String> = (0..key.len()).map(|place| format!("k{place}")).collect();
    let paths = names.iter().zip(key.keys()).map(|(name, path)| (name.clone(), Bson::String(format!("${path}"))));
    stages.push(doc! { "$project": paths.collect::<Document>() });
    // An array has a key for each of its elements, and may lie in another one.
    for name in names.iter().flat_map(|name| [name, name]) {
        stages.push(doc! { "$unwind": { "path": format!("${name}"), "preserveNullAndEmptyArrays": true } });
    }
    // What is missing has the key null.
    let key: Document =
        names.iter().map(|name| (name.clone(), doc! { "$ifNull": [format!("${name}"), null] }.into())).collect();
    let mut group = doc! { "_id": key, "count": { "$sum": 1 } };
    group.extend(TOLD.map(|(name, by)| (name.to_owned(), Bson::Document(doc! { by: "$_id" }))));
    stages.push(doc! { "$group": group });
    // One document may be there several times, with one key of several elements.
    let alone = doc! { "$and": [{ "$eq": ["$least", "$greatest"] }, { "$eq": ["$first", "$last"] }] };
    stages.push(doc! { "$match": { "count": { "$gt": 1 }, "$expr": { "$not": [alone] } } });
    stages.push(doc! { "$limit": most as i64 });
    Some(stages)
}

fn ids(group: &Document) -> Group {
    let ids = TOLD.iter().filter_map(|(name, _)| RawBson::try_from(group.get(*name)?.clone()).ok());
    let mut seen = BTreeSet::new();
    let keys = ids.map(|id| Key::from_value(id.as_raw_bson_ref()));
    keys.filter(|key| seen.insert(key.document().as_bytes().to_vec())).collect()
}
