//! `--stop-balancer`: the balancer of a source is off for the time of the job, and set to what it was before at its end,
//! whatever happens in between. The balancer is the whole cluster's, so each test has a cluster of its own.

use std::path::Path;
use std::time::Duration;

use mongodb::Client;
use mongodb::bson::{Document, doc};
use mongoferry::connection_string::ConnectionString;
use mongoferry::error::Kind;
use mongoferry::mongo::deployment::Deployment;
use mongoferry::mongo::failure::Side;
use mongoferry::mongo::{Comment, balancer};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::cluster::{Cluster, ClusterOptions};
use crate::support::ferry::{Ferry, Ran};
use crate::support::running::Running;
use crate::support::servers::{Failure, shared_target};

/// Far more than anything here takes: only a hang reaches it.
const AT_MOST: Duration = Duration::from_secs(120);

/// A cluster, and jobs that copy its one collection.
struct Place {
    cluster: Cluster,
    database: &'static str,
    target: String,
    directory: TempDir,
}

impl Place {
    async fn new(database: &'static str, options: ClusterOptions) -> Result<Self, Failure> {
        let cluster = Cluster::start(options).await?;
        cluster.create_database(database, "s0").await?;
        let namespace = format!("{database}.c");
        cluster.shard_collection(&namespace, doc! {"k": 1}, doc! {}).await?;
        cluster.split(&namespace, doc! {"k": 0}).await?;
        cluster.plant("s0", &namespace, (-5..5).map(|k| doc! {"_id": k, "k": k})).await?;
        let target = shared_target().await?.uri();
        Ok(Self { cluster, database, target, directory: tempfile::tempdir()? })
    }

    /// A job of this name, which stops the balancer. What it copies is named after it.
    fn job(&self, job: &str) -> Ferry {
        Ferry::new(self.directory.path(), "", &self.target, job)
            .of_shards(&self.cluster.shard_uris(), &self.cluster.config_uri())
            .set("MONGOFERRY_INCLUDE", self.database)
            .set("MONGOFERRY_RENAME", format!("{}:{}_{job}", self.database, self.database))
            .set("MONGOFERRY_CHECKPOINT_NAMESPACE", format!("mongoshake.{}_{job}", self.database))
            .set("MONGOFERRY_STOP_BALANCER", "yes")
    }

    async fn settings(&self) -> Result<mongodb::Collection<Document>, Failure> {
        Ok(self.cluster.config_client().await?.database("config").collection("settings"))
    }

    /// What the balancer is set to, to the letter.
    async fn balancer(&self) -> Result<Vec<Document>, Failure> {
        let mut found = Vec::new();
        for id in ["balancer", "autosplit"] {
            found.extend(self.settings().await?.find_one(doc! {"_id": id}).await?);
        }
        Ok(found)
    }

    /// Sets the balancer to what no command would leave behind, so that a test sees whether it is put back to the letter.
    async fn set(&self, mut balancer: Document) -> Result<Vec<Document>, Failure> {
        balancer.insert("_id", "balancer");
        self.settings().await?.replace_one(doc! {"_id": "balancer"}, balancer).upsert(true).await?;
        self.balancer().await
    }

    async fn is_off(&self) -> Result<bool, Failure> {
        let balancer = self.settings().await?.find_one(doc! {"_id": "balancer"}).await?.ok_or("no settings")?;
        Ok(balancer.get_bool("stopped").unwrap_or(false) && balancer.get_str("mode").is_ok_and(|mode| mode == "off"))
    }

    fn record(&self, job: &str) -> Result<Value, Failure> {
        let path: &Path = self.directory.path();
        Ok(serde_json::from_slice(&std::fs::read(path.join("state").join(job).join("balancer.json"))?)?)
    }

    async fn arrived(&self, job: &str) -> Result<u64, Failure> {
        let target = Client::with_uri_str(&self.target).await?;
        let database = target.database(&format!("{}_{job}", self.database));
        Ok(database.collection::<Document>("c").count_documents(doc! {}).await?)
    }
}

/// A document as on a cluster whose balancer nobody ever touched: the balancer is on, and a window is set.
fn untouched() -> Document {
    doc! {"activeWindow": {"start": "23:00", "stop": "6:00"}}
}

#[tokio::test]
async fn the_balancer_is_off_for_the_job_and_then_what_it_was() -> Result<(), Failure> {
    let place = Place::new("balanced", ClusterOptions::default()).await?;
    for (job, found) in [("untouched", untouched()), ("started", doc! {"mode": "full", "stopped": false})] {
        let before = place.set(found).await?;
        let ferry = place.job(job);
        for step in ["discover", "plan", "prepare", "copy", "index", "verify"] {
            ferry.run(&["step", step]).await.expect(0);
            assert!(place.is_off().await?, "{job}: after {step}");
        }
        assert!(place.record(job)?["restored"].is_null());
        // The job knows by itself that it has something to put back.
        ferry.unset("MONGOFERRY_STOP_BALANCER").run(&["step", "commit"]).await.expect(0);
        assert_eq!(place.balancer().await?, before, "{job}");
        assert!(place.record(job)?["restored"].is_string());
        assert_eq!(place.arrived(job).await?, 10);
    }

    place.cluster.set_balancer(false).await?;
    let before = place.balancer().await?;
    place.job("off").run(&["step", "all"]).await.expect(0);
    assert_eq!(place.balancer().await?, before);
    let record = place.record("off")?;
    assert_eq!((&record["found"]["stopped"], &record["restored"]), (&Value::Bool(true), &Value::Null));

    place.cluster.set_balancer(true).await?;
    let refused = place.job("unsaid").unset("MONGOFERRY_STOP_BALANCER").run(&["step", "all"]).await.expect(2);
    assert!(
        refused.stderr.contains("sh.stopBalancer()") && refused.stderr.contains("--stop-balancer yes"),
        "{refused:?}"
    );
    assert!(place.record("unsaid").is_err() && !place.is_off().await?);
    Ok(())
}

/// The steps before one.
fn before(step: &str) -> impl Iterator<Item = &'static str> + use<'_> {
    let all = ["discover", "plan", "prepare", "copy", "index", "verify", "commit"];
    all.into_iter().take_while(move |before| *before != step)
}

/// Every point of the two steps that stop it and start it: before and after the record, the act, and what follows.
#[tokio::test]
async fn after_a_crash_anywhere_the_resumed_job_leaves_the_balancer_on() -> Result<(), Failure> {
    let place = Place::new("crashed", ClusterOptions::default()).await?;
    let as_found = place.set(untouched()).await?;
    let mut crashes = 0;
    for (step, act) in [("discover", "stop-balancer"), ("commit", "start-balancer")] {
        let ferry = place.job(&format!("first_{step}"));
        for step in before(step) {
            ferry.run(&["step", step]).await.expect(0);
        }
        let log = place.directory.path().join(step);
        ferry.clone().set("MONGOFERRY_CRASH_LOG", log.to_string_lossy()).run(&["step", step]).await.expect(0);
        ferry.run(&["step", "all"]).await.expect(0);
        let points = std::fs::read_to_string(log)?;
        let acted =
            points.lines().position(|point| point.ends_with(&format!("after {act}"))).ok_or("nothing was done")?;
        for (at, point) in points.lines().enumerate() {
            let job = format!("{step}{at}");
            let ferry = place.job(&job);
            for step in before(step) {
                ferry.run(&["step", step]).await.expect(0);
            }
            let crashing = ferry.clone().set("MONGOFERRY_CRASH_AT", (at + 1).to_string());
            let killed = crashing.run(&["step", step]).await;
            assert_eq!(killed.code, None, "{step}: {point}: {}", killed.stderr);
            assert_eq!(place.is_off().await?, (at >= acted) == (step == "discover"), "{step}: {point}");
            ferry.run(&["step", "all"]).await.expect(0);
            assert_eq!(place.balancer().await?, as_found, "{step}: {point}");
            assert!(place.record(&job)?["restored"].is_string(), "{step}: {point}");
            assert_eq!(place.arrived(&job).await?, 10, "{step}: {point}");
            crashes += 1;
        }
    }
    println!("{crashes} crashes");
    Ok(())
}

#[tokio::test]
async fn an_abandoned_job_leaves_the_balancer_on() -> Result<(), Failure> {
    let place = Place::new("abandoned", ClusterOptions::default()).await?;
    let before = place.set(untouched()).await?;
    let ferry = place.job("copied");
    for step in ["discover", "plan", "prepare", "copy"] {
        ferry.run(&["step", step]).await.expect(0);
    }
    assert!(place.is_off().await?);
    let unnamed = ferry.clone().unset("MONGOFERRY_SOURCE_SHARD").unset("MONGOFERRY_SOURCE_CONFIG");
    let refused = unnamed.run(&["abandon"]).await.expect(2);
    assert!(refused.stderr.contains("--source-config"), "{refused:?}");
    assert_eq!(ferry.status().await.ok_or("no status")?["status"], "stopped");
    assert!(place.is_off().await?);
    unnamed.run(&["abandon", "--source-config", &place.cluster.config_uri()]).await.expect(0);
    assert_eq!(place.balancer().await?, before);
    assert!(place.record("copied")?["restored"].is_string());

    // Config servers that cannot be reached keep nothing else from being done.
    let ferry = place.job("lost");
    ferry.run(&["step", "discover"]).await.expect(0);
    let lost = ferry.clone().unset("MONGOFERRY_SOURCE_SHARD");
    let lost = lost.set("MONGOFERRY_SOURCE_CONFIG", "mongodb://127.0.0.1:1/?replicaSet=x&serverSelectionTimeoutMS=500");
    let failed = lost.run(&["abandon"]).await.expect(1);
    assert!(failed.stderr.contains("sh.startBalancer()"), "{failed:?}");
    assert_eq!(ferry.status().await.ok_or("no status")?["status"], "abandoned");
    assert!(place.is_off().await?);
    ferry.run(&["abandon"]).await.expect(0);
    assert_eq!(place.balancer().await?, before);
    Ok(())
}

#[tokio::test]
async fn a_discover_that_is_refused_has_changed_nothing() -> Result<(), Failure> {
    let place = Place::new("nothing", ClusterOptions::default()).await?;
    let before = place.set(untouched()).await?;
    let ferry = place.job("job");
    let wrong = ferry.clone().set("MONGOFERRY_INCLUDE", "nowhere").unset("MONGOFERRY_RENAME");
    let refused = wrong.run(&["step", "all"]).await.expect(2);
    assert!(refused.stderr.contains("nowhere"), "{refused:?}");
    assert_eq!(place.balancer().await?, before);
    // What an earlier run put back is no reason not to put it back again.
    ferry.run(&["step", "discover"]).await.expect(0);
    assert!(place.is_off().await? && place.record("job")?["restored"].is_null());
    ferry.run(&["step", "all"]).await.expect(0);
    assert_eq!(place.balancer().await?, before);
    Ok(())
}

#[tokio::test]
async fn a_user_without_the_right_is_told_what_to_run() -> Result<(), Failure> {
    let options = ClusterOptions { auth: true, ..Default::default() };
    let place = Place::new("unprivileged", options).await?;
    let reader = ["readAnyDatabase", "clusterMonitor"].map(|role| doc! {"role": role, "db": "admin"});
    let identity = [doc! {"role": "identity", "db": "admin"}];
    let reader = [&reader[..], &["config", "local"].map(|db| doc! {"role": "read", "db": db}), &identity].concat();
    let manager = [&reader[..], &[doc! {"role": "clusterManager", "db": "admin"}]].concat();
    let config = place.cluster.config_uri();
    let mut sets = place.cluster.shard_uris();
    sets.push(config.clone());
    for uri in &sets {
        let admin = Client::with_uri_str(uri).await?.database("admin");
        let version = doc! {"db": "admin", "collection": "system.version"};
        let privileges = [doc! {"resource": version, "actions": ["find"]}];
        admin.run_command(doc! {"createRole": "identity", "privileges": privileges, "roles": []}).await?;
        for (user, roles) in [("reader", &reader), ("manager", &manager)] {
            let create =
                doc! {"createUser": user, "pwd": "p", "roles": roles.clone(), "writeConcern": {"w": "majority"}};
            admin.run_command(create).await?;
        }
    }
    let of = |user: &str, uri: &str| -> Result<String, Failure> {
        Ok(format!("mongodb://{user}:p{}", &uri[uri.find('@').ok_or("no user")?..]))
    };
    let job = |name: &str, user: &str| -> Result<Ferry, Failure> {
        let shards: Result<Vec<String>, Failure> = place.cluster.shard_uris().iter().map(|uri| of(user, uri)).collect();
        Ok(place.job(name).of_shards(&shards?, &of(user, &config)?))
    };
    let before = place.set(untouched()).await?;
    let ferry = job("job", "reader")?;
    let refused = ferry.run(&["step", "all"]).await.expect(2);
    let parts = ["lacks a right", "sh.stopBalancer()", "clusterManager", "as it was"];
    assert!(parts.iter().all(|part| refused.stderr.contains(part)), "{refused:?}");
    assert_eq!(place.balancer().await?, before);
    // Stopped by hand: this job has nothing to put back.
    place.cluster.set_balancer(false).await?;
    ferry.unset("MONGOFERRY_STOP_BALANCER").run(&["step", "all"]).await.expect(0);
    assert!(place.is_off().await?);

    // The right is lost before the end: the job is committed once, and done when the balancer is on.
    let before = place.set(untouched()).await?;
    for step in ["discover", "plan", "prepare", "copy", "index", "verify"] {
        job("later", "manager")?.run(&["step", step]).await.expect(0);
    }
    let checkpoints = Client::with_uri_str(&place.target).await?.database("mongoshake");
    let checkpoints = checkpoints.collection::<Document>("unprivileged_later");
    let failed: Ran = job("later", "reader")?.run(&["step", "commit"]).await.expect(1);
    assert!(failed.stderr.contains("sh.startBalancer()") && place.is_off().await?, "{failed:?}");
    assert_eq!(checkpoints.count_documents(doc! {}).await?, 2);
    let refused = job("later", "manager")?.run(&["abandon"]).await.expect(2);
    assert!(refused.stderr.contains("committed"), "{refused:?}");
    // A stream has begun meanwhile, and moved the checkpoint.
    checkpoints.update_many(doc! {}, doc! {"$set": {"ckpt": 7_i64}}).await?;
    job("later", "manager")?.run(&["step", "commit"]).await.expect(0);
    assert_eq!(place.balancer().await?, before);
    assert_eq!(checkpoints.count_documents(doc! {"ckpt": 7_i64}).await?, 2);
    Ok(())
}

#[tokio::test]
async fn a_balancer_that_somebody_starts_and_a_chunk_that_moves_meanwhile_are_noticed() -> Result<(), Failure> {
    let place = Place::new("meddled", ClusterOptions::default()).await?;
    place.set(untouched()).await?;
    let ferry = place.job("job");
    for step in ["discover", "plan", "prepare", "copy", "index"] {
        ferry.run(&["step", step]).await.expect(0);
    }
    place.cluster.set_balancer(true).await?;
    let refused = ferry.run(&["step", "verify"]).await.expect(2);
    let parts = ["somebody has started the balancer again", "sh.stopBalancer()"];
    assert!(parts.iter().all(|part| refused.stderr.contains(part)), "{refused:?}");
    place.cluster.set_balancer(false).await?;
    ferry.run(&["step", "verify"]).await.expect(0);
    place.cluster.set_balancer(true).await?;
    let refused = ferry.run(&["step", "commit"]).await.expect(1);
    assert!(parts.iter().all(|part| refused.stderr.contains(part)), "{refused:?}");
    place.cluster.set_balancer(false).await?;
    place.cluster.move_there_and_back("meddled.c", doc! {"k": 0}, "s1").await?;
    let noticed = ferry.run(&["step", "commit"]).await.expect(1);
    assert!(noticed.stderr.contains("meddled.c") && noticed.stderr.contains("became"), "{noticed:?}");
    assert!(place.is_off().await?);
    ferry.run(&["abandon"]).await.expect(0);
    assert!(!place.is_off().await?);
    Ok(())
}

/// Such a migration is in no collection of the config servers of 6.0, only in one of the shard that gives the chunk.
#[tokio::test]
async fn a_migration_that_goes_on_is_waited_for() -> Result<(), Failure> {
    let place = Place::new("migrating", ClusterOptions { test_commands: true, ..Default::default() }).await?;
    let before = place.set(untouched()).await?;
    let donor = place.cluster.shard_client("s0").await?;
    let hang = async |mode: &str| {
        let hang = doc! {"configureFailPoint": "moveChunkHangAtStep3", "mode": mode};
        donor.database("admin").run_command(hang).await
    };
    hang("alwaysOn").await?;
    let moved = place.cluster.move_chunk("migrating.c", doc! {"k": 0}, "s1");
    let watched = async {
        while donor
            .database("config")
            .collection::<Document>("migrationCoordinators")
            .find_one(doc! {})
            .await?
            .is_none()
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let uri = ConnectionString::parse(&place.cluster.config_uri())?;
        let config = Deployment::connect(Side::Source, &uri, None, "test", Comment("test".to_owned())).await?;
        let uri = ConnectionString::parse(&place.cluster.shard_uri("s0")?)?;
        let shard = Deployment::connect(Side::Source, &uri, None, "test", Comment("test".to_owned())).await?;
        // Without the flag it is refused.
        place.cluster.set_balancer(false).await?;
        let unsaid = place.job("unsaid").unset("MONGOFERRY_STOP_BALANCER");
        let refused = unsaid.run(&["step", "discover"]).await.expect(2);
        assert!(refused.stderr.contains("migrating.c from s0 to s1"), "{refused:?}");
        let error = balancer::until_still(&config, &[&shard], &|_| true, Duration::from_millis(600))
            .await
            .err()
            .ok_or("still")?;
        assert_eq!(error.kind(), Kind::SourceUnavailable);
        assert!(error.to_string().contains("migrating.c from s0 to s1"), "{error}");

        place.set(untouched()).await?;
        let ferry = place.job("job");
        let yielded = ferry.clone().set("MONGOFERRY_TIME_BUDGET", "1s").run(&["step", "discover"]).await;
        yielded.expect(75);
        assert!(place.is_off().await? && place.record("job")?["restored"].is_null());
        let mut running = Running::start(&ferry, &["step", "all"])?;
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert!(!running.has_ended()?);
        hang("off").await?;
        running.ended_within(AT_MOST).await?.expect(0);
        Ok::<(), Failure>(())
    };
    tokio::try_join!(moved, watched)?;
    assert_eq!(place.balancer().await?, before);
    assert_eq!(place.arrived("job").await?, 10);
    Ok(())
}

/// Before 6.0.3 chunks are split by themselves as well, which changes the chunk map.
#[tokio::test]
async fn splitting_is_stopped_where_chunks_are_split_by_themselves() -> Result<(), Failure> {
    let place =
        Place::new("splitting", ClusterOptions { version: Some("4.4.2".to_owned()), ..Default::default() }).await?;
    place.set(untouched()).await?;
    let splits = place.settings().await?;
    for enabled in [None, Some(true), Some(false)] {
        splits.delete_one(doc! {"_id": "autosplit"}).await?;
        if let Some(enabled) = enabled {
            splits.insert_one(doc! {"_id": "autosplit", "enabled": enabled}).await?;
        }
        let ferry = place.job(&format!("job_{enabled:?}").replace(['(', ')'], ""));
        ferry.run(&["step", "discover"]).await.expect(0);
        let autosplit = splits.find_one(doc! {"_id": "autosplit"}).await?.ok_or("nothing is set")?;
        assert_eq!(autosplit, doc! {"_id": "autosplit", "enabled": false}, "{enabled:?}");
        assert!(place.is_off().await?);
        ferry.run(&["step", "all"]).await.expect(0);
        assert!(!place.is_off().await?);
        let autosplit = splits.find_one(doc! {"_id": "autosplit"}).await?.ok_or("nothing is set")?;
        assert_eq!(autosplit.get_bool("enabled").ok(), enabled, "{enabled:?}");
    }
    Ok(())
}
