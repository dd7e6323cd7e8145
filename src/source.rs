//! What is copied from: a replica set, a sharded cluster whose shards are read directly, or one that is read through a mongos.

mod members;

use crate::config::{ClusterUris, Settings};
use crate::error::{Error, Result};
use crate::model::catalog::CatalogEntry;
use crate::model::choice::{CheckpointMode, Orphans, ReadThrough};
use crate::model::identity::Identity;
use crate::model::job::CheckpointMap;
use crate::model::step::Step;
use crate::mongo::Comment;
use crate::mongo::cluster;
use crate::mongo::deployment::Deployment;
use crate::mongo::failure::Side;
use futures_util::future::try_join_all;
use members::Unreached;
use std::collections::BTreeMap;

/// What is copied from, connected.
#[derive(Debug, Clone)]
pub struct Source {
    /// The replica set; of a cluster a mongos, or the config servers.
    pub main: Deployment,
    /// Those that documents are read from, by name: the replica set alone, all shards, or the mongos alone.
    pub shards: Vec<Shard>,
    /// Those whose oplogs a stream is to read. None without a checkpoint, and of a cluster whose shards cannot be reached;
    /// where a mongos is read, they are connected only for the steps that look at oplogs.
    pub streams: Vec<Deployment>,
    /// Whether it is a cluster.
    pub is_cluster: bool,
    /// Through what a cluster is read.
    pub read: ReadThrough,
    /// For what kind of stream there is a checkpoint.
    pub mode: CheckpointMode,
}

/// A replica set that holds documents.
#[derive(Debug, Clone)]
pub struct Shard {
    /// What lanes call it: the shard's name in the cluster (`config.shards`), or the replica set's.
    pub name: String,
    /// Its servers.
    pub deployment: Deployment,
}

impl Source {
    /// Connects to all of it that a step needs. `captured` has what an earlier run has chosen for good.
    ///
    /// # Errors
    /// As [`Deployment::connect`]; bad input when the shards are not those of the cluster, or what was asked for does not go
    /// with what the source is.
    pub async fn connect(
        settings: &Settings,
        step: Step,
        captured: Option<&CheckpointMap>,
        app_name: &str,
        comment: Comment,
    ) -> Result<Self> {
        let ca = settings.source_ca.as_deref();
        let connect = |uri| Deployment::connect(Side::Source, uri, ca, app_name, comment.clone());
        let cluster = settings.cluster.as_ref();
        let mode = captured.map(|captured| captured.mode).or(settings.checkpoint_mode);
        if let (None, Some(ClusterUris { config: Some(config), shards })) = (&settings.source, cluster) {
            let (main, shards) = tokio::try_join!(connect(config), try_join_all(shards.iter().map(connect)))?;
            let shards = members::named(&main, shards).await?;
            return Ok(Self::of_shards(main, shards, mode));
        }
        let main = connect(settings.source()?).await?;
        if !main.is_mongos() {
            refuse_beside_a_set(settings)?;
            let shards = vec![Shard { name: main.identity.set_name.clone(), deployment: main.clone() }];
            return Ok(Self { is_cluster: false, ..Self::of_shards(main, shards, mode) });
        }
        if let Some(uri) = cluster.and_then(|cluster| cluster.config.as_ref()) {
            refuse_another_cluster(&main, &connect(uri).await?).await?;
        }
        let read = captured.map(|captured| captured.read).or(settings.read);
        if read == Some(ReadThrough::Mongos) && !streams_are_needed(step, captured, mode) {
            return Self::of_mongos(settings, main, Vec::new(), mode.unwrap_or_default());
        }
        let reached = match cluster.map(|cluster| &cluster.shards).filter(|shards| !shards.is_empty()) {
            None => members::known(&main).await?,
            Some(uris) => {
                let reach = |uri| {
                    let connecting = connect(uri);
                    async move { connecting.await.map_err(|why| Unreached { shard: uri.to_string(), why }) }
                };
                match try_join_all(uris.iter().map(reach)).await {
                    Ok(deployments) => Ok(members::named(&main, deployments).await?),
                    Err(unreached) => Err(unreached),
                }
            }
        };
        match (reached, read) {
            (Ok(shards), Some(ReadThrough::Mongos)) => {
                Self::of_mongos(settings, main, shards, mode.unwrap_or_default())
            }
            (Ok(shards), _) => Ok(Self::of_shards(main, shards, mode)),
            // Without them there is no going on as it was begun; they may answer later.
            (Err(Unreached { shard, why }), _) if captured.is_some() => {
                Err(why.during(format!("connecting to the source's shard {shard}")))
            }
            (Err(Unreached { shard, why }), Some(ReadThrough::Shards)) => Err(Error::bad_input(format!(
                "the source's shard {shard} cannot be read directly, as --read shards has it: {why}; name all shards with --source-shard, or say --read mongos"
            ))),
            (Err(Unreached { shard, why }), _) if mode == Some(CheckpointMode::Oplog) => {
                Err(Error::bad_input(format!(
                    "the oplog of the source's shard {shard} cannot be read, as --checkpoint-mode oplog has it: {why}; name all shards with --source-shard, or say --checkpoint-mode change-stream"
                )))
            }
            (Err(Unreached { shard, why }), read) => {
                let mode = mode.unwrap_or(CheckpointMode::ChangeStream);
                let way = match read {
                    None => "the source is read through its mongos, by `_id`, in lanes of one shard called mongos",
                    Some(_) => "no oplog can be looked at",
                };
                let checkpoint = match mode {
                    CheckpointMode::None => "",
                    _ => ", and the checkpoint is the mongos's time, for change streams",
                };
                tracing::info!("{way}{checkpoint}, since shard {shard} cannot be reached: {why}");
                Self::of_mongos(settings, main, Vec::new(), mode)
            }
        }
    }

    fn of_shards(main: Deployment, shards: Vec<Shard>, mode: Option<CheckpointMode>) -> Self {
        let mode = mode.unwrap_or_default();
        let with_oplogs = shards.iter().filter(|_| mode != CheckpointMode::None);
        let streams = with_oplogs.map(|shard| shard.deployment.clone()).collect();
        Self { main, shards, streams, is_cluster: true, read: ReadThrough::Shards, mode }
    }

    fn of_mongos(settings: &Settings, main: Deployment, streams: Vec<Shard>, mode: CheckpointMode) -> Result<Self> {
        if settings.orphans != Orphans::Skip {
            return Err(Error::bad_input(format!(
                "--orphans {} does not go with reading through a mongos, which shows none; leave it out, or say --read shards",
                settings.orphans
            )));
        }
        let shards = vec![Shard { name: main.identity.set_name.clone(), deployment: main.clone() }];
        let streams = streams.into_iter().map(|shard| shard.deployment).collect();
        Ok(Self { main, shards, streams, is_cluster: true, read: ReadThrough::Mongos, mode })
    }

    /// Whether it is a cluster whose shards are read directly: what they do not own is among what is read.
    pub fn reads_shards(&self) -> bool {
        self.is_cluster && self.read == ReadThrough::Shards
    }

    /// A shard by its name.
    ///
    /// # Errors
    /// Of the state store: the plan has a lane of a shard that is none of them.
    pub fn shard(&self, name: &str) -> Result<&Shard> {
        self.shards.iter().find(|shard| shard.name == name).ok_or_else(|| {
            Error::state(format!(
                "the plan has a lane of shard {name}, which the source does not have; use another --job"
            ))
        })
    }

    /// Where a collection that is not sharded lives; of one that is, the first of its shards.
    ///
    /// # Errors
    /// As [`Source::shard`].
    pub fn home(&self, entry: &CatalogEntry) -> Result<&Deployment> {
        match entry.parts.first() {
            Some(part) => self.shard(&part.shard).map(|shard| &shard.deployment),
            None => Ok(&self.main),
        }
    }

    /// What identifies the shards that are read directly; a replica set has none.
    pub fn shard_identities(&self) -> BTreeMap<String, Identity> {
        let all = self.shards.iter().filter(|_| self.reads_shards());
        all.map(|shard| (shard.name.clone(), shard.deployment.identity.clone())).collect()
    }

    /// All deployments, each once.
    pub fn deployments(&self) -> impl Iterator<Item = &Deployment> {
        let shards = self.shards.iter().filter(|_| self.reads_shards()).map(|shard| &shard.deployment);
        std::iter::once(&self.main).chain(shards)
    }

    /// All deployments that may know of a migration, each once: also shards that are not read, as far as they are connected.
    pub fn members(&self) -> Vec<&Deployment> {
        let unread = self.streams.iter().filter(|_| self.is_cluster && !self.reads_shards());
        self.deployments().chain(unread).collect()
    }

    /// The same, with another comment on its commands.
    #[must_use]
    pub fn commented(&self, comment: &Comment) -> Self {
        let commented = |deployment: &Deployment| deployment.commented(comment.clone());
        let shard = |shard: &Shard| Shard { name: shard.name.clone(), deployment: commented(&shard.deployment) };
        Self {
            main: commented(&self.main),
            shards: self.shards.iter().map(shard).collect(),
            streams: self.streams.iter().map(commented).collect(),
            ..*self
        }
    }
}

/// Whether a step looks at the oplogs of a cluster that is read through a mongos.
fn streams_are_needed(step: Step, captured: Option<&CheckpointMap>, mode: Option<CheckpointMode>) -> bool {
    matches!(step, Step::Discover | Step::Commit)
        && mode != Some(CheckpointMode::None)
        && captured.is_none_or(|captured| !captured.checkpoints.is_empty())
}

/// What is said of a cluster says nothing of a replica set, and was meant for something else.
fn refuse_beside_a_set(settings: &Settings) -> Result<()> {
    let named: &[(&str, bool)] = &[
        ("--source-shard", settings.cluster.as_ref().is_some_and(|cluster| !cluster.shards.is_empty())),
        ("--source-config", settings.cluster.as_ref().is_some_and(|cluster| cluster.config.is_some())),
        ("--read", settings.read.is_some()),
    ];
    match named.iter().find(|(_, is_given)| *is_given) {
        Some((name, _)) => Err(Error::bad_input(format!(
            "{name} is given beside a source that is a replica set; leave it out, or give a mongos as the source"
        ))),
        None => Ok(()),
    }
}

/// The config servers are not needed where a mongos shows what they have; but they must not be another cluster's.
async fn refuse_another_cluster(mongos: &Deployment, config: &Deployment) -> Result<()> {
    let ((through_mongos, _), (of_config, _)) = tokio::try_join!(cluster::members(mongos), cluster::members(config))?;
    if through_mongos == of_config {
        return Ok(());
    }
    Err(Error::bad_input(format!(
        "--source-config leads to {}, which belongs to another cluster than the mongos --source; leave it out, or correct one of them",
        config.identity
    )))
}
