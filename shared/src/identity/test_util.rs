//! A certificate authority in memory, for tests.
//!
//! ```
//! # #[cfg(feature = "test-util")] {
//! use shared::identity::{SpiffeId, TrustDomain, test_util::TestCa};
//! let ca = TestCa::new(&TrustDomain::default());
//! let id: SpiffeId = "spiffe://cluster.local/ns/team/sa/web".parse().unwrap();
//! let certificate = ca.issue(&id);                   // one hour
//! assert_eq!(certificate.identity(), &id);
//! # }
//! ```
#![expect(clippy::unwrap_used, reason = "a failure in a test's authority fails the test")]

use std::time::{Duration, SystemTime};

use futures_util::future::{self, BoxFuture};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::CertificateDer;

use super::{Authority, Error, SpiffeId, TrustDomain, WorkloadCertificate};
use crate::tls::encode_name_constraints;

/// OID of the name constraints extension.
const NAME_CONSTRAINTS: &[u64] = &[2, 5, 29, 30];

/// Issues whatever a test wants, good or bad.
pub struct TestCa {
    root: CertificateDer<'static>,
    root_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate as the files that an operator would have.
pub struct PemPair {
    /// Leaf, as PEM.
    pub chain: String,
    /// PKCS#8 key, as PEM.
    pub key: String,
}

impl TestCa {
    /// A root without constraints, as most meshes have.
    pub fn new(trust_domain: &TrustDomain) -> Self {
        Self::with_root(trust_domain, |_| ())
    }

    /// A root that may only certify URIs of `trust_domain`.
    pub fn constrained(trust_domain: &TrustDomain) -> Self {
        Self::with_root(trust_domain, |params| {
            let value = encode_name_constraints(trust_domain).unwrap();
            let mut extension = CustomExtension::from_oid_content(NAME_CONSTRAINTS, value);
            extension.set_criticality(true);
            params.custom_extensions.push(extension);
        })
    }

    fn with_root(trust_domain: &TrustDomain, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, format!("test root of {trust_domain}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap();
        Self { root_pem: root.pem(), root: root.into(), issuer: Issuer::new(params, key) }
    }

    /// The root as PEM.
    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// The root.
    pub fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// A certificate for `id`, valid for an hour.
    pub fn issue(&self, id: &SpiffeId) -> WorkloadCertificate {
        self.issue_with(id, |_| ())
    }

    /// A certificate for `id` that expires `lifetime` from now.
    pub fn issue_for(&self, id: &SpiffeId, lifetime: Duration) -> WorkloadCertificate {
        self.issue_with(id, |params| params.not_after = (SystemTime::now() + lifetime).into())
    }

    /// A certificate for `id` that has expired an hour ago.
    pub fn issue_expired(&self, id: &SpiffeId) -> WorkloadCertificate {
        self.issue_with(id, |params| {
            params.not_after = (SystemTime::now() - Duration::from_secs(3600)).into();
            params.not_before = (SystemTime::now() - Duration::from_secs(7200)).into();
        })
    }

    /// A certificate for `id` after `change` has been at it.
    pub fn issue_with(
        &self,
        id: &SpiffeId,
        change: impl FnOnce(&mut CertificateParams),
    ) -> WorkloadCertificate {
        let pair = self.issue_pem_with(id, change);
        let (chain, key) = (pair.chain.as_bytes(), pair.key.as_bytes());
        WorkloadCertificate::from_pem(chain, key, self.root_pem.as_bytes()).unwrap()
    }

    /// Like [`TestCa::issue`], as PEM texts.
    pub fn issue_pem(&self, id: &SpiffeId) -> PemPair {
        self.issue_pem_with(id, |_| ())
    }

    /// Like [`TestCa::issue_with`], as PEM texts.
    pub fn issue_pem_with(
        &self,
        id: &SpiffeId,
        change: impl FnOnce(&mut CertificateParams),
    ) -> PemPair {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(id.to_string().try_into().unwrap())];
        params.not_before = (SystemTime::now() - Duration::from_secs(60)).into();
        params.not_after = (SystemTime::now() + Duration::from_secs(3600)).into();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        PemPair { chain: leaf.pem(), key: key.serialize_pem() }
    }
}

impl Authority for TestCa {
    fn issue<'a>(&'a self, id: &'a SpiffeId) -> BoxFuture<'a, Result<WorkloadCertificate, Error>> {
        Box::pin(future::ready(Ok(Self::issue(self, id))))
    }
}
