//! The main job from end to end: what arrives, what a second run does, what single steps do, what is kept and refused.

use crate::support::compare::{Scope, compare};
use crate::support::ferry::{Ferry, files};
use crate::support::golden::compare_golden;
use crate::support::servers::{Failure, Minio, ReplicaSet, StartOptions, shared_minio, shared_source, shared_target};
use mongodb::Client;
use mongodb::bson::{Bson, Document, doc};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

async fn clients() -> Result<(&'static ReplicaSet, &'static ReplicaSet, Client, Client), Failure> {
    let (source, target) = tokio::try_join!(shared_source(), shared_target())?;
    let (from, to) = (Client::with_uri_str(source.uri()).await?, Client::with_uri_str(target.uri()).await?);
    Ok((source, target, from, to))
}

/// Loads data with the fixture's own binary.
async fn fixture(arguments: &[&str]) -> Result<(), Failure> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mongoferry-fixture"));
    command.args(arguments);
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned().into()) }
}

async fn assert_equal(from: &Client, to: &Client, database: &str, renamed: &str) -> Result<(), Failure> {
    let mut scope = Scope { only_databases: vec![database.to_owned()], ..Scope::default() };
    if database != renamed {
        scope.rename(&format!("{database}:{renamed}"))?;
    }
    let outcome = compare(from, to, &scope).await?;
    assert!(outcome.is_equal(), "{outcome}");
    Ok(())
}

/// What the target has written since it started.
async fn writes(client: &Client) -> Result<Vec<i64>, Failure> {
    let status = client.database("admin").run_command(doc! { "serverStatus": 1 }).await?;
    let documents = status.get_document("metrics")?.get_document("document")?;
    Ok(["inserted", "updated", "deleted"].iter().filter_map(|name| documents.get_i64(name).ok()).collect())
}

fn job(directory: &Path, source: &ReplicaSet, target: &ReplicaSet, name: &str) -> Ferry {
    Ferry::new(directory, &source.uri(), &target.uri(), name)
        .set("MONGOFERRY_INCLUDE", name)
        .set("MONGOFERRY_CHECKPOINT_NAMESPACE", format!("mongoshake.ckpt_{name}"))
}

#[tokio::test]
async fn everything_odd_arrives_and_a_second_run_changes_nothing() -> Result<(), Failure> {
    // Servers of its own: what the target writes is counted.
    let options = |name: &str| StartOptions { name: name.to_owned(), ..StartOptions::default() };
    let (source, target) = tokio::try_join!(ReplicaSet::start(options("from")), ReplicaSet::start(options("to")))?;
    let (from, to) = (Client::with_uri_str(source.uri()).await?, Client::with_uri_str(target.uri()).await?);
    fixture(&["load-small", "--uri", &source.uri(), "--db", "odd"]).await?;
    let directory = tempfile::tempdir()?;
    let ferry = job(directory.path(), &source, &target, "odd").set("MONGOFERRY_LOG_FORMAT", "json");
    let first = ferry.run(&["step", "all"]).await.expect(0);
    assert_eq!(first.json()["status"], "done");
    assert_equal(&from, &to, "odd", "odd").await?;

    let (state, written) = (files(&directory.path().join("state")), writes(&to).await?);
    ferry.run(&["step", "all"]).await.expect(0);
    assert_eq!(files(&directory.path().join("state")), state, "a second run wrote state");
    assert_eq!(writes(&to).await?, written, "a second run wrote to the target");
    // A single step that is done is done, too; verify by hand compares again.
    for step in ["discover", "plan", "prepare", "copy", "index", "verify", "commit"] {
        ferry.run(&["step", step]).await.expect(0);
    }
    assert_eq!(writes(&to).await?, written);

    let committed: Vec<Document> = {
        use futures_util::TryStreamExt;
        to.database("mongoshake").collection("ckpt_odd").find(doc! {}).await?.try_collect().await?
    };
    let [checkpoint] = committed.as_slice() else { panic!("one checkpoint, not {committed:?}") };
    let status = ferry.status().await.ok_or("the job is there")?;
    assert_eq!(checkpoint.get_str("name")?, "from");
    assert_eq!(json!(checkpoint.get_i64("ckpt")?), status["checkpoint"]["from"]["ckpt"]);
    assert_eq!(checkpoint.get_i32("version")?, 2);
    Ok(())
}

#[tokio::test]
async fn single_steps_in_separate_processes_do_what_all_does() -> Result<(), Failure> {
    let (source, target, from, to) = clients().await?;
    let database = from.database("single");
    database.collection("c").insert_many((0..50).map(|n| doc! { "_id": n, "k": n })).await?;
    database.run_command(doc! { "createIndexes": "c", "indexes": [{ "key": { "k": 1 }, "name": "k" }] }).await?;
    let directory = tempfile::tempdir()?;
    let ferry = job(directory.path(), source, target, "single").set("MONGOFERRY_CREATE_INDEX", "background");
    for (step, next) in
        [("discover", "copy"), ("plan", "copy"), ("prepare", "index"), ("copy", "verify"), ("index", "commit")]
    {
        ferry.run(&["step", step]).await.expect(0);
        let refused = ferry.run(&["step", next]).await;
        if next != "copy" || step != "prepare" {
            assert!(refused.code == Some(2), "{next} ran after {step}: {}", refused.stderr);
            assert!(refused.stderr.contains("run `mongoferry step"), "{}", refused.stderr);
        }
    }
    ferry.run(&["step", "verify"]).await.expect(0);
    ferry.run(&["step", "commit"]).await.expect(0);
    assert_equal(&from, &to, "single", "single").await?;
    assert_eq!(ferry.status().await.ok_or("there")?["status"], "done");
    Ok(())
}

#[tokio::test]
async fn a_foreign_document_stays_and_is_a_finding_until_it_is_accepted() -> Result<(), Failure> {
    let (source, target, from, to) = clients().await?;
    from.database("foreign")
        .collection("c")
        .insert_many([doc! { "_id": 1, "x": 1 }, doc! { "_id": 2, "x": 2 }])
        .await?;
    let there = to.database("foreign").collection::<Document>("c");
    there.insert_many([doc! { "_id": 1, "x": "mine" }, doc! { "_id": 2, "x": 2 }, doc! { "_id": 3 }]).await?;
    let directory = tempfile::tempdir()?;
    let ferry = job(directory.path(), source, target, "foreign").set("MONGOFERRY_EXISTING", "keep");
    let stopped = ferry.run(&["step", "all"]).await.expect(4);
    assert!(stopped.stderr.contains("foreign.c"), "{}", stopped.stderr);
    let status = ferry.status().await.ok_or("there")?;
    assert_eq!(status["status"], "findings");
    assert_eq!(status["documents"]["rejected"], 1);
    assert!(status["findings"].to_string().contains("_id"), "{}", status["findings"]);
    assert_eq!(there.find_one(doc! { "_id": 1 }).await?, Some(doc! { "_id": 1, "x": "mine" }));
    ferry.run(&["step", "all", "--accept-findings"]).await.expect(0);
    assert_eq!(there.count_documents(doc! {}).await?, 3);
    Ok(())
}

#[tokio::test]
async fn a_unique_index_that_cannot_be_built_is_a_finding_and_the_others_are_built() -> Result<(), Failure> {
    let (source, target, from, to) = clients().await?;
    let database = from.database("uniques");
    database.collection("c").insert_many((0..10).map(|n| doc! { "_id": n, "email": n, "k": n })).await?;
    let indexes =
        vec![doc! { "key": { "email": 1 }, "name": "email", "unique": true }, doc! { "key": { "k": 1 }, "name": "k" }];
    database.run_command(doc! { "createIndexes": "c", "indexes": indexes.clone() }).await?;
    let directory = tempfile::tempdir()?;
    let ferry = job(directory.path(), source, target, "uniques");
    ferry.run(&["step", "discover"]).await.expect(0);
    // On both sides, so that it is none that reading the documents again would mend.
    database.run_command(doc! { "dropIndexes": "c", "index": "email" }).await?;
    let here = database.collection::<Document>("c");
    here.update_one(doc! { "_id": 3 }, doc! { "$set": { "email": 4 } }).await?;
    for step in ["plan", "prepare", "copy"] {
        ferry.run(&["step", step]).await.expect(0);
    }
    let there = to.database("uniques").collection::<Document>("c");
    let stopped = ferry.run(&["step", "index"]).await.expect(4);
    assert!(stopped.stderr.contains("index email"), "{}", stopped.stderr);
    assert!(there.list_index_names().await?.contains(&"k".to_owned()));
    // Mended, the same command goes on.
    for side in [&here, &there] {
        side.update_one(doc! { "_id": 3 }, doc! { "$set": { "email": 3 } }).await?;
    }
    database.run_command(doc! { "createIndexes": "c", "indexes": [indexes[0].clone()] }).await?;
    ferry.run(&["step", "all"]).await.expect(0);
    assert_equal(&from, &to, "uniques", "uniques").await
}

#[tokio::test]
async fn an_abandoned_job_lets_another_one_have_its_namespaces() -> Result<(), Failure> {
    let (source, target, from, to) = clients().await?;
    from.database("given_up").collection("c").insert_many((0..10).map(|n| doc! { "_id": n })).await?;
    let directory = tempfile::tempdir()?;
    let first = job(directory.path(), source, target, "given_up");
    for step in ["discover", "plan", "prepare"] {
        first.run(&["step", step]).await.expect(0);
    }
    let second = first.clone().set("MONGOFERRY_JOB", "second").set("MONGOFERRY_EXISTING", "drop");
    let refused = second.run(&["step", "all"]).await.expect(2);
    assert!(refused.stderr.contains("given_up") && refused.stderr.contains("abandon"), "{}", refused.stderr);
    first.run(&["abandon", "--job", "given_up"]).await.expect(0);
    first.run(&["abandon", "--job", "given_up"]).await.expect(0);
    assert!(first.run(&["step", "all"]).await.expect(2).stderr.contains("abandoned"));
    assert_eq!(first.status().await.ok_or("there")?["status"], "abandoned");
    second.run(&["step", "all"]).await.expect(0);
    assert_equal(&from, &to, "given_up", "given_up").await
}

#[tokio::test]
async fn a_password_shows_nowhere_with_the_state_in_minio() -> Result<(), Failure> {
    let options = |name: &str| StartOptions { name: name.to_owned(), auth: true, ..StartOptions::default() };
    let (source, target) = tokio::try_join!(ReplicaSet::start(options("safe")), ReplicaSet::start(options("vault")))?;
    let minio = shared_minio().await?;
    minio.create_bucket("secrets")?;
    let (from, to) = (Client::with_uri_str(source.uri()).await?, Client::with_uri_str(target.uri()).await?);
    from.database("secret").collection("c").insert_many((0..100).map(|n| doc! { "_id": n })).await?;
    let directory = tempfile::tempdir()?;
    let mut ferry = job(directory.path(), &source, &target, "secret")
        .set("MONGOFERRY_STATE", "s3://secrets/some/where")
        .set("MONGOFERRY_S3_ENDPOINT", minio.endpoint())
        .set("MONGOFERRY_LOG_LEVEL", "trace");
    for (name, value) in minio.environment() {
        ferry = ferry.set(name, value);
    }
    let ran = ferry.run(&["step", "all"]).await.expect(0);
    assert_equal(&from, &to, "secret", "secret").await?;
    let status = ferry.run(&["status"]).await.expect(0);
    let password =
        source.uri().split_once("://").and_then(|(_, rest)| rest.rsplit_once('@')).map(|(user, _)| user.to_owned());
    let password = password.as_deref().and_then(|user| user.split_once(':')).map(|(_, password)| password.to_owned());
    let password = password.ok_or("the URI has a password")?;
    let plain = percent_encoding::percent_decode_str(&password).decode_utf8_lossy().into_owned();
    let stored = objects("secrets").await?;
    assert!(stored.len() > 10, "{} objects", stored.len());
    for text in stored.iter().chain([&ran.stdout, &ran.stderr, &status.stdout, &status.stderr]) {
        assert!(!text.contains(&password) && !text.contains(&plain), "a password shows in {text}");
    }
    Ok(())
}

/// Every object of the bucket, as text.
async fn objects(bucket: &str) -> Result<Vec<String>, Failure> {
    let minio = shared_minio().await?;
    let credentials = aws_sdk_s3::config::Credentials::new(Minio::ACCESS_KEY, Minio::SECRET_KEY, None, None, "test");
    let config = aws_sdk_s3::Config::builder()
        .behavior_version_latest()
        .credentials_provider(credentials)
        .region(aws_sdk_s3::config::Region::new(Minio::REGION))
        .endpoint_url(minio.endpoint())
        .force_path_style(true)
        .http_client(
            aws_smithy_http_client::Builder::new()
                .tls_provider(aws_smithy_http_client::tls::Provider::Rustls(
                    aws_smithy_http_client::tls::rustls_provider::CryptoMode::Ring,
                ))
                .build_https(),
        )
        .build();
    let client = aws_sdk_s3::Client::from_conf(config);
    let mut texts = Vec::new();
    for object in client.list_objects_v2().bucket(bucket).send().await?.contents() {
        let key = object.key().ok_or("an object has a key")?;
        let body = client.get_object().bucket(bucket).key(key).send().await?.body.collect().await?;
        texts.push(String::from_utf8_lossy(&body.into_bytes()).into_owned());
    }
    Ok(texts)
}

#[tokio::test]
async fn options_that_differ_are_found_by_verify() -> Result<(), Failure> {
    let (source, target, from, to) = clients().await?;
    from.database("verified").collection("c").insert_many((0..10).map(|n| doc! { "_id": n, "k": n })).await?;
    from.database("verified")
        .run_command(doc! { "createIndexes": "c", "indexes": [{ "key": { "k": 1 }, "name": "k" }] })
        .await?;
    let directory = tempfile::tempdir()?;
    let ferry = job(directory.path(), source, target, "verified");
    for step in ["discover", "plan", "prepare", "copy", "index"] {
        ferry.run(&["step", step]).await.expect(0);
    }
    let there = to.database("verified");
    there.run_command(doc! { "collMod": "c", "validator": { "k": { "$gte": 0 } } }).await?;
    there.run_command(doc! { "dropIndexes": "c", "index": "k" }).await?;
    there.collection::<Document>("c").delete_one(doc! { "_id": 5 }).await?;
    ferry.run(&["step", "verify"]).await.expect(4);
    let findings = ferry.status().await.ok_or("there")?["findings"].to_string();
    for text in ["option validator is not on the source", "index k is missing", "9 documents, expected 10"] {
        assert!(findings.contains(text), "{text}: {findings}");
    }
    ferry.run(&["step", "commit"]).await.expect(2);
    Ok(())
}

#[tokio::test]
async fn a_status_has_the_documented_fields() -> Result<(), Failure> {
    let (source, target, from, _) = clients().await?;
    from.database("shown").collection("c").insert_many((0..10).map(|n| doc! { "_id": n })).await?;
    let directory = tempfile::tempdir()?;
    let ferry = job(directory.path(), source, target, "shown");
    ferry.run(&["step", "all"]).await.expect(0);
    let mut status = ferry.status().await.ok_or("there")?;
    normalise(&mut status);
    compare_golden("status.json", &status)?;
    Ok(())
}

/// Replaces what differs from run to run.
fn normalise(value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(normalise),
        Value::Object(fields) => {
            for (name, value) in fields {
                match name.as_str() {
                    "id"
                    | "started"
                    | "finished"
                    | "saved"
                    | "seconds"
                    | "increment"
                    | "ckpt"
                    | "seconds_left"
                    | "seconds_at_checkpoint" => *value = json!("…"),
                    "summary" if value.to_string().contains("Timestamp") => *value = json!("…"),
                    _ => normalise(value),
                }
            }
        }
        _ => {}
    }
}

#[tokio::test]
async fn bytes_of_every_kind_are_equal_after_a_copy_with_a_rename() -> Result<(), Failure> {
    let (source, target, from, to) = clients().await?;
    let documents = [
        doc! { "_id": Bson::Double(f64::from_bits(0x7ff8_0000_0000_1234)), "nan": f64::from_bits(0x7ff8_dead_0000_0001) },
        doc! { "_id": { "a": 1, "b": { "c": [1, 2] } }, "": "empty name" },
        doc! { "_id": Bson::MinKey, "big": "x".repeat(15 * 1024 * 1024) },
        doc! { "_id": Bson::MaxKey, "deep": (0..90).fold(doc! {}, |inner, _| doc! { "d": inner }) },
        doc! { "_id": mongodb::bson::Timestamp { time: 0, increment: 7 }, "nested": { "t": mongodb::bson::Timestamp { time: 0, increment: 0 } } },
    ];
    for document in documents {
        from.database("of_kinds").collection("c.d").insert_one(document).await?;
    }
    let directory = tempfile::tempdir()?;
    let ferry = job(directory.path(), source, target, "of_kinds").set("MONGOFERRY_RENAME", "of_kinds:sorts");
    ferry.run(&["step", "all"]).await.expect(0);
    assert_equal(&from, &to, "of_kinds", "sorts").await
}
