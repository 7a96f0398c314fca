//! Requests that are sent again, and those that are not.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use harness::asking::{Answer, Ask};
use harness::backend::{Backend, Guest};
use harness::eventually::eventually;

use super::super::mesh::SOON;
use super::super::suite::Case;
use super::endpoints::{STATUS_200, Script, scripted};
use super::frames;
use super::http2;
use super::lab::{APP, GRPC_APP, Lab};
use super::mesh_profile;

pub(crate) const CASES: &[Case] = &[
    ("waypoint::retries::each_is_made_when_it_may_be_and_no_other", &[], checks),
    ("waypoint::retries::a_budget_bounds_them", &[], budget),
    ("waypoint::retries::grpc_is_sent_again_where_its_owner_allows_it", &[], grpc),
    ("waypoint::retries::what_an_application_never_took_is_sent_elsewhere", &[], never_taken),
];

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// What must hold on a port of its own, whose requests are sent again.
type Check = (&'static str, fn(&Lab, u16) -> anyhow::Result<()>);

const CHECKS: &[Check] = &[
    ("attempts of earlier hops count", |lab, _| counted_on(lab)),
    ("what is left of the time travels", |lab, _| deadlines(lab)),
    ("Retry-After is waited for", retry_after),
    ("a long Retry-After is the client's", long_retry_after),
    ("a nearer hop that gave up is not asked again", gave_up),
    ("the last of several answers says so", exhausted),
    ("a body that was cut is sent again from its beginning", cut),
];

/// A route for one port of `lab`.
fn route(port: u16) -> String {
    let rules = format!(
        "  - retry: {{codes: [503], attempts: 2, backoff: 1ms}}\n    timeouts: {{request: 20s}}\n    \
         filters:\n    - type: ResponseHeaderModifier\n      responseHeaderModifier: \
         {{set: [{{name: x-route, value: here}}]}}\n    backendRefs: [{{name: lab, port: {port}}}]"
    );
    let parent = format!("group: \"\"\n    kind: Service\n    name: lab\n    port: {port}");
    mesh_profile::route("HTTPRoute", "shop", &format!("r{port}"), &parent, &rules)
}

fn checks() -> anyhow::Result<()> {
    let lab = Lab::new("retries-checks")?;
    let ports: Vec<u16> = CHECKS.iter().map(|_| lab.fresh()).collect();
    let routes: String = ports.iter().chain(&[APP, GRPC_APP]).map(|port| route(*port)).collect();
    lab.scene.route(&routes, |scene| {
        let seen = Lab::get(APP, "/").from(&scene.client)?.seen()?;
        ensure!(seen.headers.contains_key("x-envoy-expected-rq-timeout-ms"), "{seen:?}");
        Ok(())
    })?;
    let failed = |((what, check), port): (&Check, u16)| {
        check(&lab, port).err().map(|error| format!("{what}: {error:#}"))
    };
    let failed: Vec<String> = CHECKS.iter().zip(ports).filter_map(failed).collect();
    ensure!(failed.is_empty(), "{}", failed.join("\n"));
    Ok(())
}

fn counted_on(lab: &Lab) -> anyhow::Result<()> {
    let attempts = |ask: Ask| -> anyhow::Result<_> {
        Ok(ask.from(&lab.scene.client)?.seen()?.headers.get("x-envoy-attempt-count").cloned())
    };
    ensure!(attempts(Lab::get(APP, "/"))?.as_deref() == Some("1"));
    let third = Lab::get(APP, "/").header("x-envoy-attempt-count", "3");
    ensure!(attempts(third)?.as_deref() == Some("3"));
    let forged = Lab::get(APP, "/").header("x-envoy-attempt-count", "9999999999");
    ensure!(attempts(forged)?.as_deref() == Some("1"));
    Ok(())
}

fn deadlines(lab: &Lab) -> anyhow::Result<()> {
    let late = Lab::get(APP, "/delay/5000").header("x-envoy-expected-rq-timeout-ms", "200");
    let late = late.from(&lab.scene.client)?;
    let cause = late.header("proxy-status").unwrap_or_default();
    ensure!(late.status == 504 && cause.contains("REQUEST_TIMEOUT"), "{late:?}");
    http2::run(async {
        let mut sender = http2::open(&lab.scene.client, Lab::at(GRPC_APP)).await?;
        for (told, most) in [(Some("2S"), 2_000), (Some("2s"), 20_000), (None, 20_000)] {
            let mut call = http2::call("/shop.Cart/Add");
            if let Some(told) = told {
                call.headers_mut().insert("grpc-timeout", http::HeaderValue::from_static(told));
            }
            let seen = http2::seen(sender.send_request(call).await?).await?;
            let left = seen.headers.get("grpc-timeout").cloned().unwrap_or_default();
            let millis = left.strip_suffix('m').and_then(|digits| digits.parse::<u32>().ok());
            ensure!(
                millis.is_some_and(|left| left > most / 2 && left <= most),
                "{left:?} of {told:?}"
            );
        }
        Ok(())
    })
}

/// A backend that says `first` to the first request and is content with all others.
fn once(lab: &Lab, port: u16, first: &'static str) -> anyhow::Result<Backend> {
    let requests = AtomicUsize::new(0);
    lab.backend(port, move |guest| {
        while guest.request()?.is_some() {
            let number = requests.fetch_add(1, Ordering::SeqCst);
            guest.say(if number == 0 { first } else { OK })?;
        }
        Ok(())
    })
}

fn retry_after(lab: &Lab, port: u16) -> anyhow::Result<()> {
    let busy = "HTTP/1.1 503 Busy\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n";
    let backend = once(lab, port, busy)?;
    let began = Instant::now();
    let answer = Lab::get(port, "/").from(&lab.scene.client)?;
    ensure!(answer.status == 200 && backend.heard().len() == 2, "{answer:?}");
    ensure!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    Ok(())
}

fn is_passed_on(lab: &Lab, port: u16, said: &'static str) -> anyhow::Result<()> {
    let backend = once(lab, port, said)?;
    let answer = Lab::get(port, "/").from(&lab.scene.client)?;
    ensure!(answer.status == 503 && backend.heard().len() == 1, "{answer:?}");
    Ok(())
}

fn long_retry_after(lab: &Lab, port: u16) -> anyhow::Result<()> {
    let said = "HTTP/1.1 503 Busy\r\nRetry-After: 60\r\nContent-Length: 0\r\n\r\n";
    is_passed_on(lab, port, said)
}

fn gave_up(lab: &Lab, port: u16) -> anyhow::Result<()> {
    let said = "HTTP/1.1 503 Busy\r\nproxy-status: culvert; details=UPSTREAM_CLOSED\r\n\
                Content-Length: 0\r\n\r\n";
    is_passed_on(lab, port, said)
}

fn exhausted(lab: &Lab, port: u16) -> anyhow::Result<()> {
    let backend = lab.backend(port, busy)?;
    let answer = Lab::get(port, "/").from(&lab.scene.client)?;
    let cause = answer.header("proxy-status").unwrap_or_default();
    ensure!(answer.status == 503 && cause.contains("RETRIES_EXHAUSTED"), "{answer:?}");
    ensure!(answer.body == b"sorry", "the application's own words: {answer:?}");
    ensure!(backend.heard().len() == 3, "{}", backend.heard().len());
    let told = lab.told("RETRIES_EXHAUSTED")?;
    ensure!(told["flags"] == "URX" || told["response_flags"] == "URX", "{told}");
    Ok(())
}

fn busy(guest: &mut Guest) -> std::io::Result<()> {
    while guest.request()?.is_some() {
        guest.say("HTTP/1.1 503 Busy\r\nContent-Length: 5\r\n\r\nsorry")?;
    }
    Ok(())
}

fn cut(lab: &Lab, port: u16) -> anyhow::Result<()> {
    let connections = AtomicUsize::new(0);
    let backend = lab.backend(port, move |guest| {
        if connections.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) {
            return guest.wire.take(1_000).map(drop);
        }
        while guest.request()?.is_some() {
            guest.say(OK)?;
        }
        Ok(())
    })?;
    let body: Vec<u8> = (0..60_000_u32).map(|at| at as u8).collect();
    for chunked in [false, true] {
        let mut wire = lab.wire(port)?;
        wire.say("PUT / HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n")?;
        if chunked {
            wire.say("Transfer-Encoding: chunked\r\n\r\n")?;
            for part in body.chunks(7_000) {
                wire.say(format!("{:x}\r\n", part.len()))?;
                wire.say(part)?;
                wire.say("\r\n")?;
            }
            wire.say("0\r\n\r\n")?;
        } else {
            wire.say(format!("Content-Length: {}\r\n\r\n", body.len()))?;
            wire.say(&body)?;
        }
        let answer = wire.answer("PUT")?;
        ensure!(answer.status == 200, "chunked {chunked}: {answer:?}");
        let heard = backend.heard();
        ensure!(heard.last().is_some_and(|heard| heard.body == body), "the body is another");
        if !chunked {
            // The connection that was kept is let go of, so that the next one is cut again.
            drop(Lab::get(port, "/").header("connection", "close").from(&lab.scene.client)?);
        }
    }
    let post = Lab::get(port, "/post").method("POST").body(&body);
    let mut answers: Vec<Answer> = Vec::new();
    for _ in 0..2 {
        answers.push(post.from(&lab.scene.client)?);
    }
    for answer in &answers {
        let cause = answer.header("proxy-status").unwrap_or_default();
        ensure!(answer.status == 200 || cause.contains("DELIVERY_UNKNOWN"), "{answer:?}");
    }
    let posts = backend.heard().iter().filter(|heard| heard.head.starts_with("POST")).count();
    let good = answers.iter().filter(|answer| answer.status == 200).count();
    ensure!(posts == good, "{posts} executed, {good} answered");
    Ok(())
}

fn grpc_status(id: u32, status: &str) -> Vec<u8> {
    let block = [STATUS_200, &frames::block(&[("grpc-status", status)])].concat();
    frames::frame(frames::HEADERS, frames::END_HEADERS | frames::END_STREAM, id, &block)
}

/// A call that ended with its head and UNAVAILABLE may have had an effect all the same.
fn grpc() -> anyhow::Result<()> {
    let lab = Lab::new("retries-grpc")?;
    let script: Script =
        |id, number| (grpc_status(id, if number == 0 { "14" } else { "0" }), false);
    for (allowed, status, calls) in [(false, "14", 1), (true, "0", 2)] {
        let port = lab.fresh_http2();
        let name = format!("  name: r{port}\n");
        let leave =
            format!("{name}  annotations: {{culvert.dev/retry-delivered: \"{allowed}\"}}\n");
        lab.scene.cluster.mesh().write("grpc.yaml", &route(port).replace(&name, &leave))?;
        let (_backend, requests) = scripted(&lab, port, script)?;
        eventually(SOON, "the route is in force", || {
            requests.store(0, Ordering::SeqCst);
            let (seen, left) = called(&lab, port)?;
            ensure!(left, "no time is limited");
            ensure!(seen == status, "grpc-status {seen}, may be sent again: {allowed}");
            Ok(())
        })?;
        let made = requests.load(Ordering::SeqCst);
        ensure!(made == calls, "{made} calls, may be sent again: {allowed}");
    }
    Ok(())
}

/// The status of a call, and whether it was made under a route.
fn called(lab: &Lab, port: u16) -> anyhow::Result<(String, bool)> {
    http2::run(async {
        let mut sender = http2::open(&lab.scene.client, Lab::at(port)).await?;
        let response = sender.send_request(http2::call("/shop.Cart/Add")).await?;
        let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let status = text("grpc-status").unwrap_or_default().to_owned();
        Ok((status, text("x-route").is_some()))
    })
}

/// 20 % of the requests and the minimum of 100, on each worker.
fn budget() -> anyhow::Result<()> {
    const REQUESTS: usize = 400;
    let lab = Lab::new("retries-budget")?;
    let port = lab.fresh();
    let backend = lab.backend(port, busy)?;
    lab.scene.route(&route(port), |_| {
        let answer = Lab::get(port, "/").from(&lab.scene.client)?;
        ensure!(answer.header("proxy-status").is_some(), "{answer:?}");
        Ok(())
    })?;
    let began = Instant::now();
    let before = backend.heard().len();
    let mut causes = BTreeSet::new();
    for _ in 0..REQUESTS {
        let answer = Lab::get(port, "/").from(&lab.scene.client)?;
        ensure!(answer.status == 503 && answer.body == b"sorry", "{answer:?}");
        causes.insert(answer.header("proxy-status").unwrap_or_default().to_owned());
    }
    let repeated = backend.heard().len() - before - REQUESTS;
    // A machine that needs longer has more than one interval's allowance, on two workers.
    let intervals = began.elapsed().as_secs() as usize / 10 + 1;
    let most = REQUESTS / 5 + 2 * 100 * intervals + 1;
    ensure!(repeated <= most, "{repeated} repeated, {most} allowed");
    ensure!(causes.iter().any(|cause| cause.contains("RETRY_BUDGET_EXHAUSTED")), "{causes:?}");
    lab.told("RETRY_BUDGET_EXHAUSTED")?;
    let (_, metrics) = lab.scene.waypoint_pod.get("127.0.0.1:15020", "/metrics")?;
    let family = "culvert_retries_total{destination_service=\"lab.shop.svc.cluster.local\"";
    for result in ["retried_safe", "budget_exhausted"] {
        let is_it = |line: &str| line.starts_with(family) && line.contains(result);
        ensure!(metrics.lines().any(is_it), "no {result} in {metrics}");
    }
    Ok(())
}

/// One endpoint resets each connection as soon as it has it. What its socket took before is unknown;
/// what it did not take goes to the other one, whatever its method.
fn never_taken() -> anyhow::Result<()> {
    const REQUESTS: usize = 60;
    let lab = Lab::new("retries-never-taken")?;
    let _resets = Backend::start(&lab.scene.v1, 8001, |guest| {
        rustix::net::sockopt::set_socket_linger(guest.wire.stream()?, Some(Duration::ZERO))?;
        Ok(())
    })?;
    let answers = Backend::start(&lab.scene.v2, 8001, |guest| {
        while guest.request()?.is_some() {
            guest.say(OK)?;
        }
        Ok(())
    })?;
    let both = SocketAddr::from(([10, 96, 0, 22], 80));
    let mut good = 0;
    for number in 0..REQUESTS {
        let ask = Ask::get(both, &format!("/{number}")).method("POST").body(b"pay 10");
        let answer = ask.from(&lab.scene.client)?;
        let cause = answer.header("proxy-status").unwrap_or_default();
        ensure!(answer.status == 200 || cause.contains("DELIVERY_UNKNOWN"), "{answer:?}");
        good += usize::from(answer.status == 200);
    }
    let heard = answers.heard();
    let paths: BTreeSet<_> = heard.iter().filter_map(|one| one.head.split(' ').nth(1)).collect();
    ensure!(paths.len() == heard.len(), "one was executed twice");
    ensure!(paths.len() == good, "{} executed, {good} answered", paths.len());
    Ok(())
}
