//! A waypoint between two of our ztunnels: ours, or a real Envoy configured as Istio's. Everything
//! else is the same, so the difference is the waypoint's.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use harness::cluster::Node;
use harness::eventually::eventually;
use harness::peers::CertDir;
use harness::pod::Pod;
use harness::process::Running;
use harness::proxies::Ztunnel;
use harness::role::load;
use harness::waypoint::Waypoint;

use super::{Ground, Mode, Targets, World};
use crate::latency::backend::{BULK_PORT, Backend, ECHO_PORT, HTTP_PORT, PATH};
use crate::latency::cost::Part;
use crate::program::ENVOY;

const CONFIG: &str = include_str!("../../../baseline/envoy-waypoint.yaml");
const SOON: Duration = Duration::from_secs(20);
/// The service's virtual address.
const SERVICE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1));
/// Istio's `proxy.concurrency` before CPU limits decide it.
const WORKERS: &str = "2";

pub(super) fn build(mode: Mode) -> anyhow::Result<World> {
    let ground = Ground::new(mode)?;
    let backend = Backend::start(&ground.cluster, &ground.server)?;
    let mesh = ground.cluster.mesh();
    mesh.write("gateway.yaml", &Waypoint::gateway("default", "waypoint", "10.96.0.2"))?;
    mesh.write("service.yaml", &service())?;
    mesh.strict("server")?;
    let rule = "  - from:\n    - source:\n        principals: [\"cluster.local/ns/default/sa/waypoint\", \
                \"cluster.local/ns/default/sa/client\"]\n";
    mesh.policy("clients", "server", "ALLOW", rule)?;
    let spec = Waypoint::pod("waypoint-1", "default", "waypoint");
    let pod = ground.cluster.pod(&ground.far, spec)?;
    let certs = CertDir::new(ground.cluster.dir().join("identities"))?;
    for one in [&ground.client, &ground.server] {
        certs.add(one)?;
    }
    let own = certs.add(&pod)?;
    let ztunnel = |node: &Arc<Node>| {
        let program = Ztunnel::without_certificates(&ground.cluster, node);
        Ztunnel::run(node, program.arg("--certs").arg(certs.path()))
    };
    let (mut near, mut far) = (ztunnel(&ground.near)?, ztunnel(&ground.far)?);
    near.ready()?;
    far.ready()?;
    let waypoint = match mode {
        Mode::EnvoyWaypoint => envoy(&ground, &pod, &own)?,
        _ => culvert(&ground, &pod, &certs)?,
    };
    let targets = Targets {
        http: (SERVICE, HTTP_PORT).into(),
        // What is not HTTP passes no waypoint here.
        bulk: (ground.server.ip(), BULK_PORT).into(),
        echo: (ground.server.ip(), ECHO_PORT).into(),
    };
    answers(&ground, targets)
        .with_context(|| format!("{}{}", waypoint.stdout(), waypoint.stderr()))?;
    proven(&far)?;
    let proxies = vec![
        (Part::Near, near.into_process()),
        (Part::Far, far.into_process()),
        (Part::Waypoint, waypoint),
    ];
    Ok(ground.world(mode, targets, proxies, backend, (certs, pod)))
}

fn culvert(ground: &Ground, pod: &Pod, certs: &CertDir) -> anyhow::Result<Running> {
    let program = Waypoint::without_certificates(&ground.cluster, pod);
    let waypoint = Waypoint::run(program.arg("--certs").arg(certs.path()))?;
    waypoint.ready(pod)?;
    Ok(waypoint.into_process())
}

fn envoy(
    ground: &Ground,
    pod: &Pod,
    certificate: &harness::peers::PemFiles,
) -> anyhow::Result<Running> {
    let config = ground.cluster.dir().join("envoy-waypoint.yaml");
    let text = ground
        .fill(CONFIG, SERVICE)
        .replace("@CHAIN@", &certificate.chain.display().to_string())
        .replace("@KEY@", &certificate.key.display().to_string())
        .replace("@ROOT@", &certificate.root.display().to_string());
    fs::write(&config, text)?;
    let path = ENVOY.path().context("Envoy is gone")?;
    pod.program(&path.to_string_lossy())
        .arg("--config-path")
        .arg(config)
        .args(["--concurrency", WORKERS, "--log-level", "warning", "--disable-hot-restart"])
        .start()
}

fn answers(ground: &Ground, targets: Targets) -> anyhow::Result<()> {
    eventually(SOON, "the service answers through the waypoint", || {
        let program = ground.client.role("load").args(["--requests", "1", "--path", PATH]);
        let program = program.args(["--target", &targets.http.to_string()]);
        let report: load::Report = program.start()?.result(SOON)?;
        anyhow::ensure!(report.ok == 1, "{:?}", report.errors);
        Ok(())
    })
}

/// The server's ztunnel has seen the waypoint's identity: nothing went past it.
fn proven(far: &Ztunnel) -> anyhow::Result<()> {
    // The last hop is logged when its connection ends, which lasts: ask for the open ones.
    eventually(SOON, "the waypoint's connection reaches the server", || {
        let text = far.metrics()?;
        let seen = text.lines().any(|line| {
            line.starts_with("istio_tcp_connections_opened_total")
                && line
                    .contains("source_principal=\"spiffe://cluster.local/ns/default/sa/waypoint\"")
        });
        anyhow::ensure!(seen, "no such counter");
        Ok(())
    })
}

fn service() -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: server\n  namespace: default\n  labels:\n    \
         istio.io/use-waypoint: waypoint\nspec:\n  clusterIP: {SERVICE}\n  selector:\n    app: server\n  \
         ports:\n  - name: http\n    port: {HTTP_PORT}\n    targetPort: {HTTP_PORT}\n    \
         appProtocol: http\n"
    )
}
