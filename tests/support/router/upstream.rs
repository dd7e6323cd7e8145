//! A client's way to the servers of the cluster: one connection to each, to its primary.

use std::collections::HashMap;
use std::io;
use std::net::TcpStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mongodb::bson::{RawBson, RawDocumentBuf, Timestamp, rawdoc};

use super::answer::{Answer, Refused};
use super::message::{self, Message, Sequence};
use super::raw;

/// What the config server is called among the shards, as a mongos does.
pub const CONFIG: &str = "config";

/// For how long a set may have no primary.
const PRIMARY_WITHIN: Duration = Duration::from_secs(20);

/// How often a command that may be repeated is sent when the connection is lost or the primary changes; a mongos does
/// the same.
const ATTEMPTS: usize = 3;

/// A command, of the client or for a server.
#[derive(Debug, Clone)]
pub struct Command {
    /// The document, with `$db`.
    pub body: RawDocumentBuf,
    /// An array beside it.
    pub sequence: Option<Sequence>,
}

impl From<RawDocumentBuf> for Command {
    fn from(body: RawDocumentBuf) -> Self {
        Command { body, sequence: None }
    }
}

impl Command {
    /// Whether it changes nothing when it is sent twice: it reads, or the server knows it by its transaction number.
    fn is_repeatable(&self) -> bool {
        let is_read = ["find", "aggregate", "count", "listCollections", "listIndexes", "listDatabases", "hello"];
        is_read.iter().any(|name| raw::field(&self.body, name).is_some())
            || raw::field(&self.body, "txnNumber").is_some()
    }
}

/// The connections of one client.
#[derive(Debug)]
pub struct Upstream {
    /// Name and members of each server, `rs/host:port,...`.
    seeds: HashMap<String, String>,
    open: HashMap<String, Connection>,
    /// The largest times that any reply to the present command told.
    pub times: Times,
    clock: Arc<Clock>,
}

/// The largest time of the cluster that any client of the router was told. Servers are told it with each command, as a
/// mongos does: they refuse to wait for a time that nobody has told them of.
pub type Clock = Mutex<Option<(Timestamp, RawDocumentBuf)>>;

/// `operationTime` and `$clusterTime`.
#[derive(Debug, Clone, Default)]
pub struct Times {
    operation: Option<Timestamp>,
    cluster: Option<(Timestamp, RawDocumentBuf)>,
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    next_id: i32,
}

impl Upstream {
    /// Knows the config server alone; the shards are those that it names.
    pub fn new(config: &str, clock: Arc<Clock>) -> Self {
        let seeds = HashMap::from([(CONFIG.to_owned(), config.to_owned())]);
        Upstream { seeds, open: HashMap::new(), times: Times::default(), clock }
    }

    /// The names of the shards, sorted, as the config server has them now.
    pub fn shards(&mut self) -> Result<Vec<String>, Refused> {
        let shards = self.read_config("shards", rawdoc! {}, rawdoc! {"_id": 1})?;
        let mut names = Vec::new();
        for shard in shards {
            if let (Some(name), Some(host)) = (raw::text(&shard, "_id"), raw::text(&shard, "host")) {
                self.seeds.insert(name.to_owned(), host.to_owned());
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    /// All documents of a collection in the database `config` that match, as a majority has them.
    pub fn read_config(
        &mut self,
        collection: &str,
        filter: RawDocumentBuf,
        sort: RawDocumentBuf,
    ) -> Result<Vec<RawDocumentBuf>, Refused> {
        let find = rawdoc! {
            "find": collection, "filter": filter, "sort": sort, "readConcern": {"level": "majority"}, "$db": "config",
        };
        let mut reply = self.ask(CONFIG, &find.into())?;
        let mut found = Vec::new();
        loop {
            let Some(cursor) = raw::inner(&reply, "cursor") else { return Ok(found) };
            found.extend(raw::documents(cursor, "firstBatch"));
            found.extend(raw::documents(cursor, "nextBatch"));
            let Some(id) = raw::number(cursor, "id").filter(|id| *id != 0) else { return Ok(found) };
            reply = self.ask(CONFIG, &rawdoc! {"getMore": id, "collection": collection, "$db": "config"}.into())?;
        }
    }

    /// Sends a command to a server and waits for the reply.
    pub fn ask(&mut self, server: &str, command: &Command) -> Answer {
        let mut answers = self.ask_each(&[(server.to_owned(), command.clone())]);
        answers.pop().ok_or_else(|| io::Error::other("no answer"))?
    }

    /// Sends each command to its server, all at once, and waits for all replies, which are in the same order.
    pub fn ask_each(&mut self, commands: &[(String, Command)]) -> Vec<Answer> {
        let sent: Vec<_> = commands.iter().map(|(server, command)| self.send(server, command)).collect();
        let answers: Vec<_> = commands.iter().zip(sent).map(|((server, _), sent)| self.receive(server, sent)).collect();
        let again = |((server, command), answer): (&(String, Command), Answer)| self.insist(server, command, answer);
        commands.iter().zip(answers).map(again).collect()
    }

    fn insist(&mut self, server: &str, command: &Command, mut answer: Answer) -> Answer {
        for _ in 1..ATTEMPTS {
            match &answer {
                Err(refused) if refused.is_about_the_way() && command.is_repeatable() => {
                    let sent = self.send(server, command);
                    answer = self.receive(server, sent);
                }
                _ => break,
            }
        }
        answer
    }

    fn send(&mut self, server: &str, command: &Command) -> Result<(), Refused> {
        if !self.open.contains_key(server) {
            if !self.seeds.contains_key(server) {
                self.shards()?;
            }
            let seeds =
                self.seeds.get(server).ok_or_else(|| io::Error::other(format!("there is no shard {server}")))?;
            let connection = Connection::to_primary(seeds)?;
            self.open.insert(server.to_owned(), connection);
        }
        let connection = self.open.get_mut(server).ok_or_else(|| io::Error::other("just connected"))?;
        let known = self.clock.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some((_, time)) = known else { return Ok(connection.send(command)?) };
        let body = raw::with(&raw::without(&command.body, &["$clusterTime"]), "$clusterTime", RawBson::Document(time));
        Ok(connection.send(&Command { body, sequence: command.sequence.clone() })?)
    }

    fn receive(&mut self, server: &str, sent: Result<(), Refused>) -> Answer {
        let answer = sent.and_then(|()| {
            let connection = self.open.get_mut(server).ok_or_else(|| io::Error::other("the connection was lost"))?;
            let reply = connection.receive()?;
            self.times.see(&reply);
            let mut clock = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
            let told = self.times.cluster.clone();
            if told.as_ref().map(|(time, _)| time) > clock.as_ref().map(|(time, _)| time) {
                *clock = told;
            }
            drop(clock);
            Refused::check(reply)
        });
        if answer.as_ref().is_err_and(Refused::is_about_the_way) {
            // The next command looks for the primary anew.
            self.open.remove(server);
        }
        answer
    }
}

impl Connection {
    /// To that member of a set which is its primary, once there is one.
    fn to_primary(seeds: &str) -> io::Result<Self> {
        let hosts = seeds.split_once('/').map_or(seeds, |(_, hosts)| hosts);
        let started = Instant::now();
        while started.elapsed() < PRIMARY_WITHIN {
            for host in hosts.split(',') {
                if let Ok(Some(connection)) = Connection::to_primary_at(host) {
                    return Ok(connection);
                }
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Err(io::Error::other(format!("{seeds} has no primary")))
    }

    fn to_primary_at(host: &str) -> io::Result<Option<Self>> {
        let stream = TcpStream::connect(host)?;
        stream.set_nodelay(true)?;
        let mut connection = Connection { stream, next_id: 0 };
        connection.send(&rawdoc! {"hello": 1, "$db": "admin"}.into())?;
        let hello = connection.receive()?;
        Ok(raw::is_set(&hello, "isWritablePrimary").then_some(connection))
    }

    fn send(&mut self, command: &Command) -> io::Result<()> {
        self.next_id += 1;
        message::write(&mut self.stream, self.next_id, 0, &command.body, command.sequence.as_ref())
    }

    fn receive(&mut self) -> io::Result<RawDocumentBuf> {
        let message: Option<Message> = message::read(&mut self.stream)?;
        message.map(|message| message.body).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

impl Times {
    fn see(&mut self, reply: &RawDocumentBuf) {
        let operation = raw::value(reply, "operationTime").and_then(|time| time.as_timestamp());
        self.operation = self.operation.max(operation);
        let told = raw::inner(reply, "$clusterTime").map(ToOwned::to_owned);
        let time = |told: &RawDocumentBuf| raw::value(told, "clusterTime").and_then(|time| time.as_timestamp());
        if let Some(told) = told
            && let Some(time) = time(&told)
            && self.cluster.as_ref().is_none_or(|(largest, _)| time > *largest)
        {
            self.cluster = Some((time, told));
        }
    }

    /// The reply with these times instead of those that one server told.
    pub fn put_into(&self, reply: &RawDocumentBuf) -> RawDocumentBuf {
        let mut reply = raw::without(reply, &["operationTime", "$clusterTime", "lastCommittedOpTime"]);
        if let Some(operation) = self.operation {
            reply.append(mongodb::bson::cstr!("operationTime"), operation);
        }
        if let Some((_, cluster)) = &self.cluster {
            reply.append(mongodb::bson::cstr!("$clusterTime"), RawBson::Document(cluster.clone()));
        }
        reply
    }
}
