//! Commands about sharding: each becomes the internal one that a mongos sends.

use mongodb::bson::{Bson, Document, RawArrayBuf, RawDocument, RawDocumentBuf, doc, rawdoc};

use super::answer::{Answer, Refused, code};
use super::raw;
use super::route::{Primary, Route, Routes, Sharded};
use super::upstream::{CONFIG, Command, Upstream};

/// Commands that the config server has under another name, with the same fields; whether they take a write concern.
const OF_CONFIG_SERVER: [(&str, &str, bool); 8] = [
    ("balancerStart", "_configsvrBalancerStart", false),
    ("balancerStop", "_configsvrBalancerStop", false),
    ("balancerStatus", "_configsvrBalancerStatus", false),
    ("balancerCollectionStatus", "_configsvrBalancerCollectionStatus", false),
    ("configureCollectionBalancing", "_configsvrConfigureCollectionBalancing", false),
    ("addShardToZone", "_configsvrAddShardToZone", true),
    ("removeShardFromZone", "_configsvrRemoveShardFromZone", true),
    ("updateZoneKeyRange", "_configsvrUpdateZoneKeyRange", true),
];

/// What a client adds to every command and no internal one takes.
const OF_CLIENT: [&str; 7] =
    ["lsid", "txnNumber", "$db", "$clusterTime", "$readPreference", "writeConcern", "readConcern"];

/// Runs a command about sharding; none when it is another one.
pub fn run(routes: &Routes, upstream: &mut Upstream, name: &str, body: &RawDocument) -> Option<Answer> {
    let namespace = raw::text(body, name).unwrap_or_default().to_owned();
    let answer = match name {
        "listShards" => list_shards(upstream),
        "enableSharding" => enable_sharding(upstream, &namespace, body),
        "shardCollection" => shard_collection(upstream, &namespace, body),
        "split" => split(routes, upstream, &namespace, body),
        "moveChunk" | "moveRange" => move_range(routes, upstream, &namespace, body),
        "flushRouterConfig" => Ok(rawdoc! {"flushed": true, "ok": 1.0}),
        _ => {
            let found = OF_CONFIG_SERVER.iter().find(|(known, ..)| *known == name);
            let (_, internal, has_concern) = found?;
            let command = raw::renamed(&raw::without(body, &OF_CLIENT), internal);
            if *has_concern { with_majority(upstream, CONFIG, "admin", &command) } else { ask(upstream, &command) }
        }
    };
    routes.forget_all();
    Some(answer)
}

fn list_shards(upstream: &mut Upstream) -> Answer {
    let shards: RawArrayBuf = upstream.read_config("shards", rawdoc! {}, rawdoc! {"_id": 1})?.into_iter().collect();
    Ok(rawdoc! {"shards": shards, "ok": 1.0})
}

fn enable_sharding(upstream: &mut Upstream, database: &str, body: &RawDocument) -> Answer {
    let mut create = rawdoc! {"_configsvrCreateDatabase": database};
    if let Some(primary) = raw::text(body, "primaryShard") {
        create = raw::with(&create, "primaryShardId", primary);
    }
    with_majority(upstream, CONFIG, "admin", &create)?;
    Ok(rawdoc! {"ok": 1.0})
}

fn shard_collection(upstream: &mut Upstream, namespace: &str, body: &RawDocument) -> Answer {
    let (database, collection) = namespace.split_once('.').unwrap_or((namespace, ""));
    let primary = Primary::read_or_create(upstream, database)?;
    let key = raw::inner(body, "key").ok_or_else(|| Refused::new(code::BAD_VALUE, "shardCollection needs a key"))?;
    let head = rawdoc! {"_shardsvrCreateCollection": collection, "shardKey": key.to_owned()};
    let options = raw::without(body, &[&OF_CLIENT[..], &["shardCollection", "key"]].concat());
    let mut command = head;
    for option in options.iter() {
        let (name, value) = option?;
        command.append(name, value);
    }
    let reply = with_majority(upstream, &primary.shard, database, &primary.versioned(&command))?;
    Ok(raw::with(&raw::without(&reply, &["collectionVersion"]), "collectionsharded", namespace))
}

fn split(routes: &Routes, upstream: &mut Upstream, namespace: &str, body: &RawDocument) -> Answer {
    let middle = raw::inner(body, "middle");
    let middle = middle.ok_or_else(|| Refused::new(code::BAD_VALUE, "the test router splits at a `middle` alone"))?;
    follow(routes, upstream, namespace, |upstream, sharded| {
        let (min, max, owner) = sharded.chunk_of(middle)?;
        if RawDocumentBuf::try_from(min)?.as_ref() == middle {
            let message = format!("new split key {min} is a boundary key of existing chunk [{min},{max})");
            return Err(Refused::new(code::INVALID_OPTIONS, message));
        }
        let mut command = doc! {"splitChunk": namespace, "from": owner, "min": min, "max": max};
        command.insert("splitKeys", [Document::try_from(middle)?]);
        command.extend(sharded.identity());
        command.insert("$db", "admin");
        upstream.ask(owner, &RawDocumentBuf::try_from(&command)?.into())
    })
}

fn move_range(routes: &Routes, upstream: &mut Upstream, namespace: &str, body: &RawDocument) -> Answer {
    follow(routes, upstream, namespace, |upstream, sharded| {
        // `moveRange` says where a chunk begins or ends; `moveChunk` its bounds, or a key in it.
        let bounds = raw::value(body, "bounds").and_then(|bounds| bounds.as_array());
        let bounds = bounds.and_then(|bounds| bounds.get_document(0).ok());
        let key = raw::inner(body, "min").or(bounds).or_else(|| raw::inner(body, "find"));
        let mut command = doc! {"_configsvrMoveRange": namespace};
        if let Some(key) = key {
            command.insert("min", sharded.chunk_of(key)?.0);
        }
        if let Some(max) = raw::inner(body, "max") {
            command.insert("max", Document::try_from(max)?);
        }
        let to = raw::text(body, "toShard").or_else(|| raw::text(body, "to"));
        command.insert("toShard", to.map_or(Bson::Null, Bson::from));
        if raw::is_set(body, "waitForDelete") || raw::is_set(body, "_waitForDelete") {
            command.insert("waitForDelete", true);
        }
        with_majority(upstream, CONFIG, "admin", &RawDocumentBuf::try_from(&command)?)
    })
}

/// Does something with a sharded collection as it is now.
fn follow(
    routes: &Routes,
    upstream: &mut Upstream,
    namespace: &str,
    mut act: impl FnMut(&mut Upstream, &Sharded) -> Answer,
) -> Answer {
    routes.forget(namespace);
    routes.follow(upstream, namespace, |upstream, route| match route {
        Route::Sharded(sharded) => act(upstream, sharded),
        _ => Err(Refused::new(code::NAMESPACE_NOT_SHARDED, format!("ns [{namespace}] is not sharded."))),
    })
}

/// Sends an internal command that wants to be acknowledged by a majority.
pub fn with_majority(upstream: &mut Upstream, server: &str, database: &str, command: &RawDocument) -> Answer {
    let command = raw::with(command, "writeConcern", rawdoc! {"w": "majority"});
    upstream.ask(server, &Command::from(raw::with(&command, "$db", database)))
}

fn ask(upstream: &mut Upstream, command: &RawDocument) -> Answer {
    upstream.ask(CONFIG, &Command::from(raw::with(command, "$db", "admin")))
}

/// A client's command without what it adds to every one.
pub fn bare(body: &RawDocument) -> RawDocumentBuf {
    raw::without(body, &OF_CLIENT)
}
