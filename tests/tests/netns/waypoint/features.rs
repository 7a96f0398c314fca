//! Features of routes for which the Gateway API has no test in a mesh.

use std::time::Duration;

use anyhow::ensure;
use harness::asking::{Answer, Ask};
use harness::eventually::eventually;

use super::super::mesh::{SOON, serve};
use super::super::suite::Case;
use super::http2;
use super::mesh_profile::{has, http_route, is_from, route};
use super::scene::Scene;

pub(crate) const CASES: &[Case] = &[
    ("waypoint::features::methods_are_matched", &[], methods),
    ("waypoint::features::mirrors_get_their_share_and_change_nothing", &[], mirrors),
    ("waypoint::features::timeouts_are_kept", &[], timeouts),
    ("waypoint::features::only_what_may_be_repeated_is_retried", &[], retries),
    ("waypoint::features::browsers_of_other_origins_are_answered", &[], cors),
    ("waypoint::features::hosts_are_rewritten", &[], host_rewrite),
    ("waypoint::features::ports_say_what_they_speak", &[], backend_protocol),
    ("waypoint::features::invalid_backends_answer_their_share_with_500", &[], invalid_backends),
    ("waypoint::features::an_invalid_route_leaves_the_others_in_force", &[], invalid_route),
    ("waypoint::features::grpc_methods_and_headers_are_matched", &[], grpc_matching),
    ("waypoint::features::connections_follow_their_tcp_route", &[], tcp_route),
    ("waypoint::features::tls_follows_the_name_that_it_asks_for", &[], tls_route),
    ("waypoint::features::sessions_stay_where_they_began", &[], sessions),
];

const TO_V1: &str = "backendRefs: [{name: echo-v1, port: 80}]";

fn ask(path: &str) -> Ask {
    Ask::get(Scene::at("echo"), path)
}

fn is(answer: &Answer, status: u16) -> anyhow::Result<()> {
    ensure!(answer.status == status, "not {status}: {answer:?}");
    Ok(())
}

/// HTTPRouteMethodMatching.
fn methods() -> anyhow::Result<()> {
    let scene = Scene::new("methods")?;
    let rules = format!(
        "  - matches: [{{method: POST}}]\n    {TO_V1}\n  - matches: [{{method: GET, path: {{value: /get}}}}]\n    \
         backendRefs: [{{name: echo-v2, port: 80}}]"
    );
    scene
        .route(&http_route("methods", "echo", &rules), |scene| is(&scene.ask("echo", "/")?, 404))?;
    is_from(&ask("/get").from(&scene.client)?, "echo-v2")?;
    is_from(&ask("/get").method("POST").from(&scene.client)?, "echo-v1")?;
    is(&ask("/get").method("PUT").from(&scene.client)?, 404)
}

/// HTTPRouteRequestMirror, …MultipleMirrors, …PercentageMirror.
fn mirrors() -> anyhow::Result<()> {
    let scene = Scene::new("mirrors")?;
    let mirror = |service: &str, share: &str| {
        format!(
            "    - type: RequestMirror\n      requestMirror: {{backendRef: {{name: {service}, port: 80}}{share}}}\n"
        )
    };
    let rule = |path: &str, mirrors: &str| {
        format!("  - matches: [{{path: {{value: {path}}}}}]\n    filters:\n{mirrors}    {TO_V1}\n")
    };
    let rules = [
        rule(
            "/twice",
            &format!("{}{}", mirror("echo-v2", ""), mirror("echo-v2", ", percent: 100")),
        ),
        rule("/half", &mirror("echo-v2", ", fraction: {numerator: 1, denominator: 2}")),
        rule("/never", &mirror("echo-v2", ", percent: 0")),
        rule("/nobody", &mirror("missing", "")),
    ]
    .concat();
    scene.route(&http_route("mirrors", "echo", rules.trim_end()), |scene| {
        is(&scene.ask("echo", "/")?, 404)
    })?;
    let copies = || -> anyhow::Result<u64> {
        let address = (scene.v2.ip(), 8080).into();
        let answer = Ask::get(address, "/count").from(&scene.client)?;
        Ok(String::from_utf8_lossy(&answer.body).parse()?)
    };
    // Some came before the route was in force.
    let before = copies()?;
    let copies = || -> anyhow::Result<u64> { Ok(copies()? - before) };
    let posted = ask("/twice").method("POST").body(&[b'x'; 100_000]).from(&scene.client)?;
    ensure!(posted.seen()?.body_bytes == 100_000, "{posted:?}");
    is_from(&posted, "echo-v1")?;
    let exactly = |expected: u64| {
        eventually(SOON, "the copies arrive", || {
            let seen = copies()?;
            ensure!(seen == expected, "{seen} copies");
            Ok(())
        })
    };
    exactly(2)?;
    for path in ["/never", "/nobody"] {
        is_from(&ask(path).from(&scene.client)?, "echo-v1")?;
    }
    exactly(2)?;
    for _ in 0..200 {
        is_from(&ask("/half").from(&scene.client)?, "echo-v1")?;
    }
    eventually(SOON, "about half is copied", || {
        // Five deviations of a fair coin.
        let seen = copies()? - 2;
        ensure!((65..=135).contains(&seen), "{seen} of 200 copied");
        Ok(())
    })
}

/// HTTPRouteRequestTimeout, …BackendTimeout.
fn timeouts() -> anyhow::Result<()> {
    let scene = Scene::new("timeouts")?;
    let rules = format!(
        "  - matches: [{{path: {{value: /delay}}, headers: [{{name: x-limit, value: request}}]}}]\n    \
         timeouts: {{request: 300ms}}\n    {TO_V1}\n  \
         - matches: [{{path: {{value: /delay}}, headers: [{{name: x-limit, value: backend}}]}}]\n    \
         timeouts: {{request: 10s, backendRequest: 300ms}}\n    {TO_V1}\n  \
         - matches: [{{path: {{value: /delay}}, headers: [{{name: x-limit, value: none}}]}}]\n    \
         timeouts: {{request: 0s}}\n    {TO_V1}"
    );
    scene.route(&http_route("timeouts", "echo", &rules), |scene| {
        is(&scene.ask("echo", "/")?, 404)
    })?;
    for (limit, cause) in [("request", "REQUEST_TIMEOUT"), ("backend", "BACKEND_TIMEOUT")] {
        let late = ask("/delay/5000").header("x-limit", limit).from(&scene.client)?;
        is(&late, 504)?;
        let status = late.header("proxy-status").unwrap_or_default();
        ensure!(status.contains(cause), "{late:?}");
        is(&ask("/delay/1").header("x-limit", limit).from(&scene.client)?, 200)?;
    }
    is(&ask("/delay/500").header("x-limit", "none").from(&scene.client)?, 200)
}

/// HTTPRouteRetry and its limits.
fn retries() -> anyhow::Result<()> {
    let scene = Scene::new("retries")?;
    let retry = "retry: {codes: [503], attempts: 2, backoff: 10ms}";
    let rules = format!("  - {retry}\n    {TO_V1}");
    scene.route(&http_route("retries", "echo", &rules), |scene| {
        (0..20).try_for_each(|_| is_from(&scene.ask("echo", "/")?, "echo-v1"))
    })?;
    let attempts = |ask: Ask| -> anyhow::Result<String> {
        let answer = ask.from(&scene.client)?;
        let seen = answer.seen()?;
        Ok(seen.headers.get("x-envoy-attempt-count").cloned().unwrap_or_default())
    };
    ensure!(attempts(ask("/status/503"))? == "3", "an idempotent request is sent again, twice");
    ensure!(attempts(ask("/status/500"))? == "1", "another status is an answer");
    ensure!(attempts(ask("/status/503").method("POST"))? == "1", "a POST may have had an effect");
    for (bytes, expected) in [(64 << 10, "3"), ((64 << 10) + 1, "1")] {
        let put = ask("/status/503").method("PUT").body(&vec![b'x'; bytes]);
        let seen = put.from(&scene.client)?.seen()?;
        ensure!(seen.body_bytes == bytes, "{} of {bytes} bytes", seen.body_bytes);
        ensure!(attempts(put)? == expected, "a body of {bytes} bytes, {expected} attempts");
    }
    let allowed = http_route("retries", "echo", &rules).replace(
        "  name: retries\n",
        "  name: retries\n  annotations: {culvert.dev/retry-delivered: \"true\"}\n",
    );
    scene.route(&allowed, |_| {
        ensure!(attempts(ask("/status/503").method("POST"))? == "3", "its owner allows it");
        Ok(())
    })
}

/// HTTPRouteCORS.
fn cors() -> anyhow::Result<()> {
    let scene = Scene::new("cors")?;
    let rules = format!(
        "  - filters:\n    - type: CORS\n      cors:\n        allowOrigins: [\"https://www.foo.example\"]\n        \
         allowMethods: [GET, PUT]\n        allowHeaders: [x-custom]\n        exposeHeaders: [x-pod]\n        \
         allowCredentials: true\n        maxAge: 3600\n    {TO_V1}"
    );
    let from = |origin: &str| ask("/").header("Origin", origin);
    scene.route(&http_route("cors", "echo", &rules), |scene| {
        let simple = from("https://www.foo.example").from(&scene.client)?;
        has(&simple, "access-control-allow-origin", Some("https://www.foo.example"))?;
        has(&simple, "access-control-allow-credentials", Some("true"))?;
        has(&simple, "access-control-expose-headers", Some("x-pod"))
    })?;
    let preflight = |origin: &str| {
        let ask = from(origin).method("OPTIONS").header("Access-Control-Request-Method", "PUT");
        ask.header("Access-Control-Request-Headers", "x-custom").from(&scene.client)
    };
    let allowed = preflight("https://www.foo.example")?;
    ensure!(matches!(allowed.status, 200 | 204), "{allowed:?}");
    ensure!(allowed.header("x-pod").is_none(), "a preflight is not forwarded: {allowed:?}");
    ensure!(allowed.header("access-control-max-age") == Some("3600"), "{allowed:?}");
    for origin in ["https://foo.example", "http://www.foo.example"] {
        let foreign = preflight(origin)?;
        ensure!(foreign.header("access-control-allow-origin").is_none(), "{foreign:?}");
        let simple = from(origin).from(&scene.client)?;
        has(&simple, "access-control-allow-origin", None)?;
    }
    Ok(())
}

/// HTTPRouteHostRewrite.
fn host_rewrite() -> anyhow::Result<()> {
    let scene = Scene::new("host-rewrite")?;
    let rules = format!(
        "  - filters: [{{type: URLRewrite, urlRewrite: {{hostname: one.example.org}}}}]\n    {TO_V1}"
    );
    scene.route(&http_route("host", "echo", &rules), |scene| {
        let seen = scene.ask("echo", "/path?q=1")?.seen()?;
        ensure!(seen.host == "one.example.org" && seen.path == "/path?q=1", "{seen:?}");
        Ok(())
    })
}

/// HTTPRouteBackendProtocolH2C, and its opposite: what the port says counts, not what the client speaks.
fn backend_protocol() -> anyhow::Result<()> {
    let scene = Scene::new("protocols")?;
    let one = Ask::get(Scene::port("echo", 7070), "/").from(&scene.client)?.seen()?;
    ensure!(one.version == "HTTP/2.0", "{one:?}");
    let two = http2::run(async {
        let mut sender = http2::open(&scene.client, Scene::at("echo")).await?;
        http2::seen(sender.send_request(http2::get("/")).await?).await
    })?;
    ensure!(two.version == "HTTP/1.1", "{two:?}");
    Ok(())
}

/// HTTPRouteInvalid…: a share that leads nowhere is answered, and the rest flows.
fn invalid_backends() -> anyhow::Result<()> {
    let scene = Scene::new("invalid")?;
    let rule = |path: &str, rest: &str| {
        format!("  - matches: [{{path: {{value: {path}}}}}]\n    {rest}\n")
    };
    let rules = [
        rule("/half", "backendRefs: [{name: echo-v1, port: 80}, {name: missing, port: 80}]"),
        rule("/port", "backendRefs: [{name: echo-v1, port: 81}]"),
        rule("/zero", "backendRefs: [{name: echo-v1, port: 80, weight: 0}]"),
        rule("/foreign", "backendRefs: [{name: echo-v1, namespace: elsewhere, port: 80}]"),
        rule("/none", "filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {remove: [x]}}]"),
        rule(
            "/extension",
            "filters: [{type: ExtensionRef, extensionRef: {group: a.example, kind: B, name: c}}]\n    \
             backendRefs: [{name: echo-v1, port: 80}]",
        ),
    ]
    .concat();
    scene.route(&http_route("invalid", "echo", rules.trim_end()), |scene| {
        is(&scene.ask("echo", "/")?, 404)
    })?;
    for (path, cause) in [
        ("/port", "BACKEND_INVALID"),
        ("/zero", "BACKENDS_MISSING"),
        ("/foreign", "BACKEND_INVALID"),
        ("/none", "BACKENDS_MISSING"),
        ("/extension", "FILTER_UNSUPPORTED"),
    ] {
        let answer = scene.ask("echo", path)?;
        is(&answer, 500)?;
        ensure!(answer.header("proxy-status").unwrap_or_default().contains(cause), "{answer:?}");
    }
    let answers: Vec<u16> =
        (0..100).map(|_| Ok(scene.ask("echo", "/half")?.status)).collect::<anyhow::Result<_>>()?;
    let failed = answers.iter().filter(|status| **status == 500).count();
    ensure!((25..=75).contains(&failed), "{failed} of 100 failed");
    ensure!(answers.iter().all(|status| matches!(status, 200 | 500)), "{answers:?}");
    Ok(())
}

/// Only the invalid route is out of force, and it is named.
fn invalid_route() -> anyhow::Result<()> {
    let scene = Scene::new("invalid-route")?;
    let good = http_route(
        "good",
        "echo",
        &format!("  - matches: [{{path: {{value: /good}}}}]\n    {TO_V1}"),
    );
    let bad = http_route("bad", "echo", "  - matches: [{path: {type: Guess, value: \"/a//b\"}}]");
    scene.route(&format!("{good}{bad}"), |scene| is(&scene.ask("echo", "/")?, 404))?;
    is_from(&scene.ask("echo", "/good")?, "echo-v1")?;
    let dump = scene.waypoint_pod.get("127.0.0.1:15000", "/config_dump")?.1;
    let dump: serde_json::Value = serde_json::from_str(&dump)?;
    let verdicts = dump["verdicts"].as_array().cloned().unwrap_or_default();
    let about = |name: &str| {
        verdicts
            .iter()
            .any(|one| one["object"] == format!("HTTPRoute/shop/{name}") && one["inForce"] == false)
    };
    ensure!(about("bad") && !about("good"), "{verdicts:?}");
    Ok(())
}

/// GRPCRouteExactMethodMatching, GRPCRouteHeaderMatching.
fn grpc_matching() -> anyhow::Result<()> {
    let scene = Scene::new("grpc-matching")?;
    let to = |service: &str| format!("backendRefs: [{{name: {service}, port: 7070}}]");
    let (one, two) = (to("echo-v1"), to("echo-v2"));
    let rules = format!(
        "  - matches: [{{method: {{service: a.A, method: One}}}}]\n    {one}\n  \
         - matches: [{{method: {{service: a.A}}, headers: [{{name: version, value: two}}]}}]\n    {two}\n  \
         - matches: [{{method: {{method: Any}}}}]\n    {two}"
    );
    let parent = "group: \"\"\n    kind: Service\n    name: echo";
    let call = |path: &'static str, version: &'static str| {
        http2::run(async {
            let mut sender = http2::open(&scene.client, Scene::port("echo", 7070)).await?;
            let mut request = http2::call(path);
            request.headers_mut().insert("version", http::HeaderValue::from_static(version));
            let response = sender.send_request(request).await?;
            let text = |name: &str| {
                response
                    .headers()
                    .get(name)
                    .and_then(|it| it.to_str().ok())
                    .unwrap_or("")
                    .to_owned()
            };
            Ok((text("x-pod"), text("grpc-status")))
        })
    };
    scene.route(&route("GRPCRoute", "shop", "grpc", parent, &rules), |_| {
        let (pod, status) = call("/b.B/Other", "one")?;
        ensure!(pod.is_empty() && status == "12", "nothing matches: {pod:?} {status:?}");
        Ok(())
    })?;
    for (path, version, pod) in [
        ("/a.A/One", "one", "echo-v1"),
        ("/a.A/One", "two", "echo-v1"),
        ("/a.A/Two", "two", "echo-v2"),
        ("/b.B/Any", "one", "echo-v2"),
    ] {
        let answer = call(path, version)?;
        ensure!(answer.0 == pod, "{path} {version}: {answer:?}");
    }
    Ok(())
}

/// A connection that is no HTTP goes where its route leads.
fn tcp_route() -> anyhow::Result<()> {
    let scene = Scene::new("tcp-route")?;
    let _banners = [serve(&scene.v1, "banner", 9090)?, serve(&scene.v2, "banner", 9090)?];
    let yaml = route(
        "TCPRoute",
        "shop",
        "tcp",
        "group: \"\"\n    kind: Service\n    name: echo\n    port: 9090",
        "  - backendRefs: [{name: echo-v2, port: 9090}]",
    )
    .replace("gateway.networking.k8s.io/v1\n", "gateway.networking.k8s.io/v1alpha2\n");
    scene.route(&yaml, |_| {
        for _ in 0..20 {
            let said = greeting(&scene, 9090, &[])?;
            ensure!(said.contains("echo-v2"), "{said:?}");
        }
        Ok(())
    })
}

/// What a port of the service says to a client that says `first`.
pub(super) fn greeting(scene: &Scene, port: u16, first: &[u8]) -> anyhow::Result<String> {
    let to = Scene::port("echo", port);
    Ok(scene.client.netns().run(|| {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect_timeout(&to, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(first)?;
        let mut said = [0; 256];
        let count = stream.read(&mut said)?;
        Ok(String::from_utf8_lossy(&said[..count]).into_owned())
    })?)
}

/// TLS that passes through goes by the server name of its handshake.
fn tls_route() -> anyhow::Result<()> {
    let scene = Scene::new("tls-route")?;
    // They speak first, whatever they are told: it is the way there that counts.
    let _banners = [serve(&scene.v1, "banner", 8443)?, serve(&scene.v2, "banner", 8443)?];
    let parent = "group: \"\"\n    kind: Service\n    name: echo\n    port: 443";
    let to = |name: &str, host: &str| {
        route(
            "TLSRoute",
            "shop",
            name,
            parent,
            &format!("  - backendRefs: [{{name: {name}, port: 443}}]"),
        )
        .replace("spec:\n", &format!("spec:\n  hostnames: [\"{host}\"]\n"))
    };
    let yaml = format!("{}{}", to("echo-v1", "one.example"), to("echo-v2", "*.two.example"));
    let asks = |name: &'static str| greeting(&scene, 443, &client_hello(name)?);
    scene.route(&yaml, |_| {
        for _ in 0..10 {
            let said = asks("one.example")?;
            ensure!(said.contains("echo-v1"), "{said:?}");
        }
        Ok(())
    })?;
    for _ in 0..10 {
        let said = asks("www.two.example")?;
        ensure!(said.contains("echo-v2"), "{said:?}");
    }
    Ok(())
}

/// The first bytes of a TLS client that asks for `name`.
pub(super) fn client_hello(name: &'static str) -> anyhow::Result<Vec<u8>> {
    let config = rustls::ClientConfig::builder_with_provider(shared::tls::provider::provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = rustls::pki_types::ServerName::try_from(name)?;
    let mut client = rustls::ClientConnection::new(std::sync::Arc::new(config), name)?;
    let mut hello = Vec::new();
    client.write_tls(&mut hello)?;
    Ok(hello)
}

/// GEP-1619: a session beats weights, and begins anew where its endpoint is gone.
fn sessions() -> anyhow::Result<()> {
    let scene = Scene::new("sessions")?;
    let rules = "  - backendRefs: [{name: echo-v1, port: 80}, {name: echo-v2, port: 80}]\n    \
                 sessionPersistence: {type: Cookie, sessionName: shop-session}";
    scene.route(&http_route("sessions", "echo", rules), |scene| {
        ensure!(scene.ask("echo", "/")?.header("set-cookie").is_some());
        Ok(())
    })?;
    let first = scene.ask("echo", "/")?;
    let cookie = first.header("set-cookie").and_then(|line| line.split(';').next());
    let cookie = cookie.unwrap_or_default().to_owned();
    ensure!(cookie.starts_with("shop-session="), "{first:?}");
    let pod = first.seen()?.pod;
    let again = || ask("/").header("Cookie", &format!("other=1; {cookie}")).from(&scene.client);
    for _ in 0..20 {
        let answer = again()?;
        is_from(&answer, &pod)?;
        ensure!(answer.header("set-cookie").is_none(), "it knows already: {answer:?}");
    }
    let gone = if pod == "echo-v1" { &scene.v1 } else { &scene.v2 };
    scene.cluster.mesh().remove(&gone.file())?;
    eventually(SOON, "the session moves", || {
        let answer = again()?;
        // Half of the draws are for the service that has no endpoint any more.
        ensure!(answer.status == 200 && answer.header("set-cookie").is_some(), "{answer:?}");
        ensure!(answer.header("x-pod") != Some(pod.as_str()), "{answer:?}");
        Ok(())
    })
}
