//! Where a benchmark ran.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Serialize;

/// The facts without which the figures say little.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// As /proc/cpuinfo names it.
    pub processor: String,
    /// How many processors this process may use.
    pub processors: usize,
    /// All of it.
    pub memory_bytes: u64,
    /// Kind and release.
    pub kernel: String,
    /// Type of the file system that the servers' data are on.
    pub file_system: String,
    /// How many processes wanted to run in the minute before: with more than a few tenths others were busy too.
    pub load_before: f64,
    /// Version of source and target.
    pub mongod: String,
    /// The version of mongoferry, and the commit that it was built from, with `+` when files were changed since.
    pub mongoferry: String,
    /// The first line of what each peer says to `--version`.
    pub peers: BTreeMap<String, String>,
}

/// Above this others are busy too.
const QUIET_LOAD: f64 = 0.3;

/// Reads the facts. What cannot be found out is empty. `data` is where the servers' data will be.
pub fn facts(data: &Path, peers: &BTreeMap<String, PathBuf>, mongod: String) -> Machine {
    Machine {
        processor: value(&read("/proc/cpuinfo"), "model name"),
        processors: std::thread::available_parallelism().map_or(0, usize::from),
        memory_bytes: kibibytes(&value(&read("/proc/meminfo"), "MemTotal")),
        kernel: format!("Linux {}", read("/proc/sys/kernel/osrelease").trim()),
        file_system: file_system(data),
        load_before: read("/proc/loadavg").split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0),
        mongod,
        mongoferry: format!("{} {}", env!("CARGO_PKG_VERSION"), commit()),
        peers: peers.iter().map(|(name, program)| (name.clone(), version(program))).collect(),
    }
}

impl Machine {
    /// Why the figures are worth little, if they are.
    pub fn doubt(&self) -> Option<String> {
        let busy = self.load_before > QUIET_LOAD;
        busy.then(|| {
            format!("others were busy on this machine (load {}): the figures are worth little", self.load_before)
        })
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The value of the first line `name : value`.
fn value(text: &str, name: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.map(|line| line.trim_start_matches([' ', '\t', ':']).to_owned()).unwrap_or_default()
}

fn kibibytes(value: &str) -> u64 {
    value.split(' ').next().and_then(|number| number.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// The type of the file system with the longest mount point above this folder.
fn file_system(folder: &Path) -> String {
    let mounts = read("/proc/mounts");
    let mounts = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        Some((PathBuf::from(words.next()?), words.next()?))
    });
    let above = mounts.filter(|(point, _)| folder.starts_with(point));
    above.max_by_key(|(point, _)| point.as_os_str().len()).map(|(_, kind)| kind.to_owned()).unwrap_or_default()
}

fn commit() -> String {
    let git = |arguments: &[&str]| output(Command::new("git").args(["-C", env!("CARGO_MANIFEST_DIR")]).args(arguments));
    let is_changed = !git(&["status", "--porcelain", "--untracked-files=no"]).is_empty();
    format!("{}{}", git(&["rev-parse", "--short=12", "HEAD"]), if is_changed { "+" } else { "" })
}

fn version(program: &Path) -> String {
    // MongoShake and pcsm have their own ways, and say something else to this one.
    let argument = match program.file_name().and_then(|name| name.to_str()) {
        Some("collector") => "-version",
        Some("pcsm") => "version",
        _ => "--version",
    };
    output(Command::new(program).arg(argument).stdin(Stdio::null())).lines().next().unwrap_or_default().to_owned()
}

fn output(command: &mut Command) -> String {
    let output = command.stderr(Stdio::null()).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}
