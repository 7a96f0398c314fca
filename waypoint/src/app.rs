//! The process: parse, build, run, drain.
//!
//! ```text
//! arguments ─► Config ─► build: everything that can fail is tried, all ports bound
//!                          └► Bound::run: feed, certificate, tunnels, servers … SIGTERM ─► drain ─► exit 0
//! ```
//!
//! Exit codes: 0 done; 1 cannot start, or something is not in force (`check`); 64 the command line or
//! a variable is wrong.

mod build;
mod cli;
mod dump;
mod run;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Context as _;
use shared::config::{Environment, Given, ProcessEnvironment, Source};
use shared::process;
use tokio::runtime::Builder;

pub use self::build::{Bound, build};
pub use shared::process::{Addresses, Log};

use self::cli::Command;
use crate::config::{self, Config};

/// `EX_USAGE`: the command line or a variable is wrong.
const USAGE: u8 = 64;
/// It cannot start.
const FAILED: u8 = 1;

/// Runs the program with the arguments and the environment of this process.
pub fn main() -> ExitCode {
    run_from(std::env::args_os(), &ProcessEnvironment)
}

/// Runs the program with these arguments (the first is its name) and this environment.
///
/// Tests and the demo call it in processes of their own, because it ends with the process in mind:
/// it installs the log, a panic hook and signal handlers.
pub fn run_from<I, A>(arguments: I, environment: &impl Environment) -> ExitCode
where
    I: IntoIterator<Item = A>,
    A: Into<OsString>,
{
    let command = match cli::parse(arguments.into_iter().map(Into::into).collect()) {
        Ok(command) => command,
        Err(error) => {
            // Help and version are no mistakes; clap says which.
            let mistake = error.use_stderr();
            error.print().ok();
            return if mistake { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    match command {
        Command::Run(flags) => proxy(&Given::new(flags, environment)),
        Command::Check(check) => check.run(),
        Command::Version => {
            println!("waypoint {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
    }
}

fn proxy(source: &impl Source) -> ExitCode {
    let config = match Config::parse(source) {
        Ok(config) => config,
        Err(mistakes) => {
            for mistake in &mistakes {
                eprintln!("waypoint: {mistake}");
            }
            eprintln!("waypoint: see `waypoint run --help`");
            return ExitCode::from(USAGE);
        }
    };
    match run(config, &config::warnings(source)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("waypoint: {error:#}");
            let advice = error.downcast_ref().and_then(process::Failure::advice);
            if let Some(advice) = advice {
                eprintln!("waypoint: {advice}");
            }
            ExitCode::from(FAILED)
        }
    }
}

fn run(config: Config, warnings: &[String]) -> anyhow::Result<()> {
    let log = Log::start(&config.process)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("make the control event loop")?;
    let end = log.clone();
    let result = runtime.block_on(async {
        build(config, log)?.run().await;
        anyhow::Ok(())
    });
    end.flush();
    result
}
