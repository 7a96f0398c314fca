//! Which endpoints do worse than the others, by what all of them did in the same time.
//!
//! Pure. Laws: who fails no more than chance explains is not failing; half of the endpoints are never
//! slow; the worst come first, and in which order endpoints are named says nothing.
//! Source: Envoy's detector by success rate, spec L7 §3.5.

use std::time::Duration;

use shared::mesh::{SlowAnswers, SuccessRate};

/// Standard deviations of a count that chance does not explain. Envoy has no such bound: of five
/// endpoints it ejects the one that failed once, if the others never did.
const BEYOND_CHANCE: f64 = 3.0;

/// How many of an endpoint's tries were good.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rate {
    pub(super) good: u32,
    /// Not zero.
    pub(super) all: u32,
}

impl Rate {
    fn share(self) -> f64 {
        f64::from(self.good.min(self.all)) / f64::from(self.all.max(1))
    }
}

/// The places of those that fail more often than the others, the worst first.
pub(super) fn failing(rates: &[Rate], terms: &SuccessRate) -> Vec<usize> {
    let count = rates.len() as f64;
    let mean = rates.iter().map(|rate| rate.share()).sum::<f64>() / count;
    let spread = rates.iter().map(|rate| (rate.share() - mean).powi(2)).sum::<f64>() / count;
    let threshold = mean - spread.sqrt() * f64::from(terms.stdev_factor) / 1_000.0;
    let is_failing = |rate: &Rate| {
        let chance = (mean * (1.0 - mean) / f64::from(rate.all.max(1))).sqrt();
        rate.share() < threshold.min(mean - BEYOND_CHANCE * chance)
    };
    let mut found: Vec<usize> = (0..rates.len()).filter(|at| is_failing(&rates[*at])).collect();
    found.sort_by(|one, other| rates[*one].share().total_cmp(&rates[*other].share()));
    found
}

/// The places of those that take more than `limit`, the slowest first.
pub(super) fn slow(times: &[Duration], limit: Duration) -> Vec<usize> {
    let mut found: Vec<usize> = (0..times.len()).filter(|at| times[*at] > limit).collect();
    found.sort_by_key(|at| std::cmp::Reverse(times[*at]));
    found
}

/// Above which time an answer is slow: so much more than what is usual, which is what more than half of
/// the endpoints do.
pub(super) fn slow_limit(times: &[Duration], terms: &SlowAnswers) -> Option<Duration> {
    let mut times = times.to_vec();
    times.sort_unstable();
    let usual = times.get(times.len() / 2)?;
    let limit = usual.as_secs_f64() * f64::from(terms.factor) / 1_000.0;
    Some(Duration::from_secs_f64(limit.min(1e9)).max(terms.floor))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rates(all: &[(u32, u32)]) -> Vec<Rate> {
        all.iter().map(|(good, all)| Rate { good: *good, all: *all }).collect()
    }

    fn failing_of(all: &[(u32, u32)]) -> Vec<usize> {
        failing(&rates(all), &SuccessRate::default())
    }

    #[test]
    fn one_that_fails_half_of_its_tries_is_found_and_one_failure_is_not() {
        let good = (100, 100);
        assert_eq!(failing_of(&[good, good, (50, 100), good, good]), [2]);
        assert_eq!(failing_of(&[good, good, (99, 100), good, good]), [0; 0], "chance");
        assert_eq!(failing_of(&[good, good, (94, 100), good, good]), [2]);
        assert_eq!(failing_of(&[(50, 100); 5]), [0; 0], "all alike");
        assert_eq!(failing_of(&[]), [0; 0]);
        // Two of twelve: the worst comes first.
        let mut all = [good; 12];
        (all[3], all[7]) = ((55, 100), (50, 100));
        assert_eq!(failing_of(&all), [7, 3]);
    }

    /// Envoy's documentation of the threshold: mean less 1.9 standard deviations.
    #[test]
    fn the_factor_says_how_far_below_the_others() {
        // Mean 0.9, deviation 0.2: 0.52 with 1.9, 0.3 with 3.
        let all = rates(&[(100, 100), (100, 100), (50, 100), (100, 100), (100, 100)]);
        for (stdev_factor, found) in [(1_900, &[2][..]), (3_000, &[])] {
            let terms = SuccessRate { stdev_factor, ..SuccessRate::default() };
            assert_eq!(failing(&all, &terms), found, "{stdev_factor}");
        }
    }

    #[test]
    fn what_more_than_half_do_is_usual() {
        let ms = Duration::from_millis;
        let terms = SlowAnswers::default();
        let found = |all: &[u64]| {
            let times: Vec<_> = all.iter().map(|millis| ms(*millis)).collect();
            slow_limit(&times, &terms).map_or_else(Vec::new, |limit| slow(&times, limit))
        };
        assert_eq!(found(&[5, 50, 5, 6, 5]), [1]);
        assert_eq!(found(&[5, 24, 5, 5, 5]), [0; 0], "less than five times");
        assert_eq!(found(&[1, 9, 1, 1, 1]), [0; 0], "below the floor");
        assert_eq!(found(&[5, 50, 80, 5, 5]), [2, 1]);
        assert_eq!(found(&[5, 50, 50, 50, 5]), [0; 0], "most are");
        assert_eq!(found(&[5, 50, 50, 5]), [0; 0], "half are");
        assert_eq!(found(&[]), [0; 0]);
    }

    proptest! {
        #[test]
        fn chance_ejects_hardly_anybody(
            count in 5..12_usize,
            good_percent in 50..100_u32,
            seed in any::<u64>(),
        ) {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut found = 0;
            for _ in 0..50 {
                let mut draw = || (0..200).filter(|_| random.u32(..100) < good_percent).count();
                let all: Vec<_> =
                    (0..count).map(|_| Rate { good: draw() as u32, all: 200 }).collect();
                found += failing(&all, &SuccessRate::default()).len();
            }
            // Three deviations: one of 740 below, by chance; a few more of skewed draws.
            prop_assert!(found * 100 <= 2 * 50 * count, "{found} of {}", 50 * count);
        }

        #[test]
        fn never_half_are_slow_and_order_says_nothing(
            millis in prop::collection::vec(0..5_000_u64, 0..12),
            factor in 1_500..20_000_u32,
        ) {
            let terms = SlowAnswers { factor, ..SlowAnswers::default() };
            let mut times: Vec<_> = millis.iter().map(|ms| Duration::from_millis(*ms)).collect();
            let Some(limit) = slow_limit(&times, &terms) else {
                prop_assert!(times.is_empty());
                return Ok(());
            };
            let found: Vec<_> = slow(&times, limit).iter().map(|at| times[*at]).collect();
            prop_assert!(found.len() * 2 < times.len(), "{found:?} of {times:?}");
            prop_assert!(found.is_sorted_by(|one, next| one >= next));
            times.reverse();
            let turned: Vec<_> = slow(&times, limit).iter().map(|at| times[*at]).collect();
            prop_assert_eq!(slow_limit(&times, &terms), Some(limit));
            prop_assert_eq!(found, turned);
        }

        #[test]
        fn the_best_is_never_failing(
            all in prop::collection::vec((0..=100_u32, 1..=100_u32), 1..12),
            stdev_factor in 100..5_000_u32,
        ) {
            let all: Vec<_> =
                all.iter().map(|(good, all)| Rate { good: (*good).min(*all), all: *all }).collect();
            let terms = SuccessRate { stdev_factor, ..SuccessRate::default() };
            let found = failing(&all, &terms);
            let best = all.iter().map(|rate| rate.share()).fold(0.0, f64::max);
            prop_assert!(found.iter().all(|at| all[*at].share() < best));
        }
    }
}
