//! What all clients of AWS's services share: the HTTP client, credentials and region as the AWS SDK finds them, time limits,
//! and how an error becomes one line.

use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::imds::region::ImdsRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::retry::RetryConfig;
use aws_config::timeout::{TimeoutConfig, TimeoutConfigBuilder};
use aws_config::{BehaviorVersion, ConfigLoader, Region, SdkConfig};
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_ssm::config::SharedHttpClient;
use aws_sdk_ssm::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_http_client::tls;
use std::error::Error as StdError;
use std::time::Duration;

/// A server that cannot be reached shows soon.
pub const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// One attempt at a question that is answered from memory.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(10);

/// How often the SDK asks: throttles pass, a missing route does not.
const ATTEMPTS: u32 = 3;

/// A loader with the HTTP client that is used everywhere.
pub fn loader(loader: ConfigLoader) -> ConfigLoader {
    loader.http_client(http_client())
}

fn http_client() -> SharedHttpClient {
    aws_smithy_http_client::Builder::new()
        .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
        .build_https()
}

/// The region of the environment or the profile.
pub fn configured_region() -> RegionProviderChain {
    RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new()).or_else(ProfileFileRegionProvider::new())
}

/// The same, or else the one of the machine in AWS that this runs on. The SDK's own chain has no HTTP client to ask with.
pub fn region() -> RegionProviderChain {
    let machine =
        ImdsRegionProvider::builder().configure(&ProviderConfig::without_region().with_http_client(http_client()));
    configured_region().or_else(machine.build())
}

/// The configuration of a service that answers small questions. `region` is where to ask; the environment's or the profile's
/// when none.
pub async fn configuration(region: Option<&str>) -> SdkConfig {
    let region = match region {
        Some(region) => RegionProviderChain::first_try(Region::new(region.to_owned())),
        None => self::region(),
    };
    loader(aws_config::defaults(BehaviorVersion::latest()))
        .region(region)
        .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
        .timeout_config(limits(ATTEMPT_LIMIT).operation_timeout(ATTEMPT_LIMIT * 2).build())
        .load()
        .await
}

/// The time limits of one attempt.
pub fn limits(attempt: Duration) -> TimeoutConfigBuilder {
    TimeoutConfig::builder()
        .connect_timeout(CONNECT_LIMIT)
        // More than an attempt may take, so that it never decides.
        .read_timeout(attempt * 2)
        .operation_attempt_timeout(attempt)
}

/// Why a request was not answered as it was meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failed {
    /// The credentials are not allowed to. With what the service said.
    Denied(String),
    /// There are no credentials, or none that are valid.
    Credentials(String),
    /// Nobody answered, or the answer was lost.
    Unanswered(String),
    /// It is too much just now, or the service has an error.
    Unavailable(String),
    /// The service refuses, with this code, and says this.
    Refused(String, String),
}

/// What an error of the SDK means. It is the same for all services but S3 (they speak JSON, and S3 does not).
pub fn failed<E>(error: &SdkError<E>) -> Failed
where
    E: ProvideErrorMetadata + StdError + 'static,
{
    let Some(status) = error.raw_response().map(|response| response.status().as_u16()) else {
        return match credentials_error(error) {
            Some(problem) => no_credentials(problem),
            None => Failed::Unanswered(chain(error)),
        };
    };
    let service = error.as_service_error();
    let code = service.and_then(ProvideErrorMetadata::code).unwrap_or_default();
    let message = one_line(service.and_then(ProvideErrorMetadata::message).unwrap_or("no reason given"));
    classify(status, code, message)
}

/// <https://docs.aws.amazon.com/IAM/latest/APIReference/CommonErrors.html>
fn classify(status: u16, code: &str, message: String) -> Failed {
    match code {
        "AccessDeniedException" | "AccessDenied" | "NotAuthorized" => Failed::Denied(message),
        // Without what the service said: it may repeat the key.
        "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "IncompleteSignature"
        | "MissingAuthenticationToken"
        | "ExpiredTokenException"
        | "ExpiredToken"
        | "RequestExpired" => {
            Failed::Credentials(format!("AWS does not accept the credentials ({code}); give valid ones{AS_FOUND}"))
        }
        "ThrottlingException" | "Throttling" | "TooManyRequestsException" | "RequestLimitExceeded" => {
            Failed::Unavailable(format!("{code}: {message}"))
        }
        _ if status == 429 || status >= 500 => Failed::Unavailable(format!("{status} {code}: {message}")),
        _ if (status == 401 || status == 403) && code.is_empty() => Failed::Denied(message),
        _ => Failed::Refused(code.to_owned(), message),
    }
}

const AS_FOUND: &str = " as the AWS SDK finds them: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile (AWS_PROFILE), or \
                        a role";

/// The reason is not repeated: a provider's text may hold what it was given.
fn no_credentials(problem: &CredentialsError) -> Failed {
    match problem {
        CredentialsError::CredentialsNotLoaded(_) => {
            Failed::Credentials(format!("there are no AWS credentials; give them{AS_FOUND}"))
        }
        CredentialsError::InvalidConfiguration(_) => Failed::Credentials(
            "the AWS credentials are not configured rightly; check AWS_PROFILE and the files in ~/.aws".to_owned(),
        ),
        _ => Failed::Unanswered("the provider of the AWS credentials did not answer".to_owned()),
    }
}

/// The error of the credentials' provider, where that is the cause.
pub fn credentials_error<'error>(error: &'error (dyn StdError + 'static)) -> Option<&'error CredentialsError> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// An error with its causes, as one line.
pub fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = one_line(&error.to_string());
        if !texts.iter().any(|earlier| earlier.contains(&text)) {
            texts.push(text);
        }
        next = error.source();
    }
    texts.join(": ")
}

/// A text of somebody else's as one line.
pub fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart() {
        let said = || "said so".to_owned();
        for (status, code, meant) in [
            (400, "AccessDeniedException", Failed::Denied(said())),
            (403, "", Failed::Denied(said())),
            (400, "ThrottlingException", Failed::Unavailable("ThrottlingException: said so".to_owned())),
            (503, "", Failed::Unavailable("503 : said so".to_owned())),
            (500, "InternalServiceError", Failed::Unavailable("500 InternalServiceError: said so".to_owned())),
            (400, "ResourceNotFoundException", Failed::Refused("ResourceNotFoundException".to_owned(), said())),
        ] {
            assert_eq!(classify(status, code, said()), meant, "{status} {code}");
        }
        let refused = classify(400, "UnrecognizedClientException", "the key AKIA-1 is unknown".to_owned());
        assert!(matches!(&refused, Failed::Credentials(text) if !text.contains("AKIA-1")), "{refused:?}");
    }
}
