//! `mongoferry check`, and the same rows in discover: what is found, what is refused, and that nothing is changed. Rights are
//! in `rights.rs`.

use std::time::Duration;

use mongodb::Client;
use mongodb::bson::{DateTime, Document, doc};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::cluster::shared_cluster;
use crate::support::ferry::{Ferry, Ran, files};
use crate::support::golden::compare_golden;
use crate::support::running::Running;
use crate::support::servers::{Failure, ReplicaSet, StartOptions, shared_source, shared_target};

/// The rows of one kind.
fn rows(ran: &Ran, check: &str) -> Vec<Value> {
    let table = ran.json();
    table["rows"].as_array().expect("rows").iter().filter(|row| row["check"] == check).cloned().collect()
}

/// Panics unless a row of this kind has this status and says all of this.
#[track_caller]
fn says(ran: &Ran, check: &str, status: &str, parts: &[&str]) {
    let rows = rows(ran, check);
    let is_it = |row: &&Value| row["status"] == status && parts.iter().all(|part| row.to_string().contains(part));
    assert!(rows.iter().any(|row| is_it(&row)), "{check} {status} {parts:?}: {rows:#?}");
}

#[tokio::test]
async fn a_check_has_the_documented_fields_and_changes_nothing() -> Result<(), Failure> {
    let (source, target) = tokio::try_join!(shared_source(), shared_target())?;
    let there = Client::with_uri_str(source.uri()).await?.database("checked");
    there.collection("c").insert_many((0..10).map(|n| doc! {"_id": n})).await?;
    let directory = tempfile::tempdir()?;
    let ferry =
        Ferry::new(directory.path(), &source.uri(), &target.uri(), "checked").set("MONGOFERRY_INCLUDE", "checked");
    let ran = ferry.run(&["check", "--json"]).await.expect(0);
    let mut table = ran.json();
    for row in table["rows"].as_array_mut().ok_or("rows")? {
        assert!(row["found"].as_str().is_some_and(|found| !found.is_empty()), "{row}");
        row["found"] = json!("…");
    }
    compare_golden("check.json", &table)?;
    let shown = ferry.run(&["check"]).await.expect(0).stdout;
    assert!(shown.lines().last().is_some_and(|line| line.ends_with(" ok")), "{shown}");

    let kept: Vec<_> = files(&directory.path().join("state")).into_iter().map(|(path, _)| path).collect();
    assert!(kept.len() == 1 && kept[0].ends_with("conditional-writes.probe"), "{kept:?}");
    let on_target = Client::with_uri_str(target.uri()).await?;
    assert!(!on_target.list_database_names().await?.contains(&"checked".to_owned()));
    assert_eq!(
        on_target
            .database("mongoferry")
            .collection::<Document>("jobs")
            .count_documents(doc! {"job": "checked"})
            .await?,
        0
    );

    // Once the job has begun, what it has made is not in its way.
    for step in ["discover", "plan", "prepare"] {
        ferry.run(&["step", step]).await.expect(0);
    }
    let ran = ferry.run(&["check", "--json"]).await.expect(0);
    says(&ran, "job", "ok", &["was discovered at"]);
    says(&ran, "target-contents", "ok", &["this job has begun"]);
    ferry.run(&["abandon", "--job", "checked"]).await.expect(0);
    says(&ferry.run(&["check", "--json"]).await.expect(2), "job", "refusal", &["abandoned"]);
    Ok(())
}

#[tokio::test]
async fn a_side_that_does_not_answer_leaves_the_rows_of_the_other() -> Result<(), Failure> {
    let (source, target) = tokio::try_join!(shared_source(), shared_target())?;
    let there = Client::with_uri_str(source.uri()).await?.database("half");
    there.collection("c").insert_one(doc! {"_id": 1}).await?;
    let directory = tempfile::tempdir()?;
    let nobody = "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=300";
    let ferry = |source: &str, target: &str| {
        Ferry::new(directory.path(), source, target, "half").set("MONGOFERRY_INCLUDE", "half")
    };
    let ran = ferry(&source.uri(), nobody).run(&["check", "--json"]).await.expect(2);
    says(&ran, "reached", "refusal", &["target cannot be reached", "check its connection string"]);
    says(&ran, "reached", "ok", &["\"about\":\"source\""]);
    says(&ran, "version", "ok", &["\"about\":\"source\"", "MongoDB 6"]);
    says(&ran, "target-contents", "not looked at", &["the target was not reached"]);
    assert!(ran.stderr.contains("1 of ") && ran.stderr.contains("checks refuse, the first: the target"), "{ran:?}");
    let ran = ferry(nobody, &target.uri()).run(&["check", "--json"]).await.expect(2);
    says(&ran, "version", "ok", &["\"about\":\"target\"", "MongoDB 6"]);
    says(&ran, "oplog-window", "not looked at", &["the source was not reached"]);
    let ran = ferry(nobody, nobody).run(&["check", "--json"]).await.expect(2);
    assert_eq!(rows(&ran, "reached").len(), 2, "{ran:?}");
    let ran = ferry(&source.uri(), &source.uri()).run(&["check", "--json"]).await.expect(2);
    says(&ran, "deployments", "refusal", &["same deployment", "correct --source or --target"]);
    let ran =
        ferry(&source.uri(), &target.uri()).set("MONGOFERRY_STATE", "/dev/null/x").run(&["check", "--json"]).await;
    says(&ran.clone().expect(2), "state-store", "refusal", &["/dev/null/x"]);
    says(&ran, "names", "ok", &[]);
    Ok(())
}

/// A source whose TTL monitor stands still, and an older target.
struct Odd {
    source: ReplicaSet,
    target: ReplicaSet,
    directory: TempDir,
}

impl Odd {
    async fn new(oplog_megabytes: &str, target: Option<&str>) -> Result<Self, Failure> {
        let extra_args = ["--setParameter", "ttlMonitorEnabled=false", "--oplogSize", oplog_megabytes];
        let extra_args = extra_args.map(str::to_owned).to_vec();
        let (source, target) = tokio::try_join!(
            ReplicaSet::start(StartOptions { name: "source".into(), extra_args, ..Default::default() }),
            ReplicaSet::start(StartOptions {
                name: "target".into(),
                version: target.map(str::to_owned),
                ..Default::default()
            })
        )?;
        Ok(Self { source, target, directory: tempfile::tempdir()? })
    }

    fn ferry(&self, job: &str) -> Ferry {
        Ferry::new(self.directory.path(), &self.source.uri(), &self.target.uri(), job).set("MONGOFERRY_INCLUDE", "odd")
    }
}

#[tokio::test]
async fn what_will_go_wrong_is_told_before_anything_is_changed() -> Result<(), Failure> {
    let odd = Odd::new("512", Some("4.4")).await?;
    let there = Client::with_uri_str(odd.source.uri()).await?.database("odd");
    there.collection("c").insert_many((0..100).map(|n| doc! {"_id": n, "n": n})).await?;
    there.run_command(doc! {"create": "clustered", "clusteredIndex": {"key": {"_id": 1}, "unique": true}}).await?;
    there.collection("old").insert_one(doc! {"_id": 1, "at": DateTime::from_millis(0)}).await?;
    let ttl = doc! {"name": "expires", "key": {"at": 1}, "expireAfterSeconds": 60};
    let partial = doc! {"name": "some", "key": {"n": 1}, "partialFilterExpression": {"$or": [{"n": 1}, {"n": 2}]}};
    there.run_command(doc! {"createIndexes": "old", "indexes": [ttl]}).await?;
    there.run_command(doc! {"createIndexes": "c", "indexes": [partial]}).await?;
    there.collection("deep").insert_one((0..120).fold(doc! {}, |inner, _| doc! {"d": inner})).await?;
    let on_target = Client::with_uri_str(odd.target.uri()).await?.database("odd");
    on_target.collection("c").insert_one(doc! {"_id": 1}).await?;

    let ferry = odd.ferry("odd").set("MONGOFERRY_MIN_OPLOG_WINDOW", "1000h");
    let ran = ferry.run(&["check", "--json", "--rename", "odd.old:odd.c"]).await.expect(2);
    says(&ran, "features", "refusal", &["odd.clustered has a clustered index (from 5.3 on)", "exclude them"]);
    says(&ran, "indexes", "warning", &["some of odd.c has a partial filter with $or or $in (from 6.0 on)"]);
    says(&ran, "version", "warning", &["the source behaves as MongoDB 6.0, the target as the older 4.4"]);
    says(&ran, "expiry", "warning", &["expires of odd.old"]);
    says(&ran, "documents", "warning", &["the deepest 121 levels (odd.deep)"]);
    says(&ran, "names", "refusal", &["odd.c, odd.old would all be copied to odd.c"]);
    says(&ran, "target-contents", "refusal", &["the target has odd.c", "--existing drop or keep"]);
    says(&ran, "oplog-window", "warning", &["--min-oplog-window is 41d 16h", "replSetResizeOplog"]);
    says(&ran, "space", "ok", &["are needed", "are free"]);
    says(&ran, "clock", "ok", &["\"about\":\"target\""]);
    says(&ran, "feature-compatibility", "ok", &["behaves as MongoDB 4.4"]);

    // Discover refuses the same, in the words of the first, and counts the others.
    let refused = ferry.run(&["step", "all"]).await.expect(2);
    let parts =
        ["odd.clustered has a clustered index", "exclude them", "(and 1 more refusals: `mongoferry check --job odd`"];
    assert!(parts.iter().all(|part| refused.stderr.contains(part)), "{refused:?}");
    assert!(!odd.directory.path().join("state/odd/job.json").exists());

    // What it warns of is a note, and nothing else stands in the way.
    let ferry = ferry.set("MONGOFERRY_EXCLUDE", "odd.clustered").set("MONGOFERRY_EXISTING", "drop");
    ferry.run(&["step", "discover"]).await.expect(0);
    let notes = ferry.status().await.ok_or("status")?["notes"].to_string();
    for part in ["partial filter", "older 4.4", "expires of odd.old", "--min-oplog-window"] {
        assert!(notes.contains(part), "{part}: {notes}");
    }
    Ok(())
}

#[tokio::test]
async fn a_cluster_is_looked_at_as_a_whole() -> Result<(), Failure> {
    let (cluster, target) = tokio::try_join!(shared_cluster(), shared_target())?;
    cluster.create_database("looked", "s0").await?;
    cluster.shard_collection("looked.c", doc! {"k": 1}, doc! {}).await?;
    cluster.split("looked.c", doc! {"k": 0}).await?;
    cluster.plant("s0", "looked.c", (-5..5).map(|k| doc! {"_id": k, "k": k})).await?;
    let directory = tempfile::tempdir()?;
    let ferry = Ferry::new(directory.path(), "", &target.uri(), "looked")
        .of_shards(&cluster.shard_uris(), &cluster.config_uri())
        .set("MONGOFERRY_INCLUDE", "looked");
    let ran = ferry.run(&["check", "--json"]).await.expect(0);
    says(&ran, "topology", "ok", &["a sharded cluster of 2 shards, which are read directly"]);
    says(&ran, "reached", "ok", &["\"about\":\"shard s1\""]);
    says(&ran, "balancer", "ok", &["off, and nothing moves"]);
    says(&ran, "right", "ok", &["\"about\":\"shard s0\"", "admin.system.version"]);
    says(&ran, "oplog-window", "ok", &["\"about\":\"shard rs0\""]);
    Ok(())
}

#[tokio::test]
async fn a_copy_warns_of_an_oplog_that_shrinks_and_stops_when_it_no_longer_reaches_back() -> Result<(), Failure> {
    let odd = Odd::new("16", None).await?;
    let client = Client::with_uri_str(odd.source.uri()).await?;
    client
        .database("odd")
        .collection("c")
        .insert_many((0..2_000).map(|n| doc! {"_id": n, "t": "t".repeat(1_000)}))
        .await?;
    let ferry =
        odd.ferry("shrinking").set("MONGOFERRY_SAVE_INTERVAL", "40ms").set("MONGOFERRY_MIN_OPLOG_WINDOW", "1000h");
    for step in ["discover", "plan", "prepare"] {
        ferry.run(&["step", step]).await.expect(0);
    }
    let copy = Running::start(&ferry, &["step", "copy", "--max-bytes-per-second", "20KB"])?;
    let window = async || Some(ferry.status().await?["oplog"]["source"].clone());
    let is_looked_at = async {
        while window().await.is_none_or(|oplog| !oplog["seconds_left"].is_u64()) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), is_looked_at).await?;
    let text = ferry.run(&["status"]).await.expect(0).stdout;
    assert!(text.contains("oplog of source: ") && text.contains(" behind the checkpoint"), "{text}");

    // More than the oplog holds, until the copy ends by itself.
    let filling = async {
        for round in 0_i64.. {
            let more = (0..16).map(|n| doc! {"round": round, "n": n, "t": "x".repeat(1 << 20)});
            client.database("filler").collection("c").insert_many(more).await?;
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        Ok::<(), Failure>(())
    };
    let ran = tokio::select! {
        ran = copy.ended_within(Duration::from_secs(90)) => ran?,
        filled = filling => return filled,
    };
    let parts =
        ["until it no longer reaches back to the checkpoint; enlarge it", "going on is of no use", "another --job"];
    assert!(ran.code == Some(1) && parts.iter().all(|part| ran.stderr.contains(part)), "{ran:?}");
    assert!(window().await.ok_or("status")?["seconds_left"].is_null());
    let text = ferry.run(&["status"]).await.expect(0).stdout;
    assert!(text.contains("oplog of source: no longer reaches back to the checkpoint"), "{text}");
    // Whoever goes on is told at once.
    let again = ferry.run(&["step", "copy"]).await.expect(1);
    assert!(again.stderr.contains("going on is of no use"), "{again:?}");
    Ok(())
}
