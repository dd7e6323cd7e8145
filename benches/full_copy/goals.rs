//! What is to be reached, and whether it was. Pure.
//!
//! A GB is 1000³ bytes and a MB 1000² bytes, as everywhere in the settings. All figures are medians.

use serde::Serialize;

use crate::contestant::Contestant;
use crate::results::{Cost, SetResults};

/// Something that is to be reached.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Goal {
    /// What is looked at.
    pub what: String,
    /// In which set.
    pub set: String,
    /// Whether the value should be at most, or at least, the limit.
    pub is_upper_limit: bool,
    /// The limit.
    pub limit: f64,
    /// Of limit and value.
    pub unit: &'static str,
    /// What was measured; none where a contestant or the set is missing.
    pub value: Option<f64>,
    /// Whether it was reached.
    pub is_reached: Option<bool>,
}

/// Wall time of mongoferry against the baseline, at most.
const AGAINST_BASELINE: [(&str, f64); 4] = [("A", 1.10), ("B", 1.10), ("C", 1.10), ("D", 1.10)];

/// Wall time of a peer against mongoferry, at least.
const AGAINST_PEERS: [(Contestant, &[(&str, f64)]); 3] = [
    (Contestant::DumpRestore, &[("A", 2.0), ("B", 2.5), ("C", 1.2), ("D", 3.0)]),
    (Contestant::MongoShake, &[("A", 2.0), ("B", 1.5), ("D", 3.0)]),
    (Contestant::Pcsm, &[("B", 2.0), ("D", 2.0)]),
];

/// CPU seconds of mongoferry for a GB, with digests and without, at most.
const CPU: [(&str, Contestant, f64); 2] =
    [("tool CPU per GB", Contestant::Mongoferry, 1.5), ("tool CPU per GB without digests", Contestant::NoDigests, 1.0)];

/// Where that is looked at.
const CPU_SETS: [&str; 2] = ["B", "C"];

/// Peak of mongoferry's resident set in MB, at most.
const RESIDENT: [(&str, f64); 5] = [("A", 64.0), ("B", 64.0), ("C", 128.0), ("D", 64.0), ("E", 64.0)];

/// Wall time of a copy from two shards against that of the same data as one replica set, at most.
const SHARDS: f64 = 1.1;

/// What saving may cost, in percent of the wall time.
const SAVING: f64 = 2.0;

/// What a collection may cost beyond what the target itself needs to create it, in milliseconds.
const COLLECTION: f64 = 2.0;

/// All goals about these sets, with what was measured.
pub fn goals(sets: &[SetResults]) -> Vec<Goal> {
    let set = |name: &str| sets.iter().find(|set| set.name == name);
    let cost = |name: &str, contestant| Some(&set(name)?.median(contestant)?.cost);
    let wall = |name: &str, contestant| cost(name, contestant).map(|cost: &Cost| cost.wall_seconds);
    let mut goals = Vec::new();
    for (name, limit) in AGAINST_BASELINE {
        let value = ratio(wall(name, Contestant::Mongoferry), wall(name, Contestant::Baseline));
        goals.push(at_most("wall ÷ baseline", name, limit, "x", value));
    }
    for (peer, limits) in AGAINST_PEERS {
        for (name, limit) in limits {
            let value = ratio(wall(name, peer), wall(name, Contestant::Mongoferry));
            goals.push(at_least(&format!("faster than {}", peer.as_str()), name, *limit, "x", value));
        }
    }
    for (what, contestant, limit) in CPU {
        for name in CPU_SETS {
            let cpu = cost(name, contestant).map(|cost| cost.tool_cpu_seconds);
            let value = ratio(cpu, set(name).map(|set| set.bytes as f64 / 1e9));
            goals.push(at_most(what, name, limit, "s", value));
        }
    }
    for (name, limit) in RESIDENT {
        let value = cost(name, Contestant::Mongoferry).and_then(|cost| cost.peak_rss_bytes);
        goals.push(at_most("peak resident set", name, limit, "MB", value.map(|bytes| bytes as f64 / 1e6)));
    }
    let value = ratio(wall("A", Contestant::TwoShards), wall("A", Contestant::Mongoferry));
    goals.push(at_most("two shards ÷ one replica set", "A", SHARDS, "x", value));
    for (what, contestant) in [("saving in a folder", Contestant::Mongoferry), ("saving in MinIO", Contestant::Minio)] {
        let value = ratio(wall("A", contestant), wall("A", Contestant::RareSaves));
        goals.push(at_most(what, "A", SAVING, "%", value.map(|ratio| (ratio - 1.0) * 100.0)));
    }
    let above = wall("E", Contestant::Mongoferry)
        .zip(wall("E", Contestant::Baseline))
        .map(|(mongoferry, baseline)| (mongoferry - baseline) * 1000.0);
    let value = ratio(above, set("E").map(|set| set.collections as f64));
    goals.push(at_most("a collection, above the baseline", "E", COLLECTION, "ms", value));
    goals.retain(|goal| sets.iter().any(|set| set.name == goal.set));
    goals
}

fn ratio(dividend: Option<f64>, divisor: Option<f64>) -> Option<f64> {
    Some(dividend? / divisor?).filter(|ratio| ratio.is_finite())
}

fn at_most(what: &str, set: &str, limit: f64, unit: &'static str, value: Option<f64>) -> Goal {
    let is_reached = value.map(|value| value <= limit);
    Goal { what: what.to_owned(), set: set.to_owned(), is_upper_limit: true, limit, unit, value, is_reached }
}

fn at_least(what: &str, set: &str, limit: f64, unit: &'static str, value: Option<f64>) -> Goal {
    let is_reached = value.map(|value| value >= limit);
    Goal { what: what.to_owned(), set: set.to_owned(), is_upper_limit: false, limit, unit, value, is_reached }
}
