//! What a job is made of and how it may change: pure, no async, clock, environment, clients.

pub mod block;
pub mod bson_order;
pub mod catalog;
pub mod choice;
pub mod comparison;
pub mod counts;
pub mod cursor;
pub mod difference;
pub mod digest;
pub mod element;
pub mod finding;
pub mod identity;
pub mod invariants;
pub mod job;
pub mod job_name;
pub mod lane;
pub mod lease;
pub mod namespace;
pub mod partition;
pub mod plan;
pub mod record;
pub mod size;
pub mod step;
pub mod suspect;
pub mod tuning;
pub mod work;
