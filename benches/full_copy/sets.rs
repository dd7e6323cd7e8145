//! The sets that are copied. The same scale makes the same bytes, on every machine.
//!
//! A set is generated once, in memory, as the batches that the baseline sends. The source is filled with these very
//! batches by one writer, so that natural order is the order of generation.

use mongodb::bson::{Document, RawDocumentBuf, doc};

use crate::generated_document::{Ids, document};

/// What a batch holds at most, unless one document is larger.
pub const BATCH_BYTES: usize = 4_000_000;

/// Another seed makes other documents.
const SEED: u64 = 1;

/// A prime above every number of documents: steps of it through `0..documents` come by each number once, out of order.
const STEP: u64 = 999_999_937;

/// The sets by their letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SetName {
    /// Many small documents with `_id`s that grow, and two secondary indexes.
    A,
    /// Documents of some kilobytes with random `_id`s.
    B,
    /// Large documents with `_id`s that grow.
    C,
    /// Small documents with `_id`s of seven types, inserted out of order.
    D,
    /// Many collections with a few documents each.
    E,
}

impl SetName {
    /// All of them.
    pub const ALL: [SetName; 5] = [SetName::A, SetName::B, SetName::C, SetName::D, SetName::E];

    /// The letter.
    pub fn as_str(self) -> &'static str {
        match self {
            SetName::A => "A",
            SetName::B => "B",
            SetName::C => "C",
            SetName::D => "D",
            SetName::E => "E",
        }
    }

    /// What it is, in words.
    pub fn description(self) -> &'static str {
        match self {
            SetName::A => "documents of 300 B, growing ObjectIds, two secondary indexes",
            SetName::B => "documents of 4 KiB, random UUIDs as _id",
            SetName::C => "documents of 5 MiB, growing ObjectIds",
            SetName::D => "documents of 200 B, _ids of seven types, inserted out of order",
            SetName::E => "collections of 0 to 10 documents of 200 B",
        }
    }
}

/// Documents that are sent together, one after the other as the bytes they are.
#[derive(Debug, Default)]
pub struct Batch {
    /// The documents.
    pub bytes: Vec<u8>,
    /// How many.
    pub documents: usize,
}

/// A collection of a set.
#[derive(Debug)]
pub struct Collection {
    /// Its name.
    pub name: String,
    /// What is in it; nothing in an empty one.
    pub batches: Vec<Batch>,
}

/// A set in memory.
#[derive(Debug)]
pub struct Set {
    /// Which one.
    pub name: SetName,
    /// The only database.
    pub database: &'static str,
    /// Its collections.
    pub collections: Vec<Collection>,
    /// The secondary indexes of each collection, as `createIndexes` takes them.
    pub indexes: Vec<Document>,
}

impl Set {
    /// Makes it. With a scale below 1 there are fewer documents (E: collections) of the same kind.
    pub fn generate(name: SetName, scale: f64) -> Self {
        let count = |whole: u64| ((whole as f64 * scale) as u64).max(1);
        let one = |batches| vec![Collection { name: "documents".to_owned(), batches }];
        let collections = match name {
            SetName::A => one(batches(Ids::Objectid, 300, 0..count(2_000_000))),
            SetName::B => one(batches(Ids::Random, 4096, 0..count(200_000))),
            SetName::C => one(batches(Ids::Objectid, 5 << 20, 0..count(400))),
            SetName::D => {
                let documents = count(500_000);
                one(batches(Ids::Mixed, 200, (0..documents).map(|number| number * STEP % documents)))
            }
            SetName::E => (0..count(5_000))
                .map(|number| Collection {
                    name: format!("c{number:05}"),
                    batches: batches(Ids::Objectid, 200, number * 11..number * 11 + number % 11),
                })
                .collect(),
        };
        let indexes = match name {
            SetName::A => vec![
                doc! {"name": "k_1", "key": {"k": 1}},
                doc! {"name": "group_1_at_-1", "key": {"group": 1, "at": -1}},
            ],
            _ => Vec::new(),
        };
        Set { name, database: "bench", collections, indexes }
    }

    /// How many documents it has.
    pub fn documents(&self) -> usize {
        self.batches().map(|batch| batch.documents).sum()
    }

    /// How many bytes of documents.
    pub fn bytes(&self) -> usize {
        self.batches().map(|batch| batch.bytes.len()).sum()
    }

    fn batches(&self) -> impl Iterator<Item = &Batch> {
        self.collections.iter().flat_map(|collection| &collection.batches)
    }
}

fn batches(ids: Ids, bytes: u32, numbers: impl Iterator<Item = u64>) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    for number in numbers {
        push(&mut batches, &document(SEED, ids, bytes, number));
    }
    batches
}

fn push(batches: &mut Vec<Batch>, document: &RawDocumentBuf) {
    let bytes = document.as_bytes();
    match batches.last_mut() {
        Some(last) if last.bytes.len() + bytes.len() <= BATCH_BYTES => {
            last.bytes.extend_from_slice(bytes);
            last.documents += 1;
        }
        _ => batches.push(Batch { bytes: bytes.to_vec(), documents: 1 }),
    }
}
