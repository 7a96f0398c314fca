//! What a peer asks a tunnel for: any text as `:authority`, at each kind of pod.
//!
//! First byte: which pod, and whether it was reached by IPv6. The rest: the authority.
//! Laws: what is printed parses to the same; a tunnel leads to the pod that it was opened to and
//! never to a port of ztunnel's own; only a waypoint stands in front of another's address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, LazyLock};

use shared::headers::Authority;
use shared::mesh::{
    AppProtocol, AppTunnel, AppTunnelProtocol, GatewayAddress, GatewayDestination, Mesh,
    NetworkAddr, Service, ServicePort, Workload, sample, writer,
};
use ztunnel::inbound::target::{Delivery, Error, Listener};
use ztunnel::outbound::resolve::OWN_PORTS;

use crate::planted;

/// Of every pod.
const ADDRESSES: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2)),
];
/// Of the service that has the pod as its waypoint.
const FRONTED: [u8; 4] = [10, 1, 0, 5];
/// Longer than the longest authority in a message, with each byte escaped.
const LONGEST_MESSAGE_BYTES: usize = 260 * 10 + 100;

static MESH: LazyLock<Arc<Mesh>> = LazyLock::new(|| {
    let (mut writer, reader) = writer();
    let waypoint = GatewayAddress {
        destination: GatewayDestination::Hostname(sample::service_key("a", "team")),
        hbone_mtls_port: 15008,
    };
    let fronted = Service { waypoint: Some(waypoint), ..service("b", FRONTED) };
    let changes = [service("a", [10, 1, 0, 1]), service("c", [10, 1, 0, 6]), fronted];
    writer.apply(changes.map(Into::into));
    reader.load()
});

fn service(name: &str, vip: [u8; 4]) -> Service {
    let port = |port, target_port| ServicePort {
        port,
        target_port,
        app_protocol: AppProtocol::Unknown,
        name: "".into(),
    };
    let ports = [port(80, Some(8080)), port(443, None), port(15, Some(15008))];
    let vip = NetworkAddr { network: "".into(), address: vip.into() };
    Service { vips: [vip].into(), ports: ports.into(), ..sample::service(name, "team") }
}

/// An ordinary pod, which is also a waypoint; then with each kind of application tunnel.
fn pod(kind: u8) -> Workload {
    let tunnel = |protocol, port| Some(AppTunnel { protocol, port });
    let app_tunnel = match kind % 4 {
        0 => None,
        1 => tunnel(AppTunnelProtocol::None, None),
        2 => tunnel(AppTunnelProtocol::Proxy, None),
        _ => tunnel(AppTunnelProtocol::Proxy, Some(15088)),
    };
    let services = [(sample::service_key("a", "team"), [(443, 9443)].into())].into();
    Workload { addresses: ADDRESSES.into(), services, app_tunnel, ..sample::workload("a", "team") }
}

/// Checks the laws on one input.
pub fn check(input: &[u8]) {
    let Some((&choice, text)) = input.split_first() else { return };
    let authority = match String::from_utf8_lossy(text).parse::<Authority>() {
        Ok(authority) => authority,
        Err(error) => return assert!(error.to_string().len() <= LONGEST_MESSAGE_BYTES),
    };
    assert_eq!(authority.to_string().parse(), Ok(authority.clone()), "parses what it prints");
    let pod = pod(choice);
    let local = ADDRESSES[usize::from(choice >> 2 & 1)];
    let loopback = choice & 8 != 0;
    let listener = Listener { workload: &pod, addresses: &ADDRESSES, local, loopback };
    match listener.deliver(&MESH, &authority) {
        Ok(delivery) => delivered(&pod, loopback, &authority, &delivery),
        Err(error) => {
            assert!(error.to_string().len() <= LONGEST_MESSAGE_BYTES);
            let by_name = matches!(authority, Authority::Host(..));
            planted(by_name && matches!(error, Error::PortReserved(_)));
        }
    }
}

fn delivered(pod: &Workload, loopback: bool, authority: &Authority, delivery: &Delivery) {
    let to = delivery.application;
    assert!(ADDRESSES.contains(&to.ip()), "leads out of the pod: {to}");
    assert!(to.port() > 0 && !OWN_PORTS.contains(&to.port()), "leads back to us: {to}");
    match authority {
        Authority::Address(asked) => {
            let ours = ADDRESSES.contains(&asked.ip()) && to.ip() == asked.ip();
            let in_front = pod.app_tunnel.is_some() || asked.ip() == IpAddr::from(FRONTED);
            assert!(ours || in_front, "{asked} is another's address");
            assert!(!asked.ip().to_canonical().is_ipv4() || asked.is_ipv4(), "one form only");
        }
        Authority::Host(host, _) => {
            let service = delivery.service.as_ref().expect("a host is a service");
            assert_eq!(*service.key.hostname, **host);
            assert!(pod.services.iter().any(|(key, _)| *key == service.key), "not its endpoint");
        }
    }
    let wants_header = pod.app_tunnel.filter(|one| one.protocol == AppTunnelProtocol::Proxy);
    assert_eq!(delivery.announced.is_some(), wants_header.is_some());
    let dialled = delivery.loopback.map(|at| (at.ip().is_loopback(), at.is_ipv4(), at.port()));
    let expected = (loopback && wants_header.is_some()).then(|| (true, to.is_ipv4(), to.port()));
    assert_eq!(dialled, expected, "over loopback");
}
