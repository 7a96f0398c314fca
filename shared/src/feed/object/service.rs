//! `kind: Service`.

use std::net::IpAddr;
use std::sync::Arc;

use crate::feed::fields::Fields;
use crate::feed::intern::Interner;
use crate::feed::object::{Head, Labels, UseWaypoint, rates};
use crate::feed::verdict::Cause;
use crate::mesh::{
    AppProtocol, Balancing, BalancingMode, HealthPolicy, IpFamilies, RateLimits, Scope,
};

/// A Kubernetes service.
#[derive(Debug, Clone)]
pub(crate) struct KubeService {
    pub(crate) vips: Box<[IpAddr]>,
    pub(crate) ports: Box<[KubePort]>,
    /// Empty: endpoints come from slices only.
    pub(crate) selector: Labels,
    pub(crate) balancing: Option<Balancing>,
    pub(crate) health_policy: HealthPolicy,
    pub(crate) ip_families: IpFamilies,
    pub(crate) waypoint: UseWaypoint,
    pub(crate) rate_limits: Option<Arc<RateLimits>>,
}

/// A port of a Kubernetes service.
#[derive(Debug, Clone)]
pub(crate) struct KubePort {
    pub(crate) name: Arc<str>,
    pub(crate) port: u16,
    pub(crate) target: TargetPort,
    pub(crate) app_protocol: AppProtocol,
}

/// The port of the endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TargetPort {
    /// The same on all.
    Number(u16),
    /// Each pod's container port of this name.
    Name(Arc<str>),
}

const FOREIGN: &[&str] = &[
    "allocateLoadBalancerNodePorts",
    "externalIPs",
    "externalTrafficPolicy",
    "healthCheckNodePort",
    "ipFamilyPolicy",
    "loadBalancerClass",
    "loadBalancerIP",
    "loadBalancerSourceRanges",
    "sessionAffinityConfig",
];

impl KubeService {
    pub(crate) fn read(root: &Fields<'_>, head: &Head, intern: &mut Interner) -> Option<Self> {
        root.foreign(&["status"]);
        let Some(spec) = root.fields("spec") else {
            root.report("spec", Cause::Invalid, "a service needs a spec");
            return None;
        };
        spec.foreign(FOREIGN);
        if spec.text("type") == Some("ExternalName") {
            spec.foreign(&spec.names().collect::<Vec<_>>());
            spec.report("type", Cause::Unsupported, "an ExternalName service is only a DNS alias");
            return None;
        }
        if spec.text("sessionAffinity").is_some_and(|affinity| affinity != "None") {
            let reason = "clients are spread by load, not kept on one endpoint";
            spec.report("sessionAffinity", Cause::Unsupported, reason);
        }
        let mut selector: Vec<_> = spec.pairs("selector");
        selector.sort_unstable();
        let unready = spec.flag("publishNotReadyAddresses").unwrap_or(false);
        Some(Self {
            vips: vips(&spec),
            ports: ports(&spec, intern),
            selector: selector.iter().map(|(k, v)| (intern.text(k), intern.text(v))).collect(),
            balancing: balancing(&spec, head),
            health_policy: if unready { HealthPolicy::AllowAll } else { HealthPolicy::OnlyHealthy },
            ip_families: families(&spec),
            waypoint: head.waypoint.clone(),
            rate_limits: rates::read(root),
        })
    }
}

/// `None` (headless) and "" (not allocated) are no addresses.
fn vips(spec: &Fields<'_>) -> Box<[IpAddr]> {
    let parse = |text: &str| match text {
        "None" | "" => Ok(None),
        _ => text.parse().map(Some).map_err(|_| "is no IP address".to_owned()),
    };
    let mut vips: Vec<IpAddr> =
        spec.parsed_list("clusterIPs", parse).into_iter().flatten().collect();
    let single = spec.text("clusterIP").map(parse).transpose();
    match single {
        Ok(single) => vips.extend(single.flatten()),
        Err(reason) => spec.report("clusterIP", Cause::Invalid, reason),
    }
    let mut unique = Vec::new();
    for vip in vips.iter().map(IpAddr::to_canonical) {
        if !unique.contains(&vip) {
            unique.push(vip);
        }
    }
    unique.into()
}

fn ports(spec: &Fields<'_>, intern: &mut Interner) -> Box<[KubePort]> {
    let mut ports: Vec<KubePort> = Vec::new();
    for fields in spec.each("ports") {
        fields.foreign(&["nodePort"]);
        let name = fields.text("name").unwrap_or("");
        let target = fields.number_or_text("targetPort");
        let app_protocol = fields.text("appProtocol");
        if let Some(protocol @ ("UDP" | "SCTP")) = fields.text("protocol") {
            fields.foreign(&["port"]);
            let reason = format!("{protocol} is not carried by the mesh and passes it by");
            fields.report("protocol", Cause::Unsupported, reason);
            continue;
        }
        let Some(port) = fields.number::<u16>("port").filter(|port| *port != 0) else {
            fields.report("port", Cause::Invalid, "must be a port number");
            continue;
        };
        if ports.iter().any(|other| other.port == port) {
            fields.report("port", Cause::Shadowed, "another port of the service has this number");
            continue;
        }
        let target = match target {
            None | Some(Ok(0)) => TargetPort::Number(port),
            Some(Ok(number)) => TargetPort::Number(number),
            Some(Err(name)) => TargetPort::Name(intern.text(name)),
        };
        let app_protocol = protocol_of(app_protocol, name);
        ports.push(KubePort { name: intern.text(name), port, target, app_protocol });
    }
    ports.into()
}

/// By `appProtocol`, else by the part of the name before the first dash.
pub(crate) fn protocol_of(app_protocol: Option<&str>, name: &str) -> AppProtocol {
    let word = app_protocol.unwrap_or_else(|| name.split('-').next().unwrap_or(""));
    match word.to_ascii_lowercase().as_str() {
        "http" | "http1" | "kubernetes.io/ws" => AppProtocol::Http11,
        "http2" | "h2c" | "kubernetes.io/h2c" => AppProtocol::Http2,
        "grpc" => AppProtocol::Grpc,
        "https" | "tls" | "kubernetes.io/wss" => AppProtocol::Tls,
        "tcp" | "mongo" | "mysql" | "redis" => AppProtocol::Tcp,
        _ => AppProtocol::Unknown,
    }
}

/// Istio: `internalTrafficPolicy: Local` is strict on the node; a distribution is a failover order.
fn balancing(spec: &Fields<'_>, head: &Head) -> Option<Balancing> {
    let annotation = head.annotation("networking.istio.io/traffic-distribution");
    let distribution = spec.text("trafficDistribution");
    let distribution = annotation.map(|value| &**value).or(distribution);
    if spec.text("internalTrafficPolicy") == Some("Local") {
        let routing_preferences = [Scope::Node].into();
        return Some(Balancing { routing_preferences, mode: BalancingMode::Strict });
    }
    let near = [Scope::Network, Scope::Region, Scope::Zone];
    let routing_preferences: Box<[Scope]> = match distribution? {
        "PreferClose" | "PreferSameZone" => near.into(),
        "PreferSameNode" => [&near[..], &[Scope::Subzone, Scope::Node]].concat().into(),
        "Any" => return None,
        other => {
            let reason = format!("\"{other}\" is not a distribution; endpoints are used alike");
            spec.report("trafficDistribution", Cause::Unsupported, reason);
            return None;
        }
    };
    Some(Balancing { routing_preferences, mode: BalancingMode::Failover })
}

fn families(spec: &Fields<'_>) -> IpFamilies {
    let families = spec.texts("ipFamilies");
    match (families.contains(&"IPv4"), families.contains(&"IPv6")) {
        (true, true) => IpFamilies::Dual,
        (true, false) => IpFamilies::IPv4,
        (false, true) => IpFamilies::IPv6,
        (false, false) => IpFamilies::Automatic,
    }
}
