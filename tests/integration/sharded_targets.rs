//! Sharded clusters as a target, through a mongos: sharded and spread before the first document, and every document on the
//! shard that owns it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use mongodb::bson::{Bson, Document, doc};
use mongodb::{Client, IndexModel};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::cluster::{Cluster, ClusterOptions, shared_cluster, shared_target_cluster};
use crate::support::ferry::Ferry;
use crate::support::router::Router;
use crate::support::running::Running;
use crate::support::servers::{Failure, shared_source};

/// Far more than anything here takes: only a hang reaches it.
const AT_MOST: Duration = Duration::from_secs(180);

/// A job into a cluster, through a router of its own.
struct Job {
    ferry: Ferry,
    cluster: &'static Cluster,
    router: Router,
    directory: TempDir,
}

impl Job {
    /// One that copies a database of a replica set.
    async fn of_set(database: &str) -> Result<Self, Failure> {
        Job::new(database, &shared_source().await?.uri()).await
    }

    /// One that copies a database of a cluster, whose shards are read directly.
    async fn of_cluster(source: &Cluster, database: &str) -> Result<Self, Failure> {
        let mut job = Job::new(database, "").await?;
        job.ferry = job.ferry.of_shards(&source.shard_uris(), &source.config_uri());
        Ok(job)
    }

    async fn new(database: &str, source: &str) -> Result<Self, Failure> {
        let cluster = shared_target_cluster().await?;
        let router = Router::start(cluster)?;
        let directory = tempfile::tempdir()?;
        let ferry = Ferry::new(directory.path(), source, &router.uri(), "job")
            .set("MONGOFERRY_INCLUDE", database)
            .set("MONGOFERRY_CHECKPOINT_NAMESPACE", format!("mongoshake.{database}"))
            .set("MONGOFERRY_SAVE_INTERVAL", "20ms");
        Ok(Job { ferry, cluster, router, directory })
    }

    /// A settings' file, which alone has room for shard keys.
    fn shard_keys(&self, keys: &[(&str, &str)]) -> Result<(), Failure> {
        let mut file = "[shard-keys]\n".to_owned();
        keys.iter().for_each(|(namespace, key)| file.push_str(&format!("\"{namespace}\" = {key}\n")));
        Ok(std::fs::write(self.directory.path().join("mongoferry.toml"), file)?)
    }

    /// A client of the router.
    async fn client(&self) -> Result<Client, Failure> {
        Ok(Client::with_uri_str(self.router.uri()).await?)
    }

    /// All documents that lie on any shard, and that the shard owns, each by its `_id`, which is a number.
    async fn arrived(&self, namespace: &str) -> Result<BTreeMap<i32, Document>, Failure> {
        let mut arrived = BTreeMap::new();
        for shard in &self.cluster.shards {
            let stored = self.cluster.stored(&shard.name, namespace).await?;
            assert_eq!(stored, self.cluster.owned(&shard.name, namespace).await?, "{namespace} on {}", shard.name);
            for document in stored {
                let id = document.get_i32("_id")?;
                assert!(arrived.insert(id, document).is_none(), "{namespace}: _id {id} is there twice");
            }
        }
        Ok(arrived)
    }

    /// How many chunks each shard has.
    async fn spread(&self, namespace: &str) -> Result<BTreeMap<String, usize>, Failure> {
        let mut spread = BTreeMap::new();
        for chunk in self.cluster.placement(namespace).await?.chunks {
            *spread.entry(chunk.shard).or_default() += 1;
        }
        Ok(spread)
    }
}

fn numbered(numbers: std::ops::Range<i32>) -> Vec<Document> {
    let text = "t".repeat(200);
    numbers
        .map(|n| doc! {"_id": n, "k": (n * 7919) % 10_000, "a": n % 10, "word": format!("w{n}"), "t": &text})
        .collect()
}

fn by_id(documents: Vec<Document>) -> BTreeMap<i32, Document> {
    documents.into_iter().map(|document| (document.get_i32("_id").unwrap_or_default(), document)).collect()
}

#[tokio::test]
async fn a_cluster_is_copied_into_another_one_with_the_same_keys_and_its_chunks_spread_first() -> Result<(), Failure> {
    let source = shared_cluster().await?;
    source.create_database("fan", "s0").await?;
    let index = |keys: Document, name: &str| {
        let options = mongodb::options::IndexOptions::builder().name(name.to_owned()).build();
        IndexModel::builder().keys(keys).options(options).build()
    };
    // The shard key rests on an index with a name of its own, and more fields.
    let on_s0 = source.shard_client("s0").await?;
    on_s0.database("fan").create_collection("ranged").await?;
    on_s0.database("fan").collection::<Document>("ranged").create_index(index(doc! {"k": 1, "a": 1}, "mine")).await?;
    source.shard_collection("fan.ranged", doc! {"k": 1}, doc! {}).await?;
    for at in (1..10).map(|tenth| tenth * 1_000) {
        source.split("fan.ranged", doc! {"k": at}).await?;
    }
    source.move_chunk("fan.ranged", doc! {"k": 5_000}, "s1").await?;
    source.shard_collection("fan.hashed", doc! {"word": "hashed"}, doc! {"numInitialChunks": 6}).await?;
    source.shard_collection("fan.compound", doc! {"a": 1, "k": "hashed"}, doc! {}).await?;
    source.split("fan.compound", doc! {"a": 5, "k": 0_i64}).await?;
    source.move_chunk("fan.compound", doc! {"a": 5, "k": 0_i64}, "s1").await?;
    source.shard_collection("fan.unique", doc! {"k": 1, "_id": 1}, doc! {"unique": true}).await?;
    let sharded = ["ranged", "hashed", "compound", "unique"];
    let documents = numbered(0..3_000);
    for collection in sharded {
        for shard in ["s0", "s1"] {
            source.plant(shard, &format!("fan.{collection}"), documents.clone()).await?;
        }
    }
    source.plant("s0", "fan.plain", documents[..50].to_vec()).await?;

    let job = Job::of_cluster(source, "fan").await?;
    let ferry = job.ferry.clone().set("MONGOFERRY_RENAME", "fan:fanned");
    for step in ["discover", "plan", "prepare"] {
        ferry.run(&["step", step]).await.expect(0);
    }
    // Before the first document.
    for (collection, key, chunks) in [
        ("ranged", doc! {"k": 1}, 10),
        ("hashed", doc! {"word": "hashed"}, 6),
        ("compound", doc! {"a": 1, "k": "hashed"}, 2),
        ("unique", doc! {"k": 1, "_id": 1}, 1),
    ] {
        let namespace = format!("fanned.{collection}");
        let placement = job.cluster.placement(&namespace).await?;
        assert_eq!((&placement.key, placement.chunks.len()), (&key, chunks), "{namespace}");
        assert_eq!(placement.entry.get_bool("unique").unwrap_or(false), collection == "unique");
        let spread = job.spread(&namespace).await?;
        let (most, least) = (spread.values().max(), spread.values().min());
        assert!(
            spread.len() == chunks.min(3) && most.zip(least).is_some_and(|(most, least)| most - least <= 2),
            "{spread:?}"
        );
        assert_eq!(job.arrived(&namespace).await?.len(), 0);
    }
    let bounds = |placement: &crate::support::cluster::placement::Placement| {
        placement.chunks.iter().map(|chunk| chunk.min.clone()).collect::<Vec<_>>()
    };
    let (theirs, ours) = (source.placement("fan.ranged").await?, job.cluster.placement("fanned.ranged").await?);
    assert_eq!(bounds(&theirs), bounds(&ours));

    let slow = ferry.clone().set("MONGOFERRY_MAX_DOCUMENTS_PER_SECOND", "4000");
    for kill in 0..3 {
        let mut run = Running::start(&slow, &["step", "all"])?;
        run.has_written(&slow, kill * 2_000 + 200).await?;
        run.signal(Signal::KILL)?;
        run.ended_within(AT_MOST).await?;
    }
    ferry.clone().set("MONGOFERRY_VERIFY", "full").run(&["step", "all"]).await.expect(0);
    for collection in sharded {
        let arrived = job.arrived(&format!("fanned.{collection}")).await?;
        assert!(arrived == by_id(documents.clone()), "{collection}: {} documents", arrived.len());
    }
    let client = job.client().await?;
    let plain = client.database("fanned").collection::<Document>("plain");
    assert_eq!(plain.count_documents(doc! {}).await?, 50);
    assert!(job.cluster.placement("fanned.plain").await.is_err());
    let names = client.database("fanned").collection::<Document>("ranged").list_index_names().await?;
    assert_eq!(names, ["_id_", "mine"]);
    Ok(())
}

#[tokio::test]
async fn a_replica_set_is_sharded_by_the_keys_that_were_named() -> Result<(), Failure> {
    let source = Client::with_uri_str(shared_source().await?.uri()).await?.database("keyed");
    let documents = numbered(0..3_000);
    for collection in ["hashed", "ranged", "plain"] {
        source.collection::<Document>(collection).insert_many(&documents).await?;
    }
    let job = Job::of_set("keyed").await?;
    let refused = job.ferry.run(&["step", "all"]).await.expect(2);
    assert!(refused.stderr.contains("[shard-keys]") && refused.stderr.contains("--keep-unsharded"), "{refused:?}");
    job.shard_keys(&[
        ("keyed.hashed", r#"'{"word": "hashed"}'"#),
        ("keyed.ranged", r#"{ key = '{"k": 1, "_id": 1}', unique = true }"#),
    ])?;
    let refused = job.ferry.run(&["step", "all"]).await.expect(2);
    assert!(refused.stderr.contains("keyed.plain"), "{refused:?}");
    let ferry = job.ferry.clone().set("MONGOFERRY_KEEP_UNSHARDED", "keyed.plain").set("MONGOFERRY_VERIFY", "full");
    ferry.run(&["step", "all"]).await.expect(0);
    for (collection, unique) in [("hashed", false), ("ranged", true)] {
        let namespace = format!("keyed.{collection}");
        assert!(job.arrived(&namespace).await? == by_id(documents.clone()), "{namespace}");
        assert_eq!(job.cluster.placement(&namespace).await?.entry.get_bool("unique").unwrap_or(false), unique);
    }
    assert_eq!(job.spread("keyed.hashed").await?.len(), 3);
    assert!(job.cluster.placement("keyed.plain").await.is_err());
    Ok(())
}

/// A replacement finds only what has the same shard key, and an insert to another shard is no duplicate for anybody.
#[tokio::test]
async fn a_document_whose_shard_key_changed_between_two_attempts_is_there_once() -> Result<(), Failure> {
    let source = Client::with_uri_str(shared_source().await?.uri()).await?.database("rekeyed");
    let collection = source.collection::<Document>("c");
    let count = 4_000;
    collection.insert_many(numbered(0..count)).await?;
    let job = Job::of_set("rekeyed").await?;
    job.shard_keys(&[("rekeyed.c", r#"'{"k": "hashed"}'"#)])?;
    // What was sent is not saved soon, so that much is sent again.
    let slow =
        job.ferry.clone().set("MONGOFERRY_MAX_DOCUMENTS_PER_SECOND", "2000").set("MONGOFERRY_SAVE_INTERVAL", "4s");
    let mut run = Running::start(&slow, &["step", "all"])?;
    let on_target = job.client().await?.database("rekeyed").collection::<Document>("c");
    while on_target.count_documents(doc! {}).await? < 1_000 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!run.has_ended()?, "it ended before it was killed");
    }
    run.signal(Signal::KILL)?;
    run.ended_within(AT_MOST).await?;
    let sent: BTreeSet<i32> = job.arrived("rekeyed.c").await?.into_keys().collect();
    // Of each three one has another key, one is gone, one is as it was.
    collection.update_many(doc! {"_id": {"$mod": [3, 0]}}, vec![doc! {"$set": {"k": {"$add": ["$k", 1]}}}]).await?;
    collection.delete_many(doc! {"_id": {"$mod": [3, 1]}}).await?;
    job.ferry.run(&["step", "all"]).await.expect(0);

    let arrived = job.arrived("rekeyed.c").await?;
    let mut renewed = 0;
    for (id, before) in by_id(numbered(0..count)) {
        let mut now = before.clone();
        now.insert("k", before.get_i32("k")? + i32::from(id % 3 == 0));
        match arrived.get(&id) {
            // What a saved cursor covers is a stream's to change.
            Some(there) if *there == before => assert!(id % 3 == 2 || sent.contains(&id), "{id}"),
            Some(there) => {
                assert_eq!(*there, now);
                renewed += u32::from(sent.contains(&id));
            }
            None => assert_eq!(id % 3, 1, "{id}"),
        }
    }
    assert!(
        renewed > 20,
        "of {} documents that were sent {renewed} had another key when they were sent again",
        sent.len()
    );
    Ok(())
}

/// Crash enumeration, as in `crashes.rs`, of what is done to a sharded target alone, and of the inserts of two shards' lanes.
#[tokio::test]
async fn a_crash_while_it_is_sharded_spread_and_filled_loses_and_doubles_nothing() -> Result<(), Failure> {
    let source = shared_cluster().await?;
    source.create_database("cut", "s0").await?;
    source.shard_collection("cut.c", doc! {"k": 1}, doc! {}).await?;
    for at in [2_000, 4_000, 6_000, 8_000] {
        source.split("cut.c", doc! {"k": at}).await?;
    }
    source.move_chunk("cut.c", doc! {"k": 4_000}, "s1").await?;
    let documents = numbered(0..400);
    for shard in ["s0", "s1"] {
        source.plant(shard, "cut.c", documents.clone()).await?;
    }
    let into = |job: &Job, database: &str| {
        let ferry = job.ferry.clone().set("MONGOFERRY_RENAME", format!("cut:{database}"));
        ferry.set("MONGOFERRY_CHECKPOINT_NAMESPACE", format!("mongoshake.{database}"))
    };
    let job = Job::of_cluster(source, "cut").await?;
    let log = job.directory.path().join("points");
    into(&job, "cut_first").set("MONGOFERRY_CRASH_LOG", log.to_string_lossy()).run(&["step", "all"]).await.expect(0);
    let text = std::fs::read_to_string(log)?;
    let effects = ["create", "enable-sharding", "shard", "split", "move-chunk", "insert"];
    let is_of = |line: &str, effect: &str| line.rsplit([' ', ':']).next() == Some(effect);
    for effect in effects {
        assert!(text.lines().any(|line| is_of(line, effect)), "no point around {effect}: {text}");
    }
    let wanted = text.lines().filter(|line| effects.iter().any(|effect| is_of(line, effect)));
    let numbers: Vec<&str> = wanted.filter_map(|line| line.split(' ').next()).collect();
    let runs: Vec<_> = numbers
        .into_iter()
        .map(|number| {
            let (documents, into) = (&documents, &into);
            async move {
                let (job, database) = (Job::of_cluster(source, "cut").await?, format!("cut_{number}"));
                let ferry = into(&job, &database);
                let killed = ferry.clone().set("MONGOFERRY_CRASH_AT", number).run(&["step", "all"]).await;
                assert!(killed.code.is_none() || killed.code == Some(0), "point {number}: {killed:?}");
                ferry.run(&["step", "all"]).await.expect(0);
                let namespace = format!("{database}.c");
                assert!(job.arrived(&namespace).await? == by_id(documents.clone()), "point {number}");
                let mut spread: Vec<usize> = job.spread(&namespace).await?.into_values().collect();
                spread.sort_unstable();
                assert_eq!(spread, [1, 2, 2], "point {number}");
                Ok::<_, Failure>(())
            }
        })
        .collect();
    println!("{} points", runs.len());
    stream::iter(runs).buffered(3).try_collect::<Vec<_>>().await?;
    Ok(())
}

#[tokio::test]
async fn documents_with_one_id_on_two_shards_are_both_copied() -> Result<(), Failure> {
    let source = shared_cluster().await?;
    source.create_database("pairs", "s0").await?;
    source.shard_collection("pairs.c", doc! {"k": 1}, doc! {}).await?;
    source.split("pairs.c", doc! {"k": 0}).await?;
    source.move_chunk("pairs.c", doc! {"k": 0}, "s1").await?;
    source.plant("s0", "pairs.c", [doc! {"_id": 1, "k": -1}]).await?;
    source.plant("s1", "pairs.c", [doc! {"_id": 1, "k": 1}, doc! {"_id": 2, "k": 2}]).await?;
    let job = Job::of_cluster(source, "pairs").await?;
    job.ferry.run(&["step", "all"]).await.expect(0);
    let collection = job.client().await?.database("pairs").collection::<Document>("c");
    assert_eq!(collection.count_documents(doc! {"_id": 1}).await?, 2);
    Ok(())
}

/// A mongos lists the indexes of one shard alone.
#[tokio::test]
async fn an_index_that_one_shard_lacks_is_built_there_and_found_missing() -> Result<(), Failure> {
    let source = Client::with_uri_str(shared_source().await?.uri()).await?.database("lacking");
    source.collection::<Document>("c").insert_many(numbered(0..300)).await?;
    source.collection::<Document>("c").create_index(IndexModel::builder().keys(doc! {"a": 1}).build()).await?;
    let job = Job::of_set("lacking").await?;
    job.shard_keys(&[("lacking.c", r#"'{"word": "hashed"}'"#)])?;
    for step in ["discover", "plan", "prepare", "copy"] {
        job.ferry.run(&["step", step]).await.expect(0);
    }
    // As after a build of which nobody saw the end.
    let listed = job.client().await?.database("lacking").collection::<Document>("c");
    let on = |shard: &'static str| async move {
        let shard = job_shard(shard).await?;
        Ok::<_, Failure>(shard.database("lacking").collection::<Document>("c"))
    };
    for shard in ["s0", "s1"] {
        on(shard).await?.create_index(IndexModel::builder().keys(doc! {"a": 1}).build()).await?;
    }
    job.ferry.run(&["step", "index"]).await.expect(0);
    for shard in ["s0", "s1", "s2"] {
        assert_eq!(on(shard).await?.list_index_names().await?, ["_id_", "word_hashed", "a_1"], "{shard}");
    }
    job.ferry.run(&["step", "verify"]).await.expect(0);
    on("s2").await?.drop_index("a_1").await?;
    assert!(listed.list_index_names().await?.contains(&"a_1".to_owned()));
    let found = job.ferry.run(&["step", "verify"]).await.expect(4);
    assert!(found.stderr.contains("index a_1 is not on all shards"), "{found:?}");
    Ok(())
}

async fn job_shard(shard: &str) -> Result<Client, Failure> {
    shared_target_cluster().await?.shard_client(shard).await
}

#[tokio::test]
async fn zones_are_copied_when_that_is_wanted() -> Result<(), Failure> {
    let source = Cluster::start(ClusterOptions::default()).await?;
    source.create_database("zoned", "s0").await?;
    source.add_to_zone("s0", "low").await?;
    source.shard_collection("zoned.c", doc! {"k": 1}, doc! {}).await?;
    source.set_zone("zoned.c", doc! {"k": Bson::MinKey}, doc! {"k": 5_000}, "low").await?;
    for at in (1..10).map(|tenth| tenth * 1_000) {
        source.split("zoned.c", doc! {"k": at}).await?;
    }
    let documents = numbered(0..500);
    source.plant("s0", "zoned.c", documents.clone()).await?;
    let job = Job::of_cluster(&source, "zoned").await?;
    let ferry = job.ferry.clone().set("MONGOFERRY_ZONES", "yes");
    let refused = ferry.run(&["step", "all"]).await.expect(2);
    assert!(refused.stderr.contains("zone low") && refused.stderr.contains("sh.addShardToZone"), "{refused:?}");
    job.cluster.add_to_zone("s2", "low").await?;
    ferry.run(&["step", "all"]).await.expect(0);
    assert!(job.arrived("zoned.c").await? == by_id(documents));
    for chunk in job.cluster.placement("zoned.c").await?.chunks {
        let is_low = chunk.max.get_i32("k").is_ok_and(|max| max <= 5_000);
        assert!(!is_low || chunk.shard == "s2", "{chunk:?}");
    }
    let tags = job.client().await?.database("config").collection::<Document>("tags");
    assert_eq!(tags.count_documents(doc! {"ns": "zoned.c", "tag": "low"}).await?, 1);
    Ok(())
}

#[tokio::test]
async fn a_collection_that_is_kept_must_be_sharded_alike_or_be_accepted_as_it_is() -> Result<(), Failure> {
    let source = Client::with_uri_str(shared_source().await?.uri()).await?.database("unlike");
    let documents = numbered(0..1_000);
    source.collection::<Document>("c").insert_many(&documents).await?;
    let job = Job::of_set("unlike").await?;
    let client = job.client().await?;
    let admin = client.database("admin");
    admin.run_command(doc! {"enableSharding": "unlike"}).await?;
    admin.run_command(doc! {"shardCollection": "unlike.c", "key": {"word": "hashed"}}).await?;
    let there = client.database("unlike").collection::<Document>("c");
    // On another shard, most likely, than the source's document with this `_id`.
    there.insert_many((0..10).map(|id| doc! {"_id": id, "word": format!("foreign{id}")})).await?;

    let ferry = job.ferry.clone().set("MONGOFERRY_EXISTING", "keep");
    job.shard_keys(&[("unlike.c", r#"'{"k": 1}'"#)])?;
    let refused = ferry.run(&["step", "all"]).await.expect(2);
    for part in ["unlike.c is sharded by {\"word\":\"hashed\"}", "{\"k\":1}", "--keep-sharding unlike.c"] {
        assert!(refused.stderr.contains(part), "{part}: {refused:?}");
    }
    let ferry = ferry.set("MONGOFERRY_KEEP_SHARDING", "unlike.c");
    let ran = ferry.run(&["step", "all"]).await.expect(4);
    assert!(ran.stderr.contains("10 findings"), "{ran:?}");
    let mut expected = by_id(documents);
    expected.extend(by_id((0..10).map(|id| doc! {"_id": id, "word": format!("foreign{id}")}).collect()));
    assert!(job.arrived("unlike.c").await? == expected);
    Ok(())
}

#[tokio::test]
async fn what_a_target_cannot_do_is_refused_before_anything_is_changed() -> Result<(), Failure> {
    let source = Client::with_uri_str(shared_source().await?.uri()).await?.database("unfitting");
    source.collection::<Document>("c").insert_one(doc! {"_id": 1, "k": 1}).await?;
    let job = Job::of_set("unfitting").await?;
    job.shard_keys(&[("unfitting.c", r#"'{"k": 1}'"#)])?;
    let with = |name: &str, value: &str| job.ferry.clone().set(name, value);
    let on_set = crate::support::servers::shared_target().await?.uri();
    for (ferry, parts) in [
        (with("MONGOFERRY_FENCE_WRITES", "yes"), ["--fence-writes", "mongos"]),
        (with("MONGOFERRY_READ_ORDER", "natural"), ["--read-order", "mongos"]),
        (with("MONGOFERRY_KEEP_UNSHARDED", "unfitting.d"), ["--keep-unsharded unfitting.d", "nothing that is copied"]),
        (with("MONGOFERRY_KEEP_SHARDING", "other"), ["--keep-sharding other", "nothing that is copied"]),
        (with("MONGOFERRY_TARGET", &on_set), ["[shard-keys]", "replica set"]),
        (with("MONGOFERRY_SOURCE", &job.cluster.shard_uri("s0")?), ["same deployment", "--target"]),
    ] {
        let refused = ferry.run(&["step", "all"]).await.expect(2);
        assert!(parts.iter().all(|part| refused.stderr.contains(part)), "{parts:?}: {refused:?}");
    }
    job.shard_keys(&[("unfitting.d", r#"'{"k": 1}'"#)])?;
    let refused = job.ferry.run(&["step", "all"]).await.expect(2);
    assert!(refused.stderr.contains("`unfitting.d` in [shard-keys]"), "{refused:?}");
    for (key, part) in
        [(r#"'{"k": 2}'"#, "must be 1"), (r#"'k'"#, "not JSON"), ("1", "write"), (r#"'{"k": ["x"]}'"#, "must be 1")]
    {
        job.shard_keys(&[("unfitting.c", key)])?;
        let refused = job.ferry.run(&["step", "all"]).await.expect(2);
        assert!(refused.stderr.contains(part) && refused.stderr.contains("unfitting.c"), "{part}: {refused:?}");
    }
    assert!(
        job.client()
            .await?
            .database("mongoferry")
            .collection::<Document>("jobs")
            .find_one(doc! {"namespaces": "unfitting.c"})
            .await?
            .is_none()
    );
    Ok(())
}
