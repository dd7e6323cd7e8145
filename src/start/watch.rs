//! Showing an execution until it ends: the progress of all lanes, from the bucket, and how it ended, from Step Functions.

use super::machine::{Described, Machine, Status};
use crate::commands::Outcome;
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::model::failure::Failure;
use crate::output;
use crate::progress;
use crate::state::keys;
use crate::status::{self, JobStatus};
use crate::telemetry::LogFormat;
use serde_json::{Value, json};
use std::time::Duration;

/// How often it is asked whether it has ended. Step Functions answers 15 a second to everybody in an account.
const LOOK_INTERVAL: Duration = Duration::from_secs(3);

/// Shows the progress until the execution has ended, and ends as it did.
///
/// # Errors
/// Of the kind that the execution failed with.
pub async fn until_it_ends(context: &Context, machine: &Machine, execution: &str) -> Result<Outcome> {
    let (shown, _) = progress::show(context, false);
    let ended = context.stop.unless(ended(machine, execution)).await;
    drop(shown);
    let Some(ended) = ended else {
        tracing::info!("the execution goes on; the same command shows it again");
        return Ok(Outcome::Yield);
    };
    let ended = ended?;
    if ended.status == Status::Succeeded {
        if context.settings.log_format == LogFormat::Json {
            output::result_json(&json!({ "execution": execution, "status": ended.word }))?;
        } else {
            output::result_line(&format!("{} {}", execution, ended.word))?;
        }
        return Ok(Outcome::Done);
    }
    let why = why(&ended);
    let kind = match ended.error.as_deref().and_then(kind_named) {
        Some(kind) => kind,
        // Of a Map that failed it is not known why; the job's state has it.
        None => kind_in_state(context).await?,
    };
    Err(Error::new(kind, format!("{execution} {}{why}; `mongoferry status` shows how far the job is", ended.word)))
}

async fn ended(machine: &Machine, execution: &str) -> Result<Described> {
    loop {
        match machine.describe(execution).await {
            Ok(described) if described.status != Status::Running => return Ok(described),
            Ok(_) => {}
            // Whoever watches for hours should not be thrown out by one lost answer.
            Err(error) if error.kind() == Kind::StateUnavailable => tracing::warn!("{error}"),
            Err(error) => return Err(error),
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

fn kind_named(name: &str) -> Option<Kind> {
    Kind::ALL.into_iter().find(|kind| kind.name() == name)
}

async fn kind_in_state(context: &Context) -> Result<Kind> {
    let found = status::read(&context.documents, context.settings.job.as_str()).await?;
    if found.is_some_and(|status| status.status == JobStatus::Findings) {
        return Ok(Kind::Findings);
    }
    let failure = context.documents.read::<Failure>(keys::FAILURE).await?;
    Ok(failure.and_then(|failure| kind_named(&failure.value.error)).unwrap_or(Kind::Internal))
}

/// `: Findings: …`, as far as it is known. The cause of a function's error is JSON, with the message in it.
fn why(ended: &Described) -> String {
    let message = ended.cause.as_deref().map(|cause| match serde_json::from_str(cause) {
        Ok(Value::Object(fields)) => fields.get("errorMessage").and_then(Value::as_str).unwrap_or(cause).to_owned(),
        _ => cause.to_owned(),
    });
    let parts = [ended.error.clone(), message.map(|message| crate::aws::one_line(&message))];
    let parts: Vec<String> = parts.into_iter().flatten().filter(|part| !part.is_empty()).collect();
    if parts.is_empty() { String::new() } else { format!(": {}", parts.join(": ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_is_told_in_a_line() {
        for (error, cause, says) in [
            (None, None, ""),
            (Some("States.Timeout"), None, ": States.Timeout"),
            (
                Some("BadInput"),
                Some(r#"{"errorType": "BadInput", "errorMessage": "no\nsource"}"#),
                ": BadInput: no source",
            ),
            (Some("States.DataLimitExceeded"), Some("too much"), ": States.DataLimitExceeded: too much"),
            (Some("X"), Some(r#"["x"]"#), r#": X: ["x"]"#),
        ] {
            let (error, cause) = (error.map(str::to_owned), cause.map(str::to_owned));
            let described = Described { status: Status::Failed, word: "FAILED".to_owned(), error, cause };
            assert_eq!(why(&described), says);
        }
        assert_eq!(kind_named("Findings"), Some(Kind::Findings));
        assert_eq!(kind_named("States.ExceedToleratedFailureThreshold"), None);
    }
}
