//! The laws of decisions (spec L4 §6.2 to §6.4).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::identity::SpiffeId;
use crate::mesh::{Mesh, Workload, sample, writer};

mod inside;

const PEER: &str = "spiffe://cluster.local/ns/team/sa/web";

fn policy(name: &str, action: Action, groups: Vec<Group>) -> Policy {
    let key = sample::policy_key(name, "ns");
    let targets = Box::default();
    Policy { key, scope: Scope::Namespace, targets, action, dry_run: false, groups }
}

fn when(one: Match) -> Vec<Group> {
    vec![Group { rules: vec![Rule { matches: vec![one] }] }]
}

fn principal(text: &str) -> Match {
    Match { principals: vec![StringMatch::Exact(text.into())], ..Match::default() }
}

fn web() -> Match {
    principal("cluster.local/ns/team/sa/web")
}

fn mesh(policies: impl IntoIterator<Item = Policy>) -> Arc<Mesh> {
    let (mut writer, reader) = writer();
    writer.apply(policies.into_iter().map(Into::into));
    reader.load()
}

fn decide_for(mesh: &Mesh, peer: Option<&str>, destination: &Workload) -> Result<(), Denial> {
    let peer: Option<SpiffeId> = peer.map(|peer| peer.parse().unwrap());
    let facts = Facts {
        guarded: Guarded::Workload(destination),
        peer: peer.as_ref(),
        source_ip: IpAddr::from([10, 0, 0, 1]),
        destination_addr: SocketAddr::from(([10, 0, 0, 2], 8080)),
        inside: Inside::Unseen,
    };
    decide(mesh, &facts).map(drop)
}

fn decision(policies: impl IntoIterator<Item = Policy>, peer: Option<&str>) -> Result<(), Denial> {
    decide_for(&mesh(policies), peer, &sample::workload("w", "ns"))
}

fn matches(one: Match, peer: Option<&str>) -> bool {
    decision([policy("p", Action::Deny, when(one))], peer).is_err()
}

#[test]
fn no_policy_allows() {
    assert_eq!(decision([], None), Ok(()));
}

#[test]
fn deny_wins_and_is_named() {
    let allow = policy("allow", Action::Allow, vec![Group::default()]);
    let deny = policy("deny", Action::Deny, when(web()));
    let denial = decision([allow, deny], Some(PEER)).unwrap_err();
    assert_eq!(denial, Denial::Explicit(sample::policy_key("deny", "ns")));
    assert_eq!(denial.to_string(), "explicitly denied by: ns/deny");
}

#[test]
fn what_no_allow_policy_allows_is_denied() {
    let allow = || policy("allow", Action::Allow, when(web()));
    assert_eq!(decision([allow()], Some(PEER)), Ok(()));
    let denial = decision([allow()], None).unwrap_err();
    assert_eq!(denial.to_string(), "allow policies exist, but none allowed");
    let nothing = policy("nothing", Action::Allow, Vec::new());
    assert_eq!(decision([nothing], Some(PEER)), Err(Denial::NotAllowed));
}

#[test]
fn unknown_policy_fails_closed() {
    let mut workload = sample::workload("w", "ns");
    workload.policies = [sample::policy_key("gone", "ns")].into();
    let denial = decide_for(&mesh([]), Some(PEER), &workload).unwrap_err();
    assert_eq!(denial, Denial::Unknown(sample::policy_key("gone", "ns")));
}

#[test]
fn dry_run_is_never_enforced_and_always_told() {
    let mut deny = policy("deny", Action::Deny, vec![Group::default()]);
    let mut allow = policy("allow", Action::Allow, when(web()));
    (deny.dry_run, allow.dry_run) = (true, true);
    let mesh = mesh([deny, allow]);
    let destination = sample::workload("w", "ns");
    assert_eq!(decide_for(&mesh, None, &destination), Ok(()));
    let facts = Facts {
        guarded: Guarded::Workload(&destination),
        peer: None,
        source_ip: IpAddr::from([10, 0, 0, 1]),
        destination_addr: SocketAddr::from(([10, 0, 0, 2], 8080)),
        inside: Inside::Unseen,
    };
    let told = trials(&mesh, &facts);
    assert_eq!(told, [Trial::Denies(&sample::policy_key("deny", "ns")), Trial::NoneAllows]);
}

#[test]
fn empty_parts_nest_as_specified() {
    let denies = |groups| decision([policy("p", Action::Deny, groups)], None).is_err();
    assert!(!denies(vec![]), "no groups never match");
    assert!(denies(vec![Group::default()]), "a group without rules matches everything");
    let empty_rule = Group { rules: vec![Rule::default()] };
    assert!(denies(vec![empty_rule]), "a rule without matches matches everything");
    assert!(!denies(when(Match::default())), "an empty match never matches");
}

#[test]
fn principals_compare_without_the_scheme() {
    let presence = || vec![StringMatch::Presence];
    let text = |kind: fn(Arc<str>) -> StringMatch, text: &str| Match {
        principals: vec![kind(text.into())],
        ..Match::default()
    };
    assert!(matches(web(), Some(PEER)));
    assert!(!matches(principal(PEER), Some(PEER)), "written with the scheme it never matches");
    assert!(!matches(web(), None));
    assert!(matches(text(StringMatch::Prefix, "cluster.local/ns/te"), Some(PEER)));
    assert!(matches(text(StringMatch::Suffix, "m/sa/web"), Some(PEER)));
    assert!(!matches(text(StringMatch::Prefix, "cluster.local/ns/team/sa/web2"), Some(PEER)));
    assert!(!matches(text(StringMatch::Suffix, "xcluster.local/ns/team/sa/web"), Some(PEER)));
    let no_identity = Match { not_principals: presence(), ..Match::default() };
    assert!(matches(no_identity.clone(), None) && !matches(no_identity, Some(PEER)));
    let no_namespace = Match { not_namespaces: presence(), ..Match::default() };
    assert!(matches(no_namespace.clone(), None) && !matches(no_namespace, Some(PEER)));
}

#[test]
fn addresses_ports_and_accounts_compare() {
    let account = |namespace: &str, name: &str| ServiceAccountMatch {
        namespace: namespace.into(),
        service_account: name.into(),
    };
    let own = Match { service_accounts: vec![account("team", "web")], ..Match::default() };
    assert!(matches(own.clone(), Some("spiffe://elsewhere/ns/team/sa/web")));
    assert!(!matches(own, None));
    let net = |text: &str| vec![text.parse().unwrap()];
    assert!(matches(Match { source_ips: net("10.0.0.0/24"), ..Match::default() }, None));
    assert!(!matches(Match { not_source_ips: net("10.0.0.1/32"), ..Match::default() }, None));
    assert!(matches(Match { destination_ips: net("10.0.0.2/32"), ..Match::default() }, None));
    assert!(matches(Match { destination_ports: vec![1, 8080], ..Match::default() }, None));
    let both =
        Match { destination_ports: vec![8080], source_ips: net("10.9.0.0/16"), ..Match::default() };
    assert!(!matches(both, None), "dimensions are joined by and");
}

fn any_match() -> impl Strategy<Value = Match> {
    let parts = (any::<[Option<bool>; 3]>(), any::<bool>());
    parts.prop_map(|([who, place, port], presence)| {
        let mut one = Match::default();
        if let Some(right) = who {
            one.principals = web().principals;
            if !right {
                std::mem::swap(&mut one.principals, &mut one.not_principals);
            }
        }
        if let Some(right) = place {
            one.source_ips = vec![if right { "10.0.0.0/8" } else { "11.0.0.0/8" }.parse().unwrap()];
        }
        if let Some(right) = port {
            one.not_destination_ports = vec![if right { 1 } else { 8080 }];
        }
        if presence {
            one.namespaces = vec![StringMatch::Presence];
        }
        one
    })
}

fn any_policy() -> impl Strategy<Value = (bool, Vec<Group>, bool)> {
    let rule = prop::collection::vec(any_match(), 0..3).prop_map(|matches| Rule { matches });
    let group = prop::collection::vec(rule, 0..3).prop_map(|rules| Group { rules });
    (any::<bool>(), prop::collection::vec(group, 0..3), prop::bool::weighted(0.1))
}

fn build(parts: &[(bool, Vec<Group>, bool)], names: impl Iterator<Item = usize>) -> Vec<Policy> {
    let named = parts.iter().zip(names).map(|((deny, groups, dry_run), name)| {
        let action = if *deny { Action::Deny } else { Action::Allow };
        let mut policy = policy(&format!("p{name}"), action, groups.clone());
        policy.dry_run = *dry_run;
        policy
    });
    named.collect()
}

proptest! {
    #[test]
    fn order_of_policies_does_not_matter(
        parts in prop::collection::vec(any_policy(), 0..6),
        known in any::<bool>(),
    ) {
        let peer = known.then_some(PEER);
        let forward = decision(build(&parts, 0..), peer);
        let backward = decision(build(&parts, (0..100).rev()), peer);
        prop_assert_eq!(forward.is_ok(), backward.is_ok());
    }

    #[test]
    fn a_matching_deny_policy_always_denies(
        mut parts in prop::collection::vec(any_policy(), 0..6),
        at in any::<prop::sample::Index>(),
    ) {
        parts.insert(at.index(parts.len() + 1), (true, vec![Group::default()], false));
        prop_assert!(matches!(decision(build(&parts, 0..), Some(PEER)), Err(Denial::Explicit(_))));
    }

    #[test]
    fn adding_a_deny_policy_never_opens_anything(
        mut parts in prop::collection::vec(any_policy(), 0..6),
        extra in any_policy(),
    ) {
        let before = decision(build(&parts, 0..), Some(PEER)).is_ok();
        parts.push((true, extra.1, extra.2));
        prop_assert!(before || decision(build(&parts, 0..), Some(PEER)).is_err());
    }
}
