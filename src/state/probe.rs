//! Finds a store that does not honour conditional writes, before anything relies on it.
//!
//! Some S3-compatible servers ignore `If-None-Match` or `If-Match` and write whatever is asked: two workers would then
//! both believe that they hold a lane.

use super::document::{Patience, pause};
use super::store::{Etag, Object, StateStore, StoreError};
use crate::error::{Error, Result};
use crate::random::random_id;
use bytes::Bytes;

/// Where the probe leaves its one small object, below the store's prefix, for all jobs together.
pub const PROBE_KEY: &str = "conditional-writes.probe";

/// Tries the conditions, on one object at [`PROBE_KEY`] that stays.
///
/// Right however often it ran before, and however many run at once, since on a store that honours conditions:
/// 1. After a create, whatever its answer, the object is there, and nobody deletes it: a second create must fail.
/// 2. After a replace of what was read, whatever its answer, that etag is stale for good (ours or another's content, and
///    every content holds a random id): a second replace of the same etag must fail.
/// 3. A replace that fails although nothing changed the object says that the store refuses what it should do.
pub async fn probe(store: &dyn StateStore) -> Result<()> {
    probe_with(store, Patience::default()).await
}

async fn probe_with(store: &dyn StateStore, patience: Patience) -> Result<()> {
    let mut last = None;
    let attempts = async {
        let mut pauses = patience.pauses();
        loop {
            match attempt(store).await {
                Ok(()) => return Ok(()),
                Err(StoreError::Refused(text)) => return Err(Error::bad_input(text)),
                Err(StoreError::Ambiguous(text)) => last = Some(text),
                Err(StoreError::Conflict) => {
                    return Err(Error::internal("a conflict that the probe expects went through it"));
                }
            }
            pause(&mut pauses).await;
        }
    };
    match tokio::time::timeout(patience.total, attempts).await {
        Ok(result) => result,
        Err(_) => Err(Error::state(format!(
            "state store {}: {}; gave up after {:.0?}, try again later",
            store.url(),
            last.as_deref().unwrap_or("no answer"),
            patience.total
        ))),
    }
}

async fn attempt(store: &dyn StateStore) -> Result<(), StoreError> {
    if expect_conflict(store.create(PROBE_KEY, content()).await)?.is_some()
        && expect_conflict(store.create(PROBE_KEY, content()).await)?.is_some()
    {
        return Err(ignored(store, "`If-None-Match: *`"));
    }
    let before = present(store).await?;
    let replaced = expect_conflict(store.replace(PROBE_KEY, content(), &before.etag).await)?;
    if replaced.is_none() && present(store).await?.etag == before.etag {
        return Err(StoreError::Refused(format!(
            "state store {} refuses a write with a right `If-Match`; {WAY_OUT}",
            store.url()
        )));
    }
    if expect_conflict(store.replace(PROBE_KEY, content(), &before.etag).await)?.is_some() {
        return Err(ignored(store, "`If-Match`"));
    }
    Ok(())
}

const WAY_OUT: &str =
    "two workers could not be kept apart: use AWS S3, MinIO from RELEASE.2025-09-07T16-13-09Z on, or a folder";

/// New each time, so that its etag is as well.
fn content() -> Bytes {
    format!("mongoferry tried here whether this store honours conditional writes: {}\n", random_id()).into()
}

fn ignored(store: &dyn StateStore, condition: &str) -> StoreError {
    StoreError::Refused(format!("state store {} ignores {condition}; {WAY_OUT}", store.url()))
}

fn expect_conflict(answer: Result<Etag, StoreError>) -> Result<Option<Etag>, StoreError> {
    match answer {
        Ok(etag) => Ok(Some(etag)),
        Err(StoreError::Conflict) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn present(store: &dyn StateStore) -> Result<Object, StoreError> {
    store.get(PROBE_KEY).await?.ok_or_else(|| {
        StoreError::Refused(format!("state store {} does not show an object that it took; {WAY_OUT}", store.url()))
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may fail")]
    use super::super::memory::{Fault, MemoryStore};
    use super::*;
    use crate::error::Kind;
    use std::time::Duration;

    const BRIEF: Patience = Patience { total: Duration::from_millis(400), first_pause: Duration::from_millis(2) };

    #[tokio::test]
    async fn passes_again_and_again_and_leaves_one_object() {
        let store = MemoryStore::new();
        for _ in 0..3 {
            probe(&store).await.unwrap();
        }
        assert_eq!(store.list("").await.unwrap(), [PROBE_KEY]);
    }

    #[tokio::test]
    async fn finds_a_store_without_conditions() {
        let store = MemoryStore::without_conditions();
        for _ in 0..2 {
            let error = probe(&store).await.unwrap_err();
            assert_eq!(error.kind(), Kind::BadInput);
            assert!(error.to_string().contains("ignores `If-None-Match: *`"), "{error}");
        }
    }

    /// Honours creates alone, as some servers do.
    #[derive(Debug)]
    struct OnlyCreates(MemoryStore);

    #[async_trait::async_trait]
    impl StateStore for OnlyCreates {
        async fn get(&self, key: &str) -> Result<Option<Object>, StoreError> {
            self.0.get(key).await
        }
        async fn create(&self, key: &str, body: Bytes) -> Result<Etag, StoreError> {
            self.0.create(key, body).await
        }
        async fn replace(&self, key: &str, body: Bytes, _: &Etag) -> Result<Etag, StoreError> {
            let now = present(&self.0).await?.etag;
            self.0.replace(key, body, &now).await
        }
        async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
            self.0.list(prefix).await
        }
        fn url(&self) -> &str {
            "s3://old"
        }
    }

    #[tokio::test]
    async fn finds_a_store_that_ignores_if_match_alone() {
        let error = probe(&OnlyCreates(MemoryStore::new())).await.unwrap_err();
        assert!(error.to_string().contains("s3://old ignores `If-Match`"), "{error}");
    }

    #[tokio::test]
    async fn rides_out_lost_answers_and_gives_up_on_silence() {
        let store = MemoryStore::new();
        store.next_writes([
            Fault::LoseAnswer,
            Fault::Fail,
            Fault::Pass,
            Fault::LoseAnswer,
            Fault::Late(1),
            Fault::Duplicate,
        ]);
        probe_with(&store, BRIEF).await.unwrap();
        store.set_down(true);
        assert_eq!(probe_with(&store, BRIEF).await.unwrap_err().kind(), Kind::StateUnavailable);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn several_at_once() {
        let store = MemoryStore::new();
        let mut probes = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let store = store.clone();
            probes.spawn(async move { probe(&store).await });
        }
        for result in probes.join_all().await {
            result.unwrap();
        }
    }
}
