//! A workload: one pod or machine, with everything a proxy must know to reach and describe it.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::authz::PolicyKey;
use crate::identity::SpiffeId;
use crate::mesh::{Locality, NetworkAddr, ServiceKey};

/// The global id of a workload, `<cluster>//Pod/<namespace>/<name>` for pods.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct Uid(pub Arc<str>);

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a workload is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
pub enum Protocol {
    /// Plain TCP: outside the mesh.
    #[serde(rename = "TCP")]
    Tcp,
    /// HBONE on port 15008: in the mesh, never dialled in plaintext.
    #[serde(rename = "HBONE")]
    Hbone,
}

/// Whether a workload takes new connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
pub enum Health {
    /// Ready.
    Healthy,
    /// Not ready or terminating.
    Unhealthy,
}

/// Whether a workload has an address of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
pub enum NetworkMode {
    /// A pod address of its own.
    Standard,
    /// Shares its node's address, so it is not found by address.
    HostNetwork,
}

/// What kind of object runs the workload; telemetry only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkloadType {
    /// A Deployment.
    Deployment,
    /// A CronJob.
    CronJob,
    /// A bare pod.
    Pod,
    /// A Job.
    Job,
}

/// A waypoint or a network gateway: where it is and the port of its HBONE listener.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayAddress {
    /// Where it is.
    pub destination: GatewayDestination,
    /// Port of the HBONE listener, nearly always 15008.
    pub hbone_mtls_port: u16,
}

/// How a gateway is named.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum GatewayDestination {
    /// A service or workload by namespace and host name.
    Hostname(ServiceKey),
    /// A service or workload by address.
    Address(NetworkAddr),
}

/// A port of the application that takes all tunnelled traffic of the workload (spec L4 §4.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
pub struct AppTunnel {
    /// What precedes the bytes.
    pub protocol: AppTunnelProtocol,
    /// The port; the requested one when absent.
    pub port: Option<u16>,
}

/// What precedes the bytes of an application tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum AppTunnelProtocol {
    /// Nothing.
    None,
    /// A PROXY protocol version 2 header.
    Proxy,
}

/// Service port to target port, for one endpoint.
pub type PortMap = Box<[(u16, u16)]>;

/// One workload of the mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// Global id.
    pub uid: Uid,
    /// Pod name.
    pub name: Arc<str>,
    /// Addresses in the order that the control plane lists them; may be empty.
    pub addresses: Box<[IpAddr]>,
    /// Resolved on demand when there is no address.
    pub hostname: Option<Arc<str>>,
    /// Network id, "" by default.
    pub network: Arc<str>,
    /// Trust domain, namespace and service account.
    pub identity: SpiffeId,
    /// How it is reached.
    pub protocol: Protocol,
    /// Ends HBONE itself, without a node proxy.
    pub native_tunnel: bool,
    /// Waypoint for traffic to this workload's own address.
    pub waypoint: Option<Arc<GatewayAddress>>,
    /// Inbound accepts only the workload's waypoint: it has one, or is annotated
    /// `culvert.dev/require-waypoint: "true"`.
    pub require_waypoint: bool,
    /// Gateway of the workload's network.
    pub network_gateway: Option<Arc<GatewayAddress>>,
    /// Node name.
    pub node: Arc<str>,
    /// Cluster id, `Kubernetes` by default.
    pub cluster_id: Arc<str>,
    /// Region, zone and subzone; shared by the workloads of one node.
    pub locality: Arc<Locality>,
    /// Telemetry: what users call the application.
    pub canonical_name: Arc<str>,
    /// Telemetry: its version.
    pub canonical_revision: Arc<str>,
    /// Telemetry: what kind of object runs it.
    pub workload_type: WorkloadType,
    /// Telemetry: the name of that object.
    pub workload_name: Arc<str>,
    /// Policies that select this workload.
    pub policies: Box<[PolicyKey]>,
    /// Whether it takes new connections.
    pub health: Health,
    /// Whether it has an address of its own.
    pub network_mode: NetworkMode,
    /// A `NetworkPolicy` selects it: its traffic must pass the network that enforces that.
    pub network_guarded: bool,
    /// Port that takes all tunnelled traffic.
    pub app_tunnel: Option<AppTunnel>,
    /// Balancing weight, 1 by default.
    pub capacity: u32,
    /// Its labels of those keys that subsets of a `DestinationRule` look at, in their order.
    pub labels: Box<[(Arc<str>, Arc<str>)]>,
    /// Services it is an endpoint of, with its ports for each.
    pub services: Box<[(ServiceKey, PortMap)]>,
}

impl Workload {
    /// Whether it has all of these labels.
    pub fn has_labels(&self, wanted: &[(Arc<str>, Arc<str>)]) -> bool {
        wanted.iter().all(|label| self.labels.binary_search(label).is_ok())
    }

    /// The namespace, which is that of the identity.
    pub fn namespace(&self) -> &str {
        self.identity.namespace()
    }
}
