//! How many requests may pass, by the annotations of routes and services.
//!
//! Invariants: a limit holds for the whole process, exactly: at most its burst and what its rate
//! earns. A request that is refused takes nothing from any bucket, but for one that meets another
//! worker's just then. On the way of a request there is one atomic step per bucket; a lock is taken
//! once per connection and limit, and again when a caller's bucket was given up meanwhile.
//! Not here: what is written where (`shared::feed`), the answer (`respond`).
//! Source: spec L7 §7.3, §7.6.

mod bucket;
mod callers;
mod limiter;
mod shown;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use shared::mesh::{Mesh, Rate, RateLimits, RouteKey, ServiceKey};
use tokio::time::Instant;

pub use self::bucket::{Bucket, Pace, Taken};
pub use self::callers::Callers;
pub use self::limiter::{Limiter, Scope};

use self::callers::Own;
use crate::router::Rule;
use crate::tunnel::Client;

/// Whose limits they are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// A route's: what it passes on, by all its rules.
    Route(RouteKey),
    /// A service's: what it is asked for.
    Service(ServiceKey),
}

impl Owner {
    /// The kind, the namespace, and the name or host name.
    fn names(&self) -> (&'static str, &str, &str) {
        match self {
            Self::Route(RouteKey { kind, namespace, name }) => (kind.name(), namespace, name),
            Self::Service(ServiceKey { namespace, hostname }) => ("Service", namespace, hostname),
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, namespace, name) = self.names();
        write!(f, "{kind}/{namespace}/{name}")
    }
}

/// A request that came too early.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("rate limit of {owner} is reached: {} {rate}", .scope.annotation())]
pub struct Limited {
    /// Whose limit it is.
    pub owner: Owner,
    /// Which of them.
    pub scope: Scope,
    /// What it says.
    pub rate: Rate,
    /// When the next one would pass.
    pub wait: Duration,
}

/// All limits of a process. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Limiters {
    all: Arc<Mutex<BTreeMap<Owner, Arc<Limiter>>>>,
}

impl Limiters {
    /// The limiter of `owner`; a changed limit begins anew, with full buckets.
    pub fn of(&self, owner: Owner, limits: RateLimits) -> Arc<Limiter> {
        let mut all = self.all.lock();
        match all.get(&owner).filter(|known| known.limits() == limits) {
            Some(known) => Arc::clone(known),
            None => {
                let limiter = Arc::new(Limiter::new(owner.clone(), limits, Instant::now()));
                all.insert(owner, Arc::clone(&limiter));
                limiter
            }
        }
    }

    /// Forgets those of whom `mesh` says nothing any more, and callers that have all their tokens.
    pub fn tidy(&self, mesh: &Mesh, now: Instant) {
        let mut all = self.all.lock();
        if all.is_empty() {
            return;
        }
        let routes = mesh.routes().filter(|route| route.rate_limits.is_some());
        let routes: BTreeSet<_> = routes.map(|route| &route.key).collect();
        all.retain(|owner, _| match owner {
            Owner::Route(key) => routes.contains(key),
            Owner::Service(key) => {
                mesh.service(key).is_some_and(|service| service.rate_limits.is_some())
            }
        });
        let kept: Vec<_> = all.values().cloned().collect();
        drop(all);
        kept.iter().for_each(|limiter| limiter.tidy(now));
    }

    fn list(&self) -> Vec<Arc<Limiter>> {
        self.all.lock().values().cloned().collect()
    }
}

/// What a connection remembers of the limits that its requests have met.
#[derive(Default)]
pub(crate) struct Met(RefCell<Vec<Held>>);

/// Limits that a connection may remember; a request looks at two.
const MOST_HELD: usize = 16;

struct Held {
    /// As the mesh has it: what is the same object says the same.
    limits: Arc<RateLimits>,
    limiter: Arc<Limiter>,
    own: Own,
}

impl Met {
    /// Takes the tokens of a request of `client`, which `rule` may be for.
    ///
    /// # Errors
    /// One of them is not there; none is taken.
    pub(crate) fn admit(
        &self,
        client: &Client,
        mesh: &Mesh,
        rule: Option<&Rule>,
    ) -> Result<(), Limited> {
        let service = client.target.service().and_then(|service| mesh.service(&service.key));
        let of_service = service.and_then(|service| service.rate_limits.as_ref());
        let of_route = rule.and_then(Rule::rate_limits);
        if of_service.is_none() && of_route.is_none() {
            return Ok(());
        }
        let now = Instant::now();
        let mut held = self.0.borrow_mut();
        if held.len() + 2 > MOST_HELD {
            held.clear();
        }
        let limiters = &client.worker.node.limiters;
        let mut met = [None, None];
        if let (Some(limits), Some(rule)) = (of_route, rule) {
            met[0] = Some(find(&mut held, limiters, limits, || Owner::Route(rule.route().clone())));
        }
        if let (Some(limits), Some(service)) = (of_service, service) {
            met[1] =
                Some(find(&mut held, limiters, limits, || Owner::Service(service.key.clone())));
        }
        // All are asked before any is taken from: who is refused by one takes nothing from another.
        for ask in [Limiter::has, Limiter::take] {
            for at in met.into_iter().flatten() {
                let Held { limiter, own, .. } = &mut held[at];
                ask(limiter, &client.identity, own, now)?;
            }
        }
        Ok(())
    }
}

/// Where the limiter of `limits` is among those that were met.
fn find(
    held: &mut Vec<Held>,
    limiters: &Limiters,
    limits: &Arc<RateLimits>,
    owner: impl Fn() -> Owner,
) -> usize {
    if let Some(at) = held.iter().position(|one| Arc::ptr_eq(&one.limits, limits)) {
        return at;
    }
    let limiter = limiters.of(owner(), **limits);
    held.push(Held { limits: Arc::clone(limits), limiter, own: Own::default() });
    held.len() - 1
}

#[cfg(test)]
mod tests;
