//! The copy loop: both directions of one connection, in one future.
//!
//! Invariants: what cannot be passed on is not read; an idle connection holds no buffer; a counter
//! moves when the receiving side took the bytes; an end of stream passes on as a half-close, and a
//! direction that was cut short never looks like one that ended.
//! Not here: dialling, policy, logs. Cancel safety: dropping the future closes both sides.
//! Source: spec L4 §2.7; the pitfalls of design §7.

mod direction;
mod early;
mod endpoint;
mod scratch;

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

pub use endpoint::{Abort, Cut, Endpoint, Received, Upstream};

use direction::{Direction, Fault};
use early::Early;

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
    /// What was read of the near side, while it may be sent to another far side.
    early: Early,
    counters: &'a Counters,
}

impl<'a, N: Endpoint, F: Endpoint> Copy<'a, N, F> {
    /// Joins `near` and `far`.
    pub fn new(near: N, far: F, counters: &'a Counters) -> Self {
        let (forward, back, early) = Default::default();
        Self { sides: Some((near, far)), forward, back, early, counters }
    }

    /// As [`new`](Self::new), with `read`, which was read of `near` before; what more is read is kept
    /// until something comes back, so that [`reclaim`](Self::reclaim) can give it.
    pub fn resumable(near: N, far: F, counters: &'a Counters, read: Vec<u8>) -> Self {
        let mut copy = Self::new(near, far, counters);
        copy.forward = Direction::with(&read);
        copy.early = Early::after(read);
        copy
    }

    /// Gives up the far side: the near one, and all that was read of it. None when that is not
    /// everything any more, or something came back.
    pub fn reclaim(&mut self) -> Option<(N, Vec<u8>)> {
        let read = self.early.take()?;
        let (near, far) = self.sides.take()?;
        far.abort(Abort::Cut);
        Some((near, read))
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
        let early = &mut this.early;
        let forward = this.forward.poll(cx, near, far, &this.counters.forward, early);
        if matches!(forward, Poll::Ready(Err(Fault::Sink(_)))) && !far.tells_end_after_cut() {
            this.back.doubt_end();
        }
        // Also after a failure: a server may answer and hang up while the client still sends, and
        // that answer is already here.
        let none = &mut Early::default();
        let back = this.back.poll(cx, far, near, &this.counters.back, none);
        if early.is_whole() && (this.back.is_done() || this.counters.back.get() > 0) {
            early.forget();
        }
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
