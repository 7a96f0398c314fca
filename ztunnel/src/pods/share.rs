//! What one pod may take of its node: open connections, new ones per second, memory for what its
//! applications do not read, and time of the workers.
//!
//! Invariants: a pod at a limit waits in its own accept queue, gets less window for its streams, or
//! waits for the turn of others on its workers, and nobody else waits with it; nothing that was
//! accepted is refused because of a limit; who is held back is named by a metric and in the log.
//! Not here: how the workers keep to it (`shared::workers`).

mod told;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use shared::hbone::Budget;
use shared::workers::{self, Tenant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use self::told::{Limit, Told};
use crate::pods::PodName;

pub(super) use self::told::Metrics;

/// Limits of one pod, for all of its listeners together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Connections, and tunnels of peers, that are open at a time; 0 for no limit. Default half of
    /// the descriptors that the process may have: more, and one pod can stop all others.
    pub connections: usize,
    /// New ones per second, with a burst of one second's worth; 0 for no limit. Default 5,000:
    /// what two CPUs carried at most in the committed benchmark. Far below, rollouts and batch jobs
    /// slow down.
    pub per_second: u32,
    /// Bytes that the windows of its tunnel streams may grow by together, beyond the 256 KiB that
    /// each begins with; 0 for no limit. Default 256 MiB: 68 streams at full window. More, and slow
    /// readers of one pod can fill the node's memory; less slows down distant bulk.
    pub window_bytes: u64,
    /// Workers that it may keep busy where other pods are at home; 0 for no limit. Default all but
    /// one, so that there is one without it; fewer keep it slower.
    pub workers: usize,
    /// How long its tasks run on a worker before those of other pods get their turn, if any wait;
    /// zero for no limit. Default 500 µs, two turns of a copy in bulk; shorter costs switches.
    pub turn: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        // The soft limit is raised to the hard one at the start.
        let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
        let descriptors = descriptors.and_then(|limit| usize::try_from(limit).ok());
        Self {
            connections: descriptors.unwrap_or(1 << 20) / 2,
            per_second: 5_000,
            window_bytes: 256 << 20,
            workers: all_but_one(workers::Config::default().limit),
            turn: Duration::from_micros(500),
        }
    }
}

/// Of `workers`, but at least one.
pub fn all_but_one(workers: usize) -> usize {
    workers.saturating_sub(1).max(1)
}

/// A pod's share, used up by its accept loops and by the tunnels that they lead to.
pub(super) struct Share {
    open: Option<Arc<Semaphore>>,
    rate: Option<Mutex<Bucket>>,
    windows: Option<Arc<Budget>>,
    tenant: Arc<Tenant>,
    told: Arc<Told>,
}

/// One accepted connection's part of the share; dropped with the connection.
#[must_use = "the place is free again when this is dropped"]
pub(super) struct Place(
    #[expect(dead_code, reason = "held, never read")] Option<OwnedSemaphorePermit>,
);

impl Share {
    pub(super) fn new(pod: PodName, limits: Limits, workers: usize, metrics: Metrics) -> Self {
        let open = (limits.connections > 0)
            .then(|| Arc::new(Semaphore::new(limits.connections.min(Semaphore::MAX_PERMITS))));
        let rate = (limits.per_second > 0)
            .then(|| Mutex::new(Bucket::new(limits.per_second, Instant::now())));
        let told = Arc::new(Told::new(pod, metrics));
        let windows = (limits.window_bytes > 0).then(|| {
            let told = Arc::clone(&told);
            Arc::new(Budget::new(limits.window_bytes, move || told.tell(Limit::Windows)))
        });
        let tenant = {
            let told = Arc::clone(&told);
            let limits = workers::Limits { workers: limits.workers, turn: limits.turn };
            Tenant::new(limits, workers, move |usage| told.hear(usage))
        };
        Self { open, rate, windows, tenant, told }
    }

    /// What the windows of the pod's tunnels may grow by.
    pub(super) fn windows(&self) -> Option<Arc<Budget>> {
        self.windows.clone()
    }

    /// Who the pod is to the workers.
    pub(super) fn tenant(&self) -> &Arc<Tenant> {
        &self.tenant
    }

    /// Waits until the pod may have one more connection.
    ///
    /// # Cancel safety
    /// Safe: what was taken is given back, except the one of this second.
    pub(super) async fn place(&self) -> Place {
        let mut place = None;
        if let Some(open) = &self.open {
            let free = Arc::clone(open).try_acquire_owned();
            place = match free {
                Ok(free) => Some(free),
                Err(_) => {
                    self.told.tell(Limit::Connections);
                    // The semaphore is never closed.
                    Arc::clone(open).acquire_owned().await.ok()
                }
            };
        }
        let due = self.rate.as_ref().and_then(|rate| rate.lock().take(Instant::now()));
        if let Some(due) = due {
            self.told.tell(Limit::PerSecond);
            tokio::time::sleep_until(due).await;
        }
        Place(place)
    }
}

/// A bucket of tokens, kept as the time at which it would be full again.
#[derive(Debug)]
struct Bucket {
    interval: Duration,
    full_at: Instant,
}

/// How much may be taken at once: what comes in during this time.
const BURST: Duration = Duration::from_secs(1);

impl Bucket {
    fn new(per_second: u32, now: Instant) -> Self {
        Self { interval: BURST / per_second, full_at: now }
    }

    /// Takes one; gives the time from when it counts, if that is not yet.
    fn take(&mut self, now: Instant) -> Option<Instant> {
        self.full_at = self.full_at.max(now) + self.interval;
        let due = self.full_at.checked_sub(BURST)?;
        (due > now).then_some(due)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UNLIMITED: Limits =
        Limits { connections: 0, per_second: 0, window_bytes: 0, workers: 0, turn: Duration::ZERO };

    fn share(limits: Limits) -> Share {
        let pod = PodName {
            namespace: "shop".into(),
            name: "web-0".into(),
            service_account: "web".into(),
        };
        Share::new(pod, limits, 1, Metrics::new())
    }

    fn waited(share: &Share, limit: &str) -> u64 {
        share.told.waits(limit)
    }

    #[tokio::test(start_paused = true)]
    async fn at_the_limit_of_connections_the_next_waits_for_one_to_end() {
        let share = share(Limits { connections: 2, ..UNLIMITED });
        let (first, _second) = (share.place().await, share.place().await);
        assert_eq!(waited(&share, "connections"), 0);
        let (third, ()) = tokio::join!(share.place(), async { drop(first) });
        assert_eq!(waited(&share, "connections"), 1);
        let fourth = tokio::time::timeout(Duration::from_secs(3600), share.place()).await;
        assert!(fourth.is_err(), "a third connection beside two");
        drop(third);
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_and_what_is_beyond_it_comes_at_the_rate() {
        let share = share(Limits { per_second: 100, ..UNLIMITED });
        let start = Instant::now();
        for _ in 0..100 {
            let _ = share.place().await;
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
        for _ in 0..200 {
            let _ = share.place().await;
        }
        let took = start.elapsed().as_millis();
        assert!((1_990..=2_210).contains(&took), "{took} ms");
        assert!(waited(&share, "per_second") > 100);
    }

    #[tokio::test(start_paused = true)]
    async fn without_limits_nobody_waits() {
        let share = share(UNLIMITED);
        let mut places = Vec::new();
        for _ in 0..10_000 {
            places.push(share.place().await);
        }
        assert_eq!(waited(&share, "connections") + waited(&share, "per_second"), 0);
    }

    proptest! {
        #[test]
        fn no_second_and_a_half_sees_more_than_burst_and_rate(
            per_second in 1u32..2_000,
            gaps in prop::collection::vec(0u64..5_000, 1..500),
        ) {
            let start = Instant::now();
            let mut now = start;
            let mut bucket = Bucket::new(per_second, start);
            let mut passed = Vec::new();
            for gap in gaps {
                now += Duration::from_micros(gap);
                // The caller waits until then.
                now = bucket.take(now).unwrap_or(now);
                passed.push(now);
            }
            for (index, from) in passed.iter().enumerate() {
                let until = *from + BURST / 2;
                let count = passed[index..].iter().take_while(|at| **at < until).count();
                prop_assert!(count as u64 <= u64::from(per_second) * 3 / 2 + 1);
            }
        }
    }
}
