//! TLS towards applications that are no part of the mesh's own trust: who must answer, and who says so.
//!
//! Invariants: nothing is accepted that does not chain to the roots that were named and bear one of the
//! names; TLS 1.3 only, without a certificate of our own.
//! Source: Gateway API BackendTLSPolicy; spec L7 §2.9.

use std::sync::{Arc, LazyLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::verify_tls13_signature;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, PeerIncompatible, RootCertStore,
    SignatureScheme,
};
use serde::Serialize;
use webpki::EndEntityCert;

use super::{provider, tls13};

/// What the certificate of an application must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendTerms {
    /// Namespace and name of the policy.
    pub policy: Arc<str>,
    /// The name that is asked for, and the certificate's unless `names` has some.
    pub server_name: Arc<str>,
    /// The certificate must bear one of these instead.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub names: Box<[PeerName]>,
    /// Who must have signed it.
    pub roots: BackendRoots,
}

/// A name of a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum PeerName {
    /// A DNS name.
    Hostname(Arc<str>),
    /// A URI, such as a SPIFFE identity.
    Uri(Arc<str>),
}

/// Who must have signed the certificate of an application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum BackendRoots {
    /// The authorities that the system trusts.
    System,
    /// These.
    Certificates(#[serde(skip)] Arc<[CertificateDer<'static>]>),
}

/// Why terms cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The name is none.
    #[error("{0:?} is no name of a server")]
    Name(Arc<str>),
    /// A root is no certificate.
    #[error("an authority is no certificate: {0}")]
    Root(#[source] Error),
    /// There is no root.
    #[error("there is no authority to trust")]
    NoRoots,
}

/// Read once, when a policy first asks for it.
static SYSTEM: LazyLock<Arc<RootCertStore>> = LazyLock::new(|| {
    let mut store = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "authorities of the system");
    }
    store.add_parsable_certificates(found.certs);
    Arc::new(store)
});

/// A configuration that accepts a server by `terms` and offers `alpn`, with the name to ask for.
///
/// # Errors
/// Nobody could be accepted by these terms.
pub fn backend_config(
    terms: &BackendTerms,
    alpn: &[&[u8]],
) -> Result<(ClientConfig, ServerName<'static>), BackendError> {
    let name = |text: &Arc<str>| {
        ServerName::try_from(text.to_string()).map_err(|_| BackendError::Name(Arc::clone(text)))
    };
    let mut names = Vec::new();
    for one in &terms.names {
        names.push(match one {
            PeerName::Hostname(text) => Wanted::Name(name(text)?),
            PeerName::Uri(text) => Wanted::Uri(Arc::clone(text)),
        });
    }
    let verifier = Verifier { roots: roots(&terms.roots)?, names: names.into() };
    let mut config = tls13(ClientConfig::builder_with_provider(provider::provider()))
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|one| one.to_vec()).collect();
    // Every connection proves the certificate as it is now.
    config.resumption = Resumption::disabled();
    Ok((config, name(&terms.server_name)?))
}

fn roots(of: &BackendRoots) -> Result<Arc<RootCertStore>, BackendError> {
    let store = match of {
        BackendRoots::System => Arc::clone(&SYSTEM),
        BackendRoots::Certificates(certificates) => {
            let mut store = RootCertStore::empty();
            for certificate in certificates.iter() {
                store.add(certificate.clone()).map_err(BackendError::Root)?;
            }
            Arc::new(store)
        }
    };
    if store.is_empty() { Err(BackendError::NoRoots) } else { Ok(store) }
}

#[derive(Debug)]
enum Wanted {
    Name(ServerName<'static>),
    Uri(Arc<str>),
}

#[derive(Debug)]
struct Verifier {
    roots: Arc<RootCertStore>,
    /// Empty: the name that was asked for.
    names: Box<[Wanted]>,
}

impl Verifier {
    fn has_name(
        &self,
        certificate: &ParsedCertificate<'_>,
        der: &CertificateDer<'_>,
        asked: &ServerName<'_>,
    ) -> Result<(), Error> {
        if self.names.is_empty() {
            return verify_server_name(certificate, asked);
        }
        let leaf = EndEntityCert::try_from(der).map_err(|_| CertificateError::BadEncoding)?;
        let bears = |wanted: &Wanted| match wanted {
            Wanted::Name(name) => verify_server_name(certificate, name).is_ok(),
            Wanted::Uri(uri) => leaf.valid_uri_names().any(|own| own == &**uri),
        };
        match self.names.iter().any(bears) {
            true => Ok(()),
            false => Err(CertificateError::NotValidForName.into()),
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = provider::provider().signature_verification_algorithms;
        verify_server_cert_signed_by_trust_anchor(
            &certificate,
            &self.roots,
            intermediates,
            now,
            algorithms.all,
        )?;
        self.has_name(&certificate, end_entity, server_name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::ServerDoesNotSupportTls12Or13.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &provider::provider().signature_verification_algorithms;
        verify_tls13_signature(message, cert, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider::provider().signature_verification_algorithms.supported_schemes()
    }
}
