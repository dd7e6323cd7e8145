//! Which collections are copied.
//!
//! Protects two things: nothing that belongs to the server or to the tools themselves is copied unasked
//! ([`Filter::lets_through`]), and a typing error is found instead of silently copying less ([`Filter::unmatched_includes`]).

use super::namespace::{Namespace, ON_REQUEST, SPECIAL_DATABASES, SYSTEM_PREFIX, check_database};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Namespaces by their names: a database with all that is in it, or collections. In either part of a name `*` stands for any
/// characters, or none. `db` and `db.*` mean, and are shown as, the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Pattern {
    /// All collections of the databases of this name, with those to come.
    Database(String),
    /// The collections of this name.
    Collection(Namespace),
}

/// What stands for any characters. One that is in a name cannot be told from it, so it stands for itself as well.
const ANY: char = '*';

impl Pattern {
    /// From `db`, `db.*` or `db.collection`, with stars in either part.
    ///
    /// # Errors
    /// What no name could be.
    pub fn parse(text: &str) -> Result<Self, String> {
        // Two stars in a row say no more than one, and two ways to write a pattern are one.
        let mut text = text.to_owned();
        while text.contains("**") {
            text = text.replace("**", "*");
        }
        let (db, collection) = text.split_once('.').unwrap_or((&text, "*"));
        check_database(&stand_in(db))?;
        if collection == "*" {
            return Ok(Pattern::Database(db.to_owned()));
        }
        let namespace = Namespace::new(db, collection);
        Namespace::new(stand_in(db), stand_in(collection)).check()?;
        Ok(Pattern::Collection(namespace))
    }

    /// Whether the namespace is meant.
    pub fn matches(&self, namespace: &Namespace) -> bool {
        match self {
            Pattern::Database(db) => fits(db, namespace.db()),
            Pattern::Collection(one) => {
                fits(one.db(), namespace.db()) && fits(one.collection(), namespace.collection())
            }
        }
    }

    /// Whether it has stars.
    pub fn has_wildcards(&self) -> bool {
        match self {
            Pattern::Database(db) => db.contains(ANY),
            Pattern::Collection(namespace) => namespace.db().contains(ANY) || namespace.collection().contains(ANY),
        }
    }

    /// Means only what is never copied, or what is copied only when it is named.
    fn is_special(&self) -> bool {
        match self {
            Pattern::Database(db) => SPECIAL_DATABASES.contains(&db.as_str()),
            Pattern::Collection(namespace) => namespace.is_special(),
        }
    }

    /// Whether it names a collection that is copied only when it is named.
    fn requests(&self) -> Option<&Namespace> {
        match self {
            Pattern::Collection(namespace) if namespace.is_on_request() && !self.has_wildcards() => Some(namespace),
            _ => None,
        }
    }
}

/// A name that a pattern would mean, for the rules of names.
fn stand_in(pattern: &str) -> String {
    let begins = if pattern.starts_with(ANY) { "x" } else { "" };
    format!("{begins}{}", pattern.replace(ANY, ""))
}

/// Whether a name is what a pattern says.
fn fits(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once(ANY) else { return pattern == name };
    let (middle, last) = rest.rsplit_once(ANY).unwrap_or(("", rest));
    let Some(mut name) = name.strip_prefix(first).and_then(|name| name.strip_suffix(last)) else { return false };
    // Each part at the first place where it is: that leaves the most for those after it.
    middle.split(ANY).all(|part| match name.split_once(part) {
        _ if part.is_empty() => true,
        Some((_, after)) => {
            name = after;
            true
        }
        None => false,
    })
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

/// What is copied: everything, or what is included, less what is excluded, less what is special and was not named.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    include: Vec<Pattern>,
    exclude: Vec<Pattern>,
}

impl Filter {
    /// The patterns are sorted and said once, so that two ways to write a filter are one filter. An include of what is
    /// never copied is refused, and one of what has to be named that does not name it.
    pub fn new(mut include: Vec<Pattern>, mut exclude: Vec<Pattern>) -> Result<Self, String> {
        let special = |pattern: &&Pattern| pattern.is_special() && pattern.requests().is_none();
        if let Some(special) = include.iter().find(special) {
            return Err(format!(
                "`{special}` is never copied, as the databases {} and collections `{SYSTEM_PREFIX}*` are not, but for collections of {} that are included by their full names; take it out of the includes",
                SPECIAL_DATABASES.join(", "),
                ON_REQUEST.join(" and ")
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
        if self.exclude.iter().any(|pattern| pattern.matches(namespace)) {
            return false;
        }
        if namespace.is_special() {
            return self.include.iter().any(|pattern| pattern.requests() == Some(namespace));
        }
        self.include.is_empty() || self.include.iter().any(|pattern| pattern.matches(namespace))
    }

    /// Whether something of this database may be copied: of a special one only what is included by its full name.
    pub fn asks_for(&self, db: &str) -> bool {
        !SPECIAL_DATABASES.contains(&db)
            || self.include.iter().filter_map(Pattern::requests).any(|namespace| namespace.db() == db)
    }

    /// Whether something of this database may be copied, as far as that can be said without knowing what is in it.
    pub fn may_copy_of(&self, db: &str) -> bool {
        let of_database = |pattern: &Pattern| match pattern {
            Pattern::Database(name) => fits(name, db),
            Pattern::Collection(namespace) => fits(namespace.db(), db),
        };
        let all_of = |pattern: &Pattern| matches!(pattern, Pattern::Database(name) if fits(name, db));
        self.asks_for(db)
            && !self.exclude.iter().any(all_of)
            && (self.include.is_empty() || self.include.iter().any(of_database))
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
    fn databases_of_which_something_may_be_copied() {
        let may = |include: &[&str], exclude: &[&str], db: &str| filter(include, exclude).may_copy_of(db);
        assert!(may(&[], &[], "shop") && !may(&[], &[], "admin"));
        assert!(may(&["shop.a"], &[], "shop") && !may(&["shop.a"], &[], "other"));
        assert!(may(&["tenant_*"], &[], "tenant_1") && !may(&["tenant_*"], &["tenant_1"], "tenant_1"));
        assert!(may(&["admin.things"], &[], "admin") && may(&[], &["shop.a"], "shop"));
    }

    #[test]
    fn filters() {
        let table: &[(&[&str], &[&str], &str, bool)] = &[
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
            (&["shop.log_*"], &[], "shop.log_2026.11", true),
            (&["shop.log_*"], &[], "shop.log_", true),
            (&["shop.log_*"], &[], "shop.old_log_1", false),
            (&["tenant_*.orders"], &[], "tenant_7.orders", true),
            (&["tenant_*.orders"], &[], "tenant_7.orders.old", false),
            (&["tenant_*.orders"], &[], "tenant_7.x.orders", false),
            (&["tenant_*"], &["*.tmp*"], "tenant_7.any.thing", true),
            (&["tenant_*"], &["*.tmp*"], "tenant_7.tmp1", false),
            (&["*.*a*b*"], &[], "x.cacbc", true),
            (&["*.*a*b*"], &[], "x.cbca", false),
            (&["shop.ab*ba"], &[], "shop.aba", false),
            (&["*"], &[], "shop.orders", true),
            (&["*", "*.*"], &[], "admin.users", false),
            (&["*", "admin.users"], &[], "admin.users", true),
            (&["admin.users"], &[], "admin.user", false),
            (&["admin.users"], &[], "shop.orders", false),
            (&["admin.users"], &["admin"], "admin.users", false),
            (&["mongoshake.ckpt_default"], &[], "mongoshake.ckpt_default", true),
        ];
        for (include, exclude, namespace, through) in table {
            assert_eq!(filter(include, exclude).lets_through(&ns(namespace)), *through, "{include:?} {namespace}");
        }
    }

    #[test]
    fn patterns_that_cannot_be_meant() {
        for bad in ["", "db.", ".a", "a b", "db.$cmd", "a b*.a", "db*.$*", "*/.a", "db..*"] {
            assert!(Pattern::parse(bad).is_err(), "{bad}");
        }
        for never in [
            "admin",
            "admin.*",
            "local.*",
            "local.a",
            "config.chunks",
            "config.a",
            "mongoferry.jobs",
            "shop.system.views",
            "admin.system.users",
            "admin.a*",
        ] {
            let refused = Filter::new(patterns(&[never]), Vec::new()).unwrap_err();
            assert!(refused.contains("never copied"), "{refused}");
        }
        assert!(Filter::new(Vec::new(), patterns(&["admin"])).is_ok());
    }

    #[test]
    fn two_ways_to_write_a_filter_are_one() {
        assert_eq!(filter(&["b", "a.*", "b.*"], &[]), filter(&["a", "b"], &[]));
        assert_eq!(filter(&["b**.**", "a.x**y"], &[]), filter(&["a.x*y", "b*"], &[]));
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
            prop_oneof![Just("a"), Just("b"), Just("c"), Just("*"), Just("a*")]
                .prop_map(|db| Pattern::Database(db.to_owned())),
            ("[ab*]{1,2}", "[a-c*.x]{1,3}").prop_filter_map("a pattern", |(db, collection)| {
                Pattern::parse(&format!("{db}.{collection}")).ok()
            }),
            namespace().prop_map(Pattern::Collection),
        ]
        .prop_filter("only what may be included", |pattern| !pattern.is_special() || pattern.requests().is_some())
    }

    /// The same, tried at every place.
    fn fits_somehow(pattern: &[u8], name: &[u8]) -> bool {
        match pattern.split_first() {
            None => name.is_empty(),
            Some((b'*', rest)) => (0..=name.len()).any(|skipped| fits_somehow(rest, &name[skipped..])),
            Some((first, rest)) => name.first() == Some(first) && fits_somehow(rest, &name[1..]),
        }
    }

    proptest! {
        #[test]
        fn a_star_is_any_characters(pattern in "[ab*]{0,7}", name in "[ab]{0,8}") {
            prop_assert_eq!(fits(&pattern, &name), fits_somehow(pattern.as_bytes(), name.as_bytes()));
        }

        #[test]
        fn exclude_wins_and_special_never_passes(
            include in prop::collection::vec(pattern(), 0..4),
            exclude in prop::collection::vec(pattern(), 0..4),
            namespace in namespace(),
        ) {
            let filter = Filter::new(include.clone(), exclude.clone()).unwrap();
            let included = include.is_empty() || include.iter().any(|p| p.matches(&namespace));
            let excluded = exclude.iter().any(|p| p.matches(&namespace));
            let named = !namespace.is_special() || include.contains(&Pattern::Collection(namespace.clone()));
            prop_assert_eq!(filter.lets_through(&namespace), included && named && !excluded);
            prop_assert!(!filter.lets_through(&namespace) || filter.asks_for(namespace.db()));
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
