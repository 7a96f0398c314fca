//! The comparison of data planes: the same programs, the same load, once without a mesh and once
//! through each data plane, in network namespaces on one machine.
//!
//! | module | holds |
//! |---|---|
//! | `args` | the command line |
//! | `cell` | what is measured: a rate, a number of connections, bulk, ... |
//! | `mode`, `backend`, `certs` | through what, and how that is set up |
//! | `run`, `measure`, `cost`, `syscalls` | one measurement after the other, and what it cost |
//! | `record`, `summary` | what is kept, and medians over rounds |
//! | `table`, `report`, `picture`, `fleet`, `check` | what is told about it |
//! | `chart`, `markup` | charts in general |

mod args;
mod backend;
mod cell;
mod certs;
mod chart;
mod check;
mod cost;
mod fleet;
mod machine;
mod markup;
mod measure;
mod mode;
mod picture;
mod record;
mod report;
mod run;
mod summary;
mod syscalls;
mod table;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;

use args::Args;
use record::Record;
use syscalls::Outside;

use crate::terminal::{ended, print, read, writable, write};

/// The `main` of the benchmark.
pub fn main() -> ExitCode {
    main_with(std::env::args().skip(1))
}

/// The same with other arguments than those of the process.
pub fn main_with(line: impl Iterator<Item = String>) -> ExitCode {
    let mut line: Vec<String> = line.collect();
    if line.first().map(String::as_str) == Some(harness::enter::ROLE) {
        return harness::enter::main_with(line, inside);
    }
    // Whatever needs no namespaces is done without them.
    let args = parse(&line);
    if !args.measures() {
        return ended(without_measuring(&args));
    }
    // Known now, not after twelve minutes.
    if let Err(error) = args.outputs().try_for_each(writable) {
        return ended(Err(error));
    }
    // Dropped at the end, with its socket.
    let outside = Outside::offer();
    match &outside {
        Ok(outside) => {
            line.extend(["--counter".to_owned(), outside.socket().display().to_string()])
        }
        Err(why) => line.extend(["--no-syscalls".to_owned(), why.clone()]),
    }
    harness::enter::main_with(line, inside)
}

/// Namespaces are there, and nothing else runs in them.
fn inside(line: Vec<String>) -> ExitCode {
    let args = parse(&line);
    ended(run::run(&args, |record| write_json(&args, record)).and_then(|record| {
        tell(&args, &record)?;
        Ok(record.failed.is_empty())
    }))
}

fn parse(line: &[String]) -> Args {
    Args::parse_from(std::iter::once("latency").chain(line.iter().map(String::as_str)))
}

fn without_measuring(args: &Args) -> anyhow::Result<bool> {
    if let Some([old, new]) = args.check.as_deref() {
        let comparison = check::compare(&read(old)?, &read(new)?);
        if !comparison.moved.is_empty() {
            print(&comparison.moved.text());
        }
        print(&format!(
            "\n{} figures compared, {} of ours worse\n",
            comparison.compared, comparison.worse
        ));
        return Ok(comparison.worse == 0);
    }
    let file = args.from.as_deref().context("nothing to report on")?;
    tell(args, &read(file)?)?;
    Ok(true)
}

/// The files that were asked for, and the report for the terminal.
fn tell(args: &Args, record: &Record) -> anyhow::Result<()> {
    write_json(args, record)?;
    write(args.html.as_deref(), || Ok(report::html(record)))?;
    write(args.svg.as_deref(), || Ok(picture::summary(record)))?;
    for (title, grid) in table::cells(record) {
        print(&format!("\n{title}\n{}", grid.text()));
    }
    let fleet = report::fleet(record);
    if !fleet.is_empty() {
        let rate = fleet::RATE;
        print(&format!(
            "\nIn a cluster, computed: every pod sends {rate} requests per second\n{}",
            fleet.text()
        ));
    }
    print(&format!("\nOverview\n{}", table::overview(record).text()));
    for remark in table::remarks(record) {
        print(&format!("  {remark}\n"));
    }
    if args.markdown {
        print(&format!("\n{}\n{}", table::overview(record).markdown(), fleet.markdown()));
    }
    Ok(())
}

fn write_json(args: &Args, record: &Record) -> anyhow::Result<()> {
    write(args.json.as_deref(), || record.to_json().map_err(Into::into))
}
