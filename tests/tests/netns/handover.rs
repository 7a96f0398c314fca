//! Connections between two pods of one node, with and without a tunnel between them.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use harness::eventually::eventually;
use harness::mesh_dir::Service;
use harness::pod::{Pod, PodSpec};
use harness::process::Running;
use harness::role::tick;
use serde_json::Value;

use super::mesh::{Mesh, SOON, serve};
use super::suite::Case;

pub(crate) const CASES: &[Case] = &[
    ("handover::bytes_flow_and_both_ends_are_told_as_of_a_tunnel", &[], bytes_flow),
    ("handover::without_the_setting_there_is_a_tunnel", &[], without_the_setting),
    ("handover::another_node_is_reached_by_a_tunnel", &[], another_node),
    ("handover::policy_refuses_and_kills_as_on_the_wire", &[], policy_refuses_and_kills),
    ("handover::a_network_policy_keeps_it_away", &[], a_network_policy),
    ("handover::who_leaves_ends_its_connections", &[], who_leaves),
    ("handover::an_endpoint_where_nobody_listens_is_passed_over", &[], nobody_listens),
];

const ON: &[(&str, &str)] = &[("CULVERT_SAME_NODE_HANDOVER", "true")];

/// A client and, beside it on the same node, a server.
struct Beside {
    mesh: Mesh,
    server: Pod,
}

impl Beside {
    fn new(name: &str, variables: &[(&str, &str)]) -> anyhow::Result<Self> {
        let mesh = Mesh::with(name, "1h", variables)?;
        let server = mesh.pod(PodSpec::new("beside"))?;
        Ok(Self { mesh, server })
    }

    fn target(&self, port: u16) -> String {
        format!("{}:{port}", self.server.ip())
    }

    fn tick(&self) -> anyhow::Result<Running> {
        let target = self.target(7);
        let mut tick = self.mesh.client.role("tick").args(["--target", &target]).start()?;
        tick.line_with("connected", SOON)?;
        Ok(tick)
    }

    fn handovers(&self) -> anyhow::Result<f64> {
        self.mesh.near_ztunnel.metric("culvert_handovers_total")
    }

    /// The latest line of the client's node of this direction about the server beside it.
    fn line(&self, direction: &str) -> anyhow::Result<Value> {
        eventually(SOON, "the line is there", || self.lines(direction).pop().ok_or("no line"))
    }

    fn lines(&self, direction: &str) -> Vec<Value> {
        let told = |line: &Value| {
            line["scope"] == "access"
                && line["direction"] == direction
                && line["dst.workload"] == self.server.name()
        };
        self.mesh.near_ztunnel.log().into_iter().filter(told).collect()
    }
}

fn bytes_flow() -> anyhow::Result<()> {
    let beside = Beside::new("handed", ON)?;
    let _http = serve(&beside.server, "http", 80)?;
    let (status, body) = beside.mesh.client.get(&beside.target(80), "/")?;
    ensure!(status == 200);
    ensure!(body.contains(&beside.mesh.client.ip().to_string()), "the address is kept: {body}");
    let six = std::net::SocketAddr::new(beside.server.ipv6(), 80).to_string();
    let (_, body) = beside.mesh.client.get(&six, "/")?;
    ensure!(body.contains(&beside.mesh.client.ipv6().to_string()), "the address is kept: {body}");
    ensure!(beside.handovers()? == 2.0, "{} were handed over", beside.handovers()?);
    let [near, far] = eventually(SOON, "both ends of both connections are told", || {
        let [near, far] = ["outbound", "inbound"].map(|direction| beside.lines(direction));
        match (&near[..], &far[..]) {
            ([_, near], [_, far]) => Ok([near.clone(), far.clone()]),
            _ => Err(format!("{near:?} {far:?}")),
        }
    })?;
    for line in [&near, &far] {
        ensure!(line["handover"] == true, "{line}");
        ensure!(line["src.identity"] == beside.mesh.client.identity(), "{line}");
        ensure!(line["dst.identity"] == beside.server.identity(), "{line}");
        ensure!(line["message"] == "connection complete" && line["cause"].is_null(), "{line}");
    }
    ensure!(near["connection"] == far["connection"] && near["connection"].is_string(), "{near}");
    ensure!(near["bytes_sent"] == far["bytes_recv"], "{near} {far}");
    ensure!(near["bytes_recv"] == far["bytes_sent"], "{near} {far}");
    ensure!(near["bytes_recv"].as_u64() > Some(0), "{near}");
    let metrics = beside.mesh.near_ztunnel.metrics()?;
    for reporter in ["source", "destination"] {
        let opened = metrics.lines().any(|line| {
            line.starts_with("istio_tcp_connections_closed_total")
                && line.contains(&format!("reporter=\"{reporter}\""))
                && line.contains("destination_workload=\"beside\"")
                && line.contains("connection_security_policy=\"mutual_tls\"")
                && line.ends_with(" 2")
        });
        ensure!(opened, "{reporter} has not counted two: {metrics}");
    }
    Ok(())
}

/// What went through a tunnel has no such field, and nothing is counted.
fn was_tunnelled(beside: &Beside) -> anyhow::Result<()> {
    ensure!(beside.handovers()? == 0.0, "handed over");
    let line = beside.line("inbound")?;
    ensure!(line["handover"].is_null(), "{line}");
    ensure!(line["src.identity"] == beside.mesh.client.identity(), "{line}");
    Ok(())
}

fn without_the_setting() -> anyhow::Result<()> {
    let beside = Beside::new("not-handed", &[])?;
    let _http = serve(&beside.server, "http", 80)?;
    ensure!(beside.mesh.client.get(&beside.target(80), "/")?.0 == 200);
    was_tunnelled(&beside)
}

fn another_node() -> anyhow::Result<()> {
    let mesh = Mesh::with("handed-far", "1h", ON)?;
    let _http = mesh.serve("http", 80)?;
    ensure!(mesh.client.get(&format!("{}:80", mesh.server.ip()), "/")?.0 == 200);
    mesh.was_tunnelled()?;
    ensure!(mesh.near_ztunnel.metric("culvert_handovers_total")? == 0.0);
    Ok(())
}

fn policy_refuses_and_kills() -> anyhow::Result<()> {
    let beside = Beside::new("handed-policy", ON)?;
    let _echo = serve(&beside.server, "echo", 7)?;
    let mut open = beside.tick()?;
    ensure!(beside.handovers()? == 1.0, "not handed over");
    let who =
        "  - from:\n    - source:\n        principals: [\"cluster.local/ns/default/sa/client\"]\n";
    beside.mesh.cluster.mesh().policy("no-client", "beside", "DENY", who)?;
    let open: tick::Report = open.result(SOON)?;
    open.broken.context("a denied connection lives on")?;
    let (near, far) = (beside.line("outbound")?, beside.line("inbound")?);
    ensure!(far["cause"] == "POLICY_CHANGED" && far["handover"] == true, "{far}");
    let why = far["error"].as_str().unwrap_or_default();
    ensure!(why.ends_with("explicitly denied by: default/no-client"), "{far}");
    // As behind a tunnel: to the near end the other one has hung up.
    ensure!(near["cause"].is_null() && near["handover"] == true, "{near}");
    ensure!(near["connection"] == far["connection"], "{near} {far}");
    ensure!(beside.mesh.client.get(&beside.target(7), "/").is_err(), "denied from now on");
    let far = eventually(SOON, "the refusal is told", || {
        beside.mesh.near_ztunnel.caused("POLICY_DENIED").pop().ok_or("no line")
    })?;
    ensure!(far["direction"] == "inbound" && far["handover"] == true, "{far}");
    let near = eventually(SOON, "the refusal is told at the source", || {
        beside.mesh.near_ztunnel.caused("PEER_DENIED").pop().ok_or("no line")
    })?;
    ensure!(near["error"] == "http status: 401 (POLICY_DENIED)", "{near}");
    ensure!(near["connection"] == far["connection"], "{near} {far}");
    ensure!(beside.handovers()? == 1.0, "a refused connection is none that was handed over");
    Ok(())
}

fn network_policy(selector: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: guard, \
         namespace: default}}\nspec:\n  podSelector: {selector}\n  policyTypes: [Ingress]\n"
    )
}

fn a_network_policy() -> anyhow::Result<()> {
    let beside = Beside::new("handed-guarded", ON)?;
    let _http = serve(&beside.server, "http", 80)?;
    // Whether one more connection is handed over.
    let handed = || -> anyhow::Result<bool> {
        let before = beside.handovers()?;
        ensure!(beside.mesh.client.get(&beside.target(80), "/")?.0 == 200);
        Ok(beside.handovers()? > before)
    };
    ensure!(handed()?, "nothing keeps it away");
    let mesh = beside.mesh.cluster.mesh();
    for (selector, expected) in [
        ("{matchLabels: {app: beside}}", false),
        ("{matchLabels: {app: somebody}}", true),
        ("{matchLabels: {app: client}}", false),
        ("{matchExpressions: [{key: app, operator: NotIn, values: [beside, client]}]}", true),
        ("{}", false),
        ("{matchExpressions: [{key: app, operator: DoesNotExist}]}", true),
        // Not understood: the whole namespace.
        ("{matchNothing: {app: somebody}}", false),
    ] {
        mesh.write("guard.yaml", &network_policy(selector))?;
        eventually(SOON, &format!("{selector} takes effect"), || match handed() {
            Ok(handed) if handed == expected => Ok(()),
            other => Err(format!("handed over: {other:?}")),
        })?;
    }
    mesh.remove("guard.yaml")?;
    eventually(SOON, "without a policy it is handed over again", || match handed() {
        Ok(true) => Ok(()),
        other => Err(format!("handed over: {other:?}")),
    })
}

fn who_leaves() -> anyhow::Result<()> {
    let beside = Beside::new("handed-leaves", ON)?;
    let _echo = serve(&beside.server, "echo", 7)?;
    let mut open = beside.tick()?;
    ensure!(beside.handovers()? == 1.0, "not handed over");
    beside.mesh.cluster.mesh().remove(&beside.server.file())?;
    let open: tick::Report = open.result(SOON)?;
    open.broken.context("a connection to a pod that has left lives on")?;
    let far = beside.line("inbound")?;
    ensure!(far["cause"] == "DRAINED" && far["handover"] == true, "{far}");
    eventually(SOON, "no connection stays open", || {
        match beside.mesh.near_ztunnel.metric("istio_tcp_sockets_open") {
            Ok(0.0) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
}

fn nobody_listens() -> anyhow::Result<()> {
    let beside = Beside::new("handed-spread", ON)?;
    let idle = beside.mesh.pod(PodSpec::new("idle").label("app", "beside"))?;
    let _http = serve(&beside.server, "http", 8080)?;
    beside.mesh.cluster.mesh().service(&Service {
        name: "spread",
        namespace: "default",
        addresses: &["10.96.0.1".parse()?],
        ports: &[(80, 8080)],
        app: "beside",
    })?;
    eventually(SOON, "the service is known", || {
        match beside.mesh.client.get("10.96.0.1:80", "/") {
            Ok((200, _)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })?;
    let started = std::time::Instant::now();
    // Each of the two is the first choice often enough.
    for _ in 0..20 {
        ensure!(beside.mesh.client.get("10.96.0.1:80", "/")?.0 == 200);
    }
    ensure!(started.elapsed() < Duration::from_secs(10), "took {:?}", started.elapsed());
    let refused = eventually(SOON, "the refusal is told", || {
        beside.mesh.near_ztunnel.caused("APPLICATION_CONNECT_FAILED").pop().ok_or("no line")
    })?;
    ensure!(refused["dst.workload"] == idle.name() && refused["handover"] == true, "{refused}");
    Ok(())
}
