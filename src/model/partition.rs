//! Ranges of one collection in `_id` order, and how a collection is cut into them.
//!
//! The cuts come from the server, sorted and told apart by the collection's own collation, so no key is compared to make
//! them: `[lower, upper)` ranges between neighbouring cuts are disjoint and leave nothing out, whatever types the
//! `_id`s are of.

use super::bson_order::compare_documents;
use super::cursor::Key;
use serde::{Deserialize, Serialize};

/// One end of a range.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Bound {
    /// There is no end on this side.
    #[default]
    Unbounded,
    /// This key.
    At(Key),
}

impl Bound {
    /// The key, none where it is unbounded.
    pub fn key(&self) -> Option<&Key> {
        match self {
            Bound::Unbounded => None,
            Bound::At(key) => Some(key),
        }
    }

    fn is_unbounded(&self) -> bool {
        *self == Bound::Unbounded
    }
}

/// `[lower, upper)` in `_id` order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// The first key that belongs to it.
    #[serde(default, skip_serializing_if = "Bound::is_unbounded")]
    pub lower: Bound,
    /// The first key that does not.
    #[serde(default, skip_serializing_if = "Bound::is_unbounded")]
    pub upper: Bound,
}

impl Range {
    /// Whether it is the whole collection.
    pub fn is_whole(&self) -> bool {
        self.lower.is_unbounded() && self.upper.is_unbounded()
    }

    /// Whether a key belongs to it, where no collation orders keys.
    pub fn contains(&self, key: &Key) -> bool {
        let compare = |bound: &Bound| bound.key().map(|bound| compare_documents(key.document(), bound.document()));
        compare(&self.lower).is_none_or(|order| order.is_ge()) && compare(&self.upper).is_none_or(|order| order.is_lt())
    }
}

/// The ranges between cuts, which are sorted and different from each other: one more than there are cuts.
///
/// A cut at MinKey or MaxKey is left out: nothing is below the one, and a server takes no bound that begins at the other
/// ("min() does not come before max()").
pub fn ranges(cuts: &[Key]) -> Vec<Range> {
    let mut ranges = Vec::with_capacity(cuts.len() + 1);
    let mut lower = Bound::Unbounded;
    for cut in cuts.iter().filter(|cut| !cut.is_min() && !cut.is_max()) {
        let upper = Bound::At(cut.clone());
        ranges.push(Range { lower: std::mem::replace(&mut lower, upper.clone()), upper });
    }
    ranges.push(Range { lower, upper: Bound::Unbounded });
    ranges
}

/// Cuts for `parts` ranges with about as many of the samples in each. The samples are sorted and different from each
/// other; where there are too few, there are fewer cuts.
pub fn cuts(samples: &[Key], parts: usize) -> Vec<Key> {
    let parts = parts.clamp(1, samples.len() + 1);
    // With n samples and p parts, the i-th cut has i·n/p samples before it.
    (1..parts).filter_map(|part| samples.get(part * samples.len() / parts)).cloned().collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::model::bson_order::compare_documents;
    use bson::RawBsonRef;
    use proptest::prelude::*;
    use std::cmp::Ordering;

    fn key(number: i64) -> Key {
        Key::from_value(RawBsonRef::Int64(number))
    }

    fn contains(range: &Range, key: &Key) -> bool {
        let is_below = |bound: &Key| compare_documents(key.document(), bound.document()) == Ordering::Less;
        range.lower.key().is_none_or(|lower| !is_below(lower)) && range.upper.key().is_none_or(is_below)
    }

    proptest! {
        #[test]
        fn every_key_is_in_exactly_one_range(
            samples in proptest::collection::btree_set(-50..50_i64, 0..40),
            parts in 1..20usize,
            wanted in -60..60_i64,
        ) {
            let samples: Vec<Key> = samples.into_iter().map(key).collect();
            let ranges = ranges(&cuts(&samples, parts));
            prop_assert_eq!(ranges.iter().filter(|range| contains(range, &key(wanted))).count(), 1);
            prop_assert!(ranges.len() <= parts);
        }

        #[test]
        fn ranges_hold_about_as_many_samples_each(count in 1..200_usize, parts in 1..20usize) {
            let samples: Vec<Key> = (0..count as i64).map(key).collect();
            let ranges = ranges(&cuts(&samples, parts));
            let held = |range: &Range| samples.iter().filter(|sample| contains(range, sample)).count();
            let (least, most) = (ranges.iter().map(held).min().unwrap(), ranges.iter().map(held).max().unwrap());
            prop_assert!(most - least <= 1, "{least} to {most}");
            prop_assert_eq!(ranges.len(), parts.min(count + 1));
        }
    }

    #[test]
    fn the_smallest_and_the_largest_key_are_no_cuts() {
        let cuts = [Key::from_value(RawBsonRef::MinKey), key(7), Key::from_value(RawBsonRef::MaxKey)];
        let ranges = ranges(&cuts);
        let bounds: Vec<_> = ranges.iter().map(|range| (range.lower.key(), range.upper.key())).collect();
        assert_eq!(bounds, [(None, Some(&key(7))), (Some(&key(7)), None)]);
        assert!(super::ranges(&[]).iter().all(Range::is_whole));
    }
}
