//! What the operator wants: flags, then `CULVERT_` variables, then Istio's, then defaults.
//!
//! Invariants: all mistakes are found at once and before anything is bound; nothing but this module
//! reads the environment; nothing in here is secret (tokens and keys are files, named by path).

mod settings;
mod source;
mod value;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use shared::drain;
use shared::identity::TrustDomain;
use shared::telemetry::Format;

use crate::pods::share::Limits;
use crate::redirect::{KeepSource, Keepalive, sockets};

pub use self::settings::{CA, RUN, Setting};
pub use self::source::{Environment, Given, ProcessEnvironment, Source};

/// Everything that `ztunnel run` goes by; shown in `/config_dump`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// Where the picture of the mesh comes from. Without it nothing is known and nothing served.
    pub feed: Feed,
    /// Name of this node, as `spec.nodeName` has it. `None` only in dedicated mode. A wrong name
    /// makes the node's pods invisible.
    pub node: Option<Box<str>>,
    /// Who the pods are.
    pub identity: Identity,
    /// The process.
    pub process: Process,
    /// Administrative servers.
    pub servers: Servers,
    /// Serve this one pod, in the namespace of the process, instead of the pods of the node.
    pub dedicated: Option<PodRef>,
    /// What one pod may take of the node.
    pub pods: Limits,
    /// Names of this part of the mesh.
    pub names: Names,
    /// Limits of tunnels.
    pub tunnel: Tunnel,
    /// Sockets in the pods.
    pub sockets: sockets::Options,
}

/// A source of objects.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Feed {
    /// A mesh directory.
    Dir {
        /// The directory.
        mesh: PathBuf,
    },
}

/// Identities and who vouches for them.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// First part of every identity; default `cluster.local`. Peers of another one are refused.
    pub trust_domain: TrustDomain,
    /// Where certificates come from.
    pub authority: Authority,
}

/// Where certificates come from.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Authority {
    /// A certificate service.
    #[serde(rename_all = "camelCase")]
    Ca {
        /// `host:port`.
        address: Box<str>,
        /// File with this node's join token; only its owner may read it.
        join_token: PathBuf,
    },
    /// Files on disk.
    Files {
        /// The directory.
        certs: PathBuf,
    },
}

/// How the process runs.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    /// Upper limit of data-plane threads, at least 1; default all CPUs. One is started, more join
    /// under load. Above the CPUs they only take turns.
    pub workers: usize,
    /// Directory for the administrative socket, mode 0700; default `/var/lib/culvert`. Two
    /// processes may share it only while one takes over from the other.
    pub state: PathBuf,
    /// How long connections may take to finish at the end; default 5 s, or derived from
    /// `TERMINATION_GRACE_PERIOD_SECONDS`. Longer than the grace period means cut by SIGKILL.
    pub drain: Duration,
    /// Filter of the log, in the form of `RUST_LOG`; default `info`.
    pub log: Box<str>,
    /// Form of the log.
    pub log_format: Format,
    /// The version that `istio_build` shows; default `unknown`.
    pub istio_version: Box<str>,
}

/// Where the administrative servers listen.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Servers {
    /// Read-only administration; must be loopback. Default `127.0.0.1:15000`.
    pub admin: SocketAddr,
    /// Statistics; default `127.0.0.1:15020`, in Kubernetes `[::]:15020`.
    pub stats: SocketAddr,
    /// Readiness; default `[::]:15021`, so that a kubelet reaches it.
    pub ready: SocketAddr,
}

/// A pod by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodRef {
    /// Namespace.
    pub namespace: Box<str>,
    /// Name.
    pub name: Box<str>,
}

/// Names of this part of the mesh.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Names {
    /// Network of everything in the mesh directory that names none; default the empty one.
    pub network: Box<str>,
    /// Cluster; default `Kubernetes`.
    pub cluster: Box<str>,
    /// Suffix of service names; default `cluster.local`.
    pub cluster_domain: Box<str>,
}

/// Limits of tunnels. Defaults are those of Istio's ztunnel.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Tunnel {
    /// What a peer may send on a stream before it is read; 64 KiB to 2 GiB, default 4 MiB. Memory
    /// of a stalled connection against throughput of a distant one.
    pub stream_window_bytes: u32,
    /// The same for a whole tunnel; must be larger, or one unread stream stops all. Default 16 MiB.
    pub connection_window_bytes: u32,
    /// Largest frame; 16 KiB to 16 MiB − 1, default 1 MiB.
    pub max_frame_bytes: u32,
    /// Connections in one tunnel; 1 to 10,000, default 100. More share one TCP connection's fate.
    pub max_streams: u32,
    /// An unused tunnel is closed after this; default 5 min. Short ones cost handshakes.
    pub idle: Duration,
}

/// One mistake: where, what, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// A value cannot be used.
    #[error("{origin}: {value:?} {reason}")]
    Value {
        /// The flag or variable that was given.
        origin: String,
        /// What was given.
        value: String,
        /// Why it cannot be used, and what can.
        reason: String,
    },
    /// Something that is needed was not given.
    #[error("{flag} is missing (or {variable}): {reason}")]
    Missing {
        /// The flag.
        flag: String,
        /// The variable.
        variable: &'static str,
        /// What it is needed for.
        reason: &'static str,
    },
    /// Two things that exclude each other were given.
    #[error("{one} and {other} exclude each other: {reason}")]
    Conflict {
        /// The first.
        one: String,
        /// The second.
        other: String,
        /// Why.
        reason: &'static str,
    },
}

impl Config {
    /// Reads everything, or says everything that is wrong.
    ///
    /// # Errors
    /// All mistakes, in the order of the settings.
    pub fn parse(source: &impl Source) -> Result<Self, Vec<ParseError>> {
        let mut read = value::Reader::new(source);
        let mesh = read.path(settings::MESH);
        let dedicated = read.dedicated();
        let node = read.text(settings::NODE).map(|(_, node)| node.into_boxed_str());
        read.feed_kind();
        if mesh.is_none() {
            read.missing(settings::MESH, "a directory of Kubernetes YAML says what the mesh is");
        }
        if node.is_none() && dedicated.is_none() {
            read.missing(
                settings::NODE,
                "the pods of this node are served, so it must have a name",
            );
        }
        let identity = read.identity();
        let process = Process {
            workers: read.workers(),
            state: read.path(settings::STATE).unwrap_or_else(|| "/var/lib/culvert".into()),
            drain: read.termination(drain::termination_deadline),
            log: read.variable_or("RUST_LOG", "info"),
            log_format: read.log_format(),
            istio_version: read.variable_or("ISTIO_META_ISTIO_VERSION", "unknown"),
        };
        let sockets = sockets(&mut read);
        let servers = servers(&mut read, sockets.ipv6);
        let pods = read.pod_limits();
        let names = Names {
            network: read.variable_or("NETWORK", ""),
            cluster: read.cluster(),
            cluster_domain: read.variable_or("CLUSTER_DOMAIN", "cluster.local"),
        };
        let tunnel = tunnel(&mut read);
        read.refuse_tls12();
        let errors = read.into_errors();
        match (mesh, identity) {
            (Some(mesh), Some(identity)) if errors.is_empty() => {
                let feed = Feed::Dir { mesh };
                Ok(Self {
                    feed,
                    node,
                    identity,
                    process,
                    servers,
                    dedicated,
                    pods,
                    names,
                    tunnel,
                    sockets,
                })
            }
            _ => Err(errors),
        }
    }
}

/// What was given and has no effect: unknown `CULVERT_` variables, and variables of Istio's ztunnel
/// that would change something here if they were understood.
pub fn warnings(source: &impl Source) -> Vec<String> {
    settings::without_effect(source)
}

fn servers<S: Source>(read: &mut value::Reader<'_, S>, ipv6: bool) -> Servers {
    let all: IpAddr =
        if ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let stats = if read.in_kubernetes() { all } else { loopback };
    Servers {
        admin: read.loopback(settings::ADMIN, SocketAddr::new(loopback, 15000)),
        stats: read.address(settings::STATS, SocketAddr::new(stats, 15020)),
        ready: read.address(settings::READY, SocketAddr::new(all, 15021)),
    }
}

fn sockets<S: Source>(read: &mut value::Reader<'_, S>) -> sockets::Options {
    let usual = Keepalive::default();
    let keepalive = Keepalive {
        time: read.seconds("KEEPALIVE_TIME", usual.time),
        interval: read.seconds("KEEPALIVE_INTERVAL", usual.interval),
        // Linux: MAX_TCP_KEEPCNT.
        retries: read.number("KEEPALIVE_RETRIES", 1..=127, usual.retries),
    };
    let Keepalive { time, interval, retries } = keepalive;
    sockets::Options {
        keepalive: read.flag("KEEPALIVE_ENABLED").unwrap_or(true).then_some(keepalive),
        user_timeout: read
            .flag("USER_TIMEOUT_ENABLED")
            .unwrap_or(false)
            .then(|| time + interval * retries),
        ipv6: read.flag("IPV6_ENABLED").unwrap_or(true),
        keep_source: match read.flag("ENABLE_ORIG_SRC") {
            None => KeepSource::IfPermitted,
            Some(true) => KeepSource::Required,
            Some(false) => KeepSource::Never,
        },
    }
}

fn tunnel<S: Source>(read: &mut value::Reader<'_, S>) -> Tunnel {
    const KIB: u32 = 1 << 10;
    const MIB: u32 = 1 << 20;
    let stream = read.number("HTTP2_STREAM_WINDOW_SIZE", 64 * KIB..=(1 << 31) - 1, 4 * MIB);
    let connection =
        read.number("HTTP2_CONNECTION_WINDOW_SIZE", 64 * KIB..=(1 << 31) - 1, 16 * MIB);
    if connection <= stream {
        read.conflict(
            "HTTP2_STREAM_WINDOW_SIZE",
            "HTTP2_CONNECTION_WINDOW_SIZE",
            "the window of the connection must be larger, or one unread stream stops all others",
        );
    }
    Tunnel {
        stream_window_bytes: stream,
        connection_window_bytes: connection,
        max_frame_bytes: read.number("HTTP2_FRAME_SIZE", 16 * KIB..=16 * MIB - 1, MIB),
        max_streams: read.number("POOL_MAX_STREAMS_PER_CONNECTION", 1..=10_000, 100),
        idle: read.duration("POOL_UNUSED_RELEASE_TIMEOUT").unwrap_or(Duration::from_secs(300)),
    }
}

#[cfg(test)]
mod tests;
