//! The test router is what a driver takes for a mongos, and its shards agree with where it puts documents.

use futures_util::TryStreamExt;
use mongodb::bson::oid::ObjectId;
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, Bson, DateTime, Document, Timestamp, doc, rawdoc};
use mongodb::error::{Error, ErrorKind, WriteFailure};
use mongodb::{Client, Collection, IndexModel};
use mongoferry::mongo::wire::Connector;

use crate::support::cluster::{Cluster, ClusterOptions, shared_cluster};
use crate::support::router::Router;
use crate::support::servers::Failure;

/// A router of the shared cluster, a client of it, and a collection that is sharded and has chunks on both shards: the
/// keys below `at` on `s0`.
async fn sharded(name: &str, key: Document, at: Document) -> Result<(Router, Client, Collection<Document>), Failure> {
    let router = Router::start(shared_cluster().await?)?;
    let client = Client::with_uri_str(router.uri()).await?;
    let admin = client.database("admin");
    admin.run_command(doc! {"enableSharding": name, "primaryShard": "s0"}).await?;
    let namespace = format!("{name}.c");
    admin.run_command(doc! {"shardCollection": &namespace, "key": key}).await?;
    admin.run_command(doc! {"split": &namespace, "middle": &at}).await?;
    // A shard gives or takes one chunk at a time, and other tests move some as well.
    let mut tries = 0;
    loop {
        let moved = admin.run_command(doc! {"moveRange": &namespace, "min": &at, "toShard": "s1"}).await;
        match moved.as_ref().map_err(code) {
            Err(117) if tries < 600 => tries += 1,
            _ => break moved.map(drop)?,
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    Ok((router, client.clone(), client.database(name).collection("c")))
}

/// The code of a refusal, of the command or of a single write.
fn code(error: &Error) -> i32 {
    match &*error.kind {
        ErrorKind::Command(command) => command.code,
        ErrorKind::Write(WriteFailure::WriteError(error)) => error.code,
        _ => 0,
    }
}

/// The indexes and codes of the refusals of an `insert_many`.
fn refusals(error: Error) -> Vec<(usize, i32)> {
    let ErrorKind::InsertMany(error) = *error.kind else { panic!("{error}") };
    error.write_errors.iter().flatten().map(|error| (error.index, error.code)).collect()
}

fn numbers(documents: &[Document], field: &str) -> Vec<i32> {
    documents.iter().filter_map(|document| document.get_i32(field).ok()).collect()
}

#[tokio::test]
async fn a_driver_takes_it_for_a_mongos() -> Result<(), Failure> {
    let router = Router::start(shared_cluster().await?)?;
    let client = Client::with_uri_str(router.uri()).await?;
    let admin = client.database("admin");
    let hello = admin.run_command(doc! {"hello": 1}).await?;
    assert_eq!((hello.get_str("msg")?, hello.get_i32("maxWireVersion")?), ("isdbgrid", 17));
    assert!(!hello.contains_key("setName") && hello.contains_key("$clusterTime"), "{hello}");
    let shards = admin.run_command(doc! {"listShards": 1}).await?;
    assert_eq!(shards.get_array("shards")?.len(), 2);
    assert_eq!(admin.run_command(doc! {"buildInfo": 1}).await?.get_str("version")?, "6.0.5");
    let unknown = admin.run_command(doc! {"replSetGetConfig": 1}).await.expect_err("a mongos has none");
    assert_eq!(code(&unknown), 59);
    let operations = doc! {"aggregate": 1, "pipeline": [{"$currentOp": {"idleConnections": true}}], "cursor": {}};
    let operations: Vec<Document> = admin.run_cursor_command(operations).await?.try_collect().await?;
    let mut hosts: Vec<_> = operations.iter().filter_map(|operation| operation.get_str("host").ok()).collect();
    hosts.sort_unstable();
    hosts.dedup();
    assert_eq!(hosts.len(), 2, "{hosts:?}");

    // A database is created by its first write, on some shard; what is not sharded lies there.
    let plain = client.database("routed_plain").collection::<Document>("c");
    plain.insert_many((0..500).map(|id| doc! {"_id": id})).await?;
    plain.create_index(IndexModel::builder().keys(doc! {"x": 1}).build()).await?;
    assert_eq!(plain.count_documents(doc! {}).await?, 500);
    let names = client.list_database_names().await?;
    assert!(names.contains(&"routed_plain".to_owned()) && names.contains(&"config".to_owned()), "{names:?}");
    assert!(!names.contains(&"local".to_owned()));
    assert_eq!(client.database("routed_plain").list_collection_names().await?, ["c"]);
    assert_eq!(plain.list_index_names().await?, ["_id_", "x_1"]);
    plain.drop_index("x_1").await?;
    assert_eq!(plain.list_index_names().await?, ["_id_"]);
    let databases = client.database("config").collection::<Document>("databases");
    assert_eq!(databases.count_documents(doc! {"_id": "routed_plain"}).await?, 1);
    client.database("routed_plain").drop().await?;
    assert_eq!(databases.count_documents(doc! {"_id": "routed_plain"}).await?, 0);
    plain.drop().await?;
    Ok(())
}

#[tokio::test]
async fn each_shard_has_its_own_and_all_are_found() -> Result<(), Failure> {
    let (_router, client, collection) = sharded("routed_ranged", doc! {"k": 1}, doc! {"k": 0}).await?;
    let cluster = shared_cluster().await?;
    // More than a reply holds, so that both cursors are asked again; the shards take turns within the batch.
    let padding = "x".repeat(20_000);
    let document = |id: i32| doc! {"_id": id, "k": if id % 2 == 0 { id } else { -id }, "padding": &padding};
    collection.insert_many((0..2000).map(document)).ordered(false).await?;
    collection.insert_many((2000..2100).map(document)).await?;
    for (shard, parity) in [("s0", 1), ("s1", 0)] {
        let owned = numbers(&cluster.owned(shard, "routed_ranged.c").await?, "_id");
        assert_eq!(owned, (0..2100).filter(|id| id % 2 == parity).collect::<Vec<_>>(), "{shard}");
        assert_eq!(cluster.stored(shard, "routed_ranged.c").await?.len(), 1050);
    }

    // Orphans are on the shards, and are not found.
    cluster.plant("s0", "routed_ranged.c", [doc! {"_id": 5000, "k": 1}]).await?;
    let found: Vec<Document> = collection.find(doc! {}).sort(doc! {"_id": -1}).await?.try_collect().await?;
    assert_eq!(numbers(&found, "_id"), (0..2100).rev().collect::<Vec<_>>());
    let mut found: Vec<Document> = collection.find(doc! {}).batch_size(7).await?.try_collect().await?;
    found.sort_by_key(|document| document.get_i32("_id").unwrap_or_default());
    assert_eq!(numbers(&found, "_id"), (0..2100).collect::<Vec<_>>());
    let some = collection.find(doc! {}).sort(doc! {"_id": 1}).skip(10).limit(5).await?;
    assert_eq!(numbers(&some.try_collect::<Vec<_>>().await?, "_id"), [10, 11, 12, 13, 14]);
    let bounds = collection.find(doc! {}).hint(mongodb::options::Hint::Keys(doc! {"_id": 1}));
    let bounds = bounds.min(doc! {"_id": 100}).max(doc! {"_id": 103}).sort(doc! {"_id": 1}).await?;
    assert_eq!(numbers(&bounds.try_collect::<Vec<_>>().await?, "_id"), [100, 101, 102]);
    assert_eq!(collection.find_one(doc! {"k": 8}).await?.ok_or("is there")?.get_i32("_id")?, 8);
    assert!(collection.find_one(doc! {"k": 1}).await?.is_none());

    assert_eq!(collection.count_documents(doc! {}).await?, 2100);
    let grouped = collection.aggregate([
        doc! {"$match": {"_id": {"$lt": 100}}},
        doc! {"$group": {"_id": {"$mod": ["$_id", 3]}, "n": {"$sum": 1}, "most": {"$max": "$_id"}}},
        doc! {"$sort": {"_id": 1}},
    ]);
    let grouped: Vec<Document> = grouped.await?.try_collect().await?;
    assert_eq!((numbers(&grouped, "n"), numbers(&grouped, "most")), (vec![34, 33, 33], vec![99, 97, 98]));
    let sizes = collection.aggregate([doc! {"$collStats": {"storageStats": {}}}]).await?;
    assert_eq!(sizes.try_collect::<Vec<_>>().await?.len(), 2);
    assert_eq!(client.database("nowhere").collection::<Document>("c").count_documents(doc! {}).await?, 0);
    Ok(())
}

#[tokio::test]
async fn refusals_have_the_places_of_the_batch_that_was_sent() -> Result<(), Failure> {
    let (_router, _, collection) = sharded("routed_refused", doc! {"k": 1}, doc! {"k": 0}).await?;
    let ids = |range: std::ops::Range<i32>| range.map(|id| doc! {"_id": id, "k": if id % 2 == 0 { id } else { -id }});
    collection.insert_many(ids(0..10).filter(|document| document.get_i32("_id").is_ok_and(|id| id % 3 == 0))).await?;
    let unordered = collection.insert_many(ids(0..10)).ordered(false).await.expect_err("four are there");
    assert_eq!(refusals(unordered), [(0, 11000), (3, 11000), (6, 11000), (9, 11000)]);
    assert_eq!(collection.count_documents(doc! {}).await?, 10);

    let (taken, array) = (doc! {"_id": 12, "k": 12}, doc! {"_id": 13, "k": [1]});
    collection.insert_one(taken.clone()).await?;
    let ordered = collection.insert_many(ids(10..12).chain([taken.clone()]).chain(ids(14..16))).await;
    assert_eq!(refusals(ordered.expect_err("one is there")), [(2, 11000)]);
    assert_eq!(collection.count_documents(doc! {}).await?, 13);
    let ordered = collection.insert_many(ids(14..15).chain([array, taken])).await;
    assert_eq!(refusals(ordered.expect_err("an array is no key")), [(1, 61)]);

    // One `_id` on two shards is no duplicate for anybody.
    collection.insert_one(doc! {"_id": 0, "k": -1000}).await?;
    assert_eq!(collection.count_documents(doc! {"_id": 0}).await?, 2);
    Ok(())
}

#[tokio::test]
async fn a_write_of_one_document_needs_its_key_or_its_id() -> Result<(), Failure> {
    let (router, _, collection) = sharded("routed_updates", doc! {"k": 1}, doc! {"k": 0}).await?;
    collection.insert_many((-50..50).map(|k| doc! {"_id": k + 50, "k": k})).await?;

    let all = collection.update_many(doc! {}, doc! {"$set": {"x": 1}}).await?;
    assert_eq!((all.matched_count, all.modified_count), (100, 100));
    let by_key = collection.update_one(doc! {"k": 7}, doc! {"$set": {"x": 2}}).await?;
    let by_id = collection.update_one(doc! {"_id": 3}, doc! {"$set": {"x": 2}}).await?;
    assert_eq!((by_key.modified_count, by_id.modified_count), (1, 1));
    let neither = collection.update_one(doc! {"x": 2}, doc! {"$set": {"x": 3}}).await.expect_err("no key");
    assert_eq!(code(&neither), 72);
    let upsert = collection.update_one(doc! {"_id": 7}, doc! {"$set": {"x": 3}}).upsert(true).await;
    assert_eq!(code(&upsert.expect_err("no key")), 61);
    let upsert = collection.update_one(doc! {"_id": 700, "k": 700}, doc! {"$set": {"x": 3}}).upsert(true).await?;
    assert_eq!(upsert.upserted_id, Some(Bson::Int32(700)));

    // A replacement is sent where its own key belongs: it does not find a document whose key was another one.
    let same = collection.replace_one(doc! {"_id": 60}, doc! {"_id": 60, "k": 10, "y": 1}).await?;
    let moved = collection.replace_one(doc! {"_id": 60}, doc! {"_id": 60, "k": -10, "y": 1}).await?;
    assert_eq!((same.matched_count, moved.matched_count), (1, 0));

    let found = collection.find_one_and_update(doc! {"k": 20}, doc! {"$set": {"z": 1}}).await?;
    assert_eq!(found.ok_or("is there")?.get_i32("_id")?, 70);
    let found = collection.find_one_and_update(doc! {"_id": 70}, doc! {"$set": {"z": 1}}).await;
    assert_eq!(code(&found.expect_err("no key")), 61);

    let delete = collection.delete_one(doc! {"x": 1}).await.expect_err("no key");
    assert_eq!(code(&delete), 61);
    assert_eq!(collection.delete_one(doc! {"_id": 99}).await?.deleted_count, 1);
    assert_eq!(collection.delete_many(doc! {"_id": {"$lt": 60}}).await?.deleted_count, 60);

    // A batch that is sent twice, as a driver does when the answer is lost, is done once.
    let options = mongodb::options::ClientOptions::parse(router.uri()).await?;
    let mut connection = Connector::new(&options)?.connect(&options.hosts[0]).await?;
    let batch = rawdoc! {
        "update": "c", "ordered": false, "txnNumber": 1_i64,
        "lsid": {"id": Binary { subtype: BinarySubtype::Uuid, bytes: vec![7; 16] }},
        "updates": [
            {"q": {"k": 30}, "u": {"$inc": {"times": 1}}},
            {"q": {"_id": 81}, "u": {"$inc": {"times": 1}}},
            {"q": {"k": 700}, "u": {"$inc": {"times": 1}}},
        ],
    };
    for _ in 0..2 {
        let reply = connection.exchange("routed_updates", batch.clone(), None).await?;
        assert_eq!((reply.get_i32("n")?, reply.get("writeErrors")?), (3, None), "{reply:?}");
    }
    let once: Vec<Document> = collection.find(doc! {"times": 1}).sort(doc! {"_id": 1}).await?.try_collect().await?;
    assert_eq!(numbers(&once, "_id"), [80, 81, 700]);
    Ok(())
}

#[tokio::test]
async fn a_chunk_that_moved_is_found_by_a_router_that_did_not_see_it() -> Result<(), Failure> {
    let cluster = Cluster::start(ClusterOptions { shards: 3, ..Default::default() }).await?;
    let (one, other) = (Router::start(&cluster)?, Router::start(&cluster)?);
    let (client, seer) = (Client::with_uri_str(one.uri()).await?, Client::with_uri_str(other.uri()).await?);
    let admin = client.database("admin");
    admin.run_command(doc! {"enableSharding": "stale", "primaryShard": "s0"}).await?;
    let collection = client.database("stale").collection::<Document>("c");
    let seen = seer.database("stale").collection::<Document>("c");
    // Both know it as unsharded, then as one chunk, then as two.
    collection.insert_many((0..10).map(|k| doc! {"_id": k, "k": k})).await?;
    assert_eq!(seen.count_documents(doc! {}).await?, 10);
    collection.create_index(IndexModel::builder().keys(doc! {"k": 1}).build()).await?;
    admin.run_command(doc! {"shardCollection": "stale.c", "key": {"k": 1}}).await?;
    seen.insert_one(doc! {"_id": 10, "k": 10}).await?;
    admin.run_command(doc! {"split": "stale.c", "middle": {"k": 5}}).await?;
    admin.run_command(doc! {"moveChunk": "stale.c", "find": {"k": 5}, "to": "s1"}).await?;

    // In the middle of a batch, unordered and ordered; an update and a read of what went away.
    seen.insert_many((0..20).map(|n| doc! {"_id": 100 + n, "k": n})).ordered(false).await?;
    cluster.split("stale.c", doc! {"k": 15}).await?;
    cluster.move_chunk("stale.c", doc! {"k": 15}, "s2").await?;
    seen.insert_many((0..20).map(|n| doc! {"_id": 200 + n, "k": n})).await?;
    assert_eq!(seen.update_many(doc! {"k": 15}, doc! {"$set": {"x": 1}}).await?.modified_count, 2);
    assert_eq!(seen.update_one(doc! {"_id": 7}, doc! {"$set": {"x": 1}}).await?.modified_count, 1);
    for client in [&collection, &seen] {
        assert_eq!(client.count_documents(doc! {}).await?, 51);
        assert_eq!(client.count_documents(doc! {"x": 1}).await?, 3);
    }
    for (shard, owned) in [("s0", 15), ("s1", 26), ("s2", 10)] {
        assert_eq!(cluster.owned(shard, "stale.c").await?.len(), owned, "{shard}");
    }

    // Dropped, and made anew with another key.
    collection.drop().await?;
    admin.run_command(doc! {"shardCollection": "stale.c", "key": {"z": 1}}).await?;
    seen.insert_one(doc! {"_id": 1, "k": 1}).await?;
    assert_eq!(collection.count_documents(doc! {}).await?, 1);
    drop(one);
    assert!(admin.run_command(doc! {"ping": 1}).await.is_err());
    Ok(())
}

#[tokio::test]
async fn hashed_keys_of_every_type_go_where_the_shards_own_hash_says() -> Result<(), Failure> {
    let cluster = shared_cluster().await?;
    let router = Router::start(cluster)?;
    let client = Client::with_uri_str(router.uri()).await?;
    let admin = client.database("admin");
    let keys = [
        ("hashed", doc! {"k": "hashed"}),
        ("second", doc! {"a": 1, "k.x": "hashed"}),
        ("first", doc! {"k": "hashed", "a": 1}),
    ];
    admin.run_command(doc! {"enableSharding": "routed_hashed", "primaryShard": "s1"}).await?;
    let values = [
        Bson::Null,
        Bson::Double(-1.5),
        Bson::Int64(1 << 40),
        "text".into(),
        true.into(),
        Bson::MinKey,
        Bson::MaxKey,
        doc! {"x": 1, "y": {"z": [1, "$x"]}}.into(),
        ObjectId::from_bytes([3; 12]).into(),
        Binary { subtype: BinarySubtype::Generic, bytes: vec![1, 2] }.into(),
        Bson::Timestamp(Timestamp { time: 1, increment: 2 }),
        DateTime::from_millis(7).into(),
        Bson::Decimal128("1.5".parse()?),
    ];
    let documents = |n: i32| {
        let value = values[n as usize % values.len()].clone();
        let value = if n % 2 == 0 { value } else { doc! {"x": value, "n": n}.into() };
        doc! {"_id": n, "a": n % 10, "k": if n % 7 == 0 { n.into() } else { value }}
    };
    for (name, key) in keys {
        let namespace = format!("routed_hashed.{name}");
        let mut shard = doc! {"shardCollection": &namespace, "key": key.clone()};
        if name != "second" {
            shard.insert("numInitialChunks", 6);
        }
        admin.run_command(shard).await?;
        if name == "second" {
            cluster.split(&namespace, doc! {"a": 4, "k.x": 0_i64}).await?;
            cluster.move_chunk(&namespace, doc! {"a": 4, "k.x": 0_i64}, "s0").await?;
        }
        let collection = client.database("routed_hashed").collection::<Document>(name);
        collection.insert_many((0..1000).map(documents)).ordered(false).await?;
        // A shard leaves out what is not its own, so what is found was put where it belongs.
        assert_eq!(collection.count_documents(doc! {}).await?, 1000, "{name}");
        for shard in ["s0", "s1"] {
            let (owned, stored) = (cluster.owned(shard, &namespace).await?, cluster.stored(shard, &namespace).await?);
            assert!(owned.len() > 100, "{name}, {shard}: {}", owned.len());
            assert_eq!(owned.len(), stored.len(), "{name}, {shard}");
        }
    }
    let collection = client.database("routed_hashed").collection::<Document>("hashed");
    let updated = collection.update_one(doc! {"k": 7}, doc! {"$set": {"x": 1}}).await?;
    assert_eq!(updated.modified_count, 1);
    Ok(())
}

#[tokio::test]
async fn commands_about_sharding_do_what_they_do_on_a_mongos() -> Result<(), Failure> {
    let cluster = Cluster::start(ClusterOptions::default()).await?;
    let router = Router::start(&cluster)?;
    let client = Client::with_uri_str(router.uri()).await?;
    let (admin, config, database) = (client.database("admin"), client.database("config"), client.database("governed"));
    for (command, mode) in [("balancerStart", "full"), ("balancerStop", "off")] {
        admin.run_command(doc! {command: 1}).await?;
        assert_eq!(admin.run_command(doc! {"balancerStatus": 1}).await?.get_str("mode")?, mode);
    }
    admin.run_command(doc! {"enableSharding": "governed", "primaryShard": "s1"}).await?;
    for (shard, zone, min, max) in [("s0", "low", Bson::MinKey, 0.into()), ("s1", "high", 0.into(), Bson::MaxKey)] {
        admin.run_command(doc! {"addShardToZone": shard, "zone": zone}).await?;
        let range = doc! {"updateZoneKeyRange": "governed.c", "min": {"k": min}, "max": {"k": max}, "zone": zone};
        admin.run_command(range).await?;
    }
    assert_eq!(config.collection::<Document>("tags").count_documents(doc! {"ns": "governed.c"}).await?, 2);
    database.create_collection("c").collation(collation("de")).await?;
    let shard = doc! {"shardCollection": "governed.c", "key": {"k": 1}, "unique": true};
    let refused = admin.run_command(shard.clone()).await.expect_err("its collation is another one");
    assert_eq!(code(&refused), 2);
    let mut simple = shard.clone();
    simple.insert("collation", doc! {"locale": "simple"});
    let sharded = admin.run_command(simple).await?;
    assert_eq!(sharded.get_str("collectionsharded")?, "governed.c");
    let placement = cluster.placement("governed.c").await?;
    assert_eq!((placement.owners().len(), placement.entry.get_bool("unique")?), (2, true));
    let at_bound = admin.run_command(doc! {"split": "governed.c", "middle": {"k": 0}}).await;
    assert!(at_bound.expect_err("a chunk begins there").to_string().contains("boundary key"));

    // On both shards.
    let collection = database.collection::<Document>("c");
    collection.insert_many((-5..5).map(|k| doc! {"_id": k, "k": k})).await?;
    collection.create_index(IndexModel::builder().keys(doc! {"x": 1}).build()).await?;
    database.run_command(doc! {"collMod": "c", "validator": {"k": {"$lt": 100}}}).await?;
    for shard in ["s0", "s1"] {
        let client = cluster.shard_client(shard).await?;
        let shard = client.database("governed");
        assert_eq!(shard.collection::<Document>("c").list_index_names().await?, ["_id_", "k_1", "x_1"]);
        let listed: Vec<_> = shard.list_collections().await?.try_collect().await?;
        assert!(listed[0].options.validator.is_some(), "{listed:?}");
    }
    assert_eq!(collection.list_index_names().await?, ["_id_", "k_1", "x_1"]);
    assert_eq!(code(&collection.insert_one(doc! {"k": 100}).await.expect_err("is not valid")), 121);
    let other = Binary { subtype: BinarySubtype::Uuid, bytes: vec![7; 16] };
    let drop = database.run_command(doc! {"drop": "c", "collectionUUID": &other}).await;
    assert_eq!(code(&drop.expect_err("is another collection")), 361);
    let insert = doc! {"insert": "c", "documents": [{"k": 1}, {"k": -1}], "collectionUUID": &other};
    let insert = database.run_command(insert).await?;
    let errors = insert.get_array("writeErrors")?;
    assert!(
        errors
            .iter()
            .any(|error| error.as_document().is_some_and(|error| error.get_i32("code").is_ok_and(|code| code == 361)))
    );
    let configured = doc! {"configureCollectionBalancing": "governed.c", "chunkSize": 32};
    admin.run_command(configured).await?;
    collection.drop().await?;
    for shard in ["s0", "s1"] {
        assert_eq!(cluster.shard_client(shard).await?.database("governed").list_collection_names().await?.len(), 0);
    }
    assert!(cluster.placement("governed.c").await.is_err());
    let gone = admin.run_command(doc! {"split": "governed.c", "middle": {"k": 1}}).await;
    assert_eq!(code(&gone.expect_err("is not sharded any more")), 118);
    Ok(())
}

#[tokio::test]
async fn it_finds_the_new_primary_of_a_shard() -> Result<(), Failure> {
    let mut cluster = Cluster::start(ClusterOptions { shards: 1, members: 3, ..Default::default() }).await?;
    let router = Router::start(&cluster)?;
    let collection = Client::with_uri_str(router.uri()).await?.database("elected").collection::<Document>("c");
    collection.insert_one(doc! {"_id": 1}).await?;
    let set = &mut cluster.shards[0].set;
    let old = set.primary().await?;
    set.kill(old)?;
    collection.insert_one(doc! {"_id": 2}).await?;
    assert_eq!(collection.count_documents(doc! {}).await?, 2);
    Ok(())
}

fn collation(locale: &str) -> mongodb::options::Collation {
    mongodb::options::Collation::builder().locale(locale).build()
}
