//! The comparison of data planes: the same programs, the same load, once without a mesh and once
//! through each data plane, in network namespaces on one machine.
//!
//! | module | holds |
//! |---|---|
//! | `args` | the command line |
//! | `cell` | what is measured: a rate, a number of connections, bulk, ... |
//! | `mode` | what it is measured through, and how that is set up |
//! | `run` | the order of measurements, and progress |
//! | `measure`, `cost` | one measurement: load, and what the processes spent |
//! | `record`, `summary` | what is kept of it, and medians over rounds |
//! | `table` | the report for a terminal |

mod args;
mod backend;
mod cell;
mod certs;
mod cost;
mod machine;
mod measure;
mod mode;
mod program;
mod record;
mod run;
mod summary;
mod table;

use std::process::ExitCode;

use clap::Parser as _;

use args::Args;

/// The `main` of the benchmark.
pub fn main() -> ExitCode {
    // Help and mistakes are answered before any namespace is made.
    if std::env::args().nth(1).as_deref() != Some(harness::enter::ROLE) {
        Args::parse();
    }
    harness::enter::main(inside)
}

fn inside(args: Vec<String>) -> ExitCode {
    let args = Args::parse_from(std::iter::once("latency".to_owned()).chain(args));
    match run::run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("\nthe comparison could not go on: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Progress and complaints; results go to standard output.
#[expect(clippy::print_stderr, reason = "the benchmark talks to a person")]
fn say(line: &str) {
    eprintln!("{line}");
}
