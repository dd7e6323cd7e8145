//! The only clock.
//!
//! Leases are decided by how much time has passed for *this* process, so the clock must neither jump, as the wall clock
//! does, nor stand still while a laptop sleeps or a virtual machine is paused, as `std::time::Instant` does on Linux
//! (`CLOCK_MONOTONIC`): a worker that slept through its lease would wake up believing that it holds it. Hence
//! `CLOCK_BOOTTIME` there. The wall clock only says to people when something was.

#![expect(clippy::disallowed_methods, reason = "the one home of the clock")]

use std::ops::{Add, Sub};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A moment of the steady clock. Only good within one process and one boot: never stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(Duration);

/// Now, on a clock that neither jumps nor stands still while the machine is suspended.
#[cfg(target_os = "linux")]
pub fn monotonic() -> Moment {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    // Time since boot: neither part is ever negative.
    Moment(Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32))
}

/// Now, on a clock that does not jump. Whether it goes on while the machine is suspended is up to the system.
#[cfg(not(target_os = "linux"))]
pub fn monotonic() -> Moment {
    static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    Moment(START.get_or_init(std::time::Instant::now).elapsed())
}

impl Moment {
    /// How long ago it was; zero when it is still to come.
    pub fn elapsed(self) -> Duration {
        monotonic() - self
    }
}

impl Sub for Moment {
    type Output = Duration;

    /// The time between two moments; zero when they are the other way round.
    fn sub(self, earlier: Moment) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Moment {
    type Output = Moment;

    fn add(self, duration: Duration) -> Moment {
        Moment(self.0.saturating_add(duration))
    }
}

/// The wall clock for people: RFC 3339, UTC, with milliseconds. Nothing is decided by it.
pub fn wall() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}

/// The wall clock in seconds since 1970. Nothing is decided by it; zero on a machine that believes to be earlier.
pub fn wall_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The same in milliseconds: what the deadline of a Lambda invocation is given in.
pub fn wall_milliseconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// How long ago a moment of the wall clock was, as [`wall`] writes it: zero when it is still to come, `None` when it is
/// no such moment. Nothing is decided by it.
pub fn wall_since(moment: &str) -> Option<Duration> {
    let then = humantime::parse_rfc3339(moment).ok()?;
    Some(SystemTime::now().duration_since(then).unwrap_or_default())
}

/// The time from one moment of the wall clock to a later one, as [`wall`] writes them; `None` when it is the other way
/// round, or one is no such moment. Nothing is decided by it.
pub fn wall_between(earlier: &str, later: &str) -> Option<Duration> {
    let [earlier, later] = [earlier, later].map(|moment| humantime::parse_rfc3339(moment).ok());
    later?.duration_since(earlier?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments() {
        let before = monotonic();
        let after = monotonic();
        assert!(after >= before);
        assert_eq!(before - (after + Duration::from_secs(1)), Duration::ZERO);
        assert_eq!((before + Duration::from_secs(2)) - before, Duration::from_secs(2));
        assert!(before + Duration::MAX > after);
    }

    #[test]
    fn time_between_two_moments_of_the_wall_clock() {
        let (one, other) = ("2026-11-23T11:00:39.500Z", "2026-11-23T11:01:00.000Z");
        assert_eq!(wall_between(one, other), Some(Duration::from_millis(20_500)));
        assert_eq!((wall_between(other, one), wall_between("yesterday", one)), (None, None));
    }

    #[test]
    fn the_wall_clock_reads_like_a_date() {
        let wall = wall();
        assert_eq!((wall.len(), &wall[..2], &wall[23..]), (24, "20", "Z"), "{wall}");
        assert!(wall_seconds() > 1_700_000_000);
    }
}
