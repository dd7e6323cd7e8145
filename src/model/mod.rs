//! What a job is made of and how it may change: pure, no async, clock, environment, clients.

pub mod balancer;
pub mod block;
pub mod bson_order;
pub mod catalog;
pub mod choice;
pub mod chunk_layout;
pub mod chunk_map;
pub mod comparison;
pub mod counts;
pub mod cursor;
pub mod difference;
pub mod digest;
pub mod element;
pub mod empty_timestamp;
pub mod execution;
pub mod failure;
pub mod finding;
pub mod hashed_key;
pub mod identity;
pub mod invariants;
pub mod job;
pub mod job_name;
mod key_bytes;
pub mod lane;
pub mod lease;
pub mod limit;
pub mod locator;
pub mod namespace;
pub mod orphan_filter;
pub mod pace;
pub mod partition;
pub mod plan;
pub mod record;
pub mod reject;
pub mod server;
pub mod session;
pub mod shard_key;
pub mod size;
pub mod speed;
pub mod step;
pub mod suspect;
pub mod system;
pub mod tail;
pub mod target_sharding;
pub mod tuning;
pub mod view;
pub mod work;

#[cfg(test)]
#[path = "../../tests/support/bson_values.rs"]
mod bson_values;
