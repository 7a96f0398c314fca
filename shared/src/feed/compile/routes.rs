//! Routes, with what they refer to.
//!
//! Invariants: a backend that cannot be resolved stays in its place and says why, because its share
//! of the traffic must fail rather than go elsewhere (spec L7 §2.6); each has a verdict.

mod references;
mod shadowed;
mod virtual_services;

use std::sync::Arc;

use crate::feed::compile::Compiled;
use crate::feed::compile::world::World;
use crate::feed::object::{
    BackendRef, Body, MirrorRef, Object, RouteObject, RuleRead, RulesRead, WeightedRef,
};
use crate::feed::verdict::{Cause, Verdict};
use crate::mesh::{
    Backend, HttpRule, Mirror, Route, RouteKey, RouteParent, Rules, Target, TcpRule,
};

use references::{Cannot, References};

pub(super) fn compile(world: &mut World<'_>, compiled: &mut Compiled) {
    let is_route =
        |object: &&&Object| matches!(object.body, Body::Route(_) | Body::VirtualService(_));
    if !world.objects.iter().any(|object| is_route(&object)) {
        return;
    }
    let references = References::new(world, compiled);
    let (mut routes, mut verdicts) = (Vec::new(), Vec::new());
    for object in world.objects {
        if let Body::Route(read) = &object.body {
            let mut resolving = Resolving { references: &references, object, read, verdicts };
            routes.extend(resolving.route());
            verdicts = resolving.verdicts;
        }
    }
    let found = virtual_services::routes(world, &references);
    routes.extend(found.0);
    verdicts.extend(found.1);
    verdicts.extend(shadowed::verdicts(world, &compiled.services, &routes));
    compiled.routes = routes.into_iter().map(|one| (one.key.clone(), Arc::new(one))).collect();
    world.verdicts.append(&mut verdicts);
}

/// One route whose references are looked up.
struct Resolving<'a> {
    references: &'a References<'a>,
    object: &'a Object,
    read: &'a RouteObject,
    verdicts: Vec<Verdict>,
}

impl Resolving<'_> {
    /// Nothing when no service has it.
    fn route(&mut self) -> Option<Route> {
        let (references, read) = (self.references, self.read);
        let mut parents = Vec::new();
        for parent in &read.parents {
            let found = match references.parents(parent) {
                Ok(found) => found,
                Err(cannot) => {
                    self.say(&parent.field, &cannot);
                    continue;
                }
            };
            for RouteParent { service, .. } in found.iter().filter(|one| !references.routes(one)) {
                let reason = format!(
                    "service {service} has no waypoint, and only a waypoint routes: label it, or \
                     its namespace, istio.io/use-waypoint"
                );
                self.say(&parent.field, &Cannot { cause: Cause::Unsupported, reason });
            }
            parents.extend(found);
        }
        parents.sort_unstable();
        parents.dedup();
        let rules = match &read.rules {
            RulesRead::Http(rules) => Rules::Http(rules.iter().map(|one| self.rule(one)).collect()),
            RulesRead::Tcp { server_names, backends } => Rules::Tcp(
                [TcpRule {
                    server_names: server_names.clone(),
                    port: None,
                    source_namespace: None,
                    backends: self.backends(backends),
                }]
                .into(),
            ),
        };
        let (namespace, name) = (self.object.key.namespace.clone(), self.object.key.name.clone());
        let key = RouteKey { kind: read.kind, namespace, name };
        let created = self.object.created.clone();
        let (parents, rate_limits) = (parents.into_boxed_slice(), read.rate_limits.clone());
        (!parents.is_empty()).then_some(Route { key, created, parents, rate_limits, rules })
    }

    fn rule(&mut self, read: &RuleRead) -> HttpRule {
        let mut mirrors = Vec::new();
        for MirrorRef { reference, numerator, denominator } in &read.mirrors {
            let (numerator, denominator) = (*numerator, *denominator);
            mirrors.push(Mirror { target: self.target(reference), numerator, denominator });
        }
        let backends = self.backends(&read.backends);
        HttpRule { mirrors: mirrors.into(), backends, ..read.rule.clone() }
    }

    fn backends(&mut self, read: &[WeightedRef]) -> Box<[Backend]> {
        let backend = |one: &WeightedRef| {
            let found = self.target(&one.reference);
            let target = match &one.filters.refused {
                Some(reason) => Err(reason.clone()),
                None => found,
            };
            Backend { weight: one.weight, target, filters: one.filters.clone() }
        };
        read.iter().map(backend).collect()
    }

    fn target(&mut self, reference: &BackendRef) -> Target {
        self.references.backend(self.object, reference).map_err(|cannot| {
            self.say(&reference.field, &cannot);
            cannot.reason.into()
        })
    }

    fn say(&mut self, field: &str, cannot: &Cannot) {
        self.verdicts.push(self.object.verdict(field, cannot.cause, &cannot.reason));
    }
}

#[cfg(test)]
mod tests;
