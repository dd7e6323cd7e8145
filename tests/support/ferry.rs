//! Running the `mongoferry` binary as a user does, with settings from the environment alone.

use super::data::SHARED;
use super::servers::assert_is_this_files;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A command line of the binary, and the environment that it runs in.
#[derive(Debug, Clone)]
pub struct Ferry {
    environment: BTreeMap<String, String>,
    directory: PathBuf,
}

/// What a run printed, and how it ended.
#[derive(Debug, Clone)]
pub struct Ran {
    /// The exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// What it printed on stdout.
    pub stdout: String,
    /// What it printed on stderr.
    pub stderr: String,
}

impl Ran {
    /// Panics, showing everything, unless it ended with this exit code.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// Its stdout as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}{}", self.stdout, self.stderr))
    }
}

impl Ferry {
    /// The binary with its state in a folder below `directory`, which is also its working directory.
    pub fn new(directory: &Path, source: &str, target: &str, job: &str) -> Self {
        let ferry = Self { environment: BTreeMap::new(), directory: directory.to_owned() };
        ferry
            .set("MONGOFERRY_SOURCE", source)
            .set("MONGOFERRY_TARGET", target)
            .set("MONGOFERRY_STATE", directory.join("state").to_string_lossy())
            .set("MONGOFERRY_JOB", job)
    }

    /// The same with a cluster as its source, whose shards are read directly.
    #[must_use]
    pub fn of_shards(self, shards: &[String], config: &str) -> Self {
        self.unset("MONGOFERRY_SOURCE")
            .set("MONGOFERRY_SOURCE_SHARD", shards.join(" "))
            .set("MONGOFERRY_SOURCE_CONFIG", config)
    }

    /// The same with another variable in its environment.
    #[must_use]
    pub fn set(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.insert(name.to_owned(), value.into());
        self
    }

    /// The same without a variable.
    #[must_use]
    pub fn unset(mut self, name: &str) -> Self {
        self.environment.remove(name);
        self
    }

    /// The command with these arguments, not yet run.
    #[track_caller]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let given = |name| self.environment.get(name).map(String::as_str);
        let included = given("MONGOFERRY_INCLUDE").into_iter().flat_map(|text| text.split(','));
        for included in included.filter(|name| *name != SHARED) {
            for uri in [given("MONGOFERRY_SOURCE"), given("MONGOFERRY_TARGET")].into_iter().flatten() {
                assert_is_this_files(uri, included);
            }
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_mongoferry"));
        command.args(arguments).current_dir(&self.directory).stdin(Stdio::null());
        for (name, _) in
            std::env::vars().filter(|(name, _)| name.starts_with("MONGOFERRY_") || name.starts_with("AWS_"))
        {
            command.env_remove(name);
        }
        command.envs(&self.environment);
        command
    }

    /// Runs it to its end.
    pub async fn run(&self, arguments: &[&str]) -> Ran {
        let mut command = self.command(arguments);
        let output = tokio::task::spawn_blocking(move || command.output()).await.expect("waiting does not panic");
        let output = output.expect("the binary was built with this test");
        Ran {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// `status --json`, none while there is no job.
    pub async fn status(&self) -> Option<serde_json::Value> {
        let ran = self.run(&["status", "--json"]).await;
        (ran.code == Some(0)).then(|| ran.json())
    }
}

/// The text of every file below a folder, with its path: to look for what must not be there.
pub fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(content) = std::fs::read(&path) {
                found.push((path, content));
            }
        }
    }
    found.sort();
    found
}
