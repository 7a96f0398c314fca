//! The values of a policy, from their texts.

use std::net::IpAddr;

use ipnet::IpNet;

use super::rules::RuleReader;
use crate::authz::{PathRule, ServiceAccountMatch, StringMatch, Template};
use crate::feed::fields::Fields;
use crate::feed::intern::Interner;
use crate::feed::verdict::Cause;

impl RuleReader<'_> {
    pub(super) fn strings(&mut self, fields: &Fields<'_>, name: &str) -> Vec<StringMatch> {
        fields.texts(name).into_iter().map(|text| string_match(text, self.intern)).collect()
    }

    pub(super) fn principals(&mut self, fields: &Fields<'_>, name: &str) -> Vec<StringMatch> {
        let principals = fields.texts(name);
        if principals.iter().any(|text| text.starts_with("spiffe://")) {
            let reason = "a principal is written <trust domain>/ns/…, without spiffe://";
            fields.report(name, Cause::Invalid, reason);
        }
        principals.into_iter().map(|text| string_match(text, self.intern)).collect()
    }

    /// Trust domains are how principals begin.
    pub(super) fn trust_domains(&mut self, fields: &Fields<'_>, name: &str) -> Vec<StringMatch> {
        let mut matches = Vec::new();
        for text in fields.texts(name) {
            match (text, text.strip_suffix('*')) {
                ("*", _) => matches.push(StringMatch::Presence),
                (_, Some(start)) if !start.contains(['*', '/']) => {
                    matches.push(StringMatch::Prefix(self.intern.text(start)));
                }
                (_, None) if !text.contains(['*', '/']) => {
                    matches.push(StringMatch::Prefix(format!("{text}/").into()));
                }
                _ => fields.report(name, Cause::Invalid, format!("\"{text}\" is no trust domain")),
            }
        }
        matches
    }

    /// Names of hosts have no case.
    pub(super) fn hosts(&mut self, fields: &Fields<'_>, name: &str) -> Vec<StringMatch> {
        let texts = fields.texts(name).into_iter();
        texts.map(|text| string_match(&text.to_ascii_lowercase(), self.intern)).collect()
    }

    pub(super) fn paths(&mut self, fields: &Fields<'_>, name: &str) -> Vec<PathRule> {
        let mut paths = Vec::new();
        for text in fields.texts(name) {
            let text = normal_escapes(text);
            if !Template::is_meant(&text) {
                paths.push(PathRule::Text(string_match(&text, self.intern)));
                continue;
            }
            match text.parse() {
                Ok(template) => paths.push(PathRule::Template(template)),
                Err(error) => fields.report(name, Cause::Invalid, error),
            }
        }
        paths
    }

    pub(super) fn accounts(&mut self, fields: &Fields<'_>, name: &str) -> Vec<ServiceAccountMatch> {
        let account = |text: &str| {
            let (namespace, account) =
                text.split_once('/').unwrap_or((&self.policy.namespace, text));
            ServiceAccountMatch {
                namespace: self.intern.text(namespace),
                service_account: self.intern.text(account),
            }
        };
        fields.texts(name).into_iter().map(account).collect()
    }
}

/// Escapes as they are in the paths that a waypoint compares: none of what needs none, the others
/// with capital digits (RFC 3986 §6.2.2).
fn normal_escapes(text: &str) -> String {
    let mut normal = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        normal.push_str(&rest[..at]);
        let digits = rest.get(at + 1..at + 3);
        match digits.and_then(|digits| Some((digits, u8::from_str_radix(digits, 16).ok()?))) {
            Some((_, byte)) if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => {
                normal.push(char::from(byte));
                rest = &rest[at + 3..];
            }
            Some((digits, _)) => {
                normal.push('%');
                normal.push_str(&digits.to_ascii_uppercase());
                rest = &rest[at + 3..];
            }
            None => {
                normal.push('%');
                rest = &rest[at + 1..];
            }
        }
    }
    normal.push_str(rest);
    normal
}

/// Istio: `*` is presence, `*x` a suffix, `x*` a prefix.
fn string_match(text: &str, intern: &mut Interner) -> StringMatch {
    match (text.strip_prefix('*'), text.strip_suffix('*')) {
        (Some(""), _) => StringMatch::Presence,
        (Some(suffix), _) => StringMatch::Suffix(intern.text(suffix)),
        (None, Some(prefix)) => StringMatch::Prefix(intern.text(prefix)),
        (None, None) => StringMatch::Exact(intern.text(text)),
    }
}

/// An address or a range of addresses.
pub(super) fn block(text: &str) -> Result<IpNet, String> {
    let address = |text: &str| text.parse::<IpAddr>().ok().map(IpNet::from);
    let range = text.parse::<IpNet>().ok();
    range.or_else(|| address(text)).ok_or_else(|| "is no address or range".to_owned())
}

pub(super) fn port(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| "is no port".to_owned())
}
