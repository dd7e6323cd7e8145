//! The shard key of a document and of a query, on their bytes.
//!
//! Hashes are the server's own: it is asked for them, a batch at a time (`$toHashedIndexKey`), so that what routes by
//! them owes nothing to the code that is tested.

use mongodb::bson::{Bson, Document, RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf, rawdoc};
use mongoferry::model::element::{Element, elements, kind};

use super::answer::{Refused, code};
use super::raw;
use super::upstream::{CONFIG, Upstream};

const NULL: u8 = 0x0a;
const REGEX: u8 = 0x0b;

/// How many values are hashed at once.
const HASHED_AT_ONCE: usize = 10_000;

/// A shard key's pattern.
#[derive(Debug, Clone, PartialEq)]
pub struct ShardKey {
    /// The paths, and whether the field is hashed.
    fields: Vec<(String, bool)>,
}

impl ShardKey {
    /// From the pattern.
    pub fn new(pattern: &Document) -> Self {
        let is_hashed = |value: &Bson| value.as_str() == Some("hashed");
        ShardKey { fields: pattern.iter().map(|(path, value)| (path.clone(), is_hashed(value))).collect() }
    }

    /// The key of a document, its fields under the names of the pattern, nothing hashed yet; what is missing is null.
    pub fn of_document(&self, document: &RawDocument) -> Result<RawDocumentBuf, Refused> {
        let mut found = Vec::new();
        for (path, _) in &self.fields {
            let value = at_path(document.as_bytes(), path);
            if value.is_some_and(|value| value.kind == kind::ARRAY) {
                let message = "Shard key cannot contain array values or array descendants.";
                return Err(Refused::new(code::SHARD_KEY_NOT_FOUND, message));
            }
            let (kind, value) = value.map_or((NULL, &[][..]), |value| (value.kind, value.value));
            found.push(Element { kind, name: path.as_bytes(), value });
        }
        Ok(raw::document(found))
    }

    /// The key that every document which a query matches has; none when the query leaves a field of it open.
    pub fn of_query(&self, query: &RawDocument) -> Option<RawDocumentBuf> {
        let values: Option<Vec<_>> = self
            .fields
            .iter()
            .map(|(path, _)| {
                let value = equal_to(query, path)?;
                Some(Element { name: path.as_bytes(), ..value })
            })
            .collect();
        values.map(raw::document)
    }

    /// The keys with the hashes of their hashed fields.
    pub fn hashed(&self, upstream: &mut Upstream, keys: Vec<RawDocumentBuf>) -> Result<Vec<RawDocumentBuf>, Refused> {
        let Some(at) = self.fields.iter().position(|(_, is_hashed)| *is_hashed) else { return Ok(keys) };
        let mut done = Vec::with_capacity(keys.len());
        for keys in keys.chunks(HASHED_AT_ONCE) {
            for (key, hash) in keys.iter().zip(hashes(upstream, keys, at)?) {
                let hash = hash.to_le_bytes();
                done.push(raw::document(elements(key.as_bytes()).enumerate().map(|(place, element)| {
                    if place == at { Element { kind: kind::INT64, value: &hash, ..element } } else { element }
                })));
            }
        }
        Ok(done)
    }
}

/// The server's hashes of the fields at this place.
fn hashes(upstream: &mut Upstream, keys: &[RawDocumentBuf], at: usize) -> Result<Vec<i64>, Refused> {
    let mut values = RawArrayBuf::new();
    for key in keys {
        let value = elements(key.as_bytes()).nth(at);
        values.push(raw::document(value.map(|value| Element { name: b"v", ..value })));
    }
    let command = rawdoc! {
        "aggregate": 1,
        "pipeline": [{"$documents": {"$literal": values}}, {"$project": {"hash": {"$toHashedIndexKey": "$v"}}}],
        "cursor": {"batchSize": keys.len() as i64 + 1},
        "$db": "admin",
    };
    let reply = upstream.ask(CONFIG, &command.into())?;
    let cursor = raw::inner(&reply, "cursor").map(|cursor| raw::documents(cursor, "firstBatch")).unwrap_or_default();
    Ok(cursor.iter().filter_map(|document| raw::number(document, "hash")).collect())
}

/// The value at a dotted path. An array on the way is given instead: it is not gone through.
fn at_path<'a>(document: &'a [u8], path: &str) -> Option<Element<'a>> {
    let (name, rest) = path.split_once('.').map_or((path, None), |(name, rest)| (name, Some(rest)));
    let found = elements(document).find(|element| element.name == name.as_bytes())?;
    match rest {
        Some(rest) if found.kind == kind::DOCUMENT => at_path(found.value, rest),
        Some(_) if found.kind != kind::ARRAY => None,
        _ => Some(found),
    }
}

/// What a query says that the value at a path is: by the path or by a document that holds it, plainly, with `$eq`, or
/// within `$and`.
fn equal_to<'a>(query: &'a RawDocument, path: &str) -> Option<Element<'a>> {
    let named = raw::field(query, path).or_else(|| at_path(query.as_bytes(), path));
    if let Some(found) = named {
        return plain(found);
    }
    let RawBsonRef::Array(all) = raw::value(query, "$and")? else { return None };
    all.into_iter().flatten().find_map(|query| equal_to(query.as_document()?, path))
}

/// The value that is compared with, when it is a comparison for equality.
fn plain(found: Element<'_>) -> Option<Element<'_>> {
    if found.kind == REGEX || found.kind == kind::ARRAY {
        return None;
    }
    let operator = elements(found.value).next().filter(|_| found.kind == kind::DOCUMENT);
    match operator {
        Some(first) if first.name == b"$eq" => plain(first),
        Some(first) if first.name.starts_with(b"$") => None,
        _ => Some(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mongodb::bson::doc;

    #[test]
    fn keys_are_found_in_documents_and_in_queries() {
        let key = ShardKey::new(&doc! {"a.b": 1, "c": "hashed"});
        let of = |document: RawDocumentBuf| key.of_document(&document).ok();
        assert_eq!(of(rawdoc! {"c": 1, "a": {"b": 2}}), Some(rawdoc! {"a.b": 2, "c": 1}));
        assert_eq!(of(rawdoc! {"a": 1}), Some(rawdoc! {"a.b": null, "c": null}));
        assert_eq!(of(rawdoc! {"a": [{"b": 2}]}), None);
        let of = |query: RawDocumentBuf| key.of_query(&query);
        assert_eq!(of(rawdoc! {"a.b": 2, "c": {"$eq": 1}}), Some(rawdoc! {"a.b": 2, "c": 1}));
        assert_eq!(of(rawdoc! {"a": {"b": 2}, "$and": [{"x": 1}, {"c": {}}]}), Some(rawdoc! {"a.b": 2, "c": {}}));
        for open in [rawdoc! {"c": 1}, rawdoc! {"a.b": {"$gt": 2}, "c": 1}, rawdoc! {"a.b": [1], "c": 1}] {
            assert_eq!(of(open.clone()), None, "{open:?}");
        }
    }
}
