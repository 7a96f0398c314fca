//! The application's side of an inbound connection: opened with a permit, watched to the end.

use std::net::{IpAddr, SocketAddr};

use shared::authz::Permit;
use tokio::net::TcpStream;

use crate::copy::{Abort, Copy, Endpoint, Side};
use crate::inbound::Error;
use crate::metrics::ConnectionLog;
use crate::node::OnWorker;
use crate::node::permits::Watch;
use crate::outcome::{self, Outcome};
use crate::pods::Pod;

/// Connects to the application as `from`. The permit is what allows it.
pub(super) async fn connect(
    worker: &OnWorker,
    pod: &Pod,
    _permit: &Permit,
    to: SocketAddr,
    from: Option<IpAddr>,
) -> Result<TcpStream, Error> {
    let connect = pod.sockets.connect(to, from);
    match tokio::time::timeout(worker.config().connect_timeout, connect).await {
        Ok(connected) => connected.map_err(Error::Connect),
        Err(_) => Err(Error::ConnectTimeout),
    }
}

/// Copies between client and application until the end, or until the permit is withdrawn.
pub(super) async fn run(
    client: impl Endpoint,
    application: TcpStream,
    watch: Watch,
    log: ConnectionLog,
) {
    let mut copy = Copy::new(client, application, log.counters());
    let ended = tokio::select! {
        // Policy comes first, so that a denied connection is always told as denied.
        biased;
        denial = watch.revoked() => {
            drop(copy);
            // Istio ztunnel's words, and after them what it does not say: which policy.
            let error = format_args!("connection closed due to policy change: {}", denial.why());
            log.close(Err((Outcome::POLICY_CHANGED, &error)));
            return;
        }
        ended = &mut copy => ended,
    };
    let Err(error) = ended else {
        drop(copy);
        return log.close(Ok(()));
    };
    let undelivered = error.side == Side::Far && copy.is_undelivered();
    copy.abort(if undelivered { Abort::Undelivered } else { Abort::Cut });
    let outcome = if undelivered { Some(Outcome::UNDELIVERED) } else { outcome::of_copy(&error) };
    match outcome {
        Some(outcome) => log.close(Err((outcome, &error))),
        None => log.close(Ok(())),
    }
}
