//! Rights, as a user has them and as a job needs them ([`needs`] is the table), and which are missing.
//!
//! What a privilege covers is said by the server (`buildResourceSearchList` in mongo
//! `src/mongo/db/auth/authorization_session_impl.cpp`): one without a database or a collection is about all of them, but not
//! about `local` and `config`, nor about collections of the server's own (`system.*`), which have to be named.

pub mod needs;

use super::check::{Check, Row, names};
use super::namespace::{Namespace, SYSTEM_PREFIX};
use std::collections::BTreeSet;

/// What an empty name stands for where it is a privilege's.
const ANY_DATABASE: &str = "";

/// What a user may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Privileges {
    /// Everything: the server asks nobody who he is.
    All,
    /// This, of all the user's roles.
    These(Vec<Privilege>),
}

/// Actions that are allowed on something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Privilege {
    /// On what.
    pub on: Pattern,
    /// Which.
    pub actions: BTreeSet<String>,
}

/// What a privilege is about; an empty database or collection is any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// The deployment as a whole.
    Cluster,
    /// Anything at all.
    Any,
    /// Collections.
    Collections {
        /// Of this database.
        db: String,
        /// Of this name.
        collection: String,
    },
    /// The buckets of time series.
    Buckets {
        /// Of this database.
        db: String,
        /// Of the time series of this name.
        collection: String,
    },
    /// Something that this program does not know, and needs no right on.
    Unknown,
}

/// The action that stands for all of them; a server names no other one beside it (mongo `src/mongo/db/auth/action_set.cpp`).
const ANY_ACTION: &str = "anyAction";

impl Privilege {
    fn allows(&self, action: &str) -> bool {
        self.actions.contains(action) || self.actions.contains(ANY_ACTION)
    }
}

impl Pattern {
    fn covers_database(&self, database: &str) -> bool {
        match self {
            Pattern::Any => true,
            Pattern::Collections { db, collection } => {
                collection.is_empty() && (db == database || db.is_empty() && !is_servers_own(database))
            }
            _ => false,
        }
    }

    fn covers(&self, namespace: &Namespace) -> bool {
        let (database, name) = (namespace.db(), namespace.collection());
        match self {
            Pattern::Any => true,
            Pattern::Collections { db, collection } if collection.is_empty() => {
                let is_servers_own = database == "local" && name.starts_with("replset.");
                let is_normal = !name.starts_with(SYSTEM_PREFIX) && !is_servers_own;
                is_normal && self.covers_database(database)
            }
            Pattern::Collections { db, collection } => collection == name && (db.is_empty() || db == database),
            Pattern::Buckets { db, collection } => namespace.time_series().is_some_and(|of| {
                (collection.is_empty() || collection == of.collection())
                    && (db == database || db.is_empty() && !is_servers_own(database))
            }),
            Pattern::Cluster | Pattern::Unknown => false,
        }
    }

    /// Whether it covers anything of a database.
    fn touches(&self, database: &str) -> bool {
        match self {
            Pattern::Any => true,
            Pattern::Collections { db, collection } | Pattern::Buckets { db, collection } => {
                db == database || db.is_empty() && (!collection.is_empty() || !is_servers_own(database))
            }
            Pattern::Cluster | Pattern::Unknown => false,
        }
    }
}

/// Databases that a privilege on all databases is not about.
fn is_servers_own(database: &str) -> bool {
    matches!(database, "local" | "config")
}

impl Privileges {
    /// What of a need is missing: `find on shop.orders`.
    fn missing(&self, need: &Need) -> Vec<String> {
        let Privileges::These(all) = self else { return Vec::new() };
        let mut missing = Vec::new();
        for action in need.actions {
            let granted: Vec<&Pattern> = all.iter().filter(|one| one.allows(action)).map(|one| &one.on).collect();
            let lacking: Vec<String> = match &need.on {
                On::Cluster => {
                    let is_granted = granted.iter().any(|on| matches!(on, Pattern::Cluster | Pattern::Any));
                    (!is_granted).then(|| "the cluster".to_owned()).into_iter().collect()
                }
                On::EveryDatabase => {
                    let is_granted = granted.iter().any(|on| on.covers_database(ANY_DATABASE));
                    (!is_granted).then(|| "all databases".to_owned()).into_iter().collect()
                }
                On::Databases(databases) => {
                    lacking(databases, |database| granted.iter().any(|on| on.covers_database(database)))
                }
                On::SomeOf(databases) => lacking(databases, |database| granted.iter().any(|on| on.touches(database))),
                On::Collections(namespaces) => {
                    lacking(namespaces, |namespace| granted.iter().any(|on| on.covers(namespace)))
                }
            };
            if !lacking.is_empty() {
                missing.push(format!("on {} to {action}", names(&lacking)));
            }
        }
        missing
    }

    /// What came of each need. `about` is whose servers they are, as in `the user of the source`.
    pub fn rows(&self, about: &str, needs: &[Need]) -> Vec<Row> {
        needs.iter().filter(|need| !need.on.is_empty()).map(|need| self.row(about, need)).collect()
    }

    fn row(&self, about: &str, need: &Need) -> Row {
        let what = format!("{} {}", need.actions.join(", "), need.on.text());
        let missing = self.missing(need);
        if missing.is_empty() {
            return Row::ok(Check::Right, about, format!("{what}: {}", need.why));
        }
        let missing = format!("not authorized {}", missing.join(", "));
        match need.lack {
            Lack::Refuses => Row::refusal(
                Check::Right,
                about,
                format!("the user of the {about} lacks a right: {missing}, {}", need.why),
                need.way_out,
            ),
            Lack::Costs(cost) => Row::warning(
                Check::Right,
                about,
                format!("the user of the {about} is {missing}, {}: {cost}", need.why),
                "grant it, or go on without",
            ),
            Lack::Hides => Row::not_looked_at(Check::Right, about, format!("{missing}, {}", need.why)),
        }
    }
}

fn lacking<T: std::fmt::Display>(all: &[T], is_granted: impl Fn(&T) -> bool) -> Vec<String> {
    all.iter().filter(|one| !is_granted(one)).map(ToString::to_string).collect()
}

/// What a right is needed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum On {
    /// The deployment as a whole.
    Cluster,
    /// All databases, as a right on each of them would not do.
    EveryDatabase,
    /// Each of these databases as such, and all that is in it.
    Databases(Vec<String>),
    /// Something in each of these databases: nobody knows yet what is in them.
    SomeOf(Vec<String>),
    /// Each of these collections.
    Collections(Vec<Namespace>),
}

impl On {
    fn is_empty(&self) -> bool {
        match self {
            On::Cluster | On::EveryDatabase => false,
            On::Databases(databases) | On::SomeOf(databases) => databases.is_empty(),
            On::Collections(namespaces) => namespaces.is_empty(),
        }
    }

    fn text(&self) -> String {
        match self {
            On::Cluster => "on the cluster".to_owned(),
            On::EveryDatabase => "on all databases".to_owned(),
            On::Databases(databases) | On::SomeOf(databases) => format!("on {}", names(databases)),
            On::Collections(namespaces) => format!("on {}", names(namespaces)),
        }
    }
}

/// What a missing right comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lack {
    /// A job cannot be done.
    Refuses,
    /// It is done in another way.
    Costs(&'static str),
    /// Something is not looked at beforehand.
    Hides,
}

/// Rights that are needed for one purpose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// Which actions.
    pub actions: &'static [&'static str],
    /// On what.
    pub on: On,
    /// What for: `to read what is copied`.
    pub why: &'static str,
    /// What it comes to without them.
    pub lack: Lack,
    /// What to do where a job cannot be done without them.
    pub way_out: &'static str,
}

#[cfg(test)]
mod tests {
    use super::needs::{Copied, need};
    use super::*;
    use crate::model::check::Verdict;

    pub fn on(db: &str, collection: &str) -> Pattern {
        Pattern::Collections { db: db.into(), collection: collection.into() }
    }

    pub fn privilege(on: Pattern, actions: &[&str]) -> Privilege {
        Privilege { on, actions: actions.iter().map(ToString::to_string).collect() }
    }

    #[test]
    fn what_is_about_everything_is_not_about_what_is_the_servers_own() {
        let all = on("", "");
        let covers = |pattern: &Pattern, db: &str, name: &str| pattern.covers(&Namespace::new(db, name));
        assert!(covers(&all, "shop", "a.b") && covers(&all, "admin", "x") && all.covers_database("shop"));
        assert!(
            !covers(&all, "shop", "system.js") && !covers(&all, "local", "oplog.rs") && !covers(&all, "config", "x")
        );
        assert!(!all.covers_database("config"));
        let local = on("local", "");
        assert!(covers(&local, "local", "oplog.rs") && !covers(&local, "local", "replset.initialSyncId"));
        assert!(covers(&on("", "system.version"), "admin", "system.version"));
        assert!(covers(&on("shop", "a"), "shop", "a") && !covers(&on("shop", "a"), "shop", "b"));
        assert!(!on("shop", "a").covers_database("shop") && on("shop", "a").touches("shop"));
        assert!(covers(&Pattern::Any, "local", "system.x") && !covers(&Pattern::Cluster, "a", "b"));
        let buckets = Pattern::Buckets { db: String::new(), collection: String::new() };
        assert!(covers(&buckets, "shop", "system.buckets.t") && !covers(&buckets, "shop", "t"));
        assert!(!covers(&on("shop", ""), "shop", "system.buckets.t"));
    }

    #[test]
    fn who_may_do_anything_lacks_nothing() {
        let needs = [need(&["find", "insert"], On::Cluster, "to try"), need(&["find"], On::EveryDatabase, "to try")];
        let anything = Privileges::These(vec![privilege(Pattern::Any, &[ANY_ACTION])]);
        assert!(anything.rows("source", &needs).iter().all(|row| row.verdict == Verdict::Ok));
        let of_the_cluster = Privileges::These(vec![privilege(Pattern::Cluster, &[ANY_ACTION])]);
        let verdicts: Vec<Verdict> = of_the_cluster.rows("source", &needs).iter().map(|row| row.verdict).collect();
        assert_eq!(verdicts, [Verdict::Ok, Verdict::Refusal]);
    }

    #[test]
    fn a_role_of_single_collections_is_enough() {
        let copied = Copied::Collections(vec![Namespace::new("shop", "a")]);
        let need = need(&["find"], copied.on(), "to read");
        let granted = |on| Privileges::These(vec![privilege(on, &["find"])]);
        assert_eq!(granted(on("shop", "a")).rows("source", std::slice::from_ref(&need))[0].verdict, Verdict::Ok);
        let row = &granted(on("shop", "b")).rows("source", &[need])[0];
        let text = "the user of the source lacks a right: not authorized on shop.a to find, to read; docs/configuration.md lists the roles that are needed";
        assert_eq!(row.sentence(), text);
    }
}
