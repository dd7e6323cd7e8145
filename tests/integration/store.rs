//! The state stores: one conformance suite on all of them, and what only a folder between processes can show.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use crate::support::conformance::{conforms, lists_thousands};
use crate::support::servers::{Minio, shared_minio};
use bytes::Bytes;
use mongoferry::error::Kind;
use mongoferry::state::document::{Created, Document, Documents, Replaced};
use mongoferry::state::folder::FolderStore;
use mongoferry::state::memory::MemoryStore;
use mongoferry::state::open::{S3Options, open_store};
use mongoferry::state::probe::probe;
use mongoferry::state::s3::{S3Settings, S3Store};
use mongoferry::state::store::{StateStore, StoreError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// The bucket of all these tests.
const BUCKET: &str = "stores";

/// A store in the shared MinIO, below a prefix of one test.
async fn minio_store(prefix: &str) -> Arc<dyn StateStore> {
    Arc::new(minio_store_in(BUCKET, prefix, Minio::SECRET_KEY).await)
}

async fn minio_store_in(bucket: &str, prefix: &str, secret: &str) -> S3Store {
    let minio = shared_minio().await.unwrap();
    minio.create_bucket(BUCKET).unwrap();
    let credentials = aws_credential_types::Credentials::new(Minio::ACCESS_KEY, secret, None, None, "test");
    let loader = aws_config::defaults(aws_config::BehaviorVersion::latest()).credentials_provider(credentials);
    let settings = S3Settings {
        bucket: bucket.to_owned(),
        prefix: prefix.to_owned(),
        endpoint: Some(minio.endpoint()),
        owner: None,
        url: format!("s3://{bucket}/{prefix}"),
    };
    S3Store::open_with(settings, loader).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_conforms() {
    conforms(Arc::new(MemoryStore::new())).await;
    lists_thousands(Arc::new(MemoryStore::new())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn folder_conforms() {
    let folder = tempfile::tempdir().unwrap();
    conforms(open_store(folder.path().join("not/yet").to_str().unwrap(), S3Options::default()).await.unwrap()).await;
    lists_thousands(Arc::new(FolderStore::open(folder.path().join("many")))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn minio_conforms() {
    conforms(minio_store("conforms/to/it").await).await;
}

#[tokio::test]
async fn minio_without_a_prefix_has_plain_keys() {
    let store = minio_store_in(BUCKET, "", Minio::SECRET_KEY).await;
    store.create("plain/k", "1".into()).await.unwrap();
    assert_eq!(store.list("plain/").await.unwrap(), ["plain/k"]);
    assert_eq!(minio_store("plain").await.get("k").await.unwrap().unwrap().body, "1");
}

#[tokio::test]
async fn minio_refuses_by_name() {
    let missing = minio_store_in("mongoferry-missing", "x", Minio::SECRET_KEY).await;
    let wrong = minio_store_in(BUCKET, "x", "not-the-secret").await;
    for (store, says) in [(missing, "bucket `mongoferry-missing` does not exist"), (wrong, "SignatureDoesNotMatch")] {
        for answer in [
            store.get("k").await.map(drop),
            store.list("").await.map(drop),
            store.create("k", "1".into()).await.map(drop),
            store.replace("k", "1".into(), &mongoferry::state::store::Etag("\"0\"".to_owned())).await.map(drop),
        ] {
            let Err(StoreError::Refused(text)) = answer else { panic!("{answer:?}") };
            assert!(text.contains(says) && !text.contains("not-the-secret"), "{text}");
        }
        assert_eq!(probe(&store).await.unwrap_err().kind(), Kind::BadInput);
    }
}

/// Who wrote how often: each writer owns one entry, so that nothing lost and nothing doubled goes unseen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Counts {
    counts: BTreeMap<String, u64>,
}

impl Document for Counts {
    const KIND: &'static str = "counts";
    const VERSION: u32 = 1;
}

/// Raises one writer's count until `limit`, telling `acknowledged` of each.
async fn count(documents: &Documents, writer: &str, limit: u64, acknowledged: impl Fn(u64)) {
    let mut stored = documents.create("shared/counts", &Counts::default()).await.unwrap().into_stored();
    let mut next = stored.value.counts.get(writer).copied().unwrap_or(0) + 1;
    while next <= limit {
        let mut counts = stored.value.clone();
        counts.counts.insert(writer.to_owned(), next);
        match documents.replace("shared/counts", &counts, &stored).await.unwrap() {
            Replaced::Mine(now) => {
                stored = now;
                acknowledged(next);
                next += 1;
            }
            Replaced::Lost(now) => stored = now.unwrap(),
        }
    }
}

async fn counts(store: Arc<dyn StateStore>) -> BTreeMap<String, u64> {
    Documents::new(store, "job").read::<Counts>("shared/counts").await.unwrap().unwrap().value.counts
}

/// Eight workers that share nothing but the server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_on_minio_lose_no_count() {
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..8 {
        writers.spawn(async move {
            let documents = Documents::new(minio_store("documents").await, "job");
            count(&documents, &format!("w{writer}"), 10, |_| {}).await;
        });
    }
    writers.join_all().await;
    let expected = (0..8).map(|writer| (format!("w{writer}"), 10)).collect();
    assert_eq!(counts(minio_store("documents").await).await, expected);
}

const CHILD_FOLDER: &str = "MONGOFERRY_TEST_STORE_FOLDER";
const CHILD_NAME: &str = "MONGOFERRY_TEST_STORE_WRITER";
const CHILD_LIMIT: &str = "MONGOFERRY_TEST_STORE_LIMIT";

/// The other process of the tests below; does nothing when it is not started by them.
#[tokio::test]
#[ignore = "started as a process of its own by other tests"]
async fn folder_writer() {
    let Ok(folder) = std::env::var(CHILD_FOLDER) else { return };
    let (name, limit) = (std::env::var(CHILD_NAME).unwrap(), std::env::var(CHILD_LIMIT).unwrap());
    let documents = Documents::new(Arc::new(FolderStore::open(folder)), "job");
    count(&documents, &name, limit.parse().unwrap(), |number| println!("acknowledged {number}")).await;
}

fn start_writer(folder: &Path, name: &str, limit: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store::folder_writer", "--ignored", "--nocapture"])
        .env(CHILD_FOLDER, folder)
        .env(CHILD_NAME, name)
        .env(CHILD_LIMIT, limit.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn leftovers(folder: &Path) -> usize {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.as_encoded_bytes().starts_with(b".")).count()
}

#[tokio::test]
async fn folder_between_processes_loses_no_count() {
    let folder = tempfile::tempdir().unwrap();
    let writers: Vec<Child> = (0..4).map(|number| start_writer(folder.path(), &format!("w{number}"), 50)).collect();
    for writer in writers {
        let output = writer.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    let expected = (0..4).map(|writer| (format!("w{writer}"), 50)).collect();
    assert_eq!(counts(Arc::new(FolderStore::open(folder.path()))).await, expected);
    assert_eq!(leftovers(&folder.path().join("job/shared/.tmp")), 0);
}

#[tokio::test]
async fn folder_survives_kill_9_at_any_moment() {
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    for round in 0..15_u64 {
        let mut writer = start_writer(folder.path(), "w", u64::MAX);
        let lines = BufReader::new(writer.stdout.take().unwrap()).lines();
        let (first, heard) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || {
            let mut last = None;
            for line in lines.map_while(Result::ok) {
                if let Some(number) = line.rsplit_once("acknowledged ").and_then(|(_, number)| number.parse().ok()) {
                    last = Some(number);
                    let _ = first.send(());
                }
            }
            last
        });
        heard.recv_timeout(Duration::from_secs(20)).unwrap();
        std::thread::sleep(Duration::from_micros(round * 3_700));
        writer.kill().unwrap();
        writer.wait().unwrap();
        let last: u64 = reader.join().unwrap().unwrap();
        assert!(last > acknowledged);
        // What was acknowledged is there; at most one more was written and not acknowledged.
        let there = counts(Arc::new(FolderStore::open(folder.path()))).await["w"];
        assert!(there == last || there == last + 1, "{there} after {last} was acknowledged");
        acknowledged = there;
        assert!(leftovers(&folder.path().join("job/shared/.tmp")) <= 1);
    }
    // Nobody left a lock behind, and the next writer cleans up.
    let documents = Documents::new(Arc::new(FolderStore::open(folder.path())), "job");
    count(&documents, "w", acknowledged + 1, |_| {}).await;
    assert_eq!(leftovers(&folder.path().join("job/shared/.tmp")), 0);
}

/// A process that is stopped in the middle of its writes may stop at most one folder's replaces, and rarely does.
#[tokio::test]
async fn folder_goes_on_while_another_writer_is_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = start_writer(folder.path(), "stopped", u64::MAX);
    let mut lines = BufReader::new(writer.stdout.take().unwrap()).lines();
    while !lines.next().unwrap().unwrap().contains("acknowledged") {}
    let drain = std::thread::spawn(move || lines.for_each(drop));
    let id = rustix::process::Pid::from_child(&writer);
    let documents = Documents::new(Arc::new(FolderStore::open(folder.path())), "job");
    for round in 1..=10 {
        rustix::process::kill_process(id, rustix::process::Signal::STOP).unwrap();
        count(&documents, "running", round, |_| {}).await;
        rustix::process::kill_process(id, rustix::process::Signal::CONT).unwrap();
        tokio::time::sleep(Duration::from_millis(7)).await;
    }
    writer.kill().unwrap();
    writer.wait().unwrap();
    drain.join().unwrap();
    assert_eq!(counts(Arc::new(FolderStore::open(folder.path()))).await["running"], 10);
}

#[tokio::test]
async fn the_first_of_two_processes_creates() {
    let folder = tempfile::tempdir().unwrap();
    let stores: Vec<Documents> =
        (0..20).map(|_| Documents::new(Arc::new(FolderStore::open(folder.path())), "job")).collect();
    let mut creates = tokio::task::JoinSet::new();
    for (number, documents) in stores.into_iter().enumerate() {
        creates.spawn(async move {
            let counts = Counts { counts: BTreeMap::from([("creator".to_owned(), number as u64)]) };
            documents.create("deep/in/there", &counts).await.unwrap()
        });
    }
    let created = creates.join_all().await;
    let mine: Vec<_> = created.iter().filter(|created| matches!(created, Created::Mine(_))).collect();
    assert_eq!(mine.len(), 1);
    let winner = created.iter().find_map(|created| match created {
        Created::Mine(stored) => Some(stored.clone()),
        Created::Existing(_) => None,
    });
    for created in created {
        assert_eq!(Some(created.into_stored()), winner);
    }
    let raw = FolderStore::open(folder.path()).get("job/deep/in/there").await.unwrap().unwrap().body;
    assert!(raw.starts_with(b"{\n  \"kind\": \"counts\",\n  \"version\": 1,\n  \"write_id\": "), "{raw:?}");
    assert_eq!(raw.last(), Some(&b'\n'));
    let _: Bytes = raw;
}
