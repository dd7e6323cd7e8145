//! How each contestant is started that runs in processes of its own.
//!
//! Each runs with its defaults, but for what makes it do the same work: copy the only database of the source, indexes
//! after the documents, and end. What they have in common: the target is empty, and the server's own default write
//! concern is majority (5.0 and newer, one member).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::cluster::Cluster;
use crate::contestant::Contestant;
use crate::guarded::free_port;
use crate::results::steps_in_log;
use crate::servers::{Failure, Minio};

/// Where programs are: `BENCH_PEERS` first, then `PATH`.
pub fn find_program(name: &str, peers: Option<&Path>, path: &str) -> Option<PathBuf> {
    let folders = peers.map(Path::to_owned).into_iter().chain(std::env::split_paths(path));
    folders.map(|folder| folder.join(name)).find(|program| program.is_file())
}

/// The servers that a run is between, and where it may leave files.
pub struct Place<'a> {
    /// Connection string of the source.
    pub source: &'a str,
    /// The cluster that has the same set.
    pub cluster: Option<&'a Cluster>,
    /// Connection string of the target.
    pub target: &'a str,
    /// An empty folder, which is removed afterwards.
    pub folder: PathBuf,
    /// Where the programs are.
    pub programs: &'a BTreeMap<String, PathBuf>,
    /// Runs mongoferry under `perf record` into this file.
    pub profile: Option<&'a Path>,
}

/// A contestant that is ready to start. What it needs beside it, such as MinIO, ends when this is dropped.
pub struct Ready {
    commands: Vec<Command>,
    log: PathBuf,
    /// Where pcsm answers.
    status_port: Option<u16>,
    _minio: Option<Minio>,
}

impl Ready {
    /// Prepares a contestant that runs in processes of its own.
    ///
    /// # Errors
    /// What could not be written or started.
    pub async fn new(contestant: Contestant, place: &Place<'_>) -> Result<Self, Failure> {
        let log = place.folder.join("log");
        let mut ready = Ready { commands: Vec::new(), log, status_port: None, _minio: None };
        match contestant {
            Contestant::Baseline => return Err("the baseline has no process of its own".into()),
            Contestant::Mongoferry => ready.commands.push(mongoferry(place)),
            Contestant::RareSaves => {
                let mut command = mongoferry(place);
                // The longest lease there is, and the longest interval that it allows.
                command.args(["--lease", "10m", "--save-interval", "200s"]);
                ready.commands.push(command);
            }
            Contestant::Minio => {
                let minio = Minio::start().await?;
                minio.create_bucket("bench")?;
                let mut command = mongoferry(place);
                command.env("MONGOFERRY_STATE", "s3://bench").envs(minio.environment());
                ready.commands.push(command);
                ready._minio = Some(minio);
            }
            Contestant::NoDigests => {
                let mut command = mongoferry(place);
                command.args(["--digests", "no"]);
                ready.commands.push(command);
            }
            Contestant::TwoShards => {
                let cluster = place.cluster.ok_or("there is no cluster")?;
                let mut command = mongoferry(place);
                command.env_remove("MONGOFERRY_SOURCE");
                command.env("MONGOFERRY_SOURCE_CONFIG", cluster.config_uri());
                command.env("MONGOFERRY_SOURCE_SHARD", cluster.shard_uris().join(" "));
                ready.commands.push(command);
            }
            Contestant::DumpRestore => {
                let mut dump = program(place, "mongodump")?;
                dump.args(["--archive", "--uri", place.source, "--db", "bench"]);
                let mut restore = program(place, "mongorestore")?;
                restore.args(["--archive", "--uri", place.target]);
                ready.commands = vec![dump, restore];
            }
            Contestant::MongoShake => {
                let configuration = place.folder.join("collector.conf");
                std::fs::write(&configuration, mongoshake_configuration(place)?)?;
                let mut collector = program(place, "collector")?;
                collector.arg(format!("-conf={}", configuration.display())).current_dir(&place.folder);
                ready.commands.push(collector);
            }
            Contestant::Pcsm => {
                let port = free_port()?;
                let mut pcsm = program(place, "pcsm")?;
                pcsm.args(["--source", place.source, "--target", place.target, "--log-no-color", "--start"]);
                pcsm.args(["--port", &port.to_string()]);
                ready.commands.push(pcsm);
                ready.status_port = Some(port);
            }
        }
        Ok(ready)
    }

    /// Starts it: several processes as a pipe from one to the next.
    ///
    /// # Errors
    /// When a program cannot be run.
    pub fn start(&mut self) -> Result<Vec<Child>, Failure> {
        let log = File::create(&self.log)?;
        let mut children: Vec<Child> = Vec::new();
        let last = self.commands.len().saturating_sub(1);
        for (index, command) in self.commands.iter_mut().enumerate() {
            let input = children.last_mut().and_then(|child| child.stdout.take());
            command.stdin(input.map_or_else(Stdio::null, Stdio::from));
            command.stdout(if index == last { Stdio::from(log.try_clone()?) } else { Stdio::piped() });
            command.stderr(log.try_clone()?);
            children.push(command.spawn()?);
        }
        Ok(children)
    }

    /// Whether one that does not end by itself has done its work.
    ///
    /// # Errors
    /// When it says that it failed.
    pub fn is_done(&self) -> Result<bool, Failure> {
        let Some(port) = self.status_port else { return Ok(false) };
        // It does not listen at once.
        let Ok(status) = get_json(port, "/status") else { return Ok(false) };
        if status["ok"] == false || status["state"] == "failed" {
            return Err(format!("pcsm says {status}").into());
        }
        Ok(status["initialSync"]["cloneCompleted"] == true)
    }

    /// The end of what it printed, to say why it failed.
    pub fn last_words(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        log.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().to_owned()
    }

    /// How long each step of mongoferry took, in seconds.
    pub fn steps(&self) -> BTreeMap<String, f64> {
        steps_in_log(&std::fs::read_to_string(&self.log).unwrap_or_default())
    }
}

fn program(place: &Place<'_>, name: &str) -> Result<Command, Failure> {
    Ok(Command::new(place.programs.get(name).ok_or_else(|| format!("{name} was not found"))?))
}

fn mongoferry(place: &Place<'_>) -> Command {
    let binary = env!("CARGO_BIN_EXE_mongoferry");
    let mut command = match place.profile {
        None => Command::new(binary),
        Some(profile) => {
            let mut perf = Command::new("perf");
            perf.args(["record", "--quiet", "--freq", "499", "--call-graph", "dwarf,16384", "--output"]);
            perf.arg(profile).arg("--").arg(binary);
            perf
        }
    };
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("MONGOFERRY_") || name.starts_with("AWS_")) {
        command.env_remove(name);
    }
    command
        .args(["step", "all"])
        .env("MONGOFERRY_SOURCE", place.source)
        .env("MONGOFERRY_TARGET", place.target)
        .env("MONGOFERRY_STATE", place.folder.join("state"))
        .current_dir(&place.folder);
    command
}

/// As MongoShake's own `collector.conf` has it, but for the addresses, `sync_mode`, the log, and the indexes, which it
/// leaves out by default.
fn mongoshake_configuration(place: &Place<'_>) -> Result<String, Failure> {
    let ports = [free_port()?, free_port()?, free_port()?];
    Ok(format!(
        "conf.version = 10
id = bench
master_quorum = false
full_sync.http_port = {full}
incr_sync.http_port = {incremental}
system_profile_port = {profile}
log.level = info
log.dir = {folder}
log.file = collector.log
log.flush = false
sync_mode = full
mongo_urls = {source}
tunnel = direct
tunnel.address = {target}
tunnel.message = raw
mongo_connect_mode = secondaryPreferred
filter.ddl_enable = false
checkpoint.storage.db = mongoshake
checkpoint.storage.collection = ckpt_default
checkpoint.start_position = 1970-01-01T00:00:00Z
full_sync.reader.collection_parallel = 6
full_sync.reader.write_document_parallel = 8
full_sync.reader.document_batch_size = 128
full_sync.reader.fetch_batch_size = 8192
full_sync.reader.parallel_thread = 1
full_sync.reader.parallel_index = _id
full_sync.collection_exist_drop = true
full_sync.create_index = foreground
full_sync.executor.insert_on_dup_update = false
full_sync.executor.filter.orphan_document = false
full_sync.executor.majority_enable = false
incr_sync.mongo_fetch_method = oplog
incr_sync.shard_key = collection
incr_sync.worker = 8
incr_sync.tunnel.write_thread = 8
incr_sync.worker.batch_queue_size = 64
incr_sync.adaptive.batching_max_size = 1024
incr_sync.fetcher.buffer_capacity = 256
incr_sync.conflict_write_to = none
",
        full = ports[0],
        incremental = ports[1],
        profile = ports[2],
        folder = place.folder.display(),
        source = place.source,
        target = place.target,
    ))
}

fn get_json(port: u16, path: &str) -> Result<serde_json::Value, Failure> {
    // Go listens on `localhost`, which is 127.0.0.1 first.
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").ok_or("not an HTTP answer")?;
    Ok(serde_json::from_str(body)?)
}
