//! What a state store must be able to do. [`super::folder`], [`super::s3`] and [`super::memory`] do it.

use async_trait::async_trait;
use bytes::Bytes;
use std::fmt;

/// The version of an object as its store names it. Opaque: only good for handing back to the same store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Etag(pub String);

/// An object as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its content.
    pub body: Bytes,
    /// Its version.
    pub etag: Etag,
}

/// Why a store did not do what it was asked to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreError {
    /// A condition did not hold: the object exists already, or is not what was read. Nothing was written by this
    /// request, unless an earlier attempt of the same request was (its answer lost): callers look at the object's write
    /// id before they believe it.
    Conflict,
    /// The request may or may not have had its effect (time-out, connection lost, 5xx).
    Ambiguous(String),
    /// The store refuses for a reason that trying again will not change: no such bucket, no permission, no conditional
    /// writes. The text names it.
    Refused(String),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::Conflict => f.write_str("changed by another writer"),
            StoreError::Ambiguous(text) | StoreError::Refused(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for StoreError {}

/// An object store with conditional writes. Keys are `/`-separated relative paths of safe segments
/// (`[A-Za-z0-9._-]`, never starting with a dot).
///
/// One call is one attempt: implementations do not retry writes, since only the caller can tell its own success from
/// another's (see [`StoreError::Conflict`]).
#[async_trait]
pub trait StateStore: Send + Sync + fmt::Debug {
    /// The object at `key`, `None` when there is none.
    async fn get(&self, key: &str) -> Result<Option<Object>, StoreError>;

    /// Writes an object that must not exist yet. Durable when it returns.
    async fn create(&self, key: &str, body: Bytes) -> Result<Etag, StoreError>;

    /// Writes an object that must still be at `etag`. A missing object is a conflict. Durable when it returns.
    async fn replace(&self, key: &str, body: Bytes, etag: &Etag) -> Result<Etag, StoreError>;

    /// The keys that start with `prefix` (which ends in `/`, or is empty), at any depth, sorted.
    async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError>;

    /// What to call this store in messages: its URL, without secrets.
    fn url(&self) -> &str;
}
