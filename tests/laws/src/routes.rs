//! Where connections go in any mesh.
//!
//! Laws: a destination known to be in the mesh is never dialled in plaintext; a tunnel always
//! expects somebody; a candidate is never repeated.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

use shared::mesh::{Mesh, Protocol, Workload};
use ztunnel::outbound::resolve::{Hop, Query, Route, resolve};

/// As many clients and destinations of a mesh are looked at.
const AT_MOST: usize = 8;

pub(crate) fn obey_the_laws(mesh: &Mesh) {
    let mut destinations: Vec<(IpAddr, u16)> = Vec::new();
    for workload in mesh.workloads().take(AT_MOST) {
        destinations.extend(workload.addresses.iter().map(|address| (*address, 80)));
    }
    for service in mesh.services().take(AT_MOST) {
        let exact = service.vips.iter().map(|vip| vip.address);
        let ranges = service.cidr_vips.iter().map(|(_, range)| range.addr());
        let port = service.ports.first().map_or(80, |port| port.port);
        destinations.extend(exact.chain(ranges).map(|address| (address, port)));
    }
    for client in mesh.workloads().take(AT_MOST) {
        for destination in destinations.iter().take(2 * AT_MOST) {
            obeys_the_laws(mesh, client, SocketAddr::from(*destination));
        }
    }
}

fn obeys_the_laws(mesh: &Mesh, source: &Workload, destination: SocketAddr) {
    let query = Query { source, destination, draw: 0 };
    match resolve(mesh, &query) {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(Route::Passthrough { to, .. }) => {
            let workload = mesh.workload_by_addr(&source.network, to.ip());
            assert!(!workload.is_some_and(is_meshed), "{to} is in the mesh");
            let service = mesh.service_by_vip(&source.network, to.ip(), None);
            let mut endpoints = service.into_iter().flat_map(|one| mesh.endpoints(&one.key));
            assert!(!endpoints.any(|(one, _)| is_meshed(one)), "{to} leads into the mesh");
        }
        Ok(Route::Endpoints(route)) => {
            assert!(!route.candidates.is_empty());
            let mut seen = HashSet::new();
            for candidate in &route.candidates {
                assert!(seen.insert(&candidate.workload.uid), "a candidate is repeated");
                match route.hop(mesh, &query, candidate) {
                    Ok(Hop::Tcp(to)) => {
                        assert!(!is_meshed(candidate.workload), "plaintext to {to}")
                    }
                    Ok(Hop::Tunnel(tunnel)) => assert!(!tunnel.expected.is_empty()),
                    Err(error) => assert!(!error.to_string().is_empty()),
                }
            }
        }
    }
}

fn is_meshed(workload: impl AsRef<Workload>) -> bool {
    workload.as_ref().protocol == Protocol::Hbone
}
