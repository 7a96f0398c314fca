//! How long a connection that is not HTTP may last, by the rule of its destination.
//!
//! Invariants: bytes in either direction are use; without a rule it lasts as long as its ends let it.
//! Source: Istio's `connectionPool.tcp`, spec L7 §3.3.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use shared::mesh::Limits;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep_until};

/// The time of one connection.
pub(super) struct Term {
    born: Instant,
    idle: Option<Duration>,
    most: Option<Duration>,
    used: Rc<Cell<Instant>>,
}

/// Why it is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Over {
    /// `tcp.idleTimeout`.
    #[error("nothing was sent for {0:?}, the idleTimeout of the destination's DestinationRule")]
    Idle(Duration),
    /// `tcp.maxConnectionDuration`.
    #[error("it has lasted {0:?}, the maxConnectionDuration of the destination's DestinationRule")]
    Old(Duration),
}

impl Term {
    /// Begins now.
    pub(super) fn new(limits: Option<&Limits>) -> Self {
        let now = Instant::now();
        let idle = limits.and_then(|limits| limits.stream_idle);
        let most = limits.and_then(|limits| limits.max_age);
        Self { born: now, idle, most, used: Rc::new(Cell::new(now)) }
    }

    /// `stream`, whose bytes are use.
    pub(super) fn watch<S>(&self, stream: S) -> Used<S> {
        Used { stream, used: Rc::clone(&self.used) }
    }

    /// Ends when the connection has to.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn over(&self) -> Over {
        loop {
            let old = self.most.map(|most| (self.born + most, Over::Old(most)));
            let idle = self.idle.map(|idle| (self.used.get() + idle, Over::Idle(idle)));
            let next = [old, idle].into_iter().flatten().min_by_key(|(end, _)| *end);
            let Some((end, why)) = next else { return std::future::pending().await };
            if end <= Instant::now() {
                return why;
            }
            sleep_until(end).await;
        }
    }
}

/// A stream that tells when it is used.
pub(super) struct Used<S> {
    stream: S,
    used: Rc<Cell<Instant>>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Used<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            this.used.set(Instant::now());
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Used<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        payload: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write(cx, payload);
        if matches!(polled, Poll::Ready(Ok(1..))) {
            this.used.set(Instant::now());
        }
        polled
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
    use tokio::time::{advance, timeout};

    use super::*;

    fn term(idle: Option<u64>, most: Option<u64>) -> Term {
        let [stream_idle, max_age] = [idle, most].map(|time| time.map(Duration::from_secs));
        Term::new(Some(&Limits { stream_idle, max_age, ..Limits::default() }))
    }

    #[tokio::test(start_paused = true)]
    async fn without_limits_it_lasts() {
        let long = Duration::from_secs(1_000_000);
        for term in [Term::new(None), term(None, None)] {
            assert!(timeout(long, term.over()).await.is_err());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_in_either_direction_put_the_end_off() {
        let term = term(Some(10), None);
        let (near, mut far) = duplex(64);
        let mut near = term.watch(near);
        for round in 0..4 {
            advance(Duration::from_secs(9)).await;
            if round % 2 == 0 {
                near.write_all(b"a").await.unwrap();
            } else {
                far.write_all(b"b").await.unwrap();
                near.read_u8().await.unwrap();
            }
            assert!(timeout(Duration::from_secs(0), term.over()).await.is_err());
        }
        let began = Instant::now();
        assert_eq!(term.over().await, Over::Idle(Duration::from_secs(10)));
        assert_eq!(began.elapsed(), Duration::from_secs(10));
    }

    #[tokio::test(start_paused = true)]
    async fn use_does_not_make_it_younger() {
        let term = term(Some(10), Some(15));
        advance(Duration::from_secs(9)).await;
        term.watch(tokio::io::sink()).write_all(b"a").await.unwrap();
        let began = Instant::now();
        assert_eq!(term.over().await, Over::Old(Duration::from_secs(15)));
        assert_eq!(began.elapsed(), Duration::from_secs(6));
    }
}
