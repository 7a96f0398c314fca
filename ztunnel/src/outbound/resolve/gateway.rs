//! Waypoints and network gateways: which one, and its instances (spec L4 §3.5, §3.6).

use std::sync::Arc;

use shared::balance::{self, Candidate, Wanted};
use shared::mesh::{GatewayAddress, GatewayDestination, Mesh, Service, Workload};

/// A gateway that is in the mesh.
pub(super) struct Found<'a> {
    /// Its service, unless it is named by a workload.
    pub(super) service: Option<&'a Arc<Service>>,
    /// Its instances that can be reached; may be empty.
    pub(super) candidates: Vec<Candidate<'a>>,
}

/// One of the weighted waypoints in proportion to its weight, else the single one.
pub(super) fn draw_waypoint(service: &Service, draw: u64) -> Option<&GatewayAddress> {
    let total: u64 = service.weighted_waypoints.iter().map(|one| u64::from(one.weight)).sum();
    if total == 0 {
        return service.waypoint.as_ref();
    }
    let mut left = draw % total;
    service.weighted_waypoints.iter().find_map(|one| {
        let weight = u64::from(one.weight);
        let chosen = left < weight;
        left = left.saturating_sub(weight);
        chosen.then_some(&one.destination)
    })
}

/// Looks the gateway up and lists its instances; `None` when the mesh does not have it.
pub(super) fn find<'a>(
    mesh: &'a Mesh,
    source: &Workload,
    gateway: &GatewayAddress,
    wanted: Wanted<'_>,
) -> Option<Found<'a>> {
    let port = gateway.hbone_mtls_port;
    let service = match &gateway.destination {
        GatewayDestination::Hostname(key) => mesh.service(key),
        GatewayDestination::Address(at) => mesh.service_by_vip(&at.network, at.address, None),
    };
    if let Some(service) = service {
        let candidates = balance::candidates(mesh, source, service, wanted, port);
        return Some(Found { service: Some(service), candidates });
    }
    let workload = match &gateway.destination {
        GatewayDestination::Hostname(key) => {
            mesh.workload_by_hostname(&key.namespace, &key.hostname)
        }
        GatewayDestination::Address(at) => mesh.workload_by_addr(&at.network, at.address),
    }?;
    Some(Found { service: None, candidates: vec![Candidate::new(workload, port)] })
}
