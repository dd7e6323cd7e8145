//! Where the chunks of a new collection are cut, and which shard of the target gets which of them, before there is any
//! document.

use super::bson_order::compare_documents;
use bson::RawDocumentBuf;
use std::cmp::Ordering;

/// How many runs of neighbouring chunks a shard gets. With one, documents that arrive in the order of the key would come
/// to one shard at a time; each more costs a migration a shard.
const RUNS_PER_SHARD: usize = 4;

/// A range of keys that may lie on some shards only.
#[derive(Debug, Clone, PartialEq)]
pub struct Zoned {
    /// Where it begins.
    pub min: RawDocumentBuf,
    /// Where it ends.
    pub max: RawDocumentBuf,
    /// The shards of its zone.
    pub shards: Vec<String>,
}

/// Chunks, each with the shard that gets it.
#[derive(Debug, Clone, PartialEq)]
pub struct ChunkLayout {
    /// Where chunks end and begin, in order: one less than there are chunks.
    pub bounds: Vec<RawDocumentBuf>,
    /// The owner of each chunk.
    pub owners: Vec<String>,
}

impl ChunkLayout {
    /// Chunks with these bounds, at most so many, in runs that `shards` get in turn.
    pub fn new(bounds: Vec<RawDocumentBuf>, most: usize, shards: &[String], zones: &[Zoned]) -> Self {
        let mut bounds = sampled(in_order(bounds), most.max(1) - 1);
        // A chunk is within a zone or outside of it.
        let edges = zones.iter().flat_map(|zone| [&zone.min, &zone.max]).filter(|edge| !is_end(edge)).cloned();
        bounds.extend(edges);
        let bounds = in_order(bounds);
        let mut owners: Vec<String> = Vec::new();
        let zone_of = |chunk: usize| {
            let begin = chunk.checked_sub(1).map(|place| &bounds[place]);
            zones.iter().position(|zone| match begin {
                None => is_end(&zone.min),
                Some(begin) => {
                    compare_documents(&zone.min, begin).is_le() && compare_documents(begin, &zone.max).is_lt()
                }
            })
        };
        let zones_of: Vec<Option<usize>> = (0..=bounds.len()).map(zone_of).collect();
        for stretch in zones_of.chunk_by(|one, next| one == next) {
            let shards = stretch[0].map_or(shards, |zone| &zones[zone].shards);
            let runs = (shards.len() * RUNS_PER_SHARD).min(stretch.len()).max(1);
            owners.extend((0..stretch.len()).map(|chunk| {
                let run = chunk * runs / stretch.len();
                shards.get(run % shards.len().max(1)).cloned().unwrap_or_default()
            }));
        }
        Self { bounds, owners }
    }

    /// The bounds at which the owner changes.
    pub fn turns(&self) -> impl Iterator<Item = &RawDocumentBuf> {
        self.bounds
            .iter()
            .enumerate()
            .filter(|(place, _)| self.owners[*place] != self.owners[place + 1])
            .map(|(_, bound)| bound)
    }

    /// Who gets the chunk that begins at `min`, which may be only a part of one here, or several.
    pub fn owner(&self, min: &RawDocumentBuf) -> &str {
        let chunk = self.bounds.partition_point(|bound| compare_documents(bound, min).is_le());
        // Whatever its type is called: the first of all is before every bound.
        &self.owners[chunk]
    }
}

fn in_order(mut bounds: Vec<RawDocumentBuf>) -> Vec<RawDocumentBuf> {
    bounds.sort_by(|one, other| compare_documents(one, other));
    bounds.dedup_by(|one, other| compare_documents(one, other) == Ordering::Equal);
    bounds
}

/// At most `most` of them, evenly.
fn sampled(bounds: Vec<RawDocumentBuf>, most: usize) -> Vec<RawDocumentBuf> {
    let count = bounds.len();
    if count <= most {
        return bounds;
    }
    // Of `count + 1` chunks about equal, `most + 1` of about as many each.
    (1..=most).map(|place| bounds[place * (count + 1) / (most + 1) - 1].clone()).collect()
}

/// Whether it is MinKey, or MaxKey, in every field: where the first chunk begins, and the last one ends.
fn is_end(bound: &RawDocumentBuf) -> bool {
    use bson::RawBsonRef::{MaxKey, MinKey};
    let mut values = bound.iter().flatten().map(|(_, value)| value);
    let first = values.next();
    matches!(first, Some(MinKey | MaxKey)) && values.all(|value| Some(value) == first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::{RawBson, rawdoc};

    fn bounds(values: impl IntoIterator<Item = i32>) -> Vec<RawDocumentBuf> {
        values.into_iter().map(|value| rawdoc! { "k": value }).collect()
    }

    fn shards(count: usize) -> Vec<String> {
        (0..count).map(|shard| format!("s{shard}")).collect()
    }

    fn owned(layout: &ChunkLayout, shard: &str) -> usize {
        layout.owners.iter().filter(|owner| *owner == shard).count()
    }

    #[test]
    fn chunks_are_dealt_evenly_in_few_runs() {
        let layout = ChunkLayout::new(bounds(0..99), 1000, &shards(3), &[]);
        assert_eq!((layout.bounds.len(), layout.owners.len()), (99, 100));
        for shard in ["s0", "s1", "s2"] {
            assert!((32..=36).contains(&owned(&layout, shard)), "{shard}: {}", owned(&layout, shard));
        }
        assert_eq!(layout.turns().count(), 11);
        assert_eq!(layout.owner(&rawdoc! { "k": RawBson::MinKey }), "s0");
        assert_eq!(layout.owner(&rawdoc! { "k": 98 }), "s2");
        assert_eq!(ChunkLayout::new(Vec::new(), 1000, &shards(3), &[]).owners, ["s0"]);
    }

    #[test]
    fn too_many_bounds_are_sampled_evenly() {
        let layout = ChunkLayout::new(bounds(1..1000), 10, &shards(2), &[]);
        assert_eq!(layout.bounds, bounds((1..10).map(|tenth| tenth * 100)));
        assert_eq!(ChunkLayout::new(bounds(1..1000), 1, &shards(2), &[]).bounds, []);
        assert_eq!(ChunkLayout::new(bounds([3, 1, 2, 1]), 10, &shards(2), &[]).bounds, bounds([1, 2, 3]));
    }

    #[test]
    fn a_zones_chunks_lie_on_its_shards_alone() {
        let zone = |min: RawBson, max: RawBson, shard: &str| Zoned {
            min: rawdoc! { "k": min },
            max: rawdoc! { "k": max },
            shards: vec![shard.to_owned()],
        };
        let zones = [zone(RawBson::MinKey, 50.into(), "s1"), zone(75.into(), RawBson::MaxKey, "s2")];
        let layout = ChunkLayout::new(bounds((0..100).step_by(10)), 1000, &shards(3), &zones);
        assert_eq!(layout.bounds, bounds([0, 10, 20, 30, 40, 50, 60, 70, 75, 80, 90]));
        assert_eq!(layout.owners[..6], ["s1"; 6]);
        assert_eq!(layout.owners[6..9], ["s0", "s1", "s2"]);
        assert_eq!(layout.owners[9..], ["s2"; 3]);
    }
}
