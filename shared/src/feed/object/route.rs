//! `kind: HTTPRoute`, `GRPCRoute`, `TLSRoute` and `TCPRoute`.
//!
//! Invariants: what Kubernetes would refuse is invalid here, so that the route keeps its last good
//! version; references are only read, because what they name comes and goes (`compile::routes`).
//! Source: Gateway API v1, spec L7 §2.

mod cors;
mod filters;
mod grpc;
pub(super) mod headers;
mod http;
mod matches;
pub(super) mod paths;
pub(super) mod policy;
mod reference;
mod tcp;

use std::sync::Arc;

use crate::feed::fields::Fields;
use crate::feed::intern::Interner;
use crate::feed::object::{Head, rates};
use crate::feed::verdict::Cause;
use crate::mesh::{HttpMatch, HttpRule, RateLimits, RouteFilters, RouteKind, Timeouts};

pub(crate) use reference::{BackendKind, BackendRef, ParentKind, ParentRef};

/// A route whose references are not resolved.
#[derive(Debug, Clone)]
pub(crate) struct RouteObject {
    pub(crate) kind: RouteKind,
    pub(crate) parents: Vec<ParentRef>,
    pub(crate) rate_limits: Option<Arc<RateLimits>>,
    pub(crate) rules: RulesRead,
}

/// What a route says.
#[derive(Debug, Clone)]
pub(crate) enum RulesRead {
    Http(Vec<RuleRead>),
    Tcp { server_names: Box<[Arc<str>]>, backends: Vec<WeightedRef> },
}

/// A rule, in which the backends and mirrors are still missing.
#[derive(Debug, Clone)]
pub(crate) struct RuleRead {
    pub(crate) rule: HttpRule,
    pub(crate) mirrors: Vec<MirrorRef>,
    pub(crate) backends: Vec<WeightedRef>,
}

impl RuleRead {
    /// A rule that only matches.
    fn new(name: Option<Arc<str>>, matches: Vec<HttpMatch>) -> Self {
        let rule = HttpRule {
            name,
            matches: matches.into(),
            filters: Arc::default(),
            fault: None,
            mirrors: Box::default(),
            backends: Box::default(),
            timeouts: Timeouts::default(),
            retry: None,
            session: None,
        };
        Self { rule, mirrors: Vec::new(), backends: Vec::new() }
    }
}

/// A backend with its share.
#[derive(Debug, Clone)]
pub(crate) struct WeightedRef {
    pub(crate) reference: BackendRef,
    pub(crate) weight: u32,
    pub(crate) filters: Arc<RouteFilters>,
}

/// A backend that gets copies: `numerator` of `denominator` requests.
#[derive(Debug, Clone)]
pub(crate) struct MirrorRef {
    pub(crate) reference: BackendRef,
    pub(crate) numerator: u32,
    pub(crate) denominator: u32,
}

impl RouteObject {
    pub(crate) fn read(
        kind: RouteKind,
        root: &Fields<'_>,
        head: &Head,
        intern: &mut Interner,
    ) -> Option<Self> {
        root.foreign(&["status"]);
        let Some(spec) = root.fields("spec") else {
            root.report("spec", Cause::Invalid, "a route needs a spec");
            return None;
        };
        let reason = "a waypoint is no default gateway";
        spec.unsupported(&["useDefaultGateways"], reason);
        let namespace = &head.key.namespace;
        let parents = spec.at_most("parentRefs", 32);
        let parents = parents.iter().filter_map(|one| ParentRef::read(one, namespace, intern));
        let parents: Vec<_> = parents.collect();
        if kind != RouteKind::Tls {
            let reason = "requests are routed by the service that was dialled, whatever their host";
            spec.unsupported(&["hostnames"], reason);
        }
        let rules = match kind {
            RouteKind::Http => RulesRead::Http(http::rules(&spec, head, intern)),
            RouteKind::Grpc => RulesRead::Http(grpc::rules(&spec, head, intern)),
            // A virtual service is read elsewhere.
            RouteKind::Tls | RouteKind::Tcp | RouteKind::Virtual | RouteKind::VirtualTcp => {
                tcp::rules(kind, &spec, namespace, intern)
            }
        };
        // Of the others the head says that it has no effect.
        let limited = matches!(kind, RouteKind::Http | RouteKind::Grpc);
        let rate_limits = limited.then(|| rates::read(root)).flatten();
        Some(Self { kind, parents, rate_limits, rules })
    }
}

/// A text that must be there and has at most `most` bytes.
fn required<'a>(fields: &Fields<'a>, name: &str, most: usize) -> Option<&'a str> {
    match fields.text(name) {
        Some(text) if text.len() > most => {
            fields.report(name, Cause::Invalid, format_args!("is longer than {most} bytes"));
            None
        }
        Some("") | None => {
            fields.report(name, Cause::Invalid, "must be there and not empty");
            None
        }
        text => text,
    }
}

/// The backends of a rule.
fn backends(
    rule: &Fields<'_>,
    kind: RouteKind,
    namespace: &Arc<str>,
    intern: &mut Interner,
) -> Vec<WeightedRef> {
    let mut backends = Vec::new();
    for fields in rule.at_most("backendRefs", 16) {
        let weight = fields.number("weight").unwrap_or(1);
        if weight > 1_000_000 {
            fields.report("weight", Cause::Invalid, "must be 0 to 1000000");
        }
        let mut filters = RouteFilters::default();
        if matches!(kind, RouteKind::Http | RouteKind::Grpc) {
            filters = filters::of_backend(&fields);
        }
        let reference = BackendRef::read(&fields, namespace, intern);
        let filters = Arc::new(filters);
        backends.extend(reference.map(|reference| WeightedRef { reference, weight, filters }));
    }
    backends
}

/// Gateway API: where nothing is left to send to, requests are answered 500.
fn check_backends(rule: &Fields<'_>, filters: &RouteFilters, backends: &[WeightedRef]) {
    if filters.redirect.is_some() || filters.refused.is_some() {
        return;
    }
    if backends.is_empty() {
        rule.report("backendRefs", Cause::Default, "without backends the rule answers 500");
    } else if backends.iter().all(|backend| backend.weight == 0) {
        rule.report("backendRefs", Cause::Default, "without any weight the rule answers 500");
    }
}

/// What Kubernetes refuses about the rules of a route together.
fn check_rules(spec: &Fields<'_>, rules: &[Fields<'_>], read: &[RuleRead]) {
    let all: usize = read.iter().map(|one| one.rule.matches.len()).sum();
    if all > 128 {
        let reason = format!("the rules have {all} matches together; there may be 128");
        spec.report("rules", Cause::Invalid, reason);
    }
    for (at, (fields, one)) in rules.iter().zip(read).enumerate() {
        let name = &one.rule.name;
        if name.is_some() && read[..at].iter().any(|earlier| earlier.rule.name == *name) {
            fields.report("name", Cause::Invalid, "another rule of the route has this name");
        }
    }
}
