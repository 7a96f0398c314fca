//! Detectors that compare endpoints with each other, over seconds of virtual time.

use shared::mesh::{SlowAnswers, SuccessRate};

use super::*;

/// Requests at a constant rate to whoever is in, and to whoever is to be probed first.
struct Play {
    world: World,
    random: fastrand::Rng,
    verdicts: Vec<(Uid, Verdict)>,
}

/// What came of requests.
#[derive(Debug, Default)]
struct Counts {
    all: u32,
    failed: u32,
    asked: Vec<u32>,
}

/// Requests in a second.
const RATE: u32 = 500;

impl Play {
    fn new(count: usize, config: OutlierDetection) -> Self {
        let world = World::new(count, config);
        Self { world, random: fastrand::Rng::with_seed(7), verdicts: Vec::new() }
    }

    fn run(
        &mut self,
        seconds: f64,
        behave: impl Fn(usize, &mut fastrand::Rng) -> Report,
    ) -> Counts {
        let World { outliers, hosts, config, now } = &mut self.world;
        let mut counts = Counts { asked: vec![0; hosts.len()], ..Counts::default() };
        for _ in 0..(f64::from(RATE) * seconds) as u32 {
            *now += Duration::from_secs_f64(1.0 / f64::from(RATE));
            let probed = (0..hosts.len()).find(|at| outliers.probe(&hosts[*at], *now));
            let is_in = |at: &usize| outliers.state(&hosts[*at], *now) == State::In;
            let healthy: Vec<_> = (0..hosts.len()).filter(is_in).collect();
            let Some(at) = probed.or_else(|| self.random.choice(healthy)) else { continue };
            let report = behave(at, &mut self.random);
            counts.all += 1;
            counts.asked[at] += 1;
            let failed = !matches!(report, Report::Answered { status: ..500, .. });
            counts.failed += u32::from(failed);
            let verdict = outliers.report(&hosts[at], report, config, *now);
            if probed.is_some() {
                hosts[at].probe_over();
            }
            let all = [(uid(at), verdict)].into_iter().chain(outliers.sweep(config, *now));
            self.verdicts.extend(all.filter(|(_, verdict)| *verdict != Verdict::Nothing));
        }
        counts
    }

    /// For which detector an endpoint was ejected first.
    fn ejected(&self) -> Option<(&Uid, Reason)> {
        self.verdicts.iter().find_map(|(uid, verdict)| match verdict {
            Verdict::Ejected(reason, _) => Some((uid, *reason)),
            _ => None,
        })
    }
}

fn compared(success_rate: Option<SuccessRate>, latency: Option<SlowAnswers>) -> OutlierDetection {
    OutlierDetection {
        consecutive_5xx: None,
        interval: Duration::from_secs(1),
        base_ejection: Duration::from_secs(1),
        max_ejection_percent: 100,
        success_rate,
        latency,
        ..config()
    }
}

fn by_rate(request_volume: u32) -> OutlierDetection {
    compared(Some(SuccessRate { request_volume, ..SuccessRate::default() }), None)
}

fn by_time() -> OutlierDetection {
    compared(None, Some(SlowAnswers::default()))
}

fn good(_: usize, _: &mut fastrand::Rng) -> Report {
    answer(200)
}

/// The third fails half of its requests.
fn half(at: usize, random: &mut fastrand::Rng) -> Report {
    answer(if at == 2 && random.bool() { 500 } else { 200 })
}

/// The third takes as many milliseconds, others five.
fn third_takes(millis: u64) -> impl Fn(usize, &mut fastrand::Rng) -> Report {
    move |at, _| {
        let took = Some(Duration::from_millis(if at == 2 { millis } else { 5 }));
        Report::Answered { status: 200, took }
    }
}

/// Of five endpoints one fails half of its requests: within 2 s less than 1 % of all fail, and when
/// it is well it is in again within an interval.
#[tokio::test(start_paused = true)]
async fn one_that_fails_half_of_the_time_is_out_within_two_intervals_and_back_within_one() {
    for volume in [20, 50] {
        let mut play = Play::new(5, by_rate(volume));
        play.run(0.7, good);
        let first = play.run(2.0, half);
        assert!(first.failed > 5, "{first:?}");
        assert_eq!(play.ejected(), Some((&uid(2), Reason::SuccessRate)));
        let later = play.run(20.0, half);
        assert!(later.failed * 100 < later.all, "{later:?}");
        play.run(1.1, good);
        let back = play.run(1.0, good);
        assert_eq!(play.world.outliers.out(), 0, "{back:?}");
        let returned = (uid(2), Verdict::Returned(Reason::SuccessRate));
        assert_eq!(play.verdicts.last(), Some(&returned));
        assert_eq!(play.world.outliers.ejected(Reason::Consecutive5xx), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn too_few_endpoints_or_requests_say_nothing() {
    let mut few = Play::new(4, by_rate(20));
    few.run(5.0, half);
    assert_eq!(few.ejected(), None, "four, and there must be five");
    // Some 100 requests each in an interval, so 1,100 never come together in ten.
    let mut seldom = Play::new(5, by_rate(1_100));
    seldom.run(30.0, half);
    assert_eq!(seldom.ejected(), None);
}

/// Envoy would forget them.
#[tokio::test(start_paused = true)]
async fn requests_of_several_intervals_count_together() {
    let mut play = Play::new(5, by_rate(300));
    play.run(2.0, half);
    assert_eq!(play.ejected(), None, "not enough yet");
    play.run(4.0, half);
    assert_eq!(play.ejected(), Some((&uid(2), Reason::SuccessRate)));
}

#[tokio::test(start_paused = true)]
async fn what_is_long_ago_says_nothing() {
    let mut play = Play::new(5, by_rate(150));
    play.run(0.99, half);
    play.world.wait(3_600);
    let counts = play.run(0.5, half);
    assert_eq!(play.ejected(), None, "{counts:?}");
}

#[tokio::test(start_paused = true)]
async fn the_worst_are_ejected_as_far_as_the_share_allows() {
    let config = OutlierDetection { max_ejection_percent: 10, ..by_rate(20) };
    let mut play = Play::new(10, config);
    let two = |at: usize, random: &mut fastrand::Rng| {
        let fails_percent = [0, 0, 40, 0, 0, 80, 0, 0, 0, 0][at];
        answer(if random.u32(..100) < fails_percent { 500 } else { 200 })
    };
    for _ in 0..50 {
        play.run(0.1, two);
        assert!(play.world.outliers.out() <= 1);
    }
    assert_eq!(play.ejected(), Some((&uid(5), Reason::SuccessRate)));
    assert!(play.world.outliers.overflow() > 0);
}

/// Of five endpoints one is ten times slower: after 5 s at the most a tenth of the requests are its.
#[tokio::test(start_paused = true)]
async fn one_that_is_ten_times_slower_is_out_and_probes_show_when_it_is_well() {
    let mut play = Play::new(5, by_time());
    play.run(5.0, third_takes(50));
    assert_eq!(play.ejected(), Some((&uid(2), Reason::Latency)));
    let later = play.run(20.0, third_takes(50));
    assert!(later.asked[2] * 100 < later.all, "{later:?}");
    assert_eq!(play.world.outliers.ejected(Reason::Latency), 1, "slow probes keep it out");
    assert!(play.world.outliers.ejected(Reason::Probe) > 10);
    play.run(1.1, third_takes(5));
    assert_eq!(play.world.state(2), State::In);
    assert_eq!(play.verdicts.last(), Some(&(uid(2), Verdict::Returned(Reason::Latency))));
}

#[tokio::test(start_paused = true)]
async fn when_all_are_slow_nobody_is() {
    let mut play = Play::new(5, by_time());
    play.run(5.0, third_takes(50));
    assert_eq!(play.world.state(2), State::Ejected);
    let all = |_: usize, _: &mut fastrand::Rng| Report::Answered {
        status: 200,
        took: Some(Duration::from_millis(50)),
    };
    play.run(4.0, all);
    assert_eq!(play.world.state(2), State::In);
    assert_eq!(play.world.outliers.out(), 0);
}
