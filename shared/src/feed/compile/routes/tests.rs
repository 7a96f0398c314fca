//! What routes mean, and what is said about those that mean less than they say.

use crate::feed::{Cause, Compiled, Options, SourceFile, objects};
use crate::mesh::{HttpRule, PathMatch, Route, Rules, ValueMatch, sample, writer};

/// A waypoint and the services `web` and `api` (port 80, "http") of namespace `shop`, `far` of
/// namespace `other`, and the outside host `api.example` (443).
const WORLD: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: wp, namespace: shop}
spec:
  gatewayClassName: istio-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
---
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/use-waypoint: wp}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.1, ports: [{name: http, port: 80}, {name: admin, port: 81}]}
---
apiVersion: v1
kind: Service
metadata: {name: api, namespace: shop}
spec: {clusterIP: 10.96.0.2, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: far, namespace: other}
spec: {clusterIP: 10.96.0.3, ports: [{port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: out, namespace: shop}
spec: {hosts: [api.example], resolution: DNS, ports: [{number: 443, name: https}]}
---
";

const WEB: &str = "parentRefs: [{group: '', kind: Service, name: web}]";

fn compile(text: &str) -> Compiled {
    let text = format!("{WORLD}{text}");
    objects(&[SourceFile { path: "mesh.yaml".into(), text }], &Options::default())
}

fn doc(kind: &str, meta: &str, spec: &str) -> String {
    let version = if kind == "TCPRoute" { "v1alpha2" } else { "v1" };
    format!(
        "apiVersion: gateway.networking.k8s.io/{version}\nkind: {kind}\n\
         metadata: {{name: r, namespace: shop{meta}}}\nspec: {{{spec}}}\n---\n"
    )
}

/// An `HTTPRoute` of `web` with one rule.
fn http(rule: &str) -> String {
    doc("HTTPRoute", "", &format!("{WEB}, rules: [{{{rule}}}]"))
}

/// Field, cause and reason of each remark.
fn remarks(compiled: &Compiled) -> Vec<(&str, Cause, &str)> {
    let verdicts = compiled.verdicts.iter();
    verdicts.map(|one| (&*one.field, one.cause, &*one.reason)).collect()
}

fn only(compiled: &Compiled) -> &Route {
    assert_eq!(compiled.routes.len(), 1, "{:?}", compiled.verdicts);
    compiled.routes.values().next().unwrap()
}

fn rules(route: &Route) -> &[HttpRule] {
    let Rules::Http(rules) = &route.rules else { panic!("{route:?}") };
    rules
}

/// The only rule of what has to be in force without remark.
fn clean(text: &str) -> HttpRule {
    let compiled = compile(text);
    assert_eq!(remarks(&compiled), []);
    rules(only(&compiled))[0].clone()
}

fn targets(rule: &HttpRule) -> Vec<String> {
    let text = |one: &crate::mesh::Target| match one {
        Ok(destination) => destination.to_string(),
        Err(reason) => reason.to_string(),
    };
    rule.backends.iter().map(|backend| text(&backend.target)).collect()
}

#[test]
fn a_route_says_what_it_matches_and_where_it_sends() {
    let rule = clean(&http(
        "name: main, matches: [{path: {type: Exact, value: /a}, method: GET, headers: [{name: \
         X-Version, value: two}], queryParams: [{name: q, type: RegularExpression, value: '[0-9]+'}]}, \
         {path: {value: /b/}}], backendRefs: [{name: api, port: 80, weight: 3}, {name: \
         api.example, port: 443, group: networking.istio.io, kind: Hostname}], timeouts: \
         {request: 10s, backendRequest: 0s}",
    ));
    assert_eq!(rule.name.as_deref(), Some("main"));
    let [first, second] = &*rule.matches else { panic!("{rule:?}") };
    assert_eq!(first.path, PathMatch::Exact("/a".into()));
    assert_eq!(first.method, Some(http::Method::GET));
    assert_eq!(first.headers[0].name, "x-version");
    assert_eq!(first.headers[0].value, ValueMatch::Exact("two".into()));
    assert!(first.query[0].value.is_match(b"17") && !first.query[0].value.is_match(b"x17"));
    assert_eq!(second.path, PathMatch::Prefix("/b".into()));
    assert_eq!(targets(&rule), ["shop/api.shop.svc.cluster.local:80", "shop/api.example:443"]);
    assert_eq!([rule.backends[0].weight, rule.backends[1].weight], [3, 1]);
    assert_eq!(rule.timeouts.request, Some(std::time::Duration::from_secs(10)));
    assert_eq!(rule.timeouts.backend_request, None);
}

#[test]
fn routes_are_found_by_the_services_they_are_attached_to() {
    let parents = "parentRefs: [{group: '', kind: Service, name: web, port: 80}, {group: '', kind: \
                   Service, name: web, sectionName: admin}, {group: networking.istio.io, kind: \
                   ServiceEntry, name: out}]";
    let compiled = compile(&doc("HTTPRoute", "", &format!("{parents}, rules: []")));
    let (mut writer, reader) = writer();
    writer.apply(compiled.changes(writer.mesh()));
    assert_eq!(compiled.changes(writer.mesh()), []);
    let (mesh, web) = (reader.load(), sample::service_key("web", "shop"));
    let route = mesh.routes_for(&web).next().unwrap();
    assert!(route.applies_to(&web, 80) && route.applies_to(&web, 81));
    assert!(!route.applies_to(&web, 82));
    assert!(!route.is_consumer_of(&web));
    assert_eq!(route.parents.len(), 3);
    assert_eq!(mesh.routes_for(&sample::service_key("api", "shop")).count(), 0);
    writer.apply(compile("").changes(writer.mesh()));
    assert_eq!(reader.load().routes_for(&web).count() + reader.load().routes().count(), 0);
}
