//! A worker that lost its lane cannot change the target, however late it wakes up.

use std::time::Duration;

use mongodb::Client;
use mongodb::bson::{Document, doc, rawdoc};
use mongoferry::error::Kind;
use mongoferry::model::cursor::Key;
use mongoferry::model::lease::Epoch;
use mongoferry::model::locator::Located;
use mongoferry::model::plan::LaneName;
use mongoferry::mongo::answer::Answer;
use mongoferry::mongo::deployment::Deployment;
use mongoferry::mongo::failure::{code, code_of, is_transient};
use mongoferry::mongo::marker;
use mongoferry::mongo::write;
use mongoferry::mongo::writers::{Fence, Writers};
use rustix::process::Signal;

use crate::support::data::{self, SHARED, SHARED_LARGE};
use crate::support::ferry::Ferry;
use crate::support::running::Running;
use crate::support::servers::{Failure, ReplicaSet, StartOptions, shared_source, shared_target};
use crate::support::writing::{Collection, everything, target};

const DATABASE: &str = "fencing";

/// A lane's writers in this epoch, whose job has left its marker.
async fn writers(target: &Deployment, job: &str, epoch: u64) -> Result<Writers, Failure> {
    marker::leave(target, job, job, &[]).await?;
    let lane = LaneName::planned("rs", 0);
    Ok(Writers::new(target.clone(), Some(Fence { job: job.to_owned(), lane, epoch: Epoch(epoch) }))?)
}

/// An earlier holder writes until a later one has fenced it, and not any more.
async fn a_later_epoch_ends_an_earlier_one(set: &ReplicaSet, job: &str) -> Result<(), Failure> {
    let target = target(&set.uri(), None).await?;
    let (earlier, later) = (writers(&target, job, 1).await?, writers(&target, job, 2).await?);
    let collection = Collection::make(&target, DATABASE, job).await?;
    earlier.fence().await?;
    // As many as are sent at once, so that several sessions have been used.
    for ids in 0..20 {
        let all = (0..1000).map(|id| rawdoc! {"_id": ids * 1000 + id});
        assert_eq!(collection.insert(&earlier, all).await?, everything());
    }
    later.fence().await?;
    let refused = collection.insert(&earlier, [rawdoc! {"_id": "stale"}]).await.expect_err("a later holder is there");
    assert_eq!(code_of(&refused), Some(code::TRANSACTION_TOO_OLD));
    assert_eq!(earlier.target().failed(&refused).kind(), Kind::Fenced);
    let too_late = writers(&target, job, 1).await?.fence().await.expect_err("a later holder is there");
    assert_eq!(code_of(&too_late), Some(code::TRANSACTION_TOO_OLD));

    // The later one goes on, with refusals in the middle of a batch like without sessions.
    match collection.insert(&later, (19_990..20_010).map(|id| rawdoc! {"_id": id})).await? {
        Answer::Acknowledged(refusals) => {
            let taken: Vec<_> = refusals.iter().filter(|refusal| refusal.is_id_taken).map(|r| r.index).collect();
            assert_eq!(taken, (0..10).collect::<Vec<_>>());
        }
        answer => return Err(format!("{answer:?}").into()),
    }
    let written = Client::with_uri_str(set.uri()).await?.database(DATABASE).collection::<Document>(job);
    assert_eq!(written.count_documents(doc! {}).await?, 20_010);
    Ok(())
}

#[tokio::test]
async fn a_write_of_an_earlier_epoch_is_refused() -> Result<(), Failure> {
    a_later_epoch_ends_an_earlier_one(shared_target().await?, "earlier_epoch").await
}

#[tokio::test]
async fn a_write_of_an_earlier_epoch_is_refused_by_a_4_4_as_well() -> Result<(), Failure> {
    let set = ReplicaSet::start(StartOptions { version: Some("4.4.2".to_owned()), ..Default::default() }).await?;
    a_later_epoch_ends_an_earlier_one(&set, "earlier_epoch").await
}

#[tokio::test]
async fn a_new_primary_refuses_a_write_of_an_earlier_epoch() -> Result<(), Failure> {
    let mut set = ReplicaSet::start(StartOptions { members: 3, ..Default::default() }).await?;
    let target = target(&set.uri(), None).await?;
    let (earlier, later) = (writers(&target, "elected", 1).await?, writers(&target, "elected", 2).await?);
    let collection = Collection::make(&target, DATABASE, "elected").await?;
    earlier.fence().await?;
    assert_eq!(collection.insert(&earlier, [rawdoc! {"_id": 1}]).await?, everything());
    later.fence().await?;
    let primary = set.primary().await?;
    set.kill(primary)?;
    set.primary().await?;
    let refused = loop {
        match collection.insert(&earlier, [rawdoc! {"_id": 2}]).await {
            Err(error) if is_transient(&error) => tokio::time::sleep(Duration::from_millis(50)).await,
            refused => break refused.expect_err("a later holder is there"),
        }
    };
    assert_eq!(code_of(&refused), Some(code::TRANSACTION_TOO_OLD));
    Ok(())
}

#[tokio::test]
async fn a_write_that_was_given_up_does_not_happen_after_a_later_one() -> Result<(), Failure> {
    let set = ReplicaSet::start(StartOptions::default()).await?;
    let target = target(&set.uri(), None).await?;
    let writers = writers(&target, "given_up", 1).await?;
    let collection = Collection::make(&target, DATABASE, "given_up").await?;
    writers.fence().await?;
    assert_eq!(collection.insert(&writers, [rawdoc! {"_id": 0}]).await?, everything());
    let admin = Client::with_uri_str(set.uri()).await?.database("admin");
    admin.run_command(doc! {"fsync": 1, "lock": true}).await?;
    // Two, in a session each: the delete is sent in one, and what it deletes was sent in the other.
    let given_up = async {
        tokio::join!(
            collection.insert(&writers, [rawdoc! {"_id": -1}]),
            collection.insert(&writers, (1..20_000).map(|id| rawdoc! {"_id": id}))
        )
    };
    assert!(tokio::time::timeout(Duration::from_millis(500), given_up).await.is_err(), "the server is locked");
    let delete = async {
        let key = Key::from_value(mongodb::bson::RawBsonRef::Int32(19_999));
        write::delete(&writers, &collection.namespace, &collection.uuid, &[Located::by_id(&key)]).await
    };
    let unlock = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        admin.run_command(doc! {"fsyncUnlock": 1}).await
    };
    let (deleted, unlocked) = tokio::join!(delete, unlock);
    unlocked?;
    assert_eq!(deleted?, everything());
    let all = Client::with_uri_str(set.uri()).await?.database(DATABASE).collection::<Document>("given_up");
    // Whether the one that was given up was done is open; what is not is that it was done before the delete, if at all.
    for _ in 0..10 {
        assert_eq!(all.count_documents(doc! {"_id": 19_999}).await?, 0);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

#[tokio::test]
async fn a_worker_that_was_frozen_before_a_write_changes_nothing_when_it_wakes_up_after_the_commit()
-> Result<(), Failure> {
    const COPY: &str = "fencing_copy";
    data::shared().await?;
    let (source, target) = (shared_source().await?, shared_target().await?);
    let directory = tempfile::tempdir()?;
    let ferry = Ferry::new(directory.path(), &source.uri(), &target.uri(), COPY)
        .set("MONGOFERRY_INCLUDE", SHARED)
        .set("MONGOFERRY_RENAME", format!("{SHARED}:{COPY}"))
        .set("MONGOFERRY_CHECKPOINT_NAMESPACE", format!("mongoshake.{COPY}"))
        .set("MONGOFERRY_FENCE_WRITES", "yes")
        .set("MONGOFERRY_SAVE_INTERVAL", "50ms")
        .set("MONGOFERRY_LEASE", "2s");
    for step in ["discover", "plan", "prepare"] {
        ferry.run(&["step", step]).await.expect(0);
    }
    // Stopped between looking at its lease and sending the batch: the lease is of no use any more.
    // Not one of the first batches: their writers would have to connect first, and the worker finds out meanwhile.
    let mut frozen = Running::start(&ferry.clone().set("MONGOFERRY_FREEZE_BEFORE", "insert:9"), &["step", "copy"])?;
    frozen.is_frozen().await?;

    let client = Client::with_uri_str(target.uri()).await?;
    let copy = client.database(COPY);
    Running::start(&ferry, &["step", "all", "--takeover"])?.ended_within(Duration::from_secs(90)).await?.expect(0);
    let large = copy.collection::<Document>("large");
    assert_eq!(large.count_documents(doc! {}).await?, SHARED_LARGE);
    // The target is live, and everything is deleted there, also what the frozen batch would insert again.
    for collection in copy.list_collection_names().await? {
        copy.collection::<Document>(&collection).delete_many(doc! {}).await?;
    }
    frozen.signal(Signal::CONT)?;
    let frozen = frozen.ended_within(Duration::from_secs(20)).await?.expect(3);
    assert!(frozen.stderr.contains("another worker has taken over"), "{}", frozen.stderr);
    for collection in copy.list_collection_names().await? {
        let left = copy.collection::<Document>(&collection).count_documents(doc! {}).await?;
        assert_eq!(left, 0, "{collection} has what was sent after the commit");
    }
    Ok(())
}
