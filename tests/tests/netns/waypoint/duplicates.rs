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
use harness::asking::{Answer, Ask};
use harness::backend::{Backend, Guest};
use harness::pod::Pod;
use harness::wire::Wire;

use super::super::suite::{Case, pass, times};
use super::endpoints::STATUS_200;
use super::frames::{
    self, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, RST_STREAM, SETTINGS, frame,
};
use super::lab::Lab;
use super::mesh_profile::route;

pub(crate) const CASES: &[Case] = &[
    ("waypoint::duplicates::nothing_runs_twice_without_leave", &[], over_http1),
    ("waypoint::duplicates::nothing_runs_twice_over_http2", &[], over_http2),
    ("waypoint::duplicates::nothing_runs_twice_past_the_waypoint", &[], past_the_waypoint),
];

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

/// Serves connections of an application; the last argument is whether it cuts.
type Serve = fn(&mut Guest, &Executed, bool) -> io::Result<()>;

/// A port of the service `cut` with two applications behind it.
struct Both {
    lab: Lab,
    executed: Executed,
    _applications: [Backend; 2],
}

impl Both {
    fn new(name: &str, port: u16, serve: Serve) -> anyhow::Result<Self> {
        let lab = Lab::new(name)?;
        lab.scene.cluster.mesh().write("both.yaml", SERVICES)?;
        let executed = Executed::default();
        let (one, other) = (Arc::clone(&executed), Arc::clone(&executed));
        let applications = [
            Backend::start(&lab.scene.v1, 8001, move |guest| serve(guest, &one, true))?,
            Backend::start(&lab.scene.v2, 8001, move |guest| serve(guest, &other, false))?,
        ];
        let rules = "  - retry: {codes: [500], attempts: 4, backoff: 1ms}\n    filters:\n    \
                     - type: ResponseHeaderModifier\n      responseHeaderModifier: \
                     {set: [{name: x-route, value: here}]}\n    \
                     timeouts: {request: 20s}\n    backendRefs: [{name: cut, port: PORT}]";
        let parent = format!("group: \"\"\n    kind: Service\n    name: cut\n    port: {port}");
        let rules = rules.replace("PORT", &port.to_string());
        lab.scene.route(&route("HTTPRoute", "shop", "cut", &parent, &rules), |scene| {
            let ready = Ask::get(through(port), "/ready").method("PUT").body(b"/ready ");
            let answer = ready.from(&scene.client)?;
            ensure!(answer.header("x-route").is_some(), "{answer:?}");
            Ok(())
        })?;
        Ok(Self { lab, executed, _applications: applications })
    }

    /// What came of about `wanted` requests of several clients.
    fn asked(
        &self,
        wanted: usize,
        ask_all: impl Fn(&Pod, usize, usize) -> anyhow::Result<Vec<Told>> + Sync,
    ) -> anyhow::Result<Vec<Told>> {
        std::thread::scope(|scope| {
            let (pod, ask_all) = (&self.lab.scene.client, &ask_all);
            let client = |number| scope.spawn(move || ask_all(pod, number, wanted / CLIENTS));
            let clients: Vec<_> = (0..CLIENTS).map(client).collect();
            let told = clients.into_iter().map(|client| client.join().expect("no panic"));
            let told = told.collect::<Result<Vec<_>, _>>()?;
            Ok(told.into_iter().flatten().collect())
        })
    }

    fn executed(&self) -> BTreeMap<String, u32> {
        self.executed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

const SERVICES: &str = "apiVersion: v1
kind: Service
metadata:
  name: cut
  namespace: shop
spec:
  clusterIP: 10.96.0.50
  selector: { app: echo }
  ports:
  - { name: http, port: 80, targetPort: 8001 }
  - { name: http2, port: 81, targetPort: 8001 }
---
apiVersion: v1
kind: Service
metadata:
  name: cut-past
  namespace: shop
  labels: { istio.io/use-waypoint: none }
spec:
  clusterIP: 10.96.0.51
  selector: { app: echo }
  ports: [{ name: http, port: 80, targetPort: 8001 }]
";

/// Through the waypoint.
fn through(port: u16) -> SocketAddr {
    SocketAddr::from(([10, 96, 0, 50], port))
}

fn over_http1() -> anyhow::Result<()> {
    let both = Both::new("duplicates", 80, serve)?;
    let wanted = times("CULVERT_TEST_REQUESTS", 500)?;
    let told = both.asked(wanted, |pod, client, count| ask_all(pod, 80, client, count))?;
    judge(&told, &both.executed())
}

/// The clients speak HTTP/1.1; what they ask goes over few connections of HTTP/2.
fn over_http2() -> anyhow::Result<()> {
    let both = Both::new("duplicates-http2", 81, serve_http2)?;
    let wanted = times("CULVERT_TEST_REQUESTS", 500)?;
    let told = both.asked(wanted, |pod, client, count| ask_all(pod, 81, client, count))?;
    judge(&told, &both.executed())
}

/// ztunnels alone carry each connection to another endpoint only if the application took nothing.
fn past_the_waypoint() -> anyhow::Result<()> {
    let both = Both::new("duplicates-past", 80, serve)?;
    let wanted = times("CULVERT_TEST_REQUESTS", 500)?;
    let past = SocketAddr::from(([10, 96, 0, 51], 80));
    let told = both.asked(wanted, |pod, client, count| {
        let ask = |number: usize| {
            let path = format!("/{client}-{number}");
            let answer = Ask::get(past, &path).method("POST").body(b"pay 10").from(pod);
            // Who is cut has no answer.
            let answer = answer.unwrap_or(Answer { status: 0, headers: vec![], body: vec![] });
            Told { path, idempotent: false, answer }
        };
        Ok((0..count).map(ask).collect())
    })?;
    let executed = both.executed();
    let mut good = 0;
    for one in &told {
        let times = executed.get(&one.path).copied().unwrap_or_default();
        ensure!(times <= 1, "{} ran {times} times", one.path);
        ensure!(times == 1 || one.answer.status != 200, "{} was not run", one.path);
        good += usize::from(one.answer.status == 200);
    }
    eprintln!("{} connections, {good} answered; no request ran twice", told.len());
    ensure!(good * 4 > told.len() * 3, "{good} of {} answered", told.len());
    Ok(())
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

/// A client that keeps its connection, and asks once per period.
fn ask_all(pod: &Pod, port: u16, client: usize, count: usize) -> anyhow::Result<Vec<Told>> {
    let mut wire = Wire::open(pod, through(port))?;
    let mut told = Vec::with_capacity(count);
    let began = Instant::now();
    for number in 0..count {
        let due = began + PERIOD * u32::try_from(number)?;
        pass(due.saturating_duration_since(Instant::now()));
        let path = format!("/{client}-{number}");
        // An application of HTTP/2 knows a request by its body.
        let body = format!("{path} {}", "x".repeat(300));
        let (method, body) = match number % 4 {
            0 if port == 80 => ("GET", ""),
            0 | 1 => ("PUT", &*body),
            _ => ("POST", &*body),
        };
        wire.say(format!(
            "{method} {path} HTTP/1.1\r\nHost: cut\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ))?;
        let answer = wire.answer(method)?;
        told.push(Told { path, idempotent: method != "POST", answer });
    }
    Ok(told)
}

fn run(executed: &Executed, path: String) {
    *executed.lock().unwrap_or_else(PoisonError::into_inner).entry(path).or_default() += 1;
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
        run(executed, path);
        if cut {
            return guest.say(&OK[..(after - 80).min(OK.len() - 1)]);
        }
        guest.say(OK)?;
    }
}

/// The same of HTTP/2: a request has run when its body has ended.
fn serve_http2(guest: &mut Guest, executed: &Executed, cuts: bool) -> io::Result<()> {
    let random = &mut fastrand::Rng::new();
    // RFC 9113 §3.4: the client's preface.
    guest.wire.take(24)?;
    guest.say(frame(SETTINGS, 0, 0, &[]))?;
    let mut bodies: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
    // The last stream of which anything has run.
    let mut last = 0;
    loop {
        guest.wire.stream()?.set_read_timeout(Some(PERIOD))?;
        let Ok(heard) = frames::next(&mut guest.wire) else { return Ok(()) };
        let cut = cuts && matches!(heard.kind, HEADERS | DATA) && random.u32(..8) == 0;
        match heard.kind {
            SETTINGS if heard.flags & frames::ACK == 0 => {
                guest.say(frame(SETTINGS, frames::ACK, 0, &[]))?;
            }
            DATA => bodies.entry(heard.stream).or_default().extend(&heard.payload),
            RST_STREAM => drop(bodies.remove(&heard.stream)),
            _ => {}
        }
        if cut && random.bool() {
            return end_http2(guest, heard.stream, last, random);
        }
        if !(heard.kind == DATA && heard.flags & END_STREAM != 0) {
            continue;
        }
        let body = bodies.remove(&heard.stream).unwrap_or_default();
        let text = String::from_utf8_lossy(&body);
        run(executed, text.split(' ').next().unwrap_or_default().to_owned());
        last = last.max(heard.stream);
        let answer = frame(HEADERS, END_HEADERS | END_STREAM, heard.stream, STATUS_200);
        if cut {
            return guest.say(&answer[..random.usize(..answer.len())]);
        }
        guest.say(answer)?;
    }
}

/// Ends a connection before the request on `stream` has run: without a word, or saying what was not
/// begun.
fn end_http2(
    guest: &mut Guest,
    stream: u32,
    last: u32,
    random: &mut fastrand::Rng,
) -> io::Result<()> {
    match random.u32(..3) {
        0 => Ok(()),
        1 => guest.say(frame(RST_STREAM, 0, stream, &[0, 0, 0, 7])),
        _ => guest.say(frame(GOAWAY, 0, 0, &[last.to_be_bytes(), [0; 4]].concat())),
    }
}
