//! The command line: which commands and flags there are, and nothing about what their values mean.
//!
//! Values stay texts here. A flag, an environment variable and a key of the file are the same setting given in three
//! places, so [`crate::config`] looks at all three together and explains what is wrong in one way; clap would know of
//! the flag alone. That is also why its `env` attribute and its defaults are not used.

mod flags;

use crate::config::layer::{self, RawArguments};
use crate::error::{Error, Result};
use crate::model::limit::Change;
use crate::redact;
use crate::start::Asked;
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum, ValueHint};
use flags::{
    CopyFlags, DeploymentFlags, DryRunFlag, FunctionWorkFlags, HttpFlag, JobFlag, LogFlags, PartFlags, SelectionFlags,
    StateMachineFlag, StoreFlags, Suggested, WorkFlags,
};
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::sync::LazyLock;

/// The newest version of a state document that this program writes and reads.
pub const STATE_VERSION: u32 = 2;

/// Text is wrapped here whatever the terminal's width, so that help reads the same in a pull request.
const HELP_WIDTH: usize = 100;

static VERSION: LazyLock<String> =
    LazyLock::new(|| format!("{} (state version {STATE_VERSION})", env!("CARGO_PKG_VERSION")));

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
            check.copy.take_into(&mut raw);
            check.work.take_into(&mut raw);
            check.log.take_into(&mut raw);
            Command::Check { json: check.json }
        }
        Commands::Status(status) => {
            status.job.take_into(&mut raw);
            status.store.take_into(&mut raw);
            status.log.take_into(&mut raw);
            Command::Status { json: status.json }
        }
        Commands::Report(report) => {
            report.job.take_into(&mut raw);
            report.store.take_into(&mut raw);
            report.log.take_into(&mut raw);
            Command::Report { json: report.json, html: report.html }
        }
        Commands::Jobs(jobs) => {
            jobs.store.take_into(&mut raw);
            jobs.log.take_into(&mut raw);
            Command::Jobs
        }
        Commands::Control(control) => {
            control.job.take_into(&mut raw);
            control.store.take_into(&mut raw);
            control.log.take_into(&mut raw);
            let change = Change::parse(control.changes.iter().map(String::as_str)).map_err(Error::bad_input)?;
            Command::Control { change, json: control.json }
        }
        Commands::Start(start) => {
            start.take_into(&mut raw);
            Command::Start(Asked { watch: start.watch, redrive: start.redrive })
        }
        Commands::Abandon(abandon) => {
            abandon.job.take_into(&mut raw);
            abandon.store.take_into(&mut raw);
            raw.set("target", &abandon.target);
            raw.set("target-ca", &abandon.target_ca);
            raw.set("source-config", &abandon.source_config);
            raw.set("source-ca", &abandon.source_ca);
            raw.set("lease", &abandon.lease);
            raw.takeover = abandon.takeover;
            abandon.log.take_into(&mut raw);
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

/// Copies a MongoDB replica set into another, in steps that can be killed anywhere and run again
///
/// The steps: discover → plan → prepare → copy → index → verify → commit. `step all` runs them in their order; run it again and
/// it goes on where it was. What is known about a job lies in its state store.
#[derive(Parser)]
#[command(name = "mongoferry", version = VERSION.as_str(), term_width = HELP_WIDTH, disable_help_subcommand = true)]
#[command(arg_required_else_help = false, subcommand_required = true)]
#[command(
    after_help = "Exit codes: 0 done · 1 failed, try again · 2 the input must change · 3 another worker holds it · \
4 findings to mend or accept · 75 out of time, run it again"
)]
struct Arguments {
    #[command(subcommand)]
    command: Commands,
}

#[derive(Subcommand)]
enum Commands {
    /// Run one step of a job, or all of them
    Step(Box<StepArguments>),
    /// Look at everything that may go wrong before a job begins, and change nothing; exits with 2 when something is refused
    Check(Box<CheckArguments>),
    /// Show how far a job is; reads the state store alone and changes nothing
    Status(StatusArguments),
    /// Print what a job comes to, for whoever signs it off: as JSON, or as a page; reads the state store alone
    Report(ReportArguments),
    /// List the jobs of a state store
    Jobs(JobsArguments),
    /// Show or change what limits a job while it runs, on whatever machine: rates, pause, resume
    Control(ControlArguments),
    /// Have a job done on AWS: start its state machine, or find the execution that runs
    Start(Box<StartArguments>),
    /// Undo what a job holds outside its state, and mark it abandoned
    Abandon(AbandonArguments),
    /// List the documents that the target did not take, or try them again
    Rejected(Box<RejectedArguments>),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

const SETTINGS_NOTE: &str = "A setting with an environment variable is also a key of the TOML file (but for --config), named \
as the flag is: `save-interval = \"1s\"`. Flags win over the environment, the environment over the file; an empty variable counts as \
not set. Durations are written 500ms, 15s, 13m, 1h30m.";

#[derive(Args)]
#[command(next_line_help = true, after_help = SETTINGS_NOTE)]
struct StepArguments {
    /// The step to run
    step: StepName,
    #[command(flatten)]
    dry_run: DryRunFlag,
    #[command(flatten)]
    copy: CopyFlags,
    #[command(flatten)]
    work: WorkFlags,
    #[command(flatten)]
    part: PartFlags,
    #[command(flatten)]
    http: HttpFlag,
    #[command(flatten)]
    log: LogFlags,
}

impl StepArguments {
    fn take_into(&self, raw: &mut RawArguments) {
        self.dry_run.take_into(raw);
        self.copy.take_into(raw);
        self.work.take_into(raw);
        self.part.take_into(raw);
        self.http.take_into(raw);
        self.log.take_into(raw);
    }
}

#[derive(Args)]
#[command(next_line_help = true, after_help = SETTINGS_NOTE)]
struct CheckArguments {
    /// Print one JSON object instead of a table; docs/check.md describes it
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    copy: CopyFlags,
    #[command(flatten)]
    work: WorkFlags,
    #[command(flatten)]
    log: LogFlags,
}

#[derive(Args)]
#[command(next_line_help = true, after_help = SETTINGS_NOTE)]
struct StatusArguments {
    /// Print one JSON object instead of text; docs/command-line.md describes it
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    job: JobFlag,
    #[command(flatten)]
    store: StoreFlags,
    #[command(flatten)]
    log: LogFlags,
}

#[derive(Args)]
#[command(next_line_help = true, after_help = SETTINGS_NOTE)]
struct ReportArguments {
    /// Write one HTML page that needs nothing from outside, and print nothing unless --json is given too; a file that is there
    /// is replaced
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    html: Option<PathBuf>,
    /// Print one JSON object, which is what it does without --html; docs/report.md describes it
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    job: JobFlag,
    #[command(flatten)]
    store: StoreFlags,
    #[command(flatten)]
    log: LogFlags,
}

#[derive(Args)]
#[command(next_line_help = true, after_help = SETTINGS_NOTE)]
struct JobsArguments {
    #[command(flatten)]
    store: StoreFlags,
    #[command(flatten)]
    log: LogFlags,
}

#[derive(Args)]
#[command(next_line_help = true, after_help = SETTINGS_NOTE)]
struct ControlArguments {
    /// What to change: max-documents-per-second=N, max-bytes-per-second=SIZE (each also =none, or =default: what the flags
    /// of each run say), pause, resume; without any, shows what was said. Workers notice it within about a second
    #[arg(value_name = "CHANGE")]
    changes: Vec<String>,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    job: JobFlag,
    #[command(flatten)]
    store: StoreFlags,
    #[command(flatten)]
    log: LogFlags,
}

#[derive(Args)]
#[command(next_line_help = true, after_help = SETTINGS_NOTE)]
struct StartArguments {
    /// Show the progress of all lanes, from the bucket, until the execution ends, and end as it does
    #[arg(long)]
    watch: bool,
    /// Go on with only what failed of the last execution, instead of starting another one, which looks at every lane: the way
    /// when thousands of them are done
    #[arg(long)]
    redrive: bool,
    #[command(flatten)]
    machine: StateMachineFlag,
    #[command(flatten)]
    copy: CopyFlags,
    #[command(flatten)]
    work: FunctionWorkFlags,
    #[command(flatten)]
    log: LogFlags,
}

impl StartArguments {
    fn take_into(&self, raw: &mut RawArguments) {
        self.machine.take_into(raw);
        self.copy.take_into(raw);
        self.work.take_into(raw);
        self.log.take_into(raw);
    }
}

#[derive(Args)]
#[command(next_line_help = true, after_help = SETTINGS_NOTE)]
struct AbandonArguments {
    #[command(flatten)]
    job: JobFlag,
    #[command(flatten)]
    store: StoreFlags,
    /// The target that the job has marked as its own, as a connection string [env: MONGOFERRY_TARGET]
    #[arg(long, help_heading = "Source and target", value_name = "URI", value_hint = ValueHint::Url)]
    target: Option<String>,
    /// Certificate authorities for the target, a PEM file, where the URI does not name them [env: MONGOFERRY_TARGET_CA]
    #[arg(long, help_heading = "Source and target", value_name = "FILE", value_hint = ValueHint::FilePath)]
    target_ca: Option<String>,
    /// The config servers of the source, where the job has stopped its balancer (--stop-balancer), which is started again
    /// [env: MONGOFERRY_SOURCE_CONFIG]
    #[arg(long, help_heading = "Source and target", value_name = "URI", value_hint = ValueHint::Url)]
    source_config: Option<String>,
    /// Certificate authorities for them, a PEM file, where the URI does not name them [env: MONGOFERRY_SOURCE_CA]
    #[arg(long, help_heading = "Source and target", value_name = "FILE", value_hint = ValueHint::FilePath)]
    source_ca: Option<String>,
    /// How long a silent worker counts as alive, 1s to 10m [default: 15s] [env: MONGOFERRY_LEASE]
    #[arg(long, help_heading = "Time", value_name = "DURATION", allow_hyphen_values = true)]
    lease: Option<String>,
    /// Claim at once what another worker seems to hold, without waiting for its lease to run out
    #[arg(long, help_heading = "Time")]
    takeover: bool,
    #[command(flatten)]
    log: LogFlags,
}

#[derive(Args)]
#[command(next_line_help = true, after_help = SETTINGS_NOTE)]
struct RejectedArguments {
    /// Print one JSON object instead of text; docs/command-line.md describes it
    #[arg(long)]
    json: bool,
    /// Once the copy is done, and before commit is: read each of them from the source again, as it is now, and write it
    /// to the target; exits with 4 while some are left
    #[arg(long)]
    retry: bool,
    #[command(flatten)]
    job: JobFlag,
    #[command(flatten)]
    store: StoreFlags,
    #[command(flatten)]
    deployments: DeploymentFlags,
    #[command(flatten)]
    selection: SelectionFlags,
    /// With --retry, for what has another document in its place: leave that, or let the source's document take its place,
    /// or leave it and be done with it [default: report] [env: MONGOFERRY_ON_CONFLICT]
    #[arg(long, help_heading = "In the target", value_name = "CHOICE", value_parser = Suggested(layer::ON_CONFLICT))]
    on_conflict: Option<String>,
    /// How long a silent worker counts as alive, 1s to 10m [default: 15s] [env: MONGOFERRY_LEASE]
    #[arg(long, help_heading = "Time", value_name = "DURATION", allow_hyphen_values = true)]
    lease: Option<String>,
    /// Claim at once what another worker seems to hold, without waiting for its lease to run out
    #[arg(long, help_heading = "Time")]
    takeover: bool,
    #[command(flatten)]
    log: LogFlags,
}

impl RejectedArguments {
    fn take_into(&self, raw: &mut RawArguments) {
        self.job.take_into(raw);
        self.store.take_into(raw);
        self.deployments.take_into(raw);
        self.selection.take_into(raw);
        raw.set("on-conflict", &self.on_conflict);
        raw.set("lease", &self.lease);
        raw.takeover = self.takeover;
        self.log.take_into(raw);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may fail")]
    use super::*;
    use crate::config::layer::{Places, SETTINGS};
    use crate::error::Kind;
    use std::path::Path;

    fn parse_words(words: &[&str]) -> Result<Parsed> {
        parse(std::iter::once("mongoferry").chain(words.iter().copied()).map(OsString::from))
    }

    fn printed(words: &[&str]) -> String {
        match parse_words(words) {
            Ok(Parsed::Print(text)) => text,
            Ok(Parsed::Run(command, _)) => panic!("{words:?} runs {command:?}"),
            Err(error) => panic!("{words:?}: {error}"),
        }
    }

    /// `UPDATE_GOLDEN=1 cargo test help_texts` rewrites them; read the difference before you commit it.
    #[test]
    fn help_texts() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/help");
        for command in
            ["", "step", "check", "status", "report", "jobs", "control", "start", "abandon", "rejected", "completions"]
        {
            let (name, words) =
                if command.is_empty() { ("mongoferry", vec!["--help"]) } else { (command, vec![command, "--help"]) };
            let text = format!("{}\n", printed(&words));
            let file = folder.join(format!("{name}.txt"));
            if crate::environment::variable("UPDATE_GOLDEN").is_some() {
                std::fs::write(&file, &text).unwrap();
            }
            let golden = std::fs::read_to_string(&file).unwrap_or_default();
            assert_eq!(text, golden, "{} differs; UPDATE_GOLDEN=1 rewrites it", file.display());
            assert!(text.lines().all(|line| line.chars().count() <= HELP_WIDTH), "{name} is too wide");
        }
    }

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    /// A flag that config does not know, or a setting without a flag, would be ignored silently.
    #[test]
    fn flags_and_settings_are_the_same() {
        let command = Arguments::command();
        let step = command.find_subcommand("step").unwrap();
        let mut flags: Vec<&str> = step.get_arguments().filter_map(|argument| argument.get_long()).collect();
        flags.push("state-machine");
        let mut settings: Vec<&str> = SETTINGS.iter().map(|setting| setting.name).collect();
        flags.sort_unstable();
        settings.sort_unstable();
        assert_eq!(flags, settings);
        // `start` has those that a function can do something with.
        let start = command.find_subcommand("start").unwrap();
        let mut flags: Vec<&str> = start.get_arguments().filter_map(|argument| argument.get_long()).collect();
        let of_step = ["time-budget", "takeover", "dry-run", "shard", "lane", "namespace", "http"];
        settings.retain(|name| !of_step.contains(name));
        settings.extend(["redrive", "watch"]);
        flags.sort_unstable();
        settings.sort_unstable();
        assert_eq!(flags, settings);
        for subcommand in command.get_subcommands() {
            for argument in subcommand.get_arguments() {
                let Some(setting) = argument.get_long().and_then(layer::find) else { continue };
                let help = argument.get_help().unwrap().to_string();
                let named = help.contains(&format!("[env: {}]", setting.variable()));
                assert_eq!(named, setting.places != Places::Flag, "{}: {help}", setting.name);
            }
        }
    }

    #[test]
    fn every_flag_reaches_the_raw_arguments() {
        let mut words = vec!["step".to_owned(), "index".to_owned()];
        let elsewhere = ["shard", "lane", "verify", "against", "state-machine"];
        let valued = SETTINGS.iter().filter(|setting| !setting.switch && !elsewhere.contains(&setting.name));
        for setting in valued.clone() {
            words.push(format!("--{}={}-value", setting.name, setting.name));
        }
        words.extend(["--drop-committed", "--accept-findings", "--takeover", "--quiet"].map(str::to_owned));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let Parsed::Run(command, raw) = parse_words(&words).unwrap() else { panic!("prints") };
        assert_eq!(command, Command::Step(StepName::Index));
        for setting in valued {
            assert!(raw.has(setting.name), "{}", setting.name);
        }
        assert!(raw.drop_committed && raw.accept_findings && raw.takeover && raw.quiet);

        let mut words = vec!["start".to_owned(), "--watch".to_owned(), "--accept-findings".to_owned()];
        let elsewhere = ["time-budget", "shard", "lane", "namespace", "http"];
        let valued = SETTINGS.iter().filter(|setting| !setting.switch && !elsewhere.contains(&setting.name));
        words.extend(valued.clone().map(|setting| format!("--{}=value", setting.name)));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let Parsed::Run(command, raw) = parse_words(&words).unwrap() else { panic!("prints") };
        assert_eq!(command, Command::Start(Asked { watch: true, redrive: false }));
        for setting in valued {
            assert!(raw.has(setting.name), "{}", setting.name);
        }
        assert!(raw.accept_findings && !raw.drop_committed);
    }

    #[test]
    fn the_version_says_which_state_it_writes() {
        assert_eq!(printed(&["--version"]), format!("mongoferry {} (state version 2)", env!("CARGO_PKG_VERSION")));
    }

    #[test]
    fn completions_are_printed() {
        for (shell, part) in
            [("bash", "complete -F"), ("zsh", "#compdef mongoferry"), ("fish", "complete -c mongoferry")]
        {
            assert!(printed(&["completions", shell]).contains(part), "{shell}");
        }
    }

    #[test]
    fn usage_errors_are_one_line() {
        let table: [(&[&str], &str); 19] = [
            (&[], "requires a subcommand"),
            (&["stop"], "unrecognized subcommand 'stop'"),
            (&["step"], "<STEP>"),
            (&["step", "coppy"], "invalid value 'coppy' for '<STEP>'"),
            (&["step", "coppy"], "'copy'"),
            (&["step", "all", "--jop", "x"], "'--jop'"),
            (&["step", "all", "--jop", "x"], "'--job'"),
            (&["step", "all", "--job"], "--job <NAME>"),
            (&["step", "all", "--job", "a", "--job", "b"], "cannot be used multiple times"),
            (&["step", "all", "copy"], "'copy'"),
            (&["status", "--source", "mongodb://h"], "'--source'"),
            (&["step", "all", "--lane", "1"], "--lane goes with `step copy` only"),
            (&["step", "index", "--shard", "rs0"], "--shard goes with `step copy` only"),
            (&["step", "copy", "--namespace", "a.b"], "--namespace goes with `step index` and `step verify` only"),
            (&["step", "copy", "--verify", "full"], "--verify goes with `step verify` and `step all` only"),
            (&["step", "copy", "--dry-run"], "--dry-run goes with `step all` only, not with `step copy`"),
            (&["step", "index", "--against", "source"], "--against goes with `step verify` and `step all` only"),
            (&["completions", "tcsh"], "tcsh"),
            (&["step", "all", "mongodb://u:secret-60x@h/"], "unexpected argument"),
        ];
        for (words, part) in table {
            let error = parse_words(words).map(|_| ()).unwrap_err();
            let text = error.to_string();
            assert_eq!(error.kind(), Kind::BadInput);
            assert!(text.contains(part), "{words:?}: {text}");
            assert!(!text.contains(['\n', '\r']) && !text.contains("secret-60x") && !text.contains("Usage"), "{text}");
        }
    }
}
