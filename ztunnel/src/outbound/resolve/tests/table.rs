//! Each row of the table of spec L4 §3.2, and the holes that we closed.

use shared::mesh::{
    BalancingMode, Change, GatewayDestination, Health, NetworkAddr, NetworkMode, Protocol, Scope,
    Visibility, WeightedWaypoint, sample,
};

use super::super::*;
use super::world::*;

fn client() -> Workload {
    pod("client", "10.0.0.1")
}

fn plain(pod: Workload) -> Workload {
    Workload { protocol: Protocol::Tcp, ..pod }
}

fn with_client(changes: Vec<Change>) -> (Arc<Mesh>, Workload) {
    let source = client();
    (mesh(changes.into_iter().chain([source.clone().into()])), source)
}

#[track_caller]
fn expect(changes: Vec<Change>, destination: &str, expected: &str) {
    let (mesh, source) = with_client(changes);
    assert_eq!(says(&mesh, &source, destination), expected);
}

#[test]
fn unknown_destination_is_passed_through() {
    expect(vec![], "1.1.1.1:443", "tcp 1.1.1.1:443");
}

#[test]
fn pod_outside_the_mesh_is_dialled_plainly() {
    expect(vec![plain(pod("a", "10.0.0.2")).into()], "10.0.0.2:80", "tcp 10.0.0.2:80");
}

#[test]
fn meshed_pod_is_tunnelled_on_any_node() {
    let expected = "hbone 10.0.0.2:80 via 10.0.0.2:15008";
    expect(vec![pod("a", "10.0.0.2").into()], "10.0.0.2:80", expected);
    let far = Workload { node: "other".into(), ..pod("a", "10.0.0.2") };
    expect(vec![far.into()], "10.0.0.2:80", expected);
}

#[test]
fn service_with_waypoint_keeps_its_address_in_the_authority() {
    let mut changes = waypoint("wp", "10.1.0.9", "10.0.0.9").to_vec();
    changes.push(Service { waypoint: Some(gateway("wp")), ..service("a", "10.1.0.1") }.into());
    changes.push(behind("a", pod("a", "10.0.0.2")).into());
    expect(changes.clone(), "10.1.0.1:80", "hbone 10.1.0.1:80 via 10.0.0.9:15008");
    // The pod itself has none.
    expect(changes, "10.0.0.2:8080", "hbone 10.0.0.2:8080 via 10.0.0.2:15008");
}

#[test]
fn service_without_waypoint_offers_every_endpoint_each_in_its_own_way() {
    let changes = vec![
        service("a", "10.1.0.1").into(),
        behind("a", pod("a1", "10.0.0.2")).into(),
        behind("a", plain(pod("a2", "10.0.0.3"))).into(),
    ];
    let expected = "tcp 10.0.0.3:8080, hbone 10.0.0.2:8080 via 10.0.0.2:15008";
    expect(changes, "10.1.0.1:80", expected);
}

#[test]
fn waypoint_of_an_endpoint_is_ignored_for_its_service_unless_required() {
    let mut changes = waypoint("wp", "10.1.0.9", "10.0.0.9").to_vec();
    changes.push(service("a", "10.1.0.1").into());
    let endpoint =
        Workload { waypoint: Some(gateway("wp").into()), ..behind("a", pod("a", "10.0.0.2")) };
    let mut free = changes.clone();
    free.push(endpoint.clone().into());
    expect(free, "10.1.0.1:80", "hbone 10.0.0.2:8080 via 10.0.0.2:15008");
    changes.push(Workload { require_waypoint: true, ..endpoint }.into());
    expect(changes, "10.1.0.1:80", "hbone 10.0.0.2:8080 via 10.0.0.9:15008");
}

#[test]
fn pod_with_waypoint_is_reached_through_it_except_by_its_instances() {
    let mut changes = waypoint("wp", "10.1.0.9", "10.0.0.9").to_vec();
    let target = Workload { waypoint: Some(gateway("wp").into()), ..pod("a", "10.0.0.2") };
    changes.push(target.into());
    let (mesh, source) = with_client(changes);
    let line = says(&mesh, &source, "10.0.0.2:80");
    assert_eq!(line, "hbone 10.0.0.2:80 via 10.0.0.9:15008");
    let instance = mesh.workload_by_addr("", ip("10.0.0.9")).unwrap();
    let line = says(&mesh, instance, "10.0.0.2:80");
    assert_eq!(line, "hbone 10.0.0.2:80 via 10.0.0.2:15008");
}

#[test]
fn waypoint_that_calls_a_service_behind_itself_does_not_loop() {
    let mut changes = waypoint("wp", "10.1.0.9", "10.0.0.9").to_vec();
    changes.push(Service { waypoint: Some(gateway("wp")), ..service("a", "10.1.0.1") }.into());
    changes.push(behind("a", pod("a", "10.0.0.2")).into());
    let (mesh, _) = with_client(changes);
    let instance = mesh.workload_by_addr("", ip("10.0.0.9")).unwrap();
    let line = says(&mesh, instance, "10.1.0.1:80");
    assert_eq!(line, "hbone 10.0.0.2:8080 via 10.0.0.2:15008");
}

#[test]
fn waypoint_may_be_named_by_address_of_service_or_workload() {
    for address in ["10.1.0.9", "10.0.0.9"] {
        let mut changes = waypoint("wp", "10.1.0.9", "10.0.0.9").to_vec();
        let at = NetworkAddr { network: "".into(), address: ip(address) };
        let destination = GatewayDestination::Address(at);
        let named = GatewayAddress { destination, hbone_mtls_port: 15008 };
        changes.push(Service { waypoint: Some(named), ..service("a", "10.1.0.1") }.into());
        expect(changes, "10.1.0.1:80", "hbone 10.1.0.1:80 via 10.0.0.9:15008");
    }
}

#[test]
fn configured_waypoint_that_is_missing_or_empty_is_never_bypassed() {
    let a: Change = Service { waypoint: Some(gateway("wp")), ..service("a", "10.1.0.1") }.into();
    let endpoint: Change = behind("a", pod("a", "10.0.0.2")).into();
    let name = "unknown waypoint: team/wp.team.svc.cluster.local";
    expect(vec![a.clone(), endpoint.clone()], "10.1.0.1:80", name);
    let [empty, _] = waypoint("wp", "10.1.0.9", "10.0.0.9");
    let expected = format!("{name} has no healthy instance");
    expect(vec![a, endpoint, empty], "10.1.0.1:80", &expected);
}

#[test]
fn weighted_waypoints_are_drawn_by_weight() {
    let weighted = |name, weight| WeightedWaypoint { destination: gateway(name), weight };
    let mut changes = waypoint("one", "10.1.0.8", "10.0.0.8").to_vec();
    changes.extend(waypoint("two", "10.1.0.9", "10.0.0.9"));
    let weights = [weighted("none", 0), weighted("one", 1), weighted("two", 2)];
    changes.push(Service { weighted_waypoints: weights.into(), ..service("a", "10.1.0.1") }.into());
    let (mesh, source) = with_client(changes);
    let names = [0, 1, 2, 3].map(|draw| {
        let query = Query { source: &source, destination: to("10.1.0.1:80"), draw };
        match resolve(&mesh, &query).unwrap() {
            Route::Endpoints(Endpoints { kind: Kind::Waypoint { service }, .. }) => {
                service.unwrap().name.to_string()
            }
            other => panic!("{other:?}"),
        }
    });
    assert_eq!(names, ["one", "two", "two", "one"]);
}

#[test]
fn waypoint_on_another_network_is_reached_through_its_gateway() {
    let remote = Workload {
        network: "far".into(),
        network_gateway: Some(gateway("gw").into()),
        ..behind("wp", pod("wp-pod", "10.0.0.9"))
    };
    let [wp, _] = waypoint("wp", "10.1.0.9", "10.0.0.9");
    let mut changes = waypoint("gw", "10.1.0.7", "10.0.0.7").to_vec();
    let a = Service { waypoint: Some(gateway("wp")), ..service("a", "10.1.0.1") };
    changes.extend([wp, remote.into(), a.into()]);
    expect(changes, "10.1.0.1:80", "double a.team.svc.cluster.local:80 via 10.0.0.7:15008");
}

#[test]
fn inner_tunnel_expects_the_service_and_outer_tunnel_the_gateway() {
    let san = pod("san", "0.0.0.0").identity;
    let remote = Workload {
        network: "far".into(),
        network_gateway: Some(gateway("gw").into()),
        addresses: Box::default(),
        ..behind("a", pod("a", "10.0.0.2"))
    };
    let mut changes = waypoint("gw", "10.1.0.7", "10.0.0.7").to_vec();
    let a = Service { subject_alt_names: [san.clone()].into(), ..service("a", "10.1.0.1") };
    changes.extend([a.into(), remote.into()]);
    let (mesh, source) = with_client(changes);
    let hops = hops(&mesh, &source, "10.1.0.1:80").unwrap();
    let [Hop::Tunnel(tunnel)] = &hops[..] else { panic!("{hops:?}") };
    assert_eq!(tunnel.expected, [pod("gw-pod", "0.0.0.0").identity]);
    assert_eq!(tunnel.inner.as_ref().unwrap().expected, [san]);
}

#[test]
fn endpoint_on_another_network_needs_a_gateway_that_exists() {
    let remote = |gateway: Option<GatewayAddress>| Workload {
        network: "far".into(),
        network_gateway: gateway.map(Into::into),
        ..behind("a", pod("a", "10.0.0.2"))
    };
    let a: Change = service("a", "10.1.0.1").into();
    let none = "no healthy upstream: 10.1.0.1:80";
    expect(vec![a.clone(), remote(None).into()], "10.1.0.1:80", none);
    let lost = "unknown network gateway: team/gw.team.svc.cluster.local";
    expect(vec![a.clone(), remote(Some(gateway("gw"))).into()], "10.1.0.1:80", lost);
    // One that can be reached without is not held back by it.
    let near: Change = behind("a", pod("b", "10.0.0.3")).into();
    let expected = "hbone 10.0.0.3:8080 via 10.0.0.3:15008";
    expect(vec![a, remote(None).into(), near], "10.1.0.1:80", expected);
}

#[test]
fn pod_behind_a_remote_waypoint_needs_a_service() {
    let remote = Workload {
        network: "far".into(),
        network_gateway: Some(gateway("gw").into()),
        ..behind("wp", pod("wp-pod", "10.0.0.9"))
    };
    let [wp, _] = waypoint("wp", "10.1.0.9", "10.0.0.9");
    let a = Workload { waypoint: Some(gateway("wp").into()), ..pod("a", "10.0.0.2") };
    let expected = "no service for target 10.0.0.2:80 on another network";
    expect(vec![wp, remote.into(), a.into()], "10.0.0.2:80", expected);
}

#[test]
fn passthrough_service_goes_to_the_original_address_or_to_its_waypoint() {
    let free = balanced(service("a", "10.1.0.1"), BalancingMode::Passthrough, &[]);
    let outside: Change = behind("a", plain(pod("a", "10.0.0.2"))).into();
    expect(vec![free.clone().into(), outside], "10.1.0.1:80", "tcp 10.1.0.1:80");
    let mut changes = waypoint("wp", "10.1.0.9", "10.0.0.9").to_vec();
    changes.push(Service { waypoint: Some(gateway("wp")), ..free }.into());
    expect(changes, "10.1.0.1:80", "hbone 10.1.0.1:80 via 10.0.0.9:15008");
}

#[test]
fn passthrough_does_not_turn_meshed_pods_into_plaintext() {
    let free = balanced(service("a", "10.1.0.1"), BalancingMode::Passthrough, &[]);
    let expected = "hbone 10.0.0.2:8080 via 10.0.0.2:15008";
    let endpoint: Change = behind("a", pod("a", "10.0.0.2")).into();
    expect(vec![free.into(), endpoint.clone()], "10.1.0.1:80", expected);
    let mut range = balanced(sample::service("range", "team"), BalancingMode::Passthrough, &[]);
    range.cidr_vips = [("".into(), "10.0.0.0/16".parse().unwrap())].into();
    expect(vec![range.into(), endpoint], "10.0.0.2:8080", expected);
}

#[test]
fn headless_service_is_seen_as_its_pods() {
    let headless = Service { vips: Box::default(), ..service("a", "0.0.0.0") };
    let changes = vec![headless.into(), behind("a", pod("a", "10.0.0.2")).into()];
    expect(changes, "10.0.0.2:80", "hbone 10.0.0.2:80 via 10.0.0.2:15008");
}

#[test]
fn hidden_service_does_not_exist_but_is_not_reached_in_plaintext_either() {
    let hidden = |namespace: &str| {
        let key = ServiceKey { namespace: namespace.into(), ..service("a", "::").key };
        Service { key, visibility: Visibility::Namespace, ..service("a", "10.1.0.1") }
    };
    expect(vec![hidden("foreign").into()], "10.1.0.1:80", "tcp 10.1.0.1:80");
    let theirs = hidden("foreign");
    let endpoint = Workload {
        services: [(theirs.key.clone(), Box::default())].into(),
        ..pod("a", "10.0.0.2")
    };
    let expected = "service foreign/a.team.svc.cluster.local is not visible from here";
    expect(vec![theirs.into(), endpoint.into()], "10.1.0.1:80", expected);
    let own = vec![hidden("team").into(), behind("a", pod("a", "10.0.0.2")).into()];
    expect(own, "10.1.0.1:80", "hbone 10.0.0.2:8080 via 10.0.0.2:15008");
}

#[test]
fn workload_on_the_host_network_is_reached_only_as_an_endpoint() {
    let host = Workload {
        network_mode: NetworkMode::HostNetwork,
        ..behind("a", plain(pod("a", "192.168.0.1")))
    };
    let changes = vec![service("a", "10.1.0.1").into(), host.into()];
    expect(changes.clone(), "192.168.0.1:22", "tcp 192.168.0.1:22");
    expect(changes, "10.1.0.1:80", "tcp 192.168.0.1:8080");
}

#[test]
fn service_may_choose_the_client_itself() {
    let source = behind("a", client());
    let mesh = mesh([service("a", "10.1.0.1").into(), source.clone().into()]);
    let line = says(&mesh, &source, "10.1.0.1:80");
    assert_eq!(line, "hbone 10.0.0.1:8080 via 10.0.0.1:15008");
}

#[test]
fn unhealthy_zero_weight_and_wrong_port_leave_no_upstream() {
    let none = "no healthy upstream: 10.1.0.1:80";
    let a: Change = service("a", "10.1.0.1").into();
    let ill = Workload { health: Health::Unhealthy, ..behind("a", pod("a", "10.0.0.2")) };
    expect(vec![a.clone(), ill.into()], "10.1.0.1:80", none);
    let idle = Workload { capacity: 0, ..behind("a", pod("a", "10.0.0.2")) };
    expect(vec![a.clone(), idle.into()], "10.1.0.1:80", none);
    let well: Change = behind("a", pod("a", "10.0.0.2")).into();
    expect(vec![a, well], "10.1.0.1:81", "no healthy upstream: 10.1.0.1:81");
}

#[test]
fn named_target_port_is_the_endpoints_own() {
    let mut a = service("a", "10.1.0.1");
    a.ports[0].target_port = None;
    let knows = Workload {
        services: [(a.key.clone(), [(80, 9000)].into())].into(),
        ..pod("knows", "10.0.0.2")
    };
    let lacks: Change = behind("a", pod("lacks", "10.0.0.3")).into();
    let expected = "hbone 10.0.0.2:9000 via 10.0.0.2:15008";
    expect(vec![a.into(), knows.into(), lacks], "10.1.0.1:80", expected);
}

#[test]
fn locality_modes_choose_among_endpoints() {
    let near: Change = behind("a", pod("near", "10.0.0.2")).into();
    let far: Change =
        Workload { node: "other".into(), ..behind("a", pod("far", "10.0.0.3")) }.into();
    let mode = |mode| balanced(service("a", "10.1.0.1"), mode, &[Scope::Node]).into();
    let near_only = "hbone 10.0.0.2:8080 via 10.0.0.2:15008";
    let far_only = "hbone 10.0.0.3:8080 via 10.0.0.3:15008";
    let both = format!("{near_only}, {far_only}");
    use BalancingMode::{Any, Failover, Strict};
    expect(vec![mode(Any), near.clone(), far.clone()], "10.1.0.1:80", &both);
    expect(vec![mode(Strict), near.clone(), far.clone()], "10.1.0.1:80", near_only);
    expect(vec![mode(Failover), near, far.clone()], "10.1.0.1:80", near_only);
    expect(vec![mode(Failover), far.clone()], "10.1.0.1:80", far_only);
    expect(vec![mode(Strict), far], "10.1.0.1:80", "no healthy upstream: 10.1.0.1:80");
}

#[test]
fn plain_workload_with_only_a_name_is_left_to_dns_and_a_meshed_one_fails() {
    let named = Workload {
        addresses: Box::default(),
        hostname: Some("db.example.com".into()),
        ..behind("a", plain(pod("db", "0.0.0.0")))
    };
    let a: Change = service("a", "10.1.0.1").into();
    expect(vec![a.clone(), named.clone().into()], "10.1.0.1:80", "tcp db.example.com:8080");
    let meshed = Workload { protocol: Protocol::Hbone, ..named };
    let expected = "workload Kubernetes//Pod/team/db has no address";
    expect(vec![a, meshed.into()], "10.1.0.1:80", expected);
}

#[test]
fn calls_to_our_own_ports_on_loopback_are_loops() {
    for port in OWN_PORTS {
        let destination = format!("127.0.0.1:{port}");
        expect(vec![], &destination, "attempted recursive call to ourselves");
    }
    expect(vec![], "127.0.0.1:80", "tcp 127.0.0.1:80");
}
