//! How many requests at a time a destination is good for, found by how long its answers take.
//!
//! ```text
//!                    50 answers, slower than half as many were
//!            ┌────────────────────────────┐
//!            ▼                            │ halve again
//!  start ► Measuring ─────────────────────┘
//!            │ ▲
//!  base is   │ │ every 60 s ± 10 %: with half the limit
//!  known     ▼ │
//!          Steady ◄─┐ every 100 ms: limit × (base + 25 %) / median + √limit
//!            └──────┘
//! ```
//!
//! Pure: no clock, no dice. Laws: the limit is always within its bounds; it does not grow while less
//! than half of it is used; after a slow time it comes back.
//! Source: Envoy's adaptive concurrency, spec L7 §7.6. There, the base is measured with 3 requests at
//! a time, and all others are refused meanwhile; here with half of the limit, and half of that again
//! as long as that makes answers faster.

use std::time::Duration;

use shared::mesh::Concurrency;
use tokio::time::Instant;

/// How long answers are collected before the limit moves. Envoy's.
const WINDOW: Duration = Duration::from_millis(100);
/// Answers that a window has at least; it lasts longer when they are few.
const FEWEST: usize = 10;
/// Answers of a window that count: the last ones.
const MOST: usize = 1_000;
/// How often the base is measured. Envoy's, with its jitter of a tenth either way.
const MEASURE_EVERY: Duration = Duration::from_secs(60);
/// Answers that measure it. Envoy's.
const MEASURED_BY: usize = 50;
/// How long a step may take when answers are few. 5 s.
const MEASURE_FOR: Duration = Duration::from_secs(5);
/// Halving is worth it while it makes answers shorter than this share of what they were.
const FASTER: f64 = 0.9;
/// How much longer than the base answers may take before the limit falls. Envoy's.
const HEADROOM: f64 = 1.25;
/// Requests at a time before anything is known.
const START: f64 = 20.0;

/// An answer, or a time that was not enough for one.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// When its request was sent.
    pub sent: Instant,
    /// From there to the head of the answer.
    pub took: Duration,
    /// Requests that are under way, with this one.
    pub used: u32,
}

/// The limit of one destination.
#[derive(Debug)]
pub struct Gradient {
    bounds: Concurrency,
    limit: f64,
    /// What answers take when nothing waits.
    base: Option<Duration>,
    phase: Phase,
    samples: Samples,
}

#[derive(Debug)]
enum Phase {
    Steady {
        /// When the base is measured again.
        until: Instant,
        /// The median of the last window.
        last: Option<Duration>,
    },
    Measuring {
        since: Instant,
        /// The median with twice as many, and that many.
        doubled: Option<(Duration, f64)>,
    },
}

impl Gradient {
    /// Nothing is known yet.
    pub fn new(bounds: Concurrency, now: Instant) -> Self {
        let mut gradient = Self {
            bounds,
            limit: 0.0,
            base: None,
            phase: Phase::Measuring { since: now, doubled: None },
            samples: Samples::begin(now),
        };
        gradient.limit = gradient.bounded(START);
        gradient
    }

    /// Between what and what it is.
    pub fn bounds(&self) -> Concurrency {
        self.bounds
    }

    /// How many requests there may be at a time.
    pub fn limit(&self) -> u32 {
        self.limit as u32
    }

    /// Learns from an answer. `draw` is a random number below 1.
    pub fn learn(&mut self, sample: Sample, now: Instant, draw: f64) {
        match self.phase {
            Phase::Steady { until, last } => {
                self.samples.add(sample);
                let length = now.saturating_duration_since(self.samples.began);
                if length >= WINDOW && self.samples.len() >= FEWEST {
                    let median = self.samples.median();
                    self.moved(median);
                    self.samples = Samples::begin(now);
                    self.phase = Phase::Steady { until, last: Some(median) };
                }
                if now >= until {
                    let last = last.map(|median| (median, self.limit));
                    self.measure(last, now);
                }
            }
            Phase::Measuring { since, doubled } => {
                // Those that were under way have waited with more than there may be now.
                if sample.sent >= since {
                    self.samples.add(sample);
                }
                let count = self.samples.len();
                let late = now.saturating_duration_since(since) >= MEASURE_FOR;
                if count >= MEASURED_BY || (late && count >= FEWEST) {
                    let median = self.samples.median();
                    self.measured(median, doubled, now, draw);
                } else if late && let Some((_, limit)) = doubled {
                    // Too few ask to tell.
                    self.limit = self.bounded(limit);
                    self.rest(now, draw);
                }
            }
        }
    }

    /// A window is over, whose median this is.
    fn moved(&mut self, median: Duration) {
        let Some(base) = self.base else { return };
        let gradient = HEADROOM * base.as_secs_f64() / median.as_secs_f64().max(1e-9);
        let limit = self.limit * gradient.clamp(0.5, 2.0) + self.limit.sqrt();
        let is_used = f64::from(self.samples.used) * 2.0 >= self.limit;
        if limit < self.limit || is_used {
            self.limit = self.bounded(limit);
        }
    }

    /// Begins to measure with half as many.
    fn measure(&mut self, doubled: Option<(Duration, f64)>, now: Instant) {
        self.limit = self.bounded(self.limit / 2.0);
        self.phase = Phase::Measuring { since: now, doubled };
        self.samples = Samples::begin(now);
    }

    fn measured(
        &mut self,
        median: Duration,
        doubled: Option<(Duration, f64)>,
        now: Instant,
        draw: f64,
    ) {
        let is_faster = doubled.is_none_or(|(before, _)| median < before.mul_f64(FASTER));
        let can_halve = self.limit > self.bounded(0.0);
        if is_faster && can_halve {
            return self.measure(Some((median, self.limit)), now);
        }
        let before = doubled.filter(|_| !is_faster);
        self.base = Some(before.map_or(median, |(before, _)| median.min(before)));
        if let Some((_, limit)) = before {
            // So many did not slow it down.
            self.limit = self.bounded(limit);
        }
        self.rest(now, draw);
    }

    fn rest(&mut self, now: Instant, draw: f64) {
        let until = now + MEASURE_EVERY.mul_f64(0.9 + 0.2 * draw.clamp(0.0, 1.0));
        self.phase = Phase::Steady { until, last: None };
        self.samples = Samples::begin(now);
    }

    fn bounded(&self, limit: f64) -> f64 {
        limit.clamp(f64::from(self.bounds.least), f64::from(self.bounds.most))
    }
}

/// The answers of a window.
#[derive(Debug)]
struct Samples {
    began: Instant,
    took: Vec<Duration>,
    /// Where the next one goes once there are [`MOST`].
    next: usize,
    /// The most that were under way.
    used: u32,
}

impl Samples {
    fn begin(began: Instant) -> Self {
        Self { began, took: Vec::new(), next: 0, used: 0 }
    }

    fn len(&self) -> usize {
        self.took.len()
    }

    fn add(&mut self, sample: Sample) {
        self.used = self.used.max(sample.used);
        if self.took.len() < MOST {
            return self.took.push(sample.took);
        }
        self.took[self.next] = sample.took;
        self.next = (self.next + 1) % MOST;
    }

    /// Zero of none.
    fn median(&mut self) -> Duration {
        let middle = self.took.len() / 2;
        if self.took.is_empty() {
            return Duration::ZERO;
        }
        *self.took.select_nth_unstable(middle).1
    }
}

#[cfg(test)]
mod tests;
