//! Where the documents of a namespace are: read from the config server once, and again when a shard says that it is
//! not so any more.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Document, RawDocument, RawDocumentBuf, Timestamp, doc, rawdoc};
use mongoferry::model::bson_order;

use super::answer::{Refused, code};
use super::raw;
use super::shard_key::ShardKey;
use super::upstream::{CONFIG, Upstream};
use crate::support::cluster::placement::{self, Placement};

/// How often a command is sent with a route that was read anew before it is given up; a mongos gives up as well.
pub const ATTEMPTS: usize = 50;

/// The databases that the config server itself holds.
const OF_CONFIG: [&str; 2] = ["admin", "config"];

/// The routes that are known, of all clients.
#[derive(Debug, Default)]
pub struct Routes(Mutex<HashMap<String, Arc<Route>>>);

/// Where a namespace's documents are.
#[derive(Debug)]
pub enum Route {
    /// On the config server.
    Config,
    /// Nowhere: there is no such database.
    Nowhere,
    /// On the database's primary shard: the collection is not sharded, or not there.
    Primary(Primary),
    /// On the shards, chunk by chunk.
    Sharded(Box<Sharded>),
}

/// A database's entry in `config.databases`.
#[derive(Debug, Clone)]
pub struct Primary {
    /// Its primary shard.
    pub shard: String,
    version: RawDocumentBuf,
}

/// A sharded collection.
#[derive(Debug)]
pub struct Sharded {
    /// Its shard key.
    pub key: ShardKey,
    /// Its chunks.
    pub placement: Placement,
    /// The names of the shards that own chunks, sorted.
    pub owners: Vec<String>,
    /// The lower bounds of the chunks, as bytes, in their order.
    bounds: Vec<RawDocumentBuf>,
}

impl Routes {
    /// The route of a namespace.
    pub fn get(&self, upstream: &mut Upstream, namespace: &str) -> Result<Arc<Route>, Refused> {
        if let Some(route) = self.lock().get(namespace) {
            return Ok(Arc::clone(route));
        }
        let route = Arc::new(Route::read(upstream, namespace)?);
        // A database that is not there may be created by anybody.
        if !matches!(*route, Route::Nowhere) {
            self.lock().insert(namespace.to_owned(), Arc::clone(&route));
        }
        Ok(route)
    }

    /// Has a namespace read anew.
    pub fn forget(&self, namespace: &str) {
        self.lock().remove(namespace);
    }

    /// Has everything read anew.
    pub fn forget_all(&self) {
        self.lock().clear();
    }

    /// Does something by the route of a namespace, and again by a new one as long as a shard says that it is stale.
    pub fn follow<T>(
        &self,
        upstream: &mut Upstream,
        namespace: &str,
        mut act: impl FnMut(&mut Upstream, &Route) -> Result<T, Refused>,
    ) -> Result<T, Refused> {
        for _ in 0..ATTEMPTS {
            let route = self.get(upstream, namespace)?;
            match act(upstream, &route) {
                Err(refused) if refused.is_stale() => self.wait_for_another(namespace),
                done => return done,
            }
        }
        Err(Refused::new(code::NO_PROGRESS_MADE, format!("the placement of {namespace} was stale {ATTEMPTS} times")))
    }

    /// A shard that learns of another placement needs a moment as well.
    pub fn wait_for_another(&self, namespace: &str) {
        self.forget(namespace);
        std::thread::sleep(Duration::from_millis(20));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Route>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Route {
    fn read(upstream: &mut Upstream, namespace: &str) -> Result<Self, Refused> {
        let database = namespace.split_once('.').map_or(namespace, |(database, _)| database);
        if OF_CONFIG.contains(&database) {
            return Ok(Route::Config);
        }
        let Some(primary) = Primary::read(upstream, database)? else { return Ok(Route::Nowhere) };
        let filter = RawDocumentBuf::try_from(&placement::entry_of(namespace))?;
        let entry = upstream.read_config("collections", filter, rawdoc! {})?.pop();
        let Some(entry) = entry else { return Ok(Route::Primary(primary)) };
        let entry = Document::try_from(entry.as_ref())?;
        let filter = RawDocumentBuf::try_from(&placement::chunks_of(&entry))?;
        let chunks = upstream.read_config("chunks", filter, rawdoc! {"min": 1})?;
        let chunks: Vec<Document> =
            chunks.iter().map(|chunk| Document::try_from(chunk.as_ref())).collect::<Result<_, _>>()?;
        let placement = Placement::new(entry, &chunks).map_err(|error| io::Error::other(error.to_string()))?;
        let mins = placement.chunks.iter().map(|chunk| RawDocumentBuf::try_from(&chunk.min));
        let bounds = mins.collect::<Result<_, _>>()?;
        let (key, owners) = (ShardKey::new(&placement.key), placement.owners());
        Ok(Route::Sharded(Box::new(Sharded { key, owners, placement, bounds })))
    }

    /// The servers that hold documents, sorted.
    pub fn servers(&self) -> Vec<String> {
        match self {
            Route::Config => vec![CONFIG.to_owned()],
            Route::Nowhere => Vec::new(),
            Route::Primary(primary) => vec![primary.shard.clone()],
            Route::Sharded(sharded) => sharded.owners.clone(),
        }
    }

    /// The command with what a shard is to compare with what it knows itself, so that it refuses a stale route and
    /// leaves out orphans.
    pub fn versioned(&self, server: &str, body: &RawDocument) -> Result<RawDocumentBuf, Refused> {
        match self {
            Route::Config | Route::Nowhere => Ok(body.to_owned()),
            Route::Primary(primary) => {
                let zero = Timestamp { time: 0, increment: 0 };
                let unsharded = rawdoc! {"e": ObjectId::from_bytes([0; 12]), "t": zero, "v": zero};
                Ok(raw::with(&primary.versioned(body), "shardVersion", unsharded))
            }
            Route::Sharded(sharded) => {
                let version = RawDocumentBuf::try_from(&sharded.placement.shard_version(server))?;
                Ok(raw::with(body, "shardVersion", version))
            }
        }
    }
}

impl Primary {
    /// Reads it; none when there is no such database.
    pub fn read(upstream: &mut Upstream, database: &str) -> Result<Option<Self>, Refused> {
        let entry = upstream.read_config("databases", rawdoc! {"_id": database}, rawdoc! {})?.pop();
        Ok(entry.as_deref().and_then(|entry| {
            let (shard, version) = (raw::text(entry, "primary")?, raw::inner(entry, "version")?);
            Some(Primary { shard: shard.to_owned(), version: version.to_owned() })
        }))
    }

    /// The same, and the database is created when it is not there: on a shard that the config server chooses.
    pub fn read_or_create(upstream: &mut Upstream, database: &str) -> Result<Self, Refused> {
        if let Some(primary) = Primary::read(upstream, database)? {
            return Ok(primary);
        }
        let create = rawdoc! {
            "_configsvrCreateDatabase": database, "writeConcern": {"w": "majority"}, "$db": "admin",
        };
        upstream.ask(CONFIG, &create.into())?;
        let primary = Primary::read(upstream, database)?;
        primary.ok_or_else(|| Refused::new(code::NAMESPACE_NOT_FOUND, format!("database {database} was dropped")))
    }

    /// The command with the database's version.
    pub fn versioned(&self, body: &RawDocument) -> RawDocumentBuf {
        raw::with(body, "databaseVersion", self.version.clone())
    }
}

impl Sharded {
    /// The shard that owns a key, hashed where the shard key is.
    pub fn owner(&self, key: &RawDocument) -> Result<&str, Refused> {
        let at = self.bounds.partition_point(|bound| bson_order::compare_documents(bound, key).is_le());
        let chunk = at.checked_sub(1).and_then(|at| self.placement.chunks.get(at));
        // MinKey is where the first chunk begins, so nothing is below it.
        let chunk = chunk.ok_or_else(|| Refused::new(code::SHARD_KEY_NOT_FOUND, format!("no chunk for {key:?}")))?;
        Ok(&chunk.shard)
    }

    /// The bounds of the chunk that a key lies in, and its shard.
    pub fn chunk_of(&self, key: &RawDocument) -> Result<(&Document, &Document, &str), Refused> {
        let key = Document::try_from(key)?;
        let chunk = self.placement.chunk_of(&key);
        let chunk = chunk.map_err(|error| Refused::new(code::SHARD_KEY_NOT_FOUND, error))?;
        Ok((&chunk.min, &chunk.max, &chunk.shard))
    }

    /// The namespace's entry of what `splitChunk` wants to know.
    pub fn identity(&self) -> Document {
        let mut identity = doc! {"keyPattern": &self.placement.key, "epoch": self.placement.epoch};
        identity.extend(self.placement.timestamp.map(|timestamp| ("timestamp".to_owned(), timestamp.into())));
        identity
    }
}
