//! Failures that are made on purpose, to see what others make of them.
//!
//! Invariants: made after a request was allowed and before anything else is done with it, so that no
//! endpoint is blamed, no limit of time or number is spent, and no budget is touched; each is counted
//! and told. Whether a request waits and whether it fails are drawn apart; one that waits may be
//! revoked meanwhile.
//! Source: spec L7 §1.11, §3.8.

use std::time::Duration;

use shared::mesh::{AbortStatus, Fault};
use tokio::time::sleep;

use crate::metrics::FaultKind;
use crate::permits::Watch;
use crate::request::{Failure, Story};
use crate::router::Rule;

/// Lets a request wait, or fail, as its rule says.
///
/// # Errors
/// It fails, or is no longer allowed.
pub(super) async fn make(rule: &Rule, watch: &mut Watch, story: &mut Story) -> Result<(), Failure> {
    let Some(fault) = &rule.fault else { return Ok(()) };
    let (delay, abort) = drawn(fault, fastrand::u64(..), fastrand::u64(..));
    if let Some(time) = delay {
        story.delayed(time);
        story.count_fault(FaultKind::Delay);
        watch.during(sleep(time)).await.map_err(Failure::Revoked)?;
    }
    let Some(status) = abort else { return Ok(()) };
    story.count_fault(FaultKind::Abort);
    Err(Failure::Aborted(status))
}

/// What becomes of a request that drew these numbers.
fn drawn(fault: &Fault, waits: u64, fails: u64) -> (Option<Duration>, Option<AbortStatus>) {
    let delay = fault.delay.filter(|delay| delay.share.takes(waits));
    let abort = fault.abort.filter(|abort| abort.share.takes(fails));
    (delay.map(|delay| delay.time), abort.map(|abort| abort.status))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shared::mesh::{Abort, Delay, Share};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const ABORTED: AbortStatus = AbortStatus::Grpc(14);

    fn fault(waits: f64, fails: f64) -> Fault {
        let share = |percent| Share::percent(percent).unwrap();
        Fault {
            delay: Some(Delay { time: SECOND, share: share(waits) }),
            abort: Some(Abort { status: ABORTED, share: share(fails) }),
        }
    }

    #[test]
    fn nothing_happens_to_what_no_share_takes() {
        assert_eq!(drawn(&Fault::default(), 0, 0), (None, None));
        assert_eq!(drawn(&fault(0.0, 0.0), 0, 0), (None, None));
        assert_eq!(drawn(&fault(100.0, 0.0), u64::MAX, 0), (Some(SECOND), None));
        assert_eq!(drawn(&fault(0.0, 100.0), 0, u64::MAX), (None, Some(ABORTED)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20))]

        /// Of a million draws in a row exactly the share, to the ten-thousandth of a percent, from
        /// wherever they begin.
        #[test]
        fn shares_are_exact(millionths in 0_u32..=1_000_000, begin in 0_u64..u64::MAX / 2) {
            let percent = f64::from(millionths) / 10_000.0;
            let fault = fault(percent, percent);
            let draws = begin..begin + 1_000_000;
            let (mut waiting, mut failing) = (0, 0);
            for draw in draws {
                let (wait, fail) = drawn(&fault, draw, draw);
                waiting += u32::from(wait.is_some());
                failing += u32::from(fail.is_some());
            }
            prop_assert_eq!((waiting, failing), (millionths, millionths));
        }

        /// Neither says anything about the other.
        #[test]
        fn dice_are_independent(percent in 0_u32..=100, draws in any::<[u64; 2]>()) {
            let fault = fault(f64::from(percent), f64::from(100 - percent));
            let [waits, fails] = draws;
            let both = drawn(&fault, waits, fails);
            prop_assert_eq!(both.0, drawn(&fault, waits, fails.wrapping_add(1)).0);
            prop_assert_eq!(both.1, drawn(&fault, waits.wrapping_add(1), fails).1);
        }

        /// A seeded generator, as requests draw: within five deviations of the share.
        #[test]
        fn requests_get_their_share(percent in 1_u32..100, seed in any::<u64>()) {
            let (fault, mut random) = (fault(f64::from(percent), 0.0), fastrand::Rng::with_seed(seed));
            let count = 20_000_u32;
            let waiting = (0..count)
                .filter(|_| drawn(&fault, random.u64(..), random.u64(..)).0.is_some())
                .count();
            let share = f64::from(percent) / 100.0;
            let deviation = (f64::from(count) * share * (1.0 - share)).sqrt();
            let distance = (waiting as f64 - f64::from(count) * share).abs();
            prop_assert!(distance <= 5.0 * deviation + 1.0, "{waiting} of {count} for {percent} %");
        }
    }
}
