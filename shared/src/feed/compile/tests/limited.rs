//! Rate limits of routes and services.

use super::*;
use crate::mesh::{Rate, RateLimits, RateUnit};

const GATEWAY: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: w, namespace: shop}
spec:
  gatewayClassName: istio-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
---
";

/// A service `web`, and a route of `kind` for it, with these annotations.
fn shop(service: &str, kind: &str, route: &str) -> Compiled {
    let text = format!(
        "{GATEWAY}apiVersion: v1\nkind: Service\n\
         metadata: {{name: web, namespace: shop, labels: {{istio.io/use-waypoint: w}}, \
         annotations: {{{service}}}}}\n\
         spec: {{clusterIP: 10.96.0.1, ports: [{{name: http, port: 80}}]}}\n---\n\
         apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\n\
         metadata: {{name: web, namespace: shop, annotations: {{{route}}}}}\n\
         spec:\n  parentRefs: [{{group: \"\", kind: Service, name: web}}]\n  \
         rules: [{{backendRefs: [{{name: web, port: 80}}]}}]\n"
    );
    objects(&[SourceFile { path: "mesh.yaml".into(), text }], &Options::default())
}

fn of_service(compiled: &Compiled) -> Option<RateLimits> {
    compiled.services.values().next().and_then(|one| one.rate_limits.as_deref().copied())
}

fn of_route(compiled: &Compiled) -> Option<RateLimits> {
    compiled.routes.values().next().and_then(|one| one.rate_limits.as_deref().copied())
}

fn told(compiled: &Compiled) -> Vec<(&str, &str, Cause)> {
    let verdicts = compiled.verdicts.iter();
    verdicts.map(|one| (&*one.object, &*one.field, one.cause)).collect()
}

#[test]
fn routes_of_requests_and_services_have_limits() {
    let rate = |count, unit, burst| Some(Rate { count, unit, burst });
    for kind in ["HTTPRoute", "GRPCRoute"] {
        let compiled = shop(
            "culvert.dev/rate-limit: 600/m burst 50",
            kind,
            "culvert.dev/rate-limit: 100/s, culvert.dev/rate-limit-per-caller: 10/s burst 20",
        );
        assert_eq!(told(&compiled), [], "{kind}");
        let service = RateLimits { together: rate(600, RateUnit::Minute, 50), per_caller: None };
        assert_eq!(of_service(&compiled), Some(service));
        let route = RateLimits {
            together: rate(100, RateUnit::Second, 100),
            per_caller: rate(10, RateUnit::Second, 20),
        };
        assert_eq!(of_route(&compiled), Some(route));
    }
    let compiled = shop("", "HTTPRoute", "");
    assert_eq!((of_service(&compiled), of_route(&compiled)), (None, None));
}

#[test]
fn what_cannot_be_right_is_told_with_its_annotation() {
    let field = "metadata.annotations[\"culvert.dev/rate-limit\"]";
    for value in ["0/s", "-1/s", "9000000/s", "100", "100/d", "\"100\"", "100/s burst 0"] {
        let compiled = shop("", "HTTPRoute", &format!("culvert.dev/rate-limit: {value}"));
        let expected = ("HTTPRoute/shop/web", field, Cause::Invalid);
        assert!(told(&compiled).contains(&expected), "{value}: {:?}", compiled.verdicts);
        assert!(compiled.routes.is_empty(), "{value}: it has no last good version");
    }
}

#[test]
fn a_limit_that_is_never_reached_is_told() {
    let field = "metadata.annotations[\"culvert.dev/rate-limit-per-caller\"]";
    for (all, each, shadowed) in [
        ("10/s", "10/s", true),
        ("10/s", "600/m burst 10", true),
        ("10/s", "20/s burst 5", false),
        ("10/s", "5/s burst 100", false),
    ] {
        let annotations =
            format!("culvert.dev/rate-limit: {all}, culvert.dev/rate-limit-per-caller: {each}");
        let compiled = shop(&annotations, "HTTPRoute", "");
        let expected = [("Service/shop/web", field, Cause::Shadowed)];
        assert_eq!(told(&compiled), expected[..usize::from(shadowed)], "{all} {each}");
        assert!(of_service(&compiled).is_some());
    }
}

#[test]
fn a_limit_where_nobody_keeps_it_is_told() {
    let compiled = shop("", "TCPRoute", "culvert.dev/rate-limit: 1/s");
    let field = "metadata.annotations[\"culvert.dev/rate-limit\"]";
    assert_eq!(told(&compiled), [("TCPRoute/shop/web", field, Cause::Unsupported)]);
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop, \
                annotations: {culvert.dev/rate-limit: 1/s}}\n\
                spec: {clusterIP: 10.96.0.1, ports: [{name: http, port: 80}]}\n";
    let file = SourceFile { path: "mesh.yaml".into(), text: text.to_owned() };
    let compiled = objects(&[file], &Options::default());
    let expected = [("Service/shop/web", "metadata.annotations", Cause::Unsupported)];
    assert_eq!(told(&compiled), expected);
}
