//! The data planes that are compared, and the world that each of them gets: two nodes, a client's
//! and a server's pod, the applications, and the proxies in between.
//!
//! To add one: a variant, a module that builds its `World`, and its line in `docs/performance.md`.

mod culvert;
mod direct;
mod library;
mod relay;
mod sidecar;
mod waypoint;

use std::any::Any;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use clap::ValueEnum;
use harness::cluster::{Cluster, Node};
use harness::pod::{Pod, PodSpec};
use harness::process::Running;
use serde::{Deserialize, Serialize};

use super::backend::{BULK_PORT, Backend, ECHO_PORT, HTTP_PORT};
use super::cost::Part;
use crate::program::{ENVOY, HAPROXY};

/// A data plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Mode {
    /// No mesh, no encryption
    Direct,
    /// No mesh; client and server do mutual TLS themselves
    Library,
    /// Culvert: a ztunnel per node, mutual TLS, layer 4
    CulvertL4,
    /// Culvert: the same with our waypoint between, layer 7
    CulvertL7,
    /// Culvert at layer 4, both pods on one node: a tunnel from its ztunnel to itself
    SameNode,
    /// The same without the tunnel: `--same-node-handover`
    Handover,
    /// Our ztunnels with a real Envoy as the waypoint between, layer 7
    EnvoyWaypoint,
    /// An Envoy beside each pod, as Istio configures it: mutual TLS, HTTP, layer 7
    Sidecar,
    /// A pair of HAProxy: mutual TLS and nothing else
    TlsRelay,
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
            Self::Library => library::build(),
            Self::CulvertL4 | Self::SameNode | Self::Handover => culvert::build(self),
            Self::CulvertL7 | Self::EnvoyWaypoint => waypoint::build(self),
            Self::Sidecar => sidecar::build(),
            Self::TlsRelay => relay::build(),
        }
    }

    /// Why it cannot be run on this machine, if so.
    pub(super) fn missing(self) -> Option<String> {
        match self {
            Self::Sidecar | Self::EnvoyWaypoint => ENVOY.missing(),
            Self::TlsRelay => HAPROXY.missing(),
            Self::Direct
            | Self::Library
            | Self::CulvertL4
            | Self::CulvertL7
            | Self::SameNode
            | Self::Handover => None,
        }
    }

    /// Whether it is what this repository builds.
    pub(super) fn is_ours(self) -> bool {
        matches!(self, Self::CulvertL4 | Self::CulvertL7 | Self::SameNode | Self::Handover)
    }

    /// Whether client and server are on one node.
    fn is_on_one_node(self) -> bool {
        matches!(self, Self::SameNode | Self::Handover)
    }

    /// What it is, for a legend.
    pub(super) fn title(self) -> String {
        let value = self.to_possible_value();
        value.and_then(|value| value.get_help().map(ToString::to_string)).unwrap_or_default()
    }
}

/// A mode that is up.
pub(super) struct World {
    pub(super) mode: Mode,
    pub(super) client: Pod,
    /// Where the client finds the web server, the bulk server and the echo server.
    pub(super) targets: Targets,
    /// Certificates, if the client's application does its own mutual TLS.
    pub(super) client_tls: Option<PathBuf>,
    pub(super) proxies: Vec<(Part, Running)>,
    pub(super) backend: Backend,
    /// What must live as long, and is not measured.
    _rest: Box<dyn Any>,
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
    pub(super) fn at(address: IpAddr) -> Self {
        let at = |port| SocketAddr::new(address, port);
        Self { http: at(HTTP_PORT), bulk: at(BULK_PORT), echo: at(ECHO_PORT) }
    }
}

/// Makes the names of clusters unique.
static BUILT: AtomicU32 = AtomicU32::new(0);

/// What every world has: a client on one node, a server on the other or the same.
struct Ground {
    cluster: Cluster,
    near: Arc<Node>,
    far: Arc<Node>,
    client: Pod,
    server: Pod,
}

impl Ground {
    fn new(mode: Mode) -> anyhow::Result<Self> {
        let number = BUILT.fetch_add(1, Ordering::Relaxed);
        let cluster = Cluster::new(&format!("{}-{number}", mode.name()))?;
        let (near, far) = (cluster.node("near")?, cluster.node("far")?);
        let client = cluster.pod(&near, PodSpec::new("client"))?;
        let home = if mode.is_on_one_node() { &near } else { &far };
        let server = cluster.pod(home, PodSpec::new("server"))?;
        // A connection per request uses up ports faster than they are free again by default.
        for pod in [&client, &server] {
            pod.netns().set("ipv4/ip_local_port_range", "1024 65535")?;
            pod.netns().set("ipv4/tcp_tw_reuse", "1")?;
        }
        Ok(Self { cluster, near, far, client, server })
    }

    /// Where certificates are, in modes that have no authority.
    fn certs(&self) -> PathBuf {
        self.cluster.dir().join("certs")
    }

    /// A configuration with what its `@WORDS@` stand for.
    fn fill(&self, template: &str, service: IpAddr) -> String {
        template
            .replace("@CERTS@", &self.certs().display().to_string())
            .replace("@SERVER@", &self.server.ip().to_string())
            .replace("@SERVICE@", &service.to_string())
    }

    fn world(
        self,
        mode: Mode,
        targets: Targets,
        proxies: Vec<(Part, Running)>,
        backend: Backend,
        rest: impl Any,
    ) -> World {
        let Self { cluster, near, far, client, server } = self;
        let rest = Box::new((rest, cluster, near, far, server));
        World { mode, client, targets, client_tls: None, proxies, backend, _rest: rest }
    }
}
