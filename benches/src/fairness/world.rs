//! Two nodes; on one the victim and its neighbours, on the other their servers.

use std::net::SocketAddr;
use std::time::Duration;

use harness::cluster::Cluster;
use harness::eventually::eventually;
use harness::pod::{Pod, PodSpec};
use harness::process::Running;
use harness::proxies::{Authority, Ztunnel};

const HTTP_PORT: u16 = 80;
const BULK_PORT: u16 = 5201;
const SOON: Duration = Duration::from_secs(20);

/// Everything that is up.
pub(super) struct World {
    pub(super) victim: Pod,
    pub(super) victim_server: Pod,
    in_mesh: (Pod, Pod),
    outside: (Pod, Pod),
    _servers: Vec<Running>,
    _proxies: [Ztunnel; 2],
    _authority: Authority,
    _cluster: Cluster,
}

/// The loud pod, and where it finds its servers.
pub(super) struct Neighbour<'a> {
    pub(super) pod: &'a Pod,
    pub(super) http: String,
    pub(super) bulk: String,
}

impl World {
    pub(super) fn new() -> anyhow::Result<Self> {
        let cluster = Cluster::new("fairness")?;
        let (near, far) = (cluster.node("near")?, cluster.node("far")?);
        let pair = |name: &str, outside: bool| {
            let spec = |name: &str| match PodSpec::new(name) {
                spec if outside => spec.outside(),
                spec => spec,
            };
            let client = cluster.pod(&near, spec(name))?;
            let server = cluster.pod(&far, spec(&format!("{name}-server")))?;
            for pod in [&client, &server] {
                // A connection per request uses up ports faster than they are free again.
                pod.netns().set("ipv4/ip_local_port_range", "1024 65535")?;
                pod.netns().set("ipv4/tcp_tw_reuse", "1")?;
            }
            anyhow::Ok((client, server))
        };
        let (victim, victim_server) = pair("victim", false)?;
        let (in_mesh, outside) = (pair("neighbour", false)?, pair("outsider", true)?);
        let mut servers = Vec::new();
        for server in [&victim_server, &in_mesh.1, &outside.1] {
            for (role, port) in [("http", HTTP_PORT), ("bulk", BULK_PORT)] {
                let listen = format!("[::]:{port}");
                let mut running = server.role(role).args(["--listen", &listen]).start()?;
                running.line_with("listening", SOON)?;
                servers.push(running);
            }
        }
        let authority = Authority::start(&cluster, &near, "24h")?;
        let mut proxies = [
            Ztunnel::start(&cluster, &near, &authority)?,
            Ztunnel::start(&cluster, &far, &authority)?,
        ];
        for (proxy, pods) in
            proxies.iter_mut().zip([[&victim, &in_mesh.0], [&victim_server, &in_mesh.1]])
        {
            proxy.ready()?;
            pods.into_iter().try_for_each(|pod| proxy.serves(pod))?;
        }
        let world = Self {
            victim,
            victim_server,
            in_mesh,
            outside,
            _servers: servers,
            _proxies: proxies,
            _authority: authority,
            _cluster: cluster,
        };
        for (pod, server) in [
            (&world.victim, &world.victim_server),
            (&world.in_mesh.0, &world.in_mesh.1),
            (&world.outside.0, &world.outside.1),
        ] {
            eventually(SOON, "the server answers", || pod.get(&world.target(server), "/"))?;
        }
        Ok(world)
    }

    /// Where a server answers requests.
    pub(super) fn target(&self, server: &Pod) -> String {
        SocketAddr::new(server.ip(), HTTP_PORT).to_string()
    }

    /// Who is loud.
    pub(super) fn neighbour(&self, in_mesh: bool) -> Neighbour<'_> {
        let (pod, server) = if in_mesh { &self.in_mesh } else { &self.outside };
        let bulk = SocketAddr::new(server.ip(), BULK_PORT).to_string();
        Neighbour { pod, http: self.target(server), bulk }
    }
}
