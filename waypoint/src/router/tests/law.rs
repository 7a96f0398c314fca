//! The index against a list: all matches, sorted by the words of the specification, tried in turn.

use std::cmp::Reverse;

use proptest::prelude::*;

use super::*;

/// One match with what its place depends on.
struct Row<'a> {
    route: &'a Route,
    rule: usize,
    wanted: &'a HttpMatch,
    at: usize,
}

pub(super) fn reference(
    routes: &[Route],
    port: u16,
    client: Option<&str>,
    request: &Parts,
) -> String {
    let web = sample::service_key("web", "ns");
    let mut rows = Vec::new();
    let mut any = false;
    let is_for = |route: &&Route| {
        let own = *route.key.namespace == *"ns" || client == Some(&*route.key.namespace);
        own && route.applies_to(&web, port)
    };
    for route in routes.iter().filter(is_for) {
        any = true;
        let Rules::Http(rules) = &route.rules else { continue };
        for (rule, one) in rules.iter().enumerate() {
            let matches = one.matches.iter().enumerate();
            rows.extend(matches.map(|(at, wanted)| Row { route, rule, wanted, at }));
        }
    }
    rows.sort_by_key(|row| {
        let (kind, length) = match &row.wanted.path {
            PathMatch::Exact(path) => (3, path.len()),
            PathMatch::Prefix(path) => (2, path.len()),
            PathMatch::Regex(pattern) => (1, pattern.as_str().len()),
            PathMatch::Any => (0, 0),
            other => unreachable!("{other:?} is of a virtual service"),
        };
        let HttpMatch { headers, query, method, .. } = row.wanted;
        let conditions = (method.is_some(), headers.len(), query.len());
        let asks = kind % 2 == 1 || length > 0 || conditions != (false, 0, 0);
        let route = &row.route;
        let place = (row.route.key.kind, row.rule, row.at);
        let own = *route.key.namespace == *"ns";
        let name = format!("{}/{}", route.key.namespace, route.key.name);
        let length = if asks { length } else { 0 };
        let kind = if asks { kind } else { 0 };
        (own, Reverse((asks, kind, length, conditions)), route.created.clone(), name, place)
    });
    let found = rows.iter().find(|row| is_match(row.wanted, request));
    match found {
        Some(row) => format!("{} {}", row.route.key.name, row.rule),
        None if any => "404".to_owned(),
        None => "default".to_owned(),
    }
}

fn is_match(wanted: &HttpMatch, request: &Parts) -> bool {
    let path = request.uri.path();
    let segments = |text: &str| text.split('/').map(str::to_owned).collect::<Vec<_>>();
    let path_fits = match &wanted.path {
        PathMatch::Exact(own) => path == &**own,
        PathMatch::Prefix(own) => segments(path).starts_with(&segments(own)),
        PathMatch::Regex(pattern) => pattern.is_match(path.as_bytes()),
        PathMatch::Any => true,
        other => unreachable!("{other:?} is of a virtual service"),
    };
    let header = |one: &HeaderMatch| {
        let values = request.headers.get_all(&one.name).iter();
        let joined = values.map(|value| value.to_str().unwrap()).collect::<Vec<_>>().join(",");
        request.headers.contains_key(&one.name) && one.value.is_match(joined.as_bytes())
    };
    let parameter = |one: &QueryMatch| {
        let mut pairs = request.uri.query().unwrap_or("").split('&');
        let found = pairs.find_map(|pair| pair.strip_prefix(&format!("{}=", one.name)));
        found.is_some_and(|value| one.value.is_match(value.as_bytes()))
    };
    path_fits
        && wanted.method.as_ref().is_none_or(|method| *method == request.method)
        && wanted.headers.iter().all(header)
        && wanted.query.iter().all(parameter)
}

fn any_path() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["/a", "/b", "/ab", "/"]), 0..4)
        .prop_map(|parts| parts.concat())
}

fn any_match() -> impl Strategy<Value = HttpMatch> {
    let path = prop_oneof![
        any_path().prop_map(|path| PathMatch::Exact(format!("/{}", path.trim_matches('/')).into())),
        any_path().prop_map(|path| PathMatch::Prefix(
            path.replace("//", "/").trim_end_matches('/').into()
        )),
        Just(PathMatch::Prefix("".into())),
        prop::sample::select(vec!["/a.*", "/(a|b)", "/.*"])
            .prop_map(|text| PathMatch::Regex(Pattern::new(text).unwrap())),
        Just(PathMatch::Any),
    ];
    let value = || prop::sample::select(vec!["1", "2", "1,2"]);
    let parts = (
        path,
        prop::option::weighted(0.3, value()),
        prop::option::weighted(0.3, value()),
        prop::option::weighted(0.2, value()),
        prop::option::weighted(0.2, prop::sample::select(vec![Method::GET, Method::POST])),
    );
    parts.prop_map(|(path, one, two, parameter, method)| HttpMatch {
        path,
        headers: [one.map(|value| header("x", value)), two.map(|value| header("y", value))]
            .into_iter()
            .flatten()
            .collect(),
        query: parameter.map(|value| query("q", value)).into_iter().collect(),
        method,
        further: None,
    })
}

pub(super) fn any_route() -> impl Strategy<Value = Route> {
    let parts = (
        (prop::sample::select(vec!["ns", "ns-b"]), 0..40u8, any::<bool>(), 0..3u8),
        prop::collection::vec(prop::collection::vec(any_match(), 1..4), 0..4),
        prop::option::of(80..82u16),
    );
    parts.prop_map(|((namespace, name, is_grpc, created), rules, port)| {
        let web = sample::service_key("web", "ns");
        let rules = rules.into_iter().map(|matches| sample::rule(matches, &web)).collect();
        let mut route = sample::route(&format!("r{name}"), namespace, &web, rules);
        if is_grpc {
            // Names differ, so that a wrong kind shows.
            route.key.kind = RouteKind::Grpc;
            route.key.name = format!("g{name}").into();
        }
        route.created = format!("{created}").into();
        route.parents = [RouteParent { service: web, port }].into();
        route
    })
}

pub(super) fn any_request() -> impl Strategy<Value = Parts> {
    let values = || prop::collection::vec(prop::sample::select(vec!["1", "2"]), 0..3);
    let parts = (any_path(), values(), values(), values(), any::<bool>());
    parts.prop_map(|(path, x, y, q, is_get)| {
        let query: Vec<_> = q.iter().map(|value| format!("q={value}")).collect();
        let uri = format!("/{}?{}", path.strip_prefix('/').unwrap_or(""), query.join("&"));
        let headers =
            x.iter().map(|value| ("x", *value)).chain(y.iter().map(|value| ("y", *value)));
        let mut request = with(&uri, &headers.collect::<Vec<_>>());
        request.method = if is_get { Method::GET } else { Method::POST };
        request
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn index_finds_what_a_sorted_list_finds(
        mut routes in prop::collection::vec(any_route(), 0..30),
        requests in prop::collection::vec(any_request(), 10),
        client in prop::sample::select(vec![None, Some("ns"), Some("ns-b"), Some("c")]),
        port in 80..83u16,
    ) {
        routes.sort_by(|one, other| one.key.cmp(&other.key));
        routes.dedup_by(|one, other| one.key == other.key);
        let compiled = table(&routes);
        routes.reverse();
        let reversed = table(&routes);
        for request in &requests {
            let expected = reference(&routes, port, client, request);
            prop_assert_eq!(&found(&compiled, port, client, request), &expected);
            prop_assert_eq!(&found(&reversed, port, client, request), &expected);
        }
    }
}
