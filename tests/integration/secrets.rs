//! Connection strings and certificate authorities by reference: fetched at run time, fetched again when a server refuses them,
//! and found nowhere. moto plays Secrets Manager and Parameter Store.

use crate::support::aws::{self, Answering};
use crate::support::certificates::Certificates;
use crate::support::compare::{Scope, compare};
use crate::support::ferry::{Ferry, files};
use crate::support::running::Running;
use crate::support::servers::{
    Failure, Moto, ROOT_PASSWORD, ReplicaSet, StartOptions, shared_moto, shared_source, shared_target,
};
use aws_sdk_secretsmanager::primitives::Blob;
use aws_sdk_ssm::types::ParameterType;
use mongodb::Client;
use mongodb::bson::{Document, doc};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rustix::process::Signal;
use std::path::Path;
use std::time::Duration;

/// moto with what settings refer to.
struct Store {
    moto: &'static Moto,
    secrets: aws_sdk_secretsmanager::Client,
    parameters: aws_sdk_ssm::Client,
}

impl Store {
    async fn get() -> Result<Self, Failure> {
        let moto = shared_moto().await?;
        let shared = aws::configuration(moto).await;
        let (secrets, parameters) = (aws_sdk_secretsmanager::Client::new(&shared), aws_sdk_ssm::Client::new(&shared));
        Ok(Self { moto, secrets, parameters })
    }

    /// Its ARN.
    async fn secret(&self, name: &str, text: &str) -> Result<String, Failure> {
        let created = self.secrets.create_secret().name(name).secret_string(text).send().await?;
        Ok(created.arn.unwrap_or_default())
    }

    async fn change(&self, name: &str, text: &str) -> Result<(), Failure> {
        self.secrets.put_secret_value().secret_id(name).secret_string(text).send().await?;
        Ok(())
    }

    async fn parameter(&self, name: &str, text: &str) -> Result<(), Failure> {
        let put = self.parameters.put_parameter().name(name).value(text).r#type(ParameterType::SecureString);
        put.send().await?;
        Ok(())
    }

    fn ferry(&self, folder: &Path, source: &str, target: &str, job: &str) -> Ferry {
        let ferry = Ferry::new(folder, source, target, job);
        aws::environment(self.moto).into_iter().fold(ferry, |ferry, (name, value)| ferry.set(name, value))
    }
}

async fn with_users(extra_args: Vec<String>) -> Result<ReplicaSet, Failure> {
    ReplicaSet::start(StartOptions { auth: true, extra_args, ..Default::default() }).await
}

#[tokio::test]
async fn a_job_is_done_by_references_and_no_secret_is_written_anywhere() -> Result<(), Failure> {
    let store = Store::get().await?;
    let folder = tempfile::tempdir()?;
    let certificates = Certificates::make(folder.path())?;
    let [authority, server] = [&certificates.authority, &certificates.server].map(|path| path.display().to_string());
    let tls = ["--tlsMode", "preferTLS", "--tlsCertificateKeyFile", &server, "--tlsCAFile", &authority];
    let tls = tls.iter().chain(&["--tlsAllowConnectionsWithoutCertificates"]).map(ToString::to_string).collect();
    let (source, target) = tokio::try_join!(with_users(tls), shared_target())?;
    let client = Client::with_uri_str(source.uri()).await?;
    client.database("by_reference").collection("c").insert_many((0..50).map(|i| doc! {"_id": i})).await?;

    let uri = format!("{}&tls=true", source.uri());
    store.secret("by-reference/source", &serde_json::json!({ "uri": uri, "port": 1 }).to_string()).await?;
    store.parameter("/by-reference/target", &format!("{}\n", target.uri())).await?;
    let arn = store.secret("by-reference/ca", &std::fs::read_to_string(&certificates.authority)?).await?;
    let state = tempfile::tempdir()?;
    let temporary = tempfile::tempdir()?;
    let ferry = store
        .ferry(state.path(), "secretsmanager://by-reference/source#uri", "ssm:///by-reference/target", "by-reference")
        .set("MONGOFERRY_SOURCE_CA", format!("secretsmanager://{arn}"))
        .set("MONGOFERRY_LOG_LEVEL", "trace")
        .set("TMPDIR", temporary.path().display().to_string());
    let ran = ferry.run(&["step", "all"]).await.expect(0);

    let scope = Scope { only_databases: vec!["by_reference".to_owned()], ..Default::default() };
    let compared = compare(&client, &Client::with_uri_str(target.uri()).await?, &scope).await?;
    assert!(compared.differences.is_empty(), "{compared}");
    let encoded = utf8_percent_encode(ROOT_PASSWORD, NON_ALPHANUMERIC).to_string();
    let mut written = files(state.path());
    written.push(("stdout".into(), ran.stdout.into_bytes()));
    written.push(("stderr".into(), ran.stderr.into_bytes()));
    for (path, content) in written {
        let content = String::from_utf8_lossy(&content);
        for secret in [ROOT_PASSWORD, &encoded, "a-secret-of-moto", "BEGIN CERTIFICATE"] {
            assert!(!content.contains(secret), "{secret} is in {}", path.display());
        }
    }
    assert_eq!(files(temporary.path()), vec![], "the authorities' file is gone");

    // What connects to nothing asks for nothing.
    let nowhere = ferry.set("AWS_ENDPOINT_URL_SECRETS_MANAGER", "http://127.0.0.1:1");
    nowhere.run(&["status"]).await.expect(0);
    Ok(())
}

/// A user's password and the secret are changed while documents are copied, and all connections are lost.
#[tokio::test]
async fn a_rotated_secret_is_fetched_again_in_the_middle_of_the_copy() -> Result<(), Failure> {
    let store = Store::get().await?;
    let (mut source, target) = tokio::try_join!(with_users(vec![]), shared_target())?;
    let admin = Client::with_uri_str(source.uri()).await?.database("admin");
    admin.run_command(doc! {"createUser": "ferry", "pwd": "first-7x1", "roles": ["root"]}).await?;
    let documents = (0..20_000).map(|i| doc! {"_id": i, "text": "x".repeat(200)});
    admin.client().database("rotated").collection("c").insert_many(documents).await?;
    let uri = |password: &str| {
        format!("mongodb://ferry:{password}@127.0.0.1:{}/?replicaSet=rs&authSource=admin", source.port(0))
    };
    let (first, second) = (uri("first-7x1"), uri("second-7x2"));
    store.secret("rotated/source", &first).await?;
    let folder = tempfile::tempdir()?;
    let ferry = store
        .ferry(folder.path(), "secretsmanager://rotated/source", &target.uri(), "rotated")
        .set("MONGOFERRY_INCLUDE", "rotated");
    let mut running = Running::start(&ferry.clone().set("MONGOFERRY_FREEZE_BEFORE", "insert:1"), &["step", "all"])?;
    running.is_frozen().await?;
    admin.run_command(doc! {"updateUser": "ferry", "pwd": "second-7x2", "writeConcern": {"w": "majority"}}).await?;
    source.kill(0)?;
    source.restart(0)?;
    source.primary().await.ok();
    store.change("rotated/source", &second).await?;
    running.signal(Signal::CONT)?;
    let ran = running.ended_within(Duration::from_secs(120)).await?.expect(0);
    assert!(ran.stderr.contains("a secret has changed"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("first-7x1") && !ran.stderr.contains("second-7x2"), "{}", ran.stderr);
    let copied = Client::with_uri_str(target.uri()).await?.database("rotated").collection::<Document>("c");
    assert_eq!(copied.count_documents(doc! {}).await?, 20_000);
    Ok(())
}

/// Secrets are fetched once for a run, which then connects for each of its steps.
#[tokio::test]
async fn a_rotated_secret_is_fetched_again_between_steps_and_one_that_is_wrong_stays_bad_input() -> Result<(), Failure>
{
    let store = Store::get().await?;
    let (source, target) = tokio::try_join!(shared_source(), with_users(vec![]))?;
    let admin = Client::with_uri_str(target.uri()).await?.database("admin");
    admin.run_command(doc! {"createUser": "ferry", "pwd": "first-8x1", "roles": ["root"]}).await?;
    let client = Client::with_uri_str(source.uri()).await?;
    client.database("rotated_target").collection("c").insert_many((0..10).map(|i| doc! {"_id": i})).await?;
    let uri = |password: &str| {
        format!("mongodb://ferry:{password}@127.0.0.1:{}/?replicaSet=rs&authSource=admin", target.port(0))
    };
    store.parameter("/rotated/target", &uri("first-8x1")).await?;
    let folder = tempfile::tempdir()?;
    let ferry = store
        .ferry(folder.path(), &source.uri(), "ssm:///rotated/target", "rotated-target")
        .set("MONGOFERRY_INCLUDE", "rotated_target");
    let mut running = Running::start(&ferry.clone().set("MONGOFERRY_FREEZE_BEFORE", "insert:1"), &["step", "all"])?;
    running.is_frozen().await?;
    let update = doc! {"updateUser": "ferry", "pwd": "second-8x2", "writeConcern": {"w": "majority"}};
    admin.run_command(update).await?;
    let put = store.parameters.put_parameter().name("/rotated/target").value(uri("second-8x2"));
    put.r#type(ParameterType::SecureString).overwrite(true).send().await?;
    running.signal(Signal::CONT)?;
    let ran = running.ended_within(Duration::from_secs(60)).await?.expect(0);
    assert!(ran.stderr.contains("a secret has changed"), "{}", ran.stderr);

    // The server is given another password, and the parameter is not.
    admin.run_command(doc! {"updateUser": "ferry", "pwd": "third-8x3", "writeConcern": {"w": "majority"}}).await?;
    let ran = ferry.set("MONGOFERRY_JOB", "rotated-target-2").run(&["step", "discover"]).await.expect(2);
    assert!(ran.stderr.contains("the target refused the user name or password"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("a secret has changed"), "{}", ran.stderr);
    Ok(())
}

/// What the source is, what else is given, the exit code, and what the error says.
type Row<'a> = (&'a str, &'a [(&'a str, String)], i32, &'a [&'a str]);

#[tokio::test]
async fn what_is_wrong_with_a_reference_is_told_before_anything_is_changed() -> Result<(), Failure> {
    const SECRET: &str = "hedgehog-9x";
    let store = Store::get().await?;
    let object = format!(r#"{{"url": "mongodb://u:{SECRET}@h", "n": 1}}"#);
    store.secret("wrong/object", &object).await?;
    store.secret("wrong/text", SECRET).await?;
    store.parameter("/wrong/list", &format!("{SECRET},mongodb://h")).await?;
    let binary = store.secrets.create_secret().name("wrong/binary").secret_binary(Blob::new(SECRET));
    binary.send().await?;
    let denied = r#"{"__type": "AccessDeniedException", "Message": "User: arn:aws:iam::1:role/x is not authorized"}"#;
    let denying = Answering::start(|_| (400, denied.to_owned()))?;
    let throttled = r#"{"__type": "ThrottlingException", "message": "Rate exceeded"}"#;
    let throttling = Answering::start(|_| (400, throttled.to_owned()))?;
    let (source, target) = tokio::try_join!(shared_source(), shared_target())?;
    let nobody = "http://127.0.0.1:1".to_owned();
    let secrets_manager = |endpoint: &str| ("AWS_ENDPOINT_URL_SECRETS_MANAGER", endpoint.to_owned());
    let rows: &[Row<'_>] = &[
        ("secretsmanager://wrong/none", &[], 2, &["secretsmanager://wrong/none does not exist", "AWS_REGION"]),
        ("ssm:///wrong/none", &[], 2, &["ssm:///wrong/none does not exist in Parameter Store"]),
        (
            "secretsmanager://wrong/text",
            &[("AWS_REGION", "eu-west-1".to_owned())],
            2,
            &["secretsmanager://wrong/text does not exist", "AWS_REGION"],
        ),
        ("secretsmanager://wrong/object#uri", &[], 2, &["has no key `uri`; it has url, n"]),
        ("secretsmanager://wrong/object#n", &[], 2, &["a `n` that is no text"]),
        ("secretsmanager://wrong/object", &[], 2, &["starts with mongodb://", "#key"]),
        ("secretsmanager://wrong/text#uri", &[], 2, &["is no JSON object"]),
        (
            "secretsmanager://wrong/text",
            &[],
            2,
            &["MONGOFERRY_SOURCE: secretsmanager://wrong/text:", "starts with mongodb://"],
        ),
        ("ssm:///wrong/list", &[], 2, &["starts with mongodb://"]),
        ("secretsmanager://wrong/binary", &[], 2, &["is binary", "SecretString"]),
        ("secretsmanager://wrong/text", &[("AWS_REGION", String::new())], 2, &["no AWS region is set", "AWS_REGION"]),
        ("secretsmanager://wrong/text", &[("AWS_ACCESS_KEY_ID", String::new())], 2, &["there are no AWS credentials"]),
        (
            "secretsmanager://wrong/text",
            &[secrets_manager(&denying.endpoint)],
            2,
            &["secretsmanager:GetSecretValue", "kms:Decrypt"],
        ),
        ("secretsmanager://wrong/text", &[secrets_manager(&throttling.endpoint)], 1, &["just now", "Rate exceeded"]),
        ("secretsmanager://wrong/text", &[secrets_manager(&nobody)], 1, &["does not answer", "is there a route?"]),
        // What is wrong anyway is told without asking.
        (
            "secretsmanager://wrong/text",
            &[secrets_manager(&nobody), ("MONGOFERRY_LEASE", "soon".to_owned())],
            2,
            &["MONGOFERRY_LEASE=soon"],
        ),
    ];
    for (reference, environment, code, says) in rows {
        let folder = tempfile::tempdir()?;
        let ferry = store.ferry(folder.path(), reference, &target.uri(), "wrong");
        let ferry = environment.iter().fold(ferry, |ferry, (name, value)| match value.is_empty() {
            true => ferry.unset(name),
            false => ferry.set(name, value),
        });
        let ran = ferry.set("HOME", folder.path().display().to_string()).run(&["step", "all"]).await;
        assert_eq!(ran.code, Some(*code), "{reference}: {}", ran.stderr);
        for part in *says {
            assert!(ran.stderr.contains(part), "{reference}: `{part}` is not in {}", ran.stderr);
        }
        assert!(!ran.stderr.contains(SECRET) && ran.stderr.lines().count() == 1, "{}", ran.stderr);
        assert_eq!(files(folder.path()), vec![], "{reference}");
    }
    // Of the side that the setting is about.
    let folder = tempfile::tempdir()?;
    let ferry = store.ferry(folder.path(), &source.uri(), "ssm:///wrong/list", "wrong");
    let ferry = ferry.set("AWS_ENDPOINT_URL_SSM", nobody).set("MONGOFERRY_LOG_FORMAT", "json");
    let ran = ferry.run(&["step", "all"]).await.expect(1);
    assert!(
        ran.stderr.contains("TargetUnavailable") && ran.stderr.contains("an endpoint for Systems Manager"),
        "{}",
        ran.stderr
    );
    Ok(())
}
