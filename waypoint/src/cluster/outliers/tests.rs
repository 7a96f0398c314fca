mod compared;

use proptest::prelude::*;
use shared::mesh::{SlowAnswers, SuccessRate};

use super::host::MOST_PROBES;
use super::*;

fn config() -> OutlierDetection {
    OutlierDetection {
        consecutive_5xx: Some(3),
        consecutive_gateway_errors: None,
        consecutive_local_failures: None,
        split: false,
        interval: Duration::from_secs(10),
        base_ejection: Duration::from_secs(30),
        max_ejection_percent: 50,
        min_health_percent: 0,
        success_rate: None,
        latency: None,
    }
}

fn answer(status: u16) -> Report {
    Report::Answered { status, took: None }
}

fn uid(number: usize) -> Uid {
    Uid(format!("pod-{number}").into())
}

/// Outliers of `count` endpoints at a time that a test moves.
struct World {
    outliers: Outliers,
    hosts: Vec<Arc<Host>>,
    config: OutlierDetection,
    now: Instant,
}

impl World {
    fn new(count: usize, config: OutlierDetection) -> Self {
        let now = Instant::now();
        let outliers = Outliers::new(now);
        let uids: Vec<Uid> = (0..count).map(uid).collect();
        let hosts = outliers.hosts(1, uids.iter());
        Self { outliers, hosts, config, now }
    }

    fn report(&self, host: usize, report: Report) -> Verdict {
        self.outliers.report(&self.hosts[host], report, &self.config, self.now)
    }

    /// The verdict on the last of several equal answers.
    fn answers(&self, host: usize, status: u16, times: usize) -> Verdict {
        let all: Vec<_> = (0..times).map(|_| self.report(host, answer(status))).collect();
        assert!(all[..times - 1].iter().all(|one| *one == Verdict::Nothing), "{all:?}");
        all[times - 1]
    }

    fn state(&self, host: usize) -> State {
        self.outliers.state(&self.hosts[host], self.now)
    }

    fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    /// Answers probes well until the endpoint is in again.
    fn heal(&self, host: usize) {
        assert_eq!(self.answers(host, 200, 3), Verdict::Returned(Reason::Consecutive5xx));
        assert_eq!(self.state(host), State::In);
    }
}

fn ejected(reason: Reason, seconds: u64) -> Verdict {
    Verdict::Ejected(reason, Duration::from_secs(seconds))
}

#[tokio::test(start_paused = true)]
async fn failures_in_a_row_eject_and_a_good_answer_begins_anew() {
    let world = World::new(4, config());
    assert_eq!(world.answers(0, 500, 2), Verdict::Nothing);
    assert_eq!(world.report(0, answer(404)), Verdict::Nothing);
    assert_eq!(world.answers(0, 500, 2), Verdict::Nothing);
    assert_eq!(world.report(0, Report::NotConnected), ejected(Reason::Consecutive5xx, 30));
    assert_eq!(world.state(0), State::Ejected);
    assert_eq!((world.outliers.out(), world.outliers.ejected(Reason::Consecutive5xx)), (1, 1));
    // What was under way when it was ejected says nothing more.
    assert_eq!(world.answers(0, 500, 9), Verdict::Nothing);
}

#[tokio::test(start_paused = true)]
async fn gateway_errors_are_counted_apart() {
    let limits = (Some(100), Some(2));
    let (consecutive_5xx, consecutive_gateway_errors) = limits;
    let world =
        World::new(4, OutlierDetection { consecutive_5xx, consecutive_gateway_errors, ..config() });
    assert_eq!(world.report(0, answer(503)), Verdict::Nothing);
    assert_eq!(world.report(0, answer(500)), Verdict::Nothing);
    assert_eq!(world.report(0, answer(504)), Verdict::Nothing);
    assert_eq!(world.report(0, Report::TimedOut), ejected(Reason::ConsecutiveGateway, 30));
}

#[tokio::test(start_paused = true)]
async fn what_fails_here_counts_apart_when_it_is_split() {
    let world = World::new(
        4,
        OutlierDetection { split: true, consecutive_local_failures: Some(2), ..config() },
    );
    for report in [Report::NotConnected, answer(500), answer(500)] {
        assert_eq!(world.report(0, report), Verdict::Nothing);
    }
    assert_eq!(world.report(0, Report::TimedOut), Verdict::Nothing, "an answer came in between");
    assert_eq!(world.report(0, Report::Reset), ejected(Reason::ConsecutiveLocal, 30));
    let merged = World::new(4, config());
    for report in [Report::TimedOut, Report::Reset] {
        assert_eq!(merged.report(0, report), Verdict::Nothing);
    }
    assert_eq!(merged.report(0, Report::NotConnected), ejected(Reason::Consecutive5xx, 30));
}

/// With the default of 10 % a destination of fewer than ten endpoints never ejects one.
#[tokio::test(start_paused = true)]
async fn no_more_are_ejected_than_the_share_allows() {
    for (count, percent, most) in [(4, 50, 2), (5, 50, 2), (9, 10, 0), (10, 10, 1), (3, 100, 3)] {
        let world =
            World::new(count, OutlierDetection { max_ejection_percent: percent, ..config() });
        for host in 0..count {
            world.answers(host, 500, 3);
        }
        assert_eq!(world.outliers.out(), most, "{percent} % of {count}");
        assert_eq!(world.outliers.overflow(), u64::from(count as u32 - most));
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_comes_back_after_as_many_good_answers_as_failures_eject() {
    let mut world = World::new(4, config());
    world.answers(0, 500, 3);
    world.wait(29);
    assert_eq!(world.state(0), State::Ejected);
    world.wait(1);
    assert_eq!(world.state(0), State::Probed);
    assert!(world.outliers.probe(&world.hosts[0], world.now));
    assert_eq!(world.state(0), State::Ejected, "one probe at a time");
    assert!(!world.outliers.probe(&world.hosts[0], world.now));
    assert_eq!(world.report(0, answer(200)), Verdict::Nothing);
    world.hosts[0].probe_over();
    assert_eq!(world.state(0), State::Probed);
    assert_eq!(world.outliers.out(), 1, "not yet in");
    assert_eq!(world.answers(0, 200, 2), Verdict::Returned(Reason::Consecutive5xx));
    assert_eq!((world.state(0), world.outliers.out()), (State::In, 0));
}

#[tokio::test(start_paused = true)]
async fn a_failed_probe_costs_one_request_and_as_long_an_ejection_as_before() {
    let mut world = World::new(4, config());
    world.answers(0, 500, 3);
    for _ in 0..3 {
        world.wait(30);
        assert_eq!(world.report(0, answer(200)), Verdict::Nothing);
        assert_eq!(world.report(0, answer(500)), ejected(Reason::Probe, 30));
    }
    assert_eq!((world.outliers.out(), world.outliers.ejected(Reason::Probe)), (1, 3));
    world.wait(30);
    world.heal(0);
}

#[tokio::test(start_paused = true)]
async fn ejections_grow_longer_and_are_forgiven_with_each_quiet_interval() {
    let mut world = World::new(4, config());
    for seconds in [30, 60, 90] {
        assert_eq!(world.answers(0, 500, 3), ejected(Reason::Consecutive5xx, seconds));
        world.wait(seconds);
        world.heal(0);
    }
    world.wait(20);
    assert_eq!(world.answers(0, 500, 3), ejected(Reason::Consecutive5xx, 60), "two were forgiven");
    // Envoy: 300 s at most.
    for seconds in [90, 120, 150, 180, 210, 240, 270, 300, 300] {
        world.wait(300);
        world.heal(0);
        assert_eq!(world.answers(0, 500, 3), ejected(Reason::Consecutive5xx, seconds));
    }
}

#[tokio::test(start_paused = true)]
async fn too_few_healthy_ones_are_a_panic_where_the_rule_says_so() {
    let config = OutlierDetection { max_ejection_percent: 100, min_health_percent: 50, ..config() };
    let world = World::new(4, config);
    for host in 0..2 {
        world.answers(host, 500, 3);
        assert!(!world.outliers.is_panic(4, &world.config));
    }
    world.answers(2, 500, 3);
    assert!(world.outliers.is_panic(4, &world.config));
    world.answers(3, 500, 3);
    let never = OutlierDetection { min_health_percent: 0, ..world.config };
    assert!(!world.outliers.is_panic(4, &never));
}

#[tokio::test(start_paused = true)]
async fn endpoints_that_leave_are_out_of_the_count_and_come_back_new() {
    let mut world = World::new(2, config());
    world.answers(0, 500, 3);
    let (zero, one) = (uid(0), uid(1));
    let old = std::mem::take(&mut world.hosts);
    world.hosts = world.outliers.hosts(2, [&one].into_iter());
    assert_eq!(world.outliers.out(), 0);
    assert!(Arc::ptr_eq(&world.hosts[0], &old[1]), "what stays keeps its history");
    // A worker that is late with the older picture changes nothing.
    world.outliers.hosts(1, [&zero, &one].into_iter());
    assert_eq!(world.outliers.all(world.now).len(), 1);
    assert_eq!(
        world.outliers.report(&old[0], answer(500), &world.config, world.now),
        Verdict::Nothing
    );
    for _ in 0..5 {
        world.outliers.report(&old[0], answer(500), &world.config, world.now);
    }
    assert_eq!(world.outliers.out(), 0, "who is gone is not ejected");
    world.hosts = world.outliers.hosts(3, [&zero, &one].into_iter());
    assert_eq!(world.state(0), State::In);
}

#[derive(Debug, Clone)]
enum Step {
    Report(usize, Report),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let good = (0..200_u64).prop_map(|millis| Report::Answered {
        status: 200,
        took: Some(Duration::from_millis(millis)),
    });
    let report = prop_oneof![
        1 => good,
        1 => prop_oneof![
            Just(answer(500)),
            Just(answer(503)),
            Just(Report::TimedOut),
            Just(Report::NotConnected),
            Just(Report::Reset),
        ],
    ];
    let step = prop_oneof![
        8 => (0..8_usize, report).prop_map(|(host, report)| Step::Report(host, report)),
        1 => (0..100_u64).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 0..400)
}

proptest! {
    #[test]
    fn never_more_than_the_share_is_out_and_whoever_is_out_comes_back(
        count in 1..8_usize,
        percent in 1..=100_u8,
        split in any::<bool>(),
        compares in any::<bool>(),
        interval in 1..20_u64,
        steps in steps(),
    ) {
        let config = OutlierDetection {
            max_ejection_percent: percent,
            split,
            consecutive_gateway_errors: Some(2),
            consecutive_local_failures: split.then_some(2),
            interval: Duration::from_secs(interval),
            success_rate: compares.then_some(SuccessRate {
                minimum_hosts: 2,
                request_volume: 3,
                stdev_factor: 500,
            }),
            latency: compares.then_some(SlowAnswers {
                request_volume: 2,
                factor: 1_500,
                ..SlowAnswers::default()
            }),
            ..config()
        };
        let mut world = World::new(count, config);
        for step in steps {
            match step {
                Step::Report(host, report) => {
                    world.report(host % count, report);
                    world.outliers.sweep(&world.config, world.now);
                }
                Step::Wait(seconds) => world.wait(seconds),
            }
            let out = (0..count).filter(|host| world.state(*host) != State::In).count();
            prop_assert_eq!(out, world.outliers.out() as usize);
            prop_assert!(out * 100 <= usize::from(percent) * count);
        }
        world.wait(300);
        for host in 0..count {
            prop_assert!(world.state(host) != State::Ejected, "an ejection ends");
            for _ in 0..MOST_PROBES {
                world.report(host, answer(200));
            }
            prop_assert_eq!(world.state(host), State::In);
        }
        prop_assert_eq!(world.outliers.out(), 0);
    }
}
