use shared::mesh::{
    GatewayAddress, GatewayDestination, NetworkAddr, ServicePort, WeightedWaypoint, sample, writer,
};

use super::*;

const POD: &str = "10.0.0.2";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn pod() -> Workload {
    let services = [(sample::service_key("a", "team"), Box::default())].into();
    Workload { addresses: [ip(POD)].into(), services, ..sample::workload("a", "team") }
}

fn service() -> Service {
    let port = ServicePort {
        port: 80,
        target_port: Some(8080),
        app_protocol: shared::mesh::AppProtocol::Unknown,
        name: "".into(),
    };
    let vip = NetworkAddr { network: "".into(), address: ip("10.1.0.1") };
    Service { ports: [port].into(), vips: [vip].into(), ..sample::service("a", "team") }
}

fn deliver_in(services: Vec<Service>, workload: &Workload, text: &str) -> Result<Delivery, Error> {
    let (mut writer, reader) = writer();
    writer.apply(services.into_iter().map(Into::into).chain([workload.clone().into()]));
    let listener =
        Listener { workload, addresses: &[ip(POD), ip("fd00::2")], local: ip(POD), loopback: true };
    listener.deliver(&reader.load(), &text.parse()?)
}

fn deliver(workload: &Workload, text: &str) -> Result<Delivery, Error> {
    deliver_in(vec![service()], workload, text)
}

#[test]
fn authority_is_an_address_or_a_host_with_a_port() {
    assert_eq!("1.2.3.4:5".parse(), Ok(Authority::Address(at("1.2.3.4:5"))));
    assert_eq!("[::1]:5".parse(), Ok(Authority::Address(at("[::1]:5"))));
    assert_eq!("[::ffff:1.2.3.4]:5".parse(), Ok(Authority::Address(at("1.2.3.4:5"))));
    assert_eq!("a.b:5".parse(), Ok(Authority::Host("a.b".into(), 5)));
}

#[test]
fn other_authorities_are_invalid() {
    let long = format!("{}:80", "a".repeat(300));
    for text in [
        "",
        ":",
        ":80",
        "a",
        "a:",
        "1.2.3.4",
        "1.2.3.4:0",
        "a:0",
        "a:+80",
        "a:70000",
        "a b:80",
        "http://a:80",
        "u@a:80",
        "::1:80:",
        "a/b:80",
        "[::1]",
        "\u{e9}:80",
        &long,
    ] {
        assert!(matches!(text.parse::<Authority>(), Err(BadAuthority { .. })), "{text:?}");
    }
}

#[test]
fn tunnel_to_the_pods_own_addresses_is_delivered() {
    assert_eq!(deliver(&pod(), "10.0.0.2:80").unwrap().application, at("10.0.0.2:80"));
    assert_eq!(deliver(&pod(), "[fd00::2]:80").unwrap().application, at("[fd00::2]:80"));
}

#[test]
fn tunnel_to_a_foreign_address_is_refused() {
    for text in ["10.0.0.3:80", "127.0.0.1:80", "10.1.0.1:80", "169.254.169.254:80"] {
        let error = deliver(&pod(), text).unwrap_err();
        assert_eq!(error, Error::Foreign { local: ip(POD), asked: at(text).ip() });
    }
    let text = deliver(&pod(), "10.0.0.3:80").unwrap_err().to_string();
    assert_eq!(text, "ip mismatch: 10.0.0.2 != 10.0.0.3");
}

#[test]
fn waypoint_without_tunnel_takes_what_it_fronts_also_by_weight() {
    let waypoint = GatewayAddress {
        destination: GatewayDestination::Hostname(sample::service_key("a", "team")),
        hbone_mtls_port: 15008,
    };
    let fronted = |name: &str, vip: &str| {
        let vip = NetworkAddr { network: "".into(), address: ip(vip) };
        Service { vips: [vip].into(), ..sample::service(name, "team") }
    };
    let single = Service { waypoint: Some(waypoint.clone()), ..fronted("b", "10.1.0.5") };
    let weighted = WeightedWaypoint { destination: waypoint, weight: 1 };
    let weighted = Service { weighted_waypoints: [weighted].into(), ..fronted("c", "10.1.0.6") };
    let services = vec![service(), single, weighted, fronted("d", "10.1.0.7")];
    for text in ["10.1.0.5:80", "10.1.0.6:80"] {
        let delivery = deliver_in(services.clone(), &pod(), text).unwrap();
        assert_eq!(delivery.application, at("10.0.0.2:80"), "{text}");
    }
    assert!(deliver_in(services, &pod(), "10.1.0.7:80").is_err());
}

#[test]
fn host_leads_to_the_port_of_its_service() {
    let delivery = deliver(&pod(), "a.team.svc.cluster.local:80").unwrap();
    assert_eq!(delivery.application, at("10.0.0.2:8080"));
    assert_eq!(delivery.service.unwrap().name, "a".into());
    let own = [(sample::service_key("a", "team"), [(80, 9000)].into())].into();
    let delivery =
        deliver(&Workload { services: own, ..pod() }, "a.team.svc.cluster.local:80").unwrap();
    assert_eq!(delivery.application, at("10.0.0.2:9000"));
}

#[test]
fn host_that_is_unknown_or_has_no_such_port_is_refused() {
    let unknown = deliver(&pod(), "b.team.svc.cluster.local:80").unwrap_err();
    assert!(matches!(unknown, Error::ServiceUnknown(_)));
    let portless = deliver(&pod(), "a.team.svc.cluster.local:81").unwrap_err();
    assert!(matches!(portless, Error::PortUnresolved(_)));
    let stranger = Workload { services: Box::default(), ..pod() };
    assert!(deliver(&stranger, "a.team.svc.cluster.local:80").is_err());
}

#[test]
fn our_own_ports_are_reserved() {
    for port in OWN_PORTS {
        let error = deliver(&pod(), &format!("10.0.0.2:{port}")).unwrap_err();
        assert_eq!(error, Error::PortReserved(port));
    }
}

#[test]
fn application_tunnel_takes_every_target_on_its_port() {
    let tunnel = |protocol| Workload {
        app_tunnel: Some(AppTunnel { protocol, port: Some(15088) }),
        ..pod()
    };
    let plain = deliver(&tunnel(AppTunnelProtocol::None), "10.9.9.9:80").unwrap();
    assert_eq!(plain.application, at("10.0.0.2:15088"));
    assert_eq!((plain.loopback, plain.announced), (None, None));
    let proxy = deliver(&tunnel(AppTunnelProtocol::Proxy), "10.9.9.9:80").unwrap();
    assert_eq!(proxy.loopback, Some(at("127.0.0.1:15088")));
    assert_eq!(proxy.announced, Some(at("10.9.9.9:80")));
    let named = deliver(&tunnel(AppTunnelProtocol::Proxy), "a.team.svc.cluster.local:80").unwrap();
    assert_eq!(named.announced, Some(at("10.1.0.1:80")));
}

#[test]
fn application_tunnel_cannot_announce_a_service_without_address() {
    let tunnel = Workload {
        app_tunnel: Some(AppTunnel { protocol: AppTunnelProtocol::Proxy, port: None }),
        ..pod()
    };
    let headless = Service { vips: Box::default(), ..service() };
    let error = deliver_in(vec![headless], &tunnel, "a.team.svc.cluster.local:80").unwrap_err();
    assert!(matches!(error, Error::NoVip(_)));
}

#[test]
fn service_is_guessed_by_name_then_by_port() {
    let (mut writer, reader) = writer();
    let other = Service { key: sample::service_key("b", "team"), name: "b".into(), ..service() };
    let mut workload = pod();
    workload.services =
        ["a", "b"].map(|name| (sample::service_key(name, "team"), Box::default())).into();
    writer.apply([service().into(), other.into()]);
    let mesh = reader.load();
    let listener = Listener { workload: &workload, addresses: &[], local: ip(POD), loopback: true };
    let guess = |port, named| {
        let found = listener.guess_service(&mesh, SocketAddr::new(ip(POD), port), named);
        found.map(|service| service.name.to_string())
    };
    assert_eq!(guess(8080, Some("b.team.svc.cluster.local")).as_deref(), Some("b"));
    assert_eq!(guess(8080, Some("evil.example.com")).as_deref(), Some("a"));
    assert_eq!(guess(8080, None).as_deref(), Some("a"));
    assert_eq!(guess(9, None), None);
}

proptest::proptest! {
    #[test]
    fn whatever_is_asked_leads_to_the_pod_or_nowhere(text in "[0-9a-z.:\\[\\]]{0,30}") {
        if let Ok(delivery) = deliver(&pod(), &text) {
            proptest::prop_assert!([ip(POD), ip("fd00::2")].contains(&delivery.application.ip()));
        }
    }
}
