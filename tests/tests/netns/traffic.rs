//! Traffic from node to node, while proxies restart, die and meet what is wrong.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::ensure;
use harness::eventually::{eventually, pause};
use harness::mesh_dir::Service;
use harness::pod::{Pod, PodSpec};
use harness::proxies::Ztunnel;
use harness::role::{load, sniff};
use rustix::process::Signal;

use super::mesh::{Mesh, SOON, serve};
use super::suite::Case;

pub(crate) const CASES: &[Case] = &[
    ("traffic::a_service_is_reached_and_spread_in_both_families", &[], a_service_is_reached),
    ("traffic::the_wire_is_tls_through_restart_kill_and_join", &[], the_wire_is_tls),
    ("traffic::a_killed_ztunnel_fails_closed", &[], a_killed_ztunnel_fails_closed),
    ("traffic::wrong_namespaces_do_not_hurt_the_others", &[], wrong_namespaces),
];

fn a_service_is_reached() -> anyhow::Result<()> {
    let mesh = Mesh::new("service")?;
    let beside = mesh.pod(PodSpec::new("beside").label("app", "server"))?;
    let _servers = [serve(&mesh.server, "http", 8080)?, serve(&beside, "http", 8080)?];
    let addresses: [IpAddr; 2] = ["10.96.0.1".parse()?, "fd00:96::1".parse()?];
    mesh.cluster.mesh().service(&Service {
        name: "server",
        namespace: "default",
        addresses: &addresses,
        ports: &[(80, 8080)],
        app: "server",
    })?;
    for vip in addresses {
        let target = SocketAddr::new(vip, 80).to_string();
        eventually(SOON, "the service is known", || {
            let (status, _) = mesh.client.get(&target, "/").map_err(|error| error.to_string())?;
            if status == 200 { Ok(()) } else { Err(format!("status {status}")) }
        })?;
        let report: load::Report = mesh
            .client
            .role("load")
            .args(["--target", &target, "--requests", "200", "--rate", "200", "--fresh"])
            .start()?
            .result(SOON)?;
        ensure!(report.failed() == 0 && report.ok == 200, "{report:?}");
        for name in [mesh.server.name(), beside.name()] {
            let part = report.servers.get(name).copied().unwrap_or_default();
            ensure!(part >= 40, "{name} got {part} of 200: {report:?}");
        }
    }
    let (_, body) = mesh.client.get(&SocketAddr::new(mesh.server.ipv6(), 8080).to_string(), "/")?;
    ensure!(body.contains(&mesh.client.ipv6().to_string()), "the client's address is kept: {body}");
    Ok(())
}

fn the_wire_is_tls() -> anyhow::Result<()> {
    let mut mesh = Mesh::new("wire")?;
    let mut watch =
        mesh.cluster.fabric_role("sniff").args(["--interface", &mesh.near.port()]).start()?;
    watch.line_with("watching", SOON)?;
    let _http = mesh.serve("http", 80)?;
    let load = |from: &Pod| {
        from.role("load").args(["--target", "server:80", "--rate", "100", "--fresh"]).start()
    };
    // A restart: the second one beside the first, then the first one ends. Nothing may fail.
    let restart = load(&mesh.client)?;
    let mut second = Ztunnel::start(&mesh.cluster, &mesh.far, &mesh.authority)?;
    second.ready()?;
    mesh.far_ztunnel.process().signal(Signal::TERM)?;
    mesh.far_ztunnel.process().wait(SOON)?;
    mesh.far_ztunnel = second;
    // The restart itself is over in a moment; the load goes on through the new process.
    pause(Duration::from_secs(1));
    let report: load::Report = restart.finish(SOON)?;
    ensure!(report.failed() == 0 && report.ok > 20, "restarting failed connections: {report:?}");
    // A pod joins while it talks.
    let joining = mesh.cluster.pod(&mesh.near, PodSpec::new("joining"))?;
    eventually(SOON, "the new pod talks", || {
        joining.get(&format!("{}:80", mesh.server.ip()), "/").map(drop)
    })?;
    // A kill: connections fail, but none goes out in plaintext.
    let killed = load(&mesh.client)?;
    mesh.near_ztunnel.process().signal(Signal::KILL)?;
    mesh.near_ztunnel.process().wait(SOON)?;
    eventually(SOON, "connections fail without a ztunnel", || {
        match mesh.client.get(&format!("{}:80", mesh.server.ip()), "/") {
            Ok(answer) => Err(format!("{answer:?}")),
            Err(_) => Ok(()),
        }
    })?;
    let _: load::Report = killed.finish(SOON)?;
    let report: sniff::Report = watch.finish(SOON)?;
    let known = [mesh.client.ip(), mesh.server.ip(), mesh.client.ipv6(), mesh.server.ipv6()];
    report.all_tls(&known)?;
    Ok(())
}

fn a_killed_ztunnel_fails_closed() -> anyhow::Result<()> {
    let mut mesh = Mesh::new("killed")?;
    let _http = mesh.serve("http", 80)?;
    let target = format!("{}:80", mesh.server.ip());
    mesh.client.get(&target, "/")?;
    mesh.far_ztunnel.process().signal(Signal::KILL)?;
    mesh.far_ztunnel.process().wait(SOON)?;
    // Neither through the tunnel nor, from outside of the mesh, past the missing proxy.
    let outsider = mesh.cluster.pod(&mesh.near, PodSpec::new("outsider").outside())?;
    for from in [&mesh.client, &outsider] {
        let answer = from.get(&target, "/");
        ensure!(answer.is_err(), "{} reached the application: {answer:?}", from.name());
    }
    let mut again = Ztunnel::start(&mesh.cluster, &mesh.far, &mesh.authority)?;
    again.ready()?;
    let (status, _) = eventually(SOON, "service returns", || mesh.client.get(&target, "/"))?;
    ensure!(status == 200);
    Ok(())
}

fn wrong_namespaces() -> anyhow::Result<()> {
    let mesh = Mesh::new("annotations")?;
    let _http = mesh.serve("http", 80)?;
    let plain = mesh.cluster.dir().join("plain-file");
    std::fs::write(&plain, "no namespace")?;
    let taken = mesh.server.netns().path().display().to_string();
    let own = mesh.far.netns().path().display().to_string();
    let wrong = [("plain", plain.display().to_string()), ("host", own), ("taken", taken)];
    for (name, path) in wrong {
        let pod = mesh.cluster.pod(&mesh.far, PodSpec::new(name).unannounced())?;
        mesh.cluster.mesh().write(&pod.file(), &pod.yaml_with_netns(&path))?;
        eventually(SOON, "the refusal is told", || {
            let told = mesh.far_ztunnel.log().into_iter().any(|line| {
                line["pod"] == format!("default/{name}")
                    && line["cause"].as_str().is_some_and(|cause| cause.starts_with("NETNS_"))
            });
            if told { Ok(()) } else { Err(format!("nothing about {name}")) }
        })?;
    }
    let (status, _) = mesh.client.get(&format!("{}:80", mesh.server.ip()), "/")?;
    ensure!(status == 200);
    Ok(())
}
