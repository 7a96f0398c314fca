//! BoringSSL: needs cmake, a C++ compiler and libclang to build.

use boring_rustls_provider::{provider_with_ciphers, tls13};
use rustls::SupportedCipherSuite;
use rustls::crypto::CryptoProvider;

pub(super) const NAME: &str = "boringssl";

/// The crate's own order of key exchanges is already X25519MLKEM768, X25519, P-256, P-384.
pub(super) fn provider() -> CryptoProvider {
    provider_with_ciphers(vec![
        SupportedCipherSuite::Tls13(&tls13::AES_256_GCM_SHA384),
        SupportedCipherSuite::Tls13(&tls13::AES_128_GCM_SHA256),
    ])
}
