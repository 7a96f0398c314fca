//! The rules of a policy.

use http::HeaderName;

use super::values::{block, port};
use crate::authz::{Action, Group, HeaderRule, InsideMatch, Match, PolicyKey, Rule};
use crate::feed::fields::Fields;
use crate::feed::intern::Interner;
use crate::feed::verdict::Cause;

/// Who enforces a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Enforcer {
    /// The node proxy of the workloads, which sees no HTTP.
    Node,
    /// A waypoint.
    Waypoint,
}

/// Reads the rules of one policy.
pub(super) struct RuleReader<'a> {
    pub(super) enforcer: Enforcer,
    pub(super) action: Action,
    pub(super) policy: &'a PolicyKey,
    pub(super) intern: &'a mut Interner,
}

const TOKEN: &str = "needs RequestAuthentication, which is not supported yet";
const FORWARDED: &str =
    "is what X-Forwarded-For says, which any client can write; use ipBlocks or source.ip";

impl RuleReader<'_> {
    /// A rule with `from`, `to` and `when` is a group that all of them must match. `None` when it
    /// allows by an attribute that its enforcer does not see.
    pub(super) fn group(&mut self, rule: &Fields<'_>) -> Option<Group> {
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
                operations.map(|operation| self.operation(&operation, &mut http)).collect();
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
        if !(http && self.action == Action::Allow && self.enforcer == Enforcer::Node) {
            return Some(Group { rules });
        }
        rule.report("", Cause::Unsupported, "the rule needs a waypoint, so it allows nothing here");
        None
    }

    /// Reports attributes that the enforcer does not see, and sets `http` when there are some.
    fn hidden(&self, fields: &Fields<'_>, names: &[&str], http: &mut bool) {
        if self.enforcer == Enforcer::Node {
            for name in names.iter().filter(|name| fields.has(name)) {
                fields.report(name, Cause::Unsupported, self.needs_waypoint());
                *http = true;
            }
        }
    }

    /// Reports attributes that nobody sees. True when any is there.
    fn unseen(&self, fields: &Fields<'_>, names: &[&str], why: &str) -> bool {
        fields.unsupported(names, &format!("{why}{}", self.consequence()))
    }

    fn needs_waypoint(&self) -> String {
        let what = "is an HTTP attribute, which only a waypoint can enforce";
        format!("{what}{}", self.consequence())
    }

    fn consequence(&self) -> &'static str {
        match self.action {
            Action::Allow => "; the rule allows nothing",
            Action::Deny => "; the rule denies as if it were not written",
            Action::Audit => "; the rule marks as if it were not written",
        }
    }

    fn source(&mut self, source: &Fields<'_>, http: &mut bool) -> Match {
        let token = self.unseen(source, &["requestPrincipals", "notRequestPrincipals"], TOKEN);
        let remote = self.unseen(source, &["remoteIpBlocks", "notRemoteIpBlocks"], FORWARDED);
        *http |= token || remote;
        let inside = (token || remote).then(unseen);
        Match {
            namespaces: self.strings(source, "namespaces"),
            not_namespaces: self.strings(source, "notNamespaces"),
            principals: self.principals(source, "principals"),
            not_principals: self.principals(source, "notPrincipals"),
            service_accounts: self.accounts(source, "serviceAccounts"),
            not_service_accounts: self.accounts(source, "notServiceAccounts"),
            source_ips: source.parsed_list("ipBlocks", block),
            not_source_ips: source.parsed_list("notIpBlocks", block),
            inside,
            ..Match::default()
        }
    }

    fn operation(&mut self, operation: &Fields<'_>, http: &mut bool) -> Match {
        let names = ["hosts", "notHosts", "methods", "notMethods", "paths", "notPaths"];
        self.hidden(operation, &names, http);
        let inside = InsideMatch {
            hosts: self.hosts(operation, "hosts"),
            not_hosts: self.hosts(operation, "notHosts"),
            methods: self.strings(operation, "methods"),
            not_methods: self.strings(operation, "notMethods"),
            paths: self.paths(operation, "paths"),
            not_paths: self.paths(operation, "notPaths"),
            ..InsideMatch::default()
        };
        Match {
            destination_ports: operation.parsed_list("ports", port),
            not_destination_ports: operation.parsed_list("notPorts", port),
            inside: some(inside),
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
            "source.trustDomain" => {
                one.principals = self.trust_domains(condition, is);
                one.not_principals = self.trust_domains(condition, not);
            }
            _ => {
                one.inside = self.inside(condition, key, http).map(Box::new);
                return one;
            }
        }
        if one.is_empty() {
            condition.report("", Cause::Invalid, "a condition needs values");
        }
        one
    }

    /// A condition about what is inside a tunnel.
    fn inside(
        &mut self,
        condition: &Fields<'_>,
        key: &str,
        http: &mut bool,
    ) -> Option<InsideMatch> {
        let (is, not) = ("values", "notValues");
        let header = key.strip_prefix("request.headers[").and_then(|rest| rest.strip_suffix(']'));
        let mut inside = InsideMatch::default();
        match (key, header) {
            (_, Some(name)) => match name.parse::<HeaderName>() {
                Ok(name) => {
                    let values = self.strings(condition, is);
                    let not_values = self.strings(condition, not);
                    let some = !(values.is_empty() && not_values.is_empty());
                    inside.header = some.then_some(HeaderRule { name, values, not_values });
                }
                Err(_) => {
                    let reason = format!("\"{name}\" is no name of a header");
                    condition.report("key", Cause::Invalid, reason);
                }
            },
            ("connection.sni", _) => {
                inside.server_names = self.hosts(condition, is);
                inside.not_server_names = self.hosts(condition, not);
            }
            _ if key.starts_with("request.auth.") || key == "remote.ip" => {
                condition.foreign(&[is, not]);
                let why = if key == "remote.ip" { FORWARDED } else { TOKEN };
                let reason = format!("\"{key}\" {why}{}", self.consequence());
                condition.report("key", Cause::Unsupported, reason);
                *http = true;
                return Some(*unseen());
            }
            _ => {
                condition.report("key", Cause::Invalid, format!("no such attribute \"{key}\""));
                return None;
            }
        }
        self.hidden(condition, &["key"], http);
        if inside == InsideMatch::default() {
            condition.report("", Cause::Invalid, "a condition needs values");
        }
        Some(inside)
    }
}

fn unseen() -> Box<InsideMatch> {
    Box::new(InsideMatch { unseen: true, ..InsideMatch::default() })
}

fn some(inside: InsideMatch) -> Option<Box<InsideMatch>> {
    (inside != InsideMatch::default()).then(|| Box::new(inside))
}

fn is_filled(fields: &Fields<'_>) -> bool {
    fields.names().any(|name| fields.has(name))
}
