//! Indexes: every kind arrives, what cannot be built is told and the rest is there, a build outlasts time budgets and is
//! asked for once, duplicates that only the copy's smear made go away, and nothing expires before the commit.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use futures_util::TryStreamExt;
use mongodb::bson::{Bson, Decimal128, Document, doc};
use mongodb::{Client, Database};
use rustix::process::Signal;

use crate::support::compare::{Scope, compare};
use crate::support::ferry::Ferry;
use crate::support::running::Running;
use crate::support::servers::{Failure, ReplicaSet, StartOptions, shared_source, shared_target};

/// Far more than anything here takes: only a hang reaches it.
const AT_MOST: Duration = Duration::from_secs(90);

fn job(directory: &Path, source: &ReplicaSet, target: &ReplicaSet, name: &str) -> Ferry {
    Ferry::new(directory, &source.uri(), &target.uri(), name)
        .set("MONGOFERRY_INCLUDE", name)
        .set("MONGOFERRY_CHECKPOINT_NAMESPACE", format!("mongoshake.ckpt_{name}"))
        .set("MONGOFERRY_SAVE_INTERVAL", "50ms")
}

async fn start(name: &str, test_commands: bool, parameters: &[&str]) -> Result<ReplicaSet, Failure> {
    let extra_args = parameters.iter().flat_map(|text| ["--setParameter".to_owned(), (*text).to_owned()]).collect();
    ReplicaSet::start(StartOptions { name: name.to_owned(), test_commands, extra_args, ..Default::default() }).await
}

async fn client(set: &ReplicaSet) -> Result<Client, Failure> {
    Ok(Client::with_uri_str(set.uri()).await?)
}

async fn create(database: &Database, collection: &str, indexes: Vec<Document>) -> Result<(), Failure> {
    database.run_command(doc! {"createIndexes": collection, "indexes": indexes}).await?;
    Ok(())
}

async fn listed(database: &Database, collection: &str) -> Result<BTreeMap<String, Document>, Failure> {
    let reply = database.run_command(doc! {"listIndexes": collection, "cursor": {"batchSize": 1000}}).await?;
    let batch = reply.get_document("cursor")?.get_array("firstBatch")?;
    let named = batch.iter().filter_map(Bson::as_document).map(|index| {
        let name = index.get_str("name").map(str::to_owned)?;
        Ok((name, index.clone()))
    });
    named.collect()
}

/// The texts of the findings, or notes, that a status has.
async fn told(ferry: &Ferry, what: &str) -> Result<Vec<String>, Failure> {
    let status = ferry.status().await.ok_or("no status")?;
    let texts = status[what].as_array().ok_or("a list")?.iter();
    Ok(texts.map(|told| told["text"].as_str().unwrap_or_default().to_owned()).collect())
}

async fn is_equal(from: &Client, to: &Client, database: &str) -> Result<(), Failure> {
    let scope = Scope { only_databases: vec![database.to_owned()], ..Scope::default() };
    let outcome = compare(from, to, &scope).await?;
    assert!(outcome.is_equal(), "{outcome}");
    Ok(())
}

/// Kinds that every server has had since 4.4.
fn kinds() -> Vec<Document> {
    vec![
        doc! {"name": "compound", "key": {"z": 1, "a": -1, "m": 1}},
        doc! {"name": "multi", "key": {"tags": 1}},
        doc! {"name": "double", "key": {"d": 1.0, "e": -2.5}},
        doc! {"name": "decimal", "key": {"f": Decimal128::from_bytes([1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x40, 0x30])}},
        doc! {"name": "hashed", "key": {"h": "hashed"}},
        doc! {"name": "hashed_more", "key": {"h": "hashed", "i": 1}},
        doc! {"name": "flat", "key": {"flat": "2d"}, "bits": 20, "min": -10, "max": 10.5},
        doc! {"name": "sphere", "key": {"at": "2dsphere"}},
        doc! {"name": "sphere1", "key": {"at1": "2dsphere"}, "2dsphereIndexVersion": 1},
        doc! {"name": "sphere2", "key": {"at2": "2dsphere", "n": 1}, "2dsphereIndexVersion": 2},
        doc! {
            "name": "text", "key": {"before": 1, "title": "text", "body": "text", "after": -1},
            "weights": {"title": 10, "body": 2}, "default_language": "french", "language_override": "idioma",
            "textIndexVersion": 2,
        },
        doc! {"name": "wild", "key": {"$**": 1}, "wildcardProjection": {"secret": 0, "_id": 0}},
        doc! {"name": "wild_below", "key": {"below.$**": 1}},
        doc! {"name": "partial", "key": {"p": 1}, "partialFilterExpression": {"p": {"$gt": 3}}, "unique": true},
        doc! {"name": "sparse", "key": {"s": 1}, "sparse": true},
        doc! {"name": "unique", "key": {"u": 1}, "unique": true},
        doc! {"name": "expiring", "key": {"when": 1}, "expireAfterSeconds": 100_000_000},
        doc! {"name": "hidden", "key": {"hid": 1}, "hidden": true},
        doc! {"name": "simple", "key": {"c": 1}},
        doc! {"name": "collated", "key": {"c": 1}, "collation": {"locale": "de", "strength": 2}},
        doc! {"name": "stored", "key": {"w": 1}, "storageEngine": {"wiredTiger": {"configString": "prefix_compression=false"}}},
        doc! {"name": "first", "key": {"old": 1}, "v": 1},
        doc! {"name": "behind", "key": {"behind": 1}, "background": true},
        doc! {"name": "a name with spaces, and ünïcode", "key": {"n a m e.ü": 1}},
    ]
}

fn documents() -> Vec<Document> {
    let document = |n: i32| {
        doc! {
            "_id": n, "z": n, "a": -n, "m": "m", "tags": [n, "x"], "d": n, "e": f64::from(n), "f": n, "h": n, "i": n,
            "flat": [n % 10, 1], "at": {"type": "Point", "coordinates": [n, n]}, "at1": [n, n], "at2": [n, 1],
            "before": 1, "title": "un titre", "body": "corps", "after": n, "secret": "s", "below": {"x": {"y": n}},
            "p": n, "s": n, "u": n, "when": mongodb::bson::DateTime::now(), "c": "C", "w": n, "old": n, "behind": n,
        }
    };
    (0..40).map(document).collect()
}

/// An index as every server lists it that has the same one.
fn normalised(index: &Document) -> String {
    let number = |value: &Bson| match value {
        Bson::Int32(value) => Some(f64::from(*value)),
        Bson::Int64(value) => Some(*value as f64),
        Bson::Double(value) => Some(*value),
        _ => None,
    };
    let mut fields = BTreeMap::new();
    for (name, value) in index {
        let shown = match name.as_str() {
            "v" | "background" => continue,
            "min" | "max" | "bits" | "expireAfterSeconds" => format!("{:?}", number(value)),
            "weights" => format!("{:?}", value.as_document().map(|weights| weights.iter().collect::<BTreeMap<_, _>>())),
            _ => format!("{value:?}"),
        };
        fields.insert(name.clone(), shown);
    }
    format!("{fields:?}")
}

/// Copies the kinds, and more of them, in a collection with and one without a collation of its own.
async fn all_kinds_arrive(source: &ReplicaSet, name: &str, more: Vec<Document>, modes: &[&str]) -> Result<(), Failure> {
    let target = shared_target().await?;
    let (from, to) = (client(source).await?, client(target).await?);
    let database = from.database(name);
    for collection in ["plain", "collated"] {
        if collection == "collated" {
            database.run_command(doc! {"create": collection, "collation": {"locale": "fr"}}).await?;
        }
        database.collection(collection).insert_many(documents()).await?;
        let indexes = kinds().into_iter().chain(more.clone()).map(|mut index| {
            // These know no collation but the simple one.
            let is_simple = index
                .get_document("key")
                .is_ok_and(|key| key.values().any(|value| matches!(value.as_str(), Some("2d" | "text"))));
            if is_simple || index.get_str("name").is_ok_and(|name| name == "simple") {
                index.insert("collation", doc! {"locale": "simple"});
            }
            index
        });
        create(&database, collection, indexes.collect()).await?;
    }
    for mode in modes {
        let directory = tempfile::tempdir()?;
        let ferry = job(directory.path(), source, target, name).set("MONGOFERRY_CREATE_INDEX", *mode);
        for step in ["discover", "plan", "prepare", "copy", "index", "verify", "commit"] {
            ferry.run(&["step", step]).await.expect(0);
        }
        for collection in ["plain", "collated"] {
            let (expected, found) =
                (listed(&database, collection).await?, listed(&to.database(name), collection).await?);
            assert_eq!(expected.keys().collect::<Vec<_>>(), found.keys().collect::<Vec<_>>(), "{collection} {mode}");
            for (index, expected) in expected {
                assert_eq!(normalised(&expected), normalised(&found[&index]), "{collection} {mode}");
                assert_eq!(found[&index].get("v"), Some(&Bson::from(2)), "{index}");
            }
        }
        let notes = told(&ferry, "notes").await?;
        for repaired in ["index first was repaired: its version 1 is 2", "index behind was repaired: background"] {
            assert!(notes.iter().any(|note| note.contains(repaired)), "{repaired}: {notes:?}");
        }
        // By hand after the commit, too, when nothing is held back any more.
        ferry.run(&["step", "verify"]).await.expect(0);
        to.database(name).drop().await?;
        to.database("mongoferry").collection::<Document>("jobs").delete_many(doc! {"job": name}).await?;
    }
    Ok(())
}

#[tokio::test]
async fn every_kind_arrives_from_6_0() -> Result<(), Failure> {
    let more = vec![
        doc! {"name": "prepared", "key": {"q": 1}, "prepareUnique": true},
        doc! {"name": "hidden_expiring", "key": {"later": 1}, "expireAfterSeconds": 3600, "hidden": true, "sparse": true},
    ];
    all_kinds_arrive(shared_source().await?, "kinds6", more, &["foreground", "background"]).await
}

async fn old_source(name: &str) -> Result<ReplicaSet, Failure> {
    let options = StartOptions { name: name.to_owned(), version: Some("4.4.2".to_owned()), ..Default::default() };
    ReplicaSet::start(options).await
}

#[tokio::test]
async fn every_kind_arrives_from_4_4_and_legacy_forms_are_repaired() -> Result<(), Failure> {
    let source = old_source("old").await?;
    all_kinds_arrive(&source, "kinds4", Vec::new(), &["foreground"]).await?;

    // What 4.4 takes and shows, and 6.0 refuses or shows in another way.
    let (from, to) = (client(&source).await?, client(shared_target().await?).await?);
    let database = from.database("legacy");
    database.collection("c").insert_many((0..10).map(|n| doc! {"_id": n, "a": n, "b": [n, n]})).await?;
    let indexes = vec![
        doc! {"name": "sparse_text", "key": {"a": 1}, "sparse": "true"},
        doc! {"name": "sparse_null", "key": {"a": -1}, "sparse": null},
        doc! {"name": "sparse_number", "key": {"b": 1}, "sparse": 1.0},
        doc! {"name": "background_text", "key": {"c": 1}, "background": "yes"},
        doc! {"name": "weights", "key": {"d": 1}, "weights": {"d": 1}},
        doc! {"name": "bucket", "key": {"e": 1}, "bucketSize": 1},
        doc! {"name": "fraction", "key": {"f": 1}, "expireAfterSeconds": 3600.7},
        doc! {"name": "never", "key": {"g": 1}, "expireAfterSeconds": f64::NAN},
        doc! {"name": "haystack", "key": {"b": "geoHaystack", "x": 1}, "bucketSize": 1},
    ];
    create(&database, "c", indexes).await?;
    let directory = tempfile::tempdir()?;
    let ferry = job(directory.path(), &source, shared_target().await?, "legacy");
    let stopped = ferry.run(&["step", "all"]).await.expect(4);
    assert!(stopped.stderr.contains("haystack"), "{}", stopped.stderr);
    let findings = told(&ferry, "findings").await?;
    assert!(findings.len() == 1 && findings[0].contains("index haystack is a geoHaystack index"), "{findings:?}");
    ferry.run(&["step", "all", "--accept-findings"]).await.expect(0);
    let found = listed(&to.database("legacy"), "c").await?;
    let names: Vec<&str> = found.keys().map(String::as_str).collect();
    let expected = [
        "_id_",
        "background_text",
        "bucket",
        "fraction",
        "never",
        "sparse_null",
        "sparse_number",
        "sparse_text",
        "weights",
    ];
    assert_eq!(names, expected);
    assert_eq!(found["sparse_text"].get("sparse"), Some(&Bson::from(true)));
    assert!(!found["sparse_null"].contains_key("sparse") && !found["weights"].contains_key("weights"));
    assert_eq!(found["fraction"].get("expireAfterSeconds"), Some(&Bson::from(3600)));
    assert_eq!(found["never"].get("expireAfterSeconds"), Some(&Bson::from(i32::MAX)));
    let notes = told(&ferry, "notes").await?;
    for repaired in [
        r#"sparse_text was repaired: sparse: "true" is true"#,
        "sparse_null was repaired: sparse: null is false",
        "background_text was repaired: background",
        "weights was repaired: weights",
        "bucket was repaired: bucketSize",
        "never was repaired: expireAfterSeconds: NaN is 2147483647",
    ] {
        assert!(notes.iter().any(|note| note.contains(repaired)), "{repaired}: {notes:?}");
    }
    assert!(!notes.iter().any(|note| note.contains("sparse_number") || note.contains("fraction")), "{notes:?}");
    Ok(())
}

/// Three collections, each with an index that cannot be built and one that can. What is wrong is wrong on the source: its own
/// index was dropped after discover had seen it.
async fn load_what_is_refused(source: &ReplicaSet, name: &str) -> Result<Client, Failure> {
    let from = client(source).await?;
    let database = from.database(name);
    for (collection, index) in [
        ("twice", doc! {"name": "bad", "key": {"email": 1, "n": 1}, "unique": true}),
        ("places", doc! {"name": "bad", "key": {"at": "2dsphere"}}),
        ("texts", doc! {"name": "bad", "key": {"body": "text"}}),
    ] {
        let document = |n: i32| doc! {"_id": n, "email": n, "n": [1, 2], "at": [n, n], "body": "b", "k": n};
        database.collection(collection).insert_many((0..20).map(document)).await?;
        create(&database, collection, vec![index, doc! {"name": "good", "key": {"k": 1}}]).await?;
    }
    Ok(from)
}

async fn spoil(from: &Client, to: &Client, ferry: &Ferry, name: &str) -> Result<(), Failure> {
    ferry.run(&["step", "discover"]).await.expect(0);
    let database = from.database(name);
    for (collection, id, spoiled) in
        [("twice", 7, doc! {"email": 3}), ("places", 8, doc! {"at": {"type": "Point", "coordinates": [500, 500]}})]
    {
        database.run_command(doc! {"dropIndexes": collection, "index": "bad"}).await?;
        database.collection::<Document>(collection).update_one(doc! {"_id": id}, doc! {"$set": spoiled}).await?;
    }
    for step in ["plan", "prepare", "copy"] {
        ferry.run(&["step", step]).await.expect(0);
    }
    // A collection has one text index at most.
    create(&to.database(name), "texts", vec![doc! {"name": "another", "key": {"title": "text"}}]).await
}

#[tokio::test]
async fn what_cannot_be_built_is_told_the_rest_is_there_and_a_retry_after_mending_works() -> Result<(), Failure> {
    let (source, target) = tokio::try_join!(shared_source(), shared_target())?;
    let from = load_what_is_refused(source, "unbuildable").await?;
    let to = client(target).await?;
    let directory = tempfile::tempdir()?;
    let ferry = job(directory.path(), source, target, "unbuildable");
    spoil(&from, &to, &ferry, "unbuildable").await?;

    ferry.run(&["step", "index"]).await.expect(4);
    let findings = told(&ferry, "findings").await?;
    assert_eq!(findings.len(), 3, "{findings:?}");
    for texts in [
        [
            "index bad cannot be built on the target: E11000 duplicate key",
            "{ email: 3, n: 1 }",
            "_ids with one key: 3 and 7",
        ],
        ["index bad cannot be built on the target: Can't extract geo keys", "_id: 8", "(code 16755)"],
        ["index bad cannot be built on the target:", "equivalent index already exists", "another"],
    ] {
        let is_it = |finding: &&String| texts.iter().all(|text| finding.contains(text));
        assert!(findings.iter().any(|finding| is_it(&finding)), "{texts:?}: {findings:?}");
    }
    let there = to.database("unbuildable");
    for collection in ["twice", "places", "texts"] {
        let indexes = listed(&there, collection).await?;
        assert!(indexes.contains_key("good") && !indexes.contains_key("bad"), "{collection}: {indexes:?}");
    }
    // One after the other is mended, on the source or on the target. Only what is not done is asked for again.
    from.database("unbuildable")
        .collection::<Document>("twice")
        .update_one(doc! {"_id": 7}, doc! {"$set": {"email": 7}})
        .await?;
    ferry.run(&["step", "index"]).await.expect(4);
    assert_eq!(told(&ferry, "findings").await?.len(), 2);
    there.collection::<Document>("places").delete_one(doc! {"_id": 8}).await?;
    there.run_command(doc! {"dropIndexes": "texts", "index": "another"}).await?;
    ferry.run(&["step", "index"]).await.expect(0);
    for collection in ["twice", "places", "texts"] {
        assert!(listed(&there, collection).await?.contains_key("bad"), "{collection}");
    }
    assert_eq!(told(&ferry, "findings").await?, Vec::<String>::new());
    Ok(())
}

#[tokio::test]
async fn accepted_a_missing_index_is_no_finding_of_verify() -> Result<(), Failure> {
    let (source, target) = tokio::try_join!(shared_source(), shared_target())?;
    let from = load_what_is_refused(source, "accepting").await?;
    let to = client(target).await?;
    let directory = tempfile::tempdir()?;
    let ferry = job(directory.path(), source, target, "accepting");
    spoil(&from, &to, &ferry, "accepting").await?;
    to.database("accepting").run_command(doc! {"dropIndexes": "texts", "index": "another"}).await?;
    ferry.run(&["step", "index", "--accept-findings"]).await.expect(0);
    ferry.run(&["step", "verify"]).await.expect(0);
    assert_eq!(told(&ferry, "findings").await?.len(), 2);
    let refused = ferry.run(&["step", "commit"]).await.expect(4);
    assert!(refused.stderr.contains("index bad cannot be built"), "{}", refused.stderr);
    ferry.run(&["step", "all", "--accept-findings"]).await.expect(0);
    Ok(())
}

async fn fail_point(client: &Client, name: &str, mode: &str) -> Result<(), Failure> {
    client.database("admin").run_command(doc! {"configureFailPoint": name, "mode": mode}).await?;
    Ok(())
}

/// How often a build of indexes of these collections was begun, by the target's oplog.
async fn begun(client: &Client, database: &str) -> Result<usize, Failure> {
    let oplog = client.database("local").collection::<Document>("oplog.rs");
    let begun = oplog.find(doc! {"op": "c", "ns": format!("{database}.$cmd"), "o.startIndexBuild": {"$exists": true}});
    Ok(begun.await?.try_collect::<Vec<_>>().await?.len())
}

/// A source and a target of which builds can be held up, with so many collections to copy.
async fn slow(name: &str, collections: i32) -> Result<(&'static ReplicaSet, ReplicaSet, Client), Failure> {
    let (source, target) = tokio::try_join!(shared_source(), start(name, true, &[]))?;
    let database = client(source).await?.database(name);
    for number in 0..collections {
        let collection = format!("c{number}");
        database.collection(&collection).insert_many((0..500).map(|n| doc! {"_id": n, "k": n, "l": n})).await?;
        let indexes = vec![doc! {"name": "k", "key": {"k": 1}, "unique": true}, doc! {"name": "l", "key": {"l": 1}}];
        create(&database, &collection, indexes).await?;
    }
    let to = client(&target).await?;
    Ok((source, target, to))
}

#[tokio::test]
async fn a_build_that_takes_longer_than_several_time_budgets_is_followed_and_asked_for_once() -> Result<(), Failure> {
    let (source, target, to) = slow("slow", 1).await?;
    let directory = tempfile::tempdir()?;
    let ferry = job(directory.path(), source, &target, "slow").set("MONGOFERRY_LEASE", "1s");
    for step in ["discover", "plan", "prepare", "copy"] {
        ferry.run(&["step", step]).await.expect(0);
    }
    fail_point(&to, "hangAfterStartingIndexBuild", "alwaysOn").await?;
    for _ in 0..3 {
        let running = Running::start(&ferry, &["step", "index", "--time-budget", "2s"])?;
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let status = ferry.status().await.ok_or("no status")?;
        assert_eq!(status["builds"][0]["namespace"], "slow.c0", "{status}");
        assert_eq!(status["builds"][0]["indexes"], serde_json::json!(["k", "l"]));
        assert_eq!((&status["builds"][0]["done"], &status["builds"][0]["total"]), (&500.into(), &500.into()));
        assert_eq!(status["builds"][0]["phase"], "scanning collection");
        running.ended_within(Duration::from_secs(6)).await?.expect(75);
    }
    // Killed, too.
    let mut killed = Running::start(&ferry, &["step", "index"])?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!killed.has_ended()?);
    killed.signal(Signal::KILL)?;
    drop(killed);
    let last = Running::start(&ferry, &["step", "all"])?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    fail_point(&to, "hangAfterStartingIndexBuild", "off").await?;
    last.ended_within(AT_MOST).await?.expect(0);
    assert_eq!(begun(&to, "slow").await?, 1);
    is_equal(&client(source).await?, &to, "slow").await
}

/// `listIndexes` does not show a build that waits for its turn; the server goes on waiting when its client is gone.
#[tokio::test]
async fn a_build_that_waits_for_its_turn_is_not_asked_for_twice() -> Result<(), Failure> {
    let (source, target, to) = slow("queue", 1).await?;
    let directory = tempfile::tempdir()?;
    let ferry = job(directory.path(), source, &target, "queue");
    for step in ["discover", "plan", "prepare", "copy"] {
        ferry.run(&["step", step]).await.expect(0);
    }
    let admin = to.database("admin");
    admin.run_command(doc! {"setParameter": 1, "maxNumActiveUserIndexBuilds": 1}).await?;
    fail_point(&to, "hangAfterStartingIndexBuild", "alwaysOn").await?;
    let other = to.database("other");
    other.collection("c").insert_one(doc! {"_id": 1}).await?;
    let building = tokio::spawn(async move { create(&other, "c", vec![doc! {"name": "x", "key": {"x": 1}}]).await });
    for _ in 0..2 {
        let killed = Running::start(&ferry, &["step", "index"])?;
        tokio::time::sleep(Duration::from_millis(1000)).await;
        killed.signal(Signal::KILL)?;
    }
    assert_eq!(listed(&to.database("queue"), "c0").await?.len(), 1);
    let asking = doc! {"currentOp": 1, "$all": true, "command.createIndexes": "c0"};
    let asked = admin.run_command(asking).await?.get_array("inprog")?.len();
    let last = Running::start(&ferry, &["step", "all"])?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    fail_point(&to, "hangAfterStartingIndexBuild", "off").await?;
    last.ended_within(AT_MOST).await?.expect(0);
    building.await??;
    assert_eq!((asked, begun(&to, "queue").await?), (1, 1));
    is_equal(&client(source).await?, &to, "queue").await
}

#[tokio::test]
async fn as_many_collections_are_built_at_once_as_was_said() -> Result<(), Failure> {
    let (source, target, to) = slow("parallel", 4).await?;
    let directory = tempfile::tempdir()?;
    let ferry = job(directory.path(), source, &target, "parallel");
    for step in ["discover", "plan", "prepare", "copy"] {
        ferry.run(&["step", step]).await.expect(0);
    }
    let admin = to.database("admin");
    admin.run_command(doc! {"setParameter": 1, "maxNumActiveUserIndexBuilds": 10}).await?;
    fail_point(&to, "hangAfterStartingIndexBuild", "alwaysOn").await?;
    // What an earlier run has asked for goes on, so each is asked for by a larger number.
    for at_once in [1, 2, 4] {
        let number = at_once.to_string();
        let running =
            Running::start(&ferry, &["step", "index", "--time-budget", "2s", "--index-parallelism", &number])?;
        running.ended_within(Duration::from_secs(6)).await?.expect(75);
        assert_eq!(begun(&to, "parallel").await?, at_once);
    }
    fail_point(&to, "hangAfterStartingIndexBuild", "off").await?;
    ferry.run(&["step", "all"]).await.expect(0);
    assert_eq!(begun(&to, "parallel").await?, 4);
    Ok(())
}

/// The number of documents of a collection that are copied in pieces, with pauses.
const SMEARED: i32 = 30_000;

/// A job of which a part is copied when the source changes: the first documents give their keys to the last ones.
async fn smeared(source: &ReplicaSet, target: &ReplicaSet, directory: &Path, name: &str) -> Result<Ferry, Failure> {
    let from = client(source).await?;
    let collection = from.database(name).collection::<Document>("people");
    collection.insert_many((0..SMEARED).map(|n| doc! {"_id": n, "email": n, "tags": [n, n + 1_000_000]})).await?;
    let indexes = vec![
        doc! {"name": "email", "key": {"email": 1}, "unique": true},
        doc! {"name": "tags", "key": {"tags": 1}, "unique": true},
        doc! {"name": "plain", "key": {"email": -1}},
    ];
    create(&from.database(name), "people", indexes).await?;
    let ferry = job(directory, source, target, name).set("MONGOFERRY_VERIFY", "full");
    for step in ["discover", "plan", "prepare"] {
        ferry.run(&["step", step]).await.expect(0);
    }
    let mut copying = Running::start(&ferry, &["step", "copy", "--max-documents-per-second", "6000"])?;
    let written = copying.has_written(&ferry, 100).await?;
    copying.signal(Signal::TERM)?;
    copying.ended_within(AT_MOST).await?.expect(75);
    assert!(written < SMEARED as u64 / 2, "{written}");
    let last = SMEARED - 1;
    let set = async |id: i32, fields: Document| collection.update_one(doc! {"_id": id}, doc! {"$set": fields}).await;
    // Changed, deleted, changed in an array.
    set(0, doc! {"email": -1}).await?;
    set(last, doc! {"email": 0}).await?;
    collection.delete_one(doc! {"_id": 1}).await?;
    set(last - 1, doc! {"email": 1}).await?;
    set(2, doc! {"tags": [-2]}).await?;
    set(last - 2, doc! {"tags": [7_000_000, 2]}).await?;
    ferry.run(&["step", "copy"]).await.expect(0);
    Ok(ferry)
}

#[tokio::test]
async fn duplicates_that_only_the_smear_of_the_copy_made_go_away() -> Result<(), Failure> {
    let (source, target) = tokio::try_join!(shared_source(), shared_target())?;
    let directory = tempfile::tempdir()?;
    let ferry = smeared(source, target, directory.path(), "smear").await?;
    ferry.run(&["step", "index"]).await.expect(0);
    let notes = told(&ferry, "notes").await?;
    assert!(notes.iter().any(|note| note.starts_with("3 documents were brought to what the source had")), "{notes:?}");
    ferry.run(&["step", "verify"]).await.expect(0);
    // What was counted adds up, although documents are others by now and one is gone.
    let notes = told(&ferry, "notes").await?;
    assert!(!notes.iter().any(|note| note.contains("do not add up")), "{notes:?}");
    ferry.run(&["step", "all"]).await.expect(0);
    is_equal(&client(source).await?, &client(target).await?, "smear").await
}

#[tokio::test]
async fn a_crash_at_any_point_of_bringing_documents_to_now_loses_nothing() -> Result<(), Failure> {
    let (source, target) = tokio::try_join!(shared_source(), shared_target())?;
    let directory = tempfile::tempdir()?;
    let ferry = smeared(source, target, directory.path(), "smear_crash").await?;
    // Each run is aborted a little later than the one before, and the next one goes on from there.
    let mut crashes = 0;
    loop {
        crashes += 1;
        let ran = ferry.clone().set("MONGOFERRY_CRASH_AT", crashes.to_string()).run(&["step", "index"]).await;
        match ran.code {
            None => {}
            code => {
                assert_eq!(code, Some(0), "{}", ran.stderr);
                break;
            }
        }
    }
    assert!(crashes > 5, "{crashes}");
    ferry.run(&["step", "verify"]).await.expect(0);
    let notes = told(&ferry, "notes").await?;
    assert!(!notes.iter().any(|note| note.contains("do not add up")), "{notes:?}");
    ferry.run(&["step", "all"]).await.expect(0);
    is_equal(&client(source).await?, &client(target).await?, "smear_crash").await
}

#[tokio::test]
async fn documents_that_were_there_before_are_not_touched() -> Result<(), Failure> {
    let (source, target) = tokio::try_join!(shared_source(), shared_target())?;
    let (from, to) = tokio::try_join!(client(source), client(target))?;
    let (here, there) = (from.database("kept_index"), to.database("kept_index"));
    here.collection("c").insert_many((0..10).map(|n| doc! {"_id": n, "email": n, "at": n})).await?;
    let unique = doc! {"name": "email", "key": {"email": 1}, "unique": true};
    let expiring = |name: &str, seconds: i32| doc! {"name": name, "key": {name: 1}, "expireAfterSeconds": seconds};
    create(&here, "c", vec![unique, expiring("at", 1000), expiring("on", 1000)]).await?;
    // Somebody's own, with a key that a copied one has, and an index that is like one of the source's but deletes nothing.
    there.collection("c").insert_one(doc! {"_id": "own", "email": 3}).await?;
    create(&there, "c", vec![doc! {"name": "on", "key": {"on": 1}}]).await?;
    let directory = tempfile::tempdir()?;
    let ferry = job(directory.path(), source, target, "kept_index").set("MONGOFERRY_EXISTING", "keep");
    ferry.run(&["step", "all"]).await.expect(4);
    let findings = told(&ferry, "findings").await?;
    assert!(findings.iter().any(|text| text.contains("index email") && text.contains("3 and \"own\"")), "{findings:?}");
    ferry.run(&["step", "all", "--accept-findings"]).await.expect(0);
    assert_eq!(there.collection::<Document>("c").count_documents(doc! {}).await?, 11);
    let indexes = listed(&there, "c").await?;
    assert_eq!(indexes["at"].get("expireAfterSeconds"), Some(&Bson::from(1000)));
    assert!(!indexes["on"].contains_key("expireAfterSeconds"), "{indexes:?}");
    let findings = told(&ferry, "findings").await?;
    assert!(findings.iter().any(|text| text.contains("index on differs")), "{findings:?}");
    Ok(())
}

#[tokio::test]
async fn nothing_expires_on_the_target_before_the_commit() -> Result<(), Failure> {
    let (source, target) = tokio::try_join!(
        start("from", false, &["ttlMonitorEnabled=false"]),
        start("to", false, &["ttlMonitorSleepSecs=1"])
    )?;
    let (from, to) = tokio::try_join!(client(&source), client(&target))?;
    let (here, there) = (from.database("ttl"), to.database("ttl"));
    let long_ago = |n: i64| mongodb::bson::DateTime::from_millis(-1_000_000_000_000 * (n % 3) + n);
    here.collection("c").insert_many((0..30).map(|n| doc! {"_id": n, "at": long_ago(n)})).await?;
    create(&here, "c", vec![doc! {"name": "at", "key": {"at": 1}, "expireAfterSeconds": 5}]).await?;
    let clustered = doc! {"key": {"_id": 1}, "unique": true};
    here.run_command(doc! {"create": "clustered", "clusteredIndex": clustered, "expireAfterSeconds": 5_i64}).await?;
    here.collection("clustered").insert_many((0..30).map(|n| doc! {"_id": long_ago(n)})).await?;
    let directory = tempfile::tempdir()?;
    let ferry = job(directory.path(), &source, &target, "ttl").set("MONGOFERRY_VERIFY", "full");
    for step in ["discover", "plan", "prepare", "copy", "index", "verify"] {
        ferry.run(&["step", step]).await.expect(0);
    }
    let count = async |collection: &str| there.collection::<Document>(collection).count_documents(doc! {}).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!((count("c").await?, count("clustered").await?), (30, 30));
    ferry.run(&["step", "verify"]).await.expect(0);
    // Between the marker and the times a run may be killed; the next one goes on there.
    let log = directory.path().join("points");
    ferry
        .clone()
        .set("MONGOFERRY_CRASH_LOG", log.to_string_lossy())
        .set("MONGOFERRY_PANIC_BEFORE", "expire:2")
        .run(&["step", "commit"])
        .await;
    let points = std::fs::read_to_string(&log)?;
    assert!(points.contains("after committed") && points.contains("before expire"), "{points}");
    assert_ne!(ferry.status().await.ok_or("no status")?["status"], "done");
    ferry.run(&["step", "commit"]).await.expect(0);
    assert_eq!(listed(&there, "c").await?["at"].get("expireAfterSeconds"), Some(&Bson::from(5)));
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!((count("c").await?, count("clustered").await?), (0, 0));
    Ok(())
}

#[tokio::test]
async fn an_index_that_disappears_before_it_gets_its_time_is_told() -> Result<(), Failure> {
    let (source, target) = tokio::try_join!(shared_source(), start("to", true, &[]))?;
    let (from, to) = tokio::try_join!(client(source), client(&target))?;
    let here = from.database("vanishing");
    here.collection("c").insert_one(doc! {"_id": 1}).await?;
    create(&here, "c", vec![doc! {"name": "at", "key": {"at": 1}, "expireAfterSeconds": 5}]).await?;
    let directory = tempfile::tempdir()?;
    let ferry = job(directory.path(), source, &target, "vanishing");
    for step in ["discover", "plan", "prepare", "copy", "index", "verify"] {
        ferry.run(&["step", step]).await.expect(0);
    }
    // What the server says where somebody was faster, between the look at the indexes and the command.
    let data = doc! {"failCommands": ["collMod"], "errorCode": 27};
    let gone = doc! {"configureFailPoint": "failCommand", "mode": {"times": 1}, "data": data};
    to.database("admin").run_command(gone).await?;
    ferry.run(&["step", "commit"]).await.expect(0);
    let notes = told(&ferry, "notes").await?;
    assert!(notes.iter().any(|text| text.starts_with("index at was dropped or replaced on the target")), "{notes:?}");
    Ok(())
}
