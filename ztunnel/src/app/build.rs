//! Everything that can fail at the start, tried before anything is served.

use std::fmt;
use std::sync::Arc;

use shared::config::Feed;
use shared::feed::{self, dir};
use shared::hbone;
use shared::identity::{self, CertStore};
use shared::mesh;
use shared::process::{self, Background, Log, Servers};
use shared::ready::Ready;
use shared::telemetry::metrics::{self, Registry};
use shared::telemetry::traffic::Traffic;
use shared::workers::{self, Workers};

use crate::config::Config;
use crate::node::handover::Handover;
use crate::node::{self, Node};
use crate::pods::{self, Pods, Served};

/// Why the process cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// For a reason that any process of ours may have.
    #[error(transparent)]
    Process(#[from] process::Failure),
    /// No pod can be served.
    #[error("serve pods")]
    Pods(#[source] pods::registry::StartError),
}

impl Failure {
    /// What the operator can do.
    pub fn advice(&self) -> Option<String> {
        match self {
            Self::Process(failure) => failure.advice(),
            Self::Pods(_) => None,
        }
    }
}

/// A process in which everything is open and nothing is served yet.
pub struct Bound {
    pub(super) config: Config,
    pub(super) log: Log,
    pub(super) ready: Ready,
    pub(super) registry: Registry,
    pub(super) workers: Workers,
    pub(super) feed: dir::Feed,
    pub(super) node: Arc<Node>,
    pub(super) pods: Pods<Arc<Node>>,
    pub(super) renewal: Background,
    pub(super) servers: Servers,
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
    let (writer, reader) = mesh::writer();
    let Feed::Dir { mesh } = &config.feed;
    let feed =
        dir::Feed::start(mesh, feed_options(&config), writer).map_err(process::Failure::Mesh)?;
    let authority = process::authority(&config.identity)?;
    let (certificates, renewal) = CertStore::new(authority, identity::Config::default());
    let limit = config.process.workers;
    let workers = Workers::start(workers::Config { limit, ..Default::default() })
        .map_err(process::Failure::Workers)?;
    #[cfg(feature = "mimalloc")]
    shared::allocator::release_regularly(&workers);
    let registry = Registry::default();
    shared::telemetry::process::register(
        &registry,
        "ztunnel",
        &config.process.istio_version,
        &workers,
    )
    .map_err(process::Failure::Metrics)?;
    let served = Served::default();
    let handover = handover(&config, &served, &registry).map_err(process::Failure::Metrics)?;
    let node = Arc::new(Node {
        config: node_config(&config),
        mesh: reader,
        certificates: certificates.clone(),
        traffic: Traffic::new(&registry).map_err(process::Failure::Metrics)?,
        access: log.access.clone(),
        handover,
    });
    let serve = Arc::new(node.clone());
    let pods = Pods::new(pods_config(&config), workers.clone(), certificates, serve, served)
        .map_err(Failure::Pods)?;
    registry.register_all(pods.status().collectors()).map_err(process::Failure::Metrics)?;
    let ready = Ready::default();
    watch_readiness(&ready, &workers, &pods.status(), &feed);
    let renewal: Background = Box::pin(renewal);
    Ok(Bound { config, log, ready, registry, workers, feed, node, pods, renewal, servers })
}

fn feed_options(config: &Config) -> feed::Options {
    feed::Options {
        trust_domain: config.identity.trust_domain.clone(),
        cluster_id: (*config.names.cluster).into(),
        network: (*config.names.network).into(),
        cluster_domain: (*config.names.cluster_domain).into(),
        node: config.node.as_deref().map(Into::into),
        pod: dedicated(config),
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
        // Without capture nothing brings replies to a foreign source address back.
        keep_source: config.dedicated.is_none(),
        tunnel_idle: tunnel.idle,
        tunnel_client: hbone::Config {
            max_streams: tunnel.max_streams,
            ..sized(hbone::Config::client())
        },
        tunnel_server: sized(hbone::Config::server()),
        ..Default::default()
    }
}

/// Hand-over between the pods that are `served`, if it is wanted.
fn handover(
    config: &Config,
    served: &Served,
    registry: &Registry,
) -> Result<Option<Handover>, metrics::Error> {
    if !config.same_node_handover {
        return Ok(None);
    }
    let handover = Handover::new(served.clone());
    registry.register_all(vec![Box::new(handover.connections.clone())])?;
    Ok(Some(handover))
}

fn pods_config(config: &Config) -> pods::Config {
    pods::Config {
        trust_domain: config.identity.trust_domain.clone(),
        dedicated: dedicated(config),
        limits: config.pods,
        sockets: config.sockets,
        ..Default::default()
    }
}

/// Namespace and name of the one pod to serve.
fn dedicated(config: &Config) -> Option<(Arc<str>, Arc<str>)> {
    config.dedicated.as_ref().map(|pod| ((*pod.namespace).into(), (*pod.name).into()))
}

fn watch_readiness(ready: &Ready, workers: &Workers, pods: &pods::Status, feed: &dir::Feed) {
    ready.watch(workers.clone());
    let served = pods.ready();
    ready.check(
        move || if *served.borrow() { Vec::new() } else { vec!["workload proxy manager".into()] },
    );
    let directory = feed.status();
    ready.check(move || match directory.borrow().absent_files {
        0 => Vec::new(),
        absent => vec![format!("mesh directory ({absent} unreadable files)")],
    });
}
