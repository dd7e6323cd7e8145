//! What was measured, as it is kept in JSON; and the medians of it. Pure.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::contestant::Contestant;

/// What was measured with one set.
#[derive(Debug, Clone, Serialize)]
pub struct SetResults {
    /// Its letter.
    pub name: String,
    /// What it is, in words.
    pub description: String,
    /// How many documents.
    pub documents: usize,
    /// How many bytes of documents.
    pub bytes: usize,
    /// How many collections.
    pub collections: usize,
    /// The number of writers that the baseline uses, and what was tried for it: writers and seconds.
    pub writers: usize,
    /// Seconds by number of writers, for a part of the set.
    pub writers_tried: BTreeMap<usize, f64>,
    /// Every run.
    pub runs: Vec<Run>,
    /// The medians of the runs that ended well.
    pub medians: Vec<Median>,
}

/// One run of one contestant.
#[derive(Debug, Clone, Serialize)]
pub struct Run {
    /// Who.
    pub contestant: Contestant,
    /// From 1 on.
    pub round: u32,
    /// What it cost; none when it failed.
    pub cost: Option<Cost>,
    /// Seconds of each step of mongoferry.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub steps: BTreeMap<String, f64>,
    /// Why it does not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// What a contestant's processes cost.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Cost {
    /// From the start of the first process to the end of the last.
    pub wall_seconds: f64,
    /// User and system time of all its processes.
    pub tool_cpu_seconds: f64,
    /// The same of the source's mongod in this time.
    pub source_cpu_seconds: f64,
    /// The same of the target's mongod.
    pub target_cpu_seconds: f64,
    /// The largest resident set of each process (VmHWM), summed up. Not of the baseline, which holds the set in memory.
    pub peak_rss_bytes: Option<u64>,
}

/// The medians of a contestant's runs, each figure for itself.
#[derive(Debug, Clone, Serialize)]
pub struct Median {
    /// Who.
    pub contestant: Contestant,
    /// How many runs it is of.
    pub runs: usize,
    /// The medians.
    #[serde(flatten)]
    pub cost: Cost,
    /// The fastest and the slowest run.
    pub wall_range_seconds: [f64; 2],
    /// Seconds of each step of mongoferry.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub steps: BTreeMap<String, f64>,
}

impl SetResults {
    /// The median of a contestant; none when no run of it ended well.
    pub fn median(&self, contestant: Contestant) -> Option<&Median> {
        self.medians.iter().find(|median| median.contestant == contestant)
    }

    /// Computes the medians of what is in `runs`.
    pub fn compute_medians(&mut self) {
        self.medians = Contestant::ALL.iter().filter_map(|contestant| self.median_of(*contestant)).collect();
    }

    fn median_of(&self, contestant: Contestant) -> Option<Median> {
        let runs: Vec<(&Run, &Cost)> = self
            .runs
            .iter()
            .filter(|run| run.contestant == contestant && run.failure.is_none())
            .filter_map(|run| Some((run, run.cost.as_ref()?)))
            .collect();
        let of = |figure: fn(&Cost) -> f64| median(runs.iter().map(|(_, cost)| figure(cost)).collect());
        let wall_seconds = of(|cost| cost.wall_seconds)?;
        let walls = || runs.iter().map(|(_, cost)| cost.wall_seconds);
        let peaks: Vec<f64> =
            runs.iter().filter_map(|(_, cost)| cost.peak_rss_bytes).map(|bytes| bytes as f64).collect();
        let mut steps: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for (name, seconds) in runs.iter().flat_map(|(run, _)| &run.steps) {
            steps.entry(name.clone()).or_default().push(*seconds);
        }
        Some(Median {
            contestant,
            runs: runs.len(),
            cost: Cost {
                wall_seconds,
                tool_cpu_seconds: of(|cost| cost.tool_cpu_seconds)?,
                source_cpu_seconds: of(|cost| cost.source_cpu_seconds)?,
                target_cpu_seconds: of(|cost| cost.target_cpu_seconds)?,
                peak_rss_bytes: median(peaks).map(|bytes| bytes as u64),
            },
            wall_range_seconds: [walls().fold(f64::INFINITY, f64::min), walls().fold(0.0, f64::max)],
            steps: steps.into_iter().filter_map(|(name, seconds)| Some((name, median(seconds)?))).collect(),
        })
    }
}

/// The middle one, or the mean of the two in the middle; none of nothing.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = values[(values.len() - 1) / 2];
    Some((lower + upper) / 2.0)
}

/// How long each step of mongoferry took, in seconds: `2026-11-23T10:59:33.550Z info  copy: …` ends a step. The first one
/// has no beginning, and is left out.
pub fn steps_in_log(log: &str) -> BTreeMap<String, f64> {
    let mut steps = BTreeMap::new();
    let mut before = None;
    for line in log.lines() {
        let mut words = line.split_whitespace();
        let (Some(at), Some("info"), Some(step)) = (words.next(), words.next(), words.next()) else { continue };
        let Ok(at) = humantime::parse_rfc3339(at) else { continue };
        let Some(step) = step.strip_suffix(':').filter(|step| STEPS.contains(step)) else { continue };
        if let Some(before) = before.replace(at)
            && let Ok(took) = at.duration_since(before)
        {
            steps.insert(step.to_owned(), took.as_secs_f64());
        }
    }
    steps
}

/// The steps of mongoferry.
const STEPS: [&str; 7] = ["discover", "plan", "prepare", "copy", "index", "verify", "commit"];
