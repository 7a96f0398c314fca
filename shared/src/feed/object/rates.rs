//! The annotations `culvert.dev/rate-limit` and `culvert.dev/rate-limit-per-caller`.
//!
//! Invariants: a rate that is in force is within its bounds; whatever else is written is invalid, so
//! that its object keeps its last good version, and with it its last good limit.

use std::sync::Arc;

use crate::feed::fields::Fields;
use crate::feed::verdict::Cause;
use crate::mesh::{Rate, RateLimits, RateUnit};

/// Of all callers together.
pub(super) const TOGETHER: &str = "culvert.dev/rate-limit";
/// Of each identity.
pub(super) const PER_CALLER: &str = "culvert.dev/rate-limit-per-caller";

/// Most requests in a unit and at once: at a million a second a request is earned each microsecond,
/// which is less than a waypoint needs to pass one on.
const MOST: u64 = 1_000_000;

/// The limits of an object; none where it has neither annotation.
pub(super) fn read(root: &Fields<'_>) -> Option<Arc<RateLimits>> {
    let annotations = root.fields("metadata")?.fields("annotations")?;
    let limits = RateLimits {
        together: rate(&annotations, TOGETHER),
        per_caller: rate(&annotations, PER_CALLER),
    };
    if let RateLimits { together: Some(all), per_caller: Some(each) } = &limits
        && each.interval() <= all.interval()
        && each.burst >= all.burst
    {
        let reason = format!("is never reached: {TOGETHER} allows all callers together no more");
        annotations.report(PER_CALLER, Cause::Shadowed, reason);
    }
    (limits.together.is_some() || limits.per_caller.is_some()).then(|| Arc::new(limits))
}

fn rate(annotations: &Fields<'_>, key: &str) -> Option<Rate> {
    match parse(annotations.text(key)?) {
        Ok(rate) => Some(rate),
        Err(reason) => {
            annotations.report(key, Cause::Invalid, reason);
            None
        }
    }
}

/// `COUNT/UNIT`, or `COUNT/UNIT burst BURST`.
fn parse(text: &str) -> Result<Rate, String> {
    let form = || format!("\"{text}\" is no rate; write it as 100/s, 600/m burst 50 or 10000/h");
    let (rate, burst) = match text.split_once(" burst ") {
        Some((rate, burst)) => (rate, Some(burst)),
        None => (text, None),
    };
    let (count, unit) = rate.split_once('/').ok_or_else(form)?;
    let unit = match unit {
        "s" => RateUnit::Second,
        "m" => RateUnit::Minute,
        "h" => RateUnit::Hour,
        _ => return Err(form()),
    };
    let count = number(count, "the count").unwrap_or_else(|| Err(form()))?;
    let burst = match burst {
        // What a unit of time earns may come at once.
        None => count,
        Some(burst) => number(burst, "the burst").unwrap_or_else(|| Err(form()))?,
    };
    Ok(Rate { count, unit, burst })
}

/// Nothing for what is no number at all.
fn number(text: &str, what: &str) -> Option<Result<u32, String>> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number = text.parse::<u64>().ok().filter(|number| (1..=MOST).contains(number));
    let number = number.and_then(|number| u32::try_from(number).ok());
    Some(number.ok_or_else(|| {
        format!("{what} must be 1 to {MOST}; what nobody may do is said by an AuthorizationPolicy")
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_written_in_one_way() {
        let rate = |count, unit, burst| Ok(Rate { count, unit, burst });
        for (text, expected) in [
            ("100/s", rate(100, RateUnit::Second, 100)),
            ("600/m burst 50", rate(600, RateUnit::Minute, 50)),
            ("1/h burst 1000000", rate(1, RateUnit::Hour, 1_000_000)),
        ] {
            assert_eq!(parse(text), expected, "{text}");
            let shown = expected.map(|rate| rate.to_string()).unwrap_or_default();
            assert!(shown.starts_with(text), "{shown}");
        }
        for text in [
            "",
            "100",
            "/s",
            "100/",
            "100/d",
            "100/sec",
            "-1/s",
            "+1/s",
            "1.5/s",
            "1e3/s",
            " 100/s",
            "100/s ",
            "100 / s",
            "100/S",
            "100/s burst",
            "100/s burst ",
            "100/s burst -1",
            "100/s burst 5 burst 6",
            "100/s,burst 5",
            "1００/s",
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains("is no rate"), "{text}: {error}");
        }
        for text in [
            "0/s",
            "00/m",
            "1000001/s",
            "100/s burst 0",
            "100/s burst 1000001",
            "99999999999999999999999/h",
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains("must be 1 to 1000000"), "{text}: {error}");
        }
    }
}
