//! That nothing of a run outlives the benchmark, however it ends: not the process that is measured, nor its files.
//!
//! A small shell holds the list of processes and the folder. It reads from a pipe that only the benchmark can write to;
//! when the benchmark is gone, the pipe is closed, and the shell kills and removes. The servers have their own
//! (`tests/support/servers.rs`).

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::servers::Failure;

/// Each line replaces the list of processes.
const SHELL: &str = r#"
pids=
while read -r line; do pids=$line; done
for pid in $pids; do kill -9 "$pid"; done
rm -rf "$1"
"#;

/// The shell, and the folder for what runs leave.
pub struct Guard {
    shell: Child,
    folder: PathBuf,
}

impl Guard {
    /// Makes the folder and starts the shell.
    pub fn start() -> Result<Self, Failure> {
        let folder = tempfile::Builder::new().prefix("mongoferry-bench-").tempdir()?.keep();
        let shell = Command::new("sh")
            .args(["-c", SHELL, "guard"])
            .arg(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // A ctrl-C in the terminal is for the benchmark; the shell has to survive it.
            .process_group(0)
            .spawn()?;
        Ok(Guard { shell, folder })
    }

    /// A folder for one run, empty.
    pub fn folder(&self) -> Result<PathBuf, Failure> {
        let folder = self.folder.join("run");
        if folder.exists() {
            std::fs::remove_dir_all(&folder)?;
        }
        std::fs::create_dir(&folder)?;
        Ok(folder)
    }

    /// Where all folders are.
    pub fn root(&self) -> &Path {
        &self.folder
    }

    /// These processes, and no others, are to be killed when the benchmark ends.
    pub fn watch(&mut self, processes: &[u32]) -> Result<(), Failure> {
        let pids: Vec<String> = processes.iter().map(u32::to_string).collect();
        let pipe = self.shell.stdin.as_mut().ok_or("the guard has no pipe")?;
        Ok(writeln!(pipe, "{}", pids.join(" "))?)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}
