//! The state machine, as far as a start needs it.

use crate::aws::{self, Failed};
use crate::error::{Error, Kind, Result};
use crate::model::execution::{ExecutionName, StateMachineArn};
use crate::model::job_name::JobName;
use aws_sdk_sfn::Client;
use aws_sdk_sfn::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sfn::types::{ExecutionRedriveStatus, ExecutionStatus};

/// A state machine, and a client to reach it.
pub struct Machine {
    client: Client,
    arn: StateMachineArn,
}

/// An execution of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Execution {
    /// Its ARN.
    pub arn: String,
    /// Its number within the job.
    pub number: u64,
    /// How it is.
    pub status: Status,
}

/// How an execution is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// At work, or about to be again.
    Running,
    /// Ended as it should.
    Succeeded,
    /// Failed, timed out, or aborted.
    Failed,
}

/// What came of a start.
pub enum Started {
    /// There is an execution of that name now, with this ARN.
    Now(String),
    /// The name is taken by one that has ended.
    Taken,
}

/// An execution as it is now.
pub struct Described {
    /// How it is.
    pub status: Status,
    /// The same as Step Functions calls it: `TIMED_OUT`.
    pub word: String,
    /// The name of the error that it ended with.
    pub error: Option<String>,
    /// What the error said.
    pub cause: Option<String>,
}

impl Status {
    fn of(status: &ExecutionStatus) -> Self {
        match status {
            ExecutionStatus::Succeeded => Status::Succeeded,
            ExecutionStatus::Failed | ExecutionStatus::TimedOut | ExecutionStatus::Aborted => Status::Failed,
            // What is not known does not count as ended: there must not be two.
            _ => Status::Running,
        }
    }
}

impl Machine {
    /// The machine, asked where its ARN says that it is.
    pub async fn new(arn: &StateMachineArn) -> Self {
        let shared = aws::configuration(Some(arn.region())).await;
        Self { client: Client::new(&shared), arn: arn.clone() }
    }

    /// All executions of a job that there are.
    ///
    /// # Errors
    /// As [`Machine::failed`].
    pub async fn executions(&self, job: &JobName) -> Result<Vec<Execution>> {
        let mut pages = self.client.list_executions().state_machine_arn(self.arn.machine()).into_paginator().send();
        let mut executions = Vec::new();
        while let Some(page) = pages.next().await {
            for item in page.map_err(|error| self.failed("states:ListExecutions", &error))?.executions {
                if let Some(number) = ExecutionName::number_of(job, &item.name) {
                    executions.push(Execution { arn: item.execution_arn, number, status: Status::of(&item.status) });
                }
            }
        }
        Ok(executions)
    }

    /// Starts an execution. One that runs under that name with the same input is as good.
    ///
    /// # Errors
    /// As [`Machine::failed`].
    pub async fn start(&self, name: &str, input: &str) -> Result<Started> {
        let request = self.client.start_execution().state_machine_arn(self.arn.as_str()).name(name).input(input);
        match request.send().await {
            Ok(started) => Ok(Started::Now(started.execution_arn)),
            Err(error) if error.as_service_error().is_some_and(|error| error.is_execution_already_exists()) => {
                Ok(Started::Taken)
            }
            Err(error) => Err(self.failed("states:StartExecution", &error)),
        }
    }

    /// Whether an execution that failed can go on with what failed of it; if not, why.
    ///
    /// # Errors
    /// As [`Machine::failed`].
    pub async fn is_redrivable(&self, execution: &str) -> Result<Result<(), String>> {
        let request = self.client.describe_execution().execution_arn(execution);
        let described = request.send().await.map_err(|error| self.failed("states:DescribeExecution", &error))?;
        if described.redrive_status == Some(ExecutionRedriveStatus::Redrivable) {
            return Ok(Ok(()));
        }
        let why = described
            .redrive_status_reason
            .unwrap_or_else(|| "Step Functions says that it is not redrivable".to_owned());
        Ok(Err(aws::one_line(&why)))
    }

    /// Lets an execution go on with what failed of it.
    ///
    /// # Errors
    /// As [`Machine::failed`].
    pub async fn redrive(&self, execution: &str) -> Result<()> {
        let request = self.client.redrive_execution().execution_arn(execution);
        request.send().await.map(|_| ()).map_err(|error| self.failed("states:RedriveExecution", &error))
    }

    /// An execution as it is now.
    ///
    /// # Errors
    /// As [`Machine::failed`].
    pub async fn describe(&self, execution: &str) -> Result<Described> {
        let request = self.client.describe_execution().execution_arn(execution);
        let described = request.send().await.map_err(|error| self.failed("states:DescribeExecution", &error))?;
        Ok(Described {
            status: Status::of(&described.status),
            word: described.status.as_str().to_owned(),
            error: described.error,
            cause: described.cause,
        })
    }

    /// Bad input for a machine that does not exist and for what these credentials may not do; of the state when Step
    /// Functions does not answer, since it is neither the source nor the target.
    fn failed<E>(&self, action: &str, error: &SdkError<E>) -> Error
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let machine = self.arn.as_str();
        match aws::failed(error) {
            Failed::Denied(said) => Error::bad_input(format!(
                "{machine} denies access ({said}); allow these AWS credentials {action} on it"
            )),
            Failed::Credentials(said) => Error::bad_input(format!("{machine} cannot be reached: {said}")),
            Failed::Refused(code, _) if code == "StateMachineDoesNotExist" => Error::bad_input(format!(
                "{machine} does not exist; correct --state-machine (the stack's outputs have it)"
            )),
            Failed::Refused(code, said) if code.ends_with("LimitExceeded") => Error::new(
                Kind::StateUnavailable,
                format!("{machine} takes no more just now ({code}: {said}); try again"),
            ),
            Failed::Refused(code, said) => Error::bad_input(format!("{machine} refuses ({action}, {code}: {said})")),
            Failed::Unanswered(why) => Error::state(format!(
                "Step Functions in {} does not answer ({why}); check the network, or try again",
                self.arn.region()
            )),
            Failed::Unavailable(said) => {
                Error::state(format!("Step Functions in {} says {said}; try again", self.arn.region()))
            }
        }
    }
}
