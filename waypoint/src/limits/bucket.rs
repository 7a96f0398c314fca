//! A bucket of tokens in one word.
//!
//! ```text
//!            take: full ≤ now + slack              retire: full ≤ now
//!  full = t ─────────────────────────► full = max(t, now) + interval     full = t ────► retired
//! ```
//!
//! The word is the time at which the bucket is full again, as GCRA keeps it. Law: of the requests that
//! pass, any n in a row lie at least (n − burst) intervals apart, whatever threads take part.
//! Why: each step moves the word by an interval at least, and beyond `now`; the first of n leaves it at
//! `now₁ + interval` or later, so before the last it is at `now₁ + (n − 1) · interval` or later, and
//! passing needs it at `nowₙ + (burst − 1) · interval` or earlier. All steps are on one word, which
//! is enough for them to have an order; nothing else depends on it, so it is a relaxed one.

use std::sync::atomic::{AtomicU64, Ordering};

use shared::mesh::Rate;

/// Beyond all times.
const RETIRED: u64 = u64::MAX;

/// What a rate is to a bucket, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    interval: u64,
    /// How far ahead of now a bucket that has a token may be full.
    slack: u64,
}

impl From<Rate> for Pace {
    fn from(rate: Rate) -> Self {
        // An hour at most, a million times: far below 2^64 with centuries of time added.
        let interval = u64::try_from(rate.interval().as_nanos()).unwrap_or(u64::MAX >> 2);
        Self { interval, slack: interval.saturating_mul(u64::from(rate.burst.max(1)) - 1) }
    }
}

/// What was found in a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a request that finds none must not pass"]
pub enum Taken {
    /// A token.
    Token,
    /// None for that many nanoseconds.
    Nothing(u64),
    /// It is given up: there may be another one for the same.
    Retired,
}

/// A bucket; full at first.
#[derive(Debug, Default)]
pub struct Bucket(AtomicU64);

impl Bucket {
    /// A bucket that is full at a time.
    pub(super) fn full_at(time: u64) -> Self {
        Self(AtomicU64::new(time))
    }

    /// When it is full again.
    pub(super) fn when_full(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Takes a token. Times are nanoseconds from any fixed moment.
    pub fn take(&self, pace: Pace, now: u64) -> Taken {
        let step = |full: u64| match look(full, pace, now) {
            Taken::Token => Some(full.max(now) + pace.interval),
            Taken::Nothing(_) | Taken::Retired => None,
        };
        match self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step) {
            Ok(_) => Taken::Token,
            Err(full) => look(full, pace, now),
        }
    }

    /// What `take` would find.
    pub fn has(&self, pace: Pace, now: u64) -> Taken {
        look(self.when_full(), pace, now)
    }

    /// Gives it up if it is full; false when it is not. Whoever still holds it learns of it.
    pub(super) fn retire(&self, now: u64) -> bool {
        let full = self.when_full();
        full <= now
            && self.0.compare_exchange(full, RETIRED, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

fn look(full: u64, pace: Pace, now: u64) -> Taken {
    if full == RETIRED {
        return Taken::Retired;
    }
    match full.saturating_sub(now.saturating_add(pace.slack)) {
        0 => Taken::Token,
        wait => Taken::Nothing(wait),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shared::mesh::RateUnit;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn pace(count: u32, burst: u32) -> Pace {
        Rate { count, unit: RateUnit::Second, burst }.into()
    }

    #[test]
    fn a_burst_passes_and_then_what_is_earned() {
        let (bucket, pace) = (Bucket::default(), pace(10, 3));
        for _ in 0..3 {
            assert_eq!(bucket.take(pace, SECOND), Taken::Token);
        }
        assert_eq!(bucket.take(pace, SECOND), Taken::Nothing(SECOND / 10));
        assert_eq!(bucket.has(pace, SECOND + SECOND / 10), Taken::Token);
        assert_eq!(bucket.take(pace, SECOND + SECOND / 10), Taken::Token);
        assert_eq!(bucket.take(pace, SECOND + SECOND / 10), Taken::Nothing(SECOND / 10));
        // More than a burst is not saved up.
        let later = 3_600 * SECOND;
        assert_eq!((0..10).filter(|_| bucket.take(pace, later) == Taken::Token).count(), 3);
    }

    #[test]
    fn the_slowest_rate_with_the_largest_burst_is_counted_too() {
        let pace = Pace::from(Rate { count: 1, unit: RateUnit::Hour, burst: 1_000_000 });
        let bucket = Bucket::default();
        let passed = (0..1_000_001).filter(|_| bucket.take(pace, 0) == Taken::Token).count();
        assert_eq!(passed, 1_000_000);
        assert_eq!(bucket.has(pace, 3_600 * SECOND), Taken::Token);
    }

    #[test]
    fn one_that_is_given_up_gives_nothing_and_is_full() {
        let (bucket, pace) = (Bucket::default(), pace(1, 1));
        assert_eq!(bucket.take(pace, 5), Taken::Token);
        assert!(!bucket.retire(5 + SECOND - 1));
        assert!(bucket.retire(5 + SECOND));
        assert_eq!(bucket.take(pace, u64::MAX - 1), Taken::Retired);
        assert!(!bucket.retire(u64::MAX - 1));
    }

    #[test]
    fn threads_together_take_no_more_than_one_would() {
        let (bucket, pace) = (Bucket::default(), pace(1_000, 100));
        let passed = std::thread::scope(|scope| {
            let take = |_| {
                scope.spawn(|| {
                    // All threads see the same times, each at its own speed.
                    let times = (0..20_000_u64).map(|step| step * 50_000);
                    times.filter(|now| bucket.take(pace, *now) == Taken::Token).count()
                })
            };
            let threads: Vec<_> = (0..4).map(take).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).sum::<usize>()
        });
        // A second at a thousand, and the burst.
        assert!((100..=1_100).contains(&passed), "{passed}");
    }

    proptest! {
        /// Between any two that pass, there are no more than burst + rate × time; and one that finds
        /// nothing would find a token after the wait that it is told.
        #[test]
        fn never_more_pass_than_the_burst_and_what_is_earned(
            count in 1_u32..2_000,
            burst in 1_u32..20,
            steps in prop::collection::vec(0_u64..30_000_000, 1..200),
        ) {
            let (bucket, pace) = (Bucket::default(), pace(count, burst));
            let (mut now, mut passed) = (0, Vec::new());
            for step in steps {
                now += step;
                match bucket.take(pace, now) {
                    Taken::Token => passed.push(now),
                    Taken::Nothing(wait) => {
                        prop_assert_ne!(bucket.has(pace, now + wait - 1), Taken::Token);
                        prop_assert_eq!(bucket.has(pace, now + wait), Taken::Token);
                    }
                    Taken::Retired => prop_assert!(false, "nobody gave it up"),
                }
            }
            for (first, from) in passed.iter().enumerate() {
                for (last, to) in passed.iter().enumerate().skip(first) {
                    let earned = u128::from(to - from) * u128::from(count) / u128::from(SECOND);
                    prop_assert!((last - first + 1) as u128 <= u128::from(burst) + earned);
                }
            }
        }
    }
}
