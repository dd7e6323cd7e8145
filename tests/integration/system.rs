//! Functions, roles and users (`--include-system`), on servers that want a log-in and on those that do not.

use crate::support::ferry::{Ferry, files};
use crate::support::servers::{Failure, ReplicaSet, StartOptions, shared_source, shared_target};
use futures_util::TryStreamExt;
use mongodb::bson::{Bson, Document, doc};
use mongodb::{Client, Database};
use std::path::Path;

/// Every password here begins so.
const PASSWORD: &str = "hedgehog-old";

async fn secured(name: &str, version: Option<&str>) -> Result<ReplicaSet, Failure> {
    let version = version.map(str::to_owned);
    ReplicaSet::start(StartOptions { name: name.to_owned(), auth: true, version, ..Default::default() }).await
}

/// A role, a user with both kinds of credentials, one with the older kind alone, and a function.
async fn load(database: &Database) -> Result<(), Failure> {
    let db = database.name();
    database.collection("orders").insert_many((0..20).map(|n| doc! { "_id": n })).await?;
    let resource = doc! { "db": db, "collection": "orders" };
    let privilege = doc! { "resource": resource, "actions": ["insert", "find"] };
    database
        .run_command(doc! { "createRole": "clerk", "privileges": [privilege], "roles": [{ "role": "read", "db": db }] })
        .await?;
    database
        .run_command(doc! {
            "createUser": "app",
            "pwd": format!("{PASSWORD}-app"),
            "roles": [{ "role": "clerk", "db": db }],
            "customData": { "db": db, "team": 7_i64, "since": mongodb::bson::DateTime::now() },
            "authenticationRestrictions": [{ "clientSource": ["127.0.0.1"] }],
        })
        .await?;
    database
        .run_command(doc! {
            "createUser": "old",
            "pwd": format!("{PASSWORD}-old"),
            "mechanisms": ["SCRAM-SHA-1"],
            "roles": [{ "role": "read", "db": db }],
        })
        .await?;
    let function = doc! { "_id": "double", "value": Bson::JavaScriptCode("function (x) { return 2 * x }".into()) };
    database.collection("system.js").insert_one(function).await?;
    Ok(())
}

async fn forget(database: &Database) -> Result<(), Failure> {
    database.run_command(doc! { "dropAllUsersFromDatabase": 1 }).await?;
    database.run_command(doc! { "dropAllRolesFromDatabase": 1 }).await?;
    database.drop().await?;
    Ok(())
}

/// The users, or roles, of a database as the server keeps them.
async fn kept(client: &Client, collection: &str, db: &str) -> Result<Vec<Document>, Failure> {
    let kept = client.database("admin").collection::<Document>(collection);
    Ok(kept.find(doc! { "db": db }).sort(doc! { "_id": 1 }).await?.try_collect().await?)
}

/// No collection of `admin` is left over from a job.
async fn nothing_is_left_over(target: &Client, job: &Ferry) -> Result<(), Failure> {
    let id = job.status().await.ok_or("the job is there")?["id"].as_str().ok_or("an id")?.to_owned();
    let names = target.database("admin").list_collection_names().await?;
    assert!(!names.iter().any(|name| name.contains(&id)), "{names:?}");
    Ok(())
}

/// What of the credentials of these users would let somebody guess the password, or log in.
fn secrets(users: &[Document]) -> Vec<String> {
    let credentials = users.iter().filter_map(|user| user.get_document("credentials").ok()).flat_map(Document::values);
    let each = credentials.filter_map(Bson::as_document).flat_map(Document::values);
    each.filter_map(Bson::as_str).map(str::to_owned).collect()
}

fn shows_none_of(secrets: &[String], what: &str, text: &[u8]) {
    for secret in secrets {
        assert!(!text.windows(secret.len()).any(|part| part == secret.as_bytes()), "{what} has a credential");
    }
}

fn as_user(uri: &str, name: &str, db: &str, mechanism: &str) -> String {
    let hosts = &uri[uri.find('@').map_or("mongodb://".len(), |at| at + 1)..];
    let (hosts, options) = hosts.split_once("/?").unwrap_or((hosts, ""));
    let set = options.split('&').find(|option| option.starts_with("replicaSet")).unwrap_or_default();
    format!("mongodb://{name}:{PASSWORD}-{name}@{hosts}/?{set}&authSource={db}&authMechanism={mechanism}")
}

async fn may_read(uri: &str, db: &str) -> bool {
    let Ok(client) = Client::with_uri_str(format!("{uri}&serverSelectionTimeoutMS=5000")).await else { return false };
    matches!(client.database(db).collection::<Document>("orders").find_one(doc! {}).await, Ok(Some(_)))
}

#[tokio::test]
async fn users_log_in_on_the_target_with_the_passwords_that_they_had() -> Result<(), Failure> {
    let (old, usual) = (Some("4.4.2"), None);
    for (from, to) in [(usual, usual), (old, usual), (old, old)] {
        users_arrive(from, to).await?;
    }
    Ok(())
}

async fn users_arrive(from: Option<&str>, to: Option<&str>) -> Result<(), Failure> {
    let (source, target) = tokio::try_join!(secured("source", from), secured("target", to))?;
    let (from, to) = (Client::with_uri_str(source.uri()).await?, Client::with_uri_str(target.uri()).await?);
    load(&from.database("shop")).await?;
    let whole = doc! { "resource": { "cluster": true }, "actions": ["listDatabases"] };
    let admin = from.database("admin");
    admin.run_command(doc! { "createRole": "auditor", "privileges": [whole], "roles": [] }).await?;
    admin.run_command(doc! { "createUser": "boss", "pwd": format!("{PASSWORD}-boss"), "roles": ["auditor"] }).await?;
    from.database("empty").run_command(doc! { "createUser": "left", "pwd": "x", "roles": [] }).await?;

    let directory = tempfile::tempdir()?;
    let ferry = Ferry::new(directory.path(), &source.uri(), &target.uri(), "users")
        .set("MONGOFERRY_RENAME", "shop:store")
        .set("MONGOFERRY_INCLUDE_SYSTEM", "users,roles,js")
        .set("MONGOFERRY_LOG_LEVEL", "trace");
    let ran = ferry.run(&["step", "all"]).await.expect(0);
    assert!(ran.stdout.contains("1 function, 2 roles, 3 users as on the source"), "{}", ran.stdout);

    for (name, db, mechanism, is_known) in [
        ("app", "store", "SCRAM-SHA-256", true),
        ("app", "store", "SCRAM-SHA-1", true),
        ("old", "store", "SCRAM-SHA-1", true),
        ("old", "store", "SCRAM-SHA-256", false),
        ("app", "shop", "SCRAM-SHA-256", false),
    ] {
        let uri = as_user(&target.uri(), name, db, mechanism);
        assert_eq!(may_read(&uri, "store").await, is_known, "{name} of {db} by {mechanism}");
    }
    let boss = Client::with_uri_str(as_user(&target.uri(), "boss", "admin", "SCRAM-SHA-256")).await?;
    assert!(boss.list_database_names().await?.contains(&"store".to_owned()));

    let (users, there) = (kept(&from, "system.users", "shop").await?, kept(&to, "system.users", "store").await?);
    assert_eq!((users.len(), there.len()), (2, 2));
    for (user, there) in users.iter().zip(&there) {
        for field in ["userId", "credentials", "customData", "authenticationRestrictions"] {
            assert_eq!(user.get(field), there.get(field), "{field}");
        }
    }
    assert_eq!(there[0].get_array("roles")?, &vec![doc! { "role": "clerk", "db": "store" }.into()]);
    let roles = kept(&to, "system.roles", "store").await?;
    let resource = doc! { "db": "store", "collection": "orders" };
    let privilege = roles[0].get_array("privileges")?[0].as_document().ok_or("a document")?.clone();
    assert_eq!(privilege.get_document("resource")?, &resource);
    let function = |client: &Client, db: &str| client.database(db).collection::<Document>("system.js");
    let functions = (
        function(&from, "shop").find_one(doc! {}).await?.ok_or("there")?,
        function(&to, "store").find_one(doc! {}).await?.ok_or("there")?,
    );
    assert_eq!(functions.0, functions.1);
    nothing_is_left_over(&to, &ferry).await?;

    // Whom mongoferry works as is left alone, and who is left out is named.
    let status = ferry.status().await.ok_or("the job is there")?;
    let notes = status["notes"].to_string();
    for part in ["user root of admin is what mongoferry works as", "1 user left out", "empty.left"] {
        assert!(notes.contains(part), "{part}: {notes}");
    }

    let secrets = secrets(&kept(&from, "system.users", "shop").await?);
    assert_eq!(secrets.len(), 9, "a salt and two keys for each of three");
    for (path, content) in files(directory.path()) {
        shows_none_of(&secrets, &path.display().to_string(), &content);
    }
    shows_none_of(&secrets, "stderr", ran.stderr.as_bytes());
    shows_none_of(&secrets, "status", status.to_string().as_bytes());

    // Once more, as another job: there is nothing to do.
    let again = ferry.set("MONGOFERRY_JOB", "again").set("MONGOFERRY_EXISTING", "keep");
    let ran = again.run(&["step", "all"]).await.expect(0);
    assert!(ran.stdout.contains("3 users as on the source"), "{}", ran.stdout);
    assert_eq!(kept(&to, "system.users", "store").await?, there);
    Ok(())
}

/// A job of one database, with all that is asked for.
fn ferry(directory: &Path, source: &ReplicaSet, target: &ReplicaSet, db: &str) -> Ferry {
    Ferry::new(directory, &source.uri(), &target.uri(), db)
        .set("MONGOFERRY_INCLUDE", db)
        .set("MONGOFERRY_INCLUDE_SYSTEM", "js,roles,users")
        .set("MONGOFERRY_CHECKPOINT_NAMESPACE", format!("mongoshake.ckpt_{db}"))
}

/// What the target has of the names of [`load`], and is other than that.
async fn load_others(database: &Database) -> Result<(), Failure> {
    let db = database.name();
    database.run_command(doc! { "createRole": "clerk", "privileges": [], "roles": [] }).await?;
    database.run_command(doc! { "createUser": "app", "pwd": "another", "roles": [] }).await?;
    database
        .run_command(doc! { "createUser": "third", "pwd": "another", "roles": [{ "role": "clerk", "db": db }] })
        .await?;
    database.collection("system.js").insert_one(doc! { "_id": "double", "value": 1 }).await?;
    Ok(())
}

#[tokio::test]
async fn what_the_target_has_in_another_way_is_refused_kept_or_replaced() -> Result<(), Failure> {
    let (source, target) = tokio::try_join!(shared_source(), shared_target())?;
    let (from, to) = (Client::with_uri_str(source.uri()).await?, Client::with_uri_str(target.uri()).await?);
    let directory = tempfile::tempdir()?;
    for (db, existing) in [("sys_kept", "keep"), ("sys_dropped", "drop")] {
        for client in [&from, &to] {
            forget(&client.database(db)).await?;
        }
        load(&from.database(db)).await?;
        load_others(&to.database(db)).await?;
        let before = kept(&to, "system.users", db).await?;
        let ferry = ferry(directory.path(), source, target, db);
        let refused = ferry.run(&["step", "all"]).await.expect(2);
        for part in ["function double of ", "--existing drop", "--existing keep", "leave js out of --include-system"] {
            assert!(refused.stderr.contains(part), "{part}: {}", refused.stderr);
        }
        let without = ferry.clone().set("MONGOFERRY_INCLUDE_SYSTEM", "users");
        let refused = without.run(&["step", "all"]).await.expect(2);
        assert!(refused.stderr.contains(&format!("user app of {db} already")), "{}", refused.stderr);
        assert_eq!(kept(&to, "system.users", db).await?, before);
        let markers = to.database("mongoferry").collection::<Document>("jobs");
        assert_eq!(markers.count_documents(doc! { "job": db }).await?, 0, "nothing was changed");

        let ferry = ferry.set("MONGOFERRY_EXISTING", existing);
        ferry.run(&["step", "all"]).await.expect(0);
        let after = kept(&to, "system.users", db).await?;
        let of_source = kept(&from, "system.users", db).await?;
        let notes = ferry.status().await.ok_or("the job is there")?["notes"].to_string();
        let grants = kept(&to, "system.roles", db).await?[0].get_array("privileges")?.len();
        let function = to.database(db).collection::<Document>("system.js").find_one(doc! {}).await?.ok_or("there")?;
        // `app`, `old` and `third`, in this order.
        assert_eq!((&after[1], &after[2]), (&of_source[1], &before[1]), "what was not there is, and others stay");
        if existing == "keep" {
            assert_eq!((&after[0], grants), (&before[0], 0));
            assert_eq!(function.get("value"), Some(&Bson::Int32(1)));
            for kept in ["function double", "role clerk", "user app"] {
                assert!(notes.contains(&format!("{kept} of {db} is left as it is")), "{kept}: {notes}");
            }
        } else {
            assert_eq!((&after[0], grants), (&of_source[0], 1));
            assert!(matches!(function.get("value"), Some(Bson::JavaScriptCode(_))));
            assert!(!notes.contains("is left as it is"), "{notes}");
        }
        nothing_is_left_over(&to, &ferry).await?;
        for client in [&from, &to] {
            forget(&client.database(db)).await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_user_who_appears_on_the_target_meanwhile_is_a_finding() -> Result<(), Failure> {
    let (source, target) = tokio::try_join!(shared_source(), shared_target())?;
    let (from, to) = (Client::with_uri_str(source.uri()).await?, Client::with_uri_str(target.uri()).await?);
    let directory = tempfile::tempdir()?;
    let db = "sys_late";
    for client in [&from, &to] {
        forget(&client.database(db)).await?;
    }
    load(&from.database(db)).await?;
    let ferry = ferry(directory.path(), source, target, db);
    for step in ["discover", "plan", "prepare", "copy", "index", "verify"] {
        ferry.run(&["step", step]).await.expect(0);
    }
    to.database(db).run_command(doc! { "createUser": "app", "pwd": "another", "roles": [] }).await?;
    let before = kept(&to, "system.users", db).await?;
    let found = ferry.run(&["step", "commit"]).await.expect(4);
    assert!(found.stderr.contains(&format!("user app of {db}")), "{}", found.stderr);
    assert_eq!(kept(&to, "system.users", db).await?, before, "nothing is copied before that is settled");
    assert!(kept(&to, "system.roles", db).await?.is_empty());
    let checkpoints = to.database("mongoshake").collection::<Document>(&format!("ckpt_{db}"));
    assert_eq!(checkpoints.count_documents(doc! {}).await?, 0);

    ferry.run(&["step", "commit", "--accept-findings"]).await.expect(0);
    let after = kept(&to, "system.users", db).await?;
    assert_eq!((&after[0], after.len()), (&before[0], 2));
    let notes = ferry.status().await.ok_or("the job is there")?["notes"].to_string();
    assert!(notes.contains("is left as it is"), "{notes}");
    for client in [&from, &to] {
        forget(&client.database(db)).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_role_that_was_not_copied_is_named() -> Result<(), Failure> {
    let (source, target) = tokio::try_join!(shared_source(), shared_target())?;
    let (from, to) = (Client::with_uri_str(source.uri()).await?, Client::with_uri_str(target.uri()).await?);
    let directory = tempfile::tempdir()?;
    let db = "sys_users";
    for client in [&from, &to] {
        forget(&client.database(db)).await?;
    }
    load(&from.database(db)).await?;
    let ferry = ferry(directory.path(), source, target, db).set("MONGOFERRY_INCLUDE_SYSTEM", "users");
    ferry.run(&["step", "all"]).await.expect(0);
    let notes = ferry.status().await.ok_or("the job is there")?["notes"].to_string();
    assert!(notes.contains(&format!("user app of {db} has a role that the target does not have")), "{notes}");
    assert!(notes.contains(&format!("clerk of {db}")) && !notes.contains("user old"), "{notes}");
    for client in [&from, &to] {
        forget(&client.database(db)).await?;
    }
    Ok(())
}

#[tokio::test]
async fn credentials_do_not_outlive_a_job_that_was_killed_and_abandoned() -> Result<(), Failure> {
    let (source, target) = tokio::try_join!(shared_source(), shared_target())?;
    let (from, to) = (Client::with_uri_str(source.uri()).await?, Client::with_uri_str(target.uri()).await?);
    let directory = tempfile::tempdir()?;
    let db = "sys_killed";
    for client in [&from, &to] {
        forget(&client.database(db)).await?;
    }
    load(&from.database(db)).await?;
    let ferry = ferry(directory.path(), source, target, db);
    let killed = ferry.clone().set("MONGOFERRY_PANIC_BEFORE", "system-merge:2").run(&["step", "all"]).await;
    assert_ne!(killed.code, Some(0), "{}", killed.stderr);
    let id = ferry.status().await.ok_or("the job is there")?["id"].as_str().ok_or("an id")?.to_owned();
    let names = to.database("admin").list_collection_names().await?;
    assert!(names.contains(&format!("mongoferry_users_{id}")), "{names:?}");
    ferry.run(&["abandon"]).await.expect(0);
    nothing_is_left_over(&to, &ferry).await?;
    for client in [&from, &to] {
        forget(&client.database(db)).await?;
    }
    Ok(())
}

/// What docs/security.md asks for, and what every job takes behind it.
fn source_rights(db: &str) -> Vec<Document> {
    let collections = ["find", "listCollections", "listIndexes", "collStats"];
    vec![
        doc! { "resource": { "db": db, "collection": "system.js" }, "actions": ["find"] },
        doc! { "resource": { "db": "admin", "collection": "system.roles" }, "actions": ["find"] },
        doc! { "resource": { "db": "admin", "collection": "system.users" }, "actions": ["find"] },
        doc! { "resource": { "db": db, "collection": "" }, "actions": collections.to_vec() },
        doc! { "resource": { "db": "local", "collection": "oplog.rs" }, "actions": ["find"] },
        doc! { "resource": { "db": "config", "collection": "transactions" }, "actions": ["find"] },
    ]
}

fn target_rights(db: &str) -> Vec<Document> {
    let everywhere = ["createUser", "createRole", "grantRole", "revokeRole"];
    let temporary = ["find", "insert", "createCollection", "dropCollection"];
    let documents = ["find", "insert", "update", "remove", "bypassDocumentValidation"];
    let collections =
        ["listCollections", "createCollection", "dropCollection", "listIndexes", "createIndex", "collStats"];
    let copied = [&documents[..], &collections].concat();
    vec![
        doc! { "resource": { "db": db, "collection": "system.js" }, "actions": ["find", "insert", "update"] },
        doc! { "resource": { "db": "admin", "collection": "system.roles" }, "actions": ["find"] },
        doc! { "resource": { "db": "admin", "collection": "system.users" }, "actions": ["find"] },
        doc! { "resource": { "db": "", "collection": "" }, "actions": everywhere.to_vec() },
        doc! { "resource": { "db": "admin", "collection": "" }, "actions": temporary.to_vec() },
        doc! { "resource": { "cluster": true }, "actions": ["listDatabases"] },
        doc! { "resource": { "db": db, "collection": "" }, "actions": copied.clone() },
        doc! { "resource": { "db": "mongoferry", "collection": "" }, "actions": copied.clone() },
        doc! { "resource": { "db": "mongoshake", "collection": "" }, "actions": documents.to_vec() },
    ]
}

/// A user with these roles and privileges, and his connection string.
async fn user(set: &ReplicaSet, name: &str, roles: &[&str], privileges: Vec<Document>) -> Result<String, Failure> {
    let uri = set.uri();
    let admin = Client::with_uri_str(&uri).await?.database("admin");
    admin.run_command(doc! { "createRole": name, "privileges": privileges, "roles": [] }).await?;
    let roles: Vec<&str> = roles.iter().copied().chain([name]).collect();
    let create = doc! { "createUser": name, "pwd": "p", "roles": roles, "writeConcern": { "w": "majority" } };
    admin.run_command(create).await?;
    Ok(format!("mongodb://{name}:p{}", &uri[uri.find('@').ok_or("no user")?..]))
}

#[tokio::test]
async fn the_documented_rights_suffice_and_each_that_is_missing_is_named() -> Result<(), Failure> {
    let (source, target) = tokio::try_join!(secured("source", None), secured("target", None))?;
    let (from, to) = (Client::with_uri_str(source.uri()).await?, Client::with_uri_str(target.uri()).await?);
    let directory = tempfile::tempdir()?;
    load(&from.database("shop")).await?;
    let good = (
        user(&source, "reader", &[], source_rights("shop")).await?,
        user(&target, "writer", &[], target_rights("shop")).await?,
    );
    let job = |name: &str, source: &str, target: &str| {
        Ferry::new(directory.path(), source, target, name)
            .set("MONGOFERRY_INCLUDE", "shop")
            .set("MONGOFERRY_INCLUDE_SYSTEM", "js,roles,users")
    };
    for (number, missing) in ["system.js", "system.roles", "system.users"].into_iter().enumerate() {
        let mut rights = source_rights("shop");
        rights.remove(number);
        let name = format!("reader{number}");
        let uri = user(&source, &name, &[], rights).await?;
        let ran = job(&name, &uri, &good.1).run(&["step", "all"]).await.expect(2);
        let named = ran.stderr.contains(missing)
            && ran.stderr.contains("the user of the source lacks a right: not authorized on");
        assert!(named, "without {missing}: {}", ran.stderr);
    }
    for (number, missing) in
        ["on shop.system.js to find", "admin.system.roles", "admin.system.users", "on all databases to createUser"]
            .into_iter()
            .enumerate()
    {
        let mut rights = target_rights("shop");
        rights.remove(number);
        let name = format!("writer{number}");
        let uri = user(&target, &name, &[], rights).await?;
        let ran = job(&name, &good.0, &uri).run(&["step", "all"]).await.expect(2);
        assert!(ran.stderr.contains(missing), "without {missing}: {}", ran.stderr);
    }
    job("enough", &good.0, &good.1).run(&["step", "all"]).await.expect(0);
    assert_eq!(kept(&to, "system.users", "shop").await?, kept(&from, "system.users", "shop").await?);

    // The built-in roles contain all of it.
    let reading = ["readAnyDatabase", "clusterMonitor", "backup"];
    let of_config = doc! { "resource": { "db": "config", "collection": "" }, "actions": ["find"] };
    let backup = user(&source, "backed", &reading, vec![of_config]).await?;
    let writing = ["readWriteAnyDatabase", "dbAdminAnyDatabase", "clusterMonitor", "restore", "backup"];
    let restore = user(&target, "restored", &writing, vec![]).await?;
    let again = job("builtin", &backup, &restore).set("MONGOFERRY_RENAME", "shop:store");
    again.run(&["step", "all"]).await.expect(0);
    assert_eq!(kept(&to, "system.users", "store").await?.len(), 2);

    // Neither does who may do anything lack anything.
    let anything = vec![doc! { "resource": { "anyResource": true }, "actions": ["anyAction"] }];
    let from_any = user(&source, "anybody", &[], anything.clone()).await?;
    let to_any = user(&target, "anybody", &[], anything).await?;
    let all = job("anything", &from_any, &to_any).set("MONGOFERRY_RENAME", "shop:stock");
    all.run(&["step", "all"]).await.expect(0);
    Ok(())
}
