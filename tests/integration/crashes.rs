//! Crash enumeration: a small job is aborted just before and just after each of its effects (every write of state,
//! every acknowledged batch, every collection, index, marker and checkpoint), run again to its end, and compared byte by
//! byte. What was done twice is counted and bounded.

use crate::support::compare::{Scope, compare};
use crate::support::ferry::Ferry;
use crate::support::servers::{Failure, shared_minio, shared_source, shared_target};
use futures_util::{StreamExt, TryStreamExt, stream};
use mongodb::bson::{Bson, Document, doc};
use mongodb::{Client, Database};
use std::path::Path;

/// How many jobs run side by side.
const PARALLEL: usize = 4;

/// How many documents the largest collection has: three batches, since one ends at 5,000.
const DOCUMENTS: i32 = 11_000;

async fn load(source: &Client, database: &str) -> Result<u64, Failure> {
    let database = source.database(database);
    forget(&database).await?;
    let events: Vec<Document> =
        (0..DOCUMENTS).map(|n| doc! { "_id": n, "k": n % 7, "text": format!("event {n}") }).collect();
    database.collection("events").insert_many(events).await?;
    let mixed = [
        Bson::Int32(1),
        Bson::from("a"),
        Bson::Null,
        Bson::MinKey,
        Bson::MaxKey,
        Bson::Double(f64::NAN),
        doc! { "a": 1 }.into(),
    ];
    database.collection("mixed").insert_many(mixed.map(|id| doc! { "_id": id })).await?;
    database.run_command(doc! { "create": "empty", "collation": { "locale": "fr" } }).await?;
    database.run_command(doc! { "create": "capped", "capped": true, "size": 100_000 }).await?;
    database.collection("capped").insert_many((0..40).map(|n| doc! { "_id": n * 7 % 40 })).await?;
    database.run_command(doc! { "create": "series", "timeseries": { "timeField": "t", "metaField": "m" } }).await?;
    let measured = |n: i64| doc! { "t": mongodb::bson::DateTime::from_millis(n * 1_000), "m": n % 3, "v": n };
    database.collection("series").insert_many((0..30).map(measured)).await?;
    database.run_command(doc! { "create": "view", "viewOn": "view of events", "pipeline": [] }).await?;
    database.run_command(doc! { "create": "view of events", "viewOn": "events", "pipeline": [] }).await?;
    let indexes = vec![
        doc! { "key": { "k": 1, "text": -1 }, "name": "compound" },
        doc! { "key": { "text": 1 }, "name": "once", "unique": true },
        doc! { "key": { "at": 1 }, "name": "expiring", "expireAfterSeconds": 60 },
    ];
    database.run_command(doc! { "createIndexes": "events", "indexes": indexes }).await?;
    let resource = doc! { "db": database.name(), "collection": "events" };
    let privilege = doc! { "resource": resource, "actions": ["find", "insert"] };
    database.run_command(doc! { "createRole": "clerk", "privileges": [privilege], "roles": [] }).await?;
    for name in ["app", "other"] {
        let roles = [doc! { "role": "clerk", "db": database.name() }];
        database.run_command(doc! { "createUser": name, "pwd": "p", "roles": roles }).await?;
    }
    database.collection("system.js").insert_one(doc! { "_id": "f", "value": 1 }).await?;
    // Each of the three series of measurements is a bucket.
    Ok(DOCUMENTS as u64 + 7 + 40 + 3)
}

/// Drops a database with its users and roles.
async fn forget(database: &Database) -> Result<(), Failure> {
    database.run_command(doc! { "dropAllUsersFromDatabase": 1 }).await?;
    database.run_command(doc! { "dropAllRolesFromDatabase": 1 }).await?;
    Ok(database.drop().await?)
}

/// The functions, roles and users of a database, without its name.
async fn system(client: &Client, db: &str) -> Result<Vec<String>, Failure> {
    let mut found = Vec::new();
    for (of, collection) in [(db, "system.js"), ("admin", "system.roles"), ("admin", "system.users")] {
        let filter = if of == db {
            doc! {}
        } else {
            doc! { "db": db }
        };
        let there = client.database(of).collection::<Document>(collection).find(filter).sort(doc! { "_id": 1 }).await?;
        let there: Vec<Document> = there.try_collect().await?;
        found.extend(there.iter().map(|document| document.to_string().replace(&format!("\"{db}"), "\"db")));
    }
    Ok(found)
}

/// The numbered points that a run of the job passes, by name.
async fn points(ferry: &Ferry, directory: &Path) -> Result<Vec<(u64, String)>, Failure> {
    let log = directory.join("points");
    ferry.clone().set("MONGOFERRY_CRASH_LOG", log.to_string_lossy()).run(&["step", "all"]).await.expect(0);
    let text = std::fs::read_to_string(log)?;
    let parse = |line: &str| {
        let (number, name) = line.split_once(' ')?;
        Some((number.parse().ok()?, name.to_owned()))
    };
    Ok(text.lines().filter_map(parse).collect())
}

/// One crash: aborted at the point, run to the end, compared, run once more.
async fn crash_at(
    source: &Client,
    target: &Client,
    ferry: Ferry,
    (from, to): (&str, &str),
    point: &(u64, String),
    documents: u64,
) -> Result<u64, Failure> {
    let (number, name) = point;
    let killed = ferry.clone().set("MONGOFERRY_CRASH_AT", number.to_string()).run(&["step", "all"]).await;
    assert!(killed.code.is_none() || killed.code == Some(0), "point {number} {name}: {}", killed.stderr);
    let covered = ferry.status().await.map_or(0, |status| status["documents"]["read"].as_u64().unwrap_or(0));
    ferry.run(&["step", "all"]).await.expect(0);

    let mut scope = Scope { only_databases: vec![from.to_owned()], ..Scope::default() };
    scope.rename(&format!("{from}:{to}"))?;
    let outcome = compare(source, target, &scope).await?;
    assert!(outcome.is_equal(), "point {number} {name}: {outcome}");
    let status = ferry.status().await.ok_or("the job is there")?;
    assert_eq!(status["status"], "done", "point {number} {name}");
    assert_eq!(status["documents"]["read"], documents, "point {number} {name}");
    assert_eq!(status["documents"]["written"], documents, "point {number} {name}");
    assert_eq!(status["findings"], serde_json::json!([]), "point {number} {name}");
    let replayed = status["documents"]["replayed"].as_u64().ok_or("a number")?;
    assert!(replayed <= documents - covered, "point {number} {name}: {replayed} sent again, {covered} were covered");
    let checkpoints = target.database("mongoshake").collection::<Document>(&format!("ckpt_{to}"));
    assert_eq!(checkpoints.count_documents(doc! {}).await?, 1, "point {number} {name}");
    let there = system(target, to).await?;
    assert_eq!((there.len(), &there), (4, &system(source, from).await?), "point {number} {name}");
    let (names, id) = (target.database("admin").list_collection_names().await?, status["id"].as_str().ok_or("an id")?);
    assert!(!names.iter().any(|name| name.contains(id)), "point {number} {name}: {names:?}");
    forget(&target.database(to)).await?;
    Ok(replayed)
}

fn ferry(directory: &Path, source: &str, target: &str, job: &str, from: &str) -> Ferry {
    Ferry::new(directory, source, target, job)
        .set("MONGOFERRY_INCLUDE", from)
        .set("MONGOFERRY_RENAME", format!("{from}:{job}"))
        .set("MONGOFERRY_CHECKPOINT_NAMESPACE", format!("mongoshake.ckpt_{job}"))
        .set("MONGOFERRY_SAVE_INTERVAL", "10ms")
        .set("MONGOFERRY_FENCE_WRITES", "yes")
        .set("MONGOFERRY_INCLUDE_SYSTEM", "js,roles,users")
        .set("MONGOFERRY_LOG_LEVEL", "warn")
}

#[tokio::test]
async fn a_crash_at_any_point_loses_and_doubles_nothing() -> Result<(), Failure> {
    let (source, target) = tokio::try_join!(shared_source(), shared_target())?;
    let (source_client, target_client) =
        (Client::with_uri_str(source.uri()).await?, Client::with_uri_str(target.uri()).await?);
    let documents = load(&source_client, "crash").await?;
    let directory = tempfile::tempdir()?;
    let first = ferry(directory.path(), &source.uri(), &target.uri(), "crash_first", "crash");
    let points = points(&first, directory.path()).await?;
    for effect in [
        "state",
        "fence",
        "insert",
        "marker",
        "create",
        "index",
        "system-function",
        "system-fill",
        "system-merge",
        "checkpoint",
        "committed",
        "expire",
    ] {
        assert!(points.iter().any(|(_, name)| name.ends_with(effect)), "no point around {effect}");
    }
    let runs: Vec<_> = points
        .iter()
        .map(|point| {
            let job = format!("crash_{}", point.0);
            let ferry = ferry(directory.path(), &source.uri(), &target.uri(), &job, "crash");
            let (source, target) = (&source_client, &target_client);
            async move { crash_at(source, target, ferry, ("crash", &job), point, documents).await }
        })
        .collect();
    let replayed: Vec<u64> = stream::iter(runs).buffered(PARALLEL).try_collect().await?;
    println!("{} points, {} documents sent again in all", points.len(), replayed.iter().sum::<u64>());
    Ok(())
}

#[tokio::test]
async fn a_crash_around_any_write_of_state_in_minio_loses_and_doubles_nothing() -> Result<(), Failure> {
    let (source, target) = tokio::try_join!(shared_source(), shared_target())?;
    let minio = shared_minio().await?;
    minio.create_bucket("crashes")?;
    let (source_client, target_client) =
        (Client::with_uri_str(source.uri()).await?, Client::with_uri_str(target.uri()).await?);
    let documents = load(&source_client, "crash_s3").await?;
    let directory = tempfile::tempdir()?;
    let in_minio = |job: &str| {
        let mut ferry = ferry(directory.path(), &source.uri(), &target.uri(), job, "crash_s3")
            .set("MONGOFERRY_STATE", "s3://crashes/jobs")
            .set("MONGOFERRY_S3_ENDPOINT", minio.endpoint());
        for (name, value) in minio.environment() {
            ferry = ferry.set(name, value);
        }
        ferry
    };
    let points = points(&in_minio("s3_first"), directory.path()).await?;
    let runs: Vec<_> = points
        .iter()
        .filter(|(_, name)| name.ends_with("state"))
        .map(|point| {
            let job = format!("s3_{}", point.0);
            let ferry = in_minio(&job);
            let (source, target) = (&source_client, &target_client);
            async move { crash_at(source, target, ferry, ("crash_s3", &job), point, documents).await }
        })
        .collect();
    println!("{} points", runs.len());
    stream::iter(runs).buffered(PARALLEL).try_collect::<Vec<_>>().await?;
    Ok(())
}

/// Also when what is dropped, created and filled was there before, and when indexes are built early.
#[tokio::test]
async fn a_crash_while_existing_collections_are_dropped_loses_nothing() -> Result<(), Failure> {
    let (source, target) = tokio::try_join!(shared_source(), shared_target())?;
    let (source_client, target_client) =
        (Client::with_uri_str(source.uri()).await?, Client::with_uri_str(target.uri()).await?);
    let documents = load(&source_client, "crash_drop").await?;
    let directory = tempfile::tempdir()?;
    let dropping = |job: &str| {
        ferry(directory.path(), &source.uri(), &target.uri(), job, "crash_drop")
            .set("MONGOFERRY_EXISTING", "drop")
            .set("MONGOFERRY_READ_ORDER", "natural")
            .set("MONGOFERRY_CREATE_INDEX", "background")
    };
    let leave_something = async |job: &str| {
        let old = target_client.database(job).collection("events");
        old.insert_many((0..50).map(|n| doc! { "_id": n, "old": true })).await?;
        let there = target_client.database(job);
        // Equal ones may be there, and others are replaced.
        there.run_command(doc! { "createRole": "clerk", "privileges": [], "roles": [] }).await?;
        there.run_command(doc! { "createUser": "app", "pwd": "another", "roles": [] }).await?;
        there.run_command(doc! { "create": "series", "timeseries": { "timeField": "other" } }).await?;
        there.run_command(doc! { "create": "view", "viewOn": "nothing", "pipeline": [] }).await.map(|_| ())
    };
    leave_something("drop_first").await?;
    let points = points(&dropping("drop_first"), directory.path()).await?;
    assert!(points.iter().any(|(_, name)| name.ends_with("drop")));
    let in_prepare = points.iter().skip_while(|(_, name)| !name.ends_with("marker"));
    let in_prepare = in_prepare.take_while(|(_, name)| !name.ends_with("insert"));
    let of_system: Vec<_> = points.iter().filter(|(_, name)| name.contains("system-")).collect();
    assert!(of_system.iter().any(|(_, name)| name.ends_with("replace")));
    let mut runs = Vec::new();
    for point in in_prepare.chain(of_system) {
        let job = format!("drop_{}", point.0);
        leave_something(&job).await?;
        let ferry = dropping(&job);
        let (source, target) = (&source_client, &target_client);
        runs.push(async move { crash_at(source, target, ferry, ("crash_drop", &job), point, documents).await });
    }
    println!("{} points", runs.len());
    stream::iter(runs).buffered(PARALLEL).try_collect::<Vec<_>>().await?;
    Ok(())
}
