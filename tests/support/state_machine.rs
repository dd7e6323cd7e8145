//! The state machine, run by moto's interpreter: its tasks at a local Lambda, its items from the shared MinIO.
//!
//! What is run is `statemachine/copy.asl.json` itself, with its placeholders filled. What moto does otherwise than AWS,
//! and what the tests change in it, is in `moto_server.py`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::guarded::{ATTEMPTS, Guarded, address, free_port, install, temporary_directory};
use super::http_client::call;
use super::lambda::{ACCOUNT, Lambda};
use super::servers::{Failure, Minio, shared_minio};

/// Pauses before a retry are this much shorter than the definition says. Time-outs of the tests' functions are shorter
/// than a deployed one's by about as much.
const RETRY_SCALE: &str = "0.01";

/// How often an execution is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// A running moto whose executions run. It keeps secrets as well.
#[derive(Debug)]
pub struct Interpreter {
    port: u16,
    histories: PathBuf,
    _server: Guarded,
}

/// One that tests share; each has a state machine of its own.
pub async fn shared_interpreter() -> Result<&'static Interpreter, Failure> {
    static SHARED: OnceCell<Interpreter> = OnceCell::const_new();
    SHARED.get_or_try_init(Interpreter::start).await
}

impl Interpreter {
    async fn start() -> Result<Self, Failure> {
        let endpoint = shared_minio().await?.endpoint();
        tokio::task::spawn_blocking(move || Interpreter::start_server(&endpoint)).await?
    }

    fn start_server(s3: &str) -> Result<Self, Failure> {
        let python = install(&["moto"])?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/moto_server.py");
        let directory = temporary_directory("interpreter")?;
        let folder = directory.join("server");
        fs::create_dir_all(&folder)?;
        let histories = folder.join("histories");
        let mut complaint = Failure::from("not tried");
        for _ in 0..ATTEMPTS {
            let port = free_port()?;
            let arguments = [&script.display().to_string(), "-p", &port.to_string()].map(str::to_owned);
            let environment = [
                ("MOTO_S3_ENDPOINT", s3),
                ("MOTO_S3_KEY", Minio::ACCESS_KEY),
                ("MOTO_S3_SECRET", Minio::SECRET_KEY),
                ("MOTO_RETRY_SCALE", RETRY_SCALE),
                ("MOTO_HISTORIES", &histories.display().to_string()),
                ("PYTHONDONTWRITEBYTECODE", "1"),
            ];
            let server = Guarded::spawn(&python, &arguments, &environment, &folder)?;
            match server.wait_until_it_listens(port) {
                Ok(()) => return Ok(Self { port, histories, _server: server }),
                Err(error) => {
                    complaint = error;
                    server.kill_and_keep()?;
                }
            }
        }
        fs::remove_dir_all(&directory)?;
        Err(complaint)
    }

    /// Where it listens, as `AWS_ENDPOINT_URL_SECRETS_MANAGER` wants it.
    pub fn endpoint(&self) -> String {
        format!("http://{}", address(self.port))
    }

    /// Makes a state machine of the definition, for a function whose state is in this bucket.
    pub async fn machine(&'static self, name: &str, function: &Lambda, bucket: &str) -> Result<Machine, Failure> {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("statemachine/copy.asl.json");
        let definition = fs::read_to_string(file)?
            .replace("${FunctionArn}", &function.arn())
            .replace("${StateBucket}", bucket)
            // moto's grammar wants the point; for AWS it is the same number.
            .replace("\"ToleratedFailurePercentage\": 0,", "\"ToleratedFailurePercentage\": 0.0,");
        let role = format!("arn:aws:iam::{ACCOUNT}:role/machine");
        let body = json!({"name": name, "definition": definition, "roleArn": role});
        let arn = text(&self.step_functions("CreateStateMachine", &body).await?, "stateMachineArn")?;
        Ok(Machine { interpreter: self, arn })
    }

    /// Keeps a secret, and says by what a setting refers to it.
    pub async fn keep_secret(&self, name: &str, content: &str) -> Result<String, Failure> {
        let body =
            json!({"Name": name, "SecretString": content, "ClientRequestToken": uuid::Uuid::new_v4().to_string()});
        call(&address(self.port), "secretsmanager", "secretsmanager.CreateSecret", &body).await?;
        Ok(format!("secretsmanager://{name}"))
    }

    /// Gives a secret another content.
    pub async fn rotate_secret(&self, name: &str, content: &str) -> Result<(), Failure> {
        let token = uuid::Uuid::new_v4().to_string();
        let body = json!({"SecretId": name, "SecretString": content, "ClientRequestToken": token});
        call(&address(self.port), "secretsmanager", "secretsmanager.PutSecretValue", &body).await?;
        Ok(())
    }

    async fn step_functions(&self, action: &str, body: &Value) -> Result<Value, Failure> {
        call(&address(self.port), "states", &format!("AWSStepFunctions.{action}"), body).await
    }
}

/// A state machine.
#[derive(Debug)]
pub struct Machine {
    interpreter: &'static Interpreter,
    arn: String,
}

/// How an execution ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// Its ARN.
    pub arn: String,
    /// `SUCCEEDED`, `FAILED`.
    pub status: String,
    /// The error that it failed with.
    pub error: Option<String>,
    /// What that said.
    pub cause: Option<String>,
}

/// What an execution, or a child of one of its Maps, has left in its history.
#[derive(Debug, Clone)]
pub struct History {
    /// The Map whose child it is of; none for the execution's own.
    pub map: Option<String>,
    /// How many events.
    pub events: usize,
    /// How many of them begin an invocation.
    pub invocations: usize,
    /// The longest input or output among them, in bytes.
    pub longest_payload: usize,
}

impl Machine {
    /// Starts an execution for a job and waits for its end.
    pub async fn run(&self, execution: &str, job: &str, limit: Duration) -> Result<Ended, Failure> {
        let body = json!({"stateMachineArn": self.arn, "name": execution, "input": json!({ "job": job }).to_string()});
        let arn = text(&self.interpreter.step_functions("StartExecution", &body).await?, "executionArn")?;
        let began = Instant::now();
        loop {
            let execution = self.interpreter.step_functions("DescribeExecution", &json!({"executionArn": arn})).await?;
            let status = text(&execution, "status")?;
            if status != "RUNNING" {
                let said = |name: &str| execution[name].as_str().map(str::to_owned);
                return Ok(Ended { arn, status, error: said("error"), cause: said("cause") });
            }
            if began.elapsed() > limit {
                return Err(format!("the execution has not ended after {limit:?}: {execution}").into());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The histories of an execution and of all children of its Maps.
    pub async fn histories(&self, execution: &str) -> Result<Vec<History>, Failure> {
        let body = json!({"executionArn": execution});
        let own = self.interpreter.step_functions("GetExecutionHistory", &body).await?;
        let mut all = vec![history(None, &own["events"])];
        for line in fs::read_to_string(&self.interpreter.histories)?.lines() {
            let child: Value = serde_json::from_str(line)?;
            if child["execution"] == execution {
                all.push(history(child["map"].as_str(), &child["events"]));
            }
        }
        Ok(all)
    }
}

fn history(map: Option<&str>, events: &Value) -> History {
    let events = events.as_array().map(Vec::as_slice).unwrap_or_default();
    let invocations = events.iter().filter(|event| event["type"] == "TaskScheduled").count();
    let details = events.iter().filter_map(Value::as_object).flat_map(|event| event.values());
    let payloads = details.flat_map(|details| ["input", "output", "parameters"].map(|name| &details[name]));
    let longest_payload = payloads.filter_map(Value::as_str).map(str::len).max().unwrap_or(0);
    History { map: map.map(str::to_owned), events: events.len(), invocations, longest_payload }
}

fn text(value: &Value, name: &str) -> Result<String, Failure> {
    value[name].as_str().map(str::to_owned).ok_or_else(|| format!("no {name} in {value}").into())
}
