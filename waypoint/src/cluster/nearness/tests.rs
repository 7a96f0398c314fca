use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use shared::mesh::{LocalityPattern, OutlierDetection, Scope, sample};

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

fn outliers() -> OutlierDetection {
    OutlierDetection {
        consecutive_5xx: None,
        consecutive_gateway_errors: None,
        consecutive_local_failures: None,
        split: false,
        interval: Duration::from_secs(1),
        base_ejection: Duration::from_secs(1),
        max_ejection_percent: 10,
        min_health_percent: 0,
        success_rate: None,
        latency: None,
    }
}

/// What a waypoint in zone `z1` of region `r1` makes of them.
fn nearness(
    locality: Option<LocalityPreference>,
    outliers: Option<OutlierDetection>,
    endpoints: &mut Vec<Endpoint>,
) -> Nearness {
    let own = at("r1", "z1").workload;
    let policy = TrafficPolicy { locality, outliers, ..TrafficPolicy::default() };
    Nearness::of(&own, &sample::service("web", "ns"), &policy, endpoints)
}

fn levels_of(locality: Option<LocalityPreference>, is_watched: bool) -> Vec<usize> {
    let mut all = vec![at("r1", "z1"), at("r1", "z2"), at("r2", "z1"), at("r3", "z1")];
    nearness(locality, is_watched.then(outliers), &mut all).parts.to_vec()
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

fn pattern(text: &str) -> LocalityPattern {
    LocalityPattern::parse(text).unwrap()
}

fn distribute(from: &str, to: &[(&str, u32)]) -> LocalityPreference {
    let to = to.iter().map(|(to, weight)| (pattern(to), *weight)).collect();
    LocalityPreference::Distribute([Distribution { from: pattern(from), to }].into())
}

/// How often each place came first, of a thousand draws.
fn first(nearness: &Nearness, candidates: &[usize], seed: u64) -> BTreeMap<Vec<usize>, usize> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut counts = BTreeMap::new();
    for _ in 0..1_000 {
        let parts = nearness.parted(candidates.to_vec(), &mut random);
        *counts.entry(parts[0].clone()).or_default() += 1;
    }
    counts
}

#[test]
fn who_is_not_named_gets_nothing_and_the_first_entry_for_here_counts() {
    let all = || vec![at("r1", "z1"), at("r1", "z2"), at("r2", "z1"), at("r3", "z1")];
    let mut endpoints = all();
    let by = distribute("r1/*", &[("r1/z1", 70), ("r2/*", 30)]);
    let parts = nearness(Some(by), None, &mut endpoints);
    assert_eq!(endpoints.len(), 2);
    assert_eq!((&*parts.parts, parts.weights.as_deref()), (&[0, 1][..], Some(&[70, 30][..])));
    let mut endpoints = all();
    let elsewhere = distribute("r2/*", &[("r2/*", 100)]);
    let parts = nearness(Some(elsewhere), None, &mut endpoints);
    assert_eq!((parts.parts.len(), endpoints.len()), (0, 4), "it says nothing for here");
}

#[test]
fn a_part_that_is_out_leaves_its_share_to_the_others() {
    let mut endpoints = vec![at("r1", "z1"), at("r1", "z2"), at("r1", "z2"), at("r1", "z2")];
    let by = distribute("*", &[("r1/z1", 80), ("r1/z2", 20)]);
    let parts = nearness(Some(by), None, &mut endpoints);
    assert_eq!(first(&parts, &[1, 2, 3], 1), [(vec![1, 2, 3], 1_000)].into());
    // Two of three are in, which is 93 % of what the part can take.
    let some = first(&parts, &[0, 1, 2], 1);
    assert!((760..=860).contains(&some[&vec![0]]), "{some:?}");
    assert_eq!(parts.parted(Vec::new(), &mut fastrand::Rng::new()), [[0; 0]; 2]);
}

proptest! {
    #[test]
    fn requests_are_parted_by_weight_and_nobody_is_lost(
        weights in prop::collection::vec(1..100_u32, 1..5),
        counts in prop::collection::vec(1..4_usize, 5),
        seed in any::<u64>(),
    ) {
        let zones: Vec<String> = (0..weights.len()).map(|zone| format!("r1/z{zone}")).collect();
        let to: Vec<_> = zones.iter().map(String::as_str).zip(weights.iter().copied()).collect();
        let mut endpoints: Vec<Endpoint> = counts
            .iter()
            .enumerate()
            .flat_map(|(zone, count)| vec![at("r1", &format!("z{zone}")); *count])
            .collect();
        let parts = nearness(Some(distribute("r1", &to)), None, &mut endpoints);
        let all: Vec<usize> = (0..endpoints.len()).collect();
        prop_assert_eq!(all.len(), counts[..weights.len()].iter().sum::<usize>());
        let total: u32 = weights.iter().sum();
        for (found, count) in first(&parts, &all, seed) {
            let share = f64::from(weights[parts.parts[found[0]]]) / f64::from(total);
            let slack = 5.0 * (1_000.0 * share * (1.0 - share)).sqrt() + 1.0;
            prop_assert!((count as f64 - 1_000.0 * share).abs() <= slack, "{count} of {share}");
        }
        let random = || fastrand::Rng::with_seed(seed);
        let mut order = parts.parted(all.clone(), &mut random()).concat();
        prop_assert_eq!(&order, &parts.parted(all.clone(), &mut random()).concat());
        order.sort_unstable();
        prop_assert_eq!(order, all);
    }
}
