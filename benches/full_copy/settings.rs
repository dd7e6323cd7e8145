//! What the caller asks for, all of it from the environment.

use std::path::PathBuf;

use crate::contestant::Contestant;
use crate::servers::Failure;
use crate::sets::SetName;

/// What is to be done.
pub struct Settings {
    /// `BENCH_SETS=A,B`: all by default.
    pub sets: Vec<SetName>,
    /// `BENCH_CONTESTANTS=baseline,mongoferry`: all that are found by default.
    pub contestants: Vec<Contestant>,
    /// `BENCH_ROUNDS=3`: how often each runs.
    pub rounds: u32,
    /// `BENCH_SCALE=0.1`: what part of each set is copied.
    pub scale: f64,
    /// `BENCH_PEERS=DIR`: where peers are looked for before `PATH`.
    pub peers: Option<PathBuf>,
    /// `PATH`.
    pub path: String,
    /// `BENCH_RESULTS=DIR`: where the results are kept; `benches/results`, but for parts of the sets.
    pub results: PathBuf,
    /// `BENCH_PROFILE=FILE`: runs mongoferry under `perf record` into this file. The figures mean nothing then.
    pub profile: Option<PathBuf>,
}

impl Settings {
    /// Reads them.
    ///
    /// # Errors
    /// A value that makes no sense, with what would be right.
    pub fn from_environment() -> Result<Self, Failure> {
        let given = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let scale = number(given("BENCH_SCALE"), "BENCH_SCALE", 1.0, "a number above 0, up to 1")?;
        if !(scale > 0.0 && scale <= 1.0) {
            return Err(format!("BENCH_SCALE: `{scale}`: must be above 0, and 1 at most").into());
        }
        let rounds = number(given("BENCH_ROUNDS"), "BENCH_ROUNDS", 3, "a number from 1 on")?;
        if rounds == 0 {
            return Err("BENCH_ROUNDS: `0`: must be at least 1".into());
        }
        let peers = given("BENCH_PEERS").map(PathBuf::from);
        if let Some(peers) = peers.as_ref().filter(|peers| !peers.is_dir()) {
            return Err(format!("BENCH_PEERS: `{}`: must be a folder", peers.display()).into());
        }
        let repository = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let results = if scale < 1.0 { repository.join("target/bench") } else { repository.join("benches/results") };
        Ok(Settings {
            sets: chosen(given("BENCH_SETS"), "BENCH_SETS", &SetName::ALL, SetName::as_str)?,
            contestants: chosen(given("BENCH_CONTESTANTS"), "BENCH_CONTESTANTS", &Contestant::ALL, Contestant::as_str)?,
            rounds,
            scale,
            peers,
            path: given("PATH").unwrap_or_default(),
            results: given("BENCH_RESULTS").map_or(results, PathBuf::from),
            profile: given("BENCH_PROFILE").map(PathBuf::from),
        })
    }
}

fn number<T: std::str::FromStr>(given: Option<String>, name: &str, default: T, right: &str) -> Result<T, Failure> {
    match given {
        None => Ok(default),
        Some(text) => text.parse().map_err(|_| format!("{name}: `{text}`: must be {right}").into()),
    }
}

/// Those of `all` that are named in a list with commas, in the order of `all`.
fn chosen<T: Copy>(
    given: Option<String>,
    name: &str,
    all: &[T],
    shown: fn(T) -> &'static str,
) -> Result<Vec<T>, Failure> {
    let Some(text) = given else { return Ok(all.to_vec()) };
    let words: Vec<&str> = text.split(',').map(str::trim).collect();
    for word in &words {
        if !all.iter().any(|one| shown(*one) == *word) {
            let known: Vec<&str> = all.iter().map(|one| shown(*one)).collect();
            return Err(format!("{name}: `{word}`: choose from {}", known.join(", ")).into());
        }
    }
    Ok(all.iter().copied().filter(|one| words.contains(&shown(*one))).collect())
}
