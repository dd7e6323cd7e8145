//! One sandbox: a process that handles one invocation at a time and is stopped in between.

use std::fs;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use rustix::process::Signal;
use tokio::time::{sleep, timeout};

use super::runtime::{Invocation, Runtime, Said};
use super::{Fault, Function, REGION};
use crate::support::guarded::Guarded;
use crate::support::servers::Failure;

/// How long AWS lets a sandbox take until it asks for its first invocation.
const STARTS_WITHIN: Duration = Duration::from_secs(10);

/// How often a process is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// A process and what it talks to.
#[derive(Debug)]
pub struct Sandbox {
    /// The how manieth of its function it is.
    pub number: usize,
    process: Guarded,
    runtime: Runtime,
    /// It has asked for an invocation, and has none.
    is_waiting: bool,
}

/// How an invocation ended, as its sandbox shows it.
#[derive(Debug)]
pub enum Ended {
    /// The handler returned this.
    Returned(Bytes),
    /// The handler, or the start of the process, failed with this.
    Failed(Bytes),
    /// The process is gone.
    Exited,
    /// There was no answer in time.
    TimedOut,
}

impl Sandbox {
    /// Starts the process.
    pub async fn start(number: usize, function: &Function, folder: &Path) -> Result<Self, Failure> {
        fs::create_dir_all(folder)?;
        let runtime = Runtime::start().await?;
        // Through `env`, so that nothing of the test's own environment is in it.
        let mut arguments = vec!["-i".to_owned(), "PATH=/usr/local/bin:/usr/bin:/bin".to_owned(), "TZ=:UTC".to_owned()];
        let own = [
            ("AWS_LAMBDA_RUNTIME_API", runtime.address().to_string()),
            ("AWS_LAMBDA_FUNCTION_NAME", "mongoferry".to_owned()),
            ("AWS_LAMBDA_FUNCTION_VERSION", "1".to_owned()),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", function.memory.to_string()),
            ("AWS_LAMBDA_LOG_GROUP_NAME", "/aws/lambda/mongoferry".to_owned()),
            ("AWS_LAMBDA_LOG_STREAM_NAME", format!("sandbox/{number}")),
            ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand".to_owned()),
            ("AWS_REGION", REGION.to_owned()),
            ("AWS_DEFAULT_REGION", REGION.to_owned()),
            ("_HANDLER", "bootstrap".to_owned()),
        ];
        arguments.extend(own.iter().map(|(name, value)| format!("{name}={value}")));
        arguments.extend(function.environment.iter().map(|(name, value)| format!("{name}={value}")));
        arguments.push(function.program.display().to_string());
        arguments.extend(function.arguments.iter().cloned());
        let process = Guarded::spawn(Path::new("/usr/bin/env"), &arguments, &[], folder)?;
        Ok(Self { number, process, runtime, is_waiting: false })
    }

    /// Whether it can take another invocation.
    pub fn is_waiting(&self) -> bool {
        self.is_waiting
    }

    /// Lets it handle an invocation, and stops it when it asks for the next one.
    pub async fn invoke(
        &mut self,
        invocation: Invocation,
        time_out: Duration,
        fault: Option<Fault>,
    ) -> Result<Ended, Failure> {
        if !self.is_waiting {
            match timeout(STARTS_WITHIN, self.hear()).await {
                Ok(Ok(Some(Said::Waits))) => {}
                Ok(Ok(Some(Said::Failed(None, body)))) => return Ok(Ended::Failed(body)),
                Ok(Ok(None)) => return Ok(Ended::Exited),
                Ok(other) => return Err(format!("before its first invocation a sandbox said {other:?}").into()),
                Err(_) => return Ok(Ended::TimedOut),
            }
        } else {
            self.process.signal(Signal::CONT)?;
        }
        self.is_waiting = false;
        let id = invocation.id.clone();
        self.runtime.hand_out(invocation)?;
        let ended = tokio::select! {
            biased;
            ended = self.answer_or_fault(&id, fault) => ended?,
            () = sleep(time_out) => Ended::TimedOut,
        };
        if matches!(ended, Ended::Returned(_) | Ended::Failed(_)) {
            self.is_waiting = self.freeze_when_it_waits().await?;
        }
        Ok(ended)
    }

    async fn answer_or_fault(&mut self, id: &str, fault: Option<Fault>) -> Result<Ended, Failure> {
        let (strikes, lasting) = match fault {
            Some(Fault::Kill(after)) => (Some(after), None),
            Some(Fault::Freeze { after, lasting } | Fault::Orphan { after, lasting }) => (Some(after), Some(lasting)),
            Some(Fault::TimeOut | Fault::Throttle | Fault::Twice) | None => (None, None),
        };
        if let Some(after) = strikes {
            if let Ok(ended) = timeout(after, self.answer(id)).await {
                return ended;
            }
            match lasting {
                None => self.process.signal(Signal::KILL)?,
                Some(lasting) => {
                    self.process.signal(Signal::STOP)?;
                    sleep(lasting).await;
                    self.process.signal(Signal::CONT)?;
                }
            }
        }
        self.answer(id).await
    }

    async fn answer(&mut self, id: &str) -> Result<Ended, Failure> {
        match self.hear().await? {
            Some(Said::Returned(of, body)) if of == id => Ok(Ended::Returned(body)),
            Some(Said::Failed(Some(of), body)) if of == id => Ok(Ended::Failed(body)),
            Some(other) => Err(format!("a sandbox said {other:?} where the answer to {id} was due").into()),
            None => Ok(Ended::Exited),
        }
    }

    /// What the process says next; none when it is gone.
    async fn hear(&mut self) -> Result<Option<Said>, Failure> {
        loop {
            tokio::select! {
                biased;
                said = self.runtime.hear() => return said.map(Some),
                () = sleep(LOOK) => {
                    if self.process.has_ended() {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// Whether it came so far: one that exits after its answer, or does anything else for long, is of no more use.
    async fn freeze_when_it_waits(&mut self) -> Result<bool, Failure> {
        let Ok(Ok(Some(Said::Waits))) = timeout(STARTS_WITHIN, self.hear()).await else { return Ok(false) };
        self.process.signal(Signal::STOP)?;
        while !self.process.is_stopped() {
            if self.process.has_ended() {
                return Ok(false);
            }
            sleep(Duration::from_millis(1)).await;
        }
        Ok(true)
    }

    /// Kills it. What it has written stays.
    pub fn end(self) -> Result<(), Failure> {
        self.process.kill_and_keep()
    }
}
