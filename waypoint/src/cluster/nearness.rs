//! Endpoints that are near come first, and others get what these cannot take.
//!
//! Invariants: while enough of the nearest are in, they get everything; of those that are in, none is
//! idle while nearer ones are too few.
//! Source: Envoy's priority load, spec L7 §3.4.

use shared::balance::rank;
use shared::mesh::{LocalityPreference, Service, TrafficPolicy, Workload};

use crate::upstream::Endpoint;

/// Envoy: as long as 1/1.4 of the endpoints of a level are in, it takes everything.
const OVERPROVISIONING_PERCENT: usize = 140;

/// How far each endpoint is, 0 for the nearest; empty where that does not count.
pub(super) fn levels(
    own: &Workload,
    service: &Service,
    policy: &TrafficPolicy,
    endpoints: &[Endpoint],
) -> Box<[usize]> {
    let default = LocalityPreference::default();
    let preference = match &policy.locality {
        Some(preference) => preference,
        // Istio's mesh-wide default, where the service itself says nothing.
        None if service.balancing.is_none() => &default,
        None => return Box::default(),
    };
    let (LocalityPreference::Failover { scopes, regions }, Some(_)) =
        (preference, &policy.outliers)
    else {
        return Box::default();
    };
    let region = &own.locality.region;
    let goes_to = |to: &str| regions.iter().any(|(from, own)| from == region && **own == *to);
    let has_target = regions.iter().any(|(from, _)| from == region);
    let far = |endpoint: &Endpoint| {
        let workload = &*endpoint.workload;
        let there = &workload.locality.region;
        let away = has_target && there != region && !goes_to(there);
        // Of endpoints that share as much, those of the region that is named come first.
        (std::cmp::Reverse(rank(scopes, own, workload)), away)
    };
    let all: Vec<_> = endpoints.iter().map(far).collect();
    let mut distinct = all.clone();
    distinct.sort_unstable();
    distinct.dedup();
    if distinct.len() < 2 {
        return Box::default();
    }
    all.iter().map(|one| distinct.binary_search(one).unwrap_or_default()).collect()
}

/// The percentage of requests for each level, of which so many (in, all) endpoints are in.
pub(super) fn shares(levels: &[(usize, usize)]) -> Vec<usize> {
    let health = |(up, all): &(usize, usize)| {
        (OVERPROVISIONING_PERCENT * up).checked_div(*all).unwrap_or(0).min(100)
    };
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
mod tests {
    use std::sync::Arc;

    use shared::mesh::{OutlierDetection, Scope, sample};

    use super::*;

    #[test]
    fn the_nearest_take_everything_while_enough_of_them_are_in() {
        for (levels, expected) in [
            (&[(5, 5), (5, 5)][..], &[100, 0][..]),
            (&[(4, 5), (5, 5)], &[100, 0]),
            (&[(3, 5), (5, 5)], &[84, 16]),
            (&[(0, 5), (5, 5)], &[0, 100]),
            (&[(1, 5), (1, 5)], &[50, 50]),
            (&[(1, 5), (2, 5), (5, 5)], &[28, 56, 16]),
            (&[(0, 5), (0, 5)], &[0, 0]),
            (&[], &[]),
        ] {
            assert_eq!(shares(levels), expected, "{levels:?}");
        }
    }

    fn at(region: &str, zone: &str) -> Endpoint {
        let mut workload = sample::workload("pod", "ns");
        workload.locality = sample::locality(region, zone);
        Endpoint::new(Arc::new(workload), ([10, 0, 0, 1], 80).into())
    }

    fn levels_of(locality: Option<LocalityPreference>, outliers: bool) -> Vec<usize> {
        let own = at("r1", "z1").workload;
        let outliers = outliers.then(|| OutlierDetection {
            consecutive_5xx: None,
            consecutive_gateway_errors: None,
            consecutive_local_failures: None,
            split: false,
            interval: std::time::Duration::from_secs(1),
            base_ejection: std::time::Duration::from_secs(1),
            max_ejection_percent: 10,
            min_health_percent: 0,
            success_rate: None,
            latency: None,
        });
        let policy = TrafficPolicy { locality, outliers, ..TrafficPolicy::default() };
        let all = [at("r1", "z1"), at("r1", "z2"), at("r2", "z1"), at("r3", "z1")];
        levels(&own, &sample::service("web", "ns"), &policy, &all).to_vec()
    }

    #[test]
    fn the_more_leading_scopes_are_shared_the_nearer() {
        assert_eq!(levels_of(None, true), [0, 1, 2, 2]);
        assert_eq!(levels_of(None, false), [0; 0], "nobody is ever left out");
        assert_eq!(levels_of(Some(LocalityPreference::Off), true), [0; 0]);
        let LocalityPreference::Failover { scopes, .. } = LocalityPreference::default() else {
            unreachable!("a default")
        };
        let regions = [("r1".into(), "r3".into())].into();
        let failover = LocalityPreference::Failover { scopes, regions };
        assert_eq!(levels_of(Some(failover), true), [0, 1, 3, 2]);
        let scopes = [Scope::Zone].into();
        let zones = LocalityPreference::Failover { scopes, regions: Box::default() };
        assert_eq!(levels_of(Some(zones), true), [0, 1, 0, 0]);
    }
}
