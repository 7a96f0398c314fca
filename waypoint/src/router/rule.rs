//! A rule that can be applied: filters made ready, backends by weight.

use std::sync::Arc;

use shared::mesh::{
    self, Destination, Fault, HttpMatch, HttpRule, RateLimits, Retry, Route, RouteKey, RouteKind,
    Session, Timeouts,
};

use crate::filters::{Filters, HeaderEdits};

/// One rule of a route.
#[derive(Debug)]
pub struct Rule {
    route: Arc<Route>,
    label: Arc<str>,
    at: usize,
    name: Option<Arc<str>>,
    pub(super) matches: Arc<[HttpMatch]>,
    /// What is done to its requests and responses.
    pub filters: Filters,
    /// Failures that are made on purpose.
    pub fault: Option<Arc<Fault>>,
    backends: Weighted,
    /// How long its requests may take.
    pub timeouts: Timeouts,
    /// When they are repeated; `None` leaves the mesh's default.
    pub retry: Option<Arc<Retry>>,
    /// How the requests of one session find the same endpoint.
    pub session: Option<Arc<Session>>,
}

impl Rule {
    pub(super) fn new(route: &Arc<Route>, at: usize, rule: &HttpRule) -> Self {
        Self {
            route: route.clone(),
            label: format!("{}/{}", route.key.namespace, route.key.name).into(),
            at,
            name: rule.name.clone(),
            matches: rule.matches.clone(),
            filters: Filters::new(&rule.filters, &rule.mirrors),
            fault: rule.fault.clone(),
            backends: Weighted::new(&rule.backends),
            timeouts: rule.timeouts,
            retry: rule.retry.clone(),
            session: rule.session.clone(),
        }
    }

    /// The route that it is of.
    pub fn route(&self) -> &RouteKey {
        &self.route.key
    }

    /// Namespace and name of that route, for metrics and logs.
    pub fn label(&self) -> &Arc<str> {
        &self.label
    }

    /// How many requests its route may pass on.
    pub fn rate_limits(&self) -> Option<&Arc<RateLimits>> {
        self.route.rate_limits.as_ref()
    }

    /// Where its route is in memory: one that changes is another one.
    pub(super) fn place(&self) -> *const Route {
        Arc::as_ptr(&self.route)
    }

    /// Its place in the route, from 0.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Its name, when it has one.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Whether it is of a `GRPCRoute`, whose clients want `grpc-status` instead of a status.
    pub fn is_grpc(&self) -> bool {
        self.route.key.kind == RouteKind::Grpc
    }

    /// Whether it is of a `VirtualService`, of which a destination that is unknown answers 503.
    pub fn is_virtual(&self) -> bool {
        self.route.key.kind == RouteKind::Virtual
    }

    /// The backend of a request that drew this number.
    pub fn choose(&self, draw: u64) -> Choice<'_> {
        self.backends.choose(draw)
    }

    /// The backends that are not invalid, those of weight 0 too: a session may still be with one.
    pub fn backends(&self) -> impl Iterator<Item = &Backend> {
        self.backends.entries.iter().filter_map(|(_, backend)| backend.as_ref().ok())
    }
}

/// Where a request or a connection goes.
#[derive(Debug)]
pub enum Choice<'a> {
    /// There.
    Backend(&'a Backend),
    /// The share of a backend that cannot be used, and why: 500.
    Invalid(&'a str),
    /// There is none, or none has any weight: 500.
    NoBackends,
}

/// One place to send to.
#[derive(Debug)]
pub struct Backend {
    /// The port of a service.
    pub destination: Destination,
    /// Its share.
    pub weight: u32,
    /// Applied to requests, after the rule's.
    pub request_headers: HeaderEdits,
    /// Applied to responses, before the rule's.
    pub response_headers: HeaderEdits,
}

/// Backends, each with the end of its share.
#[derive(Debug)]
pub(super) struct Weighted {
    entries: Box<[Share]>,
}

/// The end of a share, and the backend or why there is none.
type Share = (u64, Result<Backend, Arc<str>>);

impl Weighted {
    pub(super) fn new(backends: &[mesh::Backend]) -> Self {
        let mut end = 0;
        let entries = backends.iter().map(|one| {
            end += u64::from(one.weight);
            let backend = one.target.clone().map(|destination| Backend {
                destination,
                weight: one.weight,
                request_headers: HeaderEdits::of_requests(&one.filters.request_headers),
                response_headers: HeaderEdits::of_responses(&one.filters.response_headers),
            });
            (end, backend)
        });
        Self { entries: entries.collect() }
    }

    /// Of every `sum` draws in a row, each backend gets exactly its weight. Over all 2^64 draws the
    /// shares differ from that by less than one in 10^12.
    pub(super) fn choose(&self, draw: u64) -> Choice<'_> {
        let Some((sum, _)) = self.entries.last().filter(|(sum, _)| *sum > 0) else {
            return Choice::NoBackends;
        };
        let at = self.entries.partition_point(|(end, _)| *end <= draw % sum);
        match &self.entries[at].1 {
            Ok(backend) => Choice::Backend(backend),
            Err(reason) => Choice::Invalid(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use shared::mesh::sample;

    use super::*;

    fn shares(weights: &[Option<u32>]) -> BTreeMap<String, usize> {
        let backends: Vec<_> = weights
            .iter()
            .enumerate()
            .map(|(at, weight)| {
                let service = sample::service_key(&format!("s{at}"), "ns");
                let mut backend = sample::backend(&service, weight.unwrap_or(5));
                if weight.is_none() {
                    backend.target = Err("gone".into());
                }
                backend
            })
            .collect();
        let weighted = Weighted::new(&backends);
        let mut shares = BTreeMap::new();
        for draw in 0..100 {
            let name = match weighted.choose(draw) {
                Choice::Backend(backend) => backend.destination.service.hostname[..2].to_owned(),
                Choice::Invalid(reason) => reason.to_owned(),
                Choice::NoBackends => "none".to_owned(),
            };
            *shares.entry(name).or_default() += 1;
        }
        shares
    }

    #[test]
    fn weights_are_shares_and_nothing_gets_nothing() {
        for (weights, expected) in [
            (&[Some(70), Some(30)][..], &[("s0", 70), ("s1", 30)][..]),
            (&[Some(0), Some(1), Some(0)], &[("s1", 100)]),
            (&[Some(15), None], &[("gone", 25), ("s0", 75)]),
            (&[None], &[("gone", 100)]),
            (&[Some(0), Some(0)], &[("none", 100)]),
            (&[], &[("none", 100)]),
        ] {
            let expected: BTreeMap<_, _> =
                expected.iter().map(|(name, share)| ((*name).to_owned(), *share)).collect();
            assert_eq!(shares(weights), expected, "{weights:?}");
        }
    }
}
