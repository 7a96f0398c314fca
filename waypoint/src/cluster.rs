//! One port of a service, as requests meet it: its endpoints, what its `DestinationRule` allows, and
//! who is left out.
//!
//! Invariants: made once per change of the mesh and worker; what several workers must agree on is in
//! [`Standing`] and outlives it; without a rule nothing is shared and nothing is counted.
//! Not here: connections (`upstream`), when to try again (`request::attempt`).
//! Source: spec L7 §3.3 to §3.5, §3.10.

mod circuit;
mod order;
mod outliers;
mod standing;
mod work;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use shared::balance::Loads;
use shared::mesh::{Limits, Mesh, OutlierDetection, Service, TrafficPolicy, Uid};

pub use self::circuit::{Circuit, Overflow, Permit, Resource};
pub(crate) use self::order::Wish;
pub use self::outliers::{Host, Outliers, Reason, Report, State, Verdict};
pub use self::standing::{Standing, Standings};
pub(crate) use self::work::Work;
use crate::upstream::Endpoint;

/// A port of a service, or a workload that was asked for by its address.
pub(crate) struct Cluster {
    endpoints: Box<[Endpoint]>,
    policy: Option<Arc<TrafficPolicy>>,
    standing: Option<Arc<Standing>>,
    /// As the endpoints, where outliers are looked for.
    hosts: Box<[Watched]>,
    loads: Loads,
}

/// An endpoint that may be left out.
struct Watched {
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
            loads: loads.clone(),
        })
    }

    /// The endpoints of a port of `service`, under its rule.
    pub(crate) fn new(
        mesh: &Mesh,
        (service, port): (&Service, u16),
        endpoints: Box<[Endpoint]>,
        standings: &Standings,
        loads: &Loads,
    ) -> Rc<Self> {
        let policy = service.policy(port).cloned();
        let standing = policy.as_ref().map(|_| standings.of(&service.key, port));
        let watches = policy.as_ref().is_some_and(|policy| policy.outliers.is_some());
        let hosts = standing.iter().filter(|_| watches).flat_map(|standing| {
            let uids = endpoints.iter().map(|endpoint| &endpoint.workload.uid);
            standing.outliers.hosts(mesh.generation(), uids)
        });
        let hosts = hosts.map(|host| Watched { host, was_out: Cell::new(false) }).collect();
        Rc::new(Self { endpoints, policy, standing, hosts, loads: loads.clone() })
    }

    /// Who could answer.
    pub(crate) fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// What its rule allows.
    pub(crate) fn limits(&self) -> Option<&Limits> {
        self.policy.as_ref().map(|policy| &policy.limits)
    }

    /// How much of it is in use, where there is a rule.
    pub(crate) fn circuit(&self) -> Option<&Arc<Circuit>> {
        self.standing.as_ref().map(|standing| &standing.circuit)
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

    /// Where it stands, if its connections are limited.
    pub(crate) fn limits_connections(&self) -> Option<&Arc<Standing>> {
        self.limits()?.connections?;
        self.standing.as_ref()
    }

    fn outliers(&self) -> Option<(&Standing, &OutlierDetection)> {
        let config = self.policy.as_ref()?.outliers.as_ref()?;
        Some((self.standing.as_ref()?, config))
    }

    fn watched(&self, uid: &Uid) -> Option<&Watched> {
        let at = self.endpoints.iter().position(|one| one.workload.uid == *uid)?;
        self.hosts.get(at)
    }
}
