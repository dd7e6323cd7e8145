//! What a cluster with a million chunks costs: the time and the peak of memory of each step, of a collection without
//! documents, so that nothing but the map and the shards' filters is measured. `make bench-chunks`.

#![expect(clippy::disallowed_methods, clippy::disallowed_macros, reason = "the benchmark has a clock and an output")]

#[expect(dead_code, reason = "the tests use more of it")]
#[path = "../tests/support/cluster.rs"]
mod cluster;
#[expect(dead_code, reason = "the tests use more of it")]
#[path = "../tests/support/guarded.rs"]
mod guarded;
#[path = "../tests/support/replica_set.rs"]
mod replica_set;
#[expect(dead_code, reason = "the tests use more of it")]
#[path = "../tests/support/servers.rs"]
mod servers;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Bson, Document, Timestamp, doc};

use cluster::{Cluster, ClusterOptions};
use servers::{Failure, ReplicaSet, StartOptions};

const CHUNKS: u32 = 1_000_000;

/// What one insert sends.
const BATCH: u32 = 20_000;

/// How often the process is looked at.
const LOOK: Duration = Duration::from_millis(5);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let cluster = Cluster::start(ClusterOptions::default()).await?;
    let target = ReplicaSet::start(StartOptions::default()).await?;
    cluster.create_database("many", "s0").await?;
    cluster.shard_collection("many.c", doc! {"k": 1}, doc! {}).await?;
    // So that both shards have the collection.
    cluster.split("many.c", doc! {"k": key(1)}).await?;
    cluster.move_chunk("many.c", doc! {"k": key(1)}, "s1").await?;
    eprintln!("writing a map of {CHUNKS} chunks");
    write_chunks(&cluster).await?;

    let folder = tempfile::tempdir()?;
    println!("| step | s | peak MB |\n| --- | --- | --- |");
    for step in ["discover", "plan", "prepare", "copy", "index", "verify"] {
        let started = Instant::now();
        let mut child = Command::new(env!("CARGO_BIN_EXE_mongoferry"))
            .args(["step", step, "--quiet"])
            .env("MONGOFERRY_SOURCE_CONFIG", cluster.config_uri())
            .env("MONGOFERRY_SOURCE_SHARD", cluster.shard_uris().join(" "))
            .env("MONGOFERRY_TARGET", target.uri())
            .env("MONGOFERRY_STATE", folder.path())
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .spawn()?;
        let mut peak = 0;
        let status = loop {
            peak = peak.max(peak_of(child.id()));
            if let Some(status) = child.try_wait()? {
                break status;
            }
            std::thread::sleep(LOOK);
        };
        if !status.success() {
            return Err(format!("step {step} ended with {status}").into());
        }
        println!("| {step} | {:.1} | {:.0} |", started.elapsed().as_secs_f64(), peak as f64 / 1e6);
    }
    Ok(())
}

/// Keys as of documents that were inserted one a second.
fn key(number: u32) -> ObjectId {
    let mut bytes = [7; 12];
    bytes[..4].copy_from_slice(&(0x6000_0000 + number).to_be_bytes());
    ObjectId::from_bytes(bytes)
}

/// In the place of the two chunks that there are.
async fn write_chunks(cluster: &Cluster) -> Result<(), Failure> {
    let placement = cluster.placement("many.c").await?;
    let uuid = placement.entry.get("uuid").cloned().ok_or("no uuid")?;
    let chunks = cluster.config_client().await?.database("config").collection::<Document>("chunks");
    chunks.delete_many(doc! {"uuid": &uuid}).await?;
    let bound = |number: u32| match number {
        0 => Bson::MinKey,
        CHUNKS => Bson::MaxKey,
        number => key(number).into(),
    };
    for first in (0..CHUNKS).step_by(BATCH as usize) {
        let batch = (first..first + BATCH).map(|number| {
            doc! {
                "uuid": &uuid, "min": {"k": bound(number)}, "max": {"k": bound(number + 1)},
                "shard": if number % 2 == 0 { "s0" } else { "s1" },
                "lastmod": Timestamp { time: 2, increment: number }, "history": [],
            }
        });
        chunks.insert_many(batch).await?;
    }
    Ok(())
}

/// The peak of a process's resident set, in bytes; 0 when it is gone.
fn peak_of(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes =
        line.and_then(|line| line.trim().strip_suffix(" kB")).and_then(|text| text.trim().parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}
