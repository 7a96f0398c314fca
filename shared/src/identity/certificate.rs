//! A workload's certificate: the chain it presents, its key, and the roots it trusts in others.
//!
//! Invariants: the key belongs to the leaf; the leaf names the identity; at least one root. The
//! key lives in the crypto library alone and has no way out.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ServerConfig};
use webpki::EndEntityCert;

use super::{SpiffeId, TrustDomain};
use crate::tls::{self, Roots, provider};

/// Client configurations kept per certificate. Each expected list of a busy node is one entry of
/// a few hundred bytes; beyond this the cache starts afresh.
const CACHED_CLIENT_CONFIGS: usize = 1024;

/// A certificate with everything that a connection needs. Share it in an `Arc`.
pub struct WorkloadCertificate {
    identity: SpiffeId,
    serial: String,
    not_before: SystemTime,
    not_after: SystemTime,
    key: Arc<CertifiedKey>,
    roots: Arc<Roots>,
    server: Arc<ServerConfig>,
    clients: Mutex<HashMap<Box<[SpiffeId]>, Arc<ClientConfig>>>,
}

/// Why key, chain and roots do not make a certificate.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CertificateError {
    /// The chain is empty, or its leaf or a time in it cannot be read.
    #[error("parse certificate chain")]
    Chain,
    /// The leaf has no URI of a workload's form.
    #[error("certificate has no workload identity")]
    NoIdentity,
    /// The key cannot be read or is of an unknown kind.
    #[error("load private key")]
    Key(#[source] rustls::Error),
    /// The key belongs to another certificate.
    #[error("private key does not belong to the certificate")]
    KeyMismatch,
    /// A root cannot be used.
    #[error("load root certificates")]
    Roots(#[from] tls::RootsError),
    /// The text is not PEM.
    #[error("parse PEM")]
    Pem,
}

impl WorkloadCertificate {
    /// Puts a certificate together. `chain` is leaf first, without the root.
    ///
    /// # Errors
    /// When a part cannot be parsed, the key does not belong to the leaf, or the leaf names no
    /// workload. Whether `roots` would accept the chain is not asked.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        roots: Roots,
    ) -> Result<Self, CertificateError> {
        let leaf = Leaf::parse(chain.first().ok_or(CertificateError::Chain)?)?;
        let provider = provider::provider();
        let key = provider.key_provider.load_private_key(key).map_err(CertificateError::Key)?;
        let key = Arc::new(CertifiedKey::new(chain, key));
        if !key_belongs_to_leaf(&key) {
            return Err(CertificateError::KeyMismatch);
        }
        let roots = Arc::new(roots);
        let server = tls::server_config(
            Arc::clone(&key),
            Arc::clone(&roots),
            leaf.identity.trust_domain().clone(),
        );
        Ok(Self {
            identity: leaf.identity,
            serial: leaf.serial,
            not_before: leaf.not_before,
            not_after: leaf.not_after,
            key,
            roots,
            server: Arc::new(server),
            clients: Mutex::default(),
        })
    }

    /// Like [`WorkloadCertificate::new`], from PEM texts.
    ///
    /// # Errors
    /// As [`WorkloadCertificate::new`], and when a text is not PEM or lacks what it should hold.
    pub fn from_pem(chain: &[u8], key: &[u8], roots: &[u8]) -> Result<Self, CertificateError> {
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| CertificateError::Pem)?;
        let roots = Roots::new(certificates_from_pem(roots)?)?;
        Self::new(certificates_from_pem(chain)?, key, roots)
    }

    /// Whose certificate this is.
    pub fn identity(&self) -> &SpiffeId {
        &self.identity
    }

    /// The trust domain that this certificate's server side accepts.
    pub fn trust_domain(&self) -> &TrustDomain {
        self.identity.trust_domain()
    }

    /// The serial number in hexadecimal.
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// From when it counts.
    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    /// Until when it counts.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// What is left of its life at `now`.
    pub fn remaining(&self, now: SystemTime) -> Duration {
        self.not_after.duration_since(now).unwrap_or_default()
    }

    /// The certificates it presents: the leaf, then intermediates.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.key.cert
    }

    /// What it trusts.
    pub fn roots(&self) -> &Roots {
        &self.roots
    }

    /// Whether `other` presents and trusts the same certificates.
    pub fn is_same(&self, other: &Self) -> bool {
        self.chain() == other.chain() && self.roots.certificates() == other.roots.certificates()
    }

    /// The configuration for accepting connections. Always the same one.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server)
    }

    /// The configuration for connecting to one of `expected`. The same list gives the same one.
    pub fn client_config(&self, expected: &[SpiffeId]) -> Arc<ClientConfig> {
        let mut clients = self.clients.lock();
        if let Some(config) = clients.get(expected) {
            return Arc::clone(config);
        }
        let roots = Arc::clone(&self.roots);
        let config = Arc::new(tls::client_config(Arc::clone(&self.key), roots, expected));
        if clients.len() >= CACHED_CLIENT_CONFIGS {
            clients.clear();
        }
        clients.insert(expected.into(), Arc::clone(&config));
        config
    }
}

impl fmt::Debug for WorkloadCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkloadCertificate")
            .field("identity", &self.identity)
            .field("serial", &self.serial)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// All certificates of a PEM text.
pub(crate) fn certificates_from_pem(
    text: &[u8],
) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    CertificateDer::pem_slice_iter(text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| CertificateError::Pem)
}

struct Leaf {
    identity: SpiffeId,
    serial: String,
    not_before: SystemTime,
    not_after: SystemTime,
}

impl Leaf {
    fn parse(der: &CertificateDer<'_>) -> Result<Self, CertificateError> {
        let (_, parsed) =
            x509_parser::parse_x509_certificate(der).map_err(|_| CertificateError::Chain)?;
        let leaf = EndEntityCert::try_from(der).map_err(|_| CertificateError::Chain)?;
        let identity = leaf
            .valid_uri_names()
            .find_map(|name| name.parse().ok())
            .ok_or(CertificateError::NoIdentity)?;
        let time = |time: x509_parser::time::ASN1Time| {
            let seconds = u64::try_from(time.timestamp()).map_err(|_| CertificateError::Chain)?;
            SystemTime::UNIX_EPOCH
                .checked_add(Duration::from_secs(seconds))
                .ok_or(CertificateError::Chain)
        };
        Ok(Self {
            identity,
            serial: parsed.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect(),
            not_before: time(parsed.validity().not_before)?,
            not_after: time(parsed.validity().not_after)?,
        })
    }
}

/// Signs with the key and verifies with the leaf: works whatever the crypto library reveals.
fn key_belongs_to_leaf(key: &CertifiedKey) -> bool {
    const PROBE: &[u8] = b"does this key belong to this certificate?";
    let algorithms = provider::provider().signature_verification_algorithms;
    let Some(signer) = key.key.choose_scheme(&algorithms.supported_schemes()) else { return false };
    let Ok(signature) = signer.sign(PROBE) else { return false };
    let Some(leaf) = key.cert.first().and_then(|der| EndEntityCert::try_from(der).ok()) else {
        return false;
    };
    algorithms
        .mapping
        .iter()
        .filter(|(scheme, _)| *scheme == signer.scheme())
        .flat_map(|(_, algorithms)| algorithms.iter())
        .any(|algorithm| leaf.verify_signature(*algorithm, PROBE, &signature).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::test_util::TestCa;

    fn ca() -> TestCa {
        TestCa::new(&TrustDomain::default())
    }

    #[test]
    fn certificate_knows_its_identity_and_its_time() {
        let id: SpiffeId = "spiffe://cluster.local/ns/team/sa/web".parse().unwrap();
        let certificate = ca().issue(&id);
        assert_eq!(*certificate.identity(), id);
        assert!(certificate.remaining(SystemTime::now()) > Duration::from_secs(3000));
        assert!(!certificate.serial().is_empty());
    }

    #[test]
    fn configurations_are_built_once() {
        let id: SpiffeId = "spiffe://cluster.local/ns/team/sa/web".parse().unwrap();
        let certificate = ca().issue(&id);
        assert!(Arc::ptr_eq(&certificate.server_config(), &certificate.server_config()));
        let expected = [id];
        let config = certificate.client_config(&expected);
        assert!(Arc::ptr_eq(&config, &certificate.client_config(&expected)));
        assert!(!Arc::ptr_eq(&config, &certificate.client_config(&[])));
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let ca = ca();
        let id: SpiffeId = "spiffe://cluster.local/ns/team/sa/web".parse().unwrap();
        let (one, other) = (ca.issue_pem(&id), ca.issue_pem(&id));
        let mixed = WorkloadCertificate::from_pem(
            one.chain.as_bytes(),
            other.key.as_bytes(),
            ca.root_pem().as_bytes(),
        );
        assert!(matches!(mixed, Err(CertificateError::KeyMismatch)));
    }

    #[test]
    fn debug_output_has_no_key() {
        let id: SpiffeId = "spiffe://cluster.local/ns/team/sa/web".parse().unwrap();
        let text = format!("{:?}", ca().issue(&id));
        assert!(text.contains("spiffe://cluster.local/ns/team/sa/web"));
        assert!(!text.to_lowercase().contains("key"));
    }
}
