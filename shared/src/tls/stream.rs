//! The byte path of a TLS connection, after rustls has shaken hands.
//!
//! rustls does the handshake and keeps the key schedule; records are opened here in place, in the
//! buffer they were read into, and handed out as slices of it. What is to be sent is sealed once
//! per turn, in records of 16 KiB, and written with one system call where the socket takes it.
//!
//! Invariants: the read buffer belongs to the worker and not to the connection: an idle connection
//! keeps only the beginning of a record that has not arrived whole.
//! Not here: who the peer is (`tls::peer`), the 10 s limit of a handshake (the caller).

mod handshake;
mod record;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;

use self::record::{Opened, Protection};
use super::{Error, PeerId};

/// A TLS 1.3 connection over `T`.
pub struct Stream<T = TcpStream> {
    io: T,
    protection: Protection,
    /// Read but not yet opened: at rest less than one record.
    incoming: BytesMut,
    /// Opened during the handshake.
    early: VecDeque<Bytes>,
    /// Sealed but not yet written; of it, `written` bytes have gone.
    sealed: Vec<u8>,
    written: usize,
    peer_closed: bool,
    close_sealed: bool,
}

/// Shakes hands as a client. Dropping the future drops the socket.
///
/// # Errors
/// The socket failed, the peer's certificate is not acceptable, or the peer refused ours.
/// Under TLS 1.3 the last is often seen only when something is read.
pub async fn connect<T: AsyncRead + AsyncWrite + Unpin>(
    io: T,
    config: Arc<ClientConfig>,
) -> Result<(Stream<T>, PeerId), Error> {
    handshake::run(handshake::client(config)?, io).await
}

/// Shakes hands as a server. Dropping the future drops the socket.
///
/// # Errors
/// The socket failed, or the client or its certificate is not acceptable.
pub async fn accept<T: AsyncRead + AsyncWrite + Unpin>(
    io: T,
    config: Arc<ServerConfig>,
) -> Result<(Stream<T>, PeerId), Error> {
    handshake::run(handshake::server(config)?, io).await
}

/// One read asks for at least that much.
const READ_BYTES: usize = 64 << 10;
/// What workers allocate read buffers in.
const ARENA_BYTES: usize = 256 << 10;
/// How much is sealed for one write.
const SEAL_AHEAD_BYTES: usize = 128 << 10;
/// Free buffers for sealed records that a worker keeps, and the largest that it keeps.
const KEPT_BUFFERS: usize = 16;
const KEPT_BYTES: usize = 2 * SEAL_AHEAD_BYTES;
/// RFC 8446 §5.1: most plaintext in a record.
const RECORD_BYTES: usize = 16 << 10;

thread_local! {
    /// All connections of a worker read into the first; what they read they split off. When it is
    /// full the second takes its place, whose bytes have mostly left by then: nothing is allocated.
    static ARENAS: RefCell<[BytesMut; 2]> = RefCell::default();
    /// What a connection seals into until it is written.
    static FREE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

impl<T> Stream<T> {
    fn borrow_buffer(&mut self) {
        if self.sealed.capacity() == 0 {
            self.sealed = FREE.with_borrow_mut(Vec::pop).unwrap_or_default();
        }
    }

    fn return_buffer(&mut self) {
        let mut buffer = std::mem::take(&mut self.sealed);
        buffer.clear();
        if (1..=KEPT_BYTES).contains(&buffer.capacity()) {
            FREE.with_borrow_mut(|free| {
                if free.len() < KEPT_BUFFERS {
                    free.push(buffer);
                }
            });
        }
    }

    fn new(io: T, protection: Protection, incoming: BytesMut, early: VecDeque<Bytes>) -> Self {
        Self {
            io,
            protection,
            incoming,
            early,
            sealed: Vec::new(),
            written: 0,
            peer_closed: false,
            close_sealed: false,
        }
    }

    /// The socket below.
    pub fn io(&self) -> &T {
        &self.io
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Stream<T> {
    /// The contents of the next record; empty at the end. A socket that ends without
    /// close_notify is an end, too: tunnels have their own marks of completeness.
    ///
    /// # Errors
    /// The socket failed, or the peer sent an alert or a broken record.
    pub fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        if let Some(early) = self.early.pop_front() {
            return Poll::Ready(Ok(early));
        }
        while !self.peer_closed {
            match self.protection.open(&mut self.incoming).map_err(io::Error::other)? {
                Opened::Contents(contents) => return Poll::Ready(Ok(contents)),
                Opened::Nothing => {}
                Opened::End => self.peer_closed = true,
                Opened::Incomplete => {
                    if ready!(self.poll_fill(cx))? == 0 {
                        self.peer_closed = true;
                    }
                }
            }
        }
        Poll::Ready(Ok(Bytes::new()))
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        ARENAS.with_borrow_mut(|arenas| {
            let begun = self.incoming.len();
            let needed = READ_BYTES + begun;
            let has_room =
                |arena: &mut BytesMut| arena.capacity() >= needed || arena.try_reclaim(needed);
            if !has_room(&mut arenas[0]) {
                arenas.swap(0, 1);
                if !has_room(&mut arenas[0]) {
                    arenas[0] = BytesMut::with_capacity(ARENA_BYTES);
                }
            }
            let arena = &mut arenas[0];
            arena.extend_from_slice(&self.incoming);
            let room = arena.capacity() - begun;
            let mut free = (&mut *arena).limit(room);
            let read = pin!(self.io.read_buf(&mut free)).poll(cx);
            let Poll::Ready(Ok(count @ 1..)) = read else {
                arena.clear();
                self.shrink();
                return read;
            };
            self.incoming = arena.split();
            Poll::Ready(Ok(count))
        })
    }

    /// Lets go of the arena while waiting for the rest of a record.
    fn shrink(&mut self) {
        if self.incoming.is_empty() {
            self.incoming = BytesMut::new();
        } else if self.incoming.capacity() > 2 * RECORD_BYTES {
            self.incoming = BytesMut::from(&self.incoming[..]);
        }
    }

    /// Seals and writes all of `output`. While `Pending`, what has been sealed was removed.
    ///
    /// # Errors
    /// The socket failed, or our direction is closed already.
    pub fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        output: &mut BytesMut,
    ) -> Poll<io::Result<()>> {
        if self.close_sealed && !output.is_empty() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        loop {
            ready!(self.poll_sealed(cx))?;
            if output.is_empty() && !self.protection.owes_key_update() {
                return Pin::new(&mut self.io).poll_flush(cx);
            }
            self.borrow_buffer();
            self.protection.answer_key_update(&mut self.sealed).map_err(io::Error::other)?;
            while !output.is_empty() && self.sealed.len() < SEAL_AHEAD_BYTES {
                let length = output.len().min(RECORD_BYTES);
                let contents = &output[..length];
                self.protection.seal(contents, &mut self.sealed).map_err(io::Error::other)?;
                output.advance(length);
            }
        }
    }

    /// Writes what is sealed. When all of it has gone, the buffer goes back to the worker.
    fn poll_sealed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.sealed.len() {
            let rest = &self.sealed[self.written..];
            let count = ready!(Pin::new(&mut self.io).poll_write(cx, rest))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += count;
        }
        self.written = 0;
        self.return_buffer();
        Poll::Ready(Ok(()))
    }

    /// Sends close_notify and shuts the socket's write side; reading goes on.
    ///
    /// # Errors
    /// The socket failed.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.close_sealed {
            self.close_sealed = true;
            self.borrow_buffer();
            self.protection.seal_close(&mut self.sealed).map_err(io::Error::other)?;
        }
        ready!(self.poll_sealed(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

impl<T> std::fmt::Debug for Stream<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("peer_closed", &self.peer_closed).finish_non_exhaustive()
    }
}
