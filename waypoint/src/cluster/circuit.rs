//! How much of a destination is in use, against what its rule allows.
//!
//! Invariants: a limit holds for the whole process and is never exceeded, not for a moment: a place
//! is taken by one atomic step, and given back when its [`Permit`] is dropped. While somebody waits
//! for a connection, none rests.
//! Source: Envoy's circuit breakers, spec L7 §3.10.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use tokio::sync::Notify;

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// Connections to endpoints.
    Connections,
    /// Requests that wait for a connection.
    Pending,
    /// Requests that are not answered to their end.
    Requests,
    /// Those of them that are repetitions.
    Retries,
    /// The same requests as `Requests`, against a limit that follows their answers.
    Concurrency,
}

impl Resource {
    /// In the order of [`Circuit`]'s counters.
    pub const ALL: [Self; 5] =
        [Self::Connections, Self::Pending, Self::Requests, Self::Retries, Self::Concurrency];

    /// As metrics, logs and answers spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Pending => "pending",
            Self::Requests => "requests",
            Self::Retries => "retries",
            Self::Concurrency => "concurrency",
        }
    }

    /// The field that limits it.
    pub fn field(self) -> &'static str {
        match self {
            Self::Connections => "maxConnections",
            Self::Pending => "http1MaxPendingRequests",
            Self::Requests => "http2MaxRequests",
            Self::Retries => "maxRetries",
            Self::Concurrency => "culvert.dev/adaptive-concurrency",
        }
    }

    /// Where its places are counted.
    fn slot(self) -> usize {
        match self {
            Self::Concurrency => Self::Requests as usize,
            other => other as usize,
        }
    }
}

/// The use of one destination. Shared by all workers.
#[derive(Debug, Default)]
pub struct Circuit {
    used: [AtomicU32; 4],
    refused: [AtomicU64; 5],
    /// Requests that wait for a place among the connections.
    waiting: AtomicU32,
    /// A connection has ended.
    freed: Notify,
    /// Somebody began to wait.
    wanted: Notify,
}

/// One place of a resource, free again when this is dropped.
#[derive(Debug)]
#[must_use = "the place is taken while this lives"]
pub struct Permit {
    circuit: Arc<Circuit>,
    resource: Resource,
}

/// All places are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("upstream overflow: {} of the destination's DestinationRule is reached", .0.field())]
pub struct Overflow(pub Resource);

impl Circuit {
    /// Takes a place of which there are `limit`.
    ///
    /// # Errors
    /// All are taken; it is counted.
    pub fn take(
        self: &Arc<Self>,
        resource: Resource,
        limit: Option<u32>,
    ) -> Result<Permit, Overflow> {
        self.try_take(resource, limit).ok_or_else(|| {
            self.refused[resource as usize].fetch_add(1, Ordering::Relaxed);
            Overflow(resource)
        })
    }

    /// The same without counting.
    pub(crate) fn try_take(
        self: &Arc<Self>,
        resource: Resource,
        limit: Option<u32>,
    ) -> Option<Permit> {
        let most = limit.unwrap_or(u32::MAX);
        let more = |used: u32| (used < most).then(|| used + 1);
        let used = &self.used[resource.slot()];
        // Nothing else is ordered by the counter.
        used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Permit { circuit: Arc::clone(self), resource })
    }

    /// How many places are taken.
    pub fn used(&self, resource: Resource) -> u32 {
        self.used[resource.slot()].load(Ordering::Relaxed)
    }

    /// How often there was none left.
    pub fn refused(&self, resource: Resource) -> u64 {
        self.refused[resource as usize].load(Ordering::Relaxed)
    }

    /// Whether somebody waits for a connection.
    pub(crate) fn is_wanted(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// Tells one of those who wait that there may be a connection.
    pub(crate) fn freed(&self) {
        if self.is_wanted() {
            self.freed.notify_one();
        }
    }

    /// Waits until `found` has something to give.
    ///
    /// # Cancel safety
    /// Safe: a wake-up that comes too late goes to the next who waits.
    pub(crate) async fn wait<T>(&self, mut found: impl FnMut() -> Option<T>) -> T {
        let _waiting = Waiting::begin(self);
        loop {
            let mut freed = pin!(self.freed.notified());
            // Registered before the look, so that nothing freed after it is missed.
            freed.as_mut().enable();
            if let Some(found) = found() {
                return found;
            }
            freed.await;
        }
    }

    /// Lets connections that rest go whenever somebody wants one, for as long as it is polled.
    /// `let_go` ends one, if it can.
    pub(crate) async fn give_way(&self, mut let_go: impl FnMut() -> bool) {
        loop {
            let mut wanted = pin!(self.wanted.notified());
            wanted.as_mut().enable();
            while self.is_wanted() && let_go() {}
            wanted.await;
        }
    }
}

/// Somebody who waits, until this is dropped.
struct Waiting<'a>(&'a Circuit);

impl<'a> Waiting<'a> {
    fn begin(circuit: &'a Circuit) -> Self {
        circuit.waiting.fetch_add(1, Ordering::SeqCst);
        circuit.wanted.notify_waiters();
        Self(circuit)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.circuit.used[self.resource.slot()].fetch_sub(1, Ordering::Relaxed);
        if self.resource == Resource::Connections {
            self.circuit.freed();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn never_more_places_are_taken_than_there_are(
            limit in 0..5_u32,
            steps in prop::collection::vec(any::<bool>(), 0..100),
        ) {
            let circuit = Arc::<Circuit>::default();
            let (mut held, mut refused) = (Vec::new(), 0);
            for take in steps {
                match (take, circuit.take(Resource::Requests, Some(limit))) {
                    (true, Ok(permit)) => held.push(permit),
                    (true, Err(_)) => {
                        prop_assert_eq!(held.len(), limit as usize);
                        refused += 1;
                    }
                    (false, taken) => {
                        refused += u64::from(taken.is_err());
                        drop(taken);
                        held.pop();
                    }
                }
                prop_assert!(held.len() <= limit as usize);
                prop_assert_eq!(circuit.used(Resource::Requests) as usize, held.len());
            }
            prop_assert_eq!(circuit.refused(Resource::Requests), refused);
        }
    }

    #[test]
    fn a_limit_that_follows_answers_counts_the_same_requests() {
        let circuit = Arc::<Circuit>::default();
        let first = circuit.take(Resource::Requests, Some(5)).unwrap();
        let second = circuit.take(Resource::Concurrency, Some(2)).unwrap();
        let overflow = circuit.take(Resource::Concurrency, Some(2)).unwrap_err();
        assert_eq!(overflow, Overflow(Resource::Concurrency));
        assert_eq!(circuit.used(Resource::Requests), 2);
        assert_eq!(circuit.refused(Resource::Concurrency), 1);
        assert_eq!(circuit.refused(Resource::Requests), 0);
        drop((first, second));
        assert_eq!(circuit.used(Resource::Requests), 0);
    }

    #[test]
    fn threads_together_never_take_more() {
        let circuit = Arc::<Circuit>::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        let permit = circuit.take(Resource::Connections, Some(2));
                        assert!(circuit.used(Resource::Connections) <= 2);
                        drop(permit);
                    }
                });
            }
        });
        assert_eq!(circuit.used(Resource::Connections), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_gets_the_place_that_was_freed_first_come_first_served() {
        let circuit = Arc::<Circuit>::default();
        let held = circuit.take(Resource::Connections, Some(1)).unwrap();
        let order = Arc::new(parking_lot::Mutex::new(Vec::new()));
        let mut waiting = Vec::new();
        for number in 0..3 {
            let (circuit, order) = (Arc::clone(&circuit), Arc::clone(&order));
            waiting.push(tokio::spawn(async move {
                let permit =
                    circuit.wait(|| circuit.try_take(Resource::Connections, Some(1))).await;
                order.lock().push(number);
                drop(permit);
            }));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // One that gives up takes nothing with it.
        waiting.remove(0).abort();
        tokio::time::sleep(Duration::from_millis(1)).await;
        drop(held);
        for one in waiting {
            one.await.unwrap();
        }
        assert_eq!(*order.lock(), [1, 2]);
        assert!(!circuit.is_wanted());
    }

    #[tokio::test(start_paused = true)]
    async fn connections_that_rest_make_room() {
        let circuit = Arc::<Circuit>::default();
        let permit = circuit.take(Resource::Connections, Some(1)).unwrap();
        let resting = RefCell::new(vec![permit]);
        let giving = circuit.give_way(|| resting.borrow_mut().pop().is_some());
        let wanted = circuit.wait(|| circuit.try_take(Resource::Connections, Some(1)));
        tokio::select! {
            () = giving => unreachable!(),
            permit = wanted => drop(permit),
        }
        assert!(resting.borrow().is_empty());
    }
}
