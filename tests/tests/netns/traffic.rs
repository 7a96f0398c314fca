//! Unmodified programs through two ztunnels, from node to node.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use harness::cluster::{Cluster, Node};
use harness::eventually::{eventually, pause};
use harness::mesh_dir::Service;
use harness::pod::{Pod, PodSpec};
use harness::process::Running;
use harness::proxies::{Authority, Ztunnel};
use harness::role::{hold, load, sniff, tick};
use rustix::process::Signal;

use super::suite::Case;

pub(crate) const CASES: &[Case] = &[
    ("traffic::nginx_and_curl", &["nginx", "curl"], nginx_and_curl),
    ("traffic::redis_benchmark", &["redis-server", "redis-benchmark"], redis_benchmark),
    ("traffic::iperf3_in_both_directions", &["iperf3"], iperf3_in_both_directions),
    ("traffic::a_service_is_reached_in_both_families", &[], a_service_is_reached),
    ("traffic::a_policy_closes_what_it_denies_and_nothing_else", &[], a_policy_closes),
    ("traffic::the_wire_is_tls_through_restart_kill_and_join", &[], the_wire_is_tls),
    ("traffic::a_killed_ztunnel_fails_closed", &[], a_killed_ztunnel_fails_closed),
    ("traffic::five_thousand_connections_leave_nothing", &[], five_thousand_connections),
    ("traffic::short_certificates_rotate_under_load", &[], short_certificates_rotate),
    ("traffic::wrong_namespaces_do_not_hurt_the_others", &[], wrong_namespaces),
];

const SOON: Duration = Duration::from_secs(20);
/// Five times the bound of 100 ms.
const POLICY_DEADLINE_MS: u64 = 500;

/// A client on one node, a server on the other, a ztunnel on each.
struct Mesh {
    cluster: Cluster,
    near: Arc<Node>,
    far: Arc<Node>,
    client: Pod,
    server: Pod,
    authority: Authority,
    near_ztunnel: Ztunnel,
    far_ztunnel: Ztunnel,
}

impl Mesh {
    fn new(name: &str) -> anyhow::Result<Self> {
        Self::with_certificates(name, "1h")
    }

    fn with_certificates(name: &str, lifetime: &str) -> anyhow::Result<Self> {
        let cluster = Cluster::new(name)?;
        let (near, far) = (cluster.node("near")?, cluster.node("far")?);
        let client = cluster.pod(&near, PodSpec::new("client"))?;
        let server = cluster.pod(&far, PodSpec::new("server"))?;
        cluster.host("server", server.ip())?;
        let authority = Authority::start(&cluster, &near, lifetime)?;
        let mut near_ztunnel = Ztunnel::start(&cluster, &near, &authority)?;
        let mut far_ztunnel = Ztunnel::start(&cluster, &far, &authority)?;
        near_ztunnel.ready()?;
        far_ztunnel.ready()?;
        Ok(Self { cluster, near, far, client, server, authority, near_ztunnel, far_ztunnel })
    }

    /// A role of the harness as the server's application.
    fn serve(&self, role: &str, port: u16) -> anyhow::Result<Running> {
        let listen = format!("[::]:{port}");
        let mut running = self.server.role(role).args(["--listen", &listen]).start()?;
        running.line_with("listening", SOON)?;
        Ok(running)
    }

    fn tick(&self, from: &Pod, port: u16) -> anyhow::Result<Running> {
        let target = format!("{}:{port}", self.server.ip());
        let mut tick = from.role("tick").args(["--target", &target]).start()?;
        tick.line_with("connected", SOON)?;
        Ok(tick)
    }

    /// Connections that the server's ztunnel has carried over mutual TLS.
    fn tunnelled(&self) -> usize {
        let identity = self.client.identity();
        let told = |line: &serde_json::Value| {
            line["direction"] == "inbound" && line["src.identity"] == identity.as_str()
        };
        self.far_ztunnel.log().iter().filter(|line| told(line)).count()
    }

    fn was_tunnelled(&self) -> anyhow::Result<()> {
        eventually(SOON, "the log tells of mutual TLS", || match self.tunnelled() {
            0 => Err("no line with the client's identity"),
            _ => Ok(()),
        })
    }
}

/// Waits until something takes connections on the server's port, from within its pod.
fn listens(pod: &Pod, port: u16) -> anyhow::Result<()> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    eventually(SOON, "the program listens", || {
        pod.netns().run(|| TcpStream::connect_timeout(&address, Duration::from_secs(1)).map(drop))
    })
}

fn nginx_and_curl() -> anyhow::Result<()> {
    let mesh = Mesh::new("nginx")?;
    let root = mesh.cluster.dir().join("www");
    std::fs::create_dir_all(&root)?;
    std::fs::write(root.join("page"), vec![b'x'; 1 << 20])?;
    let root = root.display();
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    let config = mesh.cluster.dir().join("nginx.conf");
    std::fs::write(
        &config,
        format!(
            "{user}\ndaemon off;\nmaster_process off;\npid {root}/pid;\nerror_log stderr;\n\
             events {{}}\nhttp {{\n  access_log off;\n  client_body_temp_path {root}/body;\n  \
             proxy_temp_path {root}/proxy;\n  fastcgi_temp_path {root}/fastcgi;\n  \
             uwsgi_temp_path {root}/uwsgi;\n  scgi_temp_path {root}/scgi;\n  \
             server {{ listen 80; listen 81 http2; root {root}; }}\n}}\n"
        ),
    )?;
    let _nginx = mesh.server.program("nginx").arg("-c").arg(&config).start()?;
    listens(&mesh.server, 80)?;
    for (port, version) in [(80, "--http1.1"), (81, "--http2-prior-knowledge")] {
        let url = format!("http://server:{port}/page");
        let seen = mesh
            .client
            .program("curl")
            .args(["--silent", "--show-error", "--fail", version, "--max-time", "20"])
            .args(["--output", "/dev/null", "--write-out", "%{http_version} %{size_download}"])
            .arg(url)
            .success(SOON)?;
        let expected = if port == 80 { "1.1 1048576" } else { "2 1048576" };
        ensure!(seen == expected, "curl says {seen:?}");
    }
    mesh.was_tunnelled()
}

fn redis_benchmark() -> anyhow::Result<()> {
    let mesh = Mesh::new("redis")?;
    let dir = mesh.cluster.dir().join("redis");
    std::fs::create_dir_all(&dir)?;
    let _redis = mesh
        .server
        .program("redis-server")
        .args(["--bind", "*", "--protected-mode", "no", "--save", "", "--port", "6379"])
        .arg("--dir")
        .arg(&dir)
        .start()?;
    listens(&mesh.server, 6379)?;
    let report = mesh
        .client
        .program("redis-benchmark")
        .args(["-h", "server", "-n", "5000", "-c", "20", "-t", "ping,set,get", "--csv"])
        .success(Duration::from_secs(60))?;
    for command in ["\"SET\"", "\"GET\""] {
        ensure!(report.contains(command), "redis-benchmark says {report:?}");
    }
    mesh.was_tunnelled()
}

fn iperf3_in_both_directions() -> anyhow::Result<()> {
    let mesh = Mesh::new("iperf3")?;
    let _server = mesh.server.program("iperf3").args(["--server"]).start()?;
    listens(&mesh.server, 5201)?;
    for direction in [&[][..], &["--reverse"]] {
        let report = mesh
            .client
            .program("iperf3")
            .args(["--client", "server", "--time", "2", "--json"])
            .args(direction)
            .success(Duration::from_secs(40))?;
        let report: serde_json::Value = serde_json::from_str(&report)?;
        let received = report["end"]["sum_received"]["bytes"].as_u64().unwrap_or_default();
        ensure!(received > 1 << 20, "iperf3 {direction:?} received {received} bytes");
    }
    mesh.was_tunnelled()
}

fn a_service_is_reached() -> anyhow::Result<()> {
    let mesh = Mesh::new("service")?;
    let beside = mesh.cluster.pod(&mesh.near, PodSpec::new("beside").label("app", "server"))?;
    let mut servers = Vec::new();
    for pod in [&mesh.server, &beside] {
        let http = pod.role("http").args(["--listen", "[::]:8080", "--name", pod.name()]);
        let mut http = http.start()?;
        http.line_with("listening", SOON)?;
        servers.push(http);
    }
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
    }
    let (_, body) = mesh.client.get(&SocketAddr::new(mesh.server.ipv6(), 8080).to_string(), "/")?;
    ensure!(body.contains(&mesh.client.ipv6().to_string()), "the client's address is kept: {body}");
    Ok(())
}

fn a_policy_closes() -> anyhow::Result<()> {
    let mesh = Mesh::new("policy")?;
    let denied = mesh.cluster.pod(&mesh.near, PodSpec::new("denied"))?;
    let _echo = mesh.serve("echo", 7)?;
    let (stays, goes) = (mesh.tick(&mesh.client, 7)?, mesh.tick(&denied, 7)?);
    let changed_ms = harness::role::now_ms();
    mesh.cluster.mesh().policy(
        "no-denied",
        "server",
        "DENY",
        "  - from:\n    - source:\n        principals: [\"cluster.local/ns/default/sa/denied\"]\n",
    )?;
    let mut goes = goes;
    let goes: tick::Report = goes.result(SOON)?;
    let (why, at_ms) = goes.broken.context("the denied connection lives on")?;
    let took = at_ms.saturating_sub(changed_ms);
    // The directory is read after 100 ms of quiet; the bound counts from there.
    ensure!(took <= 100 + POLICY_DEADLINE_MS, "closed only after {took} ms: {why}");
    let stays: tick::Report = stays.finish(SOON)?;
    ensure!(stays.broken.is_none(), "a connection that nothing denies: {stays:?}");
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

fn five_thousand_connections() -> anyhow::Result<()> {
    let mut mesh = Mesh::new("many")?;
    let _echo = mesh.serve("echo", 7)?;
    let target = format!("{}:7", mesh.server.ip());
    // One exchange first, so that tunnels and pools have their standing size.
    drop(mesh.tick(&mesh.client, 7)?);
    let before = mesh.near_ztunnel.process().descriptors()?;
    let mut holding =
        mesh.client.role("hold").args(["--target", &target, "--connections", "5000"]).start()?;
    holding.line_with("holding", Duration::from_secs(120))?;
    let during = mesh.near_ztunnel.process().descriptors()?;
    ensure!(during >= before + 5000, "{during} descriptors");
    let report: hold::Report = holding.finish(Duration::from_secs(120))?;
    ensure!(report.opened == 5000 && report.alive == 5000, "{report:?}");
    // Fifty tunnels of a hundred streams may stay pooled for five minutes.
    eventually(Duration::from_secs(60), "descriptors return", || {
        let now = mesh.near_ztunnel.process().descriptors().map_err(|error| error.to_string())?;
        if now <= before + 60 { Ok(()) } else { Err(format!("{now}, {before} before")) }
    })?;
    Ok(())
}

fn short_certificates_rotate() -> anyhow::Result<()> {
    let mut mesh = Mesh::with_certificates("rotation", "5s")?;
    // Tunnels outlive certificates: each of these makes its first one when its certificate has
    // been renewed many times.
    let late: Vec<Pod> = (0..6)
        .map(|number| mesh.cluster.pod(&mesh.near, PodSpec::new(&format!("late-{number}"))))
        .collect::<anyhow::Result<_>>()?;
    let _http = mesh.serve("http", 80)?;
    let load = mesh
        .client
        .role("load")
        .args(["--target", "server:80", "--rate", "50", "--fresh", "--connections", "4"])
        .start()?;
    let first = serial(&mesh)?;
    for (number, pod) in late.iter().enumerate() {
        pause(Duration::from_secs(19));
        let (status, _) = pod
            .get(&format!("{}:80", mesh.server.ip()), "/")
            .with_context(|| format!("first connection of {}", pod.name()))?;
        ensure!(status == 200);
        if number == 2 {
            // Shorter than what is left of a certificate that waits for its renewal.
            mesh.authority.kill()?;
            pause(Duration::from_secs(1));
            mesh.authority.revive(&mesh.cluster)?;
        }
    }
    pause(Duration::from_secs(5));
    let report: load::Report = load.finish(SOON)?;
    ensure!(report.failed() == 0 && report.ok > 5000, "{report:?}");
    ensure!(serial(&mesh)? != first, "the certificate is still the first one");
    Ok(())
}

/// The serial number of the client's certificate, as `/config_dump` has it.
fn serial(mesh: &Mesh) -> anyhow::Result<String> {
    let (_, dump) = mesh.near.get("127.0.0.1:15000", "/config_dump")?;
    let dump: serde_json::Value = serde_json::from_str(&dump)?;
    let certificates = dump["certificates"].as_array().context("no certificates in the dump")?;
    let identity = mesh.client.identity();
    let own = certificates.iter().find(|one| one["identity"] == identity.as_str());
    let own = own.context("no certificate of the client in the dump")?;
    let serial = own["certChain"][0]["serialNumber"].as_str();
    Ok(serial.with_context(|| format!("no serial number in {own}"))?.to_owned())
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
