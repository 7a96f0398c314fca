//! Numbers, shares and times as Istio writes them.

use std::time::Duration;

use crate::feed::fields::Fields;
use crate::feed::verdict::Cause;
use crate::mesh::Share;

/// Longer times are taken for mistakes.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// A count of Kubernetes' `int32`, of which Istio takes 0 for "not set".
pub(in crate::feed::object) fn count(fields: &Fields<'_>, name: &str) -> Option<u32> {
    number(fields, name, i32::MAX as u32).filter(|count| *count > 0)
}

/// A whole number from 0 to `most`.
pub(in crate::feed::object) fn number(fields: &Fields<'_>, name: &str, most: u32) -> Option<u32> {
    let number = fields.number::<u32>(name)?;
    if number > most {
        fields.report(name, Cause::Invalid, format_args!("must be 0 to {most}"));
        return None;
    }
    Some(number)
}

/// Whole percent.
pub(in crate::feed::object) fn percent(fields: &Fields<'_>, name: &str) -> Option<u8> {
    number(fields, name, 100).and_then(|percent| u8::try_from(percent).ok())
}

/// Percent with a fraction.
pub(in crate::feed::object) fn share(fields: &Fields<'_>, name: &str) -> Option<Share> {
    let percent = fields.number::<f64>(name)?;
    let share = Share::percent(percent);
    if share.is_none() {
        fields.report(name, Cause::Invalid, "must be 0 to 100");
    }
    share
}

/// A time of at least 1 ms; Istio refuses less.
pub(in crate::feed::object) fn time(fields: &Fields<'_>, name: &str) -> Option<Duration> {
    let time = any_time(fields, name)?;
    if time < Duration::from_millis(1) {
        fields.report(name, Cause::Invalid, "must be at least 1ms");
        return None;
    }
    Some(time)
}

/// A time that may be zero.
pub(in crate::feed::object) fn any_time(fields: &Fields<'_>, name: &str) -> Option<Duration> {
    let text = fields.text(name)?;
    let time = duration(text).filter(|time| *time <= LONGEST);
    if time.is_none() {
        let reason =
            format!("\"{text}\" is no time up to a year; write it as 1h30m, 1.5s or 250ms");
        fields.report(name, Cause::Invalid, reason);
    }
    time
}

/// Units, the longer names before those that they begin with, and their nanoseconds.
const UNITS: [(&str, u64); 7] = [
    ("ms", 1_000_000),
    ("us", 1_000),
    ("µs", 1_000),
    ("ns", 1),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
];

/// Numbers with units, as Go writes durations; `1.5s` and `1h30m` alike, never negative.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let (mut rest, mut nanos) = (text, 0_u64);
    if rest.len() > 32 {
        return None;
    }
    while !rest.is_empty() {
        let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
        let whole = digits(rest);
        let number: u64 = rest.get(..whole).filter(|_| whole > 0)?.parse().ok()?;
        rest = &rest[whole..];
        let mut fraction = "";
        if let Some(after) = rest.strip_prefix('.') {
            (fraction, rest) = after.split_at(digits(after));
            if fraction.is_empty() {
                return None;
            }
        }
        let (unit, size) = UNITS.into_iter().find(|(unit, _)| rest.starts_with(unit))?;
        rest = &rest[unit.len()..];
        let mut part = size;
        nanos = nanos.checked_add(number.checked_mul(size)?)?;
        for digit in fraction.bytes() {
            part /= 10;
            nanos = nanos.checked_add(part * u64::from(digit - b'0'))?;
        }
    }
    (!text.is_empty()).then(|| Duration::from_nanos(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_istio() {
        for (text, micros) in [
            ("0s", 0),
            ("10s", 10_000_000),
            ("1.5s", 1_500_000),
            ("0.25s", 250_000),
            ("1h30m", 5_400_000_000),
            ("250ms", 250_000),
            ("1m0.5s", 60_500_000),
            ("15us", 15),
        ] {
            assert_eq!(duration(text), Some(Duration::from_micros(micros)), "{text}");
        }
        for text in ["", "1", "s", ".5s", "1.s", "-1s", "1d", "1s ", " 1s", "99999999999999h"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn shares_are_percent() {
        assert_eq!(Share::percent(12.5).unwrap().as_f64(), 0.125);
        assert_eq!(Share::percent(100.0), Some(Share::WHOLE));
        for wrong in [-0.1, 100.1, f64::NAN, f64::INFINITY] {
            assert_eq!(Share::percent(wrong), None);
        }
    }
}
