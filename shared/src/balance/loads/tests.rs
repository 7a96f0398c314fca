use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::mesh::sample;

mod spread;

fn pods(count: usize) -> Vec<Workload> {
    (0..count).map(|index| sample::workload(&format!("pod-{index}"), "ns")).collect()
}

fn fail(loads: &Loads, pod: &Workload, now: Instant) {
    loads.start(&pod.uid, 80, now).failed(now);
}

fn eject(loads: &Loads, pod: &Workload, now: Instant) {
    for _ in 0..3 {
        fail(loads, pod, now);
    }
}

fn connect(loads: &Loads, pod: &Workload, took_ms: u64, now: Instant) {
    let mut work = loads.start(&pod.uid, 80, now);
    work.connected(Some(Duration::from_millis(took_ms)), now);
}

fn share_of_first(loads: &Loads, pods: &[Workload], now: Instant) -> f64 {
    let mut random = fastrand::Rng::with_seed(7);
    let mut pick = || loads.order(pods.iter().collect(), |pod| (*pod, 80), 1, &mut random, now)[0];
    let first = (0..4000).filter(|_| pick().uid == pods[0].uid).count();
    first as f64 / 4000.0
}

proptest! {
    #[test]
    fn candidates_never_repeat_and_ejected_ones_come_last_unless_in_panic(
        capacities in prop::collection::vec(0u32..4, 0..30),
        ejected in prop::collection::vec(0..3_u8, 30),
        tries in 0usize..40,
        seed in any::<u64>(),
    ) {
        let now = Instant::now();
        let loads = Loads::default();
        let mut pods = pods(capacities.len());
        for ((pod, capacity), eject_it) in pods.iter_mut().zip(&capacities).zip(&ejected) {
            pod.capacity = *capacity;
            match eject_it {
                0 => {}
                1 => eject(&loads, pod, now),
                _ => loads.start(&pod.uid, 80, now).gone(Gone::Port, now),
            }
        }
        let mut random = fastrand::Rng::with_seed(seed);
        let order = loads.order(pods.iter().collect(), |pod| (*pod, 80), tries, &mut random, now);
        let usable = pods.iter().filter(|pod| pod.capacity > 0).count();
        prop_assert_eq!(order.len(), tries.min(usable));
        prop_assert!(order.iter().all(|pod| pod.capacity > 0));
        let distinct: HashSet<_> = order.iter().map(|pod| &pod.uid).collect();
        prop_assert_eq!(distinct.len(), order.len());
        let out = |pod: &Workload| loads.is_ejected(&pod.uid, 80, now);
        let all_out = pods.iter().filter(|pod| pod.capacity > 0 && out(pod)).count();
        let in_panic = (usable - all_out) as f64 <= 0.2 * usable as f64;
        let places: Vec<bool> = order.iter().map(|pod| out(pod)).collect();
        prop_assert!(in_panic || places.is_sorted());
    }
}

#[test]
fn less_open_work_wins() {
    let (loads, pods, now) = (Loads::default(), pods(2), Instant::now());
    let work: Vec<_> = (0..5).map(|_| loads.start(&pods[0].uid, 80, now)).collect();
    assert_eq!(loads.outstanding(&pods[0].uid), 5);
    assert!(share_of_first(&loads, &pods, now) < 0.01);
    drop(work);
    assert_eq!(loads.outstanding(&pods[0].uid), 0);
}

#[test]
fn faster_endpoint_wins_and_a_slow_one_is_tried_again_later() {
    let (loads, pods, now) = (Loads::default(), pods(2), Instant::now());
    connect(&loads, &pods[0], 200, now);
    connect(&loads, &pods[1], 2, now);
    assert!(share_of_first(&loads, &pods, now) < 0.01);
    let later = now + Duration::from_secs(20);
    assert!(share_of_first(&loads, &pods, later) > 0.2);
}

#[test]
fn capacity_is_a_share_of_connections() {
    let (loads, mut pods, now) = (Loads::default(), pods(2), Instant::now());
    pods[0].capacity = 9;
    let held: Vec<_> = (0..1000)
        .map(|seed| {
            let mut random = fastrand::Rng::with_seed(seed);
            let order = loads.order(pods.iter().collect(), |pod| (*pod, 80), 1, &mut random, now);
            loads.start(&order[0].uid, 80, now)
        })
        .collect();
    assert!((880..=920).contains(&loads.outstanding(&pods[0].uid)));
    drop(held);
}

#[test]
fn ejection_grows_and_ends_with_success() {
    let (loads, pods, now) = (Loads::default(), pods(2), Instant::now());
    let (pod, uid) = (&pods[0], &pods[0].uid);
    fail(&loads, pod, now);
    fail(&loads, pod, now);
    assert!(!loads.is_ejected(uid, 80, now));
    fail(&loads, pod, now);
    assert!(loads.is_ejected(uid, 80, now + Duration::from_millis(999)));
    let second = now + Duration::from_secs(1);
    assert!(!loads.is_ejected(uid, 80, second));
    fail(&loads, pod, second);
    assert!(loads.is_ejected(uid, 80, second + Duration::from_millis(1999)));
    connect(&loads, pod, 1, second);
    assert!(!loads.is_ejected(uid, 80, second));
}

#[test]
fn a_port_on_which_nobody_listens_is_left_out_at_once_and_no_other() {
    let (loads, pods, now) = (Loads::default(), pods(2), Instant::now());
    let uid = &pods[0].uid;
    let second = Duration::from_secs(1);
    // The other one has more to do.
    let _busy: Vec<_> = (0..5).map(|_| loads.start(&pods[1].uid, 80, now)).collect();
    loads.start(uid, 80, now).gone(Gone::Port, now);
    // What was under way says nothing more.
    loads.start(uid, 80, now).gone(Gone::Port, now);
    let mut random = fastrand::Rng::with_seed(1);
    let mut first = |port, now| {
        let all = pods.iter().collect();
        loads.order(all, |pod: &&Workload| (*pod, port), 2, &mut random, now)[0].uid.clone()
    };
    for _ in 0..20 {
        assert_eq!(first(80, now), pods[1].uid);
    }
    assert!(loads.is_ejected(uid, 80, now) && !loads.is_ejected(uid, 81, now));
    assert_eq!(first(81, now), *uid);
    let later = now + second;
    assert!(!loads.is_ejected(uid, 80, later));
    // Twice as long, until somebody is there.
    loads.start(uid, 80, later).gone(Gone::Port, later);
    assert!(
        loads.is_ejected(uid, 80, later + second) && !loads.is_ejected(uid, 80, later + 2 * second)
    );
    loads.start(uid, 80, later).connected(None, later);
    assert!(!loads.is_ejected(uid, 80, later));
    loads.start(uid, 80, later).gone(Gone::Port, later);
    assert!(!loads.is_ejected(uid, 80, later + second), "it begins anew");
}

#[test]
fn an_endpoint_that_is_gone_is_ejected_at_once() {
    let (loads, pods, now) = (Loads::default(), pods(2), Instant::now());
    loads.start(&pods[0].uid, 80, now).gone(Gone::Pod, now);
    assert!(loads.is_ejected(&pods[0].uid, 80, now));
    connect(&loads, &pods[0], 1, now);
    assert!(!loads.is_ejected(&pods[0].uid, 80, now));
}

#[test]
fn all_ejected_means_panic_and_all_are_used() {
    let (loads, pods, now) = (Loads::default(), pods(2), Instant::now());
    eject(&loads, &pods[0], now);
    eject(&loads, &pods[1], now);
    assert!((0.3..0.7).contains(&share_of_first(&loads, &pods, now)));
}

#[test]
fn new_endpoint_starts_slowly() {
    let (loads, pods, now) = (Loads::default(), pods(2), Instant::now());
    let mut old = loads.start(&pods[1].uid, 80, now);
    old.connected(None, now);
    let later = now + Duration::from_secs(60);
    assert!(share_of_first(&loads, &pods, later) < 0.01, "the old one has one, the new one waits");
    assert!(share_of_first(&loads, &pods, later + Duration::from_secs(10)) > 0.9);
    drop(old);
}

#[test]
fn idle_endpoints_are_forgotten() {
    let (loads, now) = (Loads::default(), Instant::now());
    for pod in pods(128) {
        fail(&loads, &pod, now);
    }
    let later = now + Duration::from_secs(3600);
    fail(&loads, &sample::workload("other", "ns"), later);
    assert_eq!(loads.seen.borrow().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_new_endpoint_grows_to_its_share_as_it_is_told_to() {
    for (power, halfway) in [(1.0, 0.5), (0.5, 0.707)] {
        let config = Config { slow_start_power: power, ..Config::default() };
        let (loads, pods, now) = (Loads::new(config), pods(2), Instant::now());
        assert_eq!(loads.warmth(&pods[0].uid, now), 0.1, "never seen");
        connect(&loads, &pods[0], 1, now);
        assert_eq!(loads.warmth(&pods[0].uid, now), 0.1);
        let warmth = loads.warmth(&pods[0].uid, now + Duration::from_secs(5));
        assert!((warmth - halfway).abs() < 0.01, "{warmth}");
        let later = now + Duration::from_secs(20);
        assert_eq!(loads.warmth(&pods[0].uid, later), 1.0);
        loads.refresh(&pods[0].uid, later);
        assert_eq!(loads.warmth(&pods[0].uid, later), 0.1, "it was out");
    }
}
