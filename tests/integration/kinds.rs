//! Every kind of collection, and every option of one.

use crate::support::cluster::{shared_cluster, shared_target_cluster};
use crate::support::compare::{Scope, compare};
use crate::support::ferry::Ferry;
use crate::support::kinds;
use crate::support::router::Router;
use crate::support::servers::{Failure, ReplicaSet, StartOptions, shared_source, shared_target};
use futures_util::TryStreamExt;
use mongodb::Client;
use mongodb::bson::{Document, doc};
use serde_json::json;
use std::path::Path;
use std::time::Duration;

async fn clients() -> Result<(&'static ReplicaSet, &'static ReplicaSet, Client, Client), Failure> {
    let (source, target) = tokio::try_join!(shared_source(), shared_target())?;
    let (from, to) = (Client::with_uri_str(source.uri()).await?, Client::with_uri_str(target.uri()).await?);
    Ok((source, target, from, to))
}

fn job(directory: &Path, source: &ReplicaSet, target: &ReplicaSet, name: &str) -> Ferry {
    Ferry::new(directory, &source.uri(), &target.uri(), name)
        .set("MONGOFERRY_INCLUDE", name)
        .set("MONGOFERRY_CHECKPOINT_NAMESPACE", format!("mongoshake.ckpt_{name}"))
}

async fn assert_equal(from: &Client, to: &Client, scope: &Scope) -> Result<(), Failure> {
    let outcome = compare(from, to, scope).await?;
    assert!(outcome.is_equal(), "{outcome}");
    Ok(())
}

fn of(databases: &[&str]) -> Scope {
    Scope { only_databases: databases.iter().map(|&name| name.to_owned()).collect(), ..Scope::default() }
}

/// What a query of each side gives.
async fn read(client: &Client, database: &str, collection: &str) -> Result<Vec<Document>, Failure> {
    let found = client.database(database).collection(collection).find(doc! {}).sort(doc! { "_id": 1 }).await?;
    Ok(found.try_collect().await?)
}

/// What a capped collection has, in its order.
async fn natural(client: &Client, database: &str) -> Result<Vec<Document>, Failure> {
    let capped = client.database(database).collection::<Document>("c");
    Ok(capped.find(doc! {}).sort(doc! { "$natural": 1 }).await?.try_collect().await?)
}

#[tokio::test]
async fn every_kind_and_option_arrives() -> Result<(), Failure> {
    let (source, target, from, to) = clients().await?;
    kinds::load(&from, "kinds").await?;
    let directory = tempfile::tempdir()?;
    let ferry = job(directory.path(), source, target, "kinds")
        .set("MONGOFERRY_INCLUDE", "kinds,kinds_view")
        .set("MONGOFERRY_VERIFY", "full");
    ferry.run(&["step", "all"]).await.expect(0);
    assert_equal(&from, &to, &of(&["kinds", "kinds_view"])).await?;
    for name in ["series", "series wide", "view of series", "a view of views", "m view", "view collated"] {
        let theirs = read(&from, "kinds", name).await?;
        assert!(!theirs.is_empty(), "{name}");
        assert_eq!(theirs, read(&to, "kinds", name).await?, "{name}");
    }
    // Dates before 1970 are found by their time: the target knows that there are some.
    let early = doc! { "t": { "$lt": mongodb::bson::DateTime::from_millis(0) } };
    let found = to.database("kinds").collection::<Document>("series wide").count_documents(early).await?;
    assert_eq!(found, 1);

    let status = ferry.status().await.ok_or("the job is there")?;
    assert_eq!(status["status"], "done");
    assert_eq!(status["findings"], json!([]));
    let note = status["notes"].to_string();
    assert!(note.contains("is based on kinds.nothing here, which is not copied"), "{note}");
    Ok(())
}

#[tokio::test]
async fn everything_arrives_under_other_names() -> Result<(), Failure> {
    let (source, target, from, to) = clients().await?;
    kinds::load(&from, "kinds_from").await?;
    let directory = tempfile::tempdir()?;
    // `strict` and `collated` swap their names; the views follow.
    let renames = ["kinds_from:kinds_to", "kinds_from.strict:kinds_to.collated", "kinds_from.collated:kinds_to.strict"];
    let renames = [&renames[..], &["kinds_from.series:kinds_to.s", "kinds_from.v base:kinds_to.base of v"]].concat();
    let ferry = job(directory.path(), source, target, "kinds_from").set("MONGOFERRY_RENAME", renames.join(","));
    ferry.run(&["step", "all"]).await.expect(0);
    for (theirs, ours) in [
        ("v base", "base of v"),
        ("a view of views", "a view of views"),
        ("view collated", "view collated"),
        ("view of series", "view of series"),
        ("series", "s"),
        ("strict", "collated"),
    ] {
        let theirs = read(&from, "kinds_from", theirs).await?;
        assert!(!theirs.is_empty(), "{ours}");
        assert_eq!(theirs, read(&to, "kinds_to", ours).await?, "{ours}");
    }
    Ok(())
}

#[tokio::test]
async fn what_a_4_4_has_arrives_in_a_6_0() -> Result<(), Failure> {
    let options = StartOptions { name: "old".to_owned(), version: Some("4.4.2".to_owned()), ..StartOptions::default() };
    let (source, target) = (ReplicaSet::start(options).await?, shared_target().await?);
    let (from, to) = (Client::with_uri_str(source.uri()).await?, Client::with_uri_str(target.uri()).await?);
    kinds::load_old(&from, "kinds_old").await?;
    let directory = tempfile::tempdir()?;
    let ferry = job(directory.path(), &source, target, "kinds_old").set("MONGOFERRY_VERIFY", "full");
    ferry.run(&["step", "all"]).await.expect(0);
    let outcome = compare(&from, &to, &of(&["kinds_old"])).await?;
    assert!(outcome.is_equal(), "{outcome}");
    Ok(())
}

/// Killed at many moments while the source goes round: the order is the source's, nothing in between is missing.
#[tokio::test]
async fn a_capped_collection_keeps_its_order_through_kills_and_writes() -> Result<(), Failure> {
    let (source, target, from, to) = clients().await?;
    let database = from.database("capped_kills");
    database.run_command(doc! { "create": "c", "capped": true, "size": 100_000_000, "max": 30_000 }).await?;
    let documents = kinds::shuffled(80_000);
    database.collection::<Document>("c").insert_many(&documents[..30_000]).await?;
    let directory = tempfile::tempdir()?;
    let ferry = job(directory.path(), source, target, "capped_kills").set("MONGOFERRY_SAVE_INTERVAL", "10ms");
    for step in ["discover", "plan", "prepare"] {
        ferry.run(&["step", step]).await.expect(0);
    }
    let mut written = 30_000;
    for kill in 0..8 {
        let killed = ferry.clone().set("MONGOFERRY_PANIC_BEFORE", format!("insert:{}", 2 + kill % 3));
        let ran = killed.run(&["step", "copy"]).await;
        assert_ne!(ran.code, Some(0), "it was killed: {}", ran.stderr);
        // Some rounds more than half of what it holds, so that the last that was copied is there still, and is not.
        let more = [1_000, 4_000, 9_000, 20_000][kill % 4].min(documents.len() - written);
        if more > 0 {
            database.collection::<Document>("c").insert_many(&documents[written..written + more]).await?;
            written += more;
        }
    }
    ferry.clone().set("MONGOFERRY_VERIFY", "full").run(&["step", "all"]).await.expect(0);

    let (theirs, ours) = (natural(&from, "capped_kills").await?, natural(&to, "capped_kills").await?);
    assert_eq!(theirs.len(), 30_000);
    assert_eq!(theirs.len(), ours.len());
    assert!(theirs == ours, "another order, or other documents");
    Ok(())
}

#[tokio::test]
async fn a_capped_collection_in_another_order_is_found() -> Result<(), Failure> {
    let (source, target, from, to) = clients().await?;
    let database = from.database("capped_order");
    database.run_command(doc! { "create": "c", "capped": true, "size": 100_000 }).await?;
    database.collection("c").insert_many(kinds::shuffled(100)).await?;
    let directory = tempfile::tempdir()?;
    let ferry = job(directory.path(), source, target, "capped_order").set("MONGOFERRY_VERIFY", "full");
    for step in ["discover", "plan", "prepare", "copy", "index"] {
        ferry.run(&["step", step]).await.expect(0);
    }
    // The same documents, the last one first.
    let copied = to.database("capped_order").collection::<Document>("c");
    let mut documents: Vec<Document> = copied.find(doc! {}).sort(doc! { "$natural": 1 }).await?.try_collect().await?;
    copied.delete_many(doc! {}).await?;
    documents.rotate_right(1);
    copied.insert_many(documents).await?;
    let verified = ferry.run(&["step", "verify"]).await.expect(4);
    assert!(verified.stderr.contains("is not in the source's order"), "{}", verified.stderr);
    Ok(())
}

/// Through the time series itself a replay would double what was measured.
#[tokio::test]
async fn a_time_series_is_not_doubled_by_kills() -> Result<(), Failure> {
    let (source, target, from, to) = clients().await?;
    let database = from.database("series_kills");
    database
        .run_command(
            doc! { "create": "s", "timeseries": { "timeField": "t", "metaField": "m", "granularity": "seconds" } },
        )
        .await?;
    let measured =
        |n: i64| doc! { "t": mongodb::bson::DateTime::from_millis(n * 60_000), "m": n % 7, "v": "x".repeat(200) };
    database.collection("s").insert_many((0..40_000).map(measured)).await?;
    let directory = tempfile::tempdir()?;
    let ferry = job(directory.path(), source, target, "series_kills")
        .set("MONGOFERRY_SAVE_INTERVAL", "10ms")
        .set("MONGOFERRY_PARTITION_SIZE", "1MiB");
    for kill in 1..5 {
        ferry.clone().set("MONGOFERRY_PANIC_BEFORE", format!("insert:{kill}")).run(&["step", "all"]).await;
    }
    ferry.clone().set("MONGOFERRY_VERIFY", "full").run(&["step", "all"]).await.expect(0);
    assert_equal(&from, &to, &of(&["series_kills"])).await?;
    let count = to.database("series_kills").collection::<Document>("s").count_documents(doc! {}).await?;
    assert_eq!(count, 40_000);
    let status = ferry.status().await.ok_or("the job is there")?;
    let names: Vec<&str> =
        status["namespaces"].as_array().into_iter().flatten().filter_map(|shown| shown["namespace"].as_str()).collect();
    assert_eq!(names, ["series_kills.s"]);
    assert_eq!(status["namespaces"][0]["target"], "series_kills.s");
    Ok(())
}

#[tokio::test]
async fn what_is_in_the_way_of_each_kind_is_dropped() -> Result<(), Failure> {
    let (source, target, from, to) = clients().await?;
    kinds::load(&from, "kinds_drop").await?;
    // Under the names of one kind what is of another, and the same kinds with other content.
    let there = to.database("kinds_drop");
    for (name, options) in [
        ("series", doc! { "viewOn": "x", "pipeline": [] }),
        ("m view", doc! { "timeseries": { "timeField": "t" } }),
        ("v base", doc! { "viewOn": "y", "pipeline": [] }),
        ("a view of views", doc! { "capped": true, "size": 5_000 }),
        ("capped", doc! { "viewOn": "z", "pipeline": [] }),
        ("series wide", doc! { "timeseries": { "timeField": "other" } }),
    ] {
        let mut command = doc! { "create": name };
        command.extend(options);
        there.run_command(command).await?;
    }
    let directory = tempfile::tempdir()?;
    let ferry = job(directory.path(), source, target, "kinds_drop");
    let refused = ferry.run(&["step", "all"]).await.expect(2);
    assert!(refused.stderr.contains("kinds_drop.capped"), "{}", refused.stderr);
    let kept = ferry.clone().set("MONGOFERRY_EXISTING", "keep").run(&["step", "all"]).await.expect(2);
    assert!(
        kept.stderr.contains("--existing keep: kinds_drop.a view of views on the target is a capped collection"),
        "{}",
        kept.stderr
    );
    ferry.clone().set("MONGOFERRY_EXISTING", "drop").run(&["step", "all"]).await.expect(0);
    assert_equal(&from, &to, &of(&["kinds_drop"])).await
}

/// A view that a newer server has made may be nothing that an older one takes.
#[tokio::test]
async fn a_view_that_the_target_does_not_take_is_a_finding_and_the_rest_is_there() -> Result<(), Failure> {
    let options =
        StartOptions { name: "older".to_owned(), version: Some("4.4.2".to_owned()), ..StartOptions::default() };
    let (source, target) = (shared_source().await?, ReplicaSet::start(options).await?);
    let (from, to) = (Client::with_uri_str(source.uri()).await?, Client::with_uri_str(target.uri()).await?);
    let database = from.database("new_view");
    database.collection("c").insert_one(doc! { "_id": 1, "t": 1 }).await?;
    // `$densify` came with 5.1.
    let densify = doc! { "$densify": { "field": "t", "range": { "step": 1, "bounds": "full" } } };
    database.run_command(doc! { "create": "dense", "viewOn": "c", "pipeline": [densify] }).await?;
    database.run_command(doc! { "create": "plain", "viewOn": "c", "pipeline": [] }).await?;
    let directory = tempfile::tempdir()?;
    let ferry = job(directory.path(), source, &target, "new_view");
    let ran = ferry.run(&["step", "all"]).await.expect(4);
    assert!(ran.stderr.contains("new_view.dense"), "{}", ran.stderr);
    let status = ferry.status().await.ok_or("the job is there")?;
    assert!(
        status["findings"].to_string().contains("is a view that the target does not take"),
        "{}",
        status["findings"]
    );
    assert_eq!(read(&to, "new_view", "plain").await?.len(), 1);
    ferry.clone().set("MONGOFERRY_ACCEPT_FINDINGS", "yes").run(&["step", "all", "--accept-findings"]).await.expect(0);
    Ok(())
}

#[tokio::test]
async fn writes_that_go_on_do_not_keep_a_capped_collection_from_its_end() -> Result<(), Failure> {
    let (source, target, from, to) = clients().await?;
    let database = from.database("capped_busy");
    database.run_command(doc! { "create": "c", "capped": true, "size": 10_000_000, "max": 2_000 }).await?;
    let documents = kinds::shuffled(200_000);
    database.collection::<Document>("c").insert_many(&documents[..2_000]).await?;
    let writer = {
        let collection = database.collection::<Document>("c");
        tokio::spawn(async move {
            for some in documents[2_000..].chunks(100) {
                if collection.insert_many(some).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
    };
    let directory = tempfile::tempdir()?;
    let ferry = job(directory.path(), source, target, "capped_busy").set("MONGOFERRY_VERIFY", "full");
    let ran = ferry.run(&["step", "all"]).await;
    writer.abort();
    ran.expect(0);
    let copied = natural(&to, "capped_busy").await?;
    let numbers: Vec<i32> = copied.iter().filter_map(|document| document.get_i32("n").ok()).collect();
    assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "a gap, or another order");
    Ok(())
}

#[tokio::test]
async fn kinds_of_a_cluster_that_is_read_directly_arrive() -> Result<(), Failure> {
    let (source, target) = (shared_cluster().await?, shared_target().await?);
    for (name, primary) in [("kinds_cluster", "s1"), ("kinds_cluster_view", "s1")] {
        source.create_database(name, primary).await?;
    }
    let from = source.shard_client("s1").await?;
    let to = Client::with_uri_str(target.uri()).await?;
    kinds::fill(&from, "kinds_cluster").await?;
    let directory = tempfile::tempdir()?;
    let ferry = Ferry::new(directory.path(), "", &target.uri(), "kinds_cluster")
        .of_shards(&source.shard_uris(), &source.config_uri())
        .set("MONGOFERRY_INCLUDE", "kinds_cluster,kinds_cluster_view")
        .set("MONGOFERRY_CHECKPOINT_NAMESPACE", "mongoshake.ckpt_kinds_cluster")
        .set("MONGOFERRY_VERIFY", "full");
    ferry.run(&["step", "all"]).await.expect(0);
    assert_equal(&from, &to, &of(&["kinds_cluster", "kinds_cluster_view"])).await
}

#[tokio::test]
async fn kinds_arrive_in_a_cluster() -> Result<(), Failure> {
    let (source, cluster) = (shared_source().await?, shared_target_cluster().await?);
    let router = Router::start(cluster)?;
    let from = Client::with_uri_str(source.uri()).await?;
    kinds::load(&from, "kinds_routed").await?;
    let directory = tempfile::tempdir()?;
    let ferry = Ferry::new(directory.path(), &source.uri(), &router.uri(), "kinds_routed")
        .set("MONGOFERRY_INCLUDE", "kinds_routed,kinds_routed_view")
        .set("MONGOFERRY_KEEP_UNSHARDED", "kinds_routed")
        .set("MONGOFERRY_CHECKPOINT_NAMESPACE", "mongoshake.ckpt_kinds_routed");
    ferry.run(&["step", "all"]).await.expect(0);
    // All of it is on the databases' primary shards.
    for database in ["kinds_routed", "kinds_routed_view"] {
        let mut outcomes = Vec::new();
        for shard in &cluster.shards {
            let to = cluster.shard_client(&shard.name).await?;
            outcomes.push(compare(&from, &to, &of(&[database])).await?);
        }
        let equal = outcomes.iter().filter(|outcome| outcome.is_equal()).count();
        assert_eq!(equal, 1, "{database}: {outcomes:#?}");
    }
    Ok(())
}
