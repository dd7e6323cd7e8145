//! One file a step, all of the same shape: what it reads, what it writes, by what it goes on after a crash.

pub mod balancer;
pub mod commit;
pub mod copy;
pub mod discover;
pub mod expiry;
pub mod index;
pub mod listing;
pub mod oplog_window;
pub mod ownership;
pub mod plan;
pub mod prepare;
pub mod system;
pub mod transforms;
pub mod units;
pub mod verify;
