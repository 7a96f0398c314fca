//! Why a process cannot start, and what the operator can do about it.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::feed::dir;
use crate::identity;
use crate::telemetry::metrics;

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
    /// No data-plane thread can be started.
    #[error("start a data-plane worker")]
    Workers(#[source] io::Error),
    /// The log cannot be started.
    #[error("start the log (RUST_LOG)")]
    Log(#[source] Box<dyn std::error::Error + Send + Sync>),
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
            Self::Workers(_) | Self::Log(_) | Self::Metrics(_) => None,
        }
    }
}

/// What the operator can do about a state directory.
pub fn state_advice(error: &io::Error) -> &'static str {
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
