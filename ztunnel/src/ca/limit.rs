//! How often somebody may ask.

use std::collections::HashMap;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Requests per second that a node may make for long. A full node of 250 pods with certificates
/// of five seconds makes 100.
const RATE: f64 = 200.0;

/// Requests that a node may make at once: a node with many pods that starts.
const BURST: f64 = 1000.0;

/// Requests per second, over all callers, without a valid token that are answered in full.
const STRANGERS: f64 = 50.0;

/// One allowance.
#[derive(Debug)]
struct Bucket {
    left: f64,
    filled: Instant,
}

/// The allowances of all nodes with a valid token, and one for everybody else together.
#[derive(Debug, Default)]
pub(super) struct Limits {
    nodes: Mutex<HashMap<Box<str>, Bucket>>,
    strangers: Mutex<Option<Bucket>>,
}

impl Limits {
    /// Takes one from the allowance of `node`. Only for a node that has shown a valid token, so
    /// that the number of allowances is bounded by that of tokens ever made.
    pub(super) fn admit(&self, node: &str, now: Instant) -> bool {
        let mut nodes = self.nodes.lock();
        let bucket = nodes.entry(node.into()).or_insert(Bucket { left: BURST, filled: now });
        bucket.take(RATE, BURST, now)
    }

    /// Takes one from the allowance of those who come without a valid token. It bounds what they
    /// can write into the log; nobody with a token ever waits for them.
    pub(super) fn admit_stranger(&self, now: Instant) -> bool {
        let mut strangers = self.strangers.lock();
        let bucket = strangers.get_or_insert(Bucket { left: STRANGERS, filled: now });
        bucket.take(STRANGERS, STRANGERS, now)
    }
}

impl Bucket {
    fn fill(&mut self, rate: f64, most: f64, now: Instant) {
        let since = now.saturating_duration_since(self.filled).as_secs_f64();
        self.left = (self.left + since * rate).min(most);
        self.filled = now;
    }

    fn take(&mut self, rate: f64, most: f64, now: Instant) -> bool {
        self.fill(rate, most, now);
        let admitted = self.left >= 1.0;
        if admitted {
            self.left -= 1.0;
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_node_has_a_burst_and_then_a_rate_and_does_not_take_from_others() {
        let (limits, now) = (Limits::default(), Instant::now());
        assert_eq!((0..2000).filter(|_| limits.admit("a", now)).count(), 1000);
        assert!(limits.admit("b", now));
        let later = now + Duration::from_secs(1);
        assert_eq!((0..2000).filter(|_| limits.admit("a", later)).count(), 200);
    }

    #[test]
    fn strangers_share_one_allowance_and_take_nothing_from_nodes() {
        let (limits, now) = (Limits::default(), Instant::now());
        assert_eq!((0..100).filter(|_| limits.admit_stranger(now)).count(), 50);
        assert!(limits.admit("a", now));
        assert!(limits.admit_stranger(now + Duration::from_secs(1)));
    }
}
