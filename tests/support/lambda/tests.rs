//! The local Lambda on a function that is a small script: what it says of faults is what Lambda says.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Fault, Function, Lambda, Outcome};
use crate::support::servers::Failure;

/// Waits as long as the event says, then returns the event, with how many it has seen; fails or ends when told to.
const SCRIPT: &str = r#"
import json, os, sys, time, urllib.request
api = "http://" + os.environ["AWS_LAMBDA_RUNTIME_API"] + "/2018-06-01/runtime/"
seen = 0
if os.environ.get("BROKEN"):
    urllib.request.urlopen(api + "init/error", b'{"errorType":"Runtime.Init","errorMessage":"no"}')
    sys.exit(1)
while True:
    with urllib.request.urlopen(api + "invocation/next") as next:
        event, headers = json.load(next), next.headers
    seen += 1
    print("event", event, flush=True)
    until = time.monotonic() + event.get("wait", 0)
    while time.monotonic() < until:
        time.sleep(0.005)
    if event.get("exit"):
        sys.exit(1)
    id = headers["lambda-runtime-aws-request-id"]
    left = int(headers["lambda-runtime-deadline-ms"]) / 1000 - time.time()
    if event.get("fail"):
        end, body = "error", {"errorType": event["fail"], "errorMessage": "told to"}
    else:
        end, body = "response", {"seen": seen, "left": left, "environment": sorted(os.environ)}
    urllib.request.urlopen(api + f"invocation/{id}/{end}", json.dumps(body).encode())
"#;

async fn deployed(environment: &[(&str, &str)]) -> Result<Lambda, Failure> {
    Lambda::deploy(Function {
        program: "python3".into(),
        arguments: vec!["-c".to_owned(), SCRIPT.to_owned()],
        environment: environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        time_out: Duration::from_millis(1500),
        memory: 256,
        at_once: 2,
    })
    .await
}

fn seen(outcome: Outcome) -> Option<u64> {
    outcome.result()["seen"].as_u64()
}

#[tokio::test]
async fn a_sandbox_is_kept_until_it_fails() -> Result<(), Failure> {
    let lambda = deployed(&[("MINE", "1")]).await?;
    let first = lambda.invoke(&json!({})).await?.result();
    assert_eq!(first["seen"], 1);
    let left = first["left"].as_f64().ok_or("a number")?;
    assert!(left > 1.0 && left < 1.5, "{left}");
    let environment: Vec<&str> =
        first["environment"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    assert!(environment.contains(&"MINE") && environment.contains(&"AWS_LAMBDA_FUNCTION_MEMORY_SIZE"));
    assert!(!environment.contains(&"HOME"), "{environment:?}");
    // A handler's error leaves the sandbox; an exit and a time-out do not.
    let failed = lambda.invoke(&json!({"fail": "BadInput"})).await?;
    assert_eq!((failed.error_type(), failed.error_message()), (Some("BadInput"), "told to"));
    assert_eq!(seen(lambda.invoke(&json!({})).await?), Some(3));
    assert_eq!(lambda.invoke(&json!({"exit": true})).await?.error_type(), Some("Runtime.ExitError"));
    assert_eq!(seen(lambda.invoke(&json!({})).await?), Some(1));
    let late = lambda.invoke(&json!({"wait": 30})).await?;
    assert_eq!(late.error_type(), Some("Sandbox.Timedout"));
    assert!(late.error_message().ends_with("Task timed out after 1.50 seconds"), "{late:?}");
    assert_eq!(seen(lambda.invoke(&json!({})).await?), Some(1));
    let cold: Vec<bool> = lambda.records().iter().map(|record| record.is_cold).collect();
    assert_eq!(cold, [true, false, false, false, true, false, true]);
    assert_eq!(lambda.logs().matches("event").count(), 7);
    Ok(())
}

#[tokio::test]
async fn faults_happen_as_they_are_planned() -> Result<(), Failure> {
    let lambda = deployed(&[]).await?;
    lambda.plan(|number, _| match number {
        0 => Some(Fault::Kill(Duration::from_millis(300))),
        1 => Some(Fault::Throttle),
        2 => Some(Fault::TimeOut),
        3 => Some(Fault::Twice),
        4 => Some(Fault::Freeze { after: Duration::from_millis(100), lasting: Duration::from_millis(400) }),
        _ => None,
    });
    assert_eq!(lambda.invoke(&json!({"wait": 1})).await?.error_type(), Some("Runtime.ExitError"));
    assert_eq!(lambda.invoke(&json!({})).await?, Outcome::Throttled);
    let left = lambda.invoke(&json!({})).await?.result()["left"].as_f64();
    assert!(left > Some(100.0), "{left:?}");
    lambda.invoke(&json!({"wait": 0.2})).await?.result();
    lambda.invoke(&json!({"wait": 0.2})).await?.result();
    let records = lambda.records();
    assert_eq!(records.iter().filter(|record| record.number == 3).count(), 2);
    let frozen = records.iter().find(|record| record.number == 4).ok_or("it is there")?;
    assert!(frozen.took > Duration::from_millis(490), "{frozen:?}");
    Ok(())
}

#[tokio::test]
async fn too_many_at_once_are_throttled_and_a_broken_start_is_told() -> Result<(), Failure> {
    let lambda = deployed(&[]).await?;
    let event = json!({"wait": 0.5});
    let three = tokio::try_join!(lambda.invoke(&event), lambda.invoke(&event), lambda.invoke(&event))?;
    let throttled = [three.0, three.1, three.2].into_iter().filter(|outcome| *outcome == Outcome::Throttled);
    assert_eq!(throttled.count(), 1);
    let broken = deployed(&[("BROKEN", "1")]).await?;
    assert_eq!(broken.invoke(&json!({})).await?.error_type(), Some("Runtime.Init"));
    Ok(())
}

#[tokio::test]
async fn a_sandbox_stands_still_between_invocations() -> Result<(), Failure> {
    let lambda = deployed(&[]).await?;
    lambda.invoke(&json!({})).await?.result();
    let idle = super::lock(&lambda.deployed.idle).pop().ok_or("it waits")?;
    assert!(idle.is_waiting());
    idle.end()?;
    Ok(())
}
