//! `kind: AuthorizationPolicy`, converted to what a node proxy enforces.
//!
//! Invariants: never weaker than written, except where Istio's own conversion is (spec L4 §6.3): an
//! allow rule with an HTTP attribute is left out, a deny rule keeps its parts that are not HTTP.
//! Whatever else cannot be honoured makes the policy deny all that its selector covers.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::authz::{
    Action, Group, Match, Policy, PolicyKey, Rule, Scope, ServiceAccountMatch, StringMatch,
};
use crate::feed::compile::Options;
use crate::feed::fields::{Fields, Problem, Problems};
use crate::feed::intern::Interner;
use crate::feed::object::peer::selector;
use crate::feed::object::{Head, Labels};
use crate::feed::verdict::Cause;

/// A policy and the workloads it selects.
#[derive(Debug, Clone)]
pub(crate) struct Authorization {
    pub(crate) policy: Arc<Policy>,
    /// Empty: the whole namespace, or the mesh in the root namespace.
    pub(crate) selector: Labels,
    /// Something of it needs an extension that there is none of.
    denies: bool,
}

const HTTP: &str = "is an HTTP attribute, which only a waypoint can enforce";

impl Authorization {
    pub(crate) fn read(
        root: &Fields<'_>,
        head: &Head,
        options: &Options,
        intern: &mut Interner,
    ) -> Option<Self> {
        let key = PolicyKey { namespace: head.key.namespace.clone(), name: head.key.name.clone() };
        let mut policy = Policy {
            key,
            scope: Scope::Namespace,
            action: Action::Allow,
            dry_run: head.is_annotated("istio.io/dry-run"),
            groups: Vec::new(),
        };
        let (mut selected, mut denies) = (Labels::default(), false);
        if let Some(spec) = root.fields("spec") {
            if spec.has("targetRef") || spec.has("targetRefs") {
                root.foreign(&["spec"]);
                let reason = "a policy with targetRefs is enforced by a waypoint, not here";
                spec.report("targetRefs", Cause::Unsupported, reason);
                return None;
            }
            selected = selector(&spec, intern);
            match spec.text("action") {
                None | Some("ALLOW") => {}
                Some("DENY") => policy.action = Action::Deny,
                Some("AUDIT") => {
                    root.foreign(&["spec"]);
                    spec.report("action", Cause::Unsupported, "nothing is audited");
                    return None;
                }
                Some(other) => {
                    denies = true;
                    spec.foreign(&["provider", "rules"]);
                    let reason = format!("action {other} is not supported");
                    spec.report("action", Cause::Unsupported, reason);
                }
            }
            let mut reader = RuleReader { action: policy.action, policy: &policy.key, intern };
            let rules = spec.each("rules");
            policy.groups = rules.iter().filter_map(|rule| reader.group(rule)).collect();
        }
        policy.scope = match (selected.is_empty(), policy.key.namespace == options.root_namespace) {
            (false, _) => Scope::WorkloadSelector,
            (true, true) => Scope::Global,
            (true, false) => Scope::Namespace,
        };
        Some(Self { policy: Arc::new(policy), selector: selected, denies })
    }

    /// This policy, or if something of it is not understood, one that denies what it covers.
    pub(crate) fn or_deny(self, problems: &Problems) -> Self {
        let is_fatal = |problem: &Problem| {
            matches!(problem.cause, Cause::Unknown | Cause::Invalid)
                && problem.field.starts_with("spec")
        };
        let fatal = problems.borrow().iter().find(|problem| is_fatal(problem)).cloned();
        if self.policy.dry_run || !(self.denies || fatal.is_some()) {
            return self;
        }
        problems.borrow_mut().push(Problem {
            line: fatal.map_or(0, |problem| problem.line),
            field: "spec".to_owned(),
            cause: Cause::Unsupported,
            reason: "until it is corrected it denies every connection that its selector covers"
                .to_owned(),
        });
        let mut policy = (*self.policy).clone();
        policy.action = Action::Deny;
        policy.groups = vec![Group::default()];
        Self { policy: Arc::new(policy), ..self }
    }
}

/// Reads the rules of one policy.
struct RuleReader<'a> {
    action: Action,
    policy: &'a PolicyKey,
    intern: &'a mut Interner,
}

impl RuleReader<'_> {
    /// A rule with `from`, `to` and `when` is a group that all of them must match. `None` when it
    /// has an HTTP attribute and allows.
    fn group(&mut self, rule: &Fields<'_>) -> Option<Group> {
        let mut http = false;
        let mut rules = Vec::new();
        let (from, to, when) = (rule.each("from"), rule.each("to"), rule.each("when"));
        if !from.is_empty() {
            let sources = from.iter().filter_map(|one| one.fields("source"));
            let matches = sources.map(|source| self.source(&source, &mut http)).collect();
            rules.push(Rule { matches });
        }
        if !to.is_empty() {
            let operations = to.iter().filter_map(|one| one.fields("operation"));
            let matches =
                operations.map(|operation| Self::operation(&operation, &mut http)).collect();
            rules.push(Rule { matches });
        }
        for condition in &when {
            rules.push(Rule { matches: vec![self.condition(condition, &mut http)] });
        }
        for (name, list) in [("from", &from), ("to", &to)] {
            let part = if name == "from" { "source" } else { "operation" };
            for one in list.iter().filter(|one| !one.fields(part).is_some_and(|f| is_filled(&f))) {
                one.report(part, Cause::Invalid, "must say something");
            }
        }
        if !(http && self.action == Action::Allow) {
            return Some(Group { rules });
        }
        rule.report("", Cause::Unsupported, "the rule needs a waypoint, so it allows nothing here");
        None
    }

    fn source(&mut self, source: &Fields<'_>, http: &mut bool) -> Match {
        let names =
            ["requestPrincipals", "notRequestPrincipals", "remoteIpBlocks", "notRemoteIpBlocks"];
        *http |= source.unsupported(&names, HTTP);
        Match {
            namespaces: self.strings(source, "namespaces"),
            not_namespaces: self.strings(source, "notNamespaces"),
            principals: self.principals(source, "principals"),
            not_principals: self.principals(source, "notPrincipals"),
            service_accounts: self.accounts(source, "serviceAccounts"),
            not_service_accounts: self.accounts(source, "notServiceAccounts"),
            source_ips: source.parsed_list("ipBlocks", block),
            not_source_ips: source.parsed_list("notIpBlocks", block),
            ..Match::default()
        }
    }

    fn operation(operation: &Fields<'_>, http: &mut bool) -> Match {
        let names = ["hosts", "notHosts", "methods", "notMethods", "paths", "notPaths"];
        *http |= operation.unsupported(&names, HTTP);
        Match {
            destination_ports: operation.parsed_list("ports", port),
            not_destination_ports: operation.parsed_list("notPorts", port),
            ..Match::default()
        }
    }

    fn condition(&mut self, condition: &Fields<'_>, http: &mut bool) -> Match {
        let mut one = Match::default();
        let key = condition.text("key").unwrap_or("");
        let (is, not) = ("values", "notValues");
        match key {
            "source.ip" => {
                one.source_ips = condition.parsed_list(is, block);
                one.not_source_ips = condition.parsed_list(not, block);
            }
            "destination.ip" => {
                one.destination_ips = condition.parsed_list(is, block);
                one.not_destination_ips = condition.parsed_list(not, block);
            }
            "destination.port" => {
                one.destination_ports = condition.parsed_list(is, port);
                one.not_destination_ports = condition.parsed_list(not, port);
            }
            "source.namespace" => {
                one.namespaces = self.strings(condition, is);
                one.not_namespaces = self.strings(condition, not);
            }
            "source.principal" => {
                one.principals = self.principals(condition, is);
                one.not_principals = self.principals(condition, not);
            }
            "source.serviceAccount" => {
                one.service_accounts = self.accounts(condition, is);
                one.not_service_accounts = self.accounts(condition, not);
            }
            _ if key.starts_with("request.") || key == "remote.ip" || key == "connection.sni" => {
                *http = true;
                condition.foreign(&[is, not]);
                condition.report("key", Cause::Unsupported, format!("\"{key}\" {HTTP}"));
            }
            _ => condition.report("key", Cause::Invalid, format!("no such attribute \"{key}\"")),
        }
        if one.is_empty() && !*http {
            condition.report("", Cause::Invalid, "a condition needs values");
        }
        one
    }

    fn strings(&mut self, fields: &Fields<'_>, name: &str) -> Vec<StringMatch> {
        fields.texts(name).into_iter().map(|text| string_match(text, self.intern)).collect()
    }

    fn principals(&mut self, fields: &Fields<'_>, name: &str) -> Vec<StringMatch> {
        let principals = fields.texts(name);
        if principals.iter().any(|text| text.starts_with("spiffe://")) {
            let reason = "a principal is written <trust domain>/ns/…, without spiffe://";
            fields.report(name, Cause::Invalid, reason);
        }
        principals.into_iter().map(|text| string_match(text, self.intern)).collect()
    }

    fn accounts(&mut self, fields: &Fields<'_>, name: &str) -> Vec<ServiceAccountMatch> {
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

fn is_filled(fields: &Fields<'_>) -> bool {
    fields.names().any(|name| fields.has(name))
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
fn block(text: &str) -> Result<IpNet, String> {
    let address = |text: &str| text.parse::<IpAddr>().ok().map(IpNet::from);
    let range = text.parse::<IpNet>().ok();
    range.or_else(|| address(text)).ok_or_else(|| "is no address or range".to_owned())
}

fn port(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| "is no port".to_owned())
}
