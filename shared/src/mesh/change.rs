//! Folding changes into a snapshot, index by index.
//!
//! Invariants: after any sequence of changes the indexes are those of a snapshot built from scratch.

use std::net::IpAddr;
use std::sync::Arc;

use crate::authz::{GatewayKey, Policy, PolicyKey};
use crate::mesh::snapshot::{
    AtAddress, AtVip, Endpoint, InRange, by_address, by_service, is_addressable,
};
use crate::mesh::{Gateway, Mesh, Route, RouteKey, Service, ServiceKey, Uid, Workload};

/// One difference between two pictures of the mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A workload is there or is different.
    Workload(Arc<Workload>),
    /// A workload is gone.
    RemoveWorkload(Uid),
    /// A service is there or is different.
    Service(Arc<Service>),
    /// A service is gone. Its endpoints stay staged, should it return.
    RemoveService(ServiceKey),
    /// A policy is there or is different.
    Policy(Arc<Policy>),
    /// A policy is gone.
    RemovePolicy(PolicyKey),
    /// A route is there or is different.
    Route(Arc<Route>),
    /// A route is gone.
    RemoveRoute(RouteKey),
    /// A Gateway is there or is different.
    Gateway(Arc<Gateway>),
    /// A Gateway is gone.
    RemoveGateway(GatewayKey),
}

impl From<Workload> for Change {
    fn from(workload: Workload) -> Self {
        Self::Workload(Arc::new(workload))
    }
}

impl From<Service> for Change {
    fn from(service: Service) -> Self {
        Self::Service(Arc::new(service))
    }
}

impl From<Policy> for Change {
    fn from(policy: Policy) -> Self {
        Self::Policy(Arc::new(policy))
    }
}

impl From<Route> for Change {
    fn from(route: Route) -> Self {
        Self::Route(Arc::new(route))
    }
}

/// What a change did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Effect {
    /// Nothing: it was so already.
    Nothing,
    /// Something that no decision about open connections depends on.
    Picture,
    /// Something that open connections must be decided again for.
    Decisions,
}

impl Mesh {
    pub(super) fn fold(&mut self, change: Change) -> Effect {
        match change {
            Change::Workload(workload) => self.put_workload(workload),
            Change::RemoveWorkload(uid) => match self.take_workload(&uid) {
                Some(_) => Effect::Picture,
                None => Effect::Nothing,
            },
            Change::Service(service) => self.put_service(service),
            Change::RemoveService(key) => match self.take_service(&key) {
                Some(_) => Effect::Picture,
                None => Effect::Nothing,
            },
            Change::Policy(policy) => self.put_policy(policy),
            Change::RemovePolicy(key) => match self.take_policy(&key) {
                Some(_) => Effect::Decisions,
                None => Effect::Nothing,
            },
            Change::Route(route) => self.put_route(route),
            Change::RemoveRoute(key) => match self.take_route(&key) {
                Some(_) => Effect::Picture,
                None => Effect::Nothing,
            },
            Change::Gateway(gateway) => self.put_gateway(gateway),
            Change::RemoveGateway(key) => self.take_gateway(&key),
        }
    }

    fn put_workload(&mut self, workload: Arc<Workload>) -> Effect {
        if self.workload(&workload.uid) == Some(&workload) {
            return Effect::Nothing;
        }
        let effect = match self.take_workload(&workload.uid) {
            Some(old) if is_decided_alike(&old, &workload) => Effect::Picture,
            Some(_) => Effect::Decisions,
            None => Effect::Picture,
        };
        if is_addressable(&workload) {
            for address in workload.addresses.iter().map(IpAddr::to_canonical) {
                let row = AtAddress { address, workload: workload.clone() };
                self.by_address.insert(row, |row| {
                    by_address(row, address, &workload.network)
                        .then_with(|| row.workload.uid.cmp(&workload.uid))
                });
            }
        }
        for (service, (key, _)) in (0..).zip(&workload.services) {
            let row = Endpoint { service, workload: workload.clone() };
            self.endpoints.insert(row, |row| {
                by_service(&row.entry().0, key).then_with(|| row.workload.uid.cmp(&workload.uid))
            });
        }
        self.by_name.insert(workload.clone(), |row| named(row).cmp(&named(&workload)));
        if workload.hostname.is_some() {
            self.by_hostname.insert(workload.clone(), |row| hosted(row).cmp(&hosted(&workload)));
        }
        self.workloads.insert(workload.clone(), |row| row.uid.cmp(&workload.uid));
        effect
    }

    fn take_workload(&mut self, uid: &Uid) -> Option<Arc<Workload>> {
        let old = self.workloads.remove(|row| row.uid.cmp(uid))?;
        if is_addressable(&old) {
            for address in old.addresses.iter().map(IpAddr::to_canonical) {
                self.by_address.remove(|row| {
                    by_address(row, address, &old.network).then_with(|| row.workload.uid.cmp(uid))
                });
            }
        }
        for (key, _) in &old.services {
            self.endpoints.remove(|row| {
                by_service(&row.entry().0, key).then_with(|| row.workload.uid.cmp(uid))
            });
        }
        self.by_name.remove(|row| named(row).cmp(&named(&old)));
        if old.hostname.is_some() {
            self.by_hostname.remove(|row| hosted(row).cmp(&hosted(&old)));
        }
        Some(old)
    }

    fn put_service(&mut self, service: Arc<Service>) -> Effect {
        if self.service(&service.key) == Some(&service) {
            return Effect::Nothing;
        }
        self.take_service(&service.key);
        for vip in &service.vips {
            let (network, address) = (vip.network.clone(), vip.address.to_canonical());
            let row = AtVip { network, address, service: service.clone() };
            self.by_vip.insert(row.clone(), |other| vip_order(other).cmp(&vip_order(&row)));
        }
        for (network, range) in &service.cidr_vips {
            let (network, range) = (network.clone(), range.trunc());
            let row = InRange { network, range, service: service.clone() };
            self.by_range.insert(row.clone(), |other| range_order(other).cmp(&range_order(&row)));
        }
        self.services.insert(service.clone(), |row| by_service(&row.key, &service.key));
        Effect::Picture
    }

    fn take_service(&mut self, key: &ServiceKey) -> Option<Arc<Service>> {
        let old = self.services.remove(|row| by_service(&row.key, key))?;
        for vip in &old.vips {
            let (network, address) = (vip.network.clone(), vip.address.to_canonical());
            let row = AtVip { network, address, service: old.clone() };
            self.by_vip.remove(|other| vip_order(other).cmp(&vip_order(&row)));
        }
        for (network, range) in &old.cidr_vips {
            let (network, range) = (network.clone(), range.trunc());
            let row = InRange { network, range, service: old.clone() };
            self.by_range.remove(|other| range_order(other).cmp(&range_order(&row)));
        }
        Some(old)
    }
}

/// Whether every decision about connections to the workload stays as it was.
fn is_decided_alike(old: &Workload, new: &Workload) -> bool {
    old.policies == new.policies
        && old.require_waypoint == new.require_waypoint
        && old.waypoint == new.waypoint
        && old.identity == new.identity
}

fn named(workload: &Workload) -> (&str, &str, &Uid) {
    (workload.namespace(), &workload.name, &workload.uid)
}

fn hosted(workload: &Workload) -> (Option<&str>, &Uid) {
    (workload.hostname.as_deref(), &workload.uid)
}

fn vip_order(row: &AtVip) -> (IpAddr, &str, &str, &str) {
    let key = &row.service.key;
    (row.address, &row.network, &key.namespace, &key.hostname)
}

fn range_order(row: &InRange) -> (&str, ipnet::IpNet, &str, &str) {
    let key = &row.service.key;
    (&row.network, row.range, &key.namespace, &key.hostname)
}
