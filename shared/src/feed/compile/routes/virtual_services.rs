//! Virtual services, with what their hosts stand for.
//!
//! Invariants: one counts for a service if it is in the namespace of the service or of the waypoint
//! and exported to the latter; whatever does not count has a verdict. A destination without a port
//! that could be one of several is the port that was dialled, so its rule is there once per port.
//! Source: spec L7 §3.1, §3.2.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::feed::compile::world::World;
use crate::feed::object::{
    Body, ConnectionMatch, ConnectionsRead, HostRef, HostRoute, HttpRead, Object, ObjectKey,
    VirtualService,
};
use crate::feed::verdict::{Cause, Verdict};
use crate::mesh::{
    Backend, Destination, Further, HttpMatch, HttpRule, Mirror, Route, RouteKey, RouteKind,
    RouteParent, Rules, Service, Target, TcpRule,
};

use super::references::{Cannot, References, has_port};

/// All that route something, and what is to be said.
pub(super) fn routes(world: &World<'_>, references: &References<'_>) -> (Vec<Route>, Vec<Verdict>) {
    let (mut routes, mut verdicts) = (Vec::new(), Vec::new());
    for object in world.objects {
        let Body::VirtualService(read) = &object.body else { continue };
        let mut one =
            Resolving { world, references, object, read, verdicts, ports: BTreeSet::new() };
        routes.extend(one.routes());
        verdicts = one.verdicts;
    }
    (routes, verdicts)
}

/// One virtual service whose hosts are looked up.
struct Resolving<'a> {
    world: &'a World<'a>,
    references: &'a References<'a>,
    object: &'a Object,
    read: &'a VirtualService,
    verdicts: Vec<Verdict>,
    /// Of all services that it is for.
    ports: BTreeSet<u16>,
}

impl Resolving<'_> {
    /// One for requests and one for connections, as far as it has rules and a service for them.
    fn routes(&mut self) -> Vec<Route> {
        let mut parents = Vec::new();
        let read = self.read;
        for host in &read.hosts {
            parents.extend(self.parents(host));
        }
        parents.sort_unstable();
        parents.dedup();
        if parents.is_empty() {
            return Vec::new();
        }
        let http: Box<[_]> = read.http.iter().flat_map(|one| self.rules(one)).collect();
        let tcp: Box<[_]> = read.connections.iter().flat_map(|one| self.connections(one)).collect();
        let mut routes = Vec::new();
        if !http.is_empty() {
            routes.push((RouteKind::Virtual, Rules::Http(http)));
        }
        if !tcp.is_empty() {
            routes.push((RouteKind::VirtualTcp, Rules::Tcp(tcp)));
        }
        let ObjectKey { namespace, name, .. } = &self.object.key;
        let route = |(kind, rules)| Route {
            key: RouteKey { kind, namespace: namespace.clone(), name: name.clone() },
            created: self.object.created.clone(),
            parents: parents.clone().into(),
            rate_limits: self.read.rate_limits.clone(),
            rules,
        };
        routes.into_iter().map(route).collect()
    }

    /// The services of a host that it is for.
    fn parents(&mut self, host: &str) -> Vec<RouteParent> {
        let full = self.world.full_host(host, &self.object.key.namespace);
        let found = self.references.of_host(&full);
        if found.is_empty() {
            self.say("spec.hosts", Cause::Invalid, format!("there is no service of host {full}"));
        }
        let (mut parents, mut reasons) = (Vec::new(), Vec::new());
        for service in found {
            match self.is_for(service) {
                Ok(()) => {
                    self.ports.extend(service.ports.iter().map(|port| port.port));
                    parents.push(RouteParent { service: service.key.clone(), port: None });
                }
                Err(reason) => reasons.push(reason),
            }
            if service.waypoints().next().is_none() {
                let reason = format!(
                    "service {} has no waypoint, and only a waypoint routes: label it, or its \
                     namespace, istio.io/use-waypoint",
                    service.key
                );
                reasons.push(reason);
            }
        }
        // Of all that a star means, those count that can.
        if !host.starts_with('*') || parents.is_empty() {
            reasons.truncate(1);
            reasons.into_iter().for_each(|one| self.say("spec.hosts", Cause::Unsupported, one));
        }
        parents
    }

    /// Whether the waypoint of a service looks at it.
    fn is_for(&self, service: &Service) -> Result<(), String> {
        let own = &*self.object.key.namespace;
        let viewer = World::viewer(self.world.options, service);
        if own != &*service.key.namespace && own != viewer {
            return Err(format!(
                "for service {} those count of its own namespace and of its waypoint's, not of {own}",
                service.key
            ));
        }
        if !self.read.export.reaches(viewer) {
            return Err(format!("exportTo does not let the waypoint in {viewer} see it"));
        }
        Ok(())
    }

    /// A rule, or one per port where its destinations depend on the port that was dialled.
    fn rules(&mut self, read: &HttpRead) -> Vec<HttpRule> {
        self.check_ports(&read.field, read.rule.matches.iter().filter_map(HttpMatch::port));
        let routes = read.routes.iter().map(|route| &route.to);
        let mut all = routes.chain(read.mirrors.iter().map(|mirror| &mirror.to));
        if !all.any(|to| self.depends(to)) {
            return vec![self.rule(read, None)];
        }
        let ports: Vec<u16> = self.ports.iter().copied().collect();
        let at = |port: u16| {
            let matches = read.rule.matches.iter().filter_map(|one| on_port(one, port));
            let matches: Arc<[HttpMatch]> = matches.collect();
            (!matches.is_empty()).then_some((port, matches))
        };
        let at: Vec<_> = ports.into_iter().filter_map(at).collect();
        at.into_iter()
            .map(|(port, matches)| HttpRule { matches, ..self.rule(read, Some(port)) })
            .collect()
    }

    fn rule(&mut self, read: &HttpRead, dialled: Option<u16>) -> HttpRule {
        let backends = self.backends(&read.routes, dialled);
        let mut mirrors = Vec::new();
        for mirror in &read.mirrors {
            let (numerator, denominator) = (mirror.share.millionths(), 1_000_000);
            mirrors.push(Mirror {
                target: self.target(&mirror.to, dialled),
                numerator,
                denominator,
            });
        }
        HttpRule { backends, mirrors: mirrors.into(), ..read.rule.clone() }
    }

    fn backends(&mut self, routes: &[HostRoute], dialled: Option<u16>) -> Box<[Backend]> {
        let backend = |route: &HostRoute| {
            let target = self.target(&route.to, dialled);
            Backend { weight: route.weight, target, filters: route.filters.clone() }
        };
        routes.iter().map(backend).collect()
    }

    /// A rule for each of its matches, and for each port where that makes a difference.
    fn connections(&mut self, read: &ConnectionsRead) -> Vec<TcpRule> {
        self.check_ports(&read.field, read.matches.iter().filter_map(|one| one.port));
        let by_port = read.routes.iter().any(|route| self.depends(&route.to));
        let ports: Vec<u16> = self.ports.iter().copied().collect();
        let mut rules = Vec::new();
        for ConnectionMatch { server_names, port, source_namespace } in &read.matches {
            let ports = match (port, by_port) {
                (None, true) => ports.iter().copied().map(Some).collect(),
                (port, _) => vec![*port],
            };
            for port in ports {
                rules.push(TcpRule {
                    server_names: server_names.clone(),
                    port,
                    source_namespace: source_namespace.clone(),
                    backends: self.backends(&read.routes, port),
                });
            }
        }
        rules
    }

    /// Says which ports that matches ask for no service has.
    fn check_ports(&mut self, field: &str, ports: impl Iterator<Item = u16>) {
        let missing: Vec<u16> = ports.filter(|port| !self.ports.contains(port)).collect();
        for port in missing {
            let reason = format!("no service that it is for has a port {port}");
            self.say(&format!("{field}.match"), Cause::Invalid, reason);
        }
    }

    /// Whether where it leads depends on the port that was dialled.
    fn depends(&self, to: &HostRef) -> bool {
        let several = |service: &Arc<Service>| service.ports.len() != 1;
        to.port.is_none() && self.service(to).is_ok_and(several)
    }

    fn service(&self, to: &HostRef) -> Result<&Arc<Service>, Cannot> {
        let namespace = &self.object.key.namespace;
        self.references.by_host(namespace, &self.world.full_host(&to.host, namespace))
    }

    fn target(&mut self, to: &HostRef, dialled: Option<u16>) -> Target {
        let found = self.service(to).and_then(|service| {
            let only = match &*service.ports {
                [only] => Some(only.port),
                _ => None,
            };
            let Some(port) = to.port.or(only).or(dialled) else {
                let reason = format!("of service {} a port must be said", service.key);
                return Err(Cannot { cause: Cause::Invalid, reason });
            };
            has_port(service, port)?;
            Ok((Arc::clone(service), port))
        });
        let (service, port) = found.map_err(|Cannot { cause, reason }| {
            self.say(&to.field, cause, &reason);
            Arc::<str>::from(reason)
        })?;
        if let Some(subset) = &to.subset
            && service.subset(subset).is_none()
        {
            let reason =
                format!("no DestinationRule describes a subset {subset} of {}", service.key);
            self.say(&format!("{}.subset", to.field), Cause::Invalid, reason);
        }
        Ok(Destination { service: service.key.clone(), port, subset: to.subset.clone() })
    }

    /// Says something once.
    fn say(&mut self, field: &str, cause: Cause, reason: impl std::fmt::Display) {
        let verdict = self.object.verdict(field, cause, reason);
        if !self.verdicts.contains(&verdict) {
            self.verdicts.push(verdict);
        }
    }
}

/// The match, of requests to this port alone.
fn on_port(wanted: &HttpMatch, port: u16) -> Option<HttpMatch> {
    let further = wanted.further.as_deref().cloned().unwrap_or_default();
    if further.port.is_some_and(|own| own != port) {
        return None;
    }
    let further = Some(Box::new(Further { port: Some(port), ..further }));
    Some(HttpMatch { further, ..wanted.clone() })
}

#[cfg(test)]
mod tests;
