//! Texts that say who somebody is: in certificates, in a node's request, in a token.
//!
//! Laws: what is read prints as it was, or reads the same again; every part is a name that can be
//! a file or a label.

use shared::identity::SpiffeId;
use shared::identity::join::{Credential, JoinToken, authority_name};

use crate::planted;

/// Checks the laws on one input.
pub fn check(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    if let Ok(id) = text.parse::<SpiffeId>() {
        assert_eq!(id.to_string(), text);
        assert_eq!(id.principal(), text["spiffe://".len()..]);
        for part in [id.namespace(), id.service_account()] {
            is_name(part);
        }
        assert_ne!(id.to_string(), authority_name(id.trust_domain()), "the authority's own");
        planted(id.namespace().contains('.'));
    }
    if let Ok(token) = text.parse::<JoinToken>() {
        is_holder(token.node());
        let again: JoinToken = token.expose().parse().expect("what was printed");
        assert!(again == token);
        assert!(text.trim().eq_ignore_ascii_case(&token.expose()), "something was left out");
    }
    if let Ok(credential) = text.parse::<Credential>() {
        is_holder(credential.node());
        let again: Credential = credential.bearer().parse().expect("what was printed");
        assert!(again == credential);
    }
}

/// A node, or a gateway with its namespace.
fn is_holder(text: &str) {
    assert!(text.split('/').count() <= 2);
    text.split('/').for_each(is_name);
}

fn is_name(text: &str) {
    assert!(!text.is_empty() && text.len() <= 253);
    assert!(text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.')));
    assert!(!text.split('.').any(str::is_empty), "{text}: a way out of a directory");
}
