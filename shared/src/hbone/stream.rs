//! One tunnel: a byte stream with two independent directions.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection::Connection;
use super::engine::{Reason, StreamId};
use super::error::StreamError;

/// A tunnel stream. Dropping it resets what is still open with CANCEL.
///
/// Also usable as `AsyncRead`/`AsyncWrite`, for a TLS connection inside the tunnel.
#[derive(Debug)]
pub struct Stream {
    connection: Rc<Connection>,
    id: StreamId,
}

impl Stream {
    pub(super) fn new(connection: Rc<Connection>, id: StreamId) -> Self {
        Self { connection, id }
    }

    /// The next bytes; `None` when the peer has sent all (END_STREAM), whatever came after that.
    /// Give the window back with [`Stream::consumed`] once they have left.
    ///
    /// # Errors
    /// The peer reset the stream, or the connection ended. [`StreamError::Reset`] with
    /// `REFUSED_STREAM`: none of the bytes sent reached the application; with any other reason, also
    /// `NO_ERROR`: the other end was cut short.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamError>> {
        self.connection.state().poll_recv(self.id, cx)
    }

    /// Puts back bytes that were received and are to be received again, before any others.
    pub fn unread(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.connection.state().unread(self.id, bytes);
        }
    }

    /// Gives back window for `bytes` received earlier.
    pub fn consumed(&mut self, bytes: usize) {
        self.connection.state().consumed(self.id, bytes);
    }

    /// Copies as much of `payload` as the windows and the output allow; at least one byte,
    /// unless `payload` is empty.
    ///
    /// # Errors
    /// The peer reset the stream, our direction is closed, or the connection ended.
    pub fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        payload: &[u8],
    ) -> Poll<Result<usize, StreamError>> {
        if payload.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.connection.state().poll_send(self.id, cx, payload)
    }

    /// Closes our direction; the other one goes on.
    pub fn send_end(&mut self) {
        self.connection.state().send_end(self.id);
    }

    /// Ends both directions with `reason`. What was received before can still be read.
    pub fn reset(&mut self, reason: Reason) {
        self.connection.state().reset(self.id, reason);
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.connection.state().release(self.id, Reason::CANCEL);
    }
}

impl Stream {
    /// As [`AsyncRead::poll_read`], with the error as it is.
    ///
    /// # Errors
    /// See [`Stream::poll_recv`].
    pub fn poll_read_into(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<(), StreamError>> {
        let Some(mut payload) = ready!(self.poll_recv(cx))? else { return Poll::Ready(Ok(())) };
        let count = payload.len().min(buffer.remaining());
        buffer.put_slice(&payload[..count]);
        payload.advance(count);
        let mut state = self.connection.state();
        if !payload.is_empty() {
            state.unread(self.id, payload);
        }
        state.consumed(self.id, count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_read_into(cx, buffer).map_err(io::Error::from)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        payload: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(cx, payload).map_err(io::Error::from)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.send_end();
        Poll::Ready(Ok(()))
    }
}
