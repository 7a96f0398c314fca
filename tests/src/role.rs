//! The processes of a test: this program, run again as something else.
//! A role that gives a result prints it as one JSON line at its end; the types are here too.

pub mod app;
pub mod bulk;
pub mod exec;
pub mod exit;
pub mod hold;
pub mod http;
pub mod load;
pub mod servers;
pub mod sniff;
pub mod tick;
mod tls;
pub mod tunnel;

use std::future::Future;
use std::process::ExitCode;

use clap::Parser;
use serde::Serialize;

/// Plays `role` with `args`; proxies get their arguments unread.
pub(crate) fn play(role: &str, args: Vec<String>) -> ExitCode {
    let result = match role {
        "exec" => exec::run(parse(role, args)),
        "ztunnel" => {
            let environment = shared::config::ProcessEnvironment;
            return ztunnel::app::run_from(with_name("ztunnel", args), &environment);
        }
        "waypoint" => {
            let environment = shared::config::ProcessEnvironment;
            return waypoint::app::run_from(with_name("waypoint", args), &environment);
        }
        "app" => block_on(app::serve(parse(role, args))),
        "echo" => block_on(servers::echo(parse(role, args))),
        "banner" => block_on(servers::banner(parse(role, args))),
        "bulk" => block_on(bulk::run(parse(role, args))),
        "http" => block_on(http::serve(parse(role, args))),
        "load" => load::run(&parse(role, args)),
        "tick" => block_on(tick::run(parse(role, args))),
        "hold" => block_on(hold::run(parse(role, args))),
        "tunnel" => block_on(tunnel::run(parse(role, args))),
        "stay" => block_on(stay(parse(role, args))),
        "exit" => block_on(exit::run(parse(role, args))),
        "sniff" => sniff::run(&parse(role, args)),
        _ => Err(anyhow::anyhow!("there is no role {role:?}")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{role}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn with_name(name: &str, args: Vec<String>) -> Vec<String> {
    std::iter::once(name.to_owned()).chain(args).collect()
}

fn parse<T: Parser>(role: &str, args: Vec<String>) -> T {
    T::parse_from(with_name(role, args))
}

/// A process by which a person finds a pod.
#[derive(Debug, clap::Parser)]
struct Stay {
    /// The pod's name, for `pgrep`.
    #[arg(long)]
    pod: String,
}

async fn stay(stay: Stay) -> anyhow::Result<()> {
    asked_to_end().await;
    drop(stay.pod);
    Ok(())
}

/// A role is one thread.
fn block_on(role: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, role)
}

/// Resolves when whoever started this role closes its input.
async fn asked_to_end() {
    let (tx, rx) = tokio::sync::oneshot::channel();
    // Not tokio's standard input: its thread would keep the runtime from ending.
    std::thread::spawn(move || {
        input_ended();
        let _ = tx.send(());
    });
    let _ = rx.await;
}

/// Returns when whoever started this role closes its input.
fn input_ended() {
    let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
}

/// The last line of a role.
#[expect(clippy::print_stdout, reason = "standard output is how a role answers")]
fn answer(result: &impl Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(result)?);
    Ok(())
}

/// Milliseconds of the machine's clock: comparable between the processes of a test.
#[must_use]
pub fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn arguments_of_roles_do_not_contradict_each_other() {
        bulk::Args::command().debug_assert();
        hold::Args::command().debug_assert();
        load::Args::command().debug_assert();
        servers::Args::command().debug_assert();
    }
}
