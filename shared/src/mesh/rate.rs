//! How many requests may pass in a time.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

/// Limits of the requests to a service or of a route; at least one of them is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RateLimits {
    /// All callers together: `culvert.dev/rate-limit`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub together: Option<Rate>,
    /// Each identity by itself: `culvert.dev/rate-limit-per-caller`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_caller: Option<Rate>,
}

/// So many requests in a time, evenly, and so many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    /// Requests in each unit of time. 1 to 1,000,000.
    pub count: u32,
    /// The unit of time.
    pub unit: RateUnit,
    /// Requests at once, when none came for long. 1 to 1,000,000.
    pub burst: u32,
}

/// A unit of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RateUnit {
    /// `s`.
    Second,
    /// `m`.
    Minute,
    /// `h`.
    Hour,
}

impl Rate {
    /// The time in which one request is earned, at least: what is left of a nanosecond is added, so
    /// that never more pass than `count` in a unit.
    pub fn interval(self) -> Duration {
        Duration::from_nanos(self.unit.nanos().div_ceil(self.count.max(1).into()))
    }
}

impl RateUnit {
    fn nanos(self) -> u64 {
        let seconds = match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3_600,
        };
        seconds * 1_000_000_000
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.unit {
            RateUnit::Second => "s",
            RateUnit::Minute => "m",
            RateUnit::Hour => "h",
        };
        write!(f, "{}/{unit} burst {}", self.count, self.burst)
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_never_holds_more_than_its_count() {
        for (count, unit) in [
            (1, RateUnit::Hour),
            (3, RateUnit::Second),
            (7, RateUnit::Minute),
            (999_999, RateUnit::Second),
            (1_000_000, RateUnit::Second),
        ] {
            let rate = Rate { count, unit, burst: 1 };
            assert!(rate.interval() * count >= Duration::from_nanos(unit.nanos()), "{rate}");
        }
    }
}
