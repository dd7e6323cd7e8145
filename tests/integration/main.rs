//! All tests that need real servers, in one binary: they share their servers, and link once.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "tests have a clock, an environment and an output of their own"
)]

#[path = "../support/mod.rs"]
mod support;

mod aws_definition;
mod aws_deployed;
mod aws_functions;
mod aws_jobs;
mod aws_linters;
mod aws_secrets;
mod bad_input;
mod balancers;
mod bytes;
mod checks;
mod clusters;
mod copying;
mod crashes;
mod cursors;
mod deliver;
mod dry_run;
mod elections;
mod fencing;
mod filters;
mod hashed_keys;
mod http;
mod indexes;
mod kinds;
mod limits;
mod many;
mod mongos_sources;
mod natural;
mod order;
mod partitions;
mod reports;
mod rights;
mod routers;
mod scans;
mod secrets;
mod sharded_targets;
mod shards;
mod start;
mod store;
mod streams;
mod system;
mod tails;
mod verifying;
mod wire;
mod workers;
