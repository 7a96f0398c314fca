//! No request runs twice, whatever becomes of the connections to the applications.
//!
//! Two applications log what they execute. Each closes connections that rest for as long as clients
//! wait between two requests; one also cuts a part of its exchanges at a random byte.
//! `CULVERT_TEST_REQUESTS` says how many requests; the suite makes 500.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::ensure;
use harness::asking::Answer;
use harness::backend::{Backend, Guest};
use harness::pod::Pod;
use harness::wire::Wire;

use super::super::suite::{Case, pass, times};
use super::lab::Lab;
use super::mesh_profile::http_route;

pub(crate) const CASES: &[Case] =
    &[("waypoint::duplicates::nothing_runs_twice_without_leave", &[], nothing_runs_twice)];

const CLIENTS: usize = 8;
/// Between two requests of a client, and how long an application lets a connection rest.
const PERIOD: Duration = Duration::from_millis(20);
/// Of the exchanges with the application that cuts, one in so many.
const CUT_ONE_IN: u32 = 4;
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nx-who: application\r\nContent-Length: 0\r\n\r\n";

/// How often each request was executed, by its path.
type Executed = Arc<Mutex<BTreeMap<String, u32>>>;

/// A request that a client made, and what came of it.
struct Told {
    path: String,
    /// Whether its method may be repeated without leave.
    idempotent: bool,
    answer: Answer,
}

fn nothing_runs_twice() -> anyhow::Result<()> {
    let wanted = times("CULVERT_TEST_REQUESTS", 500)?;
    let lab = Lab::new("duplicates")?;
    let executed = Executed::default();
    let (one, other) = (Arc::clone(&executed), Arc::clone(&executed));
    let _cuts = Backend::start(&lab.scene.v1, 8001, move |guest| serve(guest, &one, true))?;
    let _lives = Backend::start(&lab.scene.v2, 8001, move |guest| serve(guest, &other, false))?;
    let rules = "  - retry: {codes: [500], attempts: 4, backoff: 1ms}\n    filters:\n    \
                 - type: ResponseHeaderModifier\n      responseHeaderModifier: \
                 {set: [{name: x-route, value: here}]}\n    \
                 timeouts: {request: 20s}\n    backendRefs: [{name: both, port: 80}]";
    lab.scene.route(&http_route("both", "both", rules), |scene| {
        let mut wire = Wire::open(&scene.client, both())?;
        wire.say("GET /ready HTTP/1.1\r\nHost: both\r\n\r\n")?;
        let answer = wire.answer("GET")?;
        ensure!(answer.header("x-route").is_some(), "{answer:?}");
        Ok(())
    })?;
    let told = std::thread::scope(|scope| {
        let client = |number| {
            let pod = &lab.scene.client;
            scope.spawn(move || ask_all(pod, number, wanted / CLIENTS))
        };
        let clients: Vec<_> = (0..CLIENTS).map(client).collect();
        let told = clients.into_iter().map(|client| client.join().expect("no panic"));
        told.collect::<Result<Vec<_>, _>>()
    })?;
    let told: Vec<Told> = told.into_iter().flatten().collect();
    judge(&told, &executed.lock().unwrap_or_else(PoisonError::into_inner))
}

fn judge(told: &[Told], executed: &BTreeMap<String, u32>) -> anyhow::Result<()> {
    let times = |one: &Told| executed.get(&one.path).copied().unwrap_or_default();
    let (mut unknown, mut repeatable, mut failed) = (0, 0, Vec::new());
    for one in told {
        let Told { path, idempotent, answer } = one;
        let cause = answer.header("proxy-status").unwrap_or_default();
        repeatable += usize::from(*idempotent);
        ensure!(*idempotent || times(one) <= 1, "{path} ran {} times", times(one));
        match answer.status {
            200 => ensure!(times(one) >= 1, "{path} is answered and was not run"),
            503 if *idempotent => failed.push(format!("{path}: {cause}")),
            503 if cause.contains("DELIVERY_UNKNOWN") => unknown += 1,
            _ => anyhow::bail!("{path}: {answer:?}"),
        }
    }
    // 99.99 %
    let few = failed.len() * 10_000 <= repeatable;
    ensure!(few, "of {repeatable} that may be repeated failed {failed:?}");
    ensure!(unknown > 0, "nothing was ever cut where nobody knows");
    eprintln!(
        "{} requests: {repeatable} may be repeated, {} of them failed; \
         {unknown} others were answered DELIVERY_UNKNOWN; none of those ran twice",
        told.len(),
        failed.len()
    );
    Ok(())
}

fn both() -> SocketAddr {
    SocketAddr::from(([10, 96, 0, 22], 80))
}

/// A client that keeps its connection, and asks once per period.
fn ask_all(pod: &Pod, client: usize, count: usize) -> anyhow::Result<Vec<Told>> {
    let mut wire = Wire::open(pod, both())?;
    let mut told = Vec::with_capacity(count);
    let began = Instant::now();
    for number in 0..count {
        let due = began + PERIOD * u32::try_from(number)?;
        pass(due.saturating_duration_since(Instant::now()));
        let path = format!("/{client}-{number}");
        let (method, body) = match number % 4 {
            0 => ("GET", 0),
            1 => ("PUT", 300),
            _ => ("POST", 300),
        };
        let body = "x".repeat(body);
        wire.say(format!(
            "{method} {path} HTTP/1.1\r\nHost: both\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ))?;
        let answer = wire.answer(method)?;
        told.push(Told { path, idempotent: method != "POST", answer });
    }
    Ok(told)
}

/// Executes requests, and says so only after it did; `cuts` some of the exchanges.
fn serve(guest: &mut Guest, executed: &Executed, cuts: bool) -> io::Result<()> {
    let random = &mut fastrand::Rng::new();
    loop {
        guest.wire.stream()?.set_read_timeout(Some(PERIOD))?;
        // Nothing has come for a period, or the proxy has closed it.
        let Ok(first) = guest.wire.take(1) else { return Ok(()) };
        guest.wire.stream()?.set_read_timeout(Some(Duration::from_secs(20)))?;
        let cut = cuts && random.u32(..CUT_ONE_IN) == 0;
        let abrupt = cut && random.bool();
        if abrupt {
            let socket = guest.wire.stream()?;
            rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
        }
        // A request is longer than this, and the cut falls on either side of its end.
        let after = random.usize(..160);
        if cut && after < 80 {
            guest.wire.take(after)?;
            return Ok(());
        }
        let Some(heard) = guest.wire.request()? else { return Ok(()) };
        let line = String::from_utf8_lossy(&first).into_owned() + &heard.head;
        let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        *executed.lock().unwrap_or_else(PoisonError::into_inner).entry(path).or_default() += 1;
        if cut {
            return guest.say(&OK[..(after - 80).min(OK.len() - 1)]);
        }
        guest.say(OK)?;
    }
}
