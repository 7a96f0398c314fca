//! The routes of one port, by whom they are for, in the order in which they are asked.
//!
//! Invariants: routes of the Gateway API are sorted together, by precedence; the rules of a virtual
//! service stay in the order in which they are written. Both stand side by side in the order of their
//! age, the routes of the Gateway API at that of their oldest; the first that has a match wins.
//! Source: spec L7 §3.1.

use std::collections::BTreeMap;
use std::sync::Arc;

use shared::mesh::{Route, RouteKind, ServiceKey};

use super::conditions::Asked;
use super::index::Index;
use super::listed::Listed;
use super::precedence::Candidate;
use super::{Matched, Routed, Rule};

/// The routes of a port. A route of the Gateway API without rules counts, and matches nothing.
#[derive(Debug, Default)]
pub(super) struct Audiences {
    /// For all clients; empty when there is no such route.
    producers: Box<[Block]>,
    /// For clients of these namespaces, before those for all.
    consumers: BTreeMap<Arc<str>, Index>,
}

/// Routes that are asked together.
#[derive(Debug)]
enum Block {
    /// Those of the Gateway API.
    Sorted(Index),
    /// The matches of a virtual service.
    Listed(Listed),
}

/// What blocks are sorted by: age, kind, namespace and name.
type Place<'a> = (&'a str, Option<(&'a str, &'a str)>);

impl Audiences {
    /// Those of `port`, or of all ports that no route names. `routes` have the place of the first of
    /// their rules.
    pub(super) fn new(
        service: &ServiceKey,
        port: Option<u16>,
        rules: &[Arc<Rule>],
        routes: &[(&Route, usize)],
    ) -> Self {
        let mut consumers = BTreeMap::<Arc<str>, Vec<Candidate<'_>>>::new();
        let mut sorted: Option<(&str, Vec<Candidate<'_>>)> = None;
        let mut blocks: Vec<(Place<'_>, Block)> = Vec::new();
        let attached = routes.iter().filter(|(route, _)| is_attached(route, service, port));
        for (route, first) in attached {
            let own = rules[*first..]
                .iter()
                .zip(*first..)
                .take_while(|(rule, _)| std::ptr::eq(rule.place(), *route));
            let own = own.flat_map(|(rule, id)| Candidate::all_of(id, rule, route));
            let created = &*route.created;
            if route.key.kind == RouteKind::Virtual {
                let listed =
                    own.filter(|one| one.wanted.port().is_none_or(|own| port == Some(own)));
                let listed = Listed::new(&listed.collect::<Vec<_>>());
                // Spec: without any rule for the port, the service itself is meant.
                if !listed.is_empty() {
                    let name = (&*route.key.namespace, &*route.key.name);
                    blocks.push(((created, Some(name)), Block::Listed(listed)));
                }
            } else if route.is_consumer_of(service) {
                consumers.entry(route.key.namespace.clone()).or_default().extend(own);
            } else {
                let (oldest, candidates) = sorted.get_or_insert_with(|| (created, Vec::new()));
                *oldest = created.min(oldest);
                candidates.extend(own);
            }
        }
        let sorted = sorted
            .map(|(oldest, candidates)| ((oldest, None), Block::Sorted(Index::new(candidates))));
        blocks.extend(sorted);
        blocks.sort_by_key(|(place, _)| *place);
        let index = |(namespace, candidates)| (namespace, Index::new(candidates));
        Self {
            producers: blocks.into_iter().map(|(_, block)| block).collect(),
            consumers: consumers.into_iter().map(index).collect(),
        }
    }

    /// The first rule that matches, for a client of this namespace.
    pub(super) fn find<'t>(
        &self,
        rules: &'t [Arc<Rule>],
        client_namespace: Option<&str>,
        asked: &Asked<'_>,
    ) -> Routed<'t> {
        let consumers = client_namespace.and_then(|client| self.consumers.get(client));
        let found = consumers.and_then(|index| index.find(rules, asked));
        let found =
            found.or_else(|| self.producers.iter().find_map(|block| block.find(rules, asked)));
        match found {
            Some(matched) => Routed::Rule(matched),
            None if consumers.is_none() && self.producers.is_empty() => Routed::Default,
            None => Routed::NoMatch,
        }
    }
}

impl Block {
    fn find<'t>(&self, rules: &'t [Arc<Rule>], asked: &Asked<'_>) -> Option<Matched<'t>> {
        match self {
            Self::Sorted(index) => index.find(rules, asked),
            Self::Listed(listed) => listed.find(rules, asked),
        }
    }
}

fn is_attached(route: &Route, service: &ServiceKey, port: Option<u16>) -> bool {
    let mut parents = route.parents.iter().filter(|parent| parent.service == *service);
    parents.any(|parent| parent.port.is_none() || parent.port == port)
}
