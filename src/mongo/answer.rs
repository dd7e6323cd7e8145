//! What a server says to a write, read from the bytes of its answer: an answer may quote what no strict decoder takes,
//! an `_id` of invalid UTF-8 in a duplicate key's `keyValue` for one.

use super::failure::{code, is_transient_code};
use crate::model::element::{elements, field};
use bson::{RawDocumentBuf, doc, rawdoc};
use mongodb::error::{CommandError, Error as DriverError, ErrorKind};

/// A document that the target did not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Its place among the documents of the command, from 0.
    pub index: usize,
    /// The server's error code.
    pub code: i32,
    /// Whether a document with the same `_id` is there already.
    pub is_id_taken: bool,
    /// The server's reason.
    pub reason: String,
}

/// What the target said to a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A majority has all of it but these.
    Acknowledged(Vec<Refusal>),
    /// It was done, or some of it, but no majority is known to have it.
    NoMajority(String),
}

impl Answer {
    /// From a reply that is no error.
    pub fn read(reply: &RawDocumentBuf) -> Self {
        let reply = reply.as_bytes();
        if let Some(error) = field(reply, b"writeConcernError") {
            let reason = field(error.value, b"errmsg").and_then(|reason| reason.text());
            let code = field(error.value, b"code").and_then(|code| code.number()).unwrap_or_default();
            return Self::NoMajority(format!("{} (code {code})", reason.as_deref().unwrap_or("no majority")));
        }
        let errors = field(reply, b"writeErrors").map(|errors| errors.value).unwrap_or_default();
        Self::Acknowledged(elements(errors).map(|error| refusal(error.value)).collect())
    }

    /// Whether the server is worth another command: not one that is no longer the primary, or about to end.
    pub fn is_from_primary(&self) -> bool {
        match self {
            Self::Acknowledged(refusals) => !refusals.iter().any(|refusal| is_transient_code(refusal.code)),
            Self::NoMajority(_) => false,
        }
    }
}

fn refusal(error: &[u8]) -> Refusal {
    let number = |name| field(error, name).and_then(|value| value.number()).unwrap_or_default();
    let code = i32::try_from(number(b"code")).unwrap_or_default();
    let id_index = rawdoc! { "_id": 1 };
    let is_id = field(error, b"keyPattern").is_some_and(|pattern| pattern.value == id_index.as_bytes());
    Refusal {
        index: usize::try_from(number(b"index")).unwrap_or(usize::MAX),
        code,
        is_id_taken: code == code::DUPLICATE_KEY && is_id,
        reason: field(error, b"errmsg")
            .and_then(|reason| reason.text())
            .unwrap_or_else(|| "no reason given".to_owned()),
    }
}

/// How many documents an update has found.
pub fn changed(reply: &RawDocumentBuf) -> i64 {
    field(reply.as_bytes(), b"n").and_then(|count| count.number()).unwrap_or_default()
}

/// The error that a reply is, as the driver would give it.
pub fn failure(reply: &RawDocumentBuf) -> Option<DriverError> {
    let reply = reply.as_bytes();
    if field(reply, b"ok").and_then(|ok| ok.number()) == Some(1) {
        return None;
    }
    let text = |name| field(reply, name).and_then(|value| value.text()).unwrap_or_default();
    let code = field(reply, b"code").and_then(|code| code.number()).and_then(|code| i32::try_from(code).ok());
    let error = doc! { "code": code.unwrap_or_default(), "codeName": text(b"codeName"), "errmsg": text(b"errmsg") };
    Some(match bson::deserialize_from_document::<CommandError>(error) {
        Ok(error) => ErrorKind::Command(error).into(),
        Err(error) => error.into(),
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::mongo::failure::code_of;

    fn refusals(reply: &RawDocumentBuf) -> Vec<Refusal> {
        match Answer::read(reply) {
            Answer::Acknowledged(refusals) => refusals,
            Answer::NoMajority(reason) => panic!("{reason}"),
        }
    }

    #[test]
    fn an_id_that_is_taken_is_told_from_another_unique_index() {
        let reply = rawdoc! { "ok": 1.0, "writeErrors": [
            { "index": 3, "code": 11000, "keyPattern": { "_id": 1 }, "errmsg": "dup" },
            { "index": 4, "code": 11000, "keyPattern": { "email": 1 }, "errmsg": "dup" },
            { "index": 5_i64, "code": 11000.0, "keyPattern": { "_id": 1, "a": 1 } },
        ] };
        let seen: Vec<_> = refusals(&reply).into_iter().map(|r| (r.index, r.code, r.is_id_taken, r.reason)).collect();
        let dup = || "dup".to_owned();
        let expected =
            [(3, 11000, true, dup()), (4, 11000, false, dup()), (5, 11000, false, "no reason given".to_owned())];
        assert_eq!(seen, expected);
    }

    #[test]
    fn an_answer_that_quotes_invalid_utf_8_is_read() {
        let reply = rawdoc! { "n": 0, "writeErrors": [
            { "index": 0, "code": 11000, "keyPattern": { "_id": 1 }, "keyValue": { "_id": "QQ" }, "errmsg": "dup: QQ" },
        ], "ok": 1 };
        let mut bytes = reply.into_bytes();
        for at in 0..bytes.len() - 1 {
            if bytes[at..].starts_with(b"QQ") {
                bytes[at..at + 2].copy_from_slice(&[0xff, 0xfe]);
            }
        }
        let reply = RawDocumentBuf::from_bytes(bytes).unwrap();
        assert!(bson::Document::try_from(reply.as_ref()).is_err());
        let refusal = refusals(&reply).remove(0);
        assert!(refusal.is_id_taken);
        assert_eq!(refusal.reason, "dup: \u{fffd}\u{fffd}");
    }

    #[test]
    fn a_majority_that_was_not_reached_counts_more_than_what_was_refused() {
        let reply = rawdoc! {
            "ok": 1, "writeErrors": [{ "index": 0, "code": 11000 }],
            "writeConcernError": { "code": 64, "errmsg": "waiting for replication timed out" },
        };
        let answer = Answer::read(&reply);
        assert_eq!(answer, Answer::NoMajority("waiting for replication timed out (code 64)".to_owned()));
        assert!(!answer.is_from_primary());
    }

    #[test]
    fn a_server_that_steps_down_is_left() {
        let reply = rawdoc! { "ok": 1, "writeErrors": [{ "index": 0, "code": 11602, "errmsg": "stepped down" }] };
        assert!(!Answer::read(&reply).is_from_primary());
        assert!(Answer::read(&rawdoc! { "ok": 1 }).is_from_primary());
    }

    #[test]
    fn an_error_is_the_one_that_the_driver_would_give() {
        assert!(failure(&rawdoc! { "ok": 1.0, "n": 1 }).is_none());
        let reply = rawdoc! { "ok": 0.0, "code": 225, "codeName": "TransactionTooOld", "errmsg": "too old" };
        let error = failure(&reply).unwrap();
        assert_eq!(code_of(&error), Some(225));
        assert!(error.to_string().contains("TransactionTooOld"), "{error}");
    }
}
