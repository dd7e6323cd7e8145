//! The settings of a job as they are stored for a function.

use super::layer::{Layers, RawArguments};
use super::{Configuration, Defaults, file};
use crate::cli::{Command, StepName};
use crate::environment::Environment;
use crate::error::Result;
use std::path::PathBuf;

impl Configuration {
    /// What a function works with: what is stored of a job, and what the function's environment says of the store. `memory`
    /// is the function's size in bytes, `place` where the text was read.
    ///
    /// # Errors
    /// Bad input for what cannot be read or holds something unknown.
    pub fn stored(text: &str, place: &str, call: RawArguments, environment: &Environment, memory: u64) -> Result<Self> {
        let path = PathBuf::from(place);
        let content = file::parse(text, &path)?;
        let layers = Layers { flags: call, environment: environment.clone(), file: Some((path, content)) };
        Ok(Self { command: Command::Step(StepName::All), layers, defaults: Defaults::of_function(memory) })
    }
}
