//! A job whose steps are run by the function, with its state in the shared MinIO.

use std::collections::BTreeMap;
use std::time::Duration;

use mongodb::Client;
use mongodb::bson::{Document, doc};
use mongoferry::state::s3::{S3Settings, S3Store};
use mongoferry::state::store::StateStore;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use super::compare::{Scope, compare};
use super::data;
use super::ferry::Ferry;
use super::lambda::{Function, Lambda};
use super::servers::{Failure, Minio, ReplicaSet, shared_minio, shared_source, shared_target};
use super::state_machine::{Interpreter, shared_interpreter};

/// The bucket of all these jobs.
pub const BUCKET: &str = "aws-jobs";

/// What all keys in it begin with.
const PREFIX: &str = "deployed/jobs";

/// The database that is copied.
pub const DATABASE: &str = "aws_shop";

/// How many documents it has: a large collection, and a small one.
pub const DOCUMENTS: u64 = LARGE + SMALL;
const LARGE: u64 = 90_000;
const SMALL: u64 = 500;

/// How long an invocation may take.
pub const TIME_OUT: Duration = Duration::from_secs(5);

/// How much of that is left when it begins to end.
pub const MARGIN: Duration = Duration::from_secs(2);

/// A job, and the function that runs it.
pub struct AwsJob {
    /// Its name, and that of its copy on the target.
    pub name: String,
    /// The function.
    pub lambda: Lambda,
    /// The source.
    pub source: Client,
    /// The target.
    pub target: Client,
    settings: BTreeMap<String, String>,
    ferry: Ferry,
    _directory: TempDir,
}

/// What a job's function is deployed with, where tests differ.
pub struct Deployment {
    /// How long an invocation may take.
    pub time_out: Duration,
    /// How many may run at once.
    pub at_once: usize,
    /// More of its environment, or other values.
    pub environment: Vec<(&'static str, String)>,
}

impl Default for Deployment {
    fn default() -> Self {
        Self { time_out: TIME_OUT, at_once: 16, environment: Vec::new() }
    }
}

impl AwsJob {
    /// A job between the shared servers.
    pub async fn new(name: &str, deployment: Deployment) -> Result<Self, Failure> {
        loaded().await?;
        Self::between(name, shared_source().await?, shared_target().await?, deployment).await
    }

    /// A job between these servers; the source has something in [`DATABASE`]. Nothing is in the state store yet.
    pub async fn between(
        name: &str,
        source: &ReplicaSet,
        target: &ReplicaSet,
        deployment: Deployment,
    ) -> Result<Self, Failure> {
        let (minio, interpreter) = (shared_minio().await?, shared_interpreter().await?);
        minio.create_bucket(BUCKET)?;
        let directory = tempfile::tempdir()?;
        let state = format!("s3://{BUCKET}/{PREFIX}");
        let mut ferry =
            Ferry::new(directory.path(), &source.uri(), &target.uri(), name).set("MONGOFERRY_STATE", &state);
        for (name, value) in minio.environment() {
            ferry = ferry.set(name, value);
        }
        let lambda = Lambda::deploy(Function {
            program: env!("CARGO_BIN_EXE_mongoferry").into(),
            arguments: Vec::new(),
            environment: environment(minio, interpreter, &state, deployment.environment),
            time_out: deployment.time_out,
            memory: 1024,
            at_once: deployment.at_once,
        })
        .await?;
        let settings = [
            ("source", source.uri()),
            ("target", target.uri()),
            ("include", DATABASE.to_owned()),
            ("rename", format!("{DATABASE}:{name}")),
            ("checkpoint-namespace", format!("mongoshake.ckpt_{name}")),
            ("lanes-per-shard", "4".to_owned()),
            ("partition-size", "1MiB".to_owned()),
            ("read-order", "id".to_owned()),
            ("margin", format!("{}s", MARGIN.as_secs())),
            ("save-interval", "300ms".to_owned()),
            ("lease", "1s".to_owned()),
        ];
        Ok(Self {
            name: name.to_owned(),
            lambda,
            source: Client::with_uri_str(source.uri()).await?,
            target: Client::with_uri_str(target.uri()).await?,
            settings: settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            ferry,
            _directory: directory,
        })
    }

    /// The same with another setting.
    #[must_use]
    pub fn set(mut self, name: &str, value: impl Into<String>) -> Self {
        self.settings.insert(name.to_owned(), value.into());
        self
    }

    /// Puts the settings where the function looks for them.
    pub async fn put_settings(&self) -> Result<(), Failure> {
        let lines = self.settings.iter().map(|(name, value)| format!("{name} = {}\n", Value::from(value.as_str())));
        let text: String = lines.collect();
        let key = format!("{}/settings.toml", self.name);
        let store = store().await?;
        match store.get(&key).await? {
            None => store.create(&key, text.into()).await?,
            Some(there) => store.replace(&key, text.into(), &there.etag).await?,
        };
        Ok(())
    }

    /// Invokes a step of it, with more fields in the event.
    pub async fn invoke(&self, step: &str, more: Value) -> Result<super::lambda::Outcome, Failure> {
        let mut event = json!({"step": step, "job": self.name});
        for (name, value) in more.as_object().into_iter().flatten() {
            event[name] = value.clone();
        }
        self.lambda.invoke(&event).await
    }

    /// Invokes a step of it until it is done, and says how often it has yielded.
    pub async fn finish(&self, step: &str, more: Value) -> Result<usize, Failure> {
        for yields in 0.. {
            if self.invoke(step, more.clone()).await?.result()["status"] == "done" {
                return Ok(yields);
            }
        }
        Ok(0)
    }

    /// `mongoferry status --json`, of the same state.
    pub async fn status(&self) -> Result<Value, Failure> {
        self.ferry.status().await.ok_or_else(|| "there is no such job".into())
    }

    /// How many documents are on the target now.
    pub async fn written(&self) -> Result<u64, Failure> {
        Ok(self.target.database(&self.name).collection::<Document>("large").estimated_document_count().await?)
    }

    /// Fails unless the target has what the source has, the checkpoint is there once, and the job says so.
    pub async fn assert_committed(&self) -> Result<(), Failure> {
        let mut scope = Scope { only_databases: vec![DATABASE.to_owned()], ..Default::default() };
        scope.rename(&format!("{DATABASE}:{}", self.name))?;
        let outcome = compare(&self.source, &self.target, &scope).await?;
        assert!(outcome.is_equal(), "{outcome}");
        let checkpoints = self.target.database("mongoshake").collection::<Document>(&format!("ckpt_{}", self.name));
        assert_eq!(checkpoints.count_documents(doc! {}).await?, 1);
        let status = self.status().await?;
        assert_eq!(status["status"], "done", "{status}");
        assert_eq!(status["documents"]["written"], outcome.documents, "{status}");
        Ok(())
    }

    /// An object of the job's state, as it is stored.
    pub async fn object(&self, key: &str) -> Result<Value, Failure> {
        let there = store().await?.get(&format!("{}/{key}", self.name)).await?.ok_or_else(|| format!("no {key}"))?;
        Ok(serde_json::from_slice(&there.body)?)
    }

    /// The keys of the job's state that begin so.
    pub async fn keys(&self, beginning: &str) -> Result<Vec<String>, Failure> {
        Ok(store().await?.list(&format!("{}/{beginning}", self.name)).await?)
    }
}

/// What AWS, the template and this test put into the function's environment.
fn environment(
    minio: &Minio,
    interpreter: &Interpreter,
    state: &str,
    more: Vec<(&'static str, String)>,
) -> Vec<(String, String)> {
    let own = [
        ("MONGOFERRY_STATE", state.to_owned()),
        ("MONGOFERRY_LOG_LEVEL", "info".to_owned()),
        ("AWS_ENDPOINT_URL_SECRETS_MANAGER", interpreter.endpoint()),
        ("AWS_ENDPOINT_URL_SSM", interpreter.endpoint()),
    ];
    let all: BTreeMap<_, _> = minio.environment().into_iter().chain(own).chain(more).collect();
    all.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Loads [`DATABASE`] into the shared source, once in a process.
async fn loaded() -> Result<(), Failure> {
    static LOADED: OnceCell<()> = OnceCell::const_new();
    LOADED.get_or_try_init(|| async { load(&Client::with_uri_str(shared_source().await?.uri()).await?).await }).await?;
    Ok(())
}

/// Loads [`DATABASE`]: two collections, with an index each, and an empty one.
pub async fn load(source: &Client) -> Result<(), Failure> {
    data::load(source, DATABASE, "large", LARGE).await?;
    data::load(source, DATABASE, "small", SMALL).await?;
    let database = source.database(DATABASE);
    database.create_collection("empty").await?;
    for collection in ["large", "small"] {
        let index = doc! {"createIndexes": collection, "indexes": [{"name": "k_1", "key": {"k": 1}}]};
        database.run_command(index).await?;
    }
    Ok(())
}

async fn store() -> Result<S3Store, Failure> {
    let credentials = aws_credential_types::Credentials::new(Minio::ACCESS_KEY, Minio::SECRET_KEY, None, None, "test");
    let loader = aws_config::defaults(aws_config::BehaviorVersion::latest()).credentials_provider(credentials);
    let settings = S3Settings {
        bucket: BUCKET.to_owned(),
        prefix: PREFIX.to_owned(),
        endpoint: Some(shared_minio().await?.endpoint()),
        owner: None,
        url: format!("s3://{BUCKET}/{PREFIX}"),
    };
    Ok(S3Store::open_with(settings, loader).await)
}
