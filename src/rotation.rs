//! A secret that is exchanged while work goes on: connections that are open go on, new ones are refused.
//!
//! Then it is fetched again, and the work is done again with the new one: a step that ended with an error is resumed by
//! its state, in the same process as in another one. Where nothing has changed, the refusal is what it always was.

use crate::config::Configuration;
use crate::context::Context;
use crate::error::Result;
use crate::secrets::Secrets;
use std::time::Duration;

/// A rotation of Secrets Manager first sets the password on the server and then makes it the current one
/// (<https://docs.aws.amazon.com/secretsmanager/latest/userguide/rotate-secrets_lambda-functions.html>): so long after a
/// refusal it is looked for again.
const BETWEEN_LOOKS: [Duration; 3] = [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(4)];

/// Does the work, and again each time that a server has refused to log in and a secret is another one by now.
///
/// # Errors
/// The work's, and those of fetching.
pub async fn with_fresh_secrets<T>(
    secrets: &Secrets,
    configuration: &Configuration,
    context: &Context,
    work: impl AsyncFn(&Context) -> Result<T>,
) -> Result<T> {
    let mut attempt = context.attempt(None);
    loop {
        let error = match work(&attempt).await {
            Err(error) if error.is_refused_login() && !context.stop.is_requested() => error,
            result => return result,
        };
        if configuration.wanted()?.is_empty() {
            return Err(error);
        }
        if context.stop.unless(has_changed(secrets, configuration)).await.unwrap_or(Ok(false))? {
            tracing::warn!("a secret has changed, and is used from now on: {error}");
            attempt = context.attempt(Some(secrets.settings(configuration).await?));
        } else {
            return Err(error);
        }
    }
}

async fn has_changed(secrets: &Secrets, configuration: &Configuration) -> Result<bool> {
    for pause in BETWEEN_LOOKS {
        tokio::time::sleep(pause).await;
        if secrets.refresh(configuration).await? {
            return Ok(true);
        }
    }
    Ok(false)
}
