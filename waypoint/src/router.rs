//! Which rule a request to a service is for. Pure: no I/O, no clock, no lock.
//!
//! Invariants: the order of rules is total and does not depend on the order in which routes come
//! (a property test compares the index with a sorted list). Routes are chosen by the service that
//! was dialled, never by `Host`. A lookup costs in proportion to the request, not to the table,
//! but for expressions, which are tried one by one.
//! Not here: what a rule does (`filters`), which endpoint of a backend (`shared::balance`).
//! Source: Gateway API v1 HTTPRoute match precedence, spec L7 §2.2.

mod bucket;
mod cache;
mod conditions;
mod index;
mod precedence;
mod rule;
mod tcp;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use http::request::Parts;
use shared::mesh::{Mesh, Route, Rules, Service, ServiceKey};

pub use cache::Router;
pub use rule::{Backend, Choice, Rule};
pub use tcp::Connections;

use conditions::Asked;
use index::Index;
use precedence::Candidate;

/// All routes of one service.
#[derive(Debug)]
pub struct Table {
    rules: Box<[Arc<Rule>]>,
    /// For ports that no route names.
    wide: Audiences,
    /// For each port that a route names.
    ports: Box<[(u16, Audiences)]>,
    connections: Box<[Connections]>,
}

/// The routes of a port, by whom they are for. A route without rules counts, and matches nothing.
#[derive(Debug, Default)]
struct Audiences {
    /// For all clients; `None` when there is no such route.
    producers: Option<Index>,
    /// For clients of these namespaces, before those for all.
    consumers: BTreeMap<Arc<str>, Index>,
}

/// What routes say about a request.
#[derive(Debug)]
pub enum Routed<'t> {
    /// No route is attached to this service and port for this client: forward to itself.
    Default,
    /// The best rule that matches.
    Rule(Matched<'t>),
    /// Routes exist, none matches: 404.
    NoMatch,
}

/// A rule that matched.
#[derive(Debug, Clone, Copy)]
pub struct Matched<'t> {
    /// The rule.
    pub rule: &'t Rule,
    /// The prefix of the path that matched, for `ReplacePrefixMatch`; `None` when it was no prefix.
    pub prefix: Option<&'t str>,
}

impl Table {
    /// Compiles the routes of `service`.
    pub fn compile(mesh: &Mesh, service: &Service) -> Self {
        let routes: Vec<_> = mesh.routes_for(&service.key).collect();
        Self::new(&service.key, &routes, None)
    }

    /// Rules of `before` whose routes are the same are taken over: making them ready is most of the
    /// work.
    fn new(service: &ServiceKey, routes: &[&Arc<Route>], before: Option<&Self>) -> Self {
        let mut rules = Vec::new();
        // Each route for requests, with the first of its rules.
        let mut first = Vec::new();
        let made = before.map(Self::first_rules).unwrap_or_default();
        for route in routes {
            let Rules::Http(all) = &route.rules else { continue };
            first.push((&***route, rules.len()));
            match made.get(&Arc::as_ptr(route)) {
                Some(made) => rules.extend(made[..all.len()].iter().cloned()),
                None => rules.extend(
                    all.iter().enumerate().map(|(at, one)| Arc::new(Rule::new(route, at, one))),
                ),
            }
        }
        let mut named: Vec<u16> = routes
            .iter()
            .flat_map(|route| route.parents.iter())
            .filter(|parent| parent.service == *service)
            .filter_map(|parent| parent.port)
            .collect();
        named.sort_unstable();
        named.dedup();
        let audiences = |port| Audiences::new(service, port, &rules, &first);
        Self {
            wide: audiences(None),
            ports: named.into_iter().map(|port| (port, audiences(Some(port)))).collect(),
            connections: tcp::compile(service, routes),
            rules: rules.into(),
        }
    }

    /// Where the rules of each route begin. The table keeps the routes, so their places are theirs.
    fn first_rules(&self) -> HashMap<*const Route, &[Arc<Rule>]> {
        let rules = self.rules.iter().enumerate().filter(|(_, rule)| rule.at() == 0);
        rules.map(|(at, rule)| (rule.place(), &self.rules[at..])).collect()
    }

    /// The rule for a request that was sent to `port` of the service, by a client that proved to be
    /// of `client_namespace`.
    pub fn route<'t>(
        &'t self,
        port: u16,
        client_namespace: Option<&str>,
        request: &Parts,
    ) -> Routed<'t> {
        let named = self.ports.binary_search_by_key(&port, |(own, _)| *own);
        let audiences = named.map_or(&self.wide, |at| &self.ports[at].1);
        let consumers = client_namespace.and_then(|client| audiences.consumers.get(client));
        let mut any = false;
        let asked = Asked::new(request);
        for index in consumers.into_iter().chain(&audiences.producers) {
            any = true;
            if let Some(matched) = index.find(&self.rules, &asked) {
                return Routed::Rule(matched);
            }
        }
        if any { Routed::NoMatch } else { Routed::Default }
    }

    /// Where a connection to `port` of the service goes; `None` for the service itself.
    /// `server_name` is that of a TLS handshake, and a `TLSRoute` comes before a `TCPRoute`.
    pub fn tcp(
        &self,
        port: u16,
        client_namespace: Option<&str>,
        server_name: Option<&str>,
    ) -> Option<&Connections> {
        tcp::find(&self.connections, port, client_namespace, server_name)
    }

    /// All rules, for the dump.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter().map(|rule| &**rule)
    }
}

impl Audiences {
    /// Those of `port`, or of all ports that no route names.
    fn new(
        service: &ServiceKey,
        port: Option<u16>,
        rules: &[Arc<Rule>],
        routes: &[(&Route, usize)],
    ) -> Self {
        let mut producers = None;
        let mut consumers = BTreeMap::<Arc<str>, Vec<Candidate<'_>>>::new();
        let attached = routes.iter().filter(|(route, _)| is_attached(route, service, port));
        for (route, first) in attached {
            let candidates = if route.is_consumer_of(service) {
                consumers.entry(route.key.namespace.clone()).or_default()
            } else {
                producers.get_or_insert_with(Vec::new)
            };
            let own = rules[*first..]
                .iter()
                .zip(*first..)
                .take_while(|(rule, _)| std::ptr::eq(rule.place(), *route));
            candidates.extend(own.flat_map(|(rule, id)| Candidate::all_of(id, rule, route)));
        }
        let index = |(namespace, candidates)| (namespace, Index::new(candidates));
        Self {
            producers: producers.map(Index::new),
            consumers: consumers.into_iter().map(index).collect(),
        }
    }
}

fn is_attached(route: &Route, service: &ServiceKey, port: Option<u16>) -> bool {
    let mut parents = route.parents.iter().filter(|parent| parent.service == *service);
    parents.any(|parent| parent.port.is_none() || parent.port == port)
}

#[cfg(test)]
mod tests;
