//! What must be true of `statemachine/copy.asl.json` and what no linter looks at: that a job survives whatever happens to an
//! invocation, that a redrive is possible, that nothing grows with the number of lanes. Each rule is shown to notice its
//! violation, by a change of the definition in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use mongoferry::error::Kind;
use mongoferry::model::step::Step;
use serde_json::{Map, Value, json};

use crate::support::servers::Failure;

/// Seconds that an invocation lives at most, whoever waits for it: Lambda's limit, and the `Timeout` of `template.yaml`.
const INVOCATION: f64 = 900.0;

/// What a lambda:invoke fails with beside the function's own errors, by the developer guides of Step Functions ("Best practices:
/// handle transient Lambda service exceptions") and Lambda; the last three are a function that ended without an answer.
const SERVICE_ERRORS: &[&str] = &[
    "Lambda.ServiceException",
    "Lambda.AWSLambdaException",
    "Lambda.SdkClientException",
    "Lambda.ClientExecutionTimeoutException",
    "Lambda.TooManyRequestsException",
    "Lambda.ENILimitReachedException",
    "States.Timeout",
    "Lambda.Unknown",
    "Sandbox.Timedout",
    "Runtime.ExitError",
];

/// What `template.yaml` puts in.
const SUBSTITUTIONS: &[&str] = &["FunctionArn", "StateBucket"];

fn definition() -> Result<Value, Failure> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("statemachine/copy.asl.json");
    Ok(serde_json::from_str(&fs::read_to_string(path)?)?)
}

/// Everything that is wrong with a definition, a line each.
fn complaints(definition: &Value) -> Vec<String> {
    let mut found = Vec::new();
    substitutions(definition, &mut found);
    states(definition, &mut found);
    let invoked = steps(definition);
    let expected: Vec<&str> = Step::ALL.into_iter().map(Step::name).collect();
    if invoked != expected {
        found.push(format!("the steps are {invoked:?}, not {expected:?}"));
    }
    found
}

/// A placeholder that the template does not know stays as it is, and AWS takes it for a name.
fn substitutions(definition: &Value, found: &mut Vec<String>) {
    let text = definition.to_string();
    let used: BTreeSet<&str> =
        text.split("${").skip(1).map(|rest| rest.split_once('}').map_or(rest, |(name, _)| name)).collect();
    let known: BTreeSet<&str> = SUBSTITUTIONS.iter().copied().collect();
    if used != known {
        found.push(format!("the substitutions are {used:?}, the template has {known:?}"));
    }
}

/// The steps in the order in which a job comes by them, each once however many states invoke it.
fn steps(machine: &Value) -> Vec<String> {
    let mut order = Vec::new();
    let mut next = machine["StartAt"].as_str().map(str::to_owned);
    let mut seen = BTreeSet::new();
    while let Some(name) = next.filter(|name| seen.insert(name.clone())) {
        let state = &machine["States"][&name];
        let invoked = match state["Type"].as_str() {
            Some("Map") => steps(&state["ItemProcessor"]),
            _ => state["Parameters"]["Payload"]["step"].as_str().map(str::to_owned).into_iter().collect(),
        };
        for step in invoked {
            if order.last() != Some(&step) {
                order.push(step);
            }
        }
        // Of a choice the way on, which is the last one.
        let choices = state["Choices"].as_array();
        let way = choices.and_then(|choices| choices.last()).unwrap_or(state);
        next = way["Next"].as_str().map(str::to_owned);
    }
    order
}

fn states(machine: &Value, found: &mut Vec<String>) {
    let none = Map::new();
    let states = machine["States"].as_object().unwrap_or(&none);
    for (name, state) in states {
        // A failure that is caught and turned into a Fail counts as handled: a redrive would have nothing to do.
        if state.get("Catch").is_some() {
            found.push(format!("{name} catches"));
        }
        match state["Type"].as_str() {
            Some("Task") => task(name, state, states, found),
            Some("Map") => map(name, state, found),
            _ => {}
        }
    }
}

fn task(name: &str, state: &Value, states: &Map<String, Value>, found: &mut Vec<String>) {
    if state["TimeoutSeconds"].as_f64().is_none_or(|seconds| seconds <= INVOCATION || seconds > INVOCATION + 60.0) {
        found.push(format!("{name} has no time-out a little above the function's"));
    }
    if state.get("HeartbeatSeconds").is_some() {
        found.push(format!("{name} waits for a heartbeat, which a plain invoke never sends"));
    }
    if state["Parameters"]["FunctionName"] != "${FunctionArn}" {
        found.push(format!("{name} invokes something else"));
    }
    if state["Parameters"]["Payload"]["job.$"] != "$.job" {
        found.push(format!("{name} does not name the job"));
    }
    // The whole answer of lambda:invoke has headers and metadata, more than a kilobyte a time.
    if state.get("ResultSelector").is_none() || state["ResultPath"].as_str().is_none_or(|path| path.len() < 3) {
        found.push(format!("{name} keeps more than it has to of the result, or loses its input"));
    }
    let next = state["Next"].as_str().and_then(|next| states.get(next)).unwrap_or(&Value::Null);
    if next["Choices"][0]["StringEquals"] != "yield" || next["Choices"][0]["Next"] != name {
        found.push(format!("{name} is not invoked again when it yields"));
    }
    let is_done = |way: &Value| way["StringEquals"] == "done" || way["And"][0]["StringEquals"] == "done";
    let ways = next["Choices"].as_array().map(Vec::as_slice).unwrap_or_default();
    if ways.len() < 2 || !ways[1..].iter().all(is_done) || next.get("Default").is_some() {
        found.push(format!("{name} goes on although it is not done"));
    }
    let none = Vec::new();
    retries(name, state["Retry"].as_array().unwrap_or(&none), found);
}

fn retries(name: &str, retries: &[Value], found: &mut Vec<String>) {
    let mut by_error: BTreeMap<&str, (usize, &Value)> = BTreeMap::new();
    for (place, retry) in retries.iter().enumerate() {
        for error in retry["ErrorEquals"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if by_error.insert(error, (place, retry)).is_some() {
                found.push(format!("{name} names {error} twice"));
            }
        }
        if retry["MaxAttempts"] != 0
            && (retry["JitterStrategy"] != "FULL" || retry["MaxDelaySeconds"].as_f64().is_none())
        {
            found.push(format!("{name} tries again in step with others, or after hours"));
        }
    }
    for error in [Kind::BadInput, Kind::Findings].map(Kind::name) {
        if by_error.get(error).is_none_or(|(place, retry)| *place != 0 || retry["MaxAttempts"] != 0) {
            found.push(format!("{name} does not give up at once after {error}"));
        }
    }
    for error in [Kind::Busy, Kind::Fenced].map(Kind::name) {
        if by_error.get(error).is_none_or(|(_, retry)| surely_waits(retry) <= INVOCATION) {
            found.push(format!("{name} may give up after {error} while an orphaned invocation still lives"));
        }
    }
    let own = [Kind::SourceUnavailable, Kind::TargetUnavailable, Kind::StateUnavailable].map(Kind::name);
    for error in own.iter().chain(SERVICE_ERRORS) {
        if by_error.get(error).is_none_or(|(_, retry)| retry["MaxAttempts"] == 0) {
            found.push(format!("{name} does not name {error}"));
        }
    }
    let unknown: Vec<&&str> = by_error
        .keys()
        .filter(|error| !error.contains('.') && Kind::ALL.into_iter().all(|kind| kind.name() != **error))
        .collect();
    if !unknown.is_empty() {
        found.push(format!("{name} names {unknown:?}, which the function never says"));
    }
    // AWS refuses it anywhere else: "must appear alone, in the last retrier".
    if retries.last().is_none_or(|retry| retry["ErrorEquals"] != json!(["States.ALL"])) {
        found.push(format!("{name} does not end its retriers with States.ALL alone"));
    }
}

/// How many seconds a retrier waits in all but one of a thousand cases. With full jitter each wait is anything between 0 and
/// the delay: half of it in the mean, a twelfth of its square in variance.
fn surely_waits(retry: &Value) -> f64 {
    let number = |field: &str, default: f64| retry[field].as_f64().unwrap_or(default);
    let most = number("MaxDelaySeconds", f64::INFINITY);
    let (mut mean, mut variance) = (0.0, 0.0);
    let mut delay = number("IntervalSeconds", 1.0);
    for _ in 0..number("MaxAttempts", 3.0) as u32 {
        let capped = delay.min(most);
        mean += capped / 2.0;
        variance += capped * capped / 12.0;
        delay *= number("BackoffRate", 2.0);
    }
    mean - 3.0 * variance.sqrt()
}

fn map(name: &str, state: &Value, found: &mut Vec<String>) {
    if state["ToleratedFailurePercentage"] != 0 || state.get("ToleratedFailureCount").is_some() {
        found.push(format!("{name} tolerates failures"));
    }
    let processor = &state["ItemProcessor"];
    let config = &processor["ProcessorConfig"];
    if config["Mode"] != "DISTRIBUTED" || config["ExecutionType"] != "STANDARD" {
        found.push(format!("{name} has children without a history of their own, or such that end after five minutes"));
    }
    if state["Label"].as_str().is_none_or(|label| label.is_empty() || label.len() > 40) {
        found.push(format!("{name} has no label, so a random one, and its executions are hard to find"));
    }
    if state["MaxConcurrency"].as_u64().unwrap_or(0) == 0 && state.get("MaxConcurrencyPath").is_none() {
        found.push(format!("{name} starts all children at once"));
    }
    if state["ItemSelector"]["job.$"] != "$.job" {
        found.push(format!("{name} does not tell its children the job"));
    }
    if state.get("ResultPath") != Some(&Value::Null) {
        found.push(format!("{name} keeps what its children end with"));
    }
    let ends = processor["States"].as_object().into_iter().flatten().filter(|(_, child)| child["End"] == true);
    for (end, child) in ends {
        // Two bytes and a comma a child: 87,000 of them are one payload.
        if child["Type"] != "Pass" || child["Result"] != json!({}) {
            found.push(format!("{end} ends a child of {name} with more than {{}}"));
        }
    }
    states(processor, found);
}

#[test]
fn the_definition_keeps_a_job_alive() -> Result<(), Failure> {
    assert_eq!(complaints(&definition()?), Vec::<String>::new());
    Ok(())
}

/// A change of the definition, and the complaint that it must lead to.
type Mutation = (&'static str, fn(&mut Value));

#[test]
fn each_rule_notices_its_violation() -> Result<(), Failure> {
    let mutations: &[Mutation] = &[
        ("Copy catches", |d| d["States"]["Copy"]["Catch"] = json!([])),
        ("Prepare has no time-out", |d| remove(&mut d["States"]["Prepare"], "TimeoutSeconds")),
        ("Prepare has no time-out", |d| d["States"]["Prepare"]["TimeoutSeconds"] = json!(900)),
        ("Plan waits for a heartbeat", |d| d["States"]["Plan"]["HeartbeatSeconds"] = json!(60)),
        ("Commit invokes something else", |d| d["States"]["Commit"]["Parameters"]["FunctionName"] = json!("other")),
        ("CopyLane does not name the job", |d| remove(&mut lane(d)["Parameters"]["Payload"], "job.$")),
        ("Commit keeps more than it has to", |d| remove(&mut d["States"]["Commit"], "ResultSelector")),
        ("Commit keeps more than it has to", |d| d["States"]["Commit"]["ResultPath"] = json!("$")),
        ("CopyLane is not invoked again", |d| lane(d)["Next"] = json!("CopyReturns")),
        ("Discover goes on although", |d| d["States"]["DiscoverEnded"]["Default"] = json!("Plan")),
        ("CopyRest goes on although", |d| {
            remove(&mut d["States"]["CopyRestEnded"]["Choices"][1]["And"][0], "StringEquals")
        }),
        ("CopyLane names Busy twice", |d| retry(d, 5)["ErrorEquals"] = json!(["Busy"])),
        ("CopyLane tries again in step", |d| remove(retry(d, 2), "JitterStrategy")),
        ("CopyLane tries again in step", |d| remove(retry(d, 2), "MaxDelaySeconds")),
        ("CopyLane does not give up at once after BadInput", |d| retry(d, 0)["MaxAttempts"] = json!(1)),
        ("CopyLane does not give up at once after Findings", |d| retry(d, 0)["ErrorEquals"] = json!(["BadInput"])),
        ("CopyLane does not give up at once after BadInput", |d| retriers(d).swap(0, 1)),
        ("CopyLane may give up after Busy", |d| retry(d, 1)["MaxAttempts"] = json!(20)),
        ("CopyLane may give up after Fenced", |d| retry(d, 1)["ErrorEquals"] = json!(["Busy"])),
        ("CopyLane does not name Runtime.ExitError", |d| retry(d, 5)["ErrorEquals"] = json!(["Sandbox.Timedout"])),
        ("CopyLane does not name StateUnavailable", |d| retry(d, 2)["MaxAttempts"] = json!(0)),
        ("CopyLane names [\"Bad\"]", |d| retry(d, 2)["ErrorEquals"] = json!(["Bad"])),
        ("CopyLane does not end its retriers with States.ALL", |d| retriers(d).swap(5, 6)),
        ("CopyLane does not end its retriers with States.ALL", |d| {
            retry(d, 6)["ErrorEquals"] = json!(["States.ALL", "Internal"]);
        }),
        ("Copy tolerates failures", |d| d["States"]["Copy"]["ToleratedFailurePercentage"] = json!(1)),
        ("Copy tolerates failures", |d| d["States"]["Copy"]["ToleratedFailureCount"] = json!(1)),
        ("Index has children without a history", |d| {
            d["States"]["Index"]["ItemProcessor"]["ProcessorConfig"]["Mode"] = json!("INLINE");
        }),
        ("Index has children without a history", |d| {
            d["States"]["Index"]["ItemProcessor"]["ProcessorConfig"]["ExecutionType"] = json!("EXPRESS");
        }),
        ("Verify has no label", |d| remove(&mut d["States"]["Verify"], "Label")),
        ("Copy starts all children at once", |d| remove(&mut d["States"]["Copy"], "MaxConcurrencyPath")),
        ("Verify does not tell its children", |d| remove(&mut d["States"]["Verify"]["ItemSelector"], "job.$")),
        ("Copy keeps what its children", |d| remove(&mut d["States"]["Copy"], "ResultPath")),
        ("CopyReturns ends a child of Copy", |d| {
            remove(&mut d["States"]["Copy"]["ItemProcessor"]["States"]["CopyReturns"], "Result");
        }),
        ("the substitutions are", |d| d["States"]["Plan"]["Comment"] = json!("${Functionarn}")),
        ("the steps are", |d| d["States"]["DiscoverEnded"]["Choices"][1]["Next"] = json!("Prepare")),
        ("the steps are", |d| lane(d)["Parameters"]["Payload"]["step"] = json!("verify")),
    ];
    let definition = definition()?;
    for (expected, mutate) in mutations {
        let mut changed = definition.clone();
        mutate(&mut changed);
        let found = complaints(&changed);
        assert!(found.iter().any(|line| line.contains(expected)), "{expected:?} is not in {found:#?}");
    }
    Ok(())
}

fn lane(definition: &mut Value) -> &mut Value {
    &mut definition["States"]["Copy"]["ItemProcessor"]["States"]["CopyLane"]
}

fn retriers(definition: &mut Value) -> &mut Vec<Value> {
    lane(definition)["Retry"].as_array_mut().expect("every task has retriers")
}

fn retry(definition: &mut Value, place: usize) -> &mut Value {
    &mut retriers(definition)[place]
}

fn remove(value: &mut Value, field: &str) {
    value.as_object_mut().and_then(|object| object.remove(field)).expect("a mutation removes what is there");
}
