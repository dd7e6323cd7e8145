//! Several workers on one job: who works, who waits, who is fenced; and workers that are told to stop.

use std::time::Duration;

use mongodb::Client;
use mongodb::bson::{Document, doc};
use mongoferry::clock;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::compare::{Scope, compare};
use crate::support::data::{self, SHARED, SHARED_LARGE};
use crate::support::ferry::Ferry;
use crate::support::running::Running;
use crate::support::servers::{Failure, ReplicaSet, StartOptions, shared_source, shared_target};

/// Far more than anything here takes: only a hang reaches it.
const AT_MOST: Duration = Duration::from_secs(90);

/// A job that copies the shared data to a name of its own.
struct Job {
    ferry: Ferry,
    source: Client,
    target: Client,
    copy: String,
    _directory: TempDir,
}

impl Job {
    /// On the shared target.
    async fn new(name: &str) -> Result<Self, Failure> {
        Self::to(name, shared_target().await?).await
    }

    async fn to(name: &str, target: &ReplicaSet) -> Result<Self, Failure> {
        data::shared().await?;
        let source = shared_source().await?;
        let directory = tempfile::tempdir()?;
        let copy = format!("workers_{name}");
        let ferry = Ferry::new(directory.path(), &source.uri(), &target.uri(), name)
            .set("MONGOFERRY_INCLUDE", SHARED)
            .set("MONGOFERRY_RENAME", format!("{SHARED}:{copy}"))
            .set("MONGOFERRY_CHECKPOINT_NAMESPACE", format!("mongoshake.{copy}"))
            .set("MONGOFERRY_SAVE_INTERVAL", "50ms");
        Ok(Self {
            ferry,
            source: Client::with_uri_str(source.uri()).await?,
            target: Client::with_uri_str(target.uri()).await?,
            copy,
            _directory: directory,
        })
    }

    /// The same job with another variable in its environment.
    fn set(self, name: &str, value: &str) -> Self {
        Self { ferry: self.ferry.set(name, value), ..self }
    }

    /// Runs the steps before the copy.
    async fn prepare(&self) {
        for step in ["discover", "plan", "prepare"] {
            self.ferry.run(&["step", step]).await.expect(0);
        }
    }

    fn start(&self, arguments: &[&str]) -> Result<Running, Failure> {
        Running::start(&self.ferry, arguments)
    }

    /// Starts a worker and waits until it has copied some of it, and surely not all.
    async fn start_and_catch(&self, arguments: &[&str]) -> Result<Running, Failure> {
        let mut worker = self.start(arguments)?;
        let written = worker.has_written(&self.ferry, 1).await?;
        if written > SHARED_LARGE / 2 {
            return Err(format!("{written} documents are copied already; the test needs more").into());
        }
        Ok(worker)
    }

    /// Fails unless the target has what the source has, and the checkpoint is there once.
    async fn assert_committed(&self) -> Result<(), Failure> {
        let mut scope = Scope { only_databases: vec![SHARED.to_owned()], ..Default::default() };
        scope.rename(&format!("{SHARED}:{}", self.copy))?;
        let outcome = compare(&self.source, &self.target, &scope).await?;
        assert!(outcome.is_equal(), "{outcome}");
        assert_eq!((outcome.collections, outcome.documents), (3, SHARED_LARGE + 500));
        let checkpoints = self.target.database("mongoshake").collection::<Document>(&self.copy);
        assert_eq!(checkpoints.count_documents(doc! {}).await?, 1);
        let status = self.ferry.status().await.ok_or("no status")?;
        assert_eq!(status["status"], "done", "{status}");
        assert_eq!(status["documents"]["written"], SHARED_LARGE + 500, "{status}");
        Ok(())
    }
}

/// A target of its own, whose writes can be held up.
async fn lockable_target() -> Result<ReplicaSet, Failure> {
    ReplicaSet::start(StartOptions { name: "lockable".to_owned(), ..Default::default() }).await
}

/// Makes all writes of the target wait, and waits until a worker has sent all that it sends without an answer. What it
/// has sent then lies in the server as a whole: nothing is half sent.
async fn hold_writes(target: &Client) -> Result<(), Failure> {
    let admin = target.database("admin");
    admin.run_command(doc! {"fsync": 1, "lock": true}).await?;
    let began = clock::monotonic();
    let (mut held, mut since) = (0, began);
    while held == 0 || since.elapsed() < Duration::from_millis(250) {
        let operations = admin.run_command(doc! {"currentOp": 1, "op": "insert", "waitingForLock": true}).await?;
        let now = operations.get_array("inprog")?.len();
        if now != held {
            (held, since) = (now, clock::monotonic());
        }
        if began.elapsed() > Duration::from_secs(20) {
            return Err(format!("{held} batches in flight, and never quiet").into());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

async fn let_writes_go(target: &Client) -> Result<(), Failure> {
    target.database("admin").run_command(doc! {"fsyncUnlock": 1}).await?;
    Ok(())
}

/// How many documents clients have asked the target to write since it was started.
async fn writes(target: &Client) -> Result<Vec<i64>, Failure> {
    let status = target.database("admin").run_command(doc! {"serverStatus": 1}).await?;
    let counters = status.get_document("opcounters")?;
    ["insert", "update", "delete"]
        .map(|name| counters.get_i64(name).or_else(|_| counters.get_i32(name).map(i64::from)))
        .into_iter()
        .map(|count| count.map_err(Failure::from))
        .collect()
}

#[tokio::test]
async fn two_copies_at_once_share_the_lanes_and_both_end_well() -> Result<(), Failure> {
    let job = Job::new("two_copies").await?;
    job.prepare().await;
    let first = job.start(&["step", "copy"])?;
    let second = job.start(&["step", "copy"])?;
    first.ended_within(AT_MOST).await?.expect(0);
    second.ended_within(AT_MOST).await?.expect(0);
    let status = job.ferry.status().await.ok_or("no status")?;
    assert_eq!(status["lanes"][0]["epoch"], 1, "the second one waited: {status}");
    job.ferry.run(&["step", "all"]).await.expect(0);
    job.assert_committed().await
}

#[tokio::test]
async fn a_named_lane_that_another_worker_holds_is_refused_and_its_holder_named() -> Result<(), Failure> {
    // A short lease, since a claimant looks ten times in a lease whether the lane changes.
    let job = Job::new("held_lane").await?.set("MONGOFERRY_LEASE", "2s");
    job.prepare().await;
    let first = job.start_and_catch(&["step", "copy"]).await?;
    let second = job.ferry.run(&["step", "copy", "--shard", "source", "--lane", "0"]).await.expect(3);
    let holder = format!("process {}", first.pid());
    assert!(second.stderr.contains(&holder), "{holder} is not in {}", second.stderr);
    first.ended_within(AT_MOST).await?.expect(0);
    job.ferry.run(&["step", "all"]).await.expect(0);
    job.assert_committed().await
}

#[tokio::test]
async fn lanes_of_one_shard_are_copied_by_as_many_workers_and_by_one() -> Result<(), Failure> {
    let job = Job::new("lanes")
        .await?
        .set("MONGOFERRY_LANES_PER_SHARD", "3")
        .set("MONGOFERRY_PARTITION_SIZE", "4MiB")
        .set("MONGOFERRY_READ_ORDER", "id");
    job.prepare().await;
    let workers = ["0", "1"]
        .map(|lane| job.start(&["step", "copy", "--lane", lane]))
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?;
    for worker in workers {
        worker.ended_within(AT_MOST).await?.expect(0);
    }
    let status = job.ferry.status().await.ok_or("no status")?;
    let lanes = status["lanes"].as_array().ok_or("no lanes")?;
    let stand: Vec<&str> = lanes.iter().filter_map(|lane| lane["status"].as_str()).collect();
    assert_eq!(stand, ["done", "done", "pending"], "{status}");
    assert!(lanes.iter().all(|lane| lane["partitions"].as_u64() > Some(2)), "{status}");
    job.ferry.run(&["step", "all"]).await.expect(0);
    job.assert_committed().await?;

    // All of them in one process.
    let together = Job::new("lanes_together")
        .await?
        .set("MONGOFERRY_LANES_PER_SHARD", "3")
        .set("MONGOFERRY_PARTITION_SIZE", "4MiB")
        .set("MONGOFERRY_READ_ORDER", "id");
    together.ferry.run(&["step", "all"]).await.expect(0);
    together.assert_committed().await
}

#[tokio::test]
async fn two_runs_of_everything_at_once_never_mix() -> Result<(), Failure> {
    let job = Job::new("two_runs").await?;
    let first = job.start(&["step", "all"])?;
    let second = job.start(&["step", "all"])?;
    let codes = [first.ended_within(AT_MOST).await?, second.ended_within(AT_MOST).await?];
    assert!(codes.iter().any(|ran| ran.code == Some(0)), "{codes:?}");
    for ran in codes.into_iter().filter(|ran| ran.code != Some(0)) {
        ran.expect(3);
        job.ferry.run(&["step", "all"]).await.expect(0);
    }
    job.assert_committed().await
}

#[tokio::test]
async fn a_worker_that_was_frozen_past_its_lease_writes_nothing_when_it_wakes_up() -> Result<(), Failure> {
    let target = lockable_target().await?;
    let job = Job::to("frozen", &target).await?.set("MONGOFERRY_LEASE", "1s");
    let frozen = job.start_and_catch(&["step", "all"]).await?;
    hold_writes(&job.target).await?;
    frozen.signal(Signal::STOP)?;
    let_writes_go(&job.target).await?;
    let copied = job.target.database(&job.copy).collection::<Document>("large").count_documents(doc! {}).await?;
    assert!(
        copied < SHARED_LARGE - 20_000,
        "{copied} documents were sent: it has nothing left to send when it wakes up"
    );

    job.start(&["step", "all"])?.ended_within(AT_MOST).await?.expect(0);
    job.assert_committed().await?;
    let written = writes(&job.target).await?;
    frozen.signal(Signal::CONT)?;
    let frozen = frozen.ended_within(Duration::from_secs(20)).await?.expect(3);
    assert!(frozen.stderr.contains("another worker has taken over"), "{}", frozen.stderr);
    assert_eq!(writes(&job.target).await?, written, "inserts, updates, deletes after the commit");
    job.assert_committed().await
}

#[tokio::test]
async fn a_worker_that_was_killed_is_followed_at_once_whatever_its_lease() -> Result<(), Failure> {
    let job = Job::new("killed").await?.set("MONGOFERRY_LEASE", "60s");
    let killed = job.start_and_catch(&["step", "all"]).await?;
    killed.signal(Signal::KILL)?;
    killed.ended_within(AT_MOST).await?;
    let before = job.ferry.status().await.ok_or("no status")?;
    assert_eq!(before["status"], "stopped", "{before}");

    let since = clock::monotonic();
    let mut next = job.start(&["step", "copy"])?;
    let more = before["documents"]["written"].as_u64().ok_or("no count")? + 1;
    next.has_written(&job.ferry, more).await?;
    assert!(since.elapsed() < Duration::from_secs(20), "{:?}", since.elapsed());
    next.ended_within(AT_MOST).await?.expect(0);
    job.ferry.run(&["step", "all"]).await.expect(0);
    job.assert_committed().await
}

#[tokio::test]
async fn a_worker_that_is_overtaken_while_it_lives_stops_and_the_other_finishes() -> Result<(), Failure> {
    let job = Job::new("overtaken").await?.set("MONGOFERRY_LEASE", "2s");
    let first = job.start_and_catch(&["step", "all"]).await?;
    let second = job.start(&["step", "all", "--takeover"])?;
    let first = first.ended_within(AT_MOST).await?.expect(3);
    assert!(first.stderr.contains("another worker has taken over"), "{}", first.stderr);
    second.ended_within(AT_MOST).await?.expect(0);
    job.assert_committed().await
}

#[tokio::test]
async fn a_worker_that_is_told_to_stop_does_so_in_time_although_the_target_hangs() -> Result<(), Failure> {
    let target = lockable_target().await?;
    let job = Job::to("told_to_stop", &target).await?;
    let worker = job.start_and_catch(&["step", "all"]).await?;
    hold_writes(&job.target).await?;
    worker.signal(Signal::TERM)?;
    worker.ended_within(Duration::from_secs(5)).await?.expect(75);
    let status = job.ferry.status().await.ok_or("no status")?;
    assert_eq!(status["status"], "yielded", "{status}");

    // The lane was let go of, so the next one is at once at it; it is told twice.
    let_writes_go(&job.target).await?;
    let mut worker = job.start(&["step", "all"])?;
    let more = status["documents"]["written"].as_u64().ok_or("no count")? + 1;
    worker.has_written(&job.ferry, more).await?;
    hold_writes(&job.target).await?;
    worker.signal(Signal::TERM)?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!worker.has_ended()?, "it waits for what is in flight");
    worker.signal(Signal::TERM)?;
    worker.ended_within(Duration::from_secs(1)).await?.expect(75);

    let_writes_go(&job.target).await?;
    job.ferry.run(&["step", "all"]).await.expect(0);
    job.assert_committed().await
}

#[tokio::test]
async fn a_worker_stops_when_its_time_is_used_up_and_goes_on_in_the_next_run() -> Result<(), Failure> {
    let job = Job::new("budget").await?;
    let mut yielded = 0;
    loop {
        let run = job.start(&["step", "all", "--time-budget", "1s"])?;
        let ran = run.ended_within(Duration::from_secs(3)).await?;
        if ran.code != Some(75) {
            ran.expect(0);
            break;
        }
        yielded += 1;
        assert!(yielded < 60, "it gets nowhere");
    }
    assert!(yielded > 0, "a second was enough for everything; the test needs more documents");
    job.assert_committed().await
}
