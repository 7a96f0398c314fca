//! A rollout: applications stop accepting, finish what they have, and are replaced.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use harness::backend::{Backend, Guest};
use harness::eventually::pause;

use super::{SOON, load};
use crate::faults::record::Row;
use crate::faults::world::{APP_PORT, Mode, Policy, Service, World};

const REPLICAS: usize = 3;
/// How late the configuration learns of an end, as a share of the longest time.
const LATE: [f64; REPLICAS] = [0.0, 0.5, 1.0];
/// The longest time, and what it is of a scenario of 20 s.
const LATEST: f64 = 5.0;
const OF_SECS: f64 = 20.0;

/// An application that ends as at SIGTERM.
struct Replica {
    backend: Backend,
    ending: Arc<AtomicBool>,
}

impl Replica {
    fn start(world: &World, at: usize) -> io::Result<Self> {
        let ending = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&ending);
        let pod = &world.members[at].pod;
        let backend = Backend::start(pod, APP_PORT, move |guest| serve(guest, &ends))?;
        Ok(Self { backend, ending })
    }

    /// Takes nothing new.
    fn end(self) {
        self.ending.store(true, Ordering::SeqCst);
        drop(self.backend);
    }
}

/// Answers what it hears; once it ends, what it has begun with, and no more.
fn serve(guest: &mut Guest, ending: &AtomicBool) -> io::Result<()> {
    guest.wire.stream()?.set_read_timeout(Some(Duration::from_millis(20)))?;
    let mut is_new = true;
    loop {
        match guest.wire.request() {
            Ok(None) => return Ok(()),
            Ok(Some(_)) => {
                is_new = false;
                let close = ending.load(Ordering::SeqCst);
                let connection = if close { "close" } else { "keep-alive" };
                guest.say(format!(
                    "HTTP/1.1 200 OK\r\nConnection: {connection}\r\nContent-Length: 2\r\n\r\nok"
                ))?;
                if close {
                    return Ok(());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // Like Go's server, it waits for the first request of what it has taken.
                if ending.load(Ordering::SeqCst) && guest.wire.ahead() == 0 && !is_new {
                    return Ok(());
                }
            }
            Err(error) => return Err(error),
        }
    }
}

pub(super) fn rollout(mode: Mode, secs: f64) -> anyhow::Result<Row> {
    let policy = Policy { outliers: false, retries: true };
    let service = Service::new(0, "roll", policy);
    let mut world = World::new(mode, &[service], &[("roll", REPLICAS * 2)])?;
    let mut replicas = Vec::new();
    for at in 0..REPLICAS {
        replicas.push(Replica::start(&world, at)?);
        world.join(at)?;
    }
    world.answers("/")?;
    let target = world.at(0).to_string();
    // They end when the last replica has gone.
    let kept = load(&world.client, &target, 150, 0.0, false)?;
    let new = load(&world.client, &target, 50, 0.0, true)?;
    for (at, replica) in replicas.into_iter().enumerate() {
        let next = Replica::start(&world, REPLICAS + at)?;
        world.join(REPLICAS + at)?;
        pause(Duration::from_secs_f64(secs * 0.05));
        replica.end();
        pause(Duration::from_secs_f64(LATE[at] * LATEST * (secs / OF_SECS).min(1.0)));
        world.leave(at)?;
        // Its successor stays to the end.
        std::mem::forget(next);
    }
    pause(Duration::from_secs_f64(secs * 0.05));
    let mut row = Row::of_load(&kept.finish(SOON)?);
    row.add(&Row::of_load(&new.finish(SOON)?));
    Ok(row)
}
