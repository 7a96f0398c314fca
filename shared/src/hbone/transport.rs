//! What carries a tunnel connection's bytes.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use crate::tls;

/// A reliable byte stream that hands out what it read without a copy.
pub trait Transport: 'static {
    /// The next bytes; empty at the end of the stream.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>>;

    /// Writes all of `output` and empties it. `Pending` when the socket took only a part: what
    /// was taken has been removed, and the task is woken when there is room.
    fn poll_write(&mut self, cx: &mut Context<'_>, output: &mut BytesMut) -> Poll<io::Result<()>>;

    /// Tells the peer that nothing more will come.
    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

/// A byte stream without TLS: for tests, and for tunnels inside something already protected.
#[derive(Debug)]
pub struct Plain<T>(pub T);

const READ_BYTES: usize = 64 << 10;

impl<T: AsyncRead + AsyncWrite + Unpin + 'static> Transport for Plain<T> {
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        let mut buffer = BytesMut::with_capacity(READ_BYTES);
        ready!(pin!(self.0.read_buf(&mut buffer)).poll(cx))?;
        Poll::Ready(Ok(buffer.freeze()))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, output: &mut BytesMut) -> Poll<io::Result<()>> {
        while !output.is_empty() {
            let count = ready!(Pin::new(&mut self.0).poll_write(cx, output))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            output.advance(count);
        }
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin + 'static> Transport for tls::Stream<T> {
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        Self::poll_read(self, cx)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, output: &mut BytesMut) -> Poll<io::Result<()>> {
        Self::poll_write(self, cx, output)
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Self::poll_shutdown(self, cx)
    }
}
