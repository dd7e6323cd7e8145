//! Connecting to a deployment, and finding out what it is.

use super::Comment;
use super::clients;
use super::cursor::Cursor;
use super::failure::{Side, code, code_of};
use super::read_from::ReadFrom;
use super::readers::Readers;
use super::wire::Connector;
use crate::connection_string::ConnectionString;
use crate::error::{Error, Result};
use crate::model::expiry::Holding;
use crate::model::identity::{Identity, MONGOS};
use crate::model::server::{Limits, Version};
use bson::{Bson, Document, RawDocumentBuf, doc};
use mongodb::Client;
use mongodb::error::Error as DriverError;
use mongodb::options::{ClientOptions, RunCursorCommandOptions, SelectionCriteria, ServerAddress, Tls, TlsOptions};
use mongodb::raw_batch_cursor::RawBatchCursor;
use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// For how long a server is looked for before it counts as unreachable: longer than an election, and short enough that
/// a wrong address is clear within half a minute.
const SERVER_SELECTION_TIMEOUT: Duration = Duration::from_secs(20);

/// For how long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The oldest server that is spoken to: 4.4.
const OLDEST_WIRE_VERSION: i32 = 9;

/// The wire version from which commands take `collectionUUID`: 6.0.
const COLLECTION_UUID_WIRE_VERSION: i32 = 17;

/// The wire version from which `collMod` makes a TTL index of any index by one field: 5.1.
const TO_TTL_WIRE_VERSION: i32 = 14;

/// A replica set, or a sharded cluster behind its mongos, that answered.
#[derive(Debug, Clone)]
pub struct Deployment {
    /// Which side of the copy it is on.
    pub side: Side,
    /// What it is.
    pub identity: Identity,
    /// What its servers take at most.
    pub limits: Limits,
    version: Version,
    client: Client,
    wire_version: i32,
    comment: Comment,
    /// What the connection string said, resolved.
    options: Arc<ClientOptions>,
    /// Connections beside the driver's; `Err` has what only the driver can do.
    connector: Arc<Result<Connector, String>>,
    /// The one server that is spoken to whatever the others say of it.
    direct: Option<ServerAddress>,
    read_from: ReadFrom,
    /// Shared by all clones.
    readers: Arc<Readers>,
    /// How often one of several mongos was chosen; shared by all clones.
    turns: Arc<AtomicUsize>,
}

impl Deployment {
    /// Connects and asks who is there. `app_name` is what a DBA sees of each connection, `comment` of each command.
    ///
    /// # Errors
    /// Bad input for a connection string that cannot be used, a wrong password, a server that is too old, or neither of a
    /// replica set nor a mongos; unavailable when nobody answers.
    pub async fn connect(
        side: Side,
        uri: &ConnectionString,
        ca: Option<&Path>,
        app_name: &str,
        comment: Comment,
    ) -> Result<Self> {
        let failed = |error: &DriverError| side.failed(error);
        // A connection string of the form mongodb+srv:// is resolved here, and a resolver may never answer.
        let parsed = tokio::time::timeout(SERVER_SELECTION_TIMEOUT, ClientOptions::parse(uri.expose())).await;
        let parsed =
            parsed.map_err(|_| side.error(format!("the {side}'s name was not resolved in time; check DNS")))?;
        let mut options = parsed.map_err(|error| failed(&error))?;
        options.app_name = Some(truncated(app_name, 128));
        options.server_selection_timeout.get_or_insert(SERVER_SELECTION_TIMEOUT);
        options.connect_timeout.get_or_insert(CONNECT_TIMEOUT);
        options.retry_reads = Some(false);
        if let Some(ca) = ca {
            let tls = match options.tls.take() {
                Some(Tls::Enabled(mut tls)) => {
                    tls.ca_file_path.get_or_insert_with(|| ca.to_owned());
                    tls
                }
                _ => TlsOptions::builder().ca_file_path(ca.to_owned()).build(),
            };
            options.tls = Some(Tls::Enabled(tls));
        }
        Self::connect_with(side, options, comment).await
    }

    /// Connects to a replica set of the cluster that a mongos leads to, as the mongos's connection string says: with its
    /// user, its encryption and all other options.
    ///
    /// # Errors
    /// As [`Deployment::connect`].
    pub async fn connect_to_member(&self, set: &str, hosts: &[String]) -> Result<Self> {
        let hosts = hosts.iter().map(ServerAddress::parse).collect::<Result<Vec<_>, DriverError>>();
        let mut options = ClientOptions::clone(&self.options);
        options.hosts = hosts.map_err(|error| self.failed(&error))?;
        options.repl_set_name = Some(set.to_owned());
        (options.direct_connection, options.load_balanced) = (None, None);
        Self::connect_with(self.side, options, self.comment.clone()).await
    }

    async fn connect_with(side: Side, options: ClientOptions, comment: Comment) -> Result<Self> {
        let failed = |error: &DriverError| side.failed(error);
        let connector = Connector::new(&options);
        let seeds = options.hosts.iter().map(ToString::to_string).collect();
        let direct = options.hosts.first().filter(|_| options.direct_connection == Some(true)).cloned();
        let (client, hello) = greeted(&options, &comment).await.map_err(|error| failed(&error))?;
        let wire_version = hello.get_i32("maxWireVersion").unwrap_or(0);
        if wire_version < OLDEST_WIRE_VERSION {
            return Err(Error::bad_input(format!(
                "the {side} is older than MongoDB 4.4, the oldest that is supported"
            )));
        }
        let is_mongos = hello.get_str("msg").is_ok_and(|msg| msg == "isdbgrid");
        let set_name = match hello.get_str("setName") {
            Ok(name) => name,
            Err(_) if is_mongos => MONGOS,
            Err(_) => {
                return Err(Error::bad_input(format!(
                    "the {side} is a standalone server; only replica sets and sharded clusters can be copied: give the connection string of a replica set or a mongos"
                )));
            }
        };
        let process = hello
            .get_document("topologyVersion")
            .and_then(|version| version.get_object_id("processId"))
            .map(|id| id.to_hex());
        let hosts = match hello.get_array("hosts") {
            Ok(hosts) => hosts.iter().filter_map(|host| host.as_str().map(str::to_owned)).collect(),
            Err(_) if is_mongos => seeds,
            Err(_) => Vec::new(),
        };
        let replica_set_id =
            if is_mongos { None } else { replica_set_id(&client, &comment).await.map_err(|e| failed(&e))? };
        let identity = Identity {
            set_name: set_name.to_owned(),
            is_mongos,
            cluster_id: cluster_id(&client, &hello, &comment).await.map_err(|error| failed(&error))?,
            replica_set_id,
            processes: process.into_iter().collect(),
            hosts,
        };
        let version = version(&client, &comment).await.map_err(|error| failed(&error))?;
        let (limits, connector, read_from) = (limits(&hello), Arc::new(connector), ReadFrom::default());
        let (readers, turns) = (Arc::default(), Arc::default());
        Ok(Self {
            side,
            identity,
            limits,
            version,
            client,
            wire_version,
            comment,
            options: Arc::new(options),
            connector,
            direct,
            read_from,
            readers,
            turns,
        })
    }

    /// The same deployment, with another comment on its commands.
    #[must_use]
    pub fn commented(&self, comment: Comment) -> Self {
        Self { comment, ..self.clone() }
    }

    /// The same deployment, whose cursors are opened on other members.
    #[must_use]
    pub fn reading_from(&self, read_from: ReadFrom) -> Self {
        Self { read_from, ..self.clone() }
    }

    /// Whether write commands take `collectionUUID` (6.0).
    pub fn takes_collection_uuid(&self) -> bool {
        self.wire_version >= COLLECTION_UUID_WIRE_VERSION
    }

    /// How TTL indexes are held back here.
    pub fn holding(&self) -> Holding {
        if self.wire_version >= TO_TTL_WIRE_VERSION { Holding::Without } else { Holding::Far }
    }

    /// What makes connections beside the driver's.
    ///
    /// # Errors
    /// What the connection string asks for that only the driver can do.
    pub fn connector(&self) -> Result<&Connector, &str> {
        self.connector.as_ref().as_ref().map_err(String::as_str)
    }

    /// The address under which the driver knows a member that calls itself `me`. None for what is no address.
    pub fn address_of(&self, me: &str) -> Option<ServerAddress> {
        self.direct.clone().or_else(|| ServerAddress::parse(me).ok())
    }

    /// Whether it is a sharded cluster that is reached through a mongos.
    pub fn is_mongos(&self) -> bool {
        self.identity.is_mongos
    }

    /// The address that writes go to, as the driver sees it: the primary's; of several mongos one after the other.
    ///
    /// # Errors
    /// The driver's.
    pub async fn writable(&self) -> Result<ServerAddress, DriverError> {
        // Its name among the members may mean nothing here: the connection string is what leads to it.
        if let Some(direct) = &self.direct {
            return Ok(direct.clone());
        }
        if self.is_mongos() {
            return self.next_mongos().await;
        }
        let hello = self.run("admin", doc! { "hello": 1 }).await?;
        ServerAddress::parse(hello.get_str("me").map_err(DriverError::custom)?)
    }

    /// Makes sure that writes still go to this address.
    ///
    /// # Errors
    /// The driver's, or like the driver's when they go elsewhere by now.
    pub async fn ensure_writable(&self, address: &ServerAddress) -> Result<(), DriverError> {
        if self.is_mongos() {
            return match self.mongoses().await?.contains(&address.to_string()) {
                true => Ok(()),
                false => Err(io::Error::other(format!("the mongos {address} does not answer")).into()),
            };
        }
        let primary = self.writable().await?;
        let text = || format!("{address} does not answer, and {primary} is the primary");
        if primary == *address { Ok(()) } else { Err(io::Error::other(text()).into()) }
    }

    /// One of the mongos that answer, another one every time.
    async fn next_mongos(&self) -> Result<ServerAddress, DriverError> {
        let available = self.mongoses().await?;
        let turn = self.turns.fetch_add(1, Ordering::Relaxed) % available.len().max(1);
        let address = available.iter().nth(turn).ok_or_else(|| DriverError::custom("no mongos answers"))?;
        ServerAddress::parse(address)
    }

    /// The addresses of all mongos that the driver can reach now.
    async fn mongoses(&self) -> Result<BTreeSet<String>, DriverError> {
        let available = Arc::new(Mutex::new(BTreeSet::new()));
        let seen = Arc::clone(&available);
        let any = SelectionCriteria::Predicate(Arc::new(move |server| {
            seen.lock().unwrap_or_else(PoisonError::into_inner).insert(server.address().to_string());
            true
        }));
        let hello = doc! { "hello": 1, "comment": Bson::from(&self.comment) };
        self.client.database("admin").run_command(hello).selection_criteria(any).await?;
        let available = available.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(available)
    }

    /// How many connections more the server takes.
    ///
    /// # Errors
    /// The driver's, also where the right to `serverStatus` is missing.
    pub async fn available_connections(&self) -> Result<u64, DriverError> {
        let status = self.run("admin", doc! { "serverStatus": 1, "repl": 0, "metrics": 0, "locks": 0 }).await?;
        let available = status.get_document("connections").and_then(|connections| connections.get_i32("available"));
        Ok(available.map_or(u64::MAX, |available| u64::try_from(available).unwrap_or(0)))
    }

    /// The version of its servers, as the one that was asked has it.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Whether writes can be told to keep `Timestamp(0, 0)`.
    pub fn keeps_empty_timestamps(&self) -> bool {
        self.version.keeps_empty_timestamps()
    }

    /// Whether chunks are split by themselves, in a cluster.
    pub fn splits_chunks(&self) -> bool {
        self.version.splits_chunks()
    }

    /// Runs a command on the primary, with the comment added.
    ///
    /// # Errors
    /// The driver's, for callers that tell codes apart.
    pub async fn run(&self, database: &str, mut command: Document) -> Result<Document, DriverError> {
        command.insert("comment", Bson::from(&self.comment));
        self.client.database(database).run_command(command).await
    }

    /// Runs a command that is complete already, comment included.
    ///
    /// # Errors
    /// The driver's, for callers that tell codes apart.
    pub async fn run_raw(&self, database: &str, command: RawDocumentBuf) -> Result<Document, DriverError> {
        self.client.database(database).run_raw_command(command).await
    }

    /// Opens a cursor for a command that is complete already. Each reply has at most `reply_documents` documents; the
    /// command names that number for the first one itself.
    ///
    /// # Errors
    /// The driver's, or like the driver's.
    pub async fn cursor(
        &self,
        database: &str,
        command: RawDocumentBuf,
        reply_documents: u32,
    ) -> Result<Cursor, DriverError> {
        Cursor::open(self, database, command, reply_documents).await
    }

    /// The same through the driver.
    pub(super) async fn driver_cursor(
        &self,
        database: &str,
        command: RawDocumentBuf,
        reply_documents: u32,
    ) -> Result<RawBatchCursor, DriverError> {
        let options = RunCursorCommandOptions::builder()
            .selection_criteria(self.read_from.criteria())
            .batch_size(reply_documents)
            .build();
        self.client.database(database).run_raw_cursor_command(command).with_options(options).batch().await
    }

    /// Connections to read over, beside the driver's.
    pub(super) fn readers(&self) -> &Readers {
        &self.readers
    }

    /// Which members cursors are opened on.
    pub(super) fn read_from(&self) -> &ReadFrom {
        &self.read_from
    }

    /// What a command says so that the member that it is sent to does not refuse it.
    pub(super) fn read_mode(&self) -> Option<&'static str> {
        // Who names one server means that one, whatever it is.
        if self.direct.is_some() { Some(ReadFrom::ANY_MEMBER) } else { self.read_from.mode() }
    }

    /// One of the members that cursors are opened on, as the driver sees them. It has been told the cluster's time: a
    /// server refuses to read after a time that it has not heard of.
    ///
    /// # Errors
    /// The driver's.
    pub(super) async fn member(&self) -> Result<ServerAddress, DriverError> {
        let hello = self.run_where_read("admin", doc! { "hello": 1 }).await?;
        match (&self.direct, &self.read_from) {
            (Some(address), _) | (None, ReadFrom::Node(address)) => Ok(address.clone()),
            _ if self.is_mongos() => self.next_mongos().await,
            _ => ServerAddress::parse(hello.get_str("me").map_err(DriverError::custom)?),
        }
    }

    /// Runs a command on one of the members that cursors are opened on, with the comment added.
    ///
    /// # Errors
    /// The driver's.
    pub async fn run_where_read(&self, database: &str, mut command: Document) -> Result<Document, DriverError> {
        command.insert("comment", Bson::from(&self.comment));
        self.client.database(database).run_command(command).selection_criteria(self.read_from.criteria()).await
    }

    /// All documents that a cursor command gives: for listings, not for data.
    ///
    /// # Errors
    /// The driver's.
    pub async fn collect(&self, database: &str, mut command: Document) -> Result<Vec<Document>, DriverError> {
        use futures_util::TryStreamExt;
        command.insert("comment", Bson::from(&self.comment));
        self.client.database(database).run_cursor_command(command).await?.try_collect().await
    }

    /// The comment on its commands.
    pub fn comment(&self) -> &Comment {
        &self.comment
    }

    /// The driver's error as one of ours.
    pub fn failed(&self, error: &DriverError) -> Error {
        self.side.failed(error)
    }
}

/// The replica set's own id, `None` without the right to read its configuration (`clusterMonitor`).
async fn replica_set_id(client: &Client, comment: &Comment) -> Result<Option<String>, DriverError> {
    let command = doc! { "replSetGetConfig": 1, "comment": Bson::from(comment) };
    match client.database("admin").run_command(command).await {
        Ok(reply) => Ok(reply
            .get_document("config")
            .and_then(|config| config.get_document("settings"))
            .and_then(|settings| settings.get_object_id("replicaSetId"))
            .map(|id| id.to_hex())
            .ok()),
        Err(error) if code_of(&error) == Some(code::UNAUTHORIZED) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The id of the cluster that it is, or is a part of; `None` for what is no part of one, and without the right to look.
async fn cluster_id(client: &Client, hello: &Document, comment: &Comment) -> Result<Option<String>, DriverError> {
    // A mongos shows the config servers' `config`; a shard keeps what it belongs to in its own `admin`.
    let is_config = hello.contains_key("configsvr") || hello.contains_key("msg");
    let (database, collection, filter) = if is_config {
        ("config", "version", doc! {})
    } else {
        ("admin", "system.version", doc! { "_id": "shardIdentity" })
    };
    let command = doc! { "find": collection, "filter": filter, "limit": 1, "comment": Bson::from(comment) };
    match client.database(database).run_command(command).await {
        Ok(reply) => {
            let batch = reply.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
            let found = batch.ok().and_then(|batch| batch.first()).and_then(Bson::as_document);
            Ok(found.and_then(|found| found.get_object_id("clusterId").ok()).map(|id| id.to_hex()))
        }
        Err(error) if code_of(&error) == Some(code::UNAUTHORIZED) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What a reply to `hello` says of limits.
/// A client, and what the server said to its greeting.
async fn greeted(options: &ClientOptions, comment: &Comment) -> Result<(Client, Document), DriverError> {
    let greet = async |client: &Client| {
        let hello = doc! { "hello": 1, "comment": Bson::from(comment) };
        client.database("admin").run_command(hello).await
    };
    let (client, is_kept) = clients::client(options)?;
    match greet(&client).await {
        // Its connections may have died while nobody used them.
        Err(_) if is_kept => {
            clients::forget(options);
            let (client, _) = clients::client(options)?;
            let hello = greet(&client).await?;
            Ok((client, hello))
        }
        hello => Ok((client, hello?)),
    }
}

fn limits(hello: &Document) -> Limits {
    let usual = Limits::default();
    let limit = |name: &str, usual: usize| {
        hello.get_i32(name).ok().and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usual)
    };
    Limits {
        document: limit("maxBsonObjectSize", usual.document),
        message: limit("maxMessageSizeBytes", usual.message),
        documents: limit("maxWriteBatchSize", usual.documents),
    }
}

/// The server's version. One that does not say it counts as the oldest.
async fn version(client: &Client, comment: &Comment) -> Result<Version, DriverError> {
    let command = doc! { "buildInfo": 1, "comment": Bson::from(comment) };
    let reply = client.database("admin").run_command(command).await?;
    let parts = reply.get_array("versionArray").map(Vec::as_slice).unwrap_or_default();
    let part = |place: usize| parts.get(place).and_then(Bson::as_i32).unwrap_or_default();
    Ok(Version { major: part(0), minor: part(1), patch: part(2) })
}

fn truncated(text: &str, bytes: usize) -> String {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}
