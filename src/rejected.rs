//! What the target did not take: listing it, and trying it again.
//!
//! A retry begins when the copy is done, so that no lane counts what it writes; and it holds the claim on commit, so
//! that there is one at a time, and none after the job is committed. What is settled is recorded after the target has
//! acknowledged it: a retry that was killed in between finds it there, and records it then.

use crate::abandon;
use crate::claim::{Claim, Claiming, DoneIs};
use crate::context::{Context, Servers};
use crate::copy::deliver::{Delivery, Extent, Settlement};
use crate::copy::ownerships::{Origin, Ownerships};
use crate::copy::rejects::Rejects;
use crate::driver;
use crate::error::{Error, Result};
use crate::model::counts::Counts;
use crate::model::cursor::Key;
use crate::model::job::CheckpointMap;
use crate::model::namespace::Namespace;
use crate::model::partition::Range;
use crate::model::plan::LaneName;
use crate::model::reject::{Cause, Rejected};
use crate::model::step::Step;
use crate::model::work::{StepProgress, WorkStatus};
use crate::mongo::documents::Documents;
use crate::mongo::read;
use crate::mongo::writers::Writers;
use crate::state::pages::{self, PreparedEntry};
use crate::state::{keys, rejects};
use crate::steps::discover;
use bson::RawDocumentBuf;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

/// How many documents are tried at once...
const BATCH: usize = 500;

/// ...and about how many bytes of them.
const BATCH_BYTES: u64 = 4 * 1024 * 1024;

/// What is not on the target.
///
/// # Errors
/// Bad input for a job that is unknown, else those of the state store.
pub async fn list(context: &Context) -> Result<Vec<Rejected>> {
    if driver::step_work(context, Step::Discover).await?.is_none() {
        return Err(abandon::unknown(context));
    }
    Ok(rejects::read(&context.documents).await?.left)
}

/// What came of a retry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retried {
    /// How many documents need nothing more.
    pub settled: usize,
    /// What still is not on the target, with the reason of now.
    pub left: Vec<Rejected>,
}

/// Tries each document that is not on the target again, as the source has it now. `None`: the run was told to stop.
///
/// # Errors
/// Bad input before the copy is done, and after commit is; busy when commit or another retry is at it.
pub async fn retry(context: &Context) -> Result<Option<Retried>> {
    let rejected = list(context).await?;
    if !driver::is_done(context, Step::Copy).await? {
        return Err(Error::bad_input(format!(
            "step copy of job `{}` is not done; finish it first, with --max-rejected as high as it takes",
            context.settings.job
        )));
    }
    let servers = context.connect(Step::Copy).await?;
    let before = driver::step_work(context, Step::Commit).await?.map(|work| work.status);
    let claiming =
        driver::claim(context, &keys::step(Step::Commit), StepProgress::new(Step::Commit), DoneIs::Final).await?;
    let claim = match claiming {
        Claiming::Mine(claim) => claim,
        Claiming::Done(_) => {
            return Err(Error::bad_input(format!(
                "job `{}` is committed and its target may be live; write what is missing by hand",
                context.settings.job
            )));
        }
        Claiming::Stopped | Claiming::Busy(_) => return Ok(None),
    };
    let work = async {
        // As for any step: an abandoned job is marked before its work is closed.
        context.job().await?;
        retry_all(context, &servers, &claim, rejected).await
    };
    let Some(retried) = driver::settle(context, &claim, work).await? else { return Ok(None) };
    let status = before.filter(|status| *status != WorkStatus::Running).unwrap_or(WorkStatus::Yielded);
    claim.let_go(status, |_| {}).await?;
    Ok(Some(retried))
}

async fn retry_all(
    context: &Context,
    servers: &Servers,
    claim: &Arc<Claim<StepProgress>>,
    rejected: Vec<Rejected>,
) -> Result<Retried> {
    let checkpoints: CheckpointMap = pages::expect(&context.documents, keys::CHECKPOINT).await?;
    let mut origins = Vec::new();
    for shard in &servers.source.shards {
        let not_before = discover::not_before(&checkpoints, &shard.deployment)?;
        let ownerships = Ownerships::new(context, &servers.source, &shard.name, &checkpoints).await?;
        origins.push(Origin { deployment: shard.deployment.clone(), not_before, ownerships });
    }
    let prepared = pages::read_prepared(&context.documents).await?;
    let writers = Writers::new(servers.target.clone(), None).map_err(|error| servers.target.failed(&error))?;
    let writers = Arc::new(writers);
    let mut retried = Retried { settled: 0, left: Vec::new() };
    for (namespace, rejected) in by_namespace(rejected) {
        let entry = collection(&prepared, &rejected, &namespace)?;
        let twice: HashSet<Key> =
            rejected.iter().filter(|one| one.cause == Cause::Twice).map(|one| one.id.clone()).collect();
        let before: HashMap<Key, Rejected> = rejected.iter().map(|one| (one.id.clone(), one.clone())).collect();
        let mut deliveries = Vec::new();
        for origin in &origins {
            let lane = LaneName::planned(origin.deployment.identity.set_name.clone(), 0);
            deliveries.push(delivery(context, servers, (&writers, claim), origin, lane, (&namespace, entry)).await?);
        }
        for batch in batches(rejected) {
            let mut settlement = try_again(&deliveries, &batch, &twice).await?;
            let on_two = settlement.on_two_shards.iter().filter_map(|id| before.get(id)).cloned();
            settlement.settlement.rejected.extend(on_two);
            let settlement = settlement.settlement;
            let left: HashSet<&Key> = settlement.rejected.iter().map(|one| &one.id).collect();
            let ids: Vec<Key> = batch.iter().filter(|id| !left.contains(id)).cloned().collect();
            retried.settled += ids.len();
            if !ids.is_empty() {
                // They were counted as read when they were copied, and those that are left as rejected.
                let counts = Counts { read: 0, read_bytes: 0, rejected: 0, rejected_bytes: 0, ..settlement.counts };
                let repair = rejects::Repair { namespace: namespace.clone(), ids, counts };
                rejects::record(&context.documents, &repair).await?;
            }
            retried.left.extend(settlement.rejected);
        }
    }
    Ok(retried)
}

/// The documents of each collection, each once.
fn by_namespace(rejected: Vec<Rejected>) -> BTreeMap<Namespace, Vec<Rejected>> {
    let mut seen = HashSet::new();
    let mut found: BTreeMap<Namespace, Vec<Rejected>> = BTreeMap::new();
    for one in rejected.into_iter().filter(|one| seen.insert(one.which())) {
        found.entry(one.namespace.clone()).or_default().push(one);
    }
    found
}

/// What prepare has made for documents of one collection.
fn collection<'a>(
    prepared: &'a [PreparedEntry],
    rejected: &[Rejected],
    namespace: &Namespace,
) -> Result<&'a PreparedEntry> {
    let is_it = |entry: &&PreparedEntry| rejected.first().is_some_and(|one| one.target == entry.target);
    let missing = || Error::state(format!("prepare has no entry for {namespace}; use another --job"));
    prepared.iter().find(is_it).ok_or_else(missing)
}

async fn delivery(
    context: &Context,
    servers: &Servers,
    (writers, claim): (&Arc<Writers>, &Arc<Claim<StepProgress>>),
    origin: &Origin,
    lane: LaneName,
    (from, entry): (&Namespace, &PreparedEntry),
) -> Result<Delivery<StepProgress>> {
    Ok(Delivery {
        source: origin.deployment.clone(),
        target: servers.target.clone(),
        writers: Arc::clone(writers),
        from: from.clone(),
        to: entry.target.clone(),
        uuid: entry.uuid.clone(),
        locator: entry.locator()?,
        range: Range::default(),
        ownership: origin.ownerships.of(entry.ordinal, &origin.deployment).await?,
        in_order: false,
        created: entry.created,
        // An earlier retry may have been killed before it recorded what it wrote.
        replay: true,
        probes_all: false,
        not_before: origin.not_before,
        on_conflict: context.settings.on_conflict,
        digests: true,
        rejects: Arc::new(Rejects::new(context.documents.clone(), lane, u64::MAX)),
        claim: Arc::clone(claim),
        is_dry: false,
        empty_probes: AtomicUsize::new(0),
    })
}

/// Cut so that a batch's documents are held at once.
fn batches(rejected: Vec<Rejected>) -> Vec<Vec<Key>> {
    let mut batches: Vec<Vec<Key>> = Vec::new();
    let mut size = 0;
    for one in rejected {
        size += one.size;
        match batches.last_mut() {
            Some(batch) if batch.len() < BATCH && size <= BATCH_BYTES => batch.push(one.id),
            _ => {
                size = one.size;
                batches.push(vec![one.id]);
            }
        }
    }
    batches
}

/// What came of a batch.
struct Tried {
    settlement: Settlement,
    /// These are on two shards of the source still, and only one of each can be on the target.
    on_two_shards: Vec<Key>,
}

/// Tries a batch again, each document from the shard that has it now.
async fn try_again(deliveries: &[Delivery<StepProgress>], ids: &[Key], twice: &HashSet<Key>) -> Result<Tried> {
    let mut homes: HashMap<Key, Vec<(usize, RawDocumentBuf)>> = HashMap::new();
    for (home, delivery) in deliveries.iter().enumerate() {
        let Delivery { source, from, not_before, ownership, .. } = delivery;
        let found = read::documents_with(source, from, ids, Some(*not_before)).await;
        let found = found.map_err(|error| source.failed(&error).during(format!("reading {from}")))?;
        for (id, versions) in found {
            for version in versions {
                if ownership.as_ref().map_or(Ok(true), |ownership| ownership.is_mine(&version))? {
                    homes.entry(id.clone()).or_default().push((home, version));
                }
            }
        }
    }
    let mut settlement = Settlement { counts: Counts::default(), rejected: Vec::new() };
    let on_two_shards: Vec<Key> =
        ids.iter().filter(|id| homes.get(*id).is_some_and(|homes| homes.len() > 1)).cloned().collect();
    for (home, delivery) in deliveries.iter().enumerate() {
        let one = |id: &Key| homes.get(id).filter(|homes| homes.len() == 1).and_then(|homes| homes.first());
        let of_home = |id: &&Key| one(id).is_some_and(|(of, _)| *of == home);
        let mut documents = Vec::new();
        for id in ids.iter().filter(of_home) {
            let Some((_, document)) = one(id) else { continue };
            // Of two with this `_id` the one that the target took is left: it is counted already.
            if twice.contains(id) && delivery.is_there(id, document).await? {
                continue;
            }
            documents.push(document.clone());
        }
        let documents: Documents = documents.iter().collect();
        if !documents.is_empty() {
            let written = delivery.write(&documents, &Extent::Scattered).await?;
            settlement.counts += written.counts;
            settlement.rejected.extend(written.rejected);
        }
    }
    if let Some(delivery) = deliveries.first() {
        let gone = ids.iter().filter(|id| !homes.contains_key(*id)).cloned().collect();
        delivery.settle_gone(gone, &mut settlement).await?;
    }
    Ok(Tried { settlement, on_two_shards })
}
