//! Certificates as an input describes them, and what that means for whether they count.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose,
};
use shared::identity::{SpiffeId, TrustDomain};

use super::NOW;
use crate::der::{SEQUENCE, element};
use crate::name_constraints::Subtrees;
use crate::pieces::Pieces;

const HOUR: u64 = 3600;
const ALT_NAME: &[u64] = &[2, 5, 29, 17];
const NAME_CONSTRAINTS: &[u64] = &[2, 5, 29, 30];
const URI: u8 = 0x86;
/// The kinds of name that there are (RFC 5280 §4.2.1.6).
const KINDS: [u8; 9] = [0xa0, 0x81, 0x82, 0xa3, 0xa4, 0xa5, URI, 0x87, 0x88];

/// What a certificate should say.
pub(super) struct Described {
    names: Vec<u8>,
    pub(super) uris: Vec<String>,
    /// Hours from now.
    pub(super) life: (i64, i64),
    authority: IsCa,
    /// Server 1, client 2; nothing: for everything.
    usages: u8,
    limits: Option<Subtrees>,
    pub(super) foreign: bool,
}

impl Described {
    pub(super) fn read(pieces: &mut Pieces<'_>) -> Self {
        let mut described = Self {
            names: Vec::new(),
            uris: Vec::new(),
            life: [(-1, 1), (-1, 0), (0, 1), (-2, -1), (1, 2)][usize::from(pieces.byte() % 5)],
            authority: IsCa::NoCa,
            usages: 0,
            limits: None,
            foreign: false,
        };
        let form = pieces.byte();
        described.authority = match form & 7 {
            0 => IsCa::NoCa,
            1 => IsCa::ExplicitNoCa,
            2 => IsCa::Ca(BasicConstraints::Unconstrained),
            length => IsCa::Ca(BasicConstraints::Constrained(length - 3)),
        };
        described.usages = form >> 3 & 3;
        described.foreign = form & 0x20 != 0;
        let mut readable = true;
        for _ in 0..form >> 6 {
            let (tag, text) = (pieces.byte(), pieces.text());
            // Nobody reads on behind a name of no known kind.
            readable &= KINDS.contains(&tag);
            if tag == URI && readable {
                described.uris.push(text.clone());
            }
            described.names.extend(element(tag, &[text.as_bytes()]));
        }
        if pieces.byte() == 1 {
            described.limits = Some(Subtrees::read(pieces));
        }
        described
    }

    pub(super) fn params(&self, name: &str) -> CertificateParams {
        let mut params = params(name);
        let at = |hours: i64| {
            let seconds = NOW.saturating_add_signed(hours * HOUR.cast_signed());
            SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
        };
        params.not_before = at(self.life.0).into();
        params.not_after = at(self.life.1).into();
        params.is_ca = self.authority;
        params.key_usages = match self.authority {
            IsCa::Ca(_) => vec![KeyUsagePurpose::KeyCertSign],
            _ => vec![KeyUsagePurpose::DigitalSignature],
        };
        let usages = [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let chosen = (0..2).filter(|bit| self.usages & 1 << bit != 0);
        params.extended_key_usages = chosen.map(|bit| usages[bit].clone()).collect();
        if !self.names.is_empty() {
            let value = element(SEQUENCE, &[&self.names]);
            params.custom_extensions.push(CustomExtension::from_oid_content(ALT_NAME, value));
        }
        let limits = self.limits.as_ref().map(Subtrees::content);
        let limits = limits.filter(|content| !content.is_empty());
        let limits = limits.map(|content| constraints(element(SEQUENCE, &[&content])));
        params.custom_extensions.extend(limits);
        params
    }

    pub(super) fn identities(&self) -> impl Iterator<Item = SpiffeId> {
        self.uris.iter().filter_map(|uri| uri.parse().ok())
    }

    fn must_be_alive(&self) {
        assert!(self.life.0 <= 0 && self.life.1 >= 0, "it is not valid now");
        assert!(!self.foreign, "it was signed with another key");
    }

    pub(super) fn must_count(&self, usage: u8) {
        self.must_be_alive();
        assert!(!matches!(self.authority, IsCa::Ca(_)), "an authority is no workload");
        assert!(self.usages == 0 || self.usages & usage != 0, "it is for something else");
    }

    pub(super) fn must_count_above(&self, below: usize) {
        self.must_be_alive();
        match &self.authority {
            IsCa::Ca(BasicConstraints::Constrained(most)) => {
                assert!(below <= usize::from(*most), "the chain is too long");
            }
            IsCa::Ca(BasicConstraints::Unconstrained) => {}
            _ => panic!("it may not sign"),
        }
        let limits = self.limits.as_ref().is_some_and(Subtrees::has_uris);
        assert!(!limits, "only roots may limit URIs");
    }

    /// Names one workload of our trust domain, and nothing is odd about it.
    pub(super) fn is_ordinary(&self) -> bool {
        let ours = |id: SpiffeId| *id.trust_domain() == TrustDomain::default();
        let name =
            [self.uris.first()].into_iter().flatten().map(|uri| element(URI, &[uri.as_bytes()]));
        self.life == (-1, 1)
            && !self.foreign
            && matches!(self.authority, IsCa::NoCa | IsCa::ExplicitNoCa)
            && matches!(self.usages, 0 | 3)
            && self.limits.is_none()
            && self.uris.len() == 1
            && self.identities().all(ours)
            && self.identities().count() == 1
            && name.eq([self.names.clone()])
    }

    pub(super) fn is_ordinary_above(&self) -> bool {
        self.life == (-1, 1)
            && !self.foreign
            && matches!(self.authority, IsCa::Ca(BasicConstraints::Unconstrained))
            && matches!(self.usages, 0 | 3)
            && self.limits.is_none()
            && self.names.is_empty()
    }
}

pub(super) fn constraints(value: Vec<u8>) -> CustomExtension {
    let mut extension = CustomExtension::from_oid_content(NAME_CONSTRAINTS, value);
    extension.set_criticality(true);
    extension
}

pub(super) fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}
