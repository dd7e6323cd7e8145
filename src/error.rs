//! The few kinds of error there are. Each names the next action, and maps once to an exit code and to the stable name
//! that a state machine matches.

use std::fmt;

/// What went wrong, sorted by what the caller can do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The input must change; nothing was changed anywhere. Not worth a retry.
    BadInput,
    /// Another worker holds what was asked for. Try again later, or with `--takeover`.
    Busy,
    /// This worker lost its claim to another one and stopped.
    Fenced,
    /// The source did not answer, or no longer is what it was. Trying again may help.
    SourceUnavailable,
    /// The target did not answer. Trying again may help.
    TargetUnavailable,
    /// The state store did not answer, or holds something unreadable. Trying again may help.
    StateUnavailable,
    /// A person must mend or accept what was found.
    Findings,
    /// A defect of mongoferry.
    Internal,
}

impl Kind {
    /// Every kind, for tables and tests.
    pub const ALL: [Kind; 8] = [
        Kind::BadInput,
        Kind::Busy,
        Kind::Fenced,
        Kind::SourceUnavailable,
        Kind::TargetUnavailable,
        Kind::StateUnavailable,
        Kind::Findings,
        Kind::Internal,
    ];

    /// The process exit code, a contract with scripts (docs/errors.md).
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::BadInput => 2,
            Kind::Busy | Kind::Fenced => 3,
            Kind::Findings => 4,
            Kind::SourceUnavailable | Kind::TargetUnavailable | Kind::StateUnavailable | Kind::Internal => 1,
        }
    }

    /// The stable name that a state machine matches.
    pub fn name(self) -> &'static str {
        match self {
            Kind::BadInput => "BadInput",
            Kind::Busy => "Busy",
            Kind::Fenced => "Fenced",
            Kind::SourceUnavailable => "SourceUnavailable",
            Kind::TargetUnavailable => "TargetUnavailable",
            Kind::StateUnavailable => "StateUnavailable",
            Kind::Findings => "Findings",
            Kind::Internal => "Internal",
        }
    }
}

/// The exit code of a run that did what it could in its time and wants to be run again (`EX_TEMPFAIL`).
pub const EXIT_YIELD: u8 = 75;

/// An error: its kind, and one line that names the value at fault and the way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    kind: Kind,
    message: String,
    is_refused_login: bool,
}

/// The result of everything fallible here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of this kind. The message is one line: lower case, no full stop, the value and the way out.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), is_refused_login: false }
    }

    /// [`Kind::BadInput`].
    pub fn bad_input(message: impl Into<String>) -> Self {
        Self::new(Kind::BadInput, message)
    }

    /// [`Kind::Busy`].
    pub fn busy(message: impl Into<String>) -> Self {
        Self::new(Kind::Busy, message)
    }

    /// [`Kind::Fenced`].
    pub fn fenced(message: impl Into<String>) -> Self {
        Self::new(Kind::Fenced, message)
    }

    /// [`Kind::SourceUnavailable`].
    pub fn source(message: impl Into<String>) -> Self {
        Self::new(Kind::SourceUnavailable, message)
    }

    /// [`Kind::TargetUnavailable`].
    pub fn target(message: impl Into<String>) -> Self {
        Self::new(Kind::TargetUnavailable, message)
    }

    /// [`Kind::StateUnavailable`].
    pub fn state(message: impl Into<String>) -> Self {
        Self::new(Kind::StateUnavailable, message)
    }

    /// [`Kind::Findings`].
    pub fn findings(message: impl Into<String>) -> Self {
        Self::new(Kind::Findings, message)
    }

    /// [`Kind::Internal`].
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Kind::Internal, message)
    }

    /// Its kind.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether a server refused the user name or password: another one may be right by now ([`crate::rotation`]).
    pub fn is_refused_login(&self) -> bool {
        self.is_refused_login
    }

    /// The same error, being that.
    #[must_use]
    pub fn refused_login(self) -> Self {
        Self { is_refused_login: true, ..self }
    }

    /// The same error as one of another kind.
    #[must_use]
    pub fn as_kind(self, kind: Kind) -> Self {
        Self { kind, ..self }
    }

    /// The same error, saying first what was being done.
    #[must_use]
    pub fn during(self, doing: impl fmt::Display) -> Self {
        Self { message: format!("{doing}: {}", self.message), ..self }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
