//! What a mongos has done about sharding: databases, shard keys, splits, migrations, zones, the balancer.

use std::time::{Duration, Instant};

use mongodb::bson::{Document, doc};
use mongodb::error::ErrorKind;

use super::super::servers::Failure;
use super::{Cluster, parts};

/// A migration that is in the way of another one is over after this long, or hangs.
const MIGRATES_WITHIN: Duration = Duration::from_secs(60);

impl Cluster {
    /// Creates a database whose collections that are not sharded live on `primary`.
    pub async fn create_database(&self, name: &str, primary: &str) -> Result<(), Failure> {
        self.on_config(doc! {"_configsvrCreateDatabase": name, "primaryShardId": primary}).await?;
        // Before 6.0 a database is told by itself that its collections may be sharded; from then on it is no command.
        if self.is_4_4().await? {
            self.on_config(doc! {"_configsvrEnableSharding": name}).await?;
        }
        Ok(())
    }

    /// Shards a collection by `key`, and creates it when it is not there. `options` are those of `shardCollection`:
    /// `unique`, `numInitialChunks`, `collation`, `presplitHashedZones`.
    pub async fn shard_collection(&self, namespace: &str, key: Document, options: Document) -> Result<(), Failure> {
        let (database, collection) = parts(namespace)?;
        if self.is_4_4().await? {
            let mut command = doc! {"_configsvrShardCollection": namespace, "key": key, "numInitialChunks": 0};
            command.extend(options);
            self.on_config(command).await?;
            return Ok(());
        }
        let databases = self.config_client().await?.database("config").collection::<Document>("databases");
        let entry = databases.find_one(doc! {"_id": database}).await?.ok_or("no such database")?;
        let mut command = doc! {
            "_shardsvrCreateCollection": collection, "shardKey": key,
            "databaseVersion": entry.get_document("version")?,
        };
        command.extend(options);
        super::run(&self.shard_client(entry.get_str("primary")?).await?, database, command).await?;
        Ok(())
    }

    /// Splits the chunk that `at` lies in, so that a chunk begins there.
    pub async fn split(&self, namespace: &str, at: Document) -> Result<(), Failure> {
        let placement = self.placement(namespace).await?;
        let chunk = placement.chunk_of(&at)?;
        let mut command = doc! {
            "splitChunk": namespace, "from": &chunk.shard, "keyPattern": &placement.key, "epoch": placement.epoch,
            "min": &chunk.min, "max": &chunk.max, "splitKeys": [at],
        };
        if let Some(timestamp) = placement.timestamp {
            command.insert("timestamp", timestamp);
        }
        // It takes no write concern: the shard sees to it itself.
        self.shard_client(&chunk.shard).await?.database("admin").run_command(command).await?;
        Ok(())
    }

    /// Moves the chunk that begins at `min` to a shard: a real migration, after which its documents stay where they
    /// were as orphans.
    pub async fn move_chunk(&self, namespace: &str, min: Document, to: &str) -> Result<(), Failure> {
        self.migrate(namespace, &min, to, doc! {}).await
    }

    /// Moves the chunk that begins at `min` to a shard and back. It leaves no orphans: while its documents lay where
    /// it comes from, it could not come back.
    pub async fn move_there_and_back(&self, namespace: &str, min: Document, there: &str) -> Result<(), Failure> {
        let owner = self.placement(namespace).await?.chunk_of(&min)?.shard.clone();
        for to in [there, &owner] {
            self.migrate(namespace, &min, to, doc! {"waitForDelete": true}).await?;
        }
        Ok(())
    }

    /// A shard gives or takes one chunk at a time; the migration of another test is waited for.
    async fn migrate(&self, namespace: &str, min: &Document, to: &str, options: Document) -> Result<(), Failure> {
        let client = self.config_client().await?;
        let started = Instant::now();
        loop {
            let mut command = if self.is_4_4().await? {
                self.move_of_4_4(namespace, min).await?
            } else {
                doc! {"_configsvrMoveRange": namespace, "min": min}
            };
            command.insert("toShard", to);
            command.extend(options.clone());
            match super::run(&client, "admin", command).await {
                Err(refused) if is_busy(&refused) && started.elapsed() < MIGRATES_WITHIN => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                done => return done.map(drop),
            }
        }
    }

    /// A 4.4 wants to be told everything about the chunk.
    async fn move_of_4_4(&self, namespace: &str, min: &Document) -> Result<Document, Failure> {
        let placement = self.placement(namespace).await?;
        let chunk = placement.chunk_of(min)?;
        Ok(doc! {
            "_configsvrMoveChunk": 1, "ns": namespace, "min": &chunk.min, "max": &chunk.max, "shard": &chunk.shard,
            "lastmod": chunk.version, "lastmodEpoch": placement.epoch, "maxChunkSizeBytes": 64_i64 << 20,
            "secondaryThrottle": {}, "waitForDelete": false, "forceJumbo": false,
        })
    }

    /// Puts a shard into a zone.
    pub async fn add_to_zone(&self, shard: &str, zone: &str) -> Result<(), Failure> {
        self.on_config(doc! {"_configsvrAddShardToZone": shard, "zone": zone}).await?;
        Ok(())
    }

    /// Gives the keys `[min, max)` to a zone. A collection that is empty when it is sharded then has a chunk for each
    /// range, on its zone's shard.
    pub async fn set_zone(&self, namespace: &str, min: Document, max: Document, zone: &str) -> Result<(), Failure> {
        let command = doc! {"_configsvrUpdateZoneKeyRange": namespace, "min": min, "max": max, "zone": zone};
        self.on_config(command).await?;
        Ok(())
    }

    /// Turns the balancer on or off, as `config.settings` says it.
    pub async fn set_balancer(&self, on: bool) -> Result<(), Failure> {
        let mode = doc! {"stopped": !on, "mode": if on { "full" } else { "off" }};
        let update = doc! {"q": {"_id": "balancer"}, "u": {"$set": mode}, "upsert": true};
        let client = self.config_client().await?;
        super::run(&client, "config", doc! {"update": "settings", "updates": [update]}).await?;
        Ok(())
    }

    async fn is_4_4(&self) -> Result<bool, Failure> {
        let info = self.config_client().await?.database("admin").run_command(doc! {"buildInfo": 1}).await?;
        Ok(info.get_str("version")?.starts_with("4.4."))
    }
}

/// `ConflictingOperationInProgress`.
fn is_busy(refused: &Failure) -> bool {
    let error = refused.downcast_ref::<mongodb::error::Error>().map(|error| &*error.kind);
    matches!(error, Some(ErrorKind::Command(command)) if command.code == 117)
}
