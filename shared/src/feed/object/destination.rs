//! `kind: DestinationRule`.
//!
//! Invariants: what Istio would refuse is invalid here, so that the rule keeps its last good version;
//! a rule that asks for TLS which cannot be given refuses what it covers.
//! Source: Istio's DestinationRule, spec L7 §3.2 and §3.3.

mod balancer;
pub(super) mod concurrency;
mod detectors;
mod locality;
mod outliers;
mod pool;
pub(super) mod values;

use std::sync::Arc;

use crate::feed::fields::Fields;
use crate::feed::intern::Interner;
use crate::feed::object::{Head, Labels};
use crate::feed::verdict::Cause;
use crate::mesh::{
    Balancer, Concurrency, Limits, LocalityPreference, OutlierDetection, RetryBudget, TrafficPolicy,
};

/// A rule whose host is not looked up.
#[derive(Debug, Clone)]
pub(crate) struct DestinationRule {
    /// A host name, or `*.suffix`, or `*`; a name without dots is of the rule's namespace.
    pub(crate) host: Arc<str>,
    pub(crate) export: Export,
    pub(crate) policy: Option<PolicyRead>,
    pub(crate) subsets: Vec<SubsetRead>,
}

/// Who a rule is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Export {
    /// Every namespace.
    All,
    /// These.
    Only(Box<[Arc<str>]>),
}

impl Export {
    /// `exportTo` of an object in the namespace `own`.
    pub(crate) fn read(spec: &Fields<'_>, own: &Arc<str>, intern: &mut Interner) -> Self {
        let names = spec.texts("exportTo");
        if names.is_empty() || names.contains(&"*") {
            return Self::All;
        }
        let name = |text: &&str| if *text == "." { own.clone() } else { intern.text(text) };
        Self::Only(names.iter().map(name).collect())
    }

    /// Whether a client in `namespace` sees the rule.
    pub(crate) fn reaches(&self, namespace: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.iter().any(|name| **name == *namespace),
        }
    }
}

/// `trafficPolicy`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PolicyRead {
    pub(crate) groups: Groups,
    /// `portLevelSettings`, in the order of their numbers; `None` when it is not there.
    pub(crate) ports: Option<Vec<(u16, Groups)>>,
}

/// `subsets[]`.
#[derive(Debug, Clone)]
pub(crate) struct SubsetRead {
    /// Path of the subset, for remarks.
    pub(crate) field: Box<str>,
    pub(crate) name: Arc<str>,
    pub(crate) labels: Labels,
    pub(crate) policy: Option<PolicyRead>,
}

/// The groups of fields that are merged one by one; `None` is not said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Groups {
    pub(crate) balancer: Option<(Balancer, Option<LocalityPreference>)>,
    pub(crate) limits: Option<Limits>,
    pub(crate) outliers: Option<OutlierDetection>,
    pub(crate) retry_budget: Option<RetryBudget>,
    /// Of the rule's annotation: the same for all its ports.
    pub(crate) concurrency: Option<Concurrency>,
    pub(crate) tls: Option<Tls>,
}

/// `tls`, as far as a waypoint can tell the modes apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tls {
    /// The tunnel's own is enough: `DISABLE` and `ISTIO_MUTUAL`.
    Tunnel,
    /// More is asked for, and why that cannot be.
    Refused(Arc<str>),
}

impl Groups {
    /// These, and what they leave out from `wider`.
    pub(crate) fn over(&self, wider: &Self) -> Self {
        Self {
            balancer: self.balancer.clone().or_else(|| wider.balancer.clone()),
            limits: self.limits.clone().or_else(|| wider.limits.clone()),
            outliers: self.outliers.clone().or_else(|| wider.outliers.clone()),
            retry_budget: self.retry_budget.or(wider.retry_budget),
            concurrency: self.concurrency.or(wider.concurrency),
            tls: self.tls.clone().or_else(|| wider.tls.clone()),
        }
    }

    /// With defaults for what is left out.
    pub(crate) fn complete(&self) -> TrafficPolicy {
        let (balancer, locality) = self.balancer.clone().unwrap_or_default();
        TrafficPolicy {
            balancer,
            locality,
            limits: Limits {
                retry_budget: self.retry_budget,
                ..self.limits.clone().unwrap_or_default()
            },
            outliers: self.outliers.clone(),
            concurrency: self.concurrency,
            refused: match &self.tls {
                Some(Tls::Refused(reason)) => Some(reason.clone()),
                Some(Tls::Tunnel) | None => None,
            },
        }
    }
}

/// Subsets of one rule, and ports of one policy; Istio sets no bound.
const MOST_ENTRIES: usize = 1_000;

impl DestinationRule {
    pub(crate) fn read(root: &Fields<'_>, head: &Head, intern: &mut Interner) -> Option<Self> {
        root.foreign(&["status"]);
        let Some(spec) = root.fields("spec") else {
            root.report("spec", Cause::Invalid, "a rule needs a spec");
            return None;
        };
        if spec.has("workloadSelector") {
            root.foreign(&["spec"]);
            let reason = "a rule for some clients' sidecars does not count at a waypoint";
            spec.report("workloadSelector", Cause::Unsupported, reason);
            return None;
        }
        let host = spec.text("host").unwrap_or("");
        if !is_host(host) {
            spec.report("host", Cause::Invalid, "must be a host name, *.suffix or *");
            return None;
        }
        let policy = spec.fields("trafficPolicy").map(|fields| PolicyRead::read(&fields, intern));
        let subsets = spec.at_most("subsets", MOST_ENTRIES);
        let subsets = subsets.iter().filter_map(|one| subset(one, intern)).collect();
        let mut rule = Self {
            host: intern.text(host),
            export: Export::read(&spec, &head.key.namespace, intern),
            policy,
            subsets,
        };
        detectors::read(root, head, rule.outliers());
        Some(match concurrency::read(root) {
            None => rule,
            Some(bounds) => rule.adaptive(bounds),
        })
    }

    /// Every `outlierDetection` in it.
    fn outliers(&mut self) -> impl Iterator<Item = &mut OutlierDetection> {
        let subsets = self.subsets.iter_mut().filter_map(|one| one.policy.as_mut());
        let all = self.policy.iter_mut().chain(subsets).flat_map(|policy| {
            let ports = policy.ports.iter_mut().flatten().map(|(_, groups)| groups);
            ports.chain([&mut policy.groups])
        });
        all.filter_map(|groups| groups.outliers.as_mut())
    }

    /// With a limit that follows the time that answers take, on all ports and for all subsets.
    fn adaptive(mut self, bounds: Concurrency) -> Self {
        let subsets = self.subsets.iter_mut().filter_map(|subset| subset.policy.as_mut());
        for policy in subsets.chain([self.policy.get_or_insert_default()]) {
            policy.groups.concurrency = Some(bounds);
            for (_, groups) in policy.ports.iter_mut().flatten() {
                groups.concurrency = Some(bounds);
            }
        }
        self
    }
}

pub(super) fn is_host(text: &str) -> bool {
    let name = text.strip_prefix("*.").unwrap_or(text);
    text == "*" || (name.len() <= 253 && crate::identity::is_dns1123_subdomain(name))
}

fn subset(fields: &Fields<'_>, intern: &mut Interner) -> Option<SubsetRead> {
    let name = fields.text("name").unwrap_or("");
    if !crate::identity::is_dns1123_subdomain(name) || name.contains('.') {
        fields.report("name", Cause::Invalid, "a subset needs a name, a DNS label");
        return None;
    }
    let mut labels = fields.pairs("labels");
    labels.sort_unstable();
    Some(SubsetRead {
        field: fields.path().into(),
        name: intern.text(name),
        labels: labels.iter().map(|(key, value)| (intern.text(key), intern.text(value))).collect(),
        policy: fields.fields("trafficPolicy").map(|fields| PolicyRead::read(&fields, intern)),
    })
}

impl PolicyRead {
    fn read(fields: &Fields<'_>, intern: &mut Interner) -> Self {
        let tunnel = "traffic leaves through a tunnel of its own already";
        fields.unsupported(&["tunnel"], tunnel);
        let reason = "endpoints are told the client by the address of the connection";
        fields.unsupported(&["proxyProtocol"], reason);
        let retry_budget = pool::retry_budget(fields);
        let groups = Groups { retry_budget, ..Groups::read(fields, intern) };
        let ports = fields.has("portLevelSettings").then(|| Self::ports(fields, intern));
        Self { groups, ports }
    }

    fn ports(fields: &Fields<'_>, intern: &mut Interner) -> Vec<(u16, Groups)> {
        let mut ports: Vec<(u16, Groups)> = Vec::new();
        for one in fields.at_most("portLevelSettings", MOST_ENTRIES) {
            let port = one.fields("port").and_then(|port| port.number::<u16>("number"));
            let groups = Groups::read(&one, intern);
            match port.filter(|port| *port != 0) {
                None => one.report("port", Cause::Invalid, "needs the number of a port"),
                Some(port) if ports.iter().any(|(own, _)| *own == port) => {
                    one.report("port", Cause::Invalid, "another entry has this port");
                }
                Some(port) => ports.push((port, groups)),
            }
        }
        ports.sort_unstable_by_key(|(port, _)| *port);
        ports
    }
}

impl Groups {
    fn read(fields: &Fields<'_>, intern: &mut Interner) -> Self {
        let groups = Self {
            balancer: fields.fields("loadBalancer").and_then(|one| balancer::read(&one, intern)),
            limits: fields.fields("connectionPool").map(|one| pool::read(&one)),
            outliers: fields.fields("outlierDetection").map(|one| outliers::read(&one)),
            retry_budget: None,
            concurrency: None,
            tls: fields.fields("tls").map(|one| tls(&one)),
        };
        let by_locality =
            matches!(groups.balancer, Some((_, Some(LocalityPreference::Failover { .. }))));
        if by_locality && groups.outliers.is_none() {
            let reason = "localityLbSetting counts only beside outlierDetection";
            fields.report("loadBalancer", Cause::Unsupported, reason);
        }
        groups
    }
}

/// What else `tls` holds is for the modes that are refused.
const TLS_DETAILS: &[&str] = &[
    "clientCertificate",
    "privateKey",
    "caCertificates",
    "credentialName",
    "subjectAltNames",
    "sni",
    "insecureSkipVerify",
    "caCrl",
];

fn tls(fields: &Fields<'_>) -> Tls {
    fields.foreign(TLS_DETAILS);
    match fields.text("mode").unwrap_or("DISABLE") {
        "DISABLE" | "ISTIO_MUTUAL" => Tls::Tunnel,
        mode @ ("SIMPLE" | "MUTUAL") => {
            let reason = format!(
                "tls mode {mode} of a DestinationRule is not supported, so requests are refused \
                 rather than sent without it"
            );
            fields.report("mode", Cause::Unsupported, &reason);
            Tls::Refused(reason.into())
        }
        other => {
            let reason = format!("\"{other}\" is no mode");
            fields.report("mode", Cause::Invalid, &reason);
            Tls::Refused(reason.into())
        }
    }
}
