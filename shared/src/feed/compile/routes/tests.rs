//! What routes mean, and what is said about those that mean less than they say.

use crate::feed::{Cause, Compiled, Options, SourceFile, objects};
use crate::mesh::{
    HttpMatch, HttpRule, PathMatch, Route, Rules, SessionKind, ValueMatch, sample, writer,
};

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

/// What is said about one rule of an `HTTPRoute`; its targets, or "refused" when it is invalid.
fn told(rule: &str) -> (String, Vec<String>) {
    let compiled = compile(&http(rule));
    let told = remarks(&compiled);
    let told: Vec<_> =
        told.iter().map(|(field, cause, reason)| format!("{field}: {cause}: {reason}")).collect();
    let targets = match compiled.routes.values().next() {
        Some(route) => targets(&rules(route)[0]),
        None => vec!["refused".to_owned()],
    };
    (told.join("\n"), targets)
}

#[test]
fn backends_that_cannot_be_used_stay_and_say_why() {
    for (backend, field, reason) in [
        ("name: gone, port: 80", "", "invalid: there is no service shop/gone"),
        (
            "name: api, port: 81",
            "",
            "invalid: service shop/api.shop.svc.cluster.local has no port 81",
        ),
        ("name: api", "", "invalid: a backend needs a port"),
        (
            "name: far, namespace: other, port: 80",
            "",
            "invalid: no ReferenceGrant in other lets a HTTPRoute of shop send to Service far",
        ),
        (
            "name: b, group: storage.example, kind: Bucket",
            "",
            "unsupported: storage.example/Bucket is no kind of backend, so its share answers 500",
        ),
        (
            "name: no.example, port: 443, group: networking.istio.io, kind: Hostname",
            "",
            "invalid: there is no service of host no.example",
        ),
        (
            "name: gone, port: 443, group: networking.istio.io, kind: ServiceEntry",
            "",
            "invalid: there is no ServiceEntry shop/gone",
        ),
        (
            "name: api, port: 80, filters: [{type: URLRewrite, urlRewrite: {hostname: a}}]",
            ".filters",
            "unsupported: filter URLRewrite is not supported on a backend, so its share answers 500",
        ),
    ] {
        let (told, targets) =
            told(&format!("backendRefs: [{{name: web, port: 80}}, {{{backend}}}]"));
        assert_eq!(told, format!("spec.rules[0].backendRefs[1]{field}: {reason}"));
        assert_eq!(targets[0], "shop/web.shop.svc.cluster.local:80");
        assert!(reason.ends_with(&targets[1]), "{targets:?}");
    }
}

#[test]
fn references_across_namespaces_need_a_grant() {
    let route = http("backendRefs: [{name: far, namespace: other, port: 80}]");
    let grant = |from: &str, to: &str| {
        let spec = format!("from: [{{{from}}}], to: [{{{to}}}]");
        doc("ReferenceGrant", "", &spec)
            .replace("namespace: shop}\nspec", "namespace: other}\nspec")
    };
    let from = "group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: shop";
    for (from, to, is_granted) in [
        (from, "group: '', kind: Service", true),
        (from, "group: '', kind: Service, name: far", true),
        (from, "group: '', kind: Service, name: near", false),
        (from, "group: '', kind: Secret", false),
        (&from.replace("HTTP", "GRPC"), "group: '', kind: Service", false),
        (&from.replace("shop", "else"), "group: '', kind: Service", false),
    ] {
        let compiled = compile(&(route.clone() + &grant(from, to)));
        let target = &rules(only(&compiled))[0].backends[0].target;
        assert_eq!(target.is_ok(), is_granted, "{from} {to}");
        assert_eq!(compiled.verdicts.is_empty(), is_granted);
    }
}

/// That these rules are invalid, and what is said about which field.
fn are_refused(rules: &[(&str, &str, &str)]) {
    for (rule, field, reason) in rules {
        let (told, targets) = told(rule);
        let expected = format!("spec.rules[0].{field}: invalid: {reason}");
        assert!(told.lines().any(|line| line == expected), "{rule}\n{told}\n{expected}");
        assert_eq!(targets, ["refused"], "{rule}");
    }
}

#[test]
fn matches_and_times_that_kubernetes_refuses_are_invalid() {
    let many = |count: usize, one: &str| vec![one; count].join(", ");
    are_refused(&[
        ("matches: [{path: {value: abc}}]", "matches[0].path.value", "must begin with a slash"),
        ("matches: [{path: {value: /a//b}}]", "matches[0].path.value", "must not contain \"//\""),
        (
            "matches: [{path: {type: Prefix}}]",
            "matches[0].path.type",
            "\"Prefix\" is no type of match",
        ),
        (
            "matches: [{path: {type: RegularExpression, value: '/(a'}}]",
            "matches[0].path.value",
            "is no regular expression: unclosed group",
        ),
        ("matches: [{method: FETCH}]", "matches[0].method", "\"FETCH\" is no method"),
        (
            "matches: [{headers: [{name: 'a b', value: x}]}]",
            "matches[0].headers[0].name",
            "\"a b\" is no header name",
        ),
        (
            "matches: [{headers: [{name: a}]}]",
            "matches[0].headers[0].value",
            "must be there and not empty",
        ),
        (
            &format!("matches: [{}]", many(65, "{method: GET}")),
            "matches",
            "has 65 entries; there may be 64",
        ),
        (
            "timeouts: {request: 1s, backendRequest: 2s}",
            "timeouts.backendRequest",
            "an attempt cannot take longer than the request",
        ),
        (
            "timeouts: {request: 1.5s}",
            "timeouts.request",
            "\"1.5s\" is no duration; write it as 1h30m, 10s or 250ms",
        ),
        (
            "backendRefs: [{name: web, port: 80, weight: 1000001}]",
            "backendRefs[0].weight",
            "must be 0 to 1000000",
        ),
    ]);
}

#[test]
fn filters_and_sessions_that_kubernetes_refuses_are_invalid() {
    are_refused(&[
        (
            "filters: [{type: RequestRedirect, requestRedirect: {}}, {type: URLRewrite, urlRewrite: {}}]",
            "filters",
            "RequestRedirect and URLRewrite exclude each other",
        ),
        (
            "filters: [{type: RequestRedirect, requestRedirect: {}}], backendRefs: [{name: web, port: 80}]",
            "backendRefs",
            "a rule with RequestRedirect sends nothing to backends",
        ),
        (
            "matches: [{path: {type: Exact, value: /a}}], filters: [{type: URLRewrite, urlRewrite: \
             {path: {type: ReplacePrefixMatch, replacePrefixMatch: /b}}}]",
            "filters",
            "ReplacePrefixMatch needs exactly one match, of type PathPrefix",
        ),
        (
            "filters: [{type: RequestMirror, requestMirror: {backendRef: {name: web, port: 80}, percent: 101}}]",
            "filters[0].requestMirror.percent",
            "must be a share of 0 to 1",
        ),
        (
            "filters: [{type: CORS, cors: {allowOrigins: [a]}}]",
            "filters[0].cors.allowOrigins",
            "\"a\": is no origin: write scheme://host or scheme://host:port",
        ),
        ("filters: [{type: CORS}]", "filters[0].cors", "a CORS needs this field"),
        ("retry: {codes: [200]}", "retry.codes", "must be statuses of 400 to 599"),
        (
            "sessionPersistence: {type: Header}",
            "sessionPersistence.sessionName",
            "a header needs a name",
        ),
        (
            "sessionPersistence: {cookieConfig: {lifetimeType: Permanent}}",
            "sessionPersistence.absoluteTimeout",
            "a permanent cookie needs an absoluteTimeout",
        ),
    ]);
}

#[test]
fn a_filter_that_does_not_exist_refuses_its_rule() {
    for kind in ["ExtensionRef", "ExternalAuth", "Teleport"] {
        let field = format!("{}{}", kind[..1].to_lowercase(), &kind[1..]);
        let rule = format!(
            "filters: [{{type: {kind}, {field}: {{name: x}}}}], backendRefs: [{{name: web, port: 80}}]"
        );
        let compiled = compile(&http(&rule));
        let reason = format!("filter {kind} is not supported, so the rule answers 500");
        assert_eq!(remarks(&compiled), [("spec.rules[0].filters", Cause::Unsupported, &*reason)]);
        assert_eq!(rules(only(&compiled))[0].filters.refused.as_deref(), Some(&*reason));
    }
}

#[test]
fn filters_are_read_whole() {
    let rule = clean(&http(
        "filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: A, value: b}], \
         add: [{name: c, value: d}], remove: [e]}}, {type: URLRewrite, urlRewrite: {hostname: \
         new.example, path: {type: ReplacePrefixMatch, replacePrefixMatch: ''}}}, {type: \
         RequestMirror, requestMirror: {backendRef: {name: api, port: 80}, fraction: {numerator: 1, \
         denominator: 3}}}, {type: RequestMirror, requestMirror: {backendRef: {name: api, port: 80}}}, \
         {type: CORS, cors: {allowOrigins: ['*'], allowMethods: [GET], allowHeaders: ['*'], \
         allowCredentials: true, maxAge: 9}}], backendRefs: [{name: web, port: 80, filters: [{type: \
         ResponseHeaderModifier, responseHeaderModifier: {remove: [server]}}]}]",
    ));
    let changes = &rule.filters.request_headers;
    assert_eq!((changes.set.len(), changes.add.len(), changes.remove.len()), (1, 1, 1));
    assert_eq!(changes.set[0].0, "a");
    assert!(rule.filters.rewrite.is_some());
    let shares: Vec<_> = rule.mirrors.iter().map(|one| (one.numerator, one.denominator)).collect();
    assert_eq!(shares, [(1, 3), (100, 100)]);
    let cors = rule.filters.cors.as_ref().unwrap();
    assert!(cors.credentials && cors.headers.is_none() && cors.exposed.as_deref() == Some(&[]));
    assert_eq!(rule.backends[0].filters.response_headers.remove[0], "server");
}

#[test]
fn headers_that_delimit_messages_are_left_alone() {
    let (told, _) = told(
        "filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: \
         Content-Length, value: '3'}, {name: Host, value: 'a b'}], remove: [host]}}], backendRefs: \
         [{name: web, port: 80}]",
    );
    let field = "spec.rules[0].filters[0].requestHeaderModifier";
    let expected = [
        format!(
            "{field}.set[0].name: unsupported: content-length is the proxy's own and is left as it is"
        ),
        format!("{field}.set[1].value: invalid: is no host"),
        format!("{field}.remove: unsupported: a request always has a host"),
    ];
    for line in expected {
        assert!(told.lines().any(|own| own == line), "{told}\n{line}");
    }
}

#[test]
fn rules_without_anything_to_send_to_are_remarked() {
    let (told, _) = told("matches: []");
    assert_eq!(told, "spec.rules[0].backendRefs: default: without backends the rule answers 500");
    let compiled = compile(&doc("HTTPRoute", "", WEB));
    let reason = "without rules every request is answered 500";
    assert_eq!(remarks(&compiled), [("spec.rules", Cause::Default, reason)]);
    assert_eq!(*rules(only(&compiled))[0].matches, [HttpMatch::everything()]);
}

#[test]
fn retry_says_what_is_not_repeated_unless_the_route_is_annotated() {
    let spec = format!(
        "{WEB}, rules: [{{retry: {{codes: [503], attempts: 3, backoff: 10ms}}, backendRefs: [{{name: \
         web, port: 80}}]}}, {{retry: {{}}, backendRefs: [{{name: web, port: 80}}]}}]"
    );
    let compiled = compile(&doc("HTTPRoute", "", &spec));
    let reason = "only undelivered or idempotent requests are repeated; annotate \
                  culvert.dev/retry-delivered: \"true\" to repeat delivered ones";
    assert_eq!(remarks(&compiled), [("spec.rules[0].retry", Cause::Default, reason)]);
    assert!(compiled.verdicts[0].in_force);
    let retry = rules(only(&compiled))[0].retry.clone().unwrap();
    assert_eq!((&*retry.codes, retry.attempts, retry.delivered), (&[503][..], 3, false));
    assert_eq!(rules(only(&compiled))[1].retry.as_ref().unwrap().attempts, 2);
    let annotated = ", annotations: {culvert.dev/retry-delivered: 'true'}";
    let compiled = compile(&doc("HTTPRoute", annotated, &spec));
    assert_eq!(remarks(&compiled), []);
    assert!(rules(only(&compiled))[0].retry.as_ref().unwrap().delivered);
}

#[test]
fn parents_are_services_that_have_a_waypoint() {
    let service = "group: '', kind: Service";
    for (parent, field, reason) in [
        (
            "name: gw",
            "",
            "traffic that enters through a Gateway is not routed here; a route for the mesh has a \
             parent of group \"\" and kind Service",
        ),
        (&*format!("{service}, name: gone"), "", "there is no service shop/gone"),
        (
            &format!("{service}, name: web, port: 9"),
            "",
            "service shop/web.shop.svc.cluster.local has no port 9",
        ),
        (
            &format!("{service}, name: web, sectionName: grpc"),
            "",
            "service shop/web.shop.svc.cluster.local has no port grpc",
        ),
        (
            &format!("{service}, name: web.shop"),
            ".name",
            "the name of a service has no dots; its namespace is a field of its own",
        ),
        (
            &format!("{service}, name: far, namespace: other"),
            "",
            "service other/far.other.svc.cluster.local has no waypoint, and only a waypoint routes: \
             label it, or its namespace, istio.io/use-waypoint",
        ),
    ] {
        let spec = format!("parentRefs: [{{{parent}}}], rules: [], hostnames: [a.example]");
        let compiled = compile(&doc("HTTPRoute", "", &spec));
        let told = remarks(&compiled);
        let field = format!("spec.parentRefs[0]{field}");
        assert!(told.iter().any(|one| (one.0, one.2) == (&*field, reason)), "{told:#?}");
        assert!(told.iter().any(|one| one.0 == "spec.hostnames"), "{told:#?}");
        // One without a waypoint may be served by one that another feed knows.
        assert_eq!(compiled.routes.len(), usize::from(parent.contains("far")));
    }
}

#[test]
fn calls_are_paths() {
    let matches = |text: &str| {
        let rule = format!("matches: [{text}], backendRefs: [{{name: web, port: 80}}]");
        let compiled = compile(&doc("GRPCRoute", "", &format!("{WEB}, rules: [{{{rule}}}]")));
        assert_eq!(remarks(&compiled), []);
        rules(only(&compiled))[0].matches[0].clone()
    };
    let text = |text: &str| std::sync::Arc::<str>::from(text);
    let both = matches("{method: {service: shop.Cart, method: Add}}");
    assert_eq!(both.path, PathMatch::Exact(text("/shop.Cart/Add")));
    let service = matches("{method: {service: shop.Cart}}");
    assert_eq!(service.path, PathMatch::Prefix(text("/shop.Cart")));
    for (wanted, fits, not) in [
        ("{method: {method: Add}}", "/any/Add", "/any/other/Add"),
        ("{method: {type: RegularExpression, service: 'shop.*'}}", "/shop.Cart/Add", "/shop.Cart"),
        ("{method: {type: RegularExpression, method: 'A|B'}}", "/x/B", "/x/AB"),
    ] {
        let PathMatch::Regex(pattern) = matches(wanted).path else { panic!("{wanted}") };
        assert!(pattern.is_match(fits.as_bytes()) && !pattern.is_match(not.as_bytes()), "{wanted}");
    }
    let headers = matches("{headers: [{name: a, value: b}]}");
    assert_eq!((headers.path, headers.headers.len()), (PathMatch::Any, 1));
    let bad =
        "rules: [{matches: [{method: {service: 'a/b'}}], backendRefs: [{name: web, port: 80}]}]";
    let compiled = compile(&doc("GRPCRoute", "", &format!("{WEB}, {bad}")));
    let expected = ("spec.rules[0].matches[0].method.service", Cause::Invalid);
    assert_eq!((remarks(&compiled)[0].0, remarks(&compiled)[0].1), expected);
    let filter = "rules: [{filters: [{type: RequestRedirect, requestRedirect: {}}]}]";
    let compiled = compile(&doc("GRPCRoute", "", &format!("{WEB}, {filter}")));
    assert!(rules(only(&compiled))[0].filters.refused.is_some());
}

#[test]
fn connections_have_one_rule_and_server_names() {
    let backend = "rules: [{backendRefs: [{name: api, port: 80}]}]";
    for (kind, names) in [("TCPRoute", ""), ("TLSRoute", "hostnames: [A.example, '*.b.example'], ")]
    {
        let compiled = compile(&doc(kind, "", &format!("{WEB}, {names}{backend}")));
        assert_eq!(remarks(&compiled), []);
        let Rules::Tcp(rules) = &only(&compiled).rules else { panic!() };
        let [rule] = &rules[..] else { panic!("{rules:?}") };
        assert_eq!(rule.backends.len(), 1);
        assert_eq!(rule.server_names.len(), if kind == "TLSRoute" { 2 } else { 0 });
        assert!(rule.server_names.iter().all(|name| **name == name.to_ascii_lowercase()));
    }
    let two =
        "rules: [{backendRefs: [{name: api, port: 80}]}, {backendRefs: [{name: web, port: 80}]}]";
    let compiled = compile(&doc("TCPRoute", "", &format!("{WEB}, {two}")));
    let reason = "connections are all alike, so the first rule has them all";
    assert_eq!(remarks(&compiled), [("spec.rules[1]", Cause::Shadowed, reason)]);
}

#[test]
fn sessions_of_rules_have_different_names() {
    let rule = "{sessionPersistence: {absoluteTimeout: 1h}, backendRefs: [{name: web, port: 80}]}";
    let compiled = compile(&doc("HTTPRoute", "", &format!("{WEB}, rules: [{rule}, {rule}]")));
    assert_eq!(remarks(&compiled), []);
    let names: Vec<_> = rules(only(&compiled))
        .iter()
        .map(|rule| match &rule.session.as_ref().unwrap().kind {
            SessionKind::Cookie { name, permanent: false } => name.clone(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(names[0] != names[1] && names[0].starts_with("culvert-"));
}

#[test]
fn dump_of_a_route_can_be_read() {
    let compiled = compile(&http(
        "matches: [{method: GET, headers: [{name: a, value: b}]}], timeouts: {request: 1s}, \
         backendRefs: [{name: api, port: 80}, {name: gone, port: 80}]",
    ));
    let value = serde_json::json!(only(&compiled));
    assert_eq!(value["key"], "HTTPRoute/shop/r");
    let rule = &value["rules"]["http"][0];
    assert_eq!(rule["backends"][0]["target"], "shop/api.shop.svc.cluster.local:80");
    assert_eq!(rule["backends"][1]["target"], "invalid: there is no service shop/gone");
    assert_eq!(rule["matches"][0]["method"], "GET");
    assert_eq!(rule["matches"][0]["headers"][0]["value"]["exact"], "b");
}
