//! Documents as the bytes they are, one behind the other: what a reply holds, and what an insert sends.
//!
//! The bytes of a reply are not copied to become those of inserts: the names of the array's elements between the
//! documents are closed up where they lie, and batches are parts of the same memory, which goes back to where it came
//! from with the last of them.

use super::buffers::Buffers;
use crate::model::element::kind;
use bson::{RawDocument, RawDocumentBuf};
use std::ops::Range;
use std::sync::Arc;

/// Some documents. Clones and parts share the bytes.
#[derive(Debug, Clone, Default)]
pub struct Documents {
    memory: Arc<Memory>,
    /// Which of those in the memory.
    places: Range<usize>,
}

/// Where documents lie.
#[derive(Debug, Default)]
struct Memory {
    bytes: Vec<u8>,
    /// Where each begins, and where the last one ends.
    bounds: Vec<usize>,
    /// Where the memory goes afterwards.
    home: Option<Buffers>,
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Some(home) = &self.home {
            home.put_back(std::mem::take(&mut self.bytes));
        }
    }
}

/// An array that does not hold just documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an array that does not hold just documents")]
pub struct NotDocuments;

impl Documents {
    /// Those of the BSON array that lies in this part of the bytes, which go `home` when nobody needs them any more.
    ///
    /// # Errors
    /// When it is not an array of documents.
    pub fn of_array(mut bytes: Vec<u8>, array: Range<usize>, home: Option<Buffers>) -> Result<Self, NotDocuments> {
        // Its last byte is a NUL, its first four are the length.
        let end = array.end.checked_sub(1).filter(|end| *end < bytes.len()).ok_or(NotDocuments)?;
        let mut from = array.start + LENGTH;
        let mut to = from;
        let mut bounds = vec![to];
        while from < end {
            if bytes[from] != kind::DOCUMENT {
                return Err(NotDocuments);
            }
            let name = bytes[from + 1..end].iter().position(|byte| *byte == 0).ok_or(NotDocuments)?;
            let start = from + 1 + name + 1;
            let length = bytes.get(start..end).and_then(|rest| rest.first_chunk()).ok_or(NotDocuments)?;
            let stop = start + u32::from_le_bytes(*length) as usize;
            if stop > end || RawDocument::from_bytes(&bytes[start..stop]).is_err() {
                return Err(NotDocuments);
            }
            bytes.copy_within(start..stop, to);
            to += stop - start;
            bounds.push(to);
            from = stop;
        }
        let places = 0..bounds.len() - 1;
        Ok(Self { memory: Arc::new(Memory { bytes, bounds, home }), places })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Their size in bytes.
    pub fn size(&self) -> usize {
        self.bytes().len()
    }

    /// The one at this place, from 0.
    pub fn get(&self, index: usize) -> Option<&RawDocument> {
        let place = self.places.clone().nth(index)?;
        let bounds = *self.memory.bounds.get(place)?..*self.memory.bounds.get(place + 1)?;
        RawDocument::from_bytes(self.memory.bytes.get(bounds)?).ok()
    }

    /// The first one.
    pub fn first(&self) -> Option<&RawDocument> {
        self.get(0)
    }

    /// The last one.
    pub fn last(&self) -> Option<&RawDocument> {
        self.get(self.len().checked_sub(1)?)
    }

    /// Those at these places, in the same memory; fewer where there are no more.
    #[must_use]
    pub fn part(&self, places: Range<usize>) -> Self {
        let place = |index: usize| (self.places.start + index).min(self.places.end);
        Self { memory: Arc::clone(&self.memory), places: place(places.start)..place(places.end) }
    }

    /// Those at these places, in memory of their own.
    #[must_use]
    pub fn pick(&self, places: &[usize]) -> Self {
        places.iter().filter_map(|place| self.get(*place)).collect()
    }

    /// What comes of them by a change that leaves most as they are: where it leaves all, the same memory.
    #[must_use]
    pub fn changed(self, change: impl Fn(&[u8]) -> Option<Vec<u8>>) -> Self {
        let change = |document: &RawDocument| RawDocumentBuf::from_bytes(change(document.as_bytes())?).ok();
        let changed: Vec<Option<RawDocumentBuf>> = self.iter().map(change).collect();
        if changed.iter().all(Option::is_none) {
            return self;
        }
        self.iter().zip(&changed).map(|(document, changed)| changed.as_deref().unwrap_or(document)).collect()
    }

    /// All of them.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &RawDocument> {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    /// Their bytes, one document behind the other.
    pub fn bytes(&self) -> &[u8] {
        let Memory { bytes, bounds, .. } = &*self.memory;
        match (bounds.get(self.places.start), bounds.get(self.places.end)) {
            (Some(start), Some(end)) => bytes.get(*start..*end).unwrap_or_default(),
            _ => &[],
        }
    }

    /// Appends them to a command as the array `documents`. Put together by hand, since the array's elements are bytes
    /// that need no encoding.
    pub(super) fn append_to(&self, command: RawDocumentBuf) -> Result<RawDocumentBuf, bson::error::Error> {
        let mut bytes = command.into_bytes();
        bytes.pop();
        bytes.reserve(self.size() + self.len() * 8 + 32);
        bytes.push(kind::ARRAY);
        bytes.extend_from_slice(b"documents\0");
        let array_start = bytes.len();
        bytes.extend_from_slice(&[0; LENGTH]);
        for (index, document) in self.iter().enumerate() {
            bytes.push(kind::DOCUMENT);
            bytes.extend_from_slice(index.to_string().as_bytes());
            bytes.push(0);
            bytes.extend_from_slice(document.as_bytes());
        }
        bytes.push(0);
        set_length(&mut bytes, array_start);
        bytes.push(0);
        set_length(&mut bytes, 0);
        RawDocumentBuf::from_bytes(bytes)
    }
}

/// Copies them.
impl<D: AsRef<RawDocument>> FromIterator<D> for Documents {
    fn from_iter<I: IntoIterator<Item = D>>(documents: I) -> Self {
        let mut memory = Memory { bytes: Vec::new(), bounds: vec![0], home: None };
        for document in documents {
            memory.bytes.extend_from_slice(document.as_ref().as_bytes());
            memory.bounds.push(memory.bytes.len());
        }
        let places = 0..memory.bounds.len() - 1;
        Self { memory: Arc::new(memory), places }
    }
}

/// How many bytes the length of a BSON document has, which it begins with.
const LENGTH: usize = 4;

/// Writes the length of the document that begins at `start` and ends with the buffer.
fn set_length(bytes: &mut [u8], start: usize) {
    let length = (bytes.len() - start) as i32;
    bytes[start..start + LENGTH].copy_from_slice(&length.to_le_bytes());
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use bson::{RawArrayBuf, RawBson, rawdoc};
    use proptest::prelude::*;

    fn bytes_of(documents: &Documents) -> Vec<Vec<u8>> {
        documents.iter().map(|document| document.as_bytes().to_vec()).collect()
    }

    #[test]
    fn documents_are_appended_as_the_bytes_they_are() {
        let first = rawdoc! { "_id": 1, "text": "é" };
        let second = rawdoc! { "_id": f64::from_bits(0x7ff8_0000_0000_0001) };
        let documents: Documents = [&first, &second].into_iter().collect();
        let command = documents.append_to(rawdoc! { "insert": "c" }).unwrap();
        let array = command.get_array("documents").unwrap();
        let back: Vec<&[u8]> =
            array.into_iter().map(|value| value.unwrap().as_document().unwrap().as_bytes()).collect();
        assert_eq!(back, [first.as_bytes(), second.as_bytes()]);
        assert_eq!(bytes_of(&documents), back);
    }

    #[test]
    fn none_are_none() {
        for documents in [Documents::default(), Vec::<RawDocumentBuf>::new().into_iter().collect()] {
            assert!(documents.is_empty() && documents.bytes().is_empty());
            assert!(documents.first().is_none() && documents.last().is_none() && documents.get(0).is_none());
            assert!(documents.part(0..9).is_empty());
        }
    }

    #[test]
    fn what_is_no_array_of_documents_is_refused() {
        let array = RawArrayBuf::from_iter([RawBson::Int32(1)]);
        let numbers = array.as_bytes().to_vec();
        let length = numbers.len();
        assert_eq!(Documents::of_array(numbers, 0..length, None).unwrap_err(), NotDocuments);
        let mut cut = RawArrayBuf::from_iter([rawdoc! { "a": 1 }]).as_bytes().to_vec();
        let length = cut.len();
        assert!(Documents::of_array(cut.clone(), 0..length + 1, None).is_err());
        // A document that says to be longer than the array.
        cut[7] = 200;
        assert!(Documents::of_array(cut, 0..length, None).is_err());
    }

    #[test]
    fn a_change_of_some_leaves_the_others_and_their_order() {
        let documents: Documents = (0..5).map(|id| rawdoc! { "_id": id }).collect();
        let odd = |document: &[u8]| document[9] % 2 == 1;
        let longer = |document: &[u8]| odd(document).then(|| rawdoc! { "odd": document[9] as i32 }.into_bytes());
        let changed: Documents = [
            rawdoc! { "_id": 0 },
            rawdoc! { "odd": 1 },
            rawdoc! { "_id": 2 },
            rawdoc! { "odd": 3 },
            rawdoc! { "_id": 4 },
        ]
        .iter()
        .collect();
        assert_eq!(bytes_of(&documents.clone().changed(longer)), bytes_of(&changed));
        let unchanged = documents.part(1..3).changed(|_| None);
        assert!(Arc::ptr_eq(&unchanged.memory, &documents.memory) && unchanged.len() == 2);
    }

    #[test]
    fn memory_goes_home_with_the_last_part() {
        let home = Buffers::default();
        let array = RawArrayBuf::from_iter([rawdoc! { "a": "b".repeat(100_000) }, rawdoc! {}]).as_bytes().to_vec();
        let (size, length) = (array.capacity(), array.len());
        let all = Documents::of_array(array, 0..length, Some(home.clone())).unwrap();
        let part = all.part(1..2);
        drop(all);
        assert_eq!(home.take(70_000).capacity(), 70_000);
        drop(part);
        assert_eq!(home.take(70_000).capacity(), size);
    }

    proptest! {
        #[test]
        fn an_array_gives_what_it_was_made_of(
            texts in prop::collection::vec(".{0,20}", 0..120),
            before in 0_usize..9,
            cuts in prop::array::uniform2(0_usize..130),
        ) {
            let expected: Vec<RawDocumentBuf> = texts.iter().map(|text| rawdoc! { "t": text.as_str() }).collect();
            let array: RawArrayBuf = expected.iter().cloned().collect();
            let mut bytes = vec![7; before];
            bytes.extend_from_slice(array.as_bytes());
            bytes.extend_from_slice(&[9; 3]);
            let documents = Documents::of_array(bytes, before..before + array.as_bytes().len(), None).unwrap();
            let expected: Vec<Vec<u8>> = expected.into_iter().map(RawDocumentBuf::into_bytes).collect();
            prop_assert_eq!(bytes_of(&documents), expected.clone());
            prop_assert_eq!(documents.bytes(), expected.concat());
            let [from, to] = cuts.map(|cut| cut.min(expected.len()));
            if from <= to {
                let part = documents.part(from..to);
                prop_assert_eq!(part.bytes(), expected[from..to].concat());
                prop_assert_eq!(part.last().map(RawDocument::as_bytes), expected[from..to].last().map(Vec::as_slice));
                prop_assert_eq!(bytes_of(&part.part(1..9)), bytes_of(&documents.part(from + 1..(from + 9).min(to).max(from + 1))));
            }
        }
    }
}
