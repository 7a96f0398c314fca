//! Connections to endpoints: HTTP/1.1 and HTTP/2, over HBONE or plain.
//!
//! Invariants: an endpoint in the mesh is reached over HBONE only; a connection carries the requests
//! of one client address, so that the application can be shown it; nothing here leaves its worker.
//! Not here: which endpoint (`request::attempt`), what a failure means (`outcome`).
//! Source: spec L7 §1.6.

mod clusters;
mod dial;
mod io;
mod life;
mod names;
mod pool;
mod resting;
mod secured;
mod upgraded;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use shared::hbone::Pool;
use shared::identity::SpiffeId;
use shared::mesh::{AppProtocol, Mesh, Protocol, Upgrade, Workload};
use shared::tls::PeerId;

pub use self::dial::Error;
pub(crate) use self::dial::{Way, connect};
pub(crate) use self::io::Io;
pub use self::names::Answers;
pub(crate) use self::names::keep_resolving;
pub use self::pool::SendError;
pub(crate) use self::pool::{Failed, Lease, Sent, send};
pub(crate) use self::resting::Reuse;
pub(crate) use self::secured::{Secured, Speaks};
pub(crate) use self::upgraded::Upgraded;

use crate::cluster::{Aim, Cluster, Standing};
use crate::node::Config;
use crate::tunnel::Client;

/// The port of every ztunnel for tunnels.
const HBONE_PORT: u16 = 15008;

/// The connections of one worker.
pub struct Upstream {
    tunnels: Pool<TunnelKey, PeerId, Error>,
    pool: Rc<pool::Connections>,
    clusters: clusters::Clusters,
    giving_way: RefCell<Vec<GivingWay>>,
}

/// A task that ends with this.
struct GivingWay {
    standing: Arc<Standing>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for GivingWay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Tunnels to one address, and who may answer there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct TunnelKey {
    source: SpiffeId,
    expected: Vec<SpiffeId>,
    address: SocketAddr,
}

/// What an endpoint is spoken to in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Version {
    Http1,
    Http2,
}

/// An endpoint of a service, or a workload that was asked for by its address.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    pub(crate) workload: Arc<Workload>,
    /// Its identity as text.
    pub(crate) identity: Arc<str>,
    /// The application's socket.
    pub(crate) address: SocketAddr,
    /// Whether it is reached through a tunnel.
    pub(crate) tunnel: bool,
    /// The TLS that the application speaks.
    pub(crate) secured: Option<Secured>,
}

impl Upstream {
    /// No connections yet.
    pub fn new(config: &Config) -> Self {
        Self {
            tunnels: Pool::with_idle_timeout(config.tunnel_client.clone(), config.tunnel_idle),
            pool: Rc::new(pool::Connections::new(config.upstream_idle)),
            clusters: clusters::Clusters::default(),
            giving_way: RefCell::default(),
        }
    }

    /// Closes connections that have rested too long, and forgets what belongs to an older mesh.
    pub fn sweep(&self, mesh: &Mesh) {
        self.pool.sweep();
        self.clusters.sweep(mesh);
        self.giving_way.borrow_mut().retain(|one| !one.standing.is_retired());
    }

    /// Takes what names stand for from now on.
    pub(crate) fn learn(&self, names: Arc<Answers>) {
        self.clusters.learn(names);
    }

    /// What `aim` means, with the endpoints that `client` may be led to.
    pub(crate) fn cluster(&self, mesh: &Mesh, client: &Client, aim: Aim<'_>) -> Rc<Cluster> {
        self.clusters.get(mesh, client, aim, client.address.ip())
    }

    /// From now on connections of this worker that rest make room for those that others want.
    fn give_way(&self, standing: &Arc<Standing>) {
        let mut all = self.giving_way.borrow_mut();
        if all.iter().any(|one| Arc::ptr_eq(&one.standing, standing)) {
            return;
        }
        let (circuit, pool) = (Arc::clone(&standing.circuit), Rc::downgrade(&self.pool));
        let task = tokio::task::spawn_local(async move {
            let let_go = || pool.upgrade().is_some_and(|pool| pool.let_go(&circuit));
            circuit.give_way(let_go).await;
        });
        all.push(GivingWay { standing: Arc::clone(standing), task });
    }
}

impl Endpoint {
    /// `workload` at one of its addresses.
    pub(crate) fn new(workload: Arc<Workload>, address: SocketAddr) -> Self {
        let tunnel = workload.protocol == Protocol::Hbone;
        let identity = workload.identity.to_string().into();
        Self { workload, identity, address, tunnel, secured: None }
    }
}

impl Version {
    /// What a port speaks; `client` is what the client speaks, for ports that do not say.
    pub(crate) fn of(protocol: AppProtocol, client: http::Version, upgrade: Upgrade) -> Self {
        match protocol {
            _ if upgrade == Upgrade::Http2 => Self::Http2,
            _ if upgrade == Upgrade::Client && client == http::Version::HTTP_2 => Self::Http2,
            _ if upgrade == Upgrade::Client => Self::Http1,
            AppProtocol::Http2 | AppProtocol::Grpc => Self::Http2,
            AppProtocol::Http11 => Self::Http1,
            _ if client == http::Version::HTTP_2 => Self::Http2,
            _ => Self::Http1,
        }
    }
}

/// Spawns on the worker that it is used on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LocalExecutor;

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future<Output: 'static> + 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}
