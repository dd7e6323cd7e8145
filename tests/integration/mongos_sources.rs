//! A mongos as the source: its shards found and read directly, or all of it through the mongos; and what becomes of the
//! checkpoint.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use futures_util::TryStreamExt;
use mongodb::Client;
use mongodb::bson::{Document, doc};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::cluster::{Cluster, shared_cluster, shared_target_cluster};
use crate::support::ferry::Ferry;
use crate::support::router::Router;
use crate::support::running::Running;
use crate::support::servers::{Failure, shared_source, shared_target};

/// Far more than anything here takes: only a hang reaches it.
const AT_MOST: Duration = Duration::from_secs(180);

/// A port on which nobody listens.
const NOBODY: &str = "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=500";

/// How many documents each collection has.
const COUNT: i32 = 4_000;

/// A job that copies a database of a cluster through a router of its own.
struct Job {
    ferry: Ferry,
    on_target: Client,
    database: String,
    directory: TempDir,
    _router: Router,
}

impl Job {
    async fn new(cluster: &Cluster, database: &str) -> Result<Self, Failure> {
        let target = shared_target().await?;
        let router = Router::start(cluster)?;
        let directory = tempfile::tempdir()?;
        let ferry = Ferry::new(directory.path(), &router.uri(), &target.uri(), "job")
            .set("MONGOFERRY_INCLUDE", database)
            .set("MONGOFERRY_CHECKPOINT_NAMESPACE", format!("mongoshake.{database}"))
            .set("MONGOFERRY_SAVE_INTERVAL", "20ms");
        let on_target = Client::with_uri_str(target.uri()).await?;
        Ok(Self { ferry, on_target, database: database.to_owned(), directory, _router: router })
    }

    async fn arrived(&self, collection: &str) -> Result<BTreeMap<i32, Document>, Failure> {
        let collection = self.on_target.database(&self.database).collection::<Document>(collection);
        let documents: Vec<Document> = collection.find(doc! {}).await?.try_collect().await?;
        Ok(by_id(documents))
    }

    fn state(&self, key: &str) -> Result<Value, Failure> {
        let path: &Path = self.directory.path();
        Ok(serde_json::from_slice(&std::fs::read(path.join("state/job").join(key))?)?)
    }

    /// The checkpoints that commit has written, by their names.
    async fn written(&self) -> Result<BTreeMap<String, i64>, Failure> {
        let checkpoints = self.on_target.database("mongoshake").collection::<Document>(&self.database);
        let mut found = BTreeMap::new();
        for checkpoint in checkpoints.find(doc! {}).await?.try_collect::<Vec<Document>>().await? {
            assert_eq!(checkpoint.get_i32("version")?, 2, "{checkpoint}");
            found.insert(checkpoint.get_str("name")?.to_owned(), checkpoint.get_i64("ckpt")?);
        }
        Ok(found)
    }

    /// The names of the lanes that there are.
    fn lanes(&self) -> Result<Vec<String>, Failure> {
        let entries = std::fs::read_dir(self.directory.path().join("state/job/lanes"))?;
        let mut names: Vec<String> = entries
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<Result<_, std::io::Error>>()?;
        // Drafts of saves that were killed are hidden.
        names.retain(|name| !name.starts_with('.'));
        names.sort();
        Ok(names)
    }

    /// All that is there after a copy is exactly what the shards own.
    async fn has_what_is_owned(&self) -> Result<(), Failure> {
        for collection in ["ranged", "hashed"] {
            let arrived = self.arrived(collection).await?;
            assert!(arrived == by_id(documents()), "{collection}: {} documents", arrived.len());
        }
        assert_eq!(self.arrived("plain").await?.len(), 10);
        Ok(())
    }
}

fn documents() -> Vec<Document> {
    let text = "t".repeat(300);
    (0..COUNT).map(|n| doc! {"_id": n, "k": (n * 7919) % COUNT - COUNT / 2, "text": &text}).collect()
}

fn by_id(documents: Vec<Document>) -> BTreeMap<i32, Document> {
    let count = documents.len();
    let map: BTreeMap<i32, Document> =
        documents.into_iter().map(|document| (document.get_i32("_id").unwrap_or_default(), document)).collect();
    assert_eq!(map.len(), count, "an _id is there twice");
    map
}

/// Sharded collections, everything of them on both shards, so that half of it is orphans; and one that is not sharded, with
/// something left behind on the other shard.
async fn plant(cluster: &Cluster, database: &str) -> Result<(), Failure> {
    cluster.create_database(database, "s0").await?;
    let namespace = |collection: &str| format!("{database}.{collection}");
    cluster.shard_collection(&namespace("ranged"), doc! {"k": 1}, doc! {}).await?;
    cluster.split(&namespace("ranged"), doc! {"k": 0}).await?;
    cluster.move_chunk(&namespace("ranged"), doc! {"k": 0}, "s1").await?;
    cluster.shard_collection(&namespace("hashed"), doc! {"k": "hashed"}, doc! {"numInitialChunks": 4}).await?;
    for shard in ["s0", "s1"] {
        for collection in ["ranged", "hashed"] {
            cluster.plant(shard, &namespace(collection), documents()).await?;
        }
    }
    cluster.plant("s0", &namespace("plain"), documents()[..10].to_vec()).await?;
    cluster.plant("s1", &namespace("plain"), documents()[..20].to_vec()).await
}

/// Runs it to its end, killed a few times before.
async fn killed_and_resumed(ferry: &Ferry) -> Result<(), Failure> {
    let slow = ferry.clone().set("MONGOFERRY_MAX_DOCUMENTS_PER_SECOND", "4000");
    for kill in 0..3 {
        let mut run = Running::start(&slow, &["step", "all"])?;
        run.has_written(&slow, kill * 1_500 + 200).await?;
        run.signal(Signal::KILL)?;
        run.ended_within(AT_MOST).await?;
    }
    ferry.clone().set("MONGOFERRY_VERIFY", "full").run(&["step", "all"]).await.expect(0);
    Ok(())
}

#[tokio::test]
async fn the_shards_behind_a_mongos_are_found_and_read_directly() -> Result<(), Failure> {
    let cluster = shared_cluster().await?;
    plant(cluster, "found").await?;
    let job = Job::new(cluster, "found").await?;
    killed_and_resumed(&job.ferry).await?;
    job.has_what_is_owned().await?;
    assert_eq!(job.lanes()?, ["s0-0", "s1-0"]);
    assert_eq!(job.state("steps/copy.json")?["progress"]["counts"]["orphans"], 2 * COUNT);
    assert_eq!(job.written().await?.into_keys().collect::<Vec<_>>(), ["rs0", "rs1"]);

    let refused = job.ferry.clone().set("MONGOFERRY_READ", "mongos").run(&["step", "verify"]).await.expect(2);
    assert!(refused.stderr.contains("--read `shards`") && refused.stderr.contains("`mongos`"), "{refused:?}");
    Ok(())
}

#[tokio::test]
async fn what_is_read_through_a_mongos_is_what_its_shards_own() -> Result<(), Failure> {
    let cluster = shared_cluster().await?;
    plant(cluster, "through").await?;
    let job = Job::new(cluster, "through").await?;
    let ferry = job.ferry.clone().set("MONGOFERRY_READ", "mongos").set("MONGOFERRY_PARTITION_SIZE", "200KB");
    killed_and_resumed(&ferry).await?;
    job.has_what_is_owned().await?;
    assert_eq!(job.lanes()?, ["mongos-0"]);
    // Each is larger than some ranges: they were cut.
    let head = job.state("plan.json")?;
    assert!(head["lanes"][0]["partitions"].as_u64() > Some(6), "{head}");
    // The shards were reached, and a stream can read each oplog.
    assert_eq!(job.written().await?.into_keys().collect::<Vec<_>>(), ["rs0", "rs1"]);
    // The way was chosen for good, and need not be said again.
    job.ferry.run(&["step", "verify"]).await.expect(0);
    let refused = job.ferry.clone().set("MONGOFERRY_READ", "shards").run(&["step", "verify"]).await.expect(2);
    assert!(refused.stderr.contains("--read `mongos`") && refused.stderr.contains("`shards`"), "{refused:?}");
    Ok(())
}

#[tokio::test]
async fn a_mongos_is_read_where_a_shard_cannot_be_reached_and_its_time_is_the_checkpoint() -> Result<(), Failure> {
    let cluster = shared_cluster().await?;
    plant(cluster, "unreached").await?;
    let job = Job::new(cluster, "unreached").await?;
    let unreached = job.ferry.clone().set("MONGOFERRY_SOURCE_SHARD", format!("{} {NOBODY}", cluster.shard_uri("s0")?));

    let refused = unreached.clone().set("MONGOFERRY_READ", "shards").run(&["step", "discover"]).await.expect(2);
    assert!(["127.0.0.1:1/", "--read mongos"].iter().all(|part| refused.stderr.contains(part)), "{refused:?}");
    let before = now_in_seconds()?;
    let discovered = unreached.run(&["step", "discover"]).await.expect(0);
    for part in ["read through its mongos", "127.0.0.1:1/", "change streams"] {
        assert!(discovered.stderr.contains(part), "{part}: {discovered:?}");
    }
    unreached.run(&["step", "all"]).await.expect(0);
    job.has_what_is_owned().await?;
    assert_eq!(job.lanes()?, ["mongos-0"]);
    let written = job.written().await?;
    assert_eq!(written.keys().collect::<Vec<_>>(), ["mongos"]);
    let seconds = written["mongos"] >> 32;
    assert!((before - 60..before + 600).contains(&seconds), "{written:?}");
    let status = job.ferry.status().await.expect("a job");
    assert_eq!(status["checkpoint"]["mongos"]["ckpt"], written["mongos"], "{status}");
    assert!(status["notes"].to_string().contains("no oplog of the source can be read"), "{status}");
    Ok(())
}

fn now_in_seconds() -> Result<i64, Failure> {
    Ok(mongodb::bson::DateTime::now().timestamp_millis() / 1_000)
}

#[tokio::test]
async fn change_streams_of_a_cluster_begin_at_the_smallest_checkpoint_of_its_shards() -> Result<(), Failure> {
    let cluster = shared_cluster().await?;
    for (number, read) in ["shards", "mongos"].into_iter().enumerate() {
        let database = format!("merged{number}");
        cluster.create_database(&database, "s0").await?;
        cluster.plant("s0", &format!("{database}.c"), documents()[..10].to_vec()).await?;
        let job = Job::new(cluster, &database).await?;
        let ferry = job.ferry.clone().set("MONGOFERRY_READ", read).set("MONGOFERRY_CHECKPOINT_MODE", "change-stream");
        ferry.run(&["step", "all"]).await.expect(0);
        assert_eq!(job.arrived("c").await?.len(), 10);
        let captured = job.state("checkpoint.json")?;
        let after = |set: &str| {
            let after = &captured["checkpoints"][set]["after"];
            Some((after["seconds"].as_i64()? << 32) | after["increment"].as_i64()?)
        };
        let smallest = after("rs0").into_iter().chain(after("rs1")).min();
        assert_eq!(captured["checkpoints"].as_object().map(serde_json::Map::len), Some(2), "{captured}");
        assert_eq!(
            job.written().await?.into_iter().collect::<Vec<_>>(),
            [("mongos".to_owned(), smallest.unwrap_or(0))]
        );
        let refused = ferry.set("MONGOFERRY_CHECKPOINT_MODE", "oplog").run(&["step", "verify"]).await.expect(2);
        let parts = ["--checkpoint-mode `change-stream`", "now it is `oplog`"];
        assert!(parts.iter().all(|part| refused.stderr.contains(part)), "{refused:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_replica_set_has_one_checkpoint_for_either_kind_of_stream() -> Result<(), Failure> {
    let set = shared_source().await?;
    let source = Client::with_uri_str(set.uri()).await?.database("either");
    source.collection::<Document>("c").insert_many(&documents()[..10]).await?;
    let job = Job::new(shared_cluster().await?, "either").await?;
    let ferry = job.ferry.clone().set("MONGOFERRY_SOURCE", set.uri());
    ferry.set("MONGOFERRY_CHECKPOINT_MODE", "change-stream").run(&["step", "all"]).await.expect(0);
    assert_eq!(job.arrived("c").await?.len(), 10);
    let captured = job.state("checkpoint.json")?;
    let sets: Vec<&String> = captured["checkpoints"].as_object().into_iter().flat_map(|all| all.keys()).collect();
    let written = job.written().await?;
    assert_eq!((written.keys().collect::<Vec<_>>(), written.len()), (sets, 1));
    assert!(!written.contains_key("mongos"));
    Ok(())
}

#[tokio::test]
async fn without_a_checkpoint_nothing_is_written_and_reads_are_not_older_than_the_beginning() -> Result<(), Failure> {
    let cluster = shared_cluster().await?;
    let set = shared_source().await?.uri();
    Client::with_uri_str(&set).await?.database("none").collection::<Document>("c").insert_many(documents()).await?;
    cluster.create_database("none", "s0").await?;
    cluster.plant("s0", "none.c", documents()).await?;
    let shards = (cluster.shard_uris().join(" "), cluster.config_uri());
    let job = Job::new(cluster, "none").await?;
    for (number, (settings, names)) in [
        (&[("SOURCE", set.as_str())] as &[(&str, &str)], 1),
        (&[], 2),
        (&[("SOURCE", ""), ("SOURCE_SHARD", &shards.0), ("SOURCE_CONFIG", &shards.1)], 2),
        (&[("READ", "mongos"), ("SOURCE_SHARD", NOBODY)], 1),
    ]
    .into_iter()
    .enumerate()
    {
        let mut ferry = job.ferry.clone().set("MONGOFERRY_JOB", format!("job-{number}"));
        for (name, value) in settings.iter().chain(&[("CHECKPOINT_MODE", "none"), ("EXISTING", "drop")]) {
            ferry = ferry.set(&format!("MONGOFERRY_{name}"), *value);
        }
        let ran = ferry.run(&["step", "all", "--drop-committed"]).await.expect(0);
        assert!(format!("{ran:?}").contains("--checkpoint-mode none"), "{ran:?}");
        assert_eq!(job.arrived("c").await?.len(), documents().len());
        let path = job.directory.path().join(format!("state/job-{number}/checkpoint.json"));
        let captured: Value = serde_json::from_slice(&std::fs::read(path)?)?;
        assert_eq!(captured["checkpoints"], serde_json::json!({}), "{captured}");
        assert_eq!(captured["times"].as_object().map(serde_json::Map::len), Some(names), "{captured}");
    }
    assert!(job.written().await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn two_documents_with_one_id_are_not_read_through_a_mongos() -> Result<(), Failure> {
    let cluster = shared_cluster().await?;
    cluster.create_database("twins", "s0").await?;
    cluster.shard_collection("twins.c", doc! {"k": 1}, doc! {}).await?;
    cluster.split("twins.c", doc! {"k": 0}).await?;
    cluster.move_chunk("twins.c", doc! {"k": 0}, "s1").await?;
    cluster.plant("s0", "twins.c", [doc! {"_id": 1, "k": -1}, doc! {"_id": 2, "k": -2}]).await?;
    cluster.plant("s1", "twins.c", [doc! {"_id": 2, "k": 2}]).await?;
    let job = Job::new(cluster, "twins").await?;
    let stopped = job.ferry.clone().set("MONGOFERRY_READ", "mongos").run(&["step", "all"]).await.expect(1);
    assert!(stopped.stderr.contains("twins.c") && stopped.stderr.contains("--read shards"), "{stopped:?}");
    assert!(job.state("steps/commit.json").is_err());
    Ok(())
}

#[tokio::test]
async fn what_does_not_go_with_the_source_is_refused() -> Result<(), Failure> {
    let cluster = shared_cluster().await?;
    cluster.create_database("unfit", "s0").await?;
    cluster.plant("s0", "unfit.c", [doc! {"_id": 1}]).await?;
    let job = Job::new(cluster, "unfit").await?;
    let set = shared_source().await?.uri();
    let other_cluster = shared_target_cluster().await?;
    let shards = cluster.shard_uris().join(" ");
    let (first, other) = (cluster.shard_uri("s0")?, other_cluster.config_uri());
    let beside_set = "beside a source that is a replica set";
    let rows = [
        (
            &[("SOURCE", set.as_str()), ("SOURCE_SHARD", &shards)] as &[(&str, &str)],
            &["--source-shard", beside_set] as &[&str],
        ),
        (&[("SOURCE", &set), ("SOURCE_CONFIG", &other)], &["--source-config", beside_set]),
        (&[("SOURCE", &set), ("READ", "shards")], &["--read", beside_set]),
        (&[("SOURCE_SHARD", &first)], &["s1", "rs1"]),
        (&[("SOURCE_SHARD", &format!("{shards} {set}"))], &["--source-shard", "no shard of a sharded cluster"]),
        (&[("SOURCE_SHARD", &other_cluster.shard_uris().join(" "))], &["another cluster than --source"]),
        (&[("SOURCE_CONFIG", &other)], &["--source-config", "another cluster"]),
        (
            &[("SOURCE_SHARD", NOBODY), ("CHECKPOINT_MODE", "oplog")],
            &["127.0.0.1:1/", "--checkpoint-mode change-stream"],
        ),
        (&[("READ", "mongos"), ("ORPHANS", "copy")], &["--orphans copy", "--read shards"]),
        (&[("READ", "mongos"), ("READ_ORDER", "natural")], &["--read-order natural", "mongos as the source"]),
    ];
    for (number, (settings, parts)) in rows.into_iter().enumerate() {
        // A job of its own each: some are refused after the checkpoint was captured.
        let mut ferry = job.ferry.clone().set("MONGOFERRY_JOB", format!("job-{number}"));
        for (name, value) in settings {
            ferry = ferry.set(&format!("MONGOFERRY_{name}"), *value);
        }
        let refused = ferry.run(&["step", "discover"]).await.expect(2);
        assert!(parts.iter().all(|part| refused.stderr.contains(part)), "{parts:?}: {refused:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_cluster_is_copied_into_another_one_through_two_mongos() -> Result<(), Failure> {
    let cluster = shared_cluster().await?;
    plant(cluster, "across").await?;
    let job = Job::new(cluster, "across").await?;
    let target = shared_target_cluster().await?;
    let router = Router::start(target)?;
    let ferry = job.ferry.clone().set("MONGOFERRY_READ", "mongos").set("MONGOFERRY_TARGET", router.uri());
    killed_and_resumed(&ferry).await?;
    for (collection, key) in [("ranged", doc! {"k": 1}), ("hashed", doc! {"k": "hashed"})] {
        let namespace = format!("across.{collection}");
        assert_eq!(target.placement(&namespace).await?.key, key);
        let mut arrived = Vec::new();
        for shard in &target.shards {
            let stored = target.stored(&shard.name, &namespace).await?;
            assert_eq!(stored, target.owned(&shard.name, &namespace).await?, "{namespace} on {}", shard.name);
            arrived.extend(stored);
        }
        assert!(by_id(arrived) == by_id(documents()), "{namespace}");
    }
    Ok(())
}
