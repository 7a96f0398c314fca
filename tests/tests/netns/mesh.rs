//! The mesh that most tests of traffic run in: two nodes, two pods, two proxies, an authority.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use harness::cluster::{Cluster, Node};
use harness::eventually::eventually;
use harness::pod::{Pod, PodSpec};
use harness::process::{Program, Running};
use harness::proxies::{Authority, Ztunnel};

/// Long enough for anything that is bound to happen.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// A client on one node, a server on the other, a ztunnel on each.
pub(crate) struct Mesh {
    pub(crate) cluster: Cluster,
    pub(crate) near: Arc<Node>,
    pub(crate) far: Arc<Node>,
    pub(crate) client: Pod,
    pub(crate) server: Pod,
    pub(crate) authority: Authority,
    pub(crate) near_ztunnel: Ztunnel,
    pub(crate) far_ztunnel: Ztunnel,
}

impl Mesh {
    pub(crate) fn new(name: &str) -> anyhow::Result<Self> {
        Self::with(name, "1h", &[])
    }

    /// With this lifetime of certificates, and these variables for both proxies.
    pub(crate) fn with(
        name: &str,
        lifetime: &str,
        variables: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let cluster = Cluster::new(name)?;
        let (near, far) = (cluster.node("near")?, cluster.node("far")?);
        let client = cluster.pod(&near, PodSpec::new("client"))?;
        let server = cluster.pod(&far, PodSpec::new("server"))?;
        cluster.host("server", server.ip())?;
        let authority = Authority::start(&cluster, &near, lifetime)?;
        let start = |node| {
            let program = Ztunnel::program(&cluster, node, &authority)?;
            let set = |program: Program, (key, value): &(&str, &str)| program.env(key, value);
            Ztunnel::run(node, variables.iter().fold(program, set))
        };
        let (mut near_ztunnel, mut far_ztunnel) = (start(&near)?, start(&far)?);
        near_ztunnel.ready()?;
        far_ztunnel.ready()?;
        Ok(Self { cluster, near, far, client, server, authority, near_ztunnel, far_ztunnel })
    }

    /// One more pod of the mesh beside the client, served.
    pub(crate) fn pod(&self, spec: PodSpec) -> anyhow::Result<Pod> {
        let pod = self.cluster.pod(&self.near, spec)?;
        self.near_ztunnel.serves(&pod)?;
        Ok(pod)
    }

    /// A role of the harness as the server's application.
    pub(crate) fn serve(&self, role: &str, port: u16) -> anyhow::Result<Running> {
        serve(&self.server, role, port)
    }

    pub(crate) fn tick(&self, from: &Pod, port: u16) -> anyhow::Result<Running> {
        let target = format!("{}:{port}", self.server.ip());
        let mut tick = from.role("tick").args(["--target", &target]).start()?;
        tick.line_with("connected", SOON)?;
        Ok(tick)
    }

    /// Connections that the server's ztunnel has carried over mutual TLS.
    pub(crate) fn tunnelled(&self) -> usize {
        let identity = self.client.identity();
        let told = |line: &serde_json::Value| {
            line["direction"] == "inbound" && line["src.identity"] == identity.as_str()
        };
        self.far_ztunnel.log().iter().filter(|line| told(line)).count()
    }

    pub(crate) fn was_tunnelled(&self) -> anyhow::Result<()> {
        eventually(SOON, "the log tells of mutual TLS", || match self.tunnelled() {
            0 => Err("no line with the client's identity"),
            _ => Ok(()),
        })
    }
}

/// A role of the harness as the application of `pod`.
pub(crate) fn serve(pod: &Pod, role: &str, port: u16) -> anyhow::Result<Running> {
    let listen = format!("[::]:{port}");
    let mut running = pod.role(role).args(["--listen", &listen, "--name", pod.name()]).start()?;
    running.line_with("listening", SOON)?;
    Ok(running)
}

/// Waits until something takes connections on the server's port, from within its pod.
pub(crate) fn listens(pod: &Pod, port: u16) -> anyhow::Result<()> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    eventually(SOON, "the program listens", || {
        pod.netns().run(|| TcpStream::connect_timeout(&address, Duration::from_secs(1)).map(drop))
    })
}
