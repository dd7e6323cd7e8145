//! What there is on the source and is not copied, and why: nothing is left out quietly.

use super::catalog::CollectionKind;
use super::namespace::{Namespace, SYSTEM_PREFIX};
use serde::{Deserialize, Serialize};

/// What views and time series are kept in: they are listed themselves.
const KEPT_ELSEWHERE: [&str; 2] = ["system.views", "system.buckets."];

/// A collection, or a whole database, that is not copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Its name: `db.collection`, or `db`.
    pub name: String,
    /// What kind of collection it is. None for a database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<CollectionKind>,
    /// Why it is left out.
    pub why: Why,
}

/// Why something is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Why {
    /// `--include` and `--exclude` say so.
    Filter,
    /// It is a database of the server's own, or of the tools.
    Special,
    /// It is a collection of the server's own in a database that is copied.
    System,
}

impl Why {
    /// All of them.
    pub const ALL: [Why; 3] = [Why::Filter, Why::Special, Why::System];

    /// In words.
    pub fn text(self) -> &'static str {
        match self {
            Why::Filter => "not selected by --include and --exclude",
            Why::Special => "databases of the server's own, or of the tools",
            Why::System => "collections of the server's own",
        }
    }
}

impl LeftOut {
    /// A collection that the filter does not let through. None for what only holds another one's data.
    pub fn collection(namespace: &Namespace, kind: CollectionKind) -> Option<Self> {
        let name = namespace.collection();
        if KEPT_ELSEWHERE.iter().any(|kept| name.starts_with(kept)) {
            return None;
        }
        let why = if name.starts_with(SYSTEM_PREFIX) { Why::System } else { Why::Filter };
        Some(Self { name: namespace.to_string(), kind: Some(kind), why })
    }

    /// A special database.
    pub fn database(name: &str) -> Self {
        Self { name: name.to_owned(), kind: None, why: Why::Special }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_says_why_and_is_named_once() {
        let left_out = |name| LeftOut::collection(&Namespace::new("db", name), CollectionKind::Collection);
        assert_eq!(left_out("orders").map(|left_out| left_out.why), Some(Why::Filter));
        assert_eq!(left_out("system.profile").map(|left_out| left_out.why), Some(Why::System));
        assert_eq!(left_out("system.views"), None);
        assert_eq!(left_out("system.buckets.weather"), None);
    }
}
