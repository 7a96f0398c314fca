//! What may be in a certificate request, and the little that is taken from it.
//!
//! Source: RFC 2986; Istio ztunnel makes P-256 keys, an empty subject and one URI name.

use rustls::SignatureScheme;
use rustls::pki_types::CertificateSigningRequestDer;
use rustls::pki_types::pem::PemObject as _;
use shared::identity::SpiffeId;
use shared::tls::provider;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_SIG_ECDSA_WITH_SHA256,
};
use x509_parser::prelude::FromDer as _;

/// A request of a node is about 500 bytes.
pub const LARGEST_BYTES: usize = 16 << 10;

/// A request that was signed with its own key and asks for one workload identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Csr {
    /// Who it asks for.
    pub identity: SpiffeId,
    /// The public key, as DER of a `SubjectPublicKeyInfo`.
    pub public_key: Vec<u8>,
}

/// Why a request is not even considered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not PEM, not PKCS#10, or too long.
    #[error("request cannot be read")]
    Unreadable,
    /// Not signed with the key that it holds.
    #[error("signature of the request is wrong")]
    Signature,
    /// Not an ECDSA key on P-256.
    #[error("key must be ECDSA on P-256")]
    Key,
    /// It asks for the right to sign certificates.
    #[error("request asks for a certificate authority")]
    Authority,
    /// It asks for a DNS name, an IP address or another kind of name.
    #[error("request asks for a name that is not a URI")]
    NameKind,
    /// It asks for no name or for several.
    #[error("request must ask for exactly one name")]
    NameCount,
    /// The name is not of a workload's form.
    #[error("name in the request is not a workload identity")]
    Identity,
}

impl Refusal {
    /// The cause code, stable.
    pub fn code(self) -> &'static str {
        match self {
            Self::Unreadable => "CA_CSR_UNREADABLE",
            Self::Signature => "CA_CSR_SIGNATURE",
            Self::Key => "CA_CSR_KEY",
            Self::Authority => "CA_CSR_AUTHORITY",
            Self::NameKind => "CA_CSR_NAME_KIND",
            Self::NameCount => "CA_CSR_NAME_COUNT",
            Self::Identity => "CA_CSR_IDENTITY",
        }
    }
}

/// Reads a request in PEM.
///
/// # Errors
/// The first [`Refusal`] that applies.
pub fn parse(pem: &str) -> Result<Csr, Refusal> {
    if pem.len() > LARGEST_BYTES {
        return Err(Refusal::Unreadable);
    }
    let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes())
        .map_err(|_| Refusal::Unreadable)?;
    let (rest, request) =
        X509CertificationRequest::from_der(&der).map_err(|_| Refusal::Unreadable)?;
    if !rest.is_empty() {
        return Err(Refusal::Unreadable);
    }
    check_key(&request)?;
    check_signature(&request)?;
    let identity = check_extensions(&request)?;
    let public_key = request.certification_request_info.subject_pki.raw.to_vec();
    Ok(Csr { identity, public_key })
}

fn check_key(request: &X509CertificationRequest<'_>) -> Result<(), Refusal> {
    let algorithm = &request.certification_request_info.subject_pki.algorithm;
    let curve = algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
    if algorithm.algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY || curve != Some(OID_EC_P256) {
        return Err(Refusal::Key);
    }
    Ok(())
}

/// Proof of possession: nobody gets a certificate for a key that is not theirs.
fn check_signature(request: &X509CertificationRequest<'_>) -> Result<(), Refusal> {
    if request.signature_algorithm.algorithm != OID_SIG_ECDSA_WITH_SHA256 {
        return Err(Refusal::Signature);
    }
    let subject_key = &request.certification_request_info.subject_pki;
    let algorithms = provider::provider().signature_verification_algorithms;
    let is_right = algorithms
        .mapping
        .iter()
        .filter(|(scheme, _)| *scheme == SignatureScheme::ECDSA_NISTP256_SHA256)
        .flat_map(|(_, algorithms)| algorithms.iter())
        .any(|algorithm| {
            let key = &subject_key.subject_public_key.data;
            let signed = request.certification_request_info.raw;
            algorithm.verify_signature(key, signed, &request.signature_value.data).is_ok()
        });
    is_right.then_some(()).ok_or(Refusal::Signature)
}

/// Exactly one URI of a workload's form; nothing that asks for power to sign.
fn check_extensions(request: &X509CertificationRequest<'_>) -> Result<SpiffeId, Refusal> {
    let mut names = Vec::new();
    // A request may ask for extensions in several places; what is asked for in any counts.
    let attributes = request.certification_request_info.iter_attributes();
    let requested = attributes.filter_map(|attribute| match attribute.parsed_attribute() {
        ParsedCriAttribute::ExtensionRequest(requested) => Some(&requested.extensions),
        _ => None,
    });
    for extension in requested.flatten() {
        match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(found) => names.extend(&found.general_names),
            ParsedExtension::BasicConstraints(found) if found.ca => return Err(Refusal::Authority),
            ParsedExtension::KeyUsage(found) if found.key_cert_sign() || found.crl_sign() => {
                return Err(Refusal::Authority);
            }
            ParsedExtension::ParseError { .. } => return Err(Refusal::Unreadable),
            // Whatever else is asked for is not given: the certificate is made by us.
            _ => {}
        }
    }
    if names.iter().any(|name| !matches!(name, GeneralName::URI(_))) {
        return Err(Refusal::NameKind);
    }
    match names.as_slice() {
        [GeneralName::URI(uri)] => uri.parse().map_err(|_| Refusal::Identity),
        _ => Err(Refusal::NameCount),
    }
}

#[cfg(test)]
mod tests;
