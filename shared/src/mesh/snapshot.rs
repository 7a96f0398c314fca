//! One immutable picture of the mesh, and how things are found in it.
//!
//! Invariants: every index holds exactly what the workloads, services, policies and routes of this
//! snapshot imply (a property test rebuilds them from scratch). Lookups allocate nothing.
//! Where the reference leaves a tie to chance, the smaller key wins, so that all nodes agree.
//! Source: Istio ztunnel `state`, spec L4 §3.3 and §5.5.

use std::cmp::Ordering;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::authz::{Policy, PolicyKey};
use crate::mesh::chunks::Chunks;
use crate::mesh::policy::AtTarget;
use crate::mesh::route::AtParent;
use crate::mesh::{
    Gateway, Health, HealthPolicy, NetworkMode, PortMap, Protocol, Route, Service, ServiceKey, Uid,
    Visibility, Workload,
};

/// An immutable picture of the mesh. Cloning copies a dozen pointers.
#[derive(Debug, Clone, Default)]
pub struct Mesh {
    pub(super) generation: u64,
    pub(super) policy_generation: u64,
    pub(super) workloads: Chunks<Arc<Workload>>,
    pub(super) by_address: Chunks<AtAddress>,
    pub(super) by_name: Chunks<Arc<Workload>>,
    pub(super) by_hostname: Chunks<Arc<Workload>>,
    pub(super) endpoints: Chunks<Endpoint>,
    pub(super) services: Chunks<Arc<Service>>,
    pub(super) by_vip: Chunks<AtVip>,
    pub(super) by_range: Chunks<InRange>,
    pub(super) policies: Chunks<Arc<Policy>>,
    pub(super) wide_policies: Chunks<Arc<Policy>>,
    pub(super) by_target: Chunks<AtTarget>,
    pub(super) routes: Chunks<Arc<Route>>,
    pub(super) by_parent: Chunks<AtParent>,
    pub(super) gateways: Chunks<Arc<Gateway>>,
}

/// A workload under one of its addresses.
#[derive(Debug, Clone)]
pub(super) struct AtAddress {
    pub(super) address: IpAddr,
    pub(super) workload: Arc<Workload>,
}

/// A workload under one of its services, which may not be known yet.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    /// Index into [`Workload::services`].
    pub(super) service: u32,
    pub(super) workload: Arc<Workload>,
}

/// A service under one of its virtual addresses.
#[derive(Debug, Clone)]
pub(super) struct AtVip {
    pub(super) network: Arc<str>,
    pub(super) address: IpAddr,
    pub(super) service: Arc<Service>,
}

/// A service under one of its virtual address ranges.
#[derive(Debug, Clone)]
pub(super) struct InRange {
    pub(super) network: Arc<str>,
    pub(super) range: IpNet,
    pub(super) service: Arc<Service>,
}

/// A policy that applies to a workload.
#[derive(Debug, Clone, Copy)]
pub enum Applied<'a> {
    /// Known.
    Policy(&'a Arc<Policy>),
    /// The workload lists it, but it is not in the mesh (yet). Decisions fail closed.
    Missing(&'a PolicyKey),
}

impl Endpoint {
    /// The service, and the workload's ports for it.
    pub(super) fn entry(&self) -> &(ServiceKey, PortMap) {
        &self.workload.services[self.service as usize]
    }
}

impl Mesh {
    /// Counts publishes; a higher one is later.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Counts the publishes that can change a decision of `authz` or the need for a waypoint.
    pub fn policy_generation(&self) -> u64 {
        self.policy_generation
    }

    /// The workload with this id.
    pub fn workload(&self, uid: &Uid) -> Option<&Arc<Workload>> {
        self.workloads.find(|row| row.uid.cmp(uid))
    }

    /// The best workload at an address. Workloads on the host's network are never found so.
    pub fn workload_by_addr(&self, network: &str, address: IpAddr) -> Option<&Arc<Workload>> {
        let address = address.to_canonical();
        self.by_address
            .range(move |row| by_address(row, address, network))
            .map(|row| &row.workload)
            .reduce(|best, row| if address_rank(row) > address_rank(best) { row } else { best })
    }

    /// The workload of this namespace and name; a pod before anything else.
    pub fn workload_local(&self, namespace: &str, name: &str) -> Option<&Arc<Workload>> {
        self.by_name
            .range(move |row| (row.namespace(), &*row.name).cmp(&(namespace, name)))
            .reduce(|best, row| if is_pod(row) && !is_pod(best) { row } else { best })
    }

    /// The workload of this namespace that is addressed by host name.
    pub fn workload_by_hostname(&self, namespace: &str, hostname: &str) -> Option<&Arc<Workload>> {
        self.by_hostname
            .range(move |row| row.hostname.as_deref().cmp(&Some(hostname)))
            .find(|row| row.namespace() == namespace)
    }

    /// The workloads that are addressed by host name, in the order of their names.
    pub fn named_workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.by_hostname.iter()
    }

    /// The service with this key, whoever asks.
    pub fn service(&self, key: &ServiceKey) -> Option<&Arc<Service>> {
        self.services.find(|row| by_service(&row.key, key))
    }

    /// The service at a virtual address, as a client in `client` sees it; without a client,
    /// visibility is not looked at. Exact addresses come before ranges.
    pub fn service_by_vip(
        &self,
        network: &str,
        address: IpAddr,
        client: Option<&str>,
    ) -> Option<&Arc<Service>> {
        let address = address.to_canonical();
        let exact = self
            .by_vip
            .range(move |row| (row.address, &*row.network).cmp(&(address, network)))
            .map(|row| &row.service);
        preferred(exact, client).or_else(|| self.service_by_range(network, address, client))
    }

    /// Best by (same namespace, prefix length, canonical): as coded upstream, a service of the
    /// client's own namespace beats a longer prefix.
    fn service_by_range(
        &self,
        network: &str,
        address: IpAddr,
        client: Option<&str>,
    ) -> Option<&Arc<Service>> {
        let rank = |row: &InRange| {
            let own = client == Some(&*row.service.key.namespace);
            (own, row.range.prefix_len(), row.service.canonical)
        };
        self.by_range
            .range(move |row| (*row.network).cmp(network))
            .filter(|row| row.range.contains(&address) && is_visible(&row.service, client))
            .reduce(|best, row| if rank(row) > rank(best) { row } else { best })
            .map(|row| &row.service)
    }

    /// The service with this host name, as a client in `client` sees it.
    pub fn service_by_hostname(
        &self,
        hostname: &str,
        client: Option<&str>,
    ) -> Option<&Arc<Service>> {
        preferred(self.services.range(move |row| (*row.key.hostname).cmp(hostname)), client)
    }

    /// The endpoints of a service that its health policy lets through, each with its own ports.
    /// None while the service itself is unknown.
    pub fn endpoints<'a>(
        &'a self,
        key: &'a ServiceKey,
    ) -> impl Iterator<Item = (&'a Arc<Workload>, &'a PortMap)> {
        let health = self.service(key).map(|service| service.health_policy);
        self.endpoints
            .range(move |row| by_service(&row.entry().0, key))
            .filter(move |row| match health {
                Some(HealthPolicy::AllowAll) => true,
                Some(HealthPolicy::OnlyHealthy) => row.workload.health == Health::Healthy,
                None => false,
            })
            .map(|row| (&row.workload, &row.entry().1))
    }

    /// The known services that `workload` is an endpoint of.
    pub fn services_of<'a>(
        &'a self,
        workload: &'a Workload,
    ) -> impl Iterator<Item = &'a Arc<Service>> {
        workload.services.iter().filter_map(|(key, _)| self.service(key))
    }

    /// The policy with this key.
    pub fn policy(&self, key: &PolicyKey) -> Option<&Arc<Policy>> {
        self.policies.find(|row| row.key.cmp(key))
    }

    /// All policies that apply to `workload`: of the whole mesh, of its namespace, and those it
    /// lists, among them the ones that are not known.
    pub fn policies_for<'a>(&'a self, workload: &'a Workload) -> impl Iterator<Item = Applied<'a>> {
        let namespace = workload.namespace();
        let global = self.wide_policies.range(|row| wide_order(row).cmp(&None));
        let own = self.wide_policies.range(move |row| wide_order(row).cmp(&Some(namespace)));
        let listed = workload
            .policies
            .iter()
            .map(|key| self.policy(key).map_or(Applied::Missing(key), Applied::Policy));
        global.chain(own).map(Applied::Policy).chain(listed)
    }

    /// All workloads, by id.
    pub fn workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.workloads.iter()
    }

    /// All services, by host name and namespace.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.iter()
    }

    /// All policies, by namespace and name.
    pub fn policies(&self) -> impl Iterator<Item = &Arc<Policy>> {
        self.policies.iter()
    }

    /// How many workloads, services and policies there are.
    pub fn counts(&self) -> (usize, usize, usize) {
        (self.workloads.len(), self.services.len(), self.policies.len())
    }
}

/// Of several candidates that the client may see: its own namespace's, else a canonical one, else
/// the first.
fn preferred<'a>(
    candidates: impl Iterator<Item = &'a Arc<Service>>,
    client: Option<&str>,
) -> Option<&'a Arc<Service>> {
    let rank = |service: &Service| (client == Some(&*service.key.namespace), service.canonical);
    candidates
        .filter(|service| is_visible(service, client))
        .reduce(|best, row| if rank(row) > rank(best) { row } else { best })
}

fn is_visible(service: &Service, client: Option<&str>) -> bool {
    match service.visibility {
        Visibility::Public => true,
        Visibility::Namespace => client.is_none_or(|client| client == &*service.key.namespace),
    }
}

/// Istio ztunnel: a pod in the mesh (3), another pod (2), anything else in the mesh (1), the rest.
fn address_rank(workload: &Workload) -> u8 {
    2 * u8::from(is_pod(workload)) + u8::from(workload.protocol == Protocol::Hbone)
}

fn is_pod(workload: &Workload) -> bool {
    workload.uid.0.contains("//Pod/")
}

pub(super) fn is_addressable(workload: &Workload) -> bool {
    workload.network_mode == NetworkMode::Standard
}

pub(super) fn by_address(row: &AtAddress, address: IpAddr, network: &str) -> Ordering {
    row.address.cmp(&address).then_with(|| (*row.workload.network).cmp(network))
}

/// Services are in order of host name, so that those of one host name are adjacent.
pub(super) fn by_service(row: &ServiceKey, key: &ServiceKey) -> Ordering {
    (&row.hostname, &row.namespace).cmp(&(&key.hostname, &key.namespace))
}

/// Policies of the whole mesh first, then by namespace.
pub(super) fn wide_order(policy: &Policy) -> Option<&str> {
    match policy.scope {
        crate::authz::Scope::Global => None,
        _ => Some(&policy.key.namespace),
    }
}
