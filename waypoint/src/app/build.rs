//! Everything that can fail at the start, tried before anything is served.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use shared::authz::GatewayKey;
use shared::config::Feed;
use shared::feed::{self, dir};
use shared::hbone;
use shared::identity::{self, CertStore};
use shared::mesh;
use shared::process::{self, Background, Failure, Log, Servers};
use shared::ready::Ready;
use shared::telemetry::metrics::Registry;
use shared::telemetry::requests::Requests;
use shared::telemetry::traffic::Traffic;
use shared::workers::{self, Workers};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::cluster::Standings;
use crate::config::Config;
use crate::limits::Limiters;
use crate::metrics::{Faults, Repetitions};
use crate::node::{self, Node};
use crate::upstream::Answers;

/// Tunnels that wait to be accepted.
const BACKLOG: i32 = 1024;

/// A process in which everything is open and nothing is served yet.
pub struct Bound {
    pub(super) config: Config,
    pub(super) log: Log,
    pub(super) ready: Ready,
    pub(super) registry: Registry,
    pub(super) workers: Workers,
    pub(super) feed: dir::Feed,
    pub(super) node: Arc<Node>,
    pub(super) listener: TcpListener,
    pub(super) renewal: Background,
    pub(super) servers: Servers,
    pub(super) names: watch::Sender<Arc<Answers>>,
}

impl fmt::Debug for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bound").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Opens everything that `config` names. Call it inside the control runtime.
///
/// # Errors
/// The first thing that fails; what was opened before is closed again.
pub fn build(config: Config, log: Log) -> Result<Bound, Failure> {
    process::raise_descriptor_limit();
    let servers = Servers::bind(config.servers, &config.process.state)?;
    let listener = listen(config.listen)?;
    let (writer, reader) = mesh::writer();
    let Feed::Dir { mesh } = &config.feed;
    let feed = dir::Feed::start(mesh, feed_options(&config), writer).map_err(Failure::Mesh)?;
    let authority = process::authority(&config.identity)?;
    let (certificates, renewal) = CertStore::new(authority, identity::Config::default());
    let limit = config.process.workers;
    // A tunnel stays on its worker, and the tunnels of a node last: all workers from the start.
    let workers = Workers::start(workers::Config { initial: limit, limit, ..Default::default() })
        .map_err(Failure::Workers)?;
    #[cfg(feature = "mimalloc")]
    shared::allocator::release_regularly(&workers);
    let registry = Registry::default();
    let version = &config.process.istio_version;
    shared::telemetry::process::register(&registry, "waypoint", version, &workers)
        .map_err(Failure::Metrics)?;
    let standings = Standings::default();
    standings.register(&registry).map_err(Failure::Metrics)?;
    let limiters = Limiters::default();
    limiters.register(&registry).map_err(Failure::Metrics)?;
    let (names, resolved) = watch::channel(Arc::<Answers>::default());
    let node = Arc::new(Node {
        config: node_config(&config),
        gateway: GatewayKey {
            namespace: config.gateway.namespace.clone(),
            name: config.gateway.name.clone(),
        },
        mesh: reader,
        names: resolved,
        instances: feed.local_pods(),
        pod: config.pod.clone(),
        certificates,
        standings,
        limiters,
        requests: Requests::new(&registry).map_err(Failure::Metrics)?,
        repetitions: Repetitions::new(&registry).map_err(Failure::Metrics)?,
        faults: Faults::new(&registry).map_err(Failure::Metrics)?,
        traffic: Traffic::new(&registry).map_err(Failure::Metrics)?,
        access: log.access.clone(),
    });
    let ready = Ready::default();
    watch_readiness(&ready, &workers, &node, &feed);
    let renewal: Background = Box::pin(renewal);
    Ok(Bound {
        config,
        log,
        ready,
        registry,
        workers,
        feed,
        node,
        listener,
        renewal,
        servers,
        names,
    })
}

/// Binds beside a process that is about to end, so that a restart refuses nobody.
fn listen(address: SocketAddr) -> Result<TcpListener, Failure> {
    let bind = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    bind().map_err(|source| Failure::Port { address, purpose: "tunnels", flag: "--listen", source })
}

fn feed_options(config: &Config) -> feed::Options {
    feed::Options {
        trust_domain: config.identity.trust_domain.clone(),
        cluster_id: (*config.names.cluster).into(),
        network: (*config.names.network).into(),
        cluster_domain: (*config.names.cluster_domain).into(),
        gateway: Some((config.gateway.namespace.clone(), config.gateway.name.clone())),
        ..Default::default()
    }
}

fn node_config(config: &Config) -> node::Config {
    let tunnel = &config.tunnel;
    let sized = |base: hbone::Config| hbone::Config {
        stream_window_bytes: tunnel.stream_window_bytes,
        connection_window_bytes: tunnel.connection_window_bytes,
        max_frame_bytes: tunnel.max_frame_bytes,
        ..base
    };
    node::Config {
        tunnel_idle: tunnel.idle,
        tunnel_client: hbone::Config {
            max_streams: tunnel.max_streams,
            ..sized(hbone::Config::client())
        },
        tunnel_server: sized(hbone::Config::server()),
        ..Default::default()
    }
}

fn watch_readiness(ready: &Ready, workers: &Workers, node: &Arc<Node>, feed: &dir::Feed) {
    ready.watch(workers.clone());
    let directory = feed.status();
    ready.check(move || match directory.borrow().absent_files {
        0 => Vec::new(),
        absent => vec![format!("mesh directory ({absent} unreadable files)")],
    });
    let node = Arc::clone(node);
    ready.check(move || match node.own(&node.mesh.load()) {
        None => vec!["mesh (no pod of this gateway)".into()],
        Some(own) if node.certificates.latest(&own.identity).is_none() => {
            vec!["certificate".into()]
        }
        Some(_) => Vec::new(),
    });
}
