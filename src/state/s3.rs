//! The state in S3, or in a server that speaks its language (MinIO).
//!
//! A create is `PUT` with `If-None-Match: *`, a replace is `PUT` with `If-Match: <etag>`. The SDK's retries are off for
//! both: a retry could answer 412 to its own success, and only [`super::document`] can tell. They are on for reads.
//! Every request has a time limit.

use super::store::{Etag, Object, StateStore, StoreError, allowance, check_key, check_prefix, valid_key};
use crate::aws::{chain, credentials_error, limits, one_line};
use async_trait::async_trait;
use aws_config::{BehaviorVersion, ConfigLoader};
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{RequestChecksumCalculation, ResponseChecksumValidation};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder;
use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

/// One attempt at a small object. S3 answers within a fraction of a second; a lease is 15 s by default, and a second
/// attempt should fit into it.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(10);

/// A read with all its attempts. [`super::document`] gives up earlier.
const READ_LIMIT: Duration = Duration::from_secs(30);

/// How often the SDK tries to read.
const READ_ATTEMPTS: u32 = 5;

/// For servers that do not look at the region, and AWS's oldest.
const DEFAULT_REGION: &str = "us-east-1";

/// Where the state lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Settings {
    /// The bucket, which must exist.
    pub bucket: String,
    /// What all keys begin with, without a `/` at its end; may be empty.
    pub prefix: String,
    /// The server, when it is not AWS: an `http://` or `https://` URL. Addressed path-style.
    pub endpoint: Option<String>,
    /// The AWS account that the bucket must belong to; any when none. A name that was given up can be taken by anybody.
    pub owner: Option<String>,
    /// What to call this in messages.
    pub url: String,
}

/// The state in S3.
#[derive(Clone)]
pub struct S3Store {
    client: Client,
    settings: S3Settings,
    write_limit: Duration,
}

impl fmt::Debug for S3Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the client, which knows credentials.
        f.debug_struct("S3Store").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl S3Store {
    /// The state there, with credentials and region as the AWS SDK finds them: environment, profile, role.
    pub async fn open(settings: S3Settings) -> Self {
        Self::open_with(settings, aws_config::defaults(BehaviorVersion::latest())).await
    }

    /// The same with credentials that are in no environment, for tests that bring their own server.
    pub async fn open_with(settings: S3Settings, loader: ConfigLoader) -> Self {
        let region = match settings.endpoint {
            // No question to the metadata service of a cloud in which this is not: it takes seconds to stay silent.
            Some(_) => crate::aws::configured_region(),
            None => crate::aws::region(),
        };
        let mut loader = crate::aws::loader(loader).region(region.or_else(DEFAULT_REGION));
        if let Some(endpoint) = &settings.endpoint {
            loader = loader.endpoint_url(endpoint);
        }
        let shared = loader.load().await;
        let config = aws_sdk_s3::config::Builder::from(&shared)
            .force_path_style(shared.endpoint_url().is_some())
            // Older compatible servers refuse the checksums that the SDK adds by itself. TLS and SigV4 (the body's hash is
            // signed) protect what is on its way.
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .retry_config(RetryConfig::standard().with_max_attempts(READ_ATTEMPTS))
            .timeout_config(limits(ATTEMPT_LIMIT).operation_timeout(READ_LIMIT).build())
            .build();
        Self { client: Client::from_conf(config), settings, write_limit: ATTEMPT_LIMIT }
    }

    fn full(&self, key: &str) -> String {
        if self.settings.prefix.is_empty() { key.to_owned() } else { format!("{}/{key}", self.settings.prefix) }
    }

    fn put(&self, key: &str, body: Bytes) -> PutObjectFluentBuilder {
        self.client
            .put_object()
            .bucket(&self.settings.bucket)
            .set_expected_bucket_owner(self.settings.owner.clone())
            .key(self.full(key))
            .content_type(if key.ends_with(".json") { "application/json" } else { "application/octet-stream" })
            .body(ByteStream::from(body))
    }

    /// Sends a write, once.
    async fn send(&self, request: Request, put: PutObjectFluentBuilder, size: usize) -> Result<Etag, StoreError> {
        let limit = self.write_limit + allowance(size);
        let once = aws_sdk_s3::Config::builder()
            .retry_config(RetryConfig::disabled())
            .timeout_config(limits(limit).operation_timeout(limit).build());
        match put.customize().config_override(once).send().await {
            Ok(answer) => answer.e_tag.map(Etag).ok_or_else(|| {
                StoreError::Ambiguous(format!("{} answered a write without an ETag", self.settings.url))
            }),
            Err(error) => Err(self.failed(request, &error)),
        }
    }

    fn failed<E>(&self, request: Request, error: &SdkError<E>) -> StoreError
    where
        E: ProvideErrorMetadata + StdError + 'static,
    {
        let S3Settings { bucket, url, .. } = &self.settings;
        let place = match &self.settings.endpoint {
            Some(endpoint) => format!("{url} at {endpoint}"),
            None => url.clone(),
        };
        let Some(status) = error.raw_response().map(|response| response.status().as_u16()) else {
            return match credentials_error(error) {
                Some(problem) => no_credentials(bucket, problem),
                None if matches!(error, SdkError::ConstructionFailure(_)) => {
                    StoreError::Refused(format!("{place}: {}", chain(error)))
                }
                None if matches!(error, SdkError::TimeoutError(_)) => {
                    StoreError::Ambiguous(format!("{place}: no answer in time"))
                }
                None => StoreError::Ambiguous(format!("{place}: {}", chain(error))),
            };
        };
        let service = error.as_service_error();
        let code = service.and_then(ProvideErrorMetadata::code);
        let said = match (code, service.and_then(ProvideErrorMetadata::message)) {
            (Some(code), Some(message)) => format!("{status} {code}: {}", one_line(message)),
            (Some(code), None) => format!("{status} {code}"),
            (None, _) => format!("status {status}"),
        };
        match classify(request, status, code) {
            Verdict::Conflict => StoreError::Conflict,
            Verdict::Ambiguous => StoreError::Ambiguous(format!("{place}: {said}")),
            Verdict::Refused(why) => StoreError::Refused(match why {
                Why::NoBucket => {
                    format!("bucket `{bucket}` does not exist ({place}); create it, or use another --state")
                }
                Why::Permission => {
                    let needed = match request {
                        Request::Get => {
                            "s3:GetObject, and s3:ListBucket on the bucket (without it, a missing object is a 403 too)"
                        }
                        Request::List => "s3:ListBucket on the bucket",
                        Request::Create | Request::Replace => "s3:PutObject and s3:GetObject",
                    };
                    format!("bucket `{bucket}` denies access ({place}: {said}); allow these credentials {needed}")
                }
                // Without what the server said: it may repeat the key.
                Why::Credentials => format!(
                    "bucket `{bucket}` does not accept the credentials ({place}: {}); give valid ones as the AWS SDK finds \
                     them (environment, profile, role)",
                    code.unwrap_or("no reason given")
                ),
                Why::Clock => {
                    format!("bucket `{bucket}` does not accept the request's time ({place}); set this machine's clock")
                }
                Why::Region => {
                    format!("bucket `{bucket}` is in another region ({place}: {said}); set AWS_REGION to the bucket's")
                }
                Why::NotImplemented => format!(
                    "{place} does not know conditional writes ({said}); use AWS S3, MinIO from \
                     RELEASE.2025-09-07T16-13-09Z on, or a folder"
                ),
                Why::NotS3 => format!("{place} does not answer like S3 ({said}); check the endpoint"),
                Why::Other => format!("bucket `{bucket}` refuses ({place}: {said})"),
            }),
        }
    }
}

#[async_trait]
impl StateStore for S3Store {
    async fn get(&self, key: &str) -> Result<Option<Object>, StoreError> {
        check_key(key)?;
        let request = self.client.get_object().bucket(&self.settings.bucket).key(self.full(key));
        let request = request.set_expected_bucket_owner(self.settings.owner.clone());
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) if error.as_service_error().is_some_and(|error| error.is_no_such_key()) => return Ok(None),
            Err(error) => return Err(self.failed(Request::Get, &error)),
        };
        let Some(etag) = answer.e_tag else {
            return Err(StoreError::Refused(format!(
                "{} answers without an ETag; check the endpoint",
                self.settings.url
            )));
        };
        // The SDK's limits end with the answer's header.
        let size = answer.content_length.and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
        let broken = |problem: &str| StoreError::Ambiguous(format!("{}: {problem}", self.settings.url));
        match tokio::time::timeout(ATTEMPT_LIMIT + allowance(size), answer.body.collect()).await {
            Ok(Ok(body)) => Ok(Some(Object { body: body.into_bytes(), etag: Etag(etag) })),
            Ok(Err(error)) => Err(broken(&chain(&error))),
            Err(_) => Err(broken("the content did not arrive in time")),
        }
    }

    async fn create(&self, key: &str, body: Bytes) -> Result<Etag, StoreError> {
        check_key(key)?;
        let size = body.len();
        self.send(Request::Create, self.put(key, body).if_none_match("*"), size).await
    }

    async fn replace(&self, key: &str, body: Bytes, etag: &Etag) -> Result<Etag, StoreError> {
        check_key(key)?;
        let size = body.len();
        self.send(Request::Replace, self.put(key, body).if_match(&etag.0), size).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        check_prefix(prefix)?;
        let root = self.full("");
        let request = self.client.list_objects_v2().bucket(&self.settings.bucket).prefix(self.full(prefix));
        let request = request.set_expected_bucket_owner(self.settings.owner.clone());
        let mut pages = request.into_paginator().send();
        let mut keys = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| self.failed(Request::List, &error))?;
            for object in page.contents.unwrap_or_default() {
                let key = object.key.unwrap_or_default();
                if let Some(key) = key.strip_prefix(&root).filter(|key| valid_key(key)) {
                    keys.push(key.to_owned());
                }
            }
        }
        // S3 sorts by bytes; a directory bucket and some compatible servers do not.
        keys.sort_unstable();
        Ok(keys)
    }

    fn url(&self) -> &str {
        &self.settings.url
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Request {
    Get,
    List,
    Create,
    Replace,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Conflict,
    Ambiguous,
    Refused(Why),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    NoBucket,
    Permission,
    Credentials,
    Clock,
    Region,
    NotImplemented,
    NotS3,
    Other,
}

/// What an answer means. By its code where that is more precise than its status.
fn classify(request: Request, status: u16, code: Option<&str>) -> Verdict {
    let write = matches!(request, Request::Create | Request::Replace);
    match (status, code.unwrap_or_default()) {
        (_, "NoSuchBucket") => Verdict::Refused(Why::NoBucket),
        (412, _) if write => Verdict::Conflict,
        // The object that was to be replaced is not there.
        (404, "NoSuchKey") if request == Request::Replace => Verdict::Conflict,
        (404 | 405, _) => Verdict::Refused(Why::NotS3),
        (
            _,
            "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired",
        ) => Verdict::Refused(Why::Credentials),
        (_, "RequestTimeTooSkewed") => Verdict::Refused(Why::Clock),
        (_, "AuthorizationHeaderMalformed" | "PermanentRedirect" | "IllegalLocationConstraintException")
        | (301 | 307, _) => Verdict::Refused(Why::Region),
        (501, _) | (_, "NotImplemented") => Verdict::Refused(Why::NotImplemented),
        // Others write the same key just now (409), it is too much (429, SlowDown), or it was cut off on the way (400).
        (408 | 409 | 425 | 429 | 500.., _) => Verdict::Ambiguous,
        (_, "SlowDown" | "RequestTimeout" | "IncompleteBody" | "BadDigest" | "Throttling" | "ThrottlingException") => {
            Verdict::Ambiguous
        }
        (401 | 403, _) => Verdict::Refused(Why::Permission),
        (..=299, _) => Verdict::Ambiguous,
        _ => Verdict::Refused(Why::Other),
    }
}

/// The reason is not repeated: a provider's text may hold what it was given.
fn no_credentials(bucket: &str, problem: &CredentialsError) -> StoreError {
    match problem {
        CredentialsError::CredentialsNotLoaded(_) => StoreError::Refused(format!(
            "no credentials for bucket `{bucket}`; give them as the AWS SDK finds them: AWS_ACCESS_KEY_ID and \
             AWS_SECRET_ACCESS_KEY, a profile (AWS_PROFILE), or a role"
        )),
        CredentialsError::InvalidConfiguration(_) => StoreError::Refused(format!(
            "the credentials for bucket `{bucket}` are not configured rightly; check AWS_PROFILE and the files in ~/.aws"
        )),
        _ => StoreError::Ambiguous(format!("the provider of the credentials for bucket `{bucket}` did not answer")),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may fail")]
    use super::*;
    use aws_credential_types::Credentials;
    use aws_credential_types::provider::{ProvideCredentials, future};
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpListener;
    use std::sync::{Arc, Mutex};

    const SECRET: &str = "hunter2hunter2";

    /// A server that gives every request the same answer, and the requests that it saw.
    struct Server {
        endpoint: String,
        seen: Arc<Mutex<Vec<String>>>,
    }

    impl Server {
        /// `None`: takes the request and never answers.
        fn answering(answer: Option<String>) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let endpoint = format!("http://{}", listener.local_addr().unwrap());
            let seen: Arc<Mutex<Vec<String>>> = Arc::default();
            let requests = Arc::clone(&seen);
            std::thread::spawn(move || {
                let mut silent = Vec::new();
                for stream in listener.incoming() {
                    let mut stream = stream.unwrap();
                    let mut reader = BufReader::new(stream.try_clone().unwrap());
                    let mut head = String::new();
                    while reader.read_line(&mut head).unwrap() > 2 {}
                    let length = head
                        .to_lowercase()
                        .split("content-length: ")
                        .nth(1)
                        .map_or(0, |rest| rest.lines().next().unwrap().trim().parse::<usize>().unwrap());
                    reader.read_exact(&mut vec![0; length]).unwrap();
                    requests.lock().unwrap().push(head);
                    match &answer {
                        Some(answer) => stream.write_all(answer.as_bytes()).unwrap(),
                        None => silent.push(stream),
                    }
                }
            });
            Self { endpoint, seen }
        }

        fn error(status: u16, code: &str) -> Self {
            let body = format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>said so</Message></Error>"
            );
            Self::answering(Some(format!(
                "HTTP/1.1 {status} X\r\nContent-Type: application/xml\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            )))
        }

        fn seen(&self) -> Vec<String> {
            self.seen.lock().unwrap().clone()
        }
    }

    async fn store(endpoint: &str, credentials: impl ProvideCredentials + 'static) -> S3Store {
        let settings = S3Settings {
            bucket: "bucket".to_owned(),
            prefix: "pre/fix".to_owned(),
            owner: None,
            endpoint: Some(endpoint.to_owned()),
            url: "s3://bucket/pre/fix".to_owned(),
        };
        S3Store::open_with(settings, aws_config::defaults(BehaviorVersion::latest()).credentials_provider(credentials))
            .await
    }

    async fn with_credentials(endpoint: &str) -> S3Store {
        store(endpoint, Credentials::new(format!("{SECRET}id"), SECRET, None, None, "test")).await
    }

    /// As on a machine where nothing is configured.
    #[derive(Debug)]
    struct Nobody;

    impl ProvideCredentials for Nobody {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            future::ProvideCredentials::ready(Err(CredentialsError::not_loaded("nobody")))
        }
    }

    fn etag() -> Etag {
        Etag("\"0123\"".to_owned())
    }

    /// The errors of a get, a list, a create and a replace.
    async fn errors(store: &S3Store) -> [StoreError; 4] {
        [
            store.get("k").await.unwrap_err(),
            store.list("").await.unwrap_err(),
            store.create("k", "1".into()).await.unwrap_err(),
            store.replace("k", "1".into(), &etag()).await.unwrap_err(),
        ]
    }

    #[tokio::test]
    async fn writes_are_conditional_and_sent_once_and_reads_are_tried_again() {
        let server = Server::error(503, "SlowDown");
        let store = with_credentials(&server.endpoint).await;
        let Err(StoreError::Ambiguous(text)) = store.create("k.json", "1".into()).await else { panic!() };
        assert!(text.contains("503 SlowDown") && text.contains(&server.endpoint), "{text}");
        let Err(StoreError::Ambiguous(_)) = store.replace("k", "1".into(), &etag()).await else { panic!() };
        let seen = server.seen();
        assert_eq!(seen.len(), 2, "a write was sent again: {seen:#?}");
        assert!(
            seen[0].starts_with("PUT /bucket/pre/fix/k.json?") || seen[0].starts_with("PUT /bucket/pre/fix/k.json ")
        );
        assert!(seen[0].contains("if-none-match: *"), "{}", seen[0]);
        assert!(seen[1].contains("if-match: \"0123\""), "{}", seen[1]);
        assert!(!seen.concat().contains("x-amz-checksum") && !seen.concat().contains("x-amz-trailer"), "{seen:#?}");
        let Err(StoreError::Ambiguous(_)) = store.get("k").await else { panic!() };
        assert_eq!(server.seen().len(), 2 + READ_ATTEMPTS as usize);
    }

    #[tokio::test]
    async fn what_is_refused_names_the_bucket_and_no_secret() {
        for (status, code, says) in [
            (404, "NoSuchBucket", "does not exist"),
            (403, "AccessDenied", "allow these credentials"),
            (403, "InvalidAccessKeyId", "give valid ones"),
            (403, "SignatureDoesNotMatch", "give valid ones"),
            (400, "ExpiredToken", "give valid ones"),
            (403, "RequestTimeTooSkewed", "clock"),
            (301, "PermanentRedirect", "AWS_REGION"),
            (501, "NotImplemented", "does not know conditional writes"),
            (404, "NotFound", "check the endpoint"),
            (405, "MethodNotAllowed", "check the endpoint"),
            (400, "InvalidRequest", "refuses"),
        ] {
            let server = Server::error(status, code);
            for error in errors(&with_credentials(&server.endpoint).await).await {
                let StoreError::Refused(text) = &error else { panic!("{code}: {error:?}") };
                assert!(text.contains(says) && text.contains("bucket"), "{code}: {text}");
                assert!(!text.contains(SECRET) && !text.contains('\n'), "{text}");
            }
        }
    }

    #[tokio::test]
    async fn a_403_says_which_right_is_missing() {
        let server = Server::error(403, "AccessDenied");
        let [get, list, create, replace] = errors(&with_credentials(&server.endpoint).await).await;
        assert!(get.to_string().contains("s3:ListBucket") && list.to_string().contains("s3:ListBucket"));
        assert!(create.to_string().contains("s3:PutObject") && replace.to_string().contains("s3:PutObject"));
    }

    #[tokio::test]
    async fn lost_races_and_missing_objects() {
        let store = with_credentials(&Server::error(412, "PreconditionFailed").endpoint).await;
        assert_eq!(store.create("k", "1".into()).await, Err(StoreError::Conflict));
        assert_eq!(store.replace("k", "1".into(), &etag()).await, Err(StoreError::Conflict));
        let store = with_credentials(&Server::error(404, "NoSuchKey").endpoint).await;
        assert_eq!(store.get("k").await, Ok(None));
        assert_eq!(store.replace("k", "1".into(), &etag()).await, Err(StoreError::Conflict));
        let store = with_credentials(&Server::error(409, "ConditionalRequestConflict").endpoint).await;
        assert!(matches!(store.create("k", "1".into()).await, Err(StoreError::Ambiguous(_))));
    }

    #[test]
    fn every_answer_to_a_write_is_sorted() {
        use Verdict::{Ambiguous, Conflict, Refused};
        for (status, code, verdict) in [
            (412, None, Conflict),
            (409, Some("OperationAborted"), Ambiguous),
            (429, None, Ambiguous),
            (500, Some("InternalError"), Ambiguous),
            (503, None, Ambiguous),
            (400, Some("RequestTimeout"), Ambiguous),
            (200, None, Ambiguous),
            (403, None, Refused(Why::Permission)),
            (404, None, Refused(Why::NotS3)),
            (400, None, Refused(Why::Other)),
        ] {
            assert_eq!(classify(Request::Replace, status, code), verdict, "{status} {code:?}");
        }
        assert_eq!(classify(Request::Create, 404, Some("NoSuchKey")), Refused(Why::NotS3));
    }

    #[tokio::test]
    async fn nobody_there_is_ambiguous_and_soon_known() {
        let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let store = with_credentials(&format!("http://{gone}")).await;
        let Err(StoreError::Ambiguous(text)) = store.create("k", "1".into()).await else { panic!() };
        assert!(text.contains("refused"), "{text}");
    }

    #[tokio::test]
    async fn a_silent_server_does_not_hold_a_write_up() {
        let server = Server::answering(None);
        let mut store = with_credentials(&server.endpoint).await;
        store.write_limit = Duration::from_millis(300);
        let waited = tokio::time::timeout(crate::aws::CONNECT_LIMIT, store.create("k", "1".into())).await;
        let Ok(Err(StoreError::Ambiguous(text))) = waited else { panic!("{waited:?}") };
        assert!(text.contains("no answer in time"), "{text}");
        assert_eq!(server.seen().len(), 1);
    }

    #[tokio::test]
    async fn missing_credentials_are_refused_with_a_way_out() {
        let server = Server::error(500, "InternalError");
        for error in errors(&store(&server.endpoint, Nobody).await).await {
            let StoreError::Refused(text) = &error else { panic!("{error:?}") };
            assert!(text.contains("`bucket`") && text.contains("AWS_PROFILE"), "{text}");
        }
        assert_eq!(server.seen(), Vec::<String>::new());
    }
}
