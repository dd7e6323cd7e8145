//! A reference to a secret: what stands in a setting instead of a connection string or a file of certificate authorities.
//!
//! Which references there are is known before anything is fetched; what they stand for is fetched by [`crate::secrets`] and
//! given to [`super::Configuration::settings`], which treats it as if it had been given itself. No message quotes more than
//! the reference.

use super::layer::nearest;
use crate::error::Kind;
use crate::redact::is_reference_character;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// Where secrets are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// AWS Secrets Manager.
    SecretsManager,
    /// The Parameter Store of AWS Systems Manager.
    ParameterStore,
}

impl Service {
    const ALL: [Service; 2] = [Service::SecretsManager, Service::ParameterStore];

    fn scheme(self) -> &'static str {
        match self {
            Service::SecretsManager => "secretsmanager",
            Service::ParameterStore => "ssm",
        }
    }

    /// What one of its secrets looks like as an ARN: the service, and what comes before the name.
    fn in_arns(self) -> (&'static str, &'static str) {
        match self {
            Service::SecretsManager => ("secretsmanager", "secret:"),
            Service::ParameterStore => ("ssm", "parameter/"),
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Service::SecretsManager => "Secrets Manager",
            Service::ParameterStore => "Parameter Store",
        })
    }
}

/// `secretsmanager://NAME-or-ARN`, `ssm:///path/name`, `ssm://name`, each with an optional `#key`. Shown as it was given.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    /// Where it is kept.
    pub service: Service,
    /// What it is called there: a name or an ARN.
    pub name: String,
    /// Of the JSON object that it is, this key.
    pub key: Option<String>,
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.service.scheme(), self.name)?;
        self.key.as_ref().map_or(Ok(()), |key| write!(f, "#{key}"))
    }
}

/// The longest name that Secrets Manager has, in an ARN; Parameter Store's are shorter.
const LONGEST_NAME: usize = 2_048;

impl Reference {
    /// None for what is no reference; what is wrong with one that is malformed. Nothing of the text is quoted: somebody may
    /// have put a password there.
    pub fn parse(text: &str) -> Option<Result<Self, String>> {
        let (scheme, rest) = text.split_once("://")?;
        match Service::ALL.into_iter().find(|service| service.scheme() == scheme) {
            Some(service) => Some(Self::of(service, rest)),
            None => {
                let meant = nearest(scheme, Service::ALL.map(Service::scheme)).filter(|meant| meant.len() > 5)?;
                Some(Err(format!("no secrets are kept in such a place; did you mean {meant}://?")))
            }
        }
    }

    fn of(service: Service, rest: &str) -> Result<Self, String> {
        let (name, key) = match rest.split_once('#') {
            Some((name, key)) => (name, Some(key)),
            None => (rest, None),
        };
        let wanted = match service {
            Service::SecretsManager => {
                "write secretsmanager://NAME or secretsmanager://ARN, and #key for a key of a JSON object"
            }
            Service::ParameterStore => "write ssm:///path/name or ssm://name, and #key for a key of a JSON object",
        };
        if name.is_empty() || key == Some("") || name.len() > LONGEST_NAME {
            return Err(format!("names no secret; {wanted}"));
        }
        if name.starts_with("arn:") {
            let (in_arn, before_name) = service.in_arns();
            // arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME
            let parts: Vec<&str> = name.splitn(6, ':').collect();
            let is_whole = matches!(parts[..], [_, _, service, region, account, resource]
                if service == in_arn && !region.is_empty() && !account.is_empty() && resource.len() > before_name.len()
                    && resource.starts_with(before_name));
            if !is_whole || !name.chars().all(|c| c == ':' || is_reference_character(c)) {
                return Err(format!("is not the ARN of a secret in {service}; {wanted}"));
            }
        } else if service == Service::ParameterStore {
            // `name:3` and `name:label` name a version.
            if !name.chars().all(|c| c == ':' || is_reference_character(c)) {
                return Err(format!("names no parameter: a name has letters, digits, `.`, `_`, `-`, `/`; {wanted}"));
            }
            if name.contains('/') && !name.starts_with('/') {
                return Err(format!("a parameter's name with a path begins with a slash; write ssm:///{name}"));
            }
        } else if !name.chars().all(is_reference_character) {
            return Err(format!(
                "names no secret: a name has letters, digits, `/`, `_`, `+`, `=`, `.`, `@`, `-`; {wanted}"
            ));
        }
        Ok(Self { service, name: name.to_owned(), key: key.map(str::to_owned) })
    }

    /// The region that an ARN names; nothing for a name.
    pub fn region(&self) -> Option<&str> {
        self.name.strip_prefix("arn:").and_then(|rest| rest.split(':').nth(2))
    }
}

/// What a reference stands for in a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A connection string.
    Uri,
    /// Certificate authorities, as a PEM file has them.
    CertificateAuthorities,
}

/// The settings that may be references.
pub const SETTINGS_BY_REFERENCE: [(&str, Purpose); 7] = [
    ("source", Purpose::Uri),
    ("source-shard", Purpose::Uri),
    ("source-config", Purpose::Uri),
    ("target", Purpose::Uri),
    ("checkpoint-uri", Purpose::Uri),
    ("source-ca", Purpose::CertificateAuthorities),
    ("target-ca", Purpose::CertificateAuthorities),
];

/// A reference that a setting is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Which.
    pub reference: Reference,
    /// Where it was given, without its value.
    pub place: String,
    /// What for.
    pub purpose: Purpose,
    /// What kind of error it is when it cannot be fetched now: without it that side cannot be reached.
    pub unavailable: Kind,
}

/// What was fetched.
#[derive(Clone, PartialEq, Eq)]
pub struct Content {
    /// The secret.
    pub text: String,
    /// Where it lies for those that want a file: certificate authorities.
    pub file: Option<PathBuf>,
}

/// What is known of the contents by now.
pub type Contents = BTreeMap<Reference, Content>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_ones_are_shown_as_they_were_given() {
        const ARN: &str = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:shop/source-AbCdEf";
        let by_arn = format!("secretsmanager://{ARN}#uri");
        for (text, service, name, key, region) in [
            ("secretsmanager://shop", Service::SecretsManager, "shop", None, None),
            (
                "secretsmanager://shop/a@b+c=d_e.f-1#uri",
                Service::SecretsManager,
                "shop/a@b+c=d_e.f-1",
                Some("uri"),
                None,
            ),
            (&by_arn, Service::SecretsManager, ARN, Some("uri"), Some("eu-central-1")),
            ("ssm://shop-source", Service::ParameterStore, "shop-source", None, None),
            ("ssm:///shop/source:3", Service::ParameterStore, "/shop/source:3", None, None),
            (
                "ssm://arn:aws:ssm:us-west-2:123456789012:parameter/shop/source",
                Service::ParameterStore,
                "arn:aws:ssm:us-west-2:123456789012:parameter/shop/source",
                None,
                Some("us-west-2"),
            ),
        ] {
            let reference = Reference::parse(text).and_then(Result::ok);
            let expected = Reference { service, name: name.to_owned(), key: key.map(str::to_owned) };
            assert_eq!(reference.as_ref(), Some(&expected), "{text}");
            assert_eq!((expected.to_string().as_str(), expected.region()), (text, region));
        }
        for text in ["mongodb://h", "mongodb+srv://h", "/etc/ca.pem", "C://x", "ssm:/x", "none"] {
            assert_eq!(Reference::parse(text), None, "{text}");
        }
    }

    #[test]
    fn bad_ones_are_explained_and_not_quoted() {
        for (text, reason) in [
            ("secretsmanager://", "names no secret"),
            ("secretsmanager://#key", "names no secret"),
            ("secretsmanager://shop#", "names no secret"),
            ("secretsmanager://u:secret61@h", "a name has letters"),
            ("secretsmanager://a b", "a name has letters"),
            ("secretsmanager://arn:aws:ssm:eu-central-1:123456789012:parameter/x", "is not the ARN of a secret"),
            ("secretsmanager://arn:aws:secretsmanager:eu-central-1:123456789012:secret:", "is not the ARN of a secret"),
            ("secretsmanager://arn:aws:secretsmanager::123456789012:secret:x", "is not the ARN of a secret"),
            ("ssm://path/name", "write ssm:///path/name"),
            ("ssm://arn:aws:secretsmanager:eu-central-1:123456789012:secret:x", "is not the ARN of a secret"),
            ("secretmanager://shop", "did you mean secretsmanager://?"),
            ("secretsmanger://shop", "did you mean secretsmanager://?"),
        ] {
            let refused = Reference::parse(text).and_then(Result::err).unwrap_or_default();
            assert!(refused.contains(reason), "{text}: {refused}");
            assert!(!refused.contains("secret61"), "{refused}");
        }
    }
}
