//! Policies that are attached to a waypoint or to a service behind it.

use std::io;

use anyhow::{Context as _, ensure};
use harness::asking::{Answer, Ask};
use harness::backend::Guest;
use harness::eventually::eventually;
use harness::pod::{Pod, PodSpec};
use harness::waypoint::Waypoint;
use tokio_tungstenite::tungstenite::{self, Message};

use super::super::mesh::{SOON, serve};
use super::super::suite::Case;
use super::lab::{HTTP, HTTP_TOO, Lab, UNNAMED};
use super::scene::Scene;

pub(crate) const CASES: &[Case] = &[
    ("waypoint::authz::requests_are_denied_by_what_they_are", &[], denied),
    ("waypoint::authz::requests_are_allowed_by_what_they_are", &[], allowed),
    ("waypoint::authz::a_policy_is_for_what_it_is_attached_to", &[], attached),
    ("waypoint::authz::a_changed_policy_ends_what_it_denies", &[], changed),
    ("waypoint::authz::what_is_no_http_is_denied_by_rules_about_http", &[], closed),
    ("waypoint::authz::a_node_proxy_denies_by_rules_about_http", &[], node),
    (
        "waypoint::authz::applications_are_told_their_client_where_the_gateway_asks",
        &[],
        told_client,
    ),
];

const ECHO: &str = "{group: \"\", kind: Service, name: echo}";
const DENIED: &[u8] = b"RBAC: access denied";

/// A policy of namespace `shop`; `rest` is in the flow style of YAML.
fn policy(name: &str, target: &str, rest: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, \
         namespace: shop}}\nspec: {{targetRefs: [{target}], {rest}}}\n---\n"
    )
}

fn is(answer: &Answer, status: u16) -> anyhow::Result<()> {
    ensure!(answer.status == status, "not {status}: {answer:?}");
    Ok(())
}

fn is_denied(answer: &Answer) -> anyhow::Result<()> {
    is(answer, 403)?;
    ensure!(answer.body == DENIED, "{answer:?}");
    let said = answer.header("proxy-status");
    ensure!(said == Some("culvert; details=POLICY_DENIED"), "{answer:?}");
    Ok(())
}

fn ask(path: &str) -> Ask {
    Ask::get(Scene::at("echo"), path)
}

/// Puts policies in force, and waits until `shown` says so.
fn enforce(
    scene: &Scene,
    yaml: &str,
    shown: impl Fn() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    scene.cluster.mesh().write("policies.yaml", yaml)?;
    eventually(SOON, "the policies are in force", shown)
}

fn guest(scene: &Scene) -> anyhow::Result<Pod> {
    let guest = scene.cluster.pod(scene.client.node(), PodSpec::new("guest").namespace("shop"))?;
    eventually(SOON, "the guest is in the mesh", || is(&ask("/").from(&guest)?, 200))?;
    Ok(guest)
}

fn denied() -> anyhow::Result<()> {
    let scene = Scene::new("authz-deny")?;
    let guest = guest(&scene)?;
    let rules = "action: DENY, rules: [\
        {to: [{operation: {paths: ['/admin*', '/users/{*}/keys']}}]}, \
        {from: [{source: {principals: ['cluster.local/ns/shop/sa/guest']}}], to: [{operation: \
        {methods: [POST]}}]}, \
        {to: [{operation: {hosts: [evil.example, 'evil.example:*']}}]}, \
        {when: [{key: 'request.headers[x-role]', values: [intern]}]}]";
    enforce(&scene, &policy("no", ECHO, rules), || is_denied(&ask("/admin").from(&scene.client)?))?;
    for path in ["/admin/x?y", "/%61dmin", "/./admin", "/x/../admin", "/users/7/keys", "/\\admin"] {
        let answer = ask(path).from(&scene.client)?;
        match path {
            // An empty segment stays one: //admin is another path, as in Istio's default.
            "/\\admin" => is(&answer, 200).with_context(|| path.to_owned())?,
            _ => is_denied(&answer).with_context(|| path.to_owned())?,
        }
    }
    for path in ["/", "/users/7/keys/x", "/ADMIN", "/?/admin"] {
        is(&ask(path).from(&scene.client)?, 200).with_context(|| path.to_owned())?;
    }
    is_denied(&ask("/").method("POST").from(&guest)?)?;
    is(&ask("/").from(&guest)?, 200)?;
    is(&ask("/").method("POST").from(&scene.client)?, 200)?;
    for host in ["evil.example", "EVIL.example.", "evil.example:80", "http://evil.example/"] {
        let ask = match host.strip_prefix("http://") {
            // RFC 9112 §3.2.2: the target's own authority wins over Host.
            Some(_) => ask(host).header("Host", "good.example"),
            None => ask("/").header("Host", host),
        };
        is_denied(&ask.from(&scene.client)?).with_context(|| host.to_owned())?;
    }
    let twice = ask("/").header("X-Role", "staff").header("X-Role", "intern");
    is_denied(&twice.from(&scene.client)?)?;
    is(&ask("/").header("X-Role", "staff").from(&scene.client)?, 200)?;
    told(&scene)?;
    let grpc = ask("/admin").method("POST").header("Content-Type", "application/grpc");
    let grpc = grpc.from(&scene.client)?;
    is(&grpc, 200)?;
    ensure!(grpc.header("grpc-status") == Some("7"), "{grpc:?}");
    enforce(&scene, "", || is(&ask("/admin").from(&scene.client)?, 200))
}

/// Waits until the newest line of a cause says why.
fn last(scene: &Scene, cause: &str, why: &str) -> anyhow::Result<()> {
    eventually(SOON, "the log says why", || {
        let line = scene.waypoint.caused(cause).pop().ok_or("no line")?;
        if line["error"] == why { Ok(()) } else { Err(line.to_string()) }
    })
}

/// The denial is in the log with its policy and in the metrics.
fn told(scene: &Scene) -> anyhow::Result<()> {
    let line = eventually(SOON, "the denial is told", || {
        scene.waypoint.caused("POLICY_DENIED").pop().ok_or("no line")
    })?;
    ensure!(line["error"] == "explicitly denied by: shop/no" && line["status"] == 403, "{line}");
    ensure!(line["src.identity"] == scene.client.identity(), "{line}");
    ensure!(line["dst.service"] == "echo.shop.svc.cluster.local", "{line}");
    eventually(SOON, "the denial is counted", || {
        let (_, metrics) = scene.waypoint_pod.get("127.0.0.1:15020", "/metrics")?;
        let denied = |line: &str| {
            line.starts_with("istio_requests_total")
                && line.contains("response_code=\"403\"")
                && line.contains("ns/shop/sa/client\"")
        };
        ensure!(metrics.lines().any(denied), "{metrics}");
        anyhow::Ok(())
    })
}

fn allowed() -> anyhow::Result<()> {
    let scene = Scene::new("authz-allow")?;
    let guest = guest(&scene)?;
    let rules = "rules: [\
        {from: [{source: {serviceAccounts: [client]}}], to: [{operation: {methods: [GET], paths: \
        ['/open*']}}]}, \
        {from: [{source: {namespaces: [shop]}}], when: [{key: 'request.headers[x-key]', values: \
        [secret]}, {key: destination.port, values: ['80']}]}]";
    enforce(&scene, &policy("some", ECHO, rules), || is_denied(&ask("/").from(&scene.client)?))?;
    is(&ask("/open/x").from(&scene.client)?, 200)?;
    is_denied(&ask("/open/x").method("PUT").from(&scene.client)?)?;
    is_denied(&ask("/open/../x").from(&scene.client)?)?;
    is_denied(&ask("/open").from(&guest)?)?;
    let keyed = |keys: &[&str]| keys.iter().fold(ask("/"), |ask, key| ask.header("X-Key", key));
    is(&keyed(&["secret"]).from(&guest)?, 200)?;
    is_denied(&keyed(&["secret", "guess"]).from(&guest)?)?;
    let other_port = Ask::get(Scene::port("echo", 8080), "/").header("X-Key", "secret");
    is_denied(&other_port.from(&guest)?)?;
    // A token cannot be seen, so nothing is allowed by one, and a denial does not wait for one.
    let token = "rules: [{from: [{source: {requestPrincipals: ['*']}}]}]";
    enforce(&scene, &policy("token", ECHO, token), || {
        is_denied(&keyed(&["secret"]).from(&guest)?)
    })?;
    last(&scene, "POLICY_DENIED", "allow policies exist, but none allowed")?;
    let custom = "action: CUSTOM, provider: {name: x}, rules: [{}]";
    enforce(&scene, &policy("custom", ECHO, custom), || {
        is_denied(&ask("/open").from(&scene.client)?)?;
        let line = scene.waypoint.caused("POLICY_DENIED").pop().context("no line")?;
        ensure!(line["error"] == "explicitly denied by: shop/custom", "{line}");
        Ok(())
    })?;
    // Trials and audits change nothing.
    let trial = policy("trial", ECHO, "action: DENY, rules: [{}]")
        .replace("namespace: shop}", "namespace: shop, annotations: {istio.io/dry-run: 'true'}}");
    let audit = policy("watch", ECHO, "action: AUDIT, rules: [{to: [{operation: {paths: [/a]}}]}]");
    enforce(&scene, &(trial + &audit), || is(&ask("/a").from(&scene.client)?, 200))?;
    eventually(SOON, "the audit is told", || {
        let log = scene.waypoint.log();
        let audited =
            log.iter().any(|line| line["audited"] == "shop/watch" && line["path"] == "/a");
        if audited { Ok(()) } else { Err("it is not") }
    })
}

fn attached() -> anyhow::Result<()> {
    let scene = Scene::new("authz-attached")?;
    let rules = "action: DENY, rules: [{to: [{operation: {paths: [/no]}}]}]";
    let refused =
        |service: &str| -> anyhow::Result<bool> { Ok(scene.ask(service, "/no")?.status == 403) };
    enforce(&scene, &policy("one", ECHO, rules), || is_denied(&scene.ask("echo", "/no")?))?;
    ensure!(!refused("echo-v1")?, "another service is none of its business");
    let gateway = "{group: gateway.networking.k8s.io, kind: Gateway, name: waypoint}";
    enforce(&scene, &policy("all", gateway, rules), || is_denied(&scene.ask("echo-v1", "/no")?))?;
    ensure!(refused("echo")? && refused("echo-v2")?);
    let class = "{group: gateway.networking.k8s.io, kind: GatewayClass, name: istio-waypoint}";
    let everywhere =
        policy("every", class, rules).replace("namespace: shop", "namespace: istio-system");
    enforce(&scene, "", || is(&scene.ask("echo", "/no")?, 200))?;
    enforce(&scene, &everywhere, || is_denied(&scene.ask("echo", "/no")?))?;
    let elsewhere = gateway.replace("name: waypoint", "name: other");
    enforce(&scene, &policy("other", &elsewhere, rules), || is(&scene.ask("echo", "/no")?, 200))
}

const LAB: &str = "{kind: Service, name: lab}";

/// Whatever is said comes back, line by line.
fn lines(guest: &mut Guest) -> io::Result<()> {
    while let Some(line) = guest.wire.until(b"\n")? {
        guest.say(line)?;
    }
    Ok(())
}

fn websocket(guest: &mut Guest) -> io::Result<()> {
    let mut socket = tungstenite::accept(guest.wire.stream()?).map_err(io::Error::other)?;
    while let Ok(message) = socket.read() {
        if message.is_text() {
            socket.send(message).map_err(io::Error::other)?;
        }
    }
    Ok(())
}

/// A response that does not end.
fn endless(guest: &mut Guest) -> io::Result<()> {
    while guest.request()?.is_some() {
        guest.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")?;
        guest.wire.rest()?;
    }
    Ok(())
}

fn changed() -> anyhow::Result<()> {
    let lab = Lab::new("authz-changed")?;
    let _bytes = lab.backend(UNNAMED, lines)?;
    let _websockets = lab.backend(HTTP, websocket)?;
    let _endless = lab.backend(HTTP_TOO, endless)?;
    let open = || -> anyhow::Result<_> {
        let mut bytes = lab.wire(UNNAMED)?;
        bytes.say("one\n")?;
        ensure!(bytes.until(b"\n")?.as_deref() == Some(&b"one\n"[..]));
        let (mut socket, _) = tungstenite::client("ws://lab/chat", lab.wire(HTTP)?.into_stream())?;
        socket.send(Message::text("one"))?;
        ensure!(socket.read()? == Message::text("one"));
        let mut stream = lab.wire(HTTP_TOO)?;
        stream.say("GET /stream HTTP/1.1\r\nHost: lab\r\nX-Role: admin\r\n\r\n")?;
        ensure!(stream.until(b"first\r\n")?.is_some());
        Ok((bytes, socket, stream))
    };
    let (mut bytes, mut socket, mut stream) = open()?;
    // A policy for others and one that allows them change nothing for them.
    let other = policy("other", "{kind: Service, name: echo}", "action: DENY, rules: [{}]");
    enforce(&lab.scene, &other, || is_denied(&lab.scene.ask("echo", "/")?))?;
    bytes.say("two\n")?;
    ensure!(bytes.until(b"\n")?.as_deref() == Some(&b"two\n"[..]), "bytes go on");
    socket.send(Message::text("two"))?;
    ensure!(socket.read()? == Message::text("two"), "the websocket goes on");
    let rules = "action: DENY, rules: [{from: [{source: {principals: ['*/sa/client']}}]}]";
    lab.scene.cluster.mesh().write("policies.yaml", &policy("no", LAB, rules))?;
    let rest = bytes.rest();
    ensure!(rest.as_ref().is_err() || rest.as_ref().is_ok_and(Vec::is_empty), "{rest:?}");
    ensure!(socket.read().is_err(), "the websocket goes on");
    let cut = stream.rest();
    ensure!(cut.as_ref().map_or(true, |rest| !rest.ends_with(b"0\r\n\r\n")), "{cut:?}");
    eventually(SOON, "all three are told, with the policy", || {
        let mut closed = lab.scene.waypoint.caused("POLICY_CHANGED");
        closed.retain(|line| line["dst.service"] == "lab.shop.svc.cluster.local");
        let why = |line: &serde_json::Value| line["error"].as_str().map(str::to_owned);
        let named = |why: String| why.ends_with("explicitly denied by: shop/no");
        let all = closed.len() == 3 && closed.iter().filter_map(why).all(named);
        if all { Ok(()) } else { Err(format!("{closed:?}")) }
    })?;
    is_denied(&Lab::get(HTTP_TOO, "/").from(&lab.scene.client)?)
}

fn closed() -> anyhow::Result<()> {
    let scene = Scene::new("authz-bytes")?;
    let _echo = serve(&scene.v1, "echo", 9090)?;
    let _other = serve(&scene.v2, "echo", 9090)?;
    let echoes = || -> anyhow::Result<bool> {
        let mut wire = harness::wire::Wire::open(&scene.client, Scene::port("echo", 9090))?;
        wire.say("hello\n")?;
        Ok(matches!(wire.take(6), Ok(said) if said == b"hello\n"))
    };
    ensure!(echoes()?, "without policies");
    let http = "rules: [{to: [{operation: {paths: [/admin]}}]}]";
    let port = "rules: [{to: [{operation: {ports: ['9090']}}]}]";
    let expect = |expected: bool| {
        move |found: bool| -> anyhow::Result<()> {
            ensure!(found == expected, "carried: {found}");
            Ok(())
        }
    };
    for (rest, carried) in [
        (format!("action: DENY, {http}"), false),
        (http.to_owned(), false),
        (port.to_owned(), true),
        (format!("action: DENY, {port}"), false),
    ] {
        enforce(&scene, "", || expect(true)(echoes()?))?;
        enforce(&scene, &policy("p", ECHO, &rest), || {
            expect(carried)(echoes()?)?;
            // An allowing policy is in force when other ports are closed.
            let other = scene.ask("echo", "/")?.status;
            ensure!((other == 200) == rest.starts_with("action"), "{other} at port 80");
            Ok(())
        })
        .with_context(|| rest.clone())?;
    }
    let denied = scene.waypoint.caused("POLICY_DENIED");
    ensure!(
        denied.iter().any(|line| line["error"] == "explicitly denied by: shop/p"),
        "{denied:?}"
    );
    Ok(())
}

/// A policy about HTTP for pods, not for a waypoint: their node proxy cannot tell, and denies.
fn node() -> anyhow::Result<()> {
    let scene = Scene::new("authz-node")?;
    let yaml = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: no, \
        namespace: shop}\nspec: {selector: {matchLabels: {version: v1}}, action: DENY, rules: \
        [{to: [{operation: {paths: [/admin]}}]}]}\n";
    enforce(&scene, yaml, || is(&scene.ask("echo-v1", "/")?, 503))?;
    last(&scene, "UPSTREAM_REFUSED", "endpoint's proxy answered 401 Unauthorized (POLICY_DENIED)")?;
    is(&scene.ask("echo-v2", "/")?, 200)
}

/// `ambient.istio.io/xfcc-include-client-identity`.
fn told_client() -> anyhow::Result<()> {
    let scene = Scene::new("authz-xfcc")?;
    let forged = ask("/").header("X-Forwarded-Client-Cert", "By=x;URI=spiffe://forged");
    let told = || -> anyhow::Result<Option<String>> {
        let seen = forged.from(&scene.client)?.seen()?;
        Ok(seen.headers.get("x-forwarded-client-cert").cloned())
    };
    ensure!(told()?.is_none(), "nobody asked, and what a client says there is gone");
    let gateway = Waypoint::gateway("shop", "waypoint", "10.96.0.2").replacen(
        "  namespace: shop\n",
        "  namespace: shop\n  annotations:\n    ambient.istio.io/xfcc-include-client-identity: \"true\"\n",
        1,
    );
    scene.cluster.mesh().write("waypoint.yaml", &gateway)?;
    let expected = format!("By={};URI={}", scene.waypoint_pod.identity(), scene.client.identity());
    eventually(SOON, "the application is told", || {
        let told = told()?;
        ensure!(told.as_deref() == Some(&*expected), "{told:?}");
        Ok(())
    })?;
    // Policy sees it as the application does.
    let rules = "action: DENY, rules: [{when: [{key: 'request.headers[x-forwarded-client-cert]', \
        values: ['*/sa/client']}]}]";
    enforce(&scene, &policy("no", ECHO, rules), || is_denied(&forged.from(&scene.client)?))
}
