//! Whether the parts of a policy match the facts of a connection (spec L4 §6.3).

use crate::authz::{Facts, Group, Match, Policy, Rule, ServiceAccountMatch, StringMatch};
use crate::identity::SpiffeId;

impl Policy {
    /// Any group matches; no group never does.
    pub fn matches(&self, facts: &Facts<'_>) -> bool {
        self.groups.iter().any(|group| group.matches(facts))
    }
}

impl Group {
    fn matches(&self, facts: &Facts<'_>) -> bool {
        self.rules.iter().all(|rule| rule.matches(facts))
    }
}

impl Rule {
    fn matches(&self, facts: &Facts<'_>) -> bool {
        self.matches.is_empty() || self.matches.iter().any(|one| one.matches(facts))
    }
}

impl Match {
    /// Whether it says nothing at all, and so never matches.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn matches(&self, facts: &Facts<'_>) -> bool {
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
    }
}

/// Any of `positive` (when there are some) and none of `negative`.
fn holds<T>(positive: &[T], negative: &[T], matches: impl Fn(&T) -> bool) -> bool {
    (positive.is_empty() || positive.iter().any(&matches)) && !negative.iter().any(matches)
}

impl ServiceAccountMatch {
    fn matches(&self, peer: &SpiffeId) -> bool {
        *self.namespace == *peer.namespace() && *self.service_account == *peer.service_account()
    }
}

impl StringMatch {
    fn matches(&self, value: &str) -> bool {
        match self {
            Self::Exact(text) => **text == *value,
            Self::Prefix(text) => value.starts_with(&**text),
            Self::Suffix(text) => value.ends_with(&**text),
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
