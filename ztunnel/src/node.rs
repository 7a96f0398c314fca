//! What every connection of this process shares, and the part of it that one worker owns.
//!
//! Invariants: [`Node`] is shared and never changes; everything that a connection touches on its byte
//! path is in [`OnWorker`], which never leaves its thread.
//! Not here: which pods there are (`pods`), what happens on a connection (`outbound`, `inbound`).

pub mod handover;
pub mod live;
pub mod permits;
pub(crate) mod pools;

use std::cell::RefCell;
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use shared::balance::Loads;
use shared::identity::CertStore;
use shared::mesh::{Reader, Workload};
use shared::telemetry::{access, traffic};
use tokio::net::TcpStream;

use crate::pods::{Pod, Serve, Side};
use crate::{inbound, outbound};

/// How connections behave. The defaults are Istio ztunnel's.
#[derive(Debug, Clone)]
pub struct Config {
    /// How long a connection of a new pod waits for its workload to appear in the mesh, and for its
    /// certificate. 5 s; shorter refuses connections while a pod starts.
    pub start_patience: Duration,
    /// How long a TCP connect may take. 10 s.
    pub connect_timeout: Duration,
    /// How long a TLS handshake may take. 10 s; Istio ztunnel has no limit, so silent peers pile up.
    pub handshake_timeout: Duration,
    /// Whether an accepted tunnel tells the client who serves it. True.
    pub response_baggage: bool,
    /// Whether an application that takes PROXY headers is reached over loopback. True.
    pub loopback_app_tunnel: bool,
    /// Whether the application sees the client's address. True.
    pub keep_source: bool,
    /// How long a tunnel that nobody uses stays open. 5 min; shorter costs handshakes.
    pub tunnel_idle: Duration,
    /// Settings of the tunnels that we open.
    pub tunnel_client: shared::hbone::Config,
    /// Settings of the tunnels that we accept.
    pub tunnel_server: shared::hbone::Config,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            start_patience: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(10),
            response_baggage: true,
            loopback_app_tunnel: true,
            keep_source: true,
            tunnel_idle: Duration::from_secs(300),
            tunnel_client: shared::hbone::Config::client(),
            tunnel_server: shared::hbone::Config::server(),
        }
    }
}

/// What all workers share.
#[derive(Clone)]
pub struct Node {
    /// How connections behave.
    pub config: Config,
    /// The mesh.
    pub mesh: Reader,
    /// The certificates of the pods.
    pub certificates: CertStore,
    /// Counters of traffic.
    pub traffic: traffic::Traffic,
    /// Where finished connections are told.
    pub access: access::Log,
    /// Hand-over between the pods of this process; none where all goes through tunnels.
    pub handover: Option<handover::Handover>,
}

/// The part of a node that one worker owns.
pub struct OnWorker {
    /// The shared part.
    pub node: Arc<Node>,
    /// How loaded endpoints are, as this worker sees it.
    pub loads: Loads,
    /// Counters of this worker.
    pub traffic: traffic::OnWorker,
    /// Connections that are open.
    pub live: live::Table,
    /// Inbound connections whose permit is watched.
    pub permits: permits::Table,
    /// What pods of this process have proved to each other.
    pub proofs: handover::Proofs,
    pools: pools::Pools,
}

thread_local! {
    /// One per node; a process has one, tests have several.
    static HERE: RefCell<Vec<Rc<OnWorker>>> = const { RefCell::new(Vec::new()) };
}

impl Node {
    /// This worker's part. Call it on a worker: the first call starts the worker's own tasks.
    pub fn on_worker(self: &Arc<Self>) -> Rc<OnWorker> {
        let known = HERE
            .with_borrow(|all| all.iter().find(|one| Arc::ptr_eq(&one.node, self)).map(Rc::clone));
        known.unwrap_or_else(|| {
            let part = OnWorker::start(Arc::clone(self));
            HERE.with_borrow_mut(|all| all.push(Rc::clone(&part)));
            part
        })
    }
}

impl OnWorker {
    fn start(node: Arc<Node>) -> Rc<Self> {
        let part = Rc::new(Self {
            loads: Loads::default(),
            traffic: node.traffic.on_worker(),
            live: live::Table::default(),
            permits: permits::Table::default(),
            proofs: handover::Proofs::default(),
            pools: pools::Pools::default(),
            node,
        });
        tokio::task::spawn_local(keep_reporting(Rc::downgrade(&part)));
        tokio::task::spawn_local(permits::keep_deciding(Rc::downgrade(&part)));
        part
    }

    /// How connections behave.
    pub fn config(&self) -> &Config {
        &self.node.config
    }

    /// The pool of tunnels that `pod` opened on this worker.
    pub(crate) fn pool(&self, pod: &Arc<Pod>) -> pools::TunnelPool {
        self.pools.of(pod, &self.node.config)
    }

    /// The pod's workload, waiting a while for a pod that is still new to the mesh.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn workload(&self, pod: &Pod) -> Option<Arc<Workload>> {
        let find = || self.here(pod);
        if let Some(workload) = find() {
            return Some(workload);
        }
        let mut changed = self.node.mesh.changed();
        let appear = async {
            loop {
                changed.borrow_and_update();
                match find() {
                    Some(workload) => return Some(workload),
                    None => changed.changed().await.ok()?,
                }
            }
        };
        tokio::time::timeout(self.config().start_patience, appear).await.ok().flatten()
    }

    /// Whether the pod was in the mesh, and is no longer.
    pub fn has_left(&self, pod: &Pod) -> bool {
        self.here(pod).is_none() && pod.known.load(Ordering::Relaxed)
    }

    /// The pod's workload, if the mesh has it.
    pub fn here(&self, pod: &Pod) -> Option<Arc<Workload>> {
        let workload = self.node.mesh.load().workload(&pod.uid).cloned();
        // A write would take the line away from the other workers, for nothing most of the time.
        if workload.is_some() && !pod.known.load(Ordering::Relaxed) {
            pod.known.store(true, Ordering::Relaxed);
        }
        workload
    }
}

/// Makes the bytes of lasting connections visible.
async fn keep_reporting(part: std::rc::Weak<OnWorker>) {
    loop {
        tokio::time::sleep(traffic::FLUSH_EVERY).await;
        let Some(part) = part.upgrade() else { return };
        part.live.report();
        part.traffic.flush();
    }
}

impl Serve for Arc<Node> {
    fn serve(
        &self,
        side: Side,
        pod: Arc<Pod>,
        socket: TcpStream,
        peer: SocketAddr,
    ) -> impl Future<Output = ()> + 'static {
        let node = Self::clone(self);
        async move {
            let part = node.on_worker();
            match side {
                Side::Outbound => outbound::serve(part, pod, socket, peer).await,
                Side::Inbound => inbound::serve_plaintext(part, pod, socket, peer).await,
                // Boxed: of the three it is the largest and the rarest.
                Side::Tunnel => Box::pin(inbound::serve_tunnel(part, pod, socket, peer)).await,
            }
        }
    }
}
