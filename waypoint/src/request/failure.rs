//! Why a request is answered by us and not by an endpoint.

use std::sync::Arc;
use std::time::Duration;

use shared::authz::Denial;
use shared::chain::Chain;
use shared::mesh::{AbortStatus, Destination};

use crate::cluster::Overflow;
use crate::filters;
use crate::limits::Limited;
use crate::request::BadRequest;
use crate::request::body::Broken;
use crate::upstream;

/// Why a request is not answered by an endpoint.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// It must not be forwarded as it is.
    #[error(transparent)]
    Bad(#[from] BadRequest),
    /// A policy forbids it. The client is not told which.
    #[error("{0}")]
    Denied(#[source] Denial),
    /// It was allowed, and a policy that changed forbids it now.
    #[error("no longer allowed: {0}")]
    Revoked(#[source] Denial),
    /// The service has routes, and none matches.
    #[error("no route matches")]
    NoRoute,
    /// It fails on purpose: the rule says so. Envoy's words.
    #[error("fault filter abort")]
    Aborted(AbortStatus),
    /// The rule has a filter that cannot be honoured.
    #[error("rule cannot be honoured: {0}")]
    Filter(Arc<str>),
    /// Too many came before it.
    #[error(transparent)]
    RateLimited(#[from] Limited),
    /// The path that the rule makes of it is too long, or none.
    #[error(transparent)]
    Rewrite(filters::NoPath),
    /// The backend that was drawn is none.
    #[error("backend is invalid: {0}")]
    Backend(Arc<str>),
    /// The rule has no backend with a weight.
    #[error("rule has no backend")]
    NoBackends,
    /// The backend's service is not in the mesh.
    #[error("unknown service: {0}")]
    ServiceUnknown(Arc<str>),
    /// The rule is a virtual service's, and names a destination that the mesh does not have.
    #[error("destination is unknown: {0}")]
    DestinationUnknown(Arc<str>),
    /// No rule describes the subset of the destination.
    #[error("unknown subset: {0}")]
    SubsetUnknown(Box<Destination>),
    /// The service has no endpoint that is ready.
    #[error("no healthy upstream: {0}")]
    NoEndpoint(Arc<str>),
    /// The destination's rule allows no more.
    #[error(transparent)]
    Overflow(#[from] Overflow),
    /// No endpoint could be connected.
    #[error(transparent)]
    Connect(upstream::Error),
    /// The endpoint closed the connection, and nothing was delivered.
    #[error("upstream closed the connection: {}", Chain(.0))]
    Closed(#[source] hyper::Error),
    /// The endpoint closed the connection, and may have acted on the request.
    #[error("upstream closed the connection after it may have received the request: {}", Chain(.0))]
    DeliveryUnknown(#[source] hyper::Error),
    /// It failed so, and too many requests were sent again lately.
    #[error("retry budget is exhausted: {0}")]
    BudgetExhausted(Box<Self>),
    /// The endpoint answered something that is no HTTP, or too much of it.
    #[error("upstream protocol error: {}", Chain(.0))]
    Protocol(#[source] hyper::Error),
    /// The endpoint switched to a protocol that nobody asked for.
    #[error("upstream switched protocols without being asked")]
    Switched,
    /// `timeouts.request` passed, or what the caller left.
    #[error("no complete response within {0:?} (timeouts.request, or the caller's deadline)")]
    RequestTimeout(Duration),
    /// `timeouts.backendRequest` passed.
    #[error("endpoint did not answer within {0:?} (timeouts.backendRequest)")]
    BackendTimeout(Duration),
    /// The endpoint agreed to an upgrade and does not show that it understood it.
    #[error("upstream did not complete the upgrade: {0}")]
    UpgradeRefused(&'static str),
    /// The client left before it had sent its request to the end.
    #[error("client left before its request had ended")]
    ClientGone,
}

impl From<Broken> for Failure {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Malformed(what) => Self::Bad(BadRequest::Body(what)),
            Broken::Gone => Self::ClientGone,
        }
    }
}
