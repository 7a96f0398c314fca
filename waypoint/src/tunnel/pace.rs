//! How long a client of HTTP/1.1 may take for the head of a request, and rest between two.
//!
//! ```text
//! Rests ─ first byte ─► Asks ─ head complete ─► Waits ─ answer at its end ─► Rests
//! ```
//!
//! hyper has one limit for both and counts rest as slowness.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep_until};

/// What a client is doing, and how long it may.
pub(super) struct Pace {
    state: Cell<State>,
    head: Duration,
    idle: Duration,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Rests(Instant),
    Asks(Instant),
    Waits,
}

impl Pace {
    /// For a client that has connected just now.
    pub(super) fn new(head: Duration, idle: Duration) -> Rc<Self> {
        Rc::new(Self { state: Cell::new(State::Rests(Instant::now())), head, idle })
    }

    /// The head of a request is complete. Its answer ends with what is returned.
    pub(super) fn asked(self: &Rc<Self>) -> Asked {
        self.state.set(State::Waits);
        Asked(Rc::clone(self))
    }

    /// Polls until it is ready or the client was too slow, which is `None`.
    pub(super) async fn keep<T>(
        &self,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Option<T> {
        let mut timer = pin!(sleep_until(self.deadline()));
        poll_fn(|cx| {
            if let Poll::Ready(ready) = poll(cx) {
                return Poll::Ready(Some(ready));
            }
            loop {
                let deadline = self.deadline();
                // A later one is seen when the timer has fired, so that it is not set for each request.
                if deadline < timer.deadline() {
                    timer.as_mut().reset(deadline);
                }
                if timer.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                if deadline <= Instant::now() {
                    return Poll::Ready(None);
                }
                timer.as_mut().reset(deadline);
            }
        })
        .await
    }

    fn deadline(&self) -> Instant {
        match self.state.get() {
            State::Rests(since) => since + self.idle,
            State::Asks(since) => since + self.head,
            State::Waits => Instant::now() + self.idle,
        }
    }

    fn received(&self) {
        if matches!(self.state.get(), State::Rests(_)) {
            self.state.set(State::Asks(Instant::now()));
        }
    }
}

/// A request whose answer has not ended.
pub(super) struct Asked(Rc<Pace>);

impl Drop for Asked {
    fn drop(&mut self) {
        self.0.state.set(State::Rests(Instant::now()));
    }
}

/// An answer on its way.
pub(super) struct Answer<B> {
    pub(super) body: B,
    pub(super) _asked: Asked,
}

impl<B: Body<Data = Bytes> + Unpin> Body for Answer<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The client's bytes, whose first one is noticed.
pub(super) struct Paced<S> {
    pub(super) stream: S,
    pub(super) pace: Rc<Pace>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            this.pace.received();
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        payload: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, payload)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
