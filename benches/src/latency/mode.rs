//! The data planes that are compared, and the world that each of them gets: two nodes, a client's
//! and a server's pod, the applications, and the proxies in between.
//!
//! To add one: a variant, a module that builds its `World`, and its line in `docs/performance.md`.

mod culvert;
mod direct;

use std::net::SocketAddr;
use std::sync::Arc;

use clap::ValueEnum;
use harness::cluster::{Cluster, Node};
use harness::pod::{Pod, PodSpec};
use harness::process::Running;
use serde::{Deserialize, Serialize};

use super::backend::Backend;
use super::cost::Part;

/// A data plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Mode {
    /// No mesh, no encryption
    Direct,
    /// Culvert: a ztunnel per node, mutual TLS, layer 4
    CulvertL4,
}

impl Mode {
    /// Its name on the command line.
    pub(super) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Builds its world.
    pub(super) fn build(self) -> anyhow::Result<World> {
        match self {
            Self::Direct => direct::build(),
            Self::CulvertL4 => culvert::build(),
        }
    }
}

/// A mode that is up.
pub(super) struct World {
    pub(super) mode: Mode,
    pub(super) client: Pod,
    /// Where the client finds the web server, the bulk server and the echo server.
    pub(super) targets: Targets,
    pub(super) proxies: Vec<(Part, Running)>,
    pub(super) backend: Backend,
    /// What must live as long, and is not measured.
    _rest: Box<dyn std::any::Any>,
}

/// Addresses as the client's application uses them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Targets {
    pub(super) http: SocketAddr,
    pub(super) bulk: SocketAddr,
    pub(super) echo: SocketAddr,
}

impl Targets {
    /// The applications' own ports at one address.
    pub(super) fn at(address: std::net::IpAddr) -> Self {
        let at = |port| SocketAddr::new(address, port);
        use super::backend::{BULK_PORT, ECHO_PORT, HTTP_PORT};
        Self { http: at(HTTP_PORT), bulk: at(BULK_PORT), echo: at(ECHO_PORT) }
    }
}

/// What every world has: a client on one node, a server on the other.
struct Ground {
    cluster: Cluster,
    near: Arc<Node>,
    far: Arc<Node>,
    client: Pod,
    server: Pod,
}

impl Ground {
    fn new(mode: Mode) -> anyhow::Result<Self> {
        let cluster = Cluster::new(&mode.name())?;
        let (near, far) = (cluster.node("near")?, cluster.node("far")?);
        let client = cluster.pod(&near, PodSpec::new("client"))?;
        let server = cluster.pod(&far, PodSpec::new("server"))?;
        // A connection per request uses up ports faster than they are free again by default.
        for pod in [&client, &server] {
            pod.netns().set("ipv4/ip_local_port_range", "1024 65535")?;
            pod.netns().set("ipv4/tcp_tw_reuse", "1")?;
        }
        Ok(Self { cluster, near, far, client, server })
    }
}
