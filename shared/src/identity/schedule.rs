//! When to ask for which certificate: a state machine without clock, runtime or network.
//!
//! ```text
//!            want              start                 succeeded
//! (unknown) ──────► Queued ───────────► InFlight ───────────────► Queued (half of what is left)
//!     ▲               ▲                    │  └── failed ────────► Queued (back-off)
//!     └── forget ─────┴────── forget ──────┘
//! ```
//!
//! Invariants: one attempt in flight per identity, [`Config::concurrency`] overall; an attempt
//! that was overtaken by a forget is recognised by its [`Ticket`] and changes nothing.
//! Source: Istio ztunnel `src/identity/manager.rs`. Different: half of the time between receipt
//! and expiry (a back-dated start must not make a loop), jitter, and a back-off that gets shorter
//! as expiry comes near.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::SpiffeId;

/// How urgently a certificate is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Priority {
    /// The one in hand is still good.
    Refresh,
    /// A pod is there that will need it.
    Prefetch,
    /// A connection waits for it.
    OnDemand,
}

/// The pace of renewal.
#[derive(Debug, Clone)]
pub struct Config {
    /// Attempts in flight at once, over all identities. Istio ztunnel's is 8; more would press a
    /// busy authority, fewer make a full node start slowly.
    pub concurrency: usize,
    /// The first pause after a failure; doubles with each further one. Istio ztunnel's is 1 s; a
    /// new pod may be refused once, when the authority has not seen it yet.
    pub first_pause: Duration,
    /// The longest pause while a valid certificate is in hand.
    pub longest_pause: Duration,
    /// The longest pause while there is none, so while connections fail.
    pub longest_pause_without: Duration,
    /// Renewals are never closer together than this, however short the lifetime.
    pub shortest_pause: Duration,
    /// An attempt is given up after this time at the latest: while a valid certificate is in hand,
    /// after half of the time that it has left.
    pub attempt_limit: Duration,
    /// No attempt is given up before this time: the authority may be far away, or busy.
    pub shortest_attempt: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            concurrency: 8,
            first_pause: Duration::from_millis(250),
            longest_pause: Duration::from_secs(150),
            longest_pause_without: Duration::from_secs(15),
            shortest_pause: Duration::from_millis(100),
            attempt_limit: Duration::from_secs(10),
            shortest_attempt: Duration::from_secs(1),
        }
    }
}

/// Which attempt a result belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Ticket(u64);

/// See the module.
#[derive(Debug)]
pub(super) struct Schedule {
    config: Config,
    entries: HashMap<SpiffeId, Entry>,
    in_flight: usize,
    tickets: u64,
}

#[derive(Debug)]
struct Entry {
    step: Step,
    failures: u32,
    expires: Option<Instant>,
    /// Ask again at once when the attempt in flight has ended.
    stale: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Queued { priority: Priority, due: Instant },
    InFlight(Ticket),
}

impl Schedule {
    pub(super) fn new(config: Config) -> Self {
        Self { config, entries: HashMap::new(), in_flight: 0, tickets: 0 }
    }

    /// Wants a certificate for `id`. For one that is queued already the priority may rise; a pause
    /// after a failure is kept.
    pub(super) fn want(&mut self, id: &SpiffeId, priority: Priority, now: Instant) {
        let Some(entry) = self.entries.get_mut(id) else {
            let step = Step::Queued { priority, due: now };
            let entry = Entry { step, failures: 0, expires: None, stale: false };
            self.entries.insert(id.clone(), entry);
            return;
        };
        if let Step::Queued { priority: queued, due } = &mut entry.step
            && entry.expires.is_none_or(|expires| expires <= now)
        {
            *queued = priority.max(*queued);
            if entry.failures == 0 {
                *due = now;
            }
        }
    }

    /// What is in hand for `id` has expired, whatever was known about its end.
    pub(super) fn expire(&mut self, id: &SpiffeId, now: Instant) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.expires = entry.expires.map(|expires| expires.min(now));
        }
    }

    /// Nobody wants `id` any more. Returns the attempt to break off, if one is in flight.
    pub(super) fn forget(&mut self, id: &SpiffeId) -> Option<Ticket> {
        match self.entries.remove(id)?.step {
            Step::InFlight(ticket) => {
                self.in_flight -= 1;
                Some(ticket)
            }
            Step::Queued { .. } => None,
        }
    }

    /// Asks for everything again, with no regard to pauses.
    pub(super) fn refresh_all(&mut self, now: Instant) {
        for entry in self.entries.values_mut() {
            match &mut entry.step {
                Step::Queued { due, .. } => *due = now,
                Step::InFlight(_) => entry.stale = true,
            }
        }
    }

    /// The next attempt to make: the most urgent that is due, then the one due longest.
    pub(super) fn start(&mut self, now: Instant) -> Option<(SpiffeId, Ticket)> {
        if self.in_flight >= self.config.concurrency {
            return None;
        }
        let due = |entry: &Entry| match entry.step {
            Step::Queued { priority, due } if due <= now => Some((priority, now - due)),
            _ => None,
        };
        let (_, id) = self
            .entries
            .iter()
            .filter_map(|(id, entry)| due(entry).map(|urgency| (urgency, id)))
            .max_by_key(|(urgency, _)| *urgency)?;
        let id = id.clone();
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.entries.get_mut(&id)?.step = Step::InFlight(ticket);
        self.in_flight += 1;
        Some((id, ticket))
    }

    /// How long an attempt for `id` may take: so that after one that hangs there is time for another.
    pub(super) fn limit(&self, id: &SpiffeId, now: Instant) -> Duration {
        let Config { attempt_limit, shortest_attempt, .. } = self.config;
        match self.entries.get(id).and_then(|entry| entry.left(now)) {
            Some(left) => (left / 2).max(shortest_attempt).min(attempt_limit),
            None => attempt_limit,
        }
    }

    /// When [`Schedule::start`] should be asked again, if nothing else happens.
    pub(super) fn deadline(&self) -> Option<Instant> {
        if self.in_flight >= self.config.concurrency {
            return None;
        }
        let due = |entry: &Entry| match entry.step {
            Step::Queued { due, .. } => Some(due),
            Step::InFlight(_) => None,
        };
        self.entries.values().filter_map(due).min()
    }

    /// The attempt has brought a certificate with `remaining` to live. `chance` in 0..1 spreads
    /// the renewal over ±10 %. Returns whether the certificate is wanted.
    pub(super) fn succeeded(
        &mut self,
        (id, ticket): (&SpiffeId, Ticket),
        remaining: Duration,
        now: Instant,
        chance: f64,
    ) -> bool {
        let shortest_pause = self.config.shortest_pause;
        let Some(entry) = self.returned(id, ticket) else { return false };
        let half = (remaining / 2).mul_f64(0.9 + 0.2 * chance).max(shortest_pause);
        entry.failures = 0;
        entry.expires = Some(now + remaining);
        entry.requeue(now, half);
        true
    }

    /// The attempt has failed. Returns whether anybody cares.
    pub(super) fn failed(
        &mut self,
        (id, ticket): (&SpiffeId, Ticket),
        now: Instant,
        chance: f64,
    ) -> bool {
        let config = self.config.clone();
        let Some(entry) = self.returned(id, ticket) else { return false };
        // While there is time, four more attempts fit before expiry, then four more, and so on.
        let longest = match entry.left(now) {
            Some(left) => (left / 4).clamp(config.shortest_pause, config.longest_pause),
            None => config.longest_pause_without,
        };
        let doubled = config.first_pause.saturating_mul(1 << entry.failures.min(16));
        entry.failures += 1;
        entry.requeue(now, doubled.min(longest).mul_f64(0.8 + 0.4 * chance));
        true
    }

    fn returned(&mut self, id: &SpiffeId, ticket: Ticket) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(id)?;
        if entry.step != Step::InFlight(ticket) {
            return None;
        }
        self.in_flight -= 1;
        Some(entry)
    }
}

impl Entry {
    /// What the certificate in hand has left; nothing if there is none or it has expired.
    fn left(&self, now: Instant) -> Option<Duration> {
        let left = self.expires.and_then(|expires| expires.checked_duration_since(now));
        left.filter(|left| !left.is_zero())
    }

    fn requeue(&mut self, now: Instant, pause: Duration) {
        let pause = if std::mem::take(&mut self.stale) { Duration::ZERO } else { pause };
        self.step = Step::Queued { priority: Priority::Refresh, due: now + pause };
    }
}

#[cfg(test)]
mod tests;
