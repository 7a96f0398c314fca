//! Once in an interval endpoints are compared with each other.
//!
//! Invariants: whoever reports first after the interval compares, nobody waits; what was too little to
//! compare counts next time too, over ten intervals at most.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use shared::mesh::{OutlierDetection, SlowAnswers, SuccessRate, Uid};
use tokio::time::Instant;

use crate::cluster::outliers::host::Host;
use crate::cluster::outliers::tally::Tally;
use crate::cluster::outliers::{Outliers, Reason, Verdict, peers};

/// Intervals that may be compared together. With one, as in Envoy, whoever is asked seldom is never
/// compared, such as an endpoint that has just come back.
const MOST_INTERVALS: u32 = 10;

/// When endpoints are compared, and what came of it last.
#[derive(Debug, Default)]
pub(super) struct Sweeps {
    /// Nanoseconds at which the next one is due; 0 before the first.
    next: AtomicU64,
    /// Nanoseconds above which an answer is slow; 0 when that is not known.
    slow: AtomicU64,
    /// Until when that holds.
    slow_until: AtomicU64,
}

type Known<'a> = (&'a Uid, &'a Arc<Host>);

impl Outliers {
    /// Compares the endpoints with each other, if it is time; gives what that leads to for each.
    pub fn sweep(&self, config: &OutlierDetection, now: Instant) -> Vec<(Uid, Verdict)> {
        if config.success_rate.is_none() && config.latency.is_none() {
            return Vec::new();
        }
        let Some(late) = self.sweeps.begin(self.nanos(now), config.interval) else {
            return Vec::new();
        };
        let hosts = self.hosts.lock();
        if late > config.interval.saturating_mul(MOST_INTERVALS) {
            hosts.known.values().for_each(|host| host.forget());
            return Vec::new();
        }
        let is_in = |(_, host): &Known<'_>| host.until.load(Ordering::Acquire) == 0;
        let known: Vec<Known<'_>> = hosts.known.iter().filter(is_in).collect();
        let mut verdicts = Vec::new();
        let mut eject = |found: Vec<Known<'_>>, reason| {
            let verdict = |(uid, host): Known<'_>| {
                (uid.clone(), self.eject_one(&hosts, host, reason, config, now))
            };
            verdicts.extend(found.into_iter().map(verdict));
        };
        if let Some(terms) = &config.success_rate {
            eject(failing(&known, terms), Reason::SuccessRate);
        }
        if let Some(terms) = &config.latency {
            let kept = config.interval.saturating_mul(MOST_INTERVALS);
            let limit = |limit| self.sweeps.learn(limit, self.nanos(now + kept));
            eject(slow(&known, terms, limit), Reason::Latency);
        }
        verdicts.retain(|(_, verdict)| *verdict != Verdict::Nothing);
        verdicts
    }

    /// Whether an answer that took so long is slow, by what was usual lately.
    pub(super) fn is_slow(&self, took: Duration, now: Instant) -> bool {
        let limit = self.sweeps.slow.load(Ordering::Relaxed);
        let holds = self.nanos(now) < self.sweeps.slow_until.load(Ordering::Relaxed);
        limit != 0 && holds && took > Duration::from_nanos(limit)
    }
}

impl Sweeps {
    /// Begins one if it is due, for one caller alone; gives how late that is.
    fn begin(&self, now: u64, interval: Duration) -> Option<Duration> {
        let interval = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX);
        let next = self.next.load(Ordering::Relaxed);
        // Further away than an interval: a rule says less than the one before it.
        let is_due = now >= next || next - now > interval;
        let following = now.saturating_add(interval);
        let (own, other) = (Ordering::Relaxed, Ordering::Relaxed);
        if !is_due || self.next.compare_exchange(next, following, own, other).is_err() {
            return None;
        }
        // The first report begins the first interval.
        (next != 0).then(|| Duration::from_nanos(now.saturating_sub(next)))
    }

    fn learn(&self, limit: Duration, until: u64) {
        let limit = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        self.slow.store(limit, Ordering::Relaxed);
        self.slow_until.store(until, Ordering::Relaxed);
    }
}

fn failing<'a>(known: &[Known<'a>], terms: &SuccessRate) -> Vec<Known<'a>> {
    let rate = |one: &Known<'a>| Some((*one, one.1.tries.rate(terms.request_volume)?));
    let rated: Vec<_> = known.iter().filter_map(rate).collect();
    let compared = rated.len() >= terms.minimum_hosts as usize;
    settle(known.iter().map(|(_, host)| &host.tries), compared, terms.request_volume);
    if !compared {
        return Vec::new();
    }
    let (hosts, rates): (Vec<_>, Vec<_>) = rated.into_iter().unzip();
    peers::failing(&rates, terms).into_iter().map(|at| hosts[at]).collect()
}

/// `learn` is told above which time an answer is slow.
fn slow<'a>(
    known: &[Known<'a>],
    terms: &SlowAnswers,
    learn: impl FnOnce(Duration),
) -> Vec<Known<'a>> {
    let time = |one: &Known<'a>| Some((*one, one.1.times.time(terms.request_volume)?));
    let timed: Vec<_> = known.iter().filter_map(time).collect();
    let compared = timed.len() >= terms.minimum_hosts as usize;
    settle(known.iter().map(|(_, host)| &host.times), compared, terms.request_volume);
    let (hosts, times): (Vec<_>, Vec<_>) = timed.into_iter().unzip();
    let Some(limit) = peers::slow_limit(&times, terms).filter(|_| compared) else {
        return Vec::new();
    };
    learn(limit);
    peers::slow(&times, limit).into_iter().map(|at| hosts[at]).collect()
}

/// What was compared begins anew, the rest is kept.
fn settle<'a>(all: impl Iterator<Item = &'a Tally>, compared: bool, volume: u32) {
    for tally in all {
        match compared && tally.rate(volume).is_some() {
            true => tally.clear(),
            false => tally.kept(MOST_INTERVALS),
        }
    }
}
