//! Handshakes in memory: who gets through, and what goes over the wire.

mod sockets;

use std::sync::Arc;

use rcgen::{ExtendedKeyUsagePurpose, SanType};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, Connection, ServerConfig,
    ServerConnection,
};

use super::*;
use crate::identity::test_util::TestCa;
use crate::identity::{SpiffeId, TrustDomain, WorkloadCertificate};

const WEB: &str = "spiffe://cluster.local/ns/team/sa/web";
const DATABASE: &str = "spiffe://cluster.local/ns/team/sa/db";

fn id(text: &str) -> SpiffeId {
    text.parse().unwrap()
}

fn ca() -> TestCa {
    TestCa::new(&TrustDomain::default())
}

struct Ends {
    client: Connection,
    server: Connection,
}

/// Carries bytes both ways until nobody has more to say. The error is the first of either side.
fn handshake(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> Result<Ends, rustls::Error> {
    let mut client = Connection::from(ClientConnection::new(client, server_name()).unwrap());
    let mut server = Connection::from(ServerConnection::new(server).unwrap());
    while client.wants_write() || server.wants_write() {
        carry(&mut client, &mut server)?;
        carry(&mut server, &mut client)?;
    }
    Ok(Ends { client, server })
}

fn carry(from: &mut Connection, to: &mut Connection) -> Result<(), rustls::Error> {
    let mut wire = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut wire).unwrap();
    }
    let mut wire = wire.as_slice();
    while !wire.is_empty() {
        to.read_tls(&mut wire).unwrap();
        to.process_new_packets()?;
    }
    Ok(())
}

/// The server's verdict on a client with `certificate`.
fn server_verdict(certificate: &WorkloadCertificate, ca: &TestCa) -> Result<Ends, rustls::Error> {
    let server = ca.issue(&id(DATABASE));
    handshake(certificate.client_config(&[id(DATABASE)]), server.server_config())
}

fn refusal(result: Result<Ends, rustls::Error>) -> String {
    match result.err().expect("the handshake is refused") {
        rustls::Error::InvalidCertificate(CertificateError::Other(other)) => other.to_string(),
        error => error.to_string(),
    }
}

#[test]
fn both_sides_prove_who_they_are() {
    let ca = ca();
    let ends = server_verdict(&ca.issue(&id(WEB)), &ca).unwrap();
    assert_eq!(*peer(&ends.server).unwrap().id(), id(WEB));
    assert_eq!(*peer(&ends.client).unwrap().id(), id(DATABASE));
    assert_eq!(ends.client.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    assert_eq!(ends.client.alpn_protocol(), Some(ALPN));
    let suite = ends.client.negotiated_cipher_suite().unwrap().suite();
    assert_eq!(suite, rustls::CipherSuite::TLS13_AES_256_GCM_SHA384);
    let group = ends.client.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, rustls::NamedGroup::X25519MLKEM768);
}

#[test]
fn two_of_our_own_meet_as_they_would_in_a_handshake() {
    let (ours, foreign) = (ca(), ca());
    let (web, database) = (ours.issue(&id(WEB)), ours.issue(&id(DATABASE)));
    let other: SpiffeId = id("spiffe://other.test/ns/team/sa/web");
    let elsewhere = ours.issue(&other);
    let expected = [id(DATABASE)];
    assert_eq!(*meet(&web, &database, &expected).unwrap().id(), id(WEB));
    for (client, server, expected) in [
        (&web, &database, &[id(WEB)][..]),
        (&web, &database, &[]),
        (&foreign.issue(&id(WEB)), &database, &expected),
        (&web, &foreign.issue(&id(DATABASE)), &expected),
        (&elsewhere, &database, &expected),
    ] {
        meet(client, server, expected).unwrap_err();
        handshake(client.client_config(expected), server.server_config()).map(|_| ()).unwrap_err();
    }
}

#[test]
fn nobody_is_proved_before_the_handshake_ends() {
    let config = ca().issue(&id(WEB)).client_config(&[id(DATABASE)]);
    let client = ClientConnection::new(config, server_name()).unwrap();
    assert!(matches!(peer(&client), Err(Error::Handshaking)));
}

#[test]
fn server_must_be_exactly_one_of_the_expected() {
    let ca = ca();
    let (client, server) = (ca.issue(&id(WEB)), ca.issue(&id(DATABASE)));
    let with = |expected: &[SpiffeId]| {
        handshake(client.client_config(expected), server.server_config()).map(|_| ())
    };
    with(&[id("spiffe://cluster.local/ns/team/sa/dbx"), id(DATABASE)]).unwrap();
    with(&[id("spiffe://cluster.local/ns/team/sa/dbx")]).unwrap_err();
    with(&[id("spiffe://other.test/ns/team/sa/db")]).unwrap_err();
    with(&[]).unwrap_err();
}

#[test]
fn client_without_certificate_is_refused() {
    let ca = ca();
    let mut config = (*ca.issue(&id(WEB)).client_config(&[id(DATABASE)])).clone();
    config.client_auth_cert_resolver = Arc::new(NoCertificate);
    let result = handshake(Arc::new(config), ca.issue(&id(DATABASE)).server_config());
    assert!(matches!(result.err(), Some(rustls::Error::NoCertificatesPresented)));
}

#[derive(Debug)]
struct NoCertificate;

impl rustls::client::ResolvesClientCert for NoCertificate {
    fn resolve(
        &self,
        _: &[&[u8]],
        _: &[rustls::SignatureScheme],
    ) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

#[test]
fn client_of_a_foreign_root_is_refused_on_either_side() {
    let (ours, foreign) = (ca(), ca());
    // The client would refuse the server first; let it trust both.
    let pair = foreign.issue_pem(&id(WEB));
    let both = format!("{}{}", ours.root_pem(), foreign.root_pem());
    let stranger =
        WorkloadCertificate::from_pem(pair.chain.as_bytes(), pair.key.as_bytes(), both.as_bytes());
    let result = server_verdict(&stranger.unwrap(), &ours);
    assert!(matches!(
        result.err(),
        Some(rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature
        ))
    ));
    let result = server_verdict(&foreign.issue(&id(WEB)), &ours);
    assert!(result.is_err());
}

#[test]
fn expired_certificates_are_refused_on_either_side() {
    let ca = ca();
    let text = refusal(server_verdict(&ca.issue_expired(&id(WEB)), &ca));
    assert!(text.contains("expired"), "{text}");
    let server = ca.issue_expired(&id(DATABASE));
    let client = ca.issue(&id(WEB)).client_config(&[id(DATABASE)]);
    let text = refusal(handshake(client, server.server_config()));
    assert!(text.contains("expired"), "{text}");
}

#[test]
fn client_of_another_trust_domain_is_refused_even_below_our_root() {
    let ca = ca();
    let text = refusal(server_verdict(&ca.issue(&id("spiffe://other.test/ns/team/sa/web")), &ca));
    assert_eq!(text, "peer spiffe://other.test/ns/team/sa/web is not of our trust domain");
}

#[test]
fn trust_domain_is_that_of_the_identity_which_policies_see() {
    let ca = ca();
    let foreign = id("spiffe://other.test/ns/team/sa/web");
    let two = ca.issue_with(&foreign, |params| {
        params.subject_alt_names.push(SanType::URI(WEB.try_into().unwrap()));
    });
    assert!(server_verdict(&two, &ca).is_err());
}

#[test]
fn key_usage_is_enforced_where_it_is_stated() {
    let ca = ca();
    let only = |usage: ExtendedKeyUsagePurpose| {
        ca.issue_with(&id(WEB), |params| params.extended_key_usages = vec![usage])
    };
    server_verdict(&only(ExtendedKeyUsagePurpose::ClientAuth), &ca).unwrap();
    assert!(server_verdict(&only(ExtendedKeyUsagePurpose::ServerAuth), &ca).is_err());
    let silent = ca.issue_with(&id(WEB), |params| params.extended_key_usages.clear());
    server_verdict(&silent, &ca).unwrap();
}

#[test]
fn a_constrained_root_serves_its_trust_domain_and_no_other() {
    let ca = TestCa::constrained(&TrustDomain::default());
    server_verdict(&ca.issue(&id(WEB)), &ca).unwrap();
    let foreign = ca.issue(&id("spiffe://other.test/ns/team/sa/db"));
    let client = ca.issue(&id(WEB));
    let result =
        handshake(client.client_config(&[foreign.identity().clone()]), foreign.server_config());
    assert!(refusal(result).contains("NameConstraintViolation"));
    let second_name = ca.issue_with(&id(DATABASE), |params| {
        params.subject_alt_names.push(SanType::URI("https://elsewhere/".try_into().unwrap()));
    });
    let result = handshake(client.client_config(&[id(DATABASE)]), second_name.server_config());
    assert!(refusal(result).contains("NameConstraintViolation"));
    let dns_name = ca.issue_with(&id(DATABASE), |params| {
        params.subject_alt_names.push(SanType::DnsName("db.test".try_into().unwrap()));
    });
    let result = handshake(client.client_config(&[id(DATABASE)]), dns_name.server_config());
    assert!(refusal(result).contains("NameConstraintViolation"));
}

/// Why `ztunnel ca --root-constraints off` exists (docs/ca.md). When this fails, webpki has learnt
/// URI constraints, and the splitting in `tls::constraints` can go.
#[test]
fn peers_with_webpki_alone_refuse_a_constrained_root() {
    let ca = TestCa::constrained(&TrustDomain::default());
    let mut store = rustls::RootCertStore::empty();
    store.add(ca.root().clone()).unwrap();
    let provider = provider::provider();
    let verify = |certificate: &WorkloadCertificate| {
        let leaf = rustls::server::ParsedCertificate::try_from(&certificate.chain()[0]).unwrap();
        rustls::client::verify_server_cert_signed_by_trust_anchor(
            &leaf,
            &store,
            &[],
            rustls::pki_types::UnixTime::now(),
            provider.signature_verification_algorithms.all,
        )
    };
    verify(&ca.issue(&id(WEB))).unwrap_err();
}

#[test]
fn both_roots_count_while_a_mesh_changes_its_root() {
    let (old, new) = (ca(), ca());
    let both = format!("{}{}", old.root_pem(), new.root_pem());
    let with_both = |ca: &TestCa, name: &str| {
        let pair = ca.issue_pem(&id(name));
        WorkloadCertificate::from_pem(pair.chain.as_bytes(), pair.key.as_bytes(), both.as_bytes())
            .unwrap()
    };
    let (client, server) = (with_both(&old, WEB), with_both(&new, DATABASE));
    handshake(client.client_config(&[id(DATABASE)]), server.server_config()).unwrap();
    handshake(server.client_config(&[id(WEB)]), client.server_config()).unwrap();
}

#[test]
fn a_client_that_offers_only_another_protocol_is_refused_and_one_that_offers_none_is_not() {
    let ca = ca();
    let with = |protocols: Vec<Vec<u8>>| {
        let mut config = (*ca.issue(&id(WEB)).client_config(&[id(DATABASE)])).clone();
        config.alpn_protocols = protocols;
        handshake(Arc::new(config), ca.issue(&id(DATABASE)).server_config())
    };
    assert!(matches!(
        with(vec![b"http/1.1".to_vec()]).err(),
        Some(rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol))
            | Some(rustls::Error::NoApplicationProtocol)
    ));
    with(vec![]).unwrap();
}

#[test]
fn client_hello_offers_the_hybrid_first_and_no_server_name() {
    let config = ca().issue(&id(WEB)).client_config(&[id(DATABASE)]);
    let mut client = ClientConnection::new(config, server_name()).unwrap();
    let mut wire = Vec::new();
    client.write_tls(&mut wire).unwrap();
    let extensions = extensions(&wire);
    let of = |kind: u16| {
        extensions.iter().find(|(found, _)| *found == kind).map(|(_, body)| body.as_slice())
    };
    // RFC 8446 §4.2: supported_groups 10, key_share 51, supported_versions 43, server_name 0.
    let groups = of(10).unwrap();
    assert_eq!(groups[2..], [0x11, 0xec, 0x00, 0x1d, 0x00, 0x17, 0x00, 0x18]);
    assert_eq!(of(51).unwrap()[2..4], [0x11, 0xec]);
    assert_eq!(of(43).unwrap(), [2, 0x03, 0x04]);
    assert_eq!(of(0), None);
    // RFC 7301: exactly `h2`.
    assert_eq!(of(16).unwrap(), [0, 3, 2, b'h', b'2']);
}

/// The extensions of the ClientHello in `wire`, which is handshake records only.
fn extensions(wire: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let word = |at: &[u8]| u16::from_be_bytes([at[0], at[1]]);
    let mut message = Vec::new();
    let mut rest = wire;
    while !rest.is_empty() {
        let end = 5 + usize::from(word(&rest[3..]));
        message.extend_from_slice(&rest[5..end]);
        rest = &rest[end..];
    }
    // Handshake header 4, version 2, random 32, then session id, suites and compression methods.
    let mut body = &message[38..];
    body = &body[1 + usize::from(body[0])..];
    assert_eq!(word(&body[2..]), 0x1302, "AES-256-GCM comes first");
    body = &body[2 + usize::from(word(body))..];
    body = &body[1 + usize::from(body[0])..];
    body = &body[2..];
    let mut found = Vec::new();
    while !body.is_empty() {
        let end = 4 + usize::from(word(&body[2..]));
        found.push((word(body), body[4..end].to_vec()));
        body = &body[end..];
    }
    found
}
