//! Which rules a service gets, and what they say.

mod detectors;

use std::time::Duration;

use super::*;
use crate::feed::{SourceFile, objects};
use crate::mesh::{
    Balancer, Concurrency, HashKey, HashTable, LocalityPreference, Scope, Share, TrafficPolicy,
    Upgrade,
};

/// A namespace `shop` with a waypoint, a service `web` with the ports 80 and 81, and a service
/// `bare` of the namespace `other`, which no waypoint serves.
const WORLD: &str = "\
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/use-waypoint: waypoint}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: shop}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.1, ports: [{port: 80}, {port: 81}]}
---
apiVersion: v1
kind: Service
metadata: {name: bare, namespace: other}
spec: {clusterIP: 10.96.0.2, ports: [{port: 80}]}
---
";

fn rule(name: &str, namespace: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {name}, \
         namespace: {namespace}, creationTimestamp: \"2024-01-01T00:00:0{}Z\"}}\nspec: {{{spec}}}\n---\n",
        name.len()
    )
}

fn compiled(rules: &str) -> Compiled {
    let text = format!("{WORLD}{rules}");
    objects(&[SourceFile { path: "mesh.yaml".into(), text }], &Options::default())
}

fn policies(compiled: &Compiled, name: &str) -> Option<Arc<TrafficPolicies>> {
    compiled.services.values().find(|service| *service.name == *name).unwrap().traffic.clone()
}

/// The policy of port 80 of `web`.
fn policy(spec: &str) -> TrafficPolicy {
    let compiled = compiled(&rule("r", "shop", &format!("host: web, {spec}")));
    TrafficPolicy::clone(policies(&compiled, "web").unwrap().scope.of_port(80))
}

fn origin(compiled: &Compiled, name: &str) -> Option<String> {
    policies(compiled, name).map(|found| found.rules.join("+"))
}

/// Field, cause and reason of every remark.
fn remarks(compiled: &Compiled) -> Vec<(String, Cause, String)> {
    let all = compiled.verdicts.iter();
    all.map(|one| (one.field.to_string(), one.cause, one.reason.to_string())).collect()
}

#[test]
fn the_namespace_of_the_waypoint_comes_first_then_the_services_then_the_root() {
    let all =
        ["shop", "istio-system"].map(|place| rule("r", place, "host: web.shop.svc.cluster.local"));
    assert_eq!(origin(&compiled(&all.concat()), "web").as_deref(), Some("shop/r"));
    assert_eq!(origin(&compiled(&all[1]), "web").as_deref(), Some("istio-system/r"));
    // A service that another namespace's waypoint serves.
    let elsewhere = "apiVersion: v1\nkind: Service\nmetadata: {name: api, namespace: other, labels: \
        {istio.io/use-waypoint: waypoint, istio.io/use-waypoint-namespace: shop}}\nspec: {clusterIP: \
        10.96.0.3, ports: [{port: 80}]}\n---\n";
    let both = ["shop", "other"].map(|place| rule("r", place, "host: api.other.svc.cluster.local"));
    let text = [elsewhere, &both[0], &both[1]].concat();
    assert_eq!(origin(&compiled(&text), "api").as_deref(), Some("shop/r"));
    assert_eq!(
        origin(&compiled(&[elsewhere, &both[1]].concat()), "api").as_deref(),
        Some("other/r")
    );
}

#[test]
fn the_most_specific_host_wins_and_a_short_name_is_of_the_rules_namespace() {
    let hosts = ["'*'", "'*.svc.cluster.local'", "'*.shop.svc.cluster.local'", "web"];
    let mut text = String::new();
    for (at, host) in hosts.iter().enumerate() {
        text.push_str(&rule(&format!("r{at}"), "shop", &format!("host: {host}")));
        assert_eq!(origin(&compiled(&text), "web"), Some(format!("shop/r{at}")), "{host}");
    }
    assert_eq!(
        origin(&compiled(&rule("r", "shop", "host: '*.web.shop.svc.cluster.local'")), "web"),
        None
    );
    assert_eq!(origin(&compiled(&rule("r", "other", "host: web")), "web"), None);
}

#[test]
fn a_rule_counts_for_those_that_it_is_exported_to() {
    let host = "host: web.shop.svc.cluster.local";
    for (export, seen) in [("'*'", true), (".", false), ("shop", true), ("elsewhere", false)] {
        let text = rule("r", "istio-system", &format!("{host}, exportTo: [{export}]"));
        assert_eq!(policies(&compiled(&text), "web").is_some(), seen, "{export}");
    }
}

#[test]
fn rules_for_nothing_say_why() {
    for (text, cause, said) in [
        (rule("r", "shop", "host: gone"), Cause::Invalid, "no service of host gone"),
        (rule("r", "shop", "host: '*.gone.example'"), Cause::Invalid, "no service of host"),
        (rule("r", "other", "host: bare"), Cause::Unsupported, "has no waypoint"),
        (rule("r", "third", "host: web.shop.svc.cluster.local"), Cause::Shadowed, "none of them"),
        (rule("r", "third", "host: '*.local'"), Cause::Shadowed, "none of them"),
        (rule("r", "shop", "host: 'a b'"), Cause::Invalid, "must be a host name"),
        (rule("r", "shop", "host: web, workloadSelector: {}"), Cause::Unsupported, "sidecars"),
    ] {
        let all = remarks(&compiled(&text));
        assert_eq!(all.len(), 1, "{all:?}");
        assert_eq!(all[0].1, cause, "{all:?}");
        assert!(all[0].2.contains(said), "{all:?}");
    }
}

#[test]
fn rules_of_one_host_are_one() {
    let subset = |name: &str| format!("subsets: [{{name: {name}, labels: {{version: {name}}}}}]");
    let random = "trafficPolicy: {loadBalancer: {simple: RANDOM}}";
    let older = rule("r", "shop", &format!("host: web, {}, {random}", subset("v1")));
    let younger = rule(
        "r2",
        "shop",
        "host: web, subsets: [{name: v1}, {name: v2}], trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}",
    );
    let compiled = compiled(&[younger, older].concat());
    let found = policies(&compiled, "web").unwrap();
    assert_eq!(found.rules.join("+"), "shop/r+shop/r2");
    assert_eq!(found.scope.policy.balancer, Balancer::Random);
    let names: Vec<_> = found.subsets.iter().map(|subset| &*subset.name).collect();
    assert_eq!(names, ["v1", "v2"]);
    assert_eq!(found.subsets[0].labels.len(), 1);
    assert!(found.subsets.iter().all(|one| one.scope.policy.balancer == Balancer::Random));
    let shadowed: Vec<_> = remarks(&compiled)
        .into_iter()
        .filter(|one| one.1 == Cause::Shadowed)
        .map(|one| one.0)
        .collect();
    assert_eq!(shadowed, ["spec.subsets[0]", "spec.trafficPolicy"]);
}

#[test]
fn a_port_takes_nothing_from_the_rest_and_a_subset_what_it_leaves_out() {
    let spec = "host: web, trafficPolicy: {loadBalancer: {simple: RANDOM}, connectionPool: {http: \
        {http2MaxRequests: 7}}, portLevelSettings: [{port: {number: 81}, outlierDetection: {}}]}, \
        subsets: [{name: a, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}}]";
    let found = policies(&compiled(&rule("r", "shop", spec)), "web").unwrap();
    let (wide, port) = (found.scope.of_port(80), found.scope.of_port(81));
    assert_eq!((&wide.balancer, wide.limits.requests), (&Balancer::Random, Some(7)));
    assert!(wide.outliers.is_none());
    assert_eq!((&port.balancer, port.limits.requests), (&Balancer::default(), None));
    assert!(port.outliers.is_some());
    let subset = found.subsets[0].scope.of_port(80);
    assert_eq!((&subset.balancer, subset.limits.requests), (&Balancer::RoundRobin(None), Some(7)));
    let subset = found.subsets[0].scope.of_port(81);
    assert_eq!((&subset.balancer, subset.limits.requests), (&Balancer::RoundRobin(None), None));
    assert!(subset.outliers.is_some(), "the port's, where the subset says nothing");
}

#[test]
fn a_port_of_a_subset_stands_alone_and_the_services_others_stay() {
    let spec = "host: web, trafficPolicy: {portLevelSettings: [{port: {number: 80}, loadBalancer: \
        {simple: RANDOM}}, {port: {number: 81}, outlierDetection: {}}]}, subsets: [{name: a, \
        trafficPolicy: {connectionPool: {http: {http2MaxRequests: 7}}, portLevelSettings: \
        [{port: {number: 80}, outlierDetection: {}}]}}]";
    let found = policies(&compiled(&rule("r", "shop", spec)), "web").unwrap();
    let scope = &found.subsets[0].scope;
    let (own, other) = (scope.of_port(80), scope.of_port(81));
    assert_eq!((&own.balancer, own.limits.requests), (&Balancer::default(), None));
    assert!(own.outliers.is_some() && other.outliers.is_some());
    assert_eq!((other.limits.requests, scope.of_port(82).limits.requests), (Some(7), Some(7)));
}

#[test]
fn outlier_detection_has_the_defaults_of_istio() {
    let found = policy("trafficPolicy: {outlierDetection: {}}").outliers.unwrap();
    assert_eq!((found.consecutive_5xx, found.consecutive_gateway_errors), (Some(5), None));
    assert_eq!((found.split, found.consecutive_local_failures), (false, None));
    assert_eq!(
        (found.interval, found.base_ejection),
        (Duration::from_secs(10), Duration::from_secs(30))
    );
    assert_eq!((found.max_ejection_percent, found.min_health_percent), (10, 0));
    let text = "trafficPolicy: {outlierDetection: {consecutive5xxErrors: 0, consecutiveGatewayErrors: 2, \
        splitExternalLocalOriginErrors: true, interval: 1.5s, baseEjectionTime: 1m, \
        maxEjectionPercent: 100, minHealthPercent: 40}}";
    let found = policy(text).outliers.unwrap();
    assert_eq!((found.consecutive_5xx, found.consecutive_gateway_errors), (None, Some(2)));
    assert_eq!((found.split, found.consecutive_local_failures), (true, Some(5)));
    assert_eq!(
        (found.interval, found.base_ejection),
        (Duration::from_millis(1_500), Duration::from_secs(60))
    );
    assert_eq!((found.max_ejection_percent, found.min_health_percent), (100, 40));
    // 0 is "not set" (spec L7 §3.5).
    let zero =
        policy("trafficPolicy: {outlierDetection: {maxEjectionPercent: 0}}").outliers.unwrap();
    assert_eq!(zero.max_ejection_percent, 10);
}

#[test]
fn limits_are_read_and_zero_is_none() {
    let limits = policy(
        "trafficPolicy: {connectionPool: {tcp: {maxConnections: 3, connectTimeout: 250ms, \
         maxConnectionDuration: 1h, idleTimeout: 2h}, http: {http1MaxPendingRequests: 4, http2MaxRequests: 5, \
         maxRequestsPerConnection: 6, maxRetries: 7, idleTimeout: 0s, maxConcurrentStreams: 8, \
         h2UpgradePolicy: UPGRADE}}, retryBudget: {percent: 12.5}}",
    )
    .limits;
    assert_eq!((limits.connections, limits.pending, limits.requests), (Some(3), Some(4), Some(5)));
    assert_eq!((limits.requests_per_connection, limits.retries), (Some(6), Some(7)));
    assert_eq!((limits.streams, limits.upgrade), (Some(8), Upgrade::Http2));
    assert_eq!(limits.connect_timeout, Some(Duration::from_millis(250)));
    assert_eq!(
        (limits.idle_timeout, limits.max_age),
        (Some(Duration::ZERO), Some(Duration::from_secs(3_600)))
    );
    assert_eq!(limits.stream_idle, Some(Duration::from_secs(7_200)));
    let budget = limits.retry_budget.unwrap();
    assert_eq!((budget.share, budget.least), (Share::percent(12.5).unwrap(), 3));
    let none = policy(
        "trafficPolicy: {connectionPool: {tcp: {maxConnections: 0}, http: {http2MaxRequests: 0}}}",
    );
    assert_eq!(none, TrafficPolicy::default());
}

#[test]
fn balancers_are_read() {
    let balancer =
        |text: &str| policy(&format!("trafficPolicy: {{loadBalancer: {{{text}}}}}")).balancer;
    assert_eq!(balancer("simple: LEAST_CONN"), Balancer::LeastRequest(None));
    assert_eq!(balancer("simple: RANDOM"), Balancer::Random);
    let Balancer::RoundRobin(Some(warmup)) =
        balancer("simple: ROUND_ROBIN, warmup: {duration: 5s}")
    else {
        panic!("not a warm-up");
    };
    assert_eq!(
        (warmup.duration, warmup.least.as_f64(), warmup.aggression),
        (Duration::from_secs(5), 0.1, 1_000)
    );
    let hash = |text: &str| balancer(&format!("consistentHash: {{{text}}}"));
    assert_eq!(
        hash("httpHeaderName: X-User"),
        Balancer::Hash {
            key: HashKey::Header("x-user".parse().unwrap()),
            table: HashTable::Ring(1_024)
        }
    );
    let cookie = HashKey::Cookie { name: "u".into(), path: "/a".into(), ttl: Some(Duration::ZERO) };
    assert_eq!(
        hash("httpCookie: {name: u, path: /a, ttl: 0s}, maglev: {}"),
        Balancer::Hash { key: cookie, table: HashTable::Maglev(65_537) }
    );
    assert_eq!(
        hash("useSourceIp: true, ringHash: {minimumRingSize: 64}"),
        Balancer::Hash { key: HashKey::SourceIp, table: HashTable::Ring(64) }
    );
    assert_eq!(
        hash("httpQueryParameterName: user"),
        Balancer::Hash { key: HashKey::Query("user".into()), table: HashTable::Ring(1_024) }
    );
}

/// Group of fields, fields, and which of them is wrong.
const REFUSED: &[(&str, &str, &str)] = &[
    ("connectionPool", "tcp: {maxConnections: -1}", "tcp.maxConnections"),
    ("connectionPool", "tcp: {maxConnections: 99999999999}", "tcp.maxConnections"),
    ("connectionPool", "tcp: {maxConnections: 1.5}", "tcp.maxConnections"),
    ("connectionPool", "tcp: {connectTimeout: 0s}", "tcp.connectTimeout"),
    ("connectionPool", "tcp: {connectTimeout: soon}", "tcp.connectTimeout"),
    (
        "connectionPool",
        "http: {maxRequestsPerConnection: 536870913}",
        "http.maxRequestsPerConnection",
    ),
    ("connectionPool", "http: {h2UpgradePolicy: MAYBE}", "http.h2UpgradePolicy"),
    (
        "connectionPool",
        "http: {h2UpgradePolicy: UPGRADE, useClientProtocol: true}",
        "http.h2UpgradePolicy",
    ),
    ("connectionPool", "http: 7", "http"),
    ("outlierDetection", "maxEjectionPercent: 101", "maxEjectionPercent"),
    ("outlierDetection", "minHealthPercent: -1", "minHealthPercent"),
    ("outlierDetection", "interval: -1s", "interval"),
    ("outlierDetection", "baseEjectionTime: 99999h", "baseEjectionTime"),
    ("outlierDetection", "consecutive5xxErrors: 4294967296", "consecutive5xxErrors"),
    ("loadBalancer", "simple: FASTEST", "simple"),
    ("loadBalancer", "simple: RANDOM, consistentHash: {useSourceIp: true}", "simple"),
    ("loadBalancer", "consistentHash: {}", "consistentHash"),
    ("loadBalancer", "consistentHash: {useSourceIp: false}", "consistentHash"),
    ("loadBalancer", "consistentHash: {useSourceIp: true, httpHeaderName: a}", "consistentHash"),
    ("loadBalancer", "consistentHash: {httpHeaderName: 'a b'}", "consistentHash.httpHeaderName"),
    (
        "loadBalancer",
        "consistentHash: {httpCookie: {name: 'a;b'}}",
        "consistentHash.httpCookie.name",
    ),
    (
        "loadBalancer",
        "consistentHash: {httpCookie: {name: a, path: 'b;c'}}",
        "consistentHash.httpCookie.path",
    ),
    (
        "loadBalancer",
        "consistentHash: {useSourceIp: true, maglev: {tableSize: 100}}",
        "consistentHash.maglev.tableSize",
    ),
    (
        "loadBalancer",
        "consistentHash: {useSourceIp: true, maglev: {}, ringHash: {}}",
        "consistentHash.maglev",
    ),
    (
        "loadBalancer",
        "simple: ROUND_ROBIN, warmup: {duration: 1s, aggression: 0.5}",
        "warmup.aggression",
    ),
    (
        "loadBalancer",
        "simple: ROUND_ROBIN, warmup: {duration: 1s, minimumPercent: 101}",
        "warmup.minimumPercent",
    ),
    (
        "loadBalancer",
        "localityLbSetting: {failover: [{from: a, to: a}]}",
        "localityLbSetting.failover[0]",
    ),
    (
        "loadBalancer",
        "localityLbSetting: {failover: [{from: a/b, to: c}]}",
        "localityLbSetting.failover[0]",
    ),
    (
        "loadBalancer",
        "localityLbSetting: {distribute: [{from: a//b, to: {c: 100}}]}",
        "localityLbSetting.distribute[0].from",
    ),
    (
        "loadBalancer",
        "localityLbSetting: {distribute: [{from: a, to: {c: 60, d: 30}}]}",
        "localityLbSetting.distribute[0].to",
    ),
    (
        "loadBalancer",
        "localityLbSetting: {distribute: [{from: a, to: {c/*: 50, c/d: 50}}]}",
        "localityLbSetting.distribute[0].to[\"c/d\"]",
    ),
    (
        "loadBalancer",
        "localityLbSetting: {distribute: [{from: a, to: {c: 0, d: 100}}]}",
        "localityLbSetting.distribute[0].to.c",
    ),
    (
        "loadBalancer",
        "localityLbSetting: {distribute: [{from: a/*, to: {c: 100}}, {from: a/b, to: {c: 100}}]}",
        "localityLbSetting.distribute[1].from",
    ),
    (
        "loadBalancer",
        "localityLbSetting: {distribute: [{from: a, to: {c: 100}}], failover: [{from: a, to: b}]}",
        "localityLbSetting.distribute",
    ),
    ("tls", "mode: NONSENSE", "mode"),
];

#[test]
fn what_istio_would_refuse_is_invalid() {
    for (group, fields, wrong) in REFUSED {
        let spec = format!("host: web, trafficPolicy: {{{group}: {{{fields}}}}}");
        let compiled = compiled(&rule("r", "shop", &spec));
        let field = format!("spec.trafficPolicy.{group}.{wrong}");
        let told = |one: &(String, Cause, String)| one.0 == field && one.1 == Cause::Invalid;
        let remarks = remarks(&compiled);
        assert!(remarks.iter().any(told), "{fields}: {remarks:?}");
        assert!(policies(&compiled, "web").is_none(), "{fields} is in force");
    }
}

#[test]
fn what_is_not_supported_is_reported_and_the_rest_is_in_force() {
    for (text, wrong) in [
        ("loadBalancer: {simple: PASSTHROUGH}", "loadBalancer.simple"),
        ("loadBalancer: {localityLbSetting: {enabled: true}}", "loadBalancer"),
        (
            "outlierDetection: {}, loadBalancer: {localityLbSetting: {failoverPriority: [app]}}",
            "loadBalancer.localityLbSetting.failoverPriority",
        ),
        ("connectionPool: {tcp: {tcpKeepalive: {probes: 3}}}", "connectionPool.tcp.tcpKeepalive"),
        ("outlierDetection: {consecutiveErrors: 3}", "outlierDetection.consecutiveErrors"),
        (
            "outlierDetection: {consecutiveLocalOriginFailures: 3}",
            "outlierDetection.consecutiveLocalOriginFailures",
        ),
        ("tunnel: {targetHost: a}", "tunnel"),
        ("proxyProtocol: {version: V2}", "proxyProtocol"),
        ("tls: {mode: SIMPLE, sni: a}", "tls.mode"),
    ] {
        let spec = format!("host: web, trafficPolicy: {{{text}}}");
        let compiled = compiled(&rule("r", "shop", &spec));
        let remarks = remarks(&compiled);
        let field = format!("spec.trafficPolicy.{wrong}");
        assert_eq!(remarks.len(), 1, "{text}: {remarks:?}");
        assert_eq!((&remarks[0].0, remarks[0].1), (&field, Cause::Unsupported), "{text}");
        assert!(policies(&compiled, "web").is_some(), "{text} is not in force");
    }
}

#[test]
fn localities_are_read() {
    let locality = |text: &str| {
        let text =
            format!("outlierDetection: {{}}, loadBalancer: {{localityLbSetting: {{{text}}}}}");
        policy(&format!("trafficPolicy: {{{text}}}")).locality.unwrap()
    };
    assert_eq!(locality("enabled: false"), LocalityPreference::Off);
    assert_eq!(locality("enabled: true"), LocalityPreference::default());
    let labels = "failoverPriority: [topology.istio.io/network, topology.kubernetes.io/zone]";
    let scopes = [Scope::Network, Scope::Zone].into();
    let expected = LocalityPreference::Failover { scopes, regions: Box::default() };
    assert_eq!(locality(labels), expected);
    let LocalityPreference::Failover { regions, .. } = locality("failover: [{from: a, to: b}]")
    else {
        panic!("it is off");
    };
    assert_eq!(*regions, [("a".into(), "b".into())]);
    let LocalityPreference::Distribute(all) =
        locality("distribute: [{from: a/*, to: {a/b/*: 70, c: 30}}, {from: c, to: {c: 100}}]")
    else {
        panic!("it is not parted");
    };
    let to: Vec<_> = all[0].to.iter().map(|(to, weight)| (to.to_string(), *weight)).collect();
    assert_eq!((all.len(), all[0].from.to_string()), (2, "a/*".into()));
    assert_eq!(to, [("a/b/*".to_owned(), 70), ("c/*".to_owned(), 30)]);
}

#[test]
fn protection_that_cannot_be_given_refuses_instead() {
    for (mode, refused) in
        [("DISABLE", false), ("ISTIO_MUTUAL", false), ("SIMPLE", true), ("MUTUAL", true)]
    {
        let found = policy(&format!("trafficPolicy: {{tls: {{mode: {mode}}}}}"));
        assert_eq!(found.refused.is_some(), refused, "{mode}");
    }
}

/// A rule with this annotation.
fn annotated(value: &str, spec: &str) -> Compiled {
    let annotation = format!("annotations: {{culvert.dev/adaptive-concurrency: {value}}}, ");
    let text = rule("r", "shop", &format!("host: web, {spec}"));
    compiled(&text.replacen("creationTimestamp", &format!("{annotation}creationTimestamp"), 1))
}

#[test]
fn a_limit_that_follows_answers_is_for_all_ports_of_its_rule() {
    for (value, least, most) in [("\"true\"", 3, 1_000), ("10-20", 10, 20)] {
        let ports = "trafficPolicy: {portLevelSettings: [{port: {number: 80}}]}";
        let compiled = annotated(value, ports);
        assert_eq!(remarks(&compiled), [], "{value}");
        let found = policies(&compiled, "web").unwrap();
        for port in [80, 81] {
            let own = found.scope.of_port(port).concurrency;
            assert_eq!(own, Some(Concurrency { least, most }), "{value} {port}");
        }
        let found = policies(&annotated(value, ""), "web").unwrap();
        assert!(found.scope.of_port(80).concurrency.is_some(), "without a trafficPolicy too");
    }
    assert_eq!(policy("trafficPolicy: {}").concurrency, None);
    let compiled = annotated("20-10", "");
    let field = "metadata.annotations[\"culvert.dev/adaptive-concurrency\"]";
    let told = remarks(&compiled);
    assert!(told.iter().any(|(at, cause, _)| at == field && *cause == Cause::Invalid), "{told:?}");
    assert!(policies(&compiled, "web").is_none());
}

/// What the documentation shows is in force as written.
#[test]
fn the_examples_of_the_documentation_are_in_force() {
    let page = include_str!("../../../../../docs/resilience.md");
    let examples: Vec<&str> = page.split("```yaml\n").skip(1).collect();
    assert!(examples.len() > 1);
    let api = WORLD.replace("name: web", "name: api").replace("10.96.0.1,", "10.96.0.9,");
    let api = api.split("---\n").nth(2).unwrap();
    for example in examples {
        let text = example.split("```").next().unwrap();
        let compiled = compiled(&format!("{api}---\n{text}"));
        assert_eq!(remarks(&compiled), [], "{text}");
        let named = compiled.services.values().filter(|service| service.traffic.is_some()).count();
        assert_eq!(named, text.matches("kind: DestinationRule").count(), "{text}");
    }
}
