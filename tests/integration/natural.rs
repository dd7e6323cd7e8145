//! Copies in the order of the disk: killed, gone back, begun by `_id`, and through elections.

use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::TryStreamExt;
use mongodb::Client;
use mongodb::bson::{Bson, Document, doc};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::compare::{Scope, compare};
use crate::support::data;
use crate::support::ferry::Ferry;
use crate::support::running::Running;
use crate::support::servers::{Failure, ReplicaSet, StartOptions, shared_target};

/// Far more than anything here takes: only a hang reaches it.
const AT_MOST: Duration = Duration::from_secs(120);

/// How many documents are copied: enough that a copy can be caught in the middle.
const COUNT: u64 = 120_000;

/// A source of its own, and a job that copies its one collection in the order of the disk.
struct Job {
    source: ReplicaSet,
    on_source: Client,
    on_target: Client,
    ferry: Ferry,
    database: String,
    directory: TempDir,
}

impl Job {
    async fn new(name: &str, members: usize) -> Result<Self, Failure> {
        let options = StartOptions { members, name: format!("natural_{name}"), ..Default::default() };
        let (source, target) = (ReplicaSet::start(options).await?, shared_target().await?);
        let database = format!("natural_{name}");
        let on_source = Client::with_uri_str(source.uri()).await?;
        data::load(&on_source, &database, "large", COUNT).await?;
        let directory = tempfile::tempdir()?;
        let ferry = Ferry::new(directory.path(), &source.uri(), &target.uri(), name)
            .set("MONGOFERRY_INCLUDE", &database)
            .set("MONGOFERRY_CHECKPOINT_NAMESPACE", format!("mongoshake.{database}"))
            .set("MONGOFERRY_READ_ORDER", "natural")
            // Little is read ahead of what is written: what happens to the source happens to a scan.
            .set("MONGOFERRY_MEMORY", "32MiB")
            .set("MONGOFERRY_SAVE_INTERVAL", "20ms");
        let on_target = Client::with_uri_str(target.uri()).await?;
        Ok(Self { source, on_source, on_target, ferry, database, directory })
    }

    /// Runs it until it has copied a part, and kills it.
    async fn kill_on_the_way(&self) -> Result<(), Failure> {
        let mut run = Running::start(&self.ferry, &["step", "all"])?;
        let written = run.has_written(&self.ferry, COUNT / 8).await?;
        run.signal(Signal::KILL)?;
        run.ended_within(AT_MOST).await?;
        if written > COUNT * 3 / 4 {
            return Err(format!("{written} documents were copied; the test needs more").into());
        }
        Ok(())
    }

    async fn finish(&self) -> Result<(), Failure> {
        Running::start(&self.ferry, &["step", "all"])?.ended_within(AT_MOST).await?.expect(0);
        Ok(())
    }

    /// The lane's progress.
    fn progress(&self) -> Result<Value, Failure> {
        let lanes = self.directory.path().join("state").join(self.job()).join("lanes");
        let lane: PathBuf = std::fs::read_dir(lanes)?.next().ok_or("no lane")??.path().join("lane.json");
        let mut lane: Value = serde_json::from_slice(&std::fs::read(lane)?)?;
        Ok(lane["progress"].take())
    }

    fn job(&self) -> &Path {
        Path::new(self.database.trim_start_matches("natural_"))
    }

    /// The number of the record behind which the one open partition goes on.
    fn record(&self) -> Result<i64, Failure> {
        let progress = self.progress()?;
        let token = progress["open"]["0"]["position"]["record"]["token"].as_str().ok_or("no token")?;
        let token: Document = mongodb::bson::deserialize_from_slice(&STANDARD.decode(token)?)?;
        Ok(token.get_i64("$recordId")?)
    }

    /// How often the partition went back, once it is finished.
    fn attempts(&self) -> Result<u64, Failure> {
        Ok(self.progress()?["finished"][0]["attempt"].as_u64().unwrap_or(0))
    }

    /// The `_id`s of records with these numbers on the source.
    async fn ids(&self, records: std::ops::RangeInclusive<i64>) -> Result<Vec<Bson>, Failure> {
        let collection = self.on_source.database(&self.database).collection::<Document>("large");
        let mut all = collection.find(doc! {}).projection(doc! {"_id": 1}).show_record_id(true).await?;
        let mut ids = Vec::new();
        while let Some(mut document) = all.try_next().await? {
            if records.contains(&document.get_i64("$recordId")?) {
                ids.push(document.remove("_id").ok_or("no _id")?);
            }
        }
        Ok(ids)
    }

    async fn delete(&self, ids: Vec<Bson>) -> Result<(), Failure> {
        let collection = self.on_source.database(&self.database).collection::<Document>("large");
        let filter = doc! {"_id": {"$in": ids}};
        let concern = mongodb::options::WriteConcern::majority();
        collection.delete_many(filter).write_concern(concern).await?;
        Ok(())
    }

    async fn assert_equal(&self, documents: u64) -> Result<(), Failure> {
        let scope = Scope { only_databases: vec![self.database.clone()], ..Default::default() };
        let outcome = compare(&self.on_source, &self.on_target, &scope).await?;
        assert!(outcome.is_equal(), "{outcome}");
        assert_eq!(outcome.documents, documents);
        let status = self.ferry.status().await.ok_or("no status")?;
        assert_eq!(
            (&status["status"], &status["documents"]["written"]),
            (&"done".into(), &documents.into()),
            "{status}"
        );
        Ok(())
    }
}

#[tokio::test]
async fn a_copy_that_is_killed_goes_on_behind_its_record() -> Result<(), Failure> {
    let job = Job::new("killed", 1).await?;
    job.kill_on_the_way().await?;
    assert!(job.record()? > 0);
    job.finish().await?;
    assert_eq!(job.attempts()?, 0);
    job.assert_equal(COUNT).await
}

#[tokio::test]
async fn a_record_that_was_deleted_makes_it_go_on_behind_an_earlier_one() -> Result<(), Failure> {
    let job = Job::new("deleted", 1).await?;
    job.kill_on_the_way().await?;
    let record = job.record()?;
    job.delete(job.ids(record..=record).await?).await?;
    job.finish().await?;
    // The document was counted before and is on the target, so in the end there is one too many: that is found, too.
    assert_eq!(job.attempts()?, 2);
    job.assert_equal(COUNT - 1).await
}

#[tokio::test]
async fn what_was_sent_and_deleted_on_the_source_since_is_found_in_the_end() -> Result<(), Failure> {
    let job = Job::new("unread", 1).await?;
    job.kill_on_the_way().await?;
    let record = job.record()?;
    // The killed run may have sent these; whether it has or not, one of them is put there.
    let ids = job.ids(record + 1..=record + 10).await?;
    let collection = job.on_target.database(&job.database).collection::<Document>("large");
    let sent = job.on_source.database(&job.database).collection::<Document>("large");
    let one = sent.find_one(doc! {"_id": ids[0].clone()}).await?.ok_or("not there")?;
    collection.replace_one(doc! {"_id": ids[0].clone()}, one).upsert(true).await?;
    job.delete(ids).await?;
    job.finish().await?;
    assert_eq!(job.attempts()?, 1);
    job.assert_equal(COUNT - 10).await
}

#[tokio::test]
async fn where_the_node_was_synced_anew_it_begins_by_id_and_writes_only_what_differs() -> Result<(), Failure> {
    let job = Job::new("resynced", 1).await?;
    job.kill_on_the_way().await?;
    // What is not replicated takes no retryable writes.
    let local = Client::with_uri_str(format!("{}&retryWrites=false", job.source.uri())).await?.database("local");
    let ids = local.collection::<Document>("replset.initialSyncId");
    ids.delete_many(doc! {}).await?;
    ids.insert_one(doc! {"_id": mongodb::bson::uuid::Uuid::new()}).await?;
    job.finish().await?;
    assert_eq!(job.attempts()?, 1);
    let status = job.ferry.status().await.ok_or("no status")?;
    let replayed = status["documents"]["replayed"].as_u64().ok_or("no count")?;
    assert!(replayed >= COUNT / 8, "{replayed} documents were recognised: {status}");
    job.assert_equal(COUNT).await
}

#[tokio::test]
async fn after_a_step_down_it_goes_on_reading_the_same_node() -> Result<(), Failure> {
    let job = Job::new("stepdown", 3).await?;
    let primary = job.source.primary().await?;
    let mut run = Running::start(&job.ferry, &["step", "all"])?;
    run.has_written(&job.ferry, COUNT / 8).await?;
    let client = Client::with_uri_str(job.source.member_uri(primary)).await?;
    client.database("admin").run_command(doc! {"replSetStepDown": 60, "force": true}).await?;
    // Its cursors die, and are opened again on the same node, which is a secondary by now.
    let sessions = client.database("admin").run_command(doc! {"killAllSessions": []}).await;
    let written = run.has_written(&job.ferry, 1).await?;
    assert!(written < COUNT * 3 / 4, "{written} documents were copied before: nothing is tested");
    sessions?;
    run.ended_within(AT_MOST).await?.expect(0);
    assert_eq!(job.attempts()?, 0);
    job.assert_equal(COUNT).await
}

#[tokio::test]
async fn when_the_node_dies_it_goes_on_by_id() -> Result<(), Failure> {
    let mut job = Job::new("dies", 3).await?;
    let primary = job.source.primary().await?;
    let mut run = Running::start(&job.ferry, &["step", "all"])?;
    run.has_written(&job.ferry, COUNT / 8).await?;
    job.source.kill(primary)?;
    let written = run.has_written(&job.ferry, 1).await?;
    assert!(written < COUNT * 3 / 4, "{written} documents were copied before: nothing is tested");
    run.ended_within(AT_MOST).await?.expect(0);
    assert_eq!(job.attempts()?, 1);
    job.assert_equal(COUNT).await
}
