//! Where endpoints are: those that are near come first and others get what these cannot take, or
//! weights say how requests are parted.
//!
//! Invariants: while enough of the nearest are in, they get everything; of those that are in, none is
//! idle while nearer ones are too few; where weights count, an endpoint that has none gets nothing;
//! requests with the same key go the same way while the same endpoints are in.
//! Source: Envoy's priority load and locality weights, spec L7 §3.4.

use shared::balance::{rank, weighted};
use shared::mesh::{Distribution, LocalityPreference, Service, TrafficPolicy, Workload};

use crate::upstream::Endpoint;

/// Envoy: as long as 1/1.4 of the endpoints of a part are in, it takes everything that is its.
const OVERPROVISIONING_PERCENT: usize = 140;

/// The parts of the endpoints of a destination.
pub(super) struct Nearness {
    /// The part of each endpoint, 0 for the nearest; empty where it does not count.
    parts: Box<[usize]>,
    /// Of each part, where they do not follow each other.
    weights: Option<Box<[u32]>>,
}

impl Nearness {
    /// It does not count where endpoints are.
    pub(super) fn none() -> Self {
        Self { parts: Box::default(), weights: None }
    }

    /// The parts of `endpoints`, of which those go that get nothing.
    pub(super) fn of(
        own: &Workload,
        service: &Service,
        policy: &TrafficPolicy,
        endpoints: &mut Vec<Endpoint>,
    ) -> Self {
        let default = LocalityPreference::default();
        let preference = match &policy.locality {
            Some(preference) => preference,
            // Istio's mesh-wide default, where the service itself says nothing.
            None if service.balancing.is_none() => &default,
            None => return Self::none(),
        };
        match preference {
            LocalityPreference::Off => Self::none(),
            // Who is never left out never makes room for others.
            LocalityPreference::Failover { .. } if policy.outliers.is_none() => Self::none(),
            LocalityPreference::Failover { scopes, regions } => {
                let region = &own.locality.region;
                let goes_to =
                    |to: &str| regions.iter().any(|(from, own)| from == region && **own == *to);
                let has_target = regions.iter().any(|(from, _)| from == region);
                Self::levels(endpoints, |workload| {
                    let there = &workload.locality.region;
                    let away = has_target && there != region && !goes_to(there);
                    // Of endpoints that share as much, those of the region that is named come first.
                    (std::cmp::Reverse(rank(scopes, own, workload)), away)
                })
            }
            LocalityPreference::Distribute(all) => {
                let own = all.iter().find(|one| one.from.matches(&own.locality));
                own.map_or_else(Self::none, |own| Self::weighted(own, endpoints))
            }
        }
    }

    /// Those that are as far share a level.
    fn levels<T: Ord + Clone>(endpoints: &[Endpoint], far: impl Fn(&Workload) -> T) -> Self {
        let all: Vec<T> = endpoints.iter().map(|one| far(&one.workload)).collect();
        let mut distinct = all.clone();
        distinct.sort_unstable();
        distinct.dedup();
        if distinct.len() < 2 {
            return Self::none();
        }
        let level = |one: &T| distinct.binary_search(one).unwrap_or_default();
        Self { parts: all.iter().map(level).collect(), weights: None }
    }

    fn weighted(by: &Distribution, endpoints: &mut Vec<Endpoint>) -> Self {
        let part = |endpoint: &Endpoint| {
            by.to.iter().position(|(to, _)| to.matches(&endpoint.workload.locality))
        };
        endpoints.retain(|endpoint| part(endpoint).is_some());
        let weights = by.to.iter().map(|(_, weight)| *weight).collect();
        Self { parts: endpoints.iter().filter_map(part).collect(), weights: Some(weights) }
    }

    /// The candidates in parts: the one that is drawn, then the others, the nearest or those with the
    /// most weight first.
    pub(super) fn parted(
        &self,
        candidates: Vec<usize>,
        random: &mut fastrand::Rng,
    ) -> Vec<Vec<usize>> {
        let Some(last) = self.parts.iter().max() else { return vec![candidates] };
        let mut parts: Vec<(Vec<usize>, usize)> = vec![(Vec::new(), 0); last + 1];
        for part in &self.parts {
            parts[*part].1 += 1;
        }
        for at in candidates {
            parts[self.parts[at]].0.push(at);
        }
        let counts: Vec<_> = parts.iter().map(|(own, all)| (own.len(), *all)).collect();
        let shares = match &self.weights {
            None => shares(&counts),
            Some(weights) => {
                let share = |(weight, count): (&u32, &_)| *weight as usize * health(count);
                weights.iter().zip(&counts).map(share).collect()
            }
        };
        let draw = shares.iter().map(|share| u32::try_from(*share).unwrap_or(u32::MAX)).enumerate();
        let drawn = weighted(draw, random);
        let mut order: Vec<usize> = (0..parts.len()).collect();
        // Stable: levels keep theirs.
        order.sort_by_key(|part| {
            let weight = self.weights.as_ref().map_or(0, |weights| weights[*part]);
            (Some(*part) != drawn, std::cmp::Reverse(weight))
        });
        order.into_iter().map(|part| std::mem::take(&mut parts[part].0)).collect()
    }
}

/// How much of what is its a part can take, in percent, of which so many (in, all) endpoints are in.
fn health((up, all): &(usize, usize)) -> usize {
    (OVERPROVISIONING_PERCENT * up).checked_div(*all).unwrap_or(0).min(100)
}

/// The percentage of requests for each level.
fn shares(levels: &[(usize, usize)]) -> Vec<usize> {
    let health: Vec<usize> = levels.iter().map(health).collect();
    let total = health.iter().sum::<usize>().min(100);
    let mut left = 100;
    let share = |own: &usize| {
        let share = (own * 100).checked_div(total).unwrap_or(0).min(left);
        left -= share;
        share
    };
    health.iter().map(share).collect()
}

#[cfg(test)]
mod tests;
