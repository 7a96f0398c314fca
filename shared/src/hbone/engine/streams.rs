//! The streams of a connection and their windows.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::Violation;
use super::frame::{Reason, StreamId};

/// RFC 9113 §6.9.1: no window may grow beyond this.
const MAX_WINDOW: i64 = 0x7fff_ffff;
/// RFC 9113 §6.9.2: every window before SETTINGS and WINDOW_UPDATE.
pub(super) const DEFAULT_WINDOW: u32 = 65_535;

/// ```text
///            sent HEADERS / got HEADERS        END_STREAM
///   Head ───────────────────────────────► Open ──────────► Closed      one per direction;
///                                                                      both Closed: forgotten
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Half {
    /// No final head yet.
    Head,
    Open,
    Closed,
}

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) local: Half,
    pub(super) remote: Half,
    pub(super) send: SendWindow,
    pub(super) receive: ReceiveWindow,
}

/// How much we may still send.
#[derive(Debug)]
pub(super) struct SendWindow(i64);

impl SendWindow {
    pub(super) fn new(bytes: u32) -> Self {
        Self(i64::from(bytes))
    }

    pub(super) fn available(&self) -> usize {
        usize::try_from(self.0).unwrap_or(0)
    }

    pub(super) fn spend(&mut self, bytes: u32) {
        self.0 -= i64::from(bytes);
    }

    /// Whether sending became possible; `Err` when the peer grew it beyond the limit.
    pub(super) fn grow(&mut self, by: i64) -> Result<bool, Violation> {
        let was_shut = self.0 <= 0;
        self.0 += by;
        if self.0 > MAX_WINDOW {
            return Err(Violation::new(Reason::FLOW_CONTROL_ERROR, "window above 2^31-1"));
        }
        Ok(was_shut && self.0 > 0)
    }
}

/// How much the peer may still send, and what was consumed but not yet given back.
#[derive(Debug)]
pub(super) struct ReceiveWindow {
    left: i64,
    unreported: u32,
}

impl ReceiveWindow {
    pub(super) fn new(bytes: u32) -> Self {
        Self { left: i64::from(bytes), unreported: 0 }
    }

    pub(super) fn receive(&mut self, bytes: u32) -> Result<(), Violation> {
        self.left -= i64::from(bytes);
        if self.left < 0 {
            return Err(Violation::new(Reason::FLOW_CONTROL_ERROR, "data beyond the window"));
        }
        Ok(())
    }

    /// Counts consumed bytes; gives the increment to announce once half the window is free,
    /// so that updates stay rare and the peer never starves.
    pub(super) fn consume(&mut self, bytes: u32, window: u32) -> Option<u32> {
        self.unreported = self.unreported.saturating_add(bytes);
        if self.unreported == 0 || self.unreported < window / 2 {
            return None;
        }
        let increment = std::mem::take(&mut self.unreported);
        self.left += i64::from(increment);
        Some(increment)
    }

    /// Our SETTINGS were acknowledged: the window is counted from another start.
    pub(super) fn shift(&mut self, by: i64) {
        self.left += by;
    }
}

/// All streams that are not closed in both directions, and the highest numbers so far.
#[derive(Debug)]
pub(super) struct Streams {
    open: HashMap<StreamId, Stream, BuildHasherDefault<NumberHasher>>,
    /// Highest number the peer opened (server) or we opened (client); 0 for none.
    pub(super) last: StreamId,
}

impl Streams {
    pub(super) fn new() -> Self {
        Self { open: HashMap::default(), last: StreamId::CONNECTION }
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    pub(super) fn shrink(&mut self) {
        self.open.shrink_to(2 * self.open.len());
    }

    pub(super) fn get(&self, id: StreamId) -> Option<&Stream> {
        self.open.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: StreamId) -> Option<&mut Stream> {
        self.open.get_mut(&id)
    }

    pub(super) fn insert(&mut self, id: StreamId, stream: Stream) {
        self.open.insert(id, stream);
    }

    pub(super) fn remove(&mut self, id: StreamId) -> Option<Stream> {
        self.open.remove(&id)
    }

    /// Forgets the stream if both directions are closed.
    pub(super) fn settle(&mut self, id: StreamId) {
        let closed =
            |stream: &Stream| stream.local == Half::Closed && stream.remote == Half::Closed;
        if self.get(id).is_some_and(closed) {
            self.open.remove(&id);
        }
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = StreamId> + '_ {
        self.open.keys().copied()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (StreamId, &mut Stream)> {
        self.open.iter_mut().map(|(id, stream)| (*id, stream))
    }
}

/// Stream numbers are small and at most a few hundred live at a time: one multiplication does.
#[derive(Debug, Default)]
pub(crate) struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.0 = (self.0 ^ u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_receive_window_never_starves_a_peer_whose_bytes_are_consumed(
            window in 1u32..100_000,
            chunks in prop::collection::vec(1u32..50_000, 1..50),
        ) {
            let mut receive = ReceiveWindow::new(window);
            for chunk in chunks {
                let chunk = chunk.min(u32::try_from(receive.left).unwrap());
                receive.receive(chunk).unwrap();
                receive.consume(chunk, window);
                prop_assert!(receive.left > 0);
                prop_assert_eq!(receive.left + i64::from(receive.unreported), i64::from(window));
            }
        }
    }

    #[test]
    fn a_send_window_can_be_negative_and_opens_once() {
        let mut send = SendWindow::new(10);
        assert!(!send.grow(-20).unwrap());
        assert_eq!(send.available(), 0);
        assert!(!send.grow(10).unwrap());
        assert!(send.grow(1).unwrap());
        assert!(!send.grow(1).unwrap());
        assert!(send.grow(MAX_WINDOW).is_err());
    }
}
