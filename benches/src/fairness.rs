//! The comparison of neighbours: what a quiet pod notices of a loud one on its node, once with the
//! loud one in the mesh and once with the same load beside it.
//!
//! Both share the node's ztunnel only in the first case, so the ratio is what the proxy lets through
//! of one pod to another; what two programs on one machine do to each other is in both.
//!
//! | module | holds |
//! |---|---|
//! | `args` | the command line |
//! | `world` | the nodes, the pods, the proxies |
//! | `load` | what the loud pod does |
//! | `record` | what is kept, and what is told about it |

mod args;
mod load;
mod record;
mod world;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser as _, ValueEnum as _};
use harness::role::load::Report;

use args::Args;
use load::Load;
use record::{Record, Sample};
use world::World;

use crate::terminal::{ended, print, say, writable, write};

/// The `main` of the benchmark.
pub fn main() -> ExitCode {
    main_with(std::env::args().skip(1))
}

/// The same with other arguments than those of the process.
pub fn main_with(line: impl Iterator<Item = String>) -> ExitCode {
    let line: Vec<String> = line.collect();
    if line.first().is_none_or(|first| first != harness::enter::ROLE) {
        // Known now, not after minutes; also `--help` needs no namespaces.
        let args = parse(&line);
        if let Some(Err(error)) = args.json.as_deref().map(writable) {
            return ended(Err(error));
        }
    }
    harness::enter::main_with(line, |line| ended(run(&parse(&line)).map(|()| true)))
}

fn parse(line: &[String]) -> Args {
    Args::parse_from(std::iter::once("fairness").chain(line.iter().map(String::as_str)))
}

fn run(args: &Args) -> anyhow::Result<()> {
    say("setting up two nodes");
    let world = World::new()?;
    let mut record = Record::new(args);
    for round in 1..=args.rounds {
        for load in Load::value_variants() {
            // Who goes first changes from round to round.
            for in_mesh in [round % 2 == 0, round % 2 == 1] {
                let sample = measure(&world, *load, in_mesh, args.secs, round)
                    .with_context(|| format!("{}, in the mesh: {in_mesh}", load.name()))?;
                say(&format!("round {round}/{}  {}", args.rounds, sample.line()));
                record.samples.push(sample);
            }
        }
        write(args.json.as_deref(), || Ok(serde_json::to_string_pretty(&record)?))?;
    }
    print(&record.tell(args.markdown));
    Ok(())
}

/// The victim's requests, while its neighbour does `load`.
fn measure(
    world: &World,
    load: Load,
    in_mesh: bool,
    secs: f64,
    round: u32,
) -> anyhow::Result<Sample> {
    let loud = load.start(world.neighbour(in_mesh), secs)?;
    let victim = world
        .victim
        .role("load")
        .args(["--target", &world.target(&world.victim_server)])
        .args(["--rate", "200", "--connections", "8", "--warm-up", "0.5"])
        .args(["--seconds", &secs.to_string()])
        .start()?
        .result::<Report>(Duration::from_secs_f64(secs + 60.0))?;
    let neighbour = loud.map(load::Loud::end).transpose()?.unwrap_or_default();
    Ok(Sample {
        load,
        in_mesh,
        round,
        p50_us: victim.p50_us,
        p99_us: victim.p99_us,
        max_us: victim.max_us,
        failed: victim.failed(),
        neighbour,
    })
}
