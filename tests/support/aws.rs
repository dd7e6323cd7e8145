//! Clients of moto, and what a process needs in its environment to use it.

use super::servers::Moto;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;

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
