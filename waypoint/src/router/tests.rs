//! Precedence, audiences and ports; and the law that the index finds what a sorted list finds.

mod law;
mod listed;

use http::{HeaderName, Method, Request};
use shared::mesh::{
    HeaderMatch, HttpMatch, PathMatch, Pattern, QueryMatch, Route, RouteKind, RouteParent, TcpRule,
    ValueMatch, sample, writer,
};

use super::*;

fn exact(path: &str) -> HttpMatch {
    HttpMatch { path: PathMatch::Exact(path.into()), ..HttpMatch::everything() }
}

fn prefix(path: &str) -> HttpMatch {
    HttpMatch { path: PathMatch::Prefix(path.into()), ..HttpMatch::everything() }
}

fn regex(path: &str) -> HttpMatch {
    let path = PathMatch::Regex(Pattern::new(path).unwrap());
    HttpMatch { path, ..HttpMatch::everything() }
}

fn header(name: &'static str, value: &str) -> HeaderMatch {
    let value = ValueMatch::Exact(value.into());
    HeaderMatch { name: HeaderName::from_static(name), value }
}

fn query(name: &str, value: &str) -> QueryMatch {
    QueryMatch { name: name.into(), value: ValueMatch::Exact(value.into()) }
}

/// A route of service `web` in namespace `ns` with one rule per match, named after the route.
fn route(name: &str, namespace: &str, matches: &[HttpMatch]) -> Route {
    let web = sample::service_key("web", "ns");
    let rule = |one: &HttpMatch| sample::rule(vec![one.clone()], &web);
    sample::route(name, namespace, &web, matches.iter().map(rule).collect())
}

fn table(routes: &[Route]) -> Table {
    let web = sample::service("web", "ns");
    let (mut writer, reader) = writer();
    writer.apply(routes.iter().cloned().map(Into::into));
    Table::compile(&reader.load(), &web)
}

/// The name of the route and the place of the rule; "default" or "404" without one.
fn found(table: &Table, port: u16, client: Option<&str>, request: &Parts) -> String {
    match table.route(port, client, request) {
        Routed::Default => "default".to_owned(),
        Routed::NoMatch => "404".to_owned(),
        Routed::Rule(matched) => format!("{} {}", matched.rule.route().name, matched.rule.at()),
    }
}

fn get(uri: &str) -> Parts {
    Request::get(uri).body(()).unwrap().into_parts().0
}

fn with(uri: &str, headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::get(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

#[test]
fn prefixes_match_whole_segments() {
    let table = table(&[route("r", "ns", &[prefix("/abc"), exact("/x/")])]);
    for (path, expected) in [
        ("/abc", "r 0"),
        ("/abc/", "r 0"),
        ("/abc/d", "r 0"),
        ("/abc?d", "r 0"),
        ("/abcd", "404"),
        ("/ABC", "404"),
        ("/x/", "r 1"),
        ("/x", "404"),
        ("/", "404"),
    ] {
        assert_eq!(found(&table, 80, None, &get(path)), expected, "{path}");
    }
}

#[test]
fn path_comes_before_method_headers_and_parameters() {
    let many = |count: usize, names: [&'static str; 3]| -> Box<[HeaderMatch]> {
        names[..count].iter().map(|name| header(name, "1")).collect()
    };
    let names = ["a", "b", "c"];
    let table = table(&[route(
        "r",
        "ns",
        &[
            HttpMatch { headers: many(3, names), ..prefix("/a") },
            HttpMatch { headers: many(1, names), ..prefix("/a/b") },
            HttpMatch { method: Some(Method::GET), ..prefix("/a/b") },
            exact("/a/b/c"),
            regex("/a/.*"),
            HttpMatch { headers: many(2, names), ..prefix("/a/b") },
            HttpMatch { query: [query("q", "1")].into(), ..prefix("/a/b") },
            HttpMatch { headers: many(1, names), ..prefix("") },
            regex("/.*"),
            prefix(""),
        ],
    )]);
    let all = [("a", "1"), ("b", "1"), ("c", "1")];
    for (path, headers, expected) in [
        ("/a/b/c?q=1", &all[..], "r 3"),
        ("/a/b/d?q=1", &all, "r 2"),
        ("/a/x", &all, "r 0"),
        ("/a/x", &all[..1], "r 7"),
        ("/a/x", &[], "r 4"),
        ("/z", &[], "r 8"),
    ] {
        assert_eq!(found(&table, 80, None, &with(path, headers)), expected, "{path} {headers:?}");
    }
    let post = |headers| {
        let mut request = with("/a/b?q=1", headers);
        request.method = Method::POST;
        request
    };
    assert_eq!(found(&table, 80, None, &post(&all)), "r 5");
    assert_eq!(found(&table, 80, None, &post(&all[..1])), "r 1");
    assert_eq!(found(&table, 80, None, &post(&[])), "r 6");
}

#[test]
fn only_what_asks_for_nothing_matches_a_request_without_path() {
    let conditional = HttpMatch { method: Some(Method::OPTIONS), ..prefix("") };
    let table = table(&[route("r", "ns", &[conditional, prefix("")])]);
    let mut request = get("*");
    request.method = Method::OPTIONS;
    assert_eq!(found(&table, 80, None, &request), "r 1");
    request.uri = "/".parse().unwrap();
    assert_eq!(found(&table, 80, None, &request), "r 0");
    let mut connect = get("http://h:80");
    connect.uri = "h:80".parse().unwrap();
    connect.method = Method::CONNECT;
    assert_eq!(found(&table, 80, None, &connect), "r 1");
}

#[test]
fn headers_and_parameters_are_looked_at_as_one_value() {
    let wanted = HttpMatch { headers: [header("version", "one,two")].into(), ..prefix("") };
    let first = HttpMatch { query: [query("q", "1")].into(), ..prefix("") };
    let empty = HttpMatch { query: [query("Flag", "")].into(), ..prefix("") };
    let host = HttpMatch { headers: [header("host", "h:1")].into(), ..prefix("") };
    let table = table(&[route("r", "ns", &[wanted, first, empty, host])]);
    for (uri, headers, expected) in [
        ("/", &[("Version", "one"), ("VERSION", "two")][..], "r 0"),
        ("/", &[("version", "two"), ("version", "one")], "404"),
        ("/?q=1&q=2", &[], "r 1"),
        ("/?q=2&q=1", &[], "404"),
        ("/?Q=1", &[], "404"),
        ("/?a&Flag", &[], "r 2"),
        ("http://h:1/", &[], "r 3"),
        ("/", &[("host", "h:1")], "r 3"),
    ] {
        assert_eq!(found(&table, 80, None, &with(uri, headers)), expected, "{uri} {headers:?}");
    }
}

#[test]
fn ties_go_to_the_older_route_then_to_the_name_then_to_the_order() {
    let created = |mut route: Route, created: &str| {
        route.created = created.into();
        route
    };
    let two = |name: &str, namespace: &str| route(name, namespace, &[prefix("/a"), prefix("/a")]);
    let newer = created(two("a", "ns"), "2026-02-01T00:00:00Z");
    let older = created(two("b", "ns"), "2026-01-01T00:00:00Z");
    assert_eq!(found(&table(&[newer.clone(), older]), 80, None, &get("/a")), "b 0");
    let twin = created(two("c", "ns"), "2026-02-01T00:00:00Z");
    assert_eq!(found(&table(&[twin.clone(), newer.clone()]), 80, None, &get("/a")), "a 0");
    let mut grpc = newer;
    grpc.key.kind = RouteKind::Grpc;
    let mut http = grpc.clone();
    http.key.kind = RouteKind::Http;
    let merged = table(&[grpc, http, twin]);
    let Routed::Rule(matched) = merged.route(80, None, &get("/a")) else { panic!() };
    assert!(!matched.rule.is_grpc());
}

#[test]
fn routes_are_for_their_ports() {
    let at = |name: &str, port, matches: &[HttpMatch]| {
        let mut route = route(name, "ns", matches);
        let service = sample::service_key("web", "ns");
        route.parents = [RouteParent { service, port }].into();
        route
    };
    let only = table(&[at("one", Some(80), &[prefix("/a")])]);
    assert_eq!(found(&only, 80, None, &get("/a")), "one 0");
    assert_eq!(found(&only, 80, None, &get("/b")), "404");
    assert_eq!(found(&only, 81, None, &get("/a")), "default");
    let both = table(&[at("one", Some(80), &[prefix("/a/b")]), at("all", None, &[prefix("/a")])]);
    assert_eq!(found(&both, 80, None, &get("/a/b")), "one 0");
    assert_eq!(found(&both, 80, None, &get("/a")), "all 0");
    assert_eq!(found(&both, 81, None, &get("/a/b")), "all 0");
    assert_eq!(found(&table(&[]), 80, None, &get("/")), "default");
    assert_eq!(found(&table(&[at("empty", None, &[])]), 80, None, &get("/")), "404");
}

#[test]
fn consumer_routes_are_for_clients_of_their_namespace_and_come_first() {
    let producer = route("producer", "ns", &[exact("/a"), prefix("")]);
    let consumer = route("consumer", "client", &[prefix("/a")]);
    let both = table(&[producer, consumer.clone()]);
    for (client, path, expected) in [
        (Some("client"), "/a", "consumer 0"),
        (Some("client"), "/b", "producer 1"),
        (Some("other"), "/a", "producer 0"),
        (None, "/a", "producer 0"),
    ] {
        assert_eq!(found(&both, 80, client, &get(path)), expected, "{client:?} {path}");
    }
    let alone = table(&[consumer]);
    assert_eq!(found(&alone, 80, Some("client"), &get("/b")), "404");
    assert_eq!(found(&alone, 80, Some("other"), &get("/a")), "default");
}

#[test]
fn matched_prefix_is_told() {
    let table = table(&[route("r", "ns", &[prefix("/a"), exact("/b"), prefix("")])]);
    let prefix_of = |path| match table.route(80, None, &get(path)) {
        Routed::Rule(matched) => matched.prefix,
        other => panic!("{other:?}"),
    };
    assert_eq!(prefix_of("/a/b"), Some(2));
    assert_eq!(prefix_of("/b"), None);
    assert_eq!(prefix_of("/c"), Some(0));
}

#[test]
fn connections_go_by_server_name_then_to_the_oldest_route() {
    let of = |name: &str, kind, names: &[&str], created: &str| {
        let mut route = route(name, "ns", &[]);
        route.key.kind = kind;
        route.created = created.into();
        let backends = [sample::backend(&sample::service_key("web", "ns"), 1)].into();
        let server_names = names.iter().map(|name| Arc::from(*name)).collect();
        let rule = TcpRule { server_names, port: None, source_namespace: None, backends };
        route.rules = Rules::Tcp([rule].into());
        route
    };
    let mut consumer = of("consumer", RouteKind::Tcp, &[], "9");
    consumer.key.namespace = "client".into();
    let table = table(&[
        of("new", RouteKind::Tcp, &[], "2"),
        of("old", RouteKind::Tcp, &[], "1"),
        of("exact", RouteKind::Tls, &["a.example"], "3"),
        of("wide", RouteKind::Tls, &["*.example"], "1"),
        of("narrow", RouteKind::Tls, &["*.b.example"], "2"),
        consumer,
    ]);
    for (client, name, expected) in [
        (None, None, "old"),
        (None, Some("a.example"), "exact"),
        (None, Some("A.EXAMPLE"), "exact"),
        (None, Some("x.example"), "wide"),
        (None, Some("x.b.example"), "narrow"),
        (None, Some("example"), "old"),
        (Some("client"), None, "consumer"),
        (Some("client"), Some("a.example"), "exact"),
    ] {
        let connections = table.tcp(80, client, name).unwrap();
        assert_eq!(&*connections.route().name, expected, "{client:?} {name:?}");
        assert!(matches!(connections.choose(0), Choice::Backend(_)));
    }
    assert!(tests::table(&[]).tcp(80, None, None).is_none());
}
