//! Small valid objects for tests to change.

use std::sync::Arc;

use crate::authz::PolicyKey;
use crate::identity::{SpiffeId, TrustDomain};
use crate::mesh::{
    Backend, Destination, Health, HealthPolicy, HttpMatch, HttpRule, IpFamilies, Locality,
    NetworkMode, Protocol, Route, RouteKey, RouteKind, RouteParent, Rules, Service, ServiceKey,
    Timeouts, Uid, Visibility, Workload, WorkloadType,
};

/// A healthy pod in the mesh, without address and services, with service account `default`.
///
/// # Panics
/// When `namespace` is no DNS-1123 name.
pub fn workload(name: &str, namespace: &str) -> Workload {
    let identity = SpiffeId::new(TrustDomain::default(), namespace, "default");
    Workload {
        uid: Uid(format!("Kubernetes//Pod/{namespace}/{name}").into()),
        name: name.into(),
        addresses: Box::default(),
        hostname: None,
        network: "".into(),
        identity: identity.expect("samples have legal names"),
        protocol: Protocol::Hbone,
        native_tunnel: false,
        waypoint: None,
        require_waypoint: false,
        network_gateway: None,
        node: "node".into(),
        cluster_id: "Kubernetes".into(),
        locality: Arc::default(),
        canonical_name: name.into(),
        canonical_revision: "latest".into(),
        workload_type: WorkloadType::Pod,
        workload_name: name.into(),
        policies: Box::default(),
        health: Health::Healthy,
        network_mode: NetworkMode::Standard,
        app_tunnel: None,
        network_guarded: false,
        capacity: 1,
        labels: Box::default(),
        services: Box::default(),
    }
}

/// A locality without subzone.
pub fn locality(region: &str, zone: &str) -> Arc<Locality> {
    Arc::new(Locality { region: region.into(), zone: zone.into(), subzone: "".into() })
}

/// The key of a Kubernetes service.
pub fn service_key(name: &str, namespace: &str) -> ServiceKey {
    ServiceKey {
        namespace: namespace.into(),
        hostname: format!("{name}.{namespace}.svc.cluster.local").into(),
    }
}

/// A Kubernetes service without addresses and ports.
pub fn service(name: &str, namespace: &str) -> Service {
    Service {
        key: service_key(name, namespace),
        name: name.into(),
        vips: Box::default(),
        cidr_vips: Box::default(),
        ports: Box::default(),
        subject_alt_names: Box::default(),
        waypoint: None,
        weighted_waypoints: Box::default(),
        balancing: None,
        health_policy: HealthPolicy::OnlyHealthy,
        ip_families: IpFamilies::Automatic,
        canonical: true,
        visibility: Visibility::Public,
        traffic: None,
        retry_constraint: None,
        rate_limits: None,
        tls: Box::default(),
    }
}

/// The key of a policy.
pub fn policy_key(name: &str, namespace: &str) -> PolicyKey {
    PolicyKey { namespace: namespace.into(), name: name.into() }
}

/// An `HTTPRoute` for all ports of `parent`, with these rules.
pub fn route(name: &str, namespace: &str, parent: &ServiceKey, rules: Vec<HttpRule>) -> Route {
    Route {
        key: RouteKey { kind: RouteKind::Http, namespace: namespace.into(), name: name.into() },
        created: "".into(),
        parents: [RouteParent { service: parent.clone(), port: None }].into(),
        rate_limits: None,
        rules: Rules::Http(rules.into()),
    }
}

/// A rule that sends what matches any of `matches` to port 80 of `service`.
pub fn rule(matches: Vec<HttpMatch>, service: &ServiceKey) -> HttpRule {
    HttpRule {
        name: None,
        matches: matches.into(),
        filters: Arc::default(),
        fault: None,
        mirrors: Box::default(),
        backends: [backend(service, 1)].into(),
        timeouts: Timeouts::default(),
        retry: None,
        session: None,
    }
}

/// Port 80 of `service`.
pub fn backend(service: &ServiceKey, weight: u32) -> Backend {
    let target = Ok(Destination { service: service.clone(), port: 80, subset: None });
    Backend { weight, target, filters: Arc::default() }
}
