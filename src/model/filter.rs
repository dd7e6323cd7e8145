//! Which collections are copied.
//!
//! Protects two things: nothing that belongs to the server or to the tools themselves is copied unasked
//! ([`Filter::lets_through`]), and a typing error is found instead of silently copying less ([`Filter::unmatched_includes`]).

use super::namespace::{Namespace, SPECIAL_DATABASES, SYSTEM_PREFIX, check_database};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A database with all that is in it, or one collection. `db` and `db.*` mean, and are shown as, the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Pattern {
    /// All collections of this database, with those to come.
    Database(String),
    /// One collection.
    Collection(Namespace),
}

impl Pattern {
    /// From `db`, `db.*` or `db.collection`. There are no other wildcards.
    pub fn parse(text: &str) -> Result<Self, String> {
        let pattern = match text.split_once('.') {
            None | Some((_, "*")) => Pattern::Database(text.strip_suffix(".*").unwrap_or(text).to_owned()),
            Some((db, collection)) => Pattern::Collection(Namespace::new(db, collection)),
        };
        // A star is possible in a collection's name, but whoever writes one here means a wildcard.
        if pattern.to_string().contains('*') {
            return Err(format!("`{text}`: a star stands only for all collections of a database, as in `db.*`"));
        }
        match &pattern {
            Pattern::Database(db) => check_database(db)?,
            Pattern::Collection(namespace) => namespace.check()?,
        }
        Ok(pattern)
    }

    /// Whether the namespace is meant.
    pub fn matches(&self, namespace: &Namespace) -> bool {
        match self {
            Pattern::Database(db) => db == namespace.db(),
            Pattern::Collection(one) => one == namespace,
        }
    }

    /// Means only what is never copied.
    pub fn is_special(&self) -> bool {
        match self {
            Pattern::Database(db) => SPECIAL_DATABASES.contains(&db.as_str()),
            Pattern::Collection(namespace) => namespace.is_special(),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pattern::Database(db) => f.write_str(db),
            Pattern::Collection(namespace) => namespace.fmt(f),
        }
    }
}

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.to_string()
    }
}

/// What is copied: everything, or what is included, less what is excluded, less what is special.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    include: Vec<Pattern>,
    exclude: Vec<Pattern>,
}

impl Filter {
    /// The patterns are sorted and said once, so that two ways to write a filter are one filter. An include of what is
    /// never copied is refused.
    pub fn new(mut include: Vec<Pattern>, mut exclude: Vec<Pattern>) -> Result<Self, String> {
        if let Some(special) = include.iter().find(|pattern| pattern.is_special()) {
            return Err(format!(
                "`{special}` is never copied, as the databases {} and collections `{SYSTEM_PREFIX}*` are not; take it \
                 out of the includes",
                SPECIAL_DATABASES.join(", ")
            ));
        }
        for patterns in [&mut include, &mut exclude] {
            patterns.sort();
            patterns.dedup();
        }
        Ok(Self { include, exclude })
    }

    /// What is included; everything when empty.
    pub fn include(&self) -> &[Pattern] {
        &self.include
    }

    /// What is excluded, whatever is included.
    pub fn exclude(&self) -> &[Pattern] {
        &self.exclude
    }

    /// Whether the namespace is copied.
    pub fn lets_through(&self, namespace: &Namespace) -> bool {
        if namespace.is_special() || self.exclude.iter().any(|pattern| pattern.matches(namespace)) {
            return false;
        }
        self.include.is_empty() || self.include.iter().any(|pattern| pattern.matches(namespace))
    }

    /// The includes that let none of these namespaces through: a typing error, or all of it is excluded.
    pub fn unmatched_includes(&self, namespaces: &[Namespace]) -> Vec<&Pattern> {
        let matched = |pattern: &Pattern| namespaces.iter().any(|ns| pattern.matches(ns) && self.lets_through(ns));
        self.include.iter().filter(|pattern| !matched(pattern)).collect()
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |patterns: &[Pattern]| patterns.iter().map(Pattern::to_string).collect::<Vec<_>>().join(",");
        match (self.include.is_empty(), self.exclude.is_empty()) {
            (true, true) => f.write_str("everything"),
            (true, false) => write!(f, "everything but {}", list(&self.exclude)),
            (false, true) => f.write_str(&list(&self.include)),
            (false, false) => write!(f, "{} but {}", list(&self.include), list(&self.exclude)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may fail")]
    use super::*;
    use proptest::prelude::*;

    fn ns(text: &str) -> Namespace {
        Namespace::parse(text).unwrap()
    }

    fn patterns(texts: &[&str]) -> Vec<Pattern> {
        texts.iter().map(|text| Pattern::parse(text).unwrap()).collect()
    }

    fn filter(include: &[&str], exclude: &[&str]) -> Filter {
        Filter::new(patterns(include), patterns(exclude)).unwrap()
    }

    #[test]
    fn filters() {
        let table: [(&[&str], &[&str], &str, bool); 14] = [
            (&[], &[], "shop.orders", true),
            (&["shop"], &[], "shop.orders", true),
            (&["shop.*"], &[], "shop.orders", true),
            (&["shop.orders"], &[], "shop.orders", true),
            (&["shop.orders"], &[], "shop.orders.2026", false),
            (&["shop"], &[], "shop2.orders", false),
            (&["shop"], &["shop.orders"], "shop.orders", false),
            (&["shop.orders"], &["shop"], "shop.orders", false),
            (&["shop.orders"], &["shop.*"], "shop.orders", false),
            (&[], &[], "admin.users", false),
            (&[], &[], "mongoshake.ckpt_default", false),
            (&[], &[], "mongoferry.jobs", false),
            (&["shop"], &[], "shop.system.views", false),
            (&["shop"], &[], "shop.systematic", true),
        ];
        for (include, exclude, namespace, through) in table {
            assert_eq!(filter(include, exclude).lets_through(&ns(namespace)), through, "{namespace}");
        }
    }

    #[test]
    fn patterns_that_cannot_be_meant() {
        for bad in ["", "*", "*.a", "db.a*", "db*", "db.", ".a", "a b", "db.$cmd", "db.*.a"] {
            assert!(Pattern::parse(bad).is_err(), "{bad}");
        }
        for never in ["admin", "local.*", "config.chunks", "shop.system.views"] {
            let refused = Filter::new(patterns(&[never]), Vec::new()).unwrap_err();
            assert!(refused.contains("never copied"), "{refused}");
        }
        assert!(Filter::new(Vec::new(), patterns(&["admin"])).is_ok());
    }

    #[test]
    fn two_ways_to_write_a_filter_are_one() {
        assert_eq!(filter(&["b", "a.*", "b.*"], &[]), filter(&["a", "b"], &[]));
        assert_eq!(filter(&["b", "a.*"], &["a.x"]).to_string(), "a,b but a.x");
        assert_eq!(Filter::default().to_string(), "everything");
    }

    #[test]
    fn includes_that_match_nothing() {
        let there = [ns("shop.orders"), ns("blog.posts")];
        let filter = filter(&["shop", "shpo", "blog.posts", "blog.post"], &["blog.posts"]);
        assert_eq!(
            filter.unmatched_includes(&there),
            patterns(&["shpo", "blog.post", "blog.posts"]).iter().collect::<Vec<_>>()
        );
    }

    fn name() -> impl Strategy<Value = String> {
        // Few names, so that they meet.
        prop_oneof![Just("a"), Just("b"), Just("c"), Just("admin"), Just("system.x"), Just("x.y")]
            .prop_map(str::to_owned)
    }

    fn namespace() -> impl Strategy<Value = Namespace> {
        (prop_oneof![Just("a"), Just("b"), Just("c"), Just("admin")], name()).prop_map(|(db, c)| Namespace::new(db, c))
    }

    fn pattern() -> impl Strategy<Value = Pattern> {
        prop_oneof![
            prop_oneof![Just("a"), Just("b"), Just("c")].prop_map(|db| Pattern::Database(db.to_owned())),
            namespace().prop_map(Pattern::Collection),
        ]
        .prop_filter("only what may be included", |pattern| !pattern.is_special())
    }

    proptest! {
        #[test]
        fn exclude_wins_and_special_never_passes(
            include in prop::collection::vec(pattern(), 0..4),
            exclude in prop::collection::vec(pattern(), 0..4),
            namespace in namespace(),
        ) {
            let filter = Filter::new(include.clone(), exclude.clone()).unwrap();
            let included = include.is_empty() || include.iter().any(|p| p.matches(&namespace));
            let excluded = namespace.is_special() || exclude.iter().any(|p| p.matches(&namespace));
            prop_assert_eq!(filter.lets_through(&namespace), included && !excluded);
        }

        #[test]
        fn what_is_stored_comes_back(
            include in prop::collection::vec(pattern(), 0..4),
            exclude in prop::collection::vec(pattern(), 0..4),
            db in "[a-z]{1,8}", collection in "[a-z.:é]{0,8}[a-z]",
        ) {
            let filter = Filter::new(include, exclude).unwrap();
            let stored = serde_json::to_string(&filter).unwrap();
            prop_assert_eq!(serde_json::from_str::<Filter>(&stored).unwrap(), filter);

            let namespace = Namespace::new(db, collection);
            prop_assert_eq!(Namespace::parse(&namespace.to_string()).unwrap(), namespace);
        }
    }
}
