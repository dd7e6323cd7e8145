//! Limits that are turned while a copy runs: rates, over one worker and over several, pause and resume.
//!
//! The two tests of a rate are the only ones here that measure. `MONGOFERRY_LONG_TESTS=1` (`make limit-test`) has them
//! measure for 30 seconds instead of 10.

use std::time::Duration;

use mongodb::Client;
use mongodb::bson::{Binary, RawDocumentBuf, rawdoc, spec::BinarySubtype};
use mongodb::options::WriteConcern;
use mongoferry::clock;
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use crate::support::compare::{Scope, compare};
use crate::support::data::{self, SHARED};
use crate::support::ferry::{Ferry, files};
use crate::support::running::Running;
use crate::support::servers::{Failure, shared_source, shared_target};

/// Far more than anything here takes: only a hang reaches it.
const AT_MOST: Duration = Duration::from_secs(90);

/// What the tests of a rate ask for, in bytes a second.
const RATE: u64 = 5_000_000;

/// What they copy.
const LARGE: &str = "limits_large";

/// The size of its documents.
const DOCUMENT: usize = 16 << 10;

/// For how many seconds is measured.
fn seconds() -> u64 {
    if std::env::var_os("MONGOFERRY_LONG_TESTS").is_some() { 30 } else { 10 }
}

/// Loads three collections of the same size into the shared source, once in a process: enough for twice the time that
/// is measured.
async fn large() -> Result<(), Failure> {
    static LOADED: OnceCell<()> = OnceCell::const_new();
    LOADED.get_or_try_init(load_large).await.copied()
}

async fn load_large() -> Result<(), Failure> {
    let client = Client::with_uri_str(shared_source().await?.uri()).await?;
    let count = RATE * seconds() * 2 / 3 / DOCUMENT as u64;
    let filling = Binary { subtype: BinarySubtype::Generic, bytes: vec![7; DOCUMENT] };
    for name in ["a", "b", "c"] {
        let collection = client.database(LARGE).collection::<RawDocumentBuf>(name);
        let document = |number: u64| rawdoc! { "_id": number as i64, "filling": filling.clone() };
        for start in (0..count).step_by(500) {
            let documents: Vec<RawDocumentBuf> = (start..count.min(start + 500)).map(document).collect();
            collection.insert_many(documents).write_concern(WriteConcern::majority()).await?;
        }
    }
    Ok(())
}

/// A job that copies a database to a name of its own.
struct Job {
    ferry: Ferry,
    from: &'static str,
    copy: String,
    directory: TempDir,
}

impl Job {
    async fn new(name: &str, from: &'static str) -> Result<Self, Failure> {
        let (source, target) = (shared_source().await?, shared_target().await?);
        let directory = tempfile::tempdir()?;
        let copy = format!("limits_{name}");
        let ferry = Ferry::new(directory.path(), &source.uri(), &target.uri(), name)
            .set("MONGOFERRY_INCLUDE", from)
            .set("MONGOFERRY_RENAME", format!("{from}:{copy}"))
            .set("MONGOFERRY_CHECKPOINT_NAMESPACE", format!("mongoshake.{copy}"))
            .set("MONGOFERRY_SAVE_INTERVAL", "50ms");
        Ok(Self { ferry, from, copy, directory })
    }

    fn set(self, name: &str, value: &str) -> Self {
        Self { ferry: self.ferry.set(name, value), ..self }
    }

    async fn prepare(&self) {
        for step in ["discover", "plan", "prepare"] {
            self.ferry.run(&["step", step]).await.expect(0);
        }
    }

    async fn control(&self, changes: &[&str]) -> Value {
        let words: Vec<&str> = ["control", "--json"].into_iter().chain(changes.iter().copied()).collect();
        self.ferry.run(&words).await.expect(0).json()
    }

    async fn status(&self) -> Result<Value, Failure> {
        Ok(self.ferry.status().await.ok_or("no status")?)
    }

    async fn written_bytes(&self) -> Result<u64, Failure> {
        Ok(self.status().await?["bytes"]["written"].as_u64().ok_or("no number")?)
    }

    /// Waits until the journal of a worker says that it has noticed such a change.
    async fn is_noticed(&self, fact: &str) -> Result<(), Failure> {
        let began = clock::monotonic();
        let is_there = |content: &[u8]| {
            let text = String::from_utf8_lossy(content);
            text.lines().any(|line| line.contains(r#""event":"limits""#) && line.contains(fact))
        };
        while !files(&self.directory.path().join("state")).iter().any(|(_, content)| is_there(content)) {
            if began.elapsed() > AT_MOST {
                return Err(format!("no worker has noticed {fact}").into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Waits until what was on its way has arrived, and says how much is there then.
    async fn is_quiet(&self) -> Result<u64, Failure> {
        let mut before = self.written_bytes().await?;
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let now = self.written_bytes().await?;
            if now == before {
                return Ok(now);
            }
            before = now;
        }
    }

    async fn assert_equal(&self) -> Result<(), Failure> {
        let mut scope = Scope { only_databases: vec![self.from.to_owned()], ..Default::default() };
        scope.rename(&format!("{}:{}", self.from, self.copy))?;
        let source = Client::with_uri_str(shared_source().await?.uri()).await?;
        let target = Client::with_uri_str(shared_target().await?.uri()).await?;
        let outcome = compare(&source, &target, &scope).await?;
        assert!(outcome.is_equal(), "{outcome}");
        Ok(())
    }

    /// Fails unless the rate holds within 10 %, from a while after the beginning on.
    async fn assert_rate(&self) -> Result<(), Failure> {
        let since = clock::monotonic();
        while self.written_bytes().await? < RATE * 2 {
            if since.elapsed() > AT_MOST {
                return Err("it does not get on".into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let (began, before) = (clock::monotonic(), self.written_bytes().await?);
        tokio::time::sleep(Duration::from_secs(seconds())).await;
        let (after, took) = (self.written_bytes().await?, began.elapsed());
        let rate = (after - before) as f64 / took.as_secs_f64();
        let share = rate / RATE as f64;
        eprintln!("{}: {rate:.0} bytes a second over {took:?}, {share:.3} of the limit", self.copy);
        assert!((0.9..=1.1).contains(&share), "{rate:.0} bytes a second over {took:?}, {share:.3} of the limit");
        Ok(())
    }
}

#[tokio::test]
async fn a_rate_holds_with_one_worker_and_is_lifted_while_it_runs() -> Result<(), Failure> {
    large().await?;
    let job = Job::new("one_worker", LARGE).await?.set("MONGOFERRY_LANES_PER_SHARD", "3");
    job.prepare().await;
    let worker = Running::start(&job.ferry, &["step", "copy", "--max-bytes-per-second", "5MB"])?;
    job.assert_rate().await?;
    job.control(&["max-bytes-per-second=none"]).await;
    worker.ended_within(AT_MOST).await?.expect(0);
    job.assert_equal().await
}

#[tokio::test]
async fn a_rate_holds_with_three_workers_and_is_lifted_while_they_run() -> Result<(), Failure> {
    large().await?;
    let job = Job::new("three_workers", LARGE).await?.set("MONGOFERRY_LANES_PER_SHARD", "3");
    job.prepare().await;
    job.control(&["max-bytes-per-second=5MB"]).await;
    let mut workers = Vec::new();
    for lane in ["0", "1", "2"] {
        workers.push(Running::start(&job.ferry, &["step", "copy", "--lane", lane])?);
    }
    job.assert_rate().await?;
    job.control(&["max-bytes-per-second=none"]).await;
    for worker in workers {
        worker.ended_within(AT_MOST).await?.expect(0);
    }
    job.assert_equal().await
}

#[tokio::test]
async fn the_smallest_limit_lets_a_batch_through_and_what_control_says_wins_over_the_flag() -> Result<(), Failure> {
    data::shared().await?;
    let job = Job::new("smallest", SHARED).await?;
    job.prepare().await;
    let mut worker = Running::start(&job.ferry, &["step", "all", "--max-documents-per-second", "1"])?;
    let written = worker.has_written(&job.ferry, 1).await?;
    assert!(written < 60, "{written} documents, at one a second");

    // More than two days at this rate.
    job.control(&["max-documents-per-second=none", "max-bytes-per-second=1KiB"]).await;
    job.is_noticed(r#""max_bytes_per_second":1024"#).await?;
    let bytes = job.written_bytes().await?;
    assert!(!worker.has_ended()? && bytes < 1_000_000, "{bytes} bytes, at 1 KiB a second");
    let shown = job.control(&[]).await;
    assert_eq!((&shown["max_documents_per_second"], &shown["max_bytes_per_second"]), (&json!("none"), &json!(1024)));

    job.control(&["max-bytes-per-second=default"]).await;
    let ran = worker.ended_within(AT_MOST).await?.expect(0);
    assert!(ran.stderr.contains("limits in force: max-documents-per-second is 1, "), "{}", ran.stderr);
    assert!(ran.stderr.contains("max-bytes-per-second is 1KiB, before: "), "{}", ran.stderr);
    job.assert_equal().await
}

#[tokio::test]
async fn nothing_moves_while_paused_and_a_paused_job_can_be_stopped_and_resumed() -> Result<(), Failure> {
    data::shared().await?;
    // So slow that it cannot end before it is paused.
    let job = Job::new("paused", SHARED).await?.set("MONGOFERRY_MAX_BYTES_PER_SECOND", "500KB");
    let mut worker = Running::start(&job.ferry, &["step", "all"])?;
    worker.has_written(&job.ferry, 1).await?;
    assert_eq!(job.control(&["pause"]).await["paused"], true);
    job.is_noticed(r#""paused":true"#).await?;
    let written = job.is_quiet().await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let status = job.status().await?;
    assert_eq!(status["bytes"]["written"], written, "it went on");
    assert_eq!((&status["status"], &status["lanes"][0]["status"]), (&json!("paused"), &json!("paused")), "{status}");
    assert_eq!(status["control"]["paused"], true, "{status}");

    worker.signal(Signal::TERM)?;
    worker.ended_within(Duration::from_secs(5)).await?.expect(75);
    let status = job.status().await?;
    assert_eq!((&status["status"], &status["bytes"]["written"]), (&json!("yielded"), &json!(written)), "{status}");

    let ran = job.ferry.run(&["step", "all", "--time-budget", "1s"]).await.expect(75);
    assert_eq!(ran.stderr.matches("the job is paused").count(), 1, "{}", ran.stderr);
    assert_eq!(job.written_bytes().await?, written);

    let worker = Running::start(&job.ferry, &["step", "all"])?;
    let resumed = job.control(&["resume", "max-bytes-per-second=none"]).await;
    assert_eq!((&resumed["paused"], &resumed["max_bytes_per_second"]), (&json!(false), &json!("none")));
    worker.ended_within(AT_MOST).await?.expect(0);
    job.assert_equal().await
}

#[tokio::test]
async fn changes_at_once_are_all_made() -> Result<(), Failure> {
    let job = Job::new("changes", SHARED).await?;
    data::shared().await?;
    job.ferry.run(&["step", "discover"]).await.expect(0);
    let changes = [["max-documents-per-second=7"], ["max-bytes-per-second=7MB"], ["pause"]];
    let shown = job.control(&[]).await;
    let nothing = json!({
        "job": "changes", "paused": false, "max_documents_per_second": "default", "max_bytes_per_second": "default",
        "changed": null,
    });
    assert_eq!(shown, nothing);
    futures_util::future::join_all(changes.iter().map(|change| job.control(change))).await;
    let text = job.ferry.run(&["control"]).await.expect(0).stdout;
    assert_eq!(text, "changes: paused, max-documents-per-second 7, max-bytes-per-second 7MB\n");
    let status = job.ferry.run(&["status"]).await.expect(0).stdout;
    assert!(status.contains("\n  control: paused, max-documents-per-second 7, max-bytes-per-second 7MB\n"), "{status}");
    Ok(())
}
