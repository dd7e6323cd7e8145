//! Bytes whose order is that of values: two keys are compared with one `memcmp`, whatever they are made of, where
//! [`super::bson_order`] has to take both apart. It is what the server's `KeyString` is to its indexes.
//!
//! The bytes of a key are those of its values, one after the other; of a value its bracket, then what follows in the order
//! in which [`super::bson_order`] compares:
//!
//! - Numbers: whether they are below, among or above the 64-bit integers; the greatest integer that is not above them;
//!   whether that is less than they are.
//! - Texts: each byte, with 0xff behind a NUL; then two NULs. Binary data: length, subtype, bytes.
//! - Documents and arrays: of each element the bracket, the name, the value; then an end that is less than all brackets.
//! - Dates, timestamps, ObjectIds, booleans: what they are, the most significant byte first.
//!
//! Not everything has bytes of its own. Numbers with a fraction or beyond 64 bits, and the rare types (code, regular
//! expressions, DBPointers), are cut short after what is said above, with all that would follow. So:
//!
//! - different bytes are in the order of the keys;
//! - the same bytes are the same key when they are [`Precision::Exact`], and say nothing when they are cut.

use super::bson_order::{Number, Value, fields};
use smallvec::SmallVec;

/// What the same bytes mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Precision {
    /// Keys with these bytes are equal.
    Exact,
    /// Keys with these bytes have to be compared.
    Cut,
}

/// Ends a document. Brackets are greater.
const END: u8 = 0;

/// The bytes of a key. Only long ones need memory of their own.
pub(super) type KeyBytes = SmallVec<[u8; 64]>;

/// Adds the bytes of a key.
pub(super) fn add_key<'a>(into: &mut KeyBytes, key: impl IntoIterator<Item = Value<'a>>) -> Precision {
    for value in key {
        into.push(bracket(&value));
        if add_value(into, &value) == Precision::Cut {
            return Precision::Cut;
        }
    }
    Precision::Exact
}

/// Never [`END`].
fn bracket(value: &Value<'_>) -> u8 {
    (value.canonical_type() + 2) as u8
}

fn add_value(into: &mut KeyBytes, value: &Value<'_>) -> Precision {
    match *value {
        Value::MinKey | Value::Undefined | Value::Null | Value::MaxKey => {}
        Value::Number(number) => return add_number(into, number),
        Value::Text(text) => add_text(into, text),
        Value::Document(document) | Value::Array(document) => {
            for (name, value) in fields(document) {
                into.push(bracket(&value));
                // Names have no NUL.
                into.extend_from_slice(name);
                into.push(0);
                if add_value(into, &value) == Precision::Cut {
                    return Precision::Cut;
                }
            }
            into.push(END);
        }
        Value::Binary { length, subtype, data } => {
            into.extend_from_slice(&(length as u32).to_be_bytes());
            into.push(subtype);
            into.extend_from_slice(data);
        }
        Value::ObjectId(id) => into.extend_from_slice(&id),
        Value::Boolean(truth) => into.push(u8::from(truth)),
        Value::Date(date) => into.extend_from_slice(&signed(date)),
        Value::Timestamp(stamp) => into.extend_from_slice(&stamp.to_be_bytes()),
        Value::Regex { .. }
        | Value::Pointer { .. }
        | Value::Code(_)
        | Value::CodeWithScope { .. }
        | Value::Malformed(_) => return Precision::Cut,
    }
    Precision::Exact
}

fn add_text(into: &mut KeyBytes, text: &[u8]) {
    for part in text.split_inclusive(|byte| *byte == 0) {
        into.extend_from_slice(part);
        if part.ends_with(&[0]) {
            into.push(0xff);
        }
    }
    into.extend_from_slice(&[0, 0]);
}

fn add_number(into: &mut KeyBytes, number: Number) -> Precision {
    const BELOW: u8 = 0;
    const AMONG: u8 = 1;
    const ABOVE: u8 = 2;
    match number.floor() {
        Ok((floor, has_fraction)) => {
            into.push(AMONG);
            into.extend_from_slice(&signed(floor));
            into.push(u8::from(has_fraction));
            if has_fraction { Precision::Cut } else { Precision::Exact }
        }
        Err(beyond) => {
            into.push(if beyond.is_lt() { BELOW } else { ABOVE });
            Precision::Cut
        }
    }
}

/// Bytes in the order of signed integers.
fn signed(number: i64) -> [u8; 8] {
    (number as u64 ^ 1 << 63).to_be_bytes()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::model::bson_values::any_value;
    use crate::model::element::elements;
    use bson::raw::RawDocumentBuf;
    use bson::{RawBson, rawdoc};
    use proptest::collection::vec;
    use proptest::prelude::*;
    use std::cmp::Ordering;

    fn document(values: &[RawBson]) -> RawDocumentBuf {
        let mut document = RawDocumentBuf::new();
        for value in values {
            document.append(bson::cstr!(""), value.clone());
        }
        document
    }

    fn key(document: &RawDocumentBuf) -> Vec<Value<'_>> {
        elements(document.as_bytes()).map(|element| Value::take(element.kind, &mut &*element.value).unwrap()).collect()
    }

    fn bytes(key: &[Value<'_>]) -> (KeyBytes, Precision) {
        let mut bytes = KeyBytes::new();
        let precision = add_key(&mut bytes, key.iter().copied());
        (bytes, precision)
    }

    fn compare(left: &[Value<'_>], right: &[Value<'_>]) -> Ordering {
        let mut orders = left.iter().zip(right).map(|(left, right)| left.compare(right));
        orders.find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
    }

    fn check(left: &[RawBson], right: &[RawBson]) -> Result<(), TestCaseError> {
        let (left, right) = (document(left), document(right));
        let (left, right) = (key(&left), key(&right));
        let order = compare(&left, &right);
        let ((left, left_is), (right, right_is)) = (bytes(&left), bytes(&right));
        match left.cmp(&right) {
            Ordering::Equal => {
                prop_assert_eq!(left_is, right_is);
                prop_assert!(order.is_eq() || left_is == Precision::Cut);
            }
            different => prop_assert_eq!(different, order),
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn bytes_are_in_the_order_of_values(left in any_value(), right in any_value()) {
            check(&[left], &[right])?;
        }

        #[test]
        fn bytes_are_in_the_order_of_keys(left in vec(any_value(), 3), right in vec(any_value(), 3), alike in 0..3_usize) {
            let mut right = right;
            right[..alike].clone_from_slice(&left[..alike]);
            check(&left, &right)?;
        }
    }

    #[test]
    fn what_shard_keys_are_made_of_has_bytes_of_its_own() {
        let exact = |value: RawBson| bytes(&key(&document(&[value]))).1 == Precision::Exact;
        let document = rawdoc! { "a": "b", "c": [1, { "d": bson::Binary::from(bson::Uuid::from_bytes([1; 16])) }] };
        for value in [RawBson::from(1), i64::MIN.into(), (-3.0).into(), "a\0".into(), document.into(), RawBson::MaxKey]
        {
            assert!(exact(value.clone()), "{value:?}");
        }
        for value in [RawBson::from(0.5), f64::NAN.into(), 1e19.into(), rawdoc! { "a": 0.5 }.into()] {
            assert!(!exact(value.clone()), "{value:?}");
        }
    }
}
