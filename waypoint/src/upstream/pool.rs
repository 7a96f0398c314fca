//! HTTP connections to endpoints, kept for the next request.
//!
//! Invariants: an HTTP/1.1 connection is lent to one request at a time and comes back only when its
//! response was read to the end; a connection that the other side has closed is never lent; what
//! rests is bounded in number and time.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::rc::{Rc, Weak};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::Instant;

use crate::cluster::{Circuit, Cluster, Overflow, Permit, Resource};
use crate::node::Config;
use crate::request::RequestBody;
use crate::upstream::io::Mark;
use crate::upstream::life::Life;
use crate::upstream::resting::{Resting, Reuse, Sender};
use crate::upstream::{Error, LocalExecutor, Secured, Speaks, Upgraded, Version, Way, connect};

const HTTP1: Speaks = Speaks::Http(Version::Http1);
const HTTP2: Speaks = Speaks::Http(Version::Http2);

/// Connections that are alike for a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) endpoint: SocketAddr,
    pub(super) tunnel: bool,
    pub(super) client: IpAddr,
    pub(super) secured: Option<Secured>,
}

/// The connections of one worker.
pub(super) struct Connections {
    http1: Rc<Http1>,
    http2: RefCell<HashMap<Key, Vec<Rc<Shared>>>>,
    idle: Duration,
}

type Http1 = Resting<Exclusive>;

/// An HTTP/1.1 connection.
struct Exclusive {
    sender: http1::SendRequest<RequestBody>,
    life: Life,
}

impl Sender for Exclusive {
    fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    fn is_ready(&self) -> bool {
        self.sender.is_ready() && !self.life.is_spent()
    }

    fn may_rest(&self) -> bool {
        self.life.may_rest()
    }

    fn idle(&self) -> Option<Duration> {
        self.life.idle()
    }

    fn is_of(&self, circuit: &Circuit) -> bool {
        self.life.is_of(circuit)
    }
}

/// An HTTP/2 connection.
struct Shared {
    sender: http2::SendRequest<RequestBody>,
    mark: Mark,
    life: Life,
    requests: Cell<usize>,
    used: Cell<Instant>,
}

impl Shared {
    /// It has served what it may.
    fn is_over(&self) -> bool {
        self.requests.get() == 0 && self.life.is_spent()
    }
}

/// A connection as long as its response is read. Dropped without [`Lease::finish`], an HTTP/1.1
/// connection is closed.
pub(crate) struct Lease(Lent);

enum Lent {
    Http1 { pool: Weak<Http1>, key: Key, connection: Exclusive, limit: usize },
    Http2 { _request: SharedGuard },
}

/// One request less when dropped.
struct SharedGuard(Rc<Shared>);

impl Drop for SharedGuard {
    fn drop(&mut self) {
        self.0.requests.set(self.0.requests.get().saturating_sub(1));
        self.0.used.set(Instant::now());
        self.0.life.has_room();
    }
}

impl Lease {
    /// The response was read to its end.
    pub(crate) fn finish(self) {
        if let Lent::Http1 { pool, key, connection, limit } = self.0
            && let Some(pool) = pool.upgrade()
            && !connection.is_closed()
        {
            pool.put(key, connection, limit);
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
    /// The destination's rule allows no more.
    #[error(transparent)]
    Overflow(#[from] Overflow),
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
        secured: way.endpoint.secured.clone(),
    };
    match (version, upgrade) {
        (_, true) => Box::pin(send_upgrade(way, request)).await,
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
    let (made, reused) = match place(way, || connections.http1.take(&key, reuse)).await {
        // Much was delivered on it already.
        Ok(Place::There(rested)) => (Ok((rested, Mark::default())), true),
        // Boxed, as all that is rare and large: most requests find a connection.
        Ok(Place::New(permits)) => (Box::pin(connect_http1(way, permits)).await, false),
        Err(overflow) => (Err(overflow.into()), false),
    };
    let (mut connection, mark) = match made {
        Ok(made) => made,
        Err(error) => return Err(Failed::unsent(error, request, reused)),
    };
    connection.life.serve();
    match connection.sender.try_send_request(request).await {
        Ok(response) => {
            let limit = way.client.worker.config().upstream_idle_connections;
            let pool = Rc::downgrade(&connections.http1);
            let lease = Some(Lease(Lent::Http1 { pool, key, connection, limit }));
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

/// A connection that is there, or a place for one that is to be made.
enum Place<T> {
    There(T),
    New(Permits),
}

/// Permission to make a connection.
#[derive(Default)]
struct Permits {
    connection: Option<Permit>,
    /// The request waits until the connection stands.
    pending: Option<Permit>,
}

/// Waits for a connection that `there` gives, or for a place among those of the destination.
async fn place<T>(
    way: Way<'_>,
    mut there: impl FnMut() -> Option<T>,
) -> Result<Place<T>, Overflow> {
    if let Some(found) = there() {
        return Ok(Place::There(found));
    }
    let (Some(circuit), Some(limits)) = (way.cluster.circuit(), way.cluster.limits()) else {
        return Ok(Place::New(Permits::default()));
    };
    let pending = Some(circuit.take(Resource::Pending, limits.pending)?);
    let new = |permit| Place::New(Permits { connection: Some(permit), pending: None });
    let place = match circuit.take(Resource::Connections, limits.connections) {
        Ok(permit) => new(permit),
        Err(_) => {
            let room = || circuit.try_take(Resource::Connections, limits.connections);
            circuit.wait(|| there().map(Place::There).or_else(|| room().map(new))).await
        }
    };
    Ok(match place {
        Place::New(permits) => Place::New(Permits { pending, ..permits }),
        there => there,
    })
}

async fn connect_http1(way: Way<'_>, permits: Permits) -> Result<(Exclusive, Mark), SendError> {
    let io = connect(way, permits.connection, HTTP1).await?;
    drop(permits.pending);
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
    Ok((Exclusive { sender, life: Life::new(way.cluster) }, mark))
}

fn http1_builder(config: &Config) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.max_headers(config.max_headers).max_header_size(config.max_head_bytes);
    builder
}

/// On a connection of its own, which becomes a byte stream with 101.
async fn send_upgrade(way: Way<'_>, request: Request<RequestBody>) -> Result<Sent, Failed> {
    let permits = match place(way, || None::<Infallible>).await {
        Ok(Place::New(permits)) => permits,
        Ok(Place::There(none)) => match none {},
        Err(overflow) => return Err(Failed::unsent(overflow.into(), request, false)),
    };
    let io = match connect(way, permits.connection, HTTP1).await {
        Ok(io) => io,
        Err(error) => return Err(Failed::unsent(error.into(), request, false)),
    };
    drop(permits.pending);
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
    let streams = way.cluster.limits().and_then(|limits| limits.streams);
    let streams = streams.map_or(config.upstream_streams, |streams| streams as usize);
    let (made, reused) = match place(way, || connections.least_busy(&key, streams)).await {
        Ok(Place::There(known)) => (Ok(known), true),
        Ok(Place::New(permits)) => {
            let made = Box::pin(connect_http2(way, permits)).await;
            (made.map(|made| connections.add(key, made, way.cluster)), false)
        }
        Err(overflow) => (Err(overflow.into()), false),
    };
    let shared = match made {
        Ok(shared) => shared,
        Err(error) => return Err(Failed::unsent(error, request, reused)),
    };
    shared.life.serve();
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

async fn connect_http2(
    way: Way<'_>,
    permits: Permits,
) -> Result<(http2::SendRequest<RequestBody>, Mark), SendError> {
    let io = connect(way, permits.connection, HTTP2).await?;
    drop(permits.pending);
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
        known.retain(|one| !(one.sender.is_closed() || one.is_over()));
        let free = known.iter().filter(|one| one.requests.get() < limit && !one.life.is_spent());
        free.min_by_key(|one| one.requests.get()).cloned()
    }

    fn add(
        &self,
        key: Key,
        (sender, mark): (http2::SendRequest<RequestBody>, Mark),
        cluster: &Cluster,
    ) -> Rc<Shared> {
        let (life, used) = (Life::new(cluster), Cell::new(Instant::now()));
        let shared = Rc::new(Shared { sender, mark, life, requests: Cell::new(0), used });
        self.http2.borrow_mut().entry(key).or_default().push(Rc::clone(&shared));
        shared
    }

    /// Closes one that rests of `circuit`, if there is one.
    pub(super) fn let_go(&self, circuit: &Circuit) -> bool {
        if self.http1.let_go(circuit) {
            return true;
        }
        let mut all = self.http2.borrow_mut();
        let rests = |one: &Rc<Shared>| one.requests.get() == 0 && one.life.is_of(circuit);
        all.values_mut().any(|known| match known.iter().position(rests) {
            Some(at) => {
                known.remove(at);
                true
            }
            None => false,
        })
    }

    /// Closes what has rested too long, and forgets what is closed.
    pub(super) fn sweep(&self) {
        let idle = self.idle;
        self.http1.sweep();
        self.http2.borrow_mut().retain(|_, known| {
            known.retain(|one| {
                let idle = one.life.idle().unwrap_or(idle);
                let rests = one.requests.get() == 0 && one.used.get().elapsed() >= idle;
                !(one.sender.is_closed() || one.is_over() || rests)
            });
            !known.is_empty()
        });
    }
}
