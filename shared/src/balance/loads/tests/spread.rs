//! How connections spread over a minute of virtual time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::*;

/// Endpoints under a constant stream of connections.
struct Play {
    loads: Loads,
    pods: Vec<Workload>,
    random: fastrand::Rng,
    start: Instant,
    rate: f64,
    hold: Duration,
}

/// What becomes of a connection: made, then over.
struct Step {
    work: InFlight,
    took: Option<Duration>,
}

impl Play {
    fn new(pods_: usize, rate: f64, hold: Duration, seed: u64) -> Self {
        Self {
            loads: Loads::default(),
            pods: pods(pods_),
            random: fastrand::Rng::with_seed(seed),
            start: Instant::now(),
            rate,
            hold,
        }
    }

    /// Opens `count` connections, where `latency` says how long the nth one to an endpoint takes.
    /// Gives the endpoint of each, in order.
    fn run(
        &mut self,
        count: u32,
        mut latency: impl FnMut(usize, u32, &mut fastrand::Rng) -> Duration,
    ) -> Vec<usize> {
        let mut due = BinaryHeap::new();
        let mut flying: Vec<Option<Step>> = Vec::new();
        let mut tried = vec![0; self.pods.len()];
        let mut picked = Vec::new();
        for number in 0..count {
            let now = self.start + Duration::from_secs_f64(f64::from(number) / self.rate);
            while let Some(Reverse((at, id))) = due.pop() {
                if at > now {
                    due.push(Reverse((at, id)));
                    break;
                }
                let slot: &mut Option<Step> = &mut flying[id];
                let step = slot.as_mut().expect("each id is due while it has steps left");
                match step.took.take() {
                    Some(took) => {
                        step.work.connected(Some(took), at);
                        due.push(Reverse((at + self.hold, id)));
                    }
                    None => *slot = None,
                }
            }
            let all: Vec<_> = self.pods.iter().enumerate().collect();
            let order = self.loads.order(all, |(_, pod)| (*pod, 80), 1, &mut self.random, now);
            let (chosen, pod) = order[0];
            let took = latency(chosen, tried[chosen], &mut self.random);
            tried[chosen] += 1;
            picked.push(chosen);
            due.push(Reverse((now + took, flying.len())));
            flying.push(Some(Step { work: self.loads.start(&pod.uid, 80, now), took: Some(took) }));
        }
        picked
    }
}

fn share(picked: &[usize], endpoint: usize) -> f64 {
    picked.iter().filter(|one| **one == endpoint).count() as f64 / picked.len() as f64
}

fn ms(ms: f64) -> Duration {
    Duration::from_secs_f64(ms / 1e3)
}

proptest! {
    #[test]
    fn equal_endpoints_get_a_fair_part_whatever_single_connections_take(
        count in 2usize..8,
        rate in 0.2f64..1000.0,
        usual_ms in 0.3f64..20.0,
        first_ms in 0.3f64..200.0,
        outliers in 0.0f64..0.05,
        outlier in 1.0f64..50.0,
        hold_ms in 0.0f64..5000.0,
        seed in any::<u64>(),
    ) {
        let mut play = Play::new(count, rate, ms(hold_ms), seed);
        let picked = play.run(1000, |endpoint, number, random| {
            if endpoint == 0 && number == 0 {
                return ms(first_ms);
            }
            let noise = 1.0 + random.f64();
            ms(usual_ms * if random.f64() < outliers { outlier } else { noise })
        });
        for endpoint in 0..count {
            let fair = share(&picked, endpoint) * count as f64;
            prop_assert!(fair >= 0.25, "endpoint {} got {} of a fair share", endpoint, fair);
        }
    }

    #[test]
    fn an_endpoint_that_is_a_hundred_times_slower_gets_little_and_is_not_given_up(
        count in 2usize..8,
        rate in 1.0f64..1000.0,
        hold_ms in 0.0f64..1000.0,
        seed in any::<u64>(),
    ) {
        let mut play = Play::new(count, rate, ms(hold_ms), seed);
        let picked = play.run(2000, |endpoint, _, _| ms(if endpoint == 0 { 300.0 } else { 3.0 }));
        let tried: Vec<_> = (0..picked.len()).filter(|at| picked[*at] == 0).collect();
        // A tenth of its fair part, and a trial every six seconds.
        let little = 200.0 / count as f64 + 2000.0 / rate / 6.0;
        prop_assert!((tried.len() as f64) < little, "{} of 2000, not {}", tried.len(), little);
        let longest = tried.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(2000);
        let seconds = longest as f64 / rate;
        prop_assert!(seconds < 60.0, "it was not tried for {} s", seconds);
    }
}

#[test]
fn an_endpoint_that_does_not_answer_is_left_alone_at_once() {
    let mut play = Play::new(2, 200.0, Duration::ZERO, 1);
    let hangs = Duration::from_secs(3600);
    let picked = play.run(1000, |endpoint, _, _| if endpoint == 0 { hangs } else { ms(1.0) });
    assert!(share(&picked, 0) < 0.02, "it got {}", share(&picked, 0));
}

#[test]
fn one_slow_connection_does_not_starve_an_endpoint_of_two() {
    let mut play = Play::new(2, 200.0, Duration::ZERO, 1);
    let picked = play
        .run(200, |endpoint, number, _| ms(if endpoint == 0 && number == 0 { 40.0 } else { 1.0 }));
    assert!(share(&picked, 0) > 0.2, "it got {}", share(&picked, 0));
}
