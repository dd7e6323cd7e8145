//! Documents that the target does not take at once: what becomes of each of them, byte by byte.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use base64::Engine as _;
use futures_util::TryStreamExt;
use mongodb::Client;
use mongodb::bson::raw::CString;
use mongodb::bson::{Document, RawBsonRef, RawDocument, RawDocumentBuf, Timestamp, doc, rawdoc};
use mongoferry::claim::{self, Claimant, Claiming, DoneIs};
use mongoferry::connection_string::ConnectionString;
use mongoferry::copy::deliver::{Batch, Delivery, Extent, Settlement};
use mongoferry::copy::rejects::Rejects;
use mongoferry::model::choice::OnConflict;
use mongoferry::model::counts::Counts;
use mongoferry::model::cursor::{Key, Position};
use mongoferry::model::lane::LaneProgress;
use mongoferry::model::lease::Holder;
use mongoferry::model::locator::Locator;
use mongoferry::model::namespace::Namespace;
use mongoferry::model::partition::Range;
use mongoferry::model::plan::LaneName;
use mongoferry::mongo::answer::Answer;
use mongoferry::mongo::deployment::Deployment;
use mongoferry::mongo::documents::Documents;
use mongoferry::mongo::failure::Side;
use mongoferry::mongo::writers::Writers;
use mongoferry::mongo::{Comment, catalog, checkpoint, upsert};
use mongoferry::state::{document, open};
use mongoferry::stop::Stop;

use crate::support::compare::{Scope, compare};
use crate::support::ferry::{Ferry, files};
use crate::support::servers::{Failure, ReplicaSet, StartOptions, shared_source, shared_target};

/// A collection on either side, and a delivery between them whose claim is in a folder.
struct Sides {
    source: mongodb::Collection<RawDocumentBuf>,
    target: mongodb::Collection<RawDocumentBuf>,
    delivery: Delivery,
    _state: tempfile::TempDir,
}

impl Sides {
    async fn new(name: &str, to: &ReplicaSet) -> Result<Self, Failure> {
        let connect = async |side: Side, uri: &str| {
            let uri = ConnectionString::parse(uri)?;
            Ok::<_, Failure>(Deployment::connect(side, &uri, None, "deliver", Comment("deliver".into())).await?)
        };
        let (from_uri, to_uri) = (shared_source().await?.uri(), to.uri());
        let (source, target) = tokio::try_join!(connect(Side::Source, &from_uri), connect(Side::Target, &to_uri))?;
        let namespace = Namespace::new("deliver", name);
        let of = async |uri: &str| {
            let database = Client::with_uri_str(uri).await?.database(namespace.db());
            database.create_collection(name).await?;
            Ok::<_, Failure>(database.collection::<RawDocumentBuf>(name))
        };
        let (at_source, at_target) = tokio::try_join!(of(&from_uri), of(&to_uri))?;
        let uuid = catalog::collection(&target, &namespace).await?.and_then(|listed| listed.uuid).ok_or("no UUID")?;

        let state = tempfile::tempdir()?;
        let documents = document::Documents::new(
            open::open_store(&state.path().to_string_lossy(), open::S3Options::default()).await?,
            "job",
        );
        let lane = LaneName::planned("rs", 0);
        let holder = Holder { run: "run".into(), host: "here".into(), process: None };
        let claimant = Claimant { holder, lease: Duration::from_secs(600), takeover: false };
        let initial = LaneProgress::new(lane.clone(), "plan".into(), 1);
        let claiming =
            claim::claim(&documents, "lane.json", initial, &claimant, DoneIs::Final, &Stop::default()).await?;
        let Claiming::Mine(claim) = claiming else { return Err("nobody else claims it".into()) };
        let delivery = Delivery {
            not_before: checkpoint::capture(&source).await?.majority,
            source,
            writers: Arc::new(Writers::new(target.clone(), None)?),
            target,
            from: namespace.clone(),
            to: namespace,
            uuid,
            locator: Locator::default(),
            range: Range::default(),
            filter: None,
            dbrefs: None,
            ownership: None,
            in_order: false,
            created: true,
            replay: false,
            probes_all: false,
            on_conflict: OnConflict::Report,
            digests: true,
            rejects: Arc::new(Rejects::new(documents, lane, 0)),
            claim,
            is_dry: false,
            empty_probes: AtomicUsize::new(0),
        };
        Ok(Self { source: at_source, target: at_target, delivery, _state: state })
    }

    async fn deliver(&self, documents: &[RawDocumentBuf], extent: Extent) -> Result<Counts, Failure> {
        let documents = documents.iter().collect();
        Ok(self.delivery.deliver(Batch { documents, orphans: 0, extent, position: None }).await?.counts)
    }

    /// Puts documents on the source as they are, `Timestamp(0, 0)` and all.
    async fn load_source(&self, documents: &[RawDocumentBuf]) -> Result<(), Failure> {
        let source = &self.delivery.source;
        let uuid = catalog::collection(source, &self.delivery.from).await?.and_then(|listed| listed.uuid);
        let writers = Writers::new(source.clone(), None)?;
        for document in documents {
            let one: Documents = [document].into_iter().collect();
            let answer = upsert::insert(
                &writers,
                &self.delivery.from,
                uuid.as_deref().ok_or("no UUID")?,
                &Locator::default(),
                &one,
                false,
            )
            .await?;
            assert_eq!(answer, Answer::Acknowledged(vec![]));
        }
        Ok(())
    }

    async fn on_target(&self) -> Result<Vec<RawDocumentBuf>, Failure> {
        Ok(self.target.find(doc! {}).sort(doc! { "_id": 1 }).await?.try_collect().await?)
    }
}

fn whole(documents: &[RawDocumentBuf]) -> Extent {
    let last = documents.last().and_then(|last| Key::of(last)).expect("they have an _id");
    Extent::Range { after: Position::Start, last }
}

/// What the counts say is on the target.
fn counted<'a>(documents: impl IntoIterator<Item = &'a RawDocument>) -> Counts {
    let mut counts = Counts::default();
    documents.into_iter().for_each(|document| counts.wrote(document.as_bytes()));
    counts
}

#[track_caller]
fn assert_proves(sum: Counts, there: &[RawDocumentBuf]) {
    let expected = counted(there.iter().map(|document| &**document));
    assert_eq!(
        (sum.written, sum.written_bytes, sum.digest),
        (expected.written, expected.written_bytes, expected.digest)
    );
}

#[tokio::test]
async fn a_document_that_a_scan_gave_twice_is_counted_once_as_what_the_source_has_now() -> Result<(), Failure> {
    let sides = Sides::new("twice", shared_target().await?).await?;
    let now = [rawdoc! { "_id": 1, "v": "now, and longer than before" }, rawdoc! { "_id": 2 }, rawdoc! { "_id": 4 }];
    sides.source.insert_many(&now).await?;
    let old = rawdoc! { "_id": 1, "v": "old" };
    let gone = rawdoc! { "_id": 3, "v": "deleted since" };
    let mut sum = sides.deliver(&[old.clone(), now[1].clone(), gone.clone()], Extent::Scattered).await?;
    assert_eq!((sum.read, sum.written, sum.again), (3, 3, 0));
    // As it was: nothing but read.
    let same = sides.deliver(&[now[1].clone()], Extent::Scattered).await?;
    assert_eq!((same.read, same.written, same.again), (1, 0, 1));
    sum += same;
    // Another version, which is neither what is there nor what the source has now; and one that the source has no more.
    let changed = [rawdoc! { "_id": 1, "v": "in between" }, rawdoc! { "_id": 3, "v": "other" }, now[2].clone()];
    let changed = sides.deliver(&changed, Extent::Scattered).await?;
    assert_eq!((changed.read, changed.again, changed.replaced, changed.rejected), (3, 2, 1, 0));
    sum += changed;
    let there = sides.on_target().await?;
    assert_eq!(there, [now[0].clone(), now[1].clone(), gone, now[2].clone()]);
    assert_proves(sum, &there);
    Ok(())
}

#[tokio::test]
async fn a_scattered_batch_that_was_sent_before_is_looked_for_by_its_ids_alone() -> Result<(), Failure> {
    let mut sides = Sides::new("scattered", shared_target().await?).await?;
    let documents: Vec<RawDocumentBuf> = (0..40).map(|id| rawdoc! { "_id": id, "v": id % 3 }).collect();
    sides.source.insert_many(&documents).await?;
    // An earlier attempt sent some, one of them in an older version; what else is there belongs to other batches.
    sides.target.insert_many(documents.iter().step_by(4)).await?;
    sides.target.insert_one(rawdoc! { "_id": 5, "v": "old" }).await?;
    sides.target.insert_one(rawdoc! { "_id": 10_000 }).await?;
    sides.delivery.replay = true;
    let shuffled: Vec<RawDocumentBuf> = documents.iter().rev().cloned().collect();
    let counts = sides.deliver(&shuffled, Extent::Scattered).await?;
    assert_eq!((counts.written, counts.replayed, counts.replaced, counts.deleted), (40, 11, 1, 0));
    let mut there = sides.on_target().await?;
    assert_eq!(there.pop(), Some(rawdoc! { "_id": 10_000 }));
    assert_eq!(there, documents);
    assert_proves(counts, &there);
    Ok(())
}

#[tokio::test]
async fn what_the_source_has_deleted_is_deleted_and_what_is_there_again_is_not() -> Result<(), Failure> {
    let sides = Sides::new("gone", shared_target().await?).await?;
    // What an earlier attempt sent; more than one command deletes.
    sides.target.insert_many((0..2_500).map(|id| rawdoc! { "_id": id, "v": "sent" })).await?;
    let key = |id: i32| Key::from_value(RawBsonRef::Int32(id));
    let mut settlement = Settlement { counts: Counts::default(), rejected: Vec::new() };
    sides.delivery.settle_gone((0..2_400).map(key).collect(), &mut settlement).await?;
    assert_eq!((settlement.counts.deleted, settlement.counts.replaced), (2_400, 0));
    // Inserted again behind the scan, one of them with the same value as its `_id` and of another type.
    let again = [rawdoc! { "_id": 2_400, "v": "again" }, rawdoc! { "_id": 2_401.0, "v": "again" }];
    sides.source.insert_many(&again).await?;
    sides.delivery.settle_gone((2_400..2_500).map(key).collect(), &mut settlement).await?;
    assert_eq!((settlement.counts.deleted, settlement.counts.replaced), (2_498, 2));
    assert_eq!(sides.on_target().await?, again);
    assert_proves(settlement.counts, &again);
    Ok(())
}

/// A server closes the connection when the reply that names what it refused grows too large.
#[tokio::test]
async fn fifty_thousand_duplicates_in_one_batch_are_told_apart() -> Result<(), Failure> {
    let mut sides = Sides::new("many", shared_target().await?).await?;
    let text = "k".repeat(240);
    let documents: Vec<RawDocumentBuf> = (0..50_000).map(|n| rawdoc! { "_id": format!("{n:06}{text}") }).collect();
    let first = sides.deliver(&documents, whole(&documents)).await?;
    assert_eq!((first.written, first.replayed), (50_000, 0));
    sides.delivery.created = false;
    let again = sides.deliver(&documents, whole(&documents)).await?;
    assert_eq!((again.written, again.present, again.rejected), (50_000, 50_000, 0));
    assert_eq!(sides.target.count_documents(doc! {}).await?, 50_000);
    Ok(())
}

/// The same where looking for what arrived does not help, since nothing did: each has a key that is taken.
#[tokio::test]
async fn thousands_that_violate_a_unique_index_are_sent_in_halves() -> Result<(), Failure> {
    let mut sides = Sides::new("violating", shared_target().await?).await?;
    sides.delivery.created = false;
    let text = "k".repeat(700);
    let there: Vec<RawDocumentBuf> =
        (0..12_000).map(|n| rawdoc! { "_id": -n - 1, "k": format!("{n:06}{text}") }).collect();
    sides.target.insert_many(&there).await?;
    let model = mongodb::IndexModel::builder()
        .keys(doc! { "k": 1 })
        .options(mongodb::options::IndexOptions::builder().unique(true).build())
        .build();
    sides.target.create_index(model).await?;
    let documents: Vec<RawDocumentBuf> =
        (0..12_000).map(|n| rawdoc! { "_id": n + 1, "k": format!("{n:06}{text}") }).collect();
    let counts = sides.deliver(&documents, whole(&documents)).await?;
    assert_eq!((counts.read, counts.written, counts.rejected), (12_000, 0, 12_000));
    Ok(())
}

#[tokio::test]
async fn documents_of_sixteen_mebibytes_go_through() -> Result<(), Failure> {
    let sides = Sides::new("large", shared_target().await?).await?;
    let most = 16 * 1024 * 1024;
    let filled = |id: i32, with: &[(&str, RawBsonRef<'_>)]| -> Result<RawDocumentBuf, Failure> {
        let mut document = rawdoc! { "_id": id };
        for (name, value) in with {
            document.append(CString::try_from(*name)?, *value);
        }
        let text = "x".repeat(most - document.as_bytes().len() - 1 - 2 - 4 - 1);
        document.append(CString::try_from("t")?, text);
        assert_eq!(document.as_bytes().len(), most);
        Ok(document)
    };
    let empty = Timestamp { time: 0, increment: 0 };
    let documents = [filled(1, &[])?, filled(2, &[("a", RawBsonRef::Timestamp(empty))])?, rawdoc! { "_id": 3 }];
    let counts = sides.deliver(&documents, whole(&documents)).await?;
    assert_eq!((counts.written, counts.rejected), (3, 0));
    assert!(sides.on_target().await? == documents);
    Ok(())
}

/// The bytes of a document with these elements: type, name, value. Some names and texts that servers store are no UTF-8.
fn document_of(elements: &[(u8, &[u8], &[u8])]) -> RawDocumentBuf {
    let mut bytes = vec![0; 4];
    for (kind, name, value) in elements {
        bytes.push(*kind);
        bytes.extend_from_slice(name);
        bytes.push(0);
        bytes.extend_from_slice(value);
    }
    bytes.push(0);
    let length = (bytes.len() as u32).to_le_bytes();
    bytes[..4].copy_from_slice(&length);
    RawDocumentBuf::from_bytes(bytes).expect("has the length that it says")
}

/// Copies documents with empty timestamps, changes them on the source, and copies them once more as a replay.
async fn empty_timestamps(to: &ReplicaSet, name: &str, keeps: bool) -> Result<(), Failure> {
    const TIMESTAMP: u8 = 0x11;
    const EMPTY: &[u8] = &[0; 8];
    let mut sides = Sides::new(name, to).await?;
    assert_eq!(sides.delivery.target.keeps_empty_timestamps(), keeps);
    let nan = 0x7ff8_dead_0000_0001_u64.to_le_bytes();
    let id = |id: i32| id.to_le_bytes();
    let documents = [
        document_of(&[
            (0x10, b"_id", &id(1)),
            (TIMESTAMP, b"a", EMPTY),
            (0x10, b"b", &id(7)),
            (TIMESTAMP, b"c", EMPTY),
        ]),
        document_of(&[
            (0x10, b"_id", &id(2)),
            (TIMESTAMP, b"", EMPTY),
            (TIMESTAMP, b"x.y", EMPTY),
            (TIMESTAMP, b"$z", EMPTY),
        ]),
        document_of(&[
            (0x10, b"_id", &id(3)),
            (TIMESTAMP, b"a", EMPTY),
            (0x10, b"a", &id(7)),
            (TIMESTAMP, b"a", EMPTY),
        ]),
        document_of(&[
            (0x10, b"_id", &id(4)),
            (TIMESTAMP, b"\xff\xfe", EMPTY),
            (0x02, b"s", b"\x02\0\0\0\xff\0"),
            (0x01, b"n", &nan),
        ]),
        document_of(&[(0x10, b"_id", &id(5)), (0x10, b"plain", &id(7))]),
    ];
    sides.load_source(&documents).await?;
    let counts = sides.deliver(&documents, whole(&documents)).await?;
    assert_eq!((counts.written, counts.rejected), (5, 0));
    assert_eq!(sides.on_target().await?, documents);

    // Changed on the source since: brought to now, which has empty timestamps as well.
    sides.source.delete_many(doc! {}).await?;
    let changed: Vec<RawDocumentBuf> = (1..=5)
        .map(|number| {
            document_of(&[(0x10, b"_id", &id(number)), (0x10, b"new", &id(number)), (TIMESTAMP, b"t", EMPTY)])
        })
        .collect();
    sides.load_source(&changed).await?;
    sides.delivery.replay = true;
    // What the scan gave is neither what is there nor what the source has.
    let scanned: Vec<RawDocumentBuf> = (1..=5).map(|id| rawdoc! { "_id": id, "scanned": true }).collect();
    let counts = sides.deliver(&scanned, whole(&scanned)).await?;
    assert_eq!((counts.written, counts.replaced), (5, 5));
    assert_eq!(sides.on_target().await?, changed);
    assert_proves(counts, &changed);
    Ok(())
}

#[tokio::test]
async fn empty_timestamps_stay_where_the_server_cannot_be_told_so() -> Result<(), Failure> {
    empty_timestamps(shared_target().await?, "timestamps", false).await
}

#[tokio::test]
async fn empty_timestamps_stay_where_the_server_can_be_told_so() -> Result<(), Failure> {
    let options = StartOptions { name: "newer".into(), version: Some("6.0.27".into()), ..StartOptions::default() };
    empty_timestamps(&ReplicaSet::start(options).await?, "timestamps_kept", true).await
}

fn job(directory: &Path, source: &ReplicaSet, target: &ReplicaSet, name: &str) -> Ferry {
    Ferry::new(directory, &source.uri(), &target.uri(), name)
        .set("MONGOFERRY_INCLUDE", name)
        .set("MONGOFERRY_EXISTING", "keep")
        .set("MONGOFERRY_CHECKPOINT_NAMESPACE", format!("mongoshake.ckpt_{name}"))
}

async fn clients() -> Result<(&'static ReplicaSet, &'static ReplicaSet, Client, Client), Failure> {
    let (source, target) = tokio::try_join!(shared_source(), shared_target())?;
    let (from, to) = (Client::with_uri_str(source.uri()).await?, Client::with_uri_str(target.uri()).await?);
    Ok((source, target, from, to))
}

#[tokio::test]
async fn a_foreign_document_is_reported_replaced_or_kept() -> Result<(), Failure> {
    let (source, target, from, to) = clients().await?;
    let conflict = async |name: &str| -> Result<mongodb::Collection<Document>, Failure> {
        from.database(name).collection("c").insert_many([doc! { "_id": 1, "x": 1 }, doc! { "_id": 2, "x": 2 }]).await?;
        let there = to.database(name).collection("c");
        there.insert_many([doc! { "_id": 1, "x": "mine" }, doc! { "_id": 3, "x": 3 }]).await?;
        Ok(there)
    };
    let (mine, theirs) = (doc! { "_id": 1, "x": "mine" }, doc! { "_id": 1, "x": 1 });
    let directory = tempfile::tempdir()?;

    let there = conflict("kept").await?;
    let kept = job(directory.path(), source, target, "kept").set("MONGOFERRY_ON_CONFLICT", "keep");
    kept.run(&["step", "all"]).await.expect(0);
    assert_eq!(there.find_one(doc! { "_id": 1 }).await?, Some(mine.clone()));
    assert_eq!(kept.status().await.ok_or("there")?["findings"], serde_json::json!([]));

    let there = conflict("overwritten").await?;
    job(directory.path(), source, target, "overwritten")
        .run(&["step", "all", "--on-conflict", "replace"])
        .await
        .expect(0);
    assert_eq!(there.find_one(doc! { "_id": 1 }).await?, Some(theirs.clone()));

    let there = conflict("reported").await?;
    let reported = job(directory.path(), source, target, "reported");
    reported.run(&["step", "all"]).await.expect(4);
    let listed = reported.run(&["rejected", "--json"]).await.expect(0).json();
    assert_eq!(listed["rejected"][0]["id"], serde_json::json!({ "$numberInt": "1" }));
    assert_eq!(listed["rejected"][0]["cause"], "taken");
    reported.run(&["rejected", "--retry"]).await.expect(4);
    assert_eq!(there.find_one(doc! { "_id": 1 }).await?, Some(mine));
    // What a person who changes their mind expects: the documents that were in the way are replaced.
    reported.run(&["rejected", "--retry", "--on-conflict", "replace"]).await.expect(0);
    assert_eq!(there.find_one(doc! { "_id": 1 }).await?, Some(theirs));
    reported.run(&["step", "all"]).await.expect(0);
    let status = reported.status().await.ok_or("there")?;
    assert_eq!(
        (&status["findings"], &status["documents"]["rejected"]),
        (&serde_json::json!([]), &serde_json::json!(0))
    );
    assert_eq!(status["documents"]["written"], 2);
    assert!(reported.run(&["rejected", "--retry"]).await.expect(2).stderr.contains("committed"));
    Ok(())
}

/// On the target: an index that refuses what is no place, and a unique one.
async fn load_refused(from: &Client, to: &Client, name: &str, target: &str) -> Result<(), Failure> {
    let place = |x: i32| doc! { "type": "Point", "coordinates": [x, x] };
    let documents = [
        doc! { "_id": 1, "at": place(1), "mail": "one" },
        doc! { "_id": 2, "at": "nowhere", "mail": "two" },
        doc! { "_id": 3, "at": place(3), "mail": "taken" },
    ];
    from.database(name).collection("c").insert_many(documents).await?;
    to.database(target).collection("c").insert_one(doc! { "_id": 9, "at": place(9), "mail": "taken" }).await?;
    let indexes = vec![
        doc! { "key": { "at": "2dsphere" }, "name": "places" },
        doc! { "key": { "mail": 1 }, "name": "mails", "unique": true },
    ];
    to.database(target).run_command(doc! { "createIndexes": "c", "indexes": indexes }).await?;
    Ok(())
}

#[tokio::test]
async fn what_the_target_refuses_is_kept_listed_and_tried_again() -> Result<(), Failure> {
    let (source, target, from, to) = clients().await?;
    load_refused(&from, &to, "refused", "refused").await?;
    let directory = tempfile::tempdir()?;
    let ferry = job(directory.path(), source, target, "refused");
    for _ in 0..2 {
        let stopped = ferry.run(&["step", "all"]).await.expect(4);
        assert!(stopped.stderr.contains("1 documents were refused, and --max-rejected is 0"), "{}", stopped.stderr);
        assert!(stopped.stderr.contains("refused.c the target refused the document with _id"), "{}", stopped.stderr);
    }
    assert!(ferry.run(&["rejected", "--retry"]).await.expect(2).stderr.contains("step copy"), "the copy is not done");
    ferry.run(&["step", "all", "--max-rejected", "1"]).await.expect(4);
    assert!(
        ferry.status().await.ok_or("there")?["findings"]
            .to_string()
            .contains("index mails of the target: it has { mail:")
    );

    let listed = ferry.run(&["rejected", "--json"]).await.expect(0).json();
    let causes: Vec<_> =
        listed["rejected"].as_array().ok_or("a list")?.iter().map(|one| one["cause"].clone()).collect();
    assert_eq!(causes.len(), 2, "{listed}");
    assert!(causes.contains(&"refused".into()) && causes.contains(&"unique".into()), "{listed}");
    assert!(ferry.run(&["rejected"]).await.expect(0).stdout.contains("refused.c {\"$numberInt\":\"2\"} refused (code"));
    // The bytes are in the state.
    let objects: Vec<serde_json::Value> = files(&directory.path().join("state"))
        .iter()
        .filter(|(path, _)| path.to_string_lossy().contains("rejected/"))
        .map(|(_, content)| serde_json::from_slice(content))
        .collect::<Result<_, _>>()?;
    let kept = objects.iter().flat_map(|object| object["documents"].as_array().cloned().unwrap_or_default());
    let refused = kept.into_iter().find(|one| one["cause"] == "refused").ok_or("it is kept")?;
    let bytes = base64::engine::general_purpose::STANDARD.decode(refused["document"].as_str().ok_or("base64")?)?;
    let original = from.database("refused").collection::<RawDocumentBuf>("c").find_one(doc! { "_id": 2 }).await?;
    assert_eq!(original.map(RawDocumentBuf::into_bytes), Some(bytes));

    ferry.run(&["rejected", "--retry"]).await.expect(4);
    let there = to.database("refused");
    there.run_command(doc! { "dropIndexes": "c", "index": ["places", "mails"] }).await?;
    assert_eq!(ferry.run(&["rejected", "--retry", "--json"]).await.expect(0).json()["settled"], 2);
    ferry.run(&["rejected", "--retry"]).await.expect(0);
    ferry.run(&["step", "all"]).await.expect(0);
    there.collection::<Document>("c").delete_one(doc! { "_id": 9 }).await?;
    let outcome = compare(&from, &to, &Scope { only_databases: vec!["refused".into()], ..Scope::default() }).await?;
    assert!(outcome.is_equal(), "{outcome}");
    Ok(())
}

/// Wherever the copy is killed, what was refused is in the state in the end, and shows once.
#[tokio::test]
async fn a_crash_around_a_rejected_document_loses_and_doubles_nothing() -> Result<(), Failure> {
    let (source, target, from, to) = clients().await?;
    let directory = tempfile::tempdir()?;
    let jobs = |name: &str| {
        job(directory.path(), source, target, name)
            .set("MONGOFERRY_INCLUDE", "refusing")
            .set("MONGOFERRY_RENAME", format!("refusing:{name}"))
            .set("MONGOFERRY_MAX_REJECTED", "1")
            .set("MONGOFERRY_SAVE_INTERVAL", "10ms")
            .set("MONGOFERRY_LOG_LEVEL", "warn")
    };
    load_refused(&from, &to, "refusing", "refusing_0").await?;
    let prepared = async |ferry: &Ferry| {
        for step in ["discover", "plan", "prepare"] {
            ferry.run(&["step", step]).await.expect(0);
        }
    };
    let first = jobs("refusing_0");
    prepared(&first).await;
    let log = directory.path().join("points");
    first.clone().set("MONGOFERRY_CRASH_LOG", log.to_string_lossy()).run(&["step", "copy"]).await.expect(0);
    let points = std::fs::read_to_string(log)?.lines().count();
    assert!(points > 8, "{points} points: a claim, an insert, two objects, a result");
    for point in 1..=points {
        let name = format!("refusing_{point}");
        from.database("refusing").drop().await?;
        load_refused(&from, &to, "refusing", &name).await?;
        let ferry = jobs(&name);
        prepared(&ferry).await;
        ferry.clone().set("MONGOFERRY_CRASH_AT", point.to_string()).run(&["step", "copy"]).await;
        ferry.run(&["step", "copy"]).await.expect(0);
        let listed = ferry.run(&["rejected", "--json"]).await.expect(0).json();
        assert_eq!(listed["rejected"].as_array().map(Vec::len), Some(2), "point {point}: {listed}");
        let status = ferry.status().await.ok_or("there")?;
        assert_eq!(
            (&status["documents"]["written"], &status["documents"]["rejected"]),
            (&1.into(), &2.into()),
            "point {point}"
        );
    }
    Ok(())
}
