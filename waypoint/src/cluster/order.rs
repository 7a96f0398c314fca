//! In which order endpoints are tried.
//!
//! Invariants: an endpoint is offered once; one that is left out is not offered, except in panic; one
//! that cannot be connected lately comes last.

use std::net::SocketAddr;

use shared::balance::weighted;
use tokio::time::Instant;

use crate::cluster::local::Way;
use crate::cluster::{Cluster, State};
use crate::upstream::Endpoint;

/// What a request wants of an endpoint.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wish {
    /// The one that a session is with.
    pub(crate) session: Option<SocketAddr>,
    /// The hash of what says where it goes; without one the load does.
    pub(crate) hash: Option<u64>,
}

/// Whose turn it is: the one that has waited longest for its weight.
#[derive(Debug)]
pub(super) struct Turns {
    /// In the order of the endpoints.
    waited: Vec<f64>,
}

impl Turns {
    /// Begins anywhere, so that workers and instances do not go in step.
    pub(super) fn new(endpoints: &[(SocketAddr, u32)]) -> Self {
        let start = |(_, weight): &(SocketAddr, u32)| fastrand::f64() * f64::from(*weight);
        Self { waited: endpoints.iter().map(start).collect() }
    }

    /// The endpoints of `weights` (place and weight, above zero), the one whose turn it is first.
    fn take(&mut self, weights: &[(usize, f64)]) -> Vec<usize> {
        let all: f64 = weights.iter().map(|(_, weight)| weight).sum();
        for (at, weight) in weights {
            self.waited[*at] += weight;
        }
        let mut order: Vec<usize> = weights.iter().map(|(at, _)| *at).collect();
        order.sort_by(|one, other| self.waited[*other].total_cmp(&self.waited[*one]));
        if let Some(first) = order.first() {
            self.waited[*first] -= all;
        }
        order
    }
}

impl Cluster {
    /// Up to `tries` endpoints: one that is to be probed, then the session's, then as the rule
    /// balances.
    pub(crate) fn order(&self, wish: Wish, tries: usize, now: Instant) -> Vec<&Endpoint> {
        let (mut candidates, mut order) = self.usable(now);
        let of_session = |at: &usize| Some(self.endpoints[*at].address) == wish.session;
        if let Some(at) = candidates.iter().position(of_session) {
            order.push(candidates.swap_remove(at));
        }
        // The same key goes the same way.
        let mut random = match (&self.local.way, wish.hash) {
            (Way::Key(_), Some(hash)) => fastrand::Rng::with_seed(hash),
            _ => fastrand::Rng::new(),
        };
        for part in self.nearness.parted(candidates, &mut random) {
            let more = tries.saturating_sub(order.len());
            if more > 0 {
                order.append(&mut self.balanced(part, wish, more, now));
            }
        }
        order.truncate(tries);
        order.into_iter().map(|at| &self.endpoints[at]).collect()
    }

    fn balanced(
        &self,
        candidates: Vec<usize>,
        wish: Wish,
        tries: usize,
        now: Instant,
    ) -> Vec<usize> {
        let random = &mut fastrand::Rng::new();
        let workload = |at: usize| &self.endpoints[at].workload;
        let by_load = |candidates: Vec<usize>, random: &mut fastrand::Rng| {
            let named = candidates.into_iter().map(|at| (at, &self.endpoints[at])).collect();
            let loads = &self.local.loads;
            let order = loads.order(
                named,
                |one: &(usize, &Endpoint)| (&*one.1.workload, one.1.address.port()),
                tries,
                random,
                now,
            );
            order.into_iter().map(|(at, _)| at).collect()
        };
        let mut order = match (&self.local.way, wish.hash) {
            (Way::Load, _) | (Way::Key(_), None) => return by_load(candidates, random),
            (Way::Random, _) => self.shuffled(candidates, tries, random),
            (Way::Turns(turns), _) => {
                let loads = &self.local.loads;
                let warms = self.warms();
                let weight = |at: usize| {
                    let warmth = if warms { loads.warmth(&workload(at).uid, now) } else { 1.0 };
                    (at, f64::from(workload(at).capacity) * warmth)
                };
                let weights: Vec<_> = candidates.into_iter().map(weight).collect();
                let weights: Vec<_> = weights.into_iter().filter(|(_, own)| *own > 0.0).collect();
                turns.borrow_mut().take(&weights)
            }
            (Way::Key(table), Some(hash)) => {
                table.order(hash).filter(|at| candidates.contains(at)).take(tries).collect()
            }
        };
        // Stable: those that can be connected keep their order.
        let port = |at: usize| self.endpoints[at].address.port();
        let loads = &self.local.loads;
        order.sort_by_key(|at| loads.is_ejected(&workload(*at).uid, port(*at), now));
        order
    }

    /// By chance, in proportion to their weights.
    fn shuffled(
        &self,
        mut candidates: Vec<usize>,
        tries: usize,
        random: &mut fastrand::Rng,
    ) -> Vec<usize> {
        let mut order = Vec::with_capacity(tries);
        while order.len() < tries {
            let capacity = |at: &usize| self.endpoints[*at].workload.capacity;
            let weights = candidates.iter().map(capacity).enumerate();
            let Some(chosen) = weighted(weights, random) else { break };
            order.push(candidates.swap_remove(chosen));
        }
        order
    }

    /// The endpoints that are not left out, and at most one that is to be probed.
    fn usable(&self, now: Instant) -> (Vec<usize>, Vec<usize>) {
        let all = 0..self.endpoints.len();
        let Some((standing, config)) = self.outliers() else {
            return (all.collect(), Vec::new());
        };
        if standing.outliers.is_panic(self.endpoints.len(), config) {
            return (all.collect(), Vec::new());
        }
        let (mut usable, mut probed) = (Vec::with_capacity(self.endpoints.len()), Vec::new());
        for (at, watched) in self.hosts.iter().enumerate() {
            let state = standing.outliers.state(&watched.host, now);
            if state == State::In {
                if watched.was_out.replace(false) {
                    self.local.loads.refresh(&self.endpoints[at].workload.uid, now);
                }
                usable.push(at);
                continue;
            }
            watched.was_out.set(true);
            if state == State::Probed && probed.is_empty() {
                probed.push(at);
            }
        }
        (usable, probed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(weights: &[u32]) -> Turns {
        let address = SocketAddr::from(([10, 0, 0, 1], 80));
        Turns::new(&weights.iter().map(|weight| (address, *weight)).collect::<Vec<_>>())
    }

    #[test]
    fn turns_are_in_proportion_to_weights_and_never_far_apart() {
        for weights in [&[1, 1, 1][..], &[3, 1, 1], &[5, 2, 3, 1]] {
            let mut turns = turns(weights);
            let all: u32 = weights.iter().sum();
            let shares: Vec<_> =
                weights.iter().enumerate().map(|(at, own)| (at, f64::from(*own))).collect();
            let mut counts = vec![0; weights.len()];
            for _ in 0..all * 100 {
                counts[turns.take(&shares)[0]] += 1;
            }
            for (count, weight) in counts.iter().zip(weights) {
                let expected = i64::from(weight * 100);
                assert!((count - expected).abs() <= 1, "{weights:?}: {counts:?}");
            }
        }
    }

    #[test]
    fn one_that_is_left_out_keeps_its_place_and_others_share_its_turns() {
        let mut turns = turns(&[1, 1, 1]);
        let (all, two) = (vec![(0, 1.0), (1, 1.0), (2, 1.0)], vec![(0, 1.0), (2, 1.0)]);
        let mut counts = [0_i32; 3];
        for round in 0..600 {
            let order = turns.take(if round < 300 { &two } else { &all });
            counts[order[0]] += 1;
        }
        assert!((90..=110).contains(&counts[1]), "{counts:?}");
        assert!((counts[0] - counts[2]).abs() <= 2, "{counts:?}");
    }
}
