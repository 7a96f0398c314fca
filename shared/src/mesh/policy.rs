//! Policies in a snapshot: by key, by how wide they reach, and by what a waypoint enforces them for.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::authz::{GatewayKey, Policy, PolicyKey, PolicyTarget, Scope};
use crate::mesh::change::Effect;
use crate::mesh::snapshot::wide_order;
use crate::mesh::{Mesh, ServiceKey};

/// A policy under one of its targets.
#[derive(Debug, Clone)]
pub(super) struct AtTarget {
    pub(super) target: PolicyTarget,
    pub(super) policy: Arc<Policy>,
}

/// A target, in the order of the index.
type Place<'a> = (u8, &'a str, &'a str);

const WAYPOINTS: Place<'static> = (0, "", "");

fn gateway(key: &GatewayKey) -> Place<'_> {
    (1, &key.namespace, &key.name)
}

fn service(key: &ServiceKey) -> Place<'_> {
    (2, &key.namespace, &key.hostname)
}

fn place(target: &PolicyTarget) -> Place<'_> {
    match target {
        PolicyTarget::Waypoints => WAYPOINTS,
        PolicyTarget::Gateway(key) => gateway(key),
        PolicyTarget::Service(key) => service(key),
    }
}

impl Mesh {
    /// The policies that the waypoint of a Gateway enforces for what is asked of a service, or of a
    /// workload by its own address.
    pub fn policies_behind<'a>(
        &'a self,
        own: &'a GatewayKey,
        asked: Option<&'a ServiceKey>,
    ) -> impl Iterator<Item = &'a Arc<Policy>> {
        let places = [Some(WAYPOINTS), Some(gateway(own)), asked.map(service)];
        places
            .into_iter()
            .flatten()
            .flat_map(|wanted| self.by_target.range(move |row| place(&row.target).cmp(&wanted)))
            .map(|row| &row.policy)
    }

    pub(super) fn put_policy(&mut self, policy: Arc<Policy>) -> Effect {
        if self.policy(&policy.key) == Some(&policy) {
            return Effect::Nothing;
        }
        self.take_policy(&policy.key);
        if is_wide(&policy) {
            self.wide_policies.insert(policy.clone(), |row| wide_key(row).cmp(&wide_key(&policy)));
        }
        for target in &policy.targets {
            let row = AtTarget { target: target.clone(), policy: policy.clone() };
            self.by_target.insert(row, |row| order(row, target, &policy.key));
        }
        self.policies.insert(policy.clone(), |row| row.key.cmp(&policy.key));
        Effect::Decisions
    }

    pub(super) fn take_policy(&mut self, key: &PolicyKey) -> Option<Arc<Policy>> {
        let old = self.policies.remove(|row| row.key.cmp(key))?;
        if is_wide(&old) {
            self.wide_policies.remove(|row| wide_key(row).cmp(&wide_key(&old)));
        }
        for target in &old.targets {
            self.by_target.remove(|row| order(row, target, key));
        }
        Some(old)
    }
}

fn is_wide(policy: &Policy) -> bool {
    matches!(policy.scope, Scope::Global | Scope::Namespace)
}

fn wide_key(policy: &Policy) -> (Option<&str>, &PolicyKey) {
    (wide_order(policy), &policy.key)
}

fn order(row: &AtTarget, target: &PolicyTarget, key: &PolicyKey) -> Ordering {
    place(&row.target).cmp(&place(target)).then_with(|| row.policy.key.cmp(key))
}
