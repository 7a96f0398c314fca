//! Name constraints of a root, and the names below it.
//!
//! First byte: the form of the rest. Even: constraints as they are in the certificate. Odd: a URI,
//! and the subtrees that the constraints are built from, so that we know what they mean.
//! Laws: the constraints on URIs are taken out once and for all, and mean what RFC 5280 §4.2.1.10
//! says; those of a trust domain permit its identities and no others.

use std::net::Ipv4Addr;

use http::Uri;
use shared::identity::TrustDomain;
use shared::tls::{UriConstraints, encode_name_constraints};

use crate::der::{SEQUENCE, element};
use crate::pieces::Pieces;
use crate::planted;

/// Checks the laws on one input.
pub fn check(input: &[u8]) {
    let mut pieces = Pieces::new(input);
    if pieces.byte() & 1 == 0 {
        return split_once(pieces.rest());
    }
    let uri = pieces.text();
    if let Ok(trust_domain) = TrustDomain::new(&uri) {
        of_trust_domain(&trust_domain);
    }
    let built = Subtrees::read(&mut pieces);
    let content = built.content();
    split_once(&content);
    let (constraints, _) = UriConstraints::split(&content).expect("right in form");
    if let Some(expected) = built.permit(&uri) {
        assert_eq!(constraints.permit(&uri), expected, "{uri} {:?}", built.uris);
        planted(expected && built.uris.len() > 2);
    }
}

fn split_once(content: &[u8]) {
    let Ok((_, rest)) = UriConstraints::split(content) else { return };
    let Some(rest) = rest else { return };
    let again = UriConstraints::split(&rest);
    assert_eq!(again, Ok((UriConstraints::default(), Some(rest))), "something was left");
}

fn of_trust_domain(trust_domain: &TrustDomain) {
    let Some(whole) = encode_name_constraints(trust_domain) else {
        let name = trust_domain.as_str();
        return assert!(name.starts_with('.') || name.parse::<Ipv4Addr>().is_ok(), "{name}");
    };
    let header = if whole[1] < 0x80 { 2 } else { usize::from(whole[1] & 0x7f) + 2 };
    let (constraints, _) = UriConstraints::split(&whole[header..]).expect("our own");
    let id = |domain: &str| format!("spiffe://{domain}/ns/a/sa/b");
    let own = id(trust_domain.as_str());
    assert!(constraints.permit(&own), "{own} is not permitted below its own root");
    for other in [format!("x{trust_domain}"), format!("{trust_domain}x")] {
        assert!(!constraints.permit(&id(&other)), "{other} is permitted below {trust_domain}");
    }
}

/// Constraints of our making.
#[derive(Default)]
pub(crate) struct Subtrees {
    permitted: Vec<u8>,
    excluded: Vec<u8>,
    /// Those on URIs in lower case, and whether they exclude.
    uris: Vec<(String, bool)>,
}

impl Subtrees {
    /// Up to four subtrees: what they are about, and their base.
    pub(crate) fn read(pieces: &mut Pieces<'_>) -> Self {
        let mut subtrees = Self::default();
        for _ in 0..4 {
            if pieces.is_empty() {
                break;
            }
            let (kind, text) = (pieces.byte(), pieces.text());
            let excludes = kind & 1 == 1;
            let tag = if kind & 6 == 0 { 0x82 } else { 0x86 };
            let subtree = element(SEQUENCE, &[&element(tag, &[text.as_bytes()])]);
            if tag == 0x86 {
                subtrees.uris.push((text.to_ascii_lowercase(), excludes));
            }
            let list = if excludes { &mut subtrees.excluded } else { &mut subtrees.permitted };
            list.extend(subtree);
        }
        subtrees
    }

    /// One URI is permitted, nothing else.
    pub(crate) fn of_uri(base: &str) -> Self {
        Self { uris: vec![(base.to_owned(), false)], ..Self::default() }
    }

    pub(crate) fn has_uris(&self) -> bool {
        !self.uris.is_empty()
    }

    /// The content of the sequence.
    pub(crate) fn content(&self) -> Vec<u8> {
        let list = |tag, list: &[u8]| match list {
            [] => Vec::new(),
            list => element(tag, &[list]),
        };
        [list(0xa0, &self.permitted), list(0xa1, &self.excluded)].concat()
    }

    /// What they say about `uri`, unless somebody else's parser does not understand that.
    pub(crate) fn permit(&self, uri: &str) -> Option<bool> {
        let parsed: Uri = uri.parse().ok()?;
        if self.uris.is_empty() {
            return Some(true);
        }
        let host = parsed.authority()?.host().to_ascii_lowercase();
        parsed.scheme()?;
        let is_name = !host.is_empty()
            && host.parse::<Ipv4Addr>().is_err()
            && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
        let of = |excludes| self.uris.iter().filter(move |(_, one)| *one == excludes);
        let covers = |base: &String| match base.starts_with('.') {
            true => host.len() > base.len() && host.ends_with(base.as_str()),
            false => host == *base,
        };
        let permitted = of(false).count() == 0 || of(false).any(|(base, _)| covers(base));
        Some(is_name && permitted && !of(true).any(|(base, _)| covers(base)))
    }
}
