//! aws-lc-rs: builds with a C compiler alone.

use ::aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};
use rustls::crypto::cipher::{self, AeadKey, Iv};
use rustls::{CipherSuite, ContentType, Error, Tls13CipherSuite};

use super::{HEADER_BYTES, TAG_BYTES};

pub(super) const NAME: &str = "aws-lc-rs";

pub(super) fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_AES_128_GCM_SHA256,
        ],
        kx_groups: vec![
            kx_group::X25519MLKEM768,
            kx_group::X25519,
            kx_group::SECP256R1,
            kx_group::SECP384R1,
        ],
        ..aws_lc_rs::default_provider()
    }
}

/// Seals in the caller's buffer, which rustls' own encrypter cannot.
pub(crate) struct Sealer {
    key: LessSafeKey,
    iv: Iv,
}

impl Sealer {
    #[expect(clippy::needless_pass_by_value, reason = "the same signature for every library")]
    pub(crate) fn new(
        suite: &'static Tls13CipherSuite,
        key: AeadKey,
        iv: Iv,
    ) -> Result<Self, Error> {
        let algorithm = match suite.common.suite {
            CipherSuite::TLS13_AES_256_GCM_SHA384 => &AES_256_GCM,
            _ => &AES_128_GCM,
        };
        let key = UnboundKey::new(algorithm, key.as_ref()).map_err(|_| Error::EncryptError)?;
        Ok(Self { key: LessSafeKey::new(key), iv })
    }

    /// Appends the record with this sequence number (RFC 8446 §5.2) to `into`.
    pub(crate) fn seal(
        &self,
        typ: ContentType,
        contents: &[u8],
        sequence: u64,
        into: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let header = cipher::make_tls13_aad(contents.len() + 1 + TAG_BYTES);
        into.reserve(HEADER_BYTES + contents.len() + 1 + TAG_BYTES);
        into.extend_from_slice(&header);
        let start = into.len();
        into.extend_from_slice(contents);
        into.push(typ.into());
        let nonce = Nonce::assume_unique_for_key(cipher::Nonce::new(&self.iv, sequence).0);
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce, Aad::from(header), &mut into[start..])
            .map_err(|_| Error::EncryptError)?;
        into.extend_from_slice(tag.as_ref());
        Ok(())
    }
}
