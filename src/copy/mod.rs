//! What happens inside the copy step: a lane runs its partitions, a partition pumps batches from a scan of the source
//! to the target, and each batch is delivered until the target has acknowledged it.
//!
//! ```text
//!   lane ── begins, saves, seals ──▶ partition ── numbers, tracks ──▶ deliver ── inserts, settles what is there
//! ```
//!
//! The order is always: written to the target → acknowledged by a majority → cursor saved.

pub mod deliver;
pub mod flow;
pub mod gate;
pub mod lane;
pub mod ownership;
pub mod ownerships;
pub mod partition;
pub mod redeliver;
pub mod refresh;
pub mod rejects;
mod send;
mod settle;
pub mod tail;
