//! Documents put together from the bytes of others: what passes through the router stays the bytes that it is.

use mongodb::bson::raw::BindRawBsonRef;
use mongodb::bson::{self, RawArray, RawBsonRef, RawDocument, RawDocumentBuf};
use mongoferry::model::element::{Element, elements};

/// A document of these elements, in their order.
pub fn document<'a>(elements: impl IntoIterator<Item = Element<'a>>) -> RawDocumentBuf {
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
    RawDocumentBuf::from_bytes(bytes).expect("it has the length that it says")
}

/// The document without fields of these names.
pub fn without(whole: &RawDocument, names: &[&str]) -> RawDocumentBuf {
    let is_named = |element: &Element<'_>| names.iter().any(|name| name.as_bytes() == element.name);
    document(elements(whole.as_bytes()).filter(|element| !is_named(element)))
}

/// The document with another name for its first field: a command's own.
pub fn renamed(whole: &RawDocument, name: &str) -> RawDocumentBuf {
    let all = elements(whole.as_bytes()).enumerate();
    document(all.map(|(at, element)| if at == 0 { Element { name: name.as_bytes(), ..element } } else { element }))
}

/// The document with a field set, behind the others when it is new.
pub fn with(whole: &RawDocument, name: &str, value: impl BindRawBsonRef) -> RawDocumentBuf {
    let mut one = RawDocumentBuf::new();
    one.append(bson::cstr!(""), value);
    let value = elements(one.as_bytes()).map(|element| Element { name: name.as_bytes(), ..element }).next();
    let is_there = field(whole, name).is_some();
    let all = elements(whole.as_bytes());
    let replaced = all.map(|element| value.filter(|_| element.name == name.as_bytes()).unwrap_or(element));
    document(replaced.chain(value.filter(|_| !is_there)))
}

/// A field of a document, whatever else is in it.
pub fn field<'a>(whole: &'a RawDocument, name: &str) -> Option<Element<'a>> {
    elements(whole.as_bytes()).find(|element| element.name == name.as_bytes())
}

/// A field's value, decoded.
pub fn value<'a>(whole: &'a RawDocument, name: &str) -> Option<RawBsonRef<'a>> {
    whole.get(name).ok().flatten()
}

/// A whole number of any numeric type.
pub fn number(whole: &RawDocument, name: &str) -> Option<i64> {
    match value(whole, name)? {
        RawBsonRef::Int32(number) => Some(number.into()),
        RawBsonRef::Int64(number) => Some(number),
        RawBsonRef::Double(number) => Some(number as i64),
        _ => None,
    }
}

/// A text.
pub fn text<'a>(whole: &'a RawDocument, name: &str) -> Option<&'a str> {
    value(whole, name).and_then(|value| value.as_str())
}

/// A flag; what is no flag is false.
pub fn is_set(whole: &RawDocument, name: &str) -> bool {
    value(whole, name).and_then(|value| value.as_bool()).unwrap_or(false)
}

/// A document within a document.
pub fn inner<'a>(whole: &'a RawDocument, name: &str) -> Option<&'a RawDocument> {
    value(whole, name).and_then(|value| value.as_document())
}

/// The documents of an array within a document; none when there is no such array.
pub fn documents(whole: &RawDocument, name: &str) -> Vec<RawDocumentBuf> {
    let array = value(whole, name).and_then(|value| value.as_array());
    let documents = |array: &RawArray| {
        let values = array.into_iter().flatten();
        values.filter_map(|value| value.as_document().map(ToOwned::to_owned)).collect()
    };
    array.map(documents).unwrap_or_default()
}
