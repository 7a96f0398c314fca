//! The rules of an `HTTPRoute`.

use std::sync::Arc;

use crate::feed::fields::Fields;
use crate::feed::intern::Interner;
use crate::feed::object::Head;
use crate::feed::verdict::Cause;
use crate::mesh::{HttpMatch, PathChange, PathMatch, RouteFilters, RouteKind};

use super::{RuleRead, backends, check_backends, check_rules, filters, matches, policy};

/// `spec.rules`. Without any there is one for everything, as Kubernetes fills it in.
pub(super) fn rules(spec: &Fields<'_>, head: &Head, intern: &mut Interner) -> Vec<RuleRead> {
    let rules = spec.at_most("rules", 16);
    let mut retry = policy::RetryReader::new(head);
    let read: Vec<RuleRead> = rules
        .iter()
        .zip(0..)
        .map(|(fields, at)| rule(fields, at, head, &mut retry, intern))
        .collect();
    check_rules(spec, &rules, &read);
    if spec.has("rules") {
        return read;
    }
    spec.report("rules", Cause::Default, "without rules every request is answered 500");
    vec![RuleRead::new(None, vec![HttpMatch::everything()])]
}

fn rule(
    fields: &Fields<'_>,
    at: usize,
    head: &Head,
    retry: &mut policy::RetryReader,
    intern: &mut Interner,
) -> RuleRead {
    let (kind, namespace) = (RouteKind::Http, &head.key.namespace);
    let name = fields.text("name").map(|text| intern.text(text));
    let mut matches: Vec<_> =
        fields.at_most("matches", 64).iter().map(|one| matches::http(one, intern)).collect();
    if matches.is_empty() {
        matches.push(HttpMatch::everything());
    }
    let (filters, mirrors) = filters::of_rule(fields, kind, namespace, intern);
    let backends = backends(fields, kind, namespace, intern);
    check_redirect(fields, &filters, &matches, !backends.is_empty());
    check_backends(fields, &filters, &backends);
    let mut read = RuleRead { mirrors, backends, ..RuleRead::new(name, matches) };
    read.rule.filters = Arc::new(filters);
    read.rule.timeouts = policy::timeouts(fields);
    read.rule.retry = retry.read(fields);
    read.rule.session = policy::session(fields, head, at);
    read
}

/// What Kubernetes refuses about redirections and rewrites.
fn check_redirect(
    fields: &Fields<'_>,
    filters: &RouteFilters,
    matches: &[HttpMatch],
    has_backends: bool,
) {
    if filters.redirect.is_some() && filters.rewrite.is_some() {
        let reason = "RequestRedirect and URLRewrite exclude each other";
        fields.report("filters", Cause::Invalid, reason);
    }
    if filters.redirect.is_some() && has_backends {
        let reason = "a rule with RequestRedirect sends nothing to backends";
        fields.report("backendRefs", Cause::Invalid, reason);
    }
    let redirect = filters.redirect.as_ref().and_then(|one| one.path.as_ref());
    let rewrite = filters.rewrite.as_ref().and_then(|one| one.path.as_ref());
    let by_prefix = matches!(redirect.or(rewrite), Some(PathChange::Prefix(_)));
    let has_prefix = matches!(matches, [HttpMatch { path: PathMatch::Prefix(_), .. }]);
    if by_prefix && !has_prefix {
        let reason = "ReplacePrefixMatch needs exactly one match, of type PathPrefix";
        fields.report("filters", Cause::Invalid, reason);
    }
}
