//! Generated documents on the source, enough of them that a copy can be caught in the middle.

use mongodb::Client;
use mongodb::bson::oid::ObjectId;
use mongodb::bson::{RawBson, RawDocumentBuf, doc, rawdoc};
use mongodb::options::WriteConcern;
use tokio::sync::OnceCell;

use super::servers::{Failure, shared_source};

/// The database that [`shared`] loads.
pub const SHARED: &str = "shared_data";

/// How many documents [`shared`] loads into its large collection.
pub const SHARED_LARGE: u64 = 200_000;

/// How many documents are inserted at once.
const CHUNK: u64 = 10_000;

/// Loads [`SHARED`] into the shared source, once in a process: a large collection, two small ones, an index. Whoever
/// uses it only reads it.
pub async fn shared() -> Result<(), Failure> {
    static LOADED: OnceCell<()> = OnceCell::const_new();
    LOADED.get_or_try_init(load_shared).await.copied()
}

async fn load_shared() -> Result<(), Failure> {
    let client = Client::with_uri_str(shared_source().await?.uri()).await?;
    load(&client, SHARED, "large", SHARED_LARGE).await?;
    load(&client, SHARED, "small", 500).await?;
    let database = client.database(SHARED);
    database.create_collection("empty").await?;
    database.run_command(doc! {"createIndexes": "large", "indexes": [{"name": "k_1", "key": {"k": 1}}]}).await?;
    Ok(())
}

/// Inserts `count` documents of about 250 bytes, whose `_id`s are of four types. In the end a majority has them all: a
/// job that begins then reads all of them.
pub async fn load(client: &Client, database: &str, collection: &str, count: u64) -> Result<(), Failure> {
    let collection = client.database(database).collection::<RawDocumentBuf>(collection);
    for start in (0..count).step_by(CHUNK as usize) {
        let documents: Vec<RawDocumentBuf> = (start..count.min(start + CHUNK)).map(document).collect();
        let is_last = start + CHUNK >= count;
        let concern = if is_last { WriteConcern::majority() } else { WriteConcern::nodes(1) };
        collection.insert_many(documents).ordered(false).write_concern(concern).await?;
    }
    Ok(())
}

fn document(number: u64) -> RawDocumentBuf {
    let mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let id = match number % 4 {
        0 => RawBson::Int64(number as i64),
        1 => RawBson::String(format!("key-{mixed:016x}")),
        2 => {
            let mut bytes = [0; 12];
            bytes[..8].copy_from_slice(&mixed.to_be_bytes());
            bytes[8..].copy_from_slice(&(number as u32).to_be_bytes());
            RawBson::ObjectId(ObjectId::from_bytes(bytes))
        }
        _ => RawBson::Document(rawdoc! {"tenant": (number % 10) as i32, "number": number as i64}),
    };
    rawdoc! {"_id": id, "k": (mixed >> 16) as i64, "text": format!("{mixed:016x}").repeat(11)}
}
