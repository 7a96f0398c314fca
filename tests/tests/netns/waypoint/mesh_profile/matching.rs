//! Which rule a request is for.

use anyhow::ensure;
use harness::asking::Ask;

use super::super::scene::Scene;
use super::{http_route, is_from};
use crate::netns::suite::Case;

pub(crate) const CASES: &[Case] = &[
    ("mesh_profile::http_route_matching", &[], http_route_matching),
    ("mesh_profile::query_param_matching", &[], query_param_matching),
    ("mesh_profile::named_rule", &[], named_rule),
];

fn ask(
    scene: &Scene,
    path: &str,
    headers: &[(&str, &str)],
) -> anyhow::Result<harness::asking::Answer> {
    let ask = Ask::get(Scene::at("echo"), path);
    let ask = headers.iter().fold(ask, |ask, (name, value)| ask.header(name, value));
    Ok(ask.from(&scene.client)?)
}

/// MeshHTTPRouteMatching.
fn http_route_matching() -> anyhow::Result<()> {
    let scene = Scene::new("matching")?;
    let rules = "  - matches:\n    - path: {value: /}\n    - headers: [{name: version, value: one}]\n    \
                 backendRefs: [{name: echo-v1, port: 80}]\n  \
                 - matches:\n    - path: {value: /v2}\n    - headers: [{name: version, value: two}]\n    \
                 backendRefs: [{name: echo-v2, port: 80}]";
    scene.route(&http_route("matching", "echo", rules), |scene| {
        (0..20).try_for_each(|_| is_from(&scene.ask("echo", "/")?, "echo-v1"))
    })?;
    for (path, headers, pod) in [
        ("/", &[][..], "echo-v1"),
        ("/example", &[], "echo-v1"),
        ("/", &[("Version", "one")], "echo-v1"),
        ("/v2", &[], "echo-v2"),
        ("/v2/", &[], "echo-v2"),
        ("/v2/example", &[], "echo-v2"),
        ("/", &[("Version", "two")], "echo-v2"),
        ("/", &[("VERSION", "two")], "echo-v2"),
        ("/v2example", &[], "echo-v1"),
        ("/foo/v2/example", &[], "echo-v1"),
    ] {
        is_from(&ask(&scene, path, headers)?, pod)?;
    }
    Ok(())
}

/// MeshHTTPRouteQueryParamMatching.
fn query_param_matching() -> anyhow::Result<()> {
    let scene = Scene::new("query")?;
    let rules = "  - matches: [{queryParams: [{name: animal, value: whale}]}]\n    \
                 backendRefs: [{name: echo-v1, port: 80}]\n  \
                 - matches: [{queryParams: [{name: animal, value: dolphin}]}]\n    \
                 backendRefs: [{name: echo-v2, port: 80}]\n  \
                 - matches: [{queryParams: [{name: animal, value: dolphin}, {name: color, value: blue}]}]\n    \
                 backendRefs: [{name: echo-v1, port: 80}]\n  \
                 - matches: [{queryParams: [{name: ANIMAL, value: Whale}]}]\n    \
                 backendRefs: [{name: echo-v2, port: 80}]\n  \
                 - matches:\n    - path: {value: /path1}\n      queryParams: [{name: animal, value: whale}]\n    \
                 - headers: [{name: version, value: one}]\n      queryParams: [{name: animal, value: hydra}]\n    \
                 backendRefs: [{name: echo-v2, port: 80}]\n  \
                 - matches: [{path: {value: /path3/longer}}]\n    backendRefs: [{name: echo-v1, port: 80}]\n  \
                 - matches: [{path: {value: /path3}, queryParams: [{name: animal, value: shark}]}]\n    \
                 backendRefs: [{name: echo-v2, port: 80}]";
    scene.route(&http_route("query", "echo", rules), |scene| {
        let none = scene.ask("echo", "/")?;
        ensure!(none.status == 404, "{none:?}");
        Ok(())
    })?;
    for (path, headers, pod) in [
        ("/?animal=whale", &[][..], "echo-v1"),
        ("/?animal=dolphin", &[], "echo-v2"),
        ("/?animal=dolphin&color=blue", &[], "echo-v1"),
        ("/?color=blue&animal=dolphin", &[], "echo-v1"),
        ("/?animal=dolphin&color=yellow", &[], "echo-v2"),
        ("/?ANIMAL=Whale", &[], "echo-v2"),
        ("/?animal=whale&otherparam=irrelevant", &[], "echo-v1"),
        ("/path1?animal=whale", &[], "echo-v2"),
        ("/?animal=hydra", &[("Version", "one")], "echo-v2"),
        ("/path3/longer?animal=shark", &[], "echo-v1"),
        ("/path3/other?animal=shark", &[], "echo-v2"),
    ] {
        is_from(&ask(&scene, path, headers)?, pod)?;
    }
    for path in ["/", "/?animal=fish", "/?color=blue", "/?animal=Whale", "/path1", "/?animal=hydra"]
    {
        let none = ask(&scene, path, &[])?;
        ensure!(none.status == 404, "{path}: {none:?}");
    }
    Ok(())
}

/// MeshHTTPRouteNamedRule.
fn named_rule() -> anyhow::Result<()> {
    let scene = Scene::new("named-rule")?;
    let rules = "  - name: named-rule\n    matches: [{path: {type: PathPrefix, value: /named}}]\n    \
                 backendRefs: [{name: echo-v1, port: 80}]\n  \
                 - matches: [{path: {type: PathPrefix, value: /unnamed}}]\n    \
                 backendRefs: [{name: echo-v2, port: 80}]";
    scene.route(&http_route("named", "echo", rules), |scene| {
        is_from(&scene.ask("echo", "/named")?, "echo-v1")?;
        is_from(&scene.ask("echo", "/unnamed")?, "echo-v2")
    })
}
