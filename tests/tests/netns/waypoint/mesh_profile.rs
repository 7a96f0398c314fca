//! The tests of the Gateway API's MESH profile, each with the same meaning, through real ztunnels.
//!
//! docs/waypoint.md lists them by their names in the Gateway API; tests of features that have none
//! for a mesh there are in `features`.

pub(crate) mod matching;
pub(crate) mod modify;
pub(crate) mod redirect;
pub(crate) mod split;

use anyhow::ensure;
use harness::asking::{Answer, Ask};
use harness::pod::{Pod, PodSpec};

use super::scene::Scene;
use crate::netns::suite::Case;

pub(crate) const CASES: &[Case] = &[
    ("mesh_profile::frontend", &[], frontend),
    ("mesh_profile::frontend_hostname", &[], frontend_hostname),
    ("mesh_profile::ports", &[], ports),
    ("mesh_profile::consumer_route", &[], consumer_route),
];

/// An `HTTPRoute` in namespace `shop`; `spec` is YAML, indented by two.
pub(crate) fn http_route(name: &str, service: &str, rules: &str) -> String {
    route(
        "HTTPRoute",
        "shop",
        name,
        &format!("group: \"\"\n    kind: Service\n    name: {service}"),
        rules,
    )
}

/// A route of any kind, with one parent; `rules` is what stands below `spec.rules`.
pub(crate) fn route(kind: &str, namespace: &str, name: &str, parent: &str, rules: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata:\n  name: {name}\n  \
         namespace: {namespace}\nspec:\n  parentRefs:\n  - {parent}\n  rules:\n{rules}\n---\n"
    )
}

/// A rule that adds a header to responses and forwards to `service`.
fn marked(service: &str) -> String {
    format!(
        "  - filters:\n    - type: ResponseHeaderModifier\n      responseHeaderModifier:\n        \
         set: [{{name: X-Header-Set, value: set}}]\n    backendRefs: [{{name: {service}, port: 80}}]"
    )
}

/// Checks a header of an answer; none must be absent.
pub(crate) fn has(answer: &Answer, name: &str, value: Option<&str>) -> anyhow::Result<()> {
    ensure!(answer.status == 200, "{answer:?}");
    ensure!(answer.header(name) == value, "{name} is not {value:?}: {answer:?}");
    Ok(())
}

/// Checks which version answered.
pub(crate) fn is_from(answer: &Answer, pod: &str) -> anyhow::Result<()> {
    has(answer, "x-pod", Some(pod))
}

/// MeshFrontend: the route is met by the service's address and not by a pod's.
fn frontend() -> anyhow::Result<()> {
    let scene = Scene::new("frontend")?;
    scene.route(&http_route("r", "echo-v2", &marked("echo-v2")), |scene| {
        has(&scene.ask("echo-v2", "/")?, "x-header-set", Some("set"))
    })?;
    let pod = Ask::get((scene.v2.ip(), 8080).into(), "/").from(&scene.client)?;
    has(&pod, "x-header-set", None)
}

/// MeshFrontendHostname: the dialled address counts, `Host` does not.
fn frontend_hostname() -> anyhow::Result<()> {
    let scene = Scene::new("frontend-hostname")?;
    scene.route(&http_route("r", "echo-v2", &marked("echo-v2")), |scene| {
        has(&scene.ask("echo-v2", "/")?, "x-header-set", Some("set"))
    })?;
    let ask = |service: &str, host: &str| {
        Ask::get(Scene::at(service), "/").header("Host", host).from(&scene.client)
    };
    for host in ["echo-v1", "echo-v1.shop.svc.cluster.local", "elsewhere.example:81"] {
        has(&ask("echo-v2", host)?, "x-header-set", Some("set"))?;
    }
    has(&ask("echo-v1", "echo-v2")?, "x-header-set", None)
}

/// MeshPorts: a parent with a port is that port alone, one without is all.
fn ports() -> anyhow::Result<()> {
    let scene = Scene::new("ports")?;
    let at = |port| Ask::get(Scene::port("echo-v1", port), "/").from(&scene.client);
    let narrow = "group: \"\"\n    kind: Service\n    name: echo-v1\n    port: 80";
    scene.route(&route("HTTPRoute", "shop", "r", narrow, &marked("echo-v1")), |_| {
        has(&at(80)?, "x-header-set", Some("set"))
    })?;
    has(&at(8080)?, "x-header-set", None)?;
    scene.route(&http_route("r", "echo-v1", &marked("echo-v1")), |_| {
        has(&at(8080)?, "x-header-set", Some("set"))
    })?;
    has(&at(80)?, "x-header-set", Some("set"))
}

/// MeshConsumerRoute: a route of another namespace is for that namespace's clients.
fn consumer_route() -> anyhow::Result<()> {
    let scene = Scene::new("consumer-route")?;
    let consumer: Pod =
        scene.cluster.pod(scene.client.node(), PodSpec::new("consumer").namespace("consumers"))?;
    scene.near_ztunnel.serves(&consumer)?;
    let parent = "group: \"\"\n    kind: Service\n    name: echo-v1\n    namespace: shop";
    let rules = "  - filters:\n    - type: ResponseHeaderModifier\n      responseHeaderModifier:\n        \
                 set: [{name: X-Header-Set, value: set}]\n    \
                 backendRefs: [{name: echo-v1, namespace: shop, port: 80}]";
    let grant = "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\nmetadata:\n  \
                 name: consumers\n  namespace: shop\nspec:\n  from:\n  - group: gateway.networking.k8s.io\n    \
                 kind: HTTPRoute\n    namespace: consumers\n  to:\n  - group: \"\"\n    kind: Service\n---\n";
    let yaml = format!("{grant}{}", route("HTTPRoute", "consumers", "r", parent, rules));
    let ask = Ask::get(Scene::at("echo-v1"), "/");
    scene.route(&yaml, |_| has(&ask.from(&consumer)?, "x-header-set", Some("set")))?;
    has(&ask.from(&scene.client)?, "x-header-set", None)
}
