//! Virtual services, with what their hosts stand for.
//!
//! Invariants: one counts for a service if it is in the namespace of the service or of the waypoint
//! and exported to the latter; whatever does not count has a verdict. A destination without a port
//! that could be one of several is the port that was dialled, so its rule is there once per port.
//! Source: spec L7 §3.1, §3.2.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::feed::compile::world::World;
use crate::feed::object::{Body, HostRef, HttpRead, Object, VirtualService};
use crate::feed::verdict::{Cause, Verdict};
use crate::mesh::{
    Backend, Destination, Further, HttpMatch, HttpRule, Mirror, Route, RouteKey, RouteKind,
    RouteParent, Rules, Service, Target,
};

use super::references::{Cannot, References, has_port};

/// All that route something, and what is to be said.
pub(super) fn routes(world: &World<'_>, references: &References<'_>) -> (Vec<Route>, Vec<Verdict>) {
    let (mut routes, mut verdicts) = (Vec::new(), Vec::new());
    for object in world.objects {
        let Body::VirtualService(read) = &object.body else { continue };
        let mut one =
            Resolving { world, references, object, read, verdicts, ports: BTreeSet::new() };
        routes.extend(one.route());
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
    /// Nothing when it is for no service, or has no rule.
    fn route(&mut self) -> Option<Route> {
        let mut parents = Vec::new();
        let read = self.read;
        for host in &read.hosts {
            parents.extend(self.parents(host));
        }
        parents.sort_unstable();
        parents.dedup();
        let rules: Vec<HttpRule> = read.http.iter().flat_map(|one| self.rules(one)).collect();
        let (namespace, name) = (self.object.key.namespace.clone(), self.object.key.name.clone());
        (!parents.is_empty() && !rules.is_empty()).then(|| Route {
            key: RouteKey { kind: RouteKind::Virtual, namespace, name },
            created: self.object.created.clone(),
            parents: parents.into(),
            rate_limits: None,
            rules: Rules::Http(rules.into()),
        })
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
        let mut backends = Vec::new();
        for route in &read.routes {
            let target = self.target(&route.to, dialled);
            backends.push(Backend { weight: route.weight, target, filters: route.filters.clone() });
        }
        let mut mirrors = Vec::new();
        for mirror in &read.mirrors {
            let (numerator, denominator) = (mirror.share.millionths(), 1_000_000);
            mirrors.push(Mirror {
                target: self.target(&mirror.to, dialled),
                numerator,
                denominator,
            });
        }
        HttpRule { backends: backends.into(), mirrors: mirrors.into(), ..read.rule.clone() }
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
            let reason = format!(
                "no DestinationRule describes a subset {subset} of {}, so its share answers 503",
                service.key
            );
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
