//! What each command does, from settings to the line that it prints.

use crate::abandon;
use crate::check;
use crate::cli::{Command, StepName};
use crate::config::{Configuration, Settings};
use crate::context::Context;
use crate::control;
use crate::driver::{self, Named};
use crate::error::{Error, Result};
use crate::http;
use crate::model::limit::Change;
use crate::model::reject::Rejected;
use crate::model::step::Step;
use crate::output;
use crate::progress;
use crate::rejected::{self, Retried};
use crate::report;
use crate::rotation;
use crate::secrets::Secrets;
use crate::start;
use crate::state::document::Documents;
use crate::status::{self, text};
use crate::stop::{Reason, Stop};
use crate::tasks;
use crate::telemetry::{self, LogFormat};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

/// How a command ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All is done.
    Done,
    /// Out of time, or told to stop: run it again.
    Yield,
}

/// Runs a command to its end.
///
/// # Errors
/// The command's.
pub fn run(configuration: &Configuration) -> Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::internal(format!("the runtime does not start: {error}")))?;
    let result = runtime.block_on(run_async(configuration));
    // The process ends now, and with it whatever is still being waited for. Shutting the runtime down first would only
    // make the driver's background tasks panic over each other's end.
    std::mem::forget(runtime);
    result
}

async fn run_async(configuration: &Configuration) -> Result<Outcome> {
    let stop = Stop::default();
    listen(&stop);
    let secrets = Secrets::default();
    let Some(settings) = stop.unless(secrets.settings(configuration)).await else { return Ok(Outcome::Yield) };
    let settings = settings?;
    log(&settings);
    if let Some(budget) = settings.time_budget {
        let stop = stop.clone();
        tasks::spawn(async move {
            tokio::time::sleep(budget).await;
            stop.request(Reason::TimeBudget);
        });
    }
    let context = Context::open(settings, stop).await?;
    let run = Run { context: &context, configuration, secrets: &secrets };
    match configuration.command().clone() {
        Command::Step(step) => run_steps(&run, step).await,
        Command::Check { json } => show_check(&context, json).await,
        Command::Status { json } => show_status(&context, json).await,
        Command::Report { json, html } => write_report(&context, json, html).await,
        Command::Jobs => list_jobs(&context).await,
        Command::Rejected { json, retry: false } => list_rejected(&context, json).await,
        Command::Rejected { json, retry: true } => retry_rejected(&run, json).await,
        Command::Control { change, json } => show_control(&context, change, json).await,
        Command::Start(asked) => start::run(&context, configuration, asked).await,
        Command::Abandon => {
            let abandoned = run.with_fresh_secrets(abandon::run).await?;
            output::result_line(&abandoned).map(|()| Outcome::Done)
        }
    }
}

/// Logs and shows progress from now on, as the settings say.
fn log(settings: &Settings) {
    telemetry::init(settings.log_format, settings.log_level);
    output::errors_as_json(settings.log_format == LogFormat::Json);
    if settings.log_format == LogFormat::Text && !settings.quiet {
        output::show_progress();
    }
    for notice in &settings.notices {
        tracing::warn!("{notice}");
    }
}

/// A command that connects to servers.
struct Run<'a> {
    context: &'a Context,
    configuration: &'a Configuration,
    secrets: &'a Secrets,
}

impl Run<'_> {
    async fn with_fresh_secrets<T>(&self, work: impl AsyncFn(&Context) -> Result<T>) -> Result<T> {
        rotation::with_fresh_secrets(self.secrets, self.configuration, self.context, work).await
    }
}

async fn run_steps(run: &Run<'_>, name: StepName) -> Result<Outcome> {
    let context = run.context;
    // Before anything is connected to: an address that cannot be had is bad input.
    let listening = match context.settings.http {
        Some(address) => Some(http::listen(address).await?),
        None => None,
    };
    let (shown, looks) = progress::show(context, listening.is_some());
    let served = listening.map(|listening| http::serve(listening, context, looks));
    let result = match single(name) {
        None => run.with_fresh_secrets(driver::run_all).await,
        Some(step) => {
            run.with_fresh_secrets(async |context| driver::run_step(context, step, Named::ByHand).await).await
        }
    };
    drop((served, shown));
    let is_json = context.settings.log_format == LogFormat::Json;
    match result? {
        driver::Outcome::Done { step, summary } => {
            if is_json {
                output::result_json(&json!({ "step": name.as_str(), "status": "done", "summary": summary }))?;
            } else if context.settings.dry_run {
                output::result_line(&summary)?;
            } else {
                output::result_line(&format!("{step} done: {summary}"))?;
            }
            Ok(Outcome::Done)
        }
        driver::Outcome::Yield { step, reason } => {
            if is_json {
                output::result_json(
                    &json!({ "step": name.as_str(), "status": "yield", "in": step, "reason": reason }),
                )?;
            } else if context.settings.dry_run {
                output::result_line(&format!("{step} yielded: {reason}; a dry run keeps nothing, and begins anew"))?;
            } else {
                output::result_line(&format!("{step} yielded: {reason}; run the same command again"))?;
            }
            Ok(Outcome::Yield)
        }
    }
}

fn single(name: StepName) -> Option<Step> {
    match name {
        StepName::All => None,
        StepName::Discover => Some(Step::Discover),
        StepName::Plan => Some(Step::Plan),
        StepName::Prepare => Some(Step::Prepare),
        StepName::Copy => Some(Step::Copy),
        StepName::Index => Some(Step::Index),
        StepName::Verify => Some(Step::Verify),
        StepName::Commit => Some(Step::Commit),
    }
}

async fn show_check(context: &Context, as_json: bool) -> Result<Outcome> {
    let Some(table) = context.stop.unless(check::run(context)).await else { return Ok(Outcome::Yield) };
    let table = table?;
    let job = context.settings.job.to_string();
    if as_json {
        let rows = serde_json::to_value(&table).map_err(|error| Error::internal(error.to_string()))?;
        output::result_json(&json!({ "job": job, "status": table.verdict(), "rows": rows }))?;
    } else {
        output::result_line(&table.text())?;
    }
    table.refuse_all().map(|()| Outcome::Done)
}

async fn show_status(context: &Context, as_json: bool) -> Result<Outcome> {
    let name = context.settings.job.to_string();
    let Some(status) = status::read(&context.documents, &name).await? else {
        return Err(abandon::unknown(context));
    };
    if as_json {
        let value = serde_json::to_value(&status).map_err(|error| Error::internal(error.to_string()))?;
        output::result_json(&value)?;
    } else {
        output::result_line(&text::whole(&status))?;
    }
    Ok(Outcome::Done)
}

async fn write_report(context: &Context, as_json: bool, html: Option<PathBuf>) -> Result<Outcome> {
    let name = context.settings.job.to_string();
    let Some(found) = report::read(&context.documents, &name).await? else {
        return Err(abandon::unknown(context));
    };
    if let Some(file) = &html {
        report::write(file, &report::page(&found))?;
    }
    if as_json || html.is_none() {
        let value = serde_json::to_value(&found).map_err(|error| Error::internal(error.to_string()))?;
        output::result_json(&value)?;
    }
    Ok(Outcome::Done)
}

async fn show_control(context: &Context, change: Change, as_json: bool) -> Result<Outcome> {
    let control = control::run(context, change).await?;
    let name = context.settings.job.to_string();
    if as_json {
        let mut value = json!({ "job": name });
        if let (Some(value), Ok(Value::Object(fields))) = (value.as_object_mut(), serde_json::to_value(&control)) {
            value.extend(fields);
        }
        output::result_json(&value)?;
    } else {
        output::result_line(&format!("{name}: {}", control.text()))?;
    }
    Ok(Outcome::Done)
}

async fn list_jobs(context: &Context) -> Result<Outcome> {
    let store = context.documents.store();
    let keys = Documents::new(std::sync::Arc::clone(store), "").list("").await?;
    let names: BTreeSet<&str> = keys.iter().filter_map(|key| key.split_once('/')).map(|(job, _)| job).collect();
    for name in names {
        let documents = Documents::new(std::sync::Arc::clone(store), name);
        if let Some(status) = status::read(&documents, name).await? {
            output::result_line(&text::headline(&status))?;
        }
    }
    Ok(Outcome::Done)
}

async fn list_rejected(context: &Context, as_json: bool) -> Result<Outcome> {
    let rejected = rejected::list(context).await?;
    if as_json {
        let shown: Vec<Value> = rejected.iter().map(rejected_json).collect();
        output::result_json(&json!({ "job": context.settings.job.to_string(), "rejected": shown }))?;
    } else {
        for one in &rejected {
            let Rejected { namespace, cause, code, reason, size, .. } = one;
            let line = format!("{namespace} {} {cause} (code {code}, {size} bytes): {reason}", one.id_as_json());
            output::result_line(line.trim_end_matches([':', ' ']))?;
        }
        if rejected.is_empty() {
            output::result_line("nothing is rejected")?;
        }
    }
    Ok(Outcome::Done)
}

fn rejected_json(one: &Rejected) -> Value {
    json!({
        "namespace": one.namespace,
        "target": one.target,
        "id": one.id_as_json(),
        "cause": one.cause,
        "code": one.code,
        "reason": one.reason,
        "size": one.size,
    })
}

async fn retry_rejected(run: &Run<'_>, as_json: bool) -> Result<Outcome> {
    let context = run.context;
    let Some(Retried { settled, left }) = run.with_fresh_secrets(rejected::retry).await? else {
        let reason = context.stop.reason().map_or("stopped", Reason::text);
        output::result_line(&format!("yielded: {reason}; run the same command again"))?;
        return Ok(Outcome::Yield);
    };
    if as_json {
        let shown: Vec<Value> = left.iter().map(rejected_json).collect();
        let result = json!({ "job": context.settings.job.to_string(), "settled": settled, "rejected": shown });
        output::result_json(&result)?;
    } else {
        output::result_line(&format!("{settled} documents are settled, {} are left", left.len()))?;
    }
    match left.first() {
        None => Ok(Outcome::Done),
        Some(first) => Err(Error::findings(format!(
            "{} documents are not on the target still, the first: {} {}; mend the cause and retry, or accept them with --accept-findings at commit",
            left.len(),
            first.namespace,
            first.text()
        ))),
    }
}

/// Asks the run to stop at the first SIGINT or SIGTERM, and ends the process at the second.
fn listen(stop: &Stop) {
    use tokio::signal::unix::{SignalKind, signal};
    static ASKED: AtomicBool = AtomicBool::new(false);
    for kind in [SignalKind::interrupt(), SignalKind::terminate()] {
        let stop = stop.clone();
        match signal(kind) {
            Err(error) => tracing::warn!("signals cannot be heard: {error}"),
            Ok(mut signals) => {
                tasks::spawn(async move {
                    while signals.recv().await.is_some() {
                        if ASKED.swap(true, Ordering::SeqCst) {
                            // What is not saved is done again by the next run, as after any crash.
                            std::process::exit(i32::from(crate::error::EXIT_YIELD));
                        }
                        stop.request(Reason::Signal);
                    }
                });
            }
        }
    }
}
