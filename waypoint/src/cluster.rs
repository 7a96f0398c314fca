//! One port of a service, or of a subset of it, as requests meet it: its endpoints, what its `DestinationRule` allows, and
//! who is left out.
//!
//! Invariants: made once per change of the mesh and worker; what several workers must agree on is in
//! [`Standing`] and outlives it; without a rule nothing is shared and nothing is counted.
//! Not here: connections (`upstream`), when to try again (`request::attempt`).
//! Source: spec L7 §3.3 to §3.5, §3.10.

mod adaptive;
mod aim;
mod circuit;
mod gradient;
mod local;
mod nearness;
mod order;
mod outliers;
mod standing;
mod work;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use shared::balance::Loads;
use shared::mesh::{
    Balancer, HashKey, Limits, Mesh, OutlierDetection, TrafficPolicy, Uid, Upgrade,
};
use tokio::time::Instant;

pub use self::adaptive::Adaptive;
pub(crate) use self::aim::Aim;
pub use self::circuit::{Circuit, Overflow, Permit, Resource};
pub use self::gradient::{Gradient, Sample};
use self::local::Local;
pub(crate) use self::local::Locals;
use self::nearness::Nearness;
pub(crate) use self::order::Wish;
pub use self::outliers::{Host, Outliers, Reason, Report, State, Verdict};
pub(crate) use self::standing::has_policy;
pub use self::standing::{Standing, Standings};
pub(crate) use self::work::Work;
use crate::tunnel::Client;
use crate::upstream::Endpoint;

/// A port of a service, or a workload that was asked for by its address.
pub(crate) struct Cluster {
    endpoints: Box<[Endpoint]>,
    policy: Option<Arc<TrafficPolicy>>,
    standing: Option<Arc<Standing>>,
    /// As the endpoints, where outliers are looked for.
    hosts: Box<[Watched]>,
    nearness: Nearness,
    local: Local,
}

/// An endpoint that may be left out.
struct Watched {
    /// Its workload, and its address where a name has several.
    name: Uid,
    host: Arc<Host>,
    /// It was out when this worker last looked.
    was_out: Cell<bool>,
}

impl Cluster {
    /// One endpoint, without rules.
    pub(crate) fn alone(endpoint: Endpoint, loads: &Loads) -> Rc<Self> {
        Rc::new(Self {
            endpoints: [endpoint].into(),
            policy: None,
            standing: None,
            hosts: Box::default(),
            nearness: Nearness::none(),
            local: Local::plain(loads),
        })
    }

    /// The endpoints that `aim` means, under its rule.
    pub(crate) fn new(
        mesh: &Mesh,
        aim: Aim<'_>,
        mut endpoints: Vec<Endpoint>,
        client: &Client,
        locals: &Locals,
    ) -> Rc<Self> {
        let worker = &client.worker;
        let standings = &worker.node.standings;
        let policy = aim.policy().cloned();
        let nearness = policy.as_ref().map_or_else(Nearness::none, |policy| {
            Nearness::of(&client.own, aim.service, policy, &mut endpoints)
        });
        let destination = aim.destination();
        let standing = policy.as_ref().map(|_| standings.of(&destination));
        if let (Some(policy), Some(standing)) = (&policy, &standing) {
            let now = Instant::now();
            standing.adaptive.configure(policy.concurrency, mesh.generation(), now);
        }
        let watches = policy.as_ref().is_some_and(|policy| policy.outliers.is_some());
        let hosts = standing.iter().filter(|_| watches).flat_map(|standing| {
            let names: Vec<Uid> = endpoints.iter().map(name).collect();
            let hosts = standing.outliers.hosts(mesh.generation(), names.iter());
            names.into_iter().zip(hosts)
        });
        let watched = |(name, host)| Watched { name, host, was_out: Cell::new(false) };
        let hosts = hosts.map(watched).collect();
        let local = match &policy {
            None => Local::plain(&worker.loads),
            Some(policy) => locals.of(destination, policy, &endpoints, &worker.loads),
        };
        let endpoints = endpoints.into();
        Rc::new(Self { endpoints, policy, standing, hosts, nearness, local })
    }

    /// Who could answer.
    pub(crate) fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// What its rule allows.
    pub(crate) fn limits(&self) -> Option<&Limits> {
        self.policy.as_ref().map(|policy| &policy.limits)
    }

    /// What endpoints are spoken to in, beside what their port says.
    pub(crate) fn upgrade(&self) -> Upgrade {
        self.limits().map(|limits| limits.upgrade).unwrap_or_default()
    }

    /// What of a request says where it goes, where that is its rule's way.
    pub(crate) fn hash_key(&self) -> Option<&HashKey> {
        match &self.policy.as_ref()?.balancer {
            Balancer::Hash { key, .. } => Some(key),
            _ => None,
        }
    }

    /// How much of it is in use, where there is a rule.
    pub(crate) fn circuit(&self) -> Option<&Arc<Circuit>> {
        self.standing.as_ref().map(|standing| &standing.circuit)
    }

    /// What its number of requests at a time learns from, where it follows their answers.
    fn adaptive(&self) -> Option<&Arc<Standing>> {
        self.policy.as_ref()?.concurrency?;
        self.standing.as_ref()
    }

    /// A place among its connections, for who cannot wait.
    ///
    /// # Errors
    /// All are taken.
    pub(crate) fn connection(&self) -> Result<Option<Permit>, Overflow> {
        let (Some(circuit), Some(limits)) = (self.circuit(), self.limits()) else {
            return Ok(None);
        };
        circuit.take(Resource::Connections, limits.connections).map(Some)
    }

    /// A place among the requests that are sent again, by `retryBudget` or else `maxRetries`.
    ///
    /// # Errors
    /// All are taken.
    pub(crate) fn repetition(&self) -> Result<Option<Permit>, Overflow> {
        let (Some(circuit), Some(limits)) = (self.circuit(), self.limits()) else {
            return Ok(None);
        };
        let limit = match limits.retry_budget {
            None => limits.retries,
            Some(budget) => {
                let active = circuit.used(Resource::Requests) + circuit.used(Resource::Pending);
                // Envoy: of what is active now, or the least, whichever is more.
                let share = (budget.share.as_f64() * f64::from(active)) as u32;
                Some(share.max(budget.least))
            }
        };
        circuit.take(Resource::Retries, limit).map(Some)
    }

    /// Where it stands, if its connections are limited.
    pub(crate) fn limits_connections(&self) -> Option<&Arc<Standing>> {
        self.limits()?.connections?;
        self.standing.as_ref()
    }

    /// Whether new endpoints grow to their share as the rule says.
    fn warms(&self) -> bool {
        let balancer = self.policy.as_ref().map(|policy| &policy.balancer);
        matches!(balancer, Some(Balancer::RoundRobin(Some(_)) | Balancer::LeastRequest(Some(_))))
    }

    fn outliers(&self) -> Option<(&Standing, &OutlierDetection)> {
        let config = self.policy.as_ref()?.outliers.as_ref()?;
        Some((self.standing.as_ref()?, config))
    }

    fn watched(&self, endpoint: &Endpoint) -> Option<&Watched> {
        let at = self.endpoints.iter().position(|one| one.address == endpoint.address)?;
        self.hosts.get(at)
    }
}

/// What an endpoint is known by. A pod of two families is one, addresses behind a name are several.
fn name(endpoint: &Endpoint) -> Uid {
    let Endpoint { workload, address, .. } = endpoint;
    match &workload.hostname {
        Some(_) => Uid(format!("{}/{}", workload.uid, address.ip()).into()),
        None => workload.uid.clone(),
    }
}
