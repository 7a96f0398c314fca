//! Capture in a real kernel: what is redirected, what is left alone, what stays and what goes.

use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::ensure;
use harness::netlink::Link;
use harness::netns::NetNs;
use std::os::fd::AsFd as _;
use ztunnel::redirect::capture::{self, Applied};
use ztunnel::redirect::{Capture, Home, Namespace, netns};

use super::captured::{Captured, NODE, POD, address, at, ip, nothing_came, talk};
use super::suite::Case;

pub(crate) const CASES: &[Case] = &[
    ("redirect::outbound_is_captured_and_names_its_destination", &[], outbound_is_captured),
    ("redirect::loopback_and_own_addresses_are_left_alone", &[], own_addresses_are_left_alone),
    ("redirect::traffic_of_the_proxy_is_not_captured", &[], proxy_is_not_captured),
    ("redirect::probe_address_is_left_alone_both_ways", &[], probes_are_left_alone),
    ("redirect::plaintext_goes_to_15006_and_tunnels_to_15008", &[], inbound_is_captured),
    ("redirect::client_address_is_kept_both_families", &[], client_address_is_kept),
    ("redirect::bypass_leaves_inbound_alone", &[], bypass_leaves_inbound_alone),
    ("redirect::traffic_of_nested_machines_is_outbound", &[], nested_machines_are_outbound),
    ("redirect::rules_stay_without_a_process_and_fail_closed", &[], rules_stay),
    ("redirect::uncapture_leaves_nothing", &[], uncapture_leaves_nothing),
    (
        "redirect::applying_again_changes_nothing_and_other_rules_are_noticed",
        &[],
        rules_are_read_back,
    ),
    ("redirect::replacing_rules_opens_no_gap", &[], replacing_opens_no_gap),
    ("redirect::waiting_connections_move_to_the_other_listener", &[], queues_move),
    ("redirect::without_ipv6_on_lo_only_ipv4_has_a_way_back", &[], ipv6_may_be_disabled),
    ("redirect::wrong_namespaces_are_refused", &[], wrong_namespaces_are_refused),
];

fn captured(capture: &Capture) -> anyhow::Result<Captured> {
    let world = Captured::new()?;
    ensure!(capture.apply(&world.namespace)? == Applied::Written);
    Ok(world)
}

fn outbound_is_captured() -> anyhow::Result<()> {
    let world = captured(&Capture::default())?;
    let listeners = world.listen()?;
    for to in ["10.0.0.1:80", "[fd00::1]:80", "1.2.3.4:443", "[2001:db8::1]:443"] {
        let client = world.connect(&world.pod, to)?;
        ensure!(client.peer_addr()? == address(to));
        ensure!(world.destination(&listeners.outbound)? == address(to));
    }
    Ok(())
}

fn own_addresses_are_left_alone() -> anyhow::Result<()> {
    let world = captured(&Capture::default())?;
    let listeners = world.listen()?;
    let app = world.serve(&world.pod, "[::]:8080")?;
    for host in ["127.0.0.1", "::1", POD[0], POD[1]] {
        let mut client = world.connect(&world.pod, &at(host, 8080))?;
        let (mut server, _) = world.accept(&app)?;
        talk(&mut client, &mut server)?;
    }
    nothing_came(&listeners.outbound)?;
    nothing_came(&listeners.inbound)
}

fn proxy_is_not_captured() -> anyhow::Result<()> {
    let world = captured(&Capture::default())?;
    let listeners = world.listen()?;
    let server = world.serve(&world.node, "[::]:9090")?;
    for (host, own) in NODE.into_iter().zip(POD) {
        let mut client = world.dial(&at(host, 9090), None)?;
        let (mut accepted, peer) = world.accept(&server)?;
        ensure!(peer.ip() == ip(own), "outbound has the pod's own address, not {peer}");
        talk(&mut client, &mut accepted)?;
    }
    nothing_came(&listeners.outbound)
}

fn probes_are_left_alone() -> anyhow::Result<()> {
    let world = captured(&Capture::default())?;
    let listeners = world.listen()?;
    let app = world.serve(&world.pod, "0.0.0.0:8080")?;
    let probe = address("169.254.7.127:0");
    let mut client = world.node.run(|| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        socket.bind(&probe.into())?;
        socket.connect(&address("10.0.0.2:8080").into())?;
        Ok(TcpStream::from(socket))
    })?;
    let (mut server, peer) = world.accept(&app)?;
    ensure!(peer.ip() == probe.ip());
    talk(&mut client, &mut server)?;
    let kubelet = world.serve(&world.node, "169.254.7.127:7070")?;
    let mut client = world.connect(&world.pod, "169.254.7.127:7070")?;
    talk(&mut client, &mut world.accept(&kubelet)?.0)?;
    nothing_came(&listeners.inbound)?;
    nothing_came(&listeners.outbound)
}

fn inbound_is_captured() -> anyhow::Result<()> {
    let world = captured(&Capture::default())?;
    let listeners = world.listen()?;
    let app = world.serve(&world.pod, "[::]:8080")?;
    for (host, own) in POD.into_iter().zip(NODE) {
        let _client = world.connect(&world.node, &at(host, 8080))?;
        ensure!(world.destination(&listeners.inbound)? == address(&at(host, 8080)));
        let _peer = world.connect(&world.node, &at(host, 15008))?;
        let (tunnel, peer) = world.accept(&listeners.tunnel)?;
        ensure!(peer.ip() == ip(own));
        drop(tunnel);
    }
    nothing_came(&app)?;
    nothing_came(&listeners.inbound)
}

fn client_address_is_kept() -> anyhow::Result<()> {
    let world = captured(&Capture::default())?;
    let app = world.serve(&world.pod, "[::]:8080")?;
    let clients =
        [(POD[0], NODE[0]), (POD[0], "9.9.9.9"), (POD[1], NODE[1]), (POD[1], "2001:db8::9")];
    for (host, client) in clients {
        let mut proxy = world.dial(&at(host, 8080), Some(client))?;
        let (mut server, peer) = world.accept(&app)?;
        ensure!(peer.ip() == ip(client), "the application sees {peer}");
        talk(&mut proxy, &mut server)?;
    }
    // A pod that calls itself through the mesh does not see itself as its client's address.
    let mut proxy = world.dial(&at(POD[0], 8080), Some(POD[0]))?;
    talk(&mut proxy, &mut world.accept(&app)?.0)
}

fn bypass_leaves_inbound_alone() -> anyhow::Result<()> {
    let world = captured(&Capture { bypass_inbound: true, ..Capture::default() })?;
    let listeners = world.listen()?;
    let app = world.serve(&world.pod, "[::]:8080")?;
    let mut client = world.connect(&world.node, &at(POD[0], 8080))?;
    talk(&mut client, &mut world.accept(&app)?.0)?;
    nothing_came(&listeners.inbound)?;
    let _client = world.connect(&world.pod, "1.2.3.4:80")?;
    ensure!(world.destination(&listeners.outbound)? == address("1.2.3.4:80"));
    Ok(())
}

fn nested_machines_are_outbound() -> anyhow::Result<()> {
    let capture = Capture { reroute_interfaces: vec!["vm0".to_owned()], ..Capture::default() };
    let world = captured(&capture)?;
    let listeners = world.listen()?;
    let machine = NetNs::new()?;
    world.pod.run(|| {
        let link = Link::open()?;
        link.add_veth("vm0", "eth0", machine.as_fd())?;
        link.add_address("vm0", ip("192.168.7.1"), 24)?;
        link.up("vm0")
    })?;
    machine.run(|| {
        let link = Link::open()?;
        link.add_address("eth0", ip("192.168.7.2"), 24)?;
        link.up("eth0")?;
        link.add_route((ip("0.0.0.0"), 0), Some(ip("192.168.7.1")), "eth0")
    })?;
    let _client = world.connect(&machine, "1.2.3.4:80")?;
    ensure!(world.destination(&listeners.outbound)? == address("1.2.3.4:80"));
    nothing_came(&listeners.inbound)
}

fn rules_stay() -> anyhow::Result<()> {
    let world = captured(&Capture::default())?;
    let server = world.serve(&world.node, "[::]:9090")?;
    drop(world.listen()?);
    for host in NODE {
        let refused = world.connect(&world.pod, &at(host, 9090));
        ensure!(refused.is_err(), "traffic must not leave uncaptured");
    }
    nothing_came(&server)?;
    Ok(Capture::default().verify(&world.namespace)?)
}

fn uncapture_leaves_nothing() -> anyhow::Result<()> {
    let world = Captured::new()?;
    ensure!(!capture::is_captured(&world.namespace)?);
    capture::keep_accept_queues(&world.namespace)?;
    capture::uncapture(&world.pod.path())?;
    ensure!(capture::moves_accept_queues(&world.namespace), "a setting that is not of capture");
    Capture::default().apply(&world.namespace)?;
    ensure!(capture::is_captured(&world.namespace)?);
    capture::uncapture(&world.pod.path())?;
    ensure!(!capture::is_captured(&world.namespace)?);
    ensure!(!capture::moves_accept_queues(&world.namespace), "a setting of capture is left");
    capture::uncapture(&world.pod.path())?;
    let server = world.serve(&world.node, "[::]:9090")?;
    for host in NODE {
        let mut client = world.connect(&world.pod, &at(host, 9090))?;
        talk(&mut client, &mut world.accept(&server)?.0)?;
    }
    Ok(())
}

fn rules_are_read_back() -> anyhow::Result<()> {
    let world = captured(&Capture::default())?;
    let other = Capture { bypass_inbound: true, ..Capture::default() };
    ensure!(Capture::default().apply(&world.namespace)? == Applied::Unchanged);
    ensure!(matches!(other.verify(&world.namespace), Err(capture::Error::Different(_))));
    ensure!(other.apply(&world.namespace)? == Applied::Written);
    ensure!(Capture::default().verify(&world.namespace).is_err());
    let nameless = Capture { reroute_interfaces: vec!["a name".to_owned()], ..Capture::default() };
    ensure!(matches!(nameless.apply(&world.namespace), Err(capture::Error::Interface(_))));
    Ok(other.verify(&world.namespace)?)
}

fn replacing_opens_no_gap() -> anyhow::Result<()> {
    let world = captured(&Capture::default())?;
    let listeners = world.listen()?;
    let open = world.serve(&world.node, "[::]:9090")?;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let other =
                Capture { reroute_interfaces: vec!["vm0".to_owned()], ..Capture::default() };
            let plain = Capture::default();
            let mut turns = [&other, &plain].into_iter().cycle();
            let mut written = 0;
            while !done.load(Ordering::Relaxed) {
                turns.next().expect("cycles").apply(&world.namespace)?;
                written += 1;
            }
            Ok::<_, capture::Error>(written)
        });
        let check = || {
            for _ in 0..1000 {
                for host in NODE {
                    drop(world.connect(&world.pod, &at(host, 9090))?);
                    world.accept(&listeners.outbound)?;
                }
            }
            nothing_came(&open)
        };
        let checked = check();
        done.store(true, Ordering::Relaxed);
        let written = writer.join().expect("the writer does not panic")?;
        ensure!(written > 3, "only {written} replacements while connections were made");
        checked
    })
}

fn queues_move() -> anyhow::Result<()> {
    const WAITING: usize = 200;
    let world = captured(&Capture::default())?;
    capture::keep_accept_queues(&world.namespace)?;
    let (old, new) = (world.listen()?, world.listen()?);
    ensure!(capture::listeners(&world.namespace, 15001)? == 2);
    let mut clients = Vec::new();
    for _ in 0..WAITING {
        clients.push(world.connect(&world.pod, "1.2.3.4:80")?);
    }
    drop(old);
    ensure!(capture::listeners(&world.namespace, 15001)? == 1);
    let mut servers = Vec::new();
    for _ in 0..WAITING {
        servers.push(world.accept(&new.outbound)?);
    }
    // Who is whose is found by the client's address.
    for client in &mut clients {
        let own = client.local_addr()?;
        let (server, _) =
            servers.iter_mut().find(|(_, peer)| *peer == own).expect("every client was accepted");
        talk(client, server)?;
    }
    Ok(())
}

fn ipv6_may_be_disabled() -> anyhow::Result<()> {
    let world = Captured::new()?;
    world.pod.set("ipv6/conf/all/disable_ipv6", "1")?;
    world.pod.set("ipv6/conf/lo/disable_ipv6", "1")?;
    Capture::default().apply(&world.namespace)?;
    let listeners = world.listen()?;
    let _client = world.connect(&world.pod, "1.2.3.4:80")?;
    ensure!(world.destination(&listeners.outbound)? == address("1.2.3.4:80"));
    capture::uncapture(&world.pod.path())?;
    ensure!(!capture::is_captured(&world.namespace)?);
    Ok(())
}

fn wrong_namespaces_are_refused() -> anyhow::Result<()> {
    let home = Home::current()?;
    let open = |path: &str| Namespace::open(Path::new(path), &home);
    ensure!(matches!(open("/proc/thread-self/ns/net"), Err(netns::Error::Own)));
    ensure!(matches!(open("/proc/thread-self/ns/mnt"), Err(netns::Error::NotANamespace)));
    ensure!(matches!(open("/etc/passwd"), Err(netns::Error::NotANamespace)));
    ensure!(matches!(open("/nowhere"), Err(netns::Error::Open(_))));
    let world = Captured::new()?;
    ensure!(Namespace::open(&world.pod.path(), &home)?.id() == world.namespace.id());
    // None of this left the thread in another namespace.
    ensure!(Home::current()?.id() == home.id());
    Ok(())
}
