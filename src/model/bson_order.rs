//! MongoDB's order of BSON values, across all types, on the bytes as they are.
//!
//! Ranges, cursors and chunks are intervals in this order, so it has to be the server's own, to the last bit: a value
//! that is put on the wrong side of a bound is copied twice or not at all. It is the order of simple collation, of
//! `_id` indexes and of shard keys.
//!
//! Where it is written: the manual, "Comparison/Sort Order" (`reference/bson-type-comparison-order`), and, for what the
//! manual leaves open, the server's source: `BSONElement::woCompare` and `compareElements` (`bson/bsonelement.cpp`),
//! `canonicalizeBSONType` (`bson/bsontypes.h`), `base/compare_numbers.h`. In short:
//!
//! - Types fall into brackets, see [`Value::canonical_type`]. Brackets are compared first.
//! - Numbers are compared by value, exactly, whatever their types. NaN equals NaN and is less than every other number;
//!   zeros are equal, whatever their sign and exponent.
//! - Strings and symbols share a bracket and are compared as bytes; so is code. They may hold NUL and invalid UTF-8.
//! - Documents are compared field by field: bracket, then name, then value. Whichever ends first is less. Arrays are
//!   documents here, with the names that are stored. (A *sort* or an index by a field that holds an array is another
//!   thing: it goes by the array's elements.)
//! - Binary data: shorter first, then the subtype, then the bytes. Subtype 2 counts its inner length's four bytes.
//! - DBPointers: shorter namespace first, then the bytes. Code with scope: code, then scope. Regular expressions:
//!   pattern, then options. Dates are signed, timestamps unsigned.

use bson::raw::RawDocumentBuf;
use bson::spec::BinarySubtype;
use bson::{Decimal128, RawBsonRef, RawDocument};
use std::cmp::Ordering;

/// Compares two values as the server does.
///
/// A total order in which values of different types can be equal (`1` and `1.0`). Bytes that are no BSON, which no
/// server accepts, are greater than everything that is.
pub fn compare(left: RawBsonRef<'_>, right: RawBsonRef<'_>) -> Ordering {
    match (pointer(left), pointer(right)) {
        (None, None) => Value::from(left).compare(&Value::from(right)),
        // The crate keeps the parts of a DBPointer to itself: the bytes are within a document's.
        (left_wrapped, right_wrapped) => {
            let left_wrapped = left_wrapped.unwrap_or_else(|| wrapped(left));
            let right_wrapped = right_wrapped.unwrap_or_else(|| wrapped(right));
            compare_documents(&left_wrapped, &right_wrapped)
        }
    }
}

/// Compares two documents as the server does when they are values of a field.
pub fn compare_documents(left: &RawDocument, right: &RawDocument) -> Ordering {
    elements(left.as_bytes()).cmp(right.as_bytes())
}

fn pointer(value: RawBsonRef<'_>) -> Option<RawDocumentBuf> {
    matches!(value, RawBsonRef::DbPointer(_)).then(|| wrapped(value))
}

fn wrapped(value: RawBsonRef<'_>) -> RawDocumentBuf {
    let mut document = RawDocumentBuf::new();
    document.append(bson::cstr!(""), value);
    document
}

/// A value, as far as its order needs it to be taken apart. What the server compares as bytes is bytes here, since
/// text in a server need not be valid UTF-8.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'a> {
    MinKey,
    Undefined,
    Null,
    Number(Number),
    Text(&'a [u8]),
    Document(&'a [u8]),
    Array(&'a [u8]),
    Binary {
        length: usize,
        subtype: u8,
        data: &'a [u8],
    },
    ObjectId([u8; 12]),
    Boolean(bool),
    Date(i64),
    Timestamp(u64),
    Regex {
        pattern: &'a [u8],
        options: &'a [u8],
    },
    Pointer {
        namespace: &'a [u8],
        id: &'a [u8],
    },
    Code(&'a [u8]),
    CodeWithScope {
        code: &'a [u8],
        scope: &'a [u8],
    },
    MaxKey,
    /// What is left of a document from where it is no BSON.
    Malformed(&'a [u8]),
}

impl Value<'_> {
    /// The server's canonical type, in its own numbers (`canonicalizeBSONType`): the bracket.
    pub(super) fn canonical_type(&self) -> i32 {
        match self {
            Value::MinKey => -1,
            Value::Undefined => 0,
            Value::Null => 5,
            Value::Number(_) => 10,
            Value::Text(_) => 15,
            Value::Document(_) => 20,
            Value::Array(_) => 25,
            Value::Binary { .. } => 30,
            Value::ObjectId(_) => 35,
            Value::Boolean(_) => 40,
            Value::Date(_) => 45,
            Value::Timestamp(_) => 47,
            Value::Regex { .. } => 50,
            Value::Pointer { .. } => 55,
            Value::Code(_) => 60,
            Value::CodeWithScope { .. } => 65,
            Value::MaxKey => 127,
            Value::Malformed(_) => 128,
        }
    }

    /// [`compare`], of values that were taken apart.
    pub(super) fn compare(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Value::Number(left), Value::Number(right)) => left.compare(right),
            (Value::Text(left), Value::Text(right)) => left.cmp(right),
            (Value::Document(left), Value::Document(right)) | (Value::Array(left), Value::Array(right)) => {
                elements(left).cmp(right)
            }
            (
                Value::Binary { length, subtype, data },
                Value::Binary { length: other_length, subtype: other_subtype, data: other_data },
            ) => (length, subtype, data).cmp(&(other_length, other_subtype, other_data)),
            (Value::ObjectId(left), Value::ObjectId(right)) => left.cmp(right),
            (Value::Boolean(left), Value::Boolean(right)) => left.cmp(right),
            (Value::Date(left), Value::Date(right)) => left.cmp(right),
            (Value::Timestamp(left), Value::Timestamp(right)) => left.cmp(right),
            (Value::Regex { pattern, options }, Value::Regex { pattern: other_pattern, options: other_options }) => {
                (pattern, options).cmp(&(other_pattern, other_options))
            }
            (Value::Pointer { namespace, id }, Value::Pointer { namespace: other_namespace, id: other_id }) => {
                (namespace.len(), namespace, id).cmp(&(other_namespace.len(), other_namespace, other_id))
            }
            (Value::Code(left), Value::Code(right)) => left.cmp(right),
            (Value::CodeWithScope { code, scope }, Value::CodeWithScope { code: other_code, scope: other_scope }) => {
                code.cmp(other_code).then_with(|| elements(scope).cmp(other_scope))
            }
            (Value::Malformed(left), Value::Malformed(right)) => left.cmp(right),
            _ => self.canonical_type().cmp(&other.canonical_type()),
        }
    }
}

impl<'a> From<RawBsonRef<'a>> for Value<'a> {
    fn from(value: RawBsonRef<'a>) -> Self {
        match value {
            RawBsonRef::MinKey => Value::MinKey,
            RawBsonRef::Undefined => Value::Undefined,
            RawBsonRef::Null => Value::Null,
            RawBsonRef::Int32(number) => Value::Number(Number::Integer(number.into())),
            RawBsonRef::Int64(number) => Value::Number(Number::Integer(number)),
            RawBsonRef::Double(number) => Value::Number(Number::Double(number)),
            RawBsonRef::Decimal128(number) => Value::Number(Number::decimal(number)),
            RawBsonRef::String(text) | RawBsonRef::Symbol(text) => Value::Text(text.as_bytes()),
            RawBsonRef::Document(document) => Value::Document(document.as_bytes()),
            RawBsonRef::Array(array) => Value::Array(array.as_bytes()),
            RawBsonRef::Binary(binary) => Value::binary(binary.subtype.into(), binary.bytes),
            RawBsonRef::ObjectId(id) => Value::ObjectId(id.bytes()),
            RawBsonRef::Boolean(truth) => Value::Boolean(truth),
            RawBsonRef::DateTime(date) => Value::Date(date.timestamp_millis()),
            RawBsonRef::Timestamp(stamp) => Value::Timestamp(u64::from(stamp.time) << 32 | u64::from(stamp.increment)),
            RawBsonRef::RegularExpression(regex) => {
                Value::Regex { pattern: regex.pattern.as_str().as_bytes(), options: regex.options.as_str().as_bytes() }
            }
            RawBsonRef::JavaScriptCode(code) => Value::Code(code.as_bytes()),
            RawBsonRef::JavaScriptCodeWithScope(code) => {
                Value::CodeWithScope { code: code.code.as_bytes(), scope: code.scope.as_bytes() }
            }
            RawBsonRef::MaxKey => Value::MaxKey,
            RawBsonRef::DbPointer(_) => unreachable!("`compare` takes them apart as bytes"),
        }
    }
}

impl<'a> Value<'a> {
    /// Binary data of which the inner length, that only subtype 2 has, is cut off.
    fn binary(subtype: u8, data: &'a [u8]) -> Self {
        let inner = if BinarySubtype::from(subtype) == BinarySubtype::BinaryOld { 4 } else { 0 };
        Value::Binary { length: data.len() + inner, subtype, data }
    }

    /// Takes a value of this type byte from the front of `bytes`; `None` where they are no BSON.
    pub(super) fn take(kind: u8, bytes: &mut &'a [u8]) -> Option<Self> {
        let mut rest = Bytes(bytes);
        let value = match kind {
            0x01 => Value::Number(Number::Double(f64::from_le_bytes(rest.array()?))),
            0x02 | 0x0e => Value::Text(rest.text()?),
            0x03 => Value::Document(rest.document()?),
            0x04 => Value::Array(rest.document()?),
            0x05 => {
                let length = rest.length()?;
                let [subtype] = rest.array()?;
                let data = rest.take(length)?;
                // Of subtype 2 servers also store what is too short for its inner length.
                let inner = if subtype == 2 { data.len().min(4) } else { 0 };
                Value::Binary { length, subtype, data: &data[inner..] }
            }
            0x06 => Value::Undefined,
            0x07 => Value::ObjectId(rest.array()?),
            0x08 => Value::Boolean(rest.array()? != [0]),
            0x09 => Value::Date(i64::from_le_bytes(rest.array()?)),
            0x0a => Value::Null,
            0x0b => Value::Regex { pattern: rest.cstring()?, options: rest.cstring()? },
            0x0c => Value::Pointer { namespace: rest.text()?, id: rest.take(12)? },
            0x0d => Value::Code(rest.text()?),
            0x0f => {
                rest.length()?;
                Value::CodeWithScope { code: rest.text()?, scope: rest.document()? }
            }
            0x10 => Value::Number(Number::Integer(i32::from_le_bytes(rest.array()?).into())),
            0x11 => Value::Timestamp(u64::from_le_bytes(rest.array()?)),
            0x12 => Value::Number(Number::Integer(i64::from_le_bytes(rest.array()?))),
            0x13 => Value::Number(Number::decimal(Decimal128::from_bytes(rest.array()?))),
            0xff => Value::MinKey,
            0x7f => Value::MaxKey,
            _ => return None,
        };
        *bytes = rest.0;
        Some(value)
    }
}

/// The names and values of a document's bytes, as far as they are BSON; what is left then is [`Value::Malformed`].
pub(super) fn fields(document: &[u8]) -> impl Iterator<Item = (&[u8], Value<'_>)> {
    elements(document)
}

/// The elements of a document's bytes. Unlike the crate's own iterator it does not mind invalid UTF-8.
fn elements(document: &[u8]) -> Elements<'_> {
    Elements { rest: document.get(4..).unwrap_or(document) }
}

struct Elements<'a> {
    rest: &'a [u8],
}

impl<'a> Elements<'a> {
    fn cmp(self, other: &[u8]) -> Ordering {
        let mut other = elements(other);
        for (name, value) in self {
            let Some((other_name, other_value)) = other.next() else { return Ordering::Greater };
            let order = value.canonical_type().cmp(&other_value.canonical_type());
            let order = order.then_with(|| name.cmp(other_name)).then_with(|| value.compare(&other_value));
            if order.is_ne() {
                return order;
            }
        }
        if other.next().is_some() { Ordering::Less } else { Ordering::Equal }
    }

    /// One element, `None` where the bytes are no BSON.
    fn element(&mut self) -> Option<(&'a [u8], Value<'a>)> {
        let mut rest = Bytes(self.rest);
        let [kind] = rest.array()?;
        let name = rest.cstring()?;
        let mut rest = rest.0;
        let value = Value::take(kind, &mut rest)?;
        self.rest = rest;
        Some((name, value))
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = (&'a [u8], Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        if matches!(self.rest, [] | [0]) {
            return None;
        }
        let element = self.element();
        element.or_else(|| Some((&[], Value::Malformed(std::mem::take(&mut self.rest)))))
    }
}

/// Bytes that are taken from the front.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn length(&mut self) -> Option<usize> {
        i32::from_le_bytes(self.array()?).try_into().ok()
    }

    fn cstring(&mut self) -> Option<&'a [u8]> {
        let end = self.0.iter().position(|byte| *byte == 0)?;
        let text = self.take(end)?;
        self.take(1)?;
        Some(text)
    }

    /// A string with its length before and a NUL behind it.
    fn text(&mut self) -> Option<&'a [u8]> {
        let length = self.length()?.checked_sub(1)?;
        let text = self.take(length)?;
        self.take(1)?;
        Some(text)
    }

    fn document(&mut self) -> Option<&'a [u8]> {
        let length = i32::from_le_bytes(*self.0.first_chunk()?).try_into().ok()?;
        if length < 5 {
            return None;
        }
        self.take(length)
    }
}

/// A number of any of the four types.
#[derive(Debug, Clone, Copy)]
pub(super) enum Number {
    /// Of 32 or 64 bits, and decimal zeros.
    Integer(i64),
    /// A double, and decimals that are not finite.
    Double(f64),
    /// A finite decimal that is not zero; non-canonical coefficients are zeros.
    Decimal(Decimal),
}

/// A finite decimal, `coefficient * 10^exponent`; what is not finite is a double.
#[derive(Debug, Clone, Copy)]
pub(super) struct Decimal {
    pub(super) negative: bool,
    /// Below `10^34`, and not zero.
    pub(super) coefficient: u128,
    pub(super) exponent: i32,
}

impl Number {
    /// Takes a decimal apart. IEEE 754-2008, 3.5.2, in the binary integer encoding that BSON uses.
    fn decimal(number: Decimal128) -> Self {
        const COEFFICIENT_BITS: u32 = 113;
        const BIAS: i32 = 6176;
        let bits = u128::from_le_bytes(number.bytes());
        let negative = bits >> 127 == 1;
        match bits >> 122 & 0b1_1111 {
            0b1_1111 => return Number::Double(f64::NAN),
            0b1_1110 if negative => return Number::Double(f64::NEG_INFINITY),
            0b1_1110 => return Number::Double(f64::INFINITY),
            _ => {}
        }
        let coefficient = bits & ((1 << COEFFICIENT_BITS) - 1);
        // The other form of a coefficient is for ones that do not fit 113 bits; all of those are above the maximum.
        let canonical = bits >> 125 & 0b11 != 0b11 && coefficient < 10u128.pow(34);
        if !canonical || coefficient == 0 {
            return Number::Integer(0);
        }
        let exponent = (bits >> COEFFICIENT_BITS & 0x3fff) as i32 - BIAS;
        Number::Decimal(Decimal { negative, coefficient, exponent })
    }

    /// The greatest 64-bit integer that is not above the number, and whether it is below it. Where there is none that is
    /// next to it: on which side of them the number is, NaN being less.
    pub(super) fn floor(&self) -> Result<(i64, bool), Ordering> {
        match self {
            Number::Integer(number) => Ok((*number, false)),
            Number::Double(number) if *number >= BEYOND => Err(Ordering::Greater),
            Number::Double(number) if number.is_nan() || *number < -BEYOND => Err(Ordering::Less),
            Number::Double(number) => Ok((number.floor() as i64, number.floor() != *number)),
            Number::Decimal(decimal) => {
                let (whole, rest, _) = decimal.whole_and_rest();
                let has_fraction = rest > 0;
                let whole = i128::try_from(whole).unwrap_or(i128::MAX);
                let floor = if decimal.negative { -whole - i128::from(has_fraction) } else { whole };
                let beyond = if decimal.negative { Ordering::Less } else { Ordering::Greater };
                Ok((i64::try_from(floor).map_err(|_| beyond)?, has_fraction))
            }
        }
    }

    fn compare(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Number::Integer(left), Number::Integer(right)) => left.cmp(right),
            (Number::Double(left), Number::Double(right)) => compare_doubles(*left, *right),
            (Number::Decimal(left), Number::Decimal(right)) => left.compare(right),
            (Number::Integer(left), Number::Double(right)) => compare_integer_with_double(*left, *right),
            (Number::Double(left), Number::Integer(right)) => compare_integer_with_double(*right, *left).reverse(),
            (Number::Decimal(left), Number::Integer(right)) => left.compare_with_integer(*right),
            (Number::Integer(left), Number::Decimal(right)) => right.compare_with_integer(*left).reverse(),
            (Number::Decimal(left), Number::Double(right)) => left.compare_with_double(*right),
            (Number::Double(left), Number::Decimal(right)) => right.compare_with_double(*left).reverse(),
        }
    }
}

/// 2^63, the first double that is no 64-bit integer. The one below -2^63 is the first on the other side.
const BEYOND: f64 = 9_223_372_036_854_775_808.0;

fn compare_doubles(left: f64, right: f64) -> Ordering {
    match left.partial_cmp(&right) {
        Some(order) => order,
        None => right.is_nan().cmp(&left.is_nan()),
    }
}

/// Exact: an `i64` as a double loses its last bits beyond 2^53.
fn compare_integer_with_double(left: i64, right: f64) -> Ordering {
    if right.is_nan() {
        return Ordering::Greater;
    }
    if right >= BEYOND {
        return Ordering::Less;
    }
    if right < -BEYOND {
        return Ordering::Greater;
    }
    // Both fit: the cast drops the fraction, and only that.
    let whole = right.trunc();
    left.cmp(&(whole as i64)).then_with(|| compare_doubles(whole, right))
}

impl Decimal {
    /// The magnitude's whole part, which ends at 2^128, and what is left of it, in parts of so many.
    pub(super) fn whole_and_rest(&self) -> (u128, u128, u128) {
        match 10u128.checked_pow(self.exponent.unsigned_abs()) {
            Some(power) if self.exponent >= 0 => (self.coefficient.saturating_mul(power), 0, 1),
            None if self.exponent >= 0 => (u128::MAX, 0, 1),
            Some(power) => (self.coefficient / power, self.coefficient % power, power),
            // Less than 10^34 / 10^38: next to nothing, and not nothing.
            None => (0, 1, u128::MAX),
        }
    }

    fn compare(&self, other: &Self) -> Ordering {
        match (self.negative, other.negative) {
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            (false, false) => self.compare_magnitude(other),
            (true, true) => self.compare_magnitude(other).reverse(),
        }
    }

    fn compare_magnitude(&self, other: &Self) -> Ordering {
        let order = self.ends_at().cmp(&other.ends_at());
        // The same number of digits before the point: the larger exponent has the fewer digits, at most 33 of them
        // missing, so filling them up with zeros fits 128 bits.
        order.then_with(|| {
            let common = self.exponent.min(other.exponent);
            let filled = |decimal: &Self| decimal.coefficient * 10u128.pow((decimal.exponent - common).unsigned_abs());
            filled(self).cmp(&filled(other))
        })
    }

    /// The number is below `10^ends_at` and not below `10^(ends_at - 1)`.
    fn ends_at(&self) -> i32 {
        self.coefficient.ilog10() as i32 + 1 + self.exponent
    }

    fn compare_with_integer(&self, other: i64) -> Ordering {
        if other == 0 {
            return if self.negative { Ordering::Less } else { Ordering::Greater };
        }
        self.compare(&Decimal { negative: other < 0, coefficient: other.unsigned_abs().into(), exponent: 0 })
    }

    fn compare_with_double(&self, other: f64) -> Ordering {
        if other.is_nan() {
            return Ordering::Greater;
        }
        match (self.negative, other < 0.0) {
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            (false, false) => self.compare_magnitude_with_double(other),
            (true, true) => self.compare_magnitude_with_double(-other).reverse(),
        }
    }

    /// `other` is not negative, and not NaN.
    fn compare_magnitude_with_double(&self, other: f64) -> Ordering {
        // Doubles other than zero and infinity are within 10^-324 and 10^309; the long way takes less than that.
        if other == 0.0 || self.ends_at() > 310 {
            return if other.is_infinite() { Ordering::Less } else { Ordering::Greater };
        }
        if other.is_infinite() || self.ends_at() < -330 {
            return Ordering::Less;
        }
        let bits = other.to_bits();
        let (fraction, exponent) = (bits & ((1 << 52) - 1), (bits >> 52) as i32);
        // Subnormal numbers have the exponent of the smallest normal ones and no leading one.
        let (significand, exponent) =
            if exponent == 0 { (fraction, -1074) } else { (fraction | 1 << 52, exponent - 1075) };
        // coefficient * 10^e against significand * 2^f, with the negative powers moved to the other side.
        let left = Natural::new(self.coefficient)
            .times_power(10, self.exponent.max(0).unsigned_abs())
            .times_power(2, exponent.min(0).unsigned_abs());
        let right = Natural::new(significand.into())
            .times_power(10, self.exponent.min(0).unsigned_abs())
            .times_power(2, exponent.max(0).unsigned_abs());
        left.compare(&right)
    }
}

/// A natural number of any size: 32-bit digits, the least first, none of them zero at the end.
struct Natural(Vec<u32>);

impl Natural {
    fn new(mut number: u128) -> Self {
        let mut digits = Vec::with_capacity(80);
        while number > 0 {
            digits.push(number as u32);
            number >>= 32;
        }
        Self(digits)
    }

    fn times_power(mut self, base: u32, exponent: u32) -> Self {
        for _ in 0..exponent {
            let mut carry = 0;
            for digit in &mut self.0 {
                let product = u64::from(*digit) * u64::from(base) + carry;
                *digit = product as u32;
                carry = product >> 32;
            }
            if carry > 0 {
                self.0.push(carry as u32);
            }
        }
        self
    }

    fn compare(&self, other: &Self) -> Ordering {
        self.0.len().cmp(&other.0.len()).then_with(|| self.0.iter().rev().cmp(other.0.iter().rev()))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::model::bson_values::any_value;
    use bson::oid::ObjectId;
    use bson::{Binary, DateTime, RawBson, Timestamp, rawdoc};
    use proptest::prelude::*;

    fn ordered(values: &[RawBson]) {
        for (i, left) in values.iter().enumerate() {
            for (j, right) in values.iter().enumerate() {
                let found = compare(left.as_raw_bson_ref(), right.as_raw_bson_ref());
                assert_eq!(found, i.cmp(&j), "{left:?} against {right:?}");
            }
        }
    }

    fn equal(values: &[RawBson]) {
        for left in values {
            for right in values {
                let found = compare(left.as_raw_bson_ref(), right.as_raw_bson_ref());
                assert_eq!(found, Ordering::Equal, "{left:?} against {right:?}");
            }
        }
    }

    fn decimal(text: &str) -> RawBson {
        RawBson::Decimal128(text.parse().unwrap())
    }

    fn binary(subtype: u8, bytes: &[u8]) -> RawBson {
        RawBson::Binary(Binary { subtype: subtype.into(), bytes: bytes.to_vec() })
    }

    #[test]
    fn the_brackets_are_in_the_servers_order() {
        let pointer = pointer_document("a").iter().next().unwrap().unwrap().1.into();
        ordered(&[
            RawBson::MinKey,
            RawBson::Undefined,
            RawBson::Null,
            RawBson::Int32(0),
            RawBson::String(String::new()),
            RawBson::Symbol("a".into()),
            rawdoc! {}.into(),
            bson::rawbson!([]),
            binary(0, b""),
            RawBson::ObjectId(ObjectId::from_bytes([0; 12])),
            false.into(),
            true.into(),
            DateTime::MIN.into(),
            DateTime::from_millis(-1).into(),
            DateTime::from_millis(0).into(),
            Timestamp { time: 0, increment: 5 }.into(),
            Timestamp { time: u32::MAX, increment: 0 }.into(),
            RawBson::RegularExpression(bson::Regex {
                pattern: bson::cstr!("a").into(),
                options: bson::cstr!("").into(),
            }),
            pointer,
            RawBson::JavaScriptCode("a".into()),
            RawBson::JavaScriptCodeWithScope(bson::RawJavaScriptCodeWithScope { code: "a".into(), scope: rawdoc! {} }),
            RawBson::MaxKey,
        ]);
    }

    fn pointer_document(namespace: &str) -> RawDocumentBuf {
        let mut bytes = vec![0, 0, 0, 0, 0x0c, b'p', 0];
        bytes.extend((namespace.len() as i32 + 1).to_le_bytes());
        bytes.extend(namespace.as_bytes());
        bytes.extend([0; 14]);
        let length = bytes.len() as i32;
        bytes[..4].copy_from_slice(&length.to_le_bytes());
        RawDocumentBuf::from_bytes(bytes).unwrap()
    }

    #[test]
    fn the_shorter_pointer_comes_first() {
        assert_eq!(compare_documents(&pointer_document("z"), &pointer_document("aa")), Ordering::Less);
        assert_eq!(compare_documents(&pointer_document("b"), &pointer_document("a")), Ordering::Greater);
    }

    #[test]
    fn numbers_are_compared_by_value_exactly() {
        let two_to_53 = 1i64 << 53;
        ordered(&[
            f64::NAN.into(),
            f64::NEG_INFINITY.into(),
            decimal("-1E+6144"),
            f64::MIN.into(),
            decimal("-1E+20"),
            i64::MIN.into(),
            (i64::MIN + 1).into(),
            decimal("-0.1000000000000000055511151231257828"),
            (-0.1).into(),
            decimal("-0.1"),
            (-5e-324).into(),
            decimal("-4.9E-324"),
            decimal("-1E-6176"),
            0.into(),
            decimal("1E-6176"),
            decimal("4.940656458412465441765687928682213E-324"),
            5e-324.into(),
            decimal("4.940656458412465441765687928682214E-324"),
            decimal("0.1"),
            0.1.into(), // 0.1000000000000000055511151231257827021...
            decimal("0.1000000000000000055511151231257828"),
            (two_to_53 as f64).into(),
            (two_to_53 + 1).into(),
            ((two_to_53 + 2) as f64).into(),
            (i64::MAX - 1).into(),
            i64::MAX.into(),
            (i64::MAX as f64).into(),
            decimal("9223372036854775808.5"),
            1e300.into(),
            f64::MAX.into(),
            decimal("1.797693134862315708145274237317044E+308"),
            decimal("9.999999999999999999999999999999999E+6144"),
            f64::INFINITY.into(),
            "".into(),
        ]);
        equal(&[
            0.into(),
            0i64.into(),
            0.0.into(),
            (-0.0).into(),
            decimal("0"),
            decimal("-0E+100"),
            decimal("0E-6176"),
        ]);
        equal(&[1.into(), 1i64.into(), 1.0.into(), decimal("1"), decimal("1.000"), decimal("0.1E1")]);
        equal(&[0.5.into(), decimal("0.5"), decimal("5000E-4")]);
        equal(&[1e22.into(), decimal("1E22")]);
        equal(&[f64::NAN.into(), f64::from_bits(0xfff8_0000_dead_beef).into(), decimal("NaN")]);
        equal(&[f64::INFINITY.into(), decimal("Infinity")]);
        equal(&[f64::NEG_INFINITY.into(), decimal("-Infinity")]);
    }

    #[test]
    fn a_coefficient_above_the_maximum_is_zero() {
        let above = (6176u128 << 113) | 10u128.pow(34);
        let other_form = 0b11u128 << 125;
        let of = |bits: u128| RawBson::Decimal128(Decimal128::from_bytes(bits.to_le_bytes()));
        equal(&[0.into(), of(above), of(other_form), of(other_form | 1 << 127)]);
        ordered(&[0.into(), of(above - 1)]);
    }

    #[test]
    fn strings_are_bytes() {
        ordered(&[
            "".into(),
            "A".into(),
            "a".into(),
            "a\0".into(),
            "a\0b".into(),
            "aa".into(),
            "\u{ffff}".into(),
            "\u{10000}".into(),
        ]);
        equal(&["a".into(), RawBson::Symbol("a".into())]);
    }

    #[test]
    fn documents_are_compared_by_bracket_then_name_then_value() {
        ordered(&[
            rawdoc! {}.into(),
            rawdoc! { "z": RawBson::MinKey }.into(),
            rawdoc! { "a": 1 }.into(),
            rawdoc! { "a": 1, "b": 1 }.into(),
            rawdoc! { "a": 2 }.into(),
            rawdoc! { "b": 1 }.into(),
            rawdoc! { "a": "x" }.into(),
            rawdoc! { "a": { "b": 1 } }.into(),
            rawdoc! { "a": { "b": "x" } }.into(),
            rawdoc! { "a": [1] }.into(),
        ]);
        equal(&[rawdoc! { "a": 1 }.into(), rawdoc! { "a": 1.0 }.into()]);
    }

    #[test]
    fn binary_data_is_compared_by_length_then_subtype_then_bytes() {
        ordered(&[
            binary(0, b"b"),
            binary(5, b"a"),
            binary(0, b"aaaa"),
            binary(2, b"a"), // five bytes as it is stored
            binary(128, b"zzzzz"),
        ]);
    }

    #[test]
    fn invalid_utf8_is_compared_like_everything_else() {
        let text =
            |byte: u8| RawDocumentBuf::from_bytes(vec![14, 0, 0, 0, 2, byte, 0, 2, 0, 0, 0, byte, 0, 0]).unwrap();
        assert_eq!(compare_documents(&text(0xfe), &text(0xff)), Ordering::Less);
        assert_eq!(compare_documents(&text(b'a'), &text(0xff)), Ordering::Less);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn it_is_a_total_order(a in any_value(), b in any_value(), c in any_value()) {
            let by = |left: &RawBson, right: &RawBson| compare(left.as_raw_bson_ref(), right.as_raw_bson_ref());
            prop_assert_eq!(by(&a, &a), Ordering::Equal);
            prop_assert_eq!(by(&a, &b), by(&b, &a).reverse());
            let mut sorted = [&a, &b, &c];
            sorted.sort_by(|left, right| by(left, right));
            prop_assert_ne!(by(sorted[0], sorted[2]), Ordering::Greater);
            if by(&a, &b).is_eq() {
                prop_assert_eq!(by(&a, &c), by(&b, &c));
            }
        }

        #[test]
        fn within_documents_the_order_is_the_same(a in any_value(), b in any_value()) {
            let outside = compare(a.as_raw_bson_ref(), b.as_raw_bson_ref());
            let inside = compare_documents(&wrapped(a.as_raw_bson_ref()), &wrapped(b.as_raw_bson_ref()));
            prop_assert_eq!(outside, inside);
        }

        #[test]
        fn integers_and_doubles_agree_with_decimals(number in any::<i64>(), double in any::<i64>().prop_map(|n| n as f64 / 1024.0)) {
            // With 34 digits, every such double is a decimal exactly.
            let exact: Decimal128 = format!("{double:.10}").parse().unwrap();
            let double = RawBsonRef::Double(double);
            prop_assert_eq!(compare(double, RawBsonRef::Decimal128(exact)), Ordering::Equal);
            let number = RawBsonRef::Int64(number);
            prop_assert_eq!(compare(number, double), compare(number, RawBsonRef::Decimal128(exact)));
        }

        #[test]
        fn bytes_that_are_no_bson_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..40), other in proptest::collection::vec(any::<u8>(), 0..40)) {
            let there = elements(&bytes).cmp(&other);
            prop_assert_eq!(there, elements(&other).cmp(&bytes).reverse());
        }
    }
}
