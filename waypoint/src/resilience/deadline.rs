//! How long a request may still take, as its caller says it and as the next hop is told.
//!
//! Source: gRPC over HTTP/2, `grpc-timeout`; Envoy's `x-envoy-expected-rq-timeout-ms` (spec L7 §3.7).

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

/// gRPC's own.
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// Milliseconds that are left, from Envoys and from us.
const EXPECTED: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");

/// What the caller leaves for a request; none where it says nothing that can be understood.
#[must_use]
pub fn left_by_caller(headers: &HeaderMap, is_grpc: bool) -> Option<Duration> {
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let expected = text(&EXPECTED).and_then(|text| text.parse().ok()).map(Duration::from_millis);
    let grpc = text(&GRPC_TIMEOUT).filter(|_| is_grpc).and_then(parse);
    let stated = [expected, grpc].into_iter().flatten();
    stated.filter(|left| !left.is_zero()).min()
}

/// Tells the next hop what is left.
pub fn tell(headers: &mut HeaderMap, left: Duration, is_grpc: bool) {
    let millis = u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1);
    headers.insert(EXPECTED, HeaderValue::from(millis));
    if is_grpc && let Ok(value) = HeaderValue::try_from(written(millis)) {
        headers.insert(GRPC_TIMEOUT, value);
    }
}

/// Eight digits at most, in the finest unit that holds them, from milliseconds on.
fn written(millis: u64) -> String {
    const MOST: u64 = 99_999_999;
    match millis {
        0..=MOST => format!("{millis}m"),
        _ => format!("{}S", (millis / 1_000).min(MOST)),
    }
}

/// One to eight digits and a unit.
fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3_600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn timeouts_of_grpc_are_read_by_their_grammar_and_otherwise_ignored() {
        for (text, millis) in
            [("1H", 3_600_000), ("2M", 120_000), ("3S", 3_000), ("99999999m", 99_999_999)]
        {
            assert_eq!(parse(text), Some(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(parse("5u"), Some(Duration::from_micros(5)));
        for text in ["", "S", "1", "1s", "123456789m", "-1S", "+1S", "1.5S", " 1S", "1S ", "1µ"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_nearest_deadline_counts_and_grpcs_only_for_grpc() {
        let both = headers(&[("grpc-timeout", "1S"), ("x-envoy-expected-rq-timeout-ms", "1500")]);
        assert_eq!(left_by_caller(&both, true), Some(Duration::from_secs(1)));
        assert_eq!(left_by_caller(&both, false), Some(Duration::from_millis(1_500)));
        let none = headers(&[("x-envoy-expected-rq-timeout-ms", "0")]);
        assert_eq!(left_by_caller(&none, true), None);
    }

    proptest! {
        #[test]
        fn what_is_told_is_understood(millis in 1_u64..=u64::from(u32::MAX)) {
            let left = Duration::from_millis(millis);
            let mut told = HeaderMap::new();
            tell(&mut told, left, true);
            let understood = left_by_caller(&told, true).unwrap();
            prop_assert!(understood <= left && left - understood < Duration::from_secs(1));
        }

        #[test]
        fn nothing_that_a_caller_says_panics(text in "\\PC{0,12}") {
            let _ = parse(&text);
        }
    }
}
