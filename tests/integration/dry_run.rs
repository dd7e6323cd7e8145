//! `step all --dry-run` reads everything and writes nothing.

use crate::support::ferry::Ferry;
use crate::support::servers::{Failure, ReplicaSet, StartOptions};
use futures_util::TryStreamExt;
use mongodb::bson::{Document, doc};
use mongodb::{Client, Database};

const DOCUMENTS: i32 = 12_000;

/// Commands that write.
const WRITES: [&str; 10] = [
    "insert",
    "update",
    "delete",
    "findAndModify",
    "create",
    "drop",
    "dropDatabase",
    "createIndexes",
    "createUser",
    "_mergeAuthzCollections",
];

/// What a server has written: by its own count of commands and documents, and by its oplog.
#[derive(Debug, PartialEq)]
struct Written {
    commands: Vec<i64>,
    documents: Vec<i64>,
    entries: u64,
}

async fn written(client: &Client) -> Result<Written, Failure> {
    let status = client.database("admin").run_command(doc! { "serverStatus": 1 }).await?;
    let metrics = status.get_document("metrics")?;
    let commands = metrics.get_document("commands")?;
    let total = |name: &&str| commands.get_document(name).ok().and_then(|command| command.get_i64("total").ok());
    let document = metrics.get_document("document")?;
    let changed = ["inserted", "updated", "deleted"].map(|what| document.get_i64(what).unwrap_or_default());
    let oplog = client.database("local").collection::<Document>("oplog.rs");
    let entries = oplog.count_documents(doc! { "op": { "$ne": "n" } }).await?;
    let commands = WRITES.iter().map(|name| total(name).unwrap_or_default()).collect();
    Ok(Written { commands, documents: changed.to_vec(), entries })
}

async fn load(database: &Database) -> Result<(), Failure> {
    let events = (0..DOCUMENTS).map(|n| doc! { "_id": n, "k": n % 7, "text": format!("event {n}") });
    database.collection("events").insert_many(events).await?;
    let index = doc! { "key": { "k": 1 }, "name": "k" };
    let expiring = doc! { "key": { "t": 1 }, "name": "t", "expireAfterSeconds": 60 };
    database.run_command(doc! { "createIndexes": "events", "indexes": [index, expiring] }).await?;
    database.run_command(doc! { "create": "capped", "capped": true, "size": 100_000 }).await?;
    database.collection("capped").insert_many((0..40).map(|n| doc! { "_id": n * 7 % 40 })).await?;
    database.run_command(doc! { "create": "series", "timeseries": { "timeField": "t", "metaField": "m" } }).await?;
    let measured = |n: i64| doc! { "t": mongodb::bson::DateTime::from_millis(n * 1_000), "m": n % 3 };
    database.collection("series").insert_many((0..30).map(measured)).await?;
    database.run_command(doc! { "create": "view", "viewOn": "events", "pipeline": [] }).await?;
    database.run_command(doc! { "createUser": "app", "pwd": "p", "roles": [] }).await?;
    Ok(())
}

#[tokio::test]
async fn a_dry_run_reads_everything_and_writes_nothing() -> Result<(), Failure> {
    let start = |name: &str| ReplicaSet::start(StartOptions { name: name.to_owned(), ..Default::default() });
    let (source, target) = tokio::try_join!(start("source"), start("target"))?;
    let (from, to) = (Client::with_uri_str(source.uri()).await?, Client::with_uri_str(target.uri()).await?);
    load(&from.database("shop")).await?;
    to.database("shop").collection("events").insert_many((0..5).map(|n| doc! { "_id": n, "old": true })).await?;
    let directory = tempfile::tempdir()?;
    let ferry = Ferry::new(directory.path(), &source.uri(), &target.uri(), "dry")
        .set("MONGOFERRY_FENCE_WRITES", "yes")
        .set("MONGOFERRY_INCLUDE_SYSTEM", "users");
    let before = (written(&from).await?, written(&to).await?);

    let refused = ferry.run(&["step", "all", "--dry-run"]).await.expect(2);
    assert!(refused.stderr.contains("the target has shop.events already"), "{}", refused.stderr);
    let single = ferry.run(&["step", "copy", "--dry-run"]).await.expect(2);
    assert!(single.stderr.contains("--dry-run goes with `step all` only"), "{}", single.stderr);

    for (existing, dropped) in [
        ("drop", "3 collections and 1 views would be created, 1 dropped, 0 kept"),
        ("keep", "2 collections and 1 views would be created, 0 dropped, 1 kept"),
    ] {
        for order in ["id", "natural"] {
            let ferry = ferry.clone().set("MONGOFERRY_EXISTING", existing).set("MONGOFERRY_READ_ORDER", order);
            let ran = ferry.run(&["step", "all", "--dry-run"]).await.expect(0);
            let read = DOCUMENTS + 40 + 3;
            for part in [
                "dry run: ",
                dropped,
                &format!("{read} documents ("),
                "2 indexes would be built, 1 of them without a time of expiry until commit",
                "1 user would be written",
                "of source would be written into mongoshake.ckpt_default on the target",
                "nothing was written",
            ] {
                assert!(ran.stdout.contains(part), "{existing}, {order}: {part}: {}", ran.stdout);
            }
        }
    }
    let dropping = ferry.clone().set("MONGOFERRY_EXISTING", "drop");
    let json = dropping.run(&["step", "all", "--dry-run", "--log-format", "json"]).await.expect(0).json();
    assert_eq!(json["status"], "done");

    assert_eq!((written(&from).await?, written(&to).await?), before);
    assert!(!directory.path().join("state").exists(), "there is no state");
    assert_eq!(ferry.status().await, None);
    let there: Vec<Document> =
        to.database("shop").collection("events").find(doc! { "old": true }).await?.try_collect().await?;
    assert_eq!(there.len(), 5);

    // What was rehearsed is what happens, and a job that is there is not looked at.
    let ferry = ferry.set("MONGOFERRY_EXISTING", "drop");
    let real = ferry.run(&["step", "all"]).await.expect(0);
    assert!(real.stdout.contains("1 user as on the source"), "{}", real.stdout);
    assert_ne!(written(&to).await?, before.1, "the count counts");
    Ok(())
}

#[tokio::test]
async fn a_dry_run_keeps_to_limits_and_ends_in_its_time() -> Result<(), Failure> {
    let start = |name: &str| ReplicaSet::start(StartOptions { name: name.to_owned(), ..Default::default() });
    let (source, target) = tokio::try_join!(start("source"), start("target"))?;
    load(&Client::with_uri_str(source.uri()).await?.database("shop")).await?;
    let to = Client::with_uri_str(target.uri()).await?;
    let before = written(&to).await?;
    let directory = tempfile::tempdir()?;
    let ferry = Ferry::new(directory.path(), &source.uri(), &target.uri(), "dry");
    let limited = ["step", "all", "--dry-run", "--max-documents-per-second", "1000", "--time-budget", "3s"];
    let ran = ferry.run(&limited).await.expect(75);
    assert!(ran.stdout.contains("copy yielded") && ran.stdout.contains("begins anew"), "{}", ran.stdout);
    assert_eq!(written(&to).await?, before);
    Ok(())
}
