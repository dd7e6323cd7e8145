//! The state store: an object store with two kinds of write, and the documents in it.
//!
//! A write is *create* (must not exist yet) or *replace* (must still be what was read). There is no other kind and no
//! delete, so that what one worker has seen can only be changed by another in a way that the first one finds out about.

pub mod chunks;
pub mod document;
pub mod failure;
pub mod folder;
#[cfg(test)]
mod golden;
pub mod items;
pub mod keys;
pub mod lanes;
pub mod memory;
pub mod open;
pub mod pages;
pub mod probe;
pub mod rejects;
pub mod s3;
pub mod store;

use crate::model::balancer::BalancerRecord;
use crate::model::job::{CheckpointMap, JobRecord};
use crate::model::limit::Control;
use crate::model::oplog_window::OplogBegins;
use document::Document;

/// The version of state documents. Version 1: the first one. What is written in a later one says so itself.
pub const VERSION: u32 = 1;

impl Document for JobRecord {
    const KIND: &'static str = "job";
    const VERSION: u32 = VERSION;
}

impl Document for CheckpointMap {
    const KIND: &'static str = "checkpoint";
    const VERSION: u32 = VERSION;
}

impl Document for Control {
    const KIND: &'static str = "control";
    const VERSION: u32 = VERSION;
}

impl Document for OplogBegins {
    const KIND: &'static str = "oplog-begins";
    const VERSION: u32 = VERSION;
}

impl Document for BalancerRecord {
    const KIND: &'static str = "balancer";
    const VERSION: u32 = VERSION;
}
