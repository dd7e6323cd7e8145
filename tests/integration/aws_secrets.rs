//! Secrets by reference, as the function fetches them: from a Secrets Manager that moto plays.

use mongodb::Client;
use mongodb::bson::doc;
use serde_json::json;

use crate::support::aws_job::{AwsJob, Deployment, load};
use crate::support::servers::{Failure, ReplicaSet, StartOptions};
use crate::support::state_machine::shared_interpreter;

#[tokio::test]
async fn a_secret_that_is_missing_or_no_uri_is_bad_input() -> Result<(), Failure> {
    let interpreter = shared_interpreter().await?;
    let no_uri = interpreter.keep_secret("aws-no-uri", "hello world").await?;
    for (source, says) in [("secretsmanager://aws-not-there", "aws-not-there"), (no_uri.as_str(), "aws-no-uri")] {
        let job = AwsJob::new("aws_no_secret", Deployment::default()).await?.set("source", source);
        job.put_settings().await?;
        let refused = job.invoke("discover", json!({})).await?;
        assert_eq!(refused.error_type(), Some("BadInput"), "{refused:?}\n{}", job.lambda.logs());
        assert!(refused.error_message().contains(says), "{refused:?}");
        assert!(!refused.error_message().contains("hello") && !job.lambda.logs().contains("hello"), "it stays secret");
    }
    Ok(())
}

/// A warm sandbox has the old secret, and connections that were opened with it and are dead by now.
#[tokio::test]
async fn a_secret_that_was_rotated_between_two_invocations_is_fetched_again() -> Result<(), Failure> {
    let (source, mut target) = tokio::try_join!(
        ReplicaSet::start(StartOptions { name: "source".to_owned(), ..Default::default() }),
        ReplicaSet::start(StartOptions { name: "target".to_owned(), auth: true, ..Default::default() }),
    )?;
    load(&Client::with_uri_str(source.uri()).await?).await?;
    let interpreter = shared_interpreter().await?;
    let admin = Client::with_uri_str(target.uri()).await?.database("admin");
    admin.run_command(doc! {"createUser": "ferry", "pwd": "first-password", "roles": ["root"]}).await?;
    let seeds = target.seeds();
    let (name, hosts) = seeds.split_once('/').ok_or("a name and its members")?;
    let uri = |password: &str| format!("mongodb://ferry:{password}@{hosts}/?replicaSet={name}&authSource=admin");
    let secret = interpreter.keep_secret("aws-rotated", &uri("first-password")).await?;
    let job = AwsJob::between("aws_rotated", &source, &target, Deployment::default()).await?;
    let job = job.set("target", secret).set("max-documents-per-second", "10000").set("lanes-per-shard", "1");
    job.put_settings().await?;
    for step in ["discover", "plan", "prepare"] {
        job.finish(step, json!({})).await?;
    }
    let lane = json!({"shard": "source", "lane": 0});
    assert_eq!(job.invoke("copy", lane.clone()).await?.result()["status"], "yield");

    admin.run_command(doc! {"updateUser": "ferry", "pwd": "second-password"}).await?;
    interpreter.rotate_secret("aws-rotated", &uri("second-password")).await?;
    target.kill(0)?;
    target.restart(0)?;
    target.primary().await?;
    job.finish("copy", lane).await?;
    for step in ["copy", "index", "verify", "commit"] {
        job.finish(step, json!({})).await?;
    }
    job.assert_committed().await?;
    assert_eq!(job.lambda.records().iter().filter(|record| record.is_cold).count(), 1);
    let (logs, status) = (job.lambda.logs(), job.status().await?.to_string());
    assert!(logs.contains("a secret has changed"), "{logs}");
    for text in [logs, status] {
        assert!(!text.contains("-password"), "{text}");
    }
    Ok(())
}
