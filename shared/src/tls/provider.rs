//! The one place that knows which library does the cryptography.
//!
//! Everything else asks here: TLS, digests, random bytes and the check of signatures. The feature
//! `boring` swaps aws-lc-rs for BoringSSL. Keys and certificates are *made* by rcgen, which always
//! uses aws-lc-rs.

#[cfg(not(feature = "boring"))]
mod aws_lc;
#[cfg(feature = "boring")]
mod boring;

use std::sync::{Arc, LazyLock};

use rustls::SupportedCipherSuite;
use rustls::crypto::CryptoProvider;

#[cfg(not(feature = "boring"))]
use aws_lc as library;
#[cfg(feature = "boring")]
use boring as library;

pub(crate) use library::Sealer;

/// RFC 8446 §5.1: type, version, length of a record.
pub(crate) const HEADER_BYTES: usize = 5;
/// RFC 8446 §5.2: what both GCM suites append to a record.
#[cfg(not(feature = "boring"))]
const TAG_BYTES: usize = 16;

/// The name of the library, for `/config_dump` and version output.
pub const NAME: &str = library::NAME;

static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(library::provider()));

/// The provider that every TLS configuration of this process uses.
///
/// Suites: AES-256-GCM, then AES-128-GCM. Key exchange: X25519MLKEM768 first, then X25519, P-256
/// and P-384 (Istio ztunnel's set, with the hybrid moved to the front).
pub fn provider() -> Arc<CryptoProvider> {
    Arc::clone(&PROVIDER)
}

/// SHA-256 of `bytes`.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let hash = PROVIDER.cipher_suites.iter().find_map(|suite| match suite {
        SupportedCipherSuite::Tls13(suite) => {
            <[u8; 32]>::try_from(suite.common.hash_provider.hash(bytes).as_ref()).ok()
        }
        #[expect(unreachable_patterns, reason = "the variant for TLS 1.2 is not compiled in")]
        _ => None,
    });
    hash.expect("the provider has TLS_AES_128_GCM_SHA256, whose hash is SHA-256")
}

/// Fills `bytes` from the library's random generator.
///
/// # Errors
/// The generator has failed; nothing secret may be made from `bytes`.
pub fn fill_random(bytes: &mut [u8]) -> Result<(), rustls::crypto::GetRandomFailed> {
    PROVIDER.secure_random.fill(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sha256_is_sha256() {
        // FIPS 180-4, one-block message sample.
        let digest = sha256(b"abc");
        assert_eq!(digest[..4], [0xba, 0x78, 0x16, 0xbf]);
        assert_eq!(digest[28..], [0xf2, 0x00, 0x15, 0xad]);
    }

    #[test]
    fn hybrid_key_exchange_comes_first_and_chacha_is_absent() {
        let groups: Vec<_> = provider().kx_groups.iter().map(|group| group.name()).collect();
        assert_eq!(groups[0], rustls::NamedGroup::X25519MLKEM768);
        let suites: Vec<_> = provider().cipher_suites.iter().map(|suite| suite.suite()).collect();
        assert_eq!(
            suites,
            [
                rustls::CipherSuite::TLS13_AES_256_GCM_SHA384,
                rustls::CipherSuite::TLS13_AES_128_GCM_SHA256
            ]
        );
    }
}
