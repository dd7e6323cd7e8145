//! The cluster that tests run is a real one: chunks, zones and migrations are the server's, and so are the orphans.

use mongodb::bson::{Bson, Document, doc};
use mongodb::{Client, IndexModel};

use crate::support::cluster::{Cluster, ClusterOptions, shared_cluster};
use crate::support::servers::Failure;

/// The `_id`s of documents, all of them numbers.
fn ids(documents: &[Document]) -> Vec<i32> {
    documents.iter().filter_map(|document| document.get_i32("_id").ok()).collect()
}

/// Documents whose key `k` and `_id` are these numbers.
fn numbered(numbers: std::ops::Range<i32>) -> impl Iterator<Item = Document> {
    numbers.map(|number| doc! {"_id": number, "k": number})
}

#[tokio::test]
async fn a_migration_leaves_orphans_that_the_shard_itself_leaves_out() -> Result<(), Failure> {
    let cluster = shared_cluster().await?;
    cluster.create_database("migrated", "s0").await?;
    cluster.shard_collection("migrated.c", doc! {"k": 1}, doc! {}).await?;
    cluster.plant("s0", "migrated.c", numbered(-50..50)).await?;
    assert_eq!(cluster.placement("migrated.c").await?.owners(), ["s0"]);

    cluster.split("migrated.c", doc! {"k": 0}).await?;
    cluster.move_chunk("migrated.c", doc! {"k": 0}, "s1").await?;
    let placement = cluster.placement("migrated.c").await?;
    let bounds: Vec<_> = placement.chunks.iter().map(|chunk| (&chunk.min, &chunk.max, chunk.shard.as_str())).collect();
    let (lower, zero, upper) = (doc! {"k": Bson::MinKey}, doc! {"k": 0}, doc! {"k": Bson::MaxKey});
    assert_eq!(bounds, [(&lower, &zero, "s0"), (&zero, &upper, "s1")]);
    assert!(placement.chunks.iter().all(|chunk| chunk.version.time == 2), "{placement:?}");

    cluster.plant("s1", "migrated.c", [doc! {"_id": "lost", "k": -1}]).await?;
    let stored = cluster.stored("s0", "migrated.c").await?;
    assert_eq!(ids(&stored), (-50..50).collect::<Vec<_>>());
    assert_eq!(cluster.stored("s1", "migrated.c").await?.len(), 51);
    assert_eq!(ids(&cluster.owned("s0", "migrated.c").await?), (-50..0).collect::<Vec<_>>());
    let owned = cluster.owned("s1", "migrated.c").await?;
    assert_eq!((owned.len(), ids(&owned)), (50, (0..50).collect()));

    Ok(())
}

#[tokio::test]
async fn a_leftover_belongs_to_nobody() -> Result<(), Failure> {
    let cluster = shared_cluster().await?;
    cluster.create_database("leftover", "s0").await?;
    cluster.shard_collection("leftover.sharded", doc! {"k": 1}, doc! {}).await?;
    cluster.plant("s0", "leftover.plain", numbered(0..1)).await?;
    for namespace in ["leftover.sharded", "leftover.plain"] {
        cluster.plant("s1", namespace, numbered(0..5)).await?;
        assert_eq!(cluster.stored("s1", namespace).await?.len(), 5);
    }
    assert_eq!(cluster.owned("s1", "leftover.sharded").await?, []);
    assert!(cluster.placement("leftover.plain").await.is_err());
    Ok(())
}

#[tokio::test]
async fn a_chunk_that_comes_back_has_another_version() -> Result<(), Failure> {
    let cluster = shared_cluster().await?;
    cluster.create_database("returned", "s0").await?;
    cluster.shard_collection("returned.c", doc! {"k": 1}, doc! {}).await?;
    cluster.split("returned.c", doc! {"k": 0}).await?;
    let before = cluster.placement("returned.c").await?;
    cluster.move_there_and_back("returned.c", doc! {"k": 0}, "s1").await?;
    let mut after = cluster.placement("returned.c").await?;
    assert_ne!(before, after);
    for (chunk, earlier) in after.chunks.iter_mut().zip(&before.chunks) {
        assert!(chunk.version > earlier.version, "{chunk:?}");
        chunk.version = earlier.version;
    }
    assert_eq!(before, after);
    Ok(())
}

#[tokio::test]
async fn hashed_keys_are_spread_at_once_and_the_servers_hash_can_be_read() -> Result<(), Failure> {
    let cluster = shared_cluster().await?;
    cluster.create_database("hashed", "s1").await?;
    cluster.shard_collection("hashed.c", doc! {"k": "hashed"}, doc! {"numInitialChunks": 6}).await?;
    let placement = cluster.placement("hashed.c").await?;
    assert_eq!((placement.chunks.len(), placement.owners()), (6, vec!["s0".to_owned(), "s1".to_owned()]));

    // Everything on both: each shard has the other's documents as orphans.
    for shard in ["s0", "s1"] {
        cluster.plant(shard, "hashed.c", numbered(0..1000)).await?;
    }
    let mut owned = 0;
    for shard in ["s0", "s1"] {
        let hashes = hashes(&cluster.shard_client(shard).await?, "hashed", "c").await?;
        let mut belong = Vec::new();
        for (id, hash) in hashes {
            if placement.chunk_of(&doc! {"k": hash})?.shard == shard {
                belong.push(id);
            }
        }
        belong.sort_unstable();
        assert_eq!(belong, ids(&cluster.owned(shard, "hashed.c").await?), "{shard}");
        owned += belong.len();
    }
    assert_eq!(owned, 1000);

    cluster.shard_collection("hashed.compound", doc! {"a": 1, "k": "hashed"}, doc! {}).await?;
    cluster.split("hashed.compound", doc! {"a": 5, "k": 0_i64}).await?;
    cluster.move_chunk("hashed.compound", doc! {"a": 5, "k": 0_i64}, "s0").await?;
    assert_eq!(cluster.placement("hashed.compound").await?.owners(), ["s0", "s1"]);
    Ok(())
}

/// `_id` and hash of `k`, as the index by it has them.
async fn hashes(shard: &Client, database: &str, collection: &str) -> Result<Vec<(i32, i64)>, Failure> {
    let both = IndexModel::builder().keys(doc! {"k": "hashed", "_id": 1}).build();
    let collection = shard.database(database).collection::<Document>(collection);
    collection.create_index(both).await?;
    let mut keys = collection.find(doc! {}).hint(mongodb::options::Hint::Keys(doc! {"k": "hashed", "_id": 1}));
    keys = keys.return_key(true);
    let mut cursor = keys.await?;
    let mut found = Vec::new();
    while cursor.advance().await? {
        let key = cursor.deserialize_current()?;
        found.push((key.get_i32("_id")?, key.get_i64("k")?));
    }
    Ok(found)
}

#[tokio::test]
async fn zones_decide_where_the_first_chunks_are() -> Result<(), Failure> {
    let cluster = Cluster::start(ClusterOptions { shards: 3, auth: true, ..Default::default() }).await?;
    cluster.create_database("zoned", "s0").await?;
    let (lower, zero, upper) = (doc! {"k": Bson::MinKey}, doc! {"k": 0}, doc! {"k": Bson::MaxKey});
    for (shard, zone, min, max) in [("s2", "cold", &lower, &zero), ("s1", "warm", &zero, &upper)] {
        cluster.add_to_zone(shard, zone).await?;
        cluster.set_zone("zoned.c", min.clone(), max.clone(), zone).await?;
    }
    cluster.shard_collection("zoned.c", doc! {"k": 1}, doc! {"unique": true}).await?;
    let placement = cluster.placement("zoned.c").await?;
    assert_eq!(placement.chunk_of(&doc! {"k": -1})?.shard, "s2");
    assert_eq!(placement.chunk_of(&doc! {"k": "text"})?.shard, "s1");
    assert!(placement.entry.get_bool("unique")?);

    // Users log in on every set, and the balancer is where a mongos leaves it.
    let (config, shards) = (cluster.config_uri(), cluster.shard_uris());
    assert_eq!((shards.len(), &shards[2]), (3, &cluster.shard_uri("s2")?));
    for uri in shards.iter().chain([&config]) {
        Client::with_uri_str(uri).await?.database("config").list_collection_names().await?;
    }
    let settings = Client::with_uri_str(&config).await?.database("config").collection::<Document>("settings");
    for on in [true, false] {
        cluster.set_balancer(on).await?;
        let balancer = settings.find_one(doc! {"_id": "balancer"}).await?.ok_or("no settings")?;
        assert_eq!(balancer.get_bool("stopped")?, !on);
    }
    Ok(())
}

#[tokio::test]
async fn a_4_4_names_its_chunks_by_namespace() -> Result<(), Failure> {
    let options = ClusterOptions { version: Some("4.4.2".to_owned()), ..Default::default() };
    let cluster = Cluster::start(options).await?;
    cluster.create_database("old", "s0").await?;
    cluster.shard_collection("old.h", doc! {"k": "hashed"}, doc! {"numInitialChunks": 4}).await?;
    cluster.shard_collection("old.r", doc! {"k": 1}, doc! {}).await?;
    cluster.plant("s0", "old.r", numbered(-5..5)).await?;
    cluster.split("old.r", doc! {"k": 0}).await?;
    cluster.move_chunk("old.r", doc! {"k": 0}, "s1").await?;
    let stored = [cluster.stored("s0", "old.r").await?.len(), cluster.stored("s1", "old.r").await?.len()];
    assert_eq!(stored, [10, 5]);
    let (hashed, ranged) = (cluster.placement("old.h").await?, cluster.placement("old.r").await?);
    assert_eq!((hashed.chunks.len(), hashed.owners().len()), (4, 2));
    assert_eq!((ranged.chunks.len(), ranged.owners().len()), (2, 2));
    let chunks = cluster.config_client().await?.database("config").collection::<Document>("chunks");
    assert_eq!(chunks.count_documents(doc! {"ns": "old.r", "uuid": {"$exists": false}}).await?, 2);
    Ok(())
}
