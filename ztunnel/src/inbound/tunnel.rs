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

use crate::inbound::delivery::Arrival;
use crate::inbound::{AcceptError, Error, request};
use crate::metrics;
use crate::node::OnWorker;
use crate::outcome::Outcome;
use crate::pods::Pod;
use crate::redirect::sockets::canonical;

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
            let arrival = Arrival { worker, pod, from: peer, local, peer: id, handover: false };
            serve_streams(arrival, stream).await
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

async fn serve_streams(arrival: Arrival, stream: tls::Stream) -> Result<(), AcceptError> {
    let config = arrival.pod.tunnel(&arrival.worker.config().tunnel_server);
    let mut server = Server::new(stream, config);
    let draining = arrival.pod.drain.draining();
    let arrival = Rc::new(arrival);
    let each = Rc::clone(&arrival);
    let ended =
        server.serve_each(draining, |incoming| serve_stream(Rc::clone(&each), incoming)).await;
    match ended {
        Err(error) if request::is_protocol_error(&error) => Err(AcceptError::Tunnel(error)),
        Err(error) => {
            // Everyday: a pod that is deleted loses its namespace before it can say goodbye.
            tracing::debug!(src = %arrival.from, %error, "tunnel connection ended");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

async fn serve_stream(arrival: Rc<Arrival>, incoming: Incoming) {
    request::serve(&arrival, incoming).await;
}

// The task of a stream: 776 bytes when measured; Istio ztunnel's is 1.5 to 2.5 KB.
assert_size!(serve_stream, fn(_, _) -> _, 832);
