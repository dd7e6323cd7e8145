//! Which rights a job needs, in one table. docs/security.md has the same as roles; a test holds the one against the other on
//! real servers (`tests/integration/rights.rs`).

use super::{Lack, Need, On};
use crate::model::choice::{CheckpointMode, CreateIndex, Existing, ReadOrder};
use crate::model::namespace::Namespace;
use crate::model::system::SystemKind;
use std::collections::BTreeSet;

/// Where the jobs' markers lie.
const MARKERS: (&str, &str) = ("mongoferry", "jobs");

pub(super) fn need(actions: &'static [&'static str], on: On, why: &'static str) -> Need {
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

    pub(super) fn on(&self) -> On {
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

fn why_system(kind: SystemKind) -> &'static str {
    match kind {
        SystemKind::Function => "to copy functions (--include-system js)",
        SystemKind::Role => "to copy roles (--include-system roles)",
        SystemKind::User => "to copy users (--include-system users)",
    }
}

/// The collections that hold functions, roles or users of these databases.
fn kept_in(kind: SystemKind, databases: &[&str]) -> On {
    match kind {
        SystemKind::Function => On::Collections(databases.iter().map(|db| kind.collection(db)).collect()),
        SystemKind::Role | SystemKind::User => On::Collections(vec![kind.collection("admin")]),
    }
}

/// What is needed on the source to read functions, roles or users of these databases.
pub fn reading_system(kind: SystemKind, databases: &[&str]) -> Need {
    let way_out = "give it the role `backup`, or leave that out of --include-system (docs/security.md)";
    Need { way_out, ..need(&["find"], kept_in(kind, databases), why_system(kind)) }
}

/// What is needed on the target to write functions, roles or users of these databases. What merges roles and users asks for
/// the rights on all databases whichever it is given, and reads the collection that they come from (mongo
/// `src/mongo/db/commands/user_management_commands.cpp`, `_mergeAuthzCollections`), which is `temporary`.
pub fn writing_system(kind: SystemKind, databases: &[&str], temporary: &str, replaces: bool) -> Vec<Need> {
    let way_out = "give it the roles `restore` and `backup`, or leave that out of --include-system (docs/security.md)";
    let need = |actions, on| Need { way_out, ..need(actions, on, why_system(kind)) };
    if kind == SystemKind::Function {
        return vec![need(&["find", "insert", "update"], kept_in(kind, databases))];
    }
    let mut needs = vec![
        need(&["createUser", "createRole", "grantRole", "revokeRole"], On::EveryDatabase),
        need(&["find"], kept_in(kind, databases)),
        need(&["find", "insert", "createCollection", "dropCollection"], collections(&[("admin", temporary)])),
    ];
    if replaces && kind == SystemKind::User {
        needs.push(need(&["dropUser"], On::EveryDatabase));
    }
    needs
}

/// What is needed where the checkpoint goes.
pub fn checkpoint(namespace: &Namespace) -> Need {
    need(&["insert", "update"], On::Collections(vec![namespace.clone()]), "to write the checkpoint")
}

#[cfg(test)]
mod tests {
    use super::super::tests::{on, privilege};
    use super::super::{Pattern, Privilege, Privileges};
    use super::*;
    use crate::model::check::Verdict;

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
        for kind in [SystemKind::Function, SystemKind::Role, SystemKind::User] {
            all.push(("source", vec![reading_system(kind, &["shop", "blog"])]));
            all.push(("target", writing_system(kind, &["shop", "blog"], "mongoferry_temporary", true)));
        }
        all
    }

    /// What grants exactly that.
    fn exactly(needs: &[Need]) -> Vec<Privilege> {
        let patterns = |need: &Need| match &need.on {
            On::Cluster => vec![Pattern::Cluster],
            On::EveryDatabase => vec![on("", "")],
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
}
