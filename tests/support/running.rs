//! A `mongoferry` process that a test watches, signals and waits for.

use std::fs::File;
use std::io::{Read, Seek};
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use mongoferry::clock;
use rustix::process::{Pid, Signal, kill_process};

use super::ferry::{Ferry, Ran};
use super::servers::Failure;

/// How often a process or its status is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// A process; killed when this is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdout: File,
    stderr: File,
}

impl Running {
    /// Starts the binary with these arguments.
    pub fn start(ferry: &Ferry, arguments: &[&str]) -> Result<Self, Failure> {
        let (stdout, stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
        let mut command = ferry.command(arguments);
        command.stdout(Stdio::from(stdout.try_clone()?)).stderr(Stdio::from(stderr.try_clone()?));
        Ok(Self { child: command.spawn()?, stdout, stderr })
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<(), Failure> {
        let pid = Pid::from_raw(self.child.id().cast_signed()).ok_or("no process has the number 0")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Waits until it has stopped itself, as `SIGSTOP` does.
    pub async fn is_frozen(&mut self) -> Result<(), Failure> {
        let stat = format!("/proc/{}/stat", self.child.id());
        loop {
            if let Some(status) = self.child.try_wait()? {
                let ran = self.ran(status)?;
                return Err(format!("it ended before it froze: {ran:?}").into());
            }
            // The state is behind the program's name, which is in brackets.
            let state = std::fs::read_to_string(&stat)?;
            if state.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T')) {
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Where it serves its progress, once its log says so.
    pub async fn served_at(&self) -> Result<SocketAddr, Failure> {
        const SAID: &str = "progress is served on http://";
        let since = clock::monotonic();
        loop {
            let log = written(&self.stderr)?;
            let found = log.split_once(SAID).and_then(|(_, rest)| rest.split_once('/'));
            if let Some((address, _)) = found {
                return Ok(address.parse()?);
            }
            if since.elapsed() > Duration::from_secs(60) {
                return Err(format!("it serves nothing; stderr:\n{log}").into());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> Result<bool, Failure> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// What it printed, once it has ended; an error when it has not after `limit`.
    pub async fn ended_within(mut self, limit: Duration) -> Result<Ran, Failure> {
        let since = clock::monotonic();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return self.ran(status);
            }
            if since.elapsed() > limit {
                let stderr = read(&mut self.stderr)?;
                return Err(format!("it has not ended after {limit:?}; stderr:\n{stderr}").into());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until its job's copy has written at least so many documents, and says how many.
    pub async fn has_written(&mut self, ferry: &Ferry, at_least: u64) -> Result<u64, Failure> {
        loop {
            let ended = self.child.try_wait()?;
            let written = ferry.status().await.and_then(|status| status["documents"]["written"].as_u64()).unwrap_or(0);
            if written >= at_least {
                return Ok(written);
            }
            if let Some(status) = ended {
                let ran = self.ran(status)?;
                return Err(format!("it ended after {written} documents: {ran:?}").into());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn ran(&mut self, status: ExitStatus) -> Result<Ran, Failure> {
        Ok(Ran { code: status.code(), stdout: read(&mut self.stdout)?, stderr: read(&mut self.stderr)? })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only when it has ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(file: &mut File) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What a process that still runs has written so far. Does not move the offset, which is the process's own too.
fn written(file: &File) -> Result<String, Failure> {
    let mut bytes = vec![0; usize::try_from(file.metadata()?.len())?];
    let length = file.read_at(&mut bytes, 0)?;
    Ok(String::from_utf8_lossy(&bytes[..length]).into_owned())
}
