//! The results as tables for people, and as a file.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::contestant::Contestant;
use crate::goals::Goal;
use crate::machine::Machine;
use crate::results::{Median, SetResults};
use crate::servers::Failure;

/// All of a benchmark.
#[derive(Debug, Serialize)]
pub struct Results {
    /// When it began, RFC 3339.
    pub at: String,
    /// What part of each set was copied; goals are meant for 1.
    pub scale: f64,
    /// How often each contestant ran.
    pub rounds: u32,
    /// Where it ran.
    pub machine: Machine,
    /// Contestants that were left out, and why.
    pub missing: BTreeMap<String, String>,
    /// Set by set.
    pub sets: Vec<SetResults>,
    /// What was to be reached.
    pub goals: Vec<Goal>,
}

/// All of it as text.
pub fn text(results: &Results) -> String {
    let machine = &results.machine;
    let mut text = format!(
        "mongoferry {} · mongod {} · {} processors, {} · {:.0} GB memory · {} · {}\nscale {}, {} rounds, medians\n",
        machine.mongoferry,
        machine.mongod,
        machine.processors,
        machine.processor,
        machine.memory_bytes as f64 / 1e9,
        machine.kernel,
        machine.file_system,
        results.scale,
        results.rounds,
    );
    results.sets.iter().for_each(|set| text.push_str(&set_table(set)));
    text.push_str(&goal_table(&results.goals));
    for (contestant, why) in &results.missing {
        let _ = writeln!(text, "left out: {contestant}: {why}");
    }
    for (set, run) in results.sets.iter().flat_map(|set| set.runs.iter().map(move |run| (set, run))) {
        if let Some(failure) = &run.failure {
            let _ = writeln!(
                text,
                "failed: {} in set {}, round {}: {failure}",
                run.contestant.as_str(),
                set.name,
                run.round
            );
        }
    }
    if results.scale < 1.0 {
        text.push_str("the goals are meant for scale 1: with less, beginning and end weigh more\n");
    }
    if let Some(doubt) = machine.doubt() {
        let _ = writeln!(text, "{doubt}");
    }
    text
}

fn set_table(set: &SetResults) -> String {
    let mut text = format!(
        "\n{}: {}; {} documents, {:.0} MB, {} collections; baseline with {} writers\n",
        set.name,
        set.description,
        set.documents,
        set.bytes as f64 / 1e6,
        set.collections,
        set.writers
    );
    let _ = writeln!(
        text,
        "  {:<13} {:>8} {:>17} {:>7} {:>8} {:>9} {:>11} {:>11} {:>8}",
        "", "wall s", "from – to", "÷ base", "copy s", "tool CPU", "source CPU", "target CPU", "peak MB"
    );
    let baseline = set.median(Contestant::Baseline).map(|median| median.cost.wall_seconds);
    for median in &set.medians {
        let _ = writeln!(text, "{}", set_line(median, baseline));
    }
    text
}

fn set_line(median: &Median, baseline: Option<f64>) -> String {
    let cost = &median.cost;
    let [fastest, slowest] = median.wall_range_seconds;
    let or_nothing = |value: Option<f64>, decimals: usize| {
        value.map_or_else(|| "-".to_owned(), |value| format!("{value:.decimals$}"))
    };
    format!(
        "  {:<13} {:>8.2} {:>17} {:>7} {:>8} {:>9.2} {:>11.2} {:>11.2} {:>8}",
        median.contestant.as_str(),
        cost.wall_seconds,
        format!("{fastest:.2} – {slowest:.2}"),
        or_nothing(baseline.map(|baseline| cost.wall_seconds / baseline), 2),
        or_nothing(median.steps.get("copy").copied(), 2),
        cost.tool_cpu_seconds,
        cost.source_cpu_seconds,
        cost.target_cpu_seconds,
        or_nothing(cost.peak_rss_bytes.map(|bytes| bytes as f64 / 1e6), 0),
    )
}

fn goal_table(goals: &[Goal]) -> String {
    let mut text = String::from("\ngoals\n");
    for goal in goals {
        let relation = if goal.is_upper_limit { "≤" } else { "≥" };
        let verdict = match goal.is_reached {
            Some(true) => "reached",
            Some(false) => "MISSED",
            None => "not measured",
        };
        let value = goal.value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2} {}", goal.unit));
        let limit = format!("{relation} {:.2} {}", goal.limit, goal.unit);
        let _ = writeln!(text, "  {} {:<36} {:>12}  {:<12} {verdict}", goal.set, goal.what, value, limit);
    }
    text
}

/// Writes the results as JSON into the folder, under the time at which they began.
///
/// # Errors
/// When it cannot be written.
pub fn write(results: &Results, folder: &Path) -> Result<PathBuf, Failure> {
    std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let path = folder.join(format!("{}.json", results.at.replace(':', "-")));
    let mut text = serde_json::to_string_pretty(results)?;
    text.push('\n');
    std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(path)
}

/// A result, to stdout.
///
/// # Errors
/// When nobody reads it.
pub fn print(text: &str) -> Result<(), Failure> {
    Ok(write!(std::io::stdout().lock(), "{text}")?)
}

/// A word to whoever watches, to stderr.
pub fn say(line: &str) {
    // There is nobody left to tell when stderr is closed.
    let _ = writeln!(std::io::stderr().lock(), "bench: {line}");
}
