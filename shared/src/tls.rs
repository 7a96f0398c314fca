//! Mutual TLS 1.3 and the proof of a peer's identity.
//!
//! Invariants: TLS 1.3 only; both sides present a certificate; a [`PeerId`] exists only for a peer
//! that `verify` accepted, in a completed handshake or without one between two of our own.
//! Not here: where certificates come from (`identity`), the byte path (`tls::stream`).
//! Source: Istio ztunnel `src/tls`, and design D3 and D4.

mod backend;
mod config;
mod constraints;
mod peer;
mod roots;
mod verify;

pub mod provider;
mod stream;

use std::io;

pub use backend::{BackendError, BackendRoots, BackendTerms, PeerName, backend_config};
pub use config::{ALPN, client_config, server_config, server_name, tls13};
pub use constraints::{Malformed, UriConstraints, encode_name_constraints};
pub use peer::{PeerId, meet, peer};
pub use roots::{Error as RootsError, Roots};
pub use stream::{Stream, accept, connect};
pub use verify::{Refusal, client_verifier, server_verifier};

/// Why a TLS connection cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket failed.
    #[error("carry tls over the socket")]
    Io(#[from] io::Error),
    /// The peer or we broke off: bad certificate, no common parameters, or broken records.
    #[error("speak tls with the peer")]
    Protocol(#[source] rustls::Error),
    /// The peer's certificate is good, and not of somebody that we speak with.
    #[error(transparent)]
    Refused(Refusal),
    /// The identity of the peer was asked for before the handshake had finished.
    #[error("handshake has not finished")]
    Handshaking,
    /// The peer has presented no certificate with a workload identity.
    #[error("peer has no workload identity")]
    NoIdentity,
}

impl From<rustls::Error> for Error {
    fn from(error: rustls::Error) -> Self {
        // Our verifiers' own words, which rustls shows as `Other(OtherError(…))`.
        let refusal = match &error {
            rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other)) => {
                other.0.downcast_ref::<Refusal>().cloned()
            }
            _ => None,
        };
        refusal.map_or(Self::Protocol(error), Self::Refused)
    }
}

#[cfg(test)]
mod tests;
