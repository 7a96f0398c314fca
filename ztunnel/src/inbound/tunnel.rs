//! A tunnel connection (15008): mutual TLS, then a task per stream.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use shared::assert_size;
use shared::hbone::{Incoming, Server};
use shared::telemetry::access::Direction;
use shared::tls::{self, PeerId};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::inbound::{AcceptError, Error, request};
use crate::metrics;
use crate::node::OnWorker;
use crate::outcome::Outcome;
use crate::pods::Pod;
use crate::redirect::sockets::canonical;

/// What the streams of one tunnel connection share.
pub(super) struct Tunnel {
    pub(super) worker: Rc<OnWorker>,
    pub(super) pod: Arc<Pod>,
    /// The TCP peer.
    pub(super) from: SocketAddr,
    /// The address that it reached.
    pub(super) local: SocketAddr,
    /// Who it proved to be.
    pub(super) peer: PeerId,
}

/// Serves a tunnel connection to `pod`.
pub async fn serve_tunnel(
    worker: Rc<OnWorker>,
    pod: Arc<Pod>,
    socket: TcpStream,
    peer: SocketAddr,
) {
    let Ok(local) = socket.local_addr().map(canonical) else { return };
    // Boxed: over in a moment, and three times as large as what follows.
    let ended = match Box::pin(accept(&worker, &pod, socket)).await {
        Ok((stream, id)) => {
            let (worker, pod) = (Rc::clone(&worker), Arc::clone(&pod));
            serve_streams(Tunnel { worker, pod, from: peer, local, peer: id }, stream).await
        }
        Err(error) => Err(error),
    };
    if let Err(error) = ended.map_err(Error::from) {
        let outcome = Outcome::from(&error);
        metrics::refuse(&worker, Direction::Inbound, (peer, local), outcome, &error);
    }
}

// The task of a tunnel connection: 1,520 bytes when measured.
assert_size!(serve_tunnel, fn(_, _, _, _) -> _, 1_664);

async fn accept(
    worker: &OnWorker,
    pod: &Pod,
    socket: TcpStream,
) -> Result<(tls::Stream, PeerId), AcceptError> {
    let config = worker.config();
    let certificate =
        timeout(config.start_patience, worker.node.certificates.certificate(&pod.identity))
            .await
            .map_err(|_| AcceptError::IdentityTimeout)?
            .map_err(AcceptError::Identity)?;
    let handshake = tls::accept(socket, certificate.server_config());
    timeout(config.handshake_timeout, handshake)
        .await
        .map_err(|_| AcceptError::TlsTimeout)?
        .map_err(AcceptError::Tls)
}

// 3,816 bytes when measured, nearly all of it the state of rustls, for the time of a handshake.
assert_size!(accept, fn(_, _, _) -> _, 3_968);

async fn serve_streams(tunnel: Tunnel, stream: tls::Stream) -> Result<(), AcceptError> {
    let config = tunnel.pod.tunnel(&tunnel.worker.config().tunnel_server);
    let mut server = Server::new(stream, config);
    let draining = tunnel.pod.drain.draining();
    let tunnel = Rc::new(tunnel);
    let each = Rc::clone(&tunnel);
    let ended =
        server.serve_each(draining, |incoming| serve_stream(Rc::clone(&each), incoming)).await;
    match ended {
        Err(error) if request::is_protocol_error(&error) => Err(AcceptError::Tunnel(error)),
        Err(error) => {
            // Everyday: a pod that is deleted loses its namespace before it can say goodbye.
            tracing::debug!(src = %tunnel.from, %error, "tunnel connection ended");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

async fn serve_stream(tunnel: Rc<Tunnel>, incoming: Incoming) {
    request::serve(&tunnel, incoming).await;
}

// The task of a stream: 776 bytes when measured; Istio ztunnel's is 1.5 to 2.5 KB.
assert_size!(serve_stream, fn(_, _) -> _, 832);
