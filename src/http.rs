//! What `--http` serves while a step runs: a page to look at, and the same for machines. It reads nothing by itself: all
//! requests are answered from the latest look at the job ([`crate::progress`]), however many clients ask.
//!
//! It is there for a run and ends with it. No client, however slow, holds it up: each connection is a task that is
//! dropped with the server, and has limits of its own.

pub mod address;
pub mod health;
pub mod metrics;
mod page;

use crate::clock;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::output;
use crate::progress::{Look, Looks};
use crate::stop::{Reason, Stop};
use crate::tasks;
use bytes::Bytes;
use health::Signs;
use http_body_util::Full;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};

/// How many clients are served at once; the next one waits.
const CONNECTIONS: usize = 64;

/// How long a client may take for the head of a request.
const HEAD_TIME: Duration = Duration::from_secs(5);

/// After how long a connection is closed once its answer is sent...
const CONNECTION_TIME: Duration = Duration::from_secs(60);

/// ...and after how long it is dropped where it is.
const CLOSING_TIME: Duration = Duration::from_secs(10);

/// How large the head of a request may be. None of the requests has a body that would be read.
const HEAD_SIZE: usize = 16 * 1024;

/// How long to wait after a connection could not be accepted: the process has too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// An address that is listened on, and not served yet.
#[derive(Debug)]
pub struct Listening {
    listener: TcpListener,
    address: SocketAddr,
}

/// Listens on an address, and logs which one it is.
///
/// # Errors
/// Bad input when it cannot be had.
pub async fn listen(address: SocketAddr) -> Result<Listening> {
    let refused = |error: std::io::Error| {
        let why = match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                "is in use; choose another port, or port 0 for any that is free".to_owned()
            }
            std::io::ErrorKind::AddrNotAvailable => "is no address of this machine; try 127.0.0.1".to_owned(),
            _ => format!("cannot be listened on: {error}; choose another address"),
        };
        Error::bad_input(format!("--http {address} {why}"))
    };
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    tracing::info!("progress is served on http://{address}/");
    if !address.ip().is_loopback() {
        tracing::warn!(
            "whoever reaches {address} can read the progress, names of collections included: there is no password"
        );
    }
    Ok(Listening { listener, address })
}

/// A server that ends when this is dropped.
#[derive(Debug)]
pub struct Served {
    task: AbortHandle,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Serves from now on.
pub fn serve(listening: Listening, context: &Context, looks: Looks) -> Served {
    let site = Arc::new(Site {
        looks,
        stop: context.stop.clone(),
        run: context.holder.run.clone(),
        lease: context.settings.lease,
        began: clock::monotonic(),
        is_local: listening.address.ip().is_loopback(),
        progress: Mutex::default(),
    });
    Served { task: tasks::spawn(accept(listening.listener, site)).abort_handle() }
}

async fn accept(listener: TcpListener, site: Arc<Site>) {
    let free = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(permit) = Arc::clone(&free).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let site = Arc::clone(&site);
                connections.spawn(async move {
                    connection(stream, site).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::debug!("a client could not be accepted: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves one client for a while. What goes wrong with it is its own affair.
async fn connection(stream: TcpStream, site: Arc<Site>) {
    let answer = service_fn(move |request| {
        let site = Arc::clone(&site);
        async move { Ok::<_, Infallible>(site.answer(&request)) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).max_buf_size(HEAD_SIZE);
    let connection = builder.serve_connection(TokioIo::new(stream), answer);
    tokio::pin!(connection);
    if tokio::time::timeout(CONNECTION_TIME, connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        let _ = tokio::time::timeout(CLOSING_TIME, connection).await;
    }
}

/// What is served, and from what.
struct Site {
    looks: Looks,
    stop: Stop,
    run: String,
    lease: Duration,
    began: clock::Moment,
    is_local: bool,
    /// The answer to `/progress` of the latest look that was asked for, and when that was taken.
    progress: Mutex<Option<(clock::Moment, Bytes)>>,
}

/// A body, and what it is.
type Content = (StatusCode, &'static str, Bytes);

const TEXT: &str = "text/plain; charset=utf-8";

impl Site {
    fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        let (status, kind, body) = self.content(request);
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        for (name, value) in [
            (header::CACHE_CONTROL, "no-store"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "no-referrer"),
            (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
            (header::CONTENT_TYPE, kind),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        headers.insert(header::CONTENT_SECURITY_POLICY, page::POLICY.clone());
        if status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        // hyper sends no body in answer to HEAD, and the length that it would have had.
        response
    }

    fn content<B>(&self, request: &Request<B>) -> Content {
        let refused = |status, text: &'static str| (status, TEXT, Bytes::from_static(text.as_bytes()));
        if self.is_local && !is_local_name(request) {
            return refused(StatusCode::FORBIDDEN, "only for this machine: ask for localhost or 127.0.0.1\n");
        }
        let known = ["/", "/progress", "/metrics", "/healthz"];
        let path = request.uri().path();
        if !known.contains(&path) {
            return refused(StatusCode::NOT_FOUND, "not here; there are /, /progress, /metrics and /healthz\n");
        }
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return refused(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        }
        let look = self.looks.borrow().clone();
        match path {
            "/" => (StatusCode::OK, "text/html; charset=utf-8", Bytes::from_static(page::PAGE.as_bytes())),
            "/healthz" => self.health(look.as_deref()),
            "/metrics" => {
                let metrics = metrics::text(look.as_deref(), self.began.elapsed());
                (StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", metrics.into())
            }
            _ => self.progress(look.as_deref()),
        }
    }

    fn health(&self, look: Option<&Look>) -> Content {
        let saved =
            look.and_then(|look| clock::wall_between(look.status.as_ref()?.saved_by.get(&self.run)?, &look.wall));
        let signs = Signs {
            stopping: self.stop.reason().map(Reason::text),
            looked: look.map(|look| look.at.elapsed()),
            running: self.began.elapsed(),
            saved,
            lease: self.lease,
        };
        match signs.complaint() {
            None => (StatusCode::OK, TEXT, Bytes::from_static(b"ok\n")),
            Some(complaint) => (StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{complaint}\n").into()),
        }
    }

    fn progress(&self, look: Option<&Look>) -> Content {
        const JSON: &str = "application/json";
        let Some((look, status)) = look.and_then(|look| Some((look, look.status.as_ref()?))) else {
            let nothing = b"{\"error\":\"nothing is known about the job yet\"}\n";
            return (StatusCode::SERVICE_UNAVAILABLE, JSON, Bytes::from_static(nothing));
        };
        let mut kept = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let body = match kept.as_ref() {
            Some((at, body)) if *at == look.at => body.clone(),
            _ => {
                let mut value = serde_json::to_value(status).unwrap_or_default();
                if let Value::Object(fields) = &mut value {
                    fields.insert("live".to_owned(), self.live(look));
                }
                let body = Bytes::from(format!("{}\n", output::redacted(&value)));
                *kept = Some((look.at, body.clone()));
                body
            }
        };
        (StatusCode::OK, JSON, body)
    }

    fn live(&self, look: &Look) -> Value {
        json!({
            "run": self.run,
            "running_seconds": self.began.elapsed().as_secs(),
            "looked": look.wall,
            "rate": look.rate,
            "eta_seconds": look.eta.map(|eta| eta.as_secs()),
        })
    }
}

/// Whether a client asks for this machine by an address, or by the one name that is surely its own. A page of another
/// site could make a browser ask under that site's name (DNS rebinding), and would read the answer.
fn is_local_name<B>(request: &Request<B>) -> bool {
    let Some(host) = request.headers().get(header::HOST) else { return true };
    let Ok(host) = host.to_str() else { return false };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}
