//! The embedded certificate authority: `ztunnel ca`.
//!
//! | module | holds |
//! |---|---|
//! | [`args`] | the subcommand's arguments and what they mean |
//! | [`state`] | the state directory: private, atomic, durable |
//! | [`root`] | the root certificate and its key |
//! | [`tokens`] | join tokens, kept as digests |
//! | [`csr`] | what may be in a certificate request |
//! | [`issue`] | the decision about one request, and the certificate |
//! | [`serve`] | the gRPC service over TLS |
//!
//! Invariants (design §8, Joining): from a request only the public key is taken; token, name in
//! the request, metadata and mesh must agree; nothing is signed for another node's pod.

pub mod args;
pub mod csr;
pub mod issue;
pub mod root;
pub mod serve;
pub mod state;
pub mod tokens;

mod limit;
mod pods;
mod service;
#[cfg(test)]
mod test_support;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use shared::identity::TrustDomain;

pub use pods::{MeshPods, NodePods};
pub use root::Constraints;
pub use serve::{Bound, run};

/// What the authority needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// The mesh directory, for whoever feeds it to [`MeshPods`].
    pub mesh: PathBuf,
    /// Where root and tokens are kept; nobody else may read it.
    pub state: PathBuf,
    /// Where the service listens.
    pub listen: SocketAddr,
    /// The trust domain it certifies. Fixed when the root is made.
    pub trust_domain: TrustDomain,
    /// Lifetime of a certificate, and the most that a request may ask for. Short lifetimes cost
    /// requests (each is renewed at half), long ones keep a stolen key useful.
    pub leaf_ttl: Duration,
    /// Whether a new root is limited to the trust domain.
    pub constraints: Constraints,
}

/// Why the authority cannot start, or a token not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The state directory or a file in it cannot be used.
    #[error("{action} {}", path.display())]
    State {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Others could read or change the state.
    #[error("{} has mode {mode:04o}, which lets others in: chmod go-rwx", path.display())]
    Unsafe {
        /// What is open.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The file of the root is damaged.
    #[error("{} holds no usable root", .0.display())]
    Root(PathBuf),
    /// The root on disk is for another trust domain.
    #[error("root is for trust domain {found}, not {wanted}")]
    TrustDomain {
        /// What the root says.
        found: String,
        /// What was asked for.
        wanted: TrustDomain,
    },
    /// Name constraints cannot say this trust domain.
    #[error("no root can be limited to trust domain {0}: use --root-constraints off")]
    Unlimited(TrustDomain),
    /// A key or certificate cannot be made.
    #[error("make a certificate")]
    Make(#[from] rcgen::Error),
    /// The address is taken or not ours.
    #[error("listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The node's name is not one, or the random generator has failed.
    #[error("make a join token for {0:?}: the name must be a DNS-1123 name")]
    Token(String),
}
