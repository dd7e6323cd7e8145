//! A database with every kind of collection and every option that a server keeps.

use super::servers::Failure;
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, Bson, DateTime, Document, doc, oid::ObjectId};
use mongodb::{Client, Database};

/// Documents in a capped collection whose `_id`s are in another order than they come, more than it holds.
pub fn shuffled(count: i32) -> Vec<Document> {
    (0..count).map(|n| doc! { "_id": (n * 7919) % 1_000_003, "n": n, "text": "x".repeat((n % 50) as usize) }).collect()
}

async fn create(database: &Database, name: &str, options: Document) -> Result<(), Failure> {
    let mut command = doc! { "create": name };
    command.extend(options);
    database.run_command(command).await?;
    Ok(())
}

/// What servers of all versions from 4.4 on have, in a database that is made anew.
pub async fn load_old(client: &Client, name: &str) -> Result<(), Failure> {
    client.database(name).drop().await?;
    fill_old(&client.database(name)).await
}

async fn fill_old(database: &Database) -> Result<(), Failure> {
    let name = database.name();
    create(database, "capped", doc! { "capped": true, "size": 1_000_000, "max": 700 }).await?;
    database.collection("capped").insert_many(shuffled(1_000)).await?;
    create(database, "capped small", doc! { "capped": true, "size": 5_000 }).await?;
    database.collection("capped small").insert_many(shuffled(300)).await?;
    create(database, "capped empty", doc! { "capped": true, "size": 100_000 }).await?;
    let validator = doc! { "$jsonSchema": { "required": ["a"] } };
    create(
        database,
        "moderate",
        doc! { "validator": validator.clone(), "validationLevel": "moderate", "validationAction": "warn" },
    )
    .await?;
    create(database, "level alone", doc! { "validationLevel": "off" }).await?;
    create(database, "strict", doc! {}).await?;
    database.collection("strict").insert_many([doc! { "_id": 1, "b": 1 }, doc! { "_id": 2, "a": 1 }]).await?;
    database
        .run_command(doc! { "collMod": "strict", "validator": validator, "validationLevel": "strict", "validationAction": "error" })
        .await?;
    create(database, "collated", doc! { "collation": { "locale": "fr", "strength": 2 } }).await?;
    database.collection("collated").insert_many(["a", "b", "É"].map(|id| doc! { "_id": id })).await?;
    let engine = doc! { "wiredTiger": { "configString": "block_compressor=zlib" } };
    let defaults = doc! { "storageEngine": { "wiredTiger": { "configString": "prefix_compression=false" } } };
    create(database, "engine", doc! { "storageEngine": engine, "indexOptionDefaults": defaults }).await?;
    create(database, "empty", doc! {}).await?;
    for odd in ["a b", "a.b.c", "ünïcødé ☃", "x", "db.with.dots", "-", "1", "a/b\\c:*?\"<>|"] {
        database.collection(odd).insert_one(doc! { "_id": odd }).await?;
    }
    // With its database and a dot 255 bytes.
    let longest = "l".repeat(254 - name.len());
    database.collection(&longest).insert_one(doc! { "_id": 1 }).await?;
    // GridFS.
    database.collection("fs.files").insert_one(doc! { "_id": 1, "length": 3, "chunkSize": 2, "filename": "f" }).await?;
    let chunk = |n: i32, bytes: &[u8]| {
        let data = Binary { subtype: BinarySubtype::Generic, bytes: bytes.to_vec() };
        doc! { "_id": ObjectId::new(), "files_id": 1, "n": n, "data": data }
    };
    database.collection("fs.chunks").insert_many([chunk(0, b"ab"), chunk(1, b"c")]).await?;
    let indexes = vec![doc! { "key": { "files_id": 1, "n": 1 }, "name": "files_id_1_n_1", "unique": true }];
    database.run_command(doc! { "createIndexes": "fs.chunks", "indexes": indexes }).await?;
    views(database).await
}

async fn views(database: &Database) -> Result<(), Failure> {
    let lookup = doc! { "$lookup": { "from": "v base", "localField": "a", "foreignField": "_id", "as": "x" } };
    let union = doc! { "$unionWith": { "coll": "fs.files", "pipeline": [doc! { "$match": { "_id": { "$gt": 0 } } }] } };
    // In an order in which each comes before its base.
    create(database, "a view of views", doc! { "viewOn": "m view", "pipeline": [lookup] }).await?;
    create(database, "m view", doc! { "viewOn": "v base", "pipeline": [union] }).await?;
    create(database, "v base", doc! { "viewOn": "strict", "pipeline": [{ "$match": { "a": 1 } }] }).await?;
    create(database, "view without base", doc! { "viewOn": "nothing here", "pipeline": [] }).await?;
    let collated = doc! { "viewOn": "collated", "pipeline": [], "collation": { "locale": "fr", "strength": 2 } };
    create(database, "view collated", collated).await
}

/// What 6.0 has beside that, in databases that are made anew: the second one holds a view alone.
pub async fn load(client: &Client, name: &str) -> Result<(), Failure> {
    client.database(name).drop().await?;
    client.database(&format!("{name}_view")).drop().await?;
    fill(client, name).await
}

/// The same in databases that are there and empty.
pub async fn fill(client: &Client, name: &str) -> Result<(), Failure> {
    let database = client.database(name);
    fill_old(&database).await?;
    let by_id = |name: &str| doc! { "key": { "_id": 1 }, "unique": true, "name": name };
    create(&database, "clustered", doc! { "clusteredIndex": by_id("by id") }).await?;
    database.collection("clustered").insert_many((0..50).map(|n| doc! { "_id": n })).await?;
    create(&database, "clustered ttl", doc! { "clusteredIndex": by_id("c"), "expireAfterSeconds": 1_000_000_000_i64 })
        .await?;
    create(&database, "pre images", doc! { "changeStreamPreAndPostImages": { "enabled": true } }).await?;
    encrypted(&database).await?;
    time_series(&database).await?;
    let alone = client.database(&format!("{name}_view"));
    create(&alone, "v", doc! { "viewOn": "nothing", "pipeline": [] }).await
}

/// A collection of Queryable Encryption as drivers leave it: what is in it only they can read.
async fn encrypted(database: &Database) -> Result<(), Failure> {
    let key = Binary { subtype: BinarySubtype::Uuid, bytes: vec![7; 16] };
    let queries = doc! { "queryType": "equality", "contention": 4_i64 };
    let fields = doc! {
        "escCollection": "enxcol_.encrypted.esc",
        "eccCollection": "enxcol_.encrypted.ecc",
        "ecocCollection": "enxcol_.encrypted.ecoc",
        "fields": [{ "keyId": key, "path": "ssn", "bsonType": "string", "queries": queries }],
    };
    create(database, "encrypted", doc! { "encryptedFields": fields }).await?;
    for state in ["esc", "ecc", "ecoc"] {
        let name = format!("enxcol_.encrypted.{state}");
        create(database, &name, doc! { "clusteredIndex": { "key": { "_id": 1 }, "unique": true } }).await?;
        let state = Binary { subtype: BinarySubtype::Generic, bytes: vec![1; 32] };
        database.collection(&name).insert_one(doc! { "_id": state }).await?;
    }
    let payload = Binary { subtype: BinarySubtype::Encrypted, bytes: [&[7][..], &[7; 16], &[2], &[9; 40]].concat() };
    let tag = Binary { subtype: BinarySubtype::Generic, bytes: vec![3; 32] };
    let documents = vec![doc! { "_id": 1, "ssn": payload, "__safeContent__": [tag] }];
    let insert = doc! { "insert": "encrypted", "documents": documents, "bypassDocumentValidation": true };
    database.run_command(insert).await?;
    let index = doc! { "key": { "__safeContent__": 1 }, "name": "__safeContent___1" };
    database.run_command(doc! { "createIndexes": "encrypted", "indexes": [index] }).await?;
    Ok(())
}

const DAY: i64 = 86_400_000;

async fn time_series(database: &Database) -> Result<(), Failure> {
    let series = doc! { "timeField": "t", "metaField": "m", "granularity": "minutes" };
    create(database, "series", doc! { "timeseries": series, "expireAfterSeconds": 1_000_000_000_i64 }).await?;
    let measured =
        |n: i64| doc! { "t": DateTime::from_millis(1_700_000_000_000 + n * 1_000), "m": { "d": n % 5 }, "v": n };
    database.collection("series").insert_many((0..2_000).map(measured)).await?;
    // Before 1970 and after 2038, and values of other types than those before.
    create(database, "series wide", doc! { "timeseries": { "timeField": "t" }, "collation": { "locale": "fr" } })
        .await?;
    let wide: Vec<Document> = [(-40_000, Bson::from(1)), (70_000, Bson::from("x")), (70_000, doc! { "a": 1 }.into())]
        .into_iter()
        .map(|(day, value)| doc! { "t": DateTime::from_millis(day * DAY), "v": value })
        .collect();
    database.collection("series wide").insert_many(wide).await?;
    create(database, "series empty", doc! { "timeseries": { "timeField": "at", "metaField": "of" } }).await?;
    let indexes = vec![
        doc! { "key": { "m.d": 1, "t": -1 }, "name": "by meta" },
        doc! { "key": { "v": 1 }, "name": "by value" },
        doc! { "key": { "loc": "2dsphere" }, "name": "by place" },
        doc! { "key": { "m.x": 1 }, "name": "partial", "partialFilterExpression": { "m.x": { "$gt": 3 } } },
        doc! { "key": { "v": 1, "m.a": 1 }, "name": "hidden", "hidden": true },
    ];
    database.run_command(doc! { "createIndexes": "series", "indexes": indexes }).await?;
    create(database, "view of series", doc! { "viewOn": "series", "pipeline": [{ "$match": { "m.d": 1 } }] }).await
}
