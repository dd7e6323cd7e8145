//! The elements of a BSON document as the bytes they are (<https://bsonspec.org/spec.html>).
//!
//! Servers store what a strict decoder rejects: invalid UTF-8 in texts and names, names that appear twice. Such a document
//! has to be copied like any other, so nothing here decodes a text; lengths alone are looked at.

use memchr::memchr;

/// BSON's type bytes, of the types that something here depends on.
pub mod kind {
    /// A number of 64 bits with a binary point.
    pub const DOUBLE: u8 = 0x01;
    /// A text.
    pub const STRING: u8 = 0x02;
    /// A document.
    pub const DOCUMENT: u8 = 0x03;
    /// An array.
    pub const ARRAY: u8 = 0x04;
    /// Nothing.
    pub const NULL: u8 = 0x0a;
    /// A whole number of 32 bits.
    pub const INT32: u8 = 0x10;
    /// A timestamp of the oplog.
    pub const TIMESTAMP: u8 = 0x11;
    /// A whole number of 64 bits.
    pub const INT64: u8 = 0x12;
    /// Greater than every other value.
    pub const MAX_KEY: u8 = 0x7f;
    /// Less than every other value.
    pub const MIN_KEY: u8 = 0xff;
}

/// One element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Element<'a> {
    /// The type byte.
    pub kind: u8,
    /// The name, without the NUL behind it.
    pub name: &'a [u8],
    /// The value.
    pub value: &'a [u8],
}

/// The elements of a document's bytes, in their order. Ends where the document does, or where the bytes are no BSON,
/// which no server accepts.
pub fn elements(document: &[u8]) -> Elements<'_> {
    let length = document.first_chunk().map_or(0, |length| u32::from_le_bytes(*length) as usize);
    // The last byte of a document is a NUL.
    let end = length.min(document.len()).saturating_sub(1);
    Elements { rest: document.get(4..end).unwrap_or_default() }
}

/// The first element of this name.
pub fn field<'a>(document: &'a [u8], name: &[u8]) -> Option<Element<'a>> {
    elements(document).find(|element| element.name == name)
}

impl Element<'_> {
    /// A whole number, of whichever type.
    pub fn number(&self) -> Option<i64> {
        match self.kind {
            kind::DOUBLE => self.value.first_chunk().map(|bytes| f64::from_le_bytes(*bytes) as i64),
            kind::INT32 => self.value.first_chunk().map(|bytes| i64::from(i32::from_le_bytes(*bytes))),
            kind::INT64 => self.value.first_chunk().map(|bytes| i64::from_le_bytes(*bytes)),
            _ => None,
        }
    }

    /// A text for people: what is no UTF-8 is replaced.
    pub fn text(&self) -> Option<String> {
        let text = self.value.get(4..)?.strip_suffix(&[0])?;
        (self.kind == kind::STRING).then(|| String::from_utf8_lossy(text).into_owned())
    }
}

/// See [`elements`].
#[derive(Debug, Clone)]
pub struct Elements<'a> {
    rest: &'a [u8],
}

impl Elements<'_> {
    /// When nothing more comes: whether that is because the document ends there, and not because it is no BSON.
    pub fn is_whole(&self) -> bool {
        self.rest.is_empty()
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Element<'a>;

    fn next(&mut self) -> Option<Element<'a>> {
        let (kind, rest) = self.rest.split_first()?;
        let name_ends = memchr(0, rest)?;
        let (name, rest) = (&rest[..name_ends], &rest[name_ends + 1..]);
        let (value, rest) = rest.split_at_checked(value_length(*kind, rest)?)?;
        self.rest = rest;
        Some(Element { kind: *kind, name, value })
    }
}

/// A document of these elements.
pub fn document_of<'a>(elements: impl Iterator<Item = Element<'a>>) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    for Element { kind, name, value } in elements {
        bytes.push(kind);
        bytes.extend_from_slice(name);
        bytes.push(0);
        bytes.extend_from_slice(value);
    }
    bytes.push(0);
    let length = (bytes.len() as u32).to_le_bytes();
    bytes[..4].copy_from_slice(&length);
    bytes
}

/// How many bytes a value of this type has, at the beginning of `bytes`.
fn value_length(kind: u8, bytes: &[u8]) -> Option<usize> {
    let length = || bytes.first_chunk().map(|length| u32::from_le_bytes(*length) as usize);
    Some(match kind {
        0x06 | 0x0a | kind::MAX_KEY | kind::MIN_KEY => 0,
        0x08 => 1,
        0x10 => 4,
        0x01 | 0x09 | kind::TIMESTAMP | 0x12 => 8,
        0x07 => 12,
        0x13 => 16,
        // The length counts itself.
        kind::DOCUMENT | kind::ARRAY | 0x0f => length()?,
        // The length is followed by so many bytes.
        0x02 | 0x0d | 0x0e => 4 + length()?,
        // ...and a subtype before them.
        0x05 => 4 + 1 + length()?,
        // ...and an ObjectId behind them.
        0x0c => 4 + length()? + 12,
        // Two texts that end with a NUL.
        0x0b => {
            let pattern = bytes.iter().position(|byte| *byte == 0)? + 1;
            pattern + bytes[pattern..].iter().position(|byte| *byte == 0)? + 1
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use bson::oid::ObjectId;
    use bson::spec::BinarySubtype;
    use bson::{Binary, Bson, DateTime, Decimal128, JavaScriptCodeWithScope, RawDocumentBuf, Regex, Timestamp, doc};
    use proptest::prelude::*;

    fn every_type() -> RawDocumentBuf {
        let document = doc! {
            "double": 1.5,
            "string": "text",
            "document": { "a": 1, "": { "b": [] } },
            "array": [1, "two", { "three": 3 }],
            "binary": Binary { subtype: BinarySubtype::Generic, bytes: vec![1, 2, 3] },
            "binary_old": Binary { subtype: BinarySubtype::BinaryOld, bytes: vec![1, 2, 3] },
            "undefined": Bson::Undefined,
            "id": ObjectId::from_bytes([7; 12]),
            "boolean": true,
            "date": DateTime::from_millis(-1),
            "null": Bson::Null,
            "regex": Regex { pattern: "a+".try_into().unwrap(), options: "i".try_into().unwrap() },
            "code": Bson::JavaScriptCode("f()".into()),
            "symbol": Bson::Symbol("s".into()),
            "scoped": JavaScriptCodeWithScope { code: "g()".into(), scope: doc! { "x": 1 } },
            "int": 1,
            "timestamp": Timestamp { time: 1, increment: 2 },
            "long": 1_i64,
            "decimal": Decimal128::from_bytes([3; 16]),
            "max": Bson::MaxKey,
            "min": Bson::MinKey,
            "": "an empty name",
        };
        RawDocumentBuf::try_from(&document).unwrap()
    }

    #[test]
    fn elements_of_every_type_put_together_are_the_document() {
        let document = every_type();
        assert_eq!(elements(document.as_bytes()).count(), 22);
        assert_eq!(document_of(elements(document.as_bytes())), document.as_bytes());
    }

    #[test]
    fn a_pointer_ends_with_an_object_id() {
        let pointer = [&[3, 0, 0, 0][..], b"ns\0", &[9; 12]].concat();
        let elements_in = [
            Element { kind: 0x0c, name: b"p", value: &pointer },
            Element { kind: 0x02, name: b"\xff", value: b"\x02\0\0\0\xfe\0" },
        ];
        let document = document_of(elements_in.into_iter());
        assert_eq!(elements(&document).collect::<Vec<_>>(), elements_in);
    }

    proptest! {
        #[test]
        fn bytes_that_are_no_document_do_no_harm(bytes in any::<Vec<u8>>()) {
            elements(&bytes).count();
        }

        #[test]
        fn what_was_not_looked_at_is_told_from_the_end(place in 0..22_usize) {
            let mut document = every_type().into_bytes();
            let whole = |document: &[u8]| {
                let mut elements = elements(document);
                (elements.by_ref().count(), elements.is_whole())
            };
            prop_assert_eq!(whole(&document), (22, true));
            let before: usize = elements(&document).take(place).map(|element| 2 + element.name.len() + element.value.len()).sum();
            document[4 + before] = 0x42;
            prop_assert_eq!(whole(&document), (place, false));
        }

        #[test]
        fn a_document_that_was_cut_gives_what_is_whole(cut in 0..200_usize) {
            let document = every_type();
            let cut = cut.min(document.as_bytes().len());
            let (whole, part) = (elements(document.as_bytes()), elements(&document.as_bytes()[..cut]));
            prop_assert!(whole.zip(part).all(|(whole, part)| whole == part));
        }
    }
}
