//! The pods of this node: enrolled, served, withdrawn.
//!
//! | module | holds |
//! |---|---|
//! | [`registry`] | the list of pods that should be served, made true again and again |
//! | [`enrol`] | what it takes to serve one pod, and to let it go |
//! | `accept` | the loop from a listener to a worker |
//! | [`Served`] | which pods are served now, for connections between them |
//! | [`share`] | what one pod may take of its node |
//! | [`status`] | what is said about it: dump, readiness, metrics |
//!
//! Invariants: listeners exist before rules lead to them; rules are gone before listeners close when
//! a pod leaves, and stay when the process does; one namespace belongs to one pod.
//! Not here: what happens on a connection ([`Serve`]).

mod accept;
pub mod enrol;
pub mod registry;
mod served;
pub mod share;
pub mod status;

use std::fmt;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use shared::drain;
use shared::hbone;
use shared::identity::SpiffeId;
use shared::mesh::Uid;
use tokio::net::TcpStream;

pub use registry::{Config, Pods};
pub use served::Served;
pub use status::Status;

use crate::redirect::Sockets;

/// The name of a pod, with the account that gives it its identity.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodName {
    /// Kubernetes namespace.
    pub namespace: Arc<str>,
    /// Name within the namespace.
    pub name: Arc<str>,
    /// Service account.
    pub service_account: Arc<str>,
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A pod that this process serves, as the data path sees it: shared.
#[derive(Debug)]
pub struct Pod {
    /// Its workload in the mesh.
    pub uid: Uid,
    /// Which pod.
    pub workload: PodName,
    /// Who it is to its peers.
    pub identity: SpiffeId,
    /// Its addresses; a tunnel may only lead to these.
    pub ips: Vec<IpAddr>,
    /// The mesh has had its workload: if it has not, the pod has left, and is not new.
    pub known: AtomicBool,
    /// Opens connections as this pod.
    pub sockets: Sockets,
    /// What the windows of its tunnels may grow by; none for no limit.
    pub windows: Option<Arc<hbone::Budget>>,
    /// Draining: the process ends, tell peers (GOAWAY) and finish what is there. Forced: the pod
    /// has left or time is up, end at once; what has not ended in the same turn is dropped.
    pub drain: drain::Watch,
}

impl Pod {
    /// `config` for tunnels from or to this pod.
    pub(crate) fn tunnel(&self, config: &hbone::Config) -> hbone::Config {
        hbone::Config { budget: self.windows.clone(), ..config.clone() }
    }
}

/// Which of a pod's listeners a connection came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The application opened it (15001).
    Outbound,
    /// It reached the pod outside a tunnel (15006).
    Inbound,
    /// A peer's tunnel connection (15008).
    Tunnel,
}

impl Side {
    /// In the order in which listeners open: peers may come before applications are redirected.
    pub const ALL: [Self; 3] = [Self::Tunnel, Self::Inbound, Self::Outbound];

    /// As logs name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
            Self::Tunnel => "tunnel",
        }
    }
}

/// What is done with an accepted connection.
pub trait Serve: Send + Sync + 'static {
    /// Serves `socket` until it ends. Called on the worker that owns the connection from now on;
    /// `peer` is canonical. The future is dropped when [`Pod::drain`] is forced.
    fn serve(
        &self,
        side: Side,
        pod: Arc<Pod>,
        socket: TcpStream,
        peer: SocketAddr,
    ) -> impl Future<Output = ()> + 'static;
}
