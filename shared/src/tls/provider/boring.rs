//! BoringSSL: needs cmake, a C++ compiler and libclang to build.

use boring_rustls_provider::{provider_with_ciphers, tls13};
use rustls::crypto::CryptoProvider;
use rustls::crypto::cipher::{AeadKey, Iv, MessageEncrypter, OutboundChunks, OutboundPlainMessage};
use rustls::{ContentType, Error, ProtocolVersion, SupportedCipherSuite, Tls13CipherSuite};

pub(super) const NAME: &str = "boringssl";

/// The crate's own order of key exchanges is already X25519MLKEM768, X25519, P-256, P-384.
pub(super) fn provider() -> CryptoProvider {
    provider_with_ciphers(vec![
        SupportedCipherSuite::Tls13(&tls13::AES_256_GCM_SHA384),
        SupportedCipherSuite::Tls13(&tls13::AES_128_GCM_SHA256),
    ])
}

/// Seals through rustls' interface, which makes a buffer for each record.
pub(crate) struct Sealer(Box<dyn MessageEncrypter>);

impl Sealer {
    pub(crate) fn new(
        suite: &'static Tls13CipherSuite,
        key: AeadKey,
        iv: Iv,
    ) -> Result<Self, Error> {
        Ok(Self(suite.aead_alg.encrypter(key, iv)))
    }

    /// Appends the record with this sequence number (RFC 8446 §5.2) to `into`.
    pub(crate) fn seal(
        &mut self,
        typ: ContentType,
        contents: &[u8],
        sequence: u64,
        into: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let payload = OutboundChunks::Single(contents);
        let plain = OutboundPlainMessage { typ, version: ProtocolVersion::TLSv1_2, payload };
        into.extend_from_slice(&self.0.encrypt(plain, sequence)?.encode());
        Ok(())
    }
}
