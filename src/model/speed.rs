//! How fast a copy is, and how long it will take: from what was counted, and when. Whatever cannot be known from that
//! is `None`, never a guess.

use super::counts::Counts;
use serde::{Deserialize, Serialize, Serializer};
use std::collections::VecDeque;
use std::iter::Sum;
use std::ops::Add;
use std::time::Duration;

/// Over how much time a live rate is taken: long enough that neither a batch nor a save every two seconds shows as a
/// jump, short enough that a change does.
const WINDOW: Duration = Duration::from_secs(10);

/// A rate over less time says nothing.
const SHORTEST: Duration = Duration::from_secs(1);

/// Nobody is helped by an estimate of more than a year.
const LONGEST_ETA: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Documents and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// Documents.
    pub documents: u64,
    /// The bytes of their BSON.
    pub bytes: u64,
}

impl Moved {
    /// What a copy is through with: everything that was read and acknowledged, whatever became of it.
    pub fn of(counts: &Counts) -> Self {
        Self { documents: counts.read, bytes: counts.read_bytes }
    }

    /// Whether it is nothing.
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }

    /// What `self` has less than `whole`, which may be an estimate that was too small.
    #[must_use]
    pub fn left_of(self, whole: Self) -> Self {
        Self {
            documents: whole.documents.saturating_sub(self.documents),
            bytes: whole.bytes.saturating_sub(self.bytes),
        }
    }

    fn since(self, earlier: Self) -> Option<Self> {
        Some(Self {
            documents: self.documents.checked_sub(earlier.documents)?,
            bytes: self.bytes.checked_sub(earlier.bytes)?,
        })
    }
}

impl Add for Moved {
    type Output = Moved;

    fn add(self, other: Moved) -> Moved {
        Moved { documents: self.documents + other.documents, bytes: self.bytes + other.bytes }
    }
}

impl Sum for Moved {
    fn sum<I: Iterator<Item = Moved>>(iter: I) -> Moved {
        iter.fold(Moved::default(), Add::add)
    }
}

/// How fast.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Rate {
    /// Documents a second.
    #[serde(serialize_with = "one_decimal")]
    pub documents_per_second: f64,
    /// Bytes a second.
    #[serde(serialize_with = "one_decimal")]
    pub bytes_per_second: f64,
}

fn one_decimal<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((value * 10.0).round() / 10.0)
}

impl Add for Rate {
    type Output = Rate;

    fn add(self, other: Rate) -> Rate {
        Rate {
            documents_per_second: self.documents_per_second + other.documents_per_second,
            bytes_per_second: self.bytes_per_second + other.bytes_per_second,
        }
    }
}

impl Rate {
    /// The rate between two counts. None when the time between them is too short, or when the later one is smaller:
    /// something is counted anew, and nobody knows how much of it is.
    pub fn between(earlier: Moved, later: Moved, time: Duration) -> Option<Self> {
        if time < SHORTEST {
            return None;
        }
        let moved = later.since(earlier)?;
        let per_second = |amount: u64| amount as f64 / time.as_secs_f64();
        Some(Self { documents_per_second: per_second(moved.documents), bytes_per_second: per_second(moved.bytes) })
    }

    /// How long what is left will take at this rate: by bytes, and by documents where no bytes are left. None when
    /// nothing is left (the estimate is used up, yet the work is not done) or nothing moves.
    pub fn eta(&self, left: Moved) -> Option<Duration> {
        let (amount, per_second) = if left.bytes > 0 {
            (left.bytes, self.bytes_per_second)
        } else {
            (left.documents, self.documents_per_second)
        };
        if amount == 0 || per_second <= 0.0 {
            return None;
        }
        let eta = Duration::try_from_secs_f64(amount as f64 / per_second).ok()?;
        (eta <= LONGEST_ETA).then_some(eta)
    }
}

/// The rate over the last seconds, of counts that are looked at again and again. The first look is where it begins:
/// what was copied before does not count.
#[derive(Debug, Clone, Default)]
pub struct Pace {
    /// Oldest first: those of the window, and one before it.
    samples: VecDeque<(Duration, Moved)>,
}

impl Pace {
    /// What was counted at a time, which is later than all before. Where something is counted anew, so is the pace.
    pub fn add(&mut self, at: Duration, moved: Moved) {
        if self.samples.back().is_some_and(|(_, before)| moved.since(*before).is_none()) {
            self.samples.clear();
        }
        self.samples.push_back((at, moved));
        while self.samples.get(1).is_some_and(|(second, _)| at.saturating_sub(*second) >= WINDOW) {
            self.samples.pop_front();
        }
    }

    /// The rate, once there were two looks at least a second apart.
    pub fn rate(&self) -> Option<Rate> {
        let ((began, before), (at, now)) = (self.samples.front()?, self.samples.back()?);
        Rate::between(*before, *now, at.saturating_sub(*began))
    }
}

/// How much is done, in percent with one decimal, rounded down. Never 100 before it `is_done`, however wrong the
/// estimate was.
pub fn percent(done: u64, left: u64, is_done: bool) -> f64 {
    if is_done {
        return 100.0;
    }
    let per_mille = match done.checked_add(left) {
        None | Some(0) => 0,
        Some(whole) => u128::from(done) * 1000 / u128::from(whole),
    };
    per_mille.min(999) as f64 / 10.0
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use proptest::prelude::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn moved(documents: u64) -> Moved {
        Moved { documents, bytes: documents * 100 }
    }

    #[test]
    fn what_was_copied_before_the_first_look_does_not_count() {
        let mut pace = Pace::default();
        pace.add(seconds(100), moved(1_000_000));
        assert_eq!(pace.rate(), None);
        pace.add(seconds(102), moved(1_000_020));
        assert_eq!(pace.rate(), Some(Rate { documents_per_second: 10.0, bytes_per_second: 1000.0 }));
    }

    #[test]
    fn only_the_last_seconds_count() {
        let mut pace = Pace::default();
        (0..=20).for_each(|second| pace.add(seconds(second), moved(second * 1000)));
        (21..=31).for_each(|second| pace.add(seconds(second), moved(20_000 + second)));
        assert_eq!(pace.rate().unwrap().documents_per_second, 1.0);
        assert!(pace.samples.len() <= 12, "{}", pace.samples.len());
        // Looked at seldom, it is the time between the last two looks.
        pace.add(seconds(61), moved(20_061));
        assert_eq!(pace.rate().unwrap().documents_per_second, 1.0);
    }

    #[test]
    fn counting_anew_begins_anew() {
        let mut pace = Pace::default();
        pace.add(seconds(0), moved(500));
        pace.add(seconds(5), moved(100));
        assert_eq!(pace.rate(), None);
        pace.add(seconds(7), moved(120));
        assert_eq!(pace.rate().unwrap().documents_per_second, 10.0);
    }

    #[test]
    fn an_eta_is_there_only_where_it_can_be_known() {
        let rate = Rate { documents_per_second: 10.0, bytes_per_second: 1000.0 };
        assert_eq!(rate.eta(Moved { documents: 1, bytes: 5000 }), Some(seconds(5)), "bytes decide");
        assert_eq!(rate.eta(Moved { documents: 100, bytes: 0 }), Some(seconds(10)));
        assert_eq!(rate.eta(Moved::default()), None, "the estimate is used up");
        assert_eq!(Rate::default().eta(moved(1)), None, "nothing moves");
        assert_eq!(Rate { bytes_per_second: 1e-9, ..rate }.eta(moved(u64::MAX / 100)), None);
        assert_eq!(Rate::between(moved(0), moved(9), Duration::from_millis(999)), None);
        assert_eq!(Rate::between(moved(9), moved(0), seconds(9)), None);
    }

    #[test]
    fn percentages() {
        for (done, left, is_done, wanted) in [
            (0, 0, false, 0.0),
            (0, 0, true, 100.0),
            (1, 2, false, 33.3),
            (999_999, 1, false, 99.9),
            (5, 0, false, 99.9),
            (5, 5, true, 100.0),
            (u64::MAX, 1, false, 0.0),
            (u64::MAX / 2, u64::MAX / 2, false, 50.0),
        ] {
            assert_eq!(percent(done, left, is_done), wanted, "{done} {left} {is_done}");
        }
    }

    proptest! {
        #[test]
        fn a_steady_copy_shows_its_rate_however_often_it_is_looked_at(
            per_second in 0..1_000_000_u64,
            before in 0..1_000_000_u64,
            looks in proptest::collection::vec(1..5_000_u64, 2..60),
        ) {
            let (mut pace, mut at) = (Pace::default(), 0);
            for pause in &looks {
                at += pause;
                pace.add(Duration::from_millis(at), moved(before + at * per_second));
            }
            if at - looks[0] >= 1000 {
                let shown = pace.rate().unwrap().documents_per_second;
                prop_assert!((shown - 1000.0 * per_second as f64).abs() < 1.0, "{shown}");
            }
        }
    }
}
