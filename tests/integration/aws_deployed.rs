//! A job through what `sam deploy` makes of the template: two shards, Distributed Maps, the function's role, the operator's
//! policy. `infra/aws/aws-test.sh` deploys it and runs these tests; by themselves they have nothing to run on.

use std::collections::BTreeMap;

use aws_sdk_secretsmanager::config::{BehaviorVersion, Credentials, Region};
use futures_util::TryStreamExt;
use mongodb::Client;
use mongodb::bson::{Bson, Document, doc};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::cluster::{Cluster, shared_cluster};
use crate::support::ferry::Ferry;
use crate::support::servers::{Failure, shared_target};

/// What the script has deployed.
struct Stack {
    endpoint: String,
    machine: String,
    state: String,
    operator: (String, String),
    directory: TempDir,
}

impl Stack {
    fn new() -> Result<Self, Failure> {
        let path = std::env::var("MONGOFERRY_AWS_TEST").map_err(|_| "nothing is deployed; run make aws-test")?;
        let told: Value = serde_json::from_slice(&std::fs::read(path)?)?;
        let text =
            |value: &Value| value.as_str().map(str::to_owned).ok_or("infra/aws/account.py printed something else");
        Ok(Self {
            endpoint: std::env::var("AWS_ENDPOINT_URL")?,
            machine: text(&told["outputs"]["StateMachineArn"])?,
            state: text(&told["outputs"]["State"])?,
            operator: (text(&told["key"])?, text(&told["secret"])?),
            directory: tempfile::tempdir()?,
        })
    }

    /// A secret that the function may read, and the operator may not.
    async fn secret(&self, name: &str, text: &str) -> Result<String, Failure> {
        let config = aws_sdk_secretsmanager::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .endpoint_url(&self.endpoint)
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new("test", "test", None, None, "test"))
            .build();
        let name = format!("mongoferry/{name}");
        let client = aws_sdk_secretsmanager::Client::from_conf(config);
        client.create_secret().name(&name).secret_string(text).send().await?;
        Ok(format!("secretsmanager://{name}"))
    }

    /// The command line as the operator runs it.
    fn operator(&self, job: &str) -> Ferry {
        Ferry::new(self.directory.path(), "", "", job)
            .unset("MONGOFERRY_SOURCE")
            .unset("MONGOFERRY_TARGET")
            .set("MONGOFERRY_STATE", &self.state)
            .set("AWS_ENDPOINT_URL", &self.endpoint)
            .set("AWS_REGION", "us-east-1")
            .set("AWS_ACCESS_KEY_ID", &self.operator.0)
            .set("AWS_SECRET_ACCESS_KEY", &self.operator.1)
    }

    /// A job that copies a database of the cluster, with all that it connects to as secrets.
    async fn job(&self, cluster: &Cluster, job: &str) -> Result<Ferry, Failure> {
        let mut shards = Vec::new();
        for (number, uri) in cluster.shard_uris().iter().enumerate() {
            shards.push(self.secret(&format!("{job}-s{number}"), uri).await?);
        }
        let config = self.secret(&format!("{job}-config"), &cluster.config_uri()).await?;
        let target = self.secret(&format!("{job}-target"), &shared_target().await?.uri()).await?;
        Ok(self
            .operator(job)
            .of_shards(&shards, &config)
            .set("MONGOFERRY_TARGET", target)
            .set("MONGOFERRY_INCLUDE", job)
            .set("MONGOFERRY_CHECKPOINT_NAMESPACE", format!("mongoshake.{job}"))
            .set("MONGOFERRY_STATE_MACHINE", &self.machine))
    }
}

/// A sharded collection with this many documents, of which a part lies on either shard, and orphans on both.
async fn load(cluster: &Cluster, database: &str, count: i32) -> Result<BTreeMap<i32, Document>, Failure> {
    cluster.create_database(database, "s0").await?;
    let namespace = format!("{database}.orders");
    cluster.shard_collection(&namespace, doc! {"n": 1}, doc! {}).await?;
    cluster.split(&namespace, doc! {"n": count / 2}).await?;
    cluster.move_chunk(&namespace, doc! {"n": count / 2}, "s1").await?;
    let documents: Vec<Document> = (0..count).map(|n| doc! {"_id": n, "n": n, "text": "t".repeat(200)}).collect();
    for shard in ["s0", "s1"] {
        cluster.plant(shard, &namespace, documents.clone()).await?;
    }
    Ok((0..count).zip(documents).collect())
}

async fn arrived(database: &str) -> Result<BTreeMap<i32, Document>, Failure> {
    let client = Client::with_uri_str(shared_target().await?.uri()).await?;
    let documents = client.database(database).collection::<Document>("orders").find(doc! {}).await?;
    let documents: Vec<Document> = documents.try_collect().await?;
    Ok(documents.into_iter().filter_map(|d| d.get("_id").and_then(Bson::as_i32).map(|id| (id, d))).collect())
}

#[tokio::test]
#[ignore = "make aws-test deploys what it runs on"]
async fn two_shards_arrive_through_the_deployed_machine() -> Result<(), Failure> {
    let stack = Stack::new()?;
    let cluster = shared_cluster().await?;
    let planted = load(cluster, "deployed", 6_000).await?;
    let ferry = stack
        .job(cluster, "deployed")
        .await?
        .set("MONGOFERRY_LANES_PER_SHARD", "2")
        .set("MONGOFERRY_PARTITION_SIZE", "100KiB")
        // An invocation has twelve seconds here. Two shards at this pace take twice as long, so lanes yield.
        .set("MONGOFERRY_MARGIN", "4s")
        .set("MONGOFERRY_LEASE", "5s")
        .set("MONGOFERRY_MAX_DOCUMENTS_PER_SECOND", "300");
    let ran = ferry.run(&["start", "--watch"]).await.expect(0);
    println!("{}{}", ran.stdout, ran.stderr);
    assert!(arrived("deployed").await? == planted, "what arrived is not what was planted");

    let client = Client::with_uri_str(shared_target().await?.uri()).await?;
    let checkpoints = client.database("mongoshake").collection::<Document>("deployed");
    let checkpoints: Vec<Document> = checkpoints.find(doc! {}).await?.try_collect().await?;
    assert_eq!(checkpoints.len(), 2, "{checkpoints:?}");
    let status = stack.operator("deployed").status().await.ok_or("no status")?;
    println!("{status:#}");
    let epochs: Vec<u64> =
        status["lanes"].as_array().into_iter().flatten().filter_map(|l| l["epoch"].as_u64()).collect();
    assert!(epochs.len() >= 4 && epochs.iter().any(|epoch| *epoch > 1), "no lane has yielded: {epochs:?}");

    // Once more it passes over everything.
    ferry.run(&["start", "--watch"]).await.expect(0);
    let again: Vec<Document> =
        client.database("mongoshake").collection::<Document>("deployed").find(doc! {}).await?.try_collect().await?;
    assert_eq!(again, checkpoints);
    Ok(())
}

#[tokio::test]
#[ignore = "make aws-test deploys what it runs on"]
async fn policies_are_enforced_and_bad_input_fails_at_once() -> Result<(), Failure> {
    let stack = Stack::new()?;
    let cluster = shared_cluster().await?;
    load(cluster, "refused", 10).await?;
    // The operator reads and writes the state's prefix alone.
    let bucket = stack.state.rsplit_once('/').ok_or("no prefix")?.0;
    let elsewhere = stack.operator("refused").set("MONGOFERRY_STATE", format!("{bucket}/elsewhere"));
    let refused = elsewhere.run(&["control", "pause"]).await;
    assert!(refused.code != Some(0) && refused.stderr.contains("Denied"), "{refused:?}");
    // The function reads the secrets of the template's parameter alone, and its failure is the execution's.
    let ferry = stack.job(cluster, "refused").await?.set("MONGOFERRY_TARGET", "secretsmanager://other/target");
    let refused = ferry.run(&["start", "--watch"]).await.expect(2);
    println!("{}{}", refused.stdout, refused.stderr);
    // EventBridge tells the function, which writes it down where there was nothing that could.
    let status = stack.operator("refused").status().await.ok_or("no status")?;
    assert_eq!(status["status"], "failed", "{status:#}");
    assert!(status["error"].as_str().is_some_and(|error| error.contains("BadInput")), "{status:#}");
    Ok(())
}
