//! The TLS configurations of both sides.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{ClientConfig, ConfigBuilder, ConfigSide, ServerConfig, WantsVerifier};

use super::provider;
use super::roots::Roots;
use super::verify::{client_verifier, server_verifier};
use crate::identity::{SpiffeId, TrustDomain};

/// What both sides offer, and nothing else: HTTP/2.
pub const ALPN: &[u8] = b"h2";

/// A configuration that presents `key` and demands a client certificate of `trust_domain`.
pub fn server_config(
    key: Arc<CertifiedKey>,
    roots: Arc<Roots>,
    trust_domain: TrustDomain,
) -> ServerConfig {
    let verifier = client_verifier(roots, trust_domain);
    let mut config = tls13(ServerConfig::builder_with_provider(provider::provider()))
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
    config.alpn_protocols = vec![ALPN.to_vec()];
    // No resumption: every connection proves both certificates as they are now.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.enable_secret_extraction = true; // records are protected in `tls::stream`
    config
}

/// A configuration that presents `key` and accepts a server with one of the `expected`
/// identities, compared exactly. With none expected every handshake fails.
pub fn client_config(
    key: Arc<CertifiedKey>,
    roots: Arc<Roots>,
    expected: &[SpiffeId],
) -> ClientConfig {
    let verifier = server_verifier(roots, expected);
    let mut config = tls13(ClientConfig::builder_with_provider(provider::provider()))
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.enable_sni = false;
    config.resumption = Resumption::disabled();
    config.enable_secret_extraction = true; // records are protected in `tls::stream`
    config
}

/// The name to give to rustls where it demands one. It is neither sent nor verified.
pub fn server_name() -> ServerName<'static> {
    ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into())
}

/// `builder` for TLS 1.3 alone.
pub fn tls13<S: ConfigSide>(
    builder: ConfigBuilder<S, rustls::WantsVersions>,
) -> ConfigBuilder<S, WantsVerifier> {
    builder.with_protocol_versions(&[&TLS13]).expect("the provider has suites of TLS 1.3")
}
