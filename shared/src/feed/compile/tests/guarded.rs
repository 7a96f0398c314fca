//! Pods that a `NetworkPolicy` selects.

use super::*;

const IN_MESH: &str = "istio.io/dataplane-mode: ambient";

fn world(policies: &str) -> Compiled {
    let web = pod("web", "labels: {app: web, tier: front}", "", "podIP: 10.0.0.1");
    let db = pod("db", "labels: {app: db}", "", "podIP: 10.0.0.2");
    compile(&(namespace(IN_MESH) + &web + &db + policies))
}

fn policy_in(namespace: &str, spec: &str) -> String {
    let meta = format!("name: guard, namespace: {namespace}");
    doc("networking.k8s.io/v1", "NetworkPolicy", &meta, &format!("spec: {spec}"))
}

/// The guarded pods of `web` and `db`.
fn guarded(compiled: &Compiled) -> Vec<&str> {
    ["db", "web"].into_iter().filter(|name| workload(compiled, name).network_guarded).collect()
}

#[test]
fn a_selector_guards_what_it_selects_and_nothing_else() {
    for (selector, expected) in [
        ("{}", &["db", "web"][..]),
        ("{matchLabels: {app: web}}", &["web"]),
        ("{matchLabels: {app: web, tier: back}}", &[]),
        ("{matchExpressions: [{key: app, operator: In, values: [db, other]}]}", &["db"]),
        ("{matchExpressions: [{key: tier, operator: NotIn, values: [front]}]}", &["db"]),
        ("{matchExpressions: [{key: tier, operator: Exists}]}", &["web"]),
        ("{matchExpressions: [{key: tier, operator: DoesNotExist}]}", &["db"]),
        ("{matchLabels: {app: web}, matchExpressions: [{key: tier, operator: DoesNotExist}]}", &[]),
    ] {
        let spec = format!("{{podSelector: {selector}, policyTypes: [Egress], egress: [{{}}]}}");
        let compiled = world(&policy_in("team", &spec));
        assert_eq!(guarded(&compiled), expected, "{selector}");
        // Its rules are reported as not ours, and nothing else is.
        let [verdict] = &compiled.verdicts[..] else { panic!("{:?}", compiled.verdicts) };
        assert_eq!((&*verdict.field, verdict.cause), ("spec", Cause::Unsupported));
    }
}

#[test]
fn a_policy_of_another_namespace_guards_nobody_here() {
    assert_eq!(guarded(&world(&policy_in("other", "{podSelector: {}}"))), [""; 0]);
    assert_eq!(guarded(&world("")), [""; 0]);
}

#[test]
fn a_policy_that_is_not_understood_guards_its_whole_namespace() {
    for spec in [
        "{podSelector: {matchLabels: {app: 1}}}",
        "{podSelector: {matchLabel: {app: none}}}",
        "{podSelector: {matchExpressions: [{key: app, operator: Like, values: [none]}]}}",
        "{podSelector: {matchExpressions: [{key: app, operator: In}]}}",
        "{podSelector: {matchExpressions: [{operator: Exists}]}}",
        "{podSelector: none}",
        "{podSelector: {matchLabels: {app: none}}, selector: all}",
        "none",
        "{}",
    ] {
        assert_eq!(guarded(&world(&policy_in("team", spec))), ["db", "web"], "{spec}");
    }
    let strange = policy_in("team", "{podSelector: {matchLabels: {app: web}}}")
        .replace("networking.k8s.io/v1", "networking.k8s.io/v2");
    assert_eq!(guarded(&world(&strange)), ["web"], "a version that is not known still counts");
}
