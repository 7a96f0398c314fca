//! Parts of a service, by the labels of its pods.

use anyhow::ensure;
use harness::asking::Ask;
use harness::eventually::eventually;

use super::super::super::mesh::{SOON, serve};
use super::super::super::suite::Case;
use super::super::features::{client_hello, greeting};
use super::super::mesh_profile::is_from;
use super::super::scene::Scene;
use super::{ask, in_force, is, is_caused, virtual_service};

pub(super) const CASES: &[Case] = &[
    ("waypoint::virtual_services::subsets::headers_lead_to_subsets", &[], by_header),
    ("waypoint::virtual_services::subsets::weights_are_kept", &[], by_weight),
    ("waypoint::virtual_services::subsets::connections_go_there_too", &[], connections),
    ("waypoint::virtual_services::subsets::each_has_its_own_limits", &[], limits),
    ("waypoint::virtual_services::subsets::each_has_its_own_outliers", &[], outliers),
];

const RULE: &str = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: echo, \
    namespace: shop}\nspec:\n  host: echo\n  trafficPolicy: {connectionPool: {http: {http2MaxRequests: 100}}}\n  \
    subsets:\n  - {name: v1, labels: {version: v1}}\n  - {name: v2, labels: {app: echo, version: v2}}\n  \
    - {name: gone, labels: {version: v3}}\n";

fn to(subset: &str) -> String {
    format!("{{destination: {{host: echo, subset: {subset}}}}}")
}

fn rule(path: &str, subset: &str) -> String {
    format!("match: [{{uri: {{prefix: {path}}}}}], route: [{}]", to(subset))
}

/// Also on another port, because the port that was dialled is meant where none is said; and back when
/// a pod gets other labels.
fn by_header() -> anyhow::Result<()> {
    let scene = Scene::with("vs-subsets", RULE)?;
    let two = format!("match: [{{headers: {{x-version: {{exact: two}}}}}}], route: [{}]", to("v2"));
    let rules = [&two, &rule("/one", "v1"), &rule("/gone", "gone")];
    in_force(&scene, &virtual_service("subsets", &rules.map(|rule| &**rule)))?;
    for _ in 0..10 {
        for port in [80, 8080] {
            let ask = Ask::get(Scene::port("echo", port), "/one");
            is_from(&ask.from(&scene.client)?, "echo-v1")?;
            is_from(&ask.header("x-version", "two").from(&scene.client)?, "echo-v2")?;
        }
    }
    let gone = scene.ask("echo", "/gone")?;
    is(&gone, 503)?;
    is_caused(&gone, "NO_HEALTHY_UPSTREAM")?;
    scene.cluster.mesh().write("more.yaml", &RULE.replace("version: v3", "app: echo"))?;
    eventually(SOON, "the subset has endpoints", || is(&scene.ask("echo", "/gone")?, 200))
}

fn by_weight() -> anyhow::Result<()> {
    let scene = Scene::with("vs-weights", RULE)?;
    let route = |one: u32, two: u32| {
        format!(
            "{{destination: {{host: echo, subset: v1}}, weight: {one}}}, \
             {{destination: {{host: echo, subset: v2}}, weight: {two}}}"
        )
    };
    let rules = [
        &format!("match: [{{uri: {{prefix: /most}}}}], route: [{}]", route(90, 10)),
        &format!("match: [{{uri: {{prefix: /all}}}}], route: [{}]", route(100, 0)),
    ];
    in_force(&scene, &virtual_service("weights", &rules.map(|rule| &**rule)))?;
    let mut first = 0;
    for _ in 0..300 {
        let answer = scene.ask("echo", "/most")?;
        is(&answer, 200)?;
        first += u32::from(answer.header("x-pod") == Some("echo-v1"));
        is_from(&scene.ask("echo", "/all")?, "echo-v1")?;
    }
    // 270, and six deviations.
    ensure!((238..=299).contains(&first), "{first} of 300");
    Ok(())
}

/// By port, and by the server name of TLS that passes through.
fn connections() -> anyhow::Result<()> {
    let scene = Scene::with("vs-connections", RULE)?;
    let _banners = [
        serve(&scene.v1, "banner", 9090)?,
        serve(&scene.v2, "banner", 9090)?,
        serve(&scene.v1, "banner", 8443)?,
        serve(&scene.v2, "banner", 8443)?,
    ];
    let yaml = format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: connections, \
         namespace: shop}}\nspec:\n  hosts: [echo]\n  tcp:\n  - {{match: [{{port: 9090}}], route: [{}]}}\n  \
         tls:\n  - {{match: [{{port: 443, sniHosts: [one.example]}}], route: [{}]}}\n  \
         - {{match: [{{sniHosts: ['*.example']}}], route: [{}]}}\n",
        to("v2"),
        to("v1"),
        to("v2"),
    );
    let said_by = |port: u16, first: &[u8], pod: &str| -> anyhow::Result<()> {
        for _ in 0..10 {
            let said = greeting(&scene, port, first)?;
            ensure!(said.contains(pod), "{said:?} on {port}");
        }
        Ok(())
    };
    scene.route(&yaml, |_| said_by(9090, &[], "echo-v2"))?;
    said_by(443, &client_hello("one.example")?, "echo-v1")?;
    said_by(443, &client_hello("two.example")?, "echo-v2")
}

/// A subset without a place refuses, and the other one does not.
fn limits() -> anyhow::Result<()> {
    let limited = RULE.replace(
        "{name: v1, labels: {version: v1}}",
        "{name: v1, labels: {version: v1}, trafficPolicy: {connectionPool: {http: {http2MaxRequests: 1}}}}",
    );
    let scene = Scene::with("vs-limits", &limited)?;
    let rules = [&rule("/delay/3000", "v1"), &rule("/one", "v1"), &rule("/two", "v2")];
    in_force(&scene, &virtual_service("limits", &rules.map(|rule| &**rule)))?;
    std::thread::scope(|threads| -> anyhow::Result<()> {
        // The place may be taken by one of those that look whether it is.
        let slow = threads.spawn(|| {
            eventually(SOON, "it gets the place", || {
                is_from(&ask("/delay/3000").from(&scene.client)?, "echo-v1")
            })
        });
        eventually(SOON, "the only place is taken", || {
            let refused = scene.ask("echo", "/one")?;
            is(&refused, 503)?;
            is_caused(&refused, "UPSTREAM_OVERFLOW")
        })?;
        is_from(&scene.ask("echo", "/two")?, "echo-v2")?;
        slow.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?
    })?;
    let (_, metrics) = scene.waypoint_pod.get("127.0.0.1:15020", "/metrics")?;
    let told = metrics.lines().any(|line| {
        line.starts_with("culvert_circuit_overflow_total")
            && line.contains("subset=\"v1\"")
            && line.contains("resource=\"requests\"")
            && !line.ends_with(" 0")
    });
    ensure!(told, "{metrics}");
    Ok(())
}

/// An endpoint that fails in one subset is left out there, and asked in the other.
fn outliers() -> anyhow::Result<()> {
    let policy = "trafficPolicy: {outlierDetection: {consecutive5xxErrors: 2, baseEjectionTime: 60s, \
                  maxEjectionPercent: 100}}";
    let watched = RULE
        .replace("labels: {version: v1}}", &format!("labels: {{version: v1}}, {policy}}}"))
        .replace("{version: v3}", "{version: v1}");
    let scene = Scene::with("vs-outliers", &watched)?;
    let rules = [&rule("/status/500", "v1"), &rule("/one", "v1"), &rule("/same", "gone")];
    in_force(&scene, &virtual_service("outliers", &rules.map(|rule| &**rule)))?;
    for _ in 0..2 {
        is(&scene.ask("echo", "/status/500")?, 500)?;
    }
    eventually(SOON, "the endpoint is out", || {
        let refused = scene.ask("echo", "/one")?;
        is(&refused, 503)?;
        is_caused(&refused, "NO_HEALTHY_UPSTREAM")
    })?;
    is_from(&scene.ask("echo", "/same")?, "echo-v1")
}
