//! The cursors that the router's clients hold: each is one or more cursors of servers, whose batches are merged.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use mongodb::bson::{RawArrayBuf, RawDocument, RawDocumentBuf, rawdoc};
use mongoferry::model::bson_order;

use super::answer::{Answer, Refused, code};
use super::raw;
use super::upstream::{Command, Upstream};

/// How many documents the first batch of a cursor has where the client does not say.
const FIRST_BATCH: usize = 101;

/// How many bytes of documents a batch has at most.
const MAX_BATCH: usize = 16 * 1024 * 1024;

/// The open cursors of all clients.
#[derive(Debug, Default)]
pub struct Cursors(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    last_id: i64,
    open: HashMap<i64, Cursor>,
}

/// In which order a cursor's documents come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// In turn from each server, as a mongos gives them: in no order.
    None,
    /// By ascending `_id`.
    Ascending,
    /// By descending `_id`.
    Descending,
}

/// A cursor.
#[derive(Debug)]
pub struct Cursor {
    namespace: String,
    order: Order,
    skip: usize,
    /// How many documents may still be given.
    limit: usize,
    sources: Vec<Source>,
    /// Which source is next in turn.
    turn: usize,
}

/// A server's cursor.
#[derive(Debug)]
struct Source {
    server: String,
    /// 0 when it is exhausted.
    id: i64,
    buffered: VecDeque<RawDocumentBuf>,
}

impl Cursor {
    /// From the replies that opened it.
    pub fn new(namespace: &str, replies: Vec<(String, RawDocumentBuf)>) -> Self {
        let sources = replies.into_iter().map(|(server, reply)| {
            let mut source = Source { server, id: 0, buffered: VecDeque::new() };
            source.fill(&reply, "firstBatch");
            source
        });
        let sources: Vec<Source> = sources.collect();
        Cursor { namespace: namespace.to_owned(), order: Order::None, skip: 0, limit: usize::MAX, sources, turn: 0 }
    }

    /// The same in an order, without the first documents, and with so many at most.
    pub fn cut(self, order: Order, skip: usize, limit: usize) -> Self {
        Cursor { order, skip, limit, ..self }
    }

    fn is_exhausted(&self) -> bool {
        self.limit == 0 || self.sources.iter().all(|source| source.id == 0 && source.buffered.is_empty())
    }

    /// The next documents that can be given without asking a server.
    fn batch(&mut self, most: usize) -> RawArrayBuf {
        let (mut batch, mut count, mut bytes) = (RawArrayBuf::new(), 0, 0);
        while count < most && self.limit > 0 {
            let Some(at) = self.next_source() else { break };
            let length = self.sources[at].buffered.front().map_or(0, |document| document.as_bytes().len());
            if count > 0 && bytes + length > MAX_BATCH {
                break;
            }
            self.turn = at + 1;
            let Some(document) = self.sources[at].buffered.pop_front() else { break };
            if self.skip > 0 {
                self.skip -= 1;
                continue;
            }
            self.limit -= 1;
            (count, bytes) = (count + 1, bytes + length);
            batch.push(document);
        }
        batch
    }

    /// The source that has the next document; none while a server has to be asked first.
    fn next_source(&self) -> Option<usize> {
        let count = self.sources.len();
        if self.order == Order::None {
            let mut in_turn = (0..count).map(|step| (self.turn + step) % count);
            return in_turn.find(|at| !self.sources[*at].buffered.is_empty());
        }
        if self.sources.iter().any(|source| source.id != 0 && source.buffered.is_empty()) {
            return None;
        }
        let id = |at: &usize| self.sources[*at].buffered.front().and_then(|document| raw::value(document, "_id"));
        let with_documents = (0..count).filter(|at| !self.sources[*at].buffered.is_empty());
        with_documents.min_by(|left, right| {
            let ids = id(left).zip(id(right)).map(|(left, right)| bson_order::compare(left, right));
            let order = ids.unwrap_or(std::cmp::Ordering::Equal);
            if self.order == Order::Descending { order.reverse() } else { order }
        })
    }

    /// Asks the servers whose documents are used up.
    fn refill(&mut self, upstream: &mut Upstream, get_more: &RawDocument) -> Result<(), Refused> {
        let empty = |source: &&mut Source| source.id != 0 && source.buffered.is_empty();
        let mut sources: Vec<_> = self.sources.iter_mut().filter(empty).collect();
        let ask = |source: &&mut Source| -> (String, Command) {
            (source.server.clone(), raw::with(get_more, "getMore", source.id).into())
        };
        let commands: Vec<_> = sources.iter().map(ask).collect();
        for (source, answer) in sources.iter_mut().zip(upstream.ask_each(&commands)) {
            source.fill(&answer?, "nextBatch");
        }
        Ok(())
    }

    /// All documents, of a cursor that no client has seen.
    pub fn drain(mut self, upstream: &mut Upstream, command: &RawDocument) -> Result<Vec<RawDocumentBuf>, Refused> {
        let mut get_more = rawdoc! {"getMore": 0_i64, "collection": parts(&self.namespace).1};
        for name in ["$db", "lsid"] {
            if let Some(value) = raw::value(command, name) {
                get_more = raw::with(&get_more, name, value);
            }
        }
        let mut documents = Vec::new();
        loop {
            documents.extend(self.sources.iter_mut().flat_map(|source| source.buffered.drain(..)));
            if self.is_exhausted() {
                return Ok(documents);
            }
            self.refill(upstream, &get_more)?;
        }
    }

    fn close(&self, upstream: &mut Upstream) {
        let (database, collection) = parts(&self.namespace);
        for source in self.sources.iter().filter(|source| source.id != 0) {
            let kill = rawdoc! {"killCursors": collection, "cursors": [source.id], "$db": database};
            // A cursor that is not there any more is as good.
            let _ = upstream.ask(&source.server, &kill.into());
        }
    }
}

fn parts(namespace: &str) -> (&str, &str) {
    namespace.split_once('.').unwrap_or((namespace, ""))
}

impl Source {
    fn fill(&mut self, reply: &RawDocument, batch: &str) {
        let cursor = raw::inner(reply, "cursor");
        self.id = cursor.and_then(|cursor| raw::number(cursor, "id")).unwrap_or(0);
        self.buffered.extend(cursor.map(|cursor| raw::documents(cursor, batch)).unwrap_or_default());
    }
}

impl Cursors {
    /// The reply to the command that opened a cursor: its first batch, after which it is kept when there is more, unless
    /// the client wants a single one.
    pub fn open(&self, upstream: &mut Upstream, cursor: Cursor, batch_size: Option<usize>, single: bool) -> Answer {
        let most = batch_size.unwrap_or(FIRST_BATCH);
        let limit = if single { cursor.limit.min(most) } else { cursor.limit };
        self.step(upstream, 0, Cursor { limit, ..cursor }, "firstBatch", most, None)
    }

    /// `getMore`.
    pub fn get_more(&self, upstream: &mut Upstream, body: &RawDocument) -> Answer {
        let id = raw::number(body, "getMore").unwrap_or(0);
        let cursor = self.take(id);
        let cursor = cursor.ok_or_else(|| Refused::new(code::CURSOR_NOT_FOUND, format!("cursor id {id} not found")))?;
        let most = raw::number(body, "batchSize").and_then(|size| usize::try_from(size).ok()).filter(|size| *size > 0);
        self.step(upstream, id, cursor, "nextBatch", most.unwrap_or(usize::MAX), Some(body))
    }

    /// `killCursors`.
    pub fn kill(&self, upstream: &mut Upstream, body: &RawDocument) -> Answer {
        let ids = raw::value(body, "cursors").and_then(|ids| ids.as_array());
        let (mut killed, mut missing) = (RawArrayBuf::new(), RawArrayBuf::new());
        for id in ids.into_iter().flatten().flatten().filter_map(|id| id.as_i64()) {
            match self.take(id) {
                Some(cursor) => {
                    cursor.close(upstream);
                    killed.push(id);
                }
                None => missing.push(id),
            }
        }
        let none = RawArrayBuf::new();
        Ok(rawdoc! {
            "cursorsKilled": killed, "cursorsNotFound": missing, "cursorsAlive": none.clone(), "cursorsUnknown": none,
            "ok": 1.0,
        })
    }

    /// The next batch, after which the cursor goes back into the table when there is more. Without `get_more`, no
    /// server is asked.
    fn step(
        &self,
        upstream: &mut Upstream,
        id: i64,
        mut cursor: Cursor,
        name: &str,
        most: usize,
        get_more: Option<&RawDocument>,
    ) -> Answer {
        let mut batch = cursor.batch(most);
        while let Some(get_more) = get_more.filter(|_| batch.is_empty() && !cursor.is_exhausted()) {
            cursor.refill(upstream, get_more)?;
            batch = cursor.batch(most);
        }
        let namespace = cursor.namespace.clone();
        let id = if cursor.is_exhausted() {
            cursor.close(upstream);
            0
        } else {
            self.put(id, cursor)
        };
        let cursor = raw::with(&rawdoc! {"id": id, "ns": namespace}, name, batch);
        Ok(rawdoc! {"cursor": cursor, "ok": 1.0})
    }

    fn put(&self, id: i64, cursor: Cursor) -> i64 {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let id = if id == 0 { table.last_id + 1 } else { id };
        table.last_id = table.last_id.max(id);
        table.open.insert(id, cursor);
        id
    }

    fn take(&self, id: i64) -> Option<Cursor> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).open.remove(&id)
    }
}
