//! Hashed shard keys, with the server as the oracle: what a hashed index holds of a document is what is computed of it.

use crate::support::bson_values::any_value;
use crate::support::servers::{Failure, shared_source};
use bson::raw::RawDocumentBuf;
use bson::{RawBson, rawdoc};
use mongodb::bson::{Document, doc};
use mongodb::options::Hint;
use mongodb::{Client, Collection};
use mongoferry::model::bson_order::compare_documents;
use mongoferry::model::shard_key::ShardKey;
use proptest::option;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use std::collections::BTreeSet;

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
        doc! { "a.b": 1, "s": "hashed" },
        // The server does not say whose key it is: here the key says so itself.
        doc! { "k": "hashed", "_id": 1 },
    ] {
        let index = doc! { "key": &pattern, "name": "by_key" };
        database.run_command(doc! { "createIndexes": "values", "indexes": [index] }).await?;
        let on_the_server = all(&values, pattern.clone(), true).await?;
        let key = ShardKey::parse(&RawDocumentBuf::try_from(&pattern)?)?;
        let mut here = Vec::with_capacity(DOCUMENTS);
        for document in all(&values, doc! { "$natural": 1 }, false).await? {
            here.push((key.key_of(document.as_bytes()).map_err(|why| why.to_string())?, document));
        }
        // As an index has them; equal ones stay in the order of the disk.
        here.sort_by(|(left, _), (right, _)| compare_documents(left, right));
        assert_eq!((on_the_server.len(), here.len()), (DOCUMENTS, DOCUMENTS), "by {pattern}");
        for (on_the_server, (here, document)) in on_the_server.iter().zip(&here) {
            assert_eq!(on_the_server, here, "by {pattern}, of {document:?}");
        }
        database.run_command(doc! { "dropIndexes": "values", "index": "by_key" }).await?;
    }
    database.drop().await?;
    Ok(())
}

/// All documents in the order of the index that is hinted at; with `keys`, what that index has of them instead.
async fn all(values: &Collection<RawDocumentBuf>, hint: Document, keys: bool) -> Result<Vec<RawDocumentBuf>, Failure> {
    let mut cursor = values.find(doc! {}).hint(Hint::Keys(hint)).return_key(keys).await?;
    let mut found = Vec::with_capacity(DOCUMENTS);
    while cursor.advance().await? {
        found.push(cursor.current().to_owned());
    }
    Ok(found)
}
