//! Which of the documents that a shard holds are its own.
//!
//! A shard that is read directly also shows what it does not own: documents of chunks that moved away and were not
//! removed yet, or of a migration that failed. Such a document, an *orphan*, is on the shard that owns it as well, maybe
//! with a newer content, so it must not be copied; and a document that is owned must not be taken for one.
//!
//! A document is owned when its shard key is in a chunk of the shard: `min <= key < max` in BSON order across all types,
//! field by field, strings by their bytes whatever the collection's collation (a shard key's index has the simple one,
//! <https://www.mongodb.com/docs/manual/reference/method/sh.shardCollection/>).
//!
//! It works on a document's bytes and allocates nothing, as long as the key has at most four fields and few bytes.

use super::chunk_map::{self, Bounds, ChunkMap};
use super::key_bytes::{KeyBytes, Precision, add_key};
use super::shard_key::{NoShardKey, ShardKey};
use std::cmp::Ordering;
use std::ops::Range;

/// Every so many heads one is in the list that is searched first.
const PAGE: usize = 64;

/// What of a collection one shard owns.
#[derive(Clone)]
pub struct OrphanFilter {
    key: ShardKey,
    /// Where ranges that the shard owns begin and end, in turn.
    bounds: Bounds,
    /// The same as bytes that are in the order of the bounds.
    ordered: Bounds,
    /// What all of these begin with, but for the first and the last, which are often MinKey and MaxKey.
    common: Vec<u8>,
    /// The head of each: of a million bounds most have one of their own, and there is no need to look further.
    heads: Vec<u128>,
    /// The first head of each page: so few that a processor keeps them near.
    pages: Vec<u128>,
}

impl OrphanFilter {
    /// The filter for one of the shards. One that the map does not name owns nothing.
    pub fn new(map: &ChunkMap, shard: &str) -> Self {
        let bounds = map.owned_by(shard);
        let mut ordered = Bounds::default();
        let mut bytes = KeyBytes::new();
        for index in 0..bounds.len() {
            bytes.clear();
            add_key(&mut bytes, chunk_map::values(bounds.get(index)));
            ordered.push(&bytes);
        }
        ordered.shrink();
        // They are in order: what two have in common, so have all between them.
        let common = match ordered.len() {
            0..4 => Vec::new(),
            count => common(ordered.get(1), ordered.get(count - 2)).to_vec(),
        };
        let heads: Vec<u128> = (0..ordered.len()).map(|index| head(&common, ordered.get(index))).collect();
        let pages = heads.iter().step_by(PAGE).copied().collect();
        Self { key: map.key().clone(), bounds, ordered, common, heads, pages }
    }

    /// The collection's shard key.
    pub fn key(&self) -> &ShardKey {
        &self.key
    }

    /// Whether the shard owns anything of the collection. When it does not, what it has of it is left from earlier.
    pub fn owns_anything(&self) -> bool {
        self.bounds.len() > 0
    }

    /// Whether the shard owns a document.
    ///
    /// # Errors
    /// When the document has no shard key, so that nobody can say.
    pub fn owns(&self, document: &[u8]) -> Result<bool, NoShardKey> {
        let key = self.key.values(document)?;
        let mut bytes = KeyBytes::new();
        let precision = add_key(&mut bytes, key.iter().copied());
        let head = head(&self.common, &bytes);
        // The first greater head is in the last page that does not begin with one, or begins the next page.
        let pages = self.pages.partition_point(|first| *first <= head);
        let begin = pages.saturating_sub(1) * PAGE;
        let page = &self.heads[begin..self.heads.len().min(pages * PAGE)];
        let mut not_above = begin + page.partition_point(|other| *other <= head);
        if not_above > 0 && self.heads[not_above - 1] == head {
            let alike = self.heads[..not_above].partition_point(|other| *other < head)..not_above;
            not_above = first(alike, |index| match self.ordered.get(index).cmp(bytes.as_slice()) {
                Ordering::Equal if precision == Precision::Cut => {
                    chunk_map::compare(&key, self.bounds.get(index)).is_lt()
                }
                order => order.is_gt(),
            });
        }
        // After one bound it is in the first range, after two it is past it.
        Ok(not_above % 2 == 1)
    }
}

/// What both begin with.
fn common<'a>(one: &'a [u8], other: &[u8]) -> &'a [u8] {
    let length = one.iter().zip(other).take_while(|(one, other)| one == other).count();
    &one[..length]
}

/// The next 16 bytes behind what most have in common, as a number. Heads are in the order of the bytes, or equal.
fn head(common: &[u8], bytes: &[u8]) -> u128 {
    let (first, rest) = bytes.split_at(common.len().min(bytes.len()));
    match first.cmp(common) {
        Ordering::Less => 0,
        Ordering::Greater => u128::MAX,
        Ordering::Equal => {
            let mut head = [0; 16];
            let length = rest.len().min(head.len());
            head[..length].copy_from_slice(&rest[..length]);
            u128::from_be_bytes(head)
        }
    }
}

/// The first index for which it holds, the end where there is none. It holds for all behind one for which it does.
fn first(range: Range<usize>, holds: impl Fn(usize) -> bool) -> usize {
    let Range { mut start, mut end } = range;
    while start < end {
        let middle = start.midpoint(end);
        if holds(middle) {
            end = middle;
        } else {
            start = middle + 1;
        }
    }
    start
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::model::bson_order;
    use crate::model::bson_values::any_value;
    use crate::model::chunk_map::{ChunkMapBuilder, Generation};
    use bson::oid::ObjectId;
    use bson::raw::{CString, RawDocumentBuf};
    use bson::{RawBson, RawDocument, Timestamp, rawdoc};
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;
    use proptest::sample::select;

    /// A map of chunks that begin at MinKey and at these bounds, in turn owned by these shards.
    fn map(key: &ShardKey, bounds: &[RawDocumentBuf], shards: &[&str]) -> ChunkMap {
        let every = |value: RawBson| document(key.names().map(|name| (name, value.clone())));
        let (least, greatest) = (every(RawBson::MinKey), every(RawBson::MaxKey));
        let mut all = vec![&least];
        all.extend(bounds);
        all.push(&greatest);
        let generation = Generation { epoch: ObjectId::from_bytes([1; 12]), timestamp: None };
        let mut builder = ChunkMapBuilder::new(key.clone(), generation);
        for (chunk, shard) in all.windows(2).zip(shards.iter().cycle()) {
            let (min, max) = (chunk[0].clone(), chunk[1].clone());
            let version = Timestamp { time: 1, increment: 0 };
            builder.push(&rawdoc! { "min": min, "max": max, "shard": *shard, "lastmod": version }).unwrap();
        }
        builder.finish().unwrap()
    }

    fn document<'a>(fields: impl Iterator<Item = (&'a [u8], RawBson)>) -> RawDocumentBuf {
        let mut document = RawDocumentBuf::new();
        for (name, value) in fields {
            document.append(CString::try_from(std::str::from_utf8(name).unwrap()).unwrap(), value);
        }
        document
    }

    /// Field by field, in the order that [`bson_order`] says.
    fn compare(left: &RawDocument, right: &RawDocument) -> Ordering {
        left.iter()
            .zip(right)
            .map(|(left, right)| bson_order::compare(left.unwrap().1, right.unwrap().1))
            .find(|order| order.is_ne())
            .unwrap_or(Ordering::Equal)
    }

    /// Whether one of the shard's chunks holds the key, looked at one after the other.
    fn holds(map: &ChunkMap, shard: &str, key: &RawDocument) -> bool {
        let mut chunks = map.chunks().filter(|chunk| chunk.shard == shard);
        chunks.any(|chunk| compare(&chunk.min(), key).is_le() && compare(key, &chunk.max()).is_lt())
    }

    fn key_value() -> impl Strategy<Value = RawBson> {
        any_value().prop_filter("an array", |value| !matches!(value, RawBson::Array(_)))
    }

    fn bound_value(is_hashed: bool) -> BoxedStrategy<RawBson> {
        if is_hashed {
            prop_oneof![any::<i64>().prop_map(RawBson::Int64), select(vec![RawBson::MinKey, RawBson::MaxKey]),].boxed()
        } else {
            key_value().boxed()
        }
    }

    const NAMES: [&str; 5] = ["a", "b.c", "b.d", "e", "f"];

    fn key_of(hashed: Option<usize>, fields: usize) -> ShardKey {
        let pattern = NAMES.iter().take(fields).enumerate().map(|(place, name)| {
            let kind = if hashed == Some(place) { RawBson::from("hashed") } else { 1.into() };
            (name.as_bytes(), kind)
        });
        ShardKey::parse(&document(pattern)).unwrap()
    }

    type Bound = Vec<RawBson>;

    /// A key, bounds in no order, and documents of values for its fields, some of them missing.
    fn any_case() -> impl Strategy<Value = (ShardKey, Vec<Bound>, Vec<Vec<Option<RawBson>>>)> {
        (1..=NAMES.len(), option::of(0..NAMES.len())).prop_flat_map(|(fields, hashed)| {
            let key = key_of(hashed, fields);
            let bound = (0..fields).map(|place| bound_value(hashed == Some(place))).collect::<Vec<_>>();
            let values = vec(option::weighted(0.9, key_value()), fields);
            (Just(key), vec(bound, 0..20), vec(values, 1..20))
        })
    }

    /// A document with these values of a key, among others.
    fn with_key(values: &[Option<RawBson>]) -> RawDocumentBuf {
        let mut whole = rawdoc! { "_id": 1, "z": [1] };
        let mut within = rawdoc! { "x": 1 };
        for (name, value) in NAMES.iter().zip(values) {
            let Some(value) = value else { continue };
            let (into, name) = match name.strip_prefix("b.") {
                Some(name) => (&mut within, name),
                None => (&mut whole, *name),
            };
            into.append(CString::try_from(name).unwrap(), value.clone());
        }
        whole.append(bson::cstr!("b"), within);
        whole
    }

    proptest! {
        #[test]
        fn heads_are_in_the_order_of_bytes(
            common in vec(0..3_u8, 0..4),
            one in vec(0..3_u8, 0..24),
            other in vec(0..3_u8, 0..24),
        ) {
            let order = head(&common, &one).cmp(&head(&common, &other));
            prop_assert!(order.is_eq() || order == one.cmp(&other));
        }

        #[test]
        fn many_bounds_are_searched_like_few(
            texts in vec(prop_oneof!["[ab]{0,2}", "tenant [ab]{6}", "tenant aaaaaaaaaaaaaaaa[ab]{2,6}"], 200..600),
            numbers in vec(0..3_i32, 600),
            keys in vec((0..600_usize, -1..4_i32), 1..40),
        ) {
            let key = ShardKey::parse(&rawdoc! { "t": 1, "n": 1 }).unwrap();
            let mut bounds: Vec<_> =
                texts.iter().zip(&numbers).map(|(text, number)| rawdoc! { "t": text.as_str(), "n": *number }).collect();
            bounds.sort_by(|left, right| compare(left, right));
            bounds.dedup();
            let map = map(&key, &bounds, &["s1", "s2"]);
            let filter = OrphanFilter::new(&map, "s1");
            for (place, number) in keys {
                let document = rawdoc! { "n": number, "t": texts[place % texts.len()].as_str() };
                let found = key.key_of(document.as_bytes()).unwrap();
                prop_assert_eq!(filter.owns(document.as_bytes()), Ok(holds(&map, "s1", &found)), "{:?}", found);
            }
        }

        #[test]
        fn it_owns_what_lies_in_one_of_its_chunks(
            (key, bounds, documents) in any_case(),
            shards in vec(select(vec!["s1", "s2", "s3"]), 1..6),
        ) {
            let mut bounds: Vec<_> =
                bounds.into_iter().map(|values| document(key.names().zip(values))).collect();
            bounds.sort_by(|left, right| compare(left, right));
            bounds.dedup_by(|left, right| compare(left, right).is_eq());
            let ends = |bound: &RawDocumentBuf, end: RawBson| bound.iter().all(|field| field.unwrap().1 == end.as_raw_bson_ref());
            bounds.retain(|bound| !ends(bound, RawBson::MinKey) && !ends(bound, RawBson::MaxKey));
            let map = map(&key, &bounds, &shards);
            // Keys that are bounds themselves are where it goes wrong; not those with a hash that nothing may have.
            let at_bounds = bounds.iter().filter(|_| !key.is_hashed()).map(|bound| {
                bound.iter().map(|field| Some(field.unwrap().1.into())).collect::<Vec<_>>()
            });
            for values in documents.into_iter().chain(at_bounds.collect::<Vec<_>>()) {
                let document = with_key(&values);
                let found = key.key_of(document.as_bytes()).unwrap();
                let mut owners = 0;
                for shard in ["s1", "s2", "s3", "s4"] {
                    let owns = OrphanFilter::new(&map, shard).owns(document.as_bytes()).unwrap();
                    prop_assert_eq!(owns, holds(&map, shard, &found), "{} {:?} {:?}", shard, found, document);
                    owners += usize::from(owns);
                }
                // MaxKey in every field is beyond the last chunk.
                prop_assert_eq!(owners, usize::from(!ends(&found, RawBson::MaxKey)));
            }
        }
    }

    #[test]
    fn a_range_holds_its_lower_bound_and_not_its_upper_one() {
        let key = ShardKey::parse(&rawdoc! { "k": 1 }).unwrap();
        let map = map(&key, &[rawdoc! { "k": 0 }, rawdoc! { "k": 10 }], &["s1", "s2"]);
        let filter = OrphanFilter::new(&map, "s2");
        let owned = [rawdoc! { "k": 0 }, rawdoc! { "k": -0.0 }, rawdoc! { "k": 9.99 }];
        let others = [rawdoc! { "k": 10 }, rawdoc! { "k": -1 }, rawdoc! { "k": "5" }, rawdoc! {}, rawdoc! { "x": 5 }];
        assert!(owned.iter().all(|document| filter.owns(document.as_bytes()) == Ok(true)));
        assert!(others.iter().all(|document| filter.owns(document.as_bytes()) == Ok(false)));
    }

    #[test]
    fn least_values_have_an_owner_and_greatest_ones_have_none() {
        let key = ShardKey::parse(&rawdoc! { "k": 1 }).unwrap();
        let map = map(&key, &[], &["s1"]);
        let owns = |shard: &str, value: RawBson| OrphanFilter::new(&map, shard).owns(rawdoc! { "k": value }.as_bytes());
        assert_eq!(owns("s1", RawBson::MinKey), Ok(true));
        assert_eq!(owns("s1", RawBson::MaxKey), Ok(false));
        assert_eq!(owns("s2", RawBson::MinKey), Ok(false));
        assert!(OrphanFilter::new(&map, "s1").owns_anything());
        assert!(!OrphanFilter::new(&map, "s2").owns_anything());
    }

    #[test]
    fn of_a_document_with_an_array_for_a_key_it_says_nothing() {
        let key = ShardKey::parse(&rawdoc! { "k": "hashed" }).unwrap();
        let filter = OrphanFilter::new(&map(&key, &[], &["s1"]), "s1");
        let refused = filter.owns(rawdoc! { "k": [1] }.as_bytes()).unwrap_err();
        assert_eq!(refused.to_string(), "it has an array at k, which no shard key can have");
    }
}
