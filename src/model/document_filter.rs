//! Which documents of a collection are copied: a query, as a server's `find` takes it.
//!
//! Whether it is one only the server can say. It goes into every query that asks the source for documents, so that for the
//! copy a document that does not match is not there.

use bson::{Bson, Document, RawArrayBuf, RawDocument, RawDocumentBuf, rawdoc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;

/// A query that documents must match. Canonical Extended JSON in the state, in the order in which it was written: within
/// values the order of fields matters to a server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub struct DocumentFilter {
    query: RawDocumentBuf,
}

// Of bytes.
impl Eq for DocumentFilter {}

impl DocumentFilter {
    /// From Extended JSON: `{"tenant": 7}`.
    ///
    /// # Errors
    /// What is no document, or says nothing.
    pub fn parse(text: &str) -> Result<Self, String> {
        let value: Value = serde_json::from_str(text)
            .map_err(|error| format!("not JSON ({error}); write it like {{\"tenant\": 7}}"))?;
        Self::try_from(value)
    }

    /// The query.
    pub fn query(&self) -> &RawDocument {
        &self.query
    }

    fn bson(&self) -> Bson {
        // It was made of what can be decoded.
        Document::try_from(self.query()).map_or(Bson::Null, Bson::Document)
    }

    /// The query for what matches a condition, and a filter where there is one.
    pub fn with(filter: Option<&Self>, condition: RawDocumentBuf) -> RawDocumentBuf {
        match filter {
            None => condition,
            Some(filter) if condition.is_empty() => filter.query.clone(),
            Some(filter) => rawdoc! { "$and": RawArrayBuf::from_iter([condition, filter.query.clone()]) },
        }
    }
}

impl TryFrom<Value> for DocumentFilter {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let document = match Bson::try_from(value) {
            Ok(Bson::Document(document)) => document,
            Ok(other) => return Err(format!("`{other}` is no query; write it like {{\"tenant\": 7}}")),
            Err(error) => return Err(format!("not Extended JSON ({error}); write it like {{\"tenant\": 7}}")),
        };
        if document.is_empty() {
            return Err("it lets every document through; leave it out".to_owned());
        }
        let query = RawDocumentBuf::try_from(&document).map_err(|error| error.to_string())?;
        Ok(Self { query })
    }
}

impl From<DocumentFilter> for Value {
    fn from(filter: DocumentFilter) -> Self {
        filter.bson().into_canonical_extjson()
    }
}

/// As it may be written: `{"tenant":7}`.
impl fmt::Display for DocumentFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bson().into_relaxed_extjson().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn filter(text: &str) -> DocumentFilter {
        DocumentFilter::parse(text).unwrap()
    }

    #[test]
    fn what_is_stored_is_canonical_and_comes_back() {
        for text in [
            r#"{"tenant":7}"#,
            r#"{"b":{"$gt":1,"$lt":2},"a":[1,{"x":null}]}"#,
            r#"{"name":{"$regex":"^a","$options":"i"}}"#,
            r#"{"$or":[{"at":{"$gte":{"$date":"2026-01-01T00:00:00Z"}}},{"_id":{"$oid":"0123456789abcdef01234567"}}]}"#,
            r#"{"$expr":{"$eq":["$a","$$ROOT.b"]}}"#,
        ] {
            let stored = serde_json::to_string(&filter(text)).unwrap();
            assert_eq!(serde_json::from_str::<DocumentFilter>(&stored).unwrap(), filter(text), "{stored}");
            assert_eq!(filter(text).to_string(), text);
        }
        assert_eq!(serde_json::to_string(&filter(r#"{"tenant": 7}"#)).unwrap(), r#"{"tenant":{"$numberInt":"7"}}"#);
    }

    #[test]
    fn two_filters_are_one_only_where_a_server_takes_them_for_one() {
        assert_eq!(filter(r#"{"a":{"$numberInt":"1"}}"#), filter(r#"{ "a" : 1 }"#));
        assert_ne!(filter(r#"{"a":{"x":1,"y":2}}"#), filter(r#"{"a":{"y":2,"x":1}}"#));
        assert_ne!(filter(r#"{"a":1}"#), filter(r#"{"a":1.0}"#));
    }

    #[test]
    fn what_is_no_query_is_refused() {
        for (text, reason) in [
            ("", "not JSON"),
            ("{tenant: 7}", "not JSON"),
            ("7", "no query"),
            ("[]", "no query"),
            (r#"{"$oid":"0123456789abcdef01234567"}"#, "no query"),
            (r#"{"a":{"$oid":"7"}}"#, "not Extended JSON"),
            ("{}", "leave it out"),
        ] {
            let refused = DocumentFilter::parse(text).unwrap_err();
            assert!(refused.contains(reason), "{text}: {refused}");
        }
    }

    #[test]
    fn a_condition_and_a_filter_are_both_asked_for() {
        let condition = || rawdoc! { "_id": { "$eq": 1 } };
        assert_eq!(DocumentFilter::with(None, condition()), condition());
        let filter = filter(r#"{"a":1}"#);
        assert_eq!(DocumentFilter::with(Some(&filter), rawdoc! {}), rawdoc! { "a": 1 });
        let both = rawdoc! { "$and": [{ "_id": { "$eq": 1 } }, { "a": 1 }] };
        assert_eq!(DocumentFilter::with(Some(&filter), condition()), both);
    }
}
