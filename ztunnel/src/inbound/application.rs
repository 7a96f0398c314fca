//! The application's side of an inbound connection: opened with a permit, watched to the end.

use std::future::{Future, poll_fn};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Poll, ready};

use shared::authz::Permit;
use tokio::net::TcpStream;

use crate::copy::{self, Abort, Copy, Endpoint, Side};
use crate::inbound::Error;
use crate::metrics::ConnectionLog;
use crate::node::OnWorker;
use crate::node::permits::{Denial, Watch};
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

/// How an inbound connection ended.
#[derive(Debug)]
pub(crate) enum End {
    /// Both sides had finished.
    Done,
    /// It is not allowed any more.
    Denied(Denial),
    /// The application went away and took no byte of it.
    Undelivered(copy::Error),
    /// One side went away.
    Cut(copy::Error),
}

/// Runs `copy`, whose far side is an application, until the end or until the permit is withdrawn.
///
/// # Cancel safety
/// Safe.
pub(crate) fn watched<N: Endpoint, F: Endpoint>(
    copy: &mut Copy<'_, N, F>,
    watch: &Watch,
) -> impl Future<Output = End> {
    // By hand: it is a part of the task of every connection.
    poll_fn(move |cx| {
        // Policy comes first, so that a denied connection is always told as denied.
        if let Poll::Ready(denial) = watch.poll_revoked(cx) {
            return Poll::Ready(End::Denied(denial));
        }
        Poll::Ready(match ready!(Pin::new(&mut *copy).poll(cx)) {
            Ok(()) => End::Done,
            Err(error) if error.side == Side::Far && copy.is_undelivered() => {
                End::Undelivered(error)
            }
            Err(error) => End::Cut(error),
        })
    })
}

impl End {
    /// Tells it in the connection's log.
    pub(crate) fn tell(&self, log: ConnectionLog) {
        match self {
            Self::Done => log.close(Ok(())),
            Self::Denied(denial) => {
                // Istio ztunnel's words, and after them what it does not say: which policy.
                let why = denial.why();
                let error = format_args!("connection closed due to policy change: {why}");
                log.close(Err((Outcome::POLICY_CHANGED, &error)));
            }
            Self::Undelivered(error) => log.close(Err((Outcome::UNDELIVERED, error))),
            Self::Cut(error) => match outcome::of_copy(error) {
                Some(outcome) => log.close(Err((outcome, error))),
                None => log.close(Ok(())),
            },
        }
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
    let end = watched(&mut copy, &watch).await;
    match end {
        End::Done | End::Denied(_) => drop(copy),
        End::Undelivered(_) => copy.abort(Abort::Undelivered),
        End::Cut(_) => copy.abort(Abort::Cut),
    }
    end.tell(log);
}
