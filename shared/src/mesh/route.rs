//! Routes: which requests to a service go where, and what is done to them on the way.
//!
//! Invariants: everything in a route was checked when it was read, so that nothing is parsed per
//! request; what could not be resolved is still in its place and says why, because its share of
//! the traffic fails instead of going elsewhere. A gRPC route is written as HTTP matches.
//! Not here: which route comes first (`waypoint::router`), reading (`feed`).
//! Source: Gateway API v1, spec L7 §2; Istio's VirtualService, spec L7 §3.1.

mod change;
mod dump;
mod fault;
mod filter;
mod matching;
mod policy;
mod substitution;

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

pub(super) use change::AtParent;
pub use fault::{Abort, AbortStatus, Delay, Fault};
pub use filter::{
    Cors, DirectResponse, HeaderChanges, Mirror, OriginMatch, Others, PathChange, Redirect,
    RedirectPort, RedirectScheme, Rewrite, RouteFilters,
};
pub use matching::{
    Further, HeaderMatch, HttpMatch, PathMatch, Pattern, PatternError, QueryMatch, ValueMatch,
};
pub use policy::{Retry, RetryConstraint, Session, SessionKind, Timeouts};
pub use substitution::{Substitution, SubstitutionError};

use crate::mesh::{RateLimits, ServiceKey};

/// The kinds of routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum RouteKind {
    /// `HTTPRoute`.
    #[serde(rename = "HTTPRoute")]
    Http,
    /// `GRPCRoute`.
    #[serde(rename = "GRPCRoute")]
    Grpc,
    /// `TLSRoute`.
    #[serde(rename = "TLSRoute")]
    Tls,
    /// `TCPRoute`.
    #[serde(rename = "TCPRoute")]
    Tcp,
    /// `VirtualService`: its rules for requests are tried in the order in which they are written.
    #[serde(rename = "VirtualService")]
    Virtual,
    /// The rules of a `VirtualService` for connections.
    #[serde(rename = "VirtualService (tcp, tls)")]
    VirtualTcp,
}

impl RouteKind {
    /// As Kubernetes spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "HTTPRoute",
            Self::Grpc => "GRPCRoute",
            Self::Tls => "TLSRoute",
            Self::Tcp => "TCPRoute",
            Self::Virtual | Self::VirtualTcp => "VirtualService",
        }
    }

    /// Whether it is of a `VirtualService`.
    pub fn is_virtual(self) -> bool {
        matches!(self, Self::Virtual | Self::VirtualTcp)
    }
}

/// Kind, namespace and name of a route.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteKey {
    /// Kind.
    pub kind: RouteKind,
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

impl fmt::Display for RouteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.kind.name(), self.namespace, self.name)
    }
}

/// One route of the mesh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Route {
    /// Kind, namespace and name.
    pub key: RouteKey,
    /// `creationTimestamp`, whose text sorts by time; "" when it is not said. Older ones win ties.
    pub created: Arc<str>,
    /// The services whose traffic it routes; a service may be there with several ports.
    pub parents: Box<[RouteParent]>,
    /// How many requests it may pass on, all its rules together.
    #[serde(rename = "rateLimits", skip_serializing_if = "Option::is_none")]
    pub rate_limits: Option<Arc<RateLimits>>,
    /// What it says.
    pub rules: Rules,
}

impl Route {
    /// Whether it is attached to this port of the service.
    pub fn applies_to(&self, service: &ServiceKey, port: u16) -> bool {
        let mut parents = self.parents.iter().filter(|parent| parent.service == *service);
        parents.any(|parent| parent.port.is_none_or(|own| own == port))
    }

    /// A consumer route is not in the service's namespace: it is for clients of its own namespace.
    /// A `VirtualService` is for all, in whichever namespace it may be.
    pub fn is_consumer_of(&self, service: &ServiceKey) -> bool {
        !self.key.kind.is_virtual() && self.key.namespace != service.namespace
    }
}

/// A service that a route is attached to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct RouteParent {
    /// The service.
    pub service: ServiceKey,
    /// The only port of it; `None` for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// What a route says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Rules {
    /// Per request, in the order in which they are written.
    Http(Box<[HttpRule]>),
    /// Per connection, in the order in which they are written; one unless it is a virtual service.
    Tcp(Box<[TcpRule]>),
}

/// A rule for requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpRule {
    /// Name, for logs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Arc<str>>,
    /// Any of these; never empty.
    pub matches: Arc<[HttpMatch]>,
    /// What is done to its requests and responses.
    pub filters: Arc<RouteFilters>,
    /// Failures that are made on purpose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<Arc<Fault>>,
    /// Where copies of its requests go.
    #[serde(skip_serializing_if = "<[Mirror]>::is_empty")]
    pub mirrors: Box<[Mirror]>,
    /// Where its requests go, by weight.
    pub backends: Box<[Backend]>,
    /// How long they may take.
    #[serde(skip_serializing_if = "Timeouts::is_none")]
    pub timeouts: Timeouts,
    /// When they are repeated; `None` leaves the mesh's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<Arc<Retry>>,
    /// How the requests of one session find the same endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<Arc<Session>>,
}

/// The rule of a route for connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TcpRule {
    /// Server names, in lower case, exact, `*.suffix` or `*`; empty for all. Not of a `TCPRoute`.
    #[serde(skip_serializing_if = "<[Arc<str>]>::is_empty")]
    pub server_names: Box<[Arc<str>]>,
    /// The only port of the service. Of a virtual service only, as the next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Namespace that the client proved to be of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_namespace: Option<Arc<str>>,
    /// Where its connections go, by weight.
    pub backends: Box<[Backend]>,
}

/// One place to send to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Backend {
    /// Share of the traffic, 0 to 1,000,000; 0 gets none.
    pub weight: u32,
    /// Where it is, or why its share of the traffic fails.
    #[serde(serialize_with = "dump::target")]
    pub target: Target,
    /// Applied after the rule's.
    #[serde(skip_serializing_if = "dump::changes_nothing")]
    pub filters: Arc<RouteFilters>,
}

/// A port of a known service, or why there is none.
pub type Target = Result<Destination, Arc<str>>;

/// A port of a service, or of a part of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Destination {
    /// The service.
    pub service: ServiceKey,
    /// Its port.
    pub port: u16,
    /// The subset that a `DestinationRule` describes; `None` for all endpoints.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subset: Option<Arc<str>>,
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.service, self.port)?;
        match &self.subset {
            Some(subset) => write!(f, " subset {subset}"),
            None => Ok(()),
        }
    }
}
