//! What an endpoint did since it was last compared with the others.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::cluster::outliers::peers::Rate;

/// Thousandths of a logarithm: a step is a tenth of a percent.
const STEPS: f64 = 1_000.0;

/// A count and a sum. All workers add to it; the one that sweeps reads and clears it. What is added
/// just then may be lost, which is one of many.
#[derive(Debug, Default)]
pub(super) struct Tally {
    count: AtomicU32,
    sum: AtomicU64,
    /// Intervals that it goes back. Touched by who sweeps.
    intervals: AtomicU32,
}

impl Tally {
    /// A try that was good or not.
    pub(super) fn tried(&self, good: bool) {
        self.add(u64::from(good));
    }

    /// An answer that took so long.
    pub(super) fn timed(&self, took: Duration) {
        // Logarithms, so that one answer that takes a minute does not make an endpoint slow.
        let micros = took.as_secs_f64() * 1e6;
        self.add((micros.max(1.0).ln() * STEPS) as u64);
    }

    fn add(&self, value: u64) {
        self.sum.fetch_add(value, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// The tries, if there were so many.
    pub(super) fn rate(&self, least: u32) -> Option<Rate> {
        let (count, sum) = self.read(least)?;
        Some(Rate { good: u32::try_from(sum).unwrap_or(u32::MAX), all: count })
    }

    /// The usual time of an answer, if there were so many.
    pub(super) fn time(&self, least: u32) -> Option<Duration> {
        let (count, sum) = self.read(least)?;
        let micros = (sum as f64 / f64::from(count) / STEPS).exp();
        Some(Duration::from_secs_f64((micros / 1e6).min(1e9)))
    }

    fn read(&self, least: u32) -> Option<(u32, u64)> {
        let count = self.count.load(Ordering::Relaxed);
        (count >= least.max(1)).then(|| (count, self.sum.load(Ordering::Relaxed)))
    }

    /// An interval has passed in which it was not compared; after `most` of them it begins anew.
    pub(super) fn kept(&self, most: u32) {
        if self.intervals.fetch_add(1, Ordering::Relaxed) + 1 >= most {
            self.clear();
        }
    }

    /// Begins anew.
    pub(super) fn clear(&self) {
        self.count.store(0, Ordering::Relaxed);
        self.sum.store(0, Ordering::Relaxed);
        self.intervals.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_answer_that_takes_long_does_not_make_an_endpoint_slow() {
        let tally = Tally::default();
        for _ in 0..99 {
            tally.timed(Duration::from_millis(5));
        }
        tally.timed(Duration::from_secs(60));
        let usual = tally.time(100).unwrap();
        assert!((4_900..5_600).contains(&usual.as_micros()), "{usual:?}");
        assert_eq!(tally.time(101), None);
    }

    #[test]
    fn what_is_too_little_is_kept_for_a_while() {
        let tally = Tally::default();
        for round in 1..=3 {
            tally.tried(true);
            tally.tried(false);
            tally.kept(4);
            let rate = tally.rate(1).unwrap();
            assert_eq!((rate.good, rate.all), (round, 2 * round));
        }
        tally.kept(4);
        assert!(tally.rate(1).is_none());
    }
}
