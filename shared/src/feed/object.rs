//! Kubernetes and Istio objects, as far as they say something to a mesh.
//!
//! Invariants: an object is identified before anything else of it is read, so that an invalid one
//! can keep its last good version; a security object that cannot be honoured in full becomes one
//! that denies what its selector covers.

mod authorization;
mod backend_tls;
mod backend_traffic;
mod destination;
mod entry;
mod gateway;
mod grant;
mod head;
mod kind;
mod network_policy;
mod peer;
mod pod;
mod rates;
mod route;
mod service;
mod slice;
mod virtual_service;

use std::fmt;
use std::sync::Arc;

pub(crate) use authorization::{Authorization, TargetKind, TargetRef};
pub(crate) use backend_tls::{Authorities, BackendTlsPolicy, TlsTarget, TlsTargetKind};
pub(crate) use backend_traffic::BackendTraffic;
pub(crate) use destination::{DestinationRule, Groups, PolicyRead};
pub(crate) use entry::{Machine, ServiceEntry};
pub(crate) use gateway::Gateway;
pub(crate) use grant::{Reference, ReferenceGrant};
pub(crate) use head::{Enrolment, Head, Labels, UseWaypoint, has_labels, label};
pub(crate) use kind::Kind;
pub(crate) use network_policy::NetworkPolicy;
pub(crate) use peer::{MtlsMode, PeerAuthentication};
pub(crate) use pod::Pod;
pub(crate) use route::{
    BackendKind, BackendRef, MirrorRef, ParentKind, ParentRef, RouteObject, RuleRead, RulesRead,
    WeightedRef,
};
pub(crate) use service::{KubePort, KubeService, TargetPort};
pub(crate) use slice::{EndpointSlice, SliceEndpoint};
pub(crate) use virtual_service::{
    ConnectionMatch, ConnectionsRead, HostRef, HostRoute, HttpRead, VirtualService,
};

use crate::feed::compile::Options;
use crate::feed::fields::{Fields, Problem, Problems};
use crate::feed::intern::Interner;
use crate::feed::verdict::{Cause, Verdict};
use crate::feed::yaml::{Node, Value};

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
    Namespace {
        enrolment: Enrolment,
        waypoint: UseWaypoint,
    },
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
    BackendTls(Box<BackendTlsPolicy>),
    /// Its `ca.crt`.
    ConfigMap(Option<Arc<str>>),
    DestinationRule(Box<DestinationRule>),
    VirtualService(Box<VirtualService>),
    BackendTraffic(Box<BackendTraffic>),
    NetworkPolicy(Box<NetworkPolicy>),
}

/// What became of one object of a file.
#[derive(Debug, Clone)]
pub(crate) enum Reading {
    /// It can be in force.
    Good(Arc<Object>),
    /// It is invalid, so its last good version stays. Boxed: rare, and larger than the others.
    Invalid(Box<ObjectKey>),
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
        let (cause, reason) = kind::explain(api, kind);
        let object = format!("{kind}/{name}").into();
        verdicts.push(verdict(file, node.line, &object, "kind", cause, &reason));
        return Reading::Nothing;
    };
    let Some(head) = Head::read(&root, kind, intern) else {
        report(file, kind.name(), problems.take(), verdicts);
        return Reading::Nothing;
    };
    if kind.is_security() && !kind::SECURITY.contains(&api) {
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
        Body::BackendTls(one) => Body::BackendTls(Box::new(one.or_refuse(&problems))),
        Body::NetworkPolicy(one) => Body::NetworkPolicy(Box::new(one.or_all(&problems))),
        other => other,
    });
    let problems = problems.take();
    let invalid = problems.iter().any(|problem| problem.cause == Cause::Invalid);
    report(file, &head.key.to_string(), problems, verdicts);
    match body {
        Some(body) if !invalid || kind.fails_closed() => Reading::Good(Arc::new(Object {
            key: head.key,
            file: file.clone(),
            line: node.line,
            labels: head.labels,
            created: head.created,
            body,
        })),
        _ if invalid => Reading::Invalid(Box::new(head.key)),
        _ => Reading::Nothing,
    }
}

fn report(file: &Arc<str>, object: &str, problems: Vec<Problem>, verdicts: &mut Vec<Verdict>) {
    let object: Arc<str> = object.into();
    verdicts.extend(problems.into_iter().map(|problem| {
        verdict(file, problem.line, &object, &problem.field, problem.cause, &problem.reason)
    }));
}
