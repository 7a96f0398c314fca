//! The certificates that a peer presents, up to the identity that it is believed to have.
//!
//! First byte: 0: the rest is a certificate in place of one that was signed. Else: what a chain is
//! built from and then signed with the right keys, or with a wrong one where it says so.
//! Laws: of a signed certificate nothing can be changed; a chain counts only while it is valid, for
//! what it was made for, below a root, and for names that the root permits; the identity is the
//! first in the leaf and of our trust domain; and an ordinary chain does count.

mod described;

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rcgen::{BasicConstraints, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use shared::identity::{CertificateError, SpiffeId, TrustDomain, WorkloadCertificate};
use shared::tls::{Roots, client_verifier, encode_name_constraints, server_name, server_verifier};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use self::described::{Described, constraints, params};
use crate::der::{SEQUENCE, element};
use crate::name_constraints::Subtrees;
use crate::pieces::Pieces;
use crate::planted;

/// A root of `ztunnel ca`, and a certificate below it.
const SIGNED_ROOT: &[u8] = include_bytes!("certificate_chain/root.der");
const SIGNED_LEAF: &[u8] = include_bytes!("certificate_chain/leaf.der");
/// When that certificate is valid: seconds since 1970.
const NOW: u64 = include!("certificate_chain/now");

/// Who the seeds are, where they count.
const SEEDS_IDENTITY: &str = "spiffe://cluster.local/ns/team/sa/web";

/// Of two roots, of two certificates between, and of the leaf.
static KEYS: LazyLock<[KeyPair; 5]> =
    LazyLock::new(|| std::array::from_fn(|_| KeyPair::generate().expect("randomness")));
const ROOT: usize = 0;
const FOREIGN: usize = 1;
const BETWEEN: usize = 2;
const LEAF: usize = 4;

/// Checks the laws on one input.
pub fn check(input: &[u8]) {
    let mut pieces = Pieces::new(input);
    match pieces.byte() {
        0 => of_another(pieces.rest()),
        _ => built(&mut pieces),
    }
}

/// Only what was signed counts.
fn of_another(leaf: &[u8]) {
    let roots = Roots::new(vec![SIGNED_ROOT.into()]).expect("a root");
    let verifier = client_verifier(Arc::new(roots), TrustDomain::default());
    let verdict = verifier.verify_client_cert(&leaf.into(), &[], now());
    if leaf == SIGNED_LEAF {
        verdict.expect("a good certificate");
    } else if verdict.is_ok() {
        let signed = |der| X509Certificate::from_der(der).expect("it counted").1;
        let same = signed(leaf).tbs_certificate == signed(SIGNED_LEAF).tbs_certificate;
        assert!(same, "a certificate that nobody signed");
    }
}

fn built(pieces: &mut Pieces<'_>) {
    let (root, limits) = root(pieces);
    let Ok(roots) = Roots::new(vec![root]) else { return };
    let roots = Arc::new(roots);
    let leaf = Described::read(pieces);
    let count = usize::from(pieces.byte() % 3);
    let between: Vec<Described> = (0..count).map(|_| Described::read(pieces)).collect();
    let Some(chain) = chain(&leaf, &between) else { return };
    let (end, above) = chain.split_first().expect("a leaf");
    let clients = client_verifier(Arc::clone(&roots), TrustDomain::default());
    let as_client = clients.verify_client_cert(end, above, now());
    let wanted: Vec<SpiffeId> = leaf.identities().collect();
    let servers = server_verifier(Arc::clone(&roots), &wanted);
    let as_server = servers.verify_server_cert(end, above, &server_name(), &[], now());
    for (counts, usage) in [(as_client.is_ok(), 2), (as_server.is_ok(), 1)] {
        if counts {
            leaf.must_count(usage);
            between.iter().enumerate().for_each(|(below, one)| one.must_count_above(below));
            for uri in between.iter().chain([&leaf]).flat_map(|one| &one.uris) {
                assert_ne!(limits.permit(uri), Some(false), "{uri} is not for this root");
            }
        }
    }
    if as_client.is_ok() {
        let identity = wanted.first().expect("an identity");
        assert_eq!(*identity.trust_domain(), TrustDomain::default());
        planted(identity.to_string() != SEEDS_IDENTITY);
    }
    let ordinary = leaf.is_ordinary() && between.iter().all(Described::is_ordinary_above);
    if ordinary && leaf.uris.iter().all(|uri| limits.permit(uri) == Some(true)) {
        as_client.as_ref().expect("an ordinary client counts");
        as_server.as_ref().expect("an ordinary server counts");
    }
    ours(chain, &wanted);
}

/// The same certificates as our own, with their key.
fn ours(chain: Vec<CertificateDer<'static>>, identities: &[SpiffeId]) {
    let key = PrivateKeyDer::Pkcs8(KEYS[LEAF].serialize_der().into());
    let roots = Roots::new(vec![SIGNED_ROOT.into()]).expect("a root");
    match WorkloadCertificate::new(chain, key, roots) {
        Ok(certificate) => {
            assert_eq!(Some(certificate.identity()), identities.first());
            assert!(!certificate.serial().is_empty());
        }
        Err(CertificateError::NoIdentity) => assert!(identities.is_empty()),
        Err(CertificateError::Chain) => {}
        Err(error) => panic!("{error}"),
    }
}

/// A root: of any name, of our trust domain, or with limits from the input.
fn root(pieces: &mut Pieces<'_>) -> (CertificateDer<'static>, Subtrees) {
    let mut params = params("root");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let (limits, value) = match pieces.byte() % 3 {
        0 => (Subtrees::default(), None),
        1 => {
            let trust_domain = TrustDomain::default();
            let limits = Subtrees::of_uri(trust_domain.as_str());
            (limits, encode_name_constraints(&trust_domain))
        }
        _ => {
            let limits = Subtrees::read(pieces);
            let value = element(SEQUENCE, &[&limits.content()]);
            (limits, Some(value))
        }
    };
    params.custom_extensions.extend(value.map(constraints));
    let root = params.self_signed(&KEYS[ROOT]).expect("a key that signs");
    (root.into(), limits)
}

/// The leaf, then what is above it up to the root. `None` for what the builder does not take.
fn chain(leaf: &Described, between: &[Described]) -> Option<Vec<CertificateDer<'static>>> {
    let mut chain = Vec::new();
    for (at, described) in [leaf].into_iter().chain(between).enumerate() {
        let (name, key) = match at {
            0 => ("leaf".to_owned(), LEAF),
            at => (format!("between {at}"), BETWEEN + at - 1),
        };
        let (issuer, issuer_key) = match at == between.len() {
            true => ("root".to_owned(), ROOT),
            false => (format!("between {}", at + 1), BETWEEN + at),
        };
        let issuer_key = if described.foreign { FOREIGN } else { issuer_key };
        let issuer = Issuer::new(params(&issuer), &KEYS[issuer_key]);
        let signed = described.params(&name).signed_by(&KEYS[key], &issuer);
        chain.push(signed.ok()?.into());
    }
    Some(chain)
}

fn now() -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(NOW))
}
