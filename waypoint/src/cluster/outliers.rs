//! Endpoints that fail are left out for a while, and come back step by step.
//!
//! ```text
//!        failures in a row,       time is over          as many good answers as
//!  in ──────────────────► ejected ───────────► probed ───────────────────────────► in
//!      worse than the others ▲                    │    failures would have ejected
//!      (within the share)    └────────────────────┘
//!                          one failure, or slow answer
//! ```
//! Invariants: never more than `maxEjectionPercent` of the endpoints are out (ejected or probed); an
//! ejection ends; a probed endpoint has one request at a time per worker at most.
//! Counting is lock-free; the lock is taken to eject and to take back. Time is an argument.
//! Not here: who reports (`cluster::work`), who is asked (`cluster::order`).
//! Source: Envoy's outlier detection, spec L7 §3.5; probing as Linkerd's failure accrual, §7.2.

mod host;
mod peers;
mod sweep;
mod tally;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use shared::mesh::{OutlierDetection, Uid};
use tokio::time::Instant;

pub use self::host::Host;
use self::host::{Settings as _, reset};
use self::sweep::Sweeps;

/// What came of one try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// The endpoint answered.
    Answered {
        /// With this status.
        status: u16,
        /// After this time, where that says something about the endpoint.
        took: Option<Duration>,
    },
    /// It did not answer in time.
    TimedOut,
    /// It could not be connected.
    NotConnected,
    /// It was connected, and did not answer to the request.
    Reset,
}

/// Why an endpoint was ejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// `consecutive5xxErrors`.
    Consecutive5xx,
    /// `consecutiveGatewayErrors`.
    ConsecutiveGateway,
    /// `consecutiveLocalOriginFailures`.
    ConsecutiveLocal,
    /// It failed more often than the others: `culvert.dev/outlier-success-rate`.
    SuccessRate,
    /// It was slower than the others: `culvert.dev/outlier-latency`.
    Latency,
    /// It failed again when it was probed.
    Probe,
}

impl Reason {
    /// In the order of the counters.
    pub const ALL: [Self; 6] = [
        Self::Consecutive5xx,
        Self::ConsecutiveGateway,
        Self::ConsecutiveLocal,
        Self::SuccessRate,
        Self::Latency,
        Self::Probe,
    ];

    /// As metrics and logs spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Consecutive5xx => "consecutive_5xx",
            Self::ConsecutiveGateway => "consecutive_gateway_failure",
            Self::ConsecutiveLocal => "consecutive_local_origin_failure",
            Self::SuccessRate => "success_rate",
            Self::Latency => "latency",
            Self::Probe => "probe_failure",
        }
    }
}

/// Whether an endpoint is to be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// As all others.
    In,
    /// For one request, to see how it is.
    Probed,
    /// Not.
    Ejected,
}

/// What a report led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Nothing,
    /// The endpoint is out for so long.
    Ejected(Reason, Duration),
    /// It would be, if not too many were.
    TooMany(Reason),
    /// It is in again. It was out for this.
    Returned(Reason),
}

/// The endpoints of one destination. Shared by all workers.
#[derive(Debug)]
pub struct Outliers {
    /// Time is counted in nanoseconds from here.
    origin: Instant,
    hosts: Mutex<Hosts>,
    /// How many are out.
    out: AtomicU32,
    ejected: [AtomicU64; Reason::ALL.len()],
    /// Ejections that the share did not allow.
    overflow: AtomicU64,
    sweeps: Sweeps,
}

#[derive(Debug, Default)]
struct Hosts {
    known: HashMap<Uid, Arc<Host>>,
    /// The picture of the mesh that they are of.
    generation: u64,
}

impl Outliers {
    /// None known yet, at the time `now`.
    pub fn new(now: Instant) -> Self {
        Self {
            origin: now,
            hosts: Mutex::default(),
            out: AtomicU32::new(0),
            ejected: Default::default(),
            overflow: AtomicU64::new(0),
            sweeps: Sweeps::default(),
        }
    }

    /// The endpoints in the picture `generation`, each with what is known about it. An older picture
    /// than the one before changes nothing about who counts.
    pub fn hosts<'a>(
        &self,
        generation: u64,
        uids: impl Iterator<Item = &'a Uid>,
    ) -> Vec<Arc<Host>> {
        let mut hosts = self.hosts.lock();
        let all: Vec<(&Uid, Arc<Host>)> = uids
            .map(|uid| (uid, hosts.known.get(uid).map(Arc::clone).unwrap_or_default()))
            .collect();
        let named = |(uid, host): &(&Uid, Arc<Host>)| ((*uid).clone(), Arc::clone(host));
        if generation == hosts.generation {
            // Another worker's, or those of the other address family.
            hosts.known.extend(all.iter().map(named));
        } else if generation > hosts.generation {
            let known = all.iter().map(named).collect();
            let before = std::mem::replace(&mut hosts.known, known);
            hosts.generation = generation;
            for (_, host) in before.iter().filter(|(uid, _)| !hosts.known.contains_key(*uid)) {
                host.history.lock().gone = true;
                if host.until.swap(0, Ordering::SeqCst) != 0 {
                    self.out.fetch_sub(1, Ordering::SeqCst);
                }
            }
        }
        all.into_iter().map(|(_, host)| host).collect()
    }

    /// Whether `host` is to be used at `now`.
    pub fn state(&self, host: &Host, now: Instant) -> State {
        match host.until.load(Ordering::Acquire) {
            0 => State::In,
            until if self.nanos(now) < until => State::Ejected,
            _ if host.probing.load(Ordering::Acquire) => State::Ejected,
            _ => State::Probed,
        }
    }

    /// Whether so many are out that they are used all the same.
    pub fn is_panic(&self, host_count: usize, config: &OutlierDetection) -> bool {
        let (all, out) = (host_count as u64, u64::from(self.out.load(Ordering::Acquire)));
        all.saturating_sub(out) * 100 < u64::from(config.min_health_percent) * all
    }

    /// Begins a probe, if it is time for one; who begins it calls [`Host::probe_over`].
    pub fn probe(&self, host: &Host, now: Instant) -> bool {
        self.state(host, now) == State::Probed && !host.probing.swap(true, Ordering::AcqRel)
    }

    /// Learns what came of a try, and says what that leads to.
    pub fn report(
        &self,
        host: &Host,
        report: Report,
        config: &OutlierDetection,
        now: Instant,
    ) -> Verdict {
        let (status, took, is_local) = match report {
            Report::Answered { status, took } => (status, took, false),
            Report::TimedOut => (504, None, config.split),
            Report::NotConnected | Report::Reset => (503, None, config.split),
        };
        let good = !(500..600).contains(&status);
        if host.until.load(Ordering::Acquire) != 0 {
            let is_slow = |took| config.latency.is_some() && self.is_slow(took, now);
            return self.after_probe(host, good && !took.is_some_and(is_slow), config, now);
        }
        host.tally(good, took, config);
        if is_local {
            let row = (&host.in_a_row_local, config.consecutive_local_failures);
            return self.count(host, row, Reason::ConsecutiveLocal, config, now);
        }
        if config.split {
            reset(&host.in_a_row_local);
        }
        if good {
            reset(&host.in_a_row_5xx);
            reset(&host.in_a_row_gateway);
            return Verdict::Nothing;
        }
        let mut first = Verdict::Nothing;
        if matches!(status, 502..=504) {
            let row = (&host.in_a_row_gateway, config.consecutive_gateway_errors);
            first = self.count(host, row, Reason::ConsecutiveGateway, config, now);
        } else {
            reset(&host.in_a_row_gateway);
        }
        if matches!(first, Verdict::Ejected(..)) {
            return first;
        }
        let row = (&host.in_a_row_5xx, config.consecutive_5xx);
        match self.count(host, row, Reason::Consecutive5xx, config, now) {
            Verdict::Nothing => first,
            second => second,
        }
    }

    /// One failure more in a row; the one that reaches the limit ejects.
    fn count(
        &self,
        host: &Host,
        (row, limit): (&AtomicU32, Option<u32>),
        reason: Reason,
        config: &OutlierDetection,
        now: Instant,
    ) -> Verdict {
        let Some(limit) = limit else { return Verdict::Nothing };
        // Envoy: equal, not more, so that of several that fail together one ejects.
        if row.fetch_add(1, Ordering::AcqRel) + 1 != limit {
            return Verdict::Nothing;
        }
        let hosts = self.hosts.lock();
        let verdict = self.eject_one(&hosts, host, reason, config, now);
        row.store(0, Ordering::Release);
        verdict
    }

    fn eject_one(
        &self,
        hosts: &Hosts,
        host: &Host,
        reason: Reason,
        config: &OutlierDetection,
        now: Instant,
    ) -> Verdict {
        let mut history = host.history.lock();
        if history.gone || host.until.load(Ordering::Acquire) != 0 {
            return Verdict::Nothing;
        }
        let out = u64::from(self.out.load(Ordering::Acquire)) + 1;
        let all = hosts.known.len() as u64;
        if out * 100 > u64::from(config.max_ejection_percent) * all {
            self.overflow.fetch_add(1, Ordering::Relaxed);
            return Verdict::TooMany(reason);
        }
        let length = history.length(config, now);
        history.reason = Some(reason);
        host.leave(self.nanos(now + length));
        self.out.fetch_add(1, Ordering::AcqRel);
        self.ejected[reason as usize].fetch_add(1, Ordering::Relaxed);
        Verdict::Ejected(reason, length)
    }

    /// A probe, or something that was under way when the endpoint was ejected.
    fn after_probe(
        &self,
        host: &Host,
        good: bool,
        config: &OutlierDetection,
        now: Instant,
    ) -> Verdict {
        if self.nanos(now) < host.until.load(Ordering::Acquire) {
            return Verdict::Nothing;
        }
        let mut history = host.history.lock();
        if host.until.load(Ordering::Acquire) == 0 {
            return Verdict::Nothing;
        }
        let reason = history.reason.unwrap_or(Reason::Probe);
        if good && host.passed.fetch_add(1, Ordering::AcqRel) + 1 < config.probes(reason) {
            return Verdict::Nothing;
        }
        if !good {
            // As long as the last one: one request is too little to be angrier.
            let length = config.ejection(history.ejections);
            host.leave(self.nanos(now + length));
            self.ejected[Reason::Probe as usize].fetch_add(1, Ordering::Relaxed);
            return Verdict::Ejected(Reason::Probe, length);
        }
        history.returned = Some(now);
        host.until.store(0, Ordering::Release);
        self.out.fetch_sub(1, Ordering::AcqRel);
        Verdict::Returned(reason)
    }

    /// How many are out.
    pub fn out(&self) -> u32 {
        self.out.load(Ordering::Acquire)
    }

    /// How many were ejected so far.
    pub fn ejected(&self, reason: Reason) -> u64 {
        self.ejected[reason as usize].load(Ordering::Relaxed)
    }

    /// How often `maxEjectionPercent` forbade it.
    pub fn overflow(&self) -> u64 {
        self.overflow.load(Ordering::Relaxed)
    }

    /// Every endpoint that is known, with its state.
    pub fn all(&self, now: Instant) -> Vec<(Uid, State)> {
        let hosts = self.hosts.lock();
        let state = |(uid, host): (&Uid, &Arc<Host>)| (uid.clone(), self.state(host, now));
        hosts.known.iter().map(state).collect()
    }

    fn nanos(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.origin).as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests;
