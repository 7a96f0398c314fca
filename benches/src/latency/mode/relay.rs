//! A pair of HAProxy that does mutual TLS and nothing else: near the limit of what a proxy in C can
//! do. The configuration is `benches/baseline/haproxy-*.cfg`; it comes with this program.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::Context as _;
use harness::eventually::eventually;
use harness::pod::Pod;
use harness::process::Running;

use super::{Ground, Mode, Targets, World};
use crate::latency::backend::Backend;
use crate::latency::certs;
use crate::latency::cost::Part;
use crate::program::HAPROXY;

const CLIENT: &str = include_str!("../../../baseline/haproxy-client.cfg");
const SERVER: &str = include_str!("../../../baseline/haproxy-server.cfg");
const SOON: Duration = Duration::from_secs(20);
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

pub(super) fn build() -> anyhow::Result<World> {
    let ground = Ground::new(Mode::TlsRelay)?;
    let backend = Backend::start(&ground.cluster, &ground.server)?;
    certs::make(&ground.certs())?;
    let near = haproxy(&ground, &ground.client, "client", CLIENT)?;
    let far = haproxy(&ground, &ground.server, "server", SERVER)?;
    let targets = Targets::at(HERE);
    eventually(SOON, "the server answers through the relays", || {
        ground.client.get(&targets.http.to_string(), "/").map_err(|error| error.to_string())
    })
    .with_context(|| format!("client: {} server: {}", near.stderr(), far.stderr()))?;
    let proxies = vec![(Part::Near, near), (Part::Far, far)];
    Ok(ground.world(Mode::TlsRelay, targets, proxies, backend, ()))
}

fn haproxy(ground: &Ground, pod: &Pod, name: &str, template: &str) -> anyhow::Result<Running> {
    let config = ground.cluster.dir().join(format!("haproxy-{name}.cfg"));
    fs::write(&config, ground.fill(template, HERE))?;
    let path = HAPROXY.path().context("HAProxy is gone")?;
    pod.program(&path.to_string_lossy()).arg("-f").arg(config).arg("-db").start()
}
