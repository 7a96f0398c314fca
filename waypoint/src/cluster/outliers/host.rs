//! What is known about one endpoint: its failures in a row, what it did lately, and its ejections.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use shared::mesh::OutlierDetection;
use tokio::time::Instant;

use crate::cluster::outliers::Reason;
use crate::cluster::outliers::tally::Tally;

/// Envoy's `max_ejection_time`, where the base is not longer.
const LONGEST: Duration = Duration::from_secs(300);

/// Good answers after which a probed endpoint is in again, where failures in a row do not say more.
pub(super) const MOST_PROBES: u32 = 5;

/// One endpoint, as all workers see it.
#[derive(Debug, Default)]
pub struct Host {
    pub(super) in_a_row_5xx: AtomicU32,
    pub(super) in_a_row_gateway: AtomicU32,
    pub(super) in_a_row_local: AtomicU32,
    /// How many of its tries were good, for who compares.
    pub(super) tries: Tally,
    /// How long its answers took.
    pub(super) times: Tally,
    /// Nanoseconds until which it is ejected; 0 when it is in.
    pub(super) until: AtomicU64,
    /// Good answers since it is probed.
    pub(super) passed: AtomicU32,
    /// A probe is under way.
    pub(super) probing: AtomicBool,
    /// The rest is touched under the lock alone.
    pub(super) history: Mutex<History>,
}

#[derive(Debug, Default)]
pub(super) struct History {
    /// How many base times the next ejection lasts, less one.
    pub(super) ejections: u32,
    /// When it was in again.
    pub(super) returned: Option<Instant>,
    /// Why it is out, or was last.
    pub(super) reason: Option<Reason>,
    pub(super) gone: bool,
}

impl Host {
    /// What `Outliers::probe` began is over.
    pub fn probe_over(&self) {
        self.probing.store(false, Ordering::Release);
    }

    /// Counts a try, as far as endpoints are compared.
    pub(super) fn tally(&self, good: bool, took: Option<Duration>, config: &OutlierDetection) {
        if config.success_rate.is_some() {
            self.tries.tried(good);
        }
        // A failure is no answer: many are fast.
        if let Some(took) = took.filter(|_| good && config.latency.is_some()) {
            self.times.timed(took);
        }
    }

    /// What it did is no longer compared.
    pub(super) fn forget(&self) {
        self.tries.clear();
        self.times.clear();
    }

    pub(super) fn leave(&self, until: u64) {
        self.forget();
        for row in [&self.in_a_row_5xx, &self.in_a_row_gateway, &self.in_a_row_local, &self.passed]
        {
            row.store(0, Ordering::Release);
        }
        // 0 means that it is in.
        self.until.store(until.max(1), Ordering::Release);
    }
}

impl History {
    /// The length of an ejection that begins now. Envoy: with each interval without one, it is
    /// shorter by a base time.
    pub(super) fn length(&mut self, config: &OutlierDetection, now: Instant) -> Duration {
        if let Some(returned) = self.returned {
            let quiet = now.saturating_duration_since(returned).as_nanos();
            let intervals = quiet / config.interval.as_nanos().max(1);
            let forgiven = u32::try_from(intervals).unwrap_or(u32::MAX);
            self.ejections = self.ejections.saturating_sub(forgiven);
        }
        let longest = LONGEST.max(config.base_ejection);
        if config.base_ejection.saturating_mul(self.ejections) < longest {
            self.ejections += 1;
        }
        config.ejection(self.ejections)
    }
}

/// What the settings mean.
pub(super) trait Settings {
    /// How long an ejection is, the `count`-th in short succession.
    fn ejection(&self, count: u32) -> Duration;
    /// Good answers until an endpoint is in again that was out for `reason`.
    fn probes(&self, reason: Reason) -> u32;
}

impl Settings for OutlierDetection {
    fn ejection(&self, count: u32) -> Duration {
        let longest = LONGEST.max(self.base_ejection);
        self.base_ejection.saturating_mul(count.max(1)).min(longest)
    }

    fn probes(&self, reason: Reason) -> u32 {
        // Who fails half of the time answers well once, but not so often.
        if matches!(reason, Reason::SuccessRate | Reason::Latency) {
            return MOST_PROBES;
        }
        let rows = [self.consecutive_5xx, self.consecutive_gateway_errors];
        let rows = rows.into_iter().chain([self.consecutive_local_failures]);
        rows.flatten().min().unwrap_or(1).clamp(1, MOST_PROBES)
    }
}

pub(super) fn reset(row: &AtomicU32) {
    // A write would take the line away from the other workers, for nothing most of the time.
    if row.load(Ordering::Relaxed) != 0 {
        row.store(0, Ordering::Release);
    }
}
