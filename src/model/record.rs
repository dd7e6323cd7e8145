//! Places in the order of the disk of one node.
//!
//! A server that reads a collection in natural order gives, on request, a token for the last record that it gave, and
//! goes on behind that record later (`$_requestResumeToken`, `$_resumeAfter`; 4.4 and newer). The token is the record's
//! number, and members of a set number records each in their own way: on another member, or on the same one after it was
//! synced anew, the token of one record is that of another, and documents would be left out without a word. So a token
//! is kept together with the node that gave it.

use super::element::elements;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bson::RawDocument;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// A member of a replica set, and its data: as long as both are the same, so are the numbers of its records.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Node {
    /// Its address, as the set's configuration has it.
    pub address: String,
    /// The id of the initial sync that its data came from (`local.replset.initialSyncId`), in hexadecimal.
    pub initial_sync_id: String,
}

/// A server's resume token, as the bytes it is.
#[derive(Clone, PartialEq, Eq)]
pub struct ResumeToken(Vec<u8>);

impl ResumeToken {
    /// The token that a reply holds.
    pub fn new(token: &RawDocument) -> Self {
        Self(token.as_bytes().to_vec())
    }

    /// As a server takes it.
    pub fn document(&self) -> &RawDocument {
        RawDocument::from_bytes(&self.0).expect("only made from a document's bytes")
    }

    /// The number of its record, none where a server numbers records otherwise (a clustered collection's are its
    /// `_id`s).
    pub fn record(&self) -> Option<i64> {
        const INT64: u8 = 0x12;
        let number = elements(&self.0).find(|element| element.name == b"$recordId")?;
        if number.kind != INT64 {
            return None;
        }
        number.value.first_chunk().map(|bytes| i64::from_le_bytes(*bytes))
    }
}

impl fmt::Debug for ResumeToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.document().fmt(f)
    }
}

impl Serialize for ResumeToken {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for ResumeToken {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        let bytes = STANDARD.decode(String::deserialize(deserializer)?).map_err(D::Error::custom)?;
        RawDocument::from_bytes(&bytes).map_err(D::Error::custom)?;
        Ok(Self(bytes))
    }
}

/// A record, and the node whose record it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordPosition {
    /// Whose.
    pub node: Node,
    /// Which.
    pub token: ResumeToken,
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use bson::rawdoc;

    #[test]
    fn a_token_keeps_its_bytes_and_knows_its_record() {
        let token = ResumeToken::new(&rawdoc! { "$recordId": 10_i64, "$initialSyncId": "later servers add it" });
        assert_eq!(token.record(), Some(10));
        let back: ResumeToken = serde_json::from_str(&serde_json::to_string(&token).unwrap()).unwrap();
        assert_eq!(back, token);
        assert_eq!(ResumeToken::new(&rawdoc! { "$recordId": "k" }).record(), None);
        assert!(serde_json::from_str::<ResumeToken>("\"AAAA\"").is_err());
    }
}
