//! Stopping without losing work: a graceful phase, then a forced one.
//!
//! ```text
//! Running ──start──► Draining ──all guards gone──► Finished
//!    │                   └──────deadline──────────► Forced ──guards gone or grace over──► Finished
//!    └────────force─────────────────────────────────►┘
//! ```
//!
//! Invariants: phases only move forward; a waiter that asks before, during or after a change of phase
//! is woken. Waiting takes a lock when it begins and when it ends, never per poll, so a connection may
//! poll it beside its bytes.
//! Not here: what a listener or a connection does when told (its owner decides).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use slab::Slab;
use tokio::sync::Notify;
use tokio::time::Instant;

/// After the deadline, forced connections get this long to let go of their guards.
const FORCED_GRACE: Duration = Duration::from_secs(1);

/// Makes a drain: one side starts it, the other sides watch it.
#[must_use]
pub fn channel() -> (Trigger, Watch) {
    let state = Arc::new(State {
        phase: AtomicU8::new(Phase::Running as u8),
        waiting: Mutex::new(Slab::new()),
        guards: AtomicUsize::new(0),
        released: Notify::new(),
    });
    (Trigger { state: state.clone() }, Watch { state })
}

/// How long connections may take to finish after SIGTERM.
///
/// `explicit` (`CONNECTION_TERMINATION_DEADLINE`) wins. Otherwise it is derived from the pod's
/// `grace` (`TERMINATION_GRACE_PERIOD_SECONDS`): less than that, so that TLS and HTTP/2 close
/// cleanly before SIGKILL, and at least a second. With neither: 5 s.
#[must_use]
pub fn termination_deadline(explicit: Option<Duration>, grace: Option<Duration>) -> Duration {
    const MARGIN: Duration = Duration::from_secs(5);
    const SHORT_MARGIN: Duration = Duration::from_secs(1);
    const LEAST: Duration = Duration::from_secs(1);
    match (explicit, grace) {
        (Some(deadline), _) => deadline,
        (None, Some(grace)) if grace > 2 * MARGIN => grace - MARGIN,
        (None, Some(grace)) => grace.saturating_sub(SHORT_MARGIN).max(LEAST),
        (None, None) => MARGIN,
    }
}

/// Where a drain stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Nothing is being stopped.
    Running,
    /// Accept nothing new, finish what is there.
    Draining,
    /// Time is up: let go now.
    Forced,
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// Every guard was released before the deadline.
    Graceful,
    /// The deadline passed while this many guards were held.
    Forced {
        /// Guards held when the deadline passed.
        open: usize,
        /// Guards still held when the grace after forcing was over.
        stuck: usize,
    },
}

/// Starts the drain. Dropping it without starting leaves everything running.
#[derive(Debug)]
pub struct Trigger {
    state: Arc<State>,
}

impl Trigger {
    /// Begins the graceful phase, waits until all guards are released or `deadline` has passed,
    /// then forces and waits briefly once more.
    ///
    /// # Cancel safety
    /// The phase that was reached stays; a second call continues from there.
    pub async fn start(&self, deadline: Instant) -> Outcome {
        self.state.advance(Phase::Draining);
        if tokio::time::timeout_at(deadline, self.state.no_guards()).await.is_ok() {
            return Outcome::Graceful;
        }
        self.force().await
    }

    /// Skips the graceful phase: for a pod that is already gone. Also ends what holds no guard because
    /// nothing waits for it.
    pub async fn force(&self) -> Outcome {
        let open = self.guards();
        self.state.advance(Phase::Forced);
        if open == 0 {
            return Outcome::Graceful;
        }
        // An error means that the grace is over, and `guards` says how many ignored it.
        tokio::time::timeout(FORCED_GRACE, self.state.no_guards()).await.ok();
        Outcome::Forced { open, stuck: self.guards() }
    }

    /// Guards held at this moment.
    #[must_use]
    pub fn guards(&self) -> usize {
        self.state.guards.load(Ordering::Acquire)
    }

    /// Another watching side.
    #[must_use]
    pub fn watch(&self) -> Watch {
        Watch { state: self.state.clone() }
    }
}

/// Sees the drain. Cheap to clone; may cross threads.
#[derive(Clone, Debug)]
pub struct Watch {
    state: Arc<State>,
}

impl Watch {
    /// Ends when the graceful phase begins (or has begun).
    ///
    /// # Cancel safety
    /// Safe: the phase is kept, so asking again misses nothing.
    pub fn draining(&self) -> Reached {
        Reached { state: self.state.clone(), wanted: Phase::Draining, entry: None }
    }

    /// Ends when the time for a graceful end is over: drop the connection now.
    ///
    /// # Cancel safety
    /// Safe: the phase is kept, so asking again misses nothing.
    pub fn forced(&self) -> Reached {
        Reached { state: self.state.clone(), wanted: Phase::Forced, entry: None }
    }

    /// Where the drain stands now.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.state.phase()
    }

    /// Work that the drain has to wait for, until the guard is dropped.
    pub fn guard(&self) -> Guard {
        self.state.guards.fetch_add(1, Ordering::AcqRel);
        Guard { state: self.state.clone() }
    }
}

/// Keeps the drain waiting while it lives.
#[derive(Debug)]
#[must_use = "the drain waits only while the guard is held"]
pub struct Guard {
    state: Arc<State>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.state.guards.fetch_sub(1, Ordering::AcqRel) == 1 {
            // Keeps one permit when nobody waits yet, so the wake-up cannot be lost.
            self.state.released.notify_one();
        }
    }
}

/// Ends when a phase is reached. See [`Watch::draining`] and [`Watch::forced`].
#[derive(Debug)]
#[must_use = "a future does nothing unless awaited"]
pub struct Reached {
    state: Arc<State>,
    wanted: Phase,
    /// Our place among the waiting, and the waker that we left there.
    entry: Option<(usize, Waker)>,
}

impl Future for Reached {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.state.phase() >= self.wanted {
            return Poll::Ready(());
        }
        match &self.entry {
            Some((_, left)) if left.will_wake(cx.waker()) => return Poll::Pending,
            Some((place, _)) => {
                let place = *place;
                self.state.waiting.lock()[place] = cx.waker().clone();
                self.entry = Some((place, cx.waker().clone()));
            }
            None => {
                let place = self.state.waiting.lock().insert(cx.waker().clone());
                self.entry = Some((place, cx.waker().clone()));
            }
        }
        // `advance` changes the phase before it takes the lock: either it saw our waker, or we see the phase.
        if self.state.phase() >= self.wanted { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for Reached {
    fn drop(&mut self) {
        if let Some((place, _)) = self.entry.take() {
            self.state.waiting.lock().remove(place);
        }
    }
}

#[derive(Debug)]
struct State {
    phase: AtomicU8,
    waiting: Mutex<Slab<Waker>>,
    guards: AtomicUsize,
    released: Notify,
}

impl State {
    fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Running,
            1 => Phase::Draining,
            _ => Phase::Forced,
        }
    }

    fn advance(&self, to: Phase) {
        self.phase.fetch_max(to as u8, Ordering::AcqRel);
        let wakers: Vec<Waker> =
            self.waiting.lock().iter().map(|(_, waker)| waker.clone()).collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    async fn no_guards(&self) {
        while self.guards.load(Ordering::Acquire) > 0 {
            self.released.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_secs(secs: u64) -> Instant {
        Instant::now() + Duration::from_secs(secs)
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_open_ends_at_once() {
        let (trigger, watch) = channel();
        let begun = Instant::now();
        assert_eq!(trigger.start(in_secs(10)).await, Outcome::Graceful);
        assert_eq!(begun.elapsed(), Duration::ZERO);
        assert_eq!(watch.phase(), Phase::Draining);
    }

    #[tokio::test(start_paused = true)]
    async fn drain_waits_for_the_last_guard() {
        let (trigger, watch) = channel();
        let (first, second) = (watch.guard(), watch.guard());
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            drop(first);
            tokio::time::sleep(Duration::from_secs(2)).await;
            drop(second);
        });
        let begun = Instant::now();
        assert_eq!(trigger.start(in_secs(10)).await, Outcome::Graceful);
        assert_eq!(begun.elapsed(), Duration::from_secs(3));
    }

    #[tokio::test(start_paused = true)]
    async fn deadline_forces_those_who_listen_and_names_the_others() {
        let (trigger, watch) = channel();
        let stuck = watch.guard();
        let obedient = tokio::spawn({
            let (watch, guard) = (watch.clone(), watch.guard());
            async move {
                watch.forced().await;
                drop(guard);
            }
        });
        let outcome = trigger.start(in_secs(4)).await;
        assert_eq!(outcome, Outcome::Forced { open: 2, stuck: 1 });
        obedient.await.unwrap();
        drop(stuck);
        assert_eq!(trigger.guards(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn force_ends_also_what_holds_no_guard() {
        let (trigger, watch) = channel();
        let unguarded = tokio::spawn(watch.forced());
        tokio::task::yield_now().await;
        assert_eq!(trigger.force().await, Outcome::Graceful);
        unguarded.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn waiters_from_before_during_and_after_are_woken() {
        let (trigger, watch) = channel();
        let guard = watch.guard();
        let before = tokio::spawn(watch.draining());
        tokio::task::yield_now().await;
        let start = tokio::spawn(async move { trigger.start(in_secs(5)).await });
        before.await.unwrap();
        let during = tokio::spawn(watch.forced());
        drop(guard);
        assert_eq!(start.await.unwrap(), Outcome::Graceful);
        watch.draining().await;
        assert!(!during.is_finished());
        during.abort();
    }

    #[tokio::test]
    async fn a_finished_wait_leaves_nothing_behind() {
        let (trigger, watch) = channel();
        for _ in 0..10 {
            tokio::time::timeout(Duration::from_millis(1), watch.draining()).await.unwrap_err();
        }
        assert!(watch.state.waiting.lock().is_empty());
        assert_eq!(trigger.start(in_secs(1)).await, Outcome::Graceful);
    }

    #[tokio::test]
    async fn a_wait_that_moves_to_another_task_is_still_woken() {
        let (trigger, watch) = channel();
        let mut waiting = Box::pin(watch.draining());
        tokio::time::timeout(Duration::from_millis(1), &mut waiting).await.unwrap_err();
        let moved = tokio::spawn(waiting);
        tokio::task::yield_now().await;
        assert_eq!(trigger.start(in_secs(1)).await, Outcome::Graceful);
        moved.await.unwrap();
    }

    #[test]
    fn termination_deadline_follows_the_grace_period() {
        let secs = Duration::from_secs;
        for (explicit, grace, expected) in [
            (None, None, 5),
            (Some(7), Some(30), 7),
            (None, Some(30), 25),
            (None, Some(11), 6),
            (None, Some(10), 9),
            (None, Some(2), 1),
            (None, Some(1), 1),
            (None, Some(0), 1),
        ] {
            assert_eq!(termination_deadline(explicit.map(secs), grace.map(secs)), secs(expected));
        }
    }
}
