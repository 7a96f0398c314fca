//! Output buffers of a worker: connections have one while they have something to write.
//!
//! Invariant: a connection at rest keeps at most [`REST_BYTES`]. A tunnel of a hundred streams that
//! answer in one turn needs a hundred kilobytes for that turn, and a node has many tunnels.

use std::cell::RefCell;

use bytes::BytesMut;

/// What a connection may keep: enough for an exchange of small messages.
const REST_BYTES: usize = 4 << 10;
/// Free buffers that a worker keeps, and the largest: 4 MiB at most.
const KEPT_BUFFERS: usize = 8;
const KEPT_BYTES: usize = 512 << 10;

thread_local! {
    static FREE: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// Takes a free buffer if `output` is empty and has no room for `length_bytes`.
pub(super) fn lend(output: &mut BytesMut, length_bytes: usize) {
    if output.is_empty()
        && output.capacity() < length_bytes
        && let Some(free) = FREE.with_borrow_mut(Vec::pop)
    {
        *output = free;
    }
}

/// After everything has been written: a large buffer goes back to the worker.
pub(super) fn give_back(output: &mut BytesMut) {
    // Makes what was written from the front count as room again; allocates nothing.
    output.reserve(1);
    if output.capacity() <= REST_BYTES {
        return;
    }
    let buffer = std::mem::take(output);
    if buffer.capacity() <= KEPT_BYTES {
        // A worker that shuts down drops connections after its thread-locals are gone.
        let _ = FREE.try_with(|free| {
            let mut free = free.borrow_mut();
            if free.len() < KEPT_BUFFERS {
                free.push(buffer);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use bytes::Buf;

    use super::*;

    #[test]
    fn a_large_buffer_serves_one_connection_after_the_other() {
        let mut output = BytesMut::new();
        output.extend_from_slice(&[1; 100_000]);
        let place = output.as_ptr();
        output.advance(100_000);
        give_back(&mut output);
        assert_eq!(output.capacity(), 0);
        let mut other = BytesMut::new();
        lend(&mut other, 50_000);
        assert!(other.is_empty() && other.capacity() >= 100_000);
        assert_eq!(other.as_ptr(), place);
    }

    #[test]
    fn a_small_buffer_stays_where_it_is() {
        let mut output = BytesMut::with_capacity(1000);
        output.extend_from_slice(&[1; 1000]);
        output.advance(1000);
        give_back(&mut output);
        assert!((1000..=REST_BYTES).contains(&output.capacity()));
    }
}
