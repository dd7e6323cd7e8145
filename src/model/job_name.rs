//! The name of a job: a folder's name, a part of an S3 key and of an `appName` at once, and so of few characters.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The longest name, in bytes. It leaves room in a file name (255) and in MongoDB's `appName` (128) for what stands
/// beside it.
pub const LONGEST: usize = 100;

/// A name that is safe as a path and as an S3 key: `[A-Za-z0-9][A-Za-z0-9._-]*`, not ending in a dot (Windows and some
/// object stores drop it).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JobName(String);

impl JobName {
    /// The name, or what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let starts_well = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        let all_safe = text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
        if starts_well && all_safe && !text.ends_with('.') && text.len() <= LONGEST {
            return Ok(Self(text.to_owned()));
        }
        Err(format!(
            "not a job name; use up to {LONGEST} letters, digits, `.`, `_` and `-`, with a letter or digit first and no \
             dot at the end"
        ))
    }

    /// It.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for JobName {
    /// The job of whoever names none.
    fn default() -> Self {
        Self("default".to_owned())
    }
}

impl fmt::Display for JobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for JobName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl From<JobName> for String {
    fn from(name: JobName) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["default", "shop", "a", "7", "shop-2026.11_b", &"x".repeat(100)] {
            assert!(JobName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", ".a", "-a", "_a", "a.", "a/b", "a\\b", "a b", "ä", "a\0", "a\n", &"x".repeat(101)] {
            assert!(JobName::parse(bad).is_err(), "{bad:?}");
        }
    }
}
