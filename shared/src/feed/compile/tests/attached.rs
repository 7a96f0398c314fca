//! Policies that are attached to what a waypoint serves.

use super::*;
use crate::authz::{Action, Group, PolicyTarget, Scope};

const WAYPOINT: &str = "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: \
    wp, namespace: team}\nspec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: \
    15008, protocol: HBONE}]}\n---\n";

fn world() -> String {
    WAYPOINT.to_owned()
        + &service("shop", "istio.io/use-waypoint: wp", "clusterIP: 10.96.0.1, ports: [{port: 80}]")
}

fn attached(namespace: &str, target: &str, rest: &str) -> String {
    let spec = format!("targetRefs: [{{{target}}}], {rest}");
    security("AuthorizationPolicy", "p", namespace, &spec)
}

const SHOP: &str = "group: '', kind: Service, name: shop";

fn policy(compiled: &Compiled) -> &Policy {
    compiled.policies.values().next().unwrap()
}

#[test]
fn a_policy_is_attached_to_what_it_names() {
    let gateway = "gateway.networking.k8s.io";
    for (namespace, target, expected) in [
        ("team", SHOP.to_owned(), "Service"),
        ("team", format!("group: {gateway}, kind: Gateway, name: wp"), "Gateway"),
        (
            "istio-system",
            format!("group: {gateway}, kind: GatewayClass, name: istio-waypoint"),
            "Waypoints",
        ),
    ] {
        let compiled = clean(&(world() + &attached(namespace, &target, "rules: [{}]")));
        let policy = policy(&compiled);
        assert_eq!(policy.scope, Scope::Targets);
        let found = match &policy.targets[..] {
            [PolicyTarget::Service(key)] if &*key.hostname == "shop.team.svc.cluster.local" => {
                "Service"
            }
            [PolicyTarget::Gateway(key)] if &*key.name == "wp" => "Gateway",
            [PolicyTarget::Waypoints] => "Waypoints",
            _ => "something else",
        };
        assert_eq!(found, expected);
    }
}

#[test]
fn a_service_entry_stands_for_its_hosts() {
    let entry = doc(
        "networking.istio.io/v1",
        "ServiceEntry",
        "name: ext, namespace: team, labels: {istio.io/use-waypoint: wp}",
        "spec: {hosts: [a.example, b.example], addresses: [192.0.2.1], location: MESH_EXTERNAL, \
         resolution: STATIC, ports: [{number: 80, name: http, protocol: HTTP}]}",
    );
    let target = "group: networking.istio.io, kind: ServiceEntry, name: ext";
    let compiled = clean(&(world() + &entry + &attached("team", target, "rules: [{}]")));
    let hosts: Vec<_> =
        policy(&compiled).targets.iter().map(|target| format!("{target:?}")).collect();
    assert!(hosts.len() == 2 && hosts[1].contains("b.example"), "{hosts:?}");
}

#[test]
fn everything_that_http_can_say_is_read_without_remark() {
    let rules = "rules: [{from: [{source: {principals: ['*/sa/web'], notNamespaces: [x]}}], to: \
        [{operation: {hosts: ['Shop.example', 'shop.example:*'], methods: [GET, HEAD], paths: \
        ['/a/{*}/b/{**}', '/c*', '*.html'], notPaths: ['/c/%2f'], ports: ['80']}}], when: [{key: \
        'request.headers[x-role]', values: [admin]}, {key: connection.sni, notValues: ['*.example']}, \
        {key: source.trustDomain, values: [cluster.local]}, {key: destination.ip, values: \
        [10.96.0.0/16]}]}]";
    for action in ["ALLOW", "DENY", "AUDIT"] {
        let rest = format!("action: {action}, {rules}");
        let compiled = clean(&(world() + &attached("team", SHOP, &rest)));
        let shown = format!("{:?}", policy(&compiled));
        for part in ["shop.example", "Template", "x-role", "%2F", "cluster.local/"] {
            assert!(shown.contains(part), "{part} in {shown}");
        }
    }
}

#[test]
fn what_needs_a_token_allows_nothing_and_denies_without_it() {
    for rule in [
        "from: [{source: {requestPrincipals: ['*']}}]",
        "from: [{source: {remoteIpBlocks: [10.0.0.0/8]}}]",
        "when: [{key: 'request.auth.claims[group]', values: [admin]}]",
        "when: [{key: remote.ip, values: [10.0.0.0/8]}]",
    ] {
        for action in ["ALLOW", "DENY"] {
            let rest = format!("action: {action}, rules: [{{{rule}}}]");
            let compiled = compile(&(world() + &attached("team", SHOP, &rest)));
            let policy = policy(&compiled);
            let unseen = policy.groups[0].rules[0].matches[0].inside.as_ref().unwrap().unseen;
            assert!(unseen, "{rule}");
            let verdict = &compiled.verdicts[0];
            assert_eq!((verdict.cause, verdict.in_force), (Cause::Unsupported, false), "{rule}");
            let says = ["the rule allows nothing", "as if it were not written"];
            assert!(verdict.reason.contains(says[usize::from(action == "DENY")]), "{verdict:?}");
        }
    }
}

#[test]
fn what_is_not_understood_denies_what_its_targets_are() {
    for rest in [
        "action: CUSTOM, provider: {name: x}, rules: [{}]",
        "selector: {matchLabels: {app: shop}}",
        "rules: [{to: [{operation: {paths: ['/a{*}']}}]}]",
        "rules: [{when: [{key: 'request.headers[x y]', values: [x]}]}]",
        "rules: [{when: [{key: 'request.headers[x]'}]}]",
        "rules: [{to: [{operation: {verbs: [GET]}}]}]",
    ] {
        let compiled = compile(&(world() + &attached("team", SHOP, rest)));
        let policy = policy(&compiled);
        assert_eq!((policy.action, policy.scope), (Action::Deny, Scope::Targets), "{rest}");
        assert_eq!(policy.groups, [Group::default()], "{rest}");
        assert!(
            compiled.verdicts.iter().any(|one| one.reason.contains("its targetRefs cover")),
            "{rest}: {:?}",
            compiled.verdicts
        );
    }
}

#[test]
fn targets_that_are_none_are_reported() {
    let gateway = "group: gateway.networking.k8s.io, kind: ";
    for (target, reason) in [
        ("kind: Service, name: gone".to_owned(), "there is no Service team/gone"),
        (format!("{gateway}Gateway, name: gone"), "there is no waypoint team/gone"),
        (format!("{gateway}GatewayClass, name: istio-waypoint"), "only a policy of namespace"),
        (format!("{SHOP}, namespace: other"), "in its own namespace only"),
        ("kind: Pod, name: x".to_owned(), "cannot be attached to a /Pod"),
        ("kind: Service".to_owned(), "must say which"),
    ] {
        let verdicts = compile(&(world() + &attached("team", &target, "rules: [{}]"))).verdicts;
        assert!(verdicts.iter().any(|one| one.reason.contains(reason)), "{target}: {verdicts:?}");
    }
    let bare = service("bare", "", "clusterIP: 10.96.0.2, ports: [{port: 80}]");
    let target = "kind: Service, name: bare";
    let verdicts = compile(&(world() + &bare + &attached("team", target, "rules: [{}]"))).verdicts;
    assert!(verdicts[0].reason.contains("nothing enforces the policy"), "{verdicts:?}");
}

#[test]
fn the_policy_of_the_documentation_has_no_remarks() {
    let page = include_str!("../../../../../docs/waypoint.md");
    let (_, policies) = page.split_once("## Who may").unwrap();
    let (_, example) = policies.split_once("```yaml\n").unwrap();
    let example = example.split_once("```").unwrap().0;
    let world =
        (world() + "\n---\n").replace("team", "shop").replace("name: shop,", "name: orders,");
    let compiled = clean(&(world + example));
    assert_eq!(compiled.policies.len(), 1);
}
