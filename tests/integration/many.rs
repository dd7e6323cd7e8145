//! Ten thousand collections with three indexes each: how long discover takes, what memory each step has, how large the
//! documents of the state become. `make many-test`, and not part of `make test`: it takes a quarter of an hour.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, stream};
use mongodb::Client;
use mongodb::bson::{Document, doc};

use crate::support::ferry::{Ferry, files};
use crate::support::servers::{Failure, ReplicaSet, StartOptions};

/// How long discover may take, with a server that is warm and a machine that does nothing else.
const LONGEST_DISCOVER: Duration = Duration::from_secs(60);

/// How much memory discover may have.
const MOST_MEMORY: u64 = 150 << 20;

/// How large a document of the state may be.
const LARGEST_DOCUMENT: usize = 4 << 20;

/// How many databases the collections are in.
const DATABASES: usize = 10;

/// A server that keeps few of its files open: each collection has five, and a user may have no more than some thousands.
fn frugal(name: &str) -> StartOptions {
    let engine = "file_manager=(close_idle_time=3,close_scan_interval=1,close_handle_minimum=100),cache_cursors=false";
    StartOptions {
        name: name.to_owned(),
        extra_args: ["--wiredTigerEngineConfigString", engine, "--setParameter", "wiredTigerCursorCacheSize=0"]
            .map(str::to_owned)
            .to_vec(),
        ..StartOptions::default()
    }
}

async fn load(client: &Client, collections: usize) -> Result<(), Failure> {
    let make = |number: usize| async move {
        let database = client.database(&format!("many{}", number % DATABASES));
        let name = format!("collection_{number:05}");
        let partial = doc! { "email": { "$type": "string" } };
        let indexes = [
            doc! { "key": { "customer": 1, "created": -1 }, "name": "customer_1_created_-1" },
            doc! { "key": { "email": 1 }, "name": "email_1", "unique": true, "partialFilterExpression": partial },
            doc! { "key": { "expires": 1 }, "name": "expires_1", "expireAfterSeconds": 86_400 },
        ];
        database.run_command(doc! { "createIndexes": &name, "indexes": &indexes[..] }).await?;
        let documents = (0..2).map(|id| doc! { "_id": id, "customer": id, "email": format!("{number}-{id}@x") });
        database.collection::<Document>(&name).insert_many(documents).await?;
        Ok::<_, Failure>(())
    };
    stream::iter((0..collections).map(make)).buffer_unordered(8).try_collect::<Vec<_>>().await?;
    Ok(())
}

/// Runs a command, and says how long it took and how much memory it had at most.
async fn measure(ferry: &Ferry, arguments: &[&str]) -> Result<(Duration, u64), Failure> {
    let mut command = ferry.command(arguments);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let shown = arguments.join(" ");
    let (time, memory, code, stderr) = tokio::task::spawn_blocking(move || {
        let begun = Instant::now();
        let mut child = command.spawn()?;
        let mut pipe = child.stderr.take();
        let reading = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = pipe.as_mut().map(|pipe| pipe.read_to_string(&mut text));
            text
        });
        let mut memory = 0;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            memory = peak(child.id()).unwrap_or(memory);
            std::thread::sleep(Duration::from_millis(10));
        };
        Ok::<_, std::io::Error>((begun.elapsed(), memory, status.code(), reading.join().unwrap_or_default()))
    })
    .await??;
    assert_eq!(code, Some(0), "{shown}: {stderr}");
    println!("{shown:<28} {:>7.1} s {:>5} MiB", time.as_secs_f64(), memory >> 20);
    Ok((time, memory))
}

/// The most memory that a process has had, in bytes.
fn peak(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? << 10)
}

fn largest_document(state: &Path) -> (usize, String) {
    let sizes = files(state).into_iter().map(|(path, content)| (content.len(), path.display().to_string()));
    sizes.max().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a quarter of an hour: make many-test"]
async fn ten_thousand_collections() -> Result<(), Failure> {
    let collections = std::env::var("MANY").ok().and_then(|many| many.parse().ok()).unwrap_or(10_000);
    let (source, target) =
        tokio::try_join!(ReplicaSet::start(frugal("many-from")), ReplicaSet::start(frugal("many-to")))?;
    let begun = Instant::now();
    load(&Client::with_uri_str(source.uri()).await?, collections).await?;
    println!("{collections} collections with 3 indexes each, made in {:.0} s", begun.elapsed().as_secs_f64());
    let directory = tempfile::tempdir()?;
    let ferry = Ferry::new(directory.path(), &source.uri(), &target.uri(), "warm");
    measure(&ferry, &["step", "discover"]).await?;
    let ferry = ferry.set("MONGOFERRY_JOB", "many");
    let (time, memory) = measure(&ferry, &["step", "discover"]).await?;
    for step in ["plan", "prepare", "copy", "index", "verify", "commit"] {
        measure(&ferry, &["step", step]).await?;
    }
    measure(&ferry, &["status", "--json"]).await?;
    measure(&ferry, &["report"]).await?;
    measure(&ferry, &["report", "--html", "report.html"]).await?;
    let page = fs::metadata(directory.path().join("report.html"))?.len();
    let (largest, name) = largest_document(&directory.path().join("state"));
    println!("the page has {} KiB, the largest document {} KiB: {name}", page >> 10, largest >> 10);
    assert!(largest <= LARGEST_DOCUMENT, "{name} has {largest} bytes");
    assert!(memory <= MOST_MEMORY, "discover had {} MiB", memory >> 20);
    assert!(time <= LONGEST_DISCOVER, "discover took {time:.1?}");
    Ok(())
}
