//! The stream after the copy: what a reader of the source's oplog from the committed checkpoint on applies makes the
//! copy equal, and what it would not bring is said.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::TryStreamExt;
use mongodb::bson::{Bson, Document, Timestamp, doc};
use mongodb::options::{CollectionOptions, DatabaseOptions, WriteConcern};
use mongodb::{Client, ClientSession, Database};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::compare::{Scope, compare};
use crate::support::ferry::Ferry;
use crate::support::running::Running;
use crate::support::servers::{Failure, ReplicaSet, StartOptions, shared_source, shared_target};

/// Far more than anything here takes: only a hang reaches it.
const AT_MOST: Duration = Duration::from_secs(90);

/// A job that copies one database of its own.
struct Job {
    ferry: Ferry,
    source: Client,
    target: Client,
    database: String,
    set_name: &'static str,
    _directory: TempDir,
}

impl Job {
    async fn from(source: &ReplicaSet, set_name: &'static str, name: &str) -> Result<Self, Failure> {
        let target = shared_target().await?;
        let directory = tempfile::tempdir()?;
        let database = format!("streams_{name}");
        let ferry = Ferry::new(directory.path(), &source.uri(), &target.uri(), name)
            .set("MONGOFERRY_INCLUDE", &database)
            .set("MONGOFERRY_CHECKPOINT_NAMESPACE", format!("mongoshake.{database}"))
            .set("MONGOFERRY_SAVE_INTERVAL", "50ms");
        Ok(Self {
            ferry,
            source: Client::with_uri_str(source.uri()).await?,
            target: Client::with_uri_str(target.uri()).await?,
            database,
            set_name,
            _directory: directory,
        })
    }

    async fn shared(name: &str) -> Result<Self, Failure> {
        Self::from(shared_source().await?, "source", name).await
    }

    fn source(&self) -> Database {
        self.source.database(&self.database)
    }

    async fn steps(&self, steps: &[&str]) {
        for step in steps {
            self.ferry.run(&["step", step]).await.expect(0);
        }
    }

    /// The checkpoint as a stream finds it: by the name of the source, an int64.
    async fn checkpoint(&self) -> Result<Timestamp, Failure> {
        let written = self.target.database("mongoshake").collection::<Document>(&self.database);
        let document = written.find_one(doc! {"name": self.set_name}).await?.ok_or("there is no checkpoint")?;
        let checkpoint = document.get_i64("ckpt")?;
        Ok(Timestamp { time: (checkpoint >> 32) as u32, increment: checkpoint as u32 })
    }

    /// Applies what the source's oplog has after the checkpoint.
    async fn replay(&self) -> Result<Replayed, Failure> {
        let options = DatabaseOptions::builder().write_concern(WriteConcern::nodes(1)).build();
        let mut replay = Replay::new(self.target.database_with_options(&self.database, options));
        let oplog = self.source.database("local").collection::<Document>("oplog.rs");
        let after = doc! {"ts": {"$gt": self.checkpoint().await?}};
        let mut entries = oplog.find(after).sort(doc! {"$natural": 1}).await?;
        while let Some(entry) = entries.try_next().await? {
            replay.entry(&entry).await?;
        }
        Ok(replay.replayed)
    }

    async fn differences(&self) -> Result<Vec<String>, Failure> {
        let scope = Scope { only_databases: vec![self.database.clone()], ..Default::default() };
        Ok(compare(&self.source, &self.target, &scope).await?.differences)
    }

    async fn assert_equal(&self) -> Result<(), Failure> {
        let differences = self.differences().await?;
        assert!(differences.is_empty(), "{differences:#?}");
        Ok(())
    }

    async fn notes(&self) -> Result<Vec<(String, String)>, Failure> {
        let status = self.ferry.status().await.ok_or("no status")?;
        let notes = status["notes"].as_array().ok_or("no notes")?;
        let text = |note: &serde_json::Value, field: &str| note[field].as_str().unwrap_or_default().to_owned();
        Ok(notes.iter().map(|note| (text(note, "namespace"), text(note, "text"))).collect())
    }
}

/// What a replay has applied.
#[derive(Debug, Default)]
struct Replayed {
    inserts: u64,
    updates: u64,
    deletes: u64,
    transactions: u64,
}

/// Applies oplog entries to a database of the same name, as a stream without DDL does. Once more changes nothing.
struct Replay {
    target: Database,
    /// The operations of transactions that are not decided yet.
    open: HashMap<String, Vec<Document>>,
    replayed: Replayed,
}

impl Replay {
    fn new(target: Database) -> Self {
        Self { target, open: HashMap::new(), replayed: Replayed::default() }
    }

    async fn entry(&mut self, entry: &Document) -> Result<(), Failure> {
        if entry.get_str("op")? != "c" {
            return self.operation(entry).await;
        }
        let command = entry.get_document("o")?;
        let transaction = format!("{:?} {:?}", entry.get("lsid"), entry.get("txnNumber"));
        if let Ok(operations) = command.get_array("applyOps") {
            let mut all = self.open.remove(&transaction).unwrap_or_default();
            all.extend(operations.iter().filter_map(Bson::as_document).cloned());
            if command.contains_key("prepare") || command.contains_key("partialTxn") {
                self.open.insert(transaction, all);
                return Ok(());
            }
            return self.transaction(all).await;
        }
        if command.contains_key("commitTransaction") {
            let operations = self.open.remove(&transaction).ok_or("a transaction that began before the checkpoint")?;
            return self.transaction(operations).await;
        }
        if command.contains_key("abortTransaction") {
            self.open.remove(&transaction);
        }
        Ok(())
    }

    async fn transaction(&mut self, operations: Vec<Document>) -> Result<(), Failure> {
        let before = self.replayed.inserts + self.replayed.updates + self.replayed.deletes;
        for operation in operations {
            self.operation(&operation).await?;
        }
        let after = self.replayed.inserts + self.replayed.updates + self.replayed.deletes;
        self.replayed.transactions += u64::from(after > before);
        Ok(())
    }

    async fn operation(&mut self, operation: &Document) -> Result<(), Failure> {
        let Some((database, collection)) = operation.get_str("ns")?.split_once('.') else { return Ok(()) };
        if database != self.target.name() {
            return Ok(());
        }
        let collection = self.target.collection::<Document>(collection);
        let change = operation.get_document("o")?;
        match operation.get_str("op")? {
            "i" => {
                let by_id = doc! {"_id": change.get("_id").ok_or("an insert without _id")?};
                collection.replace_one(by_id, change).upsert(true).await?;
                self.replayed.inserts += 1;
            }
            "d" => {
                collection.delete_one(change.clone()).await?;
                self.replayed.deletes += 1;
            }
            "u" => {
                let by_id = operation.get_document("o2")?.clone();
                match change.get_document("diff") {
                    Ok(diff) => collection.update_one(by_id, update(diff)?).await?,
                    Err(_) => collection.replace_one(by_id, change).await?,
                };
                self.replayed.updates += 1;
            }
            _ => {}
        }
        Ok(())
    }
}

/// An oplog entry's difference as an update: new and changed fields, and fields that are gone.
fn update(diff: &Document) -> Result<Document, Failure> {
    let (mut set, mut unset) = (Document::new(), Document::new());
    for (kind, fields) in diff {
        let fields = fields.as_document().ok_or("a difference of a kind that these tests do not make")?.clone();
        match kind.as_str() {
            "u" | "i" => set.extend(fields),
            "d" => unset.extend(fields),
            _ => return Err(format!("a difference of kind {kind}, which these tests do not make").into()),
        }
    }
    let mut update = Document::new();
    for (operator, fields) in [("$set", set), ("$unset", unset)] {
        if !fields.is_empty() {
            update.insert(operator, fields);
        }
    }
    Ok(update)
}

fn document(id: i32, version: i32) -> Document {
    let text = format!("version {version} of {id} ").repeat(4 + id.unsigned_abs() as usize % 8);
    doc! {"_id": id, "version": version, "text": text}
}

async fn load(database: &Database, collection: &str, ids: std::ops::Range<i32>) -> Result<(), Failure> {
    let documents: Vec<Document> = ids.map(|id| document(id, 0)).collect();
    database.collection::<Document>(collection).insert_many(documents).ordered(false).await?;
    Ok(())
}

/// Someone who goes on writing until told to stop.
struct Writer {
    stop: Arc<AtomicBool>,
    writing: tokio::task::JoinHandle<Result<u64, Failure>>,
}

impl Writer {
    /// Changes documents with an `_id` below `ids`, and adds some.
    fn start(database: Database, collection: &'static str, ids: i32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let writing = tokio::spawn(async move {
            // Many writes count here, not whether they last: waiting for a majority would make them few.
            let options = CollectionOptions::builder().write_concern(WriteConcern::nodes(1)).build();
            let collection = database.collection_with_options::<Document>(collection, options);
            let mut random = 1_u64;
            let mut written = 0;
            while !told.load(Ordering::SeqCst) {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                // A tenth more than there were: some are inserted, some updated again after that.
                let id = ((random >> 33) % (ids as u64 * 11 / 10)) as i32;
                let by_id = doc! {"_id": id};
                written += 1;
                let version = written as i32;
                match (random >> 20) % 6 {
                    0 => {
                        collection.replace_one(by_id, document(id, version)).upsert(true).await?;
                    }
                    1 => {
                        collection.replace_one(by_id, doc! {"_id": id, "version": version}).await?;
                    }
                    2 => {
                        collection.update_one(by_id, doc! {"$set": {"version": version}}).await?;
                    }
                    3 => {
                        collection.update_one(by_id, doc! {"$set": {"note": version}}).await?;
                    }
                    4 => {
                        collection.delete_one(by_id).await?;
                    }
                    _ => {
                        collection.delete_one(by_id).await?;
                        collection.insert_one(doc! {"_id": id, "version": version, "again": true}).await?;
                    }
                }
            }
            Ok(written)
        });
        Self { stop, writing }
    }

    /// Makes it stop, and says how much it has written.
    async fn stop(self) -> Result<u64, Failure> {
        self.stop.store(true, Ordering::SeqCst);
        self.writing.await?
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replaying_what_was_written_during_a_copy_that_was_killed_makes_both_equal() -> Result<(), Failure> {
    const COUNT: i32 = 100_000;
    let job = Job::shared("writer").await?;
    load(&job.source(), "busy", 0..COUNT).await?;
    let writer = Writer::start(job.source(), "busy", COUNT);

    let mut killed = Running::start(&job.ferry, &["step", "all"])?;
    let written = killed.has_written(&job.ferry, COUNT as u64 / 4).await?;
    killed.signal(Signal::KILL)?;
    killed.ended_within(AT_MOST).await?;
    assert!(written < COUNT as u64 * 9 / 10, "{written} documents were copied before it was killed");
    job.ferry.run(&["step", "all"]).await.expect(0);

    let writes = writer.stop().await?;
    assert!(!job.differences().await?.is_empty(), "{writes} writes made no difference: nothing was tested");
    let replayed = job.replay().await?;
    assert!(replayed.inserts > 5 && replayed.updates > 5 && replayed.deletes > 5, "{replayed:?}");
    job.assert_equal().await?;
    // As a stream does that begins at its checkpoint once more.
    job.replay().await?;
    job.assert_equal().await
}

#[tokio::test]
async fn what_was_sent_before_a_kill_and_changed_or_deleted_on_the_source_since_is_as_the_source_has_it()
-> Result<(), Failure> {
    const COUNT: i32 = 150_000;
    let job = Job::shared("deleted_since").await?;
    load(&job.source(), "c", 0..COUNT).await?;
    // So that a part of what the first one sends is surely not covered by a saved cursor.
    let slow = job.ferry.clone().set("MONGOFERRY_SAVE_INTERVAL", "1s");
    let mut killed = Running::start(&slow, &["step", "all"])?;
    let there = job.target.database(&job.database).collection::<Document>("c");
    while there.estimated_document_count().await? < 20_000 {
        assert!(!killed.has_ended()?, "it was over too soon");
    }
    killed.signal(Signal::KILL)?;
    killed.ended_within(AT_MOST).await?;
    let status = job.ferry.status().await.ok_or("no status")?;
    let covered = status["documents"]["written"].as_i64().ok_or("no count")?;
    let sent = there.count_documents(doc! {}).await? as i64;
    assert!(covered < sent && sent < i64::from(COUNT), "{covered} of {sent} are covered: nothing is tested");

    // Some of what is to be read again, and everything behind a point in the middle of what was sent.
    let middle = (covered + sent) / 2;
    let deleted = doc! {"$or": [{"_id": {"$gte": covered, "$mod": [3, 0]}}, {"_id": {"$gte": middle}}]};
    let source = job.source().collection::<Document>("c");
    source.delete_many(deleted).await?;
    let changed = doc! {"_id": {"$gte": covered, "$mod": [3, 1]}};
    let changed = source.update_many(changed, doc! {"$set": {"version": 7}}).await?;
    assert!(changed.modified_count > 100, "{changed:?}");
    job.steps(&["all"]).await;
    let status = job.ferry.status().await.ok_or("no status")?;
    assert_eq!(status["documents"]["written"], there.count_documents(doc! {}).await?, "{status}");
    // Without a stream: what was sent before is brought to what the source has now by the job itself.
    job.assert_equal().await
}

/// Begins a transaction that inserts a document, changes one and deletes one.
async fn begin_transaction(job: &Job) -> Result<ClientSession, Failure> {
    let mut session = job.source.start_session().await?;
    session.start_transaction().await?;
    let collection = job.source().collection::<Document>("c");
    collection.insert_one(document(-1, 1)).session(&mut session).await?;
    collection.update_one(doc! {"_id": 1}, doc! {"$set": {"version": 1}}).session(&mut session).await?;
    collection.delete_one(doc! {"_id": 2}).session(&mut session).await?;
    Ok(session)
}

#[tokio::test]
async fn replaying_brings_a_transaction_that_was_open_all_the_time_and_committed_after_the_copy() -> Result<(), Failure>
{
    let job = Job::shared("transaction").await?;
    load(&job.source(), "c", 0..1_000).await?;
    let mut session = begin_transaction(&job).await?;
    job.steps(&["discover", "plan", "prepare", "copy"]).await;
    session.commit_transaction().await?;
    job.steps(&["index", "verify", "commit"]).await;

    assert!(!job.differences().await?.is_empty(), "the copy has the transaction already: nothing was tested");
    assert_eq!(job.replay().await?.transactions, 1);
    job.assert_equal().await
}

#[tokio::test]
async fn the_checkpoint_is_before_a_transaction_that_was_prepared_and_undecided_at_discover() -> Result<(), Failure> {
    let options = StartOptions { name: "prepared".to_owned(), test_commands: true, ..Default::default() };
    let source = ReplicaSet::start(options).await?;
    let job = Job::from(&source, "prepared", "prepared").await?;
    load(&job.source(), "c", 0..1_000).await?;
    let mut session = begin_transaction(&job).await?;
    let admin = job.source.database("admin");
    let prepared = admin.run_command(doc! {"prepareTransaction": 1}).session(&mut session).await?;
    let prepared = prepared.get_timestamp("prepareTimestamp")?;
    // Later writes, so that the newest entry is one after the transaction's; also known to a majority.
    load(&job.source(), "later", 0..10).await?;
    job.source
        .database("admin")
        .run_command(doc! {"appendOplogNote": 1, "data": {}, "writeConcern": {"w": "majority"}})
        .await?;

    job.steps(&["discover"]).await;
    let run = Running::start(&job.ferry, &["step", "all"])?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    admin.run_command(doc! {"commitTransaction": 1, "commitTimestamp": prepared}).session(&mut session).await?;
    run.ended_within(AT_MOST).await?.expect(0);

    let checkpoint = job.checkpoint().await?;
    assert!(checkpoint < prepared, "{checkpoint:?} is not before {prepared:?}");
    assert_eq!(job.replay().await?.transactions, 1);
    job.assert_equal().await?;
    let notes = job.notes().await?;
    assert!(notes.iter().any(|(_, text)| text.contains("a transaction was open")), "{notes:?}");
    Ok(())
}

#[tokio::test]
async fn what_changed_on_the_source_meanwhile_is_noted_for_each_namespace() -> Result<(), Failure> {
    let job = Job::shared("changes").await?;
    let database = job.source();
    let names =
        ["dropped_before", "dropped_after", "recreated_before", "recreated_after", "indexed", "validated", "quiet"];
    for name in names {
        load(&database, name, 0..100).await?;
    }
    job.steps(&["discover", "plan", "prepare"]).await;
    for moment in ["before", "after"] {
        database.collection::<Document>(&format!("dropped_{moment}")).drop().await?;
        let recreated = format!("recreated_{moment}");
        database.collection::<Document>(&recreated).drop().await?;
        load(&database, &recreated, 1_000..1_020).await?;
        load(&database, &format!("new_{moment}"), 0..10).await?;
        if moment == "before" {
            job.steps(&["copy"]).await;
        }
    }
    let index = doc! {"createIndexes": "indexed", "indexes": [{"name": "version_1", "key": {"version": 1}}]};
    database.run_command(index).await?;
    database.run_command(doc! {"collMod": "validated", "validator": {"version": {"$gte": 0}}}).await?;
    job.steps(&["index", "verify", "commit"]).await;

    let expected = [
        ("dropped_before", "was dropped on the source"),
        ("dropped_after", "was dropped on the source"),
        ("recreated_before", "was dropped and created anew"),
        ("recreated_after", "was dropped and created anew"),
        ("new_before", "was created on the source after the job began"),
        ("new_after", "was created on the source after the job began"),
        ("indexed", "version_1"),
        ("validated", "validator"),
    ];
    let notes = job.notes().await?;
    for (name, text) in expected {
        let namespace = format!("{}.{name}", job.database);
        let found = notes.iter().find(|(of, note)| *of == namespace && note.contains(text));
        let (_, note) = found.ok_or_else(|| format!("no note on {name} says `{text}`: {notes:#?}"))?;
        assert!(note.contains("a stream from the checkpoint brings"), "it does not say what a stream brings: {note}");
    }
    let quiet = format!("{}.quiet", job.database);
    assert!(!notes.iter().any(|(namespace, _)| *namespace == quiet), "{notes:#?}");
    Ok(())
}

async fn rename(job: &Job, from: &str, to: &str) -> Result<(), Failure> {
    let full = |name: &str| format!("{}.{name}", job.database);
    let command = doc! {"renameCollection": full(from), "to": full(to)};
    job.source.database("admin").run_command(command).await?;
    Ok(())
}

#[tokio::test]
async fn a_collection_that_is_renamed_under_the_copy_stops_it_and_both_names_are_said() -> Result<(), Failure> {
    let job = Job::shared("renamed").await?;
    load(&job.source(), "old", 0..100).await?;
    load(&job.source(), "other", 0..100).await?;
    let both = [format!("{}.old", job.database), format!("{}.new", job.database)];
    let stops = async |step: &str| {
        let stopped = job.ferry.run(&["step", step]).await.expect(1);
        assert!(both.iter().all(|name| stopped.stderr.contains(name)), "{}", stopped.stderr);
    };

    job.steps(&["discover", "plan", "prepare"]).await;
    rename(&job, "old", "new").await?;
    stops("copy").await;
    rename(&job, "new", "old").await?;
    job.steps(&["copy", "index"]).await;
    rename(&job, "old", "new").await?;
    stops("verify").await;
    stops("all").await;
    rename(&job, "new", "old").await?;
    job.steps(&["all"]).await;
    job.assert_equal().await
}
