//! What there is on the source, and what it comes to on the target.

use crate::clock;
use crate::config::{CheckpointUri, Settings};
use crate::context::{Context, Servers};
use crate::error::{Error, Result};
use crate::model::catalog::{CatalogEntry, CollectionKind, Ordinal, Part, Sharding};
use crate::model::check::{Check, Row, names as some, of_names};
use crate::model::choice::CheckpointMode;
use crate::model::feature::{Feature, missing_of_collection, missing_of_indexes};
use crate::model::namespace::Namespace;
use crate::model::renames::Renames;
use crate::model::size;
use crate::model::view;
use crate::mongo::cluster::{self, Sharded};
use crate::mongo::inspect::Seen;
use crate::mongo::{catalog, inspect, marker};
use crate::source::Source;
use crate::steps::listing::{self, Found};
use crate::steps::prepare;
use crate::steps::prepare::sharding::Decided;
use bson::{Bson, Document};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::Value;

/// How many collections are asked about at once, as discover does it.
const PARALLEL: usize = 8;

/// How many collections with the largest documents, by their mean, are looked into.
const LOOKED_INTO: usize = 20;

/// How many documents of each are looked at, at either end, and how many bytes of them at most.
const SAMPLE: u64 = 50;
const SAMPLE_BYTES: u64 = 4 << 20;

/// How deep a document may be (<https://www.mongodb.com/docs/manual/reference/limits/>). Servers store some that are
/// deeper.
const DEEPEST: usize = 100;

/// How many TTL indexes are looked at: each is a command.
const TTL_LOOKED_AT: usize = 100;

/// What there is on the source that the filter lets through, with sizes and indexes: what discover lists, less what takes
/// longer and is of no account here.
///
/// # Errors
/// What does not answer; bad input where a right is missing.
pub async fn gather(context: &Context, source: &Source) -> Result<Vec<CatalogEntry>> {
    let all = listing::all(source, &context.settings.filter).await?;
    let wanted = all.into_values().filter(|found| context.settings.filter.lets_through(&found.listed.namespace));
    let entries = wanted.zip(0..).map(|(found, number)| entry(context, source, Ordinal(number), found));
    stream::iter(entries).buffered(PARALLEL).try_collect().await
}

async fn entry(context: &Context, source: &Source, ordinal: Ordinal, found: Found) -> Result<CatalogEntry> {
    let listed = found.listed.clone();
    let filter = context.settings.filters.get(&listed.namespace).cloned();
    let entry = CatalogEntry::listed(ordinal, (listed.namespace, listed.kind), listed.uuid, listed.options);
    let mut entry = CatalogEntry { filter, ..entry };
    if !entry.kind.has_documents() {
        return Ok(entry);
    }
    let documents_in = entry.documents_in();
    let mut owners = vec![found.shard.clone()];
    if let Some(sharded) = &found.sharded {
        entry.sharding = Some(sharding_of(source, &documents_in, sharded).await?);
        owners.extend(found.others.iter().map(|(shard, _)| shard.clone()));
    }
    for owner in &owners {
        let shard = &source.shard(owner)?.deployment;
        let (documents, bytes) = catalog::size(shard, &documents_in).await?;
        entry.documents += documents;
        entry.bytes += bytes;
        if source.reads_shards() {
            entry.parts.push(Part { shard: owner.clone(), documents, bytes });
        }
    }
    entry.indexes = catalog::indexes(&source.shard(&owners[0])?.deployment, &documents_in).await?;
    Ok(entry)
}

/// How a collection is sharded, but for its chunks.
async fn sharding_of(source: &Source, namespace: &Namespace, sharded: &Sharded) -> Result<Sharding> {
    let key = Document::try_from(sharded.key.as_ref())
        .map_err(|error| Error::source(format!("config.collections has a key that cannot be read: {error}")))?;
    Ok(Sharding {
        key: Bson::Document(key).into_canonical_extjson(),
        unique: sharded.unique,
        is_unsplittable: sharded.is_unsplittable,
        chunks: 0,
        pages: 0,
        fingerprint: String::new(),
        no_balance: sharded.no_balance,
        zones: cluster::zones(&source.main, namespace).await?,
    })
}

/// Filters, renames, and the names that come of them.
///
/// # Errors
/// What does not answer.
pub async fn names(context: &Context, servers: &Servers, entries: &[CatalogEntry]) -> Result<Vec<Row>> {
    let namespaces: Vec<Namespace> = entries.iter().map(|entry| entry.namespace.clone()).collect();
    let on_target = catalog::databases(&servers.target).await?;
    let renames = &context.settings.renames;
    let mut rows = of_names(&context.settings.filter, renames, &namespaces, &on_target);
    rows.extend(entries.iter().filter_map(|entry| of_kind(entry, renames)));
    Ok(rows)
}

/// What a rename makes impossible for a view or a time series.
fn of_kind(entry: &CatalogEntry, renames: &Renames) -> Option<Row> {
    let refused = |why: String, way_out| {
        let found = format!("{} cannot be copied: {why}", entry.namespace);
        Some(Row::refusal(Check::Names, "target", found, way_out))
    };
    match entry.kind {
        CollectionKind::View => {
            let why = view::renamed(&entry.namespace, &entry.options, renames).err()?;
            refused(why, "rename both alike, or exclude the view")
        }
        CollectionKind::TimeSeries => {
            let why = renames.apply(&entry.namespace).buckets().check().err()?;
            refused(format!("its buckets' name on the target is none: {why}"), "give it a shorter name")
        }
        _ => None,
    }
}

/// Refuses what would be in the way of a server's own databases, or of the checkpoint.
///
/// # Errors
/// Bad input, with its name.
pub fn special(context: &Context, servers: &Servers, entries: &[CatalogEntry]) -> Result<()> {
    let Settings { checkpoint_uri, checkpoint_namespace, renames, .. } = context.settings.as_ref();
    let is_written = *checkpoint_uri == CheckpointUri::Target && servers.source.mode != CheckpointMode::None;
    for CatalogEntry { namespace, .. } in entries {
        let to = renames.apply(namespace);
        if is_written && to == *checkpoint_namespace {
            return Err(Error::bad_input(format!(
                "{namespace} would be copied to {to}, where the checkpoint goes; rename or exclude it, or choose another --checkpoint-namespace"
            )));
        }
        if namespace.is_special() && (servers.source.is_cluster || servers.target.is_mongos()) {
            return Err(Error::bad_input(format!(
                "{namespace} is copied from a replica set to a replica set only: in a cluster each shard and the config servers have a database `{}` of their own; take it out of --include",
                namespace.db()
            )));
        }
    }
    Ok(())
}

/// How collections are to be sharded in the target.
///
/// # Errors
/// What could not be decided.
pub fn sharding(servers: &Servers, decided: &Result<Decided>) -> Result<Vec<Row>> {
    let decided = decided.as_ref().map_err(Error::clone)?;
    let found = match servers.target.is_mongos() {
        false => "none: the target is a replica set".to_owned(),
        true => format!("{} collections are to be sharded", decided.count()),
    };
    Ok(vec![Row::ok(Check::Sharding, "target", found)])
}

/// Kinds that are not copied.
pub fn kinds(entries: &[CatalogEntry]) -> Vec<Row> {
    let left_out: Vec<String> = entries
        .iter()
        .filter(|entry| !entry.kind.is_copied())
        .map(|entry| format!("{} ({})", entry.namespace, entry.kind.text()))
        .collect();
    if left_out.is_empty() {
        return vec![Row::ok(Check::Kinds, "source", "all are of kinds that are copied")];
    }
    let found = format!("this version does not copy {}: each is a finding", some(&left_out));
    vec![Row::warning(Check::Kinds, "source", found, "exclude them, or accept the findings and make them by hand")]
}

/// What is in use and the target, which has what `usable` has, does not take.
pub fn features(entries: &[CatalogEntry], usable: (i32, i32)) -> Vec<Row> {
    let version = format!("MongoDB {}.{}", usable.0, usable.1);
    let copied = || entries.iter().filter(|entry| entry.kind.is_copied());
    let text = |what: &str, feature: &Feature<Value>| format!("{what} has {} ({})", feature.name, feature.versions());
    let of_collections: Vec<String> = copied()
        .flat_map(|entry| {
            missing_of_collection(entry, usable).map(move |feature| text(&entry.namespace.to_string(), feature))
        })
        .collect();
    let of_indexes: Vec<String> = copied()
        .flat_map(|entry| {
            let indexes = missing_of_indexes(entry, usable);
            indexes.map(move |(name, feature)| text(&format!("{name} of {}", entry.namespace), feature))
        })
        .collect();
    let collections = match of_collections.is_empty() {
        true => Row::ok(Check::Features, "target", format!("{version} has what the collections use")),
        false => Row::refusal(
            Check::Features,
            "target",
            format!("the target behaves as {version}, and {}", some(&of_collections)),
            "exclude them, or update the target",
        ),
    };
    let indexes = match of_indexes.is_empty() {
        true => Row::ok(Check::Indexes, "target", format!("{version} has what the indexes use")),
        false => Row::warning(
            Check::Indexes,
            "target",
            format!("the target behaves as {version}, and {}: each that is refused is a finding", some(&of_indexes)),
            "drop them on the source, or accept the findings",
        ),
    };
    vec![collections, indexes]
}

/// TTL indexes whose documents have expired on the source, which has not deleted them yet: the target deletes them as soon as
/// it has the index.
///
/// # Errors
/// What does not answer.
pub async fn expiry(servers: &Servers, entries: &[CatalogEntry]) -> Result<Vec<Row>> {
    let now = i64::try_from(clock::wall_milliseconds()).unwrap_or(i64::MAX);
    let copied = entries.iter().filter(|entry| entry.kind.is_copied());
    let all: Vec<(&CatalogEntry, Ttl<'_>)> =
        copied.flat_map(|entry| entry.indexes.iter().filter_map(move |index| Some((entry, ttl(index)?)))).collect();
    let looks = all.iter().take(TTL_LOOKED_AT).map(|(entry, ttl)| {
        let before = now.saturating_sub(ttl.seconds.saturating_mul(1_000));
        async move {
            let home = servers.source.home(entry)?;
            inspect::has_before(home, &entry.documents_in(), (ttl.field, ttl.index), before).await
        }
    });
    let looked: Vec<Option<bool>> = stream::iter(looks.collect::<Vec<_>>()).buffered(PARALLEL).try_collect().await?;
    let of = |wanted: Option<bool>| {
        let found = all.iter().zip(&looked).filter(|(_, expired)| **expired == wanted);
        found.map(|((entry, ttl), _)| format!("{} of {}", ttl.index, entry.namespace)).collect::<Vec<_>>()
    };
    let (expired, unknown) = (of(Some(true)), of(None).len() + all.len().saturating_sub(looked.len()));
    let unknown = if unknown == 0 { String::new() } else { format!(", {unknown} of them were not looked at") };
    Ok(vec![match expired.is_empty() {
        true => Row::ok(
            Check::Expiry,
            "source",
            format!("{} TTL indexes, and nothing has expired already{unknown}", all.len()),
        ),
        false => Row::warning(
            Check::Expiry,
            "source",
            format!(
                "documents have expired by {} and are there still: the target deletes them as soon as it has the index{unknown}",
                some(&expired)
            ),
            "delete them on the source, or expect fewer on the target",
        ),
    }])
}

/// A TTL index.
struct Ttl<'a> {
    index: &'a str,
    field: &'a str,
    seconds: i64,
}

fn ttl(index: &Value) -> Option<Ttl<'_>> {
    let seconds = match Bson::try_from(index.get("expireAfterSeconds")?.clone()).ok()? {
        Bson::Int32(seconds) => i64::from(seconds),
        Bson::Int64(seconds) => seconds,
        Bson::Double(seconds) if seconds.is_finite() => seconds as i64,
        _ => return None,
    };
    // Others are about some documents only, and a hint of them is refused.
    if index.get("partialFilterExpression").is_some() || index.get("hidden").is_some() {
        return None;
    }
    let field = index.get("key")?.as_object()?.keys().next()?;
    Some(Ttl { index: index.get("name")?.as_str()?, field, seconds })
}

/// How large and how deep documents are: the mean of each collection, and some of those whose mean is largest.
///
/// # Errors
/// What does not answer.
pub async fn documents(context: &Context, source: &Source, entries: &[CatalogEntry]) -> Result<Vec<Row>> {
    let mean = |entry: &CatalogEntry| entry.bytes / entry.documents.max(1);
    let mut copied: Vec<&CatalogEntry> =
        entries.iter().filter(|entry| entry.kind.is_copied() && entry.documents > 0).collect();
    copied.sort_by_key(|entry| std::cmp::Reverse(mean(entry)));
    let Some(first) = copied.first() else {
        return Ok(vec![Row::ok(Check::Documents, "source", "there are none")]);
    };
    let looked_into = &copied[..copied.len().min(LOOKED_INTO)];
    let (mut seen, mut largest, mut deepest) = (Seen::default(), &first.namespace, &first.namespace);
    for entry in looked_into {
        let each = (SAMPLE_BYTES / mean(entry).max(1)).clamp(1, SAMPLE) as u32;
        let of_it = inspect::ends(source.home(entry)?, &entry.documents_in(), each).await?;
        if of_it.largest > seen.largest {
            (seen.largest, largest) = (of_it.largest, &entry.namespace);
        }
        if of_it.deepest > seen.deepest {
            (seen.deepest, deepest) = (of_it.deepest, &entry.namespace);
        }
        seen.documents += of_it.documents;
    }
    let found = format!(
        "the largest mean is {} in {}; of {} documents of {} collections that were looked at the largest has {} ({largest}), the deepest {} levels ({deepest})",
        size::about(mean(first)),
        first.namespace,
        seen.documents,
        looked_into.len(),
        size::about(seen.largest as u64),
        seen.deepest
    );
    if seen.deepest > DEEPEST {
        let way_out = "make sure that the target takes it: more than 100 levels are not promised";
        return Ok(vec![Row::warning(Check::Documents, "source", found, way_out)]);
    }
    // A document is in memory up to four times while it is on its way.
    if seen.largest as u64 * 4 > context.settings.memory {
        let way_out = "give it more --memory";
        return Ok(vec![Row::warning(Check::Documents, "source", found, way_out)]);
    }
    Ok(vec![Row::ok(Check::Documents, "source", found)])
}

/// What has the wanted names in the target. What this job has made there is no obstacle.
///
/// # Errors
/// Bad input for what prepare would refuse; what does not answer.
pub async fn on_target(
    context: &Context,
    servers: &Servers,
    entries: &[CatalogEntry],
    decided: &Decided,
) -> Result<Vec<Row>> {
    if let Some(job) = &servers.job
        && marker::is_there(&servers.target, &job.id).await?
    {
        let found = "this job has begun to prepare it";
        return Ok(vec![Row::ok(Check::TargetContents, "target", found)]);
    }
    let there = prepare::refuse_existing(context, servers, entries, decided).await?;
    let found = match there {
        0 => "none of the names is taken".to_owned(),
        there => format!("{there} of the names are taken, and --existing is {}", context.settings.existing),
    };
    Ok(vec![Row::ok(Check::TargetContents, "target", found)])
}
