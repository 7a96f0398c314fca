//! Laws over random meshes.

use std::collections::HashSet;

use proptest::prelude::*;
use shared::mesh::{BalancingMode, Change, Protocol, Visibility};

use super::super::*;
use super::world::*;

const ADDRESSES: [&str; 4] = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"];
const VIPS: [&str; 4] = ["10.1.0.1", "10.1.0.2", "10.0.0.3", "10.0.0.4"];

fn any_pod() -> impl Strategy<Value = Workload> {
    let services = proptest::collection::hash_set(0..3_usize, 0..3);
    (0..4_usize, any::<bool>(), any::<bool>(), services, any::<bool>(), any::<bool>()).prop_map(
        |(at, meshed, near, services, fronted, required)| {
            let mut workload = pod(&format!("pod-{at}"), ADDRESSES[at]);
            workload.protocol = if meshed { Protocol::Hbone } else { Protocol::Tcp };
            workload.network = if near { "" } else { "far" }.into();
            workload.network_gateway = (at == 3).then(|| gateway("svc-0").into());
            workload.waypoint = fronted.then(|| gateway("svc-1").into());
            workload.require_waypoint = required;
            for service in services {
                workload = behind(&format!("svc-{service}"), workload);
            }
            workload
        },
    )
}

fn any_service() -> impl Strategy<Value = Service> {
    let mode = prop_oneof![
        Just(BalancingMode::Any),
        Just(BalancingMode::Passthrough),
        Just(BalancingMode::Failover)
    ];
    (0..3_usize, 0..4_usize, mode, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(name, vip, mode, fronted, hidden, ranged)| {
            let mut service = balanced(service(&format!("svc-{name}"), VIPS[vip]), mode, &[]);
            service.ports = [port(80, 8080), port(15008, 15008)].into();
            service.waypoint = fronted.then(|| gateway("svc-1"));
            if hidden {
                service.visibility = Visibility::Namespace;
            }
            if ranged {
                service.cidr_vips = [("".into(), "10.0.0.0/8".parse().unwrap())].into();
            }
            service
        },
    )
}

fn any_mesh() -> impl Strategy<Value = Vec<Change>> {
    let pods = proptest::collection::vec(any_pod().prop_map(Change::from), 0..5);
    let services = proptest::collection::vec(any_service().prop_map(Change::from), 0..4);
    (pods, services).prop_map(|(pods, services)| pods.into_iter().chain(services).collect())
}

fn meshed_at(mesh: &Mesh, address: IpAddr) -> bool {
    let workload = mesh.workload_by_addr("", address);
    workload.is_some_and(|workload| workload.protocol == Protocol::Hbone)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn known_meshed_destination_is_never_dialled_in_plaintext(
        changes in any_mesh(), at in 0..8_usize, foreign: bool, draw: u64,
    ) {
        let mesh = mesh(changes);
        let mut source = pod("client", "10.0.9.9");
        if foreign {
            source.identity = shared::identity::SpiffeId::new(Default::default(), "else", "x").unwrap();
        }
        let address = ADDRESSES.iter().chain(&VIPS).nth(at).unwrap();
        let destination = SocketAddr::new(ip(address), 80);
        let query = Query { source: &source, destination, draw };
        match resolve(&mesh, &query) {
            Err(_) => {}
            Ok(Route::Passthrough { to, .. }) => {
                prop_assert!(!meshed_at(&mesh, to.ip()));
                let service = mesh.service_by_vip("", to.ip(), None);
                let meshed = service.is_some_and(|service| {
                    mesh.endpoints(&service.key).any(|(one, _)| one.protocol == Protocol::Hbone)
                });
                prop_assert!(!meshed);
            }
            Ok(Route::Endpoints(route)) => {
                prop_assert!(!route.candidates.is_empty());
                for candidate in &route.candidates {
                    if let Ok(Hop::Tcp(_)) = route.hop(&mesh, &query, candidate) {
                        prop_assert_eq!(candidate.workload.protocol, Protocol::Tcp);
                    }
                }
            }
        }
    }

    #[test]
    fn candidates_never_repeat_and_tunnels_always_expect_somebody(changes in any_mesh(), at in 0..8_usize) {
        let mesh = mesh(changes);
        let source = pod("client", "10.0.9.9");
        let address = ADDRESSES.iter().chain(&VIPS).nth(at).unwrap();
        let query = Query { source: &source, destination: SocketAddr::new(ip(address), 80), draw: 0 };
        if let Ok(Route::Endpoints(route)) = resolve(&mesh, &query) {
            let mut seen = HashSet::new();
            for candidate in &route.candidates {
                prop_assert!(seen.insert(&candidate.workload.uid));
                if let Ok(Hop::Tunnel(tunnel)) = route.hop(&mesh, &query, candidate) {
                    prop_assert!(!tunnel.expected.is_empty());
                }
            }
        }
    }

    #[test]
    fn configured_waypoint_is_used_or_the_connection_fails(changes in any_mesh(), at in 0..4_usize) {
        let mesh = mesh(changes);
        let source = pod("client", "10.0.9.9");
        let destination = SocketAddr::new(ip(VIPS[at]), 80);
        let query = Query { source: &source, destination, draw: 0 };
        if let Ok(Route::Endpoints(route)) = resolve(&mesh, &query)
            && route.service.is_some_and(|service| service.waypoint.is_some())
        {
            let through_waypoint = matches!(route.kind, Kind::Waypoint { .. });
            prop_assert!(through_waypoint);
        }
    }
}
