//! Connections that reach a pod outside a tunnel (15006): allowed unless policy asks for a peer.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use shared::assert_size;
use shared::telemetry::access::Direction;
use shared::telemetry::traffic::Security;
use tokio::net::TcpStream;

use crate::copy::{Abort, Endpoint};
use crate::inbound::target::Listener;
use crate::inbound::{Error, TargetError, application};
use crate::metrics::{self, ConnectionLog, Story};
use crate::node::OnWorker;
use crate::node::permits::{Case, Watch};
use crate::outbound::resolve::OWN_PORTS;
use crate::outcome::Outcome;
use crate::pods::Pod;
use crate::redirect::sockets;

/// Serves a connection that was captured on its way into `pod`.
pub async fn serve_plaintext(
    worker: Rc<OnWorker>,
    pod: Arc<Pod>,
    socket: TcpStream,
    peer: SocketAddr,
) {
    match sockets::original_destination(&socket) {
        Ok(destination) => deliver_plaintext(&worker, &pod, socket, (peer, destination)).await,
        Err(error) => tracing::debug!(src = %peer, %error, "connection ended before it was served"),
    }
}

// The task of a connection: 784 bytes when measured; Istio ztunnel's is 1.5 to 3 KB.
assert_size!(serve_plaintext, fn(_, _, _, _) -> _, 832);

/// Delivers `socket`, opened by the first of `ends`, to the second.
pub async fn deliver_plaintext(
    worker: &Rc<OnWorker>,
    pod: &Arc<Pod>,
    socket: TcpStream,
    ends: (SocketAddr, SocketAddr),
) {
    // Boxed: a connection lives long after it was made.
    match Box::pin(connect(worker, pod, ends)).await {
        Some((application, watch, log)) => application::run(socket, application, watch, log).await,
        None => socket.abort(Abort::Cut),
    }
}

/// From the captured connection to the application's; none when it was refused.
async fn connect(
    worker: &Rc<OnWorker>,
    pod: &Arc<Pod>,
    ends: (SocketAddr, SocketAddr),
) -> Option<(TcpStream, Watch, ConnectionLog)> {
    let (from, to) = ends;
    let refuse = |error: &Error| {
        metrics::refuse(worker, Direction::Inbound, ends, Outcome::from(error), error);
        None
    };
    if OWN_PORTS.contains(&to.port()) {
        return refuse(&TargetError::PortReserved(to.port()).into());
    }
    let Some(workload) = worker.workload(pod).await else {
        return refuse(&Error::WorkloadUnknown(pod.workload.clone()));
    };
    let mesh = worker.node.mesh.load();
    let listener =
        Listener { workload: &workload, addresses: &pod.ips, local: to.ip(), loopback: false };
    let story = Story {
        direction: Direction::Inbound,
        source_addr: from,
        source: mesh.workload_by_addr(&workload.network, from.ip()).cloned(),
        source_baggage: None,
        source_identity: None,
        original: to,
        destination_addr: Some(to),
        authority: None,
        service: listener.guess_service(&mesh, to, None),
        destination: Some(Arc::clone(&workload)),
        security: Security::Unknown,
        trace: None,
        handover: false,
    };
    let case = Case { workload, peer: None, source_ip: from.ip(), destination: to };
    let admitted = worker.permits.admit(&mesh, case);
    drop(mesh);
    let connected = match admitted {
        Err(denial) => Err(denial.into()),
        Ok((permit, watch)) => {
            let source = worker.config().keep_source.then_some(from.ip());
            let connected = application::connect(worker, pod, &permit, to, source).await;
            connected.map(|application| (application, watch))
        }
    };
    match connected {
        Ok((application, watch)) => Some((application, watch, ConnectionLog::open(worker, story))),
        Err(error) => {
            story.fail(worker, Outcome::from(&error), &error);
            None
        }
    }
}
