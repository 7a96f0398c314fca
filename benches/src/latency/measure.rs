//! One measurement: a load through a world, and what it cost.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use harness::eventually::pause;
use harness::process::{Program, Running};
use harness::role::{bulk, hold, load};
use serde::de::DeserializeOwned;

use super::backend::PATH;
use super::cell::{Cell, Direction};
use super::cost::{Cost, Meter, Part};
use super::mode::World;
use super::record::{Latency, Sample, Syscalls};
use super::syscalls::Counter;

/// Not counted: connections are opened, caches fill, workers join.
pub(super) const WARM_UP: Duration = Duration::from_millis(500);
/// For what should take no time at all.
const PATIENCE: Duration = Duration::from_secs(30);

/// Measures `cell` through `world` for `secs` seconds.
///
/// # Errors
/// A process ended or did not answer; failures of single requests are part of the sample.
pub(super) fn measure(world: &World, cell: Cell, secs: f64, round: u32) -> anyhow::Result<Sample> {
    match cell {
        Cell::Open { .. } | Cell::Burst { .. } | Cell::Closed { .. } | Cell::Fresh { .. } => {
            requests(world, cell, secs, round)
        }
        Cell::Bulk { streams, direction } => bulk(world, cell, secs, round, streams, direction),
        Cell::Idle { connections } => idle(world, cell, secs, round, connections),
    }
    .with_context(|| format!("{} through {}", cell.title(), world.mode.name()))
}

/// A client's role, in the client's pod, that talks to `target`.
fn client(world: &World, role: &str, target: SocketAddr) -> Program {
    let program = world.client.role(role).args(["--target", &target.to_string()]);
    match &world.client_tls {
        Some(tls) => program.arg("--tls").arg(tls),
        None => program,
    }
}

/// The load generator for a cell of requests.
fn generator(world: &World, cell: Cell) -> anyhow::Result<Program> {
    let (connections, flags) = match cell {
        Cell::Open { rate, connections } => (connections, vec![format!("--rate={rate}")]),
        Cell::Burst { rate, connections } => {
            (connections, vec![format!("--rate={rate}"), "--together".to_owned()])
        }
        Cell::Closed { connections } => (connections, Vec::new()),
        Cell::Fresh { connections } => (connections, vec!["--fresh".to_owned()]),
        Cell::Bulk { .. } | Cell::Idle { .. } => anyhow::bail!("{} has no requests", cell.title()),
    };
    let program = client(world, "load", world.targets.http).args(["--path", PATH]);
    Ok(program.arg(format!("--connections={connections}")).args(flags))
}

fn requests(world: &World, cell: Cell, secs: f64, round: u32) -> anyhow::Result<Sample> {
    let timed = timed(generator(world, cell)?, secs);
    let (report, costs): (load::Report, _) = watched(world, &world.backend.http, timed, secs)?;
    let latency = Latency {
        p50_us: report.p50_us,
        p90_us: report.p90_us,
        p99_us: report.p99_us,
        p999_us: report.p999_us,
        max_us: report.max_us,
        histogram: report.histogram,
    };
    Ok(Sample {
        mode: world.mode,
        cell,
        round,
        seconds: report.seconds,
        done: report.answers,
        bytes: 0,
        errors: report.errors,
        unsent: report.unsent,
        latency: Some(latency),
        costs,
    })
}

fn bulk(
    world: &World,
    cell: Cell,
    secs: f64,
    round: u32,
    streams: u32,
    direction: Direction,
) -> anyhow::Result<Sample> {
    let mut program =
        client(world, "bulk", world.targets.bulk).args(["--streams", &streams.to_string()]);
    if direction == Direction::Down {
        program = program.arg("--down");
    }
    let (report, costs): (bulk::Report, _) =
        watched(world, &world.backend.bulk, timed(program, secs), secs)?;
    Ok(Sample {
        mode: world.mode,
        cell,
        round,
        seconds: report.seconds,
        done: 0,
        bytes: report.bytes,
        errors: report.errors,
        unsent: 0,
        latency: None,
        costs,
    })
}

fn idle(
    world: &World,
    cell: Cell,
    secs: f64,
    round: u32,
    connections: u32,
) -> anyhow::Result<Sample> {
    let hold =
        client(world, "hold", world.targets.echo).arg(format!("--connections={connections}"));
    let mut hold = hold.start()?;
    let watch = Watch::start(world, &hold, &world.backend.echo)?;
    hold.line_with("holding", Duration::from_secs(120))?;
    let watch = watch.again()?;
    let started = std::time::Instant::now();
    pause(Duration::from_secs_f64(secs));
    let costs = watch.stop()?;
    let seconds = started.elapsed().as_secs_f64();
    let report: hold::Report = hold.finish(Duration::from_secs(120))?;
    let errors = report.error.map(|error| (error, u64::from(connections) - report.alive as u64));
    Ok(Sample {
        mode: world.mode,
        cell,
        round,
        seconds,
        done: report.alive as u64,
        bytes: 0,
        errors: errors.into_iter().collect(),
        unsent: 0,
        latency: None,
        costs,
    })
}

fn timed(program: Program, secs: f64) -> Program {
    let warm_up = WARM_UP.as_secs_f64().to_string();
    program.args(["--warm-up", &warm_up, "--seconds", &secs.to_string(), "--stay"])
}

/// Counts the proxies' system calls while requests of `cell` go through `world`. The counting
/// begins before the first request and ends after the last.
pub(super) fn syscalls(
    world: &World,
    cell: Cell,
    secs: f64,
    counter: &mut Counter,
) -> anyhow::Result<Syscalls> {
    let program = generator(world, cell)?.args(["--seconds", &secs.to_string()]);
    let pids: Vec<u32> = world.proxies.iter().map(|(_, proxy)| proxy.pid()).collect();
    counter.start(&pids)?;
    let report: load::Report = program.start()?.result(Duration::from_secs_f64(secs) + PATIENCE)?;
    let counts = counter.stop()?;
    Ok(Syscalls { mode: world.mode, cell, requests: report.answers, counts })
}

/// Runs a client that says when it counts, and reads the meters at these moments.
fn watched<T: DeserializeOwned>(
    world: &World,
    server: &Running,
    program: Program,
    secs: f64,
) -> anyhow::Result<(T, Vec<Cost>)> {
    let mut client = program.start()?;
    let soon = WARM_UP + PATIENCE;
    client.line_with(load::COUNTING, soon)?;
    let watch = Watch::start(world, &client, server)?;
    client.line_with(load::COUNTED, Duration::from_secs_f64(secs) + soon)?;
    let costs = watch.stop()?;
    Ok((client.finish(PATIENCE)?, costs))
}

/// The meters of all processes of a world at the start of a measurement.
struct Watch(Vec<(Part, u32, Meter)>);

impl Watch {
    fn start(world: &World, client: &Running, server: &Running) -> anyhow::Result<Self> {
        let mut parts = vec![(Part::Client, client.pid()), (Part::Server, server.pid())];
        parts.extend(world.proxies.iter().map(|(part, proxy)| (*part, proxy.pid())));
        let meters = parts.into_iter().map(|(part, pid)| Ok((part, pid, read(part, pid)?)));
        Ok(Self(meters.collect::<anyhow::Result<_>>()?))
    }

    /// Begins anew, but remembers how much memory each process had.
    fn again(&self) -> anyhow::Result<Self> {
        let meters = self.0.iter().map(|(part, pid, before)| {
            Ok((*part, *pid, read(*part, *pid)?.with_memory_of(before)))
        });
        Ok(Self(meters.collect::<anyhow::Result<_>>()?))
    }

    fn stop(&self) -> anyhow::Result<Vec<Cost>> {
        let meters =
            self.0.iter().map(|(part, pid, before)| Ok(before.cost(&read(*part, *pid)?, *part)));
        meters.collect()
    }
}

fn read(part: Part, pid: u32) -> anyhow::Result<Meter> {
    Meter::read(pid).with_context(|| format!("the process of {part:?} is gone"))
}
