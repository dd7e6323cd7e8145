//! `Timestamp(0, 0)`, which a server replaces with its present time in the fields of a document that is inserted or
//! replaced: at the top level, but not in `_id`, and not when nested
//! (<https://www.mongodb.com/docs/manual/reference/bson-types/#timestamps>).

use super::element::{elements, kind};

/// Whether a server would replace a timestamp of this document.
pub fn has_empty_timestamp(document: &[u8]) -> bool {
    elements(document)
        .any(|element| element.kind == kind::TIMESTAMP && element.value == [0; 8] && element.name != b"_id")
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::{Timestamp, rawdoc};

    #[test]
    fn only_what_a_server_replaces_is_found() {
        let empty = Timestamp { time: 0, increment: 0 };
        let found = [rawdoc! { "_id": 1, "a": empty }, rawdoc! { "_id": empty, "": empty }, rawdoc! { "$a.b": empty }];
        assert!(found.iter().all(|document| has_empty_timestamp(document.as_bytes())));
        let others = [
            rawdoc! { "_id": empty, "a": 1 },
            rawdoc! { "_id": 1, "a": Timestamp { time: 0, increment: 1 }, "b": 0_i64 },
            rawdoc! { "_id": 1, "a": { "b": empty }, "c": [empty] },
        ];
        assert!(!others.iter().any(|document| has_empty_timestamp(document.as_bytes())));
    }
}
