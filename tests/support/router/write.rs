//! Inserts, updates and deletes: each statement goes where it is for, and what comes back is one answer to the batch
//! that the client sent.

use std::collections::{HashMap, VecDeque};

use mongodb::bson::{RawArrayBuf, RawDocument, RawDocumentBuf, cstr, rawdoc};

use super::answer::{Answer, Refused, code, code_of, is_stale};
use super::message::Sequence;
use super::raw;
use super::route::{ATTEMPTS, Primary, Route, Routes};
use super::target::{self, Kind, Target};
use super::upstream::{Command, Upstream};

/// Runs a command with a batch of writes.
pub fn run(routes: &Routes, upstream: &mut Upstream, kind: Kind, namespace: &str, command: Command) -> Answer {
    let name = match kind {
        Kind::Insert => "documents",
        Kind::Update => "updates",
        Kind::Delete => "deletes",
    };
    let statements = match command.sequence {
        Some(sequence) => sequence.documents,
        None => raw::documents(&command.body, name),
    };
    let mut head = raw::without(&command.body, &[name]);
    if raw::field(&head, "writeConcern").is_none() {
        // A mongos says so by itself: its shards would take any write concern of a router for wanted.
        head.append(cstr!("writeConcern"), rawdoc! {"w": "majority"});
    }
    let is_ordered = raw::value(&head, "ordered").and_then(|value| value.as_bool()).unwrap_or(true);
    let pending = (0..statements.len()).collect();
    let mut batch =
        Batch { kind, name, head, statements, is_ordered, pending, done_on: HashMap::new(), reply: Reply::default() };
    batch.run(routes, upstream, namespace)?;
    Ok(batch.reply.document(kind))
}

struct Batch {
    kind: Kind,
    /// Of the array of statements.
    name: &'static str,
    /// The command without them.
    head: RawDocumentBuf,
    statements: Vec<RawDocumentBuf>,
    is_ordered: bool,
    /// What is still to be done, in order.
    pending: VecDeque<usize>,
    /// Of a statement for several shards: those that have done it already.
    done_on: HashMap<usize, Vec<String>>,
    reply: Reply,
}

/// What there is to answer so far.
#[derive(Default)]
struct Reply {
    n: i64,
    modified: i64,
    upserted: Vec<RawDocumentBuf>,
    errors: Vec<(usize, RawDocumentBuf)>,
    concern: Option<RawDocumentBuf>,
    retried: Vec<i64>,
}

/// Some statements for a shard.
struct Part {
    server: String,
    indexes: Vec<usize>,
}

impl Batch {
    fn run(&mut self, routes: &Routes, upstream: &mut Upstream, namespace: &str) -> Result<(), Refused> {
        let mut attempts = 0;
        while !self.pending.is_empty() {
            let before = self.pending.len();
            let route = routes.get(upstream, namespace)?;
            if matches!(*route, Route::Nowhere) {
                Primary::read_or_create(upstream, namespace.split('.').next().unwrap_or_default())?;
                continue;
            }
            if self.follow(upstream, &route)? {
                routes.wait_for_another(namespace);
            }
            attempts = if self.pending.len() < before { 0 } else { attempts + 1 };
            if attempts == ATTEMPTS {
                let message = format!("no progress was made after {ATTEMPTS} rounds, the placement stayed stale");
                return Err(Refused::new(code::NO_PROGRESS_MADE, message));
            }
        }
        Ok(())
    }

    /// Does what it can by this route. Whether the route is stale.
    fn follow(&mut self, upstream: &mut Upstream, route: &Route) -> Result<bool, Refused> {
        let statements = self.pending.iter().map(|index| &self.statements[*index]);
        let targets = target::of_writes(upstream, route, self.kind, statements)?;
        let mut targets: HashMap<usize, Target> = self.pending.iter().copied().zip(targets).collect();
        for (index, done) in &self.done_on {
            if let Some(Ok(servers)) = targets.get_mut(index) {
                servers.retain(|server| !done.contains(server));
            }
        }
        while let Some(first) = self.pending.front().copied() {
            let parts = self.next_parts(first, &targets);
            let commands = parts.iter().map(|part| Ok((part.server.clone(), self.command(route, part)?)));
            let commands = commands.collect::<Result<Vec<_>, Refused>>()?;
            let answers = upstream.ask_each(&commands);
            let mut undone = Vec::new();
            for (part, answer) in parts.iter().zip(answers) {
                undone.extend(self.take(part, answer)?);
            }
            if self.is_ordered && !self.reply.errors.is_empty() {
                self.pending.clear();
                return Ok(false);
            }
            if !undone.is_empty() {
                undone.extend(self.pending.drain(..));
                undone.sort_unstable();
                undone.dedup();
                self.pending = undone.into();
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes from what is pending what can be sent at once: in an ordered batch the statements from the first on that
    /// are for the same shard, else all that are for one shard each. One for several shards goes alone. Statements that
    /// are for none, or that all of their shards have done, leave the batch here.
    fn next_parts(&mut self, first: usize, targets: &HashMap<usize, Target>) -> Vec<Part> {
        let mut parts: Vec<Part> = Vec::new();
        let mut left = VecDeque::new();
        while let Some(index) = self.pending.pop_front() {
            match targets.get(&index) {
                Some(Ok(servers)) if servers.len() == 1 => {
                    let server = &servers[0];
                    if self.is_ordered && parts.first().is_some_and(|part| part.server != *server) {
                        left.push_back(index);
                        break;
                    }
                    match parts.iter_mut().find(|part| part.server == *server) {
                        Some(part) => part.indexes.push(index),
                        None => parts.push(Part { server: server.clone(), indexes: vec![index] }),
                    }
                }
                Some(Ok(servers)) if index == first => {
                    self.done_on.entry(index).or_default();
                    let part = |server: &String| Part { server: server.clone(), indexes: vec![index] };
                    parts = servers.iter().map(part).collect();
                    break;
                }
                Some(Err(refused)) if parts.is_empty() || !self.is_ordered => {
                    self.reply.fail(index, refused);
                    if self.is_ordered {
                        break;
                    }
                }
                _ => {
                    left.push_back(index);
                    if self.is_ordered {
                        break;
                    }
                }
            }
        }
        left.extend(self.pending.drain(..));
        self.pending = left;
        parts
    }

    fn command(&self, route: &Route, part: &Part) -> Result<Command, Refused> {
        let mut body = route.versioned(&part.server, &self.head)?;
        if raw::field(&body, "txnNumber").is_some() {
            // A shard that gets a statement twice knows it by its place in the client's batch.
            let places: RawArrayBuf = part.indexes.iter().map(|index| *index as i32).collect();
            body = raw::with(&body, "stmtIds", places);
        }
        let documents = part.indexes.iter().map(|index| self.statements[*index].clone()).collect();
        Ok(Command { body, sequence: Some(Sequence { name: self.name.to_owned(), documents }) })
    }

    /// Takes a shard's answer. Returns the statements that it refused because the route is stale, and, when it stopped
    /// there, those behind them.
    fn take(&mut self, part: &Part, answer: Answer) -> Result<Vec<usize>, Refused> {
        let reply = match answer {
            Ok(reply) => reply,
            Err(refused) if refused.is_stale() => return Ok(part.indexes.clone()),
            // Not handled here, and not to be taken for an error of the statements.
            Err(refused) if refused.is_about_the_way() || refused.code() == code::WOULD_CHANGE_OWNING_SHARD => {
                return Err(refused);
            }
            Err(refused) => {
                let failed = if self.is_ordered { 1 } else { part.indexes.len() };
                part.indexes.iter().take(failed).for_each(|index| self.reply.fail(*index, &refused));
                return Ok(Vec::new());
            }
        };
        self.reply.add(&reply, &part.indexes);
        let mut undone = Vec::new();
        for error in raw::documents(&reply, "writeErrors") {
            let place = place_of(&error);
            let Some(index) = part.indexes.get(place).copied() else { continue };
            if !is_stale(code_of(&error)) {
                self.reply.errors.push((index, error));
            } else if self.is_ordered {
                undone.extend(&part.indexes[place..]);
            } else {
                undone.push(index);
            }
        }
        if let [index] = part.indexes[..]
            && undone.is_empty()
            && let Some(done) = self.done_on.get_mut(&index)
        {
            done.push(part.server.clone());
        }
        Ok(undone)
    }
}

impl Reply {
    fn fail(&mut self, index: usize, refused: &Refused) {
        let message = raw::text(&refused.0, "errmsg").unwrap_or_default();
        self.errors.push((index, rawdoc! {"index": 0, "code": refused.code(), "errmsg": message}));
    }

    fn add(&mut self, reply: &RawDocument, indexes: &[usize]) {
        self.n += raw::number(reply, "n").unwrap_or(0);
        self.modified += raw::number(reply, "nModified").unwrap_or(0);
        for upserted in raw::documents(reply, "upserted") {
            let place = indexes.get(place_of(&upserted)).copied().unwrap_or_default();
            self.upserted.push(raw::with(&upserted, "index", place as i32));
        }
        if let Some(concern) = raw::inner(reply, "writeConcernError") {
            self.concern.get_or_insert_with(|| concern.to_owned());
        }
        let retried = raw::value(reply, "retriedStmtIds").and_then(|ids| ids.as_array());
        let retried = retried.into_iter().flatten().flatten();
        self.retried.extend(retried.filter_map(|id| id.as_i32().map(i64::from).or_else(|| id.as_i64())));
    }

    fn document(mut self, kind: Kind) -> RawDocumentBuf {
        let mut reply = rawdoc! {"n": self.n as i32};
        if kind == Kind::Update {
            reply.append(cstr!("nModified"), self.modified as i32);
        }
        if !self.upserted.is_empty() {
            reply.append(cstr!("upserted"), self.upserted.into_iter().collect::<RawArrayBuf>());
        }
        if !self.errors.is_empty() {
            self.errors.sort_by_key(|(index, _)| *index);
            let errors = self.errors.into_iter().map(|(index, error)| raw::with(&error, "index", index as i32));
            reply.append(cstr!("writeErrors"), errors.collect::<RawArrayBuf>());
        }
        if let Some(concern) = self.concern {
            reply.append(cstr!("writeConcernError"), concern);
        }
        if !self.retried.is_empty() {
            let retried: RawArrayBuf = self.retried.into_iter().map(|id| id as i32).collect();
            reply.append(cstr!("retriedStmtIds"), retried);
        }
        reply.append(cstr!("ok"), 1.0);
        reply
    }
}

/// Where in the batch that the shard got.
fn place_of(entry: &RawDocument) -> usize {
    raw::number(entry, "index").and_then(|index| index.try_into().ok()).unwrap_or(usize::MAX)
}
