//! discover: captures the checkpoint, then lists what there is.
//!
//! - Reads: both deployments, read-only.
//! - Writes: with `--stop-balancer` `balancer.json`, then the balancer's settings on the source; `checkpoint.json` (created before anything is listed; the first one wins), the catalog's pages and head,
//!   `job.json` with what the job is bound to from now on.
//! - Resumes by: the documents that are there. A crash after the checkpoint keeps that checkpoint and lists again; pages
//!   without a head count for nothing.

use super::balancer;
use super::listing::{self, Found};
use super::transforms;
use crate::check;
use crate::claim::Claim;
use crate::config::{CheckpointUri, Settings};
use crate::context::{Context, Servers};
use crate::driver::{self, Finished, Named, Outcome};
use crate::error::{Error, Result};
use crate::model::bson_order::compare_documents;
use crate::model::catalog::{CatalogEntry, CollectionKind, OrderFacts, Ordinal, Part, option_differences};
pub use crate::model::check::names;
use crate::model::check::{Check, Row, Table, Verdict, of_names};
use crate::model::choice::{CheckpointMode, CreateIndex, Order, ReadOrder, ReadThrough};
use crate::model::chunk_map::ChunkMap;
use crate::model::cursor::Key;
use crate::model::finding::{Finding, Note};
use crate::model::index::{self, Held, index_differences};
use crate::model::job::{Binding, CheckpointMap, JobRecord, Optime};
use crate::model::left_out::LeftOut;
use crate::model::namespace::{Namespace, SPECIAL_DATABASES};
use crate::model::size;
use crate::model::step::Step;
use crate::model::view;
use crate::model::work::StepProgress;
use crate::mongo::catalog::{self, Listed};
use crate::mongo::checkpoint;
use crate::mongo::cluster::{self, Sharded};
use crate::mongo::deployment::Deployment;
use crate::mongo::failure::Side;
use crate::mongo::{correlation, split};
use crate::source::Source;
use crate::state::document::Created;
use crate::state::pages::{self, CatalogHead, CatalogWriter};
use crate::state::{chunks, keys, probe};
use crate::{clock, random};
use futures_util::future::try_join_all;
use futures_util::{StreamExt, TryStreamExt, stream};
use std::collections::{BTreeSet, HashSet};

/// How many collections are asked about at once. Each takes two or three small commands; more than a few only queue on
/// the server.
const PARALLEL: usize = 8;

/// What a lane has open to a server beside its readers and writers: for commands, and the driver's own.
const CONNECTIONS_BESIDE: usize = 2;

/// Runs the step.
///
/// # Errors
/// Bad input for what cannot work, unavailable for what does not answer.
pub async fn run(context: &Context, servers: &Servers, named: Named) -> Result<Outcome> {
    if !driver::is_done(context, Step::Discover).await? {
        let Some(reached) = context.stop.unless(reach_checkpoint(context)).await else {
            return Ok(driver::yielded(context, Step::Discover));
        };
        reached?;
        probe::probe(context.documents.store().as_ref()).await?;
    }
    driver::run_whole(context, Step::Discover, async |claim| {
        let discovered = discover(context, servers, claim, named).await;
        balancer::restored_after(context, &servers.source.main, discovered).await
    })
    .await
}

/// A place for the checkpoint that cannot be used is told now, and not after the copy.
async fn reach_checkpoint(context: &Context) -> Result<()> {
    if let CheckpointUri::Uri(uri) = &context.settings.checkpoint_uri {
        let app_name = format!("mongoferry {} discover", context.settings.job);
        Deployment::connect(Side::Checkpoint, uri, None, &app_name, context.comment(Step::Discover, "")).await?;
    }
    Ok(())
}

async fn discover(context: &Context, servers: &Servers, claim: &Claim<StepProgress>, named: Named) -> Result<Finished> {
    // Before the balancer is stopped: who may not read need not stop anything.
    let mut warnings = passed(context, check::before_listing(context, servers).await?)?;
    if servers.source.is_cluster {
        balancer::still_source(context, &servers.source, claim).await?;
    }
    let checkpoints = capture(context, &servers.source).await?;
    let named_already = context.documents.read::<CatalogHead>(keys::CATALOG).await?;
    let is_named = named_already.is_some();
    let listed = match named_already {
        Some(head) => head.value,
        None => list(context, servers, &random::random_id()).await?,
    };
    let mut entries = pages::read_entries(&context.documents, &listed).await?;
    warnings.extend(passed(context, check::of_listing(context, servers, &entries).await?)?);
    let head = match is_named {
        true => listed.clone(),
        false => pages::name_catalog(&context.documents, &listed).await?,
    };
    // A run that was killed between catalog and binding has listed another selection than this one was asked for.
    context.check_selection(&head.selection)?;
    bind(context, servers).await?;
    if head.attempt != listed.attempt {
        // Another run was faster.
        entries = pages::read_entries(&context.documents, &head).await?;
    }
    if named == Named::ByMachine {
        warnings.extend(crowded(context, servers).await);
    }
    warnings.iter().for_each(|text| tracing::warn!("{text}"));
    let how = (context.settings.create_index, servers.target.is_mongos());
    let mut finished = finished(&entries, &checkpoints, how, warnings);
    finished.notes.extend(transforms::notes(&entries, &head.selection));
    Ok(finished)
}

/// The warnings of what was looked at, unless something refuses. What is not copied is a finding of its own.
fn passed(context: &Context, looked: Table) -> Result<Vec<String>> {
    looked.refuse(&context.settings.job)?;
    let warnings = looked.with(Verdict::Warning).filter(|row| row.check != Check::Kinds);
    Ok(warnings.map(Row::sentence).collect())
}

/// The checkpoints of all sources, captured now unless an earlier run has done so: the first ones win, since what was
/// listed and read then is covered by them.
async fn capture(context: &Context, source: &Source) -> Result<CheckpointMap> {
    let recorded = match context.documents.read::<CheckpointMap>(keys::CHECKPOINT).await? {
        Some(stored) => stored.value,
        None => {
            let names = source.streams.iter().map(|deployment| deployment.identity.set_name.clone());
            let captured = source.streams.iter().map(checkpoint::capture);
            let checkpoints = names.zip(try_join_all(captured).await?).collect();
            // After the shards' own: nothing that is read may be older than those.
            let times =
                source.shards.iter().filter(|_| source.read == ReadThrough::Mongos || source.streams.is_empty());
            let times = times.map(|shard| time(&shard.deployment));
            let map = CheckpointMap {
                source: source.main.identity.clone(),
                captured: clock::wall(),
                read: source.read,
                mode: source.mode,
                is_cluster: source.is_cluster,
                checkpoints,
                times: try_join_all(times).await?.into_iter().collect(),
            };
            context.documents.create(keys::CHECKPOINT, &map).await?.into_stored().value
        }
    };
    let is_same_way = (recorded.read, recorded.mode) == (source.read, source.mode);
    if !is_same_way || recorded.checkpoints.is_empty() != source.streams.is_empty() {
        return Err(Error::state(
            "another run has captured the checkpoint just now, and reads the source in another way; try again",
        ));
    }
    guard_oplogs(source, &recorded).await?;
    Ok(recorded)
}

/// What time it is in a deployment, by its name.
async fn time(deployment: &Deployment) -> Result<(String, Optime)> {
    Ok((deployment.identity.set_name.clone(), checkpoint::time(deployment).await?))
}

/// Whether streams can begin at the checkpoints, which an earlier run may have captured long ago.
///
/// # Errors
/// As [`guard_oplog`]; of the state store when a source has no checkpoint.
pub async fn guard_oplogs(source: &Source, checkpoints: &CheckpointMap) -> Result<()> {
    for deployment in &source.streams {
        let start = checkpoints.stream_start(&deployment.identity.set_name);
        guard_oplog(deployment, start.ok_or_else(|| without_checkpoint(deployment))?).await?;
    }
    Ok(())
}

/// Whether a stream can begin at the checkpoint: the oplog's oldest entry must be older, as MongoShake wants it too.
///
/// # Errors
/// Bad input, with both times: what happened between is lost to a stream, so going on is of no use.
async fn guard_oplog(source: &Deployment, start: Optime) -> Result<()> {
    let begin = checkpoint::oplog_begin(source).await?;
    if begin >= start {
        return Err(Error::bad_input(format!(
            "the source's oplog begins at {begin}, not before the checkpoint {start}: a stream from there would miss what happened between; enlarge the oplog, end transactions that are open for long, and use another --job"
        )));
    }
    Ok(())
}

/// Which time no read of the copy from a deployment may be older than.
///
/// # Errors
/// Of the state store when none was captured.
pub fn not_before(map: &CheckpointMap, source: &Deployment) -> Result<Optime> {
    map.not_before(&source.identity.set_name).ok_or_else(|| without_checkpoint(source))
}

fn without_checkpoint(source: &Deployment) -> Error {
    Error::state(format!("checkpoint.json has no checkpoint of {}; use another --job", source.identity.set_name))
}

/// Lists the namespaces that the filter lets through, with what is known about each, and what is left out: on pages, which
/// are written as they become full.
async fn list(context: &Context, servers: &Servers, attempt: &str) -> Result<CatalogHead> {
    let source = &servers.source;
    // What is read in the order of the disk may come twice, and on a sharded target the second one to another shard. And a
    // mongos has no disk.
    let is_by_id = servers.target.is_mongos() || source.read == ReadThrough::Mongos;
    if is_by_id && context.settings.read_order == ReadOrder::Natural {
        let side = if servers.target.is_mongos() { Side::Target } else { Side::Source };
        return Err(Error::bad_input(format!(
            "--read-order natural does not go with a mongos as the {side}; leave it out, or say id"
        )));
    }
    let all = listing::all(source, &context.settings.filter).await?;
    let lets_through = |found: &Found| context.settings.filter.lets_through(&found.listed.namespace);
    let (wanted, others): (Vec<Found>, Vec<Found>) = all.into_values().partition(lets_through);
    let names: Vec<Namespace> = wanted.iter().map(|found| found.listed.namespace.clone()).collect();
    // What a slip of the pen asks for is told before thousands of collections are looked at.
    let mut looked = Table::default();
    let on_target = catalog::databases(&servers.target).await?;
    looked.extend(of_names(&context.settings.filter, &context.settings.renames, &names, &on_target));
    passed(context, looked)?;
    let left_out = left_out(source, &others).await?;
    drop(others);
    let memory = if is_by_id { None } else { correlation::memory(&source.shards[0].deployment).await? };
    let entry = |(found, number)| entry(context, source, (attempt, Ordinal(number)), memory, found);
    let mut writer = CatalogWriter::new(&context.documents, attempt, context.settings.selection());
    let mut entries = stream::iter(wanted.into_iter().zip(0..).map(entry)).buffered(PARALLEL);
    while let Some(entry) = entries.try_next().await? {
        writer.add(entry).await?;
    }
    drop(entries);
    writer.finish(&left_out).await
}

/// What there is on the source and is not copied: for people, and decides nothing.
async fn left_out(source: &Source, others: &[Found]) -> Result<Vec<LeftOut>> {
    let databases = catalog::databases(&source.shards[0].deployment).await?;
    let special = databases.iter().filter(|name| SPECIAL_DATABASES.contains(&name.as_str()));
    let collections = others.iter().filter_map(|found| LeftOut::collection(&found.listed.namespace, found.listed.kind));
    Ok(collections.chain(special.map(|name| LeftOut::database(name))).collect())
}

async fn entry(
    context: &Context,
    source: &Source,
    (attempt, ordinal): (&str, Ordinal),
    memory: Option<u64>,
    found: Found,
) -> Result<CatalogEntry> {
    let Listed { namespace, uuid, kind, options } = found.listed.clone();
    let filter = context.settings.filters.get(&namespace).cloned();
    let listed = CatalogEntry::listed(ordinal, (namespace, kind), uuid, options);
    let mut entry = CatalogEntry { filter, ..listed };
    if !kind.has_documents() {
        return Ok(entry);
    }
    let map = match &found.sharded {
        None => None,
        Some(sharded) => Some(sharding(context, source, attempt, sharded, &mut entry).await?),
    };
    if source.reads_shards() {
        parts(context, source, found, map, &mut entry).await?;
        return Ok(entry);
    }
    let source = &source.main;
    let namespace = &entry.documents_in();
    ((entry.documents, entry.bytes), entry.indexes) =
        tokio::try_join!(catalog::size(source, namespace), catalog::indexes(source, namespace))?;
    if !source.is_mongos() && entry.order == Order::Id {
        entry.order = order(context, source, memory, &entry).await?;
    }
    if entry.order == Order::Id {
        let size = (entry.documents, entry.bytes);
        entry.cuts = split::cuts(source, namespace, size, context.settings.partition_size).await?;
    }
    Ok(entry)
}

/// How a collection is sharded, recorded: what a sharded target is to have, and what may not move meanwhile.
async fn sharding(
    context: &Context,
    source: &Source,
    attempt: &str,
    sharded: &Sharded,
    entry: &mut CatalogEntry,
) -> Result<ChunkMap> {
    let map = cluster::chunks(&source.main, &entry.documents_in(), sharded).await?;
    let how = (sharded.unique, sharded.is_unsplittable);
    let mut sharding = chunks::write(&context.documents, (attempt, entry.ordinal), &map, how).await?;
    sharding.no_balance = sharded.no_balance;
    sharding.zones = cluster::zones(&source.main, &entry.documents_in()).await?;
    entry.sharding = Some(sharding);
    Ok(map)
}

/// What the shards of a cluster have of a collection. All of them read it by `_id`, in the same ranges.
async fn parts(
    context: &Context,
    source: &Source,
    found: Found,
    map: Option<ChunkMap>,
    entry: &mut CatalogEntry,
) -> Result<()> {
    let namespace = entry.documents_in();
    let owners = map.map_or_else(|| vec![found.shard.clone()], |map| map.shards().to_vec());
    let mut cuts: Vec<Vec<Key>> = Vec::new();
    for owner in &owners {
        let shard = &source.shard(owner)?.deployment;
        let Some(listed) = found.on(owner) else {
            return Err(shard.side.error(format!(
                "shard {owner} owns chunks of {namespace} and does not list it: it was dropped or created just now; try again"
            )));
        };
        let indexes = catalog::indexes(shard, &namespace).await?;
        if entry.parts.is_empty() {
            (entry.uuid, entry.options, entry.indexes) = (listed.uuid.clone(), listed.options.clone(), indexes);
        } else {
            let first = &entry.parts[0].shard;
            let differences = option_differences(&entry.options, &listed.options)
                .into_iter()
                .chain(index_differences(&entry.indexes, &indexes, &entry.options, Held::None))
                .chain((listed.uuid != entry.uuid).then(|| "its UUID is another one".to_owned()));
            entry.disagreements.extend(differences.map(|text| format!("on shard {owner}, unlike {first}: {text}")));
        }
        let (documents, bytes) = catalog::size(shard, &namespace).await?;
        entry.documents += documents;
        entry.bytes += bytes;
        entry.parts.push(Part { shard: owner.clone(), documents, bytes });
        if entry.order == Order::Id {
            cuts.push(split::cuts(shard, &namespace, (documents, bytes), context.settings.partition_size).await?);
        }
    }
    // Keys of several shards can be put in order here only where no collation orders them.
    let is_collated = entry.options.get("collation").is_some();
    if is_collated {
        entry.cuts = cuts.into_iter().max_by_key(Vec::len).unwrap_or_default();
    } else {
        entry.cuts = cuts.concat();
        entry.cuts.sort_by(|a, b| compare_documents(a.document(), b.document()));
        entry.cuts.dedup_by(|a, b| compare_documents(a.document(), b.document()).is_eq());
    }
    Ok(())
}

/// In which order a collection will be read.
async fn order(context: &Context, source: &Deployment, memory: Option<u64>, entry: &CatalogEntry) -> Result<Order> {
    let wanted = context.settings.read_order;
    let is_clustered = entry.options.get("clusteredIndex").is_some();
    let mut facts = OrderFacts { bytes: entry.bytes, memory, is_clustered, follows_disk: None };
    if facts.asks_for_correlation(wanted) {
        let document_size = entry.bytes / entry.documents.max(1);
        facts.follows_disk = Some(correlation::follows_disk(source, &entry.documents_in(), document_size).await?);
    }
    Ok(facts.order(wanted))
}

/// Which servers have fewer connections left than the lanes may make that are copied at once. Only worth a warning: they
/// may have more by then. Whom this right is missing (`clusterMonitor`) is not told.
async fn crowded(context: &Context, servers: &Servers) -> Vec<String> {
    let Settings { max_lanes, max_readers, max_writers, .. } = context.settings.as_ref();
    let wanted = u64::from(*max_lanes) * (max_readers + max_writers + CONNECTIONS_BESIDE) as u64;
    let mut crowded = Vec::new();
    for deployment in servers.source.deployments().chain([&servers.target]) {
        match deployment.available_connections().await {
            Ok(available) if available < wanted => crowded.push(format!(
                "{max_lanes} lanes at once (--max-lanes) may make {wanted} connections, and the {} {} has {available} left; lower max-lanes, max-readers or max-writers",
                deployment.side, deployment.identity.set_name
            )),
            Ok(_) => {}
            Err(error) => tracing::debug!("connections were not looked at: {error}"),
        }
    }
    crowded
}

/// Binds the job to what was discovered. The first one wins: a run that finds another binding was checked against it
/// when it connects the next time.
async fn bind(context: &Context, servers: &Servers) -> Result<()> {
    let job = JobRecord {
        id: random::random_id(),
        name: context.settings.job.to_string(),
        created: clock::wall(),
        binding: Some(Binding {
            source: servers.source.main.identity.clone(),
            shards: servers.source.shard_identities(),
            target: servers.target.identity.clone(),
            selection: context.settings.selection(),
        }),
        discovered_by: Some(env!("CARGO_PKG_VERSION").to_owned()),
        settings: [
            ("partition-size", size::show(context.settings.partition_size)),
            ("read-order", context.settings.read_order.word().to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into(),
        abandoned: None,
    };
    match context.documents.create(keys::JOB, &job).await? {
        Created::Mine(_) => Ok(()),
        Created::Existing(found) if found.value.abandoned.is_some() => Err(crate::claim::abandoned()),
        Created::Existing(_) => Ok(()),
    }
}

fn finished(
    entries: &[CatalogEntry],
    checkpoints: &CheckpointMap,
    (create_index, is_to_cluster): (CreateIndex, bool),
    warnings: Vec<String>,
) -> Finished {
    let copied: Vec<&CatalogEntry> = entries.iter().filter(|entry| entry.kind.has_documents()).collect();
    let views = entries.iter().filter(|entry| entry.kind == CollectionKind::View).count();
    let documents: u64 = copied.iter().map(|entry| entry.documents).sum();
    let finding = |namespace: &Namespace, text| Finding { namespace: namespace.clone(), text };
    let disagreements = entries.iter().flat_map(|entry| {
        entry.disagreements.iter().map(|text| {
            finding(
                &entry.namespace,
                format!("is not the same on all shards, and is copied as the first has it: {text}"),
            )
        })
    });
    let unsupported = copied.iter().filter(|_| create_index != CreateIndex::None);
    let unsupported = unsupported.flat_map(|entry| {
        entry.secondary_indexes().filter_map(|index| {
            let why = index::unsupported(index)?;
            Some(finding(&entry.namespace, format!("index {} {why}, and accept it here", index::name(index))))
        })
    });
    let is_unsharded =
        |entry: &&CatalogEntry| is_to_cluster && entry.kind == CollectionKind::TimeSeries && entry.sharding.is_some();
    let unsharded = entries.iter().filter(is_unsharded).map(|entry| {
        let text = "is a time series that the source shards, and is not sharded on the target; accept it and shard it by hand, or begin another --job that excludes it";
        finding(&entry.namespace, text.to_owned())
    });
    let known: HashSet<&Namespace> = entries.iter().map(|entry| &entry.namespace).collect();
    let baseless = entries.iter().filter(|entry| entry.kind == CollectionKind::View).flat_map(|view| {
        let missing = view::named_by(&view.namespace, &view.options).into_iter().map(|name| name.shown());
        let missing: BTreeSet<Namespace> = missing.filter(|name| !known.contains(name)).collect();
        missing.into_iter().map(|name| Note {
            namespace: view.namespace.clone(),
            text: format!("is based on {name}, which is not copied: it is missing on the source, or was excluded"),
        })
    });
    let findings = entries
        .iter()
        .filter(|entry| !entry.kind.is_copied())
        .map(|entry| Finding {
            namespace: entry.namespace.clone(),
            text: format!(
                "is a {}, which this version does not copy; accept it and make it by hand, or begin another --job that excludes it",
                entry.kind.text()
            ),
        })
        .chain(disagreements)
        .chain(unsharded)
        .chain(unsupported)
        .collect();
    let oldest_transaction =
        checkpoints.checkpoints.values().filter_map(|checkpoint| checkpoint.oldest_transaction).min();
    let of_transaction = oldest_transaction.map(|first| {
        format!("a transaction was open since {first} when the job began; the checkpoint is the moment before")
    });
    let is_unguarded = checkpoints.checkpoints.is_empty() && checkpoints.mode != CheckpointMode::None;
    let unguarded = is_unguarded.then(|| {
        "no oplog of the source can be read, so nobody sees whether they reach back to the checkpoint: make sure that they do until the stream has begun".to_owned()
    });
    // They are about all of the job, and a note is about a namespace.
    let note = |text| entries.first().map(|entry| Note { namespace: entry.namespace.clone(), text });
    let notes = of_transaction.into_iter().chain(unguarded).chain(warnings).filter_map(note).chain(baseless).collect();
    let after: Vec<String> = checkpoints.stream_starts().values().map(ToString::to_string).collect();
    let checkpoint = match after.is_empty() {
        true => "no checkpoint".to_owned(),
        false => format!("checkpoint {}", after.join(" and ")),
    };
    let views = if views == 0 { String::new() } else { format!(" and {views} views") };
    let summary = format!("{} collections{views}, about {documents} documents, {checkpoint}", copied.len());
    Finished { summary, findings, notes }
}
