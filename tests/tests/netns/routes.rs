//! Each kind of destination that there is, and the way that it is reached.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, ensure};
use harness::eventually::eventually;
use harness::mesh_dir::Service;
use harness::pod::{Pod, PodSpec};
use harness::proxies::Ztunnel;
use harness::role::load;
use serde_json::Value;

use super::mesh::{Mesh, SOON, serve};
use super::suite::Case;

pub(crate) const CASES: &[Case] = &[
    ("routes::headless_service", &[], headless_service),
    ("routes::outside_of_the_mesh_in_plaintext_both_ways", &[], outside_of_the_mesh),
    ("routes::same_node_is_mutual_tls_too", &[], same_node),
    ("routes::pod_by_ipv6", &[], pod_by_ipv6),
    ("routes::service_prefers_its_zone_and_fails_over", &[], zone_and_failover),
    ("routes::service_of_the_node_alone", &[], node_alone),
    ("routes::missing_waypoint_fails_closed", &[], missing_waypoint),
    ("routes::variables_of_sockets_are_in_force", &[], variables_of_sockets),
];

fn at(ip: IpAddr, port: u16) -> String {
    SocketAddr::new(ip, port).to_string()
}

/// One request from the client; gives the answer's text.
fn get(from: &Pod, target: &str) -> anyhow::Result<String> {
    let (status, body) = from.get(target, "/").with_context(|| format!("asking {target}"))?;
    ensure!(status == 200, "{target} answers {status}: {body}");
    Ok(body)
}

/// The first line about a finished connection for which `which` holds.
fn line(ztunnel: &Ztunnel, which: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
    eventually(SOON, "the connection is told", || {
        let lines = ztunnel.log();
        lines.into_iter().find(|line| line["scope"] == "access" && which(line)).ok_or("no line")
    })
}

/// Who answers `requests` new connections.
fn answers(from: &Pod, target: &str, requests: u64) -> anyhow::Result<load::Report> {
    let report: load::Report = from
        .role("load")
        .args(["--target", target, "--rate", "100", "--fresh", "--requests"])
        .arg(requests.to_string())
        .start()?
        .result(SOON)?;
    ensure!(report.failed() == 0 && report.ok == requests, "{target}: {report:?}");
    Ok(report)
}

fn headless_service() -> anyhow::Result<()> {
    let mesh = Mesh::new("headless")?;
    let _http = mesh.serve("http", 8080)?;
    let ports = &[(8080, 8080)];
    let (name, namespace, app) = ("database", "default", "server");
    let headless = Service { name, namespace, addresses: &[], ports, app };
    mesh.cluster.mesh().service(&headless)?;
    // Its name stands for the addresses of its pods.
    eventually(SOON, "the service is known", || {
        get(&mesh.client, &at(mesh.server.ip(), 8080)).map_err(|error| format!("{error:#}"))?;
        let known = |line: &Value| line["dst.service"] == "database.default.svc.cluster.local";
        if mesh.far_ztunnel.log().iter().any(known) { Ok(()) } else { Err("no line".to_owned()) }
    })?;
    mesh.was_tunnelled()
}

fn outside_of_the_mesh() -> anyhow::Result<()> {
    let mesh = Mesh::new("outside")?;
    let known = mesh.cluster.pod(&mesh.far, PodSpec::new("known").outside())?;
    let unknown = mesh.cluster.pod(&mesh.far, PodSpec::new("unknown").outside().unannounced())?;
    let _servers =
        [mesh.serve("http", 80)?, serve(&known, "http", 80)?, serve(&unknown, "http", 80)?];
    for (pod, workload) in [(&known, Value::from("known")), (&unknown, Value::Null)] {
        for (to, client) in [(pod.ip(), mesh.client.ip()), (pod.ipv6(), mesh.client.ipv6())] {
            let line = eventually(SOON, "the connection is told", || {
                let body = get(&mesh.client, &at(to, 80)).map_err(|error| format!("{error:#}"))?;
                let sees = body.contains(&client.to_string());
                let told = |line: &Value| {
                    line["dst.addr"] == at(to, 80).as_str() && line["dst.workload"] == workload
                };
                // The proxy may hear of the pod only after it has passed a connection on to it.
                let line = mesh.near_ztunnel.log().into_iter().find(told);
                line.filter(|_| sees).ok_or_else(|| format!("{} sees {body}", pod.name()))
            })?;
            ensure!(line["src.identity"].is_null() && line["dst.hbone_addr"].is_null(), "{line}");
        }
    }
    // The other way round it is taken, without an identity, until mutual TLS is demanded.
    let target = at(mesh.server.ip(), 80);
    get(&unknown, &target)?;
    let line = line(&mesh.far_ztunnel, |line| {
        line["src.addr"].as_str().is_some_and(|from| from.starts_with(&unknown.ip().to_string()))
    })?;
    ensure!(line["src.identity"].is_null(), "{line}");
    mesh.cluster.mesh().strict("server")?;
    eventually(SOON, "plaintext is refused", || match unknown.get(&target, "/") {
        Ok(answer) => Err(format!("{answer:?}")),
        Err(_) => Ok(()),
    })?;
    eventually(SOON, "the refusal is told", || {
        if mesh.far_ztunnel.caused("POLICY_DENIED").is_empty() {
            // What failed before may have failed for another reason.
            return Err(format!("{:?}", unknown.get(&target, "/")));
        }
        Ok(())
    })?;
    get(&mesh.client, &target).map(drop)
}

fn same_node() -> anyhow::Result<()> {
    let mesh = Mesh::new("same-node")?;
    let beside = mesh.pod(PodSpec::new("beside"))?;
    let _http = serve(&beside, "http", 80)?;
    let body = get(&mesh.client, &at(beside.ip(), 80))?;
    ensure!(body.contains(&mesh.client.ip().to_string()), "the client's address is kept: {body}");
    let side = |direction: &'static str| {
        line(&mesh.near_ztunnel, move |line| line["direction"] == direction)
    };
    let (out, into) = (side("outbound")?, side("inbound")?);
    ensure!(
        out["connection"] == into["connection"] && out["connection"].is_string(),
        "{out} {into}"
    );
    for line in [out, into] {
        ensure!(line["src.identity"] == mesh.client.identity(), "{line}");
        ensure!(line["dst.identity"] == beside.identity(), "{line}");
    }
    Ok(())
}

fn pod_by_ipv6() -> anyhow::Result<()> {
    let mesh = Mesh::new("ipv6")?;
    let _http = mesh.serve("http", 80)?;
    let target = at(mesh.server.ipv6(), 80);
    let body = get(&mesh.client, &target)?;
    let client = format!("[{}]", mesh.client.ipv6());
    ensure!(body.contains(&client), "the client's address is kept: {body}");
    answers(&mesh.client, &target, 50)?;
    let line = line(&mesh.far_ztunnel, |line| line["direction"] == "inbound")?;
    ensure!(line["src.identity"] == mesh.client.identity(), "{line}");
    ensure!(line["src.addr"].as_str().is_some_and(|from| from.starts_with(&client)), "{line}");
    ensure!(line["dst.hbone_addr"] == target.as_str(), "{line}");
    Ok(())
}

/// A service in front of the server and of a pod beside the client, with `more` below its `spec`.
fn two_places(mesh: &Mesh, more: &str) -> anyhow::Result<(Pod, String)> {
    for (node, zone) in [(&mesh.near, "a"), (&mesh.far, "b")] {
        let name = node.name();
        let yaml = format!(
            "apiVersion: v1\nkind: Node\nmetadata:\n  name: {name}\n  labels:\n    \
             topology.kubernetes.io/region: r\n    topology.kubernetes.io/zone: {zone}\n"
        );
        mesh.cluster.mesh().write(&format!("node-{name}.yaml"), &yaml)?;
    }
    let vip: IpAddr = "10.96.0.1".parse()?;
    let ports = &[(80, 80)];
    let (name, namespace, app) = ("places", "default", "server");
    let service = Service { name, namespace, addresses: &[vip], ports, app };
    mesh.cluster.mesh().write("service.yaml", &format!("{}{more}", service.yaml()))?;
    let beside = mesh.pod(PodSpec::new("beside").label("app", "server"))?;
    Ok((beside, at(vip, 80)))
}

/// Says of `pod` that it takes no connections.
fn unready(mesh: &Mesh, pod: &Pod) -> anyhow::Result<()> {
    let yaml = pod.yaml().replace("status: \"True\"", "status: \"False\"");
    Ok(mesh.cluster.mesh().write(&pod.file(), &yaml)?)
}

fn zone_and_failover() -> anyhow::Result<()> {
    let mesh = Mesh::new("zone")?;
    let (beside, target) = two_places(&mesh, "  trafficDistribution: PreferClose\n")?;
    let _servers = [mesh.serve("http", 80)?, serve(&beside, "http", 80)?];
    let report = answers(&mesh.client, &target, 50)?;
    ensure!(report.servers.get("beside") == Some(&50), "its own zone alone: {report:?}");
    unready(&mesh, &beside)?;
    eventually(SOON, "the other zone takes over", || {
        let body = get(&mesh.client, &target).map_err(|error| format!("{error:#}"))?;
        if body.starts_with("server ") { Ok(()) } else { Err(body) }
    })?;
    let report = answers(&mesh.client, &target, 50)?;
    ensure!(report.servers.get("server") == Some(&50), "the other zone alone: {report:?}");
    Ok(())
}

fn node_alone() -> anyhow::Result<()> {
    let mesh = Mesh::new("node-alone")?;
    let (beside, target) = two_places(&mesh, "  internalTrafficPolicy: Local\n")?;
    let _servers = [mesh.serve("http", 80)?, serve(&beside, "http", 80)?];
    let report = answers(&mesh.client, &target, 50)?;
    ensure!(report.servers.get("beside") == Some(&50), "its own node alone: {report:?}");
    unready(&mesh, &beside)?;
    eventually(SOON, "nobody on the node is left", || match mesh.client.get(&target, "/") {
        Ok(answer) => Err(format!("{answer:?}")),
        Err(_) => Ok(()),
    })?;
    eventually(SOON, "it is told", || {
        if mesh.near_ztunnel.caused("NO_HEALTHY_UPSTREAM").is_empty() {
            return Err(format!("{:?}", mesh.client.get(&target, "/")));
        }
        Ok(())
    })
}

fn missing_waypoint() -> anyhow::Result<()> {
    let mesh = Mesh::new("no-waypoint")?;
    let vip: IpAddr = "10.96.0.1".parse()?;
    let ports = &[(80, 80)];
    let (name, namespace, app) = ("fronted", "default", "server");
    let service = Service { name, namespace, addresses: &[vip], ports, app }.yaml();
    let metadata = "metadata:\n  labels:\n    istio.io/use-waypoint: nowhere\n";
    let service = service.replacen("metadata:\n", metadata, 1);
    mesh.cluster.mesh().write("service.yaml", &service)?;
    let fronted = PodSpec::new("fronted").label("istio.io/use-waypoint", "nowhere");
    let fronted = mesh.pod(fronted)?;
    let _servers = [mesh.serve("http", 80)?, serve(&fronted, "http", 80)?];
    for target in [at(vip, 80), at(fronted.ip(), 80), at(fronted.ipv6(), 80)] {
        let told = mesh.near_ztunnel.caused("WAYPOINT_UNKNOWN").len();
        let answer = mesh.client.get(&target, "/");
        ensure!(answer.is_err(), "{target} was reached without its waypoint: {answer:?}");
        eventually(SOON, "the refusal is told", || {
            let now = mesh.near_ztunnel.caused("WAYPOINT_UNKNOWN").len();
            if now > told { Ok(()) } else { Err(format!("{told} lines")) }
        })?;
    }
    // What has no waypoint is not held up by it.
    get(&mesh.client, &at(mesh.server.ip(), 80)).map(drop)
}

fn variables_of_sockets() -> anyhow::Result<()> {
    let variables =
        [("IPV6_ENABLED", "false"), ("ENABLE_ORIG_SRC", "false"), ("KEEPALIVE_TIME", "50s")];
    let mesh = Mesh::with("variables", "1h", &variables)?;
    let _servers = [mesh.serve("http", 80)?, mesh.serve("echo", 7)?];
    let body = get(&mesh.client, &at(mesh.server.ip(), 80))?;
    ensure!(body.contains(&mesh.server.ip().to_string()), "whom the application sees: {body}");
    let reached = mesh.client.get(&at(mesh.server.ipv6(), 80), "/");
    ensure!(reached.is_err(), "IPv6 went past the proxy: {reached:?}");
    let _tick = mesh.tick(&mesh.client, 7)?;
    let ours = eventually(SOON, "what was accepted is probed", || {
        let table =
            mesh.client.netns().run(|| std::fs::read_to_string("/proc/thread-self/net/tcp"));
        let table = table.map_err(|error| error.to_string())?;
        probes(&table, 15001).pop().ok_or(table)
    })?;
    ensure!((4000..=5000).contains(&ours), "probed in {ours} hundredths of a second");
    Ok(())
}

/// Of the connections that were accepted on `port`: the time to the next probe, in hundredths of a
/// second. proc(5), /proc/net/tcp: address, peer, state, queues, timer:time, and 2 is keepalive.
fn probes(table: &str, port: u16) -> Vec<u64> {
    let local = format!(":{port:04X}");
    let of_line = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let [_, own, _, "01", _, timer, ..] = fields[..] else { return None };
        let time = timer.strip_prefix("02:").filter(|_| own.ends_with(&local))?;
        u64::from_str_radix(time, 16).ok()
    };
    table.lines().filter_map(of_line).collect()
}
