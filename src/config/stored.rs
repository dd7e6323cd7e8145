//! The settings of a job as they are stored for a function: `start` writes them, the function reads them.
//!
//! What is stored is what was given, in one form: flags over the environment over the file, in the order of [`SETTINGS`], so that
//! equal settings are equal bytes. Nothing secret is among it, as only references are taken, and nothing that is the function's
//! own: where the state is, what it logs, how long it has. `--accept-findings` and `--drop-committed`, which no file of a user may
//! hold, are in a table of their own.

use super::layer::{Given, Layers, RawArguments, SETTINGS, Setting};
use super::reference::Contents;
use super::reference::{Purpose, Reference, SETTINGS_BY_REFERENCE};
use super::resolve::Defaults;
use super::{Configuration, StateUrl, file};
use crate::cli::{Command, StepName};
use crate::environment::Environment;
use crate::error::{Error, Result};
use std::fmt::Write as _;
use std::path::PathBuf;

/// What the function knows by itself, or has no use for.
const LEFT_OUT: [&str; 9] = [
    "config",
    "job",
    "state",
    "s3-endpoint",
    "expected-bucket-owner",
    "state-machine",
    "http",
    "log-format",
    "log-level",
];

/// The table of what is said for one start.
const START: &str = "start";

impl Configuration {
    /// What a function works with: what is stored of a job, and what the function's environment says of the store. `memory`
    /// is the function's size in bytes, `place` where the text was read.
    ///
    /// # Errors
    /// Bad input for what cannot be read or holds something unknown.
    pub fn stored(
        text: &str,
        place: &str,
        mut call: RawArguments,
        environment: &Environment,
        memory: u64,
    ) -> Result<Self> {
        let path = PathBuf::from(place);
        let mut table = file::table(text, &path)?;
        if let Some(start) = table.remove(START) {
            let damaged =
                || Error::bad_input(format!("[{START}] in {place} is damaged; put it there with `mongoferry start`"));
            for (name, value) in start.as_table().ok_or_else(damaged)? {
                match (name.as_str(), value.as_bool().ok_or_else(damaged)?) {
                    ("accept-findings", is_on) => call.accept_findings = is_on,
                    ("drop-committed", is_on) => call.drop_committed = is_on,
                    _ => return Err(damaged()),
                }
            }
        }
        let content = file::content(table, &path)?;
        let layers = Layers { flags: call, environment: environment.clone(), file: Some((path, content)) };
        Ok(Self { command: Command::Step(StepName::All), layers, defaults: Defaults::of_function(memory) })
    }

    /// The text to store for a function.
    ///
    /// # Errors
    /// Bad input for whatever will not do, and for what a function can do nothing with.
    pub fn to_stored(&self) -> Result<String> {
        let settings = self.settings(&Contents::new())?;
        if let StateUrl::Folder(folder) = &settings.state {
            return Err(Error::bad_input(format!(
                "a function cannot reach the state in the folder {}; give the bucket that it uses, with --state s3://bucket/prefix",
                folder.display()
            )));
        }
        self.refuse_what_is_missing()?;
        self.refuse_what_is_no_reference()?;
        if let Some(given) = self.layers.given("time-budget") {
            return Err(given.refuse("a function has the time until its deadline, less --margin; leave it out"));
        }
        let mut text = String::new();
        for setting in SETTINGS.iter().filter(|setting| !LEFT_OUT.contains(&setting.name)) {
            if let Some(given) = self.layers.given(setting.name) {
                line(&mut text, setting.name, &value(setting, &given));
            }
        }
        let shard_keys = self.layers.file.as_ref().map(|(_, content)| &content.shard_keys);
        if let Some(keys) = shard_keys.filter(|keys| !keys.is_empty()) {
            line(&mut text, &format!("\n[{}]", file::SHARD_KEYS), "");
            for (namespace, asked) in keys {
                let key = quoted(&asked.key.to_string());
                line(
                    &mut text,
                    &quoted(&namespace.to_string()),
                    &format!("{{ key = {key}, unique = {} }}", asked.unique),
                );
            }
        }
        let filters = self.layers.file.as_ref().map(|(_, content)| &content.filters);
        if let Some(filters) = filters.filter(|filters| !filters.is_empty()) {
            line(&mut text, &format!("\n[{}]", file::FILTERS), "");
            for (namespace, filter) in filters {
                // Canonical, so that reading it again gives the same types.
                let canonical = serde_json::Value::from(filter.clone()).to_string();
                line(&mut text, &quoted(&namespace.to_string()), &quoted(&canonical));
            }
        }
        let flags = &self.layers.flags;
        let said = [("accept-findings", flags.accept_findings), ("drop-committed", flags.drop_committed)];
        if said.iter().any(|(_, is_on)| *is_on) {
            line(&mut text, &format!("\n[{START}]"), "");
            said.iter().filter(|(_, is_on)| *is_on).for_each(|(name, _)| line(&mut text, name, "true"));
        }
        Ok(text)
    }

    fn refuse_what_is_missing(&self) -> Result<()> {
        let is_given = |name: &str| self.layers.given(name).is_some();
        if !is_given("source") && !is_given("source-shard") {
            return Err(super::missing("source"));
        }
        if !is_given("target") { Err(super::missing("target")) } else { Ok(()) }
    }

    /// A function has no files of this machine, and what it reads in the state should not be secret.
    fn refuse_what_is_no_reference(&self) -> Result<()> {
        for (name, purpose) in SETTINGS_BY_REFERENCE {
            let Some(given) = self.layers.given(name) else { continue };
            let reason = match purpose {
                Purpose::Uri => {
                    "is stored for a function, where it must not be secret; put it into Secrets Manager and write secretsmanager://NAME"
                }
                Purpose::CertificateAuthorities => {
                    "is a file of this machine, which a function does not have; put its content into Secrets Manager and write secretsmanager://NAME"
                }
            };
            let is_fine = |text: &str| Reference::parse(text).is_some() || (name == "checkpoint-uri" && text == "none");
            if !given.uris().into_iter().all(is_fine) {
                return Err(given.refuse(reason));
            }
        }
        Ok(())
    }
}

/// A key and its value; without a value the head of a table.
fn line(text: &mut String, key: &str, value: &str) {
    let separator = if value.is_empty() { "" } else { " = " };
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{key}{separator}{value}");
}

fn value(setting: &Setting, given: &Given) -> String {
    if !setting.list {
        return quoted(given.text());
    }
    let values = if setting.secret { given.uris() } else { given.values() };
    let values: Vec<String> = values.into_iter().map(quoted).collect();
    format!("[{}]", values.join(", "))
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}
