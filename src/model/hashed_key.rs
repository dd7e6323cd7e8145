//! The server's hash of a value, as hashed indexes and hashed shard keys hold it.
//!
//! It decides which chunk a document is in, so it has to be the server's own for every value. Where it is written: the
//! server's source, `BSONElementHasher::hash64` and `recursiveHash` (`db/hasher.cpp`),
//! `BSONElement::safeNumberLongForHash` (`bson/bsonelement.h`), in short:
//!
//! - The first 8 bytes of an MD5, as a little-endian number, over: the seed, which is 0; the canonical type; the value as
//!   its bytes are. Both numbers have 32 bits. So a string and a symbol of the same bytes have the same hash.
//! - Numbers of all types count as 64-bit integers. Doubles lose their fraction, decimals are rounded, half to even. NaN
//!   is 0. What is too large or too small becomes the greatest or least integer, with one exception that servers keep
//!   because indexes with it exist: the double 2^63 becomes the *least*.
//! - Of documents, arrays, and code with scope (after the code) each element counts: its canonical type, its name with
//!   the NUL behind it, its value in the same way; then the type 0, for the end.
//!
//! The test `tests/integration/hashed_keys.rs` compares it with a server's.

use super::bson_order::{Decimal, Number, Value};
use super::element::elements;
use md5::{Digest, Md5};
use std::cmp::Ordering;

/// The only seed that servers use (`BSONElementHasher::DEFAULT_HASH_SEED`).
const SEED: i32 = 0;

/// `EOO`, which ends a document.
const END: i32 = 0;

/// The hash of a value, given its type byte and its bytes. None where they are no BSON.
pub fn hash(kind: u8, bytes: &[u8]) -> Option<i64> {
    let mut md5 = Md5::new();
    md5.update(SEED.to_le_bytes());
    add(&mut md5, kind, None, bytes)?;
    let digest: [u8; 16] = md5.finalize().into();
    digest.first_chunk().map(|first| i64::from_le_bytes(*first))
}

/// Adds a value: its type, its name where it is within a document, itself.
fn add(md5: &mut Md5, kind: u8, name: Option<&[u8]>, bytes: &[u8]) -> Option<()> {
    let value = Value::take(kind, &mut &*bytes)?;
    md5.update(value.canonical_type().to_le_bytes());
    if let Some(name) = name {
        md5.update(name);
        md5.update([0]);
    }
    match value {
        Value::Number(number) => md5.update(integer(number).to_le_bytes()),
        Value::Document(document) | Value::Array(document) => add_elements(md5, document)?,
        Value::CodeWithScope { code, scope } => {
            md5.update(code);
            md5.update([0]);
            add_elements(md5, scope)?;
        }
        _ => md5.update(bytes),
    }
    Some(())
}

fn add_elements(md5: &mut Md5, document: &[u8]) -> Option<()> {
    let mut elements = elements(document);
    for element in elements.by_ref() {
        add(md5, element.kind, Some(element.name), element.value)?;
    }
    md5.update(END.to_le_bytes());
    elements.is_whole().then_some(())
}

/// A number as the integer that is hashed.
fn integer(number: Number) -> i64 {
    /// 2^63
    const BEYOND: f64 = 9_223_372_036_854_775_808.0;
    match number {
        Number::Integer(integer) => integer,
        Number::Double(BEYOND) => i64::MIN,
        // The cast does the rest as the server does it: it drops the fraction, ends at the limits, and makes NaN 0.
        Number::Double(double) => double as i64,
        Number::Decimal(decimal) => rounded(decimal),
    }
}

/// Half to even, and within the limits.
fn rounded(decimal: Decimal) -> i64 {
    let (whole, rest, parts) = decimal.whole_and_rest();
    let goes_up = match (rest * 2).cmp(&parts) {
        Ordering::Less => false,
        Ordering::Equal => whole % 2 == 1,
        Ordering::Greater => true,
    };
    let negative = decimal.negative;
    let magnitude = whole + u128::from(goes_up);
    match i64::try_from(magnitude) {
        Ok(magnitude) if negative => -magnitude,
        Ok(magnitude) => magnitude,
        Err(_) if negative => i64::MIN,
        Err(_) => i64::MAX,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use bson::{RawBson, RawDocumentBuf, rawdoc};
    use proptest::prelude::*;

    fn hash_of(value: impl Into<RawBson>) -> i64 {
        let mut document = RawDocumentBuf::new();
        document.append(bson::cstr!("k"), value.into());
        let element = elements(document.as_bytes()).next().unwrap();
        hash(element.kind, element.value).unwrap()
    }

    fn decimal(text: &str) -> RawBson {
        RawBson::Decimal128(text.parse().unwrap())
    }

    #[test]
    fn the_hash_is_the_one_that_every_server_checks_when_it_starts() {
        // `HasherUnitTest` in `db/hasher.cpp`.
        assert_eq!(hash_of(42), -944_302_157_085_130_861);
    }

    #[test]
    fn numbers_of_all_types_are_integers() {
        let alike: [&[RawBson]; 7] = [
            &[3.into(), 3i64.into(), 3.9.into(), decimal("3"), decimal("2.5001"), decimal("34E-1")],
            &[0.into(), 0.9.into(), (-0.9).into(), f64::NAN.into(), decimal("NaN"), decimal("0.5"), decimal("1E-6176")],
            &[(-2).into(), (-2.9).into(), decimal("-1.5"), decimal("-2.5")],
            &[i64::MAX.into(), 1e19.into(), f64::INFINITY.into(), decimal("Infinity"), decimal("1E+6144")],
            &[i64::MAX.into(), decimal("9223372036854775808"), decimal("9223372036854775806.6")],
            &[i64::MIN.into(), 9_223_372_036_854_775_808.0.into(), (-1e300).into(), f64::NEG_INFINITY.into()],
            &[i64::MIN.into(), decimal("-9223372036854775808"), decimal("-1E+40"), decimal("-Infinity")],
        ];
        for values in alike {
            for value in values {
                assert_eq!(hash_of(value.clone()), hash_of(values[0].clone()), "{value:?}, {:?}", values[0]);
            }
        }
    }

    #[test]
    fn only_what_is_of_one_canonical_type_is_alike() {
        assert_eq!(hash_of("a"), hash_of(RawBson::Symbol("a".into())));
        assert_ne!(hash_of("a"), hash_of(RawBson::JavaScriptCode("a".into())));
        assert_ne!(hash_of(RawBson::Null), hash_of(RawBson::Undefined));
        assert_ne!(hash_of(rawdoc! { "a": 1 }), hash_of(rawdoc! { "b": 1 }));
        assert_eq!(hash_of(rawdoc! { "a": 1 }), hash_of(rawdoc! { "a": 1.5 }));
        assert_ne!(hash_of(rawdoc! { "a": {}, "b": 1 }), hash_of(rawdoc! { "a": { "b": 1 } }));
    }

    proptest! {
        #[test]
        fn bytes_that_are_no_bson_do_no_harm(kind in any::<u8>(), bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            hash(kind, &bytes);
        }
    }
}
