//! What is known about one endpoint: its open and recent work, how fast it connects, how often it
//! failed.
//!
//! What a further connection costs is work × time to connect. Both keep one slow sample from
//! starving an endpoint: recent connections count as work, so a cost that is ten times higher means
//! a tenth of the connections and not none; and what was measured fades until it is measured again.

use std::time::Duration;

use tokio::time::Instant;

use crate::balance::Config;

/// The observed state of one endpoint.
#[derive(Debug, Clone)]
pub(super) struct Load {
    /// Connections in flight.
    pub(super) outstanding: u32,
    /// Of those, the ones that are not made yet.
    connecting: u32,
    /// Since when connections are not made yet, without one that was made or failed in between.
    silent_since: Instant,
    /// Connections begun lately, each fading from 1 to nothing; as of `begun`.
    recent: f64,
    begun: Instant,
    connect: ConnectTime,
    /// Connect failures since the last success.
    failures: u32,
    /// Ejections since the last success.
    ejections: u32,
    ejected_until: Option<Instant>,
    /// Start of slow start: first sight or the end of an ejection.
    fresh_since: Instant,
}

/// Weight of a new sample when there were many before.
const LEAST_WEIGHT: f64 = 0.1;

impl Load {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            outstanding: 0,
            connecting: 0,
            silent_since: now,
            recent: 0.0,
            begun: now,
            connect: ConnectTime { log: 0.0, samples: 0, observed: now },
            failures: 0,
            ejections: 0,
            ejected_until: None,
            fresh_since: now,
        }
    }

    /// Slow start begins anew.
    pub(super) fn refresh(&mut self, now: Instant) {
        self.fresh_since = now;
    }

    /// When its ejection ends, if it is ejected at `now`.
    pub(super) fn ejected_until(&self, now: Instant) -> Option<Instant> {
        self.ejected_until.filter(|until| *until > now)
    }

    /// When its last ejection ends or ended.
    pub(super) fn last_ejection(&self) -> Option<Instant> {
        self.ejected_until
    }

    /// Whether nothing was seen of it for `idle`, so that it may be forgotten.
    pub(super) fn is_stale(&self, now: Instant, idle: Duration) -> bool {
        let last = self.ejected_until.map_or(self.begun, |until| until.max(self.begun));
        self.outstanding == 0 && seconds(last, now) > idle.as_secs_f64()
    }

    /// A connection is attempted.
    pub(super) fn start(&mut self, now: Instant, config: &Config) {
        if self.connecting == 0 {
            self.silent_since = now;
        }
        self.connecting += 1;
        self.outstanding += 1;
        self.recent = self.recent(now, config) + 1.0;
        self.begun = now;
    }

    /// An attempt is over, in one way or the other.
    pub(super) fn settle(&mut self) {
        self.connecting = self.connecting.saturating_sub(1);
    }

    /// A connection ended, or was given up.
    pub(super) fn end(&mut self) {
        self.outstanding = self.outstanding.saturating_sub(1);
    }

    /// A connection was made; it took `sample`, where that says something about the next one.
    pub(super) fn connected(&mut self, sample: Option<Duration>, now: Instant, config: &Config) {
        if let Some(sample) = sample {
            self.connect.add(sample, now, config);
        }
        self.silent_since = now;
        self.failures = 0;
        self.ejections = 0;
        self.ejected_until = None;
    }

    /// A connection could not be made.
    pub(super) fn failed(&mut self, now: Instant, config: &Config) {
        self.silent_since = now;
        self.failures += 1;
        if self.failures >= config.failures_to_eject && self.ejected_until(now).is_none() {
            let until = now + config.ejection_time(self.ejections);
            self.ejections += 1;
            self.ejected_until = Some(until);
            self.fresh_since = until;
        }
    }

    /// Nobody is there: as many failures as it takes.
    pub(super) fn gone(&mut self, now: Instant, config: &Config) {
        self.failures = self.failures.max(config.failures_to_eject.saturating_sub(1));
        self.failed(now, config);
    }

    /// Connections begun lately.
    fn recent(&self, now: Instant, config: &Config) -> f64 {
        self.recent * (-seconds(self.begun, now) / config.recent.as_secs_f64()).exp()
    }

    /// Seconds for which attempts have been waiting for an answer.
    fn silence(&self, now: Instant) -> f64 {
        if self.connecting == 0 { 0.0 } else { seconds(self.silent_since, now) }
    }

    /// Share of its capacity that an endpoint gets: grows over the slow-start window.
    pub(super) fn warmth(&self, now: Instant, config: &Config) -> f64 {
        (seconds(self.fresh_since, now) / config.slow_start.as_secs_f64().max(f64::EPSILON))
            .powf(config.slow_start_power)
            .clamp(config.slow_start_share, 1.0)
    }

    /// How many times longer than on `other` connecting is thought to take. The fewer samples there
    /// are, the more alike the two are taken to be.
    fn slowness(&self, other: &Self, now: Instant, config: &Config) -> f64 {
        let (mine, theirs) = (self.connect.log(now, config), other.connect.log(now, config));
        let samples = f64::from(self.connect.samples.min(other.connect.samples));
        let floor = config.connect_floor.as_secs_f64().ln();
        let known = theirs.or(mine).unwrap_or(floor);
        let ratio = (mine.unwrap_or(known) - known) * samples / (samples + 1.0);
        // Waiting is no estimate: it already takes that long.
        (known + ratio).exp().max(self.silence(now)) / known.exp().max(other.silence(now))
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
            (f64::from(load.outstanding + 1) + load.recent(now, config))
                / (f64::from(capacity) * load.warmth(now, config))
        };
        work(self, capacity) * self.slowness(other, now, config) < work(other, other_capacity)
    }
}

/// How long connecting takes, as seen so far.
#[derive(Debug, Clone)]
struct ConnectTime {
    /// Logarithm of the seconds, averaged: one outlier moves it little.
    log: f64,
    /// Samples in the average; 0 before the first.
    samples: u32,
    observed: Instant,
}

impl ConnectTime {
    fn add(&mut self, sample: Duration, now: Instant, config: &Config) {
        let log = sample.max(config.connect_floor).as_secs_f64().ln();
        let aged = 1.0 - (-seconds(self.observed, now) / config.smoothing.as_secs_f64()).exp();
        let weight = (1.0 / f64::from(self.samples + 1)).max(aged).max(LEAST_WEIGHT);
        self.log += (log - self.log) * weight;
        self.samples = self.samples.saturating_add(1);
        self.observed = now;
    }

    /// The logarithm as it is thought to be now; none before the first sample.
    fn log(&self, now: Instant, config: &Config) -> Option<f64> {
        let fade = seconds(self.observed, now) / config.fade.as_secs_f64();
        let floor = config.connect_floor.as_secs_f64().ln();
        (self.samples > 0).then(|| (self.log - fade).max(floor))
    }
}

fn seconds(from: Instant, to: Instant) -> f64 {
    to.saturating_duration_since(from).as_secs_f64()
}
