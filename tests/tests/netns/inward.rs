//! Calls that try to lead back into the proxies, from a captured pod and through a tunnel.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use harness::eventually::{eventually, pause};
use harness::pod::{Pod, PodSpec};
use harness::role::tunnel;

use super::mesh::{Mesh, SOON};
use super::suite::Case;

pub(crate) const CASES: &[Case] = &[
    ("inward::calls_of_a_captured_pod_lead_nowhere", &[], calls_of_a_captured_pod),
    ("inward::targets_in_a_tunnel_lead_nowhere", &[], targets_in_a_tunnel),
];

/// Of the proxies in a pod, and of their administration on the node.
const PROXY: [u16; 3] = [15001, 15006, 15008];
const ADMIN: [u16; 3] = [15000, 15020, 15021];
/// First byte of a TLS record that holds an alert (RFC 8446 §5.1).
const TLS_ALERT: u8 = 21;

/// What comes back when `pod` sends `words` to `to`, until the connection ends.
fn call(pod: &Pod, to: SocketAddr, words: &[u8]) -> anyhow::Result<Vec<u8>> {
    let answer = pod.netns().run(|| {
        let mut stream = TcpStream::connect_timeout(&to, SOON)?;
        stream.set_read_timeout(Some(SOON))?;
        let mut answer = Vec::new();
        let talk = stream.write_all(words).and_then(|()| stream.read_to_end(&mut answer));
        Ok((talk, answer))
    });
    let (talk, answer) = match answer {
        Ok((talk, answer)) => (talk.map(drop), answer),
        Err(error) => (Err(error), Vec::new()),
    };
    match talk {
        Err(error) if is_over_time(&error) => Err(error).context("neither refused nor closed"),
        _ => Ok(answer),
    }
}

fn is_over_time(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)
}

fn calls_of_a_captured_pod() -> anyhow::Result<()> {
    let mut mesh = Mesh::new("inward-calls")?;
    let _http = mesh.serve("http", 80)?;
    let beside = mesh.pod(PodSpec::new("beside"))?;
    let nodes = [mesh.near.ip(), mesh.far.ip()];
    let own = [mesh.client.ip(), mesh.client.ipv6()];
    let others = [mesh.server.ip(), mesh.server.ipv6(), beside.ip(), beside.ipv6()];
    let loopback = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    let hosts: Vec<IpAddr> = [&own[..], &others, &loopback, &nodes].concat();
    for host in hosts {
        for port in PROXY.into_iter().chain(ADMIN) {
            let to = SocketAddr::new(host, port);
            for words in ["GET /healthz/ready HTTP/1.0\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
            {
                let answer = call(&mesh.client, to, words.as_bytes())
                    .with_context(|| format!("{to} with {words:?}"))?;
                // A kubelet asks a node for its readiness, and so may everybody.
                let may_answer = nodes.contains(&host) && port == 15021;
                let silent = answer.first().is_none_or(|first| *first == TLS_ALERT);
                let text = String::from_utf8_lossy(&answer);
                ensure!(silent || may_answer, "{to} answers {words:?} with {text}");
            }
        }
    }
    both_are_well(&mut mesh)
}

fn targets_in_a_tunnel() -> anyhow::Result<()> {
    let mut mesh = Mesh::new("inward-targets")?;
    let _http = mesh.serve("http", 80)?;
    let own = [mesh.server.ip(), mesh.server.ipv6()];
    let foreign = [
        mesh.client.ip(),
        mesh.client.ipv6(),
        mesh.near.ip(),
        mesh.far.ip(),
        Ipv4Addr::LOCALHOST.into(),
        Ipv6Addr::LOCALHOST.into(),
        Ipv4Addr::UNSPECIFIED.into(),
        Ipv6Addr::UNSPECIFIED.into(),
        Ipv4Addr::LOCALHOST.to_ipv6_mapped().into(),
    ];
    let mut expected = Vec::new();
    for port in PROXY.into_iter().chain(ADMIN) {
        expected.extend(own.map(|ip| (SocketAddr::new(ip, port).to_string(), "503")));
        expected.extend(foreign.map(|ip| (SocketAddr::new(ip, port).to_string(), "400")));
        expected.push((format!("localhost:{port}"), "503"));
        expected.push((format!("server:{port}"), "503"));
    }
    expected.extend(
        ["", ":", ":80", "server", "10.2.0.2", "10.2.0.2:0", "10.2.0.2:99999"]
            .map(|wrong| (wrong.to_owned(), "400")),
    );
    expected.push((SocketAddr::new(own[0], 80).to_string(), "200"));
    let report: tunnel::Report = mesh
        .near
        .role("tunnel")
        .args(["--ca", &mesh.authority.address(), "--identity", &mesh.client.identity()])
        .arg("--join-token")
        .arg(mesh.cluster.dir().join("near.token"))
        .args(["--to", &SocketAddr::new(own[0], 15008).to_string()])
        .args(["--expect", &mesh.server.identity(), "--"])
        .args(expected.iter().map(|(target, _)| target))
        .start()?
        .result(Duration::from_secs(120))?;
    for (target, status) in expected {
        let answer = report.answers.get(&target);
        ensure!(answer.is_some_and(|answer| answer == status), "{target:?}: {answer:?}");
    }
    both_are_well(&mut mesh)
}

/// Both proxies serve others, hold no connection, and do not go round in circles.
fn both_are_well(mesh: &mut Mesh) -> anyhow::Result<()> {
    let (status, _) = mesh.client.get(&SocketAddr::new(mesh.server.ip(), 80).to_string(), "/")?;
    ensure!(status == 200);
    for ztunnel in [&mut mesh.near_ztunnel, &mut mesh.far_ztunnel] {
        eventually(SOON, "nothing is open", || match ztunnel.metric("istio_tcp_sockets_open") {
            Ok(0.0) => Ok(()),
            other => Err(format!("{other:?}")),
        })?;
        let before = ztunnel.process().cpu_time()?;
        pause(Duration::from_secs(1));
        let used = ztunnel.process().cpu_time()? - before;
        ensure!(used < Duration::from_millis(300), "{used:?} of one idle second");
    }
    Ok(())
}
