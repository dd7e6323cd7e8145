//! Typed documents in a state store: what a stored document looks like, and when a write counts as done.
//!
//! A stored document is readable JSON with a header: what it is, which version of its schema, and the *write id*, a
//! random id of the one logical write that put it there.
//! ```json
//! { "kind": "lane", "version": 1, "write_id": "5f0c…", "epoch": 7, … }
//! ```
//!
//! # When a write counts as done
//! A store answers `Ok`, or `Conflict`, or nothing that can be relied on. The last two are looked into before they are
//! believed, since the answer that told of our success may have been lost:
//!
//! | read back after `Conflict` or no answer | then |
//! | --- | --- |
//! | our write id | it was our own success: done |
//! | what we meant to replace (or, for a create, nothing) | not yet: written again after a pause, with the same write id |
//! | anything else | lost; the caller is told what is there |
//!
//! Why the write id stays the same over all attempts of one logical write: an attempt that was given up may take effect
//! *late*, even after the attempt that followed it was sent. Both are conditional on the same etag, so at most one of
//! them takes effect, and whichever it is, we recognise it.
//!
//! What the third row may hide: our write took effect, its answer was lost, and another writer, who read ours, replaced
//! it before we looked. It counts as lost. For a lease that is right: we are no longer its holder. For anything else it
//! means that a change which is made again after `Lost` or `Existing` must be one that may be made twice (set, insert
//! into a set, raise to; never add).
//!
//! And after an [`Error`] (the store did not answer for long) nothing is known: the write may still take effect, up to
//! the moment when somebody else replaces the document. Whoever gets the error stops; the next run reads what is there.

use super::store::{Etag, Object, StateStore, StoreError, allowance};
use crate::crash;
use crate::error::{Error, Result};
use crate::random::{jitter, random_id};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tokio_retry::strategy::ExponentialBackoff;

/// Something that is kept in a state store.
///
/// It serialises as a map without the keys `kind`, `version` and `write_id`, and tolerates fields that it does not know:
/// an addition that older readers may ignore does not raise the version.
pub trait Document: Serialize + DeserializeOwned + Send + Sync {
    /// What it is, in the stored document.
    const KIND: &'static str;
    /// The newest version of its schema that this program writes and reads.
    const VERSION: u32;

    /// The version that this one is written in: an older one, where a program that knows no newer one may go on with it.
    fn version(&self) -> u32 {
        Self::VERSION
    }
}

/// A document as it lies in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored<T> {
    /// The document.
    pub value: T,
    /// Its version in the store.
    pub etag: Etag,
    /// The random id of the write that put it there.
    pub write_id: String,
}

/// What came of a create. The first one wins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Created<T> {
    /// It is ours.
    Mine(Stored<T>),
    /// Another one was first, or has replaced ours meanwhile; this is what is there.
    Existing(Stored<T>),
}

impl<T> Created<T> {
    /// What is there now, whoever wrote it.
    pub fn into_stored(self) -> Stored<T> {
        match self {
            Created::Mine(stored) | Created::Existing(stored) => stored,
        }
    }
}

/// What came of a replace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replaced<T> {
    /// It is ours.
    Mine(Stored<T>),
    /// Another writer changed it since it was read; this is what is there (`None`: it is gone, by a hand outside).
    Lost(Option<Stored<T>>),
}

/// How long to try when a store does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// The bound on one logical read or write, all attempts and pauses included. A write of megabytes gets more.
    pub total: Duration,
    /// The pause after the first attempt; it doubles up to a sixteenth of the bound.
    pub first_pause: Duration,
}

impl Default for Patience {
    /// 20 s. S3 asks its clients to ride out some seconds of 503 when a prefix becomes busy; a lane stops sending when
    /// half its lease has passed without a save and may go on once this succeeds; and whoever waits at a terminal for an
    /// unreachable store hears of it within 30 s.
    fn default() -> Self {
        Self { total: Duration::from_secs(20), first_pause: Duration::from_millis(100) }
    }
}

impl Patience {
    pub(super) fn pauses(self) -> impl Iterator<Item = Duration> {
        let first = u64::try_from(self.first_pause.as_millis()).unwrap_or(u64::MAX).max(2);
        // tokio-retry's delays are powers of the base times the factor: 2 and half the first pause give first, 2 × first, …
        ExponentialBackoff::from_millis(2)
            .factor(first / 2)
            .max_delay(self.total / 16)
            .map(|pause| Duration::from_secs_f64(jitter(pause.as_secs_f64())))
    }
}

/// The documents below one prefix of a store (a job's). Cheap to clone.
#[derive(Debug, Clone)]
pub struct Documents {
    store: Arc<dyn StateStore>,
    prefix: Arc<str>,
    patience: Patience,
}

/// What came of a logical write of bytes.
enum Written {
    Mine(Etag),
    Other(Option<Object>),
}

impl Documents {
    /// The documents below `prefix`, which is a key (without a `/` at its end), or empty for the whole store.
    pub fn new(store: Arc<dyn StateStore>, prefix: impl Into<Arc<str>>) -> Self {
        Self { store, prefix: prefix.into(), patience: Patience::default() }
    }

    /// The same with another patience.
    #[must_use]
    pub fn with_patience(self, patience: Patience) -> Self {
        Self { patience, ..self }
    }

    /// The store they lie in.
    pub fn store(&self) -> &Arc<dyn StateStore> {
        &self.store
    }

    /// What to call a document in messages: the store's URL and the whole key.
    pub fn name(&self, key: &str) -> String {
        format!("{}/{}", self.store.url(), self.full(key))
    }

    /// The document at `key`, `None` when there is none.
    pub async fn read<T: Document>(&self, key: &str) -> Result<Option<Stored<T>>> {
        let object = self.get(key).await?;
        object.map(|object| self.decode(key, &object)).transpose()
    }

    /// Writes a document that must not exist yet.
    pub async fn create<T: Document>(&self, key: &str, value: &T) -> Result<Created<T>> {
        let body = self.encode(key, value)?;
        match self.write(key, &body, None).await? {
            Written::Mine(etag) => Ok(Created::Mine(self.decode(key, &Object { body, etag })?)),
            Written::Other(Some(object)) => Ok(Created::Existing(self.decode(key, &object)?)),
            Written::Other(None) => Err(defect(&self.name(key), "a create was lost to nothing")),
        }
    }

    /// Writes a document that must still be what was read.
    pub async fn replace<T: Document>(&self, key: &str, value: &T, read: &Stored<T>) -> Result<Replaced<T>> {
        let body = self.encode(key, value)?;
        match self.write(key, &body, Some(&read.etag)).await? {
            Written::Mine(etag) => Ok(Replaced::Mine(self.decode(key, &Object { body, etag })?)),
            Written::Other(object) => Ok(Replaced::Lost(object.map(|object| self.decode(key, &object)).transpose()?)),
        }
    }

    /// The keys below `prefix` (which ends in `/`, or is empty), at any depth, sorted; relative, as the other functions
    /// take them.
    pub async fn list(&self, prefix: &str) -> Result<Vec<String>> {
        let full = self.full(prefix);
        let doing = format!("cannot list `{}/{full}`", self.store.url());
        let keys = self.patiently(&doing, || self.store.list(&full)).await?;
        let cut = full.len() - prefix.len();
        Ok(keys.into_iter().map(|key| key[cut..].to_owned()).collect())
    }

    /// The bytes at `key`, `None` when there are none.
    pub async fn read_bytes(&self, key: &str) -> Result<Option<Bytes>> {
        Ok(self.get(key).await?.map(|object| object.body))
    }

    /// Writes bytes that must not be there yet, and says whether exactly these are there now. There is no write id in
    /// them: two writers of the same bytes both hear `true`, so a key that must have one writer holds a random id.
    pub async fn create_bytes(&self, key: &str, body: Bytes) -> Result<bool> {
        Ok(matches!(self.write(key, &body, None).await?, Written::Mine(_)))
    }

    /// Writes bytes in the place of what is there, and says whether exactly these are there now: `false` when somebody else
    /// wrote others in between. As with [`Documents::create_bytes`], whoever writes the same has written them.
    pub async fn put_bytes(&self, key: &str, body: Bytes) -> Result<bool> {
        let found = self.get(key).await?;
        if found.as_ref().is_some_and(|found| found.body == body) {
            return Ok(true);
        }
        let expected = found.map(|found| found.etag);
        Ok(matches!(self.write(key, &body, expected.as_ref()).await?, Written::Mine(_)))
    }

    fn full(&self, key: &str) -> String {
        if self.prefix.is_empty() { key.to_owned() } else { format!("{}/{key}", self.prefix) }
    }

    async fn get(&self, key: &str) -> Result<Option<Object>> {
        let full = self.full(key);
        let doing = format!("cannot read `{}`", self.name(key));
        self.patiently(&doing, || self.store.get(&full)).await
    }

    /// Reads until there is an answer, within the bound.
    async fn patiently<T, F>(&self, doing: &str, mut attempt: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let mut last = None;
        let attempts = async {
            let mut pauses = self.patience.pauses();
            loop {
                match attempt().await {
                    Ok(value) => return Ok(value),
                    Err(StoreError::Refused(text)) => return Err(Error::bad_input(format!("{doing}: {text}"))),
                    Err(StoreError::Conflict) => return Err(defect(doing, "a read was answered with a conflict")),
                    Err(StoreError::Ambiguous(text)) => last = Some(text),
                }
                pause(&mut pauses).await;
            }
        };
        match tokio::time::timeout(self.patience.total, attempts).await {
            Ok(result) => result,
            Err(_) => Err(Error::state(format!("{doing}: {}", gave_up(self.patience.total, last.as_deref())))),
        }
    }

    /// One logical write, with the reasoning of the module's doc. `expected` is what is to be replaced, `None` to create.
    async fn write(&self, key: &str, body: &Bytes, expected: Option<&Etag>) -> Result<Written> {
        let total = self.patience.total + allowance(body.len());
        let mut doubt = None;
        let attempts = self.write_until_known(key, body, expected, &mut doubt);
        match tokio::time::timeout(total, attempts).await {
            Ok(result) => result,
            Err(_) => Err(Error::state(format!(
                "cannot write `{}`: {}; it may or may not have been written",
                self.name(key),
                gave_up(total, doubt.as_deref())
            ))),
        }
    }

    async fn write_until_known(
        &self,
        key: &str,
        body: &Bytes,
        expected: Option<&Etag>,
        doubt: &mut Option<String>,
    ) -> Result<Written> {
        let full = self.full(key);
        let mut pauses = self.patience.pauses();
        loop {
            let answer = match expected {
                None => crash::around("state", self.store.create(&full, body.clone())).await,
                Some(etag) => crash::around("state", self.store.replace(&full, body.clone(), etag)).await,
            };
            let conflict = match answer {
                Ok(etag) => return Ok(Written::Mine(etag)),
                Err(StoreError::Refused(text)) => return Err(self.refused(key, &text, doubt.as_deref())),
                Err(StoreError::Conflict) => true,
                Err(StoreError::Ambiguous(text)) => {
                    *doubt = Some(text);
                    // Before reading back: what is under way gets the time to arrive.
                    pause(&mut pauses).await;
                    false
                }
            };
            let found = loop {
                match self.store.get(&full).await {
                    Ok(found) => break found,
                    Err(StoreError::Refused(text)) => {
                        let doubt = doubt.as_deref().unwrap_or("it could not be read back");
                        return Err(self.refused(key, &text, Some(doubt)));
                    }
                    Err(StoreError::Conflict) => {
                        return Err(defect(&self.name(key), "a read was answered with a conflict"));
                    }
                    Err(StoreError::Ambiguous(text)) => *doubt = Some(text),
                }
                pause(&mut pauses).await;
            };
            match found {
                // The whole body holds the write id, and belongs to no other write: comparing it needs no parsing.
                Some(object) if object.body == body => return Ok(Written::Mine(object.etag)),
                found if found.as_ref().map(|object| &object.etag) != expected => return Ok(Written::Other(found)),
                _ => {}
            }
            // Unchanged: it did not take effect, or not yet.
            if conflict {
                *doubt = Some("the store says that another writer changed it, which none did".to_owned());
                pause(&mut pauses).await;
            }
        }
    }

    /// A refusal says that nothing was changed, unless an earlier attempt of the same write may have.
    fn refused(&self, key: &str, text: &str, doubt: Option<&str>) -> Error {
        let name = self.name(key);
        match doubt {
            None => Error::bad_input(format!("cannot write `{name}`: {text}")),
            Some(doubt) => Error::state(format!(
                "cannot write `{name}`: {text}; an earlier attempt may or may not have written it ({doubt})"
            )),
        }
    }

    fn encode<T: Document>(&self, key: &str, value: &T) -> Result<Bytes> {
        let body = encode(value, &random_id()).map_err(|problem| defect(&self.name(key), &problem))?;
        // What could not be read again is found before it is written, and not in the morning.
        if let Err(problem) = parse::<T>(&body) {
            return Err(defect(&self.name(key), &format!("this would not be readable: {problem:?}")));
        }
        Ok(body)
    }

    fn decode<T: Document>(&self, key: &str, object: &Object) -> Result<Stored<T>> {
        match parse(&object.body) {
            Ok((value, write_id)) => Ok(Stored { value, etag: object.etag.clone(), write_id }),
            Err(Unreadable::Newer(version)) => Err(Error::bad_input(format!(
                "`{}` is state of a newer version: its `{}` has version {version}, this program knows up to {}; use a newer \
                 mongoferry",
                self.name(key),
                T::KIND,
                T::VERSION
            ))),
            Err(Unreadable::Damaged(problem)) => Err(Error::state(format!(
                "`{}` is damaged ({problem}) and was kept as it is; put back a good copy of it, or use another --job",
                self.name(key)
            ))),
        }
    }
}

pub(super) async fn pause(pauses: &mut impl Iterator<Item = Duration>) {
    // The back-off has no end; the bound is around the whole.
    let pause = pauses.next().unwrap_or(Duration::from_secs(1));
    tokio::time::sleep(pause).await;
}

fn gave_up(total: Duration, last: Option<&str>) -> String {
    format!("{}; gave up after {:.0?}, try again later", last.unwrap_or("no answer"), total)
}

fn defect(what: &str, problem: &str) -> Error {
    Error::internal(format!("{what}: {problem}; this is a defect of mongoferry, please report it"))
}

#[derive(Serialize)]
struct Envelope<'a, T> {
    kind: &'static str,
    version: u32,
    write_id: &'a str,
    #[serde(flatten)]
    value: &'a T,
}

#[derive(Deserialize)]
struct Header {
    kind: String,
    version: u32,
    write_id: String,
}

/// A document as it is stored. Everything but the write id follows from the value, which golden files rely on.
pub fn encode<T: Document>(value: &T, write_id: &str) -> std::result::Result<Bytes, String> {
    let document = Envelope { kind: T::KIND, version: value.version(), write_id, value };
    let mut body = serde_json::to_vec_pretty(&document).map_err(|error| error.to_string())?;
    body.push(b'\n');
    Ok(body.into())
}

/// Why a stored document cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unreadable {
    /// A newer program wrote it, in this version.
    Newer(u32),
    /// It is not what was written; the text says how it shows.
    Damaged(String),
}

/// A stored document's value and write id.
pub fn parse<T: Document>(body: &[u8]) -> std::result::Result<(T, String), Unreadable> {
    let damaged = |error: serde_json::Error| Unreadable::Damaged(error.to_string());
    // Twice, and not with `flatten`, which would lose line numbers and maps with keys that are no strings.
    let header: Header = serde_json::from_slice(body).map_err(damaged)?;
    if header.kind != T::KIND {
        return Err(Unreadable::Damaged(format!("a `{}` where a `{}` belongs", header.kind, T::KIND)));
    }
    if header.version > T::VERSION {
        return Err(Unreadable::Newer(header.version));
    }
    let value = serde_json::from_slice(body).map_err(damaged)?;
    Ok((value, header.write_id))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may fail")]
    use super::super::memory::{Fault, MemoryStore};
    use super::*;
    use crate::error::Kind;
    use std::collections::{BTreeMap, BTreeSet};

    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    struct Note {
        text: String,
        numbers: BTreeMap<u32, u64>,
    }

    impl Document for Note {
        const KIND: &'static str = "note";
        const VERSION: u32 = 2;
    }

    fn note(text: &str) -> Note {
        Note { text: text.to_owned(), numbers: BTreeMap::from([(1, u64::MAX)]) }
    }

    const BRIEF: Patience = Patience { total: Duration::from_millis(400), first_pause: Duration::from_millis(2) };

    fn documents(store: &MemoryStore) -> Documents {
        Documents::new(Arc::new(store.clone()), "jobs/shop").with_patience(BRIEF)
    }

    fn mine<T: std::fmt::Debug>(created: Created<T>) -> Stored<T> {
        match created {
            Created::Mine(stored) => stored,
            Created::Existing(other) => panic!("not ours: {other:?}"),
        }
    }

    fn replaced<T: std::fmt::Debug>(replaced: Replaced<T>) -> Stored<T> {
        match replaced {
            Replaced::Mine(stored) => stored,
            Replaced::Lost(other) => panic!("lost to {other:?}"),
        }
    }

    /// A store that holds `first` at `k`, and what was read of it.
    async fn with_first() -> (MemoryStore, Documents, Stored<Note>) {
        let store = MemoryStore::new();
        let documents = documents(&store);
        let first = mine(documents.create("k", &note("first")).await.unwrap());
        (store, documents, first)
    }

    async fn now(documents: &Documents) -> Stored<Note> {
        documents.read("k").await.unwrap().unwrap()
    }

    #[test]
    fn stored_form() {
        let body = encode(&note("hello"), "0123").unwrap();
        let expected = r#"{
  "kind": "note",
  "version": 2,
  "write_id": "0123",
  "text": "hello",
  "numbers": {
    "1": 18446744073709551615
  }
}
"#;
        assert_eq!(std::str::from_utf8(&body).unwrap(), expected);
        assert_eq!(parse::<Note>(&body).unwrap(), (note("hello"), "0123".to_owned()));
    }

    #[tokio::test]
    async fn what_was_written_is_read() {
        let (store, documents, first) = with_first().await;
        assert_eq!(now(&documents).await, first);
        let second = replaced(documents.replace("k", &note("second"), &first).await.unwrap());
        assert_ne!(second.write_id, first.write_id);
        assert_eq!(now(&documents).await, second);
        assert_eq!(documents.read::<Note>("other").await.unwrap(), None);
        assert_eq!(store.list("").await.unwrap(), ["jobs/shop/k"]);
    }

    #[tokio::test]
    async fn lists_are_relative() {
        let (_, documents, _) = with_first().await;
        documents.create("lanes/b", &note("")).await.unwrap();
        documents.create("lanes/a/x", &note("")).await.unwrap();
        assert_eq!(documents.list("").await.unwrap(), ["k", "lanes/a/x", "lanes/b"]);
        assert_eq!(documents.list("lanes/").await.unwrap(), ["lanes/a/x", "lanes/b"]);
        let whole = Documents::new(documents.store().clone(), "");
        assert_eq!(whole.list("jobs/shop/lanes/a/").await.unwrap(), ["jobs/shop/lanes/a/x"]);
    }

    #[tokio::test]
    async fn the_first_create_wins_and_the_loser_sees_it() {
        let (_, documents, first) = with_first().await;
        assert_eq!(documents.create("k", &note("second")).await.unwrap(), Created::Existing(first.clone()));
        // Even with the same content: another write is another write.
        assert_eq!(documents.create("k", &note("first")).await.unwrap(), Created::Existing(first));
    }

    #[tokio::test]
    async fn a_real_conflict_is_lost_and_shows_what_is_there() {
        let (store, documents, first) = with_first().await;
        let second = replaced(documents.replace("k", &note("second"), &first).await.unwrap());
        assert_eq!(documents.replace("k", &note("third"), &first).await.unwrap(), Replaced::Lost(Some(second.clone())));
        // Also when the store does not answer at first.
        store.next_writes([Fault::Fail]);
        assert_eq!(documents.replace("k", &note("third"), &first).await.unwrap(), Replaced::Lost(Some(second)));
        assert_eq!(documents.replace("gone", &note("x"), &first).await.unwrap(), Replaced::Lost(None));
    }

    #[tokio::test]
    async fn own_success_is_recognised_whatever_happens_to_its_answer() {
        let late = (0..6).map(Fault::Late);
        let faults =
            [Fault::LoseAnswer, Fault::Duplicate, Fault::Fail, Fault::FalseConflict, Fault::Delay(BRIEF.total / 20)];
        for fault in faults.into_iter().chain(late) {
            let store = MemoryStore::new();
            let documents = documents(&store);
            store.next_writes([fault.clone()]);
            let first = mine(documents.create("k", &note("first")).await.unwrap());
            assert_eq!(now(&documents).await, first, "{fault:?}");
            store.next_writes([fault.clone()]);
            let second = replaced(documents.replace("k", &note("second"), &first).await.unwrap());
            for _ in 0..8 {
                assert_eq!(now(&documents).await, second, "a late attempt changed it: {fault:?}");
            }
        }
    }

    #[tokio::test]
    async fn several_faults_in_a_row_also_while_reading_back() {
        let (store, documents, first) = with_first().await;
        store.next_writes([Fault::Fail, Fault::Late(3), Fault::LoseAnswer]);
        store.next_reads([Fault::Fail, Fault::Fail]);
        let second = replaced(documents.replace("k", &note("second"), &first).await.unwrap());
        assert_eq!(now(&documents).await, second);
    }

    #[tokio::test]
    async fn own_success_that_another_replaced_before_it_was_seen_is_lost() {
        let (store, documents, first) = with_first().await;
        store.next_writes([Fault::LoseAnswer]);
        let slow = Documents { patience: Patience { first_pause: BRIEF.total / 4, ..BRIEF }, ..documents.clone() };
        let third = async {
            let seen = loop {
                let seen = now(&documents).await;
                if seen.value.text == "second" {
                    break seen;
                }
                tokio::task::yield_now().await;
            };
            replaced(documents.replace("k", &note("third"), &seen).await.unwrap())
        };
        let second = note("second");
        let (ours, third) = tokio::join!(slow.replace("k", &second, &first), third);
        assert_eq!(ours.unwrap(), Replaced::Lost(Some(third)));
    }

    #[tokio::test]
    async fn a_store_that_stays_silent_is_unavailable_within_the_bound() {
        let (store, documents, first) = with_first().await;
        store.set_down(true);
        for error in [
            documents.read::<Note>("k").await.unwrap_err(),
            documents.create("x", &note("")).await.unwrap_err(),
            documents.replace("k", &note("second"), &first).await.unwrap_err(),
            documents.list("").await.unwrap_err(),
            documents.read_bytes("k").await.unwrap_err(),
        ] {
            assert_eq!(error.kind(), Kind::StateUnavailable);
            assert!(error.to_string().contains("memory:/jobs/shop/"), "{error}");
            assert!(error.to_string().contains("no answer, as a test asked for"), "{error}");
        }
        assert!(store.writes() < 50, "{} attempts without a pause", store.writes());
        store.set_down(false);
        store.next_reads([Fault::Delay(Duration::from_secs(60))]);
        let error = documents.read::<Note>("k").await.unwrap_err();
        assert!(error.to_string().contains("no answer; gave up after 400ms"), "{error}");
        // A store that says conflict for ever is not believed, nor asked without a pause.
        let asked = store.writes();
        store.next_writes(std::iter::repeat_n(Fault::FalseConflict, 1000));
        let error = documents.replace("k", &note("second"), &first).await.unwrap_err();
        assert_eq!(error.kind(), Kind::StateUnavailable);
        assert!(store.writes() < asked + 50);
    }

    #[tokio::test]
    async fn a_refusal_is_bad_input_unless_something_may_have_happened() {
        let (store, documents, first) = with_first().await;
        store.next_writes([Fault::Refuse]);
        let error = documents.replace("k", &note("second"), &first).await.unwrap_err();
        assert_eq!(error.kind(), Kind::BadInput);
        store.next_writes([Fault::Fail, Fault::Refuse]);
        let error = documents.replace("k", &note("second"), &first).await.unwrap_err();
        assert_eq!(error.kind(), Kind::StateUnavailable);
        assert!(error.to_string().contains("may or may not"), "{error}");
        store.next_reads([Fault::Refuse]);
        assert_eq!(documents.read::<Note>("k").await.unwrap_err().kind(), Kind::BadInput);
    }

    #[tokio::test]
    async fn newer_state_is_refused_with_both_versions() {
        let (store, documents, first) = with_first().await;
        let newer = r#"{"kind": "note", "version": 3, "write_id": "ab", "shape": "unknown"}"#;
        store.put("jobs/shop/k", newer);
        for error in [
            documents.read::<Note>("k").await.unwrap_err(),
            documents.create("k", &note("")).await.unwrap_err(),
            documents.replace("k", &note(""), &first).await.unwrap_err(),
        ] {
            assert_eq!(error.kind(), Kind::BadInput);
            for part in ["memory:/jobs/shop/k", "newer version", "version 3", "up to 2", "use a newer mongoferry"] {
                assert!(error.to_string().contains(part), "{error}");
            }
        }
        assert_eq!(documents.read_bytes("k").await.unwrap().unwrap(), newer);
    }

    #[tokio::test]
    async fn damaged_documents_are_named_and_kept() {
        let (store, documents, first) = with_first().await;
        let good = documents.read_bytes("k").await.unwrap().unwrap();
        let cut = good.slice(..good.len() - 9);
        for (body, says) in [
            (Bytes::new(), "EOF"),
            (cut, "EOF"),
            (Bytes::from_static(b"\xff\xfe"), "expected value"),
            (Bytes::from_static(b"[]"), "invalid"),
            (
                Bytes::from_static(br#"{"kind": "lane", "version": 1, "write_id": "a"}"#),
                "a `lane` where a `note` belongs",
            ),
            (
                Bytes::from_static(br#"{"kind": "note", "version": 1, "text": "", "numbers": {}}"#),
                "missing field `write_id`",
            ),
            (
                Bytes::from_static(br#"{"kind": "note", "version": 1, "write_id": "a", "numbers": {}}"#),
                "missing field `text`",
            ),
        ] {
            store.put("jobs/shop/k", body.clone());
            for error in [
                documents.read::<Note>("k").await.unwrap_err(),
                documents.create("k", &note("")).await.unwrap_err(),
                documents.replace("k", &note(""), &first).await.unwrap_err(),
            ] {
                assert_eq!(error.kind(), Kind::StateUnavailable);
                for part in ["memory:/jobs/shop/k", "damaged", "kept as it is", "another --job", says] {
                    assert!(error.to_string().contains(part), "{error} lacks {part}");
                }
            }
            assert_eq!(documents.read_bytes("k").await.unwrap().unwrap(), body);
        }
    }

    #[tokio::test]
    async fn unknown_fields_and_older_versions_are_read() {
        let (store, documents, _) = with_first().await;
        let body = r#"{"kind": "note", "version": 1, "write_id": "ab", "text": "t", "numbers": {}, "later": [1]}"#;
        store.put("jobs/shop/k", body);
        let stored = now(&documents).await;
        assert_eq!((stored.value.text.as_str(), stored.write_id.as_str()), ("t", "ab"));
    }

    #[tokio::test]
    async fn what_could_not_be_read_again_is_not_written() {
        #[derive(Debug, Serialize, Deserialize)]
        struct Ratio {
            value: f64,
        }
        impl Document for Ratio {
            const KIND: &'static str = "ratio";
            const VERSION: u32 = 1;
        }
        #[derive(Debug, Serialize, Deserialize)]
        struct Clash {
            version: u32,
        }
        impl Document for Clash {
            const KIND: &'static str = "clash";
            const VERSION: u32 = 1;
        }
        let store = MemoryStore::new();
        let documents = documents(&store);
        assert_eq!(documents.create("a", &Ratio { value: f64::NAN }).await.unwrap_err().kind(), Kind::Internal);
        assert_eq!(documents.create("b", &Clash { version: 9 }).await.unwrap_err().kind(), Kind::Internal);
        assert_eq!(store.writes(), 0);
    }

    #[tokio::test]
    async fn bytes_are_created_once() {
        let store = MemoryStore::new();
        let documents = documents(&store);
        for (number, fault) in
            [Fault::Pass, Fault::LoseAnswer, Fault::Duplicate, Fault::Late(0)].into_iter().enumerate()
        {
            store.next_writes([fault]);
            let key = format!("journal/{number}.jsonl");
            assert!(documents.create_bytes(&key, Bytes::from_static(b"{}\n")).await.unwrap());
            assert!(!documents.create_bytes(&key, Bytes::from_static(b"other")).await.unwrap());
            assert!(documents.create_bytes(&key, Bytes::from_static(b"{}\n")).await.unwrap());
            assert_eq!(documents.read_bytes(&key).await.unwrap().unwrap(), "{}\n");
        }
        assert_eq!(documents.read_bytes("journal/none").await.unwrap(), None);
        for body in ["first", "first", "second", "first"] {
            assert!(documents.put_bytes("settings", Bytes::from(body)).await.unwrap());
            assert_eq!(documents.read_bytes("settings").await.unwrap().unwrap(), body);
        }
    }

    #[derive(Debug, Clone, Default, Serialize, Deserialize)]
    struct Names {
        names: BTreeSet<u64>,
    }

    impl Document for Names {
        const KIND: &'static str = "names";
        const VERSION: u32 = 1;
    }

    /// Ten writers each put their names into a set, on a store where a third of all requests goes wrong.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn nothing_acknowledged_is_lost_on_an_unreliable_store() {
        const WRITERS: u64 = 10;
        const NAMES: u64 = 10;
        for seed in 0..5 {
            let store = MemoryStore::unreliable(seed, 0.3);
            let patience = Patience { total: Duration::from_secs(30), first_pause: Duration::from_millis(2) };
            let documents = documents(&store).with_patience(patience);
            let mut writers = tokio::task::JoinSet::new();
            for writer in 0..WRITERS {
                let documents = documents.clone();
                writers.spawn(async move {
                    let mut created = 0;
                    let mut stored = match documents.create("k", &Names::default()).await.unwrap() {
                        Created::Mine(stored) => {
                            created += 1;
                            stored
                        }
                        Created::Existing(stored) => stored,
                    };
                    for name in 0..NAMES {
                        loop {
                            let mut names = stored.value.clone();
                            names.names.insert(writer * NAMES + name);
                            match documents.replace("k", &names, &stored).await.unwrap() {
                                Replaced::Mine(now) => {
                                    stored = now;
                                    break;
                                }
                                Replaced::Lost(now) => stored = now.unwrap(),
                            }
                        }
                    }
                    created
                });
            }
            let created: u32 = writers.join_all().await.into_iter().sum();
            assert!(created <= 1, "{created} writers were told that they were first");
            let names = documents.read::<Names>("k").await.unwrap().unwrap().value.names;
            assert_eq!(names, (0..WRITERS * NAMES).collect());
        }
    }
}
