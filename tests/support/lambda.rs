//! AWS Lambda on this machine, as far as a function with a custom runtime sees it: an Invoke API in front, the Runtime
//! API behind, and a process, its *sandbox*, for each invocation that runs at once.
//!
//! A sandbox is stopped (`SIGSTOP`) as soon as it asks for the next invocation, and goes on when there is one. One that
//! does not answer in time is killed, and so is what a test wants killed: a test's plan looks at each invocation and may
//! name a [`Fault`] for it. Every invocation is written down.

mod fault;
mod front;
mod runtime;
mod sandbox;

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::http_server::HttpServer;
use super::servers::Failure;
pub use fault::Fault;
use runtime::Invocation;
use sandbox::{Ended, Sandbox};

/// The account that everything belongs to: moto's.
pub const ACCOUNT: &str = "123456789012";

/// The region that everything is in.
pub const REGION: &str = "us-east-1";

/// A function, as it is deployed.
#[derive(Debug, Clone)]
pub struct Function {
    /// What is run: it finds `AWS_LAMBDA_RUNTIME_API` in its environment.
    pub program: PathBuf,
    /// Its arguments; a function made of a binary has none.
    pub arguments: Vec<String>,
    /// The function's environment, with the credentials that AWS would add. Nothing of the test's own is in it.
    pub environment: Vec<(String, String)>,
    /// How long an invocation may take.
    pub time_out: Duration,
    /// Its memory, in MB. Nothing holds it to that.
    pub memory: u32,
    /// How many invocations may run at once; the next one is throttled.
    pub at_once: usize,
}

/// How an invocation ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// With this result.
    Returned(Value),
    /// With an error: what the handler said, or Lambda of a sandbox that is no more.
    Failed(Value),
    /// It was refused, since too many were running.
    Throttled,
}

impl Outcome {
    /// The error's `errorType`; none when it did not fail.
    pub fn error_type(&self) -> Option<&str> {
        match self {
            Outcome::Failed(error) => error["errorType"].as_str(),
            Outcome::Returned(_) | Outcome::Throttled => None,
        }
    }

    /// The error's `errorMessage`; empty when it did not fail.
    pub fn error_message(&self) -> &str {
        match self {
            Outcome::Failed(error) => error["errorMessage"].as_str().unwrap_or_default(),
            Outcome::Returned(_) | Outcome::Throttled => "",
        }
    }

    /// The result; panics, showing the error, when there is none.
    #[track_caller]
    pub fn result(self) -> Value {
        match self {
            Outcome::Returned(result) => result,
            other => panic!("the function has not returned: {other:?}"),
        }
    }
}

/// What is known of an invocation that has ended.
#[derive(Debug, Clone)]
pub struct Record {
    /// The how manieth it was, from 0 on.
    pub number: usize,
    /// Its event.
    pub event: Value,
    /// How it ended.
    pub outcome: Outcome,
    /// How long it took, with the start of its sandbox.
    pub took: Duration,
    /// Which sandbox it ran in; none when it was throttled.
    pub sandbox: Option<usize>,
    /// Whether that sandbox was started for it.
    pub is_cold: bool,
    /// What was done to it.
    pub fault: Option<Fault>,
    /// Bytes of its result.
    pub answered: usize,
}

impl Record {
    /// Whether its result says that it wants to be invoked again.
    pub fn has_yielded(&self) -> bool {
        matches!(&self.outcome, Outcome::Returned(result) if result["status"] == "yield")
    }
}

/// Looks at an invocation, by its number and event, and says what is to be done to it.
pub type Plan = Box<dyn FnMut(usize, &Value) -> Option<Fault> + Send>;

/// A function and its sandboxes, which end when this is dropped.
#[derive(Clone)]
pub struct Lambda {
    deployed: Arc<Deployed>,
    front: Arc<HttpServer>,
}

struct Deployed {
    function: Function,
    plan: Mutex<Plan>,
    idle: Mutex<Vec<Sandbox>>,
    running: AtomicUsize,
    asked: AtomicUsize,
    started: AtomicUsize,
    records: Mutex<Vec<Record>>,
    /// Has a folder for each sandbox, with what it wrote.
    directory: TempDir,
}

impl Lambda {
    /// Deploys a function to which nothing happens.
    pub async fn deploy(function: Function) -> Result<Self, Failure> {
        let deployed = Arc::new(Deployed {
            function,
            plan: Mutex::new(Box::new(|_, _| None)),
            idle: Mutex::default(),
            running: AtomicUsize::new(0),
            asked: AtomicUsize::new(0),
            started: AtomicUsize::new(0),
            records: Mutex::default(),
            directory: tempfile::Builder::new().prefix("mongoferry-lambda-").tempdir()?,
        });
        let front = front::start(Arc::clone(&deployed)).await?;
        Ok(Self { deployed, front: Arc::new(front) })
    }

    /// From now on this says what happens to invocations.
    pub fn plan(&self, plan: impl FnMut(usize, &Value) -> Option<Fault> + Send + 'static) {
        *lock(&self.deployed.plan) = Box::new(plan);
    }

    /// The ARN of its alias. The name has the port of the Invoke API in it, by which moto finds that.
    pub fn arn(&self) -> String {
        format!("arn:aws:lambda:{REGION}:{ACCOUNT}:function:mongoferry-{}:live", self.front.address.port())
    }

    /// Invokes it and waits for the outcome.
    pub async fn invoke(&self, event: &Value) -> Result<Outcome, Failure> {
        Arc::clone(&self.deployed).invoke(event.clone()).await
    }

    /// All invocations that have ended, in the order of their ends.
    pub fn records(&self) -> Vec<Record> {
        lock(&self.deployed.records).clone()
    }

    /// What all sandboxes have written, also those that are no more.
    pub fn logs(&self) -> String {
        let folders = (0..self.deployed.started.load(Ordering::SeqCst)).map(|number| self.deployed.folder(number));
        folders.filter_map(|folder| std::fs::read_to_string(folder.join("log")).ok()).collect()
    }

    /// Kills all sandboxes that wait for an invocation: the next one finds none that is warm.
    pub fn forget_sandboxes(&self) {
        lock(&self.deployed.idle).clear();
    }
}

impl Deployed {
    fn folder(&self, number: usize) -> PathBuf {
        self.directory.path().join(number.to_string())
    }

    /// As a task of its own: an invocation goes on when whoever asked for it has left.
    async fn invoke(self: Arc<Self>, event: Value) -> Result<Outcome, Failure> {
        let number = self.asked.fetch_add(1, Ordering::SeqCst);
        let fault = (lock(&self.plan))(number, &event);
        let first = tokio::spawn(Arc::clone(&self).run(number, event.clone(), fault));
        match fault {
            Some(Fault::Twice) => {
                tokio::spawn(Arc::clone(&self).run(number, event, fault));
            }
            Some(Fault::Orphan { after, .. }) => {
                tokio::time::sleep(after).await;
                return tokio::spawn(Arc::clone(&self).run(number, event, None)).await?;
            }
            _ => {}
        }
        first.await?
    }

    async fn run(self: Arc<Self>, number: usize, event: Value, fault: Option<Fault>) -> Result<Outcome, Failure> {
        let began = Instant::now();
        let running = self.running.fetch_add(1, Ordering::SeqCst);
        let ran = if running >= self.function.at_once || fault == Some(Fault::Throttle) {
            Ok((Outcome::Throttled, None, false))
        } else {
            self.in_a_sandbox(&event, fault).await
        };
        self.running.fetch_sub(1, Ordering::SeqCst);
        let (outcome, sandbox, is_cold) = ran?;
        let answered = match &outcome {
            Outcome::Returned(value) | Outcome::Failed(value) => value.to_string().len(),
            Outcome::Throttled => 0,
        };
        let record = Record {
            number,
            event,
            outcome: outcome.clone(),
            took: began.elapsed(),
            sandbox,
            is_cold,
            fault,
            answered,
        };
        lock(&self.records).push(record);
        Ok(outcome)
    }

    /// In a warm sandbox when there is one.
    async fn in_a_sandbox(
        &self,
        event: &Value,
        fault: Option<Fault>,
    ) -> Result<(Outcome, Option<usize>, bool), Failure> {
        let id = uuid::Uuid::new_v4().to_string();
        let warm = lock(&self.idle).pop();
        let is_cold = warm.is_none();
        let mut sandbox = match warm {
            Some(sandbox) => sandbox,
            None => {
                let number = self.started.fetch_add(1, Ordering::SeqCst);
                Sandbox::start(number, &self.function, &self.folder(number)).await?
            }
        };
        let number = sandbox.number;
        let time_out = self.function.time_out;
        let invocation = Invocation { id: id.clone(), event: event.to_string(), deadline: deadline(time_out, fault) };
        let ended = sandbox.invoke(invocation, time_out, fault).await?;
        let failed = |kind: &str, message: String| {
            Outcome::Failed(json!({"errorType": kind, "errorMessage": format!("RequestId: {id} Error: {message}")}))
        };
        let outcome = match ended {
            Ended::Returned(body) => Outcome::Returned(serde_json::from_slice(&body)?),
            Ended::Failed(body) => Outcome::Failed(serde_json::from_slice(&body)?),
            Ended::Exited => failed("Runtime.ExitError", "Runtime exited without providing a reason".to_owned()),
            Ended::TimedOut => {
                failed("Sandbox.Timedout", format!("Task timed out after {:.2} seconds", time_out.as_secs_f64()))
            }
        };
        if sandbox.is_waiting() {
            lock(&self.idle).push(sandbox);
        } else {
            sandbox.end()?;
        }
        Ok((outcome, Some(number), is_cold))
    }
}

/// What the sandbox is told, in milliseconds since 1970.
fn deadline(time_out: Duration, fault: Option<Fault>) -> u128 {
    const FAR_AWAY: u32 = 100;
    let told = if fault == Some(Fault::TimeOut) { time_out * FAR_AWAY } else { time_out };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    (now + told).as_millis()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
