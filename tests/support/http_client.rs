//! Single HTTP requests of the tests, to servers of the tests.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use super::servers::Failure;

/// Sends a request to an address, `host:port`, over a connection of its own. The request is sent as it is.
pub async fn send(address: &str, request: Request<Bytes>) -> Result<Response<Bytes>, Failure> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let response = sender.send_request(request.map(Full::new)).await?;
    let (head, body) = response.into_parts();
    let body = body.collect().await?.to_bytes();
    connection.abort();
    Ok(Response::from_parts(head, body))
}

/// Calls an action of an AWS service that speaks JSON, at a server that looks at no signature.
///
/// # Errors
/// What the service says when it refuses.
pub async fn call(address: &str, service: &str, target: &str, body: &Value) -> Result<Value, Failure> {
    let scope = format!(
        "AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/{service}/aws4_request, SignedHeaders=host, Signature=x"
    );
    let request = Request::post("/")
        .header("host", address)
        .header("authorization", scope)
        .header("x-amz-target", target)
        .header("content-type", "application/x-amz-json-1.0")
        .body(Bytes::from(body.to_string()))?;
    let response = send(address, request).await?;
    let text = String::from_utf8_lossy(response.body()).into_owned();
    if !response.status().is_success() {
        return Err(format!("{target}: {} {text}", response.status()).into());
    }
    Ok(serde_json::from_str(&text)?)
}
