//! `VirtualService`s, and the subsets of a `DestinationRule` that they lead to.

mod faults;
mod subsets;

use std::time::Duration;

use anyhow::ensure;
use harness::asking::{Answer, Ask};
use harness::eventually::eventually;

use super::super::mesh::SOON;
use super::super::suite::Case;
use super::mesh_profile::{has, http_route, is_from};
use super::scene::Scene;

pub(crate) fn cases() -> Vec<Case> {
    [CASES, subsets::CASES, faults::CASES].concat()
}

const CASES: &[Case] = &[
    ("waypoint::virtual_services::rules_are_tried_in_order", &[], order),
    ("waypoint::virtual_services::several_are_concatenated", &[], concatenated),
    ("waypoint::virtual_services::a_bad_one_leaves_the_good_one_in_force", &[], bad_beside_good),
    ("waypoint::virtual_services::answers_and_redirects_ask_nobody", &[], answers),
    ("waypoint::virtual_services::paths_hosts_and_headers_are_rewritten", &[], rewritten),
    ("waypoint::virtual_services::retries_and_timeouts_are_kept", &[], retries),
    ("waypoint::virtual_services::mirrors_get_copies", &[], mirrors),
    ("waypoint::virtual_services::a_destination_that_is_unknown_is_503", &[], unknown),
];

const TO_V1: &str = "route: [{destination: {host: echo-v1, port: {number: 80}}}]";
const TO_V2: &str = "route: [{destination: {host: echo-v2, port: {number: 80}}}]";

/// A virtual service of `echo`; `rules` is what stands below `spec.http`.
fn virtual_service(name: &str, rules: &[&str]) -> String {
    let rules: String = rules.iter().map(|rule| format!("  - {{{rule}}}\n")).collect();
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, \
         namespace: shop}}\nspec:\n  hosts: [echo]\n  http:\n{rules}---\n"
    )
}

/// Below this path nothing matches, which shows that the rules are in force.
const NOWHERE: &str = "/nowhere";

/// Writes virtual services without a rule for [`NOWHERE`].
fn in_force(scene: &Scene, yaml: &str) -> anyhow::Result<()> {
    scene.route(yaml, |scene| is(&scene.ask("echo", NOWHERE)?, 404))
}

fn ask(path: &str) -> Ask {
    Ask::get(Scene::at("echo"), path)
}

fn is(answer: &Answer, status: u16) -> anyhow::Result<()> {
    ensure!(answer.status == status, "not {status}: {answer:?}");
    Ok(())
}

fn is_caused(answer: &Answer, cause: &str) -> anyhow::Result<()> {
    let status = answer.header("proxy-status").unwrap_or_default();
    ensure!(status.contains(cause), "not {cause}: {answer:?}");
    Ok(())
}

/// The first rule that matches has the request, however exact a later one may be.
fn order() -> anyhow::Result<()> {
    let scene = Scene::new("vs-order")?;
    let rules = [
        &format!("match: [{{uri: {{prefix: /a}}, headers: {{x-to: {{exact: two}}}}}}], {TO_V2}"),
        &format!("match: [{{uri: {{prefix: /a}}}}], {TO_V1}"),
        &format!("match: [{{uri: {{exact: /a/exact}}}}], {TO_V2}"),
        &format!("match: [{{uri: {{exact: /Case}}, ignoreUriCase: true}}], {TO_V2}"),
        &format!(
            "match: [{{uri: {{regex: '/v[0-9]+'}}, queryParams: {{q: {{exact: one}}}}}}], {TO_V1}"
        ),
        &format!("match: [{{uri: {{prefix: /method}}, method: {{regex: 'PUT|POST'}}}}], {TO_V1}"),
        &format!("match: [{{uri: {{prefix: /port}}, port: 8080}}], {TO_V2}"),
        &format!("match: [{{uri: {{prefix: /without}}, withoutHeaders: {{x-no: {{}}}}}}], {TO_V1}"),
        &format!("match: [{{uri: {{prefix: /from}}, sourceNamespace: shop}}], {TO_V1}"),
        &format!("match: [{{uri: {{prefix: /other}}, sourceNamespace: other}}], {TO_V1}"),
        &format!("match: [{{authority: {{exact: named.example}}}}], {TO_V2}"),
    ];
    in_force(&scene, &virtual_service("order", &rules.map(|rule| &**rule)))?;
    let from = |ask: Ask| -> anyhow::Result<Answer> { Ok(ask.from(&scene.client)?) };
    is_from(&from(ask("/ab"))?, "echo-v1")?;
    is_from(&from(ask("/ab").header("x-to", "two"))?, "echo-v2")?;
    is_from(&from(ask("/a/exact"))?, "echo-v1")?;
    is_from(&from(ask("/cASE"))?, "echo-v2")?;
    is_from(&from(ask("/v12?p&q=one"))?, "echo-v1")?;
    is(&from(ask("/v12?q=two"))?, 404)?;
    is_from(&from(ask("/method").method("PUT"))?, "echo-v1")?;
    is(&from(ask("/method"))?, 404)?;
    is_from(&from(Ask::get(Scene::port("echo", 8080), "/port"))?, "echo-v2")?;
    is(&from(ask("/port"))?, 404)?;
    is_from(&from(ask("/without"))?, "echo-v1")?;
    is(&from(ask("/without").header("x-no", "1"))?, 404)?;
    is_from(&from(ask("/from"))?, "echo-v1")?;
    is(&from(ask("/other"))?, 404)?;
    is_from(&from(ask("/x").header("host", "named.example"))?, "echo-v2")
}

/// Virtual services and routes of the Gateway API of one service stand beside each other by age.
fn concatenated() -> anyhow::Result<()> {
    let scene = Scene::new("vs-concatenated")?;
    let aged = |text: String, created: &str| {
        text.replace(
            "namespace: shop}",
            &format!("namespace: shop, creationTimestamp: {created}}}"),
        )
        .replace(
            "  namespace: shop\n",
            &format!("  namespace: shop\n  creationTimestamp: {created}\n"),
        )
    };
    let young = virtual_service(
        "young",
        &[&format!(
            "match: [{{uri: {{prefix: /}}}}], headers: {{response: {{set: {{x-by: young}}}}}}, {TO_V1}"
        )],
    );
    let old = virtual_service(
        "old",
        &[&format!(
            "match: [{{uri: {{prefix: /old}}}}], headers: {{response: {{set: {{x-by: old}}}}}}, {TO_V2}"
        )],
    );
    let route = http_route(
        "route",
        "echo",
        "  - matches: [{path: {type: Exact, value: /old/route}}, {path: {type: Exact, value: /route}}]\n    \
         filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-by, value: route}]}}]\n    \
         backendRefs: [{name: echo-v2, port: 80}]",
    );
    let all = [
        aged(young, "\"2026-03-01T00:00:00Z\""),
        aged(route, "\"2026-02-01T00:00:00Z\""),
        aged(old, "\"2026-01-01T00:00:00Z\""),
    ];
    scene.route(&all.concat(), |scene| has(&scene.ask("echo", "/")?, "x-by", Some("young")))?;
    for (path, by) in
        [("/older", "old"), ("/old/route", "old"), ("/route", "route"), ("/any", "young")]
    {
        has(&scene.ask("echo", path)?, "x-by", Some(by))?;
    }
    Ok(())
}

/// Only the bad one is out of force, and it is named.
fn bad_beside_good() -> anyhow::Result<()> {
    let scene = Scene::new("vs-bad")?;
    let good = virtual_service("good", &[&format!("match: [{{uri: {{prefix: /good}}}}], {TO_V1}")]);
    let bad = virtual_service("bad", &[&format!("timeout: soon, {TO_V2}")]);
    in_force(&scene, &format!("{bad}{good}"))?;
    is_from(&scene.ask("echo", "/good")?, "echo-v1")?;
    let dump = scene.waypoint_pod.get("127.0.0.1:15000", "/config_dump")?.1;
    let dump: serde_json::Value = serde_json::from_str(&dump)?;
    let verdicts = dump["verdicts"].as_array().cloned().unwrap_or_default();
    let against: Vec<_> = verdicts.iter().filter(|one| one["inForce"] == false).collect();
    let [one] = against[..] else { anyhow::bail!("{against:?}") };
    ensure!(one["object"] == "VirtualService/shop/bad", "{one}");
    ensure!(one["field"] == "spec.http[0].timeout", "{one}");
    ensure!(dump["routes"][0]["key"] == "VirtualService/shop/good", "{}", dump["routes"]);
    Ok(())
}

/// Redirects, direct answers and preflights of browsers.
fn answers() -> anyhow::Result<()> {
    let scene = Scene::new("vs-answers")?;
    let rules = [
        "match: [{uri: {prefix: /moved}}], redirect: {uri: /new, authority: new.example}",
        "match: [{uri: {prefix: /secure}}], redirect: {scheme: https, derivePort: FROM_PROTOCOL_DEFAULT, redirectCode: 308}",
        "match: [{uri: {prefix: /said}}], directResponse: {status: 418, body: {string: short}}, headers: {response: {add: {x-own: '1'}}}",
        &format!(
            "match: [{{uri: {{prefix: /cors}}}}], corsPolicy: {{allowOrigins: [{{prefix: 'https://a.'}}], \
             allowMethods: [PUT], maxAge: 60s}}, {TO_V1}"
        ),
    ];
    in_force(&scene, &virtual_service("answers", &rules))?;
    let moved = scene.ask("echo", "/moved?q=1")?;
    is(&moved, 301)?;
    ensure!(moved.header("location") == Some("http://new.example/new?q=1"), "{moved:?}");
    let secure = ask("/secure").header("host", "echo:80").from(&scene.client)?;
    is(&secure, 308)?;
    ensure!(secure.header("location") == Some("https://echo/secure"), "{secure:?}");
    let said = scene.ask("echo", "/said")?;
    is(&said, 418)?;
    ensure!(said.body == b"short" && said.header("x-own") == Some("1"), "{said:?}");
    ensure!(said.header("x-pod").is_none(), "{said:?}");
    let preflight = |origin: &str| {
        let ask = ask("/cors").method("OPTIONS").header("origin", origin);
        ask.header("access-control-request-method", "PUT").from(&scene.client)
    };
    let allowed = preflight("https://a.example")?;
    ensure!(allowed.header("access-control-max-age") == Some("60"), "{allowed:?}");
    ensure!(allowed.header("x-pod").is_none(), "a preflight is not forwarded: {allowed:?}");
    is_from(&preflight("https://b.example")?, "echo-v1")
}

fn rewritten() -> anyhow::Result<()> {
    let scene = Scene::new("vs-rewritten")?;
    let rules = [
        &format!(
            "match: [{{uri: {{prefix: /pre}}}}], rewrite: {{uri: /x, authority: one.example}}, {TO_V1}"
        ),
        &format!("match: [{{uri: {{exact: /whole}}}}], rewrite: {{uri: /y}}, {TO_V1}"),
        &format!(
            "match: [{{uri: {{prefix: /by}}}}], rewrite: {{uriRegexRewrite: {{match: '^/by/([^/]+)/(.*)$', \
             rewrite: '/\\2/of/\\1'}}}}, {TO_V1}"
        ),
        "match: [{uri: {prefix: /headers}}], headers: {request: {set: {x-set: rule}, remove: [x-gone]}}, \
         route: [{destination: {host: echo-v1, port: {number: 80}}, \
         headers: {request: {add: {x-own: backend}}, response: {set: {x-back: backend}}}}]",
    ];
    in_force(&scene, &virtual_service("rewritten", &rules))?;
    let seen = |path: &str| scene.ask("echo", path)?.seen();
    let pre = seen("/prefix/a?q=1")?;
    ensure!(pre.path == "/xfix/a?q=1" && pre.host == "one.example", "{pre:?}");
    ensure!(seen("/whole")?.path == "/y");
    ensure!(seen("/by/one/two/3?q")?.path == "/two/3/of/one?q");
    ensure!(seen("/by/one")?.path == "/by/one", "what is not found is not replaced");
    let answer = ask("/headers").header("x-gone", "1").header("x-set", "me").from(&scene.client)?;
    let headers = answer.seen()?.headers;
    let header = |name: &str| headers.get(name).map(String::as_str);
    ensure!(header("x-set") == Some("rule") && header("x-gone").is_none(), "{headers:?}");
    ensure!(header("x-own") == Some("backend"), "{headers:?}");
    has(&answer, "x-back", Some("backend"))
}

/// What is repeated is what the conditions name, and never what may have had an effect.
fn retries() -> anyhow::Result<()> {
    let scene = Scene::new("vs-retries")?;
    let rules = [
        &format!(
            "match: [{{uri: {{prefix: /status}}, headers: {{x-on: {{exact: gateway}}}}}}], \
                  retries: {{attempts: 2, retryOn: gateway-error, backoff: 10ms}}, {TO_V1}"
        ),
        &format!(
            "match: [{{uri: {{prefix: /status}}}}], retries: {{attempts: 1, retryOn: '5xx,409', backoff: 10ms}}, {TO_V1}"
        ),
        &format!("match: [{{uri: {{prefix: /delay}}}}], timeout: 300ms, {TO_V1}"),
    ];
    in_force(&scene, &virtual_service("retries", &rules.map(|rule| &**rule)))?;
    let attempts = |ask: Ask| -> anyhow::Result<String> {
        let seen = ask.from(&scene.client)?.seen()?;
        Ok(seen.headers.get("x-envoy-attempt-count").cloned().unwrap_or_default())
    };
    let on_gateway = |path: &str| ask(path).header("x-on", "gateway");
    ensure!(attempts(on_gateway("/status/502"))? == "3", "twice again");
    ensure!(attempts(on_gateway("/status/500"))? == "1", "500 is no gateway's");
    ensure!(attempts(ask("/status/500"))? == "2", "500 is one of 5xx");
    ensure!(attempts(ask("/status/409"))? == "2", "a status that is named");
    ensure!(attempts(ask("/status/404"))? == "1", "one that is not");
    ensure!(attempts(ask("/status/503").method("POST"))? == "1", "a POST may have had an effect");
    let late = scene.ask("echo", "/delay/5000")?;
    is(&late, 504)?;
    is_caused(&late, "REQUEST_TIMEOUT")
}

fn mirrors() -> anyhow::Result<()> {
    let scene = Scene::new("vs-mirrors")?;
    let rules = [
        &format!(
            "match: [{{uri: {{prefix: /all}}}}], mirror: {{host: echo-v2, port: {{number: 80}}}}, {TO_V1}"
        ),
        &format!(
            "match: [{{uri: {{prefix: /none}}}}], mirrors: [{{destination: {{host: echo-v2, \
             port: {{number: 80}}}}, percentage: {{value: 0}}}}], {TO_V1}"
        ),
    ];
    in_force(&scene, &virtual_service("mirrors", &rules.map(|rule| &**rule)))?;
    let count = || -> anyhow::Result<u64> {
        let answer = Ask::get((scene.v2.ip(), 8080).into(), "/count").from(&scene.client)?;
        Ok(String::from_utf8_lossy(&answer.body).parse()?)
    };
    // Some came before the rules were in force.
    let before = count()?;
    for path in ["/none", "/all", "/none", "/all"] {
        is_from(&scene.ask("echo", path)?, "echo-v1")?;
    }
    eventually(SOON, "the copies arrive", || {
        let seen = count()? - before;
        ensure!(seen == 2, "{seen} copies");
        Ok(())
    })
}

/// A host or a subset that there is not: an answer with its own cause, and the rest flows.
fn unknown() -> anyhow::Result<()> {
    let scene = Scene::new("vs-unknown")?;
    let rules = [
        "match: [{uri: {prefix: /host}}], route: [{destination: {host: missing}}]",
        "match: [{uri: {prefix: /port}}], route: [{destination: {host: echo-v1, port: {number: 81}}}]",
        "match: [{uri: {prefix: /subset}}], route: [{destination: {host: echo-v1, port: {number: 80}, subset: v9}}]",
        &format!("match: [{{uri: {{prefix: /good}}}}], {TO_V1}"),
    ];
    in_force(&scene, &virtual_service("unknown", &rules))?;
    for (path, cause) in
        [("/host", "BACKEND_UNKNOWN"), ("/port", "BACKEND_UNKNOWN"), ("/subset", "SUBSET_UNKNOWN")]
    {
        let answer = scene.ask("echo", path)?;
        is(&answer, 503)?;
        is_caused(&answer, cause)?;
    }
    is_from(&scene.ask("echo", "/good")?, "echo-v1")?;
    eventually(Duration::from_secs(5), "each is told", || {
        let told = scene.waypoint.caused("SUBSET_UNKNOWN");
        ensure!(told.len() == 1 && told[0]["flags"] == "NC", "{told:?}");
        Ok(())
    })
}
