//! Buffers of the copy loop: one to read into per worker, and a few for what could not be passed on.
//!
//! Invariant: a connection that waits for its peer to *send* holds none of them.

use std::cell::RefCell;

use bytes::Bytes;

/// 64 KiB: four TLS records; a larger read does not lower the cost per byte.
const SCRATCH_BYTES: usize = 64 * 1024;

/// Free leftover buffers kept per worker: 2 MiB. More are freed when the burst is over.
const KEPT_BUFFERS: usize = 32;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH_BYTES].into());
    static FREE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Lends the worker's read buffer. Not re-entrant: endpoints never copy inside `poll_recv`.
pub(super) fn with<T>(use_it: impl FnOnce(&mut [u8]) -> T) -> T {
    SCRATCH.with_borrow_mut(|scratch| use_it(scratch))
}

/// Bytes that were read and not yet passed on.
pub(super) enum Pending {
    Shared(Bytes),
    Copied { buffer: Vec<u8>, from: usize },
}

impl Pending {
    pub(super) fn shared(bytes: Bytes) -> Self {
        Self::Shared(bytes)
    }

    pub(super) fn copied(rest: &[u8]) -> Self {
        let mut buffer = FREE.with_borrow_mut(Vec::pop).unwrap_or_default();
        buffer.extend_from_slice(rest);
        Self::Copied { buffer, from: 0 }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Shared(bytes) => bytes,
            Self::Copied { buffer, from } => &buffer[*from..],
        }
    }

    /// Drops the first `sent` bytes; says whether nothing is left.
    pub(super) fn advance(&mut self, sent: usize) -> bool {
        match self {
            Self::Shared(bytes) => {
                let _ = bytes.split_to(sent);
                bytes.is_empty()
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
        if let Self::Copied { buffer, .. } = self {
            let mut buffer = std::mem::take(buffer);
            buffer.clear();
            // A worker that shuts down drops connections after its thread-locals are gone.
            let _ = FREE.try_with(|free| {
                let mut free = free.borrow_mut();
                if free.len() < KEPT_BUFFERS {
                    free.push(buffer);
                }
            });
        }
    }
}
