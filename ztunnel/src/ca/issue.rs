//! The decision about one request, and the certificate that follows from it.
//!
//! Invariants: the certificate is made from our own template; the request gives it the public key
//! and nothing else. Not here: who is asking (tokens), how (the gRPC service).

use std::time::{Duration, SystemTime};

use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    SanType, SubjectPublicKeyInfo,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use shared::identity::join::{authority_name, hex};
use shared::identity::{SpiffeId, TrustDomain};

use super::csr::{self, Csr};
use super::root::{Root, serial};
use super::{Error, NodePods};

/// The most that a certificate is back-dated, for clocks that are behind.
const LARGEST_BACK_DATING: Duration = Duration::from_secs(300);

/// A request whose sender is known.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The node that the token belongs to.
    pub node: &'a str,
    /// The request in PEM.
    pub csr: &'a str,
    /// `ImpersonatedIdentity` of the metadata.
    pub identity: Option<&'a str>,
    /// The lifetime that is asked for, in seconds; 0 for ours.
    pub lifetime_seconds: i64,
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The certificate request itself is bad.
    #[error(transparent)]
    Csr(#[from] csr::Refusal),
    /// No token, or one that does not count.
    #[error("join token is unknown or revoked")]
    Token,
    /// The metadata names nobody.
    #[error("metadata holds no ImpersonatedIdentity")]
    Metadata,
    /// Metadata and request name different identities.
    #[error("request asks for {csr}, metadata for {metadata}")]
    Mismatch {
        /// In the request.
        csr: SpiffeId,
        /// In the metadata.
        metadata: SpiffeId,
    },
    /// The identity is of another trust domain.
    #[error("{0} is not of this trust domain")]
    TrustDomain(SpiffeId),
    /// No pod with that identity runs on the node.
    #[error("no pod with identity {0} runs on the node")]
    Pod(SpiffeId),
    /// The lifetime is negative or above the limit.
    #[error("lifetime of {0} s is not within the limit")]
    Lifetime(i64),
    /// Too many requests.
    #[error("too many requests")]
    Busy,
}

impl Refusal {
    /// The cause code, stable: log lines and answers carry it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Csr(refusal) => refusal.code(),
            Self::Token => "CA_TOKEN",
            Self::Metadata => "CA_METADATA",
            Self::Mismatch { .. } => "CA_IDENTITY_MISMATCH",
            Self::TrustDomain(_) => "CA_TRUST_DOMAIN",
            Self::Pod(_) => "CA_POD_NOT_ON_NODE",
            Self::Lifetime(_) => "CA_LIFETIME",
            Self::Busy => "CA_RATE",
        }
    }
}

/// Judges `request`: what may be certified, and for how long.
///
/// # Errors
/// The first [`Refusal`] that applies.
pub fn judge(
    request: Request<'_>,
    pods: &dyn NodePods,
    trust_domain: &TrustDomain,
    limit: Duration,
) -> Result<(Csr, Duration), Refusal> {
    let csr = csr::parse(request.csr)?;
    let metadata: SpiffeId =
        request.identity.and_then(|text| text.parse().ok()).ok_or(Refusal::Metadata)?;
    if csr.identity != metadata {
        return Err(Refusal::Mismatch { csr: csr.identity, metadata });
    }
    if metadata.trust_domain() != trust_domain {
        return Err(Refusal::TrustDomain(metadata));
    }
    let lifetime = match u64::try_from(request.lifetime_seconds) {
        Ok(0) => limit,
        Ok(seconds) if seconds <= limit.as_secs() => Duration::from_secs(seconds),
        _ => return Err(Refusal::Lifetime(request.lifetime_seconds)),
    };
    if !pods.may_act_for(request.node, &metadata) {
        return Err(Refusal::Pod(metadata));
    }
    Ok((csr, lifetime))
}

/// A certificate that was made.
#[derive(Debug)]
pub struct Issued {
    /// The leaf as PEM.
    pub pem: String,
    /// The serial number in hexadecimal.
    pub serial: String,
    /// The end of its life.
    pub not_after: SystemTime,
}

/// Certifies a request that [`judge`] has let through.
///
/// # Errors
/// [`Error::Make`] when the crypto library fails.
pub fn certify(root: &Root, csr: &Csr, lifetime: Duration) -> Result<Issued, Error> {
    let mut params = template(root, &csr.identity.to_string(), lifetime)?;
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let key = SubjectPublicKeyInfo::from_der(&csr.public_key)?;
    let serial = params.serial_number.as_ref().map(|serial| hex(&serial.to_bytes()));
    let not_after = params.not_after.into();
    let leaf = params.signed_by(&key, root.issuer())?;
    Ok(Issued { pem: leaf.pem(), serial: serial.unwrap_or_default(), not_after })
}

/// The authority's own certificate for TLS, with a fresh key: the leaf, then the root.
///
/// # Errors
/// [`Error::Make`] when the crypto library fails.
pub fn certify_ourselves(
    root: &Root,
    trust_domain: &TrustDomain,
    lifetime: Duration,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Error> {
    let mut params = template(root, &authority_name(trust_domain), lifetime)?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    let leaf = params.signed_by(&key, root.issuer())?;
    let chain = vec![leaf.into(), root.certificate().clone()];
    Ok((chain, PrivateKeyDer::Pkcs8(key.serialize_der().into())))
}

fn template(root: &Root, name: &str, lifetime: Duration) -> Result<CertificateParams, Error> {
    let (not_before, not_after) = validity(SystemTime::now(), lifetime);
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(name.try_into()?)];
    params.serial_number = Some(serial()?);
    params.not_before = not_before.into();
    params.not_after = not_after.min(root.not_after()).into();
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// A life of `lifetime` that includes back-dating of at most a tenth of it. X.509 counts in whole
/// seconds.
fn validity(now: SystemTime, lifetime: Duration) -> (SystemTime, SystemTime) {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let back = (lifetime / 10).min(LARGEST_BACK_DATING);
    let start = Duration::from_secs(since.as_secs() - back.as_secs().min(since.as_secs()));
    let lifetime = Duration::from_secs(lifetime.as_secs());
    (SystemTime::UNIX_EPOCH + start, SystemTime::UNIX_EPOCH + start + lifetime)
}

#[cfg(test)]
mod tests;
