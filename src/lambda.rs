//! The function: the same binary, called by AWS Lambda for one step of a job, or a part of one, at a time.
//!
//! ```text
//!  event ─▶ settings from the state store ─▶ secrets ─▶ driver::run_step ─▶ result
//!                                                            └─ error ─▶ failure.json, then to whoever called
//! ```
//!
//! What holds here beside what always holds:
//!
//! - An invocation begins to stop `margin` before its deadline, and says `yield`, which is a result and not an error.
//! - Nothing of an invocation goes on once it has answered ([`crate::tasks`]): the sandbox is frozen then, and may be thawed
//!   for another one when the work has long been another worker's.
//! - What is kept from one invocation to the next is connections, never knowledge about a job.

pub mod event;
mod metrics;
mod reply;
mod sandbox;

use crate::clock;
use crate::config::Configuration;
use crate::config::layer::RawArguments;
use crate::context::Context;
use crate::driver::{self, Named};
use crate::environment::Environment;
use crate::error::{Error, Kind, Result};
use crate::model::failure::Failure;
use crate::model::size;
use crate::model::step::Step;
use crate::state::document::Documents;
use crate::state::{failure, items};
use crate::stop::{Reason, Stop};
use crate::tally::Tallied;
use crate::{output, redact, rotation, tasks};
use event::{Call, Event, Execution};
use futures_util::FutureExt;
use lambda_runtime::{Diagnostic, LambdaEvent, Runtime, service_fn};
use reply::Parts;
use sandbox::Sandbox;
use serde_json::Value;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::time::Duration;
use tracing::Instrument;

/// For how long the tasks of an invocation are waited for that were told to end: they end at once, unless the process
/// gets no time to.
const TASKS_LIMIT: Duration = Duration::from_secs(5);

/// Less than this is not enough to connect and claim.
const SHORTEST_WORK: Duration = Duration::from_secs(1);

/// Serves invocations until the sandbox is taken down.
///
/// # Errors
/// Those of starting; the runtime's when Lambda does not answer.
pub fn serve(environment: Environment) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::internal(format!("the runtime does not start: {error}")))?;
    let sandbox = Sandbox::new(environment);
    let serving = Runtime::new(service_fn(|event: LambdaEvent<Value>| serve_one(&sandbox, event))).run();
    runtime.block_on(serving).map_err(|error| Error::internal(format!("Lambda's runtime interface fails: {error}")))
}

/// Serves one invocation: whatever happens in it, it is answered, and nothing of it is left.
async fn serve_one(sandbox: &Sandbox, event: LambdaEvent<Value>) -> std::result::Result<Value, Diagnostic> {
    let began = clock::monotonic();
    let (payload, invocation) = event.into_parts();
    let request = invocation.request_id.clone();
    let time = left_until(invocation.deadline);
    let memory = u64::try_from(invocation.env_config.memory).unwrap_or(0) << 20;
    let event = Event::parse(&payload);
    let call = match &event {
        Ok(Event::Step(call)) => Some(call.clone()),
        _ => None,
    };
    let span = call.as_ref().map_or_else(|| tracing::error_span!("invocation", request), |call| span(call, &request));
    let answered = async {
        // The panic has printed its line by the time that it arrives here.
        let caught = AssertUnwindSafe(answer(sandbox, event, &request, time, memory)).catch_unwind().await;
        let panicked = || Error::internal("a panic, which the log has (a defect; please report)");
        let (tallied, result) = caught.unwrap_or_else(|_| (Tallied::default(), Err(panicked())));
        if let Err(error) = &result {
            report(sandbox, call.as_ref(), &request, error).await;
        }
        if tokio::time::timeout(TASKS_LIMIT, tasks::all_ended()).await.is_err() {
            // To answer now would leave them to go on at another time. All of it is done again by the next invocation.
            tracing::error!("{} tasks of this invocation do not end; the sandbox is given up", tasks::left());
            std::process::exit(1);
        }
        (tallied, result)
    };
    let (tallied, result) = answered.instrument(span).await;
    if let Some(call) = &call {
        let is_yield = result.as_ref().is_ok_and(reply::is_yield);
        let metrics =
            metrics::embedded(call, &tallied, is_yield, result.is_err(), began.elapsed(), clock::wall_seconds());
        if let Err(error) = output::result_json(&metrics) {
            tracing::warn!("metrics were not written: {error}");
        }
    }
    result.map_err(|error| Diagnostic {
        error_type: error.kind().name().to_owned(),
        error_message: redact::redact(&error.to_string()).into_owned(),
    })
}

fn span(call: &Call, request: &str) -> tracing::Span {
    use tracing::field::{Empty, display};
    let (job, step) = (call.job.as_str(), call.step.name());
    let span = tracing::error_span!("invocation", job, step, shard = Empty, lane = Empty, namespace = Empty, request);
    if let Some((shard, lane)) = &call.lane {
        span.record("shard", shard).record("lane", lane);
    }
    if let Some(namespace) = &call.namespace {
        span.record("namespace", display(namespace));
    }
    span
}

/// How long it is until a moment, in milliseconds since 1970. Lambda gives no other measure of it.
fn left_until(deadline: u64) -> Duration {
    Duration::from_millis(deadline.saturating_sub(clock::wall_milliseconds()))
}

/// What came of an invocation, and what it has moved.
async fn answer(
    sandbox: &Sandbox,
    event: Result<Event>,
    request: &str,
    time: Duration,
    memory: u64,
) -> (Tallied, Result<Value>) {
    let nothing_moved = Tallied::default();
    match event {
        Err(error) => (nothing_moved, Err(error)),
        Ok(Event::Execution(execution)) => {
            let recorded = record(sandbox, &execution, request).await;
            (nothing_moved, recorded.map(|()| reply::recorded()))
        }
        Ok(Event::Step(call)) => match open(sandbox, &call, time, memory).await {
            Err(error) => (nothing_moved, Err(error)),
            Ok(opened) => {
                let result = run(sandbox, &opened, &call).await;
                (opened.context.tally.so_far(), result)
            }
        },
    }
}

/// What a step works with.
struct Opened {
    configuration: Configuration,
    context: Context,
    /// For how long.
    budget: Duration,
}

/// What the step works with: its settings as the state store has them, and for how long.
async fn open(sandbox: &Sandbox, call: &Call, time: Duration, memory: u64) -> Result<Opened> {
    let configuration = sandbox.configuration(call, memory).await?;
    let settings = sandbox.settings(&configuration).await?;
    for notice in &settings.notices {
        tracing::warn!("{notice}");
    }
    if settings.memory > memory {
        return Err(Error::bad_input(format!(
            "memory is set to {}, and the function has {}; lower it, leave it out, or enlarge the function",
            size::show(settings.memory),
            size::show(memory)
        )));
    }
    let budget = time.checked_sub(settings.margin).filter(|budget| *budget >= SHORTEST_WORK).ok_or_else(|| {
        Error::bad_input(format!(
            "the function has {} s for an invocation, and the margin is {} s; raise the function's time-out, or lower margin",
            time.as_secs(),
            settings.margin.as_secs()
        ))
    })?;
    if settings.lease >= budget {
        return Err(Error::bad_input(format!(
            "the lease is {} s, and the function has {} s for an invocation without its margin: who waits for the lease of one that was killed would never see its end; raise the function's time-out, or lower lease",
            settings.lease.as_secs_f64(),
            budget.as_secs()
        )));
    }
    let context = Context::on(sandbox.store().await?, settings, Stop::default());
    Ok(Opened { configuration, context, budget })
}

async fn run(sandbox: &Sandbox, opened: &Opened, call: &Call) -> Result<Value> {
    let Opened { configuration, context, budget } = opened;
    let asked_to_stop = async {
        tokio::time::sleep(*budget).await;
        context.stop.request(Reason::TimeBudget);
        std::future::pending::<Infallible>().await
    };
    let step = async |context: &Context| driver::run_step(context, call.step, Named::ByMachine).await;
    let outcome = tokio::select! {
        outcome = rotation::with_fresh_secrets(&sandbox.secrets, configuration, context, step) => outcome?,
        never = asked_to_stop => match never {},
    };
    let parts = match (&outcome, call.step) {
        (driver::Outcome::Done { .. }, Step::Plan) => Some(Parts {
            counts: items::counts(&context.documents).await?,
            lanes_at_once: context.settings.max_lanes,
            items: items::folder(&context.settings.state, &context.settings.job),
        }),
        _ => None,
    };
    Ok(reply::of(&outcome, parts))
}

/// Says of a failure what can be said in the log, and writes it down where `status` looks.
async fn report(sandbox: &Sandbox, call: Option<&Call>, request: &str, error: &Error) {
    let kind = error.kind().name();
    if matches!(error.kind(), Kind::Busy | Kind::Fenced) {
        // Another worker is at it: that is no failure of the job.
        tracing::warn!(kind, "{error}");
        return;
    }
    tracing::error!(kind, "{error}");
    let Some(call) = call else { return };
    let part = match (&call.lane, &call.namespace) {
        (Some((shard, lane)), _) => Some(format!("{shard}/{lane}")),
        (None, namespace) => namespace.as_ref().map(ToString::to_string),
    };
    let failure = Failure {
        at: clock::wall(),
        step: Some(call.step),
        part,
        error: kind.to_owned(),
        message: redact::redact(&error.to_string()).into_owned(),
        request: request.to_owned(),
    };
    write_down(sandbox, call.job.as_str(), failure).await;
}

/// An execution ended badly: perhaps before the function could say why.
async fn record(sandbox: &Sandbox, execution: &Execution, request: &str) -> Result<()> {
    let Execution { job, name, status, why } = execution;
    tracing::error!(job = job.as_str(), "execution {name} of the state machine is {status}: {why}");
    let why = if why.is_empty() { String::new() } else { format!(": {why}") };
    let failure = Failure {
        at: clock::wall(),
        step: None,
        part: None,
        error: status.clone(),
        message: redact::redact(&format!("execution {name} of the state machine is {status}{why}")).into_owned(),
        request: request.to_owned(),
    };
    let documents = Documents::new(sandbox.store().await?, job.as_str());
    failure::write(&documents, failure).await
}

/// Best effort: the error itself is what the caller hears of.
async fn write_down(sandbox: &Sandbox, job: &str, failure: Failure) {
    let written = async { failure::write(&Documents::new(sandbox.store().await?, job), failure).await };
    if let Err(unsaved) = written.await {
        tracing::warn!("the failure was not written into the state: {unsaved}");
    }
}

/// The settings of a job, as `mongoferry start` has put them into the state store.
fn no_settings(documents: &Documents, key: &str) -> Error {
    Error::bad_input(format!("{} is missing; put it there with `mongoferry start`", documents.name(key)))
}

/// What is stored of a job, for this call.
fn configuration(
    text: &str,
    place: &str,
    call: &Call,
    environment: &Environment,
    memory: u64,
) -> Result<Configuration> {
    let mut said = RawArguments::default();
    said.set("job", [&call.job.to_string()]);
    if let Some((shard, lane)) = &call.lane {
        said.set("shard", [shard]);
        said.set("lane", [&lane.to_string()]);
    }
    if let Some(namespace) = &call.namespace {
        said.set("namespace", [&namespace.to_string()]);
    }
    Configuration::stored(text, place, said, environment, memory)
}
