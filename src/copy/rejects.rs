//! Keeping what the target does not take, and stopping when it is too much.
//!
//! What a server refuses is counted over all lanes of the job, wherever they are copied: from the objects in the state,
//! each of which is read once.

use crate::error::{Error, Result};
use crate::model::cursor::Key;
use crate::model::namespace::Namespace;
use crate::model::plan::LaneName;
use crate::model::reject::{Cause, Rejected};
use crate::state::document::Documents;
use crate::state::rejects;
use std::collections::HashSet;
use tokio::sync::Mutex;

/// Where a lane puts what the target does not take.
#[derive(Debug)]
pub struct Rejects {
    documents: Documents,
    lane: LaneName,
    most: u64,
    seen: Mutex<Seen>,
}

/// What was refused so far, as far as it was looked at.
#[derive(Debug, Default)]
struct Seen {
    objects: HashSet<String>,
    refused: HashSet<(Namespace, Key)>,
    first: Option<Rejected>,
}

impl Rejects {
    /// A lane's; servers may refuse `most` documents of the whole job (`--max-rejected`).
    pub fn new(documents: Documents, lane: LaneName, most: u64) -> Self {
        Self { documents, lane, most, seen: Mutex::default() }
    }

    /// Keeps documents.
    ///
    /// # Errors
    /// As [`Rejects::ensure_not_too_many`], and of the state store.
    pub async fn keep(&self, rejected: Vec<Rejected>) -> Result<()> {
        if rejected.is_empty() {
            return Ok(());
        }
        let is_counted = rejected.iter().any(|one| one.cause == Cause::Refused);
        rejects::keep(&self.documents, &self.lane, rejected).await?;
        if is_counted { self.ensure_not_too_many().await } else { Ok(()) }
    }

    /// Whether the job may go on.
    ///
    /// # Errors
    /// Findings when servers have refused more documents than they may; of the state store.
    pub async fn ensure_not_too_many(&self) -> Result<()> {
        let mut seen = self.seen.lock().await;
        let new = rejects::read_refused(&self.documents, &mut seen.objects).await?;
        for one in new {
            seen.refused.insert(one.which());
            seen.first.get_or_insert(one);
        }
        let refused = seen.refused.len() as u64;
        match &seen.first {
            Some(first) if refused > self.most => Err(Error::findings(format!(
                "{refused} documents were refused, and --max-rejected is {}; the first: {} {}; `mongoferry rejected` lists them; raise --max-rejected to go on without them",
                self.most,
                first.namespace,
                first.text()
            ))),
            _ => Ok(()),
        }
    }
}
