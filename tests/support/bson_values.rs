//! Values of every BSON type, with those preferred that are close to each other: neighbours are where an order goes
//! wrong.

use bson::oid::ObjectId;
use bson::raw::CString;
use bson::spec::BinarySubtype;
use bson::{
    Binary, DateTime, Decimal128, RawArrayBuf, RawBson, RawDocumentBuf, RawJavaScriptCodeWithScope, Regex, Timestamp,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// Any value, nested up to three levels.
pub fn any_value() -> impl Strategy<Value = RawBson> {
    scalar().prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            fields(inner.clone()).prop_map(RawBson::Document),
            vec(inner.clone(), 0..4).prop_map(|values| RawBson::Array(RawArrayBuf::from_iter(values))),
            (text(), fields(inner)).prop_map(|(code, scope)| {
                RawBson::JavaScriptCodeWithScope(RawJavaScriptCodeWithScope { code, scope })
            }),
        ]
    })
}

fn fields(values: impl Strategy<Value = RawBson>) -> impl Strategy<Value = RawDocumentBuf> {
    vec((select(vec!["", "a", "b", "aa", "A", "é", "0"]), values), 0..4).prop_map(|fields| {
        let mut document = RawDocumentBuf::new();
        for (name, value) in fields {
            document.append(cstring(name.into()), value);
        }
        document
    })
}

fn scalar() -> impl Strategy<Value = RawBson> {
    prop_oneof![
        2 => select(vec![RawBson::MinKey, RawBson::MaxKey, RawBson::Null, RawBson::Undefined, false.into(), true.into()]),
        8 => number(),
        3 => text().prop_map(RawBson::String),
        1 => text().prop_map(RawBson::Symbol),
        1 => text().prop_map(RawBson::JavaScriptCode),
        2 => (select(vec![0u8, 2, 3, 4, 5, 128, 255]), vec(select(vec![0u8, 1, 127, 128, 255]), 0..6))
            .prop_map(|(subtype, bytes)| RawBson::Binary(Binary { subtype: BinarySubtype::from(subtype), bytes })),
        1 => any::<[u8; 12]>().prop_map(|bytes| RawBson::ObjectId(ObjectId::from_bytes(bytes))),
        1 => near_integer().prop_map(|millis| RawBson::DateTime(DateTime::from_millis(millis))),
        1 => near_integer().prop_map(|bits| {
            RawBson::Timestamp(Timestamp { time: (bits >> 32) as u32, increment: bits as u32 })
        }),
        1 => (text(), select(vec!["", "i", "im", "m", "s", "x"])).prop_map(|(pattern, options)| {
            let pattern = cstring(pattern.replace('\0', ""));
            RawBson::RegularExpression(Regex { pattern, options: cstring(options.into()) })
        }),
        // No namespace holds a NUL, and a server's own ways of comparing do not agree on what follows one.
        1 => (text(), any::<[u8; 12]>()).prop_map(|(namespace, id)| pointer(&namespace.replace('\0', ""), id)),
    ]
}

fn cstring(text: String) -> CString {
    CString::try_from(text).expect("has no NUL")
}

/// The crate has no way to make one but from bytes.
fn pointer(namespace: &str, id: [u8; 12]) -> RawBson {
    let mut bytes = vec![0, 0, 0, 0, 0x0c, 0];
    bytes.extend((namespace.len() as i32 + 1).to_le_bytes());
    bytes.extend(namespace.as_bytes());
    bytes.push(0);
    bytes.extend(id);
    bytes.push(0);
    let length = bytes.len() as i32;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    let document = RawDocumentBuf::from_bytes(bytes).expect("has the length that it says");
    let value = document.iter().next().expect("has one element").expect("which is a pointer").1;
    value.into()
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => vec(select(vec!['a', 'b', 'A', '\0', '\u{7f}', 'é', '\u{ffff}', '\u{10000}']), 0..4)
            .prop_map(String::from_iter),
        1 => any::<String>(),
    ]
}

/// Integers around those where another type ends.
fn near_integer() -> impl Strategy<Value = i64> {
    let edges = vec![0, 1 << 31, 1 << 32, 1 << 52, 1 << 53, 1 << 54, 1 << 62, i64::MAX, 10i64.pow(15), 10i64.pow(18)];
    prop_oneof![
        4 => (select(edges), -3..=3i64, any::<bool>()).prop_map(|(edge, off, negative)| {
            let number = edge.wrapping_add(off);
            if negative { number.wrapping_neg() } else { number }
        }),
        1 => any::<i64>(),
    ]
}

fn near_double() -> impl Strategy<Value = f64> {
    prop_oneof![
        3 => (near_integer(), -2..=2i64).prop_map(|(number, off)| {
            f64::from_bits((number as f64).to_bits().wrapping_add_signed(off))
        }),
        2 => (-40..40i64, 1..64i64).prop_map(|(above, below)| above as f64 / below as f64),
        2 => any::<u64>().prop_map(f64::from_bits),
        1 => (0..4u64, any::<bool>()).prop_map(|(bits, negative)| f64::from_bits(bits | u64::from(negative) << 63)),
        1 => select(vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, f64::MIN, f64::MIN_POSITIVE, 0.1, 1e22]),
    ]
}

/// Numbers of all types; the decimals among them are often those of an integer or a double, or next to them.
fn number() -> impl Strategy<Value = RawBson> {
    prop_oneof![
        any::<i32>().prop_map(RawBson::Int32),
        (-3..=3i32).prop_map(RawBson::Int32),
        near_integer().prop_map(RawBson::Int64),
        near_double().prop_map(RawBson::Double),
        decimal().prop_map(RawBson::Decimal128),
    ]
}

fn decimal() -> impl Strategy<Value = Decimal128> {
    let parsed = |text: String| text.parse().ok();
    prop_oneof![
        (near_integer(), 0..4usize, -1..=1i128).prop_filter_map("a decimal", move |(number, zeros, off)| {
            let scaled = i128::from(number) * 10i128.pow(zeros as u32) + off;
            parsed(format!("{scaled}E-{zeros}"))
        }),
        (near_double(), 0..34usize)
            .prop_filter_map("a decimal", move |(number, digits)| { parsed(format!("{number:.digits$E}")) }),
        (any::<i64>(), -6176..6111i32)
            .prop_filter_map("a decimal", move |(number, exponent)| { parsed(format!("{number}E{exponent}")) }),
        // Any bits at all: NaNs with payloads, coefficients above the maximum, both forms.
        any::<[u8; 16]>().prop_map(Decimal128::from_bytes),
        select(vec!["0", "-0", "0E+6111", "0E-6176", "1E-6176", "-1E-6176", "NaN", "-Infinity", "Infinity"])
            .prop_filter_map("a decimal", move |text| parsed(text.into())),
    ]
}
