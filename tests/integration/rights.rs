//! The roles of docs/security.md suffice, and what it says of each right that is missing is so.

use futures_util::TryStreamExt;
use mongodb::Client;
use mongodb::bson::{Document, doc};
use tempfile::TempDir;

use crate::support::compare::{Scope, compare};
use crate::support::ferry::{Ferry, Ran};
use crate::support::servers::{Failure, ReplicaSet, StartOptions};

/// A privilege: on the cluster where there is no database, on all collections of a database where there is none.
fn privilege(on: Option<(&str, &str)>, actions: &[&str]) -> Document {
    let resource = match on {
        None => doc! {"cluster": true},
        Some((db, collection)) => doc! {"db": db, "collection": collection},
    };
    doc! {"resource": resource, "actions": actions}
}

fn source_role(database: &str) -> Vec<Document> {
    vec![
        // Without listDatabases a user sees the databases that he has a right on.
        privilege(None, &["replSetGetConfig", "hostInfo"]),
        privilege(Some((database, "")), &["find", "listCollections", "listIndexes"]),
        privilege(Some(("local", "oplog.rs")), &["find"]),
        privilege(Some(("local", "replset.initialSyncId")), &["find"]),
        privilege(Some(("config", "transactions")), &["find"]),
    ]
}

fn target_role(database: &str) -> Vec<Document> {
    let documents = ["find", "insert", "update", "remove"];
    let collections =
        ["listCollections", "createCollection", "dropCollection", "listIndexes", "createIndex", "collStats"];
    let copied = [&documents[..], &collections, &["bypassDocumentValidation"]].concat();
    let marker = [&documents[..], &["createCollection", "createIndex", "listCollections"]].concat();
    vec![
        privilege(None, &["listDatabases", "replSetGetConfig"]),
        privilege(Some((database, "")), &copied),
        privilege(Some(("mongoferry", "")), &marker),
        privilege(Some(("mongoshake", "ckpt_default")), &["find", "insert", "update"]),
    ]
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

    /// A database with what takes rights: documents that are validated, indexes.
    async fn load(&self, name: &str) -> Result<(), Failure> {
        let database = Client::with_uri_str(self.source.uri()).await?.database(name);
        database.run_command(doc! {"create": "orders", "validator": {"n": {"$exists": true}}}).await?;
        let index = doc! {"name": "n", "key": {"n": 1}, "unique": true};
        database.run_command(doc! {"createIndexes": "orders", "indexes": [index]}).await?;
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
            let uri = set.uri();
            let admin = Client::with_uri_str(&uri).await?.database("admin");
            admin.run_command(doc! {"createRole": name, "privileges": privileges, "roles": []}).await?;
            let roles = [doc! {"role": name, "db": "admin"}];
            admin
                .run_command(doc! {"createUser": name, "pwd": "p", "roles": roles, "writeConcern": {"w": "majority"}})
                .await?;
            uris.push(format!("mongodb://{name}:p{}", &uri[uri.find('@').ok_or("no user")?..]));
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
        let actions: Vec<String> = privilege
            .get_array("actions")
            .into_iter()
            .flatten()
            .filter_map(|action| action.as_str().filter(|action| *action != missing).map(str::to_owned))
            .collect();
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
