//! HTTP connections to endpoints, kept for the next request.
//!
//! Invariants: an HTTP/1.1 connection is lent to one request at a time and comes back only when its
//! response was read to the end; a connection that the other side has closed is never lent; what
//! rests is bounded in number and time.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::{Rc, Weak};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::Instant;

use crate::node::Config;
use crate::request::RequestBody;
use crate::upstream::io::Mark;
use crate::upstream::resting::{Resting, Reuse};
use crate::upstream::{Error, LocalExecutor, Upgraded, Version, Way, connect};

/// Connections that are alike for a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) endpoint: SocketAddr,
    pub(super) tunnel: bool,
    pub(super) client: IpAddr,
}

/// The connections of one worker.
pub(super) struct Connections {
    http1: Rc<Http1>,
    http2: RefCell<HashMap<Key, Vec<Rc<Shared>>>>,
    idle: Duration,
}

type Http1 = Resting<http1::SendRequest<RequestBody>>;

/// An HTTP/2 connection.
struct Shared {
    sender: http2::SendRequest<RequestBody>,
    mark: Mark,
    requests: Cell<usize>,
    used: Cell<Instant>,
}

/// A connection as long as its response is read. Dropped without [`Lease::finish`], an HTTP/1.1
/// connection is closed.
pub(crate) struct Lease(Lent);

enum Lent {
    Http1 { pool: Weak<Http1>, key: Key, sender: http1::SendRequest<RequestBody>, limit: usize },
    Http2 { _request: SharedGuard },
}

/// One request less when dropped.
struct SharedGuard(Rc<Shared>);

impl Drop for SharedGuard {
    fn drop(&mut self) {
        self.0.requests.set(self.0.requests.get().saturating_sub(1));
        self.0.used.set(Instant::now());
    }
}

impl Lease {
    /// The response was read to its end.
    pub(crate) fn finish(self) {
        if let Lent::Http1 { pool, key, sender, limit } = self.0
            && let Some(pool) = pool.upgrade()
            && !sender.is_closed()
        {
            pool.put(key, sender, limit);
        }
    }
}

/// A request that was answered.
pub(crate) struct Sent {
    pub(crate) response: Response<Incoming>,
    pub(crate) lease: Option<Lease>,
    /// The rest of the connection, after 101.
    pub(crate) upgraded: Option<Upgraded>,
}

/// A request that was not answered.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) error: SendError,
    /// Given back when not a byte of it was sent.
    pub(crate) unsent: Option<Request<RequestBody>>,
    /// Whether the connection had carried a request before.
    pub(crate) reused: bool,
    /// Whether the endpoint's proxy says that nothing on the connection was delivered.
    pub(crate) undelivered: bool,
}

impl Failed {
    fn unsent(error: SendError, request: Request<RequestBody>, reused: bool) -> Self {
        Self { error, unsent: Some(request), reused, undelivered: false }
    }

    /// HTTP failed on a connection that was marked so.
    fn on(mut failed: TrySendError<Request<RequestBody>>, reused: bool, mark: &Mark) -> Self {
        let unsent = failed.take_message();
        let error = SendError::Http(failed.into_error());
        Self { error, unsent, reused, undelivered: mark.is_set() }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] Error),
    /// HTTP.
    #[error("{}", shared::chain::Chain(.0))]
    Http(#[source] hyper::Error),
}

/// Sends `request` over a connection that rests, or a new one.
///
/// # Errors
/// [`Failed`] tells whether anything was sent.
pub(crate) async fn send(
    way: Way<'_>,
    version: Version,
    upgrade: bool,
    reuse: Reuse,
    request: Request<RequestBody>,
) -> Result<Sent, Failed> {
    let key = Key {
        endpoint: way.endpoint.address,
        tunnel: way.endpoint.tunnel,
        client: way.client.address.ip(),
    };
    match (version, upgrade) {
        (_, true) => send_upgrade(way, request).await,
        (Version::Http1, false) => send_http1(way, key, reuse, request).await,
        (Version::Http2, false) => send_http2(way, key, request).await,
    }
}

async fn send_http1(
    way: Way<'_>,
    key: Key,
    reuse: Reuse,
    request: Request<RequestBody>,
) -> Result<Sent, Failed> {
    let connections = &way.client.worker.upstream.pool;
    let rested = connections.http1.take(&key, reuse);
    let reused = rested.is_some();
    let (mut sender, mark) = match rested {
        // Much was delivered on it already.
        Some(sender) => (sender, Mark::default()),
        None => match connect_http1(way).await {
            Ok(made) => made,
            Err(error) => return Err(Failed::unsent(error, request, reused)),
        },
    };
    match sender.try_send_request(request).await {
        Ok(response) => {
            let limit = way.client.worker.config().upstream_idle_connections;
            let pool = Rc::downgrade(&connections.http1);
            let lease = Some(Lease(Lent::Http1 { pool, key, sender, limit }));
            Ok(Sent { response, lease, upgraded: None })
        }
        Err(failed) => {
            let failed = Failed::on(failed, reused, &mark);
            if reused && failed.unsent.is_none() {
                connections.http1.distrust(&key);
            }
            Err(failed)
        }
    }
}

async fn connect_http1(way: Way<'_>) -> Result<(http1::SendRequest<RequestBody>, Mark), SendError> {
    let io = connect(way).await?;
    let mark = io.mark();
    let (sender, connection) = http1_builder(way.client.worker.config())
        .handshake(TokioIo::new(io))
        .await
        .map_err(SendError::Http)?;
    // Ends with its last request, or when it is no longer kept.
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.await {
            tracing::debug!(error = %shared::chain::Chain(&error), "upstream connection ended");
        }
    });
    Ok((sender, mark))
}

fn http1_builder(config: &Config) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.max_headers(config.max_headers).max_header_size(config.max_head_bytes);
    builder
}

/// On a connection of its own, which becomes a byte stream with 101.
async fn send_upgrade(way: Way<'_>, request: Request<RequestBody>) -> Result<Sent, Failed> {
    let io = match connect(way).await {
        Ok(io) => io,
        Err(error) => return Err(Failed::unsent(error.into(), request, false)),
    };
    let mark = io.mark();
    let handshake = http1_builder(way.client.worker.config()).handshake(TokioIo::new(io)).await;
    let (mut sender, mut connection) = match handshake {
        Ok(made) => made,
        Err(error) => return Err(Failed::unsent(SendError::Http(error), request, false)),
    };
    let (hand_over, handed_over) = tokio::sync::oneshot::channel();
    // Ends with the response, or hands its bytes over after 101.
    tokio::task::spawn_local(async move {
        if std::future::poll_fn(|cx| connection.poll_without_shutdown(cx)).await.is_ok() {
            let http1::Parts { io, read_buf, .. } = connection.into_parts();
            // Nobody waits for it unless it was upgraded.
            let _ = hand_over.send((io.into_inner(), read_buf));
        }
    });
    match sender.try_send_request(request).await {
        Ok(response) => {
            let switched = response.status() == http::StatusCode::SWITCHING_PROTOCOLS;
            let upgraded = switched.then(|| Upgraded::new(handed_over));
            Ok(Sent { response, lease: None, upgraded })
        }
        Err(failed) => Err(Failed::on(failed, false, &mark)),
    }
}

async fn send_http2(way: Way<'_>, key: Key, request: Request<RequestBody>) -> Result<Sent, Failed> {
    let connections = &way.client.worker.upstream.pool;
    let config = way.client.worker.config();
    let known = connections.least_busy(&key, config.upstream_streams);
    let reused = known.is_some();
    let shared = match known {
        Some(shared) => shared,
        None => match connect_http2(way).await {
            Ok(made) => connections.add(key, made),
            Err(error) => return Err(Failed::unsent(error, request, reused)),
        },
    };
    shared.requests.set(shared.requests.get() + 1);
    let guard = SharedGuard(Rc::clone(&shared));
    let mut sender = shared.sender.clone();
    match sender.try_send_request(request).await {
        Ok(response) => Ok(Sent {
            response,
            lease: Some(Lease(Lent::Http2 { _request: guard })),
            upgraded: None,
        }),
        Err(failed) => Err(Failed::on(failed, reused, &shared.mark)),
    }
}

async fn connect_http2(way: Way<'_>) -> Result<(http2::SendRequest<RequestBody>, Mark), SendError> {
    let io = connect(way).await?;
    let mark = io.mark();
    let config = way.client.worker.config();
    let (sender, connection) = http2::Builder::new(LocalExecutor)
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(config.max_head_bytes).unwrap_or(u32::MAX))
        .handshake(TokioIo::new(io))
        .await
        .map_err(SendError::Http)?;
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.await {
            tracing::debug!(error = %shared::chain::Chain(&error), "upstream http2 connection ended");
        }
    });
    Ok((sender, mark))
}

impl Connections {
    /// None yet; one that has rested for `idle` is closed.
    pub(super) fn new(idle: Duration) -> Self {
        Self { http1: Rc::new(Resting::new(idle)), http2: RefCell::default(), idle }
    }

    fn least_busy(&self, key: &Key, limit: usize) -> Option<Rc<Shared>> {
        let mut all = self.http2.borrow_mut();
        let known = all.get_mut(key)?;
        known.retain(|one| !one.sender.is_closed());
        let free = known.iter().filter(|one| one.requests.get() < limit);
        free.min_by_key(|one| one.requests.get()).cloned()
    }

    fn add(&self, key: Key, (sender, mark): (http2::SendRequest<RequestBody>, Mark)) -> Rc<Shared> {
        let used = Cell::new(Instant::now());
        let shared = Rc::new(Shared { sender, mark, requests: Cell::new(0), used });
        self.http2.borrow_mut().entry(key).or_default().push(Rc::clone(&shared));
        shared
    }

    /// Closes what has rested too long, and forgets what is closed.
    pub(super) fn sweep(&self) {
        let idle = self.idle;
        self.http1.sweep();
        self.http2.borrow_mut().retain(|_, known| {
            known.retain(|one| {
                let rests = one.requests.get() == 0 && one.used.get().elapsed() >= idle;
                !one.sender.is_closed() && !rests
            });
            !known.is_empty()
        });
    }
}
