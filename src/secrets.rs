//! Fetching what settings refer to: secrets of Secrets Manager, parameters of Parameter Store.
//!
//! Only commands that connect to a server fetch, and only once everything else about the settings is known to be right.
//! What was fetched is kept for as long as [`Secrets`] lives (a run, or a Lambda sandbox), and fetched again when a server
//! refuses it ([`crate::rotation`]). It is registered with [`crate::redact`] before anybody else sees it, and is written
//! nowhere but for certificate authorities, of which the driver wants a file.

use crate::aws::{self, Failed};
use crate::config::reference::{Content, Contents, Purpose, Reference, Service, Wanted};
use crate::config::{Configuration, Settings};
use crate::error::{Error, Result};
use crate::redact;
use aws_config::SdkConfig;
use aws_sdk_secretsmanager::Client as SecretsManager;
use aws_sdk_ssm::Client as ParameterStore;
use futures_util::future::try_join_all;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use tokio::sync::Mutex;

/// What was fetched so far. Not `Debug`: it holds secrets.
#[derive(Default)]
pub struct Secrets {
    contents: Mutex<Contents>,
    /// By the region that an ARN names; without one by the environment's.
    configurations: Mutex<BTreeMap<Option<String>, SdkConfig>>,
    files: CertificateFiles,
}

impl Secrets {
    /// What is meant, with the secrets that it refers to.
    ///
    /// # Errors
    /// As [`Configuration::settings`]; bad input for a secret that is missing, denied, or not what the setting wants; of the
    /// side that the setting is about when nobody answers.
    pub async fn settings(&self, configuration: &Configuration) -> Result<Settings> {
        // What is wrong anyway is told without asking anybody.
        let settings = configuration.settings(&Contents::new())?;
        let wanted = configuration.wanted()?;
        if wanted.is_empty() {
            return Ok(settings);
        }
        let known = self.contents.lock().await.clone();
        let missing = wanted.iter().filter(|wanted| !known.contains_key(&wanted.reference));
        let fetched = try_join_all(missing.map(|wanted| self.fetch(wanted))).await?;
        let mut contents = self.contents.lock().await;
        contents.extend(fetched);
        configuration.settings(&contents)
    }

    /// Fetches again what a configuration refers to. Whether anything of it is another one by now.
    ///
    /// # Errors
    /// As [`Secrets::settings`].
    pub async fn refresh(&self, configuration: &Configuration) -> Result<bool> {
        let wanted = configuration.wanted()?;
        let fetched = try_join_all(wanted.iter().map(|wanted| self.fetch(wanted))).await?;
        let mut contents = self.contents.lock().await;
        let mut has_changed = false;
        for (reference, content) in fetched {
            has_changed |= contents.get(&reference) != Some(&content);
            contents.insert(reference, content);
        }
        Ok(has_changed)
    }

    async fn fetch(&self, wanted: &Wanted) -> Result<(Reference, Content)> {
        let Wanted { reference, place, purpose, unavailable } = wanted;
        let failed = |failed: Failed| refused(reference, failed, *unavailable);
        let shared = self.configuration(reference).await?;
        let whole = match reference.service {
            Service::SecretsManager => {
                let request = SecretsManager::new(&shared).get_secret_value().secret_id(&reference.name);
                let answer = request.send().await.map_err(|error| failed(aws::failed(&error)))?;
                answer.secret_string.ok_or_else(|| {
                    Error::bad_input(format!("{place}: {reference} is binary; store it as text (SecretString)"))
                })?
            }
            Service::ParameterStore => {
                let request = ParameterStore::new(&shared).get_parameter().name(&reference.name).with_decryption(true);
                let answer = request.send().await.map_err(|error| failed(aws::failed(&error)))?;
                answer.parameter.and_then(|parameter| parameter.value).unwrap_or_default()
            }
        };
        register(&whole);
        let text = part(reference, whole).map_err(|why| Error::bad_input(format!("{place}: {reference} {why}")))?;
        register(&text);
        let file = match purpose {
            Purpose::Uri => None,
            Purpose::CertificateAuthorities => Some(self.files.of(&text).map_err(|error| {
                Error::bad_input(format!(
                    "{place}: {reference} cannot be written to a file in {}: {error}; set TMPDIR to a folder that can",
                    std::env::temp_dir().display()
                ))
            })?),
        };
        Ok((reference.clone(), Content { text, file }))
    }

    async fn configuration(&self, reference: &Reference) -> Result<SdkConfig> {
        let region = reference.region();
        let mut configurations = self.configurations.lock().await;
        if let Some(known) = configurations.get(&region.map(str::to_owned)) {
            return Ok(known.clone());
        }
        let shared = aws::configuration(region).await;
        if shared.region().is_none() {
            return Err(Error::bad_input(format!(
                "{reference} cannot be fetched, since no AWS region is set; set AWS_REGION to where it is, or write its ARN"
            )));
        }
        configurations.insert(region.map(str::to_owned), shared.clone());
        Ok(shared)
    }
}

fn register(secret: &str) {
    redact::register(secret);
    redact::register(secret.trim());
    redact::register_uri(secret);
}

/// The secret itself, or a key of the JSON object that it is. The error says what is wrong, without quoting any of it.
fn part(reference: &Reference, whole: String) -> Result<String, String> {
    let Some(key) = &reference.key else { return Ok(whole) };
    let Ok(Value::Object(mut fields)) = serde_json::from_str(&whole) else {
        return Err(format!("is no JSON object, so it has no key `{key}`; leave out #{key}, or correct the secret"));
    };
    match fields.remove(key) {
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(format!("has a `{key}` that is no text; correct the secret")),
        None => {
            let known: Vec<&str> = fields.keys().map(String::as_str).collect();
            Err(format!(
                "has no key `{key}`; it has {}",
                if known.is_empty() { "none".to_owned() } else { known.join(", ") }
            ))
        }
    }
}

fn refused(reference: &Reference, failed: Failed, unavailable: crate::error::Kind) -> Error {
    let service = reference.service;
    let (action, endpoint) = match service {
        Service::SecretsManager => ("secretsmanager:GetSecretValue", "Secrets Manager"),
        Service::ParameterStore => ("ssm:GetParameter", "Systems Manager"),
    };
    let region = reference.region().map_or_else(String::new, |region| format!(" in {region}"));
    match failed {
        Failed::Denied(said) => Error::bad_input(format!(
            "{reference} may not be read by these AWS credentials ({said}); allow them {action} on it, and kms:Decrypt on its key where that is not AWS's own"
        )),
        Failed::Credentials(said) => Error::bad_input(format!("{reference} cannot be fetched: {said}")),
        Failed::Refused(code, _) if matches!(code.as_str(), "ResourceNotFoundException" | "ParameterNotFound") => {
            let there = match reference.region() {
                Some(_) => String::new(),
                None => ", or set AWS_REGION to where it is".to_owned(),
            };
            Error::bad_input(format!(
                "{reference} does not exist in {service}{region}; correct its name{there}, or put it there"
            ))
        }
        Failed::Refused(code, said) if matches!(code.as_str(), "DecryptionFailure" | "InvalidKeyId") => {
            Error::bad_input(format!(
                "{reference} cannot be decrypted with these AWS credentials ({code}: {said}); allow them kms:Decrypt on its key"
            ))
        }
        Failed::Refused(code, said) => Error::bad_input(format!(
            "{reference} is refused by {service} ({code}: {said}); correct the secret or its name"
        )),
        Failed::Unanswered(why) => Error::new(
            unavailable,
            format!(
                "{reference} cannot be fetched: {service}{region} does not answer ({why}); is there a route? A function in a VPC needs a subnet with a NAT, or an endpoint for {endpoint}"
            ),
        ),
        Failed::Unavailable(said) => {
            Error::new(unavailable, format!("{reference} cannot be fetched just now: {service}{region} says {said}"))
        }
    }
}

/// Files for certificate authorities, in a folder that only this user can look into, so that nobody else can put others in
/// their place. Named by their content, since a certificate that was exchanged is another file. Gone when this is dropped;
/// a process that is killed leaves them, and a Lambda sandbox keeps them as long as it lives: they are public.
#[derive(Default)]
struct CertificateFiles(std::sync::OnceLock<PathBuf>);

impl CertificateFiles {
    fn of(&self, text: &str) -> std::io::Result<PathBuf> {
        let folder = match self.0.get() {
            Some(folder) => folder,
            None => {
                let folder = std::env::temp_dir().join(format!("mongoferry-{}", crate::random::random_id()));
                fs::DirBuilder::new().mode(0o700).create(&folder)?;
                self.0.get_or_init(|| folder)
            }
        };
        let mut name = String::with_capacity(68);
        for byte in Sha256::digest(text.as_bytes()) {
            // Writing to a string cannot fail.
            let _ = write!(name, "{byte:02x}");
        }
        let path = folder.join(name + ".pem");
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        file.write_all(text.as_bytes())?;
        Ok(path)
    }
}

impl Drop for CertificateFiles {
    fn drop(&mut self) {
        if let Some(folder) = self.0.get() {
            // What is left then is public, and in a folder for what is temporary.
            let _ = fs::remove_dir_all(folder);
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may fail")]
    use super::*;
    use crate::error::Kind;
    use std::os::unix::fs::PermissionsExt;

    fn reference(text: &str) -> Reference {
        Reference::parse(text).unwrap().unwrap()
    }

    #[test]
    fn a_secret_is_a_text_or_a_key_of_an_object() {
        let part = |name: &str, whole: &str| part(&reference(name), whole.to_owned());
        assert_eq!(part("ssm://x", "whole").unwrap(), "whole");
        assert_eq!(part("ssm://x#uri", r#"{"uri": "mongodb://a", "n": 1}"#).unwrap(), "mongodb://a");
        for (whole, says) in [
            ("mongodb://u:secret-62@h", "is no JSON object"),
            (r#"["secret-62"]"#, "is no JSON object"),
            (r#"{"url": "secret-62", "b": 1}"#, "has no key `uri`; it has url, b"),
            ("{}", "it has none"),
            (r#"{"uri": ["secret-62"]}"#, "is no text"),
        ] {
            let refused = part("ssm://x#uri", whole).unwrap_err();
            assert!(refused.contains(says) && !refused.contains("secret-62"), "{whole}: {refused}");
        }
    }

    #[test]
    fn what_cannot_be_fetched_names_the_way_out() {
        let said = || "said so".to_owned();
        let refusal = |code: &str| Failed::Refused(code.to_owned(), said());
        const ARN: &str = "secretsmanager://arn:aws:secretsmanager:eu-central-1:123456789012:secret:x";
        for (name, failed, kind, says) in [
            ("ssm:///a", Failed::Denied(said()), Kind::BadInput, "allow them ssm:GetParameter"),
            ("secretsmanager://a", Failed::Denied(said()), Kind::BadInput, "secretsmanager:GetSecretValue"),
            ("ssm:///a", Failed::Credentials(said()), Kind::BadInput, "ssm:///a cannot be fetched: said so"),
            ("ssm:///a", refusal("ParameterNotFound"), Kind::BadInput, "AWS_REGION"),
            (ARN, refusal("ResourceNotFoundException"), Kind::BadInput, "in eu-central-1; correct its name, or"),
            ("secretsmanager://a", refusal("DecryptionFailure"), Kind::BadInput, "kms:Decrypt"),
            ("secretsmanager://a", refusal("InvalidRequestException"), Kind::BadInput, "said so"),
            (
                "secretsmanager://a",
                Failed::Unanswered(said()),
                Kind::TargetUnavailable,
                "an endpoint for Secrets Manager",
            ),
            ("ssm://a", Failed::Unavailable(said()), Kind::TargetUnavailable, "just now"),
        ] {
            let error = refused(&reference(name), failed, Kind::TargetUnavailable);
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().contains(says), "{says}: {error}");
        }
    }

    #[test]
    fn certificates_lie_where_only_this_user_looks_and_go_with_the_secrets() {
        let files = CertificateFiles::default();
        let (one, other) = (files.of("one").unwrap(), files.of("other").unwrap());
        assert_eq!(files.of("one").unwrap(), one);
        assert_ne!(one, other);
        assert_eq!(fs::read_to_string(&other).unwrap(), "other");
        let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let folder = one.parent().unwrap().to_owned();
        assert_eq!((mode(&one), mode(&folder)), (0o600, 0o700));
        drop(files);
        assert!(!folder.exists());
    }
}
