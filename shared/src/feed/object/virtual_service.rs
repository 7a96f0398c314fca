//! `kind: VirtualService`.
//!
//! Invariants: what Istio would refuse is invalid here, so that the object keeps its last good
//! version; a match that cannot be evaluated is left out and never widens its rule; a rule that
//! cannot be honoured is answered 500. Hosts are only read, because what they name comes and goes
//! (`compile::routes`).
//! Source: Istio's VirtualService, spec L7 §3.1.

mod actions;
mod connections;
mod cors;
mod faults;
mod headers;
mod matches;
mod places;
mod retries;

use std::sync::Arc;

use crate::feed::fields::Fields;
use crate::feed::intern::Interner;
use crate::feed::object::destination::{Export, is_host, values};
use crate::feed::object::route::policy::RetryReader;
use crate::feed::object::{Head, rates};
use crate::feed::verdict::Cause;
use crate::mesh::{HttpMatch, HttpRule, RateLimits, RouteFilters, Timeouts};

pub(crate) use connections::{ConnectionMatch, ConnectionsRead};
pub(crate) use places::{HostMirror, HostRef, HostRoute};

/// A virtual service whose hosts are not looked up.
#[derive(Debug, Clone)]
pub(crate) struct VirtualService {
    /// Host names, `*.suffix` or `*`.
    pub(crate) hosts: Vec<Arc<str>>,
    pub(crate) export: Export,
    /// Of its requests.
    pub(crate) rate_limits: Option<Arc<RateLimits>>,
    pub(crate) http: Vec<HttpRead>,
    /// For connections, those of `tls` first.
    pub(crate) connections: Vec<ConnectionsRead>,
}

/// A rule for requests, in which the destinations are still missing.
#[derive(Debug, Clone)]
pub(crate) struct HttpRead {
    /// Path of the rule, for remarks.
    pub(crate) field: Box<str>,
    pub(crate) rule: HttpRule,
    pub(crate) routes: Vec<HostRoute>,
    pub(crate) mirrors: Vec<HostMirror>,
}

/// Rules of one object, matches of one rule and entries of one map; Istio sets no bound.
const MOST_ENTRIES: usize = 1_000;

impl VirtualService {
    /// Nothing when it is for gateways or delegates alone, which is reported.
    pub(crate) fn read(root: &Fields<'_>, head: &Head, intern: &mut Interner) -> Option<Self> {
        root.foreign(&["status"]);
        let Some(spec) = root.fields("spec") else {
            root.report("spec", Cause::Invalid, "a virtual service needs a spec");
            return None;
        };
        let gateways = spec.texts("gateways");
        if !gateways.is_empty() && !gateways.contains(&"mesh") {
            root.foreign(&["spec"]);
            let reason =
                "a waypoint routes the traffic of the gateway \"mesh\", which is not named";
            spec.report("gateways", Cause::Unsupported, reason);
            return None;
        }
        let hosts = hosts(&spec, intern);
        if hosts.is_empty() {
            root.foreign(&["spec"]);
            let reason = "without hosts it could only be a delegate, and those are not supported";
            spec.report("hosts", Cause::Unsupported, reason);
            return None;
        }
        let export = Export::read(&spec, &head.key.namespace, intern);
        let mut reader = Reader { intern, retry: RetryReader::new(head) };
        let http = reader.http(&spec);
        let connections = connections::read(&spec, intern);
        if http.is_empty() && !spec.has("http") && !spec.has("tcp") && !spec.has("tls") {
            spec.report("", Cause::Invalid, "needs http, tcp or tls");
        }
        let rate_limits = rates::read(root);
        Some(Self { hosts, export, rate_limits, http, connections })
    }
}

fn hosts(spec: &Fields<'_>, intern: &mut Interner) -> Vec<Arc<str>> {
    let mut hosts: Vec<Arc<str>> = Vec::new();
    for text in spec.texts("hosts") {
        let lower = text.to_ascii_lowercase();
        if is_host(&lower) {
            hosts.push(intern.text(&lower));
        } else {
            let reason = format!("\"{text}\" is no host name, *.suffix or *");
            spec.report("hosts", Cause::Invalid, reason);
        }
    }
    hosts
}

/// What the readers of one object share.
struct Reader<'a> {
    intern: &'a mut Interner,
    retry: RetryReader,
}

impl Reader<'_> {
    fn http(&mut self, spec: &Fields<'_>) -> Vec<HttpRead> {
        let mut read: Vec<HttpRead> = Vec::new();
        let mut all_taken = false;
        for fields in spec.at_most("http", MOST_ENTRIES) {
            if all_taken {
                let reason = "a rule before it has every request";
                fields.report("", Cause::Shadowed, reason);
            }
            let Some(rule) = self.rule(&fields) else { continue };
            all_taken |= rule.rule.matches.iter().any(matches::is_everything);
            read.push(rule);
        }
        read
    }

    /// Nothing when none of its matches can be evaluated, which is reported.
    fn rule(&mut self, fields: &Fields<'_>) -> Option<HttpRead> {
        let name = fields.text("name").map(|text| self.intern.text(text));
        let matches = self.matches(fields);
        let (mut filters, routes) = self.action(fields);
        if let Some(headers) = fields.fields("headers") {
            (filters.request_headers, filters.response_headers) = headers::read(&headers);
        }
        filters.cors = fields.fields("corsPolicy").map(|one| cors::read(&one));
        let mirrors = places::mirrors(fields, self.intern);
        let retries = fields.fields("retries");
        let timeouts = Timeouts {
            request: limit(fields, "timeout"),
            backend_request: retries.as_ref().and_then(|one| limit(one, "perTryTimeout")),
        };
        let retry = retries.and_then(|one| retries::read(&one, &mut self.retry));
        fields.unsupported(&["websocketUpgrade"], "is of old versions; upgrades always pass");
        let rule = HttpRule {
            name,
            matches: matches?.into(),
            filters: Arc::new(filters),
            fault: fields.fields("fault").and_then(|one| faults::read(&one)).map(Arc::new),
            mirrors: Box::default(),
            backends: Box::default(),
            timeouts,
            retry: retry.map(Arc::new),
            session: None,
        };
        Some(HttpRead { field: fields.path().into(), rule, routes, mirrors })
    }

    /// `match`; nothing when there are some and none can be evaluated.
    fn matches(&mut self, fields: &Fields<'_>) -> Option<Vec<HttpMatch>> {
        let all = fields.at_most("match", MOST_ENTRIES);
        if all.is_empty() {
            return Some(vec![matches::everything()]);
        }
        let read = all.iter().filter_map(|one| matches::read(one, self.intern));
        let read: Vec<HttpMatch> = read.collect();
        if read.is_empty() {
            fields.report(
                "",
                Cause::Unsupported,
                "none of its matches can hold, so it is left out",
            );
            return None;
        }
        Some(read)
    }

    /// What is done with requests: exactly one of `route`, `redirect`, `directResponse` and
    /// `delegate`.
    fn action(&mut self, fields: &Fields<'_>) -> (RouteFilters, Vec<HostRoute>) {
        let mut filters = RouteFilters::default();
        let routes = places::routes(fields, self.intern);
        filters.redirect =
            fields.fields("redirect").map(|one| actions::redirect(&one, self.intern));
        filters.direct = fields.fields("directResponse").map(|one| actions::direct(&one));
        filters.rewrite =
            fields.fields("rewrite").and_then(|one| actions::rewrite(&one, self.intern));
        if fields.has("delegate") {
            fields.foreign(&["delegate"]);
            let reason = "delegates are not supported, so the rule answers 500";
            fields.report("delegate", Cause::Unsupported, reason);
            filters.refused = Some(reason.into());
        }
        let given = ["route", "redirect", "directResponse", "delegate"];
        let given: Vec<_> = given.into_iter().filter(|name| fields.has(name)).collect();
        match given[..] {
            [_] => {}
            [] => {
                let reason = "needs one of route, redirect, directResponse and delegate";
                fields.report("", Cause::Invalid, reason);
            }
            [..] => {
                let reason = format!("{} exclude each other", given.join(" and "));
                fields.report("", Cause::Invalid, reason);
            }
        }
        if filters.rewrite.is_some() && routes.is_empty() {
            fields.report("rewrite", Cause::Invalid, "is for requests that are sent somewhere");
        }
        (filters, routes)
    }
}

/// A limit of time, of which `0s` is none.
fn limit(fields: &Fields<'_>, name: &str) -> Option<std::time::Duration> {
    values::any_time(fields, name).filter(|time| !time.is_zero())
}
