//! The state store: an object store with two kinds of write, and the documents in it.
//!
//! A write is *create* (must not exist yet) or *replace* (must still be what was read). There is no other kind and no
//! delete, so that what one worker has seen can only be changed by another in a way that the first one finds out about.

pub mod store;
