//! A proxy before the shared MinIO that does to single requests what S3 may do to them.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;

use super::http_client::send;
use super::http_server::{Answer, HttpServer, answer};
use super::servers::{Failure, Minio};

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum S3Fault {
    /// It is not carried out, and answered 503 `SlowDown`.
    SlowDown,
    /// It is not carried out, and answered 500 `InternalError`.
    InternalError,
    /// It is not carried out, and answered 409 `ConditionalRequestConflict`, as a write beside another one may be.
    Conflict,
    /// It is carried out, and the connection closed before the answer.
    LoseAnswer,
    /// It is carried out twice, as by a client that tries again, and answered as the second was: a conditional write
    /// with 412.
    Twice,
}

/// Looks at a request, by its method and path, and says what happens to it.
type Plan = Box<dyn FnMut(&str, &str) -> Option<S3Fault> + Send>;

/// The proxy.
pub struct S3Proxy {
    server: HttpServer,
    done: Arc<Mutex<Vec<S3Fault>>>,
}

impl S3Proxy {
    /// Starts it.
    pub async fn start(
        minio: &Minio,
        plan: impl FnMut(&str, &str) -> Option<S3Fault> + Send + 'static,
    ) -> Result<Self, Failure> {
        let behind = minio.endpoint().trim_start_matches("http://").to_owned();
        let plan: Arc<Mutex<Plan>> = Arc::new(Mutex::new(Box::new(plan)));
        let done = Arc::new(Mutex::new(Vec::new()));
        let known = Arc::clone(&done);
        let server = HttpServer::start(move |request| {
            let (behind, plan, done) = (behind.clone(), Arc::clone(&plan), Arc::clone(&known));
            async move {
                let fault = {
                    let mut plan = plan.lock().unwrap_or_else(PoisonError::into_inner);
                    plan(request.method().as_str(), request.uri().path())
                };
                done.lock().unwrap_or_else(PoisonError::into_inner).extend(fault);
                respond(&behind, request, fault).await
            }
        })
        .await?;
        Ok(Self { server, done })
    }

    /// Where it listens, as `--s3-endpoint` wants it.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.server.address)
    }

    /// What was done to requests so far.
    pub fn done(&self) -> Vec<S3Fault> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The request goes on as it is, since its host is part of what is signed.
async fn respond(behind: &str, request: Request<Bytes>, fault: Option<S3Fault>) -> Answer {
    let failed = |status, code: &str| Some(answer(status, format!("<Error><Code>{code}</Code></Error>")));
    match fault {
        Some(S3Fault::SlowDown) => return failed(503, "SlowDown"),
        Some(S3Fault::InternalError) => return failed(500, "InternalError"),
        Some(S3Fault::Conflict) => return failed(409, "ConditionalRequestConflict"),
        Some(S3Fault::LoseAnswer) => {
            send(behind, request).await.ok()?;
            return None;
        }
        Some(S3Fault::Twice) => {
            send(behind, request.clone()).await.ok()?;
        }
        None => {}
    }
    Some(send(behind, request).await.ok()?.map(Full::new))
}
