//! Medians over rounds, and how far the rounds lie apart.

use std::collections::BTreeMap;

use super::cell::Cell;
use super::cost::{Cost, Part};
use super::mode::Mode;
use super::record::{Latency, Record, Sample};

/// The median of several rounds, with the lowest and the highest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Spread {
    /// Of at least one value.
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (low, high) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len().is_multiple_of(2) {
            f64::midpoint(values[middle - 1], values[middle])
        } else {
            values[middle]
        };
        Some(Self { median, low, high })
    }
}

/// All rounds of one cell in one mode.
#[derive(Clone, Debug)]
pub(super) struct Group<'a> {
    pub(super) mode: Mode,
    samples: Vec<&'a Sample>,
}

/// The rounds of each mode for `cell`, in the order of modes; modes without any are left out.
pub(super) fn groups(record: &Record, cell: Cell) -> Vec<Group<'_>> {
    record.modes().into_iter().filter_map(|mode| group(record, cell, mode)).collect()
}

/// The rounds of `cell` in `mode`, if there are any.
pub(super) fn group(record: &Record, cell: Cell, mode: Mode) -> Option<Group<'_>> {
    let fits = |sample: &&Sample| sample.mode == mode && sample.cell == cell;
    let samples: Vec<&Sample> = record.samples.iter().filter(fits).collect();
    (!samples.is_empty()).then_some(Group { mode, samples })
}

impl Group<'_> {
    /// Of a figure of each round; rounds without it are left out.
    pub(super) fn spread(&self, figure: impl Fn(&Sample) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.samples.iter().filter_map(|sample| figure(sample)))
    }

    /// Requests, or connections, per second.
    pub(super) fn rate(&self) -> Option<Spread> {
        self.spread(|sample| Some(sample.rate()))
    }

    /// A quantile, in milliseconds.
    pub(super) fn latency_ms(&self, quantile: impl Fn(&Latency) -> u64) -> Option<Spread> {
        self.spread(|sample| Some(quantile(sample.latency.as_ref()?) as f64 / 1000.0))
    }

    /// CPU microseconds per request of the processes that `which` picks.
    pub(super) fn cpu_us(&self, which: impl Fn(Part) -> bool) -> Option<Spread> {
        self.per_request(|cost| if which(cost.part) { cost.user_us + cost.kernel_us } else { 0.0 })
    }

    /// CPU microseconds per request of both sides' proxies, if there are any.
    pub(super) fn proxy_cpu_us(&self) -> Option<Spread> {
        self.cpu_us(Part::is_proxy).filter(|_| self.has_proxies())
    }

    /// CPU seconds per gigabyte of both sides' proxies, if there are any.
    pub(super) fn proxy_cpu_per_gb(&self) -> Option<Spread> {
        self.cpu_per_gb(Part::is_proxy).filter(|_| self.has_proxies())
    }

    /// A figure of all processes together, per request.
    pub(super) fn per_request(&self, figure: impl Fn(&Cost) -> f64) -> Option<Spread> {
        self.spread(|sample| {
            let sum: f64 = sample.costs.iter().map(&figure).sum();
            (sample.done > 0).then(|| sum / sample.done as f64)
        })
    }

    /// CPU seconds per gigabyte of the processes that `which` picks.
    pub(super) fn cpu_per_gb(&self, which: impl Fn(Part) -> bool) -> Option<Spread> {
        self.spread(|sample| {
            let picked = sample.costs.iter().filter(|cost| which(cost.part));
            let sum = picked.fold(0.0, |sum, cost| sum + cost.user_us + cost.kernel_us);
            (sample.bytes > 0).then(|| sum / 1e6 / (sample.bytes as f64 / 1e9))
        })
    }

    /// Bulk in gigabits per second.
    pub(super) fn gbit_per_s(&self) -> Option<Spread> {
        self.spread(|sample| {
            (sample.bytes > 0).then(|| sample.bytes as f64 * 8.0 / 1e9 / sample.seconds)
        })
    }

    /// Resident memory of the larger proxy, in MiB.
    pub(super) fn proxy_mib(&self) -> Option<f64> {
        let proxies = self.first().costs.iter().filter(|cost| cost.part.is_proxy());
        proxies.map(|cost| cost.rss_kib).max().map(|kib| kib as f64 / 1024.0)
    }

    /// The first round, which is where memory is read: in later ones processes still hold what
    /// other measurements (bulk, maxima) made them allocate.
    pub(super) fn first(&self) -> &Sample {
        self.samples[0]
    }

    /// Whether anything stands between the applications.
    pub(super) fn has_proxies(&self) -> bool {
        self.samples.iter().any(|sample| sample.costs.iter().any(|cost| cost.part.is_proxy()))
    }

    /// What an idle connection takes of the proxy that takes more, in KiB.
    pub(super) fn kib_per_connection(&self) -> Option<f64> {
        let sample = self.first();
        let proxies = sample.costs.iter().filter(|cost| cost.part.is_proxy());
        let grown = proxies.map(|cost| cost.rss_kib.saturating_sub(cost.rss_before_kib)).max();
        (sample.done > 0).then_some(grown? as f64 / sample.done as f64)
    }

    /// How many requests of all rounds took how long: upper bound in microseconds, count.
    pub(super) fn histogram(&self) -> Vec<(u64, u64)> {
        let mut merged = BTreeMap::new();
        let latencies = self.samples.iter().filter_map(|sample| sample.latency.as_ref());
        for (bound, count) in latencies.flat_map(|latency| &latency.histogram) {
            *merged.entry(*bound).or_default() += count;
        }
        merged.into_iter().collect()
    }

    /// All failures of all rounds.
    pub(super) fn errors(&self) -> u64 {
        self.samples.iter().flat_map(|sample| sample.errors.values()).sum()
    }

    /// Whether the rate could not be held in more than half of the rounds.
    pub(super) fn is_saturated(&self) -> bool {
        let saturated = self.samples.iter().filter(|sample| sample.is_saturated()).count();
        saturated * 2 > self.samples.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        let spread = Spread::of([3.0, 1.0, 2.0]);
        assert_eq!(spread, Some(Spread { median: 2.0, low: 1.0, high: 3.0 }));
        assert_eq!(Spread::of([1.0, 2.0]).map(|spread| spread.median), Some(1.5));
        assert_eq!(Spread::of([]), None);
    }
}
