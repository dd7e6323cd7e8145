//! A real sharded cluster without a mongos: a config server set and shards, with real chunks, migrations and zones.
//!
//! What a mongos would do is done with the commands that it sends, to the config server and to the shards
//! (`sharding.rs`). They are internal, and their form is that of the versions used here: 6.0, and 4.4 for a cluster
//! whose chunks name their collection by `ns`.
//!
//! Shards and their replica sets have different names, so that a test sees when one is taken for the other: shard `s0`
//! is the replica set `rs0`. The balancer is off, and a migration leaves its orphans behind.

// Named, since the benchmark takes this file by its path.
#[path = "cluster/placement.rs"]
pub mod placement;
#[path = "cluster/sharding.rs"]
mod sharding;

use futures_util::future::try_join_all;
use mongodb::Client;
use mongodb::bson::{Document, doc};
use mongodb::options::ClientOptions;
use tokio::sync::OnceCell;

use super::servers::{Failure, ROOT_PASSWORD, ReplicaSet, StartOptions};
use placement::Placement;

/// The user that may send internal commands, in a cluster with `auth`. What is tested is not to use it.
const SYSTEM_USER: &str = "system";

/// How a cluster is started.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// How many shards.
    pub shards: usize,
    /// How many members each shard has; the config server set has one.
    pub members: usize,
    /// Whether clients must log in, as [`super::servers::ROOT_USER`], on shards and config server alike.
    pub auth: bool,
    /// Whether the servers take commands that exist for tests, such as `configureFailPoint`.
    pub test_commands: bool,
    /// Another version than the default, as [`StartOptions::version`].
    pub version: Option<String>,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        ClusterOptions { shards: 2, members: 1, auth: false, test_commands: false, version: None }
    }
}

/// A running cluster. Its servers end when it is dropped or the process ends.
#[derive(Debug)]
pub struct Cluster {
    /// The set that holds the database `config`.
    pub config_set: ReplicaSet,
    /// The shards, `s0` first.
    pub shards: Vec<Shard>,
}

/// A shard.
#[derive(Debug)]
pub struct Shard {
    /// Its name, the `_id` in `config.shards`.
    pub name: String,
    /// The replica set that it is.
    pub set: ReplicaSet,
}

impl Cluster {
    /// Starts the servers and makes them a cluster without databases, the balancer off.
    pub async fn start(options: ClusterOptions) -> Result<Self, Failure> {
        let set = |name: String, members, role: &[&str]| {
            ReplicaSet::start(StartOptions {
                members,
                name,
                auth: options.auth,
                test_commands: options.test_commands,
                extra_args: role.iter().map(ToString::to_string).collect(),
                version: options.version.clone(),
                ..Default::default()
            })
        };
        // Orphans outlive every test: a range that was moved away is deleted an hour later.
        let shard_role = ["--shardsvr", "--setParameter", "orphanCleanupDelaySecs=3600"];
        let shards = (0..options.shards).map(|index| set(format!("rs{index}"), options.members, &shard_role));
        let (config_set, sets) = tokio::try_join!(set("config".to_owned(), 1, &["--configsvr"]), try_join_all(shards))?;
        let shards =
            sets.into_iter().enumerate().map(|(index, set)| Shard { name: format!("s{index}"), set }).collect();
        let cluster = Cluster { config_set, shards };
        if options.auth {
            cluster.create_system_users().await?;
        }
        cluster.set_balancer(false).await?;
        for shard in &cluster.shards {
            cluster.on_config(doc! {"_configsvrAddShard": shard.set.seeds(), "name": &shard.name}).await?;
        }
        Ok(cluster)
    }

    async fn create_system_users(&self) -> Result<(), Failure> {
        for set in self.shards.iter().map(|shard| &shard.set).chain([&self.config_set]) {
            let create = doc! {
                "createUser": SYSTEM_USER, "pwd": ROOT_PASSWORD, "roles": ["__system"],
                "writeConcern": {"w": "majority"},
            };
            Client::with_uri_str(set.uri()).await?.database("admin").run_command(create).await?;
        }
        Ok(())
    }

    /// The connection string of the config server set.
    pub fn config_uri(&self) -> String {
        self.config_set.uri()
    }

    /// The connection string of a shard, by its name.
    pub fn shard_uri(&self, shard: &str) -> Result<String, Failure> {
        Ok(self.shard(shard)?.set.uri())
    }

    /// The connection strings of all shards, `s0` first.
    pub fn shard_uris(&self) -> Vec<String> {
        self.shards.iter().map(|shard| shard.set.uri()).collect()
    }

    /// A shard by its name.
    pub fn shard(&self, name: &str) -> Result<&Shard, Failure> {
        self.shards.iter().find(|shard| shard.name == name).ok_or_else(|| format!("no shard {name}").into())
    }

    /// A client of the config server set that may do everything.
    pub async fn config_client(&self) -> Result<Client, Failure> {
        internal_client(&self.config_set).await
    }

    /// A client of a shard that may do everything. It sees what lies there, orphans too.
    pub async fn shard_client(&self, name: &str) -> Result<Client, Failure> {
        internal_client(&self.shard(name)?.set).await
    }

    /// The shard key of a collection and where its chunks are, read anew. An error when it is not sharded.
    pub async fn placement(&self, namespace: &str) -> Result<Placement, Failure> {
        let placement = placement::read(&self.config_client().await?, namespace).await?;
        placement.ok_or_else(|| format!("{namespace} is not sharded").into())
    }

    /// Documents put on a shard directly, whoever owns them: orphans, or, in a collection that the shard has nothing
    /// to do with, a stale leftover.
    pub async fn plant(
        &self,
        shard: &str,
        namespace: &str,
        documents: impl IntoIterator<Item = Document>,
    ) -> Result<(), Failure> {
        let (database, collection) = parts(namespace)?;
        let client = self.shard_client(shard).await?;
        client.database(database).collection(collection).insert_many(documents).await?;
        Ok(())
    }

    /// What lies on a shard of a collection, orphans too, in the order of `_id`.
    pub async fn stored(&self, shard: &str, namespace: &str) -> Result<Vec<Document>, Failure> {
        self.find(shard, namespace, Document::new()).await
    }

    /// What a shard's primary takes for its own of a sharded collection, in the order of `_id`: with the version of
    /// the shard's chunks in the command it leaves out orphans by itself. It is what a mongos sends, and the oracle of
    /// everything that filters orphans.
    pub async fn owned(&self, shard: &str, namespace: &str) -> Result<Vec<Document>, Failure> {
        let version = self.placement(namespace).await?.shard_version(shard);
        self.find(shard, namespace, doc! {"shardVersion": version, "readConcern": {"level": "local"}}).await
    }

    async fn find(&self, shard: &str, namespace: &str, more: Document) -> Result<Vec<Document>, Failure> {
        let (database, collection) = parts(namespace)?;
        let mut find = doc! {"find": collection, "sort": {"_id": 1}};
        find.extend(more);
        let mut cursor = self.shard_client(shard).await?.database(database).run_cursor_command(find).await?;
        let mut found = Vec::new();
        while cursor.advance().await? {
            found.push(cursor.deserialize_current()?);
        }
        Ok(found)
    }

    /// Runs an internal command on the config server's primary, acknowledged by a majority.
    async fn on_config(&self, command: Document) -> Result<Document, Failure> {
        run(&self.config_client().await?, "admin", command).await
    }
}

/// A cluster of two shards that tests share; each uses databases of its own, and leaves the balancer off.
pub async fn shared_cluster() -> Result<&'static Cluster, Failure> {
    static SHARED: OnceCell<Cluster> = OnceCell::const_new();
    SHARED.get_or_try_init(|| Cluster::start(ClusterOptions::default())).await
}

/// A cluster of three shards that tests share as a target, through routers of their own; each uses databases of its own.
pub async fn shared_target_cluster() -> Result<&'static Cluster, Failure> {
    static SHARED: OnceCell<Cluster> = OnceCell::const_new();
    SHARED.get_or_try_init(|| Cluster::start(ClusterOptions { shards: 3, ..Default::default() })).await
}

/// Database and collection of a namespace.
pub fn parts(namespace: &str) -> Result<(&str, &str), Failure> {
    namespace.split_once('.').ok_or_else(|| format!("{namespace} has no dot").into())
}

async fn run(client: &Client, database: &str, mut command: Document) -> Result<Document, Failure> {
    command.insert("writeConcern", doc! {"w": "majority"});
    Ok(client.database(database).run_command(command).await?)
}

async fn internal_client(set: &ReplicaSet) -> Result<Client, Failure> {
    let mut options = ClientOptions::parse(set.uri()).await?;
    if let Some(credential) = &mut options.credential {
        credential.username = Some(SYSTEM_USER.to_owned());
    }
    Ok(Client::with_options(options)?)
}
