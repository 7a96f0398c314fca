//! The harness itself, without a mesh: pods reach each other, and the wire watch sees plain text.

use std::time::Duration;

use anyhow::Context as _;
use harness::cluster::Cluster;
use harness::pod::PodSpec;
use harness::role::{load, sniff, tick};

pub(crate) const CASES: &[super::suite::Case] = &[
    ("pods_reach_each_other_in_both_families", &[], pods_reach_each_other),
    ("the_wire_watch_finds_plain_text", &[], the_wire_watch_finds_plain_text),
    ("the_load_generator_keeps_its_rate", &[], the_load_generator_keeps_its_rate),
    ("programs_in_pods_cannot_leave_the_mesh", &[], programs_in_pods_are_confined),
];

const SOON: Duration = Duration::from_secs(10);

fn pods_reach_each_other() -> anyhow::Result<()> {
    let cluster = Cluster::new("reach")?;
    let (one, two) = (cluster.node("one")?, cluster.node("two")?);
    let client = cluster.pod(&one, PodSpec::new("client"))?;
    for server in
        [cluster.pod(&one, PodSpec::new("near"))?, cluster.pod(&two, PodSpec::new("far"))?]
    {
        let mut http = server.role("http").args(["--listen", "[::]:80", "--name", "s"]).start()?;
        http.line_with("listening", SOON)?;
        for (to, from) in [(server.ip(), client.ip()), (server.ipv6(), client.ipv6())] {
            let address = std::net::SocketAddr::new(to, 80).to_string();
            let (status, body) = client.get(&address, "/").context(address)?;
            anyhow::ensure!(status == 200 && body.contains(&from.to_string()), "{body}");
        }
    }
    Ok(())
}

fn the_wire_watch_finds_plain_text() -> anyhow::Result<()> {
    let cluster = Cluster::new("plain")?;
    let (one, two) = (cluster.node("one")?, cluster.node("two")?);
    let client = cluster.pod(&one, PodSpec::new("client"))?;
    let server = cluster.pod(&two, PodSpec::new("server"))?;
    let mut http = server.role("http").args(["--listen", "[::]:80"]).start()?;
    http.line_with("listening", SOON)?;
    let mut watch = cluster.fabric_role("sniff").args(["--interface", &one.port()]).start()?;
    watch.line_with("watching", SOON)?;
    client.get(&format!("{}:80", server.ip()), "/")?;
    let report: sniff::Report = watch.finish(SOON)?;
    let verdict = report.all_tls(&[client.ip(), server.ip()]);
    anyhow::ensure!(verdict.is_err(), "plain HTTP passed for TLS: {report:?}");
    let streams: Vec<_> =
        report.between(&[client.ip(), server.ip()].map(|ip| ip)).cloned().collect();
    anyhow::ensure!(streams.len() == 2 && streams.iter().any(|seen| seen.mark), "{streams:?}");
    Ok(())
}

fn the_load_generator_keeps_its_rate() -> anyhow::Result<()> {
    let cluster = Cluster::new("rate")?;
    let (one, two) = (cluster.node("one")?, cluster.node("two")?);
    let client = cluster.pod(&one, PodSpec::new("client"))?;
    let server = cluster.pod(&two, PodSpec::new("server"))?;
    cluster.host("server", server.ip())?;
    let mut http = server.role("http").args(["--listen", "0.0.0.0:80", "--name", "s"]).start()?;
    http.line_with("listening", SOON)?;
    let mut echo = server.role("echo").args(["--listen", "[::]:7"]).start()?;
    echo.line_with("listening", SOON)?;
    let mut tick = client.role("tick").args(["--target", "server:7"]).start()?;
    tick.line_with("connected", SOON)?;
    let mut load = client
        .role("load")
        .args(["--target", "server:80", "--rate", "200", "--seconds", "2"])
        .start()?;
    let report: load::Report = load.result(SOON)?;
    anyhow::ensure!(report.failed() == 0 && report.servers["s"] == report.ok, "{report:?}");
    anyhow::ensure!((360..=440).contains(&report.ok), "{report:?}");
    let life: tick::Report = tick.finish(SOON)?;
    anyhow::ensure!(life.broken.is_none() && life.ticks > 20, "{life:?}");
    Ok(())
}

fn programs_in_pods_are_confined() -> anyhow::Result<()> {
    let cluster = Cluster::new("confined")?;
    let node = cluster.node("one")?;
    let pod = cluster.pod(&node, PodSpec::new("pod"))?;
    let status = pod.program("cat").arg("/proc/self/status").success(SOON)?;
    for set in ["CapEff", "CapPrm", "CapBnd", "CapAmb"] {
        let line = status.lines().find(|line| line.starts_with(set)).unwrap_or_default();
        let bits = u64::from_str_radix(line.rsplit('\t').next().unwrap_or_default(), 16)?;
        let (net_admin, net_raw) = (12, 13);
        anyhow::ensure!(bits & (1 << net_admin | 1 << net_raw) == 0, "{line}");
    }
    Ok(())
}
