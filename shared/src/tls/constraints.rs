//! Name constraints on URIs (RFC 5280 §4.2.1.10), which webpki refuses to judge.
//!
//! webpki rejects every path whose trust anchor constrains URIs. So the constraints of an anchor
//! are split here: those on URIs are kept and enforced by us, all others stay with webpki. What
//! cannot be read makes the anchor unusable. An *intermediate* with URI constraints is still
//! rejected by webpki, which is the safe side.

use crate::identity::TrustDomain;

const SEQUENCE: u8 = 0x30;
const PERMITTED: u8 = 0xa0;
const EXCLUDED: u8 = 0xa1;
const DNS: u8 = 0x82;
const URI: u8 = 0x86;
const IP: u8 = 0x87;

/// Which hosts the URIs below a trust anchor may have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UriConstraints {
    permitted: Vec<Host>,
    excluded: Vec<Host>,
}

/// RFC 5280: a constraint with a leading dot means every host below, without: that host alone.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    Exact(String),
    Below(String),
}

/// The name constraints are not DER of the form that RFC 5280 demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("name constraints are malformed")]
pub struct Malformed;

impl UriConstraints {
    /// Splits the content of a `NameConstraints` sequence into what concerns URIs and the rest.
    ///
    /// # Errors
    /// [`Malformed`] when `content` cannot be read whole.
    pub fn split(content: &[u8]) -> Result<(Self, Option<Vec<u8>>), Malformed> {
        let mut uris = Self::default();
        let mut rest = Vec::new();
        let mut reader = content;
        while !reader.is_empty() {
            let (tag, subtrees) = read(&mut reader)?;
            let hosts = match tag {
                PERMITTED => &mut uris.permitted,
                EXCLUDED => &mut uris.excluded,
                _ => return Err(Malformed),
            };
            let others = split_subtrees(subtrees, hosts)?;
            if !others.is_empty() {
                write(&mut rest, tag, &others);
            }
        }
        Ok((uris, (!rest.is_empty()).then_some(rest)))
    }

    /// Whether a certificate below the anchor may carry `uri`.
    pub fn permit(&self, uri: &str) -> bool {
        if self.permitted.is_empty() && self.excluded.is_empty() {
            return true;
        }
        // RFC 5280: a URI without an authority whose host is a domain name is rejected where a
        // constraint on URIs applies.
        let Some(host) = host(uri) else { return false };
        (self.permitted.is_empty() || self.permitted.iter().any(|base| base.covers(&host)))
            && !self.excluded.iter().any(|base| base.covers(&host))
    }
}

impl Host {
    fn parse(text: &[u8]) -> Result<Self, Malformed> {
        let text = std::str::from_utf8(text).map_err(|_| Malformed)?.to_ascii_lowercase();
        match text.strip_prefix('.') {
            Some(base) => Ok(Self::Below(format!(".{base}"))),
            None => Ok(Self::Exact(text)),
        }
    }

    fn covers(&self, host: &str) -> bool {
        match self {
            Self::Exact(name) => name == host,
            Self::Below(suffix) => host.len() > suffix.len() && host.ends_with(suffix.as_str()),
        }
    }
}

/// The host of `scheme://[userinfo@]host[:port][/…]` in lower case, if it is a name.
fn host(uri: &str) -> Option<String> {
    let (_, rest) = uri.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit('@').next()?.split(':').next()?;
    let is_name = !host.is_empty()
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        && host.parse::<std::net::Ipv4Addr>().is_err();
    is_name.then(|| host.to_ascii_lowercase())
}

/// Moves the URI bases of `subtrees` into `hosts`; returns the other subtrees unchanged.
fn split_subtrees(mut subtrees: &[u8], hosts: &mut Vec<Host>) -> Result<Vec<u8>, Malformed> {
    let mut others = Vec::new();
    while !subtrees.is_empty() {
        let (tag, subtree) = read(&mut subtrees)?;
        if tag != SEQUENCE {
            return Err(Malformed);
        }
        let mut fields = subtree;
        let (kind, base) = read(&mut fields)?;
        if kind != URI {
            write(&mut others, SEQUENCE, subtree);
        } else if fields.is_empty() {
            hosts.push(Host::parse(base)?);
        } else {
            // RFC 5280: minimum must be zero (so absent in DER) and maximum must be absent.
            return Err(Malformed);
        }
    }
    Ok(others)
}

/// The value of a `NameConstraints` extension for the root of `trust_domain`: URIs of that host
/// only, and neither DNS names nor IP addresses at all. `None` where RFC 5280 cannot say that: an
/// address is never permitted, and a leading dot means other hosts.
pub fn encode_name_constraints(trust_domain: &TrustDomain) -> Option<Vec<u8>> {
    let base = trust_domain.as_str().as_bytes();
    let own = UriConstraints { permitted: vec![Host::parse(base).ok()?], excluded: Vec::new() };
    if !own.permit(&format!("spiffe://{trust_domain}")) {
        return None;
    }
    let mut permitted = Vec::new();
    write_subtree(&mut permitted, URI, base);
    let mut excluded = Vec::new();
    // An empty DNS name and a mask of zeros cover everything.
    write_subtree(&mut excluded, DNS, b"");
    write_subtree(&mut excluded, IP, &[0; 8]);
    write_subtree(&mut excluded, IP, &[0; 32]);
    let mut content = Vec::new();
    write(&mut content, PERMITTED, &permitted);
    write(&mut content, EXCLUDED, &excluded);
    let mut whole = Vec::new();
    write(&mut whole, SEQUENCE, &content);
    Some(whole)
}

fn write_subtree(out: &mut Vec<u8>, kind: u8, base: &[u8]) {
    let mut subtree = Vec::new();
    write(&mut subtree, kind, base);
    write(out, SEQUENCE, &subtree);
}

fn write(out: &mut Vec<u8>, tag: u8, value: &[u8]) {
    out.push(tag);
    let length = value.len().to_be_bytes();
    match value.len() {
        ..0x80 => out.push(length[7]),
        0x80..0x100 => out.extend([0x81, length[7]]),
        _ => out.extend([0x82, length[6], length[7]]),
    }
    out.extend_from_slice(value);
}

/// Reads one element of at most 64 KiB in definite, minimal form.
fn read<'a>(reader: &mut &'a [u8]) -> Result<(u8, &'a [u8]), Malformed> {
    let (length_bytes, header) = match **reader {
        [_, length @ ..=0x7f, ..] => (usize::from(length), 2),
        [_, 0x81, length @ 0x80..=0xff, ..] => (usize::from(length), 3),
        [_, 0x82, high @ 1..=0xff, low, ..] => (usize::from(high) << 8 | usize::from(low), 4),
        _ => return Err(Malformed),
    };
    let tag = reader[0];
    let value = reader.get(header..header + length_bytes).ok_or(Malformed)?;
    *reader = &reader[header + length_bytes..];
    Ok((tag, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn constraints() -> (UriConstraints, Option<Vec<u8>>) {
        let whole = encode_name_constraints(&TrustDomain::new("mesh.test").unwrap()).unwrap();
        let mut reader = whole.as_slice();
        let (_, content) = read(&mut reader).unwrap();
        assert!(reader.is_empty());
        UriConstraints::split(content).unwrap()
    }

    #[test]
    fn uris_of_the_trust_domain_alone_are_permitted() {
        let (uris, _) = constraints();
        assert!(uris.permit("spiffe://mesh.test/ns/a/sa/b"));
        assert!(uris.permit("spiffe://MESH.test"));
        for foreign in [
            "spiffe://other.test/ns/a/sa/b",
            "spiffe://sub.mesh.test/ns/a/sa/b",
            "spiffe://mesh.test.evil/ns/a/sa/b",
            "spiffe://mesh.test@evil/ns/a/sa/b",
            "spiffe:///ns/a/sa/b",
            "spiffe:mesh.test",
            "https://10.0.0.1/",
            "https://[::1]/",
        ] {
            assert!(!uris.permit(foreign), "{foreign}");
        }
    }

    /// Found by the fuzz target `name_constraints`: a root that permitted nothing.
    #[test]
    fn trust_domain_that_constraints_cannot_name_has_none() {
        for (name, can) in [("mesh", true), ("mesh.", true), ("10.0.0.1", false), (".mesh", false)]
        {
            let trust_domain = TrustDomain::new(name).unwrap();
            assert_eq!(encode_name_constraints(&trust_domain).is_some(), can, "{name}");
        }
    }

    #[test]
    fn other_kinds_of_name_stay_with_webpki() {
        let (_, rest) = constraints();
        let rest = rest.unwrap();
        assert_eq!(rest[0], EXCLUDED);
        let (again, same) = UriConstraints::split(&rest).unwrap();
        assert_eq!(again, UriConstraints::default());
        assert_eq!(same.as_deref(), Some(rest.as_slice()));
    }

    #[test]
    fn a_leading_dot_covers_hosts_below_and_exclusion_wins() {
        let mut permitted = Vec::new();
        write_subtree(&mut permitted, URI, b".test");
        let mut excluded = Vec::new();
        write_subtree(&mut excluded, URI, b"bad.test");
        let mut content = Vec::new();
        write(&mut content, PERMITTED, &permitted);
        write(&mut content, EXCLUDED, &excluded);
        let (uris, rest) = UriConstraints::split(&content).unwrap();
        assert_eq!(rest, None);
        assert!(uris.permit("spiffe://good.test/x"));
        assert!(!uris.permit("spiffe://bad.test/x"));
        assert!(!uris.permit("spiffe://test/x"));
    }

    #[test]
    fn malformed_constraints_are_refused_and_never_panic() {
        let (_, rest) = constraints();
        let rest = rest.unwrap();
        for end in 1..rest.len() {
            assert_eq!(UriConstraints::split(&rest[..end]), Err(Malformed));
        }
        assert_eq!(UriConstraints::split(&[0x04, 0x00]), Err(Malformed));
        assert_eq!(UriConstraints::split(&[0xa0, 0x81, 0x01, 0x00]), Err(Malformed));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(0_u8.., 0..300)) {
            let _ = UriConstraints::split(&bytes);
        }
    }
}
