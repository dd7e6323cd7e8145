//! Shard keys: the pattern that a sharded collection has, and the key that a document has by it.
//!
//! Documents are not decoded for it: the fields are looked for in the bytes. Where the rules are written: the server's
//! source, `ShardKeyPattern::extractShardKeyFromDoc` (`s/shard_key_pattern.cpp`) and `getFieldDottedOrArray`
//! (`bson/dotted_path_support.cpp`), in short:
//!
//! - A path leads through embedded documents. What it does not lead to is null: a field that is missing, also because
//!   there is something else than a document on the way. Of fields with one name the first counts.
//! - An array at the end of a path or on the way is no key. A server refuses to write such a document through a mongos,
//!   and so does not say in which chunk it would be: neither do we, see [`NoShardKey`].
//! - A hashed field is the hash of the value, see [`super::hashed_key`].

use super::bson_order::{Number, Value};
use super::element::{Element, document_of, elements, kind};
use super::hashed_key;
use bson::raw::RawDocumentBuf;
use bson::{RawBsonRef, RawDocument};
use smallvec::{SmallVec, smallvec};
use std::fmt;

/// One entry a field of the key. Only keys of more fields than that need memory of their own, and these are rare.
pub type Fields<T> = SmallVec<[T; 4]>;

/// An index has no more fields (<https://www.mongodb.com/docs/manual/reference/limits/>), and every shard key has one.
const MOST_FIELDS: usize = 32;

/// The shard key of a collection: its fields in their order.
#[derive(Debug, Clone, PartialEq)]
pub struct ShardKey {
    pattern: RawDocumentBuf,
    fields: Vec<Field>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Field {
    /// The names on the path, at least one.
    path: Vec<Box<[u8]>>,
    is_hashed: bool,
}

/// Why a document has no shard key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoShardKey {
    /// There is an array at this field of the key, or on the way to it.
    Array {
        /// The field as the key has it, with its dots.
        field: String,
    },
    /// It is no BSON.
    Malformed,
}

impl fmt::Display for NoShardKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoShardKey::Array { field } => write!(f, "it has an array at {field}, which no shard key can have"),
            NoShardKey::Malformed => write!(f, "its bytes are no BSON"),
        }
    }
}

impl ShardKey {
    /// The key that a pattern says, as `config.collections` has it: `{a: 1, "b.c": "hashed"}`.
    ///
    /// # Errors
    /// What a server does not take as a shard key: one line that shows the pattern and says why.
    pub fn parse(pattern: &RawDocument) -> Result<Self, String> {
        let refused = |why: String| format!("{pattern:?} is no shard key: {why}");
        let mut fields = Vec::new();
        for element in pattern {
            let (name, value) = element.map_err(|error| format!("a shard key that is no BSON: {error}"))?;
            let name = name.as_str();
            if name.split('.').any(|part| part.is_empty() || part.starts_with('$')) {
                return Err(refused(format!("`{name}` is no path to a field")));
            }
            let is_hashed = match value {
                RawBsonRef::String("hashed") => true,
                RawBsonRef::Int32(1) | RawBsonRef::Int64(1) => false,
                RawBsonRef::Double(1.0) => false,
                other => return Err(refused(format!("`{name}` must be 1 or \"hashed\", not {other:?}"))),
            };
            let path = name.split('.').map(|part| part.as_bytes().into()).collect();
            fields.push(Field { path, is_hashed });
        }
        if fields.is_empty() || fields.len() > MOST_FIELDS {
            return Err(refused(format!("it has {} fields, not 1 to {MOST_FIELDS}", fields.len())));
        }
        if fields.iter().filter(|field| field.is_hashed).count() > 1 {
            return Err(refused("more than one field is hashed".into()));
        }
        Ok(Self { pattern: pattern.to_owned(), fields })
    }

    /// As it was said.
    pub fn pattern(&self) -> &RawDocument {
        &self.pattern
    }

    /// Whether both have the same fields in the same order, hashed alike.
    pub fn is_same_as(&self, other: &ShardKey) -> bool {
        self.fields == other.fields
    }

    /// Whether its first field is hashed: then a server cuts and spreads its chunks itself.
    pub fn begins_hashed(&self) -> bool {
        self.fields.first().is_some_and(|field| field.is_hashed)
    }

    /// How many fields it has.
    pub fn field_count(&self) -> usize {
        self.fields.len()
    }

    /// The names of its fields, with their dots.
    pub fn names(&self) -> impl Iterator<Item = &[u8]> {
        elements(self.pattern.as_bytes()).map(|element| element.name)
    }

    /// Whether one of its fields is hashed.
    pub fn is_hashed(&self) -> bool {
        self.fields.iter().any(|field| field.is_hashed)
    }

    /// Where the document has the fields of the key: each as it is, not hashed; none where it is missing.
    ///
    /// # Errors
    /// An array, or bytes that are no BSON.
    pub fn find<'a>(&self, document: &'a [u8]) -> Result<Fields<Option<Element<'a>>>, NoShardKey> {
        let mut found: Fields<Option<Element<'a>>> = smallvec![None; self.fields.len()];
        // The first element of a name is the one, whether the rest of the path leads to something in it or not.
        let mut seen: Fields<bool> = smallvec![false; self.fields.len()];
        let mut unseen = self.fields.len();
        let mut elements = elements(document);
        while unseen > 0
            && let Some(element) = elements.next()
        {
            for (index, field) in self.fields.iter().enumerate() {
                if !seen[index] && *field.path[0] == *element.name {
                    found[index] = field.follow(element)?;
                    seen[index] = true;
                    unseen -= 1;
                }
            }
        }
        if unseen > 0 && !elements.is_whole() {
            return Err(NoShardKey::Malformed);
        }
        Ok(found)
    }

    /// The key of a document as chunks' bounds have it: with the names of the pattern, null for what is missing, and
    /// hashed.
    ///
    /// # Errors
    /// As [`ShardKey::find`].
    pub fn key_of(&self, document: &[u8]) -> Result<RawDocumentBuf, NoShardKey> {
        let found = self.find(document)?;
        let mut hash = [0; 8];
        if let Some(hashed) = self.fields.iter().position(|field| field.is_hashed) {
            hash = hash_of(found[hashed])?.to_le_bytes();
        }
        let parts = self.fields.iter().zip(self.names()).zip(&found).map(|((field, name), found)| match found {
            _ if field.is_hashed => Element { kind: kind::INT64, name, value: &hash },
            Some(found) => Element { name, ..*found },
            None => Element { kind: kind::NULL, name, value: &[] },
        });
        RawDocumentBuf::from_bytes(document_of(parts)).map_err(|_| NoShardKey::Malformed)
    }

    /// [`ShardKey::key_of`], to be compared with bounds.
    pub(super) fn values<'a>(&self, document: &'a [u8]) -> Result<Fields<Value<'a>>, NoShardKey> {
        let found = self.find(document)?;
        self.fields.iter().zip(found).map(|(field, found)| field.value(found)).collect()
    }
}

impl fmt::Display for ShardKey {
    /// As it is written in a shell.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (index, (field, name)) in self.fields.iter().zip(self.names()).enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            let kind = if field.is_hashed { "\"hashed\"" } else { "1" };
            write!(f, "{separator}\"{}\": {kind}", String::from_utf8_lossy(name))?;
        }
        f.write_str("}")
    }
}

impl Field {
    /// Where the path leads that begins with this element of a document.
    fn follow<'a>(&self, first: Element<'a>) -> Result<Option<Element<'a>>, NoShardKey> {
        let mut element = first;
        for name in &self.path[1..] {
            match element.kind {
                kind::ARRAY => return Err(self.array()),
                kind::DOCUMENT => {}
                _ => return Ok(None),
            }
            let mut within = elements(element.value);
            match within.find(|element| *element.name == **name) {
                Some(next) => element = next,
                None if within.is_whole() => return Ok(None),
                None => return Err(NoShardKey::Malformed),
            }
        }
        if element.kind == kind::ARRAY { Err(self.array()) } else { Ok(Some(element)) }
    }

    fn array(&self) -> NoShardKey {
        let names: Vec<_> = self.path.iter().map(|name| String::from_utf8_lossy(name)).collect();
        NoShardKey::Array { field: names.join(".") }
    }

    fn value<'a>(&self, found: Option<Element<'a>>) -> Result<Value<'a>, NoShardKey> {
        if self.is_hashed {
            return Ok(Value::Number(Number::Integer(hash_of(found)?)));
        }
        let Some(element) = found else { return Ok(Value::Null) };
        Value::take(element.kind, &mut &*element.value).ok_or(NoShardKey::Malformed)
    }
}

/// The hash of a field, of null where it is missing.
fn hash_of(found: Option<Element<'_>>) -> Result<i64, NoShardKey> {
    let (kind, value) = found.map_or((kind::NULL, &[][..]), |element| (element.kind, element.value));
    hashed_key::hash(kind, value).ok_or(NoShardKey::Malformed)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use bson::{RawBson, rawdoc};

    fn key(pattern: RawDocumentBuf) -> ShardKey {
        ShardKey::parse(&pattern).unwrap()
    }

    fn key_of(pattern: RawDocumentBuf, document: RawDocumentBuf) -> Result<RawDocumentBuf, NoShardKey> {
        key(pattern).key_of(document.as_bytes())
    }

    fn array(field: &str) -> Result<RawDocumentBuf, NoShardKey> {
        Err(NoShardKey::Array { field: field.into() })
    }

    #[test]
    fn what_a_server_takes_as_a_shard_key_is_one() {
        let pattern = rawdoc! { "_id": 1, "a": 1.0, "b.c": 1i64, "d": "hashed" };
        let key = key(pattern.clone());
        assert_eq!((key.pattern(), key.field_count(), key.is_hashed()), (&*pattern, 4, true));
        assert_eq!(key.to_string(), r#"{"_id": 1, "a": 1, "b.c": 1, "d": "hashed"}"#);
        assert!(!self::key(rawdoc! { "a": 1 }).is_hashed());
    }

    #[test]
    fn what_a_server_does_not_take_says_why() {
        let mut long = RawDocumentBuf::new();
        for number in 0..33 {
            long.append(bson::raw::CString::try_from(format!("f{number}")).unwrap(), 1);
        }
        for (pattern, why) in [
            (rawdoc! {}, "it has 0 fields, not 1 to 32"),
            (long, "it has 33 fields, not 1 to 32"),
            (rawdoc! { "a": -1 }, "`a` must be 1 or \"hashed\", not Int32(-1)"),
            (rawdoc! { "a": "text" }, "`a` must be 1 or \"hashed\", not String(\"text\")"),
            (rawdoc! { "a": "hashed", "b": "hashed" }, "more than one field is hashed"),
            (rawdoc! { "a..b": 1 }, "`a..b` is no path to a field"),
            (rawdoc! { "": 1 }, "`` is no path to a field"),
            (rawdoc! { "a.$b": 1 }, "`a.$b` is no path to a field"),
        ] {
            let error = ShardKey::parse(&pattern).unwrap_err();
            assert!(error.ends_with(&format!("is no shard key: {why}")), "{error}");
        }
    }

    #[test]
    fn a_key_has_the_values_as_they_are_under_the_patterns_names() {
        let document = rawdoc! { "z": [1], "b": { "x": 1, "c": 2.5 }, "_id": "i", "d": RawBson::MaxKey };
        let expected = rawdoc! { "_id": "i", "b.c": 2.5, "d": RawBson::MaxKey };
        assert_eq!(key_of(rawdoc! { "_id": 1, "b.c": 1, "d": 1 }, document), Ok(expected));
    }

    #[test]
    fn what_is_missing_is_null() {
        let pattern = || rawdoc! { "a": 1, "b.c.d": 1 };
        let null = rawdoc! { "a": RawBson::Null, "b.c.d": RawBson::Null };
        for document in [
            rawdoc! {},
            rawdoc! { "b": 1 },
            rawdoc! { "b": { "c": "text" } },
            rawdoc! { "b": { "c": {} } },
            rawdoc! { "b.c.d": 1, "b": { "c.d": 1 } },
        ] {
            assert_eq!(key_of(pattern(), document.clone()), Ok(null.clone()), "{document:?}");
        }
    }

    #[test]
    fn of_fields_with_one_name_the_first_counts() {
        let document = rawdoc! { "a": 1, "a": 2, "b": 3, "b": { "c": 4 }, "b": [5] };
        assert_eq!(key_of(rawdoc! { "a": 1, "b.c": 1 }, document), Ok(rawdoc! { "a": 1, "b.c": RawBson::Null }));
        let document = rawdoc! { "b": { "c": 1, "c": 2 } };
        assert_eq!(key_of(rawdoc! { "b.c": 1 }, document), Ok(rawdoc! { "b.c": 1 }));
    }

    #[test]
    fn an_array_is_no_key() {
        assert_eq!(key_of(rawdoc! { "a": 1 }, rawdoc! { "a": [] }), array("a"));
        assert_eq!(key_of(rawdoc! { "a": "hashed" }, rawdoc! { "a": [1] }), array("a"));
        assert_eq!(key_of(rawdoc! { "x": 1, "a.b": 1 }, rawdoc! { "x": 1, "a": [{ "b": 1 }] }), array("a.b"));
        assert_eq!(key_of(rawdoc! { "a.0": 1 }, rawdoc! { "a": ["x"] }), array("a.0"));
        // Within a value it is one like any other.
        let document = rawdoc! { "a": { "b": [1] } };
        assert_eq!(key_of(rawdoc! { "a": 1 }, document.clone()), Ok(document));
    }

    #[test]
    fn a_hashed_field_is_its_hash_and_that_of_null_where_it_is_missing() {
        let hash = |document: RawDocumentBuf| key_of(rawdoc! { "a": 1, "b.c": "hashed" }, document).unwrap();
        let found = hash(rawdoc! { "a": 7, "b": { "c": 42 } });
        // See `hashed_key`.
        assert_eq!(found, rawdoc! { "a": 7, "b.c": -944_302_157_085_130_861_i64 });
        assert_eq!(hash(rawdoc! { "a": 7, "b": 1 }), hash(rawdoc! { "a": 7, "b": { "c": RawBson::Null } }));
    }

    #[test]
    fn a_key_that_may_be_where_the_document_is_no_bson_is_not_guessed() {
        let mut document = rawdoc! { "a": 1, "b": 2 }.into_bytes();
        // The type of `b`.
        document[11] = 0x42;
        assert_eq!(key(rawdoc! { "b": 1 }).key_of(&document), Err(NoShardKey::Malformed));
        assert_eq!(key(rawdoc! { "a": 1 }).key_of(&document), Ok(rawdoc! { "a": 1 }));
    }
}
