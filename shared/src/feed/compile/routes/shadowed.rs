//! Routes that are never asked, because one that comes before them has every request.
//!
//! Only where virtual services are: routes of the Gateway API among themselves are sorted by precedence,
//! and the index of the waypoint knows no order of objects.
//! Source: spec L7 §3.1; the order is that of `waypoint::router`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::feed::compile::world::World;
use crate::feed::object::Object;
use crate::feed::verdict::{Cause, Verdict};
use crate::mesh::{
    Further, HttpMatch, PathMatch, Route, RouteKey, RouteKind, Rules, Service, ServiceKey,
};

/// What is to be said about `routes`.
pub(super) fn verdicts(
    world: &World<'_>,
    services: &BTreeMap<ServiceKey, Arc<Service>>,
    routes: &[Route],
) -> Vec<Verdict> {
    let mut by_service: BTreeMap<&ServiceKey, Vec<&Route>> = BTreeMap::new();
    let is_virtual = |route: &&Route| route.key.kind == RouteKind::Virtual;
    for route in routes.iter().filter(is_virtual) {
        for parent in &route.parents {
            by_service.entry(&parent.service).or_default();
        }
    }
    if by_service.is_empty() {
        return Vec::new();
    }
    for route in routes.iter().filter(|one| matches!(one.rules, Rules::Http(_))) {
        let parents: BTreeSet<_> = route.parents.iter().map(|parent| &parent.service).collect();
        for service in parents {
            match by_service.get_mut(service) {
                Some(all) if !route.is_consumer_of(service) => all.push(route),
                _ => {}
            }
        }
    }
    let all = by_service.into_iter().filter_map(|(key, all)| Some((services.get(key)?, all)));
    all.flat_map(|(service, all)| of_service(world, service, all)).collect()
}

fn of_service(world: &World<'_>, service: &Service, mut routes: Vec<&Route>) -> Vec<Verdict> {
    // Those of the Gateway API stand together, at the age of their oldest.
    let sorted = routes.iter().filter(|one| !one.key.kind.is_virtual());
    let oldest = sorted.map(|one| &*one.created).min().unwrap_or_default().to_owned();
    let place = |route: &&Route| match route.key.kind.is_virtual() {
        true => (route.created.to_string(), Some(route.key.clone())),
        false => (oldest.clone(), None),
    };
    routes.sort_by_cached_key(place);
    let mut taken: BTreeMap<u16, &RouteKey> = BTreeMap::new();
    let mut verdicts = Vec::new();
    for block in routes.chunk_by(|one, other| place(one) == place(other)) {
        for route in block {
            let ports = service.ports.iter().map(|port| port.port);
            let mut own = ports.filter(|port| route.applies_to(&service.key, *port)).peekable();
            let first = own.peek().and_then(|port| taken.get(port));
            if let (Some(by), true) = (first, own.all(|port| taken.contains_key(&port))) {
                let reason =
                    format!("{by} comes first for service {} and has every request", service.key);
                verdicts.extend(object(world, &route.key).map(|one| {
                    let field =
                        if route.key.kind.is_virtual() { "spec.hosts" } else { "spec.parentRefs" };
                    one.verdict(field, Cause::Shadowed, reason)
                }));
            }
        }
        for port in service.ports.iter().map(|port| port.port) {
            if let Some(route) = block.iter().find(|route| takes(route, &service.key, port)) {
                taken.entry(port).or_insert(&route.key);
            }
        }
    }
    verdicts
}

/// Whether a route has every request to a port.
fn takes(route: &Route, service: &ServiceKey, port: u16) -> bool {
    let Rules::Http(rules) = &route.rules else { return false };
    let mut matches = rules.iter().flat_map(|rule| rule.matches.iter());
    route.applies_to(service, port) && matches.any(|wanted| is_everything(wanted, port))
}

fn is_everything(wanted: &HttpMatch, port: u16) -> bool {
    let any_path = match &wanted.path {
        PathMatch::Any => true,
        PathMatch::Prefix(text) => text.is_empty(),
        PathMatch::Start { text, .. } => **text == *"/",
        PathMatch::Exact(_) | PathMatch::Regex(_) | PathMatch::ExactAnyCase(_) => false,
    };
    let for_port = wanted.further.as_deref().is_none_or(|further| {
        let nothing_else = Further { port: further.port, ..Further::default() };
        *further == nothing_else && further.port.is_none_or(|own| own == port)
    });
    any_path
        && for_port
        && wanted.method.is_none()
        && wanted.headers.is_empty()
        && wanted.query.is_empty()
}

fn object<'a>(world: &World<'a>, key: &RouteKey) -> Option<&'a Object> {
    let wanted = (key.kind.name(), &*key.namespace, &*key.name);
    let name = |object: &&Object| {
        (object.key.kind, &*object.key.namespace, &*object.key.name).cmp(&wanted)
    };
    world.objects.binary_search_by(name).ok().map(|at| world.objects[at])
}

#[cfg(test)]
mod tests {
    use crate::feed::{Cause, Options, SourceFile, objects};

    const WORLD: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: w, namespace: shop}
spec:
  gatewayClassName: istio-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop, labels: {istio.io/use-waypoint: w}}
spec: {clusterIP: 10.96.0.1, ports: [{name: a, port: 80}, {name: b, port: 81}]}
---
";

    const TO_WEB: &str = "route: [{destination: {host: web, port: {number: 80}}}]";
    const HERE: &str = "group: '', kind: Service, name: web";

    /// The objects that are shadowed as a whole.
    fn shadowed(documents: &[(&str, &str, u8, String)]) -> Vec<String> {
        let document = |(kind, name, age, spec): &(&str, &str, u8, String)| {
            let group = match *kind {
                "VirtualService" => "networking.istio.io/v1",
                _ => "gateway.networking.k8s.io/v1",
            };
            format!(
                "apiVersion: {group}\nkind: {kind}\nmetadata: {{name: {name}, namespace: shop, \
                 creationTimestamp: \"202{age}-01-01T00:00:00Z\"}}\nspec: {{{spec}}}\n---\n"
            )
        };
        let text = documents.iter().map(document).collect::<String>();
        let file = SourceFile { path: "mesh.yaml".into(), text: format!("{WORLD}{text}") };
        let verdicts = objects(&[file], &Options::default()).verdicts;
        let told = verdicts.iter().filter(|one| one.cause == Cause::Shadowed);
        told.map(|one| format!("{} {}", one.object, one.field)).collect()
    }

    fn listed(matches: &str) -> String {
        format!("hosts: [web], http: [{{{matches}{TO_WEB}}}]")
    }

    fn sorted(parent: &str) -> String {
        format!(
            "parentRefs: [{{{HERE}{parent}}}], rules: [{{backendRefs: [{{name: web, port: 80}}]}}]"
        )
    }

    #[test]
    fn what_comes_after_one_that_has_everything_is_told() {
        let (v, r) = ("VirtualService", "HTTPRoute");
        let everything = || listed("");
        let some = || listed("match: [{uri: {prefix: /a}}], ");
        let only = |port: u16| listed(&format!("match: [{{port: {port}}}], "));
        for (documents, expected) in [
            (vec![(v, "a", 1, some()), (v, "b", 2, everything())], vec![]),
            (
                vec![(v, "a", 1, everything()), (v, "b", 2, some())],
                vec!["VirtualService/shop/b spec.hosts"],
            ),
            (
                vec![(v, "b", 1, everything()), (v, "a", 2, some())],
                vec!["VirtualService/shop/a spec.hosts"],
            ),
            (
                vec![(v, "a", 1, everything()), (r, "r", 2, sorted(""))],
                vec!["HTTPRoute/shop/r spec.parentRefs"],
            ),
            (
                vec![(v, "a", 2, some()), (r, "r", 1, sorted(""))],
                vec!["VirtualService/shop/a spec.hosts"],
            ),
            (vec![(v, "a", 2, some()), (r, "r", 1, sorted(", port: 80"))], vec![]),
            (vec![(v, "a", 1, only(80)), (v, "b", 2, everything())], vec![]),
            (
                vec![(v, "a", 1, only(80)), (r, "r", 2, sorted(", port: 80"))],
                vec!["HTTPRoute/shop/r spec.parentRefs"],
            ),
            (vec![(r, "r", 1, sorted("")), (r, "s", 2, sorted(""))], vec![]),
        ] {
            assert_eq!(shadowed(&documents), expected, "{documents:?}");
        }
    }
}
