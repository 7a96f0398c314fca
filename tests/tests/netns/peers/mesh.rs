//! Two pods on two nodes, of which one has a ztunnel; the pod of the other is left to a peer.

use std::net::SocketAddr;
use std::time::Duration;

use harness::cluster::Cluster;
use harness::eventually::eventually;
use harness::peers::CertDir;
use harness::pod::{Pod, PodSpec};
use harness::proxies::Ztunnel;

use super::line::Ends;

/// Where the application listens.
pub(super) const PORT: u16 = 8000;
pub(super) const SOON: Duration = Duration::from_secs(20);

/// Which half of a tunnel is ours.
#[derive(Clone, Copy)]
pub(super) enum Ours {
    Outbound,
    Inbound,
}

pub(super) struct Mesh {
    pub(super) client: Pod,
    pub(super) server: Pod,
    pub(super) ztunnel: Ztunnel,
    pub(super) certs: CertDir,
    ours: Ours,
    cluster: Cluster,
}

impl Mesh {
    pub(super) fn new(ours: Ours) -> anyhow::Result<Self> {
        let cluster = Cluster::numbered("peers")?;
        let (near, far) = (cluster.node("near")?, cluster.node("far")?);
        let client = cluster.pod(&near, PodSpec::new("client"))?;
        let server = cluster.pod(&far, PodSpec::new("server"))?;
        let certs = CertDir::new(cluster.dir().join("certs"))?;
        let pod = match ours {
            Ours::Outbound => &client,
            Ours::Inbound => &server,
        };
        certs.add(pod)?;
        let ztunnel = start(&cluster, pod, &certs)?;
        Ok(Self { client, server, ztunnel, certs, ours, cluster })
    }

    /// Another ztunnel beside the first.
    pub(super) fn another(&self) -> anyhow::Result<Ztunnel> {
        let pod = match self.ours {
            Ours::Outbound => &self.client,
            Ours::Inbound => &self.server,
        };
        start(&self.cluster, pod, &self.certs)
    }

    /// The line from the client's pod, by way of `target`, to the server's pod.
    pub(super) fn ends(&self, target: SocketAddr) -> Ends<'_> {
        let (clients, servers) = (self.client.netns(), self.server.netns());
        Ends { clients, target, servers, listen: self.application() }
    }

    pub(super) fn application(&self) -> SocketAddr {
        (self.server.ip(), PORT).into()
    }

    /// Each connection went through the ztunnel with the client's proved identity, and has come to
    /// its end there.
    pub(super) fn all_over(&self, opened: usize) -> anyhow::Result<()> {
        eventually(SOON, "the log tells of each connection", || match self.told_by(&self.ztunnel) {
            told if told == opened => Ok(()),
            told => Err(format!("{told} of {opened}")),
        })
    }

    /// The ztunnel, told to end earlier, does so.
    pub(super) fn ztunnel_ends(&mut self) -> anyhow::Result<()> {
        let ended = self.ztunnel.process().wait(SOON)?;
        anyhow::ensure!(ended.success(), "the ztunnel ended with {ended}");
        Ok(())
    }

    /// Connections of the client that `ztunnel` has told of.
    pub(super) fn told_by(&self, ztunnel: &Ztunnel) -> usize {
        let direction = match self.ours {
            Ours::Outbound => "outbound",
            Ours::Inbound => "inbound",
        };
        let identity = self.client.identity();
        let told = |line: &serde_json::Value| {
            line["direction"] == direction && line["src.identity"] == identity.as_str()
        };
        ztunnel.log().iter().filter(|line| told(line)).count()
    }
}

fn start(cluster: &Cluster, pod: &Pod, certs: &CertDir) -> anyhow::Result<Ztunnel> {
    let program = Ztunnel::with_files(cluster, pod.node(), certs)
        // As many streams in one connection as the peer allows.
        .env("POOL_MAX_STREAMS_PER_CONNECTION", "2000")
        // Longer than a scene.
        .env("CONNECTION_TERMINATION_DEADLINE", "120s");
    let mut ztunnel = Ztunnel::run(pod.node(), program)?;
    ztunnel.ready()?;
    Ok(ztunnel)
}
