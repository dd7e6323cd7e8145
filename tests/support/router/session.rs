//! A client's connection: which command is what.

use std::io;
use std::net::TcpStream;
use std::sync::Arc;

use mongodb::bson::{DateTime, rawdoc};

use super::answer::{Answer, Refused, code};
use super::message;
use super::raw;
use super::target::Kind;
use super::upstream::{CONFIG, Command, Times, Upstream};
use super::{Shared, admin, ddl, read, write};

/// Commands about servers, which the config server answers for the router.
const FORWARDED: [&str; 9] = [
    "buildInfo",
    "serverStatus",
    "connectionStatus",
    "hostInfo",
    "getCmdLineOpts",
    "getParameter",
    "getLog",
    "getShardMap",
    "startSession",
];

/// What a mongos says of itself in `hello`, as its config server does.
const LIMITS: [&str; 7] = [
    "maxBsonObjectSize",
    "maxMessageSizeBytes",
    "maxWriteBatchSize",
    "logicalSessionTimeoutMinutes",
    "connectionId",
    "minWireVersion",
    "maxWireVersion",
];

/// One client.
pub struct Session {
    shared: Arc<Shared>,
    upstream: Upstream,
}

impl Session {
    /// A new one, without connections of its own yet.
    pub fn new(shared: Arc<Shared>) -> Self {
        let upstream = Upstream::new(&shared.config, Arc::clone(&shared.clock));
        Session { shared, upstream }
    }

    /// Answers until the client goes.
    pub fn serve(mut self, mut stream: &TcpStream) -> io::Result<()> {
        let mut id = 0;
        while let Some(message) = message::read(&mut stream)? {
            let wants_reply = message.wants_reply;
            self.upstream.times = Times::default();
            let answer = self.answer(Command { body: message.body, sequence: message.sequence });
            let reply = answer.unwrap_or_else(|Refused(reply)| reply);
            id += 1;
            if wants_reply {
                let reply = self.upstream.times.put_into(&reply);
                message::write(&mut stream, id, message.id, &reply, None)?;
            }
        }
        Ok(())
    }

    fn answer(&mut self, command: Command) -> Answer {
        let body = command.body.clone();
        let first = body.iter_elements().next().and_then(Result::ok);
        let name = first.map(|first| first.key().as_str().to_owned()).unwrap_or_default();
        let database = raw::text(&body, "$db").unwrap_or_default().to_owned();
        if raw::field(&body, "startTransaction").is_some() {
            return Err(Refused::new(code::BAD_VALUE, "the test router has no transactions"));
        }
        let namespace = format!("{database}.{}", raw::text(&body, &name).unwrap_or("$cmd.aggregate"));
        let shared = Arc::clone(&self.shared);
        let (routes, cursors, upstream) = (&shared.routes, &shared.cursors, &mut self.upstream);
        match name.as_str() {
            "hello" | "isMaster" | "ismaster" => self.hello(&name),
            "ping" | "endSessions" | "refreshSessions" | "killSessions" => Ok(rawdoc! {"ok": 1.0}),
            "insert" => write::run(routes, upstream, Kind::Insert, &namespace, command),
            "update" => write::run(routes, upstream, Kind::Update, &namespace, command),
            "delete" => write::run(routes, upstream, Kind::Delete, &namespace, command),
            "findAndModify" | "findandmodify" => read::find_and_modify(routes, upstream, &namespace, &body),
            "find" => read::find(routes, cursors, upstream, &namespace, &body),
            "aggregate" => read::aggregate(routes, cursors, upstream, &namespace, &body),
            "count" => read::count(routes, upstream, &namespace, &body),
            "getMore" => cursors.get_more(upstream, &body),
            "killCursors" => cursors.kill(upstream, &body),
            "listDatabases" => ddl::list_databases(upstream, &body),
            "listCollections" => ddl::list_collections(cursors, upstream, &database, &body),
            "listIndexes" => read::list_indexes(routes, cursors, upstream, &namespace, &body),
            "create" => ddl::create(upstream, &database, &body),
            "createIndexes" => ddl::create_indexes(routes, upstream, &namespace, &body),
            "drop" => ddl::on_all_shards(routes, upstream, "_shardsvrDropCollection", &database, &body),
            "collMod" => ddl::on_all_shards(routes, upstream, "_shardsvrCollMod", &database, &body),
            "dropIndexes" => ddl::on_all_shards(routes, upstream, "_shardsvrDropIndexes", &database, &body),
            "dropDatabase" => ddl::on_all_shards(routes, upstream, "_shardsvrDropDatabase", &database, &body),
            name if FORWARDED.contains(&name) => upstream.ask(CONFIG, &command),
            name => match admin::run(routes, upstream, name, &body) {
                Some(answer) => answer,
                None => Err(Refused::new(code::COMMAND_NOT_FOUND, format!("no such command: '{name}'"))),
            },
        }
    }

    fn hello(&mut self, name: &str) -> Answer {
        let config = self.upstream.ask(CONFIG, &rawdoc! {"hello": 1, "$db": "admin"}.into())?;
        let is_primary = if name == "hello" { "isWritablePrimary" } else { "ismaster" };
        let mut hello = raw::with(&rawdoc! {}, is_primary, true);
        hello = raw::with(&hello, "helloOk", true);
        hello = raw::with(&hello, "msg", "isdbgrid");
        for limit in LIMITS {
            if let Some(value) = raw::value(&config, limit) {
                hello = raw::with(&hello, limit, value);
            }
        }
        let hello = raw::with(&hello, "localTime", DateTime::now());
        Ok(raw::with(&hello, "ok", 1.0))
    }
}
