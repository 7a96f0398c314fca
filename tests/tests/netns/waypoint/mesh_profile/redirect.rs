//! Answers that lead elsewhere.

use anyhow::ensure;
use harness::asking::Ask;

use super::super::scene::Scene;
use super::http_route;
use crate::netns::suite::Case;

pub(crate) const CASES: &[Case] = &[
    ("mesh_profile::redirect_host_and_status", &[], redirect_host_and_status),
    ("mesh_profile::redirect_path", &[], redirect_path),
    ("mesh_profile::redirect_port", &[], redirect_port),
    ("mesh_profile::redirect_scheme", &[], redirect_scheme),
    ("mesh_profile::redirect_303_307_308", &[], redirect_303_307_308),
];

/// A path, its redirect in YAML, the status, and where to.
type Redirect<'a> = (&'a str, &'a str, u16, &'a str);

/// One rule for each, and each is asked for.
fn all(name: &str, redirects: &[Redirect<'_>]) -> anyhow::Result<()> {
    let scene = Scene::new(name)?;
    let rules: Vec<String> = redirects
        .iter()
        .map(|(path, redirect, ..)| {
            format!(
                "  - matches: [{{path: {{value: {path}}}}}]\n    filters:\n    - type: RequestRedirect\n      \
                 requestRedirect: {redirect}"
            )
        })
        .collect();
    scene.route(&http_route("redirect", "echo", &rules.join("\n")), |scene| {
        let first = scene.ask("echo", redirects[0].0)?;
        ensure!((300..400).contains(&first.status), "{first:?}");
        Ok(())
    })?;
    for (path, _, status, location) in redirects {
        let ask = Ask::get(Scene::at("echo"), path).header("Host", "echo");
        let answer = ask.from(&scene.client)?;
        let shown = answer.header("location");
        ensure!(answer.status == *status && shown == Some(*location), "{path}: {answer:?}");
    }
    Ok(())
}

/// MeshHTTPRouteRedirectHostAndStatus.
fn redirect_host_and_status() -> anyhow::Result<()> {
    all(
        "redirect-host",
        &[
            (
                "/hostname-redirect",
                "{hostname: example.org}",
                302,
                "http://example.org/hostname-redirect",
            ),
            (
                "/host-and-status",
                "{hostname: example.org, statusCode: 301}",
                301,
                "http://example.org/host-and-status",
            ),
        ],
    )
}

/// MeshHTTPRouteRedirectPath.
fn redirect_path() -> anyhow::Result<()> {
    let prefix = "path: {type: ReplacePrefixMatch, replacePrefixMatch: /replacement-prefix}";
    let full = "path: {type: ReplaceFullPath, replaceFullPath: /replacement-full}";
    all(
        "redirect-path",
        &[
            ("/original-prefix", &format!("{{{prefix}}}"), 302, "http://echo/replacement-prefix"),
            ("/full", &format!("{{{full}}}"), 302, "http://echo/replacement-full"),
            (
                "/path-and-host",
                &format!("{{{prefix}, hostname: example.org}}"),
                302,
                "http://example.org/replacement-prefix",
            ),
            (
                "/path-and-status",
                &format!("{{{prefix}, statusCode: 301}}"),
                301,
                "http://echo/replacement-prefix",
            ),
            (
                "/full-path-and-host",
                &format!("{{{full}, hostname: example.org}}"),
                302,
                "http://example.org/replacement-full",
            ),
            (
                "/full-path-and-status",
                &format!("{{{full}, statusCode: 301}}"),
                301,
                "http://echo/replacement-full",
            ),
        ],
    )
}

/// MeshHTTPRouteRedirectPort.
fn redirect_port() -> anyhow::Result<()> {
    all(
        "redirect-port",
        &[
            ("/port", "{port: 8083}", 302, "http://echo:8083/port"),
            (
                "/port-and-host",
                "{port: 8083, hostname: example.org}",
                302,
                "http://example.org:8083/port-and-host",
            ),
            (
                "/port-and-status",
                "{port: 8083, statusCode: 301}",
                301,
                "http://echo:8083/port-and-status",
            ),
            (
                "/port-and-host-and-status",
                "{port: 8083, hostname: example.org, statusCode: 302}",
                302,
                "http://example.org:8083/port-and-host-and-status",
            ),
        ],
    )
}

/// MeshHTTPRouteSchemeRedirect.
fn redirect_scheme() -> anyhow::Result<()> {
    all(
        "redirect-scheme",
        &[
            ("/scheme", "{scheme: https}", 302, "https://echo/scheme"),
            (
                "/scheme-and-host",
                "{scheme: https, hostname: example.org}",
                302,
                "https://example.org/scheme-and-host",
            ),
            (
                "/scheme-and-status",
                "{scheme: https, statusCode: 301}",
                301,
                "https://echo/scheme-and-status",
            ),
            (
                "/scheme-and-port",
                "{scheme: https, port: 8443}",
                302,
                "https://echo:8443/scheme-and-port",
            ),
        ],
    )
}

/// MeshHTTPRoute303Redirect, …307Redirect, …308Redirect.
fn redirect_303_307_308() -> anyhow::Result<()> {
    all(
        "redirect-status",
        &[
            (
                "/see-other",
                "{statusCode: 303, hostname: example.org}",
                303,
                "http://example.org/see-other",
            ),
            (
                "/temporary",
                "{statusCode: 307, hostname: example.org}",
                307,
                "http://example.org/temporary",
            ),
            (
                "/permanent",
                "{statusCode: 308, hostname: example.org}",
                308,
                "http://example.org/permanent",
            ),
        ],
    )
}
