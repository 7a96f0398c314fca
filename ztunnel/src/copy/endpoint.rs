//! What the copy loop needs of a side: a socket, or a stream of a tunnel.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use shared::chain::Chain;
use shared::hbone::{Reason, Stream, StreamError};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What one read gave.
#[derive(Debug)]
pub enum Received {
    /// That many bytes of the lent buffer.
    Scratch(usize),
    /// A chunk of its own, never empty.
    Shared(Bytes),
    /// The other side will send no more.
    End,
}

/// How one side failed.
#[derive(Debug, thiserror::Error)]
pub enum Cut {
    /// It went away: reset, broken pipe, stream cancelled. Everyday; not reported as an error,
    /// because users read errors as "could not connect" (Istio ztunnel does the same).
    #[error("closed by the peer")]
    Reset,
    /// The peer's proxy says that the application took no byte of the stream (design D8).
    #[error("the application took no byte")]
    Undelivered,
    /// The socket failed.
    #[error("io error: {0}")]
    Io(#[source] io::Error),
    /// The tunnel failed.
    #[error("h2 failed: {}", Chain(.0))]
    Tunnel(#[source] StreamError),
}

/// What the other end should learn from the way a side is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abort {
    /// The stream was cut.
    Cut,
    /// The stream was cut and the application took none of it: `REFUSED_STREAM` in a tunnel.
    Undelivered,
}

/// One side of a copy. All calls come from one task.
pub trait Endpoint: Unpin {
    /// What has arrived, in `scratch` or in a chunk of its own. An end and a failure are told again
    /// to who asks again.
    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
    ) -> Poll<Result<Received, Cut>>;

    /// Takes a part of `bytes`, at least one byte.
    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, Cut>>;

    /// As `poll_send`, of the first of `slices` or more; none of them is empty.
    fn poll_send_vectored(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<Result<usize, Cut>> {
        self.poll_send(cx, slices.first().map_or(&[], |slice| slice))
    }

    /// Says that no more will be sent, after everything that was.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Cut>>;

    /// `length` bytes of what was received have been passed on.
    fn consumed(&mut self, length: usize);

    /// Whether an end that is read after sending has failed is one that the peer meant.
    fn tells_end_after_cut(&self) -> bool;

    /// Closes so that the other end cannot mistake it for an orderly end.
    fn abort(self, how: Abort);
}

impl Endpoint for TcpStream {
    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
    ) -> Poll<Result<Received, Cut>> {
        let mut buffer = ReadBuf::new(scratch);
        ready!(Pin::new(self).poll_read(cx, &mut buffer)).map_err(socket_cut)?;
        Poll::Ready(Ok(match buffer.filled().len() {
            0 => Received::End,
            length => Received::Scratch(length),
        }))
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, Cut>> {
        sent(ready!(Pin::new(self).poll_write(cx, bytes)))
    }

    fn poll_send_vectored(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<Result<usize, Cut>> {
        sent(ready!(Pin::new(self).poll_write_vectored(cx, slices)))
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Cut>> {
        match ready!(Pin::new(self).poll_shutdown(cx)) {
            // The peer is gone already: it has seen all that it wanted to see.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            ended => Poll::Ready(ended.map_err(socket_cut)),
        }
    }

    fn consumed(&mut self, _: usize) {}

    fn tells_end_after_cut(&self) -> bool {
        // The kernel tells of a reset once, here to the sender: a reader then finds a false end.
        false
    }

    fn abort(self, _: Abort) {
        // Without a lingering close the kernel sends RST instead of FIN.
        let _ = self.set_zero_linger();
    }
}

impl Endpoint for Stream {
    fn poll_recv(&mut self, cx: &mut Context<'_>, _: &mut [u8]) -> Poll<Result<Received, Cut>> {
        let bytes = ready!(self.poll_recv(cx)).map_err(stream_cut)?;
        Poll::Ready(Ok(bytes.map_or(Received::End, Received::Shared)))
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, Cut>> {
        self.poll_send(cx, bytes).map_err(stream_cut)
    }

    fn poll_end(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Cut>> {
        self.send_end();
        Poll::Ready(Ok(()))
    }

    fn consumed(&mut self, length: usize) {
        self.consumed(length);
    }

    fn tells_end_after_cut(&self) -> bool {
        true
    }

    fn abort(mut self, how: Abort) {
        self.reset(match how {
            Abort::Cut => Reason::CANCEL,
            Abort::Undelivered => Reason::REFUSED_STREAM,
        });
    }
}

/// Either kind of side that we open.
#[derive(Debug)]
pub enum Upstream {
    /// A socket.
    Socket(TcpStream),
    /// A tunnel.
    Tunnel(Stream),
}

impl Endpoint for Upstream {
    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
    ) -> Poll<Result<Received, Cut>> {
        match self {
            Self::Socket(socket) => Endpoint::poll_recv(socket, cx, scratch),
            Self::Tunnel(stream) => Endpoint::poll_recv(stream, cx, scratch),
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, Cut>> {
        match self {
            Self::Socket(socket) => Endpoint::poll_send(socket, cx, bytes),
            Self::Tunnel(stream) => Endpoint::poll_send(stream, cx, bytes),
        }
    }

    fn poll_send_vectored(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<Result<usize, Cut>> {
        match self {
            Self::Socket(socket) => socket.poll_send_vectored(cx, slices),
            Self::Tunnel(stream) => stream.poll_send_vectored(cx, slices),
        }
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Cut>> {
        match self {
            Self::Socket(socket) => Endpoint::poll_end(socket, cx),
            Self::Tunnel(stream) => Endpoint::poll_end(stream, cx),
        }
    }

    fn consumed(&mut self, length: usize) {
        match self {
            Self::Socket(_) => {}
            Self::Tunnel(stream) => stream.consumed(length),
        }
    }

    fn tells_end_after_cut(&self) -> bool {
        match self {
            Self::Socket(socket) => socket.tells_end_after_cut(),
            Self::Tunnel(stream) => stream.tells_end_after_cut(),
        }
    }

    fn abort(self, how: Abort) {
        match self {
            Self::Socket(socket) => Endpoint::abort(socket, how),
            Self::Tunnel(stream) => Endpoint::abort(stream, how),
        }
    }
}

fn stream_cut(error: StreamError) -> Cut {
    match error {
        StreamError::Reset(Reason::REFUSED_STREAM) => Cut::Undelivered,
        StreamError::Reset(Reason::NO_ERROR | Reason::CANCEL) | StreamError::BrokenPipe => {
            Cut::Reset
        }
        StreamError::Reset(_) | StreamError::Connection(_) => Cut::Tunnel(error),
    }
}

fn sent(result: io::Result<usize>) -> Poll<Result<usize, Cut>> {
    Poll::Ready(match result {
        Ok(0) => Err(Cut::Reset),
        Ok(count) => Ok(count),
        Err(error) => Err(socket_cut(error)),
    })
}

fn socket_cut(error: io::Error) -> Cut {
    match error.kind() {
        io::ErrorKind::NotConnected
        | io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::BrokenPipe => Cut::Reset,
        _ => Cut::Io(error),
    }
}
