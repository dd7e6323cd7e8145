//! What was given, before it is decided what it means: references to secrets are found here, to be fetched in between.

use super::layer::{Given, Layers, RawArguments};
use super::reference::{Contents, Reference, SETTINGS_BY_REFERENCE, Wanted};
use super::resolve::{DEFAULT_MEMORY, Defaults, Resolver};
use super::{Settings, file};
use crate::cli::Command;
use crate::environment::Environment;
use crate::error::{Kind, Result};
use std::path::Path;

/// What was given for a command, in all places. Settings come from it, and again when a secret that it refers to has changed.
#[derive(Clone)]
pub struct Configuration {
    pub(super) command: Command,
    pub(super) layers: Layers,
    pub(super) defaults: Defaults,
}

impl Configuration {
    /// Reads the file. `directory` is where it is looked for: the working directory, but in tests.
    ///
    /// # Errors
    /// Bad input for a file that cannot be read or holds something unknown.
    pub fn read(command: Command, flags: RawArguments, environment: Environment, directory: &Path) -> Result<Self> {
        let mut layers = Layers { flags, environment, file: None };
        let named = layers.given("config");
        layers.file = file::read(named.as_ref().map(Given::text), directory)?;
        // What `start` checks is what a function will work with.
        let defaults = match command {
            Command::Start(_) => Defaults::of_function(DEFAULT_MEMORY),
            _ => Defaults::OF_A_PROCESS,
        };
        Ok(Self { command, layers, defaults })
    }

    /// What is to be done.
    pub fn command(&self) -> &Command {
        &self.command
    }

    /// The references to secrets among it; none for a command that connects to nothing.
    ///
    /// # Errors
    /// Bad input for one that is malformed.
    pub fn wanted(&self) -> Result<Vec<Wanted>> {
        let mut wanted = Vec::new();
        for (name, purpose) in SETTINGS_BY_REFERENCE {
            let Some(given) = self.layers.given(name).filter(|_| self.command.connects()) else { continue };
            let unavailable =
                if name.starts_with("source") { Kind::SourceUnavailable } else { Kind::TargetUnavailable };
            for text in given.uris() {
                if let Some(reference) = Reference::parse(text) {
                    let reference = reference.map_err(|reason| given.refuse(reason))?;
                    wanted.push(Wanted { reference, place: given.place(), purpose, unavailable });
                }
            }
        }
        Ok(wanted)
    }

    /// Decides what is meant. A reference whose content is not among `contents` is checked by its form, and the setting is
    /// as if it had not been given: for commands that connect to nothing, and to find other mistakes before anything is
    /// fetched.
    ///
    /// # Errors
    /// Bad input for whatever will not do.
    pub fn settings(&self, contents: &Contents) -> Result<Settings> {
        let Self { command, layers, defaults } = self;
        Resolver { layers, contents, notices: Vec::new(), defaults }.resolve(command)
    }
}
