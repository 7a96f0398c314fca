//! Keepalive pings: is the peer still there?
//!
//! Numbers and behaviour as in Istio's ztunnel: the first PING after 10 s, each must be answered
//! within 20 s, the next comes 10 s after the answer, whatever other traffic there is.

use std::time::Duration;

use tokio::time::Instant;

/// Marks our keepalive pings among those a caller or drain sends.
pub(super) const KEEPALIVE_PING: [u8; 8] = *b"hb-alive";
/// Marks the ping that separates the two GOAWAYs of a graceful close.
pub(super) const DRAIN_PING: [u8; 8] = *b"hb-drain";

#[derive(Debug)]
pub(super) struct Keepalive {
    interval: Duration,
    timeout: Duration,
    state: State,
}

#[derive(Debug)]
enum State {
    Resting { until: Instant },
    Waiting { until: Instant },
}

/// What is due.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    Ping,
    /// The last ping was not answered.
    Dead,
}

impl Keepalive {
    pub(super) fn new(interval: Duration, timeout: Duration, now: Instant) -> Self {
        Self { interval, timeout, state: State::Resting { until: now + interval } }
    }

    pub(super) fn deadline(&self) -> Instant {
        match self.state {
            State::Resting { until } | State::Waiting { until } => until,
        }
    }

    pub(super) fn on_deadline(&mut self, now: Instant) -> Due {
        match self.state {
            State::Resting { until } if until <= now => {
                self.state = State::Waiting { until: now + self.timeout };
                Due::Ping
            }
            State::Waiting { until } if until <= now => Due::Dead,
            State::Resting { .. } | State::Waiting { .. } => Due::Nothing,
        }
    }

    pub(super) fn answered(&mut self, now: Instant) {
        if let State::Waiting { .. } = self.state {
            self.state = State::Resting { until: now + self.interval };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pings_rest_after_each_answer_and_give_up_without_one() {
        let second = Duration::from_secs(1);
        let start = Instant::now();
        let mut keepalive = Keepalive::new(10 * second, 20 * second, start);
        assert_eq!(keepalive.on_deadline(start + 9 * second), Due::Nothing);
        assert_eq!(keepalive.on_deadline(start + 10 * second), Due::Ping);
        keepalive.answered(start + 12 * second);
        assert_eq!(keepalive.deadline(), start + 22 * second);
        assert_eq!(keepalive.on_deadline(start + 22 * second), Due::Ping);
        assert_eq!(keepalive.on_deadline(start + 41 * second), Due::Nothing);
        assert_eq!(keepalive.on_deadline(start + 42 * second), Due::Dead);
    }
}
