//! Certificate requests of a node, up to the certificate that follows from them.
//!
//! First byte: the form of the rest. 0: PEM. 1: DER. Else: what the request is built from and
//! then signed with the right key, so that the signature is not what stops it.
//! Laws (docs/ca.md): a certificate has one URI name, that of a pod of the node, no other name, no
//! right to sign, the key that was asked for, and lives no longer than it may.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use rcgen::{KeyPair, PublicKeyData as _, SigningKey as _};
use rustls::pki_types::CertificateSigningRequestDer;
use rustls::pki_types::pem::PemObject as _;
use shared::identity::{SpiffeId, TrustDomain};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer as _, Pem, X509Certificate};
use ztunnel::ca::csr::Csr;
use ztunnel::ca::issue::{self, Issued, Request};
use ztunnel::ca::root::Root;
use ztunnel::ca::state::State;
use ztunnel::ca::{Constraints, NodePods};

use crate::der::{BIT_STRING, OCTET_STRING, OID, SEQUENCE, SET, element, pem};
use crate::pieces::Pieces;
use crate::planted;

const NODE: &str = "node-a";
const LIMIT: Duration = Duration::from_secs(86_400);
/// X.509 counts in whole seconds.
const SECOND: Duration = Duration::from_secs(1);
const CRITICAL: &[u8] = &[0x01, 0x01, 0xff];
const EXTENSION_REQUEST: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x0e];
const ECDSA_WITH_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
const ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];

static KEY: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::generate().expect("randomness"));

static ROOT: LazyLock<Root> = LazyLock::new(|| {
    let dir = std::env::temp_dir().join(format!("culvert-laws-{}", std::process::id()));
    let root = State::open(&dir)
        .and_then(|state| Root::open(&state, &TrustDomain::default(), Constraints::On));
    std::fs::remove_dir_all(&dir).expect("a directory of ours");
    root.expect("a private directory")
});

/// All pods of namespace `team` run on the node.
struct Team;

impl NodePods for Team {
    fn may_act_for(&self, node: &str, id: &SpiffeId) -> bool {
        node == NODE && id.namespace() == "team"
    }
}

/// Checks the laws on one input.
pub fn check(input: &[u8]) {
    let mut pieces = Pieces::new(input);
    let (text, metadata, lifetime_seconds) = match pieces.byte() {
        0 => (String::from_utf8_lossy(pieces.rest()).into_owned(), None, 0),
        1 => (pem("CERTIFICATE REQUEST", pieces.rest()), None, 0),
        _ => built(pieces),
    };
    // As a node does, unless the input says otherwise.
    let asked = ztunnel::ca::csr::parse(&text).ok().map(|csr| csr.identity.to_string());
    let identity = metadata.or(asked);
    let request =
        Request { node: NODE, csr: &text, identity: identity.as_deref(), lifetime_seconds };
    match issue::judge(request, &Team, &TrustDomain::default(), LIMIT) {
        Ok((csr, lifetime)) => {
            one_name_is_asked_for(&text);
            assert!(lifetime <= LIMIT && lifetime > Duration::ZERO);
            let now = SystemTime::now();
            let issued = issue::certify(&ROOT, &csr, lifetime).expect("what was judged is made");
            certified(&csr, &issued, lifetime, now);
        }
        Err(refusal) => {
            assert!(refusal.code().starts_with("CA_"));
            planted(refusal.code() == "CA_TRUST_DOMAIN");
        }
    }
}

/// Wherever in the request.
fn one_name_is_asked_for(text: &str) {
    let der = CertificateSigningRequestDer::from_pem_slice(text.as_bytes()).expect("PEM");
    let (_, request) = X509CertificationRequest::from_der(&der).expect("a request");
    let extensions = request.certification_request_info.iter_attributes().filter_map(|one| {
        let ParsedCriAttribute::ExtensionRequest(asked) = one.parsed_attribute() else {
            return None;
        };
        Some(&asked.extensions)
    });
    let names = extensions.flatten().filter_map(|one| match one.parsed_extension() {
        ParsedExtension::SubjectAlternativeName(names) => Some(names.general_names.len()),
        _ => None,
    });
    assert_eq!(names.sum::<usize>(), 1);
}

/// A request with the right signature; what the metadata say, if not the same; and a lifetime.
fn built(mut pieces: Pieces<'_>) -> (String, Option<String>, i64) {
    let lifetime =
        [0, 60, 86_400, 86_401, -1, i64::MAX, i64::MIN, 1][usize::from(pieces.byte() % 8)];
    let metadata = Some(pieces.text()).filter(|text| !text.is_empty());
    let subject = element(SEQUENCE, &[pieces.bytes()]);
    let key = public_key(pieces.byte());
    let mut attributes = Vec::new();
    while !pieces.is_empty() {
        let extensions = extensions(&mut pieces);
        let set = element(SET, &[&element(SEQUENCE, &[&extensions])]);
        attributes.extend(element(SEQUENCE, &[&element(OID, &[EXTENSION_REQUEST]), &set]));
    }
    let attributes = element(0xa0, &[&attributes]);
    let signed = element(SEQUENCE, &[&[0x02, 0x01, 0x00], &subject, &key, &attributes]);
    let algorithm = element(SEQUENCE, &[&element(OID, &[ECDSA_WITH_SHA256])]);
    let signature = KEY.sign(&signed).expect("a key that signs");
    let signature = element(BIT_STRING, &[&[0], &signature]);
    let request = element(SEQUENCE, &[&signed, &algorithm, &signature]);
    (pem("CERTIFICATE REQUEST", &request), metadata, lifetime)
}

/// Our key, in its usual form, compressed, or with something odd about it.
fn public_key(form: u8) -> Vec<u8> {
    let usual = KEY.subject_public_key_info();
    let (algorithm, point) = usual[2..].split_at(usual.len() - 2 - 68);
    let point = &point[3..];
    let compressed = 2 + (point[64] & 1);
    let (odd, unused): (Vec<u8>, u8) = match form {
        1 => ([&[compressed][..], &point[1..33]].concat(), 0),
        2 => ([&[compressed + 4][..], &point[1..]].concat(), 0),
        3 => (point.to_vec(), 1),
        4 => (vec![0], 0),
        5 => ([point, &[0]].concat(), 0),
        _ => return usual,
    };
    element(SEQUENCE, &[algorithm, &element(BIT_STRING, &[&[unused], &odd])])
}

/// The extensions of one request for extensions: names are collected into one alternative name.
fn extensions(pieces: &mut Pieces<'_>) -> Vec<u8> {
    let mut extensions = Vec::new();
    let mut names = Vec::new();
    let mut add = |oid: &[u8], critical: bool, value: &[u8]| {
        let critical = if critical { CRITICAL } else { &[] };
        let value = element(OCTET_STRING, &[value]);
        extensions.extend(element(SEQUENCE, &[&element(OID, &[oid]), critical, &value]));
    };
    while !pieces.is_empty() {
        let kind = pieces.byte();
        let critical = kind & 0x10 != 0;
        match kind & 0x0f {
            0 => names.extend(element(0x86, &[pieces.bytes()])),
            1 => names.extend(element(0x82, &[pieces.bytes()])),
            2 => names.extend(element(pieces.byte(), &[pieces.bytes()])),
            3 => add(ALT_NAME, critical, &element(SEQUENCE, &[&std::mem::take(&mut names)])),
            4 => add(ALT_NAME, critical, pieces.bytes()),
            5 => add(BASIC_CONSTRAINTS, critical, pieces.bytes()),
            6 => add(KEY_USAGE, critical, pieces.bytes()),
            7 => add(pieces.bytes(), critical, pieces.bytes()),
            _ => break,
        }
    }
    if !names.is_empty() {
        add(ALT_NAME, true, &element(SEQUENCE, &[&names]));
    }
    extensions
}

fn certified(csr: &Csr, issued: &Issued, lifetime: Duration, now: SystemTime) {
    let (_, pem) = x509_parser::pem::parse_x509_pem(issued.pem.as_bytes()).expect("PEM");
    let Pem { contents, .. } = &pem;
    let (rest, leaf) = X509Certificate::from_der(contents).expect("a certificate");
    assert!(rest.is_empty());
    names(csr, &leaf);
    let usage = leaf.key_usage().expect("one").expect("present").value;
    assert!(usage.digital_signature() && !usage.key_cert_sign() && !usage.crl_sign());
    assert!(!leaf.basic_constraints().expect("one").expect("present").value.ca);
    let known = |extension: &ParsedExtension<'_>| {
        matches!(
            extension,
            ParsedExtension::SubjectAlternativeName(_)
                | ParsedExtension::KeyUsage(_)
                | ParsedExtension::ExtendedKeyUsage(_)
                | ParsedExtension::BasicConstraints(_)
                | ParsedExtension::AuthorityKeyIdentifier(_)
                | ParsedExtension::SubjectKeyIdentifier(_)
        )
    };
    assert!(leaf.extensions().iter().all(|one| known(one.parsed_extension())), "something extra");
    assert_eq!(leaf.subject().iter().count(), 0, "the subject is ours to say");
    assert_eq!(leaf.public_key().raw, csr.public_key, "another key");
    let (_, root) = X509Certificate::from_der(ROOT.certificate()).expect("a certificate");
    assert_eq!(leaf.issuer(), root.subject());
    times(&leaf, issued, lifetime, now);
}

fn names(csr: &Csr, leaf: &X509Certificate<'_>) {
    let names = leaf.subject_alternative_name().expect("one").expect("present");
    let [GeneralName::URI(name)] = names.value.general_names.as_slice() else {
        panic!("other names: {names:?}")
    };
    assert_eq!(**name, csr.identity.to_string());
    let identity: SpiffeId = name.parse().expect("a workload's identity");
    assert_eq!(identity.to_string(), **name);
    assert_eq!(*identity.trust_domain(), TrustDomain::default());
    assert!(Team.may_act_for(NODE, &identity), "no pod of the node");
}

fn times(leaf: &X509Certificate<'_>, issued: &Issued, lifetime: Duration, now: SystemTime) {
    let at = |seconds: i64| {
        SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).expect("after 1970"))
    };
    let (start, end) = (leaf.validity().not_before, leaf.validity().not_after);
    let (start, end) = (at(start.timestamp()), at(end.timestamp()));
    assert_eq!(end, issued.not_after);
    assert_eq!(end.duration_since(start).expect("a life"), lifetime);
    let back = now.duration_since(start).unwrap_or_default();
    let most = (lifetime / 10).min(Duration::from_secs(300));
    assert!(back <= most + SECOND, "back-dated by {back:?}");
}
