use std::collections::BTreeMap;
use std::time::Duration;

use shared::config::{Authority, Given};

use super::*;

const COMPLETE: [(&str, &str); 4] =
    [("mesh", "/mesh"), ("node", "n1"), ("ca", "10.0.0.1:15012"), ("join-token", "/token")];

fn variables(variables: &[(&str, &str)]) -> BTreeMap<String, String> {
    variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn parse(
    flags: &[(&'static str, &str)],
    environment: &[(&str, &str)],
) -> Result<Config, Vec<ParseError>> {
    let flags = flags.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    Config::parse(&Given::new(flags, &variables(environment)))
}

fn messages(result: Result<Config, Vec<ParseError>>) -> Vec<String> {
    result.unwrap_err().iter().map(ToString::to_string).collect()
}

#[test]
fn flags_alone_are_enough() {
    let config = parse(&COMPLETE, &[]).unwrap();
    assert_eq!(config.node.as_deref(), Some("n1"));
    assert_eq!(config.servers.admin.to_string(), "127.0.0.1:15000");
    assert_eq!(config.servers.stats.to_string(), "127.0.0.1:15020");
    assert_eq!(config.servers.ready.to_string(), "[::]:15021");
    assert_eq!(config.process.drain, Duration::from_secs(5));
    assert_eq!(config.identity.trust_domain.as_str(), "cluster.local");
}

#[test]
fn flags_win_over_our_variables_and_those_over_istios() {
    let istio = ("NODE_NAME", "istio");
    let ours = ("CULVERT_NODE", "ours");
    let others = [COMPLETE[0], COMPLETE[2], COMPLETE[3]];
    assert_eq!(parse(&others, &[istio]).unwrap().node.as_deref(), Some("istio"));
    assert_eq!(parse(&others, &[istio, ours]).unwrap().node.as_deref(), Some("ours"));
    assert_eq!(parse(&COMPLETE, &[istio, ours]).unwrap().node.as_deref(), Some("n1"));
}

#[test]
fn statistics_are_open_to_all_in_kubernetes() {
    let config = parse(&COMPLETE, &[("KUBERNETES_SERVICE_HOST", "10.96.0.1")]).unwrap();
    assert_eq!(config.servers.stats.to_string(), "[::]:15020");
}

/// `localhost:x:1` was a host name to look up.
#[test]
fn localhost_is_an_address_and_no_other_name_is() {
    let admin = |value| parse(&[&COMPLETE[..], &[("admin", value)]].concat(), &[]);
    let config = admin("localhost:15000").unwrap();
    assert_eq!(config.servers.admin.to_string(), "127.0.0.1:15000");
    for value in ["localhost", "localhost:", "localhost:x:1", "localhost:65536", "node-a:1"] {
        assert_eq!(messages(admin(value)).len(), 1, "{value}");
    }
}

#[test]
fn all_mistakes_are_told_at_once() {
    let flags = [
        ("feed", "kube"),
        ("workers", "many"),
        ("admin", "0.0.0.0:15000"),
        ("stats", "15020"),
        ("trust-domain", "Not A Domain"),
    ];
    let variables = [
        ("TLS12_ENABLED", "true"),
        ("CONNECTION_TERMINATION_DEADLINE", "soon"),
        ("HTTP2_STREAM_WINDOW_SIZE", "1"),
        ("PROXY_MODE", "sidecar"),
        ("LOG_FORMAT", "xml"),
    ];
    let messages = messages(parse(&flags, &variables));
    for expected in [
        "PROXY_MODE: \"sidecar\" is not a mode, use shared or dedicated",
        "--feed: \"kube\" is not part of this version, use dir",
        "--mesh is missing (or CULVERT_MESH): a directory of Kubernetes YAML says what the mesh is",
        "--node is missing (or CULVERT_NODE): the pods of this node are served, so it must have a name",
        "--ca is missing (or CULVERT_CA): pods need certificates: --ca ADDR --join-token FILE, or --certs DIR",
        "--workers: \"many\" is not a number of threads, write 0 to 1024 or 1% to 100%",
        "CONNECTION_TERMINATION_DEADLINE: \"soon\" is not a duration, write 10s, 5m or 1h30m",
        "LOG_FORMAT: \"xml\" is not a format, use plain or json",
        "--admin: \"0.0.0.0:15000\" is not on loopback; from afar use the unix socket or `kubectl port-forward`",
        "--stats: \"15020\" is not an address, write IP:PORT or [IPV6]:PORT",
        "HTTP2_STREAM_WINDOW_SIZE: \"1\" is not a number from 65536 to 2147483647",
        "TLS12_ENABLED: \"true\" cannot be: this program speaks TLS 1.3 only",
    ] {
        assert!(
            messages.iter().any(|message| message == expected),
            "{expected}\n in {messages:#?}"
        );
    }
    assert_eq!(messages.len(), 13, "the trust domain, too: {messages:#?}");
}

#[test]
fn an_authority_and_files_exclude_each_other() {
    let both = [COMPLETE.as_slice(), &[("certs", "/certs")]].concat();
    assert_eq!(
        messages(parse(&both, &[])),
        ["--certs and --ca exclude each other: certificates come from files or from an authority"]
    );
    let alone = [("mesh", "/mesh"), ("node", "n"), ("certs", "/certs")];
    assert!(matches!(parse(&alone, &[]).unwrap().identity.authority, Authority::Files { .. }));
}

#[test]
fn dedicated_mode_needs_no_node() {
    let flags = [COMPLETE[0], COMPLETE[2], COMPLETE[3]];
    let pod = PodRef { namespace: "shop".into(), name: "web".into() };
    let dedicated = [flags.as_slice(), &[("dedicated", "shop/web")]].concat();
    assert_eq!(parse(&dedicated, &[]).unwrap().dedicated, Some(pod.clone()));
    let istio = [("PROXY_MODE", "dedicated"), ("PROXY_WORKLOAD_INFO", "shop/web/account")];
    assert_eq!(parse(&flags, &istio).unwrap().dedicated, Some(pod));
    assert_eq!(messages(parse(&flags, &istio[..1])).len(), 2);
    assert_eq!(
        messages(parse(&[flags.as_slice(), &[("dedicated", "web")]].concat(), &[])).len(),
        2
    );
}

#[test]
fn addresses_of_authorities_may_be_written_as_istio_does() {
    let with = |address| {
        let flags = [COMPLETE[0], COMPLETE[1], COMPLETE[3]];
        match parse(&flags, &[("CA_ADDRESS", address)]).ok()?.identity.authority {
            Authority::Ca { address, .. } => Some(address),
            Authority::Files { .. } => None,
        }
    };
    assert_eq!(
        with("https://istiod.istio-system.svc:15012").as_deref(),
        Some("istiod.istio-system.svc:15012")
    );
    assert_eq!(with("[fd00::1]:15012").as_deref(), Some("[fd00::1]:15012"));
    for wrong in ["http://ca:1", "ca", "ca:0", ":15012", "ca:99999"] {
        assert_eq!(with(wrong), None, "{wrong}");
    }
}

#[test]
fn worker_limits_are_numbers_or_shares() {
    let cpus = std::thread::available_parallelism().unwrap().get();
    let with = |value| {
        parse(&[COMPLETE.as_slice(), &[("workers", value)]].concat(), &[])
            .map(|config| config.process.workers)
    };
    assert_eq!(with("3"), Ok(3));
    assert_eq!(with("0"), Ok(cpus));
    assert_eq!(with("100%"), Ok(cpus));
    assert_eq!(with("1%"), Ok(1));
    assert!(with("0%").is_err() && with("101%").is_err() && with("-1").is_err());
}

#[test]
fn the_drain_deadline_follows_the_grace_period() {
    let drain =
        |variables: &[(&str, &str)]| parse(&COMPLETE, variables).unwrap().process.drain.as_secs();
    assert_eq!(drain(&[("TERMINATION_GRACE_PERIOD_SECONDS", "30")]), 25);
    assert_eq!(drain(&[("TERMINATION_GRACE_PERIOD_SECONDS", "0")]), 1);
    assert_eq!(drain(&[("CONNECTION_TERMINATION_DEADLINE", "1m30s")]), 90);
}

#[test]
fn sockets_are_tuned_as_istio_writes_it() {
    let with = |variables: &[(&str, &str)]| parse(&COMPLETE, variables);
    assert_eq!(with(&[]).unwrap().sockets, sockets::Options::default());
    let sockets = with(&[
        ("KEEPALIVE_TIME", "1m"),
        ("KEEPALIVE_INTERVAL", "5s"),
        ("KEEPALIVE_RETRIES", "4"),
        ("USER_TIMEOUT_ENABLED", "true"),
        ("ENABLE_ORIG_SRC", "true"),
    ]);
    let (time, interval) = (Duration::from_secs(60), Duration::from_secs(5));
    let expected = sockets::Options {
        keepalive: Some(Keepalive { time, interval, retries: 4 }),
        user_timeout: Some(Duration::from_secs(80)),
        ipv6: true,
        keep_source: KeepSource::Required,
    };
    assert_eq!(sockets.unwrap().sockets, expected);
    let config = with(&[
        ("KEEPALIVE_ENABLED", "false"),
        ("IPV6_ENABLED", "false"),
        ("ENABLE_ORIG_SRC", "false"),
        ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
    ])
    .unwrap();
    assert_eq!((config.sockets.keepalive, config.sockets.ipv6), (None, false));
    assert_eq!(config.sockets.keep_source, KeepSource::Never);
    assert_eq!(config.servers.stats.to_string(), "0.0.0.0:15020");
    assert_eq!(config.servers.ready.to_string(), "0.0.0.0:15021");
    for wrong in [
        ("KEEPALIVE_TIME", "0s"),
        ("KEEPALIVE_INTERVAL", "1500ms"),
        ("KEEPALIVE_RETRIES", "128"),
        ("IPV6_ENABLED", "yes"),
        ("ENABLE_ORIG_SRC", "1"),
    ] {
        assert_eq!(messages(with(&[wrong])).len(), 1, "{wrong:?}");
    }
}

#[test]
fn what_has_no_effect_is_told() {
    let environment = variables(&[
        ("CULVERT_WORKRES", "2"),
        ("CULVERT_NODE", "n"),
        ("XDS_ADDRESS", "istiod:15012"),
        ("HOME", "/"),
    ]);
    let warnings = warnings(&Given::new(BTreeMap::new(), &environment));
    assert_eq!(
        warnings,
        [
            "variable CULVERT_WORKRES is not known and has no effect",
            "variable XDS_ADDRESS has no effect here: objects come from the mesh directory"
        ]
    );
}
