//! A state store in memory: that of a dry run, whose state goes with the process. No URL leads to it.
//!
//! Tests can tell it to misbehave, those of other crates as well.
//!
//! It is as unhelpful as [`super::store::StateStore`] allows: its etags hash the content (so equal contents have equal
//! etags), and a request that was given up may take effect later.

use super::store::{Etag, Object, StateStore, StoreError, check_key, check_prefix, content_etag};
use async_trait::async_trait;
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What happens to one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    Pass,
    /// It has no effect, and the caller cannot know.
    Fail,
    /// The store refuses.
    Refuse,
    /// It takes this long.
    Delay(Duration),
    /// It arrives twice, and the second answer is the one that is heard: a conflict with itself.
    Duplicate,
    /// It has its effect, and the caller cannot know.
    LoseAnswer,
    /// The caller cannot know, and it has its effect, if its condition still holds then, after this many more requests
    /// of any kind.
    Late(u32),
    /// It has no effect and is answered with a conflict although there is none.
    FalseConflict,
}

/// A state store in memory. Clones share their content.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    objects: BTreeMap<String, Bytes>,
    next_writes: VecDeque<Fault>,
    next_reads: VecDeque<Fault>,
    chance: Option<Chance>,
    late: Vec<(u32, Write)>,
    writes: u64,
    reads: u64,
    down: bool,
    ignores_conditions: bool,
}

#[derive(Debug, Clone)]
struct Write {
    key: String,
    body: Bytes,
    expected: Option<Etag>,
}

impl MemoryStore {
    /// An empty store that does as it is told.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty store in which requests fail in every way with this probability, the same way for the same seed and
    /// order of requests.
    pub fn unreliable(seed: u64, probability: f64) -> Self {
        let store = Self::new();
        store.lock().chance = Some(Chance { state: seed, probability });
        store
    }

    /// An empty store that writes whatever the condition says, as some S3-compatible servers do.
    pub fn without_conditions() -> Self {
        let store = Self::new();
        store.lock().ignores_conditions = true;
        store
    }

    /// What happens to the next writes, one after another, before anything is left to chance.
    pub fn next_writes(&self, faults: impl IntoIterator<Item = Fault>) {
        self.lock().next_writes.extend(faults);
    }

    /// What happens to the next reads and listings. Of what only makes sense for a write, nothing happens.
    pub fn next_reads(&self, faults: impl IntoIterator<Item = Fault>) {
        self.lock().next_reads.extend(faults);
    }

    /// From now on every request fails, or no longer does.
    pub fn set_down(&self, down: bool) {
        self.lock().down = down;
    }

    /// How many writes were asked for.
    pub fn writes(&self) -> u64 {
        self.lock().writes
    }

    /// How many reads and listings were asked for.
    pub fn reads(&self) -> u64 {
        self.lock().reads
    }

    /// Puts an object there whatever the store holds, as a person with an editor would.
    pub fn put(&self, key: &str, body: impl Into<Bytes>) {
        self.lock().objects.insert(key.to_owned(), body.into());
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A test that failed while it held the lock left nothing half done in it.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn write(&self, write: Write) -> Result<Etag, StoreError> {
        check_key(&write.key)?;
        let fault = {
            let mut inner = self.lock();
            inner.land();
            inner.writes += 1;
            inner.write_fault()
        };
        match fault {
            Fault::Pass => self.lock().apply(&write),
            Fault::Fail => Err(no_answer()),
            Fault::Refuse => Err(refusal()),
            Fault::FalseConflict => Err(StoreError::Conflict),
            Fault::Delay(delay) => {
                tokio::time::sleep(delay).await;
                self.lock().apply(&write)
            }
            Fault::Duplicate => {
                let mut inner = self.lock();
                // The first answer is the one that gets lost.
                let _ = inner.apply(&write);
                inner.apply(&write)
            }
            Fault::LoseAnswer => {
                let _ = self.lock().apply(&write);
                Err(no_answer())
            }
            Fault::Late(requests) => {
                self.lock().late.push((requests, write));
                Err(no_answer())
            }
        }
    }

    async fn before_read(&self) -> Result<(), StoreError> {
        let fault = {
            let mut inner = self.lock();
            inner.land();
            inner.reads += 1;
            inner.read_fault()
        };
        match fault {
            Fault::Fail => Err(no_answer()),
            Fault::Refuse => Err(refusal()),
            Fault::Delay(delay) => {
                tokio::time::sleep(delay).await;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

fn no_answer() -> StoreError {
    StoreError::Ambiguous("memory: no answer, as a test asked for".to_owned())
}

fn refusal() -> StoreError {
    StoreError::Refused("memory: refused, as a test asked for".to_owned())
}

impl Inner {
    fn apply(&mut self, write: &Write) -> Result<Etag, StoreError> {
        let current = self.objects.get(&write.key).map(|body| content_etag(body));
        if current != write.expected && !self.ignores_conditions {
            return Err(StoreError::Conflict);
        }
        self.objects.insert(write.key.clone(), write.body.clone());
        Ok(content_etag(&write.body))
    }

    /// Lets the late requests take effect whose time has come.
    fn land(&mut self) {
        let (due, waiting) = std::mem::take(&mut self.late).into_iter().partition(|(requests, _)| *requests == 0);
        self.late = waiting;
        for (requests, _) in &mut self.late {
            *requests -= 1;
        }
        let due: Vec<(u32, Write)> = due;
        for (_, write) in due {
            // Nobody hears the answer.
            let _ = self.apply(&write);
        }
    }

    fn write_fault(&mut self) -> Fault {
        if self.down {
            return Fault::Fail;
        }
        if let Some(fault) = self.next_writes.pop_front() {
            return fault;
        }
        let Some(chance) = &mut self.chance else { return Fault::Pass };
        if !chance.strikes() {
            return Fault::Pass;
        }
        match chance.below(6) {
            0 => Fault::Fail,
            1 => Fault::Delay(Duration::from_millis(1)),
            2 => Fault::Duplicate,
            3 => Fault::LoseAnswer,
            4 => Fault::FalseConflict,
            _ => Fault::Late(chance.below(4) as u32),
        }
    }

    fn read_fault(&mut self) -> Fault {
        if self.down {
            return Fault::Fail;
        }
        if let Some(fault) = self.next_reads.pop_front() {
            return fault;
        }
        let Some(chance) = &mut self.chance else { return Fault::Pass };
        if !chance.strikes() {
            return Fault::Pass;
        }
        if chance.below(2) == 0 { Fault::Fail } else { Fault::Delay(Duration::from_millis(1)) }
    }
}

/// Repeatable chance (SplitMix64).
#[derive(Debug)]
struct Chance {
    state: u64,
    probability: f64,
}

impl Chance {
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.state;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    fn strikes(&mut self) -> bool {
        ((self.next() >> 11) as f64) < self.probability * (1_u64 << 53) as f64
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

#[async_trait]
impl StateStore for MemoryStore {
    async fn get(&self, key: &str) -> Result<Option<Object>, StoreError> {
        check_key(key)?;
        self.before_read().await?;
        Ok(self.lock().objects.get(key).map(|body| Object { body: body.clone(), etag: content_etag(body) }))
    }

    async fn create(&self, key: &str, body: Bytes) -> Result<Etag, StoreError> {
        self.write(Write { key: key.to_owned(), body, expected: None }).await
    }

    async fn replace(&self, key: &str, body: Bytes, etag: &Etag) -> Result<Etag, StoreError> {
        self.write(Write { key: key.to_owned(), body, expected: Some(etag.clone()) }).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        check_prefix(prefix)?;
        self.before_read().await?;
        Ok(self.lock().objects.keys().filter(|key| key.starts_with(prefix)).cloned().collect())
    }

    fn url(&self) -> &str {
        "memory:"
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may fail")]
    use super::*;

    #[tokio::test]
    async fn a_late_write_lands_after_its_requests_and_only_if_it_still_may() {
        let store = MemoryStore::new();
        store.next_writes([Fault::Late(1)]);
        assert!(matches!(store.create("a", "1".into()).await, Err(StoreError::Ambiguous(_))));
        assert_eq!(store.get("a").await.unwrap(), None);
        assert!(store.get("a").await.unwrap().is_some());

        store.next_writes([Fault::Late(1)]);
        let _ = store.create("b", "late".into()).await;
        store.create("b", "early".into()).await.unwrap();
        assert_eq!(store.get("b").await.unwrap().unwrap().body, "early");
    }

    #[tokio::test]
    async fn chance_repeats_itself() {
        let mut runs = Vec::new();
        for _ in 0..2 {
            let store = MemoryStore::unreliable(7, 0.5);
            let mut answers = Vec::new();
            for number in 0..50 {
                answers.push(store.create(&format!("k{number}"), "x".into()).await);
            }
            runs.push(answers);
        }
        assert_eq!(runs[0], runs[1]);
        assert!(runs[0].iter().any(Result::is_ok) && runs[0].iter().any(Result::is_err));
    }
}
