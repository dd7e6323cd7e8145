//! Which rights a job needs, in one table, and which of them a user has. docs/security.md has the same as roles; a test
//! holds the one against the other on real servers (`tests/integration/rights.rs`).
//!
//! What a privilege covers is said by the server (`buildResourceSearchList` in mongo
//! `src/mongo/db/auth/authorization_session_impl.cpp`): one without a database or a collection is about all of them, but not
//! about `local` and `config`, nor about collections of the server's own (`system.*`), which have to be named.

use super::check::{Check, Row, names};
use super::choice::{CheckpointMode, CreateIndex, Existing, ReadOrder};
use super::namespace::{Namespace, SYSTEM_PREFIX};
use std::collections::BTreeSet;

/// Where the jobs' markers lie.
const MARKERS: (&str, &str) = ("mongoferry", "jobs");

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
            let granted: Vec<&Pattern> =
                all.iter().filter(|one| one.actions.contains(*action)).map(|one| &one.on).collect();
            let lacking: Vec<String> = match &need.on {
                On::Cluster => {
                    let is_granted = granted.iter().any(|on| matches!(on, Pattern::Cluster | Pattern::Any));
                    (!is_granted).then(|| "the cluster".to_owned()).into_iter().collect()
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
            On::Cluster => false,
            On::Databases(databases) | On::SomeOf(databases) => databases.is_empty(),
            On::Collections(namespaces) => namespaces.is_empty(),
        }
    }

    fn text(&self) -> String {
        match self {
            On::Cluster => "on the cluster".to_owned(),
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

fn need(actions: &'static [&'static str], on: On, why: &'static str) -> Need {
    Need { actions, on, why, lack: Lack::Refuses, way_out: "docs/configuration.md lists the roles that are needed" }
}

fn wish(actions: &'static [&'static str], on: On, why: &'static str, cost: &'static str) -> Need {
    Need { lack: Lack::Costs(cost), ..need(actions, on, why) }
}

fn look(actions: &'static [&'static str], on: On, why: &'static str) -> Need {
    Need { lack: Lack::Hides, ..need(actions, on, why) }
}

fn collections(all: &[(&str, &str)]) -> On {
    On::Collections(all.iter().map(|(db, name)| Namespace::new(*db, *name)).collect())
}

/// What is copied, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Copied {
    /// Collections of these databases.
    Databases(Vec<String>),
    /// These collections; the buckets of time series by their own names.
    Collections(Vec<Namespace>),
}

impl Copied {
    /// The databases of it.
    fn databases(&self) -> Vec<String> {
        match self {
            Copied::Databases(databases) => databases.clone(),
            Copied::Collections(namespaces) => {
                let databases: BTreeSet<&str> = namespaces.iter().map(Namespace::db).collect();
                databases.into_iter().map(str::to_owned).collect()
            }
        }
    }

    fn on(&self) -> On {
        match self {
            Copied::Databases(databases) => On::SomeOf(databases.clone()),
            Copied::Collections(namespaces) => On::Collections(namespaces.clone()),
        }
    }

    /// Under the names that clients use.
    fn on_views(&self) -> On {
        match self {
            Copied::Databases(databases) => On::SomeOf(databases.clone()),
            Copied::Collections(namespaces) => On::Collections(namespaces.iter().map(Namespace::shown).collect()),
        }
    }
}

/// As what a deployment of the source is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourcePart {
    /// A replica set that is copied.
    Set,
    /// A shard of a cluster that is read directly.
    Shard,
    /// A mongos through which a cluster is read.
    Mongos,
    /// Config servers, or a mongos, that tell how a cluster is divided.
    Routing,
    /// A shard whose oplog alone is looked at.
    Oplog,
}

/// What decides which rights are needed on a deployment of the source.
#[derive(Debug, Clone)]
pub struct SourceModes<'a> {
    /// As what it is used.
    pub part: SourcePart,
    /// What is copied from it.
    pub copied: &'a Copied,
    /// All databases that the user sees there: each is listed.
    pub visible: &'a [String],
    /// Whether all databases are copied, and not only some that are named.
    pub is_everything: bool,
    /// For what the checkpoint is.
    pub mode: CheckpointMode,
    /// In which order it is read.
    pub read_order: ReadOrder,
    /// Whether the balancer is stopped.
    pub stop_balancer: bool,
}

impl SourceModes<'_> {
    /// What is needed.
    pub fn needs(&self) -> Vec<Need> {
        let part = self.part;
        let is_read = matches!(part, SourcePart::Set | SourcePart::Shard | SourcePart::Mongos);
        let has_oplog = matches!(part, SourcePart::Set | SourcePart::Shard | SourcePart::Oplog);
        let mut needs = Vec::new();
        if has_oplog && self.mode != CheckpointMode::None {
            needs.push(need(
                &["find"],
                collections(&[("config", "transactions")]),
                "to begin the stream before transactions that are open",
            ));
            needs.push(need(
                &["find"],
                collections(&[("local", "oplog.rs")]),
                "to see how far back a stream can begin",
            ));
        }
        if matches!(part, SourcePart::Shard | SourcePart::Oplog) {
            needs.push(need(
                &["find"],
                collections(&[("admin", "system.version"), ("config", "migrationCoordinators")]),
                "to know which shard it is and what moves from it",
            ));
        }
        if matches!(part, SourcePart::Mongos | SourcePart::Routing) {
            needs.push(need(
                &["find"],
                collections(
                    &["shards", "databases", "collections", "chunks", "tags", "settings", "migrations", "version"]
                        .map(|name| ("config", name)),
                ),
                "to know which shard owns what",
            ));
            if self.stop_balancer {
                let way_out = "the balancer is as it was: run `sh.stopBalancer()` on a mongos and leave out --stop-balancer, or give the user the role clusterManager";
                let settings = collections(&[("config", "settings")]);
                needs.push(Need {
                    way_out,
                    ..need(&["insert", "update"], settings, "to stop the balancer and start it again (--stop-balancer)")
                });
            }
        }
        if is_read {
            let databases: BTreeSet<String> = self.visible.iter().cloned().chain(self.copied.databases()).collect();
            let databases = On::Databases(databases.into_iter().collect());
            needs.push(need(&["listCollections"], databases, "to see what there is"));
            needs.push(need(&["find", "listIndexes"], self.copied.on(), "to read what is copied"));
            if part == SourcePart::Mongos {
                needs.push(need(&["collStats"], self.copied.on(), "to know how large it is"));
            }
            if self.is_everything {
                needs.push(wish(
                    &["listDatabases"],
                    On::Cluster,
                    "to see all databases",
                    "one on which the user has no right is not copied, and nobody says so",
                ));
            }
        }
        if part != SourcePart::Mongos && part != SourcePart::Routing {
            needs.push(wish(
                &["replSetGetConfig"],
                On::Cluster,
                "to know the deployment by its id",
                "it is recognised by its name and members alone",
            ));
        }
        if part == SourcePart::Set {
            let cost = "everything is read by _id";
            if self.read_order == ReadOrder::Auto {
                needs.push(wish(&["hostInfo"], On::Cluster, "to know its memory", cost));
            }
            // Hardly a role has it; who leaves the order open reads by `_id` without.
            if self.read_order == ReadOrder::Natural {
                let sync = collections(&[("local", "replset.initialSyncId")]);
                needs.push(wish(&["find"], sync, "to go on in the order of the disk", cost));
            }
        }
        if is_read {
            let databases = On::Databases(self.copied.databases());
            needs.push(look(&["dbStats"], databases, "to know how large data and indexes are on the disk"));
            needs.push(look(&["getParameter"], On::Cluster, "to know its feature compatibility version"));
        }
        if has_oplog && self.mode != CheckpointMode::None {
            needs.push(look(
                &["collStats"],
                collections(&[("local", "oplog.rs")]),
                "to know how large its oplog may grow",
            ));
        }
        needs
    }
}

/// What decides which rights are needed on the target.
#[derive(Debug, Clone)]
pub struct TargetModes<'a> {
    /// What is copied, by its names there.
    pub copied: &'a Copied,
    /// What happens to what is there.
    pub existing: Existing,
    /// When indexes are built.
    pub create_index: CreateIndex,
    /// Those whose documents expire, by the names that clients use.
    pub expiring: &'a [Namespace],
    /// Those that are capped.
    pub capped: &'a [Namespace],
    /// Where the checkpoint goes, if there.
    pub checkpoint: Option<&'a Namespace>,
    /// Whether it is a sharded cluster.
    pub is_mongos: bool,
    /// Whether zones are made.
    pub zones: bool,
}

impl TargetModes<'_> {
    /// What is needed.
    pub fn needs(&self) -> Vec<Need> {
        let mut needs = vec![
            need(&["find", "insert", "update", "remove"], collections(&[MARKERS]), "to mark what is this job's"),
            need(&["listCollections"], On::Databases(self.copied.databases()), "to see what there is"),
            need(&["createCollection"], self.copied.on_views(), "to create collections"),
        ];
        if self.existing == Existing::Drop {
            needs.push(need(&["dropCollection"], self.copied.on_views(), "to drop what is there (--existing drop)"));
        }
        needs.push(need(
            &["find", "insert", "update", "remove", "bypassDocumentValidation"],
            self.copied.on(),
            "to write what is copied, again after a crash",
        ));
        needs.push(need(&["listIndexes"], self.copied.on(), "to verify what was copied"));
        if self.create_index != CreateIndex::None || self.is_mongos {
            needs.push(need(&["createIndex"], self.copied.on(), "to build indexes"));
        }
        let expiring = On::Collections(self.expiring.to_vec());
        needs.push(need(&["collMod"], expiring, "to let documents expire from the commit on"));
        let capped = On::Collections(self.capped.to_vec());
        needs.push(need(&["collStats"], capped, "to know whether they are full (verify)"));
        needs.extend(self.checkpoint.map(checkpoint));
        if self.is_mongos {
            let cluster = ["shards", "collections", "chunks", "version"].map(|name| ("config", name));
            needs.push(need(&["find"], collections(&cluster), "to know how it is sharded"));
            needs.push(need(
                &["enableSharding", "splitChunk", "moveChunk", "indexStats"],
                self.copied.on(),
                "to shard what is created",
            ));
            if self.zones {
                let tags = collections(&[("config", "tags")]);
                needs.push(need(&["find", "update", "remove"], tags, "to make zones (--zones)"));
            }
        } else {
            needs.push(wish(
                &["replSetGetConfig"],
                On::Cluster,
                "to know the deployment by its id",
                "it is recognised by its name and members alone",
            ));
        }
        needs.push(wish(
            &["listDatabases"],
            On::Cluster,
            "to see names that differ in case alone",
            "one that is there is found only when a collection is created",
        ));
        needs.push(look(&["dbStats"], On::Databases(vec!["admin".to_owned()]), "to know how much space is left"));
        needs.push(look(&["getParameter"], On::Cluster, "to know its feature compatibility version"));
        needs
    }
}

/// What is needed where the checkpoint goes.
pub fn checkpoint(namespace: &Namespace) -> Need {
    need(&["insert", "update"], On::Collections(vec![namespace.clone()]), "to write the checkpoint")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::check::Verdict;

    fn on(db: &str, collection: &str) -> Pattern {
        Pattern::Collections { db: db.into(), collection: collection.into() }
    }

    fn privilege(on: Pattern, actions: &[&str]) -> Privilege {
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

    /// All needs of all modes.
    fn needs() -> Vec<(&'static str, Vec<Need>)> {
        let names = [("shop", "a"), ("shop", "system.buckets.t"), ("blog", "b")];
        let copied = [
            Copied::Collections(names.iter().map(|(db, name)| Namespace::new(*db, *name)).collect()),
            Copied::Databases(vec!["shop".into()]),
        ];
        let checkpoints = Namespace::new("mongoshake", "ckpt_default");
        let (expiring, capped) = ([Namespace::new("shop", "a")], [Namespace::new("blog", "b")]);
        let mut all = Vec::new();
        for copied in &copied {
            for part in [SourcePart::Set, SourcePart::Shard, SourcePart::Mongos, SourcePart::Routing, SourcePart::Oplog]
            {
                let modes = SourceModes {
                    part,
                    copied,
                    visible: &["other".into()],
                    is_everything: true,
                    mode: CheckpointMode::Oplog,
                    read_order: ReadOrder::Natural,
                    stop_balancer: true,
                };
                all.push(("source", modes.needs()));
                all.push((
                    "source",
                    SourceModes { read_order: ReadOrder::Auto, is_everything: false, ..modes }.needs(),
                ));
            }
            for is_mongos in [true, false] {
                let modes = TargetModes {
                    copied,
                    existing: Existing::Drop,
                    expiring: &expiring,
                    capped: &capped,
                    create_index: CreateIndex::Foreground,
                    checkpoint: Some(&checkpoints),
                    is_mongos,
                    zones: true,
                };
                all.push(("target", modes.needs()));
                all.push(("target", TargetModes { existing: Existing::Keep, checkpoint: None, ..modes }.needs()));
            }
        }
        all
    }

    /// What grants exactly that.
    fn exactly(needs: &[Need]) -> Vec<Privilege> {
        let patterns = |need: &Need| match &need.on {
            On::Cluster => vec![Pattern::Cluster],
            On::Databases(databases) | On::SomeOf(databases) => databases.iter().map(|db| on(db, "")).collect(),
            On::Collections(all) => all.iter().map(|namespace| on(namespace.db(), namespace.collection())).collect(),
        };
        let of = |need: &Need| patterns(need).into_iter().map(|on| privilege(on, need.actions)).collect::<Vec<_>>();
        needs.iter().flat_map(of).collect()
    }

    #[test]
    fn with_exactly_what_is_needed_all_is_well_and_with_one_right_less_it_is_named() {
        let mut tried = 0;
        for (about, needs) in needs() {
            let rows = Privileges::These(exactly(&needs)).rows(about, &needs);
            assert!(rows.iter().all(|row| row.verdict == Verdict::Ok) && rows.len() == needs.len(), "{rows:#?}");
            assert_eq!(Privileges::All.rows(about, &needs), rows);
            for (number, need) in needs.iter().enumerate() {
                for action in need.actions {
                    // Another need may grant it by covering more.
                    let mut others: Vec<Need> = needs.clone();
                    others.retain(|other| other.on != need.on || !other.actions.contains(action));
                    let rest: Vec<&'static str> =
                        need.actions.iter().copied().filter(|other| other != action).collect();
                    let mut granted = exactly(&others);
                    granted.extend(exactly(&[Need { actions: Vec::leak(rest), ..need.clone() }]));
                    granted.retain(|one| !one.actions.contains(*action) || one.on == Pattern::Cluster);
                    if need.on == On::Cluster {
                        granted.iter_mut().for_each(|one| one.actions.retain(|granted| granted != action));
                    }
                    let row = &Privileges::These(granted).rows(about, &needs)[number];
                    let verdict = match need.lack {
                        Lack::Refuses => Verdict::Refusal,
                        Lack::Costs(_) => Verdict::Warning,
                        Lack::Hides => Verdict::NotLookedAt,
                    };
                    assert_eq!(row.verdict, verdict, "without {action}: {row:?}");
                    assert!(row.found.contains(&format!(" to {action}")), "without {action}: {row:?}");
                    tried += 1;
                }
            }
        }
        assert!(tried > 200, "{tried}");
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
