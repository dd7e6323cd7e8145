//! What collections are called on the other side.
//!
//! Protects two things: no two collections end up in one ([`Renames::collisions`], [`case_clashes`]), and a typing error is
//! found instead of silently keeping a name ([`Renames::unmatched`]).

use super::filter::Pattern;
use super::namespace::{Namespace, SPECIAL_DATABASES};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

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
        let is_copied = match &from {
            Pattern::Database(db) => !SPECIAL_DATABASES.contains(&db.as_str()),
            Pattern::Collection(namespace) => !namespace.is_special() || namespace.is_on_request(),
        };
        if !is_copied {
            return Err(format!("`{from}` is never copied"));
        }
        // The server tells databases apart without regard to case, so `Admin` is no way around it either.
        let is_special = match &to {
            Pattern::Database(db) => SPECIAL_DATABASES.contains(&db.to_ascii_lowercase().as_str()),
            Pattern::Collection(ns) => Namespace::new(ns.db().to_ascii_lowercase(), ns.collection()).is_special(),
        };
        if is_special {
            return Err(format!("`{to}` belongs to the server or to the tools; choose another name"));
        }
        if from.has_wildcards() || to.has_wildcards() {
            return Err("there are no wildcards in renames".to_owned());
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
        match self.databases.get(namespace.db()) {
            Some(db) => Namespace::new(db, namespace.collection()),
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
        let databases = self.databases.iter().filter(|(from, _)| !namespaces.iter().any(|ns| ns.db() == from.as_str()));
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
            (&["config.a:shop.a"], "never copied"),
            (&["admin.system.users:shop.a"], "never copied"),
            (&["mongoferry.jobs:shop.a"], "never copied"),
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
    fn what_is_copied_only_when_it_is_named_can_get_another_name() {
        let renames = Renames::parse(["admin.notes:kept.notes"]).unwrap();
        assert_eq!(renames.apply(&ns("admin.notes")), ns("kept.notes"));
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

    proptest! {
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
