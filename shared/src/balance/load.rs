//! What is known about one endpoint: its open work, how fast it connects, how often it failed.

use std::time::Duration;

use tokio::time::Instant;

use crate::balance::Config;

/// The observed state of one endpoint.
#[derive(Debug, Clone)]
pub(super) struct Load {
    /// Connections in flight.
    pub(super) outstanding: u32,
    /// Seconds to connect, smoothed; `None` before the first success.
    connect_secs: Option<f64>,
    observed: Instant,
    /// Connect failures since the last success.
    failures: u32,
    /// Ejections since the last success.
    ejections: u32,
    ejected_until: Option<Instant>,
    /// Start of slow start: first sight or the end of an ejection.
    fresh_since: Instant,
}

impl Load {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            outstanding: 0,
            connect_secs: None,
            observed: now,
            failures: 0,
            ejections: 0,
            ejected_until: None,
            fresh_since: now,
        }
    }

    /// When its ejection ends, if it is ejected at `now`.
    pub(super) fn ejected_until(&self, now: Instant) -> Option<Instant> {
        self.ejected_until.filter(|until| *until > now)
    }

    /// Whether nothing was seen of it for `idle`, so that it may be forgotten.
    pub(super) fn is_stale(&self, now: Instant, idle: Duration) -> bool {
        let last = self.ejected_until.unwrap_or(self.observed).max(self.observed);
        self.outstanding == 0 && now.saturating_duration_since(last) > idle
    }

    /// A connection was made in `took`. A slower sample counts at once, a faster one is smoothed in
    /// (peak EWMA), so that one slow endpoint is left alone before it hurts many connections.
    pub(super) fn connected(&mut self, took: Duration, now: Instant, config: &Config) {
        let sample = took.as_secs_f64();
        let old = self.connect_estimate(now, config);
        let age = now.saturating_duration_since(self.observed).as_secs_f64();
        let keep = (-age / config.smoothing.as_secs_f64()).exp().min(0.9);
        self.connect_secs = Some(match old {
            Some(old) if old > sample => old * keep + sample * (1.0 - keep),
            _ => sample,
        });
        self.observed = now;
        self.failures = 0;
        self.ejections = 0;
        self.ejected_until = None;
    }

    /// A connection could not be made.
    pub(super) fn failed(&mut self, now: Instant, config: &Config) {
        self.observed = now;
        self.failures += 1;
        if self.failures >= config.failures_to_eject && self.ejected_until(now).is_none() {
            let time = config.ejection.saturating_mul(1 << self.ejections.min(16));
            let until = now + time.min(config.max_ejection);
            self.ejections += 1;
            self.ejected_until = Some(until);
            self.fresh_since = until;
        }
    }

    /// Smoothed seconds to connect. It fades while nothing is observed, so that an endpoint that
    /// was slow once is tried again.
    fn connect_estimate(&self, now: Instant, config: &Config) -> Option<f64> {
        let age = now.saturating_duration_since(self.observed).as_secs_f64();
        let fade = (-age / (3.0 * config.smoothing.as_secs_f64())).exp();
        self.connect_secs.map(|secs| secs * fade)
    }

    /// Share of its capacity that an endpoint gets: grows over the slow-start window.
    fn warmth(&self, now: Instant, config: &Config) -> f64 {
        let age = now.saturating_duration_since(self.fresh_since).as_secs_f64();
        (age / config.slow_start.as_secs_f64().max(f64::EPSILON))
            .clamp(config.slow_start_share, 1.0)
    }

    /// Whether one more connection costs less here than on `other`.
    pub(super) fn is_better(
        &self,
        capacity: u32,
        (other, other_capacity): (&Self, u32),
        now: Instant,
        config: &Config,
    ) -> bool {
        let work = |load: &Self, capacity: u32| {
            f64::from(load.outstanding + 1) / (f64::from(capacity) * load.warmth(now, config))
        };
        let (mine, theirs) = (work(self, capacity), work(other, other_capacity));
        match (self.connect_estimate(now, config), other.connect_estimate(now, config)) {
            (Some(my_secs), Some(their_secs)) => {
                let floor = config.connect_floor.as_secs_f64();
                mine * my_secs.max(floor) < theirs * their_secs.max(floor)
            }
            _ => mine < theirs,
        }
    }
}
