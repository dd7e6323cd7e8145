//! Which stages of a pipeline each shard runs, and which run on what the shards gave.
//!
//! What looks at one document at a time runs on the shards, and so does the first stage that does not, as far as its
//! results can be put together again. The rest runs on one server, on documents that are sent to it (`$documents`): on
//! as many as fit into one command.

use mongodb::bson::{RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf, rawdoc};

use super::answer::{Refused, code};
use super::raw;
use super::upstream::{CONFIG, Upstream};

/// Stages that look at one document at a time, or at a shard's own statistics.
const ON_EACH_SHARD: [&str; 11] = [
    "$match",
    "$project",
    "$addFields",
    "$set",
    "$unset",
    "$unwind",
    "$replaceRoot",
    "$replaceWith",
    "$collStats",
    "$indexStats",
    "$currentOp",
];

/// Stages that give the same when they run on the shards first and on their results then.
const ON_BOTH: [&str; 3] = ["$sort", "$limit", "$sample"];

/// Stages that only a real mongos, or a whole collection, can run.
const REFUSED: [&str; 5] = ["$changeStream", "$out", "$merge", "$lookup", "$facet"];

/// The stages of each shard, and those for what they give.
pub fn split(pipeline: &[RawDocumentBuf]) -> Result<(Vec<RawDocumentBuf>, Vec<RawDocumentBuf>), Refused> {
    let mut each = Vec::new();
    for (at, stage) in pipeline.iter().enumerate() {
        let name = name_of(stage);
        if REFUSED.contains(&name.as_str()) {
            return Err(Refused::new(code::BAD_VALUE, format!("the test router has no {name}")));
        }
        if ON_EACH_SHARD.contains(&name.as_str()) {
            each.push(stage.clone());
            continue;
        }
        let mut rest = pipeline[at..].to_vec();
        if ON_BOTH.contains(&name.as_str()) {
            each.push(stage.clone());
        } else if let Some(merged) = raw::inner(stage, "$group").and_then(merged_group) {
            each.push(stage.clone());
            rest[0] = merged;
        }
        return Ok((each, rest));
    }
    Ok((each, Vec::new()))
}

/// The `$group` that puts together what the shards grouped, when all that it has are sums, minima and maxima.
fn merged_group(group: &RawDocument) -> Option<RawDocumentBuf> {
    let mut merged = rawdoc! {"_id": "$_id"};
    for (field, value) in group.iter().flatten().filter(|(field, _)| field.as_str() != "_id") {
        let RawBsonRef::Document(accumulator) = value else { return None };
        let name = name_of(accumulator);
        if !["$sum", "$min", "$max"].contains(&name.as_str()) {
            return None;
        }
        let again = raw::with(&rawdoc! {}, &name, format!("${}", field.as_str()));
        merged = raw::with(&merged, field.as_str(), again);
    }
    Some(rawdoc! {"$group": merged})
}

/// Runs stages on these documents. Returns the server that did and its reply.
pub fn merge(
    upstream: &mut Upstream,
    database: &str,
    documents: Vec<RawDocumentBuf>,
    stages: Vec<RawDocumentBuf>,
) -> Result<(String, RawDocumentBuf), Refused> {
    let documents: RawArrayBuf = documents.into_iter().collect();
    let stages = [rawdoc! {"$documents": {"$literal": documents}}].into_iter().chain(stages);
    let command = rawdoc! {
        "aggregate": 1, "pipeline": stages.collect::<RawArrayBuf>(), "cursor": {"batchSize": i32::MAX},
        "$db": database,
    };
    Ok((CONFIG.to_owned(), upstream.ask(CONFIG, &command.into())?))
}

fn name_of(stage: &RawDocument) -> String {
    let first = stage.iter_elements().next().and_then(Result::ok);
    first.map(|first| first.key().as_str().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_grouped_on_the_shards_and_summed() {
        let count = rawdoc! {"$group": {"_id": 1, "n": {"$sum": 1}}};
        let (each, rest) = split(&[rawdoc! {"$match": {}}, count.clone()]).expect("can be split");
        assert_eq!(each, [rawdoc! {"$match": {}}, count]);
        assert_eq!(rest, [rawdoc! {"$group": {"_id": "$_id", "n": {"$sum": "$n"}}}]);
        let average = rawdoc! {"$group": {"_id": 1, "n": {"$avg": "$x"}}};
        assert_eq!(split(std::slice::from_ref(&average)).expect("can be split"), (vec![], vec![average]));
        assert!(split(&[rawdoc! {"$lookup": {}}]).is_err());
    }
}
