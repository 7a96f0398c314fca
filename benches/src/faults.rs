//! The comparison under faults: the same fault, the same policy, behind each data plane in turn.
//!
//! | module | holds |
//! |---|---|
//! | `args` | the command line |
//! | `world`, `envoy` | a client, services, endpoints, and what is between |
//! | `scenario` | what goes wrong, under which load |
//! | `record`, `table` | what came of it |

mod args;
mod envoy;
mod record;
mod scenario;
mod table;
mod world;

use std::fs;
use std::process::ExitCode;

use clap::Parser as _;

use args::Args;
use record::Record;

use crate::program::ENVOY;
use crate::terminal::{ended, print, read, say, write};

/// The `main` of the comparison.
pub fn main() -> ExitCode {
    main_with(std::env::args().skip(1))
}

/// The same with other arguments than those of the process.
pub fn main_with(line: impl Iterator<Item = String>) -> ExitCode {
    let line: Vec<String> = line.collect();
    if line.first().map(String::as_str) == Some(harness::enter::ROLE) {
        return harness::enter::main_with(line, inside);
    }
    // Whatever needs no namespaces is done without them.
    let args = parse(&line);
    match &args.from {
        Some(file) => ended(read(file).and_then(|record| tell(&args, &record).map(|()| true))),
        None => harness::enter::main_with(line, inside),
    }
}

fn parse(line: &[String]) -> Args {
    Args::parse_from(std::iter::once("faults").chain(line.iter().map(String::as_str)))
}

/// Namespaces are there, and nothing else runs in them.
fn inside(line: Vec<String>) -> ExitCode {
    let args = parse(&line);
    ended(run(&args).and_then(|record| {
        tell(&args, &record)?;
        Ok(record.failed.is_empty())
    }))
}

fn run(args: &Args) -> anyhow::Result<Record> {
    let mut record =
        Record { machine: machine(), envoy: ENVOY.version(), secs: args.secs, ..Record::default() };
    let mut modes = args.modes();
    modes.retain(|mode| match mode.missing() {
        None => true,
        Some(why) => {
            record.missing.push(format!("{}: {why}", mode.name()));
            false
        }
    });
    for scenario in args.scenarios() {
        say(&format!("{}: {}", scenario.name(), scenario.title()));
        for mode in &modes {
            match scenario.run(*mode, args.secs) {
                Ok(row) => {
                    say(&format!(
                        "  {}: {} of {} requests failed {:?}",
                        row.mode, row.failed, row.requests, row.errors
                    ));
                    record.rows.push(row);
                }
                Err(error) => {
                    let why = format!("{} through {}: {error:#}", scenario.name(), mode.name());
                    say(&format!("  {why}"));
                    record.failed.push(why);
                }
            }
            // One that is ended early is not lost.
            save(args, &record)?;
        }
    }
    Ok(record)
}

/// What it was counted on.
fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let name = cpus.lines().find_map(|line| line.strip_prefix("model name"));
    let name =
        name.and_then(|rest| rest.split_once(':')).map_or("unknown", |(_, name)| name.trim());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{cores} × {name}, Linux {}", read("/proc/sys/kernel/osrelease").trim())
}

fn tell(args: &Args, record: &Record) -> anyhow::Result<()> {
    save(args, record)?;
    let grid = table::grid(record);
    print(&format!("\n{}", grid.text()));
    for remark in record.missing.iter().chain(&record.failed) {
        print(&format!("  {remark}\n"));
    }
    if args.markdown {
        print(&format!("\n{}", grid.markdown()));
    }
    Ok(())
}

fn save(args: &Args, record: &Record) -> anyhow::Result<()> {
    write(args.json.as_deref(), || Ok(serde_json::to_string_pretty(record)?))
}
