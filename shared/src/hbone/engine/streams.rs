//! The streams of a connection and their windows.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use tokio::time::Instant;

use super::Violation;
use super::frame::{Reason, StreamId};
use crate::hbone::Budget;

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
    /// By how much its window has grown.
    pub(super) granted: u32,
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
///
/// Law: `left`, `unreported` and what was received and not consumed are `window` together.
#[derive(Debug)]
pub(super) struct ReceiveWindow {
    window: u32,
    left: i64,
    unreported: u32,
    /// When the last increment was announced, or the window began.
    announced: Millis,
}

/// Time since the connection began, in milliseconds; differences are right across its end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Millis(pub(super) u32);

impl Millis {
    #[expect(clippy::cast_possible_truncation, reason = "wraps, see above")]
    pub(super) fn between(began: Instant, now: Instant) -> Self {
        Self(now.saturating_duration_since(began).as_millis() as u32)
    }
}

/// A window of which half is consumed within this time holds back a peer from as far away as that:
/// it may grow. So it settles at what comes in twice this time.
const BRISK_MS: u32 = 300;

impl ReceiveWindow {
    pub(super) fn new(bytes: u32, now: Millis) -> Self {
        Self { window: bytes, left: i64::from(bytes), unreported: 0, announced: now }
    }

    pub(super) fn receive(&mut self, bytes: u32) -> Result<(), Violation> {
        self.left -= i64::from(bytes);
        if self.left < 0 {
            return Err(Violation::new(Reason::FLOW_CONTROL_ERROR, "data beyond the window"));
        }
        Ok(())
    }

    /// Counts consumed bytes; gives the increment to announce once half the window is free,
    /// so that updates stay rare and the peer never starves. `grown` is asked by how much the
    /// window may grow then, if its reader keeps up with a peer that it holds back.
    pub(super) fn consume(
        &mut self,
        bytes: u32,
        now: Millis,
        grown: impl FnOnce(u32) -> u32,
    ) -> Option<u32> {
        self.unreported = self.unreported.saturating_add(bytes);
        if self.unreported == 0 || self.unreported < self.window / 2 {
            return None;
        }
        let mut increment = std::mem::take(&mut self.unreported);
        self.left += i64::from(increment);
        let unread = i64::from(self.window) - self.left;
        if now.0.wrapping_sub(self.announced.0) < BRISK_MS && unread <= i64::from(self.window / 4) {
            let growth = grown(self.window);
            self.window += growth;
            self.left += i64::from(growth);
            increment += growth;
        }
        self.announced = now;
        Some(increment)
    }

    /// Our SETTINGS were acknowledged: the window is counted from another start.
    pub(super) fn shift(&mut self, by: i64) {
        self.left += by;
        self.window = u32::try_from(i64::from(self.window) + by).unwrap_or(0);
    }
}

/// All streams that are not closed in both directions, and the highest numbers so far.
#[derive(Debug)]
pub(super) struct Streams {
    open: HashMap<StreamId, Stream, BuildHasherDefault<NumberHasher>>,
    /// Highest number the peer opened (server) or we opened (client); 0 for none.
    pub(super) last: StreamId,
    /// What their windows may grow by, together with those of others.
    budget: Option<Arc<Budget>>,
}

impl Drop for Streams {
    fn drop(&mut self) {
        let open = std::mem::take(&mut self.open);
        open.into_values().for_each(|stream| self.let_go(&stream));
    }
}

impl Streams {
    pub(super) fn new(budget: Option<Arc<Budget>>) -> Self {
        Self { open: HashMap::default(), last: StreamId::CONNECTION, budget }
    }

    /// Gives back window for consumed bytes; gives the increment to announce. A window grows to at
    /// most `most`.
    pub(super) fn consume(
        &mut self,
        id: StreamId,
        bytes: u32,
        now: Millis,
        most: u32,
    ) -> Option<u32> {
        let stream = self.open.get_mut(&id).filter(|stream| stream.remote == Half::Open)?;
        let grown = |window: u32| {
            let growth = most.saturating_sub(window).min(window);
            let granted = growth > 0 && self.budget.as_ref().is_none_or(|all| all.take(growth));
            stream.granted += if granted { growth } else { 0 };
            if granted { growth } else { 0 }
        };
        stream.receive.consume(bytes, now, grown)
    }

    fn let_go(&self, stream: &Stream) {
        if let Some(budget) = &self.budget {
            budget.give_back(stream.granted);
        }
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
        let stream = self.open.remove(&id)?;
        self.let_go(&stream);
        Some(stream)
    }

    /// Forgets the stream if both directions are closed.
    pub(super) fn settle(&mut self, id: StreamId) {
        let closed =
            |stream: &Stream| stream.local == Half::Closed && stream.remote == Half::Closed;
        if self.get(id).is_some_and(closed) {
            self.remove(id);
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
            let mut receive = ReceiveWindow::new(window, Millis(0));
            for chunk in chunks {
                let chunk = chunk.min(u32::try_from(receive.left).unwrap());
                receive.receive(chunk).unwrap();
                receive.consume(chunk, Millis(0), |_| 0);
                prop_assert!(receive.left > 0);
                prop_assert_eq!(receive.left + i64::from(receive.unreported), i64::from(window));
            }
        }

        #[test]
        fn windows_hold_what_was_received_and_grow_within_their_budget(
            steps in prop::collection::vec((0u32..3, 0u32..400_000, 0u32..400_000, 0u32..400), 1..200),
        ) {
            const LIMIT: u64 = 1 << 20;
            const MOST: u32 = 1 << 20;
            let budget = Arc::new(Budget::new(LIMIT, || {}));
            let mut streams = Streams::new(Some(Arc::clone(&budget)));
            let mut unread = [0u32; 3];
            let mut now = Millis(u32::MAX - 20_000);
            let id = |index: u32| StreamId(2 * index + 1);
            for index in 0..3 {
                streams.insert(id(index), open_stream(ReceiveWindow::new(256 << 10, now)));
            }
            for (index, arrives, leaves, passes) in steps {
                let waits = &mut unread[index as usize];
                now = Millis(now.0.wrapping_add(passes));
                let stream = streams.get_mut(id(index)).unwrap();
                let arrives = arrives.min(u32::try_from(stream.receive.left).unwrap());
                stream.receive.receive(arrives).unwrap();
                let leaves = leaves.min(*waits + arrives);
                *waits = *waits + arrives - leaves;
                streams.consume(id(index), leaves, now, MOST);
                let window = &streams.get(id(index)).unwrap().receive;
                prop_assert!(window.window <= MOST);
                prop_assert_eq!(
                    window.left + i64::from(window.unreported) + i64::from(*waits),
                    i64::from(window.window)
                );
                let windows = (0..3).map(|index| streams.get(id(index)).unwrap().receive.window);
                let grown: u64 = windows.map(|window| u64::from(window - (256 << 10))).sum();
                prop_assert!(grown <= LIMIT);
                prop_assert_eq!(budget.used_bytes(), grown);
            }
            streams.remove(id(0));
            drop(streams);
            prop_assert_eq!(budget.used_bytes(), 0);
        }
    }

    fn open_stream(receive: ReceiveWindow) -> Stream {
        let (local, remote) = (Half::Open, Half::Open);
        Stream { local, remote, send: SendWindow::new(1), receive, granted: 0 }
    }

    #[test]
    fn a_window_grows_for_a_reader_that_keeps_up_with_a_brisk_peer_alone() {
        let grown = |unread: u32, passes: u32| {
            let mut receive = ReceiveWindow::new(1_000, Millis(7));
            receive.receive(500 + unread).unwrap();
            receive.consume(500, Millis(7 + passes), |window| window)
        };
        assert_eq!(grown(0, 10), Some(1_500));
        assert_eq!(grown(250, 299), Some(1_500));
        assert_eq!(grown(251, 10), Some(500), "the reader is behind");
        assert_eq!(grown(0, 300), Some(500), "the peer has time");
    }

    proptest! {}

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
