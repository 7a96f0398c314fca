//! How long a connection lives and what it is part of, by the rule that it was made under.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use shared::mesh::Limits;
use tokio::time::Instant;

use crate::cluster::{Circuit, Cluster};

/// The life of one connection.
#[derive(Debug)]
pub(super) struct Life {
    born: Instant,
    served: Cell<u32>,
    /// Requests that it may serve.
    most: u32,
    max_age: Duration,
    idle: Option<Duration>,
    circuit: Option<Arc<Circuit>>,
}

impl Life {
    /// Begins now.
    pub(super) fn new(cluster: &Cluster) -> Self {
        let none = Limits::default();
        let limits = cluster.limits().unwrap_or(&none);
        let forever = |time: Duration| if time.is_zero() { Duration::MAX } else { time };
        Self {
            born: Instant::now(),
            served: Cell::new(0),
            most: limits.requests_per_connection.unwrap_or(u32::MAX),
            max_age: limits.max_age.unwrap_or(Duration::MAX),
            idle: limits.idle_timeout.map(forever),
            circuit: cluster.circuit().cloned(),
        }
    }

    /// One request more.
    pub(super) fn serve(&self) {
        self.served.set(self.served.get().saturating_add(1));
    }

    /// It takes no request any more.
    pub(super) fn is_spent(&self) -> bool {
        self.served.get() >= self.most || self.born.elapsed() >= self.max_age
    }

    /// It may be kept for later, and nobody waits for its place.
    pub(super) fn may_rest(&self) -> bool {
        !self.is_spent() && self.circuit.as_ref().is_none_or(|circuit| !circuit.is_wanted())
    }

    /// How long it may rest, where its rule says so.
    pub(super) fn idle(&self) -> Option<Duration> {
        self.idle
    }

    /// It has a place in `circuit`.
    pub(super) fn is_of(&self, circuit: &Circuit) -> bool {
        self.circuit.as_ref().is_some_and(|own| std::ptr::eq(Arc::as_ptr(own), circuit))
    }

    /// It can take a request again.
    pub(super) fn has_room(&self) {
        if let Some(circuit) = &self.circuit {
            circuit.freed();
        }
    }
}
