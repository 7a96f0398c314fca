//! The Kubernetes objects of a mesh of any size: ten pods to a deployment, a service for each.

use std::fmt::Write as _;

/// Pods of one file, as `kubectl get pods -A -o yaml` of a part of a cluster.
pub(super) const PER_FILE: u32 = 1_000;
const PER_DEPLOYMENT: u32 = 10;

/// The pods from number `from` up to `to`, on nodes that do not take part, and their services.
pub(super) fn pods(from: u32, to: u32) -> String {
    let mut yaml = String::new();
    for number in from..to {
        let deployment = number / PER_DEPLOYMENT;
        let namespace = deployment / 50;
        let node = number / 50;
        let [_, high, middle, low] = number.to_be_bytes();
        // Writing to a string cannot fail.
        let _ = write!(
            yaml,
            "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: web-{deployment}-7d4f9c6b5-{number:05x}\n  \
             namespace: team-{namespace}\n  uid: 00000000-0000-4000-8000-{number:012x}\n  \
             labels:\n    istio.io/dataplane-mode: ambient\n    app: web-{deployment}\n    \
             version: v1\n    pod-template-hash: 7d4f9c6b5\n  ownerReferences:\n  - kind: ReplicaSet\n    \
             apiVersion: apps/v1\n    name: web-{deployment}-7d4f9c6b5\n    controller: true\n    uid: r\n\
             spec:\n  nodeName: node-{node}\n  serviceAccountName: web-{deployment}\n\
             status:\n  phase: Running\n  podIP: 10.{high}.{middle}.{low}\n  podIPs:\n  \
             - ip: 10.{high}.{middle}.{low}\n  conditions:\n  - type: Ready\n    status: \"True\"\n",
            high = 128 + high,
        );
        if number.is_multiple_of(PER_DEPLOYMENT) {
            let [_, _, high, low] = deployment.to_be_bytes();
            let _ = write!(
                yaml,
                "---\napiVersion: v1\nkind: Service\nmetadata:\n  name: web-{deployment}\n  \
                 namespace: team-{namespace}\nspec:\n  clusterIP: 10.96.{high}.{low}\n  selector:\n    \
                 app: web-{deployment}\n  ports:\n  - name: http\n    port: 80\n    targetPort: 8080\n",
            );
        }
    }
    yaml
}

/// `count` routes of the service `shop`, each of one path and one header, with a filter.
pub(super) fn routes(count: u32) -> String {
    let mut yaml = String::new();
    for number in 0..count {
        let _ = write!(
            yaml,
            "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata:\n  \
             name: route-{number}\n  namespace: default\nspec:\n  parentRefs:\n  - group: \"\"\n    \
             kind: Service\n    name: shop\n    port: 80\n  rules:\n  - matches:\n    - path:\n        \
             type: PathPrefix\n        value: /api/v1/items-{number}\n      headers:\n      \
             - name: x-tenant\n        value: tenant-{number}\n    filters:\n    \
             - type: RequestHeaderModifier\n      requestHeaderModifier:\n        set:\n        \
             - name: x-route\n          value: route-{number}\n    backendRefs:\n    \
             - name: shop\n      port: 80\n",
        );
    }
    yaml
}
