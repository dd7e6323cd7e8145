//! From the driver's errors to the few kinds of our own.

use crate::error::{Error, Kind};
use mongodb::error::{Error as DriverError, ErrorKind};
use std::fmt;

/// Which of the two deployments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Read from.
    Source,
    /// Written to.
    Target,
    /// Written the checkpoint to, where that is not the target.
    Checkpoint,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Side::Source => "source",
            Side::Target => "target",
            Side::Checkpoint => "checkpoint's deployment",
        })
    }
}

/// Server error codes that decide something here (mongo `src/mongo/base/error_codes.yml`).
pub mod code {
    /// What was asked makes no sense, as a hint of an index that is not there.
    pub const BAD_VALUE: i32 = 2;
    /// A right is missing.
    pub const UNAUTHORIZED: i32 = 13;
    /// There is no such user.
    pub const USER_NOT_FOUND: i32 = 11;
    /// It took longer than `maxTimeMS`.
    pub const MAX_TIME_EXPIRED: i32 = 50;
    /// Wrong user or password.
    pub const AUTHENTICATION_FAILED: i32 = 18;
    /// The collection does not exist.
    pub const NAMESPACE_NOT_FOUND: i32 = 26;
    /// The index does not exist.
    pub const INDEX_NOT_FOUND: i32 = 27;
    /// What a token names is not there any more.
    pub const KEY_NOT_FOUND: i32 = 211;
    /// The cursor timed out or was killed with its session.
    pub const CURSOR_NOT_FOUND: i32 = 43;
    /// The collection exists.
    pub const NAMESPACE_EXISTS: i32 = 48;
    /// Somebody killed the operation.
    pub const INTERRUPTED: i32 = 11601;
    /// The disk is full.
    pub const OUT_OF_DISK_SPACE: i32 = 14031;
    /// A unique index has this key.
    pub const DUPLICATE_KEY: i32 = 11000;
    /// No plan: among others, since the bounds of a range leave nothing between them.
    pub const NO_QUERY_EXECUTION_PLANS: i32 = 291;
    /// The bounds of a range leave nothing between them.
    pub const MIN_NOT_BEFORE_MAX: i32 = 51_175;
    /// The collection was dropped or renamed under a cursor, or its indexes changed.
    pub const QUERY_PLAN_KILLED: i32 = 175;
    /// The session has seen a greater transaction number.
    pub const TRANSACTION_TOO_OLD: i32 = 225;
    /// Somebody killed the cursor.
    pub const CURSOR_KILLED: i32 = 237;
    /// Documents are nested too deep.
    pub const OVERFLOW: i32 = 15;
    /// It is no BSON.
    pub const INVALID_BSON: i32 = 22;
    /// A reply, or a command, would be larger than a server can send or read.
    pub const BSON_OBJECT_TOO_LARGE: i32 = 10334;
    /// Somebody else holds what a command about sharding needs.
    pub const LOCK_BUSY: i32 = 46;
    /// A shard gives or takes another chunk just now.
    pub const CONFLICTING_OPERATION: i32 = 117;
    /// A mongos sent a command with an old map of chunks.
    pub const STALE_CONFIG: i32 = 13388;
    /// A mongos sent a command to a database's former primary shard.
    pub const STALE_DATABASE: i32 = 249;
    /// A document has no shard key.
    pub const SHARD_KEY_NOT_FOUND: i32 = 61;
    /// The name means another collection than the UUID that was named with it.
    pub const COLLECTION_UUID_MISMATCH: i32 = 361;
}

impl Side {
    fn unavailable(self) -> Kind {
        match self {
            Side::Source => Kind::SourceUnavailable,
            Side::Target | Side::Checkpoint => Kind::TargetUnavailable,
        }
    }

    /// An error of this side's own kind.
    pub fn error(self, message: impl Into<String>) -> Error {
        Error::new(self.unavailable(), message)
    }

    /// The driver's error as one of ours: what only another input can mend is [`Kind::BadInput`].
    pub fn failed(self, error: &DriverError) -> Error {
        let text = one_line(error);
        match code_of(error) {
            Some(code::UNAUTHORIZED) if text.contains("requires authentication") => {
                return Error::bad_input(format!(
                    "the {self} wants a user name and password: {text}; put them into the connection string"
                ));
            }
            Some(code::UNAUTHORIZED) => {
                return Error::bad_input(format!(
                    "the user of the {self} lacks a right: {}; docs/configuration.md lists the roles that are needed",
                    without_arguments(&text)
                ));
            }
            Some(code::AUTHENTICATION_FAILED) => return self.refused_login(&text),
            Some(code::TRANSACTION_TOO_OLD) => {
                return Error::fenced(format!(
                    "the {self} refused a write since another worker has taken over this lane; this one has stopped ({text})"
                ));
            }
            _ => {}
        }
        match error.kind.as_ref() {
            ErrorKind::Authentication { .. } => self.refused_login(&text),
            ErrorKind::InvalidArgument { .. } | ErrorKind::InvalidTlsConfig { .. } => {
                Error::bad_input(format!("the {self}'s connection string cannot be used: {text}"))
            }
            ErrorKind::ServerSelection { .. } if text.contains("Authentication failed") => self.refused_login(&text),
            ErrorKind::ServerSelection { .. } | ErrorKind::DnsResolve { .. } => self.error(format!(
                "the {self} cannot be reached: {}; check its connection string and whether it runs",
                who_and_why(&text)
            )),
            _ => self.error(format!("the {self} failed: {text}")),
        }
    }

    fn refused_login(self, text: &str) -> Error {
        Error::bad_input(format!(
            "the {self} refused the user name or password: {text}; correct the connection string (authSource, too)"
        ))
        .refused_login()
    }
}

/// The server's error code, where there is one.
pub fn code_of(error: &DriverError) -> Option<i32> {
    match error.kind.as_ref() {
        ErrorKind::Command(command) => Some(command.code),
        _ => None,
    }
}

/// Whether the same command may succeed when it is sent again: the connection was lost, an election is on, the
/// majority was not reached in time, or nobody knows what became of it.
pub fn is_transient(error: &DriverError) -> bool {
    match error.kind.as_ref() {
        ErrorKind::Io(_)
        | ErrorKind::ConnectionPoolCleared { .. }
        | ErrorKind::ServerSelection { .. }
        | ErrorKind::InvalidResponse { .. } => true,
        ErrorKind::Command(command) => is_transient_code(command.code),
        _ => error.contains_label("RetryableWriteError") || error.contains_label("TransientTransactionError"),
    }
}

/// The retryable codes of the driver specifications
/// (<https://github.com/mongodb/specifications/blob/master/source/retryable-writes/retryable-writes.md>).
pub fn is_transient_code(code: i32) -> bool {
    matches!(
        code,
        6 | 7
            | 24
            | 50
            | 64
            | 89
            | 91
            | 134
            | 189
            | 262
            | 290
            | 317
            | 358
            | 384
            | 9001
            | 10058
            | 10107
            | 11600
            | 11602
            | 13435
            | 13436
    )
}

/// Whether a server understood a command and does not do it, whoever sends it again: not for want of a right, for an
/// interruption, a full disk, or since the name means another collection by now.
pub fn is_refusal(error: &DriverError) -> bool {
    let is_fault = matches!(
        code_of(error),
        Some(code::UNAUTHORIZED | code::COLLECTION_UUID_MISMATCH | code::INTERRUPTED | code::OUT_OF_DISK_SPACE)
    );
    matches!(error.kind.as_ref(), ErrorKind::Command(_)) && !is_transient(error) && !is_fault
}

/// Whether the answer was lost with its connection, or could not be said: a server that finds its reply too large (10334)
/// closes the connection, so that nothing tells the one from the other.
pub fn is_lost_answer(error: &DriverError) -> bool {
    matches!(error.kind.as_ref(), ErrorKind::Io(_)) || code_of(error) == Some(code::BSON_OBJECT_TOO_LARGE)
}

/// Whether a cursor with this error can be opened again after the last document that it gave. One that was killed while
/// it was working says that its operation was interrupted.
pub fn is_lost_cursor(error: &DriverError) -> bool {
    let is_killed = matches!(
        code_of(error),
        Some(code::CURSOR_NOT_FOUND | 136 | code::QUERY_PLAN_KILLED | code::CURSOR_KILLED | code::INTERRUPTED)
    );
    is_transient(error) || is_killed
}

/// Whether a server refuses bounds since nothing can be between them: it takes no `min` that is not before `max`. Asked
/// where the bounds came from the server in their order, and what was between them may be deleted by now.
pub fn is_empty_range(error: &DriverError) -> bool {
    match error.kind.as_ref() {
        ErrorKind::Command(command) => {
            matches!(command.code, code::NO_QUERY_EXECUTION_PLANS | code::MIN_NOT_BEFORE_MAX)
                && command.message.contains("min() does not come before")
        }
        _ => false,
    }
}

fn one_line(error: &DriverError) -> String {
    let text = match error.kind.as_ref() {
        ErrorKind::Command(command) => format!("{} ({}, code {})", command.message, command.code_name, command.code),
        ErrorKind::Authentication { message, .. } => message.clone(),
        ErrorKind::ServerSelection { message, .. } => message.clone(),
        kind => {
            let custom = error.get_custom::<&str>().map(|text| (*text).to_owned());
            custom.or_else(|| error.get_custom::<String>().cloned()).unwrap_or_else(|| kind.to_string())
        }
    };
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A server's refusal quotes the whole command, which may be long: the command and its collection are enough.
fn without_arguments(text: &str) -> String {
    let end = text.find("execute command { ").and_then(|at| text[at..].find(", ").map(|comma| at + comma));
    match (end, text.rfind(" } (")) {
        (Some(end), Some(code)) if end < code => format!("{}, …{}", &text[..end], &text[code..]),
        _ => text.to_owned(),
    }
}

/// Who was looked for and why each was not found, out of the driver's account of a failed server selection. What does
/// not look like one stays as it is.
fn who_and_why(text: &str) -> String {
    let Some((topology, servers)) = text.split_once("Servers: [") else {
        return match text.split_once("Set Name: ") {
            Some((_, name)) => {
                let name = name.split([',', ' ']).next().unwrap_or(name);
                format!("none of its hosts belongs to a replica set `{name}`")
            }
            None => text.to_owned(),
        };
    };
    let each = servers.split("Address: ").skip(1).map(|server| {
        let (address, what) = server.split_once(", Type: ").unwrap_or((server, ""));
        let what = match what.split_once("Error: Kind: ") {
            Some((_, error)) => error.split(", labels: ").next().unwrap_or(error),
            None => what.split([',', ' ']).next().unwrap_or(what),
        };
        format!("{address}: {what}")
    });
    let each: Vec<String> = each.collect();
    if each.is_empty() { format!("{topology}no servers") } else { each.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drivers_account_is_cut_to_who_and_why() {
        for (text, shown) in [
            (
                "Server selection timeout: No available servers. Topology: { Type: Unknown, Servers: [ { Address: a:1, \
                 Type: Unknown, Error: Kind: I/O error: timed out, labels: {}, source: None, server response: None }, { \
                 Address: b:2, Type: RsSecondary, Average RTT: 1ms } ] }",
                "a:1: I/O error: timed out, b:2: RsSecondary",
            ),
            (
                "Server selection timeout: No available servers. Topology: { Type: ReplicaSetNoPrimary, Set Name: rs }",
                "none of its hosts belongs to a replica set `rs`",
            ),
            ("DNS error", "DNS error"),
        ] {
            assert_eq!(who_and_why(text), shown);
        }
    }

    #[test]
    fn a_refused_command_is_cut_to_its_name() {
        let text =
            "not authorized on a to execute command { find: \"b\", filter: { c: 1 }, x: { } } (Unauthorized, code 13)";
        let shown = "not authorized on a to execute command { find: \"b\", … } (Unauthorized, code 13)";
        assert_eq!(without_arguments(text), shown);
        assert_eq!(without_arguments("not authorized"), "not authorized");
    }
}
