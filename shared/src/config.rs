//! What the operator wants, as far as both proxies want it alike: flags, then `CULVERT_` variables,
//! then Istio's, then defaults.
//!
//! Invariants: all mistakes are found at once and before anything is bound; nothing but this module
//! reads the environment; nothing in here is secret (tokens and keys are files, named by path).
//! Not here: what only one of the programs has (its own `config`).

mod reader;
mod setting;
mod source;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::identity::TrustDomain;
use crate::telemetry::Format;

pub use self::reader::Reader;
pub use self::setting::{
    ADMIN, CA_ADDR, CERTS, FEED, JOIN_TOKEN, MESH, READY, STATE, STATS, Setting, TRUST_DOMAIN,
    WORKERS, unknown_variables,
};
pub use self::source::{Environment, Given, ProcessEnvironment, Source};

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
