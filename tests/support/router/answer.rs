//! What comes of a command: a reply, or a refusal in the form that servers give it.

use std::fmt::Display;
use std::io;

use mongodb::bson::{RawDocument, RawDocumentBuf, rawdoc};

use super::raw;

/// A reply whose `ok` is 1, or what is wrong.
pub type Answer = Result<RawDocumentBuf, Refused>;

/// A reply that is a refusal: a server's own, or the router's.
#[derive(Debug, Clone)]
pub struct Refused(pub RawDocumentBuf);

/// The codes of refusals that are told apart, or given; the names are those of the server (`error_codes.yml`).
pub mod code {
    /// `BadValue`.
    pub const BAD_VALUE: i32 = 2;
    /// `HostUnreachable`.
    pub const HOST_UNREACHABLE: i32 = 6;
    /// `FailedToParse`.
    pub const FAILED_TO_PARSE: i32 = 9;
    /// `NamespaceNotFound`.
    pub const NAMESPACE_NOT_FOUND: i32 = 26;
    /// `CursorNotFound`.
    pub const CURSOR_NOT_FOUND: i32 = 43;
    /// `CommandNotFound`.
    pub const COMMAND_NOT_FOUND: i32 = 59;
    /// `ShardKeyNotFound`.
    pub const SHARD_KEY_NOT_FOUND: i32 = 61;
    /// `InvalidOptions`.
    pub const INVALID_OPTIONS: i32 = 72;
    /// `NoProgressMade`.
    pub const NO_PROGRESS_MADE: i32 = 82;
    /// `NamespaceNotSharded`.
    pub const NAMESPACE_NOT_SHARDED: i32 = 118;
    /// `StaleEpoch`: the collection was sharded anew.
    pub const STALE_EPOCH: i32 = 150;
    /// `StaleDbVersion`: the database has another primary shard.
    pub const STALE_DB_VERSION: i32 = 249;
    /// `WouldChangeOwningShard`.
    pub const WOULD_CHANGE_OWNING_SHARD: i32 = 283;
    /// `NotWritablePrimary`.
    pub const NOT_WRITABLE_PRIMARY: i32 = 10107;
    /// `StaleConfig`: the chunks are not where the sender of a command thinks.
    pub const STALE_CONFIG: i32 = 13388;
    /// Others of a member that is no primary any more: `InterruptedAtShutdown`, `InterruptedDueToReplStateChange`,
    /// `NotPrimaryNoSecondaryOk`, `NotPrimaryOrSecondary`, `ShutdownInProgress`, `PrimarySteppedDown`.
    pub const NO_MORE_PRIMARY: [i32; 6] = [11600, 11602, 13435, 13436, 91, 189];
}

impl Refused {
    /// One of the router's own.
    pub fn new(code: i32, message: impl Display) -> Self {
        let name = match code {
            code::BAD_VALUE => "BadValue",
            code::HOST_UNREACHABLE => "HostUnreachable",
            code::FAILED_TO_PARSE => "FailedToParse",
            code::NAMESPACE_NOT_FOUND => "NamespaceNotFound",
            code::CURSOR_NOT_FOUND => "CursorNotFound",
            code::COMMAND_NOT_FOUND => "CommandNotFound",
            code::SHARD_KEY_NOT_FOUND => "ShardKeyNotFound",
            code::INVALID_OPTIONS => "InvalidOptions",
            code::NO_PROGRESS_MADE => "NoProgressMade",
            code::NAMESPACE_NOT_SHARDED => "NamespaceNotSharded",
            _ => "UnknownError",
        };
        Refused(rawdoc! {"ok": 0.0, "errmsg": message.to_string(), "code": code, "codeName": name})
    }

    /// A reply as a server gave it.
    pub fn check(reply: RawDocumentBuf) -> Answer {
        if raw::number(&reply, "ok") == Some(1) { Ok(reply) } else { Err(Refused(reply)) }
    }

    /// Its code.
    pub fn code(&self) -> i32 {
        code_of(&self.0)
    }

    /// Whether the router knows of an earlier placement.
    pub fn is_stale(&self) -> bool {
        is_stale(self.code())
    }

    /// Whether it is about the connection, or about a member that is not the primary.
    pub fn is_about_the_way(&self) -> bool {
        let code = self.code();
        [code::HOST_UNREACHABLE, code::NOT_WRITABLE_PRIMARY].contains(&code) || code::NO_MORE_PRIMARY.contains(&code)
    }
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Refused::new(code::HOST_UNREACHABLE, error)
    }
}

impl From<mongodb::bson::error::Error> for Refused {
    fn from(error: mongodb::bson::error::Error) -> Self {
        Refused::new(code::FAILED_TO_PARSE, error)
    }
}

/// The code of a refusal, or of an entry in `writeErrors`.
pub fn code_of(error: &RawDocument) -> i32 {
    raw::number(error, "code").and_then(|code| code.try_into().ok()).unwrap_or(0)
}

/// Whether this code says that the router knows of an earlier placement.
pub fn is_stale(code: i32) -> bool {
    [code::STALE_CONFIG, code::STALE_DB_VERSION, code::STALE_EPOCH].contains(&code)
}
