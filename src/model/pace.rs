//! How fast a worker may send: virtual scheduling in integers. Decides when a batch may go; knows no clock, and is told
//! how much time has passed.
//!
//! What was sent is a debt that is paid off at the rate. A batch goes when the debt is paid, whatever its size, and then
//! adds its own: so a document that is larger than a second's worth goes too, and what comes after it waits the longer.
//! Time in which nothing was owed gives a small credit, which makes up for batches that went a little late. Within any
//! stretch of time no more goes than the rate times (that time + [`CREDIT`]), and one batch.
//!
//! Over several workers: the unit of a share is the lane. A worker that holds `k` of the `n` lanes that are not known to
//! be done has `k/n` of the limit. A lane has one holder, one that is done has none and stays done, and who knows that
//! late divides by more: all shares together are never more than the limit.

use std::time::Duration;

/// For how much time a worker that owed nothing may be ahead: longer than a batch is late on a busy machine, and too
/// short to be seen within ten seconds.
pub const CREDIT: Duration = Duration::from_millis(250);

/// How long the batches should be that a limit allows: many a second would cost more than they are worth, few would make
/// what arrives uneven.
const BATCH_TIME: Duration = Duration::from_millis(200);

/// No limit makes batches smaller than this many bytes.
const SMALLEST_BATCH_BYTES: u64 = 16 << 10;

/// Rates are counted in billionths, so that a share of one document a second is not nothing.
const BILLION: u128 = 1_000_000_000;

/// How much a second, in billionths of a document or a byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(u128);

impl Rate {
    /// The part of a job's limit (a number a second) that belongs to whoever holds `held` of the `left` lanes that are
    /// not known to be done. Rounded down, so that all parts together are not more than the whole.
    pub fn share(limit: u64, held: u32, left: u32) -> Self {
        Self(u128::from(limit) * BILLION * u128::from(held) / u128::from(left.max(held).max(1)))
    }

    /// What it allows in some time, in whole units.
    pub fn times(self, time: Duration) -> u64 {
        u64::try_from(self.0.saturating_mul(time.as_nanos()) / BILLION / BILLION).unwrap_or(u64::MAX)
    }

    /// The same in billionths of billionths, in which debts are kept: exact.
    fn exactly(self, time: Duration) -> i128 {
        i128::try_from(self.0.saturating_mul(time.as_nanos())).unwrap_or(i128::MAX)
    }
}

/// What came of asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It may go now, and is counted.
    Goes,
    /// Ask again after this time, or when something has changed.
    Waits(Duration),
    /// Ask again when something has changed: nothing goes now.
    Stands,
}

/// How large a batch should be at most, so that it is no lump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchSize {
    /// Documents; at least one.
    pub documents: u64,
    /// Bytes.
    pub bytes: u64,
}

/// One quantity: documents, or bytes.
#[derive(Debug, Clone, Copy, Default)]
struct Meter {
    rate: Option<Rate>,
    /// What was sent and is not paid off, in billionths of billionths; less than nothing is a credit.
    debt: i128,
}

impl Meter {
    fn pay(&mut self, elapsed: Duration) {
        self.debt = match self.rate {
            None => 0,
            Some(rate) => self.debt.saturating_sub(rate.exactly(elapsed)).max(-rate.exactly(CREDIT)),
        };
    }

    fn send(&mut self, amount: u64) {
        let amount = u128::from(amount) * BILLION * BILLION;
        self.debt = self.debt.saturating_add(i128::try_from(amount).unwrap_or(i128::MAX));
    }

    /// Until when it has to wait; `None` when that has no end at this rate.
    fn wait(&self) -> Option<Duration> {
        match self.rate {
            None => Some(Duration::ZERO),
            Some(Rate(0)) => None,
            Some(Rate(rate)) => {
                let nanoseconds = u128::try_from(self.debt).unwrap_or(0).div_ceil(rate);
                Some(Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX)))
            }
        }
    }
}

/// The pace of one worker. Moments are the time since some beginning, the same for all calls.
#[derive(Debug, Clone, Default)]
pub struct Pace {
    documents: Meter,
    bytes: Meter,
    is_paused: bool,
    /// Until when debts are paid off.
    paid_until: Duration,
}

impl Pace {
    /// Changes what holds from `now` on; `None` is no limit. What was sent before stays a debt, paid off at the new rate.
    pub fn change(&mut self, now: Duration, documents: Option<Rate>, bytes: Option<Rate>, is_paused: bool) {
        self.pay(now);
        self.documents.rate = documents;
        self.bytes.rate = bytes;
        self.is_paused = is_paused;
    }

    /// Whether anything is limited, or paused. When not, everything goes.
    pub fn is_free(&self) -> bool {
        !self.is_paused && self.documents.rate.is_none() && self.bytes.rate.is_none()
    }

    /// Asks whether a batch may go now, which counts it when it may.
    pub fn admit(&mut self, now: Duration, documents: u64, bytes: u64) -> Admission {
        self.pay(now);
        let (Some(for_documents), Some(for_bytes), false) = (self.documents.wait(), self.bytes.wait(), self.is_paused)
        else {
            return Admission::Stands;
        };
        let wait = for_documents.max(for_bytes);
        if wait > Duration::ZERO {
            return Admission::Waits(wait);
        }
        self.documents.send(documents);
        self.bytes.send(bytes);
        Admission::Goes
    }

    /// How large batches should be.
    pub fn batch_size(&self) -> BatchSize {
        let most = |meter: &Meter, least: u64| meter.rate.map_or(u64::MAX, |rate| rate.times(BATCH_TIME).max(least));
        BatchSize { documents: most(&self.documents, 1), bytes: most(&self.bytes, SMALLEST_BATCH_BYTES) }
    }

    fn pay(&mut self, now: Duration) {
        let elapsed = now.saturating_sub(self.paid_until);
        self.documents.pay(elapsed);
        self.bytes.pay(elapsed);
        self.paid_until = self.paid_until.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn limited(documents: Option<u64>, bytes: Option<u64>) -> Pace {
        let mut pace = Pace::default();
        let whole = |limit: u64| Rate::share(limit, 1, 1);
        pace.change(Duration::ZERO, documents.map(whole), bytes.map(whole), false);
        pace
    }

    /// Sends batches as soon as they may go, each asked for `late` after it might have gone; when each went.
    fn send(pace: &mut Pace, batches: &[(u64, u64)], late: Duration) -> Vec<Duration> {
        let mut now = Duration::ZERO;
        let mut went = Vec::new();
        for (documents, bytes) in batches {
            loop {
                match pace.admit(now, *documents, *bytes) {
                    Admission::Goes => break,
                    Admission::Waits(wait) => now += wait + late,
                    Admission::Stands => panic!("nothing is paused"),
                }
            }
            went.push(now);
        }
        went
    }

    #[test]
    fn a_batch_goes_at_once_and_the_next_one_when_it_is_paid_for() {
        let mut pace = limited(None, Some(1_000));
        assert_eq!(pace.admit(Duration::ZERO, 1, 5_000), Admission::Goes);
        assert_eq!(pace.admit(Duration::ZERO, 1, 1), Admission::Waits(5 * SECOND));
        assert_eq!(pace.admit(4 * SECOND, 1, 1), Admission::Waits(SECOND));
        assert_eq!(pace.admit(5 * SECOND, 1, 1), Admission::Goes);
    }

    #[test]
    fn both_limits_hold() {
        let mut pace = limited(Some(10), Some(1_000));
        assert_eq!(pace.admit(Duration::ZERO, 20, 1_000), Admission::Goes);
        assert_eq!(pace.admit(Duration::ZERO, 1, 1), Admission::Waits(2 * SECOND));
        assert_eq!(pace.admit(2 * SECOND, 1, 5_000), Admission::Goes);
        assert_eq!(pace.admit(2 * SECOND, 1, 1), Admission::Waits(5 * SECOND - CREDIT));
    }

    #[test]
    fn the_smallest_limits_are_paid_off_in_the_end() {
        let mut pace = limited(None, Some(1 << 10));
        assert_eq!(pace.admit(Duration::ZERO, 1, 16 << 20), Admission::Goes);
        assert_eq!(pace.admit(Duration::ZERO, 1, 1), Admission::Waits(16_384 * SECOND));
        let mut pace = Pace::default();
        pace.change(Duration::ZERO, Some(Rate::share(1, 1, 4_000)), None, false);
        assert_eq!(pace.admit(Duration::ZERO, 1, 1), Admission::Goes);
        assert_eq!(pace.admit(Duration::ZERO, 1, 1), Admission::Waits(4_000 * SECOND));
    }

    #[test]
    fn a_change_counts_at_once() {
        let mut pace = limited(None, Some(1_000));
        assert_eq!(pace.admit(Duration::ZERO, 1, 100_000), Admission::Goes);
        assert_eq!(pace.admit(10 * SECOND, 1, 1), Admission::Waits(90 * SECOND));
        pace.change(10 * SECOND, None, Some(Rate::share(90_000, 1, 1)), false);
        assert_eq!(pace.admit(10 * SECOND, 1, 1), Admission::Waits(SECOND));
        pace.change(10 * SECOND, None, None, false);
        assert_eq!(pace.admit(10 * SECOND, 1, 1 << 40), Admission::Goes);
        assert!(pace.is_free());
        // What went before a change was paid off at the rate of that time, though nobody asked meanwhile.
        let mut slow = limited(None, Some(1_000));
        assert_eq!(slow.admit(Duration::ZERO, 1, 100_000), Admission::Goes);
        slow.change(50 * SECOND, None, Some(Rate::share(50_000, 1, 1)), false);
        assert_eq!(slow.admit(50 * SECOND, 1, 1), Admission::Waits(SECOND));
        // What went without a limit is no debt under the next one.
        pace.change(10 * SECOND, None, Some(Rate::share(1, 1, 1)), false);
        assert_eq!(pace.admit(10 * SECOND, 1, 1), Admission::Goes);
    }

    #[test]
    fn nothing_goes_while_paused_or_without_a_lane() {
        let mut pace = limited(None, None);
        pace.change(SECOND, None, None, true);
        assert_eq!(pace.admit(100 * SECOND, 1, 1), Admission::Stands);
        pace.change(100 * SECOND, None, Some(Rate::share(1_000, 0, 3)), false);
        assert_eq!(pace.admit(200 * SECOND, 1, 1), Admission::Stands);
        pace.change(200 * SECOND, None, Some(Rate::share(1_000, 1, 3)), false);
        assert_eq!(pace.admit(200 * SECOND, 1, 1), Admission::Goes);
    }

    #[test]
    fn batches_are_what_a_fifth_of_a_second_allows() {
        assert_eq!(limited(None, None).batch_size(), BatchSize { documents: u64::MAX, bytes: u64::MAX });
        assert_eq!(limited(Some(500), Some(5_000_000)).batch_size(), BatchSize { documents: 100, bytes: 1_000_000 });
        assert_eq!(limited(Some(1), Some(1 << 10)).batch_size(), BatchSize { documents: 1, bytes: 16 << 10 });
    }

    #[test]
    fn batches_that_go_a_little_late_do_not_lower_the_rate() {
        let mut pace = limited(None, Some(5_000_000));
        let went = send(&mut pace, &[(1, 1_000_000); 151], Duration::from_millis(30));
        let took = went.last().copied().unwrap_or_default();
        assert!(took >= 30 * SECOND - CREDIT && took <= 30 * SECOND + Duration::from_millis(60), "{took:?}");
    }

    proptest! {
        #[test]
        fn within_any_time_no_more_goes_than_the_rate_allows_and_one_batch(
            limit in 1..10_000_000_u64,
            batches in proptest::collection::vec((1..5_000_u64, 1..5_000_000_u64), 2..60),
            late in 0..500_u64,
        ) {
            let mut pace = limited(None, Some(limit));
            let went = send(&mut pace, &batches, Duration::from_millis(late));
            for first in 0..batches.len() {
                let mut sent: u64 = 0;
                for last in first..batches.len() {
                    // All but the last one of them, in the time between the first and the last.
                    let allowed = Rate::share(limit, 1, 1).times(went[last] - went[first] + CREDIT) + 1;
                    prop_assert!(sent <= allowed, "{sent} of {allowed}");
                    sent += batches[last].1;
                }
            }
        }

        #[test]
        fn nothing_waits_for_longer_than_what_was_sent_before_it_takes(
            limit in 1..10_000_000_u64,
            batches in proptest::collection::vec((1..5_000_u64, 1..5_000_000_u64), 2..60),
        ) {
            let mut pace = limited(None, Some(limit));
            let went = send(&mut pace, &batches, Duration::ZERO);
            let mut sent = 0;
            for ((_, bytes), went) in batches.iter().zip(went) {
                let fair = Duration::from_nanos((u128::from(sent) * BILLION).div_ceil(u128::from(limit)) as u64);
                prop_assert!(went <= fair + Duration::from_nanos(batches.len() as u64), "{went:?} of {fair:?}");
                sent += *bytes;
            }
        }

        #[test]
        fn a_higher_rate_is_no_longer_wait_and_a_lower_one_no_shorter(
            before in 1..10_000_000_u64, after in 1..10_000_000_u64, sent in 1..100_000_000_u64, moment in 0..10_000_u64,
        ) {
            let mut pace = limited(None, Some(before));
            prop_assert_eq!(pace.admit(Duration::ZERO, 1, sent), Admission::Goes);
            let now = Duration::from_millis(moment);
            let wait = |pace: &Pace| match pace.clone().admit(now, 1, 1) {
                Admission::Goes => Duration::ZERO,
                Admission::Waits(wait) => wait,
                Admission::Stands => Duration::MAX,
            };
            let waited = wait(&pace);
            pace.change(now, None, Some(Rate::share(after, 1, 1)), false);
            let waits = wait(&pace);
            prop_assert!(waits == waited || (waits < waited) == (after > before), "{:?}, {:?}", waits, waited);
        }

        /// Each worker holds lanes that nobody else holds and that are not done, and knows of some that are done.
        #[test]
        fn all_shares_together_are_never_more_than_the_limit(
            limit in 1..u64::MAX,
            held in proptest::collection::vec(0..5_u32, 1..20),
            (unheld, done) in (0..20_u32, 0..20_u32),
            known in proptest::collection::vec(0..20_u32, 20),
        ) {
            let all = held.iter().sum::<u32>() + unheld + done;
            let left = |known: u32| all - known.min(done);
            let shares = held.iter().zip(known).map(|(held, known)| Rate::share(limit, *held, left(known)).0);
            prop_assert!(shares.sum::<u128>() <= Rate::share(limit, 1, 1).0);
        }
    }
}
