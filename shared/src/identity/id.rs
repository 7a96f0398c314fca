//! SPIFFE ids in the one form that a mesh workload has.
//!
//! Source: Istio ztunnel `Identity`: `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`,
//! exactly five pieces. Anything else is not an identity here.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// A trust domain: lower-case letters, digits, `.`, `-` and `_`, at most 255 bytes (SPIFFE-ID §2.1).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// The trust domain of a mesh that names none.
    pub const DEFAULT: &'static str = "cluster.local";

    /// Parses `text`.
    ///
    /// # Errors
    /// [`ParseError::TrustDomain`] when `text` is empty, too long or has other characters.
    pub fn new(text: &str) -> Result<Self, ParseError> {
        let legal = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
        if text.is_empty() || text.len() > 255 || !text.bytes().all(legal) {
            return Err(ParseError::TrustDomain);
        }
        Ok(Self(text.into()))
    }

    /// The name alone.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for TrustDomain {
    fn default() -> Self {
        Self(Self::DEFAULT.into())
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The identity of a workload. Cheap to clone; compares by value.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId {
    trust_domain: TrustDomain,
    namespace: Arc<str>,
    service_account: Arc<str>,
}

/// Why a text is not a workload identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The trust domain is empty, longer than 255 bytes or has illegal characters.
    #[error("trust domain must be 1 to 255 of a-z, 0-9, '.', '-', '_'")]
    TrustDomain,
    /// Not `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.
    #[error("identity must be spiffe://<trust domain>/ns/<namespace>/sa/<service account>")]
    Shape,
    /// Namespace or service account is not a DNS-1123 name.
    #[error("namespace and service account must be DNS-1123 names")]
    Name,
}

impl SpiffeId {
    /// Builds an identity from its parts.
    ///
    /// # Errors
    /// [`ParseError::Name`] when namespace or service account is not a DNS-1123 subdomain.
    pub fn new(
        trust_domain: TrustDomain,
        namespace: &str,
        service_account: &str,
    ) -> Result<Self, ParseError> {
        if !is_dns1123_subdomain(namespace) || !is_dns1123_subdomain(service_account) {
            return Err(ParseError::Name);
        }
        Ok(Self {
            trust_domain,
            namespace: namespace.into(),
            service_account: service_account.into(),
        })
    }

    /// The trust domain.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The service account.
    pub fn service_account(&self) -> &str {
        &self.service_account
    }

    /// The form that policies compare: the id without `spiffe://`.
    pub fn principal(&self) -> String {
        format!("{}/ns/{}/sa/{}", self.trust_domain, self.namespace, self.service_account)
    }
}

impl FromStr for SpiffeId {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let rest = text.strip_prefix("spiffe://").ok_or(ParseError::Shape)?;
        let mut pieces = rest.split('/');
        let mut next = || pieces.next().ok_or(ParseError::Shape);
        let (trust_domain, ns, namespace, sa, service_account) =
            (next()?, next()?, next()?, next()?, next()?);
        if ns != "ns" || sa != "sa" || pieces.next().is_some() {
            return Err(ParseError::Shape);
        }
        Self::new(TrustDomain::new(trust_domain)?, namespace, service_account)
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "spiffe://{}/ns/{}/sa/{}",
            self.trust_domain, self.namespace, self.service_account
        )
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for TrustDomain {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl serde::Serialize for SpiffeId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// RFC 1123 labels joined by dots, 253 bytes at most: what Kubernetes accepts as a name.
pub(crate) fn is_dns1123_subdomain(text: &str) -> bool {
    let legal = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    let label = |part: &str| {
        !part.is_empty()
            && part.len() <= 63
            && part.bytes().all(legal)
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_prints_what_it_parsed() {
        let text = "spiffe://cluster.local/ns/team/sa/web";
        let id: SpiffeId = text.parse().unwrap();
        assert_eq!(id.to_string(), text);
        assert_eq!(id.principal(), "cluster.local/ns/team/sa/web");
    }

    #[test]
    fn other_shapes_are_not_identities() {
        for text in [
            "",
            "spiffe://",
            "spiffe://td/ns/a/sa",
            "spiffe://td/ns/a/sa/b/c",
            "spiffe://td/sa/a/ns/b",
            "spiffe://td/ns//sa/b",
            "spiffe://td/ns/a/sa/../b",
            "spiffe://TD/ns/a/sa/b",
            "https://td/ns/a/sa/b",
        ] {
            assert!(text.parse::<SpiffeId>().is_err(), "{text}");
        }
    }
}
