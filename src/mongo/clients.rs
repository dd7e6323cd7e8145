//! Clients that outlive the run that made them: a sandbox of a Lambda function is called again and again, and making a
//! connection with TLS and SCRAM takes longer than many a command.
//!
//! Kept by all that their connection string asks for. A process that runs once keeps none.

use mongodb::Client;
use mongodb::error::Error as DriverError;
use mongodb::options::ClientOptions;
use std::sync::{Mutex, OnceLock, PoisonError};

/// Those that are kept, where any are.
static KEPT: OnceLock<Mutex<Vec<(ClientOptions, Client)>>> = OnceLock::new();

/// Keeps clients from now on.
pub fn keep() {
    KEPT.get_or_init(Mutex::default);
}

/// The client for these options, and whether it was kept from before: then its connections may be dead by now.
///
/// # Errors
/// The driver's.
pub fn client(options: &ClientOptions) -> Result<(Client, bool), DriverError> {
    let Some(kept) = KEPT.get() else { return Ok((Client::with_options(options.clone())?, false)) };
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, client)) = kept.iter().find(|(known, _)| known == options) {
        return Ok((client.clone(), true));
    }
    let client = Client::with_options(options.clone())?;
    // Those of another job or step are not asked for again soon, and cost the servers connections.
    kept.retain(|(known, _)| known.app_name == options.app_name);
    kept.push((options.clone(), client.clone()));
    Ok((client, false))
}

/// Keeps no client with these options any more.
pub fn forget(options: &ClientOptions) {
    if let Some(kept) = KEPT.get() {
        kept.lock().unwrap_or_else(PoisonError::into_inner).retain(|(known, _)| known != options);
    }
}
