//! Requests, good and bad.

use rcgen::{
    Attribute, BasicConstraints, CertificateParams, DistinguishedName, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P384_SHA384, SanType,
};

use super::*;

const WEB: &str = "spiffe://cluster.local/ns/team/sa/web";

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

fn request_with(key: &KeyPair, change: impl FnOnce(&mut CertificateParams)) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![uri(WEB)];
    change(&mut params);
    params.serialize_request(key).unwrap().pem().unwrap()
}

fn refusal(change: impl FnOnce(&mut CertificateParams)) -> Refusal {
    parse(&request_with(&KeyPair::generate().unwrap(), change)).unwrap_err()
}

#[test]
fn identity_and_key_are_taken() {
    use rcgen::PublicKeyData as _;
    let key = KeyPair::generate().unwrap();
    let csr = parse(&request_with(&key, |_| ())).unwrap();
    assert_eq!(csr.identity.to_string(), WEB);
    assert_eq!(csr.public_key, key.subject_public_key_info());
}

#[test]
fn exactly_one_uri_is_allowed() {
    let other = "spiffe://cluster.local/ns/team/sa/other";
    assert_eq!(refusal(|params| params.subject_alt_names.push(uri(other))), Refusal::NameCount);
    assert_eq!(refusal(|params| params.subject_alt_names.clear()), Refusal::NameCount);
    assert_eq!(
        refusal(|params| params.subject_alt_names = vec![uri("https://web.team")]),
        Refusal::Identity
    );
}

#[test]
fn other_kinds_of_name_are_refused() {
    let dns = SanType::DnsName("web.team".try_into().unwrap());
    let ip = SanType::IpAddress([10, 0, 0, 1].into());
    let mail = SanType::Rfc822Name("a@b.test".try_into().unwrap());
    for name in [dns, ip, mail] {
        let alone = refusal(|params| params.subject_alt_names = vec![name.clone()]);
        assert_eq!(alone, Refusal::NameKind);
        let beside = refusal(|params| params.subject_alt_names.push(name));
        assert_eq!(beside, Refusal::NameKind);
    }
}

/// A second request for extensions in the same certificate request was not looked at.
#[test]
fn names_anywhere_in_the_request_count() {
    // An alternative name for the host `a`, as a set of one list of extensions.
    const OTHER: &[u8] = b"\x31\x10\x30\x0e\x30\x0c\x06\x03\x55\x1d\x11\x04\x05\x30\x03\x82\x01a";
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![uri(WEB)];
    let attributes =
        vec![Attribute { oid: &[1, 2, 840, 113_549, 1, 9, 14], values: OTHER.to_vec() }];
    let key = KeyPair::generate().unwrap();
    let request = params.serialize_request_with_attributes(&key, attributes).unwrap();
    assert_eq!(parse(&request.pem().unwrap()), Err(Refusal::NameKind));
}

#[test]
fn power_to_sign_is_refused() {
    for constraint in [BasicConstraints::Unconstrained, BasicConstraints::Constrained(0)] {
        let found = refusal(|params| params.is_ca = IsCa::Ca(constraint));
        assert_eq!(found, Refusal::Authority);
    }
    for usage in [KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign] {
        assert_eq!(refusal(|params| params.key_usages = vec![usage]), Refusal::Authority);
    }
    let modest = request_with(&KeyPair::generate().unwrap(), |params| {
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    });
    parse(&modest).unwrap();
}

#[test]
fn other_keys_are_refused() {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    assert_eq!(parse(&request_with(&key, |_| ())), Err(Refusal::Key));
}

#[test]
fn every_flipped_byte_is_refused_or_changes_nothing() {
    let key = KeyPair::generate().unwrap();
    let good = request_with(&key, |_| ());
    let csr = parse(&good).unwrap();
    let der = CertificateSigningRequestDer::from_pem_slice(good.as_bytes()).unwrap();
    for at in 0..der.len() {
        let mut bad = der.to_vec();
        bad[at] ^= 1;
        if let Ok(read) = parse(&pem(&bad)) {
            assert_eq!(read, csr, "byte {at}");
        }
    }
}

#[test]
fn rubbish_is_unreadable() {
    for text in
        ["", "x", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"]
    {
        assert_eq!(parse(text), Err(Refusal::Unreadable));
    }
    assert_eq!(parse(&"x".repeat(LARGEST_BYTES + 1)), Err(Refusal::Unreadable));
}

fn pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----\n")
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(0_u8.., 0..400)) {
        let _ = parse(&pem(&bytes));
    }
}
