//! Where the chunks of a collection that was never sharded should begin: asked of its documents.

use super::deployment::Deployment;
use crate::error::Result;
use crate::model::bson_order::compare_documents;
use crate::model::namespace::Namespace;
use crate::model::shard_key::ShardKey;
use bson::{Bson, Document, RawArrayBuf, RawDocumentBuf, rawdoc};

/// How many documents are looked at for each chunk: so many that chunks come out about equal.
const PER_CHUNK: usize = 20;

/// How many are looked at in all: a server gives that many without reading all documents of a large collection.
const MOST: usize = 10_000;

/// Keys that cut a collection into about `chunks` pieces of the same number of documents. Documents without such a key
/// are passed over here; the target refuses them.
///
/// # Errors
/// As [`Deployment::failed`].
pub async fn bounds(
    source: &Deployment,
    namespace: &Namespace,
    key: &ShardKey,
    chunks: usize,
) -> Result<Vec<RawDocumentBuf>> {
    if chunks < 2 {
        return Ok(Vec::new());
    }
    let size = (chunks * PER_CHUNK).min(MOST);
    // A key by anything but `_id` needs no `_id`, and one is small.
    let names = key.names().filter_map(|name| std::str::from_utf8(name).ok());
    let fields: Document = names.map(|name| (name.to_owned(), Bson::Int32(1))).collect();
    let fields = RawDocumentBuf::try_from(&fields).map_err(|error| source.failed(&error.into()))?;
    let stages = [rawdoc! { "$sample": { "size": size as i64 } }, rawdoc! { "$project": fields }];
    let command = rawdoc! {
        "aggregate": namespace.collection(),
        "pipeline": stages.into_iter().collect::<RawArrayBuf>(),
        "cursor": { "batchSize": size as i64 },
        "allowDiskUse": true,
        "comment": source.comment().0.as_str(),
    };
    let mut keys: Vec<RawDocumentBuf> = Vec::new();
    let read = async {
        let cursor = source.cursor(namespace.db(), command, size as u32).await?;
        cursor.for_each(|document| keys.extend(key.key_of(document.as_bytes()))).await
    };
    read.await.map_err(|error| source.failed(&error).during(format!("sampling the shard keys of {namespace}")))?;
    keys.sort_by(|one, other| compare_documents(one, other));
    let count = keys.len();
    let cuts = (1..chunks).map(|place| place * count / chunks);
    let mut bounds: Vec<RawDocumentBuf> = cuts.filter_map(|place| keys.get(place)).cloned().collect();
    bounds.dedup_by(|one, other| compare_documents(one, other).is_eq());
    Ok(bounds)
}
