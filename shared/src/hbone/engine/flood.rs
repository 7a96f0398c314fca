//! Budgets for things a peer may do now and then, but not all day.
//!
//! Each budget is a token bucket: what it holds at most is the burst we accept, what flows back
//! per second the rate. Legitimate peers stay far below; a flood ends the connection with
//! ENHANCE_YOUR_CALM.

use tokio::time::Instant;

use super::Violation;
use super::frame::Reason;

/// Frames without use: PING, SETTINGS, PRIORITY, empty DATA, unknown types, 1xx heads.
const IDLE_FRAMES: Rate = Rate { burst: 1_000, per_second: 200 };
/// Streams that came to nothing: reset by the peer before an answer, refused or broken by its
/// own fault (CVE-2023-44487 and its relatives).
const BROKEN_STREAMS: Rate = Rate { burst: 400, per_second: 100 };
/// WINDOW_UPDATE frames; sent DATA earns more, see [`Flood::sent`].
const UPDATES: Rate = Rate { burst: 2_000, per_second: 200 };
/// However much was sent, no more updates than this may be waiting to be spent.
const UPDATES_EARNED_AT_MOST: u32 = 200_000;
/// A peer that acknowledges every so many bytes, twice (stream and connection), is still fine.
const BYTES_PER_UPDATE: u32 = 512;

#[derive(Debug)]
pub(super) struct Flood {
    idle_frames: Bucket,
    broken_streams: Bucket,
    updates: Bucket,
}

impl Flood {
    pub(super) fn new(now: Instant) -> Self {
        let bucket = |rate: Rate| Bucket { rate, tokens: rate.burst, since: now };
        Self {
            idle_frames: bucket(IDLE_FRAMES),
            broken_streams: bucket(BROKEN_STREAMS),
            updates: bucket(UPDATES),
        }
    }

    pub(super) fn idle_frame(&mut self, now: Instant) -> Result<(), Violation> {
        self.idle_frames.spend(now, "flood of frames without use")
    }

    pub(super) fn broken_stream(&mut self, now: Instant) -> Result<(), Violation> {
        self.broken_streams.spend(now, "flood of streams that come to nothing")
    }

    pub(super) fn update(&mut self, now: Instant) -> Result<(), Violation> {
        self.updates.spend(now, "flood of window updates")
    }

    /// A DATA frame of `bytes` left: the peer may answer with window updates.
    pub(super) fn sent(&mut self, bytes: u32) {
        let earned = 2 + 2 * (bytes / BYTES_PER_UPDATE);
        if self.updates.tokens < UPDATES_EARNED_AT_MOST {
            self.updates.tokens += earned;
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Rate {
    burst: u32,
    per_second: u32,
}

#[derive(Debug)]
struct Bucket {
    rate: Rate,
    tokens: u32,
    since: Instant,
}

impl Bucket {
    fn spend(&mut self, now: Instant, flood: &'static str) -> Result<(), Violation> {
        if let Some(left) = self.tokens.checked_sub(1) {
            self.tokens = left;
            return Ok(());
        }
        let seconds = now.saturating_duration_since(self.since).as_secs_f64();
        let refilled = (seconds * f64::from(self.rate.per_second)) as u32;
        let Some(left) = refilled.min(self.rate.burst).checked_sub(1) else {
            return Err(Violation::new(Reason::ENHANCE_YOUR_CALM, flood));
        };
        self.tokens = left;
        self.since = now;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_is_accepted_then_refused_then_accepted_again() {
        let start = Instant::now();
        let mut flood = Flood::new(start);
        assert!((0..400).all(|_| flood.broken_stream(start).is_ok()));
        assert!(flood.broken_stream(start).is_err());
        let later = start + Duration::from_secs(1);
        assert_eq!((0..200).filter(|_| flood.broken_stream(later).is_ok()).count(), 100);
    }

    #[test]
    fn sent_bytes_earn_window_updates() {
        let start = Instant::now();
        let mut flood = Flood::new(start);
        flood.sent(1 << 20);
        assert!((0..4_000).all(|_| flood.update(start).is_ok()));
    }
}
