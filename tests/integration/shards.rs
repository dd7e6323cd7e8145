//! Sharded clusters as a source: every shard read directly, what it does not own left out.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use futures_util::TryStreamExt;
use mongodb::Client;
use mongodb::bson::{Bson, Document, RawBson, RawDocumentBuf, Timestamp, doc};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::bson_values::any_value;
use crate::support::cluster::{Cluster, ClusterOptions, shared_cluster};
use crate::support::ferry::Ferry;
use crate::support::running::Running;
use crate::support::servers::{Failure, shared_source, shared_target};

/// Far more than anything here takes: only a hang reaches it.
const AT_MOST: Duration = Duration::from_secs(120);

/// A job that copies one database of a cluster.
struct Job {
    ferry: Ferry,
    on_target: Client,
    database: String,
    directory: TempDir,
}

impl Job {
    async fn new(cluster: &Cluster, database: &str) -> Result<Self, Failure> {
        let target = shared_target().await?;
        let directory = tempfile::tempdir()?;
        let ferry = Ferry::new(directory.path(), "", &target.uri(), "job")
            .of_shards(&cluster.shard_uris(), &cluster.config_uri())
            .set("MONGOFERRY_INCLUDE", database)
            .set("MONGOFERRY_CHECKPOINT_NAMESPACE", format!("mongoshake.{database}"))
            .set("MONGOFERRY_SAVE_INTERVAL", "20ms");
        let on_target = Client::with_uri_str(target.uri()).await?;
        Ok(Self { ferry, on_target, database: database.to_owned(), directory })
    }

    /// The bytes of all documents of a collection of the target, by their `_id`, which is a number.
    async fn arrived(&self, collection: &str) -> Result<BTreeMap<i32, Vec<u8>>, Failure> {
        all(&self.on_target, &self.database, collection).await
    }

    fn state(&self, key: &str) -> Result<Value, Failure> {
        let path: &Path = self.directory.path();
        Ok(serde_json::from_slice(&std::fs::read(path.join("state/job").join(key))?)?)
    }

    /// How many orphans were left out.
    fn orphans(&self) -> Result<u64, Failure> {
        Ok(self.state("steps/copy.json")?["progress"]["counts"]["orphans"].as_u64().unwrap_or(0))
    }
}

async fn all(client: &Client, database: &str, collection: &str) -> Result<BTreeMap<i32, Vec<u8>>, Failure> {
    let collection = client.database(database).collection::<RawDocumentBuf>(collection);
    let mut documents = collection.find(doc! {}).await?;
    let mut found = BTreeMap::new();
    while let Some(document) = documents.try_next().await? {
        let id = document.get_i32("_id").map_err(|error| error.to_string())?;
        if found.insert(id, document.into_bytes()).is_some() {
            return Err(format!("_id {id} is there twice").into());
        }
    }
    Ok(found)
}

/// Documents whose key `k` has every type, and `a` some numbers.
fn documents(count: i32) -> Vec<Document> {
    // Arrays are no keys, MaxKey is in no chunk, and a server puts its own time in the place of an empty one.
    let empty = RawBson::Timestamp(Timestamp { time: 0, increment: 0 });
    let may_be_key = move |value: &RawBson| !matches!(value, RawBson::Array(_) | RawBson::MaxKey) && *value != empty;
    let strategy = any_value().prop_filter("no key", may_be_key);
    let mut runner = TestRunner::deterministic();
    (0..count)
        .filter_map(|id| {
            let key = strategy.new_tree(&mut runner).expect("a value").current();
            let mut document = doc! {"_id": id, "a": id % 10, "text": "t".repeat(300)};
            // A key that is not there counts as null.
            if id % 50 > 0 {
                document.insert("k", Bson::try_from(key).ok()?);
            }
            Some(document)
        })
        .collect()
}

#[tokio::test]
async fn what_shards_own_arrives_once_and_their_orphans_do_not() -> Result<(), Failure> {
    let cluster = shared_cluster().await?;
    let database = "direct";
    cluster.create_database(database, "s0").await?;
    let job = Job::new(cluster, database).await?;
    cluster.shard_collection("direct.ranged", doc! {"k": 1}, doc! {}).await?;
    for at in [Bson::from(0), Bson::from("m"), Bson::Boolean(true)] {
        cluster.split("direct.ranged", doc! {"k": at}).await?;
    }
    for min in [Bson::from(0), Bson::Boolean(true)] {
        cluster.move_chunk("direct.ranged", doc! {"k": min}, "s1").await?;
    }
    cluster.shard_collection("direct.hashed", doc! {"k": "hashed"}, doc! {"numInitialChunks": 6}).await?;
    cluster.shard_collection("direct.compound", doc! {"a": 1, "k": "hashed"}, doc! {}).await?;
    cluster.split("direct.compound", doc! {"a": 5, "k": 0_i64}).await?;
    cluster.move_chunk("direct.compound", doc! {"a": 5, "k": 0_i64}, "s1").await?;
    // Everything on both shards: what one owns is an orphan on the other.
    let planted = documents(4_000);
    let collections = ["ranged", "hashed", "compound"];
    for collection in collections {
        for shard in ["s0", "s1"] {
            cluster.plant(shard, &format!("{database}.{collection}"), planted.clone()).await?;
        }
    }
    // Left behind where nothing of it is owned.
    cluster.plant("s0", "direct.plain", planted[..10].to_vec()).await?;
    cluster.plant("s1", "direct.plain", planted[..20].to_vec()).await?;
    cluster.shard_collection("direct.leftover", doc! {"k": 1}, doc! {}).await?;
    cluster.plant("s0", "direct.leftover", planted[..30].to_vec()).await?;
    cluster.plant("s1", "direct.leftover", planted[..40].to_vec()).await?;

    // Users are the config servers', functions lie where their database does.
    let create = doc! {"createUser": "app", "pwd": "p", "roles": [{"role": "read", "db": database}]};
    cluster.config_client().await?.database(database).run_command(create).await?;
    let functions = cluster.shard_client("s0").await?.database(database).collection("system.js");
    functions.insert_one(doc! {"_id": "f", "value": 1}).await?;

    let dry = job.ferry.clone().set("MONGOFERRY_INCLUDE_SYSTEM", "js,users");
    let dry = dry.run(&["step", "all", "--dry-run"]).await.expect(0);
    assert!(job.on_target.database(database).list_collection_names().await?.is_empty());

    let slow = job.ferry.clone().set("MONGOFERRY_MAX_DOCUMENTS_PER_SECOND", "5000");
    for kill in 0..5 {
        let mut run = Running::start(&slow, &["step", "all"])?;
        run.has_written(&slow, kill * 2_000 + 200).await?;
        run.signal(Signal::KILL)?;
        run.ended_within(AT_MOST).await?;
    }
    let ferry = job.ferry.clone().set("MONGOFERRY_INCLUDE_SYSTEM", "js,users").set("MONGOFERRY_VERIFY", "full");
    let ran = ferry.run(&["step", "all"]).await.expect(0);
    assert!(ran.stdout.contains("1 function, 1 user as on the source"), "{}", ran.stdout);

    let mut orphans = 0;
    for collection in collections {
        let namespace = format!("{database}.{collection}");
        let mut expected = BTreeMap::new();
        for shard in ["s0", "s1"] {
            let stored = all(&cluster.shard_client(shard).await?, database, collection).await?;
            let owned = cluster.owned(shard, &namespace).await?;
            assert!(owned.len() > 100, "{shard} owns {} documents of {namespace}", owned.len());
            orphans += (stored.len() - owned.len()) as u64;
            for document in owned {
                let id = document.get_i32("_id")?;
                assert!(expected.insert(id, stored[&id].clone()).is_none(), "{namespace}: {id} has two owners");
            }
        }
        assert_eq!(expected.len(), planted.len(), "{namespace}");
        assert!(job.arrived(collection).await? == expected, "{namespace}");
    }
    assert_eq!(job.arrived("plain").await?.len(), 10);
    assert_eq!(job.arrived("leftover").await?.len(), 30);
    assert_eq!(job.orphans()?, orphans);
    let read = format!("{} documents (", collections.len() * planted.len() + 10 + 30);
    for part in [&read, &format!("{orphans} orphans left out"), "1 function, 1 user would be written"] {
        assert!(dry.stdout.contains(part), "{part}: {}", dry.stdout);
    }

    let checkpoints = job.on_target.database("mongoshake").collection::<Document>(database);
    let mut names = checkpoints.distinct("name", doc! {}).await?;
    names.sort_by_key(ToString::to_string);
    assert_eq!(names, [Bson::from("rs0"), Bson::from("rs1")]);
    Ok(())
}

#[tokio::test]
async fn one_id_on_two_shards_is_a_finding_and_a_document_that_moved_is_none() -> Result<(), Failure> {
    let cluster = shared_cluster().await?;
    cluster.create_database("twice", "s0").await?;
    cluster.shard_collection("twice.c", doc! {"k": 1}, doc! {}).await?;
    cluster.split("twice.c", doc! {"k": 0}).await?;
    cluster.move_chunk("twice.c", doc! {"k": 0}, "s1").await?;
    cluster.plant("s0", "twice.c", [doc! {"_id": 1, "k": -1}, doc! {"_id": 2, "k": -2}]).await?;
    cluster.plant("s1", "twice.c", [doc! {"_id": 1, "k": 1}, doc! {"_id": 3, "k": 3}]).await?;
    let job = Job::new(cluster, "twice").await?;
    let ran = job.ferry.run(&["step", "all"]).await.expect(4);
    assert!(ran.stderr.contains("two shards"), "{ran:?}");
    assert_eq!(job.arrived("c").await?.into_keys().collect::<Vec<_>>(), [1, 2, 3]);

    // As long as both are there neither gives way.
    let left = job.ferry.run(&["rejected", "--retry"]).await.expect(4);
    assert!(left.stderr.contains("two shards"), "{left:?}");
    let there = job.on_target.database("twice").collection::<Document>("c").find_one(doc! {"_id": 1}).await?;
    let other = if there.ok_or("is there")?.get_i32("k")? < 0 { "s0" } else { "s1" };
    // The one that was copied goes, and the other one takes its place.
    let on_other = cluster.shard_client(other).await?.database("twice").collection::<Document>("c");
    on_other.delete_one(doc! {"_id": 1}).await?;
    job.ferry.run(&["rejected", "--retry"]).await.expect(0);
    let there = job.on_target.database("twice").collection::<Document>("c").find_one(doc! {"_id": 1}).await?;
    assert_eq!(there.ok_or("is there")?.get_i32("k")? < 0, other == "s1");
    job.ferry.run(&["step", "all"]).await.expect(0);
    Ok(())
}

#[tokio::test]
async fn documents_of_a_sharded_collection_that_differ_are_named_and_no_others() -> Result<(), Failure> {
    let cluster = shared_cluster().await?;
    cluster.create_database("differ", "s0").await?;
    cluster.shard_collection("differ.c", doc! {"k": "hashed"}, doc! {"numInitialChunks": 4}).await?;
    for shard in ["s0", "s1"] {
        cluster.plant(shard, "differ.c", documents(3_000)).await?;
    }
    let job = Job::new(cluster, "differ").await?;
    let ferry = job.ferry.clone().set("MONGOFERRY_PARTITION_SIZE", "200KB").set("MONGOFERRY_VERIFY", "full");
    ferry.run(&["step", "all"]).await.expect(0);
    let mut damaged = Vec::new();
    let on_target = job.on_target.database("differ").collection::<Document>("c");
    for shard in ["s0", "s1"] {
        let owned = cluster.owned(shard, "differ.c").await?;
        // One in the middle of a range, and one that no shard has as its own.
        let (other, lost) = (owned[owned.len() / 2].get_i32("_id")?, owned[owned.len() / 3].get_i32("_id")?);
        on_target.update_one(doc! {"_id": other}, doc! {"$set": {"text": "other"}}).await?;
        on_target.delete_one(doc! {"_id": lost}).await?;
        damaged.push(format!("Int32({other}) differs at text"));
        damaged.push(format!("Int32({lost}) is missing on the target"));
    }
    on_target.insert_one(doc! {"_id": -7, "k": "extra"}).await?;
    damaged.push("Int32(-7) is on the target and not on the source".to_owned());
    damaged.sort();
    for against in ["proofs", "source"] {
        let ferry = ferry.clone().set("MONGOFERRY_AGAINST", against);
        ferry.run(&["step", "verify"]).await.expect(4);
        let status = ferry.status().await.ok_or("no status")?;
        let text = |finding: &Value| finding["text"].as_str().unwrap_or_default().to_owned();
        let mut found: Vec<String> = status["findings"].as_array().into_iter().flatten().map(text).collect();
        found.sort();
        assert_eq!(found.len(), damaged.len(), "{against}: {found:?}");
        for (found, damaged) in found.iter().zip(&damaged) {
            assert!(found.contains(damaged), "{against}: {found}, {damaged}");
        }
    }
    // A later change on the source is told from a mistake.
    let changed = cluster.owned("s1", "differ.c").await?[0].get_i32("_id")?;
    let on_s1 = cluster.shard_client("s1").await?.database("differ").collection::<Document>("c");
    on_s1.update_one(doc! {"_id": changed}, doc! {"$set": {"text": "later"}}).await?;
    ferry.run(&["step", "verify"]).await.expect(4);
    let status = ferry.status().await.ok_or("no status")?;
    assert_eq!(status["findings"].as_array().map(Vec::len), Some(damaged.len()), "{status}");
    Ok(())
}

#[tokio::test]
async fn lanes_of_all_shards_are_copied_by_processes_side_by_side() -> Result<(), Failure> {
    let cluster = shared_cluster().await?;
    cluster.create_database("lanes", "s1").await?;
    cluster.shard_collection("lanes.c", doc! {"k": "hashed"}, doc! {"numInitialChunks": 4}).await?;
    let planted = documents(6_000);
    for shard in ["s0", "s1"] {
        cluster.plant(shard, "lanes.c", planted.clone()).await?;
    }
    let job = Job::new(cluster, "lanes").await?;
    let ferry = job.ferry.clone().set("MONGOFERRY_LANES_PER_SHARD", "2").set("MONGOFERRY_PARTITION_SIZE", "100KB");
    for step in ["discover", "plan", "prepare"] {
        ferry.run(&["step", step]).await.expect(0);
    }
    let mut first = Running::start(&ferry, &["step", "copy", "--shard", "s0", "--lane", "0"])?;
    first.has_written(&ferry, 1).await?;
    first.signal(Signal::KILL)?;
    first.ended_within(AT_MOST).await?;
    let lanes = [("s0", "0"), ("s0", "1"), ("s1", "0"), ("s1", "1")];
    let runs: Result<Vec<Running>, Failure> = lanes
        .into_iter()
        .map(|(shard, lane)| Running::start(&ferry, &["step", "copy", "--shard", shard, "--lane", lane]))
        .collect();
    for run in runs? {
        run.ended_within(AT_MOST).await?.expect(0);
    }
    for step in ["index", "verify", "commit"] {
        ferry.run(&["step", step]).await.expect(0);
    }
    let arrived = job.arrived("c").await?;
    assert_eq!(arrived.len(), planted.len());
    assert_eq!(job.orphans()?, planted.len() as u64);
    let refused = ferry.run(&["step", "copy", "--shard", "rs0", "--lane", "0"]).await.expect(2);
    assert!(refused.stderr.contains("s0/0") && refused.stderr.contains("s1/1"), "{refused:?}");
    Ok(())
}

#[tokio::test]
async fn a_chunk_that_moved_and_a_balancer_that_runs_are_noticed() -> Result<(), Failure> {
    let cluster = Cluster::start(ClusterOptions::default()).await?;
    cluster.create_database("guarded", "s0").await?;
    cluster.shard_collection("guarded.c", doc! {"k": 1}, doc! {}).await?;
    cluster.split("guarded.c", doc! {"k": 0}).await?;
    cluster.plant("s0", "guarded.c", (-5..5).map(|k| doc! {"_id": k, "k": k})).await?;
    let job = Job::new(&cluster, "guarded").await?;

    cluster.set_balancer(true).await?;
    let refused = job.ferry.run(&["step", "all"]).await.expect(2);
    assert!(refused.stderr.contains("balancer") && refused.stderr.contains("sh.stopBalancer()"), "{refused:?}");
    cluster.set_balancer(false).await?;
    for step in ["discover", "plan", "prepare", "copy"] {
        job.ferry.run(&["step", step]).await.expect(0);
    }
    // Away and back: the bounds and owners are what they were.
    cluster.move_there_and_back("guarded.c", doc! {"k": 0}, "s1").await?;
    let noticed = job.ferry.run(&["step", "all"]).await.expect(1);
    assert!(noticed.stderr.contains("guarded.c") && noticed.stderr.contains("became"), "{noticed:?}");
    assert!(job.state("steps/commit.json").is_err());
    Ok(())
}

/// Before 5.0 chunks name their collection by its name.
#[tokio::test]
async fn shards_of_4_4_are_read_as_well() -> Result<(), Failure> {
    let cluster = Cluster::start(ClusterOptions { version: Some("4.4.2".to_owned()), ..Default::default() }).await?;
    cluster.create_database("older", "s0").await?;
    cluster.shard_collection("older.c", doc! {"k": 1}, doc! {}).await?;
    cluster.split("older.c", doc! {"k": 0}).await?;
    cluster.move_chunk("older.c", doc! {"k": 0}, "s1").await?;
    for shard in ["s0", "s1"] {
        cluster.plant(shard, "older.c", (-50..50).map(|k| doc! {"_id": k, "k": k, "of": shard})).await?;
    }
    let job = Job::new(&cluster, "older").await?;
    job.ferry.run(&["step", "all"]).await.expect(0);
    let arrived = job.on_target.database("older").collection::<Document>("c");
    let mut documents = arrived.find(doc! {}).await?;
    let mut count = 0;
    while let Some(document) = documents.try_next().await? {
        let owner = if document.get_i32("k")? < 0 { "s0" } else { "s1" };
        assert_eq!(document.get_str("of")?, owner, "{document}");
        count += 1;
    }
    assert_eq!((count, job.orphans()?), (100, 100));
    Ok(())
}

#[tokio::test]
async fn an_orphan_can_be_copied_or_stop_the_copy() -> Result<(), Failure> {
    let cluster = shared_cluster().await?;
    cluster.create_database("orphans", "s0").await?;
    cluster.shard_collection("orphans.c", doc! {"k": 1}, doc! {}).await?;
    cluster.split("orphans.c", doc! {"k": 0}).await?;
    cluster.move_chunk("orphans.c", doc! {"k": 0}, "s1").await?;
    cluster.plant("s0", "orphans.c", [doc! {"_id": 1, "k": -1}, doc! {"_id": 2, "k": 2}]).await?;
    let job = Job::new(cluster, "orphans").await?;
    let failing = job.ferry.clone().set("MONGOFERRY_ORPHANS", "fail");
    let stopped = failing.run(&["step", "all"]).await.expect(1);
    assert!(stopped.stderr.contains("Int32(2)") && stopped.stderr.contains("cleanupOrphaned"), "{stopped:?}");
    job.ferry.clone().set("MONGOFERRY_ORPHANS", "copy").run(&["step", "all"]).await.expect(0);
    assert_eq!(job.arrived("c").await?.into_keys().collect::<Vec<_>>(), [1, 2]);
    Ok(())
}

#[tokio::test]
async fn a_lane_that_copies_orphans_and_goes_on_deletes_nothing_of_other_shards() -> Result<(), Failure> {
    let cluster = shared_cluster().await?;
    cluster.create_database("copied", "s0").await?;
    cluster.shard_collection("copied.c", doc! {"k": 1}, doc! {}).await?;
    cluster.split("copied.c", doc! {"k": 0}).await?;
    cluster.move_chunk("copied.c", doc! {"k": 0}, "s1").await?;
    // Neighbours by `_id` are on different shards.
    for (shard, first, sign) in [("s0", 0, -1), ("s1", 1, 1)] {
        let ids = (first..6_000).step_by(2);
        let documents = ids.map(|id| doc! {"_id": id, "k": sign * (id + 1), "text": "t".repeat(300)});
        cluster.plant(shard, "copied.c", documents).await?;
    }
    let job = Job::new(cluster, "copied").await?;
    let ferry = job.ferry.clone().set("MONGOFERRY_ORPHANS", "copy");
    let slow = ferry.clone().set("MONGOFERRY_MAX_DOCUMENTS_PER_SECOND", "3000");
    for kill in 0..3 {
        let mut run = Running::start(&slow, &["step", "all"])?;
        run.has_written(&slow, kill * 1_500 + 200).await?;
        run.signal(Signal::KILL)?;
        run.ended_within(AT_MOST).await?;
    }
    ferry.run(&["step", "all"]).await.expect(0);
    assert_eq!(job.arrived("c").await?.len(), 6_000);
    Ok(())
}

#[tokio::test]
async fn shards_that_are_not_the_clusters_are_refused() -> Result<(), Failure> {
    let cluster = shared_cluster().await?;
    let job = Job::new(cluster, "strangers").await?;
    let (shards, config) = (cluster.shard_uris(), cluster.config_uri());
    let other = shared_source().await?.uri();
    let twice = [shards[0].clone(), shards[1].clone(), shards[0].clone()];
    let with_other = [shards[0].clone(), shards[1].clone(), other.clone()];
    for (shards, config, parts) in [
        (&shards[..1], &config, ["s1", "rs1"]),
        (&twice, &config, ["two of --source-shard", "s0"]),
        (&with_other, &config, ["no shard of a sharded cluster", "--source-shard"]),
        (&shards, &other, ["--source-config", "config.version"]),
    ] {
        let refused = job.ferry.clone().of_shards(shards, config).run(&["step", "all"]).await.expect(2);
        assert!(parts.iter().all(|part| refused.stderr.contains(part)), "{parts:?}: {refused:?}");
    }
    Ok(())
}
