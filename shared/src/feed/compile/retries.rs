//! Retry budgets, given to the services that they are for.
//!
//! Source: Gateway API GEP-3388: of several policies for one service the oldest counts.

use std::collections::HashMap;
use std::sync::Arc;

use crate::feed::compile::Compiled;
use crate::feed::compile::world::World;
use crate::feed::object::{BackendTraffic, Body, Object};
use crate::feed::verdict::Cause;
use crate::mesh::ServiceKey;

pub(super) fn compile(world: &mut World<'_>, compiled: &mut Compiled) {
    let mut policies: Vec<(&Object, &BackendTraffic)> = Vec::new();
    for object in world.objects {
        if let Body::BackendTraffic(policy) = &object.body {
            policies.push((object, policy));
        }
    }
    policies.sort_by_key(|(object, _)| (&object.created, &object.key));
    let mut taken: HashMap<ServiceKey, &Object> = HashMap::new();
    for (object, policy) in policies {
        for (field, name) in &policy.services {
            let key = world.service_key(&object.key.namespace, name);
            let Some(service) = compiled.services.get_mut(&key) else {
                let reason = format!("there is no service {name}");
                world.verdicts.push(object.verdict(field, Cause::Invalid, reason));
                continue;
            };
            if let Some(older) = taken.get(&key) {
                let reason = format!("{} is older and for the same service", older.key);
                world.verdicts.push(object.verdict(field, Cause::Shadowed, reason));
                continue;
            }
            if service.waypoints().next().is_none() {
                let reason = format!("service {name} has no waypoint, and only one retries");
                world.verdicts.push(object.verdict(field, Cause::Unsupported, reason));
            }
            Arc::make_mut(service).retry_constraint = policy.constraint;
            taken.insert(key, object);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::feed::compile::{Compiled, Options};
    use crate::feed::verdict::Cause;
    use crate::feed::{SourceFile, objects};
    use crate::mesh::RetryConstraint;

    const SHOP: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: w, namespace: shop}
spec:
  gatewayClassName: istio-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
---
apiVersion: v1
kind: Service
metadata: {name: pay, namespace: shop, labels: {istio.io/use-waypoint: w}}
spec: {clusterIP: 10.96.0.1, ports: [{name: http, port: 80}]}
---
";

    fn compile(policies: &[&str]) -> Compiled {
        let policy = |(number, spec): (usize, &&str)| {
            format!(
                "apiVersion: gateway.networking.x-k8s.io/v1alpha1\nkind: XBackendTrafficPolicy\n\
                 metadata: {{name: p{number}, namespace: shop, \
                 creationTimestamp: \"2026-01-0{}T00:00:00Z\"}}\n\
                 spec: {spec}\n---\n",
                number + 1
            )
        };
        let text = policies.iter().enumerate().map(policy).collect::<String>();
        let file = SourceFile { path: "mesh.yaml".into(), text: format!("{SHOP}{text}") };
        objects(&[file], &Options::default())
    }

    fn constraint(compiled: &Compiled) -> Option<RetryConstraint> {
        compiled.services.values().next().unwrap().retry_constraint
    }

    const TARGET: &str = "targetRefs: [{group: \"\", kind: Service, name: pay}]";

    #[test]
    fn a_budget_is_given_to_its_service_with_the_defaults_of_gateway_api() {
        let second = Duration::from_secs(1);
        for (said, percent, interval, minimum) in [
            ("{}", 20, 10 * second, 100),
            ("{budget: {percent: 0}, minRetryRate: {count: 0}}", 0, 10 * second, 0),
            ("{budget: {percent: 50, interval: 1s}}", 50, second, 10),
            ("{minRetryRate: {count: 3, interval: 2s}}", 20, 10 * second, 15),
        ] {
            let compiled = compile(&[&format!("{{{TARGET}, retryConstraint: {said}}}")]);
            assert_eq!(compiled.verdicts, [], "{said}");
            let expected = RetryConstraint { percent, interval, minimum };
            assert_eq!(constraint(&compiled), Some(expected), "{said}");
        }
        assert_eq!(constraint(&compile(&[])), None);
    }

    #[test]
    fn the_oldest_policy_counts_and_the_others_are_told() {
        let policy = |percent: u32| {
            format!("{{{TARGET}, retryConstraint: {{budget: {{percent: {percent}}}}}}}")
        };
        let compiled = compile(&[&policy(1), &policy(2)]);
        assert_eq!(constraint(&compiled).unwrap().percent, 1);
        let causes: Vec<Cause> = compiled.verdicts.iter().map(|verdict| verdict.cause).collect();
        assert_eq!(causes, [Cause::Shadowed]);
    }

    #[test]
    fn what_cannot_be_right_is_told_with_its_field() {
        for (spec, cause, field) in [
            (
                format!("{{{TARGET}, retryConstraint: {{budget: {{percent: 101}}}}}}"),
                Cause::Invalid,
                "percent",
            ),
            (
                format!("{{{TARGET}, retryConstraint: {{budget: {{interval: 2h}}}}}}"),
                Cause::Invalid,
                "interval",
            ),
            (
                format!("{{{TARGET}, retryConstraint: {{minRetryRate: {{count: -1}}}}}}"),
                Cause::Invalid,
                "count",
            ),
            (
                format!("{{{TARGET}, sessionPersistence: {{}}}}"),
                Cause::Unsupported,
                "sessionPersistence",
            ),
            (TARGET.replace("pay", "none"), Cause::Invalid, "targetRefs"),
            (TARGET.replace("Service", "Pod"), Cause::Unsupported, "kind"),
        ] {
            let spec = if spec.starts_with('{') { spec } else { format!("{{{spec}}}") };
            let compiled = compile(&[&spec]);
            let told = compiled.verdicts.iter();
            let told = told.filter(|one| one.cause == cause && one.field.contains(field)).count();
            assert_eq!(told, 1, "{spec}: {:?}", compiled.verdicts);
        }
    }
}
