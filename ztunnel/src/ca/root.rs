//! The root certificate: made once, kept in one private file with its key.

use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use shared::identity::TrustDomain;
use shared::tls::{encode_name_constraints, provider};
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::Zeroizing;

use super::Error;
use super::state::State;

/// Key and certificate in one file, so that they cannot part.
const FILE: &str = "root.pem";

/// For people and for peers that are configured by file.
const PUBLIC_FILE: &str = "root-cert.pem";

/// Ten years. There is no rotation of roots yet.
const LIFETIME: Duration = Duration::from_secs(10 * 365 * 86_400);

/// Where the certificate begins, behind the key.
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";

/// OID of the name constraints extension (RFC 5280 §4.2.1.10).
const NAME_CONSTRAINTS: &[u64] = &[2, 5, 29, 30];

/// Whether a root is limited to its trust domain. Counts when the root is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Constraints {
    /// URIs of the trust domain only, no DNS names, no IP addresses. A stolen root is worth
    /// nothing elsewhere. Peers that verify with rustls' own verifier refuse such a root.
    #[default]
    On,
    /// No limit, as Istio's own roots.
    Off,
}

/// The root, ready to sign.
pub struct Root {
    certificate: CertificateDer<'static>,
    pem: String,
    issuer: Issuer<'static, KeyPair>,
    not_after: SystemTime,
}

impl Root {
    /// The root of `trust_domain` in `state`, made on first use.
    ///
    /// Two processes that start together end up with the same root.
    ///
    /// # Errors
    /// When the state cannot be read or written, is damaged, or is for another trust domain; when a
    /// new root cannot be limited as `constraints` says.
    pub fn open(
        state: &State,
        trust_domain: &TrustDomain,
        constraints: Constraints,
    ) -> Result<Self, Error> {
        if state.read(FILE)?.is_none() {
            state.create(FILE, make(trust_domain, constraints)?.as_bytes())?;
        }
        let path = state.path(FILE);
        let content = state.read(FILE)?.ok_or_else(|| Error::Root(path.clone()))?;
        let root = Self::parse(&content, &path, trust_domain)?;
        state.create(PUBLIC_FILE, root.pem.as_bytes())?;
        Ok(root)
    }

    fn parse(content: &[u8], path: &Path, trust_domain: &TrustDomain) -> Result<Self, Error> {
        let damaged = || Error::Root(path.into());
        let text = std::str::from_utf8(content).map_err(|_| damaged())?;
        let key = KeyPair::from_pem(text).map_err(|_| damaged())?;
        let certificate = CertificateDer::from_pem_slice(content).map_err(|_| damaged())?;
        let (_, parsed) = X509Certificate::from_der(&certificate).map_err(|_| damaged())?;
        let found = parsed.subject().iter_organization().next();
        let found = found.and_then(|name| name.as_str().ok()).ok_or_else(damaged)?;
        if found != trust_domain.as_str() {
            let (found, wanted) = (found.to_owned(), trust_domain.clone());
            return Err(Error::TrustDomain { found, wanted });
        }
        if parsed.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            return Err(damaged());
        }
        let seconds = u64::try_from(parsed.validity().not_after.timestamp());
        let not_after =
            SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.map_err(|_| damaged())?);
        let at = text.find(CERTIFICATE).ok_or_else(damaged)?;
        let pem = text[at..].to_owned();
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        Ok(Self { pem, issuer, not_after, certificate })
    }

    /// The certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The certificate as PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// SHA-256 of the certificate: what join tokens carry.
    pub fn digest(&self) -> [u8; 32] {
        provider::sha256(&self.certificate)
    }

    /// After this it certifies nothing.
    pub(super) fn not_after(&self) -> SystemTime {
        self.not_after
    }

    pub(super) fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }
}

/// A serial number that nobody can guess: 16 bytes, positive (RFC 5280 §4.1.2.2).
pub(super) fn serial() -> Result<SerialNumber, Error> {
    let mut bytes = [0; 16];
    provider::fill_random(&mut bytes).map_err(|_| rcgen::Error::RingUnspecified)?;
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn make(trust_domain: &TrustDomain, constraints: Constraints) -> Result<Zeroizing<String>, Error> {
    let now = SystemTime::now();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, trust_domain.as_str());
    params.distinguished_name.push(DnType::CommonName, "Culvert root");
    params.serial_number = Some(serial()?);
    params.not_before = (now - Duration::from_secs(300)).into();
    params.not_after = (now + LIFETIME).into();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    if constraints == Constraints::On {
        let value = encode_name_constraints(trust_domain)
            .ok_or_else(|| Error::Unlimited(trust_domain.clone()))?;
        let mut extension = CustomExtension::from_oid_content(NAME_CONSTRAINTS, value);
        extension.set_criticality(true);
        params.custom_extensions.push(extension);
    }
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    let key = Zeroizing::new(key.serialize_pem());
    Ok(Zeroizing::new(format!("{}{}", key.as_str(), certificate.pem())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::test_support::Scratch;

    fn domain(name: &str) -> TrustDomain {
        TrustDomain::new(name).unwrap()
    }

    #[test]
    fn root_is_made_once_and_kept() {
        let scratch = Scratch::new("root-kept");
        let state = State::open(&scratch.path().join("s")).unwrap();
        let first = Root::open(&state, &domain("mesh.test"), Constraints::On).unwrap();
        let again = Root::open(&state, &domain("mesh.test"), Constraints::Off).unwrap();
        assert_eq!(first.digest(), again.digest());
        assert!(state.read(PUBLIC_FILE).unwrap().unwrap().starts_with(b"-----BEGIN CERT"));
        let error = Root::open(&state, &domain("other.test"), Constraints::On).err().unwrap();
        assert_eq!(error.to_string(), "root is for trust domain mesh.test, not other.test");
    }

    #[test]
    fn root_that_could_certify_nobody_is_not_made() {
        let scratch = Scratch::new("root-unlimited");
        let state = State::open(&scratch.path().join("s")).unwrap();
        let error = Root::open(&state, &domain("10.0.0.1"), Constraints::On).err().unwrap();
        assert!(error.to_string().ends_with("use --root-constraints off"), "{error}");
        Root::open(&state, &domain("10.0.0.1"), Constraints::Off).unwrap();
    }

    #[test]
    fn damaged_root_is_not_replaced() {
        let scratch = Scratch::new("root-damaged");
        let state = State::open(&scratch.path().join("s")).unwrap();
        state.create(FILE, b"half a file").unwrap();
        let error = Root::open(&state, &domain("mesh.test"), Constraints::On).err().unwrap();
        assert!(error.to_string().ends_with("root.pem holds no usable root"), "{error}");
        assert_eq!(state.read(FILE).unwrap().unwrap().as_slice(), b"half a file");
    }

    #[test]
    fn constraints_are_in_the_root_when_asked_for() {
        let scratch = Scratch::new("root-constraints");
        for (name, constraints, expected) in
            [("on", Constraints::On, true), ("off", Constraints::Off, false)]
        {
            let state = State::open(&scratch.path().join(name)).unwrap();
            let root = Root::open(&state, &domain("mesh.test"), constraints).unwrap();
            let (_, parsed) = X509Certificate::from_der(root.certificate()).unwrap();
            assert_eq!(parsed.name_constraints().unwrap().is_some(), expected);
        }
    }
}
