//! Where connections go that carry no HTTP.
//!
//! Invariants: a rule for server names comes before one without, a consumer's before a producer's, a
//! more exact server name before a less exact one; then the oldest route has all of it, and of a
//! virtual service the first rule (spec L7 §2.4, §3.1).

use std::cmp::Reverse;
use std::sync::Arc;

use shared::mesh::{Route, RouteKey, RouteKind, Rules, ServiceKey, TcpRule};

use super::rule::{Choice, Weighted};

/// A rule of a route for connections.
#[derive(Debug)]
pub struct Connections {
    route: Arc<Route>,
    /// Its place in the route.
    at: usize,
    service: ServiceKey,
    backends: Weighted,
}

impl Connections {
    /// The route that it is of.
    pub fn route(&self) -> &RouteKey {
        &self.route.key
    }

    /// The backend of a connection that drew this number.
    pub fn choose(&self, draw: u64) -> Choice<'_> {
        self.backends.choose(draw)
    }

    /// How well it fits a connection: the higher the better, `None` not at all.
    fn fits(
        &self,
        port: u16,
        client: Option<&str>,
        server_name: Option<&str>,
    ) -> Option<(bool, bool, usize)> {
        let Rules::Tcp(rules) = &self.route.rules else { return None };
        let TcpRule { server_names, port: own_port, source_namespace, .. } = rules.get(self.at)?;
        let wants = |wanted: Option<&str>| wanted.is_none_or(|own| client == Some(own));
        if own_port.is_some_and(|own| own != port) || !wants(source_namespace.as_deref()) {
            return None;
        }
        let is_consumer = self.route.is_consumer_of(&self.service);
        if is_consumer && !wants(Some(&self.route.key.namespace)) {
            return None;
        }
        if self.route.key.kind != RouteKind::Tls && server_names.is_empty() {
            return Some((false, is_consumer, 0));
        }
        let server_name = server_name?;
        if server_names.is_empty() {
            return Some((true, is_consumer, 0));
        }
        let fitting = server_names.iter().filter_map(|own| exactness(own, server_name)).max()?;
        Some((true, is_consumer, fitting))
    }
}

/// A whole name is more exact than any pattern, and a longer pattern than a shorter one.
fn exactness(own: &str, server_name: &str) -> Option<usize> {
    let Some(suffix) = own.strip_prefix('*') else {
        return own.eq_ignore_ascii_case(server_name).then_some(usize::MAX);
    };
    let start = server_name.len().checked_sub(suffix.len())?;
    let end = server_name.get(start..)?;
    (start > 0 && end.eq_ignore_ascii_case(suffix)).then_some(suffix.len())
}

/// The routes for connections, the oldest first.
pub(super) fn compile(service: &ServiceKey, routes: &[&Arc<Route>]) -> Box<[Connections]> {
    let mut all = Vec::new();
    for route in routes {
        let Rules::Tcp(rules) = &route.rules else { continue };
        all.extend(rules.iter().enumerate().map(|(at, rule)| Connections {
            route: Arc::clone(route),
            at,
            service: service.clone(),
            backends: Weighted::new(&rule.backends),
        }));
    }
    all.sort_by(|one, other| {
        let name =
            |one: &Connections| format!("{}/{}", one.route.key.namespace, one.route.key.name);
        one.route
            .created
            .cmp(&other.route.created)
            .then_with(|| name(one).cmp(&name(other)))
            .then_with(|| one.at.cmp(&other.at))
    });
    all.into()
}

/// The best for a connection; of equal ones the oldest.
pub(super) fn find<'t>(
    all: &'t [Connections],
    port: u16,
    client: Option<&str>,
    server_name: Option<&str>,
) -> Option<&'t Connections> {
    let attached = all.iter().filter(|one| one.route.applies_to(&one.service, port));
    let fitting = attached.filter_map(|one| Some((one.fits(port, client, server_name)?, one)));
    // `min_by_key` keeps the first of equal ones.
    fitting.min_by_key(|(fit, _)| Reverse(*fit)).map(|(_, one)| one)
}
