//! Everything that speaks to MongoDB. Commands are written out, so that the read concern, the write concern and the
//! comment that a DBA sees are in one place each and not inherited from a connection string.

pub mod answer;
pub mod balancer;
pub mod buffers;
pub mod catalog;
pub mod checkpoint;
pub mod clients;
pub mod cluster;
pub mod collection;
pub mod correlation;
pub mod cursor;
pub mod deployment;
pub mod document_filter;
pub mod documents;
pub mod expiry;
pub mod failure;
pub mod index;
pub mod inspect;
pub mod marker;
pub mod read;
pub mod read_from;
pub mod readers;
pub mod scan;
pub mod shard_key_sample;
pub mod sharding;
pub mod split;
pub mod system;
pub mod upsert;
pub mod wire;
pub mod write;
pub mod writers;

use bson::{Bson, Document};

/// What a DBA sees in `$currentOp` and the log beside each command.
#[derive(Debug, Clone)]
pub struct Comment(pub String);

impl From<&Comment> for Bson {
    fn from(comment: &Comment) -> Bson {
        Bson::String(comment.0.clone())
    }
}

/// The write concern of every write: what only a minority has seen can be rolled back by an election.
pub fn majority() -> Document {
    bson::doc! { "w": "majority", "wtimeout": WTIMEOUT_MS }
}

/// For how long a write waits for its majority before it counts as unanswered, in milliseconds. Long enough for an
/// election (10 s by default), short enough that a set without a majority is noticed while somebody still looks.
pub const WTIMEOUT_MS: i64 = 30_000;
