//! A service: a host name with ports, addresses and a way to choose endpoints.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::identity::SpiffeId;
use crate::mesh::{
    GatewayAddress, RateLimits, RetryConstraint, Subset, TrafficPolicies, TrafficPolicy,
};
use crate::tls::BackendTerms;

/// Namespace and host name of a service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Fully qualified host name; may be a wildcard `*.x`.
    pub hostname: Arc<str>,
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.hostname)
    }
}

/// An address within a network.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetworkAddr {
    /// Network id, "" by default.
    pub network: Arc<str>,
    /// The address, never an IPv4-mapped IPv6 one.
    pub address: IpAddr,
}

impl fmt::Display for NetworkAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.address)
    }
}

/// Where something runs; empty strings when unknown.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize)]
pub struct Locality {
    /// Region.
    pub region: Arc<str>,
    /// Zone.
    pub zone: Arc<str>,
    /// Subzone.
    pub subzone: Arc<str>,
}

/// What a port speaks, from `appProtocol` or the port's name. ztunnel ignores it; waypoints do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
pub enum AppProtocol {
    /// Not said.
    Unknown,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2 without TLS.
    Http2,
    /// gRPC.
    Grpc,
    /// TCP.
    Tcp,
    /// TLS.
    Tls,
}

/// A port of a service.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServicePort {
    /// The port clients use.
    pub port: u16,
    /// The port of the endpoints; `None` when it is named and each endpoint says its own.
    pub target_port: Option<u16>,
    /// What it speaks.
    pub app_protocol: AppProtocol,
    /// The port's name; "" when unnamed.
    pub name: Arc<str>,
}

/// How endpoints are preferred (spec L4 §3.4).
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Balancing {
    /// Scopes in order of importance.
    pub routing_preferences: Box<[Scope]>,
    /// What the scopes mean.
    pub mode: BalancingMode,
}

/// What the routing preferences mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
pub enum BalancingMode {
    /// All endpoints.
    #[serde(rename = "Standard")]
    Any,
    /// Only endpoints that match every scope.
    Strict,
    /// Only endpoints of the highest rank present.
    Failover,
    /// No selection: the original destination.
    Passthrough,
}

/// A scope of a routing preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
pub enum Scope {
    /// Same region.
    Region,
    /// Same zone.
    Zone,
    /// Same subzone.
    Subzone,
    /// Same node.
    Node,
    /// Same cluster.
    Cluster,
    /// Same network.
    Network,
}

/// Which endpoints count, by health.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
pub enum HealthPolicy {
    /// Healthy ones only.
    OnlyHealthy,
    /// All (`publishNotReadyAddresses`).
    AllowAll,
}

/// Address families a service answers on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
pub enum IpFamilies {
    /// Not said: both.
    Automatic,
    /// IPv4 only.
    IPv4,
    /// IPv6 only.
    IPv6,
    /// Both.
    Dual,
}

/// Who sees a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
pub enum Visibility {
    /// Every namespace.
    Public,
    /// Its own namespace only.
    Namespace,
}

/// One of several waypoints, chosen per connection in proportion to its weight.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize)]
pub struct WeightedWaypoint {
    /// Where it is.
    pub destination: GatewayAddress,
    /// 0 is never chosen.
    pub weight: u32,
}

/// One service of the mesh. Its endpoints are the workloads that list it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Namespace and host name.
    pub key: ServiceKey,
    /// Short name.
    pub name: Arc<str>,
    /// Virtual addresses; empty for headless services.
    pub vips: Box<[NetworkAddr]>,
    /// Virtual address ranges, with their network.
    pub cidr_vips: Box<[(Arc<str>, IpNet)]>,
    /// Ports.
    pub ports: Box<[ServicePort]>,
    /// Further identities that its endpoints may prove.
    pub subject_alt_names: Box<[SpiffeId]>,
    /// Waypoint for traffic to this service.
    pub waypoint: Option<GatewayAddress>,
    /// Overrides `waypoint` per connection when any weight is positive.
    pub weighted_waypoints: Box<[WeightedWaypoint]>,
    /// How endpoints are preferred.
    pub balancing: Option<Balancing>,
    /// Which endpoints count.
    pub health_policy: HealthPolicy,
    /// Address families.
    pub ip_families: IpFamilies,
    /// Preferred on ties of host name or address.
    pub canonical: bool,
    /// Who sees it.
    pub visibility: Visibility,
    /// What the `DestinationRule`s for it say; ztunnel ignores it, waypoints do not.
    pub traffic: Option<Arc<TrafficPolicies>>,
    /// How many requests may be sent again; none is the default.
    pub retry_constraint: Option<RetryConstraint>,
    /// How many requests may be made of it, where it was asked for; ztunnel ignores it, waypoints do
    /// not.
    pub rate_limits: Option<Arc<RateLimits>>,
    /// TLS that its applications speak, inside the tunnel too; those of one port first. ztunnel
    /// ignores it, waypoints do not.
    pub tls: Box<[PortTls]>,
}

/// TLS of one port, or of all.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct PortTls {
    /// The port; all without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Who must answer, or why nothing may be sent.
    pub terms: Result<Arc<BackendTerms>, Arc<str>>,
}

impl Service {
    /// The TLS that the applications behind a port speak, or why nothing may be sent to them.
    pub fn tls(&self, port: u16) -> Option<&Result<Arc<BackendTerms>, Arc<str>>> {
        let mut all = self.tls.iter();
        all.find(|one| one.port.is_none_or(|own| own == port)).map(|one| &one.terms)
    }

    /// The subset of a name.
    pub fn subset(&self, name: &str) -> Option<&Subset> {
        self.traffic.as_ref()?.subset(name)
    }

    /// The policy for requests to a port, or to a subset of it; none where no rule is for the
    /// service, or describes the subset.
    pub fn policy(&self, port: u16, subset: Option<&str>) -> Option<&Arc<TrafficPolicy>> {
        let scope = match subset {
            None => &self.traffic.as_ref()?.scope,
            Some(name) => &self.subset(name)?.scope,
        };
        Some(scope.of_port(port))
    }
}
