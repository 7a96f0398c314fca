//! Kubernetes and Istio objects, as far as they say something to a mesh.
//!
//! Invariants: an object is identified before anything else of it is read, so that an invalid one
//! can keep its last good version; a security object that cannot be honoured in full becomes one
//! that denies what its selector covers.

mod authorization;
mod entry;
mod gateway;
mod grant;
mod head;
mod peer;
mod pod;
mod route;
mod service;
mod slice;

use std::fmt;
use std::sync::Arc;

pub(crate) use authorization::Authorization;
pub(crate) use entry::{Machine, ServiceEntry};
pub(crate) use gateway::Gateway;
pub(crate) use grant::{Reference, ReferenceGrant};
pub(crate) use head::{Enrolment, Head, Labels, UseWaypoint, has_labels, label};
pub(crate) use peer::{MtlsMode, PeerAuthentication};
pub(crate) use pod::Pod;
pub(crate) use route::{
    BackendKind, BackendRef, MirrorRef, ParentKind, ParentRef, RouteObject, RuleRead, RulesRead,
    WeightedRef,
};
pub(crate) use service::{KubePort, KubeService, TargetPort};
pub(crate) use slice::{EndpointSlice, SliceEndpoint};

use crate::feed::compile::Options;
use crate::feed::fields::{Fields, Problem, Problems};
use crate::feed::intern::Interner;
use crate::feed::verdict::{Cause, Verdict};
use crate::feed::yaml::{Node, Value};
use crate::mesh::RouteKind;

/// Kind, namespace ("" for kinds without one) and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ObjectKey {
    pub(crate) kind: &'static str,
    pub(crate) namespace: Arc<str>,
    pub(crate) name: Arc<str>,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            return write!(f, "{}/{}", self.kind, self.name);
        }
        write!(f, "{}/{}/{}", self.kind, self.namespace, self.name)
    }
}

/// One object that can be in force.
#[derive(Debug, Clone)]
pub(crate) struct Object {
    pub(crate) key: ObjectKey,
    pub(crate) file: Arc<str>,
    pub(crate) line: u32,
    pub(crate) labels: Labels,
    /// `creationTimestamp`, whose text sorts by time; "" when it is not said.
    pub(crate) created: Arc<str>,
    pub(crate) body: Body,
}

/// What an object says.
#[derive(Debug, Clone)]
pub(crate) enum Body {
    Namespace { enrolment: Enrolment, waypoint: UseWaypoint },
    Node,
    Pod(Box<Pod>),
    Service(Box<KubeService>),
    EndpointSlice(Box<EndpointSlice>),
    Authorization(Box<Authorization>),
    PeerAuthentication(Box<PeerAuthentication>),
    Gateway(Box<Gateway>),
    ServiceEntry(Box<ServiceEntry>),
    WorkloadEntry(Box<Machine>),
    Route(Box<RouteObject>),
    ReferenceGrant(Box<ReferenceGrant>),
}

/// What became of one object of a file.
#[derive(Debug, Clone)]
pub(crate) enum Reading {
    /// It can be in force.
    Good(Arc<Object>),
    /// It is invalid, so its last good version stays.
    Invalid(ObjectKey),
    /// It is nothing that could be in force.
    Nothing,
}

impl Object {
    /// A remark about this object.
    pub(crate) fn verdict(&self, field: &str, cause: Cause, reason: impl fmt::Display) -> Verdict {
        verdict(&self.file, self.line, &self.key.to_string().into(), field, cause, &reason)
    }
}

fn verdict(
    file: &Arc<str>,
    line: u32,
    object: &Arc<str>,
    field: &str,
    cause: Cause,
    reason: &dyn fmt::Display,
) -> Verdict {
    Verdict {
        file: file.clone(),
        line,
        object: object.clone(),
        field: field.into(),
        in_force: matches!(cause, Cause::Default | Cause::Risk),
        cause,
        reason: reason.to_string().into(),
    }
}

/// Reads one document, which may be a list of objects.
pub(crate) fn read(
    document: &Node,
    file: &Arc<str>,
    options: &Options,
    intern: &mut Interner,
    verdicts: &mut Vec<Verdict>,
) -> Vec<Reading> {
    let problems = Problems::default();
    let Value::Map(_) = document.value else {
        let reason = &"a document must be an object with apiVersion and kind";
        verdicts.push(verdict(file, document.line, &"".into(), "", Cause::Invalid, reason));
        return Vec::new();
    };
    let root = Fields::root(document, &problems);
    if root.text("kind").is_some_and(|kind| kind.ends_with("List")) && root.has("items") {
        root.foreign(&["apiVersion", "metadata"]);
        let items = root.each("items");
        // Each of them accounts for its own fields.
        root.foreign(&["items"]);
        root.finish();
        report(file, "List", problems.take(), verdicts);
        return items
            .iter()
            .map(|item| read_object(item.node(), file, options, intern, verdicts))
            .collect();
    }
    vec![read_object(document, file, options, intern, verdicts)]
}

fn read_object(
    node: &Node,
    file: &Arc<str>,
    options: &Options,
    intern: &mut Interner,
    verdicts: &mut Vec<Verdict>,
) -> Reading {
    let problems = Problems::default();
    let root = Fields::root(node, &problems);
    let (api, kind) = (root.text("apiVersion").unwrap_or(""), root.text("kind").unwrap_or(""));
    let Some(kind) = Kind::of(api, kind) else {
        let name = root.fields("metadata").and_then(|meta| meta.text("name")).unwrap_or("");
        let (cause, reason) = explain_kind(api, kind);
        let object = format!("{kind}/{name}").into();
        verdicts.push(verdict(file, node.line, &object, "kind", cause, &reason));
        return Reading::Nothing;
    };
    let Some(head) = Head::read(&root, kind, intern) else {
        report(file, kind.name(), problems.take(), verdicts);
        return Reading::Nothing;
    };
    if kind.is_security() && !SECURITY.contains(&api) {
        root.report(
            "apiVersion",
            Cause::Unsupported,
            "unknown version; read as security.istio.io/v1",
        );
    }
    let body = kind.read(&root, &head, options, intern);
    root.finish();
    let body = body.map(|body| match body {
        Body::Authorization(one) => Body::Authorization(Box::new(one.or_deny(&problems))),
        other => other,
    });
    let problems = problems.take();
    let invalid = problems.iter().any(|problem| problem.cause == Cause::Invalid);
    report(file, &head.key.to_string(), problems, verdicts);
    match body {
        Some(body) if !invalid || kind.is_security() => Reading::Good(Arc::new(Object {
            key: head.key,
            file: file.clone(),
            line: node.line,
            labels: head.labels,
            created: head.created,
            body,
        })),
        _ if invalid => Reading::Invalid(head.key),
        _ => Reading::Nothing,
    }
}

fn report(file: &Arc<str>, object: &str, problems: Vec<Problem>, verdicts: &mut Vec<Verdict>) {
    let object: Arc<str> = object.into();
    verdicts.extend(problems.into_iter().map(|problem| {
        verdict(file, problem.line, &object, &problem.field, problem.cause, &problem.reason)
    }));
}

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
}

const CORE: &[&str] = &["v1"];
const DISCOVERY: &[&str] = &["discovery.k8s.io/v1"];
const SECURITY: &[&str] = &["security.istio.io/v1", "security.istio.io/v1beta1"];
const GATEWAY: &[&str] = &["gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1beta1"];
const ALPHA_ROUTE: &[&str] = &[
    "gateway.networking.k8s.io/v1",
    "gateway.networking.k8s.io/v1alpha3",
    "gateway.networking.k8s.io/v1alpha2",
];
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
];

/// Kinds that mean something to a mesh but are not acted on.
const UNSUPPORTED: &[&str] = &[
    "BackendTLSPolicy",
    "DestinationRule",
    "EnvoyFilter",
    "GatewayClass",
    "ProxyConfig",
    "RequestAuthentication",
    "Sidecar",
    "Telemetry",
    "UDPRoute",
    "VirtualService",
    "WasmPlugin",
    "WorkloadGroup",
];

impl Kind {
    fn of(api: &str, name: &str) -> Option<Self> {
        let known = |row: &&(Self, &str, &[&str])| {
            // A security object of a version we do not know is still better than none.
            let close = row.0.is_security() && api.starts_with("security.istio.io/");
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
    fn is_security(self) -> bool {
        matches!(self, Self::AuthorizationPolicy | Self::PeerAuthentication)
    }

    fn read(
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
        }
    }
}

fn explain_kind(api: &str, kind: &str) -> (Cause, String) {
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
