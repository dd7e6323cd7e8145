//! The commands with their arguments, as clap has them.

use super::flags::{
    CopyFlags, DeploymentFlags, DryRunFlag, FunctionWorkFlags, HttpFlag, JobFlag, LogFlags, PartFlags, SelectionFlags,
    StateFlags, StateMachineFlag, StoreFlags, Suggested, WorkFlags,
};
use super::{STATE_VERSION, StepName};
use crate::config::layer::{self, RawArguments};
use clap::{Args, Parser, Subcommand, ValueHint};
use std::path::PathBuf;
use std::sync::LazyLock;

/// Text is wrapped here whatever the terminal's width, so that help reads the same in a pull request.
pub(super) const HELP_WIDTH: usize = 100;

static VERSION: LazyLock<String> =
    LazyLock::new(|| format!("{} (state version {STATE_VERSION})", env!("CARGO_PKG_VERSION")));

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
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) command: Commands,
}

#[derive(Subcommand)]
pub(super) enum Commands {
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

pub(super) const SETTINGS_NOTE: &str = "A setting with an environment variable is also a key of the TOML file (but for --config), named \
as the flag is: `save-interval = \"1s\"`. Flags win over the environment, the environment over the file; an empty variable counts as \
not set. Durations are written 500ms, 15s, 13m, 1h30m.";

#[derive(Args)]
#[command(next_line_help = true, after_help = SETTINGS_NOTE)]
pub(super) struct StepArguments {
    /// The step to run
    pub(super) step: StepName,
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
    pub(super) fn take_into(&self, raw: &mut RawArguments) {
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
pub(super) struct CheckArguments {
    /// Print one JSON object instead of a table; docs/check.md describes it
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    copy: CopyFlags,
    #[command(flatten)]
    work: WorkFlags,
    #[command(flatten)]
    log: LogFlags,
}

impl CheckArguments {
    pub(super) fn take_into(&self, raw: &mut RawArguments) {
        self.copy.take_into(raw);
        self.work.take_into(raw);
        self.log.take_into(raw);
    }
}

#[derive(Args)]
#[command(next_line_help = true, after_help = SETTINGS_NOTE)]
pub(super) struct StatusArguments {
    /// Print one JSON object instead of text; docs/command-line.md describes it
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) known: StateFlags,
}

#[derive(Args)]
#[command(next_line_help = true, after_help = SETTINGS_NOTE)]
pub(super) struct ReportArguments {
    /// Write one HTML page that needs nothing from outside, and print nothing unless --json is given too; a file that is there
    /// is replaced
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(super) html: Option<PathBuf>,
    /// Print one JSON object, which is what it does without --html; docs/report.md describes it
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) known: StateFlags,
}

#[derive(Args)]
#[command(next_line_help = true, after_help = SETTINGS_NOTE)]
pub(super) struct JobsArguments {
    #[command(flatten)]
    store: StoreFlags,
    #[command(flatten)]
    log: LogFlags,
}

impl JobsArguments {
    pub(super) fn take_into(&self, raw: &mut RawArguments) {
        self.store.take_into(raw);
        self.log.take_into(raw);
    }
}

#[derive(Args)]
#[command(next_line_help = true, after_help = SETTINGS_NOTE)]
pub(super) struct ControlArguments {
    /// What to change: max-documents-per-second=N, max-bytes-per-second=SIZE (each also =none, or =default: what the flags
    /// of each run say), pause, resume; without any, shows what was said. Workers notice it within about a second
    #[arg(value_name = "CHANGE")]
    pub(super) changes: Vec<String>,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) known: StateFlags,
}

#[derive(Args)]
#[command(next_line_help = true, after_help = SETTINGS_NOTE)]
pub(super) struct StartArguments {
    /// Show the progress of all lanes, from the bucket, until the execution ends, and end as it does
    #[arg(long)]
    pub(super) watch: bool,
    /// Go on with only what failed of the last execution, instead of starting another one, which looks at every lane: the way
    /// when thousands of them are done
    #[arg(long)]
    pub(super) redrive: bool,
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
    pub(super) fn take_into(&self, raw: &mut RawArguments) {
        self.machine.take_into(raw);
        self.copy.take_into(raw);
        self.work.take_into(raw);
        self.log.take_into(raw);
    }
}

#[derive(Args)]
#[command(next_line_help = true, after_help = SETTINGS_NOTE)]
pub(super) struct AbandonArguments {
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

impl AbandonArguments {
    pub(super) fn take_into(&self, raw: &mut RawArguments) {
        self.job.take_into(raw);
        self.store.take_into(raw);
        raw.set("target", &self.target);
        raw.set("target-ca", &self.target_ca);
        raw.set("source-config", &self.source_config);
        raw.set("source-ca", &self.source_ca);
        raw.set("lease", &self.lease);
        raw.takeover = self.takeover;
        self.log.take_into(raw);
    }
}

#[derive(Args)]
#[command(next_line_help = true, after_help = SETTINGS_NOTE)]
pub(super) struct RejectedArguments {
    /// Print one JSON object instead of text; docs/command-line.md describes it
    #[arg(long)]
    pub(super) json: bool,
    /// Once the copy is done, and before commit is: read each of them from the source again, as it is now, and write it
    /// to the target; exits with 4 while some are left
    #[arg(long)]
    pub(super) retry: bool,
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
    pub(super) fn take_into(&self, raw: &mut RawArguments) {
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
