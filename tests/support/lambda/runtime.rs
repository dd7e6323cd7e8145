//! The Runtime API of one sandbox: from here it takes its invocations, and says here how they ended.
//!
//! <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html>

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use hyper::header::HeaderValue;
use hyper::{Method, Request};
use tokio::sync::Mutex;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use super::{ACCOUNT, REGION};
use crate::support::http_server::{Answer, HttpServer, answer};
use crate::support::servers::Failure;

/// What a sandbox is given.
#[derive(Debug)]
pub struct Invocation {
    /// The request's id.
    pub id: String,
    /// The event, as JSON.
    pub event: String,
    /// When its time is over, in milliseconds since 1970.
    pub deadline: u128,
}

/// What a sandbox says.
#[derive(Debug)]
pub enum Said {
    /// It waits for an invocation.
    Waits,
    /// The result of this request.
    Returned(String, Bytes),
    /// The error that this request ended with; without a request, the one that it could not be started for.
    Failed(Option<String>, Bytes),
}

/// The server, and both ways of its talk.
#[derive(Debug)]
pub struct Runtime {
    server: HttpServer,
    next: UnboundedSender<Invocation>,
    said: UnboundedReceiver<Said>,
}

/// What the handler of requests has of it.
#[derive(Clone)]
struct Ends {
    next: Arc<Mutex<UnboundedReceiver<Invocation>>>,
    says: UnboundedSender<Said>,
}

impl Runtime {
    /// Serves it on a port of its own.
    pub async fn start() -> Result<Self, Failure> {
        let (next, to_hand_out) = mpsc::unbounded_channel();
        let (says, said) = mpsc::unbounded_channel();
        let ends = Ends { next: Arc::new(Mutex::new(to_hand_out)), says };
        let server = HttpServer::start(move |request| respond(ends.clone(), request)).await?;
        Ok(Self { server, next, said })
    }

    /// Where the sandbox finds it.
    pub fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// Gives the sandbox an invocation, once it asks.
    pub fn hand_out(&self, invocation: Invocation) -> Result<(), Failure> {
        Ok(self.next.send(invocation)?)
    }

    /// What it says next.
    pub async fn hear(&mut self) -> Result<Said, Failure> {
        self.said.recv().await.ok_or_else(|| "the Runtime API has ended".into())
    }
}

async fn respond(ends: Ends, request: Request<Bytes>) -> Answer {
    let path = request.uri().path().strip_prefix("/2018-06-01/runtime/").unwrap_or_default();
    let parts: Vec<&str> = path.split('/').collect();
    let body = request.body().clone();
    let said = match (request.method(), parts.as_slice()) {
        (&Method::GET, ["invocation", "next"]) => return next(&ends).await,
        (&Method::POST, ["invocation", id, "response"]) => Said::Returned((*id).to_owned(), body),
        (&Method::POST, ["invocation", id, "error"]) => Said::Failed(Some((*id).to_owned()), body),
        (&Method::POST, ["init", "error"]) => Said::Failed(None, body),
        _ => return Some(answer(404, "")),
    };
    ends.says.send(said).ok()?;
    Some(answer(202, r#"{"status":"OK"}"#))
}

async fn next(ends: &Ends) -> Answer {
    ends.says.send(Said::Waits).ok()?;
    let invocation = ends.next.lock().await.recv().await?;
    let mut response = answer(200, invocation.event);
    let arn = format!("arn:aws:lambda:{REGION}:{ACCOUNT}:function:mongoferry:live");
    let headers = [
        ("lambda-runtime-aws-request-id", invocation.id),
        ("lambda-runtime-deadline-ms", invocation.deadline.to_string()),
        ("lambda-runtime-invoked-function-arn", arn),
        (
            "lambda-runtime-trace-id",
            "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Parent=9a9197af755a6419;Sampled=0".into(),
        ),
        ("content-type", "application/json".into()),
    ];
    for (name, value) in headers {
        response.headers_mut().insert(name, HeaderValue::from_str(&value).ok()?);
    }
    Some(response)
}
