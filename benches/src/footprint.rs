//! The memory that the proxies hold: with little to know, with many routes, with a large mesh.
//!
//! | module | holds |
//! |---|---|
//! | `args` | the command line |
//! | `objects` | the Kubernetes objects of a mesh of any size |
//! | `world` | the node, its pods, the proxies |
//! | `record` | what is kept, and what is told about it |

mod args;
mod objects;
mod record;
mod world;

use std::process::ExitCode;

use clap::Parser as _;

use args::Args;
use record::{Figure, Record};
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
    Args::parse_from(std::iter::once("footprint").chain(line.iter().map(String::as_str)))
}

fn run(args: &Args) -> anyhow::Result<()> {
    let (few, many, routes) = (args.few, args.many.max(args.few), args.routes);
    let mut record = Record::new();
    let mut keep = |figure: Figure| {
        say(&figure.line());
        record.figures.push(figure);
    };
    say(&format!("setting up a node with {} pods and a waypoint", world::PODS));
    let world = World::new(few)?;
    world.settle(args.settle)?;
    keep(world.ztunnel(few)?);
    keep(world.waypoint(few, 0)?);
    world.add_routes(routes)?;
    world.settle(args.settle)?;
    keep(world.waypoint(few, routes)?);
    world.grow(few, many)?;
    world.settle(args.settle)?;
    keep(world.ztunnel(many)?);
    keep(world.waypoint(many, routes)?);
    world.check(many, routes)?;
    write(args.json.as_deref(), || Ok(serde_json::to_string_pretty(&record)?))?;
    print(&record.tell(args.markdown));
    Ok(())
}
