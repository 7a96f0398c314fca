//! How long to wait before a request is sent once more.
//!
//! Source: Envoy's fully jittered exponential back-off (spec L7 §3.6); Gateway API GEP-1731;
//! `Retry-After` (RFC 9110 §10.2.3).

use std::time::Duration;

use http::HeaderMap;
use http::header::RETRY_AFTER;

/// Envoy's base.
const BASE: Duration = Duration::from_millis(25);
/// The longest wait, in bases.
const MOST_BASES: u32 = 10;
/// The longest `Retry-After` that is waited for. 5 s; who waits longer had better be answered now.
const LONGEST_ASKED: Duration = Duration::from_secs(5);

/// The wait before repetition `number`, from 1: at least `least` where the route says so.
/// `draw` is a random number below 1.
#[must_use]
pub fn wait(number: u32, least: Option<Duration>, draw: f64) -> Duration {
    let base = least.unwrap_or(BASE);
    let bases = 2_u32.saturating_pow(number).saturating_sub(1).min(MOST_BASES);
    let jittered = base.saturating_mul(bases).mul_f64(draw.clamp(0.0, 1.0));
    // GEP-1731: the minimum, to which jitter may be added.
    jittered.saturating_add(least.unwrap_or_default())
}

/// What the endpoint asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// Nothing.
    Nothing,
    /// That much time.
    Wait(Duration),
    /// More time than anyone waits, or a date.
    TooLong,
}

/// Reads `Retry-After`. A date is not waited for: its clock is another one.
#[must_use]
pub fn asked(headers: &HeaderMap) -> Asked {
    let Some(value) = headers.get(RETRY_AFTER) else { return Asked::Nothing };
    let seconds = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    match seconds.map(Duration::from_secs) {
        Some(time) if time <= LONGEST_ASKED => Asked::Wait(time),
        Some(_) | None => Asked::TooLong,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn waits_grow_as_envoys_do_and_stop_growing() {
        let longest = |number| wait(number, None, 1.0).as_millis();
        assert_eq!([1, 2, 3, 4, 5, 40].map(longest), [25, 75, 175, 250, 250, 250]);
        assert_eq!(wait(1, None, 0.0), Duration::ZERO);
    }

    #[test]
    fn retry_after_is_respected_within_its_bound() {
        for (value, expected) in [
            ("0", Asked::Wait(Duration::ZERO)),
            ("5", Asked::Wait(Duration::from_secs(5))),
            ("6", Asked::TooLong),
            ("99999999999999999999", Asked::TooLong),
            ("Wed, 21 Oct 2015 07:28:00 GMT", Asked::TooLong),
        ] {
            let value = HeaderValue::from_static(value);
            assert_eq!(asked(&HeaderMap::from_iter([(RETRY_AFTER, value)])), expected);
        }
        assert_eq!(asked(&HeaderMap::new()), Asked::Nothing);
    }

    proptest! {
        #[test]
        fn no_wait_is_shorter_than_the_route_says_nor_beyond_eleven_bases(
            number in 1_u32..100,
            millis in 1_u64..10_000,
            draw in 0.0_f64..1.0,
        ) {
            let least = Duration::from_millis(millis);
            let waited = wait(number, Some(least), draw);
            prop_assert!(waited >= least && waited <= least * (MOST_BASES + 1));
        }
    }
}
