//! Clients of moto, and what a process needs in its environment to use it.

use super::servers::{Failure, Moto};
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

/// Where moto's tests are, unless they say otherwise.
pub const REGION: &str = "us-east-1";

/// For clients of moto, which takes any credentials.
pub async fn configuration(moto: &Moto) -> SdkConfig {
    mongoferry::aws::loader(aws_config::defaults(BehaviorVersion::latest()))
        .endpoint_url(moto.endpoint())
        .region(Region::new(REGION))
        .credentials_provider(Credentials::new("key", "a secret", None, None, "test"))
        .load()
        .await
}

/// What a process needs in its environment for all that is not S3 to be moto.
pub fn environment(moto: &Moto) -> Vec<(&'static str, String)> {
    let services = ["AWS_ENDPOINT_URL_SECRETS_MANAGER", "AWS_ENDPOINT_URL_SSM", "AWS_ENDPOINT_URL_SFN"];
    let mut variables: Vec<(&str, String)> = services.map(|name| (name, moto.endpoint())).into();
    variables.extend([
        ("AWS_ACCESS_KEY_ID", "key".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "a-secret-of-moto".to_owned()),
        ("AWS_REGION", REGION.to_owned()),
        ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
    ]);
    variables
}

/// A server that answers as a service of AWS does, with what a test says; what moto cannot be made to say. Its thread ends
/// with the tests.
pub struct Answering {
    /// Where it listens.
    pub endpoint: String,
    asked: Arc<Mutex<Vec<(String, String)>>>,
}

impl Answering {
    /// `answer` is asked for a status and a body, with the name of the operation.
    pub fn start(answer: impl Fn(&str) -> (u16, String) + Send + 'static) -> Result<Self, Failure> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let asked: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
        let seen = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                // A client that went away is no failure of the test.
                let _ = stream.and_then(|stream| answer_one(stream, &answer, &seen));
            }
        });
        Ok(Self { endpoint, asked })
    }

    /// What it was asked: operations and their bodies.
    pub fn asked(&self) -> Vec<(String, String)> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn answer_one(
    mut stream: TcpStream,
    answer: &impl Fn(&str) -> (u16, String),
    seen: &Mutex<Vec<(String, String)>>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut operation, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? <= 2 {
            break;
        }
        match line.trim_end().split_once(": ").map(|(name, value)| (name.to_ascii_lowercase(), value)) {
            Some((name, value)) if name == "x-amz-target" => {
                operation = value.rsplit('.').next().unwrap_or(value).to_owned()
            }
            Some((name, value)) if name == "content-length" => length = value.parse().unwrap_or(0),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let (status, answered) = answer(&operation);
    seen.lock().unwrap_or_else(PoisonError::into_inner).push((operation, String::from_utf8_lossy(&body).into_owned()));
    write!(
        stream,
        "HTTP/1.1 {status} Answered\r\nContent-Type: application/x-amz-json-1.1\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{answered}",
        answered.len()
    )
}
