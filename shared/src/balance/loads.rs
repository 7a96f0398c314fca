//! The loads that one worker sees, and the choice over them.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use crate::balance::gone::{Gone, Silent};
use crate::balance::load::Load;
use crate::mesh::{Uid, Workload};

/// How load and failures count.
#[derive(Debug, Clone)]
pub struct Config {
    /// Connect failures in a row that eject an endpoint. 3; with 1 a single lost packet ejects.
    pub failures_to_eject: u32,
    /// First ejection time, doubled at each further one. 1 s; longer keeps a restarted pod idle.
    pub ejection: Duration,
    /// Longest ejection. 60 s.
    pub max_ejection: Duration,
    /// Share of the candidates that may be left out at once; beyond it, those whose ejection ends
    /// first take part again. 0.8.
    pub max_ejected_share: f64,
    /// Below this share of endpoints that are not ejected, ejections are ignored (panic). 0.1.
    pub panic_share: f64,
    /// Time over which a new or returning endpoint grows to its full share. 10 s.
    pub slow_start: Duration,
    /// The share it starts with. 0.1; 0 would starve it.
    pub slow_start_share: f64,
    /// The share is the part of that time that has passed, to this power. 1; less grows fast at first.
    pub slow_start_power: f64,
    /// Time constant of the connect-time average. 10 s.
    pub smoothing: Duration,
    /// Time in which what is known about connect times fades to a third when nothing new is seen.
    /// 3 s; longer keeps an endpoint alone that was slow once, shorter tries a slow one more often.
    pub fade: Duration,
    /// Time constant in which a connection that was begun stops to count as work. 1 s.
    pub recent: Duration,
    /// Connect times below this are equal. 1 ms: local jitter is no signal.
    pub connect_floor: Duration,
    /// An endpoint that is idle for this long is forgotten. 10 min.
    pub forget: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            failures_to_eject: 3,
            ejection: Duration::from_secs(1),
            max_ejection: Duration::from_secs(60),
            max_ejected_share: 0.8,
            panic_share: 0.1,
            slow_start: Duration::from_secs(10),
            slow_start_share: 0.1,
            slow_start_power: 1.0,
            smoothing: Duration::from_secs(10),
            fade: Duration::from_secs(3),
            recent: Duration::from_secs(1),
            connect_floor: Duration::from_millis(1),
            forget: Duration::from_secs(600),
        }
    }
}

impl Config {
    /// How long an ejection is after so many others.
    pub(super) fn ejection_time(&self, earlier: u32) -> Duration {
        self.ejection.saturating_mul(1 << earlier.min(16)).min(self.max_ejection)
    }
}

/// The loads that one worker sees. Clones share them; none leaves its worker.
#[derive(Debug, Clone, Default)]
pub struct Loads {
    config: Rc<Config>,
    seen: Rc<RefCell<HashMap<Uid, Load>>>,
    silent: Rc<RefCell<Silent>>,
    /// No ejection lasts longer; nearly always it is over, and no candidate need be looked up.
    last_ejection: Rc<Cell<Option<Instant>>>,
}

/// One connection that counts as work of its endpoint until this is dropped.
#[derive(Debug)]
#[must_use = "the connection counts as work while this lives"]
pub struct InFlight {
    loads: Loads,
    endpoint: Uid,
    port: u16,
    connecting: bool,
}

impl InFlight {
    /// The connection was made. `took` is left out where it says nothing about the next one, as
    /// when a tunnel had to be made first that now stands.
    pub fn connected(&mut self, took: Option<Duration>, now: Instant) {
        self.settle(|load, config| load.connected(took, now, config));
        self.loads.silent.borrow_mut().remove(&self.endpoint, self.port);
    }

    /// The connection could not be made.
    pub fn failed(mut self, now: Instant) {
        self.settle(|load, config| load.failed(now, config));
    }

    /// Nobody is there any more: it is ejected at once.
    pub fn gone(mut self, what: Gone, now: Instant) {
        match what {
            Gone::Pod => self.settle(|load, config| load.gone(now, config)),
            Gone::Port => {
                self.settle(|_, _| {});
                let (loads, of_port) = (&self.loads, (&self.endpoint, self.port));
                let until = loads.silent.borrow_mut().add(of_port, now, &loads.config);
                loads.last_ejection.set(loads.last_ejection.get().max(Some(until)));
            }
        }
    }

    fn settle(&mut self, tell: impl FnOnce(&mut Load, &Config)) {
        if !std::mem::take(&mut self.connecting) {
            return;
        }
        // Never forgotten while something is in flight.
        if let Some(load) = self.loads.seen.borrow_mut().get_mut(&self.endpoint) {
            load.settle();
            tell(load, &self.loads.config);
            let last = &self.loads.last_ejection;
            last.set(last.get().max(load.last_ejection()));
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.settle(|_, _| {});
        if let Some(load) = self.loads.seen.borrow_mut().get_mut(&self.endpoint) {
            load.end();
        }
    }
}

/// A candidate with its capacity before it.
type Weighted<T> = (u32, T);

impl Loads {
    /// Loads under `config`.
    pub fn new(config: Config) -> Self {
        Self { config: Rc::new(config), ..Self::default() }
    }

    /// Counts one more connection to a port of `endpoint`, which is attempted now.
    pub fn start(&self, endpoint: &Uid, port: u16, now: Instant) -> InFlight {
        let mut seen = self.seen.borrow_mut();
        // The map is swept each time its size reaches a power of two: amortised constant work.
        if !seen.contains_key(endpoint) && seen.len() >= 64 && seen.len().is_power_of_two() {
            seen.retain(|_, load| !load.is_stale(now, self.config.forget));
        }
        let load = seen.entry(endpoint.clone()).or_insert_with(|| Load::new(now));
        load.start(now, &self.config);
        InFlight { loads: self.clone(), endpoint: endpoint.clone(), port, connecting: true }
    }

    /// `endpoint` was out of use until `now`, so it grows to its share again.
    pub fn refresh(&self, endpoint: &Uid, now: Instant) {
        if let Some(load) = self.seen.borrow_mut().get_mut(endpoint) {
            load.refresh(now);
        }
    }

    /// The share of its weight that a new or returning endpoint gets; one that was never seen is new.
    pub fn warmth(&self, endpoint: &Uid, now: Instant) -> f64 {
        let seen = self.seen.borrow();
        seen.get(endpoint)
            .map_or(self.config.slow_start_share, |load| load.warmth(now, &self.config))
    }

    /// Whether `endpoint` is ejected, or a port of it.
    pub fn is_ejected(&self, endpoint: &Uid, port: u16, now: Instant) -> bool {
        self.ejected_until((endpoint, port), now).is_some()
    }

    fn ejected_until(&self, (endpoint, port): (&Uid, u16), now: Instant) -> Option<Instant> {
        let seen = self.seen.borrow();
        let pod = seen.get(endpoint).and_then(|load| load.ejected_until(now));
        pod.max(self.silent.borrow().until(endpoint, port, now))
    }

    /// Connections in flight to `endpoint`.
    pub fn outstanding(&self, endpoint: &Uid) -> u32 {
        self.seen.borrow().get(endpoint).map_or(0, |load| load.outstanding)
    }

    /// Up to `tries` of `candidates`, each a port of a workload as `meant` says, each once, in the
    /// order in which to try them. Each place is
    /// the better of two random choices in proportion to capacity; capacity 0 is never chosen.
    /// Ejected endpoints come last, except in panic.
    pub fn order<T>(
        &self,
        candidates: Vec<T>,
        meant: impl Fn(&T) -> (&Workload, u16),
        tries: usize,
        random: &mut fastrand::Rng,
        now: Instant,
    ) -> Vec<T> {
        let (mut available, mut ejected) = self.split(candidates, &meant, now);
        let mut order = Vec::with_capacity(tries);
        while order.len() < tries {
            let from = if available.is_empty() { &mut ejected } else { &mut available };
            let Some(chosen) = self.choose(from, &meant, random, now) else { break };
            order.push(from.swap_remove(chosen).1);
        }
        order
    }

    /// Parts the candidates that can be chosen at all, with their capacities, into those to use and
    /// those to leave out.
    fn split<T>(
        &self,
        candidates: Vec<T>,
        meant: &impl Fn(&T) -> (&Workload, u16),
        now: Instant,
    ) -> (Vec<Weighted<T>>, Vec<Weighted<T>>) {
        let weighted = candidates.into_iter().map(|one| (meant(&one).0.capacity, one));
        let weighted = weighted.filter(|(capacity, _)| *capacity > 0);
        if self.last_ejection.get().is_none_or(|last| last <= now) {
            return (weighted.collect(), Vec::new());
        }
        let until = |(_, candidate): &Weighted<T>| {
            let (workload, port) = meant(candidate);
            self.ejected_until((&workload.uid, port), now)
        };
        let (mut ejected, mut available): (Vec<_>, Vec<_>) =
            weighted.partition(|one| until(one).is_some());
        let total = ejected.len() + available.len();
        if (available.len() as f64) < self.config.panic_share * total as f64 {
            available.append(&mut ejected);
        }
        let limit = (self.config.max_ejected_share * total as f64) as usize;
        if ejected.len() > limit {
            ejected.sort_by_key(|one| Reverse(until(one)));
            available.extend(ejected.drain(limit..));
        }
        (available, ejected)
    }

    fn choose<T>(
        &self,
        from: &[Weighted<T>],
        meant: &impl Fn(&T) -> (&Workload, u16),
        random: &mut fastrand::Rng,
        now: Instant,
    ) -> Option<usize> {
        let capacities = from.iter().map(|(capacity, _)| *capacity).enumerate();
        let first = weighted(capacities.clone(), random)?;
        let others = capacities.map(|(at, capacity)| (at, if at == first { 0 } else { capacity }));
        let Some(second) = weighted(others, random) else { return Some(first) };
        let mut seen = self.seen.borrow_mut();
        let mut load = |at: usize| {
            let uid = &meant(&from[at].1).0.uid;
            match seen.get(uid) {
                Some(load) => load.clone(),
                None => seen.entry(uid.clone()).or_insert_with(|| Load::new(now)).clone(),
            }
        };
        let (one, other) = (load(first), load(second));
        let against = (&one, from[first].0);
        let second_wins = other.is_better(from[second].0, against, now, &self.config);
        Some(if second_wins { second } else { first })
    }
}

/// A random index, in proportion to its weight; none when all weights are zero.
pub fn weighted(
    weights: impl Iterator<Item = (usize, u32)> + Clone,
    random: &mut fastrand::Rng,
) -> Option<usize> {
    let total: u64 = weights.clone().map(|(_, weight)| u64::from(weight)).sum();
    if total == 0 {
        return None;
    }
    let mut left = random.u64(..total);
    let mut chosen = weights.skip_while(|(_, weight)| {
        let own = u64::from(*weight);
        let passed = left >= own;
        left = left.saturating_sub(own);
        passed
    });
    chosen.next().map(|(at, _)| at)
}

#[cfg(test)]
mod tests;
