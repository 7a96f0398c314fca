//! Everything that can fail at the start, tried before anything is served.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use shared::admin::{Listener, listen};
use shared::feed::{self, dir};
use shared::hbone;
use shared::identity::{self, CaClient, CertStore, Files, Token};
use shared::mesh;
use shared::ready::Ready;
use shared::telemetry::metrics::{self, Registry};
use shared::telemetry::{process, traffic::Traffic};
use shared::workers::{self, Workers};

use super::{Log, host};
use crate::config::{self, Authority, Config};
use crate::node::{self, Node};
use crate::pods::{self, Pods};

/// Why the process cannot start: what was tried, where, why not, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A port cannot be listened on.
    #[error("listen on {address} for {purpose} ({flag})")]
    Port {
        /// The address.
        address: SocketAddr,
        /// What it is for.
        purpose: &'static str,
        /// The flag that changes it.
        flag: &'static str,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The state directory cannot be used.
    #[error("use the state directory {} (--state)", path.display())]
    State {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The mesh directory cannot be read.
    #[error("serve the mesh (--mesh)")]
    Mesh(#[source] dir::Error),
    /// The directory of certificates cannot be used.
    #[error("read certificates from {} (--certs)", path.display())]
    Certificates {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The join token cannot be used.
    #[error("use the join token (--join-token)")]
    Join(#[source] identity::Error),
    /// No pod can be served.
    #[error("serve pods")]
    Pods(#[source] pods::registry::StartError),
    /// No data-plane thread can be started.
    #[error("start a data-plane worker")]
    Workers(#[source] io::Error),
    /// A metric is registered twice: a mistake of ours.
    #[error("register metrics")]
    Metrics(#[source] metrics::Error),
}

impl Failure {
    /// What the operator can do.
    pub fn advice(&self) -> Option<String> {
        match self {
            Self::Port { address, flag, source, .. } if source.kind() == io::ErrorKind::AddrInUse => Some(format!(
                "another program has port {}: find it with `ss -ltnp sport = :{0}`, or choose another port with {flag}",
                address.port()
            )),
            Self::Port { flag, .. } => Some(format!("choose another address with {flag}")),
            Self::State { source, .. } => Some(state_advice(source).into()),
            Self::Certificates { .. } => {
                Some("it must hold root-cert.pem and ns/<namespace>/sa/<service account>/{cert-chain,key}.pem".into())
            }
            Self::Join(_) => Some("print one with `ztunnel ca token NODE`, keep it in a file of mode 0600".into()),
            Self::Mesh(_) => Some("`ztunnel check DIR` says what of a mesh directory is in force".into()),
            Self::Pods(_) | Self::Workers(_) | Self::Metrics(_) => None,
        }
    }
}

/// What the operator can do about a state directory.
pub(super) fn state_advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "free some space there, or give another directory with --state DIR"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            "it is on a read-only file system: give another directory with --state DIR"
        }
        _ => "give a writable directory of this user with --state DIR",
    }
}

/// Work that lasts as long as the process.
pub(super) type Background = Pin<Box<dyn Future<Output = ()> + Send>>;

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

/// The listeners of the administrative servers.
pub(super) struct Servers {
    pub(super) admin: Listener,
    pub(super) owner: Listener,
    pub(super) stats: Listener,
    pub(super) ready: Listener,
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
    host::raise_descriptor_limit();
    let servers = bind(&config)?;
    let (writer, reader) = mesh::writer();
    let config::Feed::Dir { mesh } = &config.feed;
    let feed = dir::Feed::start(mesh, feed_options(&config), writer).map_err(Failure::Mesh)?;
    let authority = authority(&config.identity)?;
    let (certificates, renewal) = CertStore::new(authority, identity::Config::default());
    let limit = config.process.workers;
    let workers = Workers::start(workers::Config { limit, ..Default::default() })
        .map_err(Failure::Workers)?;
    let registry = Registry::default();
    process::register(&registry, "ztunnel", &config.process.istio_version, &workers)
        .map_err(Failure::Metrics)?;
    let node = Arc::new(Node {
        config: node_config(&config),
        mesh: reader,
        certificates: certificates.clone(),
        traffic: Traffic::new(&registry).map_err(Failure::Metrics)?,
        access: log.access.clone(),
    });
    let pods =
        Pods::new(pods_config(&config), workers.clone(), certificates, Arc::new(node.clone()))
            .map_err(Failure::Pods)?;
    registry.register_all(pods.status().collectors()).map_err(Failure::Metrics)?;
    let ready = Ready::default();
    watch_readiness(&ready, &workers, &pods.status(), &feed);
    let renewal: Background = Box::pin(renewal);
    Ok(Bound { config, log, ready, registry, workers, feed, node, pods, renewal, servers })
}

fn bind(config: &Config) -> Result<Servers, Failure> {
    let port = |address, purpose, flag| {
        listen::tcp(address).map_err(|source| Failure::Port { address, purpose, flag, source })
    };
    let path = &config.process.state;
    let state = |source| Failure::State { path: path.clone(), source };
    host::private_directory(path).map_err(state)?;
    Ok(Servers {
        admin: port(config.servers.admin, "administration", "--admin")?,
        stats: port(config.servers.stats, "statistics", "--stats")?,
        ready: port(config.servers.ready, "readiness", "--ready")?,
        // Last, because it takes the place of another process's.
        owner: listen::unix(&socket_path(path)).map_err(state)?,
    })
}

/// Where the administrative socket is.
pub(super) fn socket_path(state: &Path) -> PathBuf {
    state.join("admin.sock")
}

fn authority(identity: &config::Identity) -> Result<Arc<dyn identity::Authority>, Failure> {
    match &identity.authority {
        Authority::Files { certs } => Files::open(certs)
            .map(|files| Arc::new(files) as _)
            .map_err(|source| Failure::Certificates { path: certs.clone(), source }),
        Authority::Ca { address, join_token } => {
            CaClient::new(address, Token::File(join_token.clone()), identity.trust_domain.clone())
                .map(|client| Arc::new(client) as _)
                .map_err(Failure::Join)
        }
    }
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
