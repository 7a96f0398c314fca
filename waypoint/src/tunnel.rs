//! Connections of clients: mutual TLS, then a task per CONNECT stream.
//!
//! accepted → TLS → stream → target → 200 → which protocol is inside → `request` or `tcp`
//!
//! Source: spec L7 §1.2 to §1.5.

pub(crate) mod http;
mod pace;
mod server_name;
mod sniff;
mod target;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use ::http::HeaderMap;
use shared::drain;
use shared::hbone::{self, Incoming, Server, Stream};
use shared::headers::{BAGGAGE, Baggage, Forwarded, TraceParent, refusal};
use shared::identity;
use shared::mesh::{AppProtocol, Mesh, Workload};
use shared::tls::{self, PeerId};
use shared::workers::Workers;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

pub use self::target::{NotServed, Target};

use self::sniff::Inside;
use crate::node::{Node, OnWorker};
use crate::outcome::Outcome;
use crate::{limits, metrics, tcp};

/// Why a connection of a client cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// The mesh has no pod of our Gateway.
    #[error("the mesh has no pod of this gateway")]
    Nobody,
    /// We have no certificate.
    #[error("identity error: {}", shared::chain::Chain(.0))]
    Identity(#[source] identity::Error),
    /// We have no certificate yet.
    #[error("identity error: no certificate yet")]
    IdentityTimeout,
    /// The handshake failed.
    #[error("tls error: {}", shared::chain::Chain(.0))]
    Tls(#[source] tls::Error),
    /// The handshake took too long.
    #[error("tls error: handshake timed out")]
    TlsTimeout,
    /// The client broke the rules of the tunnel.
    #[error("h2 failed: {}", shared::chain::Chain(.0))]
    Tunnel(#[source] hbone::Error),
}

/// What the streams of one tunnel connection share.
pub(crate) struct Tunnel {
    pub(crate) worker: Rc<OnWorker>,
    /// The TCP peer.
    from: SocketAddr,
    /// The address that it reached.
    local: SocketAddr,
    /// Who it proved to be.
    peer: PeerId,
    drain: drain::Watch,
}

/// One connection of an application, inside a tunnel.
pub(crate) struct Client {
    pub(crate) worker: Rc<OnWorker>,
    /// Where it wants to go.
    pub(crate) target: Target,
    /// The CONNECT target.
    pub(crate) authority: Box<str>,
    /// Who its proxy proved to be.
    pub(crate) peer: PeerId,
    /// The same as text.
    pub(crate) identity: Box<str>,
    /// The address of the application, as its proxy tells it; the port is for logs only.
    pub(crate) address: SocketAddr,
    /// The workload at that address, if the mesh has it.
    pub(crate) source: Option<Arc<Workload>>,
    /// What the proxy says about it.
    pub(crate) baggage: Baggage,
    /// Who we are.
    pub(crate) own: Arc<Workload>,
    /// The id that both ends log.
    pub(crate) trace: Option<TraceParent>,
    /// The rate limits that its requests have met.
    pub(crate) limits: limits::Met,
    /// Ends new work.
    pub(crate) drain: drain::Watch,
}

/// Accepts tunnels until the drain begins. Each goes to the worker with the least to do.
pub async fn accept(node: Arc<Node>, workers: Workers, listener: TcpListener, drain: drain::Watch) {
    let serve = async {
        loop {
            match listener.accept().await {
                Ok((socket, peer)) => hand_over(&node, &workers, socket, peer, &drain),
                // Out of descriptors, or a connection that was reset meanwhile: others go on.
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a tunnel");
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                }
            }
        }
    };
    tokio::select! {
        () = serve => {}
        () = drain.draining() => {}
    }
}

fn hand_over(
    node: &Arc<Node>,
    workers: &Workers,
    socket: TcpStream,
    peer: SocketAddr,
    drain: &drain::Watch,
) {
    // It belongs to the event loop that will serve it.
    let Ok(socket) = socket.into_std() else { return };
    let (node, drain) = (Arc::clone(node), drain.clone());
    let guard = drain.guard();
    workers.spawn(workers.least_loaded(), move || async move {
        let _guard = guard;
        let Ok(socket) = TcpStream::from_std(socket) else { return };
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        tokio::select! {
            () = serve(node.on_worker(), socket, peer, drain.clone()) => {}
            () = drain.forced() => {}
        }
    });
}

async fn serve(worker: Rc<OnWorker>, socket: TcpStream, from: SocketAddr, drain: drain::Watch) {
    socket.set_nodelay(true).ok();
    let Ok(local) = socket.local_addr() else { return };
    let local = SocketAddr::new(local.ip().to_canonical(), local.port());
    let ended = match Box::pin(handshake(&worker, socket)).await {
        Ok((stream, peer)) => {
            let tunnel = Tunnel { worker: Rc::clone(&worker), from, local, peer, drain };
            serve_streams(tunnel, stream).await
        }
        Err(error) => Err(error),
    };
    if let Err(error) = ended {
        metrics::refuse(&worker, (from, local), Outcome::from(&error), &error);
    }
}

async fn handshake(
    worker: &OnWorker,
    socket: TcpStream,
) -> Result<(tls::Stream, PeerId), AcceptError> {
    let config = worker.config();
    let own = worker.node.own(&worker.node.mesh.load()).ok_or(AcceptError::Nobody)?;
    let certificate = worker.node.certificates.certificate(&own.identity);
    let certificate = timeout(config.start_patience, certificate)
        .await
        .map_err(|_| AcceptError::IdentityTimeout)?
        .map_err(AcceptError::Identity)?;
    timeout(config.handshake_timeout, tls::accept(socket, certificate.server_config()))
        .await
        .map_err(|_| AcceptError::TlsTimeout)?
        .map_err(AcceptError::Tls)
}

async fn serve_streams(tunnel: Tunnel, stream: tls::Stream) -> Result<(), AcceptError> {
    let mut server = Server::new(stream, tunnel.worker.config().tunnel_server.clone());
    let draining = tunnel.drain.draining();
    let tunnel = Rc::new(tunnel);
    let each = Rc::clone(&tunnel);
    let ended =
        server.serve_each(draining, |incoming| serve_stream(Rc::clone(&each), incoming)).await;
    match ended {
        Err(error @ hbone::Error::Protocol(_)) => Err(AcceptError::Tunnel(error)),
        Err(error) => {
            tracing::debug!(src = %tunnel.from, %error, "tunnel connection ended");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

async fn serve_stream(tunnel: Rc<Tunnel>, incoming: Incoming) {
    let mesh = tunnel.worker.node.mesh.load();
    let client = match client(&tunnel, &mesh, &incoming) {
        Ok(client) => Rc::new(client),
        Err(error) => {
            let outcome = Outcome::from(&error);
            metrics::refuse(&tunnel.worker, (tunnel.from, tunnel.local), outcome, &error);
            return incoming.refuse(outcome.status(), &refusal(outcome.code()));
        }
    };
    drop(mesh);
    let headers = HeaderMap::from_iter([(BAGGAGE, Baggage::describe(&client.own))]);
    let mut stream = incoming.accept(&headers);
    match sniff::inside(&client, &mut stream).await {
        Ok(Inside::Http1) => http::serve_http1(client, stream).await,
        Ok(Inside::Http2) => http::serve_http2(client, stream).await,
        Ok(Inside::Tcp(upstream)) => {
            let name = match client.target.protocol() {
                AppProtocol::Tls => named(&client, &mut stream).await,
                _ => None,
            };
            tcp::serve(client, stream, upstream, name.as_deref()).await;
        }
        Err(error) => tracing::debug!(src = %client.address, %error, "stream ended unread"),
    }
}

/// The server name that TLS inside asks for, within the time that a handshake may take.
async fn named(client: &Client, stream: &mut Stream) -> Option<Box<str>> {
    let name = server_name::server_name(stream);
    timeout(client.worker.config().handshake_timeout, name).await.ok()?.ok()?
}

fn client(tunnel: &Tunnel, mesh: &Mesh, incoming: &Incoming) -> Result<Client, NotServed> {
    let request = incoming.request().map_err(NotServed::Request)?;
    let own = tunnel.worker.node.own(mesh).ok_or(NotServed::Nobody)?;
    let target = target::find(mesh, &own, &request.authority)?;
    let forwarded = Forwarded::parse(&request.headers);
    // The proxy dials from the application's own address; its port is known to the proxy alone.
    let address = forwarded.client.filter(|client| client.ip() == tunnel.from.ip());
    Ok(Client {
        worker: Rc::clone(&tunnel.worker),
        target,
        authority: request.authority.clone(),
        peer: tunnel.peer.clone(),
        identity: tunnel.peer.to_string().into(),
        address: address.unwrap_or(tunnel.from),
        source: mesh.workload_by_addr(&own.network, tunnel.from.ip()).cloned(),
        baggage: Baggage::parse(&request.headers),
        own,
        trace: TraceParent::parse(&request.headers),
        limits: limits::Met::default(),
        drain: tunnel.drain.clone(),
    })
}
