//! Three hops, each of which repeats what fails; the applications between pass nothing on but the
//! status, as most do.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use harness::backend::{Backend, Guest};
use harness::netns::NetNs;

use crate::faults::record::Row;
use crate::faults::world::{APP_PORT, Mode, Policy, Service, World, ask};

const LEAVES: usize = 4;
const CLIENTS: u64 = 4;

pub(super) fn storm(mode: Mode, secs: f64, dead: usize) -> anyhow::Result<Row> {
    let policy = Policy { outliers: false, retries: true };
    let services = [
        Service::new(0, "first", policy),
        Service::new(1, "second", policy),
        Service::new(2, "leaf", policy),
    ];
    let members = [("first", 1), ("second", 1), ("leaf", LEAVES)];
    let mut world = World::new(mode, &services, &members)?;
    let mut hops = Vec::new();
    for at in 0..2 {
        let pod = &world.members[at].pod;
        let (inside, next) = (pod.netns().another()?, world.at(at + 1));
        hops.push(Backend::start(pod, APP_PORT, move |guest| relay(guest, &inside, next))?);
    }
    let leaves: Vec<Backend> = (0..LEAVES)
        .map(|at| {
            let is_dead = at < dead;
            Backend::start(&world.members[2 + at].pod, APP_PORT, move |guest| {
                // They are well until the load begins.
                leaf(guest, is_dead)
            })
        })
        .collect::<Result<_, _>>()?;
    for at in 0..2 + LEAVES {
        world.join(at)?;
    }
    world.answers("/ready")?;
    let heard = || leaves.iter().map(|leaf| leaf.heard().len() as u64).sum::<u64>();
    let before = heard();
    let until = Instant::now() + Duration::from_secs_f64(secs);
    let (client, target) = (&world.client, world.at(0));
    let rows: Vec<Row> = std::thread::scope(|scope| {
        let one = |_| {
            scope.spawn(move || {
                let mut row = Row::default();
                while Instant::now() < until {
                    row.requests += 1;
                    let status = ask(client.netns(), target, "/");
                    if !matches!(status, Ok(200)) {
                        row.failed += 1;
                        let kind = status
                            .map_or_else(|_| "no answer".to_owned(), |one| format!("status {one}"));
                        *row.errors.entry(kind).or_default() += 1;
                    }
                }
                row
            })
        };
        let all: Vec<_> = (0..CLIENTS).map(one).collect();
        all.into_iter().map(|one| one.join().unwrap_or_default()).collect()
    });
    let mut row = Row::default();
    rows.iter().for_each(|one| row.add(one));
    row.attempts = Some(heard() - before);
    Ok(row)
}

fn leaf(guest: &mut Guest, is_dead: bool) -> std::io::Result<()> {
    while let Some(heard) = guest.request()? {
        let is_asked = heard.head.starts_with("GET / ");
        let status = if is_dead && is_asked { "503 Dead" } else { "200 OK" };
        guest.say(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"))?;
    }
    Ok(())
}

/// An application that asks the next one and answers with its status.
fn relay(guest: &mut Guest, inside: &NetNs, to: SocketAddr) -> std::io::Result<()> {
    while let Some(heard) = guest.wire.request()? {
        let path = heard.head.split(' ').nth(1).unwrap_or("/");
        let status = ask(inside, to, path).unwrap_or(503);
        guest.say(format!("HTTP/1.1 {status} Told\r\nContent-Length: 0\r\n\r\n"))?;
    }
    Ok(())
}
