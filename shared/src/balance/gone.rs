//! What says that nobody is there, rather than that somebody is busy or the network slow.
//!
//! Invariants: known per port beside what is known of the whole pod; whoever is connected is there.

use std::collections::HashMap;
use std::io;

use tokio::time::Instant;

use crate::balance::Config;
use crate::mesh::Uid;

/// What is no longer there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gone {
    /// The pod.
    Pod,
    /// An application on the port. Others of the same pod may be well.
    Port,
}

impl Gone {
    /// What it means that a connect to a pod failed so.
    #[must_use]
    pub fn by_error(error: &io::Error) -> Option<Self> {
        use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable};
        let is_nobody =
            matches!(error.kind(), ConnectionRefused | HostUnreachable | NetworkUnreachable);
        is_nobody.then_some(Self::Pod)
    }

    /// What it means that the pod's proxy, which has proved to be that, names this cause of a 503.
    #[must_use]
    pub fn by_cause(cause: &str) -> Option<Self> {
        match cause {
            "POD_GONE" => Some(Self::Pod),
            "APPLICATION_CONNECT_FAILED" => Some(Self::Port),
            _ => None,
        }
    }
}

/// Ports on which nobody listened lately.
#[derive(Debug, Default)]
pub(super) struct Silent {
    known: HashMap<Uid, Vec<Port>>,
}

#[derive(Debug)]
struct Port {
    number: u16,
    /// Since somebody was there.
    times: u32,
    until: Instant,
}

impl Silent {
    /// Nobody listens there; gives until when it need not be asked again.
    pub(super) fn add(
        &mut self,
        (endpoint, number): (&Uid, u16),
        now: Instant,
        config: &Config,
    ) -> Instant {
        self.known.retain(|_, ports| {
            ports.retain(|port| port.until + config.forget > now);
            !ports.is_empty()
        });
        let ports = self.known.entry(endpoint.clone()).or_default();
        let at = ports.iter().position(|port| port.number == number).unwrap_or_else(|| {
            ports.push(Port { number, times: 0, until: now });
            ports.len() - 1
        });
        let port = &mut ports[at];
        // What was under way when the first one failed says nothing more.
        if port.times == 0 || port.until <= now {
            port.until = now + config.ejection_time(port.times);
            port.times += 1;
        }
        port.until
    }

    /// Somebody is there.
    pub(super) fn remove(&mut self, endpoint: &Uid, number: u16) {
        // Nearly always there is none.
        if self.known.is_empty() {
            return;
        }
        if let Some(ports) = self.known.get_mut(endpoint) {
            ports.retain(|port| port.number != number);
        }
    }

    /// Until when nobody is thought to be there.
    pub(super) fn until(&self, endpoint: &Uid, number: u16, now: Instant) -> Option<Instant> {
        let port = self.known.get(endpoint)?.iter().find(|port| port.number == number)?;
        Some(port.until).filter(|until| *until > now)
    }
}
