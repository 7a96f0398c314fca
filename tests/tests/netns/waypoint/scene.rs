//! The fixture of the Gateway API's mesh tests: two versions of an application behind one service
//! and one service each, a client, and a waypoint for their namespace.

use std::net::{IpAddr, SocketAddr};

use harness::asking::{Answer, Ask};
use harness::cluster::Cluster;
use harness::eventually::eventually;
use harness::pod::{Pod, PodSpec};
use harness::process::Running;
use harness::proxies::{Authority, Ztunnel};
use harness::waypoint::Waypoint;

use super::super::mesh::{SOON, serve};

/// Where the namespace's services are.
const SERVICES: &[(&str, &str, &str)] = &[
    ("echo", "10.96.0.10", "app: echo"),
    ("echo-v1", "10.96.0.11", "version: v1"),
    ("echo-v2", "10.96.0.12", "version: v2"),
];

/// A machine that is busy with other tests may need it to end what was under way.
pub(crate) const PATIENCE: (&str, &str) = ("CONNECTION_TERMINATION_DEADLINE", "60s");

/// A client on one node, the rest on the other.
pub(crate) struct Scene {
    pub(crate) cluster: Cluster,
    pub(crate) client: Pod,
    pub(crate) v1: Pod,
    pub(crate) v2: Pod,
    pub(crate) waypoint_pod: Pod,
    pub(crate) authority: Authority,
    pub(crate) waypoint: Waypoint,
    pub(crate) near_ztunnel: Ztunnel,
    pub(crate) far_ztunnel: Ztunnel,
    _applications: Vec<Running>,
}

impl Scene {
    pub(crate) fn new(name: &str) -> anyhow::Result<Self> {
        Self::with(name, "")
    }

    /// With more objects in the mesh from the start.
    pub(crate) fn with(name: &str, more: &str) -> anyhow::Result<Self> {
        let cluster = Cluster::new(&format!("waypoint-{name}"))?;
        let (near, far) = (cluster.node("near")?, cluster.node("far")?);
        let mesh = cluster.mesh();
        mesh.write("waypoint.yaml", &Waypoint::gateway("shop", "waypoint", "10.96.0.2"))?;
        mesh.write("namespace.yaml", NAMESPACE)?;
        mesh.write("more.yaml", more)?;
        for (name, address, selector) in SERVICES {
            mesh.write(&format!("{name}.yaml"), &service(name, address, selector))?;
        }
        let echo = |name: &str, version: &str| {
            let spec = PodSpec::new(name).namespace("shop").label("app", "echo");
            cluster.pod(&far, spec.label("version", version))
        };
        let (v1, v2) = (echo("echo-v1", "v1")?, echo("echo-v2", "v2")?);
        let client = cluster.pod(&near, PodSpec::new("client").namespace("shop"))?;
        let waypoint_pod = cluster.pod(&far, Waypoint::pod("waypoint-1", "shop", "waypoint"))?;
        let authority = Authority::start(&cluster, &near, "1h")?;
        let mut near_ztunnel = Ztunnel::start(&cluster, &near, &authority)?;
        let mut far_ztunnel = Ztunnel::start(&cluster, &far, &authority)?;
        let program = Waypoint::program(&cluster, &waypoint_pod, &authority)?;
        let waypoint = Waypoint::run(program.env(PATIENCE.0, PATIENCE.1))?;
        near_ztunnel.ready()?;
        far_ztunnel.ready()?;
        waypoint.ready(&waypoint_pod)?;
        let mut applications = Vec::new();
        for pod in [&v1, &v2] {
            applications.push(serve(pod, "app", 8080)?);
        }
        Ok(Self {
            cluster,
            client,
            v1,
            v2,
            waypoint_pod,
            authority,
            waypoint,
            near_ztunnel,
            far_ztunnel,
            _applications: applications,
        })
    }

    /// Where a service's HTTP port is.
    pub(crate) fn at(service: &str) -> SocketAddr {
        Self::port(service, 80)
    }

    /// Where a port of a service is.
    pub(crate) fn port(service: &str, port: u16) -> SocketAddr {
        let known = SERVICES.iter().find(|(name, ..)| *name == service);
        let address: IpAddr =
            known.map_or("127.0.0.1", |known| known.1).parse().expect("a constant");
        SocketAddr::new(address, port)
    }

    /// `GET path` of a service, from the client.
    pub(crate) fn ask(&self, service: &str, path: &str) -> anyhow::Result<Answer> {
        Ok(Ask::get(Self::at(service), path).from(&self.client)?)
    }

    /// Writes routes, and waits until an answer shows that they are in force.
    pub(crate) fn route(
        &self,
        yaml: &str,
        shown: impl Fn(&Self) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.cluster.mesh().write("routes.yaml", yaml)?;
        eventually(SOON, "the routes are in force", || shown(self))
    }
}

pub(crate) const NAMESPACE: &str = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: shop\n  labels:\n    \
    istio.io/use-waypoint: waypoint\n";

pub(crate) fn service(name: &str, address: &str, selector: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n  namespace: shop\nspec:\n  \
         clusterIP: {address}\n  selector:\n    {selector}\n  ports:\n  - name: http\n    port: 80\n    \
         targetPort: 8080\n    appProtocol: http\n  - name: http-alt\n    port: 8080\n    \
         targetPort: 8080\n    appProtocol: http\n  - name: tcp\n    port: 9090\n    \
         targetPort: 9090\n  - name: https\n    port: 443\n    targetPort: 8443\n    \
         appProtocol: https\n  - name: grpc\n    port: 7070\n    targetPort: 8080\n    \
         appProtocol: grpc\n"
    )
}
