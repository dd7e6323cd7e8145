//! `verify --verify full`: which documents it names, that it goes on where it was, and what it is held against.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::TryStreamExt;
use mongodb::bson::oid::ObjectId;
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, Bson, DateTime, Document, Timestamp, doc};
use mongodb::options::WriteConcern;
use mongodb::{Client, Collection, Database};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::data;
use crate::support::ferry::{Ferry, files};
use crate::support::running::Running;
use crate::support::servers::{Failure, ReplicaSet, StartOptions, shared_source, shared_target};

/// Far more than anything here takes: only a hang reaches it.
const AT_MOST: Duration = Duration::from_secs(90);

const FULL: &[&str] = &["step", "verify", "--verify", "full"];

/// A job that copies one database of its own.
struct Job {
    ferry: Ferry,
    source: Database,
    target: Database,
    directory: TempDir,
}

impl Job {
    async fn new(name: &str) -> Result<Self, Failure> {
        Self::into(name, &shared_target().await?.uri()).await
    }

    async fn into(name: &str, target: &str) -> Result<Self, Failure> {
        let source = shared_source().await?.uri();
        let directory = tempfile::tempdir()?;
        let database = format!("verifying_{name}");
        let ferry = Ferry::new(directory.path(), &source, target, "job")
            .set("MONGOFERRY_INCLUDE", &database)
            .set("MONGOFERRY_CHECKPOINT_NAMESPACE", format!("mongoshake.{database}"))
            .set("MONGOFERRY_SAVE_INTERVAL", "10ms");
        Ok(Self {
            ferry,
            source: Client::with_uri_str(source).await?.database(&database),
            target: Client::with_uri_str(target).await?.database(&database),
            directory,
        })
    }

    async fn copy(&self) {
        for step in ["discover", "plan", "prepare", "copy", "index"] {
            self.ferry.run(&["step", step]).await.expect(0);
        }
    }

    async fn texts(&self, what: &str) -> Result<BTreeSet<String>, Failure> {
        let status = self.ferry.status().await.ok_or("no status")?;
        let all = status[what].as_array().ok_or("no list")?;
        let text = |one: &Value| format!("{} {}", one["namespace"], one["text"]).replace(['"', '\\'], "");
        Ok(all.iter().map(text).collect())
    }

    /// Runs verify in full, and holds what it finds against what it must find: a part of each text.
    async fn finds(&self, parts: &[&str]) -> Result<(), Failure> {
        self.ferry.run(FULL).await.expect(if parts.is_empty() { 0 } else { 4 });
        self.has_found(parts).await
    }

    async fn has_found(&self, parts: &[&str]) -> Result<(), Failure> {
        let found = self.texts("findings").await?;
        let is_as_it_must_be =
            found.len() == parts.len() && parts.iter().all(|part| found.iter().any(|text| text.contains(part)));
        assert!(is_as_it_must_be, "found {found:#?}, not {parts:#?}");
        Ok(())
    }

    /// The share of a collection: its state document.
    fn share(&self, collection: &str) -> Option<Value> {
        let namespace = format!("{}.{collection}", self.source.name());
        let shares = files(&self.directory.path().join("state/job/verify"));
        // Others are on their way to become one.
        let shares = shares
            .iter()
            .filter(|(path, _)| !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')));
        let parsed = shares.filter_map(|(_, body)| serde_json::from_slice::<Value>(body).ok());
        parsed.into_iter().find(|share| share["progress"]["namespace"] == namespace.as_str())
    }

    /// What all runs have noted of an event, in no order.
    fn journal(&self, event: &str) -> Vec<Value> {
        let lines = files(&self.directory.path().join("state/job/journal"));
        let parsed = lines.iter().flat_map(|(_, body)| body.split(|byte| *byte == b'\n'));
        let parsed = parsed.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
        parsed.filter(|line| line["event"] == event).collect()
    }
}

fn documents(database: &Database, collection: &str) -> Collection<Document> {
    database.collection(collection)
}

/// Removes a document and says what it was, so that it can be put back.
async fn take(collection: &Collection<Document>, id: impl Into<Bson>) -> Result<Document, Failure> {
    collection.find_one_and_delete(doc! {"_id": id.into()}).await?.ok_or_else(|| "no such document".into())
}

/// `_id`s of every type that a server takes, and such as are neighbours in its order.
fn every_id() -> Vec<Bson> {
    vec![
        Bson::MinKey,
        Bson::Null,
        f64::NAN.into(),
        f64::NEG_INFINITY.into(),
        (-1).into(),
        1.into(),
        1.5.into(),
        2_i64.into(),
        "3.25".parse().map_or(Bson::Null, Bson::Decimal128),
        "".into(),
        "a".into(),
        Bson::Symbol("symbol".into()),
        Bson::Document(doc! {}),
        Bson::Document(doc! {"a": 1, "b": [1, 2]}),
        Bson::Binary(Binary { subtype: BinarySubtype::Generic, bytes: vec![1, 2] }),
        Bson::ObjectId(ObjectId::from_bytes([7; 12])),
        false.into(),
        true.into(),
        Bson::DateTime(DateTime::from_millis(-5)),
        Bson::Timestamp(Timestamp { time: 5, increment: 6 }),
        Bson::JavaScriptCode("f()".into()),
        Bson::MaxKey,
    ]
}

#[tokio::test]
async fn a_damaged_a_missing_and_an_extra_document_are_named_and_no_others() -> Result<(), Failure> {
    let job = Job::new("named").await?;
    let job = Job { ferry: job.ferry.clone().set("MONGOFERRY_PARTITION_SIZE", "1MB"), ..job };
    let client = Client::with_uri_str(shared_source().await?.uri()).await?;
    data::load(&client, job.source.name(), "many", 30_000).await?;
    let nested = |id: Bson| doc! {"_id": id, "n": 1, "address": {"zip": "1", "lines": ["x", {"y": 2, "z": 3}]}};
    documents(&job.source, "every_id").insert_many(every_id().into_iter().map(nested)).await?;
    job.source.create_collection("collated").collation(collation()).await?;
    let texts = (0..3000).map(|number| nested(format!("key-{number}").into()));
    documents(&job.source, "collated").insert_many(texts).write_concern(WriteConcern::majority()).await?;
    job.source.run_command(doc! {"create": "clustered", "clusteredIndex": {"key": {"_id": 1}, "unique": true}}).await?;
    documents(&job.source, "clustered").insert_many((0..3000).map(|id| nested(id.into()))).await?;

    job.copy().await;
    job.ferry.run(&["step", "verify"]).await.expect(0);
    job.finds(&[]).await?;
    let share = job.share("many").ok_or("no share")?;
    assert_eq!(share["progress"]["round"], serde_json::json!({"number": 1, "verify": "full", "against": "proofs"}));

    let many = documents(&job.target, "many");
    let damaged = take(&many, 12_000_i64).await?;
    many.insert_one(
        doc! {"_id": 12_000_i64, "k": damaged.get_i64("k")?, "text": format!("{}!", damaged.get_str("text")?)},
    )
    .await?;
    let lost = take(&many, 20_000_i64).await?;
    many.insert_one(doc! {"_id": 20_001_i64}).await?;
    job.finds(&[
        "many the document with _id Int64(12000) differs at text: source ",
        "many the document with _id Int64(20000) is missing on the target",
        "many the document with _id Int64(20001) is on the target and not on the source",
    ])
    .await?;
    many.replace_one(doc! {"_id": 12_000_i64}, damaged).await?;
    many.insert_one(lost).await?;
    take(&many, 20_001_i64).await?;
    job.finds(&[]).await?;

    // Another type of a number, another order of fields, another type of an `_id`.
    let every_id = documents(&job.target, "every_id");
    every_id.update_one(doc! {"_id": "a"}, doc! {"$set": {"n": 1.0}}).await?;
    every_id.update_one(doc! {"_id": Bson::MaxKey}, doc! {"$set": {"address.lines.1": {"z": 3, "y": 2}}}).await?;
    take(&every_id, Bson::MinKey).await?;
    take(&every_id, 1).await?;
    every_id.insert_one(nested(1.0.into())).await?;
    every_id.insert_one(doc! {"_id": 1e300}).await?;
    job.finds(&[
        "every_id the document with _id String(a) differs at n: source 1, target 1.0",
        "differs at address.lines.1.y: source as field 1, target as field 2",
        "is missing on the target",
        "every_id the document with _id Int32(1) differs at _id: source 1, target 1.0",
        "is on the target and not on the source",
    ])
    .await?;
    every_id.delete_many(doc! {}).await?;
    every_id
        .insert_many(documents(&job.source, "every_id").find(doc! {}).await?.try_collect::<Vec<_>>().await?)
        .await?;
    job.finds(&[]).await?;

    // The same to the server under the collation.
    let collated = documents(&job.target, "collated");
    take(&collated, "key-17").await?;
    collated.insert_one(nested("KEY-17".into())).await?;
    take(&collated, "key-2999").await?;
    let clustered = documents(&job.target, "clustered");
    clustered.update_one(doc! {"_id": 2999}, doc! {"$set": {"address.zip": "2"}}).await?;
    job.finds(&[
        "collated the document with _id String(key-17) differs at _id: source key-17, target KEY-17",
        "collated the document with _id String(key-2999) is missing on the target",
        "clustered the document with _id Int32(2999) differs at address.zip: source 1, target 2",
    ])
    .await
}

fn collation() -> mongodb::options::Collation {
    mongodb::options::Collation::builder()
        .locale("de")
        .strength(mongodb::options::CollationStrength::Secondary)
        .numeric_ordering(true)
        .build()
}

#[tokio::test]
async fn a_document_that_changed_on_the_source_since_is_told_from_one_that_is_damaged() -> Result<(), Failure> {
    let job = Job::new("changed").await?;
    let (source, target) = (documents(&job.source, "c"), documents(&job.target, "c"));
    source.insert_many((0..2000).map(|id| doc! {"_id": id, "n": 0})).write_concern(WriteConcern::majority()).await?;
    job.copy().await;
    source.update_many(doc! {"_id": {"$lt": 6}}, doc! {"$set": {"n": 1}}).await?;
    source.delete_many(doc! {"_id": {"$gte": 1998}}).await?;
    source.insert_one(doc! {"_id": 5000}).write_concern(WriteConcern::majority()).await?;
    target.update_one(doc! {"_id": 1000}, doc! {"$set": {"n": 2}}).await?;

    let only_the_damaged_one = ["c the document with _id Int32(1000) differs at n: source 0, target 2"];
    job.finds(&only_the_damaged_one).await?;
    let note = "9 documents are on the target as they were acknowledged, and have changed on the source since";
    assert!(job.texts("notes").await?.iter().any(|text| text.contains(note)));

    // More changes than are tried in all combinations: one that is damaged still explains what is missing.
    source
        .update_many(doc! {"_id": {"$lt": 600}}, doc! {"$set": {"n": 3}})
        .write_concern(WriteConcern::majority())
        .await?;
    job.finds(&only_the_damaged_one).await?;

    // Two are too many for that: all that differ are named or counted, and a note says why.
    target.update_one(doc! {"_id": 1001}, doc! {"$set": {"n": 2}}).await?;
    job.ferry.run(FULL).await.expect(4);
    assert!(job.texts("findings").await?.iter().any(|text| text.ends_with("has 585 more findings like these")));
    assert!(job.texts("notes").await?.iter().any(|text| text.contains("605 documents differ, and do not add up to")));

    target.update_many(doc! {}, doc! {"$set": {"n": 0}}).await?;
    job.finds(&[]).await
}

#[tokio::test]
async fn against_the_source_what_was_written_there_since_is_a_difference() -> Result<(), Failure> {
    let job = Job::new("against").await?;
    let source = documents(&job.source, "c");
    source.insert_many((0..2000).map(|id| doc! {"_id": id, "n": 0})).write_concern(WriteConcern::majority()).await?;
    job.copy().await;
    let against_source = ["step", "verify", "--verify", "full", "--against", "source"];
    let ran = job.ferry.run(&against_source).await.expect(0);
    assert!(ran.stdout.contains("1 collections compared in full with the source, 0 findings"), "{ran:?}");

    source.update_one(doc! {"_id": 1}, doc! {"$set": {"n": 1}}).await?;
    source.delete_one(doc! {"_id": 1999}).await?;
    source.insert_one(doc! {"_id": -1}).write_concern(WriteConcern::majority()).await?;
    job.finds(&[]).await?;
    job.ferry.run(&against_source).await.expect(4);
    job.has_found(&[
        "c the document with _id Int32(1) differs at n: source 1, target 0",
        "c the document with _id Int32(1999) is on the target and not on the source",
        "c the document with _id Int32(-1) is missing on the target",
    ])
    .await
}

#[tokio::test]
async fn a_verify_that_compares_nothing_says_so_and_lets_commit_pass() -> Result<(), Failure> {
    let job = Job::new("none").await?;
    documents(&job.source, "c").insert_many((0..10).map(|id| doc! {"_id": id})).await?;
    job.copy().await;
    documents(&job.target, "c").delete_one(doc! {"_id": 1}).await?;
    let ran = job.ferry.run(&["step", "verify", "--verify", "none"]).await.expect(0);
    assert!(ran.stdout.contains("nothing was compared, as --verify none says"), "{ran:?}");
    assert!(job.share("c").is_none());
    // In the chain it is done; by hand it is compared, however often it was.
    job.ferry.run(&["step", "all", "--verify", "full"]).await.expect(0);
    let missing = ["c the document with _id Int32(1) is missing on the target"];
    job.finds(&missing).await?;
    job.ferry.run(&["step", "verify", "--verify", "none"]).await.expect(0);
    job.finds(&missing).await
}

#[tokio::test]
async fn without_digests_documents_are_compared_with_the_source_alone() -> Result<(), Failure> {
    let job = Job::new("no_digests").await?;
    let job = Job { ferry: job.ferry.clone().set("MONGOFERRY_DIGESTS", "no"), ..job };
    documents(&job.source, "c").insert_many((0..100).map(|id| doc! {"_id": id})).await?;
    job.copy().await;
    let with_digests = job.ferry.clone().set("MONGOFERRY_DIGESTS", "yes");
    let refused = with_digests.run(&["step", "verify", "--verify", "full"]).await.expect(2);
    assert!(refused.stderr.contains("no digest of") && refused.stderr.contains("--against source"), "{refused:?}");
    documents(&job.target, "c").delete_one(doc! {"_id": 1}).await?;
    job.ferry.run(&["step", "verify", "--verify", "full", "--against", "source"]).await.expect(4);
    job.has_found(&["c the document with _id Int32(1) is missing on the target"]).await
}

#[tokio::test]
async fn documents_beside_which_others_were_put_are_no_findings() -> Result<(), Failure> {
    let job = Job::new("kept").await?;
    let job = Job { ferry: job.ferry.clone().set("MONGOFERRY_EXISTING", "keep"), ..job };
    documents(&job.source, "c").insert_many((0..100).map(|id| doc! {"_id": id})).await?;
    documents(&job.target, "c").insert_many((50..150).map(|id| doc! {"_id": id})).await?;
    job.copy().await;
    job.finds(&[]).await?;
    assert!(job.texts("notes").await?.iter().any(|text| text.contains("50 documents are on the target alone")));
    documents(&job.target, "c").delete_one(doc! {"_id": 7}).await?;
    job.finds(&["c the document with _id Int32(7) is missing on the target"]).await
}

/// A job with a large and a small collection, on a target of its own that stops answering in the middle of the large one.
async fn stopping(name: &str) -> Result<(Job, ReplicaSet), Failure> {
    let options = StartOptions { name: "stopping".into(), test_commands: true, ..StartOptions::default() };
    let set = ReplicaSet::start(options).await?;
    let job = Job::into(name, &set.uri()).await?;
    let client = Client::with_uri_str(shared_source().await?.uri()).await?;
    data::load(&client, job.source.name(), "large", LARGE).await?;
    data::load(&client, job.source.name(), "small", 100).await?;
    job.copy().await;
    job.ferry.run(&["step", "verify"]).await.expect(0);
    fail_point(&set, doc! {"skip": 10}).await?;
    Ok((job, set))
}

const LARGE: u64 = 100_000;

/// For how long a reply is held back: longer than the time budget here. Switching it off waits for what is held back.
const BLOCKED_MS: i32 = 15_000;

/// `mode`: "off", or after how many further replies none comes any more.
async fn fail_point(set: &ReplicaSet, mode: impl Into<Bson>) -> Result<(), Failure> {
    let command = doc! {
        "configureFailPoint": "failCommand",
        "mode": mode.into(),
        "data": {"failCommands": ["getMore"], "blockConnection": true, "blockTimeMS": BLOCKED_MS},
    };
    Client::with_uri_str(set.member_uri(0)).await?.database("admin").run_command(command).await?;
    Ok(())
}

/// Whether a run that was stopped in the middle of the large collection is gone on with, at about where it was.
async fn goes_on(job: &Job, set: &ReplicaSet) -> Result<(), Failure> {
    let stopped_at = job.share("large").ok_or("no share")?["progress"]["comparison"]["documents"].clone();
    assert!(stopped_at.as_u64().is_some_and(|documents| documents > 0 && documents < LARGE), "{stopped_at}");
    let small = job.share("small").ok_or("no share")?;
    assert_eq!(small["progress"]["round"]["verify"], "full");
    fail_point(set, "off").await?;
    job.finds(&[]).await?;
    // The last run's journal alone has an end of the large one: it began where the other stopped, and read no document
    // twice but what was not saved.
    let at = |event: &str, documents: &Value| {
        job.journal(event).iter().filter(|line| line["documents"] == *documents).count()
    };
    assert_eq!((at("compare", &stopped_at), at("compared", &LARGE.into())), (1, 1), "{:?}", job.journal("compare"));
    let again = job.share("small").ok_or("no share")?;
    assert_eq!(again["write_id"], small["write_id"], "it was compared again: {small:#} {again:#}");
    Ok(())
}

#[tokio::test]
async fn a_comparison_that_was_killed_goes_on_where_it_was() -> Result<(), Failure> {
    let (job, set) = stopping("killed").await?;
    let running = Running::start(&job.ferry, FULL)?;
    let started = mongoferry::clock::monotonic();
    let is_under_way = || {
        let large = job.share("large").is_some_and(|share| !share["progress"]["comparison"]["documents"].is_null());
        large && job.share("small").is_some_and(|share| share["progress"]["round"]["verify"] == "full")
    };
    while !is_under_way() {
        assert!(started.elapsed() < AT_MOST, "nothing was saved");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    running.signal(Signal::KILL)?;
    running.ended_within(AT_MOST).await?;
    goes_on(&job, &set).await
}

#[tokio::test]
async fn a_comparison_that_ran_out_of_time_goes_on_where_it_was() -> Result<(), Failure> {
    let (job, set) = stopping("time").await?;
    job.ferry.run(&["step", "verify", "--verify", "full", "--time-budget", "2s"]).await.expect(75);
    goes_on(&job, &set).await
}
