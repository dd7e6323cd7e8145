//! What a state store must be able to do. [`super::folder`], [`super::s3`] and [`super::memory`] do it.

use async_trait::async_trait;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::fmt;
use std::time::Duration;

/// The version of an object as its store names it. Opaque: only good for handing back to the same store.
///
/// Equal contents may have equal etags (a folder and S3 both hash), so a compare-and-swap alone could not tell an
/// object that changed there and back from one that never changed. Documents carry a random write id, which makes every
/// content new: see [`super::document`].
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
/// (`[A-Za-z0-9._-]`, never starting with a dot), and no key continues another one (`a` and `a/b` exclude each other:
/// in a folder, `a` is either a file or a folder).
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

    /// The keys that start with `prefix` (which ends in `/`, or is empty), at any depth, sorted by their bytes. What
    /// lies beside the state and is no key of ours is left out.
    async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError>;

    /// What to call this store in messages: its URL, without secrets.
    fn url(&self) -> &str;
}

/// The longest segment of a key. File systems take 255 bytes, and a folder needs some for the name of a temporary file.
const LONGEST_SEGMENT: usize = 200;

/// The longest key. S3 takes 1024 bytes; the bucket's prefix needs some of them.
const LONGEST_KEY: usize = 800;

/// Whether a store takes this key. What passes is safe as a path below a folder (no `..`, no empty segment, nothing
/// hidden) and as an S3 key (nothing that any client or proxy would escape).
pub fn valid_key(key: &str) -> bool {
    key.len() <= LONGEST_KEY && key.split('/').all(valid_segment)
}

/// Whether a store can list this: empty, or a valid key and a `/`.
pub fn valid_prefix(prefix: &str) -> bool {
    prefix.is_empty() || prefix.strip_suffix('/').is_some_and(valid_key)
}

fn valid_segment(segment: &str) -> bool {
    !segment.is_empty()
        && segment.len() <= LONGEST_SEGMENT
        && !segment.starts_with('.')
        && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

/// Refuses a key that is not valid. Only a defect makes one: names that users choose are checked before.
pub(super) fn check_key(key: &str) -> Result<(), StoreError> {
    if valid_key(key) {
        Ok(())
    } else {
        Err(StoreError::Refused(format!("`{key}` is not a valid key of a state store")))
    }
}

/// The same for a prefix to list.
pub(super) fn check_prefix(prefix: &str) -> Result<(), StoreError> {
    if valid_prefix(prefix) {
        return Ok(());
    }
    Err(StoreError::Refused(format!("`{prefix}` is not a valid prefix in a state store")))
}

/// The etag of stores that have none of their own: the content's SHA-256.
pub(super) fn content_etag(body: &[u8]) -> Etag {
    use fmt::Write as _;
    let mut hex = String::with_capacity(64);
    for byte in Sha256::digest(body) {
        write!(hex, "{byte:02x}").expect("writing to a string cannot fail");
    }
    Etag(hex)
}

/// How much longer than a small object one of this size may take: 2 Mbit/s. A fixed limit would make a large object
/// on a slow line unwritable for good.
pub(super) fn allowance(bytes: usize) -> Duration {
    const SLOWEST_BYTES_PER_SECOND: f64 = 250_000.0;
    Duration::from_secs_f64(bytes as f64 / SLOWEST_BYTES_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_safe_as_paths_and_as_s3_keys() {
        for good in ["a", "a/b", "jobs/shop/lane-0001.json", "A_b.c-d", "x.", "a..b"] {
            assert!(valid_key(good), "{good}");
        }
        let (segment, key) = ("s".repeat(201), "a/".repeat(400) + "a");
        for bad in [
            "", "/", "/a", "a/", "a//b", "..", "a/../b", ".", ".hidden", "a/.b", "a b", "ä", "a\\b", "a\0", &segment,
            &key,
        ] {
            assert!(!valid_key(bad), "{bad}");
        }
        assert!(valid_prefix("") && valid_prefix("a/") && valid_prefix("a/b/"));
        assert!(!valid_prefix("a") && !valid_prefix("/") && !valid_prefix("a//"));
    }

    #[test]
    fn content_etag_is_sha_256() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(content_etag(b""), Etag(empty.to_owned()));
    }
}
