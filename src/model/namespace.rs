//! What collections are called: a server's rules for names, and the names that are not a user's.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Databases that are never copied and never written as user data: the server's own, MongoShake's checkpoints, and
/// mongoferry's markers.
pub const SPECIAL_DATABASES: [&str; 5] = ["admin", "config", "local", "mongoshake", "mongoferry"];

/// Those of them whose collections are copied when they are included by their full names: a user may have put something
/// there. Not so `config`, where nobody can tell what is the server's own: other versions have other collections there, and
/// what a cluster is lies in them; nor `local`, which is a server's memory of itself.
pub const ON_REQUEST: [&str; 2] = ["admin", "mongoshake"];

/// Collections that start so belong to the server.
pub const SYSTEM_PREFIX: &str = "system.";

/// Where a time series keeps its documents: each is a bucket of measurements, which the time series itself shows one by
/// one (<https://www.mongodb.com/docs/manual/core/timeseries/timeseries-bucketing/>).
const BUCKETS_PREFIX: &str = "system.buckets.";

/// The longest database name, in bytes (the server's limit is "fewer than 64").
const LONGEST_DATABASE: usize = 63;

/// The longest namespace, in bytes, from 4.4 on (docs: "MongoDB Limits and Thresholds").
const LONGEST_NAMESPACE: usize = 255;

/// A collection's full name. Split at the first dot: database names hold none, collection names may.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Namespace {
    db: String,
    collection: String,
}

impl Namespace {
    /// From its two parts, as a server named them; not checked against the rules for new names.
    pub fn new(db: impl Into<String>, collection: impl Into<String>) -> Self {
        Self { db: db.into(), collection: collection.into() }
    }

    /// From `db.collection`; not checked against the rules for new names.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.split_once('.') {
            Some((db, collection)) if !db.is_empty() && !collection.is_empty() => Ok(Self::new(db, collection)),
            _ => Err(format!("`{text}` is not a namespace; write it as db.collection")),
        }
    }

    /// From `db.collection`, where a server would let a client create it.
    pub fn parse_valid(text: &str) -> Result<Self, String> {
        let namespace = Self::parse(text)?;
        namespace.check()?;
        Ok(namespace)
    }

    /// The database.
    pub fn db(&self) -> &str {
        &self.db
    }

    /// The collection, without its database.
    pub fn collection(&self) -> &str {
        &self.collection
    }

    /// The collection of buckets of the time series that has this name.
    #[must_use]
    pub fn buckets(&self) -> Self {
        Self::new(&self.db, format!("{BUCKETS_PREFIX}{}", self.collection))
    }

    /// The time series that this is the collection of buckets of, none where it is another collection.
    pub fn time_series(&self) -> Option<Self> {
        self.collection.strip_prefix(BUCKETS_PREFIX).map(|collection| Self::new(&self.db, collection))
    }

    /// The name by which a user knows what this is a part of: that of a time series, or its own.
    #[must_use]
    pub fn shown(&self) -> Self {
        self.time_series().unwrap_or_else(|| self.clone())
    }

    /// Belongs to the server or to the tools: not copied unless it is named, and then only what [`Namespace::is_on_request`].
    pub fn is_special(&self) -> bool {
        SPECIAL_DATABASES.contains(&self.db.as_str()) || self.collection.starts_with(SYSTEM_PREFIX)
    }

    /// Is copied when it is included by its full name: in a special database, and not the server's own.
    pub fn is_on_request(&self) -> bool {
        ON_REQUEST.contains(&self.db.as_str()) && !self.collection.starts_with(SYSTEM_PREFIX)
    }

    /// Whether a server lets a client create a collection of this name, or why not.
    pub fn check(&self) -> Result<(), String> {
        check_database(&self.db)?;
        let collection = &self.collection;
        if collection.is_empty() || collection.starts_with('.') || collection.contains(['$', '\0']) {
            return Err(format!(
                "`{}` is not a collection's name: none is empty, starts with a dot, or holds `$` or NUL",
                collection.escape_debug()
            ));
        }
        let length = self.db.len() + 1 + collection.len();
        if length > LONGEST_NAMESPACE {
            return Err(format!("`{self}` has {length} bytes; a namespace has at most {LONGEST_NAMESPACE}"));
        }
        Ok(())
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.db, self.collection)
    }
}

impl TryFrom<String> for Namespace {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl From<Namespace> for String {
    fn from(namespace: Namespace) -> Self {
        namespace.to_string()
    }
}

/// Whether a server lets a client create a database of this name, or why not.
pub(super) fn check_database(db: &str) -> Result<(), String> {
    if db.is_empty() || db.contains(['/', '\\', '.', ' ', '"', '$', '\0']) {
        return Err(format!(
            "`{}` is not a database's name: none is empty or holds `/`, `\\`, `.`, a space, `\"`, `$` or NUL",
            db.escape_debug()
        ));
    }
    if db.len() > LONGEST_DATABASE {
        return Err(format!("`{db}` has {} bytes; a database's name has at most {LONGEST_DATABASE}", db.len()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may fail")]
    use super::*;

    fn ns(text: &str) -> Namespace {
        Namespace::parse(text).unwrap()
    }

    #[test]
    fn a_namespace_is_split_at_the_first_dot() {
        let namespace = ns("shop.orders.2026");
        assert_eq!((namespace.db(), namespace.collection()), ("shop", "orders.2026"));
        for bad in ["", "shop", "shop.", ".orders", "."] {
            assert!(Namespace::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_a_server_refuses() {
        let long_db = format!("{}.c", "d".repeat(64));
        let long = format!("db.{}", "c".repeat(253));
        for bad in ["a/b.c", "a\\b.c", "a b.c", "a\"b.c", "a$b.c", "a.b$c", "a\0b.c", "a.b\0", "a..b", &long_db, &long]
        {
            assert!(Namespace::parse_valid(bad).is_err(), "{bad}");
        }
        for good in ["a.b c", "a.b/c", "a:b.c", "ä.ö", &format!("db.{}", "c".repeat(252))] {
            assert!(Namespace::parse_valid(good).is_ok(), "{good}");
        }
    }
}
