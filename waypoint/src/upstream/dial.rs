//! A byte stream to an endpoint: a stream of a pooled tunnel, or a connection of its own.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use shared::authz;
use shared::balance::Gone;
use shared::chain::Chain;
use shared::hbone::{self, OpenError, Request};
use shared::headers::{BAGGAGE, Baggage, FORWARDED, Forwarded, TRACEPARENT, TraceParent, cause};
use shared::identity;
use shared::tls::{self, PeerId};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::cluster::{Cluster, Permit};
use crate::node::OnWorker;
use crate::tunnel::Client;
use crate::upstream::io::{Link, Mark};
use crate::upstream::{Endpoint, HBONE_PORT, Io, Speaks, TunnelKey};

/// Tells a gateway that a waypoint was passed already.
const SOURCE: HeaderName = HeaderName::from_static("x-istio-source");

/// Why there is no byte stream to an endpoint. Nothing was delivered to the application.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// We have no certificate.
    #[error("identity error: {}", Chain(.0))]
    Identity(#[source] identity::Error),
    /// TCP.
    #[error("connection failed: {0}")]
    Connect(#[source] io::Error),
    /// Nobody answered.
    #[error("connection timed out: no answer")]
    ConnectTimeout,
    /// TLS, or not the identity that we expect.
    #[error("tls error: {}", Chain(.0))]
    Tls(#[source] tls::Error),
    /// The peer accepted TCP, and then nothing.
    #[error("tls error: handshake timed out")]
    TlsTimeout,
    /// TLS with the application, or it is not who the policy says.
    #[error("tls with the application: {0}")]
    BackendTls(#[source] io::Error),
    /// The application accepted the connection, and then nothing.
    #[error("tls with the application: handshake timed out")]
    BackendTlsTimeout,
    /// The tunnel could not be made; all who waited for it get the same.
    #[error("{0}")]
    Dial(#[source] Rc<Self>),
    /// The tunnel failed before the endpoint's proxy answered.
    #[error("h2 failed: {}", Chain(.0))]
    Tunnel(#[source] hbone::Error),
    /// The endpoint's proxy refused; its own name for the cause, where it says one.
    #[error("endpoint's proxy answered {status}{}", .cause.as_ref().map(|cause| format!(" ({cause})")).unwrap_or_default())]
    Status {
        /// What it answered.
        status: StatusCode,
        /// Why, in its words.
        cause: Option<Box<str>>,
    },
}

impl Error {
    /// The answer would be the same anywhere: policy, or a target that is none (design D8).
    pub(crate) fn is_final(&self) -> bool {
        let last = |status: &StatusCode| matches!(status.as_u16(), 400 | 401);
        matches!(self, Self::Status { status, .. } if last(status))
    }

    /// Whether nobody is at the endpoint any more: it need not be asked again for a while. The proxy
    /// that says so has proved to be the endpoint's.
    pub(crate) fn gone(&self) -> Option<Gone> {
        match self {
            Self::Dial(error) => error.gone(),
            Self::Connect(error) => Gone::by_error(error),
            Self::Status { status: StatusCode::SERVICE_UNAVAILABLE, cause } => {
                Gone::by_cause(cause.as_deref()?)
            }
            _ => None,
        }
    }
}

/// Where to, for whom.
#[derive(Clone, Copy)]
pub(crate) struct Way<'a> {
    pub(crate) client: &'a Client,
    /// That policies allow it.
    pub(crate) permit: &'a authz::Permit,
    pub(crate) endpoint: &'a Endpoint,
    /// Host name of the service that is meant.
    pub(crate) service: Option<&'a str>,
    /// What the endpoint is one of.
    pub(crate) cluster: &'a Cluster,
}

/// Opens a byte stream to an endpoint, which has `permit` as long as it lives; over TLS where the
/// application speaks it.
///
/// # Errors
/// Nothing was delivered: another endpoint may be tried.
pub(crate) async fn connect(
    way: Way<'_>,
    permit: Option<Permit>,
    speaks: Speaks,
) -> Result<Io, Error> {
    let link = match way.cluster.limits().and_then(|limits| limits.connect_timeout) {
        None => open(way).await?,
        Some(limit) => timeout(limit, open(way)).await.map_err(|_| Error::ConnectTimeout)??,
    };
    let link = match &way.endpoint.secured {
        None => link,
        Some(secured) => {
            Box::pin(secured.connect(link, speaks, way.client.worker.config())).await?
        }
    };
    Ok(Io { link, _permit: permit })
}

async fn open(way: Way<'_>) -> Result<Link, Error> {
    let worker = &way.client.worker;
    // Nobody gets here without it.
    let _allowed: &authz::Permit = way.permit;
    if !way.endpoint.tunnel {
        let connect = TcpStream::connect(way.endpoint.address);
        let socket = timeout(worker.config().connect_timeout, connect)
            .await
            .map_err(|_| Error::ConnectTimeout)?
            .map_err(Error::Connect)?;
        socket.set_nodelay(true).map_err(Error::Connect)?;
        return Ok(Link::Plain(socket));
    }
    let mut address = way.endpoint.address;
    address.set_port(HBONE_PORT);
    let key = TunnelKey {
        source: way.client.own.identity.clone(),
        expected: vec![way.endpoint.workload.identity.clone()],
        address,
    };
    let request =
        Request { authority: way.endpoint.address.to_string().into(), headers: headers(way) };
    let dial = || dial(Rc::clone(worker), key.clone());
    let opened = match worker.upstream.tunnels.open(&key, usize::MAX, &request, dial).await {
        Ok(opened) => opened,
        Err(OpenError::Dial(error)) => return Err(Error::Dial(error)),
        Err(OpenError::Stream(error)) => return Err(Error::Tunnel(error)),
        Err(OpenError::Draining) => return Err(Error::Tunnel(hbone::Error::GoingAway)),
    };
    if opened.response.status != StatusCode::OK {
        let cause = cause(&opened.response.headers).map(Into::into);
        return Err(Error::Status { status: opened.response.status, cause });
    }
    Ok(Link::Tunnel(opened.stream, Mark::default()))
}

async fn dial(worker: Rc<OnWorker>, key: TunnelKey) -> Result<(tls::Stream, PeerId), Error> {
    let config = worker.config();
    let certificates = &worker.node.certificates;
    let certificate = certificates.certificate(&key.source).await.map_err(Error::Identity)?;
    let socket = timeout(config.connect_timeout, TcpStream::connect(key.address))
        .await
        .map_err(|_| Error::ConnectTimeout)?
        .map_err(Error::Connect)?;
    socket.set_nodelay(true).map_err(Error::Connect)?;
    let handshake = tls::connect(socket, certificate.client_config(&key.expected));
    timeout(config.handshake_timeout, handshake)
        .await
        .map_err(|_| Error::TlsTimeout)?
        .map_err(Error::Tls)
}

/// What the endpoint's proxy is told: who the client is, and which service was meant.
fn headers(way: Way<'_>) -> HeaderMap {
    let client = way.client;
    let source: &Arc<_> = client.source.as_ref().unwrap_or(&client.own);
    HeaderMap::from_iter([
        (BAGGAGE, Baggage::describe(source)),
        (FORWARDED, Forwarded::describe(client.address, way.service)),
        (TRACEPARENT, client.trace.unwrap_or_else(TraceParent::random).header()),
        (SOURCE, HeaderValue::from_static("waypoint")),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: StatusCode, cause: Option<&str>) -> Error {
        Error::Status { status, cause: cause.map(Into::into) }
    }

    #[test]
    fn what_the_endpoints_proxy_says_of_it_is_believed() {
        let unavailable = StatusCode::SERVICE_UNAVAILABLE;
        for (error, gone) in [
            (refused(unavailable, Some("POD_GONE")), Some(Gone::Pod)),
            (refused(unavailable, Some("APPLICATION_CONNECT_FAILED")), Some(Gone::Port)),
            // Busy is not gone, and Istio's proxy names no cause.
            (refused(unavailable, Some("APPLICATION_CONNECT_TIMEOUT")), None),
            (refused(unavailable, None), None),
            (refused(StatusCode::UNAUTHORIZED, Some("POD_GONE")), None),
            (Error::Connect(io::ErrorKind::ConnectionRefused.into()), Some(Gone::Pod)),
            (Error::Connect(io::ErrorKind::TimedOut.into()), None),
            (Error::ConnectTimeout, None),
        ] {
            assert_eq!(error.gone(), gone, "{error}");
            assert_eq!(Error::Dial(Rc::new(error)).gone(), gone);
        }
    }
}
