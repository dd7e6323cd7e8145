//! mongoferry copies a MongoDB deployment into another, as a chain of resumable steps whose whole state lies in an
//! object store.

pub mod error;
pub mod state;
