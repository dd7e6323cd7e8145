//! The balancer of a cluster that is copied: what it was set to before the job stopped it, and whether that was put back.
//!
//! ```text
//! (none) ──discover, before it stops it──▶ owed ──commit, abandon, or a refusal──▶ restored
//!                                            ▲                                        │
//!                                            └────────────── discover ────────────────┘
//! ```
//! What was found off is never owed.

use super::identity::Identity;
use serde::{Deserialize, Serialize};

/// What `config.settings` says about what moves and splits chunks by itself; `None` where it says nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BalancerSettings {
    /// `mode` of the document `balancer`: `full` (also when it is missing), `off`, or `autoSplitOnly`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Its `stopped`, which wins over the mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<bool>,
    /// `enabled` of the document `autosplit`, which counts before 6.0.3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autosplit: Option<bool>,
}

impl BalancerSettings {
    /// Whether the balancer moves nothing (mongo `src/mongo/s/balancer_configuration.cpp`, `BalancerSettingsType`).
    pub fn is_off(&self) -> bool {
        self.stopped == Some(true) || self.mode.as_deref() == Some("off")
    }
}

/// That a job stops the balancer of its source: written before it does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalancerRecord {
    /// The cluster, by its config servers.
    pub source: Identity,
    /// What it was set to before.
    pub found: BalancerSettings,
    /// When that was read.
    pub read: String,
    /// When it was put back, or when it was clear that nothing had been changed. `None` while it is owed, and where it
    /// was off already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<String>,
}

impl BalancerRecord {
    /// Whether the job has to put back what it found.
    pub fn is_owed(&self) -> bool {
        !self.found.is_off() && self.restored.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(mode: Option<&str>, stopped: Option<bool>) -> BalancerSettings {
        BalancerSettings { mode: mode.map(str::to_owned), stopped, autosplit: None }
    }

    #[test]
    fn either_word_turns_it_off_and_saying_nothing_is_on() {
        for (mode, stopped, is_off) in [
            (None, None, false),
            (Some("full"), Some(false), false),
            (Some("autoSplitOnly"), None, false),
            (Some("full"), Some(true), true),
            (Some("off"), Some(false), true),
            (Some("off"), None, true),
            (None, Some(true), true),
        ] {
            assert_eq!(settings(mode, stopped).is_off(), is_off, "{mode:?} {stopped:?}");
        }
    }

    #[test]
    fn only_what_was_on_is_owed_and_only_until_it_was_put_back() {
        let source = Identity {
            set_name: "c".into(),
            is_mongos: false,
            cluster_id: None,
            replica_set_id: None,
            processes: [].into(),
            hosts: vec![],
        };
        let record = |found, restored: Option<&str>| BalancerRecord {
            source: source.clone(),
            found,
            read: "then".into(),
            restored: restored.map(str::to_owned),
        };
        assert!(record(settings(None, None), None).is_owed());
        assert!(!record(settings(None, None), Some("later")).is_owed());
        assert!(!record(settings(None, Some(true)), None).is_owed());
    }
}
