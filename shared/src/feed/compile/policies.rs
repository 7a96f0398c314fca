//! Authorisation policies, and peer authentication turned into them (spec L4 §6.5).

use std::sync::Arc;

use crate::authz::{
    Action, GatewayKey, Group, Match, Policy, PolicyKey, PolicyTarget, Rule, Scope, StringMatch,
};
use crate::feed::compile::Compiled;
use crate::feed::compile::world::World;
use crate::feed::object::{
    Body, MtlsMode, Object, PeerAuthentication, TargetKind, TargetRef, has_labels,
};
use crate::feed::verdict::Cause;
use crate::mesh::ServiceKey;

/// One that no Kubernetes object can have, because of the underscores.
const STRICT: &str = "istio_converted_static_strict";

pub(super) fn compile<'a>(world: &mut World<'a>, compiled: &mut Compiled) {
    let root = world.options.root_namespace.clone();
    let mut peers: Vec<(&'a Object, &'a PeerAuthentication)> = Vec::new();
    for object in world.objects {
        match &object.body {
            // What they are attached to must be known first.
            Body::Authorization(one) if one.policy.scope == Scope::Targets => {}
            Body::Authorization(one) => {
                let policy = one.policy.clone();
                if policy.scope == Scope::WorkloadSelector {
                    let namespace = &object.key.namespace;
                    let reach = if *namespace == root { Arc::default() } else { namespace.clone() };
                    let selected = world.selected.entry(reach).or_default();
                    selected.push((&one.selector, policy.key.clone()));
                }
                compiled.policies.insert(policy.key.clone(), policy);
            }
            Body::PeerAuthentication(one) => peers.push((object, one)),
            _ => {}
        }
    }
    if !peers.is_empty() {
        let strict = static_strict(&root);
        compiled.policies.insert(strict.key.clone(), strict);
    }
    // Oldest first: of several for the same workloads the oldest wins.
    peers.sort_by(|(one, _), (other, _)| {
        (&one.created, &one.key).cmp(&(&other.created, &other.key))
    });
    world.peers = peers;
}

/// Policies for waypoints, once the services are known.
pub(super) fn attach(world: &mut World<'_>, compiled: &mut Compiled) {
    for object in world.objects {
        let Body::Authorization(one) = &object.body else { continue };
        if one.policy.scope != Scope::Targets {
            continue;
        }
        let mut targets = Vec::new();
        for reference in &one.targets {
            let (found, problem) = target(world, compiled, object, reference);
            targets.extend(found);
            if let Some((cause, reason)) = problem {
                world.verdicts.push(object.verdict(&reference.field, cause, reason));
            }
        }
        let policy = Policy { targets: targets.into(), ..(*one.policy).clone() };
        compiled.policies.insert(policy.key.clone(), Arc::new(policy));
    }
}

/// What a reference stands for, and what is wrong with it. One to something that is not there yet
/// stands for it all the same.
fn target(
    world: &mut World<'_>,
    compiled: &Compiled,
    object: &Object,
    reference: &TargetRef,
) -> (Vec<PolicyTarget>, Option<(Cause, String)>) {
    let (namespace, name) = (object.key.namespace.clone(), reference.name.clone());
    let missing =
        |kind: &str| Some((Cause::Invalid, format!("there is no {kind} {namespace}/{name}")));
    let keys = match reference.kind {
        TargetKind::GatewayClass => return (vec![PolicyTarget::Waypoints], None),
        TargetKind::Gateway => {
            let problem =
                if world.has_waypoint(&namespace, &name) { None } else { missing("waypoint") };
            return (vec![PolicyTarget::Gateway(GatewayKey { namespace, name })], problem);
        }
        TargetKind::Service => vec![world.service_key(&namespace, &name)],
        TargetKind::ServiceEntry => world.hosts_of(&namespace, &name),
    };
    let known = |key: &ServiceKey| compiled.services.get(key);
    let problem = match keys.iter().find_map(known) {
        None => {
            missing(if reference.kind == TargetKind::Service { "Service" } else { "ServiceEntry" })
        }
        Some(service) if service.waypoints().next().is_none() => Some((
            Cause::Unsupported,
            format!("{} has no waypoint, so nothing enforces the policy", service.key),
        )),
        Some(_) => None,
    };
    (keys.into_iter().map(PolicyTarget::Service).collect(), problem)
}

impl<'a> World<'a> {
    /// The policies that a workload must refer to, sorted.
    pub(super) fn policies_of(&self, object: &Object, compiled: &mut Compiled) -> Box<[PolicyKey]> {
        let mut keys: Vec<PolicyKey> = Vec::new();
        for reach in ["", &*object.key.namespace] {
            let selected = self.selected.get(reach).into_iter().flatten();
            let matching = selected.filter(|(selector, _)| has_labels(&object.labels, selector));
            keys.extend(matching.map(|(_, key)| key.clone()));
        }
        keys.extend(self.peer_policy(object, compiled));
        keys.sort_unstable();
        keys.dedup();
        keys.into()
    }

    /// The policy that stands for the peer authentication in force for a workload.
    fn peer_policy(&self, object: &Object, compiled: &mut Compiled) -> Option<PolicyKey> {
        let root = &self.options.root_namespace;
        let namespace = &object.key.namespace;
        let wide = |reach: &str| {
            let found = self
                .peers
                .iter()
                .find(|(peer, one)| *peer.key.namespace == *reach && one.selector.is_empty());
            found.map_or(MtlsMode::Inherit, |(_, one)| one.mode)
        };
        let inherit = |own: MtlsMode, wider: MtlsMode| match own {
            MtlsMode::Inherit => wider,
            _ => own,
        };
        let wider = inherit(wide(namespace), wide(root));
        let own = self.peers.iter().find(|(peer, one)| {
            peer.key.namespace == *namespace
                && !one.selector.is_empty()
                && has_labels(&object.labels, &one.selector)
        });
        let strict = || Some(static_strict(root).key.clone());
        let Some((peer, own)) = own else {
            return if wider == MtlsMode::Strict { strict() } else { None };
        };
        let mode = inherit(own.mode, wider);
        let exceptions: Vec<u16> = own
            .ports
            .iter()
            .filter(|(_, port)| {
                let port_is_strict = inherit(*port, mode) == MtlsMode::Strict;
                port_is_strict != (mode == MtlsMode::Strict)
            })
            .map(|(port, _)| *port)
            .collect();
        if exceptions.is_empty() {
            return if mode == MtlsMode::Strict { strict() } else { None };
        }
        let name = format!("converted_peer_authentication_{}", peer.key.name);
        let key = PolicyKey { namespace: namespace.clone(), name: name.into() };
        compiled.policies.entry(key.clone()).or_insert_with(|| {
            let groups = if mode == MtlsMode::Strict {
                strict_but_for(&exceptions)
            } else {
                strict_only_for(&exceptions)
            };
            deny(key.clone(), groups)
        });
        Some(key)
    }
}

fn static_strict(root: &Arc<str>) -> Arc<Policy> {
    let key = PolicyKey { namespace: root.clone(), name: STRICT.into() };
    deny(key, vec![Group { rules: vec![rule(no_identity())] }])
}

fn deny(key: PolicyKey, groups: Vec<Group>) -> Arc<Policy> {
    let (scope, action) = (Scope::WorkloadSelector, Action::Deny);
    let targets = Box::default();
    Arc::new(Policy { key, scope, targets, action, dry_run: false, groups })
}

fn strict_but_for(ports: &[u16]) -> Vec<Group> {
    let not = |port: &u16| rule(Match { not_destination_ports: vec![*port], ..Match::default() });
    let rules = std::iter::once(rule(no_identity())).chain(ports.iter().map(not)).collect();
    vec![Group { rules }]
}

fn strict_only_for(ports: &[u16]) -> Vec<Group> {
    let only = |port: &u16| {
        let one = Match { destination_ports: vec![*port], ..no_identity() };
        Group { rules: vec![rule(one)] }
    };
    ports.iter().map(only).collect()
}

fn no_identity() -> Match {
    Match { not_principals: vec![StringMatch::Presence], ..Match::default() }
}

fn rule(one: Match) -> Rule {
    Rule { matches: vec![one] }
}
