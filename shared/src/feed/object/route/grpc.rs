//! The rules of a `GRPCRoute`, written as HTTP: a call is a POST to `/service/method`.

use std::sync::Arc;

use crate::feed::fields::Fields;
use crate::feed::intern::Interner;
use crate::feed::object::Head;
use crate::feed::verdict::Cause;
use crate::mesh::{HttpMatch, PathMatch, RouteKind};

use super::{RuleRead, backends, check_backends, check_rules, filters, matches, policy};

/// `spec.rules`.
pub(super) fn rules(spec: &Fields<'_>, head: &Head, intern: &mut Interner) -> Vec<RuleRead> {
    let rules = spec.at_most("rules", 16);
    let read: Vec<RuleRead> =
        rules.iter().zip(0..).map(|(fields, at)| rule(fields, at, head, intern)).collect();
    check_rules(spec, &rules, &read);
    read
}

fn rule(fields: &Fields<'_>, at: usize, head: &Head, intern: &mut Interner) -> RuleRead {
    let (kind, namespace) = (RouteKind::Grpc, &head.key.namespace);
    let name = fields.text("name").map(|text| intern.text(text));
    let mut matches: Vec<_> =
        fields.at_most("matches", 64).iter().map(|one| call(one, intern)).collect();
    if matches.is_empty() {
        matches.push(HttpMatch { path: PathMatch::Any, ..HttpMatch::everything() });
    }
    let (filters, mirrors) = filters::of_rule(fields, kind, namespace, intern);
    let backends = backends(fields, kind, namespace, intern);
    check_backends(fields, &filters, &backends);
    let mut read = RuleRead { mirrors, backends, ..RuleRead::new(name, matches) };
    read.rule.filters = Arc::new(filters);
    read.rule.session = policy::session(fields, head, at);
    read
}

fn call(fields: &Fields<'_>, intern: &mut Interner) -> HttpMatch {
    let path = fields.fields("method").and_then(|method| path(&method, intern));
    HttpMatch {
        path: path.unwrap_or(PathMatch::Any),
        headers: matches::headers(fields),
        query: Box::default(),
        method: None,
        further: None,
    }
}

/// Spec L7 §2.3: both names are a path, a service alone is a prefix, a method alone an expression.
fn path(method: &Fields<'_>, intern: &mut Interner) -> Option<PathMatch> {
    let kind = method.text("type").unwrap_or("Exact");
    let (service, name) = (method.text("service"), method.text("method"));
    if service.is_none() && name.is_none() {
        method.report("", Cause::Invalid, "needs a service or a method");
        return None;
    }
    for (field, text) in [("service", service), ("method", name)] {
        if text.is_some_and(|text| text.is_empty() || text.len() > 1024) {
            method.report(field, Cause::Invalid, "must have 1 to 1024 bytes");
        }
    }
    match kind {
        "Exact" => {
            let wrong = |text: &str| text.split('.').any(|part| !is_identifier(part));
            if service.is_some_and(|text| wrong(text.strip_prefix('.').unwrap_or(text))) {
                method.report("service", Cause::Invalid, "must be names joined with dots");
            }
            if name.is_some_and(|text| !is_identifier(text)) {
                method.report("method", Cause::Invalid, "must be a name");
            }
            Some(match (service, name) {
                (Some(service), Some(name)) => {
                    PathMatch::Exact(intern.text(&format!("/{service}/{name}")))
                }
                (Some(service), None) => PathMatch::Prefix(intern.text(&format!("/{service}"))),
                (None, name) => {
                    let text = format!("/[^/]+/{}", name.unwrap_or(""));
                    PathMatch::Regex(matches::pattern(method, "method", &text)?)
                }
            })
        }
        "RegularExpression" => {
            // Each by itself first, so that neither can close the group it is put in.
            for (field, text) in [("service", service), ("method", name)] {
                if let Some(text) = text {
                    matches::pattern(method, field, text)?;
                }
            }
            let (service, name) = (service.unwrap_or("[^/]+"), name.unwrap_or("[^/]+"));
            let text = format!("/(?:{service})/(?:{name})");
            Some(PathMatch::Regex(matches::pattern(method, "", &text)?))
        }
        other => {
            matches::unknown_type(method, other);
            None
        }
    }
}

/// An identifier of protobuf.
fn is_identifier(text: &str) -> bool {
    let rest = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.chars().all(rest) && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
}
