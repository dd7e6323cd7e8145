//! Whether a run is well: what `/healthz` answers.

use std::time::Duration;

/// How long the state store may be silent: longer than its calls are tried again, and than the looks are apart.
const STATE_SILENT: Duration = Duration::from_secs(60);

/// What is known about a run.
#[derive(Debug, Clone, Default)]
pub struct Signs {
    /// Why it stops, once it was told to.
    pub stopping: Option<&'static str>,
    /// How long ago the state was last looked at with success; none before the first time.
    pub looked: Option<Duration>,
    /// How long it runs.
    pub running: Duration,
    /// How old the oldest save of what this run holds was at that look; none while it holds nothing, as when it waits
    /// for another worker.
    pub saved: Option<Duration>,
    /// For how long a document of this run may stay unsaved before another worker takes it.
    pub lease: Duration,
}

impl Signs {
    /// Why the run is not well: it is stopping, the state store does not answer, or it does not save what it holds, so
    /// that it is about to lose it. None when it is well: it makes progress, or waits for another worker, for an answer
    /// or for a pause to end, which are all bounded elsewhere.
    pub fn complaint(&self) -> Option<String> {
        let Self { stopping, looked, running, saved, lease } = self;
        let shown = |time: Duration| humantime::format_duration(Duration::from_secs(time.as_secs())).to_string();
        if let Some(reason) = stopping {
            return Some(format!("stopping: {reason}"));
        }
        let silent = looked.unwrap_or(*running);
        if silent > STATE_SILENT.max(*lease) {
            return Some(format!("the state store has not answered for {}", shown(silent)));
        }
        match saved {
            Some(saved) if saved > lease => {
                Some(format!("not saved for {}, the lease is {}", shown(*saved), shown(*lease)))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn well() -> Signs {
        let [one, lease] = [1, 15].map(Duration::from_secs);
        Signs { stopping: None, looked: Some(one), running: 100 * lease, saved: Some(one), lease }
    }

    #[test]
    fn a_run_is_well_unless_something_is_wrong() {
        let late = Some(Duration::from_secs(16));
        assert_eq!(well().complaint(), None);
        assert_eq!(Signs { saved: None, ..well() }.complaint(), None, "it waits for another worker");
        assert_eq!(Signs { looked: None, running: Duration::ZERO, ..well() }.complaint(), None, "it has just begun");
        for (signs, part) in [
            (Signs { stopping: Some("told to stop by a signal"), ..well() }, "told to stop"),
            (Signs { looked: Some(Duration::from_secs(61)), ..well() }, "state store has not answered for 1m 1s"),
            (Signs { looked: None, ..well() }, "state store has not answered"),
            (Signs { saved: late, ..well() }, "not saved for 16s, the lease is 15s"),
        ] {
            let complaint = signs.complaint().unwrap_or_default();
            assert!(complaint.contains(part), "{complaint}");
        }
    }
}
