//! Culvert at layer 4: an authority, a ztunnel per node, a service and a policy, as a user has it.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::Context as _;
use harness::eventually::eventually;
use harness::mesh_dir::Service;
use harness::proxies::{Authority, Ztunnel};

use super::{Ground, Mode, Targets, World};
use crate::latency::backend::{BULK_PORT, Backend, ECHO_PORT, HTTP_PORT};
use crate::latency::cost::Part;

const SOON: Duration = Duration::from_secs(20);
/// The service's virtual address.
const SERVICE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1));

pub(super) fn build(mode: Mode) -> anyhow::Result<World> {
    let ground = Ground::new(mode)?;
    let backend = Backend::start(&ground.cluster, &ground.server)?;
    let mesh = ground.cluster.mesh();
    mesh.service(&Service {
        name: "server",
        namespace: "default",
        addresses: &[SERVICE],
        ports: &[HTTP_PORT, BULK_PORT, ECHO_PORT].map(|port| (port, port)),
        app: "server",
    })?;
    mesh.strict("server")?;
    mesh.policy(
        "clients",
        "server",
        "ALLOW",
        "  - from:\n    - source:\n        principals: [\"cluster.local/ns/default/sa/client\"]\n",
    )?;
    let authority = Authority::start(&ground.cluster, &ground.near, "24h")?;
    let start = |node| {
        let program = Ztunnel::program(&ground.cluster, node, &authority)?;
        let handover = if mode == Mode::Handover { "true" } else { "false" };
        let mut ztunnel = Ztunnel::run(node, program.env("CULVERT_SAME_NODE_HANDOVER", handover))?;
        ztunnel.ready()?;
        anyhow::Ok(ztunnel)
    };
    let near = start(&ground.near)?;
    let far = if mode.is_on_one_node() { None } else { Some(start(&ground.far)?) };
    let targets = Targets::at(SERVICE);
    eventually(SOON, "the service answers through the mesh", || {
        ground.client.get(&targets.http.to_string(), "/").map_err(|error| error.to_string())
    })?;
    let serving = far.as_ref().unwrap_or(&near);
    proven(serving, &ground.client.identity(), mode).context("mutual TLS is not in use")?;
    let far = far.map(|far| (Part::Far, far.into_process()));
    let proxies = [(Part::Near, near.into_process())].into_iter().chain(far).collect();
    Ok(ground.world(mode, targets, proxies, backend, authority))
}

/// The server's ztunnel has seen the client's identity: nothing went past the mesh. And whether there
/// was a tunnel.
fn proven(far: &Ztunnel, identity: &str, mode: Mode) -> anyhow::Result<()> {
    eventually(SOON, "the server's ztunnel logs the client's identity", || {
        let lines = far.log();
        let told = lines
            .iter()
            .filter(|line| line["direction"] == "inbound" && line["src.identity"] == identity)
            .any(|line| (line["handover"] == true) == (mode == Mode::Handover));
        if told { Ok(()) } else { Err("no such line") }
    })
}
