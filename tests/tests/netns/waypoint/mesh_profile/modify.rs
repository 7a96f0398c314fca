//! What is changed of requests.

use std::collections::BTreeMap;

use anyhow::ensure;
use harness::asking::Ask;
use harness::role::app::Seen;

use super::super::http2;
use super::super::scene::Scene;
use super::{http_route, route};
use crate::netns::suite::Case;

pub(crate) const CASES: &[Case] = &[
    ("mesh_profile::request_header_modifier", &[], request_header_modifier),
    ("mesh_profile::backend_request_header_modifier", &[], backend_request_header_modifier),
    ("mesh_profile::grpc_request_header_modifier", &[], grpc_request_header_modifier),
    ("mesh_profile::rewrite_path", &[], rewrite_path),
];

const SET: &str = "set: [{name: X-Header-Set, value: set-overwrites-values}]";
const ADD: &str = "add: [{name: X-Header-Add, value: add-appends-values}]";
const REMOVE: &str = "remove: [X-Header-Remove]";

/// Rules that modify in the three ways, and in all of them at once, each with a path of its own.
fn modifying(place: impl Fn(&str) -> String) -> String {
    let all = [("/set", SET.to_owned()), ("/add", ADD.to_owned()), ("/remove", REMOVE.to_owned())];
    let many = "set: [{name: X-Header-Set-1, value: one}, {name: X-Header-Set-2, value: two}], \
                add: [{name: X-Header-Add-1, value: one}, {name: X-Header-Add-2, value: two}], \
                remove: [X-Header-Remove-1, X-Header-Remove-2]";
    let odd = "set: [{name: x-hEaDeR-sEt, value: lower}], remove: [x-HEADER-remove]";
    let more = [("/multiple", many.to_owned()), ("/case", odd.to_owned())];
    all.into_iter()
        .chain(more)
        .map(|(path, change)| {
            format!("  - matches: [{{path: {{value: {path}}}}}]\n{}", place(&change))
        })
        .collect::<Vec<_>>()
        .join("\n")
}

/// Asks with headers, and checks what the application saw of them.
fn saw(
    scene: &Scene,
    path: &str,
    sent: &[(&str, &str)],
    expected: &[(&str, Option<&str>)],
) -> anyhow::Result<()> {
    let ask = Ask::get(Scene::at("echo"), path);
    let ask = sent.iter().fold(ask, |ask, (name, value)| ask.header(name, value));
    are(&ask.from(&scene.client)?.seen()?, expected)
}

fn are(seen: &Seen, expected: &[(&str, Option<&str>)]) -> anyhow::Result<()> {
    let value = |name: &str| -> Option<&str> { seen.headers.get(name).map(String::as_str) };
    for (name, wanted) in expected {
        ensure!(value(name) == *wanted, "{name} is not {wanted:?}: {seen:?}");
    }
    Ok(())
}

fn check_all(scene: &Scene) -> anyhow::Result<()> {
    let set = ("x-header-set", Some("set-overwrites-values"));
    saw(scene, "/set", &[("Some-Other", "val")], &[("some-other", Some("val")), set])?;
    saw(scene, "/set", &[("X-Header-Set", "some-other-value")], &[set])?;
    saw(scene, "/add", &[], &[("x-header-add", Some("add-appends-values"))])?;
    let both = ("x-header-add", Some("some-other-value,add-appends-values"));
    saw(scene, "/add", &[("X-Header-Add", "some-other-value")], &[both])?;
    saw(scene, "/remove", &[("X-Header-Remove", "val")], &[("x-header-remove", None)])?;
    let sent = [
        ("X-Header-Set-2", "old"),
        ("X-Header-Add-2", "old"),
        ("X-Header-Remove-2", "old"),
        ("Another-Header", "kept"),
    ];
    let expected = [
        ("x-header-set-1", Some("one")),
        ("x-header-set-2", Some("two")),
        ("x-header-add-1", Some("one")),
        ("x-header-add-2", Some("old,two")),
        ("x-header-remove-2", None),
        ("another-header", Some("kept")),
    ];
    saw(scene, "/multiple", &sent, &expected)?;
    let sent = [("X-HEADER-SET", "upper"), ("X-Header-Remove", "gone")];
    saw(scene, "/case", &sent, &[("x-header-set", Some("lower")), ("x-header-remove", None)])
}

/// MeshHTTPRouteRequestHeaderModifier.
fn request_header_modifier() -> anyhow::Result<()> {
    let scene = Scene::new("request-header")?;
    let rules = modifying(|change| {
        format!(
            "    filters:\n    - type: RequestHeaderModifier\n      \
             requestHeaderModifier: {{{change}}}\n    backendRefs: [{{name: echo-v1, port: 80}}]"
        )
    });
    scene.route(&http_route("modify", "echo", &rules), |scene| {
        saw(scene, "/add", &[], &[("x-header-add", Some("add-appends-values"))])
    })?;
    check_all(&scene)
}

/// MeshHTTPRouteBackendRequestHeaderModifier.
fn backend_request_header_modifier() -> anyhow::Result<()> {
    let scene = Scene::new("backend-header")?;
    let rules = modifying(|change| {
        format!(
            "    backendRefs:\n    - name: echo-v1\n      port: 80\n      filters:\n      \
             - type: RequestHeaderModifier\n        requestHeaderModifier: {{{change}}}"
        )
    });
    scene.route(&http_route("modify", "echo", &rules), |scene| {
        saw(scene, "/add", &[], &[("x-header-add", Some("add-appends-values"))])
    })?;
    check_all(&scene)
}

/// MeshGRPCRouteRequestHeaderModifier.
fn grpc_request_header_modifier() -> anyhow::Result<()> {
    let scene = Scene::new("grpc-header")?;
    let rules = format!(
        "  - matches: [{{method: {{service: echo.Echo, method: Say}}}}]\n    filters:\n    \
         - type: RequestHeaderModifier\n      requestHeaderModifier: {{{SET}, {ADD}, {REMOVE}}}\n    \
         backendRefs: [{{name: echo-v1, port: 7070}}]"
    );
    let parent = "group: \"\"\n    kind: Service\n    name: echo";
    let call = |sent: BTreeMap<&'static str, &'static str>| {
        http2::run(async {
            let mut sender = http2::open(&scene.client, Scene::port("echo", 7070)).await?;
            let mut request = http2::call("/echo.Echo/Say");
            for (name, value) in sent {
                request.headers_mut().insert(name, http::HeaderValue::from_static(value));
            }
            http2::seen(sender.send_request(request).await?).await
        })
    };
    scene.route(&route("GRPCRoute", "shop", "modify", parent, &rules), |_| {
        are(&call(BTreeMap::new())?, &[("x-header-add", Some("add-appends-values"))])
    })?;
    let sent = [("x-header-set", "old"), ("x-header-add", "old"), ("x-header-remove", "old")];
    let expected = [
        ("x-header-set", Some("set-overwrites-values")),
        ("x-header-add", Some("old,add-appends-values")),
        ("x-header-remove", None),
    ];
    are(&call(BTreeMap::from(sent))?, &expected)
}

/// MeshHTTPRouteRewritePath.
fn rewrite_path() -> anyhow::Result<()> {
    let scene = Scene::new("rewrite-path")?;
    let rule = |prefix: &str, path: &str, more: &str| {
        format!(
            "  - matches: [{{path: {{value: {prefix}}}}}]\n    filters:\n    - type: URLRewrite\n      \
             urlRewrite: {{path: {path}}}\n{more}    backendRefs: [{{name: echo-v1, port: 80}}]\n"
        )
    };
    let headers = format!(
        "    - type: RequestHeaderModifier\n      requestHeaderModifier: {{{SET}, {ADD}, {REMOVE}}}\n"
    );
    let replace = |with: &str| format!("{{type: ReplacePrefixMatch, replacePrefixMatch: {with}}}");
    let full = "{type: ReplaceFullPath, replaceFullPath: /one}";
    let rules = [
        rule("/prefix/one", &replace("/one"), ""),
        rule("/strip-prefix", &replace("/"), ""),
        rule("/full/one", full, ""),
        rule(
            "/full/rewrite-path-and-modify-headers",
            "{type: ReplaceFullPath, replaceFullPath: /test}",
            &headers,
        ),
        rule("/prefix/rewrite-path-and-modify-headers", &replace("/prefix"), &headers),
    ]
    .concat();
    let path = |path: &str, expected: &str| -> anyhow::Result<()> {
        let seen = Ask::get(Scene::at("echo"), path).from(&scene.client)?.seen()?;
        ensure!(seen.path == expected, "{path}: {seen:?}");
        Ok(())
    };
    scene
        .route(&http_route("rewrite", "echo", rules.trim_end()), |_| path("/prefix/one", "/one"))?;
    for (asked, expected) in [
        ("/prefix/one/two", "/one/two"),
        ("/prefix/one/two?q=1", "/one/two?q=1"),
        ("/strip-prefix/three", "/three"),
        ("/strip-prefix", "/"),
        ("/full/one/two", "/one"),
        ("/full/rewrite-path-and-modify-headers/test", "/test"),
        ("/prefix/rewrite-path-and-modify-headers/one", "/prefix/one"),
    ] {
        path(asked, expected)?;
    }
    let expected = [("x-header-set", Some("set-overwrites-values")), ("x-header-remove", None)];
    let sent = [("X-Header-Remove", "x")];
    saw(&scene, "/prefix/rewrite-path-and-modify-headers/one", &sent, &expected)
}
