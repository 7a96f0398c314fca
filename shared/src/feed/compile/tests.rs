//! What objects mean.

use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;

use super::*;
use crate::authz::{Denial, Facts, Guarded, Inside, decide};
use crate::feed::verdict::Cause;
use crate::feed::{SourceFile, objects};
use crate::identity::SpiffeId;
use crate::mesh::{
    BalancingMode, GatewayDestination, Health, IpFamilies, NetworkMode, Protocol, Reader, writer,
};

mod attached;
mod guarded;
mod limited;
mod secured;

fn compile(text: &str) -> Compiled {
    let options = Options { node: Some("n1".into()), ..Options::default() };
    objects(&[SourceFile { path: "mesh.yaml".into(), text: text.into() }], &options)
}

/// Compiles what has to be in force without remark.
fn clean(text: &str) -> Compiled {
    let compiled = compile(text);
    assert_eq!(compiled.verdicts, []);
    compiled
}

fn doc(api: &str, kind: &str, meta: &str, rest: &str) -> String {
    format!("apiVersion: {api}\nkind: {kind}\nmetadata: {{{meta}}}\n{rest}\n---\n")
}

fn pod(name: &str, meta: &str, spec: &str, status: &str) -> String {
    let meta = format!("name: {name}, namespace: team, {meta}");
    let rest =
        format!("spec: {{serviceAccountName: {name}, nodeName: n1, {spec}}}\nstatus: {{{status}}}");
    doc("v1", "Pod", &meta, &rest)
}

fn namespace(labels: &str) -> String {
    doc("v1", "Namespace", &format!("name: team, labels: {{{labels}}}"), "")
}

fn service(name: &str, labels: &str, spec: &str) -> String {
    let meta = format!("name: {name}, namespace: team, labels: {{{labels}}}");
    doc("v1", "Service", &meta, &format!("spec: {{{spec}}}"))
}

fn security(kind: &str, name: &str, namespace: &str, spec: &str) -> String {
    let meta = format!("name: {name}, namespace: {namespace}");
    doc("security.istio.io/v1", kind, &meta, &format!("spec: {{{spec}}}"))
}

fn workload<'a>(compiled: &'a Compiled, name: &str) -> &'a Workload {
    compiled.workloads.values().find(|workload| *workload.name == *name).unwrap()
}

fn publish(compiled: &Compiled) -> Reader {
    let (mut writer, reader) = writer();
    writer.apply(compiled.changes(writer.mesh()));
    assert_eq!(compiled.changes(writer.mesh()), [], "the difference to itself is nothing");
    reader
}

/// Whether `peer` may connect to a port of the pod.
fn decision(text: &str, pod: &str, peer: Option<&str>, port: u16) -> Result<(), Denial> {
    let compiled = compile(text);
    let mesh = publish(&compiled).load();
    let peer: Option<SpiffeId> =
        peer.map(|name| format!("spiffe://cluster.local/ns/team/sa/{name}").parse().unwrap());
    let facts = Facts {
        guarded: Guarded::Workload(mesh.workload(&workload(&compiled, pod).uid).unwrap()),
        peer: peer.as_ref(),
        source_ip: IpAddr::from([10, 0, 0, 9]),
        destination_addr: SocketAddr::from(([10, 0, 0, 1], port)),
        inside: Inside::Unseen,
    };
    decide(&mesh, &facts).map(drop)
}

#[test]
fn pods_enrol_by_namespace_and_opt_out_themselves() {
    let ambient = "labels: {istio.io/dataplane-mode: ambient}";
    let text = namespace("istio.io/dataplane-mode: ambient")
        + &pod("in", "", "", "podIP: 10.0.0.1")
        + &pod("out", "labels: {istio.io/dataplane-mode: none}", "", "podIP: 10.0.0.2")
        + &pod("host", "", "hostNetwork: true", "podIP: 192.168.0.1")
        + &pod("other", "annotations: {sidecar.istio.io/status: x}", "", "podIP: 10.0.0.3");
    let compiled = clean(&text);
    let protocol = |name: &str| workload(&compiled, name).protocol;
    assert_eq!(protocol("in"), Protocol::Hbone);
    assert_eq!(["out", "host", "other"].map(protocol), [Protocol::Tcp; 3]);
    assert_eq!(workload(&compiled, "host").network_mode, NetworkMode::HostNetwork);
    let alone = clean(&pod("in", ambient, "", "podIP: 10.0.0.1"));
    assert_eq!(workload(&alone, "in").protocol, Protocol::Hbone);
}

#[test]
fn pod_says_all_that_its_proxy_needs() {
    let meta = "labels: {istio.io/dataplane-mode: ambient, app: shop, version: v2}, annotations: \
                {culvert.dev/netns: /run/netns/web, ambient.istio.io/bypass-inbound-capture: 'true', \
                culvert.dev/require-waypoint: 'true'}";
    let status = "podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}, {ip: 'fd00::1'}]";
    let compiled = clean(&pod("web", meta, "", status));
    let workload = workload(&compiled, "web");
    assert_eq!(workload.uid.to_string(), "Kubernetes//Pod/team/web");
    assert_eq!(workload.addresses.len(), 2);
    assert_eq!(workload.identity.to_string(), "spiffe://cluster.local/ns/team/sa/web");
    assert_eq!((&*workload.canonical_name, &*workload.canonical_revision), ("shop", "v2"));
    assert!(workload.require_waypoint);
    let local = &compiled.local_pods[0];
    assert_eq!(local.netns.as_deref(), Some("/run/netns/web".as_ref()));
    assert!(local.enrolled && local.bypass_inbound);
    assert_eq!(local.uid, workload.uid);
}

#[test]
fn ended_pods_are_absent_and_unready_ones_unhealthy() {
    let unready = "conditions: [{type: Ready, status: 'False', lastProbeTime: null}]";
    let compiled = clean(
        &(pod("ended", "", "", "podIP: 10.0.0.1, phase: Succeeded")
            + &pod("heir", "", "", "podIP: 10.0.0.1")
            + &pod("waiting", "", "", "phase: Pending")
            + &pod("unready", "", "", &format!("podIP: 10.0.0.2, {unready}"))
            + &pod("leaving", "deletionTimestamp: '2026-01-01T00:00:00Z'", "", "podIP: 10.0.0.3")),
    );
    let health = |name: &str| workload(&compiled, name).health;
    assert_eq!(health("heir"), Health::Healthy);
    assert_eq!([health("unready"), health("leaving")], [Health::Unhealthy; 2]);
    assert_eq!(compiled.workloads.len(), 3);
}

#[test]
fn endpoints_come_from_the_selector_with_named_ports() {
    let ports = "containers: [{name: c, ports: [{name: web, containerPort: 8080}]}]";
    let text = service(
        "web",
        "",
        "clusterIP: 10.1.0.1, clusterIPs: [10.1.0.1, 'fd01::1'], ipFamilies: [IPv4, IPv6], \
         selector: {app: web}, ports: [{name: http, port: 80, targetPort: web}, {name: raw, port: 81}]",
    ) + &pod("a", "labels: {app: web}", ports, "podIP: 10.0.0.1")
        + &pod("b", "labels: {app: web}", "", "podIP: 10.0.0.2")
        + &pod("c", "labels: {app: other}", "", "podIP: 10.0.0.3");
    let compiled = clean(&text);
    let ports = |name: &str| workload(&compiled, name).services.first().map(|one| one.1.to_vec());
    assert_eq!(ports("a"), Some(vec![(80, 8080), (81, 81)]));
    assert_eq!(ports("b"), Some(vec![(81, 81)]), "it has no port of that name");
    assert_eq!(ports("c"), None);
    let service = compiled.services.values().next().unwrap();
    assert_eq!((service.vips.len(), service.ip_families), (2, IpFamilies::Dual));
    assert_eq!(service.ports[0].target_port, None);
}

#[test]
fn slices_replace_the_selector_and_know_readiness() {
    let slice = doc(
        "discovery.k8s.io/v1",
        "EndpointSlice",
        "name: web-1, namespace: team, labels: {kubernetes.io/service-name: web}",
        "addressType: IPv4\nports: [{name: http, port: 8080, protocol: TCP}]\nendpoints:\n\
         - {addresses: [10.0.0.1], conditions: {ready: true}, targetRef: {kind: Pod, name: a, namespace: team}}\n\
         - {addresses: [10.0.0.2], conditions: {ready: false}, targetRef: {kind: Pod, name: b, namespace: team}}\n\
         - {addresses: [192.0.2.1]}",
    );
    let text = service("web", "", "selector: {app: web}, ports: [{name: http, port: 80}]")
        + &slice
        + &pod("a", "", "", "podIP: 10.0.0.1")
        + &pod("b", "labels: {app: web}", "", "podIP: 10.0.0.2");
    let compiled = clean(&text);
    let mesh = publish(&compiled).load();
    let key = compiled.services.keys().next().unwrap();
    let endpoints: Vec<_> =
        mesh.endpoints(key).map(|(one, ports)| (one.name.to_string(), ports[0])).collect();
    assert_eq!(endpoints, [("a".into(), (80, 8080)), ("192.0.2.1".into(), (80, 8080))]);
}

#[test]
fn traffic_policies_become_balancing() {
    let balancing = |spec: &str| {
        let compiled = clean(&service("web", "", &format!("ports: [{{port: 80}}], {spec}")));
        let service = compiled.services.values().next().unwrap();
        service.balancing.clone().map(|one| (one.mode, one.routing_preferences.len()))
    };
    assert_eq!(balancing("clusterIP: None"), None);
    assert_eq!(balancing("internalTrafficPolicy: Local"), Some((BalancingMode::Strict, 1)));
    assert_eq!(balancing("trafficDistribution: PreferClose"), Some((BalancingMode::Failover, 3)));
    assert_eq!(
        balancing("trafficDistribution: PreferSameNode"),
        Some((BalancingMode::Failover, 5))
    );
}

#[test]
fn udp_ports_are_reported() {
    let compiled = compile(&service("dns", "", "ports: [{port: 53, protocol: UDP}]"));
    let verdict = &compiled.verdicts[0];
    assert_eq!((&*verdict.field, verdict.cause), ("spec.ports[0].protocol", Cause::Unsupported));
}

fn waypoint(labels: &str, status: &str) -> String {
    doc(
        "gateway.networking.k8s.io/v1",
        "Gateway",
        &format!("name: wp, namespace: team, labels: {{{labels}}}"),
        &format!(
            "spec: {{gatewayClassName: istio-waypoint, listeners: [{{name: mesh, port: 15008, \
             protocol: HBONE}}]}}\nstatus: {{{status}}}"
        ),
    )
}

#[test]
fn waypoint_of_the_namespace_takes_services_and_can_be_opted_out_of() {
    let text = namespace("istio.io/use-waypoint: wp")
        + &waypoint("", "addresses: [{type: IPAddress, value: 10.1.0.9}]")
        + &service("web", "", "ports: [{port: 80}]")
        + &service("free", "istio.io/use-waypoint: none", "ports: [{port: 80}]")
        + &service("wp", "", "ports: [{port: 15008}]")
        + &pod("a", "", "", "podIP: 10.0.0.1")
        + &pod(
            "wp-0",
            "labels: {gateway.networking.k8s.io/gateway-name: wp}",
            "",
            "podIP: 10.0.0.2",
        );
    let compiled = clean(&text);
    let has = |name: &str| {
        compiled.services.values().find(|one| *one.name == *name).unwrap().waypoint.is_some()
    };
    assert_eq!(["web", "free", "wp"].map(has), [true, false, false]);
    assert!(workload(&compiled, "a").waypoint.is_none(), "waypoints are for services by default");
}

#[test]
fn waypoint_for_workloads_is_required_by_their_inbound_side() {
    let text = waypoint("istio.io/waypoint-for: all", "addresses: [{type: Hostname, value: wp.x}]")
        + &pod("a", "labels: {istio.io/use-waypoint: wp}", "", "podIP: 10.0.0.1");
    let compiled = clean(&text);
    let workload = workload(&compiled, "a");
    assert!(workload.require_waypoint);
    let destination = &workload.waypoint.as_ref().unwrap().destination;
    assert!(matches!(destination, GatewayDestination::Hostname(key) if *key.hostname == *"wp.x"));
}

#[test]
fn missing_waypoint_is_reported_and_not_bypassed() {
    let compiled = compile(&service("web", "istio.io/use-waypoint: gone", "ports: [{port: 80}]"));
    assert!(compiled.services.values().next().unwrap().waypoint.is_some());
    assert!(compiled.verdicts[0].reason.contains("there is no waypoint team/gone"));
}

#[test]
fn authorization_policy_decides_by_identity_address_and_port() {
    let allow = security(
        "AuthorizationPolicy",
        "allow",
        "team",
        "selector: {matchLabels: {app: db}}, action: ALLOW, rules: [{from: [{source: {principals: \
         [cluster.local/ns/team/sa/web], ipBlocks: [10.0.0.0/24]}}], to: [{operation: {ports: ['5432']}}]}]",
    );
    let text = allow
        + &pod("db", "labels: {app: db}", "", "podIP: 10.0.0.1")
        + &pod("free", "", "", "podIP: 10.0.0.2");
    assert_eq!(compile(&text).verdicts, []);
    assert_eq!(decision(&text, "db", Some("web"), 5432), Ok(()));
    assert_eq!(decision(&text, "db", Some("web"), 80), Err(Denial::NotAllowed));
    assert_eq!(decision(&text, "db", Some("api"), 5432), Err(Denial::NotAllowed));
    assert_eq!(decision(&text, "free", None, 80), Ok(()));
}

#[test]
fn policy_of_the_root_namespace_is_for_the_whole_mesh() {
    let spec = "action: DENY, rules: [{from: [{source: {namespaces: [team]}}]}]";
    let text = security("AuthorizationPolicy", "wide", "istio-system", spec)
        + &pod("a", "", "", "podIP: 10.0.0.1");
    assert!(matches!(decision(&text, "a", Some("x"), 80), Err(Denial::Explicit(_))));
    assert_eq!(decision(&text, "a", None, 80), Ok(()));
}

#[test]
fn http_rules_allow_nothing_and_deny_by_what_is_left() {
    let pod = pod("a", "", "", "podIP: 10.0.0.1");
    let http = "rules: [{to: [{operation: {methods: [GET], ports: ['80']}}]}]";
    let allow = security("AuthorizationPolicy", "p", "team", http) + &pod;
    assert_eq!(decision(&allow, "a", None, 80), Err(Denial::NotAllowed));
    let deny =
        security("AuthorizationPolicy", "p", "team", &format!("action: DENY, {http}")) + &pod;
    assert!(decision(&deny, "a", None, 80).is_err());
    assert_eq!(decision(&deny, "a", None, 81), Ok(()));
    assert!(compile(&deny).verdicts[0].reason.contains("waypoint"));
}

#[test]
fn a_rule_that_denies_by_http_alone_denies_where_http_is_not_seen() {
    let spec = "action: DENY, rules: [{to: [{operation: {paths: [/admin]}}]}]";
    let text =
        security("AuthorizationPolicy", "p", "team", spec) + &pod("a", "", "", "podIP: 10.0.0.1");
    assert!(matches!(decision(&text, "a", Some("web"), 80), Err(Denial::Explicit(_))));
    assert!(compile(&text).verdicts[0].reason.contains("as if it were not written"));
}

#[test]
fn policy_that_is_not_understood_denies_what_it_covers() {
    let pods =
        pod("a", "labels: {app: a}", "", "podIP: 10.0.0.1") + &pod("b", "", "", "podIP: 10.0.0.2");
    for spec in [
        "rules: [{from: [{source: {namespace: [team]}}]}]",
        "rules: [{from: [{source: {ipBlocks: [10.0.0.0/33]}}]}]",
        "rules: [{to: [{operation: {ports: [http]}}]}]",
        "rules: [{from: [{source: {}}]}]",
        "rules: [{when: [{key: source.age, values: [x]}]}]",
        "rules: {}",
        "action: CUSTOM, provider: {name: x}",
        "action: DENY, rules: [{from: [{source: {principals: ['spiffe://td/ns/a/sa/b']}}]}]",
        "action: DENI",
    ] {
        let spec = format!("selector: {{matchLabels: {{app: a}}}}, {spec}");
        let text = security("AuthorizationPolicy", "p", "team", &spec) + &pods;
        assert!(
            matches!(decision(&text, "a", Some("web"), 80), Err(Denial::Explicit(_))),
            "{spec}"
        );
        assert_eq!(decision(&text, "b", Some("web"), 80), Ok(()), "{spec}");
        let verdicts = compile(&text).verdicts;
        assert!(
            verdicts.iter().any(|one| one.reason.contains("denies every connection")),
            "{spec}"
        );
    }
}

#[test]
fn strict_peer_authentication_denies_plaintext() {
    let pods =
        pod("a", "labels: {app: a}", "", "podIP: 10.0.0.1") + &pod("b", "", "", "podIP: 10.0.0.2");
    let strict = security("PeerAuthentication", "default", "team", "mtls: {mode: STRICT}");
    assert!(decision(&(strict.clone() + &pods), "a", None, 80).is_err());
    assert_eq!(decision(&(strict.clone() + &pods), "a", Some("web"), 80), Ok(()));
    let open_port = security(
        "PeerAuthentication",
        "a",
        "team",
        "selector: {matchLabels: {app: a}}, portLevelMtls: {8080: {mode: PERMISSIVE}}",
    );
    let text = strict + &open_port + &pods;
    assert_eq!(decision(&text, "a", None, 8080), Ok(()));
    assert!(decision(&text, "a", None, 80).is_err());
    assert!(decision(&text, "b", None, 8080).is_err());
}

#[test]
fn permissive_with_a_strict_port_denies_plaintext_there_only() {
    let text = security(
        "PeerAuthentication",
        "a",
        "team",
        "selector: {matchLabels: {app: a}}, mtls: {mode: PERMISSIVE}, portLevelMtls: {8080: {mode: STRICT}}",
    ) + &pod("a", "labels: {app: a}", "", "podIP: 10.0.0.1");
    assert_eq!(decision(&text, "a", None, 80), Ok(()));
    assert!(decision(&text, "a", None, 8080).is_err());
    assert_eq!(decision(&text, "a", Some("web"), 8080), Ok(()));
}

#[test]
fn unknown_mode_is_taken_as_strict() {
    let text = security("PeerAuthentication", "p", "team", "mtls: {mode: STRIKT}")
        + &pod("a", "", "", "podIP: 10.0.0.1");
    assert!(decision(&text, "a", None, 80).is_err());
    assert_eq!(compile(&text).verdicts[0].cause, Cause::Invalid);
}

#[test]
fn node_labels_give_locality() {
    let labels = "topology.kubernetes.io/region: r1, topology.kubernetes.io/zone: z1";
    let text = doc("v1", "Node", &format!("name: n1, labels: {{{labels}}}"), "")
        + &pod("a", "", "", "podIP: 10.0.0.1");
    assert_eq!(&*workload(&clean(&text), "a").locality.zone, "z1");
}

#[test]
fn service_entry_has_ranges_and_machines() {
    let text = doc(
        "networking.istio.io/v1",
        "ServiceEntry",
        "name: ext, namespace: team",
        "spec: {hosts: [db.example.com], addresses: [192.0.2.0/24, 198.51.100.1], location: \
         MESH_EXTERNAL, resolution: STATIC, ports: [{number: 5432, name: tcp, protocol: TCP}], \
         endpoints: [{address: 203.0.113.1, ports: {tcp: 15432}}]}",
    );
    let compiled = clean(&text);
    let mesh = publish(&compiled).load();
    let service = mesh.service_by_vip("", "192.0.2.7".parse().unwrap(), Some("x")).unwrap();
    assert_eq!(&*service.key.hostname, "db.example.com");
    let (endpoint, ports) = mesh.endpoints(&service.key).next().unwrap();
    assert_eq!(
        (&*endpoint.addresses, ports[0]),
        (&["203.0.113.1".parse().unwrap()][..], (5432, 15432))
    );
}

#[test]
fn labels_that_look_like_ours_and_do_nothing_are_reported() {
    let meta = "annotations: {culvert.dev/netnss: x}, labels: {istio.io/waypoint-for: all}";
    let compiled = compile(&pod("a", meta, "", "podIP: 10.0.0.1"));
    let found: Vec<_> = compiled.verdicts.iter().map(|one| (&*one.field, one.cause)).collect();
    assert_eq!(
        found,
        [
            ("metadata.annotations[\"culvert.dev/netnss\"]", Cause::Unknown),
            ("metadata.labels[\"istio.io/waypoint-for\"]", Cause::Unsupported),
        ]
    );
}

#[test]
fn real_pod_as_a_cluster_prints_it_has_no_remarks() {
    clean(include_str!("testdata/pod.yaml"));
}

#[test]
fn example_of_the_documentation_has_no_remarks() {
    let page = include_str!("../../../../docs/mesh-directory.md");
    let (_, example) = page.split_once("```yaml\n").unwrap();
    let compiled = clean(example.split_once("```").unwrap().0);
    assert_eq!((compiled.workloads.len(), compiled.policies.len()), (1, 1));
}

/// Only waypoints and services that another seed has are missing.
#[test]
fn seeds_of_the_fuzz_target_are_good_objects() {
    for seed in ["pod", "service", "policy", "list"] {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fuzz/corpus/mesh_directory/");
        let text = std::fs::read_to_string(format!("{dir}{seed}")).unwrap();
        let verdicts = compile(&text).verdicts;
        assert!(verdicts.iter().all(|one| one.cause == Cause::Invalid), "{seed}: {verdicts:?}");
    }
}

#[test]
fn missing_waypoint_of_a_namespace_is_reported_at_the_namespace() {
    let text =
        namespace("istio.io/use-waypoint: gone") + &service("web", "", "ports: [{port: 80}]");
    let compiled = compile(&text);
    assert_eq!(&*compiled.verdicts[0].object, "Namespace/team");
    assert!(compiled.services.values().next().unwrap().waypoint.is_some());
}

#[test]
fn policy_of_an_unknown_version_is_still_enforced() {
    let text = security("AuthorizationPolicy", "p", "team", "action: DENY, rules: [{}]")
        .replace("istio.io/v1", "istio.io/v7")
        + &pod("a", "", "", "podIP: 10.0.0.1");
    assert!(decision(&text, "a", Some("web"), 80).is_err());
    assert_eq!(&*compile(&text).verdicts[0].field, "apiVersion");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    /// The fuzz target's laws, on seeds with a few pieces cut out, doubled or replaced.
    #[test]
    fn damaged_files_neither_panic_nor_differ_from_themselves(
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..24usize, ".{0,6}", any::<bool>()), 1..6),
    ) {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fuzz/corpus/mesh_directory/");
        let seeds = ["pod", "service", "policy", "list"];
        let seeds = seeds.map(|seed| std::fs::read_to_string(format!("{dir}{seed}")).unwrap());
        let mut text: Vec<char> = seeds.join("---\n").chars().collect();
        for (at, length, insert, double) in edits {
            let start = at.index(text.len());
            let end = (start + length).min(text.len());
            let cut: Vec<char> = text.splice(start..end, insert.chars()).collect();
            if double {
                text.splice(start..start, cut.iter().chain(&cut).copied());
            }
        }
        let compiled = compile(&text.into_iter().collect::<String>());
        publish(&compiled);
        prop_assert!(compiled.verdicts.iter().all(|one| !one.reason.is_empty()));
    }
}

#[test]
fn what_names_no_network_is_on_the_one_of_the_node() {
    let text = pod("web", "labels: {app: web}", "", "podIP: 10.0.0.1")
        + &pod("far", "labels: {topology.istio.io/network: other}", "", "podIP: 10.0.0.1")
        + &service("web", "", "selector: {app: web}, clusterIP: 10.96.0.1, ports: [{port: 80}]");
    let options = Options { network: "here".into(), ..Options::default() };
    let compiled = objects(&[SourceFile { path: "mesh.yaml".into(), text }], &options);
    assert_eq!(&*workload(&compiled, "web").network, "here");
    assert_eq!(&*workload(&compiled, "far").network, "other");
    let mesh = publish(&compiled).load();
    let vip = [10, 96, 0, 1].into();
    assert!(mesh.service_by_vip("here", vip, None).is_some());
    assert!(mesh.service_by_vip("", vip, None).is_none());
}
