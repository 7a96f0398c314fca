//! Virtual services: their conditions, and the law that the first rule in the order of writing wins,
//! beside routes of the Gateway API.

use proptest::prelude::*;
use shared::mesh::Further;

use super::law::{any_request, any_route, reference};
use super::*;

fn start(text: &str) -> HttpMatch {
    let path = PathMatch::Start { text: text.into(), any_case: false };
    HttpMatch { path, ..HttpMatch::everything() }
}

fn further(further: Further) -> HttpMatch {
    HttpMatch { further: Some(Box::new(further)), ..start("/") }
}

/// A virtual service for `web` in namespace `ns`, one rule per match.
fn listed(name: &str, created: &str, matches: &[HttpMatch]) -> Route {
    let mut route = route(name, "ns", matches);
    route.key.kind = RouteKind::Virtual;
    route.created = created.into();
    route
}

#[test]
fn rules_are_tried_as_they_are_written_and_services_by_their_age() {
    let wide = listed("wide", "2", &[start("/"), exact("/a")]);
    let narrow = listed("narrow", "1", &[start("/a"), start("/b/")]);
    for routes in [[wide.clone(), narrow.clone()], [narrow, wide]] {
        let table = table(&routes);
        for (path, expected) in
            [("/a", "narrow 0"), ("/ab", "narrow 0"), ("/b", "wide 0"), ("/b/", "narrow 1")]
        {
            assert_eq!(found(&table, 80, None, &get(path)), expected, "{path}");
        }
    }
}

#[test]
fn routes_of_the_gateway_api_have_the_place_of_their_oldest() {
    let of = |name: &str, created: &str, wanted| {
        let mut route = route(name, "ns", &[wanted]);
        route.created = created.into();
        route
    };
    let virtual_service = || listed("v", "2", &[start("/a")]);
    let after = table(&[of("late", "3", prefix("")), virtual_service()]);
    assert_eq!(found(&after, 80, None, &get("/a")), "v 0");
    assert_eq!(found(&after, 80, None, &get("/b")), "late 0");
    let before =
        table(&[of("late", "3", prefix("")), of("old", "1", exact("/b")), virtual_service()]);
    assert_eq!(found(&before, 80, None, &get("/a")), "late 0");
}

#[test]
fn a_port_without_rules_is_the_services_own() {
    let only = further(Further { port: Some(81), ..Further::default() });
    let table = table(&[listed("v", "", &[only])]);
    assert_eq!(found(&table, 80, None, &get("/")), "default");
    assert_eq!(found(&table, 81, None, &get("/")), "v 0");
    let exact_81 = HttpMatch {
        path: PathMatch::Exact("/a".into()),
        ..further(Further { port: Some(81), ..Further::default() })
    };
    let table = super::table(&[listed("v", "", &[exact_81, exact("/b")])]);
    assert_eq!(found(&table, 80, None, &get("/a")), "404");
    assert_eq!(found(&table, 81, None, &get("/a")), "v 0");
    assert_eq!(found(&table, 81, None, &get("/b")), "v 1");
}

#[test]
fn a_virtual_service_of_the_waypoints_namespace_is_for_all_clients() {
    let mut route = listed("v", "", &[start("/")]);
    route.key.namespace = "waypoints".into();
    let table = table(&[route]);
    assert_eq!(found(&table, 80, Some("client"), &get("/")), "v 0");
}

#[test]
fn conditions_of_virtual_services_hold_together() {
    let is = |value: &str| Some(ValueMatch::Exact(value.into()));
    let begins = |value: &str| Some(ValueMatch::Start(value.into()));
    let without = |value| {
        let name = HeaderName::from_static("x");
        further(Further {
            without_headers: [HeaderMatch { name, value }].into(),
            ..Further::default()
        })
    };
    let authority = |value| further(Further { authority: value, ..Further::default() });
    let method = |value| further(Further { methods: value, ..Further::default() });
    let scheme = |value| further(Further { scheme: value, ..Further::default() });
    let from =
        |name: &str| further(Further { source_namespace: Some(name.into()), ..Further::default() });
    for (wanted, headers, expected) in [
        (without(ValueMatch::Present), &[][..], true),
        (without(ValueMatch::Present), &[("x", "1")], false),
        (without(ValueMatch::Exact("1".into())), &[("x", "2")], true),
        (without(ValueMatch::Exact("1".into())), &[("x", "1")], false),
        (authority(is("h:81")), &[("host", "h:81")], true),
        (authority(is("h")), &[("host", "h:81")], false),
        (authority(begins("h")), &[("host", "h:81")], true),
        (authority(begins("h")), &[], false),
        (method(begins("G")), &[], true),
        (method(begins("P")), &[], false),
        (scheme(is("http")), &[], true),
        (scheme(is("https")), &[], false),
        (from("c"), &[], true),
        (from("d"), &[], false),
    ] {
        let table = table(&[listed("v", "", std::slice::from_ref(&wanted))]);
        let shown = found(&table, 80, Some("c"), &with("/", headers));
        assert_eq!(shown == "v 0", expected, "{wanted:?} with {headers:?}");
    }
}

#[test]
fn parameters_and_headers_may_be_asked_for_without_a_value() {
    let query = QueryMatch { name: "q".into(), value: ValueMatch::Present };
    let name = HeaderName::from_static("x");
    let header = HeaderMatch { name, value: ValueMatch::Start("a".into()) };
    let wanted = HttpMatch { query: [query].into(), headers: [header].into(), ..start("/") };
    let table = table(&[listed("v", "", &[wanted])]);
    for (uri, header, expected) in [
        ("/?q", ("x", "ab"), "v 0"),
        ("/?q=1", ("x", "a"), "v 0"),
        ("/?r=1", ("x", "a"), "404"),
        ("/?q", ("x", "ba"), "404"),
    ] {
        assert_eq!(found(&table, 80, None, &with(uri, &[header])), expected, "{uri} {header:?}");
    }
}

#[test]
fn connections_go_by_name_then_by_the_first_rule_for_their_port() {
    let rule = |names: &[&str], port: Option<u16>, from: Option<&str>, weight| TcpRule {
        server_names: names.iter().map(|name| Arc::from(*name)).collect(),
        port,
        source_namespace: from.map(Arc::from),
        backends: [sample::backend(&sample::service_key("web", "ns"), weight)].into(),
    };
    let mut route = listed("v", "", &[]);
    route.key.kind = RouteKind::VirtualTcp;
    route.rules = Rules::Tcp(
        [
            rule(&["*.example"], None, None, 1),
            rule(&["a.example"], None, None, 2),
            rule(&[], Some(81), None, 3),
            rule(&[], None, Some("client"), 4),
            rule(&[], Some(80), None, 5),
            rule(&[], Some(80), None, 6),
        ]
        .into(),
    );
    let table = table(&[route]);
    for (port, client, name, expected) in [
        (80, None, Some("b.example"), Some(1)),
        (80, None, Some("a.example"), Some(2)),
        (80, None, Some("other"), Some(5)),
        (81, Some("client"), None, Some(3)),
        (80, Some("client"), None, Some(4)),
        (80, None, None, Some(5)),
        (82, None, None, None),
    ] {
        let weight = table.tcp(port, client, name).map(|found| match found.choose(0) {
            Choice::Backend(backend) => backend.weight,
            other => panic!("{other:?}"),
        });
        assert_eq!(weight, expected, "{port} {client:?} {name:?}");
    }
}

/// What holds by the words of the specification: consumers first, then blocks by age.
fn by_the_words(routes: &[Route], port: u16, client: Option<&str>, request: &Parts) -> String {
    let is_virtual = |route: &&Route| route.key.kind == RouteKind::Virtual;
    let sorted: Vec<Route> = routes.iter().filter(|one| !is_virtual(one)).cloned().collect();
    let (producers, consumers): (Vec<Route>, Vec<Route>) =
        sorted.into_iter().partition(|one| *one.key.namespace == *"ns");
    let mut any = false;
    let mut decided = |answer: String| match &*answer {
        "default" => None,
        "404" => {
            any = true;
            None
        }
        _ => Some(answer),
    };
    if let Some(rule) = decided(reference(&consumers, port, client, request)) {
        return rule;
    }
    let web = sample::service_key("web", "ns");
    let attached: Vec<Route> =
        producers.into_iter().filter(|one| one.applies_to(&web, port)).collect();
    let mut blocks: Vec<(String, bool, String, Vec<Route>)> = Vec::new();
    if let Some(oldest) = attached.iter().map(|one| one.created.to_string()).min() {
        blocks.push((oldest, false, String::new(), attached));
    }
    for one in routes.iter().filter(is_virtual) {
        let name = format!("{}/{}", one.key.namespace, one.key.name);
        blocks.push((one.created.to_string(), true, name, vec![one.clone()]));
    }
    blocks.sort_by(|one, other| (&one.0, one.1, &one.2).cmp(&(&other.0, other.1, &other.2)));
    for (_, is_virtual, _, routes) in &blocks {
        let answer = match is_virtual {
            false => reference(routes, port, client, request),
            true => first(&routes[0], port, request),
        };
        if let Some(rule) = decided(answer) {
            return rule;
        }
    }
    if any { "404".to_owned() } else { "default".to_owned() }
}

/// The first rule of a virtual service with a match, of those for this port.
fn first(route: &Route, port: u16, request: &Parts) -> String {
    let Rules::Http(rules) = &route.rules else { unreachable!("{route:?}") };
    let all = rules.iter().enumerate();
    let mut all = all
        .flat_map(|(at, rule)| rule.matches.iter().map(move |wanted| (at, wanted)))
        .filter(|(_, wanted)| wanted.port().is_none_or(|own| own == port))
        .peekable();
    if all.peek().is_none() {
        return "default".to_owned();
    }
    let fits = |wanted: &HttpMatch| {
        let (path, lower) = (request.uri.path(), request.uri.path().to_lowercase());
        let path_fits = match &wanted.path {
            PathMatch::Start { text, any_case: false } => path.find(&**text) == Some(0),
            PathMatch::Start { text, any_case: true } => {
                lower.find(&text.to_lowercase()) == Some(0)
            }
            PathMatch::Exact(text) => *path == **text,
            PathMatch::ExactAnyCase(text) => lower == text.to_lowercase(),
            PathMatch::Regex(pattern) => pattern.is_match(path.as_bytes()),
            other => unreachable!("{other:?} is of a route"),
        };
        let mut header = wanted.headers.iter();
        path_fits
            && header.all(|one| {
                let values: Vec<_> = request.headers.get_all(&one.name).iter().collect();
                values.len() == 1
                    && one.value == ValueMatch::Exact(values[0].to_str().unwrap().into())
            })
    };
    all.find(|(_, wanted)| fits(wanted))
        .map_or_else(|| "404".to_owned(), |(at, _)| format!("{} {at}", route.key.name))
}

fn any_listed() -> impl Strategy<Value = Route> {
    let path = (prop::sample::select(vec!["/", "/a", "/a/", "/ab", "/B"]), 0..6_u8);
    let path = path.prop_map(|(text, kind)| match kind {
        0 => PathMatch::Exact(text.into()),
        1 => PathMatch::ExactAnyCase(text.into()),
        2 => PathMatch::Regex(Pattern::new(&format!("{text}.?")).unwrap()),
        kind => PathMatch::Start { text: text.into(), any_case: kind == 3 },
    });
    let one = (
        path,
        prop::option::weighted(0.4, prop::sample::select(vec!["1", "2"])),
        prop::option::weighted(0.3, 80..82u16),
    );
    let one = one.prop_map(|(path, value, port)| HttpMatch {
        headers: value.map(|value| header("x", value)).into_iter().collect(),
        further: port.map(|_| Box::new(Further { port, ..Further::default() })),
        path,
        ..HttpMatch::everything()
    });
    let rules = prop::collection::vec(prop::collection::vec(one, 1..3), 1..8);
    (0..5u8, 0..3u8, rules).prop_map(|(name, created, rules)| {
        let web = sample::service_key("web", "ns");
        let rules = rules.into_iter().map(|matches| sample::rule(matches, &web)).collect();
        let mut route = sample::route(&format!("v{name}"), "ns", &web, rules);
        route.key.kind = RouteKind::Virtual;
        route.created = format!("{created}").into();
        route
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn the_table_finds_what_the_words_say(
        listed in prop::collection::vec(any_listed(), 0..5),
        sorted in prop::collection::vec(any_route(), 0..8),
        requests in prop::collection::vec(any_request(), 10),
        client in prop::sample::select(vec![None, Some("ns"), Some("ns-b")]),
        port in 80..83u16,
    ) {
        let mut routes = [listed, sorted].concat();
        routes.sort_by(|one, other| one.key.cmp(&other.key));
        routes.dedup_by(|one, other| one.key == other.key);
        let compiled = table(&routes);
        for request in &requests {
            let expected = by_the_words(&routes, port, client, request);
            prop_assert_eq!(found(&compiled, port, client, request), expected);
        }
    }
}
