//! What the function is called with: a step of a job, or what became of an execution.
//!
//! An event names a job and never more of it: its settings lie in the state store.

use crate::error::{Error, Result};
use crate::model::job_name::JobName;
use crate::model::namespace::Namespace;
use crate::model::step::Step;
use serde_json::{Map, Value};

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// `{"step": "copy", "job": "shop", "shard": "rs0", "lane": 0}`
    Step(Call),
    /// `{"execution": {…}}`, with what EventBridge says of an execution that ended badly.
    Execution(Execution),
}

/// A step, or a part of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The step.
    pub step: Step,
    /// The job.
    pub job: JobName,
    /// copy: a lane by its shard and its number there.
    pub lane: Option<(String, u32)>,
    /// index and verify: a collection, by its name in the source.
    pub namespace: Option<Namespace>,
}

/// An execution that ended badly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Execution {
    /// The job that it was for.
    pub job: JobName,
    /// Its name.
    pub name: String,
    /// `FAILED`, `TIMED_OUT` or `ABORTED`.
    pub status: String,
    /// The name of its error and what it said, as far as EventBridge tells.
    pub why: String,
}

/// What an event looks like, for messages.
const SHAPE: &str = r#"write {"step": "copy", "job": "NAME", "shard": "NAME", "lane": 0}"#;

impl Event {
    /// Reads an event.
    ///
    /// # Errors
    /// Bad input for whatever it should not have, or lacks.
    pub fn parse(event: &Value) -> Result<Self> {
        let Value::Object(fields) = event else {
            return Err(Error::bad_input(format!("the event is no JSON object; {SHAPE}")));
        };
        match fields.get("execution") {
            Some(detail) if fields.len() == 1 => Ok(Event::Execution(execution(detail)?)),
            _ => Ok(Event::Step(call(fields)?)),
        }
    }
}

fn call(fields: &Map<String, Value>) -> Result<Call> {
    const KNOWN: [&str; 5] = ["step", "job", "shard", "lane", "namespace"];
    if let Some(unknown) = fields.keys().find(|name| !KNOWN.contains(&name.as_str())) {
        return Err(Error::bad_input(format!("the event has an unknown field `{}`; {SHAPE}", unknown.escape_debug())));
    }
    let text = |name: &str| match fields.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(other) => Err(Error::bad_input(format!("the event's {name} is {other}, and must be a text; {SHAPE}"))),
    };
    let word = text("step")?.ok_or_else(|| Error::bad_input(format!("the event names no step; {SHAPE}")))?;
    let step = Step::ALL.into_iter().find(|step| step.name() == word).ok_or_else(|| {
        let all = Step::ALL.map(Step::name).join(", ");
        Error::bad_input(format!("the event's step `{}` is none; the steps are {all}", word.escape_debug()))
    })?;
    let job = job(text("job")?)?;
    let lane = match (text("shard")?, fields.get("lane")) {
        (None, None) => None,
        (Some(shard), Some(number)) => {
            let number = number.as_u64().and_then(|number| u32::try_from(number).ok()).ok_or_else(|| {
                Error::bad_input(format!("the event's lane is {number}, and must be a number from 0 on; {SHAPE}"))
            })?;
            Some((shard.to_owned(), number))
        }
        _ => return Err(Error::bad_input(format!("the event names only one of shard and lane; {SHAPE}"))),
    };
    let namespace = text("namespace")?.map(|name| {
        Namespace::parse_valid(name).map_err(|why| Error::bad_input(format!("the event's namespace `{name}`: {why}")))
    });
    let namespace = namespace.transpose()?;
    if lane.is_some() && step != Step::Copy {
        return Err(Error::bad_input(format!("shard and lane go with step copy, not with {step}; leave them out")));
    }
    if namespace.is_some() && !matches!(step, Step::Index | Step::Verify) {
        return Err(Error::bad_input(format!(
            "a namespace goes with steps index and verify, not with {step}; leave it out"
        )));
    }
    Ok(Call { step, job, lane, namespace })
}

fn job(name: Option<&str>) -> Result<JobName> {
    let name = name.ok_or_else(|| Error::bad_input(format!("the event names no job; {SHAPE}")))?;
    JobName::parse(name).map_err(|why| Error::bad_input(format!("the event's job `{}`: {why}", name.escape_debug())))
}

/// EventBridge's detail of "Step Functions Execution Status Change"; its other fields do not matter here.
/// <https://docs.aws.amazon.com/step-functions/latest/dg/eventbridge-integration.html>
fn execution(detail: &Value) -> Result<Execution> {
    let text = |name: &str| detail.get(name).and_then(Value::as_str);
    let (Some(name), Some(status)) = (text("name"), text("status")) else {
        return Err(Error::bad_input("the event's execution has no name or no status; send EventBridge's detail"));
    };
    // Left out by EventBridge where it is too long, which that of a job never is.
    let input: Value = text("input").and_then(|input| serde_json::from_str(input).ok()).unwrap_or_default();
    let why: Vec<&str> = ["error", "cause"].into_iter().filter_map(text).collect();
    Ok(Execution {
        job: job(input.get("job").and_then(Value::as_str))?,
        name: name.to_owned(),
        status: status.to_owned(),
        why: why.join(": "),
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::error::Kind;

    fn golden(name: &str) -> Value {
        let path = format!("{}/tests/golden/lambda/{name}.json", env!("CARGO_MANIFEST_DIR"));
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    #[test]
    fn events_are_read_as_they_were_from_the_beginning() {
        let job = JobName::parse("shop").unwrap();
        let call = |step| Call { step, job: job.clone(), lane: None, namespace: None };
        let lane = Call { lane: Some(("rs0".to_owned(), 3)), ..call(Step::Copy) };
        let namespace = Call { namespace: Some(Namespace::new("shop", "orders.eu")), ..call(Step::Verify) };
        let execution = Execution {
            job: job.clone(),
            name: "shop-1a2b3c4d-2".to_owned(),
            status: "FAILED".to_owned(),
            why: "SourceUnavailable: the source does not answer".to_owned(),
        };
        for (name, event) in [
            ("event-discover", Event::Step(call(Step::Discover))),
            ("event-copy", Event::Step(lane)),
            ("event-verify", Event::Step(namespace)),
            ("event-execution", Event::Execution(execution)),
        ] {
            assert_eq!(Event::parse(&golden(name)).unwrap(), event, "{name}");
        }
    }

    #[test]
    fn what_is_wrong_with_an_event_is_bad_input_that_names_it() {
        for (event, says) in [
            ("[]", "no JSON object"),
            ("{}", "no step"),
            (r#"{"job": "shop"}"#, "no step"),
            (r#"{"step": "all", "job": "shop"}"#, "`all`"),
            (r#"{"step": 1, "job": "shop"}"#, "step is 1"),
            (r#"{"step": "copy"}"#, "no job"),
            (r#"{"step": "copy", "job": "a/b"}"#, "`a/b`"),
            (r#"{"step": "copy", "job": "shop", "target": "x"}"#, "`target`"),
            (r#"{"step": "copy", "job": "shop", "lane": 1}"#, "only one"),
            (r#"{"step": "copy", "job": "shop", "shard": "a", "lane": -1}"#, "lane is -1"),
            (r#"{"step": "index", "job": "shop", "shard": "a", "lane": 1}"#, "not with index"),
            (r#"{"step": "copy", "job": "shop", "namespace": "a.b"}"#, "not with copy"),
            (r#"{"step": "verify", "job": "shop", "namespace": "a"}"#, "namespace `a`"),
            (r#"{"execution": {}}"#, "no name"),
            (r#"{"execution": {"name": "x", "status": "FAILED", "input": "{}"}}"#, "no job"),
        ] {
            let error = Event::parse(&serde_json::from_str(event).unwrap()).unwrap_err();
            assert_eq!(error.kind(), Kind::BadInput, "{event}");
            assert!(error.to_string().contains(says), "{event}: {error}");
        }
    }
}
