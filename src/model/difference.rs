//! Where two documents differ: the first path at which they do, and what is there on either side.
//!
//! It is about documents whose bytes differ; nothing is decoded to find that out, and only what is shown is decoded
//! here. Text that is no UTF-8, names that appear twice and the order of fields count like everything else.

use super::element::{Element, elements, kind};
use bson::Decimal128;
use bson::oid::ObjectId;
use std::fmt;

/// How many bytes of a long value are shown.
const SHOWN: usize = 48;

/// How many of them come before the first byte that differs.
const SHOWN_BEFORE: usize = 16;

/// How many characters of a path are shown.
const SHOWN_PATH: usize = 200;

/// What is said of a field that one side does not have.
const NOTHING: &str = "nothing";

/// The first difference of two documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Names and places of array elements, as in `a.b.3.c`. Empty when their elements are the same and yet their bytes are
    /// not.
    pub path: String,
    /// What the source has there, shortened.
    pub source: String,
    /// What the target has there, shortened.
    pub target: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, source, target } = self;
        if path.is_empty() {
            write!(f, "in its bytes")?
        } else {
            write!(f, "at {path}")?
        }
        write!(f, ": source {source}, target {target}")
    }
}

/// The first difference of two documents by their bytes, none where these are equal.
pub fn first(source: &[u8], target: &[u8]) -> Option<Difference> {
    let mut path = Vec::new();
    let (source, target) = differ(&mut path, source, target)?;
    let shown_name = |name: &&[u8]| if name.is_empty() { "\"\"".to_owned() } else { shown_text(name) };
    let mut path = path.iter().map(shown_name).collect::<Vec<_>>().join(".");
    if let Some((end, _)) = path.char_indices().nth(SHOWN_PATH) {
        path.truncate(end);
        path.push('…');
    }
    Some(Difference { path, source, target })
}

/// What is shown of both sides; `path` then leads there.
fn differ<'a>(path: &mut Vec<&'a [u8]>, source: &'a [u8], target: &'a [u8]) -> Option<(String, String)> {
    if source == target {
        return None;
    }
    let (mut ours, mut theirs) = (elements(source), elements(target));
    for place in 1.. {
        match (ours.next(), theirs.next()) {
            (None, None) => break,
            (Some(one), None) => {
                path.push(one.name);
                return Some((shown(one, 0), NOTHING.to_owned()));
            }
            (None, Some(other)) => {
                path.push(other.name);
                return Some((NOTHING.to_owned(), shown(other, 0)));
            }
            (Some(one), Some(other)) if one == other => {}
            (Some(one), Some(other)) if one.name == other.name => {
                path.push(one.name);
                let is_nested = matches!(one.kind, kind::DOCUMENT | kind::ARRAY);
                return if one.kind == other.kind && is_nested {
                    differ(path, one.value, other.value)
                } else {
                    Some(shown_both(one, other))
                };
            }
            (Some(one), Some(other)) => {
                let there = theirs.position(|element| element.name == one.name);
                let here = ours.position(|element| element.name == other.name);
                let (name, shown) = match (here, there) {
                    (_, None) => (one.name, (shown(one, 0), NOTHING.to_owned())),
                    (None, _) => (other.name, (NOTHING.to_owned(), shown(other, 0))),
                    // Both have both: in another order.
                    (Some(_), Some(further)) => {
                        (one.name, (format!("as field {place}"), format!("as field {}", place + 1 + further)))
                    }
                };
                path.push(name);
                return Some(shown);
            }
        }
    }
    Some((format!("{} bytes", source.len()), format!("{} bytes", target.len())))
}

/// Two values of one name that differ, shown so that the difference is seen.
fn shown_both(one: Element<'_>, other: Element<'_>) -> (String, String) {
    // Where a length comes first it says nothing of what differs.
    let skipped = if matches!(one.kind, 0x02 | 0x05 | 0x0d | 0x0e) { 4 } else { 0 };
    let differs_at = one.value.iter().zip(other.value).skip(skipped).position(|(one, other)| one != other);
    let at = match differs_at {
        Some(at) if one.kind == other.kind => at + skipped,
        _ => 0,
    };
    let (mut source, mut target) = (shown(one, at), shown(other, at));
    if source == target && one.value.len() != other.value.len() {
        source = format!("{source} ({} bytes)", one.value.len());
        target = format!("{target} ({} bytes)", other.value.len());
    } else if source == target {
        // NaN payloads, text that is no UTF-8.
        source = format!("{source} (bytes {})", window(one.value, at, hex));
        target = format!("{target} (bytes {})", window(other.value, at, hex));
    }
    (source, target)
}

/// A value for people, with the byte at this place in sight where it is long.
fn shown(element: Element<'_>, at: usize) -> String {
    let Element { kind, value, .. } = element;
    // Text and code begin with a length and end with a NUL.
    let text = || {
        format!("\"{}\"", window(value.get(4..value.len() - 1).unwrap_or_default(), at.saturating_sub(4), shown_text))
    };
    match kind {
        0x01 => fixed(value).map_or_else(String::new, |bytes| format!("{:?}", f64::from_le_bytes(bytes))),
        0x02 => text(),
        kind::DOCUMENT => format!("a document of {} fields", elements(value).count()),
        kind::ARRAY => format!("an array of {} values", elements(value).count()),
        0x05 => {
            let subtype = value.get(4).copied().unwrap_or_default();
            let bytes = value.get(5..).unwrap_or_default();
            format!("{} (binary, subtype {subtype})", window(bytes, at.saturating_sub(5), hex))
        }
        0x06 => "undefined".to_owned(),
        0x07 => fixed(value).map_or_else(String::new, |bytes| format!("ObjectId(\"{}\")", ObjectId::from_bytes(bytes))),
        0x08 => (value != [0]).to_string(),
        0x09 => fixed(value).map_or_else(String::new, |bytes| format!("Date({})", i64::from_le_bytes(bytes))),
        0x0a => "null".to_owned(),
        0x0b => {
            let mut parts = value.split(|byte| *byte == 0).map(shown_text);
            format!("/{}/{}", parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
        }
        0x0d => format!("{} (code)", text()),
        0x0e => format!("{} (symbol)", text()),
        0x10 => fixed(value).map_or_else(String::new, |bytes| i32::from_le_bytes(bytes).to_string()),
        kind::TIMESTAMP => fixed(value).map_or_else(String::new, |bytes| {
            let both = u64::from_le_bytes(bytes);
            format!("Timestamp({}, {})", both >> 32, both as u32)
        }),
        0x12 => fixed(value).map_or_else(String::new, |bytes| format!("{} (int64)", i64::from_le_bytes(bytes))),
        0x13 => fixed(value).map_or_else(String::new, |bytes| format!("{} (decimal)", Decimal128::from_bytes(bytes))),
        kind::MAX_KEY => "MaxKey".to_owned(),
        kind::MIN_KEY => "MinKey".to_owned(),
        kind => format!("{} (BSON type {kind:#04x})", window(value, at, hex)),
    }
}

/// A value of a type that has one length.
fn fixed<const LENGTH: usize>(value: &[u8]) -> Option<[u8; LENGTH]> {
    value.try_into().ok()
}

/// Some bytes around a place, as text.
fn window(bytes: &[u8], at: usize, shown: impl Fn(&[u8]) -> String) -> String {
    if bytes.len() <= SHOWN {
        return shown(bytes);
    }
    let start = at.saturating_sub(SHOWN_BEFORE).min(bytes.len() - SHOWN);
    let end = start + SHOWN;
    let before = if start > 0 { "…" } else { "" };
    let after = if end < bytes.len() { "…" } else { "" };
    format!("{before}{}{after}", shown(&bytes[start..end]))
}

fn shown_text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).escape_debug().to_string()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use bson::{Bson, Document, RawDocumentBuf, doc};
    use proptest::prelude::*;

    fn shown_of(source: &Document, target: &Document) -> String {
        let bytes = |document: &Document| RawDocumentBuf::try_from(document).unwrap().into_bytes();
        first(&bytes(source), &bytes(target)).map_or_else(|| "equal".to_owned(), |difference| difference.to_string())
    }

    #[test]
    fn the_first_difference_is_shown_with_its_path() {
        let long = |tail: &str| format!("{}{tail}{}", "x".repeat(100), "y".repeat(100));
        for (source, target, shown) in [
            (doc! { "a": 1 }, doc! { "a": 1 }, "equal"),
            (doc! { "a": { "zip": "1" } }, doc! { "a": { "zip": "2" } }, "at a.zip: source \"1\", target \"2\""),
            (doc! { "a": 1 }, doc! { "a": 1.0 }, "at a: source 1, target 1.0"),
            (doc! { "a": 1 }, doc! { "a": 1_i64 }, "at a: source 1, target 1 (int64)"),
            (doc! { "a": [0, { "c": [7, 8] }] }, doc! { "a": [0, { "c": [7, 9] }] }, "at a.1.c.1: source 8, target 9"),
            (doc! { "a": [1] }, doc! { "a": [1, 2] }, "at a.1: source nothing, target 2"),
            (doc! { "a": 1, "b": 2 }, doc! { "a": 1 }, "at b: source 2, target nothing"),
            (doc! { "a": 1, "b": 2, "c": 3 }, doc! { "a": 1, "c": 3 }, "at b: source 2, target nothing"),
            (doc! { "a": 1, "c": 3 }, doc! { "a": 1, "b": null, "c": 3 }, "at b: source nothing, target null"),
            (
                doc! { "a": 1, "b": 2, "c": 3 },
                doc! { "a": 1, "c": 3, "b": 2 },
                "at b: source as field 2, target as field 3",
            ),
            (doc! { "a": {} }, doc! { "a": [] }, "at a: source a document of 0 fields, target an array of 0 values"),
            (
                doc! { "a": long("1") },
                doc! { "a": long("2") },
                "at a: source \"…xxxxxxxxxxxxxxxx1yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy…\", target \"…xxxxxxxxxxxxxxxx2yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy…\"",
            ),
            (
                doc! { "a": long("") },
                doc! { "a": long("y") },
                "at a: source \"…yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\" (205 bytes), target \"…yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\" (206 bytes)",
            ),
            (
                doc! { "a": f64::from_bits(0x7ff8_0000_0000_0000) },
                doc! { "a": f64::from_bits(0x7ff8_0000_0000_0001) },
                "at a: source NaN (bytes 000000000000f87f), target NaN (bytes 010000000000f87f)",
            ),
            (doc! { "": Bson::MinKey }, doc! { "": Bson::MaxKey }, "at \"\": source MinKey, target MaxKey"),
        ] {
            assert_eq!(shown_of(&source, &target), shown);
        }
    }

    #[test]
    fn text_that_is_no_utf8_and_names_that_appear_twice_are_told_apart() {
        let document = |first: u8, second: u8| {
            let mut bytes = vec![0; 4];
            for byte in [first, second] {
                bytes.extend([0x02, b'a', 0, 2, 0, 0, 0, byte, 0]);
            }
            bytes.push(0);
            bytes[0] = bytes.len() as u8;
            bytes
        };
        let difference = first(&document(b'x', 0xfe), &document(b'x', 0xff)).unwrap();
        assert_eq!(
            difference.to_string(),
            "at a: source \"\u{fffd}\" (bytes 02000000fe00), target \"\u{fffd}\" (bytes 02000000ff00)"
        );
    }

    fn value() -> impl Strategy<Value = Bson> {
        let scalar = prop_oneof![
            (0..3i32).prop_map(Bson::from),
            (0..3i64).prop_map(Bson::from),
            "[ab]{0,60}".prop_map(Bson::from),
            Just(Bson::Null)
        ];
        scalar.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Bson::from),
                proptest::collection::vec(("[abc]", inner), 0..4)
                    .prop_map(|fields| Bson::Document(fields.into_iter().collect())),
            ]
        })
    }

    /// What a path leads to, by other means; none where nothing is there.
    fn at<'a>(document: &'a Document, path: &str) -> Option<&'a Bson> {
        let mut names = path.split('.');
        let mut found = document.get(names.next()?)?;
        for name in names {
            found = match found {
                Bson::Document(document) => document.get(name)?,
                Bson::Array(values) => values.get(name.parse::<usize>().ok()?)?,
                _ => return None,
            };
        }
        Some(found)
    }

    proptest! {
        #[test]
        fn there_is_a_difference_exactly_where_bytes_differ_and_the_path_leads_to_it(one in value(), other in value()) {
            let (source, target) = (doc! { "v": one }, doc! { "v": other });
            let bytes = |document: &Document| RawDocumentBuf::try_from(document).unwrap().into_bytes();
            match first(&bytes(&source), &bytes(&target)) {
                None => prop_assert_eq!(&source, &target),
                Some(difference) => {
                    prop_assert_ne!(&difference.source, &difference.target);
                    let (here, there) = (at(&source, &difference.path), at(&target, &difference.path));
                    prop_assert_eq!(here.is_none(), difference.source == NOTHING);
                    prop_assert_eq!(there.is_none(), difference.target == NOTHING);
                    if !difference.source.starts_with("as field") {
                        prop_assert_ne!(here, there);
                    }
                }
            }
        }

        #[test]
        fn any_bytes_at_all_are_compared_without_harm(one in any::<Vec<u8>>(), other in any::<Vec<u8>>()) {
            prop_assert_eq!(first(&one, &other).is_none(), one == other);
        }
    }
}
