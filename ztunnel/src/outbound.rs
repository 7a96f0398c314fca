//! Life of a connection that an application opens.
//!
//! accepted → original destination → `resolve` → a route → `connect` → copy → one line in the log
//!
//! Invariants: the destination's own refusal (400, 401) is final; anything else before the tunnel
//! stands goes to another endpoint, at most three; after it stands, only what the destination's proxy
//! says that the application took no byte of.
//! Between two pods of this process there may be no tunnel (`handover`).
//! Source: spec L4 §3.

pub(crate) mod connect;
pub mod dial;
mod handover;
pub mod resolve;
mod tunnel;

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::StatusCode;
use shared::assert_size;
use shared::balance::Gone;
use shared::chain::Chain;
use shared::hbone;
use shared::mesh::Uid;
use shared::telemetry::access::Direction;
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::copy::{self, Abort, Copy, Cut, Endpoint, Side};
use crate::metrics;
use crate::node::OnWorker;
use crate::outcome::{self, Outcome};
use crate::pods::{Pod, PodName};
use crate::redirect::sockets;

/// Why a connection of an application does not reach its destination.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The mesh does not have the pod's workload, also not after a while.
    #[error("unknown source: {0}")]
    SourceUnknown(PodName),
    /// There is no way.
    #[error(transparent)]
    Unroutable(#[from] resolve::Unroutable),
    /// The name of a workload outside the mesh has no address.
    #[error("dns lookup of {name} failed: {source}")]
    Name {
        /// Which name.
        name: Arc<str>,
        /// What the resolver says.
        source: io::Error,
    },
    /// A plain connection failed.
    #[error("connection failed: {0}")]
    Connect(#[source] io::Error),
    /// A plain connection was not answered.
    #[error("connection failed: timed out")]
    ConnectTimeout,
    /// No tunnel connection could be made.
    #[error("{0}")]
    Dial(#[source] Rc<dial::Error>),
    /// The application did not wait.
    #[error("client gave up before the destination answered")]
    ClientGone,
    /// The tunnel connection failed before the peer answered.
    #[error("h2 failed: {}", Chain(.0))]
    Tunnel(#[source] hbone::Error),
    /// The peer's proxy refused; its own name for the cause, where it says one.
    #[error("http status: {}{}", .status.as_u16(), named(.cause))]
    Status {
        /// What it answered.
        status: StatusCode,
        /// Why, in its words.
        cause: Option<Box<str>>,
    },
}

impl Error {
    /// Whether nobody is at the destination any more: it need not be asked again for a while. What
    /// the other proxy says of it is believed if that is the destination's own.
    fn gone(&self, of_endpoint: bool) -> Option<Gone> {
        match self {
            Self::Dial(error) => match &**error {
                dial::Error::Connect(error) => Gone::by_error(error),
                _ => None,
            },
            Self::Status { status: StatusCode::SERVICE_UNAVAILABLE, cause } if of_endpoint => {
                Gone::by_cause(cause.as_deref()?)
            }
            _ => None,
        }
    }
}

fn named(cause: &Option<Box<str>>) -> String {
    cause.as_ref().map(|cause| format!(" ({cause})")).unwrap_or_default()
}

/// Serves a connection that was captured on its way out of `pod`.
pub async fn serve(worker: Rc<OnWorker>, pod: Arc<Pod>, socket: TcpStream, peer: SocketAddr) {
    match sockets::original_destination(&socket) {
        Ok(destination) => carry(&worker, &pod, socket, (peer, destination)).await,
        Err(error) => tracing::debug!(src = %peer, %error, "connection ended before it was served"),
    }
}

// The task of a connection: 1,408 bytes when measured, with what is needed to carry it to another
// endpoint; Istio ztunnel's is 1 to 2 KB.
assert_size!(serve, fn(_, _, _, _) -> _, 1_472);

/// Carries `socket`, opened by `from`, to where it wanted to go: the second of `ends`. What the
/// application at one endpoint took nothing of is carried to another.
pub async fn carry(
    worker: &Rc<OnWorker>,
    pod: &Arc<Pod>,
    mut socket: TcpStream,
    ends: (SocketAddr, SocketAddr),
) {
    let mut tried: Vec<Uid> = Vec::new();
    let mut read = Vec::new();
    loop {
        let reached = tokio::select! {
            // Who is answered and leaves at once is told as answered.
            biased;
            // Boxed: over in a moment, and larger than what follows.
            reached = Box::pin(connect::reach(worker, pod, ends, &socket, &tried)) => reached,
            () = gone(&socket) => Err(Error::ClientGone.into()),
        };
        let connected = match reached {
            Ok(connected) => connected,
            Err(failed) => {
                // What was tried before has told its end.
                if tried.is_empty() || failed.story.is_some() {
                    tell(worker, ends, failed);
                }
                // The application has long been connected: a reset says best that it is not.
                return socket.abort(Abort::Cut);
            }
        };
        let log = connected.log;
        let mut copy = match &connected.endpoint {
            Some(_) => Copy::resumable(socket, connected.upstream, log.counters(), read),
            None => Copy::new(socket, connected.upstream, log.counters()),
        };
        let ended = match connected.far {
            // Boxed: where there is no tunnel, the task is the smaller one.
            Some(far) => Box::pin(far.carry(&mut copy)).await,
            None => (&mut copy).await,
        };
        let again = match (&ended, connected.endpoint) {
            (Err(copy::Error { side: Side::Far, cut: Cut::Undelivered }), Some(endpoint)) => {
                tried.push(endpoint);
                copy.reclaim()
            }
            _ => None,
        };
        drop(copy);
        match ended.as_ref().err().and_then(|error| Some((outcome::of_copy(error)?, error))) {
            Some((outcome, error)) => log.close(Err((outcome, error))),
            None => log.close(Ok(())),
        }
        let Some(undelivered) = again else { return };
        (socket, read) = undelivered;
    }
}

fn tell(worker: &Rc<OnWorker>, ends: (SocketAddr, SocketAddr), failed: connect::Failed) {
    let outcome = Outcome::from(&failed.error);
    match failed.story {
        Some(story) => story.fail(worker, outcome, &failed.error),
        None => metrics::refuse(worker, Direction::Outbound, ends, outcome, &failed.error),
    }
}

/// Ends when the application has reset its connection, or its host has. An orderly end is no reason
/// to stop: it may have closed its direction and wait for the answer.
async fn gone(socket: &TcpStream) {
    // An error of waiting is one of the socket.
    let _ = socket.ready(Interest::ERROR).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_believed_that_an_endpoint_is_gone_if_it_is_the_endpoints_own() {
        let refused =
            |status, cause: Option<&str>| Error::Status { status, cause: cause.map(Into::into) };
        let unavailable = StatusCode::SERVICE_UNAVAILABLE;
        for (error, gone) in [
            (refused(unavailable, Some("POD_GONE")), Some(Gone::Pod)),
            (refused(unavailable, Some("APPLICATION_CONNECT_FAILED")), Some(Gone::Port)),
            (refused(unavailable, Some("APPLICATION_CONNECT_TIMEOUT")), None),
            (refused(unavailable, None), None),
            (refused(StatusCode::UNAUTHORIZED, Some("POD_GONE")), None),
        ] {
            assert_eq!(error.gone(true), gone, "{error}");
            // A waypoint or gateway between may say so of whomever.
            assert_eq!(error.gone(false), None, "{error}");
        }
        let refused = Rc::new(dial::Error::Connect(io::ErrorKind::ConnectionRefused.into()));
        assert_eq!(Error::Dial(refused).gone(false), Some(Gone::Pod));
        assert_eq!(Error::Dial(Rc::new(dial::Error::ConnectTimeout)).gone(true), None);
    }
}
