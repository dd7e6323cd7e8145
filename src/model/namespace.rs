//! Which collections are copied, and what they are called on the other side.
//!
//! Protects three things: nothing that belongs to the server or to the tools themselves is ever copied or written
//! ([`SPECIAL_DATABASES`]), no two collections end up in one ([`Renames::collisions`], [`case_clashes`]), and a typing
//! error in a filter or a rename is found instead of silently copying less ([`Filter::unmatched_includes`],
//! [`Renames::unmatched`]).

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Databases that are never copied and never written as user data: the server's own, MongoShake's checkpoints, and
/// mongoferry's markers.
pub const SPECIAL_DATABASES: [&str; 5] = ["admin", "config", "local", "mongoshake", "mongoferry"];

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

    /// Belongs to the server or to the tools: never copied, never a place to copy to.
    pub fn is_special(&self) -> bool {
        SPECIAL_DATABASES.contains(&self.db.as_str()) || self.collection.starts_with(SYSTEM_PREFIX)
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
fn check_database(db: &str) -> Result<(), String> {
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
            Pattern::Database(db) => *db == namespace.db,
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

/// What collections are called in the target. A rename of a collection wins over one of its database, which is what
/// makes `db.a:db.a` beside `db:db2` useful: it keeps one collection where it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>", into = "BTreeMap<String, String>")]
pub struct Renames {
    databases: BTreeMap<String, String>,
    collections: BTreeMap<Namespace, Namespace>,
}

impl Renames {
    /// From texts like `db:db2` and `db.a:db2.b`.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut renames = Self::default();
        for text in texts {
            let (from, to) = split_rename(text)?;
            renames.add(from, to).map_err(|reason| format!("rename `{text}`: {reason}"))?;
        }
        Ok(renames)
    }

    fn add(&mut self, from: Pattern, to: Pattern) -> Result<(), String> {
        if from.is_special() {
            return Err(format!("`{from}` is never copied"));
        }
        // The server tells databases apart without regard to case, so `Admin` is no way around it either.
        let lower = match &to {
            Pattern::Database(db) => Pattern::Database(db.to_ascii_lowercase()),
            Pattern::Collection(ns) => Pattern::Collection(Namespace::new(ns.db.to_ascii_lowercase(), &ns.collection)),
        };
        if lower.is_special() {
            return Err(format!("`{to}` belongs to the server or to the tools; choose another name"));
        }
        let earlier = match (from.clone(), to) {
            (Pattern::Database(from), Pattern::Database(to)) => self.databases.insert(from, to),
            (Pattern::Collection(from), Pattern::Collection(to)) => {
                self.collections.insert(from, to).map(|namespace| namespace.to_string())
            }
            _ => return Err("a database becomes a database, a collection a collection".to_owned()),
        };
        match earlier {
            Some(earlier) => Err(format!("`{from}` is renamed twice, to `{earlier}` as well; leave one of them out")),
            None => Ok(()),
        }
    }

    /// No renames.
    pub fn is_empty(&self) -> bool {
        self.databases.is_empty() && self.collections.is_empty()
    }

    /// What the namespace is called in the target.
    pub fn apply(&self, namespace: &Namespace) -> Namespace {
        if let Some(to) = self.collections.get(namespace) {
            return to.clone();
        }
        match self.databases.get(&namespace.db) {
            Some(db) => Namespace::new(db, &namespace.collection),
            None => namespace.clone(),
        }
    }

    /// What a database as a whole is called in the target.
    pub fn database<'a>(&'a self, db: &'a str) -> &'a str {
        self.databases.get(db).map_or(db, String::as_str)
    }

    /// The targets that more than one of these namespaces would be copied to, each with its sources, sorted.
    pub fn collisions(&self, namespaces: &[Namespace]) -> Vec<(Namespace, Vec<Namespace>)> {
        let mut sources: BTreeMap<Namespace, Vec<Namespace>> = BTreeMap::new();
        for namespace in namespaces {
            sources.entry(self.apply(namespace)).or_default().push(namespace.clone());
        }
        for namespaces in sources.values_mut() {
            namespaces.sort();
            namespaces.dedup();
        }
        sources.into_iter().filter(|(_, namespaces)| namespaces.len() > 1).collect()
    }

    /// The namespaces whose targets a server would not let a client create (a longer database can make a name too long),
    /// each with the reason.
    pub fn refused_targets(&self, namespaces: &[Namespace]) -> Vec<(Namespace, String)> {
        let refused = |namespace: &Namespace| {
            let target = self.apply(namespace);
            let reason = target.check().err()?;
            Some((namespace.clone(), reason))
        };
        namespaces.iter().filter_map(refused).collect()
    }

    /// The renames, as `from:to`, that match none of these namespaces: a typing error, or not copied.
    pub fn unmatched(&self, namespaces: &[Namespace]) -> Vec<String> {
        let databases = self.databases.iter().filter(|(from, _)| !namespaces.iter().any(|ns| ns.db == **from));
        let collections = self.collections.iter().filter(|(from, _)| !namespaces.contains(from));
        let mut unmatched: Vec<String> = databases.map(|(from, to)| format!("{from}:{to}")).collect();
        unmatched.extend(collections.map(|(from, to)| format!("{from}:{to}")));
        unmatched
    }
}

impl fmt::Display for Renames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        let pairs = BTreeMap::from(self.clone());
        let texts: Vec<String> = pairs.iter().map(|(from, to)| format!("{from}:{to}")).collect();
        f.write_str(&texts.join(","))
    }
}

impl TryFrom<BTreeMap<String, String>> for Renames {
    type Error = String;

    fn try_from(pairs: BTreeMap<String, String>) -> Result<Self, String> {
        let mut renames = Self::default();
        for (from, to) in pairs {
            renames.add(Pattern::parse(&from)?, Pattern::parse(&to)?)?;
        }
        Ok(renames)
    }
}

impl From<Renames> for BTreeMap<String, String> {
    fn from(renames: Renames) -> Self {
        let collections = renames.collections.into_iter().map(|(from, to)| (from.to_string(), to.to_string()));
        renames.databases.into_iter().chain(collections).collect()
    }
}

/// Splits `from:to`. Collection names may hold colons themselves, so the colon that counts is the one with two sides of
/// the same kind and without a colon in a database's name; should there be more than one, nobody can tell.
fn split_rename(text: &str) -> Result<(Pattern, Pattern), String> {
    let wanted = "write it as db:db2 or db.a:db2.b";
    if text.contains('*') {
        return Err(format!("rename `{text}`: there are no wildcards; {wanted}"));
    }
    let sides: Vec<(&str, &str)> =
        text.match_indices(':').map(|(at, colon)| (&text[..at], &text[at + colon.len()..])).collect();
    let kinds_agree = |(from, to): &&(&str, &str)| {
        let database = |side: &str| side.split('.').next().unwrap_or(side).to_owned();
        from.contains('.') == to.contains('.') && !database(from).contains(':') && !database(to).contains(':')
    };
    let (from, to) = match sides.iter().filter(kinds_agree).collect::<Vec<_>>().as_slice() {
        [one] => **one,
        [] if sides.len() == 1 => {
            return Err(format!("rename `{text}`: a database becomes a database, a collection a collection; {wanted}"));
        }
        [] => return Err(format!("rename `{text}` is not FROM:TO; {wanted}")),
        _ => return Err(format!("rename `{text}` can be read in more than one way; such names cannot be renamed")),
    };
    let side = |side: &str| Pattern::parse(side).map_err(|reason| format!("rename `{text}`: {reason}"));
    Ok((side(from)?, side(to)?))
}

/// The groups of database names that differ only in case. A server refuses the second of such names
/// (`DatabaseDifferCase`), so they cannot be in one target. Sorted; names that are equal count once.
pub fn case_clashes<'a>(databases: impl IntoIterator<Item = &'a str>) -> Vec<Vec<String>> {
    let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for db in databases {
        groups.entry(db.to_ascii_lowercase()).or_default().push(db.to_owned());
    }
    for names in groups.values_mut() {
        names.sort();
        names.dedup();
    }
    groups.into_values().filter(|names| names.len() > 1).collect()
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

    #[test]
    fn the_more_specific_rename_wins() {
        let renames = Renames::parse(["shop:store", "shop.a:other.b", "shop.keep:shop.keep"]).unwrap();
        for (from, to) in [
            ("shop.x", "store.x"),
            ("shop.a", "other.b"),
            ("shop.a.b", "store.a.b"),
            ("shop.keep", "shop.keep"),
            ("blog.x", "blog.x"),
        ] {
            assert_eq!(renames.apply(&ns(from)), ns(to), "{from}");
        }
        assert_eq!(renames.to_string(), "shop:store,shop.a:other.b,shop.keep:shop.keep");
    }

    #[test]
    fn renames_that_are_refused() {
        for (texts, reason) in [
            (&["shop"] as &[&str], "is not FROM:TO"),
            (&["shop:"], "is not a database's name"),
            (&[":shop"], "is not a database's name"),
            (&["shop:store.b"], "a database becomes a database"),
            (&["shop.a:store"], "a database becomes a database"),
            (&["shop.*:store.*"], "no wildcards"),
            (&["shop:store", "shop:other"], "renamed twice"),
            (&["shop.a:store.a", "shop.a:other.a"], "renamed twice"),
            (&["shop:admin"], "belongs to the server"),
            (&["shop:Admin"], "belongs to the server"),
            (&["shop.a:MongoFerry.jobs"], "belongs to the server"),
            (&["shop.a:shop.system.views"], "belongs to the server"),
            (&["admin:shop"], "never copied"),
            (&["shop:a$b"], "is not a database's name"),
            (&["shop.a:shop.$b"], "is not a collection's name"),
            (&["a.b:c.d:e.f"], "more than one way"),
            (&["a:b:c"], "is not FROM:TO"),
        ] {
            let refused = Renames::parse(texts.iter().copied()).unwrap_err();
            assert!(refused.contains(reason), "{texts:?}: {refused}");
        }
    }

    #[test]
    fn a_colon_in_a_collection_name() {
        let renames = Renames::parse(["shop.a:b:store.c"]).unwrap();
        assert_eq!(renames.apply(&ns("shop.a:b")), ns("store.c"));
        let renames = Renames::parse(["shop.a:store.c:d"]).unwrap();
        assert_eq!(renames.apply(&ns("shop.a")), ns("store.c:d"));
    }

    #[test]
    fn collisions_are_found() {
        let renames = Renames::parse(["a:c", "b.x:c.x"]).unwrap();
        let there = [ns("c.x"), ns("a.x"), ns("b.x"), ns("b.y")];
        assert_eq!(renames.collisions(&there), [(ns("c.x"), vec![ns("a.x"), ns("b.x"), ns("c.x")])]);
        assert_eq!(case_clashes(["Shop", "shop", "blog", "SHOP", "blog"]), [["SHOP", "Shop", "shop"]]);
        assert!(case_clashes(["shop", "shop"]).is_empty());
    }

    #[test]
    fn a_renamed_database_can_make_a_name_too_long() {
        let renames = Renames::parse([format!("a:{}", "b".repeat(60)).as_str()]).unwrap();
        let there = [ns(&format!("a.{}", "c".repeat(200))), ns("a.c")];
        assert_eq!(renames.refused_targets(&there).len(), 1);
    }

    #[test]
    fn renames_that_match_nothing() {
        let renames = Renames::parse(["shop:store", "shpo:x", "shop.a:store.b", "shop.c:store.d"]).unwrap();
        assert_eq!(renames.unmatched(&[ns("shop.a")]), ["shpo:x", "shop.c:store.d"]);
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

        #[test]
        fn renames_come_back_and_order_does_not_matter(
            to in prop::collection::btree_map(prop_oneof![Just("a"), Just("a.x"), Just("b"), Just("b.y")], "[d-f]", 0..4),
            probe in namespace(),
        ) {
            let texts: Vec<String> = to
                .iter()
                .map(|(from, to)| if from.contains('.') { format!("{from}:{to}.z") } else { format!("{from}:{to}") })
                .collect();
            let forward = Renames::parse(texts.iter().map(String::as_str)).unwrap();
            let backward = Renames::parse(texts.iter().rev().map(String::as_str)).unwrap();
            prop_assert_eq!(&forward, &backward);
            let stored = serde_json::to_string(&forward).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Renames>(&stored).unwrap(), &forward);

            // Only a rename of the database or of the collection itself moves anything.
            let named = to.contains_key(probe.db()) || to.contains_key(probe.to_string().as_str());
            prop_assert_eq!(forward.apply(&probe) == probe, !named);
        }

        #[test]
        fn without_collisions_targets_are_as_many_as_sources(
            namespaces in prop::collection::btree_set(namespace(), 0..8),
            to in "[a-d]",
        ) {
            let renames = Renames::parse([format!("a:{to}").as_str()]).unwrap();
            let namespaces: Vec<Namespace> = namespaces.into_iter().collect();
            let targets: std::collections::BTreeSet<Namespace> = namespaces.iter().map(|ns| renames.apply(ns)).collect();
            let lost: usize = renames.collisions(&namespaces).iter().map(|(_, sources)| sources.len() - 1).sum();
            prop_assert_eq!(targets.len() + lost, namespaces.len());
        }
    }
}
