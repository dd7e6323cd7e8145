//! Starting the state machine on AWS for a job: its settings go into the state store, where the function reads them; an
//! execution that is running is found; and only one is ever started.
//!
//! What two starts at the same time agree on is the execution's name: the same name with the same input is the same
//! execution, for Step Functions. So the name is made of what is known before: the job, its plan's hash, and a number that
//! follows from the executions that there are. It stays taken for 90 days.

mod machine;
mod watch;

use crate::commands::Outcome;
use crate::config::Configuration;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::model::execution::ExecutionName;
use crate::output;
use crate::state::document::Documents;
use crate::state::keys;
use crate::state::pages::PlanHead;
use crate::telemetry::LogFormat;
use bytes::Bytes;
use machine::{Execution, Machine, Started, Status};
use serde_json::json;

/// How often it is looked again, when others start executions of the same job at the same time.
const ATTEMPTS: usize = 5;

/// How often the settings are written again, when others write them at the same time.
const WRITES: usize = 5;

/// What is asked for beside the settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// Show the progress until the execution ends.
    pub watch: bool,
    /// Go on with what failed of the last execution.
    pub redrive: bool,
}

/// Finds an execution of the job, or starts one.
///
/// # Errors
/// Bad input for settings that a function can do nothing with, a machine that does not exist, or an execution that runs with
/// other settings; with `watch` as the execution ends.
pub async fn run(context: &Context, configuration: &Configuration, asked: Asked) -> Result<Outcome> {
    let settings = configuration.to_stored()?;
    let arn = context.settings.state_machine.as_ref().ok_or_else(|| {
        Error::bad_input(
            "no state machine is given; set MONGOFERRY_STATE_MACHINE, or `state-machine` in mongoferry.toml, or --state-machine ARN",
        )
    })?;
    let machine = Machine::new(arn).await;
    // Whoever started one after this was read, started it under the name that follows from what was read, or a later one.
    let (execution, how) = find_or_start(context, &machine, &settings, asked.redrive).await?;
    let job = context.settings.job.as_str();
    if context.settings.log_format == LogFormat::Json {
        output::result_json(&json!({ "job": job, "execution": execution, "status": how.word() }))?;
    } else {
        output::result_line(&execution)?;
    }
    tracing::info!("job {job}: {}", how.text());
    if asked.watch { watch::until_it_ends(context, &machine, &execution).await } else { Ok(Outcome::Done) }
}

/// How it came to the execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Found,
    Started,
    Redriven,
}

impl How {
    fn word(self) -> &'static str {
        match self {
            How::Found => "running",
            How::Started => "started",
            How::Redriven => "redriven",
        }
    }

    fn text(self) -> &'static str {
        match self {
            How::Found => "an execution is running already",
            How::Started => "an execution is started",
            How::Redriven => "what failed of the last execution is tried again",
        }
    }
}

async fn find_or_start(context: &Context, machine: &Machine, settings: &str, redrive: bool) -> Result<(String, How)> {
    let job = &context.settings.job;
    let mut taken = 0;
    for _ in 0..ATTEMPTS {
        // Before the executions: a plan that is made in between cannot lead to another name beside a running one.
        let plan = context.documents.read::<PlanHead>(keys::PLAN).await?.map(|plan| plan.value.hash);
        let executions = machine.executions(job).await?;
        if let Some(running) = executions.iter().find(|execution| execution.status == Status::Running) {
            refuse_other_settings(context, running, settings).await?;
            return Ok((running.arn.clone(), How::Found));
        }
        let last = executions.iter().max_by_key(|execution| execution.number);
        let redrivable = match last {
            Some(last) if last.status == Status::Failed => machine.is_redrivable(&last.arn).await?,
            _ => Err("it is not one that failed".to_owned()),
        };
        match (last, &redrivable) {
            (None, _) if redrive => {
                return Err(Error::bad_input(format!(
                    "there is no execution of job `{job}` to go on with; leave out --redrive"
                )));
            }
            (Some(last), Err(why)) if redrive => {
                return Err(Error::bad_input(format!(
                    "execution {} cannot be redriven: {why}; leave out --redrive, and a new one goes on with the job",
                    last.arn
                )));
            }
            (Some(last), Ok(())) if redrive => {
                put_settings(&context.documents, settings).await?;
                machine.redrive(&last.arn).await?;
                return Ok((last.arn.clone(), How::Redriven));
            }
            (Some(last), Ok(())) => tracing::warn!(
                "the last execution failed, and another one is started, which looks at every lane; --redrive goes on with only what failed of {}",
                last.arn
            ),
            _ => {}
        }
        put_settings(&context.documents, settings).await?;
        let number = last.map_or(0, |last| last.number).max(taken) + 1;
        let name = ExecutionName::new(job, plan.as_deref(), number);
        match machine.start(&name.to_string(), &json!({ "job": job.as_str() }).to_string()).await? {
            Started::Now(arn) => {
                // Another start may have put other settings there before it came to the same execution.
                refuse_settings_of_another(context, settings).await?;
                return Ok((arn, How::Started));
            }
            Started::Taken => taken = number,
        }
    }
    Err(Error::busy(format!("others start executions of job `{job}` all the time; try again")))
}

async fn refuse_other_settings(context: &Context, running: &Execution, settings: &str) -> Result<()> {
    if context.documents.read_bytes(keys::SETTINGS).await?.is_some_and(|stored| stored == settings.as_bytes()) {
        return Ok(());
    }
    Err(Error::bad_input(format!(
        "job `{}` is being worked on with other settings (those in {}); stop {} first, or change rates with `mongoferry control`",
        context.settings.job,
        context.documents.name(keys::SETTINGS),
        running.arn
    )))
}

async fn refuse_settings_of_another(context: &Context, settings: &str) -> Result<()> {
    if context.documents.read_bytes(keys::SETTINGS).await?.is_some_and(|stored| stored == settings.as_bytes()) {
        return Ok(());
    }
    Err(Error::busy(format!(
        "another start of job `{}` has put other settings into {} at the same time; run this again to see which are in force",
        context.settings.job,
        context.documents.name(keys::SETTINGS)
    )))
}

/// Puts the settings where the function reads them. There is no write id in them: who writes the same has written it.
async fn put_settings(documents: &Documents, settings: &str) -> Result<()> {
    let body = Bytes::from(settings.to_owned());
    for _ in 0..WRITES {
        if documents.put_bytes(keys::SETTINGS, body.clone()).await? {
            return Ok(());
        }
    }
    Err(Error::busy(format!("{} changes all the time; try again", documents.name(keys::SETTINGS))))
}
