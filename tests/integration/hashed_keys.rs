//! Hashed shard keys, with the server as the oracle: what a hashed index holds of a document is what is computed of it.

use crate::support::bson_values::any_value;
use crate::support::servers::{Failure, shared_source};
use bson::raw::RawDocumentBuf;
use bson::{RawBson, RawBsonRef, rawdoc};
use mongodb::bson::{Document, doc};
use mongodb::options::{FindOptions, Hint};
use mongodb::{Client, Collection};
use mongoferry::model::shard_key::ShardKey;
use proptest::option;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use std::collections::{BTreeMap, BTreeSet};

/// How many documents, each with a value of a type of its own.
const DOCUMENTS: usize = 12_000;

#[tokio::test]
async fn hashed_keys_are_what_the_server_computes() -> Result<(), Failure> {
    let client = Client::with_uri_str(shared_source().await?.uri()).await?;
    let database = client.database("hashed_keys");
    database.drop().await?;
    let values: Collection<RawDocumentBuf> = database.collection("values");

    // A hashed index takes no arrays, but documents with arrays in them.
    let mut runner = TestRunner::deterministic();
    let value = any_value().prop_filter("an array", |value| !matches!(value, RawBson::Array(_)));
    let value = option::weighted(0.98, value);
    let mut seen = BTreeSet::new();
    for batch in 0..DOCUMENTS / 1000 {
        let mut documents = Vec::with_capacity(1000);
        for number in 0..1000 {
            let mut document = rawdoc! { "_id": (batch * 1000 + number) as i32, "a": number as i32 % 7 };
            if let Some(value) = value.new_tree(&mut runner).map_err(|why| why.to_string())?.current() {
                seen.insert(format!("{:?}", value.element_type()));
                document.append(bson::cstr!("k"), value.clone());
                document.append(bson::cstr!("s"), rawdoc! { "x": number as i32, "k": value });
            }
            documents.push(document);
        }
        values.insert_many(&documents).await?;
    }
    // All that there are but arrays.
    assert_eq!(seen.len(), 20, "{seen:?}");

    for pattern in [
        doc! { "k": "hashed" },
        doc! { "s.k": "hashed" },
        doc! { "a": 1, "k": "hashed" },
        doc! { "s.k": "hashed", "a": 1 },
        doc! { "a.b": 1, "s": "hashed", "k": 1 },
    ] {
        let index = doc! { "key": &pattern, "name": "by_key" };
        database.run_command(doc! { "createIndexes": "values", "indexes": [index] }).await?;
        let key = ShardKey::parse(&RawDocumentBuf::try_from(&pattern)?)?;
        let keys = by_record(&values, pattern.clone(), true).await?;
        let documents = by_record(&values, doc! { "$natural": 1 }, false).await?;
        assert_eq!((keys.len(), documents.len()), (DOCUMENTS, DOCUMENTS), "{pattern}");
        let mut different = Vec::new();
        for (record, document) in &documents {
            let found = key.key_of(document.as_bytes()).map_err(|why| why.to_string())?;
            if keys[record] != found {
                different.push(format!("{document:?}: {:?} on the server, {found:?} here", keys[record]));
            }
        }
        assert!(different.is_empty(), "by {pattern}: {} differ\n{}", different.len(), different.join("\n"));
        database.run_command(doc! { "dropIndexes": "values", "index": "by_key" }).await?;
    }
    database.drop().await?;
    Ok(())
}

/// All documents by the number of their record, or, with `keys`, what the index that is hinted at has of them.
async fn by_record(
    values: &Collection<RawDocumentBuf>,
    hint: Document,
    keys: bool,
) -> Result<BTreeMap<i64, RawDocumentBuf>, Failure> {
    let options = FindOptions::builder().hint(Hint::Keys(hint)).show_record_id(true).return_key(keys).build();
    let mut cursor = values.find(doc! {}).with_options(options).await?;
    let mut found = BTreeMap::new();
    while cursor.advance().await? {
        let mut document = RawDocumentBuf::new();
        let mut record = None;
        for field in cursor.current() {
            match field? {
                (name, RawBsonRef::Int64(number)) if name == "$recordId" => record = Some(number),
                (name, value) => document.append(name, value),
            }
        }
        found.insert(record.ok_or("no record's number")?, document);
    }
    Ok(found)
}
