//! A client, services and their endpoints, and one of the data planes between them.
//!
//! Endpoints come and go as a cluster tells it: `join` and `leave` are what its configuration says, at
//! the same moment whatever reads it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use std::{fs, io};

use anyhow::Context as _;
use clap::ValueEnum;
use harness::cluster::{Cluster, Node};
use harness::eventually::eventually;
use harness::netns::NetNs;
use harness::peers::CertDir;
use harness::pod::{Pod, PodSpec};
use harness::process::{Place, Program, Running};
use harness::proxies::Ztunnel;
use harness::waypoint::Waypoint;
use harness::wire::Wire;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use ztunnel::redirect::{Capture, Home, Namespace};

use super::envoy::{self, Endpoints, Identity};
use crate::program::ENVOY;

/// Where applications listen.
pub(super) const APP_PORT: u16 = 8080;
const SOON: Duration = Duration::from_secs(40);
/// Istio's `proxy.concurrency` before CPU limits decide it.
const WORKERS: &str = "2";

/// A data plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Mode {
    /// Two ztunnels with our waypoint between
    Culvert,
    /// Our ztunnels with a real Envoy as the waypoint between, configured as Istio's
    EnvoyWaypoint,
    /// An Envoy beside each pod, as Istio configures it
    Sidecar,
}

impl Mode {
    /// Its name on the command line.
    pub(super) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Why it cannot be run on this machine, if so.
    pub(super) fn missing(self) -> Option<String> {
        match self {
            Self::Culvert => None,
            Self::EnvoyWaypoint | Self::Sidecar => ENVOY.missing(),
        }
    }
}

/// What is configured for a service, in all data planes alike.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Policy {
    /// `outlierDetection`: 3 failures in a row, 5 s, all may be out.
    pub(super) outliers: bool,
    /// A route with `retry`: 503 is sent again, twice.
    pub(super) retries: bool,
}

/// A service, on port 80 of its address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Service {
    pub(super) name: &'static str,
    pub(super) address: Ipv4Addr,
    pub(super) policy: Policy,
}

impl Service {
    pub(super) fn new(number: u8, name: &'static str, policy: Policy) -> Self {
        Self { name, address: Ipv4Addr::new(10, 96, 0, 20 + number), policy }
    }

    fn yaml(&self) -> String {
        let Self { name, address, policy } = self;
        let mut yaml = format!(
            "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n  namespace: default\n  \
             labels: {{istio.io/use-waypoint: waypoint}}\nspec:\n  clusterIP: {address}\n  \
             selector: {{app: {name}}}\n  \
             ports: [{{name: http, port: 80, targetPort: {APP_PORT}, appProtocol: http}}]\n"
        );
        if policy.outliers {
            yaml.push_str(&format!(
                "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\n\
                 metadata: {{name: {name}, namespace: default}}\nspec:\n  host: {name}\n  \
                 trafficPolicy:\n    outlierDetection: {{consecutive5xxErrors: 3, interval: 1s, \
                 baseEjectionTime: 5s, maxEjectionPercent: 100}}\n"
            ));
        }
        if policy.retries {
            yaml.push_str(&format!(
                "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
                 metadata: {{name: {name}, namespace: default}}\nspec:\n  \
                 parentRefs: [{{group: \"\", kind: Service, name: {name}}}]\n  \
                 rules: [{{retry: {{codes: [503], attempts: 2}}, \
                 backendRefs: [{{name: {name}, port: 80}}]}}]\n"
            ));
        }
        yaml
    }
}

/// An endpoint, whose application is the scenario's.
pub(super) struct Member {
    pub(super) pod: Pod,
    service: &'static str,
    sidecar: Option<Running>,
}

/// Everything between a client and its services.
pub(super) struct World {
    mode: Mode,
    services: Vec<Service>,
    pub(super) members: Vec<Member>,
    pub(super) client: Pod,
    endpoints: Endpoints,
    certs: CertDir,
    /// Whoever is behind a service now, as Envoy spells it.
    known: BTreeMap<&'static str, Vec<(String, Value)>>,
    far_ztunnel: Option<Ztunnel>,
    // Processes before the places that they run in.
    proxies: Vec<Running>,
    nodes: [Arc<Node>; 2],
    cluster: Cluster,
}

/// Makes the names of clusters unique.
static BUILT: AtomicU32 = AtomicU32::new(0);

impl World {
    /// With `members` named by their services; none is an endpoint yet.
    pub(super) fn new(
        mode: Mode,
        services: &[Service],
        members: &[(&'static str, usize)],
    ) -> anyhow::Result<Self> {
        let number = BUILT.fetch_add(1, Ordering::Relaxed);
        let cluster = Cluster::new(&format!("faults-{}-{number}", mode.name()))?;
        let (near, far) = (cluster.node("near")?, cluster.node("far")?);
        let certs = CertDir::new(cluster.dir().join("identities"))?;
        let client = cluster.pod(&near, PodSpec::new("client"))?;
        certs.add(&client)?;
        let mut pods = Vec::new();
        for (service, count) in members {
            for number in 0..*count {
                let name = format!("{service}-{number}");
                let spec = PodSpec::new(&name).label("app", service).unannounced();
                let pod = cluster.pod(&far, spec)?;
                certs.add(&pod)?;
                pods.push(Member { pod, service, sidecar: None });
            }
        }
        let endpoints = Endpoints::new(cluster.dir().join("endpoints"))?;
        for service in services {
            cluster.mesh().write(&format!("{}.yaml", service.name), &service.yaml())?;
            endpoints.write(service.name, &[])?;
        }
        let mut world = Self {
            mode,
            services: services.to_vec(),
            members: pods,
            client,
            endpoints,
            certs,
            known: BTreeMap::new(),
            far_ztunnel: None,
            proxies: Vec::new(),
            nodes: [near, far],
            cluster,
        };
        match mode {
            Mode::Sidecar => {
                let sidecar = world.sidecar(&world.client)?;
                world.proxies.push(sidecar);
            }
            Mode::Culvert | Mode::EnvoyWaypoint => world.start_ztunnels()?,
        }
        Ok(world)
    }

    fn start_ztunnels(&mut self) -> anyhow::Result<()> {
        let mesh = self.cluster.mesh();
        mesh.write("gateway.yaml", &Waypoint::gateway("default", "waypoint", "10.96.0.2"))?;
        let [near, far] = &self.nodes;
        let spec = Waypoint::pod("waypoint-1", "default", "waypoint");
        let pod = self.cluster.pod(far, spec)?;
        self.certs.add(&pod)?;
        let ztunnel = |node: &Arc<Node>| {
            let program = Ztunnel::without_certificates(&self.cluster, node);
            Ztunnel::run(node, program.arg("--certs").arg(self.certs.path()))
        };
        let (mut near, mut far) = (ztunnel(near)?, ztunnel(far)?);
        near.ready()?;
        far.ready()?;
        let waypoint = match self.mode {
            Mode::Culvert => {
                let program = Waypoint::without_certificates(&self.cluster, &pod);
                let waypoint = Waypoint::run(program.arg("--certs").arg(self.certs.path()))?;
                waypoint.ready(&pod)?;
                waypoint.into_process()
            }
            _ => {
                let identity = Identity { certs: self.certs.path(), pod: &pod };
                let pods: Vec<&Pod> = self.members.iter().map(|member| &member.pod).collect();
                let config = envoy::waypoint(&identity, &self.services, &self.endpoints, &pods);
                self.envoy(pod.place(), pod.name(), &config)?
            }
        };
        near.serves(&self.client)?;
        self.proxies.extend([near.into_process(), waypoint]);
        self.far_ztunnel = Some(far);
        // The namespace of the waypoint lives as long as its process.
        self.members.push(Member { pod, service: "", sidecar: None });
        Ok(())
    }

    /// Makes a member an endpoint, once its proxy serves it.
    pub(super) fn join(&mut self, at: usize) -> anyhow::Result<()> {
        let pod = &self.members[at].pod;
        self.cluster.mesh().write(&pod.file(), &pod.yaml())?;
        if let Some(ztunnel) = &self.far_ztunnel {
            ztunnel.serves(pod)?;
        }
        if self.mode == Mode::Sidecar {
            self.members[at].sidecar = Some(self.sidecar(&self.members[at].pod)?);
        }
        let Member { pod, service, .. } = &self.members[at];
        let address = match self.mode {
            Mode::Sidecar => envoy::direct(pod),
            Mode::Culvert | Mode::EnvoyWaypoint => envoy::tunnelled(pod),
        };
        self.known.entry(service).or_default().push((pod.name().to_owned(), address));
        self.tell(service)
    }

    /// Takes a member away from its service. Its proxy stays.
    pub(super) fn leave(&mut self, at: usize) -> anyhow::Result<()> {
        let Member { pod, service, .. } = &self.members[at];
        self.known.entry(service).or_default().retain(|(name, _)| name != pod.name());
        self.cluster.mesh().remove(&pod.file())?;
        self.tell(service)
    }

    fn tell(&self, service: &'static str) -> anyhow::Result<()> {
        let known = self.known.get(service).into_iter().flatten();
        let addresses: Vec<Value> = known.map(|(_, address)| address.clone()).collect();
        Ok(self.endpoints.write(service, &addresses)?)
    }

    /// Waits until each service answers.
    pub(super) fn answers(&self, path: &str) -> anyhow::Result<()> {
        for service in &self.services {
            let target = SocketAddr::from((service.address, 80));
            eventually(SOON, &format!("{} answers", service.name), || {
                let status = ask(self.client.netns(), target, path)?;
                anyhow::ensure!(status == 200, "status {status}");
                Ok(())
            })
            .with_context(|| self.complaints())?;
        }
        Ok(())
    }

    /// What proxies complained about, and told last.
    fn complaints(&self) -> String {
        let sidecars = self.members.iter().filter_map(|member| member.sidecar.as_ref());
        let told = |one: &Running| {
            let log = one.stdout();
            format!("{}{}\n", one.stderr(), log.lines().last().unwrap_or_default())
        };
        self.proxies.iter().chain(sidecars).map(told).collect()
    }

    /// Where a service is.
    pub(super) fn at(&self, service: usize) -> SocketAddr {
        (self.services[service].address, 80).into()
    }

    fn sidecar(&self, pod: &Pod) -> anyhow::Result<Running> {
        let identity = Identity { certs: self.certs.path(), pod };
        let config = envoy::sidecar(&identity, &self.services, &self.endpoints);
        // Its socket mark needs a capability that applications do not have.
        let place = Place { confined: false, ..pod.place().clone() };
        let running = self.envoy(&place, pod.name(), &config)?;
        let home = Home::current()?;
        let namespace = Namespace::open(&pod.netns().path(), &home)?;
        Capture::default().apply(&namespace)?;
        eventually(SOON, "the sidecar is ready", || match pod.get("127.0.0.1:15000", "/ready") {
            Ok((200, _)) => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .with_context(|| running.stderr())?;
        Ok(running)
    }

    fn envoy(&self, place: &Place, name: &str, config: &Value) -> anyhow::Result<Running> {
        let file = self.cluster.dir().join(format!("envoy-{name}.json"));
        write(&file, config)?;
        let path = ENVOY.path().context("Envoy is gone")?;
        Program::new(place, &path.to_string_lossy())
            .arg("--config-path")
            .arg(file)
            .args(["--concurrency", WORKERS, "--log-level", "warning", "--disable-hot-restart"])
            .start()
    }
}

/// The status of `GET path` on a connection of its own, which the client ends: where the server does,
/// behind an Envoy that ends HBONE the connection is reset after the answer.
pub(super) fn ask(within: &NetNs, target: SocketAddr, path: &str) -> io::Result<u16> {
    let mut wire = within.run(|| TcpStream::connect_timeout(&target, SOON)).and_then(Wire::of)?;
    wire.say(format!("GET {path} HTTP/1.1\r\nHost: {target}\r\n\r\n"))?;
    Ok(wire.answer("GET")?.status)
}

fn write(file: &Path, config: &Value) -> anyhow::Result<()> {
    fs::write(file, config.to_string()).with_context(|| format!("writing {}", file.display()))
}
