//! What goes wrong, under which load.
//!
//! Applications are threads of this program, so that they fail exactly as the scenario says; one that is
//! killed is a process. What they executed is counted by them, what came of requests by clients.

mod posts;
mod replicas;
mod storm;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use clap::ValueEnum;
use harness::backend::{Backend, Guest};
use harness::eventually::pause;
use harness::pod::Pod;
use harness::process::Running;
use harness::role::load;
use serde::{Deserialize, Serialize};

use super::record::Row;
use super::world::{APP_PORT, Mode, Policy, Service, World};

/// Longer than any answer takes.
const SOON: Duration = Duration::from_secs(60);

/// A scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Scenario {
    /// One of five endpoints answers half of its requests with 500; outlier detection
    Sick,
    /// One of five applications is killed, and comes back; outlier detection
    Killed,
    /// Three applications are replaced one by one; the configuration is up to 5 s late
    Rollout,
    /// Applications close connections that rest for as long as clients wait between two POSTs
    Idle,
    /// Applications execute one POST in fifty and close without an answer
    Cut,
    /// Three hops that repeat 503, half of the four leaves answer nothing else
    Storm,
    /// Three hops that repeat 503, all leaves answer nothing else
    Outage,
}

impl Scenario {
    /// Its name on the command line.
    pub(super) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// What it is.
    pub(super) fn title(self) -> String {
        let value = self.to_possible_value();
        value.and_then(|value| value.get_help().map(ToString::to_string)).unwrap_or_default()
    }

    /// Lets it happen for about `secs` seconds.
    pub(super) fn run(self, mode: Mode, secs: f64) -> anyhow::Result<Row> {
        let mut row = match self {
            Self::Sick => sick(mode, secs),
            Self::Killed => killed(mode, secs),
            Self::Rollout => replicas::rollout(mode, secs),
            Self::Idle => posts::idle(mode, secs),
            Self::Cut => posts::cut(mode, secs),
            Self::Storm => storm::storm(mode, secs, 2),
            Self::Outage => storm::storm(mode, secs, 4),
        }?;
        row.scenario = self.name();
        row.mode = mode.name();
        Ok(row)
    }
}

const RATE: u32 = 200;
const FIVE: usize = 5;

fn fleet(mode: Mode) -> anyhow::Result<World> {
    let policy = Policy { outliers: true, retries: false };
    let mut world = World::new(mode, &[Service::new(0, "fleet", policy)], &[("fleet", FIVE)])?;
    for at in 0..FIVE {
        world.join(at)?;
    }
    Ok(world)
}

fn sick(mode: Mode, secs: f64) -> anyhow::Result<Row> {
    let world = fleet(mode)?;
    let sick = Arc::new(AtomicU32::new(0));
    let _applications: Vec<Backend> = (0..FIVE)
        .map(|at| {
            let sick = Arc::clone(&sick);
            Backend::start(&world.members[at].pod, APP_PORT, move |guest| {
                half(guest, if at == 2 { &sick } else { &HEALTHY })
            })
        })
        .collect::<Result<_, _>>()?;
    world.answers("/")?;
    let load = load(&world.client, &world.at(0).to_string(), RATE, secs, false)?;
    pause(Duration::from_secs_f64(secs * 0.1));
    sick.store(50, Ordering::SeqCst);
    Ok(Row::of_load(&finished(load, secs)?))
}

static HEALTHY: AtomicU32 = AtomicU32::new(0);

/// Of 100 requests, so many fail.
fn half(guest: &mut Guest, percent: &AtomicU32) -> std::io::Result<()> {
    while guest.wire.request()?.is_some() {
        let fails = fastrand::u32(..100) < percent.load(Ordering::SeqCst);
        let status = if fails { "500 Internal Server Error" } else { "200 OK" };
        guest.say(format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nok"))?;
    }
    Ok(())
}

fn killed(mode: Mode, secs: f64) -> anyhow::Result<Row> {
    let world = fleet(mode)?;
    let mut applications: Vec<Running> =
        (0..FIVE).map(|at| application(&world.members[at].pod)).collect::<Result<_, _>>()?;
    world.answers("/bytes/2")?;
    let load = load(&world.client, &world.at(0).to_string(), RATE, secs, false)?;
    pause(Duration::from_secs_f64(secs * 0.25));
    applications[2].kill();
    pause(Duration::from_secs_f64(secs * 0.25));
    applications[2] = application(&world.members[2].pod)?;
    Ok(Row::of_load(&finished(load, secs)?))
}

fn application(pod: &Pod) -> anyhow::Result<Running> {
    pod.role("app").args(["--listen", &format!("[::]:{APP_PORT}"), "--name", pod.name()]).start()
}

/// Requests of `pod` that have begun: `rate` a second for `secs` seconds.
fn load(pod: &Pod, target: &str, rate: u32, secs: f64, fresh: bool) -> anyhow::Result<Running> {
    let program = pod.role("load").args(["--target", target, "--path", "/bytes/2"]);
    let program = program.args(["--rate", &rate.to_string(), "--seconds", &secs.to_string()]);
    let program = program.args(["--connections", "16"]);
    let program = if fresh { program.arg("--fresh") } else { program };
    let mut running = program.start()?;
    running.line_with(load::COUNTING, SOON)?;
    Ok(running)
}

fn finished(mut load: Running, secs: f64) -> anyhow::Result<load::Report> {
    load.result(SOON + Duration::from_secs_f64(secs))
}
