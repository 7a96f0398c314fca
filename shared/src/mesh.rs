//! The mesh as the proxies see it: workloads, services, policies and routes, in one immutable
//! snapshot.
//!
//! Invariants: readers hold one [`Arc`](std::sync::Arc) of a snapshot and never see two worlds; one
//! writer publishes; publishing costs in proportion to the change.
//! Not here: parsing (feeds), choosing endpoints (`balance`, `ztunnel::outbound::resolve`).

mod change;
mod chunks;
mod dump;
mod gateway;
mod policy;
mod publish;
mod rate;
mod route;
#[cfg(any(test, feature = "test-util"))]
pub mod sample;
mod service;
mod snapshot;
mod traffic;
mod workload;

pub use change::Change;
pub use gateway::Gateway;
pub use publish::{Reader, Writer, writer};
pub use rate::{Rate, RateLimits, RateUnit};
pub use route::{
    Abort, AbortStatus, Backend, Cors, Delay, Destination, DirectResponse, Fault, Further,
    HeaderChanges, HeaderMatch, HttpMatch, HttpRule, Mirror, OriginMatch, Others, PathChange,
    PathMatch, Pattern, PatternError, QueryMatch, Redirect, RedirectPort, RedirectScheme, Retry,
    RetryConstraint, Rewrite, Route, RouteFilters, RouteKey, RouteKind, RouteParent, Rules,
    Session, SessionKind, Substitution, SubstitutionError, Target, TcpRule, Timeouts, ValueMatch,
};
pub use service::{
    AppProtocol, Balancing, BalancingMode, HealthPolicy, IpFamilies, Locality, NetworkAddr,
    PortTls, Scope, Service, ServiceKey, ServicePort, Visibility, WeightedWaypoint,
};
pub use snapshot::{Applied, Mesh};
pub use traffic::{
    Balancer, Concurrency, Distribution, HashKey, HashTable, Limits, LocalityPattern,
    LocalityPreference, OutlierDetection, PolicyScope, RetryBudget, Share, SlowAnswers, Subset,
    SuccessRate, TrafficPolicies, TrafficPolicy, Upgrade, Warmup,
};
pub use workload::{
    AppTunnel, AppTunnelProtocol, GatewayAddress, GatewayDestination, Health, NetworkMode, PortMap,
    Protocol, Uid, Workload, WorkloadType,
};

#[cfg(test)]
mod tests;
