//! Elections in the middle of the copy: nothing that was acknowledged is lost, and the run goes on.

use std::time::Duration;

use mongodb::Client;
use mongodb::bson::doc;
use tempfile::TempDir;

use crate::support::compare::{Scope, compare};
use crate::support::data::{self, SHARED, SHARED_LARGE};
use crate::support::ferry::Ferry;
use crate::support::running::Running;
use crate::support::servers::{Failure, ReplicaSet, StartOptions, shared_source, shared_target};

/// Far more than a copy with an election takes: only a hang reaches it.
const AT_MOST: Duration = Duration::from_secs(120);

async fn three_members(name: &str) -> Result<ReplicaSet, Failure> {
    ReplicaSet::start(StartOptions { members: 3, name: name.to_owned(), ..Default::default() }).await
}

fn ferry(directory: &TempDir, source: &ReplicaSet, target: &ReplicaSet, database: &str) -> Ferry {
    Ferry::new(directory.path(), &source.uri(), &target.uri(), "elections")
        .set("MONGOFERRY_INCLUDE", database)
        .set("MONGOFERRY_CHECKPOINT_NAMESPACE", format!("mongoshake.elections_{database}"))
        .set("MONGOFERRY_SAVE_INTERVAL", "50ms")
}

/// Fails unless a copy with an election on the way ends well, and did so by itself: nobody has claimed the lane again.
async fn goes_on(ferry: &Ferry, run: Running) -> Result<(), Failure> {
    let ran = run.ended_within(AT_MOST).await?;
    assert_eq!(ran.code, Some(0), "it did not go on by itself: {ran:?}");
    let status = ferry.status().await.ok_or("no status")?;
    assert_eq!((status["status"].as_str(), &status["lanes"][0]["epoch"]), (Some("done"), &1.into()), "{status}");
    Ok(())
}

async fn assert_equal(source: &ReplicaSet, target: &ReplicaSet, database: &str, documents: u64) -> Result<(), Failure> {
    let (source, target) = (Client::with_uri_str(source.uri()).await?, Client::with_uri_str(target.uri()).await?);
    let scope = Scope { only_databases: vec![database.to_owned()], ..Default::default() };
    let outcome = compare(&source, &target, &scope).await?;
    assert!(outcome.is_equal(), "{outcome}");
    assert_eq!(outcome.documents, documents);
    Ok(())
}

#[tokio::test]
async fn no_acknowledged_document_is_lost_when_the_targets_primary_is_killed() -> Result<(), Failure> {
    data::shared().await?;
    let (source, mut target) = (shared_source().await?, three_members("target3").await?);
    let directory = tempfile::tempdir()?;
    let ferry = ferry(&directory, source, &target, SHARED);
    let mut run = Running::start(&ferry, &["step", "all"])?;
    let written = run.has_written(&ferry, SHARED_LARGE / 3).await?;
    // What the primary takes while the others are frozen goes down with it: nobody else has it.
    let primary = target.primary().await?;
    let others: Vec<usize> = (0..3).filter(|member| *member != primary).collect();
    others.iter().try_for_each(|member| target.freeze(*member))?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    target.kill(primary)?;
    others.iter().try_for_each(|member| target.thaw(*member))?;
    assert!(written < SHARED_LARGE * 3 / 4, "{written} documents were copied before the primary was killed");
    goes_on(&ferry, run).await?;
    target.primary().await?;
    assert_equal(source, &target, SHARED, SHARED_LARGE + 500).await
}

#[tokio::test]
async fn no_document_is_left_out_when_the_sources_primary_steps_down_and_dies() -> Result<(), Failure> {
    const DATABASE: &str = "stepped_down";
    const COUNT: u64 = 200_000;
    let (mut source, target) = (three_members("source3").await?, shared_target().await?);
    data::load(&Client::with_uri_str(source.uri()).await?, DATABASE, "large", COUNT).await?;
    let directory = tempfile::tempdir()?;
    let ferry = ferry(&directory, &source, target, DATABASE);
    let primary = source.primary().await?;
    let mut run = Running::start(&ferry, &["step", "all"])?;
    run.has_written(&ferry, COUNT / 8).await?;
    let client = Client::with_uri_str(source.member_uri(primary)).await?;
    client.database("admin").run_command(doc! {"replSetStepDown": 10, "force": true}).await?;
    // A cursor outlives a step-down, but not its node: what is read after this comes from a cursor opened anew.
    source.kill(primary)?;
    let written = run.has_written(&ferry, 1).await?;
    assert!(written < COUNT * 3 / 4, "{written} documents were copied before the primary died: nothing is tested");
    goes_on(&ferry, run).await?;
    assert_equal(&source, target, DATABASE, COUNT).await
}
