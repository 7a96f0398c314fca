//! A limit that follows the time that answers take.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use anyhow::ensure;
use harness::backend::Guest;
use harness::eventually::{eventually, pause};
use harness::role::load;

use super::super::super::mesh::SOON;
use super::super::super::suite::Case;
use super::super::lab::Lab;
use super::metric;

pub(super) const CASES: &[Case] = &[(
    "waypoint::resilience::adaptive::a_destination_gets_what_it_can_serve_at_a_time",
    &[],
    adaptive,
)];

/// Requests that the application serves at a time, and how long each takes.
const PLACES: u32 = 4;
const WORK: Duration = Duration::from_millis(20);
/// Twice what it can serve.
const RATE: u32 = 400;

/// An application with a queue in front of it, or without a limit when it is at ease.
#[derive(Default)]
struct Queue {
    taken: Mutex<u32>,
    freed: Condvar,
    at_ease: AtomicBool,
}

impl Queue {
    fn serve(&self, guest: &mut Guest) -> io::Result<()> {
        while guest.wire.request()?.is_some() {
            if !self.at_ease.load(Ordering::SeqCst) {
                self.work();
            }
            guest.say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
        }
        Ok(())
    }

    fn work(&self) {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = |taken: &mut u32| *taken >= PLACES;
        let mut taken =
            self.freed.wait_while(taken, is_full).unwrap_or_else(PoisonError::into_inner);
        *taken += 1;
        drop(taken);
        pause(WORK);
        *self.taken.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.freed.notify_one();
    }
}

fn load(lab: &Lab, port: u16, seconds: f64) -> anyhow::Result<load::Report> {
    let program = lab.scene.client.role("load");
    let program = program.args(["--target", &Lab::at(port).to_string(), "--path", "/"]);
    let program = program.args(["--connections", "64", "--rate", &RATE.to_string()]);
    let program = program.args(["--seconds", &seconds.to_string()]);
    program.start()?.result(SOON + Duration::from_secs_f64(seconds))
}

fn adaptive() -> anyhow::Result<()> {
    let lab = Lab::new("adaptive")?;
    let port = lab.fresh();
    let queue = Arc::new(Queue::default());
    let own = Arc::clone(&queue);
    let _backend = lab.backend(port, move |guest| own.serve(guest))?;
    let annotation = "culvert.dev/adaptive-concurrency: \"true\"";
    let rule = super::rule("adaptive", "lab", annotation, "{}");
    lab.scene.cluster.mesh().write("rule-lab.yaml", &rule)?;
    let label = format!("port=\"{port}\"");
    let limit = || metric(&lab.scene, "culvert_concurrency_limit", &[&label]);
    eventually(SOON, "the rule is in force", || -> anyhow::Result<()> {
        ensure!(Lab::get(port, "/").from(&lab.scene.client)?.status == 200);
        ensure!(limit()? > 0.0, "there is no limit");
        Ok(())
    })?;
    // All 64 connections would wait for 16 turns.
    load(&lab, port, 3.0)?;
    let crowded = load(&lab, port, 4.0)?;
    let found = limit()?;
    eprintln!("limit {found}, {} answered, {:?}", crowded.ok, crowded.errors);
    ensure!((3.0..=24.0).contains(&found), "{found}");
    let refused = crowded.errors.get("status 503").copied().unwrap_or_default();
    ensure!(refused > 50 && crowded.failed() == refused, "{crowded:?}");
    let served = f64::from(PLACES) / WORK.as_secs_f64() * crowded.seconds;
    ensure!(crowded.ok as f64 > served * 0.4, "{} of {served}", crowded.ok);
    let told = lab.told("UPSTREAM_OVERFLOW")?;
    let error = told["error"].as_str().unwrap_or_default();
    ensure!(error.contains("culvert.dev/adaptive-concurrency"), "{told}");
    let overflow = ["resource=\"concurrency\"", &*label];
    ensure!(metric(&lab.scene, "culvert_circuit_overflow_total", &overflow)? > 50.0);
    queue.at_ease.store(true, Ordering::SeqCst);
    eventually(SOON, "nobody is refused any more", || -> anyhow::Result<()> {
        let report = load(&lab, port, 0.5)?;
        ensure!(report.failed() == 0, "{:?}, limit {}", report.errors, limit()?);
        Ok(())
    })
}
