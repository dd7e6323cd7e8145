//! Measuring one set: the source is filled once, then all contestants run in turn, round by round, each into a target of
//! its own in an empty folder.
//!
//! So that each run finds the same: before it the source is flushed to disk and scanned once, so that its cache holds
//! what the end of a scan leaves there and the page cache holds the rest; the target has just been started and flushed;
//! and it begins when both servers are quiet. The order is another one in each round.

use std::collections::BTreeMap;
use std::path::PathBuf;

use mongodb::Client;
use mongodb::bson::{Bson, Document, RawDocument, doc};

use crate::cluster::{Cluster, ClusterOptions};
use crate::contestant::Contestant;
use crate::guard::Guard;
use crate::loader;
use crate::measure::{self, Servers};
use crate::report::say;
use crate::results::{Cost, Run, SetResults};
use crate::servers::{Failure, ReplicaSet, StartOptions};
use crate::sets::{Set, SetName};
use crate::settings::Settings;
use crate::start::{Place, Ready};

/// What the baseline's number of writers is chosen from.
const WRITERS: [usize; 4] = [1, 2, 3, 4];

/// The same where each waits for small answers most of the time.
const WRITERS_OF_COLLECTIONS: [usize; 4] = [2, 4, 8, 16];

/// What is tried for that is this part of the set, but at least so many batches (collections).
const TRIED_PART: usize = 4;
const TRIED_AT_LEAST: usize = 40;

/// Measures a set.
pub struct Rounds<'a> {
    settings: &'a Settings,
    programs: &'a BTreeMap<String, PathBuf>,
    guard: &'a mut Guard,
    set: Set,
    source: ReplicaSet,
    /// Has the same set, where that is measured as well.
    cluster: Option<Cluster>,
}

impl<'a> Rounds<'a> {
    /// Generates a set and fills a source with it.
    ///
    /// # Errors
    /// When the source does not start or does not take it.
    pub async fn prepare(
        settings: &'a Settings,
        programs: &'a BTreeMap<String, PathBuf>,
        guard: &'a mut Guard,
        name: SetName,
    ) -> Result<Self, Failure> {
        say(&format!("set {}: filling the source", name.as_str()));
        let set = Set::generate(name, settings.scale);
        let source = start("source").await?;
        loader::load(source.port(0), &set, 1, 0..loader::units(&set))?;
        loader::build_indexes(source.port(0), &set)?;
        let is_wanted =
            settings.contestants.contains(&Contestant::TwoShards) && Contestant::TwoShards.takes_part_in(name);
        let cluster = if is_wanted { Some(divided(&set).await?) } else { None };
        Ok(Rounds { settings, programs, guard, set, source, cluster })
    }

    /// Runs all contestants in all rounds.
    ///
    /// # Errors
    /// What keeps everybody from running; a contestant that fails is noted in the results.
    pub async fn run(&mut self, contestants: &[Contestant]) -> Result<SetResults, Failure> {
        let contestants: Vec<Contestant> =
            contestants.iter().copied().filter(|contestant| contestant.takes_part_in(self.set.name)).collect();
        let mut results = SetResults {
            name: self.set.name.as_str().to_owned(),
            description: self.set.name.description().to_owned(),
            documents: self.set.documents(),
            bytes: self.set.bytes(),
            collections: self.set.collections.len(),
            writers: 0,
            writers_tried: BTreeMap::new(),
            runs: Vec::new(),
            medians: Vec::new(),
        };
        if contestants.contains(&Contestant::Baseline) {
            results.writers_tried = self.try_writers().await?;
            let best = results.writers_tried.iter().min_by(|one, other| one.1.total_cmp(other.1));
            results.writers = best.map_or(1, |(writers, _)| *writers);
            say(&format!("set {}: the baseline is fastest with {} writers", results.name, results.writers));
        }
        for round in 1..=self.settings.rounds {
            let mut order = contestants.clone();
            order.rotate_left((round as usize - 1) % contestants.len().max(1));
            for contestant in order {
                let run = self.run_one(contestant, round, results.writers).await?;
                say(&told(&results.name, &run));
                results.runs.push(run);
            }
        }
        results.compute_medians();
        Ok(results)
    }

    /// Seconds that a part of the set takes by number of writers. They share a target: only who is fastest is wanted.
    async fn try_writers(&mut self) -> Result<BTreeMap<usize, f64>, Failure> {
        let units = loader::units(&self.set);
        let part = (units / TRIED_PART).max(TRIED_AT_LEAST).min(units);
        let mut seconds = BTreeMap::new();
        let target = start("target").await?;
        let database = Client::with_uri_str(target.uri()).await?.database(self.set.database);
        let candidates = if self.set.name == SetName::E { WRITERS_OF_COLLECTIONS } else { WRITERS };
        for writers in candidates {
            let servers = self.settle(&target, Contestant::Baseline).await?;
            let cost = measure::own_work(servers, || loader::load(target.port(0), &self.set, writers, 0..part))?;
            seconds.insert(writers, cost.wall_seconds);
            database.drop().await?;
        }
        Ok(seconds)
    }

    async fn run_one(&mut self, contestant: Contestant, round: u32, writers: usize) -> Result<Run, Failure> {
        let target = start("target").await?;
        let mut run = Run { contestant, round, cost: None, steps: BTreeMap::new(), failure: None };
        match self.measure(contestant, &target, writers, &mut run.steps).await {
            Ok(cost) => {
                run.cost = Some(cost);
                run.failure = self.difference(&target).await?;
            }
            Err(error) => run.failure = Some(error.to_string()),
        }
        // MongoShake keeps its checkpoint on the source.
        Client::with_uri_str(self.source.uri()).await?.database("mongoshake").drop().await?;
        Ok(run)
    }

    async fn measure(
        &mut self,
        contestant: Contestant,
        target: &ReplicaSet,
        writers: usize,
        steps: &mut BTreeMap<String, f64>,
    ) -> Result<Cost, Failure> {
        if contestant == Contestant::Baseline {
            let servers = self.settle(target, contestant).await?;
            let (port, all) = (target.port(0), 0..loader::units(&self.set));
            return measure::own_work(servers, || {
                loader::load(port, &self.set, writers, all)?;
                loader::build_indexes(port, &self.set)
            });
        }
        let place = Place {
            source: &self.source.uri(),
            cluster: self.cluster.as_ref(),
            target: &target.uri(),
            folder: self.guard.folder()?,
            programs: self.programs,
            profile: self.settings.profile.as_deref(),
        };
        let ready = std::cell::RefCell::new(Ready::new(contestant, &place).await?);
        let servers = self.settle(target, contestant).await?;
        let start = || ready.borrow_mut().start();
        let cost = measure::processes(servers, self.guard, start, || ready.borrow().is_done())
            .map_err(|error| format!("{error}: {}", ready.borrow().last_words()))?;
        *steps = ready.borrow().steps();
        Ok(cost)
    }

    /// Brings all servers to the state that every run begins with.
    async fn settle(&self, target: &ReplicaSet, contestant: Contestant) -> Result<Servers, Failure> {
        let flush = || doc! {"fsync": 1};
        let sources: Vec<&ReplicaSet> = match &self.cluster {
            Some(cluster) if contestant == Contestant::TwoShards => {
                cluster.shards.iter().map(|shard| &shard.set).collect()
            }
            _ => vec![&self.source],
        };
        for source in &sources {
            let source = Client::with_uri_str(source.member_uri(0)).await?;
            source.database("admin").run_command(flush()).await?;
            let database = source.database(self.set.database);
            for collection in &self.set.collections {
                // No document has such a field, so that all are looked at.
                database.collection::<Document>(&collection.name).find_one(doc! {"absent": true}).await?;
            }
        }
        Client::with_uri_str(target.member_uri(0)).await?.database("admin").run_command(flush()).await?;
        rustix::fs::sync();
        let sources = sources.into_iter().map(pid).collect::<Result<_, _>>()?;
        let servers = Servers { sources, target: pid(target)? };
        measure::wait_until_quiet(&servers.all())?;
        Ok(servers)
    }

    /// What the target has not, or has too much, of what it should have.
    async fn difference(&self, target: &ReplicaSet) -> Result<Option<String>, Failure> {
        let database = Client::with_uri_str(target.uri()).await?.database(self.set.database);
        let collections = database.list_collection_names().await?.len();
        if collections != self.set.collections.len() {
            return Ok(Some(format!("{collections} collections of {}", self.set.collections.len())));
        }
        let mut documents = 0;
        for collection in &self.set.collections {
            documents += database.collection::<Document>(&collection.name).estimated_document_count().await?;
        }
        if documents != self.set.documents() as u64 {
            return Ok(Some(format!("{documents} documents of {}", self.set.documents())));
        }
        let first = database.collection::<Document>(&self.set.collections[0].name);
        let (indexes, expected) = (first.list_index_names().await?.len(), self.set.indexes.len() + 1);
        Ok((indexes != expected).then(|| format!("{indexes} indexes of {expected}")))
    }
}

/// A cluster of two shards that have a half of the set each, by `_id`, which grows.
async fn divided(set: &Set) -> Result<Cluster, Failure> {
    say("filling a cluster of two shards");
    let cluster = Cluster::start(ClusterOptions::default()).await?;
    cluster.create_database(set.database, "s0").await?;
    let namespace = format!("{}.{}", set.database, set.collections[0].name);
    cluster.shard_collection(&namespace, doc! {"_id": 1}, doc! {}).await?;
    let (units, half) = (loader::units(set), loader::units(set) / 2);
    let first = RawDocument::from_bytes(first_document(&set.collections[0].batches[half].bytes))?;
    let middle = doc! {"_id": Bson::try_from(first.get("_id")?.ok_or("no _id")?)?};
    cluster.split(&namespace, middle.clone()).await?;
    cluster.move_chunk(&namespace, middle, "s1").await?;
    for (shard, share) in cluster.shards.iter().zip([0..half, half..units]) {
        loader::load(shard.set.port(0), set, 1, share)?;
        loader::build_indexes(shard.set.port(0), set)?;
    }
    Ok(cluster)
}

/// The first of documents that lie one behind the other.
fn first_document(bytes: &[u8]) -> &[u8] {
    let length = bytes.first_chunk().map_or(0, |length| u32::from_le_bytes(*length) as usize);
    &bytes[..length]
}

async fn start(name: &str) -> Result<ReplicaSet, Failure> {
    ReplicaSet::start(StartOptions { name: name.to_owned(), ..StartOptions::default() }).await
}

fn pid(set: &ReplicaSet) -> Result<u32, Failure> {
    let pid = set.pid(0).ok_or("a server does not run")?;
    Ok(u32::try_from(pid.as_raw_nonzero().get())?)
}

fn told(set: &str, run: &Run) -> String {
    let outcome = match (&run.failure, &run.cost) {
        (Some(failure), _) => format!("does not count: {failure}"),
        (None, Some(cost)) => format!("{:.2} s", cost.wall_seconds),
        (None, None) => "nothing".to_owned(),
    };
    format!("set {set}, round {}: {} {outcome}", run.round, run.contestant.as_str())
}
