//! What virtual services mean, and what is said about those that mean less than they say.

mod actions;
mod refused;

use http::Method;

use crate::feed::{Cause, Compiled, Options, SourceFile, objects};
use crate::mesh::{HttpMatch, HttpRule, PathMatch, Route, Rules, ValueMatch};

/// A waypoint, the services `web` (80, 81) and `api` (80) of namespace `shop`, `far` of namespace
/// `other`, and a rule with the subset `v1` of `web`.
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
kind: DestinationRule
metadata: {name: web, namespace: shop}
spec: {host: web, subsets: [{name: v1, labels: {version: v1}}]}
---
apiVersion: v1
kind: Pod
metadata: {name: one, namespace: shop, labels: {app: web, version: v1}}
spec: {nodeName: a, serviceAccountName: web}
status: {podIP: 10.0.0.1}
---
";

fn compile(text: &str) -> Compiled {
    let text = format!("{WORLD}{text}");
    objects(&[SourceFile { path: "mesh.yaml".into(), text }], &Options::default())
}

fn object(namespace: &str, meta: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\n\
         metadata: {{name: v, namespace: {namespace}{meta}}}\nspec: {{{spec}}}\n---\n"
    )
}

/// For `web`, with one rule.
fn one(rule: &str) -> String {
    object("shop", "", &format!("hosts: [web], http: [{{{rule}}}]"))
}

const TO_API: &str = "route: [{destination: {host: api}}]";

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
    assert_eq!(remarks(&compiled), [], "{text}");
    rules(only(&compiled))[0].clone()
}

fn clean_match(wanted: &str) -> HttpMatch {
    clean(&one(&format!("match: [{wanted}], {TO_API}"))).matches[0].clone()
}

#[test]
fn it_is_attached_to_the_services_that_its_hosts_name() {
    for (hosts, expected) in [
        ("web", "web"),
        ("web.shop.svc.cluster.local", "web"),
        ("WEB, web", "web"),
        ("web, api", "api web"),
        ("'*.shop.svc.cluster.local'", "api web wp"),
        ("'*'", "api web wp"),
    ] {
        let compiled =
            compile(&object("shop", "", &format!("hosts: [{hosts}], http: [{{{TO_API}}}]")));
        let parents = only(&compiled).parents.iter();
        let mut names: Vec<_> =
            parents.map(|one| one.service.hostname.split('.').next().unwrap()).collect();
        names.retain(|name| expected.contains(name));
        assert_eq!(names.join(" "), expected.replace(" wp", ""), "{hosts}");
    }
}

#[test]
fn what_is_for_nobody_says_so() {
    let http = format!("http: [{{{TO_API}}}]");
    for (namespace, spec, field, cause, part) in [
        ("shop", "hosts: [none]", "spec.hosts", Cause::Invalid, "there is no service of host none"),
        ("shop", "hosts: [far.other.svc.cluster.local]", "spec.hosts", Cause::Unsupported, "no"),
        ("other", "hosts: [far]", "spec.hosts", Cause::Unsupported, "has no waypoint"),
        (
            "other",
            "hosts: [web.shop.svc.cluster.local]",
            "spec.hosts",
            Cause::Unsupported,
            "not of other",
        ),
        ("shop", "hosts: [web], exportTo: [other]", "spec.hosts", Cause::Unsupported, "exportTo"),
        ("shop", "hosts: [web], gateways: [edge]", "spec.gateways", Cause::Unsupported, "mesh"),
        ("shop", "gateways: [mesh]", "spec.hosts", Cause::Unsupported, "delegate"),
    ] {
        let compiled = compile(&object(namespace, "", &format!("{spec}, {http}")));
        let told = remarks(&compiled).into_iter();
        let told = told.filter(|one| (one.0, one.1) == (field, cause) && one.2.contains(part));
        assert_eq!(told.count(), 1, "{spec}: {:?}", compiled.verdicts);
    }
    let both = object("shop", "", &format!("hosts: [web], gateways: [edge, mesh], {http}"));
    assert_eq!(remarks(&compile(&both)), []);
}

#[test]
fn matches_are_as_they_are_written() {
    let start = |text: &str, any_case| PathMatch::Start { text: text.into(), any_case };
    for (wanted, path) in [
        ("{}", start("/", false)),
        ("{uri: {exact: /a}}", PathMatch::Exact("/a".into())),
        ("{uri: {exact: /a}, ignoreUriCase: true}", PathMatch::ExactAnyCase("/a".into())),
        ("{uri: {prefix: /a/}}", start("/a/", false)),
        ("{uri: {prefix: /a}, ignoreUriCase: true}", start("/a", true)),
        ("{uri: {prefix: \"\"}}", start("/", false)),
    ] {
        assert_eq!(clean_match(wanted).path, path, "{wanted}");
    }
    let PathMatch::Regex(pattern) = clean_match("{uri: {regex: '/v[0-9]'}}").path else { panic!() };
    assert_eq!(pattern.as_str(), "/v[0-9]");
    let exact = |text: &str| ValueMatch::Exact(text.into());
    let wanted = clean_match(
        "{headers: {End-User: {exact: jason}, there: {}, any: {regex: '*'}, x: {prefix: a}}, \
         queryParams: {q: {exact: '1'}, r: {}}, method: {exact: PUT}, port: 80, \
         authority: {prefix: web}, scheme: {exact: http}, sourceNamespace: shop, \
         withoutHeaders: {no: {}}, name: one}",
    );
    let headers: Vec<_> =
        wanted.headers.iter().map(|one| (one.name.as_str(), &one.value)).collect();
    let start = ValueMatch::Start("a".into());
    let present = ValueMatch::Present;
    let jason = exact("jason");
    let expected = [("end-user", &jason), ("there", &present), ("any", &present), ("x", &start)];
    assert_eq!(headers, expected);
    assert_eq!(wanted.query[0].value, exact("1"));
    assert_eq!((wanted.method, &wanted.query[1].value), (Some(Method::PUT), &present));
    let further = wanted.further.unwrap();
    assert_eq!((further.port, further.source_namespace.as_deref()), (Some(80), Some("shop")));
    assert_eq!(further.authority, Some(ValueMatch::Start("web".into())));
    assert_eq!(
        (further.scheme, further.without_headers[0].name.as_str()),
        (Some(exact("http")), "no")
    );
}

#[test]
fn matches_that_cannot_be_evaluated_never_widen_a_rule() {
    for (wanted, field) in [
        ("{sourceLabels: {app: a}}", "sourceLabels"),
        ("{gateways: [edge]}", "gateways"),
        ("{headers: {'@request.auth.claims.sub': {exact: a}}}", "@request.auth"),
        ("{withoutHeaders: {'@request.auth.claims[a][b]': {exact: a}}}", "@request.auth"),
    ] {
        let alone = compile(&one(&format!("match: [{wanted}], {TO_API}")));
        assert!(alone.routes.is_empty(), "{wanted}");
        let told = remarks(&alone);
        assert!(told.iter().any(|one| one.0.contains(field) && one.1 == Cause::Unsupported));
        assert!(told.iter().any(|one| one.0 == "spec.http[0]"), "{told:?}");
        let beside = compile(&one(&format!("match: [{wanted}, {{uri: {{exact: /a}}}}], {TO_API}")));
        let rule = &rules(only(&beside))[0];
        assert_eq!(rule.matches.len(), 1, "{wanted}");
        assert_eq!(rule.matches[0].path, PathMatch::Exact("/a".into()));
    }
}

#[test]
fn destinations_are_found_by_host_port_and_subset() {
    let to = |destination: &str| format!("route: [{{destination: {destination}}}]");
    for (destination, expected) in [
        ("{host: api}", "shop/api.shop.svc.cluster.local:80"),
        (
            "{host: api.shop.svc.cluster.local, port: {number: 80}}",
            "shop/api.shop.svc.cluster.local:80",
        ),
        ("{host: far.other.svc.cluster.local}", "other/far.other.svc.cluster.local:80"),
        (
            "{host: web, port: {number: 81}, subset: v1}",
            "shop/web.shop.svc.cluster.local:81 subset v1",
        ),
    ] {
        let rule = clean(&one(&to(destination)));
        assert_eq!(rule.backends[0].target.as_ref().unwrap().to_string(), expected);
    }
    for (destination, field, reason) in [
        ("{host: none}", "destination", "there is no service of host none.shop"),
        ("{host: api, port: {number: 81}}", "destination", "has no port 81"),
        ("{host: web, port: {number: 80}, subset: v2}", "destination.subset", "no DestinationRule"),
    ] {
        let compiled = compile(&one(&to(destination)));
        let told = remarks(&compiled);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].0.ends_with(field) && told[0].2.contains(reason), "{told:?}");
        assert_eq!(rules(only(&compiled))[0].backends.len(), 1, "its share stays its own");
    }
}

#[test]
fn without_a_port_the_one_that_was_dialled_is_meant() {
    let compiled = compile(&one("route: [{destination: {host: web}}]"));
    assert_eq!(remarks(&compiled), []);
    let ports: Vec<_> = rules(only(&compiled))
        .iter()
        .map(|rule| (rule.matches[0].port(), rule.backends[0].target.as_ref().unwrap().port))
        .collect();
    assert_eq!(ports, [(Some(80), 80), (Some(81), 81)]);
    let compiled = compile(&one(
        "match: [{port: 81}, {uri: {exact: /a}}], route: [{destination: {host: web}}]",
    ));
    let matches: Vec<_> = rules(only(&compiled)).iter().map(|rule| rule.matches.len()).collect();
    assert_eq!(matches, [1, 2]);
}

#[test]
fn ports_that_no_service_has_are_told() {
    let http = one(&format!("match: [{{port: 82}}, {{port: 80}}], {TO_API}"));
    let tcp = object(
        "shop",
        "",
        "hosts: [web], tcp: [{match: [{port: 82}], route: [{destination: {host: api}}]}]",
    );
    for (text, field) in [(http, "spec.http[0].match"), (tcp, "spec.tcp[0].match")] {
        let compiled = compile(&text);
        let told = remarks(&compiled);
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!((told[0].0, told[0].1), (field, Cause::Invalid));
        assert_eq!(compiled.routes.len(), 1);
    }
}

#[test]
fn weights_are_shares_and_one_destination_has_everything() {
    let two = "route: [{destination: {host: api}, weight: 90}, {destination: {host: api}, weight: 10}, \
               {destination: {host: api}}]";
    let weights: Vec<_> = clean(&one(two)).backends.iter().map(|one| one.weight).collect();
    assert_eq!(weights, [90, 10, 0]);
    let alone = clean(&one("route: [{destination: {host: api}, weight: 0}]"));
    assert_eq!(alone.backends[0].weight, 1);
}

#[test]
fn connections_have_rules_of_their_own() {
    let connections = |spec: &str| {
        let compiled = compile(&object("shop", "", &format!("hosts: [web], {spec}")));
        let told: Vec<_> =
            remarks(&compiled).into_iter().map(|one| (one.0.to_owned(), one.1)).collect();
        let rules = compiled.routes.values().find_map(|route| match &route.rules {
            Rules::Tcp(rules) => Some(rules.to_vec()),
            Rules::Http(_) => None,
        });
        (rules.unwrap_or_default(), told)
    };
    let to = "route: [{destination: {host: api}}]";
    let (rules, told) = connections(&format!(
        "tcp: [{{match: [{{port: 81}}, {{sourceNamespace: shop}}], {to}}}], \
         tls: [{{match: [{{sniHosts: ['*.A.example', web]}}], {to}}}], http: [{{{TO_API}}}]"
    ));
    assert_eq!(told, []);
    assert_eq!(rules.len(), 3, "{rules:?}");
    assert_eq!(rules[0].server_names.join(" "), "*.a.example web", "tls comes first");
    assert_eq!((rules[1].port, rules[2].port), (Some(81), None));
    assert_eq!(rules[2].source_namespace.as_deref(), Some("shop"));
    let (rules, told) = connections("tcp: [{route: [{destination: {host: web, subset: v1}}]}]");
    let ports = rules.iter().map(|one| (one.port, one.backends[0].target.as_ref().unwrap().port));
    assert_eq!(ports.collect::<Vec<_>>(), [(Some(80), 80), (Some(81), 81)]);
    assert_eq!(told, []);
    for (spec, field, cause) in [
        (format!("tls: [{{{to}}}]"), "spec.tls[0].match", Cause::Invalid),
        (
            format!("tls: [{{match: [{{}}], {to}}}]"),
            "spec.tls[0].match[0].sniHosts",
            Cause::Invalid,
        ),
        ("tcp: [{}]".to_owned(), "spec.tcp[0].route", Cause::Invalid),
        (
            format!("tcp: [{{match: [{{destinationSubnets: [10.0.0.0/8]}}], {to}}}]"),
            "spec.tcp[0].match[0].destinationSubnets",
            Cause::Unsupported,
        ),
    ] {
        let (rules, told) = connections(&spec);
        assert!(rules.is_empty() && told.contains(&(field.to_owned(), cause)), "{spec}: {told:?}");
    }
}

#[test]
fn workloads_keep_the_labels_that_subsets_look_at() {
    let compiled = compile("");
    let pod = compiled.workloads.values().find(|one| *one.name == *"one").unwrap();
    let labels: Vec<_> = pod.labels.iter().map(|(key, value)| (&**key, &**value)).collect();
    assert_eq!(labels, [("version", "v1")]);
}
