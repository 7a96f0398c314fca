//! The process: parse, build, run, drain.
//!
//! ```text
//! arguments ─► Config ─► build: everything that can fail is tried, all ports bound
//!                          └► Bound::run: feed, certificates, pods, servers … SIGTERM ─► drain ─► exit 0
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
use std::sync::Arc;

use anyhow::Context as _;
use shared::config::{Environment, Given, ProcessEnvironment, Source};
use shared::feed::{self, dir};
use shared::mesh;
use shared::process;
use tokio::runtime::{Builder, Runtime};

pub use self::build::{Bound, Failure, build};
pub use shared::process::{Addresses, Log};

use self::cli::Command;
use crate::ca;
use crate::config::{self, Config};
use crate::redirect::capture;

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
    let command = match cli::parse(arguments.into_iter().map(Into::into).collect(), environment) {
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
        Command::Ca(arguments) => report(authority(*arguments, environment)),
        Command::Check(check) => check.run(),
        Command::Uncapture(netns) => report(
            capture::uncapture(&netns)
                .with_context(|| format!("remove the capture rules from {}", netns.display())),
        ),
        Command::Version => {
            println!("ztunnel {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
    }
}

fn proxy(source: &impl Source) -> ExitCode {
    let config = match Config::parse(source) {
        Ok(config) => config,
        Err(mistakes) => {
            for mistake in &mistakes {
                eprintln!("ztunnel: {mistake}");
            }
            eprintln!("ztunnel: see `ztunnel run --help`");
            return ExitCode::from(USAGE);
        }
    };
    report(run(config, &config::warnings(source)))
}

fn run(config: Config, warnings: &[String]) -> anyhow::Result<()> {
    let log = Log::start(&config.process)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let runtime = control_runtime()?;
    let end = log.clone();
    let result = runtime.block_on(async {
        build(config, log)?.run().await;
        anyhow::Ok(())
    });
    end.flush();
    result
}

/// The embedded authority, or one of its small commands.
fn authority(arguments: ca::args::Args, environment: &impl Environment) -> anyhow::Result<()> {
    if let Some(command) = arguments.command {
        print!("{}", command.run()?);
        return Ok(());
    }
    let config = arguments.serve.config().context("--mesh, --listen or --state is missing")?;
    let log = Log::plain(environment)?;
    let options = feed::Options { trust_domain: config.trust_domain.clone(), ..Default::default() };
    let (writer, reader) = mesh::writer();
    let mesh_directory = dir::Feed::start(&config.mesh, options, writer)?;
    let pods = Arc::new(ca::MeshPods::new(reader));
    let result = control_runtime()?.block_on(ca::run(config, pods));
    drop(mesh_directory);
    log.flush();
    Ok(result?)
}

fn control_runtime() -> anyhow::Result<Runtime> {
    Builder::new_current_thread().enable_all().build().context("make the control event loop")
}

/// Prints a failure with everything that caused it.
fn report(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ztunnel: {error:#}");
            let advice = match error.downcast_ref() {
                Some(ca::Error::State { source, .. }) => Some(process::state_advice(source).into()),
                _ => error.downcast_ref::<Failure>().and_then(Failure::advice),
            };
            if let Some(advice) = advice {
                eprintln!("ztunnel: {advice}");
            }
            ExitCode::from(FAILED)
        }
    }
}

#[cfg(test)]
mod tests;
