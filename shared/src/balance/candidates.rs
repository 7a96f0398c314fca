//! Which endpoints of a service may be chosen for one connection.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use crate::balance::preferred;
use crate::mesh::{AppTunnel, IpFamilies, Mesh, PortMap, Service, Workload};

/// A workload that can be tried.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// The workload.
    pub workload: &'a Arc<Workload>,
    /// The port of it that is meant.
    pub port: u16,
}

impl<'a> Candidate<'a> {
    /// The workload, on this port.
    pub fn new(workload: &'a Arc<Workload>, port: u16) -> Self {
        Self { workload, port }
    }
}

/// What the endpoints are wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// Their application, on a port of the service.
    Service,
    /// The same, of those that have all of these labels.
    Subset(&'a [(Arc<str>, Arc<str>)]),
    /// Ending HBONE, on the port that the configuration names.
    Waypoint,
}

/// The endpoints that `source` may use, after port, reachability, locality mode and weight.
/// Health was applied by the mesh (spec L4 §3.4).
pub fn candidates<'a>(
    mesh: &'a Mesh,
    source: &Workload,
    service: &'a Service,
    wanted: Wanted<'_>,
    port: u16,
) -> Vec<Candidate<'a>> {
    let usable = mesh.endpoints(&service.key).filter_map(|(workload, ports)| {
        if matches!(wanted, Wanted::Subset(labels) if !workload.has_labels(labels)) {
            return None;
        }
        let port = target_port(service, workload, ports, wanted, port)?;
        (workload.capacity > 0 && is_reachable(source, service, workload))
            .then_some(Candidate { workload, port })
    });
    preferred(service.balancing.as_ref(), source, usable.collect(), |one| one.workload)
}

/// The endpoint's own port, else the service's target port, else the requested port where an
/// application tunnel takes every port anyway.
fn target_port(
    service: &Service,
    workload: &Workload,
    ports: &PortMap,
    wanted: Wanted<'_>,
    port: u16,
) -> Option<u16> {
    let tunnelled = matches!(workload.app_tunnel, Some(AppTunnel { port: Some(_), .. }));
    let known = service.ports.iter().find(|known| known.port == port);
    if known.is_none() && !(tunnelled && wanted == Wanted::Waypoint) {
        return None;
    }
    let own = ports.iter().find(|(from, _)| *from == port).map(|(_, to)| *to);
    own.or_else(|| known.and_then(|known| known.target_port))
        .or_else(|| tunnelled.then_some(port))
        .filter(|port| *port > 0)
}

/// Istio ztunnel leaves an endpoint in the choice that is on another network without a gateway; the
/// connection then fails whenever it is chosen. Here it is no candidate.
fn is_reachable(source: &Workload, service: &Service, workload: &Workload) -> bool {
    if workload.network == source.network {
        let any = Ipv4Addr::UNSPECIFIED.into();
        host(workload, any, service.ip_families).is_some()
    } else {
        workload.network_gateway.is_some()
    }
}

/// Where a workload is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// Known.
    Ip(IpAddr),
    /// Missing: the caller asks DNS and takes an address, of the given family where there is one.
    Name(Arc<str>),
}

/// The address that was asked for if it is the workload's, else the first that the service allows,
/// of the family that was asked for where there is one; else its name.
pub fn host(workload: &Workload, asked: IpAddr, families: IpFamilies) -> Option<Host> {
    let asked = asked.to_canonical();
    if workload.addresses.contains(&asked) {
        return Some(Host::Ip(asked));
    }
    let allowed = |address: &&IpAddr| match families {
        IpFamilies::Automatic | IpFamilies::Dual => true,
        IpFamilies::IPv4 => address.is_ipv4(),
        IpFamilies::IPv6 => address.is_ipv6(),
    };
    let addresses = || workload.addresses.iter().filter(allowed);
    addresses()
        .find(|address| address.is_ipv4() == asked.is_ipv4())
        .or_else(|| addresses().next())
        .map(|address| Host::Ip(*address))
        .or_else(|| workload.hostname.clone().map(Host::Name))
}
