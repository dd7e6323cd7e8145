//! The Invoke API, as botocore uses it: `POST /2015-03-31/functions/{name}/invocations`.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::HeaderValue;
use hyper::{Method, Request, Response};
use serde_json::json;

use super::{Deployed, Outcome};
use crate::support::http_server::{Answer, HttpServer, answer};
use crate::support::servers::Failure;

/// Serves it. What does not go as Lambda's would, a sandbox that cannot be started for example, closes the connection.
pub async fn start(deployed: Arc<Deployed>) -> Result<HttpServer, Failure> {
    HttpServer::start(move |request| respond(Arc::clone(&deployed), request)).await
}

async fn respond(deployed: Arc<Deployed>, request: Request<Bytes>) -> Answer {
    let path = request.uri().path();
    if request.method() != Method::POST || !path.starts_with("/2015-03-31/functions/") {
        return Some(answer(404, "{}"));
    }
    let Ok(event) = serde_json::from_slice(request.body()) else {
        return Some(refused(400, "InvalidRequestContentException", "Could not parse request body into json"));
    };
    match deployed.invoke(event).await.ok()? {
        Outcome::Returned(result) => Some(identified(answer(200, result.to_string()))),
        Outcome::Failed(error) => {
            let mut response = identified(answer(200, error.to_string()));
            response.headers_mut().insert("x-amz-function-error", HeaderValue::from_static("Unhandled"));
            Some(response)
        }
        Outcome::Throttled => Some(refused(429, "TooManyRequestsException", "Rate Exceeded.")),
    }
}

fn refused(status: u16, kind: &'static str, message: &str) -> Response<Full<Bytes>> {
    let body = json!({"Reason": "ConcurrentInvocationLimitExceeded", "Type": "User", "message": message});
    let mut response = identified(answer(status, body.to_string()));
    response.headers_mut().insert("x-amzn-errortype", HeaderValue::from_static(kind));
    response
}

/// With what botocore wants in every answer.
fn identified(mut response: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    let id = uuid::Uuid::new_v4().to_string();
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert("x-amzn-requestid", id);
    }
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
    response
}
