//! Connections of HTTP/1.1 between two requests.
//!
//! Invariants: one that the other side has closed is never lent; what rests is bounded in number and
//! time; a request that cannot be repeated gets none from an endpoint that may be about to close it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::cluster::Circuit;
use crate::upstream::pool::Key;

/// Servers that close after an answer, and do not say so, close at once: who lets a connection rest
/// for 100 ms keeps connections. Longer opens more of them before the first may be used again.
const PROOF: Duration = Duration::from_millis(100);

/// Which connections a request may be sent on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reuse {
    /// Any: should the other side have just closed it, the request is repeated.
    Any,
    /// Those of endpoints that keep connections: a close would leave it open whether the request was
    /// delivered.
    Proven,
}

/// A connection that can be asked how it is.
pub(super) trait Sender {
    /// The other side has closed it.
    fn is_closed(&self) -> bool;
    /// It has nothing to do, and takes another request.
    fn is_ready(&self) -> bool;
    /// It may rest, and nobody wants its place.
    fn may_rest(&self) -> bool;
    /// How long it may rest, where that is its own matter.
    fn idle(&self) -> Option<Duration>;
    /// It has a place in `circuit`.
    fn is_of(&self, circuit: &Circuit) -> bool;
}

/// The connections that rest.
pub(super) struct Resting<S> {
    all: RefCell<HashMap<Key, Kept<S>>>,
    idle: Duration,
}

/// Those to one endpoint.
struct Kept<S> {
    resting: Vec<(S, Instant)>,
    /// The endpoint has let one rest open.
    proven: bool,
}

impl<S: Sender> Resting<S> {
    /// None yet; one that has rested for `idle` is closed.
    pub(super) fn new(idle: Duration) -> Self {
        Self { all: RefCell::default(), idle }
    }

    /// The one that was used last and is ready, so that others can grow old.
    pub(super) fn take(&self, key: &Key, reuse: Reuse) -> Option<S> {
        let mut all = self.all.borrow_mut();
        let kept = all.get_mut(key)?;
        kept.look();
        if reuse == Reuse::Proven && !kept.proven {
            return None;
        }
        let at = kept.resting.iter().rposition(|(sender, _)| sender.is_ready())?;
        Some(kept.resting.remove(at).0)
    }

    /// Lets `sender` rest, unless `limit` do already.
    pub(super) fn put(&self, key: Key, sender: S, limit: usize) {
        let mut all = self.all.borrow_mut();
        let none = || Kept { resting: Vec::new(), proven: false };
        let kept = all.entry(key).or_insert_with(none);
        kept.look();
        if kept.resting.len() < limit && sender.may_rest() {
            kept.resting.push((sender, Instant::now()));
        }
    }

    /// The endpoint has closed a connection just as a request was sent on it.
    pub(super) fn distrust(&self, key: &Key) {
        if let Some(kept) = self.all.borrow_mut().get_mut(key) {
            kept.proven = false;
        }
    }

    /// Closes one of `circuit`, if there is one.
    pub(super) fn let_go(&self, circuit: &Circuit) -> bool {
        let mut all = self.all.borrow_mut();
        let of_it = |(sender, _): &(S, Instant)| sender.is_of(circuit);
        all.values_mut().any(|kept| match kept.resting.iter().position(of_it) {
            Some(at) => {
                kept.resting.remove(at);
                true
            }
            None => false,
        })
    }

    /// Closes what has rested too long, and forgets what is closed.
    pub(super) fn sweep(&self) {
        self.all.borrow_mut().retain(|_, kept| {
            kept.look();
            kept.resting.retain(|(sender, since)| {
                sender.may_rest() && since.elapsed() < sender.idle().unwrap_or(self.idle)
            });
            !kept.resting.is_empty()
        });
    }
}

impl<S: Sender> Kept<S> {
    /// Learns from what became of the connections, and forgets those that were closed.
    fn look(&mut self) {
        let rested = |since: &Instant| since.elapsed() >= PROOF;
        let keeps = |(sender, since): &(S, Instant)| !sender.is_closed() && rested(since);
        self.proven |= self.resting.iter().any(keeps);
        let closes = |(sender, since): &(S, Instant)| sender.is_closed() && !rested(since);
        self.proven &= !self.resting.iter().any(closes);
        self.resting.retain(|(sender, _)| !sender.is_closed());
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use tokio::time::advance;

    use super::*;

    #[derive(Default, Clone)]
    struct Fake(Rc<Cell<bool>>);

    impl Sender for Fake {
        fn is_closed(&self) -> bool {
            self.0.get()
        }

        fn is_ready(&self) -> bool {
            !self.0.get()
        }

        fn may_rest(&self) -> bool {
            true
        }

        fn idle(&self) -> Option<Duration> {
            None
        }

        fn is_of(&self, _: &Circuit) -> bool {
            true
        }
    }

    fn key() -> Key {
        let endpoint = ([10, 0, 0, 1], 80).into();
        Key { endpoint, tunnel: true, client: [10, 0, 0, 2].into(), secured: None }
    }

    fn one() -> (Resting<Fake>, Fake) {
        let (resting, sender) = (Resting::new(Duration::from_secs(60)), Fake::default());
        resting.put(key(), sender.clone(), 8);
        (resting, sender)
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_repeated_waits_for_the_proof_that_connections_are_kept() {
        let (resting, sender) = one();
        assert!(resting.take(&key(), Reuse::Proven).is_none());
        advance(PROOF).await;
        assert!(resting.take(&key(), Reuse::Proven).is_some());
        // The endpoint is known now.
        resting.put(key(), sender, 8);
        assert!(resting.take(&key(), Reuse::Proven).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn what_can_be_repeated_takes_any_that_is_open() {
        let (resting, sender) = one();
        assert!(resting.take(&key(), Reuse::Any).is_some());
        resting.put(key(), sender.clone(), 8);
        sender.0.set(true);
        assert!(resting.take(&key(), Reuse::Any).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_close_at_once_takes_the_proof_back_and_one_after_a_rest_does_not() {
        for (rest, proven) in [(Duration::ZERO, false), (PROOF, true)] {
            let (resting, _) = one();
            advance(PROOF).await;
            assert!(resting.take(&key(), Reuse::Proven).is_some());
            let closed = Fake::default();
            resting.put(key(), closed.clone(), 8);
            advance(rest).await;
            closed.0.set(true);
            resting.put(key(), Fake::default(), 8);
            assert_eq!(resting.take(&key(), Reuse::Proven).is_some(), proven);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_after_the_other_makes_room_until_none_rests() {
        let (resting, sender) = one();
        resting.put(key(), sender, 8);
        let let_go: Vec<bool> = (0..3).map(|_| resting.let_go(&Circuit::default())).collect();
        assert_eq!(let_go, [true, true, false]);
        assert!(resting.take(&key(), Reuse::Any).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_rested_too_long_is_swept_away() {
        let (resting, _) = one();
        advance(Duration::from_secs(61)).await;
        resting.sweep();
        assert!(resting.all.borrow().is_empty());
    }
}
