//! `connectionPool`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::ensure;
use harness::asking::{Answer, Ask};
use harness::backend::Guest;
use harness::eventually::eventually;
use harness::wire::Wire;

use super::super::super::mesh::SOON;
use super::super::super::suite::Case;
use super::super::lab::Lab;
use super::{limited, metric};

pub(super) const CASES: &[Case] = &[
    ("waypoint::resilience::limits::too_many_requests_are_refused", &[], requests),
    ("waypoint::resilience::limits::connections_are_shared_and_waited_for", &[], connections),
    ("waypoint::resilience::limits::connections_end_after_their_requests", &[], per_connection),
    ("waypoint::resilience::limits::protection_that_is_not_there_refuses", &[], refused),
];

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

fn locked(gate: &Mutex<()>) -> MutexGuard<'_, ()> {
    gate.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Answers when the test lets it.
fn gated(gate: Arc<Mutex<()>>) -> impl Fn(&mut Guest) -> std::io::Result<()> + Send + Sync {
    move |guest| {
        while guest.request()?.is_some() {
            drop(locked(&gate));
            guest.say(OK)?;
        }
        Ok(())
    }
}

fn is_overflow(answer: &Answer) -> anyhow::Result<()> {
    ensure!(answer.status == 503, "{answer:?}");
    ensure!(answer.header("x-envoy-overloaded") == Some("true"), "{answer:?}");
    let status = answer.header("proxy-status").unwrap_or_default();
    ensure!(status.contains("UPSTREAM_OVERFLOW"), "{answer:?}");
    Ok(())
}

fn open(lab: &Lab, port: u16) -> anyhow::Result<Wire> {
    let mut wire = lab.wire(port)?;
    wire.say("GET /held HTTP/1.1\r\nHost: lab\r\n\r\n")?;
    Ok(wire)
}

fn requests() -> anyhow::Result<()> {
    let (lab, port) = limited("limits-requests", "connectionPool: {http: {http2MaxRequests: 2}}")?;
    let gate = Arc::<Mutex<()>>::default();
    let backend = lab.backend(port, gated(Arc::clone(&gate)))?;
    let closed = locked(&gate);
    let mut held = [open(&lab, port)?, open(&lab, port)?];
    eventually(SOON, "both are under way", || match backend.heard().len() {
        2 => Ok(()),
        count => Err(format!("{count} are")),
    })?;
    for number in 0..3 {
        is_overflow(&Lab::get(port, &format!("/{number}")).from(&lab.scene.client)?)?;
    }
    ensure!(backend.heard().len() == 2, "refused requests were sent");
    let told = lab.told("UPSTREAM_OVERFLOW")?;
    ensure!(told["flags"] == "UO", "{told}");
    ensure!(told["error"].as_str().is_some_and(|text| text.contains("http2MaxRequests")), "{told}");
    let labels = ["resource=\"requests\"", &format!("port=\"{port}\"")];
    ensure!(metric(&lab.scene, "culvert_circuit_overflow_total", &labels)? == 3.0);
    ensure!(metric(&lab.scene, "culvert_circuit_used", &labels)? == 2.0);
    // Another port of the service has no such limit.
    lab.still_answers()?;
    drop(closed);
    for wire in &mut held {
        ensure!(wire.answer("GET")?.status == 200);
    }
    eventually(SOON, "there is room again", || -> anyhow::Result<()> {
        let answer = Lab::get(port, "/after").from(&lab.scene.client)?;
        ensure!(answer.status == 200, "{answer:?}");
        Ok(())
    })?;
    eventually(SOON, "nothing is left", || {
        match metric(&lab.scene, "culvert_circuit_used", &labels) {
            Ok(0.0) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
}

fn connections() -> anyhow::Result<()> {
    let policy = "connectionPool: {tcp: {maxConnections: 1}, http: {http1MaxPendingRequests: 1}}";
    let (lab, port) = limited("limits-connections", policy)?;
    let gate = Arc::<Mutex<()>>::default();
    let backend = lab.backend(port, gated(Arc::clone(&gate)))?;
    let closed = locked(&gate);
    let mut first = open(&lab, port)?;
    eventually(SOON, "one is under way", || match backend.heard().len() {
        1 => Ok(()),
        count => Err(format!("{count} are")),
    })?;
    let mut second = open(&lab, port)?;
    let pending = ["resource=\"pending\"", &format!("port=\"{port}\"")];
    eventually(SOON, "one waits", || match metric(&lab.scene, "culvert_circuit_used", &pending) {
        Ok(1.0) => Ok(()),
        other => Err(format!("{other:?}")),
    })?;
    let third = Lab::get(port, "/third").from(&lab.scene.client)?;
    is_overflow(&third)?;
    let text = String::from_utf8_lossy(&third.body);
    ensure!(text.contains("http1MaxPendingRequests"), "{text}");
    ensure!(backend.accepted() == 1, "{} connections", backend.accepted());
    drop(closed);
    ensure!(first.answer("GET")?.status == 200);
    ensure!(second.answer("GET")?.status == 200);
    // Connections that rest for one client make room for another, on whichever worker.
    for number in 0..20 {
        let pod = if number % 2 == 0 { &lab.scene.client } else { &lab.scene.v2 };
        let ask = Ask::get(Lab::at(port), "/turn").header("Connection", "close");
        let answer = ask.from(pod)?;
        ensure!(answer.status == 200, "{number}: {answer:?}");
        // What was closed for the next one is closed by now, but for the last.
        let open = backend.accepted() - backend.ended();
        ensure!(open <= 2, "{open} connections at a time");
    }
    Ok(())
}

fn per_connection() -> anyhow::Result<()> {
    let policy = "connectionPool: {http: {maxRequestsPerConnection: 2}}";
    let (lab, port) = limited("limits-per-connection", policy)?;
    let backend = lab.backend(port, gated(Arc::default()))?;
    let mut wire = lab.wire(port)?;
    for _ in 0..6 {
        wire.say("GET / HTTP/1.1\r\nHost: lab\r\n\r\n")?;
        ensure!(wire.answer("GET")?.status == 200);
    }
    ensure!(backend.accepted() == 3, "{} connections", backend.accepted());
    Ok(())
}

/// TLS that a rule asks for and that cannot be given: nothing is sent without it.
fn refused() -> anyhow::Result<()> {
    let lab = Lab::new("limits-refused")?;
    let port = lab.fresh();
    let backend = lab.backend(port, gated(Arc::default()))?;
    let entry =
        format!("{{portLevelSettings: [{{port: {{number: {port}}}, tls: {{mode: SIMPLE}}}}]}}");
    lab.scene.cluster.mesh().write("rule-lab.yaml", &super::rule("lab", "lab", "", &entry))?;
    let before = backend.heard().len();
    let answer = eventually(SOON, "requests are refused", || {
        let answer = Lab::get(port, "/").from(&lab.scene.client)?;
        ensure!(answer.status == 500, "{answer:?}");
        anyhow::Ok(answer)
    })?;
    let status = answer.header("proxy-status").unwrap_or_default();
    ensure!(status.contains("BACKEND_INVALID"), "{answer:?}");
    let now = backend.heard().len();
    ensure!(Lab::get(port, "/").from(&lab.scene.client)?.status == 500);
    ensure!(backend.heard().len() == now && before <= now, "{:?}", backend.heard());
    lab.still_answers()
}
