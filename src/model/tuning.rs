//! How many readers and writers a copy has, found out by trying.
//!
//! ```text
//!            ┌──────────── not better: back to what it was, and rest, each time for longer ───────────┐
//!            ▼                                                                                        │
//!   steady ──rested──▶ try one more writer (they are busy), or twice the readers (writers wait) ──▶ measured
//!            ▲                                                                                        │
//!            └──────────── better: keep it, try the next at once ─────────────────────────────────────┘
//! ```
//!
//! What counts is what the target has acknowledged in a second. A writer more that brings nothing is taken back: it would
//! only take the target's time from others. Now and then one writer less is tried, and kept when it is as good.

/// How many there are of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Concurrency {
    /// Partitions that are read at once.
    pub readers: usize,
    /// Batches that are sent at once.
    pub writers: usize,
}

/// What a period showed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// What was acknowledged in it: bytes, and something for each partition that ended.
    pub work: u64,
    /// For which share of it a writer had nothing to send, from 0 to 1.
    pub idle: f64,
}

/// By how much more it must get to count as better: measurements differ by some percent by themselves.
const BETTER: f64 = 1.05;

/// How much of it must be left when a writer is taken away.
const AS_GOOD: f64 = 0.99;

/// Above this share of idle writers it is readers that are missing.
const IDLE: f64 = 0.3;

/// For how many periods it rests after a try in vain, at first and at most.
const REST: u32 = 4;
const LONGEST_REST: u32 = 64;

/// Finds out how many readers and writers there should be.
#[derive(Debug, Clone)]
pub struct Tuner {
    now: Concurrency,
    most: Concurrency,
    state: State,
    /// How long it rests after the next try in vain.
    rest: u32,
    /// Whether the next try is one writer less.
    is_less_next: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    /// Nothing is tried for so many periods.
    Steady { rest: u32 },
    /// Something was changed; the period in which it was says nothing.
    Changed { before: Concurrency, work: u64 },
    /// What it brings shows in this period.
    Trying { before: Concurrency, work: u64 },
}

impl Tuner {
    /// Begins with `first`, and never has more than `most`.
    pub fn new(first: Concurrency, most: Concurrency) -> Self {
        let now = Concurrency { readers: first.readers.min(most.readers), writers: first.writers.min(most.writers) };
        Self { now, most, state: State::Steady { rest: 1 }, rest: REST, is_less_next: false }
    }

    /// How many there should be now.
    pub fn now(&self) -> Concurrency {
        self.now
    }

    /// Takes what a period showed; returns how many there should be in the next.
    pub fn observe(&mut self, sample: Sample) -> Concurrency {
        // Nothing to learn from: it is paused, or waits for an election.
        if sample.work == 0 {
            return self.now;
        }
        self.state = match self.state {
            State::Steady { rest: 0 } => self.change(sample),
            State::Steady { rest } => State::Steady { rest: rest - 1 },
            State::Changed { before, work } => State::Trying { before, work },
            State::Trying { before, work } => self.judge(before, work, sample),
        };
        self.now
    }

    fn change(&mut self, sample: Sample) -> State {
        let before = self.now;
        let is_less = std::mem::take(&mut self.is_less_next);
        if sample.idle > IDLE {
            self.now.readers = (before.readers * 2).min(self.most.readers);
        } else if is_less {
            self.now.writers = before.writers.saturating_sub(1).max(1);
        } else {
            self.now.writers = (before.writers + 1).min(self.most.writers);
        }
        if self.now == before {
            self.is_less_next = !is_less;
            return State::Steady { rest: REST };
        }
        State::Changed { before, work: sample.work }
    }

    fn judge(&mut self, before: Concurrency, work: u64, sample: Sample) -> State {
        let (is, was) = (sample.work as f64, work as f64);
        let is_less = self.now.writers < before.writers;
        let is_kept = if is_less { is >= was * AS_GOOD } else { is >= was * BETTER };
        if is_kept {
            self.rest = REST;
            self.is_less_next = is_less;
            // Where fewer are as good there is no hurry.
            return State::Steady { rest: if is_less { REST } else { 0 } };
        }
        self.now = before;
        self.is_less_next = !is_less;
        let rest = self.rest;
        self.rest = (rest * 2).min(LONGEST_REST);
        State::Steady { rest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MOST: Concurrency = Concurrency { readers: 16, writers: 8 };

    fn run(periods: usize, sample: impl Fn(Concurrency) -> Sample) -> Concurrency {
        let mut tuner = Tuner::new(Concurrency { readers: 2, writers: 2 }, MOST);
        for _ in 0..periods {
            tuner.observe(sample(tuner.now()));
        }
        tuner.now()
    }

    #[test]
    fn it_finds_where_more_writers_bring_nothing() {
        for best in 1..=8 {
            let found = run(60, |now| Sample { work: 1_000 * now.writers.min(best) as u64, idle: 0.0 });
            assert!(found.writers.abs_diff(best) <= 1, "{} writers where {best} are best", found.writers);
            assert_eq!(found.readers, 2);
        }
    }

    #[test]
    fn writers_that_wait_get_more_readers() {
        let starved = |now: Concurrency| Sample { work: 1_000 * now.readers.min(12) as u64, idle: 0.9 };
        assert_eq!(run(12, starved), Concurrency { readers: 16, writers: 2 });
        // ...but not where more of them bring nothing.
        assert_eq!(run(60, |_| Sample { work: 1_000, idle: 0.9 }).readers, 2);
    }

    #[test]
    fn a_pause_teaches_nothing() {
        assert_eq!(run(100, |_| Sample { work: 0, idle: 1.0 }), Concurrency { readers: 2, writers: 2 });
    }

    proptest! {
        #[test]
        fn whatever_it_sees_it_stays_within_its_limits(
            samples in proptest::collection::vec((0..1_000_u64, 0.0..1.0), 0..200),
            readers in 1..20_usize,
            writers in 1..20_usize,
        ) {
            let most = Concurrency { readers, writers };
            let mut tuner = Tuner::new(Concurrency { readers: 4, writers: 3 }, most);
            for (work, idle) in samples {
                let now = tuner.observe(Sample { work, idle });
                prop_assert!((1..=readers).contains(&now.readers) && (1..=writers).contains(&now.writers));
            }
        }
    }
}
