//! Join tokens: what a node or a gateway needs to ask our own authority for certificates.
//!
//! `culvert1:<node>:<secret>:<root digest>`; a gateway stands as `<namespace>/<name>`; the latter
//! two are 32 bytes in hexadecimal. The node checks the digest before it shows the secret to anybody.
//! Invariants: the secret is printed only by [`JoinToken::expose`] and [`Credential::bearer`].

use std::fmt;
use std::str::FromStr;

use zeroize::{Zeroize as _, Zeroizing};

use super::TrustDomain;
use super::id::is_dns1123_subdomain;
use crate::tls::provider;

const VERSION: &str = "culvert1";

/// The proof that a node may ask for the identities of its pods.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    node: Box<str>,
    secret: [u8; 32],
    root: [u8; 32],
}

/// The part of a token that goes to the authority: everything but the digest.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    node: Box<str>,
    secret: [u8; 32],
}

/// A text is no join token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a join token of the form {VERSION}:<node>:<secret>:<root digest>")]
pub struct Malformed;

impl JoinToken {
    /// A token with a fresh secret for `node`, which will trust only the root with digest `root`.
    ///
    /// # Errors
    /// [`Malformed`] when `node` is neither a DNS-1123 name nor two of them with a slash between.
    pub fn generate(node: &str, root: [u8; 32]) -> Result<Self, Malformed> {
        let mut secret = [0; 32];
        provider::fill_random(&mut secret).map_err(|_| Malformed)?;
        Ok(Self { node: node_name(node)?, secret, root })
    }

    /// The node that the token belongs to.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// SHA-256 of the only root that may be trusted with the secret.
    pub fn root(&self) -> [u8; 32] {
        self.root
    }

    /// The part that goes to the authority.
    pub fn credential(&self) -> Credential {
        Credential { node: self.node.clone(), secret: self.secret }
    }

    /// The whole token as text, for the one who carries it to the node.
    pub fn expose(&self) -> Zeroizing<String> {
        let bearer = self.credential().bearer();
        Zeroizing::new(format!("{}:{}", bearer.as_str(), hex(&self.root)))
    }
}

impl Credential {
    /// The node that it claims to be.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// SHA-256 of the secret: how the authority knows it.
    pub fn digest(&self) -> [u8; 32] {
        provider::sha256(&self.secret)
    }

    /// The text after `authorization: Bearer `.
    pub fn bearer(&self) -> Zeroizing<String> {
        let secret = Zeroizing::new(hex(&self.secret));
        Zeroizing::new(format!("{VERSION}:{}:{}", self.node, secret.as_str()))
    }
}

impl FromStr for JoinToken {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let (credential, root) = text.trim().rsplit_once(':').ok_or(Malformed)?;
        let credential: Credential = credential.parse()?;
        let root = unhex(root)?;
        Ok(Self { node: credential.node.clone(), secret: credential.secret, root })
    }
}

impl FromStr for Credential {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let mut pieces = text.split(':');
        let mut next = || pieces.next().ok_or(Malformed);
        let (version, node, secret) = (next()?, next()?, next()?);
        if version != VERSION || pieces.next().is_some() {
            return Err(Malformed);
        }
        Ok(Self { node: node_name(node)?, secret: unhex(secret)? })
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken").field("node", &self.node).finish_non_exhaustive()
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("node", &self.node).finish_non_exhaustive()
    }
}

impl Drop for JoinToken {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

impl Drop for Credential {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

/// The name in the authority's own certificate. Not of the form that workloads have, so nobody
/// can be issued it, and no workload's certificate passes for the authority.
pub fn authority_name(trust_domain: &TrustDomain) -> String {
    format!("spiffe://{trust_domain}/culvert/ca")
}

/// A node, or `NAMESPACE/NAME` of a gateway.
fn node_name(text: &str) -> Result<Box<str>, Malformed> {
    let legal = match text.split_once('/') {
        Some((namespace, name)) => is_dns1123_subdomain(namespace) && is_dns1123_subdomain(name),
        None => is_dns1123_subdomain(text),
    };
    if legal { Ok(text.into()) } else { Err(Malformed) }
}

/// `bytes` in lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Result<[u8; 32], Malformed> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Malformed);
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).map_err(|_| Malformed)?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_survives_being_carried() {
        let token = JoinToken::generate("node-a.example", [7; 32]).unwrap();
        let carried: JoinToken = format!("{}\n", token.expose().as_str()).parse().unwrap();
        assert!(carried == token);
        let bearer: Credential = token.credential().bearer().parse().unwrap();
        assert_eq!(bearer.digest(), token.credential().digest());
        assert_eq!(bearer.node(), "node-a.example");
    }

    #[test]
    fn two_tokens_have_two_secrets() {
        let one = JoinToken::generate("a", [0; 32]).unwrap();
        let other = JoinToken::generate("a", [0; 32]).unwrap();
        assert_ne!(one.credential().digest(), other.credential().digest());
    }

    #[test]
    fn debug_output_has_no_secret() {
        let token = JoinToken::generate("a", [0; 32]).unwrap();
        let secret = hex(&token.secret);
        assert!(!format!("{token:?} {:?}", token.credential()).contains(&secret));
    }

    #[test]
    fn other_texts_are_no_tokens() {
        let good = JoinToken::generate("a", [0; 32]).unwrap().expose().to_string();
        for bad in [
            "",
            "culvert1:a",
            &good[1..],
            &good[..good.len() - 1],
            &good.replace(":a:", ":A:"),
            &good.replace(":a:", "::"),
            &good.replace(":a:", ":../a:"),
            &good.replace("culvert1", "culvert2"),
            &format!("{good}:x"),
            &format!("{}é", &good[..good.len() - 2]),
        ] {
            assert!(bad.parse::<JoinToken>().is_err(), "{bad}");
        }
    }
}
