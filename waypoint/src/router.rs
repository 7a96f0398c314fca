//! Which rule a request to a service is for. Pure: no I/O, no clock, no lock.
//!
//! Invariants: the order of rules is total and does not depend on the order in which routes come
//! (a property test compares the index with a sorted list). Routes are chosen by the service that
//! was dialled, never by `Host`. A lookup costs in proportion to the request, not to the table,
//! but for expressions, which are tried one by one.
//! Not here: what a rule does (`filters`), which endpoint of a backend (`shared::balance`).
//! Source: Gateway API v1 HTTPRoute match precedence, spec L7 §2.2; for virtual services §3.1.

mod audience;
mod bucket;
mod cache;
mod conditions;
mod index;
mod listed;
mod precedence;
mod rule;
mod tcp;

use std::collections::HashMap;
use std::sync::Arc;

use http::request::Parts;
use shared::mesh::{Mesh, Route, RouteKind, Rules, Service, ServiceKey};

pub use cache::Router;
pub use rule::{Backend, Choice, Rule};
pub use tcp::Connections;

use audience::Audiences;
use conditions::Asked;

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
    /// How many bytes of the path matched, where the rule asks for a prefix.
    pub prefix: Option<usize>,
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
            .chain(routes.iter().flat_map(|route| named_by_matches(route)))
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
        audiences.find(&self.rules, client_namespace, &Asked::new(request, client_namespace))
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

/// Ports of which a virtual service speaks, in the matches of its rules.
fn named_by_matches(route: &Route) -> impl Iterator<Item = u16> {
    let rules = match &route.rules {
        Rules::Http(rules) if route.key.kind == RouteKind::Virtual => &rules[..],
        Rules::Http(_) | Rules::Tcp(_) => &[],
    };
    rules.iter().flat_map(|rule| rule.matches.iter()).filter_map(|wanted| wanted.port())
}

#[cfg(test)]
mod tests;
