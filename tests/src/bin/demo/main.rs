//! `cargo demo`: a mesh of two nodes on this machine, real traffic through it, and a report.
//!
//! Needs neither root nor a cluster: pods are network namespaces inside a user namespace, which the
//! kernel removes with the last process.

mod faults;
mod flows;
mod market;
mod report;
mod restart;
mod scene;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser;

use scene::Scene;

/// A service mesh on this machine, without root and without a cluster.
///
/// Builds two nodes, a certificate authority, a ztunnel per node, ten pods and a waypoint; runs
/// HTTP, gRPC, a WebSocket, a protocol where the server speaks first and a long-lived connection
/// through them; kills a replica and overloads a service; restarts one ztunnel; watches the wire
/// between the nodes; and reports what happened to each flow.
#[derive(Debug, Parser)]
#[command(name = "cargo demo --")]
struct Args {
    /// Keep everything up afterwards, and print how to enter the pods
    #[arg(long)]
    hold: bool,
}

fn main() -> ExitCode {
    // Help and mistakes are answered before any namespace is made.
    if std::env::args().nth(1).as_deref() != Some(harness::enter::ROLE) {
        Args::parse();
    }
    harness::enter::main(run)
}

fn run(args: Vec<String>) -> ExitCode {
    let args = Args::parse_from(std::iter::once("demo".to_owned()).chain(args));
    match play(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("\nthe demo could not go on: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn play(args: &Args) -> anyhow::Result<bool> {
    let mut scene = Scene::build()?;
    let mut watch = scene.watch()?;
    let flows = flows::run(&mut scene)?;
    let restart = restart::run(&mut scene)?;
    let wire = watch.finish()?;
    let held = if args.hold { Some(scene.stay()?) } else { None };
    let report = report::Report { scene: &scene, flows, restart, wire };
    let good = report.print();
    if let Some(stays) = held {
        scene::hold(&scene, &stays)?;
    }
    Ok(good)
}

/// One line of the story, at once.
#[expect(clippy::print_stdout, reason = "the demo talks to a person")]
fn say(line: &str) {
    println!("{line}");
    let _ = std::io::stdout().flush();
}
