//! The server as the oracle for [`mongoferry::model::bson_order`].

use super::bson_values::any_value;
use bson::raw::RawDocumentBuf;
use bson::{RawBson, RawBsonRef, doc};
use mongodb::options::Hint;
use mongodb::{Client, Collection};
use mongoferry::model::bson_order;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use std::cmp::Ordering;
use std::collections::BTreeSet;

/// How many values: enough for every pair of types to meet in many ways.
const VALUES: usize = 6000;

/// Inserts generated values, has the server sort them by an index and in memory, and compares the order with ours.
///
/// The sort is by the value and then by a number that is unlike the order of insertion. So it shows not only that no
/// two neighbours are the wrong way round, but also that both sides agree on which values are *equal*: values that only
/// one side holds to be equal would come in an order of their numbers that the other side does not expect.
///
/// Arrays only occur within documents, since a server sorts arrays by their elements. The server's sort in memory does
/// not always agree with its own index (6.0.5): where a field's name occurs twice in an embedded document it sees only
/// one of the two, and of DBPointers it compares the id before the namespace. We follow the index.
///
/// # Panics
/// When the two disagree, or the server at `uri` does not do what it is asked to.
pub async fn order_agrees_with_the_server(uri: &str) {
    let client = Client::with_uri_str(uri).await.expect("a server's address");
    let database = client.database("bson_order_oracle");
    database.drop().await.expect("drop");
    let values: Collection<RawDocumentBuf> = database.collection("values");

    let mut runner = TestRunner::deterministic();
    let strategy = any_value().prop_filter("a top-level array", |value| !matches!(value, RawBson::Array(_)));
    let mut documents = Vec::with_capacity(VALUES);
    let mut alike = 0;
    for number in 0..VALUES {
        let value = strategy.new_tree(&mut runner).expect("a value").current();
        let in_memory_too = sorts_alike(value.as_raw_bson_ref());
        alike += usize::from(in_memory_too);
        let mut document = RawDocumentBuf::new();
        document.append(bson::cstr!("v"), value);
        // A permutation of the numbers: 2741 has no divisor in common with how many there are.
        document.append(bson::cstr!("n"), (number * 2741 % VALUES) as i32);
        document.append(bson::cstr!("in_memory_too"), in_memory_too);
        documents.push(document);
    }
    values.insert_many(&documents).await.expect("insert");
    let by_value = doc! { "v": 1, "n": 1 };
    database
        .run_command(doc! { "createIndexes": "values", "indexes": [{ "key": &by_value, "name": "by_value" }] })
        .await
        .expect("index");

    let by_index = (doc! {}, by_value.clone(), VALUES);
    let in_memory = (doc! { "in_memory_too": true }, doc! { "$natural": 1 }, alike);
    for (filter, hint, expected) in [by_index, in_memory] {
        let mut cursor = values
            .find(filter)
            .sort(by_value.clone())
            .projection(doc! { "_id": 0 })
            .hint(Hint::Keys(hint.clone()))
            .await
            .expect("find");
        let mut previous: Option<RawDocumentBuf> = None;
        let mut seen = 0;
        while cursor.advance().await.expect("next") {
            let document = cursor.current().to_owned();
            if let Some(previous) = &previous {
                // Of documents {v, n, ..}, the order is that of v, then of n, which is never the same.
                let order = bson_order::compare_documents(previous, &document);
                assert_eq!(order, Ordering::Less, "by {hint}: {previous:?} before {document:?}");
            }
            previous = Some(document);
            seen += 1;
        }
        assert_eq!(seen, expected, "by {hint}");
    }
    database.drop().await.expect("drop");
}

/// Whether a server's sort in memory compares such a value as its index does.
fn sorts_alike(value: RawBsonRef<'_>) -> bool {
    let document = match value {
        RawBsonRef::Document(document) => document,
        RawBsonRef::JavaScriptCodeWithScope(code) => code.scope,
        RawBsonRef::Array(array) => {
            return array.into_iter().all(|value| sorts_alike(value.expect("was made of values")));
        }
        RawBsonRef::DbPointer(_) => return false,
        _ => return true,
    };
    let mut names = BTreeSet::new();
    document.iter().all(|field| {
        let (name, value) = field.expect("was made of fields");
        names.insert(name.as_str()) && sorts_alike(value)
    })
}
