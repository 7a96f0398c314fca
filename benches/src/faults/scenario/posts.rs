//! POSTs with numbers, which applications count by what they execute.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use harness::backend::{Backend, Guest};
use harness::eventually::pause;
use harness::pod::Pod;
use harness::wire::Wire;

use crate::faults::record::Row;
use crate::faults::world::{APP_PORT, Mode, Policy, Service, World};

/// How long an application lets a connection rest, and clients wait between two requests.
const PERIOD: Duration = Duration::from_millis(50);
const CLIENTS: u64 = 16;
const APPLICATIONS: usize = 2;
/// Of the requests of an application that cuts, one in so many.
const CUT_ONE_IN: u32 = 50;

/// How often each request was executed, by its path.
type Executed = Arc<Mutex<BTreeMap<String, u32>>>;

/// Connections that rest are closed just when the next request comes.
pub(super) fn idle(mode: Mode, secs: f64) -> anyhow::Result<Row> {
    posts(mode, secs, |guest, executed| serve(guest, executed, Some(PERIOD), 0))
}

/// Applications execute, and are gone before they answer.
pub(super) fn cut(mode: Mode, secs: f64) -> anyhow::Result<Row> {
    posts(mode, secs, |guest, executed| serve(guest, executed, None, CUT_ONE_IN))
}

type Serve = fn(&mut Guest, &Executed) -> io::Result<()>;

fn posts(mode: Mode, secs: f64, serve: Serve) -> anyhow::Result<Row> {
    let policy = Policy { outliers: false, retries: true };
    let service = Service::new(0, "till", policy);
    let mut world = World::new(mode, &[service], &[("till", APPLICATIONS)])?;
    let executed = Executed::default();
    let mut applications = Vec::new();
    for at in 0..APPLICATIONS {
        let own = Arc::clone(&executed);
        let pod = &world.members[at].pod;
        applications.push(Backend::start(pod, APP_PORT, move |guest| serve(guest, &own))?);
        world.join(at)?;
    }
    world.answers("/ready")?;
    let until = Instant::now() + Duration::from_secs_f64(secs);
    let (client, target) = (&world.client, world.at(0));
    let told: Vec<(String, Option<u16>)> = std::thread::scope(|scope| {
        let one = |number| scope.spawn(move || ask(client, target, number, until));
        let all: Vec<_> = (0..CLIENTS).map(one).collect();
        all.into_iter().flat_map(|one| one.join().unwrap_or_default()).collect()
    });
    let executed = executed.lock().unwrap_or_else(PoisonError::into_inner);
    let times = |path: &str| executed.get(path).copied().unwrap_or_default();
    let mut row = Row { requests: told.len() as u64, ..Row::default() };
    let (mut twice, mut unknown, mut attempts) = (0, 0, 0);
    for (path, status) in &told {
        let is_failed = *status != Some(200);
        twice += u64::from(times(path) > 1);
        unknown += u64::from(is_failed && times(path) > 0);
        attempts += u64::from(times(path));
        if is_failed {
            row.failed += 1;
            let kind = status.map_or_else(|| "no answer".to_owned(), |one| format!("status {one}"));
            *row.errors.entry(kind).or_default() += 1;
        }
    }
    row.twice = Some(twice);
    row.failed_but_executed = Some(unknown);
    row.attempts = Some(attempts);
    Ok(row)
}

/// What came of the requests of one client; no status where its connection broke.
fn ask(
    client: &Pod,
    target: SocketAddr,
    number: u64,
    until: Instant,
) -> Vec<(String, Option<u16>)> {
    let mut told = Vec::new();
    let mut wire: Option<Wire> = None;
    for request in 0.. {
        if Instant::now() >= until {
            break;
        }
        let path = format!("/{number}-{request}");
        let status = match wire.take().map_or_else(|| Wire::open(client, target), Ok) {
            Ok(mut own) => {
                let status = post(&mut own, target, &path);
                wire = status.as_ref().ok().filter(|(_, stays)| *stays).map(|_| own);
                status.ok().map(|(status, _)| status)
            }
            Err(_) => None,
        };
        told.push((path, status));
        pause(PERIOD);
    }
    told
}

/// The status, and whether the connection stays.
fn post(wire: &mut Wire, target: SocketAddr, path: &str) -> io::Result<(u16, bool)> {
    wire.say(format!("POST {path} HTTP/1.1\r\nHost: {target}\r\nContent-Length: 2\r\n\r\nok"))?;
    let answer = wire.answer("POST")?;
    let closes = answer.header("connection").is_some_and(|said| said.contains("close"));
    Ok((answer.status, !closes))
}

fn serve(
    guest: &mut Guest,
    executed: &Executed,
    idle: Option<Duration>,
    cut_one_in: u32,
) -> io::Result<()> {
    guest.wire.stream()?.set_read_timeout(idle)?;
    // An error is that nothing came for too long, or a client that left.
    while let Some(heard) = guest.wire.request()? {
        let path = heard.head.split(' ').nth(1).unwrap_or_default().to_owned();
        let is_counted = path != "/ready";
        *executed.lock().unwrap_or_else(PoisonError::into_inner).entry(path).or_default() += 1;
        if is_counted && cut_one_in > 0 && fastrand::u32(..cut_one_in) == 0 {
            return Ok(());
        }
        guest.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
    }
    Ok(())
}
