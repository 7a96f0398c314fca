//! TLS policies, and machines that have only a name.

use super::*;
use crate::identity::TrustDomain;
use crate::identity::test_util::TestCa;
use crate::mesh::{Service, ServiceKey};
use crate::tls::BackendRoots;

const WAYPOINT: &str = "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: \
    wp, namespace: team}\nspec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: \
    15008, protocol: HBONE}]}\n---\n";

fn world() -> String {
    let ports = "clusterIP: 10.96.0.1, ports: [{name: web, port: 80}, {name: raw, port: 81}]";
    WAYPOINT.to_owned() + &service("shop", "istio.io/use-waypoint: wp", ports)
}

fn tls(name: &str, meta: &str, section: &str, validation: &str) -> String {
    let meta = format!("name: {name}, namespace: team{meta}");
    let target = format!("{{group: '', kind: Service, name: shop{section}}}");
    let spec = format!("spec: {{targetRefs: [{target}], validation: {{{validation}}}}}");
    doc("gateway.networking.k8s.io/v1", "BackendTLSPolicy", &meta, &spec)
}

fn config_map(pem: &str) -> String {
    let lines: String = pem.lines().map(|line| format!("    {line}\n")).collect();
    doc("v1", "ConfigMap", "name: ca, namespace: team", &format!("data:\n  ca.crt: |\n{lines}"))
}

const SYSTEM: &str = "hostname: a.example, wellKnownCACertificates: System";
const MAP: &str =
    "hostname: a.example, caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}]";

fn shop(compiled: &Compiled) -> &Service {
    compiled.services.values().find(|service| &*service.name == "shop").unwrap()
}

/// Who must answer at a port, or why nobody may.
fn demanded(compiled: &Compiled, port: u16) -> Result<String, String> {
    match shop(compiled).tls(port) {
        None => Err("plain".to_owned()),
        Some(Ok(terms)) => Ok(format!("{} {:?}", terms.policy, terms.server_name)),
        Some(Err(reason)) => Err(reason.to_string()),
    }
}

#[test]
fn a_policy_is_for_its_service_or_one_port_of_it() {
    let all = clean(&(world() + &tls("p", "", "", SYSTEM)));
    assert_eq!(demanded(&all, 80).unwrap(), "team/p \"a.example\"");
    assert_eq!(demanded(&all, 81).unwrap(), "team/p \"a.example\"");
    let one = clean(&(world() + &tls("p", "", ", sectionName: web", SYSTEM)));
    assert!(demanded(&one, 80).is_ok());
    assert_eq!(demanded(&one, 81), Err("plain".to_owned()));
}

#[test]
fn one_for_the_port_comes_first_then_the_oldest() {
    let text = world()
        + &tls("a", ", creationTimestamp: '2024-01-02T00:00:00Z'", "", SYSTEM)
        + &tls("b", ", creationTimestamp: '2024-01-01T00:00:00Z'", "", SYSTEM)
        + &tls("c", "", ", sectionName: raw", SYSTEM);
    let compiled = compile(&text);
    assert!(demanded(&compiled, 80).unwrap().starts_with("team/b"));
    assert!(demanded(&compiled, 81).unwrap().starts_with("team/c"));
    assert_eq!(compiled.verdicts.len(), 1);
    assert_eq!(compiled.verdicts[0].cause, Cause::Shadowed);
}

#[test]
fn authorities_come_from_a_config_map() {
    let ca = TestCa::new(&TrustDomain::default());
    let compiled = clean(&(world() + &tls("p", "", "", MAP) + &config_map(ca.root_pem())));
    let terms = shop(&compiled).tls(80).unwrap().as_ref().unwrap();
    assert!(matches!(&terms.roots, BackendRoots::Certificates(all) if all.len() == 1));
}

#[test]
fn what_cannot_be_kept_lets_nothing_through() {
    let names = "subjectAltNames: [{type: URI, hostname: a.example}]";
    let kind = MAP.replace("ConfigMap", "Secret");
    for (validation, more, reason) in [
        (MAP, String::new(), "there is no ConfigMap ca"),
        (MAP, config_map("nothing"), "holds no certificates"),
        (&*kind, String::new(), "no kind that holds authorities"),
        ("hostname: a.example", String::new(), "needs caCertificateRefs"),
        ("hostname: 10.0.0.1, wellKnownCACertificates: System", String::new(), "DNS name"),
        (&*format!("{SYSTEM}, {names}"), String::new(), "must be of type Hostname"),
        (&*format!("{SYSTEM}, insecure: true"), String::new(), "no such field here"),
    ] {
        let compiled = compile(&(world() + &tls("p", "", "", validation) + &more));
        let refused = demanded(&compiled, 80).unwrap_err();
        assert!(refused.contains(reason), "{validation}: {refused}");
        assert!(!compiled.verdicts.is_empty() && !compiled.verdicts[0].in_force);
    }
}

#[test]
fn the_hosts_of_an_entry_by_dns_are_its_endpoints() {
    let entry = |resolution: &str, more: &str| {
        let spec = format!(
            "spec: {{hosts: [a.example, '*.b.example'], addresses: [192.0.2.1], resolution: \
             {resolution}, ports: [{{number: 80, name: http, targetPort: 8080}}]{more}}}"
        );
        let meta = "name: ext, namespace: team";
        clean(&doc("networking.istio.io/v1", "ServiceEntry", meta, &spec))
    };
    let endpoints = |compiled: &Compiled| {
        let key = ServiceKey { namespace: "team".into(), hostname: "a.example".into() };
        let mesh = publish(compiled).load();
        let found = mesh.endpoints(&key);
        found.map(|(one, ports)| (one.hostname.clone(), ports[0])).collect::<Vec<_>>()
    };
    assert_eq!(endpoints(&entry("DNS", "")), [(Some("a.example".into()), (80, 8080))]);
    assert!(endpoints(&entry("STATIC", "")).is_empty());
    let more = ", endpoints: [{address: c.example}]";
    assert_eq!(endpoints(&entry("DNS", more)), [(Some("c.example".into()), (80, 8080))]);
}
