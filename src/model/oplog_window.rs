//! How much is left of the time by which the source's oplogs reach back behind the checkpoint. An oplog loses at its end
//! what is written at its head, about a second for a second: so what is left of that time is left to finish the copy.

use super::job::{CheckpointMap, Optime};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// Of what was there at the checkpoint, the part under which there is a warning when nobody says otherwise.
const LITTLE: u32 = 4;

/// Where each oplog began when it was last looked at: for whoever asks how much is left.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OplogBegins {
    /// The oldest entry, by the name of the replica set.
    pub begins: BTreeMap<String, Optime>,
}

/// How far an oplog reaches back behind the place where a stream begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// By how much it did when the checkpoint was captured.
    pub at_checkpoint: Duration,
    /// By how much it still does. None when it does no more: the copy is for nothing.
    pub left: Option<Duration>,
}

impl Window {
    /// Of the oplog of a replica set that begins here now. None when there is no checkpoint of it.
    pub fn of(checkpoints: &CheckpointMap, set: &str, begin: Optime) -> Option<Self> {
        let start = checkpoints.stream_start(set)?;
        let then = checkpoints.checkpoints.get(set)?.oplog_begin;
        let behind = |begin: Optime| Duration::from_secs(u64::from(start.seconds.saturating_sub(begin.seconds)));
        Some(Self { at_checkpoint: behind(then), left: (begin < start).then(|| behind(begin)) })
    }

    /// Whether so little is left that somebody should enlarge the oplog: less than `least`, or than a quarter of what it
    /// was.
    pub fn is_little(&self, least: Option<Duration>) -> bool {
        let least = least.unwrap_or(self.at_checkpoint / LITTLE);
        self.left.is_none_or(|left| left < least)
    }

    /// What is left of what there was, in percent.
    pub fn percent_left(&self) -> f64 {
        match self.left {
            None => 0.0,
            // An oplog that began in the second of the checkpoint, and has lost nothing since.
            Some(_) if self.at_checkpoint.is_zero() => 100.0,
            Some(left) => (left.as_secs_f64() / self.at_checkpoint.as_secs_f64() * 100.0).min(100.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::choice::{CheckpointMode, ReadThrough};
    use crate::model::identity::Identity;
    use crate::model::job::Checkpoint;

    fn at(seconds: u32, increment: u32) -> Optime {
        Optime { seconds, increment }
    }

    fn captured(begin: Optime) -> CheckpointMap {
        CheckpointMap {
            source: Identity {
                set_name: "rs".into(),
                is_mongos: false,
                cluster_id: None,
                replica_set_id: None,
                processes: [].into(),
                hosts: vec![],
            },
            captured: String::new(),
            read: ReadThrough::Shards,
            mode: CheckpointMode::Oplog,
            is_cluster: false,
            checkpoints: [("rs".to_owned(), Checkpoint::new(at(2_000, 5), None, begin))].into(),
            times: BTreeMap::new(),
        }
    }

    fn window(then: Optime, now: Optime) -> Window {
        Window::of(&captured(then), "rs", now).unwrap_or_else(|| panic!("there is a checkpoint"))
    }

    #[test]
    fn the_window_shrinks_to_nothing() {
        let left = |then, now| window(then, now).percent_left();
        assert_eq!(left(at(1_000, 1), at(1_000, 1)), 100.0);
        assert_eq!(left(at(1_000, 1), at(1_900, 1)), 10.0);
        assert_eq!(left(at(1_000, 1), at(2_000, 5)), 0.0);
        assert_eq!(left(at(1_000, 1), at(3_000, 1)), 0.0);
        assert_eq!(left(at(2_000, 1), at(2_000, 1)), 100.0);
        assert_eq!(window(at(1_000, 1), at(2_000, 5)).left, None, "a stream wants an entry before the checkpoint");
        assert_eq!(window(at(1_000, 1), at(2_000, 4)).left, Some(Duration::ZERO));
        assert_eq!(Window::of(&captured(at(1, 1)), "other", at(1, 1)), None);
    }

    #[test]
    fn a_quarter_is_little_unless_somebody_says_otherwise() {
        let is_little = |now, least: Option<u64>| window(at(1_000, 1), now).is_little(least.map(Duration::from_secs));
        assert!(!is_little(at(1_750, 1), None) && is_little(at(1_751, 1), None));
        assert!(!is_little(at(1_900, 1), Some(100)) && is_little(at(1_901, 1), Some(100)));
        assert!(is_little(at(2_001, 1), Some(0)));
        assert!(!window(at(2_000, 1), at(2_000, 1)).is_little(None), "it has only just begun");
    }
}
