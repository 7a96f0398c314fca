//! The kinds of objects, and what is said about those that are none of ours.

use crate::feed::compile::Options;
use crate::feed::fields::Fields;
use crate::feed::intern::Interner;
use crate::feed::object::backend_tls::authorities_of_config_map;
use crate::feed::object::{
    Authorization, BackendTlsPolicy, BackendTraffic, Body, DestinationRule, EndpointSlice, Gateway,
    Head, KubeService, Machine, NetworkPolicy, PeerAuthentication, Pod, ReferenceGrant,
    RouteObject, ServiceEntry, VirtualService,
};
use crate::feed::verdict::Cause;
use crate::mesh::RouteKind;

/// The kinds that can be in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Namespace,
    Node,
    Pod,
    Service,
    EndpointSlice,
    AuthorizationPolicy,
    PeerAuthentication,
    Gateway,
    ServiceEntry,
    WorkloadEntry,
    Route(RouteKind),
    ReferenceGrant,
    DestinationRule,
    VirtualService,
    BackendTraffic,
    BackendTlsPolicy,
    ConfigMap,
    NetworkPolicy,
}

const CORE: &[&str] = &["v1"];
const NETWORK: &[&str] = &["networking.k8s.io/v1"];
const DISCOVERY: &[&str] = &["discovery.k8s.io/v1"];
pub(super) const SECURITY: &[&str] = &["security.istio.io/v1", "security.istio.io/v1beta1"];
const GATEWAY: &[&str] = &["gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1beta1"];
const ALPHA_ROUTE: &[&str] = &[
    "gateway.networking.k8s.io/v1",
    "gateway.networking.k8s.io/v1alpha3",
    "gateway.networking.k8s.io/v1alpha2",
];
const EXPERIMENTAL: &[&str] = &["gateway.networking.x-k8s.io/v1alpha1"];
const NETWORKING: &[&str] =
    &["networking.istio.io/v1", "networking.istio.io/v1beta1", "networking.istio.io/v1alpha3"];

/// Kinds, their names and their versions.
const KINDS: &[(Kind, &str, &[&str])] = &[
    (Kind::Namespace, "Namespace", CORE),
    (Kind::Node, "Node", CORE),
    (Kind::Pod, "Pod", CORE),
    (Kind::Service, "Service", CORE),
    (Kind::EndpointSlice, "EndpointSlice", DISCOVERY),
    (Kind::AuthorizationPolicy, "AuthorizationPolicy", SECURITY),
    (Kind::PeerAuthentication, "PeerAuthentication", SECURITY),
    (Kind::Gateway, "Gateway", GATEWAY),
    (Kind::ServiceEntry, "ServiceEntry", NETWORKING),
    (Kind::WorkloadEntry, "WorkloadEntry", NETWORKING),
    (Kind::Route(RouteKind::Http), "HTTPRoute", GATEWAY),
    (Kind::Route(RouteKind::Grpc), "GRPCRoute", ALPHA_ROUTE),
    (Kind::Route(RouteKind::Tls), "TLSRoute", ALPHA_ROUTE),
    (Kind::Route(RouteKind::Tcp), "TCPRoute", ALPHA_ROUTE),
    (Kind::ReferenceGrant, "ReferenceGrant", GATEWAY),
    (Kind::BackendTlsPolicy, "BackendTLSPolicy", ALPHA_ROUTE),
    (Kind::ConfigMap, "ConfigMap", CORE),
    (Kind::DestinationRule, "DestinationRule", NETWORKING),
    (Kind::VirtualService, "VirtualService", NETWORKING),
    (Kind::NetworkPolicy, "NetworkPolicy", NETWORK),
    (Kind::BackendTraffic, "XBackendTrafficPolicy", EXPERIMENTAL),
];

/// Kinds that mean something to a mesh but are not acted on.
const UNSUPPORTED: &[&str] = &[
    "EnvoyFilter",
    "GatewayClass",
    "ProxyConfig",
    "RequestAuthentication",
    "Sidecar",
    "Telemetry",
    "UDPRoute",
    "WasmPlugin",
    "WorkloadGroup",
];

impl Kind {
    pub(super) fn of(api: &str, name: &str) -> Option<Self> {
        let known = |row: &&(Self, &str, &[&str])| {
            // A security object of a version we do not know is still better than none.
            let close = row.0.is_security() && api.starts_with("security.istio.io/")
                || row.0 == Self::NetworkPolicy && api.starts_with("networking.k8s.io/");
            row.1 == name && (close || row.2.contains(&api))
        };
        KINDS.iter().find(known).map(|row| row.0)
    }

    pub(crate) fn name(self) -> &'static str {
        KINDS.iter().find(|row| row.0 == self).map_or("", |row| row.1)
    }

    pub(crate) fn has_namespace(self) -> bool {
        !matches!(self, Self::Namespace | Self::Node)
    }

    /// Security objects never keep an older version: they deny what they cover instead.
    pub(super) fn is_security(self) -> bool {
        matches!(self, Self::AuthorizationPolicy | Self::PeerAuthentication)
    }

    /// Those that are worse absent than invalid.
    pub(super) fn fails_closed(self) -> bool {
        self.is_security() || matches!(self, Self::BackendTlsPolicy | Self::NetworkPolicy)
    }

    pub(super) fn read(
        self,
        root: &Fields<'_>,
        head: &Head,
        options: &Options,
        intern: &mut Interner,
    ) -> Option<Body> {
        root.foreign(if self.is_security() { &["status"] } else { &[] });
        match self {
            Self::Namespace => {
                root.foreign(&["spec", "status"]);
                let (enrolment, waypoint) = (head.enrolment, head.waypoint.clone());
                Some(Body::Namespace { enrolment, waypoint })
            }
            Self::Node => {
                root.foreign(&["spec", "status"]);
                Some(Body::Node)
            }
            Self::Pod => Some(Body::Pod(Box::new(Pod::read(root, head, intern)))),
            Self::Service => {
                KubeService::read(root, head, intern).map(|one| Body::Service(Box::new(one)))
            }
            Self::EndpointSlice => EndpointSlice::read(root, head, intern)
                .map(|one| Body::EndpointSlice(Box::new(one))),
            Self::AuthorizationPolicy => Authorization::read(root, head, options, intern)
                .map(|one| Body::Authorization(Box::new(one))),
            Self::PeerAuthentication => {
                let one = PeerAuthentication::read(root, intern);
                Some(Body::PeerAuthentication(Box::new(one)))
            }
            Self::Gateway => {
                Gateway::read(root, head, intern).map(|one| Body::Gateway(Box::new(one)))
            }
            Self::ServiceEntry => {
                ServiceEntry::read(root, head, intern).map(|one| Body::ServiceEntry(Box::new(one)))
            }
            Self::WorkloadEntry => {
                let spec = root.fields("spec")?;
                root.foreign(&["status"]);
                Machine::read(&spec, intern).map(|one| Body::WorkloadEntry(Box::new(one)))
            }
            Self::Route(kind) => {
                RouteObject::read(kind, root, head, intern).map(|one| Body::Route(Box::new(one)))
            }
            Self::ReferenceGrant => {
                ReferenceGrant::read(root, intern).map(|one| Body::ReferenceGrant(Box::new(one)))
            }
            Self::DestinationRule => DestinationRule::read(root, head, intern)
                .map(|one| Body::DestinationRule(Box::new(one))),
            Self::VirtualService => VirtualService::read(root, head, intern)
                .map(|one| Body::VirtualService(Box::new(one))),
            Self::BackendTraffic => {
                BackendTraffic::read(root, intern).map(|one| Body::BackendTraffic(Box::new(one)))
            }
            Self::BackendTlsPolicy => {
                BackendTlsPolicy::read(root, intern).map(|one| Body::BackendTls(Box::new(one)))
            }
            Self::NetworkPolicy => {
                root.foreign(&["status"]);
                Some(Body::NetworkPolicy(Box::new(NetworkPolicy::read(root, intern))))
            }
            Self::ConfigMap => Some(Body::ConfigMap(authorities_of_config_map(root))),
        }
    }
}

/// Why an object is none that could be in force.
pub(super) fn explain(api: &str, kind: &str) -> (Cause, String) {
    let of_mesh = ["istio.io", "gateway.networking.k8s.io"].iter().any(|group| api.contains(group));
    if let Some((_, _, versions)) = KINDS.iter().find(|row| row.1 == kind) {
        let versions = versions.join(" or ");
        return (
            Cause::Unsupported,
            format!("{kind} must have apiVersion {versions}, not \"{api}\""),
        );
    }
    match kind {
        "" => (Cause::Invalid, "the object has no kind".to_owned()),
        _ if UNSUPPORTED.contains(&kind) && of_mesh => {
            (Cause::Unsupported, format!("{kind} is not supported yet and has no effect"))
        }
        "Endpoints" => {
            (Cause::Unsupported, "use EndpointSlice; Endpoints has no effect".to_owned())
        }
        "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "Job" | "CronJob" => (
            Cause::Unsupported,
            format!("a mesh has no {kind}; its pods are in the mesh as kind Pod"),
        ),
        _ => (Cause::Unknown, format!("unknown kind \"{kind}\" of apiVersion \"{api}\"")),
    }
}
