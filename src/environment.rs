//! The only place that reads the environment.

#![expect(clippy::disallowed_methods, reason = "the one home of the environment")]

use crate::error::{Error, Result};
use crate::redact;
use std::collections::BTreeMap;

/// What the variables of mongoferry start with.
pub const PREFIX: &str = "MONGOFERRY_";

/// Variables of others whose values must never be shown. They are read for that alone: the AWS SDK reads its own.
const SECRETS_OF_OTHERS: [&str; 2] = ["AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];

/// The `MONGOFERRY_*` variables. An empty one counts as not set, since many schedulers cannot unset one.
#[derive(Debug, Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// Those of this process. Registers the secrets in it, before anything can be printed.
    pub fn read() -> Result<Self> {
        for name in SECRETS_OF_OTHERS {
            if let Ok(secret) = std::env::var(name) {
                redact::register(&secret);
            }
        }
        let mut pairs = Vec::new();
        for (name, value) in std::env::vars_os() {
            let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else { continue };
            let Some(value) = value.to_str() else {
                return Err(Error::bad_input(format!("{name} is not UTF-8; set it to plain text")));
            };
            redact::register_uri(value);
            pairs.push((name.to_owned(), value.to_owned()));
        }
        Ok(Self::from_pairs(pairs))
    }

    /// Made-up variables, for tests.
    pub fn from_pairs<N: Into<String>, V: Into<String>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        let pairs = pairs.into_iter().map(|(name, value)| (name.into(), value.into()));
        Self(pairs.filter(|(_, value): &(String, String)| !value.is_empty()).collect())
    }

    /// The variable's value, when it is set and not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The names of all that are set.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

/// Whether AWS Lambda has started this process, and not somebody at a command line.
/// <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-custom.html>
pub fn is_function() -> bool {
    std::env::var_os("AWS_LAMBDA_RUNTIME_API").is_some()
}

/// A variable that is not a setting, such as those which tests and tools hand down; `None` when unset or empty.
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
