//! The copy loop: both directions of one connection, in one future.
//!
//! Invariants: what cannot be passed on is not read; an idle connection holds no buffer; a counter
//! moves when the receiving side took the bytes; an end of stream passes on as a half-close, and a
//! direction that was cut short never looks like one that ended.
//! Not here: dialling, policy, logs. Cancel safety: dropping the future closes both sides.
//! Source: spec L4 §2.7; the pitfalls of design §7.

mod direction;
mod endpoint;
mod scratch;

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

pub use endpoint::{Abort, Cut, Endpoint, Received, Upstream};

use direction::{Direction, Fault};

/// Bytes passed on so far, read by the log and the metrics while the connection lives.
#[derive(Debug, Default)]
pub struct Counters {
    /// From the near side, which opened the connection, to the far side.
    pub forward: Cell<u64>,
    /// From the far side to the near side.
    pub back: Cell<u64>,
}

/// The side of a copy that a fault belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The side that opened the connection towards us.
    Near,
    /// The side that we opened.
    Far,
}

/// Why a copy ended before both directions did.
#[derive(Debug, thiserror::Error)]
#[error("{cut}")]
pub struct Error {
    /// Whose fault.
    pub side: Side,
    /// What happened there.
    #[source]
    pub cut: Cut,
}

/// Copies until both directions have ended or one of them fails.
///
/// Dropped before that, it closes like [`abort`](Self::abort): a side whose stream was not delivered
/// to its end sees a reset, so that it cannot take a part for the whole.
#[must_use = "a copy does nothing unless polled"]
pub struct Copy<'a, N: Endpoint, F: Endpoint> {
    sides: Option<(N, F)>,
    forward: Direction,
    back: Direction,
    counters: &'a Counters,
}

impl<'a, N: Endpoint, F: Endpoint> Copy<'a, N, F> {
    /// Joins `near` and `far`.
    pub fn new(near: N, far: F, counters: &'a Counters) -> Self {
        let (forward, back) = (Direction::default(), Direction::default());
        Self { sides: Some((near, far)), forward, back, counters }
    }

    /// Closes both sides after a failure or a decision to stop.
    pub fn abort(mut self, near: Abort) {
        self.close(near);
    }

    fn close(&mut self, how: Abort) {
        let Some((near, far)) = self.sides.take() else { return };
        if !self.back.is_done() {
            near.abort(how);
        }
        if !self.forward.is_done() {
            far.abort(Abort::Cut);
        }
    }

    /// No byte reached the far side and none came back: the connection may be run again elsewhere.
    pub fn is_undelivered(&self) -> bool {
        self.counters.forward.get() == 0 && self.counters.back.get() == 0
    }
}

impl<N: Endpoint, F: Endpoint> Drop for Copy<'_, N, F> {
    fn drop(&mut self) {
        self.close(Abort::Cut);
    }
}

impl<N: Endpoint, F: Endpoint> Future for Copy<'_, N, F> {
    type Output = Result<(), Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let Some((near, far)) = &mut this.sides else { return Poll::Ready(Ok(())) };
        let forward = this.forward.poll(cx, near, far, &this.counters.forward);
        if matches!(forward, Poll::Ready(Err(Fault::Sink(_)))) && !far.tells_end_after_cut() {
            this.back.doubt_end();
        }
        // Also after a failure: a server may answer and hang up while the client still sends, and
        // that answer is already here.
        let back = this.back.poll(cx, far, near, &this.counters.back);
        let error = match (forward, back) {
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(Ok(())),
            (Poll::Ready(Err(Fault::Source(cut))), _) => Error { side: Side::Near, cut },
            (Poll::Ready(Err(Fault::Sink(cut))), _) => Error { side: Side::Far, cut },
            (_, Poll::Ready(Err(Fault::Source(cut)))) => Error { side: Side::Far, cut },
            (_, Poll::Ready(Err(Fault::Sink(cut)))) => Error { side: Side::Near, cut },
            (Poll::Pending, _) | (_, Poll::Pending) => return Poll::Pending,
        };
        Poll::Ready(Err(error))
    }
}

#[cfg(test)]
mod tests;
