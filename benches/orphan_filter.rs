//! What the orphan filter costs: setting it up, a lookup among few and among a million chunks, and a whole document.
//!
//! `make bench-filter` runs it. Every second chunk is the shard's own, so that no two are one range, which is the worst
//! that there is.

use bson::oid::ObjectId;
use bson::raw::{CString, RawDocumentBuf};
use bson::{RawBson, Timestamp, rawdoc};
use criterion::{BenchmarkId, Criterion, Throughput};
use mongoferry::model::chunk_map::{ChunkMap, ChunkMapBuilder, Generation};
use mongoferry::model::orphan_filter::OrphanFilter;
use mongoferry::model::shard_key::ShardKey;
use std::hint::black_box;

/// So many documents are looked up in turn: more than leave their bounds in the processor's nearest caches.
const DOCUMENTS: u64 = 1 << 16;

/// What a collection is sharded by.
#[derive(Clone, Copy)]
enum Kind {
    /// `{k: 1}`, ObjectIds
    Ranged,
    /// `{k: "hashed"}`, ObjectIds
    Hashed,
    /// `{t: 1, k: 1}`, a text of 12 bytes, of which there are a thousand, and an integer
    Compound,
}

impl Kind {
    const ALL: [(&str, Kind); 3] = [("ranged", Kind::Ranged), ("hashed", Kind::Hashed), ("compound", Kind::Compound)];

    fn key(self) -> ShardKey {
        let pattern = match self {
            Kind::Ranged => rawdoc! { "k": 1 },
            Kind::Hashed => rawdoc! { "k": "hashed" },
            Kind::Compound => rawdoc! { "t": 1, "k": 1 },
        };
        ShardKey::parse(&pattern).expect("is a shard key")
    }

    /// The part of the way from the least to the greatest key.
    fn values(self, part: f64) -> RawDocumentBuf {
        match self {
            Kind::Ranged => rawdoc! { "k": object_id((part * 2f64.powi(32)) as u64) },
            Kind::Hashed => rawdoc! { "k": ((part - 0.5) * 2f64.powi(64)) as i64 },
            Kind::Compound => {
                let part = part * 1000.0;
                rawdoc! { "t": format!("tenant {:05}", part as u32), "k": (part.fract() * 1e9) as i64 }
            }
        }
    }

    fn ends(self, end: RawBson) -> RawDocumentBuf {
        match self {
            Kind::Compound => rawdoc! { "t": end.clone(), "k": end },
            _ => rawdoc! { "k": end },
        }
    }

    fn map(self, chunks: u64) -> ChunkMap {
        let generation = Generation { epoch: ObjectId::from_bytes([1; 12]), timestamp: None };
        let mut builder = ChunkMapBuilder::new(self.key(), generation);
        let mut min = self.ends(RawBson::MinKey);
        for chunk in 1..=chunks {
            let max =
                if chunk == chunks { self.ends(RawBson::MaxKey) } else { self.values(chunk as f64 / chunks as f64) };
            let shard = if chunk % 2 == 0 { "shard0001" } else { "shard0002" };
            let version = Timestamp { time: 1, increment: chunk as u32 };
            let document = rawdoc! { "min": min, "max": max.clone(), "shard": shard, "lastmod": version };
            builder.push(&document).expect("the next chunk");
            min = max;
        }
        builder.finish().expect("a whole map")
    }

    fn filter(self, chunks: u64) -> OrphanFilter {
        OrphanFilter::new(&self.map(chunks), "shard0001")
    }

    /// Documents of about `size` bytes one behind the other, as a server sends them, with their keys all over the map, in
    /// the middle of the document.
    fn documents(self, size: usize) -> Vec<u8> {
        (0..DOCUMENTS)
            .flat_map(|number| {
                // The golden ratio's multiples are spread evenly.
                let values = match self {
                    Kind::Hashed => rawdoc! { "k": object_id(number) },
                    _ => self.values((number as f64 * 0.618_033_988_749_895).fract()),
                };
                let mut document = rawdoc! { "_id": object_id(number) };
                let filled = fill(&mut document, 0, size / 2);
                for field in &values {
                    let (name, value) = field.expect("was made here");
                    document.append(name, value);
                }
                fill(&mut document, filled, size);
                document.into_bytes()
            })
            .collect()
    }
}

fn object_id(number: u64) -> ObjectId {
    let mut bytes = [7; 12];
    bytes[..8].copy_from_slice(&(number << 32).to_be_bytes());
    ObjectId::from_bytes(bytes)
}

/// Adds fields of some 30 bytes until the document has the size. Which number is the next one.
fn fill(document: &mut RawDocumentBuf, mut number: u32, size: usize) -> u32 {
    while document.as_bytes().len() + 30 < size {
        let name = CString::try_from(format!("field{number:03}")).expect("has no NUL");
        document.append(name, "a text of 15 by");
        number += 1;
    }
    number
}

fn measure(criterion: &mut Criterion, group: &str, id: BenchmarkId, filter: &OrphanFilter, documents: &[u8]) {
    let mut group = criterion.benchmark_group(group);
    let mut rest = documents;
    group.throughput(Throughput::Elements(1));
    group.bench_function(id, |bencher| {
        bencher.iter(|| {
            let length = rest.first_chunk().map_or(0, |length| u32::from_le_bytes(*length) as usize);
            let (document, behind) = rest.split_at(length);
            rest = if behind.is_empty() { documents } else { behind };
            filter.owns(black_box(document))
        });
    });
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut set_up = criterion.benchmark_group("set-up");
    set_up.sample_size(10);
    for (name, kind) in Kind::ALL {
        set_up.bench_function(BenchmarkId::new(name, 1_000_000), |bencher| {
            bencher.iter(|| kind.filter(1_000_000));
        });
    }
    let map = Kind::Ranged.map(1_000_000);
    set_up.bench_function(BenchmarkId::new("fingerprint", 1_000_000), |bencher| bencher.iter(|| map.fingerprint()));
    set_up.finish();
    drop(map);

    for (name, kind) in Kind::ALL {
        for chunks in [1_000, 1_000_000] {
            let (filter, documents) = (kind.filter(chunks), kind.documents(0));
            measure(&mut criterion, "lookup", BenchmarkId::new(name, chunks), &filter, &documents);
        }
    }
    for (name, kind) in Kind::ALL {
        for size in [300, 4096] {
            let (filter, documents) = (kind.filter(1_000), kind.documents(size));
            measure(&mut criterion, "document", BenchmarkId::new(name, size), &filter, &documents);
        }
    }
    criterion.final_summary();
}
