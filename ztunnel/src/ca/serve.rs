//! The service over TLS: sockets, handshakes, shutdown.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use proto::istio::v1::auth::istio_certificate_service_server::IstioCertificateServiceServer;
use rustls::ServerConfig;
use rustls::server::NoServerSessionStorage;
use shared::identity::TrustDomain;
use shared::tls;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{self, Instant};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, info, warn};

use super::issue::certify_ourselves;
use super::limit::Limits;
use super::root::Root;
use super::service::{Caller, Service, WAITING};
use super::state::State;
use super::tokens::Tokens;
use super::{Config, Error, NodePods, csr};

/// Connections at once. A node has one.
const CONNECTIONS: usize = 4096;

/// A peer that has not finished its handshake by then is dropped.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// Our own certificate is made anew after half of this.
const OWN_LIFETIME: Duration = Duration::from_secs(86_400);

/// A connection is asked to end after this time, so that nobody holds a place for ever.
const CONNECTION_AGE: Duration = Duration::from_secs(600);

/// What open requests get to finish after the signal to end.
const DRAIN: Duration = Duration::from_secs(5);

/// A request is one CSR and a little metadata.
const LARGEST_REQUEST_BYTES: usize = csr::LARGEST_BYTES + (4 << 10);

/// An authority that listens, but does not answer yet.
pub struct Bound {
    listener: TcpListener,
    service: Service,
}

impl Bound {
    /// Opens the state, makes the root if there is none, and listens.
    ///
    /// # Errors
    /// When the state is unsafe or damaged, or the address is taken.
    pub fn bind(config: &Config, pods: Arc<dyn NodePods>) -> Result<Self, Error> {
        let state = State::open(&config.state)?;
        let root = Root::open(&state, &config.trust_domain, config.constraints)?;
        let listener = listen(config.listen)
            .map_err(|source| Error::Listen { address: config.listen, source })?;
        let service = Service {
            root: Arc::new(root),
            tokens: Tokens::open(&state)?,
            pods,
            trust_domain: config.trust_domain.clone(),
            leaf_ttl: config.leaf_ttl,
            limits: Arc::new(Limits::default()),
            waiting: Arc::new(Semaphore::new(WAITING)),
        };
        Ok(Self { listener, service })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers requests until `shutdown` is ready, and then finishes open ones for a few seconds.
    ///
    /// # Errors
    /// When our own certificate cannot be made.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
        let Self { listener, service } = self;
        let mut own = Own::new(Arc::clone(&service.root), service.trust_domain.clone())?;
        let service = IstioCertificateServiceServer::new(service)
            .max_decoding_message_size(LARGEST_REQUEST_BYTES);
        let (stop, stopped) = watch::channel(false);
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        let mut connections = JoinSet::new();
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            while connections.try_join_next().is_some() {}
            // Cancel safety: an accepted socket is the result itself; a place comes with it.
            let accepted = tokio::select! {
                () = &mut shutdown => break,
                accepted = accept(&listener, &room) => accepted,
            };
            let Some((socket, peer, place)) = accepted else { continue };
            let connection =
                connection(socket, peer, own.acceptor(), service.clone(), stopped.clone());
            connections.spawn(async move {
                connection.await;
                drop(place);
            });
        }
        drop(listener);
        info!("certificate authority ends");
        // Nobody listens only when all connections have ended already.
        let _ = stop.send(true);
        let rest = async { while connections.join_next().await.is_some() {} };
        if time::timeout(DRAIN, rest).await.is_err() {
            warn!("open requests are cut off");
        }
        Ok(())
    }
}

/// Runs the authority until SIGTERM or SIGINT, with the pods of the mesh directory.
///
/// # Errors
/// When it cannot start.
pub async fn run(config: Config, pods: Arc<dyn NodePods>) -> Result<(), Error> {
    let bound = Bound::bind(&config, pods)?;
    let listen = bound.address().unwrap_or(config.listen);
    let root = shared::identity::join::hex(&bound.service.root.digest());
    let trust_domain = &config.trust_domain;
    info!(%listen, %trust_domain, root, leaf_ttl = ?config.leaf_ttl, "certificate authority ready");
    bound.run(terminated()).await
}

async fn terminated() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        warn!("signals cannot be caught; the process ends at once when told to");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Two authorities may not share a port unseen, so without SO_REUSEPORT.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = Arc::clone(room).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((socket, peer)) => Some((socket, peer, place)),
        Err(error) => {
            // Out of descriptors, most likely: give others time to close some.
            warn!(%error, "cannot accept a connection");
            time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

/// One connection from handshake to end.
async fn connection(
    socket: TcpStream,
    peer: SocketAddr,
    acceptor: TlsAcceptor,
    service: IstioCertificateServiceServer<Service>,
    mut stopped: watch::Receiver<bool>,
) {
    let tls = match time::timeout(HANDSHAKE_LIMIT, handshake(acceptor, socket)).await {
        Ok(Ok(tls)) => tls,
        Ok(Err(error)) => return debug!(%peer, %error, "handshake failed"),
        Err(_) => return debug!(%peer, "handshake took too long"),
    };
    let answer = hyper::service::service_fn(move |mut request: http::Request<Incoming>| {
        request.extensions_mut().insert(Caller(peer));
        tonic::codegen::Service::call(&mut service.clone(), request)
    });
    let serving = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(64)
        .max_header_list_size(16 << 10)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(10))
        .serve_connection(TokioIo::new(tls), answer);
    let mut serving = std::pin::pin!(serving);
    // Cancel safety: the connection is polled on after either signal.
    let ended = tokio::select! {
        ended = &mut serving => Some(ended),
        _ = stopped.wait_for(|stopped| *stopped) => None,
        () = time::sleep(CONNECTION_AGE) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            serving.as_mut().graceful_shutdown();
            time::timeout(DRAIN, serving).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        debug!(%peer, %error, "connection broke");
    }
}

async fn handshake(
    acceptor: TlsAcceptor,
    socket: TcpStream,
) -> io::Result<tokio_rustls::server::TlsStream<TcpStream>> {
    socket.set_nodelay(true)?;
    acceptor.accept(socket).await
}

/// Our own certificate, made anew at half of its life.
struct Own {
    root: Arc<Root>,
    trust_domain: TrustDomain,
    acceptor: TlsAcceptor,
    made: Instant,
}

impl Own {
    fn new(root: Arc<Root>, trust_domain: TrustDomain) -> Result<Self, Error> {
        let acceptor = acceptor(&root, &trust_domain)?;
        Ok(Self { root, trust_domain, acceptor, made: Instant::now() })
    }

    fn acceptor(&mut self) -> TlsAcceptor {
        if self.made.elapsed() > OWN_LIFETIME / 2 {
            match acceptor(&self.root, &self.trust_domain) {
                Ok(fresh) => (self.acceptor, self.made) = (fresh, Instant::now()),
                Err(error) => warn!(%error, "own certificate not renewed, will try again"),
            }
        }
        self.acceptor.clone()
    }
}

fn acceptor(root: &Root, trust_domain: &TrustDomain) -> Result<TlsAcceptor, Error> {
    let (chain, key) = certify_ourselves(root, trust_domain, OWN_LIFETIME)?;
    let mut config = tls::tls13(ServerConfig::builder_with_provider(tls::provider::provider()))
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|_| rcgen::Error::CouldNotParseKeyPair)?;
    config.alpn_protocols = vec![tls::ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

#[cfg(test)]
mod tests;
