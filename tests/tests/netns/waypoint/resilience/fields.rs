//! What single fields of a rule do to the requests and connections of its destination.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use harness::asking::Answer;
use harness::backend::{Guest, listen};
use harness::eventually::eventually;
use harness::pod::Pod;

use super::super::super::mesh::SOON;
use super::super::super::suite::Case;
use super::super::http2;
use super::super::lab::{APP, GRPC_APP, Lab, UNNAMED};
use super::super::mesh_profile::route;
use super::{apply, limited, metric};

pub(super) const CASES: &[Case] = &[
    (
        "waypoint::resilience::fields::a_connection_takes_no_longer_than_it_may",
        &[],
        connect_timeout,
    ),
    ("waypoint::resilience::fields::a_connection_that_rests_too_long_is_closed", &[], idle_timeout),
    ("waypoint::resilience::fields::an_old_connection_takes_no_request", &[], max_age),
    ("waypoint::resilience::fields::bytes_that_rest_or_last_too_long_are_cut", &[], bytes),
    ("waypoint::resilience::fields::so_many_are_sent_again_at_a_time", &[], max_retries),
    ("waypoint::resilience::fields::a_share_is_sent_again_at_a_time", &[], retry_budget),
    ("waypoint::resilience::fields::endpoints_are_spoken_to_as_the_rule_says", &[], versions),
];

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

pub(super) fn answers(guest: &mut Guest) -> std::io::Result<()> {
    while guest.request()?.is_some() {
        guest.say(OK)?;
    }
    Ok(())
}

fn cause(answer: &Answer, status: u16, cause: &str) -> anyhow::Result<()> {
    let told = answer.header("proxy-status").unwrap_or_default();
    ensure!(answer.status == status && told.contains(cause), "{answer:?}");
    Ok(())
}

/// A listener whose queue is full, so that nobody gets an answer to a SYN. Keep it all.
fn deaf(pod: &Pod, port: u16) -> anyhow::Result<(std::net::TcpListener, Vec<TcpStream>)> {
    let listener = listen(pod, port)?;
    rustix::net::listen(&listener, 0)?;
    let own = SocketAddr::from(([127, 0, 0, 1], port));
    let mut waiting = Vec::new();
    for _ in 0..16 {
        let connect = || TcpStream::connect_timeout(&own, Duration::from_millis(300));
        match pod.netns().run(connect) {
            Ok(stream) => waiting.push(stream),
            Err(_) => return Ok((listener, waiting)),
        }
    }
    anyhow::bail!("the queue of port {port} takes everybody")
}

fn connect_timeout() -> anyhow::Result<()> {
    let policy = "connectionPool: {tcp: {connectTimeout: 200ms}}";
    let (lab, port) = limited("fields-connect", policy)?;
    let _deaf = deaf(&lab.scene.v1, port)?;
    let began = Instant::now();
    let answer = Lab::get(port, "/").from(&lab.scene.client)?;
    cause(&answer, 503, "UPSTREAM_CONNECT_FAILED")?;
    // Three tries, each of which would take 10 s.
    ensure!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    let told = lab.told("UPSTREAM_CONNECT_FAILED")?;
    ensure!(told["error"].as_str().is_some_and(|text| text.contains("no answer")), "{told}");
    ensure!(told["attempts"].as_u64() == Some(3), "{told}");
    Ok(())
}

/// Without a rule it would be a minute.
fn idle_timeout() -> anyhow::Result<()> {
    for (name, protocol) in [("fields-idle", "HTTP/1.1"), ("fields-idle-http2", "HTTP/2.0")] {
        let policy = match protocol {
            "HTTP/2.0" => "connectionPool: {http: {idleTimeout: 1s, h2UpgradePolicy: UPGRADE}}",
            _ => "connectionPool: {http: {idleTimeout: 1s}}",
        };
        let lab = Lab::new(name)?;
        let entry = format!("{{portLevelSettings: [{{port: {{number: {APP}}}, {policy}}}]}}");
        apply(&lab.scene, "lab", &entry)?;
        let used = || {
            let labels = ["resource=\"connections\"", &format!("port=\"{APP}\"")];
            metric(&lab.scene, "culvert_circuit_used", &labels)
        };
        eventually(SOON, &format!("there is a connection of {protocol}"), || {
            let seen = Lab::get(APP, "/").from(&lab.scene.client)?.seen()?;
            ensure!(seen.version == protocol && used()? >= 1.0, "{seen:?}");
            anyhow::Ok(())
        })?;
        eventually(SOON, &format!("no connection of {protocol} is left"), || match used() {
            Ok(0.0) => Ok(()),
            other => Err(format!("{other:?}")),
        })?;
        // It is made anew.
        lab.still_answers()?;
    }
    Ok(())
}

fn max_age() -> anyhow::Result<()> {
    let policy = "connectionPool: {tcp: {maxConnectionDuration: 1s}}";
    let (lab, port) = limited("fields-age", policy)?;
    let backend = lab.backend(port, answers)?;
    let mut wire = lab.wire(port)?;
    // One after the other: without an end to its life the first connection would carry all.
    eventually(SOON, "a second connection is made", || -> anyhow::Result<()> {
        wire.say("GET / HTTP/1.1\r\nHost: lab\r\n\r\n")?;
        ensure!(wire.answer("GET")?.status == 200);
        ensure!(backend.accepted() >= 2, "{} requests", backend.heard().len());
        Ok(())
    })?;
    ensure!(backend.heard().len() > 2, "{} requests", backend.heard().len());
    Ok(())
}

/// Says what it hears.
fn echoes(guest: &mut Guest) -> std::io::Result<()> {
    loop {
        let heard = guest.wire.take(1)?;
        guest.say(heard)?;
    }
}

fn bytes() -> anyhow::Result<()> {
    for (name, field, cause) in [
        ("fields-bytes-idle", "idleTimeout", "CONNECTION_IDLE"),
        ("fields-bytes-age", "maxConnectionDuration", "CONNECTION_TOO_OLD"),
    ] {
        let lab = Lab::new(name)?;
        let pool = format!("connectionPool: {{tcp: {{{field}: 1s}}}}");
        let entry = format!("{{portLevelSettings: [{{port: {{number: {UNNAMED}}}, {pool}}}]}}");
        apply(&lab.scene, "lab", &entry)?;
        let backend = lab.backend(UNNAMED, echoes)?;
        let mut wire = lab.wire(UNNAMED)?;
        let began = Instant::now();
        // Bytes of no known protocol, for longer than it may rest.
        while began.elapsed() < Duration::from_secs(2) && cause == "CONNECTION_IDLE" {
            wire.say("\0")?;
            ensure!(wire.take(1)? == b"\0");
        }
        wire.say("\0")?;
        ensure!(wire.take(1)? == b"\0");
        wire.stream()?.set_read_timeout(Some(SOON))?;
        let end = wire.rest();
        match &end {
            Ok(more) => ensure!(more.is_empty(), "{more:?}"),
            Err(error) => ensure!(error.kind() == ErrorKind::ConnectionReset, "{error}"),
        }
        let told = lab.told(cause)?;
        ensure!(told["error"].as_str().is_some_and(|text| text.contains(field)), "{told}");
        eventually(SOON, "the application's side has ended too", || match backend.ended() {
            1 => Ok(()),
            count => Err(format!("{count} have")),
        })?;
    }
    Ok(())
}

fn locked(gate: &Mutex<()>) -> MutexGuard<'_, ()> {
    gate.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Answers the first attempt of each request 503, and others when the test lets it.
fn sent_again(gate: Arc<Mutex<()>>) -> impl Fn(&mut Guest) -> std::io::Result<()> + Send + Sync {
    move |guest| {
        while let Some(heard) = guest.request()? {
            if heard.header("x-envoy-attempt-count") == Some("1") {
                guest.say("HTTP/1.1 503 Not Yet\r\nContent-Length: 0\r\n\r\n")?;
                continue;
            }
            drop(locked(&gate));
            guest.say(OK)?;
        }
        Ok(())
    }
}

/// While one request is being sent again no other is.
fn one_at_a_time(lab: &Lab, port: u16) -> anyhow::Result<()> {
    let gate = Arc::<Mutex<()>>::default();
    let backend = lab.backend(port, sent_again(Arc::clone(&gate)))?;
    let rules = format!(
        "  - retry: {{codes: [503], attempts: 1, backoff: 1ms}}\n    timeouts: {{request: 60s}}\n    \
         backendRefs: [{{name: lab, port: {port}}}]"
    );
    let parent = format!("group: \"\"\n    kind: Service\n    name: lab\n    port: {port}");
    lab.scene.route(&route("HTTPRoute", "shop", "again", &parent, &rules), |scene| {
        let answer = Lab::get(port, "/").from(&scene.client)?;
        ensure!(answer.status == 200, "{answer:?}");
        Ok(())
    })?;
    let closed = locked(&gate);
    let before = backend.heard().len();
    let mut held = lab.wire(port)?;
    held.say("GET /held HTTP/1.1\r\nHost: lab\r\n\r\n")?;
    eventually(SOON, "it is sent again", || match backend.heard().len() - before {
        2 => Ok(()),
        count => Err(format!("{count} attempts")),
    })?;
    for number in 0..3 {
        let answer = Lab::get(port, &format!("/{number}")).from(&lab.scene.client)?;
        cause(&answer, 503, "RETRY_BUDGET_EXHAUSTED")?;
    }
    ensure!(backend.heard().len() - before == 5, "{:?}", backend.heard());
    let labels = ["resource=\"retries\"", &format!("port=\"{port}\"")];
    ensure!(metric(&lab.scene, "culvert_circuit_used", &labels)? == 1.0);
    ensure!(metric(&lab.scene, "culvert_circuit_overflow_total", &labels)? == 3.0);
    drop(closed);
    ensure!(held.answer("GET")?.status == 200);
    eventually(SOON, "others are sent again", || -> anyhow::Result<()> {
        let answer = Lab::get(port, "/after").from(&lab.scene.client)?;
        ensure!(answer.status == 200, "{answer:?}");
        Ok(())
    })
}

fn max_retries() -> anyhow::Result<()> {
    let (lab, port) = limited("fields-retries", "connectionPool: {http: {maxRetries: 1}}")?;
    one_at_a_time(&lab, port)
}

/// Comes before `maxRetries`, and a tenth of a few requests is less than what is always allowed.
fn retry_budget() -> anyhow::Result<()> {
    let lab = Lab::new("fields-budget")?;
    let port = lab.fresh();
    let policy = "{connectionPool: {http: {maxRetries: 100}}, \
                  retryBudget: {percent: 10, minRetryConcurrency: 1}}";
    apply(&lab.scene, "lab", policy)?;
    one_at_a_time(&lab, port)
}

/// In which version the application is asked, on a port of HTTP/1.1 and one of HTTP/2, by a client of
/// either.
fn seen(lab: &Lab) -> anyhow::Result<[String; 4]> {
    let by_http2 = |port| {
        http2::run(async {
            let mut sender = http2::open(&lab.scene.client, Lab::at(port)).await?;
            Ok(http2::seen(sender.send_request(http2::get("/")).await?).await?.version)
        })
    };
    let by_http1 = |port| -> anyhow::Result<String> {
        Ok(Lab::get(port, "/").from(&lab.scene.client)?.seen()?.version)
    };
    let all = [by_http1(APP), by_http2(APP), by_http1(GRPC_APP), by_http2(GRPC_APP)];
    let all: Result<Vec<String>, _> = all.into_iter().collect();
    all?.try_into().ok().context("not four")
}

fn versions() -> anyhow::Result<()> {
    let lab = Lab::new("fields-versions")?;
    let (one, two) = ("HTTP/1.1", "HTTP/2.0");
    let of_ports = [one, one, two, two];
    ensure!(seen(&lab)? == of_ports);
    for (field, expected) in [
        ("h2UpgradePolicy: UPGRADE", [two; 4]),
        ("h2UpgradePolicy: DO_NOT_UPGRADE", of_ports),
        ("useClientProtocol: true", [one, two, one, two]),
        ("h2UpgradePolicy: DEFAULT", of_ports),
    ] {
        apply(&lab.scene, "lab", &format!("{{connectionPool: {{http: {{{field}}}}}}}"))?;
        let seen = seen(&lab)?;
        ensure!(seen == expected, "{field}: {seen:?}");
    }
    Ok(())
}
