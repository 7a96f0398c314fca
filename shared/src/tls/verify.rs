//! Who may be on the other side: the two verifiers.
//!
//! Source: Istio ztunnel `src/tls/workload.rs`. Stricter in one point: the trust domain is checked
//! on the identity that policies will see (the first), not on any of them.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::verify_tls13_signature;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    PeerIncompatible, SignatureScheme,
};
use webpki::{EndEntityCert, KeyUsage};

use super::peer::identities;
use super::roots::Roots;
use crate::identity::{SpiffeId, TrustDomain};

/// Why a certificate with a good chain is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It names nobody of a mesh.
    #[error("certificate has no workload identity")]
    NoIdentity,
    /// Its owner is not of our trust domain.
    #[error("peer {0} is not of our trust domain")]
    TrustDomain(SpiffeId),
    /// Its owner is not whom we called.
    #[error("peer {0} is none of the expected identities")]
    Unexpected(SpiffeId),
}

/// Accepts clients of one trust domain.
pub fn client_verifier(
    roots: Arc<Roots>,
    trust_domain: TrustDomain,
) -> Arc<dyn ClientCertVerifier> {
    Arc::new(ClientVerifier { roots, trust_domain })
}

/// Accepts servers with one of the expected identities; with none expected, nobody.
pub fn server_verifier(roots: Arc<Roots>, expected: &[SpiffeId]) -> Arc<dyn ServerCertVerifier> {
    Arc::new(ServerVerifier { roots, expected: expected.into() })
}

#[derive(Debug)]
struct ClientVerifier {
    roots: Arc<Roots>,
    trust_domain: TrustDomain,
}

#[derive(Debug)]
struct ServerVerifier {
    roots: Arc<Roots>,
    expected: Box<[SpiffeId]>,
}

impl ClientCertVerifier for ClientVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        verify_client(&self.roots, &self.trust_domain, (end_entity, intermediates), now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signed, self.roots.algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.roots.algorithms().supported_schemes()
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        verify_server(&self.roots, &self.expected, (end_entity, intermediates), now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signed, self.roots.algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.roots.algorithms().supported_schemes()
    }
}

/// A leaf and its intermediates.
type Chain<'a> = (&'a CertificateDer<'a>, &'a [CertificateDer<'a>]);

/// Whose certificate a client of `trust_domain` presents.
pub(super) fn verify_client(
    roots: &Roots,
    trust_domain: &TrustDomain,
    (end_entity, intermediates): Chain<'_>,
    now: UnixTime,
) -> Result<SpiffeId, Error> {
    let leaf = parse(end_entity)?;
    roots.verify(&leaf, intermediates, now, KeyUsage::client_auth())?;
    let peer = identities(&leaf).next().ok_or_else(|| refused(Refusal::NoIdentity))?;
    if peer.trust_domain() != trust_domain {
        return Err(refused(Refusal::TrustDomain(peer)));
    }
    Ok(peer)
}

/// Checks that a server presents a certificate with one of the `expected` identities.
pub(super) fn verify_server(
    roots: &Roots,
    expected: &[SpiffeId],
    (end_entity, intermediates): Chain<'_>,
    now: UnixTime,
) -> Result<(), Error> {
    let leaf = parse(end_entity)?;
    roots.verify(&leaf, intermediates, now, KeyUsage::server_auth())?;
    if identities(&leaf).any(|id| expected.contains(&id)) {
        return Ok(());
    }
    Err(refused(match identities(&leaf).next() {
        Some(id) => Refusal::Unexpected(id),
        None => Refusal::NoIdentity,
    }))
}

fn parse<'a>(der: &'a CertificateDer<'a>) -> Result<EndEntityCert<'a>, Error> {
    EndEntityCert::try_from(der).map_err(|_| CertificateError::BadEncoding.into())
}

fn refused(refusal: Refusal) -> Error {
    CertificateError::Other(OtherError(Arc::new(refusal))).into()
}

fn tls12() -> Error {
    PeerIncompatible::ServerDoesNotSupportTls12Or13.into()
}
