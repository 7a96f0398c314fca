//! The certificates that a workload trusts, and the check of a peer's chain against them.

use rustls::CertificateError;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};

use super::constraints::{Malformed, UriConstraints};
use super::provider;

/// Trusted roots, parsed once.
#[derive(Debug)]
pub struct Roots {
    certificates: Vec<CertificateDer<'static>>,
    /// In step with `constraints`; without the constraints on URIs.
    anchors: Vec<TrustAnchor<'static>>,
    constraints: Vec<UriConstraints>,
    algorithms: WebPkiSupportedAlgorithms,
}

/// Why a certificate cannot be a root.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// Not a certificate.
    #[error("parse root certificate")]
    Parse(#[source] webpki::Error),
    /// Its name constraints cannot be read, so they could not be enforced.
    #[error("parse root certificate")]
    Constraints(#[from] Malformed),
    /// None is left.
    #[error("no usable root certificate")]
    Empty,
}

impl Roots {
    /// Parses `certificates`.
    ///
    /// # Errors
    /// When one cannot be parsed, or when there is none.
    pub fn new(certificates: Vec<CertificateDer<'static>>) -> Result<Self, Error> {
        let mut anchors = Vec::with_capacity(certificates.len());
        let mut constraints = Vec::with_capacity(certificates.len());
        for certificate in &certificates {
            let (anchor, uris) = anchor(certificate)?;
            anchors.push(anchor);
            constraints.push(uris);
        }
        if anchors.is_empty() {
            return Err(Error::Empty);
        }
        let algorithms = provider::provider().signature_verification_algorithms;
        Ok(Self { certificates, anchors, constraints, algorithms })
    }

    /// Like [`Roots::new`], but leaves out what cannot be parsed, with a warning each.
    ///
    /// # Errors
    /// [`Error::Empty`] when nothing is left.
    pub fn from_usable(certificates: Vec<CertificateDer<'static>>) -> Result<Self, Error> {
        let usable = |certificate: &CertificateDer<'static>| match anchor(certificate) {
            Ok(_) => true,
            Err(error) => {
                tracing::warn!(%error, "root certificate left out");
                false
            }
        };
        Self::new(certificates.into_iter().filter(usable).collect())
    }

    /// The roots as certificates.
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }

    /// SHA-256 of each root, in hexadecimal.
    pub fn digests(&self) -> Vec<String> {
        let hex = |digest: [u8; 32]| digest.iter().map(|byte| format!("{byte:02x}")).collect();
        self.certificates.iter().map(|root| hex(provider::sha256(root))).collect()
    }

    /// Checks that `leaf` chains to a root, is valid `now`, may be used for `usage`, and that
    /// neither it nor an intermediate has a URI which the root's constraints forbid.
    pub(super) fn verify(
        &self,
        leaf: &EndEntityCert<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<(), CertificateError> {
        let within = |path: &VerifiedPath<'_>| self.names_are_permitted(path);
        leaf.verify_for_usage(
            self.algorithms.all,
            &self.anchors,
            intermediates,
            now,
            usage,
            None,
            Some(&within),
        )
        .map(|_| ())
        .map_err(certificate_error)
    }

    /// Like the check of a workload's server, but for any one URI: whether `leaf` carries `name`.
    ///
    /// # Errors
    /// When the chain does not lead to a root, or a certificate in it does not count `now`.
    pub(crate) fn verify_server_name(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        name: &str,
    ) -> Result<bool, CertificateError> {
        let leaf = EndEntityCert::try_from(leaf).map_err(|_| CertificateError::BadEncoding)?;
        self.verify(&leaf, intermediates, now, KeyUsage::server_auth())?;
        Ok(leaf.valid_uri_names().any(|found| found == name))
    }

    fn names_are_permitted(&self, path: &VerifiedPath<'_>) -> Result<(), webpki::Error> {
        let leaf = path.end_entity().valid_uri_names();
        let above = path.intermediate_certificates().flat_map(|cert| cert.valid_uri_names());
        let names: Vec<&str> = leaf.chain(above).collect();
        // Two roots may share a name and a key; then both have to permit.
        let anchor = path.anchor();
        let mut constraints = self
            .anchors
            .iter()
            .zip(&self.constraints)
            .filter(|(candidate, _)| {
                candidate.subject == anchor.subject
                    && candidate.subject_public_key_info == anchor.subject_public_key_info
            })
            .map(|(_, constraints)| constraints);
        match constraints.all(|uris| names.iter().all(|name| uris.permit(name))) {
            true => Ok(()),
            false => Err(webpki::Error::NameConstraintViolation),
        }
    }

    pub(super) fn algorithms(&self) -> &WebPkiSupportedAlgorithms {
        &self.algorithms
    }
}

/// Takes the constraints on URIs out of the anchor, because webpki rejects all paths below them.
fn anchor(
    certificate: &CertificateDer<'static>,
) -> Result<(TrustAnchor<'static>, UriConstraints), Error> {
    let mut anchor =
        webpki::anchor_from_trusted_cert(certificate).map_err(Error::Parse)?.to_owned();
    let Some(content) = anchor.name_constraints.take() else {
        return Ok((anchor, UriConstraints::default()));
    };
    let (uris, others) = UriConstraints::split(&content)?;
    anchor.name_constraints = others.map(Into::into);
    Ok((anchor, uris))
}

fn certificate_error(error: webpki::Error) -> CertificateError {
    match error {
        webpki::Error::CertExpired { time, not_after } => {
            CertificateError::ExpiredContext { time, not_after }
        }
        webpki::Error::CertNotValidYet { time, not_before } => {
            CertificateError::NotValidYetContext { time, not_before }
        }
        webpki::Error::UnknownIssuer => CertificateError::UnknownIssuer,
        webpki::Error::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        webpki::Error::BadDer => CertificateError::BadEncoding,
        webpki::Error::RequiredEkuNotFoundContext(_) => CertificateError::InvalidPurpose,
        other => CertificateError::Other(rustls::OtherError(std::sync::Arc::new(other))),
    }
}
