//! The command line: which commands and flags there are, and nothing about what their values mean.
//!
//! Values stay texts here. A flag, an environment variable and a key of the file are the same setting given in three
//! places, so [`crate::config`] looks at all three together and explains what is wrong in one way; clap would know of
//! the flag alone. That is also why its `env` attribute and its defaults are not used.

mod arguments;
mod flags;

use crate::config::layer::RawArguments;
use crate::error::{Error, Result};
use crate::model::limit::Change;
use crate::redact;
use crate::start::Asked;
use arguments::{Arguments, Commands};
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, ValueEnum};
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

/// The newest version of a state document that this program writes and reads.
pub const STATE_VERSION: u32 = 2;

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Run one step, or all.
    Step(StepName),
    /// Look at everything that may go wrong, and change nothing.
    Check {
        /// As one JSON object.
        json: bool,
    },
    /// Show how far a job is.
    Status {
        /// As one JSON object.
        json: bool,
    },
    /// Print what a job comes to, or write it as a page.
    Report {
        /// As one JSON object, also where a page is written.
        json: bool,
        /// Where the page goes.
        html: Option<PathBuf>,
    },
    /// List the jobs of a state store.
    Jobs,
    /// Show or change what limits a job while it runs.
    Control {
        /// What is to be changed; nothing is only shown.
        change: Change,
        /// As one JSON object.
        json: bool,
    },
    /// Start or find the execution of a state machine on AWS.
    Start(Asked),
    /// Give a job up.
    Abandon,
    /// List the documents that are not on the target, or try them again.
    Rejected {
        /// As one JSON object.
        json: bool,
        /// Try them again.
        retry: bool,
    },
}

impl Command {
    /// Speaks to MongoDB, not only to the state store.
    pub fn connects(&self) -> bool {
        matches!(
            self,
            Command::Step(_) | Command::Check { .. } | Command::Abandon | Command::Rejected { retry: true, .. }
        )
    }
}

/// The steps by the names that the command line has for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StepName {
    /// The steps below in their order, each unless it is done already
    All,
    /// Connect, capture the checkpoint, list what there is to copy
    Discover,
    /// Divide the work, and pin what was decided
    Plan,
    /// Mark the target, drop or check what is there, create the collections
    Prepare,
    /// Copy the documents
    Copy,
    /// Build the indexes
    Index,
    /// Compare the target with what was copied
    Verify,
    /// Write the checkpoint; afterwards the target may go live
    Commit,
}

impl StepName {
    /// The name.
    pub fn as_str(self) -> &'static str {
        match self {
            StepName::All => "all",
            StepName::Discover => "discover",
            StepName::Plan => "plan",
            StepName::Prepare => "prepare",
            StepName::Copy => "copy",
            StepName::Index => "index",
            StepName::Verify => "verify",
            StepName::Commit => "commit",
        }
    }
}

impl fmt::Display for StepName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a command line comes to.
pub enum Parsed {
    /// Something to run.
    Run(Command, RawArguments),
    /// Something to print on stdout, and be done: help, version, completions.
    Print(String),
}

/// Parses the command line, the program's name first. Registers the secrets in it before anything can be printed.
pub fn parse<I: IntoIterator<Item = OsString>>(arguments: I) -> Result<Parsed> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    for argument in &arguments {
        redact::register_uri(&argument.to_string_lossy());
    }
    let parsed = match Arguments::try_parse_from(&arguments) {
        Ok(parsed) => parsed,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            let text = error.to_string();
            let lines: Vec<&str> = text.trim_end().lines().map(str::trim_end).collect();
            return Ok(Parsed::Print(lines.join("\n")));
        }
        Err(error) => {
            // What is quoted then may be a connection string without its scheme. Not before: `a:b@c` is a good rename.
            for argument in
                arguments.iter().map(|argument| argument.to_string_lossy()).filter(|text| text.contains('@'))
            {
                redact::register_uri(&format!("://{argument}"));
            }
            return Err(Error::bad_input(usage_error(&error.to_string())));
        }
    };
    let mut raw = RawArguments::default();
    let command = match parsed.command {
        Commands::Step(step) => {
            step.take_into(&mut raw);
            check_combinations(step.step, &raw)?;
            Command::Step(step.step)
        }
        Commands::Check(check) => {
            check.take_into(&mut raw);
            Command::Check { json: check.json }
        }
        Commands::Status(status) => {
            status.known.take_into(&mut raw);
            Command::Status { json: status.json }
        }
        Commands::Report(report) => {
            report.known.take_into(&mut raw);
            Command::Report { json: report.json, html: report.html }
        }
        Commands::Jobs(jobs) => {
            jobs.take_into(&mut raw);
            Command::Jobs
        }
        Commands::Control(control) => {
            control.known.take_into(&mut raw);
            let change = Change::parse(control.changes.iter().map(String::as_str)).map_err(Error::bad_input)?;
            Command::Control { change, json: control.json }
        }
        Commands::Start(start) => {
            start.take_into(&mut raw);
            Command::Start(Asked { watch: start.watch, redrive: start.redrive })
        }
        Commands::Abandon(abandon) => {
            abandon.take_into(&mut raw);
            Command::Abandon
        }
        Commands::Rejected(rejected) => {
            rejected.take_into(&mut raw);
            Command::Rejected { json: rejected.json, retry: rejected.retry }
        }
        Commands::Completions { shell } => return Ok(Parsed::Print(completions(shell))),
    };
    Ok(Parsed::Run(command, raw))
}

/// clap's message without its usage block, in one line.
fn usage_error(text: &str) -> String {
    let message = text.split("\n\nUsage:").next().unwrap_or(text);
    let message = message.split("\n\nFor more information").next().unwrap_or(message);
    let lines: Vec<&str> = message.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let line = lines.join("; ").replace(":; ", ": ");
    let line = line.strip_prefix("error: ").unwrap_or(&line);
    // clap quotes what it did not expect, which may be a connection string without its flag.
    redact::redact(&format!("{line}; see `mongoferry --help`")).into_owned()
}

/// Flags that only some steps know what to do with.
fn check_combinations(step: StepName, raw: &RawArguments) -> Result<()> {
    let only =
        |flag: &str, steps: &str| Error::bad_input(format!("--{flag} goes with {steps} only, not with `step {step}`"));
    for flag in ["shard", "lane"] {
        if raw.has(flag) && step != StepName::Copy {
            return Err(only(flag, "`step copy`"));
        }
    }
    if raw.has("namespace") && !matches!(step, StepName::Index | StepName::Verify) {
        return Err(only("namespace", "`step index` and `step verify`"));
    }
    for flag in ["verify", "against"] {
        if raw.has(flag) && !matches!(step, StepName::Verify | StepName::All) {
            return Err(only(flag, "`step verify` and `step all`"));
        }
    }
    // One step by itself goes on from what the ones before it have written.
    if raw.dry_run && step != StepName::All {
        return Err(only("dry-run", "`step all`"));
    }
    Ok(())
}

fn completions(shell: clap_complete::Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "mongoferry", &mut script);
    String::from_utf8_lossy(&script).trim_end().to_owned()
}

#[cfg(test)]
mod tests;
