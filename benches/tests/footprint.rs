//! The measurement of memory works from end to end. The figures say nothing: the mesh is small, and
//! the program is not optimised.

use std::process::{Command, ExitCode};

use anyhow::{Context as _, ensure};
use libtest_mimic::{Arguments, Failed, Trial};

const MEASURE: &str = "__measure";

fn main() -> ExitCode {
    // The measurement runs its own program again, with its arguments or in a role.
    let first = std::env::args().nth(1).unwrap_or_default();
    if first == harness::enter::ROLE || first == MEASURE {
        let own = usize::from(first == MEASURE);
        return benches::footprint::main_with(std::env::args().skip(1 + own));
    }
    let trial = Trial::test("a_small_mesh_is_measured_before_and_after_it_grows", || {
        run().map_err(|error| Failed::from(format!("{error:#}")))
    });
    libtest_mimic::run(&Arguments::from_args(), vec![trial]).exit_code()
}

fn run() -> anyhow::Result<()> {
    let json = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("footprint-{}.json", std::process::id()));
    let output = Command::new("/proc/self/exe")
        .args([MEASURE, "--settle", "1", "--few", "100", "--many", "2500", "--routes", "100"])
        .arg("--json")
        .arg(&json)
        .output()?;
    let [told, complaint] = [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it));
    ensure!(output.status.success(), "{}: {told}{complaint}", output.status);
    let run: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&json)?)?;
    std::fs::remove_file(&json)?;
    let figures = run["figures"].as_array().context("no figures")?;
    ensure!(figures.len() == 5, "{} figures", figures.len());
    for figure in figures {
        let rss = figure["memory"]["rss_kib"].as_u64();
        ensure!(rss > Some(1_000) && figure["peak_kib"].as_u64() >= rss, "{figure}");
    }
    ensure!(told.contains("bytes for each one more"), "{told}");
    Ok(())
}
