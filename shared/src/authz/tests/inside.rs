//! What only a waypoint sees: how it compares, and what is decided where it cannot be seen.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::*;
use crate::mesh::ServiceKey;

/// A request, or what is known of one.
#[derive(Debug, Clone, Copy)]
struct Asked<'a> {
    method: &'a str,
    path: &'a str,
    host: &'a str,
    headers: &'a [(&'static str, &'static str)],
}

const GET: Asked<'_> = Asked { method: "GET", path: "/admin", host: "shop.example", headers: &[] };

/// Where a policy is met.
#[derive(Debug, Clone, Copy)]
enum Seen<'a> {
    Nothing,
    Bytes(Option<&'a str>),
    Request(Asked<'a>),
    /// A request whose headers are no longer known.
    Old(Asked<'a>),
}

fn gateway() -> GatewayKey {
    GatewayKey { namespace: "ns".into(), name: "waypoint".into() }
}

fn service() -> ServiceKey {
    sample::service_key("shop", "ns")
}

fn decide_at(policies: Vec<Policy>, seen: Seen<'_>) -> Result<(), Denial> {
    let target = [PolicyTarget::Service(service())];
    let attached = policies.into_iter().map(|policy| Policy {
        scope: Scope::Targets,
        targets: target.clone().into(),
        ..policy
    });
    let mesh = mesh(attached);
    let (own, asked, peer) = (gateway(), service(), PEER.parse().unwrap());
    let mut headers = HeaderMap::new();
    let request = match &seen {
        Seen::Request(asked) | Seen::Old(asked) => {
            for (name, value) in asked.headers {
                headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
            }
            let known = matches!(seen, Seen::Request(_)).then_some(&headers);
            Some(HttpFacts::new(asked.method, asked.path, asked.host, known))
        }
        _ => None,
    };
    let inside = match (&seen, &request) {
        (_, Some(request)) => Inside::Http(request),
        (Seen::Bytes(name), _) => Inside::Bytes { server_name: *name },
        _ => Inside::Unseen,
    };
    let facts = Facts {
        guarded: Guarded::Behind { gateway: &own, service: Some(&asked) },
        peer: Some(&peer),
        source_ip: IpAddr::from([10, 0, 0, 1]),
        destination_addr: SocketAddr::from(([10, 96, 0, 1], 80)),
        inside,
    };
    decide(&mesh, &facts).map(drop)
}

fn inside(one: InsideMatch) -> Match {
    Match { inside: Some(Box::new(one)), ..Match::default() }
}

/// Whether a rule matches, asked of a policy of each action: allowed by it, and denied by it.
fn both(one: InsideMatch, seen: Seen<'_>) -> (bool, bool) {
    let allow = policy("p", Action::Allow, when(inside(one.clone())));
    let deny = policy("p", Action::Deny, when(inside(one)));
    (decide_at(vec![allow], seen).is_ok(), decide_at(vec![deny], seen).is_err())
}

fn matches_request(one: InsideMatch, asked: Asked<'_>) -> bool {
    let (allows, denies) = both(one, Seen::Request(asked));
    assert_eq!(allows, denies, "a request in plain sight has one reading");
    allows
}

fn exact(text: &str) -> Vec<StringMatch> {
    vec![StringMatch::Exact(text.into())]
}

fn paths(text: &str) -> Vec<PathRule> {
    vec![PathRule::Text(StringMatch::Exact(text.into()))]
}

fn header(values: &[&str], not_values: &[&str]) -> InsideMatch {
    let list = |texts: &[&str]| texts.iter().flat_map(|text| exact(text)).collect();
    let (values, not_values) = (list(values), list(not_values));
    let name = HeaderName::from_static("x-role");
    InsideMatch { header: Some(HeaderRule { name, values, not_values }), ..InsideMatch::default() }
}

#[test]
fn methods_paths_and_hosts_compare() {
    let methods = |text| InsideMatch { methods: exact(text), ..InsideMatch::default() };
    assert!(matches_request(methods("GET"), GET) && !matches_request(methods("get"), GET));
    let path = |text| InsideMatch { paths: paths(text), ..InsideMatch::default() };
    assert!(matches_request(path("/admin"), GET) && !matches_request(path("/admin/"), GET));
    let template = PathRule::Template("/{*}".parse().unwrap());
    assert!(matches_request(InsideMatch { paths: vec![template], ..InsideMatch::default() }, GET));
    let host = |text| InsideMatch { hosts: exact(text), ..InsideMatch::default() };
    assert!(matches_request(host("shop.example"), Asked { host: "Shop.EXAMPLE.", ..GET }));
    assert!(!matches_request(host("shop.example"), Asked { host: "shop.example:80", ..GET }));
    let not = InsideMatch { methods: exact("GET"), not_paths: paths("/admin"), ..methods("GET") };
    assert!(!matches_request(not.clone(), GET));
    assert!(matches_request(not, Asked { path: "/", ..GET }));
}

#[test]
fn a_header_that_is_sent_twice_is_read_for_the_safe_side() {
    let twice = &[("x-role", "admin"), ("x-role", "guest")];
    let seen = Seen::Request(Asked { headers: twice, ..GET });
    assert_eq!(both(header(&["admin"], &[]), seen), (false, true));
    assert_eq!(both(header(&[], &["guest"]), seen), (false, true));
    assert_eq!(both(header(&["admin", "guest"], &[]), seen), (true, true));
    let once = |text| Seen::Request(Asked { headers: text, ..GET });
    assert_eq!(both(header(&["admin"], &[]), once(&[("x-role", "admin")])), (true, true));
    assert_eq!(both(header(&["admin"], &[]), once(&[])), (false, false));
    assert_eq!(both(header(&[], &["guest"]), once(&[])), (true, true));
}

#[test]
fn what_cannot_be_seen_neither_allows_nor_keeps_from_denying() {
    let http = InsideMatch { paths: paths("/admin"), ..InsideMatch::default() };
    let not_http = InsideMatch { not_paths: paths("/"), ..InsideMatch::default() };
    let name = InsideMatch { server_names: exact("shop.example"), ..InsideMatch::default() };
    let token = InsideMatch { unseen: true, ..InsideMatch::default() };
    let (bytes, old) = (Seen::Bytes(None), Seen::Old(GET));
    for (what, seen) in [
        (&http, Seen::Nothing),
        (&http, bytes),
        (&not_http, bytes),
        (&name, Seen::Nothing),
        (&token, Seen::Nothing),
        (&token, Seen::Request(GET)),
        (&header(&["admin"], &[]), old),
        (&header(&[], &["admin"]), old),
    ] {
        assert_eq!(both(what.clone(), seen), (false, true), "{what:?} in {seen:?}");
    }
    assert_eq!(both(http, old), (true, true), "the path of an old request is still known");
}

#[test]
fn server_names_are_those_of_tls_inside() {
    let rule = || InsideMatch { server_names: exact("shop.example"), ..InsideMatch::default() };
    assert_eq!(both(rule(), Seen::Bytes(Some("shop.example"))), (true, true));
    for seen in [Seen::Bytes(Some("other")), Seen::Bytes(None), Seen::Request(GET)] {
        assert_eq!(both(rule(), seen), (false, false), "{seen:?}");
    }
}

#[test]
fn one_alternative_that_is_hidden_keeps_the_rule_from_allowing() {
    let port = Match { destination_ports: vec![80], ..Match::default() };
    let http = inside(InsideMatch { paths: paths("/admin"), ..InsideMatch::default() });
    let groups = vec![Group { rules: vec![Rule { matches: vec![port, http] }] }];
    let allow = || vec![policy("p", Action::Allow, groups.clone())];
    assert_eq!(decide_at(allow(), Seen::Bytes(None)), Err(Denial::NotAllowed));
    assert_eq!(decide_at(allow(), Seen::Request(Asked { path: "/", ..GET })), Ok(()));
}

#[test]
fn an_audit_marks_and_changes_nothing() {
    let audit = policy("p", Action::Audit, vec![Group::default()]);
    assert_eq!(decide_at(vec![audit], Seen::Request(GET)), Ok(()));
}

fn any_text() -> impl Strategy<Value = StringMatch> {
    let kinds = prop::sample::select(vec!["GET", "/admin", "shop.example", "admin", "x"]);
    (0..4u8, kinds).prop_map(|(kind, text)| match kind {
        0 => StringMatch::Exact(text.into()),
        1 => StringMatch::Prefix(text[..1].into()),
        2 => StringMatch::Suffix(text[text.len() - 1..].into()),
        _ => StringMatch::Presence,
    })
}

fn any_inside() -> impl Strategy<Value = InsideMatch> {
    let some = || prop::collection::vec(any_text(), 0..2);
    let lists = (some(), some(), some(), some(), some(), some());
    let header = prop::option::of((some(), some()));
    (lists, header, prop::bool::weighted(0.1)).prop_map(|(lists, header, unseen)| {
        let (hosts, not_hosts, methods, not_methods, paths, server_names) = lists;
        let name = HeaderName::from_static("x-role");
        InsideMatch {
            hosts,
            not_hosts,
            methods,
            not_methods,
            paths: paths.into_iter().map(PathRule::Text).collect(),
            header: header.map(|(values, not_values)| HeaderRule { name, values, not_values }),
            server_names,
            unseen,
            ..InsideMatch::default()
        }
    })
}

fn any_policies() -> impl Strategy<Value = Vec<(bool, Vec<InsideMatch>)>> {
    prop::collection::vec((any::<bool>(), prop::collection::vec(any_inside(), 1..3)), 0..4)
}

fn policies(parts: &[(bool, Vec<InsideMatch>)]) -> Vec<Policy> {
    let numbered = parts.iter().enumerate().map(|(number, (deny, all))| {
        let matches = all.iter().cloned().map(inside).collect();
        let groups = vec![Group { rules: vec![Rule { matches }] }];
        let action = if *deny { Action::Deny } else { Action::Allow };
        policy(&format!("p{number}"), action, groups)
    });
    numbered.collect()
}

proptest! {
    /// Whoever sees less decides no weaker.
    #[test]
    fn what_is_allowed_unseen_is_allowed_seen(
        parts in any_policies(),
        twice in any::<bool>(),
    ) {
        let headers: &[_] = if twice { &[("x-role", "admin"), ("x-role", "x")] } else { &[("x-role", "x")] };
        let asked = Asked { headers, ..GET };
        let seen = decide_at(policies(&parts), Seen::Request(asked)).is_ok();
        for less in [Seen::Nothing, Seen::Old(asked)] {
            prop_assert!(seen || decide_at(policies(&parts), less).is_err(), "{:?}", less);
        }
    }

    #[test]
    fn order_of_policies_does_not_matter(parts in any_policies()) {
        let mut backward = parts.clone();
        backward.reverse();
        let seen = Seen::Request(GET);
        prop_assert_eq!(
            decide_at(policies(&parts), seen).is_ok(),
            decide_at(policies(&backward), seen).is_ok()
        );
    }

    #[test]
    fn deny_wins(parts in any_policies()) {
        let mut all = policies(&parts);
        all.push(policy("deny", Action::Deny, vec![Group::default()]));
        prop_assert!(matches!(decide_at(all, Seen::Request(GET)), Err(Denial::Explicit(_))));
    }
}
