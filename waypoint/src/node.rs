//! What every connection of this process shares, and the part of it that one worker owns.
//!
//! Invariants: [`Node`] is shared and never changes; everything that a request touches is in
//! [`OnWorker`], which never leaves its thread.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use shared::authz::GatewayKey;
use shared::balance::Loads;
use shared::feed::LocalPod;
use shared::hbone;
use shared::identity::CertStore;
use shared::mesh::{Mesh, Reader, Workload};
use shared::telemetry::requests::{self, Requests};
use shared::telemetry::{access, traffic};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::cluster::{Cluster, Standings};
use crate::limits::Limiters;
use crate::metrics::{Faults, Repetitions};
use crate::permits;
use crate::resilience::budget::Budgets;
use crate::router::Router;
use crate::upstream::{Answers, Endpoint, Upstream};

/// How connections behave.
#[derive(Debug, Clone)]
pub struct Config {
    /// How long a certificate may take at the start. 5 s.
    pub start_patience: Duration,
    /// How long a TCP connect to an endpoint may take. 10 s, as Istio's mesh default.
    pub connect_timeout: Duration,
    /// How long a TLS handshake may take, on either side. 10 s.
    pub handshake_timeout: Duration,
    /// How long the head of a request may take from its first byte on. 60 s; without a limit, slow
    /// senders pile up.
    pub head_timeout: Duration,
    /// How long a client's connection may rest between two requests. 1 h, as Istio's default; shorter
    /// surprises clients that keep connections as long as their servers do.
    pub client_idle: Duration,
    /// How long a client may be silent on a port without a known protocol before the server is asked
    /// for the first word. 50 ms; longer delays server-first protocols, shorter dials in vain.
    pub silence: Duration,
    /// How long a client's connection that rests may still ask while we end; then it is closed. 2 s;
    /// shorter meets requests that were just sent, longer than the drain cuts them.
    pub drain_rest: Duration,
    /// How long a client may stop within what may become the first line of a request, before it is
    /// decided what that is. 5 s; longer delays what only begins like HTTP, shorter lets slow clients
    /// decide.
    pub sniff_patience: Duration,
    /// Largest head of a request or response. 60 KiB, as Envoy's default.
    pub max_head_bytes: usize,
    /// Most headers of a request or response. 100, as Envoy's default.
    pub max_headers: usize,
    /// Requests at a time on one HTTP/2 connection of a client. 1,000.
    pub max_streams: u32,
    /// How long a connection to an endpoint may rest before it is closed. 60 s; longer meets more
    /// applications that have just closed it themselves.
    pub upstream_idle: Duration,
    /// Connections to one endpoint that may rest. 64; more are closed after their request.
    pub upstream_idle_connections: usize,
    /// Requests at a time on one HTTP/2 connection to an endpoint. 100.
    pub upstream_streams: usize,
    /// How long a tunnel that nobody uses stays open. 5 min.
    pub tunnel_idle: Duration,
    /// Settings of the tunnels that we open.
    pub tunnel_client: hbone::Config,
    /// Settings of the tunnels that we accept.
    pub tunnel_server: hbone::Config,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            start_patience: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(10),
            head_timeout: Duration::from_secs(60),
            client_idle: Duration::from_secs(3600),
            silence: Duration::from_millis(50),
            drain_rest: Duration::from_secs(2),
            sniff_patience: Duration::from_secs(5),
            max_head_bytes: 60 << 10,
            max_headers: 100,
            max_streams: 1_000,
            upstream_idle: Duration::from_secs(60),
            upstream_idle_connections: 64,
            upstream_streams: 100,
            tunnel_idle: Duration::from_secs(300),
            tunnel_client: hbone::Config::client(),
            tunnel_server: hbone::Config::server(),
        }
    }
}

/// What all workers share.
#[derive(Clone)]
pub struct Node {
    /// How connections behave.
    pub config: Config,
    /// The Gateway that is served.
    pub gateway: GatewayKey,
    /// The mesh.
    pub mesh: Reader,
    /// What the names of applications outside the mesh stand for.
    pub names: watch::Receiver<Arc<Answers>>,
    /// The pods that are instances of the Gateway served here.
    pub instances: watch::Receiver<Arc<Vec<LocalPod>>>,
    /// Which of them this process is, where it was told.
    pub pod: Option<Box<str>>,
    /// Our certificate.
    pub certificates: CertStore,
    /// Destinations with a rule.
    pub standings: Standings,
    /// Rate limits.
    pub limiters: Limiters,
    /// Counters of requests.
    pub requests: Requests,
    /// Counters of requests that were sent again, or not.
    pub repetitions: Repetitions,
    /// Counters of failures that were made on purpose.
    pub faults: Faults,
    /// Counters of what is not HTTP.
    pub traffic: traffic::Traffic,
    /// Where finished requests and connections are told.
    pub access: access::Log,
}

/// The part of a node that one worker owns.
pub struct OnWorker {
    /// The shared part.
    pub node: Arc<Node>,
    /// How loaded endpoints are, as this worker sees it.
    pub loads: Loads,
    /// Who waits for a change of policies.
    pub permits: permits::Table,
    /// Compiled routes.
    pub router: Router,
    /// Connections to endpoints.
    pub upstream: Upstream,
    /// How many requests may be sent again.
    pub budgets: Budgets,
    /// Counters of requests.
    pub requests: requests::OnWorker,
    /// Counters of what is not HTTP.
    pub traffic: traffic::OnWorker,
}

thread_local! {
    /// One per node; a process has one, tests have several.
    static HERE: RefCell<Vec<Rc<OnWorker>>> = const { RefCell::new(Vec::new()) };
}

impl Node {
    /// The workload that we are; none until the mesh has a pod of the Gateway. Instances of one
    /// Gateway share their identity, so without a name any of them will do.
    pub fn own(&self, mesh: &Mesh) -> Option<Arc<Workload>> {
        let instances = self.instances.borrow();
        let named = |one: &&LocalPod| self.pod.as_deref() == Some(&*one.name);
        let own = instances.iter().find(named).or_else(|| instances.first())?;
        mesh.workload(&own.uid).cloned()
    }

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
            permits: permits::Table::default(),
            router: Router::default(),
            upstream: Upstream::new(&node.config),
            budgets: Budgets::default(),
            requests: node.requests.on_worker(),
            traffic: node.traffic.on_worker(),
            node,
        });
        tokio::task::spawn_local(keep_tidy(Rc::downgrade(&part)));
        tokio::task::spawn_local(permits::keep_deciding(Rc::downgrade(&part)));
        tokio::task::spawn_local(keep_learning(Rc::downgrade(&part)));
        part
    }

    /// A cluster of one endpoint, without rules.
    pub(crate) fn alone(&self, endpoint: Endpoint) -> Rc<Cluster> {
        Cluster::alone(endpoint, &self.loads)
    }

    /// How connections behave.
    pub fn config(&self) -> &Config {
        &self.node.config
    }
}

/// Makes the numbers of this worker visible, and closes connections that have rested too long.
async fn keep_tidy(part: std::rc::Weak<OnWorker>) {
    loop {
        tokio::time::sleep(traffic::FLUSH_EVERY).await;
        let Some(part) = part.upgrade() else { return };
        part.requests.flush();
        part.traffic.flush();
        let mesh = part.node.mesh.load();
        part.node.standings.prune(&mesh);
        part.node.limiters.tidy(&mesh, Instant::now());
        part.upstream.sweep(&mesh);
        part.budgets.sweep(Instant::now());
    }
}

/// Takes over what names stand for, so that requests need not look beyond their worker.
async fn keep_learning(part: std::rc::Weak<OnWorker>) {
    let Some(mut names) = part.upgrade().map(|part| part.node.names.clone()) else { return };
    loop {
        {
            let Some(part) = part.upgrade() else { return };
            let answers = Arc::clone(&names.borrow_and_update());
            part.upstream.learn(answers);
        }
        if names.changed().await.is_err() {
            return;
        }
    }
}
