//! Whether there is room for a copy: on the target's disk, and in the source's oplog. All of it is estimated, and says of
//! what.

use super::check::{Check, Row};
use super::size;
use std::time::Duration;

/// How many bytes of documents a second a copy is taken to move when no limit says otherwise. What was measured is more
/// (docs/benchmarks.md); networks, other work and indexes take their part.
pub const ASSUMED_RATE: u64 = 20_000_000;

/// How many bytes of documents a byte on the disk is taken to hold where the source does not say: snappy, which is what a
/// server compresses with by default, does that of most.
const ASSUMED_COMPRESSION: u64 = 2;

/// What a database of the source takes, in bytes (`dbStats`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stored {
    /// Its documents, uncompressed.
    pub documents: u64,
    /// Their files.
    pub files: u64,
    /// Its indexes' files.
    pub indexes: u64,
}

/// What is copied of one database, and what all of it takes there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// The bytes of documents that are copied.
    pub bytes: u64,
    /// What the database takes; none where nobody may ask.
    pub stored: Option<Stored>,
}

/// What the disk of a server has, in bytes (`dbStats`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    /// Its size.
    pub total: u64,
    /// What is taken of it.
    pub used: u64,
}

/// What is copied will take about so many bytes of the target's disk. What is copied of a database takes its share of the
/// database's files and indexes; the target is taken to compress as the source does.
pub fn needed(parts: impl IntoIterator<Item = Part>) -> u64 {
    let one = |part: Part| match part.stored {
        Some(Stored { documents, files, indexes }) if documents > 0 => {
            let share = (part.bytes as f64 / documents as f64).min(1.0);
            (share * (files + indexes) as f64) as u64
        }
        _ => part.bytes / ASSUMED_COMPRESSION,
    };
    parts.into_iter().map(one).sum()
}

/// Whether the target's disk holds it.
pub fn space(needed: u64, is_guessed: bool, disk: Disk) -> Row {
    let free = disk.total.saturating_sub(disk.used);
    let how = match is_guessed {
        true => "half of the documents' size, without indexes, whose size the user of the source may not see",
        false => "documents and indexes as large as on the source's disk",
    };
    let found = format!(
        "about {} are needed ({how}), and {} of {} are free",
        size::about(needed),
        size::about(free),
        size::about(disk.total)
    );
    if needed < free {
        return Row::ok(Check::Space, "target", found);
    }
    Row::warning(Check::Space, "target", found, "make room, or copy less")
}

/// How far an oplog reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// The time from its oldest entry to now.
    pub time: Duration,
    /// Its size in bytes and the largest that it may have; none where nobody may ask.
    pub sizes: Option<(u64, u64)>,
}

impl Reach {
    /// How far it reaches back once it is full, when as much is written as was until now.
    fn when_full(&self) -> Duration {
        match self.sizes {
            Some((size, largest)) if size > 0 && largest > size => self.time.mul_f64(largest as f64 / size as f64),
            _ => self.time,
        }
    }
}

/// How long the copy is taken to last.
pub fn duration(bytes: u64, limit: Option<u64>) -> Duration {
    Duration::from_secs(bytes / limit.unwrap_or(ASSUMED_RATE).max(1))
}

/// Whether an oplog reaches back to the beginning of a copy for as long as it takes, and for as long as is wanted.
pub fn oplog_window(
    about: impl std::fmt::Display,
    reach: Reach,
    bytes: u64,
    limit: Option<u64>,
    least: Option<Duration>,
) -> Row {
    let (takes, full) = (duration(bytes, limit), reach.when_full());
    let rate = limit.unwrap_or(ASSUMED_RATE);
    let whose = if limit.is_some() { "--max-bytes-per-second" } else { "assumed" };
    let found = format!(
        "the oplog reaches back {}, the copy takes about {} at {}/s ({whose})",
        match full > reach.time {
            true => format!("{}, and {} when it is full", text(reach.time), text(full)),
            false => text(reach.time),
        },
        text(takes),
        size::about(rate)
    );
    let too_small = least.filter(|least| full < *least);
    match too_small {
        _ if takes > full => {}
        Some(least) => {
            let found = format!("{found}, and --min-oplog-window is {}", text(least));
            return Row::warning(Check::OplogWindow, about, found, ENLARGE);
        }
        None => return Row::ok(Check::OplogWindow, about, found),
    }
    Row::warning(Check::OplogWindow, about, found, ENLARGE)
}

const ENLARGE: &str = "enlarge it (replSetResizeOplog) before the job begins";

/// A duration in its two largest units: `3h 20m`.
pub fn text(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, minutes) => format!("{minutes}m {}s", seconds % 60),
        (0, hours, minutes) => format!("{hours}h {minutes}m"),
        (days, hours, _) => format!("{days}d {hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::check::Verdict;

    #[test]
    fn a_part_of_a_database_takes_its_share() {
        let stored = Some(Stored { documents: 1_000, files: 400, indexes: 200 });
        assert_eq!(needed([Part { bytes: 500, stored }]), 300);
        assert_eq!(needed([Part { bytes: 5_000, stored }]), 600);
        assert_eq!(needed([Part { bytes: 500, stored: None }, Part { bytes: 500, stored }]), 550);
    }

    #[test]
    fn a_disk_that_is_too_small_is_a_warning() {
        let disk = Disk { total: 1_000, used: 400 };
        assert_eq!(space(599, false, disk).verdict, Verdict::Ok);
        assert_eq!(space(600, false, disk).verdict, Verdict::Warning);
    }

    #[test]
    fn an_oplog_that_is_not_full_reaches_further() {
        let hour = Duration::from_secs(3_600);
        let half_full = Reach { time: hour, sizes: Some((500, 1_000)) };
        let bytes = |hours: u64| hours * 3_600 * ASSUMED_RATE;
        let verdict = |reach, bytes, least| oplog_window("source", reach, bytes, None, least).verdict;
        assert_eq!(verdict(half_full, bytes(1), None), Verdict::Ok);
        assert_eq!(verdict(half_full, bytes(2) + ASSUMED_RATE, None), Verdict::Warning);
        let young = Reach { time: Duration::ZERO, sizes: None };
        assert_eq!(verdict(young, 1, None), Verdict::Ok, "it has only just begun");
        let unknown = Reach { sizes: None, ..half_full };
        assert_eq!(verdict(unknown, bytes(1) + ASSUMED_RATE, None), Verdict::Warning);
        assert_eq!(verdict(half_full, bytes(1), Some(3 * hour)), Verdict::Warning);
        assert_eq!(oplog_window("s", half_full, 3_600_000, Some(1_000), None).verdict, Verdict::Ok);
    }

    #[test]
    fn durations_are_told_in_two_units() {
        let told = [(0, "0s"), (61, "1m 1s"), (7_260, "2h 1m"), (180_000, "2d 2h")];
        for (seconds, shown) in told {
            assert_eq!(text(Duration::from_secs(seconds)), shown);
        }
    }
}
