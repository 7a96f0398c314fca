//! Whether the parts of a policy match the facts of a connection (spec L4 §6.3, L7 §4.2).

use crate::authz::inside::Reading;
use crate::authz::{Action, Facts, Group, Match, Policy, Rule, ServiceAccountMatch, StringMatch};
use crate::identity::SpiffeId;

impl Policy {
    /// Any group matches; no group never does.
    pub fn matches(&self, facts: &Facts<'_>) -> bool {
        let reading = match self.action {
            Action::Allow => Reading::Narrow,
            Action::Deny | Action::Audit => Reading::Wide,
        };
        self.groups.iter().any(|group| group.matches(facts, reading))
    }
}

impl Group {
    fn matches(&self, facts: &Facts<'_>, reading: Reading) -> bool {
        // Istio: an attribute that cannot be seen keeps the whole rule from allowing, also where
        // another of its alternatives asks for less.
        let visible = |one: &Match| one.inside.as_ref().is_none_or(|i| i.is_visible(&facts.inside));
        let mut matches = self.rules.iter().flat_map(|rule| &rule.matches);
        (reading == Reading::Wide || matches.all(visible))
            && self.rules.iter().all(|rule| rule.matches(facts, reading))
    }
}

impl Rule {
    fn matches(&self, facts: &Facts<'_>, reading: Reading) -> bool {
        self.matches.is_empty() || self.matches.iter().any(|one| one.matches(facts, reading))
    }
}

impl Match {
    /// Whether it says nothing at all, and so never matches.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn matches(&self, facts: &Facts<'_>, reading: Reading) -> bool {
        let address = facts.destination_addr.ip().to_canonical();
        let port = facts.destination_addr.port();
        let source = facts.source_ip.to_canonical();
        let namespace = facts.peer.map_or("", SpiffeId::namespace);
        !self.is_empty()
            && holds(&self.destination_ips, &self.not_destination_ips, |ip| ip.contains(&address))
            && holds(&self.source_ips, &self.not_source_ips, |ip| ip.contains(&source))
            && holds(&self.destination_ports, &self.not_destination_ports, |own| *own == port)
            && holds(&self.service_accounts, &self.not_service_accounts, |account| {
                facts.peer.is_some_and(|peer| account.matches(peer))
            })
            && holds(&self.principals, &self.not_principals, |principal| {
                facts.peer.is_some_and(|peer| principal.matches_principal(peer))
            })
            && holds(&self.namespaces, &self.not_namespaces, |one| one.matches(namespace))
            && self.inside.as_ref().is_none_or(|inside| inside.matches(&facts.inside, reading))
    }
}

/// Any of `positive` (when there are some) and none of `negative`.
pub(super) fn holds<T>(positive: &[T], negative: &[T], matches: impl Fn(&T) -> bool) -> bool {
    (positive.is_empty() || positive.iter().any(&matches)) && !negative.iter().any(matches)
}

impl ServiceAccountMatch {
    fn matches(&self, peer: &SpiffeId) -> bool {
        *self.namespace == *peer.namespace() && *self.service_account == *peer.service_account()
    }
}

impl StringMatch {
    pub(super) fn matches(&self, value: &str) -> bool {
        self.matches_bytes(value.as_bytes())
    }

    pub(super) fn matches_bytes(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(text) => text.as_bytes() == value,
            Self::Prefix(text) => value.starts_with(text.as_bytes()),
            Self::Suffix(text) => value.ends_with(text.as_bytes()),
            Self::Presence => !value.is_empty(),
        }
    }

    /// Compares with `<trust domain>/ns/<namespace>/sa/<service account>` without building it.
    fn matches_principal(&self, peer: &SpiffeId) -> bool {
        let parts = [
            peer.trust_domain().as_str(),
            "/ns/",
            peer.namespace(),
            "/sa/",
            peer.service_account(),
        ];
        let mut bytes = parts.iter().flat_map(|part| part.bytes());
        match self {
            Self::Exact(text) => text.bytes().eq(bytes),
            Self::Prefix(text) => text.bytes().all(|byte| bytes.next() == Some(byte)),
            Self::Suffix(text) => text.bytes().rev().all(|byte| bytes.next_back() == Some(byte)),
            Self::Presence => true,
        }
    }
}
