//! What a run did that somebody may ask for the morning after: claims, takeovers, yields, fallbacks, errors. JSON lines
//! in write-once parts beside the state, one folder a run. Nothing is decided by it, so a part that cannot be written
//! is a warning, not an error. A run that found nothing to do leaves none.

use crate::clock;
use crate::redact::redact;
use crate::state::document::Documents;
use crate::state::keys;
use bytes::Bytes;
use serde_json::{Map, Value, json};
use std::sync::Mutex;
use std::sync::PoisonError;

/// The journal of one run.
#[derive(Debug)]
pub struct Journal {
    documents: Documents,
    run: String,
    pending: Mutex<Pending>,
}

#[derive(Debug, Default)]
struct Pending {
    lines: Vec<String>,
    parts: u32,
}

impl Journal {
    /// The journal of the run with this id; nothing is written yet.
    pub fn new(documents: Documents, run: &str) -> Self {
        Self { documents, run: run.to_owned(), pending: Mutex::default() }
    }

    /// Notes an event with its facts (a JSON object). Secrets are taken out.
    pub fn record(&self, event: &str, facts: Value) {
        let mut line = Map::new();
        line.insert("at".into(), json!(clock::wall()));
        line.insert("event".into(), json!(event));
        if let Value::Object(facts) = facts {
            line.extend(facts);
        }
        let line = redact(&Value::Object(line).to_string()).into_owned();
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).lines.push(line);
    }

    /// Writes down what was noted since the last time.
    pub async fn flush(&self) {
        let (key, body) = {
            let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
            if pending.lines.is_empty() {
                return;
            }
            let mut body = pending.lines.join("\n");
            body.push('\n');
            pending.lines.clear();
            pending.parts += 1;
            (keys::journal(&self.run, pending.parts), body)
        };
        if let Err(error) = self.documents.create_bytes(&key, Bytes::from(body)).await {
            tracing::warn!("a part of the journal was not written: {error}");
        }
    }
}
