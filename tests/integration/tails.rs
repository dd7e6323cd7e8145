//! Tails of lanes: a worker that is done takes what another one has not begun, and what is left when either of them is
//! killed or frozen there.

use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use mongodb::Client;
use mongodb::bson::doc;
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::compare::{Scope, compare};
use crate::support::data;
use crate::support::ferry::Ferry;
use crate::support::running::Running;
use crate::support::servers::{Failure, shared_source, shared_target};

/// Far more than anything here takes: only a hang reaches it.
const AT_MOST: Duration = Duration::from_secs(90);

const DATABASE: &str = "tails_data";

/// About 300 partitions of 16 KiB, of which 64 are begun at once.
const DOCUMENTS: u64 = 20_000;

/// Slow enough that a lane is caught in its first partitions however busy the machine is.
const SLOW: &str = "500";

/// A job of two lanes, of which the second one is done.
struct Job {
    ferry: Ferry,
    name: String,
    source: Client,
    target: Client,
    _directory: TempDir,
}

impl Job {
    async fn new(name: &str, lanes: &str) -> Result<Self, Failure> {
        let (source, target) = tokio::try_join!(shared_source(), shared_target())?;
        let client = Client::with_uri_str(source.uri()).await?;
        static LOADED: tokio::sync::OnceCell<()> = tokio::sync::OnceCell::const_new();
        LOADED.get_or_try_init(|| data::load(&client, DATABASE, "large", DOCUMENTS)).await?;
        let directory = tempfile::tempdir()?;
        let name = format!("tails_{name}");
        let ferry = Ferry::new(directory.path(), &source.uri(), &target.uri(), &name)
            .set("MONGOFERRY_INCLUDE", DATABASE)
            .set("MONGOFERRY_RENAME", format!("{DATABASE}:{name}"))
            .set("MONGOFERRY_CHECKPOINT_NAMESPACE", format!("mongoshake.{name}"))
            .set("MONGOFERRY_SAVE_INTERVAL", "50ms")
            .set("MONGOFERRY_LANES_PER_SHARD", lanes)
            .set("MONGOFERRY_PARTITION_SIZE", "16KiB")
            .set("MONGOFERRY_READ_ORDER", "id")
            .set("MONGOFERRY_FENCE_WRITES", "yes")
            .set("MONGOFERRY_VERIFY", "full");
        let target = Client::with_uri_str(target.uri()).await?;
        let job = Self { ferry, name, source: client, target, _directory: directory };
        for step in ["discover", "plan", "prepare"] {
            job.ferry.run(&["step", step]).await.expect(0);
        }
        Ok(job)
    }

    /// A job of two lanes: the second is done, the first is being copied slowly.
    async fn with_a_straggler(name: &str) -> Result<(Self, Running), Failure> {
        let job = Self::new(name, "2").await?;
        job.ferry.run(&["step", "copy", "--lane", "1"]).await.expect(0);
        let status = job.status().await?;
        assert_eq!((tails(&status).len(), &status["lanes"][0]["status"]), (0, &Value::from("pending")), "{status}");
        let straggler = job.start_slowly(&["step", "copy", "--lane", "0"]).await?;
        Ok((job, straggler))
    }

    /// Starts a worker, and waits until it has copied something more.
    async fn start_slowly(&self, arguments: &[&str]) -> Result<Running, Failure> {
        let written = self.status().await?["documents"]["written"].as_u64().ok_or("no count")?;
        let slow = self.ferry.clone().set("MONGOFERRY_MAX_DOCUMENTS_PER_SECOND", SLOW);
        let mut worker = Running::start(&slow, arguments)?;
        worker.has_written(&self.ferry, written + 1).await?;
        Ok(worker)
    }

    async fn status(&self) -> Result<Value, Failure> {
        Ok(self.ferry.status().await.ok_or("no status")?)
    }

    /// Lets workers go as fast as they can, whatever their flags say.
    async fn let_go(&self) {
        self.ferry.run(&["control", "max-documents-per-second=none"]).await.expect(0);
    }

    /// Finishes the job: the target has what the source has, each document counted once, and the comparison agrees.
    async fn assert_right(&self) -> Result<Value, Failure> {
        self.ferry.run(&["step", "all"]).await.expect(0);
        let mut scope = Scope { only_databases: vec![DATABASE.to_owned()], ..Default::default() };
        scope.rename(&format!("{DATABASE}:{}", self.name))?;
        let outcome = compare(&self.source, &self.target, &scope).await?;
        assert!(outcome.is_equal(), "{outcome}");
        let status = self.status().await?;
        assert_eq!(status["status"], "done", "{status}");
        for count in ["read", "written"] {
            assert_eq!(status["documents"][count], DOCUMENTS, "{status}");
        }
        assert_eq!(status["findings"], serde_json::json!([]), "{status}");
        let sum = |field: &str| -> u64 {
            let lanes = status["lanes"].as_array().into_iter().flatten();
            lanes.filter_map(|lane| lane[field].as_u64()).sum()
        };
        assert_eq!(sum("finished"), sum("partitions"), "{status}");
        assert_eq!(Value::from(sum("partitions")), status["namespaces"][0]["partitions"], "{status}");
        assert_eq!(sum("written"), DOCUMENTS, "{status}");
        self.target.database(&self.name).drop().await?;
        Ok(status)
    }
}

/// The tails among the lanes of a status.
fn tails(status: &Value) -> Vec<&Value> {
    status["lanes"].as_array().into_iter().flatten().filter(|lane| lane["from"].is_u64()).collect()
}

#[tokio::test]
async fn a_worker_whose_lane_is_done_takes_what_a_slower_one_has_not_begun() -> Result<(), Failure> {
    let (job, straggler) = Job::with_a_straggler("named").await?;
    // It ends although the straggler does not: it waits for nobody's lane but its own.
    job.ferry.run(&["step", "copy", "--lane", "1"]).await.expect(0);
    let status = job.status().await?;
    let found = tails(&status);
    assert!(!found.is_empty(), "{status}");
    assert!(found.iter().all(|tail| tail["status"] == "done" && tail["lane"] == 0), "{status}");
    let straggling = &status["lanes"][0];
    assert_eq!((&straggling["status"], &straggling["epoch"]), (&"running".into(), &1.into()), "{status}");
    // All but what it had begun, and the one that it begins next.
    assert!(straggling["partitions"].as_u64() < Some(100), "{status}");

    job.let_go().await;
    straggler.ended_within(AT_MOST).await?.expect(0);
    let status = job.assert_right().await?;
    assert_eq!(status["lanes"][0]["epoch"], 1, "nobody else has held it: {status}");
    assert_eq!(status["documents"]["replayed"], 0, "{status}");
    Ok(())
}

#[tokio::test]
async fn a_second_worker_of_a_single_lane_copies_a_part_of_it() -> Result<(), Failure> {
    let job = Job::new("single", "1").await?;
    let straggler = job.start_slowly(&["step", "copy"]).await?;
    let second = Running::start(&job.ferry, &["step", "copy"])?;
    let both_are_done = async {
        while tails(&job.status().await?).iter().filter(|tail| tail["status"] == "done").count() < 2 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok::<(), Failure>(())
    };
    tokio::time::timeout(AT_MOST, both_are_done).await??;
    job.let_go().await;
    straggler.ended_within(AT_MOST).await?.expect(0);
    second.ended_within(AT_MOST).await?.expect(0);
    let status = job.assert_right().await?;
    assert_eq!(status["documents"]["replayed"], 0, "{status}");
    Ok(())
}

#[tokio::test]
async fn a_frozen_worker_finds_out_what_was_taken_before_it_sends_more() -> Result<(), Failure> {
    let (job, straggler) = Job::with_a_straggler("frozen").await?;
    straggler.signal(Signal::STOP)?;
    // Its lease is still good: nobody may take the lane, only what it has not begun.
    job.ferry.run(&["step", "copy", "--lane", "1"]).await.expect(0);
    let status = job.status().await?;
    assert!(!tails(&status).is_empty(), "{status}");
    straggler.signal(Signal::CONT)?;
    job.let_go().await;
    straggler.ended_within(AT_MOST).await?.expect(0);
    let status = job.assert_right().await?;
    assert_eq!(status["lanes"][0]["epoch"], 1, "{status}");
    assert_eq!(status["documents"]["replayed"], 0, "{status}");
    Ok(())
}

/// Frozen just before a write of its document, the one that declares its first partitions begun among them.
#[tokio::test]
async fn a_write_that_a_gift_was_faster_than_is_made_again_without_what_was_given() -> Result<(), Failure> {
    let mut kept = Vec::new();
    for write in 2..=4 {
        let job = Job::new(&format!("write_{write}"), "2").await?;
        job.ferry.run(&["step", "copy", "--lane", "1"]).await.expect(0);
        let freezing = job.ferry.clone().set("MONGOFERRY_FREEZE_BEFORE", format!("state:{write}"));
        let mut straggler = Running::start(&freezing, &["step", "copy", "--lane", "0"])?;
        straggler.is_frozen().await?;
        job.ferry.run(&["step", "copy", "--lane", "1"]).await.expect(0);
        straggler.signal(Signal::CONT)?;
        straggler.ended_within(AT_MOST).await?.expect(0);
        let status = job.assert_right().await?;
        assert_eq!(status["documents"]["replayed"], 0, "{status}");
        kept.push(status["lanes"][0]["partitions"].as_u64());
    }
    assert!(kept.contains(&Some(1)), "one of these is before anything was begun: {kept:?}");
    Ok(())
}

#[tokio::test]
async fn a_tail_whose_worker_ran_out_of_time_is_anybodys() -> Result<(), Failure> {
    let (job, straggler) = Job::with_a_straggler("budget").await?;
    let slow = job.ferry.clone().set("MONGOFERRY_MAX_DOCUMENTS_PER_SECOND", SLOW);
    slow.run(&["step", "copy", "--lane", "1", "--time-budget", "3s"]).await.expect(75);
    let status = job.status().await?;
    let found: Vec<&Value> = tails(&status);
    assert_eq!(found.iter().map(|tail| tail["status"].as_str()).collect::<Vec<_>>(), [Some("yielded")], "{status}");
    let from = found[0]["from"].clone();
    job.ferry.run(&["step", "copy", "--lane", "1"]).await.expect(0);
    let status = job.status().await?;
    let again: Vec<&Value> = tails(&status).into_iter().filter(|tail| tail["from"] == from).collect();
    assert_eq!((&again[0]["status"], &again[0]["epoch"]), (&"done".into(), &2.into()), "{status}");
    job.let_go().await;
    straggler.ended_within(AT_MOST).await?.expect(0);
    job.assert_right().await?;
    Ok(())
}

/// Aborted just before and just after the gift, the claim of the tail, and what follows; with the straggler killed as
/// well, and with one that lives.
#[tokio::test]
async fn a_crash_anywhere_while_a_tail_is_taken_loses_and_doubles_nothing() -> Result<(), Failure> {
    let runs = (1..=14_u64).map(|point| async move {
        let (job, straggler) = Job::with_a_straggler(&format!("crash_{point}")).await?;
        let crashing = job.ferry.clone().set("MONGOFERRY_CRASH_AT", point.to_string());
        let crashed = crashing.run(&["step", "copy", "--lane", "1"]).await;
        assert_eq!(crashed.code, None, "point {point}: {}", crashed.stderr);
        let status = job.status().await?;
        let given = tails(&status).len();
        assert!(point > 1 || given == 0, "{status}");
        if point % 4 < 2 {
            straggler.signal(Signal::KILL)?;
            straggler.ended_within(AT_MOST).await?;
        } else {
            job.ferry.run(&["step", "copy", "--lane", "1"]).await.expect(0);
            job.let_go().await;
            straggler.ended_within(AT_MOST).await?.expect(0);
        }
        let status = job.assert_right().await?;
        let replayed = status["documents"]["replayed"].as_u64().ok_or("a number")?;
        assert!(replayed < DOCUMENTS / 2, "point {point}: {replayed}");
        Ok::<usize, Failure>(given)
    });
    let given: Vec<usize> = stream::iter(runs).buffered(2).try_collect().await?;
    // A save of the straggler that is faster costs another attempt, so which point is behind the gift may differ.
    assert!(given.iter().filter(|given| **given == 1).count() >= 8, "{given:?}");
    Ok(())
}
