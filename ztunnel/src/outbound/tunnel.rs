//! A stream to a tunnel's destination, pooled; through a gateway a tunnel within it, never pooled.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, StatusCode};
use shared::hbone::{self, OpenError, Request, Response, Stream};
use shared::headers::{
    BAGGAGE, Baggage, FORWARDED, FORWARDED_NETWORK, Forwarded, TRACEPARENT, cause,
};
use shared::mesh::Service;
use shared::tls;

use crate::copy::Upstream;
use crate::node::pools::Key;
use crate::outbound::Error;
use crate::outbound::connect::{Call, Way};
use crate::outbound::dial::{self, dial};
use crate::outbound::resolve::{Inner, Tunnel};

/// Streams in one tunnel to a waypoint before another is made beside it: each tunnel is served by one
/// of the waypoint's workers.
const WAYPOINT_CROWD: usize = 8;

/// Opens `tunnel` over a connection to `to`.
pub(super) async fn open(
    call: &Call<'_>,
    tunnel: &Tunnel,
    to: SocketAddr,
    service: Option<&Arc<Service>>,
) -> Result<Way, Error> {
    let request = request(call, tunnel, service);
    let key =
        Key { source: call.pod.identity.clone(), expected: tunnel.expected.clone(), address: to };
    let crowd = if tunnel.to_waypoint { WAYPOINT_CROWD } else { usize::MAX };
    let (stream, reused) = match pooled(call, &key, crowd, &request).await {
        // A pooled connection may have died unseen; nothing was sent on the stream.
        Err(Error::Tunnel(error)) if is_stale(&error) => {
            pooled(call, &key, crowd, &request).await?
        }
        result => result?,
    };
    let stream = match &tunnel.inner {
        None => stream,
        // Boxed: rare, and the handshake is larger than all the rest.
        Some(inner) => Box::pin(within(call, stream, inner, request)).await?,
    };
    Ok(Way { upstream: Upstream::Tunnel(stream), made_for_it: !reused, far: None })
}

/// A stream, and whether its tunnel stood before.
async fn pooled(
    call: &Call<'_>,
    key: &Key,
    crowd: usize,
    request: &Request,
) -> Result<(Stream, bool), Error> {
    let node = &call.worker.node;
    let dial = || dial(Arc::clone(node), Arc::clone(call.pod), key.clone());
    let opened =
        call.worker.pool(call.pod).open(key, crowd, request, dial).await.map_err(|error| {
            match error {
                OpenError::Dial(error) => Error::Dial(error),
                OpenError::Stream(error) => Error::Tunnel(error),
                OpenError::Draining => Error::Tunnel(hbone::Error::Closed),
            }
        })?;
    Ok((granted(opened.response, opened.stream)?, opened.reused))
}

fn granted(response: Response, stream: Stream) -> Result<Stream, Error> {
    if response.status == StatusCode::OK {
        return Ok(stream);
    }
    let cause = cause(&response.headers).map(Into::into);
    Err(Error::Status { status: response.status, cause })
}

fn is_stale(error: &hbone::Error) -> bool {
    matches!(error, hbone::Error::Transport(_) | hbone::Error::PeerClosed | hbone::Error::GoingAway)
}

/// Pooling would pin all connections to the one endpoint that the gateway chose first
/// (spec L4 §2.9).
async fn within(
    call: &Call<'_>,
    outer: Stream,
    inner: &Inner,
    mut request: Request,
) -> Result<Stream, Error> {
    let failed = |error| Error::Dial(Rc::new(error));
    let certificates = &call.worker.node.certificates;
    let certificate = certificates
        .certificate(&call.pod.identity)
        .await
        .map_err(|error| failed(dial::Error::Identity(error)))?;
    let handshake = tls::connect(outer, certificate.client_config(&inner.expected));
    let (stream, _) = tokio::time::timeout(call.worker.config().handshake_timeout, handshake)
        .await
        .map_err(|_| failed(dial::Error::TlsTimeout))?
        .map_err(|error| failed(dial::Error::Tls(error)))?;
    let network = HeaderValue::from_str(&call.source.network);
    request.headers.insert(FORWARDED_NETWORK, network.unwrap_or(HeaderValue::from_static("")));
    let (client, driver) =
        hbone::client(stream, call.pod.tunnel(&call.worker.config().tunnel_client));
    // Ends with its only stream, since the client is dropped below.
    tokio::task::spawn_local(async move {
        if let Err(error) = driver.await {
            tracing::debug!(%error, "inner tunnel ended");
        }
    });
    let (response, stream) = client.open(&request).await.map_err(Error::Tunnel)?;
    granted(response, stream)
}

/// What the other end of `tunnel` is asked for.
pub(super) fn request(call: &Call<'_>, tunnel: &Tunnel, service: Option<&Arc<Service>>) -> Request {
    let host = service.map(|service| &*service.key.hostname);
    let headers = HeaderMap::from_iter([
        (BAGGAGE, Baggage::describe(&call.source)),
        (FORWARDED, Forwarded::describe(call.from, host)),
        (TRACEPARENT, call.trace.header()),
    ]);
    Request { authority: tunnel.authority.to_string().into(), headers }
}
