//! Buffers of the copy loop: one to read into per worker, and a few for what could not be passed on.
//!
//! Invariant: a connection that waits for its peer to *send* holds none of them.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};

use crate::copy::endpoint::{Cut, Endpoint};

/// 64 KiB: four TLS records; a larger read does not lower the cost per byte.
const SCRATCH_BYTES: usize = 64 * 1024;

/// Free leftover buffers kept per worker: 2 MiB. More are freed when the burst is over.
const KEPT_BUFFERS: usize = 32;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH_BYTES].into());
    static FREE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    static CHUNK_LISTS: RefCell<Vec<VecDeque<Bytes>>> = const { RefCell::new(Vec::new()) };
}

/// Lends the worker's read buffer. Not re-entrant: endpoints never copy inside `poll_recv`.
pub(super) fn with<T>(use_it: impl FnOnce(&mut [u8]) -> T) -> T {
    SCRATCH.with_borrow_mut(|scratch| use_it(scratch))
}

/// Chunks of a tunnel that are passed on with one call: up to 256 KiB, since a TLS record gives
/// 16 KiB at most.
pub(super) const CHUNKS: usize = 16;

/// A quarter of the buffer that tunnels are read into (`tls::Stream`).
const SHORT_BYTES: usize = 64 * 1024;

/// Bytes that were read and not yet passed on.
pub(super) enum Pending {
    /// Chunks of their own, none of them empty.
    Shared(VecDeque<Bytes>),
    Copied {
        buffer: Vec<u8>,
        from: usize,
    },
}

impl Pending {
    /// `first`, and whatever else `next` gives.
    pub(super) fn shared(first: Bytes, next: impl FnMut() -> Option<Bytes>) -> Self {
        let mut chunks = CHUNK_LISTS.with_borrow_mut(Vec::pop).unwrap_or_default();
        chunks.push_back(first);
        chunks.extend(std::iter::from_fn(next).take(CHUNKS - 1));
        Self::Shared(chunks)
    }

    pub(super) fn copied(rest: &[u8]) -> Self {
        let mut buffer = FREE.with_borrow_mut(Vec::pop).unwrap_or_default();
        buffer.extend_from_slice(rest);
        Self::Copied { buffer, from: 0 }
    }

    /// Offers all of it to `sink`.
    pub(super) fn poll_send<D: Endpoint>(
        &self,
        cx: &mut Context<'_>,
        sink: &mut D,
    ) -> Poll<Result<usize, Cut>> {
        match self {
            Self::Copied { buffer, from } => sink.poll_send(cx, &buffer[*from..]),
            Self::Shared(chunks) if chunks.len() == 1 => sink.poll_send(cx, &chunks[0]),
            Self::Shared(chunks) => {
                let mut slices = [IoSlice::new(&[]); CHUNKS];
                for (slice, chunk) in slices.iter_mut().zip(chunks) {
                    *slice = IoSlice::new(chunk);
                }
                sink.poll_send_vectored(cx, &slices[..chunks.len()])
            }
        }
    }

    /// The sink will be a while: a short chunk must not keep the whole buffer alive that it was read
    /// into with those of others.
    pub(super) fn settle(&mut self) {
        if let Self::Shared(chunks) = self {
            let length: usize = chunks.iter().map(Bytes::len).sum();
            if length <= SHORT_BYTES {
                let mut buffer = FREE.with_borrow_mut(Vec::pop).unwrap_or_default();
                chunks.iter().for_each(|chunk| buffer.extend_from_slice(chunk));
                *self = Self::Copied { buffer, from: 0 };
            }
        }
    }

    /// Drops the first `sent` bytes; says whether nothing is left.
    pub(super) fn advance(&mut self, mut sent: usize) -> bool {
        match self {
            Self::Shared(chunks) => {
                while let Some(first) = chunks.front_mut() {
                    if sent < first.len() {
                        first.advance(sent);
                        return false;
                    }
                    sent -= first.len();
                    chunks.pop_front();
                }
                true
            }
            Self::Copied { buffer, from } => {
                *from += sent;
                *from == buffer.len()
            }
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        // A worker that shuts down drops connections after its thread-locals are gone.
        match self {
            Self::Shared(chunks) => {
                let mut chunks = std::mem::take(chunks);
                chunks.clear();
                let _ = CHUNK_LISTS.try_with(|free| keep(free, chunks));
            }
            Self::Copied { buffer, .. } => {
                let mut buffer = std::mem::take(buffer);
                buffer.clear();
                let _ = FREE.try_with(|free| keep(free, buffer));
            }
        }
    }
}

fn keep<T>(free: &RefCell<Vec<T>>, one: T) {
    let mut free = free.borrow_mut();
    if free.len() < KEPT_BUFFERS {
        free.push(one);
    }
}
