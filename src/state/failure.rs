//! Writing down the last failure of a job.

use super::document::{Created, Document, Documents, Replaced};
use super::{VERSION, keys};
use crate::error::Result;
use crate::model::failure::Failure;

impl Document for Failure {
    const KIND: &'static str = "failure";
    const VERSION: u32 = VERSION;
}

/// How often it is written again when somebody else was faster. Whose is the last one does not matter much.
const ATTEMPTS: u32 = 5;

/// Puts it in the place of the last one.
///
/// # Errors
/// Those of the state store.
pub async fn write(documents: &Documents, failure: Failure) -> Result<()> {
    for _ in 0..ATTEMPTS {
        let is_written = match documents.read::<Failure>(keys::FAILURE).await? {
            None => matches!(documents.create(keys::FAILURE, &failure).await?, Created::Mine(_)),
            Some(last) => matches!(documents.replace(keys::FAILURE, &failure, &last).await?, Replaced::Mine(_)),
        };
        if is_written {
            return Ok(());
        }
    }
    Ok(())
}
