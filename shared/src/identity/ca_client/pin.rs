//! The check that the server is the authority which made the join token.

use std::io;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme};

use crate::identity::TrustDomain;
use crate::identity::join::authority_name;
use crate::tls::{Roots, provider};

/// Accepts a server that presents the root with the known digest, and a certificate below it with
/// the authority's name. A workload's certificate comes from the same root but cannot have it.
#[derive(Debug)]
pub(super) struct PinnedRoot {
    root: [u8; 32],
    name: String,
    algorithms: WebPkiSupportedAlgorithms,
}

/// Why a server is not asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("server does not present the root that the join token names")]
    Root,
    #[error("server is not the authority of this trust domain")]
    Name,
}

impl Refusal {
    /// The refusal behind a failed handshake, which rustls shows as `Other(OtherError(…))`.
    pub(super) fn behind(failed: &io::Error) -> Option<Self> {
        match failed.get_ref()?.downcast_ref()? {
            Error::InvalidCertificate(CertificateError::Other(other)) => {
                other.0.downcast_ref().copied()
            }
            _ => None,
        }
    }
}

impl PinnedRoot {
    pub(super) fn new(root: [u8; 32], trust_domain: &TrustDomain) -> Self {
        let algorithms = provider::provider().signature_verification_algorithms;
        Self { root, name: authority_name(trust_domain), algorithms }
    }
}

impl ServerCertVerifier for PinnedRoot {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let root = intermediates.iter().find(|cert| provider::sha256(cert) == self.root);
        let root = root.ok_or_else(|| refused(Refusal::Root))?.clone().into_owned();
        let roots = Roots::new(vec![root]).map_err(|_| refused(Refusal::Root))?;
        match roots.verify_server_name(end_entity, intermediates, now, &self.name)? {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(refused(Refusal::Name)),
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(rustls::PeerIncompatible::ServerDoesNotSupportTls12Or13.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn refused(refusal: Refusal) -> Error {
    CertificateError::Other(OtherError(Arc::new(refusal))).into()
}
