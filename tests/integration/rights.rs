//! The roles of docs/security.md suffice, and what it says of each right that is missing is so.

use futures_util::TryStreamExt;
use mongodb::Client;
use mongodb::bson::{Document, doc};
use tempfile::TempDir;

use crate::support::cluster::{Cluster, ClusterOptions};
use crate::support::compare::{Scope, compare};
use crate::support::ferry::{Ferry, Ran};
use crate::support::servers::{Failure, ReplicaSet, StartOptions};

/// The privileges of one of the pieces of code under a heading of docs/security.md, for a database that is copied.
fn documented(heading: &str, piece: usize, database: &str) -> Vec<Document> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/security.md");
    let text = std::fs::read_to_string(path).expect("it is there");
    let section = text.split("\n### ").find(|section| section.starts_with(&format!("{heading}\n"))).expect("a heading");
    let mut rest = section.split("```js").nth(piece + 1).and_then(|code| code.split("```").next()).expect("code");
    let mut privileges = Vec::new();
    while let Some(at) = rest.find("{ resource:") {
        let end = at + rest[at..].find("] }").expect("its end") + 3;
        let json = ["resource", "cluster", "db", "collection", "actions"]
            .iter()
            .fold(rest[at..end].to_owned(), |json, key| json.replace(&format!("{key}: "), &format!("\"{key}\": ")));
        let json: serde_json::Value =
            serde_json::from_str(&json.replace("\"shop\"", &format!("{database:?}"))).expect("JSON");
        privileges.push(mongodb::bson::serialize_to_document(&json).expect("a document"));
        rest = &rest[end..];
    }
    privileges
}

fn source_role(database: &str) -> Vec<Document> {
    documented("Source: a replica set, or each shard", 0, database)
}

fn target_role(database: &str) -> Vec<Document> {
    documented("Target", 0, database)
}

/// Each role with one action on one resource less, and what that is.
fn each_missing(role: &[Document]) -> Vec<(Vec<Document>, String)> {
    let mut all = Vec::new();
    for (index, privilege) in role.iter().enumerate() {
        let actions = actions(privilege);
        for missing in &actions {
            let mut less = role.to_vec();
            let left: Vec<&String> = actions.iter().filter(|action| *action != missing).collect();
            match left.is_empty() {
                true => drop(less.remove(index)),
                false => drop(less[index].insert("actions", left)),
            }
            all.push((less, missing.clone()));
        }
    }
    all
}

fn actions(privilege: &Document) -> Vec<String> {
    privilege
        .get_array("actions")
        .into_iter()
        .flatten()
        .filter_map(|action| action.as_str().map(str::to_owned))
        .collect()
}

/// Both sides, of which each wants a log-in.
struct Place {
    source: ReplicaSet,
    target: ReplicaSet,
    directory: TempDir,
}

impl Place {
    async fn new() -> Result<Self, Failure> {
        let options = |name: &str| StartOptions { name: name.to_owned(), auth: true, ..Default::default() };
        let (source, target) =
            tokio::try_join!(ReplicaSet::start(options("source")), ReplicaSet::start(options("target")))?;
        Ok(Self { source, target, directory: tempfile::tempdir()? })
    }

    /// A database with what takes rights: documents that are validated, indexes, one of which expires documents.
    async fn load(&self, name: &str) -> Result<(), Failure> {
        let database = Client::with_uri_str(self.source.uri()).await?.database(name);
        database.run_command(doc! {"create": "orders", "validator": {"n": {"$exists": true}}}).await?;
        let index = doc! {"name": "n", "key": {"n": 1}, "unique": true};
        let expiring = doc! {"name": "at", "key": {"at": 1}, "expireAfterSeconds": 60};
        database.run_command(doc! {"createIndexes": "orders", "indexes": [index, expiring]}).await?;
        for collection in ["orders", "lines"] {
            let documents = (0..2_000).map(|n| doc! {"_id": n, "n": n, "text": "t".repeat(30)});
            database.collection(collection).insert_many(documents).await?;
        }
        Ok(())
    }

    /// A job named after its database, whose users have these rights and no others.
    async fn job(&self, name: &str, source: Vec<Document>, target: Vec<Document>) -> Result<Ferry, Failure> {
        let mut uris = Vec::new();
        for (set, privileges) in [(&self.source, source), (&self.target, target)] {
            uris.push(user(&set.uri(), name, privileges).await?);
        }
        let folder = self.directory.path().join(name);
        std::fs::create_dir_all(&folder)?;
        Ok(Ferry::new(&folder, &uris[0], &uris[1], name).set("MONGOFERRY_INCLUDE", name))
    }

    async fn is_equal(&self, database: &str) -> Result<(), Failure> {
        let source = Client::with_uri_str(self.source.uri()).await?;
        let target = Client::with_uri_str(self.target.uri()).await?;
        let scope = Scope { only_databases: vec![database.to_owned()], ..Default::default() };
        let outcome = compare(&source, &target, &scope).await?;
        assert!(outcome.is_equal() && outcome.documents >= 4_000, "{outcome}");
        Ok(())
    }
}

/// A user with these rights and no others: the connection string.
async fn user(root: &str, name: &str, privileges: Vec<Document>) -> Result<String, Failure> {
    let admin = Client::with_uri_str(root).await?.database("admin");
    admin.run_command(doc! {"createRole": name, "privileges": privileges, "roles": []}).await?;
    let roles = [doc! {"role": name, "db": "admin"}];
    admin.run_command(doc! {"createUser": name, "pwd": "p", "roles": roles, "writeConcern": {"w": "majority"}}).await?;
    Ok(format!("mongodb://{name}:p{}", &root[root.find('@').ok_or("no user")?..]))
}

/// Panics unless a row says that a right is missing, and names it; whether it refuses.
#[track_caller]
fn is_named(ran: &Ran, about: &str, action: &str) -> bool {
    let table = ran.json();
    let rows = table["rows"].as_array().expect("rows").iter();
    let of_rights: Vec<&serde_json::Value> =
        rows.filter(|row| row["check"] == "right" && row["about"] == about).collect();
    let says = |row: &&&serde_json::Value| row["found"].to_string().contains(&format!(" to {action}"));
    let named =
        of_rights.iter().find(|row| ["refusal", "warning"].map(Some).contains(&row["status"].as_str()) && says(row));
    let named = named.unwrap_or_else(|| panic!("without {action} on the {about}: {of_rights:#?}"));
    assert_eq!(ran.code, Some(if table["status"] == "refusal" { 2 } else { 0 }), "without {action}: {ran:?}");
    named["status"] == "refusal"
}

/// A role without an action, or without all that it may do on a resource.
fn without(role: Vec<Document>, missing: &str) -> Vec<Document> {
    let mut left = Vec::new();
    for mut privilege in role {
        if privilege
            .get_document("resource")
            .is_ok_and(|resource| resource.values().any(|v| v.as_str() == Some(missing)))
        {
            continue;
        }
        let actions: Vec<String> = actions(&privilege).into_iter().filter(|action| action != missing).collect();
        if !actions.is_empty() {
            privilege.insert("actions", actions);
            left.push(privilege);
        }
    }
    left
}

fn is_denied(ran: &Ran) -> bool {
    ran.stderr.contains("not authorized")
}

#[tokio::test]
async fn check_names_every_right_of_the_roles_that_is_missing_before_anything_is_changed() -> Result<(), Failure> {
    let place = Place::new().await?;
    place.load("named").await?;
    let with = |ferry: Ferry| ferry.set("MONGOFERRY_INCLUDE", "named").set("MONGOFERRY_EXISTING", "drop");
    let full = with(place.job("full", source_role("named"), target_role("named")).await?);
    let ran = full.run(&["check", "--json"]).await.expect(0);
    let rows = ran.json()["rows"].as_array().ok_or("rows")?.clone();
    let odd: Vec<&serde_json::Value> =
        rows.iter().filter(|row| row["status"] == "warning" || row["status"] == "refusal").collect();
    assert!(odd.is_empty(), "{odd:#?}");

    let (source, target) = (source_role("named"), target_role("named"));
    let source_less =
        each_missing(&source).into_iter().map(|(less, missing)| ("source", less, target.clone(), missing));
    let target_less =
        each_missing(&target).into_iter().map(|(less, missing)| ("target", source.clone(), less, missing));
    for (number, (about, source, target, missing)) in source_less.chain(target_less).enumerate() {
        let name = format!("less{number}");
        let ferry = with(place.job(&name, source, target).await?);
        // What hostInfo is for is not asked where the order is said, and the other way round.
        let order = if missing == "hostInfo" { "auto" } else { "natural" };
        let ferry = ferry.set("MONGOFERRY_READ_ORDER", order);
        let ran = ferry.run(&["check", "--json"]).await;
        if is_named(&ran, about, &missing) {
            let ran = ferry.run(&["step", "all"]).await.expect(2);
            assert!(is_denied(&ran) && ran.stderr.contains(&missing), "without {missing}: {ran:?}");
        }
        assert!(!place.directory.path().join(&name).join("state").join(&name).join("job.json").exists(), "{missing}");
    }
    let there = Client::with_uri_str(place.target.uri()).await?.list_database_names().await?;
    assert!(there.iter().all(|name| ["admin", "config", "local"].contains(&name.as_str())), "{there:?}");
    Ok(())
}

#[tokio::test]
async fn the_roles_of_a_cluster_suffice_and_what_is_missing_of_them_is_named() -> Result<(), Failure> {
    let cluster = Cluster::start(ClusterOptions { auth: true, ..Default::default() }).await?;
    cluster.create_database("parted", "s0").await?;
    cluster.shard_collection("parted.c", doc! {"k": 1}, doc! {}).await?;
    cluster.split("parted.c", doc! {"k": 0}).await?;
    cluster.plant("s0", "parted.c", (-50..50).map(|k| doc! {"_id": k, "k": k})).await?;
    cluster.set_balancer(true).await?;
    let target = ReplicaSet::start(StartOptions { name: "target".into(), auth: true, ..Default::default() }).await?;
    let directory = tempfile::tempdir()?;
    let shard_role: Vec<Document> = [
        without(without(source_role("parted"), "hostInfo"), "replset.initialSyncId"),
        documented("Source: a cluster", 0, "parted"),
    ]
    .concat();
    let config_role = documented("Source: a cluster", 1, "parted");
    let job = async |name: &str, shard: Vec<Document>, config: Vec<Document>| -> Result<Ferry, Failure> {
        let mut shards = Vec::new();
        for uri in cluster.shard_uris() {
            shards.push(user(&uri, name, shard.clone()).await?);
        }
        let config = user(&cluster.config_uri(), name, config).await?;
        let target = user(&target.uri(), name, target_role("parted")).await?;
        let folder = directory.path().join(name);
        std::fs::create_dir_all(&folder)?;
        let ferry = Ferry::new(&folder, "", &target, name).of_shards(&shards, &config);
        Ok(ferry.set("MONGOFERRY_INCLUDE", "parted").set("MONGOFERRY_STOP_BALANCER", "yes"))
    };
    for (number, (less, missing)) in each_missing(&shard_role).into_iter().enumerate() {
        let ferry = job(&format!("shard{number}"), less, config_role.clone()).await?;
        let ran = ferry.run(&["check", "--json"]).await;
        // Who may not ask which shard it is does not reach it.
        if missing == "find" && ran.json()["rows"].to_string().contains("not authorized on admin") {
            ran.expect(2);
        } else {
            is_named(&ran, "shard s0", &missing);
        }
    }
    for (number, (less, missing)) in each_missing(&config_role).into_iter().enumerate() {
        let ferry = job(&format!("config{number}"), shard_role.clone(), less).await?;
        let ran = ferry.run(&["check", "--json"]).await;
        if missing == "find" {
            assert!(ran.expect(2).stdout.contains("not authorized on config"));
        } else {
            assert!(is_named(&ran, "source", &missing));
            let refused = ferry.run(&["step", "all"]).await.expect(2);
            assert!(refused.stderr.contains("sh.stopBalancer()"), "{refused:?}");
        }
    }
    let ferry = job("whole", shard_role, config_role).await?;
    ferry.run(&["check"]).await.expect(0);
    ferry.run(&["step", "all", "--verify", "full"]).await.expect(0);
    let arrived = Client::with_uri_str(target.uri()).await?.database("parted").collection::<Document>("c");
    assert_eq!(arrived.count_documents(doc! {}).await?, 100);
    Ok(())
}

#[tokio::test]
async fn the_documented_roles_suffice() -> Result<(), Failure> {
    let place = Place::new().await?;
    place.load("full").await?;
    let ferry = place.job("full", source_role("full"), target_role("full")).await?;
    ferry.run(&["step", "all", "--verify", "full", "--fence-writes", "yes"]).await.expect(0);
    place.is_equal("full").await?;
    ferry.run(&["step", "verify", "--verify", "full", "--against", "source"]).await.expect(0);
    let checkpoints = Client::with_uri_str(place.target.uri()).await?.database("mongoshake");
    let written: Vec<Document> = checkpoints.collection("ckpt_default").find(doc! {}).await?.try_collect().await?;
    assert_eq!(written.len(), 1, "{written:?}");

    // In the order of the disk, into what is there, without a checkpoint, and with fewer rights.
    place.load("less").await?;
    let source = ["oplog.rs", "transactions"].into_iter().fold(source_role("less"), without);
    let target = ["ckpt_default", "dropCollection"].into_iter().fold(target_role("less"), without);
    let ferry = place
        .job("less", source, target)
        .await?
        .set("MONGOFERRY_CHECKPOINT_MODE", "none")
        .set("MONGOFERRY_READ_ORDER", "natural");
    ferry.run(&["step", "all"]).await.expect(0);
    place.is_equal("less").await?;

    // The checkpoint elsewhere: who writes there may do nothing else.
    place.load("elsewhere").await?;
    let (target, checkpoint) =
        (without(target_role("elsewhere"), "ckpt_default"), target_role("elsewhere").pop().into_iter().collect());
    let elsewhere = user(&place.source.uri(), "checkpoints", checkpoint).await?;
    let ferry = place.job("elsewhere", source_role("elsewhere"), target).await?;
    let ferry = ferry.set("MONGOFERRY_CHECKPOINT_URI", elsewhere).set("MONGOFERRY_CREATE_INDEX", "background");
    ferry.run(&["check"]).await.expect(0);
    ferry.run(&["step", "all"]).await.expect(0);
    place.is_equal("elsewhere").await?;

    place.load("dropped").await?;
    let ferry = place.job("dropped", source_role("dropped"), target_role("dropped")).await?;
    for step in ["discover", "plan", "prepare"] {
        ferry.run(&["step", step]).await.expect(0);
    }
    ferry.run(&["abandon", "--job", "dropped"]).await.expect(0);
    let again = ferry.set("MONGOFERRY_JOB", "again").set("MONGOFERRY_EXISTING", "drop");
    again.run(&["step", "all"]).await.expect(0);
    place.is_equal("dropped").await?;
    Ok(())
}

#[tokio::test]
async fn a_missing_right_shows_before_anything_is_changed_or_does_what_is_documented() -> Result<(), Failure> {
    let place = Place::new().await?;
    // Without these a job goes on.
    for (number, missing) in ["replSetGetConfig", "hostInfo", "replset.initialSyncId"].into_iter().enumerate() {
        let name = format!("without{number}");
        place.load(&name).await?;
        let role = without(source_role(&name), missing);
        let ferry = place.job(&name, role, target_role(&name)).await?;
        ferry.run(&["step", "all"]).await.expect(0);
        place.is_equal(&name).await?;
    }
    // Without these it does not.
    for (number, missing) in
        ["listCollections", "listIndexes", "find", "oplog.rs", "transactions"].into_iter().enumerate()
    {
        let name = format!("refused{number}");
        place.load(&name).await?;
        let role = without(source_role(&name), missing);
        let ferry = place.job(&name, role, target_role(&name)).await?;
        let ran = ferry.run(&["step", "all"]).await;
        assert!(ran.code == Some(2) && is_denied(&ran), "without {missing}: {ran:?}");
    }
    Ok(())
}
