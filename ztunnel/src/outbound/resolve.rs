//! Where a connection goes: from a source workload and an address to the ways of reaching it.
//!
//! Pure: one snapshot in, a value out; no I/O, no clock, no lock. What is missing (the address of a
//! workload that has only a host name) comes back in the value.
//! Laws: a destination known to be in the mesh is never dialled in plaintext; a configured waypoint is
//! never bypassed, except by its own instances, which would loop; a candidate is never repeated.
//! Not here: choosing among candidates (`shared::balance`), dialling (`outbound::connect`).
//! Source: Istio ztunnel `proxy/outbound.rs`, `state.rs`; spec L4 §3.2 to §3.6. Where its \[GAP\]s
//! are holes, we differ; each place says why.

mod gateway;
mod hop;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use shared::balance::{self, Wanted};
use shared::mesh::{
    BalancingMode, GatewayAddress, GatewayDestination, Mesh, Protocol, Service, ServiceKey, Uid,
    Workload,
};

pub use hop::{Authority, Hop, Inner, Target, Tunnel};
pub use shared::balance::{Candidate, Host};

/// Ports of ztunnel itself: outbound, inbound plaintext, inbound HBONE.
pub const OWN_PORTS: [u16; 3] = [15001, 15006, 15008];

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct Query<'a> {
    /// The workload that opened the connection.
    pub source: &'a Workload,
    /// Where it wants to go.
    pub destination: SocketAddr,
    /// A random number, for the choice among weighted waypoints.
    pub draw: u64,
}

/// How a destination is reached.
#[derive(Debug)]
pub enum Route<'a> {
    /// Outside the mesh, or a service that balances by itself: plain TCP to where it wanted to go.
    Passthrough {
        /// The service, if it is one.
        service: Option<&'a Arc<Service>>,
        /// The original address.
        to: SocketAddr,
    },
    /// One of these.
    Endpoints(Endpoints<'a>),
}

/// The ways of reaching a destination in the mesh.
#[derive(Debug)]
pub struct Endpoints<'a> {
    /// The service that was asked for; labels and `forwarded` name it also behind a waypoint.
    pub service: Option<&'a Arc<Service>>,
    /// What the candidates are.
    pub kind: Kind<'a>,
    /// Each is reachable as far as the mesh knows; never empty, never twice the same.
    pub candidates: Vec<Candidate<'a>>,
    destination: SocketAddr,
}

/// What the candidates of a route are.
#[derive(Debug, Clone, Copy)]
pub enum Kind<'a> {
    /// The destination itself.
    Direct,
    /// Instances of its waypoint.
    Waypoint {
        /// The waypoint's service, unless it is named by a workload.
        service: Option<&'a Arc<Service>>,
    },
}

/// Why a destination cannot be reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unroutable {
    /// The connection leads back into ztunnel.
    #[error("attempted recursive call to ourselves")]
    Loop,
    /// The service has no endpoint that can be reached on this port.
    #[error("no healthy upstream: {0}")]
    NoHealthyUpstream(SocketAddr),
    /// The configured waypoint cannot be used. It is never bypassed.
    #[error("unknown waypoint: {0}{1}")]
    Waypoint(GatewayName, Trouble),
    /// The workload is on another network that has no known gateway.
    #[error("workload {0} is on another network without a network gateway")]
    NoGateway(Uid),
    /// The gateway of the other network cannot be used.
    #[error("unknown network gateway: {0}{1}")]
    Gateway(GatewayName, Trouble),
    /// Only services can be reached across networks.
    #[error("no service for target {0} on another network")]
    NoService(SocketAddr),
    /// A workload in the mesh has no address.
    #[error("workload {0} has no address")]
    NoAddress(Uid),
    /// The address is that of a meshed service which the client's namespace must not see.
    #[error("service {0} is not visible from here")]
    NotVisible(ServiceKey),
}

/// Why a waypoint or a gateway cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The mesh does not have it.
    Unknown,
    /// It has no instance that can be reached.
    NoInstance,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "",
            Self::NoInstance => " has no healthy instance",
        })
    }
}

/// A gateway as the configuration names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayName(GatewayAddress);

impl fmt::Display for GatewayName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.destination {
            GatewayDestination::Hostname(key) => write!(f, "{key}"),
            GatewayDestination::Address(address) => write!(f, "{address}"),
        }
    }
}

/// Finds the ways of reaching `query.destination` in `mesh`.
///
/// # Errors
/// [`Unroutable`] says what is missing; the connection is then refused, never sent in plaintext.
pub fn resolve<'a>(mesh: &'a Mesh, query: &Query<'_>) -> Result<Route<'a>, Unroutable> {
    let to = query.destination;
    if to.ip().is_loopback() && OWN_PORTS.contains(&to.port()) {
        return Err(Unroutable::Loop);
    }
    match find(mesh, query) {
        Found::Service(service) => to_service(mesh, query, service),
        Found::Workload(workload) => to_workload(mesh, query, workload),
        Found::Nothing => pass_through(mesh, query, None),
    }
}

/// Plaintext to the address that was asked for. Istio ztunnel lets a service that the client must
/// not see through as unknown; the node would then deliver the connection to meshed pods in
/// plaintext.
fn pass_through<'a>(
    mesh: &'a Mesh,
    query: &Query<'_>,
    service: Option<&'a Arc<Service>>,
) -> Result<Route<'a>, Unroutable> {
    let to = query.destination;
    match mesh.service_by_vip(&query.source.network, to.ip(), None) {
        Some(hidden) if is_meshed(mesh, hidden) => Err(Unroutable::NotVisible(hidden.key.clone())),
        _ => Ok(Route::Passthrough { service, to }),
    }
}

enum Found<'a> {
    Service(&'a Arc<Service>),
    Workload(&'a Arc<Workload>),
    Nothing,
}

/// One look-up where Istio ztunnel has two that order workload and service differently. Its order
/// lets a passthrough service or an address range that covers pod addresses turn calls to
/// meshed pods into plaintext. Here an exact virtual address that selects endpoints on this
/// port comes first, then the workload, then the rest.
fn find<'a>(mesh: &'a Mesh, query: &Query<'_>) -> Found<'a> {
    let Query { source, destination, .. } = query;
    let address = destination.ip();
    let service = mesh.service_by_vip(&source.network, address, Some(source.namespace()));
    let workload = mesh.workload_by_addr(&source.network, address);
    match (service, workload) {
        (Some(service), Some(workload)) => {
            if is_exact(service, &source.network, address) && selects(service, destination.port()) {
                Found::Service(service)
            } else {
                Found::Workload(workload)
            }
        }
        (Some(service), None) => Found::Service(service),
        (None, Some(workload)) => Found::Workload(workload),
        (None, None) => Found::Nothing,
    }
}

fn is_exact(service: &Service, network: &str, address: IpAddr) -> bool {
    let address = address.to_canonical();
    service.vips.iter().any(|vip| *vip.network == *network && vip.address == address)
}

fn selects(service: &Service, port: u16) -> bool {
    !is_passthrough(service) && service.ports.iter().any(|known| known.port == port)
}

fn is_passthrough(service: &Service) -> bool {
    let mode = service.balancing.as_ref().map(|balancing| balancing.mode);
    mode == Some(BalancingMode::Passthrough)
}

/// Any endpoint is in the mesh.
fn is_meshed(mesh: &Mesh, service: &Service) -> bool {
    mesh.endpoints(&service.key).any(|(workload, _)| workload.protocol == Protocol::Hbone)
}

fn to_service<'a>(
    mesh: &'a Mesh,
    query: &Query<'_>,
    service: &'a Arc<Service>,
) -> Result<Route<'a>, Unroutable> {
    let destination = query.destination;
    // Istio ztunnel sends a waypoint that calls a service behind itself to itself again; that loops,
    // so its own instances go straight to the endpoints.
    let own_waypoint = service.waypoints().any(|waypoint| mesh.is_instance(query.source, waypoint));
    if !own_waypoint && let Some(waypoint) = gateway::draw_waypoint(service, query.draw) {
        return to_waypoint(mesh, query, Some(service), waypoint);
    }
    // Its own balancing would reach meshed endpoints in plaintext: then we choose.
    if is_passthrough(service) && !is_meshed(mesh, service) {
        return pass_through(mesh, query, Some(service));
    }
    let port = destination.port();
    let candidates = balance::candidates(mesh, query.source, service, Wanted::Service, port);
    if candidates.is_empty() {
        return Err(Unroutable::NoHealthyUpstream(destination));
    }
    let kind = Kind::Direct;
    Ok(Route::Endpoints(Endpoints { service: Some(service), kind, candidates, destination }))
}

fn to_workload<'a>(
    mesh: &'a Mesh,
    query: &Query<'_>,
    workload: &'a Arc<Workload>,
) -> Result<Route<'a>, Unroutable> {
    if let Some(waypoint) = &workload.waypoint
        && !mesh.is_instance(query.source, waypoint)
    {
        return to_waypoint(mesh, query, None, waypoint);
    }
    let candidates = vec![Candidate::new(workload, query.destination.port())];
    let (kind, destination) = (Kind::Direct, query.destination);
    Ok(Route::Endpoints(Endpoints { service: None, kind, candidates, destination }))
}

fn to_waypoint<'a>(
    mesh: &'a Mesh,
    query: &Query<'_>,
    service: Option<&'a Arc<Service>>,
    waypoint: &GatewayAddress,
) -> Result<Route<'a>, Unroutable> {
    let fail = |trouble| Unroutable::Waypoint(GatewayName(waypoint.clone()), trouble);
    let found = gateway::find(mesh, query.source, waypoint, Wanted::Waypoint)
        .ok_or_else(|| fail(Trouble::Unknown))?;
    if found.candidates.is_empty() {
        return Err(fail(Trouble::NoInstance));
    }
    Ok(Route::Endpoints(Endpoints {
        service,
        kind: Kind::Waypoint { service: found.service },
        candidates: found.candidates,
        destination: query.destination,
    }))
}

/// Whether `source` is an instance of a waypoint in front of `workload` or of one of its services.
pub fn is_waypoint_of(mesh: &Mesh, source: &Workload, workload: &Workload) -> bool {
    let own = workload.waypoint.iter().map(|waypoint| &**waypoint);
    let of_services = mesh.services_of(workload).flat_map(|service| service.waypoints());
    own.chain(of_services).any(|waypoint| mesh.is_instance(source, waypoint))
}

/// Whether `address` belongs to a service or workload that `workload` is a waypoint of.
pub fn fronts(mesh: &Mesh, workload: &Workload, address: IpAddr) -> bool {
    let is_instance = |waypoint: &GatewayAddress| mesh.is_instance(workload, waypoint);
    let service = mesh.service_by_vip(&workload.network, address, None);
    let behind = mesh.workload_by_addr(&workload.network, address);
    service.is_some_and(|service| service.waypoints().any(is_instance))
        || behind.and_then(|behind| behind.waypoint.as_deref()).is_some_and(is_instance)
}

#[cfg(test)]
mod tests;
