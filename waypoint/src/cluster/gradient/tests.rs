//! Against a destination that is a queue: so many are served at a time, the others wait.

use std::collections::BinaryHeap;

use proptest::prelude::*;

use super::*;

const BOUNDS: Concurrency = Concurrency { least: 3, most: 1_000 };
const STEP: Duration = Duration::from_millis(1);

/// Serves `capacity` requests at a time, each in `service`; more take as much longer.
#[derive(Clone, Copy)]
struct Queue {
    capacity: f64,
    service: Duration,
}

impl Queue {
    fn takes(&self, used: usize) -> Duration {
        self.service.mul_f64((used as f64 / self.capacity).max(1.0))
    }
}

/// A destination under load.
struct Scene {
    gradient: Gradient,
    now: Instant,
    /// When those under way end, the first one last, and when they began.
    under_way: BinaryHeap<std::cmp::Reverse<(Instant, Instant)>>,
    answered: u64,
    refused: u64,
}

impl Scene {
    fn new() -> Self {
        let now = Instant::now();
        let gradient = Gradient::new(BOUNDS, now);
        Self { gradient, now, under_way: BinaryHeap::new(), answered: 0, refused: 0 }
    }

    /// `wanted` callers, each of which asks again a moment after it was answered or refused.
    fn run(&mut self, queue: Queue, wanted: usize, time: Duration) {
        (self.answered, self.refused) = (0, 0);
        let end = self.now + time;
        while self.now < end {
            self.now += STEP;
            while let Some(std::cmp::Reverse((ended, sent))) =
                self.under_way.peek().copied().filter(|one| one.0.0 <= self.now)
            {
                let used = self.under_way.len() as u32;
                self.under_way.pop();
                let sample = Sample { sent, took: ended - sent, used };
                self.gradient.learn(sample, self.now, 0.5);
                self.answered += 1;
                let limit = self.gradient.limit();
                assert!((BOUNDS.least..=BOUNDS.most).contains(&limit), "{limit}");
            }
            let free = wanted.saturating_sub(self.under_way.len());
            for _ in 0..free {
                if self.under_way.len() >= self.gradient.limit() as usize {
                    self.refused += 1;
                    continue;
                }
                let ends = self.now + queue.takes(self.under_way.len() + 1);
                self.under_way.push(std::cmp::Reverse((ends, self.now)));
            }
        }
    }

    fn limit(&self) -> u32 {
        self.gradient.limit()
    }
}

const TEN_MS: Duration = Duration::from_millis(10);
const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn it_finds_about_what_the_destination_serves_at_a_time() {
    let mut scene = Scene::new();
    let queue = Queue { capacity: 40.0, service: TEN_MS };
    scene.run(queue, 400, 10 * SECOND);
    assert!((40..=90).contains(&scene.limit()), "{}", scene.limit());
    // Nearly all that can be served is, and nobody waits for long.
    scene.run(queue, 400, 10 * SECOND);
    assert!(scene.answered > 36_000, "{}", scene.answered);
    assert!(queue.takes(scene.limit() as usize) < 3 * TEN_MS);
    // Measuring again moves it little, whatever it was that time.
    scene.run(queue, 400, 180 * SECOND);
    assert!((40..=90).contains(&scene.limit()), "{}", scene.limit());
}

#[tokio::test(start_paused = true)]
async fn one_that_starts_beyond_what_is_served_finds_its_way_down() {
    let mut scene = Scene::new();
    let queue = Queue { capacity: 4.0, service: TEN_MS };
    scene.run(queue, 100, 10 * SECOND);
    assert!((4..=15).contains(&scene.limit()), "{}", scene.limit());
}

#[tokio::test(start_paused = true)]
async fn it_falls_when_answers_get_slow_and_comes_back_after() {
    let mut scene = Scene::new();
    let queue = Queue { capacity: 40.0, service: TEN_MS };
    scene.run(queue, 400, 20 * SECOND);
    let before = scene.limit();
    scene.run(Queue { service: 10 * TEN_MS, ..queue }, 400, 20 * SECOND);
    assert!(scene.limit() <= 10, "{}", scene.limit());
    scene.run(queue, 400, 5 * SECOND);
    assert!(scene.limit() * 10 >= before * 8, "{} of {before}", scene.limit());
    // One that is slow for good is not starved for ever.
    let slow = Queue { service: 10 * TEN_MS, ..queue };
    scene.run(slow, 400, 90 * SECOND);
    assert!(scene.limit() >= 35, "{}", scene.limit());
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_little_is_never_refused() {
    let mut scene = Scene::new();
    let queue = Queue { capacity: 40.0, service: TEN_MS };
    scene.run(queue, 8, 180 * SECOND);
    assert_eq!(scene.refused, 0);
    // Nothing is learnt of what was not tried.
    assert!(scene.limit() <= 40, "{}", scene.limit());
}

#[tokio::test(start_paused = true)]
async fn few_answers_are_waited_for_without_end_only_at_the_start() {
    let mut gradient = Gradient::new(BOUNDS, Instant::now());
    let mut now = Instant::now();
    let answer = |gradient: &mut Gradient, now: Instant| {
        gradient.learn(Sample { sent: now - TEN_MS, took: TEN_MS, used: 1 }, now, 0.5);
    };
    for _ in 0..200 {
        now += SECOND;
        answer(&mut gradient, now);
    }
    // One a second: it was measured, measured again, and rests where it was.
    assert_eq!(gradient.limit(), 20);
}

proptest! {
    #[test]
    fn the_limit_is_always_within_its_bounds(
        least in 1_u32..50,
        more in 0_u32..500,
        answers in prop::collection::vec((0_u64..500, 0_u64..5_000, 0_u32..600, 0.0_f64..1.0), 1..2_000),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time().start_paused(true).build().expect("a runtime");
        // A time to look back from.
        let mut now = runtime.block_on(async { Instant::now() }) + 10 * SECOND;
        let bounds = Concurrency { least, most: least + more };
        let mut gradient = Gradient::new(bounds, now);
        for (later, took, used, draw) in answers {
            now += Duration::from_millis(later);
            let took = Duration::from_millis(took);
            gradient.learn(Sample { sent: now - took, took, used }, now, draw);
            let limit = gradient.limit();
            prop_assert!((bounds.least..=bounds.most).contains(&limit), "{limit}");
        }
    }
}
