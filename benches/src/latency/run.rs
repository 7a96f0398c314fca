//! The order of measurements: round by round, cell by cell, all modes in turn, so that what
//! changes on the machine over time hits all of them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::ValueEnum as _;

use super::args::Args;
use super::cell::Cell;
use super::machine;
use super::measure::{WARM_UP, measure, syscalls};
use super::mode::{Mode, World};
use super::record::{Record, Sample};
use super::syscalls::Counter;
use super::table::{MOST, STEADY, TOGETHER};
use crate::program::NGINX;
use crate::terminal::say;

/// Runs the comparison, gives `keep` what is there after each round. A mode that fails is given up;
/// the others go on.
///
/// # Errors
/// Nothing can be measured, or nothing can be kept.
pub(super) fn run(
    args: &Args,
    keep: impl Fn(&Record) -> anyhow::Result<()>,
) -> anyhow::Result<Record> {
    let cells = cells(args)?;
    let counter = args.counter.as_deref().map(Counter::connect).transpose()?;
    let mut record = Record {
        machine: machine::describe(args),
        secs: args.secs(),
        rounds: args.rounds(),
        missing: BTreeMap::new(),
        failed: BTreeMap::new(),
        no_syscalls: args.no_syscalls.clone(),
        syscalls: Vec::new(),
        samples: Vec::new(),
    };
    if let Some(why) = NGINX.missing() {
        say(&format!("{why}; until then a server of the harness answers, which is slower"));
    }
    let mut worlds = worlds(args, &mut record);
    anyhow::ensure!(
        !worlds.is_empty(),
        "no mode is left: {:?} {:?}",
        record.missing,
        record.failed
    );
    // Idle connections are opened once, through processes that have done nothing before: what
    // earlier measurements left in their allocators would hide what a connection takes.
    let (idle, cells): (Vec<Cell>, Vec<Cell>) = cells.into_iter().partition(|cell| cell.is_idle());
    let all = (cells.len() * args.rounds() as usize + idle.len()) * worlds.len();
    let mut progress = Progress::new(args, all);
    for round in 1..=args.rounds() {
        // Another one goes first in each round.
        worlds.rotate_left(usize::from(round > 1));
        for cell in &cells {
            each(&mut worlds, &mut record, |world, record| {
                let sample = measure(world, *cell, args.secs(), round)?;
                progress.done(&sample);
                record.samples.push(sample);
                Ok(())
            });
        }
        // Whoever ends the run early keeps the rounds that are whole.
        keep(&record)?;
    }
    count_syscalls(args, &cells, counter, &mut worlds, &mut record);
    let modes: Vec<Mode> = worlds.drain(..).map(|world| world.mode).collect();
    for cell in idle {
        for mode in &modes {
            match mode.build().and_then(|world| measure(&world, cell, args.secs(), 1)) {
                Ok(sample) => {
                    progress.done(&sample);
                    record.samples.push(sample);
                }
                Err(error) => give_up(*mode, &error, &mut record),
            }
        }
    }
    Ok(record)
}

fn worlds(args: &Args, record: &mut Record) -> Vec<World> {
    let modes = if args.modes.is_empty() { Mode::value_variants() } else { &args.modes };
    let mut worlds = Vec::new();
    for mode in modes {
        if let Some(why) = mode.missing() {
            say(&format!("{} is left out: {why}", mode.name()));
            record.missing.insert(*mode, why);
            continue;
        }
        say(&format!("setting up {}", mode.name()));
        match mode.build() {
            Ok(world) => worlds.push(world),
            Err(error) => give_up(*mode, &error, record),
        }
    }
    worlds
}

/// Does something in each world in turn; worlds in which it fails are given up.
fn each(
    worlds: &mut Vec<World>,
    record: &mut Record,
    mut act: impl FnMut(&World, &mut Record) -> anyhow::Result<()>,
) {
    worlds.retain(|world| match act(world, record) {
        Ok(()) => true,
        Err(error) => {
            give_up(world.mode, &error, record);
            false
        }
    });
}

fn give_up(mode: Mode, error: &anyhow::Error, record: &mut Record) {
    say(&format!("giving up {}: {error:#}", mode.name()));
    record.failed.insert(mode, format!("{error:#}"));
}

/// Runs of their own, because counting costs time.
fn count_syscalls(
    args: &Args,
    cells: &[Cell],
    counter: Option<Counter>,
    worlds: &mut Vec<World>,
    record: &mut Record,
) {
    let Some(mut counter) = counter else { return };
    for cell in [STEADY, TOGETHER, MOST].into_iter().filter(|cell| cells.contains(cell)) {
        each(worlds, record, |world, record| {
            if world.proxies.is_empty() {
                return Ok(());
            }
            say(&format!("counting system calls, {}, {}", cell.title(), world.mode.name()));
            record.syscalls.push(syscalls(world, cell, args.secs().min(2.0), &mut counter)?);
            Ok(())
        });
    }
}

fn cells(args: &Args) -> anyhow::Result<Vec<Cell>> {
    let all = Cell::all();
    let names: Vec<_> = all.iter().map(|cell| cell.name()).collect();
    // A whole name means that cell, even where others begin with it.
    let fits = |name: &String, word: &String| {
        if names.contains(word) { name == word } else { name.starts_with(word) }
    };
    let wanted = |cell: &Cell| {
        args.cells.is_empty() || args.cells.iter().any(|word| fits(&cell.name(), word))
    };
    let cells: Vec<Cell> = all.iter().copied().filter(wanted).collect();
    anyhow::ensure!(!cells.is_empty(), "no such cell; there are {}", names.join(", "));
    Ok(cells)
}

/// Tells where the run is and how long it will take.
struct Progress {
    started: Instant,
    guess: Duration,
    done: usize,
    all: usize,
    rounds: u32,
}

impl Progress {
    fn new(args: &Args, all: usize) -> Self {
        let each = WARM_UP + Duration::from_secs_f64(args.secs()) + Duration::from_millis(300);
        let guess = each * all as u32;
        say(&format!("{all} measurements, about {}", minutes(guess)));
        Self { started: Instant::now(), guess, done: 0, all, rounds: args.rounds() }
    }

    fn done(&mut self, sample: &Sample) {
        self.done += 1;
        let part = self.done as f64 / self.all as f64;
        // The first few say little about the rest.
        let seen = self.started.elapsed().div_f64(part);
        let whole = self.guess.mul_f64(1.0 - part) + seen.mul_f64(part);
        let left = whole.mul_f64(1.0 - part);
        say(&format!(
            "[{}/{}, {} left] round {}/{}  {:<40} {:<10} {}",
            self.done,
            self.all,
            minutes(left),
            sample.round,
            self.rounds,
            sample.cell.title(),
            sample.mode.name(),
            in_short(sample),
        ));
    }
}

fn minutes(time: Duration) -> String {
    let seconds = time.as_secs();
    format!("{}:{:02} min", seconds / 60, seconds % 60)
}

fn in_short(sample: &Sample) -> String {
    let errors: u64 = sample.errors.values().sum();
    let errors = if errors > 0 { format!(", {errors} errors") } else { String::new() };
    let figure = match (sample.cell, &sample.latency) {
        (Cell::Open { .. } | Cell::Burst { .. }, Some(latency)) => {
            let ms = |us: u64| us as f64 / 1000.0;
            let saturated = if sample.is_saturated() { ", saturated" } else { "" };
            format!("p50 {:.2} p99 {:.2} ms{saturated}", ms(latency.p50_us), ms(latency.p99_us))
        }
        (Cell::Bulk { .. }, _) => {
            format!("{:.2} Gbit/s", sample.bytes as f64 * 8.0 / 1e9 / sample.seconds)
        }
        (Cell::Idle { .. }, _) => format!("{} held", sample.done),
        _ => format!("{:.0} req/s", sample.rate()),
    };
    format!("{figure}{errors}")
}
