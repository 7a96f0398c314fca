//! In which order endpoints are tried.
//!
//! Invariants: an endpoint is offered once; one that is left out is not offered, except in panic.

use std::net::SocketAddr;

use tokio::time::Instant;

use crate::cluster::{Cluster, State};
use crate::upstream::Endpoint;

/// What a request wants of an endpoint.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wish {
    /// The one that a session is with.
    pub(crate) session: Option<SocketAddr>,
}

impl Cluster {
    /// Up to `tries` endpoints: one that is to be probed, then the session's, then as the rule
    /// balances.
    pub(crate) fn order(&self, wish: Wish, tries: usize, now: Instant) -> Vec<&Endpoint> {
        let (mut candidates, mut order) = self.usable(now);
        if let Some(at) = candidates.iter().position(|one| Some(one.address) == wish.session) {
            order.push(candidates.swap_remove(at));
        }
        let more = tries.saturating_sub(order.len());
        let random = &mut fastrand::Rng::new();
        let mut balanced =
            self.loads.order(candidates, |one: &&Endpoint| &one.workload, more, random, now);
        order.append(&mut balanced);
        order.truncate(tries);
        order
    }

    /// The endpoints that are not left out, and at most one that is to be probed.
    fn usable(&self, now: Instant) -> (Vec<&Endpoint>, Vec<&Endpoint>) {
        let Some((standing, config)) = self.outliers() else {
            return (self.endpoints.iter().collect(), Vec::new());
        };
        if standing.outliers.is_panic(self.endpoints.len(), config) {
            return (self.endpoints.iter().collect(), Vec::new());
        }
        let (mut usable, mut probed) = (Vec::with_capacity(self.endpoints.len()), Vec::new());
        for (endpoint, watched) in self.endpoints.iter().zip(&self.hosts) {
            let state = standing.outliers.state(&watched.host, now);
            if state == State::In {
                if watched.was_out.replace(false) {
                    self.loads.refresh(&endpoint.workload.uid, now);
                }
                usable.push(endpoint);
                continue;
            }
            watched.was_out.set(true);
            if state == State::Probed && probed.is_empty() {
                probed.push(endpoint);
            }
        }
        (usable, probed)
    }
}
