//! A real Envoy beside each pod, configured as Istio does it, with the pod's traffic redirected to
//! it. The configuration is `benches/baseline/envoy-*.yaml`; it comes with this program.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::Context as _;
use harness::eventually::eventually;
use harness::pod::Pod;
use harness::process::{Place, Program, Running};
use harness::role::load;
use ztunnel::redirect::{Capture, Home, Namespace};

use super::{Ground, Mode, Targets, World};
use crate::latency::backend::{Backend, PATH};
use crate::latency::certs;
use crate::latency::cost::Part;
use crate::program::ENVOY;

const CLIENT: &str = include_str!("../../../baseline/envoy-client.yaml");
const SERVER: &str = include_str!("../../../baseline/envoy-server.yaml");
const SOON: Duration = Duration::from_secs(20);
/// The service's virtual address.
const SERVICE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1));
/// Istio's `proxy.concurrency` before CPU limits decide it.
const WORKERS: &str = "2";

pub(super) fn build() -> anyhow::Result<World> {
    let ground = Ground::new(Mode::Sidecar)?;
    let backend = Backend::start(&ground.cluster, &ground.server)?;
    certs::make(&ground.certs())?;
    let near = envoy(&ground, &ground.client, "client", CLIENT)?;
    let far = envoy(&ground, &ground.server, "server", SERVER)?;
    for pod in [&ground.client, &ground.server] {
        redirect(pod).with_context(|| format!("redirecting {}", pod.name()))?;
    }
    let targets = Targets::at(SERVICE);
    // Envoy does not speak the HTTP/1.0 of the harness's small client.
    eventually(SOON, "the service answers through the sidecars", || {
        let program = ground.client.role("load").args(["--requests", "1", "--path", PATH]);
        let program = program.args(["--target", &targets.http.to_string()]);
        let report: load::Report = program.start()?.result(SOON)?;
        anyhow::ensure!(report.ok == 1, "{:?}", report.errors);
        Ok(())
    })
    .with_context(|| format!("client: {} server: {}", near.stderr(), far.stderr()))?;
    proven(&far)?;
    let proxies = vec![(Part::Near, near), (Part::Far, far)];
    Ok(ground.world(Mode::Sidecar, targets, proxies, backend, ()))
}

fn envoy(ground: &Ground, pod: &Pod, name: &str, template: &str) -> anyhow::Result<Running> {
    let config = ground.cluster.dir().join(format!("envoy-{name}.yaml"));
    fs::write(&config, ground.fill(template, SERVICE))?;
    let path = ENVOY.path().context("Envoy is gone")?;
    // Its socket mark needs a capability that applications do not have.
    let place = Place { confined: false, ..pod.place().clone() };
    Program::new(&place, &path.to_string_lossy())
        .arg("--config-path")
        .arg(config)
        .args(["--concurrency", WORKERS, "--log-level", "warning", "--disable-hot-restart"])
        .start()
}

/// The same rules that capture a pod for Culvert: outbound to 15001, inbound to 15006.
fn redirect(pod: &Pod) -> anyhow::Result<()> {
    let home = Home::current()?;
    let namespace = Namespace::open(&pod.netns().path(), &home)?;
    Capture::default().apply(&namespace)?;
    Ok(())
}

/// The server's sidecar has logged the request: nothing went past it.
fn proven(far: &Running) -> anyhow::Result<()> {
    // Envoy writes its log every ten seconds.
    eventually(SOON, "the server's sidecar logs the request", || {
        let told = far.stdout().contains("GET /bytes/1024 HTTP/1.1\" 200");
        if told { Ok(()) } else { Err("no such line") }
    })
}
