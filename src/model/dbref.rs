//! DBRefs in documents follow renames.
//!
//! A DBRef is an embedded document that begins with the fields `$ref`, `$id` and perhaps `$db`, in this order: the name of a
//! collection, the `_id` of a document in it, and the name of its database, without which it is that of the document it is in
//! (<https://www.mongodb.com/docs/manual/reference/database-references/>). No server knows of them, only drivers and
//! applications. They are changed on the bytes: everything around them stays byte for byte, whatever a strict decoder would
//! say of it, and the lengths of what encloses them are mended.
//!
//! `_id` itself stays as it is, since it is what a document is found by. So does what is not a document of its own to BSON: the
//! scope of a function, and the columns of a time series.

use super::element::{Element, document_of, elements, kind};
use super::job::Selection;
use super::namespace::Namespace;
use super::renames::Renames;
use memchr::memmem;

/// What the DBRefs in the documents of one collection become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DbRefs {
    /// The collection on the source.
    from: Namespace,
    /// Its database on the target.
    home: String,
    renames: Renames,
}

impl DbRefs {
    /// In documents of this collection of the source. None where they stay as they are: nothing is renamed, nobody asked
    /// for it, or they are buckets.
    pub fn of(from: &Namespace, selection: &Selection) -> Option<Self> {
        let Selection { renames, rename_dbrefs, .. } = selection;
        let are_changed = *rename_dbrefs && !renames.is_empty() && from.time_series().is_none();
        are_changed.then(|| Self {
            from: from.clone(),
            home: renames.apply(from).db().to_owned(),
            renames: renames.clone(),
        })
    }

    /// A document in which they follow. None where nothing changes, and where the bytes are no BSON.
    pub fn renamed(&self, document: &[u8]) -> Option<Vec<u8>> {
        // Most documents have none, and need not be taken apart.
        memmem::find(document, b"\x02$ref\0")?;
        let mut all = elements(document);
        let fields: Vec<Element<'_>> = all.by_ref().collect();
        let values = fields.iter().map(|field| if field.name == b"_id" { None } else { self.within(field) }).collect();
        if all.is_whole() { put_together(&fields, values, None) } else { None }
    }

    /// What becomes of a value.
    fn within(&self, element: &Element<'_>) -> Option<Vec<u8>> {
        if element.kind != kind::DOCUMENT && element.kind != kind::ARRAY {
            return None;
        }
        let mut all = elements(element.value);
        let fields: Vec<Element<'_>> = all.by_ref().collect();
        if !all.is_whole() {
            return None;
        }
        let mut values: Vec<Option<Vec<u8>>> = fields.iter().map(|field| self.within(field)).collect();
        let mut database = None;
        if element.kind == kind::DOCUMENT
            && let Some(reference) = Reference::of(&fields)
        {
            let db = reference.db.unwrap_or(self.from.db());
            let to = self.renames.apply(&Namespace::new(db, reference.collection));
            if to.collection() != reference.collection {
                values[0] = Some(string(to.collection()));
            }
            match reference.db {
                Some(db) if db != to.db() => values[2] = Some(string(to.db())),
                None if to.db() != self.home => database = Some(string(to.db())),
                _ => {}
            }
        }
        put_together(&fields, values, database)
    }
}

/// What a DBRef names.
struct Reference<'a> {
    collection: &'a str,
    db: Option<&'a str>,
}

impl<'a> Reference<'a> {
    /// The one that a document with these fields is. A name that is no UTF-8 is no collection's that could be renamed.
    fn of(fields: &[Element<'a>]) -> Option<Self> {
        let [reference, id, rest @ ..] = fields else { return None };
        if reference.name != b"$ref" || id.name != b"$id" {
            return None;
        }
        let db = match rest.first() {
            Some(db) if db.name == b"$db" => Some(text(db)?),
            _ => None,
        };
        Some(Self { collection: text(reference)?, db })
    }
}

/// A text that is not empty.
fn text<'a>(element: &Element<'a>) -> Option<&'a str> {
    let bytes = element.value.get(4..)?.strip_suffix(&[0]).filter(|bytes| !bytes.is_empty())?;
    if element.kind == kind::STRING { std::str::from_utf8(bytes).ok() } else { None }
}

/// The value of a text.
fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u32 + 1).to_le_bytes(), text.as_bytes(), &[0]].concat()
}

/// A document of these fields with those of the values that are others, and the database behind a DBRef's `$id`. None
/// where all stays as it is.
fn put_together(fields: &[Element<'_>], values: Vec<Option<Vec<u8>>>, database: Option<Vec<u8>>) -> Option<Vec<u8>> {
    if database.is_none() && values.iter().all(Option::is_none) {
        return None;
    }
    let changed = |(field, value)| {
        let (field, value): (&Element<'_>, &Option<Vec<u8>>) = (field, value);
        Element { value: value.as_deref().unwrap_or(field.value), ..*field }
    };
    let mut elements: Vec<Element<'_>> = fields.iter().zip(&values).map(changed).collect();
    if let Some(value) = &database {
        elements.insert(2, Element { kind: kind::STRING, name: b"$db", value });
    }
    Some(document_of(elements.into_iter()))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use bson::{Bson, Document, RawDocumentBuf, doc};
    use proptest::prelude::*;

    fn dbrefs(from: &str, renames: &[&str]) -> Option<DbRefs> {
        let renames = Renames::parse(renames.iter().copied()).unwrap();
        let selection = Selection { renames, rename_dbrefs: true, ..Selection::default() };
        DbRefs::of(&Namespace::parse(from).unwrap(), &selection)
    }

    fn bytes(document: &Document) -> Vec<u8> {
        RawDocumentBuf::try_from(document).unwrap().into_bytes()
    }

    fn decoded(bytes: Vec<u8>) -> Document {
        Document::try_from(RawDocumentBuf::from_bytes(bytes).unwrap()).unwrap()
    }

    /// What becomes of a document of `shop.a`, none where nothing does.
    fn renamed(renames: &[&str], document: &Document) -> Option<Document> {
        dbrefs("shop.a", renames).unwrap().renamed(&bytes(document)).map(decoded)
    }

    #[test]
    fn a_reference_follows_wherever_it_is() {
        let reference = |name: &str| doc! { "$ref": name, "$id": 1 };
        let within = |name: &str| {
            doc! {
                "_id": 1, "one": reference(name), "many": [1, reference(name), [reference(name)]],
                "deep": { "a": { "b": [{ "c": reference(name) }] } }, "text": "b",
                "more": { "$ref": name, "$id": { "of": reference(name) }, "extra": reference(name) },
            }
        };
        assert_eq!(renamed(&["shop.b:shop.c"], &within("b")), Some(within("c")));
        assert_eq!(renamed(&["shop.b:shop.c"], &within("d")), None);
    }

    #[test]
    fn a_database_is_named_where_it_is_another_one() {
        let plain = doc! { "r": { "$ref": "b", "$id": 1, "x": 2 } };
        let named = |db: &str| doc! { "r": { "$ref": "b", "$id": 1, "$db": db, "x": 2 } };
        for (renames, from, to) in [
            // Both move: nothing has to be said.
            (&["shop:store"] as &[&str], plain.clone(), None),
            // The document moves and what it names stays; the other way round.
            (&["shop.a:store.a"], plain.clone(), Some(named("shop"))),
            (&["shop.b:store.b"], plain.clone(), Some(named("store"))),
            // What is named follows by itself.
            (&["shop:store"], named("shop"), Some(named("store"))),
            (&["other:store"], named("other"), Some(named("store"))),
            (&["shop:store"], named("other"), None),
            // Two that swap.
            (&["shop:other", "other:shop"], named("other"), Some(named("shop"))),
        ] {
            assert_eq!(renamed(renames, &from), to, "{renames:?} {from}");
        }
        let swapped = doc! { "r": [{ "$ref": "c", "$id": 1 }, { "$ref": "b", "$id": 2 }] };
        let found = doc! { "r": [{ "$ref": "b", "$id": 1 }, { "$ref": "c", "$id": 2 }] };
        assert_eq!(renamed(&["shop.b:shop.c", "shop.c:shop.b"], &found), Some(swapped));
    }

    #[test]
    fn what_is_no_reference_stays() {
        for value in [
            Bson::from(doc! { "$id": 1, "$ref": "b" }),
            doc! { "a": 1, "$ref": "b", "$id": 1 }.into(),
            doc! { "$ref": "b" }.into(),
            doc! { "$ref": "b", "x": 1, "$id": 1 }.into(),
            doc! { "$ref": 1, "$id": 1, "$db": "shop" }.into(),
            doc! { "$ref": "b", "$id": 1, "$db": 7 }.into(),
            doc! { "$ref": "", "$id": 1 }.into(),
            Bson::from("\u{2}$ref"),
        ] {
            assert_eq!(renamed(&["shop.b:store.c"], &doc! { "r": value.clone() }), None, "{value}");
        }
        // Neither the `_id`, which a document is found by, nor a document as a whole.
        assert_eq!(renamed(&["shop.b:store.c"], &doc! { "_id": { "r": { "$ref": "b", "$id": 1 } } }), None);
        assert_eq!(renamed(&["shop.b:store.c"], &doc! { "$ref": "b", "$id": 1 }), None);
    }

    #[test]
    fn nothing_changes_without_renames_or_unasked_or_in_buckets() {
        assert_eq!(dbrefs("shop.a", &[]), None);
        assert_eq!(dbrefs("shop.system.buckets.a", &["shop:store"]), None);
        let renames = Renames::parse(["shop:store"]).unwrap();
        let selection = Selection { renames, ..Selection::default() };
        assert_eq!(DbRefs::of(&Namespace::new("shop", "a"), &selection), None);
    }

    /// Servers store what a strict decoder rejects.
    #[test]
    fn what_surrounds_a_reference_stays_byte_for_byte() {
        let odd: Vec<Element<'_>> = vec![
            Element { kind: kind::STRING, name: b"\xff", value: b"\x02\0\0\0\xfe\0" },
            Element { kind: kind::DOUBLE, name: b"twice", value: &[1, 0, 0, 0, 0, 0, 0xf8, 0x7f] },
            Element { kind: kind::DOUBLE, name: b"twice", value: &[2, 0, 0, 0, 0, 0, 0xf8, 0xff] },
        ];
        let reference = |name: &str| bytes(&doc! { "$ref": name, "$id": 1 });
        let document = |name: &str| {
            let reference = reference(name);
            // An array whose elements are not numbered.
            let array = document_of([Element { kind: kind::DOCUMENT, name: b"7", value: &reference }].into_iter());
            let inner = Element { kind: kind::ARRAY, name: b"r", value: &array };
            document_of(odd.iter().copied().chain([inner]).chain(odd.iter().copied()))
        };
        let dbrefs = dbrefs("shop.a", &["shop.b:shop.a longer name"]).unwrap();
        assert_eq!(dbrefs.renamed(&document("b")), Some(document("a longer name")));
        let invalid = b"\x02\0\0\0\xfe\0";
        let invalid = document_of(
            [
                Element { kind: kind::STRING, name: b"$ref", value: invalid },
                Element { kind: kind::NULL, name: b"$id", value: &[] },
            ]
            .into_iter(),
        );
        let invalid = document_of([Element { kind: kind::DOCUMENT, name: b"r", value: &invalid }].into_iter());
        assert_eq!(dbrefs.renamed(&invalid), None);
    }

    /// The same, on decoded values.
    fn expected(dbrefs: &DbRefs, value: Bson) -> Bson {
        match value {
            Bson::Array(values) => Bson::Array(values.into_iter().map(|value| expected(dbrefs, value)).collect()),
            Bson::Document(document) => {
                let names: Vec<String> = document.keys().cloned().collect();
                let mut document: Document =
                    document.into_iter().map(|(name, value)| (name, expected(dbrefs, value))).collect();
                let is_reference = names.len() >= 2 && names[0] == "$ref" && names[1] == "$id";
                let (true, Ok(collection)) = (is_reference, document.get_str("$ref")) else { return document.into() };
                let db = document.get_str("$db").ok();
                let to = dbrefs.renames.apply(&Namespace::new(db.unwrap_or("shop"), collection));
                if db.is_some() || to.db() != dbrefs.home {
                    document.insert("$db", to.db());
                }
                document.insert("$ref", to.collection());
                document.into()
            }
            other => other,
        }
    }

    fn value() -> impl Strategy<Value = Bson> {
        let leaf = prop_oneof![
            any::<i32>().prop_map(Bson::Int32),
            "[a-c]{0,3}".prop_map(Bson::String),
            Just(Bson::Null),
            ("[a-d]", any::<bool>(), "shop|other|third").prop_map(|(name, has_db, db)| {
                let mut reference = doc! { "$ref": name, "$id": 1 };
                if has_db {
                    reference.insert("$db", db);
                }
                reference.into()
            }),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Bson::Array),
                prop::collection::vec(("[a-e]", inner.clone()), 0..4)
                    .prop_map(|fields| Bson::Document(fields.into_iter().collect())),
                ("[a-d]", inner).prop_map(|(name, id)| doc! { "$ref": name, "$id": id }.into()),
            ]
        })
    }

    proptest! {
        #[test]
        fn bytes_become_what_values_would(
            values in prop::collection::vec(("[a-e]", value()), 0..5),
            renames in prop::collection::btree_map(
                prop_oneof![Just("shop.a"), Just("shop.b"), Just("other.a"), Just("third.c")], "(shop|store|other)\\.[a-z ]{0,9}[x-z]", 1..4),
        ) {
            let renames: Vec<String> = renames.iter().map(|(from, to)| format!("{from}:{to}")).collect();
            let dbrefs = dbrefs("shop.a", &renames.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
            let document: Document = values.into_iter().collect();
            let wanted: Document =
                document.clone().into_iter().map(|(name, value)| (name, expected(&dbrefs, value))).collect();
            let found = dbrefs.renamed(&bytes(&document));
            prop_assert_eq!(found.is_none(), bytes(&wanted) == bytes(&document));
            prop_assert_eq!(bytes(&decoded(found.unwrap_or_else(|| bytes(&document)))), bytes(&wanted));
        }

        #[test]
        fn bytes_that_are_no_document_do_no_harm(bytes in any::<Vec<u8>>()) {
            let _ = dbrefs("shop.a", &["shop:store"]).unwrap().renamed(&[&bytes[..], b"\x02$ref\0"].concat());
        }
    }
}
