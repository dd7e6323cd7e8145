//! The function by itself, in the local Lambda: what it refuses, what a sandbox keeps and does not keep while it stands
//! still, and what becomes of a panic.

use std::time::{Duration, Instant};

use mongodb::Client;
use mongodb::bson::{Document, doc};
use serde_json::{Value, json};

use crate::support::aws_job::{AwsJob, Deployment, MARGIN, TIME_OUT, load};
use crate::support::lambda::{Fault, Outcome};
use crate::support::servers::{Failure, ReplicaSet, StartOptions};

/// Fails unless this was refused as bad input, in words that name what is wrong.
#[track_caller]
fn assert_refused(outcome: &Outcome, says: &str) {
    assert_eq!(outcome.error_type(), Some("BadInput"), "{outcome:?}");
    let message = outcome.error_message();
    assert!(message.contains(says) && !message.contains('\n'), "`{says}` is not in {message}");
}

#[tokio::test]
async fn what_is_wrong_with_an_invocation_is_bad_input() -> Result<(), Failure> {
    let job = AwsJob::new("aws_bad", Deployment::default()).await?;
    job.put_settings().await?;
    for (event, says) in [
        (json!({"job": "aws_bad"}), "no step"),
        (json!({"step": "copy"}), "no job"),
        (json!({"step": "sync", "job": "aws_bad"}), "`sync`"),
        (json!({"step": "plan", "job": "aws_bad", "source": "mongodb://x"}), "`source`"),
        (json!({"step": "plan", "job": "aws_unknown"}), "aws_unknown/settings.toml is missing"),
        (json!({"step": "copy", "job": "aws_bad", "lane": 0}), "only one of shard and lane"),
        (json!([]), "no JSON object"),
    ] {
        assert_refused(&job.lambda.invoke(&event).await?, says);
    }
    let slow = AwsJob::new("aws_margin", Deployment::default()).await?.set("margin", "5s");
    slow.put_settings().await?;
    assert_refused(&slow.invoke("discover", json!({})).await?, "margin");
    let patient = AwsJob::new("aws_lease", Deployment::default()).await?.set("lease", "60s");
    patient.put_settings().await?;
    assert_refused(&patient.invoke("discover", json!({})).await?, "the lease is 60 s");
    assert!(slow.keys("").await?.iter().all(|key| !key.contains("checkpoint")), "nothing was begun");
    Ok(())
}

#[tokio::test]
async fn a_bucket_that_the_function_may_not_use_is_bad_input() -> Result<(), Failure> {
    for (name, value, says) in [
        ("AWS_SECRET_ACCESS_KEY", "another", "SignatureDoesNotMatch"),
        ("AWS_REGION", "eu-central-1", "region"),
        ("MONGOFERRY_STATE", "s3://aws-missing/jobs", "bucket `aws-missing` does not exist"),
        ("MONGOFERRY_STATE", "/tmp/state", "/tmp/state/aws_rights/settings.toml is missing"),
    ] {
        let environment = vec![(name, value.to_owned())];
        let job = AwsJob::new("aws_rights", Deployment { environment, ..Default::default() }).await?;
        job.put_settings().await?;
        assert_refused(&job.invoke("discover", json!({})).await?, says);
    }
    Ok(())
}

#[tokio::test]
async fn discover_notes_when_the_lanes_may_want_more_connections_than_the_servers_have() -> Result<(), Failure> {
    let crowded = [("max-lanes", "1000"), ("max-readers", "256"), ("max-writers", "16")];
    let mut job = AwsJob::new("aws_crowded", Deployment::default()).await?;
    for (name, value) in crowded {
        job = job.set(name, value);
    }
    job.put_settings().await?;
    job.finish("discover", json!({})).await?;
    let notes = job.status().await?["notes"].to_string();
    assert!(notes.contains("1000 lanes at once (--max-lanes) may make 274000 connections"), "{notes}");
    let job = AwsJob::new("aws_roomy", Deployment::default()).await?;
    job.put_settings().await?;
    job.finish("discover", json!({})).await?;
    assert_eq!(job.status().await?["notes"], json!([]));
    Ok(())
}

#[tokio::test]
async fn an_invocation_is_found_by_its_ids_in_the_log_and_counted_in_metrics() -> Result<(), Failure> {
    let environment = vec![("MONGOFERRY_LOG_LEVEL", "debug".to_owned())];
    let job = AwsJob::new("aws_logged", Deployment { environment, ..Default::default() }).await?;
    job.put_settings().await?;
    for step in ["discover", "plan", "prepare"] {
        job.finish(step, json!({})).await?;
    }
    job.finish("copy", json!({"shard": "source", "lane": 2})).await?;
    let logs = job.lambda.logs();
    let lines: Vec<Value> = logs.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let ready = lines.iter().find(|line| line["message"] == "writers are ready").ok_or("no line of the lane")?;
    for (name, value) in
        [("job", json!("aws_logged")), ("step", json!("copy")), ("shard", json!("source")), ("epoch", json!(1))]
    {
        assert_eq!(ready[name], value, "{name}: {ready}");
    }
    assert!(
        ready["lane"].to_string().contains('2') && ready["request"].as_str().is_some_and(|id| id.len() > 8),
        "{ready}"
    );
    let of_copy =
        |line: &&Value| line["step"] == "copy" && line["_aws"]["CloudWatchMetrics"][0]["Namespace"] == "mongoferry";
    let counted: u64 = lines.iter().filter(of_copy).filter_map(|line| line["Documents"].as_u64()).sum();
    assert_eq!(json!(counted), job.status().await?["documents"]["written"], "{logs}");
    assert!(
        counted > 0 && lines.iter().filter(of_copy).all(|line| line["OplogWindowLeft"].as_f64() > Some(25.0)),
        "{logs}"
    );
    Ok(())
}

/// Renewals are due three times a second, and the sandbox stands still for longer than that.
#[tokio::test]
async fn a_thawed_sandbox_sends_nothing_of_an_earlier_invocation() -> Result<(), Failure> {
    let job = AwsJob::new("aws_thawed", Deployment::default()).await?.set("max-documents-per-second", "4000");
    job.put_settings().await?;
    for step in ["discover", "plan", "prepare"] {
        job.finish(step, json!({})).await?;
    }
    let lane = json!({"shard": "source", "lane": 0});
    assert_eq!(job.invoke("copy", lane.clone()).await?.result()["status"], "yield");
    let key = job.keys("lanes/").await?.into_iter().find(|key| key.ends_with("lane.json")).ok_or("a lane")?;
    let key = key.rsplit_once("aws_thawed/").ok_or("below the job")?.1.to_owned();
    let (saved, written) = (job.object(&key).await?, job.written().await?);
    assert!(written > 0);
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        job.invoke("plan", json!({})).await?.result();
    }
    assert_eq!((job.object(&key).await?, job.written().await?), (saved, written));
    let sandboxes: Vec<_> = job.lambda.records().iter().map(|record| record.sandbox).collect();
    assert!(sandboxes.iter().all(|sandbox| *sandbox == Some(0)), "all of it in one sandbox: {sandboxes:?}");
    assert_eq!(job.invoke("copy", lane).await?.result()["status"], "yield");
    assert!(job.written().await? > written);
    Ok(())
}

/// It stands still for longer than its lease, and another invocation of the lane works meanwhile.
#[tokio::test]
async fn an_orphan_that_wakes_up_late_is_fenced() -> Result<(), Failure> {
    let job = AwsJob::new("aws_orphan", Deployment::default()).await?.set("max-documents-per-second", "8000");
    job.put_settings().await?;
    for step in ["discover", "plan", "prepare"] {
        job.finish(step, json!({})).await?;
    }
    let (after, lasting) = (Duration::from_millis(800), Duration::from_millis(3500));
    let mut first = true;
    job.lambda.plan(move |_, _| std::mem::take(&mut first).then_some(Fault::Orphan { after, lasting }));
    job.invoke("copy", json!({"shard": "source", "lane": 0})).await?.result();
    // The orphan has its time to wake up and to end.
    tokio::time::sleep(TIME_OUT).await;
    let records = job.lambda.records();
    let orphan = records.iter().find(|record| record.fault.is_some()).ok_or("it has ended")?;
    assert_eq!(orphan.outcome.error_type(), Some("Fenced"), "{orphan:?}");
    for step in ["copy", "index", "verify", "commit"] {
        job.finish(step, json!({})).await?;
    }
    job.assert_committed().await
}

#[tokio::test]
async fn a_warm_sandbox_goes_on_with_servers_that_were_restarted_meanwhile() -> Result<(), Failure> {
    let started = |name: &str| ReplicaSet::start(StartOptions { name: name.to_owned(), ..Default::default() });
    let (mut source, mut target) = tokio::try_join!(started("source"), started("target"))?;
    load(&Client::with_uri_str(source.uri()).await?).await?;
    let job = AwsJob::between("aws_restarts", &source, &target, Deployment::default()).await?;
    let job = job.set("max-documents-per-second", "10000").set("lanes-per-shard", "1");
    job.put_settings().await?;
    for step in ["discover", "plan", "prepare"] {
        job.finish(step, json!({})).await?;
    }
    assert_eq!(job.invoke("copy", json!({"shard": "source", "lane": 0})).await?.result()["status"], "yield");
    for set in [&mut source, &mut target] {
        set.kill(0)?;
        set.restart(0)?;
        set.primary().await?;
    }
    let yields = job.finish("copy", json!({"shard": "source", "lane": 0})).await?;
    for step in ["copy", "index", "verify", "commit"] {
        job.finish(step, json!({})).await?;
    }
    job.assert_committed().await?;
    let cold = job.lambda.records().iter().filter(|record| record.is_cold).count();
    println!("{yields} yields after the restarts");
    assert_eq!(cold, 1, "{:#?}", job.lambda.records());
    Ok(())
}

/// In the main line of an invocation, and in a task of its own.
#[tokio::test]
async fn a_panic_is_an_internal_error_that_the_status_shows() -> Result<(), Failure> {
    let lane = json!({"shard": "source", "lane": 1});
    for (name, place, step, more) in
        [("aws_panic", "marker:1", "prepare", json!({})), ("aws_panic_in_task", "insert:2", "copy", lane)]
    {
        let environment = vec![("MONGOFERRY_PANIC_BEFORE", place.to_owned())];
        let job = AwsJob::new(name, Deployment { environment, ..Default::default() }).await?;
        job.put_settings().await?;
        for earlier in ["discover", "plan", "prepare"].into_iter().take_while(|earlier| *earlier != step) {
            job.finish(earlier, json!({})).await?;
        }
        let panicked = job.invoke(step, more.clone()).await?;
        assert_eq!(panicked.error_type(), Some("Internal"), "{panicked:?}");
        let status = job.status_of_silence().await?;
        assert_eq!(status["status"], "failed", "{status}");
        assert!(status["error"].as_str().is_some_and(|error| error.contains("panic")), "{status}");
        assert!(job.lambda.logs().contains("a test asked for a panic"), "{}", job.lambda.logs());
        // The sandbox is as good as before, and so is the work.
        job.finish(step, more).await?;
        for later in ["prepare", "copy", "index", "verify", "commit"] {
            job.finish(later, json!({})).await?;
        }
        job.assert_committed().await?;
        assert_eq!(job.lambda.records().iter().filter(|record| record.is_cold).count(), 1);
    }
    Ok(())
}

#[tokio::test]
async fn the_end_of_an_execution_that_the_function_did_not_see_is_written_down() -> Result<(), Failure> {
    let job = AwsJob::new("aws_aborted", Deployment::default()).await?;
    job.put_settings().await?;
    job.finish("discover", json!({})).await?;
    let detail = json!({
        "executionArn": "arn:aws:states:us-east-1:123456789012:execution:mongoferry:aws_aborted-new-1",
        "name": "aws_aborted-new-1",
        "status": "TIMED_OUT",
        "input": json!({"job": job.name}).to_string(),
        "output": null,
    });
    assert_eq!(job.lambda.invoke(&json!({"execution": detail})).await?.result(), json!({"status": "done"}));
    let status = job.status().await?;
    assert_eq!(status["status"], "failed", "{status}");
    assert!(status["error"].as_str().is_some_and(|error| error.contains("aws_aborted-new-1 ")), "{status}");
    Ok(())
}

/// How long it takes from an invocation to the first document on the target, in a sandbox that is started for it and in
/// a warm one. Run it by itself, with a release's binary in mind: `cargo test … aws_functions::a_cold_start -- --ignored`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn a_cold_start_to_the_first_document() -> Result<(), Failure> {
    let job = AwsJob::new("aws_cold", Deployment::default()).await?.set("max-documents-per-second", "2000");
    job.put_settings().await?;
    for step in ["discover", "plan", "prepare"] {
        job.finish(step, json!({})).await?;
    }
    let lane = json!({"shard": "source", "lane": 0});
    let large = job.target.database(&job.name).collection::<Document>("large");
    for round in 0..5 {
        for kind in ["cold", "warm"] {
            if kind == "cold" {
                job.lambda.forget_sandboxes();
            }
            let before = large.count_documents(doc! {}).await?;
            let began = Instant::now();
            let first = async {
                while large.estimated_document_count().await? == before {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                Ok::<Duration, Failure>(began.elapsed())
            };
            let (first, outcome) = tokio::join!(first, job.invoke("copy", lane.clone()));
            let (first, outcome): (Duration, Value) = (first?, outcome?.result());
            let late = began.elapsed().saturating_sub(Deployment::default().time_out - MARGIN);
            println!(
                "round {round}, {kind}: first documents after {first:?}; {} {late:?} after its time",
                outcome["status"]
            );
        }
    }
    Ok(())
}
