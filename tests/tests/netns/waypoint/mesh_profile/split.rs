//! Which backend gets how much.

use std::collections::BTreeMap;

use anyhow::ensure;
use harness::asking::Ask;

use super::super::http2;
use super::super::scene::Scene;
use super::{http_route, is_from, route};
use crate::netns::suite::Case;

pub(crate) const CASES: &[Case] = &[
    ("mesh_profile::traffic_split", &[], traffic_split),
    ("mesh_profile::simple_same_namespace", &[], simple_same_namespace),
    ("mesh_profile::http_route_weight", &[], http_route_weight),
    ("mesh_profile::grpc_route_weight", &[], grpc_route_weight),
];

/// Requests of a test of shares: with 70 %, a share off by 10 % is five deviations away.
const REQUESTS: usize = 500;

/// MeshTrafficSplit.
fn traffic_split() -> anyhow::Result<()> {
    let scene = Scene::new("traffic-split")?;
    let rules = "  - matches: [{path: {type: Exact, value: /v1}}]\n    \
                 backendRefs: [{name: echo-v1, port: 80}]\n  \
                 - matches: [{path: {type: Exact, value: /v2}}]\n    \
                 backendRefs: [{name: echo-v2, port: 80}]";
    scene.route(&http_route("split", "echo", rules), |scene| {
        let none = scene.ask("echo", "/v1/more")?;
        ensure!(none.status == 404, "{none:?}");
        Ok(())
    })?;
    is_from(&scene.ask("echo", "/v1")?, "echo-v1")?;
    is_from(&scene.ask("echo", "/v2")?, "echo-v2")
}

/// MeshHTTPRouteSimpleSameNamespace.
fn simple_same_namespace() -> anyhow::Result<()> {
    let scene = Scene::new("simple")?;
    let rules = "  - backendRefs: [{name: echo-v1, port: 80}]";
    scene.route(&http_route("simple", "echo", rules), |scene| {
        // Without the route half of the answers are the other's.
        (0..20).try_for_each(|_| is_from(&scene.ask("echo", "/")?, "echo-v1"))
    })
}

/// MeshHTTPRouteWeight.
fn http_route_weight() -> anyhow::Result<()> {
    let scene = Scene::new("weight")?;
    let rules = |one: u32, two: u32| {
        format!(
            "  - backendRefs:\n    - {{name: echo-v1, port: 80, weight: {one}}}\n    \
             - {{name: echo-v2, port: 80, weight: {two}}}"
        )
    };
    let only = http_route("weight", "echo", &rules(1, 0));
    scene.route(&only, |scene| {
        (0..20).try_for_each(|_| is_from(&scene.ask("echo", "/")?, "echo-v1"))
    })?;
    scene.route(&http_route("weight", "echo", &rules(70, 30)), |scene| {
        let others = (0..20).map(|_| scene.ask("echo", "/")).filter_map(Result::ok);
        ensure!(others.into_iter().any(|one| one.header("x-pod") == Some("echo-v2")));
        Ok(())
    })?;
    let mut answers = BTreeMap::<String, usize>::new();
    for _ in 0..REQUESTS {
        let answer = Ask::get(Scene::at("echo"), "/").from(&scene.client)?;
        *answers.entry(answer.header("x-pod").unwrap_or("nobody").to_owned()).or_default() += 1;
    }
    is_seventy_thirty(&answers)
}

fn is_seventy_thirty(answers: &BTreeMap<String, usize>) -> anyhow::Result<()> {
    let share = |pod: &str| answers.get(pod).copied().unwrap_or(0) * 100 / REQUESTS;
    let (one, two) = (share("echo-v1"), share("echo-v2"));
    ensure!((60..=80).contains(&one) && (20..=40).contains(&two), "{answers:?}");
    Ok(())
}

/// MeshGRPCRouteWeight.
fn grpc_route_weight() -> anyhow::Result<()> {
    let scene = Scene::new("grpc-weight")?;
    let rules = "  - backendRefs:\n    - {name: echo-v1, port: 7070, weight: 70}\n    \
                 - {name: echo-v2, port: 7070, weight: 30}\n    - {name: echo, port: 7070, weight: 0}\n    \
                 filters:\n    - type: ResponseHeaderModifier\n      responseHeaderModifier:\n        \
                 set: [{name: x-routed, value: \"yes\"}]";
    let parent = "group: \"\"\n    kind: Service\n    name: echo";
    let answers = |count: usize| {
        http2::run(async {
            let mut sender = http2::open(&scene.client, Scene::port("echo", 7070)).await?;
            let mut answers = BTreeMap::<String, usize>::new();
            for _ in 0..count {
                let response = sender.send_request(http2::call("/echo.Echo/Say")).await?;
                let text = |name| response.headers().get(name).and_then(|it| it.to_str().ok());
                ensure!(text("x-routed") == Some("yes"), "{response:?}");
                *answers.entry(text("x-pod").unwrap_or("nobody").to_owned()).or_default() += 1;
            }
            Ok(answers)
        })
    };
    scene.route(&route("GRPCRoute", "shop", "weight", parent, rules), |_| answers(1).map(drop))?;
    is_seventy_thirty(&answers(REQUESTS)?)
}
