//! mongoferry copies a MongoDB deployment into another, as a chain of resumable steps whose whole state lies in an
//! object store. It can be killed anywhere and run again: nothing is lost, nothing finished is done twice.
//!
//! # The map
//!
//! ```text
//!  main ─▶ cli ─▶ config ─▶ commands ─▶ driver ─▶ steps/* ─▶ copy/* ─▶ mongo/*
//!     │                                    │  ▲       │          │
//!     └─▶ lambda: an event is one step ────┼──┘       │          │
//!                                          └── claim ─┴──────────┴──▶ state/*   (documents ─▶ folder, S3, memory)
//!                                                    model/*: what all of it is about, pure
//! ```
//!
//! Data flows one way: a step reads the documents of the steps before it, works, and writes its own. Nothing is kept in
//! memory from one step to the next.
//!
//! # What always holds
//!
//! - One worker at a time: a piece of work's lease and its progress are one document, and each save is a
//!   compare-and-swap of it ([`claim`]).
//! - Written to the target → acknowledged by a majority → cursor saved, in this order ([`copy`]). A cursor covers only a
//!   contiguous prefix of acknowledged batches ([`model::cursor`]).
//! - The checkpoint is captured before anything is listed and committed after everything is done
//!   ([`steps::discover`], [`steps::commit`]).
//! - What a state document may become is checked before it is written ([`model::invariants`]).
//!
//! # Where to start
//!
//! [`driver::run_step`] for a step's life, [`steps::copy`] for the work itself, [`state::keys`] for what is stored where,
//! [`check`] for what is looked at before anything is changed, [`lambda`] for how AWS calls all of it.
//! ARCHITECTURE.md says what happens when it is killed between any two lines.

pub mod abandon;
pub mod aws;
pub mod check;
pub mod claim;
pub mod cli;
pub mod clock;
pub mod commands;
pub mod config;
pub mod connection_string;
pub mod context;
pub mod control;
pub mod copy;
pub mod crash;
pub mod driver;
pub mod dry_run;
pub mod environment;
pub mod error;
pub mod http;
pub mod journal;
pub mod lambda;
#[cfg(test)]
mod layout;
pub mod limits;
pub mod model;
pub mod mongo;
pub mod output;
pub mod process;
pub mod progress;
pub mod random;
pub mod redact;
pub mod rejected;
pub mod report;
pub mod rotation;
pub mod secrets;
pub mod source;
pub mod start;
pub mod state;
pub mod status;
pub mod steps;
pub mod stop;
pub mod tally;
pub mod tasks;
pub mod telemetry;
