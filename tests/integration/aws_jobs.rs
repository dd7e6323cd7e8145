//! Whole jobs, as they run on AWS: the state machine's own definition under moto's interpreter, the binary as the function
//! in a local Lambda, the state in MinIO. What no emulator shows is in docs/testing.md.
//!
//! An emulator's word is not enough: each test looks at the documents on both sides, at the checkpoint and at the job's
//! state as well.

use std::collections::BTreeMap;
use std::time::Duration;

use mongodb::bson::{Document, doc};
use serde_json::json;

use crate::support::aws_job::{AwsJob, BUCKET, DOCUMENTS, Deployment, MARGIN, TIME_OUT};
use crate::support::lambda::{Fault, Outcome};
use crate::support::s3_proxy::{S3Fault, S3Proxy};
use crate::support::servers::{Failure, shared_minio};
use crate::support::state_machine::{History, shared_interpreter};

/// Far more than any of this takes.
const AT_MOST: Duration = Duration::from_secs(180);

/// When a sandbox stands still...
const STANDS_STILL_AFTER: Duration = Duration::from_millis(800);

/// ...and for how long: longer than a lease, shorter than its time.
const STANDS_STILL_FOR: Duration = Duration::from_millis(3500);

/// Numbers that look like chance and can be had again: `SEED=N` repeats a run.
struct Chance(u64);

impl Chance {
    fn new() -> Self {
        let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| u64::from(std::process::id()));
        println!("SEED={seed}");
        Self(seed)
    }

    /// Some time within these milliseconds.
    fn within(&mut self, from: u64, to: u64) -> Duration {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Duration::from_millis(from + (self.0 >> 33) % (to - from))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_copied_whatever_happens_to_its_invocations() -> Result<(), Failure> {
    // So slow that each lane yields several times.
    let job = AwsJob::new("aws_faults", Deployment::default()).await?.set("max-documents-per-second", "6000");
    job.put_settings().await?;
    let mut chance = Chance::new();
    let mut invocations = BTreeMap::<String, usize>::new();
    job.lambda.plan(move |_, event| {
        let count = invocations.entry(event["step"].to_string()).or_default();
        *count += 1;
        match (event["lane"].is_u64(), *count) {
            (true, 2) => Some(Fault::Throttle),
            (true, 5) => Some(Fault::TimeOut),
            (true, 7) => Some(Fault::Twice),
            // Longer than the lease, and nobody takes over meanwhile.
            (true, 9) => Some(Fault::Freeze { after: STANDS_STILL_AFTER, lasting: STANDS_STILL_FOR }),
            (true, count) if count % 4 == 3 && count < 24 => Some(Fault::Kill(chance.within(100, 2800))),
            (false, 1) => Some(Fault::Kill(chance.within(0, 500))),
            _ => None,
        }
    });
    let machine = shared_interpreter().await?.machine("aws-faults", &job.lambda, BUCKET).await?;
    let ended = machine.run("aws_faults-new-1", &job.name, AT_MOST).await?;
    assert_eq!(ended.status, "SUCCEEDED", "{ended:?}\n{}", job.lambda.logs());
    job.assert_committed().await?;

    let records = job.lambda.records();
    let ended_with = |kind: &str| records.iter().filter(|record| record.outcome.error_type() == Some(kind)).count();
    let (exits, late) = (ended_with("Runtime.ExitError"), ended_with("Sandbox.Timedout"));
    let throttled = records.iter().filter(|record| record.outcome == Outcome::Throttled).count();
    let doubled = records.iter().filter(|record| record.fault == Some(Fault::Twice)).count();
    let frozen = records.iter().filter(|record| matches!(record.fault, Some(Fault::Freeze { .. }))).count();
    let yields = records.iter().filter(|record| record.has_yielded()).count();
    println!(
        "{} invocations: {yields} yields, {exits} killed, {late} timed out, {throttled} throttled, {frozen} frozen, Busy {}, \
         Fenced {}",
        records.len(),
        ended_with("Busy"),
        ended_with("Fenced")
    );
    assert!(exits >= 4 && late == 1 && throttled == 1 && doubled == 2 && frozen == 1, "{records:#?}");
    assert!(yields >= 8, "{yields}");
    // Invocations may still run when their execution has ended; none of them undoes anything.
    tokio::time::sleep(TIME_OUT).await;
    job.assert_committed().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_execution_that_failed_is_started_again_and_goes_on_where_it_was() -> Result<(), Failure> {
    let job = AwsJob::new("aws_again", Deployment::default()).await?;
    job.put_settings().await?;
    let machine = shared_interpreter().await?.machine("aws-again", &job.lambda, BUCKET).await?;
    job.lambda.plan(|_, event| (event["lane"] == 2).then_some(Fault::Kill(Duration::from_millis(50))));
    let failed = machine.run("aws_again-new-1", &job.name, AT_MOST).await?;
    assert_eq!(
        (failed.status.as_str(), failed.error.as_deref()),
        ("FAILED", Some("States.ExceedToleratedFailureThreshold"))
    );
    let tries = job.lambda.records().iter().filter(|record| record.event["lane"] == 2).count();
    assert_eq!(tries, 11, "the definition says how often a lane is tried again");
    // Invocations of the children that were stopped go on to their ends.
    tokio::time::sleep(TIME_OUT - MARGIN + Duration::from_secs(1)).await;
    let before = job.status().await?;
    let written = before["documents"]["written"].as_u64().unwrap_or(0);
    assert!(written > 0 && written < DOCUMENTS, "{before}");
    let checkpoint = job.object("checkpoint.json").await?;

    job.lambda.plan(|_, _| None);
    let ended = machine.run("aws_again-1a2b3c4d-2", &job.name, AT_MOST).await?;
    assert_eq!(ended.status, "SUCCEEDED", "{ended:?}\n{}", job.lambda.logs());
    job.assert_committed().await?;
    assert_eq!(job.object("checkpoint.json").await?, checkpoint, "it is that of the first execution");
    let after = job.status().await?;
    let lanes = |status: &serde_json::Value| status["lanes"].as_array().cloned().unwrap_or_default();
    let mut kept = 0;
    for (before, after) in lanes(&before).iter().zip(lanes(&after)) {
        if before["status"] == "done" {
            assert_eq!(before["epoch"], after["epoch"], "nobody has claimed it again");
            kept += 1;
        }
    }
    println!("{written} documents and {kept} whole lanes were there from the first execution");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_finding_fails_the_execution_once_and_the_next_one_commits_when_it_is_mended() -> Result<(), Failure> {
    let job = AwsJob::new("aws_findings", Deployment::default()).await?;
    job.put_settings().await?;
    let machine = shared_interpreter().await?.machine("aws-findings", &job.lambda, BUCKET).await?;
    let small = job.target.database(&job.name).collection::<Document>("small");
    let (intruder, mut is_there) = (small.clone(), false);
    job.lambda.plan(move |_, event| {
        if event["step"] != "index" || is_there {
            return None;
        }
        is_there = true;
        let intruder = intruder.clone();
        tokio::spawn(async move { intruder.insert_one(doc! {"_id": "nobody's"}).await });
        // Long enough for that.
        Some(Fault::Freeze { after: Duration::ZERO, lasting: Duration::from_secs(1) })
    });
    let failed = machine.run("aws_findings-new-1", &job.name, AT_MOST).await?;
    assert_eq!(failed.status, "FAILED", "{failed:?}");
    let with_findings: Vec<_> =
        job.lambda.records().into_iter().filter(|record| record.outcome.error_type() == Some("Findings")).collect();
    assert_eq!(with_findings.len(), 1, "findings are not tried again: {with_findings:#?}");
    let status = job.status().await?;
    assert_eq!(status["status"], "findings", "{status}");
    let checkpoints = job.target.database("mongoshake").collection::<Document>(&format!("ckpt_{}", job.name));
    assert_eq!(checkpoints.count_documents(doc! {}).await?, 0);

    small.delete_one(doc! {"_id": "nobody's"}).await?;
    let ended = machine.run("aws_findings-1a2b3c4d-2", &job.name, AT_MOST).await?;
    assert_eq!(ended.status, "SUCCEEDED", "{ended:?}\n{}", job.lambda.logs());
    job.assert_committed().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_copied_whatever_s3_answers() -> Result<(), Failure> {
    let (mut writes, mut reads) = (0, 0);
    let proxy = S3Proxy::start(shared_minio().await?, move |method, path| {
        if !path.contains("aws_s3") {
            return None;
        }
        let count = if method == "PUT" { &mut writes } else { &mut reads };
        *count += 1;
        match (method, *count % 24) {
            ("PUT", 3) => Some(S3Fault::LoseAnswer),
            ("PUT", 8) => Some(S3Fault::Conflict),
            ("PUT", 13) => Some(S3Fault::Twice),
            ("PUT", 18) => Some(S3Fault::SlowDown),
            ("PUT", 23) => Some(S3Fault::InternalError),
            ("GET", 5) => Some(S3Fault::SlowDown),
            ("GET", 17) => Some(S3Fault::InternalError),
            _ => None,
        }
    })
    .await?;
    let environment = vec![("MONGOFERRY_S3_ENDPOINT", proxy.endpoint())];
    // Three seconds of work, and enough time behind it for what the last saves of a busy machine have to be asked twice.
    let time_out = Duration::from_secs(11);
    let job = AwsJob::new("aws_s3", Deployment { time_out, environment, ..Default::default() }).await?;
    // Often enough that every kind of write meets every fault.
    let job = job.set("save-interval", "50ms").set("margin", "8s");
    job.put_settings().await?;
    let machine = shared_interpreter().await?.machine("aws-s3", &job.lambda, BUCKET).await?;
    let ended = machine.run("aws_s3-new-1", &job.name, AT_MOST).await?;
    assert_eq!(ended.status, "SUCCEEDED", "{ended:?}\n{}", job.lambda.logs());
    job.assert_committed().await?;
    let done = proxy.done();
    let count = |kind| done.iter().filter(|fault| **fault == kind).count();
    let kinds = [S3Fault::LoseAnswer, S3Fault::Conflict, S3Fault::Twice, S3Fault::SlowDown, S3Fault::InternalError];
    println!("{:?}", kinds.map(|kind| (kind, count(kind))));
    assert!(kinds.into_iter().all(|kind| count(kind) >= 3), "{done:?}");
    let failed: Vec<_> =
        job.lambda.records().into_iter().filter(|record| record.outcome.error_type().is_some()).collect();
    assert!(failed.is_empty(), "no invocation fails because of one answer: {failed:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_history_of_a_job_that_yields_often_stays_small() -> Result<(), Failure> {
    // Little more than a second of work for each invocation.
    let deployment = Deployment { time_out: MARGIN + Duration::from_millis(1200), ..Default::default() };
    let job = AwsJob::new("aws_history", deployment).await?.set("max-documents-per-second", "8000");
    job.put_settings().await?;
    let machine = shared_interpreter().await?.machine("aws-history", &job.lambda, BUCKET).await?;
    let ended = machine.run("aws_history-new-1", &job.name, AT_MOST).await?;
    assert_eq!(ended.status, "SUCCEEDED", "{ended:?}\n{}", job.lambda.logs());
    job.assert_committed().await?;

    let histories = machine.histories(&ended.arn).await?;
    let (own, children): (Vec<&History>, Vec<&History>) = histories.iter().partition(|history| history.map.is_none());
    let lanes: Vec<_> = children.iter().filter(|history| history.map.as_deref() == Some("Copy")).collect();
    let sum = |histories: &[&&History], of: fn(&History) -> usize| -> usize { histories.iter().map(|h| of(h)).sum() };
    let (events, invocations) = (sum(&lanes, |h| h.events), sum(&lanes, |h| h.invocations));
    let an_invocation = events as f64 / invocations as f64;
    let longest = histories.iter().map(|history| history.longest_payload).max().unwrap_or(0);
    let (largest_answer, records) = (largest_answer(&job), job.lambda.records());
    let slowest =
        records.iter().filter(|record| record.has_yielded()).map(|record| record.took).max().unwrap_or_default();
    println!(
        "the execution: {} events; {} lanes: {invocations} invocations, {events} events, {an_invocation:.1} each; longest \
         payload {longest} bytes, largest answer {largest_answer} bytes; 4,000 lanes x 100 yields: {:.1} million events, \
         {:.0} in the history of each child; a yield after at most {slowest:?}",
        own.iter().map(|history| history.events).sum::<usize>(),
        lanes.len(),
        an_invocation * 0.4,
        an_invocation * 101.0,
    );
    assert_eq!((own.len(), lanes.len()), (1, 4));
    assert!(invocations >= 4 * 6, "{invocations}");
    assert!(own[0].events < 150, "the parent does not grow with lanes or yields: {own:?}");
    assert!(an_invocation < 12.0, "{an_invocation}");
    assert!(an_invocation * 2_000.0 < 25_000.0, "a child may yield 2,000 times");
    assert!(longest < 1_000 && largest_answer < 500, "{longest} {largest_answer}");
    Ok(())
}

fn largest_answer(job: &AwsJob) -> usize {
    job.lambda.records().iter().map(|record| record.answered).max().unwrap_or(0)
}

#[tokio::test]
async fn bad_input_is_not_tried_again() -> Result<(), Failure> {
    let job = AwsJob::new("aws_nothing", Deployment::default()).await?;
    let machine = shared_interpreter().await?.machine("aws-nothing", &job.lambda, BUCKET).await?;
    let failed = machine.run("aws_nothing-new-1", &job.name, AT_MOST).await?;
    assert_eq!((failed.status.as_str(), failed.error.as_deref()), ("FAILED", Some("BadInput")));
    assert!(failed.cause.as_deref().is_some_and(|cause| cause.contains("settings.toml")), "{failed:?}");
    let events: Vec<_> = job.lambda.records().into_iter().map(|record| record.event).collect();
    assert_eq!(events, [json!({"step": "discover", "job": "aws_nothing"})]);
    Ok(())
}
