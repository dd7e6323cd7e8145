//! All tests that need real servers, in one binary: they share their servers, and link once.

#[path = "../support/mod.rs"]
mod support;

mod copying;
mod crashes;
mod elections;
mod stores;
mod streams;
mod workers;
