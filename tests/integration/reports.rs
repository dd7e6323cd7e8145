//! Reports: what they say of real jobs, wherever their state lies, and where they are written.

use crate::support::ferry::Ferry;
use crate::support::golden::compare_golden;
use crate::support::servers::{Failure, shared_minio, shared_source, shared_target};
use mongodb::Client;
use mongodb::bson::{Document, doc};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// A database of the shared source with a collection, two indexes, and one that is left out; a job that copies it under
/// another name.
async fn job(directory: &Path, name: &str) -> Result<Ferry, Failure> {
    let (source, target) = tokio::try_join!(shared_source(), shared_target())?;
    let there = Client::with_uri_str(source.uri()).await?.database(name);
    there.collection("orders").insert_many((0..1500).map(|n| doc! { "_id": n, "k": n % 7 })).await?;
    let indexes = doc! { "createIndexes": "orders", "indexes": [
        { "key": { "k": 1 }, "name": "k_1" }, { "key": { "t": 1 }, "name": "t_1", "expireAfterSeconds": 60_000 },
    ] };
    there.run_command(indexes).await?;
    there.collection::<Document>("log").insert_one(doc! { "_id": 1 }).await?;
    Ok(Ferry::new(directory, &source.uri(), &target.uri(), name)
        .set("MONGOFERRY_INCLUDE", name)
        .set("MONGOFERRY_EXCLUDE", format!("{name}.log"))
        .set("MONGOFERRY_RENAME", format!("{name}:{name}_new"))
        .set("MONGOFERRY_CHECKPOINT_NAMESPACE", format!("mongoshake.ckpt_{name}")))
}

/// What a report needs: the state alone.
fn without_servers(ferry: &Ferry) -> Ferry {
    ferry.clone().unset("MONGOFERRY_SOURCE").unset("MONGOFERRY_TARGET")
}

async fn page(ferry: &Ferry, directory: &Path) -> Result<String, Failure> {
    let ran = without_servers(ferry).run(&["report", "--html", "report.html"]).await.expect(0);
    assert_eq!(ran.stdout, "");
    Ok(fs::read_to_string(directory.join("report.html"))?)
}

/// Replaces what differs from run to run, and what other tests have on the same source.
fn normalise(value: &mut Value) {
    const DIFFERENT: [&str; 20] = [
        "id",
        "reported",
        "version",
        "discovered_by",
        "begun",
        "ended",
        "started",
        "finished",
        "captured",
        "milliseconds",
        "seconds",
        "increment",
        "ckpt",
        "replica_set_id",
        "processes",
        "hosts",
        "uuid",
        "left_out",
        "oldest_transaction",
        "cluster_id",
    ];
    match value {
        Value::Array(values) => values.iter_mut().for_each(normalise),
        Value::Object(fields) => {
            for (name, value) in fields {
                match name.as_str() {
                    name if DIFFERENT.contains(&name) => *value = json!("…"),
                    "summary" if value.to_string().contains("Timestamp") => *value = json!("…"),
                    _ => normalise(value),
                }
            }
        }
        _ => {}
    }
}

#[tokio::test]
async fn a_report_has_the_documented_fields() -> Result<(), Failure> {
    let directory = tempfile::tempdir()?;
    let ferry = job(directory.path(), "signed").await?;
    ferry.run(&["step", "all"]).await.expect(0);
    let mut report = without_servers(&ferry).run(&["report"]).await.expect(0).json();
    let left_out = report["left_out"].to_string();
    assert!(left_out.contains(r#"{"name":"signed.log","kind":"collection","why":"filter"}"#), "{left_out}");
    assert!(left_out.contains(r#"{"name":"admin","why":"special"}"#), "{left_out}");
    let others = report["verdict"]["unproven"].as_array_mut().ok_or("a list")?;
    others.retain(|sentence| !sentence.to_string().contains("Left out: "));
    normalise(&mut report);
    compare_golden("report.json", &report)?;
    Ok(())
}

#[tokio::test]
async fn a_page_is_replaced_as_the_job_goes_on_and_says_plainly_when_it_is_not_finished() -> Result<(), Failure> {
    let directory = tempfile::tempdir()?;
    let ferry = job(directory.path(), "reported_twice").await?;
    for step in ["discover", "plan", "prepare", "copy"] {
        ferry.run(&["step", step]).await.expect(0);
    }
    let early = page(&ferry, directory.path()).await?;
    for text in ["Nothing is signed off with this report.", ", at the step index", "Not done: index, verify, commit."] {
        assert!(early.contains(text), "{text}: {early}");
    }
    for step in ["index", "verify", "commit"] {
        ferry.run(&["step", step]).await.expect(0);
    }
    let done = page(&ferry, directory.path()).await?;
    for text in [
        "The copy is complete and committed: 1,500 documents of 1 collection, without findings.",
        "reported_twice.orders → reported_twice_new.orders",
        "t_1 {&quot;t&quot;:1}, expireAfterSeconds: 60000",
        "<code>reported_twice.log</code>",
    ] {
        assert!(done.contains(text), "{text}: {done}");
    }
    assert!(!done.contains("Nothing is signed off") && !done.contains("mongodb://"), "{done}");
    let is_draft = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with('.');
    assert_eq!(fs::read_dir(directory.path())?.flatten().filter(is_draft).count(), 0, "no draft is left");
    Ok(())
}

#[tokio::test]
async fn a_name_that_is_a_script_is_shown_and_what_was_accepted_is_told() -> Result<(), Failure> {
    let directory = tempfile::tempdir()?;
    let name = "reported_odd";
    let (source, target) = tokio::try_join!(shared_source(), shared_target())?;
    let odd = "<script>alert('\"&</script>{{body}}";
    for (uri, value) in [(source.uri(), 1), (target.uri(), 2)] {
        let there = Client::with_uri_str(uri).await?.database(name);
        there.collection::<Document>(odd).insert_one(doc! { "_id": "<img src=x>", "value": value }).await?;
    }
    let ferry = Ferry::new(directory.path(), &source.uri(), &target.uri(), name)
        .set("MONGOFERRY_INCLUDE", name)
        .set("MONGOFERRY_EXISTING", "keep")
        .set("MONGOFERRY_CHECKPOINT_URI", "none");
    ferry.run(&["step", "all", "--verify", "none"]).await.expect(4);
    let open = page(&ferry, directory.path()).await?;
    assert!(open.contains("Findings to mend or accept (1)"), "{open}");
    ferry.run(&["step", "all", "--verify", "none", "--accept-findings"]).await.expect(0);
    let report = without_servers(&ferry).run(&["report", "--json"]).await.expect(0).json();
    assert_eq!(report["verdict"]["outcome"], "accepted");
    assert_eq!(report["findings_accepted"], true);
    assert_eq!(report["collections"][0]["rejected"], 1);
    let unproven = report["verdict"]["unproven"].to_string();
    for text in ["accepted, not mended", "Not on the target: 1 document.", "--verify none", "--existing keep"] {
        assert!(unproven.contains(text), "{text}: {unproven}");
    }
    let accepted = page(&ferry, directory.path()).await?;
    assert!(accepted.contains("Findings that were accepted (1)"), "{accepted}");
    assert!(accepted.contains("&lt;script&gt;alert(&#39;&quot;&amp;&lt;/script&gt;{{body}}"), "{accepted}");
    assert!(!accepted.contains("<script") && !accepted.contains("<img"), "{accepted}");
    assert_eq!(accepted.matches("<main>").count(), 1);
    Ok(())
}

#[tokio::test]
async fn a_report_is_refused_for_an_unknown_job_and_where_a_folder_is() -> Result<(), Failure> {
    let directory = tempfile::tempdir()?;
    let ferry = job(directory.path(), "reported_where").await?;
    ferry.run(&["step", "discover"]).await.expect(0);
    let unknown = ferry.clone().set("MONGOFERRY_JOB", "nobody").run(&["report", "--html", "r.html"]).await.expect(2);
    assert!(unknown.stderr.contains("there is no job `nobody`"), "{}", unknown.stderr);
    assert!(!directory.path().join("r.html").exists());
    for (place, why) in [("state", "is a folder"), ("none/report.html", "cannot be written")] {
        let ran = ferry.run(&["report", "--html", place]).await.expect(2);
        assert!(ran.stderr.contains(why), "{}", ran.stderr);
    }
    let both = ferry.run(&["report", "--html", "r.html", "--json"]).await.expect(0);
    assert_eq!(both.json()["verdict"]["outcome"], "unfinished");
    assert!(directory.path().join("r.html").exists());
    Ok(())
}

#[tokio::test]
async fn a_job_whose_state_is_in_s3_is_reported_alike() -> Result<(), Failure> {
    let directory = tempfile::tempdir()?;
    let minio = shared_minio().await?;
    minio.create_bucket("reports")?;
    let mut ferry = job(directory.path(), "reported_s3")
        .await?
        .set("MONGOFERRY_STATE", "s3://reports/jobs")
        .set("MONGOFERRY_S3_ENDPOINT", minio.endpoint());
    for (name, value) in minio.environment() {
        ferry = ferry.set(name, value);
    }
    ferry.run(&["step", "all"]).await.expect(0);
    let report = without_servers(&ferry).run(&["report"]).await.expect(0).json();
    assert_eq!((&report["verdict"]["outcome"], &report["totals"]["documents"]), (&json!("complete"), &json!(1500)));
    assert!(page(&ferry, directory.path()).await?.contains("1,500 documents of 1 collection"));
    Ok(())
}
