//! Collections that are copied in part: what matches a filter, and nothing else, whatever comes between.

use crate::support::cluster::shared_cluster;
use crate::support::ferry::{Ferry, Ran};
use crate::support::running::Running;
use crate::support::servers::{Failure, ReplicaSet, shared_source, shared_target};
use futures_util::{StreamExt, TryStreamExt, stream};
use mongodb::Client;
use mongodb::bson::{Bson, Document, RawDocumentBuf, doc, oid::ObjectId};
use rustix::process::Signal;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

/// A job that copies a database, and both sides of it.
struct Job {
    ferry: Ferry,
    from: Client,
    to: Client,
    directory: TempDir,
}

impl Job {
    async fn new(name: &str, file: &str) -> Result<Self, Failure> {
        let (source, target) = tokio::try_join!(shared_source(), shared_target())?;
        let (from, to) = (Client::with_uri_str(source.uri()).await?, Client::with_uri_str(target.uri()).await?);
        let directory = tempfile::tempdir()?;
        std::fs::write(directory.path().join("mongoferry.toml"), file)?;
        let ferry = ferry(directory.path(), source, target, name, name);
        Ok(Self { ferry, from, to, directory })
    }
}

fn ferry(directory: &Path, source: &ReplicaSet, target: &ReplicaSet, job: &str, database: &str) -> Ferry {
    Ferry::new(directory, &source.uri(), &target.uri(), job)
        .set("MONGOFERRY_INCLUDE", database)
        .set("MONGOFERRY_VERIFY", "full")
        .set("MONGOFERRY_CHECKPOINT_NAMESPACE", format!("mongoshake.ckpt_{job}"))
}

/// The bytes of what a query gives, in this order.
async fn raw(client: &Client, (db, name): (&str, &str), query: Document, by: &str) -> Result<Vec<Vec<u8>>, Failure> {
    let found = client.database(db).collection::<RawDocumentBuf>(name).find(query).sort(doc! { by: 1 }).await?;
    Ok(found.map_ok(RawDocumentBuf::into_bytes).try_collect().await?)
}

/// `_id`s of several types, so that an order across types is read with a filter too.
fn mixed(count: i32) -> Vec<Document> {
    let id = |n: i32| match n % 4 {
        0 => Bson::Int32(n),
        1 => Bson::from(format!("{:05}", n * 7 % count)),
        2 => Bson::from(doc! { "n": n }),
        _ => {
            let [.., high, low] = n.to_be_bytes();
            Bson::ObjectId(ObjectId::from_bytes([(n % 251) as u8, high, low, 0, 0, 0, 0, 0, 0, 0, 0, 0]))
        }
    };
    (0..count).map(|n| doc! { "_id": id(n), "tenant": n / 4 % 5, "text": "x".repeat(100) }).collect()
}

#[tokio::test]
async fn only_what_matches_arrives_in_every_order_of_reading() -> Result<(), Failure> {
    let file = r#"
[filters]
"filtered.mixed" = '{"tenant": {"$in": [1, 3]}}'
"filtered.ends" = '{"wanted": true}'
"filtered.none" = '{"tenant": 99}'
"filtered.clustered" = '{"tenant": 2}'
"filtered.ring" = '{"n": {"$mod": [3, 0]}}'
"filtered.dotted.name" = '{"at": {"$gte": {"$date": "2026-01-01T00:00:00Z"}}, "$expr": {"$gt": ["$a", "$b"]}}'
"#;
    let job = Job::new("filtered", file).await?;
    let source = job.from.database("filtered");
    source.collection("mixed").insert_many(mixed(20_000)).await?;
    // The largest of all, at which a scan ends, does not match.
    let largest = ObjectId::from_bytes([255; 12]);
    source.collection("mixed").insert_one(doc! { "_id": largest, "tenant": 0 }).await?;
    source.collection("none").insert_many((0..10).map(|n| doc! { "_id": n, "tenant": n })).await?;
    source.collection("whole").insert_many((0..10).map(|n| doc! { "_id": n, "tenant": n })).await?;
    // What is found by no bounds: the largest `_id` there can be.
    let ends = [Bson::MinKey, Bson::Int32(1), Bson::Int32(2), Bson::MaxKey];
    let ends = ends.into_iter().enumerate().map(|(n, id)| doc! { "_id": id, "wanted": n % 2 == 1 });
    source.collection("ends").insert_many(ends).await?;
    let clustered = doc! { "create": "clustered", "clusteredIndex": { "key": { "_id": 1 }, "unique": true } };
    source.run_command(clustered).await?;
    source.collection("clustered").insert_many((0..500).map(|n| doc! { "_id": n, "tenant": n % 5 })).await?;
    source.run_command(doc! { "create": "ring", "capped": true, "size": 1_000_000, "max": 4_000 }).await?;
    source.collection("ring").insert_many((0..9_000).map(|n| doc! { "_id": n * 7 % 9_000, "n": n })).await?;
    let at = |n: i64| mongodb::bson::DateTime::from_millis(1_767_225_600_000 + n);
    let dotted = (-5..5).map(|n| doc! { "_id": n, "at": at(n), "a": n % 3, "b": 0 });
    source.collection("dotted.name").insert_many(dotted).await?;

    let expected = [
        ("mixed", doc! { "tenant": { "$in": [1, 3] } }, "_id"),
        ("ends", doc! { "wanted": true }, "_id"),
        ("none", doc! { "tenant": 99 }, "_id"),
        ("whole", doc! {}, "_id"),
        ("clustered", doc! { "tenant": 2 }, "_id"),
        ("ring", doc! { "n": { "$mod": [3, 0] } }, "$natural"),
        ("dotted.name", doc! { "at": { "$gte": at(0) }, "$expr": { "$gt": ["$a", "$b"] } }, "_id"),
    ];
    let (source, target) = tokio::try_join!(shared_source(), shared_target())?;
    for (name, order) in [("filtered_by_id", "id"), ("filtered_natural", "natural"), ("filtered_cut", "id")] {
        // Small ranges, so that bounds are read by, too.
        let size = if name == "filtered_cut" { "64KiB" } else { "256MiB" };
        let ferry = ferry(job.directory.path(), source, target, name, "filtered")
            .set("MONGOFERRY_RENAME", format!("filtered:{name}"))
            .set("MONGOFERRY_READ_ORDER", order)
            .set("MONGOFERRY_PARTITION_SIZE", size);
        ferry.run(&["step", "all"]).await.expect(0);
        let mut count = 0;
        for (collection, query, by) in &expected {
            let wanted = raw(&job.from, ("filtered", collection), query.clone(), by).await?;
            count += wanted.len();
            assert!(*collection == "none" || !wanted.is_empty(), "{collection}");
            assert!(wanted == raw(&job.to, (name, collection), doc! {}, by).await?, "{name}.{collection}");
        }
        let status = ferry.status().await.ok_or("the job is there")?;
        assert_eq!(status["documents"]["written"], count, "{name}");
        assert_eq!(status["findings"], serde_json::json!([]));
        let notes = status["notes"].to_string();
        assert!(notes.contains("is copied in part") && notes.contains("filtered.ring"), "{notes}");
        // Held against the source, too, there is nothing that is missing or too much.
        ferry.clone().set("MONGOFERRY_AGAINST", "source").run(&["step", "verify"]).await.expect(0);
    }
    Ok(())
}

/// A copy of two selections is a copy of neither.
#[tokio::test]
async fn another_filter_later_is_refused_with_both_shown() -> Result<(), Failure> {
    let job = Job::new("filter_pinned", "[filters]\n'filter_pinned.a' = '{\"tenant\": 1}'").await?;
    for name in ["a", "b"] {
        let collection = job.from.database("filter_pinned").collection(name);
        collection.insert_many((0..10).map(|n| doc! { "_id": n, "tenant": n % 2 })).await?;
    }
    for step in ["discover", "plan", "prepare"] {
        job.ferry.run(&["step", step]).await.expect(0);
    }
    let path = job.directory.path().join("mongoferry.toml");
    for (file, parts) in [
        ("", ["`{\"tenant\":1}`", "`none`"]),
        ("[filters]\n'filter_pinned.a' = '{\"tenant\": 2}'", ["`{\"tenant\":1}`", "`{\"tenant\":2}`"]),
        ("[filters]\n'filter_pinned.a' = '{\"tenant\": 1.0}'", ["the filter of filter_pinned.a", "--job"]),
        (
            "[filters]\n'filter_pinned.a' = '{\"tenant\": 1}'\n'filter_pinned.b' = '{\"tenant\": 1}'",
            ["the filter of filter_pinned.b", "`none`"],
        ),
    ] {
        std::fs::write(&path, file)?;
        let Ran { stderr, .. } = job.ferry.run(&["step", "copy"]).await.expect(2);
        assert!(parts.iter().all(|part| stderr.contains(part)), "{stderr}");
    }
    // Another way to write it is no other filter.
    std::fs::write(&path, "[filters]\n'filter_pinned.a' = '{ \"tenant\" : {\"$numberInt\": \"1\"} }'")?;
    job.ferry.run(&["step", "all"]).await.expect(0);
    assert_eq!(raw(&job.to, ("filter_pinned", "a"), doc! {}, "_id").await?.len(), 5);
    assert_eq!(raw(&job.to, ("filter_pinned", "b"), doc! {}, "_id").await?.len(), 10);
    Ok(())
}

#[tokio::test]
async fn what_has_no_documents_of_its_own_is_not_filtered() -> Result<(), Failure> {
    let job = Job::new("filter_kinds", "").await?;
    let source = job.from.database("filter_kinds");
    source.collection("c").insert_one(doc! { "_id": 1 }).await?;
    source.run_command(doc! { "create": "view", "viewOn": "c", "pipeline": [] }).await?;
    source.run_command(doc! { "create": "series", "timeseries": { "timeField": "t" } }).await?;
    for (name, parts) in [
        ("view", ["is a view", "filter what it is based on"]),
        ("series", ["is a time series", "delete on the target"]),
    ] {
        let file = format!("[filters]\n'filter_kinds.{name}' = '{{\"tenant\": 1}}'");
        std::fs::write(job.directory.path().join("mongoferry.toml"), file)?;
        let Ran { stderr, .. } = job.ferry.run(&["step", "all"]).await.expect(2);
        assert!(parts.iter().all(|part| stderr.contains(part)), "{stderr}");
    }
    assert!(job.to.database("filter_kinds").list_collection_names().await?.is_empty());
    Ok(())
}

/// A document that was sent and matches no more is, for a run that goes on, as one that was deleted.
#[tokio::test]
async fn what_stops_to_match_between_a_kill_and_the_resume_is_gone_from_the_target() -> Result<(), Failure> {
    const DOCUMENTS: i32 = 24_000;
    let (source, target) = tokio::try_join!(shared_source(), shared_target())?;
    let mut runs = Vec::new();
    for (order, kill) in [("id", 2), ("id", 3), ("natural", 2), ("natural", 3)] {
        runs.push(async move {
            let name = format!("unmatched_{order}_{kill}");
            let file = format!("[filters]\n'{name}.c' = '{{\"tenant\": {{\"$lt\": 8}}}}'");
            let job = Job::new(&name, &file).await?;
            let collection = job.from.database(&name).collection::<Document>("c");
            collection.insert_many((0..DOCUMENTS).map(|n| doc! { "_id": n, "tenant": n % 10 })).await?;
            // Nothing is saved between the batches, so that what was sent is in the window that is replayed.
            let ferry = ferry(job.directory.path(), source, target, &name, &name)
                .set("MONGOFERRY_READ_ORDER", order)
                .set("MONGOFERRY_MAX_WRITERS", "1")
                .set("MONGOFERRY_LEASE", "60s")
                .set("MONGOFERRY_SAVE_INTERVAL", "20s");
            let frozen = ferry.clone().set("MONGOFERRY_FREEZE_BEFORE", format!("insert:{kill}"));
            let mut frozen = Running::start(&frozen, &["step", "all"])?;
            frozen.is_frozen().await?;
            frozen.signal(Signal::KILL)?;
            frozen.ended_within(Duration::from_secs(30)).await?;
            let there = job.to.database(&name).collection::<Document>("c");
            let sent = there.count_documents(doc! { "tenant": 3 }).await?;
            assert!(sent > 0, "{name}: nothing was sent before it was killed");

            collection.update_many(doc! { "tenant": 3 }, doc! { "$set": { "tenant": 9 } }).await?;
            collection.update_many(doc! { "tenant": 8 }, doc! { "$set": { "tenant": 2 } }).await?;
            collection.update_many(doc! { "tenant": 4 }, doc! { "$set": { "changed": true } }).await?;
            collection.delete_many(doc! { "tenant": 5 }).await?;
            ferry.run(&["step", "all"]).await.expect(0);
            let wanted = raw(&job.from, (&name, "c"), doc! { "tenant": { "$lt": 8 } }, "_id").await?;
            assert!(wanted == raw(&job.to, (&name, "c"), doc! {}, "_id").await?, "{name}");
            let status = ferry.status().await.ok_or("the job is there")?;
            assert_eq!(status["documents"]["written"], wanted.len(), "{name}");
            assert_eq!(status["findings"], serde_json::json!([]), "{name}");
            Ok::<_, Failure>(())
        });
    }
    stream::iter(runs).buffered(2).try_collect::<Vec<_>>().await?;
    Ok(())
}

/// Each shard is asked for what matches, what it does not own is left out, and whose a document is says its shard key on the
/// source: here a DBRef, which is another one on the target.
#[tokio::test]
async fn shards_are_filtered_and_their_references_follow() -> Result<(), Failure> {
    let (cluster, target) = (shared_cluster().await?, shared_target().await?);
    cluster.create_database("filter_sharded", "s0").await?;
    let owner = |name: &str, n: i32| doc! { "$ref": name, "$id": n };
    let keys =
        [("c", doc! { "n": 1 }, doc! { "n": 150 }), ("d", doc! { "owner": 1 }, doc! { "owner": owner("c", 150) })];
    let documents = |name: &str| -> Vec<Document> {
        (0..300).map(|n| doc! { "_id": n, "n": n, "owner": owner(name, n), "tenant": n % 3 }).collect()
    };
    for (name, key, at) in keys {
        let namespace = format!("filter_sharded.{name}");
        cluster.shard_collection(&namespace, key, doc! {}).await?;
        cluster.split(&namespace, at.clone()).await?;
        cluster.move_chunk(&namespace, at, "s1").await?;
        // What one shard owns is an orphan on the other.
        for shard in ["s0", "s1"] {
            cluster.plant(shard, &namespace, documents("c")).await?;
        }
    }
    let directory = tempfile::tempdir()?;
    std::fs::write(
        directory.path().join("mongoferry.toml"),
        "[filters]\n'filter_sharded.c' = '{\"tenant\": 1}'\n'filter_sharded.d' = '{\"tenant\": 1}'",
    )?;
    let ferry = Ferry::new(directory.path(), "", &target.uri(), "filter_sharded")
        .of_shards(&cluster.shard_uris(), &cluster.config_uri())
        .set("MONGOFERRY_INCLUDE", "filter_sharded")
        .set("MONGOFERRY_RENAME", "filter_sharded:filter_to,filter_sharded.c:filter_to.a")
        .set("MONGOFERRY_RENAME_DBREFS", "yes")
        .set("MONGOFERRY_CHECKPOINT_NAMESPACE", "mongoshake.ckpt_filter_sharded")
        .set("MONGOFERRY_VERIFY", "full");
    ferry.run(&["step", "all"]).await.expect(0);
    let against = ferry.clone().set("MONGOFERRY_AGAINST", "source");
    against.run(&["step", "verify", "--namespace", "filter_sharded.c"]).await.expect(0);
    let to = Client::with_uri_str(target.uri()).await?;
    let wanted: Vec<Document> = documents("a").into_iter().skip(1).step_by(3).collect();
    for name in ["a", "d"] {
        let found = to.database("filter_to").collection::<Document>(name).find(doc! {}).sort(doc! { "_id": 1 }).await?;
        assert_eq!(found.try_collect::<Vec<Document>>().await?, wanted, "{name}");
    }
    Ok(())
}

/// Documents that name others: under other names on the target, in another database, or in both at once.
#[tokio::test]
async fn references_follow_renames_when_asked_and_only_then() -> Result<(), Failure> {
    let job = Job::new("dbrefs", "").await?;
    let source = job.from.database("dbrefs");
    let owner = |name: &str, db: Option<&str>| {
        let mut owner = doc! { "$ref": name, "$id": 7 };
        owner.extend(db.map(|db| ("$db".to_owned(), Bson::from(db))));
        owner
    };
    let document = |n: i32, moved: Document, kept: Document, foreign: Document| {
        doc! { "_id": n, "owner": moved.clone(), "all": [{ "deep": [moved, kept] }, foreign], "text": "$ref" }
    };
    let theirs = |n| {
        document(n, owner("people", None), owner("pets", Some("dbrefs")), owner("people", Some("dbrefs_elsewhere")))
    };
    let (source_set, target_set) = tokio::try_join!(shared_source(), shared_target())?;
    source.run_command(doc! { "create": "ring", "capped": true, "size": 20_000_000 }).await?;
    for name in ["people", "pets", "ring"] {
        source.collection(name).insert_many((0..6_000).map(theirs)).await?;
    }
    let read = async |db: &str, name: &str| -> Result<Vec<Document>, Failure> {
        let found = job.to.database(db).collection(name).find(doc! {}).sort(doc! { "_id": 1 }).await?;
        Ok(found.try_collect().await?)
    };
    let ferry = |name: &str, renames: String| {
        ferry(job.directory.path(), source_set, target_set, name, "dbrefs")
            .set("MONGOFERRY_RENAME", renames)
            .set("MONGOFERRY_READ_ORDER", "natural")
    };
    let unasked = ferry("dbrefs_unasked", "dbrefs:dbrefs_unasked".into());
    unasked.run(&["step", "all"]).await.expect(0);
    assert!(read("dbrefs_unasked", "people").await? == (0..6_000).map(theirs).collect::<Vec<_>>());

    let renames = "dbrefs:dbrefs_to,dbrefs.people:dbrefs_other.persons of a longer name";
    let ferry = ferry("dbrefs_to", renames.into()).set("MONGOFERRY_RENAME_DBREFS", "yes");
    for step in ["discover", "plan", "prepare"] {
        ferry.run(&["step", step]).await.expect(0);
    }
    let refused = ferry.clone().unset("MONGOFERRY_RENAME_DBREFS").run(&["step", "copy"]).await.expect(2);
    assert!(refused.stderr.contains("--rename-dbrefs `yes`"), "{}", refused.stderr);
    // Killed and begun again: what was sent is recognised, changed as it is.
    let killed = ferry.clone().set("MONGOFERRY_PANIC_BEFORE", "insert:3").run(&["step", "copy"]).await;
    assert_ne!(killed.code, Some(0), "{}", killed.stderr);
    ferry.run(&["step", "all"]).await.expect(0);
    let longer = "persons of a longer name";
    let ours = |n, home: &str| {
        let people = owner(longer, (home != "dbrefs_other").then_some("dbrefs_other"));
        document(n, people, owner("pets", Some("dbrefs_to")), owner("people", Some("dbrefs_elsewhere")))
    };
    for (db, name) in [("dbrefs_to", "pets"), ("dbrefs_to", "ring"), ("dbrefs_other", longer)] {
        assert!(read(db, name).await? == (0..6_000).map(|n| ours(n, db)).collect::<Vec<_>>(), "{db}.{name}");
    }
    let status = ferry.status().await.ok_or("the job is there")?;
    assert_eq!(status["findings"], serde_json::json!([]));
    assert_eq!(status["documents"]["replaced"], 0, "{}", status["documents"]);
    ferry.clone().set("MONGOFERRY_AGAINST", "source").run(&["step", "verify"]).await.expect(0);
    // What was changed on the target is told from what was renamed.
    let pets = job.to.database("dbrefs_to").collection::<Document>("pets");
    pets.update_one(doc! { "_id": 5 }, doc! { "$set": { "text": "other" } }).await?;
    let found = ferry.run(&["step", "verify"]).await.expect(4);
    assert!(found.stderr.contains("dbrefs.pets"), "{}", found.stderr);
    let findings = ferry.status().await.ok_or("the job is there")?["findings"].to_string();
    assert!(findings.contains("_id Int32(5) differs at text"), "{findings}");
    Ok(())
}

/// Longer names can make a document larger than any may be.
#[tokio::test]
async fn a_document_that_grows_beyond_the_limit_is_rejected_and_the_others_arrive() -> Result<(), Failure> {
    let job = Job::new("dbrefs_large", "").await?;
    let collection = job.from.database("dbrefs_large").collection("c");
    let reference = || doc! { "$ref": "c", "$id": 1 };
    for (id, references, filling) in [(1, 1, 10), (2, 1, 16_777_100), (3, 20_000, 15_500_000), (4, 1, 10)] {
        let references: Vec<Document> = (0..references).map(|_| reference()).collect();
        collection.insert_one(doc! { "_id": id, "r": references, "filling": "x".repeat(filling) }).await?;
    }
    let longer = "l".repeat(150);
    let ferry = job
        .ferry
        .clone()
        .set("MONGOFERRY_RENAME", format!("dbrefs_large.c:dbrefs_large.{longer}"))
        .set("MONGOFERRY_RENAME_DBREFS", "yes")
        .set("MONGOFERRY_MAX_REJECTED", "2");
    let ran = ferry.run(&["step", "all"]).await.expect(4);
    assert!(ran.stderr.contains("2 findings") || ran.stderr.contains("reject"), "{}", ran.stderr);
    let there = job.to.database("dbrefs_large").collection::<Document>(&longer);
    assert_eq!(there.distinct("_id", doc! {}).await?, [Bson::Int32(1), Bson::Int32(4)]);
    let rejected = ferry.run(&["rejected"]).await.expect(0);
    assert!(rejected.stdout.contains("too large"), "{}", rejected.stdout);
    Ok(())
}

#[tokio::test]
async fn stars_stand_for_parts_of_names_and_nothing_is_chosen_by_mistake() -> Result<(), Failure> {
    let job = Job::new("stars", "").await?;
    for (db, names) in [
        ("stars_1", ["orders", "orders.old", "log_2025", "log_2026.11"]),
        ("stars_2", ["orders", "customers", "log_", "old_log_1"]),
        ("stars", ["orders", "x", "log_1", "y"]),
    ] {
        for name in names {
            job.from.database(db).collection(name).insert_one(doc! { "_id": 1 }).await?;
        }
    }
    let ferry = job.ferry.clone().set("MONGOFERRY_RENAME", "stars_1:stars_to");
    let typo = ferry.clone().set("MONGOFERRY_INCLUDE", "stars_*.orders,stars_*.order");
    let refused = typo.run(&["step", "all"]).await.expect(2);
    assert!(refused.stderr.contains("--include stars_*.order matches no"), "{}", refused.stderr);
    let ferry = ferry.set("MONGOFERRY_INCLUDE", "stars_*.orders,stars_*.log_*").set("MONGOFERRY_EXCLUDE", "*_2.log*");
    ferry.run(&["step", "all"]).await.expect(0);
    for (db, expected) in
        [("stars_to", vec!["log_2025", "log_2026.11", "orders"]), ("stars_2", vec!["orders"]), ("stars", vec![])]
    {
        let mut found = job.to.database(db).list_collection_names().await?;
        found.sort();
        assert_eq!(found, expected, "{db}");
    }
    Ok(())
}

/// A server tells the names of collections apart by case, and those of databases not.
#[tokio::test]
async fn collections_that_differ_only_in_case_both_arrive() -> Result<(), Failure> {
    let job = Job::new("case_kept", "").await?;
    for (id, name) in ["orders", "Orders", "ORDERS"].into_iter().enumerate() {
        job.from.database("case_kept").collection(name).insert_one(doc! { "_id": id as i32 }).await?;
    }
    job.ferry.run(&["step", "all"]).await.expect(0);
    for (id, name) in ["orders", "Orders", "ORDERS"].into_iter().enumerate() {
        let found = job.to.database("case_kept").collection::<Document>(name).find_one(doc! {}).await?;
        assert_eq!(found, Some(doc! { "_id": id as i32 }), "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn a_collection_beside_the_servers_own_is_copied_when_it_is_named() -> Result<(), Failure> {
    let job = Job::new("special", "").await?;
    for name in ["c", "ferry_other"] {
        job.from.database("special").collection(name).insert_one(doc! { "_id": 1 }).await?;
    }
    for (db, name) in [("admin", "ferry_notes"), ("admin", "ferry_other"), ("mongoshake", "ferry_notes")] {
        job.from.database(db).collection(name).insert_one(doc! { "_id": db }).await?;
    }
    let ferry =
        job.ferry.clone().set("MONGOFERRY_INCLUDE", "special.c,*.ferry_other,admin.ferry_notes,mongoshake.ferry_notes");
    let in_the_way = ferry.clone().set("MONGOFERRY_CHECKPOINT_NAMESPACE", "mongoshake.ferry_notes");
    let refused = in_the_way.run(&["step", "all"]).await.expect(2);
    assert!(refused.stderr.contains("mongoshake.ferry_notes, where the checkpoint goes"), "{}", refused.stderr);
    ferry
        .clone()
        .set("MONGOFERRY_RENAME", "mongoshake.ferry_notes:special.notes")
        .run(&["step", "all"])
        .await
        .expect(0);
    let read = async |db: &str, name: &str| job.to.database(db).collection::<Document>(name).find_one(doc! {}).await;
    assert_eq!(read("admin", "ferry_notes").await?, Some(doc! { "_id": "admin" }));
    assert_eq!(read("special", "notes").await?, Some(doc! { "_id": "mongoshake" }));
    assert_eq!(read("special", "c").await?, Some(doc! { "_id": 1 }));
    // A star is no name.
    assert_eq!(read("special", "ferry_other").await?, Some(doc! { "_id": 1 }));
    assert_eq!(read("admin", "ferry_other").await?, None);
    Ok(())
}
