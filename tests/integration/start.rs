//! `mongoferry start`: settings in the bucket, one execution of a job at a time, and how a watcher ends. moto plays Step Functions
//! without executing anything, and a server of these tests says what moto cannot be made to say.

use crate::support::aws::{self, Answering};
use crate::support::ferry::{Ferry, Ran};
use crate::support::running::Running;
use crate::support::servers::{Failure, Minio, shared_minio, shared_moto};
use aws_sdk_sfn::Client;
use serde_json::json;
use std::path::Path;
use std::time::Duration;

const BUCKET: &str = "starts";

/// A machine for one test in the shared moto, and where the state of its jobs is.
struct Machine {
    client: Client,
    arn: String,
    minio: &'static Minio,
    variables: Vec<(&'static str, String)>,
}

impl Machine {
    async fn create(name: &str) -> Result<Self, Failure> {
        let (moto, minio) = tokio::try_join!(shared_moto(), shared_minio())?;
        minio.create_bucket(BUCKET)?;
        let client = Client::new(&aws::configuration(moto).await);
        let definition = json!({"StartAt": "Pass", "States": {"Pass": {"Type": "Pass", "End": true}}}).to_string();
        let role = "arn:aws:iam::123456789012:role/machine";
        let created = client.create_state_machine().name(name).definition(definition).role_arn(role).send().await?;
        Ok(Self { client, arn: created.state_machine_arn, minio, variables: aws::environment(moto) })
    }

    fn ferry(&self, folder: &Path, job: &str) -> Ferry {
        let ferry = Ferry::new(folder, "secretsmanager://shop/source", "ssm:///shop/target", job)
            .set("MONGOFERRY_STATE", format!("s3://{BUCKET}/jobs"))
            .set("MONGOFERRY_STATE_MACHINE", self.arn.clone());
        let variables = self.variables.iter().cloned().chain(self.minio.environment());
        variables.fold(ferry, |ferry, (name, value)| ferry.set(name, value))
    }

    async fn executions(&self) -> Result<Vec<String>, Failure> {
        let listed = self.client.list_executions().state_machine_arn(&self.arn).send().await?;
        Ok(listed.executions.into_iter().map(|execution| execution.name).collect())
    }
}

/// The ARN that a start has printed.
#[track_caller]
fn printed(ran: Ran) -> String {
    ran.expect(0).stdout.trim().to_owned()
}

#[tokio::test]
async fn a_job_has_one_execution_at_a_time() -> Result<(), Failure> {
    let machine = Machine::create("one-at-a-time").await?;
    let folder = tempfile::tempdir()?;
    let ferry = machine.ferry(folder.path(), "one-at-a-time");
    let first = printed(ferry.run(&["start", "--lanes-per-shard", "2"]).await);
    assert!(first.ends_with(":one-at-a-time-new-1"), "{first}");
    let described = machine.client.describe_execution().execution_arn(&first).send().await?;
    assert_eq!(described.input.as_deref(), Some(r#"{"job":"one-at-a-time"}"#));

    let again = ferry.run(&["start", "--lanes-per-shard", "2"]).await.expect(0);
    assert!(again.stderr.contains("is running already"), "{}", again.stderr);
    assert_eq!(printed(again), first);
    let other = ferry.run(&["start", "--lanes-per-shard", "3"]).await.expect(2);
    for part in ["with other settings", &first, "/one-at-a-time/settings.toml", "mongoferry control"] {
        assert!(other.stderr.contains(part), "{part} is not in {}", other.stderr);
    }
    let redriven = ferry.run(&["start", "--redrive", "--lanes-per-shard", "2"]).await.expect(0);
    assert_eq!(printed(redriven), first, "one that runs needs no redrive");

    // What was put there are the settings of the first, and not those that were refused.
    let json = ferry.clone().set("MONGOFERRY_LOG_FORMAT", "json");
    let same = json.run(&["start", "--lanes-per-shard", "2"]).await.expect(0).json();
    assert_eq!(same, json!({"job": "one-at-a-time", "execution": first, "status": "running"}));

    machine.client.stop_execution().execution_arn(&first).send().await?;
    let refused = ferry.run(&["start", "--redrive"]).await.expect(2);
    assert!(refused.stderr.contains("cannot be redriven") && refused.stderr.contains(&first), "{}", refused.stderr);
    let second = printed(ferry.run(&["start", "--lanes-per-shard", "3"]).await);
    assert!(second.ends_with(":one-at-a-time-new-2"), "{second}");
    // Another job is another matter.
    let elsewhere = printed(machine.ferry(folder.path(), "one-at-a-time-new").run(&["start"]).await);
    assert!(elsewhere.ends_with(":one-at-a-time-new-new-1"), "{elsewhere}");
    Ok(())
}

#[tokio::test]
async fn starts_at_the_same_time_come_to_one_execution() -> Result<(), Failure> {
    let machine = Machine::create("same-time").await?;
    let folder = tempfile::tempdir()?;
    let ferry = machine.ferry(folder.path(), "same-time");
    let start = || ferry.run(&["start"]);
    let (a, b, c) = tokio::join!(start(), start(), start());
    let arns = [printed(a), printed(b), printed(c)];
    assert!(arns.iter().all(|arn| *arn == arns[0]), "{arns:?}");
    assert_eq!(machine.executions().await?, ["same-time-new-1"]);
    Ok(())
}

#[tokio::test]
async fn a_watcher_ends_with_the_execution() -> Result<(), Failure> {
    let machine = Machine::create("watched").await?;
    let folder = tempfile::tempdir()?;
    let ferry = machine.ferry(folder.path(), "watched");
    let first = printed(ferry.run(&["start"]).await);
    let mut watching = Running::start(&ferry, &["start", "--watch"])?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!watching.has_ended()?);
    machine.client.stop_execution().execution_arn(&first).send().await?;
    let ran = watching.ended_within(Duration::from_secs(20)).await?.expect(1);
    assert!(ran.stderr.contains(&format!("{first} ABORTED")), "{}", ran.stderr);

    // As the function's errors are called, so ends the watcher.
    for (error, cause, code, says) in [
        ("Findings", r#"{"errorType": "Findings", "errorMessage": "12 findings"}"#, 4, "FAILED: Findings: 12 findings"),
        ("BadInput", "no source", 2, "FAILED: BadInput: no source"),
        ("Busy", "another one", 3, "FAILED: Busy"),
        ("States.ExceedToleratedFailureThreshold", "a child failed", 1, "ExceedToleratedFailureThreshold"),
    ] {
        let described = json!({
            "executionArn": first, "stateMachineArn": machine.arn, "status": "FAILED", "startDate": 1, "stopDate": 2,
            "error": error, "cause": cause,
        });
        let started = json!({"executionArn": first, "startDate": 1});
        let step_functions = Answering::start(move |operation| match operation {
            "ListExecutions" => (200, r#"{"executions": []}"#.to_owned()),
            "StartExecution" => (200, started.to_string()),
            _ => (200, described.to_string()),
        })?;
        let ferry = ferry.clone().set("AWS_ENDPOINT_URL_SFN", step_functions.endpoint.clone());
        let ran = ferry.run(&["start", "--watch"]).await.expect(code);
        assert!(ran.stderr.contains(says), "{says} is not in {}", ran.stderr);
    }
    Ok(())
}

#[tokio::test]
async fn what_failed_is_redriven_only_when_it_is_asked_for() -> Result<(), Failure> {
    let machine = Machine::create("redriven").await?;
    let folder = tempfile::tempdir()?;
    let failed = machine.arn.replace(":stateMachine:", ":execution:") + ":redriven-01234567-4";
    let new = machine.arn.replace(":stateMachine:", ":execution:") + ":redriven-new-5";
    let item = json!({
        "executionArn": failed, "stateMachineArn": machine.arn, "name": "redriven-01234567-4", "status": "FAILED", "startDate": 1,
    });
    let described = json!({
        "executionArn": failed, "stateMachineArn": machine.arn, "status": "FAILED", "startDate": 1, "redriveStatus": "REDRIVABLE",
    });
    let started = json!({"executionArn": new, "startDate": 1});
    let step_functions = Answering::start(move |operation| match operation {
        "ListExecutions" => (200, json!({"executions": [item]}).to_string()),
        "DescribeExecution" => (200, described.to_string()),
        "StartExecution" => (200, started.to_string()),
        "RedriveExecution" => (200, r#"{"redriveDate": 3}"#.to_owned()),
        _ => (400, "{}".to_owned()),
    })?;
    let ferry = machine.ferry(folder.path(), "redriven").set("AWS_ENDPOINT_URL_SFN", step_functions.endpoint.clone());
    let ran = ferry.run(&["start"]).await.expect(0);
    assert!(
        ran.stderr.contains("--redrive goes on with only what failed") && ran.stderr.contains(&failed),
        "{}",
        ran.stderr
    );
    assert_eq!(printed(ran), new);
    let asked = step_functions.asked();
    let start = asked.iter().find(|(operation, _)| operation == "StartExecution").ok_or("nothing was started")?;
    assert!(start.1.contains(r#""redriven-new-5""#), "{}", start.1);

    assert_eq!(printed(ferry.run(&["start", "--redrive"]).await), failed);
    let redrives = step_functions.asked().iter().filter(|(operation, _)| operation == "RedriveExecution").count();
    assert_eq!(redrives, 1);
    Ok(())
}

/// Flags, a variable and its value (none: not set), the exit code, and what the error says.
type Row<'a> = (&'a [&'a str], &'a str, &'a str, i32, &'a [&'a str]);

#[tokio::test]
async fn what_is_wrong_with_a_start_is_told() -> Result<(), Failure> {
    let machine = Machine::create("wrong").await?;
    let folder = tempfile::tempdir()?;
    let denied = r#"{"__type": "AccessDeniedException", "Message": "no"}"#;
    let denying = Answering::start(|_| (400, denied.to_owned()))?;
    let other = format!("{}-other", machine.arn);
    let rows: [Row<'_>; 7] = [
        (&["--state-machine", &other], "", "", 2, &["does not exist", "--state-machine"]),
        (&[], "MONGOFERRY_STATE_MACHINE", "", 2, &["no state machine is given"]),
        (&["--state", "folder"], "", "", 2, &["cannot reach the state in the folder folder"]),
        (&["--source", "mongodb://u:hedgehog@h"], "", "", 2, &["--source:", "secretsmanager://NAME"]),
        (&["--redrive"], "", "", 2, &["no execution of job `wrong`", "leave out --redrive"]),
        (&[], "AWS_ENDPOINT_URL_SFN", &denying.endpoint, 2, &["states:ListExecutions"]),
        (&[], "AWS_ENDPOINT_URL_SFN", "http://127.0.0.1:1", 1, &["does not answer"]),
    ];
    for (flags, name, value, code, says) in rows {
        let ferry = machine.ferry(folder.path(), "wrong");
        let ferry = match (name, value) {
            ("", _) => ferry,
            (name, "") => ferry.unset(name),
            (name, value) => ferry.set(name, value),
        };
        let ran = ferry.run(&[&["start"], flags].concat()).await.expect(code);
        for part in says {
            assert!(ran.stderr.contains(part), "{part} is not in {}", ran.stderr);
        }
        assert!(ran.stdout.is_empty() && !ran.stderr.contains("hedgehog"), "{}", ran.stderr);
    }
    assert_eq!(machine.executions().await?, Vec::<String>::new());
    Ok(())
}
