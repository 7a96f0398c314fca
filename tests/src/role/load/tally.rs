//! What the load generator counts.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::Report;
use crate::role::now_ms;

/// Two minutes: longer than any request may take.
const MAX_US: u64 = 120_000_000;
/// The histogram of the report starts here and grows by [`GROWTH`]; about 150 steps to a second.
const FIRST_US: u64 = 10;
const GROWTH: f64 = 1.05;

/// Latencies, answers and errors of one run.
pub(super) struct Tally {
    latency: Histogram<u64>,
    report: Report,
    /// Answers by server; there are a few at most.
    servers: Vec<(Vec<u8>, u64)>,
}

impl Tally {
    pub(super) fn new() -> anyhow::Result<Self> {
        let latency = Histogram::new_with_bounds(1, MAX_US, 3)?;
        Ok(Self { latency, report: Report::default(), servers: Vec::new() })
    }

    /// An answer came while counting.
    pub(super) fn came(&mut self) {
        self.report.answers += 1;
    }

    /// The answer to a request that was due while counting.
    pub(super) fn answered(&mut self, took: Duration, server: &[u8]) {
        self.record(took);
        self.report.ok += 1;
        match self.servers.iter_mut().find(|(name, _)| name == server) {
            Some((_, count)) => *count += 1,
            None => self.servers.push((server.to_vec(), 1)),
        }
    }

    pub(super) fn unsent(&mut self, waited: Duration) {
        self.record(waited);
        self.report.unsent += 1;
    }

    pub(super) fn failed(&mut self, kind: String) {
        let now = now_ms();
        let first = self.report.errors_at_ms.map_or(now, |(first, _)| first);
        self.report.errors_at_ms = Some((first, now));
        *self.report.errors.entry(kind).or_default() += 1;
    }

    /// The report on what was counted between the two instants.
    pub(super) fn report(mut self, from: Instant, to: Instant) -> Report {
        let at = |quantile| self.latency.value_at_quantile(quantile);
        let (p50_us, p90_us, p99_us, p999_us) = (at(0.5), at(0.9), at(0.99), at(0.999));
        let name = |name: Vec<u8>| String::from_utf8_lossy(&name).into_owned();
        let servers = self.servers.drain(..).map(|(server, count)| (name(server), count));
        Report {
            servers: servers.collect(),
            seconds: to.saturating_duration_since(from).as_secs_f64(),
            p50_us,
            p90_us,
            p99_us,
            p999_us,
            max_us: self.latency.max(),
            histogram: steps(&self.latency),
            ..self.report
        }
    }

    fn record(&mut self, took: Duration) {
        self.latency.saturating_record((took.as_micros() as u64).max(1));
    }
}

fn steps(latency: &Histogram<u64>) -> Vec<(u64, u64)> {
    let steps = latency.iter_log(FIRST_US, GROWTH);
    let steps = steps.map(|step| (step.value_iterated_to(), step.count_since_last_iteration()));
    steps.filter(|(_, count)| *count > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_histogram_holds_every_request_once() {
        let mut tally = Tally::new().unwrap();
        for us in [1, 9, 10, 11, 500, 1_000_000] {
            tally.answered(Duration::from_micros(us), b"s");
        }
        tally.unsent(Duration::from_secs(3));
        let now = Instant::now();
        let report = tally.report(now, now + Duration::from_secs(1));
        assert_eq!(report.histogram.iter().map(|(_, count)| count).sum::<u64>(), 7);
        assert!(report.histogram.is_sorted());
        assert_eq!((report.ok, report.unsent, report.servers["s"]), (6, 1, 6));
        assert!(report.max_us >= 3_000_000, "{}", report.max_us);
    }
}
