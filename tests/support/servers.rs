//! Servers for integration tests: mongod replica sets, MinIO, and moto for what else AWS has, on free ports of this
//! machine, in temporary folders.
//!
//! The binaries are those that `infra/local/install.sh` finds or installs. A test that only reads and writes its own
//! databases takes the shared servers ([`shared_source`], [`shared_target`], [`shared_minio`]), which the first test
//! that asks starts; a test that kills, freezes or counts starts its own.
//!
//! No server outlives the test process, however that ends ([`super::guarded`]).
//!
//! Nothing here is bound to a tokio runtime: every test may have its own. Clients are made anew from the URIs.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use mongodb::Client;
use mongodb::bson::doc;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::OnceCell;

use super::guarded::{ATTEMPTS, Guarded, address, free_port, install, temporary_directory};
use super::replica_set;

/// What goes wrong while a server is started or stopped.
pub type Failure = Box<dyn Error + Send + Sync>;

/// The user that a set with `auth` has, with the role `root`.
pub const ROOT_USER: &str = "root";

/// That user's password, with everything that a careless connection string or log stumbles over.
pub const ROOT_PASSWORD: &str = "p@ss:w/rd?&%25#[ü]=$HOME'\"";

/// How the servers of a replica set are started.
#[derive(Debug, Clone)]
pub struct StartOptions {
    /// How many members.
    pub members: usize,
    /// Name of the set.
    pub name: String,
    /// Whether it is no replica set at all, but one server that stands alone.
    pub standalone: bool,
    /// Whether clients must log in, as [`ROOT_USER`] with [`ROOT_PASSWORD`].
    pub auth: bool,
    /// Whether the servers take commands that exist for tests, such as `configureFailPoint`.
    pub test_commands: bool,
    /// More arguments for each mongod.
    pub extra_args: Vec<String>,
    /// Another version than the default, as `infra/local/install.sh mongod VERSION` knows it.
    pub version: Option<String>,
}

impl Default for StartOptions {
    fn default() -> Self {
        StartOptions {
            members: 1,
            name: "rs".to_owned(),
            standalone: false,
            auth: false,
            test_commands: false,
            extra_args: Vec::new(),
            version: None,
        }
    }
}

/// A running replica set. Its servers end, and its folder goes, when it is dropped or the process ends.
#[derive(Debug)]
pub struct ReplicaSet {
    name: String,
    auth: bool,
    directory: PathBuf,
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    port: u16,
    folder: PathBuf,
    program: PathBuf,
    arguments: Vec<String>,
    server: Option<Guarded>,
}

impl ReplicaSet {
    /// Starts the servers, makes them a replica set, and waits until one is primary and the others are secondaries.
    pub async fn start(options: StartOptions) -> Result<Self, Failure> {
        let started = options.clone();
        let set = tokio::task::spawn_blocking(move || ReplicaSet::start_servers(&started)).await??;
        if options.standalone {
            return Ok(set);
        }
        let ports: Vec<u16> = set.members.iter().map(|member| member.port).collect();
        let primary = replica_set::initiate(&options.name, &ports).await?;
        if options.auth {
            // As long as there is no user, a connection from this machine may create the first.
            let client = Client::with_uri_str(replica_set::direct_uri(primary)).await?;
            let create = doc! {
                "createUser": ROOT_USER, "pwd": ROOT_PASSWORD, "roles": ["root"], "writeConcern": {"w": "majority"},
            };
            client.database("admin").run_command(create).await?;
        }
        Ok(set)
    }

    fn start_servers(options: &StartOptions) -> Result<Self, Failure> {
        let program = mongod(options.version.as_deref())?;
        let directory = temporary_directory("mongod")?;
        let mut set = ReplicaSet {
            name: options.name.clone(),
            auth: options.auth,
            directory: directory.clone(),
            members: vec![],
        };
        // Threads, so that three members start in the time of one.
        let starting: Vec<_> = (0..options.members)
            .map(|index| {
                let (options, program) = (options.clone(), program.clone());
                let folder = directory.join(format!("member{index}"));
                std::thread::spawn(move || Member::start(&options, program, folder))
            })
            .collect();
        for member in starting {
            set.members.push(member.join().map_err(|_| "a thread that starts mongod panicked")??);
        }
        Ok(set)
    }

    /// The connection string of the set, with user and password where it wants them.
    pub fn uri(&self) -> String {
        let (login, authentication) = self.login();
        format!("mongodb://{login}{}/?replicaSet={}{authentication}", self.hosts(), self.name)
    }

    /// Name and members, as servers of a cluster name a set: `rs/127.0.0.1:1,127.0.0.1:2`.
    pub fn seeds(&self) -> String {
        format!("{}/{}", self.name, self.hosts())
    }

    fn hosts(&self) -> String {
        let hosts: Vec<String> = self.members.iter().map(|member| address(member.port)).collect();
        hosts.join(",")
    }

    /// The connection string of one member alone, whatever its role.
    pub fn member_uri(&self, index: usize) -> String {
        let (login, authentication) = self.login();
        format!("mongodb://{login}127.0.0.1:{}/?directConnection=true{authentication}", self.members[index].port)
    }

    fn login(&self) -> (String, &'static str) {
        if !self.auth {
            return (String::new(), "");
        }
        (format!("{ROOT_USER}:{}@", utf8_percent_encode(ROOT_PASSWORD, NON_ALPHANUMERIC)), "&authSource=admin")
    }

    /// The port of one member.
    pub fn port(&self, index: usize) -> u16 {
        self.members[index].port
    }

    /// The process of one member; none while it does not run.
    pub fn pid(&self, index: usize) -> Option<Pid> {
        self.members[index].server.as_ref().map(|server| server.pid)
    }

    /// The folder that holds the folders of all members; it is removed with the set.
    pub fn data_dir(&self) -> &Path {
        &self.directory
    }

    /// The connection string of one member over its Unix domain socket.
    pub fn socket_uri(&self, index: usize) -> String {
        let Member { folder, port, .. } = &self.members[index];
        let socket = folder.join(format!("mongodb-{port}.sock")).display().to_string();
        format!("mongodb://{}/?directConnection=true", socket.replace('/', "%2F"))
    }

    /// Which member is primary now; waits for one, while an election goes on among those that run, and for the others
    /// to be secondaries. Not while a member is frozen: that one would be waited for.
    pub async fn primary(&self) -> Result<usize, Failure> {
        let running: Vec<u16> =
            self.members.iter().filter(|member| member.server.is_some()).map(|member| member.port).collect();
        let port = replica_set::wait_for_members(&running).await?;
        self.members.iter().position(|member| member.port == port).ok_or_else(|| "no such port".into())
    }

    /// Ends one member as a power cut would: SIGKILL. Its data stay. Returns when the process is gone.
    pub fn kill(&mut self, index: usize) -> Result<(), Failure> {
        match self.members[index].server.take() {
            Some(server) => server.kill_and_keep(),
            None => Err(format!("member {index} does not run").into()),
        }
    }

    /// Starts a member that was killed again, on its port and with its data. Returns when it takes connections.
    pub fn restart(&mut self, index: usize) -> Result<(), Failure> {
        let member = &mut self.members[index];
        if member.server.is_some() {
            return Err(format!("member {index} runs; kill it first").into());
        }
        let server = member.spawn()?;
        server.wait_until_it_listens(member.port)?;
        member.server = Some(server);
        Ok(())
    }

    /// Stops a member in its tracks (SIGSTOP): it keeps its connections and answers nothing.
    pub fn freeze(&self, index: usize) -> Result<(), Failure> {
        self.signal(index, Signal::STOP)
    }

    /// Lets a frozen member go on.
    pub fn thaw(&self, index: usize) -> Result<(), Failure> {
        self.signal(index, Signal::CONT)
    }

    fn signal(&self, index: usize, signal: Signal) -> Result<(), Failure> {
        let pid = self.pid(index).ok_or_else(|| format!("member {index} does not run"))?;
        Ok(kill_process(pid, signal)?)
    }
}

impl Drop for ReplicaSet {
    fn drop(&mut self) {
        // The watchdogs remove the folders of the servers that run; here goes what members leave that were killed, or
        // never started.
        self.members.clear();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

impl Member {
    fn start(options: &StartOptions, program: PathBuf, folder: PathBuf) -> Result<Self, Failure> {
        fs::create_dir_all(folder.join("db"))?;
        let mut complaint = Failure::from("not tried");
        for _ in 0..ATTEMPTS {
            let port = free_port()?;
            let mut member = Member {
                port,
                folder: folder.clone(),
                program: program.clone(),
                arguments: mongod_arguments(options, port, &folder)?,
                server: None,
            };
            let server = member.spawn()?;
            match server.wait_until_it_listens(port) {
                Ok(()) => {
                    member.server = Some(server);
                    return Ok(member);
                }
                Err(error) => {
                    complaint = error;
                    server.kill_and_keep()?;
                }
            }
        }
        Err(complaint)
    }

    fn spawn(&self) -> Result<Guarded, Failure> {
        Guarded::spawn(&self.program, &self.arguments, &[], &self.folder)
    }
}

fn mongod_arguments(options: &StartOptions, port: u16, folder: &Path) -> Result<Vec<String>, Failure> {
    let database_path = folder.join("db").display().to_string();
    let port = port.to_string();
    let mut arguments: Vec<String> = [
        ["--dbpath", &database_path],
        ["--port", &port],
        ["--bind_ip", "127.0.0.1"],
        ["--wiredTigerCacheSizeGB", "0.5"],
        // Not in /tmp, where a SIGKILL would leave the socket's file.
        ["--unixSocketPrefix", &folder.display().to_string()],
        ["--setParameter", "diagnosticDataCollectionEnabled=false"],
        // The refresh of sessions writes too; without it opcounters stand still when nobody writes.
        ["--setParameter", "disableLogicalSessionCacheRefresh=true"],
    ]
    .iter()
    .flatten()
    .map(ToString::to_string)
    .collect();
    if !options.extra_args.iter().any(|argument| argument == "--oplogSize") {
        arguments.extend(["--oplogSize", "512"].map(str::to_owned));
    }
    if !options.standalone {
        arguments.extend(["--replSet".to_owned(), options.name.clone()]);
    }
    if options.test_commands {
        arguments.extend(["--setParameter".to_owned(), "enableTestCommands=1".to_owned()]);
    }
    if options.auth {
        // Members of a set that knows users know one another by a common key, which only they may read.
        let key_file = folder.join("key");
        if !key_file.exists() {
            let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o400).open(&key_file)?;
            file.write_all(b"bW9uZ29mZXJyeSB0ZXN0cw==\n")?;
        }
        arguments.extend(["--keyFile".to_owned(), key_file.display().to_string()]);
    }
    arguments.extend(options.extra_args.iter().cloned());
    Ok(arguments)
}

/// A running MinIO. It ends, and its folder goes, when it is dropped or the process ends.
#[derive(Debug)]
pub struct Minio {
    port: u16,
    directory: PathBuf,
    _server: Guarded,
}

impl Minio {
    /// Starts MinIO and waits until it takes requests.
    pub async fn start() -> Result<Self, Failure> {
        tokio::task::spawn_blocking(Minio::start_server).await?
    }

    fn start_server() -> Result<Self, Failure> {
        let program = install(&["minio"])?;
        let directory = temporary_directory("minio")?;
        let folder = directory.join("server");
        fs::create_dir_all(folder.join("data"))?;
        let environment = [
            ("MINIO_ROOT_USER", Minio::ACCESS_KEY),
            ("MINIO_ROOT_PASSWORD", Minio::SECRET_KEY),
            ("MINIO_BROWSER", "off"),
            ("MINIO_UPDATE", "off"),
            // So that it refuses others, as AWS does; told none, it takes any.
            ("MINIO_SITE_REGION", Minio::REGION),
        ];
        let mut complaint = Failure::from("not tried");
        for _ in 0..ATTEMPTS {
            let port = free_port()?;
            let arguments =
                ["server".to_owned(), folder.join("data").display().to_string(), "--address".to_owned(), address(port)];
            let server = Guarded::spawn(&program, &arguments, &environment, &folder)?;
            match server.wait_until(|| is_healthy(port, "/minio/health/ready")) {
                Ok(()) => return Ok(Minio { port, directory, _server: server }),
                Err(error) => {
                    complaint = error;
                    server.kill_and_keep()?;
                }
            }
        }
        fs::remove_dir_all(&directory)?;
        Err(complaint)
    }

    /// Key id of its only user.
    pub const ACCESS_KEY: &'static str = "mongoferry-test";

    /// Secret of its only user.
    pub const SECRET_KEY: &'static str = "mongoferry-test-secret/+=";

    /// Its region.
    pub const REGION: &'static str = "us-east-1";

    /// Where it listens, as `--s3-endpoint` wants it.
    pub fn endpoint(&self) -> String {
        format!("http://{}", address(self.port))
    }

    /// What a process needs in its environment to use it.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("MONGOFERRY_S3_ENDPOINT", self.endpoint()),
            ("AWS_ACCESS_KEY_ID", Minio::ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", Minio::SECRET_KEY.to_owned()),
            ("AWS_REGION", Minio::REGION.to_owned()),
        ]
    }

    /// Makes a bucket. MinIO takes each folder in its data folder for one.
    pub fn create_bucket(&self, name: &str) -> Result<(), Failure> {
        Ok(fs::create_dir_all(self.directory.join("server/data").join(name))?)
    }
}

/// A running moto, which plays Secrets Manager, Parameter Store and Step Functions: it keeps executions, without running
/// them. It checks no rights. It ends when it is dropped or the process ends.
#[derive(Debug)]
pub struct Moto {
    port: u16,
    _server: Guarded,
}

impl Moto {
    /// Starts moto and waits until it takes requests.
    pub async fn start() -> Result<Self, Failure> {
        tokio::task::spawn_blocking(Moto::start_server).await?
    }

    fn start_server() -> Result<Self, Failure> {
        let python = install(&["moto"])?;
        let directory = temporary_directory("moto")?;
        let folder = directory.join("server");
        fs::create_dir_all(&folder)?;
        let mut complaint = Failure::from("not tried");
        for _ in 0..ATTEMPTS {
            let port = free_port()?;
            let arguments =
                ["-m", "moto.server", "-H", "127.0.0.1", "-p"].map(str::to_owned).into_iter().chain([port.to_string()]);
            let server = Guarded::spawn(&python, &arguments.collect::<Vec<_>>(), &[], &folder)?;
            match server.wait_until(|| is_healthy(port, "/moto-api/")) {
                Ok(()) => return Ok(Moto { port, _server: server }),
                Err(error) => {
                    complaint = error;
                    server.kill_and_keep()?;
                }
            }
        }
        fs::remove_dir_all(&directory)?;
        Err(complaint)
    }

    /// Where it listens, as `AWS_ENDPOINT_URL_SSM` and the like want it.
    pub fn endpoint(&self) -> String {
        format!("http://{}", address(self.port))
    }
}

/// A moto that tests share; each uses names of its own.
pub async fn shared_moto() -> Result<&'static Moto, Failure> {
    static SHARED: OnceCell<Moto> = OnceCell::const_new();
    SHARED.get_or_try_init(Moto::start).await
}

fn is_healthy(port: u16, path: &str) -> bool {
    let asked = TcpStream::connect(address(port)).and_then(|mut stream| {
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", address(port))?;
        let mut status = [0; 12];
        stream.read_exact(&mut status)?;
        Ok(status)
    });
    asked.is_ok_and(|status| &status == b"HTTP/1.1 200")
}

static SHARED_SOURCE: OnceCell<ReplicaSet> = OnceCell::const_new();
static SHARED_TARGET: OnceCell<ReplicaSet> = OnceCell::const_new();

/// A one-member set that tests share as their source; each uses databases of its own.
pub async fn shared_source() -> Result<&'static ReplicaSet, Failure> {
    let start = || ReplicaSet::start(StartOptions { name: "source".to_owned(), ..Default::default() });
    SHARED_SOURCE.get_or_try_init(start).await
}

/// A one-member set that tests share as their target; each uses databases of its own.
pub async fn shared_target() -> Result<&'static ReplicaSet, Failure> {
    let start = || ReplicaSet::start(StartOptions { name: "target".to_owned(), ..Default::default() });
    SHARED_TARGET.get_or_try_init(start).await
}

/// Panics when tests of another file copy this database, or these collections, on the shared server with this URI. What one
/// test leaves there another one would find: only in a run of all tests, or only in some order.
#[track_caller]
pub fn assert_is_this_files(uri: &str, included: &str) {
    static OWNERS: Mutex<BTreeMap<(String, String), String>> = Mutex::new(BTreeMap::new());
    if ![&SHARED_SOURCE, &SHARED_TARGET].iter().any(|shared| shared.get().is_some_and(|set| set.uri() == uri)) {
        return;
    }
    // Each test has a thread, which is named after it; what else it starts are threads of other names.
    let thread = std::thread::current();
    let Some((file, _)) = thread.name().and_then(|name| name.split_once("::")) else { return };
    let mut owners = OWNERS.lock().unwrap_or_else(PoisonError::into_inner);
    let owner = owners.entry((uri.to_owned(), included.to_owned())).or_insert_with(|| file.to_owned()).clone();
    drop(owners);
    assert_eq!(owner, file, "tests of both copy {included} on a server that tests share; name one of them differently");
}

/// A MinIO that tests share; each uses buckets of its own.
pub async fn shared_minio() -> Result<&'static Minio, Failure> {
    static SHARED: OnceCell<Minio> = OnceCell::const_new();
    SHARED.get_or_try_init(Minio::start).await
}

/// The mongod that tests run: the default one is looked for once in a process.
fn mongod(version: Option<&str>) -> Result<PathBuf, Failure> {
    static DEFAULT: OnceLock<PathBuf> = OnceLock::new();
    if let Some(version) = version {
        return install(&["mongod", version]);
    }
    if let Some(path) = DEFAULT.get() {
        return Ok(path.clone());
    }
    let path = install(&["mongod"])?;
    Ok(DEFAULT.get_or_init(|| path).clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use mongodb::bson::Document;

    async fn insert(uri: &str, document: Document) -> Result<(), Failure> {
        let client = Client::with_uri_str(uri).await?;
        client.database("servers").collection("seen").insert_one(document).await?;
        Ok(())
    }

    async fn count(uri: &str) -> Result<u64, Failure> {
        let client = Client::with_uri_str(uri).await?;
        Ok(client.database("servers").collection::<Document>("seen").count_documents(doc! {}).await?)
    }

    #[tokio::test]
    async fn three_members_elect_another_primary_when_theirs_is_killed() -> Result<(), Failure> {
        let mut set = ReplicaSet::start(StartOptions { members: 3, ..Default::default() }).await?;
        let old = set.primary().await?;
        insert(&format!("{}&w=majority", set.uri()), doc! {"before": true}).await?;
        set.kill(old)?;
        let new = set.primary().await?;
        assert_ne!(old, new);
        insert(&set.uri(), doc! {"after": true}).await?;
        set.restart(old)?;
        set.primary().await?;
        assert_eq!(count(&set.uri()).await?, 2);
        set.kill(2)?;
        let folder = set.data_dir().to_owned();
        assert!(folder.exists());
        drop(set);
        assert!(!folder.exists());
        Ok(())
    }

    #[tokio::test]
    async fn a_set_with_users_wants_the_password() -> Result<(), Failure> {
        let set = ReplicaSet::start(StartOptions { auth: true, test_commands: true, ..Default::default() }).await?;
        insert(&set.uri(), doc! {"seen": 1}).await?;
        assert_eq!(count(&set.member_uri(0)).await?, 1);
        assert!(insert(&replica_set::direct_uri(set.port(0)), doc! {"seen": 2}).await.is_err());
        Ok(())
    }

    #[tokio::test]
    async fn a_frozen_server_answers_when_it_is_thawed() -> Result<(), Failure> {
        let set = ReplicaSet::start(StartOptions::default()).await?;
        let uri = set.uri();
        set.freeze(0)?;
        let answer = tokio::spawn(async move { insert(&uri, doc! {"seen": 1}).await });
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(!answer.is_finished());
        set.thaw(0)?;
        answer.await??;
        Ok(())
    }

    #[tokio::test]
    async fn the_shared_servers_are_different_ones() -> Result<(), Failure> {
        let (source, target, minio) = tokio::try_join!(shared_source(), shared_target(), shared_minio())?;
        assert_ne!(source.port(0), target.port(0));
        assert_eq!(source.port(0), shared_source().await?.port(0));
        minio.create_bucket("a-bucket")?;
        assert!(minio.environment().contains(&("MONGOFERRY_S3_ENDPOINT", minio.endpoint())));
        Ok(())
    }
}
