//! Envoy as the client of our inbound, and as the server of our outbound.

use harness::cluster::Cluster;
use harness::peers::{CertDir, Envoy};
use harness::pod::{Pod, PodSpec};
use harness::proxies::Ztunnel;

use super::line::{Ends, Line};
use super::scenes;
use crate::netns::suite::Case;

pub(crate) const CASES: &[Case] =
    &[("peers::envoy_client_reaches_an_application", &["envoy"], || {
        Client::play(scenes::greeting)
    })];

const PORT: u16 = 8000;

/// Envoy in front of our inbound.
struct Client {
    envoy: Envoy,
    server: Pod,
    ztunnel: Ztunnel,
    _cluster: Cluster,
}

impl Client {
    fn new(name: &str) -> anyhow::Result<Self> {
        let cluster = Cluster::new(name)?;
        let (near, far) = (cluster.node("near")?, cluster.node("far")?);
        let server = cluster.pod(&far, PodSpec::new("server"))?;
        let client = cluster.pod(&near, PodSpec::new("client"))?;
        let certs = CertDir::new(cluster.dir().join("certs"))?;
        certs.add(&server)?;
        let mut ztunnel = Ztunnel::run(&far, Ztunnel::with_files(&cluster, &far, &certs))?;
        ztunnel.ready()?;
        let envoy = Envoy::client(client, &certs, &server, PORT)?;
        Ok(Self { envoy, server, ztunnel, _cluster: cluster })
    }

    fn ends(&self) -> anyhow::Result<Ends<'_>> {
        Ok(Ends {
            clients: self.envoy.pod().netns(),
            target: Envoy::PLAIN.parse()?,
            servers: self.server.netns(),
            listen: (self.server.ip(), PORT).into(),
        })
    }

    fn play(scene: impl AsyncFnOnce(&Line<'_>) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let world = Self::new("envoy-client")?;
        world.ends()?.play(scene)?;
        let _ = &world.ztunnel;
        Ok(())
    }
}
