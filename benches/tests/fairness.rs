//! The comparison of neighbours works from end to end. The figures say nothing: the run is short,
//! and the program is not optimised.

use std::process::{Command, ExitCode};

use anyhow::{Context as _, ensure};
use libtest_mimic::{Arguments, Failed, Trial};

const COMPARE: &str = "__compare";

fn main() -> ExitCode {
    // The comparison runs its own program again, with its arguments or in a role.
    let first = std::env::args().nth(1).unwrap_or_default();
    if first == harness::enter::ROLE || first == COMPARE {
        let own = usize::from(first == COMPARE);
        return benches::fairness::main_with(std::env::args().skip(1 + own));
    }
    let trial = Trial::test("a_short_run_compares_every_load_in_both_places", || {
        run().map_err(|error| Failed::from(format!("{error:#}")))
    });
    libtest_mimic::run(&Arguments::from_args(), vec![trial]).exit_code()
}

fn run() -> anyhow::Result<()> {
    let json = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("fairness-{}.json", std::process::id()));
    let output = Command::new("/proc/self/exe")
        .args([COMPARE, "--secs", "0.5", "--rounds", "1", "--json"])
        .arg(&json)
        .output()?;
    let [told, complaint] = [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it));
    ensure!(output.status.success(), "{}: {told}{complaint}", output.status);
    let run: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&json)?)?;
    std::fs::remove_file(&json)?;
    let samples = run["samples"].as_array().context("no samples")?;
    ensure!(samples.len() == 8, "{} samples", samples.len());
    for sample in samples {
        ensure!(sample["p99_us"].as_u64() > Some(0) && sample["failed"] == 0, "{sample}");
        let moved = sample["neighbour"].as_str().context("no neighbour")?;
        let nothing = if sample["load"] == "unread" { "0.0 Gbit/s" } else { "" };
        let quiet = ["nothing", "unread"].iter().any(|load| sample["load"] == *load);
        ensure!(quiet == (moved == nothing), "{sample}");
    }
    ensure!(told.contains("1,200 new connections per second"), "{told}");
    Ok(())
}
