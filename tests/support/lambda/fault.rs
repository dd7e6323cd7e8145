//! What a test does to an invocation.

use std::time::Duration;

/// Something that happens to an invocation on AWS as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The sandbox is killed this long after the invocation began: out of memory, or a host that fails.
    Kill(Duration),
    /// It is not told its deadline, works on, and is killed when its time is over.
    TimeOut,
    /// It is refused, as when the account's limit is reached.
    Throttle,
    /// It is delivered to two sandboxes at once.
    Twice,
    /// The same, but the first sandbox stands still from this moment on for the other time: whoever invoked it has given
    /// it up, and hears of the second one, which begins when the first stands still.
    Orphan {
        /// When it stands still.
        after: Duration,
        /// How long.
        lasting: Duration,
    },
    /// The sandbox stands still, this long after the invocation began, and goes on after another time.
    Freeze {
        /// When it stands still.
        after: Duration,
        /// How long.
        lasting: Duration,
    },
}
