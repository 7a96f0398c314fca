//! What is decided, and what a certificate holds.

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::*;
use crate::ca::Constraints;
use crate::ca::state::State;
use crate::ca::test_support::Scratch;

const WEB: &str = "spiffe://cluster.local/ns/team/sa/web";
const DAY: Duration = Duration::from_secs(86_400);

/// `web` and a stranger's pod run on node `a`.
struct OnNodeA;

impl NodePods for OnNodeA {
    fn may_act_for(&self, node: &str, id: &SpiffeId) -> bool {
        node == "a" && id.service_account() == "web"
    }
}

fn request(name: &str) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(name.try_into().unwrap())];
    params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap()
}

fn verdict(
    node: &str,
    csr: &str,
    identity: Option<&str>,
    seconds: i64,
) -> Result<Duration, String> {
    let csr = request(csr);
    let request = Request { node, csr: &csr, identity, lifetime_seconds: seconds };
    judge(request, &OnNodeA, &TrustDomain::default(), DAY)
        .map(|(_, lifetime)| lifetime)
        .map_err(|refusal| refusal.code().to_owned())
}

#[test]
fn token_name_metadata_and_mesh_must_agree() {
    assert_eq!(verdict("a", WEB, Some(WEB), 0), Ok(DAY));
    let refused = |node, csr, identity| verdict(node, csr, identity, 0).unwrap_err();
    let other = "spiffe://cluster.local/ns/team/sa/other";
    assert_eq!(refused("b", WEB, Some(WEB)), "CA_POD_NOT_ON_NODE");
    assert_eq!(refused("a", other, Some(other)), "CA_POD_NOT_ON_NODE");
    assert_eq!(refused("a", WEB, Some(other)), "CA_IDENTITY_MISMATCH");
    assert_eq!(refused("a", other, Some(WEB)), "CA_IDENTITY_MISMATCH");
    assert_eq!(refused("a", WEB, None), "CA_METADATA");
    assert_eq!(refused("a", WEB, Some("web")), "CA_METADATA");
    let foreign = "spiffe://other.test/ns/team/sa/web";
    assert_eq!(refused("a", foreign, Some(foreign)), "CA_TRUST_DOMAIN");
}

#[test]
fn lifetime_has_a_limit() {
    assert_eq!(verdict("a", WEB, Some(WEB), 60), Ok(Duration::from_secs(60)));
    assert_eq!(verdict("a", WEB, Some(WEB), 86_400), Ok(DAY));
    for seconds in [86_401, i64::MAX, -1] {
        assert_eq!(verdict("a", WEB, Some(WEB), seconds).unwrap_err(), "CA_LIFETIME");
    }
}

#[test]
fn certificate_says_what_it_should_and_no_more() {
    let scratch = Scratch::new("issue-content");
    let state = State::open(&scratch.path().join("s")).unwrap();
    let root = Root::open(&state, &TrustDomain::default(), Constraints::On).unwrap();
    let csr = csr::parse(&request(WEB)).unwrap();
    let issued = certify(&root, &csr, DAY).unwrap();
    let (_, pem) = x509_parser::pem::parse_x509_pem(issued.pem.as_bytes()).unwrap();
    let (_, leaf) = X509Certificate::from_der(&pem.contents).unwrap();
    assert_eq!(leaf.public_key().raw, csr.public_key);
    let names = &leaf.subject_alternative_name().unwrap().unwrap();
    assert!(names.critical, "the subject is empty");
    assert!(matches!(names.value.general_names.as_slice(), [GeneralName::URI(WEB)]));
    assert!(!leaf.basic_constraints().unwrap().unwrap().value.ca);
    let usage = leaf.key_usage().unwrap().unwrap().value;
    assert!(usage.digital_signature() && !usage.key_cert_sign());
    let extended = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(extended.server_auth && extended.client_auth && !extended.any);
    leaf.verify_signature(Some(
        X509Certificate::from_der(root.certificate()).unwrap().1.public_key(),
    ))
    .unwrap();
}

#[test]
fn back_dating_is_within_a_tenth_and_within_the_lifetime() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_000_000_900);
    for (lifetime, back) in [(5, 0), (60, 6), (3600, 300), (86_400, 300)] {
        let (start, end) = validity(now, Duration::from_secs(lifetime));
        assert_eq!(end.duration_since(start).unwrap().as_secs(), lifetime);
        assert_eq!(now.duration_since(start).unwrap().as_secs(), back);
    }
}
