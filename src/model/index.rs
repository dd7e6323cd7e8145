//! What has to be asked of `createIndexes` for an index that `listIndexes` shows, and when two of them are the same.
//!
//! What older servers took and newer ones refuse (tried on 6.0.5) is repaired to what it meant to the old one, as mongorestore
//! does it (mongo-tools `common/bsonutil/indexes.go`), and each repair is told. Nothing else is changed: what the target's
//! server still refuses is a finding with its reason.

use super::catalog::CatalogEntry;
use super::expiry;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// Fields of an index that servers know. Others refuse the whole index (code 197).
const KNOWN: [&str; 26] = [
    "2dsphereIndexVersion",
    "bits",
    "bucketSize",
    "clustered",
    "coarsestIndexedLevel",
    "collation",
    "columnstoreProjection",
    "default_language",
    "expireAfterSeconds",
    "finestIndexedLevel",
    "hidden",
    "key",
    "language_override",
    "max",
    "min",
    "name",
    "originalSpec",
    "partialFilterExpression",
    "prepareUnique",
    "sparse",
    "storageEngine",
    "textIndexVersion",
    "unique",
    "v",
    "weights",
    "wildcardProjection",
];

/// Without effect by now, or about where the index lies: left out.
const WITHOUT_EFFECT: [&str; 3] = ["ns", "background", "dropDups"];

/// What is true or false.
const FLAGS: [&str; 4] = ["unique", "sparse", "hidden", "prepareUnique"];

/// Options that are numbers: servers keep them in one type or another.
const NUMBERS: [&str; 8] = [
    "bits",
    "min",
    "max",
    "textIndexVersion",
    "2dsphereIndexVersion",
    "expireAfterSeconds",
    "finestIndexedLevel",
    "coarsestIndexedLevel",
];

/// The version of an index that all supported servers make.
const VERSION: f64 = 2.0;

/// What a server takes for "never": it shows this for a time that makes no sense (SERVER-68477).
const NEVER: i32 = i32::MAX;

/// An index that is to be built.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// As `createIndexes` takes it, in canonical Extended JSON.
    pub spec: Value,
    /// What was changed for that, in words.
    pub repairs: Vec<String>,
}

impl Wanted {
    /// What is to be built for an index that is listed so, on a collection with these options.
    ///
    /// An index of simple collation is listed without one; created so on a collection with a default collation it would
    /// inherit that, so the simple one is spelled out
    /// (<https://www.mongodb.com/docs/manual/reference/collation/#collation-and-index-use>).
    pub fn of(listed: &Value, collection_options: &Value) -> Self {
        let mut repairs = Vec::new();
        let mut index = Map::new();
        let text_or_geo = kinds(listed);
        for (name, value) in listed.as_object().into_iter().flatten() {
            let repaired = match name.as_str() {
                "key" => key(value, &mut repairs),
                "v" => version(value, &mut repairs),
                "expireAfterSeconds" => expiry(value, &mut repairs),
                name if FLAGS.contains(&name) => flag(name, value, &mut repairs),
                "weights" if !text_or_geo.contains("text") => None,
                "bucketSize" if !text_or_geo.contains("geoHaystack") => None,
                name if !KNOWN.contains(&name) => None,
                _ => Some(value.clone()),
            };
            match repaired {
                Some(value) => {
                    index.insert(name.clone(), value);
                }
                None if WITHOUT_EFFECT.contains(&name.as_str()) => {
                    repairs.push(format!("{name}, which has no effect, is left out"));
                }
                None if FLAGS.contains(&name.as_str()) => {}
                None => repairs.push(format!("{name}, which servers refuse there, is left out")),
            }
        }
        if collection_options.get("collation").is_some() && !index.contains_key("collation") {
            index.insert("collation".into(), json!({"locale": "simple"}));
        }
        Self { spec: Value::Object(index), repairs }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        name(&self.spec)
    }

    /// Whether it has consequences while documents still arrive, so that it always waits for the data: a unique one rejects
    /// documents, as does one that is prepared to be unique, and a TTL one deletes them.
    pub fn waits_for_data(&self) -> bool {
        ["unique", "prepareUnique"].iter().any(|name| is_set(&self.spec, name)) || self.expires()
    }

    /// Whether it deletes documents by time.
    pub fn expires(&self) -> bool {
        expiry::seconds(&self.spec).is_some()
    }

    /// Whether it keeps out documents that have the key of another one.
    pub fn is_unique(&self) -> bool {
        is_set(&self.spec, "unique")
    }
}

/// The indexes of a collection that have to be built: not those that come with it, nor what no target has.
pub fn wanted(entry: &CatalogEntry) -> Vec<Wanted> {
    let buildable = entry.secondary_indexes().filter(|index| unsupported(index).is_none());
    buildable.map(|index| Wanted::of(index, &entry.options)).collect()
}

/// What keeps an index from being built anywhere, in words.
pub fn unsupported(listed: &Value) -> Option<&'static str> {
    let kinds = kinds(listed);
    if kinds.contains("geoHaystack") {
        return Some(
            "is a geoHaystack index, which servers from 5.0 on do not have; make a 2d or 2dsphere index instead",
        );
    }
    if kinds.contains("columnstore") {
        return Some("is a columnstore index, which is not copied; make it on the target by hand if that has them");
    }
    None
}

/// Whether an index comes with its collection.
pub fn is_implicit(listed: &Value) -> bool {
    listed.get("clustered").and_then(Value::as_bool).unwrap_or(false) || name(listed) == "_id_"
}

/// Its name.
pub fn name(index: &Value) -> &str {
    index.get("name").and_then(Value::as_str).unwrap_or_default()
}

/// The words in its key: `text`, `hashed` and so on.
fn kinds(index: &Value) -> BTreeSet<&str> {
    index.get("key").and_then(Value::as_object).into_iter().flatten().filter_map(|(_, value)| value.as_str()).collect()
}

fn is_set(index: &Value, name: &str) -> bool {
    index.get(name) == Some(&Value::Bool(true))
}

/// A direction that servers refuse meant ascending: only what is a number below 0 meant descending.
fn key(key: &Value, repairs: &mut Vec<String>) -> Option<Value> {
    let Some(fields) = key.as_object() else { return Some(key.clone()) };
    let mut repaired = Map::new();
    for (field, value) in fields {
        let is_direction = match (number(value), value) {
            (Some(number), _) => number != 0.0 && !number.is_nan(),
            // What is no number in quotes is a kind of index, or will be refused for its name.
            (None, Value::String(kind)) => !kind.is_empty() && kind.parse::<f64>().is_err(),
            (None, _) => false,
        };
        if is_direction {
            repaired.insert(field.clone(), value.clone());
        } else {
            repairs.push(format!("the direction {} of {field} is 1", shown(value)));
            repaired.insert(field.clone(), json!({"$numberInt": "1"}));
        }
    }
    Some(Value::Object(repaired))
}

fn version(value: &Value, repairs: &mut Vec<String>) -> Option<Value> {
    if number(value).is_some_and(|version| version >= VERSION) {
        return Some(value.clone());
    }
    repairs.push(format!("its version {} is 2", shown(value)));
    Some(json!({"$numberInt": "2"}))
}

/// What a server makes of a flag: all but `false`, 0, null and undefined is true.
fn flag(name: &str, value: &Value, repairs: &mut Vec<String>) -> Option<Value> {
    if value.is_boolean() {
        return Some(value.clone());
    }
    let is_set = match number(value) {
        Some(number) => number != 0.0,
        None => !value.is_null() && value.get("$undefined").is_none(),
    };
    // A server does this by itself with numbers, but for hidden.
    if number(value).is_none() || name == "hidden" {
        repairs.push(format!("{name}: {} is {is_set}", shown(value)));
    }
    is_set.then_some(Value::Bool(true))
}

/// A time that makes no sense never comes; a server cuts off fractions.
fn expiry(value: &Value, repairs: &mut Vec<String>) -> Option<Value> {
    let seconds = match number(value) {
        Some(seconds) if seconds > -1.0 && seconds < f64::from(NEVER) + 1.0 => seconds as i32,
        _ => {
            repairs.push(format!("expireAfterSeconds: {} is {NEVER}, so that nothing expires", shown(value)));
            NEVER
        }
    };
    Some(json!({"$numberInt": seconds.to_string()}))
}

/// A number in canonical Extended JSON, as near as a double comes to it.
pub fn number(value: &Value) -> Option<f64> {
    if let Some(plain) = value.as_f64() {
        return Some(plain);
    }
    let (kind, text) = value.as_object()?.iter().next()?;
    matches!(kind.as_str(), "$numberInt" | "$numberLong" | "$numberDouble" | "$numberDecimal")
        .then(|| text.as_str()?.parse().ok())?
}

fn shown(value: &Value) -> String {
    match value.as_object().and_then(|fields| fields.values().next()) {
        Some(Value::String(text)) if number(value).is_some() => text.clone(),
        _ => value.to_string(),
    }
}

/// Which indexes may still be held back on the target.
#[derive(Debug, Clone, Copy)]
pub enum Held<'a> {
    /// None: the job is committed.
    None,
    /// All: this job has made the collection.
    All,
    /// Those that this job has made in a collection that was there.
    These(&'a [String]),
}

impl Held<'_> {
    /// Whether the index of this name is one of them.
    pub fn may_be(&self, name: &str) -> bool {
        match self {
            Held::None => false,
            Held::All => true,
            Held::These(names) => names.iter().any(|held| held == name),
        }
    }
}

/// How a collection's indexes differ from what is expected, one sentence each. Names tell which is which; the order of
/// the fields in a key matters, and what [`Wanted::of`] repairs or a server normalises does not.
pub fn index_differences(expected: &[Value], found: &[Value], options: &Value, held: Held<'_>) -> Vec<String> {
    let mut differences = Vec::new();
    for index in expected {
        let name = name(index);
        let Some(other) = found.iter().find(|other| self::name(other) == name) else {
            differences.push(format!("index {name} is missing"));
            continue;
        };
        let (mut one, mut two) = (comparable(index, options), comparable(other, options));
        if held.may_be(name) && expiry::is_held(other) {
            one.shift_remove("expireAfterSeconds");
            two.shift_remove("expireAfterSeconds");
        }
        let fields = |index: &Map<String, Value>| {
            index.get("key").and_then(Value::as_object).map(|key| key.keys().cloned().collect::<Vec<_>>())
        };
        if one != two || fields(&one) != fields(&two) {
            let (one, two) = (Value::Object(one), Value::Object(two));
            differences.push(format!("index {name} differs: expected {one}, found {two}"));
        }
    }
    for other in found {
        if !expected.iter().any(|index| name(index) == name(other)) {
            differences.push(format!("index {} is not on the source", name(other)));
        }
    }
    differences
}

/// An index with what is the same to every server said in one way.
fn comparable(index: &Value, options: &Value) -> Map<String, Value> {
    let Value::Object(mut fields) = Wanted::of(index, options).spec else { return Map::new() };
    fields.retain(|name, value| !(FLAGS.contains(&name.as_str()) && *value == Value::Bool(false)));
    let plain = |value: &mut Value| {
        if let Some(number) = number(value) {
            *value = json!(number);
        }
    };
    for (name, value) in &mut fields {
        match (name.as_str(), value) {
            ("weights", Value::Object(weights)) => weights.values_mut().for_each(plain),
            (name, value) if NUMBERS.contains(&name) => plain(value),
            _ => {}
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(number: &str) -> Value {
        json!({"$numberInt": number})
    }

    fn repaired(field: &str, value: Value) -> (Option<Value>, usize) {
        let mut listed = json!({"v": one("2"), "key": {"a": one("1")}, "name": "n"});
        listed[field] = value;
        let wanted = Wanted::of(&listed, &json!({}));
        (wanted.spec.get(field).cloned(), wanted.repairs.len())
    }

    #[test]
    fn what_servers_refuse_is_repaired_and_told_and_nothing_else_is_changed() {
        let double = |text: &str| json!({"$numberDouble": text});
        let rows = [
            ("v", one("0"), Some(one("2")), 1),
            ("v", one("1"), Some(one("2")), 1),
            ("v", one("2"), Some(one("2")), 0),
            ("ns", json!("a.b"), None, 1),
            ("background", json!(true), None, 1),
            ("dropDups", one("1"), None, 1),
            ("safe", json!(true), None, 1),
            ("weights", json!({"a": one("1")}), None, 1),
            ("unique", json!(true), Some(json!(true)), 0),
            ("unique", double("1.0"), Some(json!(true)), 0),
            ("sparse", json!("true"), Some(json!(true)), 1),
            ("sparse", Value::Null, None, 1),
            ("sparse", one("0"), None, 0),
            ("sparse", json!(false), Some(json!(false)), 0),
            ("hidden", one("1"), Some(json!(true)), 1),
            ("expireAfterSeconds", one("60"), Some(one("60")), 0),
            ("expireAfterSeconds", double("3600.7"), Some(one("3600")), 0),
            ("expireAfterSeconds", json!({"$numberDecimal": "5"}), Some(one("5")), 0),
            ("expireAfterSeconds", double("NaN"), Some(one("2147483647")), 1),
            ("expireAfterSeconds", one("-1"), Some(one("2147483647")), 1),
            ("expireAfterSeconds", json!({"$numberLong": "99999999999"}), Some(one("2147483647")), 1),
            ("expireAfterSeconds", json!("60"), Some(one("2147483647")), 1),
            ("storageEngine", json!({"wiredTiger": {}}), Some(json!({"wiredTiger": {}})), 0),
        ];
        for (field, value, expected, repairs) in rows {
            assert_eq!(repaired(field, value.clone()), (expected, repairs), "{field}: {value}");
        }
    }

    #[test]
    fn a_direction_that_servers_refuse_is_ascending() {
        let double = |text: &str| json!({"$numberDouble": text});
        for value in
            [one("0"), double("-0.0"), double("NaN"), json!(true), json!("1"), json!("-1"), json!(""), json!({})]
        {
            assert_eq!(repaired("key", json!({"a": value})), (Some(json!({"a": one("1")})), 1), "{value}");
        }
        for value in [one("-1"), double("1.0"), double("-2.5"), double("Infinity"), json!("hashed"), json!("wrong")] {
            assert_eq!(repaired("key", json!({"a": value})), (Some(json!({"a": value})), 0), "{value}");
        }
        let order = Wanted::of(&json!({"name": "n", "key": {"b": one("1"), "a": json!(true)}}), &json!({}));
        assert_eq!(order.spec["key"].to_string(), r#"{"b":{"$numberInt":"1"},"a":{"$numberInt":"1"}}"#);
    }

    #[test]
    fn a_simple_index_on_a_collated_collection_says_so() {
        let options = json!({"collation": {"locale": "fr"}});
        let index = Wanted::of(&json!({"v": 2, "key": {"b": 1, "a": 1}, "name": "n"}), &options).spec;
        assert_eq!(index["collation"], json!({"locale": "simple"}));
        assert!(Wanted::of(&json!({"name": "n"}), &json!({})).spec.get("collation").is_none());
    }

    #[test]
    fn indexes_with_consequences_wait_for_the_data() {
        let waits = |index: Value| Wanted::of(&index, &json!({})).waits_for_data();
        assert!(waits(json!({"unique": true})) && waits(json!({"unique": one("1")})));
        assert!(waits(json!({"prepareUnique": true})));
        assert!(waits(json!({"expireAfterSeconds": one("0")})));
        assert!(!waits(json!({"unique": false, "sparse": true, "hidden": true})));
    }

    #[test]
    fn the_order_of_an_index_key_matters_and_of_nothing_else() {
        let index = json!({"v": 2, "key": {"a": 1, "b": -1}, "name": "n", "background": true, "sparse": false});
        let compared = |found: Value| index_differences(std::slice::from_ref(&index), &[found], &json!({}), Held::None);
        assert!(compared(json!({"name": "n", "key": {"a": 1, "b": -1}, "v": 2})).is_empty());
        assert_eq!(compared(json!({"name": "n", "key": {"b": -1, "a": 1}, "v": 2})).len(), 1);
        assert_eq!(compared(json!({"name": "n", "key": {"a": 1, "b": -1}, "v": 2, "unique": true})).len(), 1);
    }

    #[test]
    fn numbers_are_compared_by_value() {
        let listed = |number: &str| json!({"name": "n", "key": {"a": "2d"}, "min": {number: "-10"}, "weights": {}});
        let differences = |found| index_differences(&[listed("$numberInt")], &[found], &json!({}), Held::None);
        assert!(differences(listed("$numberDouble")).is_empty());
        assert_eq!(differences(json!({"name": "n", "key": {"a": "2d"}, "min": one("-11")})).len(), 1);
    }

    #[test]
    fn what_is_held_back_is_no_difference_before_the_commit() {
        let ttl = json!({"name": "n", "key": {"at": one("1")}, "expireAfterSeconds": one("60")});
        let other = json!({"name": "n", "key": {"at": one("1")}, "expireAfterSeconds": one("61")});
        let plain = json!({"name": "n", "key": {"at": one("1")}});
        let names = ["n".to_owned()];
        let count = |found: &Value, held| {
            index_differences(std::slice::from_ref(&ttl), std::slice::from_ref(found), &json!({}), held).len()
        };
        for (found, held, expected) in [
            (&plain, Held::All, 0),
            (&plain, Held::These(&names), 0),
            (&plain, Held::These(&[]), 1),
            (&plain, Held::None, 1),
            (&ttl, Held::All, 0),
            (&ttl, Held::None, 0),
            (&other, Held::All, 1),
        ] {
            assert_eq!(count(found, held), expected, "{found} {held:?}");
        }
    }

    #[test]
    fn kinds_that_no_target_has_are_not_asked_for() {
        assert!(unsupported(&json!({"key": {"a": "geoHaystack", "b": 1}})).is_some());
        assert!(unsupported(&json!({"key": {"$**": "columnstore"}})).is_some());
        assert!(unsupported(&json!({"key": {"a": "2dsphere"}})).is_none());
    }
}
