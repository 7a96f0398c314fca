//! The next hop towards one candidate: what to dial, who must answer, and what to ask it for.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use shared::balance::{Candidate, Host, Wanted, host};
use shared::identity::SpiffeId;
use shared::mesh::{IpFamilies, Mesh, Protocol, Service, Workload};

use crate::outbound::resolve::{
    Endpoints, GatewayName, Kind, OWN_PORTS, Query, Trouble, Unroutable, gateway, is_waypoint_of,
};

/// The port of every ztunnel and waypoint for tunnels.
const HBONE_PORT: u16 = OWN_PORTS[2];

/// What to dial for a candidate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hop {
    /// Plain TCP to a workload outside the mesh.
    Tcp(Target),
    /// A tunnel.
    Tunnel(Tunnel),
}

impl Hop {
    /// Whether the other end is the proxy of the endpoint itself.
    pub fn ends_at_endpoint(&self) -> bool {
        matches!(self, Self::Tunnel(Tunnel { to_waypoint: false, inner: None, .. }))
    }
}

/// A tunnel to dial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    /// Its listener.
    pub to: Target,
    /// Who may answer, in order; never empty.
    pub expected: Vec<SpiffeId>,
    /// What it is asked for.
    pub authority: Authority,
    /// Whether it leads to a waypoint, which speaks HTTP on the inside.
    pub to_waypoint: bool,
    /// The tunnel within, through a gateway to another network.
    pub inner: Option<Inner>,
}

/// The tunnel within a tunnel: it ends at a destination that only the gateway knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inner {
    /// Who may answer: the identities of the service, since the workload is not known here.
    pub expected: Vec<SpiffeId>,
}

/// An address to dial.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// Where.
    pub host: Host,
    /// Which port.
    pub port: u16,
}

/// The `:authority` of a tunnel request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authority {
    /// An address within the network.
    Address(SocketAddr),
    /// A service, for a gateway to choose an endpoint.
    Host(Arc<str>, u16),
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Host(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(ip) => write!(f, "{}", SocketAddr::new(*ip, self.port)),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

impl<'a> Endpoints<'a> {
    /// The hop towards `candidate`, one of this route's.
    ///
    /// # Errors
    /// [`Unroutable`] when the candidate is on another network and cannot be reached there.
    pub fn hop(
        &self,
        mesh: &'a Mesh,
        query: &Query<'_>,
        candidate: &Candidate<'a>,
    ) -> Result<Hop, Unroutable> {
        if candidate.workload.network != query.source.network {
            return self.across(mesh, query, candidate.workload).map(Hop::Tunnel);
        }
        match self.kind {
            Kind::Waypoint { service } => {
                let to = self.target(candidate, service, candidate.port)?;
                let authority = Authority::Address(self.destination);
                let tunnel = tunnel(to, service, candidate.workload, authority);
                Ok(Hop::Tunnel(Tunnel { to_waypoint: true, ..tunnel }))
            }
            Kind::Direct => self.direct(mesh, query, candidate),
        }
    }

    fn direct(
        &self,
        mesh: &'a Mesh,
        query: &Query<'_>,
        candidate: &Candidate<'a>,
    ) -> Result<Hop, Unroutable> {
        let workload = candidate.workload;
        let application = self.target(candidate, self.service, candidate.port)?;
        match (workload.protocol, &application.host) {
            (Protocol::Tcp, _) => Ok(Hop::Tcp(application)),
            // A tunnel is asked for an address.
            (Protocol::Hbone, Host::Name(_)) => Err(Unroutable::NoAddress(workload.uid.clone())),
            (Protocol::Hbone, Host::Ip(ip)) => {
                let authority = Authority::Address(SocketAddr::new(*ip, candidate.port));
                if let Some(tunnel) = required_waypoint(mesh, query, workload, &authority)? {
                    return Ok(Hop::Tunnel(tunnel));
                }
                let to = Target { host: application.host, port: HBONE_PORT };
                Ok(Hop::Tunnel(tunnel(to, self.service, workload, authority)))
            }
        }
    }

    /// Through the gateway of the candidate's network, to the service by its name.
    fn across(
        &self,
        mesh: &'a Mesh,
        query: &Query<'_>,
        remote: &Workload,
    ) -> Result<Tunnel, Unroutable> {
        let service = self.service.ok_or(Unroutable::NoService(self.destination))?;
        let configured = remote
            .network_gateway
            .as_ref()
            .ok_or_else(|| Unroutable::NoGateway(remote.uid.clone()))?;
        let fail = |trouble| Unroutable::Gateway(GatewayName((**configured).clone()), trouble);
        let none = || fail(Trouble::NoInstance);
        let found = gateway::find(mesh, query.source, configured, Wanted::Service)
            .ok_or_else(|| fail(Trouble::Unknown))?;
        let here = |one: &&Candidate<'_>| one.workload.network == query.source.network;
        let near: Vec<_> = found.candidates.iter().filter(here).collect();
        let gateway = drawn(&near, query.draw).ok_or_else(none)?;
        let to = self.target(gateway, found.service, gateway.port)?;
        let authority = Authority::Host(service.key.hostname.clone(), self.destination.port());
        let inner = Inner { expected: service.subject_alt_names.to_vec() };
        let outer = tunnel(to, found.service, gateway.workload, authority);
        Ok(Tunnel { inner: Some(inner), ..outer })
    }

    fn target(
        &self,
        candidate: &Candidate<'_>,
        service: Option<&Arc<Service>>,
        port: u16,
    ) -> Result<Target, Unroutable> {
        let families = service.map_or(IpFamilies::Automatic, |service| service.ip_families);
        host(candidate.workload, self.destination.ip(), families)
            .map(|host| Target { host, port })
            .ok_or_else(|| Unroutable::NoAddress(candidate.workload.uid.clone()))
    }
}

/// A workload that accepts only its own waypoint is reached through it also when it was chosen as
/// an endpoint of a service without one. (Istio ztunnel goes straight, because there nothing
/// enforces the waypoint at the destination; here the destination would refuse.)
fn required_waypoint(
    mesh: &Mesh,
    query: &Query<'_>,
    workload: &Workload,
    authority: &Authority,
) -> Result<Option<Tunnel>, Unroutable> {
    let Some(waypoint) = workload.waypoint.as_ref().filter(|_| workload.require_waypoint) else {
        return Ok(None);
    };
    if is_waypoint_of(mesh, query.source, workload) {
        return Ok(None);
    }
    let fail = |trouble| Unroutable::Waypoint(GatewayName((**waypoint).clone()), trouble);
    let found = gateway::find(mesh, query.source, waypoint, Wanted::Waypoint)
        .ok_or_else(|| fail(Trouble::Unknown))?;
    let here = |one: &&Candidate<'_>| one.workload.network == query.source.network;
    let near: Vec<_> = found.candidates.iter().filter(here).collect();
    let chosen = drawn(&near, query.draw).ok_or_else(|| fail(Trouble::NoInstance))?;
    let families = found.service.map_or(IpFamilies::Automatic, |service| service.ip_families);
    let host = host(chosen.workload, query.destination.ip(), families)
        .ok_or_else(|| Unroutable::NoAddress(chosen.workload.uid.clone()))?;
    let to = Target { host, port: chosen.port };
    let tunnel = tunnel(to, found.service, chosen.workload, authority.clone());
    Ok(Some(Tunnel { to_waypoint: true, ..tunnel }))
}

fn drawn<'a, 'b>(candidates: &[&'b Candidate<'a>], draw: u64) -> Option<&'b Candidate<'a>> {
    let index = draw.checked_rem(candidates.len() as u64)?;
    candidates.get(usize::try_from(index).ok()?).copied()
}

/// A single tunnel. The expected identities are those of the service, then the workload's.
fn tunnel(
    to: Target,
    service: Option<&Arc<Service>>,
    workload: &Workload,
    authority: Authority,
) -> Tunnel {
    let mut expected: Vec<SpiffeId> =
        service.map(|service| service.subject_alt_names.to_vec()).unwrap_or_default();
    if !expected.contains(&workload.identity) {
        expected.push(workload.identity.clone());
    }
    Tunnel { to, expected, authority, to_waypoint: false, inner: None }
}
