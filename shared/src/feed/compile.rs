//! Objects in, the workloads, services, policies and routes that they mean out.
//!
//! Invariants: pure; the same objects give the same picture in whatever order they come; where two
//! objects want the same name or address, one of them gets it and the other a verdict.

mod backend_tls;
mod destinations;
mod entries;
mod pods;
mod policies;
mod retries;
mod routes;
mod services;
mod world;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::authz::{Policy, PolicyKey};
use crate::feed::intern::Interner;
use crate::feed::local::LocalPod;
use crate::feed::object::Object;
use crate::feed::verdict::Verdict;
use crate::identity::TrustDomain;
use crate::mesh::{Change, Gateway, Mesh, Route, RouteKey, Service, ServiceKey, Uid, Workload};

/// What the objects do not say about themselves.
#[derive(Debug, Clone)]
pub struct Options {
    /// Trust domain of all identities. `cluster.local`.
    pub trust_domain: TrustDomain,
    /// Cluster id of all workloads. `Kubernetes`.
    pub cluster_id: Arc<str>,
    /// Network of whatever names none. Empty.
    pub network: Arc<str>,
    /// Domain of service names, after `svc.`. `cluster.local`.
    pub cluster_domain: Arc<str>,
    /// Namespace whose policies apply to the whole mesh. `istio-system`.
    pub root_namespace: Arc<str>,
    /// The node whose pods are served here; without one there are no local pods.
    pub node: Option<Arc<str>>,
    /// A pod (namespace, name) that is served here wherever it runs: dedicated mode.
    pub pod: Option<(Arc<str>, Arc<str>)>,
    /// A waypoint (namespace, name) whose instances are served here: pods labelled
    /// `gateway.networking.k8s.io/gateway-name`.
    pub gateway: Option<(Arc<str>, Arc<str>)>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            trust_domain: TrustDomain::default(),
            cluster_id: "Kubernetes".into(),
            network: "".into(),
            cluster_domain: "cluster.local".into(),
            root_namespace: "istio-system".into(),
            node: None,
            pod: None,
            gateway: None,
        }
    }
}

/// The picture that a set of objects means.
#[derive(Debug, Clone, Default)]
pub struct Compiled {
    /// Workloads by id.
    pub workloads: BTreeMap<Uid, Arc<Workload>>,
    /// Services by key.
    pub services: BTreeMap<ServiceKey, Arc<Service>>,
    /// Policies by key.
    pub policies: BTreeMap<PolicyKey, Arc<Policy>>,
    /// Routes by key.
    pub routes: BTreeMap<RouteKey, Arc<Route>>,
    /// Gateways of waypoints.
    pub gateways: Vec<Arc<Gateway>>,
    /// Pods of this node, by namespace and name.
    pub local_pods: Vec<LocalPod>,
    /// What is not in force, and what is remarkable.
    pub verdicts: Vec<Verdict>,
}

impl Compiled {
    /// The least changes that turn `mesh` into this picture.
    pub fn changes(&self, mesh: &Mesh) -> Vec<Change> {
        let mut changes = Vec::new();
        let policies = self.policies.values().filter(|new| mesh.policy(&new.key) != Some(*new));
        changes.extend(policies.cloned().map(Change::Policy));
        let services = self.services.values().filter(|new| mesh.service(&new.key) != Some(*new));
        changes.extend(services.cloned().map(Change::Service));
        let workloads = self.workloads.values().filter(|new| mesh.workload(&new.uid) != Some(*new));
        changes.extend(workloads.cloned().map(Change::Workload));
        let routes = self.routes.values().filter(|new| mesh.route(&new.key) != Some(*new));
        changes.extend(routes.cloned().map(Change::Route));
        let gone = mesh.workloads().filter(|old| !self.workloads.contains_key(&old.uid));
        changes.extend(gone.map(|old| Change::RemoveWorkload(old.uid.clone())));
        let gone = mesh.services().filter(|old| !self.services.contains_key(&old.key));
        changes.extend(gone.map(|old| Change::RemoveService(old.key.clone())));
        let gone = mesh.policies().filter(|old| !self.policies.contains_key(&old.key));
        changes.extend(gone.map(|old| Change::RemovePolicy(old.key.clone())));
        let gone = mesh.routes().filter(|old| !self.routes.contains_key(&old.key));
        changes.extend(gone.map(|old| Change::RemoveRoute(old.key.clone())));
        let gateways = self.gateways.iter().filter(|new| mesh.gateway(&new.key) != Some(*new));
        changes.extend(gateways.cloned().map(Change::Gateway));
        let is_there = |old: &Gateway| self.gateways.iter().any(|new| new.key == old.key);
        let gone = mesh.gateways().filter(|old| !is_there(old));
        changes.extend(gone.map(|old| Change::RemoveGateway(old.key.clone())));
        changes
    }
}

/// Compiles `objects`, of which no two may have the same key.
pub(crate) fn compile(
    objects: &[Arc<Object>],
    options: &Options,
    intern: &mut Interner,
) -> Compiled {
    let mut ordered: Vec<&Object> = objects.iter().map(|object| &**object).collect();
    ordered.sort_unstable_by(|one, other| one.key.cmp(&other.key));
    let mut world = world::World::new(&ordered, options, intern);
    let mut compiled = Compiled::default();
    world.check_namespaces();
    compiled.gateways = world.gateways();
    policies::compile(&mut world, &mut compiled);
    services::compile(&mut world, &mut compiled);
    entries::compile(&mut world, &mut compiled);
    destinations::compile(&mut world, &mut compiled);
    policies::attach(&mut world, &mut compiled);
    retries::compile(&mut world, &mut compiled);
    backend_tls::compile(&mut world, &mut compiled);
    routes::compile(&mut world, &mut compiled);
    pods::compile(&mut world, &mut compiled);
    compiled.verdicts.append(&mut world.verdicts);
    compiled
}

#[cfg(test)]
mod tests;
