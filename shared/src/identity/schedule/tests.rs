//! The laws of renewal, with a clock that the tests turn.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn id(name: &str) -> SpiffeId {
    format!("spiffe://cluster.local/ns/team/sa/{name}").parse().unwrap()
}

fn schedule() -> (Schedule, Instant) {
    (Schedule::new(Config::default()), Instant::now())
}

/// Runs one attempt for whoever is next.
fn attempt(schedule: &mut Schedule, now: Instant, remaining: Option<Duration>) -> SpiffeId {
    let (id, ticket) = schedule.start(now).expect("an attempt is due");
    let wanted = match remaining {
        Some(remaining) => schedule.succeeded((&id, ticket), remaining, now, 0.5),
        None => schedule.failed((&id, ticket), now, 0.5),
    };
    assert!(wanted);
    id
}

#[test]
fn renewal_is_due_at_half_of_what_was_left_at_receipt() {
    let (mut schedule, now) = schedule();
    schedule.want(&id("a"), Priority::Prefetch, now);
    attempt(&mut schedule, now, Some(100 * SECOND));
    assert_eq!(schedule.deadline(), Some(now + 50 * SECOND));
    assert!(schedule.start(now + 49 * SECOND).is_none());
    // A back-dated certificate with little left is not asked for again at once.
    attempt(&mut schedule, now + 50 * SECOND, Some(10 * SECOND));
    assert_eq!(schedule.deadline(), Some(now + 55 * SECOND));
}

#[test]
fn jitter_spreads_renewals_by_a_tenth_to_either_side() {
    for (chance, seconds) in [(0.0, 45.0), (1.0, 55.0)] {
        let (mut schedule, now) = schedule();
        schedule.want(&id("a"), Priority::Prefetch, now);
        let (a, ticket) = schedule.start(now).unwrap();
        schedule.succeeded((&a, ticket), 100 * SECOND, now, chance);
        let due = schedule.deadline().unwrap() - now;
        assert!((due.as_secs_f64() - seconds).abs() < 0.001, "{due:?}");
    }
}

#[test]
fn urgent_comes_before_early_and_early_before_late() {
    let (mut schedule, now) = schedule();
    schedule.want(&id("early"), Priority::Prefetch, now);
    schedule.want(&id("late"), Priority::Prefetch, now + SECOND);
    schedule.want(&id("urgent"), Priority::OnDemand, now + 2 * SECOND);
    let now = now + 3 * SECOND;
    let order: Vec<_> = std::iter::from_fn(|| schedule.start(now)).map(|(id, _)| id).collect();
    assert_eq!(order, [id("urgent"), id("early"), id("late")]);
}

#[test]
fn demand_raises_what_is_queued_and_adds_no_second_attempt() {
    let (mut schedule, now) = schedule();
    for name in ["a", "b"] {
        schedule.want(&id(name), Priority::Prefetch, now);
    }
    let later = now + SECOND;
    schedule.want(&id("b"), Priority::OnDemand, later);
    assert_eq!(schedule.start(later).unwrap().0, id("b"));
    schedule.want(&id("b"), Priority::OnDemand, later);
    assert_eq!(schedule.start(later).unwrap().0, id("a"));
    assert!(schedule.start(later).is_none());
}

#[test]
fn at_most_eight_attempts_are_in_flight() {
    let (mut schedule, now) = schedule();
    for number in 0..20 {
        schedule.want(&id(&format!("a{number}")), Priority::OnDemand, now);
    }
    let started: Vec<_> = std::iter::from_fn(|| schedule.start(now)).collect();
    assert_eq!(started.len(), 8);
    assert_eq!(schedule.deadline(), None);
    schedule.failed((&started[0].0, started[0].1), now, 0.5);
    assert!(schedule.start(now).is_some());
    // Forgetting one that is in flight makes room as well.
    assert!(schedule.forget(&started[1].0).is_some());
    assert!(schedule.start(now).is_some());
    assert!(schedule.start(now).is_none());
}

#[test]
fn pauses_double_up_to_the_longest_while_there_is_no_certificate() {
    let (mut schedule, mut now) = schedule();
    schedule.want(&id("a"), Priority::OnDemand, now);
    let mut pauses = Vec::new();
    for _ in 0..8 {
        attempt(&mut schedule, now, None);
        let due = schedule.deadline().unwrap();
        // Demand does not cut a pause short.
        schedule.want(&id("a"), Priority::OnDemand, now);
        assert_eq!(schedule.deadline(), Some(due));
        pauses.push((due - now).as_millis());
        now = due;
    }
    assert_eq!(pauses, [250, 500, 1000, 2000, 4000, 8000, 15_000, 15_000]);
}

#[test]
fn attempts_become_closer_as_expiry_comes_near() {
    let (mut schedule, start) = schedule();
    schedule.want(&id("a"), Priority::OnDemand, start);
    attempt(&mut schedule, start, Some(5 * SECOND));
    let mut attempts = 0;
    while schedule.deadline().unwrap() < start + 5 * SECOND {
        let now = schedule.deadline().unwrap();
        attempt(&mut schedule, now, None);
        attempts += 1;
    }
    assert!((8..30).contains(&attempts), "{attempts}");
    // And a certificate of a day is not asked for every second.
    let (mut schedule, start) = self::schedule();
    schedule.want(&id("a"), Priority::OnDemand, start);
    attempt(&mut schedule, start, Some(86_400 * SECOND));
    let mut attempts = 0;
    while schedule.deadline().unwrap() < start + 86_400 * SECOND {
        let now = schedule.deadline().unwrap();
        attempt(&mut schedule, now, None);
        attempts += 1;
    }
    assert!(attempts < 450, "{attempts}");
}

#[test]
fn the_latest_intent_wins_between_forget_and_want() {
    let (mut schedule, now) = schedule();
    schedule.want(&id("a"), Priority::OnDemand, now);
    let (a, first) = schedule.start(now).unwrap();
    assert_eq!(schedule.forget(&a), Some(first));
    schedule.want(&a, Priority::OnDemand, now);
    let (_, second) = schedule.start(now).unwrap();
    assert!(!schedule.succeeded((&a, first), 10 * SECOND, now, 0.5));
    assert!(schedule.succeeded((&a, second), 10 * SECOND, now, 0.5));
    assert_eq!(schedule.forget(&a), None);
    assert!(!schedule.failed((&a, second), now, 0.5));
    assert_eq!(schedule.in_flight, 0);
    assert_eq!(schedule.deadline(), None);
}

#[test]
fn change_asks_for_everything_again_also_for_what_is_in_flight() {
    let (mut schedule, now) = schedule();
    schedule.want(&id("a"), Priority::Prefetch, now);
    attempt(&mut schedule, now, Some(100 * SECOND));
    schedule.refresh_all(now + SECOND);
    let (a, ticket) = schedule.start(now + SECOND).unwrap();
    schedule.refresh_all(now + 2 * SECOND);
    schedule.succeeded((&a, ticket), 100 * SECOND, now + 3 * SECOND, 0.5);
    assert_eq!(schedule.deadline(), Some(now + 3 * SECOND));
}

#[test]
fn an_attempt_that_hangs_leaves_time_for_another_before_expiry() {
    let (mut schedule, now) = schedule();
    schedule.want(&id("a"), Priority::Prefetch, now);
    assert_eq!(schedule.limit(&id("a"), now), 10 * SECOND, "there is nothing to lose yet");
    attempt(&mut schedule, now, Some(8 * SECOND));
    assert_eq!(schedule.limit(&id("a"), now + 4 * SECOND), 2 * SECOND);
    assert_eq!(schedule.limit(&id("a"), now + 7 * SECOND), SECOND, "an attempt needs its time");
    assert_eq!(schedule.limit(&id("a"), now + 8 * SECOND), 10 * SECOND, "nothing to lose any more");
    attempt(&mut schedule, now + 8 * SECOND, Some(100 * SECOND));
    assert_eq!(schedule.limit(&id("a"), now + 58 * SECOND), 10 * SECOND);
}
