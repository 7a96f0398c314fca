//! A mesh of samples, and questions to it.

use shared::mesh::{
    AppProtocol, GatewayAddress, GatewayDestination, Mesh, NetworkAddr, ServicePort, writer,
};
use shared::mesh::{Balancing, BalancingMode, Change, Scope, sample};

use super::super::*;

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(super) fn to(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub(super) fn mesh(changes: impl IntoIterator<Item = Change>) -> Arc<Mesh> {
    let (mut writer, reader) = writer();
    writer.apply(changes);
    reader.load()
}

/// A pod of namespace `team` at `address`.
pub(super) fn pod(name: &str, address: &str) -> Workload {
    let identity = shared::identity::SpiffeId::new(Default::default(), "team", name).unwrap();
    Workload { addresses: [ip(address)].into(), identity, ..sample::workload(name, "team") }
}

/// `pod` as an endpoint of the service `service`.
pub(super) fn behind(service: &str, pod: Workload) -> Workload {
    let mut services = pod.services.to_vec();
    services.push((sample::service_key(service, "team"), Box::default()));
    Workload { services: services.into(), ..pod }
}

/// A service of namespace `team` at `vip`, port 80 to 8080.
pub(super) fn service(name: &str, vip: &str) -> Service {
    let vip = NetworkAddr { network: "".into(), address: ip(vip) };
    Service { vips: [vip].into(), ports: [port(80, 8080)].into(), ..sample::service(name, "team") }
}

pub(super) fn port(port: u16, target: u16) -> ServicePort {
    let app_protocol = AppProtocol::Unknown;
    ServicePort { port, target_port: Some(target), app_protocol, name: "".into() }
}

pub(super) fn balanced(service: Service, mode: BalancingMode, scopes: &[Scope]) -> Service {
    Service { balancing: Some(Balancing { routing_preferences: scopes.into(), mode }), ..service }
}

/// The gateway that is the service `name` of namespace `team`.
pub(super) fn gateway(name: &str) -> GatewayAddress {
    let destination = GatewayDestination::Hostname(sample::service_key(name, "team"));
    GatewayAddress { destination, hbone_mtls_port: 15008 }
}

/// A waypoint called `name`: its service and one instance at `address`.
pub(super) fn waypoint(name: &str, vip: &str, address: &str) -> [Change; 2] {
    let service = Service { ports: [port(15008, 15008)].into(), ..service(name, vip) };
    [service.into(), behind(name, pod(&format!("{name}-pod"), address)).into()]
}

/// The hops of all candidates, in order of what they dial.
pub(super) fn hops(
    mesh: &Mesh,
    source: &Workload,
    destination: &str,
) -> Result<Vec<Hop>, Unroutable> {
    let query = Query { source, destination: to(destination), draw: 0 };
    match resolve(mesh, &query)? {
        Route::Passthrough { to, .. } => {
            let target = Target { host: Host::Ip(to.ip()), port: to.port() };
            Ok(vec![Hop::Tcp(target)])
        }
        Route::Endpoints(endpoints) => {
            let hop = |candidate| endpoints.hop(mesh, &query, candidate);
            let mut hops = endpoints.candidates.iter().map(hop).collect::<Result<Vec<_>, _>>()?;
            hops.sort_by_key(|hop| format!("{hop:?}"));
            Ok(hops)
        }
    }
}

/// `tcp <address>` or `hbone <authority> via <address>`, joined: a line that a table can state.
pub(super) fn says(mesh: &Mesh, source: &Workload, destination: &str) -> String {
    let line = |hop: &Hop| match hop {
        Hop::Tcp(target) => format!("tcp {target}"),
        Hop::Tunnel(tunnel) if tunnel.inner.is_some() => {
            format!("double {} via {}", tunnel.authority, tunnel.to)
        }
        Hop::Tunnel(tunnel) => format!("hbone {} via {}", tunnel.authority, tunnel.to),
    };
    match hops(mesh, source, destination) {
        Ok(hops) => hops.iter().map(line).collect::<Vec<_>>().join(", "),
        Err(error) => error.to_string(),
    }
}
