//! The mesh as the proxies see it: workloads, services and policies, in one immutable snapshot.
//!
//! Invariants: readers hold one [`Arc`](std::sync::Arc) of a snapshot and never see two worlds; one
//! writer publishes; publishing costs in proportion to the change.
//! Not here: parsing (feeds), choosing endpoints (`balance`, `ztunnel::outbound::resolve`).

mod service;
mod workload;

pub use service::{
    AppProtocol, Balancing, BalancingMode, HealthPolicy, IpFamilies, Locality, NetworkAddr, Scope,
    Service, ServiceKey, ServicePort, Visibility, WeightedWaypoint,
};
pub use workload::{
    AppTunnel, AppTunnelProtocol, GatewayAddress, GatewayDestination, Health, NetworkMode, PortMap,
    Protocol, Uid, Workload, WorkloadType,
};
