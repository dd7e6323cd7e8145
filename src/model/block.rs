//! Comparing two collections that nobody here can put in order: under a collation only the server knows which `_id`
//! comes first.
//!
//! The source is read in its order and cut into blocks. A block's range begins with its own first key and ends before
//! the first key of the next block, so the ranges of all blocks are disjoint and leave nothing out; the target is asked
//! for the same range by index bounds, and within a block documents are found by the bytes of their `_id`. Nothing is
//! compared by order, and no more than a block is held.

use super::cursor::Key;
use super::partition::{Bound, Range};
use std::collections::HashMap;

/// The ranges of the blocks into which a range is cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cutter {
    rest: Range,
}

impl Cutter {
    /// Cuts this range.
    pub fn new(range: Range) -> Self {
        Self { rest: range }
    }

    /// The range of a block whose successor begins with this key.
    pub fn before(&mut self, next: Key) -> Range {
        let cut = Bound::At(next);
        Range { lower: std::mem::replace(&mut self.rest.lower, cut.clone()), upper: cut }
    }

    /// What is not cut off yet: the range of the last block.
    pub fn rest(&self) -> &Range {
        &self.rest
    }
}

/// The documents of the source in one range, until the target's have been held against them.
#[derive(Debug, Default)]
pub struct Block<'a> {
    documents: HashMap<Key, &'a [u8]>,
}

/// What a document of the target has for a counterpart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counterpart<'a> {
    /// The same document, byte by byte.
    Equal,
    /// Another one with the same `_id`.
    Other(&'a [u8]),
    /// None whose `_id` has the same bytes.
    None,
}

impl<'a> Block<'a> {
    /// Adds a document of the source.
    pub fn add(&mut self, key: Key, document: &'a [u8]) {
        self.documents.insert(key, document);
    }

    /// Takes a document of the target, and takes its counterpart out.
    pub fn meet(&mut self, key: &Key, target: &[u8]) -> Counterpart<'a> {
        match self.documents.remove(key) {
            None => Counterpart::None,
            Some(source) if source == target => Counterpart::Equal,
            Some(source) => Counterpart::Other(source),
        }
    }

    /// What no document of the target was a counterpart of.
    pub fn into_rest(self) -> HashMap<Key, &'a [u8]> {
        self.documents
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::RawBsonRef;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn key(number: i64) -> Key {
        Key::from_value(RawBsonRef::Int64(number))
    }

    /// What a server gives for a range, where keys are numbers.
    fn read<'a>(documents: &'a BTreeMap<i64, Vec<u8>>, range: &Range) -> Vec<(Key, &'a [u8])> {
        let number = |bound: &Bound| bound.key().and_then(Key::value).and_then(|value| value.as_i64());
        let (lower, upper) = (number(&range.lower), number(&range.upper));
        let is_in = |id: i64| lower.is_none_or(|lower| id >= lower) && upper.is_none_or(|upper| id < upper);
        documents.iter().filter(|(id, _)| is_in(**id)).map(|(id, document)| (key(*id), document.as_slice())).collect()
    }

    proptest! {
        #[test]
        fn whatever_the_blocks_every_difference_is_found_once(
            source in proptest::collection::btree_map(0..60_i64, proptest::collection::vec(0..3_u8, 1), 0..40),
            target in proptest::collection::btree_map(0..60_i64, proptest::collection::vec(0..3_u8, 1), 0..40),
            bounds in (0..60_i64, 0..60_i64),
            sizes in proptest::collection::vec(1..9_usize, 1..9),
        ) {
            let range = Range { lower: Bound::At(key(bounds.0.min(bounds.1))), upper: Bound::At(key(bounds.0.max(bounds.1))) };
            let read_from_source = read(&source, &range);
            let mut blocks = Vec::new();
            let (mut rest, mut sizes) = (read_from_source.as_slice(), sizes.iter().cycle());
            while let Some(size) = sizes.next().filter(|_| !rest.is_empty()) {
                let (block, after) = rest.split_at((*size).min(rest.len()));
                blocks.push(block);
                rest = after;
            }
            let mut cutter = Cutter::new(range.clone());
            let mut differing = Vec::new();
            for place in 0..blocks.len().max(1) {
                let next = blocks.get(place + 1).and_then(|next| next.first());
                let part = match next {
                    Some((next, _)) => cutter.before(next.clone()),
                    None => cutter.rest().clone(),
                };
                let mut block = Block::default();
                for (key, document) in blocks.get(place).copied().unwrap_or_default() {
                    block.add(key.clone(), document);
                }
                for (key, document) in read(&target, &part) {
                    if block.meet(&key, document) != Counterpart::Equal {
                        differing.push(key);
                    }
                }
                differing.extend(block.into_rest().into_keys());
            }
            let found: BTreeSet<i64> = differing.iter().filter_map(|key| key.value()?.as_i64()).collect();
            prop_assert_eq!(found.len(), differing.len(), "none is found twice");
            let expected: BTreeSet<i64> = (bounds.0.min(bounds.1)..bounds.0.max(bounds.1))
                .filter(|id| source.get(id) != target.get(id))
                .collect();
            prop_assert_eq!(found, expected);
        }
    }
}
