//! Life of a connection that reaches a pod, tunnelled or plain.
//!
//! tunnel: TLS → CONNECT → [`target`] → decide → permit → application's socket → 200 → copy
//! hand-over: as a tunnel from the target to the socket (`delivery`), for another pod of this process
//! plain: original destination → decide → permit → application's socket → copy
//!
//! Invariants: the application's socket is opened only with a permit, and the permit is watched until
//! the end; the 200 comes after the application has accepted; peers are refused with exactly the
//! statuses 400, 401 and 503, and with 431 where their headers are beyond the limit.
//! Source: spec L4 §4.

pub(crate) mod application;
pub(crate) mod delivery;
mod plaintext;
mod proxy_protocol;
mod request;
pub mod target;
mod tunnel;

use std::io;

use shared::chain::Chain;
use shared::{hbone, identity, tls};

use crate::node::permits::Denial;
use crate::pods::PodName;

pub use plaintext::{deliver_plaintext, serve_plaintext};
pub use target::Error as TargetError;
pub use tunnel::serve_tunnel;

/// Why a connection does not reach the application.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The tunnel connection itself.
    #[error(transparent)]
    Accept(#[from] AcceptError),
    /// The tunnel is asked for no connection at all.
    #[error("invalid request: {0}")]
    Request(#[from] hbone::BadRequest),
    /// What the tunnel is asked for.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The mesh does not have the pod's workload, also not after a while.
    #[error("failed to fetch information about local workload: {0}")]
    WorkloadUnknown(PodName),
    /// The mesh no longer has the pod's workload, and the pod ends or has ended.
    #[error("pod {0} has left the mesh")]
    PodGone(PodName),
    /// It is not allowed.
    #[error(transparent)]
    Denied(#[from] Denial),
    /// The application does not take it.
    #[error("connection failed: {0}")]
    Connect(#[source] io::Error),
    /// The application does not answer.
    #[error("connection failed: timed out")]
    ConnectTimeout,
    /// The client did not wait for the answer.
    #[error("client gave up before the application answered")]
    ClientGone,
}

/// Why a tunnel connection is not taken, or ends.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// We have no certificate.
    #[error("identity error: {}", Chain(.0))]
    Identity(#[source] identity::Error),
    /// We have no certificate yet.
    #[error("identity error: no certificate yet")]
    IdentityTimeout,
    /// TLS, or not a peer of our mesh.
    #[error("tls error: {}", Chain(.0))]
    Tls(#[source] tls::Error),
    /// The peer opened TCP, and then nothing.
    #[error("tls error: handshake timed out")]
    TlsTimeout,
    /// The peer does not speak HTTP/2 as it should.
    #[error("h2 failed: {}", Chain(.0))]
    Tunnel(#[source] hbone::Error),
}
